"""The keys that are checked are the keys that are touched: for every row that has keys, with random arguments.

A shard in this process executes the command; afterwards a key counts as touched when it has become less idle, and as written
when its value or its deadline is another one, or it came or went. Both must be among the keys that are checked, written ones with the right to
write. Arguments are keys and words of options, repeated and misplaced, so that what looks like an option may be a key.
"""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest

from kache.acl.inner import rights_of
from kache.acl.record import WRITE
from kache.commands import BY_KEY, TABLE, KeySpec, Row
from kache.commands.extract import located, other_keys_of_sort
from kache.commands.syntax import Argument, parse
from kache.shard.shard import Shard

_WORD = re.compile(r"[^\s\[\]<>|]+")
START = 1_700_000_000_000
LETTERS = "silhezgxp"
"""Keys begin with one of their type: string, integer, list, hash, set, sorted set, places, stream, HyperLogLog."""
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
    *([b"pexpireat", b"%s2" % kind.encode(), b"1900000000000"] for kind in LETTERS),
]
KEYS = [b"%s%d" % (kind.encode(), n) for kind in LETTERS for n in (1, 2)]
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
ROWS = [
    row
    for row in TABLE
    if row.keys and row.on_shard and row.route != "channel" and not row.flags & {"internal", "blocking"}
]
"""What would wait is left out: the same commands without waiting find their keys in the same way."""
USUAL: dict[str, tuple[bytes, ...]] = {
    "group": (b"group",),
    "id": (b"*", b"0", b"1-1", b"$", b">"),
    "start": (b"0", b"-", b"1-1"),
    "stop": (b"0", b"-1", b"3"),
    "end": (b"0", b"-1", b"+"),
    "min": (b"0", b"-", b"(1", b"[a"),
    "max": (b"3", b"+", b"-1"),
    "score": (b"1", b"2"),
    "pivot": (b"1", b"3"),
    "unix-seconds": (b"1", b"1900000000"),
    "unix-milliseconds": (b"1", b"1900000000000"),
}
"""What arguments of these names are like where a command does something."""
KINDS = {
    "string": "si", "bitmap": "si", "list": "l", "hash": "h", "set": "e", "sorted-set": "zg", "stream": "x",
    "hyperloglog": "p", "geo": "g",
}  # fmt: skip
"""Which of the keys a group's commands are for, by their first letters."""
SMALL = (b"1", b"2", b"0", b"a", b"f")
TRIES = 30
ENOUGH = 3
"""Tries that touch a key: there are more tries until there have been so many."""
MOST_TRIES = 400
LEAVE_ALONE = frozenset(
    [
        "exists",
        "expiretime",
        "pexpiretime",
        "ttl",
        "pttl",
        "type",
        "object|freq",
        "object|idletime",
        "object|refcount",
        "memory|usage",
    ]
)
"""What these tell of a key is told without using it."""
NOT_MADE = frozenset(["restore", "eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"])
"""They need what no try makes: an image, a script or a function that does something."""


class Watched:
    """A shard whose keys are looked at before and after a command."""

    def __init__(self) -> None:
        self.shard = Shard(now_ms=START)
        self.now = START
        self.run(b"flushall")
        for words in SETTING_UP:
            assert not self.run(*words).startswith(b"-"), words

    def run(self, *words: bytes) -> Any:
        return self.shard.execute(list(words), 2, 0)

    def values(self) -> dict[bytes, Any]:
        return {key: (self.run(b"dump", key), self.run(b"pexpiretime", key)) for key in (*KEYS, *NEW)}

    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.shard.set_time(self.now)

    def look(self, words: list[bytes]) -> tuple[set[bytes], set[bytes]]:
        """Executes a command; the keys it touched, and those it wrote."""
        # Whatever commands before have let expire is gone first: the longest such time is far below this one.
        self.wait(100_000)
        before = self.values()
        self.wait(5_000)
        self.run(*words)
        fresh = {key for key in (*KEYS, *NEW) if self.run(b"object", b"idletime", key) == b":0\r\n"}
        after = self.values()
        written = {key for key, value in after.items() if value != before[key]}
        return fresh | written, written


