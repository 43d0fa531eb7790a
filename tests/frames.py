"""Frames of the binary protocol, built by hand with struct from its specification, for tests of the exact bytes.

Nothing of the package is used here, so that a mistake in its codec cannot hide itself.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

OK, UNKNOWN_CMD, RES_NX, RES_ERR, BAD_ARG, BAD_TYPE, OOM, AUTH, DOWN, UNCERTAIN, CROSS_SLOT = range(11)
NIL = b"\x00"


def request(*strings: bytes) -> bytes:
    """A request frame."""
    body = struct.pack("<I", len(strings)) + b"".join(struct.pack("<I", len(s)) + s for s in strings)
    return struct.pack("<I", len(body)) + body


def response(value: bytes, status: int = OK) -> bytes:
    """A response frame around one encoded value."""
    return struct.pack("<II", 4 + len(value), status) + value


def error(message: bytes) -> bytes:
    """An ERR value."""
    return struct.pack("<BI", 1, len(message)) + message


def text(value: bytes) -> bytes:
    """A STR value."""
    return struct.pack("<BI", 2, len(value)) + value


def integer(value: int) -> bytes:
    """An INT value."""
    return struct.pack("<Bq", 3, value)


def double(value: float) -> bytes:
    """A DBL value."""
    return struct.pack("<Bd", 4, value)


def array(*values: bytes) -> bytes:
    """An ARR value of encoded values."""
    return struct.pack("<BI", 5, len(values)) + b"".join(values)


def pairs(*members: tuple[bytes, float]) -> bytes:
    """What ZQUERY answers: an ARR of name STR, score DBL and so on."""
    return array(*(part for name, score in members for part in (text(name), double(score))))


OK_NIL = response(NIL)
NO_KEY = response(NIL, RES_NX)


class Frame(NamedTuple):
    """A response as it came: its status, and the value still encoded."""

    status: int
    value: bytes

    @property
    def message(self) -> str:
        """The text of an ERR value; "" for any other."""
        return self.value[5:].decode() if self.value[:1] == b"\x01" else ""


class BinaryConnection:
    """A connection that speaks frames; leaving the block closes it."""

    def __init__(self, port: int, timeout: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, or fewer if the connection ends before."""
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                break
            data += part
        return data

    def frame(self) -> Frame:
        """The next response."""
        length, status = struct.unpack("<II", self.read(8))
        return Frame(status, self.read(length - 4))

    def call(self, *strings: bytes) -> Frame:
        """One request and its response."""
        self.send(request(*strings))
        return self.frame()

    def __enter__(self) -> BinaryConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
