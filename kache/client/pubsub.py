"""`PubSub`: listening to channels, for programs that block. Its asyncio twin is `kache.client.async_pubsub`.

Owns one connection of its own. Promises: what was published behind the return of `subscribe` is delivered, once and in
the order of each channel, as long as the connection lasts; a connection that is lost is made again with everything that
was listened to, and a message with ``gap`` says where.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic

from kache.client.errors import ClientClosedError, ConnectError, RequestTimeoutError, UncertainError
from kache.client.messages import Listening, Message, S, encode_resp
from kache.client.tls import SealedSocket
from kache.errors import CommandError

__all__ = ["FIRST_RETRY", "LONGEST_RETRY", "QUIET_SECONDS", "PubSub", "greeting_bytes", "names_of"]

FIRST_RETRY = 0.05
LONGEST_RETRY = 1.0
"""Seconds before a lost connection is made again, doubled after every failure."""
QUIET_SECONDS = 30.0
"""A connection on which nothing comes for so long is asked whether it lives; one that does not answer for as long is lost."""

_READ_SIZE = 256 * 1024

Name = bytes | str


def names_of(names: Sequence[Name]) -> list[bytes]:
    """Names as bytes; TypeError for what is none."""
    found = []
    for name in names:
        if not isinstance(name, bytes | str):
            raise TypeError(f"the name of a channel is bytes or str, not {type(name).__name__}")
        found.append(name if isinstance(name, bytes) else name.encode())
    return found


def greeting_bytes(greeting: Sequence[Sequence[Any]]) -> tuple[bytes, int]:
    """What a new connection says first, in RESP, and how many answers there will be: who it is, and that it speaks RESP3."""
    requests = [tuple(request) for request in greeting] + [("HELLO", 3)]
    return b"".join(encode_resp(*request) for request in requests), len(requests)


class PubSub(Generic[S]):
    """Listens to channels, patterns and shard channels; see `Client.pubsub`. One thread at a time uses it, and any may close it.

    ::

        with cache.pubsub() as listening:
            listening.subscribe("news", "weather")
            for message in listening:
                print(message.channel, message.data)       # `message.gap`: the connection was lost and is back
    """

    def __init__(
        self,
        connect: Callable[[float | None], socket.socket | SealedSocket],
        greeting: Sequence[Sequence[Any]],
        decode: bool,
        timeout: float | None,
    ) -> None:
        self._connect = connect
        self._greeting = greeting
        self._timeout = timeout
        self._core: Listening[S] = Listening(decode)
        self._waiting: deque[Message[S]] = deque()
        self._socket: socket.socket | SealedSocket | None = None
        self._was_connected = False
        self._heard = 0.0
        self._retry = FIRST_RETRY
        self._next_try = 0.0
        self.closed = False

    # What is listened to --------------------------------------------------------------------------------
    def subscribe(self, *channels: Name) -> None:
        """Listens to these channels, too; returns when that is confirmed. Raises `ConnectError`, `RequestTimeoutError`."""
        self._change(self._core.begin, "message", channels)

    def psubscribe(self, *patterns: Name) -> None:
        """Listens to all channels whose names match (``*``, ``?``, ``[ab]``)."""
        self._change(self._core.begin, "pmessage", patterns)

    def ssubscribe(self, *channels: Name) -> None:
        """Listens to shard channels, which have names of their own (SPUBLISH)."""
        self._change(self._core.begin, "smessage", channels)

    def unsubscribe(self, *channels: Name) -> None:
        """Listens to these channels no longer; without names to none."""
        self._change(self._core.end, "message", channels)

    def punsubscribe(self, *patterns: Name) -> None:
        """The same for patterns."""
        self._change(self._core.end, "pmessage", patterns)

    def sunsubscribe(self, *channels: Name) -> None:
        """The same for shard channels."""
        self._change(self._core.end, "smessage", channels)

    def _change(self, change: Callable[[str, Sequence[bytes]], bytes], kind: str, names: Sequence[Name]) -> None:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        if self.closed:
            raise ClientClosedError("this PubSub is closed")
        request = change(kind, names_of(names))
        if self._socket is None:
            self._open(deadline)
        else:
            try:
                self._send(request)
            except OSError:
                self._lose()
                self._open(deadline)
        while self._core.unconfirmed:
            if not self._read(deadline):
                raise RequestTimeoutError(f"no confirmation within {self._timeout:g} s", [])

    # Messages -------------------------------------------------------------------------------------------
    def get(self, timeout: float | None = None) -> Message[S] | None:
        """The next message; None when none comes within ``timeout`` seconds (None: it waits), or this was closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._waiting:
            if self.closed or not self._read(deadline):
                return None
        return self._waiting.popleft()

    def __iter__(self) -> Iterator[Message[S]]:
        while (message := self.get()) is not None:
            yield message

    def close(self) -> None:
        """Ends it, and the loop over its messages."""
        self.closed = True
        connection, self._socket = self._socket, None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in it
            except OSError:
                pass
            connection.close()

    def __enter__(self) -> PubSub[S]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The connection -------------------------------------------------------------------------------------
    def _open(self, deadline: float | None) -> None:
        """A connection that listens to everything; raises `ConnectError` or what the server answers."""
        left = None if deadline is None else max(deadline - time.monotonic(), 0.01)
        connection = self._connect(left)
        try:
            connection.settimeout(left)
            said, answers = greeting_bytes(self._greeting)
            again = self._core.again()
            connection.sendall(said)
            while answers:
                data = connection.recv(_READ_SIZE)
                if not data:
                    raise ConnectError("the server closed the connection before it listened")
                self._core.feed(data)
                for reply in self._core.replies():
                    if isinstance(reply, CommandError):
                        raise reply
                    answers -= 1
            connection.sendall(again)
        except OSError as error:
            connection.close()
            raise ConnectError(f"the connection was lost before it listened: {error}") from error
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)
        self._socket = connection
        self._heard = time.monotonic()
        self._retry = FIRST_RETRY
        if self._was_connected:
            self._waiting.append(self._core.gap())
        self._was_connected = True

    def _lose(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def _read(self, deadline: float | None) -> bool:
        """Takes what comes; False when nothing does by the deadline."""
        if self._socket is None and not self._reconnect(deadline):
            return False
        connection = self._socket
        if connection is None:
            return not self.closed
        now = time.monotonic()
        wake = self._heard + QUIET_SECONDS * (1 + self._core.unanswered)
        until = wake if deadline is None else min(wake, deadline)
        try:
            readable = select.select([connection], [], [], max(until - now, 0.0))[0]
            if readable:
                data = connection.recv(_READ_SIZE)
                if not data:
                    raise ConnectionResetError("closed by the server")
                self._heard = time.monotonic()
                self._core.feed(data)
                self._waiting.extend(self._core.messages())
                return True
            if time.monotonic() >= wake:
                self._ask_whether_it_lives()
        except (OSError, ValueError):  # ValueError: another thread has closed the socket
            self._lose()
            return not self.closed
        return deadline is None or time.monotonic() < deadline

    def _ask_whether_it_lives(self) -> None:
        if self._core.unanswered:
            raise ConnectionResetError("the server does not answer")
        self._send(self._core.ping())

    def _reconnect(self, deadline: float | None) -> bool:
        """Tries it once, when it is time to; False when the deadline is before that."""
        if not self._core.anything and not self._was_connected:
            raise RuntimeError("subscribe before waiting for messages")
        due = self._next_try
        if deadline is not None and due > deadline:
            time.sleep(max(deadline - time.monotonic(), 0.0))
            return False
        time.sleep(max(due - time.monotonic(), 0.0))
        try:
            self._open(deadline)
        except (ConnectError, UncertainError):
            self._next_try = time.monotonic() + self._retry
            self._retry = min(2 * self._retry, LONGEST_RETRY)
        return True
