"""MULTI, DISCARD, WATCH and UNWATCH. What is queued, and EXEC, are compiled (mux/transactions.pxi)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply
from kache.slots import slot_of_key

from ..registry import local
from ..scatter.transaction import answers

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []


@local("multi")
def multi(router: Router, session: Session) -> Reply:
    """Where none is open it never comes here."""
    raise CommandError("ERR MULTI calls can not be nested")


@local("exec")
def exec_(router: Router, session: Session) -> Reply:
    """Behind MULTI it never comes here."""
    raise CommandError("ERR EXEC without MULTI")


@local("discard")
def discard(router: Router, session: Session) -> Reply:
    """What is queued is dropped."""
    if session.queued < 0:
        raise CommandError("ERR DISCARD without MULTI")
    session.drop_queue()
    return OK


@local("watch")
def watch(router: Router, session: Session, *keys: bytes) -> Reply:
    """Every shard watches its own keys; one that does not answer leaves nothing watched."""
    if session.queued >= 0:
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    return _watch(router, session, keys)


async def _watch(router: Router, session: Session, keys: tuple[bytes, ...]) -> Reply:
    shards: dict[int, list[bytes]] = {}
    for key in keys:
        shards.setdefault(router.shard_of(key), []).append(key)
    asked: list[Awaitable[Reply]] = []
    for shard, own in shards.items():
        asked.append(router.call(shard, "_watch", own, session.db, session))
        session.note_watched(shard, {slot_of_key(key) for key in own})
    try:
        await answers(asked)
    except CommandError:
        session.unwatch()
        raise
    return OK


@local("unwatch")
def unwatch(router: Router, session: Session) -> Reply:
    """Nothing is watched any more."""
    session.unwatch()
    return OK
