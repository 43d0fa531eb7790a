"""A cluster that is asked to end while it cannot save what it is to keep."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, Cluster, alive, until
from frames import BinaryConnection, request

from kache.cluster import control, messages
from kache.cluster.run_dir import find_control

pytestmark = pytest.mark.once

SNAPSHOTS = {"save": "9999 9999"}
LOG = {"appendonly": "yes"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that somebody may remove."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@contextlib.contextmanager
def with_data(data: Path, **settings: str) -> Iterator[Cluster]:
    with Cluster(3, routers=2, dir=data, **settings) as cluster:
        with cluster.connect() as connection:
            connection.send(*[("set", f"key:{number}", number) for number in range(100)])
            assert connection.read_many(100) == ["OK"] * 100
        yield cluster


@pytest.fixture(params=[SNAPSHOTS, LOG], ids=["snapshots", "log"])
def cluster(data: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with with_data(data, **request.param) as running:
        yield running


def ends_without(cluster: Cluster) -> None:
    """End it although not everything can be saved, which its status tells."""
    done = cluster.kache("cluster", "stop", "--force", check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"kache: The cluster on port {cluster.port} has stopped without having saved ")
    assert cluster.process.wait(DEADLINE) == 1
    assert "stopped without having saved everything: shard 0: " in cluster.log()


def goes_on(cluster: Cluster) -> None:
    """It has everything and is well, whoever was told to leave already."""
    until(lambda: all(child["state"] == "up" for child in cluster.status()["children"]), "all up")
    cluster.serves()
    assert cluster.request("dbsize") == 100 and cluster.request("get", "key:7") == b"7"
    assert cluster.request("set", "after", "it") == "OK"
    assert cluster.request("del", "after") == 1


def test_stop_says_what_cannot_be_saved_and_the_cluster_goes_on(cluster: Cluster, data: Path) -> None:
    shutil.rmtree(data)
    refused = cluster.kache("cluster", "stop", check=False)
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith(
        f"kache: The cluster on port {cluster.port} goes on, since its data cannot be saved (shard 0: {data}/epoch-1/shard-0000"
    )
    assert refused.stderr.endswith(f"; `kache cluster stop --force --port {cluster.port}` stops it without.\n")
    assert refused.stderr.count("\n") == 1 and "o such file or directory" in refused.stderr.replace(
        "is not there any more", "no such file or directory"
    )
    goes_on(cluster)
    ends_without(cluster)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_nothing_that_cannot_be_saved(cluster: Cluster, data: Path, number: signal.Signals) -> None:
    moved = data.with_name("elsewhere")
    data.rename(moved)
    cluster.process.send_signal(number)
    until(
        lambda: f"the cluster goes on after {number.name}, since its data cannot be saved" in cluster.log(), "the log"
    )
    said = next(line for line in cluster.log().splitlines() if "the cluster goes on after" in line)
    assert f"shard 2: {data}/epoch-1/shard-0002" in said and "kache cluster stop --force" in said
    goes_on(cluster)
    moved.rename(data)
    cluster.process.send_signal(number)
    assert cluster.process.wait(DEADLINE) == 0
    with Cluster(3, dir=data) as again:
        assert again.request("dbsize") == 100


def test_a_client_is_told_and_the_cluster_goes_on(cluster: Cluster, data: Path) -> None:
    moved = data.with_name("elsewhere")
    data.rename(moved)
    with cluster.connect() as connection:
        assert connection.request("shutdown").message == "ERR Errors trying to SHUTDOWN. Check logs."
        assert connection.request("get", "key:7") == b"7"
    pids = {child["pid"] for child in cluster.status()["children"]}
    goes_on(cluster)
    assert {child["pid"] for child in cluster.status()["children"]} == pids
    moved.rename(data)
    with cluster.connect() as connection, pytest.raises(ConnectionError):
        connection.request("shutdown")
    assert cluster.process.wait(DEADLINE) == 0


def test_a_shard_is_not_restarted_without_what_it_holds(cluster: Cluster, data: Path) -> None:
    moved = data.rename(data.with_name("elsewhere"))
    refused = cluster.kache("cluster", "restart", "--shard", 1, check=False)
    assert refused.returncode == 1 and refused.stdout == ""
    place = data / "epoch-1" / "shard-0001"
    assert refused.stderr.startswith(
        f"kache: Shard 1 is not restarted, since its data cannot be saved (shard 1: {place}"
    )
    goes_on(cluster)
    moved.rename(data)
    assert cluster.kache("cluster", "restart", "--shard", 1).stdout == "shard 1 serves again.\n"
    goes_on(cluster)


def test_a_signal_to_every_process_saves_everything(cluster: Cluster, data: Path) -> None:
    """As service managers send it that know no main process."""
    pids = [child["pid"] for child in cluster.status()["children"]]
    for pid in [*pids, cluster.process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert cluster.process.wait(DEADLINE) == 0
    with Cluster(3, dir=data) as again:
        assert again.request("dbsize") == 100


def test_the_end_of_its_program_ends_it_whatever_is_lost(cluster: Cluster, data: Path) -> None:
    shutil.rmtree(data)
    os.close(cluster._tie)
    cluster._tie = None
    assert cluster.process.wait(DEADLINE) == 1
    assert f"stopped without having saved everything: shard 0: {data}" in cluster.log()


def test_a_second_signal_ends_it_at_once(data: Path) -> None:
    with with_data(data, **SNAPSHOTS) as cluster:
        shard = cluster.pid_of("shard", 1)
        cluster.kill(shard, signal.SIGSTOP)
        cluster.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping after SIGTERM" in cluster.log(), "the beginning of the end")
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.process.wait(DEADLINE) == 1
        assert "SIGTERM again: stopping at once" in cluster.log() and not alive(shard)
        assert "stopped without having saved everything: " in cluster.log()


def test_a_shard_that_stands_still_is_named(data: Path) -> None:
    with with_data(data, **SNAPSHOTS, unresponsive_seconds="1", restart_unresponsive="no") as cluster:
        shard = cluster.pid_of("shard", 1)
        cluster.kill(shard, signal.SIGSTOP)
        refused = cluster.kache("cluster", "stop", check=False)
        assert refused.returncode == 1 and "(shard 1: it has given no sign of life for " in refused.stderr
        cluster.kill(shard, signal.SIGCONT)
        goes_on(cluster)


def test_a_shard_that_is_down_has_nothing_to_save(data: Path) -> None:
    with with_data(data, **SNAPSHOTS) as cluster:
        assert cluster.request("save") == "OK"
        (data / "epoch-1" / "shard-0001" / "manifest").unlink()
        cluster.kill(cluster.pid_of("shard", 1))
        until(lambda: "manifest" in cluster.child("shard", 1)["reason"], "its refusal")
        cluster.request("set", "key:0", "new")
        assert cluster.kache("cluster", "stop").stdout == f"The cluster on port {cluster.port} has stopped.\n"
        assert cluster.process.wait(DEADLINE) == 0


def test_a_client_who_waits_for_the_end_is_told_that_there_is_none(data: Path) -> None:
    """What was saved before anybody left is gone when all have: its router is, too."""
    with with_data(data, **SNAPSHOTS) as cluster, cluster.of_router(0) as connection:
        other = cluster.pid_of("router", 1)
        cluster.kill(other, signal.SIGSTOP)
        connection.send(("shutdown",))
        until(lambda: "stopping after a request to stop" in cluster.log(), "the beginning of the end")
        moved = data.rename(data.with_name("elsewhere"))
        cluster.kill(other, signal.SIGCONT)
        assert connection.read().message == "ERR Errors trying to SHUTDOWN. Check logs."
        with pytest.raises(ConnectionError):
            connection.read()
        goes_on(cluster)
        moved.rename(data)


class Asker:
    """A connection to the supervisor, as the command line's."""

    def __init__(self, cluster: Cluster) -> None:
        path = find_control(cluster.environment, cluster.port)
        assert path is not None
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(path)
        self.buffer = bytearray()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def ask(self, message: messages.RestartShard | messages.Shutdown) -> None:
        """It is being carried out when this returns."""
        control.send(self.socket, message)
        control.send(self.socket, messages.StatusRequest(99))
        assert isinstance(self.answer(), messages.StatusReply)

    def answer(self) -> messages.Down:
        return control.receive(self.socket, self.buffer)


