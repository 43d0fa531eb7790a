"""The metrics port of a real cluster, and the same figures wherever they are shown."""

from __future__ import annotations

import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from cluster import DEADLINE, Cluster, until
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families as parse

from kache import figures


def ask(port: int, path: str) -> tuple[int, str]:
    """(status, text)"""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """{(name, labels): value}"""
    status, text = ask(port, "/metrics")
    assert status == 200, text
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in parse(text) for s in family.samples}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(port: int) -> Iterator[Cluster]:
    with Cluster(3, routers=2, metrics_port=port, maxmemory="64mb", slowlog_log_slower_than=-1) as cluster:
        for number in range(300):
            cluster.request("set", f"key:{number}", "x" * 10, *(("ex", 1000) if number % 3 == 0 else ()))
        cluster.request("mget", *(f"key:{number}" for number in range(20)))
        for number in range(100, 400):
            cluster.request("get", f"key:{number}")
        yield cluster


MOVING = frozenset(
    {
        # What asking for them changes, and what moves by itself.
        "uptime_ms", "uptime_s", "resident_memory", "fragmentation", "buffer_memory", "ops_per_second", "commands",
        "net_input_bytes", "net_output_bytes", "p50_us", "p99_us", "p999_us", "stall_us", "longest_stall_us", "deferred",
        "cpu_user_s", "cpu_system_s", "cpu_user_all_s", "cpu_system_all_s", "router_cpu_user_s", "router_cpu_system_s",
        "connections_received", "client_commands", "client_ops_per_second", "client_input_bytes", "client_output_bytes",
        "input_kbps", "output_kbps", "in_flight", "client_bytes", "output_bytes", "lag_us", "total_memory",
        "clients_memory_percent", "clients",
    }
)  # fmt: skip


def test_everybody_shows_the_same_figures(cluster: Cluster, port: int) -> None:
    """STATS, `kache stats`, `kache top`, the console, INFO and Prometheus, of a cluster that rests."""
    total = json.loads(cluster.kache("stats", "--json").stdout)["total"]
    told = metrics(port)
    console = json.loads(ask(port, "/api/now")[1])["total"]
    assert "  300 keys" in cluster.kache("top", "--once", "--interval", "0.2").stdout
    info = dict(
        line.split(":", 1) for line in cluster.request("info", "everything").decode().split("\r\n") if ":" in line
    )
    compared = 0
    for figure in figures.FIGURES:
        value = total.get(figure.name)
        if figure.name in MOVING or value is None:
            continue
        assert console[figure.name] == pytest.approx(value), figure.name
        if figure.info:
            assert float(info[figure.info]) == pytest.approx(value), figure.name
            compared += 1
        if figure.metric and figure.whole in ("sum", "max"):
            parts = [each for (name, _), each in told.items() if name == figure.metric]
            expected = sum(parts) if figure.whole == "sum" else max(parts)
            assert expected == pytest.approx(value * figure.scale), figure.name
            compared += 1
    assert compared > 25
    assert total["keys"] == 300 == sum(v for (name, _), v in told.items() if name == "redis_db_keys")
    assert total["expires"] == 100
    assert (total["hits"], total["misses"]) == (220, 100)
    assert info["db0"].startswith("keys=300,expires=100,")
    assert f"calls={300}," in info["cmdstat_set"]
    assert sum(v for (n, labels), v in told.items() if n == "redis_commands_total" and ("cmd", "set") in labels) == 300
    table = cluster.kache("stats").stdout.splitlines()
    assert table[0].split()[:4] == ["shard", "keys", "with", "ttl"]
    assert table[4].split()[:3] == ["total", "300", "100"]


def test_what_grows_is_the_same_figure(cluster: Cluster, port: int) -> None:
    """Figures that asking changes lie between two readings of another kind."""
    for name in ("client_commands", "commands", "connections_received", "client_input_bytes", "net_output_bytes"):
        figure = figures.by_name(name)
        before = json.loads(cluster.kache("stats", "--json").stdout)["total"][name]
        between = sum(value for (each, _), value in metrics(port).items() if each == figure.metric)
        after = json.loads(cluster.kache("stats", "--json").stdout)["total"][name]
        assert before <= between <= after, name


def test_probes(cluster: Cluster, port: int) -> None:
    assert ask(port, "/healthz") == (200, "The cluster answers.\n")
    assert ask(port, "/readyz") == (200, "Every router and shard is up.\n")
    status, text = ask(port, "/nothing")
    assert (status, "/metrics" in text) == (404, True)


def test_not_ready_while_a_shard_is_stopped() -> None:
    port = free_port()
    with Cluster(2, metrics_port=port, unresponsive_seconds=1, restart_unresponsive="no") as cluster:
        pid = cluster.pid_of("shard", 1)
        cluster.kill(pid, signal.SIGSTOP)
        until(lambda: ask(port, "/readyz")[0] == 503, "it is seen")
        until(lambda: ask(port, "/readyz")[1].startswith("shard 1 is unresponsive (no sign of life for "), "it is told")
        until(lambda: ask(port, "/healthz")[0] == 200, "the others are served")
        cluster.kill(pid, signal.SIGCONT)
        until(lambda: ask(port, "/readyz")[0] == 200, "it is back")


def test_it_comes_back_and_minds_the_password() -> None:
    port = free_port()
    with Cluster(1, metrics_port=port, environment={"KACHE_REQUIREPASS": "sesame"}) as cluster:
        assert metrics(port)["redis_up", ()] == 1
        pid = cluster.pid_of("metrics")
        cluster.kill(pid)
        until(lambda: cluster.pid_of("metrics") not in (0, pid), "another one")
        until(lambda: cluster.child("metrics")["state"] == "up", "it serves")
        assert metrics(port)["redis_up", ()] == 1
        cluster.kache("config", "set", "requirepass", "other")
        until(lambda: ask(port, "/metrics")[0] == 200 and metrics(port)["redis_up", ()] == 1, "it knows the new one")


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(AssertionError, match=f"Port {port} on 127.0.0.1 is in use"), Cluster(1, metrics_port=port):
            pass
