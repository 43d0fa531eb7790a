"""The slow log of a cluster: one entry for a client's command, whoever executed it; and how long commands take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from cluster import Cluster, Connection, until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, routers=2) as running:
        yield running


@pytest.fixture
def log(cluster: Cluster) -> Iterator[Connection]:
    """A connection to read it with, which does not enter itself; everything else does."""
    with cluster.connect() as connection:
        connection.request("flushall")
        yield connection
        for name, value in (("slowlog-log-slower-than", 10000), ("slowlog-max-len", 128)):
            assert connection.request("config", "set", name, value) == "OK"
        connection.request("slowlog", "reset")


def log_everything(log: Connection) -> None:
    assert log.request("config", "set", "slowlog-log-slower-than", 0) == "OK"
    assert log.request("slowlog", "reset") == "OK"


def log_nothing(log: Connection) -> None:
    assert log.request("config", "set", "slowlog-log-slower-than", -1) == "OK"


def entries(log: Connection, name: bytes) -> list[list[Any]]:
    """What clients of that name have entered, the newest first."""
    return [entry for entry in log.request("slowlog", "get", -1) if entry[5] == name]


def entered(log: Connection, name: bytes, count: int) -> list[list[Any]]:
    """The same, once there are so many."""

    def all_of_them() -> list[list[Any]] | None:
        found = entries(log, name)
        return found if len(found) >= count else None

    return list(until(all_of_them, f"{count} entries"))


def test_a_command_enters_once_as_it_was_sent(cluster: Cluster, log: Connection) -> None:
    commands: list[tuple[str, ...]] = [
        ("SET", "a", "1"),
        ("get", "a"),
        ("MSET", *[word for number in range(8) for word in (f"k{number}", "v")]),
        ("MGet", *[f"k{number}" for number in range(8)]),
        ("del", "k0", "k1", "k2", "k3"),
        ("OBJECT", "ENCODING", "a"),
        ("KEYS", "*"),
        ("scan", "0"),
        ("sadd", "s1", "m"),
        ("SUNIONSTORE", "s2", "s1", "s3", "s4"),
        ("PiNg",),
        ("info", "server"),
        ("HSET", "h", "f", "v"),
        ("sinter", "s1", "s2", "s3"),
    ]
    with cluster.connect() as client:
        client.request("client", "setname", "writer")
        log_everything(log)
        for command in commands:
            client.request(*command)
        log_nothing(log)
        address = "{}:{}".format(*client.socket.getsockname()).encode()
        found = entered(log, b"writer", len(commands))
    assert [entry[3] for entry in reversed(found)] == [[word.encode() for word in command] for command in commands]
    assert {entry[4] for entry in found} == {address}
    assert all(entry[2] >= 0 and entry[1] > 1_600_000_000 for entry in found)
    assert {len(entry) for entry in found} == {6}
    told = [entry for entry in log.request("slowlog", "get", -1, "SHARDS") if entry[5] == b"writer"]
    shards = {entry[3][0]: entry[6] for entry in told}
    assert shards[b"PiNg"] == shards[b"MGet"] == shards[b"KEYS"] == -1
    assert shards[b"SET"] == shards[b"get"] >= 0
    words = {entry[3][0] for entry in log.request("slowlog", "get", -1)}
    assert not any(word.startswith(b"_") for word in words), words


def test_numbers_rise_over_all_routers_and_their_logs_are_one(cluster: Cluster, log: Connection) -> None:
    clients = {index: cluster.of_router(index) for index in range(2)}
    for router, client in clients.items():
        client.request("client", "setname", f"of-{router}")
    log_everything(log)
    for number in range(6):
        assert clients[number % 2].request("set", "order", number) == "OK"
    log_nothing(log)

    def own() -> list[list[Any]] | None:
        found = [entry for entry in log.request("slowlog", "get", -1) if entry[5].startswith(b"of-")]
        return found if len(found) == 6 else None

    found = until(own, "six entries")
    assert [entry[3][2] for entry in found] == [b"5", b"4", b"3", b"2", b"1", b"0"]
    assert [entry[5] for entry in found] == [b"of-1", b"of-0"] * 3
    ids = [entry[0] for entry in found]
    assert ids == sorted(ids, reverse=True) and len(set(ids)) == 6
    # The limit is that of the cluster.
    assert log.request("config", "set", "slowlog-max-len", 4) == "OK"
    assert log.request("slowlog", "len") == 4
    kept = log.request("slowlog", "get", -1)
    assert len(kept) == 4 and kept == sorted(kept, reverse=True)
    assert len(log.request("slowlog", "get", 2)) == 2
    last = kept[0][0]
    assert log.request("slowlog", "reset") == "OK" and log.request("slowlog", "len") == 0
    log_everything(log)
    clients[0].request("ping")
    log_nothing(log)
    assert entries(log, b"of-0")[0][0] > last
    for client in clients.values():
        client.close()


def test_long_commands_are_shortened_and_passwords_left_out(cluster: Cluster, log: Connection) -> None:
    with cluster.connect() as client:
        client.request("client", "setname", "long")
        log_everything(log)
        client.request("mset", *[word for number in range(40) for word in (f"long:{number}", "v" * 200)])
        client.request("set", "long:0", "v" * 200)
        client.request("auth", "default", "secret")
        client.request("hello", "2", "auth", "default", "secret", "setname", "long")
        client.request("config", "set", "requirepass", "")
        log_nothing(log)
        found = entered(log, b"long", 5)
    config, hello, auth, single, several = (entry[3] for entry in found)
    assert len(several) == 32 and several[-1] == b"... (50 more arguments)"
    assert several[2] == single[2] == b"v" * 128 + b"... (72 more bytes)"
    assert auth == [b"auth", b"(redacted)", b"(redacted)"]
    assert hello == [b"hello", b"2", b"auth", b"(redacted)", b"(redacted)", b"setname", b"long"]
    assert config == [b"config", b"set", b"requirepass", b"(redacted)"]


def test_binary_clients_are_logged_too(cluster: Cluster, log: Connection) -> None:
    from kache import Client

    with Client(port=cluster.port) as client:
        log_everything(log)
        client.set("binary", b"v")
        client.mget(*[f"b{number}" for number in range(9)])
        log_nothing(log)
        found = until(
            lambda: [e for e in log.request("slowlog", "get", -1) if e[3][0].lower() in (b"set", b"mget")][1:], "both"
        )
    assert found


def test_shards_tell_how_long_their_parts_took(cluster: Cluster, log: Connection) -> None:
    with cluster.connect() as client:
        client.request("client", "setname", "parts")
        assert log.request("config", "set", "slowlog-log-slower-than", 5) == "OK"
        assert log.request("slowlog", "reset") == "OK"
        for name, size in (("small", 1), ("large", 2_000_000)):
            client.request("mset", *[word for n in range(6) for word in (f"{name}:{n}", "v" * size)])
        log_nothing(log)
        found = entered(log, b"parts", 1)
    assert found[0][3][:2] == [b"mset", b"large:0"] and 5 <= found[0][2] < 60_000_000


def test_what_fails_or_waits_for_others_is_measured(cluster: Cluster, log: Connection) -> None:
    with cluster.connect() as client:
        client.request("client", "setname", "failing")
        client.request("set", "text", "v")
        log_everything(log)
        client.request("lset", "text", "0", "v")
        client.request("select", "99")
        client.request("sunion", "text", "s1", "s2", "s3")
        log_nothing(log)
        found = entered(log, b"failing", 3)
    assert [entry[3][0] for entry in found] == [b"sunion", b"select", b"lset"]


def test_how_long_each_command_takes(cluster: Cluster, log: Connection) -> None:
    log.request("config", "resetstat")
    with redis.Redis(port=cluster.port) as client:
        for number in range(200):
            client.set(f"key:{number}", "v")
        client.hset("h", "f", "v")
        client.ping()
        client.sunionstore("s9", "s1", "s2", "s3")
        found = client.info("latencystats")
        for name in ("set", "hset", "ping", "sunionstore", "config|resetstat"):
            marks = found[f"latency_percentiles_usec_{name}"]
            assert list(marks) == ["p50", "p99", "p99.9"], name
            assert 0 < marks["p50"] <= marks["p99"] <= marks["p99.9"] < 60_000_000
        assert not any("_usec__" in name for name in found)
        raw = client.execute_command("LATENCY", "HISTOGRAM", "set", "config", "nosuch")
    assert set(raw) == {b"set", b"config|resetstat"}
    histogram = raw[b"set"]
    assert histogram[b"calls"] == 200
    counts = list(histogram[b"histogram_usec"].values())
    assert counts == sorted(counts) and counts[-1] == 200
