"""What a shard says of itself: the internal commands `_stats` and `_reset_stats`.

`Gauges` holds what only the process around the shard knows (links, traffic, stalls, the cleanup thread);
`main` fills it in and gives it to the keyspace's shard. Called through the registry.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from kache.figures import RATE_WINDOW
from kache.stats import CommandStats, DatabaseStats, ShardStats
from kache.wire import link as wire_link

if TYPE_CHECKING:
    from ..engine.engine import Executor

__all__ = ["Gauges", "advice", "private_memory", "recent_misses", "resident_memory", "shard_stats"]

STALL_SECONDS = 60
"""Of which the longest stall is told apart from the longest of all."""


def resident_memory() -> int:
    """Resident set size of this process in bytes (where the system does not say, its peak)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def private_memory() -> int:
    """What of that is this process's alone, bytes: without pages of files, such as code it has run for the first time, and
    without memory that it shares with routers, which counts for their clients."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = file.read().split()
            return (int(pages[1]) - int(pages[2])) * resource.getpagesize()
    except OSError:
        return resident_memory()


class Gauges:
    """The surroundings of a shard, as `main` sees them. Without a `main` (tests) it has none."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._traffic_at_reset = (0, 0)
        self._longest_ns = 0
        self._peak = 0
        self._samples: deque[tuple[float, int, int, int]] = deque(maxlen=RATE_WINDOW)
        self._stalls: deque[int] = deque(maxlen=STALL_SECONDS)

    def links(self) -> int:
        """Routers connected."""
        return 0

    def traffic(self) -> tuple[int, int]:
        """Bytes in and out over all links since the start."""
        return 0, 0

    def stall_ns(self) -> int:
        """The longest tick with the wait for the GIL before it, since `forget_stall`."""
        return 0

    def forget_stall(self) -> None:
        """The longest tick is looked for anew."""

    def stalls_ns(self) -> tuple[int, int]:
        """The longest stall since the last reset, and that of the last minute."""
        recent = max(self.stall_ns(), max(self._stalls, default=0))
        return max(self._longest_ns, recent), recent

    def cleanup_pending(self) -> int:
        """Values waiting for the cleanup thread."""
        return 0

    def startup_memory(self) -> int:
        """Resident set size before there was any data, bytes."""
        return 0

    def buffer_memory(self) -> int:
        """Bytes in the buffers of the links."""
        return 0

    def kept(self) -> dict[str, Any]:
        """What is kept on disk."""
        return {}

    def reset(self) -> None:
        """CONFIG RESETSTAT: traffic counts from here."""
        self._traffic_at_reset = self.traffic()
        self._samples.clear()
        self.forget_stall()
        self._stalls.clear()
        self._longest_ns = self._peak = 0

    def net(self) -> tuple[int, int]:
        """Bytes in and out since the last reset."""
        received, sent = self.traffic()
        return received - self._traffic_at_reset[0], sent - self._traffic_at_reset[1]

    def sample(self, shard: Executor) -> None:
        """Remembers the counters for the rates, the longest stall and the peak; to be called about once a second."""
        self.peak(shard)
        self._samples.append((time.monotonic(), shard.executed, *self.net()))
        self._stalls.append(self.stall_ns())
        self._longest_ns = max(self._longest_ns, self._stalls[-1])
        self.forget_stall()

    def peak(self, shard: Executor) -> int:
        """The most bytes that were in use since the last reset: data as it was at most between two looks, the rest as it was
        at each of them."""
        store = shard.store
        beside = store.slot_bytes + self.buffer_memory() + int(self.kept().get("queued_bytes", 0))
        self._peak = max(self._peak, store.used_memory + beside, shard.peak_memory + store.slot_bytes)
        return self._peak

    def rates(self, shard: Executor) -> tuple[float, float, float]:
        """Commands, KiB in and KiB out per second, from the oldest sample until now."""
        if not self._samples:
            return 0.0, 0.0, 0.0
        then, *before = self._samples[0]
        after = (shard.executed, *self.net())
        seconds = max(time.monotonic() - then, 0.001)
        commands, received, sent = ((later - earlier) / seconds for earlier, later in zip(before, after, strict=True))
        return commands, received / 1024, sent / 1024


