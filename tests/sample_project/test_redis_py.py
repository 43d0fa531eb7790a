"""With redis-py: the clock, and every fault."""

from __future__ import annotations

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from shop import Prices

from kache import Client
from kache.testing import LocalCluster


@pytest.fixture
def cache(kache_cluster: LocalCluster, kache: Client[bytes]) -> redis.Redis:
    """A connection to the cluster, which `kache` has emptied. A shop does not wait for its cache: redis-py's own ten
    tries, found by the tests below, would be half a minute."""
    return redis.Redis(port=kache_cluster.port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def prices(cache: redis.Redis) -> Prices:
    return Prices(cache, look_up={"pen": 150, "ink": 990}.__getitem__)


def test_a_price_is_looked_up_once_an_hour(prices: Prices, kache_cluster: LocalCluster) -> None:
    assert prices.of("pen") == prices.of("pen") == 150
    assert prices.missed == 1
    kache_cluster.advance(minutes=59)
    assert prices.of("pen") == 150 and prices.missed == 1
    kache_cluster.advance(minutes=1)
    assert prices.of("pen") == 150 and prices.missed == 2


@pytest.mark.kache(frozen=True)
def test_a_second_is_a_second_on_a_slow_machine(cache: redis.Redis, kache_cluster: LocalCluster) -> None:
    cache.set("code", "1234", px=1000)
    kache_cluster.advance(milliseconds=999)
    assert cache.pttl("code") == 1
    kache_cluster.advance(milliseconds=1)
    assert cache.get("code") is None


@pytest.mark.kache(shards=4, maxmemory="64mb")
class TestWithFourShards:
    """A mark on a class counts for all of its tests; they share one cluster."""

    def test_the_shop_goes_on_while_a_shard_is_down(self, prices: Prices, kache_cluster: LocalCluster) -> None:
        for shard in range(4):
            with kache_cluster.fault.kill(shard=shard, restart=False):
                assert prices.of("pen") == 150

    def test_what_a_killed_shard_held_is_gone(self, cache: redis.Redis, kache_cluster: LocalCluster) -> None:
        lost, kept = kache_cluster.keys_on(2)[0], kache_cluster.keys_on(3)[0]
        cache.mset({lost: 1, kept: 1})
        kache_cluster.fault.kill(shard=2)
        assert cache.mget([lost, kept]) == [None, b"1"]

    def test_it_sells_while_a_shard_is_stopped(self, prices: Prices, kache_cluster: LocalCluster) -> None:
        with kache_cluster.fault.stop(shard=0), kache_cluster.fault.stop(shard=1):
            assert prices.of("pen") == 150 and prices.of("ink") == 990

    def test_the_settings_of_the_mark(self, kache: Client[bytes]) -> None:
        assert kache.execute("config", "get", "maxmemory") == [b"maxmemory", b"67108864"]
        assert len(kache.stats()) == 4


def test_a_slow_cache_is_given_up(cache: redis.Redis, kache_cluster: LocalCluster, prices: Prices) -> None:
    with kache_cluster.fault.slow(ms=2000):
        with pytest.raises(redis.TimeoutError):
            cache.get("anything")
        assert prices.of("pen") == 150


def test_a_cache_that_cannot_write(cache: redis.Redis, kache_cluster: LocalCluster, prices: Prices) -> None:
    with kache_cluster.fault.refuse_writes():
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            cache.set("a", "b")
        assert prices.of("pen") == 150
    assert cache.set("a", "b")


@pytest.mark.parametrize("turn", range(3))
def test_every_test_finds_it_empty_and_on_time(kache: Client[bytes], kache_cluster: LocalCluster, turn: int) -> None:
    assert kache.dbsize() == 0 and kache.ttl("left") == -2
    kache.set("left", turn, ex=60)
    kache_cluster.advance(days=turn + 1, seconds=-61)
    kache_cluster.fault.refuse_writes()
    kache.execute("config", "set", "maxmemory-policy", "noeviction") if turn else None
    assert kache.execute("config", "get", "maxmemory-policy")[1] == (b"noeviction" if turn else b"allkeys-auto")
