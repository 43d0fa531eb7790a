"""Limits of the packed form for tests: Redis's, none at all, tiny ones, and drawn ones. They are the process's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import strategies as st

from kache.shard.engine.packed import set_limits

__all__ = ["LARGE_ONLY", "REDIS_NAMES", "TINY", "Limits", "drawn_limits", "limits", "random_limits"]

Limits = dict[str, int]

LARGE_ONLY: Limits = {
    "hash_entries": 0, "set_integers": 0, "set_entries": 0, "zset_entries": 0, "list_size": 1,
}  # fmt: skip
"""Nothing is packed but a list of one element."""

TINY: Limits = {
    "hash_entries": 3, "hash_value": 20, "set_integers": 3, "set_entries": 3, "set_value": 20, "zset_entries": 3,
    "zset_value": 20, "list_size": 8,
}  # fmt: skip

REDIS_NAMES = {
    "hash_entries": "hash-max-listpack-entries",
    "hash_value": "hash-max-listpack-value",
    "set_integers": "set-max-intset-entries",
    "set_entries": "set-max-listpack-entries",
    "set_value": "set-max-listpack-value",
    "zset_entries": "zset-max-listpack-entries",
    "zset_value": "zset-max-listpack-value",
    "list_size": "list-max-listpack-size",
}

_COUNTS = [0, 1, 2, 3, 4, 5, 6, 8, 128]
_BYTES = [0, 1, 2, 6, 12, 64, 250]
_CHOICES: dict[str, list[int]] = {
    "hash_entries": _COUNTS, "hash_value": _BYTES, "set_integers": _COUNTS, "set_entries": _COUNTS, "set_value": _BYTES,
    "zset_entries": _COUNTS, "zset_value": _BYTES, "list_size": [*range(-5, 9)],
}  # fmt: skip

drawn_limits: st.SearchStrategy[Limits] = st.fixed_dictionaries(
    {name: st.sampled_from(choices) for name, choices in _CHOICES.items()}
)


def random_limits(draw: random.Random) -> Limits:
    """The same without hypothesis: elements of a few, of any size three times out of four."""
    chosen = {name: draw.choice(choices) for name, choices in _CHOICES.items()}
    if draw.random() < 0.75:
        chosen.update(hash_value=64, set_value=64, zset_value=64)
    return chosen


@contextmanager
def limits(chosen: Limits) -> Iterator[None]:
    """These limits, the others being Redis's; those again behind it."""
    set_limits(**chosen)
    try:
        yield
    finally:
        set_limits()
