"""The router against fake shards: deadlines, busy and stuck links, what clients may send and leave unread."""

from __future__ import annotations

import array
import asyncio
import contextlib
import socket
import struct
import threading

import msgspec
import pytest
from test_mux import ask, binary, cluster, replies, resp, run

from kache.errors import CommandError
from kache.wire.board import Board


def test_a_held_shard_times_out_and_its_late_replies_reach_nobody() -> None:
    async def test() -> None:
        async with cluster(2, request_timeout_ms=1000) as running:
            client = await running.connect()
            slow, fast = running.key_on(0), running.key_on(1)
            await ask(client, "SET", slow, "slow")
            await ask(client, "SET", fast, "fast")
            running.shards[0].hold = True
            loop = asyncio.get_running_loop()
            start = loop.time()
            client[1].write(resp("GET", slow) + resp("GET", fast) + resp("MGET", slow, fast))
            first, second, third = await replies(client[0], 3)
            assert 0.8 <= loop.time() - start <= 5
            assert first.code == "TIMEOUT"
            assert second == b"fast"
            assert third.code == "TIMEOUT"
            assert running.router.links[0].in_flight == 2
            running.shards[0].release()
            assert await ask(client, "GET", slow) == b"slow"
            assert running.router.links[0].in_flight == 0
            assert running.router.statistics()["timeouts"] == 2

    run(test)


def test_what_was_begun_is_waited_for_and_what_was_not_times_out() -> None:
    """The first two frames are begun: the first client's reply comes late, and its second command waits behind it."""

    async def test() -> None:
        numbers = array.array("Q", [0, 0])
        board = Board(numbers)
        beat = threading.Thread(target=board.beat, args=(0,))
        beat.start()
        try:
            async with cluster(1, board=board, request_timeout_ms=1000) as running:
                first, second = await running.connect(), await running.connect()
                running.shards[0].hold = True
                first[1].write(resp("SET", "a", "1") + resp("GET", "a"))
                while running.router.links[0].in_flight < 2:
                    await asyncio.sleep(0.005)
                numbers[1] = 1
                start = asyncio.get_running_loop().time()
                late = await ask(second, "GET", "a")
                assert late.code == "TIMEOUT"
                assert asyncio.get_running_loop().time() - start >= 0.8
                first[1].write(resp("GET", "a"))
                await asyncio.sleep(1.3)
                running.shards[0].release()
                assert await replies(first[0], 3) == ["OK", b"1", b"1"]
                assert await ask(second, "GET", "a") == b"1"
                assert running.router.links[0].in_flight == 0
        finally:
            board.stop()
            beat.join()

    run(test)


def test_nothing_is_waited_for_beyond_the_command_timeout_or_the_shards_last_beat() -> None:
    async def test() -> None:
        numbers = array.array("Q", [0, 0])
        board = Board(numbers)
        beat = threading.Thread(target=board.beat, args=(0,))
        beat.start()
        try:
            async with cluster(1, board=board, request_timeout_ms=500, command_timeout_ms=1500) as running:
                client = await running.connect()
                running.shards[0].hold = True
                numbers[1] = 1
                start = asyncio.get_running_loop().time()
                assert (await ask(client, "GET", "a")).code == "TIMEOUT"
                assert asyncio.get_running_loop().time() - start >= 1.35
                running.shards[0].release()
                assert await ask(client, "GET", "a") is None
                board.stop()
                running.router.apply_config(msgspec.structs.replace(running.router.config, command_timeout_ms=60_000))
                running.shards[0].hold = True
                numbers[1] = 3
                start = asyncio.get_running_loop().time()
                assert (await ask(client, "GET", "a")).code == "TIMEOUT"
                assert asyncio.get_running_loop().time() - start <= 20
        finally:
            board.stop()
            beat.join()

    run(test)


def test_a_busy_link_makes_its_clients_wait_and_others_go_on() -> None:
    async def test() -> None:
        settings = {"link_soft_commands": 64, "link_hard_commands": 128, "request_timeout_ms": 30000}
        async with cluster(2, **settings) as running:
            slow, fast = running.key_on(0), running.key_on(1)
            running.shards[0].hold = True
            waiting = [await running.connect() for _ in range(128)]
            for client in waiting:
                client[1].write(resp("GET", slow))
            while running.router.statistics()["bytes_in"] < 128 * len(resp("GET", slow)):
                await asyncio.sleep(0.01)
            other = await running.connect()
            other[1].write(resp("GET", fast) + resp("GET", slow))
            assert (await replies(other[0], 1)) == [None]
            assert running.router.links[0].in_flight == 64
            calls = [running.router.call(0, "get", [slow]) for _ in range(64)]
            with pytest.raises(CommandError, match="TRYAGAIN"):
                await running.router.call(0, "get", [slow])
            running.shards[0].release()
            for client in (*waiting, other):
                assert (await replies(client[0], 1)) == [None]
            assert await asyncio.gather(*calls) == [None] * 64

    run(test)


