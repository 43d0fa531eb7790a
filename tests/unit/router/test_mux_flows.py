"""Large arguments and replies in pieces: in order, in bounded memory, past nobody; and whatever happens in the middle."""

from __future__ import annotations

import asyncio
import random
import socket
import struct

import pytest
from test_mux import Client, Cluster, ask, cluster, replies, resp, run
from test_mux_hangups import wait_until

from kache.errors import CommandError

MIB = 1 << 20
BIG = random.Random(1).randbytes(9 * MIB + 17)


async def store(running: Cluster, key: bytes, value: bytes = BIG) -> None:
    for shard in running.shards:
        shard.data[0, key] = value


def test_a_large_reply_keeps_its_place() -> None:
    async def test() -> None:
        async with cluster(2, seed=2) as running:
            big, small, far = running.key_on(0), running.key_on(0, 1), running.key_on(1)
            await store(running, big)
            await store(running, small, b"small")
            await store(running, far, BIG[::-1])
            client = await running.connect()
            for shard in running.shards:
                shard.chop = True
            client[1].write(resp("GET", small) + resp("GET", big) + resp("ECHO", "between") + resp("GET", far))
            client[1].write(resp("MGET", small, far) + resp("GET", small) + resp("GET", big) + resp("ECHO", "end"))
            for shard in running.shards:
                shard.chop = False
            assert await replies(client[0], 8) == [
                *(b"small", BIG, b"between", BIG[::-1], [b"small", BIG[::-1]], b"small", BIG, b"end")
            ]
            assert running.router.output_bytes == 0

    run(test, 30)


def test_a_large_reply_that_was_promised_before_keeps_its_place() -> None:
    async def test() -> None:
        async with cluster(2, seed=3) as running:
            big, small, far = running.key_on(0), running.key_on(0, 1), running.key_on(1)
            await store(running, big)
            await store(running, small, b"small")
            await store(running, far, BIG[::-1])
            client = await running.connect()
            running.shards[0].defer = lambda name: name in ("get", "mget")
            client[1].write(resp("GET", big) + resp("GET", far) + resp("GET", small) + resp("GET", big))
            client[1].write(resp("MGET", big, small, far) + resp("ECHO", "end"))
            assert await replies(client[0], 6) == [BIG, BIG[::-1], b"small", BIG, [BIG, b"small", BIG[::-1]], b"end"]
            client[1].write(resp("GET", big) * 3)
            await wait_until(lambda: len(running.shards[0].executed) >= 5)
            client[1].close()
            await wait_until(lambda: running.router.output_bytes == 0)
            other = await running.connect()
            assert await ask(other, "GET", big) == BIG

    run(test, 30)


def test_what_is_not_read_stays_at_the_shard_and_hurts_nobody() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            await store(running, b"big")
            silent = socket.create_connection(("127.0.0.1", running.port))
            silent.sendall(resp("GET", "big") * 20)
            other = await running.connect()
            for _ in range(50):
                await asyncio.sleep(0.005)
                assert await ask(other, "GET", "missing") is None
                assert running.router.output_bytes <= 5 * MIB
            received = 0
            loop = asyncio.get_running_loop()
            silent.setblocking(False)
            while received < 20 * (len(BIG) + len(b"$%d\r\n\r\n" % len(BIG))):
                received += len(await loop.sock_recv(silent, MIB))
                assert running.router.output_bytes <= 5 * MIB
            silent.close()

    run(test, 30)


def test_what_waits_at_the_shard_counts_for_the_clients() -> None:
    """As much as the shard keeps of it; nothing is left of that when it has come, or its client has gone."""

    async def test() -> None:
        async with cluster(1) as running:
            await store(running, b"big")
            silent = socket.create_connection(("127.0.0.1", running.port))
            silent.sendall(resp("GET", "big") * 20)
            router = running.router
            await wait_until(lambda: router.client_bytes - router.output_bytes > 50 * MIB)
            assert router.client_bytes - router.output_bytes <= 64 * MIB + 1000
            reader, writer = await running.connect()
            writer.write(resp("GET", "big"))
            assert await replies(reader, 1) == [BIG]
            silent.close()
            await wait_until(lambda: router.client_bytes == 0)

    run(test, 30)


@pytest.mark.parametrize("how", ["OFF", "SKIP"])
def test_a_large_reply_that_is_not_wanted_is_not_sent(how: str) -> None:
    async def test() -> None:
        async with cluster(1) as running:
            await store(running, b"big")
            client = await running.connect()
            client[1].write(resp("CLIENT", "REPLY", how) + resp("GET", "big"))
            client[1].write(resp("CLIENT", "REPLY", "ON") + resp("ECHO", "end"))
            assert await replies(client[0], 2) == ["OK", b"end"]
            assert running.shards[0].credits == [0]
            assert running.router.output_bytes == 0

    run(test)


