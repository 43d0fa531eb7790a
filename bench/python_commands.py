"""What a command in Python costs: one GET and one SET in a function, beside what it is made of, over one shard.

    python bench/python_commands.py [--calls 600000] [--rounds 3]

redis-benchmark sends the same number of commands over 50 connections at pipeline 16, all contenders after one another in
every round; printed as it comes: calls a second as the client sees them, and how many the shard could do with a core of its
own (calls divided by the CPU seconds of its process), which is what counts where client, router and shard share cores. Bars:

    swap              a Python command of one GET and one SET      at least 100,000 calls a second and shard
    GET, SET beside   with the module and without it               no difference

Needs redis-benchmark.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from cluster import Cluster

MODULE = '''
from kache.module import command


@command("swap", flags="write denyoom fast")
def swap(ctx, key, value):
    """Sets a key and returns what it held."""
    before = ctx.call("GET", key)
    ctx.call("SET", key, value)
    return before


@command("typed", flags="write denyoom fast")
def typed(ctx, key, value):
    before = ctx.get(key)
    ctx.set(key, value)
    return before


@command("nothing", flags="readonly fast")
def nothing(ctx, key):
    return None
'''
KEY, VALUE = "key:__rand_int__", "v" * 32
CONTENDERS: dict[str, list[str]] = {
    "swap": ["SWAP", KEY, VALUE],
    "typed": ["TYPED", KEY, VALUE],
    "nothing": ["NOTHING", KEY],
    "get": ["GET", KEY],
    "set": ["SET", KEY, VALUE],
}
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def load(port: int, calls: int, words: list[str]) -> float:
    """Calls a second, as redis-benchmark says."""
    done = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-c", "50", "-P", "16", "-n", str(calls), "-r", "100000", "-q", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "rror" not in done.stdout, done.stdout
    found = re.findall(r"([\d.]+) requests per second", done.stdout)
    return float(found[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    with Cluster(1) as cluster:
        module = cluster.directory / "bench_commands.py"
        module.write_text(MODULE)
        shard = cluster.pid_of("shard")
        for turn in range(options.rounds):
            for with_it in (False, True):
                cluster.kache("module", *(("load", "--replace", module) if with_it else ("list",)))
                for name, words in CONTENDERS.items():
                    if not with_it and name in ("swap", "typed", "nothing"):
                        continue
                    label = f"{name}, module loaded" if with_it and name in ("get", "set") else name
                    before = cpu(shard)
                    rate = load(cluster.port, options.calls, words)
                    alone = options.calls / max(cpu(shard) - before, 1 / TICK)
                    found.setdefault(label, []).append((rate, alone))
                    print(f"round {turn}: {label:20} {rate:10,.0f}/s  a shard's core {alone:10,.0f}/s", flush=True)
            cluster.kache("module", "unload", "bench_commands")
    print("medians:")
    for label, pairs in found.items():
        rate, alone = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{label:20} {rate:10,.0f}/s  a shard's core {alone:10,.0f}/s  {1e6 / alone:5.2f} us of CPU a call")
    return 0 if statistics.median(alone for _, alone in found["swap"]) >= 100_000 else 1


if __name__ == "__main__":
    sys.exit(main())
