"""With asyncio: Kache's own client, and redis-py's."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from kache import AsyncClient, Client
from kache.client import UnavailableError
from kache.testing import LocalCluster


def test_kaches_own_client(kache_cluster: LocalCluster, kache: Client[bytes]) -> None:
    async def visit() -> None:
        async with AsyncClient(port=kache_cluster.port) as cache:
            await cache.set("visitor", "ada", ex=30)
            kache_cluster.advance(seconds=29)
            assert await cache.get("visitor") == b"ada"
            kache_cluster.advance(seconds=1)
            assert await cache.get("visitor") is None
            key = kache_cluster.keys_on(1)[0]
            with kache_cluster.fault.kill(shard=1, restart=False), pytest.raises(UnavailableError, match="CLUSTERDOWN"):
                await cache.get(key)
            assert await cache.get(key) is None

    asyncio.run(visit())


def test_redis_py(kache_cluster: LocalCluster, kache: Client[bytes]) -> None:
    async def visit() -> None:
        async with redis.asyncio.from_url(kache_cluster.url) as cache:
            await cache.hset("user:1", mapping={"name": "Ada"})
            await cache.expire("user:1", 60)
            kache_cluster.advance(minutes=1)
            assert await cache.hgetall("user:1") == {}

    asyncio.run(visit())
