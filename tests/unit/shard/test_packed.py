"""The packed form of small collections: every byte string comes back as it was, limits decide, order stays, memory is little.

That packed and large values behave alike for every command is shown in tests/oracle/test_packed_forms.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from packed_limits import LARGE_ONLY, Limits, limits

from kache.shard.engine.engine import Keyspace, Replay, Store
from kache.shard.engine.fields import FieldTable
from kache.shard.shard import Shard
from kache.wire.codec import decode_reply

NUMBERS = [
    *(sign * (1 << bits) + step for bits in range(64) for sign in (1, -1) for step in (-1, 0, 1)),
    *(int(sign + "9" * digits) for digits in range(1, 19) for sign in ("", "-")),
]
TEXTS = [
    *(b"%d" % number for number in NUMBERS),
    *(b"0%d" % number for number in range(12)),
    b"", b"-", b"--1", b"+1", b"-0", b"00", b" 1", b"1 ", b"1.0", b"1e3", b"\x00", b"\xff" * 3, b"9223372036854775808", b"-9223372036854775809",
    *(b"x" * size for size in (1, 63, 64, 126, 127, 128, 129, 250, 251, 252, 253, 254, 255, 256, 300, 4095, 4096, 16383, 16384, 70000)),
]  # fmt: skip
ROOMY: Limits = {
    "hash_entries": 5000, "hash_value": 100_000, "set_integers": 5000, "set_entries": 5000, "set_value": 100_000,
    "zset_entries": 5000, "zset_value": 100_000, "list_size": -5,
}  # fmt: skip


class Commands:
    """Commands to one shard, whose store is checked after each."""

    def __init__(self) -> None:
        self.shard = Shard(now_ms=1_700_000_000_000)

    def __call__(self, *words: bytes | str | int | float) -> Any:
        argv = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        reply, _ = decode_reply(self.shard.execute(argv))
        self.shard.store.check()
        return reply

    def encoding(self, key: str) -> str:
        reply = self("OBJECT", "ENCODING", key)
        assert isinstance(reply, bytes)
        return reply.decode()


@pytest.fixture
def run() -> Iterator[Commands]:
    with limits({}):
        yield Commands()


@pytest.mark.parametrize("chosen", [ROOMY, {}, LARGE_ONLY], ids=["all packed", "as in Redis", "none packed"])
def test_every_byte_string_comes_back_as_it_was(chosen: Limits) -> None:
    with limits(chosen):
        run = Commands()
        names = list(dict.fromkeys(TEXTS))
        for text in names:
            run("HSET", "h", text, text[::-1])
            assert run("HGET", "h", text) == text[::-1]
            run("SADD", "s", text)
            assert run("SISMEMBER", "s", text) == 1
            run("ZADD", "z", len(text), text)
            run("RPUSH", "l", text)
        assert run("HLEN", "h") == run("SCARD", "s") == run("ZCARD", "z") == run("LLEN", "l") == len(names)
        assert run("LRANGE", "l", 0, -1) == names
        assert run("ZRANGE", "z", 0, -1) == sorted(names, key=lambda name: (len(name), name))
        for text in reversed(names):
            assert run("RPOP", "l") == text
            assert run("ZSCORE", "z", text) == b"%d" % len(text)
            assert run("SREM", "s", text) == run("HDEL", "h", text) == run("ZREM", "z", text) == 1
        assert run("EXISTS", "h", "s", "z", "l") == 0


SHAPES = {
    "alike": [[12, 64]],
    "fields alike": [[12, 1], [12, 64], [12, 5]],
    "two alike": [[12, 64], [20, 64]],
    "values alike": [[9, 40], [10, 40], [30, 40]],
    "longer than a byte says": [[12, 200], [12, 201], [140, 200], [140, 5000]],
    "none alike": [[9 + number * 5 % 61, number * 7 % 64] for number in range(61)],
}
"""Lengths of fields and their values, in turn; a walk guesses that the next are as the last."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("run_length", [1, 7, 50])
def test_a_long_walk_finds_what_is_there_and_nothing_else(shape: str, run_length: int) -> None:
    pairs = SHAPES[shape]
    names: dict[bytes, bytes] = {}
    for number in range(150):
        size, value = pairs[number // run_length % len(pairs)]
        names[(b"%06d" % number).ljust(size, b"x")] = b"%d" % number * 2 + b"v" * value
    with limits(ROOMY):
        run = Commands()
        run("HSET", "h", *(word for pair in names.items() for word in pair))
        run("SADD", "s", *names)
        run("ZADD", "z", *(word for number, name in enumerate(names) for word in (number - 60, name)))
        assert run.encoding("h") == run.encoding("s") == run.encoding("z") == "listpack"
        for number, (name, value) in enumerate(names.items()):
            assert run("HGET", "h", name) == value and run("SISMEMBER", "s", name) == 1
            assert run("ZSCORE", "z", name) == b"%d" % (number - 60) and run("ZRANK", "z", name) == number
            for other in (name[:-1] + b"y", name + b"x", b"y" + name[1:]):
                assert run("HEXISTS", "h", other) == run("SISMEMBER", "s", other) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_long_sorted_set_has_its_order_after_every_change(shape: str) -> None:
    rng = random.Random(11)
    sizes = [size for size, _ in SHAPES[shape]]
    members = [(b"%03d" % number).ljust(sizes[number % len(sizes)], b"x") for number in range(120)]
    scores: dict[bytes, float] = {}
    with limits(ROOMY):
        run = Commands()
        for _ in range(1200):
            member = rng.choice(members)
            # Of one, two, three, five and eight bytes, and doubles; many alike.
            score = rng.choice(
                [rng.randrange(90), rng.randrange(-20, 300), rng.randrange(1 << 20), 1 << 40, 0.5, -1.25]
            )
            assert run("ZADD", "z", score, member) == (member not in scores)
            scores[member] = score
        assert run("ZRANGE", "z", 0, -1) == sorted(scores, key=lambda member: (scores[member], member))
        assert run.encoding("z") == "listpack"


def test_an_integer_and_its_other_texts_are_different_members(run: Commands) -> None:
    texts = ["7", "07", "+7", "7.0", " 7"]
    assert run("SADD", "s", *texts) == run("HSET", "h", *[word for text in texts for word in (text, text)]) == 5
    assert run("SMEMBERS", "s") == [text.encode() for text in texts]
    assert run("SADD", "i", "7", "8") == 2
    assert run.encoding("i") == "intset"
    assert run("SISMEMBER", "i", "07") == 0
    assert run("SREM", "i", "07", "+7", "7 ") == 0


@pytest.mark.parametrize("score", [0.0, -1.5, 63, 64, -1, 2.0**53, 2.0**53 + 2, -(2.0**60), 1e300, 0.1, "inf", "-inf"])
def test_scores_come_back_exactly(run: Commands, score: float | str) -> None:
    run("ZADD", "z", 5, "other", score, "m")
    packed = run("ZSCORE", "z", "m"), run("ZRANGE", "z", 0, -1, "WITHSCORES")
    with limits(LARGE_ONLY):
        run("ZADD", "y", 5, "other", score, "m")
        assert (run("ZSCORE", "y", "m"), run("ZRANGE", "y", 0, -1, "WITHSCORES")) == packed
    assert (run.encoding("z"), run.encoding("y")) == ("listpack", "skiplist")


def test_small_hashes_and_sets_keep_the_order_of_insertion(run: Commands) -> None:
    names = [b"f%d" % number for number in random.Random(2).sample(range(1000), 100)]
    run("HSET", "h", *[word for name in names for word in (name, b"v")])
    run("SADD", "s", *names)
    run("HSET", "h", names[5], "changed")
    run("HDEL", "h", names[7])
    run("HSET", "h", names[7], "again")
    expected = [*names[:7], *names[8:], names[7]]
    run("COPY", "h", "copy")
    run("COPY", "h", "other")
    run("RENAME", "other", "renamed")
    run("RESTORE", "restored", 0, run("DUMP", "h"))
    for key in ("h", "copy", "renamed", "restored"):
        assert run("HKEYS", key) == expected
    assert run("SMEMBERS", "s") == names


def test_small_values_keep_their_order_over_a_replay(run: Commands) -> None:
    run.shard.store.effects.record()
    names = [b"f%d" % number for number in random.Random(3).sample(range(1000), 60)]
    run("HSET", "h", *[word for name in names for word in (name, b"v")])
    run("SADD", "s", *names)
    run("RESTORE", "restored", 0, run("DUMP", "h"))
    copy = Store()
    Replay(copy).apply(*run.shard.store.effects.take())
    for key in (b"h", b"restored"):
        table = Keyspace(copy).hash_get(key)
        assert table is not None and table.fields() == names
    members = Keyspace(copy).set_get(b"s")
    assert members is not None and members.fields() == names


@pytest.mark.parametrize(
    ("grow", "key", "small", "large", "most"),
    [
        (lambda n: ["HSET", "h", f"f{n}", "v"], "h", "listpack", "hashtable", 512),
        (lambda n: ["SADD", "s", f"m{n}"], "s", "listpack", "hashtable", 128),
        (lambda n: ["SADD", "i", n], "i", "intset", "hashtable", 512),
        (lambda n: ["ZADD", "z", n, f"m{n}"], "z", "listpack", "skiplist", 128),
    ],
)
def test_the_limit_of_elements_decides(
    run: Commands, grow: object, key: str, small: str, large: str, most: int
) -> None:
    assert callable(grow)
    for number in range(most):
        run(*grow(number))
        assert run.encoding(key) == small
    run(*grow(0))  # nothing new
    assert run.encoding(key) == small
    run(*grow(most))
    assert run.encoding(key) == large


@pytest.mark.parametrize(
    "words",
    [["HSET", "k", "f", "#"], ["HSET", "k", "#", "v"], ["SADD", "k", "#"], ["ZADD", "k", 1, "#"]],
    ids=["value", "field", "member", "scored member"],
)
def test_the_limit_of_bytes_decides(run: Commands, words: list[str | int]) -> None:
    run(*["x" * 64 if word == "#" else word for word in words])
    assert run.encoding("k") == "listpack"
    run(*["y" * 65 if word == "#" else word for word in words])
    assert run.encoding("k") in ("hashtable", "skiplist")


def test_a_list_is_packed_up_to_eight_kibibytes_and_again_below_half_of_that(run: Commands) -> None:
    while run.encoding("l") == "listpack" if run("EXISTS", "l") else True:
        length = run("RPUSH", "l", "x" * 62)
    assert length == 8192 // 64  # 7 bytes around the elements, 64 each
    assert isinstance(length, int)
    run("LPOP", "l", length // 2 - 5)
    assert run.encoding("l") == "quicklist"
    run("LPOP", "l", 10)
    assert run.encoding("l") == "listpack"


def test_a_set_of_integers_becomes_another_with_its_first_word(run: Commands) -> None:
    numbers = [5, -3, 70000, 2**40, 0, 9]
    run("SADD", "s", *numbers)
    assert (run.encoding("s"), run("SMEMBERS", "s")) == ("intset", [b"%d" % number for number in sorted(numbers)])
    run("SADD", "s", "word")
    assert (run.encoding("s"), run("SMEMBERS", "s")) == ("listpack", [*(b"%d" % n for n in sorted(numbers)), b"word"])


def test_a_field_with_a_deadline_makes_a_table(run: Commands) -> None:
    run("HSET", "h", "a", 1, "b", 2)
    assert run("HPERSIST", "h", "FIELDS", 1, "a") == [-1]
    assert run.encoding("h") == "listpack"
    run("HPEXPIRE", "h", 50, "FIELDS", 1, "a")
    assert run.encoding("h") == "hashtable"
    run.shard.set_time(1_700_000_000_100)
    assert run("HGETALL", "h") == [b"b", b"2"]


def test_a_limit_that_is_lowered_holds_for_the_next_write(run: Commands) -> None:
    run("HSET", "h", *[word for number in range(20) for word in (number, "v")])
    run("ZADD", "z", *[word for number in range(20) for word in (number, f"m{number}")])
    with limits({"hash_entries": 10, "zset_entries": 10}):
        assert (run.encoding("h"), run.encoding("z")) == ("listpack", "listpack")
        run("HSET", "h", 0, "w")
        run("ZADD", "z", 1, "new")
        assert (run.encoding("h"), run.encoding("z")) == ("hashtable", "skiplist")
        run("HDEL", "h", *range(1, 20))
    run("HSET", "h", 1, "v")
    assert run.encoding("h") == "hashtable"


def test_what_small_values_cost(run: Commands) -> None:
    run("HSET", "h", *[word for number in range(5) for word in (f"field:{number}", f"value:{number}")])
    run("RPUSH", "l", *[f"element:{number}" for number in range(5)])
    run("SADD", "i", *range(1000, 1005))
    run("SADD", "s", *[f"member:{number}" for number in range(5)])
    run("ZADD", "z", *[word for number in range(5) for word in (number, f"member:{number}")])
    usage = {key: run("MEMORY", "USAGE", key) for key in ("h", "l", "i", "s", "z")}
    assert all(isinstance(size, int) for size in usage.values())
    assert usage == {"h": 104, "l": 80, "i": 32, "s": 64, "z": 72}


def test_what_comes_in_one_command_leaves_no_room_behind(run: Commands) -> None:
    run("HSET", "h", *[word for number in range(100, 150) for word in (number, 10**12 + number)])
    block = 8 + 1 + 2 + 28 * 2 + 22 * 3 + 50 * 7  # header, key, count; fields up to 127, the others, values
    assert run("MEMORY", "USAGE", "h") == (block + 31) // 32 * 32 + 8  # as the heap rounds, and a word of the table


def test_a_value_of_the_same_length_is_overwritten_where_it_is(run: Commands) -> None:
    run("HSET", "h", *(word for number in range(100) for word in (f"field:{number:03}", f"value:{number:03}")))
    before = run("HGETALL", "h")
    size = run.shard.store.used_memory
    assert isinstance(before, list)
    run("HSET", "h", "field:050", "other:050")
    assert run("HGETALL", "h") == [*before[:101], b"other:050", *before[102:]] and run.shard.store.used_memory == size


def test_what_is_taken_away_is_given_back(run: Commands) -> None:
    run("RPUSH", "l", *["x" * 60] * 100)
    run("HSET", "h", *[word for number in range(100) for word in (number, "x" * 60)])
    full = run("MEMORY", "USAGE", "l"), run("MEMORY", "USAGE", "h")
    run("LTRIM", "l", 0, 4)
    run("HDEL", "h", *range(95))
    for key, before in zip("lh", full, strict=True):
        after = run("MEMORY", "USAGE", key)
        assert isinstance(after, int) and isinstance(before, int) and after < before / 8


def test_a_table_of_fields_is_packed_until_it_cannot_be() -> None:
    with limits({"hash_entries": 4, "set_entries": 0, "set_integers": 0}):
        table = FieldTable()
        for number in range(4):
            assert table.set(b"f%d" % number, b"%d" % number)
        assert table.packed and not table.set(b"f2", b"x" * 60)
        assert table.scan(0, 1) == (0, table.items())
        assert table.items() == [(b"f0", b"0"), (b"f1", b"1"), (b"f2", b"x" * 60), (b"f3", b"3")]
        copy = table.copy()
        assert table.delete(b"f1") and not table.delete(b"f1")
        assert copy.packed and len(copy) == 4 and copy.get(b"f1") == b"1"
        assert {copy.random() for _ in range(200)} == {b"f0", b"f1", b"f2", b"f3"}
        assert copy.set(b"f9", b"9") and not copy.packed and len(copy) == 5
        assert table.set_deadline(b"f0", 5) and not table.packed and table.deadline_of(b"f0") == 5
        for each in (table, copy):
            each.check()
