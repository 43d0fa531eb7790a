"""Both clients and the load generator's binary side on a real cluster of two shards."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from typing import Literal

import pytest
from cluster import DEADLINE, Cluster

from kache import AsyncClient, Client
from kache.client.asynchronous import AsyncWatching
from kache.client.errors import (
    BadArgumentError,
    CommandError,
    ConflictError,
    NotExecutedError,
    UncertainError,
    UnknownCommandError,
    WrongTypeError,
)
from kache.client.pipeline import Watching
from kache.load import generator as loadgen
from kache.load.spec import LoadSpec


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Cluster(shards=2) as cluster:
        yield cluster.port


@pytest.fixture
def cache(port: int) -> Iterator[Client[bytes]]:
    with Client(port=port) as client:
        client.flushall()
        yield client


def test_the_nine_commands(cache: Client[bytes]) -> None:
    assert cache.set("k", "v") is True
    assert cache.get("k") == b"v"
    assert cache.get("none") is None
    assert cache.expire("k", 100) is True
    assert 99_000 < cache.pttl("k") <= 100_000
    assert cache.persist("k") is True
    assert cache.ttl("k") == -1
    assert cache.persist("none") is False
    assert cache.pexpire("none", 5) is False
    assert cache.delete("k", "none") == 1
    assert cache.delete("none") == 0
    for score, name in ((1, "a"), (2, "b"), (2, "c"), (3, "d")):
        assert cache.zadd("z", score, name) is True
    assert cache.zscore("z", "b") == 2.0
    assert cache.zscore("z", "none") is None
    assert cache.zrem("z", "d") == 1
    assert cache.zrem("z", "d") == 0
    assert cache.zquery("z", 2, "", 0, 10) == [(b"b", 2.0), (b"c", 2.0)]
    assert cache.zquery("z", 2, "", -1, 2) == [(b"a", 1.0), (b"b", 2.0)]
    assert cache.zquery("none") == []


def test_set_with_options(cache: Client[bytes]) -> None:
    assert cache.set("k", 1, nx=True) is True
    assert cache.set("k", 2, nx=True) is False
    assert cache.set("none", 2, xx=True) is False
    assert cache.set("k", 3, ex=50.5) is True
    assert 50_000 < cache.pttl("k") <= 50_500
    assert cache.set("k", 4, keep_ttl=True) is True
    assert cache.ttl("k") > 0
    assert cache.setex("k", 20, 5) is True
    assert cache.incr("k") == 6
    assert cache.decrby("k", 10) == -4


def test_many_keys(cache: Client[bytes]) -> None:
    values = {f"key:{i}": f"{i}" for i in range(100)}
    assert cache.mset(values) is True
    assert cache.mget(*values, "none") == [*(value.encode() for value in values.values()), None]
    assert cache.exists(*values, "none") == 100
    assert cache.dbsize() == 100
    assert sorted(cache.keys("key:1?")) == [b"key:1%d" % i for i in range(10)]
    assert sorted(cache.scan_iter(count=7)) == sorted(key.encode() for key in values)
    assert cache.delete(*values) == 100
    assert cache.type("key:1") == "none"


def test_scores(cache: Client[bytes]) -> None:
    assert cache.zadd_many("z", {"a": 1}) == 1
    assert cache.zadd_many("z", {"a": 1}) == 0
    assert cache.zadd_many("z", {"a": 5, "b": -math.inf, "c": 2.5}) == 2
    assert cache.zadd_many("z", {"a": 6, "c": 2.5}, ch=True) == 1
    assert cache.zrange_scored("z") == [(b"b", -math.inf), (b"c", 2.5), (b"a", 6.0)]
    assert cache.zrange("z", 0, 0, reverse=True) == [b"a"]
    assert cache.zrank("z", "a") == 2
    assert cache.zrank("z", "none") is None
    assert cache.zcount("z", 0, 3) == 1
    assert cache.zincrby("z", 1.5, "c") == 4.0
    assert cache.zpopmin("z") == [(b"b", -math.inf)]
    assert cache.zcard("z") == 2


def test_collections(cache: Client[bytes]) -> None:
    assert cache.hset("h", {"f": 1, "g": "x"}) == 2
    assert cache.hget("h", "g") == b"x"
    assert cache.hgetall("h") == {b"f": b"1", b"g": b"x"}
    assert cache.hmget("h", "f", "none") == [b"1", None]
    assert cache.hincrby("h", "f", 4) == 5
    assert cache.hdel("h", "f") == 1
    assert cache.hexists("h", "f") is False
    assert cache.rpush("l", 1, 2, 3) == 3
    assert cache.lpush("l", 0) == 4
    assert cache.lrange("l") == [b"0", b"1", b"2", b"3"]
    assert cache.lpop("l") == b"0"
    assert cache.rpop("none") is None
    assert cache.sadd("s", "a", "b") == 2
    assert cache.smembers("s") == {b"a", b"b"}
    assert cache.sismember("s", "a") is True


def test_errors(cache: Client[bytes]) -> None:
    cache.set("k", "v")
    with pytest.raises(WrongTypeError, match="WRONGTYPE"):
        cache.zadd("k", 1, "a")
    with pytest.raises(BadArgumentError, match="not an integer"):
        cache.incr("k")
    with pytest.raises(BadArgumentError):
        cache.zadd("z", math.nan, "a")
    with pytest.raises(UnknownCommandError, match="unknown command"):
        cache.execute("nonsense")
    with pytest.raises(UnknownCommandError, match="wrong number of arguments"):
        cache.execute("get")
    with pytest.raises(UnknownCommandError):
        cache.execute("subscribe", "channel")


def test_pipeline_over_both_shards(cache: Client[bytes]) -> None:
    pipeline = cache.pipeline()
    for i in range(20_000):
        pipeline.set(f"key:{i}", i).get(f"key:{i}")
    replies = pipeline.execute()
    assert replies[0::2] == [True] * 20_000
    assert replies[1::2] == [b"%d" % i for i in range(20_000)]


def test_large_values(cache: Client[bytes]) -> None:
    value = bytes(range(256)) * 40_000
    cache.set("big", value)
    assert cache.get("big") == value


def test_databases(cache: Client[bytes], port: int) -> None:
    cache.set("k", "zero")
    with Client(port=port, db=5, decode=True) as five:
        assert five.get("k") is None
        five.set("k", "five")
        assert five.get("k") == "five"
    assert cache.get("k") == b"zero"


def test_threads(cache: Client[bytes]) -> None:
    def work() -> None:
        for _ in range(200):
            cache.incr("n")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == b"1600"


def test_asyncio(cache: Client[bytes], port: int) -> None:
    async def main() -> None:
        async with AsyncClient(port=port, decode=True) as cache:
            await asyncio.gather(*(cache.set(f"key:{i}", i) for i in range(500)))
            assert await cache.mget(*(f"key:{i}" for i in range(500))) == [str(i) for i in range(500)]
            async with cache.pipeline() as pipeline:
                assert await pipeline.incr("n").hset("h", {"f": "v"}).hgetall("h").execute() == [1, 1, {"f": "v"}]
            assert len([key async for key in cache.scan_iter("key:*")]) == 500

    asyncio.run(main())


def test_waiting(cache: Client[bytes], port: int) -> None:
    """Longer than the client's own timeout, which goes on behind it; the keys lie on both shards."""
    with Client(port=port, timeout=2.0) as brief:
        began = time.monotonic()
        assert brief.blpop("a", "b", "c", timeout=2.2) is None and time.monotonic() - began >= 2.19
        assert brief.bzpopmin("z", timeout=0.01) is None and brief.blmove("a", "b", timeout=0.01) is None
        threading.Timer(2.2, lambda: cache.rpush("b", "x", "y", "z")).start()
        assert brief.brpop("a", "b", "c") == (b"b", b"z")
        assert brief.blmpop("a", "b", count=5, timeout=1) == (b"b", [b"x", b"y"])
        cache.zadd_many("z", {"m": 1.5, "n": 2})
        assert brief.bzpopmax("y", "z") == (b"z", b"n", 2.0)
        assert brief.bzmpop("y", "z", side="max", count=2) == (b"z", [(b"m", 1.5)])
        cache.rpush("a", "x")
        assert brief.blmove("a", "c", "right", "left") == b"x" and cache.lrange("c") == [b"x"]
        with pytest.raises(WrongTypeError):
            cache.set("text", "x")
            brief.blpop("text")
        with brief.pipeline() as pipeline, pytest.raises(ValueError, match="does not wait"):
            pipeline.blpop("a")


