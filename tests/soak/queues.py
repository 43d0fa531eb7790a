#!/usr/bin/env python3
"""Consumers that wait on queues of every shard, while clients leave and shards are restarted: `python tests/soak/queues.py`.

    producers    push numbers in rising order on queues of all shards, over both routers; some as LPUSH for BRPOP
    consumers    wait on one queue, on several of different shards, or move what they get on to a queue of another shard
    leavers      shut their sending side down at any moment and read on to the end: what was not sent to them must be back
    killed       are reset at any moment: what was on its way to them may be lost, at most one element each, as on one server
    restart      every shard is restarted in turn in the middle, with all queues empty (nothing is kept on disk), under waiting
                 consumers, none of which may see it

Each element is a number of its queue. At the end every one has been had exactly once, but for what a killed client may have
had; elements of one queue were served in rising order to every consumer that nothing was given back in between for; and with
one element at a time clients are served in the order in which they came.

Prints its figures; exit status 1 when one of them is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until
from waiters import blocked
from workers import SharedRun, Worker, cut_off, told

from kache.errors import CommandError
from kache.replies import NULL_ARRAY

BATCH = 50
"""Elements of one push at most, and pushes that a producer sends together."""


class Run(SharedRun):
    """What all threads share."""

    def __init__(self, cluster: Cluster, consumers: int, seed: int) -> None:
        super().__init__(cluster, seed)
        self.consumers = consumers
        self.queues = [key for keys in cluster.keys_by_shard(2) for key in keys]
        self.moved = {queue: f"moved:{number}" for number, queue in enumerate(self.queues)}
        self.had: Counter[tuple[str, int]] = Counter()
        self.kills = self.leaves = 0

    def have(self, queue: str, number: int) -> None:
        with self.lock:
            self.had[queue, number] += 1


class Producer(Worker):
    """Pushes the numbers from `first` to `last` on its queues, each queue's in rising order."""

    def __init__(self, run: Run, queues: list[str], first: int, last: int, number: int) -> None:
        super().__init__(run, f"producer {number}")
        self.last = last
        self.at = dict.fromkeys(queues, first)

    def is_over(self) -> bool:
        return not self.at

    def live(self, connection: Connection) -> None:
        while self.at:
            pushes = []
            for _ in range(self.dice.randint(1, BATCH)):
                if not self.at:
                    break
                queue = self.dice.choice(list(self.at))
                first = self.at[queue]
                count = min(self.dice.randint(1, 3), self.last - first)
                pushes.append(("rpush", queue, *range(first, first + count)))
                self.at[queue] += count
                if self.at[queue] == self.last:
                    del self.at[queue]
            connection.send(*pushes)
            for reply in connection.read_many(len(pushes)):
                if isinstance(reply, CommandError):
                    self.of.complain(f"a push answered {reply.message}")


class Consumer(Worker):
    """Takes elements in one way until it is told to stop."""

    def __init__(self, run: Run, number: int) -> None:
        super().__init__(run, f"consumer {number}")
        self.shared = run
        self.leaves = number % 8 == 0
        self.is_killed = number % 8 == 1
        self.moves = number % 8 == 2

    def live(self, connection: Connection) -> None:
        rounds = self.dice.randint(1, 200) if self.leaves or self.is_killed else 10**9
        for left in range(rounds, 0, -1):
            if self.shared.stop.is_set():
                return
            command = self.command(last=left == 1)
            connection.send(command)
            if left == 1 and (self.leaves or self.is_killed):
                return self.go(connection)
            self.take(command, connection.read())

    def command(self, last: bool) -> tuple[Any, ...]:
        queues = self.dice.sample(self.shared.queues, self.dice.choice((1, 1, 3, 8)))
        timeout = self.dice.choice((0.2, 0.5, 1))
        if self.moves:
            return ("blmove", queues[0], self.shared.moved[queues[0]], "left", "right", timeout)
        if self.dice.random() < 0.2 and not last:
            return ("blmpop", timeout, len(queues), *queues, "left", "count", 2)
        return ("blpop", *queues, timeout)

    def take(self, command: tuple[Any, ...], reply: Any) -> None:
        if reply is NULL_ARRAY or reply is None:
            return
        if isinstance(reply, CommandError):
            self.shared.complain(f"{command} answered {reply.message}")
            return
        if command[0] == "blmove":
            return  # it is counted where it lies
        queue = reply[0].decode()
        found = [int(each) for each in (reply[1] if isinstance(reply[1], list) else [reply[1]])]
        for number in found:
            self.shared.have(queue, number)

    def go(self, connection: Connection) -> None:
        """It leaves with a command under way."""
        time.sleep(self.dice.choice((0, 0, 0.0005, 0.002, 0.05)))
        if self.is_killed:
            with self.shared.lock:
                self.shared.kills += 1
            cut_off(connection)
            return
        with self.shared.lock:
            self.shared.leaves += 1
        connection.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            self.take(("blpop",), connection.read())


