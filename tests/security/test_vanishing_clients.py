"""Clients that vanish inside their own or another's command, in every order: killed, reset, half-closed, in one batch.

Peers have freed what a command still used. The orders here are those of one pipeline, which the router reads at once, and of
connections that are ready together.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest
from cluster import DEADLINE, Cluster, Connection, encode, until


@pytest.fixture(scope="module", params=["epoll", "loop"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(2, reactor=request.param) as running:
        before = [child["pid"] for child in running.status()["children"]]
        yield running
        assert [child["pid"] for child in running.status()["children"]] == before
        assert "Traceback" not in running.log() and "out of step" not in running.log()


AT_WORK: tuple[tuple[tuple[object, ...], ...], ...] = (
    (("blpop", "nothing", 0),),
    (("blmove", "nothing", "elsewhere", "left", "right", 0),),
    (("xread", "block", 0, "streams", "nothing", "$"),),
    (("subscribe", "news"),),
    (("monitor",),),
    (("client", "tracking", "on"), ("get", "tracked")),
    (("multi",), ("set", "a", 1), ("set", "b", 2)),
    (("watch", "a", "b", "c"),),
    tuple(("mget", *(f"key:{number}" for number in range(50))) for _ in range(50)),
    tuple(("get", "large") for _ in range(100)),
    (("keys", "*"),),
    (("wait", 0, 1),),
)


def closed(connection: Connection) -> bool:
    """Whether the other side has closed it, whatever it said before."""
    try:
        while connection.socket.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


def reset(connection: Connection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("order", ["as they came", "backwards", "shuffled"])
def test_killed_by_another_inside_one_pipeline(cluster: Cluster, order: str) -> None:
    cluster.request("set", "large", "x" * 200_000)
    victims = [cluster.connect() for _ in range(3 * len(AT_WORK))]
    ids = [victim.request("client", "id") for victim in victims]
    for number, victim in enumerate(victims):
        victim.send(*AT_WORK[number % len(AT_WORK)])
    if order == "backwards":
        ids.reverse()
    elif order == "shuffled":
        random.Random(6).shuffle(ids)
    with cluster.connect() as killer:
        killer.send(
            *(
                each
                for id in ids
                for each in (("client", "kill", "id", id), ("publish", "news", "x"), ("set", "tracked", id))
            )
        )
        assert killer.read_many(3 * len(ids))[::3] == [1] * len(ids)
        assert killer.request("ping") == "PONG"
    assert all(closed(victim) for victim in victims)
    for victim in victims:
        victim.close()


def test_killing_oneself_in_the_middle(cluster: Cluster) -> None:
    for before in AT_WORK:
        with cluster.connect() as connection:
            id = connection.request("client", "id")
            connection.send(("client", "kill", "id", id, "skipme", "no"), *before, ("ping",))
            assert closed(connection)
        with cluster.connect() as connection:
            id = connection.request("client", "id")
            connection.send(*before, ("client", "kill", "id", id, "skipme", "no"))
            connection.socket.shutdown(socket.SHUT_WR)
            assert closed(connection)
    assert cluster.request("ping") == "PONG"


def test_reset_at_every_moment(cluster: Cluster) -> None:
    dice = random.Random(7)
    with cluster.connect() as neighbour:
        for number in range(250):
            connection = cluster.connect()
            data = b"".join(map(encode, dice.choice(AT_WORK)))
            connection.socket.sendall(data[: dice.randint(1, len(data))])
            if dice.random() < 0.3:
                neighbour.send(
                    ("publish", "news", number), ("set", "tracked", number), ("rpush", "nothing", 1), ("del", "nothing")
                )
                neighbour.read_many(4)
            if dice.random() < 0.5:
                reset(connection)
            else:
                connection.close()
            assert neighbour.request("echo", number) == str(number).encode()
    until(lambda: "blocked_clients:0" in str(cluster.request("info", "clients")), "nobody waits any more")


def test_everybody_at_once(cluster: Cluster) -> None:
    """Whose ends come in one batch: each is served or closed, and what they had is given back."""
    cluster.request("set", "large", "x" * 200_000)
    for round in range(5):
        connections = [cluster.connect() for _ in range(60)]
        for number, connection in enumerate(connections):
            connection.send(*AT_WORK[(number + round) % len(AT_WORK)])
        for number, connection in enumerate(connections):
            if number % 3 == 0:
                reset(connection)
            elif number % 3 == 1:
                connection.socket.shutdown(socket.SHUT_RDWR)
                connection.close()
            else:
                connection.close()
        assert cluster.request("ping") == "PONG"
    until(lambda: "connected_clients:1" in str(cluster.request("info", "clients")), "nobody is left", DEADLINE)
    assert "watching_clients:0" in str(cluster.request("info", "clients"))
