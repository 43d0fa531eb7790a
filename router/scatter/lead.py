"""EXEC when a queued command takes several steps, or waits for somebody: a coroutine executes one after the other.

Everything happens under the locks of one transaction, so nobody sees it before it is over; with a log, all of it counts after
a crash, or nothing. Commands for single shards
that follow one another are sent together; the steps of a move, and what the router answers itself, wait for what came
before.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from kache.commands import Row
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, Encoded, Reply
from kache.wire.codec import encode_elements

from ..registry import LOCALS, MERGES, MOVES, NeedsMove, Part, move_of
from . import planner
from .outcome import failure_of
from .transaction import Dirty, Transaction, raw_slots

if TYPE_CHECKING:
    from ..mux.multiplexer import Link, Queue, Router, Session

__all__ = ["lead"]

NOT_DONE = frozenset({"TIMEOUT", "UNCERTAIN", "TRYAGAIN", "CLUSTERDOWN"})
"""Errors that are no answer of a command: it may not have been executed although EXEC was."""
MAYBE_DONE = frozenset({"TIMEOUT", "UNCERTAIN"})
"""Those of them behind which it may have been executed."""


async def lead(router: Router, session: Session, queue: Queue, watched: Mapping[Link, set[int]] | None) -> Reply:
    """The replies of all that is queued; null when something watched has changed, EXECABORT when it is refused."""
    transaction = Transaction(router, session)
    transaction.isolated = True
    transaction.needs_room = queue.needs_room
    transaction.writes = queue.writes
    slots: dict[int, set[int]] = {shard: set(own) for shard, own in queue.slots_by_shard(router).items()}
    for link, own in (watched or {}).items():
        slots.setdefault(link.index, set()).update(own)
    if queue.everything:
        transaction.places = dict.fromkeys(range(router.shard_count), b"")
    else:
        transaction.places = {shard: raw_slots(own) for shard, own in slots.items()}
    transaction.watched = frozenset(link.index for link in watched or {})
    try:
        async with transaction:
            return await _Leader(router, session, transaction).run(queue)
    except Dirty:
        return NULL_ARRAY
    except CommandError as error:
        if error.code in ("OOM", "LOADING", "MISCONF"):
            raise CommandError(f"EXECABORT Transaction discarded because of: {error.message}") from None
        raise
    finally:
        if watched:
            session.unwatch_on(watched)


class _Leader:
    """One such EXEC."""

    def __init__(self, router: Router, session: Session, transaction: Transaction) -> None:
        self.router = router
        self.session = session
        self.transaction = transaction
        self.encoded: list[bytes] = []
        self.under_way: list[tuple[Awaitable[Reply], bool]] = []
        """What was asked and is not answered, and whether it writes."""
        self.done = 0
        self.failures: list[CommandError] = []
        self.written = False
        """Something was changed, or may have been."""

    async def run(self, queue: Queue) -> Reply:
        commands = queue.commands_of()
        try:
            for number, (row, args, _) in enumerate(commands):
                await self.transaction.renew()
                if queue.denied is not None and number in queue.denied:
                    await self._settle()
                    self._take(queue.denied[number], False)
                else:
                    await self._execute(row, args)
        except CommandError as error:
            self.failures.append(error)
        await self._settle()
        if self.failures:
            if self.written:
                # The transaction answers so, whatever comes behind it.
                self.transaction.unsafe = f"{self.done} of {len(commands)} commands were executed"
            raise CommandError("; ".join(dict.fromkeys(error.message for error in self.failures)))
        if self.written:
            self.transaction.unsafe = "all commands were executed"
        await self.transaction.finished()
        return Encoded(self.encoded, len(commands))

    async def _execute(self, row: Row, args: tuple[bytes, ...]) -> None:
        """Begins a command that single shards answer; carries out any other."""
        if row.route == "local":
            await self._settle()
            self._take(await self._call(LOCALS[row.key], args), False)
            return
        parts = None
        if row.key not in MOVES or row.route in ("move", "script"):
            try:
                parts = planner.split(row, args, self.router)
            except NeedsMove:
                pass
            except CommandError as error:
                await self._settle()
                self._take(error, False)
                return
        if parts is None:
            await self._settle()
            self._take(await self._call(move_of(row), args), row.is_write)
        else:
            self.under_way.append((self._split(row, args, parts), row.is_write))

    async def _call(self, handler: Any, args: tuple[bytes, ...]) -> Reply:
        try:
            reply = handler(self.router, self.session, *args)
            return await reply if inspect.isawaitable(reply) else reply
        except CommandError as error:
            return error

    def _split(self, row: Row, args: tuple[bytes, ...], parts: list[Part]) -> Awaitable[Reply]:
        """All parts are asked now; the reply made of theirs."""
        db, session = self.session.db, self.session
        asked = [self.router.call(part.shard, part.command, list(part.args), db, session) for part in parts]

        async def joined() -> Reply:
            replies: list[Reply] = []
            for each in asked:
                try:
                    replies.append(await each)
                except CommandError as error:
                    replies.append(error)
            if len(parts) == 1:
                return replies[0]
            failure = failure_of(row.is_write, [part.shard for part in parts], replies)
            return failure if failure is not None else MERGES[row.merge](_Split(row, args, parts), replies)

        return joined()

    async def _settle(self) -> None:
        """What is under way is answered."""
        under_way, self.under_way = self.under_way, []
        for each, writes in under_way:
            self._take(await each, writes)

    def _take(self, value: Reply, writes: bool) -> None:
        if isinstance(value, CommandError) and value.code in NOT_DONE:
            self.failures.append(value)
            self.written = self.written or (writes and value.code in MAYBE_DONE)
        else:
            self.done += 1
            self.written = self.written or (writes and not isinstance(value, CommandError))
        self.encoded.append(encode_elements([value], self.session.dialect))


class _Split:
    """A command that several shards have executed, as merges see it."""

    def __init__(self, row: Row, args: tuple[bytes, ...], parts: list[Part]) -> None:
        self.row, self.args, self.parts = row, args, parts