def test_waiting_with_asyncio(port: int) -> None:
    async def main() -> None:
        async with AsyncClient(port=port, decode=True) as cache:
            await cache.delete("q", "r")
            waiting = [asyncio.create_task(cache.blpop("q", "r", timeout=60)) for _ in range(5)]
            given_up = asyncio.create_task(cache.blpop("q"))
            while int((await cache.info("clients"))["blocked_clients"]) < 6:
                pass
            given_up.cancel()
            while int((await cache.info("clients"))["blocked_clients"]) > 5:
                pass
            await cache.rpush("r", 0, 1, 2, 3, 4, 5)
            found = await asyncio.gather(*waiting)
            assert sorted(filter(None, found)) == [("r", str(number)) for number in range(5)]
            assert await cache.lpop("r") == "5"

    asyncio.run(main())


def test_reports(cache: Client[bytes]) -> None:
    cache.set("k", "v")
    assert cache.info("server")["redis_version"] == "7.4.2"
    shards = cache.stats()
    assert [shard["shard"] for shard in shards] == [0, 1]
    assert sum(shard["keys"] for shard in shards) == 1


@pytest.mark.parametrize("protocol", ["binary", "resp"])
@pytest.mark.parametrize("commands", ["original", "mix", "mset,mget", "incr,zadd,zrange,hset,lpush"])
def test_load(cache: Client[bytes], port: int, commands: str, protocol: Literal["resp", "binary"]) -> None:
    result = loadgen.run(
        LoadSpec(port=port, protocol=protocol, commands=commands, pipeline=16, keys=2000, warmup=0.1, seconds=0.5)
    )
    assert result.requests > 16
    assert (result.errors, result.unexpected, result.mismatches, result.lost, result.unanswered) == (0, 0, 0, 0, 0)


