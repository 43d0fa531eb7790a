"""The values a command may answer, beyond Python's own, and how numbers are written.

A handler returns None (null), int, float, bool, bytes (bulk string), str (simple string), list or
tuple (array), dict (map), or one of the classes below. `kache.wire.codec.put_reply` encodes them in the
dialect of the client: RESP2, RESP3, the binary protocol, or the internal one (RESP3's encoding).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kache.wire.doubles import format_double

__all__ = [
    "NULL_ARRAY",
    "OK",
    "BigNumber",
    "DecimalDouble",
    "Messages",
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


class Messages(list[Any]):
    """Several messages, one behind the other, where other commands have one reply."""

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


class Encoded:
    """An array, or a RESP3 set, of `count` elements that are in the client's dialect already, as chunks of bytes."""

    __slots__ = ("chunks", "count", "is_set")

    def __init__(self, chunks: list[bytes], count: int, *, is_set: bool = False) -> None:
        self.chunks = chunks
        self.count = count
        self.is_set = is_set


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
