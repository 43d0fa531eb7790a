"""Clients that wait on one shard: who is served, with what, in which order, and where it goes when nobody is there."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections import deque
from typing import Any

import pytest
from test_shard_link import Peer, frame, on_a_loop, run_of

from kache.replies import NULL_ARRAY
from kache.shard.commands.dump import dump_value
from kache.shard.shard import Shard
from kache.slots import slot_of_key
from kache.wire import link as wire_link
from kache.wire.claims import ROUTER, Claims
from kache.wire.codec import decode_reply

RESP3 = 3
BLOCKED, DEFERRED, RETRY = "blocked", "deferred", "retry"


class Router(Peer):
    """A router's end whose runs may wait."""

    def __init__(self, claims: Claims | None = None, index: int = 0) -> None:
        super().__init__()
        self.shard.index = index
        self.shard.blocking.claims = claims

    async def events(self) -> list[Any]:
        """What the next message says: replies, (BLOCKED, token), (DEFERRED, token, reply), (RETRY, token)."""
        message = await self.message()
        if message[0] == wire_link.SLOW:
            return await self.events()
        if message[0] == wire_link.DEFERRED:
            return [(DEFERRED, int.from_bytes(message[8:16], "little"), message[16:])]
        if message[0] == wire_link.RETRY:
            return [(RETRY, int.from_bytes(message[8:16], "little"))]
        assert message[0] == wire_link.REPLY
        found: list[Any] = []
        at = 16
        for _ in range(int.from_bytes(message[4:8], "little")):
            (size,) = struct.unpack_from("<I", message, at)
            if size == wire_link.BLOCKED_REPLY:
                found.append((BLOCKED, *struct.unpack_from("<Q", message, at + 4)))
                at += 12
            else:
                found.append(message[at + 4 : at + 4 + size])
                at += 4 + size
        return found

    async def run(self, *frames: bytes, count: int = 0, **options: Any) -> list[Any]:
        """The events behind a run: a reply for each frame and `count` others."""
        await self.send(run_of(list(frames), **options))
        found: list[Any] = []
        while len(found) < len(frames) + count:
            found += await self.events()
        return found

    async def wait(self, name: str, *args: bytes, **options: Any) -> int:
        """Has a command wait; its token."""
        ((kind, token),) = await self.run(frame(name, *args), **options)
        assert kind == BLOCKED
        return int(token)

    async def word(self, kind: int, token: int, how: int = 0) -> None:
        await self.send(struct.pack("<IIIQ", 16, kind, how, token))

    async def ask(self, *frames: bytes, **options: Any) -> list[Any]:
        """Decoded replies of a run that nothing else comes with."""
        return [decode_reply(reply)[0] for reply in await self.run(*frames, **options)]


async def router(**options: Any) -> Router:
    made = Router(**options)
    await made.greet()
    return made


@on_a_loop
async def test_a_waiter_is_served_behind_the_frame_and_before_the_next() -> None:
    peer = await router()
    token = await peer.wait("blpop", b"k", b"0", session=1)
    found = await peer.run(frame("lpush", b"k", b"a", b"b", b"c"), frame("lpop", b"k"), session=2, count=1)
    assert found == [b":3\r\n", (DEFERRED, token, b"*2\r\n$1\r\nk\r\n$1\r\nc\r\n"), b"$1\r\nb\r\n"]
    assert len(peer.shard.blocking) == 0 and peer.shard.deferred_count == 0
    peer.close()


@on_a_loop
async def test_a_waiter_is_served_behind_an_atomic_run_as_a_whole() -> None:
    peer = await router()
    token = await peer.wait("blpop", b"k", b"0", session=1)
    run = [frame("rpush", b"k", b"a"), frame("lpop", b"k")]
    assert await peer.run(*run, session=2, flags=wire_link.ATOMIC) == [b":1\r\n", b"$1\r\na\r\n"]
    run = [frame("rpush", b"k", b"a"), frame("del", b"k"), frame("rpush", b"k", b"b")]
    found = await peer.run(*run, session=2, flags=wire_link.ATOMIC, count=1)
    assert found == [b":1\r\n", b":1\r\n", b":1\r\n", (DEFERRED, token, b"*2\r\n$1\r\nk\r\n$1\r\nb\r\n")]
    peer.close()


