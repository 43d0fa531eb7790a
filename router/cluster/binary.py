"""The commands that the binary protocol gives another meaning or another reply, in front of a Redis Cluster.

Everything else of that protocol goes to the nodes as RESP3 and comes back translated by the compiled path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kache.replies import OK, Missing, Reply
from kache.slots import slot_of_key

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["BINARY"]


async def _ask(router: Router, session: Session, command: bytes, key: bytes, *arguments: bytes) -> Any:
    return await router.remote.ask_slot(session, slot_of_key(key), [command, key, *arguments])


async def delete(router: Router, session: Session, *keys: bytes) -> Reply:
    """How many there were; 0 with the status RES_NX."""
    by_slot: dict[int, list[bytes]] = {}
    for key in keys:
        by_slot.setdefault(slot_of_key(key), []).append(key)
    asked = [router.remote.ask_slot(session, slot, [b"DEL", *own]) for slot, own in by_slot.items()]
    return sum([await question for question in asked]) or Missing(0)


async def expire(router: Router, session: Session, key: bytes, milliseconds: bytes, *options: bytes) -> Reply:
    """Milliseconds; nil, or RES_NX without the key."""
    changed = await _ask(router, session, b"PEXPIRE", key, milliseconds, *options)
    if options:
        return changed
    return OK if changed else None


async def persist(router: Router, session: Session, key: bytes) -> Reply:
    """Nil, also when there was no time to live; RES_NX without the key."""
    if await _ask(router, session, b"PERSIST", key) or await _ask(router, session, b"EXISTS", key):
        return OK
    return None


async def zadd(router: Router, session: Session, key: bytes, *arguments: bytes) -> Reply:
    """Nil for one member without options."""
    reply = await _ask(router, session, b"ZADD", key, *arguments)
    return OK if len(arguments) == 2 else reply


async def zrem(router: Router, session: Session, key: bytes, *members: bytes) -> Reply:
    """A single name that is not there: nil with the status RES_NX."""
    removed = await _ask(router, session, b"ZREM", key, *members)
    return removed if removed or len(members) > 1 else None


BINARY: Final[dict[str, Callable[..., Any]]] = {
    "binary|del": delete,
    "binary|expire": expire,
    "binary|persist": persist,
    "binary|zadd": zadd,
    "binary|zrem": zrem,
}
"""By row, as the handlers in `commands`."""
