"""Scripts of commands on collections that meet in few keys with few members, so that they grow and shrink through any limit.

Unlike the strategies, which look for odd arguments, nearly every command here has an effect. A template's letters stand
for: K a key of the type, M a member, field or element, I one that is an integer, V a value, S a score, N a small count or index.
"""

from __future__ import annotations

import random

from .harness import Command

__all__ = ["TEMPLATES", "script"]

_KEYS = ["COPY K K REPLACE", "RENAME K K", "DEL K", "PEXPIRE K 90000", "PERSIST K", "EXISTS K K", "TYPE K"]

TEMPLATES: dict[str, list[str]] = {
    "hash": [
        *["HSET K M V", "HSET K M V M V M V", "HSET K I V I V", "HDEL K M", "HDEL K M M M"] * 4, "HSETNX K M V", "HGET K M",
        "HMGET K M I M", "HLEN K", "HEXISTS K M", "HKEYS K", "HVALS K", "HGETALL K", "HINCRBY K I N", "HINCRBYFLOAT K I 1.5",
        "HSTRLEN K M", "HPERSIST K FIELDS 1 M", "HPEXPIRE K 80000 FIELDS 1 M", "HPEXPIRE K 0 FIELDS 1 M", "HTTL K FIELDS 2 M I",
        *_KEYS,
    ],
    "set": [
        *["SADD K M", "SADD K M I M", "SADD K I", "SADD K I I I", "SREM K M", "SREM K I I M"] * 4, "SISMEMBER K M", "SISMEMBER K I",
        "SMISMEMBER K M I M", "SMEMBERS K", "SCARD K", "SMOVE K K M", "SMOVE K K I", "SINTER K K", "SUNION K K", "SDIFF K K",
        "SINTERSTORE K K K", "SUNIONSTORE K K K", "SDIFFSTORE K K K", "SINTERCARD 2 K K", "SORT K ALPHA", *_KEYS,
    ],
    "zset": [
        *["ZADD K S M", "ZADD K S M S M S I", "ZINCRBY K S M", "ZREM K M", "ZREM K M I M"] * 4, "ZADD K NX S M S M", "ZADD K XX CH S M",
        "ZADD K GT CH S M S M", "ZADD K LT S M", "ZADD K INCR S M", "ZSCORE K M", "ZMSCORE K M I", "ZCARD K", "ZCOUNT K S S",
        "ZRANK K M", "ZREVRANK K M", "ZRANK K M WITHSCORE", "ZRANGE K N N", "ZRANGE K 0 -1", "ZRANGE K N N REV", "ZREVRANGE K N N",
        "ZRANGE K 0 -1 WITHSCORES", "ZREVRANGE K 0 -1", "ZRANGE K S S BYSCORE", "ZRANGEBYSCORE K S S LIMIT 1 3", "ZPOPMIN K",
        "ZPOPMAX K 2", "ZREMRANGEBYRANK K N N", "ZREMRANGEBYSCORE K S S", "ZUNIONSTORE K 2 K K", "ZINTERSTORE K 2 K K",
        "ZDIFFSTORE K 2 K K", "ZUNION 2 K K WITHSCORES", "ZINTER 2 K K", "ZINTERCARD 2 K K", "ZRANGESTORE K K 0 -1",
        "ZMPOP 2 K K MIN COUNT 2", *_KEYS,
    ],
    "list": [
        *["LPUSH K M", "RPUSH K M", "RPUSH K M I M", "LPUSH K I M", "LPOP K", "RPOP K"] * 3, "LPUSHX K M", "RPUSHX K I", "LPOP K 3",
        "RPOP K 2", "LLEN K", "LINDEX K N", "LRANGE K N N", "LRANGE K 0 -1", "LSET K N M", "LSET K N V", "LINSERT K BEFORE M I",
        "LINSERT K AFTER M V", "LREM K N M", "LREM K 0 I", "LTRIM K 1 -2", "LTRIM K N N", "LPOS K M", "LPOS K M COUNT 0",
        "LMOVE K K LEFT RIGHT", "LMOVE K K RIGHT LEFT", "RPOPLPUSH K K", "LMPOP 2 K K LEFT COUNT 2", "SORT K ALPHA STORE K", *_KEYS,
    ],
}  # fmt: skip

_WORDS = ["", "a", "b", "c", "field", "member:1", "member:2", "x" * 12, "y" * 13, "z" * 64, "w" * 65, "07", "-0"]
_INTEGERS = [0, 1, 7, 63, 64, -1, -128, 200, 40000, -70000, 2**40, 2**63 - 1, -(2**63)]
_SCORES = ["0", "1", "2", "3", "-1.5", "2.25", "100", "inf", "-inf", "1e300", "9007199254740993"]


def script(kind: str, draw: random.Random, length: int) -> list[Command]:
    """So many commands on up to three keys of one type."""
    choose = {
        "K": lambda: f"{{t}}{kind}{draw.randrange(3) if draw.random() < 0.3 else 0}",
        "M": lambda: draw.choice(_WORDS),
        "I": lambda: str(draw.choice(_INTEGERS)),
        "V": lambda: draw.choice([*_WORDS, "5", "123456"]),
        "S": lambda: draw.choice(_SCORES),
        "N": lambda: str(draw.randrange(-5, 8)),
    }
    return [
        tuple(choose[word]() if word in choose else word for word in draw.choice(TEMPLATES[kind]).split())
        for _ in range(length)
    ]
