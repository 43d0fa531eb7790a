#!/usr/bin/env python3
"""Load over both protocols while routers and shards are killed: `python tests/soak/kills.py --seconds 600`.

Every reply is checked against what its client has done before. A client owns its keys, so a GET answers the last value that
was acknowledged, one whose outcome was left open, or nothing if the key's shard has died since. Pipelines carry numbers of
their own (ECHO), so that a reply in the wrong place is seen. Elements that move between lists on different shards come out
once; twice only if the mover was told that the outcome is not known.

Prints its figures; exit status 1 when one of them breaks its bar: wrong replies 0, tracebacks 0, growth of the supervisor's
resident memory below 4 MiB and of its descriptors 0, of the cluster's PSS below 32 MiB between a fifth of the time and its end.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from cluster import Cluster, Connection

from kache import Client
from kache.client import ClientError
from kache.errors import CommandError

MIB = 1024 * 1024
NOT_EXECUTED = {"CLUSTERDOWN", "TRYAGAIN", "LOADING", "OOM"}
OPEN = {"UNCERTAIN", "TIMEOUT"}


class Findings:
    """What all workers count."""

    def __init__(self) -> None:
        self.replies = 0
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lost_connections = 0
        self._lock = threading.Lock()

    def add(self, replies: int) -> None:
        with self._lock:
            self.replies += replies

    def error(self, code: str) -> None:
        with self._lock:
            self.errors[code] += 1

    def complain(self, text: str) -> None:
        with self._lock:
            self.wrong.append(text)


class Key:
    """What a key may hold: the values that the last writes may have left, as of so many kills."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.possible: set[bytes | None] = {None}
        self.kills = 0

    def written(self, value: bytes | None, outcome: object, kills: int) -> None:
        """A write of `value` (None: a deletion) was answered with `outcome`; None for a lost connection.

        `kills`: how many there had been before it was sent.
        """
        if isinstance(outcome, CommandError):
            if outcome.code not in NOT_EXECUTED:
                self.possible.add(value)
        elif outcome is None:
            self.possible.add(value)
        else:
            self.possible = {value}
            self.kills = kills

    def allows(self, value: object, kills: int) -> bool:
        """Whether a read may see `value`. Nothing, if the key's shard may have been killed since it was last known."""
        return value in self.possible or (value is None and kills != self.kills)

    def seen(self, value: bytes | None, kills: int) -> None:
        """A read has seen it."""
        self.possible = {value}
        self.kills = kills


