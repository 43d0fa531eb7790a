"""What users and addresses may take, over two routers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection, encode, until

from kache.errors import CommandError

OF_USER = CommandError("ERR max number of clients of this user reached")
OF_ADDRESS = CommandError("ERR max number of clients of this address reached (maxclients-per-address)")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, routers=2) as running:
        yield running


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Connection]:
    """A connection of the default user; users and settings are as before behind it."""
    with cluster.connect() as connection:
        yield connection
        names = [name for name in connection.request("acl", "users") if name != b"default"]
        connection.request("acl", "setuser", "default", "resetlimits")
        if names:
            connection.request("acl", "deluser", *names)
        connection.request("config", "set", "maxclients-per-address", 0)


def setuser(admin: Connection, *rules: str, name: str = "ada") -> None:
    assert admin.request("acl", "setuser", name, "on", ">pw", "+@all", "~*", *rules) == "OK"


def login(cluster: Cluster, name: str = "ada") -> tuple[Connection, object]:
    connection = cluster.connect()
    return connection, connection.request("auth", name, "pw")


def closed(connections: list[Connection]) -> None:
    for each in connections:
        each.close()


# Clients ------------------------------------------------------------------------------------------------------------


def test_no_user_has_more_clients_than_it_may(cluster: Cluster, admin: Connection) -> None:
    setuser(admin, "limit:clients=5")
    assert admin.request("acl", "getuser", "ada")[-2:] == [b"limits", b"limit:clients=5"]
    found = [login(cluster) for _ in range(8)]
    connections = [connection for connection, _ in found]
    assert [reply for _, reply in found] == ["OK"] * 5 + [OF_USER] * 3
    # Who is in may say so again; who was refused goes on as who it was.
    assert connections[0].request("auth", "ada", "pw") == "OK"
    assert connections[7].request("acl", "whoami") == b"default"
    assert connections[7].request("hello", 3, "auth", "ada", "pw") == OF_USER
    connections.pop(0).close()
    until(lambda: connections[-1].request("auth", "ada", "pw") == "OK", "the place of who has left")
    assert connections[0].request("reset") == "RESET"
    assert connections[-2].request("auth", "ada", "pw") == "OK"
    closed(connections)


def test_those_who_are_here_count_when_the_limit_comes_later(cluster: Cluster, admin: Connection) -> None:
    setuser(admin)
    connections = [login(cluster)[0] for _ in range(4)]
    setuser(admin, "limit:clients=4")
    late, reply = login(cluster)
    assert reply == OF_USER
    assert all(connection.request("ping") == "PONG" for connection in connections)
    setuser(admin, "resetlimits")
    assert late.request("auth", "ada", "pw") == "OK"
    closed([*connections, late])


def test_a_router_that_ends_takes_its_clients_out_of_the_count(cluster: Cluster, admin: Connection) -> None:
    setuser(admin, "limit:clients=6")
    connections = [login(cluster)[0] for _ in range(6)]
    for index in range(2):
        pid = cluster.pid_of("router", index)
        cluster.kill(pid)
        until(lambda index=index, pid=pid: cluster.pid_of("router", index) not in (0, pid), "another router")
        until(lambda index=index: cluster.child("router", index)["state"] == "up", "it serves")
    closed(connections)
    found = [login(cluster) for _ in range(7)]
    assert [reply for _, reply in found] == ["OK"] * 6 + [OF_USER]
    closed([connection for connection, _ in found])
    admin.close()
    with cluster.connect() as again:  # the fixture's own went with its router
        again.request("acl", "deluser", "ada")
    admin.socket = cluster.connect().socket


def test_the_default_user_is_limited_at_the_door(cluster: Cluster, admin: Connection) -> None:
    others = int(admin.request("info", "clients").decode().split("connected_clients:")[1].split("\r\n")[0])
    assert admin.request("acl", "setuser", "default", f"limit:clients={others + 2}") == "OK"
    connections = [cluster.connect() for _ in range(2)]
    assert [each.request("ping") for each in connections] == ["PONG"] * 2
    with cluster.connect() as one_more:
        assert one_more.read() == OF_USER
    closed(connections)


# Addresses ------------------------------------------------------------------------------------------------------------


def test_no_address_has_more_connections_than_it_may(cluster: Cluster, admin: Connection) -> None:
    before = [cluster.connect() for _ in range(3)]
    assert all(each.request("ping") == "PONG" for each in before)
    # Those that are here count: three, and the administrator's own.
    assert admin.request("config", "set", "maxclients-per-address", 6) == "OK"
    two = [cluster.connect() for _ in range(2)]
    assert all(each.request("ping") == "PONG" for each in two)
    with cluster.connect() as refused:
        assert refused.read() == OF_ADDRESS
    before.pop().close()

    def there_is_room() -> bool:
        with cluster.connect() as again:
            return again.request("ping") == "PONG"

    until(there_is_room, "the place of who has left")
    assert admin.request("config", "set", "maxclients-per-address", 0) == "OK"
    assert there_is_room()
    closed([*before, *two])


# What is sent in a second -----------------------------------------------------------------------------------------------


def commands_in(connections: list[Connection], seconds: float, command: tuple[object, ...]) -> float:
    """Commands a second that these connections have answered, each in a thread, as fast as they can."""
    done = [0] * len(connections)
    began = time.monotonic()
    pipeline = encode(command) * 50

    def work(which: int, connection: Connection) -> None:
        while time.monotonic() - began < seconds:
            connection.socket.sendall(pipeline)
            connection.read_many(50)
            done[which] += 50

    threads = [threading.Thread(target=work, args=each) for each in enumerate(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - began)


def test_commands_a_second_are_held_back_without_an_error(cluster: Cluster, admin: Connection) -> None:
    setuser(admin, "limit:commands=2000")
    connections = [login(cluster)[0] for _ in range(4)]
    rate = commands_in(connections, 1.5, ("get", "k"))
    # On a machine that has no time for as many it may be fewer; never more, but for a pipeline of each.
    assert rate <= 2000 * 1.1 + 4 * 50 / 1.5, rate
    # The others are as fast as ever: far beyond that limit.
    with cluster.connect() as other:
        free = commands_in([other], 0.5, ("get", "k"))
    assert free > rate
    setuser(admin, "resetlimits")
    assert connections[0].request("ping") == "PONG"
    closed(connections)


def test_few_commands_a_second_are_few(cluster: Cluster, admin: Connection) -> None:
    setuser(admin, "limit:commands=5")
    connection, _ = login(cluster)
    began = time.monotonic()
    for _ in range(6):
        assert connection.request("ping") == "PONG"
    assert time.monotonic() - began > 0.7
    connection.close()


def test_bytes_a_second_are_held_back(cluster: Cluster, admin: Connection) -> None:
    setuser(admin, "limit:input=1mb")
    connection, _ = login(cluster)
    began = time.monotonic()
    for _ in range(8):
        assert connection.request("set", "large", b"x" * 250_000) == "OK"
    # Two megabytes: what came in the last window is a debt that nobody has paid yet.
    assert time.monotonic() - began > 1.2
    connection.close()
    admin.request("del", "large")


# Memory -----------------------------------------------------------------------------------------------------------------


def test_the_largest_client_of_a_user_that_takes_too_much_goes(cluster: Cluster, admin: Connection) -> None:
    setuser(admin, "limit:memory=4mb")
    setuser(admin, name="bob")
    admin.request("set", "large", b"x" * 1_000_000)
    small, _ = login(cluster)
    greedy, _ = login(cluster)
    other, _ = login(cluster, "bob")
    try:
        for each in (greedy, other):
            each.socket.sendall(encode(("get", "large")) * 100)  # and read none of it
        until(
            lambda: b"user=ada" in large_clients(admin, b"ada", 1) and large_clients(admin, b"ada", 2) == b"",
            "it is gone",
        )
        assert small.request("ping") == "PONG"
        assert len(large_clients(admin, b"bob", 1)) > 0  # who has no limit stays
    finally:
        closed([small, greedy, other])
        admin.request("del", "large")


def large_clients(admin: Connection, user: bytes, least: int) -> bytes:
    """The lines of a user's clients, if there are at least so many."""
    lines = [line for line in admin.request("client", "list").splitlines() if b" user=%b " % user in line]
    return b"\n".join(lines) if len(lines) >= least else b""
