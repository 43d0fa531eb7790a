"""The clients: `Client` blocks, `AsyncClient` is awaited. Both speak the binary protocol.

    blocking, asynchronous      sockets and pools; one exchange at a time on a connection
    commands, async_commands    the typed methods, one list twice
    pipeline                    commands collected first and sent together
    pubsub, async_pubsub        listening to channels: a connection each, made again when it is lost
    messages                    what they have in common, as functions over bytes
    near                        copies of replies in the program itself, dropped when their keys change
    streams                     streams, and working through one as a member of a group
    codec                       requests and replies as functions over bytes
    arguments, stubs            what the typed methods make of what they are given; their types on a pipeline
    tls                         what they connect with where the server speaks TLS
    options, errors             what may be asked for, and what a failure means

Here are the two clients and what they raise. A client is loaded when it is first asked for, so that a program pays
for asyncio only if it awaits.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from kache.client import errors
from kache.client.errors import *  # noqa: F403  # the list of them is there

if TYPE_CHECKING:
    from kache.client.async_pubsub import AsyncPubSub
    from kache.client.asynchronous import AsyncClient
    from kache.client.blocking import Client
    from kache.client.messages import Message
    from kache.client.near import NearCache
    from kache.client.pubsub import PubSub

__all__ = ["AsyncClient", "AsyncPubSub", "Client", "Message", "NearCache", "PubSub"]
__all__ += errors.__all__

_HOMES: Final = {
    "AsyncClient": "kache.client.asynchronous",
    "AsyncPubSub": "kache.client.async_pubsub",
    "Client": "kache.client.blocking",
    "Message": "kache.client.messages",
    "NearCache": "kache.client.near",
    "PubSub": "kache.client.pubsub",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