@on_a_loop
async def test_nothing_waits_inside_an_atomic_run() -> None:
    peer = await router()
    frames = [
        frame("blpop", b"a", b"b", b"0"),
        frame("bzpopmin", b"a", b"0"),
        frame("blmpop", b"0", b"1", b"a", b"left"),
        frame("blmove", b"a", b"b", b"left", b"left", b"0"),
        frame("brpoplpush", b"a", b"b", b"0"),
    ]
    assert await peer.run(*frames, flags=wire_link.ATOMIC) == [b"*-1\r\n"] * 3 + [b"$-1\r\n"] * 2
    assert len(peer.shard.blocking) == 0
    peer.close()


@on_a_loop
async def test_waiters_are_served_in_their_order_whatever_their_sessions_and_keys() -> None:
    peer = await router()
    first = await peer.wait("blpop", b"a", b"b", b"0", session=1)
    second = await peer.wait("brpop", b"b", b"b", b"0", session=2)
    third = await peer.wait("blmpop", b"0", b"2", b"b", b"a", b"right", b"count", b"9", session=3)
    peer.shard.blocking.check()
    found = await peer.run(frame("rpush", b"b", b"1", b"2", b"3", b"4"), session=4, count=3)
    assert found[1:] == [
        (DEFERRED, first, b"*2\r\n$1\r\nb\r\n$1\r\n1\r\n"),
        (DEFERRED, second, b"*2\r\n$1\r\nb\r\n$1\r\n4\r\n"),
        (DEFERRED, third, b"*2\r\n$1\r\nb\r\n*2\r\n$1\r\n3\r\n$1\r\n2\r\n"),
    ]
    peer.shard.blocking.check()
    assert not peer.shard.keyspace.exists(b"b")
    peer.close()


@on_a_loop
async def test_keys_that_become_ready_together_are_taken_in_the_order_of_the_command() -> None:
    peer = await router()
    token = await peer.wait("blpop", b"a", b"b", b"0", session=1)
    run = [frame("rpush", b"b", b"2"), frame("rpush", b"a", b"1")]
    found = await peer.run(*run, session=2, flags=wire_link.ATOMIC, count=1)
    assert found[2] == (DEFERRED, token, b"*2\r\n$1\r\na\r\n$1\r\n1\r\n")
    peer.close()


@on_a_loop
async def test_a_chain_of_moves_is_served_to_its_end() -> None:
    peer = await router()
    first = await peer.wait("blmove", b"a", b"b", b"left", b"right", b"0", session=1)
    second = await peer.wait("brpoplpush", b"b", b"c", b"0", session=2)
    third = await peer.wait("blpop", b"c", b"0", session=3)
    found = await peer.run(frame("rpush", b"a", b"x"), session=4, count=3)
    assert found == [
        b":1\r\n",
        (DEFERRED, first, b"$1\r\nx\r\n"),
        (DEFERRED, second, b"$1\r\nx\r\n"),
        (DEFERRED, third, b"*2\r\n$1\r\nc\r\n$1\r\nx\r\n"),
    ]
    assert not any(peer.shard.keyspace.exists(key) for key in (b"a", b"b", b"c"))
    peer.close()


@on_a_loop
async def test_a_move_onto_another_type_fails_alone() -> None:
    peer = await router()
    first = await peer.wait("blmove", b"a", b"s", b"left", b"right", b"0", session=1)
    second = await peer.wait("blpop", b"a", b"0", session=2)
    found = await peer.run(frame("set", b"s", b"x"), frame("rpush", b"a", b"1"), session=3, count=2)
    assert found[2][:2] == (DEFERRED, first) and found[2][2].startswith(b"-WRONGTYPE")
    assert found[3] == (DEFERRED, second, b"*2\r\n$1\r\na\r\n$1\r\n1\r\n")
    peer.close()


