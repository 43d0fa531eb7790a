"""Slot locks and watches at the shard's end of a link: who waits, in which order, and what ends a lock."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import Any

import pytest
from test_shard_link import Peer, frame, on_a_loop

from kache.commands import BY_KEY, DIGEST
from kache.slots import slot_of_key
from kache.wire import link as wire_link

RESP2, INTERNAL = 2, 1
FAR = 100_000


def run(
    frames: list[bytes], flags: int = 0, session: int = 9, *, transaction: int = 0, dialect: int = RESP2, deadline: int = 0,
    rest: int = 0, db: int = 0,
) -> bytes:  # fmt: skip
    body = b"".join(frames)
    last = rest if transaction else deadline
    header = struct.pack("<BBBBIQQQI", wire_link.RUN, dialect, db, flags, len(frames), session, last, transaction, 1)
    return struct.pack("<I", len(header) + len(body)) + header + body


def slots_of(*keys: bytes) -> bytes:
    return b"".join(struct.pack("<H", slot_of_key(key)) for key in keys)


def share(frames: list[bytes], transaction: int, session: int = 9, flags: int = 0) -> bytes:
    """All of a transaction's share in one run, behind which it is over."""
    return run(frames, flags | wire_link.ATOMIC | wire_link.RELEASE, session, transaction=transaction)


class Locking(Peer):
    """A peer that locks."""

    def lock(
        self, number: int, *keys: bytes, mode: int = 0, hold: int = FAR, session: int = 9, wait: int = FAR
    ) -> bytes:
        """The run of a _lock; without keys it wants every slot."""
        until = self.shard.store.now_ms + hold
        words = [struct.pack("<Q", number), struct.pack("<q", until), bytes([mode]), slots_of(*keys)]
        deadline = self.shard.store.now_ms + wait
        return run([frame("_lock", *words)], session=session, dialect=INTERNAL, deadline=deadline)

    async def granted(self, number: int, *keys: bytes, **how: Any) -> int:
        await self.send(self.lock(number, *keys, **how))
        (reply,) = await self.replies(1)
        assert isinstance(reply, bytes), reply
        return int(reply[1:-2])

    async def ask(self, *words: bytes, session: int = 9, **how: Any) -> bytes | int:
        """One command's reply, or the token of one that is parked."""
        await self.send(run([frame(words[0].decode(), *words[1:])], session=session, **how))
        return (await self.replies(1))[0]

    async def deferred(self) -> tuple[int, bytes]:
        """(token, reply) of the next reply that comes later."""
        message = await self.message()
        assert message[0] == wire_link.DEFERRED, message
        form, token = struct.unpack_from("<IQ", message, 4)
        return token, message[16:] if form == 0 else b"aborted: " + message[16:]

    def check(self) -> None:
        self.shard.locks.check()
        self.shard.store.check()


async def greeted() -> Locking:
    peer = Locking()
    await peer.greet()
    return peer


def another(first: Locking) -> Locking:
    """A second router's link to the same shard."""
    other = object.__new__(Locking)
    other.shard, other.reactor, other.host = first.shard, first.reactor, first.host
    other.buffer = bytearray()
    other.sock = other.connect()
    return other


@on_a_loop
async def test_others_wait_and_see_no_half_of_it() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a", b"b") == wire_link.GRANTED
    token = await peer.ask(b"get", b"a", session=2)
    assert isinstance(token, int)
    assert await peer.ask(b"get", b"free", session=3) == b"$-1\r\n"
    assert await peer.ask(b"dbsize", session=3) == b":0\r\n"
    await peer.send(share([frame("set", b"a", b"1"), frame("set", b"b", b"2")], 1))
    assert await peer.replies(2) == [b"+OK\r\n"] * 2
    assert await peer.deferred() == (token, b"$1\r\n1\r\n")
    assert not peer.shard.locks.busy
    peer.check()
    peer.close()


