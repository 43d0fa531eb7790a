"""What is being dumped by the whole cluster, as all routers know it: a page, which the supervisor writes before it answers.

The shards dump one after the other, and between two turns none of them is at it: they cannot tell.
"""

from __future__ import annotations

import os
import struct

from kache.cluster import pages

__all__ = ["NOTHING", "REWRITE", "SAVE", "create", "read", "write"]

_FORM = struct.Struct("=qq")

NOTHING, SAVE, REWRITE = range(3)


def create(directory: str) -> int:
    """A page that says that nothing is dumped. Raises OSError."""
    return pages.create(directory, _FORM.size)


def write(page: int, what: int, since_ms: int) -> None:
    """`what` is under way since that time in unix ms. Raises OSError."""
    os.pwrite(page, _FORM.pack(what, since_ms), 0)


def read(page: int) -> tuple[int, int]:
    """What is under way, and since when in unix ms. Raises OSError."""
    what, since_ms = _FORM.unpack(os.pread(page, _FORM.size, 0))
    return what, since_ms
