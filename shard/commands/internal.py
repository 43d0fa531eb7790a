"""What the router asks a shard about itself: its statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kache.replies import OK, Reply

from ..service.statistics import advice, shard_stats
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []

_encoder = msgspec.msgpack.Encoder()


@command("_stats")
def stats(ctx: Context, *_: bytes) -> Reply:
    """`ShardStats` as msgpack."""
    return _encoder.encode(shard_stats(ctx.shard, ctx.shard.gauges))


@command("_advice")
def advice_of(ctx: Context) -> Reply:
    """What the miniature simulations say, as msgpack."""
    return _encoder.encode(advice(ctx.shard))


@command("_reset_stats")
def reset_stats(ctx: Context) -> Reply:
    """All counters back to zero."""
    ctx.shard.reset_counters()
    ctx.shard.gauges.reset()
    return OK
