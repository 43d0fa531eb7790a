"""Transactions over shards when everything is killed in the middle of them: whole or absent, those that were answered whole."""

from __future__ import annotations

import functools
import importlib
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, kill_everything, until
from log_files import CLUSTER, SEED, Record, Written, counted, number, write_directory
from ports import free_port

from kache.errors import NO_SUCH_KEY, CommandError, KacheError
from kache.shard.log import directory
from kache.shard.log import format as log_format
from kache.shard.log.directory import ClusterFile, shard_directory
from kache.shard.log.files import Files
from kache.slots import contiguous, owners, slot_of_key

pytestmark = pytest.mark.once

SHARDS = 3
ACCOUNTS = 4
PAID_IN = 1000


class Bank:
    """Accounts on all shards; each transfer leaves its number in a list beside either account."""

    def __init__(self, cluster: Cluster) -> None:
        self.keys = [key for own in cluster.keys_by_shard(ACCOUNTS) for key in own]
        self.number = 0
        self.accounts: dict[int, tuple[str, ...]] = {}
        self.answered: set[int] = set()
        self.wrong: list[Any] = []
        self.lock = threading.Lock()

    def work(self, port: int, seed: int, stop: threading.Event) -> None:
        """One client until it is told to stop, or nobody answers any more."""
        chance = random.Random(seed)
        try:
            with Connection(port) as client:
                while not stop.is_set():
                    self.transfer(client, chance)
        except OSError:
            pass

    def use_and_kill(self, cluster: Cluster, life: int) -> None:
        """Six clients until they have done something, and the end of everything in the middle of it."""
        stop = threading.Event()
        clients = [threading.Thread(target=self.work, args=(cluster.port, 10 * life + n, stop)) for n in range(6)]
        for client in clients:
            client.start()
        enough = len(self.answered) + 25
        until(lambda: len(self.answered) >= enough, "some transfers")
        kill_everything(cluster)
        stop.set()
        for client in clients:
            client.join(30)
            assert not client.is_alive(), "a client still waits"

    def transfer(self, client: Connection, chance: random.Random) -> None:
        accounts = chance.sample(self.keys, 3)
        with self.lock:
            self.number += 1
            number = self.number
            self.accounts[number] = tuple(accounts)
        first, second, third = accounts
        commands: list[tuple[Any, ...]] = [("decrby", first, 3), ("incrby", second, 2), ("incrby", third, 1)]
        commands += [("rpush", f"{{{account}}}:log", number) for account in accounts]
        client.send(("multi",), *commands, ("exec",))
        reply = client.read_many(len(commands) + 2)[-1]
        if isinstance(reply, list):
            self.answered.add(number)
        elif reply.code not in ("TRYAGAIN", "CLUSTERDOWN", "UNCERTAIN", "TIMEOUT"):
            self.wrong.append(reply.message)

    def check(self, cluster: Cluster) -> set[int]:
        """The transfers that are there, each of them whole, once, and no part of any other."""
        with cluster.connect() as client:
            client.send(*[("get", key) for key in self.keys])
            balances = [int(each) for each in client.read_many(len(self.keys))]
            client.send(*[("lrange", f"{{{key}}}:log", 0, -1) for key in self.keys])
            logs = {key: [int(each) for each in log] for key, log in zip(self.keys, client.read_many(len(self.keys)), strict=True)}  # fmt: skip
        there = {number for log in logs.values() for number in log}
        halves = [
            (number, accounts, [key for key in accounts if number in logs[key]])
            for number, accounts in self.accounts.items()
            if number in there and not all(logs[key].count(number) == 1 for key in accounts)
        ]
        assert halves == []
        assert sum(balances) == PAID_IN * len(self.keys)
        return there


