"""How many clients each router has: a small file in the run directory that all routers have mapped.

A router writes its own count and reads the others', so that the next connection goes to whoever has the fewest and
`maxclients` holds for all together, without a message for every connection. The supervisor clears the count of a router
that has ended; it maps nothing, since a mapping would keep a descriptor that a forked child does not know of.
"""

from __future__ import annotations

import mmap
import os

__all__ = ["clear", "create", "shared"]

_EACH = 8
_NAME = "clients"


def create(directory: str, routers: int) -> None:
    """A new file with one signed 64-bit number per router, in the machine's byte order, all zero. Raises OSError."""
    path = os.path.join(directory, _NAME)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(bytes(_EACH * routers))


def shared(directory: str) -> mmap.mmap:
    """The numbers, to be read and written in place. Raises OSError."""
    with open(os.path.join(directory, _NAME), "r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def clear(directory: str, router: int) -> None:
    """A router that has ended has no clients. Raises OSError."""
    with open(os.path.join(directory, _NAME), "r+b") as file:
        file.seek(_EACH * router)
        file.write(bytes(_EACH))
