"""redis-py's asyncio client, many tasks over one pool. Run: python redis_async.py PORT PROTOCOL."""

from __future__ import annotations

import asyncio
import sys

import redis
import redis.asyncio


async def worker(client: redis.asyncio.Redis, number: int) -> None:
    for round_number in range(20):
        key = f"task:{number}:{round_number}"
        assert await client.set(key, number, ex=60)
        assert await client.get(key) == str(number)
        assert await client.hset(f"hash:{number}", f"f{round_number}", "v") == 1
    assert await client.hlen(f"hash:{number}") == 20


async def main() -> None:
    port, protocol = int(sys.argv[1]), int(sys.argv[2])
    async with redis.asyncio.Redis(port=port, protocol=protocol, decode_responses=True, max_connections=20) as client:
        await client.flushall()
        await asyncio.gather(*(worker(client, number) for number in range(20)))
        assert await client.dbsize() == 20 * 21
        async with client.pipeline(transaction=False) as pipe:
            for _number in range(100):
                pipe.incr("total")
            assert await pipe.execute() == list(range(1, 101))
        waiting = [asyncio.create_task(client.blpop([f"q:{i}", f"q:{i + 1}"], timeout=60)) for i in range(10)]
        while (await client.info("clients"))["blocked_clients"] < 10:
            pass
        for number in range(10):
            await client.rpush(f"q:{number}", number)
        assert sorted(int(value) for _, value in await asyncio.gather(*waiting)) == list(range(10))
        found = [key async for key in client.scan_iter(match="task:*")]
        assert len(set(found)) == 400
        assert await client.flushall()
    print(f"redis-py {redis.__version__} asyncio, RESP{protocol}: fine")


asyncio.run(main())
