"""A transaction that a coroutine leads: locks on slots of several shards, steps under them, and streams of parts.

While a slot is locked others wait for it and see no state in between, so that a value may travel in slices that keep no
shard and no router from others:

    async with Transaction(router, session, [a, b]) as held:
        first = await held.read(a, "_read_part", …)
        await held.let_read()                                                who only reads need not wait for what is large
        await stream(lambda at: held.ask(a, "_read_part", …, at), take)      the next part is under way meanwhile
        await held.hold()                                                    nobody passes any more, nothing was lost
        await held.write(b, "the destination was written", "_build_put", …)
        await held.finished()                                                what the steps have changed counts

Promises: an error before the first `write` means that nothing was changed, and says so (TRYAGAIN, or the shard's own);
behind it an error becomes UNCERTAIN and names what was done. What is under construction goes with the locks. Inside a
transaction of the same session (EXEC) another one joins it.

The locks themselves, and why no two transactions wait for one another, are in mux/transactions.pxi and in the shard.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Container, Iterable
from typing import TYPE_CHECKING, Any

from kache.errors import CommandError
from kache.replies import Reply
from kache.slots import slot_of_key
from kache.wire import link

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SLICE_BYTES", "SLICE_ELEMENTS", "TOO_SLOW", "Dirty", "Transaction", "answers", "raw_slots", "stream"]

SLICE_BYTES = 256 * 1024
"""Bytes of one part: a shard copies them in well under a millisecond, a router twice in one."""
SLICE_ELEMENTS = 8192
"""Elements of one part: a shard takes one to two milliseconds to insert so many."""
TIMEOUTS = frozenset({"TIMEOUT", "UNCERTAIN"})
TOO_SLOW = "TRYAGAIN other transactions held the keys for too long; nothing was executed"
LOG_TOO_SLOW = "TRYAGAIN the log could not be written for too long; nothing was executed"
LOST = "TRYAGAIN nothing was changed: the locks of this command have ended"
_ANY_SLOT = struct.pack("<H", 0xFFFF)
"""For a shard where no slot in particular is to be locked."""


class Dirty(Exception):
    """A watched key has changed."""


def raw_slots(slots: Iterable[int]) -> bytes:
    """Slots as a lock names them; none of them is not all of them."""
    return b"".join(struct.pack("<H", slot) for slot in sorted(slots)) or _ANY_SLOT


class Transaction:
    """Locks on the slots of `keys`.

    `reads`: who only reads passes them until `hold`. `shares`: it only reads itself, beside others who do. `writes`: it
    changes something on several shards; with a log all of that is there after a crash of the whole cluster, or nothing: what
    its steps have changed counts once every shard has been told, behind the last one (`finished`), that all of it is there.
    """

    def __init__(
        self,
        router: Router,
        session: Session,
        keys: Iterable[bytes] = (),
        *,
        reads: bool = False,
        shares: bool = False,
        writes: bool = False,
    ) -> None:
        self.router = router
        self.session = session
        self.unsafe = ""
        """What has been done, for people; "" as long as nothing was changed."""
        self.isolated = False
        """Nobody passes, whatever is asked: what was executed before is not to be seen yet."""
        self.needs_room = False
        self.writes = writes
        self.watched: Container[int] = ()
        """Shards where a watched key may have changed."""
        self.places: dict[int, bytes] = {}
        self._number = 0
        self._reads = reads
        self._shares = link.SHARES if shares else 0
        self._until = 0
        self._log_is_slow = False
        self._ends = router.clock.now() + router.config.command_timeout_ms
        self._joined: Transaction | None = None
        slots: dict[int, set[int]] = {}
        for key in keys:
            slots.setdefault(router.shard_of(key), set()).add(slot_of_key(key))
        for shard, own in slots.items():
            self.places[shard] = raw_slots(own)
        self._steps = 0

    # Locks --------------------------------------------------------------------------------------------
    async def __aenter__(self) -> Transaction:
        self._joined = self.session.led
        if self._joined is not None:
            return self
        self._number = self.router.new_transaction()
        if self.writes and self.router.config.appendonly and len(self.places) > 1:
            self._steps = link.STEPS
        await self._lock()
        self.session.transaction = self._number
        self.session.led = self
        return self

    async def _lock(self) -> None:
        """All locks at once; if one is not to be had, one after the other in the order of the shards, each in its turn."""
        ends = self.router.clock.now() + self.router.config.request_timeout_ms
        try:
            if await self._take(self.places):
                return
            while True:
                self._unlock()
                soonest = self.router.clock.now() + self.router.config.transaction_hold_ms
                for shard in sorted(self.places):
                    if not await self._take([shard], link.WAITS):
                        raise CommandError(self._too_slow())
                # The first of them ends first.
                self._until = soonest
                if self._fresh() or await self._extended():
                    return
                if self.router.clock.now() >= ends:
                    raise CommandError(self._too_slow())
        except BaseException as error:
            self._unlock()
            if isinstance(error, CommandError) and error.code in TIMEOUTS:
                if self._log_is_slow:
                    raise CommandError(LOG_TOO_SLOW) from None
                raise CommandError(f"TRYAGAIN nothing was changed: {error.message}") from None
            raise

    async def _take(self, shards: Iterable[int], more: int = 0) -> bool:
        """Whether all of these grant their lock."""
        self._until = self.router.clock.now() + self.router.config.transaction_hold_ms
        found = await answers([self._ask_lock(shard, more) for shard in shards])
        if link.DIRTY in found:
            raise Dirty
        self._log_is_slow |= link.LOG_IS_SLOW in found
        return all(granted == link.GRANTED for granted in found)

    def _too_slow(self) -> str:
        """Why the locks were not to be had in time."""
        return LOG_TOO_SLOW if self._log_is_slow else TOO_SLOW

    def _ask_lock(self, shard: int, more: int) -> Awaitable[Any]:
        mode = more | self._shares | self._steps | (link.LETS_READ if self._reads and not self.isolated else 0)
        mode |= link.NEEDS_ROOM if self.needs_room else 0
        mode |= link.CHECKS if shard in self.watched else 0
        words = [struct.pack("<Q", self._number), struct.pack("<q", self._until), bytes([mode]), self.places[shard]]
        return self.router.call(shard, "_lock", words, session=self.session)

    def _fresh(self) -> bool:
        """Whether there is time enough for the next step."""
        return self.router.clock.now() < self._until - self.router.config.transaction_hold_ms // 2

    async def _extended(self) -> bool:
        return await self._take(self.places, link.EXTENDS)

    def _unlock(self) -> None:
        for shard in self.places:
            self.router.tell(shard, "_unlock", [struct.pack("<Q", self._number)], self.session)

    async def renew(self) -> None:
        """To be called now and then: the locks go on. TRYAGAIN when one is lost, or the command takes too long."""
        root = self._joined or self
        if self.router.clock.now() >= self._ends:
            raise CommandError("TRYAGAIN nothing was changed: the command took longer than command-timeout-ms")
        if not root._fresh() and not await root._extended():
            raise CommandError(LOST)

    async def let_read(self) -> None:
        """Until `hold` who only reads the keys need not wait. Of no effect inside another transaction."""
        if self._joined is None:
            self._reads = True
            if not await self._extended():
                raise CommandError(LOST)

    async def hold(self) -> None:
        """Every lock still holds, and does for a while, against everybody: what was read under them is whole."""
        root = self._joined or self
        root._reads = False
        if not await root._extended():
            raise CommandError(LOST)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._joined is None:
            self.session.transaction = 0
            self.session.led = None
            # Where steps may be lost the locks hold to their time: should everything be killed, as one shard was, then no shard
            # says that they are over, and all of them are left out.
            if not (self._steps and self.unsafe):
                self._unlock()
        if self.unsafe and isinstance(error, CommandError):
            raise CommandError(f"UNCERTAIN {self.unsafe}, then: {error.message}") from None
        if isinstance(error, CommandError) and error.code in TIMEOUTS and not self.unsafe:
            raise CommandError(f"TRYAGAIN nothing was changed: {error.message}") from None

    # Steps --------------------------------------------------------------------------------------------
    def ask(self, key: bytes, command: str, *args: bytes, db: int | None = None) -> Awaitable[Any]:
        """A command on the key's shard, its arguments as given."""
        database = self.session.db if db is None else db
        return self.router.call(self.router.shard_of(key), command, list(args), db=database, session=self.session)

    async def read(self, key: bytes, command: str, *args: bytes, db: int | None = None) -> Any:
        """A reading command on the key."""
        return await self.ask(key, command, key, *args, db=db)

    async def write(self, key: bytes, done: str, command: str, *args: bytes, db: int | None = None) -> Any:
        """A writing command on the key; `done` says, for people, what has happened once it succeeded."""
        return await self.perform(key, done, command, key, *args, db=db)

    async def perform(self, place: bytes, done: str, command: str, *args: bytes, db: int | None = None) -> Any:
        """The same for any arguments, on the shard of the key `place`."""
        before, self.unsafe = self.unsafe, self.unsafe or f"it is not known whether {done}"
        try:
            reply = await self.ask(place, command, *args, db=db)
        except CommandError as error:
            if error.code not in TIMEOUTS:
                self.unsafe = before  # refused: this step changed nothing
            raise
        self.unsafe = done
        return reply

    async def finished(self) -> None:
        """The last step is done, and with it the transaction, unless it has joined another one. UNCERTAIN when a shard does
        not note that."""
        if self._joined is None and self._steps:
            if not self._fresh() and not await self._extended():
                raise CommandError(LOST)
            shards = b"".join(struct.pack("<H", shard) for shard in sorted(self.places))
            words = [struct.pack("<Q", self._number), shards]
            await answers([self.router.call(shard, "_commit", words, session=self.session) for shard in self.places])
        self.unsafe = ""


async def answers(asked: Iterable[Awaitable[Any]]) -> list[Any]:
    """The replies to what was asked at once; the first error, once all have answered."""
    replies: list[Any] = []
    failure = None
    for each in asked:
        try:
            replies.append(await each)
        except CommandError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return replies


async def stream(
    ask: Callable[[bytes], Awaitable[Any]], take: Callable[[Any], Awaitable[bool | None]], cursor: bytes = b"0"
) -> None:
    """Asks for part after part, each reply [where the next begins, …], and awaits `take` of it, until it says True.

    The next part is under way while one is taken. A reply that is none ends the stream: its key has gone.
    """
    asked: Any = ask(cursor)
    while asked is not None:
        reply: Reply = await asked
        if not isinstance(reply, list):
            raise CommandError("TRYAGAIN nothing was changed: the key has gone meanwhile")
        asked = ask(reply[0]) if reply[0] != b"0" else None
        try:
            stop = await take(reply)
        except BaseException:
            if asked is not None:
                asked.cancel()
            raise
        if stop:
            if asked is not None:
                asked.cancel()
            return
