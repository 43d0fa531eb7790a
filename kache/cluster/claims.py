"""Which one of several shards serves a waiting client: a page (kache.cluster.pages) that all routers and shards have mapped.

A cell is one 64-bit number in the machine's byte order (kache/wire/claims.pyx); each router has its own part of them. When
a router has ended, the supervisor gives its cells another generation, so that no shard takes anything for its clients.
"""

from __future__ import annotations

import array
import os

from kache.cluster import pages
from kache.wire.claims import CELLS_OF_A_ROUTER

__all__ = ["create", "void"]

_BYTES = 8 * CELLS_OF_A_ROUTER
_GENERATION = 1 << 16


def create(directory: str, routers: int) -> int:
    """A page, all zero. Raises OSError."""
    return pages.create(directory, _BYTES * routers)


def void(page: int, router: int) -> None:
    """Nobody waits at a router that has ended. Raises OSError."""
    cells = array.array("Q", os.pread(page, _BYTES, _BYTES * router))
    used = next((at for at in range(len(cells) - 1, -1, -1) if cells[at]), -1) + 1
    raised = array.array("Q", ((cell // _GENERATION + 1) * _GENERATION + _GENERATION - 1 for cell in cells[:used]))
    os.pwrite(page, raised.tobytes(), _BYTES * router)
