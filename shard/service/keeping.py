"""What a shard keeps on disk over its life: loaded at the start, logged and dumped while it serves, closed at the end.

Between the process (main), which is told by the supervisor, and what does the work: `loading` and `log.persistence`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kache.cluster.messages import DataPlace, Dumped, Kept, Loading, Recorded, Reports, Resolved
from kache.cluster.progress import dumping_text
from kache.config.settings import Config

from ..log.directory import Lock
from ..log.files import Files
from ..log.format import LogError
from ..log.ownership import Owner
from ..log.persistence import DumpError, Identity, Persistence
from ..log.troubles import unusable
from .loading import Loaded, Loader

if TYPE_CHECKING:
    from ..engine.engine import Host

__all__ = ["Keeper"]

log = logging.getLogger("kache.shard")


class Keeper:
    """Of one shard; it keeps nothing before `start`. `tell` sends the supervisor a message, `now` gives unix ms."""

    def __init__(
        self,
        host: Host,
        index: int,
        shards: int,
        hash_seed: bytes,
        now: Callable[[], int],
        tell: Callable[[Reports | Recorded | Loading | Dumped], None],
    ) -> None:
        self._host = host
        self._shard = (index, shards, hash_seed)
        self._now = now
        self._tell = tell
        self._files = Files()
        self._loader: Loader | None = None
        self._lock: Lock | None = None
        self._turn = asyncio.Lock()
        """Settings are taken in one after the other, and a dump waits for what came before it: the directory may be new."""
        self.persistence: Persistence | None = None
        self._refusal = ""
        self._cancelled = False
        self._saved_at: int | None = None
        """How many changes there had been when the dump began that counts now."""
        self._ending = asyncio.Lock()
        """Whoever wants everything to be on disk waits for who wanted that before."""

    @property
    def logging(self) -> bool:
        """Whether every change is logged."""
        return self.persistence is not None and self.persistence.logging

    # Beginning and ending -----------------------------------------------------------------------------------
    async def start(self, place: DataPlace, config: Callable[[], Config]) -> None:
        """Loads what is there, and goes on from it as `config` says then; LogError says why that cannot be."""
        try:
            index, shards, _ = self._shard
            owner = Owner(place.cluster, index, shards, place.slots)
            self._loader = Loader(self._files, place.directory, owner, self._host.shard.store, config(), self._tell)
            loaded = await self._loader.run(self._now)
            in_force = config()
            await self._go_on(place, in_force, loaded)
            # Whoever changes a setting meanwhile is told at once that it is taken in.
            while (newest := config()) is not in_force:
                error = await self.apply(in_force, newest, place)
                if error:
                    log.error("settings that changed while this shard loaded: %s", error)
                in_force = newest
        except OSError as error:
            raise LogError(f"{unusable(self._files, place.directory, error)}.", place.directory) from None

    async def _go_on(self, place: DataPlace, config: Config, loaded: Loaded) -> None:
        index, shards, seed = self._shard
        self._lock = loaded.lock
        identity = Identity(place.cluster, index, shards, seed, self._files.boot())
        persistence = Persistence(self._host, self._files, place.directory, identity, self._now, config, place.needed)
        number = 0 if self._loader is None else self._loader.number
        persistence.on_begun = lambda: self._tell(Recorded(number))
        await persistence.begin(
            loaded.manifest, loaded.sequence, loaded.number, loaded.unsettled, is_written=loaded.written
        )
        self.persistence = persistence

    def resolved(self, message: Resolved) -> None:
        """The supervisor has decided what counts of transactions over shards."""
        if self._loader is not None:
            self._loader.resolved(message)

    async def apply(self, before: Config, config: Config, place: DataPlace | None) -> str:
        """Goes by new settings, in a directory that may be new; "" or why it cannot, as before then."""
        try:
            async with self._turn:
                if self.persistence is None and place is not None:
                    lock = Lock(self._files, place.directory)
                    await self._go_on(place, before, Loaded(None, 0, 0, lock))
                if self.persistence is not None:
                    await self.persistence.apply(config)
        except (OSError, DumpError, LogError) as error:
            return str(error)
        return ""

    async def close(self, save: bool | None, config: Config) -> None:
        """The shard leaves. `save`: whether what it holds is saved; None: if save points are set and nothing is logged."""
        if self.persistence is not None:
            wanted = bool(config.save) and not self.logging if save is None else save
            await self.persistence.close(wanted and self._saved_at != self._host.shard.store.dirty)
        if self._lock is not None:
            self._lock.release()

    # Dumps ----------------------------------------------------------------------------------------------------
    async def dump(self, number: int, urgent: bool) -> None:
        """A new base, as the supervisor has asked for with `number`, and the answer."""
        error = ""
        async with self._turn:
            pass
        try:
            if self.persistence is None:
                raise DumpError("nothing is kept yet")
            changes = self._host.shard.store.dirty
            before = self.persistence.last_dump_ok, self.persistence.last_error
            self._cancelled = False
            await self.persistence.dump(urgent=urgent)
            self._saved_at = changes
        except DumpError as failed:
            error = str(failed)
            if self._cancelled and self.persistence is not None:
                # That somebody did not want it says nothing about the disk.
                self.persistence.last_dump_ok, self.persistence.last_error = before
        except Exception as wrong:
            # Whatever it is, everybody's next save waits for the answer.
            log.exception("internal error in a dump")
            error = f"internal error: {wrong!r:.200}"
        self._tell(Dumped(number, error))

    async def last_save(self, number: int, save: bool | None, config: Config) -> None:
        """Everything that should outlive the cluster is on disk, and the answer to `number` says so, or why it is not. `save`: as
        for `close`. The shard goes on: the cluster may, too."""
        error = ""
        try:
            async with self._turn:
                pass
            async with self._ending:
                changes = self._host.shard.store.dirty
                wanted = bool(config.save) and not self.logging if save is None else save
                if self.persistence is not None:
                    await self.persistence.settle(wanted and self._saved_at != changes)
                    if wanted:
                        self._saved_at = changes
                elif wanted:
                    raise DumpError("nothing is kept yet")
        except DumpError as failed:
            error = str(failed)
        except Exception as wrong:
            # Whatever it is, the whole cluster waits for the answer.
            log.exception("internal error in the last save")
            error = f"internal error: {wrong!r:.200}"
        if error:
            self._saved_at = (
                None  # also if nothing changes: what was saved may be gone, and the next time is another try
            )
        self._tell(Dumped(number, error))

    def cancel(self) -> None:
        """Gives the dump up that is under way."""
        if self.persistence is not None:
            self._cancelled = True
            self.persistence.cancel()

    def refused(self, reason: str) -> None:
        """Somebody wanted this shard's data kept, and there is no place for it."""
        self._refusal = reason

    # Figures --------------------------------------------------------------------------------------------------
    def figures(self) -> dict[str, Any]:
        """What INFO and STATS say of it; nothing while nothing is kept."""
        found: dict[str, Any] = {}
        if self._loader is not None and self.persistence is None:
            progress = self._loader.progress
            found = {"loading": 1, "loaded_bytes": progress.done, "total_bytes": progress.total}
            found |= {"loaded_keys": progress.keys, "loading_seconds": progress.seconds}
        if self._refusal:
            found |= {"last_dump_ok": 0, "last_error": self._refusal}
        return found if self.persistence is None else {"loading": 0, **self.persistence.figures()}

    def kept(self) -> Kept | None:
        """The same for the supervisor."""
        if self.persistence is None:
            return None
        figures: dict[str, Any] = self.persistence.figures()
        dump = (figures["dump_progress"], figures["dump_keys"], figures["dump_ms"] / 1000)
        return Kept(
            figures["changes_since_save"],
            figures["log_bytes"],
            figures["base_bytes"],
            figures["logs"],
            figures["state"],
            figures["error"],
            dumping_text(*dump) if figures["dump_in_progress"] else "",
        )


def hear(task: asyncio.Task[Any]) -> None:
    """For what nobody waits for: an error of it is logged."""
    if not task.cancelled() and task.exception() is not None:
        log.error("internal error: %r", task.exception())