@on_a_loop
async def test_a_pipeline_never_overtakes_itself() -> None:
    """What follows a parked frame of the same session waits behind it, on whatever slot; other sessions do not."""
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    frames = [frame("append", b"log", b"1"), frame("append", b"a", b"x"), frame("append", b"log", b"2")]
    await peer.send(run(frames, session=2))
    first, parked, behind = await peer.replies(3)
    assert first == b":1\r\n" and isinstance(parked, int) and isinstance(behind, int)
    token = await peer.ask(b"append", b"log", b"3", session=2)
    assert await peer.ask(b"append", b"log", b"!", session=3) == b":2\r\n"
    await peer.send(share([frame("set", b"a", b"-")], 1))
    await peer.replies(1)
    assert [await peer.deferred() for _ in range(3)] == [(parked, b":2\r\n"), (behind, b":3\r\n"), (token, b":4\r\n")]
    assert await peer.ask(b"get", b"log", session=3) == b"$4\r\n1!23\r\n"
    peer.check()
    peer.close()


@on_a_loop
async def test_waiters_of_a_slot_go_in_the_order_of_their_arrival() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    tokens = [await peer.ask(b"append", b"a", b"%d" % n, session=20 + n) for n in range(5)]
    await peer.send(peer.lock(2, b"a", b"b", mode=wire_link.WAITS, session=40))
    (lock,) = await peer.replies(1)
    last = await peer.ask(b"append", b"a", b"9", session=41)
    on_b = await peer.ask(b"get", b"b", session=42)
    await peer.send(run([frame("_unlock", struct.pack("<Q", 1))], dialect=INTERNAL))
    assert await peer.replies(1) == [b":1\r\n"]
    assert [(await peer.deferred())[0] for _ in range(6)] == [*tokens, lock]
    await peer.send(share([frame("get", b"a")], 2, session=40))
    assert await peer.replies(1) == [b"$5\r\n01234\r\n"]
    assert {(await peer.deferred())[0] for _ in range(2)} == {last, on_b}
    peer.check()
    peer.close()


@on_a_loop
async def test_who_tries_is_refused_where_somebody_waits() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    await peer.send(peer.lock(2, b"a", b"b", mode=wire_link.WAITS, session=2))
    await peer.replies(1)
    assert await peer.granted(3, b"b", session=3) == wire_link.BUSY
    assert await peer.granted(4, session=3) == wire_link.BUSY
    assert await peer.granted(5, b"c", session=3) == wire_link.GRANTED
    peer.check()
    peer.close()


@on_a_loop
async def test_a_lock_of_a_session_waits_behind_its_parked_frames() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    token = await peer.ask(b"set", b"a", b"1", session=2)
    assert await peer.granted(2, b"b", session=2) == wire_link.BUSY
    await peer.send(peer.lock(2, b"b", mode=wire_link.WAITS, session=2))
    (lock,) = await peer.replies(1)
    await peer.send(share([frame("get", b"a")], 1))
    await peer.replies(1)
    assert [await peer.deferred() for _ in range(2)] == [(token, b"+OK\r\n"), (lock, b":1\r\n")]
    peer.check()
    peer.close()


@on_a_loop
async def test_an_atomic_run_waits_as_a_whole() -> None:
    """None of its frames is executed before it meets the lock."""
    peer = await greeted()
    assert await peer.granted(1, b"z") == wire_link.GRANTED
    frames = [frame("set", b"x", b"1"), frame("mset", b"y", b"1", b"z", b"1"), frame("get", b"x")]
    await peer.send(run(frames, wire_link.ATOMIC, session=2))
    tokens = await peer.replies(3)
    assert not peer.shard.keyspace.exists(b"x")
    await peer.send(share([frame("set", b"z", b"0")], 1))
    await peer.replies(1)
    assert [await peer.deferred() for _ in range(3)] == [
        (tokens[0], b"+OK\r\n"), (tokens[1], b"+OK\r\n"), (tokens[2], b"$1\r\n1\r\n"),
    ]  # fmt: skip
    peer.check()
    peer.close()


@on_a_loop
async def test_all_slots() -> None:
    """FLUSHALL's lock waits for every other one, and everything later waits for it, keys or not."""
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    await peer.send(peer.lock(2, mode=wire_link.WAITS, session=2))
    (everything,) = await peer.replies(1)
    token = await peer.ask(b"set", b"free", b"1", session=3)
    await peer.send(share([frame("set", b"a", b"1")], 1))
    await peer.replies(1)
    assert await peer.deferred() == (everything, b":1\r\n")
    size = await peer.ask(b"dbsize", session=4)
    assert isinstance(size, int)
    assert isinstance(await peer.ask(b"_stats", dialect=INTERNAL, session=5), bytes)
    await peer.send(share([frame("flushall")], 2, session=2))
    assert await peer.replies(1) == [b"+OK\r\n"]
    assert dict([await peer.deferred(), await peer.deferred()]) == {token: b"+OK\r\n", size: b":1\r\n"}
    peer.check()
    peer.close()


