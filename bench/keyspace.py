#!/usr/bin/env python3
"""What values cost: bytes of resident memory, the growth of summed PSS from empty to full. `python bench/keyspace.py`

As a program: a table of small collections, of a string with a deadline and of large collections, Kache beside one valkey-server,
each row on a fresh server of both. It fails when a row misses its bar. For `run.py`: strings of 32 bytes under keys of 16, which
are those of redis-benchmark, so that its rows find all of them afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from contenders import CONTENDERS, Contender

__all__ = ["bytes_per_key", "fill"]

BATCH = 1000
SETTLE_SECONDS = 1.0
TIMEOUT_SECONDS = 60.0


def request(memcached: bool, key: bytes, value: bytes) -> bytes:
    if memcached:
        return b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value)
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)


def fill(contender: Contender, keys: int) -> None:
    """SETs `keys` distinct keys, pipelined, each at the node that has it."""
    memcached = contender.protocol == "memcached"
    reply = b"STORED\r\n" if memcached else b"+OK\r\n"
    value = b"v" * 32
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS))
            for port in contender.ports()
        ]
        for start in range(0, keys, BATCH):
            batches: list[list[bytes]] = [[] for _ in nodes]
            for number in range(start, min(start + BATCH, keys)):
                key = b"key:%012d" % number
                batches[contender.node_of(key)].append(request(memcached, key, value))
            for node, batch in zip(nodes, batches, strict=True):
                node.sendall(b"".join(batch))
            for node, batch in zip(nodes, batches, strict=True):
                receive(node, reply * len(batch))


def receive(node: socket.socket, expected: bytes) -> None:
    got = bytearray()
    while len(got) < len(expected):
        data = node.recv(65536)
        got += data
        if not data or not expected.startswith(got):
            raise RuntimeError(f"SET failed: {bytes(got[-200:])!r}")


def bytes_per_key(contender: Contender, keys: int) -> float:
    """Fills a fresh contender and says what each key took."""
    # The first request makes a server touch what it sets up lazily.
    fill(contender, 1)
    before = contender.memory_bytes()
    fill(contender, keys)
    time.sleep(SETTLE_SECONDS)
    per_key = (contender.memory_bytes() - before) / keys
    print(f"    {contender.name}, {keys:,} keys: {per_key:.0f} bytes per key", file=sys.stderr, flush=True)
    return per_key


# The table ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Row:
    """A kind of value. `build` gives the commands of value number n; a large one has `members`, and is one value."""

    name: str
    bar: float  # times Valkey's bytes
    build: Callable[[int], Iterator[list[bytes]]]
    members: int = 0


def _words(count: int, *shapes: str, start: int = 0) -> list[bytes]:
    """`count` times the shapes, each with the number in it."""
    return [(shape % number).encode() for number in range(start, start + count) for shape in shapes]


def _small(verb: str, *words: bytes) -> Callable[[int], Iterator[list[bytes]]]:
    return lambda number: iter([[verb.encode(), b"key:%012d" % number, *words]])


def _string(number: int) -> Iterator[list[bytes]]:
    yield [b"SET", b"key:%012d" % number, b"v" * 32, b"EX", b"100000"]


def _large(verb: str, *shapes: str) -> Callable[[int], Iterator[list[bytes]]]:
    """A collection that grows by a hundred members a command; `number` is how many it has in the end."""
    return lambda number: (
        [verb.encode(), b"large", *_words(min(100, number - start), *shapes, start=start)]
        for start in range(0, number, 100)
    )


_FIFTY = _words(50, "field:%d", "value:%d")
ROWS = (
    Row("string of 32 bytes with a TTL", 1.0, _string),
    Row("hash of 5 short fields", 1.0, _small("HSET", *_words(5, "field:%d", "value:%d"))),
    Row("list of 5", 1.0, _small("RPUSH", *_words(5, "element:%d"))),
    Row("list of 5 integers", 1.0, _small("RPUSH", *_words(5, "%d", start=1000))),
    Row("set of 5 integers", 1.0, _small("SADD", *_words(5, "%d", start=1000))),
    Row("set of 5 short members", 1.0, _small("SADD", *_words(5, "member:%d"))),
    Row("sorted set of 5", 1.0, _small("ZADD", *_words(5, "%d", "member:%d"))),
    Row("hash of 50 short fields", 1.0, _small("HSET", *_FIFTY)),
    Row("hash of 50, one field a command", 1.0, lambda number: (
        [b"HSET", b"key:%012d" % number, *_FIFTY[at : at + 2]] for at in range(0, 100, 2))),
    Row("field of a large hash", 1.1, _large("HSET", "field:%d", "value:%d"), 1_000_000),
    Row("member of a large set", 1.1, _large("SADD", "member:%d"), 1_000_000),
    Row("member of a large sorted set", 1.1, _large("ZADD", "%d", "member:%d"), 1_000_000),
)  # fmt: skip


def encoded(words: list[bytes]) -> bytes:
    """A command as RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def send(port: int, commands: Iterator[list[bytes]]) -> None:
    """Sends the commands in batches, each answered by one line that is no error."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as node:
        batch: list[bytes] = []
        for words in commands:
            batch.append(encoded(words))
            if len(batch) == BATCH:
                _answered(node, batch)
                batch = []
        _answered(node, batch)


def _answered(node: socket.socket, batch: list[bytes]) -> None:
    node.sendall(b"".join(batch))
    got = b""
    while got.count(b"\r\n") < len(batch):
        data = node.recv(65536)
        if not data or b"-" in data:
            raise RuntimeError(f"a command failed: {(got + data)[-200:]!r}")
        got += data


def bytes_each(contender: Contender, row: Row, count: int) -> float:
    """Bytes of each of `count` values, or of each member of a large one."""
    contender.start()
    try:
        # What a server sets up once, for its first keys and for a pipeline of them, is not counted.
        others = range(count, count + 2 * BATCH)
        send(contender.port, (words for number in others for words in ROWS[0].build(number)))
        send(contender.port, iter([[b"DEL", b"key:%012d" % number] for number in others]))
        time.sleep(SETTLE_SECONDS)
        before = contender.memory_bytes()
        if row.members:
            send(contender.port, row.build(row.members))
        else:
            send(contender.port, (words for number in range(count) for words in row.build(number)))
        time.sleep(SETTLE_SECONDS)
        return (contender.memory_bytes() - before) / (row.members or count)
    finally:
        contender.stop()


def main() -> None:
    """The table; exit status 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 2)[1])
    parser.add_argument("--values", type=int, default=200_000, help="values of each small kind [200000]")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rows", default="", help="only rows with this in their name")
    args = parser.parse_args()
    missed = False
    print(
        "| bytes per value | Kache | Valkey | Kache / Valkey | bar |\n| --- | ---: | ---: | ---: | ---: |", flush=True
    )
    for row in ROWS:
        if args.rows not in row.name:
            continue
        ours, theirs = (bytes_each(CONTENDERS[name](args.shards), row, args.values) for name in ("kache", "valkey"))
        missed |= ours > theirs * row.bar
        print(f"| {row.name} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} | {row.bar} |", flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main()
