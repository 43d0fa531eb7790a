"""The values a command may answer, beyond Python's own, and how numbers are written.

A handler returns None (null), int, float, bool, bytes (bulk string), str (simple string), list or
tuple (array), dict (map), or one of the classes below. `kache._wire.put_reply` encodes them in the
dialect of the client: RESP2, RESP3, the binary protocol, or the internal one (RESP3's encoding).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

__all__ = [
    "NULL_ARRAY",
    "OK",
    "BigNumber",
    "DecimalDouble",
    "Missing",
    "Pairs",
    "Push",
    "Reply",
    "SetReply",
    "Verbatim",
    "format_double",
]

OK: Final = "OK"

Reply = Any
"""Any reply value; the encoder checks what it is given."""


class NullArray:
    """The null that RESP2 writes as ``*-1`` instead of ``$-1``; there is one, `NULL_ARRAY`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NULL_ARRAY"


NULL_ARRAY: Final = NullArray()


class SetReply(list[Any]):
    """Elements answered as a RESP3 set; an array elsewhere."""

    __slots__ = ()


class Push(list[Any]):
    """An out-of-band RESP3 push; an array elsewhere."""

    __slots__ = ()


class Pairs:
    """(member, value) pairs: RESP3 an array of two-element arrays, elsewhere one flat array."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self.pairs: list[tuple[Any, Any]] = list(pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and self.pairs == other.pairs

    __hash__ = None  # type: ignore[assignment]  # mutable, like the list it wraps

    def __repr__(self) -> str:
        return f"Pairs({self.pairs!r})"


class Verbatim:
    """Text for people: a RESP3 verbatim string of format ``txt``, elsewhere a bulk string."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


class BigNumber:
    """Digits beyond 64 bits: a RESP3 big number, elsewhere a bulk string."""

    __slots__ = ("digits",)

    def __init__(self, digits: bytes) -> None:
        self.digits = digits


class DecimalDouble:
    """A double whose text is not the shortest one, e.g. a coordinate: RESP3 a double, RESP2 a bulk string."""

    __slots__ = ("text", "value")

    def __init__(self, value: float, text: bytes) -> None:
        self.value = value
        self.text = text


class Missing:
    """A value that the binary protocol sends with status RES_NX; the value itself elsewhere."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


_LARGEST_WHOLE = 2.0**62
"""Beyond this a whole number is no longer printed digit by digit (the real server casts to int64 below it)."""


def format_double(value: float) -> bytes:
    """A double as the real server prints it: the shortest digits that read back as the same number.

    Whole numbers up to 2**62 have no fraction ("3"); others use a point while the exponent is small
    and ``d.ddde+x`` beyond, by the rules of the fpconv library that Redis 7.2 and Valkey print with.
    Infinities and NaN are "inf", "-inf", "nan".
    """
    if value != value:
        return b"nan"
    if value in (float("inf"), float("-inf")):
        return b"inf" if value > 0 else b"-inf"
    if value == 0:
        return b"-0" if str(value)[0] == "-" else b"0"
    if -_LARGEST_WHOLE <= value <= _LARGEST_WHOLE and value == int(value):
        return b"%d" % int(value)
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    power = int(exponent or 0) - len(fraction)
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    power += len(digits) - len(stripped)
    text = _place_point(stripped, power)
    return (b"-" if value < 0 else b"") + text.encode()


def _place_point(digits: str, power: int) -> str:
    """`digits` times ten to the `power`, written as fpconv does."""
    count = len(digits)
    exponent = power + count - 1
    if power >= 0 and abs(exponent) < count + 7:
        return digits + "0" * power
    if power < 0 and (power > -7 or abs(exponent) < 4):
        point = count + power
        if point <= 0:
            return "0." + "0" * -point + digits
        return digits[:point] + "." + digits[point:]
    fraction = "." + digits[1:] if count > 1 else ""
    return f"{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent)}"
