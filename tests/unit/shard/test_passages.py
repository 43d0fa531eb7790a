"""What is shown of one large collection is made in slices: the same bytes as in one piece, as its key holds them at one time."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Awaitable, Callable

import pytest
from test_bulk import KEYS, in_the_middle, late, nothing_is_left, parked, with_unread
from test_shard_link import Peer, frame, on_a_loop, run_of

from kache.slots import slot_of_key
from kache.wire import link as wire_link
from kache.wire.codec import decode_reply

COUNT = 9_000
"""Elements of each: so many that they are shown in slices."""
SLICE_NS = 1
"""However fast the machine is, a slice is over after a few of them."""
BINARY, INTERNAL, RESP2, RESP3 = 0, 1, 2, 3

PAIRS = {b"field:%d" % number: b"value of %d" % number for number in range(COUNT)}
ELEMENTS = [b"element %d" % number for number in range(COUNT)]
SCORES = {b"member:%d" % number: float(random.Random(number).randrange(1000)) / 4 for number in range(COUNT)}
IN_ORDER = sorted(SCORES, key=lambda member: (SCORES[member], member))


def words(*parts: str | bytes) -> list[bytes]:
    return [part.encode() if isinstance(part, str) else part for part in parts]


FORMS = [
    *(words(name, "hash") for name in ("hgetall", "hkeys", "hvals")),
    words("smembers", "set"),
    words("lrange", "list", "0", "-1"),
    words("lrange", "list", "7", "-9"),
    words("zrange", "zset", "0", "-1"),
    words("zrevrange", "zset", "3", "-2"),
    words("zrange", "zset", "0", "-1", "WITHSCORES"),
    words("zrange", "zset", "1", "-5", "REV", "WITHSCORES"),
    words("zrevrange", "zset", "1", "-5", "WITHSCORES"),
    words("zrange", "zset", "(2", "+inf", "BYSCORE", "LIMIT", "11", "8500"),
    words("zrangebyscore", "zset", "-inf", "248", "WITHSCORES"),
    words("zrevrangebyscore", "zset", "+inf", "1", "WITHSCORES", "LIMIT", "5", "-1"),
    words("zrangebylex", "level", "-", "+"),
    words("zrevrangebylex", "level", "+", "(member:1"),
]


def fill(peer: Peer) -> None:
    run = peer.shard.execute
    run([b"HSET", b"hash", *(word for pair in PAIRS.items() for word in pair)])
    run([b"SADD", b"set", *PAIRS])
    run([b"RPUSH", b"list", *ELEMENTS])
    run([b"ZADD", b"zset", *(word for member, score in SCORES.items() for word in (b"%g" % score, member))])
    run([b"ZADD", b"level", *(word for member in SCORES for word in (b"1", member))])


async def filled() -> Peer:
    peer = Peer(slice_ns=SLICE_NS)
    await peer.greet()
    fill(peer)
    return peer


async def shown(
    peer: Peer, form: list[bytes], dialect: int = RESP2, between: Callable[[], object] | None = None
) -> bytes:
    """The reply of a command that is parked, when `between` was called while it was being made."""
    await peer.send(run_of([frame(form[0].decode(), *form[1:])], session=1, dialect=dialect))
    token = await parked(peer)
    if between is not None:
        await in_the_middle(peer)
        between()
    (reply,) = await late(peer, token)
    return reply


def expected(form: list[bytes]) -> object:
    """What these words show, found without the shard."""
    name, key, *arguments = [word.decode() for word in form]
    if name == "hgetall":
        return PAIRS
    if key in ("hash", "set"):
        return set(PAIRS.values() if name == "hvals" else PAIRS)
    if key == "list":
        return ELEMENTS[int(arguments[0]) : int(arguments[1]) + COUNT + 1]
    options = [word.upper() for word in arguments[2:]]
    reverse = name.startswith("zrev") or "REV" in options
    order = sorted(SCORES) if key == "level" else list(IN_ORDER)
    if "(member:1" in arguments:
        order = [member for member in order if member > b"member:1"]
    elif name.endswith("byscore") or "BYSCORE" in options:
        low, high = sorted((bound.lstrip("(") for bound in arguments[:2]), key=float)
        order = [
            m
            for m in order
            if (SCORES[m] > 2 if "(2" in arguments else float(low) <= SCORES[m]) and SCORES[m] <= float(high)
        ]
    if reverse:
        order.reverse()
    if "LIMIT" in options:
        offset, limit = (int(word) for word in options[options.index("LIMIT") + 1 :][:2])
        order = order[offset:] if limit < 0 else order[offset : offset + limit]
    elif key == "zset" and not name.endswith("byscore"):
        order = order[int(arguments[0]) : len(order) + 1 + int(arguments[1])]
    return [(member, SCORES[member]) for member in order] if "WITHSCORES" in options else order


def meant(form: list[bytes], reply: bytes) -> object:
    """A reply of RESP2 in the shape of `expected`."""
    found, _ = decode_reply(reply)
    assert isinstance(found, list)
    if form[0] == b"hgetall":
        assert len(found) == 2 * COUNT
        return dict(zip(found[::2], found[1::2], strict=True))
    if form[1] in (b"hash", b"set"):
        assert len(found) == COUNT
        return set(found)
    if any(word.upper() == b"WITHSCORES" for word in form):
        return [(member, float(score)) for member, score in zip(found[::2], found[1::2], strict=True)]
    return found


@pytest.mark.parametrize("form", FORMS, ids=lambda form: b" ".join(form).decode())
def test_it_is_what_it_would_be_in_one_piece(form: list[bytes]) -> None:
    async def test() -> None:
        peer = await filled()
        before = peer.shard.store.hits
        for dialect in (BINARY, RESP2, RESP3):
            reply = await shown(peer, form, dialect)
            assert reply == peer.shard.execute(form, dialect)
            if dialect == RESP2:
                assert meant(form, reply) == expected(form)
        # Each was read once, by whoever asked for it.
        assert peer.shard.store.hits - before == 6
        assert {name: calls for name, calls, *_ in peer.shard.command_counts()}[form[0].decode()] == 6
        # In a unit nothing comes between.
        await peer.send(run_of([frame(form[0].decode(), *form[1:])], wire_link.ATOMIC, session=1))
        (whole,) = await peer.replies(1)
        assert isinstance(whole, bytes) and whole == peer.shard.execute(form)
        assert nothing_is_left(peer)

    on_a_loop(test)()


CHANGES = {
    b"hash": [b"HSET", b"hash", b"field:77", b"another value", b"another field", b"1"],
    b"set": [b"SREM", b"set", b"field:77"],
    b"list": [b"LPOP", b"list"],
    b"zset": [b"ZADD", b"zset", b"17.125", b"member:77"],
    b"level": [b"ZREM", b"level", b"member:77"],
}
REPLACED = [
    [b"DEL"],
    [b"PEXPIREAT", b"1"],
    [b"SET", b"a string"],
    [b"HSET", b"f", b"v"],
    [b"RPUSH", b"one"],
    [b"ZADD", b"1", b"one"],
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: b" ".join(form).decode())
def test_what_changes_meanwhile_is_shown_as_it_is_in_the_end(form: list[bytes]) -> None:
    async def test() -> None:
        peer = await filled()
        old = peer.shard.execute(form)
        reply = await shown(peer, form, between=lambda: peer.shard.execute(CHANGES[form[1]]))
        assert reply == peer.shard.execute(form) != old
        assert nothing_is_left(peer)

    on_a_loop(test)()


@pytest.mark.parametrize("instead", REPLACED, ids=lambda words: words[0].decode())
def test_a_key_that_becomes_something_else_meanwhile(instead: list[bytes]) -> None:
    first, *others = instead

    async def test() -> None:
        peer = await filled()
        for form in (FORMS[0], FORMS[3], FORMS[4], FORMS[6], FORMS[14]):
            key = form[1]

            def replace(key: bytes = key) -> None:
                if first not in (b"DEL", b"PEXPIREAT"):
                    peer.shard.execute([b"DEL", key])
                peer.shard.execute([first, key, *others])

            reply = await shown(peer, form, between=replace)
            assert reply == peer.shard.execute(form)
            assert len(reply) < 1000
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_a_field_that_expires_meanwhile_is_not_shown() -> None:
    async def test() -> None:
        peer = await filled()
        until = b"%d" % (peer.shard.store.now_ms + 50)
        assert peer.shard.execute([b"HPEXPIREAT", b"hash", until, b"FIELDS", b"1", b"field:5"]) == b"*1\r\n:1\r\n"
        # Nobody changes anything: it is the time that passes.
        reply = await shown(peer, FORMS[0], between=lambda: time.sleep(0.06))
        found, _ = decode_reply(reply)
        assert isinstance(found, list) and len(found) == 2 * (COUNT - 1) and b"field:5" not in found[::2]
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_others_are_served_between_its_slices_and_its_own_session_behind_it() -> None:
    async def test() -> None:
        peer = await filled()
        peer.shard.execute([b"SET", b"small", b"v"])
        await peer.send(
            run_of([frame("hgetall", b"hash"), frame("hset", b"hash", b"new", b"1"), frame("hlen", b"hash")], session=1)
            + run_of([frame("get", b"small")], session=2)
        )
        message = await peer.message()
        tokens = [struct.unpack_from("<IQ", message, 16 + 12 * place)[1] for place in range(3)]
        assert await peer.replies(1) == [b"$1\r\nv\r\n"]
        whole, *others = await late(peer, *tokens)
        assert meant(FORMS[0], whole) == PAIRS
        assert others == [b":1\r\n", b":%d\r\n" % (COUNT + 1)]
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_a_client_that_goes_leaves_nothing() -> None:
    async def test() -> None:
        peer = await filled()
        peer.shard.execute([b"SET", b"small", b"v"])
        waits: list[Callable[[Peer], Awaitable[object]]] = [in_the_middle, lambda _: asyncio.sleep(0)]
        for form in (FORMS[0], FORMS[4], FORMS[8]):
            for wait in waits:
                await peer.send(run_of([frame(form[0].decode(), *form[1:])], session=1))
                await parked(peer)
                await wait(peer)
                await peer.send(struct.pack("<IB3xIQ", 16, wire_link.CANCEL, 0, 1))
                await peer.send(run_of([frame("get", b"small")], session=2))
                while (await peer.message())[0] != wire_link.REPLY:
                    pass
        while not nothing_is_left(peer):
            await asyncio.sleep(0)

    on_a_loop(test)()


def test_few_elements_that_are_large_are_made_in_slices_too() -> None:
    async def test() -> None:
        peer = Peer(slice_ns=SLICE_NS)
        await peer.greet()
        large = [bytes([number]) * 400_000 for number in range(8)]
        peer.shard.execute([b"RPUSH", b"list", *large])
        peer.shard.execute(
            [b"HSET", b"hash", *(word for number in range(8) for word in (b"%d" % number, large[number]))]
        )
        for form in (words("lrange", "list", "0", "-1"), words("hvals", "hash")):
            found, _ = decode_reply(await shown(peer, form))
            assert isinstance(found, list) and sorted(found) == large
        # A part of it that is small is answered at once.
        await peer.send(run_of([frame("lrange", b"list", b"0", b"0")], session=1))
        (reply,) = await peer.replies(1)
        assert isinstance(reply, bytes) and decode_reply(reply)[0] == large[:1]
        assert nothing_is_left(peer)

    on_a_loop(test)()


async def pieces_made(peer: Peer) -> int:
    """How many replies are made in slices until all are answered."""
    found, before = 0, False
    while peer.shard.deferred_count:
        found += peer.host.assembling and not before
        before = peer.host.assembling
        await asyncio.sleep(0)
    return found


def tokens_in(message: bytes) -> list[int]:
    assert message[0] == wire_link.REPLY
    found, at = [], 16
    for _ in range(int.from_bytes(message[4:8], "little")):
        mark, token = struct.unpack_from("<IQ", message, at)
        assert mark == wire_link.PARKED_REPLY
        found.append(token)
        at += 12
    return found


def test_each_of_a_pipeline_is_made_in_slices() -> None:
    async def test() -> None:
        peer = await filled()
        large = [bytes([number]) * 400_000 for number in range(8)]
        peer.shard.execute([b"MSET", *(word for number in range(8) for word in (b"key:%d" % number, large[number]))])
        mget = [b"mget", *(b"key:%d" % number for number in range(8))]
        forms = [FORMS[0], FORMS[3], FORMS[4], FORMS[6], FORMS[8], mget, mget, FORMS[0]]
        await peer.send(run_of([frame(form[0].decode(), *form[1:]) for form in forms], session=1))
        tokens = tokens_in(await peer.message())
        assert await pieces_made(peer) == len(forms)
        for form, reply in zip(forms, await late(peer, *tokens), strict=True):
            assert reply == peer.shard.execute(form)
        assert nothing_is_left(peer)
        peer.shard.locks.check()

    on_a_loop(test)()


def test_what_has_waited_for_a_transaction_is_made_in_slices_then() -> None:
    async def test() -> None:
        peer = await filled()
        number = struct.pack("<Q", 77)
        until = struct.pack("<q", peer.shard.store.now_ms + 60_000)
        granted = peer.shard.execute([b"_lock", number, until, b"\0", struct.pack("<H", slot_of_key(b"hash"))])
        assert granted == b":%d\r\n" % wire_link.GRANTED
        await peer.send(run_of([frame("hgetall", b"hash")] * 2, session=1))
        tokens = tokens_in(await peer.message())
        for _ in range(10):
            await asyncio.sleep(0)
            assert not peer.host.assembling
        await peer.send(run_of([frame("_unlock", number)], session=2, dialect=INTERNAL))
        assert await peer.replies(1) == [b":1\r\n"]
        assert await pieces_made(peer) == 2
        assert await late(peer, *tokens) == [peer.shard.execute(FORMS[0])] * 2
        assert nothing_is_left(peer)
        peer.shard.locks.check()

    on_a_loop(test)()


def test_one_that_is_changed_before_it_is_begun_is_still_made_in_slices() -> None:
    async def test() -> None:
        peer = await filled()
        await peer.send(run_of([frame("hgetall", b"hash")], session=1) + run_of([frame("smembers", b"set")], session=2))
        tokens = [*tokens_in(await peer.message()), *tokens_in(await peer.message())]
        peer.shard.execute(CHANGES[b"set"])
        assert await pieces_made(peer) == 2
        assert await late(peer, *tokens) == [peer.shard.execute(FORMS[0]), peer.shard.execute(FORMS[3])]
        assert nothing_is_left(peer)

    on_a_loop(test)()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: b" ".join(form).decode())
def test_it_is_used_once(form: list[bytes]) -> None:
    """Policies that count uses see a read that was parked once, whether it was made in slices or in one piece in the end."""

    async def test() -> None:
        peer = await filled()
        peer.shard.evictor.set_policy("allkeys-lfu")
        peer.shard.store.lfu_log_factor = 0  # each use counts
        peer.shard.execute([b"SET", form[1] + b"x", b"v"])

        def uses() -> int:
            found, _ = decode_reply(peer.shard.execute([b"OBJECT", b"FREQ", form[1]]))
            assert isinstance(found, int)
            return found

        def change() -> None:
            # Whoever changes it uses it, too.
            at = uses()
            peer.shard.execute(CHANGES[form[1]])
            nonlocal changed
            changed = uses() - at

        changed = 0
        before, hits = uses(), peer.shard.store.hits
        await shown(peer, form)
        assert (uses() - before, peer.shard.store.hits - hits) == (1, 1)
        before, hits = uses(), peer.shard.store.hits
        await shown(peer, form, between=change)
        assert (uses() - before - changed, peer.shard.store.hits - hits) == (1, 1)

    on_a_loop(test)()


def test_its_slices_are_part_of_its_time() -> None:
    async def test() -> None:
        peer = await filled()
        for form in (FORMS[0], FORMS[8]):
            name = form[0].decode()
            alone = []
            for _ in range(3):
                began = time.perf_counter_ns()
                peer.shard.execute(form)
                alone.append((time.perf_counter_ns() - began) // 1000)
            least = min(alone) // 2
            peer.shard.configure_slowlog(least)
            before = {key: us for key, _, us, *_ in peer.shard.command_counts()}[name]
            await peer.send(run_of([frame(name, *form[1:])], session=1))
            await parked(peer)
            seen = 0
            while (message := await peer.message())[0] != wire_link.DEFERRED:
                seen = message[0]
            assert seen == wire_link.SLOW
            assert {key: us for key, _, us, *_ in peer.shard.command_counts()}[name] - before >= least
            (took,) = struct.unpack_from("<Q", message, 16)
            assert took >= least * 1000
            peer.shard.configure_slowlog(-1)

    on_a_loop(test)()


def test_of_a_key_that_changes_all_the_time_nothing_is_begun() -> None:
    async def test() -> None:
        peer = await filled()
        await shown(peer, FORMS[0], between=lambda: peer.shard.execute(CHANGES[b"hash"]))
        # What was made of it was lost; others of the same size are made in slices as before.
        await peer.send(run_of([frame("hvals", b"hash")], session=1))
        (reply,) = await peer.replies(1)
        assert reply == peer.shard.execute([b"hvals", b"hash"])
        await shown(peer, FORMS[3])
        assert nothing_is_left(peer)
        # Only for a while.
        peer = await filled()
        peer.host.restless_ns = 0
        await shown(peer, FORMS[0], between=lambda: peer.shard.execute(CHANGES[b"hash"]))
        await shown(peer, FORMS[0])
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_what_was_made_is_kept_until_its_turn() -> None:
    """However short a tick is, and whoever is served before."""

    async def test() -> None:
        peer = await filled()
        number = struct.pack("<Q", 77)
        until = struct.pack("<q", peer.shard.store.now_ms + 60_000)
        keys = [b"small:%d" % each for each in range(400)]
        slots = b"".join(struct.pack("<H", slot_of_key(key)) for key in keys)
        peer.shard.execute([b"_lock", number, until, b"\0", slots])
        await peer.send(b"".join(run_of([frame("get", key)], session=10 + each) for each, key in enumerate(keys)))
        while peer.shard.deferred_count < len(keys):
            await asyncio.sleep(0)
        peer.host.tick_ns = 0
        await peer.send(run_of([frame("hgetall", b"hash")], session=1))
        while peer.shard.deferred_count == len(keys):
            await asyncio.sleep(0)
        token = len(keys) + 1
        await in_the_middle(peer)
        peer.shard.execute([b"_unlock", number])
        while peer.shard.deferred_count:
            assert peer.host.assembling
            await asyncio.sleep(0)
        while (message := await peer.message())[0] != wire_link.DEFERRED or int.from_bytes(
            message[8:16], "little"
        ) != token:
            pass
        assert nothing_is_left(peer)

    on_a_loop(test)()


def test_it_counts_as_no_client_that_watches() -> None:
    async def test() -> None:
        peer = await filled()
        await peer.send(run_of([frame("_watch", b"list")], session=2, dialect=INTERNAL))
        assert await peer.replies(1) == [b"+OK\r\n"]
        await peer.send(run_of([frame("hgetall", b"hash")], session=1))
        token = await parked(peer)
        await in_the_middle(peer)
        watches = peer.shard.watches
        assert (watches.replies, len(watches), watches.keys) == (1, 1, 1)
        await late(peer, token)
        assert (watches.replies, len(watches), watches.keys) == (0, 1, 1)

    on_a_loop(test)()


def test_small_ones_do_not_rest_among_large_ones_that_nobody_reads() -> None:
    async def test() -> None:
        peer, _ = await with_unread()
        fill(peer)
        await peer.send(run_of([frame("mget", *KEYS)], session=1))
        large = await parked(peer)
        await in_the_middle(peer)
        await peer.send(run_of([frame("lrange", b"list", b"0", b"-1")], session=2))
        small = await parked(peer)
        replies = await late(peer, small, large)
        assert meant(FORMS[4], replies[0]) == ELEMENTS

    on_a_loop(test)()
