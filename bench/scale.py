#!/usr/bin/env python3
"""Do collections stay fast at a million members, and small at five? `python bench/scale.py`

Microseconds per command on a collection of 1,000 and of 1,000,000 members, without sockets: a command whose
cost grows with the members shows at once. Then the bytes of small collections, as MEMORY USAGE says and as the
process grew.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import psutil

from kache.shard.shard import Shard
from kache.wire.codec import decode_reply

Command = Callable[[random.Random, int], list[bytes]]

COMMANDS: dict[str, Command] = {
    "LINDEX in the middle": lambda rng, n: [b"LINDEX", b"list", b"%d" % rng.randrange(n)],
    "LRANGE of 10 in the middle": lambda rng, n: [b"LRANGE", b"list", *span(rng, n)],
    "LPUSH": lambda rng, n: [b"LPUSH", b"list", b"new"],
    "RPOP": lambda rng, n: [b"RPOP", b"list"],
    "SRANDMEMBER": lambda rng, n: [b"SRANDMEMBER", b"set"],
    "SPOP": lambda rng, n: [b"SPOP", b"set"],
    "SISMEMBER": lambda rng, n: [b"SISMEMBER", b"set", b"member:%d" % rng.randrange(n)],
    "HRANDFIELD": lambda rng, n: [b"HRANDFIELD", b"hash"],
    "HGET": lambda rng, n: [b"HGET", b"hash", b"member:%d" % rng.randrange(n)],
    "HSET": lambda rng, n: [b"HSET", b"hash", b"member:%d" % rng.randrange(n), b"value"],
    "ZRANGE of 10 by rank": lambda rng, n: [b"ZRANGE", b"zset", *span(rng, n)],
    "ZRANK": lambda rng, n: [b"ZRANK", b"zset", b"member:%d" % rng.randrange(n)],
    "ZADD": lambda rng, n: [b"ZADD", b"zset", b"%d" % rng.randrange(n), b"member:%d" % rng.randrange(n)],
    "ZRANGE of 10 by score": lambda rng, n: [
        b"ZRANGE", b"zset", b"%d" % rng.randrange(n), b"+inf", b"BYSCORE", b"LIMIT", b"0", b"10",
    ],
}  # fmt: skip


def span(rng: random.Random, n: int) -> list[bytes]:
    """The first and last index of ten neighbours."""
    start = rng.randrange(n - 10)
    return [b"%d" % start, b"%d" % (start + 9)]


def filled(members: int) -> Shard:
    """A shard with one list, set, hash and sorted set of so many members."""
    shard = Shard()
    for start in range(0, members, 1000):
        names = [b"member:%d" % number for number in range(start, start + 1000)]
        shard.execute([b"RPUSH", b"list", *names])
        shard.execute([b"SADD", b"set", *names])
        shard.execute([b"HSET", b"hash", *[word for name in names for word in (name, b"value")]])
        shard.execute([b"ZADD", b"zset", *[w for i, name in enumerate(names) for w in (b"%d" % (start + i), name)]])
    return shard


def microseconds(shard: Shard, command: Command, members: int) -> float:
    """The median over five rounds of 200 commands."""
    rng = random.Random(5)
    rounds = []
    for _ in range(5):
        batch = [command(rng, members) for _ in range(200)]
        began = time.perf_counter()
        for words in batch:
            shard.execute(words)
        rounds.append((time.perf_counter() - began) / len(batch) * 1e6)
    return statistics.median(rounds)


SMALL: dict[str, Callable[[bytes], list[bytes]]] = {
    "list of 5": lambda key: [b"RPUSH", key, *[b"item:%d" % i for i in range(5)]],
    "set of 5": lambda key: [b"SADD", key, *[b"item:%d" % i for i in range(5)]],
    "hash of 5": lambda key: [b"HSET", key, *[word for i in range(5) for word in (b"field:%d" % i, b"value")]],
    "sorted set of 5": lambda key: [b"ZADD", key, *[word for i in range(5) for word in (b"%d" % i, b"item:%d" % i)]],
}


def small_bytes(build: Callable[[bytes], list[bytes]], count: int) -> tuple[int, int]:
    """(MEMORY USAGE of one, growth of the process per collection)."""
    shard = Shard()
    process = psutil.Process()
    before = process.memory_full_info().uss
    for number in range(count):
        shard.execute(build(b"key:%d" % number))
    grown = (process.memory_full_info().uss - before) // count
    said, _ = decode_reply(shard.execute([b"MEMORY", b"USAGE", b"key:1"], 1))
    return int(said), grown


def main() -> None:
    """Two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--collections", type=int, default=20_000)
    args = parser.parse_args()
    small, large = filled(1000), filled(args.members)
    print(f"| command | µs at 1,000 | µs at {args.members:,} |\n| --- | ---: | ---: |")
    for name, command in COMMANDS.items():
        few, many = microseconds(small, command, 1000), microseconds(large, command, args.members)
        print(f"| {name} | {few:.1f} | {many:.1f} |", flush=True)
    print("\n| collection | bytes by MEMORY USAGE | bytes the process grew |\n| --- | ---: | ---: |")
    for name, build in SMALL.items():
        said, grown = small_bytes(build, args.collections)
        print(f"| {name} | {said} | {grown} |", flush=True)


if __name__ == "__main__":
    main()
