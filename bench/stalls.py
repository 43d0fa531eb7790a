#!/usr/bin/env python3
"""How long does a user wait: for a start, and for a shard busy with large things? `python bench/stalls.py`

First the time from `kache cluster start` to the first reply, the best of five starts of four shards. Its bar is half a
second. Then the longest stall of each experiment.

A stall is the longest tick plus the wait for the GIL before it, measured inside the shard and exported in
STATS. One shard has all the keys. The bar for each is 20 ms; table growth to ten million keys 5 ms.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from contenders import CONTENDERS
from wire import Connection, command

MILLION = 1_000_000
START_BAR_MS = 500.0


def shard_stats(connection: Connection) -> dict[bytes, Any]:
    """The one shard's statistics."""
    flat = connection.array("STATS")[0]
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def settled(connection: Connection, done: Callable[[dict[bytes, Any]], bool], seconds: float) -> float:
    """Waits until `done`; how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if done(shard_stats(connection)):
            return time.monotonic() - began
        time.sleep(0.02)
    raise SystemExit("the shard did not settle in time")


def load(connection: Connection, keys: int, start: int = 0) -> None:
    """SETs distinct keys of 16 bytes with values of 32."""
    value = b"v" * 32
    requests = (
        b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$32\r\n%s\r\n" % (n, value) for n in range(start, start + keys)
    )
    connection.fill(requests, keys, 5)


def expire(connection: Connection, keys: int) -> str:
    """All keys have one deadline: when are they gone, and can one be read afterwards?"""
    deadline_ms = int(time.time() * 1000) + 15_000 + keys // 50
    when = b"%d" % deadline_ms
    requests = (
        b"*5\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$1\r\nv\r\n$4\r\nPXAT\r\n$13\r\n%s\r\n" % (n, when)
        for n in range(keys)
    )
    connection.fill(requests, keys, 5)
    stored = connection.call("DBSIZE")
    if stored != keys:
        raise SystemExit(f"only {stored} of {keys} keys were stored before the deadline: raise it")
    connection.call("CONFIG", "RESETSTAT")
    while time.time() * 1000 < deadline_ms:
        time.sleep(max(0.0, deadline_ms / 1000 - time.time()))
    time.sleep(0.001)
    readable = sum(
        1 for reply in connection.pipeline([command("GET", b"key:%012d" % n) for n in range(0, keys, 997)]) if reply
    )
    gone = settled(connection, lambda stats: stats[b"keys"] == 0, 30)
    late = time.time() - deadline_ms / 1000
    return f"readable after the deadline: {readable}; gone from memory {late:.2f} s after it (polled for {gone:.2f} s)"


def sorted_set(connection: Connection, members: int) -> str:
    """DEL of one sorted set with all the members."""
    batch = 500
    requests = (
        command("ZADD", "big", *(word for n in range(start, start + batch) for word in (n, b"member:%09d" % n)))
        for start in range(0, members, batch)
    )
    connection.fill(requests, members // batch, len(b":500\r\n"))
    connection.call("CONFIG", "RESETSTAT")
    connection.call("DEL", "big")
    took = settled(connection, lambda stats: stats[b"cleanup_pending"] == 0, 120)
    return f"freed in the background within {took:.1f} s"


def emptied(
    name: str, words: Callable[[int], tuple[str | int, ...]], *last: str | int
) -> Callable[[Connection, int], str]:
    """The experiment of a command that takes all of a collection away, which `name` with the words of each element made."""

    def experiment(connection: Connection, elements: int) -> str:
        batch, many = 500, 20
        starts = range(0, elements, batch)
        for first in range(0, len(starts), many):
            connection.pipeline(
                command(name, "big", *(word for n in range(start, start + batch) for word in words(n)))
                for start in starts[first : first + many]
            )
        # What is executed meanwhile has filled the caches with something else.
        load(connection, elements // 5)
        connection.call("CONFIG", "RESETSTAT")
        connection.call(*last)
        took = settled(connection, lambda stats: stats[b"cleanup_pending"] == 0, 120)
        return f"freed in the background within {took:.1f} s"

    return experiment


def flushall(connection: Connection, keys: int) -> str:
    """FLUSHALL of all keys."""
    load(connection, keys)
    connection.call("CONFIG", "RESETSTAT")
    connection.call("FLUSHALL")
    took = settled(connection, lambda stats: stats[b"keys"] == 0 and stats[b"cleanup_pending"] == 0, 120)
    return f"freed in the background within {took:.1f} s"


def growth(connection: Connection, keys: int) -> str:
    """From nothing to all keys."""
    connection.call("CONFIG", "RESETSTAT")
    began = time.monotonic()
    load(connection, keys)
    return f"loaded in {time.monotonic() - began:.1f} s"


def start_up(shards: int = 4, starts: int = 5) -> float:
    """Milliseconds from the command to the first reply: the best of several starts, others may share the machine."""
    best = float("inf")
    for _ in range(starts):
        contender = CONTENDERS["kache"](shards)
        contender.start()
        contender.stop()
        best = min(best, contender.ready_seconds * 1000)
    return best


EXPERIMENTS: dict[str, tuple[Callable[[Connection, int], str], int, float]] = {
    "one million keys expire in the same millisecond": (expire, MILLION, 20.0),
    "DEL of a sorted set of one million members": (sorted_set, MILLION, 20.0),
    "DEL of a list of one million elements": (
        emptied("RPUSH", lambda n: (f"element:{n:09d}",), "DEL", "big"),
        MILLION,
        20.0,
    ),
    "DEL of a hash of one million fields": (
        emptied("HSET", lambda n: (f"field:{n:09d}", n), "DEL", "big"),
        MILLION,
        20.0,
    ),
    "DEL of a set of one million members": (
        emptied("SADD", lambda n: (f"member:{n:09d}",), "DEL", "big"),
        MILLION,
        20.0,
    ),
    "LTRIM of a list of one million elements": (
        emptied("RPUSH", lambda n: (f"element:{n:09d}",), "LTRIM", "big", -10, -1),
        MILLION,
        20.0,
    ),
    "LTRIM to half of it": (
        emptied("RPUSH", lambda n: (f"element:{n:09d}",), "LTRIM", "big", MILLION // 2, -1),
        MILLION,
        20.0,
    ),
    "FLUSHALL of one million keys": (flushall, MILLION, 20.0),
    "growth from 0 to 5 million keys": (growth, 5 * MILLION, 20.0),
    "growth from 0 to 10 million keys": (growth, 10 * MILLION, 5.0),
}


def main() -> None:
    """Each experiment on a fresh cluster of one shard."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the keys, for a quick look")
    parser.add_argument("--only", help="part of an experiment's name")
    args = parser.parse_args()
    failed = False
    if not args.only or args.only in "start":
        took = start_up()
        failed = took > START_BAR_MS
        print(
            f"start: first reply after {took:.0f} ms (bar {START_BAR_MS:g} ms: {'MISSED' if failed else 'ok'})",
            flush=True,
        )
    for name, (experiment, size, bar) in EXPERIMENTS.items():
        if args.only and args.only not in name:
            continue
        contender = CONTENDERS["kache"](1)
        contender.start()
        try:
            with Connection(contender.port) as connection:
                remark = experiment(connection, max(1000, int(size * args.scale)))
                stall = float(shard_stats(connection)[b"longest_stall_us"]) / 1000
        finally:
            contender.stop()
        verdict = "ok" if stall <= bar else "MISSED"
        failed |= stall > bar
        print(f"{name}: longest stall {stall:.2f} ms (bar {bar:g} ms: {verdict}); {remark}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