@on_a_loop
async def test_who_only_reads_may_pass_and_others_who_read_may_share() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a", mode=wire_link.LETS_READ) == wire_link.GRANTED
    assert await peer.ask(b"get", b"a", session=2) == b"$-1\r\n"
    writer = await peer.ask(b"set", b"a", b"1", session=3)
    assert await peer.ask(b"get", b"a", session=2) == b"$-1\r\n"
    assert await peer.granted(1, b"a", mode=wire_link.EXTENDS) == wire_link.GRANTED
    reader = await peer.ask(b"get", b"a", session=2)
    assert isinstance(reader, int)
    await peer.send(run([frame("_unlock", struct.pack("<Q", 1))], dialect=INTERNAL))
    await peer.replies(1)
    assert [await peer.deferred() for _ in range(2)] == [(writer, b"+OK\r\n"), (reader, b"$1\r\n1\r\n")]
    assert await peer.granted(2, b"a", mode=wire_link.SHARES) == wire_link.GRANTED
    assert await peer.granted(3, b"a", mode=wire_link.SHARES) == wire_link.GRANTED
    assert await peer.granted(4, b"a") == wire_link.BUSY
    peer.check()
    await peer.send(run([frame("_unlock", struct.pack("<Q", 2))], dialect=INTERNAL))
    await peer.replies(1)
    peer.check()
    assert await peer.granted(4, b"a") == wire_link.BUSY
    peer.close()


# What ends a lock ---------------------------------------------------------------------------------
@on_a_loop
async def test_a_lock_ends_by_time_and_its_share_comes_too_late() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a", hold=60) == wire_link.GRANTED
    token = await peer.ask(b"get", b"a", session=2)
    assert await peer.deferred() == (token, b"$-1\r\n")
    await peer.send(share([frame("set", b"a", b"1"), frame("set", b"a", b"2")], 1))
    message = await peer.message()
    assert message[0] == wire_link.REPLY and int.from_bytes(message[4:8], "little") == 2
    marker, size = struct.unpack_from("<II", message, 16)
    assert marker == wire_link.ABORTED_REPLY and message[24 : 24 + size].startswith(b"TRYAGAIN")
    assert await peer.ask(b"exists", b"a", session=2) == b":0\r\n"
    assert await peer.granted(1, b"a", mode=wire_link.EXTENDS) == wire_link.LOST
    assert await peer.granted(2, b"a", hold=-1) == wire_link.LOST
    peer.check()
    peer.close()


@on_a_loop
async def test_what_came_in_time_is_executed_although_the_shard_was_late() -> None:
    """The share lies in the socket when the shard, which was stopped meanwhile, sees that the time is over."""
    peer = await greeted()
    assert await peer.granted(1, b"a", hold=50) == wire_link.GRANTED
    peer.sock.send(share([frame("set", b"a", b"1")], 1))
    peer.shard.store.set_time(peer.shard.store.now_ms + 1000)
    assert not peer.shard.locks.sweep(peer.shard.store.now_ms)
    assert await peer.replies(1) == [b"+OK\r\n"]
    peer.check()
    peer.close()


@on_a_loop
async def test_locks_and_watches_end_with_their_link() -> None:
    peer = await greeted()
    other = another(peer)
    await other.send(struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION, 4, DIGEST, 77, 0))
    await other.message()
    assert await other.ask(b"_watch", b"a", dialect=INTERNAL) == b"+OK\r\n"
    assert await other.granted(7, b"a") == wire_link.GRANTED
    token = await peer.ask(b"get", b"a", session=2)
    other.sock.close()
    assert await peer.deferred() == (token, b"$-1\r\n")
    assert len(peer.shard.watches) == 0
    peer.check()
    peer.close()


