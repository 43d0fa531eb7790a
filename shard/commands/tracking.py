"""Which sessions of a router are told what has changed; the work is in engine/tracking.pxi."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply

from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Link

__all__: list[str] = []


def _link(ctx: Context) -> Link:
    if ctx.link is None:
        raise CommandError("ERR nobody can be told here")
    return ctx.link


@command("_track")
def track(ctx: Context, session: bytes, redirect: bytes, flags: bytes, *prefixes: bytes) -> Reply:
    """From here on."""
    ctx.shard.tracking.begin(_link(ctx), int(session), int(redirect), int(flags), prefixes)
    return OK


@command("_untrack")
def untrack(ctx: Context, session: bytes) -> Reply:
    """No longer."""
    ctx.shard.tracking.end(_link(ctx), int(session))
    return OK


@command("_broken")
def broken(ctx: Context, session: bytes) -> Reply:
    """Those who had their news sent there are told."""
    ctx.shard.tracking.broken(int(session))
    return OK
