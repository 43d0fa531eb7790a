"""INFO: what every router and every shard says of itself, put together (commands/statistics.py), in Redis's words.

It speaks Redis's sections and field names, so that existing tools read it; sums over the routers or the shards stand
where a single server would have one number. The section ``# Shards`` is ours: one line for each.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kache import __version__, figures
from kache.cluster import rounds
from kache.commands import DIGEST
from kache.replies import Reply, Verbatim
from kache.stats import MemoryUse, ShardStats, Snapshot, added, percentile

from ..cluster.asking import keyspace_of_all
from ..registry import local
from .arguments import text
from .connection import SERVER_VERSION
from .statistics import snapshot

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["command_latencies"]

Fields = dict[str, object]

DEFAULT_SECTIONS = (
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "errorstats",
    "tls",
    "cluster",
    "keyspace",
    "shards",
)
BACKEND_SECTIONS = (*(name for name in DEFAULT_SECTIONS if name not in ("persistence", "shards")), "backend")
"""In front of a Redis Cluster, whose nodes have their own to say."""
ALL_SECTIONS = (*DEFAULT_SECTIONS[:7], "commandstats", "latencystats", *DEFAULT_SECTIONS[7:])

TOTAL_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@local("info")
async def info(router: Router, session: Session, *sections: bytes) -> Reply:
    """The asked sections; without any, those of Redis's default."""
    wanted = _wanted(sections, behind=router.remote is not None)
    state = _State(router, await snapshot(router, buffers="clients" in wanted))
    if router.remote is not None and "keyspace" in wanted:
        state.databases = await keyspace_of_all(router, session)
    blocks = []
    for section in wanted:
        fields = SECTIONS[section](state)
        lines = [f"# {_title(section)}", *(f"{name}:{value}" for name, value in fields.items())]
        blocks.append("\r\n".join(lines) + "\r\n")
    return Verbatim("\r\n".join(blocks).encode())


def _title(section: str) -> str:
    return {"cpu": "CPU", "tls": "TLS"}.get(section, section.capitalize())


def _wanted(sections: tuple[bytes, ...], *, behind: bool = False) -> list[str]:
    """The asked sections; `behind`: the router stands in front of a Redis Cluster."""
    default, everything = (BACKEND_SECTIONS, BACKEND_SECTIONS) if behind else (DEFAULT_SECTIONS, ALL_SECTIONS)
    names = [text(section).lower() for section in sections] or ["default"]
    wanted: list[str] = []
    for name in names:
        group: Iterable[str] = {"default": default, "all": everything, "everything": everything}.get(
            name, (name,) if name in SECTIONS else ()
        )
        wanted += [section for section in group if section not in wanted]
    return wanted


class _State:
    """One moment of the cluster, for all sections alike."""

    def __init__(self, router: Router, found: Snapshot) -> None:
        self.router = router
        self.found = found
        self.whole = figures.whole(found)
        self.routers = added(found.routers)
        self.shards = found.shards
        self.silent = found.silent
        self.databases: dict[int, list[int]] = {}
        """By number: keys, those with a time to live, and that times their average one; in front of a Redis Cluster as its
        nodes count them."""
        for shard in found.shards:
            for one in shard.databases:
                row = self.databases.setdefault(one.index, [0, 0, 0])
                row[:] = row[0] + one.keys, row[1] + one.expires, row[2] + one.average_ttl_ms * one.expires

    def sum(self, name: str) -> Any:
        """A counter added up over the shards."""
        return sum(getattr(shard, name) for shard in self.shards)

    def shown(self, *fields: str) -> Fields:
        """Fields that are figures of `kache.figures`: those of a kind that can be a fraction with two decimals."""
        row: Fields = {}
        for field in fields:
            figure = _BY_FIELD[field]
            value = self.whole[figure.name] or 0
            row[field] = f"{value:.{DECIMALS[figure.unit]}f}" if figure.unit in DECIMALS else value
        return row


DECIMALS = {"ratio": 2, "KiB per second": 2, "seconds": 0, "per second": 0}
"""Of figures that may be fractions, by their unit."""

_BY_FIELD = {figure.info: figure for figure in figures.FIGURES if figure.info}


def _human(size: float) -> str:
    for unit in ("B", "K", "M", "G"):
        if size < 1024 or unit == "G":
            return f"{size:.0f}B" if unit == "B" else f"{size:.2f}{unit}"
        size /= 1024
    return ""


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.2f}%"


