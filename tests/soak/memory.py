"""What memory a cluster takes: within its limit under every kind of load, and given back when the data has gone.

    python tests/soak/memory.py                               # everything, about half an hour
    python tests/soak/memory.py --parts limit --limits 64 --only appends hashes
    python tests/soak/memory.py --parts limit freed --valkey  # the same load on one valkey-server, for comparison

Prints each figure with its bar and ends with status 1 when one is missed. Resident memory is the growth of summed PSS
over the empty server.

    limit       overwrites, APPEND, SETRANGE, lists, hashes, sets, sorted sets of mixed sizes, several times as much as
                fits: growth at most 15 % over maxmemory, measured while it runs and 10 s after; no stall above 20 ms
    freed       90 % of the data goes by DEL, by expiry, by CONFIG SET maxmemory, by FLUSHALL, many small values and few
                large ones: growth at most 1.25 × used memory + 16 MiB within 10 s
    one         one limit for all shards: what fits the cluster stays wherever it lies, the sum never goes over + 5 %
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "oracle")]

from cluster import Cluster, Connection, encode  # noqa: E402 - the folders of the tests are no package
from servers import valkey  # noqa: E402

MIB = 1 << 20
PIPELINE = 500
OVER_BAR = 15.0
STALL_BAR_MS = 20.0
GIVEN_BACK_SECONDS = 10.0
SHARDS = 4

Load = Callable[[random.Random, int], tuple[Any, ...]]
"""The next command of a load, for a limit of so many times 64 MiB: there are as many times more keys."""


# Servers ------------------------------------------------------------------------------------------------
class Server:
    """A Kache or a Valkey with one connection, the pids of its processes, and what it took when it was empty."""

    def __init__(self, connection: Connection, pids: list[int], kache: bool) -> None:
        self.connection = connection
        self.pids = pids
        self.kache = kache
        connection.request("PING")
        self.empty = self.pss()

    def pss(self) -> int:
        """Summed PSS, bytes."""
        total = 0
        for pid in self.pids:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) * 1024
        return total

    def growth(self) -> int:
        return self.pss() - self.empty

    def used(self) -> int:
        """What the server says its data takes, bytes; of a Valkey less what it says when it is empty."""
        text = self.connection.request("INFO", "memory")
        text = text if isinstance(text, str) else bytes(text).decode()
        return int(re.findall(r"^used_memory:(\d+)", text, re.MULTILINE)[0])

    def stall_ms(self) -> float:
        """The longest of any shard since `reset`."""
        if not self.kache:
            return 0.0
        return max(int(row[b"longest_stall_us"]) for row in shards_of(self.connection)) / 1000

    def run(self, commands: Iterator[tuple[Any, ...]], count: int) -> None:
        """So many commands in pipelines; each has a reply of one line."""
        for start in range(0, count, PIPELINE):
            n = min(PIPELINE, count - start)
            self.connection.socket.sendall(b"".join(encode(next(commands)) for _ in range(n)))
            lines = 0
            while lines < n:
                data = self.connection.socket.recv(1 << 18)
                if not data:
                    raise ConnectionError("closed")
                lines += data.count(b"\n")
            assert lines == n


def shards_of(connection: Connection) -> list[dict[bytes, Any]]:
    """STATS: a row for each shard."""
    rows = connection.request("STATS")
    return [row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True)) for row in rows]


@contextlib.contextmanager
def server(kache: bool, **options: str) -> Iterator[Server]:
    if kache:
        with Cluster(SHARDS, **options) as cluster, cluster.connect() as connection:
            status = cluster.status()
            yield Server(connection, [status["pid"], *(child["pid"] for child in status["children"])], True)
    else:
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
        with valkey(*words) as port, Connection(port) as connection:
            yield Server(connection, [_pid_of(connection)], False)


def _pid_of(connection: Connection) -> int:
    text = bytes(connection.request("INFO", "server")).decode()
    return int(re.findall(r"^process_id:(\d+)", text, re.MULTILINE)[0])


class Report:
    """Lines for people, and whether every bar was kept."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def line(self, what: str, figure: float, bar: float | None, note: str = "") -> None:
        kept = bar is None or figure <= bar
        if not kept:
            self.missed.append(what)
        verdict = "      " if bar is None else "ok    " if kept else "MISSED"
        print(f"{verdict} {what:52} {figure:9.1f}  {'' if bar is None else f'bar {bar:g}'}  {note}", flush=True)


