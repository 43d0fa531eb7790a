"""Numbers that are none, and sums beyond what a number can be: refused, and what is there can be read as before.

CVE-2023-28856 (HINCRBYFLOAT left a value that ended the process when it was read); https://nvd.nist.gov/vuln.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from cluster import Cluster, Connection

from kache.errors import CommandError

AMOUNTS = (
    "nan",
    "-nan",
    "inf",
    "-inf",
    "+inf",
    "infinity",
    "1e400",
    "-1e400",
    "1e5000",
    "0x1p99999",
    "",
    " 1",
    "1 ",
    "1e",
    "--1",
)
STORED = ("nan", "inf", "-inf", "1e400", "x", "", " 1", "9223372036854775807", "1.7976931348623157e308", "-0")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as running:
        before = running.pid_of("shard")
        yield running
        assert running.pid_of("shard") == before
        assert "Traceback" not in running.log()


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as found:
        found.request("flushall")
        yield found


def held(connection: Connection) -> list[object]:
    """The two numbers."""
    return [connection.request("get", "k"), connection.request("hget", "h", "f")]


def read_all(connection: Connection) -> None:
    """Whatever was left there is a value that everybody can read."""
    for words in (
        ("get", "k"), ("strlen", "k"), ("hgetall", "h"), ("hvals", "h"), ("zrange", "z", 0, -1, "withscores"),
        ("zscore", "z", "m"), ("dump", "k"), ("dump", "h"), ("dump", "z"), ("sort", "l"), ("debug", "help"),
    ):  # fmt: skip
        assert connection.request(*words) != "unread"
    score = connection.request("zscore", "z", "m")
    assert score is None or b"nan" not in bytes(score)


@pytest.mark.parametrize("stored", STORED)
def test_no_sum_is_no_number(connection: Connection, stored: str) -> None:
    for amount in AMOUNTS:
        connection.request("set", "k", stored)
        connection.request("hset", "h", "f", stored)
        connection.request("zadd", "z", 1, "m")
        for words in (
            ("incrbyfloat", "k", amount), ("hincrbyfloat", "h", "f", amount), ("incrby", "k", amount), ("hincrby", "h", "f", amount),
            ("decrby", "k", amount),
        ):  # fmt: skip
            before = held(connection)
            reply = connection.request(*words)
            if isinstance(reply, CommandError):
                assert held(connection) == before, (words, stored)
                continue
            # Sums of strings are of 80 bits, as Redis's are: more than a double can be.
            assert Decimal(reply if isinstance(reply, int) else reply.decode()).is_finite(), (words, stored, reply)
        read_all(connection)


def test_scores_meet_at_infinity(connection: Connection) -> None:
    connection.request("zadd", "z", "inf", "m")
    assert isinstance(connection.request("zincrby", "z", "-inf", "m"), CommandError)
    assert connection.request("zscore", "z", "m") == b"inf"
    connection.request("zadd", "y", "-inf", "m")
    assert connection.request("zunionstore", "d", 2, "z", "y") == 1
    assert connection.request("zscore", "d", "m") == b"0"
    assert connection.request("zunionstore", "d", 1, "z", "weights", 0) == 1
    assert connection.request("zscore", "d", "m") == b"0"
    assert isinstance(connection.request("zunionstore", "d", 1, "z", "weights", "nan"), CommandError)
    for bad in ("nan", "-nan"):
        assert isinstance(connection.request("zadd", "z", bad, "n"), CommandError)
        assert isinstance(connection.request("geoadd", "g", bad, 1, "n"), CommandError)
