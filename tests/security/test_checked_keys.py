"""The keys that are checked are the keys that are used, however a command names them.

CVE-2023-41053 (SORT_RO touched keys that its rights did not cover), CVE-2023-36824 (keys of a command with a broken count
were read beyond its arguments); https://nvd.nist.gov/vuln. tests/unit/acl/test_keys_touched.py asks the same of every row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

from kache.errors import CommandError

pytestmark = pytest.mark.once

SECRET = b"canary-of-another-user"
COUNTS = (
    "0",
    "-1",
    "1",
    "2",
    "3",
    "99",
    "2147483647",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "2x",
    "",
)
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("zunion", "N", "own:z", "other:z"), ("zinter", "N", "own:z", "other:z"), ("zdiff", "N", "own:z", "other:z"),
    ("sintercard", "N", "own:s", "other:s"), ("zintercard", "N", "own:z", "other:z"),
    ("zunionstore", "own:d", "N", "own:z", "other:z"), ("zdiffstore", "other:d", "N", "own:z"),
    ("lmpop", "N", "own:l", "other:l", "left"), ("zmpop", "N", "own:z", "other:z", "min"),
    ("blmpop", "0.01", "N", "own:l", "other:l", "left"), ("eval", "return redis.call('get', KEYS[1])", "N", "other:k"),
    ("eval_ro", "return KEYS[2]", "N", "own:k", "other:k"),
)  # fmt: skip
TWICE: tuple[tuple[str, ...], ...] = (
    # The option that counts is not the first of its kind.
    ("sort", "own:l", "store", "own:d", "store", "other:d"), ("sort", "own:l", "alpha", "store", "other:d"),
    ("sort_ro", "own:l", "by", "other:*"), ("sort", "own:l", "get", "other:k"), ("sort", "own:l", "get", "#", "get", "other:*"),
    ("georadius", "own:g", "0", "0", "1", "m", "store", "own:d", "storedist", "other:d"),
    ("set", "other:k", "x", "get"), ("copy", "own:k", "other:d"), ("copy", "other:k", "own:d"), ("rename", "other:k", "own:d"),
    ("xread", "streams", "own:x", "other:x", "0", "0"), ("xread", "count", "1", "streams", "other:x", "0"),
    ("xreadgroup", "group", "streams", "c", "streams", "other:x", ">"), ("mget", "own:k", "other:k"),
    ("msetnx", "own:n", "1", "other:n", "2"), ("bitop", "or", "own:d", "own:k", "other:k"), ("object", "encoding", "other:k"),
    ("lcs", "own:k", "other:k"), ("lmove", "own:l", "other:l", "left", "left"), ("memory", "usage", "other:k"),
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        with running.connect() as admin:
            for owner in ("own", "other"):
                admin.request("set", f"{owner}:k", SECRET if owner == "other" else "mine")
                admin.request("rpush", f"{owner}:l", SECRET if owner == "other" else "mine")
                admin.request("sadd", f"{owner}:s", SECRET)
                admin.request("zadd", f"{owner}:z", 1, SECRET if owner == "other" else "mine")
                admin.request("xadd", f"{owner}:x", "*", "f", SECRET if owner == "other" else "mine")
            assert admin.request("acl", "setuser", "ada", "on", "nopass", "+@all", "~own:*") == "OK"
        yield running


@pytest.fixture
def ada(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        assert connection.request("auth", "ada", "") == "OK"
        yield connection


def others(cluster: Cluster) -> list[object]:
    with cluster.connect() as admin:
        keys = sorted(admin.request("keys", "other:*"))
        return [keys, *(admin.request("dump", key) for key in keys)]


def test_no_count_leads_to_keys_of_others(cluster: Cluster, ada: Connection) -> None:
    before = others(cluster)
    for (name, *words), count in itertools.product(COMMANDS, COUNTS):
        reply = ada.request(name, *(count if word == "N" else word for word in words))
        assert SECRET not in repr(reply).encode(), (name, count)
        # Where fewer keys are counted than follow, the others are no keys, and the command is free to be carried out.
        # A script without keys is one, too.
        assert isinstance(reply, CommandError) or count == "1" or name.startswith("eval"), (name, count, reply)
    assert others(cluster) == before


@pytest.mark.parametrize("command", TWICE, ids=" ".join)
def test_no_option_leads_to_keys_of_others(cluster: Cluster, ada: Connection, command: tuple[str, ...]) -> None:
    before = others(cluster)
    reply = ada.request(*command)
    assert isinstance(reply, CommandError) and reply.code in ("NOPERM", "ERR"), reply
    assert SECRET not in repr(reply).encode()
    assert others(cluster) == before
