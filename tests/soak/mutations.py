"""Broken requests in both protocols, cut into random pieces, at several routers: no traceback, no hang, nobody else harmed.

    python tests/soak/mutations.py [--seconds 600] [--seed 1] [--routers 3] [--shards 4]

Each client has a database of its own, and sends every mutated pipeline twice: at once, and in pieces. Both must be answered
alike, up to the close that follows an error. Beside them somebody writes and reads in peace. Prints its figures and ends with
1 for a different answer, a hang, a traceback or a process that was lost.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from broken_requests import WORDS, cuts, mutate, pipeline
from cluster import Cluster, encode
from frames import request

HANGS_AFTER = 20.0
CLIENTS = 6
AMONG = tuple(word for word in WORDS if word != b"SELECT")
"""Each client stays in its database."""


class Client(threading.Thread):
    """Sends what is broken, twice, and compares."""

    def __init__(self, cluster: Cluster, number: int, seed: int, until: float) -> None:
        super().__init__()
        self.cluster = cluster
        self.database = number + 1
        self.dice = random.Random(f"{seed}:{number}")
        self.until = until
        self.compared = 0
        self.wrong = ""

    def run(self) -> None:
        while time.monotonic() < self.until and not self.wrong:
            binary = self.dice.random() < 0.5
            data = mutate(self.dice, pipeline(self.dice, speak_binary=binary, among=AMONG))
            try:
                whole = self.answers(data, [], binary)
                pieces = self.answers(data, cuts(self.dice, len(data)), binary)
            except TimeoutError:
                self.wrong = f"a hang: {data!r}"
                return
            if whole != pieces:
                self.wrong = f"{data!r}: {whole!r} at once, {pieces!r} in pieces"
            self.compared += 1

    def answers(self, data: bytes, sizes: list[int], binary: bool) -> bytes:
        """What comes back for `data` until the router closes, with nothing stored before."""
        words = (("select", self.database), ("flushdb",))
        prefix = b"".join(request(*(str(one).encode() for one in each)) if binary else encode(each) for each in words)
        data = prefix + data
        received = b""
        with socket.create_connection(("127.0.0.1", self.cluster.port), HANGS_AFTER) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            at = 0
            try:
                for size in [len(prefix), *sizes, len(data)]:
                    sock.sendall(data[at : at + size])
                    at += size
                sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # closed behind an error, which was sent before
            try:
                while part := sock.recv(65536):
                    received += part
            except ConnectionResetError:
                pass
        return received


class Bystander(threading.Thread):
    """Writes and reads its own key all the while."""

    def __init__(self, cluster: Cluster, until: float) -> None:
        super().__init__()
        self.cluster = cluster
        self.until = until
        self.wrong = ""

    def run(self) -> None:
        with self.cluster.connect() as connection:
            number = 0
            while time.monotonic() < self.until and not self.wrong:
                number += 1
                connection.send(("SET", "mine", number), ("GET", "mine"))
                found = connection.read_many(2)
                if found != ["OK", b"%d" % number]:
                    self.wrong = f"somebody who sends nothing wrong was answered {found}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--routers", type=int, default=3)
    parser.add_argument("--shards", type=int, default=4)
    chosen = parser.parse_args()
    with Cluster(chosen.shards, routers=chosen.routers) as cluster:
        before = [child["pid"] for child in cluster.status()["children"]]
        until = time.monotonic() + chosen.seconds
        clients = [Client(cluster, number, chosen.seed, until) for number in range(CLIENTS)]
        workers = [*clients, Bystander(cluster, until)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        wrong = [worker.wrong for worker in workers if worker.wrong]
        if before != [child["pid"] for child in cluster.status()["children"]]:
            wrong.append("a process was lost")
        if "Traceback" in cluster.log():
            wrong.append("a traceback: " + cluster.log().partition("Traceback")[2][:1500])
    compared = sum(client.compared for client in clients)
    print(f"{compared} broken pipelines, each whole and in pieces, at {chosen.routers} routers: {len(wrong)} wrong")
    for line in wrong:
        print(f"BROKEN: {line:.2000}", file=sys.stderr)
    if compared < chosen.seconds:
        print("BROKEN: that was no load", file=sys.stderr)
    return int(bool(wrong) or compared < chosen.seconds)


if __name__ == "__main__":
    sys.exit(main())
