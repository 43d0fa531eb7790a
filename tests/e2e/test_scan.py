"""SCAN over a cluster, as clients see it whose numbers are doubles, and as those do who take one call for a small database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, Connection

MOST_EXACT = 2**53
"""Up to here every whole number is a double; a JavaScript client keeps a cursor as one."""


@pytest.fixture(scope="module")
def four() -> Iterator[Cluster]:
    with Cluster(4) as running:
        yield running


def walk(connection: Connection, *command: Any, after: tuple[Any, ...] = ()) -> tuple[list[bytes], int]:
    """(what a complete iteration returns, calls), the cursor kept as a double in between."""
    found: list[bytes] = []
    cursor, calls = 0.0, 0
    while True:
        following, page = connection.request(*command, f"{cursor:.0f}", *after)
        assert int(following) < MOST_EXACT
        cursor = float(following)
        found += page
        calls += 1
        if cursor == 0:
            return found, calls


@pytest.mark.parametrize("count", [1, 7, 100])
def test_a_scan_with_cursors_kept_as_doubles_is_complete(four: Cluster, count: int) -> None:
    with four.connect() as connection:
        connection.request("flushall")
        connection.send(*[("set", f"key:{number}", "v") for number in range(2000)])
        # One slot with many keys: its places are the lower part of a cursor.
        connection.send(*[("set", f"{{one}}:{number}", "v") for number in range(3000)])
        connection.read_many(5000)
        found, _ = walk(connection, "scan", after=("count", count))
        wanted = {f"key:{n}".encode() for n in range(2000)} | {f"{{one}}:{n}".encode() for n in range(3000)}
        assert len(found) == 5000 and set(found) == wanted


@pytest.mark.parametrize("kind", ["hscan", "sscan", "zscan"])
def test_cursors_within_a_value_are_doubles_too(four: Cluster, kind: str) -> None:
    with four.connect() as connection:
        connection.request("flushall")
        names = [f"name:{number}" for number in range(5000)]
        if kind == "hscan":
            connection.request("hset", "k", *[word for name in names for word in (name, "1")])
        elif kind == "sscan":
            connection.request("sadd", "k", *names)
        else:
            connection.request("zadd", "k", *[word for name in names for word in ("1", name)])
        found, calls = walk(connection, kind, "k", after=("count", 50))
        assert set(found if kind == "sscan" else found[::2]) == {name.encode() for name in names} and calls > 50


def test_a_small_database_comes_with_the_first_call(four: Cluster) -> None:
    with four.connect() as connection:
        for keys in four.keys_by_shard(2):
            connection.request("flushall")
            connection.request("set", keys[0], "v")
            assert connection.request("scan", 0) == [b"0", [keys[0].encode()]]
        connection.request("flushall")
        every = [key for keys in four.keys_by_shard(2) for key in keys]
        connection.send(*[("set", key, "v") for key in every])
        connection.read_many(8)
        cursor, found = connection.request("scan", 0)
        assert cursor == b"0" and sorted(found) == sorted(key.encode() for key in every)


def test_count_is_what_is_looked_at_whatever_a_filter_lets_through(four: Cluster) -> None:
    with four.connect() as connection:
        connection.request("flushall")
        connection.send(*[("set", f"key:{number}", "v") for number in range(1000)])
        connection.read_many(1000)
        for options in (("match", "no*"), ("type", "list")):
            found, calls = walk(connection, "scan", after=(*options, "count", 100))
            assert not found and 9 <= calls <= 14
        # Across the ends of the shards the pages stay full.
        cursor, pages = b"0", []
        while not pages or cursor != b"0":
            cursor, page = connection.request("scan", cursor, "count", 100)
            pages.append(len(page))
        assert sum(pages) == 1000 and min(pages[:-1]) >= 100
