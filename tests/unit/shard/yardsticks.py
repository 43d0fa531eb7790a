"""What the tests of eviction share: a shard with a limit, traces, a client that reads through it, and exact caches.

Exact caches have `get(key)`: whether it was there; it is stored otherwise.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from kache.shard.engine.memory import seed_random
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
LIMIT = 4 << 20
VALUE = b"v" * 400
REQUESTS_A_MS = 20


def make(policy: str, limit: int = LIMIT) -> Shard:
    """A shard whose choices are the same in every run."""
    seed_random(11)
    return Shard(maxmemory=limit, policy=policy, now_ms=NOW, hash_seed=b"0123456789abcdef")


def zipf(count: int, exponent: float, draw: random.Random, length: int) -> list[int]:
    """Ranks by Zipf's law."""
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, count + 1)))
    return [bisect.bisect(weights, draw.random() * weights[-1]) for _ in range(length)]


def read_through(
    shard: Shard,
    trace: Sequence[int],
    value: bytes = VALUE,
    extra: Sequence[bytes] = (),
    tick: Callable[[int], None] = lambda number: None,
) -> list[bool]:
    """Hit or miss of every request of a client that stores what it missed, with `extra` words; a millisecond passes every
    twenty requests, and `tick` is told the number of each."""
    hits, now = [], shard.store.now_ms
    for number, rank in enumerate(trace):
        if number % REQUESTS_A_MS == 0:
            now += 1
            shard.set_time(now)
        tick(number)
        key = b"key:%d" % rank
        hits.append(shard.execute([b"GET", key]) != b"$-1\r\n")
        if not hits[-1]:
            shard.execute([b"SET", key, value, *extra])
    return hits


class ExactCache(Protocol):
    def get(self, key: int) -> bool: ...


class ExactLru:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys: OrderedDict[int, None] = OrderedDict()

    def get(self, key: int) -> bool:
        if key in self.keys:
            self.keys.move_to_end(key)
            return True
        self.keys[key] = None
        if len(self.keys) > self.capacity:
            self.keys.popitem(last=False)
        return False


class ExactS3Fifo:
    """Three real queues of keys, a tenth of them new ones, one use to stay, as many ghosts as keys."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.small: deque[int] = deque()
        self.main: deque[int] = deque()
        self.ghosts: OrderedDict[int, None] = OrderedDict()
        self.uses: dict[int, int] = {}

    def get(self, key: int) -> bool:
        if key in self.uses:
            self.uses[key] = min(3, self.uses[key] + 1)
            return True
        if len(self.uses) >= self.capacity:
            self._evict()
        if key in self.ghosts:
            del self.ghosts[key]
            self.main.append(key)
        else:
            self.small.append(key)
        self.uses[key] = 0
        return False

    def _evict(self) -> None:
        while True:
            if len(self.small) > self.capacity // 10 or not self.main:
                key = self.small.popleft()
                if self.uses[key]:
                    self.uses[key] = 0
                    self.main.append(key)
                    continue
                self.ghosts[key] = None
                if len(self.ghosts) > self.capacity:
                    self.ghosts.popitem(last=False)
            else:
                key = self.main.popleft()
                if self.uses[key]:
                    self.uses[key] -= 1
                    self.main.append(key)
                    continue
            del self.uses[key]
            return


def hits_of(cache: ExactCache, trace: Sequence[int]) -> list[bool]:
    """Hit or miss of every request in an exact cache."""
    return [cache.get(key) for key in trace]
