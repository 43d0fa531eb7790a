"""CLIENT PAUSE as all routers of a cluster know it: a page, so that a router that starts in the middle of one joins in.

Every router that is told of a pause or of its end writes what holds from then on; they all write the same.
"""

from __future__ import annotations

import os
import struct

from kache.cluster import pages

__all__ = ["Pauses", "create"]

_FORM = struct.Struct("=qq")


def create(directory: str) -> int:
    """A page that says that nobody waits. Raises OSError."""
    return pages.create(directory, _FORM.size)


class Pauses:
    """What is said in the page of that descriptor, which it takes over."""

    def __init__(self, page: int) -> None:
        self._page = page

    def write(self, writes_only: bool, until_ms: int) -> None:
        """Clients, or those that write, wait until that time in unix ms; 0: nobody waits. Raises OSError."""
        os.pwrite(self._page, _FORM.pack(writes_only, until_ms), 0)

    def read(self) -> tuple[bool, int]:
        """What was written last. Raises OSError."""
        writes_only, until_ms = _FORM.unpack(os.pread(self._page, _FORM.size, 0))
        return bool(writes_only), until_ms