# Loads --------------------------------------------------------------------------------------------------
TEXT = os.urandom(1 << 17).hex().encode()


def text(rng: random.Random, low: int, high: int) -> bytes:
    start = rng.randrange(len(TEXT) - high)
    return TEXT[start : start + rng.randint(low, high)]


def mixed_size(rng: random.Random) -> int:
    """Many small ones, few large ones: 16 bytes to 100 kB."""
    return int(16 * 6250 ** rng.random() ** 3)


def overwrites(rng: random.Random, scale: int) -> tuple[Any, ...]:
    size = mixed_size(rng)
    return ("SET", f"key:{rng.randrange(100_000 * scale)}", text(rng, size, size))


def appends(rng: random.Random, scale: int) -> tuple[Any, ...]:
    return ("APPEND", f"key:{rng.randrange(1000 * scale)}", text(rng, 1, 3000))


def setranges(rng: random.Random, scale: int) -> tuple[Any, ...]:
    return ("SETRANGE", f"key:{rng.randrange(5000 * scale)}", rng.randrange(60_000), text(rng, 1, 3000))


def lists(rng: random.Random, scale: int) -> tuple[Any, ...]:
    key = f"list:{rng.randrange(30_000 * scale)}"
    if rng.random() < 0.4:
        return ("LTRIM", key, 0, rng.randrange(60))
    return (rng.choice(("LPUSH", "RPUSH")), key, *(text(rng, 1, 300) for _ in range(rng.randint(1, 20))))


def hashes(rng: random.Random, scale: int) -> tuple[Any, ...]:
    key = f"hash:{rng.randrange(8000 * scale)}"
    if rng.random() < 0.3:
        return ("HDEL", key, *(f"field:{rng.randrange(400)}" for _ in range(30)))
    return (
        "HSET",
        key,
        *(w for _ in range(rng.randint(1, 12)) for w in (f"field:{rng.randrange(400)}", text(rng, 1, 200))),
    )


def sets(rng: random.Random, scale: int) -> tuple[Any, ...]:
    key = f"set:{rng.randrange(8000 * scale)}"
    members = [b"%d:%s" % (n := rng.randrange(600), TEXT[n : n + n % 150]) for _ in range(12)]
    return ("SREM" if rng.random() < 0.3 else "SADD", key, *members)


def zsets(rng: random.Random, scale: int) -> tuple[Any, ...]:
    key = f"zset:{rng.randrange(5000 * scale)}"
    if rng.random() < 0.3:
        return ("ZREMRANGEBYRANK", key, 0, rng.randrange(40))
    numbers = [rng.randrange(2000) for _ in range(8)]
    return ("ZADD", key, *(w for n in numbers for w in (rng.random(), b"%d:%s" % (n, TEXT[n : n + n % 700]))))


LOADS: dict[str, tuple[Load, int]] = {
    "overwrites": (overwrites, 2_000),
    "appends": (appends, 1_500),
    "setranges": (setranges, 1_500),
    "lists": (lists, 1_000),
    "hashes": (hashes, 650),
    "sets": (sets, 700),
    "zsets": (zsets, 2_000),
}
"""A load, and about how many bytes one command of it stores."""


