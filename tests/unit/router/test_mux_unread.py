"""Clients with large replies that they do not read: little is executed for them, all that they send is taken in, nothing is lost."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from test_mux import Cluster, ask, cluster, replies, resp, run
from test_mux_hangups import wait_until

MIB = 1 << 20
SOCKETS = 16 * MIB
"""More than the buffers of a connection hold on both sides."""


def value_of(number: int, size: int) -> bytes:
    return (b"value %d of so many bytes. " % number * (size // 20 + 1))[:size]


async def connected(running: Cluster) -> socket.socket:
    """A client that reads nothing by itself."""
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", running.port))
    return client


async def read_all(client: socket.socket, count: int) -> list[Any]:
    reader, writer = await asyncio.open_connection(sock=client, limit=1 << 26)
    try:
        return await replies(reader, count)
    finally:
        writer.close()


def executed(running: Cluster) -> int:
    return sum(len(shard.executed) for shard in running.shards)


@pytest.mark.parametrize("size", [MIB // 4, 2 * MIB], ids=["whole", "in pieces"])
def test_little_is_executed_for_who_does_not_read(size: int) -> None:
    """What follows is executed as they read, in their order."""
    count = 128 * MIB // size

    async def test() -> None:
        async with cluster(1) as running:
            numbers = [number % 5 for number in range(count)]
            for number in range(5):
                running.shards[0].data[0, b"big:%d" % number] = value_of(number, size)
            client, other = await connected(running), await running.connect()
            requests = b"".join(resp("GET", b"big:%d" % number) for number in numbers)
            await asyncio.get_running_loop().sock_sendall(client, requests)
            await wait_until(lambda: running.router.output_bytes > MIB)
            for turn in range(100):
                assert await ask(other, "GET", f"small:{turn}") is None
            assert executed(running) - 100 < (SOCKETS + 8 * MIB) // size + 16
            assert running.router.output_bytes < 8 * MIB
            assert await read_all(client, count) == [value_of(number, size) for number in numbers]
            assert running.router.output_bytes == 0

    run(test, 30)


@pytest.mark.parametrize("command", ["GET", "MGET"])
def test_who_writes_everything_before_reading_comes_to_the_end_of_it(command: str) -> None:
    """60 MB of values, each asked for behind its SET: what it has not read keeps its commands from being executed."""
    size = 3 * MIB // 2

    async def test() -> None:
        async with cluster(2) as running:
            near, far = running.key_on(0), running.key_on(1)
            running.shards[1].data[0, far] = value_of(0, size)
            client = await connected(running)
            for number in range(1, 41):
                words = (near, far) if command == "MGET" else (near,)
                data = resp("SET", near, value_of(number, size)) + resp(command, *words)
                await asyncio.get_running_loop().sock_sendall(client, data)
            assert running.router.output_bytes < 16 * MIB
            found = await read_all(client, 80)
            assert found[::2] == ["OK"] * 40
            values = [reply[0] for reply in found[1::2]] if command == "MGET" else found[1::2]
            assert values == [value_of(number, size) for number in range(1, 41)]
            await wait_until(lambda: running.router.client_bytes == 0)

    run(test, 30)


def test_who_ends_behind_what_it_has_not_read_gets_all_of_it() -> None:
    """Its last command and its end wait in the router."""

    async def test() -> None:
        async with cluster(1) as running:
            running.shards[0].data[0, b"big"] = value_of(1, MIB // 2)
            client = await connected(running)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, resp("GET", "big") * 100 + resp("SET", "last", "done"))
            client.shutdown(socket.SHUT_WR)
            await wait_until(lambda: running.router.output_bytes > MIB)
            assert (0, b"last") not in running.shards[0].data
            found = await read_all(client, 101)
            assert found == [value_of(1, MIB // 2)] * 100 + ["OK"]
            await wait_until(lambda: not running.router.sessions())

    run(test, 30)


def test_who_goes_without_reading_leaves_nothing() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            running.shards[0].data[0, b"big"] = value_of(1, MIB // 2)
            client = await connected(running)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, resp("GET", "big") * 100 + b"x" * MIB)
            await wait_until(lambda: running.router.output_bytes > MIB)
            client.close()
            await wait_until(lambda: not running.router.sessions())
            # The reply that is on its way counts until all of it is here.
            await wait_until(lambda: running.router.client_bytes == 0)

    run(test, 30)
