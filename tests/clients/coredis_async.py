"""coredis, which asks a server for its version before it sends a command. Run: python coredis_async.py PORT."""

from __future__ import annotations

import asyncio
import sys

import coredis  # type: ignore[import-not-found]  # installed by the test into a folder of its own


async def main() -> None:
    client = coredis.Redis(port=int(sys.argv[1]), decode_responses=True, verify_version=True)
    async with client:
        await client.flushall()
        assert await client.set("a", "1") and await client.get("a") == "1"
        assert await client.hset("h", {"f": "v", "g": "w"}) == 2
        # Refused by the client itself for a server older than 7.4.
        assert await client.hexpire("h", 100, ["f"]) == (1,)
        assert await client.httl("h", ["f", "g"]) == (100, -1)
        assert await client.hpersist("h", ["f"]) == (1,)
        names = [f"key:{number}" for number in range(500)]
        for name in names:
            await client.set(name, "v")
        assert {key async for key in client.scan_iter(match="key:*")} == set(names)
        assert str(client.server_version) == "7.4.2"
    print(f"coredis {coredis.__version__}: fine")


asyncio.run(main())