@on_a_loop
async def test_nobody_waits_for_a_lock_of_a_router_that_has_said_goodbye() -> None:
    """As when this shard leaves: its router cannot unlock any more, and goes when those who wait have their replies."""
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    first = await peer.ask(b"set", b"a", b"1", session=2)
    await peer.send(peer.lock(2, b"a", mode=wire_link.WAITS, session=3))
    (lock,) = await peer.replies(1)
    last = await peer.ask(b"get", b"a", session=4)
    peer.sock.shutdown(socket.SHUT_WR)
    found = dict([await peer.deferred() for _ in range(3)])
    assert (found[first], found[lock], found[last]) == (b"+OK\r\n", b":1\r\n", b"$1\r\n1\r\n")
    assert await peer.message() == b""
    peer.check()
    peer.close()


@on_a_loop
async def test_what_waits_too_long_is_dropped_unexecuted() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    deadline = peer.shard.store.now_ms + 60
    token = await peer.ask(b"set", b"a", b"1", session=2, deadline=deadline)
    await peer.send(peer.lock(2, b"a", mode=wire_link.WAITS, session=3, wait=60))
    (lock,) = await peer.replies(1)
    found = dict([await peer.deferred(), await peer.deferred()])
    assert found[token].startswith(b"-TRYAGAIN") and found[lock] == b":0\r\n"
    await peer.send(share([frame("exists", b"a")], 1))
    assert await peer.replies(1) == [b":0\r\n"]
    assert not peer.shard.locks.busy
    peer.check()
    peer.close()


@on_a_loop
async def test_a_lock_that_is_given_back_while_it_waits() -> None:
    peer = await greeted()
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    await peer.send(peer.lock(2, b"a", mode=wire_link.WAITS, session=3))
    (lock,) = await peer.replies(1)
    await peer.send(run([frame("_unlock", struct.pack("<Q", 2))], dialect=INTERNAL, session=3))
    assert sorted([await peer.message(), await peer.message()], key=len)[0][0] in (wire_link.DEFERRED, wire_link.REPLY)
    assert isinstance(lock, int) and peer.shard.locks.waiting == 0
    peer.check()
    peer.close()


@on_a_loop
async def test_what_waits_is_bounded() -> None:
    peer = await greeted()
    peer.shard.locks.configure(3, 1000)
    assert await peer.granted(1, b"a") == wire_link.GRANTED
    for session in (2, 3):
        assert isinstance(await peer.ask(b"get", b"a", session=session), int)
    large = await peer.ask(b"set", b"a", b"x" * 1000, session=4)
    assert isinstance(large, bytes) and large.startswith(b"-TRYAGAIN")
    assert isinstance(await peer.ask(b"get", b"a", session=5), int)
    refused = await peer.ask(b"get", b"a", session=6)
    assert isinstance(refused, bytes) and refused.startswith(b"-TRYAGAIN")
    peer.check()
    peer.close()


# A share ------------------------------------------------------------------------------------------
@on_a_loop
async def test_a_share_begins_when_all_of_it_is_here() -> None:
    """Two runs, the second in another database; cut anywhere, nothing is executed before the end has come."""
    peer = await greeted()
    last = run([frame("set", b"a", b"2")], wire_link.ATOMIC | wire_link.RELEASE, transaction=1, db=1)
    first = run([frame("set", b"a", b"1")], wire_link.ATOMIC, transaction=1, rest=len(last))
    whole = first + last
    for cut in (1, 40, len(first) - 1, len(first), len(first) + 20, len(whole) - 1):
        assert await peer.granted(1, b"a") == wire_link.GRANTED
        await peer.send(whole[:cut])
        await asyncio.sleep(0.01)
        assert not peer.shard.keyspace.exists(b"a")
        await peer.send(whole[cut:])
        assert await peer.replies(2) == [b"+OK\r\n"] * 2
        assert not peer.shard.locks.busy
        assert await peer.ask(b"flushall") == b"+OK\r\n"
    peer.close()


@on_a_loop
async def test_memory_is_asked_for_once() -> None:
    """A share that began is not refused in the middle, though it fills memory; one that finds none is refused whole."""
    peer = await greeted()
    peer.shard.evictor.set_policy("noeviction")
    peer.shard.set_maxmemory(peer.shard.store.used_memory + 200_000)
    assert await peer.granted(1, b"a", b"b", mode=wire_link.NEEDS_ROOM) == wire_link.GRANTED
    await peer.send(share([frame("set", b"a", b"x" * 300_000), frame("set", b"b", b"x")], 1))
    assert await peer.replies(2) == [b"+OK\r\n"] * 2
    await peer.send(peer.lock(2, b"a", mode=wire_link.NEEDS_ROOM))
    (refused,) = await peer.replies(1)
    assert isinstance(refused, bytes) and refused.startswith(b"-OOM")
    await peer.send(run([frame("get", b"b"), frame("set", b"b", b"y")], wire_link.ATOMIC))
    message = await peer.message()
    assert struct.unpack_from("<I", message, 16)[0] == wire_link.ABORTED_REPLY and b"OOM" in message
    assert await peer.ask(b"get", b"b") == b"$1\r\nx\r\n"
    peer.close()


