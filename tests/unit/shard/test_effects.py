"""What the mutators tell: events by their names, interest by slot, records, and refusal before anything is changed."""

from __future__ import annotations

import random

import pytest
from state import state

from kache.shard.commands.dump import dump_value
from kache.shard.commands.registry import handler_of
from kache.shard.engine.effects import KINDS, Awaited, Effects, Listener, kind_of
from kache.shard.engine.engine import Keyspace, RecordError, Replay, Store, image_of
from kache.shard.shard import Shard
from kache.slots import slot_of_key

NOW = 1_700_000_000_000

Event = tuple[str, int, int, bytes]


@pytest.fixture
def shard() -> Shard:
    return Shard(now_ms=NOW)


def heard_by(shard: Shard, *, everything: bool = True) -> list[Event]:
    events: list[Event] = []
    shard.store.effects.add_observer(Listener(lambda *event: events.append(event)), everything=everything)
    return events


EVENTS = [
    ("SET k v", ["set k"]),
    ("SET k v EX 10", ["set k", "expire k"]),
    ("SET n 5 KEEPTTL", ["set n"]),
    ("SETEX k 10 v", ["set k", "expire k"]),
    ("MSET a 1 b 2", ["set a", "set b"]),
    ("INCR n", ["incrby n"]),
    ("INCRBYFLOAT n 1.5", ["incrbyfloat n"]),
    ("APPEND k x", ["append k"]),
    ("SETRANGE k 1 x", ["setrange k"]),
    ("SETBIT k 1 1", ["setbit k"]),
    ("BITFIELD k SET u8 0 7", ["setbit k"]),
    ("BITOP NOT d n", ["set d"]),
    ("GETDEL n", ["del n"]),
    ("GETEX n PERSIST", []),
    ("GETEX n EX 5", ["expire n"]),
    ("DEL n missing", ["del n"]),
    ("EXPIRE n 10", ["expire n"]),
    ("EXPIRE n -1", ["expired n"]),
    ("PERSIST timed", ["persist timed"]),
    ("RENAME n m", ["rename_from n", "rename_to m"]),
    ("COPY n m", ["copy_to m"]),
    ("MOVE n 3", ["move_from n", "move_to n"]),
    ("PFADD p a", ["pfadd p"]),
    ("RPUSH l x y z", ["rpush l"]),
    ("LPUSH l x", ["lpush l"]),
    ("LPOP l", ["lpop l"]),
    ("RPOP l 3", ["rpop l", "del l"]),
    ("LSET l 0 q", ["lset l"]),
    ("LINSERT l AFTER a q", ["linsert l"]),
    ("LREM l 0 a", ["lrem l"]),
    ("LTRIM l 1 1", ["ltrim l"]),
    ("SORT l ALPHA STORE d", ["sortstore d"]),
    ("HSET h f v g w", ["hset h"]),
    ("HINCRBY h n 1", ["hincrby h"]),
    ("HINCRBYFLOAT h n 1", ["hincrbyfloat h"]),
    ("HDEL h a b", ["hdel h", "del h"]),
    ("HEXPIRE h 10 FIELDS 1 a", ["hexpire h"]),
    ("HEXPIREAT h 1 FIELDS 1 a", ["hexpired h"]),
    ("HPERSIST h FIELDS 1 a", []),
    ("SADD s x y", ["sadd s"]),
    ("SREM s a", ["srem s"]),
    ("SPOP s", ["spop s"]),
    ("SINTERSTORE d s s", ["sinterstore d"]),
    ("SUNIONSTORE d s", ["sunionstore d"]),
    ("SDIFFSTORE n missing", ["del n"]),
    ("ZADD z 1 x 2 y", ["zadd z"]),
    ("ZINCRBY z 1 a", ["zincr z"]),
    ("ZREM z a", ["zrem z"]),
    ("ZREMRANGEBYRANK z 0 0", ["zremrangebyrank z"]),
    ("ZREMRANGEBYSCORE z 1 1", ["zremrangebyscore z"]),
    ("ZREMRANGEBYLEX z - +", ["zremrangebylex z", "del z"]),
    ("ZPOPMIN z", ["zpopmin z"]),
    ("ZPOPMAX z", ["zpopmax z"]),
    ("ZUNIONSTORE d 1 z", ["zunionstore d"]),
    ("ZINTERSTORE d 1 z", ["zinterstore d"]),
    ("ZDIFFSTORE d 1 z", ["zdiffstore d"]),
    ("ZRANGESTORE d z 0 -1", ["zrangestore d"]),
    ("GEOADD g 1 1 x", ["zadd g"]),
    ("GEOSEARCHSTORE d geo FROMLONLAT 1 1 BYRADIUS 9 km", ["geosearchstore d"]),
    ("GEORADIUS geo 1 1 9 km STORE d", ["georadiusstore d"]),
    ("XADD x 3 f v", ["xadd x"]),
    ("XADD x MAXLEN 1 4-* f v", ["xadd x", "xtrim x"]),
    ("XDEL x 1 2", ["xdel x"]),
    ("XTRIM x MAXLEN 1", ["xtrim x"]),
    ("XTRIM x MAXLEN 5", []),
    ("XSETID x 9", ["xsetid x"]),
    ("XGROUP CREATE x h 0", ["xgroup-create x"]),
    ("XGROUP CREATE y h 0 MKSTREAM", ["xgroup-create y"]),
    ("XGROUP SETID x g 1", ["xgroup-setid x"]),
    ("XGROUP DESTROY x g", ["xgroup-destroy x"]),
    ("XGROUP CREATECONSUMER x g c", ["xgroup-createconsumer x"]),
    ("XGROUP DELCONSUMER x g d", ["xgroup-delconsumer x"]),
    ("XREADGROUP GROUP g c STREAMS x >", ["xgroup-createconsumer x"]),
    ("XREADGROUP GROUP g d STREAMS x >", []),
    ("XACK x g 1", []),
    ("XCLAIM x g d 0 1", []),
    ("XAUTOCLAIM x g c 0 0", ["xgroup-createconsumer x"]),
    ("GET n", []),
    ("EXISTS n", []),
    ("FLUSHDB", ["flushing "]),
    ("SWAPDB 0 1", ["swapping "]),
]


