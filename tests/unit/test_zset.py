"""ZSet against a plain dict: seeded random changes with tiny limits, checked after every step."""

from __future__ import annotations

import random
from math import inf

import pytest

from kache.shard.stable_dict import StableDict
from kache.shard.zset import LEX_HIGHEST, LEX_LOWEST, LexBound, ZSet

SCORES = (-inf, -3.5, -1.0, 0.0, 1.0, 1.0, 2.0, 1e300, inf)


def in_order(model: dict[bytes, float]) -> list[tuple[bytes, float]]:
    return sorted(model.items(), key=lambda item: (item[1], item[0]))


def change_once(zs: ZSet, model: dict[bytes, float], rng: random.Random, names: int) -> None:
    member = b"m%d" % rng.randrange(names)
    score = rng.choice(SCORES)
    action = rng.randrange(20)
    if action < 12:
        old = model.get(member)
        expected = True if old is None else None if old == score else False
        assert zs.add(member, score) is expected
        model[member] = score
    elif action < 18:
        assert zs.remove(member) is (model.pop(member, None) is not None)
    else:
        start = rng.randrange(len(model) + 1)
        stop = start + rng.choice((0, 1, 3, 20))
        gone = in_order(model)[start:stop]
        assert zs.delete_ranks(start, stop) == gone
        for name, _ in gone:
            del model[name]


def compare_reads(zs: ZSet, model: dict[bytes, float], rng: random.Random) -> None:
    ordered = in_order(model)
    assert len(zs) == len(ordered)
    start = rng.randrange(len(ordered) + 2)
    stop = rng.randrange(len(ordered) + 2)
    assert zs.by_rank(start, stop) == ordered[start:stop]
    assert zs.names(start, stop) == [member for member, _ in ordered[start:stop]]
    for member, score in ordered[start : start + 2]:
        assert member in zs
        assert zs.score(member) == score
        assert zs.rank(member) == ordered.index((member, score))
    low, high = rng.choice(SCORES), rng.choice(SCORES)
    low_open, high_open = rng.random() < 0.5, rng.random() < 0.5
    first, last = zs.score_span(low, low_open, high, high_open)
    assert ordered[first:last] == [
        (member, score)
        for member, score in ordered
        if (low < score if low_open else low <= score) and (score < high if high_open else score <= high)
    ]
    pivot = (low, b"m%d" % rng.randrange(50))
    assert zs.rank_of_pair(*pivot) == sum((score, member) < pivot for member, score in ordered)


@pytest.mark.parametrize(("packed", "names"), [(0, 30), (4, 12), (4, 200), (64, 150)])
def test_behaves_as_a_sorted_dict(packed: int, names: int) -> None:
    rng = random.Random(packed * 1000 + names)
    model: dict[bytes, float] = {}
    zs = ZSet(packed_members=packed)
    for step in range(5000):
        change_once(zs, model, rng, names)
        zs.check()
        compare_reads(zs, model, rng)
        if step % 100 == 0:
            assert zs.items() == in_order(model)
            twin = zs.copy()
            twin.check()
            assert twin.items() == zs.items()


@pytest.mark.parametrize("count", [40, 400])
def test_lex_ranges_of_equal_scores(count: int) -> None:
    rng = random.Random(count)
    members = sorted({rng.randbytes(rng.randrange(4)) for _ in range(count)})
    zs = ZSet((member, 3.0) for member in members)
    bounds = [LEX_LOWEST, LEX_HIGHEST]
    bounds += [LexBound(0, rng.choice(members), rng.random() < 0.5) for _ in range(20)]
    bounds += [LexBound(0, rng.randbytes(2), rng.random() < 0.5) for _ in range(20)]
    for low in bounds:
        for high in bounds:
            start, stop = zs.lex_span(low, high)
            expected = [m for m in members if low.at_or_below(m) and high.at_or_above(m)]
            assert zs.names(start, stop) == expected
            assert zs.lex_span(low, high, reverse=True) == (start, stop)


def test_a_scan_returns_what_is_there_throughout() -> None:
    rng = random.Random(9)
    stay = {b"stay%d" % i for i in range(3000)}
    zs = ZSet((member, rng.random()) for member in stay)
    seen: set[bytes] = set()
    cursor, calls = 0, 0
    while True:
        cursor, found = zs.scan(cursor, 10)
        seen.update(member for member, _ in found)
        calls += 1
        for _ in range(300):
            zs.add(b"other%d" % rng.randrange(20_000), rng.random())
            zs.add(rng.choice((b"stay1", b"stay2000")), rng.random())
            zs.remove(b"other%d" % rng.randrange(20_000))
        if cursor == 0:
            break
    assert stay <= seen
    assert calls > 5


def test_a_scan_survives_the_set_becoming_small_and_large_again() -> None:
    zs = ZSet((b"m%d" % i, float(i)) for i in range(2000))
    cursor, found = zs.scan(0, 10)
    seen = {member for member, _ in found}
    zs.delete_ranks(10, 2000)
    for i in range(500):
        zs.add(b"new%d" % i, 5000.0)
    while cursor:
        cursor, found = zs.scan(cursor, 10)
        seen.update(member for member, _ in found)
    assert {b"m%d" % i for i in range(10)} <= seen
    assert zs.scan(1 << 40, 10) == (0, [])


def test_released_in_slices() -> None:
    zs = ZSet.from_mapping({b"m%d" % i: float(i) for i in range(50_000)})
    zs.check()
    slices = 1
    while zs.release_some(2000):
        slices += 1
    assert slices > 20


def test_members_that_collide_make_a_bucket_larger_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kache.shard.stable_dict.crc32", lambda member: 7)
    scores = StableDict(bucket_members=4)
    for i in range(50):
        scores.put(b"%d" % i, float(i))
    scores.check()
    assert sorted(score for _, score in scores.scan(0, 1)[1]) == [float(i) for i in range(50)]


def test_buckets_are_evenly_filled_and_a_scan_returns_few_more_than_asked() -> None:
    scores = StableDict()
    for i in range(60_000):
        scores.put(b"user:%d" % i, float(i))
    scores.check()
    cursor, sizes = 0, []
    while True:
        cursor, found = scores.scan(cursor, 1)
        sizes.append(len(found))
        if not cursor:
            break
    assert max(sizes) <= 341
    assert sum(sizes) == 60_000
    assert len(sizes) < 60_000 / 130


def test_a_stable_dict_keeps_its_invariants_with_tiny_buckets() -> None:
    rng = random.Random(3)
    scores = StableDict(bucket_members=3)
    model: dict[bytes, float] = {}
    for _ in range(3000):
        member = b"%d" % rng.randrange(300)
        if rng.random() < 0.6:
            scores.put(member, 1.0)
            model[member] = 1.0
        else:
            assert scores.pop(member) == model.pop(member, None)
        scores.check()
        assert len(scores) == len(model)
        assert scores.get(member) == model.get(member)


def test_packed_never_comes_back() -> None:
    zs = ZSet((b"m%d" % i, 1.0) for i in range(128))
    assert zs.packed
    zs.add(b"one more", 1.0)
    assert not zs.packed
    zs.delete_ranks(0, 120)
    assert not zs.packed
    assert not zs.copy().packed
    assert not ZSet([(b"x" * 65, 1.0)]).packed


def test_a_small_set_costs_a_few_hundred_bytes() -> None:
    assert ZSet((b"m%d" % i, 1.5) for i in range(5)).memory < 800
