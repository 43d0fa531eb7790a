"""How many clients of each router watch all commands (MONITOR): a page, so that every router looks with one glance.

A byte for each router; each writes its own, and describes what its clients do while any is not 0. One that starts sets
its own back: it has no clients yet.
"""

from __future__ import annotations

from typing import Final

from kache.cluster import pages
from kache.config.settings import MOST_ROUTERS

__all__ = ["SIZE", "create"]

SIZE: Final = MOST_ROUTERS
"""Bytes: two 64-bit numbers are looked at (router/mux/monitor.pxi)."""


def create(directory: str) -> int:
    """A page that says that nobody watches. Raises OSError."""
    return pages.create(directory, SIZE)
