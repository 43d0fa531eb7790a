"""A base written in slices and the log beside it become the state that the shard had, whatever was executed meanwhile."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from log_files import SEED, SLOTS, LiveDump, Record, counted, number, place_of
from packed_limits import LARGE_ONLY, limits
from state import state

from kache.shard.engine.engine import Keyspace, Merge, RecordError, Replay, Store, UnknownRecord, records_of
from kache.shard.engine.stream_chunks import set_node_limits
from kache.shard.log import format as log_format
from kache.shard.shard import Shard
from kache.slots import slot_of_key

NOW = 1_700_000_000_000
ROUNDS = int(os.environ.get("KACHE_MERGE_ROUNDS", "60"))
Argv = list[bytes]
ROOT = Path(__file__).parent.parent.parent.parent

NAMES = [
    b"{%d}%s" % (tag, kind) for tag in range(3) for kind in (b"a", b"b", b"l", b"h", b"s", b"z", b"t", b"x" * 40, b"")
]


def recovered(live: LiveDump, seed: bytes = SEED) -> Store:
    """What becomes of the base and the log in an empty store with this hash seed."""
    store = Store(seed)
    replay = Replay(store)
    merge = Merge(replay, live.base.seed)
    base = list(live.base.frames)
    for each in [Record(0, 0, 0, b""), *live.log.frames]:
        if each.kind:
            replay.apply(each.now_ms, each.payload)
        while base and base[0].sequence <= each.sequence:
            value = base.pop(0)
            (merge.add_values if value.kind == log_format.VALUES else merge.add_part)(value.now_ms, value.payload)
            if not base:
                merge.finish()
    store.check()
    replay.finish(live.now_ms)
    return store


def words(draw: random.Random, most: int = 4) -> list[bytes]:
    return [b"%d" % draw.randrange(30) for _ in range(draw.randint(1, most))]


def pairs(draw: random.Random) -> list[bytes]:
    return [word for name in words(draw) for word in (name, draw.randbytes(3))]


COMMANDS: list[Callable[[random.Random, Callable[[], bytes]], Argv]] = [
    lambda draw, key: [b"SET", key(), draw.randbytes(draw.choice((0, 5, 400)))],
    lambda draw, key: [b"SET", key(), b"v", b"PX", b"%d" % draw.choice((50, 5000))],
    lambda draw, key: [b"APPEND", key(), b"more"],
    lambda draw, key: [b"SETRANGE", key(), b"%d" % draw.randrange(20), b"part"],
    lambda draw, key: [b"INCR", key()],
    lambda draw, key: [b"DEL", key()],
    lambda draw, key: [b"PEXPIRE", key(), b"%d" % draw.choice((30, 5000))],
    lambda draw, key: [b"PERSIST", key()],
    lambda draw, key: [b"RENAME", key(), key()],
    lambda draw, key: [b"COPY", key(), key(), b"DB", b"%d" % draw.randrange(3), b"REPLACE"],
    lambda draw, key: [b"MOVE", key(), b"%d" % draw.randrange(3)],
    lambda draw, key: [b"RPUSH", key(), *words(draw, 9)],
    lambda draw, key: [b"LPUSH", key(), *words(draw, 9)],
    lambda draw, key: [b"LPOP", key(), b"%d" % draw.randint(1, 7)],
    lambda draw, key: [b"RPOP", key(), b"%d" % draw.randint(1, 7)],
    lambda draw, key: [b"LSET", key(), b"%d" % draw.randrange(-9, 9), b"new"],
    lambda draw, key: [b"LINSERT", key(), draw.choice((b"BEFORE", b"AFTER")), words(draw)[0], b"between"],
    lambda draw, key: [b"LREM", key(), b"%d" % draw.randrange(-2, 3), words(draw)[0]],
    lambda draw, key: [b"LTRIM", key(), b"%d" % draw.randrange(3), b"%d" % draw.randrange(-4, 12)],
    lambda draw, key: [b"SORT", key(), b"ALPHA", b"STORE", key()],
    lambda draw, key: [b"HSET", key(), *pairs(draw), *pairs(draw)],
    lambda draw, key: [b"HDEL", key(), *words(draw)],
    lambda draw, key: [b"HINCRBY", key(), words(draw)[0], b"5"],
    lambda draw, key: [b"HPEXPIRE", key(), b"%d" % draw.choice((40, 5000)), b"FIELDS", b"1", words(draw)[0]],
    lambda draw, key: [b"HPERSIST", key(), b"FIELDS", b"1", words(draw)[0]],
    lambda draw, key: [b"SADD", key(), *words(draw, 9)],
    lambda draw, key: [b"SREM", key(), *words(draw)],
    lambda draw, key: [b"SPOP", key(), b"2"],
    lambda draw, key: [b"SUNIONSTORE", key(), key(), key()],
    lambda draw, key: [b"ZADD", key(), *(w for name in words(draw, 9) for w in (b"%d" % draw.randrange(-3, 9), name))],
    lambda draw, key: [b"ZADD", key(), b"-inf", b"least", b"-0.0", b"zero", b"inf", b"most"],
    lambda draw, key: [b"ZREM", key(), *words(draw)],
    lambda draw, key: [b"ZPOPMIN", key(), b"2"],
    lambda draw, key: [b"ZUNIONSTORE", key(), b"2", key(), key()],
    lambda draw, key: [b"SETBIT", key(), b"%d" % draw.randrange(90), b"1"],
    *[lambda draw, key: [b"XADD", stream_of(key), b"5-*", *pairs(draw)]] * 4,
    lambda draw, key: [b"XADD", stream_of(key), b"MAXLEN", b"~", b"4", b"6-*", b"f", b"v"],
    lambda draw, key: [b"XDEL", stream_of(key), *(b"5-%d" % draw.randrange(30) for _ in range(3))],
    lambda draw, key: [b"XTRIM", stream_of(key), b"MAXLEN", b"%d" % draw.randrange(12)],
    lambda draw, key: [b"XSETID", stream_of(key), b"7-0"],
    lambda draw, key: [b"XGROUP", b"CREATE", stream_of(key), group(draw), b"0", b"MKSTREAM"],
    lambda draw, key: [b"XGROUP", b"DESTROY", stream_of(key), group(draw)],
    lambda draw, key: [b"XGROUP", b"SETID", stream_of(key), group(draw), b"5-2"],
    lambda draw, key: [b"XGROUP", b"DELCONSUMER", stream_of(key), group(draw), b"c1"],
    *[lambda draw, key: reading(draw, key, b">")] * 4,
    lambda draw, key: reading(draw, key, b"0"),
    lambda draw, key: [b"XACK", stream_of(key), group(draw), *(b"5-%d" % draw.randrange(20) for _ in range(4))],
    lambda draw, key: [b"XAUTOCLAIM", stream_of(key), group(draw), b"c9", b"0", b"0", b"COUNT", b"2"],
]  # fmt: skip


def stream_of(key: Callable[[], bytes]) -> bytes:
    """One of few, so that groups and entries meet."""
    return key()[:3] + b"t"


def group(draw: random.Random) -> bytes:
    return draw.choice((b"g", b"h"))


def reading(draw: random.Random, key: Callable[[], bytes], behind: bytes) -> Argv:
    consumer = b"c%d" % draw.randrange(3)
    return [b"XREADGROUP", b"GROUP", group(draw), consumer, b"COUNT", b"3", b"STREAMS", stream_of(key), behind]


@pytest.fixture(autouse=True)
def small_chunks() -> Iterator[None]:
    """Streams in parts have several."""
    set_node_limits(3)
    yield
    set_node_limits()


class Scenario:
    """Commands, time and slices of a dump in random order, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.shard = Shard(now_ms=NOW)
        self.now = NOW
        self.live = LiveDump(self.shard, NOW, draw=self.draw, large=self.draw.choice((0, 2, 2, 5, 1000)))

    def run(self) -> None:
        self.execute(self.draw.choice((0, 40, 150)))
        self.live.end_frame(self.now)
        self.live.begin()
        rounds = 0
        while self.live.slice():
            rounds += 1
            # A dump that is given a slice a command comes to an end: so is one under load.
            self.execute(self.draw.choice((0, 1, 3, 20)) if rounds < 400 else 0)
            self.live.end_frame(self.now)
        self.execute(20)
        self.live.end_frame(self.now)

    def execute(self, count: int) -> None:
        for _ in range(count):
            db = self.draw.choice((0, 0, 1, 2))
            chance = self.draw.random()
            if chance < 0.01:
                self.shard.execute([b"FLUSHALL"] if self.draw.random() < 0.3 else [b"FLUSHDB"], 2, db)
            elif chance < 0.04:
                self.shard.execute([b"SWAPDB", b"%d" % db, b"%d" % self.draw.randrange(3)], 2, db)
            elif chance < 0.15:
                self.now += self.draw.choice((1, 30, 300))
                self.shard.set_time(self.now)
                if self.draw.random() < 0.3:
                    self.shard.expire_some(10**9)
            else:
                self.shard.execute(self.draw.choice(COMMANDS)(self.draw, lambda: self.draw.choice(NAMES)), 2, db)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_dump_under_load_is_the_state(seed: int) -> None:
    scenario = Scenario(seed)
    scenario.run()
    before = state(scenario.shard.store)
    after = state(recovered(scenario.live))
    assert after == before


