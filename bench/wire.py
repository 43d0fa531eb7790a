"""A bare RESP connection for the experiments: pipelines out, replies counted or read in order."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Self

from kache.wire.codec import ReplyTooShort, decode_reply

__all__ = ["Connection", "command"]


def command(*words: bytes | str | int) -> bytes:
    """One RESP request."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)


class Connection:
    """A blocking connection; `pipeline` sends many requests and returns their replies as Python values."""

    def __init__(self, port: int, timeout: float = 120.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def call(self, *words: bytes | str | int) -> object:
        """One request, one reply; an error reply is raised."""
        reply = self.pipeline([command(*words)])[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def integer(self, *words: bytes | str | int) -> int:
        """One request whose reply is a number."""
        reply = self.call(*words)
        if not isinstance(reply, int):
            raise TypeError(f"{words[0]!r} was answered with {reply!r}, which is no number")
        return reply

    def array(self, *words: bytes | str | int) -> list[Any]:
        """One request whose reply is a list."""
        reply = self.call(*words)
        if not isinstance(reply, list):
            raise TypeError(f"{words[0]!r} was answered with {reply!r}, which is no list")
        return reply

    def text(self, *words: bytes | str | int) -> bytes:
        """One request whose reply is a string."""
        reply = self.call(*words)
        if not isinstance(reply, bytes):
            raise TypeError(f"{words[0]!r} was answered with {reply!r}, which is no string")
        return reply

    def pipeline(self, requests: Iterable[bytes]) -> list[object]:
        """The replies of all requests, errors among them as exception objects."""
        requests = list(requests)
        self.socket.sendall(b"".join(requests))
        replies: list[object] = []
        at = 0
        while len(replies) < len(requests):
            try:
                value, at = decode_reply(self.buffer, at)
                replies.append(value)
            except ReplyTooShort:
                del self.buffer[:at]
                at = 0
                data = self.socket.recv(1 << 20)
                if not data:
                    raise ConnectionError("closed in the middle of a pipeline") from None
                self.buffer += data
        del self.buffer[:at]
        return replies

    def fill(self, requests: Iterable[bytes], count: int, reply_size: int) -> None:
        """Sends `count` requests whose replies have `reply_size` bytes each; for loads of millions."""
        batch: list[bytes] = []
        for request in requests:
            batch.append(request)
            if len(batch) == 1000:
                self._exchange(batch, reply_size)
                batch = []
        if batch:
            self._exchange(batch, reply_size)

    def _exchange(self, batch: list[bytes], reply_size: int) -> None:
        self.socket.sendall(b"".join(batch))
        wanted = len(batch) * reply_size
        while wanted > 0:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("closed in the middle of a load")
            if data[:1] == b"-":
                raise RuntimeError(data[:200].decode("utf-8", "replace"))
            wanted -= len(data)
