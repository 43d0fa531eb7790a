"""The virtual clock: what lives by it, what does not, and who may move it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cluster import Cluster

from kache import Client
from kache.cluster import control, messages
from kache.cluster.messages import Stage
from kache.cluster.run_dir import control_path
from kache.testing import LocalCluster

DAY = 86_400_000


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    with LocalCluster(shards=3, routers=2) as running:
        yield running


@pytest.fixture
def cluster(shared: LocalCluster) -> LocalCluster:
    shared.reset()
    return shared


@pytest.fixture
def cache(cluster: LocalCluster) -> Client[bytes]:
    return cluster.client()


def test_keys_expire(cluster: LocalCluster, cache: Client[bytes]) -> None:
    keys = [key for shard in range(3) for key in cluster.keys_on(shard, 5)]
    for key in keys:
        cache.set(key, "v", ex=3600)
    cache.set("stays", "v")
    began = time.monotonic()
    cluster.advance(minutes=59)
    assert cache.dbsize() == 16 and 0 < cache.ttl(keys[0]) <= 60
    cluster.advance(timedelta(minutes=1))
    # Not only unreadable: removed everywhere by the time it returns.
    assert cache.dbsize() == 1
    assert cache.mget(*keys) == [None] * 15
    assert time.monotonic() - began < 30


def test_fields_expire(cluster: LocalCluster, cache: Client[bytes]) -> None:
    cache.hset("h", {"short": 1, "long": 2})
    cache.execute("hexpire", "h", 60, "fields", 1, "short")
    cluster.advance(seconds=61)
    assert cache.hgetall("h") == {b"long": b"2"}


def test_idle_times_of_keys(cluster: LocalCluster, cache: Client[bytes]) -> None:
    cache.set("k", "v")
    cluster.advance(minutes=10)
    assert 600 <= cache.execute("object", "idletime", "k") <= 660
    cache.get("k")
    assert cache.execute("object", "idletime", "k") < 60


def test_frequencies_of_keys(cluster: LocalCluster, cache: Client[bytes]) -> None:
    cache.execute("config", "set", "maxmemory-policy", "allkeys-lfu")
    cache.set("k", "v")
    for _ in range(200):
        cache.get("k")
    before = cache.execute("object", "freq", "k")
    cluster.advance(minutes=3)
    assert before > 5
    assert cache.execute("object", "freq", "k") == before - 3


def test_idle_clients_are_closed(cluster: LocalCluster, cache: Client[bytes]) -> None:
    import redis

    cache.execute("config", "set", "timeout", "300")
    connection = redis.Redis(port=cluster.port).connection_pool.get_connection()
    connection.send_command("CLIENT", "ID")
    assert connection.read_response() > 0
    cluster.advance(seconds=301)
    with pytest.raises(redis.ConnectionError):
        connection.send_command("CLIENT", "ID")
        connection.read_response()


def test_time_itself(cluster: LocalCluster, cache: Client[bytes]) -> None:
    cluster.advance(days=1)
    shown = int(cache.execute("time")[0])
    assert abs(shown - cluster.time()) < 30 and shown - time.time() > 86_000
    cache.execute("expireat", "k", shown + 60)


def test_what_is_in_flight_does_not_time_out(cluster: LocalCluster, cache: Client[bytes]) -> None:
    with cluster.fault.slow(ms=100):
        pipeline = cache.pipeline().set("k", "v").get("k")
        import threading

        replies: list[Any] = []
        thread = threading.Thread(target=lambda: replies.extend(pipeline.execute()))
        thread.start()
        cluster.advance(days=400)
        thread.join()
    assert replies == [True, b"v"]


def test_moves_over_shards_go_on(cluster: LocalCluster, cache: Client[bytes]) -> None:
    here, there = cluster.keys_on(0)[0], cluster.keys_on(1)[0]
    cluster.advance(days=3)
    cache.set(here, "v", ex=100)
    assert cache.rename(here, there)
    assert cache.get(there) == b"v" and 0 < cache.ttl(there) <= 100
    with cluster.freeze():
        assert cache.rename(there, here)
    cluster.advance(seconds=101)
    assert cache.get(here) is None


def test_a_frozen_clock(cluster: LocalCluster, cache: Client[bytes]) -> None:
    with cluster.freeze():
        cache.set("k", "v", px=50)
        time.sleep(0.1)
        assert cache.pttl("k") == 50
        cluster.advance(milliseconds=49)
        assert cache.pttl("k") == 1
        stood_at = cluster.time()
    assert 0 <= cluster.time() - stood_at < 20
    cluster.advance(seconds=1)
    assert cache.get("k") is None


def test_a_shard_that_is_started_later_has_the_same_time(cluster: LocalCluster, cache: Client[bytes]) -> None:
    key = cluster.keys_on(2)[0]
    cluster.advance(days=10)
    cluster.fault.kill(shard=2)
    cache.execute("set", key, "v", "pxat", round((time.time() + 9 * 86400) * 1000))
    assert cache.get(key) is None
    cache.execute("set", key, "v", "pxat", int(cluster.time() * 1000) + DAY)
    assert abs(cache.pttl(key) - DAY) < 1000


def test_reset_turns_the_clock_back(cluster: LocalCluster, cache: Client[bytes]) -> None:
    cluster.advance(days=2)
    cache.set("k", "v", ex=10)
    cluster.reset()
    assert abs(int(cache.execute("time")[0]) - time.time()) < 30
    cache.execute("set", "k", "v", "exat", round(time.time()) + 100)
    assert 0 < cache.ttl("k") <= 101


@pytest.mark.parametrize("by", [{}, {"seconds": -1}, {"milliseconds": 0.2}])
def test_time_does_not_go_back(cluster: LocalCluster, by: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="time passes forwards"):
        cluster.advance(**by)
    with pytest.raises(TypeError, match="not both"):
        cluster.advance(timedelta(hours=1), hours=1)


def test_only_a_cluster_that_was_started_for_tests() -> None:
    import socket

    with Cluster(shards=1) as plain, socket.socket(socket.AF_UNIX) as admin:
        plain.request("set", "k", "v", "ex", 10)
        admin.connect(control_path(str(plain.directory / "run"), plain.port))
        for number, stage in enumerate((Stage(ahead_ms=DAY), Stage(down=("shard 0",)), Stage())):
            control.send(admin, messages.SetStage(number, stage))
            answer = control.receive(admin, bytearray())
            assert answer == messages.Ack(number, "this cluster was not started for tests")
        assert plain.request("get", "k") == b"v"
        assert plain.child("shard")["restarts"] == 0
