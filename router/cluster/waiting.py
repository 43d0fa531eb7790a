"""WAIT and WAITAOF in front of a Redis Cluster.

A node waits for what the connection that asks has written itself, and answers nothing else on it meanwhile. So neither travels
on the connections that all clients share: every node that the client has written to is asked on one of the client's own, behind
a script there that writes and leaves nothing (SET and DEL of a key of Kache's), after all that the client has written. The
answer is the least of theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kache.errors import CommandError
from kache.replies import Reply
from kache.slots import slot_of_key

from .exclusive import Exclusive, NodeLost, redirect_in

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session
    from .director import Director

__all__ = ["WAITING"]

_TOUCH: Final = b"redis.call('SET', KEYS[1], '') redis.call('DEL', KEYS[1]) return 1"
MOST_TRIES: Final = 100_000
"""Names that are tried for a key of a node: a slot takes some ten thousand."""


class _Waiting:
    """One command of one client, which may be told to end."""

    def __init__(self, director: Director, session: Session) -> None:
        self.director = director
        self.session = session
        self.connections: list[Exclusive] = []
        self.task = asyncio.current_task()

    def unblock(self, error: bool) -> None:
        """CLIENT UNBLOCK: the nodes are told, and answer."""
        how = ["ERROR"] if error else []
        for one in self.connections:
            self.director.spawn(_quietly(self.director.ask_number(one.number, "CLIENT", "UNBLOCK", str(one.id), *how)))

    def leave(self) -> None:
        """The client is gone."""
        for one in self.connections:
            one.close()
        if self.task is not None:
            self.task.cancel()

    async def ask(self, number: int, *words: bytes) -> Any:
        """The answer of one node. Raises CommandError."""
        try:
            one = await self.director.pool.take(number, self.session)
            self.connections.append(one)
            try:
                touched = await one.ask(b"EVAL", _TOUCH, b"1", _key_of(self.director, number))
                if isinstance(touched, CommandError):
                    if redirect_in(touched):
                        self.director.lost_map()
                        raise CommandError("TRYAGAIN slots are moving; nothing was waited for")
                    raise touched
                reply = await one.ask(*words)
            finally:
                self.connections.remove(one)
                self.director.pool.give_back(one)
        except NodeLost as lost:
            name = self.director.nodes[number].name
            raise CommandError(
                f"CLUSTERDOWN node {name} was lost ({lost}): it is not known who has what it was told"
            ) from None
        if isinstance(reply, CommandError):
            raise reply
        return reply


def _key_of(director: Director, number: int) -> bytes:
    """The name of a key in a slot of that node."""
    for turn in range(MOST_TRIES):
        key = b"kache:wait:%d" % turn
        if director.map[slot_of_key(key)] == number:
            return key
    raise CommandError(f"CLUSTERDOWN node {director.nodes[number].name} owns no slots any more; nothing was waited for")


async def _asked(router: Router, session: Session, *words: bytes) -> list[Any]:
    """What each node that the client has written to answers."""
    director = router.remote.director
    waiting = _Waiting(director, session)
    session.block_with(waiting)
    try:
        return list(await asyncio.gather(*[waiting.ask(number, *words) for number in director.written_by(session)]))
    finally:
        session.unblocked()


async def wait(router: Router, session: Session, replicas: bytes, timeout: bytes) -> Reply:
    """How many replicas have it all, of the node that has the fewest such."""
    return min(await _asked(router, session, b"WAIT", replicas, timeout))


async def waitaof(router: Router, session: Session, local: bytes, replicas: bytes, timeout: bytes) -> Reply:
    """On how many disks it all is, of nodes and of replicas: the least of each."""
    return [
        min(each) for each in zip(*await _asked(router, session, b"WAITAOF", local, replicas, timeout), strict=True)
    ]


async def _quietly(question: Any) -> None:
    try:
        await question
    except CommandError:
        return  # a node that is gone has woken its client by that


WAITING: Final[dict[str, Callable[..., Any]]] = {"wait": wait, "waitaof": waitaof}
"""By row, as the handlers in `commands`."""
