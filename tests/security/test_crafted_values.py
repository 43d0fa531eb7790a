"""Payloads and strings that were not made by us, with a right checksum: refused, or a value like any other."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

from kache.errors import CommandError

READERS = (
    ("get",), ("strlen",), ("getrange", 0, -1), ("lrange", 0, -1), ("llen",), ("lpos", "x"), ("hgetall",), ("hlen",),
    ("hget", "f"), ("httl", "fields", 1, "f"), ("smembers",), ("scard",), ("sismember", "x"), ("zrange", 0, -1, "withscores"),
    ("zcard",), ("zrank", "a"), ("zrangebyscore", "-inf", "+inf"), ("pfcount",), ("bitcount",), ("ttl",), ("type",),
    ("object", "encoding"), ("memory", "usage"), ("dump",), ("append", "x"), ("rpush", "x"), ("hset", "f", "x"), ("sadd", "x"),
    ("zadd", 1, "x"), ("pfadd", "x"), ("copy", "other", "replace"), ("geopos", "a"), ("xlen",), ("xrange", "-", "+"),
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as running:
        before = running.pid_of("shard")
        yield running
        assert running.pid_of("shard") == before
        assert "Traceback" not in running.log()


def read_all(connection: Connection, key: str) -> None:
    """Every reader answers, with a value or an error."""
    for name, *rest in READERS:
        words = (name, rest[0], key, *rest[1:]) if name in ("object", "memory") else (name, key, *rest)
        reply = connection.request(*words)
        assert not (isinstance(reply, CommandError) and "internal" in reply.message.lower()), (words, reply)


def payloads(connection: Connection) -> dict[str, bytes]:
    """DUMPs of keys of every type, packed and large."""
    connection.request("flushall")
    many = range(1500)
    connection.send(
        ("set", "string", "value"), ("set", "number", 12345), ("rpush", "list", *range(5)), ("rpush", "longlist", *many),
        ("hset", "hash", "f", 1, "g", 2), ("hset", "largehash", *many), ("sadd", "ints", 1, 2, 3), ("sadd", "set", "a", "b"),
        ("sadd", "largeset", *(f"m{n}" for n in many)), ("zadd", "zset", 1, "a", 2, "b"), ("zadd", "largezset", *many),
        ("hset", "timed", "f", 1), ("hexpire", "timed", 1000, "fields", 1, "f"), ("pfadd", "hll", *range(30)),
    )  # fmt: skip
    replies = connection.read_many(14)
    assert not [reply for reply in replies if isinstance(reply, CommandError)], replies
    names = ("string", "number", "list", "longlist", "hash", "largehash", "ints", "set", "largeset", "zset", "largezset",
             "timed", "hll")  # fmt: skip
    return {name: connection.request("dump", name) for name in names}


def damaged(payload: bytes, dice: random.Random) -> bytes:
    """The payload with some bytes changed, left out or put in, and its checksum made right again."""
    body = bytearray(payload[7:])
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(min(len(body), dice.choice((12, 60, len(body)))))
        match dice.randint(0, 4):
            case 0:
                body[at] = dice.randrange(256)
            case 1:
                del body[at : at + dice.randint(1, 3)]
            case 2:
                body[at:at] = bytes(dice.randrange(256) for _ in range(dice.randint(1, 3)))
            case 3:
                body[at : at + 1] = dice.choice(
                    (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xcb\x7f\xf8" + b"\0" * 6)
                )
            case _:
                body[at] ^= 1 << dice.randrange(8)
    return payload[:3] + zlib.crc32(bytes(body)).to_bytes(4, "little") + bytes(body)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_payloads(cluster: Cluster, seed: int) -> None:
    dice = random.Random(seed)
    taken = 0
    with cluster.connect() as connection:
        originals = payloads(connection)
        for name, payload in originals.items():
            for _ in range(60):
                reply = connection.request("restore", "k", 0, damaged(payload, dice), "replace")
                if reply == "OK":
                    taken += 1
                    read_all(connection, "k")
                else:
                    assert reply.message.startswith("ERR "), (name, reply)
                    assert "checksum" not in reply.message
        assert taken > 20  # some damage leaves a value: those are read
        connection.request("flushall")


@pytest.mark.parametrize("seed", range(2))
def test_strings_that_pretend_to_be_hyperloglogs(cluster: Cluster, seed: int) -> None:
    dice = random.Random(seed)
    with cluster.connect() as connection:
        for _ in range(300):
            connection.request("del", "h", "dense", "merged")
            connection.request("pfadd", "h", *range(dice.choice((1, 50, 4000))))
            size = connection.request("strlen", "h")
            for _ in range(dice.randint(1, 4)):
                at = dice.choice((dice.randrange(20), dice.randrange(size)))
                connection.request("setrange", "h", at, bytes(dice.randrange(256) for _ in range(dice.randint(1, 4))))
            for words in (
                ("pfcount", "h"),
                ("pfadd", "h", "x", "y"),
                ("pfmerge", "merged", "h", "dense"),
                ("pfcount", "merged", "h"),
            ):
                reply = connection.request(*words)
                assert (
                    reply in ("OK",) or isinstance(reply, int) or reply.message.startswith(("WRONGTYPE", "INVALIDOBJ"))
                )
