"""S3-FIFO: as good as the exact one, small, and at peace with everything else that happens to keys."""

from __future__ import annotations

import random

import pytest
from yardsticks import NOW, VALUE, ExactS3Fifo, hits_of, make, read_through, zipf

from kache.shard.engine.memory import seed_random
from kache.shard.shard import Shard


def with_loop(length: int) -> list[int]:
    """Every second request goes round a loop of 12,000 keys."""
    popular = zipf(40_000, 0.9, random.Random(5), length)
    return [100_000 + at // 2 % 12_000 if at % 2 else key for at, key in enumerate(popular)]


def drifting(length: int) -> list[int]:
    """Zipf whose ranks move on by a key every ten requests."""
    return [(rank + at // 10) % 40_000 for at, rank in enumerate(zipf(40_000, 1.0, random.Random(6), length))]


TRACES = {
    "zipf": lambda: zipf(40_000, 0.9, random.Random(42), 250_000),
    "loop": lambda: with_loop(250_000),
    "drift": lambda: drifting(250_000),
}


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("policy", ["allkeys-s3fifo", "volatile-s3fifo"])
def test_the_hit_ratio_is_that_of_an_exact_one(policy: str, trace: str) -> None:
    shard = make(policy)
    requests, warm = TRACES[trace](), 100_000
    found = read_through(shard, requests, extra=[b"EX", b"100000"] if policy.startswith("volatile") else ())
    shard.store.check()
    wanted = hits_of(ExactS3Fifo(shard.keyspace.size()), requests)
    difference = (sum(found[warm:]) - sum(wanted[warm:])) / (len(requests) - warm)
    assert difference > -0.005, difference


def test_what_was_used_survives_a_scan_and_the_scan_does_not() -> None:
    shard = make("allkeys-s3fifo")
    hot = [b"hot%d" % number for number in range(3000)]
    for _ in range(3):
        for key in hot:
            shard.execute([b"SET", key, VALUE])
    for number in range(40_000):
        shard.execute([b"SET", b"cold%d" % number, VALUE])
    assert sum(shard.keyspace.exists(key) for key in hot) > 2950


def test_a_use_counts_as_a_part_of_the_time_without_one() -> None:
    """In the main queue what was used stays longer than what was not, by five eighths of its time for each use, and goes then."""
    shard = make("allkeys-s3fifo")
    groups = {uses: [b"%d:%d" % (uses, number) for number in range(800)] for uses in (0, 1, 3)}
    for uses, keys in groups.items():
        for key in keys:
            shard.execute([b"SET", key, VALUE])
            shard.keyspace.set_idle_ms(key, 0)
            shard.keyspace.set_frequency(key, uses)
    gone: dict[int, int] = {}
    for number in range(120_000):
        # Once memory is full all of them get into the main queue: they are used while they are new, and never again.
        shard.set_time(NOW + number)
        shard.execute([b"SET", b"new%d" % number, VALUE])
        if shard.store.evicted:
            shard.execute([b"GET", b"new%d" % number])
        if number % 200 == 0:
            for uses in groups.keys() - gone.keys():
                if sum(shard.keyspace.exists(key) for key in groups[uses]) < 400:
                    gone[uses] = number
        if len(gone) == 3:
            break
    shard.store.check()
    assert 1.4 < gone[1] / gone[0] < 1.9, gone
    assert 2.4 < gone[3] / gone[0] < 3.4, gone


def test_what_was_evicted_and_comes_again_goes_to_the_main_queue() -> None:
    shard = make("allkeys-s3fifo")
    for number in range(20_000):
        shard.execute([b"SET", b"k%d" % number, VALUE])
    gone = [b"k%d" % number for number in range(20_000) if not shard.keyspace.exists(b"k%d" % number)][-2000:]
    shard.set_time(NOW + 1000)
    for key in gone:
        shard.execute([b"SET", key, VALUE])
    for number in range(4000):
        shard.execute([b"SET", b"new%d" % number, VALUE])
    assert sum(shard.keyspace.exists(key) for key in gone) > 1900


def test_it_costs_less_than_four_bytes_a_key() -> None:
    """By the account and by the blocks: the keys that fit beside LRU's."""
    kept = {}
    for policy in ("allkeys-lru", "allkeys-s3fifo"):
        shard = make(policy, 32 << 20)
        for number in range(200_000):
            shard.execute([b"SET", b"key:%08d" % number, b"v" * 300])
        kept[policy] = (32 << 20) / shard.keyspace.size()
        shard.store.check()
    assert 0 < kept["allkeys-s3fifo"] - kept["allkeys-lru"] < 4, kept


def test_uses_and_idle_time_are_known() -> None:
    shard = make("allkeys-s3fifo")
    shard.execute([b"SET", b"k", b"v"])
    assert shard.execute([b"OBJECT", b"FREQ", b"k"]) == b":0\r\n"
    for _ in range(5):
        shard.execute([b"GET", b"k"])
    assert shard.execute([b"OBJECT", b"FREQ", b"k"]) == b":3\r\n"
    shard.set_time(NOW + 7_500)
    assert shard.execute([b"OBJECT", b"IDLETIME", b"k"]) == b":7\r\n"
    shard.execute([b"APPEND", b"k", b"more"])
    assert shard.execute([b"OBJECT", b"IDLETIME", b"k"]) == b":0\r\n"
    shard.keyspace.set_idle_ms(b"k", 60_000)
    shard.keyspace.set_frequency(b"k", 200)
    assert shard.execute([b"OBJECT", b"IDLETIME", b"k"]) == b":60\r\n"
    assert shard.execute([b"OBJECT", b"FREQ", b"k"]) == b":3\r\n"


def test_another_value_is_a_use() -> None:
    shard = make("allkeys-s3fifo")
    for value in (b"a", b"b" * 1000, b"c" * 100_000):
        shard.execute([b"SET", b"k", value])
    shard.execute([b"DEL", b"other"])
    assert shard.execute([b"OBJECT", b"FREQ", b"k"]) == b":2\r\n"


@pytest.mark.parametrize("before", ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-s3fifo"])
def test_the_policy_changes_while_memory_is_full(before: str) -> None:
    shard = make(before)
    for number in range(15_000):
        shard.execute([b"SET", b"k%d" % number, VALUE, *([b"EX", b"1000"] if before.startswith("volatile") else [])])
    for turn, policy in enumerate(("allkeys-s3fifo", before, "allkeys-s3fifo")):
        shard.evictor.set_policy(policy)
        shard.set_time(NOW + 1000 * (turn + 1))
        for number in range(15_000):
            reply = shard.execute([b"SET", b"%s:%d" % (policy.encode(), number), VALUE, b"EX", b"1000"])
            assert reply == b"+OK\r\n"
        shard.store.check()
    # A sample finds each of them so often that none is left, but by a chance of less than one in a million.
    for number in range(60_000):
        shard.set_time(NOW + 4000 + number)
        shard.execute([b"SET", b"wanted%d" % number, VALUE, b"EX", b"1000"])
        shard.execute([b"GET", b"wanted%d" % number])
    # What was there before the change has gone: no key is forgotten because no queue has it.
    assert not any(shard.keyspace.exists(b"k%d" % number) for number in range(15_000))


def test_keys_that_get_a_deadline_later_can_be_evicted() -> None:
    shard = make("volatile-s3fifo")
    for number in range(20_000):
        assert shard.execute([b"SET", b"k%d" % number, VALUE]) == b"+OK\r\n"
        shard.execute([b"EXPIRE", b"k%d" % number, b"1000"])
    for number in range(20_000):
        if shard.keyspace.exists(b"k%d" % number):
            shard.execute([b"PERSIST", b"k%d" % number])
    # Keys without a deadline are smaller.
    assert [shard.execute([b"SET", b"x%d" % number, VALUE]) for number in range(1000)][-1].startswith(b"-OOM")
    assert shard.keyspace.size_with_ttl() == 0
    shard.store.check()


def test_seeded_changes_of_every_kind_leave_everything_in_order() -> None:
    """Renames, deletes, moves between databases, flushes and deadlines, with memory full: queues hold what is gone."""
    draw = random.Random(9)
    seed_random(9)
    shard = Shard(maxmemory=1 << 20, policy="allkeys-s3fifo", now_ms=NOW, hash_seed=b"0123456789abcdef")
    now = NOW
    for step in range(60_000):
        key, other = (b"k%d" % draw.randrange(6000) for _ in range(2))
        choice = draw.random()
        if choice < 0.6:
            shard.execute([b"SET", key, b"v" * draw.randrange(600)])
        elif choice < 0.7:
            shard.execute([b"DEL", key])
        elif choice < 0.78:
            shard.execute([b"RENAME", key, other])
        elif choice < 0.84:
            shard.execute([b"COPY", key, other, b"REPLACE"])
        elif choice < 0.88:
            shard.execute([b"MOVE", key, b"1"])
        elif choice < 0.94:
            shard.execute([b"RPUSH", b"l" + key, b"v" * draw.randrange(300)])
        elif choice < 0.9999:
            shard.execute([b"PEXPIRE", key, b"%d" % draw.randrange(1, 5000)])
        else:
            shard.execute([b"FLUSHALL"])
        if step % 50 == 0:
            now += 20
            shard.set_time(now)
        if step % 5000 == 0:
            shard.store.check()
    shard.store.check()
    assert shard.store.used_memory <= (1 << 20) + 2000


def test_without_a_limit_it_costs_nothing() -> None:
    """No queue where nothing will be evicted; with a limit that is set later it is as good as any."""
    used = {}
    for policy in ("allkeys-lru", "allkeys-s3fifo", "allkeys-auto"):
        shard = make(policy, 0)
        for number in range(20_000):
            shard.execute([b"SET", b"k%d" % number, VALUE])
        used[policy] = shard.store.used_memory
    assert len(set(used.values())) == 1, used
    shard = make("allkeys-s3fifo", 0)
    for number in range(9_000):
        shard.execute([b"SET", b"k%d" % number, VALUE])
    shard.set_maxmemory(4 << 20)
    requests = zipf(40_000, 0.9, random.Random(42), 200_000)
    found = read_through(shard, requests)
    shard.store.check()
    wanted = hits_of(ExactS3Fifo(shard.keyspace.size()), requests)
    assert (sum(found[100_000:]) - sum(wanted[100_000:])) / 100_000 > -0.005
    assert not any(shard.keyspace.exists(b"k%d" % number) for number in range(9_000))
    before = shard.store.used_memory
    shard.set_maxmemory(0)
    assert shard.store.used_memory < before
    shard.store.check()


def test_a_queue_of_deleted_keys_does_not_grow() -> None:
    shard = make("allkeys-s3fifo")
    for number in range(20_000):
        shard.execute([b"SET", b"k%d" % number, VALUE])
    full = shard.store.used_memory
    for number in range(300_000):
        shard.execute([b"SET", b"gone%d" % number, VALUE])
        shard.execute([b"DEL", b"gone%d" % number])
    assert shard.store.used_memory <= full + 1000
    shard.store.check()
