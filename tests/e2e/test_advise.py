"""`kache advise`, and the policies that choose, over a real cluster."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import DEADLINE, Cluster, Connection, until
from ports import free_port

LIMIT = 6 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, maxmemory=LIMIT, maxmemory_policy="allkeys-auto") as running:
        yield running


def read_through(connection: Connection, keys: list[str]) -> None:
    for start in range(0, len(keys), 200):
        batch = keys[start : start + 200]
        connection.send(*(("GET", key) for key in batch))
        found = connection.read_many(len(batch))
        missing = [key for key, value in zip(batch, found, strict=True) if value is None]
        if missing:
            connection.send(*(("SET", key, bytes(200)) for key in missing))
            connection.read_many(len(missing))


def info(connection: Connection, section: str) -> dict[str, str]:
    text = bytes(connection.request("INFO", section)).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_too_little_traffic_is_said_to_be_too_little(cluster: Cluster) -> None:
    shown = cluster.kache("advise")
    assert shown.returncode == 0 and "Too little is known yet" in shown.stdout


def test_it_says_what_other_sizes_and_policies_would_miss(cluster: Cluster) -> None:
    draw = random.Random(7)
    hot = [f"hot:{draw.randrange(4000)}" for _ in range(2000)]

    def enough() -> bool:
        requests = [
            draw.choice(hot) if draw.random() < 0.5 else f"cold:{draw.randrange(60_000)}" for _ in range(20_000)
        ]
        read_through(connection, requests)
        told = json.loads(cluster.kache("advise", "--json").stdout)
        curves = [[point["misses"] for point in curve] for curve in told.get("curves", {}).values()]
        # Until the simulated caches are full, larger ones are no better.
        return told["sampled"] > 4000 and all(one[0] > one[3] + 0.05 and one[3] > one[4] > 0 for one in curves)

    with cluster.connect() as connection:
        until(enough, "curves that fall", 2 * DEADLINE)
        fields, stats = info(connection, "memory"), cluster.kache("stats").stdout
        lookups = info(connection, "stats")
        row: dict[bytes, Any] = dict(zip(*[iter(connection.request("STATS")[0])] * 2, strict=True))
    told = json.loads(cluster.kache("advise", "--json").stdout)
    shown = cluster.kache("advise").stdout
    assert told["bytes"] == LIMIT and told["policy"] == "allkeys-auto"
    assert set(told["curves"]) == {"lru", "lfu", "s3fifo"}
    assert {row["prefix"] for row in told["prefixes"]} == {"hot:", "cold:"}
    by_name = {row["prefix"]: row for row in told["prefixes"]}
    assert by_name["hot:"]["hits_per_kib"] > 3 * by_name["cold:"]["hits_per_kib"]
    assert "Now 6mb and allkeys-auto, which follows" in shown and "Dead weight" in shown
    hits, misses = int(lookups["keyspace_hits"]), int(lookups["keyspace_misses"])
    assert told["missed"] == misses / (hits + misses) and told["refused"] == 0
    assert f"; {100 * told['missed']:.1f} % have missed since the start" in shown
    assert sum(row["hits"] for row in told["prefixes"]) <= 1.01 * told["reads"] * (1 - told["missed"])
    assert fields["maxmemory_policy"] == "allkeys-auto" and fields["maxmemory_policy_followed"].startswith(
        ("s3fifo", "lru")
    )
    assert 0 < float(fields["simulated_misses_s3fifo"]) < 100
    assert "shard 0 follows" in stats and "would miss lately: lru" in stats
    assert row[b"follows"] in (b"lru", b"s3fifo", b"s3fifo-narrow")


@pytest.mark.parametrize(
    "policy", ["allkeys-s3fifo", "volatile-s3fifo", "volatile-auto", "allkeys-auto", "allkeys-lfu"]
)
def test_the_policy_changes_live(cluster: Cluster, policy: str) -> None:
    with cluster.connect() as connection:
        # What has no TTL must not fill the memory: the volatile ones could not make room of it.
        assert connection.request("FLUSHALL") == "OK"
        assert connection.request("CONFIG", "SET", "maxmemory-policy", policy) == "OK"
        assert connection.request("CONFIG", "GET", "maxmemory-policy")[1] == policy.encode()
        connection.send(*(("SET", f"live:{n}", bytes(500), "EX", "1000") for n in range(3000)))
        assert set(connection.read_many(3000)) == {"OK"}
        connection.request("CONFIG", "SET", "maxmemory-policy", "allkeys-auto")


def test_what_is_restored_has_its_idle_time_and_uses(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.request("SET", "k", "v")
        image = connection.request("DUMP", "k")
        assert connection.request("RESTORE", "idle", "0", image, "IDLETIME", "1000") == "OK"
        assert 1000 <= connection.request("OBJECT", "IDLETIME", "idle") < 1100
        assert connection.request("RESTORE", "used", "0", image, "FREQ", "2") == "OK"
        assert connection.request("OBJECT", "FREQ", "used") == 2


def test_it_can_be_switched_off(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.request("CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "miniature-simulations", "no")
        until(lambda: "Too little is known" in cluster.kache("advise").stdout, "no simulations")
        connection.request("CONFIG", "SET", "maxmemory-policy", "allkeys-auto", "miniature-simulations", "yes")


def test_without_a_cluster_it_says_so(tmp_path: Any) -> None:
    with Cluster(1, port=free_port()) as running:
        port = running.port
    result = running.kache("advise", "--port", str(port), check=False)
    assert result.returncode != 0 and "No cluster answers" in result.stderr
