"""Set algebra over shards when the sets are large: members travel in slices, and only those that may matter.

    union           every set, from the smallest to the largest ──────────────► gathered at the destination's shard
    intersection    the smallest set ─► kept if the next one has it ─► … ─────► gathered, or only counted
    difference      the first set ─► dropped if another one has it ─► … ──────► gathered

The sets and the destination are locked meanwhile, against those who write until the result is complete; it is put together beside the
destination and becomes it in one step. A result that the client wants to see is put together in the same way, and encoded for it in slices by the
shard that has it. Sums of scores come out as on one server: inputs are combined from the smallest to the largest.
Small sets, and what is not understood here, are left to the handler of one shard (`moves.compute`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kache.errors import WRONG_TYPE, CommandError
from kache.replies import Encoded, Reply

from .transaction import SLICE_BYTES, SLICE_ELEMENTS, Transaction, answers, stream

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["NAMES", "Request", "parse", "run_large"]

NAMES = frozenset(
    [
        *("sunionstore", "sinterstore", "sdiffstore", "zunionstore", "zinterstore", "zdiffstore"),
        *("sunion", "sinter", "sdiff", "zunion", "zinter", "zdiff", "sintercard", "zintercard"),
    ]
)
SCORED_ELEMENTS = 512
"""Members of one slice that goes into a sorted set: each takes its place in the order, which costs a few microseconds."""
RESP3 = 3
_AGGREGATES = {b"SUM": b"0", b"MIN": b"1", b"MAX": b"2"}
_BYTES = b"%d" % SLICE_BYTES
_NUMBER = re.compile(rb"[-+]?[0-9]{1,30}(\.[0-9]{1,30})?|[-+]?inf", re.IGNORECASE)


@dataclass(slots=True)
class Request:
    """What a command asks for: a result that is stored in `destination`, a reply, or a count up to `limit` (0: none)."""

    operation: str
    keys: list[bytes]
    destination: bytes | None = None
    counted: bool = False
    scored: bool = False
    with_scores: bool = False
    weights: list[float] = field(default_factory=list)
    aggregate: bytes = b"0"
    limit: int = 0
    event: str = ""

    @property
    def combines(self) -> bool:
        """Whether it knows WEIGHTS and AGGREGATE."""
        return self.scored and not self.counted and self.operation != "diff"

    @property
    def replies(self) -> bool:
        """Whether the client wants the members."""
        return self.destination is None and not self.counted


# Grammar ------------------------------------------------------------------------------------------
def parse(name: str, args: tuple[bytes, ...]) -> Request | None:
    """The request, or None for anything unusual: whoever executes the whole command words the error."""
    operation = next(each for each in ("union", "inter", "diff") if each in name)
    request = Request(operation, [], counted=name.endswith("card"), scored=name.startswith("z"), event=name)
    rest = list(args)
    if name.endswith("store"):
        request.destination = rest.pop(0)
    if request.scored or request.counted:
        count = rest.pop(0)
        if not count.isdigit() or not 1 <= int(count) <= len(rest):
            return None
        request.keys, rest = rest[: int(count)], rest[int(count) :]
    else:
        request.keys, rest = rest, []
    request.weights = [1.0] * len(request.keys)
    return request if _options(request, rest) else None


def _options(request: Request, rest: list[bytes]) -> bool:
    while rest:
        word = rest.pop(0).upper()
        if word == b"LIMIT" and request.counted and rest and rest[0].isdigit():
            request.limit = int(rest.pop(0))
        elif word == b"WITHSCORES" and request.scored and request.replies:
            request.with_scores = True
        elif word == b"AGGREGATE" and request.combines and rest and rest[0].upper() in _AGGREGATES:
            request.aggregate = _AGGREGATES[rest.pop(0).upper()]
        elif word == b"WEIGHTS" and request.combines and len(rest) >= len(request.keys):
            weights = rest[: len(request.keys)]
            if not all(map(_NUMBER.fullmatch, weights)):
                return False
            request.weights = [float(weight) for weight in weights]
            del rest[: len(request.keys)]
        else:
            return False
    return True


# In slices ----------------------------------------------------------------------------------------
async def run_large(router: Router, session: Session, request: Request) -> Reply:
    """A command of large sets, in slices; WRONGTYPE when an input is no set."""
    sizes = await _sizes(router, session, request)
    return await _Algebra(router, session, request, sizes).run()


async def _sizes(router: Router, session: Session, request: Request) -> dict[bytes, int]:
    """How many members each input has."""
    shards: dict[int, list[bytes]] = {}
    for key in dict.fromkeys(request.keys):
        shards.setdefault(router.shard_of(key), []).append(key)
    asked = [router.call(shard, "_sizes", keys, db=session.db, session=session) for shard, keys in shards.items()]
    replies = await answers(asked)
    sizes: dict[bytes, int] = {}
    for keys, reply in zip(shards.values(), replies, strict=True):
        for key, (kind, size) in zip(keys, reply, strict=True):
            if kind not in (b"set", b"none") and not (request.scored and kind == b"zset"):
                raise CommandError(WRONG_TYPE)
            sizes[key] = size
    return sizes


class _Algebra:
    """One command of large sets, under locks on all its keys."""

    def __init__(self, router: Router, session: Session, request: Request, sizes: dict[bytes, int]) -> None:
        self.router = router
        self.session = session
        self.request = request
        self.sizes = sizes
        self.found = 0
        self.expected = b"0"
        """About how many members the result has, so that its table is made in its size."""
        self.home = request.keys[0] if request.destination is None else request.destination
        """On the shard of this key the result is put together, under its name."""
        self.held: Transaction
        self.mode = [b"1" if request.scored else b"0", request.aggregate]

    async def run(self) -> Reply:
        request = self.request
        written = [] if request.destination is None else [request.destination]
        keys = [*written, *request.keys]
        async with Transaction(self.router, self.session, keys, reads=True, shares=not written) as self.held:
            inputs = list(zip(request.keys, request.weights, strict=True))
            if request.operation != "diff":
                inputs.sort(key=lambda each: self.sizes[each[0]])
            if request.operation == "union":
                # Between the largest alone and all of them, for it is not known how much they have in common.
                self.expected = b"%d" % ((max(self.sizes.values()) + sum(self.sizes.values())) // 2)
                for key, weight in inputs:
                    await self._sift(key, weight, [])
            else:
                self.expected = b"%d" % self.sizes[inputs[0][0]]
                await self._sift(*inputs[0], inputs[1:])
            await self.held.hold()
            if request.counted:
                return min(self.found, request.limit) if request.limit else self.found
            return await (self._reply() if request.replies else self._store())

    async def _store(self) -> Reply:
        size: Reply = 0
        if self.found:
            event = self.request.event.encode()
            size = await self.held.write(self.home, "the destination was written", "_build_put", event)
        else:
            await self.held.write(self.home, "the destination was removed", "del")
        await self.held.finished()
        return size

    async def _reply(self) -> Reply:
        """The result in the client's dialect: of sets a set, else an array, with scores of pairs."""
        chunks: list[bytes] = []
        count = 0
        scores, dialect = self.request.with_scores, self.session.dialect
        form = [b"%d" % dialect, b"1" if scores else b"0"]

        def ask(cursor: bytes) -> Awaitable[Any]:
            place = [self.home, self.mode[0], cursor, b"%d" % SLICE_ELEMENTS]
            return self.held.ask(self.home, "_spell", *place, *form)

        async def take(reply: list[Any]) -> None:
            nonlocal count
            await self.held.renew()
            _, count, chunk = reply
            chunks.append(chunk)

        await stream(ask, take)
        each = 2 if scores and dialect != RESP3 else 1
        return Encoded(chunks, each * count, is_set=not self.request.scored)

    # One input ------------------------------------------------------------------------------------
    async def _sift(self, key: bytes, weight: float, others: list[tuple[bytes, float]]) -> None:
        """The members of `key` that the others let through are gathered, or counted."""
        here, groups = self._filters(key, others)
        last = b"1" if self.request.counted else b"0"
        first = [b"0" if groups else last, *here]

        def ask(cursor: bytes) -> Awaitable[Any]:
            return self.held.ask(key, "_pick", key, *self.mode, _number(weight), cursor, self._slice(), _BYTES, *first)

        async def take(reply: list[Any]) -> bool:
            await self.held.renew()
            _, found, part = reply
            for number, (place, filters) in enumerate(groups):
                if not found:
                    break
                counting = last if number == len(groups) - 1 else b"0"
                found, part = await self.held.ask(place, "_keep", part, *self.mode, counting, *filters)
            if found and not self.request.counted:
                await self._gather("_gather", part)
            self.found += found
            return bool(self.request.limit) and self.found >= self.request.limit

        async def take_here(cursor: bytes) -> None:
            while True:
                await self.held.renew()
                words = [key, _number(weight), cursor, self._slice(), *here]
                cursor, found = await self._gather("_gather_key", *words)
                self.found += found
                if cursor == b"0":
                    return

        if not groups and not self.request.counted and self._shard(key) == self._shard(self.home):
            await take_here(b"0")
        else:
            await stream(ask, take)

    async def _gather(self, command: str, *words: bytes) -> Any:
        """Members are added to the result."""
        return await self.held.ask(self.home, command, self.home, *self.mode, self.expected, *words)

    def _filters(
        self, key: bytes, others: list[tuple[bytes, float]]
    ) -> tuple[list[bytes], list[tuple[bytes, list[bytes]]]]:
        """The filters on the shard of `key`, and those that follow elsewhere: (a key of that shard, filters) in turn.

        Scores are combined in the order of the inputs; where they do not matter a part visits every shard once.
        """
        drop = b"1" if self.request.operation == "diff" else b"0"
        if not self.request.combines:
            home = self._shard(key)
            others = sorted(others, key=lambda each: (self._shard(each[0]) != home, self._shard(each[0])))
        groups: list[tuple[bytes, list[bytes]]] = [(key, [])]
        for other, weight in others:
            if self._shard(other) != self._shard(groups[-1][0]):
                groups.append((other, []))
            groups[-1][1].extend((other, drop, _number(weight)))
        return groups[0][1], groups[1:]

    def _shard(self, key: bytes) -> int:
        return self.router.shard_of(key)

    def _slice(self) -> bytes:
        """Members looked at in one step: few where a few are enough."""
        most = SCORED_ELEMENTS if self.request.scored and not self.request.counted else SLICE_ELEMENTS
        if self.request.limit:
            most = min(most, max(64, 4 * (self.request.limit - self.found)))
        return b"%d" % most


def _number(value: float) -> bytes:
    return repr(value).encode()
