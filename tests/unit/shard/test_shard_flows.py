"""The shard's end of what flows: large replies in pieces as they are asked for, large arguments before their frame."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest
from test_shard_link import Peer, frame, on_a_loop, run_of

from kache.wire import link as wire_link

MIB = 1 << 20
BIG = random.Random(2).randbytes(3 * MIB + 5)
REPLY = b"$%d\r\n" % len(BIG) + BIG + b"\r\n"


def part(session: int, argument: int, data: bytes) -> bytes:
    return struct.pack("<IB3xIQ", 16 + len(data), wire_link.PART, argument, session) + data


def credit(token: int, n: int) -> bytes:
    return struct.pack("<IB3xIQQ", 24, wire_link.CREDIT, 0, token, n)


async def tokens(peer: Peer, count: int) -> list[int]:
    """The tokens of so many large replies, each of the size of REPLY; behind the first of a tick they come a moment later."""
    found: list[int] = []
    promised: list[int] = []
    while len(found) + len(promised) < count:
        message = await answer(peer)
        assert message[0] == wire_link.REPLY
        at = 16
        for _ in range(int.from_bytes(message[4:8], "little")):
            marker, token = struct.unpack_from("<IQ", message, at)
            if marker == wire_link.PARKED_REPLY:
                promised.append(token)
                at += 12
                continue
            assert (marker, *struct.unpack_from("<Q", message, at + 12)) == (wire_link.LARGE_REPLY, len(REPLY))
            found.append(token)
            at += 20
        assert at == len(message)
    for token in promised:
        message = await answer(peer)
        assert (message[0], message[4]) == (wire_link.DEFERRED, wire_link.LARGE_FORM)
        promise, _, flow, size = struct.unpack_from("<QQQQ", message, 8)
        assert (promise, size) == (token, len(REPLY))
        found.append(flow)
    return found


async def answer(peer: Peer) -> bytes:
    """The next message that does not say that something took long: a slow machine makes slow commands."""
    while (message := await peer.message())[0] == wire_link.SLOW:
        pass
    return message


async def pieces(peer: Peer, token: int, size: int) -> bytes:
    came = b""
    while len(came) < size:
        message = await peer.message()
        if message[0] == wire_link.SLOW:
            continue
        assert message[0] == wire_link.PART
        assert int.from_bytes(message[8:16], "little") == token
        came += message[16:]
    return came


async def stored(**limits: int) -> Peer:
    peer = Peer(**limits)
    await peer.greet()
    await peer.send(
        part(9, 1, BIG[:MIB]) + part(9, 1, BIG[MIB:]) + run_of([frame("set", b"k", b"")], wire_link.UPLOADED)
    )
    assert await peer.replies(1) == [b"+OK\r\n"]
    return peer


def test_a_large_reply_comes_as_it_is_asked_for_and_others_between() -> None:
    async def test() -> None:
        peer = await stored()
        await peer.send(run_of([frame("get", b"k"), frame("get", b"k")]))
        first, second = await tokens(peer, 2)
        await peer.send(credit(first, MIB))
        came = await pieces(peer, first, MIB)
        await peer.send(run_of([frame("strlen", b"k")]))
        assert await peer.replies(1) == [b":%d\r\n" % len(BIG)]
        # What is sent is what was there: nobody's change shows in it.
        await peer.send(run_of([frame("setrange", b"k", b"0", b"changed")]))
        assert await peer.replies(1) == [b":%d\r\n" % len(BIG)]
        await peer.send(credit(first, 1 << 40))
        assert came + await pieces(peer, first, len(REPLY) - MIB) == REPLY
        await peer.send(credit(second, 0) + run_of([frame("strlen", b"k")]))
        assert await peer.replies(1) == [b":%d\r\n" % len(BIG)]
        assert peer.host.idle

    on_a_loop(test)()


def test_a_session_that_is_cancelled_leaves_nothing() -> None:
    async def test() -> None:
        peer = await stored()
        await peer.send(run_of([frame("get", b"k")], session=5) + part(5, 1, BIG))
        await tokens(peer, 1)
        await peer.send(struct.pack("<IB3xIQ", 16, wire_link.CANCEL, 0, 5))
        await peer.send(part(6, 1, BIG) + part(6, wire_link.DROPPED_PARTS, b""))
        await peer.send(run_of([frame("strlen", b"k")]))
        assert await peer.replies(1) == [b":%d\r\n" % len(BIG)]
        assert peer.host.idle
        await peer.send(run_of([frame("set", b"k", b"")], wire_link.UPLOADED, session=6))
        assert await peer.message() == b""

    on_a_loop(test)()


def test_more_than_a_shard_keeps_is_sent_unasked() -> None:
    async def test() -> None:
        peer = await stored()
        count = 40
        asked = asyncio.create_task(peer.send(run_of([frame("get", b"k")] * count)))
        sizes: dict[int, int] = {}
        while sum(size == len(REPLY) for size in sizes.values()) < 10:
            message = await peer.message()
            if message[0] == wire_link.PART:
                token = int.from_bytes(message[8:16], "little")
                sizes[token] = sizes.get(token, 0) + len(message) - 16
        await asked

    on_a_loop(test)()


def test_a_router_that_says_goodbye_gets_all_of_it() -> None:
    async def test() -> None:
        peer = await stored()
        await peer.send(run_of([frame("get", b"k")]))
        (token,) = await tokens(peer, 1)
        peer.sock.shutdown(1)
        assert await pieces(peer, token, len(REPLY)) == REPLY
        assert await peer.message() == b""

    on_a_loop(test)()


@pytest.mark.parametrize(
    "data",
    [
        part(9, 2, b"x") + run_of([frame("set", b"k", b"")], wire_link.UPLOADED),
        run_of([frame("set", b"k", b"")], wire_link.UPLOADED),
        part(9, 1, b"x") + run_of([frame("set", b"k", b"")] * 2, wire_link.UPLOADED),
    ],
)
def test_arguments_without_their_frame_close_the_link(data: bytes) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.greet()
        await peer.send(data)
        assert await peer.message() == b""

    on_a_loop(test)()


def test_an_expired_frame_gives_its_arguments_back() -> None:
    async def test() -> None:
        peer = await stored()
        frames = [frame("set", b"k", b"")]
        await peer.send(part(9, 1, b"late") + run_of(frames, wire_link.UPLOADED, deadline=1))
        assert await peer.replies(1) == [-1]
        await peer.send(run_of([frame("strlen", b"k")]))
        assert await peer.replies(1) == [b":%d\r\n" % len(BIG)]
        await peer.send(run_of(frames, wire_link.UPLOADED))
        assert await peer.message() == b""

    on_a_loop(test)()
