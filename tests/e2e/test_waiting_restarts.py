"""Rolling restarts of shards that keep a log, under clients that wait: the new process loads what it kept before it serves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, Connection, until
from waiters import blocked, silent, wait

from kache.errors import CommandError
from kache.replies import NULL_ARRAY

SHARDS = 2
FILLING = 40_000
"""Keys, so that loading takes a moment."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the log and enough in it that a shard which has just started is seen loading."""
    with Cluster(SHARDS, routers=2, appendonly="yes", dir=str(tmp_path_factory.mktemp("log"))) as running:
        with running.connect() as connection:
            for first in range(0, FILLING, 1000):
                connection.send(*[("set", f"filling:{number}", "v" * 200) for number in range(first, first + 1000)])
                connection.read_many(1000)
        yield running


def restart(cluster: Cluster) -> None:
    for shard in range(SHARDS):
        cluster.kache("cluster", "restart", "--shard", shard, "--yes")
    cluster.serves()


def tags(cluster: Cluster) -> list[str]:
    """A hash tag of every shard."""
    return [f"{{{found[0]}}}" for found in cluster.keys_by_shard()]


def served(cluster: Cluster, waiter: Connection, *push: object) -> Any:
    """What a waiter gets from a command that is sent for it, as soon as its shard serves."""
    assert silent(waiter)
    cluster.request(*push)
    return waiter.read()


def test_all_wait_again_when_their_shard_has_loaded(two: Cluster) -> None:
    one, other = tags(two)
    for stream in (one + ":s", other + ":s"):
        two.request("xadd", stream, "5", "f", "old")
        two.request("xgroup", "create", stream, "g", "$")
    streams = [one + ":s", other + ":s"]
    commands: list[tuple[Any, ...]] = [
        ("blpop", one + ":a", 0),
        ("blpop", one + ":b", other + ":b", 0),
        ("bzpopmin", other + ":c", 600),
        ("blmove", one + ":d", other + ":d", "left", "right", 0),
        ("xreadgroup", "group", "g", "me", "block", 0, "streams", streams[0], ">"),
        ("xreadgroup", "group", "g", "other", "block", 0, "streams", *reversed(streams), ">", ">"),
        ("xread", "block", 0, "streams", streams[1], "$"),
        ("xread", "block", 0, "streams", *streams, "$", "$"),
    ]
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(two.connect()) for _ in commands]
        for waiter, command in zip(waiters, commands, strict=True):
            wait(two, waiter, *command)
        restart(two)
        until(lambda: blocked(two) == len(commands), "all wait again")
        assert two.request("exists", "filling:1", f"filling:{FILLING - 1}") == 2
        assert served(two, waiters[0], "rpush", one + ":a", "x") == [f"{one}:a".encode(), b"x"]
        assert served(two, waiters[1], "rpush", other + ":b", "x") == [f"{other}:b".encode(), b"x"]
        assert served(two, waiters[2], "zadd", other + ":c", "1", "x") == [f"{other}:c".encode(), b"x", b"1"]
        assert served(two, waiters[3], "rpush", one + ":d", "x") == b"x"
        found = [[streams[1].encode(), [[b"6-0", [b"f", b"new"]]]]]
        assert served(two, waiters[6], "xadd", streams[1], "6", "f", "new") == found
        assert waiters[7].read() == found and waiters[5].read() == found
        found = [[streams[0].encode(), [[b"7-0", [b"f", b"new"]]]]]
        assert served(two, waiters[4], "xadd", streams[0], "7", "f", "new") == found


def test_who_begins_to_wait_meanwhile_is_not_refused(two: Cluster) -> None:
    one, other = tags(two)
    stop = threading.Event()
    wrong: list[Any] = []
    for stream in (one + ":read", other + ":read"):
        two.request("xgroup", "create", stream, "g", "$", "mkstream")
    commands: list[tuple[Any, ...]] = [
        ("blpop", one + ":e", "0.02"),
        ("blpop", one + ":f", other + ":f", "0.02"),
        ("bzpopmax", other + ":f", "0.02"),
        ("blmove", one + ":f", other + ":f", "left", "right", "0.02"),
        ("xread", "block", "20", "streams", other + ":none", "$"),
        ("xread", "block", "20", "streams", other + ":none", one + ":none", "$", "$"),
        ("xreadgroup", "group", "g", "me", "block", "20", "streams", one + ":read", other + ":read", ">", ">"),
    ]
    rounds = [0] * len(commands)

    def ask(number: int) -> None:
        with two.connect() as connection:
            while not stop.is_set():
                reply = connection.request(*commands[number])
                rounds[number] += 1
                if reply is not NULL_ARRAY:
                    wrong.append((commands[number], reply))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(commands))]
    for thread in threads:
        thread.start()
    try:
        restart(two)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == [] and min(rounds) > 5


@pytest.mark.parametrize("attempt", range(3))
def test_a_stream_is_read_on_from_where_the_wait_began(two: Cluster, attempt: int) -> None:
    """`$` is the end of the stream when the command came, not when its shard is back: others may have added something."""
    stream = f"{tags(two)[0]}:{attempt}"
    two.request("xadd", stream, "5", "f", "old")
    away = threading.Event()

    def add(router: int) -> None:
        """Adds an entry as soon as the shard is back, at the latest while it is awaited that somebody has."""
        with two.of_router(router) as connection:
            while not away.is_set():
                if isinstance(connection.request("exists", stream), CommandError):
                    away.set()
            until(lambda: isinstance(connection.request("xadd", stream, "*", "f", "new"), bytes), "it is added")

    with two.of_router(0) as reader:
        wait(two, reader, "xread", "block", "0", "streams", stream, "$")
        threads = [threading.Thread(target=add, args=(router,)) for router in (0, 1)]
        for thread in threads:
            thread.start()
        two.kache("cluster", "restart", "--shard", 0, "--yes")
        away.set()
        for thread in threads:
            thread.join()
        [[_, entries]] = reader.read()
        assert entries == two.request("xrange", stream, "(5", "+")[: len(entries)]


def test_a_killed_shard_is_waited_on_again_when_it_has_loaded(two: Cluster) -> None:
    one, other = tags(two)
    with two.connect() as several:
        wait(two, several, "blpop", one + ":g", other + ":g", 0)
        pid = two.pid_of("shard", 1)
        two.kill(pid)
        two.replaced("shard", 1, pid)
        two.serves()
        assert served(two, several, "rpush", other + ":g", "x") == [f"{other}:g".encode(), b"x"]
