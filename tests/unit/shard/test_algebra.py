"""Compiled set algebra against Python's own sets and dicts, whole and in slices."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kache.errors import CommandError
from kache.shard.engine.engine import Building, RecordError, Sieve
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
COMBINE: dict[int, Any] = {0: lambda a, b: a + b, 1: min, 2: max}


def filled(seed: int) -> tuple[Shard, dict[bytes, dict[bytes, float]]]:
    """A shard with sets and sorted sets, and the scores of each as they should be."""
    dice = random.Random(seed)
    shard = Shard(now_ms=NOW)
    scores: dict[bytes, dict[bytes, float]] = {}
    for name in (b"s1", b"s2", b"z1", b"z2"):
        members = [b"m%d" % dice.randrange(3000) for _ in range(dice.choice((0, 5, 700, 2500)))]
        if name.startswith(b"s"):
            scores[name] = dict.fromkeys(members, 1.0)
            if members:
                shard.execute([b"sadd", name, *members])
        else:
            scores[name] = {member: float(dice.randrange(-9, 9)) for member in members}
            if members:
                shard.execute([b"zadd", name, *(x for m, s in scores[name].items() for x in (b"%d" % s, m))])
    return shard, scores


def picked(shard: Shard, key: bytes, most: int, **options: Any) -> list[bytes]:
    """The parts of `key`, as another shard would get them."""
    parts, cursor = [], 0
    while True:
        sieve = Sieve(shard.keyspace, **options)
        cursor = sieve.pick(key, cursor=cursor, most=most)
        parts.append(sieve.part())
        if cursor == 0:
            return parts


def gathered(shard: Shard, parts: list[bytes], *, scored: bool, aggregate: int = 0) -> Building:
    building = Building(shard.keyspace.store, b"result", "zset" if scored else "set")
    for part in parts:
        Sieve(shard.keyspace, scored=scored, aggregate=aggregate, into=building).keep(part)
    return building


@pytest.mark.parametrize("most", [1, 100, 1 << 40])
@pytest.mark.parametrize("seed", range(6))
def test_members_that_travel_in_parts(seed: int, most: int) -> None:
    shard, scores = filled(seed)
    one, two = scores[b"s1"], scores[b"s2"]
    union = gathered(shard, picked(shard, b"s1", most) + picked(shard, b"s2", most), scored=False)
    assert set(union.members()) == one.keys() | two.keys()
    common = gathered(shard, picked(shard, b"s1", most, filters=[(b"s2", False, 1.0)]), scored=False)
    assert set(common.members()) == one.keys() & two.keys()
    rest = gathered(shard, picked(shard, b"s1", most, filters=[(b"s2", True, 1.0)]), scored=False)
    assert set(rest.members()) == one.keys() - two.keys()
    for building in (union, common, rest):
        building.put(shard.keyspace)
        shard.store.check()


@pytest.mark.parametrize("aggregate", [0, 1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_scores_are_weighted_and_combined(seed: int, aggregate: int) -> None:
    shard, scores = filled(seed)
    first, second = scores[b"z1"], {m: 3 * s for m, s in scores[b"s2"].items()}
    wanted = dict(first)
    for member, score in second.items():
        wanted[member] = COMBINE[aggregate](wanted[member], score) if member in wanted else score
    building = Building(shard.keyspace.store, b"result", "zset")
    sieve = Sieve(shard.keyspace, scored=True, aggregate=aggregate, into=building)
    sieve.pick(b"z1")
    sieve.pick(b"s2", 3.0)
    assert dict(building.pairs()) == wanted
    filters = [(b"s2", False, 3.0)]
    common = gathered(shard, picked(shard, b"z1", 50, scored=True, aggregate=aggregate, filters=filters), scored=True)
    both = first.keys() & second.keys()
    assert dict(common.pairs()) == {m: COMBINE[aggregate](first[m], second[m]) for m in both}


def test_infinities_together_count_as_nothing() -> None:
    shard = Shard(now_ms=NOW)
    shard.execute([b"zadd", b"a", b"inf", b"m"])
    shard.execute([b"zadd", b"b", b"-inf", b"m"])
    assert shard.execute([b"zunion", b"2", b"a", b"b", b"withscores"], 2) == b"*2\r\n$1\r\nm\r\n$1\r\n0\r\n"
    assert shard.execute([b"zunion", b"1", b"a", b"weights", b"0", b"withscores"], 2) == b"*2\r\n$1\r\nm\r\n$1\r\n0\r\n"


def test_a_count_ends_at_its_limit() -> None:
    shard = Shard(now_ms=NOW)
    shard.execute([b"sadd", b"a", *(b"%d" % n for n in range(1000))])
    shard.execute([b"sadd", b"b", *(b"%d" % n for n in range(500))])
    sieve = Sieve(shard.keyspace, filters=[(b"a", False, 1.0)], limit=7, counting=True)
    assert sieve.pick(b"b") != 0
    assert sieve.found == 7


def test_wrong_types_and_damaged_parts() -> None:
    shard = Shard(now_ms=NOW)
    shard.execute([b"set", b"s", b"x"])
    shard.execute([b"zadd", b"z", b"1", b"m"])
    for key, scored in ((b"s", True), (b"z", False)):
        with pytest.raises(CommandError, match="WRONGTYPE"):
            Sieve(shard.keyspace, scored=scored).pick(key)
        with pytest.raises(CommandError, match="WRONGTYPE"):
            Sieve(shard.keyspace, scored=scored, filters=[(key, False, 1.0)])
    dice = random.Random(3)
    part = picked(shard, b"z", 10, scored=True)[0]
    for damaged in [part[:-1], part + b"x", b"", b"\x03\x00\x05", *(dice.randbytes(20) for _ in range(500))]:
        with pytest.raises(RecordError):
            Sieve(shard.keyspace, scored=True).keep(damaged)
