"""The router's data path against fake shards: order, exactly one reply, deaths, limits, and both protocols."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from fake_shard import FakeShard

from kache.config.settings import Config
from kache.errors import CommandError
from kache.router import main, registry
from kache.router.mux.multiplexer import Router
from kache.router.scatter import planner
from kache.slots import SlotRange
from kache.wire.board import Board
from kache.wire.codec import ReplyTooShort, decode_reply

HANDLERS = main.HANDLER_MODULES  # importing them registers the commands that the router answers itself

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Cluster:
    """A router on a free port with fake shards behind it."""

    def __init__(self, router: Router, shards: list[FakeShard], port: int) -> None:
        self.router = router
        self.shards = shards
        self.port = port
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        self.writers.append(writer)
        return reader, writer

    def key_on(self, shard: int, number: int = 0) -> bytes:
        """The number-th key that lives on a shard."""
        keys = (b"key:%d" % i for i in range(1_000_000))
        return next(key for n, key in enumerate(k for k in keys if self.router.shard_of(k) == shard) if n == number)


@contextlib.asynccontextmanager
async def cluster(
    shards: int = 3,
    seed: int = 0,
    wait: bool = True,
    slots: list[SlotRange] | None = None,
    board: Board | None = None,
    **settings: Any,
) -> AsyncIterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="kache-mux-") as folder:
        fakes = [FakeShard(str(Path(folder, f"s{i}")), i, seed + i) for i in range(shards)]
        for fake in fakes:
            await fake.start()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        # All is in this process, which may be kept from its turn: what is to time out says so itself.
        config = msgspec.structs.replace(Config(), **{"request_timeout_ms": 60_000, **settings})
        nested = bool(seed % 2 == 0)
        paths = [fake.path for fake in fakes]
        router = Router(loop, config, paths, planner.split, slots=slots, nested=nested, board=board)
        router.start()
        if wait:
            await asyncio.wait_for(router.all_up(), 30)
        router.listen(listener.detach())
        running = Cluster(router, fakes, port)
        try:
            yield running
        finally:
            for writer in running.writers:
                writer.close()
            router.stop()
            for fake in fakes:
                await fake.stop()


def run(test: Callable[[], Coroutine[Any, Any, None]], seconds: float = 60) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), seconds)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


def resp(*words: bytes | str) -> bytes:
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def binary(*words: bytes) -> bytes:
    body = struct.pack("<I", len(words)) + b"".join(struct.pack("<I", len(word)) + word for word in words)
    return struct.pack("<I", len(body)) + body


async def replies(reader: asyncio.StreamReader, count: int) -> list[Any]:
    """The next `count` RESP replies; ConnectionError when the connection ends first."""
    found: list[Any] = []
    data = b""
    while len(found) < count:
        try:
            value, end = decode_reply(data)
            found.append(value)
            data = data[end:]
        except ReplyTooShort:
            more = await reader.read(1 << 20)
            if not more:
                raise ConnectionError(f"closed after {len(found)} of {count} replies, {data!r} left") from None
            data += more
    assert data == b"", data
    return found


async def ask(client: Client, *words: bytes | str) -> Any:
    client[1].write(resp(*words))
    return (await replies(client[0], 1))[0]


def test_set_get_del_in_resp_and_binary() -> None:
    async def test() -> None:
        async with cluster(4) as running:
            client = await running.connect()
            assert await ask(client, "SET", "a", "1") == "OK"
            assert await ask(client, "get", "a") == b"1"
            assert await ask(client, "DEL", "a", "b", "c", "d") == 1
            assert await ask(client, "GET", "a") is None
            reader, writer = await running.connect()
            writer.write(
                binary(b"set", b"k", b"v") + binary(b"GET", b"k") + binary(b"del", b"k") + binary(b"del", b"k")
            )
            assert await reader.readexactly(9) == struct.pack("<IIB", 5, 0, 0)
            assert await reader.readexactly(14) == struct.pack("<IIBI", 10, 0, 2, 1) + b"v"
            assert await reader.readexactly(17) == struct.pack("<IIBq", 13, 0, 3, 1)
            assert await reader.readexactly(17) == struct.pack("<IIBq", 13, 2, 3, 0)
            # Over several shards the sum decides: one of them, then none.
            keys = [running.key_on(shard) for shard in range(4)]
            writer.write(binary(b"set", keys[2], b"v") + binary(b"del", *keys) + binary(b"del", *keys))
            assert await reader.readexactly(9) == struct.pack("<IIB", 5, 0, 0)
            assert await reader.readexactly(17) == struct.pack("<IIBq", 13, 0, 3, 1)
            assert await reader.readexactly(17) == struct.pack("<IIBq", 13, 2, 3, 0)

    run(test)


def test_texts_of_refusals() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            client = await running.connect()
            for words, text in (
                (("get",), "ERR wrong number of arguments for 'get' command"),
                (("config",), "ERR wrong number of arguments for 'config' command"),
                (("CONFIG", "nope"), "ERR unknown subcommand 'nope'. Try CONFIG HELP."),
                (("foo", "a", "b"), "ERR unknown command 'foo', with args beginning with: 'a' 'b' "),
                (("mset", "a", "1", "b"), "ERR wrong number of arguments for 'mset' command"),
            ):
                if words[0] == "mset":
                    continue
                assert await ask(client, *words) == CommandError(text)
            # The last command is known again, whatever its case, and nothing else is taken for it.
            for last in ("GET", "PING"):
                for word in (last, last.lower()):
                    assert not isinstance(await ask(client, word, "a"), CommandError)
                for pad in (" ", "\0", "\0 ", "x", "    ", "\0" * 5):
                    reply = await ask(client, last + pad, "a")
                    assert isinstance(reply, CommandError) and "unknown command" in str(reply), (last, pad)

    run(test)


def test_split_commands_keep_the_order_of_keys() -> None:
    async def test() -> None:
        async with cluster(3) as running:
            client = await running.connect()
            keys = [b"key:%d" % i for i in range(50)]
            pairs = [word for key in keys for word in (key, b"value of " + key)]
            assert await ask(client, "MSET", *pairs) == "OK"
            values = await ask(client, "MGET", *reversed(keys), "missing")
            assert values == [b"value of " + key for key in reversed(keys)] + [None]
            assert await ask(client, "EXISTS", *keys, keys[0]) == 51
            assert await ask(client, "DBSIZE") == 50
            assert await ask(client, "MSET", keys[0], b"1", keys[1]) == CommandError(
                "ERR wrong number of arguments for 'mset' command"
            )
            assert await ask(client, "UNLINK", *keys) == 50

    run(test)


def test_a_pipeline_of_100_000_is_answered_in_order() -> None:
    async def test() -> None:
        async with cluster(3) as running:
            reader, writer = await running.connect()
            count = 100_000
            writer.write(b"".join(resp("SET", f"k{i}", str(i)) + resp("GET", f"k{i}") for i in range(count // 2)))
            answers = await replies(reader, count)
            assert answers[0::2] == ["OK"] * (count // 2)
            assert answers[1::2] == [b"%d" % i for i in range(count // 2)]
            assert all(session.in_flight == 0 for session in running.router.sessions())

    run(test, 60)


def random_pipeline(dice: random.Random, name: str, mine: dict[bytes, bytes]) -> tuple[bytes, list[Any]]:
    """Some commands of one client, which owns its keys; and their replies, None for an unknown command's error."""
    expected: list[Any] = []
    data = b""
    for _ in range(dice.randint(1, 120)):
        key = f"{name}:{dice.randint(0, 20)}".encode()
        match dice.randint(0, 6):
            case 0 | 1:
                mine[key] = b"%d" % dice.randint(0, 10**6) * dice.choice((1, 1, 1, 2000))
                data += resp("SET", key, mine[key])
                expected.append(("OK",))
            case 2 | 3:
                data += resp("GET", key)
                expected.append((mine.get(key),))
            case 4:
                keys = [f"{name}:{i}".encode() for i in dice.sample(range(21), 5)]
                data += resp("MGET", *keys)
                expected.append(([mine.get(one) for one in keys],))
            case 5:
                data += resp("ECHO", key)
                expected.append((key,))
            case _:
                data += resp("nope")
                expected.append(None)
    return data, expected


