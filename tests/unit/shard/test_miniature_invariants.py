"""The miniature simulations whatever the traffic is: their lists, counts and bytes, and how many keys the shard has of the sample."""

from __future__ import annotations

import os
import random

import pytest
from yardsticks import NOW

from kache.shard.engine.memory import fail_allocation_after, seed_random
from kache.shard.service.statistics import advice
from kache.shard.shard import Shard
from kache.slots import slot_of_key

MIB = 1 << 20
SEEDS = range(int(os.environ.get("KACHE_MINIATURE_SEEDS", "4")))
POLICIES = (
    "allkeys-auto", "allkeys-lru", "allkeys-lfu", "allkeys-s3fifo", "allkeys-random", "volatile-lru", "volatile-ttl",
    "volatile-s3fifo", "noeviction",
)  # fmt: skip
DATABASES = (0, 0, 0, 1, 5)
TENANTS = 3
FEWEST_KEYS = 1000


def make(seed: int, policy: str, limit: int) -> Shard:
    seed_random(seed)
    return Shard(maxmemory=limit, policy=policy, now_ms=NOW, hash_seed=b"%016d" % seed)


def introduced(shard: Shard) -> bool:
    """Some more ticks, as they come by themselves: whether there is anything that they were told of."""
    for _ in range(80):
        shard.tune_simulations()
    return shard.store.miniatures is not None and sum(keys for _, keys, *_ in shard.store.counts()) >= FEWEST_KEYS


def size_of(draw: random.Random) -> int:
    """Mostly small, now and then larger than a simulated cache."""
    return draw.randrange(150) if draw.random() < 0.97 else draw.randrange(10_000)


def command_of(draw: random.Random, now_ms: int) -> list[bytes]:
    def key() -> bytes:
        number = draw.randrange(20_000) if draw.random() < 0.6 else int(draw.random() ** 6 * 20_000)
        # A part of them in a few slots.
        return b"{tag%d}:%d" % (number % TENANTS, number) if number % 4 == 0 else b"key:%d" % number

    value = b"v" * size_of(draw)
    large = [word for number in range(draw.choice((1, 1, 1, 1, 3, 200))) for word in (b"%d" % number, value[:50])]
    return draw.choice((
        *(([b"GET", key()], [b"SET", key(), value]) * 8),
        [b"SET", key(), value, b"PXAT", b"%d" % (now_ms + draw.randrange(1, 3000))], [b"APPEND", key(), value],
        [b"SETRANGE", key(), b"%d" % (draw.randrange(60) ** 2), b"x"], [b"GETDEL", key()], [b"DEL", key()], [b"UNLINK", key()],
        [b"RENAME", key(), key()], [b"RENAMENX", key(), key()], [b"COPY", key(), key(), b"REPLACE"],
        [b"COPY", key(), key(), b"DB", b"%d" % draw.choice(DATABASES), b"REPLACE"],
        [b"MOVE", key(), b"%d" % draw.choice(DATABASES)], [b"PEXPIREAT", key(), b"%d" % (now_ms + draw.randrange(3000))],
        [b"PERSIST", key()], [b"HSET", key(), *large], [b"HGET", key(), b"1"], [b"HDEL", key(), *large[::2]],
        [b"RPUSH", key(), *large], [b"LPOP", key(), b"100"], [b"EXISTS", key()], [b"TTL", key()], [b"TOUCH", key()],
    ))  # fmt: skip


