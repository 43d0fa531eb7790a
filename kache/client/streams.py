"""Streams through the clients: `Client.stream(key)` and `AsyncClient.stream(key)`.

A program that works through a stream as one of several takes its share with `consume`, and says `ack` when an entry is done:

    for entry in cache.stream("orders").consume("billing", "worker-3"):
        book(entry.fields)
        entry.ack()

What a worker has been given and not acknowledged comes to it again when it starts anew, or to another one when nobody has
seen to it for `claim_after` seconds: each entry is worked on at least once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal

from kache.client import codec as shape
from kache.client.codec import Argument, Reply
from kache.client.commands import Key, S
from kache.client.errors import CommandError

if TYPE_CHECKING:
    from kache.client.asynchronous import AsyncClient
    from kache.client.blocking import Client

__all__ = ["AsyncEntry", "AsyncStream", "Entry", "Stream"]

_WAIT_SECONDS: Final = 5.0
"""How long one question waits; between two of them it looks for what others have left."""


@dataclass(frozen=True, slots=True)
class _Fields(Generic[S]):
    """One entry. A field that is named twice has its last value in `fields`."""

    id: str
    fields: dict[S, S]


@dataclass(frozen=True, slots=True)
class Entry(_Fields[S]):
    """An entry of a stream. `ack` is there for what `Stream.consume` gives."""

    _ack: Callable[[], int] | None = None

    def ack(self) -> bool:
        """It is done; False when it was acknowledged before."""
        if self._ack is None:
            raise ValueError(f"entry {self.id} was read without a group: there is nothing to acknowledge")
        return bool(self._ack())


@dataclass(frozen=True, slots=True)
class AsyncEntry(_Fields[S]):
    """An entry of a stream. `ack` is there for what `AsyncStream.consume` gives."""

    _ack: Callable[[], Awaitable[int]] | None = None

    async def ack(self) -> bool:
        """It is done; False when it was acknowledged before."""
        if self._ack is None:
            raise ValueError(f"entry {self.id} was read without a group: there is nothing to acknowledge")
        return bool(await self._ack())


# What is said and what is answered, the same for both ----------------------------------------------
def _id(raw: Any) -> str:
    return raw if isinstance(raw, str) else bytes(raw).decode()


def _pairs(reply: Reply) -> list[tuple[str, dict[Any, Any]]]:
    """(id, fields) of entries; those that were deleted meanwhile are left out."""
    return [
        (_id(number), dict(zip(flat[::2], flat[1::2], strict=True)))
        for number, flat in (reply or ())
        if flat is not None
    ]


def _of_read(reply: Reply) -> list[tuple[str, dict[Any, Any]]]:
    """The entries of a read of one stream, none when the time was over."""
    return _pairs(reply[0][1]) if reply else []


def _add_words(key: Key, fields: Mapping[Any, Argument], id: str, maxlen: int | None) -> list[Argument]:
    if not fields:
        raise ValueError("an entry needs at least one field")
    limit: list[Argument] = [] if maxlen is None else ["maxlen", "~", maxlen]
    return ["xadd", key, *limit, id, *(word for pair in fields.items() for word in pair)]


def _range_words(key: Key, first: str, last: str, count: int | None, reverse: bool) -> list[Argument]:
    tail: list[Argument] = [] if count is None else ["count", count]
    return ["xrevrange", key, last, first, *tail] if reverse else ["xrange", key, first, last, *tail]


def _read_words(key: Key, group: str, consumer: str, count: int, behind: str, seconds: float | None) -> list[Argument]:
    block: list[Argument] = [] if seconds is None else ["block", max(int(seconds * 1000), 1)]
    return ["xreadgroup", "group", group, consumer, "count", count, *block, "streams", key, behind]


def _claim_words(key: Key, group: str, consumer: str, count: int, idle: float) -> list[Argument]:
    return ["xautoclaim", key, group, consumer, int(idle * 1000), "0", "count", count]


def _exists(error: CommandError) -> None:
    """Raises it again unless it only says that the group is there."""
    if not str(error).startswith("BUSYGROUP"):
        raise error


def _check(count: int, seconds: float | None, claim_after: float | None) -> None:
    if count < 1:
        raise ValueError(f"count is the number of entries asked for at once, not {count}")
    for name, value in (("seconds", seconds), ("claim_after", claim_after)):
        if value is not None and value < 0:
            raise ValueError(f"{name} cannot be negative: {value}")


class Stream(Generic[S]):
    """One stream of a `Client`; its key need not exist."""

    def __init__(self, client: Client[S], key: Key) -> None:
        self._client: Client[S] = client
        self.key = key

    def __len__(self) -> int:
        return int(self._client.execute("xlen", self.key))

    def add(self, fields: Mapping[Any, Argument], *, id: str = "*", maxlen: int | None = None) -> str:
        """Appends an entry and returns its id. ``maxlen``: about so many are kept."""
        return _id(self._client.execute(*_add_words(self.key, fields, id, maxlen)))

    def range(
        self, first: str = "-", last: str = "+", *, count: int | None = None, reverse: bool = False
    ) -> list[Entry[S]]:
        """The entries between two ids, both included; ``reverse``: the last one first."""
        reply = self._client.execute(*_range_words(self.key, first, last, count, reverse))
        return [Entry(number, fields) for number, fields in _pairs(reply)]

    def ack(self, group: str, *ids: str) -> int:
        """The group is done with these entries; how many were pending."""
        return int(self._client.execute("xack", self.key, group, *ids)) if ids else 0

    def make_group(self, group: str, behind: Literal["$"] | str = "0") -> None:
        """A group that reads what comes behind an id; nothing if it is there already."""
        try:
            self._client.execute("xgroup", "create", self.key, group, behind, "mkstream")
        except CommandError as error:
            _exists(error)

    def consume(
        self,
        group: str,
        consumer: str,
        *,
        count: int = 10,
        seconds: float | None = None,
        claim_after: float | None = 60.0,
    ) -> Iterator[Entry[S]]:
        """Entries for one consumer of a group, which is made if need be and then reads from the first entry on.

        First come those that it was given in an earlier life and has not acknowledged; then, again and again, those that
        others have left for ``claim_after`` seconds (None: never), and new ones, ``count`` at a time. Ends when nothing has
        come for ``seconds``; None: never.
        """
        _check(count, seconds, claim_after)
        self.make_group(group)
        yield from self._left_behind(group, consumer, count)
        waited = 0.0
        while True:
            found = self._claimed(group, consumer, count, claim_after)
            if not found:
                step = _WAIT_SECONDS if seconds is None else min(_WAIT_SECONDS, seconds - waited)
                words = _read_words(self.key, group, consumer, count, ">", step)
                found = _of_read(self._client._wait(words, shape.as_is, step))
                waited = 0.0 if found else waited + step
            for number, fields in found:
                yield self._entry(group, number, fields)
            if seconds is not None and not found and waited >= seconds:
                return

    def _entry(self, group: str, number: str, fields: dict[S, S]) -> Entry[S]:
        return Entry(number, fields, lambda: self.ack(group, number))

    def _left_behind(self, group: str, consumer: str, count: int) -> Iterator[Entry[S]]:
        behind = "0"
        while True:
            reply = self._client.execute(*_read_words(self.key, group, consumer, count, behind, None))
            raw = reply[0][1] if reply else []
            for number, fields in _pairs(raw):
                yield self._entry(group, number, fields)
            if len(raw) < count:
                return
            behind = _id(raw[-1][0])

    def _claimed(
        self, group: str, consumer: str, count: int, claim_after: float | None
    ) -> Sequence[tuple[str, dict[S, S]]]:
        if claim_after is None:
            return []
        return _pairs(self._client.execute(*_claim_words(self.key, group, consumer, count, claim_after))[1])


class AsyncStream(Generic[S]):
    """One stream of an `AsyncClient`; its key need not exist."""

    def __init__(self, client: AsyncClient[S], key: Key) -> None:
        self._client: AsyncClient[S] = client
        self.key = key

    async def length(self) -> int:
        """How many entries it has."""
        return int(await self._client.execute("xlen", self.key))

    async def add(self, fields: Mapping[Any, Argument], *, id: str = "*", maxlen: int | None = None) -> str:
        """Appends an entry and returns its id. ``maxlen``: about so many are kept."""
        return _id(await self._client.execute(*_add_words(self.key, fields, id, maxlen)))

    async def range(
        self, first: str = "-", last: str = "+", *, count: int | None = None, reverse: bool = False
    ) -> list[AsyncEntry[S]]:
        """The entries between two ids, both included; ``reverse``: the last one first."""
        reply = await self._client.execute(*_range_words(self.key, first, last, count, reverse))
        return [AsyncEntry(number, fields) for number, fields in _pairs(reply)]

    async def ack(self, group: str, *ids: str) -> int:
        """The group is done with these entries; how many were pending."""
        return int(await self._client.execute("xack", self.key, group, *ids)) if ids else 0

    async def make_group(self, group: str, behind: Literal["$"] | str = "0") -> None:
        """A group that reads what comes behind an id; nothing if it is there already."""
        try:
            await self._client.execute("xgroup", "create", self.key, group, behind, "mkstream")
        except CommandError as error:
            _exists(error)

    async def consume(
        self,
        group: str,
        consumer: str,
        *,
        count: int = 10,
        seconds: float | None = None,
        claim_after: float | None = 60.0,
    ) -> AsyncIterator[AsyncEntry[S]]:
        """Entries for one consumer of a group; see `Stream.consume`."""
        _check(count, seconds, claim_after)
        await self.make_group(group)
        async for entry in self._left_behind(group, consumer, count):
            yield entry
        waited = 0.0
        while True:
            found = await self._claimed(group, consumer, count, claim_after)
            if not found:
                step = _WAIT_SECONDS if seconds is None else min(_WAIT_SECONDS, seconds - waited)
                words = _read_words(self.key, group, consumer, count, ">", step)
                found = _of_read(await self._client._wait(words, shape.as_is, step))
                waited = 0.0 if found else waited + step
            for number, fields in found:
                yield self._entry(group, number, fields)
            if seconds is not None and not found and waited >= seconds:
                return

    def _entry(self, group: str, number: str, fields: dict[S, S]) -> AsyncEntry[S]:
        return AsyncEntry(number, fields, lambda: self.ack(group, number))

    async def _left_behind(self, group: str, consumer: str, count: int) -> AsyncIterator[AsyncEntry[S]]:
        behind = "0"
        while True:
            reply = await self._client.execute(*_read_words(self.key, group, consumer, count, behind, None))
            raw = reply[0][1] if reply else []
            for number, fields in _pairs(raw):
                yield self._entry(group, number, fields)
            if len(raw) < count:
                return
            behind = _id(raw[-1][0])

    async def _claimed(
        self, group: str, consumer: str, count: int, claim_after: float | None
    ) -> Sequence[tuple[str, dict[S, S]]]:
        if claim_after is None:
            return []
        return _pairs((await self._client.execute(*_claim_words(self.key, group, consumer, count, claim_after)))[1])
