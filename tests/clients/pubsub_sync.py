"""Pub/sub of redis-py and valkey-py, blocking and asyncio: messages, patterns, shard channels, a thread, pushes of RESP3.

Run: python pubsub_sync.py PORT LIBRARY PROTOCOL.
"""

from __future__ import annotations

import asyncio
import importlib
import queue
import sys
import time
from typing import Any

PORT, LIBRARY, PROTOCOL = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
library: Any = importlib.import_module(LIBRARY)
SECONDS = 60


def blocking() -> None:
    client = (library.Redis if LIBRARY == "redis" else library.Valkey)(port=PORT, protocol=PROTOCOL)
    limit = time.monotonic() + SECONDS
    while client.pubsub_channels() or client.pubsub_numpat():
        assert time.monotonic() < limit, "who has listened before is never forgotten"
        time.sleep(0.01)
    with client.pubsub() as listening:
        listening.subscribe("news", "weather")
        listening.psubscribe("user.*")
        kinds = [listening.get_message(timeout=SECONDS)["type"] for _ in range(3)]
        assert kinds == ["subscribe", "subscribe", "psubscribe"], kinds
        assert client.publish("news", "one") == 1 and client.publish("user.7", b"\x00two") == 1
        assert client.publish("nobody", "x") == 0
        found = [listening.get_message(timeout=SECONDS) for _ in range(2)]
        assert [(one["type"], one["channel"], one["data"]) for one in found] == [
            ("message", b"news", b"one"),
            ("pmessage", b"user.7", b"\x00two"),
        ], found
        assert client.pubsub_numsub("news", "none") == [(b"news", 1), (b"none", 0)]
        assert sorted(client.pubsub_channels()) == [b"news", b"weather"] and client.pubsub_numpat() == 1
        listening.unsubscribe()
        assert {listening.get_message(timeout=SECONDS)["type"] for _ in range(2)} == {"unsubscribe"}
        listening.ping("are you there")
        assert listening.get_message(timeout=SECONDS)["type"] == "pong"
    handled: queue.Queue[Any] = queue.Queue()
    threaded = client.pubsub(ignore_subscribe_messages=True)
    threaded.subscribe(jobs=handled.put)
    worker = threaded.run_in_thread(sleep_time=0.01)
    for number in range(500):
        while client.publish("jobs", number) == 0:
            pass  # the thread has not subscribed yet
    assert [handled.get(timeout=SECONDS)["data"] for _ in range(500)] == [b"%d" % number for number in range(500)]
    worker.stop()
    worker.join(SECONDS)
    with client.pipeline() as pipeline:
        pipeline.set("k", 1).publish("jobs", "x").get("k")
        assert pipeline.execute()[0] is True


async def asynchronous() -> None:
    module = importlib.import_module(f"{LIBRARY}.asyncio")
    client = (module.Redis if LIBRARY == "redis" else module.Valkey)(port=PORT, protocol=PROTOCOL)
    async with client.pubsub(ignore_subscribe_messages=True) as listening:
        await listening.subscribe("a", "b")
        numbers = []

        async def listen() -> None:
            async for message in listening.listen():
                numbers.append(int(message["data"]))
                if len(numbers) == 300:
                    return

        task = asyncio.create_task(listen())
        while not all(count for _, count in await client.pubsub_numsub("a", "b")):
            await asyncio.sleep(0)
        for number in range(300):
            assert await client.publish("a", number) == 1
        await asyncio.wait_for(task, SECONDS)
        assert numbers == list(range(300))
    await client.aclose()


blocking()
asyncio.run(asynchronous())
print(f"{LIBRARY} {library.__version__} pub/sub over RESP{PROTOCOL}: fine")
