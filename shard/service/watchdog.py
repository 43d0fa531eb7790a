"""Ends commands of modules that take too long: an interval timer, whose signal raises inside them.

A call costs a few stores: the timer runs on while there are calls, and the first tick that finds none stops it. A function
that has changed data runs to its end, since half of what it does would stay; that is logged. What it executes by its
context is not interrupted; it ends behind that. Whatever else is executed in the thread is never touched: the frame that a
signal has interrupted says whose it is.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any, Final

from ..engine.engine import Executor

__all__ = ["TooLong", "Watchdog"]

log = logging.getLogger("kache.shard")

TICKS: Final = 4
"""Looks at a running function within its time: it ends at most a fourth part of it late."""
NEVER: Final = 1 << 30


class TooLong(BaseException):
    """Raised inside a function whose time is over. No ``except Exception`` of its keeps it going."""


class Watchdog:
    """The time of the commands of one shard. Without `start` nothing is ended, as in tests of a shard alone."""

    def __init__(self, shard: Executor) -> None:
        self._store = shard.store
        self._started = self._armed = False
        self._seconds = 0.1
        self._before: Any = signal.SIG_DFL
        self._dirty = 0
        self._name = ""
        self.left = 0
        """Ticks that the running function still has; 0: none is running."""
        self.due = False
        """Its time is over, and it could not be ended where it was."""

    def start(self) -> None:
        """Once, in the main thread: signals arrive there."""
        self._before = signal.signal(signal.SIGALRM, self._on_tick)
        self._started = threading.current_thread() is threading.main_thread()

    def stop(self) -> None:
        """No function is running, nor will be."""
        self._disarm()
        if self._started:
            self._started = False
            signal.signal(signal.SIGALRM, self._before)

    def configure(self, milliseconds: int) -> None:
        """How long a function may take; 0: as long as it likes."""
        self._seconds = milliseconds / 1000
        self._disarm()

    def begin(self, name: str) -> None:
        """A function begins; it ends by ``left = 0``."""
        self._name = name
        self._dirty = self._store.dirty
        self.due = False
        # The first tick may come at once.
        self.left = TICKS + 1
        if not self._armed and self._started and self._seconds:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, self._seconds / TICKS, self._seconds / TICKS)

    def end_now(self) -> None:
        """It is where it can be ended, and its time is over."""
        if not self._goes_on():
            raise TooLong

    def _disarm(self) -> None:
        if self._armed:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _goes_on(self) -> bool:
        """Whether it has changed something, and so comes to its end."""
        if self._store.dirty == self._dirty:
            return False
        self.left, self.due = NEVER, False
        log.warning("%s takes longer than module-time-limit-ms; it has changed data, and so goes on", self._name)
        return True

    def _on_tick(self, _number: int, frame: FrameType | None) -> None:
        if self.left == 0:
            self._disarm()
            return
        self.left -= 1
        if self.left or self._goes_on():
            return
        # Again with every tick, for it may catch what is raised.
        self.left, self.due = 1, True
        if _is_of_a_module(frame):
            raise TooLong


def _is_of_a_module(frame: FrameType | None) -> bool:
    """Whether it was a function of a module that was interrupted, or a library that it uses; not what it executes here."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("kache_module_"):
            return True
        if name.partition(".")[0] == "kache":
            return False
        frame = frame.f_back
    return False
