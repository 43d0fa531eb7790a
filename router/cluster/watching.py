"""WATCH in front of a Redis Cluster: on a connection of the client's own, from WATCH to EXEC, DISCARD, UNWATCH or RESET.

Only WATCH and the block that EXEC makes of what is queued travel there; everything else goes as ever, and a node notices
whoever changes what is watched, the client itself included. All keys must have one slot. A slot that has moved, or a
connection that was lost before EXEC, is answered as a change: with the null array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kache.backend.topology import moved_to
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, OK, Reply
from kache.slots import slot_of_key

from .exclusive import Exclusive, NodeLost, redirect_in

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["execute_watched", "watch"]

CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"
MOST_HOPS = 8
LOST = "UNCERTAIN the node was lost before it answered; the transaction was executed once or not at all"


class Watch:
    """What a session watches; `leave` when that is over."""

    def __init__(self, router: Router, slot: int) -> None:
        self.director = router.remote.director
        self.slot = slot
        self.connection: Exclusive | None = None

    def leave(self) -> None:
        """Nothing is watched any more."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    async def begin(self, session: Session, keys: Sequence[bytes]) -> None:
        """Raises CommandError when the keys cannot be watched."""
        target: int | None = None
        for _ in range(MOST_HOPS):
            number = target if target is not None else self.director.map[self.slot]
            if number is None:
                break
            reply = await self._ask(session, number, keys, asking=target is not None)
            kind = redirect_in(reply)
            if not kind:
                if isinstance(reply, CommandError):
                    raise reply
                return
            self.leave()
            target = None
            found = moved_to(reply.message.encode(), self.director.nodes[number].address)
            if kind == "MOVED" and found is not None:
                self.director.has_moved(self.slot, found[1])
            elif kind == "ASK" and found is not None:
                target = self.director.number_of(found[1])
            else:
                raise CommandError(f"{reply.message.rstrip('.')}; nothing was executed")
        raise CommandError(f"CLUSTERDOWN slot {self.slot} has no reachable owner; nothing was executed")

    async def _ask(self, session: Session, number: int, keys: Sequence[bytes], *, asking: bool) -> Any:
        try:
            if self.connection is None:
                self.connection = await self.director.pool.take(number, session.dialect)
            commands = [(b"ASKING",)] if asking else []
            return (await self.connection.ask_all([*commands, (b"WATCH", *keys)]))[-1]
        except NodeLost as lost:
            self.leave()
            text = f"CLUSTERDOWN slot {self.slot} has no reachable owner ({lost}); nothing was executed"
            raise CommandError(text) from None


def watch(router: Router, session: Session, *keys: bytes) -> Reply:
    """All keys of one slot, together with what is watched already."""
    if session.queued >= 0:
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    return _watch(router, session, keys)


async def _watch(router: Router, session: Session, keys: tuple[bytes, ...]) -> Reply:
    slots = {slot_of_key(key) for key in keys}
    if session.exclusive is not None:
        slots.add(session.exclusive.slot)
    if len(slots) > 1:
        raise CommandError(CROSS_SLOT)
    if session.exclusive is None:
        session.exclusive = Watch(router, slots.pop())
    watching = session.exclusive
    try:
        await watching.begin(session, keys)
    except BaseException:
        watching.leave()
        session.exclusive = None
        raise
    if session.exclusive is not watching:
        watching.leave()  # the session has ended meanwhile
    return OK


async def execute_watched(
    router: Router, session: Session, block: bytes, commands: int, own: dict[int, Callable[[], Reply]]
) -> Reply:
    """EXEC: `block` is MULTI, that many commands, EXEC; `own` are answered by the router, by their places among all."""
    watching, session.exclusive = session.exclusive, None
    assert watching is not None
    connection, watching.connection = watching.connection, None
    if connection is None or connection.ended:
        return NULL_ARRAY
    try:
        reply = await connection.ask_block(block, commands + 2)
    except NodeLost as lost:
        connection.close()
        if lost.sent:
            raise CommandError(LOST) from None
        return NULL_ARRAY
    watching.director.pool.give_back(connection)
    if isinstance(reply, CommandError):
        if redirect_in(reply):
            return NULL_ARRAY
        raise reply
    if isinstance(reply, list) and own:
        values = iter(reply)
        return [own[place]() if place in own else next(values) for place in range(len(reply) + len(own))]
    return reply
