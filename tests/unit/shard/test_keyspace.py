"""The shard's keyspace against plain dictionaries: seeded random operations, every invariant checked on the way."""

from __future__ import annotations

import random

import pytest

from kache.errors import CommandError
from kache.shard.engine.engine import Keyspace
from kache.shard.engine.memory import seed_random
from kache.shard.service.statistics import resident_memory
from kache.shard.shard import Shard

NOW = 1_700_000_000_000


@pytest.fixture
def shard() -> Shard:
    seed_random(7)
    return Shard(now_ms=NOW, hash_seed=b"0123456789abcdef")


@pytest.fixture
def keys(shard: Shard) -> Keyspace:
    return shard.keyspace


class Model:
    """What the keyspace should hold: key -> (value, deadline or 0)."""

    def __init__(self) -> None:
        self.data: dict[bytes, tuple[object, int]] = {}
        self.now = NOW

    def get(self, key: bytes) -> tuple[object, int] | None:
        entry = self.data.get(key)
        if entry is not None and entry[1] and entry[1] <= self.now:
            del self.data[key]
            return None
        return entry


def compare(keys: Keyspace, model: Model) -> None:
    """Everything that is in one is in the other."""
    living = [key for key in list(model.data) if model.get(key) is not None]
    assert sorted(keys.keys()) == sorted(living)
    for key in living:
        value, deadline = model.data[key]
        assert keys.deadline_of(key) == (deadline or -1)
        if isinstance(value, bytes):
            assert keys.string_get(key) == value
        elif isinstance(value, dict):
            table = keys.hash_get(key)
            assert table is not None and dict(table.items()) == value and len(table) == len(value)
        else:
            assert isinstance(value, set)
            table = keys.set_get(key)
            assert table is not None and set(table.fields()) == value


def step(keys: Keyspace, model: Model, draw: random.Random, names: list[bytes]) -> None:
    """One random change to both, and what it returned."""
    key = draw.choice(names)
    entry = model.get(key)
    value = entry[0] if entry else None
    deadline = entry[1] if entry else 0
    payload = draw.randbytes(draw.choice((0, 1, 20, 32, 300, 70_000) if draw.random() < 0.05 else (0, 1, 20, 32, 60)))
    kind = draw.randrange(12)
    if kind <= 2:
        when = draw.choice((0, 0, model.now + draw.randrange(1, 2000)))
        keys.string_set(key, payload, when)
        model.data[key] = (payload, when)
    elif kind == 3:
        assert keys.delete(key) == (entry is not None)
        model.data.pop(key, None)
    elif kind in (4, 11) and (value is None or isinstance(value, bytes)):
        change_string(keys, model, draw, key, value, deadline, payload)
    elif kind == 5 and (value is None or isinstance(value, dict)):
        field = b"f%d" % draw.randrange(40)
        fields = dict(value or {})
        assert keys.hash_set(key, field, payload) == (field not in fields)
        fields[field] = payload
        model.data[key] = (fields, deadline)
    elif kind == 6 and isinstance(value, dict):
        field = b"f%d" % draw.randrange(40)
        fields = dict(value)
        assert keys.hash_delete(key, field) == (fields.pop(field, None) is not None)
        if fields:
            model.data[key] = (fields, deadline)
        else:
            del model.data[key]
    elif kind == 7 and (value is None or isinstance(value, set)):
        member = b"m%d" % draw.randrange(40)
        members = set(value or ())
        assert keys.set_add(key, member) == (member not in members)
        model.data[key] = (members | {member}, deadline)
    elif kind in (8, 9, 10) and entry is not None:
        change_key(keys, model, draw, key, draw.choice(names))


def change_string(
    keys: Keyspace, model: Model, draw: random.Random, key: bytes, value: bytes | None, deadline: int, payload: bytes
) -> None:
    """Appends to a string, or writes into it."""
    if value is None or not payload or draw.random() < 0.5:
        grown = (value or b"") + payload
        assert keys.string_append(key, payload) == len(grown)
    else:
        offset = draw.randrange(80)
        grown = value.ljust(offset, b"\0")[:offset] + payload + value[offset + len(payload) :]
        assert keys.string_overlay(key, offset, payload) == len(grown)
    model.data[key] = (grown, deadline)


def change_key(keys: Keyspace, model: Model, draw: random.Random, key: bytes, target: bytes) -> None:
    """Changes the deadline of a key that exists, renames it or copies it, whatever it holds."""
    value, deadline = model.data[key]
    match draw.randrange(4):
        case 0:
            when = model.now + draw.randrange(-5, 3000)
            assert keys.deadline_set(key, when)
            if when <= model.now:
                del model.data[key]
            else:
                model.data[key] = (value, when)
        case 1:
            assert keys.deadline_clear(key) == bool(deadline)
            model.data[key] = (value, 0)
        case 2:
            keys.rename(key, target)
            model.data[target] = model.data[key]
            if target != key:
                del model.data[key]
        case _ if target != key:
            keys.copy(key, target, 0)
            model.data[target] = model.data[key]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("one_slot", [False, True])
