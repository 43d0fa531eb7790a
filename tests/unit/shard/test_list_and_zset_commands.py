"""List and sorted-set commands where the oracle cannot look: Kache's own commands, large values, randomness.

Each runs through a shard's execution point, as a client's would.
"""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from kache.shard.shard import Shard

BINARY = 0


@pytest.fixture
def shard() -> Shard:
    return Shard(now_ms=1_000_000)


def run(shard: Shard, *words: bytes | int, dialect: int = 2) -> bytes:
    argv = [word if isinstance(word, bytes) else b"%d" % word for word in words]
    reply: bytes = shard.execute(argv, dialect)
    return reply


def bulks(reply: bytes) -> list[bytes]:
    """The bulk strings of a flat RESP2 array without newlines in its elements."""
    assert reply.startswith(b"*")
    return reply.split(b"\r\n")[2::2]


def strings_and_doubles(reply: bytes) -> list[bytes | float]:
    """The elements of a binary response with status 0 and one flat array."""
    length, status, tag, count = struct.unpack_from("<IIBI", reply)
    assert (length, status, tag) == (len(reply) - 4, 0, 5)
    elements: list[bytes | float] = []
    at = 13
    for _ in range(count):
        if reply[at] == 2:
            (size,) = struct.unpack_from("<I", reply, at + 1)
            elements.append(reply[at + 5 : at + 5 + size])
            at += 5 + size
        else:
            assert reply[at] == 4
            elements.append(struct.unpack_from("<d", reply, at + 1)[0])
            at += 9
    assert at == len(reply)
    return elements


# ZQUERY ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "name", "offset", "limit", "expected"),
    [
        (b"1", b"", 0, 10, [b"a", 1.0, b"b", 2.0, b"c", 2.0, b"d", 3.0]),
        (b"2", b"", 0, 2, [b"b", 2.0, b"c", 2.0]),
        (b"2", b"bb", 0, 2, [b"c", 2.0, b"d", 3.0]),
        (b"2", b"c", -2, 2, [b"a", 1.0, b"b", 2.0]),
        (b"2", b"c", -3, 2, []),
        (b"2", b"c", 1, 2, [b"d", 3.0]),
        (b"2", b"c", 2, 2, []),
        (b"9", b"", 0, 2, []),
        (b"9", b"", -1, 2, [b"d", 3.0]),
        (b"-inf", b"", 0, 1, [b"a", 1.0]),
        (b"1", b"", 0, 0, []),
        (b"1", b"", 0, -1, []),
        (b"1", b"", 2**63 - 1, 2**63 - 1, []),
        (b"1", b"", -(2**63), 2**63 - 1, []),
    ],
)
def test_zquery(
    shard: Shard, score: bytes, name: bytes, offset: int, limit: int, expected: list[bytes | float]
) -> None:
    run(shard, b"ZADD", b"z", 1, b"a", 2, b"c", 2, b"b", 3, b"d")
    assert strings_and_doubles(run(shard, b"zquery", b"z", score, name, offset, limit, dialect=BINARY)) == expected


def test_zquery_of_nothing_and_of_something_else(shard: Shard) -> None:
    missing = run(shard, b"zquery", b"none", 1, b"", 0, 10, dialect=BINARY)
    assert missing == struct.pack("<IIB", 5, 2, 0)
    run(shard, b"SET", b"s", b"x")
    assert struct.unpack_from("<I", run(shard, b"zquery", b"s", 1, b"", 0, 10, dialect=BINARY), 4) == (5,)
    for score, offset in ((b"nan", b"0"), (b"x", b"0"), (b"1", b"x")):
        reply = run(shard, b"zquery", b"z", score, b"", offset, 10, dialect=BINARY)
        assert struct.unpack_from("<I", reply, 4) == (4,)


def test_zquery_exists_in_resp(shard: Shard) -> None:
    run(shard, b"ZADD", b"z", b"1.5", b"a")
    assert run(shard, b"ZQUERY", b"z", 0, b"", 0, 5) == b"*2\r\n$1\r\na\r\n$3\r\n1.5\r\n"
    assert run(shard, b"ZQUERY", b"z", 0, b"", 0, 5, dialect=3) == b"*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n"
    assert run(shard, b"ZQUERY", b"none", 0, b"", 0, 5) == b"$-1\r\n"


# Lists -------------------------------------------------------------------------------------------


