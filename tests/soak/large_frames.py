"""SET and GET of 256 MiB, in both protocols: what others' PING waits meanwhile, and by how much the router grows.

    python tests/soak/large_frames.py [mebibytes] [rounds]

Prints a line a command and ends with 1 when a bar is missed: PING's p99.9 under 20 ms, growth under 16 MiB. A request of the
binary protocol has at most 143 MiB; so much is set there.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection
from frames import NIL, response

MIB = 1 << 20
LARGEST_BINARY = 143 * MIB - 64
SLOWEST_PING = 0.020
GROWTH_KIB = 16 * 1024


class Bystander:
    """PING as often as it is answered, and the router's resident memory beside it."""

    def __init__(self, cluster: Cluster) -> None:
        self.connection = cluster.connect()
        self.router = cluster.pid_of("router")
        self.stopped = threading.Event()
        self.waits: list[float] = []
        self.growth = 0
        self.threads = [threading.Thread(target=self.ping), threading.Thread(target=self.watch)]

    def ping(self) -> None:
        while not self.stopped.wait(0.0005):
            start = time.perf_counter()
            assert self.connection.request("PING") == "PONG"
            self.waits.append(time.perf_counter() - start)

    def watch(self) -> None:
        before = self.resident()
        while not self.stopped.wait(0.002):
            self.growth = max(self.growth, self.resident() - before)

    def resident(self) -> int:
        lines = Path(f"/proc/{self.router}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def __enter__(self) -> Bystander:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        self.connection.close()

    def p999(self) -> float:
        waits = sorted(self.waits)
        assert len(waits) > 100, "the load was too short to say anything"
        return waits[min(len(waits) - 1, int(len(waits) * 0.999))]


def put(connection: Connection, size: int) -> None:
    connection.socket.sendall(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % size)
    piece = bytes(MIB)
    for _ in range(size // MIB):
        connection.socket.sendall(piece)
    connection.socket.sendall(b"\r\n")
    assert connection.read() == "OK"


def fetch(connection: Connection, size: int) -> None:
    connection.send(("GET", "big"))
    left = len(b"$%d\r\n" % size) + size + 2
    into = bytearray(MIB)
    while left:
        n = connection.socket.recv_into(into, min(left, MIB), socket.MSG_WAITALL)
        assert n, "closed in the middle"
        left -= n


def put_binary(connection: Connection, size: int) -> None:
    size = min(size, LARGEST_BINARY)
    head = struct.pack("<III3sI3sI", 4 + 7 + 7 + 4 + size, 3, 3, b"set", 3, b"big", size)
    connection.socket.sendall(head)
    piece = bytes(MIB)
    while size:
        size -= connection.socket.send(piece[:size])
    assert connection.socket.recv(9, socket.MSG_WAITALL) == response(NIL)


def fetch_binary(connection: Connection, size: int) -> None:
    size = min(size, LARGEST_BINARY)
    connection.socket.sendall(struct.pack("<III3sI3s", 4 + 7 + 7, 2, 3, b"get", 3, b"big"))
    into = bytearray(MIB)
    left = 4 + 4 + 1 + 4 + size
    while left:
        n = connection.socket.recv_into(into, min(left, MIB), socket.MSG_WAITALL)
        assert n, "closed in the middle"
        left -= n


COMMANDS = (("SET", put), ("GET", fetch), ("binary set", put_binary), ("binary get", fetch_binary))


def main(mebibytes: int = 256, rounds: int = 5) -> int:
    """Whether a bar was missed."""
    missed = 0
    environment = {"KACHE_MAX_FRAME_BYTES": str(143 * MIB)}
    with Cluster(2, environment=environment) as cluster:
        connections = [cluster.connect() for _ in COMMANDS]
        # A connection speaks one protocol.
        for connection, (_, act) in zip(connections, COMMANDS, strict=True):
            act(connection, MIB)
        for _ in range(rounds):
            for connection, (name, act) in zip(connections, COMMANDS, strict=True):
                start = time.perf_counter()
                with Bystander(cluster) as other:
                    act(connection, mebibytes * MIB)
                wait, growth = other.p999(), other.growth
                late = wait > SLOWEST_PING or growth > GROWTH_KIB
                missed += late
                print(
                    f"{name} {min(mebibytes, 143) if 'binary' in name else mebibytes} MiB in {time.perf_counter() - start:.2f} s: {len(other.waits)} PINGs, p99.9 "
                    f"{wait * 1000:.1f} ms, worst {max(other.waits) * 1000:.1f} ms; router +{growth} KiB"
                    + ("  MISSED" if late else ""),
                    flush=True,
                )
        for connection in connections:
            connection.close()
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