def test_another_hash_seed() -> None:
    """The base lies in the order of the seed in its header; the process that loads it may have another."""
    scenario = Scenario(5)
    scenario.run()
    before = state(scenario.shard.store)
    assert state(recovered(scenario.live, b"another seed 16b")) == before
    Store(SEED)  # the seed is the process's: the other tests want theirs


def test_the_rounds_see_everything() -> None:
    """The scenarios would mean little without later keys of each type, values begun anew, gone ones."""
    seen: set[str] = set()
    for seed in range(60):
        scenario = Scenario(seed)
        scenario.run()
        seen |= scenario.live.seen
    parts = {f"{kind} in parts" for kind in ("list", "hash", "set", "zset", "stream")}
    moves = {f"{name} to later" for name in ("rename", "move", "copy")}
    assert seen == parts | moves | {"gone", "begun anew", "later as a whole"}


# Every record on a key wherever the dump may be with it ---------------------------------------------------
LIST, SET, ZSET = b"RPUSH k 1 2 3 4 5 6", b"SADD k 1 2 3 4 5 6", b"ZADD k 1 a 2 b 3 c 4 d 5 e 6 f"
HASH = b"HSET k a 1 b 2 c 3 d 4 e 5 f 6"
STREAM = b"XADD k 1-1 f v|XADD k 1-2 f v|XADD k 1-3 f v|XADD k 1-4 f v|XADD k 1-5 f v|XGROUP CREATE k g 0"
READ = b"XREADGROUP GROUP g c COUNT 2 STREAMS k >"
RECORDS: dict[str, tuple[bytes, bytes]] = {
    "string_set": (LIST, b"SET k v"), "string_set_until": (LIST, b"SET k v PX 5000"),
    "string_append": (LIST, b"SET k v|APPEND k w"), "string_overlay": (LIST, b"SET k vvv|SETRANGE k 1 w"),
    "delete": (HASH, b"DEL k"), "rename": (SET, b"RENAME k {k}other"), "move": (ZSET, b"MOVE k 3"),
    "copy": (LIST, b"COPY k {k}other"), "deadline_set": (SET, b"PEXPIRE k 5000"),
    "deadline_clear": (HASH, b"PEXPIRE k 5000|PERSIST k"),
    "list_push_left": (LIST, b"LPUSH k x y"), "list_push_right": (LIST, b"RPUSH k x y"),
    "list_pop_left": (LIST, b"LPOP k 2"), "list_pop_right": (LIST, b"RPOP k 2"), "list_set": (LIST, b"LSET k 1 x"),
    "list_insert": (LIST, b"LINSERT k BEFORE 2 x"), "list_delete_range": (LIST, b"LTRIM k 1 4"),
    "list_replace": (LIST, b"SORT k DESC STORE k"),
    "hash_set": (HASH, b"HSET k a x g y"), "hash_set_keep_ttl": (HASH, b"HINCRBY k a 1"),
    "hash_delete": (HASH, b"HDEL k a f"), "field_deadline_set": (HASH, b"HPEXPIRE k 5000 FIELDS 1 a"),
    "field_deadline_clear": (HASH, b"HPEXPIRE k 5000 FIELDS 1 a|HPERSIST k FIELDS 1 a"),
    "set_add": (SET, b"SADD k 7 8"), "set_remove": (SET, b"SREM k 1 6"), "set_replace": (SET, b"SUNIONSTORE k k k"),
    "zset_add": (ZSET, b"ZADD k 9 a 0 g"), "zset_remove": (ZSET, b"ZREM k a f"), "zset_replace": (ZSET, b"ZUNIONSTORE k 1 k"),
    "stream_add": (STREAM, b"XADD k 2-1 f v"), "stream_delete": (STREAM, b"XDEL k 1-1 1-5"),
    "stream_trim": (STREAM, b"XTRIM k MAXLEN 2"), "stream_meta": (STREAM, b"XSETID k 9-9"),
    "group_put": (STREAM, b"XGROUP CREATE k h 1-2"), "group_drop": (STREAM, b"XGROUP DESTROY k g"),
    "consumer_put": (STREAM, b"XGROUP CREATECONSUMER k g c"),
    "consumer_drop": (STREAM + b"|" + READ, b"XGROUP DELCONSUMER k g c"),
    "pending_put": (STREAM, READ), "pending_drop": (STREAM + b"|" + READ, b"XACK k g 1-1"),
}  # fmt: skip