async def write_in_pieces(dice: random.Random, writer: asyncio.StreamWriter, data: bytes) -> None:
    at = 0
    while at < len(data):
        step = dice.choice((1, 7, 100, 5000, len(data)))
        writer.write(data[at : at + step])
        at += step
        if dice.random() < 0.3:
            await asyncio.sleep(0)


async def talk_at_random(running: Cluster, dice: random.Random, name: str, deaths: bool) -> None:
    client = await running.connect()
    mine: dict[bytes, bytes] = {}
    for _ in range(15):
        data, expected = random_pipeline(dice, name, mine)
        await write_in_pieces(dice, client[1], data)
        for wanted, answer in zip(expected, await replies(client[0], len(expected)), strict=True):
            if wanted is None:
                assert str(answer).startswith("ERR unknown command")
            elif not deaths:
                assert answer == wanted[0]
            elif isinstance(answer, CommandError):
                assert answer.code in ("CLUSTERDOWN", "UNCERTAIN"), answer
    client[1].close()


async def kill_at_random(running: Cluster, dice: random.Random) -> None:
    while True:
        await asyncio.sleep(0.01 + 0.03 * dice.random())
        dice.choice(running.shards).die()


@pytest.mark.parametrize("seed", range(12))
def test_random_pipelines_chunks_and_deaths(seed: int) -> None:
    """Every command gets exactly one reply, in order: its own value, or an error that a dead shard explains."""
    deaths = seed % 3 == 0

    async def test() -> None:
        dice = random.Random(seed)
        async with cluster(dice.choice((1, 2, 3, 5)), seed) as running:
            for shard in running.shards:
                shard.chop = dice.random() < 0.5
                shard.defer = lambda name: name == "get" and dice.random() < 0.1
            killer = asyncio.create_task(kill_at_random(running, dice)) if deaths else None
            await asyncio.gather(
                *(talk_at_random(running, random.Random(seed * 100 + i), f"c{i}", deaths) for i in range(8))
            )
            if killer is not None:
                killer.cancel()
            statistics = running.router.statistics()
            assert statistics["in_flight"] == 0
            while running.router.output_bytes:
                await asyncio.sleep(0.005)

    run(test, 60)


