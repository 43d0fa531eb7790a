"""Loading: what a shard has on disk comes into its memory, in slices of its event loop.

Owns the order: the directory is locked, what no manifest names is swept, the supervisor decides about transactions over
shards, then base and log are read. Clients are answered LOADING meanwhile, and everybody who asks is told how far it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from kache.cluster.messages import Loading, Recorded, Reports, Resolved
from kache.cluster.progress import counted, loading_text, on_terminal
from kache.cluster.transactions import Shares
from kache.config.settings import Config

from ..engine.engine import Store
from ..log import manifest as manifests
from ..log.directory import Lock, sweep, sync
from ..log.files import Files
from ..log.format import LogError
from ..log.manifest import Manifest
from ..log.ownership import Owner, check_files, check_keys
from ..log.recovery import Recovery, shares_of

__all__ = ["Loaded", "Loader"]

log = logging.getLogger("kache.shard")

SLICE_NS: Final = 20_000_000
"""Nanoseconds of one slice: by so much is the answer LOADING late."""
TELL_SECONDS: Final = 0.25
LOG_SECONDS: Final = 1.0


class Loaded(msgspec.Struct):
    """What a shard goes on with: its manifest (None: nothing was there), the sequence of its last effects, the highest
    number that a file of it ever had. The lock is its own until it ends. `unsettled`: transactions of which it has a share,
    and which from here on are over. `written`: the directory has this manifest."""

    manifest: Manifest | None
    sequence: int
    number: int
    lock: Lock
    unsettled: tuple[int, ...] = ()
    written: bool = True


class Loader:
    """Loads one shard, whose files have to be the `owner`'s. `tell` sends the supervisor a message; it answers Reports by a call of `resolved`, and is to be told
    Recorded when the manifest of what was loaded is written."""

    def __init__(
        self,
        files: Files,
        directory: str,
        owner: Owner,
        store: Store,
        config: Config,
        tell: Callable[[Reports | Recorded | Loading], None],
    ) -> None:
        self._files = files
        self._directory = directory
        self._owner = owner
        self._store = store
        self._config = config
        self._tell = tell
        self._resolved: asyncio.Future[Resolved] = asyncio.get_running_loop().create_future()
        self._began = time.monotonic()
        self._told = self._logged = self._began
        # On a terminal the supervisor shows a bar of all shards.
        self._logs = bool(config.logfile) or not on_terminal()
        self.progress = Loading(0, 0, 0, 0.0)
        self.number = 0
        """That of what the supervisor has decided."""

    def resolved(self, message: Resolved) -> None:
        """The supervisor has decided what counts of transactions over shards."""
        if not self._resolved.done():
            self._resolved.set_result(message)

    async def run(self, now: Callable[[], int]) -> Loaded:
        """Everything that is there; LogError, OSError say why it cannot be loaded. `now` gives unix ms."""
        manifests.read(self._files, self._directory)  # a directory that is gone is not made again
        lock = Lock(self._files, self._directory)
        try:
            found, shares = await self._look()
        except LogError as error:
            error.lasts = True
            raise
        self._tell(Reports(shares, found.resolved, found.next_number() - 1))
        decision = await self._resolved
        self.number = decision.number if decision.final else found.resolved
        if found.stopped_ms:
            log.warning("%s", manifests.missing_since(found))
        recovery = Recovery(
            self._files,
            self._directory,
            self._store,
            found,
            strict=not self._config.aof_load_truncated,
            skip=decision.skip,
            cut_at=decision.cut_at,
        )
        try:
            await self._read(recovery)
        finally:
            recovery.close()
        recovery.finish(now())
        if recovery.cut is not None:
            log.warning("%s; they are left out", recovery.cut)
        strange = check_keys(recovery, self._owner.slots)
        if strange:
            log.warning("%s; `kache dump` prints them", strange)
        after = recovery.manifest_after()
        took = time.monotonic() - self._began
        if found.names():
            log.info("loaded %s in %.2f s, up to sequence %d", counted(recovery.keys, "key"), took, recovery.last)
        left = tuple(
            share.transaction
            for share in shares.shares
            if not share.settled and share.transaction not in after.skipped and share.sequence <= recovery.last
        )
        after = _decided(after, decision, recovery.last)
        return Loaded(after, recovery.last, found.next_number() - 1, lock, left, after == found)

    async def _look(self) -> tuple[Manifest, Shares]:
        """What is there, before any of it is loaded."""
        found = manifests.read(self._files, self._directory)
        check_files(self._files, self._directory, found, self._owner)
        sweep(self._files, self._directory, found)
        # What is decided is decided for all: nothing of what it goes by may be lost afterwards.
        await asyncio.to_thread(sync, self._files, self._directory, found)
        return found, shares_of(self._files, self._directory, found)

    async def _read(self, recovery: Recovery) -> None:
        while recovery.step(SLICE_NS):
            seconds = time.monotonic() - self._began
            self.progress = Loading(recovery.done, recovery.total, recovery.keys, seconds)
            now = time.monotonic()
            if now - self._told >= TELL_SECONDS:
                self._told = now
                self._tell(self.progress)
            if self._logs and now - self._logged >= LOG_SECONDS:
                self._logged = now
                log.info("loading: %s", loading_text(self.progress))
            await asyncio.sleep(0)


def _decided(manifest: Manifest, decision: Resolved, last: int) -> Manifest:
    """It says what was decided, and that this was about what is there up to the sequence `last`."""
    if not decision.final:
        return msgspec.structs.replace(manifest, decided=min(manifest.decided, last))
    if decision.number or manifest.resolved or manifest.decided:
        return msgspec.structs.replace(manifest, resolved=decision.number, decided=last)
    return manifest
