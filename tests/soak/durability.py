#!/usr/bin/env python3
"""What is acknowledged is kept, while everything is killed: `python tests/soak/durability.py --seconds 600 --policy everysec`.

Clients write unique values of every type and remember what was answered. Meanwhile dumps follow one another, shards are killed
at random, and now and then all processes at once; the cluster is started again on the same directory. At the end everything
is read: a process's death loses nothing that was acknowledged, under any policy, and nothing is there twice.

Prints a table; exit status 1 when a bar is broken: acknowledged and lost 0, there twice 0, there though refused 0, tracebacks
0, and at least a dump, a kill of a shard and one of everything for every 60 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until

from kache.errors import CommandError

NOT_EXECUTED = {"CLUSTERDOWN", "TRYAGAIN", "LOADING", "MISCONF", "OOM"}


class Writer(threading.Thread):
    """A client with keys of its own. Of every value it knows: acknowledged, refused, or open."""

    def __init__(self, number: int, soak: Soak) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.soak = soak
        self.draw = random.Random(number)
        self.outcome: dict[str, dict[str, str]] = {kind: {} for kind in ("list", "set", "zset", "hash", "string")}
        self.counted = Counter[str]()
        self.value = 0

    def key(self, kind: str, part: int) -> str:
        return f"{kind}:{self.number}:{part}"

    def run(self) -> None:
        while not self.soak.over.is_set():
            try:
                with self.soak.connect() as connection:
                    while not self.soak.over.is_set():
                        self.write(connection)
            except (OSError, ConnectionError):
                time.sleep(0.05)

    def write(self, connection: Connection) -> None:
        """One pipeline of values that were never sent before."""
        batch = []
        for _ in range(self.draw.choice((1, 10, 60))):
            self.value = value = self.value + 1
            kind = self.draw.choice(tuple(self.outcome))
            name = f"{value}:{self.draw.randbytes(self.draw.choice((0, 5, 200))).hex()}"
            key = self.key(kind, value % 5)
            words = {
                "list": ("rpush", key, name), "set": ("sadd", key, name), "zset": ("zadd", key, value, name),
                "hash": ("hset", key, name, value), "string": ("set", f"{key}:{value}", name),
            }  # fmt: skip
            batch.append((kind, f"{value % 5}/{name}", words[kind]))
            self.outcome[kind][f"{value % 5}/{name}"] = "open"
        connection.send(*(words for _, _, words in batch))
        for kind, name, _ in batch:
            reply = connection.read()
            if not isinstance(reply, CommandError):
                self.outcome[kind][name] = "acknowledged"
            elif reply.code in NOT_EXECUTED:
                self.outcome[kind][name] = "refused"
            self.counted[reply.code if isinstance(reply, CommandError) else "OK"] += 1

    def found(self, connection: Connection, kind: str) -> list[str]:
        """What is there now of a kind, as often as it is."""
        found = []
        for part in range(5):
            key = self.key(kind, part)
            if kind == "string":
                names = [name for name in self.outcome[kind] if name.startswith(f"{part}/")]
                for at in range(0, len(names), 500):
                    some = names[at : at + 500]
                    connection.send(*(("get", f"{key}:{name.split('/')[1].split(':')[0]}") for name in some))
                    found += [f"{part}/{each.decode()}" for each in connection.read_many(len(some)) if each is not None]
                continue
            words = {
                "list": ("lrange", key, 0, -1), "set": ("smembers", key), "zset": ("zrange", key, 0, -1),
                "hash": ("hkeys", key),
            }  # fmt: skip
            found += [f"{part}/{each.decode()}" for each in connection.request(*words[kind])]
        return found


class Soak:
    """The cluster, its clients and its killer."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.over = threading.Event()
        self.happened = Counter[str]()
        self.draw = random.Random(options.seed)
        self.logs = ""
        self.port = 0
        self.cluster = self.started()

    def started(self) -> Cluster:
        cluster = Cluster(
            self.options.shards, routers=1, port=self.port, dir=self.directory, appendonly="yes",
            appendfsync=self.options.policy,
        )  # fmt: skip
        until(lambda: self.try_to_start(cluster), "a start", 60)
        self.port = cluster.port
        return cluster

    def try_to_start(self, cluster: Cluster) -> bool:
        with contextlib.suppress(AssertionError):
            cluster.start()
            return True
        return False

    def connect(self) -> Connection:
        return Connection(self.port, 30)

    def dump(self) -> None:
        """A dump after the other."""
        while not self.over.is_set():
            with contextlib.suppress(OSError, ConnectionError), self.connect() as connection:
                while not self.over.is_set():
                    reply = connection.request("BGREWRITEAOF")
                    self.happened["dumps begun"] += not isinstance(reply, CommandError)
                    time.sleep(0.2)
            time.sleep(0.05)

    def kill_something(self) -> None:
        if self.draw.random() < 0.75:
            self.happened["shards killed"] += 1
            with contextlib.suppress(ProcessLookupError):
                self.cluster.kill(self.cluster.pid_of("shard", self.draw.randrange(self.options.shards)))
            return
        self.happened["everything killed"] += 1
        for pid in [self.cluster.process.pid, *(child["pid"] for child in self.cluster.status()["children"])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.cluster.process.wait()
        self.logs += self.cluster.log()
        self.cluster._clean()
        self.cluster = self.started()

    def run(self) -> list[Writer]:
        writers = [Writer(number, self) for number in range(self.options.clients)]
        dumper = threading.Thread(target=self.dump, daemon=True)
        for thread in [*writers, dumper]:
            thread.start()
        until_then = time.monotonic() + self.options.seconds
        while time.monotonic() < until_then:
            time.sleep(self.draw.uniform(1, 4))
            self.kill_something()
        self.over.set()
        for thread in [*writers, dumper]:
            thread.join(60)
        return writers

    def verdict(self, writers: list[Writer]) -> dict[str, int]:
        until(lambda: all(child["state"] == "up" for child in self.cluster.status()["children"]), "all up", 60)
        counts = Counter[str]()
        with self.connect() as connection:
            for writer in writers:
                for kind, outcomes in writer.outcome.items():
                    found = Counter(writer.found(connection, kind))
                    for name, outcome in outcomes.items():
                        counts[outcome] += 1
                        counts["acknowledged and lost"] += outcome == "acknowledged" and not found[name]
                        counts["there though refused"] += outcome == "refused" and found[name] > 0
                        counts["there twice"] += found[name] > 1
                    counts["never sent"] += len(set(found) - set(outcomes))
        counts["tracebacks"] = (self.logs + self.cluster.log()).count("Traceback")
        return dict(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--policy", choices=("always", "everysec", "no"), default="everysec")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kache-soak-") as directory:
        soak = Soak(options, Path(directory))
        try:
            writers = soak.run()
            counts = {**soak.happened, **soak.verdict(writers)}
        finally:
            soak.over.set()
            soak.cluster.__exit__(None)
    for name, count in counts.items():
        print(f"{name:<24} {count:>9,}")
    print("replies:", dict(sum((writer.counted for writer in writers), Counter())))
    bad = ("acknowledged and lost", "there though refused", "there twice", "never sent", "tracebacks")
    enough = min(counts.get(what, 0) for what in ("dumps begun", "shards killed", "everything killed"))
    return int(any(counts.get(name) for name in bad) or enough < options.seconds // 60)


if __name__ == "__main__":
    sys.exit(main())
