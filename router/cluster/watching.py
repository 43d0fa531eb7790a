"""WATCH in front of a Redis Cluster: on connections of the client's own, from WATCH to EXEC, DISCARD, UNWATCH or RESET.

Only WATCH and the blocks that EXEC makes of what is queued travel there; everything else goes as ever, and a node notices
whoever changes what is watched, the client itself included. All keys must have one slot, unless transactions are split: then
each slot has a connection. A slot that has moved, or a connection that was lost before EXEC, is answered as a change: with the
null array. Split, EXEC executes the watched slots first, and nothing else once one of them has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kache.backend.topology import moved_to
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, OK, Reply
from kache.slots import slot_of_key

from .exclusive import Exclusive, NodeLost, redirect_in
from .splitting import joined

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["Watch", "execute_watched", "watch"]

CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"
MOST_HOPS = 8
LOST = "UNCERTAIN the node was lost before it answered; the transaction was executed once or not at all"
MULTI = b"*1\r\n$5\r\nMULTI\r\n"
EXEC = b"*1\r\n$4\r\nEXEC\r\n"


class Watch:
    """What a session watches: a connection for each slot. `leave` when that is over."""

    def __init__(self, router: Router) -> None:
        self.director = router.remote.director
        self.slots: dict[int, Exclusive] = {}

    def leave(self) -> None:
        """Nothing is watched any more."""
        for connection in self.slots.values():
            connection.close()
        self.slots.clear()

    async def begin(self, session: Session, slot: int, keys: Sequence[bytes]) -> None:
        """Watches keys of one slot. Raises CommandError when they cannot be."""
        target: int | None = None
        for _ in range(MOST_HOPS):
            number = target if target is not None else self.director.map[slot]
            if number is None:
                break
            reply = await self._ask(session, slot, number, keys, asking=target is not None)
            kind = redirect_in(reply)
            if not kind:
                if isinstance(reply, CommandError):
                    raise reply
                return
            self.slots.pop(slot).close()
            target = None
            found = moved_to(reply.message.encode(), self.director.nodes[number].address)
            if kind == "MOVED" and found is not None:
                self.director.has_moved(slot, found[1])
            elif kind == "ASK" and found is not None:
                target = self.director.number_of(found[1])
            else:
                raise CommandError(f"{reply.message.rstrip('.')}; nothing was executed")
        raise CommandError(f"CLUSTERDOWN slot {slot} has no reachable owner; nothing was executed")

    async def _ask(self, session: Session, slot: int, number: int, keys: Sequence[bytes], *, asking: bool) -> Any:
        try:
            if slot not in self.slots:
                self.slots[slot] = await self.director.pool.take(number, session)
            commands = [(b"ASKING",)] if asking else []
            return (await self.slots[slot].ask_all([*commands, (b"WATCH", *keys)]))[-1]
        except NodeLost as lost:
            connection = self.slots.pop(slot, None)
            if connection is not None:
                connection.close()
            text = f"CLUSTERDOWN slot {slot} has no reachable owner ({lost}); nothing was executed"
            raise CommandError(text) from None


def watch(router: Router, session: Session, *keys: bytes) -> Reply:
    """All keys of one slot, together with what is watched already; of any, where transactions are split."""
    if session.queued >= 0:
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    return _watch(router, session, keys)


async def _watch(router: Router, session: Session, keys: tuple[bytes, ...]) -> Reply:
    by_slot: dict[int, list[bytes]] = {}
    for key in keys:
        by_slot.setdefault(slot_of_key(key), []).append(key)
    watched = set(session.exclusive.slots) if session.exclusive is not None else set()
    if len(by_slot.keys() | watched) > 1 and router.config.backend_transactions != "split":
        raise CommandError(CROSS_SLOT)
    if session.exclusive is None:
        session.exclusive = Watch(router)
    watching = session.exclusive
    try:
        for slot, own in by_slot.items():
            await watching.begin(session, slot, own)
    except BaseException:
        watching.leave()
        session.exclusive = None
        raise
    if session.exclusive is not watching:
        watching.leave()  # the session has ended meanwhile
    return OK


async def execute_watched(
    router: Router, session: Session, blocks: Mapping[int, Sequence[bytes]], commands: Sequence[Any]
) -> Reply:
    """EXEC: `blocks` are the commands of each slot. Of all commands in their order `commands` has the slot, or what the
    router itself answers, or (fold, places of keys by slot) of one that is divided, or [slot, what its reply becomes] of one
    that was translated."""
    watching, session.exclusive = session.exclusive, None
    assert watching is not None
    try:
        for connection in watching.slots.values():
            watching.director.has_written(session, connection.number)
        answers = await _watched(watching, blocks)
        if answers is None:
            return NULL_ARRAY
        rest = {slot: frames for slot, frames in blocks.items() if slot not in answers}
        asked = {slot: router.remote.ask_block(session, slot, list(frames)) for slot, frames in rest.items()}
        for slot, question in asked.items():
            answers[slot] = await question
    finally:
        watching.leave()
    values = {slot: iter(answer) for slot, answer in answers.items()}
    found: list[Any] = []
    for each in commands:
        if isinstance(each, int):
            found.append(next(values[each]))
        elif isinstance(each, list):
            found.append(each[1](next(values[each[0]])))
        elif isinstance(each, tuple):
            fold, places = each
            found.append(joined(fold, places, {slot: next(values[slot]) for slot in places}))
        else:
            found.append(_own(each))
    return found


def _own(answer: Any) -> Reply:
    try:
        return answer()
    except CommandError as error:
        return error


async def _watched(watching: Watch, blocks: Mapping[int, Sequence[bytes]]) -> dict[int, Any] | None:
    """The replies of the watched slots, each executed if nothing of it has changed; None when one has."""
    answers: dict[int, Any] = {}
    if any(connection.ended for connection in watching.slots.values()):
        return None
    for slot, connection in list(watching.slots.items()):
        frames = blocks.get(slot, ())
        try:
            reply = await connection.ask_block(MULTI + b"".join(frames) + EXEC, len(frames) + 2)
        except NodeLost:
            if frames:
                raise CommandError(LOST) from None
            reply = NULL_ARRAY
        if isinstance(reply, CommandError) and not redirect_in(reply):
            raise reply
        if not isinstance(reply, list):
            executed = [done for done, answer in answers.items() if answer]
            if executed:
                text = f"UNCERTAIN of this transaction only the commands of the slots {executed} were executed"
                raise CommandError(text)
            return None
        answers[slot] = reply
        watching.director.pool.give_back(watching.slots.pop(slot))
    return answers
