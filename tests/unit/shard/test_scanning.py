"""Cursors and options of HSCAN, SSCAN and ZSCAN."""

from __future__ import annotations

import pytest

from kache.errors import CommandError
from kache.shard.commands.scanning import scan_cursor, scan_options


@pytest.mark.parametrize(
    ("raw", "cursor"), [(b"0", 0), (b"007", 7), (b"+1", 1), (b" 1", 1), (b"18446744073709551615", 2**64 - 1)]
)
def test_cursors(raw: bytes, cursor: int) -> None:
    assert scan_cursor(raw) == cursor


@pytest.mark.parametrize("raw", [b"", b"x", b"-1", b"1 ", b"1.0", b"18446744073709551616", b"9" * 5000])
def test_bad_cursors(raw: bytes) -> None:
    with pytest.raises(CommandError, match="ERR invalid cursor"):
        scan_cursor(raw)


def test_options_in_any_order_and_case() -> None:
    options = scan_options((b"count", b"5", b"NoValues", b"MATCH", b"a*", b"count", b"7"), "hash")
    assert options.count == 7
    assert options.names_only
    assert options.matches is not None
    assert options.matches(b"abc")
    assert not options.matches(b"cba")
    assert scan_options((), "set").matches is None
    assert scan_options((b"MATCH", b"*"), "set").matches is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((b"COUNT", b"0"), "ERR syntax error"),
        ((b"COUNT", b"-1"), "ERR syntax error"),
        ((b"COUNT", b"x"), "ERR value is not an integer or out of range"),
        ((b"COUNT",), "ERR syntax error"),
        ((b"MATCH",), "ERR syntax error"),
        ((b"TYPE", b"set"), "ERR syntax error"),
        ((b"NOVALUES",), "ERR NOVALUES option can only be used in HSCAN"),
        ((b"NOSCORES",), "ERR NOSCORES option can only be used in ZSCAN"),
    ],
)
def test_bad_options(arguments: tuple[bytes, ...], text: str) -> None:
    with pytest.raises(CommandError) as raised:
        scan_options(arguments, "set")
    assert raised.value.message == text
