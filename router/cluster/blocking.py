"""Commands that wait for their keys (BLPOP and its like) in front of a Redis Cluster.

Keys of one slot: the command is sent as it is on a connection of the client's own (`exclusive`); a slot that moves wakes it
with a redirect, and it waits on at the new owner for what is left of its time. Keys of several slots: their pops are tried
without waiting, key by key in the client's order, at once and then again and again, since a wait on several nodes could
take more than one element, and would have to give the others back. Between clients that wait that way nobody is first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kache.backend.topology import moved_to
from kache.commands import TABLE, Row
from kache.commands.extract import block_position, key_positions
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, Reply
from kache.slots import slot_of_key
from kache.timeouts import block_ms, timeout_ms

from ..registry import UNBLOCKED
from .exclusive import Exclusive, NodeLost, redirect_in

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["BLOCKING"]

FIRST_POLL: Final = 0.01
LONGEST_POLL: Final = 0.1
PAUSE: Final = 0.05
CROSS_SLOT: Final = "CROSSSLOT Keys in request don't hash to the same slot"

_TIMEOUT_FIRST: Final = ("blmpop", "bzmpop")
"""The others, but for streams, say how long they wait in their last word."""


class _Wait:
    """One command of one client. `deadline` is the loop's time; None: none."""

    def __init__(self, router: Router, session: Session, row: Row, arguments: tuple[bytes, ...]) -> None:
        self.router = router
        self.session = session
        self.row = row
        self.arguments = list(arguments)
        self.director = router.remote.director
        self.loop = asyncio.get_running_loop()
        self.streams = row.name in ("xread", "xreadgroup")
        self.place = _place(row, arguments)
        spelled = (block_ms if self.streams else timeout_ms)(arguments[self.place], router.clock.now())
        self.deadline = self.loop.time() + spelled / 1000 if spelled else None
        self.connection: Exclusive | None = None
        self.task = asyncio.current_task()
        self.unblocked: Reply | None = None

    def left(self) -> float | None:
        """Seconds; None: for ever."""
        return None if self.deadline is None else max(self.deadline - self.loop.time(), 0.0)

    # What ends it ------------------------------------------------------------------------------------------------
    def unblock(self, error: bool) -> None:
        """CLIENT UNBLOCK: the node answers, so that nothing it has just taken is lost."""
        if self.connection is None:
            self.unblocked = CommandError(UNBLOCKED) if error else NULL_ARRAY
            return
        how = ["ERROR"] if error else []
        asked = self.director.ask_number(self.connection.number, "CLIENT", "UNBLOCK", str(self.connection.id), *how)
        self.loop.create_task(_quietly(asked))

    def leave(self) -> None:
        """The client is gone."""
        if self.connection is not None:
            self.connection.close()
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> Reply:
        self.session.block_with(self)
        try:
            slots = {slot_of_key(self.arguments[place]) for place in key_positions(self.row, tuple(self.arguments))}
            if len(slots) <= 1:
                return await self.on_one_node(slots.pop() if slots else 0)
            polled = _POLLED.get(self.row.name)
            if polled is None:
                raise CommandError(CROSS_SLOT)
            return await self.by_polling(polled)
        finally:
            self.session.unblocked()

    # One slot ----------------------------------------------------------------------------------------------------
    async def on_one_node(self, slot: int) -> Reply:
        limit = self.loop.time() + self.router.config.backend_wait_ms / 1000
        target: int | None = None
        while True:
            number = target if target is not None else self.director.map[slot]
            try:
                if number is None:
                    raise NodeLost(f"slot {slot} has no owner", sent=False)
                reply = await self.ask(number, asking=target is not None)
            except NodeLost as lost:
                if lost.sent and "readonly" not in self.row.flags:
                    text = "UNCERTAIN the node was lost before it answered; the command was executed once or not at all"
                    raise CommandError(text) from None
                reply = CommandError(f"CLUSTERDOWN slot {slot} has no reachable owner ({lost})")
            kind = redirect_in(reply)
            if not kind:
                if number is not None:
                    self.director.has_written(self.session, number)
                return reply
            if self.unblocked is not None:
                return self.unblocked
            if self.deadline is not None and self.loop.time() >= self.deadline:
                return NULL_ARRAY
            if kind == "WAIT" and self.loop.time() > limit:
                raise CommandError(f"{reply.message.rstrip('.')}; nothing was executed")
            target = None
            if kind == "WAIT":
                self.director.lost_map()
                await asyncio.sleep(PAUSE)
                continue
            assert number is not None
            found = moved_to(reply.message.encode(), self.director.nodes[number].address)
            if found is not None and kind == "MOVED":
                self.director.has_moved(slot, found[1])
            elif found is not None:
                target = self.director.number_of(found[1])
            limit = self.loop.time() + self.router.config.backend_wait_ms / 1000

    async def ask(self, number: int, *, asking: bool) -> Reply:
        one = await self.director.pool.take(number, self.session)
        self.connection = one
        try:
            words = self.words()
            if asking:
                return (await one.ask_all([(b"ASKING",), words]))[1]
            return await one.ask(*words)
        finally:
            self.connection = None
            self.director.pool.give_back(one)

    def words(self) -> list[bytes]:
        """The command with what is left of its time."""
        words = [self.row.name.upper().encode(), *self.arguments]
        left = self.left()
        if left is not None:
            spelled = b"%d" % max(round(left * 1000), 1) if self.streams else b"%.3f" % max(left, 0.001)
            words[self.place + 1] = spelled
        return words

    # Several slots -----------------------------------------------------------------------------------------------
    async def by_polling(self, polled: Callable[[_Wait], list[tuple[bytes, list[bytes]]]]) -> Reply:
        pause = FIRST_POLL
        tries = polled(self)
        while True:
            for key, words in tries:
                slot = slot_of_key(key)
                reply = await self.router.remote.ask_slot(self.session, slot, words)
                if reply is not None and reply is not NULL_ARRAY and reply != []:
                    return _shaped(self.row.name, key, reply)
                if self.unblocked is not None:
                    return self.unblocked
            left = self.left()
            if left is not None and left <= 0:
                return NULL_ARRAY
            await asyncio.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, LONGEST_POLL)


