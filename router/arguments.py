"""Arguments that several local commands read: names, numbers, yes and no. Pure functions."""

from __future__ import annotations

from kache.errors import NOT_INTEGER, CommandError

__all__ = ["integer", "text", "valid_name"]


def text(raw: bytes) -> str:
    """Bytes of a client for people and patterns; what is no UTF-8 is replaced."""
    return raw.decode("utf-8", "replace")


def integer(raw: bytes, error: str = NOT_INTEGER) -> int:
    """A decimal 64-bit integer; raises CommandError(error)."""
    digits = raw[1:] if raw[:1] == b"-" else raw
    if not digits.isdigit() or len(digits) > 19:
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
