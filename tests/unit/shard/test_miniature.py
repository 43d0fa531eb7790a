"""The miniature simulations: curves as exact ones, a policy that follows the traffic, and at what price."""

from __future__ import annotations

import itertools
import random
from collections import OrderedDict
from typing import Any

import pytest
from test_keyspace_eviction import make, zipf
from test_s3fifo import ExactS3Fifo

from kache.shard.service.statistics import advice, recent_misses
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
LIMIT = 2 << 20
VALUE = b"v" * 100
SIZES = (0.125, 0.25, 0.5, 1, 2, 4)


def read_through(shard: Shard, trace: list[int], tune_every: int = 2000) -> int:
    """Misses of a client that stores what it missed; time goes on by a millisecond every twenty requests."""
    misses, now = 0, shard.store.now_ms
    for number, rank in enumerate(trace):
        if number % 20 == 0:
            now += 1
            shard.set_time(now)
        if number % tune_every == 0:
            shard.tune_simulations()
        key = b"key:%d" % rank
        if shard.execute([b"GET", key]) == b"$-1\r\n":
            misses += 1
            shard.execute([b"SET", key, VALUE])
    return misses


def exact_lru(trace: list[int], capacity: int) -> int:
    cache: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for rank in trace:
        if rank in cache:
            cache.move_to_end(rank)
            continue
        misses += 1
        cache[rank] = None
        if len(cache) > capacity:
            cache.popitem(last=False)
    return misses


def exact_s3fifo(trace: list[int], capacity: int) -> int:
    cache = ExactS3Fifo(capacity)
    return sum([not cache.get(rank) for rank in trace])


