"""The shard's end of a link, in process: handshake, runs in any chunks, limits of a tick, malformed input."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from kache.commands import BY_KEY, DIGEST
from kache.errors import CommandError
from kache.shard.engine.effects import Listener
from kache.shard.engine.engine import Context, Host, ShardReactor
from kache.shard.shard import Shard
from kache.slots import slot_of_key
from kache.wire import link as wire_link
from kache.wire.clock import Clock

BOOT_ID = 77
HELLO = struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION, 3, DIGEST, BOOT_ID, 0)
RESP2 = 2


def frame(name: str, *args: bytes) -> bytes:
    row = BY_KEY[name]
    slot = slot_of_key(args[0]) if args and row.keys else 0xFFFF
    body = struct.pack("<HHI", row.id, slot, len(args)) + b"".join(struct.pack("<I", len(arg)) + arg for arg in args)
    return struct.pack("<I", len(body)) + body


def run_of(
    frames: list[bytes], flags: int = 0, db: int = 0, session: int = 9, deadline: int = 0, dialect: int = RESP2,
    user: int = 1,
) -> bytes:  # fmt: skip
    body = b"".join(frames)
    header = struct.pack("<BBBBIQQQI", wire_link.RUN, dialect, db, flags, len(frames), session, deadline, 0, user)
    return struct.pack("<I", len(header) + len(body)) + header + body


class Peer:
    """The router's end, with the shard on the same loop."""

    def __init__(self, **limits: int) -> None:
        self.shard = Shard(now_ms=Clock().now())
        self.reactor = ShardReactor(asyncio.get_running_loop())
        self.host = Host(self.shard, self.reactor, DIGEST, BOOT_ID, 4242)
        loop = asyncio.get_running_loop()
        self.shard.blocking.start(Clock().now, lambda seconds, work: loop.call_later(seconds, self.host.perform, work))
        for name, value in limits.items():
            setattr(self.host, name, value)
        self.buffer = bytearray()
        self.sock = self.connect()

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.host.accept(theirs.detach())
        return ours

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def message(self) -> bytes:
        """The next message without its length; empty when the link was closed."""
        while True:
            if len(self.buffer) >= 4:
                length = int.from_bytes(self.buffer[:4], "little")
                if len(self.buffer) >= 4 + length:
                    found = bytes(self.buffer[4 : 4 + length])
                    del self.buffer[: 4 + length]
                    return found
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 20), 10)
            if not data:
                return b""
            self.buffer += data

    async def replies(self, count: int) -> list[bytes | int]:
        """That many replies; numbers stand for what is no reply (expired, deferred tokens)."""
        found: list[bytes | int] = []
        while len(found) < count:
            message = await self.message()
            if message[0] == wire_link.SLOW:
                # A slow machine makes slow commands.
                continue
            assert message[0] == wire_link.REPLY, message
            number, at = int.from_bytes(message[4:8], "little"), 16
            for _ in range(number):
                size = int.from_bytes(message[at : at + 4], "little")
                at += 4
                if size == wire_link.EXPIRED_REPLY:
                    found.append(-1)
                elif size in (wire_link.PARKED_REPLY, wire_link.BLOCKED_REPLY):
                    found.append(int.from_bytes(message[at : at + 8], "little"))
                    at += 8
                else:
                    found.append(message[at : at + size])
                    at += size
            assert at == len(message)
        return found

    async def greet(self) -> None:
        await self.send(HELLO)
        assert (await self.message())[0] == wire_link.HELLO_OK

    def close(self) -> None:
        self.sock.close()
        self.reactor.close()


def on_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def wrapper() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))

    wrapper.__name__ = test.__name__
    wrapper.__doc__ = test.__doc__
    return wrapper


@on_a_loop
async def test_the_handshake_says_who_is_there() -> None:
    peer = Peer()
    await peer.send(HELLO)
    assert await peer.message() == struct.pack("<BBHBQB", wire_link.HELLO_OK, wire_link.VERSION, 0, 0, 4242, 0)
    peer.close()


