#!/usr/bin/env python3
"""Two routers, 1,000 subscribers on each, numbered messages on channels of all shards, while shards and routers are killed.

`python tests/soak/pubsub.py [--seconds 60] [--subscribers 2000] [--seed 1]`

Every channel's publisher counts. A subscriber must see its channel's numbers rising; a number that is missing must lie in
a moment in which a shard or its own router was away (the publisher was told, or the connection ended: it subscribes anew).
One subscriber never reads: it must be closed at its limit. Exit status 1 for a number out of order, twice, or missing
without a reason.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, encode

from kache.errors import CommandError

SHARDS, ROUTERS, CHANNELS = 4, 2, 40


class Publisher(threading.Thread):
    """Publishes rising numbers on some channels, and remembers around which of them something was away."""

    def __init__(self, port: int, channels: list[str], stop: threading.Event) -> None:
        super().__init__()
        self.port, self.channels, self.stop = port, channels, stop
        self.sent = dict.fromkeys(channels, 0)
        self.unsure: dict[str, set[int]] = {channel: set() for channel in channels}
        self.failures = 0

    def run(self) -> None:
        connection: Connection | None = None
        while not self.stop.is_set():
            for channel in self.channels:
                number = self.sent[channel] = self.sent[channel] + 1
                try:
                    if connection is None:
                        connection = Connection(self.port)
                    reply = connection.request("PUBLISH", channel, f"{number}")
                    if isinstance(reply, CommandError):
                        self.failures += 1
                        self.unsure[channel].add(number)
                except OSError:
                    self.failures += 1
                    self.unsure[channel].add(number)
                    connection = None
            time.sleep(0.002)


class Subscribers:
    """Many subscribers in one epoll loop, each of one channel."""

    def __init__(self, port: int, channels: list[str], count: int) -> None:
        self.port = port
        self.poll = select.epoll()
        self.by_fd: dict[int, Subscriber] = {}
        self.wrong: list[str] = []
        self.received = 0
        self.again = 0
        self.all = [Subscriber(self, channels[number % len(channels)]) for number in range(count)]

    def take(self, wait: float) -> None:
        for fd, _ in self.poll.poll(wait):
            self.by_fd[fd].take()
        now = time.monotonic()
        for each in self.all:
            if each.socket is None and now >= each.next_try:
                each.open()


class Subscriber:
    def __init__(self, home: Subscribers, channel: str) -> None:
        self.home, self.channel = home, channel
        self.socket: socket.socket | None = None
        self.data = b""
        self.last = 0
        self.missing: list[tuple[int, int, float]] = []
        self.next_try = 0.0
        self.open()

    def open(self) -> None:
        try:
            made = socket.create_connection(("127.0.0.1", self.home.port), 5)
        except OSError:
            self.next_try = time.monotonic() + 0.1
            return
        made.sendall(encode(("SUBSCRIBE", self.channel)))
        made.setblocking(False)
        self.socket, self.data, self.last = made, b"", 0
        self.home.by_fd[made.fileno()] = self
        self.home.poll.register(made.fileno(), select.EPOLLIN)

    def close(self) -> None:
        if self.socket is not None:
            self.home.by_fd.pop(self.socket.fileno(), None)
            with contextlib.suppress(OSError):
                self.home.poll.unregister(self.socket.fileno())
            self.socket.close()
            self.socket = None
            self.home.again += 1
            self.next_try = time.monotonic() + 0.05

    def take(self) -> None:
        assert self.socket is not None
        try:
            more = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            self.close()
            return
        self.data += more
        head = b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$" % (len(self.channel), self.channel.encode())
        while True:
            at = self.data.find(head)
            if at < 0:
                return
            end = self.data.find(b"\r\n", at + len(head))
            if end < 0:
                return
            size = int(self.data[at + len(head) : end])
            if len(self.data) < end + 4 + size:
                return
            self.note(int(self.data[end + 2 : end + 2 + size]))
            self.data = self.data[end + 4 + size :]

    def note(self, number: int) -> None:
        self.home.received += 1
        if self.last and number <= self.last:
            self.home.wrong.append(f"{self.channel}: {number} behind {self.last}")
        if self.last and number > self.last + 1:
            self.missing.append((self.last + 1, number, time.monotonic()))
        self.last = number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--subscribers", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    channels = [f"soak:{number}" for number in range(CHANNELS)]
    stop = threading.Event()
    kills: list[float] = []
    with Cluster(SHARDS, routers=ROUTERS, client_output_buffer_limit="pubsub 1mb 0 0") as cluster:
        home = Subscribers(cluster.port, channels, options.subscribers)
        silent = Connection(cluster.port)
        silent.request("PSUBSCRIBE", "soak:*")
        publishers = [Publisher(cluster.port, channels[at::4], stop) for at in range(4)]
        for each in publishers:
            each.start()
        end, next_kill = time.monotonic() + options.seconds, time.monotonic() + 3
        while time.monotonic() < end:
            home.take(0.05)
            if time.monotonic() >= next_kill and time.monotonic() < end - 3:
                role, count = draw.choice([("shard", SHARDS), ("shard", SHARDS), ("router", ROUTERS)])
                with contextlib.suppress(Exception):
                    cluster.kill(cluster.pid_of(role, draw.randrange(count)), signal.SIGKILL)
                kills.append(time.monotonic())
                next_kill = time.monotonic() + 3
        stop.set()
        for each in publishers:
            each.join()
        silence = time.monotonic() + 1
        while time.monotonic() < silence:
            home.take(0.05)
        unread = 0
        with contextlib.suppress(OSError):
            silent.socket.settimeout(2)
            while data := silent.socket.recv(1 << 20):
                unread += len(data)
        # A number may be missing where its publisher was not told that it is there, or around a kill.
        unsure = {channel: numbers for each in publishers for channel, numbers in each.unsure.items()}
        for each in home.all:
            for first, behind, when in each.missing:
                lost = set(range(first, behind)) - unsure[each.channel]
                if lost and not any(-0.5 <= when - kill <= 5 for kill in kills):
                    home.wrong.append(f"{each.channel}: {sorted(lost)[:5]} missing without a reason")
        again = home.again
        for each in home.all:
            each.close()
        silent.close()
    sent = sum(number for each in publishers for number in each.sent.values())
    print(f"{sent:,} published, {home.received:,} received by {options.subscribers:,}, {len(kills)} kills, "
          f"{sum(each.failures for each in publishers)} refused, {again} connections made again, "
          f"{len(home.wrong)} wrong; the silent one had {unread:,} bytes when it was closed")  # fmt: skip
    for each in home.wrong[:10]:
        print(each)
    return 1 if home.wrong or not home.received else 0


if __name__ == "__main__":
    raise SystemExit(main())
