"""How many clients each router has: a small file in the run directory that all routers have mapped.

A router writes its own count and reads the others', so that the next connection goes to whoever has the fewest and
`maxclients` holds for all together, without a message for every connection. The supervisor clears the count of a router
that has ended.
"""

from __future__ import annotations

import mmap
import os
import struct

__all__ = ["Counts"]

_EACH = 8
_NAME = "clients"


class Counts:
    """One signed 64-bit number per router, in the machine's byte order, shared by all who map the file."""

    def __init__(self, shared: mmap.mmap | bytearray) -> None:
        self.shared = shared
        """For the router's own use: it reads and writes the numbers in place."""

    @staticmethod
    def create(directory: str, routers: int) -> Counts:
        """All zero, in a new file. Raises OSError."""
        path = os.path.join(directory, _NAME)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(bytes(_EACH * routers))
        return Counts.of(directory)

    @staticmethod
    def of(directory: str) -> Counts:
        """Those that the supervisor created there. Raises OSError."""
        with open(os.path.join(directory, _NAME), "r+b") as file:
            return Counts(mmap.mmap(file.fileno(), 0))

    @staticmethod
    def alone() -> Counts:
        """Of a router without others."""
        return Counts(bytearray(_EACH))

    def clear(self, router: int) -> None:
        """A router that has ended has no clients."""
        struct.pack_into("q", self.shared, _EACH * router, 0)
