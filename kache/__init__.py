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
· `cluster`               in front of a Redis Cluster instead of shards: its slots, gates, connections
`kache.shard`             N processes, each with the keys of its slots
· `engine`                compiled: the keyspace and its structures, expiry, eviction, execution
· `commands`              what each command does, one function per row of the table
· `log`                   compiled, where data is kept on disk: its log, its base, the way back from them
· `service`               what runs beside them: cleanup thread, keeping and loading, statistics, slow log
========================  =============================================================================

Beside the path of a request:

========================  =============================================================================
`kache.commands`          the table: one row per command, from which everything else about it follows
`kache.acl`               users and what they may do: rules, files, and the compiled checks
`kache.module`            commands in Python: what their authors import, and how a file becomes rows
`kache.cluster`           the supervisor: forks and restarts routers and shards, owns the listening
                          sockets; what it and they say to one another
`kache.backend`           a Redis Cluster behind the routers: addresses, slots, what a node is asked once
`kache.config`            every setting, its limits and its reason; options, variables and the file
`kache.cli`               the command line
`kache.load`              the load generator behind ``kache bench`` and the benchmarks
`kache.metrics`           the process behind `metrics-port`: Prometheus, probes, the web console
`kache.testing`           a cluster for tests, with a clock they move and faults they stage; the pytest plugin
`kache.errors` …          the ground floor: errors, replies, slots, glob (patterns), quoting (bytes for people),
                          stats (what is counted), figures (what that means, in one table), intervals (what happened
                          between two moments), timeouts (of commands that wait), deadlines (what is due when),
                          libraries (of functions, as text and as a payload)
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
    from kache.client import Client as Client
    from kache.client import Message as Message
    from kache.client import NearCache as NearCache
    from kache.client import PubSub as PubSub
    from kache.client.errors import *  # noqa: F403  # the list of them is there

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The supervisor and every CLI call import this package: the clients load on first use only. What they raise and they
    # themselves are classes; a module that is not imported yet must not load them.
    if name == "__all__" or name[:1].isupper():
        client = import_module("kache.client")
        if name == "__all__":
            return [*client.__all__, "__version__"]
        if name in client.__all__:
            return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
