"""KEYS of many keys goes in slices: others are served between them, and each key is in the reply once."""

from __future__ import annotations

import struct

import pytest
from test_shard_flows import credit, pieces
from test_shard_link import RESP2, Peer, frame, on_a_loop, run_of

from kache.wire import link as wire_link
from kache.wire.codec import decode_reply

COUNT = 25_000
BINARY = 0


def name_of(number: int) -> bytes:
    return b"key:%d:%d" % (number % 100, number)


async def filled(count: int = COUNT, value: bytes = b"v") -> Peer:
    peer = Peer()
    await peer.greet()
    peer.shard.execute([b"MSET", *(word for number in range(count) for word in (name_of(number), value))])
    return peer


async def parked(peer: Peer) -> int:
    """The token that the next reply is promised by."""
    message = await peer.message()
    assert message[0] == wire_link.REPLY and int.from_bytes(message[4:8], "little") == 1
    mark, token = struct.unpack_from("<IQ", message, 16)
    assert mark == wire_link.PARKED_REPLY
    return int(token)


async def listed(peer: Peer, token: int) -> bytes:
    """The reply that was promised, with whatever stands before it taken as not there."""
    while (message := await peer.message())[0] == wire_link.SLOW:
        pass
    assert message[0] == wire_link.DEFERRED and int.from_bytes(message[8:16], "little") == token
    assert int.from_bytes(message[16:24], "little") > 0, "how long it took"
    if message[4] == wire_link.TIMED_FORM:
        return message[24:]
    assert message[4] == wire_link.LARGE_FORM
    flow, size = struct.unpack_from("<QQ", message, 24)
    await peer.send(credit(flow, size))
    return await pieces(peer, flow, size)


@pytest.mark.parametrize("dialect", [RESP2, BINARY])
@pytest.mark.parametrize(("pattern", "part"), [(b"*", 1), (b"key:7:*", 100), (b"key:[7]:*", 100)])
def test_others_are_served_between_its_slices(pattern: bytes, part: int, dialect: int) -> None:
    async def test() -> None:
        peer = await filled()
        keys = run_of([frame("keys", pattern)], wire_link.DIVIDED, session=1, dialect=dialect)
        await peer.send(keys + run_of([frame("get", name_of(5))], session=2))
        token = await parked(peer)
        # Behind it on the link, and yet before it.
        assert await peer.replies(1) == [b"$1\r\nv\r\n"]
        reply = await listed(peer, token)
        found, _ = decode_reply(reply) if dialect == RESP2 else decode_binary(reply)
        assert len(found) == len(set(found)) == COUNT // part
        assert set(found) == {name_of(number) for number in range(COUNT) if part == 1 or number % 100 == 7}
        assert peer.host.idle and peer.host.buffer_bytes == 0 and peer.shard.deferred_count == 0

    on_a_loop(test)()


def decode_binary(reply: bytes) -> tuple[list[bytes], int]:
    """The elements of an array of strings in the binary dialect."""
    (count,) = struct.unpack_from("<I", reply, 9)
    assert int.from_bytes(reply[:4], "little") == len(reply) - 4
    found, at = [], 13
    for _ in range(count):
        (size,) = struct.unpack_from("<I", reply, at + 1)
        found.append(reply[at + 5 : at + 5 + size])
        at += 5 + size
    assert at == len(reply)
    return found, at


def test_one_behind_the_other_and_as_large_as_they_are() -> None:
    """More than a mebibyte comes in pieces; what is set meanwhile may be in it, what was there is."""

    async def test() -> None:
        peer = await filled(60_000)
        await peer.send(b"".join(run_of([frame("keys", b"*")], wire_link.DIVIDED, session=n) for n in (1, 2)))
        first, second = await parked(peer), await parked(peer)
        await peer.send(run_of([frame("set", b"new", b"")], session=3))
        assert await peer.replies(1) == [b"+OK\r\n"]
        for token in (first, second):
            reply = await listed(peer, token)
            assert len(reply) > wire_link.LARGE_BYTES
            found, _ = decode_reply(reply)
            assert set(found) | {b"new"} == {name_of(number) for number in range(60_000)} | {b"new"}
            assert len(found) == len(set(found))

    on_a_loop(test)()


def test_few_keys_and_those_of_a_unit_are_listed_at_once() -> None:
    async def test() -> None:
        few = await filled(1000)
        await few.send(run_of([frame("keys", b"*")], wire_link.DIVIDED))
        assert (await few.replies(1))[0].startswith(b"*1000\r\n")
        many = await filled()
        for flags in (0, wire_link.DIVIDED | wire_link.ATOMIC):
            await many.send(run_of([frame("keys", b"key:1:*")], flags))
            assert (await many.replies(1))[0].startswith(b"*250\r\n")

    on_a_loop(test)()


def test_who_goes_meanwhile_leaves_nothing() -> None:
    async def test() -> None:
        peer = await filled()
        await peer.send(
            run_of([frame("keys", b"*")], wire_link.DIVIDED, session=1)
            + struct.pack("<IB3xIQ", 16, wire_link.CANCEL, 0, 1)
            + run_of([frame("keys", b"key:1:*")], wire_link.DIVIDED, session=2)
        )
        await parked(peer)
        reply = await listed(peer, await parked(peer))
        assert reply.startswith(b"*250\r\n")
        assert peer.host.idle and peer.host.buffer_bytes == 0 and peer.shard.deferred_count == 0

    on_a_loop(test)()
