"""The internal commands of transactions over several shards: locks (engine/locks.pxi) and watches (engine/watches.pxi).

``_lock`` and ``_unlock`` are compiled; what comes here of them is a lock that waits. What a transaction has under
construction on this shard belongs to its lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply

from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []


@command("_lock")
def lock(
    ctx: Context, transaction: bytes, until: bytes, mode: bytes, slots: bytes, shards: bytes | None = None
) -> Reply:
    """Waits for slots that others hold or wait for."""
    number, end = int.from_bytes(transaction, "little"), int.from_bytes(until, "little")
    return ctx.shard.locks.wait_for_lock(ctx, number, end, mode[0], slots, shards)


@command("_commit")
def commit(ctx: Context, transaction: bytes, shards: bytes) -> Reply:
    """The last step of the transaction is done on each of these shards."""
    ctx.shard.locks.commit(int.from_bytes(transaction, "little"), shards)
    return OK


@command("_unlock")
def unlock(ctx: Context, transaction: bytes) -> Reply:
    """Compiled; it never declines."""
    raise CommandError("ERR a lock that is none")


@command("_watch")
def watch(ctx: Context, *keys: bytes) -> Reply:
    """The session of the run watches these keys of its database."""
    for key in keys:
        ctx.shard.watches.watch(ctx, key)
    return OK


@command("_unwatch")
def unwatch(ctx: Context) -> Reply:
    """The session of the run watches nothing any more."""
    ctx.shard.watches.unwatch(ctx)
    return OK
