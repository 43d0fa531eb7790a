#!/usr/bin/env python3
"""Does throughput grow with shards and routers? `sudo python bench/scaling.py`, for a machine with too few cores to see.

Each process of Kache gets a control group of its own with a small part of a core (Linux, root): two cores are twenty
of a tenth then, as long as no more than that is used, and the generator is not limited. What comes out is a shape, not
a speed: a process that has used up its part stands still for the rest of its 10 ms, so batches are larger and shards
answer less in step than on cores of their own. Where there are enough cores, `run.py --profile cores` says it better.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from contenders import Contender, Kache
from generators import Row, generate

PERIOD_US = 10_000
V1, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(contender: Contender, part: float) -> Iterator[None]:
    """Its busy processes with `part` of a core each. Raises `SystemExit` where control groups cannot be used."""
    is_v1 = (V1 / "cpu.cfs_quota_us").exists() or (V1 / "cpu.shares").exists()
    groups: list[Path] = []
    home = {process.pid: process for process in contender.busy()}
    try:
        for pid in home:
            group = (V1 if is_v1 else V2) / f"kache-bench-{pid}"
            group.mkdir()
            groups.append(group)
            quota = str(int(PERIOD_US * part))
            if is_v1:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(quota)
            else:
                (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
            (group / "cgroup.procs").write_text(str(pid))
        yield
    except OSError as error:
        raise SystemExit(f"bench: control groups cannot be used: {error}") from None
    finally:
        contender.stop()
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()


def throughput(routers: int, shards: int, row: Row, part: float, rounds: int, seconds: float) -> float:
    """The median of some runs, requests per second."""
    contender = Kache(shards)
    contender.routers = routers
    contender.start()
    with limited(contender, part):
        rate = generate(contender, row, 1000 * row.pipeline).requests_per_second
        requests = max(1000 * row.pipeline, int(rate * seconds))
        return median(generate(contender, row, requests).requests_per_second for _ in range(rounds))


def main() -> None:
    """One table for each pipeline."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--part", type=float, default=0.1, help="of a core, for each process [0.1]")
    parser.add_argument("--pipelines", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--routers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args()
    if os.geteuid():
        raise SystemExit("bench: control groups need root")
    for pipeline in args.pipelines:
        row = Row("SET", pipeline)
        print(f"\n| {row.title}, thousand/s | {' | '.join(f'{n} shards' for n in args.shards)} |")
        print("| --- |" + " ---: |" * len(args.shards))
        for routers in args.routers:
            cells = [
                f"{throughput(routers, shards, row, args.part, args.rounds, args.seconds) / 1000:.0f}"
                for shards in args.shards
            ]
            print(f"| {routers} routers | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
