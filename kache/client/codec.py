"""The client's side of the binary protocol, as functions over bytes: no sockets, no clock, no threads.

Owns the encoding of requests, the decoding of responses, and the shapes that typed methods give to replies. `Reader`
follows h11: feed it whatever arrived; `next_reply` returns a reply, or `MORE` when the frame is not complete, or raises
`ProtocolError`, after which the connection must be closed. Used by `kache.client.blocking` and `kache.client.asynchronous`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from struct import Struct
from typing import Any, Final, Literal, NoReturn

from kache.client.errors import ProtocolError, command_error
from kache.errors import status_of

__all__ = [
    "MAX_RESPONSE",
    "MORE",
    "Argument",
    "More",
    "Reader",
    "Reply",
    "encode_many",
    "encode_request",
    "flatten",
]

Argument = bytes | str | int | float | bytearray | memoryview
"""What a command takes: bytes as they are, str as UTF-8, numbers in decimal."""

Reply = Any
"""``None`` (no such key or member), ``True`` (OK without a value), int, float, bytes (or str), list of these."""

# A response may be larger than any request (LRANGE, KEYS). This limit stops a peer that speaks something else: four
# characters of text, read as a length, are 512 MiB or more.
MAX_RESPONSE: Final = 512 * 1024 * 1024 - 1
# Nested arrays deeper than this are no reply of ours; it keeps the decoder's recursion bounded.
MAX_DEPTH: Final = 32

_U32 = Struct("<I")
_HEAD = Struct("<IIB")
_I64 = Struct("<q")
_F64 = Struct("<d")

_NIL, _ERR, _STR, _INT, _DBL, _ARR = range(6)
_STATUS_OK, _STATUS_NX = 0, 2


class More(Enum):
    """The type of `MORE`, so that ``is MORE`` narrows."""

    MORE = 0


MORE: Final[Literal[More.MORE]] = More.MORE


def _argument_bytes(argument: Argument) -> bytes | bytearray | memoryview:
    if isinstance(argument, bytes | bytearray):
        return argument
    if isinstance(argument, str):
        return argument.encode()
    if isinstance(argument, bool) or not isinstance(argument, int | float | memoryview):
        raise TypeError(f"a command takes bytes, str, int or float, not {type(argument).__name__}")
    if isinstance(argument, memoryview):
        return argument.cast("B") if argument.contiguous else argument.tobytes()
    return repr(argument).encode()


def encode_request(arguments: Sequence[Argument]) -> bytes:
    """One request frame. Raises `TypeError` for an argument that has no single obvious text, `ValueError` for none."""
    if not arguments:
        raise ValueError("a request needs at least the name of a command")
    pieces: list[bytes | bytearray | memoryview] = [b"", _U32.pack(len(arguments))]
    length = 4
    for argument in arguments:
        text = argument if type(argument) is bytes else _argument_bytes(argument)
        pieces.append(_U32.pack(len(text)))
        pieces.append(text)
        length += 4 + len(text)
    try:
        pieces[0] = _U32.pack(length)
    except struct.error:
        raise ValueError("a request is limited to 4 GiB") from None
    return b"".join(pieces)


def encode_many(requests: Iterable[Sequence[Argument]]) -> tuple[bytes, list[int]]:
    """The frames of a pipeline joined, and the offset at which each of them ends."""
    frames = [encode_request(request) for request in requests]
    ends = []
    position = 0
    for frame in frames:
        position += len(frame)
        ends.append(position)
    return b"".join(frames), ends


class Reader:
    """Splits what a connection receives into replies.

    ``decode``: strings become `str` (UTF-8); one that is not UTF-8 raises `UnicodeDecodeError` with its frame consumed,
    so the connection stays usable.
    """

    def __init__(self, decode: bool = False) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._decode = decode

    @property
    def unread(self) -> int:
        """Bytes received and not yet returned in a reply; 0 between two exchanges."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Appends what was received."""
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def next_reply(self) -> Reply | More:
        """The next reply (an error reply as a `CommandError` instance, not raised), or `MORE`."""
        buffer, start = self._buffer, self._position
        available = len(buffer) - start
        if available < 4:
            return MORE
        (length,) = _U32.unpack_from(buffer, start)
        if length < 5 or length > MAX_RESPONSE:
            raise ProtocolError(f"not a response of the binary protocol: a length of {length}")
        if available < 4 + length:
            return MORE
        self._position = end = start + 4 + length
        _, status, tag = _HEAD.unpack_from(buffer, start)
        if tag == _NIL and length == 5:
            if status not in (_STATUS_OK, _STATUS_NX):
                _bad("an error status without a message")
            return True if status == _STATUS_OK else None
        try:
            value, stop = self._value(start + 8, end, 0, status)
        except struct.error:
            value, stop = None, -1
        if stop != end:
            _bad("a value that does not fill its frame")
        return value

    def _value(self, at: int, end: int, depth: int, status: int) -> tuple[Reply, int]:
        """The value at this offset and the offset after it, never beyond `end`."""
        buffer = self._buffer
        if at >= end:
            _bad("a truncated value")
        tag = buffer[at]
        at += 1
        if tag == _INT:
            return _I64.unpack_from(buffer, at)[0], at + 8
        if tag == _DBL:
            return _F64.unpack_from(buffer, at)[0], at + 8
        if tag == _NIL:
            return None, at
        (size,) = _U32.unpack_from(buffer, at)
        at += 4
        if tag == _ARR:
            # Every element takes a byte or more: a count that cannot fit is refused before anything is built.
            if size > end - at or depth == MAX_DEPTH:
                _bad("an array that does not fit its frame")
            values = []
            for _ in range(size):
                value, at = self._value(at, end, depth + 1, status)
                values.append(value)
            return values, at
        if size > end - at:
            _bad("a string that does not fit its frame")
        if tag == _STR:
            text = bytes(memoryview(buffer)[at : at + size])
            return (text.decode() if self._decode else text), at + size
        if tag != _ERR:
            _bad(f"unknown tag {tag}")
        message = buffer[at : at + size].decode("utf-8", "replace")
        # Inside an array the status is the array's, so there the text alone says what it is.
        return command_error(status_of(message) if depth else status, message), at + size


