"""Handlers of XREAD and XREADGROUP, and what a router asks on behalf of one over several shards.

Each reads what is there, in the order of its keys; with nothing there and BLOCK it waits (service/blocking.py). Reading
takes nothing away: whoever waits for a key is served by the same entry, but for the members of one group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kache.errors import SYNTAX, WRONG_TYPE, CommandError
from kache.replies import NULL_ARRAY, Keyed, Reply
from kache.timeouts import block_ms

from .arguments import integer
from .registry import command
from .stream_ids import HIGHEST, id_text, parse_id
from .stream_lag import entries_read

if TYPE_CHECKING:
    from ..engine.consumer_groups import Group
    from ..engine.engine import Context, Deferred, Keyspace
    from ..engine.stream import Stream

__all__ = ["Reading"]

MOST_AFTER_WAITING: Final = 1000
"""Entries that one who has waited gets at most, without a COUNT."""
_ONLY_GROUPS: Final = "ERR The {} option is only supported by XREADGROUP. You called XREAD instead."
_UNBALANCED: Final = "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."
_NO_GROUP: Final = "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option"
_DOLLAR: Final = (
    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by "
    "specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set."
)
_GREATER: Final = (
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
)
_NEW: Final = HIGHEST
"""Stands for ``>``: what the group has not delivered yet."""


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


@dataclass(slots=True, eq=False)
class Reading:
    """One XREAD or XREADGROUP: from which keys, behind which ids, and for whom. For whoever waits it is a way to be served."""

    kind: ClassVar[str] = "stream"

    grouped: bool
    group: bytes | None = None
    consumer: bytes = b""
    count: int = -1
    no_ack: bool = False
    timeout: int | None = None
    """Milliseconds, 0 for ever; None: it does not wait."""
    keys: tuple[bytes, ...] = ()
    ids: list[int] = field(default_factory=list)

    # Arguments ------------------------------------------------------------------------------------
    def parse(self, args: tuple[bytes, ...], now_ms: int) -> tuple[bytes, ...]:
        """Reads the arguments; returns the ids as they were sent."""
        place = 0
        while place < len(args):
            word, more = args[place].upper(), len(args) - place - 1
            if word == b"BLOCK" and more:
                self.timeout = block_ms(args[place + 1], now_ms)
            elif word == b"COUNT" and more:
                self.count = integer(args[place + 1])
            elif word == b"STREAMS" and more:
                return self._checked(args[place + 1 :])
            elif word == b"GROUP" and more >= 2:
                if not self.grouped:
                    raise CommandError(_ONLY_GROUPS.format("GROUP"))
                self.group, self.consumer = args[place + 1 : place + 3]
                place += 1
            elif word == b"NOACK":
                if not self.grouped:
                    raise CommandError(_ONLY_GROUPS.format("NOACK"))
                self.no_ack = True
                place -= 1
            else:
                raise CommandError(SYNTAX)
            place += 2
        raise CommandError(SYNTAX)

    def _checked(self, words: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if len(words) % 2:
            raise CommandError(_UNBALANCED)
        if self.grouped and self.group is None:
            raise CommandError("ERR Missing GROUP option for XREADGROUP")
        if self.count <= 0:
            self.count = -1
        half = len(words) // 2
        self.keys = words[:half]
        return words[half:]

    def resolve(self, ks: Keyspace, raw_ids: tuple[bytes, ...]) -> None:
        """The ids, once the keys and groups are known to be there."""
        for key, raw in zip(self.keys, raw_ids, strict=True):
            stream = ks.stream_get(key)
            if self.group is not None and (stream is None or stream.group(self.group) is None):
                raise CommandError(_NO_GROUP.format(_text(key), _text(self.group)))
            if raw == b"$":
                if self.grouped:
                    raise CommandError(_DOLLAR)
                self.ids.append(0 if stream is None else stream.last_id)
            elif raw == b">":
                if not self.grouped:
                    raise CommandError(_GREATER)
                self.ids.append(_NEW)
            else:
                self.ids.append(parse_id(raw))

    # Reading --------------------------------------------------------------------------------------
    def read(self, ks: Keyspace) -> Keyed | None:
        """What all keys have, None for nothing."""
        found = []
        for key, behind in zip(self.keys, self.ids, strict=True):
            entries = self.entries(ks, key, behind)
            if entries is not None:
                found.append((key, entries))
        return Keyed(found) if found else None

    def entries(self, ks: Keyspace, key: bytes, behind: int) -> list[Any] | None:
        """What one key has behind an id; None for nothing, or for another type than a stream."""
        stream = ks.stream_get(key)
        if stream is None:
            return None
        if self.group is None:
            if not stream.length or stream.last_entry_id <= behind:
                return None
            return stream.range(behind + 1, HIGHEST, self.count)
        group = stream.group(self.group)
        if group is None:
            return None
        if behind != _NEW:
            return self._history(ks, key, stream, group, behind)
        if not stream.length or stream.last_entry_id <= group.last:
            return None
        return self._deliver(ks, key, stream, group)

    def _deliver(self, ks: Keyspace, key: bytes, stream: Stream, group: Group) -> list[Any]:
        """Entries that the group has not delivered yet, which is noted."""
        assert self.group is not None
        ids: list[int] = []
        found = stream.range(group.last + 1, HIGHEST, self.count, ids=ids)
        read = entries_read(stream, group, ids)
        ks.group_deliver(key, self.group, self.consumer, ids, read, not self.no_ack)
        return found

    def _history(self, ks: Keyspace, key: bytes, stream: Stream, group: Group, behind: int) -> list[Any]:
        """What the consumer has already, behind an id: each time counts as a delivery."""
        assert self.group is not None
        known = group.consumers.get(self.consumer)
        active = -1 if known is None else known.active
        ks.consumer_put(key, self.group, self.consumer, ks.now_ms, active, event="xgroup-createconsumer")
        found: list[Any] = []
        for number in group.consumers[self.consumer].from_id(min(behind + 1, HIGHEST)):
            if len(found) == self.count:
                break
            fields = stream.get(number)
            found.append([id_text(number), NULL_ARRAY if fields is None else fields])
            if fields is not None:
                times = group.pending[number].count + 1
                ks.pending_put(key, self.group, self.consumer, ks.now_ms, times, [number])
        return found

    # Waiting --------------------------------------------------------------------------------------
    def prepare_to_wait(self) -> None:
        """From here on it waits."""
        if self.count < 0:
            self.count = MOST_AFTER_WAITING

    def position(self) -> bytes:
        """The ids behind which it reads, with spaces between them; empty for one of a group, which knows its own."""
        return b"" if self.grouped else b" ".join(id_text(number) for number in self.ids)

    def take(self, ks: Keyspace, key: bytes) -> Keyed | None:
        """What one of its keys has by now, as it is answered; None for nothing."""
        for each, behind in zip(self.keys, self.ids, strict=True):
            if each == key:
                entries = self.entries(ks, key, behind)
                if entries is not None:
                    return Keyed([(key, entries)])
        return None

    def has(self, ks: Keyspace, key: bytes) -> bool:
        """Whether `take` would give something, or an error. Nothing is changed."""
        if ks.type_of(key) != self.kind:
            return self.group is not None
        stream = ks.stream_get(key)
        assert stream is not None
        behind = min(behind for each, behind in zip(self.keys, self.ids, strict=True) if each == key)
        if self.group is not None:
            group = stream.group(self.group)
            if group is None:
                return True
            behind = group.last
        return stream.length > 0 and stream.last_entry_id > behind

    def failure(self, ks: Keyspace, key: bytes) -> CommandError | None:
        """Why a reader of a group waits in vain: its key or its group is gone."""
        if self.group is None:
            return None
        if ks.type_of(key) != self.kind:
            return CommandError("UNBLOCKED the stream key no longer exists")
        stream = ks.stream_get(key)
        if stream is None or stream.group(self.group) is None:
            return CommandError("NOGROUP the consumer group this client was blocked on no longer exists")
        return None


def _parsed(ctx: Context, args: tuple[bytes, ...], *, grouped: bool) -> Reading:
    reading = Reading(grouped)
    raw_ids = reading.parse(args, ctx.keys.store.now_ms)
    reading.resolve(ctx.keys, raw_ids)
    return reading


def _read(ctx: Context, args: tuple[bytes, ...], *, grouped: bool) -> Reply | Deferred:
    reading = _parsed(ctx, args, grouped=grouped)
    found = reading.read(ctx.keys)
    if found is not None:
        return found
    if reading.timeout is None or not ctx.may_wait:
        return NULL_ARRAY
    reading.prepare_to_wait()
    until = ctx.keys.store.now_ms + reading.timeout if reading.timeout else 0
    return ctx.shard.blocking.wait(ctx, reading, reading.keys, until)


@command("xread")
def xread(ctx: Context, *args: bytes) -> Reply | Deferred:
    return _read(ctx, args, grouped=False)


@command("xreadgroup")
def xreadgroup(ctx: Context, *args: bytes) -> Reply | Deferred:
    return _read(ctx, args, grouped=True)


# For a router ---------------------------------------------------------------------------------------------
@command("_read_ids")
def read_ids(ctx: Context, raw_count: bytes, *rest: bytes) -> Reply:
    """``numkeys key… command argument…``: the ids of the whole command as they are now, after all that is checked."""
    words = rest[integer(raw_count) :]
    reading = _parsed(ctx, words[1:], grouped=words[0] == b"xreadgroup")
    return [b">" if number == _NEW and reading.grouped else id_text(number) for number in reading.ids]


@command("_read_wait")
def read_wait(ctx: Context, raw_count: bytes, *rest: bytes) -> Reply | Deferred:
    """``numkeys key… cell claim command argument…``: waits, in competition with other shards that were told the same.

    The router minds the time. NULL_ARRAY when another one has won already.
    """
    cell, claim, name, *words = rest[integer(raw_count) :]
    reading = Reading(name == b"xreadgroup")
    raw_ids = reading.parse(tuple(words), ctx.keys.store.now_ms)
    for key in reading.keys:
        if ctx.keys.type_of(key) not in (None, "stream"):
            raise CommandError(WRONG_TYPE)
    reading.resolve(ctx.keys, raw_ids)
    reading.prepare_to_wait()
    blocking = ctx.shard.blocking
    assert blocking.claims is not None
    for key in reading.keys:
        if reading.has(ctx.keys, key):
            if not blocking.claims.take(integer(cell), integer(claim), ctx.shard.index):
                return NULL_ARRAY
            return reading.take(ctx.keys, key)
    return blocking.wait(ctx, reading, reading.keys, cell=integer(cell), claim=integer(claim))
