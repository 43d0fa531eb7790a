#!/usr/bin/env python3
"""A value of five million elements is dumped while it changes: `python tests/soak/large_values.py [--types hash zset list set]`

One value of each type, filled, then written 10,000 times a second while BGREWRITEAOF goes over it: replaced, removed, added, at
both ends of a list. Behind the dump everything is killed and started again; what is there then is compared, element by
element, with what was there before.

Prints a line for each type; exit status 1 when a bar is broken: a stall of the shard above 5 ms, more than 32 MiB of memory
beside the value, a difference after recovery, or fewer writes than that while it was dumped.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, kill_everything, until

STALL_MS = 5.0
MEMORY = 32 << 20
WRITES_A_SECOND = 10_000
SLICE = 10_000
Words = tuple[Any, ...]

FILL: dict[str, Callable[[range], Words]] = {
    "hash": lambda part: ("hset", "big", *(word for n in part for word in (f"field:{n}", f"value:{n}"))),
    "zset": lambda part: ("zadd", "big", *(word for n in part for word in (n * 7 % 1000003, f"member:{n}"))),
    "list": lambda part: ("rpush", "big", *(f"element:{n}" for n in part)),
    "set": lambda part: ("sadd", "big", *(f"member:{n}" for n in part)),
}
CHANGE: dict[str, Callable[[random.Random, int], Words]] = {
    "hash": lambda draw, n: draw.choice((
        ("hset", "big", f"field:{draw.randrange(n)}", f"new:{draw.random()}"), ("hset", "big", f"more:{draw.random()}", "x"),
        ("hdel", "big", f"field:{draw.randrange(n)}"),
    )),
    "zset": lambda draw, n: draw.choice((
        ("zadd", "big", draw.random() * 10**6, f"member:{draw.randrange(n)}"), ("zadd", "big", -1, f"more:{draw.random()}"),
        ("zrem", "big", f"member:{draw.randrange(n)}"), ("zpopmin", "big"),
    )),
    "list": lambda draw, n: draw.choice((
        ("rpush", "big", f"more:{draw.random()}"), ("lpush", "big", f"more:{draw.random()}"), ("lpop", "big"), ("rpop", "big"),
        ("lset", "big", draw.choice((-1, 1)) * draw.randrange(1, 1000), "new"),
    )),
    "set": lambda draw, n: draw.choice((
        ("sadd", "big", f"more:{draw.random()}"), ("srem", "big", f"member:{draw.randrange(n)}"),
    )),
}  # fmt: skip


def fill(connection: Connection, kind: str, elements: int) -> None:
    """The whole value, in commands of 500 elements."""
    for start in range(0, elements, 50_000):
        batch = [
            FILL[kind](range(at, min(at + 500, elements))) for at in range(start, min(start + 50_000, elements), 500)
        ]
        connection.send(*batch)
        connection.read_many(len(batch))


def parts(connection: Connection, kind: str, size: int) -> Iterator[list[Any]]:
    """The value in slices."""
    if kind in ("list", "zset"):
        more = ("withscores",) if kind == "zset" else ()
        for start in range(0, size, SLICE):
            yield connection.request("lrange" if kind == "list" else "zrange", "big", start, start + SLICE - 1, *more)
        return
    cursor: Any = 0
    while True:
        cursor, part = connection.request("hscan" if kind == "hash" else "sscan", "big", cursor, "count", SLICE)
        yield part
        if int(cursor) == 0:
            return


def contents(cluster: Cluster, kind: str) -> tuple[int, int]:
    """(how many elements there are, a number that two different values hardly have in common)."""
    with cluster.connect() as connection:
        size: int = connection.request({"hash": "hlen", "zset": "zcard", "list": "llen", "set": "scard"}[kind], "big")
        total = 0
        for number, part in enumerate(parts(connection, kind, size)):
            if kind == "hash":
                total ^= _xor(zip(part[::2], part[1::2], strict=True))
            elif kind == "set":
                total ^= _xor(part)
            else:
                total ^= hash((number, *part))
    return size, total


def _xor(elements: Any) -> int:
    total = 0
    for each in elements:
        total ^= hash(each)
    return total


class Changes(threading.Thread):
    """10,000 writes a second, as evenly as they come, until told to stop."""

    def __init__(self, cluster: Cluster, kind: str, elements: int) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.written = 0
        self._connection = cluster.connect()
        self._kind = kind
        self._elements = elements
        self._draw = random.Random(1)

    def run(self) -> None:
        due = time.monotonic()
        while not self.over.is_set():
            batch = [CHANGE[self._kind](self._draw, self._elements) for _ in range(WRITES_A_SECOND // 100)]
            self._connection.send(*batch)
            self._connection.read_many(len(batch))
            self.written += len(batch)
            due = max(due + 0.01, time.monotonic() - 1)
            time.sleep(max(due - time.monotonic(), 0))


def memory_of(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def dumped_under_writes(cluster: Cluster, kind: str, elements: int) -> tuple[float, float, float, int]:
    """(seconds of the dump, writes a second meanwhile, longest stall in ms, how much memory it took beside)."""
    pid = cluster.pid_of("shard", 0)
    changes = Changes(cluster, kind, elements)
    changes.start()
    time.sleep(1)
    with cluster.connect() as connection:
        connection.request("config", "resetstat")
        before, most = memory_of(pid), 0
        began, wrote = time.monotonic(), changes.written
        assert "started" in connection.request("bgrewriteaof")
        while b"aof_rewrite_in_progress:0" not in connection.request("info", "persistence"):
            most = max(most, memory_of(pid) - before)
            time.sleep(0.02)
        took = time.monotonic() - began
        rate = (changes.written - wrote) / took
        text = connection.request("info", "shards").decode()
        stall = max(
            int(each.split("=")[1]) for each in text.replace("\r\n", ",").split(",") if "longest_stall_usec" in each
        )
    changes.over.set()
    changes.join(30)
    return took, rate, stall / 1000, most


def experiment(kind: str, elements: int) -> bool:
    """One type; whether every bar is kept."""
    with tempfile.TemporaryDirectory(prefix="kache-large-") as directory:
        settings: dict[str, Any] = {"dir": directory, "appendonly": "yes", "auto_aof_rewrite_percentage": 0}
        cluster = Cluster(1, routers=1, **settings)
        cluster.start()
        try:
            with cluster.connect() as connection:
                fill(connection, kind, elements)
            took, rate, stall, memory = dumped_under_writes(cluster, kind, elements)
            assert "dumped" in cluster.log() and "failed" not in cluster.log(), cluster.log()
            before = contents(cluster, kind)
            kill_everything(cluster)
        finally:
            cluster._clean()
        began = time.monotonic()
        with Cluster(1, routers=1, **settings) as again:
            until(lambda: again.child("shard", 0)["state"] == "up", "it is loaded", 120)
            loaded = time.monotonic() - began
            same = contents(again, kind) == before
    kept = same and stall <= STALL_MS and memory <= MEMORY and rate >= 0.8 * WRITES_A_SECOND
    print(f"{kind:<5} {before[0]:>9,} elements: dumped in {took:.1f} s beside {rate:,.0f} writes a second, longest stall "
          f"{stall:.1f} ms, + {memory >> 20} MiB; back after {loaded:.1f} s, {'equal' if same else 'DIFFERENT'}"
          f"{'' if kept else '   MISSED'}", flush=True)  # fmt: skip
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", choices=FILL, default=list(FILL))
    parser.add_argument("--elements", type=int, default=5_000_000)
    options = parser.parse_args()
    kept = [experiment(kind, options.elements) for kind in options.types]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