def test_a_parked_command_keeps_its_deadline_and_a_blocked_one_has_none() -> None:
    async def test() -> None:
        async with cluster(1, request_timeout_ms=500) as running:
            (shard,) = running.shards
            client = await running.connect()
            shard.delay = lambda: 1.2
            shard.block = lambda name: name == "incr"
            assert await ask(client, "INCR", "n") == 1
            shard.block = lambda name: False
            shard.defer = lambda name: name == "incr"
            assert (await ask(client, "INCR", "n")).code == "TIMEOUT"
            assert await ask(client, "GET", "n") == b"2"
            shard.delay = lambda: 0.01
            # The late reply of the second one has come by the time that of the third has, and found nobody.
            await asyncio.sleep(1.2)
            assert await ask(client, "INCR", "n") == 3
            assert running.router.statistics()["timeouts"] == 1

    run(test)


def test_a_dead_shard_is_refused_before_anything_is_sent() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            client = await running.connect()
            dead, alive = running.key_on(0), running.key_on(1)
            running.shards[0].answer_handshake = False
            running.shards[0].die()
            while running.router.links[0].state != "handshake":
                await asyncio.sleep(0.005)
            executed = len(running.shards[1].executed)
            assert (await ask(client, "GET", dead)).code == "CLUSTERDOWN"
            running.router.shard_is(0, "down", "exited with status 1")
            assert "exited with status 1" in (await ask(client, "GET", dead)).message
            assert (await ask(client, "DEL", dead, alive)).code == "CLUSTERDOWN"
            assert (await ask(client, "DBSIZE")).code == "CLUSTERDOWN"
            assert len(running.shards[1].executed) == executed
            running.shards[0].answer_handshake = True
            running.shards[0].die()
            await asyncio.wait_for(running.router.all_up(), 2)
            assert await ask(client, "GET", dead) is None

    run(test)


