"""Where shards show the routers that they are at work: a small file in the run directory, mapped by all of them.

Each shard has a line of 64-bit numbers, in the machine's byte order (kache/wire/board.pyx reads and writes them):

    beat | commands begun for router 0 | … for router 1 | …

It is looked at only when a deadline passes, so it costs the data path nothing but a count.
"""

from __future__ import annotations

import mmap
import os

__all__ = ["create", "shared"]

_EACH = 8
_NAME = "board"


def create(directory: str, shards: int, routers: int) -> None:
    """A new file, all zero. Raises OSError."""
    path = os.path.join(directory, _NAME)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(bytes(_EACH * shards * (1 + routers)))


def shared(directory: str) -> mmap.mmap:
    """The numbers, to be read and written in place. Raises OSError."""
    with open(os.path.join(directory, _NAME), "r+b") as file:
        return mmap.mmap(file.fileno(), 0)
