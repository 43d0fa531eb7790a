"""Compiled commands on collections against their handlers in Python: replies, effects and counters."""

from __future__ import annotations

import random

import pytest

from kache.shard.commands.registry import handler_of
from kache.shard.engine.effects import Listener
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
BINARY, INTERNAL, RESP2, RESP3 = range(4)
SCORES = (
    b"1 2 2 3 -1 0 -0 0.5 1.25 -7.75 1e3 +1 .5 1. inf -inf nan 123456789012345 1234567890123456 0.1 3.0 abc".split()
)
BOUNDS = (*SCORES, b"(1", b"(2", b"(-1", b"-inf", b"+inf", b"(-inf", b"(inf", b"(", b"", b"((1")
INDEXES = b"0 1 2 5 -1 -2 -100 100 9223372036854775807 -9223372036854775808 01 1.0 x".split()
FIELDS = (b"a", b"b", b"c", b"d", b"", b"\xff\x00", b"12", b"x" * 300)

Events = list[tuple[str, int, int, bytes]]


def listening_shard(*, compiled: bool) -> tuple[Shard, Events]:
    """A shard that records what changes, and the list that its events are appended to."""
    shard = Shard(now_ms=NOW)
    if not compiled:
        for name in shard.compiled_commands():
            shard.replace_handler(name, handler_of(name))
    events: Events = []
    shard.store.effects.record()
    shard.store.effects.add_observer(Listener(lambda *event: events.append(event)), everything=True)
    return shard, events


ODD_IDS = (
    b"0",
    b"0-0",
    b"007",
    b"-",
    b"x",
    b"18446744073709551616",
    b"18446744073709551615-18446744073709551615",
    b"1-x",
)


ADD_OPTIONS = (
    (), (), (b"NOMKSTREAM",), (b"MAXLEN", b"~", b"3"), (b"maxlen", b"4"), (b"MAXLEN", b"=", b"5"), (b"MINID", b"6"),
    (b"minid", b"~", b"5-1"), (b"LIMIT", b"2"), (b"LIMIT", b"0"), (b"MAXLEN", b"-1"), (b"MINID", b"x"), (b"MAXLEN",),
)  # fmt: skip


def of_a_group(draw: random.Random, key: bytes) -> list[bytes]:
    """A command about a group of a stream, now and then of none, or misspelt."""
    group, consumer = draw.choice((b"g", b"g", b"h", b"none")), draw.choice((b"c", b"d"))
    ids = [
        draw.choice((b"%d" % draw.randrange(9), b"%d-0" % NOW, b"7-3", *ODD_IDS)) for _ in range(draw.randrange(1, 4))
    ]
    match draw.randrange(8):
        case 0:
            return [
                b"XGROUP",
                b"CREATE",
                key,
                group,
                draw.choice((b"0", b"$", b"5")),
                *draw.choice(([], [b"MKSTREAM"])),
            ]
        case 1 | 2:
            return [b"XACK", key, group, *ids]
        case 3:
            return [b"XDEL", key, *ids]
        case 4:
            return [b"XPENDING", key, group, b"-", b"+", b"9"]
        case _:
            options = draw.choice(
                ([], [], [b"COUNT", b"2"], [b"count", b"0"], [b"BLOCK", b"5"], [b"BLOCK", b"x"], [b"NOACK"])
            )
            named = draw.choice(([b"GROUP", group, consumer],) * 9 + ([],))
            behind = draw.choice((b">", b">", b">", b">", b"0", b"$", b"5"))
            more = draw.choice(((),) * 9 + ((b"x9", b">"),))
            return [b"XREADGROUP", *named, *options, b"STREAMS", key, behind, *more]


