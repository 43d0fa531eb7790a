"""OBJECT and MEMORY USAGE: what a real server would say about how a value is stored.

Owns: the encodings' names; those of collections follow from how they are stored here, which is by the real server's
limits. Promises: looking does not touch a key's LRU or LFU. Called through the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import SYNTAX, CommandError
from kache.replies import Reply

from .arguments import bounded_integer, integer, parse_integer
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["encoding_of", "string_encoding"]

_OTHER_POLICY = (
    "Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."
)
_NO_LFU = f"ERR An LFU maxmemory policy is not selected, access frequency not tracked. {_OTHER_POLICY}"
_LFU = f"ERR An LFU maxmemory policy is selected, idle time not tracked. {_OTHER_POLICY}"

_EMBEDDED_BYTES = 113
"""Bytes of key and value together up to which the real server keeps them in one allocation (two cache lines)."""
_LONG_KEY = 32
"""A key of this length has a header two bytes longer."""


def string_encoding(key: bytes, value: bytes, *, raw: bool) -> str:
    """ "int", "embstr" or "raw"; `raw` says that the value was grown in place."""
    if raw:
        return "raw"
    if parse_integer(value) is not None:
        return "int"
    room = _EMBEDDED_BYTES - (2 if len(key) >= _LONG_KEY else 0)
    return "embstr" if len(key) + len(value) <= room else "raw"


def encoding_of(ks: Keyspace, key: bytes) -> str | None:
    """What OBJECT ENCODING answers; None when there is no such key."""
    if ks.type_of(key) == "string":
        return string_encoding(key, ks.string_get(key) or b"", raw=ks.string_is_raw(key))
    return ks.encoding_of(key)


@command("object|encoding")
def object_encoding(ctx: Context, key: bytes) -> Reply:
    name = encoding_of(ctx.keys, key)
    return None if name is None else name.encode()


@command("object|refcount")
def object_refcount(ctx: Context, key: bytes) -> Reply:
    return None if ctx.keys.type_of(key) is None else 1


@command("object|idletime")
def object_idletime(ctx: Context, key: bytes) -> Reply:
    idle_ms = ctx.keys.idle_ms(key)
    if idle_ms is None:
        return None
    if ctx.keys.lfu:
        raise CommandError(_LFU)
    return idle_ms // 1000


@command("object|freq")
def object_freq(ctx: Context, key: bytes) -> Reply:
    frequency = ctx.keys.frequency(key)
    if frequency is None:
        return None
    if not ctx.keys.counts_uses:
        raise CommandError(_NO_LFU)
    return frequency


@command("memory|usage")
def memory_usage(ctx: Context, key: bytes, *args: bytes) -> Reply:
    position = 0
    while position < len(args):
        if args[position].upper() != b"SAMPLES" or position + 1 == len(args):
            raise CommandError(SYNTAX)
        # Every value is accounted exactly: there is nothing to sample, but the number must be one.
        bounded_integer(args[position + 1], 0, 2**63 - 1, None if integer(args[position + 1]) >= 0 else SYNTAX)
        position += 2
    return ctx.keys.memory_of(key)