def test_a_client_of_the_binary_protocol_gets_no_line_of_another(data: Path) -> None:
    with with_data(data, **SNAPSHOTS) as cluster, BinaryConnection(cluster.port) as connection:
        (number,) = struct.unpack("<q", connection.call(b"client", b"id").value[-8:])
        other = cluster.pid_of("router", 1 - (number >> 48))
        cluster.kill(other, signal.SIGSTOP)
        connection.send(request(b"shutdown"))
        until(lambda: "stopping after a request to stop" in cluster.log(), "the beginning of the end")
        moved = data.rename(data.with_name("elsewhere"))
        cluster.kill(other, signal.SIGCONT)
        assert connection.read(1000) == b""
        goes_on(cluster)
        moved.rename(data)


def test_a_restart_that_an_end_was_faster_than_is_told_so(data: Path) -> None:
    """And the shard can be restarted later, when the cluster has gone on after all."""
    with with_data(data, **SNAPSHOTS) as cluster, Asker(cluster) as asker:
        shard, router = cluster.pid_of("shard", 1), cluster.pid_of("router", 1)
        for pid in (shard, router):
            cluster.kill(pid, signal.SIGSTOP)
        asker.ask(messages.RestartShard(1, 1))
        cluster.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping after SIGTERM" in cluster.log(), "the beginning of the end")
        cluster.kill(shard, signal.SIGCONT)
        assert asker.answer() == messages.Ack(1, "the cluster is stopping")
        moved = data.rename(data.with_name("elsewhere"))
        cluster.kill(router, signal.SIGCONT)
        until(lambda: "the cluster goes on after SIGTERM" in cluster.log(), "its going on")
        goes_on(cluster)
        moved.rename(data)
        assert cluster.kache("cluster", "restart", "--shard", 1).stdout == "shard 1 serves again.\n"


