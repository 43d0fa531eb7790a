"""The one execution point: the compiled commands answer as their handlers do, errors, counters, cleanup, memory."""

from __future__ import annotations

import random
import time

import msgspec
import pytest

from kache.commands import TABLE, lookup
from kache.errors import WRONG_TYPE
from kache.shard.commands.registry import handler_of
from kache.shard.engine.memory import only_free, trim_memory
from kache.shard.service.cleanup import Cleanup
from kache.shard.shard import Shard
from kache.stats import ShardStats, bucket_value, percentile
from kache.wire.codec import decode_reply

NOW = 1_700_000_000_000
BINARY, INTERNAL, RESP2, RESP3 = range(4)
NUMBERS = (
    *b"1 -7 0 100 9223372036854775807 -9223372036854775808 9223372036854775808 01 +1 1.5 abc -0".split(),
    b"4611686018427387904",
    b"",
    b" 1",
    b"\xff",
)


def interpreted() -> Shard:
    """A shard whose compiled cases are left out: every command goes to its handler in Python."""
    shard = Shard(now_ms=NOW)
    for name in shard.compiled_commands():
        shard.replace_handler(name, handler_of(name))
    return shard


def words(draw: random.Random) -> list[bytes]:
    def key() -> bytes:
        return b"k%d" % draw.randrange(6)

    def number() -> bytes:
        return draw.choice(NUMBERS)

    def value() -> bytes:
        return draw.choice((number(), draw.randbytes(draw.randrange(80)), b"v"))

    name = draw.choice(
        b"GET SET SET SET SETNX DEL UNLINK EXISTS INCR DECR INCRBY DECRBY MGET MSET EXPIRE PEXPIRE TTL PTTL STRLEN "
        b"APPEND HSET LPUSH TYPE PERSIST EXPIRE PEXPIRE".split()
    )
    if name in (b"DEL", b"UNLINK", b"EXISTS", b"MGET"):
        return [name, *(key() for _ in range(draw.randrange(1, 4)))]
    if name == b"MSET":
        return [name, *(word for _ in range(draw.randrange(1, 3)) for word in (key(), value()))][: draw.choice((9, 4))]
    if name == b"SET":
        options: list[list[bytes]] = [
            [],
            [],
            [b"EX", number()],
            [b"px", number()],
            [b"NX"],
            [b"KEEPTTL"],
            [b"XX", b"GET"],
        ]
        return [name, key(), value(), *draw.choice([*options, [b"EX"], [b"ex", b"10", b"nx"], [b"EY", b"1"]])]
    if name in (b"INCRBY", b"DECRBY", b"EXPIRE", b"PEXPIRE"):
        return [name, key(), number(), *draw.choice(([], [], [b"NX"], [b"zz"]))]
    if name in (b"SETNX", b"APPEND"):
        return [name, key(), value()]
    if name == b"HSET":
        return [name, key(), b"f", value()]
    return [name, key(), value()] if name == b"LPUSH" else [name, key()][: draw.choice((2, 2, 2, 2, 1))]


@pytest.mark.parametrize("dialect", [BINARY, RESP2, RESP3])
@pytest.mark.parametrize("seed", range(4))
def test_compiled_commands_answer_as_their_handlers(dialect: int, seed: int) -> None:
    draw = random.Random(seed)
    compiled, plain = Shard(now_ms=NOW), interpreted()
    now = NOW
    for _ in range(5000):
        argv = words(draw)
        assert compiled.execute(argv, dialect) == plain.execute(argv, dialect), argv
        if draw.random() < 0.02:
            now += draw.randrange(2000)
            compiled.set_time(now)
            plain.set_time(now)
    compiled.store.check()
    assert sorted(compiled.keyspace.keys()) == sorted(plain.keyspace.keys())


