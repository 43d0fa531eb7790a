"""Locks, limits and queues of Python libraries that live by scripts. Run: python scripts_python.py PORT PART [SHARDS].

The parts: redis (Lock, register_script, pipelines), limits (all strategies), flask (Flask-Limiter), django (django-redis: lock,
incr), channels (groups), dogpile (the distributed lock), cashews (lock, rate limit), aiocache (RedLock).
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time


def redis_part(port: int) -> None:
    """Lock, scripts that are registered, and both inside of pipelines."""
    import redis
    from redis.exceptions import LockError, LockNotOwnedError, NoScriptError, ResponseError

    for protocol in (2, 3):
        client = redis.Redis(port=port, protocol=protocol)
        client.flushall()
        client.script_flush()
        with client.lock("lock", timeout=10) as lock:
            assert lock.owned() and not client.lock("lock", timeout=1).acquire(blocking=False)
            lock.extend(20)
            assert 20_000 < client.pttl("lock") <= 30_000
            assert lock.reacquire() and client.pttl("lock") <= 10_000
        assert client.get("lock") is None
        lost = client.lock("lock", timeout=10)
        lost.acquire()
        client.set("lock", "somebody else")
        try:
            lost.release()
            raise AssertionError("a lock of somebody else was released")
        except LockNotOwnedError:
            client.delete("lock")
        try:
            client.lock("lock").release()
            raise AssertionError("a lock that is not held was released")
        except LockError:
            pass
        taken: list[int] = []

        def worker(number: int, client: redis.Redis = client, taken: list[int] = taken) -> None:
            for _ in range(5):
                with client.lock("contended", timeout=20, sleep=0.002):
                    taken.append(number)
                    assert len(taken) % 2 == 1
                    taken.append(number)

        threads = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(taken) == 40
        multiply = client.register_script("return redis.call('get', KEYS[1]) * ARGV[1]")
        client.set("n", 7)
        assert multiply(keys=["n"], args=[6]) == 42
        with client.pipeline() as pipeline:
            pipeline.set("n", 2)
            multiply(keys=["n"], args=[4], client=pipeline)
            assert pipeline.execute() == [True, 8]
        assert client.script_exists(multiply.sha) == [True]
        try:
            client.evalsha("0" * 40, 0)
            raise AssertionError("an unknown script was run")
        except NoScriptError:
            pass
        try:
            client.eval("return redis.call('nosuch')", 0)
            raise AssertionError("an unknown command was called")
        except ResponseError as error:
            assert "Unknown Redis command called from script" in str(error)


def limits_part(port: int) -> None:
    """Every strategy counts exactly, for one client and for eight at once."""
    import limits
    import redis
    from limits.storage import storage_from_string
    from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

    redis.Redis(port=port).flushall()
    storage = storage_from_string(f"redis://127.0.0.1:{port}")
    assert storage.check()
    for strategy in (FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter):
        limiter = strategy(storage)
        rate = limits.parse("5/hour")
        name = strategy.__name__
        assert [limiter.hit(rate, name) for _ in range(7)] == [True] * 5 + [False] * 2
        assert not limiter.test(rate, name)
        window = limiter.get_window_stats(rate, name)
        assert window.remaining == 0 and window.reset_time > time.time()
        limiter.clear(rate, name)
        assert limiter.hit(rate, name, cost=5) and not limiter.hit(rate, name)
        many = limits.parse("100/hour")
        allowed: list[bool] = []

        def work(
            limiter: object = limiter, many: object = many, allowed: list[bool] = allowed, name: str = name
        ) -> None:
            allowed.extend(limiter.hit(many, "shared", name) for _ in range(25))  # type: ignore[attr-defined]

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert allowed.count(True) == 100 and len(allowed) == 200, (name, allowed.count(True))


def flask_part(port: int) -> None:
    """A view that may be asked for three times."""
    import flask
    import redis
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    redis.Redis(port=port).flushall()
    app = flask.Flask("app")
    limiter = Limiter(get_remote_address, app=app, storage_uri=f"redis://127.0.0.1:{port}", strategy="moving-window")

    @app.route("/")
    @limiter.limit("3/minute")
    def index() -> str:
        return "fine"

    client = app.test_client()
    assert [client.get("/").status_code for _ in range(5)] == [200] * 3 + [429] * 2


def django_part(port: int) -> None:
    """Locks, and counters that must exist."""
    from django.conf import settings

    backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://127.0.0.1:{port}/0"}
    settings.configure(CACHES={"default": backend})
    from django.core.cache import cache

    cache.clear()
    with cache.lock("lock", timeout=10):
        assert not cache.lock("lock", timeout=1).acquire(blocking=False)
    cache.set("n", 1, timeout=None)
    assert cache.incr("n") == 2 and cache.decr("n", 2) == 0
    try:
        cache.incr("none")
        raise AssertionError("what is not there was counted")
    except ValueError:
        pass


def channels_part(port: int) -> None:
    """A group of channels, each message to each of them."""
    import redis
    from channels_redis.core import RedisChannelLayer

    shards = int(sys.argv[3])
    client = redis.Redis(port=port)
    client.flushall()

    async def talk() -> None:
        layer = RedisChannelLayer(hosts=[("127.0.0.1", port)], capacity=5)
        channels = [await layer.new_channel() for _ in range(10)]
        for channel in channels:
            await layer.group_add("room", channel)
        for number in range(3):
            await layer.group_send("room", {"type": "say", "number": number})
        for channel in channels:
            for number in range(3):
                message = await asyncio.wait_for(layer.receive(channel), 60)
                assert message == {"type": "say", "number": number}, message
        await layer.group_discard("room", channels[0])
        await layer.group_send("room", {"type": "again"})
        assert (await asyncio.wait_for(layer.receive(channels[1]), 60))["type"] == "again"
        assert client.keys("asgi*")
        if shards == 1:
            await layer.flush()
            assert not client.keys("asgi*")
        else:
            # Its script asks for KEYS, which is about all shards.
            try:
                await layer.flush()
                raise AssertionError("KEYS inside of a script saw one shard of several")
            except redis.ResponseError as error:
                assert "shard" in str(error), error
            await layer.close_pools()

    asyncio.run(talk())


def dogpile_part(port: int) -> None:
    """Only one makes a value, behind a distributed lock."""
    from dogpile.cache import make_region

    region = make_region().configure(
        "dogpile.cache.redis",
        expiration_time=100,
        arguments={
            "host": "127.0.0.1",
            "port": port,
            "distributed_lock": True,
            "lock_timeout": 20,
            "lock_sleep": 0.005,
        },
    )
    region.delete("value")
    made: list[int] = []

    def make() -> str:
        made.append(1)
        time.sleep(0.1)
        return "made"

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(region.get_or_create("value", make))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["made"] * 5 and len(made) == 1, (found, len(made))


def cashews_part(port: int) -> None:
    """Locks, and a rate limit."""
    from cashews import Cache, RateLimitError

    async def use() -> None:
        cache = Cache()
        cache.setup(f"redis://127.0.0.1:{port}")
        await cache.clear()
        inside: list[int] = []

        async def work() -> None:
            async with cache.lock("lock", expire="20s"):
                inside.append(1)
                assert len(inside) % 2 == 1
                await asyncio.sleep(0.005)
                inside.append(1)

        await asyncio.gather(*[work() for _ in range(4)])
        assert len(inside) == 8

        @cache.rate_limit(limit=3, period="1m", ttl="1m")
        async def limited() -> str:
            return "fine"

        assert [await limited() for _ in range(3)] == ["fine"] * 3
        try:
            await limited()
            raise AssertionError("the limit does not hold")
        except RateLimitError:
            pass
        await cache.close()

    asyncio.run(use())


def aiocache_part(port: int) -> None:
    """RedLock: the others wait for the one that makes the value."""
    from aiocache import Cache
    from aiocache.lock import RedLock

    async def use() -> None:
        cache = Cache(Cache.REDIS, endpoint="127.0.0.1", port=port, namespace="locks")
        await cache.clear()
        made: list[int] = []

        async def value() -> str:
            async with RedLock(cache, "key", lease=10):
                found = await cache.get("key")
                if found is None:
                    made.append(1)
                    await asyncio.sleep(0.02)
                    await cache.set("key", "made")
                    found = "made"
                return str(found)

        assert await asyncio.gather(*[value() for _ in range(5)]) == ["made"] * 5
        assert len(made) == 1
        await cache.close()

    asyncio.run(use())


PARTS = {name.removesuffix("_part"): part for name, part in globals().items() if name.endswith("_part")}

if __name__ == "__main__":
    PARTS[sys.argv[2]](int(sys.argv[1]))
    print("fine")