@pytest.mark.parametrize(("command", "expected"), EVENTS, ids=[command for command, _ in EVENTS])
@pytest.mark.parametrize("compiled", [True, False])
def test_events_have_the_real_servers_names(shard: Shard, command: str, expected: list[str], compiled: bool) -> None:
    setup = [
        "SET n 5",
        "SET timed v EX 99",
        "RPUSH l a b c",
        "HSET h a 1 b 2",
        "SADD s a b",
        "ZADD z 1 a 2 b",
        "GEOADD geo 1 1 m",
        "XADD x 1 f v",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g d STREAMS x >",
        "XADD x 2 f v",
    ]
    for line in setup:
        shard.execute(line.encode().split())
    if not compiled:
        for name in shard.compiled_commands():
            shard.replace_handler(name, handler_of(name))
    events = heard_by(shard)
    reply = shard.execute(command.encode().split())
    assert not reply.startswith(b"-"), reply
    assert [f"{event} {key.decode()}" for event, _, _, key in events if event != "new"] == expected


def test_an_event_names_database_and_slot(shard: Shard) -> None:
    events = heard_by(shard)
    shard.execute([b"SET", b"k", b"v"], 2, 7)
    shard.execute([b"MOVE", b"k", b"2"], 2, 7)
    slot = slot_of_key(b"k")
    assert events == [
        ("new", 7, slot, b"k"),
        ("set", 7, slot, b"k"),
        ("new", 2, slot, b"k"),
        ("move_from", 7, slot, b"k"),
        ("move_to", 2, slot, b"k"),
    ]


