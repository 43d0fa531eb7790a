"""The scripts that run in the shards, as routers see them: a page, since a shard that runs one answers nothing.

For each shard three 64-bit numbers, in the machine's byte order:

    since     ms (CLOCK_MONOTONIC) when the script that runs now was seen first; 0: none runs, or not for long
    wrote     1: it has executed a command that writes, and cannot be ended
    kill      1: it is to end; written by routers, set back by the shard when it shows the next one
"""

from __future__ import annotations

import time
from typing import Final

from kache.cluster import pages

__all__ = ["Running", "create"]

_EACH: Final = 24
_SINCE, _WROTE, _KILL = range(3)


def create(directory: str, shards: int) -> int:
    """A page that says that nothing runs. Raises OSError."""
    return pages.create(directory, _EACH * shards)


class Running:
    """The page, mapped by its descriptor, which it takes over; None: of a shard that is alone, in a test."""

    def __init__(self, fd: int | None = None, shards: int = 1) -> None:
        memory = bytearray(_EACH * shards) if fd is None else pages.mapped(fd)
        self._numbers = memoryview(memory).cast("Q")
        self.shards = len(self._numbers) // 3

    # Of a shard ---------------------------------------------------------------------------------------
    def show(self, shard: int) -> None:
        """A script runs from now on."""
        self._numbers[3 * shard + _KILL] = self._numbers[3 * shard + _WROTE] = 0
        self._numbers[3 * shard + _SINCE] = _now_ms()

    def show_written(self, shard: int) -> None:
        """It has written."""
        self._numbers[3 * shard + _WROTE] = 1

    def clear(self, shard: int) -> None:
        """None runs any more."""
        self._numbers[3 * shard + _SINCE] = 0

    def is_killed(self, shard: int) -> bool:
        """Whether a router wants it to end."""
        return self._numbers[3 * shard + _KILL] != 0

    # Of routers ---------------------------------------------------------------------------------------
    def runs_for(self, shard: int) -> int:
        """For how many ms a script has been running there; -1: none is."""
        since = self._numbers[3 * shard + _SINCE]
        return max(_now_ms() - since, 0) if since else -1

    def has_written(self, shard: int) -> bool:
        """Whether it has written."""
        return self._numbers[3 * shard + _WROTE] != 0

    def kill(self, shard: int) -> None:
        """Asks for its end."""
        self._numbers[3 * shard + _KILL] = 1


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
