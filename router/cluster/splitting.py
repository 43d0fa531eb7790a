"""Commands over several slots inside a transaction that is split: what becomes of their parts' replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kache.errors import CommandError
from kache.replies import Reply

__all__ = ["joined"]

SUM: Final = 1
OK: Final = 2
IN_ORDER: Final = 3
"""Folds, as the compiled table numbers them."""


def joined(fold: int, keys: Mapping[int, Sequence[int]], values: Mapping[int, Any]) -> Reply:
    """One reply of each slot's: `keys` are the places of a slot's keys among all of the command. The first error stands for all."""
    for value in values.values():
        if isinstance(value, CommandError):
            return value
    if fold == SUM:
        return sum(values.values())
    if fold == OK:
        return "OK"
    found: list[Any] = [None] * sum(len(places) for places in keys.values())
    for slot, places in keys.items():
        for place, value in zip(places, values[slot], strict=True):
            found[place] = value
    return found