def test_a_draining_shard_answers_what_it_was_sent() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            draining, other = running.shards
            first, second = running.key_on(0), running.key_on(1)
            client = await running.connect()
            for round in range(20):
                client[1].write((resp("SET", first, str(round)) + resp("SET", second, "x")) * 50)
                if round == 10:
                    draining.drain()
                answers = await replies(client[0], 100)
                refused = [answer for answer in answers[0::2] if answer != "OK"]
                assert all(answer.code == "CLUSTERDOWN" for answer in refused), refused
                assert answers[1::2] == ["OK"] * 50
            executed = sum(1 for name, _ in draining.executed if name == "set")
            await asyncio.wait_for(running.router.all_up(), 2)
            assert await ask(client, "SET", first, "again") == "OK"
            assert running.router.links[0].reconnects == 2
            assert executed >= 500
            assert len(other.executed) == 1000

    run(test)


def test_a_split_write_that_lost_a_part_is_uncertain() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            client = await running.connect()
            held, quick = running.key_on(0), running.key_on(1)
            running.shards[0].hold = True
            client[1].write(resp("MSET", held, "1", quick, "2"))
            while not running.shards[0].executed or not running.shards[1].executed:
                await asyncio.sleep(0.005)
            running.shards[0].hold = False
            running.shards[0].die()
            (answer,) = await replies(client[0], 1)
            assert answer.code == "UNCERTAIN"
            assert "shard 1" in answer.message and "shard 0" in answer.message

    run(test)


def test_half_close_answers_everything_then_ends() -> None:
    async def test() -> None:
        async with cluster(3) as running:
            reader, writer = await running.connect()
            writer.write(b"".join(resp("SET", f"k{i}", "v") for i in range(1000)))
            writer.write_eof()
            data = await reader.read(-1)
            assert data == b"+OK\r\n" * 1000

    run(test)


def test_a_vanished_client_is_cancelled() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            running.shards[0].hold = True
            vanishing = socket.create_connection(("127.0.0.1", running.port))
            vanishing.sendall(resp("GET", "a"))
            while not running.shards[0].executed:
                await asyncio.sleep(0.005)
            id = running.router.sessions()[0].id
            # A reset: an orderly close would be a half-close, which is still answered.
            vanishing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            vanishing.close()
            while not running.shards[0].cancelled:
                await asyncio.sleep(0.005)
            assert running.shards[0].cancelled == [id]
            other = await running.connect()
            other[1].write(resp("SET", "a", "1"))
            running.shards[0].release()
            assert await replies(other[0], 1) == ["OK"]

    run(test)


def test_client_reply_off_and_skip() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            reader, writer = await running.connect()
            writer.write(
                resp("CLIENT", "REPLY", "OFF")
                + resp("SET", "a", "1")
                + resp("PING")
                + resp("CLIENT", "REPLY", "ON")
                + resp("GET", "a")
                + resp("CLIENT", "REPLY", "SKIP")
                + resp("GET", "a")
                + resp("ECHO", "end")
            )
            assert await replies(reader, 3) == ["OK", b"1", b"end"]

    run(test)


def test_select_moves_later_commands_only() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            reader, writer = await running.connect()
            writer.write(resp("SET", "a", "0") + resp("SELECT", "1") + resp("GET", "a") + resp("SELECT", "0"))
            writer.write(resp("GET", "a") + b"PING\r\n" + b"\r\n" + resp("QUIT") + resp("PING"))
            assert await replies(reader, 7) == ["OK", "OK", None, "OK", b"0", "PONG", "OK"]
            assert await reader.read(-1) == b""

    run(test)


def test_timeouts_reap_silent_strangers() -> None:
    async def test() -> None:
        async with cluster(1, preauth_timeout_ms=100) as running:
            reader, writer = await running.connect()
            writer.write(b"*")
            assert await asyncio.wait_for(reader.read(-1), 20) == b""

    run(test)


def test_drain_answers_what_is_in_flight() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            running.shards[0].hold = True
            reader, writer = await running.connect()
            writer.write(resp("SET", "a", "1"))
            while not running.shards[0].executed:
                await asyncio.sleep(0.005)
            draining = asyncio.create_task(running.router.drain(20))
            await asyncio.sleep(0.05)
            running.shards[0].release()
            assert await reader.read(-1) == b"+OK\r\n"
            await asyncio.wait_for(draining, 20)

    run(test)


