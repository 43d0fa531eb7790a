"""Value images: every type comes back as it was, in parts of any size, and damaged parts are refused."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from kache.shard.engine.engine import Building, RecordError, image_of
from kache.shard.engine.memory import fail_allocation_after
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
Argv = list[bytes]


def words(*parts: object) -> Argv:
    return [part if isinstance(part, bytes) else str(part).encode() for part in parts]


def fields(count: int, seed: int = 0) -> list[bytes]:
    dice = random.Random(seed)
    return [b"%d:" % number + dice.randbytes(dice.choice((0, 3, 40, 300))) for number in range(count)]


VALUES: dict[str, list[Argv]] = {
    "empty string": [words("set", "k", "")],
    "string": [words("set", "k", b"\x00\xff" * 40)],
    "long string": [words("set", "k", random.Random(1).randbytes(70_000))],
    "raw string": [words("append", "k", "a"), words("append", "k", "b" * 300)],
    "list": [words("rpush", "k", *fields(2000))],
    "set": [words("sadd", "k", *fields(5000))],
    "small set": [words("sadd", "k", "a")],
    "zset": [words("zadd", "k", *(x for n in range(3000) for x in (n * 7 % 100 - 50, b"m%d" % n)), "inf", "top")],
    "hash": [words("hset", "k", *(x for field in fields(2500) for x in (field, field[::-1])))],
    "hash with deadlines": [
        words("hset", "k", *(x for n in range(300) for x in (b"f%d" % n, b"v%d" % n))),
        words("hpexpireat", "k", NOW + 5000, "fields", 100, *(b"f%d" % n for n in range(100))),
    ],
}
SLICES = [(1, 1), (10, 1000), (1 << 20, 7), (300, 1 << 20), (1 << 40, 1 << 40)]


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = Shard(now_ms=NOW)
    yield shard
    shard.store.check()


def make(shard: Shard, name: str) -> None:
    for argv in VALUES[name]:
        assert not shard.execute(argv).startswith(b"-")


def parts_of(shard: Shard, most_bytes: int, most: int) -> list[bytes]:
    parts = []
    cursor = 0
    while True:
        found = image_of(shard.keyspace, b"k", cursor, most_bytes, most)
        assert found is not None
        cursor, part = found
        parts.append(part)
        if cursor == 0:
            return parts


def contents(shard: Shard, key: bytes) -> tuple[object, ...]:
    keys = shard.keyspace
    kind = keys.type_of(key)
    encoding = shard.execute(words("object", "encoding", key))
    deadline = keys.deadline_of(key)
    if kind == "string":
        return kind, keys.string_get(key), keys.string_is_raw(key), deadline
    if kind == "list":
        return kind, list(keys.list_get(key) or ()), encoding, deadline
    if kind == "set":
        return kind, set(keys.set_get(key) or ()), encoding, deadline
    if kind == "zset":
        value = keys.zset_get(key)
        return kind, value and value.items(), encoding, deadline
    table = keys.hash_get(key)
    timed = {field: table.deadline_of(field) for field in table.fields()} if table else None
    return kind, table and dict(table.items()), timed, deadline


@pytest.mark.parametrize("limits", SLICES)
@pytest.mark.parametrize("name", VALUES)
def test_what_is_built_from_the_parts_is_the_value(shard: Shard, name: str, limits: tuple[int, int]) -> None:
    make(shard, name)
    shard.execute(words("pexpireat", "k", NOW + 90_000))
    building = Building(shard.keyspace.store, b"copy")
    for part in parts_of(shard, *limits):
        building.add(part)
    before = shard.store.used_memory
    building.put(shard.keyspace)
    assert contents(shard, b"copy") == contents(shard, b"k")
    # What was under construction counted all along: only the key's place is new, and less is kept than was reserved.
    assert shard.store.used_memory - before < 3000


def test_no_limit_of_a_part_leaves_elements_out(shard: Shard) -> None:
    """Segments of a table that fit into a part beside others that do not."""
    shard.execute(words("sadd", "k", *range(5000)))
    for most in range(560, 720, 10):
        members: list[bytes] = []
        for part in parts_of(shard, 1 << 40, most):
            building = Building(shard.keyspace.store, b"other")
            building.add(part)
            members += building.members()
            building.drop()
        assert len(members) == len(set(members)) == 5000, most


@pytest.mark.parametrize("name", VALUES)
def test_parts_one_after_the_other_are_an_image(shard: Shard, name: str) -> None:
    make(shard, name)
    assert shard.execute([b"_put", b"copy", b"".join(parts_of(shard, 500, 50)), b"copy_to"], 1) == b"+OK\r\n"
    assert contents(shard, b"copy") == contents(shard, b"k")


def test_no_part_is_much_larger_than_was_asked_for(shard: Shard) -> None:
    make(shard, "set")
    make_string = Shard(now_ms=NOW)
    make(make_string, "long string")
    assert max(map(len, parts_of(shard, 4096, 1 << 40))) < 4096 + 400
    assert max(map(len, parts_of(make_string, 4096, 1 << 40))) < 4096 + 20


def test_fields_past_their_deadline_stay_behind() -> None:
    shard = Shard(now_ms=NOW)
    make(shard, "hash with deadlines")
    shard.set_time(NOW + 6000)
    building = Building(shard.keyspace.store, b"copy")
    for part in parts_of(shard, 200, 10):
        building.add(part)
    assert building.put(shard.keyspace) == 200
    assert shard.keyspace.hash_get(b"copy") is not None


def test_a_deadline_that_has_passed_leaves_no_key(shard: Shard) -> None:
    make(shard, "list")
    shard.execute(words("pexpireat", "k", NOW + 1000))
    building = Building(shard.keyspace.store, b"copy")
    for part in parts_of(shard, 1000, 1000):
        building.add(part)
    shard.execute(words("set", "copy", "old"))
    shard.set_time(NOW + 2000)
    building.put(shard.keyspace)
    assert not shard.keyspace.exists(b"copy")


@pytest.mark.parametrize("name", VALUES)
def test_what_is_not_wanted_leaves_nothing_behind(shard: Shard, name: str) -> None:
    make(shard, name)
    before = shard.store.used_memory
    for drop in (True, False):
        building = Building(shard.keyspace.store, b"copy")
        for part in parts_of(shard, 2000, 200)[:-1] or parts_of(shard, 2000, 200):
            building.add(part)
        assert shard.store.used_memory > before
        if drop:
            building.drop()
        del building
        assert shard.store.used_memory == before


def test_parts_that_are_missing_or_of_another_value_are_refused(shard: Shard) -> None:
    make(shard, "long string")
    parts = parts_of(shard, 20_000, 1)
    for wrong in (parts[:-1], [parts[0], *parts[2:]], [parts[0], parts[0]], []):
        building = Building(shard.keyspace.store, b"copy")
        with pytest.raises(RecordError):
            for part in wrong:
                building.add(part)
            building.put(shard.keyspace)
        assert not shard.keyspace.exists(b"copy")
    other = Shard(now_ms=NOW)
    make(other, "set")
    building = Building(shard.keyspace.store, b"copy")
    building.add(parts[0])
    with pytest.raises(RecordError):
        building.add(parts_of(other, 1000, 10)[0])


@pytest.mark.parametrize("name", VALUES)
def test_damaged_parts_are_refused_or_read_never_more(shard: Shard, name: str) -> None:
    """Every byte of a small image changed, every length cut, and random bytes: no crash, no allocation as declared."""
    make(shard, name)
    image = parts_of(shard, 300, 8)[0]
    dice = random.Random(7)
    damaged = [image[:end] for end in range(len(image))]
    damaged += [
        image[:at] + bytes([image[at] ^ (1 << dice.randrange(8))]) + image[at + 1 :] for at in range(len(image))
    ]
    damaged += [image[:at] + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + image[at:] for at in range(min(len(image), 40))]
    damaged += [dice.randbytes(dice.randrange(1, 60)) for _ in range(2000)]
    before = shard.store.used_memory
    refused = 0
    for part in damaged:
        building = Building(shard.keyspace.store, b"copy")
        try:
            building.add(part)
        except RecordError:
            refused += 1
        assert shard.store.used_memory < before + (64 << 20)
        building.drop()
    assert refused > len(damaged) // 4
    assert shard.store.used_memory == before


@pytest.mark.parametrize("name", VALUES)
def test_without_memory_nothing_changes(shard: Shard, name: str) -> None:
    make(shard, name)
    shard.execute(words("set", "copy", "old"))
    parts = parts_of(shard, 3000, 300)
    before = shard.store.used_memory
    granted = 0
    while True:
        building = Building(shard.keyspace.store, b"copy")
        fail_allocation_after(granted)
        try:
            for part in parts:
                building.add(part)
            building.put(shard.keyspace)
        except MemoryError:
            fail_allocation_after(-1)
            assert shard.keyspace.string_get(b"copy") == b"old"
            building.drop()
            assert shard.store.used_memory == before
            # Each of the first, then fewer and fewer.
            granted += 1 + granted // 10
            continue
        fail_allocation_after(-1)
        break
    assert contents(shard, b"copy") == contents(shard, b"k")
