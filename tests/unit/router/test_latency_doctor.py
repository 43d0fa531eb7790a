"""What LATENCY DOCTOR says of a moment, with the shard or router named."""

from __future__ import annotations

from moments import router, shard, snapshot

from kache.router.commands.latency import _remarks
from kache.stats import CommandStats


def test_a_healthy_cluster() -> None:
    assert _remarks(snapshot()) == []


def test_what_is_slow_is_named() -> None:
    slow = CommandStats("keys", 5, 500_000, 0, 0, {400: 5})
    waits = CommandStats("blpop", 5, 500_000, 0, 0, {400: 5})
    counters = router(1).counters | {"lag_us": 45_000}
    moment = snapshot(
        shards=[shard(0, stall_us=31_000), shard(1, command_stats=[slow, waits])],
        routers=[router(0), router(1, counters=counters)],
        round_trips_us={0: 100, 1: 250_000},
        silent={2: "it is down"},
    )
    assert _remarks(moment) == [
        "Shard 2 does not answer: it is down",
        "Shard 0 stalled for 31 ms in the last minute.",
        "Shard 1 took 250 ms to answer just now: it has much to do.",
        "Router 1 ran its timers 45 ms late in the last minute.",
        "One in a hundred KEYS takes 285 ms or more.",
    ]