def rarely(draw: random.Random, shard: Shard, limit: int) -> int:
    """Something that concerns all keys; the limit from then on."""
    match draw.randrange(7):
        case 0:
            limit = draw.choice((0, MIB // 2, MIB, 2 * MIB, 3 * MIB))
            shard.set_maxmemory(limit)
        case 1:
            shard.evictor.set_policy(draw.choice(POLICIES))
        case 2:
            left, right = draw.choice(DATABASES), draw.choice(DATABASES)
            assert shard.execute([b"SWAPDB", b"%d" % left, b"%d" % right]) == b"+OK\r\n"
        case 3:
            shard.execute([b"FLUSHDB"], db=draw.choice((1, 5, 9)))
        case 4:
            shard.ask_advice()
        case 5:
            shard.reset_counters()
        case _:
            shard.set_time(shard.store.now_ms + draw.choice((1000, 90_000)))
            shard.expire_some(10**9)
    return limit


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens(seed: int) -> None:
    draw = random.Random(seed)
    limit = draw.choice((MIB, 2 * MIB, 0))
    shard = make(seed, draw.choice(POLICIES), limit)
    shard.ask_advice()
    seen = most = 0
    for number in range(40_000):
        if number % 10 == 0:
            shard.set_time(shard.store.now_ms + 1)
        shard.execute(command_of(draw, shard.store.now_ms), db=draw.choice(DATABASES))
        if draw.random() < 0.002:
            shard.tune_simulations()
        if number % 800 == 799:
            limit = rarely(draw, shard, limit)
        if number % 2000 == 1999:
            shard.store.check()
            if introduced(shard):
                miniatures = shard.store.miniatures
                assert miniatures is not None and miniatures.held == shard.store.sampled_keys(), number
                seen, most = seen + 1, max(most, miniatures.held)
                assert all(value >= 0 for values in advice(shard)["misses"].values() for value in values)
                shard.store.check()
    assert seen >= 10 and most > 60


def test_a_key_of_the_same_name_in_another_database_is_another_key() -> None:
    shard = make(1, "allkeys-lru", 0)
    shard.ask_advice()
    for number in range(5000):
        shard.execute([b"SET", b"key:%d" % number, b"v"])
        shard.execute([b"SET", b"key:%d" % number, b"v"], db=3)
    assert introduced(shard)
    miniatures = shard.store.miniatures
    assert miniatures is not None and miniatures.held == shard.store.sampled_keys() > 300
    for number in range(5000):
        shard.execute([b"MOVE", b"key:%d" % number, b"2"], db=3)
        shard.execute([b"DEL", b"key:%d" % number])
    assert miniatures.held == shard.store.sampled_keys() > 150
    shard.execute([b"SWAPDB", b"0", b"2"])
    assert introduced(shard) and miniatures.held == shard.store.sampled_keys() > 150


def test_an_empty_database_takes_nothing_with_it() -> None:
    """Who flushes a database that has nothing makes nobody forget what was seen of the others."""
    shard = make(2, "allkeys-lru", 2 * MIB)
    shard.ask_advice()
    for number in range(5000):
        shard.execute([b"SET", b"key:%d" % number, b"v"])
    shard.execute([b"SET", b"other", b"v"], db=4)
    shard.execute([b"DEL", b"other"], db=4)
    assert introduced(shard)
    for number in range(5000):
        shard.execute([b"GET", b"key:%d" % number])
    before = advice(shard)
    shard.execute([b"FLUSHDB"], db=4)
    shard.execute([b"FLUSHDB"], db=7)
    shard.execute([b"SWAPDB", b"4", b"7"])
    assert advice(shard) == before and before["sampled"] > 100


def test_a_slot_that_is_emptied_in_the_middle_of_it() -> None:
    """They are told of the keys of a large slot in several goes; of the next one they are told from its beginning."""
    shard = make(5, "allkeys-lru", 0)
    shard.ask_advice()
    first, second = sorted((b"a", b"b"), key=slot_of_key)
    for tag in (first, second):
        for number in range(8000):
            shard.execute([b"SET", b"{%s}:%d" % (tag, number), b"v"])
    shard.tune_simulations()
    miniatures = shard.store.miniatures
    assert miniatures is not None and 0 < miniatures.held < shard.store.sampled_keys() / 3
    for number in range(8000):
        shard.execute([b"DEL", b"{%s}:%d" % (first, number)])
    assert introduced(shard) and miniatures.held == shard.store.sampled_keys() > 300


def test_what_there_is_no_memory_for_is_done_later() -> None:
    shard = make(6, "allkeys-lru", 0)
    shard.ask_advice()
    for number in range(8000):
        shard.execute([b"SET", b"{a}:%d" % number, b"v"])
    for _ in range(5):
        fail_allocation_after(0)
        shard.tune_simulations()
    fail_allocation_after(-1)
    miniatures = shard.store.miniatures
    assert miniatures is not None and miniatures.held == 0
    assert introduced(shard) and miniatures.held == shard.store.sampled_keys() > 300


def test_a_limit_that_nobody_reaches() -> None:
    """Its product with the number of keys, and with the rate, is beyond 64 bits."""
    shard = make(3, "allkeys-auto", (1 << 50) - (1 << 40))
    draw = random.Random(3)
    for number in range(60_000):
        key = b"key:%d" % draw.randrange(50_000)
        if shard.execute([b"GET", key]) == b"$-1\r\n":
            shard.execute([b"SET", key, b"v" * 100])
        if number % 1000 == 0:
            shard.tune_simulations()
            shard.store.check()
    assert 0 < advice(shard)["rate"] < 0.001


def test_one_value_that_grows_takes_no_small_cache_with_it() -> None:
    """It is larger than all that a simulated cache of an eighth has: so that has it no more, and all the others still."""
    shard = make(4, "allkeys-lru", 0)
    shard.ask_advice()
    for number in range(24_000):
        shard.execute([b"SET", b"key:%d" % number, b"v" * 70])
    assert introduced(shard)
    for _ in range(2):
        for number in range(23_000, 24_000):
            shard.execute([b"GET", b"key:%d" % number])
    shard.reset_counters()
    for step in range(300):
        for number in range(23_000 + step % 10 * 30, 23_030 + step % 10 * 30):
            shard.execute([b"GET", b"key:%d" % number])
            shard.execute([b"SET", b"key:%d" % number, b"v" * 60_000])
            shard.execute([b"SET", b"key:%d" % number, b"v" * 70])
        for near in range(23_900, 24_000):
            assert shard.execute([b"GET", b"key:%d" % near]) != b"$-1\r\n"
    report = advice(shard)
    assert report["sampled"] > 500
    for name in ("lru", "lfu", "s3fifo"):
        assert report["misses"][name][0] < 0.1 * report["reads"], (name, report["misses"][name])
    shard.store.check()
