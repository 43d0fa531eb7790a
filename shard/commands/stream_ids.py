"""IDs of streams, as commands name them: ``ms-seq``, ``ms``, ``ms-*``, ``-``, ``+``, ``(ms-seq``.

An ID is one int, ``ms << 64 | seq``. Every failure is a CommandError with the real server's text; odd spellings that it
takes (leading zeros, a plus) are taken here.
"""

from __future__ import annotations

import re
from typing import Final

from kache.errors import CommandError

from ..engine.stream import id_text, plain_id
from .arguments import parse_integer

__all__ = ["HIGHEST", "LOWEST", "first_of", "id_text", "interval", "parse_id", "parse_partial"]

LOWEST: Final = 0
HIGHEST: Final = 2**128 - 1
_WORD_MAX: Final = 2**64 - 1
_LONGEST: Final = 127
_INVALID: Final = "ERR Invalid stream ID specified as stream command argument"
_ODD_NUMBER: Final = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")


def _word(raw: bytes) -> int:
    """An unsigned integer of 64 bits, as the real server's `string2ull` reads it."""
    if raw.isdigit() and raw[0] != 48:
        value = int(raw)
    else:
        plain = parse_integer(raw)
        match = _ODD_NUMBER.fullmatch(raw)
        if match is None or (plain is not None and plain < 0):
            raise CommandError(_INVALID)
        value = int(match[2])
        if match[1] == b"-" and 0 < value <= _WORD_MAX:
            value = _WORD_MAX + 1 - value
    if value > _WORD_MAX:
        raise CommandError(_INVALID)
    return value


def parse_partial(raw: bytes) -> tuple[int, int | None]:
    """(ms, seq) of an ID, seq None for ``ms-*``; a missing one is 0."""
    if len(raw) > _LONGEST:
        raise CommandError(_INVALID)
    ms, dash, seq = raw.partition(b"-")
    if not dash:
        return _word(ms), 0
    return _word(ms), None if seq == b"*" else _word(seq)


def parse_id(raw: bytes, missing_seq: int = 0) -> int:
    """An ID; one without a sequence gets `missing_seq`. Neither ``-`` nor ``+``."""
    if not missing_seq:
        plain = plain_id(raw)
        if plain is not None:
            return plain
    if len(raw) > _LONGEST:
        raise CommandError(_INVALID)
    ms, dash, seq = raw.partition(b"-")
    return _word(ms) << 64 | (_word(seq) if dash else missing_seq)


def _bound(raw: bytes, missing_seq: int) -> tuple[int, bool]:
    """(ID, whether it is itself excluded)."""
    if len(raw) > 1 and raw[:1] == b"(":
        return parse_id(raw[1:], missing_seq), True
    if raw == b"-":
        return LOWEST, False
    if raw == b"+":
        return HIGHEST, False
    return parse_id(raw, missing_seq), False


def first_of(raw: bytes) -> int:
    """The first ID of an interval."""
    found, excluded = _bound(raw, 0)
    if excluded and found == HIGHEST:
        raise CommandError("ERR invalid start ID for the interval")
    return found + excluded


def last_of(raw: bytes) -> int:
    """The last ID of an interval."""
    found, excluded = _bound(raw, _WORD_MAX)
    if excluded and found == LOWEST:
        raise CommandError("ERR invalid end ID for the interval")
    return found - excluded


def interval(first: bytes, last: bytes) -> tuple[int, int]:
    """The IDs of an interval, both included."""
    return first_of(first), last_of(last)
