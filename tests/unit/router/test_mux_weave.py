"""Merged replies that are too large to be made in one go: they leave as their parts come, in order, and cost a window."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest
from test_mux import Cluster, ask, binary, cluster, replies, resp, run
from test_mux_hangups import wait_until

MIB = 1 << 20
BIG = random.Random(3).randbytes(3 * MIB + 11)


def fill(running: Cluster, keys: int = 12) -> dict[bytes, bytes]:
    """Keys of both shards, large and small ones among them."""
    stored = {}
    for shard in range(2):
        for number in range(keys):
            key = running.key_on(shard, number)
            size = (0, 5, 40_000, 700_000, len(BIG) - 100)[number % 5]
            stored[key] = running.shards[shard].data[0, key] = BIG[number : number + size]
    return stored


@pytest.mark.parametrize("dialect", [2, 3])
@pytest.mark.parametrize("chop", [False, True])
def test_values_come_in_the_order_of_their_keys(dialect: int, chop: bool) -> None:
    async def test() -> None:
        async with cluster(2, seed=4) as running:
            stored = fill(running, 6 if chop else 12)
            keys = [*stored, b"missing", *stored][:: -1 if chop else 1]
            for shard in running.shards:
                shard.chop = chop
            client = await running.connect()
            await ask(client, "HELLO", str(dialect))
            client[1].write(resp("GET", keys[0]) + resp("MGET", *keys) + resp("ECHO", "end"))
            if chop:
                # Cut small for a while; it would take minutes to the end.
                await asyncio.sleep(0.2)
                for shard in running.shards:
                    shard.chop = False
            expected = [stored.get(key) for key in keys]
            assert await replies(client[0], 3) == [expected[0], expected, b"end"]
            assert running.router.output_bytes == 0

    run(test, 60)


def test_arrays_stand_one_behind_the_other() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            for number in range(120_000):
                running.shards[number % 2].data[0, b"a key that is long enough %d" % number] = b""
            running.shards[1].data[0, b"one more"] = b""
            client = await running.connect()
            client[1].write(resp("KEYS", "*") + resp("DBSIZE"))
            keys, size = await replies(client[0], 2)
            assert len(keys) == len(set(keys)) == size == 120_001
            assert keys == [key for shard in running.shards for _, key in shard.data]
            assert running.router.output_bytes == 0

    run(test, 60)


def test_the_binary_protocol_has_them_too() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            stored = fill(running)
            reader, writer = await running.connect()
            writer.write(binary(b"mget", *stored, b"missing") + binary(b"keys", b"*"))
            found: list[Any] = []
            for _ in range(2):
                size = int.from_bytes(await reader.readexactly(4), "little")
                body = await reader.readexactly(size)
                assert body[:5] == bytes(4) + b"\x05"
                count, at = int.from_bytes(body[5:9], "little"), 9
                elements: list[bytes | None] = []
                for _ in range(count):
                    tag, at = body[at], at + 1
                    if tag == 0:
                        elements.append(None)
                        continue
                    assert tag == 2
                    n = int.from_bytes(body[at : at + 4], "little")
                    elements.append(body[at + 4 : at + 4 + n])
                    at += 4 + n
                assert at == size
                found.append(elements)
            assert found == [[*stored.values(), None], list(stored)]

    run(test, 60)


def test_who_does_not_read_costs_a_window() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            stored = fill(running, 30)
            silent = socket.create_connection(("127.0.0.1", running.port))
            silent.sendall(resp("MGET", *stored) * 3)
            other = await running.connect()
            await wait_until(lambda: running.router.output_bytes > MIB)
            for _ in range(50):
                assert await ask(other, "GET", "nothing") is None
                assert running.router.output_bytes <= 8 * MIB
            silent.close()
            await wait_until(lambda: len(running.router.sessions()) == 1)
            assert running.router.output_bytes == 0
            links = [connection for shard in running.shards for connection in shard.connections]
            await wait_until(lambda: not any(link.flows for link in links))

    run(test, 30)


def test_keys_leave_as_they_come() -> None:
    """16 MB of names from two shards: the router holds a window of them, and makes no object of any."""

    async def test() -> None:
        async with cluster(2) as running:
            names = [b"%0200d" % number for number in range(80_000)]
            for name in names:
                running.shards[running.router.shard_of(name)].data[0, name] = b""
            silent = socket.create_connection(("127.0.0.1", running.port))
            silent.sendall(resp("KEYS", "*") * 3)
            other = await running.connect()
            await wait_until(lambda: running.router.output_bytes > MIB)
            for turn in range(50):
                assert await ask(other, "GET", f"small:{turn}") is None
                assert running.router.output_bytes < 8 * MIB
            assert [name for shard in running.shards for name, _ in shard.executed if name == "keys"] == ["keys"] * 2
            silent.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=silent, limit=1 << 26)
            for found in await replies(reader, 3):
                assert sorted(found) == names
            writer.close()

    run(test, 60)


@pytest.mark.parametrize("how", ["OFF", "SKIP"])
def test_one_that_is_not_wanted_is_not_sent(how: str) -> None:
    async def test() -> None:
        async with cluster(2) as running:
            stored = fill(running)
            client = await running.connect()
            client[1].write(resp("CLIENT", "REPLY", how) + resp("MGET", *stored))
            client[1].write(resp("CLIENT", "REPLY", "ON") + resp("ECHO", "end"))
            assert await replies(client[0], 2) == ["OK", b"end"]
            assert running.router.output_bytes == 0
            assert sum(sum(shard.credits) for shard in running.shards) < 1000

    run(test)


def test_a_shard_that_dies_before_and_in_the_middle() -> None:
    """Before its turn the reply is an error; inside it the connection ends."""

    async def test() -> None:
        async with cluster(2) as running:
            stored = fill(running, 30)
            inside = socket.create_connection(("127.0.0.1", running.port))
            inside.sendall(resp("MGET", *stored))
            await wait_until(lambda: running.router.output_bytes > MIB)
            before = await running.connect()
            running.shards[1].hold = True
            before[1].write(resp("GET", running.key_on(1, 1)) + resp("MGET", *stored))
            await wait_until(lambda: len(running.shards[0].connections[0].flows) >= 2)
            running.shards[0].die()
            await wait_until(lambda: len(running.router.sessions()) == 1)
            running.shards[1].release()
            first, second = await replies(before[0], 2)
            assert first == stored[running.key_on(1, 1)]
            assert second.code in ("UNCERTAIN", "CLUSTERDOWN")
            assert running.router.output_bytes == 0
            inside.close()

    run(test)


def test_a_blocking_command_may_take_something_large() -> None:
    """Its reply comes in pieces, too, though nobody else's is passed on by it."""

    async def test() -> None:
        async with cluster(1) as running:
            running.shards[0].data[0, b"list"] = BIG
            client = await running.connect()
            client[1].write(resp("BLPOP", "list", "0") + resp("ECHO", "end"))
            assert await replies(client[0], 2) == [[b"list", BIG], b"end"]
            assert running.router.output_bytes == 0

    run(test)
