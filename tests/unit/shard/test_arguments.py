"""Numbers and options as Redis reads them."""

from __future__ import annotations

import pytest

from kache.errors import CommandError
from kache.shard.commands.arguments import (
    INT64_MAX,
    INT64_MIN,
    absolute_deadline,
    bounded_integer,
    database_index,
    expire_condition,
    parse_float,
    parse_integer,
    string_options,
)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"0", 0),
        (b"-1", -1),
        (b"9223372036854775807", INT64_MAX),
        (b"-9223372036854775808", INT64_MIN),
        (b"9223372036854775808", None),
        (b"-9223372036854775809", None),
        (b"99999999999999999999", None),
        (b"", None),
        (b"-", None),
        (b"-0", None),
        (b"+1", None),
        (b"01", None),
        (b" 1", None),
        (b"1 ", None),
        (b"1\n", None),
        (b"1_0", None),
        ("٣".encode(), None),
    ],
)
def test_integers(raw: bytes, value: int | None) -> None:
    assert parse_integer(raw) == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"1.", 1.0),
        (b".5", 0.5),
        (b"+5", 5.0),
        (b"1E+5", 1e5),
        (b"0e-400", 0.0),
        (b"-inf", float("-inf")),
        (b"+Infinity", float("inf")),
        (b"4.9e-324", 5e-324),
        (b"2e-324", None),
        (b"1e400", None),
        (b"-1e400", None),
        (b"nan", None),
        (b"infin", None),
        (b"0x10", None),
        (b"1_0", None),
        (b" 1", None),
        (b"1\n", None),
        (b"", None),
        (b".", None),
        (b"1e", None),
        (b"++1", None),
    ],
)
def test_floats(raw: bytes, value: float | None) -> None:
    assert parse_float(raw) == value


def test_deadlines() -> None:
    assert absolute_deadline(b"10", 1000, 5, "set", positive=True) == 10_005
    assert absolute_deadline(b"-10", 1000, 5, "expire", positive=False) == -9_995
    for raw, positive in ((b"0", True), (b"9223372036854775807", False), (b"-9223372036854775808", False)):
        with pytest.raises(CommandError, match="ERR invalid expire time in 'x' command"):
            absolute_deadline(raw, 1000, 0, "x", positive=positive)


def test_ranges_of_integers() -> None:
    assert database_index(b"15") == 15
    with pytest.raises(CommandError, match="DB index is out of range"):
        database_index(b"16")
    with pytest.raises(CommandError, match="must between -2147483648 and 2147483647"):
        database_index(b"2147483648")
    with pytest.raises(CommandError, match=r"^ERR mine$"):
        bounded_integer(b"x", 0, 1, "ERR mine")


@pytest.mark.parametrize(
    ("words", "current", "deadline", "holds"),
    [
        ((), -1, 5, True),
        ((b"nx",), -1, 5, True),
        ((b"NX",), 9, 5, False),
        ((b"XX",), -1, 5, False),
        ((b"gt",), -1, 5, False),
        ((b"GT",), 4, 5, True),
        ((b"GT",), 5, 5, False),
        ((b"LT",), -1, 5, True),
        ((b"LT",), 5, 5, False),
        ((b"XX", b"LT"), -1, 5, False),
    ],
)
def test_expire_conditions(words: tuple[bytes, ...], current: int, deadline: int, holds: bool) -> None:
    assert expire_condition(words).holds(current, deadline) is holds


@pytest.mark.parametrize("words", [(b"NX", b"XX"), (b"NX", b"GT"), (b"GT", b"LT"), (b"FOO",)])
def test_refused_expire_conditions(words: tuple[bytes, ...]) -> None:
    with pytest.raises(CommandError):
        expire_condition(words)


def test_string_options() -> None:
    allowed = frozenset((b"NX", b"XX", b"IFEQ", b"GET", b"KEEPTTL"))
    options = string_options("set", (b"px", b"100", b"Get", b"xx"), 1000, allowed)
    assert (options.deadline, options.get, options.condition) == (1100, True, "XX")
    for words in ((b"NX", b"XX"), (b"EX", b"1", b"PX", b"1"), (b"EX",), (b"KEEPTTL", b"EX", b"1"), (b"PERSIST",)):
        with pytest.raises(CommandError, match=r"^ERR syntax error$"):
            string_options("set", words, 0, allowed)