def loop_beside_zipf(length: int) -> list[int]:
    popular = zipf(100_000, 0.9, random.Random(5), length)
    return [200_000 + at // 2 % 20_000 if at % 2 else key for at, key in enumerate(popular)]


def recent_again(length: int) -> list[int]:
    """Three quarters of the requests repeat one of the last 20,000; the others are new."""
    draw = random.Random(8)
    fresh = itertools.count()
    out: list[int] = []
    for _ in range(length):
        back = int(draw.random() ** 2 * 20_000) + 1
        out.append(out[-back] if back <= len(out) and draw.random() < 0.75 else next(fresh))
    return out


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-s3fifo"])
def test_the_curves_are_those_of_exact_caches(policy: str) -> None:
    """On a Zipf trace, whatever the shard itself does; within three points, of one small sample (bench/eviction.py: two)."""
    shard = make(policy, LIMIT)
    trace = zipf(100_000, 0.9, random.Random(4), 500_000)
    warm = 250_000
    read_through(shard, trace[:warm])
    shard.reset_counters()
    read_through(shard, trace[warm:])
    entries = shard.keyspace.size()
    report = advice(shard)
    assert report["sampled"] > 5000
    for name, exact in (("lru", exact_lru), ("s3fifo", exact_s3fifo)):
        for place, size in enumerate(SIZES):
            simulated = report["misses"][name][place] / report["reads"]
            capacity = int(entries * size)
            wanted = (exact(trace, capacity) - exact(trace[:warm], capacity)) / (len(trace) - warm)
            assert abs(simulated - wanted) < 0.03, (name, size, simulated, wanted)


def test_auto_follows_the_traffic() -> None:
    """S3-FIFO on a loop that is larger than memory; LRU where the latest are wanted again, within half of the requests."""
    shard = make("allkeys-auto", LIMIT)
    assert shard.evictor.following == "s3fifo"
    read_through(shard, loop_beside_zipf(150_000))
    assert shard.evictor.following.startswith("s3fifo")
    shares = recent_misses(advice(shard))
    assert shares["s3fifo"] < shares["lru"]
    again = recent_again(250_000)
    read_through(shard, again[:125_000])
    assert shard.evictor.following == "lru"
    read_through(shard, again[125_000:])
    assert shard.evictor.following == "lru"
    shard.store.check()


@pytest.mark.parametrize("trace", [loop_beside_zipf, recent_again])
def test_auto_misses_no_more_than_the_better_one(trace: Any) -> None:
    requests = trace(250_000)
    misses = {
        policy: read_through(make(policy, LIMIT), requests)
        for policy in ("allkeys-lru", "allkeys-s3fifo", "allkeys-auto")
    }
    assert misses["allkeys-auto"] < 1.05 * min(misses["allkeys-lru"], misses["allkeys-s3fifo"]), misses


def test_a_steady_traffic_does_not_make_it_change_its_mind() -> None:
    shard = make("allkeys-auto", LIMIT)
    read_through(shard, zipf(100_000, 0.9, random.Random(3), 300_000))
    assert shard.evictor.changed_policy <= 2


def test_what_is_deleted_is_a_miss_in_every_size() -> None:
    shard = make("allkeys-lru", 0)
    for number in range(40_000):
        shard.execute([b"SET", b"key:%d" % number, VALUE])
    shard.tune_simulations()
    for _ in range(6):
        for number in range(40_000):
            key = b"key:%d" % number
            if shard.execute([b"GET", key]) == b"$-1\r\n":
                shard.execute([b"SET", key, VALUE])
            shard.execute([b"DEL", key])
    report = advice(shard)
    for name in ("lru", "lfu", "s3fifo"):
        assert all(misses > 0.95 * report["reads"] for misses in report["misses"][name]), name


def test_what_is_never_there_is_a_miss_in_every_size() -> None:
    shard = make("allkeys-lru", LIMIT)
    for number in range(20_000):
        shard.execute([b"SET", b"key:%d" % number, VALUE])
    shard.tune_simulations()
    for _ in range(4):
        for number in range(20_000):
            shard.execute([b"GET", b"absent:%d" % number])
    report = advice(shard)
    assert report["misses"]["lru"][5] > 0.95 * report["reads"]


def test_dead_weight_and_prefixes_are_known() -> None:
    shard = make("allkeys-lru", 0)
    for number in range(20_000):
        shard.execute([b"SET", b"dead:%d" % number, b"v" * 300])
        shard.execute([b"SET", b"live:%d" % number, VALUE])
    shard.tune_simulations()
    for number in range(20_000):
        shard.execute([b"SET", b"dead:%d" % number, b"v" * 300])
        shard.execute([b"SET", b"live:%d" % number, VALUE])
    for _ in range(3):
        for number in range(20_000):
            shard.execute([b"GET", b"live:%d" % number])
    report = advice(shard)
    found = {name: (size, hits) for name, size, hits in report["prefixes"]}
    assert 1.8 < found[b"dead:"][0] / found[b"live:"][0] < 3.2
    assert found[b"dead:"][1] == 0 and 30_000 < found[b"live:"][1] < 90_000
    assert 0.6 < report["unread"] / report["bytes"] < 0.8


def test_nothing_is_simulated_where_it_is_switched_off() -> None:
    shard = make("allkeys-lru", LIMIT)
    read_through(shard, list(range(5000)))
    assert shard.store.miniatures is not None and shard.store.miniatures.below > 0
    shard.simulating = False
    shard.tune_simulations()
    assert shard.store.miniatures.below == 0 and "misses" not in advice(shard)
    shard.simulating = True
    shard.tune_simulations()
    assert shard.store.miniatures.below > 0
    shard.execute([b"FLUSHALL"])
    shard.tune_simulations()
    shard.store.check()


def test_more_keys_than_are_known_at_once() -> None:
    """A stream of keys that are asked for once, and sizes that grow and shrink: the sample stays within its bounds."""
    shard = make("allkeys-auto", LIMIT)
    draw = random.Random(2)
    for number in range(400_000):
        if number % 1000 == 0:
            shard.tune_simulations()
        key = b"%s:%d" % (draw.choice((b"a", b"b")), number if draw.random() < 0.7 else draw.randrange(number + 1))
        if shard.execute([b"GET", key]) == b"$-1\r\n":
            shard.execute([b"SET", key, b"v" * draw.choice((10, 100, 3000))])
        if draw.random() < 0.01:
            shard.execute([b"DEL", key])
    report = advice(shard)
    assert 0 < report["bytes"] < 2 * LIMIT and report["base"] == LIMIT
