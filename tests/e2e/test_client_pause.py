"""CLIENT PAUSE: clients of every router wait, all of them or those that write, and go on where they were."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

SOON = 0.15
"""Seconds in which an unpaused cluster has long answered."""
LONG_MS = 60_000


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    with Cluster(2, routers=2) as running:
        yield running


@pytest.fixture
def near(pair: Cluster) -> Iterator[Connection]:
    with pair.of_router(0) as connection:
        yield connection


@pytest.fixture
def far(pair: Cluster) -> Iterator[Connection]:
    with pair.of_router(1) as connection:
        yield connection


def silent(*connections: Connection) -> bool:
    return not select.select([each.socket for each in connections], [], [], SOON)[0]


def test_all_clients_wait_until_the_time_is_over(pair: Cluster, near: Connection, far: Connection) -> None:
    began = time.monotonic()
    assert near.request("client", "pause", 600) == "OK"
    near.send(("set", "a", 1), ("get", "a"))
    far.send(("get", "a"))
    with pair.connect() as late:
        late.send(("ping",))
        assert silent(near, far, late) or time.monotonic() - began > 0.6
        assert near.read_many(2) == ["OK", b"1"] and late.read() == "PONG"
        assert far.read() in (b"1", None)
    assert 0.5 < time.monotonic() - began < 20


def test_writing_clients_alone_wait_until_they_may_go_on(near: Connection, far: Connection) -> None:
    assert far.request("del", "k", "l") >= 0
    assert near.request("client", "pause", LONG_MS, "write") == "OK"
    assert near.request("get", "k") is None and far.request("exists", "k") == 0
    far.send(("get", "k"), ("set", "k", "v"), ("get", "k"), ("pfadd", "h", "a"))
    near.send(("mget", "k", "l"), ("mset", "k", 2, "l", 2))
    assert far.read() is None and near.read() == [None, None]
    assert silent(near, far)
    with near_again(near) as other:
        assert other.request("client", "unpause") == "OK"
    assert far.read_many(3)[0] == "OK" and near.read() == "OK"
    assert near.request("del", "k", "l", "h") == 3


def near_again(connection: Connection) -> Connection:
    return Connection(connection.socket.getpeername()[1])


def test_a_weaker_or_shorter_pause_takes_nothing_back(near: Connection, far: Connection) -> None:
    began = time.monotonic()
    near.send(("client", "pause", 500, "all"))
    assert near.read() == "OK"
    far.send(("client", "pause", 1, "write"), ("get", "k"))
    assert silent(far) or time.monotonic() - began > 0.5
    assert far.read_many(2) == ["OK", None] and time.monotonic() - began > 0.4


def test_a_client_that_goes_while_paused_is_forgotten(pair: Cluster, near: Connection) -> None:
    with pair.connect() as leaver:
        leaver.request("ping")
        assert near.request("client", "pause", 400) == "OK"
        leaver.send(("set", "left", 1))
    assert near.request("ping") == "PONG"


def start_again(cluster: Cluster, router: int) -> None:
    pid = cluster.pid_of("router", router)
    cluster.kill(pid)
    cluster.replaced("router", router, pid)


def test_a_router_that_starts_again_goes_on_with_the_pause(pair: Cluster, near: Connection) -> None:
    assert near.request("client", "pause", LONG_MS, "write") == "OK"
    start_again(pair, 1)
    with pair.of_router(1) as far:
        far.send(("get", "k"), ("set", "k", 1))
        assert far.read() is None
        assert silent(far)
        assert near.request("client", "unpause") == "OK"
        assert far.read() == "OK"
    start_again(pair, 1)
    with pair.of_router(1) as far:
        assert far.request("del", "k") == 1
