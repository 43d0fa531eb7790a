#!/usr/bin/env python3
"""Kills processes of a cluster under load and checks what its clients see. `python tests/soak/kills.py --seconds 60`

Every client sends pipelines in which each command tells its place (an ECHO of a running number between SETs and
GETs of keys of its own). A reply that is missing, doubled or out of place is found at the next ECHO. What a
client may see instead of its reply is an error that says so (CLUSTERDOWN, UNCERTAIN, TIMEOUT, TRYAGAIN), or the end
of its connection; then it connects again.

Prints one line per kill (who, and after how long it served again) and a summary; ends with status 1 when a rule was
broken or the load was not reached.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import psutil

from kache._wire import ReplyTooShort, decode_reply
from kache.errors import CommandError

ALLOWED = {"CLUSTERDOWN", "UNCERTAIN", "TIMEOUT", "TRYAGAIN", "LOADING"}
RECOVERY_SECONDS = {"shard": 1.0, "router": 2.0}


def request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Worker(threading.Thread):
    """One client with its own keys, so that it knows what every GET must answer."""

    def __init__(self, port: int, number: int, depth: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.number, self.depth, self.stop = port, number, depth, stop
        self.rng = random.Random(number)
        self.answered = self.errors = self.closed = self.reconnect_failures = 0
        self.broken: list[str] = []
        # What each key may hold: several values after a write whose outcome is not known; None: missing.
        self.possible: dict[bytes, set[bytes | None]] = {}
        self.token = 0

    def run(self) -> None:
        while not self.stop.is_set() and not self.broken:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
                    connection.settimeout(30)
                    while not self.stop.is_set() and not self.broken:
                        self.pipeline(connection)
            except ConnectionRefusedError:
                self.reconnect_failures += 1
                time.sleep(0.01)
            except TimeoutError:
                self.broken.append("a reply did not come within 30 s")
            except OSError:
                self.closed += 1

    def plan(self) -> list[tuple[str, bytes, bytes]]:
        commands = []
        for _ in range(self.depth):
            kind = self.rng.choice(("set", "get", "echo"))
            self.token += 1
            key = b"w%d:%d" % (self.number, self.rng.randrange(200))
            commands.append((kind, key, b"%d" % self.token))
        return commands

    def pipeline(self, connection: socket.socket) -> None:
        commands = self.plan()
        before = {key: set(self.possible.get(key, {None})) for _, key, _ in commands}
        wire = {
            "set": lambda key, token: request(b"SET", key, token),
            "get": lambda key, token: request(b"GET", key),
            "echo": lambda key, token: request(b"ECHO", token),
        }
        try:
            connection.sendall(b"".join(wire[kind](key, token) for kind, key, token in commands))
            for command, reply in zip(commands, self.replies(connection, len(commands)), strict=True):
                self.check(command, reply)
        except OSError:
            # Unanswered writes may or may not have happened, and so may losses by a kill of their shard.
            for kind, key, token in commands:
                self.possible.setdefault(key, set()).update(before[key] | {None})
                if kind == "set":
                    self.possible[key].add(token)
            raise

    def replies(self, connection: socket.socket, count: int):  # type: ignore[no-untyped-def]
        buffer = bytearray()
        at = 0
        while count:
            try:
                value, at = decode_reply(bytes(buffer), at) if len(buffer) < 4096 else decode_reply(buffer, at)
            except ReplyTooShort:
                del buffer[:at]
                at = 0
                data = connection.recv(1 << 18)
                if not data:
                    raise ConnectionError("closed") from None
                buffer += data
                continue
            count -= 1
            yield value
        if at != len(buffer):
            self.broken.append(f"{len(buffer) - at} bytes too many")

    def check(self, command: tuple[str, bytes, bytes], reply: object) -> None:
        kind, key, token = command
        self.answered += 1
        if isinstance(reply, CommandError):
            self.errors += 1
            if reply.code not in ALLOWED:
                self.broken.append(f"{kind} was answered {reply.message!r}")
            if kind == "set" and reply.code in ("UNCERTAIN", "TIMEOUT"):
                self.possible.setdefault(key, {None}).add(token)
            # Its shard died: without a log its keys are gone.
            self.possible.setdefault(key, set()).add(None)
            return
        if kind == "echo" and reply != token:
            self.broken.append(f"ECHO {token!r} was answered {reply!r}")
        elif kind == "set":
            if reply != "OK":
                self.broken.append(f"SET was answered {reply!r}")
            self.possible[key] = {token}
        elif kind == "get" and reply is not None:
            if reply not in self.possible.get(key, {None}):
                self.broken.append(f"GET {key!r} was answered {reply!r}, not one of {self.possible.get(key)}")
            else:
                self.possible[key] = {reply}  # type: ignore[arg-type]


def ask(port: int, *words: bytes, timeout: float = 5.0) -> object:
    """One command on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(request(*words))
        data = b""
        while True:
            part = connection.recv(65536)
            if not part:
                raise ConnectionError("closed")
            data += part
            try:
                return decode_reply(data)[0]
            except ReplyTooShort:
                continue


def children(supervisor: psutil.Process) -> list[psutil.Process]:
    return [child for child in supervisor.children() if child.is_running()]


def serving(port: int, shards: int) -> bool:
    """Whether every shard answers."""
    try:
        rows = ask(port, b"STATS")
    except OSError:
        return False
    return isinstance(rows, list) and len(rows) == shards and all(b"pid" in row for row in rows)


def kill_one(supervisor: psutil.Process, port: int, shards: int, rng: random.Random) -> tuple[str, float]:
    victim = rng.choice(children(supervisor))
    title = " ".join(victim.cmdline())
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait(10)
    while not serving(port, shards):
        if time.monotonic() - began > 20:
            raise SystemExit(f"{title}: not serving again within 20 s")
        time.sleep(0.005)
    return title, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between kills")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--depth", type=int, default=1000, help="commands in a pipeline")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        command = [sys.executable, "-m", "kache", "cluster", "start", "--shards", str(args.shards), "--port", str(port)]
        process = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not serving(port, args.shards):
                time.sleep(0.01)
            stop = threading.Event()
            workers = [Worker(port, number, args.depth, stop) for number in range(args.clients)]
            for worker in workers:
                worker.start()
            supervisor = psutil.Process(process.pid)
            end = time.monotonic() + args.seconds
            while time.monotonic() < end and not any(worker.broken for worker in workers):
                time.sleep(args.every)
                title, took = kill_one(supervisor, port, args.shards, rng)
                role = "router" if "router" in title else "shard"
                print(f"{title}: serving again after {took:.3f} s", flush=True)
                if took > RECOVERY_SECONDS[role]:
                    failures.append(f"{title} took {took:.2f} s")
            stop.set()
            for worker in workers:
                worker.join(60)
        finally:
            process.terminate()
            process.wait(20)
    for worker in workers:
        failures += [f"client {worker.number}: {text}" for text in worker.broken[:3]]
    answered = sum(worker.answered for worker in workers)
    if answered < 1000 * args.seconds:
        failures.append(f"only {answered} commands were answered: the load was not reached")
    print(
        f"{answered} commands answered, {sum(worker.errors for worker in workers)} of them with an error, "
        f"{sum(worker.closed for worker in workers)} connections closed, "
        f"{sum(worker.reconnect_failures for worker in workers)} connects refused"
    )
    for failure in failures[:20]:
        print("FAILED:", failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
