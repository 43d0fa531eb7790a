"""Messages as functions over bytes: what is listened to, what a subscribed connection says, what it is told.

Messages come over RESP3, whose pushes may stand between replies; the rest of the client speaks the binary protocol. Owns
the RESP requests and replies of such a connection, and which names are listened to: after a lost connection the next one
asks for the same again. No sockets, no clock. Used by `kache.client.pubsub` and `kache.client.async_pubsub`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from kache.client.codec import MORE, Argument, More
from kache.client.errors import ProtocolError, command_error
from kache.errors import CommandError, status_of

__all__ = ["Listening", "Message", "Push", "RespReader", "encode_resp"]

S = TypeVar("S", bytes, str)

SUBSCRIBE: Final = {"message": b"SUBSCRIBE", "pmessage": b"PSUBSCRIBE", "smessage": b"SSUBSCRIBE"}
UNSUBSCRIBE: Final = {"message": b"UNSUBSCRIBE", "pmessage": b"PUNSUBSCRIBE", "smessage": b"SUNSUBSCRIBE"}
_CONFIRMATIONS: Final = {
    word.lower(): (kind, word in SUBSCRIBE.values())
    for words in (SUBSCRIBE, UNSUBSCRIBE)
    for kind, word in words.items()
}
NAMES_AT_ONCE: Final = 1000
"""Names of one request, when a connection asks for all of them again."""
LONGEST: Final = 512 * 1024 * 1024
"""Bytes of a string: no server sends a longer one."""
MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class Message(Generic[S]):
    """Something that was published: where, what, and by which pattern it was found (None: by the name of the channel).

    ``gap`` is True for what was not published: the connection was lost here and is back, and what was published meanwhile
    is lost; channel and data are empty then.
    """

    channel: S
    data: S
    pattern: S | None = None
    gap: bool = False


class Push(list[Any]):
    """What came out of band."""

    __slots__ = ()


def encode_resp(*arguments: Argument) -> bytes:
    """One request in RESP."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in arguments]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _error(text: bytes) -> CommandError:
    message = text.decode("utf-8", "replace")
    return command_error(status_of(message), message)


class RespReader:
    """Splits what a connection receives into replies and pushes; errors are `CommandError` instances."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Appends what was received."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next_value(self) -> Any | More:
        """The next reply or push, or `MORE`; raises `ProtocolError`."""
        start = self._at
        try:
            value = self._value(0)
        except ValueError as error:
            raise ProtocolError(f"not a reply of RESP: {error}") from None
        if value is MORE:
            self._at = start
        return value

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            return None
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    def _value(self, depth: int) -> Any | More:
        line = self._line()
        if line is None:
            return MORE
        mark, text = line[:1], line[1:]
        if mark in b"$=!" and mark:
            return self._blob(mark, int(text))
        if mark in b"*>%~" and mark:
            return self._aggregate(mark, int(text), depth)
        if mark == b"+":
            return text
        if mark == b":":
            return int(text)
        if mark == b"-":
            return _error(text)
        if mark == b"_":
            return None
        if mark == b"#":
            return text == b"t"
        if mark == b",":
            return float(text)
        if mark == b"(":
            return text
        raise ValueError(repr(line[:40]))

    def _blob(self, mark: bytes, size: int) -> Any | More:
        if size < 0:
            return None
        if size > LONGEST:
            raise ValueError(f"a string of {size} bytes")
        end = self._at + size
        if len(self._buffer) < end + 2:
            return MORE
        data = bytes(self._buffer[self._at : end])
        self._at = end + 2
        if mark == b"!":
            return _error(data)
        return data[4:] if mark == b"=" else data

    def _aggregate(self, mark: bytes, count: int, depth: int) -> Any | More:
        if count < 0:
            return None
        if depth >= MAX_DEPTH:
            raise ValueError("nested too deeply")
        items = Push() if mark == b">" else []
        for _ in range(count * 2 if mark == b"%" else count):
            item = self._value(depth + 1)
            if item is MORE:
                return MORE
            items.append(item)
        return items


class Listening(Generic[S]):
    """What one connection after the other listens to, and what that brings."""

    def __init__(self, decode: bool) -> None:
        self._decode = decode
        self.names: dict[str, dict[bytes, None]] = {kind: {} for kind in SUBSCRIBE}
        self._reader = RespReader()
        self.unconfirmed = 0
        """Confirmations that are still to come."""
        self.unanswered = 0
        """Answers to PING that are still to come."""

    @property
    def anything(self) -> bool:
        """Whether there is something to listen to."""
        return any(self.names.values())

    def begin(self, kind: str, names: Sequence[bytes]) -> bytes:
        """The request that begins to listen to these names."""
        if not names:
            raise ValueError("there is nothing to listen to without a name")
        self.names[kind].update(dict.fromkeys(names))
        self.unconfirmed += len(names)
        return encode_resp(SUBSCRIBE[kind], *names)

    def end(self, kind: str, names: Sequence[bytes]) -> bytes:
        """The request that ends it; without names for all of this kind."""
        going = list(names) or list(self.names[kind])
        for name in going:
            self.names[kind].pop(name, None)
        # Without any there is one confirmation, too.
        self.unconfirmed += len(going) or 1
        return encode_resp(UNSUBSCRIBE[kind], *going)

    def ping(self) -> bytes:
        """What a quiet connection is asked."""
        self.unanswered += 1
        return encode_resp("PING")

    def again(self) -> bytes:
        """A new connection: the requests for everything that is listened to."""
        self._reader = RespReader()
        self.unconfirmed = self.unanswered = 0
        requests = []
        for kind, names in self.names.items():
            every = list(names)
            for at in range(0, len(every), NAMES_AT_ONCE):
                some = every[at : at + NAMES_AT_ONCE]
                self.unconfirmed += len(some)
                requests.append(encode_resp(SUBSCRIBE[kind], *some))
        return b"".join(requests)

    def feed(self, data: bytes) -> None:
        """Appends what was received."""
        self._reader.feed(data)

    def replies(self) -> Iterator[Any]:
        """What has come before any message: the answers to a greeting. Errors are instances, not raised."""
        while (value := self._reader.next_value()) is not MORE:
            yield value

    def messages(self) -> Iterator[Message[S]]:
        """The messages that have come. Raises a `CommandError` that the server answers, `ProtocolError` for nonsense."""
        for value in self.replies():
            if isinstance(value, CommandError):
                raise value
            if not isinstance(value, Push):
                self.unanswered = max(self.unanswered - 1, 0)
                continue
            if value[0] in _CONFIRMATIONS:
                self.unconfirmed = max(self.unconfirmed - 1, 0)
            elif value[0] == b"pmessage":
                yield Message(self._text(value[2]), self._text(value[3]), self._text(value[1]))
            elif value[0] in (b"message", b"smessage"):
                yield Message(self._text(value[1]), self._text(value[2]))

    def gap(self) -> Message[S]:
        """What stands where a connection was lost."""
        return Message(self._text(b""), self._text(b""), gap=True)

    def _text(self, data: bytes) -> S:
        text: Any = data.decode("utf-8", "surrogateescape") if self._decode else data
        return text  # type: ignore[no-any-return]  # `decode` is what the type says
