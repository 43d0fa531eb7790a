"""One blocking connection to a node of a Redis Cluster, for what is asked once: before starting, and by `check`.

Owns its socket. Raises `NodeError` in one sentence for whatever goes wrong.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kache.backend.address import Node, format_node, nodes_of
from kache.backend.topology import from_slots
from kache.errors import CommandError, KacheError
from kache.wire.codec import ReplyTooShort, decode_reply

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["Conversation", "NodeError", "check_backend", "command", "first_answer"]


def command(*words: str | bytes) -> bytes:
    """A command as RESP."""
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])


class NodeError(KacheError):
    """A node that cannot be reached, or does not answer as one does; `refused`: it does not want this password."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class Conversation:
    """Commands and their replies, one after the other; a context manager."""

    def __init__(
        self, node: Node, user: str = "", password: str = "", timeout: float = 2.0, *, tls: SSLContext | None = None
    ) -> None:
        self.node = node
        self._buffer = bytearray()
        try:
            self._socket = socket.create_connection(node, timeout)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=node[0])
        except OSError as error:
            # Of a certificate that is not trusted it says why.
            reason = getattr(error, "verify_message", "") or error.strerror or error
            raise NodeError(f"{format_node(node)} cannot be reached: {reason}") from None
        if password:
            try:
                self.ask("AUTH", *([user] if user else []), password)
            except CommandError as error:
                self.close()
                raise NodeError(f"{format_node(node)} refuses the password: {error.message}", refused=True) from None

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ask(self, *words: str | bytes) -> Any:
        """The reply. Raises CommandError for an error reply, NodeError for none."""
        try:
            self._socket.sendall(command(*words))
            reply = self._next()
        except TimeoutError:
            raise NodeError(f"{format_node(self.node)} does not answer") from None
        except OSError as error:
            raise NodeError(f"{format_node(self.node)}: {error.strerror or error}") from None
        except ValueError as error:
            raise NodeError(f"{format_node(self.node)} does not speak RESP: {error}") from None
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def _next(self) -> Any:
        while True:
            try:
                reply, size = decode_reply(self._buffer)
            except ReplyTooShort:
                received = self._socket.recv(65536)
                if not received:
                    raise NodeError(f"{format_node(self.node)} has closed the connection") from None
                self._buffer += received
            else:
                del self._buffer[:size]
                return reply


def check_backend(url: str, user: str, password: str, tls: SSLContext | None = None) -> None:
    """Returns if a node of the cluster says where its slots are. Raises NodeError with why none does."""
    node, reply = first_answer(nodes_of(url), user, password, "CLUSTER", "SLOTS", tls=tls)
    if not from_slots(reply, node):
        raise NodeError(f"{format_node(node)} knows no slots yet: is the cluster made?")


def first_answer(
    nodes: list[Node], user: str, password: str, *words: str, tls: SSLContext | None = None
) -> tuple[Node, Any]:
    """The first node that answers a command, and its reply. Raises NodeError with what all of them said."""
    said: list[str] = []
    for node in nodes:
        try:
            with Conversation(node, user, password, tls=tls) as conversation:
                return node, conversation.ask(*words)
        except NodeError as error:
            if error.refused:
                raise
            said.append(str(error))
        except CommandError as error:
            said.append(f"{format_node(node)} answers {' '.join(words)} with {error.message}")
    raise NodeError("; ".join(said))