@pytest.mark.parametrize(
    "hello",
    [
        struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION + 1, 0, DIGEST, BOOT_ID, 0),
        struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION, 0, b"?" * 8, BOOT_ID, 0),
        struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION, 0, DIGEST, 1, 0),
    ],
)
def test_a_stranger_is_refused_with_the_reason(hello: bytes) -> None:
    @on_a_loop
    async def body() -> None:
        peer = Peer()
        await peer.send(hello + run_of([frame("set", b"k", b"v")]))
        answer = await peer.message()
        assert answer[0] == wire_link.HELLO_NO and len(answer) > 10
        assert await peer.message() == b"" and not peer.shard.keyspace.exists(b"k")
        peer.close()

    body()


def test_a_router_is_not_ahead_of_the_modules() -> None:
    """It would send numbers that this shard has not heard of, so it comes again; one that is behind does no harm."""

    @on_a_loop
    async def body() -> None:
        for epoch, kind in ((3, wire_link.HELLO_OK), (4, wire_link.HELLO_OK), (5, wire_link.HELLO_NO)):
            peer = Peer()
            peer.host.module_epoch = 4
            await peer.send(struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION, 0, DIGEST, BOOT_ID, epoch))
            answer = await peer.message()
            assert answer[0] == kind
            assert (kind == wire_link.HELLO_OK) or b"modules of epoch 4, not yet those of 5" in answer
            peer.close()

    body()


def script(draw: random.Random) -> tuple[bytes, list[bytes | int]]:
    """Runs of every sort and what they must be answered."""
    data, expected = b"", []
    for number in range(60):
        key, value = b"k%d" % draw.randrange(20), draw.randbytes(draw.randrange(60))
        frames = [frame("set", key, value), frame("get", key), frame("hset", b"h%d" % number, b"f", value)]
        data += run_of(frames, flags=draw.choice((0, wire_link.ATOMIC)))
        expected += [b"+OK\r\n", b"$%d\r\n%s\r\n" % (len(value), value), b":1\r\n"]
        if draw.random() < 0.2:
            data += run_of([frame("incr", b"never")] * 2, deadline=5)
            expected += [-1, -1]
    return data, expected


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_replies_do_not_depend_on_chunks(chunk: int) -> None:
    @on_a_loop
    async def body() -> None:
        peer = Peer()
        await peer.greet()
        data, expected = script(random.Random(chunk))
        for at in range(0, len(data), chunk):
            await peer.send(data[at : at + chunk])
            if chunk < 1000:
                await asyncio.sleep(0)
        assert await peer.replies(len(expected)) == expected
        assert not peer.shard.keyspace.exists(b"never") and peer.shard.in_flight == 0
        peer.shard.store.check()
        peer.close()

    body()


def busy_frames(draw: random.Random, count: int) -> list[tuple[int, bytes]]:
    """Commands that write, delete, move and expire a few keys of two databases, each with its database."""
    frames: list[tuple[int, bytes]] = []
    for _ in range(count):
        key, other, value = b"k%d" % draw.randrange(8), b"k%d" % draw.randrange(8), b"v" * draw.randrange(200)
        frames.append(
            (
                draw.randrange(2),
                draw.choice(
                    [
                        frame("set", key, value),
                        frame("set", key, value),
                        frame("set", key, value, b"px", b"100000"),
                        frame("get", key),
                        frame("get", key),
                        frame("mget", key, other),
                        frame("append", key, value),
                        frame("del", key),
                        frame("del", key, other, key),
                        frame("incr", key),
                        frame("expire", key, b"100"),
                        frame("expire", key, b"-1"),
                        frame("persist", key),
                        frame("hset", key, other, value),
                        frame("rename", key, other),
                        frame("getdel", key),
                        frame("copy", key, other, b"REPLACE"),
                        frame("move", key, b"1"),
                        frame("swapdb", b"0", b"1"),
                        *([frame("flushdb"), frame("flushall")] if draw.random() < 0.2 else []),
                    ]
                ),
            )
        )
    return frames


