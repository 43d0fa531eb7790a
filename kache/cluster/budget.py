"""What every shard uses of the one limit of memory: a page (kache.cluster.pages) that all shards have mapped.

Each shard has a line of eight signed 64-bit numbers, in the machine's byte order, of which it writes its own and reads the
others' (shard/engine/budget.pxi):

    bytes of data | of those, bytes that it cannot give up | growth of its process since it was empty | …

The supervisor clears the line of a shard that has ended. Beside the page every shard has a descriptor that wakes it: who
must give way is told at once, although no command comes to it.
"""

from __future__ import annotations

import os

from kache.cluster import pages

__all__ = ["clear", "create", "wakers"]

_LINE = 64


def create(directory: str, shards: int) -> int:
    """A page, all zero. Raises OSError."""
    return pages.create(directory, _LINE * shards)


def clear(page: int, shard: int) -> None:
    """A shard that has ended uses nothing. Raises OSError."""
    os.pwrite(page, bytes(_LINE), _LINE * shard)


def wakers(shards: int) -> list[int]:
    """A descriptor for each shard: who writes a number wakes the one that waits to read it. Raises OSError.

    Without eventfd there are none; a shard then gives way when its own timer says.
    """
    if not hasattr(os, "eventfd"):
        return []
    made: list[int] = []
    try:
        for _shard in range(shards):
            made.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made