def under_a_limit(report: Report, name: str, limit: int, kache: bool, times: float) -> None:
    """`times` as much as fits: resident memory while it runs and afterwards, and the longest stall."""
    load, size = LOADS[name]
    rng = random.Random(7)
    count = int(limit * times) // size
    with server(kache, maxmemory=str(limit), maxmemory_policy="allkeys-lru") as under:
        commands = iter(lambda: load(rng, limit // (64 * MIB) or 1), None)
        most = 0.0
        began = time.monotonic()
        for part in range(20):
            under.run(commands, count // 20)
            if part >= 10:
                most = max(most, under.growth())
        took = time.monotonic() - began
        time.sleep(GIVEN_BACK_SECONDS)
        growth, used, stall = under.growth(), under.used(), under.stall_ms()
        keys = int(under.connection.request("DBSIZE"))
        who = f"{'kache' if kache else 'valkey'} {name} at {limit // MIB} MiB"
        meanwhile = 100 * most / limit - 100
        note = f"used {used / MIB:.1f} MiB, {keys} keys, at most {meanwhile:+.1f} % meanwhile, {took:.0f} s"
        report.line(f"{who}: % over maxmemory", 100 * growth / limit - 100, OVER_BAR if kache else None, note)
        if kache:
            report.line(f"{who}: longest stall, ms", stall, STALL_BAR_MS)


# Given back ---------------------------------------------------------------------------------------------
SHAPES: dict[str, tuple[int, Callable[[int, random.Random], tuple[Any, ...]]]] = {
    "small": (600_000, lambda n, rng: ("SET", f"key:{n}", text(rng, 8, 120))),
    "mixed": (60_000, lambda n, rng: ("SET", f"key:{n}", text(rng, (size := mixed_size(rng)), size))),
    "large": (120, lambda n, rng: ("SET", f"key:{n}", bytes(MIB))),
    "lists": (60_000, lambda n, rng: ("RPUSH", f"key:{n}", *(text(rng, 8, 60) for _ in range(rng.randint(2, 60))))),
    "hashes": (40_000, lambda n, rng: ("HSET", f"key:{n}", *(w for i in range(rng.randint(2, 60)) for w in (f"f{i}", text(rng, 8, 60))))),
    "zsets": (30_000, lambda n, rng: ("ZADD", f"key:{n}", *(w for i in range(rng.randint(2, 60)) for w in (i, text(rng, 8, 60))))),
}  # fmt: skip


def given_back(report: Report, shape: str, how: str, kache: bool) -> None:
    """90 % of the data goes; what is resident 10 s later, against what is left."""
    count, make = SHAPES[shape]
    rng = random.Random(3)
    with server(kache, maxmemory="2gb", maxmemory_policy="allkeys-random") as under:
        under.run((make(n, rng) for n in range(count)), count)
        full, used = under.growth(), under.used()
        going = rng.sample(range(count), count * 9 // 10)
        if how == "DEL":
            under.run((("DEL", f"key:{n}") for n in going), len(going))
        elif how == "expiry":
            until = int(time.time() * 1000) + 3000
            under.run((("PEXPIREAT", f"key:{n}", until) for n in going), len(going))
            time.sleep(max(0.0, until / 1000 - time.time()))
        elif how == "eviction":
            under.connection.request("CONFIG", "SET", "maxmemory", used // 10)
        else:
            under.connection.request("FLUSHALL")
        went = time.monotonic()
        figure = float("inf")
        while time.monotonic() - went < GIVEN_BACK_SECONDS:
            time.sleep(0.5)
            bar = 1.25 * under.used() + 16 * MIB
            figure = under.growth() / bar
            if figure <= 1 and not os.environ.get("KACHE_FULL_WAIT"):
                break
        note = (
            f"{full / MIB:.0f} → {under.growth() / MIB:.1f} MiB resident, {used / MIB:.0f} → {under.used() / MIB:.1f} "
            f"used, after {time.monotonic() - went:.1f} s"
        )
        who = f"{'kache' if kache else 'valkey'} {shape} gone by {how}"
        report.line(f"{who}: of 1.25 × used + 16 MiB", figure, 1.0 if kache else None, note)
        if kache:
            report.line(f"{who}: longest stall, ms", under.stall_ms(), STALL_BAR_MS)


# One limit ----------------------------------------------------------------------------------------------
class Watch:
    """The largest sum of what the shards use, looked at as often as possible."""

    def __init__(self, cluster: Cluster) -> None:
        self.most = 0
        self._stop = threading.Event()
        self._connection = cluster.connect()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.most = max(self.most, sum(int(row[b"used_memory"]) for row in shards_of(self._connection)))
            time.sleep(0.01)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()


def one_limit(report: Report) -> None:
    limit = 40 * MIB
    with Cluster(SHARDS, maxmemory="40mb") as cluster, cluster.connect() as connection:
        under = Server(connection, [], True)
        under.run((("SET", f"few:{n}", b"v") for n in range(100)), 100)
        connection.request("SET", "big", bytes(15 * MIB))
        report.line("a value of 15 of 40 MiB: keys lost", 101 - connection.request("DBSIZE"), 0)
        connection.request("FLUSHALL")
        under.run((("SET", f"{{tag}}:{n}", bytes(1000)) for n in range(20_000)), 20_000)
        report.line("20 MB under one hash tag: keys lost", 20_000 - connection.request("DBSIZE"), 0)
        connection.request("FLUSHALL")
        under.run((("RPUSH", "list", bytes(1000)) for _ in range(30_000)), 30_000)
        report.line("a list pushed to 30,000 elements: lost", 30_000 - connection.request("LLEN", "list"), 0)
        connection.request("FLUSHALL")
        idle, growing = cluster.keys_by_shard(60_000)[:2]
        under.run((("SET", key, bytes(900)) for key in idle), len(idle))
        with Watch(cluster) as watch:
            for _ in range(3):
                under.run((("SET", key, bytes(900)) for key in growing), len(growing))
        report.line("one shard idle and full, one growing: % over", 100 * watch.most / limit - 100, 5)
    with Cluster(SHARDS, maxmemory="40mb", maxmemory_policy="noeviction") as cluster, cluster.connect() as connection:
        Server(connection, [], True).run((("SET", f"{{tag}}:{n}", bytes(1000)) for n in range(50_000)), 50_000)
        kept = sum(int(row[b"used_memory"]) for row in shards_of(connection))
        report.line("noeviction, one hash tag: % of the limit unused", 100 - 100 * kept / limit, 2)
        report.line("noeviction, one hash tag: % over the limit", 100 * kept / limit - 100, 1)
        reply = connection.request("SET", "other", bytes(1000))
        report.line("noeviction, full: writes elsewhere that are taken", float(not isinstance(reply, Exception)), 0)
    with Cluster(SHARDS, maxmemory="3") as cluster, cluster.connect() as connection:
        taken = sum(not isinstance(connection.request("SET", f"k{n}", "v"), Exception) for n in range(100))
        report.line("maxmemory 3 and four shards: writes taken", taken, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--parts", nargs="+", choices=["limit", "freed", "one"], default=["limit", "freed", "one"])
    parser.add_argument("--limits", nargs="+", type=int, default=[64, 256], metavar="MIB")
    parser.add_argument("--times", type=float, default=8.0, help="How much is stored, in limits.")
    parser.add_argument("--only", nargs="+", default=[*LOADS, *SHAPES], help="Loads and shapes.")
    parser.add_argument("--hows", nargs="+", default=["DEL", "expiry", "eviction", "FLUSHALL"])
    parser.add_argument("--valkey", action="store_true", help="Each case on one valkey-server, too.")
    args = parser.parse_args()
    report = Report()
    contenders = [True, False] if args.valkey else [True]
    if "one" in args.parts:
        one_limit(report)
    for name in LOADS if "limit" in args.parts else ():
        for limit in args.limits if name in args.only else ():
            for kache in contenders:
                under_a_limit(report, name, limit * MIB, kache, args.times)
    for shape in SHAPES if "freed" in args.parts else ():
        for how in args.hows if shape in args.only else ():
            for kache in contenders:
                given_back(report, shape, how, kache)
    print(f"{len(report.missed)} missed" if report.missed else "every bar kept", flush=True)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