def test_random_operations(shard: Shard, keys: Keyspace, seed: int, one_slot: bool) -> None:
    draw = random.Random(seed)
    tag = b"{t}" if one_slot else b""
    names = [tag + b"key:%d" % number for number in range(120)] + [tag + b"k" * 300]
    model = Model()
    for number in range(6000):
        step(keys, model, draw, names)
        if draw.random() < 0.01:
            model.now += draw.randrange(400)
            shard.set_time(model.now)
        if number % 500 == 0:
            keys.store.check()
            compare(keys, model)
    compare(keys, model)
    keys.flush(None)
    keys.store.check()
    assert keys.store.used_memory == 0 and keys.size() == 0


@pytest.mark.parametrize("tag", [b"", b"{one}"])
def test_tables_grow_and_shrink(keys: Keyspace, tag: bytes) -> None:
    names = [tag + b"%d" % number for number in range(20_000)]
    for name in names:
        keys.string_set(name, name)
    keys.store.check()
    assert keys.size() == len(names)
    random.Random(3).shuffle(names)
    for number, name in enumerate(names):
        assert keys.delete(name)
        if number % 4000 == 0:
            keys.store.check()
    assert keys.size() == 0
    keys.store.check()
    assert keys.store.used_memory == 0


@pytest.mark.parametrize("tag", [b"", b"{one}"])
def test_a_scan_returns_what_is_there_throughout(keys: Keyspace, tag: bytes) -> None:
    draw = random.Random(5)
    stay = {tag + b"stay:%d" % number for number in range(3000)}
    for name in stay:
        keys.string_set(name, b"x")
    seen: set[bytes] = set()
    cursor, steps = 0, 0
    while True:
        cursor, found, _ = keys.scan(cursor, 25)
        assert cursor < 2**53
        seen.update(found)
        steps += 1
        # The tables grow to ten times their size and shrink again while the scan is under way.
        for _ in range(200):
            name = tag + b"come:%d" % draw.randrange(30_000)
            if steps < 60:
                keys.string_set(name, b"y")
            else:
                keys.delete(name)
        if cursor == 0:
            break
    assert stay <= seen
    keys.store.check()


def test_a_field_scan_has_the_same_guarantee(keys: Keyspace) -> None:
    for number in range(5000):
        keys.hash_set(b"h", b"f%d" % number, b"v")
    seen: set[bytes] = set()
    cursor = 0
    removed = 2500
    while True:
        table = keys.hash_get(b"h")
        assert table is not None
        cursor, found = table.scan(cursor, 100)
        seen.update(field for field, _ in found)
        for number in range(removed, min(removed + 100, 5000)):
            keys.hash_delete(b"h", b"f%d" % number)
        removed += 100
        if cursor == 0:
            break
    assert {b"f%d" % number for number in range(2500)} <= seen
    keys.store.check()


def test_an_expired_key_is_never_seen_and_leaves_memory(shard: Shard, keys: Keyspace) -> None:
    for number in range(2000):
        keys.string_set(b"k%d" % number, b"v" * 40, NOW + 1000)
    keys.string_set(b"stays", b"v")
    shard.set_time(NOW + 999)
    assert keys.string_get(b"k1") == b"v" * 40
    shard.set_time(NOW + 1000)
    assert keys.string_get(b"k1") is None and not keys.exists(b"k2") and keys.type_of(b"k3") is None
    assert keys.keys() == [b"stays"] and keys.random_key() == b"stays"
    while shard.expire_some(50_000):
        keys.store.check()
    assert keys.size() == 1 and keys.store.expired == 2000
    keys.store.check()


def test_fields_expire(shard: Shard, keys: Keyspace) -> None:
    for number in range(100):
        keys.hash_set(b"h", b"f%d" % number, b"v")
        assert keys.hash_deadline_set(b"h", b"f%d" % number, NOW + 10 + number)
    keys.hash_set(b"h", b"f99", b"w", True)
    table = keys.hash_get(b"h")
    assert table is not None and table.deadline_of(b"f99") == NOW + 109 and table.get(b"f99") == b"w"
    shard.set_time(NOW + 59)
    table = keys.hash_get(b"h")
    assert table is not None and len(table) == 50
    keys.rename(b"h", b"g")
    shard.set_time(NOW + 200)
    assert not shard.expire_some(10_000_000)
    assert keys.size() == 0
    keys.store.check()


def test_wrong_types_are_refused(keys: Keyspace) -> None:
    keys.hash_set(b"h", b"f", b"v")
    keys.string_set(b"s", b"v")
    for call in (
        lambda: keys.string_get(b"h"),
        lambda: keys.string_append(b"h", b"x"),
        lambda: keys.set_add(b"h", b"x"),
        lambda: keys.hash_set(b"s", b"f", b"v"),
        lambda: keys.list_push(b"s", [b"x"], True),
        lambda: keys.zset_add(b"h", b"m", 1.0),
    ):
        with pytest.raises(CommandError, match="WRONGTYPE"):
            call()
    keys.store.check()