# Watches ------------------------------------------------------------------------------------------
TOUCHES: list[tuple[str, list[list[bytes]]]] = [
    ("another value", [[b"set", b"w", b"2"]]),
    ("the same value", [[b"set", b"w", b"1"]]),
    ("a deadline", [[b"expire", b"w", b"100"]]),
    ("removed", [[b"del", b"w"]]),
    ("renamed away", [[b"rename", b"w", b"{w}other"]]),
    ("overwritten by a rename", [[b"set", b"{w}o", b"1"], [b"rename", b"{w}o", b"w"]]),
    ("a copy", [[b"set", b"{w}o", b"1"], [b"copy", b"{w}o", b"w", b"replace"]]),
    ("moved", [[b"move", b"w", b"3"]]),
    ("flushed", [[b"flushdb"]]),
    ("all flushed", [[b"flushall"]]),
    ("swapped", [[b"swapdb", b"0", b"5"]]),
]


@pytest.mark.parametrize(("what", "commands"), TOUCHES)
def test_a_watched_key_that_changes_ends_the_transaction(what: str, commands: list[list[bytes]]) -> None:
    @on_a_loop
    async def body() -> None:
        peer = await greeted()
        await peer.ask(b"set", b"w", b"1")
        assert await peer.ask(b"_watch", b"w", dialect=INTERNAL, session=2) == b"+OK\r\n"
        assert await peer.ask(b"_watch", b"w", dialect=INTERNAL, session=3) == b"+OK\r\n"
        for command in commands:
            await peer.ask(*command)
        await peer.send(run([frame("set", b"x", b"1")], wire_link.ATOMIC | wire_link.WATCHED, session=2))
        message = await peer.message()
        assert struct.unpack_from("<II", message, 16) == (wire_link.ABORTED_REPLY, 0)
        assert await peer.granted(1, b"x", mode=wire_link.CHECKS, session=3) == wire_link.DIRTY
        assert await peer.ask(b"exists", b"x") == b":0\r\n"
        # It is over with that: the next one of the same session goes.
        await peer.send(run([frame("set", b"x", b"1")], wire_link.ATOMIC | wire_link.WATCHED, session=2))
        assert await peer.replies(1) == [b"+OK\r\n"]
        peer.close()

    body()


@pytest.mark.parametrize("command", [[b"get", b"w"], [b"set", b"v", b"1"], [b"set", b"{w}", b"1"], [b"flushdb"]])
def test_what_does_not_touch_it(command: list[bytes]) -> None:
    """Reading it, another key, another key of the same slot, flushing a database that does not have it."""

    @on_a_loop
    async def body() -> None:
        peer = await greeted()
        flush = command[0] == b"flushdb"
        if not flush:
            await peer.ask(b"set", b"w", b"1")
        assert await peer.ask(b"_watch", b"w", dialect=INTERNAL, session=2) == b"+OK\r\n"
        await peer.ask(*command)
        await peer.send(run([frame("set", b"x", b"1")], wire_link.ATOMIC | wire_link.WATCHED, session=2))
        assert await peer.replies(1) == [b"+OK\r\n"]
        assert len(peer.shard.watches) == 0
        peer.close()

    body()


@on_a_loop
async def test_expiry_changes_a_watched_key_unless_it_had_expired_before() -> None:
    peer = await greeted()
    await peer.ask(b"set", b"w", b"1", b"px", b"400")
    await peer.ask(b"set", b"v", b"1", b"px", b"400")
    await peer.ask(b"_watch", b"w", dialect=INTERNAL, session=2)
    while await peer.ask(b"exists", b"v") != b":0\r\n":
        await asyncio.sleep(0.005)
    await peer.ask(b"_watch", b"v", dialect=INTERNAL, session=3)
    await peer.send(run([frame("set", b"x", b"1")], wire_link.ATOMIC | wire_link.WATCHED, session=2))
    assert struct.unpack_from("<II", await peer.message(), 16) == (wire_link.ABORTED_REPLY, 0)
    await peer.send(run([frame("set", b"x", b"1")], wire_link.ATOMIC | wire_link.WATCHED, session=3))
    assert await peer.replies(1) == [b"+OK\r\n"]
    peer.close()