def test_keys_that_go_by_themselves_name_their_database(shard: Shard) -> None:
    shard.execute([b"SET", b"k", b"v", b"PX", b"5"], 2, 7)
    shard.execute([b"SET", b"j", b"v", b"PX", b"5"], 2, 3)
    shard.execute([b"HSET", b"h", b"f", b"v"], 2, 5)
    shard.execute([b"HPEXPIRE", b"h", b"5", b"FIELDS", b"1", b"f"], 2, 5)
    events = heard_by(shard)
    shard.set_time(NOW + 10)
    shard.execute([b"GET", b"k"], 2, 7)
    assert [event[:2] for event in events] == [("expired", 7)]
    assert not shard.expire_some(10**9)
    assert [event[:2] for event in events[1:]] == [("expired", 3), ("hexpired", 5), ("del", 5)]
    shard.execute([b"SET", b"big", bytes(5000)], 2, 9)
    shard.evictor.set_policy("allkeys-random")
    shard.set_maxmemory(1000)
    assert not shard.evict_some(10**9)
    assert events[-1][:2] == ("evicted", 9)


def test_every_kind_has_a_name_of_its_own() -> None:
    assert [kind_of(name) for name, _ in KINDS] == list(range(len(KINDS)))
    with pytest.raises(KeyError):
        kind_of("no such event")


def test_interest_is_by_slot(shard: Shard) -> None:
    events = heard_by(shard, everything=False)
    shard.execute([b"SET", b"k", b"v"])
    assert events == []
    shard.store.effects.watch_slot(slot_of_key(b"k"))
    shard.store.effects.watch_slot(slot_of_key(b"k"))
    shard.execute([b"SET", b"other", b"v"])
    shard.execute([b"SET", b"k", b"v"])
    assert [event[0] for event in events] == ["set"]
    shard.store.effects.unwatch_slot(slot_of_key(b"k"))
    shard.execute([b"DEL", b"k"])
    assert [event[0] for event in events] == ["set", "del"]
    shard.store.effects.unwatch_slot(slot_of_key(b"k"))
    shard.execute([b"SET", b"k", b"v"])
    assert len(events) == 2
    with pytest.raises(ValueError, match="nobody watches"):
        shard.store.effects.unwatch_slot(slot_of_key(b"k"))


def test_flushing_and_swapping_are_told_before_they_happen(shard: Shard) -> None:
    shard.execute([b"SET", b"k", b"v"])
    seen: list[tuple[str, int]] = []
    shard.store.effects.add_observer(
        Listener(lambda event, *_: seen.append((event, Keyspace(shard.store).size()))), everything=True
    )
    shard.execute([b"SWAPDB", b"0", b"1"])
    shard.execute([b"SWAPDB", b"0", b"1"])
    shard.execute([b"FLUSHALL"])
    assert seen == [("swapping", 1), ("swapping", 0), ("flushing", 1)]


