"""Replies that nobody reads, from several routers: what the routers grow by, and what somebody who reads waits meanwhile.

    python tests/soak/never_read.py [--routers 3] [--seconds 10] [--budget-mib 768]

Each router has its share of `maxmemory-clients`. Ten clients ask for far more and read nothing: 500 GETs of 1 MiB each, the same as MGETs of 50 keys
over all shards, KEYS * of a million. Beside them somebody asks for a small value at a fixed rate, as before they came.
Prints a line each and ends with 1 when a bar is missed: all routers together within the budget + 10 %, everybody who reads is
served, and waits at most twice as long in 99 of 100 cases.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection

MIB = 1 << 20
KEYS = 1_000_000
SILENT_CLIENTS = 10
EVERY_SECONDS = 0.005
SLOWDOWN = 2.0
OVER_BUDGET = 1.1


class Reader(threading.Thread):
    """Asks for a small value every few milliseconds, one connection to each router; what it waits, from when it was due."""

    def __init__(self, cluster: Cluster, seconds: float) -> None:
        super().__init__()
        self.connections = [cluster.connect() for _ in range(cluster.routers)]
        self.seconds = seconds
        self.waits: list[float] = []
        self.refused: object = None

    def run(self) -> None:
        due = time.perf_counter()
        end = due + self.seconds
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            connection = self.connections[len(self.waits) % len(self.connections)]
            reply = connection.request("GET", "small")
            if reply != b"value":
                self.refused = reply
                break
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
        connection.send(*[("SET", key, "x" * MIB) for key in large], ("SET", "small", "value"))
        assert connection.read_many(len(large) + 1) == ["OK"] * (len(large) + 1)
        for start in range(0, KEYS, 10_000):
            words = [word for number in range(start, start + 10_000) for word in (f"filler:{number}", "")]
            assert connection.request("MSET", *words) == "OK"
    return large


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
            for client in silent:
                client.close()
            slowdown = beside.p99() / alone.p99()
            bad = growth > OVER_BUDGET * chosen.budget_mib or slowdown > SLOWDOWN or beside.refused is not None
            missed += bad
            print(
                f"{name}: routers + {growth:.0f} MiB of {chosen.budget_mib}; p99 {alone.p99() * 1000:.2f} ms alone, "
                f"{beside.p99() * 1000:.2f} ms beside ({slowdown:.1f} times), worst {max(beside.waits, default=0.0) * 1000:.0f} ms"
                + (f"; refused: {beside.refused}" if beside.refused is not None else "")
                + ("  MISSED" if bad else ""),
                flush=True,
            )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
