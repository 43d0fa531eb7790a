"""ZSet against a plain dict: seeded random changes in trees of tiny nodes, checked after every step."""

from __future__ import annotations

import random
from math import inf

import pytest

from kache.shard.commands.lex import LEX_HIGHEST, LEX_LOWEST, LexBound, lex_span
from kache.shard.engine.zset import ZSet

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


@pytest.mark.parametrize(("fan", "names"), [(4, 12), (4, 200), (5, 600), (7, 90), (64, 150)])
def test_behaves_as_a_sorted_dict(fan: int, names: int) -> None:
    rng = random.Random(fan * 1000 + names)
    model: dict[bytes, float] = {}
    zs = ZSet(fan=fan)
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
            start, stop = lex_span(zs, low, high)
            expected = [m for m in members if low.at_or_below(m) and high.at_or_above(m)]
            assert zs.names(start, stop) == expected
            assert lex_span(zs, low, high, reverse=True) == (start, stop)


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
    assert zs.scan(1 << 60, 10) == (0, [])


def test_released_in_slices() -> None:
    zs = ZSet.from_mapping({b"m%d" % i: float(i) for i in range(50_000)})
    zs.check()
    slices = 1
    while zs.release_some(2000):
        slices += 1
    assert slices > 20


@pytest.mark.parametrize("fan", [4, 6, 64])
@pytest.mark.parametrize("order", ["ascending", "descending", "random", "equal"])
def test_grows_deep_and_shrinks_to_nothing(fan: int, order: str) -> None:
    rng = random.Random(fan)
    names = [b"member:%05d" % i for i in range(3000)]
    scores = {
        "ascending": list(range(3000)),
        "descending": list(range(3000, 0, -1)),
        "random": [rng.randrange(2000) for _ in names],
        "equal": [7] * 3000,
    }[order]
    zs = ZSet(zip(names, scores, strict=True), fan=fan)
    zs.check()
    model = dict(zip(names, map(float, scores), strict=True))
    assert zs.items() == in_order(model)
    ordered = [name for name, _ in in_order(model)]
    for rank in rng.sample(range(3000), 50):
        assert zs.rank(ordered[rank]) == rank
        assert zs.names(rank, rank + 3) == ordered[rank : rank + 3]
    rng.shuffle(names)
    for at, name in enumerate(names):
        assert zs.remove(name)
        del model[name]
        if at % 250 == 0:
            zs.check()
            assert zs.items() == in_order(model)
    assert len(zs) == 0
    assert zs.items() == []
    zs.check()
    assert zs.memory <= ZSet().memory + 4096
    assert zs.add(b"again", 1.0) is True


def test_large_ranges_are_cut_out_whole() -> None:
    rng = random.Random(12)
    zs = ZSet(((b"m%d" % i, float(i)) for i in range(20_000)), fan=8)
    left = [b"m%d" % i for i in range(20_000)]
    while left:
        start = rng.randrange(len(left))
        stop = min(len(left), start + rng.randrange(1, 2500))
        assert [name for name, _ in zs.delete_ranks(start, stop)] == left[start:stop]
        del left[start:stop]
        zs.check()
        assert zs.names(0, len(left)) == left
    assert zs.delete_ranks(0, 10) == []


def test_thinned_leaves_are_joined() -> None:
    zs = ZSet(((b"%06d" % i, float(i)) for i in range(64 * 400)), fan=64)  # 400 full leaves
    for leaf in range(398, -1, -2):
        zs.delete_ranks(64 * leaf + 1, 64 * leaf + 64)
    for leaf in range(399, 0, -2):
        first = leaf // 2 * 65 + 1
        zs.delete_ranks(first, first + 64)
    zs.check()
    assert len(zs) == 200
    assert zs.memory < 2 * ZSet(zs.items()).memory


def test_a_set_that_was_large_gives_its_room_back() -> None:
    zs = ZSet((b"%d" % i, float(i)) for i in range(60))
    zs.delete_ranks(2, 60)
    zs.check()
    assert zs.memory < ZSet(zs.items()).memory + 300


def test_scores_that_grow_leave_full_nodes_behind() -> None:
    grown = ZSet((b"%08d" % i, float(i)) for i in range(50_000))
    names = [b"%08d" % i for i in range(50_000)]
    random.Random(1).shuffle(names)
    drawn = ZSet((name, float(name)) for name in names)
    assert grown.memory < drawn.memory
    assert grown.memory / 50_000 < 75


@pytest.mark.parametrize("fan", [3, 65])
def test_a_fan_out_of_range_is_refused(fan: int) -> None:
    with pytest.raises(ValueError, match="4 to 64"):
        ZSet(fan=fan)


def test_members_of_any_length_and_bytes() -> None:
    rng = random.Random(4)
    model = {rng.randbytes(rng.choice((0, 1, 7, 255, 256, 5000))): rng.choice(SCORES) for _ in range(500)}
    zs = ZSet(model.items(), fan=4)
    zs.check()
    assert zs.items() == in_order(model)


def test_a_minus_zero_is_a_zero() -> None:
    zs = ZSet([(b"m", -0.0)])
    assert str(zs.score(b"m")) == "0.0"
    assert zs.add(b"m", -0.0) is None
    zs.check()


def test_a_small_set_costs_a_few_hundred_bytes() -> None:
    assert ZSet((b"m%d" % i, 1.5) for i in range(5)).memory < 600
