"""Libraries of functions as text: what their first line says, and many of them as one payload, as FUNCTION DUMP gives it.

A payload is that of a real server, so that either takes what the other gave: for each library a byte that says so and its
text as a string of an RDB file, then two bytes of version and a CRC-64 of all before, both little-endian. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from kache.errors import KacheError

__all__ = ["MOST_BYTES", "LibraryError", "decode", "encode", "is_name", "name_of"]

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of the texts of all libraries of a cluster together: they travel in one message."""

_VERSION: Final = 10
"""Of the RDB files of Redis 7.0, the first that has libraries."""
_LIBRARY: Final = 245
_BEFORE_RELEASE: Final = 246
_FOOTER: Final = 10
_INTEGERS: Final = {0xC0: 1, 0xC1: 2, 0xC2: 4}
_COMPRESSED: Final = 0xC3
_NAME: Final = re.compile(rb"[A-Za-z0-9_]+")
_ESCAPES: Final = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_SPACES: Final = b" \n\r\t\v\f\0"


class LibraryError(KacheError):
    """What is wrong with a library or a payload, in the words of a real server, without the code ``ERR``."""


# The first line -------------------------------------------------------------------------------------------------
def name_of(code: bytes) -> str:
    """The name that ``#!lua name=…`` gives a library. Raises LibraryError."""
    if not code.startswith(b"#!"):
        raise LibraryError("Missing library metadata")
    line, end, _ = code.partition(b"\n")
    words = _words(line.partition(b"\0")[0]) if end else None
    if not words:
        raise LibraryError("Invalid library metadata")
    name: bytes | None = None
    for word in words[1:]:
        if word[:5].lower() != b"name=":
            raise LibraryError(f"Invalid metadata value given: {_text(word)}")
        if name is not None:
            raise LibraryError("Invalid metadata value, name argument was given multiple times")
        name = word[5:]
    if name is None:
        raise LibraryError("Library name was not given")
    if not is_name(name):
        raise LibraryError(
            "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long"
        )
    if words[0][2:].lower() != b"lua":
        raise LibraryError(f"Engine '{_text(words[0][2:])}' not found")
    return name.decode()


def is_name(word: bytes) -> bool:
    """Whether libraries and functions can be named so."""
    return _NAME.fullmatch(word) is not None


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _words(line: bytes) -> list[bytes] | None:
    """The words of a line, quoted ones as a shell of a real server reads them; None where quotes are left open."""
    found: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in _SPACES:
            at += 1
        if at == len(line):
            return found
        word = bytearray()
        while at < len(line) and line[at] not in _SPACES:
            if line[at] in b"\"'":
                at = _quoted(line, at, word)
                if at < 0:
                    return None
            else:
                word.append(line[at])
                at += 1
        found.append(bytes(word))


def _quoted(line: bytes, at: int, word: bytearray) -> int:
    """Adds what is between quotes to `word`; where it goes on behind them, -1 where they do not end a word."""
    quote = line[at]
    at += 1
    while at < len(line) and line[at] != quote:
        if line[at] == ord("\\") and at + 1 < len(line) and (quote == ord('"') or line[at + 1] == quote):
            digits = line[at + 2 : at + 4]
            if quote == ord('"') and line[at + 1] == ord("x") and re.fullmatch(rb"[0-9a-fA-F]{2}", digits):
                word.append(int(digits, 16))
                at += 4
                continue
            word.append(_ESCAPES.get(line[at + 1], line[at + 1]) if quote == ord('"') else quote)
            at += 2
        else:
            word.append(line[at])
            at += 1
    at += 1
    return at if at <= len(line) and (at == len(line) or line[at] in _SPACES) else -1


# Payloads -------------------------------------------------------------------------------------------------------
def encode(codes: Iterable[bytes]) -> bytes:
    """The payload of these libraries."""
    body = b"".join(bytes((_LIBRARY,)) + _length(len(code)) + code for code in codes)
    body += _VERSION.to_bytes(2, "little")
    return body + _crc64(body).to_bytes(8, "little")


def decode(payload: bytes) -> list[bytes]:
    """The texts of the libraries in a payload, of this server or another one. Raises LibraryError."""
    if len(payload) < _FOOTER or _crc64(payload[:-8]) != int.from_bytes(payload[-8:], "little"):
        raise LibraryError("DUMP payload version or checksum are wrong")
    found = []
    at, end = 0, len(payload) - _FOOTER
    while at < end:
        if payload[at] == _BEFORE_RELEASE:
            raise LibraryError("Pre-GA function format not supported")
        if payload[at] != _LIBRARY:
            raise LibraryError("given type is not a function")
        code, at = _string(payload[:end], at + 1)
        found.append(code)
    return found


def _length(number: int) -> bytes:
    if number < 1 << 6:
        return bytes((number,))
    if number < 1 << 14:
        return bytes((0x40 | number >> 8, number & 0xFF))
    return b"\x80" + number.to_bytes(4, "big")


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    """(a length, where it ends); IndexError where there is none."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | data[at + 1], at + 2
    size = {0x80: 4, 0x81: 8}[first]
    if at + 1 + size > len(data):
        raise IndexError
    return int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """(a string of an RDB file, where it ends)."""
    try:
        if data[at] in _INTEGERS:
            end = at + 1 + _INTEGERS[data[at]]
            found = b"%d" % int.from_bytes(data[at + 1 : end], "little", signed=True)
        elif data[at] == _COMPRESSED:
            packed, at = _read_length(data, at + 1)
            size, at = _read_length(data, at)
            end = at + packed
            if size > MOST_BYTES:
                raise LibraryError(f"all libraries together may have {MOST_BYTES} bytes")
            found = _unpacked(data[at:end], size)
        else:
            size, at = _read_length(data, at)
            end = at + size
            found = data[at:end]
        if end > len(data):
            raise IndexError
    except (IndexError, KeyError):
        raise LibraryError("Failed loading library code") from None
    return found, end


def _unpacked(data: Sequence[int], size: int) -> bytes:
    """What LZF has packed into `data`: runs as they are, and copies of what came before. IndexError for anything else."""
    found = bytearray()
    at = 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            run = data[at : at + control + 1]
            if len(run) <= control:
                raise IndexError
            found += bytes(run)
            at += control + 1
        else:
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            start = len(found) - ((control & 31) << 8 | data[at]) - 1
            at += 1
            if start < 0:
                raise IndexError
            for place in range(start, start + length + 2):
                found.append(found[place])
        if len(found) > size:
            raise IndexError
    if len(found) != size:
        raise IndexError
    return bytes(found)


def _table() -> tuple[int, ...]:
    # The polynomial of Jones, its bits reversed.
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x95AC9329AC4BC9B5 if number & 1 else 0)
        table.append(number)
    return tuple(table)


_TABLE: Final = _table()


def _crc64(data: bytes) -> int:
    found = 0
    for byte in data:
        found = _TABLE[(found ^ byte) & 0xFF] ^ found >> 8
    return found
