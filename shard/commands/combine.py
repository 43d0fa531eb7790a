"""Unions, intersections and differences of sets and sorted sets of this shard, as all their commands use them.

Owns: the order of the inputs (from the smallest to the largest, as the real server has it, so that sums of doubles come
out equal) and what becomes of keys that are missing or of a wrong type. The members are compared and combined in C
(engine/algebra.pxi): no Python object is made for one. Pure but for the clocks of the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ..engine.engine import Building, Sieve

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__ = ["AGGREGATES", "Operation", "combine", "count_common"]

Operation = Literal["union", "inter", "diff"]
AGGREGATES = {b"SUM": 0, b"MIN": 1, b"MAX": 2}


def combine(
    ctx: Context,
    operation: Operation,
    destination: bytes,
    keys: Sequence[bytes],
    weights: Sequence[float] | None = None,
    aggregate: int = 0,
) -> Building:
    """The result, under construction for the key `destination`; a sorted set if there are weights, else a set.

    Raises WRONGTYPE when any of the keys is no set (with weights: no sorted set either).
    """
    scored = weights is not None
    inputs = list(zip(ctx.keys.set_sizes(keys, scored), keys, weights or [1.0] * len(keys), strict=True))
    into = Building(ctx.keys.store, destination, "zset" if scored else "set")
    if operation == "union":
        inputs.sort(key=_size)
        # Between the largest alone and all of them, for it is not known how much they have in common.
        into.expect((inputs[-1][0] + sum(map(_size, inputs))) // 2)
        sieve = Sieve(ctx.keys, scored=scored, aggregate=aggregate, into=into)
        for _, key, weight in inputs:
            sieve.pick(key, weight)
        return into
    if operation == "inter":
        inputs.sort(key=_size)
    (size, first, weight), *others = inputs
    into.expect(size)
    filters = [(key, operation == "diff", other) for _, key, other in others]
    Sieve(ctx.keys, scored=scored, aggregate=aggregate, filters=filters, into=into).pick(first, weight)
    return into


def _size(each: tuple[int, bytes, float]) -> int:
    return each[0]


def count_common(ctx: Context, keys: Sequence[bytes], limit: int, *, scored: bool) -> int:
    """How many members all of them have, at most `limit` if that is not 0."""
    inputs = sorted(zip(ctx.keys.set_sizes(keys, scored), keys, strict=True), key=lambda each: each[0])
    (_, smallest), *others = inputs
    filters = [(key, False, 1.0) for _, key in others]
    sieve = Sieve(ctx.keys, scored=scored, filters=filters, limit=limit, counting=True)
    sieve.pick(smallest)
    return sieve.found
