"""Replies that nobody reads, from several routers: what the routers grow by, and what somebody who reads waits meanwhile.

    python tests/soak/never_read.py [--routers 3] [--seconds 10] [--budget-mib 768]

Each router has its share of `maxmemory-clients`. Ten clients ask for far more and read nothing: 500 GETs of 1 MiB each, the same as MGETs of 50 keys
over all shards, KEYS * of a million, HGETALLs of 20 MiB one behind the other. Beside them somebody asks for small values at a fixed rate, as before they came, each
for another key, so that a reply of any other request is seen. Then, while they are still there, somebody asks for what the silent ones
have asked for, and reads all of it. Prints a line each and ends with 1 when a bar is missed: all routers together within the budget + 10 %, everybody who
reads is served what they asked for, and waits at most twice as long in 99 of 100 cases.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection

from kache.errors import CommandError

MIB = 1 << 20
KEYS = 1_000_000
SILENT_CLIENTS = 10
EVERY_SECONDS = 0.005
SLOWDOWN = 2.0
OVER_BUDGET = 1.1
SMALL_KEYS = 1000
FIELDS = 100_000


def read_whole(cluster: Cluster, words: tuple[str, ...], expected: int) -> list[str]:
    """Asks for the same as those who read nothing and reads it, at every router; what was odd about it."""
    odd: list[str] = []
    connections = [Connection(cluster.port, 60.0) for _ in range(cluster.routers)]
    for connection in connections:
        try:
            reply = connection.request(*words)
            if isinstance(reply, CommandError):
                odd.append(reply.message)
            elif not fits(words, reply, expected):
                odd.append(f"WRONG: {reply!r:.100}")
        except OSError as error:
            odd.append(f"{type(error).__name__}: {error}")
        connection.close()
    return odd


def fits(words: tuple[str, ...], reply: object, expected: int) -> bool:
    """Whether the reply is the one to these words, of which `expected` elements are right."""
    values = reply if isinstance(reply, list) else [reply]
    if words[0] == "HGETALL":
        flat = [word for pair in reply.items() for word in pair] if isinstance(reply, dict) else values
        return len(flat) == expected and flat[1::2] == [b"v" * 200] * FIELDS and len(set(flat[::2])) == FIELDS
    if words[0] == "KEYS":
        return len(values) == len(set(values)) == expected and b"small:7" in values
    return len(values) == expected and all(value == value_of(key) for key, value in zip(words[1:], values, strict=True))


def value_of(key: str) -> bytes:
    """What the large key holds: a mebibyte in which its name stands again and again."""
    name = key.encode() + b"."
    return (name * (MIB // len(name) + 1))[:MIB]


class Reader(threading.Thread):
    """Asks for a small value every few milliseconds, one connection to each router; what it waits, from when it was due."""

    def __init__(self, cluster: Cluster, seconds: float) -> None:
        super().__init__()
        self.connections = [cluster.connect() for _ in range(cluster.routers)]
        self.seconds = seconds
        self.waits: list[float] = []
        self.refused: list[str] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        due = time.perf_counter()
        end = due + self.seconds
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            number = len(self.waits)
            connection = self.connections[number % len(self.connections)]
            reply = connection.request("GET", f"small:{number % SMALL_KEYS}")
            if isinstance(reply, CommandError):
                self.refused.append(f"{number}: {reply.message}")
            elif reply != b"value of %d" % (number % SMALL_KEYS):
                self.wrong.append(f"{number}: {reply!r:.100}")
            self.waits.append(time.perf_counter() - due)
            due += EVERY_SECONDS
        for connection in self.connections:
            connection.close()

    def p99(self) -> float:
        return sorted(self.waits)[int(len(self.waits) * 0.99)] if self.waits else float("inf")


def private_mib(pids: list[int]) -> float:
    """What these processes have for themselves."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Private_Clean:")))
    return total / 1024


def measure(cluster: Cluster, seconds: float, silent: list[Connection], words: tuple[str, ...], times: int) -> Reader:
    """One reader beside clients that ask and read nothing."""
    reader = Reader(cluster, seconds)
    for client in silent:
        client.send(*[words] * times)
    reader.start()
    return reader


def fill(cluster: Cluster) -> list[str]:
    """The keys of 1 MiB, over all shards; beside them small ones, a million keys in all."""
    large = [key for keys in cluster.keys_by_shard(50 // cluster.shards + 1) for key in keys][:50]
    with cluster.connect() as connection:
        connection.send(*[("SET", key, value_of(key)) for key in large])
        assert connection.read_many(len(large)) == ["OK"] * len(large)
        small = [word for number in range(SMALL_KEYS) for word in (f"small:{number}", f"value of {number}")]
        assert connection.request("MSET", *small) == "OK"
        for start in range(0, KEYS, 10_000):
            words = [word for number in range(start, start + 10_000) for word in (f"filler:{number}", "")]
            assert connection.request("MSET", *words) == "OK"
        for start in range(0, FIELDS, 10_000):
            fields = [word for number in range(start, start + 10_000) for word in (f"field:{number}", "v" * 200)]
            assert connection.request("HSET", "hash", *fields) == 10_000
    return large


def elements_of(words: tuple[str, ...]) -> int:
    """Of the reply to these words."""
    if words[0] == "KEYS":
        return KEYS + SMALL_KEYS + 50 + 1
    return 2 * FIELDS if words[0] == "HGETALL" else len(words) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--budget-mib", type=int, default=768)
    chosen = parser.parse_args()
    missed = 0
    environment = {"KACHE_MAXMEMORY_CLIENTS": f"{chosen.budget_mib}mb"}
    with Cluster(4, routers=chosen.routers, environment=environment) as cluster:
        large = fill(cluster)
        routers = [cluster.pid_of("router", index) for index in range(chosen.routers)]
        for name, words, times in (
            ("500 GET of 1 MiB", ("GET", large[0]), 500),
            ("10 MGET of 50 MiB", ("MGET", *large), 10),
            ("KEYS * of a million", ("KEYS", "*"), 50),
            ("30 HGETALL of 20 MiB", ("HGETALL", "hash"), 30),
        ):
            alone = measure(cluster, chosen.seconds / 2, [], words, 0)
            alone.join()
            before = private_mib(routers)
            silent = [cluster.connect() for _ in range(SILENT_CLIENTS)]
            beside = measure(cluster, chosen.seconds, silent, words, times)
            growth = 0.0
            while beside.is_alive():
                growth = max(growth, private_mib(routers) - before)
                beside.join(0.05)
            began = time.perf_counter()
            unread = read_whole(cluster, words, elements_of(words))
            took = time.perf_counter() - began
            for client in silent:
                client.close()
            slowdown = beside.p99() / alone.p99()
            odd = beside.refused + beside.wrong + unread
            bad = growth > OVER_BUDGET * chosen.budget_mib or slowdown > SLOWDOWN or bool(odd)
            missed += bad
            print(
                f"{name}: routers + {growth:.0f} MiB of {chosen.budget_mib}; p99 {alone.p99() * 1000:.2f} ms alone, "
                f"{beside.p99() * 1000:.2f} ms beside ({slowdown:.1f} times), worst {max(beside.waits, default=0.0) * 1000:.0f} ms"
                + f"; read whole {chosen.routers} times in {took:.1f} s"
                + (f"; refused {len(beside.refused)}: {beside.refused[:3]}" if beside.refused else "")
                + (f"; WRONG REPLIES {len(beside.wrong)}: {beside.wrong[:3]}" if beside.wrong else "")
                + (f"; who read all of it: {unread}" if unread else "")
                + ("  MISSED" if bad else ""),
                flush=True,
            )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
