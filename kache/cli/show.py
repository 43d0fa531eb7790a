"""Showing replies: for people as redis-cli does, raw for scripts, or as JSON. And reading a typed line into words."""

from __future__ import annotations

import base64
import json
from typing import Any

from kache.errors import CommandError
from kache.quoting import quoted
from kache.replies import NULL_ARRAY, BigNumber, DecimalDouble, Pairs, Verbatim, format_double

__all__ = ["as_json", "for_people", "raw", "split_line"]

_LETTERS = {"a": 7, "b": 8, "t": 9, "n": 10, "r": 13}


def _plain(value: Any) -> Any:
    """`value` without the classes that only the wire needs."""
    if value is NULL_ARRAY:
        return None
    if isinstance(value, Verbatim):
        return value.text
    if isinstance(value, BigNumber):
        return int(value.digits)
    if isinstance(value, DecimalDouble):
        return value.value
    if isinstance(value, Pairs):
        return [list(pair) for pair in value.pairs]
    return value


def for_people(value: Any, indent: int = 0) -> str:
    """`value` as redis-cli prints it on a terminal."""
    value = _plain(value)
    pad = " " * indent
    match value:
        case None:
            return "(nil)"
        case CommandError():
            return f"(error) {value.message}"
        case bool():
            return f"({str(value).lower()})"
        case int():
            return f"(integer) {value}"
        case float():
            return f"(double) {format_double(value).decode()}"
        case bytes():
            return quoted(value)
        case str():
            return value
        case dict():
            if not value:
                return "(empty map)"
            width = len(str(len(value)))
            lines = [
                f"{number:>{width}}# {for_people(key)} => {for_people(item, indent + width + 2)}"
                for number, (key, item) in enumerate(value.items(), 1)
            ]
            return f"\n{pad}".join(lines)
        case list() | tuple() | set() | frozenset():
            if not value:
                return "(empty array)"
            width = len(str(len(value)))
            lines = [
                f"{number:>{width}}) {for_people(item, indent + width + 2)}" for number, item in enumerate(value, 1)
            ]
            return f"\n{pad}".join(lines)
    return str(value)


def raw(value: Any) -> bytes:
    """`value` as bytes: strings as they are, elements of collections one per line."""
    value = _plain(value)
    match value:
        case None:
            return b""
        case bool():
            return b"1" if value else b"0"
        case float():
            return format_double(value)
        case bytes():
            return value
        case CommandError():
            return value.message.encode()
        case dict():
            return b"\n".join(raw(part) for pair in value.items() for part in pair)
        case list() | tuple() | set() | frozenset():
            return b"\n".join(map(raw, value))
    return str(value).encode()


def as_json(value: Any) -> str:
    """`value` as JSON; bytes that are not UTF-8 are {"base64": …}, as a key of a map that as a text."""
    return json.dumps(_jsonable(value), ensure_ascii=False)


def bytes_as_json(data: bytes) -> str | dict[str, str]:
    """The text, or what says all bytes of what is none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _key(key: Any) -> str:
    value = _jsonable(key)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _jsonable(value: Any) -> Any:
    value = _plain(value)
    match value:
        case bytes():
            return bytes_as_json(value)
        case CommandError():
            return {"error": value.message}
        case float() if value != value or value in (float("inf"), float("-inf")):
            return format_double(value).decode()
        case dict():
            return {_key(key): _jsonable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_jsonable(item) for item in value]
    return value


def split_line(line: str) -> list[bytes]:
    """The words of a typed line; "…" takes escapes (\\n, \\x00), '…' does not. Raises ValueError."""
    words: list[bytes] = []
    at, end = 0, len(line)
    while at < end:
        if line[at].isspace():
            at += 1
            continue
        word = bytearray()
        while at < end and not line[at].isspace():
            if line[at] in "\"'":
                at = _quoted_part(line, at, word)
            else:
                word += line[at].encode("utf-8", "surrogateescape")
                at += 1
        words.append(bytes(word))
    return words


def _quoted_part(line: str, start: int, word: bytearray) -> int:
    """Append the quoted text at `start` to `word`; returns where it ends."""
    quote, at = line[start], start + 1
    while at < len(line):
        char = line[at]
        if char == quote:
            return at + 1
        if char == "\\" and at + 1 < len(line):
            following = line[at + 1]
            digits = line[at + 2 : at + 4]
            if (
                quote == '"'
                and following == "x"
                and len(digits) == 2
                and all(d in "0123456789abcdefABCDEF" for d in digits)
            ):
                word.append(int(digits, 16))
                at += 4
                continue
            if quote == '"':
                word += bytes([_LETTERS[following]]) if following in _LETTERS else following.encode()
                at += 2
                continue
            if following == "'":
                word += b"'"
                at += 2
                continue
        word += char.encode("utf-8", "surrogateescape")
        at += 1
    raise ValueError("a quote is not closed")
