#!/usr/bin/env python3
"""A client-side cache checked against the server for a minute, under writes, kills, FLUSHALL and SWAPDB.

`python tests/soak/near_cache.py [--seconds 60] [--bound 1.0] [--seed 1]`

Writers count in every key: a value says by whom and which. The program keeps copies (`Client(near_cache=…)`); what it is
answered must not be older than what was acknowledged `--bound` seconds before the question: that is the time within which
news must have come. FLUSHALL, SWAPDB and kills of shards (nothing is kept on disk) empty keys: what was written before them
may be read no more than the bound behind. Exit status 1 for one stale answer, or too few hits to mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import threading
import time
from bisect import bisect_right
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster

from kache import Client
from kache.errors import KacheError

KEYS, WRITERS, READERS, SHARDS = 60, 3, 3, 3


class History:
    """What was acknowledged when, key by key; each key has one writer."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.times: dict[str, list[float]] = {}
        self.numbers: dict[str, list[int]] = {}
        self.emptied: list[float] = []

    def acknowledged(self, key: str, number: int) -> None:
        with self.lock:
            self.times.setdefault(key, []).append(time.monotonic())
            self.numbers.setdefault(key, []).append(number)

    def least(self, key: str, when: float) -> int:
        """The number that a read that began then must at least see; 0 where the key may have been emptied since it was written."""
        with self.lock:
            times = self.times.get(key, [])
            at = bisect_right(times, when)
            if not at or any(emptied >= times[at - 1] - 1 for emptied in self.emptied):
                return 0
            return self.numbers[key][at - 1]


def write(port: int, keys: list[str], history: History, stop: threading.Event, seed: int) -> None:
    draw = random.Random(seed)
    numbers = dict.fromkeys(keys, 0)
    with Client(port=port) as client:
        while not stop.is_set():
            key = draw.choice(keys)
            numbers[key] += 1
            with contextlib.suppress(KacheError):
                client.set(key, numbers[key])
                history.acknowledged(key, numbers[key])
            time.sleep(0.001)


def read(
    client: Client[bytes], history: History, stop: threading.Event, seed: int, bound: float, wrong: list[str]
) -> None:
    draw = random.Random(seed)
    while not stop.is_set():
        key = f"key:{draw.randrange(KEYS)}"
        least_before = history.least(key, time.monotonic() - bound)
        try:
            found = client.get(key)
        except KacheError:
            continue
        # Emptied meanwhile: what is asked again behind the question counts.
        least = min(least_before, history.least(key, time.monotonic() - bound) or 0)
        if int(found or 0) < least:
            wrong.append(f"{key}: {found!r}, but {least} was acknowledged {bound} s before")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bound", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    history, stop = History(), threading.Event()
    wrong: list[str] = []
    counts = {"kills": 0, "flushes": 0, "swaps": 0}
    with Cluster(SHARDS, routers=2) as cluster, Client(port=cluster.port, near_cache=KEYS) as client:
        keys = [f"key:{number}" for number in range(KEYS)]
        threads = [
            threading.Thread(target=write, args=(cluster.port, keys[at::WRITERS], history, stop, at))
            for at in range(WRITERS)
        ]
        threads += [
            threading.Thread(target=read, args=(client, history, stop, 100 + at, options.bound, wrong))
            for at in range(READERS)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + options.seconds
        with Client(port=cluster.port) as other:
            while time.monotonic() < end:
                time.sleep(draw.uniform(1.0, 3.0))
                what = draw.choice(["kills", "flushes", "swaps", "nothing"])
                if what == "nothing":
                    continue
                counts[what] += 1
                history.emptied.append(time.monotonic())
                with contextlib.suppress(KacheError, OSError):
                    if what == "kills":
                        cluster.kill(cluster.pid_of("shard", draw.randrange(SHARDS)), signal.SIGKILL)
                    else:
                        other.execute(*{"flushes": ("flushall",), "swaps": ("swapdb", 0, 1)}[what])
                history.emptied.append(time.monotonic() + (3.0 if what == "kills" else 0.0))
        stop.set()
        for thread in threads:
            thread.join()
        near = client.near_cache
        assert near is not None
    print(f"{near.hits:,} hits, {near.misses:,} misses, {near.dropped:,} dropped, {counts}, {len(wrong)} stale")
    for each in wrong[:10]:
        print(each)
    return 1 if wrong or near.hits < 100 * options.seconds else 0


if __name__ == "__main__":
    raise SystemExit(main())