class Worker(threading.Thread):
    """One client; `round` is one exchange, repeated until the end."""

    def __init__(self, soak: Soak, number: int) -> None:
        super().__init__(daemon=True)
        self.soak = soak
        self.number = number
        self.draw = random.Random(soak.seed * 1000 + number)
        self.serial = 0

    def run(self) -> None:
        while not self.soak.over.is_set():
            try:
                self.exchange()
            except (OSError, ConnectionError):
                self.soak.findings.lost_connections += 1
                self.lost()
            except Exception as error:
                self.soak.findings.complain(f"worker {self.number}: {type(error).__name__}: {error}")
                return

    def exchange(self) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone; what it had sent may have been executed."""

    def fresh(self) -> bytes:
        self.serial += 1
        return b"%d:%d" % (self.number, self.serial)


class Pipelines(Worker):
    """RESP: pipelines of writes and reads with numbers between them."""

    def __init__(self, soak: Soak, number: int) -> None:
        super().__init__(soak, number)
        self.keys = [Key(b"w%d:%d" % (number, each)) for each in range(40)]
        self.connection: Connection | None = None
        self.sent: list[tuple[str, Key, bytes | None]] = []

    def exchange(self) -> None:
        if self.connection is None:
            self.connection = Connection(self.soak.cluster.port)
        kills = self.soak.kills
        commands: list[tuple[object, ...]] = []
        self.sent = []
        for _ in range(self.draw.choice((1, 5, 40))):
            key = self.draw.choice(self.keys)
            kind = self.draw.choice(("set", "set", "get", "get", "get", "del", "echo"))
            value = self.fresh() if kind in ("set", "echo") else None
            self.sent.append((kind, key, value))
            commands.append(
                {
                    "set": (b"SET", key.name, value),
                    "get": (b"GET", key.name),
                    "del": (b"DEL", key.name),
                    "echo": (b"ECHO", value),
                }[kind]
            )
        self.connection.send(*commands)
        for kind, key, value in list(self.sent):
            reply = self.connection.read()
            self.sent.pop(0)
            self.check(kind, key, value, reply, kills)
        self.soak.findings.add(len(commands))

    def check(self, kind: str, key: Key, value: bytes | None, reply: object, kills: int) -> None:
        if isinstance(reply, CommandError):
            self.soak.findings.error(reply.code)
            if reply.code not in NOT_EXECUTED | OPEN or kind == "echo":
                self.soak.findings.complain(f"{kind} {key.name!r}: {reply.message}")
        if kind == "echo":
            if reply != value:
                self.soak.findings.complain(f"ECHO {value!r} was answered {reply!r}")
        elif kind == "get":
            if not isinstance(reply, CommandError):
                if not key.allows(reply, self.soak.kills):
                    self.soak.findings.complain(f"GET {key.name!r}: {reply!r}, possible {key.possible}")
                key.seen(reply if isinstance(reply, bytes) else None, kills)
        else:
            key.written(value, reply, kills)

    def lost(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        for kind, key, value in self.sent:
            if kind in ("set", "del"):
                key.written(value, None, 0)
        self.sent = []
        time.sleep(0.02)


class Binary(Worker):
    """Kache's own client over the binary protocol."""

    def __init__(self, soak: Soak, number: int) -> None:
        super().__init__(soak, number)
        self.keys = [Key(b"b%d:%d" % (number, each)) for each in range(40)]
        self.client = Client(port=soak.cluster.port, timeout=15)

    def exchange(self) -> None:
        kills = self.soak.kills
        key = self.draw.choice(self.keys)
        value = self.fresh()
        try:
            if self.draw.random() < 0.5:
                self.client.set(key.name, value)
                key.written(value, "OK", kills)
            else:
                found = self.client.get(key.name)
                if not key.allows(found, self.soak.kills):
                    self.soak.findings.complain(f"GET {key.name!r}: {found!r}, possible {key.possible}")
                key.seen(found, kills)
        except CommandError as error:
            self.soak.findings.error(error.code)
            key.written(value, error, kills)
        except ClientError:
            self.soak.findings.lost_connections += 1
            key.written(value, None, kills)
            time.sleep(0.02)
        self.soak.findings.add(1)


class Mover(Worker):
    """Elements on their way from one list over another, each on a shard of its own."""

    def __init__(self, soak: Soak, number: int) -> None:
        super().__init__(soak, number)
        self.here, self.there = self._apart()
        self.open: set[bytes] = set()
        self.out: set[bytes] = set()
        self.pending: set[bytes] = set()
        self.last = b""
        self.connection: Connection | None = None

    def _apart(self) -> tuple[bytes, bytes]:
        from kache.slots import slot_of_key

        first = b"m%d:0" % self.number
        quarter = slot_of_key(first) * 4 >> 14
        return first, next(
            name
            for name in (b"m%d:%d" % (self.number, each) for each in range(1, 99))
            if slot_of_key(name) * 4 >> 14 != quarter
        )

    def exchange(self) -> None:
        if self.connection is None:
            self.connection = Connection(self.soak.cluster.port)
        element = self.fresh()
        self.pending.add(element)
        self.ask(b"RPUSH", self.here, element)
        moved = self.ask(b"LMOVE", self.here, self.there, b"LEFT", b"RIGHT")
        if isinstance(moved, CommandError) and moved.code in OPEN:
            self.open_all()
        popped = self.ask(b"LPOP", self.there)
        if isinstance(popped, bytes):
            if popped in self.out and popped not in self.open:
                self.soak.findings.complain(f"{popped!r} came out twice")
            self.out.add(popped)
            self.pending.discard(popped)
            self.last = popped
        self.soak.findings.add(3)

    def ask(self, *words: bytes) -> object:
        assert self.connection is not None
        reply = self.connection.request(*words)
        if isinstance(reply, CommandError):
            self.soak.findings.error(reply.code)
        return reply

    def open_all(self) -> None:
        """It is not known which element the last move took: any that has not come out, or did just now."""
        self.open |= self.pending | {self.last}

    def lost(self) -> None:
        self.open_all()
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        time.sleep(0.02)