def test_a_client_that_goes_in_the_middle_of_a_reply() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            await store(running, b"big")
            silent = socket.create_connection(("127.0.0.1", running.port))
            silent.sendall(resp("GET", "big") * 3)
            (shard,) = running.shards
            await wait_until(lambda: shard.credits and running.router.output_bytes > MIB)
            silent.close()
            await wait_until(lambda: not running.router.sessions() and not shard.connections[0].flows)
            assert shard.cancelled
            assert running.router.output_bytes == 0
            assert await ask(await running.connect(), "GET", "big") == BIG

    run(test)


def test_a_shard_that_dies_in_the_middle_of_a_reply() -> None:
    """Inside a reply the connection ends; before its turn the reply is an error."""

    async def test() -> None:
        async with cluster(2) as running:
            near, far = running.key_on(0), running.key_on(1)
            await store(running, near)
            inside = socket.create_connection(("127.0.0.1", running.port))
            inside.sendall(resp("GET", near) * 2)
            await wait_until(lambda: running.shards[0].credits)
            running.shards[1].hold = True
            before = await running.connect()
            before[1].write(resp("GET", far) + resp("GET", near))
            await wait_until(lambda: len(running.shards[0].connections[0].flows) >= 2)
            running.shards[0].die()
            await wait_until(lambda: len(running.router.sessions()) == 1)
            running.shards[1].release()
            first, second = await replies(before[0], 2)
            assert (first, second.code) == (None, "UNCERTAIN")
            assert running.router.output_bytes == 0
            inside.close()

    run(test)


async def dribble(client: Client, data: bytes, dice: random.Random) -> None:
    at = 0
    while at < len(data):
        n = dice.choice((1, 10, 1000, 100_000, MIB))
        client[1].write(data[at : at + n])
        at += n
        await client[1].drain()


@pytest.mark.parametrize("seed", range(4))
def test_a_large_argument_in_any_chunks(seed: int) -> None:
    async def test() -> None:
        async with cluster(2, seed=seed) as running:
            dice = random.Random(seed)
            client = await running.connect()
            key, other = running.key_on(0), running.key_on(1)
            data = resp("PING") + resp("SET", key, BIG) + resp("GET", other) + resp("SET", other, BIG[:MIB], "x")
            data += resp("SET", key, "again", "EX", BIG, "1") + resp("SET", key, BIG, BIG[::-1]) + resp("GET", key)
            await dribble(client, data + b"PING\r\n" + resp("ECHO", BIG), dice)
            answers = await replies(client[0], 9)
            assert answers == ["PONG", "OK", None, "OK", "OK", "OK", BIG, "PONG", BIG]
            assert [words for name, words in running.shards[0].executed if name == "set"] == [
                [key, BIG],
                [key, b"again", b"EX", BIG, b"1"],
                [key, BIG, BIG[::-1]],
            ]
            assert running.router.client_bytes == 0

    run(test, 30)


def test_others_are_served_while_an_argument_is_on_its_way() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            (shard,) = running.shards
            client, other = await running.connect(), await running.connect()
            client[1].write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % len(BIG) + BIG[: 5 * MIB])
            (link,) = shard.connections
            await wait_until(lambda: [len(came[1]) for came in link.uploads.values()] == [5 * MIB])
            assert await ask(other, "SET", "k", "before") == "OK"
            assert await ask(other, "SET", "k2", BIG) == "OK"
            client[1].write(BIG[5 * MIB :] + b"\r\n")
            assert await replies(client[0], 1) == ["OK"]
            assert await ask(other, "GET", "k") == BIG

    run(test)


def test_an_argument_that_never_comes_to_its_end() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            (shard,) = running.shards
            head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % len(BIG)
            gone = await running.connect()
            gone[1].write(head + BIG[: 3 * MIB])
            await wait_until(lambda: shard.connections[0].uploads and running.router.client_bytes > 2 * MIB)
            gone[1].transport.abort()
            await wait_until(lambda: shard.cancelled and not shard.connections[0].uploads)
            assert running.router.client_bytes == 0
            # Bytes in the place of its line end: an error, and the connection ends.
            broken = await running.connect()
            broken[1].write(head + BIG + b"xx")
            answer = await asyncio.wait_for(broken[0].read(-1), 5)
            assert b"invalid CRLF" in answer
            await wait_until(lambda: not shard.connections[0].uploads)
            # Not executed, and the connection goes on in step: a command that does not take so many arguments.
            client = await running.connect()
            assert (await ask(client, "GET", "k", BIG)).code == "ERR"
            assert await ask(client, "GET", "k") is None
            assert [name for name, _ in shard.executed if name == "set"] == []

    run(test)