class Movers:
    """What is in one place at a time moves between keys of different shards, by every command that takes steps."""

    KINDS = ("list", "set", "key", "exec")

    def __init__(self, cluster: Cluster) -> None:
        self.places = [own[0] for own in cluster.keys_by_shard(1)]
        self.moved = Counter[str]()
        self.wrong: list[Any] = []

    def name(self, kind: str, client: int, place: str) -> str:
        return f"{{{place}}}:{kind}:{client}"

    def fill(self, cluster: Cluster, clients: int) -> None:
        for client in range(clients):
            first = self.places[0]
            cluster.request("rpush", self.name("list", client, first), *range(5))
            cluster.request("sadd", self.name("set", client, first), *range(5))
            cluster.request("set", self.name("key", client, first), "value")
            cluster.request("rpush", self.name("exec", client, first), *range(5))

    def work(self, port: int, client: int, seed: int, stop: threading.Event) -> None:
        """One client until it is told to stop, or nobody answers any more."""
        chance = random.Random(seed)
        try:
            with Connection(port) as connection:
                while not stop.is_set():
                    kind = chance.choice(self.KINDS)
                    here, there = (self.name(kind, client, place) for place in chance.sample(self.places, 2))
                    commands: list[tuple[Any, ...]] = [{
                        "list": ("lmove", here, there, "left", "right"), "set": ("smove", here, there, chance.randrange(5)),
                        "key": ("renamenx", here, there),
                    }.get(kind, ("multi",))]  # fmt: skip
                    if kind == "exec":
                        commands += [("incr", f"{here}:from"), ("lmove", here, there, "left", "right")]
                        commands += [("incr", f"{there}:to"), ("exec",)]
                    connection.send(*commands)
                    self.note(kind, connection.read_many(len(commands))[-1])
        except OSError:
            pass

    def note(self, kind: str, reply: Any) -> None:
        if not isinstance(reply, CommandError):
            self.moved[kind] += reply not in (None, 0)
        elif reply.code not in ("TRYAGAIN", "CLUSTERDOWN", "UNCERTAIN", "TIMEOUT") and reply.message != NO_SUCH_KEY:
            self.wrong.append(reply.message)

    def least_moved(self) -> int:
        return min(self.moved[kind] for kind in self.KINDS)

    def have_moved(self, times: int) -> bool:
        return self.least_moved() >= times

    def check(self, cluster: Cluster, clients: int) -> None:
        """Everything is in one place, and both counters of an EXEC with a move in it have counted it."""
        wrong = []
        with cluster.connect() as connection:
            for client in range(clients):
                found: dict[str, list[Any]] = {}
                for kind, words in (("list", (0, -1)), ("set", ()), ("key", ()), ("exec", (0, -1))):
                    command = {"set": "smembers", "key": "get"}.get(kind, "lrange")
                    names = [self.name(kind, client, place) for place in self.places]
                    replies = [connection.request(command, name, *words) for name in names]
                    found[kind] = [each for each in replies if each] if kind == "key" else sorted(
                        int(each) for reply in replies for each in reply)  # fmt: skip
                names = [self.name("exec", client, place) for place in self.places]
                sums = [
                    sum(int(connection.request("get", f"{name}:{end}") or 0) for name in names)
                    for end in ("from", "to")
                ]
                if found != {"list": [*range(5)], "set": [*range(5)], "key": [b"value"], "exec": [*range(5)]} or (
                    sums[0] != sums[1]
                ):
                    wrong.append((client, found, sums))
        assert wrong == []


def dump_on_and_on(port: int, stop: threading.Event) -> None:
    with suppress(OSError), Connection(port) as connection:
        while not stop.wait(0.05):
            connection.request("bgrewriteaof")


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_a_kill_of_everything_leaves_no_half_of_what_takes_steps(tmp_path: Path, policy: str) -> None:
    """LMOVE, SMOVE, RENAMENX and EXEC with one of them inside, over shards, while dumps hide one log after the other."""
    clients = 8
    for life in range(5):
        cluster = Cluster(SHARDS, routers=2, dir=tmp_path, appendonly="yes", appendfsync=policy)
        cluster.start()
        try:
            if life == 0:
                movers = Movers(cluster)
                movers.fill(cluster, clients)
            else:
                movers.check(cluster, clients)
            stop = threading.Event()
            threads = [
                threading.Thread(target=movers.work, args=(cluster.port, n, 100 * life + n, stop))
                for n in range(clients)
            ]
            threads.append(threading.Thread(target=dump_on_and_on, args=(cluster.port, stop)))
            for thread in threads:
                thread.start()
            until(functools.partial(movers.have_moved, movers.least_moved() + 4), "some moves of every kind")
            stop.wait(0.2)  # and a few dumps
            kill_everything(cluster)
            stop.set()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive(), "a client still waits"
        finally:
            cluster._clean()
    assert not movers.wrong, movers.wrong[:3]
    assert movers.have_moved(5), movers.moved


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_a_kill_of_everything_leaves_no_half_of_a_transaction(tmp_path: Path, policy: str) -> None:
    for life in range(5):
        cluster = Cluster(SHARDS, routers=2, dir=tmp_path, appendonly="yes", appendfsync=policy)
        cluster.start()
        try:
            if life == 0:
                bank = Bank(cluster)
                cluster.request("mset", *[word for key in bank.keys for word in (key, PAID_IN)])
            else:
                assert bank.answered <= bank.check(cluster)
            bank.use_and_kill(cluster, life)
        finally:
            cluster._clean()
    assert len(bank.answered) > 50 and not bank.wrong, bank.wrong[:3]


