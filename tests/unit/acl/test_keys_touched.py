"""The keys that are checked are the keys that are touched: for every row that has keys, with random arguments.

A shard in this process executes the command; afterwards a key counts as touched when it has become less idle, and as written
when its value is another one, or it came or went. Both must be among the keys that are checked, written ones with the right to
write. Arguments are keys and words of options, repeated and misplaced, so that what looks like an option may be a key.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from kache.acl.record import WRITE
from kache.commands import BY_KEY, TABLE, KeySpec, Row
from kache.commands.extract import located, other_keys_of_sort
from kache.router.accounts import rights_of
from kache.shard.shard import Shard

START = 1_700_000_000_000
SETTING_UP = [
    *([b"set", b"s%d" % n, b"value"] for n in (1, 2)),
    *([b"set", b"i%d" % n, b"7"] for n in (1, 2)),
    *([b"rpush", b"l%d" % n, b"3", b"1", b"2"] for n in (1, 2)),
    *([b"hset", b"h%d" % n, b"f", b"1", b"g", b"2"] for n in (1, 2)),
    *([b"sadd", b"e%d" % n, b"1", b"2", b"%d" % n] for n in (1, 2)),
    *([b"zadd", b"z%d" % n, b"1", b"a", b"2", b"b"] for n in (1, 2)),
    *([b"geoadd", b"g%d" % n, b"1", b"1", b"a"] for n in (1, 2)),
    *([b"xadd", b"x%d" % n, b"1-1", b"f", b"v"] for n in (1, 2)),
    *([b"xgroup", b"create", b"x%d" % n, b"group", b"0"] for n in (1, 2)),
    *([b"pfadd", b"p%d" % n, b"a", b"b"] for n in (1, 2)),
]
KEYS = [b"%s%d" % (kind, n) for kind in (b"s", b"i", b"l", b"h", b"e", b"z", b"g", b"x", b"p") for n in (1, 2)]
NEW = [b"new1", b"new2"]
WORDS = [
    b"1",
    b"2",
    b"0",
    b"3",
    b"-1",
    b"a",
    b"f",
    b"STORE",
    b"store",
    b"GET",
    b"left",
    b"RIGHT",
    b"COUNT",
    b"m",
    b"group",
    b">",
    b"*",
]
ROWS = [row for row in TABLE if row.keys and row.on_shard and row.route != "channel" and "internal" not in row.flags]
TRIES = 40


class Watched:
    """A shard whose keys are looked at before and after a command."""

    def __init__(self) -> None:
        self.shard = Shard(now_ms=START)
        self.now = START
        self.run(b"flushall")
        for words in SETTING_UP:
            assert not self.run(*words).startswith(b"-"), words
        self.before = self.values()

    def run(self, *words: bytes) -> Any:
        return self.shard.execute(list(words), 2, 0)

    def values(self) -> dict[bytes, Any]:
        return {key: self.run(b"dump", key) for key in (*KEYS, *NEW)}

    def look(self, words: list[bytes]) -> tuple[set[bytes], set[bytes]]:
        """Executes a command; the keys it touched, and those it wrote."""
        self.now += 100_000
        self.shard.set_time(self.now)
        self.run(*words)
        fresh = {key for key in (*KEYS, *NEW) if self.run(b"object", b"idletime", key) == b":0\r\n"}
        after = self.values()
        written = {key for key, value in after.items() if value != self.before[key]}
        self.before = after
        return fresh | written, written


def attempt(row: Row, draw: random.Random) -> list[bytes]:
    """Arguments for a command, of a length that its arity allows."""
    least = abs(row.arity) - row.words
    count = least if row.arity >= 0 else least + draw.choice((0, 0, 1, 2, 3, 5))
    options = [word.encode() for word in row.syntax.replace("[", " ").replace("]", " ").split() if word.isupper()]
    words = []
    for _ in range(count):
        kind = draw.random()
        words.append(
            draw.choice(KEYS + NEW)
            if kind < 0.55
            else draw.choice(options or WORDS)
            if kind < 0.75
            else draw.choice(WORDS)
        )
    return words


def tried(row: Row, keys: tuple[KeySpec, ...]) -> int:
    """Tries random arguments, checking by these specs; in how many tries a key was touched."""
    draw = random.Random(row.key)
    name = row.name.encode().split(b"|")
    watched = Watched()
    specified = msgspec.structs.replace(row, keys=keys)
    seen = 0
    for _ in range(TRIES):
        args = attempt(row, draw)
        places = located(specified, args)
        checked = {args[place] for place, _ in places}
        writable = {args[place] for place, flags in places if rights_of(flags) & WRITE}
        if not checked or (row.name.startswith("sort") and other_keys_of_sort(args)):
            continue  # refused to whoever may not touch, or read, every key
        if "blocking" in row.flags:
            continue  # it would wait; the same commands without waiting find their keys in the same way
        touched, written = watched.look([*name, *args])
        assert touched <= checked, (args, touched)
        assert written <= writable, (args, written)
        seen += bool(touched)
    return seen


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key.replace("|", " "))
def test_what_is_touched_was_checked(row: Row) -> None:
    tried(row, row.keys)


@pytest.mark.parametrize("name", ["get", "set", "del", "rename", "sunionstore", "sort", "lmpop", "zunionstore", "xadd"])
def test_the_tries_would_find_a_key_that_is_not_checked(name: str) -> None:
    row = BY_KEY[name]
    assert tried(row, row.keys)
    with pytest.raises(AssertionError):
        tried(row, (KeySpec("range", ("RW", "access", "update"), 2, 2),))
    if row.is_write:
        with pytest.raises(AssertionError):
            tried(row, tuple(msgspec.structs.replace(spec, flags=("RO", "access")) for spec in row.keys))
