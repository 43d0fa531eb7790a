"""Keyspace notifications over a real cluster: from every shard, to every router, expiry and eviction too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, Connection, until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, routers=2, notify_keyspace_events="KEA") as running:
        yield running


@pytest.fixture
def listener(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("PSUBSCRIBE", "__key*__:*")
        yield connection


def events(listener: Connection, count: int) -> list[tuple[str, str]]:
    """(channel, message) of the next events, sorted by nothing: those of one shard keep their order."""
    found = []
    for _ in range(count):
        _, _, channel, message = listener.read()
        found.append((channel.decode(), message.decode()))
    return found


def test_on_the_channels_of_key_and_event(cluster: Cluster, listener: Connection) -> None:
    cluster.request("SET", "a", "1")
    assert events(listener, 2) == [("__keyspace@0__:a", "set"), ("__keyevent@0__:set", "a")]
    with cluster.connect() as client:
        client.request("SELECT", 3)
        client.send(("LPUSH", "{a}l", "x"), ("LPOP", "{a}l"), ("RENAME", "none", "b"), ("MOVE", "none", "1"))
        client.read_many(4)
    assert [each for each in events(listener, 6) if "keyevent" in each[0]] == [
        ("__keyevent@3__:lpush", "{a}l"), ("__keyevent@3__:lpop", "{a}l"), ("__keyevent@3__:del", "{a}l"),
    ]  # fmt: skip


def test_what_works_on_several_shards(cluster: Cluster, listener: Connection) -> None:
    """RENAME, SMOVE, LMOVE and stores between shards: the same events as on one, each from the shard of its key."""
    with cluster.connect() as client:
        for source, target in (("a", "b"), ("b", "c"), ("c", "d")):
            client.send(
                ("RPUSH", f"{source}1", "x", "y"), ("RENAME", f"{source}1", f"{target}2"),
                ("LMOVE", f"{target}2", f"{source}3", "LEFT", "RIGHT"),
                ("SADD", f"{source}4", "m"), ("SUNIONSTORE", f"{target}5", f"{source}4"),
                ("COPY", f"{source}4", f"{target}6"), ("DEL", f"{target}2", f"{source}3", f"{source}4", f"{target}5", f"{target}6"),
            )  # fmt: skip
            client.read_many(7)
            expected = {
                (f"{source}1", "rpush"), (f"{source}1", "rename_from"), (f"{target}2", "rename_to"), (f"{target}2", "lpop"),
                (f"{source}3", "rpush"), (f"{source}4", "sadd"), (f"{target}5", "sunionstore"), (f"{target}6", "copy_to"),
                *((key, "del") for key in (f"{target}2", f"{source}3", f"{source}4", f"{target}5", f"{target}6")),
            }  # fmt: skip
            found = [each for each in events(listener, 2 * len(expected)) if "keyspace" in each[0]]
            assert {(channel.removeprefix("__keyspace@0__:"), event) for channel, event in found} == expected


def test_expiry(cluster: Cluster, listener: Connection) -> None:
    keys = [f"short:{n}" for n in range(20)]
    with cluster.connect() as client:
        client.send(*[("SET", key, "x", "PX", 30) for key in keys])
        client.read_many(len(keys))
    expired: set[str] = set()
    while len(expired) < len(keys):
        channel, message = events(listener, 1)[0]
        if channel == "__keyevent@0__:expired":
            expired.add(message)
    assert expired == set(keys)


def test_eviction() -> None:
    options: dict[str, Any] = {"maxmemory": "3mb", "maxmemory_policy": "allkeys-random", "notify_keyspace_events": "Ee"}
    with Cluster(2, **options) as cluster, cluster.connect() as listener, cluster.connect() as client:
        listener.request("SUBSCRIBE", "__keyevent@0__:evicted")
        for number in range(3000):
            client.send(("SET", f"key:{number}", "x" * 2000))
        client.read_many(3000)
        evicted = {listener.read()[2] for _ in range(100)}
        assert len(evicted) == 100 and all(key.startswith(b"key:") for key in evicted)


def test_classes_can_be_chosen_while_it_runs(cluster: Cluster) -> None:
    with cluster.connect() as client, cluster.connect() as listener:
        assert client.request("CONFIG", "GET", "notify-keyspace-events") == [b"notify-keyspace-events", b"AKE"]
        assert "notify-keyspace-events" in str(client.request("CONFIG", "SET", "notify-keyspace-events", "Q"))
        try:
            assert client.request("CONFIG", "SET", "notify-keyspace-events", "Elm") == "OK"
            listener.request("PSUBSCRIBE", "__key*")
            client.send(("SET", "s", "1"), ("LPUSH", "l", "x"), ("GET", "missing"), ("EXISTS", "missing2"))
            client.read_many(4)
            found = {(channel.decode(), key.decode()) for _, _, channel, key in listener.read_many(3)}
            assert found == {
                ("__keyevent@0__:lpush", "l"), ("__keyevent@0__:keymiss", "missing"), ("__keyevent@0__:keymiss", "missing2"),
            }  # fmt: skip
            assert client.request("CONFIG", "SET", "notify-keyspace-events", "") == "OK"
            client.request("LPUSH", "l", "x")
            assert client.request("PUBLISH", "__keyother", "end") == 1
            assert listener.read()[2:] == [b"__keyother", b"end"]
        finally:
            client.request("CONFIG", "SET", "notify-keyspace-events", "KEA")


def test_they_come_again_from_a_restarted_shard(cluster: Cluster, listener: Connection) -> None:
    with cluster.connect() as client:
        keys = [f"again:{n}" for n in range(30)]
        for shard in range(3):
            cluster.kill(cluster.pid_of("shard", shard))
        until(lambda: all(client.request("SET", key, "x") == "OK" for key in keys), "all shards are back")
        # Another router may have sent these before the listener's was there again.
        seen: set[str] = set()
        until(lambda: seen >= set(keys) or _set_again(client, listener, keys, seen), "an event of every key")


def _set_again(client: Connection, listener: Connection, keys: list[str], seen: set[str]) -> bool:
    """Adds the keys that the listener is told of, of those that are set now."""
    for key in keys:
        client.request("SET", key, "x")
    if client.request("PUBLISH", "__key__:end", "x") == 0:
        return False  # nobody is told yet
    while True:
        channel, message = events(listener, 1)[0]
        if channel == "__key__:end":
            return False
        if channel == "__keyevent@0__:set":
            seen.add(message)
