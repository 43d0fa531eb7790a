#!/usr/bin/env python3
"""Does eviction keep the right keys? `python bench/eviction.py`, with libcachesim installed; half an hour, 150 s a trace.

Each trace (traces.py) is read through a cache: GETs in batches of 100, and SET of what was missing, values of 200 bytes, one
`maxmemory` for all servers. Beside them stand the exact simulators of libcachesim with as many entries as Kache kept, fed
with the same trace in the same order. Printed are misses in % of the requests, and what of the bars is missed:

    s3fifo      within half a point of the exact one, on every trace
    auto        1.02 × the misses of the better of Valkey's two policies on every trace, 0.93 × in the mean, 0.78 × on the loop
    phases      a tenth of the requests after the popular keys, or the kind of traffic, have changed, auto is within two points
                of the better of exact LRU and S3-FIFO
    curves      what `kache advise` says, within two points at 1/8 to 4 × the memory, over the second half of each trace; at
                1 × of what the shards themselves missed under that policy
    memory      (`--memory`) growth of summed PSS over the limit, LRU against an exact one

`--table 40000` prints the table of docs/eviction.md instead: the exact simulators alone, with room for so many keys.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import traces
from contenders import CONTENDERS, Contender
from traces import SIZED, TRACES, sizes_of
from wire import Connection, command

from kache.cli.advise import SIZES, merged

BATCH = 100
VALUE = 200
CHANGE = 0.1
"""The part of the requests within which a change of phase is to be followed."""
SERVERS = {
    "valkey lru": ("valkey", "allkeys-lru"),
    "valkey lfu": ("valkey", "allkeys-lfu"),
    "lru": ("kache", "allkeys-lru"),
    "lfu": ("kache", "allkeys-lfu"),
    "s3fifo": ("kache", "allkeys-s3fifo"),
    "auto": ("kache", "allkeys-auto"),
}
EXACT = ("LRU", "LFU", "ARC", "LIRS", "WTinyLFU", "S3FIFO", "narrow")
EXACT_SIZED = ("LRU", "S3FIFO", "narrow", "GDSF")
SIMULATORS = find_spec("libcachesim") is not None
CHANGING = ("phases", "turns")
"""Traces that change half-way."""


@contextmanager
def serving(kind: str, policy: str, maxmemory: str, shards: int) -> Iterator[tuple[Contender, Connection]]:
    """A server with this limit and policy, and a connection to it."""
    options = {"maxmemory": maxmemory, "maxmemory-policy": policy} if kind == "kache" else {}
    contender = CONTENDERS[kind](shards, options)
    contender.start()
    try:
        with Connection(contender.port) as connection:
            if kind != "kache":
                connection.call("CONFIG", "SET", "maxmemory", maxmemory)
                connection.call("CONFIG", "SET", "maxmemory-policy", policy)
            yield contender, connection
    finally:
        contender.stop()


def read_through(connection: Connection, trace: Sequence[int], values: Callable[[int], bytes]) -> list[bool]:
    """Hit or miss of every request."""
    hits: list[bool] = []
    for start in range(0, len(trace), BATCH):
        batch = trace[start : start + BATCH]
        replies = connection.pipeline([command("GET", b"key:%d" % key) for key in batch])
        found = [reply is not None for reply in replies]
        hits += found
        missing = dict.fromkeys(key for key, hit in zip(batch, found, strict=True) if not hit)
        if missing:
            connection.pipeline([command("SET", b"key:%d" % key, values(key)) for key in missing])
    return hits


def exact(name: str, trace: Sequence[int], capacity: int, sizes: Sequence[int] | None = None) -> list[bool]:
    """Hit or miss of every request in a cache of libcachesim's. S3-FIFO with one use to stay, as here; `narrow` is one with a
    hundredth for what is new."""
    import libcachesim

    settings: dict[str, float] = {"move_to_main_threshold": 1} if name in ("S3FIFO", "narrow") else {}
    if name == "narrow":
        settings["small_size_ratio"] = 0.01
    cache = getattr(libcachesim, name if name != "narrow" else "S3FIFO")(capacity, **settings)
    request = libcachesim.Request()
    hits: list[bool] = []
    for key in trace:
        request.obj_id = key
        request.obj_size = 1 if sizes is None else sizes[key]
        hits.append(bool(cache.get(request)))
    return hits


def misses(hits: Sequence[bool]) -> float:
    """In percent."""
    return 100 * (1 - sum(hits) / len(hits))


class Report:
    """What was measured, and which bars were missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []
        self.shares: dict[str, float] = {}

    def require(self, ok: bool, what: str) -> None:
        """A bar."""
        if not ok:
            self.missed.append(what)
            print(f"    MISSED: {what}", flush=True)

    def row(self, name: str, figures: dict[str, float]) -> None:
        """A line of figures."""
        print(f"{name:16}" + "  ".join(f"{label} {figure:.2f}" for label, figure in figures.items()), flush=True)