def words(draw: random.Random) -> list[bytes]:
    """A command, mostly on the type it is for, now and then misspelt or on another."""
    letter = draw.choices("lhszxg", (4, 4, 4, 6, 4, 4))[0]
    if letter == "g":
        return of_a_group(draw, b"%s%d" % (b"x" if draw.random() < 0.97 else b"t", draw.randrange(3)))
    kind = letter if draw.random() < 0.97 else draw.choice("lhszxt")
    key = b"%s%d" % (kind.encode(), draw.randrange(3))

    def field() -> bytes:
        return draw.choice(FIELDS)

    def some(low: int, high: int) -> list[bytes]:
        return [field() for _ in range(draw.randrange(low, high))]

    match letter:
        case "l":
            name = draw.choice((b"LPUSH", b"RPUSH", b"LPUSH", b"RPUSH", b"LPOP", b"RPOP", b"LLEN", b"LRANGE", b"LREM"))
            rest = {
                b"LPUSH": some(0, 4),
                b"RPUSH": some(1, 4),
                b"LPOP": draw.choice(([], [], [b"2"], [b"-1"])),
                b"RPOP": draw.choice(([], [], [b"0"], [b"1", b"1"])),
                b"LRANGE": draw.choices(INDEXES, k=2),
                b"LREM": [b"0", field()],
            }.get(name, [])
        case "h":
            name = draw.choice(
                (b"HSET", b"HSET", b"HGET", b"HMGET", b"HEXISTS", b"HLEN", b"HDEL", b"HPEXPIRE", b"HTTL")
            )
            rest = {
                b"HSET": [word for _ in range(draw.randrange(1, 3)) for word in (field(), draw.randbytes(5))],
                b"HMGET": some(1, 4),
                b"HGET": [field()],
                b"HEXISTS": [field()],
                b"HDEL": some(1, 4),
                b"HPEXPIRE": [b"%d" % draw.randrange(3000), b"FIELDS", b"1", field()],
                b"HTTL": [b"FIELDS", b"1", field()],
            }.get(name, [])
            if name == b"HSET" and draw.random() < 0.1:
                rest.pop()
        case "s":
            name = draw.choice((b"SADD", b"SADD", b"SREM", b"SISMEMBER", b"SCARD", b"SMEMBERS"))
            rest = {b"SADD": some(1, 4), b"SREM": some(1, 4), b"SISMEMBER": [field()]}.get(name, [])
        case "x":
            name = draw.choice((b"XADD", b"XADD", b"XADD", b"XLEN", b"XRANGE", b"XTRIM"))
            number = draw.choice(
                (b"*", b"*", b"5-*", b"%d" % draw.randrange(9), b"7-%d" % draw.randrange(99), *ODD_IDS)
            )
            option = [word for _ in range(draw.randrange(3)) for word in draw.choice(ADD_OPTIONS)]
            rest = {
                b"XADD": [*option, number, *(word for _ in range(draw.randrange(3)) for word in (field(), field()))],
                b"XRANGE": [b"-", b"+"],
                b"XTRIM": [b"MAXLEN", b"4"],
            }.get(name, [])
        case _:
            name = draw.choice(
                b"ZADD ZADD ZADD ZINCRBY ZREM ZSCORE ZCARD ZRANK ZREVRANK ZRANGE ZREVRANGE ZRANGEBYSCORE ZPOPMIN "
                b"ZCOUNT ZREMRANGEBYSCORE".split()
            )
            pairs = [word for _ in range(draw.randrange(1, 4)) for word in (draw.choice(SCORES), field())]
            rest = {
                b"ZADD": draw.choice(([], [], [], [b"nx"], [b"XX", b"CH"], [b"GT"], [b"INCR"])) + pairs,
                b"ZINCRBY": [draw.choice(SCORES), field()],
                b"ZREM": some(1, 4),
                b"ZSCORE": [field()],
                b"ZRANK": [field(), *draw.choice(([], [], [b"WITHSCORE"], [b"x"]))],
                b"ZREVRANK": [field(), *draw.choice(([], [], [b"withscore"]))],
                b"ZRANGE": [*draw.choices(INDEXES, k=2), *draw.choice(([], [], [b"WITHSCORES"], [b"REV"]))],
                b"ZREVRANGE": draw.choices(INDEXES, k=2),
                b"ZRANGEBYSCORE": draw.choices(SCORES, k=2),
                b"ZCOUNT": draw.choices(BOUNDS, k=2),
                b"ZREMRANGEBYSCORE": sorted(draw.choices(BOUNDS, k=2), reverse=draw.random() < 0.2),
            }.get(name, [])
            if name == b"ZADD" and draw.random() < 0.1:
                rest.pop()
    return [name, key, *rest][: draw.choice((99, 99, 99, 99, 99, 99, 99, 99, 99, 2))]


def state(shard: Shard) -> tuple[object, ...]:
    store = shard.store
    return store.hits, store.misses, store.dirty, store.expired_fields, sorted(shard.keyspace.keys())


@pytest.mark.parametrize("dialect", [BINARY, INTERNAL, RESP2, RESP3])
@pytest.mark.parametrize("seed", range(3))
def test_compiled_commands_on_collections_are_their_handlers(dialect: int, seed: int) -> None:
    draw = random.Random(seed * 10 + dialect)
    (compiled, events), (plain, expected) = listening_shard(compiled=True), listening_shard(compiled=False)
    now = NOW
    for shard in (compiled, plain):
        shard.execute([b"SET", b"t0", b"text"])
    for number in range(4000):
        argv = words(draw)
        assert compiled.execute(argv, dialect) == plain.execute(argv, dialect), argv
        assert compiled.store.effects.take() == plain.store.effects.take(), argv
        assert events == expected, argv
        events.clear()
        expected.clear()
        if draw.random() < 0.05:
            now += draw.randrange(2000)
            compiled.set_time(now)
            plain.set_time(now)
        if number % 100 == 0:
            assert state(compiled) == state(plain), argv
            compiled.store.check()
    compiled.store.check()
    assert compiled.errors == plain.errors


