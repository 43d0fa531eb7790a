"""Limits of the packed form for tests: Redis's, none at all, tiny ones, and drawn ones. They are the process's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import strategies as st

from kache.shard.engine.packed import set_limits

__all__ = ["LARGE_ONLY", "REDIS_NAMES", "TINY", "Limits", "drawn_limits", "limits"]

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

_counts = st.integers(0, 8) | st.just(128)
_bytes = st.sampled_from([0, 1, 2, 6, 12, 64, 250])

drawn_limits: st.SearchStrategy[Limits] = st.fixed_dictionaries(
    {
        "hash_entries": _counts, "hash_value": _bytes, "set_integers": _counts, "set_entries": _counts, "set_value": _bytes,
        "zset_entries": _counts, "zset_value": _bytes, "list_size": st.integers(-5, 8),
    }
)  # fmt: skip


@contextmanager
def limits(chosen: Limits) -> Iterator[None]:
    """These limits, the others being Redis's; those again behind it."""
    set_limits(**chosen)
    try:
        yield
    finally:
        set_limits()
