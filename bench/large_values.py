#!/usr/bin/env python3
"""What a value of 64 KiB costs: `python bench/large_values.py [--size 65536] [--connections 10] [--before PYTHON]`

Processor time of router and shard for one SET and one GET, beside one valkey-server's, interleaved under redis-benchmark. The
bar is twice Valkey's. `--before` is the Python of another installation of Kache, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from contenders import Contender, Kache, KacheBefore, Valkey
from programs import program

BAR = 2.0


def microseconds(contender: Contender, command: str, chosen: argparse.Namespace) -> float:
    """Processor time of one operation."""
    words = ["-p", str(contender.port), "-d", str(chosen.size), "-t", command, "-n", str(chosen.count)]
    words += ["-c", str(chosen.connections), "-P", str(chosen.pipeline), "-r", "100", "-q"]
    before = contender.cpu_seconds()
    subprocess.run([program("redis-benchmark"), *words], check=True, capture_output=True)
    return (contender.cpu_seconds() - before) / chosen.count * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=65536)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", metavar="PYTHON")
    chosen = parser.parse_args()
    if chosen.before:
        KacheBefore.python = chosen.before
    contenders: list[Contender] = [Valkey(), Kache(1)]
    contenders += [KacheBefore(1)] if chosen.before else []
    times: dict[tuple[str, str], list[float]] = {}
    try:
        for contender in contenders:
            contender.start()
        for turn in range(chosen.rounds + 1):
            for command in ("set", "get"):
                for contender in contenders:
                    took = microseconds(contender, command, chosen)
                    if turn:  # the first has filled memory
                        times.setdefault((command, contender.name), []).append(took)
    finally:
        for contender in contenders:
            contender.stop()
    missed = 0
    for (command, name), found in times.items():
        ratio = median(one / valkey for one, valkey in zip(found, times[command, Valkey.name], strict=True))
        missed += name == Kache.name and ratio > BAR
        print(f"{command} {chosen.size} bytes, {name}: {median(found):.1f} us, {ratio:.2f} times Valkey's (bar {BAR})")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
