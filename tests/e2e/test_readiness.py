"""READY and `kache ping --ready`: whether every shard executes commands now, asked as whoever may do nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from cluster import Connection, until

from kache.cluster.messages import ChildStatus, ClusterStatus
from kache.cluster.status import unready
from kache.errors import CommandError
from kache.testing.cluster import LocalCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with (
        tempfile.TemporaryDirectory(prefix="kache-") as folder,
        LocalCluster(
            2, routers=2, unixsocket=f"{folder}/s", requirepass="sesame", restart_unresponsive="no"
        ) as running,
    ):
        yield running


@pytest.fixture
def probe(cluster: LocalCluster) -> Iterator[Connection]:
    """A connection of a user who may do nothing."""
    with Connection(cluster.port) as connection:
        assert connection.request("auth", "sesame") == "OK"
        assert connection.request("acl", "setuser", "probe", "reset", "on", ">knock") == "OK"
        assert connection.request("auth", "probe", "knock") == "OK"
        assert str(connection.request("ping")).startswith("NOPERM ")
        yield connection


def ping(cluster: LocalCluster, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KACHE_")} | variables
    return subprocess.run(
        [sys.executable, "-m", "kache", "ping", *options], env=environment, capture_output=True, text=True, check=False
    )


def test_whoever_logged_in_may_ask(cluster: LocalCluster, probe: Connection) -> None:
    until(lambda: probe.request("ready") == "OK", "every router has every shard")
    assert str(probe.request("ready", "now")).startswith("ERR wrong number of arguments")
    with Connection(cluster.port) as stranger:
        assert stranger.request("ready") == CommandError("NOAUTH Authentication required.")


def test_from_the_command_line(cluster: LocalCluster, probe: Connection) -> None:
    port = str(cluster.port)
    (_, path) = (each.decode() for each in cluster.client().execute("config", "get", "unixsocket"))
    login = {"KACHE_USER": "probe", "KACHE_PASSWORD": "knock"}
    until(lambda: ping(cluster, "--ready", "--port", port, **login).returncode == 0, "it is ready")
    done = ping(cluster, "--ready", "--unixsocket", path, "--timeout", "5", **login)
    assert (done.returncode, done.stdout.split()[0]) == (0, "READY"), done.stderr
    # A cluster without a TCP port, and its variables: what a health check of a container sees.
    done = ping(cluster, "--ready", KACHE_PORT="0", KACHE_UNIXSOCKET=path, KACHE_REQUIREPASS="sesame")
    assert (done.returncode, done.stdout.split()[0]) == (0, "READY"), done.stderr
    # Options come before variables.
    done = ping(cluster, "--port", "1", KACHE_UNIXSOCKET=path, KACHE_REQUIREPASS="sesame")
    assert (done.returncode, "127.0.0.1:1" in done.stderr) == (3, True)
    done = ping(cluster, "--ready", "--port", port)
    assert (done.returncode, "wants a password" in done.stderr) == (1, True)
    done = ping(cluster, "--ready", "--port", port, "--password", "wrong")
    assert (done.returncode, "WRONGPASS" in done.stderr) == (1, True)
    done = ping(cluster, "--unixsocket", path, "--port", port)
    assert (done.returncode, "two places" in done.stderr) == (2, True)
    done = ping(cluster, "--unixsocket", f"{path}x")
    assert (done.returncode, f"No cluster answers at {path}x" in done.stderr) == (3, True)
    done = ping(cluster, KACHE_PORT="0")
    assert (done.returncode, "variable KACHE_PORT" in done.stderr) == (2, True)


def test_a_shard_that_stands_still_is_named(cluster: LocalCluster, probe: Connection) -> None:
    """Long before it counts as unresponsive (10 s); the cluster is alive meanwhile."""
    until(lambda: probe.request("ready") == "OK", "every router has every shard")
    with cluster.fault.stop(shard=1):
        assert str(probe.request("ready")).startswith("NOTREADY shard 1 ")
        port = str(cluster.port)
        done = ping(cluster, "--ready", "--port", port, KACHE_PASSWORD="sesame")
        assert done.returncode == 1 and done.stderr.startswith("kache: Not ready: shard 1 "), done.stderr
        assert done.stderr.count("\n") == 1 and not done.stdout
        assert ping(cluster, "--port", port, KACHE_PASSWORD="sesame").returncode == 0
    until(lambda: probe.request("ready") == "OK", "it goes on")


def test_a_shard_that_is_down_is_named_with_the_reason(cluster: LocalCluster, probe: Connection) -> None:
    with cluster.fault.kill(shard=0, restart=False):
        until(lambda: str(probe.request("ready")).startswith("NOTREADY shard 0 is down ("), "it is told")
    until(lambda: probe.request("ready") == "OK", "it is back")


def test_many_who_ask_at_once_share_an_answer(cluster: LocalCluster, probe: Connection) -> None:
    until(lambda: probe.request("ready") == "OK", "every router has every shard")
    with cluster.fault.stop(shard=1):
        others = [Connection(cluster.port) for _ in range(20)]
        for each in others:
            each.send(("auth", "probe", "knock"), ("ready",))
        for each in others:
            assert each.read() == "OK" and str(each.read()).startswith("NOTREADY shard 1 ")
            each.close()
    until(lambda: probe.request("ready") == "OK", "it goes on")


def test_the_supervisor_has_to_answer(cluster: LocalCluster, probe: Connection) -> None:
    """Without it nothing that dies is started again."""
    assert cluster._process is not None
    until(lambda: probe.request("ready") == "OK", "every router has every shard")
    os.kill(cluster._process.pid, signal.SIGSTOP)
    try:
        assert str(probe.request("ready")).startswith("NOTREADY the supervisor does not answer")
    finally:
        os.kill(cluster._process.pid, signal.SIGCONT)
    until(lambda: probe.request("ready") == "OK", "it goes on")


def test_what_the_supervisor_knows_is_told_in_sentences() -> None:
    def child(role: str, index: int, state: str, reason: str = "") -> ChildStatus:
        return ChildStatus(role=role, index=index, pid=1, state=state, restarts=0, started_ms=0, reason=reason)  # type: ignore[arg-type]  # of a table

    status = ClusterStatus(
        version="", pid=1, port=1, bind=[], started_ms=0, now_ms=0, run_dir="", config={}, slots=[], slot_epoch=0,
        children=[
            child("router", 0, "up"), child("shard", 0, "up", "the disk is slow"), child("shard", 2, "loading", "41 % of 2gb"),
            child("router", 1, "starting"), child("metrics", 0, "down", "no port"),
        ],
    )  # fmt: skip
    assert unready(status) == ["shard 2 is loading (41 % of 2gb)", "router 1 is starting"]
    status.draining = True
    assert unready(status)[0] == "the cluster is stopping"


def test_in_a_transaction_and_a_script_it_is_refused(cluster: LocalCluster) -> None:
    with Connection(cluster.port) as connection:
        connection.request("auth", "sesame")
        connection.request("multi")
        assert "not allowed inside a transaction" in str(connection.request("ready"))
        connection.request("discard")
        assert "not allowed from script" in str(connection.request("eval", "return redis.call('ready')", 0))
