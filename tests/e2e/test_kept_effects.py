"""What was acknowledged under `always` is there after a kill of everything, whichever way it came about.

By commands of every type with their times, streams with groups and what is pending, transactions and commands in steps over
shards, waits that were served, scripts, commands in Python, FLUSHALL and SWAPDB; on the same and on another number of shards, from logs alone and
from bases beside them.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, kill_everything, until

from kache.errors import CommandError

pytestmark = pytest.mark.once

MODULE = """
from kache.module import Context, command

@command("draw")
def draw(ctx: Context, key: bytes) -> int:
    ctx.set(key + b":at", ctx.now_ms)
    for _ in range(3):
        ctx.call("RPUSH", key, ctx.random.random())
    return ctx.call("ZINCRBY", key + b":z", 1, ctx.random.random()) and 1
"""

SCRIPT = """
redis.call('set', KEYS[1], math.random())
redis.call('rpush', KEYS[2], redis.call('time')[2], math.random(1000))
redis.call('hset', KEYS[3], 'f', redis.call('spop', KEYS[4]))
redis.call('pexpire', KEYS[3], 5000000)
return redis.call('xadd', KEYS[5], '*', 'drawn', math.random())
"""

READERS: dict[str, list[tuple[object, ...]]] = {
    "string": [("GET",)],
    "list": [("LRANGE", 0, -1)],
    "set": [("SMEMBERS",)],
    "zset": [("ZRANGE", 0, -1, "WITHSCORES")],
    "hash": [("HGETALL",), ("HPEXPIRETIME", "FIELDS", 2, "f", "g")],
    "stream": [("XRANGE", "-", "+")],
}


def everything(connection: Connection) -> dict[tuple[int, bytes], Any]:
    """(database, key) -> its deadline and its value."""
    found: dict[tuple[int, bytes], Any] = {}
    for db in (0, 1, 2):
        ask(connection, "SELECT", db)
        for key in sorted(ask(connection, "KEYS", "*")):
            kind = str(ask(connection, "TYPE", key))
            values: list[Any] = [ask(connection, name, key, *words) for name, *words in READERS[kind]]
            if kind == "stream":
                values.append(groups(connection, key))
            elif kind in ("set", "hash"):
                values[0] = sorted(values[0]) if kind == "set" else values[0]
            found[db, key] = ask(connection, "PEXPIRETIME", key), values
    ask(connection, "SELECT", 0)
    return found


def groups(connection: Connection, key: bytes) -> list[Any]:
    """What a stream says of itself and of its groups, but for times since something."""
    told = ask(connection, "XINFO", "STREAM", key, "FULL")
    whole = dict(zip(told[::2], told[1::2], strict=True))
    return [
        whole[b"last-generated-id"],
        whole[b"entries-added"],
        whole[b"max-deleted-entry-id"],
        [plain(group) for group in whole[b"groups"]],
    ]


def plain(value: Any) -> Any:
    return [plain(each) for each in value] if isinstance(value, list) else value


def ask(connection: Connection, *words: object) -> Any:
    reply = connection.request(*words)
    assert not isinstance(reply, CommandError), f"{words[:3]}: {reply}"
    return reply


def write_over_shards(connection: Connection, turn: int) -> None:
    """Transactions, moves and algebra whose keys lie in several shards."""
    names = [f"{turn}:t{number}" for number in range(6)]
    connection.send(
        ("MULTI",),
        *(("INCRBY", name, 5) for name in names),
        ("RPUSH", f"{turn}:a", 1, 2, 3),
        ("SADD", f"{turn}:b", 1, 2),
        ("EXEC",),
    )
    assert connection.read_many(10)[-1] == [5] * 6 + [3, 2]
    ask(connection, "LMOVE", f"{turn}:a", f"{turn}:c", "LEFT", "RIGHT")
    ask(connection, "SMOVE", f"{turn}:b", f"{turn}:d", 1)
    ask(connection, "RENAME", f"{turn}:t0", f"{turn}:renamed")
    ask(connection, "COPY", f"{turn}:t1", f"{turn}:copied")
    ask(connection, "MOVE", f"{turn}:t2", 1)
    ask(connection, "MSETNX", f"{turn}:n1", 1, f"{turn}:n2", 2, f"{turn}:n3", 3)
    ask(connection, "SUNIONSTORE", f"{turn}:union", f"{turn}:b", f"{turn}:d")
    ask(connection, "BITOP", "OR", f"{turn}:or", f"{turn}:n1", f"{turn}:n2")
    ask(connection, "PFADD", f"{turn}:h1", 1, 2)
    ask(connection, "PFMERGE", f"{turn}:h2", f"{turn}:h1")
    ask(connection, "SORT", f"{turn}:c", "STORE", f"{turn}:sorted")


def write_streams(connection: Connection, turn: int) -> None:
    """A stream with groups: read, acknowledged, claimed, deleted from, and one whose consumers and groups went."""
    key = f"{turn}:stream"
    for number in range(1, 8):
        ask(connection, "XADD", key, f"{number}-1", "f", number)
    ask(connection, "XGROUP", "CREATE", key, "g", 0)
    ask(connection, "XGROUP", "CREATE", key, "other", "$", "ENTRIESREAD", 3)
    ask(connection, "XREADGROUP", "GROUP", "g", "one", "COUNT", 4, "STREAMS", key, ">")
    ask(connection, "XREADGROUP", "GROUP", "g", "two", "COUNT", 2, "NOACK", "STREAMS", key, ">")
    assert ask(connection, "XACK", key, "g", "1-1") == 1
    ask(connection, "XCLAIM", key, "g", "three", 0, "2-1", "RETRYCOUNT", 7)
    ask(connection, "XAUTOCLAIM", key, "g", "four", 0, "3-1", "COUNT", 1)
    ask(connection, "XGROUP", "CREATECONSUMER", key, "g", "idle")
    ask(connection, "XGROUP", "DELCONSUMER", key, "g", "two")
    ask(connection, "XGROUP", "CREATE", key, "gone", 0)
    ask(connection, "XGROUP", "DESTROY", key, "gone")
    ask(connection, "XGROUP", "SETID", key, "other", "5-1")
    ask(connection, "XDEL", key, "6-1")
    ask(connection, "XTRIM", key, "MAXLEN", 5)
    ask(connection, "XSETID", key, "90-1", "ENTRIESADDED", 40, "MAXDELETEDID", "6-1")


def write_times(connection: Connection, turn: int) -> None:
    """Deadlines of keys and fields, kept, moved and taken away."""
    ask(connection, "SET", f"{turn}:soon", "v", "PX", 5_000_000)
    ask(connection, "SET", f"{turn}:soon", "w", "KEEPTTL")
    ask(connection, "GETEX", f"{turn}:soon", "PX", 6_000_000)
    ask(connection, "SET", f"{turn}:past", "v")
    ask(connection, "PEXPIREAT", f"{turn}:past", 1)
    ask(connection, "SET", f"{turn}:kept", "v", "EX", 1000)
    ask(connection, "PERSIST", f"{turn}:kept")
    ask(connection, "HSET", f"{turn}:fields", "f", 1, "g", 2, "h", 3)
    ask(connection, "HPEXPIRE", f"{turn}:fields", 5_000_000, "FIELDS", 2, "f", "g")
    ask(connection, "HPERSIST", f"{turn}:fields", "FIELDS", 1, "g")
    ask(connection, "HPEXPIREAT", f"{turn}:fields", 1, "FIELDS", 1, "h")


def write_served(cluster: Cluster, connection: Connection, turn: int) -> None:
    """Those who wait are served, on one shard and from one to another."""
    waits: list[tuple[object, ...]] = [
        ("BLPOP", f"{turn}:w1", 20), ("BLMOVE", f"{turn}:w2", f"{turn}:w3", "LEFT", "RIGHT", 20), ("BZPOPMIN", f"{turn}:w4", 20),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(cluster.connect()) for _ in waits]
        for client, words in zip(waiting, waits, strict=True):
            client.send(words)
        until(lambda: b"blocked_clients:3" in connection.request("INFO", "clients"), "three wait")
        ask(connection, "RPUSH", f"{turn}:w1", "a", "b")
        ask(connection, "RPUSH", f"{turn}:w2", "c", "d")
        ask(connection, "ZADD", f"{turn}:w4", 1, "e", 2, "f")
        assert [client.read() is not None for client in waiting] == [True] * 3


def write(cluster: Cluster, connection: Connection, turn: int) -> None:
    """All of it, under names of this turn."""
    write_over_shards(connection, turn)
    write_streams(connection, turn)
    write_times(connection, turn)
    write_served(cluster, connection, turn)
    for number in range(6):
        name = f"{turn}:script{number}"
        ask(connection, "SADD", f"{name}:s", 1, 2, 3, 4, 5)
        ask(connection, "EVAL", SCRIPT, 5, f"{name}:v", f"{name}:l", f"{name}:h", f"{name}:s", f"{name}:x")
    if turn == 0:
        for number in range(6):
            ask(connection, "draw", f"{{drawn{number}}}")


def flush_and_swap(connection: Connection) -> None:
    """What was there is gone, what is in one database comes to be in another; behind that more is written."""
    for db in (0, 1, 2):
        ask(connection, "SELECT", db)
        for number in range(20):
            ask(connection, "SET", f"flushed{number}", db)
    ask(connection, "FLUSHALL")
    for db in (1, 2):
        ask(connection, "SELECT", db)
        for number in range(20):
            ask(connection, "SET", f"swapped{number}", db)
    ask(connection, "SWAPDB", 0, 1)
    ask(connection, "SELECT", 2)
    ask(connection, "FLUSHDB")
    ask(connection, "SET", "alone", "v")
    ask(connection, "SELECT", 0)
    ask(connection, "SET", "swapped3", "again")


def test_every_effect_is_there_after_a_kill_of_everything(tmp_path: Path) -> None:
    before: dict[tuple[int, bytes], Any] = {}
    with contextlib.ExitStack() as stack:
        for turn, shards in enumerate((2, 2, 3)):
            cluster = Cluster(shards, dir=tmp_path, appendonly="yes", appendfsync="always")
            stack.callback(cluster._clean)
            cluster.start()
            with cluster.connect() as connection:
                if turn == 0:
                    module = cluster.directory / "drawing.py"
                    module.write_text(MODULE)
                    cluster.kache("module", "load", module)
                    flush_and_swap(connection)
                else:
                    assert everything(connection) == before
                if turn == 1:
                    # From here on some of it is in bases, and a command of before changes it.
                    ask(connection, "BGREWRITEAOF")
                    until(lambda c=connection: b"rewrite_in_progress:0" in c.request("INFO", "persistence"), "bases")
                    ask(connection, "SWAPDB", 0, 2)
                if turn < 2:
                    write(cluster, connection, turn)
                    before = everything(connection)
                    assert len(before) > 80
            kill_everything(cluster)
