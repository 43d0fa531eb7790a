#!/usr/bin/env python3
"""What waiting costs: BLPOP's handover beside a plain command, and 10,000 clients that wait. `python bench/waiting.py`

A handover is the time from sending an RPUSH to reading what a waiting client is served, by another router. It is measured in
turns with a GET, which has as many hops (router, shard, router), against the same cluster, on one core's time: their ratio of
medians is the figure, the medians are those of this machine. A PUBLISH whose message takes the same way, to a subscriber of the
router that serves the waiting client, is measured beside them: what a handover takes beyond that is its own.

Exit status 1 when a bar is missed: handover p50 at most 1.5 times that of the GET, with all keys on one shard; 10,000
clients that wait on one key each less than 64 MiB, and no process of theirs more than 0.3 % of a core. What as many cost that
wait on four shards each is printed beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "soak"))

from cluster import Cluster, until
from idle import percent, processes, pss_mib
from wire import Connection, command

HANDOVER_BAR = 1.5
MEMORY_BAR = 64.0
CPU_BAR = 0.3


def settle(observer: Connection, waiting: int) -> None:
    """Returns when so many clients wait."""
    while b"blocked_clients:%d\r\n" % waiting not in observer.text("INFO", "clients"):
        pass


def round_trip(connection: Connection, request: bytes) -> float:
    """Microseconds until the reply to a request is here."""
    began = time.perf_counter_ns()
    connection.socket.sendall(request)
    connection.socket.recv(1000)
    return (time.perf_counter_ns() - began) / 1000


def apart(port: int, stack: contextlib.ExitStack) -> tuple[Connection, Connection, Connection]:
    """Somebody who waits, who listens, on the same router, and who pushes, on another one: the number of a client says whose
    it is."""
    found: dict[int, list[Connection]] = {}
    while len(found) < 2 or max(map(len, found.values())) < 2:
        one = stack.enter_context(Connection(port))
        found.setdefault(one.integer("CLIENT", "ID") >> 48, []).append(one)
    (waiter, listener, *_), (pusher, *_) = sorted(found.values(), key=len, reverse=True)
    return waiter, listener, pusher


def handover(waiter: Connection, pusher: Connection, push: bytes) -> float:
    """Microseconds from the push until the client that waits has the element, or the listener its message."""
    began = time.perf_counter_ns()
    pusher.socket.sendall(push)
    waiter.socket.recv(1000)
    took = (time.perf_counter_ns() - began) / 1000
    if not pusher.socket.recv(1000).startswith(b":"):
        raise SystemExit("a push was refused")
    return took


def compare(cluster: Cluster, rounds: int) -> bool:
    """Prints the medians of each form; whether the first meets its bar."""
    keys = [found[0] for found in cluster.keys_by_shard()]
    fine = True
    with contextlib.ExitStack() as stack:
        waiter, listener, pusher = apart(cluster.port, stack)
        observer = stack.enter_context(Connection(cluster.port))
        listener.socket.sendall(command("SUBSCRIBE", keys[0]))
        listener.socket.recv(1000)
        forms = {
            "one shard": command("BLPOP", keys[0], 0),
            "four shards": command("BLPOP", *keys, 0),
            "a move to another shard": command("BLMOVE", keys[0], keys[1], "LEFT", "RIGHT", 0),
        }
        plain, push = command("GET", "none" + keys[0]), command("RPUSH", keys[0], "element")
        publish = command("PUBLISH", keys[0], "element")
        for name, wait in forms.items():
            times: tuple[list[float], list[float], list[float]] = ([], [], [])
            for _ in range(rounds):
                settle(observer, 0)
                times[0].append(round_trip(pusher, plain))
                settle(observer, 0)
                times[2].append(handover(listener, pusher, publish))
                waiter.socket.sendall(wait)
                settle(observer, 1)
                times[1].append(handover(waiter, pusher, push))
            get, took, told = (statistics.median(each) for each in times)
            print(
                f"handover, {name}: p50 {took:.0f} us, GET {get:.0f} us, ratio {took / get:.2f}; a message {told:.0f} us"
            )
            pusher.call("DEL", *keys)
            fine = fine and (name != "one shard" or took / get <= HANDOVER_BAR)
    return fine


def many(cluster: Cluster, clients: int, seconds: float, keys: list[str]) -> bool:
    """Prints what so many waiting clients cost, each on these keys, or without any on one of its own; whether that meets the
    bars."""
    pids = processes(cluster)
    before = pss_mib(pids)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(Connection(cluster.port)) for _ in range(clients)]
        for number, each in enumerate(waiting):
            timeout = 0 if number % 4 < 2 else 10_000
            each.socket.sendall(command("BLPOP", *(keys or [f"queue:{number}"]), timeout))
        with cluster.connect() as connection:
            until(lambda: b"blocked_clients:%d\r\n" % clients in connection.request("info", "clients"), "all wait")
        used, more = percent(pids, seconds), pss_mib(pids) - before
    worst = max(used.values())
    form = "four shards each" if keys else "a key each"
    print(
        f"{clients:,} clients wait on {form}: + {more:.1f} MiB (bar {MEMORY_BAR:.0f}), worst process {worst:.3f} % (bar {CPU_BAR})"
    )
    return more < MEMORY_BAR and worst < CPU_BAR


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Cluster(4, routers=2, maxclients=chosen.clients + 100) as cluster:
        fine = compare(cluster, chosen.rounds)
        fine &= many(cluster, chosen.clients, chosen.seconds, [])
    with Cluster(4, routers=2, maxclients=chosen.clients + 100) as cluster:
        many(cluster, chosen.clients, chosen.seconds, [found[0] for found in cluster.keys_by_shard()])
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