def test_a_stuck_shard_times_out_then_refuses() -> None:
    async def test() -> None:
        async with cluster(2, link_soft_commands=64, request_timeout_ms=1000) as running:
            slow, fast = running.key_on(0), running.key_on(1)
            running.shards[0].hold = True
            client = await running.connect()
            client[1].write(resp("GET", slow) * 200)
            codes = [answer.code for answer in await replies(client[0], 200)]
            # What was sent before the limit, then the rest without waiting for the next deadline.
            assert codes == ["TIMEOUT"] * 64 + ["TRYAGAIN"] * 136
            assert await ask(client, "SET", fast, "1") == "OK"
            running.shards[0].release()
            assert await ask(client, "SET", fast, "2") == "OK"
            assert await ask(client, "GET", slow) is None

    run(test)


def test_malformed_input_is_answered_and_closed() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            for data in (
                b"*3000000000\r\n",
                b"*1\r\n$2000000000\r\n",
                b"*1\r\n$-10\r\n",
                b"*1\r\n$blabla\r\n",
                b"\xff\xff\xff\xff",
                struct.pack("<II", 4, 0),
                struct.pack("<II", 1 << 20, 1 << 31),
                b"\x00\x00\x00\xf0\x00\x00",
            ):
                reader, writer = await running.connect()
                writer.write(resp("PING") * (data[0] == ord("*")) + data)
                answer = await asyncio.wait_for(reader.read(-1), 20)
                assert b"Protocol error" in answer, data

    run(test)


def test_tls_and_http_are_closed() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            for data in (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\r\n",
                b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\r\n",
            ):
                reader, writer = await running.connect()
                writer.write(data)
                with contextlib.suppress(ConnectionResetError):
                    await asyncio.wait_for(reader.read(-1), 20)
            assert running.shards[0].executed == []

    run(test)


def test_too_many_clients_are_told_so() -> None:
    async def test() -> None:
        async with cluster(1, maxclients=3) as running:
            clients = [await running.connect() for _ in range(3)]
            assert await ask(clients[2], "PING") == "PONG"
            reader, _ = await running.connect()
            assert await reader.read(-1) == b"-ERR max number of clients reached\r\n"
            clients[0][1].close()
            while len(running.router.sessions()) > 2:
                await asyncio.sleep(0.005)
            again = await running.connect()
            assert await ask(again, "PING") == "PONG"

    run(test)


def test_an_unauthenticated_client_is_kept_small() -> None:
    async def test() -> None:
        async with cluster(1, requirepass="secret") as running:
            client = await running.connect()
            assert (await ask(client, "GET", "a")).code == "NOAUTH"
            assert await ask(client, "AUTH", "secret") == "OK"
            assert await ask(client, "SET", "a", "1") == "OK"
            reader, writer = await running.connect()
            writer.write(resp("GET", "a") * 1000)
            answer = await asyncio.wait_for(reader.read(-1), 20)
            assert 0 < answer.count(b"NOAUTH") <= 128
            reader, writer = await running.connect()
            writer.write(b"*2\r\n$3\r\nGET\r\n$100000\r\n")
            assert b"Protocol error" in await asyncio.wait_for(reader.read(-1), 20)
            reader, writer = await running.connect()
            writer.write(binary(b"get", b"a"))
            assert struct.unpack("<II", await reader.readexactly(8))[1] == 7

    run(test)


def test_a_client_that_never_reads_is_closed() -> None:
    async def test() -> None:
        limits = (("normal", 4 << 20, 0, 0), ("slave", 0, 0, 0), ("pubsub", 0, 0, 0))
        async with cluster(1, client_output_buffer_limit=limits) as running:
            other = await running.connect()
            await ask(other, "SET", "big", b"x" * (1 << 19))
            silent = socket.create_connection(("127.0.0.1", running.port))
            silent.sendall(resp("GET", "big") * 500)
            while running.router.statistics()["closed_by_output_limit"] == 0:
                await asyncio.sleep(0.01)
                assert await ask(other, "PING") == "PONG"
                assert running.router.output_bytes < 8 << 20
            assert len(running.router.sessions()) == 1
            silent.close()

    run(test)


def test_a_slow_reader_gets_everything() -> None:
    async def test() -> None:
        async with cluster(1, maxmemory_clients=4 << 20) as running:
            reader, writer = await running.connect()
            await ask((reader, writer), "SET", "big", b"x" * (1 << 18))
            writer.write(resp("GET", "big") * 100)
            for _ in range(100):
                assert len(await reader.readexactly((1 << 18) + 11)) > 1 << 18
            assert running.router.statistics()["closed_by_output_limit"] == 0

    run(test)
