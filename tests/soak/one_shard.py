"""Every key on one shard: what clients of the others wait meanwhile, at a fixed load.

    python tests/soak/one_shard.py [--seconds 5] [--rounds 3]

A flood of SETs and GETs, first of keys on all shards, then as many connections' flood of keys that a hash tag puts on one;
beside it GETs of keys on the other shards at a fixed rate. Ends with 1 when these wait longer than beside the even flood: in
99 of 100 cases more than 1.5 times as long.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, encode

SLOWDOWN = 1.5
EVERY_SECONDS = 0.002
FLOODS = 2
PIPELINE = 500


class Flood(threading.Thread):
    """Pipelines over one connection until the end; each of its keys is read and written."""

    def __init__(self, cluster: Cluster, keys: list[str], stop: threading.Event) -> None:
        super().__init__()
        self.connection = cluster.connect()
        words = [((("SET", key, "x" * 100)), ("GET", key)) for key in keys]
        self.data = b"".join(encode(command) for pair in words for command in pair)
        self.answer = b"+OK\r\n$100\r\n" + b"x" * 100 + b"\r\n"
        self.stop = stop
        self.keys = len(keys)
        self.done = 0

    def run(self) -> None:
        sock = self.connection.socket
        size = self.keys * len(self.answer)
        into = bytearray(size)
        while not self.stop.is_set():
            sock.sendall(self.data)
            got = 0
            while got < size:
                n = sock.recv_into(memoryview(into)[got:])
                assert n, "closed in the middle"
                got += n
            assert into == self.answer * self.keys
            self.done += 2 * self.keys
        self.connection.close()


def beside(cluster: Cluster, flooded: list[str], asked: list[str], seconds: float) -> tuple[float, float]:
    """The p99 of GETs of `asked` in milliseconds, counted from when each was due; and commands of the flood a second."""
    stop = threading.Event()
    floods = [Flood(cluster, flooded, stop) for _ in range(FLOODS)]
    for flood in floods:
        flood.start()
    waits = []
    began = time.perf_counter()
    with cluster.connect() as connection:
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            assert connection.request("GET", asked[len(waits) % len(asked)]) == b"mine"
            waits.append((time.perf_counter() - due) * 1000)
            due += EVERY_SECONDS
    stop.set()
    for flood in floods:
        flood.join()
    rate = sum(flood.done for flood in floods) / (time.perf_counter() - began)
    return sorted(waits)[int(len(waits) * 0.99)], rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    ratios = []
    with Cluster(4) as cluster:
        by_shard = cluster.keys_by_shard(PIPELINE)
        even = [f"even:{number}" for number in range(PIPELINE)]
        tag = by_shard[0][0]
        skewed = [f"{{{tag}}}{number}" for number in range(PIPELINE)]
        others = [key for keys in by_shard[1:] for key in keys[:50]]
        with cluster.connect() as connection:
            connection.send(*[("SET", key, "mine") for key in others])
            assert set(connection.read_many(len(others))) == {"OK"}
        for _ in range(chosen.rounds):
            before, much = beside(cluster, even, others, chosen.seconds)
            after, done = beside(cluster, skewed, others, chosen.seconds)
            ratios.append(after / before)
            print(
                f"others' p99 {before:.2f} ms beside {much:,.0f} commands a second on all shards, "
                f"{after:.2f} ms beside {done:,.0f} on one: {ratios[-1]:.2f} times",
                flush=True,
            )
    worst = statistics.median(ratios)
    print(f"median {worst:.2f} times (bar {SLOWDOWN})")
    return int(worst > SLOWDOWN)


if __name__ == "__main__":
    sys.exit(main())
