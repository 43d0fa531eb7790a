"""Transactions through kills and stops: accounts on all shards whose sum nobody ever sees wrong.

    python tests/soak/transactions.py [--seconds 120] [--shards 4] [--routers 2] [--no-kills]

Writers move money between random accounts in MULTI … EXEC (two shards each time); readers add all accounts up in one MULTI.
Meanwhile shards and routers are stopped (SIGSTOP, a second or three) and routers killed; with `--kill-shards` shards as well.
A shard's memory goes with it: behind such a kill the accounts are paid in again, as a transaction, under a new number, which
stands on every shard beside them: a reader's sum counts when all the numbers it read with it are the same. Each transfer
leaves its name in a list beside each of its accounts, which paying in empties.

Fails when a successful sum is wrong, when the lists name a transfer once, or one that was refused, or not one that was
answered since the accounts were paid in last, or when too little was done. Two more writers take the
same four keys in opposite orders all the time: the longest time without progress of either is printed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until

from kache.errors import CommandError

ACCOUNTS = 6
PAID_IN = 1000


class Bank:
    """The accounts, what is known of them, and everybody who uses them."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        keys = cluster.keys_by_shard(ACCOUNTS + 3)
        self.accounts = [key for own in keys for key in own[:ACCOUNTS]]
        self.numbers = [own[ACCOUNTS] for own in keys]
        self.crossing = [own[ACCOUNTS + 1] for own in keys]
        self.journals = [own[ACCOUNTS + 2] for own in keys]
        self.journal_of = {key: own[ACCOUNTS + 2] for own in keys for key in own[:ACCOUNTS]}
        self.answered: dict[str, float] = {}
        """Transfers, and when they began."""
        self.refused: set[str] = set()
        self.names = itertools.count()
        self.paid_at = 0.0
        self.total = PAID_IN * len(self.accounts)
        self.seed = seed
        self.stop = threading.Event()
        self.wrong: list[Any] = []
        self.counts = dict.fromkeys(
            ("transfers", "sums", "refused", "uncertain", "closed", "between payments", "crossings"), 0
        )
        self.longest_wait = 0.0
        self.lock = threading.Lock()
        self.round = 0

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def pay_in(self) -> None:
        """Every account as at the beginning, in one transaction."""
        self.round += 1

        def paid() -> bool:
            try:
                with Connection(self.cluster.port, 10) as client:
                    commands = [("SET", key, PAID_IN) for key in self.accounts]
                    commands += [("SET", key, self.round) for key in self.numbers]
                    commands += [("DEL", key) for key in self.journals]
                    return isinstance(execute(client, commands), list)
            except OSError:
                return False

        until(paid, "paying in", 60)
        self.paid_at = time.monotonic()

    def work(self, which: int, way: Any) -> None:
        """One client, connected again whenever it is closed."""
        chance = random.Random(self.seed * 1000 + which)
        while not self.stop.is_set():
            try:
                with Connection(self.cluster.port, 20) as client:
                    while not self.stop.is_set():
                        self.judge(way(client, chance))
            except OSError:
                self.count("closed")

    def judge(self, reply: Any) -> None:
        if isinstance(reply, CommandError):
            if reply.code in ("CLUSTERDOWN", "TRYAGAIN"):
                self.count("refused")
                time.sleep(0.02)
            elif reply.code in ("UNCERTAIN", "TIMEOUT"):
                self.count("uncertain")
            else:
                self.wrong.append(reply.message)

    def transfer(self, client: Connection, chance: random.Random) -> Any:
        source, target = chance.sample(self.accounts, 2)
        amount, name, began = chance.randint(1, 50), str(next(self.names)), time.monotonic()
        commands = [("DECRBY", source, amount), ("INCRBY", target, amount)]
        reply = execute(client, commands + [("RPUSH", self.journal_of[key], name) for key in (source, target)])
        if isinstance(reply, list):
            self.count("transfers")
            self.answered[name] = began
        elif isinstance(reply, CommandError) and reply.code in ("CLUSTERDOWN", "TRYAGAIN"):
            self.refused.add(name)
        return reply

    def check_journals(self, client: Connection) -> None:
        """Every transfer was made on both of its shards or on none, and those whose outcome was told as it was told."""
        noted = Counter(name.decode() for key in self.journals for name in client.request("LRANGE", key, 0, -1))
        self.wrong += [("half", name) for name, times in noted.items() if times != 2]
        self.wrong += [("refused", name) for name in self.refused & noted.keys()]
        self.wrong += [
            ("lost", name) for name, began in self.answered.items() if began > self.paid_at and name not in noted
        ]

    def add_up(self, client: Connection, chance: random.Random) -> Any:
        reply = execute(client, [("GET", key) for key in (*self.numbers, *self.accounts)])
        if not isinstance(reply, list):
            return reply
        numbers, balances = reply[: len(self.numbers)], reply[len(self.numbers) :]
        if None in numbers or len(set(numbers)) > 1:
            self.count("between payments")
        elif None in balances or sum(map(int, balances)) != self.total:
            self.wrong.append(("sum", numbers, balances))
        else:
            self.count("sums")
        return reply

    def cross(self, backwards: bool) -> Any:
        order = self.crossing[::-1] if backwards else self.crossing

        def way(client: Connection, chance: random.Random) -> Any:
            began = time.monotonic()
            reply = execute(client, [("INCR", key) for key in order])
            with self.lock:
                self.longest_wait = max(self.longest_wait, time.monotonic() - began)
            if isinstance(reply, list):
                self.count("crossings")
            return reply

        return way


