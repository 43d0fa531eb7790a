"""python-socketio's Redis manager: what one server emits reaches the clients of another. Run: python socketio_manager.py PORT.

No HTTP is needed: managers tell one another by PUBLISH and SUBSCRIBE, and what reaches a client is taken at the place where
it would go out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import socketio

SECONDS = 60


class Server(socketio.AsyncServer):  # type: ignore[misc]  # socketio has no types
    """A server whose packets are kept instead of sent."""

    def __init__(self, url: str) -> None:
        self.sent: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        super().__init__(client_manager=socketio.AsyncRedisManager(url), async_mode="asgi")

    async def _send_eio_packet(self, eio_sid: str, eio_pkt: Any) -> None:
        # "2" says that it is an event; its name and its data follow.
        await self.sent.put((eio_sid, json.loads(eio_pkt.data[1:])))


async def main() -> None:
    url = f"redis://127.0.0.1:{sys.argv[1]}/0"
    servers = [Server(url) for _ in range(2)]
    rooms = []
    for number, server in enumerate(servers):
        server.manager_initialized = True
        server.manager.initialize()
        sid = await server.manager.connect(f"eio-{number}", "/")
        await server.manager.enter_room(sid, "/", "room")
        rooms.append(sid)
    outside = socketio.AsyncRedisManager(url, write_only=True)
    import redis.asyncio as aioredis

    client = aioredis.Redis(port=int(sys.argv[1]))
    async with asyncio.timeout(SECONDS):
        while dict(await client.pubsub_numsub("socketio"))[b"socketio"] < 2:
            await asyncio.sleep(0.01)
        for number in range(50):
            await servers[number % 2].emit("news", {"number": number}, room="room")
        for server in servers:
            found = [(await server.sent.get())[1][1]["number"] for _ in range(50)]
            assert sorted(found) == list(range(50)), found
        await outside.emit("late", {"x": 1}, room="room")
        for server in servers:
            assert (await server.sent.get())[1] == ["late", {"x": 1}]
    await client.aclose()
    print("python-socketio's Redis manager: fine")


asyncio.run(main())
