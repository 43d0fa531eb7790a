"""What happened between two moments of a cluster: load, latencies and rates of that time alone.

For screens that follow a cluster; `kache.figures` has what holds at one moment. Counters that fall (a process was started
again, CONFIG RESETSTAT) count from zero. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kache.figures import command_totals
from kache.stats import RouterStats, ShardStats, Snapshot, percentile, total

__all__ = ["CommandRate", "Interval", "ShardInterval", "between"]


class ShardInterval(msgspec.Struct):
    """One shard over that time."""

    load: float
    """Of one core: 0 to 1."""
    latency_ns: dict[int, int]
    """Histogram (kache.stats) of the commands that were executed then."""
    hits: int
    misses: int

    def percentile_us(self, percent: float) -> float:
        """A percentile of its execution times in microseconds; 0 when nothing was executed."""
        return percentile(self.latency_ns, percent) / 1000


class CommandRate(msgspec.Struct):
    """One command over that time, in the whole cluster."""

    name: str
    per_second: float
    mean_us: float
    failed_per_second: float


class Interval(msgspec.Struct):
    """See the module."""

    seconds: float
    shards: dict[int, ShardInterval]
    """Those that answered at its end."""
    routers: dict[int, float]
    """Load of each router, of one core."""
    commands: list[CommandRate]
    """The busiest first."""

    def percentile_us(self, percent: float) -> float:
        """A percentile over all shards."""
        return percentile(total([shard.latency_ns for shard in self.shards.values()]), percent) / 1000

    def hit_percent(self) -> float | None:
        """Hits of all lookups of that time; None when there were none."""
        hits = sum(shard.hits for shard in self.shards.values())
        lookups = hits + sum(shard.misses for shard in self.shards.values())
        return 100.0 * hits / lookups if lookups else None


def between(before: Snapshot, after: Snapshot) -> Interval:
    """From one moment to a later one."""
    seconds = max((after.at_ms - before.at_ms) / 1000, 0.001)
    earlier = {shard.index: shard for shard in before.shards}
    routers = {router.index: router for router in before.routers}
    return Interval(
        seconds=seconds,
        shards={shard.index: _shard(earlier.get(shard.index), shard, seconds) for shard in after.shards},
        routers={router.index: _load(routers.get(router.index), router, seconds) for router in after.routers},
        commands=_commands(command_totals(before), command_totals(after), seconds),
    )


def _risen(before: float, after: float) -> float:
    return after - before if after >= before else after


def _load(before: ShardStats | RouterStats | None, after: ShardStats | RouterStats, seconds: float) -> float:
    if before is None:
        return 0.0
    used = _risen(before.cpu_user_s + before.cpu_system_s, after.cpu_user_s + after.cpu_system_s)
    return min(max(used / seconds, 0.0), 1.0)


def _shard(before: ShardStats | None, after: ShardStats, seconds: float) -> ShardInterval:
    if before is None or before.pid != after.pid:
        return ShardInterval(0.0, dict(after.latency_ns), after.hits, after.misses)
    return ShardInterval(
        _load(before, after, seconds),
        _histogram(before.latency_ns, after.latency_ns),
        int(_risen(before.hits, after.hits)),
        int(_risen(before.misses, after.misses)),
    )


def _histogram(before: Mapping[int, int], after: Mapping[int, int]) -> dict[int, int]:
    if any(count > after.get(bucket, 0) for bucket, count in before.items()):
        return dict(after)  # it was reset
    risen = {bucket: count - before.get(bucket, 0) for bucket, count in after.items()}
    return {bucket: count for bucket, count in risen.items() if count}


def _commands(before: Mapping[str, list[int]], after: Mapping[str, list[int]], seconds: float) -> list[CommandRate]:
    found = []
    for name, (calls, usec, _, failed) in after.items():
        was = before.get(name, [0, 0, 0, 0])
        if was[0] > calls:
            was = [0, 0, 0, 0]
        called = calls - was[0]
        if called:
            mean = max(usec - was[1], 0) / called
            found.append(CommandRate(name, called / seconds, mean, max(failed - was[3], 0) / seconds))
    return sorted(found, key=lambda one: (-one.per_second, one.name))
