"""No setting can kill: every setting with extreme values by every way it can be given, and children killed in between.

`tests/soak/settings.py` is the long form, which kills after every single value.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, Connection, until

from kache.config.changing import changed
from kache.config.reading import load
from kache.config.settings import SETTINGS, Config, ConfigError
from kache.errors import CommandError

VALUES = ["0", "-1", "1", str(2**31), str(2**32), str(2**63 - 1), str(2**63), str(2**64), "text", ""]
PLACES = {"port", "bind", "metrics-port", "metrics-bind", "dir", "logfile", "shards", "routers", "modules", "backend"}
"""Where the cluster is and what it consists of: tried on their own, not one of them in a running cluster."""


def values_of(name: str) -> list[str]:
    """The values, and the setting's own bounds."""
    setting = SETTINGS[name]
    return VALUES + ([str(setting.low), str(setting.high)] if setting.kind.number else [])


def accepted(name: str) -> list[str]:
    """Those of the values that the setting takes, from the lowest to the highest."""

    def takes(text: str) -> bool:
        try:
            load({name.replace("-", "_"): text}, {})
        except ConfigError:
            return False
        return True

    taken = [text for text in values_of(name) if takes(text)]
    return sorted(taken, key=int) if SETTINGS[name].kind.number else taken


def connected(cluster: Cluster, password: str = "") -> Connection:
    """A connection that may do everything; with `maxclients` of 1, once the one before has gone."""

    def try_it() -> Connection | None:
        try:
            connection = Connection(cluster.port, 5)
            if password:
                connection.request("auth", password)
            if connection.request("ping") == "PONG":
                return connection
            connection.close()
        except OSError:
            pass
        return None

    found: Connection = until(try_it, "PONG")
    return found


def all_up(cluster: Cluster) -> bool:
    return all(child["state"] == "up" for child in cluster.status()["children"])


def kill_all(cluster: Cluster) -> None:
    """Kill every child; the supervisor lives, and every child comes back."""
    supervisor = cluster.status()["pid"]
    before = {child["pid"] for child in cluster.status()["children"]}
    for pid in before:
        cluster.kill(pid)
    until(lambda: before.isdisjoint(c["pid"] for c in cluster.status()["children"]) and all_up(cluster), "new children")
    assert cluster.status()["pid"] == supervisor
    assert cluster.process.poll() is None


@pytest.mark.parametrize("way", ["option", "environment", "file"])
def test_every_value_is_taken_or_refused_with_the_reason(tmp_path: Path, way: str) -> None:
    path = tmp_path / "kache.toml"
    for name in SETTINGS:
        for text in values_of(name):
            options, environ, file = {}, {}, None
            if way == "option":
                options = {name.replace("-", "_"): text}
            elif way == "environment":
                environ = {f"KACHE_{name.replace('-', '_').upper()}": text}
            else:
                file = str(path)
                path.write_text(f"{name} = {text if text.lstrip('-').isdecimal() else json.dumps(text)}\n")
            try:
                config = load(options, environ, file)
            except ConfigError as error:
                assert str(error).startswith((f"{name} ", "link-", "output-", "Listening on ")), error
            else:
                assert isinstance(config, Config)


def at_the_ends() -> Iterator[dict[str, str]]:
    """All settings at the lowest of the values that each takes, then at the highest."""
    for place in (0, -1):
        chosen: dict[str, str] = {}
        for name in SETTINGS:
            if name in PLACES or SETTINGS[name].fixed or not accepted(name):
                continue
            attempt = chosen | {name: accepted(name)[place]}
            try:
                load({name.replace("-", "_"): text for name, text in attempt.items()}, {})
            except ConfigError:
                continue  # not together with the others
            chosen = attempt
        yield chosen


@pytest.mark.parametrize("way", ["option", "environment", "file"])
@pytest.mark.parametrize("end", [0, 1], ids=["lowest", "highest"])
def test_a_cluster_with_all_settings_at_an_end_serves_and_comes_back(tmp_path: Path, way: str, end: int) -> None:
    chosen = list(at_the_ends())[end]
    assert len(chosen) > 40
    options: dict[str, object] = {}
    environment = {}
    if way == "option":
        # What would be seen in the list of processes is no option.
        options = {name.replace("-", "_"): text for name, text in chosen.items() if name != "backend-password"}
    elif way == "environment":
        environment = {f"KACHE_{name.replace('-', '_').upper()}": text for name, text in chosen.items()}
    else:
        path = tmp_path / "kache.toml"
        path.write_text("".join(f"{name} = {json.dumps(text)}\n" for name, text in chosen.items()))
        options = {"config": path}
    with Cluster(1, environment=environment, **options) as cluster:
        password = chosen.get("requirepass", "")
        connected(cluster, password).close()
        kill_all(cluster)
        connected(cluster, password).close()
        assert "Traceback" not in cluster.log()