def test_the_table_has_every_record() -> None:
    """A new kind fails here until it has a row."""
    kinds = (ROOT / "kache/shard/engine/effects.pxd").read_text().split("cdef enum")[1]
    names = {name.lower() for name in re.findall(r"^    RECORD_(\w+) = \d+", kinds, re.MULTILINE)}
    assert names - {"db", "time", "flush", "swap", "settled", "shares_before"} == set(RECORDS)


@pytest.mark.parametrize("where", ["undumped", "dumped", "later", "in parts"])
@pytest.mark.parametrize("record", RECORDS)
def test_a_record_wherever_the_dump_is_with_its_key(record: str, where: str) -> None:
    with limits(LARGE_ONLY):  # what is packed is dumped in one piece
        check_record(record, where)


def check_record(record: str, where: str) -> None:
    shard = Shard(now_ms=NOW)
    live = LiveDump(shard, NOW, draw=random.Random(3), large=1000 if where == "dumped" else 0)
    before, meanwhile = RECORDS[record]

    def run(commands: bytes) -> None:
        for command in commands.split(b"|"):
            reply = shard.execute(command.split())
            assert not reply.startswith(b"-"), (command, reply)
        live.end_frame(NOW)

    run(before)
    live.begin()
    live.reach(where, b"k")
    run(meanwhile)
    assert (record, where) in live.met
    while live.slice():
        pass
    assert state(recovered(live)) == state(shard.store)


