"""The steps of set algebra over shards: members are picked here, kept or dropped there, and gathered at the destination.

Each works on a part at most and leaves nothing behind but the value under construction (images.py). The router leads
(router/scatter/algebra.py); the members never become Python objects (engine/algebra.pxi).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import Reply
from kache.wire.codec import encode_elements

from ..engine.engine import Building, RecordError, Sieve
from .images import BAD_IMAGE, building_of
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []


def _filters(words: Sequence[bytes]) -> list[tuple[bytes, bool, float]]:
    return [(words[i], words[i + 1] == b"1", float(words[i + 2])) for i in range(0, len(words), 3)]


@command("_sizes")
def sizes(ctx: Context, *keys: bytes) -> Reply:
    """[type, number of elements] of each key; the type is none without the key, the number 1 for a string."""
    found: list[list[bytes | int]] = []
    for key in keys:
        kind = ctx.keys.type_of(key)
        found.append([(kind or "none").encode(), ctx.keys.elements_of(key)])
    return found


@command("_types")
def types(ctx: Context, *keys: bytes) -> Reply:
    """The type of each key, none without it. A look of the router at what it is about to write, and no command's read."""
    return [(ctx.keys.type_of(key) or "none").encode() for key in keys]


@command("_pick")
def pick(ctx: Context, key: bytes, scored: bytes, aggregate: bytes, weight: bytes, *rest: bytes) -> Reply:
    """``cursor most most_bytes counting (filter drop weight)…``: [where to go on or 0, members found, the part of them]."""
    cursor, most, most_bytes, counting, *filters = rest
    sieve = Sieve(
        ctx.keys,
        scored=scored == b"1",
        aggregate=int(aggregate),
        filters=_filters(filters),
        counting=counting == b"1",
    )
    following = sieve.pick(key, float(weight), int(cursor), int(most), int(most_bytes))
    return [b"%d" % following, sieve.found, b"" if counting == b"1" else sieve.part()]


@command("_keep")
def keep(ctx: Context, part: bytes, scored: bytes, aggregate: bytes, counting: bytes, *filters: bytes) -> Reply:
    """[members found, the part of them]: what the filters let through of a part picked elsewhere."""
    sieve = Sieve(
        ctx.keys,
        scored=scored == b"1",
        aggregate=int(aggregate),
        filters=_filters(filters),
        counting=counting == b"1",
    )
    try:
        sieve.keep(part)
    except RecordError:
        raise CommandError(BAD_IMAGE) from None
    return [sieve.found, b"" if counting == b"1" else sieve.part()]


def _into(ctx: Context, destination: bytes, scored: bytes, expected: bytes) -> Building:
    return building_of(ctx, destination, "zset" if scored == b"1" else "set", int(expected))


@command("_gather")
def gather(ctx: Context, destination: bytes, scored: bytes, aggregate: bytes, expected: bytes, part: bytes) -> Reply:
    """Adds a part of members to what is under construction; scores of one member are combined."""
    into = _into(ctx, destination, scored, expected)
    sieve = Sieve(ctx.keys, scored=scored == b"1", aggregate=int(aggregate), into=into)
    try:
        sieve.keep(part)
    except RecordError:
        raise CommandError(BAD_IMAGE) from None
    return sieve.found


@command("_gather_key")
def gather_key(
    ctx: Context, destination: bytes, scored: bytes, aggregate: bytes, expected: bytes, *rest: bytes
) -> Reply:
    """``key weight cursor most (filter drop weight)…`` of this shard: [where to go on or 0, members found]."""
    key, weight, cursor, most, *filters = rest
    into = _into(ctx, destination, scored, expected)
    sieve = Sieve(ctx.keys, scored=scored == b"1", aggregate=int(aggregate), filters=_filters(filters), into=into)
    return [b"%d" % sieve.pick(key, float(weight), int(cursor), int(most)), sieve.found]


@command("_spell")
def spell(ctx: Context, name: bytes, scored: bytes, cursor: bytes, most: bytes, dialect: bytes, scores: bytes) -> Reply:
    """[where to go on or 0, members altogether, some of them as a client's dialect has them] of what is under construction."""
    built = _into(ctx, name, scored, b"0")
    following, found = built.some(int(cursor), int(most), scores == b"1")
    return [b"%d" % following, len(built), encode_elements(found, int(dialect), scores == b"1")]
