"""The commands that the binary protocol gives another meaning or another reply, in front of a Redis Cluster.

Everything else of that protocol goes to the nodes as RESP3 and comes back translated by the compiled path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kache.errors import CommandError
from kache.replies import OK, Missing, Reply
from kache.slots import slot_of_key

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["BINARY", "IN_BLOCK"]


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


Translation = tuple[list[bytes], Callable[[Any], Reply]]
"""The command that a node is sent inside a transaction, and what its reply becomes."""

_PERSIST: Final = b"return redis.call('PERSIST', KEYS[1]) + redis.call('EXISTS', KEYS[1])"


def _read(how: Callable[[Any], Reply]) -> Callable[[Any], Reply]:
    """The same for replies that may be errors, which stay errors."""
    return lambda reply: reply if isinstance(reply, CommandError) else how(reply)


def _del(*keys: bytes) -> Translation:
    return [b"DEL", *keys], _read(lambda removed: removed or Missing(0))


def _expire(*words: bytes) -> Translation:
    how = (lambda changed: changed) if len(words) > 2 else (lambda changed: OK if changed else None)
    return [b"PEXPIRE", *words], _read(how)


def _persist(key: bytes) -> Translation:
    return [b"EVAL", _PERSIST, b"1", key], _read(lambda found: OK if found else None)


def _zadd(key: bytes, *arguments: bytes) -> Translation:
    return [b"ZADD", key, *arguments], _read(lambda added: OK if len(arguments) == 2 else added)


def _zrem(key: bytes, *members: bytes) -> Translation:
    return [b"ZREM", key, *members], _read(lambda removed: removed if removed or len(members) > 1 else None)


def _lget(key: bytes) -> Translation:
    return [b"LRANGE", key, b"0", b"-1"], lambda elements: elements


IN_BLOCK: Final[dict[str, Callable[..., Translation]]] = {
    "binary|del": _del,
    "binary|expire": _expire,
    "binary|persist": _persist,
    "binary|zadd": _zadd,
    "binary|zrem": _zrem,
    "lget": _lget,
}
"""The same commands between MULTI and EXEC, by row; other handlers' are refused there."""