def check_curves(
    report: Report, name: str, told: dict[str, Any], trace: Sequence[int], kept: int, found: dict[str, list[bool]]
) -> None:
    """What `kache advise` says of the second half against exact caches, where there are any; at the present size against what
    the shards missed, if they were run under that policy: where a loop just does not fit, two exact S3-FIFOs are as far apart
    as it is from them, and what the shards do is what is asked for."""
    half = len(trace) // 2
    for policy, cache in (("lru", "LRU"), ("s3fifo", "S3FIFO")):
        said = [100 * point["misses"] for point in told["curves"][policy]]
        if not SIMULATORS:
            print(f"    curve {policy}: " + "  ".join(f"{each:.1f}" for each in said), flush=True)
            continue
        wanted = [misses(exact(cache, trace, max(int(kept * size), 10))[half:]) for size in SIZES]
        present = SIZES.index(1)
        beside = ""
        if policy in found:
            beside = f"  (exact at 1 ×: {wanted[present]:.1f})"
            wanted[present] = misses(found[policy][half:])
        worst = max(abs(one - other) for one, other in zip(said, wanted, strict=True))
        print(
            f"    curve {policy}: " + "  ".join(f"{a:.1f}/{b:.1f}" for a, b in zip(said, wanted, strict=True)) + beside,
            flush=True,
        )
        report.require(worst <= 2, f"{name}: the curve of {policy} is {worst:.1f} points off")


def values_of(sizes: Sequence[int] | None) -> Callable[[int], bytes]:
    """The value of every key."""
    return (lambda key: bytes(VALUE)) if sizes is None else (lambda key: bytes(sizes[key]))


Measured = tuple[dict[str, list[bool]], dict[str, int], dict[str, Any]]
"""Hits of every server, the keys that it kept, and what `kache advise` says of auto's second half."""


def serve(trace: list[int], args: argparse.Namespace, sizes: list[int] | None) -> Measured:
    """The trace on every server."""
    found: dict[str, list[bool]] = {}
    kept: dict[str, int] = {}
    told: dict[str, Any] = {}
    half = len(trace) // 2
    for label, (kind, policy) in SERVERS.items():
        if label not in args.servers:
            continue
        with serving(kind, policy, args.maxmemory, args.shards) as (_, connection):
            hits = read_through(connection, trace[:half], values_of(sizes))
            connection.call("CONFIG", "RESETSTAT")
            hits += read_through(connection, trace[half:], values_of(sizes))
            found[label], kept[label] = hits, connection.integer("DBSIZE")
            if label == "auto":
                told = merged([json.loads(shard) for shard in connection.array("ADVISE")])
    return found, kept, told


def measure(report: Report, name: str, trace: list[int], args: argparse.Namespace, sizes: list[int] | None) -> None:
    """One trace on every server and in every simulator."""
    found, kept, told = serve(trace, args, sizes)
    report.row(name, {label: misses(hits) for label, hits in found.items()})
    print(f"    keys kept: {kept}" + (f", auto follows {told['follows']}" if told else ""), flush=True)
    if "auto" in found and "valkey lru" in found:
        share = misses(found["auto"]) / min(misses(found["valkey lru"]), misses(found["valkey lfu"]))
        report.shares[name] = share
        print(f"    auto: {share:.3f} × the misses of the better of Valkey's two", flush=True)
        report.require(share <= 1.02, f"{name}: auto has {share:.3f} × the misses of the better of Valkey's two")
    if SIMULATORS:
        check_exact(report, name, trace, found, kept, sizes)
    if told.get("curves") and sizes is None:
        check_curves(report, name, told, trace, kept["auto"], found)


def check_exact(
    report: Report,
    name: str,
    trace: list[int],
    found: dict[str, list[bool]],
    kept: dict[str, int],
    sizes: list[int] | None,
) -> None:
    """The misses of exact caches of the same size, of S3-FIFO and behind a change."""
    reference = kept.get("s3fifo") or next(iter(kept.values()))
    capacity = reference if sizes is None else sum(sizes) // len(sizes) * reference
    simulated = {each: exact(each, trace, capacity, sizes) for each in (EXACT if sizes is None else EXACT_SIZED)}
    report.row("    exact", {label: misses(hits) for label, hits in simulated.items()})
    if sizes is None and "s3fifo" in found:
        over = misses(found["s3fifo"]) - misses(simulated["S3FIFO"])
        report.require(over <= 0.5, f"{name}: s3fifo misses {over:.2f} points more than the exact one")
    if name in CHANGING and "auto" in found:
        change, tenth = len(trace) // 2, int(CHANGE * len(trace))
        window = slice(change + tenth, change + 2 * tenth)
        late = misses(found["auto"][window]) - min(misses(simulated[each][window]) for each in ("LRU", "S3FIFO"))
        print(
            f"    a tenth after the change: auto {late:+.2f} points of misses beside the better exact one", flush=True
        )
        report.require(late <= 2, f"{name}: {late:.2f} points behind after a tenth of the requests")


