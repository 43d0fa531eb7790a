"""The internal commands by which the router leases keys to a move between shards; service/leases.py draws the move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import Reply

from ..service.leases import LOST
from .arguments import integer
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []


@command("_lease_take")
def lease_take(ctx: Context, token: bytes, deadline: bytes, *keys: bytes) -> Reply:
    """Lease keys of the run's database until `deadline` (unix ms)."""
    ctx.shard.leases.take(token, integer(deadline), ctx.keys.db, keys, ctx.keys.now_ms)
    return 1


@command("_lease_run")
def lease_run(ctx: Context, token: bytes, name: bytes, *args: bytes) -> Reply:
    """Execute a command for the holder of a lease; TRYAGAIN, not executed, when the lease is gone."""
    if not ctx.shard.leases.holds(token, ctx.keys.now_ms):
        raise CommandError(LOST)
    with ctx.shard.leases.acting_for(token):
        return ctx.call(name.decode(), *args)


@command("_lease_share")
def lease_share(ctx: Context, token: bytes, deadline: bytes, *keys: bytes) -> Reply:
    """The same together with others who only read them."""
    ctx.shard.leases.take(token, integer(deadline), ctx.keys.db, keys, ctx.keys.now_ms, shared=True)
    return 1


@command("_lease_extend")
def lease_extend(ctx: Context, token: bytes, deadline: bytes) -> Reply:
    """A later deadline (unix ms); TRYAGAIN when the lease has ended, and nothing of the move may be believed."""
    ctx.shard.leases.extend(token, integer(deadline), ctx.keys.now_ms)
    return 1


@command("_lease_commit")
def lease_commit(ctx: Context, token: bytes) -> Reply:
    """The move is done: release its keys; how many were still held."""
    return ctx.shard.leases.release(token, ctx.keys.now_ms)


@command("_lease_abort")
def lease_abort(ctx: Context, token: bytes) -> Reply:
    """The move is given up: release its keys; how many were still held."""
    return ctx.shard.leases.release(token, ctx.keys.now_ms)
