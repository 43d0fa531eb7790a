#!/usr/bin/env python3
"""How long a test waits for its cluster. `python bench/readiness.py [--rounds 15] [--shards 2]`

What the pytest plugin's fixtures do, timed from outside: a cluster started until it answers a command, emptied and set back
between two tests, moved by an hour, stopped. Rounds one after the other; the median and the worst of each.

Exit status 1 when the median of the start is 0.3 s or more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from kache.testing import LocalCluster

BAR_MS = 300.0


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that it takes."""
    began = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began) / 1e6


def one_round(shards: int) -> dict[str, float]:
    """Each step of one cluster's life, ms."""
    cluster = LocalCluster(shards)

    def start() -> None:
        cluster.start()
        with cluster.client() as client:
            client.set("ready", "1")

    found = {"ready": timed(start)}
    try:
        with cluster.client() as client:
            client.set("kept", "1")
        found["empty for the next test"] = timed(cluster.reset)
        found["an hour later"] = timed(lambda: cluster.advance(hours=1))
    finally:
        found["stopped"] = timed(cluster.close)
    return found


def main() -> int:
    """Prints the figures; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shards", type=int, default=2)
    chosen = parser.parse_args()
    rounds = [one_round(chosen.shards) for _ in range(chosen.rounds)]
    for step in rounds[0]:
        times = [each[step] for each in rounds]
        print(f"{step}: median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms")
    return statistics.median(each["ready"] for each in rounds) >= BAR_MS


if __name__ == "__main__":
    sys.exit(main())
