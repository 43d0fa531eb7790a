"""The cleanup thread of a shard: takes apart what is too large to be freed at once.

Owns the values that nobody can reach any more: large collections, flushed databases. Each has
``release_some(count) -> bool`` (True while something is left). They are taken apart in slices of well under a
millisecond, with a sleep after each, so that the event loop gets the GIL whenever it wants it. `hand_over` may be
called from the event loop; everything else happens on the thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["Cleanup", "Releasable"]

log = logging.getLogger("kache.cleanup")

SLICE_SECONDS: Final = 0.0005
"""How long the thread works before it sleeps."""
PAUSE_SECONDS: Final = 0.0005
STEP: Final = 500
"""Elements asked for at a time: Python objects are freed at about ten a microsecond, and it may be less."""
TRIM_SECONDS: Final = 1.0
"""Between two times that freed memory is given back to the system; it is, however little was freed."""


class Releasable(Protocol):
    """Something large with elements that can be freed a few at a time."""

    def __len__(self) -> int: ...

    def release_some(self, count: int) -> bool:
        """Frees about `count` elements; True while some are left."""


class Cleanup:
    """One thread, started by `start`, that frees what is handed over; it calls `begin` first, and `trim` now and then."""

    def __init__(self, trim: Callable[[], None], begin: Callable[[], None]) -> None:
        self._waiting: deque[Releasable] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._trim = trim
        self._begin = begin
        self._untrimmed = False
        self._trimmed_at = 0.0
        self._thread = threading.Thread(target=self._run, name="cleanup", daemon=True)

    def start(self) -> None:
        """Starts the thread; after a fork, never before."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, leaving what is not freed yet."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def hand_over(self, value: Releasable) -> None:
        """Takes a value that nothing else refers to."""
        self._waiting.append(value)
        self._wake.set()

    @property
    def pending(self) -> int:
        """Values not yet taken apart."""
        return len(self._waiting)

    def _run(self) -> None:
        self._begin()
        while not self._stopping:
            if not self._waiting:
                self._rest()
                continue
            try:
                self._slice()
            except Exception:
                log.exception("a value could not be taken apart")
                self._waiting.popleft()
            time.sleep(PAUSE_SECONDS)

    def _rest(self) -> None:
        """Until something is handed over, or it is time to give back what was freed."""
        left = self._trimmed_at + TRIM_SECONDS - time.monotonic()
        if self._untrimmed and left <= 0:
            self._untrimmed = False
            self._trimmed_at = time.monotonic()
            self._trim()
        self._wake.clear()
        # Whatever was set before the clear is seen here, whatever comes after it wakes.
        if not self._waiting and not self._stopping:
            self._wake.wait(max(left, 0.0) if self._untrimmed else None)

    def _slice(self) -> None:
        until = time.monotonic() + SLICE_SECONDS
        self._untrimmed = True
        value = self._waiting[0]
        while time.monotonic() < until:
            if not value.release_some(STEP):
                self._waiting.popleft()
                return