@pytest.mark.parametrize("seed", range(8))
def test_what_is_executed_together_is_answered_as_if_one_by_one(seed: int) -> None:
    """A shard looks ahead at the entries of the next commands; whatever the earlier ones do to them, it never shows."""

    @on_a_loop
    async def body() -> None:
        draw = random.Random(seed)
        frames = busy_frames(draw, 400)
        together, single = Peer(), Peer()
        for peer in (together, single):
            peer.shard.set_time(0)
            await peer.greet()
        data, at = b"", 0
        while at < len(frames):
            db = frames[at][0]
            length = draw.randint(1, 40)
            data += run_of([one for _, one in frames[at : at + length]], db=db)
            frames[at : at + length] = [(db, one) for _, one in frames[at : at + length]]
            at += length
        await together.send(data)
        found = await together.replies(len(frames))
        for number, (db, one) in enumerate(frames):
            await single.send(run_of([one], db=db))
            assert (await single.replies(1))[0] == found[number], (number, one)
        for peer in (together, single):
            peer.shard.store.check()
            peer.close()

    body()


@on_a_loop
async def test_an_entry_that_was_looked_at_may_be_gone_when_its_command_comes() -> None:
    # Values above malloc's largest threshold have pages of their own: whoever reads them when freed does not survive it.
    peer = Peer()
    await peer.greet()
    large = b"x" * (33 * 1024 * 1024)
    goes = [
        frame("del", b"k"),
        frame("set", b"k", b"small"),
        frame("flushall"),
    ]
    for gone in goes:
        await peer.send(run_of([frame("set", b"k", large)]))
        assert await peer.replies(1) == [b"+OK\r\n"]
        await peer.send(run_of([frame("exists", b"k"), gone, frame("exists", b"k"), frame("strlen", b"k")]))
        found = await peer.replies(4)
        kept = gone == goes[1]
        assert (found[0], found[2], found[3]) == (b":1\r\n", b":%d\r\n" % kept, b":%d\r\n" % (5 * kept)), gone
    peer.shard.store.check()
    peer.close()


@on_a_loop
async def test_an_atomic_run_executes_only_when_it_is_whole() -> None:
    peer = Peer()
    await peer.greet()
    data = run_of([frame("set", b"a", b"1"), frame("set", b"b", b"2")], flags=wire_link.ATOMIC)
    await peer.send(data[:-1])
    await asyncio.sleep(0.05)
    assert not peer.shard.keyspace.exists(b"a")
    await peer.send(data[-1:])
    assert await peer.replies(2) == [b"+OK\r\n"] * 2
    plain = run_of([frame("set", b"c", b"1"), frame("set", b"d", b"2")])
    await peer.send(plain[:-1])
    assert await peer.replies(1) == [b"+OK\r\n"]
    assert peer.shard.keyspace.exists(b"c") and not peer.shard.keyspace.exists(b"d")
    peer.close()


@on_a_loop
async def test_a_tick_ends_at_its_limits_and_other_links_have_their_turn() -> None:
    peer = Peer(tick_bytes=64 << 10)
    await peer.greet()
    await peer.send(run_of([frame("set", b"big", b"x" * 10_000)]))
    await peer.replies(1)
    other = Peer.__new__(Peer)
    other.buffer, other.sock = bytearray(), peer.connect()
    await other.send(HELLO)
    await other.message()
    await asyncio.gather(
        peer.send(run_of([frame("get", b"big")] * 300)),
        other.send(run_of([frame("set", b"mine", b"1"), frame("get", b"mine")])),
    )
    ours, theirs = await asyncio.gather(peer.replies(300), other.replies(2))
    assert theirs == [b"+OK\r\n", b"$1\r\n1\r\n"]
    assert ours == [b"$10000\r\n" + b"x" * 10_000 + b"\r\n"] * 300
    peer.close()


@on_a_loop
async def test_a_router_that_does_not_read_is_not_read() -> None:
    peer = Peer(unsent_limit=1 << 20, tick_bytes=1 << 20)
    await peer.greet()
    await peer.send(run_of([frame("set", b"big", b"x" * 100_000)]))
    await peer.replies(1)
    await peer.send(run_of([frame("get", b"big")] * 400))
    await asyncio.sleep(0.3)
    assert peer.shard.executed < 60
    assert len(await peer.replies(400)) == 400
    peer.close()


