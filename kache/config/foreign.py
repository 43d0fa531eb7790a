"""Parameters of a real server that mean nothing in Kache, for clients and tools that read or set them.

They are known to CONFIG GET and CONFIG SET alone: no options of a start, no keys of the file. One with a reason has the
only value that it can have here, and any other is refused with that reason; the others take what a real server would
take, show it, and change nothing. `ALIASES` are older names of settings that Kache does have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kache.config.kinds import COUNT, SECONDS, SIZE, TEXT, WORD, YES_NO, Kind, Setting, SettingError

__all__ = ["ALIASES", "FOREIGN", "Foreign"]


@dataclass(frozen=True, slots=True)
class Foreign:
    """One such parameter: what it takes, its value where nobody has set it, and why it cannot have another."""

    setting: Setting
    value: str
    reason: str = ""

    def taken(self, text: str) -> str:
        """`text` as it is shown from now on; raises SettingError when it cannot be taken."""
        shown = self.setting.show(self.setting.read(text))
        if self.reason and shown != self.value:
            raise SettingError(f"can only be '{self.value}', since {self.reason}")
        return shown


def _number(value: int, low: int = 0, high: int | None = None, kind: Kind = COUNT) -> Foreign:
    return Foreign(Setting(kind, "", low=low, high=high), str(value))


def _yes_no(value: str, reason: str = "") -> Foreign:
    return Foreign(Setting(YES_NO, ""), value, reason)


def _one_of(value: str, *choices: str, reason: str = "") -> Foreign:
    return Foreign(Setting(WORD, "", choices=choices), value, reason)


def _text(value: str, reason: str = "") -> Foreign:
    return Foreign(Setting(TEXT, ""), value, reason)


def _always(value: str, *names: str) -> dict[str, Foreign]:
    return {name: _yes_no(value) for name in names}


_PROCESSES: Final = "Kache has processes instead of threads (--routers, --shards)"
_NO_REPLICAS: Final = "a cluster of Kache has no replicas"
_SUPERVISED: Final = "how the cluster runs is said when it is started (kache cluster start)"
_NO_SYSLOG: Final = "Kache logs to standard error or to its logfile"
_NO_PEERS: Final = "Kache speaks TLS with clients alone"
_ONE_NODE: Final = "clients see one node, behind which the shards are"
_NOT_LOADED: Final = "what it would protect does not exist here"

FOREIGN: Final[Mapping[str, Foreign]] = {
    # What a real server frees, defragments and rehashes beside its commands; Kache always does
    **_always("yes", "lazyfree-lazy-eviction", "lazyfree-lazy-expire", "lazyfree-lazy-server-del"),
    **_always("yes", "lazyfree-lazy-user-del", "lazyfree-lazy-user-flush", "replica-lazy-flush"),
    **_always("yes", "activerehashing", "dynamic-hz", "jemalloc-bg-thread", "disable-thp"),
    **_always("no", "activedefrag"),
    "active-defrag-ignore-bytes": _number(100 << 20, kind=SIZE),
    "active-defrag-threshold-lower": _number(10, 0, 1000),
    "active-defrag-threshold-upper": _number(100, 0, 1000),
    "active-defrag-cycle-min": _number(1, 1, 99),
    "active-defrag-cycle-max": _number(25, 1, 99),
    "active-defrag-max-scan-fields": _number(1000, 1),
    "active-expire-effort": _number(1, 1, 10),
    "maxmemory-eviction-tenacity": _number(10, 0, 100),
    # Processes instead of threads
    "io-threads": Foreign(Setting(COUNT, "", low=1, high=128), "1", _PROCESSES),
    "io-threads-do-reads": _yes_no("no", _PROCESSES),
    "daemonize": _yes_no("no", _SUPERVISED),
    "supervised": _one_of("no", "no", "auto", "systemd", "upstart", reason=_SUPERVISED),
    "pidfile": _text("", _SUPERVISED),
    "oom-score-adj": _one_of("no", "no", "yes", "relative", "absolute", reason="Kache leaves that to the system"),
    "oom-score-adj-values": _text("0 200 800"),
    "set-proc-title": _yes_no("yes", "Kache always names its processes"),
    "shutdown-timeout": _number(10, kind=SECONDS),
    # What is logged and measured
    "syslog-enabled": _yes_no("no", _NO_SYSLOG),
    "syslog-ident": _text("kache", _NO_SYSLOG),
    "syslog-facility": _text("local0", _NO_SYSLOG),
    "always-show-logo": _yes_no("no"),
    "crash-log-enabled": _yes_no("yes"),
    "crash-memcheck-enabled": _yes_no("no"),
    "latency-monitor-threshold": _number(0),
    "latency-tracking": _yes_no("yes"),
    "latency-tracking-info-percentiles": _text("50 99 99.9"),
    "acl-pubsub-default": _one_of("resetchannels", "resetchannels", "allchannels"),
    # Snapshots and logs
    "stop-writes-on-bgsave-error": _yes_no("yes"),
    "rdbcompression": _yes_no("yes"),
    "rdbchecksum": _yes_no("yes"),
    "rdb-del-sync-files": _yes_no("no"),
    "rdb-save-incremental-fsync": _yes_no("yes"),
    "dbfilename": _text("dump.rdb"),
    "sanitize-dump-payload": _one_of("no", "no", "yes", "clients"),
    "appendfilename": _text("appendonly.aof", "Kache writes no such file"),
    "appenddirname": _text("appendonlydir", "Kache writes no such directory"),
    "no-appendfsync-on-rewrite": _yes_no("no"),
    "aof-use-rdb-preamble": _yes_no("yes"),
    "aof-rewrite-incremental-fsync": _yes_no("yes"),
    "aof-timestamp-enabled": _yes_no("no"),
    # Replicas and other nodes
    "replicaof": _text("", _NO_REPLICAS),
    "slaveof": _text("", _NO_REPLICAS),
    "masterauth": _text("", _NO_REPLICAS),
    "masteruser": _text("", _NO_REPLICAS),
    **{f"min-{word}-to-write": _text("0", _NO_REPLICAS) for word in ("replicas", "slaves")},
    **{f"min-{word}-max-lag": _number(10, kind=SECONDS) for word in ("replicas", "slaves")},
    **{f"{word}-priority": _number(100) for word in ("replica", "slave")},
    **{f"{word}-read-only": _yes_no("yes") for word in ("replica", "slave")},
    **{f"{word}-serve-stale-data": _yes_no("yes") for word in ("replica", "slave")},
    **{f"{word}-ignore-maxmemory": _yes_no("yes") for word in ("replica", "slave")},
    **{f"{word}-announce-ip": _text("") for word in ("replica", "slave")},
    **{f"{word}-announce-port": _number(0, 0, 65535) for word in ("replica", "slave")},
    "replica-announced": _yes_no("yes"),
    "repl-backlog-size": _number(1 << 20, 1, kind=SIZE),
    "repl-backlog-ttl": _number(3600, kind=SECONDS),
    "repl-timeout": _number(60, 1, kind=SECONDS),
    **{f"repl-ping-{word}-period": _number(10, 1, kind=SECONDS) for word in ("replica", "slave")},
    "repl-diskless-sync": _yes_no("yes"),
    "repl-diskless-sync-delay": _number(5, kind=SECONDS),
    "repl-diskless-sync-max-replicas": _number(0),
    "repl-diskless-load": _one_of("disabled", "disabled", "on-empty-db", "swapdb", "flush-before-load"),
    "repl-disable-tcp-nodelay": _yes_no("no"),
    "cluster-enabled": _yes_no("no", _ONE_NODE),
    "cluster-config-file": _text("nodes.conf", _ONE_NODE),
    "cluster-node-timeout": _number(15000),
    "cluster-require-full-coverage": _yes_no("yes"),
    "cluster-allow-reads-when-down": _yes_no("no"),
    "cluster-allow-replica-migration": _yes_no("yes"),
    "cluster-migration-barrier": _number(1),
    "cluster-replica-no-failover": _yes_no("no"),
    # TLS, modules, debugging
    "tls-replication": _yes_no("no", _NO_PEERS),
    "tls-cluster": _yes_no("no", _NO_PEERS),
    "tls-session-cache-size": _number(20480),
    "tls-session-cache-timeout": _number(300, kind=SECONDS),
    "tls-dh-params-file": _text(""),
    "enable-module-command": _one_of("no", "no", "yes", "local", reason=_NOT_LOADED),
    "enable-protected-configs": _one_of("no", "no", "yes", "local", reason=_NOT_LOADED),
    # How values are encoded
    "hll-sparse-max-bytes": _number(3000, kind=SIZE),
}
"""Every such parameter by its name."""

ALIASES: Final[Mapping[str, str]] = {
    f"{name}-max-ziplist-{what}": f"{name}-max-listpack-{what}"
    for name, whats in (("hash", ("entries", "value")), ("list", ("size",)), ("zset", ("entries", "value")))
    for what in whats
} | {"lua-time-limit": "busy-reply-threshold"}
"""The setting that is meant, by its older name."""
