#!/usr/bin/env python3
"""Groups of consumers work through streams of every shard while consumers are killed and shards restarted, with the log on:
`python tests/soak/streams.py`.

    producers    add numbered entries to streams of all shards, over both routers
    consumers    read new entries for their group, from one stream or several, waiting for them; acknowledge; take over what
                 others have left
    killed       are reset between reading and acknowledging: what they had stays pending until somebody takes it over
    restart      every shard is restarted in turn in the middle

Each entry is a number of its stream. At the end every entry has been delivered to every group and acknowledged once, as far as
the replies say: XACK's count is summed, and what was UNCERTAIN is counted apart. Nothing is pending, and no group lags.

Prints its figures; exit status 1 when one of them is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until
from workers import SharedRun, Worker, cut_off, told

from kache.errors import CommandError
from kache.replies import NULL_ARRAY

IDLE_MS = 300
"""How long something is pending before another consumer takes it over."""
NOT_EXECUTED = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MISCONF")


class Run(SharedRun):
    """What all threads share."""

    def __init__(self, cluster: Cluster, entries: int, groups: int, seed: int, batch: int) -> None:
        super().__init__(cluster, seed)
        self.batch = batch
        self.streams = [key for keys in cluster.keys_by_shard(2) for key in keys]
        self.each = entries // len(self.streams)
        self.groups = [f"group{number}" for number in range(groups)]
        self.seen = {(g, s): bytearray(self.each) for g in self.groups for s in self.streams}
        self.acknowledged: Counter[tuple[str, str]] = Counter()
        self.unsure: Counter[tuple[str, str]] = Counter()
        self.kills = self.claims = self.refused = 0


def retried(connection: Connection, command: tuple[Any, ...]) -> Any:
    """The reply of a command, which is sent again as long as it was not executed."""
    while True:
        reply = connection.request(*command)
        if isinstance(reply, CommandError) and reply.code in NOT_EXECUTED:
            time.sleep(0.02)
            continue
        return reply


class Producer(Worker):
    """Adds the entries of some streams, in the order of their numbers; each has its number as its id, so none is there twice."""

    def __init__(self, run: Run, streams: list[str]) -> None:
        super().__init__(run, f"producer of {streams[0]}")
        self.shared = run
        self.streams = streams
        self.done = False

    def is_over(self) -> bool:
        return self.done

    def live(self, connection: Connection) -> None:
        each, batch = self.shared.each, self.shared.batch
        for first in range(0, each, batch):
            for stream in self.streams:
                self.add(connection, stream, range(first, min(first + batch, each)))
        self.done = True

    def add(self, connection: Connection, stream: str, numbers: range) -> None:
        commands = [("xadd", stream, f"1-{number + 1}", "n", number) for number in numbers]
        connection.send(*commands)
        replies = connection.read_many(len(commands))
        for command, reply in zip(commands, replies, strict=True):
            # What may have been added is there already when it is sent again: its id is not greater.
            while isinstance(reply, CommandError) and "equal or smaller" not in reply.message:
                with self.shared.lock:
                    self.shared.refused += 1
                if reply.code not in (*NOT_EXECUTED, "UNCERTAIN", "TIMEOUT"):
                    self.shared.complain(f"an XADD answered {reply.message}")
                    return
                time.sleep(0.02)
                reply = connection.request(*command)


class Consumer(Worker):
    """One member of a group, under the same name in every life of its connection."""

    def __init__(self, run: Run, group: str, number: int) -> None:
        super().__init__(run, f"{group}, consumer {number}")
        self.shared = run
        self.group = group
        self.name_there = f"consumer{number}"
        self.is_killed = number % 4 == 0

    def live(self, connection: Connection) -> None:
        rounds = self.dice.randint(1, 60) if self.is_killed else 10**9
        for left in range(rounds, 0, -1):
            if self.shared.stop.is_set():
                return
            found = self.taken_over(connection) if self.dice.random() < 0.1 else self.read(connection)
            if left == 1 and found:
                # The delivery is noted, the work is not done.
                with self.shared.lock:
                    self.shared.kills += 1
                cut_off(connection)
                return
            for stream, ids in found:
                self.acknowledge(connection, stream, ids)

    def read(self, connection: Connection) -> list[tuple[str, list[bytes]]]:
        streams = self.dice.sample(self.shared.streams, self.dice.choice((1, 2, len(self.shared.streams))))
        head = ("xreadgroup", "group", self.group, self.name_there, "count", self.shared.batch, "block", 200, "streams")
        reply = retried(connection, (*head, *streams, *[">"] * len(streams)))
        if reply is NULL_ARRAY or reply is None:
            return []
        if isinstance(reply, CommandError):
            # Whatever was delivered is pending, and somebody takes it over.
            if reply.code not in ("UNCERTAIN", "TIMEOUT"):
                self.shared.complain(f"XREADGROUP answered {reply.message}")
            return []
        return [(stream.decode(), self.note(stream.decode(), entries)) for stream, entries in reply]

    def taken_over(self, connection: Connection) -> list[tuple[str, list[bytes]]]:
        stream = self.dice.choice(self.shared.streams)
        claim = ("xautoclaim", stream, self.group, self.name_there, IDLE_MS, 0, "count", self.shared.batch)
        reply = retried(connection, claim)
        if isinstance(reply, CommandError):
            if reply.code not in ("UNCERTAIN", "TIMEOUT"):
                self.shared.complain(f"XAUTOCLAIM answered {reply.message}")
            return []
        with self.shared.lock:
            self.shared.claims += len(reply[1])
        return [(stream, self.note(stream, reply[1]))] if reply[1] else []

    def note(self, stream: str, entries: list[Any]) -> list[bytes]:
        seen = self.shared.seen[self.group, stream]
        for number, fields in entries:
            if number != b"1-%d" % (int(fields[1]) + 1):
                self.shared.complain(f"{stream} has {fields} at {number!r}")
            seen[int(fields[1])] = 1
        return [number for number, _ in entries]

    def acknowledge(self, connection: Connection, stream: str, ids: list[bytes]) -> None:
        reply = retried(connection, ("xack", stream, self.group, *ids))
        with self.shared.lock:
            if isinstance(reply, CommandError):
                self.shared.unsure[self.group, stream] += len(ids)
            else:
                self.shared.acknowledged[self.group, stream] += reply


def is_done(run: Run, connection: Connection) -> bool:
    """Whether every group has delivered everything, and nothing is pending."""
    for stream in run.streams:
        told = connection.request("xinfo", "groups", stream)
        if isinstance(told, CommandError) or connection.request("xlen", stream) != run.each:
            return False
        for flat in told:
            group = dict(zip(flat[::2], flat[1::2], strict=True))
            if group[b"pending"] or group[b"lag"] or group[b"entries-read"] != run.each:
                return False
    return True


def account(run: Run) -> None:
    """Compares what was added with what was delivered and acknowledged."""
    for place, seen in run.seen.items():
        missing = seen.count(0)
        if missing:
            run.complain(f"{place}: {missing} entries were never delivered")
        total, unsure = run.acknowledged[place], run.unsure[place]
        if not total <= run.each <= total + unsure:
            run.complain(f"{place}: {total} of {run.each} acknowledged, {unsure} unsure")


def main(entries: int, consumers: int, groups: int, seed: int, batch: int) -> int:
    """Runs it all; 0 when nothing was wrong."""
    with tempfile.TemporaryDirectory() as directory, Cluster(4, routers=2, dir=directory, appendonly="yes") as cluster:
        run = Run(cluster, entries, groups, seed, batch)
        for stream in run.streams:
            for group in run.groups:
                assert cluster.request("xgroup", "create", stream, group, 0, "mkstream") == "OK"
        began = time.monotonic()
        pool = [Consumer(run, run.groups[number % groups], number // groups) for number in range(consumers)]
        producers = [Producer(run, run.streams[number::4]) for number in range(4)]
        for thread in (*producers, *pool):
            thread.start()
        with cluster.connect() as connection:
            half = run.each // 3
            until(lambda: connection.request("xlen", run.streams[0]) >= half, "a third is added", 600)
            for shard in range(cluster.shards):
                cluster.kache("cluster", "restart", "--shard", shard, "--yes")
            for thread in producers:
                thread.join()
            until(lambda: is_done(run, connection) or bool(run.wrong), "everything is acknowledged", 900)
        run.stop.set()
        for thread in pool:
            thread.join()
        took = time.monotonic() - began
        account(run)
        return told(
            run,
            f"{run.each * len(run.streams):,} entries, {consumers} consumers in {groups} groups, 4 shards, 2 routers: {took:.0f} s; "
            f"{run.kills:,} consumers killed, {run.claims:,} entries taken over, {run.refused} XADDs sent again, every shard "
            f"restarted: each entry delivered to each group, {sum(run.acknowledged.values()):,} acknowledged, "
            f"{sum(run.unsure.values())} unsure",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--consumers", type=int, default=50)
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=50, help="entries that a producer sends, and a consumer asks for")
    options = parser.parse_args()
    sys.exit(main(options.entries, options.consumers, options.groups, options.seed, options.batch))