def test_an_end_waits_for_a_shard_that_is_being_restarted(data: Path) -> None:
    with with_data(data, **SNAPSHOTS) as cluster, Asker(cluster) as asker:
        shard, router = cluster.pid_of("shard", 1), cluster.pid_of("router", 1)
        others = [cluster.pid_of("router", 0), router]
        cluster.kill(router, signal.SIGSTOP)  # the shard waits for it to have its answers
        asker.ask(messages.RestartShard(1, 1))
        until(lambda: f"shard 1 (pid {shard}) is restarted on request" in cluster.log(), "the request to restart")
        cluster.kill(shard, signal.SIGSTOP)
        cluster.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping after SIGTERM" in cluster.log(), "the beginning of the end")
        cluster.kill(router, signal.SIGCONT)
        until(lambda: not any(alive(pid) for pid in others), "the end of the routers")
        cluster.kill(shard, signal.SIGCONT)
        assert cluster.process.wait(DEADLINE) == 0
    with Cluster(3, dir=data) as again:
        assert again.request("dbsize") == 100


def test_what_was_saved_and_removed_is_saved_again(data: Path) -> None:
    """Although nothing has changed since: whoever has made the directory anew need not write a key."""
    with with_data(data, **SNAPSHOTS) as cluster:
        assert cluster.request("save") == "OK"
        for path in (data / "epoch-1").glob("shard-*/*"):
            path.unlink()
        refused = cluster.kache("cluster", "stop", check=False)
        assert refused.returncode == 1 and "is not there any more: somebody has removed or moved it" in refused.stderr
        until(lambda: all(child["state"] == "up" for child in cluster.status()["children"]), "all up")
        assert cluster.kache("cluster", "stop").stdout == f"The cluster on port {cluster.port} has stopped.\n"
        assert cluster.process.wait(DEADLINE) == 0
    with Cluster(3, dir=data) as again:
        assert again.request("dbsize") == 100