# By hand: each rule alone ---------------------------------------------------------------------------------
def cursor(db: int, slot: int, prefix: int = 0) -> bytes:
    return number(db) + number(slot) + number(prefix)


def entry(db: int, key: bytes, tag: int, body: bytes = b"") -> bytes:
    clock = b"" if tag >= 64 else bytes(4)
    return number(db) + number(slot_of_key(key)) + number(0) + number(1) + bytes([tag]) + counted(key) + clock + body


def string(db: int, key: bytes, value: bytes) -> bytes:
    return entry(db, key, 0, counted(value))


class Both:
    """A store with its merge, fed by hand."""

    def __init__(self) -> None:
        self.store = Store()
        self.replay = Replay(self.store)
        self.merge = Merge(self.replay, SEED)
        self.live = Shard(now_ms=NOW)
        self.live.store.effects.record()

    def values(self, payload: bytes) -> None:
        self.merge.add_values(NOW, payload)

    def run(self, *commands: bytes) -> None:
        for command in commands:
            assert not self.live.execute(command.split()).startswith(b"-")
        self.replay.apply(*self.live.store.effects.take())

    def keys(self, db: int = 0) -> dict[bytes, object]:
        keys = Keyspace(self.store, db)
        return {key: keys.string_get(key) if keys.type_of(key) == "string" else keys.type_of(key) for key in sorted(keys.keys())}  # fmt: skip


