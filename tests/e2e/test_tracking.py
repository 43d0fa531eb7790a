"""CLIENT TRACKING over several shards and routers: what is told after kills, swaps and evictions, and never too early."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, Connection, until

from kache.replies import Push

SHARDS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(SHARDS, routers=2, tracking_table_max_keys=1000) as running:
        yield running


@pytest.fixture
def tracker(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("HELLO", 3)
        assert connection.request("CLIENT", "TRACKING", "ON") == "OK"
        yield connection


def news(connection: Connection) -> Any:
    """The keys of the next push; None: everything."""
    found = connection.read()
    assert isinstance(found, Push) and found[0] == b"invalidate", found
    return found[1]


def test_news_never_overtakes_the_reply_that_it_is_about(cluster: Cluster, tracker: Connection) -> None:
    """Pipelines of reads over all shards while others write: behind the last read of a key its news comes, or its value holds."""
    draw = random.Random(3)
    keys = [f"race:{n}" for n in range(40)]
    with cluster.connect() as writer:
        held: dict[bytes, Any] = {}
        current: dict[bytes, bytes] = {}
        for turn in range(150):
            asked = [draw.choice(keys) for _ in range(60)]
            tracker.send(*[("GET", key) for key in asked])
            changed = draw.sample(keys, 8)
            writer.send(*[("SET", key, turn) for key in changed])
            writer.read_many(len(changed))
            current.update({key.encode(): b"%d" % turn for key in changed})
            tracker.send(("PING", "end"))
            waiting = [key.encode() for key in asked]
            while True:
                found = tracker.read()
                if found == b"end":
                    break
                if isinstance(found, Push):
                    for key in found[1]:
                        held.pop(key, None)
                else:
                    held[waiting.pop(0)] = found
            assert not waiting

            until(functools.partial(settled, tracker, held, current), "no copy is stale")


def settled(tracker: Connection, held: dict[bytes, Any], current: dict[bytes, bytes]) -> bool:
    """Takes the news that has come by now; whether what is held then is true."""
    tracker.send(("PING", "again"))
    while (found := tracker.read()) != b"again":
        for key in found[1]:
            held.pop(key, None)
    return all(value == current.get(key) for key, value in held.items())


def test_flush_and_swap_are_told_once(cluster: Cluster, tracker: Connection) -> None:
    with cluster.connect() as other:
        for command in (("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", 0, 1)):
            for number in range(20):
                tracker.request("GET", f"flush:{number}")
            assert other.request(*command) == "OK"
            assert news(tracker) is None
            other.request("SWAPDB", 0, 0)
        assert tracker.request("PING") == "PONG"


def all_read(tracker: Connection, keys: list[str]) -> bool:
    """Whether all keys could be read; news on the way is taken."""
    tracker.send(*[("GET", key) for key in keys])
    replies: list[Any] = []
    while len(replies) < len(keys):
        found = tracker.read()
        if not isinstance(found, Push):
            replies.append(found)
    return replies == [b"x"] * len(keys)


def test_a_lost_shard_means_that_nothing_is_known(cluster: Cluster, tracker: Connection) -> None:
    keys = [f"again:{n}" for n in range(20)]
    with cluster.connect() as other:
        for shard in range(SHARDS):
            cluster.kill(cluster.pid_of("shard", shard))
            assert news(tracker) is None
            until(lambda: all(other.request("SET", key, "x") == "OK" for key in keys), "all shards are back")
            until(lambda: all_read(tracker, keys), "all of them are read")
            told: set[bytes] = set()
            other.send(*[("SET", key, "y") for key in keys])
            other.read_many(len(keys))
            while told != {key.encode() for key in keys}:
                told.update(news(tracker))


def test_the_table_is_bounded(cluster: Cluster, tracker: Connection) -> None:
    """More keys than tracking-table-max-keys on each shard: those that are forgotten are told."""
    count = SHARDS * 1000 + 500
    tracker.send(*[("GET", f"many:{n}") for n in range(count)])
    replies = told = 0
    while replies < count:
        if isinstance(tracker.read(), Push):
            told += 1
        else:
            replies += 1
    assert told >= 400


def test_changes_with_a_prefix(cluster: Cluster) -> None:
    with cluster.connect() as listener, cluster.connect() as writer:
        listener.request("HELLO", 3)
        assert listener.request("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:") == "OK"
        keys = {f"user:{n}".encode() for n in range(50)}
        writer.send(*[("SET", key, 1) for key in keys], *[("SET", f"other:{n}", 1) for n in range(50)])
        writer.read_many(100)
        told: list[bytes] = []
        while len(told) < len(keys):
            told += news(listener)
        assert sorted(told) == sorted(keys)
        # Several changes of one tick are one message.
        assert listener.request("PING") == "PONG"


def test_a_blocked_command_does_not_keep_news_back(cluster: Cluster, tracker: Connection) -> None:
    with cluster.connect() as other:
        tracker.request("GET", "watched")
        tracker.send(("BLPOP", "empty", 0))
        until(lambda: b"blocked_clients:1" in bytes(info(other)), "it waits")
        other.request("SET", "watched", "x")
        assert news(tracker) == [b"watched"]
        other.request("RPUSH", "empty", "x")
        assert tracker.read() == [b"empty", b"x"]


def info(connection: Connection) -> Any:
    found = connection.request("INFO", "clients")
    return getattr(found, "text", found)
