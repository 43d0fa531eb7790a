#!/usr/bin/env python3
"""Which allocator suits the data of a shard? `python bench/allocators.py --preload jemalloc=/usr/lib/…/libjemalloc.so.2`

One shard in a process of its own for each: "blocks" is the engine's own heap (shard/engine/blocks.pyx), "glibc" is malloc
with the tuning that shards had before it, and each NAME=LIBRARY of --preload is that library in its place. All execute the
same commands: under a maxmemory of 64 MiB, overwrites, APPEND and hashes of mixed sizes, several times as much as fits;
then 200,000 small strings of which nine tenths are deleted at random. Resident memory is the growth over the empty process,
two seconds later and after what the background would do.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable

MIB = 1 << 20
LIMIT = 64 * MIB
TEXT = os.urandom(1 << 16).hex().encode()


def overwrite(rng: random.Random) -> list[bytes]:
    return [b"SET", b"key:%d" % rng.randrange(100_000), TEXT[: int(16 * 6250 ** rng.random() ** 3)]]


def append(rng: random.Random) -> list[bytes]:
    return [b"APPEND", b"key:%d" % rng.randrange(800), TEXT[: rng.randint(1, 3000)]]


def hash_fields(rng: random.Random) -> list[bytes]:
    key = b"hash:%d" % rng.randrange(5000)
    fields = [b"field:%d" % rng.randrange(400) for _ in range(8)]
    if rng.random() < 0.3:
        return [b"HDEL", key, *fields]
    return [b"HSET", key, *(word for field in fields for word in (field, TEXT[: rng.randint(1, 200)]))]


LOADS: dict[str, tuple[Callable[[random.Random], list[bytes]], int]] = {
    "overwrites": (overwrite, 200_000),
    "appends": (append, 250_000),
    "hashes": (hash_fields, 250_000),
}


def resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure(load: str, use_malloc: bool) -> dict[str, float]:
    """Of one load in this process: resident and used memory, CPU time of a command."""
    from kache.shard.engine import blocks
    from kache.shard.engine.memory import trim_memory, tune_malloc
    from kache.shard.shard import Shard

    tune_malloc()
    blocks.use_malloc(use_malloc)
    rng = random.Random(1)
    shard = Shard(maxmemory=LIMIT if load in LOADS else 0, policy="allkeys-lru")
    shard.execute([b"SET", b"first", b"v"])
    gc.collect()
    empty = resident()
    if load in LOADS:
        make, count = LOADS[load]
        for _ in range(count):
            shard.execute(make(rng))
    else:
        names = [b"key:%d" % number for number in range(200_000)]
        rng.shuffle(names)
        empty = resident()
        for name in names:
            shard.execute([b"SET", name, TEXT[: rng.randint(8, 200)]])
        rng.shuffle(names)
        for name in names[: len(names) * 9 // 10]:
            shard.execute([b"DEL", name])
    until = time.monotonic() + 2
    while time.monotonic() < until:
        shard.defragment_some(1_000_000)
        time.sleep(0.003)
    trim_memory()
    return {"resident": (resident() - empty) / MIB, "used": shard.store.used_memory / MIB, "cpu": time.process_time()}


def main() -> None:
    """A line for each allocator and load."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--preload", nargs="*", default=[], metavar="NAME=LIBRARY")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child[0], args.child[1] == "malloc")))
        return
    print(f"{'':12} {'load':12} {'resident':>9} {'used':>7} {'over used':>10} {'CPU s':>7}")
    for allocator in ("blocks", "glibc", *args.preload):
        name, _, library = allocator.partition("=")
        for load in (*LOADS, "deleted"):
            done = subprocess.run(
                [sys.executable, __file__, "--child", load, "blocks" if name == "blocks" else "malloc"],
                env={**os.environ, "LD_PRELOAD": library}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            seen = json.loads(done.stdout)
            over = 100 * (seen["resident"] / seen["used"] - 1)
            print(
                f"{name:12} {load:12} {seen['resident']:9.1f} {seen['used']:7.1f} {over:+9.1f}% {seen['cpu']:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