def test_lget_is_the_whole_list(shard: Shard) -> None:
    run(shard, b"RPUSH", b"l", b"a", b"b", b"c")
    assert run(shard, b"LGET", b"l") == run(shard, b"LRANGE", b"l", 0, -1)
    assert run(shard, b"LGET", b"none") == b"*0\r\n"


def test_lset_does_not_cut_its_index(shard: Shard) -> None:
    run(shard, b"RPUSH", b"l", b"a")
    assert run(shard, b"LSET", b"l", 2**32, b"b") == b"-ERR index out of range\r\n"
    assert run(shard, b"LGET", b"l") == b"*1\r\n$1\r\na\r\n"


def test_rotating_a_list_of_one_keeps_its_deadline(shard: Shard) -> None:
    run(shard, b"RPUSH", b"l", b"a")
    run(shard, b"EXPIRE", b"l", 100)
    assert run(shard, b"RPOPLPUSH", b"l", b"l") == b"$1\r\na\r\n"
    assert run(shard, b"TTL", b"l") == b":100\r\n"


def test_trimming_and_moving_in_a_large_list(shard: Shard) -> None:
    for start in range(0, 50_000, 1000):
        run(shard, b"RPUSH", b"l", *range(start, start + 1000))
    run(shard, b"LTRIM", b"l", 20_000, -20_001)
    assert run(shard, b"LLEN", b"l") == b":10000\r\n"
    assert run(shard, b"LINDEX", b"l", 5) == b"$5\r\n20005\r\n"
    assert run(shard, b"LMOVE", b"l", b"m", b"RIGHT", b"LEFT") == b"$5\r\n29999\r\n"
    shard.store.check()


# Sorted sets -------------------------------------------------------------------------------------


def test_zscan_of_a_large_set_while_it_changes(shard: Shard) -> None:
    run(shard, b"ZADD", b"z", *(word for i in range(2000) for word in (i, b"m%d" % i)))
    seen: set[bytes] = set()
    cursor, calls = b"0", 0
    while True:
        head, _, body = run(shard, b"ZSCAN", b"z", cursor, b"COUNT", 10, b"NOSCORES").partition(b"\r\n*")
        cursor = head.split(b"\r\n")[2]
        seen.update(body.split(b"\r\n")[2::2])
        calls += 1
        run(shard, b"ZADD", b"z", 5, b"m7", 5, b"new%d" % calls)
        if cursor == b"0":
            break
    assert {b"m%d" % i for i in range(2000)} <= seen
    assert calls > 3


def test_zrandmember_is_uniform(shard: Shard) -> None:
    run(shard, b"ZADD", b"z", *(word for i in range(10) for word in (i, b"%d" % i)))
    drawn = Counter(bulks(run(shard, b"ZRANDMEMBER", b"z", -20_000)))
    assert len(drawn) == 10
    assert all(1700 < times < 2300 for times in drawn.values())
    different = bulks(run(shard, b"ZRANDMEMBER", b"z", 7))
    assert len(set(different)) == 7


def test_removing_a_large_range(shard: Shard) -> None:
    run(shard, b"ZADD", b"z", *(word for i in range(20_000) for word in (i, b"m%d" % i)))
    assert run(shard, b"ZREMRANGEBYSCORE", b"z", b"(100", b"(19900") == b":19799\r\n"
    assert run(shard, b"ZCARD", b"z") == b":201\r\n"
    assert run(shard, b"ZRANK", b"z", b"m19900") == b":101\r\n"
    assert run(shard, b"ZREMRANGEBYRANK", b"z", 0, -1) == b":201\r\n"
    assert run(shard, b"EXISTS", b"z") == b":0\r\n"
    shard.store.check()


def test_a_score_beyond_a_double_changes_nothing(shard: Shard) -> None:
    run(shard, b"ZADD", b"z", b"inf", b"a", 1, b"b")
    assert run(shard, b"ZINCRBY", b"z", b"-inf", b"a").startswith(b"-ERR resulting score is not a number")
    assert run(shard, b"ZADD", b"z", 5, b"b", b"nan", b"c") == b"-ERR value is not a valid float\r\n"
    assert run(shard, b"ZRANGE", b"z", 0, -1, b"WITHSCORES") == b"*4\r\n$1\r\nb\r\n$1\r\n1\r\n$1\r\na\r\n$3\r\ninf\r\n"