@on_a_loop
async def test_a_deferred_reply_comes_later_and_is_forgotten_with_its_session() -> None:
    peer = Peer()
    await peer.greet()
    peer.shard.replace_handler("type", lambda ctx, key: ctx.defer())
    await peer.send(run_of([frame("type", b"a"), frame("set", b"a", b"1"), frame("type", b"b")], session=5))
    first, stored, second = await peer.replies(3)
    assert stored == b"+OK\r\n" and isinstance(first, int) and isinstance(second, int)
    assert peer.shard.deferred_count == 2
    peer.shard.answer_deferred(first, [b"x"])
    message = await peer.message()
    assert message == struct.pack("<IIQ", wire_link.DEFERRED, 0, first) + b"*1\r\n$1\r\nx\r\n"
    await peer.send(struct.pack("<IIIQ", 16, wire_link.CANCEL, 0, 5))
    await peer.send(run_of([frame("get", b"a")]))
    await peer.replies(1)
    assert peer.shard.deferred_count == 0
    peer.shard.answer_deferred(second, b"late")
    peer.close()


@on_a_loop
async def test_what_was_sent_before_a_goodbye_is_answered() -> None:
    peer = Peer(unsent_limit=1 << 20, tick_bytes=1 << 19)
    await peer.greet()
    await peer.send(run_of([frame("set", b"big", b"x" * 50_000)]))
    await peer.replies(1)
    # More than a tick has time for; and what makes the link look whether it is done is not the last of it.
    cancel = struct.pack("<IIIQQ", 24, wire_link.CANCEL, 0, 9, 12345)
    await peer.send(run_of([frame("get", b"big")] * 200) + cancel + run_of([frame("set", b"last", b"1")]))
    peer.sock.shutdown(socket.SHUT_WR)
    assert len(await peer.replies(201)) == 201
    assert await peer.message() == b"" and peer.shard.keyspace.exists(b"last")
    assert peer.host.links == []
    peer.close()


GOOD = run_of([frame("get", b"k")])


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IB", 3, 99) + b"abc",
        struct.pack("<IB", 1 << 20, wire_link.CANCEL),
        struct.pack("<IB", 10, wire_link.RUN) + b"\0" * 40,
        struct.pack("<I", 36) + GOOD[4:8] + struct.pack("<I", 1000) + GOOD[12:40],
        GOOD[:6] + b"\x20" + GOOD[7:],
        GOOD[:5] + b"\x09" + GOOD[6:],
        GOOD[:40] + struct.pack("<I", 2**31) + GOOD[44:],
        GOOD[:48] + struct.pack("<I", 2**31) + GOOD[52:],
        GOOD[:52] + struct.pack("<I", 2**31) + GOOD[56:],
        GOOD[:52] + struct.pack("<I", 0) + GOOD[56:],
        struct.pack("<I", len(GOOD) + 4) + GOOD[4:] + b"tail" * 2,
        HELLO,
    ],
)
def test_malformed_input_closes_the_link_and_nothing_else(data: bytes) -> None:
    @on_a_loop
    async def body() -> None:
        peer = Peer()
        await peer.greet()
        await peer.send(data)
        while await peer.message():
            pass
        assert peer.host.links == [] and peer.shard.in_flight == 0
        peer.sock = peer.connect()
        await peer.greet()
        await peer.send(GOOD)
        assert await peer.replies(1) == [b"$-1\r\n"]
        peer.close()

    body()


def test_a_script_of_nobody_is_refused() -> None:
    """A router that forgets to say whose a script is must not give it all rights."""

    @on_a_loop
    async def body() -> None:
        peer = Peer()
        await peer.greet()
        script = frame("eval", b"return redis.call('get', 'k')", b"0")
        await peer.send(run_of([script, frame("get", b"k")], user=0))
        refused, plain = await peer.replies(2)
        assert refused == b"-NOPERM it is not known which user runs the script\r\n"
        assert plain == b"$-1\r\n"
        await peer.send(run_of([script], user=1))
        assert await peer.replies(1) == [b"$-1\r\n"]
        peer.close()

    body()


def slots_are_right(data: bytes) -> Iterator[bool]:
    """A router that says the wrong slot would hide keys from itself: that is not what is tried here."""
    at = wire_link.RUN_HEADER_BYTES
    while at + 16 <= len(data):
        size, _, slot, _, key_size = struct.unpack_from("<IHHII", data, at)
        yield slot in (slot_of_key(data[at + 16 : at + 16 + key_size]), 0xFFFF)
        at += 4 + size


