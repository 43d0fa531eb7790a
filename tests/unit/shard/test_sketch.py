"""The sketch of hot keys: who is found, how well counted, what fades; and the largest keys."""

from __future__ import annotations

import bisect
import itertools
import random

import pytest

from kache.shard.engine.sketch import KEPT_BYTES, MOST_KEYS, HotKeys
from kache.shard.shard import Shard


def zipf(keys: int, count: int, seed: int, exponent: float = 0.99) -> list[bytes]:
    """`count` draws; key 0 is the most frequent."""
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    draw = random.Random(seed).random
    return [b"key:%d" % bisect.bisect(weights, draw() * weights[-1]) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_hottest_of_zipf_are_found(seed: int) -> None:
    """The bar is a recall of 0.9 in the first ten, over a shard's usual minute at some load."""
    sketch = HotKeys()
    stream = zipf(200_000, 400_000, seed)
    # The pace of a shard that executes 40,000 commands a second.
    for second in range(10):
        sketch.feed(stream[second * 40_000 : (second + 1) * 40_000])
        sketch.pace(1000.0 + second)
    sketch.check()
    assert sketch.gap > 1
    found = {key for _, key, _, _ in sketch.top(10)}
    wanted = {b"key:%d" % rank for rank in range(10)}
    assert len(found & wanted) >= 9, sorted(found)
    # And how often they were used, to some percent.
    times = stream.count(b"key:0")
    assert 0.8 * times < sketch.count_of(0, b"key:0") < 1.2 * times
    total, seconds = sketch.totals()
    assert 0.9 * len(stream) < total < 1.1 * len(stream)
    assert seconds == 9


def test_a_quiet_shard_counts_exactly() -> None:
    sketch = HotKeys()
    sketch.feed([b"a"] * 30 + [b"b"] * 20)
    sketch.feed([b"a"] * 5, db=3)
    assert sketch.top(10) == [(0, b"a", 1, 30), (0, b"b", 1, 20), (3, b"a", 1, 5)]
    assert sketch.totals()[0] == 55
    assert sketch.count_of(3, b"a") == 5
    assert sketch.count_of(3, b"b") == 0


def test_what_was_hot_fades() -> None:
    sketch = HotKeys()
    for second in range(300):
        sketch.feed([b"old" if second < 100 else b"new"] * 100)
        sketch.pace(float(second + 1))
        sketch.check()
    (_, first, _, uses), *others = sketch.top(10)
    assert first == b"new"
    assert 3000 <= uses <= 6000
    assert all(row[3] < uses / 20 for row in others)
    total, seconds = sketch.totals()
    assert 80 < total / seconds < 120


def test_many_keys_of_one_use_displace_nobody() -> None:
    sketch = HotKeys()
    hot = [b"hot:%d" % number for number in range(10)]
    sketch.feed(hot * 500)
    sketch.feed([b"cold:%d" % number for number in range(200_000)])
    sketch.check()
    assert {key for _, key, _, _ in sketch.top(10)} == set(hot)
    assert len(sketch.top(1000)) == MOST_KEYS


def test_long_names_are_cut_and_told_apart() -> None:
    sketch = HotKeys()
    name = b"x" * 300
    sketch.feed([name + b"1"] * 3 + [name + b"2"] * 2)
    assert sketch.top(10) == [(0, name[:KEPT_BYTES], 301, 3), (0, name[:KEPT_BYTES], 301, 2)]


def test_a_shard_counts_the_keys_of_its_commands() -> None:
    shard = Shard()
    for _ in range(10):
        shard.execute([b"set", b"a", b"1"])
        shard.execute([b"mget", b"a", b"b"])
        shard.execute([b"ping"])
    assert shard.hot.top(10) == [(0, b"a", 1, 20), (0, b"b", 1, 10)]
    shard.reset_counters()
    shard.execute([b"get", b"b"])
    assert shard.hot.count_of(0, b"b") == 11


def test_the_largest_keys_are_found() -> None:
    shard = Shard()
    for number in range(3000):
        shard.execute([b"set", b"small:%d" % number, b"x" * (number % 50)])
    for number in range(60):
        shard.execute([b"rpush", b"list:%d" % number, *[b"y" * 20] * (100 + number * 20)])
    shard.execute([b"set", b"large", b"z" * 1_000_000])
    shard.execute([b"hset", b"hash", b"f", b"w" * 500_000])
    big = shard.big
    assert big.top(5) == []
    for _ in range(10_000):
        big.sweep(20_000)
        if len(big.top(100)) >= 48:
            break
    big.sweep(10**9)
    found = big.top(4)
    assert [(db, key, kind, elements) for db, key, kind, elements, _ in found] == [
        (0, b"large", "string", 1), (0, b"hash", "hash", 1), (0, b"list:59", "list", 1280), (0, b"list:58", "list", 1260)
    ]  # fmt: skip
    assert found[0][4] == pytest.approx(1_000_000, rel=0.2)
    assert len(big.top(100)) == 48
    # What is gone is gone at once, what is new is seen by the next sweep.
    shard.execute([b"del", b"large"])
    shard.execute([b"set", b"larger", b"z" * 2_000_000])
    assert big.top(1)[0][1] == b"hash"
    big.sweep(10**9)
    big.sweep(10**9)
    assert big.top(1)[0][1] == b"larger"
    shard.execute([b"flushall"])
    assert big.top(10) == []
    big.sweep(10**9)


def test_a_sweep_survives_what_changes_under_it() -> None:
    shard = Shard()
    draw = random.Random(7)
    for turn in range(300):
        for _ in range(50):
            number = draw.randrange(3000)
            shard.execute([draw.choice((b"set", b"append")), b"k:%d" % number, b"v" * draw.randrange(200)])
            shard.execute([b"del", b"k:%d" % draw.randrange(3000)])
        if turn % 40 == 39:
            shard.execute([b"flushall"])
        shard.big.sweep(5_000)
        for _, key, kind, elements, size in shard.big.top(10):
            assert (kind, elements) == ("string", 1)
            assert size > 0 and key.startswith(b"k:")
