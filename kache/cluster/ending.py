"""How a cluster ends, in order: the routers first, so that what is in flight is answered, then the shards, once all is on disk.

    serving ─► begin ─► routers drain ─► shards save ─► shards drain ─► ended        begin again: all are killed at once
       ▲                                      │
       └── one cannot, and nobody has said ◄──┘
           that it ends all the same

What cannot be saved is nowhere else: so the cluster goes on then, and its routers are started again. No I/O but kill, close and
a last word to a client; the supervisor's turns carry it on.
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
from kache.cluster.last_saves import LastSaves
from kache.cluster.spread import LOG_SECONDS, Spread

__all__ = ["GRACE_SECONDS", "Ending"]

GRACE_SECONDS = 1.0
"""How long after its time to drain a child is killed."""

_log = logging.getLogger("kache")


class Ending:
    """The phase of a cluster, and how its children are drained: by the configuration of `spread`, or as `ask` has said.

    `on_saving` is called before the shards save for the last time, `on_end` when nothing holds the end up any more.
    """

    def __init__(
        self,
        spread: Spread,
        data: DataDirectory,
        children: Sequence[Child],
        send: Callable[[Child, messages.Down], None],
        saves: LastSaves,
        on_saving: Callable[[], object],
        on_end: Callable[[], None],
    ) -> None:
        self.phase: Literal["serving", "routers", "saving", "shards", "ended"] = "serving"
        self.unsaved = ""
        """What was to be kept and is not on disk, if the cluster ends all the same."""
        self._spread = spread
        self._data = data
        self._children = children
        self._send = send
        self._saves = saves
        self._on_saving = on_saving
        self._on_end = on_end
        self._cause = ""
        self._save: bool | None = None
        self._seconds: float | None = None
        self._force = False
        self._held: list[tuple[int, bytes]] = []
        self._waiters: list[Callable[[str], None]] = []

    def ask(self, save: bool | None, now: bool, force: bool) -> None:
        """Before `begin`: whether the shards save (None: by the save points); `now` waits for nothing in flight; `force`: it ends
        also if not everything can be saved."""
        self._save = save
        self._seconds = 0.0 if now else None
        self._force = force or save is False

    def force(self) -> None:
        """It ends also if not everything can be saved, whoever has asked for it."""
        self._force = True

    def hold(self, connection: int, refusal: bytes) -> None:
        """Keep this client's connection open until the end: whoever asked for it takes that for the sign that all is done.
        `refusal`: the last word that it gets if the cluster goes on."""
        self._held.append((connection, refusal))

    def let_go(self) -> None:
        """Nobody is held any more: everything is on disk, and nobody has the files open; or the cluster goes on."""
        for connection, _ in self._held:
            os.close(connection)
        self._held.clear()

    def tell(self, waiter: Callable[[str], None]) -> None:
        """Have `waiter` told when all is on disk, "", or what is not: then the cluster goes on, or ends all the same if somebody
        has said so."""
        if self.phase in ("shards", "ended"):
            waiter(self.unsaved)
        else:
            self._waiters.append(waiter)

    def keeps(self, save: bool | None) -> bool:
        """Whether something of what the shards hold is to outlive the cluster."""
        config = self._spread.config
        return self._data.is_open and bool(save or config.appendonly or (config.save and save is None))

    def begin(self, cause: str) -> None:
        """Begin to end; a second time ends at once."""
        if self.phase != "serving":
            _log.warning("%s again: stopping at once", cause)
            self._force = True
            for child in self._children:
                if child.pid:
                    os.kill(child.pid, signal.SIGKILL)
            if self.phase == "routers" and self.keeps(self._save):
                self.unsaved = "there was no time to"
            return
        _log.info("stopping after %s", cause)
        self.phase = "routers"
        self._cause = cause
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
        # Restarted alone, it saves in its own time; at the end of all it has done so before it is told to go.
        self._send(child, messages.Drain(seconds, None if self.phase == "serving" else False))
        # What a shard holds is saved in whatever time it takes, unless it hangs.
        kept = child.role == "shard" and self._data.is_open and self.phase == "serving" and not child.unresponsive
        child.kill_at = time.monotonic() + (LOG_SECONDS if kept else seconds) + GRACE_SECONDS

    def go_on(self) -> None:
        """From draining the routers to draining the shards to the end, as each is done."""
        alive = {child.role for child in self._children if child.pid}
        if self.phase == "routers" and "router" not in alive:
            self._have_saved()
        elif self.phase == "saving":
            self._saves.look()
        if self.phase == "shards" and not alive:
            self.phase = "ended"
            if self.unsaved:
                _log.error("stopped without having saved everything: %s", self.unsaved)
            else:
                _log.info("stopped")

    def _have_saved(self) -> None:
        """Nobody changes anything any more: what is saved now is all there is."""
        self.phase = "saving"
        self._on_saving()
        if self.keeps(self._save):
            self._saves.ask(self._save, self._on_saved)
        else:
            self._on_saved("")

    def _on_saved(self, error: str) -> None:
        if error and not self._force:
            self._serve_again(error)
            return
        self.unsaved = self.unsaved or error
        self.phase = "shards"
        self._on_end()
        self._tell_waiters(self.unsaved)
        for child in self._children:
            if child.role == "shard":
                self.drain(child)

    def _serve_again(self, error: str) -> None:
        """What is held is nowhere else: the cluster goes on, and whoever wanted its end is told why."""
        _log.error(
            "the cluster goes on after %s, since its data cannot be saved (%s); `kache cluster stop --force` ends it without",
            self._cause,
            error,
        )
        self.phase = "serving"  # so that whoever looks after the children starts those that have left
        self.ask(None, False, False)
        for connection, refusal in self._held:
            try:
                os.write(connection, refusal)  # it does not block: its router has made it so
            except OSError:
                pass  # it has left, or takes nothing: the log has the reason
        self.let_go()
        self._tell_waiters(error)

    def _tell_waiters(self, error: str) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter(error)
