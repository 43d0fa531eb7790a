"""Where shards show the routers that they are at work: a page (kache.cluster.pages) mapped by all of them.

Each shard has a line of 64-bit numbers, in the machine's byte order (kache/wire/board.pyx reads and writes them):

    beat | commands begun for router 0 | … for router 1 | …

It is looked at only when a deadline passes, so it costs the data path nothing but a count.
"""

from __future__ import annotations

from kache.cluster import pages

__all__ = ["create"]

_EACH = 8


def create(directory: str, shards: int, routers: int) -> int:
    """A page, all zero. Raises OSError."""
    return pages.create(directory, _EACH * shards * (1 + routers))