def _run_id(router: Router) -> str:
    return f"{router.boot_id:016x}" + "0" * 24


def _server(state: _State) -> Fields:
    router = state.router
    uptime = int(state.whole["uptime_s"] or 0)
    return {
        "redis_version": SERVER_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": DIGEST.hex(),
        "redis_mode": "standalone",
        "kache_version": __version__,
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64,
        "multiplexing_api": "epoll" if sys.platform == "linux" else "kqueue",
        "process_id": os.getpid(),
        "run_id": _run_id(router),
        "tcp_port": router.config.port,
        "server_time_usec": router.clock.now() * 1000,
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86400,
        "hz": router.config.hz,
        "configured_hz": router.config.hz,
        "executable": sys.executable,
        "config_file": router.config_file or "",
    }


def _clients(state: _State) -> Fields:
    return {
        **state.shown("connected_clients"),
        "cluster_connections": 0,
        **state.shown("maxclients"),
        "client_recent_max_input_buffer": state.routers.input_buffer,
        "client_recent_max_output_buffer": state.routers.output_buffer,
        **state.shown("blocked_clients", "tracking_clients", "pubsub_clients", "watching_clients"),
        **state.shown(
            "clients_in_timeout_table", "total_watched_keys", "total_blocking_keys", "total_blocking_keys_on_nokey"
        ),
    }


def _memory(state: _State) -> Fields:
    counters = state.routers.counters
    use = MemoryUse(state.shards, counters["client_bytes"], counters["client_bytes_peak"])
    limit, peak, resident = state.router.config.maxmemory, use.peak, use.resident
    used = int(state.whole["total_memory"] or 0)
    return {
        "used_memory": used,
        "used_memory_human": _human(used),
        "used_memory_rss": resident,
        "used_memory_rss_human": _human(resident),
        "used_memory_peak": peak,
        "used_memory_peak_human": _human(peak),
        "used_memory_peak_perc": _percent(used, peak),
        "used_memory_overhead": use.overhead,
        "used_memory_startup": 0,
        **state.shown("mem_shards_startup", "used_memory_dataset"),
        "used_memory_dataset_perc": _percent(use.dataset, used),
        "total_system_memory": TOTAL_MEMORY,
        "total_system_memory_human": _human(TOTAL_MEMORY),
        **state.shown("used_memory_lua", "used_memory_scripts", "number_of_cached_scripts"),
        **state.shown(
            "number_of_functions", "number_of_libraries", "used_memory_vm_functions", "used_memory_functions"
        ),
        "maxmemory": limit,
        "maxmemory_human": _human(limit),
        "maxmemory_policy": state.router.config.maxmemory_policy,
        "maxmemory_policy_followed": "/".join(sorted({shard.follows for shard in state.shards})),
        **state.shown("maxmemory_policy_changes"),
        **_simulated(state.shards),
        **state.shown("mem_fragmentation_ratio"),
        "mem_fragmentation_bytes": resident - use.accounted,
        "mem_not_counted_for_evict": use.overhead,
        **state.shown("mem_slot_tables", "mem_aof_buffer", "mem_cluster_links"),
        "mem_clients_slaves": 0,
        **state.shown("mem_clients_normal"),
        "mem_allocator": "kache",
        **state.shown("lazyfree_pending_objects"),
    }


def _simulated(shards: Sequence[ShardStats]) -> Fields:
    """The misses that each policy would have at present, in percent of the reads: the mean over the shards."""
    told = [shard.simulated for shard in shards if shard.simulated]
    return {
        f"simulated_misses_{name.replace('-', '_')}": f"{100 * sum(one[name] for one in told) / len(told):.2f}"
        for name in (told[0] if told else ())
    }


