#!/usr/bin/env python3
"""Micro-benchmarks of the pure parts: codec, slot hash, keyspace, commands. `python bench/micro.py`

Nanoseconds per operation, the median of several repeats in one process without sockets. What a Python
call itself costs is part of each figure ("an empty call" says how much).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from kache.shard.shard import Shard
from kache.wire.codec import RequestParser, decode_reply, encode_reply, slot_of_key

KEYS = 100_000


def timed(operation: Callable[[int], object], count: int, repeats: int) -> float:
    """Median nanoseconds of one operation."""
    figures = []
    for _ in range(repeats):
        began = time.perf_counter_ns()
        for number in range(count):
            operation(number)
        figures.append((time.perf_counter_ns() - began) / count)
    return statistics.median(figures)


def operations() -> dict[str, Callable[[int], object]]:
    """Name and body of every benchmark."""
    keys = [b"key:%012d" % number for number in range(KEYS)]
    value = b"v" * 32
    parser = RequestParser()
    resp = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$32\r\n" + value + b"\r\n"
    binary = bytes.fromhex("4300000003000000") + b"\3\0\0\0set\x10\0\0\0key:000000000001\x20\0\0\0" + value
    bulk = encode_reply(value, 1)
    shard = Shard()
    for key in keys:
        shard.execute([b"SET", key, value])
    shard.execute([b"ZADD", b"z", *[word for n in range(1000) for word in (b"%d" % n, b"m%d" % n)]])
    return {
        "an empty call": lambda n: None,
        "slot of a key of 16 bytes": lambda n: slot_of_key(keys[n % KEYS]),
        "parse a RESP SET": lambda n: parser.parse(resp, "resp"),
        "parse a binary SET": lambda n: parser.parse(binary, "binary"),
        "encode a bulk string, RESP2": lambda n: encode_reply(value, 2),
        "decode a bulk string": lambda n: decode_reply(bulk),
        "GET, present": lambda n: shard.execute([b"GET", keys[n * 7919 % KEYS]]),
        "GET, missing": lambda n: shard.execute([b"GET", b"nothing"]),
        "SET, overwriting": lambda n: shard.execute([b"SET", keys[n * 7919 % KEYS], value]),
        "SET with EX": lambda n: shard.execute([b"SET", keys[n * 7919 % KEYS], value, b"EX", b"1000"]),
        "INCR": lambda n: shard.execute([b"INCR", b"counter"]),
        "HSET": lambda n: shard.execute([b"HSET", b"h", keys[n % 1000], value]),
        "LPUSH and RPOP": lambda n: (shard.execute([b"LPUSH", b"l", value]), shard.execute([b"RPOP", b"l"])),
        "SADD": lambda n: shard.execute([b"SADD", b"s", keys[n % 1000]]),
        "ZADD": lambda n: shard.execute([b"ZADD", b"z", b"%d" % (n * 31 % 5000), b"m%d" % (n % 1000)]),
        "ZRANGE of 10": lambda n: shard.execute([b"ZRANGE", b"z", b"100", b"109"]),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for name, operation in operations().items():
        print(f"{name:32} {timed(operation, args.count, args.repeats):8.0f} ns", flush=True)


if __name__ == "__main__":
    main()
