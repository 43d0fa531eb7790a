"""What a test or a measurement starts ends with it, however it ends.

    server = tied.started([binary, "--port", "0"])      # a Popen; what ends it by itself is its caller's `finally`

Two ways lead to the end of a program that has started servers. A signal that asks it to end (SIGTERM, as `timeout` and CI send
it, SIGHUP of a terminal that is closed) is raised in it like Ctrl-C, so that each `with` and `finally` on the way stops its
servers and removes their files. A kill asks nobody: then the kernel ends what was started here (Linux), and files stay. A
cluster of `cluster.Cluster` has `--exit-with-fd` for that, which ends it in order.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

__all__ = ["Ended", "orderly", "started"]

PR_SET_PDEATHSIG = 1


class Ended(KeyboardInterrupt):
    """A signal asks this program to end."""


def orderly() -> None:
    """From here on SIGTERM and SIGHUP end this program as Ctrl-C does; unless it has handlers, or ignores them."""
    if threading.current_thread() is not threading.main_thread():
        return
    owner = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL if os.getpid() != owner else signal.SIG_IGN)
        if os.getpid() != owner:  # a fork, which owns nothing
            os.kill(os.getpid(), number)
            return
        raise Ended(f"ended by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _say


def _say(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """One line for a program that was asked to end: where it was does not matter."""
    if issubclass(kind, Ended):
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def started(command: Sequence[str], *, by: signal.Signals = signal.SIGKILL, **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen` of a process that ends with this one: by that signal if there is no time for another. Call it in the
    main thread: to the kernel the parent is the thread."""
    orderly()
    return subprocess.Popen(command, preexec_fn=_tie(by), **options)  # noqa: PLW1509  # it calls one function of C


def _tie(by: signal.Signals) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, int(by), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
