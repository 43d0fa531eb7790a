"""The map of slots in a running cluster: a change reaches every child, and a restarted one has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, until
from remapped_cluster import interleaved

from kache.slots import contiguous

REMAPPED = [sys.executable, str(Path(__file__).parent / "remapped_cluster.py")]
KEYS = [f"key:{number}" for number in range(600)]


@pytest.fixture(params=[None, "exec"], ids=["fork", "exec"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    options = {"start_method": request.param} if request.param else {}
    with Cluster(3, routers=2, command=REMAPPED, **options) as running:
        yield running


def scan(cluster: Cluster) -> list[str]:
    """Every key that a scan over the cluster returns."""
    cursor, found = b"0", []
    with cluster.connect() as connection:
        while True:
            cursor, keys = connection.request("SCAN", cursor, "COUNT", 50)
            found += [key.decode() for key in keys]
            if cursor == b"0":
                return found


def all_answer(cluster: Cluster) -> bool:
    """Whether every shard answers, over connections enough for both routers."""
    connections = [cluster.connect() for _ in range(8)]
    try:
        return all(isinstance(connection.request("DBSIZE"), int) for connection in connections)
    finally:
        for connection in connections:
            connection.close()


def restart(cluster: Cluster, role: str, index: int) -> None:
    """Kill a child and wait until another process serves in its place."""
    pid = cluster.pid_of(role, index)
    cluster.kill(pid)

    def back() -> bool:
        child = cluster.child(role, index)
        return child["state"] == "up" and child["pid"] != pid

    until(back, f"{role} {index} serves again")


def test_a_cluster_starts_with_even_ranges() -> None:
    with Cluster(2) as cluster:
        status = cluster.status()
        assert (status["slot_epoch"], [tuple(one) for one in status["slots"]]) == (1, contiguous(2))


def test_a_changed_map_reaches_every_child_and_outlives_them(cluster: Cluster) -> None:
    status = cluster.status()
    assert (status["slot_epoch"], [tuple(one) for one in status["slots"]]) == (2, interleaved(3))
    assert cluster.request("MSET", *(word for key in KEYS for word in (key, "v"))) == "OK"
    assert sorted(scan(cluster)) == sorted(KEYS)
    by_shard = cluster.keys_by_shard(5)
    for router in range(2):
        restart(cluster, "router", router)
    for _ in range(8):  # over both routers
        assert cluster.request("MGET", *KEYS) == [b"v"] * len(KEYS)
    restart(cluster, "shard", 1)
    until(lambda: all_answer(cluster), "both routers have found the shard again")
    lost = [key for key in KEYS if cluster.request("EXISTS", key) == 0]
    assert len(KEYS) / 4 < len(lost) < len(KEYS) / 2
    assert not set(lost) & {*by_shard[0], *by_shard[2]}
    assert cluster.request("MSET", *(word for key in lost for word in (key, "v"))) == "OK"
    assert sorted(scan(cluster)) == sorted(KEYS)