def test_a_listener_that_fails_harms_nobody(shard: Shard, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    shard.store.effects.add_observer(Listener(fail), everything=True)
    assert shard.execute([b"SET", b"k", b"v"]) == b"+OK\r\n"
    assert "a listener failed" in caplog.text


def test_copies_beside_the_data_are_not_told_and_not_evicted(shard: Shard) -> None:
    other = Shard(now_ms=NOW)
    other.execute([b"ZADD", b"far", b"1", b"m", b"2", b"n"])
    found = image_of(other.keyspace, b"far")
    assert found is not None
    shard.execute([b"ZADD", b"near", b"5", b"m"])
    for number in range(50):
        shard.execute([b"SET", b"filler:%d" % number, bytes(300), b"EX", b"99"])
    shard.evictor.set_policy("volatile-ttl")
    shard.set_maxmemory(shard.store.used_memory - 2000)
    dirty = shard.store.dirty
    evicted = shard.store.evicted
    events = heard_by(shard)
    request = [b"_with", b"1", b"far", found[1], b"zunionstore", b"near", b"2", b"near", b"far"]
    assert shard.execute(request, 1) == b":2\r\n"
    assert shard.store.evicted > evicted
    told = [(event, key) for event, _, _, key in events if event != "evicted"]
    assert told == [("zunionstore", b"near")]
    assert shard.store.dirty - dirty == 1 + shard.store.evicted - evicted
    assert not shard.keyspace.exists(b"far")


def test_what_nobody_cares_about_leaves_no_record(shard: Shard) -> None:
    effects: Effects = shard.store.effects
    shard.execute([b"SET", b"k", b"v"])
    assert effects.pending == 0 and effects.take()[1] == b""
    effects.record()
    shard.execute([b"SET", b"k", b"v"])
    assert effects.pending > 0


def test_records_are_small(shard: Shard) -> None:
    shard.store.effects.record()
    shard.execute([b"SET", b"k" * 16, b"v" * 32])
    assert len(shard.store.effects.take()[1]) == 51
    shard.execute([b"SET", b"k" * 16, b"v" * 32, b"PX", b"60000"])
    assert len(shard.store.effects.take()[1]) <= 58
    shard.execute([b"SADD", b"s", *(b"%d" % number for number in range(300))])
    _, records = shard.store.effects.take()
    # Three records, the key once: two bytes an element beyond its own.
    assert len(records) < 300 + 10 + 2 * 90 + 3 * 200 + 10


def number_of(value: int) -> bytes:
    """LEB128."""
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128,)) + number_of(value >> 7)


def test_records_of_strings_are_the_same_by_the_short_way_and_the_long(shard: Shard) -> None:
    """SETs around every limit of the short way, byte for byte against the format."""
    draw = random.Random(11)
    sizes = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 33, 126, 127, 128, 511, 512, 700, 5000)
    keys = [b"", *(bytes(draw.choices(b"ab", k=draw.choice(sizes[1:14]))) for _ in range(12))]
    keys += [b"x" * size for size in sizes[10:]]
    shard.store.effects.record()
    for _ in range(40):
        now, db, before, expected = NOW, 0, None, b""
        start = None
        for _ in range(draw.randrange(1, 30)):
            if draw.random() < 0.1:
                shard.set_time(shard.store.now_ms + draw.randrange(1, 300))
            key, value = draw.choice(keys), bytes(draw.choice(sizes))
            database = draw.choice((db, db, db, 0, 9))
            assert shard.execute([b"SET", key, value], 2, database) == b"+OK\r\n"
            if start is None:
                start = now = shard.store.now_ms
            if shard.store.now_ms != now:
                now, before = shard.store.now_ms, None
                expected += b"\x02" + number_of(2 * (now - start))
            if database != db:
                db, before = database, None
                expected += b"\x01" + number_of(db)
            expected += b"\x88" if key == before else b"\x08" + number_of(len(key)) + key
            expected += number_of(len(value)) + value
            before = key
        assert shard.store.effects.take() == (start, expected)


def test_damaged_records_are_refused(shard: Shard) -> None:
    """Any byte changed or missing: an error that says where, or another history, but never a crash or a huge allocation."""
    shard.store.effects.record()
    for line in (
        "SET a 1",
        "RPUSH l x y",
        "HSET h f v",
        "HPEXPIRE h 500 FIELDS 1 f",
        "ZADD z 1 m",
        "SADD s q",
        "RENAME a b",
    ):
        shard.execute(line.encode().split())
    frame_ms, records = shard.store.effects.take()
    draw = random.Random(4)
    refused = 0
    for at in range(len(records)):
        for damaged in (records[:at], records[:at] + bytes((draw.randrange(256),)) + records[at + 1 :]):
            store = Store()
            try:
                Replay(store).apply(frame_ms, damaged)
            except RecordError as error:
                assert "at byte" in str(error)
                refused += 1
            store.check()
    assert refused > len(records)


