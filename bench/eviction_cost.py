#!/usr/bin/env python3
"""What choosing well costs: `python bench/eviction_cost.py`, on a machine that does nothing else.

One shard, memory full, GET and SET at pipeline 64 over Zipf keys of which some 30 % are missed. The policies take turns, in a
cluster of their own each, all of them warm; between them stands LRU without simulations. Printed are, as ratios to that
one in the same round, the throughput and the processor time for a command, of the shard and of the whole cluster: median
and in brackets where the true median lies with 95 %; and how many bytes of the limit a key takes more than there. Many
short rounds tell more than few long ones. Bars: 0.98 of its throughput, where the bracket says so or the processor time
of the cluster does; at most 4 bytes a key more.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from contenders import CONTENDERS
from wire import Connection

from kache.config.kinds import parse_size
from kache.load.generator import run
from kache.load.spec import LoadSpec

BASE = "lru alone"
POLICIES = {
    BASE: {"maxmemory-policy": "allkeys-lru", "miniature-simulations": "no"},
    "lru": {"maxmemory-policy": "allkeys-lru"},
    "s3fifo": {"maxmemory-policy": "allkeys-s3fifo"},
    "auto": {"maxmemory-policy": "allkeys-auto"},
    "lfu": {"maxmemory-policy": "allkeys-lfu"},
}


BAR = 0.98
"""Of the throughput of LRU."""


def seconds_of(port: int) -> tuple[float, float]:
    """Processor time of the shards of the cluster at this port, and of all its processes."""
    shards = total = 0.0
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            line = " ".join(process.info["cmdline"] or ())
            if line.startswith("kache: ") and f":{port}" in line:
                tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
                spent = sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
                total += spent
                shards += spent if "kache: shard" in line else 0.0
    return shards, total


def evicts(port: int) -> bool:
    """Whether memory is full: something was evicted."""
    with Connection(port) as connection:
        return b"\r\nevicted_keys:0\r\n" not in connection.text("INFO", "stats")


def interval(figures: list[float]) -> tuple[float, float]:
    """Where the true median lies, with at least 95 %: between two of the figures, which nothing is assumed of (sign test)."""
    ordered, n = sorted(figures), len(figures)
    outside = 0
    while 2 * sum(math.comb(n, k) for k in range(outside + 1)) / 2**n <= 0.05:
        outside += 1
    at = max(outside - 1, 0)
    return ordered[at], ordered[n - 1 - at]


def shown(figures: list[float]) -> str:
    """Median and interval."""
    low, high = interval(figures)
    return f"{statistics.median(figures):.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Rounds in which every policy has its turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--keys", type=int, default=2_000_000)
    parser.add_argument("--maxmemory", default="64mb")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        contenders = {}
        for name in args.policies:
            contender = CONTENDERS["kache"](1, {"maxmemory": args.maxmemory, **POLICIES[name]})
            contender.start()
            stack.callback(contender.stop)
            contenders[name] = contender

        def load(name: str, seconds: float) -> tuple[float, float, float, float]:
            port = contenders[name].port
            spec = LoadSpec(
                port=port, commands="get:77,set:23", connections=8, pipeline=64, value_size=100, keys=args.keys,
                distribution="zipf:0.9", warmup=0.2, seconds=seconds, preload=False,
            )  # fmt: skip
            shard_before, all_before = seconds_of(port)
            result = run(spec)
            shard, everything = seconds_of(port)
            commands = result.throughput * (seconds + 0.2)
            return (
                result.throughput,
                (shard - shard_before) / commands,
                (everything - all_before) / commands,
                result.misses / (result.hits + result.misses),
            )

        for name in contenders:
            load(name, 6.0)
            while not evicts(contenders[name].port):
                load(name, 2.0)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        times: dict[str, list[float]] = {name: [] for name in contenders}
        wholes: dict[str, list[float]] = {name: [] for name in contenders}
        missed: dict[str, float] = {}
        names = list(contenders)
        for turn in range(args.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                rate, spent, whole, missed[name] = load(name, args.seconds)
                rates[name].append(rate)
                times[name].append(spent)
                wholes[name].append(whole)
        failed = False
        limit = parse_size(args.maxmemory)
        kept = {}
        for name, contender in contenders.items():
            with Connection(contender.port) as connection:
                kept[name] = connection.integer("DBSIZE")
            more = limit / kept[name] - limit / kept[args.policies[0]]
            ratios, of_shard, of_all = (
                [one / base for one, base in zip(each[name], each[args.policies[0]], strict=True)]
                for each in (rates, times, wholes)
            )
            slower = interval(ratios)[0] < BAR and interval(of_all)[1] > 1 / BAR
            failed |= name in ("s3fifo", "auto") and (slower or more > 4)
            print(
                f"{name:10} {statistics.median(rates[name]):9,.0f} /s  throughput {shown(ratios)}  shard's time "
                f"{shown(of_shard)}, {1e9 * statistics.median(times[name]):.0f} ns  the cluster's {shown(of_all)}  "
                f"misses {100 * missed[name]:.1f} %  {kept[name]} keys, {more:+.1f} bytes each",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
