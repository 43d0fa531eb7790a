"""aiocache's Redis backend: multi_set with a time to live is MULTI … EXEC. Run: python aiocache_redis.py PORT."""

from __future__ import annotations

import asyncio
import sys

import aiocache
import redis.asyncio


async def main() -> None:
    try:
        cache = aiocache.RedisCache(endpoint="127.0.0.1", port=int(sys.argv[1]))
    except TypeError:
        cache = aiocache.RedisCache(client=redis.asyncio.Redis(port=int(sys.argv[1])))
    pairs = [(f"aio:{number}", f"value {number}") for number in range(50)]
    assert await cache.multi_set(pairs, ttl=60) is True
    assert list(await cache.multi_get([key for key, _ in pairs])) == [value for _, value in pairs]
    assert await cache.multi_set(pairs) is True
    assert await cache.set("aio:n", 1) and await cache.increment("aio:n") == 2
    assert await cache.exists("aio:1") and await cache.delete("aio:1") == 1 and await cache.get("aio:1") is None
    await cache.close()
    print("aiocache: fine")


asyncio.run(main())
