"""Libraries as text: their first line, and payloads of DUMP whole, cut, changed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from kache.libraries import LibraryError, decode, encode, name_of

ANSWERS = Path(__file__).parent.parent / "data" / "functions-redis-7.0.15.json"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("#!lua name=shop", "shop"),
        ("#!LUA\tNAME=a_1 ", "a_1"),
        ("#!lua 'name=quoted'", "quoted"),
        ('#!lua "name=\\x41\\x42"', "AB"),
        ("#!lua name=x\0name=y", "x"),
    ],
)
def test_the_name(line: str, name: str) -> None:
    assert name_of(line.encode() + b"\nreturn 1") == name


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("#!lua name='a\n", "Invalid library metadata"),
        ('#!lua "name=a"b\n', "Invalid library metadata"),
        ("#!lua 'name=it\\'s'\n", "Library names can only contain"),
        ("#!lua \xff\n", "Invalid metadata value given: \udcff"),
    ],
)
def test_what_is_no_first_line(text: str, wrong: str) -> None:
    with pytest.raises(LibraryError, match=wrong):
        name_of(text.encode("latin-1"))


def test_payloads_are_read_as_they_were_written() -> None:
    draw = random.Random(15)
    for size in (0, 1, 63, 64, 16383, 16384, 70000):
        codes = [draw.randbytes(size), b"#!lua name=x\n"]
        assert decode(encode(codes)) == codes
    assert decode(encode([])) == []


def test_the_payload_of_a_real_server() -> None:
    """It has two libraries, both compressed. redis-server 7.0.15 was given the second form, and took it."""
    payload = max((a for a in json.loads(ANSWERS.read_text()) if "\xf5\xc3" in a), key=len)
    codes = decode(payload.partition("\r\n")[2][:-2].encode("latin-1"))
    assert [name_of(code) for code in codes] == ["second", "shop"]
    assert codes[0].endswith(b"-- " + b"padding " * 200)
    assert decode(encode(codes)) == codes


def test_a_damaged_payload_is_refused() -> None:
    whole = encode([b"#!lua name=x\nreturn 1" * 10])
    for at in range(0, len(whole), 7):
        for broken in (whole[:at], whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :]):
            with pytest.raises(LibraryError, match="checksum"):
                decode(broken)


@pytest.mark.parametrize(
    "body",
    [
        b"\xf5", b"\xf5\x05abc", b"\xf5\x80\x00", b"\xf5\x82", b"\xf5\xc3", b"\xf5\xc3\x02\x40\x05\x00", b"\xf5\xc3\x03\x05\x20\x05\x00",
        b"\xf5\xc3\x02\x09\x00a", b"\xf5\xc3\x02\x00\x00a", b"\xf5\xc1\x01", b"\xf5\xc5\x01", b"\xf5\x81\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xf5\xc3\x02\x80\x7f\xff\xff\xff\x00a",
    ],
)  # fmt: skip
def test_a_crafted_payload_is_refused(body: bytes) -> None:
    """Its check fits, what it says does not: nothing is read past the end, and little is unpacked."""
    with pytest.raises(LibraryError):
        decode(_checked(body))


@pytest.mark.parametrize(("body", "wrong"), [(b"\xf6x", "Pre-GA"), (b"\x00x", "not a function")])
def test_what_is_no_library(body: bytes, wrong: str) -> None:
    with pytest.raises(LibraryError, match=wrong):
        decode(_checked(body))


def test_numbers_as_strings() -> None:
    assert decode(_checked(b"\xf5\xc0\xff\xf5\xc1\x00\x01\xf5\xc2\x01\x00\x00\x00")) == [b"-1", b"256", b"1"]


def _checked(body: bytes) -> bytes:
    """With the footer that fits: the check is over all before it, so that of nothing more goes on from there."""
    from kache.libraries import _crc64

    body += b"\x0a\x00"
    return body + _crc64(body).to_bytes(8, "little")
