"""How many clients each router has: a page that all routers have mapped.

A router writes its own count and reads the others', so that the next connection goes to whoever has the fewest and
`maxclients` holds for all together, without a message for every connection. The supervisor clears the count of a router
that has ended.
"""

from __future__ import annotations

import os

from kache.cluster import pages

__all__ = ["clear", "create"]

_EACH = 8


def create(directory: str, routers: int) -> int:
    """A page with one signed 64-bit number per router, in the machine's byte order, all zero. Raises OSError."""
    return pages.create(directory, _EACH * routers)


def clear(page: int, router: int) -> None:
    """A router that has ended has no clients. Raises OSError."""
    os.pwrite(page, bytes(_EACH), _EACH * router)