def test_a_killed_shard_is_told_apart() -> None:
    """While a shard is away every command answers a value, "not executed" or "uncertain", and the others' keys work."""
    with Cluster(shards=2) as cluster, Client(port=cluster.port) as cache:
        keys = [f"key:{i}" for i in range(200)]
        cache.mset(dict.fromkeys(keys, 0))
        cluster.kill(cluster.pid_of("shard", 0))
        failed: set[str] = set()
        acknowledged = dict.fromkeys(keys, 0)
        deadline = time.monotonic() + DEADLINE
        healthy = False
        while not healthy and time.monotonic() < deadline:
            pipeline = cache.pipeline()
            for key in keys:
                pipeline.incr(key)
            replies = pipeline.execute(raise_errors=False)
            for key, reply in zip(keys, replies, strict=True):
                if isinstance(reply, CommandError):
                    assert isinstance(reply, NotExecutedError | UncertainError), reply
                    failed.add(key)
                else:
                    acknowledged[key] = reply
            healthy = bool(failed) and not any(isinstance(reply, CommandError) for reply in replies)
        assert healthy
        assert 0 < len(failed) < len(keys)
        for key in set(keys) - failed:
            assert cache.get(key) == b"%d" % acknowledged[key]


# Transactions -------------------------------------------------------------------------------------
def test_a_pipeline_as_a_transaction(cache: Client[bytes]) -> None:
    with cache.pipeline(transaction=True) as pipeline:
        for number in range(10):
            pipeline.set(f"t:{number}", number)
        pipeline.incr("t:9").get("t:none").mget("t:1", "t:2")
        assert pipeline.execute() == [True] * 10 + [10, None, [b"1", b"2"]]
        assert pipeline.execute() == []
        pipeline.set("t:0", "text").incr("t:0").set("t:1", "after")
        found = pipeline.execute(raise_errors=False)
        assert found[0] is found[2] is True and isinstance(found[1], CommandError)
        pipeline.set("t:0", 1).command("nosuch")
        with pytest.raises(CommandError, match="unknown command"):
            pipeline.execute(raise_errors=False)
    assert cache.get("t:0") == b"text" and cache.get("t:1") == b"after"
    with pytest.raises(ValueError, match="pipeline"):
        cache.execute("multi")


def test_what_is_watched_is_read_and_changed_as_if_alone(cache: Client[bytes]) -> None:
    """Ten threads take from one stock of a hundred, on other shards than where they put it."""
    cache.set("stock", 100)
    taken: list[int] = []

    def take(own: Watching[bytes]) -> int:
        left = int(own.get("stock") or 0)
        if left:
            own.queue.set("stock", left - 1).rpush("taken", left)
        return left

    def work() -> None:
        while (left := cache.transaction(take, "stock", attempts=10_000)[0]) > 0:
            taken.append(left)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == list(range(1, 101)) and cache.llen("taken") == 100 and cache.get("stock") == b"0"


def test_a_transaction_that_always_loses_says_so(cache: Client[bytes]) -> None:
    def disturbed(own: Watching[bytes]) -> None:
        cache.incr("disturbed")
        own.queue.set("never", 1)

    with pytest.raises(ConflictError, match="nothing was executed"):
        cache.transaction(disturbed, "disturbed", attempts=3)
    assert cache.get("disturbed") == b"3" and cache.get("never") is None
    assert cache.transaction(lambda own: own.queue.set("a", 1) and "value") == ("value", [True])

    def failing(own: Watching[bytes]) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        cache.transaction(failing, "disturbed")
    assert cache.ping()


def test_both_when_awaited(port: int) -> None:
    async def body() -> None:
        async with AsyncClient(port=port) as client:
            async with client.pipeline(transaction=True) as pipeline:
                pipeline.set("async:1", 1).set("async:2", 2).incr("async:1")
                assert await pipeline.execute() == [True, True, 2]

            async def double(cache: AsyncWatching[bytes]) -> int:
                value = int(await cache.get("async:1") or 0)
                cache.queue.set("async:1", 2 * value).incr("async:2")
                return value

            assert await client.transaction(double, "async:1", "async:2") == (2, [True, 3])
            assert await client.get("async:1") == b"4"

            async def disturbed(cache: AsyncWatching[bytes]) -> None:
                await client.incr("async:1")

            with pytest.raises(ConflictError):
                await client.transaction(disturbed, "async:1", attempts=2)

    asyncio.run(body())
