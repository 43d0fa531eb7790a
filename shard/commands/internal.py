"""What the router asks a shard about itself: its statistics, its hot and its big keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kache.replies import OK, Reply

from ..service.statistics import advice, shard_stats
from .arguments import integer
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
    ctx.shard.ask_advice()
    return _encoder.encode(advice(ctx.shard))


@command("_hot")
def hot(ctx: Context, count: bytes) -> Reply:
    """The most used keys; see `HotKeys`."""
    sketch = ctx.shard.hot
    return _encoder.encode((*sketch.totals(), sketch.top(integer(count))))


@command("_big")
def big(ctx: Context, count: bytes) -> Reply:
    """The largest keys; see `BigKeys`."""
    return _encoder.encode(ctx.shard.big.top(integer(count)))


@command("_reset_stats")
def reset_stats(ctx: Context) -> Reply:
    """All counters back to zero."""
    ctx.shard.reset_counters()
    ctx.shard.gauges.reset()
    return OK