class Soak:
    """One run: a cluster, its load, and whoever kills its processes."""

    def __init__(self, seconds: float, seed: int, shards: int, routers: int) -> None:
        self.seconds = seconds
        self.seed = seed
        self.shards = shards
        self.routers = routers
        self.findings = Findings()
        self.kills = 0
        self.over = threading.Event()
        self.draw = random.Random(seed)

    def run(self) -> list[str]:
        """Figures, and what broke a bar."""
        with Cluster(self.shards, routers=self.routers) as cluster:
            self.cluster = cluster
            workers = [Pipelines(self, number) for number in range(4)]
            workers += [Binary(self, number) for number in range(4, 6)]
            workers += [Mover(self, number) for number in range(6, 8)]
            for worker in workers:
                worker.start()
            early, late = self.load()
            self.over.set()
            for worker in workers:
                worker.join(60)
            log = cluster.log()
        return list(self.verdict(early, late, log))

    def load(self) -> tuple[dict[str, int], dict[str, int]]:
        began, early = time.monotonic(), None
        while (passed := time.monotonic() - began) < self.seconds:
            time.sleep(self.draw.uniform(0.5, 2.0))
            role = self.draw.choice(("shard", "shard", "router"))
            pid = self.cluster.pid_of(role, self.draw.randrange(self.shards if role == "shard" else self.routers))
            # Counted on both sides: whatever was written before the second count may be gone by then.
            self.kills += 1
            self.cluster.kill(pid)
            self.kills += 1
            if early is None and passed > self.seconds / 5:
                early = self.measure()
        return early or self.measure(), self.measure()

    def measure(self) -> dict[str, int]:
        supervisor = psutil.Process(self.cluster.process.pid)
        family = [supervisor, *supervisor.children()]
        pss = 0
        for process in family:
            try:
                pss += process.memory_full_info().pss
            except psutil.Error:
                continue
        return {"pss": pss, "supervisor": supervisor.memory_info().rss, "descriptors": supervisor.num_fds()}

    def verdict(self, early: dict[str, int], late: dict[str, int], log: str) -> Iterator[str]:
        found = self.findings
        print(f"replies checked   {found.replies}")
        print(f"kills             {self.kills // 2}")
        print(f"lost connections  {found.lost_connections}")
        print(f"errors            {dict(found.errors)}")
        print(f"wrong             {len(found.wrong)}")
        print(f"tracebacks        {log.count('Traceback')}")
        for name in early:
            print(f"{name:17} {early[name]} -> {late[name]}")
        yield from found.wrong[:10]
        if found.replies < 100 * self.seconds:
            yield f"only {found.replies} replies in {self.seconds} s: that was no load"
        if "Traceback" in log:
            yield "a traceback: " + log[log.index("Traceback") :][:1500]
        if late["supervisor"] - early["supervisor"] > 4 * MIB:
            yield "the supervisor grows"
        if late["descriptors"] > early["descriptors"] + 2:
            yield "the supervisor leaks descriptors"
        if late["pss"] - early["pss"] > 32 * MIB:
            yield "the cluster grows"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--routers", type=int, default=3)
    args = parser.parse_args()
    broken = Soak(args.seconds, args.seed, args.shards, args.routers).run()
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