def _persistence(state: _State) -> Fields:
    kept = [shard.kept for shard in state.shards if shard.kept]

    def count(name: str) -> int:
        return sum(one.get(name, 0) for one in kept)

    def longest(name: str) -> int:
        return max((one.get(name, -1) for one in kept), default=-1)

    dumping = [one for one in kept if one.get("dump_in_progress")]
    saving, rewriting = _under_way(state, dumping)
    saved = [one["last_save_ms"] for one in kept if "last_save_ms" in one]
    dumped = "ok" if all(one.get("last_dump_ok", 1) for one in kept) else "err"
    failed = [one for one in kept if one.get("error")]
    logging = state.router.config.appendonly
    last = longest("last_dump_ms")
    loading = any(link.state == "loading" for link in state.router.links)
    fields: Fields = {
        "loading": int(loading),
        "async_loading": 0,
        "current_save_keys_processed": count("dump_keys"),
        "rdb_changes_since_last_save": sum(shard.kept.get("changes_since_save", shard.dirty) for shard in state.shards),
        "rdb_bgsave_in_progress": int(saving >= 0),
        "rdb_last_save_time": (min(saved) if saved else state.routers.started_ms) // 1000,
        "rdb_last_bgsave_status": dumped,
        "rdb_last_bgsave_time_sec": -1 if last < 0 else last // 1000,
        "rdb_current_bgsave_time_sec": saving,
        "aof_enabled": int(logging),
        "aof_rewrite_in_progress": int(rewriting >= 0),
        "aof_rewrite_scheduled": 0,
        "aof_last_rewrite_time_sec": -1 if last < 0 else last // 1000,
        "aof_current_rewrite_time_sec": rewriting,
        "aof_last_bgrewrite_status": dumped,
        "aof_last_write_status": "err" if failed else "ok",
    }
    if logging:
        fields |= {
            "aof_current_size": count("log_bytes") + count("base_bytes"),
            "aof_base_size": count("base_bytes"),
            "aof_pending_rewrite": 0,
            "aof_buffer_length": count("queued_bytes"),
            "aof_pending_bio_fsync": sum(one.get("sequence", 0) > one.get("durable", 0) for one in kept),
            "aof_delayed_fsync": sum(one.get("state") in ("slow", "stalled") for one in kept),
        }
    return fields | _dump_progress(dumping) | (_progress(state, kept) if loading else {})


