"""Pipelines and WATCH of redis-py (or, with the argument "valkey", valkey-py). Run: python transactions.py PORT [valkey]."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from typing import Any


def main() -> None:
    port, name = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "redis"
    library: Any = importlib.import_module(name)
    base = getattr(library, "Redis" if name == "redis" else "Valkey")
    errors = library.exceptions
    client = base(port=port, decode_responses=True)
    client.flushall()
    with client.pipeline() as pipeline:
        for number in range(20):
            pipeline.set(f"k{number}", number)
        pipeline.mget([f"k{number}" for number in range(20)]).incr("k3").delete("k0", "k1")
        assert pipeline.execute() == [True] * 20 + [[str(number) for number in range(20)], 4, 2]
        pipeline.set("k5", "text").incr("k5").set("k6", 1)
        try:
            pipeline.execute()
        except errors.ResponseError as error:
            assert "integer" in str(error)
        found = pipeline.set("k5", "x").lpush("k5", 1).get("k5").execute(raise_on_error=False)
        assert found[0] is True and found[2] == "x" and isinstance(found[1], errors.ResponseError)
    with client.pipeline() as pipeline:
        pipeline.watch("k7", "k8")
        assert pipeline.get("k7") == "7"
        client.set("k8", "changed")
        pipeline.multi()
        pipeline.set("k9", "never")
        try:
            pipeline.execute()
            raise AssertionError("nobody has noticed the change")
        except errors.WatchError:
            pass
    assert client.get("k9") == "9"

    def work() -> None:
        def add(pipeline: Any) -> None:
            value = int(pipeline.get("sum") or 0)
            pipeline.multi()
            pipeline.set("sum", value + 1).rpush("log", value)

        for _ in range(25):
            client.transaction(add, "sum", "log")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("sum") == "100" and client.lrange("log", 0, -1) == [str(n) for n in range(100)]
    asyncio.run(awaited(importlib.import_module(f"{name}.asyncio"), port))
    client.flushall()
    print(f"{name}-py {library.__version__} transactions: fine")


async def awaited(library: Any, port: int) -> None:
    base = getattr(library, "Redis", None) or library.Valkey
    async with base(port=port, decode_responses=True) as client, client.pipeline() as pipeline:
        pipeline.set("a", 1).set("b", 2).mget("a", "b")
        assert await pipeline.execute() == [True, True, ["1", "2"]]


main()
