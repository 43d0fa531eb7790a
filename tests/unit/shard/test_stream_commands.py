"""Streams in a shard: what is freed where, evicted, moved; payloads; dialects; groups as a whole."""

from __future__ import annotations

import random
from typing import Any

import pytest
from state import state

from kache.shard.commands.dump import dump_value, restore_value
from kache.shard.engine.consumer_groups import Group
from kache.shard.engine.engine import Replay, Store
from kache.shard.engine.stream import Stream
from kache.shard.engine.stream_chunks import StreamChunks
from kache.shard.shard import Shard
from kache.wire.codec import decode_reply

NOW = 1_700_000_000_000
BINARY, RESP2, RESP3 = 0, 2, 3


class Kept:
    """What is handed over to be freed, and is not."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def hand_over(self, value: object) -> None:
        self.values.append(value)


def run(shard: Shard, *words: object, dialect: int = RESP2) -> Any:
    argv = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return decode_reply(shard.execute(argv, dialect))[0]


def filled(shard: Shard, key: str, entries: int) -> None:
    for number in range(1, entries + 1):
        run(shard, "XADD", key, number, "f", "v" * 30)


def grouped(shard: Shard, key: str, entries: int) -> None:
    filled(shard, key, entries)
    run(shard, "XGROUP", "CREATE", key, "g", 0)
    run(shard, "XREADGROUP", "GROUP", "g", "me", "STREAMS", key, ">")


# Freeing -------------------------------------------------------------------------------------------
def test_what_is_large_is_freed_elsewhere() -> None:
    kept = Kept()
    shard = Shard(now_ms=NOW, cleanup=kept)
    grouped(shard, "s", 5000)
    used = shard.store.used_memory
    assert run(shard, "XTRIM", "s", "MAXLEN", 10) == 4990
    assert run(shard, "XGROUP", "DESTROY", "s", "g") == 1
    assert [type(value) for value in kept.values] == [StreamChunks, Group]
    assert shard.store.used_memory < used // 10
    shard.store.check()
    grouped(shard, "t", 500)
    run(shard, "DEL", "t")
    grouped(shard, "u", 500)
    assert run(shard, "XGROUP", "DELCONSUMER", "u", "g", "me") == 500
    assert [type(value) for value in kept.values[2:]] == [Stream, Group]
    shard.store.check()
    for value in kept.values:
        while value.release_some(100):
            pass
        assert len(value) == 0


def test_consumers_that_share_a_group_leave_alone() -> None:
    shard = Shard(now_ms=NOW)
    filled(shard, "s", 1000)
    run(shard, "XGROUP", "CREATE", "s", "g", 0)
    for name in ("a", "b"):
        run(shard, "XREADGROUP", "GROUP", "g", name, "COUNT", 500, "STREAMS", "s", ">")
    assert run(shard, "XGROUP", "DELCONSUMER", "s", "g", "a") == 500
    assert run(shard, "XPENDING", "s", "g") == [500, b"501-0", b"1000-0", [[b"b", b"500"]]]
    shard.store.check()


def test_streams_are_evicted_with_all_that_they_have() -> None:
    shard = Shard(now_ms=NOW, maxmemory=400_000, policy="allkeys-lru")
    for number in range(40):
        grouped(shard, f"s{number}", 200)
        assert shard.store.used_memory < 500_000
    assert shard.store.evicted > 0
    assert 0 < len(shard.keyspace.keys()) < 40
    shard.store.check()


def test_chunks_are_moved_out_of_sparse_pages() -> None:
    dice = random.Random(2)
    shard = Shard(now_ms=NOW)
    for number in range(300):
        filled(shard, f"s{number}", dice.randrange(50, 400))
    for number in dice.sample(range(300), 250):
        run(shard, "DEL", f"s{number}")
    before = state(shard.store)
    slices = 0
    while shard.defragment_some(100_000):
        slices += 1
        if slices % 20 == 0:
            shard.store.check()
    assert slices > 0
    shard.store.check()
    assert state(shard.store) == before


# Copies --------------------------------------------------------------------------------------------
def test_a_copy_of_a_payload_is_the_stream() -> None:
    shard = Shard(now_ms=NOW)
    grouped(shard, "s", 300)
    run(shard, "XDEL", "s", 5, 300)
    run(shard, "XACK", "s", "g", 7, 8)
    run(shard, "XGROUP", "CREATECONSUMER", "s", "g", "idle")
    payload = dump_value(shard.keyspace, b"s")
    assert payload is not None
    shard.store.effects.record()
    restore_value(shard.keyspace, b"copy", payload, 0)
    copy = Store()
    Replay(copy).apply(*shard.store.effects.take())
    restored = state(shard.store)
    assert restored[0, b"copy"] == restored[0, b"s"]
    assert state(copy) == {(0, b"copy"): restored[0, b"copy"]}
    shard.store.check()


def test_a_copy_stands_on_its_own() -> None:
    shard = Shard(now_ms=NOW)
    grouped(shard, "{t}s", 300)
    run(shard, "COPY", "{t}s", "{t}c")
    before = state(shard.store)[0, b"{t}c"]
    run(shard, "XACK", "{t}s", "g", 1, 2)
    run(shard, "XADD", "{t}s", 1000, "f", "v")
    run(shard, "XTRIM", "{t}s", "MAXLEN", 5)
    assert state(shard.store)[0, b"{t}c"] == before
    shard.store.check()


# Shapes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dialect", [BINARY, RESP2, RESP3])
def test_the_shape_of_a_read(dialect: int) -> None:
    shard = Shard(now_ms=NOW)
    run(shard, "XADD", "s", 1, "f", "v")
    entries = [[b"1-0", [b"f", b"v"]]]
    if dialect == BINARY:
        raw = shard.execute([b"XREAD", b"STREAMS", b"s", b"0"], BINARY)
        assert raw[4:8] == bytes(4) and raw[8:13] == b"\x05\x01\x00\x00\x00" and raw[13:18] == b"\x05\x02\x00\x00\x00"
        assert shard.execute([b"XREAD", b"STREAMS", b"s", b"$"], BINARY)[4:] == b"\x02\x00\x00\x00\x00"
        return
    expected = {b"s": entries} if dialect == RESP3 else [[b"s", entries]]
    assert run(shard, "XREAD", "STREAMS", "s", 0, dialect=dialect) == expected
    null = b"_\r\n" if dialect == RESP3 else b"*-1\r\n"
    assert shard.execute([b"XREAD", b"STREAMS", b"s", b"$"], dialect) == null


def test_memory_and_encoding() -> None:
    shard = Shard(now_ms=NOW)
    filled(shard, "s", 1000)
    assert run(shard, "OBJECT", "ENCODING", "s") == b"stream"
    assert run(shard, "TYPE", "s") == "stream"
    bare = run(shard, "MEMORY", "USAGE", "s")
    assert 35_000 < bare < 60_000
    run(shard, "XGROUP", "CREATE", "s", "g", 0)
    run(shard, "XREADGROUP", "GROUP", "g", "me", "STREAMS", "s", ">")
    assert 100_000 < run(shard, "MEMORY", "USAGE", "s") - bare < 350_000


def test_an_id_of_the_clock_never_goes_back() -> None:
    shard = Shard(now_ms=NOW)
    first = run(shard, "XADD", "s", "*", "f", "v")
    assert first == b"%d-0" % NOW
    assert run(shard, "XADD", "s", "*", "f", "v") == b"%d-1" % NOW
    run(shard, "XADD", "s", f"{NOW + 5000}-7", "f", "v")
    shard.set_time(NOW + 10)
    assert run(shard, "XADD", "s", "*", "f", "v") == b"%d-8" % (NOW + 5000)
    shard.set_time(NOW + 6000)
    assert run(shard, "XADD", "s", "*", "f", "v") == b"%d-0" % (NOW + 6000)


def test_an_id_may_be_smaller_than_one_that_was_deleted() -> None:
    shard = Shard(now_ms=NOW)
    for number in (5, 10):
        run(shard, "XADD", "s", number, "f", "v")
    run(shard, "XDEL", "s", 10)
    run(shard, "XSETID", "s", 10, "MAXDELETEDID", 3)
    assert run(shard, "XSETID", "s", 6) == "OK"
    assert run(shard, "XADD", "s", 7, "f", "v") == b"7-0"
    shard.store.check()
    assert [number for number, _ in run(shard, "XRANGE", "s", "-", "+")] == [b"5-0", b"7-0"]
    assert run(shard, "XDEL", "s", 7) == 1