@on_a_loop
async def test_a_waiter_has_its_own_dialect_and_database() -> None:
    peer = await router()
    three = await peer.wait("bzpopmin", b"z", b"0", session=1, dialect=RESP3, db=3)
    two = await peer.wait("bzpopmax", b"z", b"0", session=2, db=3)
    assert await peer.run(frame("zadd", b"z", b"1", b"other"), session=3) == [b":1\r\n"]
    found = await peer.run(frame("zadd", b"z", b"1.5", b"a", b"2", b"b"), session=3, db=3, count=2, dialect=RESP3)
    assert found[1:] == [
        (DEFERRED, three, b"*3\r\n$1\r\nz\r\n$1\r\na\r\n,1.5\r\n"),
        (DEFERRED, two, b"*3\r\n$1\r\nz\r\n$1\r\nb\r\n$1\r\n2\r\n"),
    ]
    assert await peer.ask(frame("zcard", b"z"), session=3) == [1]
    peer.close()


def _image(*elements: bytes) -> bytes:
    shard = Shard()
    shard.execute([b"rpush", b"l", *elements])
    value = dump_value(shard.keyspace, b"l")
    assert value is not None
    return value


WAKERS = [
    [frame("rpush", b"k", b"x")],
    [frame("lpush", b"k", b"x")],
    [frame("rpush", b"o", b"x"), frame("rename", b"o", b"k")],
    [frame("rpush", b"o", b"x"), frame("copy", b"o", b"k")],
    [frame("rpush", b"o", b"x"), frame("lmove", b"o", b"k", b"left", b"left")],
    [frame("restore", b"k", b"0", _image(b"x"))],
    [frame("sadd", b"s", b"x"), frame("sort", b"s", b"alpha", b"store", b"k")],
    [frame("set", b"k", b"text"), frame("del", b"k"), frame("rpush", b"k", b"x")],
    [frame("zadd", b"k", b"1", b"x"), frame("zrem", b"k", b"x"), frame("rpush", b"k", b"x")],
    [frame("set", b"k", b"text"), frame("flushdb"), frame("rpush", b"k", b"x")],
]