@on_a_loop
async def test_nothing_watched_costs_no_notice() -> None:
    """A watch makes writes on its own slot known, and no others; once it is over, none."""
    peer = await greeted()
    assert not peer.shard.store.effects.is_wanted
    await peer.ask(b"_watch", b"w", dialect=INTERNAL, session=2)
    assert peer.shard.store.effects.is_wanted
    await peer.ask(b"_unwatch", dialect=INTERNAL, session=2)
    assert not peer.shard.store.effects.is_wanted
    peer.close()


# Everything at once -------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(6))
def test_random_locks_frames_and_links(seed: int) -> None:
    """Whatever comes in whatever order: every frame is answered once, a session's in their order, nothing stays held."""

    @on_a_loop
    async def body() -> None:
        chance = random.Random(seed)
        peer = await greeted()
        keys = [b"k%d" % n for n in range(6)]
        expected: dict[int, list[int]] = {}
        held: list[int] = []
        waiting: dict[int, int] = {}
        number = count = 0

        async def take_messages() -> None:
            """What has come up to the reply to one more command, which waits for nobody."""
            await peer.send(run([frame("_sizes", b"free")], dialect=INTERNAL, session=99))
            while (message := await peer.message())[0] == wire_link.DEFERRED:
                token = struct.unpack_from("<Q", message, 8)[0]
                if token in waiting:
                    assert message[16:] == b":1\r\n"
                    held.append(waiting.pop(token))
                elif token in tokens:
                    session, place = tokens.pop(token)
                    assert expected[session][0] == place, "a session's frames in their order"
                    expected[session].pop(0)
            if struct.unpack_from("<I", message, 16)[0] == wire_link.PARKED_REPLY:
                # All slots are held.
                tokens[struct.unpack_from("<Q", message, 20)[0]] = (99, 0)
                expected.setdefault(99, []).append(0)

        tokens: dict[int, tuple[int, int]] = {}
        for _ in range(150):
            what = chance.random()
            if what < 0.2:
                number += 1
                wanted = chance.sample(keys, chance.randint(1, 3)) if chance.random() < 0.9 else []
                mode = wire_link.WAITS if chance.random() < 0.5 else 0
                await peer.send(peer.lock(number, *wanted, mode=mode, session=100 + number))
                (reply,) = await peer.replies(1)
                if isinstance(reply, int):
                    waiting[reply] = number
                elif reply == b":1\r\n":
                    held.append(number)
            elif what < 0.4 and held:
                over = held.pop(chance.randrange(len(held)))
                await peer.send(run([frame("_unlock", struct.pack("<Q", over))], dialect=INTERNAL, session=100 + over))
                assert await peer.replies(1) == [b":1\r\n"]
            else:
                session, key = chance.randint(1, 4), chance.choice(keys)
                count += 1
                reply = await peer.ask(b"append", key, b".", session=session)
                if isinstance(reply, int):
                    tokens[reply] = (session, count)
                    expected.setdefault(session, []).append(count)
                else:
                    assert not expected.get(session), "it has overtaken what waits"
            await take_messages()
            peer.shard.locks.check()
        rounds = 0
        while held or waiting or tokens:
            rounds += 1
            assert rounds < 100, (held, waiting, tokens, len(peer.shard.locks), peer.shard.locks.waiting)
            await take_messages()
            while held:
                over = held.pop()
                await peer.send(run([frame("_unlock", struct.pack("<Q", over))], dialect=INTERNAL, session=100 + over))
                await peer.replies(1)
                await take_messages()
        assert not tokens and not peer.shard.locks.busy
        total = 0
        for key in keys:
            value = await peer.ask(b"strlen", key, session=50)
            assert isinstance(value, bytes)
            total += int(value[1:-2])
        assert total == count
        peer.check()
        peer.close()

    body()


def test_the_rows_are_there() -> None:
    assert {"_lock", "_unlock", "_watch", "_unwatch"} <= BY_KEY.keys()