@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "shards killed"])
def test_what_clients_see_can_have_happened(monkeypatch: pytest.MonkeyPatch, kills: bool) -> None:
    """The short form of tests/soak/histories.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "soak"))
    run = importlib.import_module("histories").run
    for seconds in (5, 15, 30):  # on a slow machine it takes longer until enough has happened
        recorder, _, verdict = run(seconds, 4, 2, 5, kills)
        assert verdict.outcome.name == "EXPLAINED", verdict
        if recorder.over_shards > (20 if kills else 50):
            return
    raise AssertionError((recorder.over_shards, len(recorder.operations)))


FILLING = 4_000_000
"""Effects that are loaded before the share: enough time for a kill before that."""


def key_of(shard: int) -> str:
    owner = owners(contiguous(2), 2)
    return next(f"key:{each}" for each in range(100) if owner[slot_of_key(f"key:{each}".encode())] == shard)


def is_set(port: int, key: str) -> bool:
    """Whether a shard takes a write in."""
    with suppress(OSError), Connection(port) as connection:
        return bool(connection.request("set", key, "set") == "OK")
    return False


def write_half(path: Path) -> str:
    """Two shards as a crash two hours ago has left them: the first has its part of a transaction, the second has not. Returns
    the key of that part."""
    began = time.time_ns() // 1_000_000 - 7_200_000
    key = key_of(0)
    filling = b"".join(bytes([8]) + counted(b"%d" % each) + counted(b"v") for each in range(2000))
    for shard in range(2):
        log = Written(log_format.LOG, 1, 1, shard=shard, shards=2)
        frames = FILLING // 2000 if shard == 0 else 1
        log.frames += [Record(log_format.EFFECTS, each, began, filling) for each in range(1, frames + 1)]
        if shard == 0:
            payload = number(7) + number(2) + bytes([0, 1, 8]) + counted(key.encode()) + counted(b"half")
            log.frames.append(Record(log_format.SHARE, frames + 1, began, payload))
        write_directory(Path(shard_directory(str(path), 1, shard)), [], [log])
    directory.write_cluster(Files(), str(path), ClusterFile(CLUSTER, SEED, 1, 2, tuple(contiguous(2))))
    return key


@contextmanager
def starting(path: Path) -> Iterator[tuple[Cluster, threading.Thread]]:
    """A cluster that is not waited for, and who waits for the whole of it."""
    cluster = Cluster(2, port=free_port(), dir=path, appendonly="yes")

    def start() -> None:
        with suppress(AssertionError):  # that it was ended before all of it served
            cluster.start()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield cluster, thread
    finally:
        cluster.process.terminate()
        thread.join(60)
        cluster._clean()


@contextmanager
def killed_while_it_loads(path: Path) -> Iterator[tuple[Cluster, threading.Thread]]:
    """A cluster whose first shard was killed behind what it was told, and before it served; it is started again. And who waits
    for the whole cluster."""
    with starting(path) as (cluster, thread):

        def is_killed() -> bool:
            if (path / directory.TRANSACTIONS).exists():  # written when all have reported, before anybody is told
                with suppress(AssertionError, OSError, KacheError):
                    cluster.kill(cluster.pid_of("shard", 0))
                    return True
            return False

        until(is_killed, "the first shard loading")
        yield cluster, thread


def test_a_shard_that_is_killed_while_it_loads_leaves_out_what_it_was_told_to(tmp_path: Path) -> None:
    key = write_half(tmp_path)
    with killed_while_it_loads(tmp_path) as (cluster, starting):
        starting.join(60)
        assert cluster.request("get", key) is None
        assert cluster.child("shard", 0)["restarts"] == 1
        assert not (tmp_path / directory.TRANSACTIONS).exists()


def test_the_next_life_leaves_it_out_too(tmp_path: Path) -> None:
    """Everything is killed as well, when the other shard has been used: of itself it would not tell that it lacks the rest."""
    key = write_half(tmp_path)
    other = key_of(1)
    with killed_while_it_loads(tmp_path) as (cluster, _):
        until(lambda: is_set(cluster.port, other), "the other shard serving")
        kill_everything(cluster)
    with Cluster(2, dir=tmp_path, appendonly="yes") as cluster:
        assert cluster.request("mget", key, other) == [None, b"set"]
        assert not (tmp_path / directory.TRANSACTIONS).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at threads in /proc")
def test_the_supervisor_has_time_for_all_else_while_the_disk_hangs(tmp_path: Path) -> None:
    """What was decided is written to a pipe that nobody reads: whoever opens it waits."""
    key = write_half(tmp_path)
    hanging = tmp_path / f"{directory.TRANSACTIONS}.tmp"
    os.mkfifo(hanging)
    for is_ended in (True, False):
        with starting(tmp_path) as (cluster, thread):
            until(lambda: writes(cluster), "the supervisor writing")
            cluster.kill(cluster.pid_of("shard", 0))
            until(lambda: cluster.child("shard", 0)["restarts"] == 1, "the first shard, started again")
            assert cluster.child("shard", 1)["state"] != "up"
            if is_ended:
                cluster.process.terminate()
                assert cluster.process.wait(30) == 0
            else:
                reader = os.open(hanging, os.O_RDONLY)  # a pipe is no file for good: it is known in memory alone
                thread.join(60)
                os.close(reader)
                assert cluster.request("get", key) is None
            assert not (tmp_path / directory.TRANSACTIONS).exists()


def writes(cluster: Cluster) -> bool:
    """Whether the supervisor has a thread beside its own."""
    with suppress(AttributeError, FileNotFoundError):
        return len(os.listdir(f"/proc/{cluster.process.pid}/task")) > 1
    return False