EARLY, LATE = sorted([b"a", b"b"], key=place_of)


def halfway(both: Both) -> None:
    """The walk stands between EARLY and LATE, before which both were set."""
    both.run(b"SET %s old" % EARLY, b"SET %s old" % LATE)
    assert both.keys() == {}
    both.values(cursor(0, slot_of_key(EARLY) + 1) + string(0, EARLY, b"old"))


def test_an_effect_on_what_is_dumped_is_applied_and_on_the_rest_is_not() -> None:
    both = Both()
    halfway(both)
    both.run(b"APPEND %s !" % EARLY, b"APPEND %s !" % LATE)
    assert both.keys() == {EARLY: b"old!"}
    both.values(cursor(0, SLOTS) + string(0, LATE, b"old!"))
    both.merge.finish()
    both.run(b"APPEND %s !" % LATE)
    assert both.keys() == {EARLY: b"old!", LATE: b"old!!"}


def test_a_rename_across_the_cursor() -> None:
    both = Both()
    halfway(both)
    both.run(b"RENAME %s %s" % (EARLY, LATE))
    assert both.keys() == {}
    both.run(b"RENAME %s %s" % (LATE, EARLY))
    assert both.keys() == {}
    both.run(b"APPEND %s !" % EARLY)
    both.values(cursor(0, slot_of_key(EARLY) + 1) + string(0, EARLY, b"old!"))
    both.run(b"APPEND %s !" % EARLY)
    assert both.keys() == {EARLY: b"old!!"}


def test_databases_are_swapped_with_their_cursors() -> None:
    both = Both()
    halfway(both)
    both.run(b"SWAPDB 0 1", b"SET %s new" % EARLY)
    assert both.keys() == {} and both.keys(1) == {EARLY: b"old"}
    both.run(b"SWAPDB 0 1", b"FLUSHDB")
    assert both.keys() == {} and both.keys(1) == {}


def test_what_is_past_its_deadline_is_loaded_and_decides_later_effects() -> None:
    both = Both()
    body = b"\x01" + counted(b"8")  # zigzag -1: a millisecond before the frame
    both.values(cursor(0, SLOTS) + entry(0, EARLY, 16, body))
    assert Keyspace(both.store, 0).size() == 1
    both.run(b"INCR %s" % EARLY)
    assert both.keys() == {EARLY: b"1"}


def part(key: bytes, at: int, flags: int, elements: list[bytes], deadline: int = 0) -> bytes:
    end = bytes(4) + number(deadline) if flags & 2 else b""
    body = b"\x01" + number(9) + number(len(elements)) + b"".join(map(counted, elements))
    return number(0) + counted(key) + number(at) + bytes([flags]) + end + body


