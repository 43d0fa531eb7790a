"""What the processes count, as messages: shards fill in `ShardStats`, routers `RouterStats`; INFO and STATS gather them.

All counters are since the start of the process or the last CONFIG RESETSTAT; times are microseconds
unless their name says otherwise. Latencies are kept in a log-linear histogram: bucket `b` below
`SUB_BUCKETS` counts the value b itself, later ones split every power of two into `SUB_BUCKETS / 2` parts,
so a percentile is right to about 6 %.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "HISTOGRAM_BUCKETS",
    "SUB_BUCKETS",
    "CommandStats",
    "DatabaseStats",
    "MemoryUse",
    "RouterStats",
    "ShardStats",
    "Snapshot",
    "added",
    "bucket_value",
    "percentile",
    "total",
]

SUB_BUCKETS = 32
HISTOGRAM_BUCKETS = 1024
"""Nanoseconds up to 2**36 (about a minute) need 31 * 16 + 32 buckets; the rest stays empty."""


class CommandStats(msgspec.Struct, array_like=True):
    """One command of one shard."""

    name: str
    calls: int
    usec: int
    rejected: int
    failed: int
    latency_ns: dict[int, int] = {}
    """Histogram of execution times in nanoseconds."""


class DatabaseStats(msgspec.Struct, array_like=True):
    """One database of one shard."""

    index: int
    keys: int
    expires: int
    average_ttl_ms: int


class ShardStats(msgspec.Struct, kw_only=True):
    """Everything a shard says of itself (internal command ``_stats``, as msgpack)."""

    index: int
    pid: int
    uptime_ms: int
    databases: list[DatabaseStats]
    used_memory: int
    """Bytes accounted to keys and values, of which `maxmemory` limits the sum over the shards."""
    used_memory_peak: int
    total_memory_peak: int = 0
    """The most that was in use of all that the shard counts: data, slots, log and links together."""
    resident_memory: int
    """Resident set size of the process, bytes."""
    startup_memory: int
    """Of that, what it took before it had any data."""
    buffer_memory: int
    """Bytes on their way over the links to the routers."""
    slot_memory: int
    """Bytes of the tables of slots, which no eviction frees."""
    log_memory: int
    """Bytes that wait to be written to the log."""
    lua_memory: int = 0
    """Bytes of the interpreter of scripts; not accounted to the data, limited by `lua-memory-limit`."""
    script_memory: int = 0
    """Bytes of the texts of the scripts that are known."""
    scripts: int = 0
    """Scripts that are known."""
    function_memory: int = 0
    """Bytes of the interpreter of functions, as `lua_memory`."""
    library_memory: int = 0
    """Bytes of the texts of the libraries."""
    libraries: int = 0
    functions: int = 0
    """Libraries, and the functions in them."""
    maxmemory: int
    """The limit of all shards together; 0: none."""
    allowed_memory: int
    """What this shard may use at present: its share, or what the others leave; 0: there is no limit."""
    policy: str
    commands: int
    ops_per_second: float
    hits: int
    misses: int
    expired: int
    evicted: int
    net_input_bytes: int
    net_output_bytes: int
    input_kbps: float
    output_kbps: float
    links: int
    """Routers connected."""
    in_flight: int
    """Frames received and not answered yet."""
    deferred: int
    """Commands whose reply comes later (blocked clients)."""
    dirty: int
    """Changes to the data."""
    cleanup_pending: int
    """Values waiting to be taken apart by the cleanup thread."""
    longest_stall_us: int
    """The longest tick and the wait for the GIL before it."""
    stall_us: int = 0
    """The longest of the last minute."""
    cpu_user_s: float
    cpu_system_s: float
    errors: dict[str, int]
    """Error replies by their code."""
    command_stats: list[CommandStats]
    latency_ns: dict[int, int]
    """Histogram of execution times in nanoseconds: bucket -> count; empty buckets are left out."""
    pubsub_channels: int = 0
    """Names of channels that somebody listens to; those that every shard knows count at the first one."""
    pubsub_patterns: int = 0
    """The same of patterns, all of which every shard knows."""
    pubsubshard_channels: int = 0
    tracked_keys: int = 0
    """Keys that clients are told of when they change."""
    watched_keys: int = 0
    """Keys that clients watch."""
    blocking_keys: int = 0
    """Keys that clients wait for."""
    blocking_keys_of_groups: int = 0
    """Those of them that XREADGROUP waits for, which ends when they go, too."""
    timed_waits: int = 0
    """Clients whose wait on this shard alone ends by time."""
    follows: str = ""
    """The policy by which it evicts at present: what `auto` has chosen, or the policy itself."""
    policy_changes: int = 0
    """How often `auto` went over to another one."""
    simulated: dict[str, float] = {}
    """The part of the latest reads that would have missed, by policy; empty until enough were seen."""
    kept: dict[str, Any] = {}
    """What is kept on disk: the figures of the log and of dumps, or of loading; empty while nothing is."""


class MemoryUse:
    """What the memory of a cluster is for, in bytes; each part is counted once, and docs/sizing.md says what it holds.

    `clients` is what the routers count for their clients, `clients_peak` the most that it was.
    """

    def __init__(self, shards: list[ShardStats], clients: int = 0, clients_peak: int = 0) -> None:
        self.dataset = sum(shard.used_memory for shard in shards)
        self.slots = sum(shard.slot_memory for shard in shards)
        self.log = sum(shard.log_memory for shard in shards)
        self.links = sum(shard.buffer_memory for shard in shards)
        self.clients = clients
        self.startup = sum(shard.startup_memory for shard in shards)
        self.resident = sum(shard.resident_memory for shard in shards)
        self._peaks = sum(shard.total_memory_peak for shard in shards) + clients_peak

    @property
    def overhead(self) -> int:
        """What is not limited by `maxmemory`."""
        return self.slots + self.log + self.links + self.clients

    @property
    def used(self) -> int:
        return self.dataset + self.overhead

    @property
    def peak(self) -> int:
        """What each process used at most since the last CONFIG RESETSTAT, together: never less than what is used."""
        return max(self._peaks, self.used)

    @property
    def accounted(self) -> int:
        """What shards know of, their start included: to be compared with what is resident in them. Clients are the routers'."""
        return self.startup + self.used - self.clients

    @property
    def fragmentation(self) -> float:
        """Resident memory over what is accounted for; 1 without shards."""
        return self.resident / self.accounted if self.accounted else 1.0