class Attempts:
    """Arguments for the commands of one row: half of them follow its syntax, the others are keys and options in any order."""

    def __init__(self, row: Row, draw: random.Random) -> None:
        self.row = row
        self.draw = draw
        self.syntax = parse(row.syntax)
        self.options = [word.encode() for word in _WORD.findall(row.syntax) if word.isupper()] or WORDS
        self.keys = KEYS
        self.many = 1

    def make(self) -> list[bytes]:
        if self.draw.random() < 0.5:
            return self.misplaced()
        # Most commands do something only where all their keys are of one type, and what is counted is there.
        usual = KINDS.get(self.row.group, "")
        kind = self.draw.choice(usual if usual and self.draw.random() < 0.7 else LETTERS).encode()
        self.keys = [*(key for key in KEYS if key[:1] == kind), *NEW[:1]]
        self.many = self.draw.choice((1, 2))
        return self.following(self.syntax)

    def misplaced(self) -> list[bytes]:
        """Of a length that the arity allows."""
        least = abs(self.row.arity) - self.row.words
        count = least if self.row.arity >= 0 else least + self.draw.choice((0, 0, 1, 2, 3, 5))
        sources = self.draw.choices((KEYS + NEW, self.options, WORDS), (55, 20, 25), k=count)
        return [self.draw.choice(source) for source in sources]

    def following(self, arguments: list[Argument]) -> list[bytes]:
        """Words for these arguments, not all of the optional ones."""
        words: list[bytes] = []
        for argument in arguments:
            flags = argument.get("flags", ())
            if "optional" in flags and self.draw.random() < 0.6:
                continue
            if "token" in argument:
                words.append(argument["token"].encode())
            if argument["type"] != "pure-token":
                for _ in range(self.many if "multiple" in flags else 1):
                    words += self.one(argument)
        return words

    def one(self, argument: Argument) -> list[bytes]:
        """Words for one argument, without its token."""
        name, kind = argument["name"], argument["type"]
        if kind == "block":
            return self.following(argument["arguments"])
        if kind == "oneof":
            return self.following([self.draw.choice(argument["arguments"])])
        if kind == "key" or name in ("src", "dst") or self.draw.random() < 0.05:
            return [self.draw.choice(self.keys)]
        if name.startswith("num"):
            # What one parser takes for a number, another one may not.
            return [self.draw.choice((b"%d", b"%d", b"%d", b"%d", b"0%d", b"+%d", b" %d", b"%d.0")) % self.many]
        return [self.draw.choice(USUAL.get(name, SMALL))]


def tried(row: Row, keys: tuple[KeySpec, ...]) -> int:
    """Tries random arguments, checking by these specs; in how many tries a key was touched."""
    attempts = Attempts(row, random.Random(row.key))
    name = row.name.encode().split(b"|")
    watched = Watched()
    specified = msgspec.structs.replace(row, keys=keys)
    seen = 0
    for number in range(MOST_TRIES):
        if number >= TRIES and (seen >= ENOUGH or row.key in LEAVE_ALONE | NOT_MADE):
            break
        args = attempts.make()
        places = located(specified, args)
        checked = {args[place] for place, _ in places}
        writable = {args[place] for place, flags in places if rights_of(flags) & WRITE}
        if row.name.startswith("sort") and other_keys_of_sort(args):
            continue  # refused to whoever may not read every key
        touched, written = watched.look([*name, *args])
        assert touched <= checked, (args, touched)
        # PFCOUNT notes its count in the value, which is no change of it: its key has the flags that Redis gives it.
        assert written <= writable or row.name == "pfcount", (args, written)
        seen += bool(touched)
    return seen


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key.replace("|", " "))
def test_what_is_touched_was_checked(row: Row) -> None:
    touched = tried(row, row.keys)
    assert bool(touched) != (row.key in LEAVE_ALONE | NOT_MADE), f"{touched} tries touched a key"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *((name, 2) for name in ("get", "set", "del", "rename", "sunionstore", "sort", "zunionstore", "xadd")),
        ("lmpop", 1),
    ],
)
def test_the_tries_would_find_a_key_that_is_not_checked(name: str, place: int) -> None:
    row = BY_KEY[name]
    assert tried(row, row.keys)
    with pytest.raises(AssertionError):
        tried(row, (KeySpec("range", ("RW", "access", "update"), place, place),))
    if row.is_write:
        with pytest.raises(AssertionError):
            tried(row, tuple(msgspec.structs.replace(spec, flags=("RO", "access")) for spec in row.keys))
