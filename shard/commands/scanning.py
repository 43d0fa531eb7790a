"""Arguments of HSCAN, SSCAN and ZSCAN: a cursor and MATCH, COUNT and the like.

Owns: the options' grammar with the exact error texts. Promises: nothing about collections; the caller
walks its own. Pure functions over bytes; used by the handlers of hashes, sets and sorted sets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kache.errors import INVALID_CURSOR, SYNTAX, CommandError
from kache.glob import compile_glob

from .arguments import integer

__all__ = ["ScanOptions", "scan_cursor", "scan_options"]

_CURSOR = re.compile(rb"[ \t\n\v\f\r]*[+]?\d+")
_MAX_CURSOR = 2**64 - 1
_DEFAULT_COUNT = 10
_MAX_COUNT = 1_000_000
"""A larger COUNT is walked in steps of this many, so that one call stays one bounded piece of work."""


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What to return: `matches` is None without MATCH; `names_only` is NOVALUES or NOSCORES."""

    matches: Callable[[bytes], bool] | None
    count: int
    names_only: bool


def scan_cursor(raw: bytes) -> int:
    """The cursor as an unsigned 64-bit integer; raises ``ERR invalid cursor``."""
    # The real server reads it with strtoull, which takes leading space, a plus sign and zeros.
    if len(raw) > 64 or _CURSOR.fullmatch(raw) is None:
        raise CommandError(INVALID_CURSOR)
    cursor = int(raw)
    if cursor > _MAX_CURSOR:
        raise CommandError(INVALID_CURSOR)
    return cursor


def scan_options(arguments: tuple[bytes, ...], type_name: str) -> ScanOptions:
    """Parses what follows the cursor, for a "hash", "set" or "zset".

    Raises syntax errors and "not an integer" as the real server does. (It looks at the options only
    when the key exists; the callers keep that order.)
    """
    matches: Callable[[bytes], bool] | None = None
    count = _DEFAULT_COUNT
    names_only = False
    position = 0
    while position < len(arguments):
        option = arguments[position].upper()
        has_value = position + 1 < len(arguments)
        if option == b"COUNT" and has_value:
            count = integer(arguments[position + 1])
            if count < 1:
                raise CommandError(SYNTAX)
            position += 2
        elif option == b"MATCH" and has_value:
            pattern = arguments[position + 1]
            matches = None if pattern == b"*" else compile_glob(pattern)
            position += 2
        elif option == b"NOVALUES":
            if type_name != "hash":
                raise CommandError("ERR NOVALUES option can only be used in HSCAN")
            names_only = True
            position += 1
        elif option == b"NOSCORES":
            if type_name != "zset":
                raise CommandError("ERR NOSCORES option can only be used in ZSCAN")
            names_only = True
            position += 1
        else:
            raise CommandError(SYNTAX)
    return ScanOptions(matches, min(count, _MAX_COUNT), names_only)
