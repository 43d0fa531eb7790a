"""INFO and STATS: what every router and every shard says of itself, put together.

INFO speaks Redis's sections and field names, so that existing tools read it; sums over the routers or the shards stand
where a single server would have one number. The section ``# Shards`` is ours: one line for each.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from kache import __version__
from kache.commands import DIGEST
from kache.errors import CommandError
from kache.replies import Reply, Verbatim
from kache.stats import MemoryUse, RouterStats, ShardStats, added, percentile, total

from ..peers import answers, ask
from ..registry import local
from .arguments import text
from .connection import SERVER_VERSION

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["command_latencies", "gather", "gather_routers"]

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
    "cluster",
    "keyspace",
    "shards",
)
ALL_SECTIONS = (*DEFAULT_SECTIONS[:7], "commandstats", "latencystats", *DEFAULT_SECTIONS[7:])

TOTAL_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

_decoder = msgspec.msgpack.Decoder(ShardStats)
_router_decoder = msgspec.msgpack.Decoder(RouterStats)


async def gather(router: Router) -> tuple[list[ShardStats], dict[int, str]]:
    """The statistics of every shard that answers, and why the others did not."""
    found: list[ShardStats] = []
    silent: dict[int, str] = {}
    for shard in range(router.shard_count):
        try:
            found.append(_decoder.decode(await router.call(shard, "_stats", [])))
        except CommandError as error:
            silent[shard] = error.message
    return found, silent


async def gather_routers(router: Router, *, buffers: bool = False) -> RouterStats:
    """The sum over the routers that answer; how full their clients' buffers are is looked at only if asked for."""
    others = await ask(router, "stats", *([b"buffers"] if buffers else []))
    return added([_own(router, buffers=buffers), *map(_router_decoder.decode, others.values())])


@answers("stats")
def _own_for_another(router: Router, words: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(_own(router, buffers=b"buffers" in words))


def _own(router: Router, *, buffers: bool) -> RouterStats:
    sessions = router.sessions() if buffers else []
    used = resource.getrusage(resource.RUSAGE_SELF)
    return RouterStats(
        started_ms=router.started_ms,
        counters=router.statistics(),
        links=[link.in_flight for link in router.links],
        input_buffer=max((one.unparsed_bytes for one in sessions), default=0),
        output_buffer=max((one.unsent_bytes for one in sessions), default=0),
        cpu_user_s=used.ru_utime,
        cpu_system_s=used.ru_stime,
    )


@local("info")
async def info(router: Router, session: Session, *sections: bytes) -> Reply:
    """The asked sections; without any, those of Redis's default."""
    wanted = _wanted(sections)
    shards, silent = await gather(router)
    state = _State(router, await gather_routers(router, buffers="clients" in wanted), shards, silent)
    blocks = []
    for section in wanted:
        fields = SECTIONS[section](state)
        lines = [f"# {_title(section)}", *(f"{name}:{value}" for name, value in fields.items())]
        blocks.append("\r\n".join(lines) + "\r\n")
    return Verbatim("\r\n".join(blocks).encode())


def _title(section: str) -> str:
    return {"cpu": "CPU"}.get(section, section.capitalize())


def _wanted(sections: tuple[bytes, ...]) -> list[str]:
    names = [text(section).lower() for section in sections] or ["default"]
    wanted: list[str] = []
    for name in names:
        group: Iterable[str] = {"default": DEFAULT_SECTIONS, "all": ALL_SECTIONS, "everything": ALL_SECTIONS}.get(
            name, (name,) if name in SECTIONS else ()
        )
        wanted += [section for section in group if section not in wanted]
    return wanted


class _State:
    """One moment of the cluster, for all sections alike."""

    def __init__(self, router: Router, routers: RouterStats, shards: list[ShardStats], silent: dict[int, str]) -> None:
        self.router = router
        self.routers = routers
        self.shards = shards
        self.silent = silent
        self.counters = routers.counters

    def sum(self, name: str) -> Any:
        """A counter added up over the shards."""
        return sum(getattr(shard, name) for shard in self.shards)

    def errors(self) -> dict[str, int]:
        """Error replies by code, of the shards and of the routers themselves."""
        totals: dict[str, int] = dict(self.counters["errors"])
        for shard in self.shards:
            for code, count in shard.errors.items():
                totals[code] = totals.get(code, 0) + count
        return totals


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
    uptime = (router.now_ms - state.routers.started_ms) // 1000
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
        "connected_clients": state.counters["connections_current"],
        "cluster_connections": 0,
        "maxclients": state.router.config.maxclients,
        "client_recent_max_input_buffer": state.routers.input_buffer,
        "client_recent_max_output_buffer": state.routers.output_buffer,
        "blocked_clients": state.counters["blocked_clients"],
        "tracking_clients": state.counters["tracking_clients"],
        "pubsub_clients": state.counters["pubsub_clients"],
        "watching_clients": state.counters["watching_clients"],
        "clients_in_timeout_table": 0,
        "total_watched_keys": 0,
        "total_blocking_keys": 0,
        "total_blocking_keys_on_nokey": 0,
    }


