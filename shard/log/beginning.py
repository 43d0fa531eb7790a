"""How the log of a new life begins, also where the disk is full: what is there is served, and writes wait for room.

Nothing that was kept is at stake: it was loaded, and the files of before stay as they are. So a shard without room for a new
log serves what it has, refuses writes as one does whose log meets a full disk (MISCONF), and tries again until there is room.
What changes meanwhile although nobody asked for it (a hash that goes with its last field) is recorded, and is the first frame.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from . import writer as writers
from .troubles import FULL_ERRORS

if TYPE_CHECKING:
    from ..engine.engine import Host

__all__ = ["Beginning"]

log = logging.getLogger("kache.shard")

RETRY_SECONDS: Final = 0.25
OK, FULL = writers.TROUBLES.index("ok"), writers.TROUBLES.index("full")


class Beginning:
    """Of one shard, whose files are in `directory`. `begin` does what has to be done, or raises OSError and has done nothing."""

    def __init__(self, host: Host, directory: str, begin: Callable[[], Awaitable[None]]) -> None:
        self._host = host
        self._directory = directory
        self._begin = begin
        self._task: asyncio.Task[None] | None = None
        self.refusal = b""
        """What writes are answered as long as the log has not begun; empty while they are not refused."""

    @property
    def waits(self) -> bool:
        """Whether there is no room yet."""
        return self._task is not None

    async def run(self, *, refuses: bool) -> None:
        """Begins now or, with a full disk, when there is room; OSError for whatever else is wrong. `refuses`: a log is what
        begins, so that writes are refused until then."""
        try:
            await self._begin()
        except OSError as error:
            if error.errno not in FULL_ERRORS:
                raise
            if refuses:
                self._host.record_ahead()
                self._refuse(error)
            log.error("nothing can be written to %s, and it is tried again: %s", self._directory, error.strerror)
            self._task = asyncio.get_running_loop().create_task(self._retry())

    def _refuse(self, error: OSError) -> None:
        reason = os.strerror(error.errno or 0)
        self.refusal = (
            f"MISCONF Errors writing to the AOF file: {reason} ({self._directory}, no log can begin)".encode()
        )
        self._host.set_trouble(FULL, self.refusal, False)

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._begin()
                break
            except OSError as error:
                if self.refusal:
                    self._refuse(error)
        self._task = None
        log.warning("%s is written again", self._directory)
        if self.refusal:
            self.refusal = b""
            self._host.set_trouble(OK, b"", False)

    async def give_up(self) -> bool:
        """It is not waited for room any more; writes are not refused, and nothing is recorded. Whether it was waited for."""
        task, self._task = self._task, None
        if task is None:
            return False
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if self.refusal:
            self.refusal = b""
            self._host.end_log()
            self._host.set_trouble(OK, b"", False)
        return True
