"""One file written beside the supervisor, in a thread: a disk may hang for minutes, and the supervisor has more to do.

    do ─► thread: the work ─► wake ─► look, in the supervisor's turn ─► what follows from it

The thread lives as long as the work takes, and is in a system call nearly all of that: so the supervisor can fork meanwhile. It
takes no signals, and the end of the process does not wait for it.
"""

from __future__ import annotations

import errno
import logging
import signal
import threading
from collections.abc import Callable

__all__ = ["Writing"]

_log = logging.getLogger("kache")


class Writing:
    """Does one thing after the other. `wake` is called in the thread when it has done one: `look` is to be called then."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        self._then: Callable[[OSError | None], None] = lambda error: None

    def do(self, work: Callable[[], None], then: Callable[[OSError | None], None]) -> None:
        """Have `work` done, and call `then` behind it, with why it failed or None. Nothing else may be under way."""
        if self._thread is not None:
            raise RuntimeError("one thing is under way")
        self._done.clear()
        self._then = then
        self._thread = threading.Thread(target=self._work, args=(work,), daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # The system gives no thread: it is done here, rather late than not at all.
            self._work(work)

    def look(self) -> None:
        """Call what follows from what is done."""
        if self._thread is not None and self._done.is_set():
            self._thread = None
            self._then(self._error)

    def close(self, seconds: float) -> bool:
        """Whether nothing is under way, or is done within this time; what would have followed is not called."""
        return self._thread is None or self._done.wait(seconds)

    def _work(self, work: Callable[[], None]) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._error = None
        try:
            work()
        except OSError as error:
            self._error = error
        except Exception as error:
            _log.exception("internal error with what is written")
            self._error = OSError(errno.EIO, f"internal error: {error!r:.200}")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._done.set()
            self._wake()