@pytest.mark.parametrize(
    "records",
    [
        b"\x10\x01k",
        b"\x90",
        b"\x7f\x01k",
        b"\x01\x10",
        b"\x08\x01k\xff\xff\xff\xff\x0f",
        b"\x20\x01k\xff\xff\x03a",
        b"\x08\xff",
    ],
    ids=["delete nothing", "no key before", "unknown", "database 16", "value beyond", "elements beyond", "key beyond"],
)
def test_impossible_records_are_refused(records: bytes) -> None:
    store = Store()
    with pytest.raises(RecordError):
        Replay(store).apply(NOW, records)
    store.check()


LARGE = [
    [b"SET", b"k", b"x" * 200_000],
    [b"SET", b"k", b"x" * 200_000, b"PX", b"500000"],
    [b"APPEND", b"k", b"x" * 200_000],
    [b"SETRANGE", b"k", b"100000", b"x" * 200_000],
    [b"RPUSH", b"l", b"x" * 200_000, *(b"%d" % number for number in range(20_000))],
    [b"LINSERT", b"list", b"AFTER", b"a", b"x" * 200_000],
    [b"LSET", b"list", b"0", b"x" * 200_000],
    [b"LREM", b"list", b"0", b"odd"],
    [b"SORT", b"many", b"ALPHA", b"STORE", b"l"],
    [b"HSET", b"h", b"f" * 100_000, b"x" * 200_000],
    [b"HDEL", b"hash", b"f" * 100_000],
    [b"SADD", b"s", b"x" * 200_000],
    [b"SUNIONSTORE", b"s", b"many"],
    [b"ZADD", b"z", b"1", b"x" * 200_000],
    [b"ZREMRANGEBYRANK", b"zset", b"0", b"-2"],
    [b"ZRANGESTORE", b"z", b"zset", b"0", b"-1"],
    [b"COPY", b"hash", b"n" * 100_000],
    [b"RENAME", b"hash", b"n" * 100_000],
    [b"DEL", b"n" * 200_000, b"key" * 50_000],
]


@pytest.mark.parametrize("argv", LARGE, ids=[b" ".join(argv)[:30].decode() for argv in LARGE])
def test_the_first_record_of_a_frame_may_be_large(shard: Shard, argv: list[bytes]) -> None:
    names = [b"member:%d" % number for number in range(20_000)]
    setup = [
        [b"RPUSH", b"list", b"a", *(b"odd" if number % 2 else b"even" for number in range(20_000))],
        [b"SADD", b"many", *names],
        [b"ZADD", b"zset", *(word for name in names for word in (b"1", name))],
        [b"HSET", b"hash", b"f" * 100_000, b"v" * 100_000, b"g", b"w"],
        [b"HPEXPIRE", b"hash", b"90000", b"FIELDS", b"1", b"f" * 100_000],
        [b"SET", b"key" * 50_000, b"v"],
    ]
    copy = Store()
    replay = Replay(copy)
    for line in (*setup, argv):
        shard.store.effects.record()
        assert not shard.execute(line).startswith(b"-"), line[:2]
        replay.apply(*shard.store.effects.take())
    assert state(copy) == state(shard.store)


def test_a_restored_hash_names_its_timed_fields_twice(shard: Shard) -> None:
    for number in range(50):
        field = b"%d" % number + b"f" * 5000
        shard.execute([b"HSET", b"h", field, b"v"])
        shard.execute([b"HPEXPIRE", b"h", b"80000", b"FIELDS", b"1", field])
    payload = dump_value(shard.keyspace, b"h")
    assert payload is not None
    shard.store.effects.record()
    assert shard.execute([b"RESTORE", b"h2", b"500", payload]) == b"+OK\r\n"
    copy = Store()
    Replay(copy).apply(*shard.store.effects.take())
    shard.execute([b"DEL", b"h"])
    assert state(copy) == state(shard.store)


