#!/usr/bin/env python3
"""Does eviction keep the right keys, within the memory it was given? `python bench/eviction.py`.

A read-through cache under a Zipf trace (exponent 0.9, 400,000 keys, values of 500 bytes): GET, and SET what
was missing. The hit ratio is compared with an exact LRU of as many entries, fed with the same trace in the
same order; memory is the growth of summed PSS over the empty cluster.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import random
import sys
import time
from collections import OrderedDict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from contenders import CONTENDERS
from wire import Connection, command

KEYS = 400_000
EXPONENT = 0.9
VALUE = bytes(500)
BATCH = 500


def zipf(count: int, rng: random.Random) -> list[int]:
    """`count` ranks by Zipf's law, scattered over the keys."""
    weights = list(itertools.accumulate(1 / rank**EXPONENT for rank in range(1, KEYS + 1)))
    names = list(range(KEYS))
    rng.shuffle(names)
    return [names[bisect.bisect_left(weights, rng.random() * weights[-1])] for _ in range(count)]


class ExactLru:
    """The yardstick: a least-recently-used cache of `capacity` entries."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: OrderedDict[int, None] = OrderedDict()

    def get(self, key: int) -> bool:
        """Whether it was there; it is the newest then."""
        if key not in self.entries:
            return False
        self.entries.move_to_end(key)
        return True

    def put(self, key: int) -> None:
        """Stores it, dropping the oldest when full."""
        self.entries[key] = None
        self.entries.move_to_end(key)
        if len(self.entries) > self.capacity:
            self.entries.popitem(last=False)


def run_trace(connection: Connection, trace: list[int]) -> list[bool]:
    """Hit or miss of every access."""
    hits: list[bool] = []
    for start in range(0, len(trace), BATCH):
        batch = trace[start : start + BATCH]
        replies = connection.pipeline([command("GET", b"key:%d" % key) for key in batch])
        found = [reply is not None for reply in replies]
        hits += found
        missing = [key for key, hit in zip(batch, found, strict=True) if not hit]
        if missing:
            connection.pipeline([command("SET", b"key:%d" % key, VALUE) for key in missing])
    return hits


def simulate(trace: list[int], capacity: int) -> list[bool]:
    """The same on the exact LRU."""
    cache = ExactLru(capacity)
    hits: list[bool] = []
    for start in range(0, len(trace), BATCH):
        batch = trace[start : start + BATCH]
        found = [cache.get(key) for key in batch]
        hits += found
        for key, hit in zip(batch, found, strict=True):
            if not hit:
                cache.put(key)
    return hits


def main() -> None:
    """One run per memory limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--maxmemory", nargs="+", default=["256mb", "128mb", "64mb"])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--requests", type=int, default=3_000_000)
    args = parser.parse_args()
    rng = random.Random(20)
    trace = zipf(args.requests, rng)
    failed = False
    for limit in args.maxmemory:
        contender = CONTENDERS["kache"](args.shards, {"maxmemory": limit, "maxmemory-policy": "allkeys-lru"})
        contender.start()
        try:
            with Connection(contender.port) as connection:
                connection.pipeline([command("PING")])
                empty = contender.memory_bytes()
                hits = run_trace(connection, trace)
                time.sleep(10)
                growth = contender.memory_bytes() - empty
                stored = int(connection.call("DBSIZE"))  # type: ignore[call-overload]
        finally:
            contender.stop()
        half = len(trace) // 2  # the second half, when the cache is warm
        reached = 100 * sum(hits[half:]) / len(hits[half:])
        exact = 100 * (lambda found: sum(found[half:]) / len(found[half:]))(simulate(trace, stored))
        bytes_allowed = int(limit.removesuffix("mb")) * 1024 * 1024
        over = 100 * (growth / bytes_allowed - 1)
        ok = over <= 15 and abs(exact - reached) <= 1
        failed |= not ok
        print(
            f"maxmemory {limit}: {stored} keys kept, hit ratio {reached:.2f} % (exact LRU {exact:.2f} %, "
            f"difference {reached - exact:+.2f} points), memory {growth / 2**20:.0f} MiB ({over:+.1f} % of the limit): "
            f"{'ok' if ok else 'MISSED'}",
            flush=True,
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