def test_config_set_of_extreme_values_with_kills_in_between() -> None:
    """Each value to every setting that takes it, one after the other, then all children are killed."""
    with Cluster(1, restart_backoff_ms=100) as cluster:
        password = ""
        for place in range(len(values_of("port"))):
            connection = connected(cluster, password)
            for name, setting in SETTINGS.items():
                text = dict(enumerate(values_of(name))).get(place, "")
                if name in ("requirepass", "maxclients", "timeout", "restart-backoff-ms", "protected-mode"):
                    continue
                reply = connection.request("config", "set", name, text)
                assert reply == "OK" or str(reply).startswith("ERR CONFIG SET failed (possibly"), (name, text, reply)
                assert reply != "OK" or setting.live or text in accepted(name), (name, text)
            for name in ("timeout", "restart-backoff-ms", "maxclients", "requirepass"):
                text = dict(enumerate(values_of(name))).get(place, "")
                reply = connection.request("config", "set", name, text)
                assert reply == "OK" or "failed (possibly related" in str(reply), (name, text, reply)
                if name == "requirepass" and reply == "OK":
                    password = text
            # A machine that is quick enough has all these children die young: then the wait grows up to the setting.
            assert connection.request("config", "set", "restart-backoff-ms", "100") == "OK"
            connection.close()
            kill_all(cluster)
        connected(cluster, password).close()
        assert "Traceback" not in cluster.log()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("timeout", "18446744073709551616"),
        ("timeout", "9223372036854775807"),
        ("lfu-decay-time", "4294967296"),
        ("tick-us", "9223372036854775807"),
        ("slowlog-log-slower-than", "9223372036854775807"),
    ],
)
def test_what_once_ended_the_cluster_is_refused_with_the_reason(name: str, text: str) -> None:
    for redis in (name, name.upper()):
        with pytest.raises(ConfigError, match=f"{name} must be a whole number of .* from -?[0-9]+ to [0-9]+, not"):
            changed(Config(), {redis: text})


def test_settings_that_go_only_together() -> None:
    with Cluster(1) as cluster:
        with pytest.raises(CommandError, match=r"link-soft-bytes .* must not be larger than link-hard-bytes"):
            cluster.request("config", "set", "link-soft-bytes", "64mb")
        assert cluster.request("config", "set", "link-soft-bytes", "64mb", "link-hard-bytes", "128mb") == "OK"


PARAMETERS = {
    "save": "", "appendonly": "no", "protected-mode": "no", "notify-keyspace-events": "", "lazyfree-lazy-expire": "yes",
    "lazyfree-lazy-user-del": "no", "activedefrag": "no", "io-threads": "1", "latency-monitor-threshold": "100",
    "latency-tracking": "yes", "maxmemory-eviction-tenacity": "5", "active-expire-effort": "3", "cluster-enabled": "no",
    "replica-read-only": "yes", "repl-backlog-size": "2097152", "lua-time-limit": "5000",
    "stop-writes-on-bgsave-error": "no", "rdbcompression": "yes", "rdbchecksum": "yes", "dbfilename": "dump.rdb",
    "auto-aof-rewrite-percentage": "100", "auto-aof-rewrite-min-size": "67108864", "oom-score-adj": "no",
    "supervised": "no", "daemonize": "no", "pidfile": "", "syslog-enabled": "no", "acllog-max-len": "64",
    "tracking-table-max-keys": "1000", "hash-max-ziplist-entries": "100", "list-max-ziplist-size": "-2",
    "zset-max-ziplist-value": "64", "set-max-intset-entries": "512",
}  # fmt: skip


def test_the_limits_of_small_collections_hold_at_once_and_after_a_kill() -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:

        def encodings() -> list[object]:
            connection.request("flushall")
            connection.request("hset", "h", *[str(number) for number in range(12)])
            connection.request("sadd", "i", *[str(number) for number in range(12)])
            connection.request("zadd", "z", "1", "m" * 20)
            connection.request("rpush", "l", "a", "b", "c")
            return [connection.request("object", "encoding", key) for key in ("h", "i", "z", "l")]

        assert encodings() == [b"listpack", b"intset", b"listpack", b"listpack"]
        limits = {
            "hash-max-ziplist-entries": "5", "set-max-intset-entries": "11", "set-max-listpack-entries": "11",
            "zset-max-listpack-value": "19", "list-max-listpack-size": "2", "list-compress-depth": "1",
        }  # fmt: skip
        for name, value in limits.items():
            assert connection.request("config", "set", name, value) == "OK"
        large = [b"hashtable", b"hashtable", b"skiplist", b"quicklist"]
        assert encodings() == large
        killed = [cluster.pid_of("shard", index) for index in (0, 1)]
        for pid in killed:
            cluster.kill(pid)
        shards = [("shard", 0), ("shard", 1)]
        until(lambda: not {cluster.pid_of(*shard) for shard in shards} & {0, *killed}, "new shards")
        until(lambda: all(cluster.child(*shard)["state"] == "up" for shard in shards), "new shards that are up")
        cluster.serves()
        assert encodings() == large
        assert "ERR" in str(connection.request("config", "set", "list-max-listpack-size", "-6"))


