"""A moment of a cluster made by hand, for tests of what is computed from it."""

from __future__ import annotations

from typing import Any

from kache.stats import CommandStats, DatabaseStats, RouterStats, ShardStats, Snapshot


def shard(index: int, **others: Any) -> ShardStats:
    """A shard with 10 keys for every place it has in the order, unless `others` say otherwise."""
    one = index + 1
    fields: dict[str, Any] = {
        "index": index, "pid": 100 + index, "uptime_ms": 60_000 * one,
        "databases": [DatabaseStats(0, 10 * one, 4 * one, 1000), DatabaseStats(3, one, 0, 0)],
        "used_memory": 1000 * one, "used_memory_peak": 1500 * one, "resident_memory": 20_000 * one,
        "startup_memory": 15_000, "buffer_memory": 10 * one, "slot_memory": 100, "log_memory": 7, "maxmemory": 100_000, "allowed_memory": 50_000,
        "policy": "allkeys-lru", "commands": 500 * one, "ops_per_second": 100.5 * one, "hits": 30 * one, "misses": 10 * one,
        "expired": 3 * one, "evicted": 2 * one, "net_input_bytes": 7000 * one, "net_output_bytes": 8000 * one,
        "input_kbps": 1.0, "output_kbps": 2.0, "links": 1, "in_flight": one, "deferred": one, "dirty": 40 * one,
        "cleanup_pending": one, "longest_stall_us": 900 * one, "stall_us": 300 * one, "cpu_user_s": 1.5 * one,
        "cpu_system_s": 0.5 * one, "errors": {"WRONGTYPE": one},
        "command_stats": [
            CommandStats("get", 300 * one, 600 * one, 0, one, {20: 290 * one, 200: 10 * one}),
            CommandStats("binary|get", 100, 100, 1, 0, {20: 100}),
            CommandStats("_stats", 5, 50, 0, 0, {250: 5}),
        ],
        "latency_ns": {20: 990, 200: 10} if index == 0 else {20: 10, 200: 990},
    }  # fmt: skip
    return ShardStats(**(fields | others))


def router(index: int, **others: Any) -> RouterStats:
    """A router with `index` + 2 clients, unless `others` say otherwise."""
    two = index + 2
    counters: dict[str, Any] = {
        "connections_accepted": 10 * two, "connections_refused": two, "connections_current": two, "connections_blocked": 0,
        "blocked_clients": 1, "tracking_clients": 0, "pubsub_clients": 1, "watching_clients": 0, "commands": 1000 * two, "bytes_in": 5000 * two, "bytes_out": 6000 * two, "in_flight": two,
        "timeouts": 1, "uncertain": 0, "refused_down": 0, "refused_overload": 2, "protocol_errors": 1,
        "denied_auth": 2, "denied_command": 1, "denied_key": 3, "denied_channel": 0,
        "errors": {"ERR": two}, "closed_by_output_limit": 0, "closed_for_memory": 0, "closed_by_timeout": 0,
        "closings": {"idle": 1}, "client_bytes": 4096 * two, "output_bytes": 100, "ops_per_second": 250.25 * two,
        "input_kbps": 3.25, "output_kbps": 4.5, "lag_us": 700 * two, "local_calls": {"ping": (5, 25, 0)},
        "latency_ns": {"ping": {30: 5}},
    }  # fmt: skip
    fields: dict[str, Any] = {
        "started_ms": 1_000_000 - 1000 * two, "counters": counters, "links": [1, 2], "input_buffer": 10 * two,
        "output_buffer": 20 * two, "cpu_user_s": 2.0, "cpu_system_s": 1.0, "index": index,
    }  # fmt: skip
    return RouterStats(**(fields | others))


def snapshot(**others: Any) -> Snapshot:
    """Two shards behind two routers."""
    fields: dict[str, Any] = {
        "at_ms": 1_000_000, "shards": [shard(0), shard(1)], "silent": {}, "states": ["up", "up"],
        "routers": [router(0), router(1)], "round_trips_us": {0: 150, 1: 250}, "maxclients": 10_000,
        "most_client_bytes": 1 << 20, "slowlog_length": 7,
    }  # fmt: skip
    return Snapshot(**(fields | others))
