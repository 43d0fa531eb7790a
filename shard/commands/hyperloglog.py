"""Handlers of PFADD, PFCOUNT and PFMERGE.

A HyperLogLog is a string value (TYPE says so, GET returns it) in the real server's representation, which
`hll` reads and writes. Owns: the commands' semantics. Promises: every change goes through the keyspace's
mutators, and a change of a few registers writes only their bytes.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply

from ..engine import hll
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__: list[str] = []

_NOT_HYPERLOGLOG = "WRONGTYPE Key is not a valid HyperLogLog string value."
_CORRUPT = "INVALIDOBJ Corrupted HLL object detected"
_CACHE_OFFSET = 8
"""Where the header keeps its cached count."""


def _read(ks: Keyspace, key: bytes) -> bytes | None:
    """The value at `key`; raises WRONGTYPE for what is no HyperLogLog."""
    value = ks.string_get(key)
    if value is not None and not hll.looks_valid(value):
        raise CommandError(_NOT_HYPERLOGLOG)
    return value


def _present(ks: Keyspace, keys: Iterable[bytes]) -> Iterator[bytes]:
    """The values of the keys that exist, one by one: of two bad values the first is reported."""
    for key in keys:
        value = _read(ks, key)
        if value is not None:
            yield value


@command("pfadd")
def pfadd(ctx: Context, key: bytes, *elements: bytes) -> Reply:
    value = _read(ctx.keys, key)
    try:
        added = hll.add(hll.create() if value is None else value, elements)
    except hll.CorruptValue:
        raise CommandError(_CORRUPT) from None
    if added is None:
        if value is not None:
            return 0
        ctx.keys.string_set(key, hll.create(), event="pfadd")
        return 1
    changed, patches = added
    if value is None or patches is None:
        ctx.keys.string_set(key, changed, keep_ttl=True, event="pfadd")
    else:
        for offset, data in patches:
            ctx.keys.string_overlay(key, offset, data, event="pfadd")
    return 1


@command("pfcount")
def pfcount(ctx: Context, *keys: bytes) -> Reply:
    try:
        if len(keys) == 1:
            return _count_one(ctx.keys, keys[0])
        return hll.count(_present(ctx.keys, keys))
    except hll.CorruptValue:
        raise CommandError(_CORRUPT) from None


def _count_one(ks: Keyspace, key: bytes) -> int:
    value = _read(ks, key)
    if value is None:
        return 0
    count = hll.cached_count(value)
    if count is None:
        count = hll.count([value])
        # Kept in the value, as the real server does: a count is then O(1) until the next change.
        ks.string_overlay(key, _CACHE_OFFSET, count.to_bytes(8, "little"), event="pfcount")
    return count


@command("pfmerge")
def pfmerge(ctx: Context, destination: bytes, *sources: bytes) -> Reply:
    target = _read(ctx.keys, destination)
    try:
        merged = hll.merge(hll.create() if target is None else target, _present(ctx.keys, sources))
    except hll.CorruptValue:
        raise CommandError(_CORRUPT) from None
    ctx.keys.string_set(destination, merged, keep_ttl=True, event="pfadd")
    return OK
