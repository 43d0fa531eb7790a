"""Every figure that a cluster tells of itself, once: its name, kind, unit, help, where it is read and how it is totalled.

STATS, INFO, ``kache stats``, ``kache top``, the console and the Prometheus endpoint all show what this table says, so they
agree at the same moment. A moment is a `Snapshot` (kache.stats), which one router gathers; everything here is plain
functions of it.

    of shards    a value per shard, labelled with it
    of routers   a value per router
    of all       one value, of the whole cluster

Rates are those of the last `RATE_WINDOW` seconds. Counters count since the start of their process or CONFIG RESETSTAT.
Percentiles and histograms are of the same time; those of the total come from the merged histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from kache.stats import MemoryUse, RouterStats, ShardStats, Snapshot, percentile, total

__all__ = [
    "BREAKDOWNS", "FIGURES", "RATE_WINDOW", "Breakdown", "Figure", "by_name", "command_histograms", "command_totals", "error_totals",
    "router_row", "shard_row", "values", "whole",
]  # fmt: skip

RATE_WINDOW = 3
"""Seconds: routers and shards both keep their counters of the last three seconds, one sample each."""

Kind = Literal["counter", "gauge"]
Scope = Literal["shard", "router", "all"]
Number = int | float | None
"""None: there is no such figure at present (a limit that is not set, a log that is not kept)."""


class Figure(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    """In STATS, JSON and the tables of the command line."""
    kind: Kind
    unit: str
    of: Scope
    help: str
    read: Callable[[Any], Number]
    """Of a ShardStats, a RouterStats or, for those of all, a Snapshot."""
    whole: Literal["sum", "max", "min"] | Callable[[Snapshot], Number] | None = "sum"
    """How the figure of the whole cluster comes from the parts; None: it has none."""
    metric: str = ""
    """Prometheus's name of it (redis_exporter's, where that has one), in base units; empty: none."""
    scale: float = 1.0
    """By what its value is multiplied there."""
    info: str = ""
    """The field of INFO that shows the figure of the whole."""


def _percent(part: Number, of: Number) -> Number:
    return 100.0 * part / of if part is not None and of else None


def _latency(percent: float) -> Callable[[ShardStats], Number]:
    return lambda shard: percentile(shard.latency_ns, percent) / 1000


def _latency_of_all(percent: float) -> Callable[[Snapshot], Number]:
    return lambda snapshot: percentile(total([shard.latency_ns for shard in snapshot.shards]), percent) / 1000


def _kept(name: str) -> Callable[[ShardStats], Number]:
    return lambda shard: shard.kept.get(name) if isinstance(shard.kept.get(name), int | float) else None


def _simulated(name: str) -> Callable[[ShardStats], Number]:
    return lambda shard: shard.simulated.get(name)


def _counter(name: str) -> Callable[[RouterStats], Number]:
    return lambda router: router.counters[name]


def _tls(name: str) -> Callable[[RouterStats], Number]:
    return lambda router: router.counters.get(name, 0)


def _backend(name: str) -> Callable[[RouterStats], Number]:
    return lambda router: router.counters.get(f"backend_{name}")


def _added(snapshot: Snapshot, name: str) -> int:
    return sum(getattr(shard, name) for shard in snapshot.shards)


def _clients_cost(snapshot: Snapshot) -> int:
    return sum(router.counters["client_bytes"] for router in snapshot.routers)


def _memory(snapshot: Snapshot) -> MemoryUse:
    return MemoryUse(snapshot.shards, _clients_cost(snapshot))


_OF_SHARDS = (
    Figure("uptime_ms", "gauge", "milliseconds", "shard", "Since the process of the shard was started.",
           lambda s: s.uptime_ms, "min", "kache_shard_uptime_seconds", 0.001),
    Figure("pid", "gauge", "", "shard", "Its process.", lambda s: s.pid, None),
    Figure("keys", "gauge", "keys", "shard", "Keys held, in all databases.", lambda s: sum(d.keys for d in s.databases)),
    Figure("expires", "gauge", "keys", "shard", "Of those, keys that have a time to live.",
           lambda s: sum(d.expires for d in s.databases)),
    Figure("used_memory", "gauge", "bytes", "shard", "Accounted to keys and values; maxmemory limits the sum over the shards.",
           lambda s: s.used_memory, metric="redis_memory_used_bytes", info="used_memory_dataset"),
    Figure("used_memory_peak", "gauge", "bytes", "shard", "The most that was accounted to keys and values.",
           lambda s: s.used_memory_peak, metric="redis_memory_used_peak_bytes"),
    Figure("maxmemory", "gauge", "bytes", "shard", "The one limit of all shards together; 0: none.",
           lambda s: s.maxmemory, "max", "redis_memory_max_bytes", info="maxmemory"),
    Figure("allowed_memory", "gauge", "bytes", "shard",
           "What this shard may use at present: its share, or what the others leave; 0: no limit.",
           lambda s: s.allowed_memory, "max", "kache_shard_allowed_memory_bytes"),
    Figure("memory_percent", "gauge", "percent", "shard", "Of what it may use, how much is used; the total: of maxmemory.",
           lambda s: _percent(s.used_memory, s.allowed_memory),
           lambda snapshot: _percent(_added(snapshot, "used_memory"), max((s.maxmemory for s in snapshot.shards), default=0)),
           "kache_shard_memory_used_ratio", 0.01),
    Figure("resident_memory", "gauge", "bytes", "shard", "Resident set size of the process.",
           lambda s: s.resident_memory, metric="redis_memory_used_rss_bytes", info="used_memory_rss"),
    Figure("startup_memory", "gauge", "bytes", "shard", "Of that, what it took before it had data.",
           lambda s: s.startup_memory, metric="redis_memory_used_startup_bytes", info="mem_shards_startup"),
    Figure("buffer_memory", "gauge", "bytes", "shard", "On its way over the links to the routers.",
           lambda s: s.buffer_memory, metric="kache_shard_link_buffer_bytes", info="mem_cluster_links"),
    Figure("slot_memory", "gauge", "bytes", "shard", "Tables of slots, which no eviction frees.",
           lambda s: s.slot_memory, metric="kache_shard_slot_tables_bytes", info="mem_slot_tables"),
    Figure("log_memory", "gauge", "bytes", "shard", "Waits to be written to the log.",
           lambda s: s.log_memory, metric="kache_shard_log_buffer_bytes", info="mem_aof_buffer"),
    Figure("lua_memory", "gauge", "bytes", "shard", "Of the interpreter of scripts, which no maxmemory limits.",
           lambda s: s.lua_memory, metric="redis_memory_used_lua_bytes", info="used_memory_lua"),
    Figure("script_memory", "gauge", "bytes", "shard", "Texts of the scripts that are known.",
           lambda s: s.script_memory, metric="redis_memory_used_scripts_bytes", info="used_memory_scripts"),
    Figure("scripts", "gauge", "scripts", "shard", "Scripts that are known; the total: by the shard that knows most.",
           lambda s: s.scripts, "max", "redis_number_of_cached_scripts", info="number_of_cached_scripts"),
    Figure("function_memory", "gauge", "bytes", "shard", "Of the interpreter of functions, which no maxmemory limits.",
           lambda s: s.function_memory, metric="redis_memory_used_vm_functions_bytes", info="used_memory_vm_functions"),
    Figure("library_memory", "gauge", "bytes", "shard", "Texts of the libraries of functions.",
           lambda s: s.library_memory, metric="redis_memory_used_functions_bytes", info="used_memory_functions"),
    Figure("libraries", "gauge", "libraries", "shard", "Libraries of functions; every shard has them all.",
           lambda s: s.libraries, "max", "redis_number_of_libraries", info="number_of_libraries"),
    Figure("functions", "gauge", "functions", "shard", "Functions of libraries; every shard has them all.",
           lambda s: s.functions, "max", "redis_number_of_functions", info="number_of_functions"),
    Figure("fragmentation", "gauge", "ratio", "shard", "Resident memory against what is accounted to something.",
           lambda s: MemoryUse([s]).fragmentation, lambda n: _memory(n).fragmentation,
           "redis_mem_fragmentation_ratio", info="mem_fragmentation_ratio"),
    Figure("ops_per_second", "gauge", "per second", "shard",
           f"Commands, and parts of divided ones, executed per second over the last {RATE_WINDOW} s.",
           lambda s: s.ops_per_second, metric="kache_shard_commands_per_second"),
    Figure("commands", "counter", "commands", "shard", "Commands, and parts of divided ones, executed.",
           lambda s: s.commands, metric="kache_shard_commands_total"),
    Figure("hits", "counter", "lookups", "shard", "Lookups of keys that were there.",
           lambda s: s.hits, metric="redis_keyspace_hits_total", info="keyspace_hits"),
    Figure("misses", "counter", "lookups", "shard", "Lookups of keys that were not there.",
           lambda s: s.misses, metric="redis_keyspace_misses_total", info="keyspace_misses"),
    Figure("hit_percent", "gauge", "percent", "shard", "Hits of all lookups.",
           lambda s: _percent(s.hits, s.hits + s.misses),
           lambda snapshot: _percent(_added(snapshot, "hits"), _added(snapshot, "hits") + _added(snapshot, "misses"))),
    Figure("expired", "counter", "keys", "shard", "Keys removed at the end of their time.",
           lambda s: s.expired, metric="redis_expired_keys_total", info="expired_keys"),
    Figure("evicted", "counter", "keys", "shard", "Keys removed to make room.",
           lambda s: s.evicted, metric="redis_evicted_keys_total", info="evicted_keys"),
    Figure("policy_changes", "counter", "changes", "shard", "How often a policy that chooses by itself went over to another one.",
           lambda s: s.policy_changes, metric="kache_shard_policy_changes_total", info="maxmemory_policy_changes"),
    *(Figure(f"simulated_misses_{name.replace('-', '_')}", "gauge", "ratio", "shard",
             f"Of the latest reads, the part that would have missed under {name}.",
             _simulated(name), None, f"kache_shard_simulated_misses_{name.replace('-', '_')}_ratio")
      for name in ("lru", "s3fifo", "s3fifo-narrow")),
    Figure("net_input_bytes", "counter", "bytes", "shard", "Received from the routers.",
           lambda s: s.net_input_bytes, metric="kache_shard_link_input_bytes_total"),
    Figure("net_output_bytes", "counter", "bytes", "shard", "Sent to the routers.",
           lambda s: s.net_output_bytes, metric="kache_shard_link_output_bytes_total"),
    Figure("p50_us", "gauge", "microseconds", "shard", "Half of all commands took at most this long to execute, since the start.",
           _latency(50), _latency_of_all(50)),
    Figure("p99_us", "gauge", "microseconds", "shard", "99 % of all commands took at most this long to execute, since the start.",
           _latency(99), _latency_of_all(99)),
    Figure("p999_us", "gauge", "microseconds", "shard", "99.9 % of all commands took at most this long, since the start.",
           _latency(99.9), _latency_of_all(99.9)),
    Figure("stall_us", "gauge", "microseconds", "shard", "The longest stall of the last minute.",
           lambda s: s.stall_us, "max", "kache_shard_stall_seconds", 1e-6),
    Figure("longest_stall_us", "gauge", "microseconds", "shard", "The longest tick, with the wait for the GIL before it.",
           lambda s: s.longest_stall_us, "max", "kache_shard_longest_stall_seconds", 1e-6),
    Figure("deferred", "gauge", "commands", "shard", "Commands whose reply comes later.",
           lambda s: s.deferred, metric="kache_shard_deferred_commands"),
    Figure("pubsub_channels", "gauge", "channels", "shard",
           "Channels that somebody listens to; those that every shard knows count at the first one.",
           lambda s: s.pubsub_channels, metric="redis_pubsub_channels", info="pubsub_channels"),
    Figure("pubsub_patterns", "gauge", "patterns", "shard", "Patterns that somebody listens to, all of which every shard knows.",
           lambda s: s.pubsub_patterns, "max", "redis_pubsub_patterns", info="pubsub_patterns"),
    Figure("pubsubshard_channels", "gauge", "channels", "shard", "Shard channels that somebody listens to.",
           lambda s: s.pubsubshard_channels, metric="redis_pubsubshard_channels", info="pubsubshard_channels"),
    Figure("tracked_keys", "gauge", "keys", "shard", "Keys that clients are told of when they change.",
           lambda s: s.tracked_keys, metric="redis_tracking_total_keys", info="tracking_total_keys"),
    Figure("dirty", "counter", "changes", "shard", "Changes to the data.", lambda s: s.dirty, metric="kache_shard_changes_total"),
    Figure("cleanup_pending", "gauge", "values", "shard", "Large values waiting to be taken apart.",
           lambda s: s.cleanup_pending, metric="redis_lazyfree_pending_objects", info="lazyfree_pending_objects"),
    Figure("cpu_user_s", "counter", "seconds", "shard", "Processor time of the shard in user mode.",
           lambda s: s.cpu_user_s, metric="kache_shard_cpu_user_seconds_total"),
    Figure("cpu_system_s", "counter", "seconds", "shard", "Processor time of the shard in the kernel.",
           lambda s: s.cpu_system_s, metric="kache_shard_cpu_system_seconds_total"),
    Figure("log_bytes", "gauge", "bytes", "shard", "Files of the log.", _kept("log_bytes"), metric="kache_shard_log_bytes"),
    Figure("base_bytes", "gauge", "bytes", "shard", "The file that the log begins with.",
           _kept("base_bytes"), metric="kache_shard_base_bytes"),
    Figure("log_queued_bytes", "gauge", "bytes", "shard", "Of the log, not written yet.",
           _kept("queued_bytes"), metric="kache_shard_log_queued_bytes"),
    Figure("log_syncs", "counter", "calls", "shard", "Calls of fsync.", _kept("syncs"), metric="kache_shard_log_fsyncs_total"),
    Figure("last_sync_us", "gauge", "microseconds", "shard", "How long the last fsync took.",
           _kept("last_sync_us"), "max", "kache_shard_log_fsync_seconds", 1e-6),
    Figure("longest_sync_us", "gauge", "microseconds", "shard", "How long the longest fsync took.",
           _kept("longest_sync_us"), "max", "kache_shard_log_longest_fsync_seconds", 1e-6),
    Figure("changes_since_save", "gauge", "changes", "shard", "Changes since the last save.",
           _kept("changes_since_save"), metric="redis_rdb_changes_since_last_save"),
    Figure("watched_keys", "gauge", "keys", "shard", "Keys that clients watch.",
           lambda s: s.watched_keys, metric="redis_total_watched_keys", info="total_watched_keys"),
    Figure("blocking_keys", "gauge", "keys", "shard", "Keys that clients wait for in a blocking command.",
           lambda s: s.blocking_keys, metric="redis_total_blocking_keys", info="total_blocking_keys"),
    Figure("blocking_keys_of_groups", "gauge", "keys", "shard", "Of those, the ones whose end ends a wait, too: of XREADGROUP.",
           lambda s: s.blocking_keys_of_groups, metric="redis_total_blocking_keys_on_nokey", info="total_blocking_keys_on_nokey"),
)  # fmt: skip

_OF_ROUTERS = (
    Figure("clients", "gauge", "clients", "router", "Clients connected.",
           _counter("connections_current"), metric="redis_connected_clients", info="connected_clients"),
    Figure("blocked_clients", "gauge", "clients", "router", "Clients that wait in a blocking command.",
           _counter("blocked_clients"), metric="redis_blocked_clients", info="blocked_clients"),
    Figure("tracking_clients", "gauge", "clients", "router", "Clients that are told of changes.",
           _counter("tracking_clients"), metric="redis_tracking_clients", info="tracking_clients"),
    Figure("pubsub_clients", "gauge", "clients", "router", "Clients that listen to channels or patterns.",
           _counter("pubsub_clients"), metric="redis_pubsub_clients", info="pubsub_clients"),
    Figure("watching_clients", "gauge", "clients", "router", "Clients that watch keys.",
           _counter("watching_clients"), metric="redis_watching_clients", info="watching_clients"),
    Figure("connections_received", "counter", "connections", "router", "Connections accepted.",
           _counter("connections_accepted"), metric="redis_connections_received_total", info="total_connections_received"),
    Figure("connections_refused", "counter", "connections", "router", "Connections refused.",
           _counter("connections_refused"), metric="redis_rejected_connections_total", info="rejected_connections"),
    Figure("client_commands", "counter", "commands", "router", "Commands of clients.",
           _counter("commands"), metric="redis_commands_processed_total", info="total_commands_processed"),
    Figure("client_ops_per_second", "gauge", "per second", "router",
           f"Commands of clients per second over the last {RATE_WINDOW} s.",
           _counter("ops_per_second"), metric="redis_instantaneous_ops_per_sec", info="instantaneous_ops_per_sec"),
    Figure("client_input_bytes", "counter", "bytes", "router", "Received from clients.",
           _counter("bytes_in"), metric="redis_net_input_bytes_total", info="total_net_input_bytes"),
    Figure("client_output_bytes", "counter", "bytes", "router", "Sent to clients.",
           _counter("bytes_out"), metric="redis_net_output_bytes_total", info="total_net_output_bytes"),
    Figure("input_kbps", "gauge", "KiB per second", "router", f"Received from clients over the last {RATE_WINDOW} s.",
           _counter("input_kbps"), info="instantaneous_input_kbps"),
    Figure("output_kbps", "gauge", "KiB per second", "router", f"Sent to clients over the last {RATE_WINDOW} s.",
           _counter("output_kbps"), info="instantaneous_output_kbps"),
    Figure("in_flight", "gauge", "commands", "router", "Sent to shards and not answered yet: the router's queue.",
           _counter("in_flight"), metric="kache_router_in_flight_commands", info="commands_in_flight"),
    Figure("client_bytes", "gauge", "bytes", "router", "What clients cost: unread replies, unfinished requests.",
           _counter("client_bytes"), metric="kache_router_client_memory_bytes", info="mem_clients_normal"),
    Figure("output_bytes", "gauge", "bytes", "router", "Of that, unread replies.",
           _counter("output_bytes"), metric="kache_router_client_output_bytes"),
    Figure("timeouts", "counter", "commands", "router", "Commands that were answered TIMEOUT.",
           _counter("timeouts"), metric="kache_router_timeouts_total", info="request_timeouts"),
    Figure("uncertain", "counter", "commands", "router", "Commands answered UNCERTAIN: whether they were executed is not known.",
           _counter("uncertain"), metric="kache_router_uncertain_total"),
    Figure("refused_down", "counter", "commands", "router", "Commands refused because their shard was down.",
           _counter("refused_down"), metric="kache_router_refused_down_total"),
    Figure("refused_overload", "counter", "commands", "router", "Commands refused because too much was in flight.",
           _counter("refused_overload"), metric="kache_router_refused_overload_total"),
    Figure("protocol_errors", "counter", "connections", "router", "Connections closed for what they sent.",
           _counter("protocol_errors"), metric="kache_router_protocol_errors_total", info="protocol_errors"),
    Figure("tls_clients", "gauge", "clients", "router", "Of the clients, those that speak TLS.",
           _tls("tls_clients"), metric="kache_router_tls_clients", info="tls_connected_clients"),
    Figure("tls_handshakes", "counter", "handshakes", "router", "TLS handshakes of clients.",
           _tls("tls_handshakes"), metric="kache_router_tls_handshakes_total", info="tls_handshakes"),
    Figure("tls_resumed", "counter", "handshakes", "router", "Of those, resumptions of an earlier session.",
           _tls("tls_resumed"), metric="kache_router_tls_resumptions_total", info="tls_resumed_handshakes"),
    Figure("tls_failed", "counter", "connections", "router", "Connections to the TLS port that failed: no TLS, or refused.",
           _tls("tls_failed"), metric="kache_router_tls_failures_total", info="tls_failed_handshakes"),
    Figure("tls_expires", "gauge", "seconds", "router", "Unix time at which the TLS certificate expires.",
           lambda r: r.counters.get("tls_expires") or None, "min", "kache_router_tls_certificate_expires_timestamp_seconds"),
    Figure("denied_auth", "counter", "logins", "router", "Logins that were refused.",
           _counter("denied_auth"), metric="redis_acl_access_denied_auth_total", info="acl_access_denied_auth"),
    Figure("denied_command", "counter", "commands", "router", "Commands that users may not run.",
           _counter("denied_command"), metric="redis_acl_access_denied_cmd_total", info="acl_access_denied_cmd"),
    Figure("denied_key", "counter", "commands", "router", "Commands refused for a key that their user may not touch.",
           _counter("denied_key"), metric="redis_acl_access_denied_key_total", info="acl_access_denied_key"),
    Figure("denied_channel", "counter", "commands", "router", "Commands refused for a channel that their user may not use.",
           _counter("denied_channel"), metric="redis_acl_access_denied_channel_total", info="acl_access_denied_channel"),
    Figure("closed_by_output_limit", "counter", "clients", "router", "Clients closed because they read too slowly.",
           _counter("closed_by_output_limit"), metric="kache_router_output_limit_disconnections_total",
           info="client_output_buffer_limit_disconnections"),
    Figure("closed_for_memory", "counter", "clients", "router", "Clients closed for the memory of all clients.",
           _counter("closed_for_memory"), metric="redis_evicted_clients_total", info="evicted_clients"),
    Figure("lag_us", "gauge", "microseconds", "router", "How late the event loop came to its timers, at worst in the last minute.",
           _counter("lag_us"), "max", "kache_router_loop_lag_seconds", 1e-6),
    Figure("backend_connections", "gauge", "connections", "router", "To the nodes of the Redis Cluster behind the routers.",
           _backend("connections"), metric="kache_backend_connections"),
    Figure("backend_connects", "counter", "connections", "router", "Begun to those nodes since the start.",
           _backend("connects"), metric="kache_backend_connects_total"),
    Figure("backend_in_flight", "gauge", "commands", "router", "Sent to those nodes and not answered yet.",
           _backend("in_flight"), metric="kache_backend_in_flight_commands"),
    Figure("backend_waiting", "gauge", "commands", "router", "Waiting for a node that can execute them (failover, moving slots).",
           _backend("waiting"), metric="kache_backend_waiting_commands"),
    Figure("backend_redirects", "counter", "commands", "router", "Refused by a node and sent on: MOVED, ASK, TRYAGAIN and the like.",
           _backend("redirects"), metric="kache_backend_redirects_total"),
    Figure("backend_repeated_reads", "counter", "commands", "router", "Sent once more after a connection was lost.",
           _backend("repeated_reads"), metric="kache_backend_repeated_reads_total"),
    Figure("backend_split_transactions", "counter", "transactions", "router", "MULTI over several slots, each of which was one by itself.",
           _backend("split_transactions"), metric="kache_backend_split_transactions_total"),
    Figure("backend_slots_owned", "gauge", "slots", "router", "Slots that have an owner, of 16384.",
           _backend("slots_owned"), "min", "kache_backend_slots_owned"),
    Figure("backend_slots_proven", "gauge", "slots", "router", "Of those, slots whose owner has answered: their commands are pipelined.",
           _backend("slots_proven"), "min", "kache_backend_slots_proven"),
    Figure("router_cpu_user_s", "counter", "seconds", "router", "Processor time of the router in user mode.",
           lambda r: r.cpu_user_s, metric="kache_router_cpu_user_seconds_total", info="used_cpu_user_router"),
    Figure("router_cpu_system_s", "counter", "seconds", "router", "Processor time of the router in the kernel.",
           lambda r: r.cpu_system_s, metric="kache_router_cpu_system_seconds_total", info="used_cpu_sys_router"),
)  # fmt: skip

_OF_ALL = (
    Figure("up", "gauge", "", "all", "1 when every shard answers.", lambda n: int(not n.silent), metric="redis_up"),
    Figure("uptime_s", "gauge", "seconds", "all", "Since the oldest router was started.",
           lambda n: (n.at_ms - min((r.started_ms for r in n.routers), default=n.at_ms)) // 1000,
           metric="redis_uptime_in_seconds", info="uptime_in_seconds"),
    Figure("total_memory", "gauge", "bytes", "all", "Data, tables, links, the log's buffer and clients together: used_memory of INFO.",
           lambda n: _memory(n).used, info="used_memory"),
    Figure("clients_memory_percent", "gauge", "percent", "all", "Of what all clients may cost (maxmemory-clients), how much they do.",
           lambda n: _percent(_clients_cost(n), n.most_client_bytes), metric="kache_clients_memory_ratio", scale=0.01),
    Figure("timed_waits", "gauge", "clients", "all", "Clients whose blocking command ends by time.",
           lambda n: sum(s.timed_waits for s in n.shards) + sum(r.counters.get("timed_waits", 0) for r in n.routers),
           metric="redis_clients_in_timeout_table", info="clients_in_timeout_table"),
    Figure("maxclients", "gauge", "clients", "all", "How many may be connected.", lambda n: n.maxclients,
           metric="redis_config_maxclients", info="maxclients"),
    Figure("error_replies", "counter", "replies", "all", "Error replies, of shards and routers.",
           lambda n: sum(error_totals(n).values()), info="total_error_replies"),
    Figure("cpu_user_all_s", "counter", "seconds", "all", "Processor time of routers and shards in user mode.",
           lambda n: sum(each.cpu_user_s for each in (*n.shards, *n.routers)),
           metric="redis_cpu_user_seconds_total", info="used_cpu_user"),
    Figure("cpu_system_all_s", "counter", "seconds", "all", "Processor time of routers and shards in the kernel.",
           lambda n: sum(each.cpu_system_s for each in (*n.shards, *n.routers)),
           metric="redis_cpu_sys_seconds_total", info="used_cpu_sys"),
    Figure("slowlog_length", "gauge", "entries", "all", "Entries of the slow log.", lambda n: n.slowlog_length,
           metric="redis_slowlog_length"),
    Figure("loading", "gauge", "", "all", "1 while a shard reads its files.", lambda n: int("loading" in n.states),
           metric="redis_loading_dump_file", info="loading"),
)  # fmt: skip

FIGURES: tuple[Figure, ...] = (*_OF_SHARDS, *_OF_ROUTERS, *_OF_ALL)


def by_name(name: str) -> Figure:
    """The figure of that name. Raises KeyError."""
    return _BY_NAME[name]


_BY_NAME = {figure.name: figure for figure in FIGURES}
assert len(_BY_NAME) == len(FIGURES), "a figure is defined twice"


def shard_row(shard: ShardStats) -> dict[str, Number]:
    """All figures of one shard, by name."""
    return {figure.name: figure.read(shard) for figure in _OF_SHARDS}


def router_row(router: RouterStats) -> dict[str, Number]:
    """All figures of one router, by name."""
    return {figure.name: figure.read(router) for figure in _OF_ROUTERS}


def values(figure: Figure, snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
    """(labels, value) for each part of the cluster that the figure is of; what there is none of is left out."""
    if figure.of == "shard":
        parts: Sequence[tuple[dict[str, str], Any]] = [({"shard": str(s.index)}, s) for s in snapshot.shards]
    elif figure.of == "router":
        parts = [({"router": str(r.index)}, r) for r in snapshot.routers]
    else:
        parts = [({}, snapshot)]
    for labels, part in parts:
        value = figure.read(part)
        if value is not None:
            yield labels, value


def whole(snapshot: Snapshot) -> dict[str, Number]:
    """Every figure of the whole cluster, by name."""
    return {figure.name: _whole(figure, snapshot) for figure in FIGURES if figure.whole is not None}


def _whole(figure: Figure, snapshot: Snapshot) -> Number:
    if figure.of == "all":
        return figure.read(snapshot)
    if callable(figure.whole):
        return figure.whole(snapshot)
    found = [value for _, value in values(figure, snapshot)]
    if not found:
        return 0 if figure.kind == "counter" else None
    return sum(found) if figure.whole == "sum" else max(found) if figure.whole == "max" else min(found)


# What is counted by name: of commands, errors, databases ----------------------------------------------------------


class Breakdown(msgspec.Struct, frozen=True):
    """A figure with a value for each of some labels."""

    metric: str
    kind: Kind
    help: str
    rows: Callable[[Snapshot], Iterator[tuple[dict[str, str], int | float]]]


def error_totals(snapshot: Snapshot) -> dict[str, int]:
    """Error replies by code, of the shards and of the routers themselves."""
    return _merged([*(shard.errors for shard in snapshot.shards), *(r.counters["errors"] for r in snapshot.routers)])


def _merged(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            merged[name] = merged.get(name, 0) + count
    return merged


def _command_rows(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], str, Sequence[int]]]:
    """(labels, command, [calls, microseconds, rejected, failed]): what shards executed, and routers did by themselves."""
    for shard in snapshot.shards:
        for one in shard.command_stats:
            if not one.name.startswith("_"):
                counts = (one.calls, one.usec, one.rejected, one.failed)
                yield {"shard": str(shard.index)}, one.name.removeprefix("binary|"), counts
    for router in snapshot.routers:
        for key, (calls, usec, failed) in router.counters["local_calls"].items():
            yield {"router": str(router.index)}, key.removeprefix("binary|"), (calls, usec, 0, failed)


def command_totals(snapshot: Snapshot) -> dict[str, list[int]]:
    """{command: [calls, microseconds, rejected, failed]} over the routers and all shards.

    Routers count what they answer, lead or divide, shards what came to them whole and the time that parts took.
    """
    totals: dict[str, list[int]] = {}
    for _, name, counts in _command_rows(snapshot):
        row = totals.setdefault(name, [0, 0, 0, 0])
        for at, value in enumerate(counts):
            row[at] += value
    return totals


def command_histograms(snapshot: Snapshot) -> dict[str, dict[int, int]]:
    """{command: histogram of nanoseconds}: of the shards, and of the routers for what they answer or lead."""
    found: dict[str, list[dict[int, int]]] = {}
    for router in snapshot.routers:
        for name, histogram in router.counters["latency_ns"].items():
            found.setdefault(name.removeprefix("binary|"), []).append(histogram)
    for shard in snapshot.shards:
        for one in shard.command_stats:
            if one.latency_ns and not one.name.startswith("_"):
                found.setdefault(one.name.removeprefix("binary|"), []).append(one.latency_ns)
    return {name: total(histograms) for name, histograms in found.items()}


def _commands(at: int, scale: float) -> Callable[[Snapshot], Iterator[tuple[dict[str, str], int | float]]]:
    def rows(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
        # A command has a row of each protocol.
        merged: dict[tuple[tuple[str, str], ...], float] = {}
        for labels, name, counts in _command_rows(snapshot):
            place = (("cmd", name), *labels.items())
            merged[place] = merged.get(place, 0) + counts[at] * scale
        for place, value in merged.items():
            yield dict(place), value

    return rows


def _databases(field: str) -> Callable[[Snapshot], Iterator[tuple[dict[str, str], int | float]]]:
    def rows(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
        used = {one.index for shard in snapshot.shards for one in shard.databases if one.keys} | {0}
        for shard in snapshot.shards:
            found = {one.index: getattr(one, field) for one in shard.databases}
            for index in sorted(used):
                yield {"db": f"db{index}", "shard": str(shard.index)}, found.get(index, 0)

    return rows


def _errors(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
    for code, count in error_totals(snapshot).items():
        yield {"err": code}, count


def _closings(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
    for router in snapshot.routers:
        for reason, count in router.counters["closings"].items():
            yield {"reason": reason, "router": str(router.index)}, count


def _links(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
    for router in snapshot.routers:
        for shard, count in enumerate(router.links):
            yield {"router": str(router.index), "shard": str(shard)}, count


def _round_trips(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
    for shard, microseconds in snapshot.round_trips_us.items():
        yield {"shard": str(shard)}, microseconds / 1e6


def _answering(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], int | float]]:
    for shard in range(len(snapshot.states)):
        yield {"shard": str(shard)}, int(shard not in snapshot.silent)


BREAKDOWNS = (
    Breakdown("redis_commands_total", "counter", "Calls of each command.", _commands(0, 1)),
    Breakdown("redis_commands_duration_seconds_total", "counter", "Time that each command took.", _commands(1, 1e-6)),
    Breakdown("redis_commands_rejected_calls_total", "counter", "Calls refused before they were executed.", _commands(2, 1)),
    Breakdown("redis_commands_failed_calls_total", "counter", "Calls that ended with an error.", _commands(3, 1)),
    Breakdown("redis_db_keys", "gauge", "Keys of each database.", _databases("keys")),
    Breakdown("redis_db_keys_expiring", "gauge", "Keys of each database that have a time to live.", _databases("expires")),
    Breakdown("redis_errors_total", "counter", "Error replies by their code.", _errors),
    Breakdown("kache_router_closed_clients_total", "counter", "Clients that a router closed, by its reason.", _closings),
    Breakdown("kache_link_in_flight_commands", "gauge", "Sent over a link and not answered yet.", _links),
    Breakdown(
        "kache_link_round_trip_seconds", "gauge", "How long a shard took to answer when it was asked for its figures.", _round_trips
    ),
    Breakdown("kache_shard_up", "gauge", "1 when the shard answers.", _answering),
)  # fmt: skip
