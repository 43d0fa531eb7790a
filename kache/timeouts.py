"""How long a client is willing to wait, as blocking commands are told it."""

from __future__ import annotations

import math
import re
from typing import Final

from kache.errors import CommandError

__all__ = ["block_ms", "timeout_ms"]

_NOT_FLOAT: Final = "ERR timeout is not a float or out of range"
_LONGEST: Final = 2**63 - 1
_NUMBER: Final = re.compile(
    rb"[+-]?(?:(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(p[+-]?\d+)?|inf(inity)?)",
    re.IGNORECASE,
)


_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


def block_ms(raw: bytes, now_ms: int) -> int:
    """The timeout that `raw` spells in milliseconds, as XREAD's BLOCK has it; 0 for no end. Raises CommandError likewise."""
    if _INTEGER.fullmatch(raw) is None or not -_LONGEST - 1 <= int(raw) <= _LONGEST:
        raise CommandError("ERR timeout is not an integer or out of range")
    if int(raw) < 0:
        raise CommandError("ERR timeout is negative")
    if int(raw) > _LONGEST - now_ms:
        raise CommandError("ERR timeout is out of range")
    return int(raw)


def timeout_ms(raw: bytes, now_ms: int) -> int:
    """The timeout that `raw` spells in seconds, as milliseconds rounded up; 0 for no end.

    Raises CommandError with the real server's texts for what is no number, negative, or ends behind the 64-bit time.
    """
    if _NUMBER.fullmatch(raw) is None:
        raise CommandError(_NOT_FLOAT)
    text = raw.decode()
    try:
        seconds = float.fromhex(text) if "x" in text.lower() else float(text)
    except OverflowError:
        seconds = -math.inf if text.startswith("-") else math.inf
    if seconds < 0:
        raise CommandError("ERR timeout is negative")
    if seconds * 1000 > _LONGEST or math.ceil(seconds * 1000) > _LONGEST - now_ms:
        raise CommandError("ERR timeout is out of range")
    return math.ceil(seconds * 1000)
