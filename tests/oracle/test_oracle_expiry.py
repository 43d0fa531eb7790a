"""Keys whose time has come: every command must treat them as missing, before anything has swept them away."""

from __future__ import annotations

import time

import pytest

from .harness import Command, Oracle, compare_transcripts

TTL_MS = 30
FILL: list[Command] = [
    ("SELECT", 0),
    ("FLUSHALL",),
    ("SET", "{t}s", "v", "PX", TTL_MS),
    ("SET", "{t}n", 5, "PX", TTL_MS),
    ("RPUSH", "{t}l", "a", "b"),
    ("SADD", "{t}m", "a", "b"),
    ("ZADD", "{t}z", 1, "a"),
    ("HSET", "{t}h", "f", "v"),
    *(("PEXPIRE", f"{{t}}{name}", TTL_MS) for name in "lmzh"),
    ("SET", "{t}stays", "v"),
    ("SET", "{t}later", "v", "EX", 1000),
]
AFTER: list[list[Command]] = [
    [("EXISTS", "{t}s", "{t}l", "{t}m", "{t}stays"), ("KEYS", "*"), ("DEL", "{t}s", "{t}l"), ("UNLINK", "{t}m")],
    [
        ("GET", "{t}s"),
        ("STRLEN", "{t}s"),
        ("GETRANGE", "{t}s", 0, -1),
        ("MGET", "{t}s", "{t}stays"),
        ("GETDEL", "{t}n"),
    ],
    [
        ("TYPE", "{t}l"),
        ("OBJECT", "ENCODING", "{t}l"),
        ("LLEN", "{t}l"),
        ("LPUSHX", "{t}l", "x"),
        ("RPUSH", "{t}l", "x"),
    ],
    [("SCARD", "{t}m"), ("SADD", "{t}m", "c"), ("SMEMBERS", "{t}m"), ("TTL", "{t}m")],
    [("ZCARD", "{t}z"), ("ZADD", "{t}z", "XX", 2, "a"), ("ZINCRBY", "{t}z", 2, "a"), ("PTTL", "{t}z")],
    [("HGETALL", "{t}h"), ("HSETNX", "{t}h", "f", "w"), ("HGET", "{t}h", "f"), ("TTL", "{t}h")],
    [("INCR", "{t}n"), ("TTL", "{t}n"), ("APPEND", "{t}s", "w"), ("TTL", "{t}s"), ("SETRANGE", "{t}s", 2, "x")],
    [("SET", "{t}s", "w", "KEEPTTL"), ("TTL", "{t}s"), ("SET", "{t}n", 1, "XX"), ("SET", "{t}n", 1, "NX", "GET")],
    [
        ("EXPIRE", "{t}s", 10),
        ("PERSIST", "{t}l"),
        ("EXPIRETIME", "{t}m"),
        ("TTL", "{t}z"),
        ("TOUCH", "{t}s", "{t}stays"),
    ],
    [
        ("RENAME", "{t}s", "{t}x"),
        ("RENAMENX", "{t}stays", "{t}s"),
        ("COPY", "{t}l", "{t}y"),
        ("COPY", "{t}later", "{t}m"),
    ],
    [
        ("RENAME", "{t}later", "{t}l"),
        ("TTL", "{t}l"),
        ("RENAME", "{t}stays", "{t}n"),
        ("TTL", "{t}n"),
        ("MOVE", "{t}m", 1),
    ],
    [
        ("SORT", "{t}l"),
        ("DUMP", "{t}s"),
        ("SETNX", "{t}s", 1),
        ("MSETNX", "{t}n", 1, "{t}z", 2),
        ("GETSET", "{t}n", "x"),
    ],
    [("SUNION", "{t}m"), ("SINTERSTORE", "{t}stays", "{t}m"), ("BITOP", "NOT", "{t}later", "{t}s"), ("LPOP", "{t}l")],
    [("SWAPDB", 0, 1), ("EXISTS", "{t}s"), ("SELECT", 1), ("EXISTS", "{t}s", "{t}l"), ("GET", "{t}stays")],
]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("commands", AFTER, ids=lambda commands: str(commands[0][0]).lower())
def test_expired_keys_are_missing(oracle: Oracle, commands: list[Command], protocol: int) -> None:
    oracle.both(FILL, protocol)
    time.sleep(2 * TTL_MS / 1000)
    replies = oracle.both([*commands, ("SELECT", 0)], protocol)
    compare_transcripts([*commands, ("SELECT", 0)], [ours for ours, _ in replies], [theirs for _, theirs in replies])


@pytest.mark.parametrize("protocol", [2, 3])
def test_everything_is_gone_in_the_end(oracle: Oracle, protocol: int) -> None:
    oracle.both(FILL, protocol)
    time.sleep(2 * TTL_MS / 1000)
    keys = [f"{{t}}{name}" for name in ("s", "n", "l", "m", "z", "h", "stays", "later")]
    # Each is looked at once: what is found to have expired is removed, and then no longer counted.
    replies = oracle.both([("EXISTS", *keys), ("DBSIZE",), ("KEYS", "*")], protocol)
    compare_transcripts(
        [("EXISTS",), ("DBSIZE",), ("KEYS",)], [ours for ours, _ in replies], [theirs for _, theirs in replies]
    )
