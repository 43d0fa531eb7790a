"""One limit for several shards: who may use what, who gives way, what is never a victim, when a write is refused.

The shards live in this process and share a page of ordinary memory, as processes share a mapped one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import struct
import sys
import time
from collections.abc import Iterator

import pytest

from kache.shard.engine.engine import Budget
from kache.shard.engine.memory import seed_random
from kache.shard.service.statistics import private_memory, resident_memory
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
MIB = 1 << 20
LIMIT = 8 * MIB
LINE = 64
VALUE = b"v" * 400
REFUSED = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
SLICE_NS = 10**9


class Shards:
    """`count` shards with one budget; `clock` counts milliseconds."""

    def __init__(self, count: int, limit: int = LIMIT, policy: str = "allkeys-lru") -> None:
        seed_random(11)
        self.page = bytearray(LINE * count)
        self.wakers = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
        self.all = [
            Shard(maxmemory=limit, policy=policy, now_ms=NOW, budget=Budget(self.page, index, self.wakers))
            for index in range(count)
        ]

    def __getitem__(self, index: int) -> Shard:
        return self.all[index]

    def total(self) -> int:
        return sum(shard.store.used_memory for shard in self.all)

    def fill(self, index: int, keys: int, start: int = 0, value: bytes = VALUE) -> list[bytes]:
        """The replies of so many SETs at one shard."""
        return [self[index].execute([b"SET", b"k%d" % number, value]) for number in range(start, start + keys)]

    def background(self) -> None:
        """What the timers of all do."""
        for shard in self.all:
            while shard.evict_some(SLICE_NS):
                pass

    def close(self) -> None:
        for waker in self.wakers:
            os.close(waker)


@pytest.fixture
def four() -> Iterator[Shards]:
    shards = Shards(4)
    yield shards
    shards.close()


def test_one_shard_may_use_what_the_others_leave(four: Shards) -> None:
    assert four[0].execute([b"SET", b"big", bytes(3 * MIB)]) == b"+OK\r\n"
    four.fill(0, 9000)
    assert four[0].keyspace.size() == 9001 and four[0].store.evicted == 0
    assert four.total() > LIMIT * 0.8 > 2 * LIMIT / 4


def test_the_sum_stays_within_the_limit_wherever_it_grows(four: Shards) -> None:
    worst = 0
    for number in range(60_000):
        four[number % 4 if number % 7 else 0].execute([b"SET", b"k%d" % number, VALUE])
        if number % 100 == 0:
            worst = max(worst, four.total())
    assert LIMIT * 0.95 < four.total() <= worst <= LIMIT * 1.05
    for shard in four.all:
        shard.store.check()


def test_who_uses_more_than_its_share_gives_way_without_a_command(four: Shards) -> None:
    four.fill(0, 30_000)
    assert four.total() > LIMIT * 0.95
    worst = 0
    for number in range(4_000):
        assert four[1].execute([b"SET", b"k%d" % number, VALUE]) == b"+OK\r\n"
        worst = max(worst, four.total())
        if _woken(four.wakers[0]):
            four[0].evict_some(SLICE_NS)
    assert worst <= LIMIT * 1.05
    # Who uses less than the others loses nothing.
    assert four[1].store.evicted == 0 and four[1].keyspace.size() == 4_000
    four.background()
    assert four.total() <= LIMIT * 1.01
    assert not any(_woken(waker) for waker in four.wakers[1:])


def test_two_that_could_use_everything_end_with_a_half_each(four: Shards) -> None:
    four.fill(0, 30_000)
    for start in range(0, 30_000, 50):
        four.fill(1, 50, start)
        if _woken(four.wakers[0]):
            four[0].evict_some(SLICE_NS)
    assert four.total() <= LIMIT * 1.05
    assert abs(four[0].store.used_memory - four[1].store.used_memory) < LIMIT * 0.05


def _woken(waker: int) -> bool:
    try:
        return os.eventfd_read(waker) > 0
    except BlockingIOError:
        return False


def test_a_shard_under_its_share_is_served_although_another_does_not_give_way(four: Shards) -> None:
    four.fill(0, 30_000)
    assert set(four.fill(1, 3_000)) == {b"+OK\r\n"}
    assert four[1].store.evicted == 0


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "allkeys-lfu"])
@pytest.mark.parametrize("command", [b"RPUSH", b"SADD", b"APPEND"])
def test_a_key_is_not_the_victim_of_its_own_write(command: bytes, policy: str) -> None:
    shards = Shards(4, policy=policy)
    shards.fill(0, 1000)
    for shard in (1, 2, 3):
        shards.fill(shard, 8000)
    elements = itertools.count()
    for pushed in range(1, 3 * MIB // 1000):
        reply = shards[0].execute([command, b"grown", b"%07d" % next(elements) + b"x" * 993])
        assert reply == b":%d\r\n" % (1 if command == b"SADD" else pushed * (1000 if command == b"APPEND" else 1))
        shards.background()
    assert shards.total() <= LIMIT * 1.05
    shards.close()


def test_a_value_of_a_third_of_the_limit_stays_when_memory_is_full(four: Shards) -> None:
    for shard in range(4):
        four.fill(shard, 8000)
    assert four[2].execute([b"SET", b"big", bytes(LIMIT // 3)]) == b"+OK\r\n"
    four.background()
    for number in range(2000):
        four[number % 2].execute([b"SET", b"small%d" % number, VALUE])
        if number % 20 == 0:
            four.background()
    assert four[2].execute([b"STRLEN", b"big"]) == b":%d\r\n" % (LIMIT // 3)
    assert four.total() <= LIMIT * 1.05


def test_what_is_larger_than_all_there_may_be_is_refused_and_changes_nothing(four: Shards) -> None:
    four.fill(0, 100)
    assert four[0].execute([b"SET", b"k1", bytes(LIMIT)]) == REFUSED
    assert four[0].keyspace.size() == 100 and four[0].store.evicted == 0
    for _ in range(9):
        reply = four[0].execute([b"APPEND", b"k2", bytes(MIB)])
        four.background()
    assert reply == REFUSED
    assert four[0].execute([b"STRLEN", b"k2"]) == b":%d\r\n" % (400 + 7 * MIB)


def test_a_limit_below_the_number_of_shards_is_one() -> None:
    shards = Shards(4, 3)
    assert shards.fill(0, 1) == [REFUSED]
    assert shards.total() < 10_000
    shards.close()


def test_noeviction_refuses_when_the_cluster_is_full() -> None:
    shards = Shards(4, policy="noeviction")
    replies = shards.fill(0, 12_000)
    assert set(replies) == {b"+OK\r\n"}
    assert four_of(shards) and shards[0].store.used_memory > LIMIT / 2
    for shard in (1, 2, 3):
        replies = shards.fill(shard, 12_000)
    assert replies[-1] == REFUSED
    assert LIMIT * 0.95 < shards.total() <= LIMIT * 1.01
    assert shards.fill(0, 1, 99_999) == [REFUSED]
    shards.close()


def four_of(shards: Shards) -> bool:
    return [used for used, _held, _grown in shards[3].budget.usage()][1:] == [0, 0, 0]


def test_keys_that_the_policy_spares_count_as_they_are() -> None:
    shards = Shards(2, policy="volatile-lru")
    replies = shards.fill(0, 30_000)
    assert replies[-1] == REFUSED
    for number in range(5000):
        reply = shards[1].execute([b"SET", b"k%d" % number, VALUE])
        shards.background()
    assert reply == REFUSED
    assert shards.total() <= LIMIT * 1.05
    shards.close()


def test_a_shard_that_has_ended_counts_no_more(four: Shards) -> None:
    four.fill(0, 30_000)
    four.page[:LINE] = bytes(LINE)  # as the supervisor does, and whoever starts again in its place
    fresh = Shard(maxmemory=LIMIT, policy="allkeys-lru", now_ms=NOW, budget=Budget(four.page, 0, four.wakers))
    four.all[0] = fresh
    four.fill(1, 12_000)
    assert four[1].store.evicted == 0


def test_less_is_allowed_while_the_allocator_has_holes(four: Shards) -> None:
    for shard in range(4):
        four.fill(shard, 8000)
    for _ in range(20):
        for shard in four.all:
            shard.govern_memory(LIMIT // 2)
    four.background()
    assert four.total() <= LIMIT * 0.7
    for _ in range(3):
        for shard in four.all:
            shard.govern_memory(LIMIT // 8)
    assert all(shard.budget.allowed == LIMIT for shard in four.all)


def test_what_a_process_takes_anyhow_is_no_hole_in_little_data() -> None:
    for limit, is_fault in ((16 * MIB, False), (512 * MIB, True)):
        shards = Shards(4, limit)
        grown = (limit + limit // 12 + MIB // 2) // 4
        for line in range(1, 4):
            struct.pack_into("=3q", shards.page, line * LINE, limit // 3, 0, grown)
        shards[0].govern_memory(grown)
        assert (shards[0].budget.allowed < limit) == is_fault
        shards.close()


@contextlib.contextmanager
def late_timers(seconds: float) -> Iterator[None]:
    """Whoever pauses in this thread is woken so much later, as where there are fewer cores than processes that work."""
    prctl, set_slack = ctypes.CDLL(None).prctl, 29
    prctl(set_slack, ctypes.c_ulong(int(seconds * 1e9)), 0, 0, 0)
    try:
        yield
    finally:
        prctl(set_slack, ctypes.c_ulong(0), 0, 0, 0)


def longest_write_beside_a_full_shard() -> float:
    """Seconds of the slowest of a few writes at a shard below its share, while the other does not give way."""
    shards = Shards(2)
    shards.fill(0, 30_000)
    slowest = 0.0
    for number in range(8):
        began = time.monotonic()
        shards.fill(1, 1, number, bytes(50_000))
        slowest = max(slowest, time.monotonic() - began)
    shards.close()
    return slowest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's timer slack")
def test_a_write_waits_for_others_by_the_clock() -> None:
    with late_timers(0.05):
        fastest = min(longest_write_beside_a_full_shard() for _ in range(3))
    assert fastest < 0.3  # one pause, or two; not as many of them as would fit at their best


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_shared_with_routers_is_no_hole_in_the_data() -> None:
    private, resident = private_memory(), resident_memory()
    with mmap.mmap(-1, 64 << 20) as shared:
        shared.write(bytes(64 << 20))
        assert resident_memory() - resident > 48 << 20
        assert abs(private_memory() - private) < 16 << 20
        own = bytearray(b"x") * (64 << 20)
        assert private_memory() - private > 48 << 20
        del own


def test_a_budget_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no line 4 among 4"):
        Budget(bytearray(4 * LINE), 4)
