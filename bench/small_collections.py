#!/usr/bin/env python3
"""What a collection of 128 × 64 bytes costs beside one of five short elements: `python bench/small_collections.py`

Both are packed, so what finds an element walks over those before it. For each command the time of one on a large collection
is divided by that of one on a small collection, for Kache (one shard, one router) and for one valkey-server: in one run, in
turns, under the same pipelines over one connection, medians of the rounds. A row misses its bar when Kache's relation is above
Valkey's. The elements are drawn by chance among all that are there, the collections among a thousand; in the rows of mixed
sizes elements have 33 to 64 bytes. `--before` is the Python of another installation of Kache, measured in the same rounds: its
times for five elements are a bar, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from contenders import Contender, Kache, KacheBefore, Valkey
from wire import Connection, command

COLLECTIONS = 1000
BATCH = 100
"""Commands that are sent together."""
AHEAD = 4
"""Batches that are sent before the replies to the first are read."""
SLOWER_BAR = 1.03
TEXT = random.Random(1).randbytes(1 << 14).hex()


@dataclass(frozen=True)
class Size:
    """Of a collection: how many elements, and how many bytes each has, at least and at most; 0: short ones."""

    name: str
    elements: int
    least: int = 0
    most: int = 0

    def value(self, rng: random.Random) -> str:
        """One of a hash."""
        if not self.most:
            return f"value:{rng.randrange(self.elements)}"
        at = rng.randrange(len(TEXT) - self.most)
        return TEXT[at : at + rng.randint(self.least, self.most)]

    def member(self, number: int) -> str:
        """One of a set: the same number is the same member in each."""
        short = f"member:{number}"
        return short + self.value(random.Random(number))[len(short) :] if self.most else short

    def key(self, kind: str, number: int) -> str:
        return f"{kind}:{self.most}:{self.least}:{number}"


SMALL = Size("5 short", 5)
SIZES = (SMALL, Size("128 x 64 bytes", 128, 64, 64), Size("128 of mixed sizes", 128, 33, 64))


def hget(rng: random.Random, size: Size) -> bytes:
    return command("HGET", size.key("hash", rng.randrange(COLLECTIONS)), f"field:{rng.randrange(size.elements)}")


def hset(rng: random.Random, size: Size) -> bytes:
    field = f"field:{rng.randrange(size.elements)}"
    return command("HSET", size.key("hash", rng.randrange(COLLECTIONS)), field, size.value(rng))


def sadd(rng: random.Random, size: Size) -> bytes:
    return command("SADD", size.key("set", rng.randrange(COLLECTIONS)), size.member(rng.randrange(size.elements)))


def zadd(rng: random.Random, size: Size) -> bytes:
    score, member = rng.randrange(size.elements), size.member(rng.randrange(size.elements))
    return command("ZADD", size.key("zset", rng.randrange(COLLECTIONS)), score, member)


ROWS: dict[str, Callable[[random.Random, Size], bytes]] = {"HGET": hget, "HSET": hset, "SADD": sadd, "ZADD": zadd}
"""A command on an element that is there, drawn by chance."""


def fill(connection: Connection, size: Size) -> None:
    """The collections that the rows look into."""
    rng = random.Random(2)
    numbers = range(size.elements)
    for number in range(COLLECTIONS):
        members = [size.member(at) for at in numbers]
        connection.pipeline([
            command("HSET", size.key("hash", number), *(w for at in numbers for w in (f"field:{at}", size.value(rng)))),
            command("SADD", size.key("set", number), *members),
            command("ZADD", size.key("zset", number), *(w for at in numbers for w in (at, members[at]))),
        ])  # fmt: skip


class Pipelines:
    """The batches of a row and size, and how many bytes are the replies to each."""

    def __init__(self, row: str, size: Size, count: int) -> None:
        rng = random.Random(3)
        self.count = count
        self.batches = [b"".join(ROWS[row](rng, size) for _ in range(BATCH)) for _ in range(count // BATCH)]
        self.lines = BATCH * (2 if row == "HGET" else 1)

    def run(self, contender: Contender, connection: Connection) -> tuple[float, float]:
        """Microseconds a command: of the client's time, and of the server's processors."""
        sent = read = 0
        cpu, began = contender.cpu_seconds(), time.perf_counter()
        while read < len(self.batches):
            if sent < len(self.batches) and sent - read < AHEAD:
                connection.socket.sendall(self.batches[sent])
                sent += 1
                continue
            lines = 0
            while lines < self.lines * (sent - read):
                data = connection.socket.recv(1 << 18)
                if not data or data[:1] == b"-":
                    raise SystemExit(f"a command failed: {data[:200]!r}")
                lines += data.count(b"\n")
            read = sent
        took, cpu = time.perf_counter() - began, contender.cpu_seconds() - cpu
        return took / self.count * 1e6, cpu / self.count * 1e6


Times = dict[tuple[str, Size, str], list[tuple[float, float]]]


def measured(contenders: list[Contender], chosen: argparse.Namespace) -> Times:
    """Each round of each row, size and contender, in turns."""
    times: Times = {}
    pipelines = {(row, size): Pipelines(row, size, chosen.count) for row in chosen.rows for size in SIZES}
    with contextlib.ExitStack() as stack:
        connections = []
        for contender in contenders:
            contender.start()
            stack.callback(contender.stop)
            connections.append(stack.enter_context(Connection(contender.port)))
            for size in SIZES:
                fill(connections[-1], size)
        for turn in range(chosen.rounds + 1):
            for (row, size), load in pipelines.items():
                for contender, connection in zip(contenders, connections, strict=True):
                    found = load.run(contender, connection)
                    if turn:  # the first has warmed up
                        times.setdefault((row, size, contender.name), []).append(found)
    return times


def relation(times: Times, over: tuple[str, Size, str], under: tuple[str, Size, str], which: int) -> float:
    """The median of the rounds' quotients."""
    return median(one[which] / other[which] for one, other in zip(times[over], times[under], strict=True))


def report(times: Times, chosen: argparse.Namespace, names: list[str]) -> bool:
    """The table; whether each row keeps its bar."""
    kept = True
    print("| command | size | " + " | ".join(f"{name}: us, CPU us, relation, of CPU" for name in names) + " | |")
    print("|---" * (len(names) + 3) + "|")
    for row in chosen.rows:
        for size in SIZES:
            cells, found = [], {}
            for name in names:
                took, cpu = (median(each[which] for each in times[row, size, name]) for which in (0, 1))
                found[name], of_cpu = (relation(times, (row, size, name), (row, SMALL, name), n) for n in (0, 1))
                cells.append(f"{took:.2f}, {cpu:.2f}, {found[name]:.2f}, {of_cpu:.2f}")
            fine = found[Kache.name] <= found[Valkey.name]
            if size is SMALL and KacheBefore.name in names:
                fine = relation(times, (row, size, Kache.name), (row, size, KacheBefore.name), 1) <= SLOWER_BAR
            kept &= fine
            print(f"| {row} | {size.name} | " + " | ".join(cells) + f" | {'ok' if fine else 'MISSED'} |", flush=True)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--count", type=int, default=100_000, help="commands a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", metavar="PYTHON")
    chosen = parser.parse_args()
    contenders: list[Contender] = [Kache(1), Valkey()]
    if chosen.before:
        # Contenders read it when their module is imported.
        KacheBefore.python = os.path.abspath(chosen.before)
        contenders.append(KacheBefore(1))
    names = [contender.name for contender in contenders]
    return 0 if report(measured(contenders, chosen), chosen, names) else 1


if __name__ == "__main__":
    sys.exit(main())
