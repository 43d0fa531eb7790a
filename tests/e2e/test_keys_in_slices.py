"""KEYS of many keys, which shards list in slices: in its place, whole, and with what its client asked before and behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster, until

PER_SHARD = 30_000
"""Enough for slices, and for a part of more than a mebibyte."""


@pytest.fixture(scope="module", params=[1, 2], ids=["one shard", "two shards"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, routers=2) as cluster:
        yield cluster


def fill(cluster: Cluster) -> set[bytes]:
    names = [f"{'a key of some length ' * 2}{number}" for number in range(PER_SHARD * cluster.shards)]
    with cluster.connect() as connection:
        assert connection.request("FLUSHALL") == "OK"
        for start in range(0, len(names), 10_000):
            assert (
                connection.request("MSET", *(word for name in names[start : start + 10_000] for word in (name, "")))
                == "OK"
            )
    return {name.encode() for name in names}


def test_it_sees_what_was_before_it_and_nothing_of_what_is_behind(cluster: Cluster) -> None:
    names = fill(cluster)
    with cluster.connect() as connection:
        connection.send(
            ("SET", "before", ""), ("KEYS", "*"), ("FLUSHALL",), ("KEYS", "*"), ("SET", "last", ""), ("KEYS", "l*")
        )
        done, found, flushed, empty, last, left = connection.read_many(6)
        assert (done, flushed, empty, last, left) == ("OK", "OK", [], "OK", [b"last"])
        assert len(found) == len(names) + 1
        assert set(found) == names | {b"before"}


def test_patterns_and_transactions_find_the_same(cluster: Cluster) -> None:
    names = fill(cluster)
    with cluster.connect() as connection:
        ends = {name for name in names if name.endswith(b"77")}
        assert set(connection.request("KEYS", "*77")) == ends
        assert connection.request("KEYS", "nobody*") == []
        assert connection.request("SELECT", "1") == "OK"
        assert connection.request("KEYS", "*") == []
        assert connection.request("SELECT", "0") == "OK"
        if cluster.shards == 1:
            connection.send(("MULTI",), ("KEYS", "*77"), ("EXEC",))
            assert set(connection.read_many(3)[2][0]) == ends


def test_it_is_in_the_slow_log_once_with_its_own_time(cluster: Cluster) -> None:
    fill(cluster)
    with cluster.connect() as connection:
        assert connection.request("CONFIG", "SET", "slowlog-log-slower-than", "0") == "OK"
        assert connection.request("SLOWLOG", "RESET") == "OK"
        assert connection.request("KEYS", "*77")
        entries = [entry for entry in connection.request("SLOWLOG", "GET", "-1") if entry[3][0].upper() == b"KEYS"]
        assert [(entry[3], entry[2] > 500) for entry in entries] == [([b"KEYS", b"*77"], True)]
        assert connection.request("CONFIG", "SET", "slowlog-log-slower-than", "10000") == "OK"


def test_who_goes_in_the_middle_of_it_leaves_nothing(cluster: Cluster) -> None:
    fill(cluster)
    for _ in range(5):
        with cluster.connect() as gone:
            gone.send(*[("KEYS", "*")] * 10)
    with cluster.connect() as connection:
        assert len(connection.request("KEYS", "*")) == PER_SHARD * cluster.shards
        until(lambda: b"connected_clients:1\r" in connection.request("INFO", "clients"), "only this client is there")
        assert connection.request("DBSIZE") == PER_SHARD * cluster.shards