def _bad(what: str) -> NoReturn:
    raise ProtocolError(f"not a response of the binary protocol: {what}")


# Shapes of arguments and replies ---------------------------------------------------------------------------------


def flatten(mapping: Mapping[Any, Any]) -> list[Any]:
    """``{a: 1, b: 2}`` as ``[a, 1, b, 2]``."""
    return [item for pair in mapping.items() for item in pair]


def as_bool(value: Reply) -> bool:
    """1 and OK are true; 0 and "no such key" are false."""
    return bool(value)


def as_count(value: Reply) -> int:
    """A number that is 0 when there is no such key."""
    return 0 if value is None else int(value)


def as_list(value: Reply) -> list[Any]:
    """A list, empty when there is no such key."""
    return [] if value is None else list(value)


def as_dict(value: Reply) -> dict[Any, Any]:
    """A flat array of pairs as a dict."""
    flat = as_list(value)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def as_scored(value: Reply) -> list[tuple[Any, float]]:
    """A flat array of members and scores as pairs."""
    flat = as_list(value)
    return [(member, float(score)) for member, score in zip(flat[::2], flat[1::2], strict=True)]


def as_set(value: Reply) -> set[Any]:
    """A set, empty when there is no such key."""
    return set(as_list(value))


def as_scan(value: Reply) -> tuple[int, list[Any]]:
    """SCAN's cursor as a number, and its keys."""
    return int(value[0]), list(value[1])


def as_text(value: Reply) -> str:
    """A report that is text whatever the client's `decode` says."""
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")


def as_is(value: Reply) -> Any:
    """The reply unchanged."""
    return value


def as_fields(value: Reply) -> dict[str, str]:
    """INFO's ``field:text`` lines as a dict; headings and blank lines are left out."""
    fields = {}
    for line in as_text(value).splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith("#"):
            fields[name] = text
    return fields


def as_stats(value: Reply) -> list[dict[str, Any]]:
    """STATS as one dict for each shard, texts as `str`."""
    shards = []
    for flat in as_list(value):
        items = [as_text(item) if isinstance(item, bytes) else item for item in flat]
        shards.append(dict(zip(items[::2], items[1::2], strict=True)))
    return shards


def as_score(value: Reply) -> float | None:
    """A score, or None."""
    return None if value is None else float(value)


def as_popped(value: Reply) -> tuple[Any, Any] | None:
    """The key and what it gave, or None when the time was over."""
    return None if value is None else (value[0], value[1])


def as_popped_scored(value: Reply) -> tuple[Any, Any, float] | None:
    """The key, a member and its score, or None."""
    return None if value is None else (value[0], value[1], float(value[2]))


def as_popped_pairs(value: Reply) -> tuple[Any, list[tuple[Any, float]]] | None:
    """The key and its members with their scores, or None."""
    return None if value is None else (value[0], [(member, float(score)) for member, score in value[1]])


def as_rank(value: Reply) -> int | None:
    """A rank, or None."""
    return None if value is None else int(value)
