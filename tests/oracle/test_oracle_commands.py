"""The command table beside a real server's: arity, flags, key places and categories of every command both have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kache.commands import CONTAINERS, TABLE, Row
from kache.commands.describe import command_keys, info
from kache.errors import CommandError

from .wire import Connection, RawReply

OURS_ALONE = {
    "lget", "zquery", "stats", "hotkeys", "bigkeys", "advise", "ready", "debug|help", "debug|loadaof", "debug|reload",
}  # fmt: skip
"""Commands no Redis has."""

ONE_COMMAND_THERE = {"debug"}
"""Names whose subcommands are commands only here."""

CHANNELS_AS_KEYS = {"spublish", "ssubscribe", "sunsubscribe"}
"""A real server names their channels as places of what is no key, for clients of a cluster of several nodes."""

RENAMED_FLAGS = {"skip_commandlog": "skip_slowlog"}
"""Flags that newer real servers call otherwise."""

GETKEYS_DIFFERS = {"pfmerge d": "the real server calls it invalid, although PFMERGE takes it"}
"""Commands whose keys we name and the real server does not. Nothing else in the table differs."""

FIELDS = ("name", "arity", "flags", "first", "last", "step", "categories", "tips", "keys")


@pytest.fixture(scope="module")
def real(valkey_port: int) -> Iterator[Connection]:
    connection = Connection(valkey_port, 3)
    yield connection
    connection.close()


def value(reply: RawReply) -> Any:
    """A raw reply as plain values; sets as frozensets of what can be hashed, lists otherwise."""
    if reply.kind == b":":
        return int(reply.text)
    if reply.kind in (b"*", b"~"):
        found = [value(item) for item in reply.items]
        return frozenset(found) if all(isinstance(item, str) for item in found) and reply.kind == b"~" else found
    if reply.kind == b"%":
        keys, values = reply.items[::2], reply.items[1::2]
        return {value(key): value(item) for key, item in zip(keys, values, strict=True) if key.text != b"notes"}
    return reply.text.decode()


def ours(reply: Any) -> Any:
    """One of our reply values in the same form."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, dict):
        return {ours(key): ours(item) for key, item in reply.items()}
    if isinstance(reply, list):
        found = [ours(item) for item in reply]
        as_set = type(reply) is not list and all(isinstance(item, str) for item in found)
        return frozenset(found) if as_set else found
    return reply


def shared() -> list[Row]:
    rows = [row for row in TABLE if row.group != "internal" and row.dialect != "binary"]
    return [row for row in [*rows, *CONTAINERS.values()] if row.name not in OURS_ALONE | ONE_COMMAND_THERE]


@pytest.mark.parametrize("row", shared(), ids=lambda row: row.name)
def test_a_row_agrees_with_the_real_server(real: Connection, row: Row) -> None:
    (reply,) = real.run([("COMMAND", "INFO", row.name)])
    assert not reply.items[0].is_null, "the real server has no such command: it belongs to OURS_ALONE"
    theirs = dict(zip(FIELDS, value(reply.items[0])[:9], strict=True))
    found = dict(zip(FIELDS, ours(info(row, 2))[:9], strict=True))
    # Tips are for clients that talk to several servers; Kache is one address and derives them from its own routes.
    del found["tips"], theirs["tips"]
    theirs["flags"] = frozenset(RENAMED_FLAGS.get(flag, flag) for flag in theirs["flags"])
    if row.name in CHANNELS_AS_KEYS:
        for field in ("first", "last", "step", "keys"):
            del found[field], theirs[field]
    assert found == theirs


def test_what_is_ours_alone_is_unknown_to_the_real_server(real: Connection) -> None:
    for name in OURS_ALONE:
        assert real.run([("COMMAND", "INFO", name)])[0].items[0].is_null


def test_documentation_agrees_in_group_and_version(real: Connection) -> None:
    for row in shared():
        (reply,) = real.run([("COMMAND", "DOCS", row.name)])
        theirs = value(reply)[row.name]
        assert (row.group, row.since) == (theirs["group"], theirs["since"]), row.name
        assert row.summary != theirs["summary"], f"{row.name}: say it in our own words"


GETKEYS = """\
get k
mset a 1 b 2
mset a 1 b
object encoding k
object foo k
bitop and d a b
zunionstore d 2 a b
zunionstore d 5 a b
zunion 0 a
zunion x a
lmpop 2 a b left
sort k by w get o store d
sort k by store get store store d
sort k limit store store store d
sort k store
georadius k 1 2 3 m store d
georadius k 1 2 3 m count 5 storedist d asc
georadius k 1 2 3 m store a storedist b
georadiusbymember k store 3 m store d
pfmerge d
pfmerge d a b
lcs a b len
msetex 2 a 1 b 2 ex 5
memory usage k samples 3
xyz a
ping
config
config get
get
get a b
""".splitlines()


@pytest.mark.parametrize("command", GETKEYS)
def test_getkeys_agrees_with_the_real_server(real: Connection, command: str) -> None:
    (reply,) = real.run([("COMMAND", "GETKEYS", *command.split())])
    try:
        found: Any = [key.decode() for key in command_keys([word.encode() for word in command.split()], 2)]
    except CommandError as error:
        found = error.message
    assert (found == value(reply)) is (command not in GETKEYS_DIFFERS)
