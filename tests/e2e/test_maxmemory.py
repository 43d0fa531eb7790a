"""`maxmemory` is one limit for all shards: the short forms of `tests/soak/memory.py`, and what the cluster says of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, Connection, until

from kache.errors import CommandError

MIB = 1 << 20
LIMIT = 16 * MIB


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with Cluster(4, maxmemory=LIMIT) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    shared.request("FLUSHALL")
    until(lambda: used(shared) == [0, 0, 0, 0], "an empty cluster")
    return shared


def rows(cluster: Cluster) -> list[dict[bytes, Any]]:
    found = cluster.request("STATS")
    return [dict(zip(row[::2], row[1::2], strict=True)) for row in found]


def used(cluster: Cluster) -> list[int]:
    return [int(row[b"used_memory"]) for row in rows(cluster)]


def run(connection: Connection, *commands: tuple[Any, ...]) -> list[Any]:
    connection.send(*commands)
    return connection.read_many(len(commands))


def fill(connection: Connection, keys: list[str], size: int) -> list[Any]:
    replies: list[Any] = []
    for start in range(0, len(keys), 500):
        replies += run(connection, *(("SET", key, bytes(size)) for key in keys[start : start + 500]))
    return replies


def test_a_large_value_beside_a_few_others_stays(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        fill(connection, [f"few:{n}" for n in range(50)], 10)
        assert connection.request("SET", "big", bytes(LIMIT * 3 // 8)) == "OK"
        assert connection.request("STRLEN", "big") == LIMIT * 3 // 8
        assert connection.request("DBSIZE") == 51


def test_what_fits_the_cluster_stays_on_one_shard(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        fill(connection, [f"{{tag}}:{n}" for n in range(8000)], 1000)
        assert connection.request("DBSIZE") == 8000
        connection.request("FLUSHALL")
        assert run(connection, *[("RPUSH", "list", bytes(1000))] * 8000)[-1] == 8000


def test_an_idle_shard_gives_way(cluster: Cluster) -> None:
    idle, growing = cluster.keys_by_shard(15_000)[:2]
    with cluster.connect() as connection:
        fill(connection, idle, 1000)
        assert max(used(cluster)) > LIMIT * 0.9
        most = 0
        for start in range(0, len(growing), 1000):
            assert set(fill(connection, growing[start : start + 1000], 1000)) == {"OK"}
            most = max(most, sum(used(cluster)))
        assert most <= LIMIT * 1.05
        assert used(cluster)[1] > LIMIT * 0.4


def test_what_a_killed_shard_had_is_free(cluster: Cluster) -> None:
    first, second = cluster.keys_by_shard(13_000)[:2]
    with cluster.connect() as connection:
        fill(connection, first, 1000)
    killed = cluster.pid_of("shard", 0)
    cluster.kill(killed)
    cluster.replaced("shard", 0, killed)
    until(lambda: b"pid" in rows(cluster)[0], "another shard 0")
    with cluster.connect() as connection:
        assert set(fill(connection, second, 1000)) == {"OK"}
        assert connection.request("DBSIZE") == len(second)


def test_noeviction_refuses_when_the_cluster_is_full_and_not_before() -> None:
    with Cluster(4, maxmemory=LIMIT, maxmemory_policy="noeviction") as cluster, cluster.connect() as connection:
        replies = fill(connection, [f"{{tag}}:{n}" for n in range(17_000)], 1000)
        assert replies[0] == "OK" and isinstance(replies[-1], CommandError)
        assert LIMIT * 0.97 < max(used(cluster)) <= sum(used(cluster)) < LIMIT * 1.02
        until(lambda: isinstance(connection.request("SET", "elsewhere", bytes(1000)), CommandError), "a refusal")
        assert connection.request("CONFIG", "SET", "maxmemory", "0") == "OK"
        assert connection.request("SET", "elsewhere", "v") == "OK"


def test_a_limit_below_the_number_of_shards_is_one() -> None:
    with Cluster(4, maxmemory=3) as cluster, cluster.connect() as connection:
        for number in range(20):
            reply = connection.request("SET", f"key:{number}", "v")
            assert isinstance(reply, CommandError) and "OOM" in str(reply)


def test_the_cluster_says_the_limit_each_shards_part_and_the_sum(cluster: Cluster) -> None:
    keys = cluster.keys_by_shard(12_000)[0]
    info: dict[str, str] = {}
    parts: dict[bytes, Any] = {}
    doctor = ""

    def full_all_the_while() -> bool:
        """Less is kept for a while where buffers, or what was freed just now, take memory beside the data."""
        nonlocal doctor
        fill(connection, keys, 1400)
        before = sum(used(cluster))
        text = bytes(connection.request("INFO", "memory")).decode()
        info.update((name, value) for name, _, value in (line.partition(":") for line in text.splitlines()))
        stats = connection.request("MEMORY", "STATS")
        parts.update(zip(stats[::2], stats[1::2], strict=True))
        doctor = bytes(connection.request("MEMORY", "DOCTOR")).decode()
        return min(before, sum(used(cluster))) > LIMIT * 0.96

    with cluster.connect() as connection:
        until(full_all_the_while, "a full cluster")
    table = cluster.kache("stats").stdout
    one = dict(zip(parts[b"shard.0"][::2], parts[b"shard.0"][1::2], strict=True))
    assert int(info["maxmemory"]) == parts[b"maxmemory"] == LIMIT == rows(cluster)[3][b"maxmemory"]
    assert abs(parts[b"dataset.bytes"] - int(info["used_memory_dataset"])) < LIMIT // 16
    assert int(info["used_memory"]) == int(info["used_memory_dataset"]) + int(info["used_memory_overhead"])
    parts_of_it = ("mem_slot_tables", "mem_aof_buffer", "mem_cluster_links", "mem_clients_normal")
    assert int(info["used_memory_overhead"]) == sum(int(info[name]) for name in parts_of_it)
    assert int(info["mem_slot_tables"]) == parts[b"slot.tables"] > 0
    assert one[b"dataset.bytes"] == parts[b"dataset.bytes"] > LIMIT * 0.94
    assert 0.5 < float(info["mem_fragmentation_ratio"]) < 2
    assert "The cluster is full" in doctor and "Shard 0 uses" in doctor and "Shard 1" not in doctor
    assert "of limit" in table.splitlines()[0] and "maxmemory 16mb" in table


def test_fragmentation_compares_like_with_like(cluster: Cluster) -> None:
    def compares() -> bool:
        text = bytes(connection.request("INFO", "memory")).decode()
        ratio = next(line for line in text.splitlines() if line.startswith("mem_fragmentation_ratio:"))
        return 0.8 < float(ratio.partition(":")[2]) < 2

    with cluster.connect() as connection:
        until(compares, "what was freed just now has been given back")