def test_parameters_of_a_real_server_are_known_and_shown() -> None:
    with Cluster(1) as cluster, cluster.connect() as connection:
        for name, text in PARAMETERS.items():
            assert connection.request("config", "set", name, text) == "OK", name
            assert connection.request("config", "get", name) == [name.encode(), text.encode()]
        assert connection.request("config", "get", "hash-max-listpack-entries")[1] == b"100"  # one setting, two names
        cluster.status()
        router = cluster.pid_of("router")
        cluster.kill(router)
        until(lambda: cluster.child("router")["state"] == "up" and cluster.pid_of("router") != router, "a new router")
        assert cluster.request("config", "get", "acllog-max-len")[1] == b"64"
        for name, text, reason in (
            ("cluster-enabled", "yes", "clients see one node"),
            ("replicaof", "127.0.0.1 1", "no replicas"),
            ("io-threads", "4", "processes instead of threads"),
            ("lua-time-limit", "x", "must be a whole number"),
        ):
            with pytest.raises(CommandError, match=reason):
                cluster.request("config", "set", name, text)


def test_beyond_loopback_only_with_a_password() -> None:
    with Cluster(1) as cluster:
        refused = cluster.kache("cluster", "start", "--port=0", "--bind=0.0.0.0", check=False)
        assert refused.returncode == 2
        assert refused.stderr.startswith("kache: Listening on 0.0.0.0 without a password is refused")
        assert refused.stderr.count("\n") == 1
    with Cluster(1, bind="0.0.0.0", requirepass="sesame") as cluster, cluster.connect() as connection:
        assert connection.request("auth", "sesame") == "OK"
        assert "without a password is refused" in str(connection.request("config", "set", "requirepass", ""))
        assert connection.request("config", "set", "protected-mode", "no") == "OK"
        assert connection.request("config", "set", "requirepass", "") == "OK"
        assert "without a password is refused" in str(connection.request("config", "set", "protected-mode", "yes"))
    with Cluster(1, bind="0.0.0.0", protected_mode="no") as cluster:
        assert cluster.request("ping") == "PONG"


def test_a_connection_may_be_idle_before_its_first_command() -> None:
    with Cluster(1, preauth_timeout_ms=100) as cluster:
        with cluster.connect() as idle, cluster.connect() as half:
            half.socket.sendall(b"*1\r\n$4\r\nPI")
            started = time.monotonic()
            assert half.socket.recv(1) == b""  # half a command is not idleness
            assert time.monotonic() - started >= 0.1
            assert idle.request("ping") == "PONG"
        assert cluster.request("config", "set", "timeout", "1") == "OK"
        with cluster.connect() as idle:
            assert idle.socket.recv(1) == b""


def test_with_a_password_the_clock_starts_with_the_stranger() -> None:
    guarded = Cluster(1, requirepass="sesame", preauth_timeout_ms=3000, preauth_max_commands=4)
    with guarded as cluster, cluster.connect() as connection:
        assert connection.request("auth", "sesame") == "OK"
        for _ in range(10):
            assert connection.request("ping") == "PONG"
        began = time.monotonic()
        until(lambda: connection.request("ping") == "PONG" and time.monotonic() > began + 3.3, "more than that time")
        assert connection.request("reset") == "RESET"
        assert str(connection.request("ping")).startswith("NOAUTH")
        assert connection.request("auth", "sesame") == "OK"
        assert connection.request("reset") == "RESET"
        assert connection.socket.recv(1) == b""  # still a stranger when the time is up


def test_what_clients_may_cost_as_a_part_of_maxmemory(tmp_path: Path) -> None:
    """As of Redis 7: CONFIG SET, GET and REWRITE know it."""
    (tmp_path / "kache.toml").write_text('maxmemory-clients = "10%"\n')
    with Cluster(1, config=tmp_path / "kache.toml", maxmemory="100mb") as cluster, cluster.connect() as connection:
        assert connection.request("config", "get", "maxmemory-clients") == [b"maxmemory-clients", b"10%"]
        assert connection.request("config", "set", "maxmemory-clients", "5%") == "OK"
        assert connection.request("config", "get", "maxmemory-clients") == [b"maxmemory-clients", b"5%"]
        assert connection.request("config", "rewrite") == "OK"
        assert (tmp_path / "kache.toml").read_text().startswith('maxmemory-clients = "5%"\n')
        refused = connection.request("config", "set", "maxmemory-clients", "101%").message
        assert "maxmemory-clients" in refused and "a whole percentage of maxmemory such as 5%, up to 100%" in refused