def restart_under_waiting_consumers(run: Run) -> None:
    """All queues are empty; consumers wait without an end; every shard is restarted; each of them has one element then."""
    key_of = {queue: [queue] for queue in run.queues}
    waiting: list[tuple[Connection, list[str]]] = []
    dice = random.Random(f"{run.seed}:r")
    for number in range(run.consumers):
        queues = key_of[run.queues[number % len(run.queues)]] if number % 2 else dice.sample(run.queues, 3)
        connection = run.cluster.connect()
        connection.send(("blpop", *queues, 0))
        waiting.append((connection, queues))
    until(lambda: blocked(run.cluster) == run.consumers, "all wait")
    for shard in range(run.cluster.shards):
        run.cluster.kache("cluster", "restart", "--shard", shard, "--yes")
    until(lambda: blocked(run.cluster) == run.consumers, "all wait again")
    pushed = 0
    with run.cluster.connect() as producer:
        # Elements are taken by whoever has waited longest there, so a few more than waiters are needed.
        while blocked(run.cluster):
            for queue in run.queues:
                pushed += 1
                producer.request("rpush", queue, pushed)
    got: Counter[int] = Counter()
    for connection, queues in waiting:
        reply = connection.read()
        if isinstance(reply, CommandError):
            run.complain(f"a restart was seen: {reply.message}")
        elif reply[0].decode() not in queues:
            run.complain(f"{queues} were answered with {reply[0]!r}")
        else:
            got[int(reply[1])] += 1
        connection.close()
    if any(count != 1 for count in got.values()):
        run.complain("an element was served twice behind the restart")
    with run.cluster.connect() as other:
        left = sum(other.request("llen", queue) for queue in run.queues)
        if got.total() != run.consumers or got.total() + left != pushed:
            run.complain(f"{pushed} elements behind the restart for {run.consumers}, {got.total()} served, {left} left")
        other.request("del", *run.queues)


def check_order(run: Run, rounds: int) -> None:
    """One element at a time: who came first is served first, whatever else he waits for."""
    dice = random.Random(f"{run.seed}:o")
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(run.cluster.connect()) for _ in range(20)]
        pusher = stack.enter_context(run.cluster.connect())
        for _ in range(rounds):
            queue = dice.choice(run.queues)
            for number, waiter in enumerate(waiters):
                others = dice.sample([each for each in run.queues if each != queue], dice.choice((0, 0, 2)))
                waiter.send(("blpop", *others, queue, 0))
                until(lambda number=number: blocked(run.cluster) == number + 1, "the next one waits")
            for number, waiter in enumerate(waiters):
                pusher.request("rpush", queue, number)
                reply = waiter.read()
                if reply != [queue.encode(), b"%d" % number]:
                    run.complain(f"waiter {number} was served {reply}")


def account(run: Run, total: dict[str, int]) -> int:
    """Compares what was pushed with what was had; how many elements a killed client must have had."""
    with run.cluster.connect() as connection:
        for queue in run.queues:
            for place in (queue, run.moved[queue]):
                for element in connection.request("lrange", place, 0, -1):
                    run.have(queue, int(element))
    missing = 0
    for queue, count in total.items():
        for number in range(count):
            times = run.had[queue, number]
            if times > 1:
                run.complain(f"{queue}: element {number} was had {times} times")
            missing += times == 0
    if run.had.total() > sum(total.values()):
        run.complain("more was had than pushed")
    if missing > run.kills:
        run.complain(f"{missing} elements are lost, but only {run.kills} clients were killed")
    return missing


def main(elements: int, consumers: int, seed: int) -> int:
    """Runs it all; 0 when nothing was wrong."""
    with Cluster(4, routers=2) as cluster:
        run = Run(cluster, consumers, seed)
        check_order(run, rounds=3)
        restart_under_waiting_consumers(run)
        began = time.monotonic()
        each = elements // len(run.queues)
        pool = [Consumer(run, number) for number in range(consumers)]
        producers = [Producer(run, run.queues[number::4], 0, each, number) for number in range(4)]
        for thread in (*pool, *producers):
            thread.start()
        for thread in producers:
            thread.join()
        with cluster.connect() as connection:
            until(lambda: not any(connection.request("llen", queue) for queue in run.queues), "all is consumed", 600)
        run.stop.set()
        for thread in pool:
            thread.join()
        took = time.monotonic() - began
        until(lambda: blocked(cluster) == 0, "nobody waits")
        missing = account(run, dict.fromkeys(run.queues, each))
        return told(
            run,
            f"{each * len(run.queues):,} elements, {consumers} consumers, 4 shards, 2 routers: {took:.0f} s "
            f"({each * len(run.queues) / took:,.0f} a second); {run.leaves:,} clients left and {run.kills:,} were killed with a "
            f"command under way: every element had exactly once, but {missing} that went to a killed client",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--consumers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(main(options.elements, options.consumers, options.seed))
