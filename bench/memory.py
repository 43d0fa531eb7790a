"""Bytes of resident memory per key: growth of summed PSS from empty to full, keys of 16 and values of 32 bytes."""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from contenders import CONTENDERS, Missing

__all__ = ["keyspace_figures"]

BATCH = 1000
SETTLE_SECONDS = 1.0


def fill(port: int, keys: int) -> None:
    """SETs `keys` distinct keys of 16 bytes with values of 32, pipelined."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        value = b"v" * 32
        for start in range(0, keys, BATCH):
            count = min(BATCH, keys - start)
            connection.sendall(
                b"".join(
                    b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$32\r\n%s\r\n" % (n, value)
                    for n in range(start, start + count)
                )
            )
            expected = 5 * count
            while expected:
                got = connection.recv(65536)
                if not got or got.startswith(b"-"):
                    raise RuntimeError(f"SET failed: {got[:200]!r}")
                expected -= len(got)


def keyspace_figures(
    names: list[str], shards: int, sizes: list[int], options: dict[str, dict[str, str]]
) -> dict[str, dict[str, float]]:
    """{contender: {number of keys: bytes per key}}."""
    figures: dict[str, dict[str, float]] = {}
    for name in names:
        for size in sizes:
            contender = CONTENDERS[name](shards, options.get(name))
            if contender.protocol != "resp" or name.endswith("cluster"):
                contender.stop()
                continue
            try:
                contender.start()
                # The first request makes a server touch what it sets up lazily.
                fill(contender.port, 1)
                before = contender.memory_bytes()
                fill(contender.port, size)
                time.sleep(SETTLE_SECONDS)
                per_key = (contender.memory_bytes() - before) / size
                figures.setdefault(name, {})[str(size)] = per_key
                print(f"    memory: {name}, {size} keys: {per_key:.0f} bytes per key", file=sys.stderr, flush=True)
            except (Missing, RuntimeError, OSError) as error:
                print(f"LEFT OUT of memory: {name}: {error}", file=sys.stderr)
            finally:
                with contextlib.suppress(Exception):
                    contender.stop()
    return figures