def test_random_bytes_never_break_the_shard() -> None:
    @on_a_loop
    async def body() -> None:
        peer = Peer()
        draw = random.Random(21)
        for _ in range(600):
            peer.sock, peer.buffer = peer.connect(), bytearray()
            await peer.greet()
            data = bytearray(run_of([frame("set", b"k", b"v"), frame("mget", b"k", b"l"), frame("get", b"k")]))
            for _ in range(draw.randrange(1, 6)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            if not all(slots_are_right(bytes(data))):
                continue
            await peer.send(bytes(data))
            peer.sock.shutdown(socket.SHUT_WR)
            while await peer.message():
                pass
            peer.sock.close()
        peer.shard.store.check()
        assert peer.shard.in_flight == 0
        peer.close()

    body()


PUSHED = b">1\r\n+hello\r\n"


async def kinds_until(peer: Peer, replies: int) -> list[tuple[int, Any]]:
    """Messages until that many replies are here: (REPLY, [reply …]) and (kind, body) of others."""
    found: list[tuple[int, Any]] = []
    count = 0
    while count < replies:
        message = await peer.message()
        if message[0] != wire_link.REPLY:
            found.append((message[0], message[16:]))
            continue
        number, at = int.from_bytes(message[4:8], "little"), 16
        inside = []
        for _ in range(number):
            size = int.from_bytes(message[at : at + 4], "little")
            inside.append(message[at + 4 : at + 4 + size])
            at += 4 + size
        assert at == len(message)
        count += number
        found.append((wire_link.REPLY, inside))
    return found


@on_a_loop
async def test_a_push_never_lands_inside_a_reply() -> None:
    """What a command sends to a session of its own link leaves between two REPLY messages, behind its own reply."""
    peer = Peer()
    await peer.greet()

    def push(ctx: Context, key: bytes) -> bytes:
        assert ctx.link is not None
        ctx.link.send_push(9, PUSHED)
        return key

    peer.shard.replace_handler("type", push)
    frames = [frame("set", b"a", b"1"), frame("type", b"a"), frame("type", b"b"), frame("get", b"a")]
    await peer.send(run_of(frames))
    assert await kinds_until(peer, 4) == [
        (wire_link.REPLY, [b"+OK\r\n", b"$1\r\na\r\n"]),
        (wire_link.PUSH, PUSHED),
        (wire_link.REPLY, [b"$1\r\nb\r\n"]),
        (wire_link.PUSH, PUSHED),
        (wire_link.REPLY, [b"$1\r\n1\r\n"]),
    ]
    peer.close()


@on_a_loop
async def test_what_an_eviction_causes_comes_before_the_reply() -> None:
    peer = Peer()
    await peer.greet()
    store = peer.shard.store
    for number in range(20):
        peer.shard.execute([b"SET", b"k%d" % number, bytes(500)])
    (link,) = peer.host.links
    store.effects.add_observer(Listener(lambda event, *_: link.send_push(9, event.encode())), everything=True)
    peer.shard.evictor.set_policy("allkeys-random")
    peer.shard.set_maxmemory(store.used_memory - 100)
    await peer.send(run_of([frame("get", b"none"), frame("append", b"fresh", b"1")]))
    found = await kinds_until(peer, 2)
    assert found[0] == (wire_link.REPLY, [b"$-1\r\n"])
    assert found[1] == (wire_link.PUSH, b"evicted")
    assert found[-1] == (wire_link.REPLY, [b":1\r\n"])
    assert [await peer.message(), await peer.message()] == [wire_push(b"new"), wire_push(b"append")]
    peer.close()


def wire_push(body: bytes) -> bytes:
    return struct.pack("<B3xIQ", wire_link.PUSH, 0, 9) + body


@on_a_loop
async def test_one_deferred_reply_is_cancelled_alone() -> None:
    peer = Peer()
    await peer.greet()
    peer.shard.replace_handler("type", lambda ctx, key: ctx.defer())
    await peer.send(run_of([frame("type", b"a"), frame("type", b"b")], session=5))
    first, second = await peer.replies(2)
    assert isinstance(first, int) and isinstance(second, int)
    await peer.send(struct.pack("<IIIQQ", 24, wire_link.CANCEL, 0, 5, first))
    await peer.send(run_of([frame("get", b"a")]))
    await peer.replies(1)
    assert peer.shard.deferred_count == 1
    peer.shard.answer_deferred(first, b"nobody waits for it")
    peer.shard.answer_deferred(second, b"x")
    message = await peer.message()
    assert message == struct.pack("<IIQ", wire_link.DEFERRED, 0, second) + b"$1\r\nx\r\n"
    peer.close()


@on_a_loop
async def test_a_goodbye_waits_for_what_is_parked_but_not_for_what_is_blocked() -> None:
    for blocked in (False, True):
        peer = Peer()
        await peer.greet()
        peer.shard.replace_handler("type", lambda ctx, key, blocked=blocked: ctx.defer(blocked))
        await peer.send(run_of([frame("type", b"a")], session=5))
        (token,) = await peer.replies(1)
        assert isinstance(token, int)
        peer.sock.shutdown(socket.SHUT_WR)
        if not blocked:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(peer.message(), 0.05)
            peer.shard.answer_deferred(token, b"x")
            assert (await peer.message())[0] == wire_link.DEFERRED
        assert await peer.message() == b""
        assert peer.shard.deferred_count == 0
        peer.close()


@on_a_loop
async def test_ten_thousand_deferred_replies_are_forgotten_at_once() -> None:
    peer = Peer()
    await peer.greet()
    peer.shard.replace_handler("type", lambda ctx, key: ctx.defer())
    for session in range(100):
        await peer.send(run_of([frame("type", b"a")] * 100, session=session))
        await peer.replies(100)
    assert peer.shard.deferred_count == 10_000
    (link,) = peer.host.links
    gone = peer.shard.forget_session(link, 50)
    assert len(gone) == 100 and peer.shard.deferred_count == 9_900
    assert len(peer.shard.forget_session(link, None)) == 9_900
    assert peer.shard.forget_session(link, 7) == []
    peer.close()


@on_a_loop
async def test_a_command_inside_another_leaves_its_run_as_it_was() -> None:
    """Whoever executes for somebody else has a context of its own; the outer run goes on in its database and dialect."""
    peer = Peer()
    await peer.greet()
    elsewhere = Context(peer.shard, 3, 5)
    elsewhere.session = 77

    def serve(ctx: Context, key: bytes) -> list[object]:
        inside = elsewhere.call("set", key, b"elsewhere")
        again = ctx.call("get", key)
        return [ctx.dialect, ctx.keys.db, ctx.session, inside, again]

    peer.shard.replace_handler("type", serve)
    await peer.send(run_of([frame("set", b"k", b"here"), frame("type", b"k"), frame("get", b"k")], db=1))
    assert await peer.replies(3) == [b"+OK\r\n", b"*5\r\n:2\r\n:1\r\n:9\r\n+OK\r\n$4\r\nhere\r\n", b"$4\r\nhere\r\n"]
    assert elsewhere.keys.string_get(b"k") == b"elsewhere"
    peer.close()


@on_a_loop
async def test_a_run_names_its_transaction() -> None:
    peer = Peer()
    await peer.greet()
    seen: list[int] = []
    peer.shard.replace_handler("type", lambda ctx, key: seen.append(ctx.transaction))
    run = bytearray(run_of([frame("type", b"k")]))
    run[28:36] = (1 << 48 | 5).to_bytes(8, "little")
    await peer.send(bytes(run))
    await peer.replies(1)
    assert seen == [1 << 48 | 5]
    peer.close()


def test_commands_inside_pass_the_same_point() -> None:
    shard = Shard(now_ms=1)
    ctx = Context(shard)
    with pytest.raises(CommandError, match="wrong number of arguments"):
        ctx.call("get")
    with pytest.raises(CommandError, match="unknown command 'nonsense'"):
        ctx.call("nonsense")
    with pytest.raises(CommandError, match="WRONGTYPE"):
        ctx.call("set", b"k", b"v")
        ctx.call("lpush", b"k", b"v")
    shard.loading = True
    with pytest.raises(CommandError, match="LOADING"):
        ctx.call("get", b"k")
    shard.loading = False
    shard.set_maxmemory(1)
    with pytest.raises(CommandError, match="OOM"):
        ctx.call("set", b"k", b"v")
    assert ctx.call_in_room("set", b"k", b"v") == "OK"
    counts = {key: (calls, rejected, failed) for key, calls, _, rejected, failed, _ in shard.command_counts()}
    assert counts["get"] == (0, 2, 0) and counts["set"] == (2, 1, 0) and counts["lpush"] == (1, 0, 1)
