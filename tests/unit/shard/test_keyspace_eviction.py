"""Eviction: memory stays within its limit, the policies choose the keys they promise, LRU is as good as exact."""

from __future__ import annotations

import random

import pytest
from yardsticks import LIMIT, VALUE, ExactLru, hits_of, make, read_through, zipf

POLICIES = [
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-s3fifo",
    "volatile-s3fifo",
]


def test_noeviction_refuses_writes_and_serves_reads() -> None:
    shard = make("noeviction")
    replies = [shard.execute([b"SET", b"k%d" % number, VALUE]) for number in range(20_000)]
    assert replies[0] == b"+OK\r\n"
    assert replies[-1] == b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    assert shard.execute([b"GET", b"k0"]).endswith(VALUE + b"\r\n")
    assert shard.execute([b"DEL", b"k0"]) == b":1\r\n"
    assert shard.store.used_memory <= LIMIT + 1000


@pytest.mark.parametrize("policy", POLICIES)
def test_memory_stays_within_the_limit(policy: str) -> None:
    shard = make(policy)
    for number in range(30_000):
        assert shard.execute([b"SET", b"k%d" % number, VALUE, b"PX", b"%d" % (10_000_000 - number)]) == b"+OK\r\n"
    keys = shard.keyspace
    assert LIMIT * 0.98 < keys.store.used_memory <= LIMIT + 1000
    assert keys.store.evicted == 30_000 - keys.size()
    keys.store.check()


@pytest.mark.parametrize("policy", [name for name in POLICIES if name.startswith("volatile")])
def test_volatile_policies_spare_keys_without_a_deadline(policy: str) -> None:
    shard = make(policy)
    for number in range(2000):
        shard.execute([b"SET", b"stays%d" % number, VALUE])
    for number in range(20_000):
        shard.execute([b"SET", b"goes%d" % number, VALUE, b"EX", b"1000"])
    assert all(shard.keyspace.exists(b"stays%d" % number) for number in range(2000))
    for number in range(20_000):
        shard.execute([b"SET", b"more%d" % number, VALUE])
    assert shard.execute([b"SET", b"x", VALUE]).startswith(b"-OOM")
    assert shard.keyspace.size_with_ttl() == 0


def test_volatile_ttl_takes_the_nearest_deadline() -> None:
    shard = make("volatile-ttl")
    order = list(range(12_000))
    random.Random(1).shuffle(order)
    for number in order:
        shard.execute([b"SET", b"k%d" % number, VALUE, b"PX", b"%d" % (1_000_000 + number)])
    remaining = shard.keyspace.keys()
    kept = [int(key[1:]) for key in remaining]
    # What was evicted before a later key came cannot be wrong about it; in the end the far ones are here.
    assert sum(kept) / len(kept) > 7000


def test_frequent_keys_survive_a_scan_under_lfu() -> None:
    shard = make("allkeys-lfu")
    hot = [b"hot%d" % number for number in range(500)]
    for _ in range(30):
        for key in hot:
            shard.execute([b"SET", key, VALUE])
    for number in range(40_000):
        shard.execute([b"SET", b"cold%d" % number, VALUE])
    assert sum(shard.keyspace.exists(key) for key in hot) > 480


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru"])
def test_the_hit_ratio_is_that_of_an_exact_lru(policy: str) -> None:
    """A Zipf trace of exponent 0.9, read-through; within half a point of an exact LRU of as many entries."""
    shard = make(policy)
    trace = zipf(40_000, 0.9, random.Random(42), 250_000)
    warm = 100_000
    found = read_through(shard, trace, extra=[b"EX", b"100000"] if policy.startswith("volatile") else ())
    wanted = hits_of(ExactLru(shard.keyspace.size()), trace)
    difference = (sum(found[warm:]) - sum(wanted[warm:])) / (len(trace) - warm)
    assert abs(difference) < 0.005, difference