def test_evicting_what_has_expired_is_no_eviction() -> None:
    shard = Shard(now_ms=NOW, maxmemory=3000, policy="volatile-ttl")
    events = heard_by(shard)
    shard.store.effects.record()
    shard.execute(b"SET k v PX 10".split())
    shard.execute([b"SET", b"big", bytes(2400)])
    shard.set_time(NOW + 20)
    shard.execute([b"SET", b"other", bytes(600)])
    assert [event[0] for event in events if event[3] == b"k"] == ["new", "set", "expire", "expired"]
    copy = Store()
    Replay(copy).apply(*shard.store.effects.take())
    copy.set_time(NOW + 20)
    assert state(copy) == state(shard.store)


def test_a_key_that_expires_again_is_told_again(shard: Shard) -> None:
    """Also if nobody cared about anything in between, and no command has been executed since."""
    events = heard_by(shard, everything=False)
    slot = slot_of_key(b"lock")
    for round_ in range(2):
        shard.execute(b"SET lock v PX 100".split())
        shard.store.effects.watch_slot(slot)
        shard.set_time(NOW + 200 * (round_ + 1))
        shard.expire_some(10**9)
        shard.store.effects.unwatch_slot(slot)
    assert [event[0] for event in events] == ["expired", "expired"]


def test_an_observer_can_leave(shard: Shard) -> None:
    events: list[Event] = []
    observer = Listener(lambda *event: events.append(event))
    shard.store.effects.add_observer(observer, everything=True)
    slots = heard_by(shard, everything=False)
    shard.execute([b"SET", b"k", b"v"])
    assert [event[0] for event in events] == ["new", "set"]
    # Who cares about some slots only does not hear of others because somebody else does.
    assert slots == []
    shard.store.effects.remove_observer(observer)
    shard.execute([b"SET", b"k", b"v"])
    assert len(events) == 2
    with pytest.raises(ValueError, match="not in list"):
        shard.store.effects.remove_observer(observer)


def test_changes_of_awaited_keys_are_noted_in_their_order(shard: Shard) -> None:
    heard: list[tuple[str, int]] = []
    woken: list[int] = []
    changes = Awaited(lambda event, db, *_: heard.append((event, db)), lambda: woken.append(len(changes.ready)))
    shard.store.effects.add_observer(changes, everything=True)
    changes.places.update({(0, b"a"): 1, (0, b"b"): 1, (1, b"c"): 1})
    for key in (b"other", b"b", b"a", b"b", b"c"):
        shard.execute([b"RPUSH", key, b"x"])
    assert list(changes.ready) == [(0, b"b"), (0, b"a")] and woken == [0], "with the first alone"
    changes.ready.clear()
    changes.deaf = True
    shard.execute([b"LPOP", b"a"])
    assert not changes.ready
    changes.deaf = False
    shard.execute([b"RPUSH", b"a", b"x"])
    assert list(changes.ready) == [(0, b"a")] and woken == [0, 0]
    shard.execute([b"FLUSHALL"])
    assert [event for event, _ in heard] == ["flushing"]


def test_a_refused_command_with_copies_counts_no_change(shard: Shard) -> None:
    shard.execute([b"SADD", b"s", b"a"])
    found = image_of(shard.keyspace, b"s")
    assert found is not None
    good = found[1]
    events = heard_by(shard)
    dirty = shard.store.dirty
    assert shard.execute([b"_with", b"2", b"x", good, b"y", good[:-1], b"sunion", b"x", b"y"], 1).startswith(b"-")
    assert shard.store.dirty == dirty and events == [] and not shard.keyspace.exists(b"x")
    assert shard.execute([b"_with", b"1", b"x", good, b"sadd", b"x", b"b"], 1).startswith(b"-ERR sadd cannot write")
    shard.execute([b"SADD", b"s", b"b"])
    assert [event[0] for event in events] == ["sadd"]
