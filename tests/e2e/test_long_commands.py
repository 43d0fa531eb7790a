"""Large values between the shards of a real cluster: they arrive, nobody stands still meanwhile, and a killed process loses none."""

from __future__ import annotations

from typing import Any

import pytest
from cluster import Cluster, Connection, until
from waiters import readable

from kache.errors import CommandError

SIZE = 128 << 20


def fill(connection: Connection, key: str, members: range) -> None:
    for start in range(0, len(members), 5000):
        connection.send(("sadd", key, *(f"member:{number}" for number in members[start : start + 5000])))
    for _ in range(0, len(members), 5000):
        assert not isinstance(connection.read(), CommandError)


def test_algebra_moves_and_copies_of_many_elements() -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        (one, to, *_), (other, copied, moved, *_) = cluster.keys_by_shard(4)
        fill(connection, one, range(60_000))
        fill(connection, other, range(30_000, 90_000))
        assert connection.request("sunionstore", to, one, other) == 90_000
        assert connection.request("sinterstore", moved, one, other) == 30_000
        assert connection.request("sintercard", 2, one, other) == 30_000
        assert connection.request("zunionstore", moved, 2, one, other, "weights", 1, 2) == 90_000
        assert connection.request("zscore", moved, "member:30000") == b"3"
        assert len(connection.request("sdiff", one, other)) == 30_000
        assert len(connection.request("sunion", one, other)) == 90_000
        assert connection.request("copy", to, copied) == 1
        assert connection.request("scard", copied) == connection.request("scard", to) == 90_000
        assert connection.request("copy", to, copied) == 0
        assert connection.request("pexpire", to, 90_000) == 1
        assert connection.request("rename", to, moved) == "OK"
        assert connection.request("scard", moved) == 90_000
        assert 80_000 < connection.request("pttl", moved) <= 90_000
        assert connection.request("exists", to) == 0
        # BITOP and the like read copies that are too large for one part, too.
        assert connection.request("setrange", to, 999_999, "x") == 1_000_000
        assert connection.request("del", moved) == 1
        assert connection.request("bitop", "not", moved, to) == 1_000_000


def moving(cluster: Cluster, connection: Connection, keys: list[list[str]]) -> None:
    """A RENAME of a large string over shards is under way."""
    assert connection.request("setrange", keys[0][0], SIZE - 1, "x") == SIZE
    with cluster.connect() as other:
        before = used_memory(other)
        connection.send(("rename", keys[0][0], keys[1][0]))

        def under_way() -> bool:
            if readable(connection):  # it was over before anybody looked: back, and again
                assert connection.read() == "OK"
                assert connection.request("rename", keys[1][0], keys[0][0]) == "OK"
                connection.send(("rename", keys[0][0], keys[1][0]))
            return used_memory(other) > before + (8 << 20) and not readable(connection)

        until(under_way, "the value under construction")


def used_memory(connection: Connection) -> int:
    return int(dict_of(connection.request("info", "memory"))["used_memory"])


def dict_of(info: bytes) -> dict[str, str]:
    lines = info.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


@pytest.mark.parametrize("killed", ["destination", "source", "router"])
def test_a_process_is_killed_while_a_value_moves(killed: str) -> None:
    with Cluster(2) as cluster:
        keys = cluster.keys_by_shard(2)
        source, destination = keys[0][0], keys[1][0]
        with cluster.connect() as connection:
            moving(cluster, connection, keys)
            role, index = {"destination": ("shard", 1), "source": ("shard", 0), "router": ("router", 0)}[killed]
            cluster.kill(cluster.pid_of(role, index))
            reply: Any
            try:
                reply = connection.read()
            except (ConnectionError, OSError):
                reply = None
        until(lambda: cluster.child(role, index)["restarts"] == 1 and cluster.child(role, index)["state"] == "up", "it")
        with cluster.connect() as connection:
            until(lambda: not isinstance(connection.request("mget", source, destination), CommandError), "its recovery")
            here = connection.request("strlen", source)
            there = connection.request("strlen", destination)
            assert here in (0, SIZE) and there in (0, SIZE)
            if killed == "source":
                # What it held is gone with it; the destination has all of it or nothing.
                assert there == 0 or reply == "OK" or reply.code == "UNCERTAIN"
            elif reply == "OK":
                assert (here, there) == (0, SIZE if killed == "router" else there)
            elif reply is None:
                # What the router that died would have answered is not known: all of it is in one place.
                assert (here, there) in ((SIZE, 0), (0, SIZE))
            else:
                assert here == SIZE
            if killed == "router":
                # The locks end with the router's links, and what was under construction with them.
                place = source if here else destination
                until(lambda: connection.request("append", place, "y") == SIZE + 1, "the end of the lock")
                until(
                    lambda: int(dict_of(connection.request("info", "memory"))["used_memory"]) < 3 * SIZE // 2,
                    "the end of what was under construction",
                )


def test_others_do_not_wait_for_a_large_value() -> None:
    """While 128 MiB move, which takes a few hundred milliseconds, somebody else is answered all along."""
    with Cluster(2) as cluster, cluster.connect() as connection, cluster.connect() as other:
        keys = cluster.keys_by_shard(2)

        def answered_meanwhile() -> int:
            moving(cluster, connection, keys)
            answered = 0
            while not readable(connection):
                assert other.request("mget", keys[0][1], keys[1][1]) == [None, None]
                answered += 1
            assert connection.read() == "OK"
            assert connection.request("del", keys[1][0]) == 1
            return answered

        # On a machine that does other things it may be somebody else who waits: not every time.
        until(lambda: answered_meanwhile() > 20, "many replies while one value moves")