def print_table(traces: Sequence[str], capacity: int, requests: int) -> None:
    """The misses of the exact simulators with room for so many keys, as Markdown; where sizes differ, of those that heed them,
    in the requests and in their bytes."""
    columns = (*EXACT, "GDSF")
    print(f"| trace | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name in traces:
        trace = (TRACES | SIZED)[name](requests)
        sizes = sizes_of(max(trace) + 1) if name in SIZED else None
        room = capacity if sizes is None else sum(sizes) // len(sizes) * capacity
        shown = EXACT if sizes is None else EXACT_SIZED
        found = {each: exact(each, trace, room, sizes) for each in shown}
        print_row(name, [f"{misses(found[each]):.1f}" if each in shown else "" for each in columns])
        if sizes is not None:
            asked = sum(sizes[key] for key in trace)
            missed = {
                each: sum(sizes[key] for key, hit in zip(trace, hits, strict=True) if not hit)
                for each, hits in found.items()
            }
            print_row(
                f"{name}: bytes", [f"{100 * missed[each] / asked:.1f}" if each in shown else "" for each in columns]
            )


def print_row(name: str, cells: Sequence[str]) -> None:
    """A row of a Markdown table."""
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def check_memory(report: Report, args: argparse.Namespace) -> None:
    """LRU under each limit: resident memory, and hits beside an exact one."""
    rng = random.Random(20)
    weights = list(itertools.accumulate(1 / rank**0.9 for rank in range(1, 400_001)))
    trace = rng.choices(range(400_000), cum_weights=weights, k=args.requests)
    for limit in args.memory:
        with serving("kache", "allkeys-lru", limit, args.shards) as (contender, connection):
            connection.pipeline([command("PING")])
            empty = contender.memory_bytes()
            hits = read_through(connection, trace, lambda key: bytes(500))
            time.sleep(10)
            growth = contender.memory_bytes() - empty
            stored = connection.integer("DBSIZE")
        half = len(trace) // 2  # the second half, when the cache is warm
        more = misses(hits[half:]) - misses(exact("LRU", trace, stored)[half:])
        over = 100 * (growth / (int(limit.removesuffix("mb")) * 1024 * 1024) - 1)
        print(
            f"maxmemory {limit}: {stored} keys kept, {more:+.2f} points of misses beside an exact LRU, "
            f"memory {over:+.1f} % of the limit", flush=True,
        )  # fmt: skip
        report.require(over <= 15 and abs(more) <= 1, f"maxmemory {limit}: {over:+.1f} % of memory, {more:+.2f} points")


def main() -> None:
    """One run per trace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--traces", nargs="+", default=[*TRACES, *SIZED], choices=[*TRACES, *SIZED])
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--maxmemory", default="14mb")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=traces.SEED, help="of the traces")
    parser.add_argument(
        "--memory", nargs="+", default=[], metavar="LIMIT", help="limits (64mb) whose resident memory is measured"
    )
    parser.add_argument(
        "--table", type=int, metavar="KEYS", help="print what exact simulators miss with room for so many"
    )
    args = parser.parse_args()
    traces.SEED = args.seed
    report = Report()
    if args.table:
        print_table(args.traces, args.table, args.requests)
        return
    if args.memory:
        check_memory(report, args)
    else:
        for name in args.traces:
            trace = (TRACES | SIZED)[name](args.requests)
            measure(report, name, trace, args, sizes_of(max(trace) + 1) if name in SIZED else None)
        if report.shares:
            mean = sum(report.shares.values()) / len(report.shares)
            print(f"auto: {mean:.3f} × the misses of the better of Valkey's two in the mean", flush=True)
            if len(args.traces) >= len(TRACES):
                report.require(mean <= 0.93, f"auto: {mean:.3f} × in the mean")
            report.require(report.shares.get("loop", 0) <= 0.78, "loop: more than 0.78 ×")
        if not SIMULATORS:
            print("libcachesim is not installed: nothing was compared with exact caches")
    print("\n".join(report.missed) or "all bars are held")
    sys.exit(bool(report.missed))


if __name__ == "__main__":
    main()
