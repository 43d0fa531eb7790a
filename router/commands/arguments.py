"""Arguments that several local commands read: names, numbers, yes and no. Pure functions."""

from __future__ import annotations

import re

from kache.errors import NOT_INTEGER, CommandError

__all__ = ["integer", "text", "valid_name"]

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")


def text(raw: bytes) -> str:
    """Bytes of a client for people and patterns; what is no UTF-8 is replaced."""
    return raw.decode("utf-8", "replace")


def integer(raw: bytes, error: str = NOT_INTEGER) -> int:
    """A decimal 64-bit integer as Redis reads one (no "+1", "01", "-0" or blanks); raises CommandError(error)."""
    if not _INTEGER.fullmatch(raw):
        raise CommandError(error)
    number = int(raw)
    if not -(2**63) <= number < 2**63:
        raise CommandError(error)
    return number


def valid_name(raw: bytes, what: str) -> bytes:
    """A name that fits into one word of CLIENT LIST: printable ASCII without blanks."""
    if any(not 33 <= byte <= 126 for byte in raw):
        raise CommandError(f"ERR {what} cannot contain spaces, newlines or special characters.")
    return raw