def test_python_asks_shards() -> None:
    async def test() -> None:
        async with cluster(3) as running:
            router = running.router
            shard = router.shard_of(b"k")
            assert await router.call(shard, "set", [b"k", b"v"], db=2) == "OK"
            assert await router.call(shard, "get", [b"k"], db=2) == b"v"
            assert await router.call(shard, "get", [b"k"]) is None
            assert await router.call_all("dbsize", [], db=2) == [int(i == shard) for i in range(3)]
            with pytest.raises(CommandError, match="does not know"):
                await router.call(0, "ttl", [b"k"])
            running.shards[1].answer_handshake = False
            running.shards[1].die()
            while running.router.links[1].state == "up":
                await asyncio.sleep(0.005)
            with pytest.raises(CommandError, match="CLUSTERDOWN shard 1 is down"):
                await router.call_all("dbsize", [])

    run(test)


def test_statistics_count_and_reset() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            client = await running.connect()
            await ask(client, "PING")
            await ask(client, "SET", "a", "1")
            found = running.router.statistics()
            assert (found["commands"], found["connections_current"], found["connections_accepted"]) == (2, 1, 1)
            assert found["local_calls"]["ping"][0] == 1
            assert found["bytes_in"] == len(resp("PING") + resp("SET", "a", "1"))
            running.router.reset_statistics()
            assert running.router.statistics()["bytes_in"] == 0
            await ask(client, "PING")
            found = running.router.statistics()
            assert (found["commands"], found["bytes_in"]) == (1, len(resp("PING")))

    run(test)


def test_a_handler_that_fails_costs_one_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(router: Router, session: Any, *args: bytes) -> None:
        raise ZeroDivisionError

    async def broken_later(router: Router, session: Any, *args: bytes) -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    async def test() -> None:
        async with cluster(2) as running:
            reader, writer = await running.connect()
            writer.write(resp("SET", "a", "1") + resp("ECHO", "x") + resp("TIME") + resp("GET", "a"))
            error = CommandError("ERR internal error")
            assert await replies(reader, 4) == ["OK", error, error, b"1"]

    monkeypatch.setitem(registry.LOCALS, "echo", broken)
    monkeypatch.setitem(registry.LOCALS, "time", broken_later)
    run(test)


def test_a_dangling_key_is_refused_whatever_its_shard() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            client = await running.connect()
            for name in ("mset", "msetnx"):
                error = CommandError(f"ERR wrong number of arguments for '{name}' command")
                assert await ask(client, name, running.key_on(0), "1", running.key_on(1)) == error

    run(test)


def test_pushes_and_expired_runs() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            client = await running.connect()
            await ask(client, "SET", "a", "1")
            (session,) = running.router.sessions()
            running.shards[0].push(session.id, b">2\r\n+message\r\n:1\r\n")
            assert list((await replies(client[0], 1))[0]) == ["message", 1]
            running.shards[0].push(session.id + 1, b">1\r\n+nobody\r\n")
            running.shards[0].expired = True
            assert (await ask(client, "GET", "a")).code == "TIMEOUT"
            running.shards[0].expired = False
            assert await ask(client, "GET", "a") == b"1"

    run(test)


def test_nonsense_from_a_shard_costs_the_link_only() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            client = await running.connect()
            bad, good = running.key_on(0), running.key_on(1)
            for nonsense in (
                b"\x05\0\0\0\x63abcd",
                b"\xff\xff\xff\xff\x09",
                struct.pack("<IBBHIQI", 20, 5, 0, 0, 1, 0, 0),
            ):
                before = running.router.links[0].reconnects
                running.shards[0].connections[0].transport.write(nonsense)
                while running.router.links[0].reconnects == before:
                    await asyncio.sleep(0.005)
                await asyncio.wait_for(running.router.all_up(), 20)
                assert await ask(client, "SET", good, "1") == "OK"
                assert await ask(client, "SET", bad, "1") == "OK"
            assert running.router.links[0].reconnects == 4

    run(test)