def _place(row: Row, arguments: tuple[bytes, ...]) -> int:
    """Where a command says how long it waits."""
    if row.name in ("xread", "xreadgroup"):
        return block_position(arguments)
    return 0 if row.name in _TIMEOUT_FIRST else len(arguments) - 1


def _pops(name: bytes) -> Callable[[_Wait], list[tuple[bytes, list[bytes]]]]:
    return lambda wait: [(key, [name, key]) for key in wait.arguments[:-1]]


def _multiple(name: bytes) -> Callable[[_Wait], list[tuple[bytes, list[bytes]]]]:
    def tries(wait: _Wait) -> list[tuple[bytes, list[bytes]]]:
        number = int(wait.arguments[1])
        keys, rest = wait.arguments[2 : 2 + number], wait.arguments[2 + number :]
        if not rest:
            raise CommandError("ERR syntax error")
        return [(key, [name, b"1", key, *rest]) for key in keys]

    return tries


_POLLED: Final = {
    "blpop": _pops(b"LPOP"),
    "brpop": _pops(b"RPOP"),
    "bzpopmin": _pops(b"ZPOPMIN"),
    "bzpopmax": _pops(b"ZPOPMAX"),
    "blmpop": _multiple(b"LMPOP"),
    "bzmpop": _multiple(b"ZMPOP"),
}


def _shaped(name: str, key: bytes, reply: Any) -> Reply:
    """As the waiting command answers what the other one has found."""
    if name in ("blpop", "brpop"):
        return [key, reply]
    if name in ("bzpopmin", "bzpopmax"):
        first = reply[0] if isinstance(reply[0], list) else reply
        return [key, *first]
    return reply


async def _quietly(question: Any) -> None:
    try:
        await question
    except Exception:
        return  # a node that is gone has woken its client by that


def _handler(row: Row) -> Callable[..., Any]:
    async def wait(router: Router, session: Session, *arguments: bytes) -> Reply:
        reply = await _Wait(router, session, row, arguments).run()
        if isinstance(reply, CommandError):
            raise reply
        return reply

    return wait


BLOCKING: Final = {row.key: _handler(row) for row in TABLE if "blocking" in row.flags and row.route == "move"}
"""By row, as the handlers in `commands`; XREAD and XREADGROUP among them are for those that say BLOCK."""
