"""Patterns that go back and forth for ever, in every place that takes one: no recursion, no exponent.

CVE-2024-31228 (a nested pattern exhausted the stack) and CVE-2022-36021 (a pattern that took for ever);
https://nvd.nist.gov/vuln. There are two matchers, kache.glob and that of rights; tests/unit/test_glob.py runs over both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

from kache.errors import CommandError

LONG = b"a" * 20_000
PATTERNS = {
    "stars": b"*a" * 400 + b"b",
    "questions": b"*?" * 400 + b"b",
    "classes": b"*[a-z]" * 150 + b"b",
    "open class": b"*[^" * 300,
    "escapes": b"*\\a" * 300 + b"b",
    "nested": b"[" * 1000,
}
SECONDS = 60.0
"""An exponent would need years; this is for a machine that does ten other things."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        with running.connect() as connection:
            connection.request("set", LONG, "v")
            connection.request("hset", "h", LONG, "v")
        yield running


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as found:
        yield found


@pytest.mark.parametrize("name", PATTERNS)
def test_every_place_that_takes_a_pattern(cluster: Cluster, connection: Connection, name: str) -> None:
    pattern = PATTERNS[name]
    began = time.monotonic()
    assert isinstance(connection.request("keys", pattern), list)
    for words in (
        ("scan", 0, "match", pattern), ("hscan", "h", 0, "match", pattern), ("pubsub", "channels", pattern),
        ("config", "get", pattern), ("command", "list", "filterby", "pattern", pattern), ("memory", "usage", LONG),
    ):  # fmt: skip
        assert connection.request(*words) is not None
    with cluster.connect() as listener:
        listener.send(("psubscribe", pattern))
        assert listener.read()[0] == b"psubscribe"
        connection.request("publish", LONG, "x")
    assert (
        connection.request("acl", "setuser", "ada", "reset", "on", "nopass", "+get", b"~" + pattern[:1000], "&c")
        == "OK"
    )
    with cluster.connect() as ada:
        ada.request("auth", "ada", "")
        reply = ada.request("get", LONG)
        assert reply == b"v" or (isinstance(reply, CommandError) and reply.code == "NOPERM")
    assert time.monotonic() - began < SECONDS
    assert connection.request("ping") == "PONG"
