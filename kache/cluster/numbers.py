"""Numbers that rise over all routers of a cluster: a page that each of them counts up.

The entries of the slow log have them. Only what is slow takes one, so a lock of the page is cheap enough.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

from kache.cluster import pages

__all__ = ["create", "shared"]

_EACH = 8


def create(directory: str) -> int:
    """A page whose next number is 0. Raises OSError."""
    return pages.create(directory, _EACH)


def shared(page: int) -> Iterator[int]:
    """The next numbers of all who count in that page."""
    while True:
        fcntl.lockf(page, fcntl.LOCK_EX)
        try:
            number = int.from_bytes(os.pread(page, _EACH, 0), "little")
            os.pwrite(page, (number + 1).to_bytes(_EACH, "little"), 0)
        finally:
            fcntl.lockf(page, fcntl.LOCK_UN)
        yield number