def _under_way(state: _State, dumping: list[dict[str, Any]]) -> tuple[int, int]:
    """For how many seconds a save has been under way, and a rewrite; -1: none is. That of the whole cluster counts from its start
    to its end, also while no shard has its turn; else what a shard does by itself."""
    page = state.router.rounds
    what, since_ms = (rounds.NOTHING, 0) if page is None else rounds.read(page)
    if what != rounds.NOTHING:
        seconds = max(time.time_ns() // 1_000_000 - since_ms, 0) // 1000
        return (seconds, -1) if what == rounds.SAVE else (-1, seconds)
    times = [(one["dump_rewrites"], one["dump_ms"] // 1000) for one in dumping]
    saving, rewriting = (
        max((ms for rewrites, ms in times if bool(rewrites) is wanted), default=-1) for wanted in (False, True)
    )
    return saving, rewriting


def _dump_progress(dumping: list[dict[str, Any]]) -> Fields:
    """How far the dump is that is under way; one shard has its turn after the other."""
    return {
        name: value
        for one in dumping[:1]
        for name, value in {
            "current_dump_perc": f"{100 * one['dump_progress']:.2f}",
            "current_dump_keys_per_sec": round(1000 * one["dump_keys"] / max(one["dump_ms"], 1)),
            "current_dump_eta_seconds": round(
                one["dump_ms"] / 1000 * (1 - one["dump_progress"]) / max(one["dump_progress"], 0.001)
            ),
        }.items()
    }


def _progress(state: _State, kept: list[dict[str, Any]]) -> Fields:
    """How far the shards are that load."""
    busy = [one for one in kept if one.get("loading")]
    total, done = (sum(one[name] for one in busy) for name in ("total_bytes", "loaded_bytes"))
    seconds = max((one["loading_seconds"] for one in busy), default=0.0)
    left = seconds * (total - done) / done if done else 0
    return {
        "loading_start_time": int(time.time() - seconds),
        "loading_total_bytes": total,
        "loading_loaded_bytes": done,
        "loading_loaded_perc": f"{100 * done / total if total else 0:.2f}",
        "loading_eta_seconds": round(left),
    }


def _stats(state: _State) -> Fields:
    return {
        **state.shown(
            "total_connections_received",
            "total_commands_processed",
            "instantaneous_ops_per_sec",
            "total_net_input_bytes",
            "total_net_output_bytes",
            "instantaneous_input_kbps",
            "instantaneous_output_kbps",
            "rejected_connections",
        ),
        "sync_full": 0,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        **state.shown("expired_keys", "evicted_keys", "keyspace_hits", "keyspace_misses"),
        **state.shown("pubsub_channels", "pubsub_patterns", "pubsubshard_channels", "tracking_total_keys"),
        "latest_fork_usec": 0,
        "total_forks": 0,
        **state.shown(
            "total_error_replies",
            "client_output_buffer_limit_disconnections",
            "evicted_clients",
            "request_timeouts",
            "protocol_errors",
            "acl_access_denied_auth",
            "acl_access_denied_cmd",
            "acl_access_denied_key",
            "acl_access_denied_channel",
            "commands_in_flight",
        ),
    }


def _replication(state: _State) -> Fields:
    return {
        "role": "master",
        "connected_slaves": 0,
        "master_failover_state": "no-failover",
        "master_replid": _run_id(state.router),
        "master_replid2": "0" * 40,
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": 0,
        "repl_backlog_first_byte_offset": 0,
        "repl_backlog_histlen": 0,
    }


def _cpu(state: _State) -> Fields:
    shown = ("used_cpu_sys", "used_cpu_user", "used_cpu_sys_router", "used_cpu_user_router")
    return {name: f"{state.whole[_BY_FIELD[name].name] or 0:.6f}" for name in shown}


def _commandstats(state: _State) -> Fields:
    return {
        f"cmdstat_{name}": f"calls={calls},usec={usec},usec_per_call={usec / calls if calls else 0:.2f},"
        f"rejected_calls={rejected},failed_calls={failed}"
        for name, (calls, usec, rejected, failed) in sorted(figures.command_totals(state.found).items())
        if calls or rejected
    }


def _latencystats(state: _State) -> Fields:
    fields: Fields = {}
    for name, histogram in sorted(figures.command_histograms(state.found).items()):
        marks = ",".join(f"p{mark}={percentile(histogram, mark) / 1000:.3f}" for mark in (50, 99, 99.9))
        fields[f"latency_percentiles_usec_{name}"] = marks
    return fields


async def command_latencies(router: Router) -> dict[str, dict[int, int]]:
    """How long commands took, as histograms (kache.stats) by the name of the command, over the whole cluster."""
    return figures.command_histograms(await snapshot(router))


def _errorstats(state: _State) -> Fields:
    return {f"errorstat_{code}": f"count={count}" for code, count in sorted(figures.error_totals(state.found).items())}


def _cluster(state: _State) -> Fields:
    return {"cluster_enabled": 0}


def _backend(state: _State) -> Fields:
    """Of the Redis Cluster as this router sees it."""
    remote = state.router.remote
    if remote is None:
        return {}
    return {"backend": state.router.config.backend, **remote.director.nodes_shown(), **remote.statistics()}


def _keyspace(state: _State) -> Fields:
    return {
        f"db{index}": f"keys={keys},expires={expires},avg_ttl={ttl // expires if expires else 0}"
        for index, (keys, expires, ttl) in sorted(state.databases.items())
        if keys
    }


def _shards(state: _State) -> Fields:
    fields: Fields = {"shards": state.router.shard_count}
    by_index = {shard.index: shard for shard in state.shards}
    for link in state.router.links:
        shard = by_index.get(link.index)
        if shard is None:
            fields[f"shard{link.index}"] = f"state={link.state},reason={state.silent.get(link.index, '')}"
            continue
        fields[f"shard{link.index}"] = ",".join(
            f"{name}={value}"
            for name, value in {
                "state": link.state,
                "pid": shard.pid,
                "keys": sum(one.keys for one in shard.databases),
                "used_memory": shard.used_memory,
                "allowed_memory": shard.allowed_memory,
                "ops": round(shard.ops_per_second),
                "hits": shard.hits,
                "misses": shard.misses,
                "expired": shard.expired,
                "evicted": shard.evicted,
                "in_flight": state.routers.links[link.index],
                "longest_stall_usec": shard.longest_stall_us,
            }.items()
        )
    return fields


def _tls(state: _State) -> Fields:
    router = state.router
    certificate = router.tls.certificate if router.tls is not None else None
    own: Fields = {"tls_port": router.config.tls_port}
    if certificate is not None:
        own |= {
            "tls_server_cert_serial": certificate.serial,
            "tls_server_cert_expires_in_seconds": certificate.expires - router.clock.now() // 1000,
        }
    counted = ("tls_connected_clients", "tls_handshakes", "tls_resumed_handshakes", "tls_failed_handshakes")
    return own | state.shown(*counted)


SECTIONS: dict[str, Callable[[_State], Fields]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "cpu": _cpu,
    "commandstats": _commandstats,
    "latencystats": _latencystats,
    "errorstats": _errorstats,
    "tls": _tls,
    "cluster": _cluster,
    "keyspace": _keyspace,
    "shards": _shards,
    "backend": _backend,
}