def test_every_command_survives_nonsense() -> None:
    """No argument makes a handler raise anything but its own errors."""
    draw = random.Random(99)
    shard = Shard(now_ms=NOW)
    pool = [b"k", b"h", b"l", b"z", b"s", b"", b"0", b"1", b"-1", b"\xff\xfe", b"*", b"LIMIT", b"COUNT", b"(", b"[a"]
    for argv in ((b"HSET", b"h", b"f", b"1"), (b"RPUSH", b"l", b"1", b"2"), (b"ZADD", b"z", b"1", b"a")):
        shard.execute(list(argv))
    rows = [row for row in TABLE if row.on_shard and not row.name.startswith("_") and row.dialect != "binary"]
    for _ in range(12_000):
        row = draw.choice(rows)
        argv = [
            *row.key.encode().split(b"|"),
            *draw.choices(pool, k=max(abs(row.arity) - row.words + draw.randrange(3), 0)),
        ]
        reply = shard.execute(argv, draw.choice((BINARY, RESP2, RESP3)))
        assert b"internal error" not in reply, (argv, reply)
    shard.store.check()


def test_an_error_in_a_handler_is_a_reply_and_nothing_more() -> None:
    shard = Shard(now_ms=NOW)

    def broken(ks: object, key: bytes) -> None:
        raise ZeroDivisionError("oh")

    shard.replace_handler("type", broken)
    assert shard.execute([b"TYPE", b"k"]) == b"-ERR internal error: ZeroDivisionError: oh\r\n"
    shard.replace_handler("type", lambda ks, key: object())
    assert shard.execute([b"TYPE", b"k"]).startswith(b"-ERR internal error: TypeError")
    assert shard.execute([b"GET", b"k"]) == b"$-1\r\n"
    assert shard.execute([b"EXPIRE", b"k", b"1", b"\xff"]) == b"-ERR Unsupported option \xff\r\n"


def test_arity_and_loading_come_first() -> None:
    shard = Shard(now_ms=NOW)
    assert shard.execute([b"GET"]) == b"-ERR wrong number of arguments for 'get' command\r\n"
    assert shard.execute([b"OBJECT", b"ENCODING"]).startswith(b"-ERR wrong number of arguments for 'object|encoding'")
    shard.loading = True
    assert shard.execute([b"GET", b"k"]).startswith(b"-LOADING ")
    shard.loading = False
    assert shard.execute([b"GET", b"k"]) == b"$-1\r\n"


def stats_of(shard: Shard) -> ShardStats:
    raw = decode_reply(shard.execute([b"_stats"], INTERNAL))
    while isinstance(raw, tuple):
        raw = raw[0]
    return msgspec.msgpack.decode(raw, type=ShardStats)


def test_statistics_count_what_happened() -> None:
    shard = Shard(now_ms=NOW, maxmemory=1 << 30, policy="allkeys-lru")
    for number in range(10):
        shard.execute([b"SET", b"k%d" % number, b"v", b"EX", b"100"])
    shard.execute([b"GET", b"k1"])
    shard.execute([b"GET", b"nothing"])
    shard.execute([b"HGET", b"k1", b"f"])
    shard.execute([b"GET"])
    seen = stats_of(shard)
    assert (seen.hits, seen.misses) == (2, 1)
    assert [(db.index, db.keys, db.expires) for db in seen.databases] == [(0, 10, 10)]
    assert 90_000 < seen.databases[0].average_ttl_ms <= 100_000
    by_name = {row.name: row for row in seen.command_stats}
    assert by_name["set"].calls == 10 and by_name["get"].calls == 2 and by_name["get"].rejected == 1
    assert by_name["hget"].failed == 1 and seen.errors == {"WRONGTYPE": 1, "ERR": 1}
    assert sum(seen.latency_ns.values()) >= 12 and 0 < percentile(seen.latency_ns, 50) < 10**9
    assert seen.used_memory == shard.store.used_memory and seen.maxmemory == 1 << 30
    assert shard.execute([b"_reset_stats"], INTERNAL).startswith(b"+OK")
    seen = stats_of(shard)
    assert (seen.hits, seen.misses, seen.errors) == (0, 0, {}) and seen.databases[0].keys == 10


def test_the_histogram_keeps_values_apart() -> None:
    for bucket in range(31, 500):
        assert bucket_value(bucket) > bucket_value(bucket - 1)


