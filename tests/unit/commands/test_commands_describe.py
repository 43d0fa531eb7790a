"""COMMAND's replies, argument lines as trees, HELP, and the reference page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kache.commands import BY_KEY, CONTAINERS, TABLE, Row
from kache.commands.describe import categories, command_keys, docs, help_lines, info, listed, subcommands
from kache.commands.reference import markdown, text
from kache.commands.syntax import Argument, parse
from kache.errors import CommandError
from kache.replies import SetReply

BINARY, RESP2 = 0, 2
PAGE = Path(__file__).parents[3] / "docs" / "commands.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == markdown(), "run: python -m kache.commands.reference > docs/commands.md"


def test_the_page_has_every_command_once() -> None:
    page = markdown()
    for row in TABLE:
        times = 0 if row.group == "internal" else 2 if f"binary|{row.name}" in BY_KEY else 1
        assert page.count(f"\n### {row.name.replace('|', ' ').upper()}\n") == times, row.key
    assert "_lease_take" not in page


def test_one_command_as_text() -> None:
    shown = text("config GET")
    assert shown.startswith("CONFIG GET parameter")
    assert "Differs:" in shown
    assert "N*K" in text("sinter")
    assert all(len(line) <= 80 for line in text("set", 80).splitlines()) and text("set", 1) != text("set", 80) != text(
        "set"
    )
    assert all(len(line) <= 96 for row in TABLE if row.group != "internal" for line in text(row.name).splitlines())
    assert text("del").count("DEL key") == 2  # the binary protocol's own as well
    with pytest.raises(KeyError):
        text("_scan")
    with pytest.raises(KeyError):
        text("nonsense")


def test_a_container_as_text_lists_its_subcommands() -> None:
    shown = text("object")
    assert [line for line in shown.splitlines() if line.startswith("OBJECT ")] == [
        "OBJECT ENCODING key",
        "OBJECT FREQ key",
        "OBJECT HELP",
        "OBJECT IDLETIME key",
        "OBJECT REFCOUNT key",
    ]


def test_all_commands_as_text_are_one_line_each() -> None:
    shown = text()
    for row in TABLE:
        if row.group != "internal":
            assert any(line.startswith(f"  {row.name.replace('|', ' ')} ") for line in shown.splitlines())


# COMMAND ------------------------------------------------------------------------------------------
def test_info_of_a_plain_command() -> None:
    key_spec = {
        b"flags": ["RM", "delete"],
        b"begin_search": {b"type": b"index", b"spec": {b"index": 1}},
        b"find_keys": {b"type": b"range", b"spec": {b"lastkey": -1, b"keystep": 1, b"limit": 0}},
    }
    reply = info(BY_KEY["del"], RESP2)
    assert reply == [
        b"del", -2, ["write"], 1, -1, 1, ["@keyspace", "@write", "@slow"],
        [b"request_policy:multi_shard", b"response_policy:agg_sum"], [key_spec], [],
    ]  # fmt: skip
    assert [type(field) for field in reply].count(SetReply) == 4


def test_info_of_a_container_holds_its_subcommands() -> None:
    reply = info(CONTAINERS["client"], RESP2)
    assert reply[:7] == [b"client", -2, [], 0, 0, 0, ["@slow"]]
    assert [each[0] for each in reply[9]] == [name.encode() for name in CONTAINERS["client"].subcommands]
    in_binary = [row.name for row in subcommands(CONTAINERS["client"], BINARY)]
    assert set(CONTAINERS["client"].subcommands) - set(in_binary) == {"client|reply", "client|caching"}


def test_documentation() -> None:
    found = docs(BY_KEY["sort_ro"], RESP2)
    assert list(found) == [b"summary", b"since", b"group", b"complexity", b"arguments"]
    assert found[b"arguments"][0] == {b"name": b"key", b"type": b"key", b"display_text": b"key"}
    assert b"arguments" not in docs(BY_KEY["dbsize"], RESP2)
    nested = docs(CONTAINERS["slowlog"], RESP2)[b"subcommands"]
    assert list(nested) == [b"slowlog|get", b"slowlog|help", b"slowlog|len", b"slowlog|reset"]


def test_listing_by_dialect() -> None:
    resp, binary = listed(RESP2), listed(BINARY)
    names = [row.name for row in resp]
    assert len(set(names)) == len(names)
    assert {row.name for row in resp} - {row.name for row in binary} == {
        *(
            "hello",
            "reset",
            "monitor",
            "subscribe",
            "unsubscribe",
            "psubscribe",
            "punsubscribe",
            "ssubscribe",
            "sunsubscribe",
        )
    }
    assert BY_KEY["binary|del"] in binary
    assert BY_KEY["del"] not in binary
    assert {"config", "command", "get"} <= set(names)
    assert not [name for name in names if "|" in name or name.startswith("_")]


def test_categories() -> None:
    assert categories(BY_KEY["get"]) == ["@string", "@read", "@fast"]
    assert set(categories(BY_KEY["sort"])) == {"@list", "@set", "@sortedset", "@dangerous", "@write", "@slow"}
    assert "@dangerous" in categories(BY_KEY["config|set"])


GETKEYS = [
    ("get k", "k"),
    ("OBJECT ENCODING k", "k"),
    ("mset a 1 b 2", "a b"),
    ("sort k STORE d", "k d"),
    ("get", "ERR Invalid number of arguments specified for command"),
    ("ping", "ERR The command has no key arguments"),
    ("config", "ERR The command has no key arguments"),
    ("config nonsense", "ERR Invalid command specified"),
    ("nonsense a", "ERR Invalid command specified"),
    ("_scan 0", "ERR Invalid command specified"),
    ("zunionstore d 5 a", "ERR Invalid arguments specified for command"),
    ("zunion 5 a", "ERR Invalid arguments specified for command"),
]


@pytest.mark.parametrize(("command", "expected"), GETKEYS)
def test_getkeys(command: str, expected: str) -> None:
    given = [word.encode() for word in command.split()]
    if expected.startswith("ERR"):
        with pytest.raises(CommandError) as raised:
            command_keys(given, RESP2)
        assert raised.value.message == expected
    else:
        assert command_keys(given, RESP2) == [word.encode() for word in expected.split()]


@pytest.mark.parametrize("container", [*CONTAINERS, "command"])
def test_every_container_has_help_that_names_its_subcommands(container: str) -> None:
    lines = help_lines(container)
    assert lines[0].startswith(f"{container.upper()} <subcommand>")
    for name in (CONTAINERS.get(container) or BY_KEY[container]).subcommands:
        assert any(line.split(" ")[0] == name.partition("|")[2].upper() for line in lines[1::2])
    assert f"{container}|help" in BY_KEY


# Argument lines -----------------------------------------------------------------------------------
def plain(name: str, kind: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": kind, "display_text": name, **more}


def test_words() -> None:
    assert parse("") == []
    assert parse("key seconds") == [plain("key", "key"), plain("seconds", "integer")]
    assert parse("[LEN]") == [plain("len", "pure-token", token="LEN", flags=["optional"])]


def test_repetition() -> None:
    assert parse("key [key ...]") == [plain("key", "key", flags=["multiple"])]
    block = parse("score member [score member ...]")
    assert block == [
        {
            "name": "score",
            "type": "block",
            "arguments": [plain("score", "double"), plain("member", "string")],
            "flags": ["multiple"],
        }
    ]
    assert parse("[section [section ...]]") == [plain("section", "string", flags=["multiple", "optional"])]
    assert parse("[GET encoding ...]") == [
        plain("encoding", "string", token="GET", flags=["optional", "multiple", "multiple_token"])
    ]


def test_alternatives_and_tokens() -> None:
    ex, px = plain("seconds", "integer", token="EX"), plain("milliseconds", "integer", token="PX")
    assert parse("[EX seconds | PX milliseconds]") == [
        {"name": "seconds-or-milliseconds", "type": "oneof", "arguments": [ex, px], "flags": ["optional"]}
    ]
    limit = parse("[LIMIT offset count]")[0]
    assert (limit["type"], limit["token"], len(limit["arguments"])) == ("block", "LIMIT", 2)
    assert parse("<A | B>")[0]["type"] == "oneof"


@pytest.mark.parametrize("broken", ["[key", "key]", "<A | B", "A >", "[<a]>", "[]", "[...]"])
def test_unbalanced_brackets(broken: str) -> None:
    with pytest.raises(ValueError, match=r"unexpected|missing|nothing"):
        parse(broken)


def leaves(arguments: list[Argument]) -> Iterator[Argument]:
    for argument in arguments:
        if "arguments" in argument:
            assert argument["arguments"]
            yield from leaves(argument["arguments"])
        else:
            yield argument


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.key)
def test_every_argument_line_parses(row: Row) -> None:
    found = list(leaves(parse(row.syntax)))
    assert bool(found) == bool(row.syntax)
    types = {argument["type"] for argument in found}
    assert types <= {"key", "pattern", "integer", "double", "unix-time", "string", "pure-token"}
    # A command that takes a fixed number of words names at least one of them for each.
    assert row.arity < 0 or len(found) >= row.arity - row.words
