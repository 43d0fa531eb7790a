"""The command table: one row per command, from which everything else about it follows.

Arity errors, key extraction, routing, refusal when memory is full, what is logged, COMMAND and COMMAND DOCS, the
command line's help and docs/commands.md all read these rows. Adding a command is one row in the file of its group
(strings.py, keys.py, hashes.py, lists.py, sets.py, zsets.py, geo.py, hyperloglog.py, streams.py, transactions.py, pubsub.py,
scripting.py, connection.py, cluster.py, server.py, internal.py, binary.py) and one function that carries it out. A row that contradicts itself
fails this import.

Routes, where a command is executed:

========  ==========================================================================================
key       the shard that owns its key
split     every shard gets the command with its own keys only; the replies are merged
move      one shard if the keys meet there; else the router leads several steps (RENAME, SDIFF, the STORE forms)
all       every shard; the replies are merged
cursor    SCAN: one shard after the other
weighted  RANDOMKEY: a shard drawn in proportion to its keys
script    one shard runs it, with the declared keys of others locked and lent to it
channel   the shard that owns the slot of a channel passes on what is published there
local     the router itself, which may ask shards (INFO)
none      a container without a subcommand; never executed
========  ==========================================================================================

Merges, for split and all: ``sum``, ``all_ok``, ``in_order`` (MGET), ``concat`` (KEYS), ``union`` (SUNION), ``inter``
(SINTER); every other row has ``first``. The words of both are explained in `row.ROUTES` and `row.MERGES`.

The column `cluster` says what a command does where the router stands in front of a Redis or Valkey Cluster instead of
its own shards (`row.CLUSTER`). It is data for the reference, and for whoever builds or checks that.

Modules: row (the type), extract (keys of one command), misses (those that it reads), redact (what of one nobody may see), describe (COMMAND's replies), syntax (argument lines as
trees), reference and elsewhere (docs/commands.md, docs/not-implemented.md), behind (what differs in front of a Redis Cluster). Everything is pure and shared by the router, the shards and the command line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from . import (
    binary,
    cluster,
    connection,
    geo,
    hashes,
    hyperloglog,
    internal,
    keys,
    lists,
    pubsub,
    scripting,
    server,
    sets,
    streams,
    strings,
    transactions,
    zsets,
)
from .extract import key_positions, keys_of, keys_with_flags
from .row import CLUSTER, GROUPS, MERGES, ROUTES, KeySpec, Row, check_row

__all__ = [
    "BY_KEY",
    "CLUSTER",
    "CONTAINERS",
    "DIGEST",
    "GROUPS",
    "MERGES",
    "NO_MODULES",
    "ROUTES",
    "TABLE",
    "KeySpec",
    "Row",
    "atomicity",
    "key_positions",
    "keys_of",
    "keys_with_flags",
    "lookup",
]

BINARY: Final = 0
INTERNAL: Final = 1

_CONTAINER_SUMMARIES: Final = {
    "acl": ("6.0.0", "server", "Commands about users."),
    "client": ("2.4.0", "connection", "Commands about client connections."),
    "cluster": ("3.0.0", "cluster", "Commands about the cluster that clients see."),
    "config": ("2.0.0", "server", "Commands about the settings."),
    "debug": ("1.0.0", "server", "Commands for tests."),
    "latency": ("2.8.13", "server", "Commands about how long commands take."),
    "memory": ("4.0.0", "server", "Commands about the use of memory."),
    "module": ("4.0.0", "server", "Commands about modules."),
    "object": ("2.2.3", "generic", "Commands about the internal form of values."),
    "pubsub": ("2.8.0", "pubsub", "Commands about channels and who listens to them."),
    "function": ("7.0.0", "scripting", "Commands about libraries of functions."),
    "script": ("2.6.0", "scripting", "Commands about scripts."),
    "slowlog": ("2.2.12", "server", "Commands about the slow log."),
    "xgroup": ("5.0.0", "stream", "Commands about consumer groups."),
    "xinfo": ("5.0.0", "stream", "Commands about what streams, groups and consumers hold."),
}


def _assemble() -> tuple[Row, ...]:
    """All rows, checked, with their ids and the names of their subcommands."""
    modules = (
        strings,
        keys,
        hashes,
        lists,
        sets,
        zsets,
        geo,
        hyperloglog,
        streams,
        transactions,
        pubsub,
        scripting,
        connection,
        cluster,
        server,
        binary,
        internal,
    )
    rows = [each for module in modules for each in module.ROWS]
    seen: set[str] = set()
    for each in rows:
        check_row(each)
        if each.key in seen:
            raise ValueError(f"command table: {each.key} is there twice")
        if (each.group == "internal") != each.name.startswith("_"):
            raise ValueError(f"command table: {each.key}: internal names, and only they, start with '_'")
        seen.add(each.key)
    return tuple(
        msgspec.structs.replace(each, id=number, subcommands=_subcommands(each.name, rows))
        for number, each in enumerate(rows)
    )


def _subcommands(name: str, rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(each.name for each in rows if each.name.startswith(f"{name}|"))


def _containers() -> dict[str, Row]:
    """A row, outside the table, for every first word that does nothing alone."""
    names = {each.name for each in TABLE}
    found = dict.fromkeys(each.name.partition("|")[0] for each in TABLE if each.words == 2)
    return {
        name: Row(
            name=name,
            syntax="",
            arity=-2,
            flags=frozenset(),
            keys=(),
            since=_CONTAINER_SUMMARIES[name][0],
            complexity="that of the subcommand",
            summary=_CONTAINER_SUMMARIES[name][2],
            route="none",
            merge="first",
            dialect="any",
            difference="",
            categories=(),
            cluster="local",
            cluster_text="",
            group=_CONTAINER_SUMMARIES[name][1],
            subcommands=_subcommands(name, TABLE),
        )
        for name in found
        if name not in names
    }


TABLE: Final = _assemble()
"""Every row; a row's `id`, the number that travels on the link between router and shard, is its index."""

