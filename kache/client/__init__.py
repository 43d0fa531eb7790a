"""The clients: `Client` blocks, `AsyncClient` is awaited. Both speak the binary protocol.

    blocking, asynchronous      sockets and pools; one exchange at a time on a connection
    commands, async_commands    the typed methods, one list twice
    pipeline                    commands collected first and sent together
    streams                     streams, and working through one as a member of a group
    codec                       requests and replies as functions over bytes
    arguments, stubs            what the typed methods make of what they are given; their types on a pipeline
    options, errors             what may be asked for, and what a failure means

Here are the two clients and what they raise. A client is loaded when it is first asked for, so that a program pays
for asyncio only if it awaits.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from kache.client.errors import (
    AuthenticationError,
    BadArgumentError,
    ClientClosedError,
    ClientError,
    CommandError,
    ConflictError,
    ConnectError,
    ConnectionLostError,
    CrossSlotError,
    KacheError,
    NotExecutedError,
    OutcomeUnknownError,
    OutOfMemoryError,
    PoolTimeoutError,
    ProtocolError,
    RequestTimeoutError,
    RequestTooLargeError,
    UnavailableError,
    UncertainError,
    UnknownCommandError,
    WrongTypeError,
)

if TYPE_CHECKING:
    from kache.client.asynchronous import AsyncClient
    from kache.client.blocking import Client

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "BadArgumentError",
    "Client",
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

_HOMES: Final = {"AsyncClient": "kache.client.asynchronous", "Client": "kache.client.blocking"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