def _memory(state: _State) -> Fields:
    use = MemoryUse(state.shards, state.counters["client_bytes"])
    limit, used, peak, resident = state.router.config.maxmemory, use.used, state.sum("used_memory_peak"), use.resident
    return {
        "used_memory": used,
        "used_memory_human": _human(used),
        "used_memory_rss": resident,
        "used_memory_rss_human": _human(resident),
        "used_memory_peak": max(peak, used),
        "used_memory_peak_human": _human(max(peak, used)),
        "used_memory_peak_perc": _percent(used, max(peak, used)),
        "used_memory_overhead": use.overhead,
        "used_memory_startup": use.startup,
        "used_memory_dataset": use.dataset,
        "used_memory_dataset_perc": _percent(use.dataset, used),
        "total_system_memory": TOTAL_MEMORY,
        "total_system_memory_human": _human(TOTAL_MEMORY),
        "used_memory_lua": 0,
        "used_memory_scripts": 0,
        "number_of_cached_scripts": 0,
        "maxmemory": limit,
        "maxmemory_human": _human(limit),
        "maxmemory_policy": state.router.config.maxmemory_policy,
        "mem_fragmentation_ratio": f"{use.fragmentation:.2f}",
        "mem_fragmentation_bytes": resident - use.accounted,
        "mem_not_counted_for_evict": use.overhead,
        "mem_slot_tables": use.slots,
        "mem_aof_buffer": use.log,
        "mem_cluster_links": use.links,
        "mem_clients_slaves": 0,
        "mem_clients_normal": use.clients,
        "mem_allocator": "kache",
        "lazyfree_pending_objects": state.sum("cleanup_pending"),
    }


