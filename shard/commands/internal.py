"""What the router asks a shard about itself: statistics and the slow log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kache.replies import OK, Reply

from ..service.statistics import shard_stats
from .registry import command

if TYPE_CHECKING:
    from ..engine.keyspace import Keyspace

__all__: list[str] = []

_encoder = msgspec.msgpack.Encoder()


@command("_stats")
def stats(ks: Keyspace, *_: bytes) -> Reply:
    """`ShardStats` as msgpack."""
    return _encoder.encode(shard_stats(ks.owner, ks.owner.gauges))


@command("_reset_stats")
def reset_stats(ks: Keyspace) -> Reply:
    """All counters back to zero."""
    ks.owner.reset_counters()
    ks.owner.gauges.reset()
    return OK


@command("_slowlog")
def slowlog(ks: Keyspace, verb: bytes, count: bytes = b"-1") -> Reply:
    """``get count``, ``len`` or ``reset``, as the router asks."""
    if verb == b"get":
        return ks.slowlog.newest(int(count))
    if verb == b"len":
        return len(ks.slowlog)
    ks.slowlog.clear()
    return OK