def execute(client: Connection, commands: list[tuple[Any, ...]]) -> Any:
    """What EXEC answers, or the error of a command that could not be queued."""
    client.send(("MULTI",), *commands, ("EXEC",))
    return client.read_many(len(commands) + 2)[-1]


def is_back(cluster: Cluster, role: str, index: int, before: int) -> bool:
    """Whether another process is up in the place of one that was killed."""
    child = cluster.child(role, index)
    return bool(child["state"] == "up" and child["pid"] != before)


def disturb(bank: Bank, chance: random.Random, kill_shards: bool) -> str:
    """Something happens to one process."""
    cluster = bank.cluster
    role = chance.choice(["shard", "router", "router"])
    index = chance.randrange(cluster.shards if role == "shard" else cluster.routers)
    pid = cluster.pid_of(role, index)
    if role == "router" and chance.random() < 0.5:
        cluster.kill(pid)
        until(lambda: is_back(cluster, role, index, pid), "the router")
        return f"router {index} killed"
    if role == "shard" and kill_shards and chance.random() < 0.5:
        cluster.kill(pid)
        until(lambda: is_back(cluster, role, index, pid), "the shard")
        bank.pay_in()
        return f"shard {index} killed"
    cluster.kill(pid, signal.SIGSTOP)
    bank.stop.wait(chance.uniform(0.5, 3))
    cluster.kill(pid, signal.SIGCONT)
    return f"{role} {index} stopped for a moment"


def run(seconds: float, shards: int, routers: int, seed: int, kills: bool, kill_shards: bool) -> Bank:
    """A bank that has been used for so long."""
    with Cluster(shards=shards, routers=routers, request_timeout_ms=3000, transaction_hold_ms=1000) as cluster:
        bank = Bank(cluster, seed)
        bank.pay_in()
        ways = [bank.transfer] * 6 + [bank.add_up] * 3 + [bank.cross(False), bank.cross(True)]
        threads = [threading.Thread(target=bank.work, args=(n, way)) for n, way in enumerate(ways)]
        for thread in threads:
            thread.start()
        chance = random.Random(seed)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not bank.wrong:
            if kills:
                print(disturb(bank, chance, kill_shards), flush=True)
            bank.stop.wait(min(1.0, max(ends - time.monotonic(), 0)))
        bank.stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a client still waits"
        with Connection(cluster.port, 30) as client:
            until(lambda: isinstance(bank.add_up(client, chance), list), "the last sum")
            bank.check_journals(client)
            crossed = until(lambda: [client.request("GET", key) for key in bank.crossing], "the crossings")
            assert kill_shards or bank.counts["uncertain"] or len(set(crossed)) == 1, crossed
    return bank


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--routers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--kill-shards", action="store_true")
    options = parser.parse_args()
    bank = run(
        options.seconds, options.shards, options.routers, options.seed, not options.no_kills, options.kill_shards
    )
    print(bank.counts, f"longest wait {bank.longest_wait:.2f} s", "wrong:", bank.wrong[:5])
    enough = bank.counts["transfers"] > 20 * options.seconds and bank.counts["sums"] > options.seconds
    return 0 if enough and not bank.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