def shard_stats(shard: Executor, gauges: Gauges) -> ShardStats:
    """The statistics of a shard at this moment."""
    store = shard.store
    kept = gauges.kept()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    per_second, input_kbps, output_kbps = gauges.rates(shard)
    received, sent = gauges.net()
    longest_ns, recent_ns = gauges.stalls_ns()
    return ShardStats(
        index=shard.index,
        pid=os.getpid(),
        uptime_ms=int((time.monotonic() - gauges.started) * 1000),
        databases=[DatabaseStats(*counts) for counts in store.counts()],
        used_memory=store.used_memory,
        used_memory_peak=max(shard.peak_memory, store.used_memory),
        total_memory_peak=gauges.peak(shard),
        resident_memory=resident_memory(),
        startup_memory=gauges.startup_memory(),
        buffer_memory=gauges.buffer_memory(),
        slot_memory=store.slot_bytes,
        log_memory=int(kept.get("queued_bytes", 0)),
        lua_memory=shard.scripts.memory,
        script_memory=shard.scripts.text_bytes,
        scripts=len(shard.scripts),
        function_memory=shard.functions.memory,
        library_memory=shard.functions.text_bytes,
        libraries=len(shard.functions.libraries),
        functions=len(shard.functions.by_name),
        maxmemory=shard.maxmemory,
        allowed_memory=shard.allowed_memory,
        policy=store.policy,
        commands=shard.executed,
        ops_per_second=per_second,
        hits=store.hits,
        misses=store.misses,
        expired=store.expired,
        evicted=store.evicted,
        net_input_bytes=received,
        net_output_bytes=sent,
        input_kbps=input_kbps,
        output_kbps=output_kbps,
        links=gauges.links(),
        in_flight=shard.in_flight,
        deferred=shard.deferred_count,
        dirty=store.dirty,
        cleanup_pending=gauges.cleanup_pending(),
        longest_stall_us=longest_ns // 1000,
        stall_us=recent_ns // 1000,
        cpu_user_s=usage.ru_utime,
        cpu_system_s=usage.ru_stime,
        errors=dict(shard.errors),
        command_stats=[CommandStats(*counts) for counts in shard.command_counts()],
        latency_ns=shard.histogram_counts(),
        pubsub_channels=sum(
            shard.index == 0 or not name.startswith(b"__key") for name in shard.channels.listened(wire_link.CHANNEL)
        ),
        pubsub_patterns=len(shard.channels.listened(wire_link.PATTERN)),
        pubsubshard_channels=len(shard.channels.listened(wire_link.SHARD_CHANNEL)),
        tracked_keys=len(shard.tracking),
        watched_keys=shard.watches.keys,
        blocking_keys=0 if shard.blocking is None else shard.blocking.keys,
        blocking_keys_of_groups=0 if shard.blocking is None else shard.blocking.keys_of_groups,
        timed_waits=0 if shard.blocking is None else shard.blocking.timed,
        follows=shard.evictor.following,
        policy_changes=shard.evictor.changed_policy,
        simulated=recent_misses(advice(shard)),
        kept=kept,
    )


FEWEST_SAMPLED = 500
"""Reads of the sample from which what they say is shown."""


def advice(shard: Executor) -> dict[str, Any]:
    """What the miniature simulations say (`Miniatures.report`), by what this shard evicts, and what it has really done since
    the start or CONFIG RESETSTAT; without simulations only that."""
    miniatures = shard.store.miniatures
    found = {} if miniatures is None or not miniatures.below else miniatures.report()
    return found | {
        "shard": shard.index,
        "policy": shard.store.policy,
        "follows": shard.evictor.following,
        "maxmemory": shard.maxmemory,
        "used": shard.store.used_memory,
        "keyspace_hits": shard.store.hits,
        "keyspace_misses": shard.store.misses,
        "refused": shard.errors.get("OOM", 0),
    }


def recent_misses(report: dict[str, Any]) -> dict[str, float]:
    """The part of the latest reads that would have missed, by policy."""
    if report.get("sampled", 0) < FEWEST_SAMPLED:
        return {}
    return {name: min(1.0, misses / report["recent_reads"]) for name, misses in report["recent"].items()}
