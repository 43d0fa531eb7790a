#!/usr/bin/env python3
"""What choosing well costs: `python bench/eviction_cost.py`, on a machine that does nothing else.

One shard, memory full, GET and SET at pipeline 64 over Zipf keys of which some 30 % are missed. The policies take turns, in a
cluster of their own each, all of them warm; between them stands LRU without simulations. Printed are, as ratios to that
one in the same round, the throughput and the processor time of the shard for a command: median and spread over the
rounds; and how many bytes of the limit a key takes more than there. Bars: 0.98 of its throughput; at most 4 bytes a key more.
"""

from __future__ import annotations

import argparse
import contextlib
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


def shard_seconds(port: int) -> float:
    """Processor time of the shards of the cluster at this port."""
    total = 0.0
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            line = " ".join(process.info["cmdline"] or ())
            if "kache: shard" in line and f":{port}" in line:
                for task in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                    total += int(task.read_text().split()[0]) / 1e9
    return total


def main() -> None:
    """Rounds in which every policy has its turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--keys", type=int, default=1_000_000)
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

        def load(name: str, seconds: float) -> tuple[float, float, float]:
            port = contenders[name].port
            spec = LoadSpec(
                port=port, commands="get:77,set:23", connections=8, pipeline=64, value_size=100, keys=args.keys,
                distribution="zipf:0.9", warmup=0.2, seconds=seconds, preload=False,
            )  # fmt: skip
            before = shard_seconds(port)
            result = run(spec)
            spent = shard_seconds(port) - before
            return (
                result.throughput,
                spent / (result.throughput * (seconds + 0.2)),
                result.misses / (result.hits + result.misses),
            )

        for name in contenders:
            load(name, 6.0)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        times: dict[str, list[float]] = {name: [] for name in contenders}
        missed: dict[str, float] = {}
        names = list(contenders)
        for turn in range(args.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                rate, spent, missed[name] = load(name, args.seconds)
                rates[name].append(rate)
                times[name].append(spent)
        failed = False
        limit = parse_size(args.maxmemory)
        kept = {}
        for name, contender in contenders.items():
            with Connection(contender.port) as connection:
                kept[name] = connection.integer("DBSIZE")
            more = limit / kept[name] - limit / kept[args.policies[0]]
            ratios = sorted(one / base for one, base in zip(rates[name], rates[args.policies[0]], strict=True))
            spent_ratios = [one / base for one, base in zip(times[name], times[args.policies[0]], strict=True)]
            failed |= name in ("s3fifo", "auto") and (statistics.median(ratios) < 0.98 or more > 4)
            print(
                f"{name:10} {statistics.median(rates[name]):9,.0f} /s  throughput {statistics.median(ratios):.3f} "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f})  shard's time {statistics.median(spent_ratios):.3f} "
                f"({1e9 * statistics.median(times[name]):.0f} ns)  misses {100 * missed[name]:.1f} %  {kept[name]} keys, {more:+.1f} bytes each",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