def test_large_compiled_commands_enter_the_slow_log() -> None:
    shard = Shard(now_ms=NOW)
    shard.configure_slowlog(1)
    shard.execute([b"MSET", *[word for i in range(1000) for word in (b"k%d" % i, b"v")]])
    shard.execute([b"SET", b"k", b"v" * 1_000_000])
    shard.execute([b"SET", b"k", b"v" * 1_000_000, b"EX", b"100"])
    shard.execute([b"GET", b"k"])
    shard.execute([b"PERSIST", b"k"])
    shard.execute([b"EXPIRE", b"k", b"100"])
    names = [entry.words[0] for entry in shard.slowlog.kept]
    assert names[::-1][:4] == [b"mset", b"set", b"set", b"get"] and b"expire" in names
    shard.configure_slowlog(0)
    shard.execute([b"GET", b"nothing"])
    assert shard.slowlog.kept[0].words == [b"get", b"nothing"]


def test_slow_commands_are_logged() -> None:
    shard = Shard(now_ms=NOW)
    shard.configure_slowlog(0)
    shard.execute([b"HSET", b"h", b"f", b"v"])
    assert shard.slowlog.kept[0].words == [b"hset", b"h", b"f", b"v"]
    shard.configure_slowlog(-1)
    shard.execute([b"HSET", b"h", b"f", b"w"])
    assert len(shard.slowlog.kept) == 1


def test_every_command_has_a_histogram_of_its_times() -> None:
    shard = Shard(now_ms=NOW)
    for number in range(100):
        shard.execute([b"SET", b"k%d" % number, b"v"])
    shard.execute([b"HSET", b"h", b"f", b"v"])
    shard.execute([b"SET", b"k", b"v" * 1_000_000])
    counted = {name: histogram for name, *_, histogram in shard.command_counts()}
    assert sum(counted["set"].values()) == 101 and sum(counted["hset"].values()) == 1
    # What moves a megabyte has a time of its own, which is not spread over the others.
    assert percentile(counted["set"], 100) > 3 * percentile(counted["set"], 50)
    shard.reset_counters()
    assert shard.command_counts() == []


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB ASYNC", "DEL big set list zset", "UNLINK big set list zset"])
def test_large_values_are_freed_by_the_cleanup_thread(command: str) -> None:
    cleanup = Cleanup(trim_memory, only_free)
    shard = Shard(now_ms=NOW, cleanup=cleanup)
    for start in range(0, 20_000, 1000):
        numbers = [b"%d" % number for number in range(start, start + 1000)]
        shard.execute([b"HSET", b"big", *(word for number in numbers for word in (number, number))])
        shard.execute([b"SADD", b"set", *numbers])
        shard.execute([b"RPUSH", b"list", *numbers])
        shard.execute([b"ZADD", b"zset", *(word for number in numbers for word in (number, number))])
        if command.startswith("FLUSH"):
            shard.execute([b"MSET", *(word for number in numbers for word in (b"k" + number, number))])
    shard.execute([word.encode() for word in command.split()])
    assert shard.keyspace.size() == 0 and shard.store.used_memory == 0 and cleanup.pending > 0
    cleanup.start()
    until = time.monotonic() + 20
    while cleanup.pending and time.monotonic() < until:
        time.sleep(0.01)
    assert cleanup.pending == 0
    cleanup.stop()
    shard.store.check()


def test_the_compiled_commands_have_rows() -> None:
    compiled = Shard().compiled_commands()
    assert len(compiled) > 40
    known = [name for name in compiled if not name.startswith("_")]
    assert all(lookup(name.rpartition("|")[2].encode(), BINARY) is not None for name in known)
    assert {*compiled} - {*known} == {"_lock", "_unlock"}
    assert WRONG_TYPE.startswith("WRONGTYPE ")


def test_resetting_the_statistics_does_not_forget_changes() -> None:
    """INFO reports them as changes since the last save, which a reset is not."""
    shard = Shard(now_ms=1)
    shard.execute([b"SET", b"k", b"v"])
    shard.execute([b"GET", b"k"])
    shard.reset_counters()
    assert (shard.store.dirty, shard.store.hits) == (1, 0)
