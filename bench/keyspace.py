"""What keys cost: bytes of resident memory per key, the growth of summed PSS from empty to full.

Keys of 16 bytes, values of 32; the keys are those of redis-benchmark, so that its rows find all of them afterwards.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from contenders import Contender

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