def test_lists_and_sorted_sets_are_accounted(keys: Keyspace) -> None:
    draw = random.Random(11)
    model: list[bytes] = []
    scores: dict[bytes, float] = {}
    for _ in range(3000):
        value = draw.randbytes(draw.randrange(50))
        if draw.random() < 0.55:
            model.append(value)
            assert keys.list_push(b"l", [value], False) == len(model)
        elif model:
            assert keys.list_pop(b"l", True) == [model.pop(0)]
        member = b"m%d" % draw.randrange(300)
        if draw.random() < 0.6:
            score = float(draw.randrange(10))
            before = scores.get(member)
            expected = True if before is None else (None if before == score else False)
            assert keys.zset_add(b"z", member, score) is expected
            scores[member] = score
        else:
            assert keys.zset_remove(b"z", member) == (scores.pop(member, None) is not None)
    values = keys.list_get(b"l")
    assert (list(values) if values is not None else []) == model
    ordered = keys.zset_get(b"z")
    assert ordered is not None and dict(ordered.items()) == scores
    keys.store.check()
    keys.delete(b"l")
    keys.delete(b"z")
    assert keys.store.used_memory == 0


def test_databases_are_apart(keys: Keyspace) -> None:
    keys.string_set(b"k", b"zero")
    keys.db = 3
    assert keys.string_get(b"k") is None
    keys.string_set(b"k", b"three", NOW + 5000)
    keys.swap(0, 3)
    assert keys.string_get(b"k") == b"zero"
    keys.db = 0
    assert keys.string_get(b"k") == b"three" and keys.deadline_of(b"k") == NOW + 5000
    assert keys.move_db(b"k", 9)
    assert keys.exists_in(9, b"k") and not keys.exists(b"k")
    keys.set_add(b"s", b"m")
    keys.list_push(b"l", [b"v"], True)
    assert keys.move_db(b"s", 9) and keys.move_db(b"l", 5)
    keys.store.check()
    keys.flush(9)
    assert not keys.exists_in(9, b"k") and keys.exists_in(3, b"k")
    keys.store.check()


def test_random_keys_are_spread_evenly(keys: Keyspace) -> None:
    names = [b"key:%d" % number for number in range(200)]
    for name in names:
        keys.string_set(name, b"")
    drawn = [keys.random_key() for _ in range(40_000)]
    counts = [drawn.count(name) for name in names]
    assert min(counts) > 120 and max(counts) < 290


def test_fields_of_other_databases_expire_after_a_flush(shard: Shard) -> None:
    def timed(db: int, key: bytes, milliseconds: int) -> None:
        shard.execute([b"HSET", key, b"f", b"v"], 2, db)
        shard.execute([b"HPEXPIRE", key, b"%d" % milliseconds, b"FIELDS", b"1", b"f"], 2, db)

    timed(1, b"soon", 1000)
    for number, wait in enumerate((10_000_000, 2000, 11_000_000, 12_000_000)):
        timed(0, b"h%d" % number, wait)
    shard.execute([b"FLUSHDB"], 2, 1)
    shard.set_time(NOW + 5000)
    shard.expire_some(10**9)
    assert sorted(Keyspace(shard.store).keys()) == [b"h0", b"h2", b"h3"]
    shard.execute([b"SWAPDB", b"0", b"2"])
    shard.set_time(NOW + 11_500_000)
    shard.expire_some(10**9)
    assert Keyspace(shard.store, 2).keys() == [b"h3"]


def test_what_is_remembered_of_fields_does_not_grow(keys: Keyspace) -> None:
    keys.hash_set(b"a", b"f", b"v")
    keys.hash_deadline_set(b"a", b"f", NOW + 10_000_000)
    before = resident_memory()
    for _ in range(100_000):
        keys.rename(b"a", b"b")
        keys.rename(b"b", b"a")
        keys.hash_deadline_clear(b"a", b"f")
        keys.hash_deadline_set(b"a", b"f", NOW + 10_000_000)
    assert resident_memory() - before < 4 << 20


def test_the_tables_of_slots_are_counted_as_far_as_they_are_used(shard: Shard) -> None:
    store = shard.store
    assert store.slot_bytes == 0
    shard.execute([b"SET", b"{one}a", b"v"])
    one = store.slot_bytes
    shard.execute([b"SET", b"{one}b", b"v"])
    assert 0 < store.slot_bytes == one < 4096
    for number in range(20_000):
        shard.execute([b"SET", b"key:%d" % number, b"v"])
    every = store.slot_bytes
    assert every == 256 * one  # every group of 64 slots has keys
    shard.execute([b"SELECT", b"1"])
    shard.execute([b"FLUSHALL"])
    assert store.slot_bytes == 0