def _persistence(state: _State) -> Fields:
    kept = [shard.kept for shard in state.shards if shard.kept]

    def count(name: str) -> int:
        return sum(one.get(name, 0) for one in kept)

    def longest(name: str) -> int:
        return max((one.get(name, -1) for one in kept), default=-1)

    dumping = [one for one in kept if one.get("dump_in_progress")]
    saving = [one for one in dumping if not one["dump_rewrites"]]
    rewriting = [one for one in dumping if one["dump_rewrites"]]
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
        "rdb_changes_since_last_save": count("changes_since_save") if kept else state.sum("dirty"),
        "rdb_bgsave_in_progress": int(bool(saving)),
        "rdb_last_save_time": (min(saved) if saved else state.routers.started_ms) // 1000,
        "rdb_last_bgsave_status": dumped,
        "rdb_last_bgsave_time_sec": -1 if last < 0 else last // 1000,
        "rdb_current_bgsave_time_sec": max((one["dump_ms"] // 1000 for one in saving), default=-1),
        "aof_enabled": int(logging),
        "aof_rewrite_in_progress": int(bool(rewriting)),
        "aof_rewrite_scheduled": 0,
        "aof_last_rewrite_time_sec": -1 if last < 0 else last // 1000,
        "aof_current_rewrite_time_sec": max((one["dump_ms"] // 1000 for one in rewriting), default=-1),
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
    return fields | (_progress(state, kept) if loading else {})


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
    counters = state.counters
    return {
        "total_connections_received": counters["connections_accepted"],
        "total_commands_processed": counters["commands"],
        "instantaneous_ops_per_sec": round(counters["ops_per_second"]),
        "total_net_input_bytes": counters["bytes_in"],
        "total_net_output_bytes": counters["bytes_out"],
        "instantaneous_input_kbps": f"{counters['input_kbps']:.2f}",
        "instantaneous_output_kbps": f"{counters['output_kbps']:.2f}",
        "rejected_connections": counters["connections_refused"],
        "sync_full": 0,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        "expired_keys": state.sum("expired"),
        "evicted_keys": state.sum("evicted"),
        "keyspace_hits": state.sum("hits"),
        "keyspace_misses": state.sum("misses"),
        "pubsub_channels": state.sum("pubsub_channels"),
        "pubsub_patterns": max((shard.pubsub_patterns for shard in state.shards), default=0),
        "pubsubshard_channels": state.sum("pubsubshard_channels"),
        "tracking_total_keys": state.sum("tracked_keys"),
        "latest_fork_usec": 0,
        "total_forks": 0,
        "total_error_replies": sum(state.errors().values()),
        "client_output_buffer_limit_disconnections": counters["closed_by_output_limit"],
        "evicted_clients": counters["closed_for_memory"],
        "request_timeouts": counters["timeouts"],
        "protocol_errors": counters["protocol_errors"],
        "commands_in_flight": counters["in_flight"],
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
    user, system = state.routers.cpu_user_s, state.routers.cpu_system_s
    return {
        "used_cpu_sys": f"{system + state.sum('cpu_system_s'):.6f}",
        "used_cpu_user": f"{user + state.sum('cpu_user_s'):.6f}",
        "used_cpu_sys_router": f"{system:.6f}",
        "used_cpu_user_router": f"{user:.6f}",
    }


def _command_totals(state: _State) -> dict[str, list[int]]:
    """{command: [calls, usec, rejected, failed]} over the routers and all shards.

    Routers count what they answer, lead or divide, shards what came to them whole and the time that parts took.
    """
    totals: dict[str, list[int]] = {}
    for key, (calls, usec, failed) in state.counters["local_calls"].items():
        row = totals.setdefault(key.removeprefix("binary|"), [0, 0, 0, 0])
        for at, value in enumerate((calls, usec, 0, failed)):
            row[at] += value
    for shard in state.shards:
        for one in shard.command_stats:
            if one.name.startswith("_"):
                continue
            row = totals.setdefault(one.name.removeprefix("binary|"), [0, 0, 0, 0])
            for at, value in enumerate((one.calls, one.usec, one.rejected, one.failed)):
                row[at] += value
    return totals


def _commandstats(state: _State) -> Fields:
    return {
        f"cmdstat_{name}": f"calls={calls},usec={usec},usec_per_call={usec / calls if calls else 0:.2f},"
        f"rejected_calls={rejected},failed_calls={failed}"
        for name, (calls, usec, rejected, failed) in sorted(_command_totals(state).items())
        if calls or rejected
    }


def _latencystats(state: _State) -> Fields:
    fields: Fields = {}
    for name, histogram in sorted(_histograms(state.routers, state.shards).items()):
        marks = ",".join(f"p{mark}={percentile(histogram, mark) / 1000:.3f}" for mark in (50, 99, 99.9))
        fields[f"latency_percentiles_usec_{name}"] = marks
    return fields


def _histograms(routers: RouterStats, shards: list[ShardStats]) -> dict[str, dict[int, int]]:
    """{command: histogram of nanoseconds}: of the shards, and of the routers for what they answer or lead."""
    found: dict[str, list[dict[int, int]]] = {}
    for name, histogram in routers.counters["latency_ns"].items():
        found.setdefault(name, []).append(histogram)
    for shard in shards:
        for one in shard.command_stats:
            if one.latency_ns and not one.name.startswith("_"):
                found.setdefault(one.name.removeprefix("binary|"), []).append(one.latency_ns)
    return {name: total(histograms) for name, histograms in found.items()}


async def command_latencies(router: Router) -> dict[str, dict[int, int]]:
    """How long commands took, as histograms (kache.stats) by the name of the command, over the whole cluster."""
    shards, _silent = await gather(router)
    return _histograms(await gather_routers(router), shards)


def _errorstats(state: _State) -> Fields:
    return {f"errorstat_{code}": f"count={count}" for code, count in sorted(state.errors().items())}


def _cluster(state: _State) -> Fields:
    return {"cluster_enabled": 0}


def _keyspace(state: _State) -> Fields:
    databases: dict[int, list[int]] = {}
    for shard in state.shards:
        for one in shard.databases:
            row = databases.setdefault(one.index, [0, 0, 0])
            row[0] += one.keys
            row[1] += one.expires
            row[2] += one.average_ttl_ms * one.expires
    return {
        f"db{index}": f"keys={keys},expires={expires},avg_ttl={ttl // expires if expires else 0}"
        for index, (keys, expires, ttl) in sorted(databases.items())
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
    "cluster": _cluster,
    "keyspace": _keyspace,
    "shards": _shards,
}


@local("stats")
async def stats(router: Router, session: Session) -> Reply:
    """An array of maps, one for each shard, in the order of the shards."""
    shards, silent = await gather(router)
    by_index = {shard.index: shard for shard in shards}
    routers = await gather_routers(router)
    connections = routers.counters["connections_current"]
    replies: list[dict[bytes, Reply]] = []
    for link in router.links:
        shard = by_index.get(link.index)
        row: Fields = {"shard": link.index, "state": link.state}
        if shard is None:
            row["reason"] = silent.get(link.index, "")
        else:
            row |= _shard_fields(shard)
            row |= {"in_flight": routers.links[link.index], "connections": connections}
        replies.append({name.encode(): _plain(value) for name, value in row.items()})
    return replies


def _shard_fields(shard: ShardStats) -> Fields:
    return {
        "pid": shard.pid,
        "uptime_ms": shard.uptime_ms,
        "keys": sum(one.keys for one in shard.databases),
        "expires": sum(one.expires for one in shard.databases),
        "used_memory": shard.used_memory,
        "resident_memory": shard.resident_memory,
        "startup_memory": shard.startup_memory,
        "buffer_memory": shard.buffer_memory,
        "slot_memory": shard.slot_memory,
        "log_memory": shard.log_memory,
        "maxmemory": shard.maxmemory,
        "allowed_memory": shard.allowed_memory,
        "ops_per_second": shard.ops_per_second,
        "commands": shard.commands,
        "hits": shard.hits,
        "misses": shard.misses,
        "expired": shard.expired,
        "evicted": shard.evicted,
        "net_input_bytes": shard.net_input_bytes,
        "net_output_bytes": shard.net_output_bytes,
        "p50_us": percentile(shard.latency_ns, 50) / 1000,
        "p99_us": percentile(shard.latency_ns, 99) / 1000,
        "longest_stall_us": shard.longest_stall_us,
        "cleanup_pending": shard.cleanup_pending,
        "deferred": shard.deferred,
    }


def _plain(value: object) -> Reply:
    return value.encode() if isinstance(value, str) else value
