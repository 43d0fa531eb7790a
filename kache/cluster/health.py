"""Signs of life: every child is asked for one now and then, and counts as unresponsive when none comes for too long.

The question goes over the control channel and is answered by the child's event loop, beside its data path: a process
that is stopped, or caught in a loop, does not answer. Times are of time.monotonic(); no I/O of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from kache.cluster.children import Child
from kache.cluster.messages import Down, Ping

__all__ = ["Health"]

LOOKS = 10
"""How often it is looked within the time after which a child counts as unresponsive, so that it is seen soon after."""
LONGEST_REST = 1.0
"""Seconds between two looks at most, and so of what a sign of life costs an idle cluster."""

_log = logging.getLogger("kache")


class Health:
    """Looks at all `children` when `due`. `send` sends one of them a message; `give_up` gets each that is found
    unresponsive."""

    def __init__(
        self, children: Sequence[Child], send: Callable[[Child, Down], None], give_up: Callable[[Child], None]
    ) -> None:
        self._children = children
        self._send = send
        self._give_up = give_up
        self._looked: float | None = None
        self._question = 0
        self.due = 0.0
        """When to look again."""

    def look(self, now: float, seconds: float) -> None:
        """Ask everybody who is up; who has not answered for `seconds` is unresponsive."""
        rest = min(seconds / LOOKS, LONGEST_REST)
        # When nobody looked for long, the supervisor was stopped itself: so were its children, perhaps.
        passed = 0.0 if self._looked is None else min(now - self._looked, 2 * rest)
        self._looked, self.due = now, now + rest
        for child in self._children:
            if child.state != "up" or child.conversation is None:
                continue
            if not child.asked:
                child.asked = True
                child.silent = 0.0
                self._question += 1
                self._send(child, Ping(self._question))
                continue
            child.silent += passed
            if child.silent >= seconds and not child.unresponsive:
                child.unresponsive = True
                _log.warning("%s (pid %d) has given no sign of life for %g s", child.name, child.pid, child.silent)
                self._give_up(child)

    def answered(self, child: Child) -> bool:
        """A sign of life has come; whether the child counted as unresponsive until now."""
        was, child.unresponsive = child.unresponsive, False
        child.asked = False
        child.silent = 0.0
        if was:
            _log.warning("%s (pid %d) gives signs of life again", child.name, child.pid)
        return was
