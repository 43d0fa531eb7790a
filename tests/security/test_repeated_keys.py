"""Commands of several keys that are given the same key twice, on one shard and over two: no crash, no half of an effect.

Values are those of a real server (7.0). Peers have crashed here: a key that the first half of a command has just changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

from kache.errors import CommandError

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        before = [child["pid"] for child in running.status()["children"]]
        yield running
        assert [child["pid"] for child in running.status()["children"]] == before
        assert "Traceback" not in running.log()


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("flushall")
        yield connection


def names(cluster: Cluster, spread: bool) -> tuple[str, str]:
    """Two keys, of one shard or of two."""
    first, second = cluster.keys_by_shard(2)
    return (first[0], second[0]) if spread else (first[0], first[1])


CASES = [
    # set up; command; reply; key and what it must hold then ("x" and "y" stand for the two keys)
    ([("set", "x", 1), ("set", "y", 2)], ("del", "x", "y", "x", "y"), 2, ("exists", "x", "y"), 0),
    ([("set", "x", 1), ("set", "y", 2)], ("unlink", "x", "y", "x"), 2, ("dbsize",), 0),
    ([("set", "x", 1), ("set", "y", 2)], ("exists", "x", "y", "x", "x"), 4, ("dbsize",), 2),
    ([("set", "x", 1), ("set", "y", 2)], ("touch", "x", "y", "x"), 3, ("dbsize",), 2),
    ([("set", "x", 1), ("set", "y", 2)], ("mget", "x", "y", "x"), [b"1", b"2", b"1"], ("dbsize",), 2),
    ([], ("mset", "x", 1, "y", 2, "x", 3), "OK", ("mget", "x", "y"), [b"3", b"2"]),
    ([], ("msetnx", "x", 1, "y", 2, "x", 3), 1, ("mget", "x", "y"), [b"3", b"2"]),
    ([("set", "x", 0)], ("msetnx", "x", 1, "y", 2, "x", 3), 0, ("mget", "x", "y"), [b"0", None]),
    ([("sadd", "x", "a", "b"), ("sadd", "y", "b")], ("sinter", "x", "y", "x"), [b"b"], ("dbsize",), 2),
    ([("sadd", "x", "a", "b"), ("sadd", "y", "c")], ("sunionstore", "x", "x", "y", "x"), 3, ("scard", "x"), 3),
    ([("sadd", "x", "a", "b"), ("sadd", "y", "b")], ("sdiffstore", "x", "x", "x", "y"), 0, ("exists", "x"), 0),
    ([("sadd", "x", "a", "b"), ("sadd", "y", "b")], ("sinterstore", "y", "x", "y", "y"), 1, ("scard", "y"), 1),
    ([("sadd", "x", "a"), ("sadd", "y", "b")], ("sintercard", 4, "x", "x", "y", "y"), 0, ("dbsize",), 2),
    ([("zadd", "x", 1, "a"), ("zadd", "y", 2, "a")], ("zunionstore", "x", 3, "x", "y", "x"), 1, ("zscore", "x", "a"), b"4"),
    ([("zadd", "x", 1, "a"), ("zadd", "y", 2, "a")], ("zinterstore", "y", 3, "y", "x", "y"), 1, ("zscore", "y", "a"), b"5"),
    ([("zadd", "x", 1, "a"), ("zadd", "y", 2, "b")], ("zdiffstore", "x", 3, "x", "x", "y"), 0, ("exists", "x"), 0),
    ([("pfadd", "x", "a", "b"), ("pfadd", "y", "c")], ("pfmerge", "x", "x", "y", "x"), "OK", ("pfcount", "x", "x", "y"), 3),
    ([("set", "x", "ab"), ("set", "y", "a")], ("bitop", "or", "x", "x", "y", "x"), 2, ("get", "x"), b"ab"),
    ([("set", "x", 1)], ("rename", "x", "x"), "OK", ("get", "x"), b"1"),
    ([("set", "x", 1)], ("renamenx", "x", "x"), 0, ("get", "x"), b"1"),
    ([("rpush", "x", "a", "b", "c")], ("lmove", "x", "x", "left", "right"), b"a", ("lrange", "x", 0, -1), [b"b", b"c", b"a"]),
    ([("rpush", "x", "a", "b")], ("rpoplpush", "x", "x"), b"b", ("lrange", "x", 0, -1), [b"b", b"a"]),
    ([("sadd", "x", "a")], ("smove", "x", "x", "a"), 1, ("scard", "x"), 1),
    ([("rpush", "x", "a")], ("lmpop", 3, "y", "x", "x", "left"), None, ("exists", "x"), 0),
    ([("zadd", "x", 1, "a")], ("zmpop", 3, "y", "x", "x", "min"), None, ("exists", "x"), 0),
    ([("rpush", "x", "a")], ("blpop", "y", "x", "x", 1), None, ("exists", "x"), 0),
    ([("set", "x", 1)], ("watch", "x", "y", "x"), "OK", ("unwatch",), "OK"),
    ([("rpush", "x", 2, 1)], ("sort", "x", "store", "x"), 2, ("lrange", "x", 0, -1), [b"1", b"2"]),
    ([("set", "x", "abc")], ("lcs", "x", "x", "len"), 3, ("dbsize",), 1),
    ([("geoadd", "x", 1, 1, "a")], ("geosearchstore", "x", "x", "frommember", "a", "byradius", 9, "km"), 1, ("zcard", "x"), 1),
]  # fmt: skip


@pytest.mark.parametrize("spread", [False, True], ids=["one shard", "two shards"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case[1])))
def test_the_same_key_twice(cluster: Cluster, connection: Connection, case: tuple, spread: bool) -> None:
    first, second = names(cluster, spread)
    meant = {"x": first, "y": second}
    prepared, command, reply, look, held = case
    for each in prepared:
        connection.request(*(meant.get(word, word) for word in each))
    found = connection.request(*(meant.get(word, word) for word in command))
    assert not isinstance(found, CommandError), found
    if reply is not None:
        assert found == reply
    assert connection.request(*(meant.get(word, word) for word in look)) == held


def test_copy_onto_itself_is_refused(cluster: Cluster, connection: Connection) -> None:
    connection.request("set", "k", 1)
    assert isinstance(connection.request("copy", "k", "k"), CommandError)
    assert connection.request("copy", "k", "k", "db", 1) == 1
