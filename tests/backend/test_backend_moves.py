"""Slots that move and masters that die under load: order by number, errors only where a write was on its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from six_nodes import KINDS, PATIENT, SixNodes, six_nodes, until

from kache.slots import slot_of_key
from kache.testing.cluster import LocalCluster

pytestmark = pytest.mark.once

CLIENTS = 8
BATCH = 10


class Pusher(threading.Thread):
    """One client: pushes numbers to its own lists, pipelined, and reads; `errors` are (command, text)."""

    def __init__(self, port: int, number: int, keys: list[bytes], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.keys = [key + b":%d" % number for key in keys]
        self.port = port
        self.stopping = stop
        self.sent = dict.fromkeys(self.keys, 0)
        self.errors: list[tuple[str, str]] = []
        self.unsure: dict[bytes, set[int]] = {key: set() for key in self.keys}
        self.broken = ""

    def run(self) -> None:
        try:
            with redis.Redis(port=self.port, socket_timeout=60) as client:
                while not self.stopping.is_set():
                    self.round(client)
        except Exception as error:
            self.broken = repr(error)

    def round(self, client: redis.Redis) -> None:
        for key in self.keys:
            with client.pipeline(transaction=False) as pipe:
                for _ in range(BATCH):
                    self.sent[key] += 1
                    pipe.rpush(key, self.sent[key])
                pipe.llen(key)
                answers = pipe.execute(raise_on_error=False)
            for place, answer in enumerate(answers):
                if isinstance(answer, Exception):
                    self.errors.append(("RPUSH" if place < BATCH else "LLEN", str(answer)))
                    self.unsure[key].add(self.sent[key] - BATCH + 1 + place)

    def check(self, client: redis.Redis, *, complete: bool) -> None:
        """What was pushed is there once, in order; all of it, but for what was answered with an error."""
        assert not self.broken, self.broken
        for key in self.keys:
            found = [int(value) for value in client.lrange(key, 0, -1)]
            assert found == sorted(set(found)), key
            if complete:
                assert set(range(1, self.sent[key] + 1)) - set(found) <= self.unsure[key], key


class Scanner(threading.Thread):
    """One client that scans all the time; every scan must have all of `keys`, which nobody touches."""

    def __init__(self, port: int, keys: set[bytes], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.keys, self.stopping = port, keys, stop
        self.scans = 0
        self.broken = ""

    def run(self) -> None:
        try:
            with redis.Redis(port=self.port, socket_timeout=60) as client:
                while not self.stopping.is_set():
                    missing = self.keys - set(client.scan_iter(match="still:*", count=500))
                    if missing:
                        self.broken = f"{len(missing)} keys not found: {sorted(missing)[:3]}"
                        return
                    self.scans += 1
        except Exception as error:
            self.broken = repr(error)


def pushing(port: int, keys: list[bytes], action: Callable[[], None], after: float = 1.0) -> list[Pusher]:
    """Clients at work while `action` runs, and for a while behind it."""
    stop = threading.Event()
    pushers = [Pusher(port, number, keys, stop) for number in range(CLIENTS)]
    for pusher in pushers:
        pusher.start()
    until(lambda: all(min(pusher.sent.values()) > BATCH or pusher.broken for pusher in pushers))
    try:
        action()
        time.sleep(after)
    finally:
        stop.set()
        for pusher in pushers:
            pusher.join(90)
    return pushers


@pytest.fixture(scope="module", params=KINDS)
def moving(request: pytest.FixtureRequest) -> Iterator[tuple[SixNodes, LocalCluster]]:
    with (
        six_nodes(request.param, node_timeout_ms=4000) as nodes,
        LocalCluster(shards=0, backend=nodes.url, **PATIENT) as front,
    ):
        yield nodes, front


def replicated(nodes: SixNodes, master: int) -> bool:
    """Whether its replica has all that it has."""
    info = nodes.client(master).info("replication")
    return bool(info["slave0"]["offset"] == info["master_repl_offset"])


def tagged(nodes: SixNodes, owner: int, count: int) -> list[bytes]:
    """Hash tags of different slots that one master owns."""
    return [b"{t%d}" % number for number in range(10000) if nodes.owner_of(b"{t%d}" % number, asked=0) == owner][:count]


def scanned(port: int, keys: set[bytes], action: Callable[[], None]) -> None:
    """A client scans while `action` runs, and has finished a scan that began before, and one that ended behind it."""
    stop = threading.Event()
    scanner = Scanner(port, keys, stop)
    scanner.start()
    try:
        until(lambda: scanner.scans or scanner.broken)
        action()
        done = scanner.scans
        until(lambda: scanner.scans > done + 1 or scanner.broken)
    finally:
        stop.set()
        scanner.join(90)
    assert not scanner.broken, scanner.broken


def still(port: int, count: int = 600) -> set[bytes]:
    keys = {b"still:%d" % number for number in range(count)} | {b"still:{t%d}" % number for number in range(50)}
    with redis.Redis(port=port) as client:
        client.mset(dict.fromkeys(keys, 1))
    return keys


def test_a_scan_is_complete_while_slots_move(moving: tuple[SixNodes, LocalCluster]) -> None:
    nodes, front = moving
    keys = still(front.port)
    slots = [slot_of_key(b"{t%d}" % number) for number in range(20)]

    def move() -> None:
        for slot in slots:
            source = next(nodes.ports.index(port) for first, last, port in nodes.slots(0) if first <= slot <= last)
            nodes.move_slot(slot, source, (source + 1) % 3, pause=lambda: time.sleep(0.02))

    scanned(front.port, keys, move)


def test_slots_move_under_load(moving: tuple[SixNodes, LocalCluster]) -> None:
    nodes, front = moving
    tags = tagged(nodes, 0, 6)
    slots = [slot_of_key(tag) for tag in tags]

    def move() -> None:
        for target in (1, 2):
            for slot in slots:
                source = 0 if target == 1 else 1
                nodes.move_slot(slot, source, target, pause=lambda: time.sleep(0.002))

    pushers = pushing(front.port, tags, move)
    assert [error for pusher in pushers for error in pusher.errors] == []
    with redis.Redis(port=front.port) as client:
        for pusher in pushers:
            pusher.check(client, complete=True)


def test_a_planned_failover_is_not_noticed(moving: tuple[SixNodes, LocalCluster]) -> None:
    nodes, front = moving
    tags = tagged(nodes, 1, 2)

    def fail_over() -> None:
        nodes.client(4).execute_command("CLUSTER", "FAILOVER")
        until(lambda: nodes.owner_of(tags[0], asked=4) == 4)

    pushers = pushing(front.port, [tag + b"planned" for tag in tags], fail_over)
    errors = [error for pusher in pushers for error in pusher.errors]
    assert all(command == "RPUSH" and "UNCERTAIN" in text for command, text in errors), errors
    with redis.Redis(port=front.port) as client:
        for pusher in pushers:
            pusher.check(client, complete=True)


def test_a_killed_master_costs_only_writes_on_their_way(moving: tuple[SixNodes, LocalCluster]) -> None:
    nodes, front = moving
    tags = tagged(nodes, 2, 2)

    def kill() -> None:
        nodes.kill(2)
        until(lambda: nodes.owner_of(tags[0], asked=0) == 5)

    keys = still(front.port)
    # Replication is asynchronous: what is to be found later must be with the replica.
    until(lambda: replicated(nodes, 2))
    found: list[list[Pusher]] = []
    scanned(
        front.port, keys,
        lambda: found.append(pushing(front.port, [tag + b"killed" for tag in tags], kill, after=2.0)),
    )  # fmt: skip
    pushers = found[0]
    errors = [error for pusher in pushers for error in pusher.errors]
    assert all(command == "RPUSH" and "UNCERTAIN" in text for command, text in errors), errors
    assert len(errors) <= CLIENTS * BATCH
    with redis.Redis(port=front.port) as client:
        # What the old master had not told its replica is lost by its failover, not by anybody's order.
        for pusher in pushers:
            pusher.check(client, complete=False)


def test_a_stopped_master_costs_only_writes_on_their_way(moving: tuple[SixNodes, LocalCluster]) -> None:
    """It neither answers nor closes its connections, as behind a network that has failed."""
    nodes, _ = moving
    witness = next(index for index in (3, 4, 5) if index in nodes.masters())
    until(lambda: nodes.client(0).info("replication")["connected_slaves"] == 1 and replicated(nodes, 0))
    tags = tagged(nodes, 0, 2)
    settings = PATIENT | {"backend_silence_ms": 4000}
    with LocalCluster(shards=0, backend=nodes.url, **settings) as front:

        def stop() -> None:
            nodes.stop_node(0)
            until(lambda: nodes.owner_of(tags[0], asked=witness) == 3)

        try:
            pushers = pushing(front.port, [tag + b"stopped" for tag in tags], stop, after=2.0)
        finally:
            nodes.continue_node(0)
        errors = [error for pusher in pushers for error in pusher.errors]
        assert all(command == "RPUSH" and "UNCERTAIN" in text for command, text in errors), errors
        assert len(errors) <= CLIENTS * BATCH
        # It is a replica by now, and says so to nobody's surprise.
        until(lambda: nodes.client(0).info("replication")["role"] == "slave")
        with redis.Redis(port=front.port) as client:
            for pusher in pushers:
                pusher.check(client, complete=False)
