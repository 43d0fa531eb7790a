"""Hashes, field TTLs and sets through a shard's execution point: what a comparison with a real server cannot show.

Time that moves, scans while the collection changes, the distribution of random choices, and their cost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from kache.errors import CommandError
from kache.shard.shard import Shard
from kache.wire.codec import decode_reply

NOW = 1_800_000_000_000
INTERNAL = 1


class Commands:
    """Runs commands written as words and decodes their replies."""

    def __init__(self) -> None:
        self.shard = Shard(now_ms=NOW, hash_seed=b"0123456789abcdef")

    def __call__(self, *words: object) -> Any:
        argv = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        return decode_reply(self.shard.execute(argv, INTERNAL))[0]


@pytest.fixture
def run() -> Iterator[Commands]:
    commands = Commands()
    yield commands
    commands.shard.store.check()


def fill_set(run: Commands, key: str, size: int) -> None:
    for start in range(0, size, 500):
        run("SADD", key, *(f"member:{number}" for number in range(start, min(start + 500, size))))


def fill_hash(run: Commands, key: str, size: int) -> None:
    for start in range(0, size, 500):
        numbers = range(start, min(start + 500, size))
        run("HSET", key, *(word for number in numbers for word in (f"field:{number}", number)))


# Field TTLs --------------------------------------------------------------------------------------


def test_fields_vanish_at_their_time(run: Commands) -> None:
    run("HSET", "h", "stays", 1, "goes", 2)
    assert run("HPEXPIRE", "h", 1500, "FIELDS", 3, "goes", "stays", "none") == [1, 1, -2]
    assert run("HPERSIST", "h", "FIELDS", 1, "stays") == [1]
    assert run("HTTL", "h", "FIELDS", 2, "goes", "stays") == [2, -1]
    run.shard.set_time(NOW + 1499)
    assert run("HPTTL", "h", "FIELDS", 1, "goes") == [1]
    run.shard.set_time(NOW + 1500)
    assert run("HGET", "h", "goes") is None
    assert run("HLEN", "h") == 1
    assert run("HGETALL", "h") == {b"stays": b"1"}


def test_a_hash_vanishes_with_its_last_field(run: Commands) -> None:
    run("HSETEX", "h", "PX", 10, "FIELDS", 2, "a", 1, "b", 2)
    assert run("EXISTS", "h") == 1
    run.shard.set_time(NOW + 10)
    assert run("HGETALL", "h") == {}
    assert run("TYPE", "h") == "none"
    assert run("DBSIZE") == 0


def test_what_keeps_and_what_clears_a_fields_time(run: Commands) -> None:
    run("HSETEX", "h", "EX", 100, "FIELDS", 3, "a", 1, "b", 1, "c", 1)
    run("HSET", "h", "a", 2)
    run("HINCRBY", "h", "b", 1)
    run("HSETEX", "h", "KEEPTTL", "FIELDS", 1, "c", 3)
    assert run("HTTL", "h", "FIELDS", 3, "a", "b", "c") == [-1, 100, 100]
    assert run("HINCRBYFLOAT", "h", "b", "0.5") == b"2.5"
    assert run("HTTL", "h", "FIELDS", 1, "b") == [100]
    assert run("HGETEX", "h", "PERSIST", "FIELDS", 1, "b") == [b"2.5"]
    assert run("HEXPIRETIME", "h", "FIELDS", 2, "b", "c") == [-1, NOW // 1000 + 100]


@pytest.mark.parametrize(
    ("conditions", "plain", "earlier", "later"),
    [
        ((), 1, 1, 1),
        (("NX",), 1, 0, 0),
        (("XX",), 0, 1, 1),
        (("GT",), 0, 1, 0),
        (("LT",), 1, 0, 1),
        (("XX", "LT"), 0, 0, 1),
    ],
)
def test_expiry_conditions(run: Commands, conditions: tuple[str, ...], plain: int, earlier: int, later: int) -> None:
    """`plain` has no deadline, `earlier` one before the new one, `later` one after it."""
    run("HSET", "h", "plain", 1, "earlier", 1, "later", 1)
    run("HEXPIRE", "h", 10, "FIELDS", 1, "earlier")
    run("HEXPIRE", "h", 1000, "FIELDS", 1, "later")
    answers = run("HEXPIRE", "h", 100, *conditions, "FIELDS", 3, "plain", "earlier", "later")
    assert answers == [plain, earlier, later]


# Scans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "add", "remove"), [("SSCAN", "SADD", "SREM"), ("HSCAN", "HSET", "HDEL")])
def test_a_scan_returns_what_stays(run: Commands, command: str, add: str, remove: str) -> None:
    width = 1 if command == "SSCAN" else 2
    (fill_set if width == 1 else fill_hash)(run, "k", 3000)
    stays = {member for member in run("SMEMBERS" if width == 1 else "HKEYS", "k") if member[-1:] in b"02468"}
    goes = [b"%s:%d" % (b"member" if width == 1 else b"field", number) for number in range(1, 3000, 2)]
    seen: set[bytes] = set()
    cursor, step = b"0", 0
    while True:
        cursor, found = run(command, "k", cursor, "COUNT", 20)
        seen.update(found[::width])
        # Growth makes the table split under the scan, removals make it sparse.
        run(add, "k", *(f"new:{step}:{number}" for number in range(20 * width)))
        run(remove, "k", *goes[step * 20 : step * 20 + 20] or [b"none"])
        step += 1
        if cursor == b"0":
            break
    assert stays <= seen


def test_small_collections_come_whole(run: Commands) -> None:
    fill_set(run, "s", 100)
    fill_hash(run, "h", 500)
    cursor, members = run("SSCAN", "s", 0, "COUNT", 1)
    assert (cursor, len(members)) == (b"0", 100)
    cursor, fields = run("HSCAN", "h", 0, "COUNT", 1, "NOVALUES")
    assert (cursor, len(fields)) == (b"0", 500)
    cursor, fields = run("HSCAN", "h", 0, "MATCH", "field:4[0-4]?")
    assert len(fields) == 2 * 50


# Random choices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 100, 1000])
def test_every_member_has_the_same_chance(run: Commands, size: int) -> None:
    fill_set(run, "s", size)
    fill_hash(run, "h", size)
    draws = size * 100
    for drawn in (run("SRANDMEMBER", "s", -draws), run("HRANDFIELD", "h", -draws)):
        counts = Counter(drawn)
        assert len(counts) == size
        # 100 expected each, standard deviation 10: the bounds are six of them away.
        assert min(counts.values()) > 40
        assert max(counts.values()) < 165


@pytest.mark.parametrize("count", [1, 5, 40, 60, 99, 100, 1000])
def test_positive_counts_draw_different_members(run: Commands, count: int) -> None:
    fill_set(run, "s", 100)
    fill_hash(run, "h", 100)
    assert len(set(run("SRANDMEMBER", "s", count))) == min(count, 100)
    pairs = run("HRANDFIELD", "h", count, "WITHVALUES").pairs
    assert len({field for field, _ in pairs}) == min(count, 100)
    assert all(field == b"field:" + value for field, value in pairs)
    popped = run("SPOP", "s", count)
    assert len(set(popped)) == min(count, 100)
    assert run("SCARD", "s") == 100 - min(count, 100)


def test_a_reply_of_draws_is_bounded(run: Commands) -> None:
    run("SADD", "s", "a")
    run("HSET", "h", "a", 1)
    for refused in (
        ("SRANDMEMBER", "s", -(2**40)),
        ("HRANDFIELD", "h", -(2**40)),
        ("HRANDFIELD", "h", -(2**40), "WITHVALUES"),
    ):
        error = run(*refused)
        assert isinstance(error, CommandError)
        assert "out of range" in error.message


def test_large_collections_answer_as_fast_as_small_ones(run: Commands) -> None:
    fill_set(run, "small set", 1000)
    fill_hash(run, "small hash", 1000)
    fill_set(run, "large set", 300_000)
    fill_hash(run, "large hash", 300_000)

    def best_of(*words: object) -> float:
        times = []
        for _ in range(50):
            started = time.perf_counter()
            run(*words)
            times.append(time.perf_counter() - started)
        return min(times)

    for words in (
        ("SPOP", "{} set"),
        ("SPOP", "{} set", 10),
        ("SRANDMEMBER", "{} set", 10),
        ("SRANDMEMBER", "{} set", -10),
        ("HRANDFIELD", "{} hash", 10, "WITHVALUES"),
        ("SINTERCARD", 2, "{} set", "{} set", "LIMIT", 10),
        ("SSCAN", "{} set", 0),
        ("HSCAN", "{} hash", 0, "NOVALUES"),
    ):
        small, large = (best_of(*(str(word).format(size) for word in words)) for size in ("small", "large"))
        assert large < 10 * small + 0.0005, words


# Sets --------------------------------------------------------------------------------------------


def test_stores_replace_any_type_and_its_time(run: Commands) -> None:
    run("SADD", "a", 1, 2, 3)
    run("SADD", "b", 2, 3, 4)
    run("SET", "string", "x", "EX", 100)
    assert run("SINTERSTORE", "string", "a", "b") == 2
    assert (run("TYPE", "string"), run("TTL", "string")) == ("set", -1)
    assert run("SUNIONSTORE", "a", "a", "b") == 4
    assert sorted(run("SMEMBERS", "a")) == [b"1", b"2", b"3", b"4"]
    assert run("SDIFFSTORE", "a", "b", "a") == 0
    assert run("EXISTS", "a") == 0


def test_a_failed_command_changes_nothing(run: Commands) -> None:
    run("SADD", "s", "a")
    run("SET", "string", "x")
    for failing in (
        ("HSET", "h", "a", 1, "b"),
        ("SMOVE", "s", "string", "a"),
        ("SUNIONSTORE", "d", "s", "string"),
        ("HSETEX", "h", "EX", -1, "FIELDS", 1, "a", 1),
        ("GEOADD", "g", 1, 1, "a", 200, 1, "b"),
        ("PFMERGE", "p", "string"),
    ):
        assert isinstance(run(*failing), CommandError)
    assert sorted(run("KEYS", "*")) == [b"s", b"string"]
    assert run("SMEMBERS", "s") == [b"a"]


def test_sets_of_integers_are_listed_in_order(run: Commands) -> None:
    run("SADD", "s", *(number * 7919 % 500 for number in range(300)))
    members = [int(member) for member in run("SMEMBERS", "s")]
    assert members == sorted(members)
    assert run("SUNION", "s", "none") == run("SMEMBERS", "s")
