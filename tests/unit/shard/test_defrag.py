"""Moving blocks: what clients see stays as it is, every invariant holds, sparse pages become free, in slices."""

from __future__ import annotations

import gc
import random

import pytest

from kache.shard.engine.blocks import check_heap, cool_down_heap, heap_state
from kache.shard.engine.memory import seed_random
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
SLICE_NS = 1  # as small as can be: the clock is looked at after a few blocks


def word(rng: random.Random, most: int) -> bytes:
    return b"%x" % rng.getrandbits(4 * rng.randint(1, most))


def fill(shard: Shard, rng: random.Random, keys: int) -> None:
    """Every type, with and without deadlines, of keys and of fields, small and large."""
    for number in range(keys):
        n = 3 + number % 50 if number % 199 else 3000
        words = [word(rng, 60) for _ in range(n)]
        key = b"%d" % number
        match number % 5:
            case 0:
                shard.execute([b"SET", key, b"".join(words[:20])])
            case 1:
                shard.execute([b"RPUSH", key, *words])
            case 2:
                shard.execute([b"HSET", key, *(w for field in words for w in (field, word(rng, 100)))])
                shard.execute([b"HEXPIRE", key, b"100", b"FIELDS", b"1", words[0]])
            case 3:
                shard.execute([b"SADD", key, *words])
            case _:
                # Equal scores, too: then the order is that of the members' bytes.
                shard.execute([b"ZADD", key, *(w for member in words for w in (b"%d" % rng.randrange(40), member))])
        if number % 3 == 0:
            shard.execute([b"PEXPIRE", key, b"%d" % rng.randrange(10**6, 10**7)])


def contents(shard: Shard, keys: int) -> list[object]:
    reads = (
        (b"GET",),
        (b"LRANGE", b"0", b"-1"),
        (b"HGETALL",),
        (b"SMEMBERS",),
        (b"ZRANGE", b"0", b"-1", b"WITHSCORES"),
    )
    found: list[object] = []
    for number in range(keys):
        key = b"%d" % number
        name, *rest = reads[number % 5]
        found.append((shard.execute([name, key, *rest]), shard.execute([b"PTTL", key])))
    return found


def settled() -> int:
    while cool_down_heap() or heap_state()["dirty"]:
        pass
    return heap_state()["held"]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_is_moved_and_stays_the_same(seed: int) -> None:
    gc.collect()  # other tests' data lies in the same heap
    already = settled()
    rng = random.Random(seed)
    seed_random(seed)
    shard = Shard(now_ms=NOW, hash_seed=b"0123456789abcdef")
    keys = 3000
    fill(shard, rng, keys)
    for number in rng.sample(range(keys), keys * 9 // 10):
        shard.execute([b"DEL", b"%d" % number])
    for number in range(0, keys, 5):
        # Large values that have become smaller, each in its way.
        shard.execute([b"LTRIM", b"%d" % (number + 1), b"0", b"30"])
        shard.execute([b"ZREMRANGEBYRANK", b"%d" % (number + 4), b"5", b"-10"])
    before, sparse, used = contents(shard, keys), settled() - already, shard.store.used_memory
    assert heap_state()["holes"] > sparse // 2
    slices = 0
    while shard.defragment_some(SLICE_NS):
        slices += 1
        if slices % 50 == 0:
            shard.store.check()
            # Something else happens between two slices.
            shard.execute([b"SET", b"between:%d" % rng.randrange(100), word(rng, 200)])
            shard.execute([b"HDEL", b"%d" % (5 * rng.randrange(keys // 5) + 2), b"none"])
        assert slices < 100_000
    shard.store.check()
    check_heap()
    assert slices > 20
    assert contents(shard, keys) == before
    assert settled() - already < sparse * 0.6
    assert abs(shard.store.used_memory - used) < used // 10


def test_a_heap_without_holes_is_left_alone() -> None:
    shard = Shard(now_ms=NOW)
    for number in range(2000):
        shard.execute([b"SET", b"k%d" % number, b"v" * 40])
    while cool_down_heap():
        pass
    while shard.defragment_some(10**9):
        pass
    assert not shard.defragmenter.active
    assert not shard.defragment_some(10**9)


def test_expiry_finds_what_was_moved() -> None:
    rng = random.Random(1)
    shard = Shard(now_ms=NOW)
    for number in range(6000):
        shard.execute([b"SET", b"k%d" % number, word(rng, 80), b"PX", b"%d" % (1000 + number)])
    for number in rng.sample(range(6000), 5000):
        shard.execute([b"DEL", b"k%d" % number])
    while shard.defragment_some(10**7):
        pass
    left = shard.keyspace.size()
    shard.set_time(NOW + 4000)
    shard.expire_some(10**9)
    assert 0 < shard.keyspace.size() < left
    remaining = shard.keyspace.keys()
    assert all(int(key[1:]) > 3000 for key in remaining)
    shard.store.check()
