"""A cluster that is asked to end while it cannot save what it is to keep."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, Cluster, alive, until

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
