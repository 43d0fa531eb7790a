"""What happened between two moments."""

from __future__ import annotations

import pytest
from moments import router, shard, snapshot

from kache.intervals import between
from kache.stats import CommandStats, percentile


def test_only_what_came_between_counts() -> None:
    before = snapshot()
    after = snapshot(
        at_ms=1_002_000,
        shards=[
            shard(0, cpu_user_s=2.5, latency_ns={20: 990, 200: 40}, hits=90, misses=30),
            shard(1, cpu_user_s=3.0, command_stats=[CommandStats("get", 800, 1400, 0, 4, {})]),
        ],
        routers=[router(0, cpu_system_s=1.5), router(1)],
    )
    found = between(before, after)
    assert found.seconds == 2
    assert found.shards[0].load == pytest.approx(0.5)
    assert found.shards[1].load == 0
    assert found.shards[0].latency_ns == {200: 30}
    assert found.shards[0].percentile_us(50) == percentile({200: 1}, 50) / 1000
    assert found.shards[1].percentile_us(99) == 0
    assert found.hit_percent() == 75
    assert found.routers == {0: 0.25, 1: 0}
    (get,) = found.commands
    # 600 + 100 by shard 1 before, 800 now; half a second's worth of 200 microseconds.
    assert (get.name, get.per_second, get.failed_per_second) == ("get", 50, 1)
    assert get.mean_us == pytest.approx((1400 - 1300) / 100)


def test_a_restart_counts_from_zero() -> None:
    again = shard(0, pid=999, cpu_user_s=0.1, latency_ns={20: 3}, hits=2, misses=2)
    found = between(snapshot(), snapshot(at_ms=1_001_000, shards=[again, shard(1)])).shards[0]
    assert (found.load, found.latency_ns, found.hits, found.misses) == (0, {20: 3}, 2, 2)


def test_a_reset_counts_from_zero() -> None:
    reset = shard(0, latency_ns={20: 3}, hits=1, misses=0, command_stats=[CommandStats("get", 7, 70, 0, 0, {})])
    found = between(snapshot(shards=[shard(0)], routers=[]), snapshot(at_ms=1_001_000, shards=[reset], routers=[]))
    assert found.shards[0].latency_ns == {20: 3}
    assert found.shards[0].hits == 1
    assert [(one.name, one.per_second, one.mean_us) for one in found.commands] == [("get", 7, 10)]


def test_nothing_happened() -> None:
    found = between(snapshot(), snapshot())
    assert found.commands == []
    assert found.hit_percent() is None
    assert found.percentile_us(99) == 0
