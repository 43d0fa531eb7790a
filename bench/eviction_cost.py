#!/usr/bin/env python3
"""What choosing well costs: `python bench/eviction_cost.py`, on a machine that does nothing else; two minutes.

One shard, memory full, GET and SET at pipeline 64 over Zipf keys of which some 20 to 30 % are missed. Each policy has a
cluster of its own, all of them warm. They take turns, there and back again (so that a machine that becomes faster or slower
treats all alike), with the same requests, long enough that what the processor has in its caches is the policy's own (in turns
of 50 ms S3-FIFO seemed to take a tenth more of the shard's time than it does). Clusters are started anew some times: where its
pages lie is chance, and makes a process some percent faster or slower than its like, as long as it lives. Printed are, as
ratios to LRU without simulations in the same round, the throughput and the processor time for a command, of the shard and of
the whole cluster: median and in brackets where the true median lies with 95 %; and how many bytes of the limit a key takes
more than there. Bars: 0.98 of its throughput, where the bracket says so or the processor time of the cluster does; at most 4
bytes a key more.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from contenders import CONTENDERS, Contender
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
MORE_BAR = 4.0
"""Bytes a key more than with LRU."""


class Turn(NamedTuple):
    """What one policy did in its turns of a round: seconds, processor seconds of the shard and of the cluster, hits, misses."""

    seconds: float
    shard: float
    cluster: float
    hits: int
    misses: int


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


class Runner:
    """A warm cluster of each policy, and the load."""

    def __init__(self, args: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        self.args = args
        self.contenders: dict[str, Contender] = {}
        for name in args.policies:
            contender = CONTENDERS["kache"](1, {"maxmemory": args.maxmemory, **POLICIES[name]})
            contender.start()
            stack.callback(contender.stop)
            self.contenders[name] = contender
        for name in args.policies:
            for seed in itertools.count(1_000_000):
                self.load(name, "set", args.keys // 2, seed)
                if evicts(self.contenders[name].port):
                    break
            for seed in range(1, 9):
                self.load(name, "get:77,set:23", args.keys // 4, seed)

    def load(self, name: str, commands: str, requests: int, seed: int) -> Turn:
        """So many requests."""
        port = self.contenders[name].port
        spec = LoadSpec(
            port=port, commands=commands, connections=8, pipeline=64, value_size=100, keys=self.args.keys,
            distribution="zipf:0.9", seed=seed, warmup=0, requests=requests, preload=False,
        )  # fmt: skip
        shard_before, all_before = seconds_of(port)
        result = run(spec)
        shard, everything = seconds_of(port)
        return Turn(
            requests / result.throughput, shard - shard_before, everything - all_before, result.hits, result.misses
        )

    def round(self, seed: int) -> dict[str, Turn]:
        """Everybody's turns, there and back."""
        turns: dict[str, list[Turn]] = {name: [] for name in self.args.policies}
        for at, name in enumerate([*self.args.policies, *reversed(self.args.policies)]):
            back = at >= len(self.args.policies)
            turns[name].append(self.load(name, "get:77,set:23", self.args.requests, 2 * seed + back))
        return {name: Turn(*(sum(each) for each in zip(*both, strict=True))) for name, both in turns.items()}


def verdict(name: str, rounds: list[dict[str, Turn]], base: str, kept: int, more: float) -> bool:
    """Prints a policy's line; whether it misses a bar."""
    fields = {
        field: [each[name]._asdict()[field] / each[base]._asdict()[field] for each in rounds]
        for field in ("seconds", "shard", "cluster")
    }
    rates = [1 / each for each in fields["seconds"]]
    missed = [each[name].misses / (each[name].hits + each[name].misses) for each in rounds]
    print(
        f"{name:10} throughput {shown(rates)}  shard's time {shown(fields['shard'])}  the cluster's "
        f"{shown(fields['cluster'])}  misses {100 * statistics.mean(missed):.1f} %  {kept} keys, {more:+.1f} bytes each",
        flush=True,
    )
    slower = interval(rates)[0] < BAR and interval(fields["cluster"])[1] > 1 / BAR
    return name in ("s3fifo", "auto") and (slower or more > MORE_BAR)


def main() -> None:
    """Rounds in which every policy has its turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5, help="of a start")
    parser.add_argument("--requests", type=int, default=1_000_000, help="of a turn")
    parser.add_argument("--keys", type=int, default=2_000_000)
    parser.add_argument("--maxmemory", default="64mb")
    parser.add_argument("--policies", nargs="+", default=[BASE, "s3fifo", "auto"], choices=list(POLICIES))
    args = parser.parse_args()
    limit, base = parse_size(args.maxmemory), args.policies[0]
    rounds: list[dict[str, Turn]] = []
    kept: dict[str, int] = {}
    for start in range(args.starts):
        with contextlib.ExitStack() as stack:
            runner = Runner(args, stack)
            rounds += [runner.round(10 + 100 * start + each) for each in range(args.rounds)]
            for name, contender in runner.contenders.items():
                with Connection(contender.port) as connection:
                    kept[name] = connection.integer("DBSIZE")
        for name in args.policies[1:]:
            own = rounds[-args.rounds :]
            rate, spent = (
                statistics.median(getattr(each[at], field) / getattr(each[other], field) for each in own)
                for at, other, field in ((base, name, "seconds"), (name, base, "shard"))
            )
            print(
                f"start {start + 1}: {name} {rate:.3f} of the throughput, {spent:.3f} of the shard's time", flush=True
            )
    mine = statistics.median(args.requests / each[base].seconds * 2 for each in rounds)
    spent = statistics.median(each[base].shard for each in rounds) / 2 / args.requests
    print(f"{base}: {mine:,.0f} a second, the shard {1e9 * spent:.0f} ns a command")
    failed = [
        verdict(name, rounds, base, kept[name], limit / kept[name] - limit / kept[base]) for name in args.policies
    ]
    sys.exit(any(failed))


if __name__ == "__main__":
    main()
