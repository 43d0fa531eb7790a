"""Kache: a cache cluster on one machine, one process per core behind one address.

A tour of the house, in the order a request travels through it:

=======================  =========================================================================
`kache.cluster.supervisor`       forks and restarts everything below; owns the listening sockets
`kache.wire.reactor`         raw descriptors under an event loop: reads, batched writes, lingering closes
`kache.wire.codec`            both protocols as pure functions over bytes; the slot hash
`kache.commands`         one row per command: arity, keys, flags, route, merge, documentation
`kache.router`           one process: which shard, in which order, merged how
`kache.shard`            N processes: keyspace by slot, TTL heaps, eviction, the commands themselves
`kache.client.blocking`           `Client` and `AsyncClient`, over the binary protocol
=======================  =========================================================================

From a program::

    from kache import Client

    with Client() as cache:                  # 127.0.0.1:7379
        cache.set("greeting", "hello")
        cache.get("greeting")                # b"hello"

From a shell: ``kache cluster start``, then ``kache --help``, or any Redis client on the same port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kache.client.asynchronous import AsyncClient as AsyncClient
    from kache.client.blocking import Client as Client

__all__ = ["AsyncClient", "Client", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The supervisor and every CLI call import this package: the clients load on first use only.
    if name == "Client":
        from kache.client.blocking import Client

        return Client
    if name == "AsyncClient":
        from kache.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module 'kache' has no attribute {name!r}")
