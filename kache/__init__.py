"""Kache: a cache cluster on one machine, one process per core behind one address.

A tour of the house, in the order in which a request meets it. `kache/` is what all processes share; `router/` and
`shard/` are the two kinds of process, installed as `kache.router` and `kache.shard`:

========================  =============================================================================
`kache.client`            `Client` and `AsyncClient`, over the binary protocol; any Redis client will do
`kache.wire`              both protocols as pure functions over bytes, raw descriptors under an event
                          loop, the numbers of the link between router and shard
`kache.router`            one process, or a few on one port: which shard, in which order, merged how
· `mux`                   compiled: connections, framing, slots, transactions, the order of replies
· `commands`              what the router answers itself
· `scatter`               what goes to several shards: split, merged, moved in steps
`kache.shard`             N processes, each with the keys of its slots
· `engine`                compiled: the keyspace and its structures, expiry, eviction, execution
· `commands`              what each command does, one function per row of the table
· `log`                   compiled, where data is kept on disk: its log, its base, the way back from them
· `service`               what runs beside them: cleanup thread, keeping and loading, statistics, slow log
========================  =============================================================================

Beside the path of a request:

========================  =============================================================================
`kache.commands`          the table: one row per command, from which everything else about it follows
`kache.cluster`           the supervisor: forks and restarts routers and shards, owns the listening
                          sockets; what it and they say to one another
`kache.config`            every setting, its limits and its reason; options, variables and the file
`kache.cli`               the command line
`kache.load`              the load generator behind ``kache bench`` and the benchmarks
`kache.testing`           a cluster for tests, with a clock they move and faults they stage; the pytest plugin
`kache.errors` …          the ground floor: errors, replies, slots, glob (patterns), stats (what is counted), timeouts
                          (of commands that wait), deadlines (what is due when)
========================  =============================================================================

From a program::

    from kache import Client

    with Client() as cache:                  # 127.0.0.1:7379
        cache.set("greeting", "hello")
        cache.get("greeting")                # b"hello"

From a shell: ``kache cluster start``, then ``kache --help``, or any Redis client on the same port.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kache.client import AsyncClient as AsyncClient
    from kache.client import AsyncPubSub as AsyncPubSub
    from kache.client import AuthenticationError as AuthenticationError
    from kache.client import BadArgumentError as BadArgumentError
    from kache.client import Client as Client
    from kache.client import ClientClosedError as ClientClosedError
    from kache.client import ClientError as ClientError
    from kache.client import CommandError as CommandError
    from kache.client import ConflictError as ConflictError
    from kache.client import ConnectError as ConnectError
    from kache.client import ConnectionLostError as ConnectionLostError
    from kache.client import CrossSlotError as CrossSlotError
    from kache.client import KacheError as KacheError
    from kache.client import Message as Message
    from kache.client import NearCache as NearCache
    from kache.client import NotExecutedError as NotExecutedError
    from kache.client import OutcomeUnknownError as OutcomeUnknownError
    from kache.client import OutOfMemoryError as OutOfMemoryError
    from kache.client import PoolTimeoutError as PoolTimeoutError
    from kache.client import ProtocolError as ProtocolError
    from kache.client import PubSub as PubSub
    from kache.client import RequestTimeoutError as RequestTimeoutError
    from kache.client import RequestTooLargeError as RequestTooLargeError
    from kache.client import UnavailableError as UnavailableError
    from kache.client import UncertainError as UncertainError
    from kache.client import UnknownCommandError as UnknownCommandError
    from kache.client import WrongTypeError as WrongTypeError

__all__ = [
    "AsyncClient",
    "AsyncPubSub",
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
    "Message",
    "NearCache",
    "NotExecutedError",
    "OutOfMemoryError",
    "OutcomeUnknownError",
    "PoolTimeoutError",
    "ProtocolError",
    "PubSub",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "UnavailableError",
    "UncertainError",
    "UnknownCommandError",
    "WrongTypeError",
    "__version__",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The supervisor and every CLI call import this package: the clients load on first use only.
    if name in __all__:
        return getattr(import_module("kache.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
