"""How replies are shown, and how a typed line becomes words."""

from __future__ import annotations

import pytest

from kache.cli import show
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, Verbatim


@pytest.mark.parametrize(
    ("value", "people", "raw"),
    [
        (None, "(nil)", b""),
        (NULL_ARRAY, "(nil)", b""),
        (7, "(integer) 7", b"7"),
        (True, "(true)", b"1"),
        (1.5, "(double) 1.5", b"1.5"),
        (b'a"\n\xff', r'"a\"\n\xff"', b'a"\n\xff'),
        ("ä".encode(), '"ä"', "ä".encode()),
        ("OK", "OK", b"OK"),
        ([], "(empty array)", b""),
        ([b"a", [1, None]], '1) "a"\n2) 1) (integer) 1\n   2) (nil)', b"a\n1\n"),
        ({b"k": b"v"}, '1# "k" => "v"', b"k\nv"),
        (CommandError("ERR no"), "(error) ERR no", b"ERR no"),
        (Verbatim(b"text"), '"text"', b"text"),
    ],
)
def test_reply(value: object, people: str, raw: bytes) -> None:
    assert show.for_people(value) == people
    assert show.raw(value) == raw


def test_json() -> None:
    assert show.as_json({b"a": [1, None, b"\xff", float("inf")]}) == '{"a": [1, null, {"base64": "/w=="}, "inf"]}'
    assert show.as_json([b"\\xff", {b"\xff": b"\xc3\xa4"}]) == '["\\\\xff", {"{\\"base64\\": \\"/w==\\"}": "ä"}]'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  get  k ", [b"get", b"k"]),
        (r'set k "a b\n\x00\q"', [b"set", b"k", b"a b\n\x00q"]),
        (r"set k 'a\n\'b'", [b"set", b"k", rb"a\n'b"]),
        ('set "" x', [b"set", b"", b"x"]),
        ("ü", ["ü".encode()]),
    ],
)
def test_words(line: str, words: list[bytes]) -> None:
    assert show.split_line(line) == words


def test_open_quote() -> None:
    with pytest.raises(ValueError):
        show.split_line('set "a')
