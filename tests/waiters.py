"""What tests of commands that wait share: a cluster's clients that wait, and keys of every shard with nothing in them.

wait(cluster, connection, "blpop", "k", 0)     sent, and it waits
silent(connection, other)                      nobody has been answered
once_busy(cluster, "k")                        a connection that is told BUSY for a key
"""

from __future__ import annotations

import select
from collections.abc import Callable

from cluster import DEADLINE, Cluster, Connection, until

__all__ = ["blocked", "empty_keys", "of_router", "once_busy", "readable", "silent", "wait"]

SOON = 0.1
"""Seconds in which a command that does not wait has long been answered."""


def blocked(cluster: Cluster) -> int:
    """How many clients wait, by INFO."""
    found = cluster.request("info", "clients")
    return int(found.split(b"blocked_clients:")[1].split()[0])


def wait(cluster: Cluster, connection: Connection, *words: object) -> None:
    """Sends a command and returns when it waits, or has been answered: on a slow machine its time may be over."""
    number = connection.request("client", "id")
    with cluster.connect() as other:

        def waits() -> bool:
            return b" flags=b " in bytes(other.request("client", "list", "id", number))

        connection.send(words)
        until(lambda: waits() or readable(connection), f"{words[0]} waits")


def once_busy(cluster: Cluster, key: str, connect: Callable[[], Connection] | None = None) -> Connection:
    """A new connection whose router knows that the key's shard runs a script for too long.

    It is asked anew each time: what the shard has executed just before the script has its reply behind that.
    """

    def look() -> Connection | None:
        connection = (connect or cluster.connect)()
        connection.socket.settimeout(1.0)
        try:
            if str(connection.request("GET", key)).startswith("BUSY"):
                connection.socket.settimeout(DEADLINE)
                return connection
        except TimeoutError:
            pass
        connection.close()
        return None

    found: Connection = until(look, "a busy shard says so")
    return found


def readable(*connections: Connection, seconds: float = 0.0) -> bool:
    """Whether one of them has something to read, now or within this time."""
    return bool(select.select([each.socket for each in connections], [], [], seconds)[0])


def silent(*connections: Connection) -> bool:
    """Whether none of them has anything to read, for a while."""
    return not readable(*connections, seconds=SOON)


def empty_keys(cluster: Cluster) -> list[str]:
    """A key of every shard; nothing is stored and nobody waits."""
    until(lambda: blocked(cluster) == 0, "nobody waits any more")
    cluster.request("flushall")
    return [found[0] for found in cluster.keys_by_shard()]


def of_router(cluster: Cluster, router: int) -> Connection:
    """A connection to one of the routers; ids have the router's index above bit 48."""
    others: list[Connection] = []
    while True:
        connection = cluster.connect()
        if connection.request("client", "id") >> 48 == router:
            for each in others:
                each.close()
            return connection
        others.append(connection)
