"""What is published, and what routers say about those who listen; the work is in engine/channels.pxi."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.glob import compile_glob
from kache.replies import OK, Reply
from kache.wire import link as wire_link

from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []


@command("publish")
def publish(ctx: Context, channel: bytes, message: bytes) -> Reply:
    """To how many clients it goes. Frames are executed without coming here; this is for commands inside others."""
    return ctx.shard.channels.publish_to(wire_link.CHANNEL, channel, message)


@command("spublish")
def spublish(ctx: Context, channel: bytes, message: bytes) -> Reply:
    """The same for a shard channel."""
    return ctx.shard.channels.publish_to(wire_link.SHARD_CHANNEL, channel, message)


@command("_subscribe")
def subscribe(ctx: Context, kind: bytes, *pairs: bytes) -> Reply:
    """So many clients of the link listen to each name."""
    if ctx.link is None:
        raise CommandError("ERR nobody can listen here")
    if len(pairs) % 2:
        raise CommandError("ERR a name without the number of its listeners")
    for name, sessions in zip(pairs[::2], pairs[1::2], strict=True):
        ctx.shard.channels.subscribe(ctx.link, int(kind), name, int(sessions))
    return OK


@command("_monitored")
def monitored(ctx: Context, line: bytes) -> Reply:
    """To every router that has somebody who watches."""
    return ctx.shard.channels.publish_to(wire_link.MONITOR_LINE, b"monitor", line)


@command("_listened")
def listened(ctx: Context, kind: bytes, *pattern: bytes) -> Reply:
    """Names that somebody listens to, those that match a pattern."""
    names = ctx.shard.channels.listened(int(kind))
    if pattern:
        matches = compile_glob(pattern[0])
        names = [name for name in names if matches(name)]
    return names


@command("_listeners")
def listeners(ctx: Context, kind: bytes, *names: bytes) -> Reply:
    """How many listen to each name."""
    return [ctx.shard.channels.count(int(kind), name) for name in names]
