"""Raw RESP replies: framed, never interpreted, so that two servers can be compared byte for byte.

Owns a blocking client of one connection (`Connection`) and the tree of a raw reply (`RawReply`).
It promises that joining what it returns gives exactly the bytes the server sent. For tests only.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Arg = bytes | str | int
"""What a test may write as a command's argument; text is sent as UTF-8, numbers as decimal digits."""

_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}
_BULKS = frozenset((b"$", b"=", b"!"))


@dataclass(frozen=True, slots=True)
class RawReply:
    """One reply: all its bytes, its kind (the first byte), its text, its elements."""

    raw: bytes
    kind: bytes
    text: bytes = b""
    items: tuple[RawReply, ...] = field(default=())

    @property
    def is_error(self) -> bool:
        """Whether the server answered an error."""
        return self.kind in (b"-", b"!")

    @property
    def is_null(self) -> bool:
        """Whether this is one of RESP's nulls."""
        return self.raw in (b"$-1\r\n", b"*-1\r\n", b"_\r\n")


def to_bytes(arg: Arg) -> bytes:
    """An argument as it goes over the wire."""
    return arg if isinstance(arg, bytes) else str(arg).encode()


def encode(argv: Iterable[Arg]) -> bytes:
    """A command as a RESP array of bulk strings."""
    args = [to_bytes(arg) for arg in argv]
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args)


def parse(data: bytes, position: int = 0) -> tuple[RawReply, int] | None:
    """The reply that starts at `position` and where the next one starts; None while it is not whole."""
    end = data.find(b"\r\n", position)
    if end < 0:
        return None
    kind, head = data[position : position + 1], data[position + 1 : end]
    after = end + 2
    if kind in _BULKS and head != b"-1":
        stop = after + int(head)
        if len(data) < stop + 2:
            return None
        return RawReply(data[position : stop + 2], kind, data[after:stop]), stop + 2
    if kind in _AGGREGATES and head != b"-1":
        items: list[RawReply] = []
        for _ in range(int(head) * _AGGREGATES[kind]):
            part = parse(data, after)
            if part is None:
                return None
            items.append(part[0])
            after = part[1]
        return RawReply(data[position:after], kind, head, tuple(items)), after
    return RawReply(data[position:after], kind, head), after


class Connection:
    """A blocking connection to one server, of either protocol version.

    Raises ConnectionError when the server closes, TimeoutError (OSError) when it stays silent.
    """

    def __init__(self, port: int, protocol: int = 2, timeout: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pending = b""
        self.protocol = protocol
        if protocol == 3:
            greeting = self.run([("HELLO", 3)])[0]
            if greeting.is_error:
                raise ConnectionError(greeting.text.decode(errors="replace"))

    def run(self, commands: Sequence[Sequence[Arg]]) -> list[RawReply]:
        """Send all commands in one pipeline and return their replies in order."""
        self._socket.sendall(b"".join(encode(command) for command in commands))
        return [self._read() for _ in commands]

    def _read(self) -> RawReply:
        while True:
            whole = parse(self._pending) if self._pending else None
            if whole is not None:
                self._pending = self._pending[whole[1] :]
                return whole[0]
            received = self._socket.recv(1 << 20)
            if not received:
                raise ConnectionError("the server closed the connection")
            self._pending += received

    def send(self, commands: Sequence[Sequence[Arg]]) -> None:
        """Send commands whose replies are read by `read`: for a connection that gets other things, too."""
        self._socket.sendall(b"".join(encode(command) for command in commands))

    def read(self) -> RawReply:
        """The next reply, or whatever else comes."""
        return self._read()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