@pytest.mark.parametrize("frames", WAKERS)
def test_whatever_makes_a_list_wakes_who_waits(frames: list[bytes]) -> None:
    @on_a_loop
    async def body() -> None:
        peer = await router()
        token = await peer.wait("blpop", b"none", b"k", b"0", session=1)
        found = await peer.run(*frames, session=2, count=1)
        assert found[-1] == (DEFERRED, token, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")
        assert len(peer.shard.blocking) == 0
        peer.close()

    body()


@on_a_loop
async def test_another_database_that_takes_its_place_wakes_who_waits() -> None:
    peer = await router()
    token = await peer.wait("blpop", b"k", b"0", session=1)
    moved = await peer.wait("blpop", b"m", b"0", session=1, db=5)
    await peer.run(frame("rpush", b"k", b"x"), session=2, db=4)
    found = await peer.run(frame("swapdb", b"0", b"4"), session=2, count=1)
    assert found[1] == (DEFERRED, token, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")
    found = await peer.run(frame("rpush", b"m", b"y"), frame("move", b"m", b"5"), session=2, count=1)
    assert found[2] == (DEFERRED, moved, b"*2\r\n$1\r\nm\r\n$1\r\ny\r\n")
    peer.close()


@on_a_loop
async def test_what_expires_before_it_is_served_serves_nobody() -> None:
    peer = await router()
    await peer.wait("blpop", b"k", b"0", session=1)
    run = [frame("rpush", b"o", b"x"), frame("pexpireat", b"o", b"1"), frame("rename", b"o", b"k")]
    found = await peer.run(*run, session=2)
    assert found[2].startswith(b"-ERR no such key") and len(peer.shard.blocking) == 1
    peer.close()


@on_a_loop
async def test_waiting_ends_with_its_time() -> None:
    peer = await router()
    timeouts = [b"0.6", b"0.15", b"0.375", b"0.15"]
    began, tokens = [], []
    for session, timeout in enumerate(timeouts):
        began.append(time.monotonic())
        tokens.append(await peer.wait("blpop", b"k", timeout, session=session))
    await peer.wait("blpop", b"k", b"0", session=99)
    late = []
    for place in (1, 3, 2, 0):
        ((kind, token, reply),) = await peer.events()
        late.append(time.monotonic() - began[place] - float(timeouts[place]))
        assert (kind, token, reply) == (DEFERRED, tokens[place], b"*-1\r\n")
    # On a busy machine not each of them; but none is early.
    assert all(each > -0.002 for each in late) and min(late) < 0.02
    assert len(peer.shard.blocking) == 1
    peer.shard.blocking.check()
    peer.close()


@on_a_loop
async def test_who_is_gone_takes_nothing() -> None:
    peer = await router()
    one = await peer.wait("blpop", b"k", b"0", session=1)
    await peer.wait("blpop", b"k", b"0", session=2)
    last = await peer.wait("blpop", b"k", b"0.05", session=3)
    await peer.send(struct.pack("<IIIQQ", 24, wire_link.CANCEL, 0, 1, one))
    await peer.send(struct.pack("<IIIQ", 16, wire_link.CANCEL, 0, 2))
    found = await peer.run(frame("rpush", b"k", b"x", b"y"), session=4, count=1)
    assert found[1] == (DEFERRED, last, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")
    assert await peer.ask(frame("lrange", b"k", b"0", b"-1")) == [[b"y"]]
    await peer.ask(frame("del", b"k"))
    await peer.wait("blpop", b"k", b"0", session=5)
    peer.sock.close()
    while peer.host.links:
        await asyncio.sleep(0)
    assert len(peer.shard.blocking) == 0 and peer.shard.deferred_count == 0
    peer.shard.blocking.check()
    peer.close()


@on_a_loop
async def test_unblocking_is_a_timeout_or_an_error() -> None:
    peer = await router()
    one = await peer.wait("blpop", b"k", b"0", session=1)
    two = await peer.wait("blpop", b"k", b"0", session=2)
    await peer.word(wire_link.UNBLOCK, one)
    assert await peer.events() == [(DEFERRED, one, b"*-1\r\n")]
    await peer.word(wire_link.UNBLOCK, two, 1)
    assert await peer.events() == [(DEFERRED, two, b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
    await peer.word(wire_link.UNBLOCK, two)
    assert await peer.ask(frame("exists", b"k")) == [0]
    peer.close()


RETURNS = [
    ("blpop", [b"k", b"0"], frame("rpush", b"k", b"1", b"2", b"3"), frame("lrange", b"k", b"0", b"-1")),
    ("brpop", [b"k", b"0"], frame("rpush", b"k", b"1", b"2", b"3"), frame("lrange", b"k", b"0", b"-1")),
    ("blmpop", [b"0", b"1", b"k", b"left", b"count", b"2"], frame("rpush", b"k", b"1", b"2", b"3"), frame("lget", b"k")),
    ("blmpop", [b"0", b"1", b"k", b"right", b"count", b"9"], frame("rpush", b"k", b"1", b"2", b"3"), frame("lget", b"k")),
    ("bzpopmin", [b"k", b"0"], frame("zadd", b"k", b"1", b"a", b"2", b"b"), frame("zrange", b"k", b"0", b"-1", b"withscores")),
    ("bzpopmax", [b"k", b"0"], frame("zadd", b"k", b"1", b"a", b"2", b"b"), frame("zrange", b"k", b"0", b"-1", b"withscores")),
    ("bzmpop", [b"0", b"1", b"k", b"max", b"count", b"2"], frame("zadd", b"k", b"1", b"a", b"2", b"b"), frame("zcard", b"k")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "fill", "look"), RETURNS)
def test_what_reaches_nobody_goes_back_to_where_it_was(name: str, args: list[bytes], fill: bytes, look: bytes) -> None:
    @on_a_loop
    async def body() -> None:
        peer = await router()
        await peer.ask(fill)
        whole = await peer.ask(look)
        await peer.ask(frame("del", b"k"))
        token = await peer.wait(name, *args, session=1)
        await peer.run(fill, session=2, count=1)
        assert await peer.ask(look) != whole
        await peer.word(wire_link.UNDELIVERED, token)
        assert await peer.ask(look) == whole
        await peer.word(wire_link.UNDELIVERED, token)
        assert await peer.ask(look) == whole, "given back twice"
        peer.close()

    body()


@on_a_loop
async def test_what_was_received_is_not_given_back_and_what_comes_back_serves_the_next() -> None:
    peer = await router()
    one = await peer.wait("blpop", b"k", b"0", session=1)
    await peer.run(frame("rpush", b"k", b"x"), session=9, count=1)
    await peer.word(wire_link.RECEIVED, one)
    await peer.word(wire_link.UNDELIVERED, one)
    assert await peer.ask(frame("exists", b"k")) == [0]
    two = await peer.wait("blpop", b"k", b"0", session=1)
    await peer.run(frame("rpush", b"k", b"x"), session=9, count=1)
    three = await peer.wait("blpop", b"k", b"0", session=2)
    await peer.word(wire_link.UNDELIVERED, two)
    assert await peer.events() == [(DEFERRED, three, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")]
    peer.close()


@on_a_loop
async def test_a_shard_that_leaves_sends_everybody_to_come_again() -> None:
    peer = await router()
    tokens = [await peer.wait("blpop", b"a", b"b", b"0", session=i) for i in range(3)]
    peer.host.drain()
    assert [event for _ in range(3) for event in await peer.events()] == [(RETRY, token) for token in tokens]
    assert (await peer.message())[0] == wire_link.NOTICE
    (blocked, retry) = await peer.run(frame("blpop", b"a", b"0"), session=7, count=1)
    assert blocked[0] == BLOCKED and retry == (RETRY, blocked[1])
    assert len(peer.shard.blocking) == 0 and peer.shard.deferred_count == 0
    peer.close()


@on_a_loop
async def test_one_of_two_shards_serves_and_the_other_lets_go() -> None:
    claims = Claims(None, 0)
    left, right = await router(claims=claims, index=0), await router(claims=claims, index=1)
    for first, second in ((left, right), (right, left)):
        opened = claims.open()
        assert opened is not None
        words = [b"1", b"k", *(b"%d" % each for each in opened), b"blpop", b"0"]
        tokens = {peer: await peer.wait("_wait", *words, session=1) for peer in (left, right)}
        behind = await second.wait("blpop", b"k", b"0", session=2)
        found = await first.run(frame("rpush", b"k", b"x"), session=3, count=1)
        assert found[1] == (DEFERRED, tokens[first], b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")
        assert claims.owner(opened[0]) == first.shard.index
        found = await second.run(frame("rpush", b"k", b"y"), session=3, count=1)
        assert found[1] == (DEFERRED, behind, b"*2\r\n$1\r\nk\r\n$1\r\ny\r\n")
        assert len(left.shard.blocking) == len(right.shard.blocking) == 0
        claims.close(opened[0])
    left.close()
    right.close()


@on_a_loop
async def test_a_claim_that_the_router_took_back_takes_nothing() -> None:
    claims = Claims(None, 0)
    peer = await router(claims=claims)
    cell, claim = claims.open() or (0, 0)
    words = [b"1", b"k", b"%d" % cell, b"%d" % claim, b"blpop", b"0"]
    await peer.wait("_wait", *words, session=1)
    assert claims.take(cell, claim, ROUTER) and not claims.take(cell, claim, 0)
    assert await peer.ask(frame("rpush", b"k", b"x")) == [1]
    assert await peer.ask(frame("_wait", *words)) == [NULL_ARRAY]
    claims.close(cell)
    again, fresh = claims.open() or (0, 0)
    assert again == cell and fresh != claim
    assert await peer.ask(frame("_wait", *words)) == [NULL_ARRAY], "a claim of before"
    words[3] = b"%d" % fresh
    found = await peer.run(frame("_wait", *words), session=1, count=1)
    assert found[1] == (DEFERRED, found[0][1], b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")
    assert await peer.ask(frame("exists", b"k")) == [0]
    peer.close()


@on_a_loop
async def test_a_move_to_another_shard_is_waited_for_and_keeps_its_place() -> None:
    peer = await router()
    mover = await peer.wait("_await", b"k", session=1)
    behind = await peer.wait("blpop", b"k", b"0", session=2)
    found = await peer.run(frame("rpush", b"k", b"x"), session=3, count=1)
    assert found[1][:2] == (DEFERRED, mover)
    number = decode_reply(found[1][2])[0]
    assert await peer.ask(frame("lpop", b"k"), session=3) == [b"x"], "somebody else was faster"
    again = await peer.wait("_settle", b"k", b"%d" % number, b"1", session=1)
    peer.shard.blocking.check()
    found = await peer.run(frame("rpush", b"k", b"y", b"z"), session=3, count=1)
    assert found[1][:2] == (DEFERRED, again), "it was first"
    number = decode_reply(found[1][2])[0]
    assert await peer.ask(frame("lpop", b"k"), session=1) == [b"y"], "as a move takes it"
    found = await peer.run(frame("_settle", b"k", b"%d" % number, b"0"), session=1, count=1)
    assert found == [b":1\r\n", (DEFERRED, behind, b"*2\r\n$1\r\nk\r\n$1\r\nz\r\n")]
    assert len(peer.shard.blocking) == 0
    peer.shard.blocking.check()
    peer.close()


@on_a_loop
async def test_a_router_that_does_not_move_what_it_asked_for_keeps_others_waiting_for_a_moment() -> None:
    peer = await router()
    await peer.wait("_await", b"k", session=1)
    behind = await peer.wait("blpop", b"k", b"0", session=2)
    began = time.monotonic()
    found = await peer.run(frame("rpush", b"k", b"x"), session=3, count=1)
    number = decode_reply(found[1][2])[0]
    assert await peer.events() == [(DEFERRED, behind, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")]
    assert time.monotonic() - began >= 0.09
    assert await peer.ask(frame("_settle", b"k", b"%d" % number, b"0"), session=1) == [0]
    token = await peer.wait("_settle", b"k", b"%d" % number, b"1", session=1)
    await peer.send(struct.pack("<IIIQQ", 24, wire_link.CANCEL, 0, 1, token))
    assert await peer.ask(frame("rpush", b"k", b"y")) == [1]
    peer.shard.blocking.check()
    assert len(peer.shard.blocking) == 0
    peer.close()


@pytest.mark.parametrize("seed", range(8))
def test_random_waits_and_pushes_against_a_model(seed: int) -> None:
    """Lists of names, and a queue of waiters for each: what a first year's student would write."""

    @on_a_loop
    async def body() -> None:
        draw = random.Random(seed)
        peer = await router()
        lists: dict[bytes, deque[bytes]] = {key: deque() for key in (b"a", b"b", b"c")}
        waiters: list[tuple[int, list[bytes], bool]] = []
        number = 0
        for session in range(300):
            kind = draw.random()
            if kind < 0.45:
                keys = draw.choices(list(lists), k=draw.randint(1, 3))
                left = draw.random() < 0.5
                ready = next((key for key in keys if lists[key]), None)
                (event,) = await peer.run(frame("blpop" if left else "brpop", *keys, b"0"), session=session)
                if ready is None:
                    waiters.append((event[1], keys, left))
                else:
                    element = lists[ready].popleft() if left else lists[ready].pop()
                    assert decode_reply(event)[0] == [ready, element]
            elif kind < 0.55 and waiters:
                token, _, _ = waiters.pop(draw.randrange(len(waiters)))
                await peer.word(wire_link.UNBLOCK, token)
                assert await peer.events() == [(DEFERRED, token, b"*-1\r\n")]
            else:
                key = draw.choice(list(lists))
                elements = [b"%d" % (number + i) for i in range(draw.randint(1, 4))]
                number += len(elements)
                lists[key].extend(elements)
                served = []
                for waiter in list(waiters):
                    if key in waiter[1] and lists[key]:
                        element = lists[key].popleft() if waiter[2] else lists[key].pop()
                        served.append(
                            (DEFERRED, waiter[0], b"*2\r\n$1\r\n%s\r\n$%d\r\n%s\r\n" % (key, len(element), element))
                        )
                        waiters.remove(waiter)
                found = await peer.run(frame("rpush", key, *elements), session=1000 + session, count=len(served))
                assert found[1:] == served
            peer.shard.blocking.check()
            assert len(peer.shard.blocking) == len(waiters)
        for key, elements in lists.items():
            assert await peer.ask(frame("lrange", key, b"0", b"-1")) == [list(elements)]
        peer.close()

    body()


# Beside transactions --------------------------------------------------------------------------------------
async def locked(peer: Router, number: int, *keys: bytes) -> None:
    """A transaction holds the slots of these keys."""
    slots = b"".join(struct.pack("<H", slot_of_key(key)) for key in keys)
    until = struct.pack("<q", peer.shard.store.now_ms + 60_000)
    words = [struct.pack("<Q", number), until, b"\x00", slots]
    assert await peer.ask(frame("_lock", *words), session=500 + number) == [1]


async def unlocked(peer: Router, number: int, count: int = 0) -> list[Any]:
    """It is over; what comes beside the answer."""
    found = await peer.run(frame("_unlock", struct.pack("<Q", number)), session=500 + number, count=count)
    assert b":1\r\n" in found
    return [event for event in found if event != b":1\r\n"]


@on_a_loop
async def test_nobody_is_served_from_a_key_that_a_transaction_holds() -> None:
    peer = await router()
    token = await peer.wait("blpop", b"a", b"k", b"0", session=1)
    mover = await peer.wait("blmove", b"m", b"k", b"left", b"left", b"0", session=2)
    await locked(peer, 7, b"k")
    assert await peer.ask(frame("rpush", b"m", b"y"), session=4) == [1]
    transaction = run_of([frame("rpush", b"k", b"x")], flags=wire_link.ATOMIC, session=507)
    # The header's last number is that of the transaction, the one before it what follows of its share.
    await peer.send(transaction[:20] + struct.pack("<QQ", 0, 7) + transaction[36:])
    assert await peer.events() == [b":1\r\n"]
    found = await unlocked(peer, 7, count=2)
    assert found[0] == (DEFERRED, token, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n") or found[0][1] == mover
    assert {event[1] for event in found} == {token, mover}
    assert len(peer.shard.blocking) == 0
    peer.close()


@on_a_loop
async def test_what_goes_back_to_a_key_that_a_transaction_holds_waits_for_it() -> None:
    peer = await router()
    token = await peer.wait("blpop", b"k", b"0", session=1)
    await peer.run(frame("rpush", b"k", b"x", b"y"), session=2, count=1)
    await locked(peer, 7, b"k")
    await peer.word(wire_link.UNDELIVERED, token)
    await unlocked(peer, 7)
    assert await peer.ask(frame("lrange", b"k", b"0", b"-1")) == [[b"x", b"y"]]
    peer.close()


@on_a_loop
async def test_a_parked_command_that_waits_takes_nothing_for_who_is_gone_and_loses_nothing() -> None:
    peer = await router()
    await peer.ask(frame("rpush", b"k", b"x", b"y"))
    await locked(peer, 7, b"k")
    await peer.wait("blpop", b"k", b"0", session=1)
    staying = await peer.wait("blpop", b"k", b"0", session=2)
    await peer.send(struct.pack("<IIIQ", 16, wire_link.CANCEL, 0, 1))
    assert await unlocked(peer, 7, count=1) == [(DEFERRED, staying, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")]
    assert await peer.ask(frame("lrange", b"k", b"0", b"-1")) == [[b"y"]]
    await peer.word(wire_link.UNDELIVERED, staying)
    assert await peer.ask(frame("lrange", b"k", b"0", b"-1")) == [[b"x", b"y"]]
    peer.close()


@on_a_loop
async def test_a_parked_command_waits_when_its_turn_has_come() -> None:
    peer = await router()
    await locked(peer, 7, b"k")
    token = await peer.wait("blpop", b"k", b"0", session=1)
    assert len(peer.shard.blocking) == 0
    await unlocked(peer, 7)
    found = await peer.run(frame("rpush", b"k", b"x"), session=2, count=1)
    assert found[1] == (DEFERRED, token, b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n")
    peer.shard.blocking.check()
    peer.close()