def test_a_list_in_parts_keeps_its_first_elements() -> None:
    both = Both()
    both.run(b"RPUSH %s 0 1 2 3 4 5" % EARLY)
    both.values(cursor(0, SLOTS) + entry(0, EARLY, 64))
    both.merge.add_part(NOW, part(EARLY, 0, 1, [b"0", b"1", b"2"]))
    both.run(b"LPUSH %s x" % EARLY, b"LSET %s 1 y" % EARLY, b"RPUSH %s 6" % EARLY, b"LSET %s -1 z" % EARLY)
    both.run(b"LTRIM %s 0 1" % EARLY, b"RPUSH %s a b c" % EARLY)  # x y a b c, of which two have come
    with pytest.raises(RecordError, match="a list of which"):
        both.merge.add_part(NOW, part(EARLY, 5, 0, []))
    both.merge.add_part(NOW, part(EARLY, 2, 2, [b"a", b"b", b"c"]))
    both.merge.finish()
    keys = Keyspace(both.store, 0)
    assert list(keys.list_get(EARLY) or ()) == [b"x", b"y", b"a", b"b", b"c"] == list(both.live.keyspace.list_get(EARLY) or ())  # fmt: skip


def test_a_value_that_is_owed_is_an_error() -> None:
    both = Both()
    both.values(cursor(0, SLOTS) + entry(0, EARLY, 64))
    with pytest.raises(RecordError, match="the base ends without the value of"):
        both.merge.finish()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "a number that does not end"),
        (cursor(16, 0), "database 16"),
        (cursor(0, SLOTS + 1), "a place that is none"),
        (cursor(0, SLOTS, 1), "a place that is none"),
        (cursor(0, 5) + string(0, b"a", b"v"), "a key that has no place here"),
        (cursor(0, SLOTS) + string(1, b"a", b"v"), "a key that has no place here"),
        (cursor(0, SLOTS) + entry(0, b"a", 65), "a value of kind 65"),
        (cursor(0, SLOTS) + entry(0, b"a", 66), "a value of kind 66"),
        (cursor(0, SLOTS) + entry(0, b"a", 6), "a value of kind 6"),
        (cursor(0, SLOTS) + string(0, b"a", b"v")[:-1], "bytes beyond the end"),
        (cursor(0, SLOTS) + entry(0, b"a", 1, number(9) + number(2**40)), "a count of"),
        (cursor(0, SLOTS) + number(0) + number(slot_of_key(b"a")) + number(0) + number(1), "an entry beyond the end|a count of"),
    ],
)  # fmt: skip
def test_damaged_values_are_refused(payload: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        Both().values(payload)


def test_a_base_does_not_go_back() -> None:
    both = Both()
    both.values(cursor(0, 100))
    with pytest.raises(RecordError, match="lies behind"):
        both.values(cursor(0, 99))


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_mutated_frames_are_refused_or_read(at: int) -> None:
    """Never a crash, nor memory by a declared length; what was read before stays whole."""
    draw = random.Random(at)
    scenario = Scenario(at % ROUNDS)
    scenario.run()
    for each in draw.sample(scenario.live.base.frames, min(20, len(scenario.live.base.frames))):
        if not each.payload:
            continue
        both = Both()
        damaged = bytearray(each.payload)
        for _ in range(draw.choice((1, 1, 3))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            (both.merge.add_values if each.kind == log_format.VALUES else both.merge.add_part)(NOW, bytes(damaged))
        except RecordError:
            pass
        both.store.check()


def test_an_unknown_record_is_told_apart() -> None:
    with pytest.raises(UnknownRecord, match="the unknown kind 99"):
        Replay(Store()).apply(NOW, b"\x63\x01k")
    with pytest.raises(UnknownRecord, match="the unknown kind 90"):
        records_of(NOW, b"\x5a\x01k")


def test_a_transaction_that_is_settled_changes_nothing() -> None:
    store = Store()
    Replay(store).apply(NOW, bytes([120]) + number(7) + bytes([8, 1]) + b"k" + counted(b"v"))
    assert Keyspace(store, 0).string_get(b"k") == b"v"
    assert [name for name, *_ in records_of(NOW, bytes([120]) + number(7))] == ["settled"]
