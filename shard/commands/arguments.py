"""What handlers share in reading their arguments: numbers, expiry options, the exact errors.

Owns: Redis's strict integers (no sign but a minus, no leading zeros or spaces), its floats (decimal only, never
NaN, overflow and underflow refused), the option words of SET and its family and of EXPIRE and its family.
Promises: nothing is read from a keyspace; every failure is a CommandError with the real server's text.
Pure functions over bytes and the time they are given; any handler may call them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kache.errors import NOT_FLOAT, NOT_INTEGER, SYNTAX, CommandError

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "MAX_DATABASES",
    "ExpireCondition",
    "StringOptions",
    "absolute_deadline",
    "bounded_integer",
    "check_database",
    "database_index",
    "expire_condition",
    "floating",
    "inclusive_span",
    "int32",
    "integer",
    "parse_float",
    "parse_integer",
    "pop_options",
    "string_options",
]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
_INT32_MIN: Final = -(2**31)
_INT32_MAX: Final = 2**31 - 1
MAX_DATABASES: Final = 16
"""Numbered databases in every shard (DESIGN §5)."""

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_FLOAT = re.compile(rb"([+-]?)(?:(\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(inf(?:inity)?))", re.IGNORECASE)


# Numbers -----------------------------------------------------------------------------------------


def parse_integer(raw: bytes) -> int | None:
    """The 64-bit signed integer that `raw` spells in the one way Redis accepts; None for anything else."""
    if _INTEGER.fullmatch(raw) is None:
        return None
    value = int(raw)
    return value if INT64_MIN <= value <= INT64_MAX else None


def integer(raw: bytes, error: str = NOT_INTEGER) -> int:
    """`parse_integer`, or CommandError(`error`)."""
    value = parse_integer(raw)
    if value is None:
        raise CommandError(error)
    return value


def bounded_integer(raw: bytes, low: int, high: int, error: str | None = None) -> int:
    """An integer within [low, high].

    Without `error` the texts are the real server's: "not an integer" for what is none, the range for what is outside.
    """
    value = integer(raw, error or NOT_INTEGER)
    if low <= value <= high:
        return value
    raise CommandError(error or f"ERR value is out of range, value must between {low} and {high}")


def inclusive_span(length: int, start: int, stop: int) -> tuple[int, int]:
    """Redis's inclusive places, from the end if negative, as [first, end) within `length`; (0, 0) when empty.

    `rank_span` of the compiled commands is the same rule.
    """
    if start < 0:
        start = max(start + length, 0)
    stop = stop + length + 1 if stop < 0 else min(stop + 1, length)
    return (start, stop) if start < stop else (0, 0)


def int32(raw: bytes, error: str | None = None) -> int:
    """An integer of 32 bits; `error` replaces the texts of `bounded_integer`."""
    return bounded_integer(raw, _INT32_MIN, _INT32_MAX, error)


def check_database(index: int) -> int:
    """The number of a database that exists, or CommandError."""
    if not 0 <= index < MAX_DATABASES:
        raise CommandError("ERR DB index is out of range")
    return index


def database_index(raw: bytes) -> int:
    """The number of a database, as sent."""
    return check_database(int32(raw))


def parse_float(raw: bytes) -> float | None:
    """The double that `raw` spells; None for NaN, hexadecimal, spaces, and what over- or underflows."""
    match = _FLOAT.fullmatch(raw)
    if match is None:
        return None
    value = float(raw)
    if match.group(3) is not None:
        return value
    if math.isinf(value) or (value == 0.0 and any(digit in b"123456789" for digit in match.group(2))):
        return None
    return value


def floating(raw: bytes, error: str = NOT_FLOAT) -> float:
    """`parse_float`, or CommandError(`error`)."""
    value = parse_float(raw)
    if value is None:
        raise CommandError(error)
    return value


def pop_options(words: Sequence[bytes], first: bytes, last: bytes) -> tuple[bool, int]:
    """What follows the keys of LMPOP, ZMPOP and their like, ``first | last [COUNT count]``: whether it is `first`, and
    how many."""
    if not words or words[0].upper() not in (first, last):
        raise CommandError(SYNTAX)
    count = 1
    if len(words) > 1:
        if len(words) < 3 or words[1].upper() != b"COUNT":
            raise CommandError(SYNTAX)
        count = bounded_integer(words[2], 1, INT64_MAX, "ERR count should be greater than 0")
        if len(words) > 3:
            raise CommandError(SYNTAX)
    return words[0].upper() == first, count


# Expiry ------------------------------------------------------------------------------------------


def absolute_deadline(raw: bytes, unit: int, base_ms: int, command: str, *, positive: bool) -> int:
    """The deadline in unix milliseconds that an argument of EX, PX, EXAT, PXAT or EXPIRE means.

    Args:
        raw: the number as sent.
        unit: milliseconds per unit of it, 1000 or 1.
        base_ms: now for a relative time, 0 for an absolute one.
        command: named in the error.
        positive: whether zero and negative times are refused (SET), rather than in the past (EXPIRE).

    Raises CommandError: not an integer, or "invalid expire time" when refused or beyond 64 bits.
    """
    amount = integer(raw)
    deadline = amount * unit + base_ms
    if (positive and amount <= 0) or deadline > INT64_MAX or amount * unit < INT64_MIN:
        raise CommandError(f"ERR invalid expire time in '{command}' command")
    return deadline


_EXPIRY_UNITS: Final = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}
"""Option word -> (milliseconds per unit, relative to now)."""


@dataclass(slots=True)
class StringOptions:
    """What SET, GETEX and their like were asked for.

    deadline: unix ms, 0 for none given. condition: "" "NX" "XX" "IFEQ"; `equals` is IFEQ's value.
    """

    deadline: int = 0
    keep_ttl: bool = False
    persist: bool = False
    get: bool = False
    condition: str = ""
    equals: bytes = b""


def string_options(command: str, args: tuple[bytes, ...], now_ms: int, allowed: frozenset[bytes]) -> StringOptions:
    """The options of `command`, case-insensitive, in any order.

    Args:
        command: lower-case name, for the error about an expire time.
        args: everything after the fixed arguments.
        now_ms: what relative times count from.
        allowed: the words, besides the four expiry units, that this command knows (b"NX", b"GET" …).

    Raises CommandError: syntax error for unknown, repeated or conflicting words; integer and expire time errors.
    """
    options = StringOptions()
    unit, amount = b"", b""
    position, size = 0, len(args)
    while position < size:
        word = args[position].upper()
        position += 1
        if word in _EXPIRY_UNITS:
            if position == size or options.keep_ttl or options.persist or unit not in (b"", word):
                raise CommandError(SYNTAX)
            unit, amount = word, args[position]
            position += 1
        elif word not in allowed:
            raise CommandError(SYNTAX)
        elif word == b"IFEQ":
            if position == size or options.condition:
                raise CommandError(SYNTAX)
            options.condition, options.equals = "IFEQ", args[position]
            position += 1
        else:
            _apply_word(options, word, has_expiry=bool(unit))
    if unit:
        scale, relative = _EXPIRY_UNITS[unit]
        options.deadline = absolute_deadline(amount, scale, now_ms if relative else 0, command, positive=True)
    return options


def _apply_word(options: StringOptions, word: bytes, *, has_expiry: bool) -> None:
    """Notes an option without an argument, or raises a syntax error for a conflict."""
    if word == b"GET":
        options.get = True
    elif word in (b"NX", b"XX"):
        name = word.decode()
        if options.condition not in ("", name):
            raise CommandError(SYNTAX)
        options.condition = name
    else:
        keep = word == b"KEEPTTL"
        if has_expiry or (options.persist if keep else options.keep_ttl):
            raise CommandError(SYNTAX)
        if keep:
            options.keep_ttl = True
        else:
            options.persist = True


@dataclass(slots=True)
class ExpireCondition:
    """EXPIRE's NX, XX, GT, LT."""

    words: frozenset[bytes]

    def holds(self, current: int, deadline: int) -> bool:
        """Whether a key with deadline `current` (-1: none) may get `deadline` (both unix ms)."""
        if not self.words:
            return True
        if b"NX" in self.words:
            return current == -1
        if b"XX" in self.words and current == -1:
            return False
        if b"GT" in self.words:
            # No deadline counts as an infinite one.
            return current != -1 and deadline > current
        return not (b"LT" in self.words and current != -1 and deadline >= current)


_EXPIRE_WORDS: Final = frozenset((b"NX", b"XX", b"GT", b"LT"))


def expire_condition(args: tuple[bytes, ...]) -> ExpireCondition:
    """The condition words of EXPIRE and its family; CommandError for unknown or conflicting ones."""
    words = set()
    for arg in args:
        word = arg.upper()
        if word not in _EXPIRE_WORDS:
            raise CommandError("ERR Unsupported option " + arg.decode(errors="surrogateescape"))
        words.add(word)
    if b"NX" in words and len(words) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in words and b"LT" in words:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return ExpireCondition(frozenset(words))
