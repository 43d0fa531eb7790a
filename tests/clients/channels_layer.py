"""channels_redis' pub/sub layer, as Django Channels uses it: groups over several processes' layers.

Run: python channels_layer.py PORT.
"""

from __future__ import annotations

import asyncio
import sys

from channels_redis.pubsub import RedisPubSubChannelLayer
from redis.asyncio import Redis

SECONDS = 60


async def listening(client: Redis, count: int) -> None:
    """Returns once so many layers are in the group. A layer does not wait for the server's word that it has subscribed, or does
    not listen any longer."""
    async with asyncio.timeout(SECONDS):
        while True:
            groups = await client.pubsub_channels("*room*")
            if groups and dict(await client.pubsub_numsub(*groups)) == dict.fromkeys(groups, count):
                return
            await asyncio.sleep(0.01)


async def main() -> None:
    client = Redis(port=int(sys.argv[1]))
    hosts = [f"redis://127.0.0.1:{sys.argv[1]}/0"]
    layers = [RedisPubSubChannelLayer(hosts=hosts) for _ in range(3)]
    names = [await layer.new_channel() for layer in layers]
    for layer, name in zip(layers, names, strict=True):
        await layer.group_add("room", name)
    await listening(client, 3)
    for number in range(100):
        await layers[number % 3].group_send("room", {"type": "chat", "number": number})
    for layer, name in zip(layers, names, strict=True):
        found = [(await asyncio.wait_for(layer.receive(name), SECONDS))["number"] for _ in range(100)]
        # Each sender's messages keep their order.
        for sender in range(3):
            assert [number for number in found if number % 3 == sender] == list(range(sender, 100, 3))
    await layers[0].send(names[2], {"type": "alone"})
    assert await asyncio.wait_for(layers[2].receive(names[2]), SECONDS) == {"type": "alone"}
    await layers[1].group_discard("room", names[1])
    await listening(client, 2)
    await layers[0].group_send("room", {"type": "last"})
    assert await asyncio.wait_for(layers[2].receive(names[2]), SECONDS) == {"type": "last"}
    await layers[0].send(names[1], {"type": "marker"})
    assert await asyncio.wait_for(layers[1].receive(names[1]), SECONDS) == {"type": "marker"}
    for layer in layers:
        await layer.flush()
    await client.aclose()
    print("channels_redis pub/sub layer: fine")


asyncio.run(main())
