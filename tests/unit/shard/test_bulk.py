"""Large replies are made one after the other while many of them wait for their clients, and others are served between."""

from __future__ import annotations

import asyncio
import struct

from test_shard_flows import credit, pieces
from test_shard_link import Peer, frame, on_a_loop, run_of

from kache.slots import slot_of_key
from kache.wire import link as wire_link
from kache.wire.codec import decode_reply

MIB = 1 << 20
SIZE = MIB + MIB // 2
KEYS = [b"large:%d" % number for number in range(8)]
UNREAD = 6
"""GETs whose replies are unread before the next one waits: more than 8 MiB."""


def value(key: bytes, version: bytes = b"old") -> bytes:
    return ((key + version) * (SIZE // len(key)))[:SIZE]


async def with_unread(**limits: int) -> tuple[Peer, list[int]]:
    """A shard with so much unread that large replies wait for their turn; the tokens of what is."""
    peer = Peer(slice_ns=100_000, **limits)
    await peer.greet()
    peer.shard.execute([b"MSET", *(word for key in KEYS for word in (key, value(key)))])
    peer.shard.execute([b"SET", b"small", b"v"])
    found = []
    for number in range(UNREAD):
        await peer.send(run_of([frame("get", KEYS[0])], session=100 + number))
        found.append(await large(peer))
    return peer, found


async def message_of(peer: Peer, kind: int) -> bytes:
    while (message := await peer.message())[0] in (wire_link.SLOW, wire_link.SLOW_PART):
        pass
    assert message[0] == kind
    return message


async def large(peer: Peer) -> int:
    message = await message_of(peer, wire_link.REPLY)
    mark, token = struct.unpack_from("<IQ", message, 16)
    assert mark == wire_link.LARGE_REPLY
    return int(token)


async def parked(peer: Peer) -> int:
    message = await message_of(peer, wire_link.REPLY)
    mark, token = struct.unpack_from("<IQ", message, 16)
    assert mark == wire_link.PARKED_REPLY
    return int(token)


async def late(peer: Peer, *tokens: int) -> list[bytes]:
    """The replies that were promised, which come in this order."""
    begun = []
    for token in tokens:
        message = await message_of(peer, wire_link.DEFERRED)
        assert int.from_bytes(message[8:16], "little") == token
        assert message[4] in (0, wire_link.LARGE_FORM)
        begun.append(message)
    return [await rest_of(peer, message) for message in begun]


async def rest_of(peer: Peer, message: bytes) -> bytes:
    if message[4] == 0:
        return message[16:]
    flow, size = struct.unpack_from("<QQ", message, 24)
    await peer.send(credit(flow, size))
    return await pieces(peer, flow, size)


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def nothing_is_left(peer: Peer) -> bool:
    watches = peer.shard.watches
    watched = len(watches) or watches.replies
    return peer.host.idle and peer.host.buffer_bytes == 0 and peer.shard.deferred_count == 0 and not watched


def test_others_are_served_before_it_and_sessions_take_turns() -> None:
    async def test() -> None:
        peer, unread = await with_unread()
        runs = [run_of([frame("get", KEYS[number])] * 2, session=number) for number in (1, 2)]
        await peer.send(b"".join(runs) + run_of([frame("get", b"small")], session=3))
        tokens = []
        for _ in range(2):
            message = await message_of(peer, wire_link.REPLY)
            assert int.from_bytes(message[4:8], "little") == 2
            tokens.append([struct.unpack_from("<IQ", message, 16 + 12 * place)[1] for place in range(2)])
        assert await peer.replies(1) == [bulk(b"v")]
        found = await late(peer, *(tokens[number][place] for place in range(2) for number in range(2)))
        assert found == [bulk(value(KEYS[number])) for number in (1, 2)] * 2
        for token in unread:
            await peer.send(credit(token, 0))
        # Now there is nobody to wait for.
        await peer.send(run_of([frame("get", KEYS[1])], session=4))
        await peer.send(credit(await large(peer), 0) + run_of([frame("get", b"small")]))
        assert await peer.replies(1) == [bulk(b"v")]
        assert nothing_is_left(peer)

    on_a_loop(test)()


async def in_the_middle(peer: Peer) -> None:
    """Until a reply is being made in slices, or was made in one piece since its key has changed before."""
    while not peer.host.assembling and peer.shard.deferred_count:
        await asyncio.sleep(0)


def test_mget_shows_its_keys_at_one_time() -> None:
    async def test() -> None:
        peer, _ = await with_unread()
        for version, changed in ((b"old", ()), (b"new", (KEYS[0], KEYS[7]))):
            await peer.send(run_of([frame("mget", *KEYS, b"missing")], session=1))
            token = await parked(peer)
            await in_the_middle(peer)
            peer.shard.execute([b"MSET", *(word for key in changed for word in (key, value(key, version)))])
            found, _ = decode_reply(*await late(peer, token))
            assert found == [*(value(key, version if key in changed else b"old") for key in KEYS), None]
            assert not peer.shard.watches.replies

    on_a_loop(test)()


def test_a_key_that_goes_meanwhile_is_not_in_it() -> None:
    async def test() -> None:
        peer, _ = await with_unread()
        await peer.send(run_of([frame("mget", *KEYS)], session=1, dialect=0))
        token = await parked(peer)
        await in_the_middle(peer)
        peer.shard.execute([b"DEL", KEYS[0]])
        (reply,) = await late(peer, token)
        assert reply[13] == 0 and value(KEYS[0])[:1000] not in reply
        assert value(KEYS[1]) in reply and len(reply) == int.from_bytes(reply[:4], "little") + 4

    on_a_loop(test)()


def test_what_its_session_sends_behind_it_is_executed_behind_it() -> None:
    async def test() -> None:
        peer, _ = await with_unread()
        await peer.send(run_of([frame("mget", *KEYS), frame("set", KEYS[0], b"new"), frame("get", KEYS[0])], session=1))
        message = await message_of(peer, wire_link.REPLY)
        tokens = [struct.unpack_from("<IQ", message, 16 + 12 * place)[1] for place in range(3)]
        first, *others = await late(peer, *tokens)
        assert decode_reply(first)[0] == [value(key) for key in KEYS]
        assert others == [b"+OK\r\n", bulk(b"new")]

    on_a_loop(test)()


def test_a_client_that_goes_leaves_nothing_whether_it_was_begun_or_not() -> None:
    async def test() -> None:
        peer, unread = await with_unread()
        for begun in (True, False):
            await peer.send(run_of([frame("mget", *KEYS)], session=1))
            await parked(peer)
            if begun:
                await in_the_middle(peer)
            await peer.send(struct.pack("<IB3xIQ", 16, wire_link.CANCEL, 0, 1))
            await peer.send(run_of([frame("get", KEYS[1])], session=2))
            assert await late(peer, await parked(peer)) == [bulk(value(KEYS[1]))]
        for token in unread:
            await peer.send(credit(token, 0))
        await peer.send(run_of([frame("get", b"small")], session=3))
        assert await peer.replies(1) == [bulk(b"v")]
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_without_room_what_was_there_moves_on_to_the_router() -> None:
    """Whoever reads is not kept waiting for those who do not."""

    async def test() -> None:
        peer, unread = await with_unread(flow_room=UNREAD * (SIZE + 100))
        await peer.send(run_of([frame("get", KEYS[1])], session=1))
        token = await parked(peer)
        came = 0
        while (message := await peer.message())[0] == wire_link.PART:
            assert int.from_bytes(message[8:16], "little") == unread[0]
            came += len(message) - 16
        assert 0 < came <= SIZE + 100
        assert message[0] == wire_link.DEFERRED and int.from_bytes(message[8:16], "little") == token
        assert await rest_of(peer, message) == bulk(value(KEYS[1]))

    on_a_loop(test)()


def test_an_mget_that_proves_large_is_made_in_slices_though_nothing_is_unread() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.greet()
        peer.shard.execute([b"MSET", *(word for key in KEYS for word in (key, value(key))), b"small", b"v"])
        before = {name: calls for name, calls, *_ in peer.shard.command_counts()}.get("mget", 0)
        hits = peer.shard.store.hits
        await peer.send(run_of([frame("mget", *KEYS)], session=1) + run_of([frame("get", b"small")], session=2))
        token = await parked(peer)
        assert await peer.replies(1) == [bulk(b"v")]
        (reply,) = await late(peer, token)
        assert decode_reply(reply)[0] == [value(key) for key in KEYS]
        assert {name: calls for name, calls, *_ in peer.shard.command_counts()}["mget"] == before + 1
        assert peer.shard.store.hits == hits + len(KEYS) + 1
        # In a unit nothing comes between.
        await peer.send(run_of([frame("mget", *KEYS[:2])], wire_link.ATOMIC, session=1))
        (reply,) = await peer.replies(1)
        assert isinstance(reply, bytes) and decode_reply(reply)[0] == [value(key) for key in KEYS[:2]]
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_of_many_that_are_asked_for_at_once_others_are_served_between() -> None:
    """As long as they are taken nobody rests."""

    async def test() -> None:
        peer = Peer()
        await peer.greet()
        peer.shard.execute([b"MSET", *(word for key in KEYS for word in (key, value(key))), b"small", b"v"])
        await peer.send(
            run_of([frame("get", key) for key in KEYS[:4]], session=1) + run_of([frame("get", b"small")], session=2)
        )
        message = await message_of(peer, wire_link.REPLY)
        marks, at = [], 16
        for _ in range(int.from_bytes(message[4:8], "little")):
            mark, token = struct.unpack_from("<IQ", message, at)
            marks.append((mark, token))
            at += 20 if mark == wire_link.LARGE_REPLY else 12
        assert [mark for mark, _ in marks] == [wire_link.LARGE_REPLY] * 2 + [wire_link.PARKED_REPLY] * 2
        assert await peer.replies(1) == [bulk(b"v")]
        for _, token in marks[:2]:
            await peer.send(credit(token, 0))
        assert await late(peer, *(token for _, token in marks[2:])) == [bulk(value(key)) for key in KEYS[2:4]]
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_a_read_counts_once_however_often_it_is_looked_at() -> None:
    async def test() -> None:
        peer, _ = await with_unread()
        peer.shard.execute([b"SET", b"longer", bytes(2 * SIZE)])
        hits, misses = peer.shard.store.hits, peer.shard.store.misses
        await peer.send(run_of([frame("getrange", b"longer", b"0", b"%d" % SIZE)], session=1))
        assert await late(peer, await parked(peer)) == [bulk(bytes(SIZE + 1))]
        await peer.send(run_of([frame("mget", *KEYS, b"missing")], session=1))
        await late(peer, await parked(peer))
        await peer.send(run_of([frame("getrange", b"longer", b"0", b"3")], session=1))
        assert await peer.replies(1) == [bulk(bytes(4))]
        assert (peer.shard.store.hits - hits, peer.shard.store.misses - misses) == (len(KEYS) + 2, 1)

    on_a_loop(test)()


def test_what_has_waited_for_a_transaction_waits_for_room_then() -> None:
    """A GET that stood behind a lock is paced as one that comes now, and is executed once."""

    async def test() -> None:
        peer, unread = await with_unread(flow_room=UNREAD * (SIZE + 100))
        number = struct.pack("<Q", 77)
        until = struct.pack("<q", peer.shard.store.now_ms + 60_000)
        small = struct.pack("<H", slot_of_key(b"small"))
        peer.shard.execute([b"_lock", number, until, b"\0", small])
        run = [frame("set", b"small", b"w"), frame("get", KEYS[1]), frame("getrange", KEYS[2], b"0", b"-1")]
        await peer.send(run_of(run, session=1))
        message = await message_of(peer, wire_link.REPLY)
        tokens = [struct.unpack_from("<IQ", message, 16 + 12 * place)[1] for place in range(len(run))]
        await peer.send(run_of([frame("_unlock", number)], session=2, dialect=1))
        await message_of(peer, wire_link.REPLY)
        assert await late(peer, tokens[0]) == [b"+OK\r\n"]
        # There is no room: what was there before moves on to the router.
        assert (await message_of(peer, wire_link.PART))[8:16] == unread[0].to_bytes(8, "little")
        found = {}
        while len(found) < 2:
            message = await peer.message()
            if message[0] == wire_link.DEFERRED:
                found[int.from_bytes(message[8:16], "little")] = await rest_of(peer, message)
            else:
                assert message[0] == wire_link.PART
        assert list(found.items()) == [(tokens[1], bulk(value(KEYS[1]))), (tokens[2], bulk(value(KEYS[2])))]
        peer.shard.locks.check()

    on_a_loop(test)()