def test_compiled_commands_that_move_much_are_timed() -> None:
    """What moves much may be slow, so it has a time of its own; here everything that has one enters the slow log."""
    shard = Shard(now_ms=NOW)
    shard.execute([b"HSET", b"h", b"gone", b"v", b"stay", b"v"])
    shard.execute([b"HPEXPIRE", b"h", b"1", b"FIELDS", b"1", b"gone"])
    shard.configure_slowlog(1)
    shard.set_time(NOW + 2)
    name = bytes(100_000)
    heavy = [
        [b"HGET", b"h", b"stay"],
        [b"HSET", b"g", name, b"v"],
        [b"HSET", b"g", b"f", name],
        [b"SADD", b"s", name],
        [b"ZADD", b"z", b"1", name],
        [b"RPUSH", b"l", name],
        [b"LRANGE", b"l", b"0", b"-1"],
    ]
    for argv in heavy:
        shard.execute(argv)
        shard.execute([b"HGET", b"h", b"stay"])
    assert [entry.words[0].upper() for entry in reversed(shard.slowlog.kept)] == [argv[0] for argv in heavy]
    shard.store.check()


def test_decimal_scores_are_read_exactly() -> None:
    draw = random.Random(5)
    shard = Shard(now_ms=NOW)
    for _ in range(5000):
        digits = "".join(draw.choices("0123456789", k=draw.randrange(1, 17)))
        point = draw.randrange(len(digits) + 1)
        text = draw.choice(("", "-")) + (digits[:point] + "." + digits[point:] if draw.random() < 0.8 else digits)
        if text.strip("-") == ".":
            continue
        shard.execute([b"ZADD", b"z", text.encode(), b"m"])
        members = shard.keyspace.zset_get(b"z")
        assert members is not None
        assert members.score(b"m") == float(text), text


def test_ranges_cross_nodes_and_chunks_both_ways() -> None:
    shard = Shard(now_ms=NOW)
    names = [b"%05d" % i for i in range(5000)]
    shard.execute([b"RPUSH", b"l", *names])
    shard.execute([b"ZADD", b"z", *(word for name in names for word in (name, name))])
    draw = random.Random(8)
    for _ in range(300):
        start, stop = draw.randrange(-5200, 5200), draw.randrange(-5200, 5200)
        first = max(start + 5000, 0) if start < 0 else start
        end = stop + 5001 if stop < 0 else min(stop + 1, 5000)
        wanted, backwards = names[first : max(end, 0)], names[::-1][first : max(end, 0)]
        ends = [b"%d" % start, b"%d" % stop]
        assert shard.execute([b"ZRANGE", b"z", *ends]) == array_of(wanted)
        assert shard.execute([b"ZREVRANGE", b"z", *ends]) == array_of(backwards)
        assert shard.execute([b"LRANGE", b"l", *ends]) == array_of(wanted)


def array_of(items: list[bytes]) -> bytes:
    return b"*%d\r\n%s" % (len(items), b"".join(b"$%d\r\n%s\r\n" % (len(item), item) for item in items))


@pytest.mark.parametrize("dialect", [BINARY, INTERNAL, RESP2, RESP3])
def test_keys_with_a_prefix_is_its_handler(dialect: int) -> None:
    """Whatever the pattern; without what is past its deadline, which may not have been removed yet."""
    (compiled, _), (plain, _) = listening_shard(compiled=True), listening_shard(compiled=False)
    for shard in (compiled, plain):
        for key in (b"", b"a", b"ab", b"abc", b"b", b"a*", b"\xffa", b"x" * 300):
            shard.execute([b"SET", key, b"v"])
        for number in range(500):
            shard.execute([b"SET", b"abc%d" % number, b"v", *([b"PX", b"%d" % (number + 1)] if number % 2 else [])])
        shard.set_time(NOW + 250)
    for pattern in (
        b"*",
        b"a*",
        b"ab*",
        b"abc*",
        b"x" * 300 + b"*",
        b"",
        b"a",
        b"a\\*",
        b"a**",
        b"*a",
        b"[ab]*",
        b"?*",
        b"\xff*",
    ):
        assert compiled.execute([b"KEYS", pattern], dialect) == plain.execute([b"KEYS", pattern], dialect), pattern
    for shard in (compiled, plain):
        shard.execute([b"FLUSHALL"])
    assert compiled.execute([b"KEYS", b"*"], dialect) == plain.execute([b"KEYS", b"*"], dialect)