CONTAINERS: Final = MappingProxyType(_containers())
"""Rows, without id, of CONFIG and the like: for COMMAND and the reference, never executed."""

BY_KEY: Final = MappingProxyType({each.key: each for each in TABLE})
"""Rows by `Row.key`, the name that handlers register under: "get", "object|encoding", "binary|del", "_scan"."""

DIGEST: Final = hashlib.blake2b("\n".join(each.key for each in TABLE).encode(), digest_size=8).digest()
"""Eight bytes that differ when names or their order do; a router and a shard compare them when they meet."""

_RESP: Final = {each.name.encode(): each for each in TABLE if each.dialect != "binary" and each.group != "internal"}
_BINARY: Final = {
    each.name.encode(): each
    for wanted in ("any", "binary")
    for each in TABLE
    if each.dialect == wanted and each.group != "internal"
}
_INTERNAL: Final = {each.key.encode(): each for each in TABLE}


NO_MODULES: Final[Mapping[str, Row]] = MappingProxyType({})
"""The rows of modules, by name, where there are none: only routers and shards know what a cluster has loaded."""


def lookup(name: bytes, dialect: int, modules: Mapping[str, Row] = NO_MODULES) -> Row | None:
    """The row of a command, in any case, as a client of that dialect (the u8 of the link) sees it; None if unknown.

    `name` is ``get`` or ``object|encoding``; a container alone (``config``) is found too and has the route "none".
    In the internal dialect names are row keys, so ``binary|del`` and ``_scan`` exist. `modules` are rows beside the table.
    One to three dict lookups.
    """
    names = _BINARY if dialect == BINARY else _INTERNAL if dialect == INTERNAL else _RESP
    lowered = name.lower()
    found = names.get(lowered)
    if found is not None:
        return found
    word = lowered.decode("latin-1")
    return CONTAINERS.get(word) or modules.get(word)


def atomicity(row: Row) -> str:
    """What somebody else may see while the command works on several shards; empty if it never touches one."""
    if row.route == "move" and row.is_write:
        return (
            "Atomic. Over several shards it is a transaction: others wait for its keys meanwhile, or only those who write "
            "while something large is moved or combined; if a shard is lost in the middle the reply is UNCERTAIN."
        )
    if row.route == "move":
        return (
            "Atomic if all keys live on one shard. Otherwise each key is read atomically, not all at the same instant; "
            "while large ones are combined, writes by others to them wait."
        )
    if row.route == "all" and row.is_write:
        return "Atomic: a transaction over all shards. If one is lost in the middle the reply is UNCERTAIN."
    if row.route in ("split", "all"):
        part = "its own keys" if row.route == "split" else "its part"
        single = "Atomic if all keys live on one shard. Otherwise each" if row.route == "split" else "Each"
        verb = "changes" if row.is_write else "reads"
        return f"{single} shard {verb} {part} atomically, not all shards at the same instant."
    if row.route == "cursor":
        return "Each call is atomic on one shard; a key present throughout the iteration is returned."
    if row.route == "weighted":
        return "Atomic on the shard drawn; the numbers of keys that the draw uses are read just before."
    if row.route == "local" and "S" in row.complexity:
        # Its cost is that of asking S shards: INFO, STATS, SLOWLOG.
        return "Each shard is asked by the router, not all at the same instant."
    if row.route in ("local", "channel", "none"):
        return ""
    return "Atomic: one shard executes it."
