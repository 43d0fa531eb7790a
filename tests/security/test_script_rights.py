"""What a user may not do by itself it may not do by a script either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

from kache.errors import CommandError

TEXT = "return redis.call('get', KEYS[1])"
SHA = hashlib.sha1(TEXT.encode()).hexdigest()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as running:
        yield running


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("flushall")
        connection.request("acl", "deluser", "alice")
        connection.request("acl", "log", "reset")
        yield connection


def user(cluster: Cluster, admin: Connection, *rules: str) -> Connection:
    assert admin.request("acl", "setuser", "alice", "on", ">pw", *rules) == "OK"
    connection = cluster.connect()
    assert connection.request("auth", "alice", "pw") == "OK"
    return connection


@pytest.mark.parametrize("command", ["eval", "eval_ro", "evalsha", "evalsha_ro"])
def test_scripts_are_for_users_who_may_do_everything(cluster: Cluster, admin: Connection, command: str) -> None:
    assert admin.request("script", "load", TEXT) == SHA.encode()
    admin.request("set", "own", "1")
    body = SHA if command.startswith("evalsha") else TEXT
    refused = CommandError(
        "NOPERM scripts are only for users who may do everything (allcommands, allkeys and allchannels)"
    )
    with user(cluster, admin, "+@all", "~own", "&*") as alice:
        assert alice.request(command, body, 1, "own") == refused
        assert alice.request("multi") == "OK"
        assert alice.request(command, body, 1, "own") == refused
        assert alice.request("exec") == CommandError("EXECABORT Transaction discarded because of previous errors.")
        assert alice.request("get", "own") == b"1"
        assert admin.request("acl", "setuser", "alice", "allkeys") == "OK"
        assert alice.request(command, body, 1, "own") == b"1"
