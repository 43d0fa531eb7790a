"""How a cluster ends, in order: the routers first, so that what is in flight is answered, then the shards.

    serving ─► begin ─► routers drain ─► shards drain, and save ─► ended        begin again: all are killed at once

No I/O but kill and close; the supervisor's turns carry it on.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Literal

from kache.cluster import messages
from kache.cluster.children import Child
from kache.cluster.durability import DataDirectory
from kache.cluster.spread import LOG_SECONDS, Spread

__all__ = ["GRACE_SECONDS", "Ending"]

GRACE_SECONDS = 1.0
"""How long after its time to drain a child is killed."""

_log = logging.getLogger("kache")


class Ending:
    """The phase of a cluster, and how its children are drained: by the configuration of `spread`, or as `ask` has said."""

    def __init__(
        self,
        spread: Spread,
        data: DataDirectory,
        children: Sequence[Child],
        send: Callable[[Child, messages.Down], None],
    ) -> None:
        self.phase: Literal["serving", "routers", "shards", "ended"] = "serving"
        self._spread = spread
        self._data = data
        self._children = children
        self._send = send
        self._save: bool | None = None
        self._seconds: float | None = None
        self._held: list[int] = []

    def ask(self, save: bool | None, now: bool) -> None:
        """Before `begin`: whether the shards save (None: by the save points); `now` waits for nothing in flight."""
        self._save = save
        self._seconds = 0.0 if now else None

    def hold(self, connection: int) -> None:
        """Keep this client's connection open until the end: whoever asked for it takes that for the sign that all is done."""
        self._held.append(connection)

    def let_go(self) -> None:
        """Everything is on disk, and nobody has the files open any more."""
        for connection in self._held:
            os.close(connection)
        self._held.clear()

    def begin(self, cause: str) -> None:
        """Begin to end; a second time ends at once."""
        if self.phase != "serving":
            _log.warning("%s again: stopping at once", cause)
            for child in self._children:
                if child.pid:
                    os.kill(child.pid, signal.SIGKILL)
            return
        _log.info("stopping after %s", cause)
        self.phase = "routers"
        for child in self._children:
            child.restart_at = None
            if child.role != "shard":
                self.drain(child)

    def drain(self, child: Child) -> None:
        """Have one answer what is in flight and end; it is killed when it takes too long."""
        if not child.pid:
            return
        if not child.ready_at:
            os.kill(child.pid, signal.SIGKILL)  # it serves nobody yet
            return
        seconds = float(self._spread.config.drain_seconds) if self._seconds is None else self._seconds
        save = self._save if self.phase != "serving" else None
        self._send(child, messages.Drain(seconds, save))
        # What a shard holds is saved in whatever time it takes, unless it hangs: a second request to stop ends that.
        kept = child.role == "shard" and self._data.is_open and save is not False and not child.unresponsive
        child.kill_at = time.monotonic() + (LOG_SECONDS if kept else seconds) + GRACE_SECONDS

    def go_on(self) -> None:
        """From draining the routers to draining the shards to the end, as each is done."""
        alive = {child.role for child in self._children if child.pid}
        if self.phase == "routers" and "router" not in alive:
            self.phase = "shards"
            for child in self._children:
                if child.role == "shard":
                    self.drain(child)
        if self.phase == "shards" and not alive:
            self.phase = "ended"
            _log.info("stopped")