class RouterStats(msgspec.Struct, kw_only=True):
    """What a router says of itself, and `added`, what all of them say together."""

    started_ms: int
    counters: dict[str, Any]
    """Counters, levels and rates, which add up over the routers; the compiled router names them."""
    links: list[int]
    """In flight to each shard."""
    input_buffer: int
    """Bytes of the client with the most unparsed input."""
    output_buffer: int
    """Bytes of the client with the most unsent output."""
    cpu_user_s: float
    cpu_system_s: float
    index: int = 0


class Snapshot(msgspec.Struct, kw_only=True):
    """One moment of the whole cluster, as one of its routers found it: what `kache.figures` is computed from."""

    at_ms: int
    """Unix milliseconds."""
    shards: list[ShardStats]
    """Those that answered, in their order."""
    silent: dict[int, str]
    """Why the others did not."""
    states: list[str]
    """Of every shard, as that router sees it."""
    routers: list[RouterStats]
    """Those that answered, in their order."""
    round_trips_us: dict[int, int]
    """How long each shard took to answer."""
    maxclients: int
    most_client_bytes: int
    """What all clients together may cost."""
    slowlog_length: int


def added(routers: list[RouterStats]) -> RouterStats:
    """Several routers as one, which is as old as the oldest."""
    if len(routers) == 1:
        return routers[0]
    return RouterStats(
        started_ms=min(one.started_ms for one in routers),
        counters=_sum([one.counters for one in routers]),
        links=_sum([one.links for one in routers]),
        input_buffer=max(one.input_buffer for one in routers),
        output_buffer=max(one.output_buffer for one in routers),
        cpu_user_s=sum(one.cpu_user_s for one in routers),
        cpu_system_s=sum(one.cpu_system_s for one in routers),
    )


def _sum(values: list[Any]) -> Any:
    """Numbers added up; of lists and maps, what stands at the same place."""
    if isinstance(values[0], dict):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _sum([value[name] for value in values if name in value]) for name in names}
    if isinstance(values[0], list | tuple):
        return [_sum(list(places)) for places in zip(*values, strict=True)]
    return sum(values)


def bucket_value(bucket: int) -> int:
    """The largest value that falls into a bucket of the histogram."""
    if bucket < SUB_BUCKETS:
        return bucket
    half = SUB_BUCKETS // 2
    power, part = divmod(bucket - SUB_BUCKETS, half)
    return ((half + part + 1) << (power + 1)) - 1


def percentile(histogram: dict[int, int], percent: float) -> int:
    """The value below or at which `percent` of the counts lie; 0 for an empty histogram."""
    wanted = sum(histogram.values()) * percent / 100
    seen = 0
    value = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        value = bucket_value(bucket)
        if seen >= wanted:
            break
    return value


def total(histograms: list[dict[int, int]]) -> dict[int, int]:
    """Several histograms as one."""
    merged: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            merged[bucket] = merged.get(bucket, 0) + count
    return merged
