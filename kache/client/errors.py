"""What a client may conclude from a failure, as a hierarchy of exceptions.

Two questions decide what a caller does next, so both are classes to catch:

* Was it executed?  `NotExecutedError`: certainly not, so trying again is safe.  `UncertainError`: once or not at all,
  so only something idempotent may be tried again.  Neither of the two: the server refused it, nothing was changed, and
  trying again unchanged would be refused again.
* Who said so?  `CommandError`: the server answered.  `ClientError`: there was no (usable) answer.

::

    KacheError
    ├── NotExecutedError ─┬── ConnectError, PoolTimeoutError, ClientClosedError,
    │                     │   ConflictError                                            (ClientError)
    │                     └── UnavailableError, OutOfMemoryError, AuthenticationError,
    │                         UnknownCommandError, RequestTooLargeError                (CommandError)
    ├── UncertainError ───┬── ConnectionLostError, RequestTimeoutError, ProtocolError  (ClientError)
    │                     └── OutcomeUnknownError                                      (CommandError)
    └── CommandError ─────┴── WrongTypeError, BadArgumentError, CrossSlotError

`ConnectError` and `ConnectionLostError` are also a `ConnectionError`, both timeouts a `TimeoutError` of Python.
Pure; used by the client modules and by whoever catches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kache.errors import CommandError, KacheError

__all__ = [
    "AuthenticationError",
    "BadArgumentError",
    "ClientClosedError",
    "ClientError",
    "CommandError",
    "ConflictError",
    "ConnectError",
    "ConnectionLostError",
    "CrossSlotError",
    "KacheError",
    "NotExecutedError",
    "OutOfMemoryError",
    "OutcomeUnknownError",
    "PoolTimeoutError",
    "ProtocolError",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "UnavailableError",
    "UncertainError",
    "UnknownCommandError",
    "WrongTypeError",
]


class NotExecutedError(KacheError):
    """The command had no effect and never will have: trying again is safe."""


class UncertainError(KacheError):
    """The command was executed once or not at all: try again only what is idempotent."""


class ClientError(KacheError):
    """A failure noticed by the client itself, without an answer of the server."""


class ConnectError(NotExecutedError, ClientError, ConnectionError):
    """No connection could be made, the server refused it (too many clients), or nothing could be sent on it."""


class PoolTimeoutError(NotExecutedError, ClientError, TimeoutError):
    """All connections of the pool stayed in use for the whole timeout."""


class ClientClosedError(NotExecutedError, ClientError):
    """The client was used after `close`."""


class ConflictError(NotExecutedError, ClientError):
    """Keys that a transaction watches changed every time that it was tried."""


class _InterruptedError(UncertainError, ClientError):
    """An exchange that broke off; `replies` are those that did arrive, in order: these commands were executed."""

    def __init__(self, message: str, replies: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.replies = list(replies)


class ConnectionLostError(_InterruptedError, ConnectionError):
    """The connection broke after something was sent. `replies`: what a pipeline had received before."""


class RequestTimeoutError(_InterruptedError, TimeoutError):
    """No reply in time; the connection was closed. `replies`: what a pipeline had received before."""


class ProtocolError(_InterruptedError):
    """The peer does not speak the binary protocol; the connection was closed."""


class UnknownCommandError(CommandError, NotExecutedError):
    """No such command, or the wrong number of arguments (status 1)."""


class BadArgumentError(CommandError):
    """An argument is not a number, not a known option, or out of range (status 4)."""


class WrongTypeError(CommandError):
    """The key holds another type (status 5)."""


class OutOfMemoryError(CommandError, NotExecutedError):
    """Refused because the memory limit is reached (status 6)."""


class AuthenticationError(CommandError, NotExecutedError):
    """Authentication is required, failed, or does not allow this (status 7)."""


class RequestTooLargeError(CommandError, NotExecutedError):
    """More bytes than the server's `max-frame-bytes`, or than the binary protocol can carry at all: 143 MiB."""


class UnavailableError(CommandError, NotExecutedError):
    """The shard is down, loading or overloaded, or its disk refuses writes (status 8)."""


class OutcomeUnknownError(CommandError, UncertainError):
    """The shard did not answer in time, or was lost after it had received the command (status 9)."""


class CrossSlotError(CommandError):
    """The keys lie on different shards and this command cannot span them (status 10)."""


_TOO_LARGE = "ERR Protocol error: frame of "
_CLASS_OF_STATUS: dict[int, type[CommandError]] = {
    1: UnknownCommandError,
    4: BadArgumentError,
    5: WrongTypeError,
    6: OutOfMemoryError,
    7: AuthenticationError,
    8: UnavailableError,
    9: OutcomeUnknownError,
    10: CrossSlotError,
}


def command_error(status: int, message: str) -> CommandError:
    """The exception for an error reply with this status of the binary protocol."""
    if message.startswith(_TOO_LARGE):
        return RequestTooLargeError(message)
    return _CLASS_OF_STATUS.get(status, CommandError)(message)
