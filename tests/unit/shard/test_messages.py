"""What a shard tells its links beside replies: what is published, events of keys, what clients have read and has changed.

Messages come between replies, never inside, behind the reply of what caused them.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from test_shard_link import Peer, frame, on_a_loop, run_of

from kache.wire import link as wire_link

SESSION = 9
OTHER = 10


def published(message: bytes) -> tuple[int, int, bytes, bytes]:
    """(what, session, name, payload) of a PUBLISHED."""
    assert message[0] == wire_link.PUBLISHED, message
    size, session = struct.unpack_from("<IQ", message, 4)
    return message[1], session, message[16 : 16 + size], message[16 + size :]


def keys_of(message: bytes) -> tuple[int, list[bytes]]:
    """(session, keys) of news about keys."""
    what, session, _, payload = published(message)
    assert what == wire_link.KEY
    keys = []
    while payload:
        size = int.from_bytes(payload[:4], "little")
        keys.append(payload[4 : 4 + size])
        payload = payload[4 + size :]
    return session, keys


async def run(peer: Peer, *frames: bytes, **options: Any) -> list[bytes | int]:
    """Replies to a run; fails if anything else comes before the last of them."""
    await peer.send(run_of(list(frames), **options))
    return await peer.replies(len(frames))


async def greeted() -> Peer:
    peer = Peer()
    await peer.greet()
    return peer


def listen(kind: int, *pairs: bytes | int) -> bytes:
    return frame("_subscribe", *(word if isinstance(word, bytes) else b"%d" % word for word in (kind, *pairs)))


@on_a_loop
async def test_one_message_for_a_link_however_many_listen() -> None:
    peer = await greeted()
    assert await run(peer, frame("publish", b"c", b"nobody")) == [b":0\r\n"]
    assert await run(peer, listen(wire_link.CHANNEL, b"c", 3, b"d", 1), dialect=1) == [b"+OK\r\n"]
    await run(peer, listen(wire_link.PATTERN, b"c*", 2, b"nomatch", 5), dialect=1)
    await run(peer, listen(wire_link.SHARD_CHANNEL, b"c", 7), dialect=1)
    assert await run(peer, frame("publish", b"c", b"hello")) == [b":5\r\n"]
    assert published(await peer.message()) == (wire_link.CHANNEL, 0, b"c", b"hello")
    assert await run(peer, frame("publish", b"cx", b"p")) == [b":2\r\n"]
    assert published(await peer.message()) == (wire_link.CHANNEL, 0, b"cx", b"p")
    assert await run(peer, frame("publish", b"x", b"p"), frame("get", b"k")) == [b":0\r\n", b"$-1\r\n"]
    assert await run(peer, frame("spublish", b"c", b"s")) == [b":7\r\n"]
    assert published(await peer.message()) == (wire_link.SHARD_CHANNEL, 0, b"c", b"s")
    peer.close()


@on_a_loop
async def test_messages_stand_behind_the_reply_and_before_the_next() -> None:
    peer = await greeted()
    await run(peer, listen(wire_link.CHANNEL, b"c", 1), dialect=1)
    await peer.send(run_of([frame("publish", b"c", b"1"), frame("publish", b"c", b"2"), frame("get", b"k")]))
    assert await peer.replies(1) == [b":1\r\n"]
    assert published(await peer.message())[3] == b"1"
    assert await peer.replies(1) == [b":1\r\n"]
    assert published(await peer.message())[3] == b"2"
    assert await peer.replies(1) == [b"$-1\r\n"]
    peer.close()


@on_a_loop
async def test_counts_are_replaced_and_end() -> None:
    peer = await greeted()
    for sessions in (1, 5, 2, 0):
        await run(peer, listen(wire_link.CHANNEL, b"c", sessions), dialect=1)
        assert peer.shard.channels.count(wire_link.CHANNEL, b"c") == sessions
    assert peer.shard.channels.active == 0 and peer.shard.channels.listened(wire_link.CHANNEL) == []
    await run(peer, listen(wire_link.CHANNEL, b"c", 1), listen(wire_link.PATTERN, b"*", 1), dialect=1)
    peer.sock.close()
    for _ in range(200):
        if not peer.shard.channels.active:
            break
        await asyncio.sleep(0.01)
    assert peer.shard.channels.active == 0
    peer.close()


@on_a_loop
async def test_two_links() -> None:
    first = await greeted()
    other = first.connect()
    second_peer = object.__new__(Peer)
    second_peer.__dict__.update(first.__dict__)
    second_peer.sock, second_peer.buffer = other, bytearray()
    await second_peer.greet()
    await run(first, listen(wire_link.CHANNEL, b"c", 1), dialect=1)
    await run(second_peer, listen(wire_link.CHANNEL, b"c", 2), dialect=1)
    assert await run(second_peer, frame("publish", b"c", b"x")) == [b":3\r\n"]
    assert published(await second_peer.message())[2:] == (b"c", b"x")
    assert published(await first.message())[2:] == (b"c", b"x")
    other.close()
    first.close()


# Events of keys -----------------------------------------------------------------------------------------
@on_a_loop
async def test_events_are_published_only_while_somebody_listens() -> None:
    peer = await greeted()
    peer.shard.notifications.configure("KEA")
    assert not peer.shard.store.effects.is_wanted
    await run(peer, listen(wire_link.CHANNEL, b"plain", 1), dialect=1)
    assert not peer.shard.store.effects.is_wanted
    await run(peer, listen(wire_link.CHANNEL, b"__keyspace@2__:k", 1, b"__keyevent@2__:incrby", 1), dialect=1)
    assert peer.shard.store.effects.is_wanted
    await peer.send(run_of([frame("incr", b"k"), frame("get", b"k")], db=2))
    assert await peer.replies(1) == [b":1\r\n"]
    assert published(await peer.message())[2:] == (b"__keyspace@2__:k", b"incrby")
    assert published(await peer.message())[2:] == (b"__keyevent@2__:incrby", b"k")
    assert await peer.replies(1) == [b"$1\r\n1\r\n"]
    assert await run(peer, frame("incr", b"k"), db=1) == [b":1\r\n"]
    peer.shard.notifications.configure("KE")
    assert not peer.shard.store.effects.is_wanted
    peer.shard.notifications.configure("$")
    assert not peer.shard.store.effects.is_wanted
    peer.shard.notifications.configure("El")
    assert await run(peer, frame("incr", b"k"), frame("get", b"k"), db=2) == [b":2\r\n", b"$1\r\n2\r\n"]
    peer.close()


# What has been read -------------------------------------------------------------------------------------
def track(session: int, redirect: int = 0, flags: int = 0, *prefixes: bytes) -> bytes:
    return frame("_track", b"%d" % session, b"%d" % redirect, b"%d" % flags, *prefixes)


@on_a_loop
async def test_what_was_read_is_told_once_behind_the_reply() -> None:
    peer = await greeted()
    await run(peer, track(SESSION), dialect=1)
    await run(peer, frame("get", b"k"), frame("mget", b"a", b"b"), session=SESSION, flags=wire_link.TRACK)
    await run(peer, frame("get", b"untracked"), session=SESSION)
    await run(peer, frame("get", b"k"), session=OTHER, flags=wire_link.TRACK)
    assert len(peer.shard.tracking) == 3
    await peer.send(
        run_of([frame("set", b"k", b"1"), frame("set", b"k", b"2"), frame("set", b"untracked", b"")], session=OTHER)
    )
    assert await peer.replies(1) == [b"+OK\r\n"]
    assert keys_of(await peer.message()) == (SESSION, [b"k"])
    assert await peer.replies(2) == [b"+OK\r\n"] * 2
    # Of its own changes, too.
    await peer.send(run_of([frame("del", b"b"), frame("set", b"b", b"1")], session=SESSION))
    assert await peer.replies(2) == [b":0\r\n", b"+OK\r\n"]
    assert keys_of(await peer.message()) == (SESSION, [b"b"])
    await run(peer, frame("_untrack", b"%d" % SESSION), dialect=1)
    assert await run(peer, frame("set", b"a", b"1"), session=OTHER) == [b"+OK\r\n"]
    assert len(peer.shard.tracking) == 0 and not peer.shard.store.effects.is_wanted
    peer.close()


@on_a_loop
async def test_flush_is_told_to_everybody_and_ends_all() -> None:
    peer = await greeted()
    await run(peer, track(SESSION), track(OTHER), dialect=1)
    await run(peer, frame("get", b"k"), session=SESSION, flags=wire_link.TRACK)
    assert await run(peer, frame("flushall")) == [b"+OK\r\n"]
    told = sorted([published(await peer.message())[:2], published(await peer.message())[:2]])
    assert told == [(wire_link.FLUSH, SESSION), (wire_link.FLUSH, OTHER)]
    assert len(peer.shard.tracking) == 0
    peer.close()


@on_a_loop
async def test_prefixes_are_gathered_over_a_tick() -> None:
    peer = await greeted()
    await run(peer, track(SESSION, 0, 1, b"a:", b"b:"), track(OTHER, 0, 3, b"a:"), dialect=1)
    frames = [frame("set", key, b"1") for key in (b"a:1", b"x", b"a:2", b"b:1", b"a:1")]
    assert await run(peer, *frames, session=OTHER) == [b"+OK\r\n"] * 5
    session, keys = keys_of(await peer.message())
    assert session == SESSION and sorted(keys) == [b"a:1", b"a:2", b"b:1"]
    await run(peer, frame("_untrack", b"%d" % SESSION), frame("_untrack", b"%d" % OTHER), dialect=1)
    assert not peer.shard.store.effects.is_wanted
    peer.close()


@on_a_loop
async def test_the_table_is_bounded() -> None:
    peer = await greeted()
    peer.shard.tracking.most_keys = 10
    await run(peer, track(SESSION), dialect=1)
    frames = [frame("get", b"%d" % n) for n in range(14)]
    await peer.send(run_of(frames, session=SESSION, flags=wire_link.TRACK))
    told: list[bytes] = []
    replies = 0
    while replies < 14 or len(told) < 4:
        message = await peer.message()
        if message[0] == wire_link.REPLY:
            replies += int.from_bytes(message[4:8], "little")
        elif message[0] == wire_link.PUBLISHED:
            told += keys_of(message)[1]
    assert told == [b"0", b"1", b"2", b"3"] and len(peer.shard.tracking) == 10
    peer.close()


@on_a_loop
async def test_a_redirection_to_one_that_is_gone() -> None:
    peer = await greeted()
    target = 3 << 48 | 5  # of the router of this link
    await run(peer, track(SESSION, target), dialect=1)
    await run(peer, frame("get", b"k"), session=SESSION, flags=wire_link.TRACK)
    assert await run(peer, frame("set", b"k", b"1")) == [b"+OK\r\n"]
    assert keys_of(await peer.message()) == (target, [b"k"])
    assert await run(peer, frame("_broken", b"%d" % target), dialect=1) == [b"+OK\r\n"]
    assert published(await peer.message())[:2] == (wire_link.BROKEN, SESSION)
    peer.close()


@on_a_loop
async def test_a_link_that_takes_nothing_is_closed() -> None:
    peer = await greeted()
    await run(peer, listen(wire_link.CHANNEL, b"c", 1), dialect=1)
    message = b"x" * (8 << 20)
    for _ in range(60):
        peer.shard.channels.publish_to(wire_link.CHANNEL, b"c", message)
    for _ in range(200):
        if not peer.shard.channels.active:
            break
        await asyncio.sleep(0.01)
    assert peer.shard.channels.active == 0
    peer.close()


@on_a_loop
async def test_names_without_their_number() -> None:
    peer = await greeted()
    replies = await run(peer, frame("_subscribe", b"0", b"name"), dialect=1)
    assert isinstance(replies[0], bytes) and replies[0].startswith(b"-ERR")
    peer.close()
