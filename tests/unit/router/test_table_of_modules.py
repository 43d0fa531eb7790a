"""Commands of modules in the router's table: found beside the built-in ones, until they are not."""

from __future__ import annotations

import msgspec
import uvloop

from kache.acl.catalogue import CATALOGUE
from kache.commands import BY_KEY, CONTAINERS, TABLE, Row
from kache.config.settings import Config
from kache.router.mux.multiplexer import Router, prepare
from kache.router.mux.table import CommandTable


def made(name: str, number: int) -> Row:
    return msgspec.structs.replace(BY_KEY["get"], name=name, id=number, group="module")


def test_they_come_and_go() -> None:
    table = CommandTable(TABLE, CONTAINERS.values())
    first = len(TABLE)
    assert table.lookup([b"take"]) is None
    table.take_rows([made("take", first), made("limits.take", first + 1)])
    for binary in (False, True):
        assert (
            table.lookup([b"TAKE", b"k"], binary) == "take" and table.lookup([b"Limits.Take"], binary) == "limits.take"
        )
        assert table.lookup([b"get"], binary) == "get" and table.lookup([b"take2"], binary) is None
        assert table.lookup([b"config", b"get"], binary) == "config|get" and table.lookup([b"tak"], binary) is None
    table.take_rows([made("limits.take", first + 1), made("take", first + 7)])
    assert table.lookup([b"take"]) == "take"
    table.take_rows([made("limits.take", first + 1)])
    assert table.lookup([b"take"]) is None and table.lookup([b"limits.take"]) == "limits.take"
    table.take_rows([])
    assert table.lookup([b"limits.take"]) is None and table.lookup([b"get"]) == "get"


def test_there_may_be_many() -> None:
    table = CommandTable(TABLE, CONTAINERS.values())
    rows = [made(f"c{number}", len(TABLE) + number) for number in range(1000)]
    for count in (1, 10, 100, 1000, 500):
        table.take_rows(rows[:count])
        assert all(table.lookup([row.name.encode()]) == row.name for row in rows[:count])
        assert all(table.lookup([row.name.encode()]) is None for row in rows[count:])


def test_what_was_prepared_is_the_first_routers_alone() -> None:
    loop = uvloop.new_event_loop()
    try:
        prepare()
        prepare()
        routers = [Router(loop, Config(), ["/nowhere"], list) for _ in range(3)]
        tables = [router.command_table for router in routers]
        routers[0].take_modules(1, {"m": [made("take", len(TABLE))]})
        assert [table.lookup([b"take"]) for table in tables] == ["take", None, None]
        assert [table.lookup([b"config", b"get"]) for table in tables] == ["config|get"] * 3
        # Rules of users that a later router has do not know the commands of an earlier one's modules.
        assert CATALOGUE.of_name(b"take") is not None
        Router(loop, Config(), ["/nowhere"], list)
        assert CATALOGUE.of_name(b"take") is None
    finally:
        loop.close()
