"""Starting in front of a cluster, what is refused there, and `kache cluster check`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from ports import free_port
from six_nodes import KINDS, SixNodes, six_nodes, until

from kache.testing.cluster import LocalCluster


@pytest.fixture(scope="module", params=KINDS)
def guarded(request: pytest.FixtureRequest) -> Iterator[SixNodes]:
    """Three masters that want a password."""
    with six_nodes(request.param, password="of the nodes", replicas=0) as nodes:
        yield nodes


def kache(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("KACHE_") or name == "KACHE_RUN_DIR"
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "kache", *words],
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_password_is_that_of_a_file(guarded: SixNodes, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("of the nodes\n")
    with LocalCluster(shards=0, backend=guarded.url, backend_password_file=str(file)) as front:
        for protocol in (2, 3):
            with redis.Redis(port=front.port, protocol=protocol) as client:
                assert client.set("a", 1) and client.get("a") == b"1"


@pytest.mark.parametrize(("password", "why"), [("", "NOAUTH"), ("wrong", "refuses the password")])
def test_a_wrong_password_is_refused_at_the_start(guarded: SixNodes, password: str, why: str) -> None:
    environ = {"KACHE_BACKEND_PASSWORD": password} if password else {}
    ended = kache("cluster", "start", "--port", "0", "--backend", guarded.url, **environ)
    assert ended.returncode == 1 and why in ended.stderr and "Traceback" not in ended.stderr


def test_without_a_node_it_does_not_start() -> None:
    ended = kache("cluster", "start", "--port", "0", "--backend", "redis-cluster://127.0.0.1:1")
    assert ended.returncode == 1 and "127.0.0.1:1 cannot be reached" in ended.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--backend", "redis://127.0.0.1"], "backend must be redis-cluster://"),
        (["--backend", "redis-cluster://:secret@127.0.0.1"], "must not hold a password"),
        (["--backend", "redis-cluster://h", "--maxmemory", "1gb"], "maxmemory cannot be set together with backend"),
        (["--backend", "redis-cluster://h", "--appendonly", "yes"], "appendonly cannot be set together with backend"),
        (["--backend", "redis-cluster://h", "--shards", "2"], "shards cannot be set together with backend"),
        (["--backend-password", "typed"], "No such option"),
    ],
)
def test_what_cannot_be(words: list[str], why: str) -> None:
    ended = kache("cluster", "start", "--port", "0", *words)
    assert ended.returncode == 2 and why in ended.stderr, ended.stderr


def test_check_looks_at_all_masters(guarded: SixNodes) -> None:
    for index in range(3):
        guarded.client(index).execute_command("CONFIG", "RESETSTAT")
    key = next(key for key in (b"k%d" % number for number in range(100)) if guarded.owner_of(key) == 0)
    guarded.client(0).execute_command("COPY", key, b"{" + key + b"}")
    ended = kache("cluster", "check", "--backend", guarded.url, "--json", KACHE_BACKEND_PASSWORD="of the nodes")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    report = json.loads(ended.stdout)
    assert sum(node["slots"] for node in report["nodes"]) == 16384 and report["troubles"] == []
    assert any(each["command"] == "copy" and each["how"] == "one_slot" for each in report["differences"])
    shown = kache("cluster", "check", "--backend", guarded.url, KACHE_BACKEND_PASSWORD="of the nodes")
    assert "Kache can stand in front of it." in shown.stdout and "copy" in shown.stdout


def test_check_says_what_stands_in_the_way(guarded: SixNodes) -> None:
    ended = kache("cluster", "check", "--backend", guarded.url)
    assert ended.returncode == 1 and "NOAUTH" in ended.stderr
    ended = kache("cluster", "check", "--backend", "redis-cluster://127.0.0.1:1")
    assert ended.returncode == 1 and "cannot be reached" in ended.stderr
    ended = kache("cluster", "check", "--backend", "nonsense")
    assert ended.returncode == 2 and "--backend must be redis-cluster://" in ended.stderr
    source, slot = guarded.client(0), 5
    target = guarded.name(1)
    try:
        guarded.client(1).execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", guarded.name(0))
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
        ended = kache("cluster", "check", "--backend", guarded.url, KACHE_BACKEND_PASSWORD="of the nodes")
        assert ended.returncode == 1 and "1 slots are leaving" in ended.stdout
    finally:
        for index in (0, 1):
            guarded.client(index).execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


def test_status_and_restart(guarded: SixNodes, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("of the nodes\n")
    with LocalCluster(shards=0, routers=2, backend=guarded.url, backend_password_file=str(file)) as front:
        shown = kache("cluster", "status", "--port", str(front.port))
        assert shown.returncode == 0 and "router 1" in shown.stdout and "shard" not in shown.stdout, shown.stdout
        again = kache("cluster", "restart", "--port", str(front.port), "--router")
        assert again.returncode == 0, again.stderr
        with redis.Redis(port=front.port) as client:
            assert client.set("after", 1)
            backend = client.info("backend")
            assert backend["slots_owned"] == 16384
            assert "of the nodes" not in str(client.config_get("*")) + shown.stdout + front.log()


def test_what_an_operator_looks_at(guarded: SixNodes, tmp_path: Path) -> None:
    """Each as it is documented, with the masters in the place of shards."""
    file = tmp_path / "password"
    file.write_text("of the nodes\n")
    metrics = free_port()
    with LocalCluster(shards=0, backend=guarded.url, backend_password_file=str(file), metrics_port=metrics) as front:
        address = ["--port", str(front.port)]
        with redis.Redis(port=front.port) as client:
            client.set("a", 1)
            assert client.info("backend")["slots_owned"] == 16384
        shown = kache("stats", *address)
        assert shown.returncode == 0 and "waiting for a node" in shown.stdout, shown.stdout + shown.stderr
        assert all(f"127.0.0.1:{port}" in shown.stdout for port in guarded.ports)
        found = json.loads(kache("stats", "--json", *address).stdout)
        assert (
            sum(int(each["slots"]) for each in found["masters"]) == 16384
            and found["total"]["backend_slots_owned"] == 16384
        )
        top = kache("top", "--once", "--interval", "0.2", *address)
        assert top.returncode == 0 and f"127.0.0.1:{guarded.ports[0]}" in top.stdout, top.stdout + top.stderr
        hot = kache("hot", *address)
        assert hot.returncode == 1 and "ask them" in hot.stderr and "Traceback" not in hot.stderr, hot.stderr

        def page(path: str) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics}{path}", timeout=20) as answer:
                return str(answer.read().decode())

        assert page("/healthz") and page("/readyz")
        text = page("/metrics")
        assert 'kache_backend_slots_owned{router="0"} 16384' in text and "kache_backend_redirects_total" in text
        assert "redis_up 1" in text
        with redis.Redis(port=front.port) as client:
            assert client.execute_command("READY")
            stopped = guarded.masters()[0]
            guarded.stop_node(stopped)
            try:
                with pytest.raises(
                    redis.ResponseError, match=rf"NOTREADY node 127.0.0.1:{guarded.ports[stopped]} is not reachable"
                ):
                    client.execute_command("READY")
            finally:
                guarded.continue_node(stopped)
            until(lambda: kache("ping", "--ready", *address).returncode == 0)