def test_a_shard_that_is_lost_before_an_argument_is_complete() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            shard = running.shards[0]
            key = running.key_on(0)
            client = await running.connect()
            client[1].write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key, len(BIG)) + BIG[: 3 * MIB])
            await wait_until(lambda: shard.connections[0].uploads)
            shard.die()
            await wait_until(lambda: not shard.connections)
            await asyncio.wait_for(running.router.all_up(), 5)
            client[1].write(BIG[3 * MIB :] + b"\r\n" + resp("ECHO", "on"))
            lost, after = await replies(client[0], 2)
            assert lost.code in ("CLUSTERDOWN", "TRYAGAIN") and "nothing was executed" in str(lost)
            assert after == b"on"
            assert await ask(client, "SET", key, BIG) == "OK"

    run(test)


def test_the_words_of_what_is_not_sent_ahead() -> None:
    """Commands of several keys and of the router itself come whole, whatever their size."""

    async def test() -> None:
        async with cluster(2) as running:
            client = await running.connect()
            assert await ask(client, "MSET", "a", BIG, "b", BIG) == "OK"
            assert await ask(client, "ECHO", BIG) == BIG
            reply = await ask(client, "NOPE", "a", BIG)
            assert isinstance(reply, CommandError)

    run(test)


def binary(*words: bytes) -> bytes:
    body = struct.pack("<I", len(words)) + b"".join(struct.pack("<I", len(word)) + word for word in words)
    return struct.pack("<I", len(body)) + body


NIL = struct.pack("<IIB", 5, 0, 0)


def test_large_binary_arguments_are_passed_on_as_they_come() -> None:
    """Wherever the pieces end, whatever stands behind; a command behind is executed behind, in its turn."""

    async def test() -> None:
        async with cluster(1) as running:
            (shard,) = running.shards
            reader, writer = await running.connect()
            other = await running.connect()
            frame = binary(b"set", b"a", BIG) + binary(b"get", b"a")
            answer = NIL + struct.pack("<IIBI", 9 + len(BIG), 0, 2, len(BIG)) + BIG
            for sizes in ([len(frame)], [3, 9, 5 * MIB], [len(binary(b"set", b"a", BIG)) - 1, 1], [7 * MIB, 2 * MIB]):
                shard.data.clear()
                at = 0
                for size in (*sizes, len(frame)):
                    writer.write(frame[at : at + size])
                    await writer.drain()
                    at += size
                    if at == 5 * MIB + 12:
                        await wait_until(lambda: running.router.client_bytes > 4 * MIB)
                        assert [len(parts[1]) for parts in shard.connections[0].uploads.values()] > [MIB]
                        assert await ask(other, "GET", "a") is None
                assert await reader.readexactly(len(answer)) == answer
                assert not shard.connections[0].uploads

    run(test, 30)


def test_a_binary_frame_that_its_strings_do_not_fill_is_refused_however_much_was_sent() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            (shard,) = running.shards
            reader, writer = await running.connect()
            frame = binary(b"set", b"a", BIG)
            writer.write(struct.pack("<I", len(frame) - 4 + 3) + frame[4:] + b"xyz")
            reply = await reader.read()
            assert struct.unpack_from("<IB", reply, 4) == (3, 1) and b"do not fill" in reply
            assert (0, b"a") not in shard.data
            await wait_until(lambda: not shard.connections[0].uploads)

    run(test)


def test_an_argument_for_a_shard_that_does_not_answer_is_refused() -> None:
    async def test() -> None:
        async with cluster(1, request_timeout_ms=1000) as running:
            (shard,) = running.shards
            client, other = await running.connect(), await running.connect()
            shard.connections[0].transport.pause_reading()
            client[1].write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % len(BIG) + BIG[: 5 * MIB])
            assert (await ask(other, "GET", "k")).code == "TIMEOUT"
            client[1].write(BIG[5 * MIB :] + b"\r\n" + resp("ECHO", "on"))
            refused, after = await replies(client[0], 2)
            assert (refused.code, after) == ("TRYAGAIN", b"on")
            shard.connections[0].transport.resume_reading()
            assert await ask(client, "GET", "k") is None
            assert not shard.connections[0].uploads

    run(test)


def test_read_buffers_come_back() -> None:
    """Partial frames keep the buffers that they were read into, a few of them, until they are whole or their client goes."""

    async def test() -> None:
        async with cluster(1) as running:
            value = BIG[:100_000]
            clients = [await running.connect() for _ in range(40)]
            for _reader, writer in clients:
                writer.write(resp("SET", "k", value)[:60_000])
            await wait_until(lambda: running.router.client_bytes == 40 * 60_000)
            assert 0 < running.router.lent <= 16
            for _reader, writer in clients[::2]:
                writer.write(resp("SET", "k", value)[60_000:] + resp("ECHO", value))
            for reader, _writer in clients[::2]:
                assert await replies(reader, 2) == ["OK", value]
            for _reader, writer in clients[1::2]:
                writer.close()
            await wait_until(lambda: running.router.lent == 0)
            assert running.router.client_bytes == 0

    run(test)
