"""Persistence: the log and the base of one shard while it lives.

    begin ─► a new log, named in the manifest before it is used ─► every tick a frame (Host.commit_tick)
    dump  ─► log N begins · N.base is filled by slices · both durable ─► manifest names N alone ─► the old files go
    watch ─► what the writer says: slow, stalled, full, broken ─► Host.set_trouble; broken: a dump into new files

Owns the manifest, the writer and the dump of its shard, and decides what they do. One dump at a time. Everything runs on the
event loop; what waits for the disk (new files, the manifest) runs in one thread beside it, in its order. Promises: the
manifest names only what is durable, files that it does not name any more are removed only after it is, and a failed dump
leaves everything as it was.

A dump without a log has one of its own, which ends with it: the snapshot is as of its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kache.cluster.progress import counted
from kache.cluster.transactions import LOSS_MS

from . import manifest as manifests
from . import writer as writers
from .base import Dump
from .beginning import Beginning
from .files import Files
from .format import BASE, LOG, FileHeader, pack_header
from .manifest import BaseFile, LogFile, Manifest, base_name, log_name
from .manifest import write as write_manifest
from .pace import DumpError, check, every_slice
from .troubles import unusable
from .writer import Writer

if TYPE_CHECKING:
    from kache.config.settings import Config

    from ..engine.engine import Host

__all__ = ["DumpError", "Identity", "Persistence"]

log = logging.getLogger("kache.shard")

POLICIES: Final = {"no": writers.NO, "everysec": writers.EVERYSEC, "always": writers.ALWAYS}
OK, SLOW, STALLED, FULL, BROKEN = range(5)

WATCH_SECONDS: Final = 0.1
QUIET_LOOKS: Final = 10
"""Looks without a frame after which a MARK is written: a second."""
FIRST_RETRY, LAST_RETRY = 1.0, 30.0
"""Seconds between two tries to get away from a broken file."""
GIVEN_UP: Final = "given up"
CLOSE_SECONDS: Final = 30.0
"""For the disk to take the rest in when the shard leaves."""


class Identity(msgspec.Struct, frozen=True):
    """Whose files they are: what every header says. `cluster`, `hash_seed` and `boot` (Files.boot) have 16 bytes."""

    cluster: bytes
    shard: int
    shards: int
    hash_seed: bytes
    boot: bytes = bytes(16)


class _File(msgspec.Struct):
    """One that was just created."""

    number: int
    path: str
    fd: int
    salt: bytes
    first: int


async def _to_its_end(work: Coroutine[Any, Any, None]) -> bool:
    """Does what must not be left half done, or raises its error. Whether somebody wanted to cancel it meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    return cancelled


class Persistence:
    """What is kept of one shard. `directory` is its own; `now` gives unix ms. `needed` are files of others without which what is
    kept here would not be found again."""

    def __init__(
        self,
        host: Host,
        files: Files,
        directory: str,
        identity: Identity,
        now: Callable[[], int],
        config: Config,
        needed: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.files = files
        self.directory = directory
        self.identity = identity
        self.now = now
        self.config = config
        self.needed = needed
        self.manifest = Manifest()
        self.writer: Writer | None = None
        self.logging = False
        """Whether the log goes on: not that of a snapshot."""
        self.dump_running: Dump | None = None
        self.rewriting = False
        """Whether the dump that runs is one of a log."""
        self.repairing = False
        self._try_now, self._tried = asyncio.Event(), asyncio.Event()
        self.last_save_ms = now()
        self.last_dump_ok = True
        self.last_error = ""
        self.last_dump_ms = -1
        self.base_bytes = 0
        self.dump_began_ms = 0
        self._dumping: asyncio.Task[None] | None = None
        self._given_up = GIVEN_UP
        """Why, if it is."""
        self._news = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="log-files")
        self._last_number = 0
        self._sequence = 0
        self._dirty_at_save = 0
        self._watching: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._seen = self._quiet = 0
        self._host_trouble = (OK, b"", False)
        self._is_written = True
        self._unsettled: Sequence[int] = ()
        self.on_begun: Callable[[], None] = lambda: None
        """Called when the files say what was loaded."""
        self._beginning = Beginning(host, directory, self._begin)

    # Beginning and ending ----------------------------------------------------------------------------------
    async def begin(
        self,
        manifest: Manifest | None,
        sequence: int,
        number: int = 0,
        unsettled: Sequence[int] = (),
        is_written: bool = True,
    ) -> None:
        """Goes on where recovery ended: after the frame `sequence`, with this manifest (None: there was nothing). `number` is
        the highest that a file ever had, of those too that are not named any more; `unsettled` are transactions of which the
        log has a share, and which are over by now. `is_written`: the directory has this manifest already.

        With a log, a new one begins; without, the manifest says since when nothing is logged. Where the disk is full, both
        come when there is room (beginning.py).
        """
        self._is_written = is_written and manifest is not None
        self.manifest = manifest or Manifest()
        self._sequence = sequence
        self._last_number = max(self.manifest.next_number() - 1, number)
        self._unsettled = unsettled
        self.base_bytes = sum(base.bytes for base in self.manifest.bases)
        self._dirty_at_save = self.host.shard.store.dirty
        await self._beginning.run(refuses=self.config.appendonly)

    async def _begin(self) -> None:
        if not self._is_written and not self.manifest.names():
            # Before the first file: data without a manifest is refused, since nobody could know what belongs together.
            await self._write_manifest(self.manifest)
            self._is_written = True
        if self.config.appendonly:
            await self._begin_log()
            self.host.settle(self._unsettled)
        else:
            # Stopped is also where the log of before had nothing in it, and is not named any more.
            has_stopped = self.manifest.names() or self._last_number
            stopped_ms = self.manifest.stopped_ms or (self.now() if has_stopped else 0)
            if not self._is_written or stopped_ms != self.manifest.stopped_ms:
                await self._write_manifest(msgspec.structs.replace(self.manifest, stopped_ms=stopped_ms))
        self._is_written = True
        self.on_begun()

    async def _begin_log(self) -> None:
        """The log goes on in a new file: what is there already is in the files before it."""
        created = await self._create(LOG)
        named = msgspec.structs.replace(
            self.manifest, logs=(*self.manifest.logs, _log_file(created)), stopped_ms=0)  # fmt: skip
        try:
            await self._write_manifest(named)
        except OSError:
            self.files.close(created.fd)
            await self._remove(created)
            raise
        self.logging = True
        self._attach(created, POLICIES[self.config.appendfsync])

    def _attach(self, created: _File, policy: int) -> None:
        self.writer = Writer(self.files, policy, self._sequence)
        self.writer.switch(created.fd, created.salt)
        self.writer.start()
        self.host.attach_log(self.writer)
        self.host.number_frames(policy == writers.ALWAYS)
        self.host.on_log_news = self._on_news
        self._watch()

    async def _detach(self) -> int:
        """The log ends here; how many bytes its file has."""
        writer = self.writer
        assert writer is not None
        self.host.end_log()
        ended = writer.end_file()
        self.writer = None
        self._sequence = writer.sequence
        self.logging = False
        if not await self._stop(writer):
            # Nobody will know whether it was kept: no reply.
            self.host.set_trouble(BROKEN, b"", True)
        self.host.detach_log()
        self._host_trouble = (OK, b"", False)
        return ended

    async def _stop(self, writer: Writer) -> bool:
        """Whether everything that was added is durable."""
        if not await self._io(writer.stop, CLOSE_SECONDS):
            log.error("the disk has not taken the end of a file within %d s", CLOSE_SECONDS)
            return False
        return not writer.failure[1]

    async def close(self, save: bool = False) -> None:
        """The shard leaves: a snapshot first if that is wanted, then everything that was said is durable."""
        await self._beginning.give_up()
        if self._dumping is not None:
            # Also if one is wanted: what was executed last may come behind the end of the one under way.
            self.cancel()
            await asyncio.wait([self._dumping])
        if save:
            with suppress(DumpError):
                await self.dump(urgent=True)
        for task in [*self._tasks, *filter(None, [self._dumping])]:
            task.cancel()
            with suppress(asyncio.CancelledError, DumpError):
                await task
        if self._watching is not None:
            self._watching.cancel()
        if self.writer is not None:
            ended = await self._detach()
            await self._name_end(ended)
        self._pool.shutdown(wait=False)

    async def settle(self, save: bool) -> None:
        """What was said up to here is on disk: in a snapshot if `save`, and in the log where there is one; DumpError says why
        not. Nothing else changes: the shard leaves, or goes on."""
        if self.repairing:
            await self._next_repair()
        if save:
            while self._dumping is not None:
                # What was executed last may come behind the end of the one under way, and of one that somebody else begins then.
                self.cancel()
                await asyncio.wait([self._dumping])
            await self.dump(urgent=True)
        if self.logging and self.writer is not None:
            self.host.commit()
            self.writer.sync()
            await self._until_durable(self.writer.sequence)
        if gone := await self._io(self._gone, self._own_files()):
            raise DumpError(gone)

    async def _until_durable(self, sequence: int) -> None:
        """Waits for the log, as long as nothing is wrong with the disk."""
        while self.writer is not None and self.writer.durable < sequence:
            self._look()
            _, refusal, lost = self._host_trouble
            if lost:
                raise DumpError(refusal.decode().removeprefix("MISCONF "))
            self._news.clear()
            if self.writer.durable < sequence:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), WATCH_SECONDS)

    def _own_files(self) -> list[str]:
        """Those that have what is kept."""
        names = [manifests.MANIFEST, *sorted(self.manifest.names())] if self._is_written else []
        return [f"{self.directory}/{name}" for name in names]

    def _gone(self, own: Sequence[str] = ()) -> str:
        """What of these files, and of those of others, somebody has removed, or moved elsewhere; "" if nothing."""
        for path in (*own, *self.needed):
            if not self.files.is_file(path):
                return f"{path} is not there any more: somebody has removed or moved it"
        return ""

    async def _name_end(self, ended: int) -> None:
        """The last log is closed, with this length: the manifest says so, so that its end cannot be lost unseen."""
        if not self.manifest.logs:
            return
        *before, last = self.manifest.logs
        closed = (*before, msgspec.structs.replace(last, bytes=ended))
        with suppress(OSError):
            await self._write_manifest(msgspec.structs.replace(self.manifest, logs=closed))

    # Settings -------------------------------------------------------------------------------------------
    async def apply(self, config: Config) -> None:
        """Puts the settings in force. After `appendonly yes` a restart finds everything, or OSError, DumpError says why not."""
        before, self.config = self.config, config
        if self._beginning.waits and before.appendonly == config.appendonly:
            return  # the log begins by these
        waited = await self._beginning.give_up()
        if self.logging and self.writer is not None and before.appendfsync != config.appendfsync:
            policy = POLICIES[config.appendfsync]
            self.host.number_frames(policy == writers.ALWAYS)
            self.writer.set_policy(policy)
        try:
            if config.appendonly and not self.logging:
                if gone := await self._io(self._gone):
                    raise DumpError(gone)  # a log that has begun goes on, whatever is said then
                await self.dump(keep=True, urgent=False)
            elif not config.appendonly and self.logging:
                await self._end_log()
            elif waited:
                await self._beginning.run(refuses=False)
        except (OSError, DumpError):
            self.config = msgspec.structs.replace(config, appendonly=before.appendonly)
            raise

    async def _end_log(self) -> None:
        """`appendonly no`: the files stay as they are now, and the manifest says since when."""
        if self._dumping is not None:
            self.cancel()
            await asyncio.wait([self._dumping])
        ended = await self._detach()
        await self._name_end(ended)
        await self._write_manifest(msgspec.structs.replace(self.manifest, stopped_ms=self.now()))

    # Dumps ----------------------------------------------------------------------------------------------
    @property
    def dumping(self) -> bool:
        """Whether a dump is under way."""
        return self._dumping is not None

    async def dump(self, *, keep: bool = False, urgent: bool = False) -> None:
        """A new base with everything that is there; DumpError when one is under way, or this one fails.

        `keep`: the log goes on behind it, also where there was none. `urgent`: without rest between the slices.
        """
        if self._beginning.refusal:
            raise DumpError(self._beginning.refusal.decode())
        if self._dumping is not None:
            raise DumpError("Background append only file rewriting already in progress" if self.rewriting
                            else "Background save already in progress")  # fmt: skip
        self.rewriting = self.logging or keep
        self.dump_began_ms = self.now()
        self._given_up = GIVEN_UP
        self._dumping = asyncio.get_running_loop().create_task(self._dump(keep, urgent))
        self._dumping.add_done_callback(self._no_dump)
        try:
            await asyncio.shield(self._dumping)
        except asyncio.CancelledError:
            if self._dumping is not None and not self._dumping.done():
                raise
            raise DumpError(self._given_up) from None

    def _no_dump(self, ended: asyncio.Task[None]) -> None:
        """Also of one that was given up before it had begun, of which nothing is executed."""
        if self._dumping is ended:
            self._dumping = self.dump_running = None

    def cancel(self) -> None:
        """Gives the dump up that is under way, if any."""
        if self._dumping is not None:
            self._dumping.cancel()

    async def _dump(self, keep: bool, urgent: bool) -> None:
        changes = self._dirty_at_save
        try:
            await self._dump_into_new_files(keep, urgent)
            if gone := await self._io(self._gone, self._own_files()):
                self._dirty_at_save = changes  # nothing is saved that cannot be found
                raise DumpError(gone)
        except (OSError, DumpError) as error:
            reason = self._why(error)
            self.last_dump_ok, self.last_error = False, reason
            log.error("the dump has failed: %s", reason)
            raise DumpError(reason) from error
        except asyncio.CancelledError:
            self.last_dump_ok, self.last_error = False, self._given_up
            if self._given_up != GIVEN_UP:
                log.error("the dump has failed: %s", self._given_up)
            raise
        else:
            self.last_dump_ok, self.last_error = True, ""
            self.last_save_ms = self.now()
        finally:
            self.last_dump_ms = self.now() - self.dump_began_ms
            self._dumping = None
            self.dump_running = None

    def _why(self, error: Exception) -> str:
        """A failure for people, who have to know where it was."""
        if isinstance(error, OSError):
            return unusable(self.files, self.directory, error)
        return str(error) if str(error).startswith("/") else f"{self.directory}: {error}"

    async def _dump_into_new_files(self, keep: bool, urgent: bool) -> None:
        """A log and a base of one number, which replace everything else."""
        had_log = self.logging
        created = await self._create(LOG)
        cancelled = await _to_its_end(self._use(created, had_log and not self.repairing))
        base: _File | None = None
        try:
            if cancelled:
                raise asyncio.CancelledError
            base = await self._create(BASE, created.number, self._end())
            size, end = await self._fill(base, urgent)
            await _to_its_end(self._swap(created, base, size, end, keep or had_log))
        except BaseException:
            if base is not None:
                await self._remove(base)
            if not had_log and self.writer is not None and not self.logging:
                await self._detach()
                await self._remove(created)
            raise

    async def _use(self, created: _File, named: bool) -> None:
        """The new log is used from here on; `named`: a restart has to know of it, so the manifest names it first."""
        try:
            if named:
                logs = (*self.manifest.logs, _log_file(created))
                await self._write_manifest(msgspec.structs.replace(self.manifest, logs=logs))
            self._switch(created)
        except BaseException:
            self.files.close(created.fd)
            if created.number not in {each.number for each in self.manifest.logs}:
                await self._remove(created)
            raise

    def _switch(self, created: _File) -> None:
        """Frames go to the new log from here on."""
        if self.writer is None:
            self._attach(created, writers.NO)
            return
        self.host.commit()
        ended = self.writer.switch(created.fd, created.salt)
        if self.identity.shards > 1:
            self.host.tell_shares()
        logs = self.manifest.logs
        if ended and len(logs) > 1 and logs[-1].number == created.number:
            closed = msgspec.structs.replace(logs[-2], bytes=ended)
            self.manifest = msgspec.structs.replace(self.manifest, logs=(*logs[:-2], closed, logs[-1]))

    def _end(self) -> int:
        self.host.commit()
        return self.writer.sequence if self.writer is not None else self._sequence

    async def _fill(self, base: _File, urgent: bool) -> tuple[int, int]:
        """All slices into the base: (its bytes, the sequence that it goes with), both it and the log up to there durable."""
        assert self.writer is not None
        out = Writer(self.files, writers.BULK, self.writer.sequence)
        out.switch(base.fd, base.salt)
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        out.start()
        loop.add_reader(out.news, _hear, out, news)
        dump = self.dump_running = Dump(self.host, out)
        try:
            await every_slice(dump, out, self.host, urgent=urgent)
            size = out.position
            out.sync()
            await self._until(lambda: out.settled, out, news)
            # A base hides what the log before it says of transactions: none that another shard may have lost is in it.
            locks = self.host.shard.locks
            open_at_end = locks.open_shares
            await self._until(lambda: not open_at_end & locks.open_shares, self.writer, self._news)
            await self._until_others_have_theirs(locks.last_share_ms)
            self.writer.sync()
            await self._until(
                lambda: self.writer is not None and self.writer.durable >= dump.end, self.writer, self._news
            )
            log.info(
                "dumped %s in %s, the longest of %d us of processor time, %d us by the clock",
                counted(dump.keys, "key"), counted(dump.slices, "slice"),
                dump.longest_cpu_ns // 1000, dump.longest_ns // 1000,
            )  # fmt: skip
            return size, dump.end
        finally:
            dump.close()
            loop.remove_reader(out.news)
            await asyncio.shield(self._stop(out))

    async def _until_others_have_theirs(self, last_ms: int) -> None:
        """Under everysec another shard's part of what was over last may yet be lost with the power, and nobody could leave out
        ours any more."""
        if self.identity.shards > 1 and self.logging and not self.repairing and self.config.appendfsync == "everysec":
            wait = min(max(last_ms + LOSS_MS - self.now(), 0), LOSS_MS)
            await asyncio.sleep(wait / 1000)

    async def _until(self, reached: Callable[[], bool], writer: Writer, news: asyncio.Event) -> None:
        """Waits for what a writer's threads do; DumpError when they cannot any more."""
        while not reached():
            check(writer)
            news.clear()
            if not reached():
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), WATCH_SECONDS)

    async def _swap(self, created: _File, base: _File, size: int, end: int, keep: bool) -> None:
        """The new files are everything from here on; those before are removed."""
        for each in (created, base):
            if not await self._io(self.files.is_file, each.path):
                # Written to its end, and without a name: those before are better than nothing.
                raise DumpError(f"{each.path} is not there any more: somebody has removed or moved it")
        ended = None if keep else await self._detach()
        before = self.manifest.names()
        manifest = Manifest(
            (BaseFile(base.number, base_name(base.number), size, base.first, end, base.salt.hex()),),
            (msgspec.structs.replace(_log_file(created), bytes=ended),),
            0 if keep else self.now(),
            resolved=self.manifest.resolved,
            decided=self.manifest.decided,
        )
        await asyncio.shield(self._write_manifest(manifest))
        self.base_bytes = size
        self._dirty_at_save = self.host.shard.store.dirty
        if keep and not self.logging and self.writer is not None:
            self.logging = True
            policy = POLICIES[self.config.appendfsync]
            self.host.number_frames(policy == writers.ALWAYS)
            self.writer.set_policy(policy)
        for name in before - manifest.names():
            with suppress(OSError):
                await self._io(self.files.unlink, f"{self.directory}/{name}")

    # Files ------------------------------------------------------------------------------------------------
    def _io(self, call: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    async def _create(self, kind: int, number: int = 0, first: int | None = None) -> _File:
        """A new file with its header, durable. Of a log, `first` is at most that of its first frame: ticks go on meanwhile."""
        if not number:
            self._last_number = number = max(self._last_number, self.manifest.next_number() - 1) + 1
        name = log_name(number) if kind == LOG else base_name(number)
        first = self._end() + 1 if first is None else first
        created = _File(number, f"{self.directory}/{name}", -1, secrets.token_bytes(16), first)
        header = FileHeader(
            kind=kind, salt=created.salt, cluster=self.identity.cluster, shard=self.identity.shard,
            shards=self.identity.shards, number=number, first=first, created_ms=self.now(),
            hash_seed=self.identity.hash_seed, boot=self.identity.boot,
        )  # fmt: skip
        try:
            created.fd = await self._io(self._create_file, created.path, pack_header(header))
        except OSError:
            if kind == LOG:
                self._last_number = number - 1  # nothing has it, and it may be tried for days
            raise
        return created

    def _create_file(self, path: str, header: bytes) -> int:
        fd = self.files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self.files.pwrite(fd, header, 0)
            self.files.fdatasync(fd)
            self.files.fsync_dir(self.directory)
        except OSError:
            self.files.close(fd)
            with suppress(OSError):
                self.files.unlink(path)
            raise
        return fd

    async def _remove(self, created: _File) -> None:
        """One that nobody names. Whoever writes it has closed it, or never began."""
        with suppress(OSError):
            await self._io(self.files.unlink, created.path)

    async def _write_manifest(self, manifest: Manifest) -> None:
        await self._io(write_manifest, self.files, self.directory, manifest)
        self.manifest = manifest

    # Watching ---------------------------------------------------------------------------------------------
    def _on_news(self) -> None:
        self._news.set()
        self._look()

    def _watch(self) -> None:
        """A look every now and then: what stands still gives no news."""
        if self.writer is not None:
            self._look()
            self._mark(self.writer)
            self._watching = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._watch)

    def _mark(self, writer: Writer) -> None:
        """After a second without a frame the last sync is noted: what lies before can then not be torn unseen."""
        self._quiet = self._quiet + 1 if writer.sequence == self._seen else 0
        self._seen = writer.sequence
        if self._quiet >= QUIET_LOOKS:
            writer.mark(self.now())

    def _look(self) -> None:
        """What the writer is in becomes what the shard does."""
        writer = self.writer
        if writer is None:
            return
        limits = self.config.log_lag_ms * 1_000_000, self.config.log_queue_bytes, self.config.log_stall_ms * 1_000_000
        trouble = writer.troubled(*limits)
        if trouble == OK == self._host_trouble[0] and not self.repairing:
            return  # every sync under always comes by here
        if not self.logging:
            if trouble >= STALLED and self._dumping is not None:
                # A snapshot's own log: nobody waits for it.
                call, error = writer.failure
                reason = f"no answer for {self.config.log_stall_ms} ms" if trouble == STALLED else os.strerror(error)
                self._given_up = f"{self.directory}: {call or 'write or sync'}: {reason}"
                self._dumping.cancel()
            return
        if trouble == BROKEN and not self.repairing:
            self.repairing = True
            self._spawn(self._repair())
        if self.repairing:
            trouble = BROKEN
        lost = trouble in (STALLED, BROKEN) or (trouble == FULL and writer.queued > 0)
        now = (trouble, self._refusal(trouble, writer), lost)
        if now[::2] != self._host_trouble[::2]:
            self._tell(now[0], writer)
            unsure = trouble >= STALLED and writer.policy == writers.ALWAYS
            self.host.set_trouble(*now, *([writer.durable] if unsure else []))
            self._host_trouble = now

    def _refusal(self, trouble: int, writer: Writer) -> bytes:
        call, error = writer.failure
        name = self.manifest.logs[-1].name if self.manifest.logs else "the log"
        reason = os.strerror(error) if error else self.last_error or "Input/output error"
        if trouble == STALLED:
            reason, call = f"no answer for {self.config.log_stall_ms} ms", "write or sync"
        return f"MISCONF Errors writing to the AOF file: {reason} ({self.directory}/{name}, {call or 'write'})".encode()

    def _tell(self, trouble: int, writer: Writer) -> None:
        if trouble == OK:
            log.warning("the log is written again")
        elif trouble > SLOW:
            log.error("the log cannot be written, writes are refused: %s", self._refusal(trouble, writer).decode()[8:])
        else:
            log.warning("the disk is slow: writes wait for the log")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _repair(self) -> None:
        """The file is broken and never touched again: memory is right, so everything goes into new files."""
        wait = FIRST_RETRY
        if self._dumping is not None:
            self.cancel()
            await asyncio.wait([self._dumping])
        while True:
            try:
                await self.dump(keep=True, urgent=True)
                break
            except DumpError as error:
                log.error("the log stays broken, the next try in %d s: %s", wait, error)
                self._tried.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._try_now.wait(), wait)
                self._try_now.clear()
                wait = min(2 * wait, LAST_RETRY)
        self.repairing = False
        self._look()
        self._tried.set()

    async def _next_repair(self) -> None:
        """Has the next try be now: whoever has mended the disk need not wait for it. DumpError when it fails as well."""
        self._tried.clear()
        self._try_now.set()
        await self._tried.wait()
        if self.repairing:
            raise DumpError(self.last_error)

    # Figures ----------------------------------------------------------------------------------------------
    def figures(self) -> dict[str, int | float | str]:
        """What INFO and status say of it."""
        writer, dump = self.writer, self.dump_running
        enabled = self.logging or bool(self._beginning.refusal)
        found: dict[str, int | float | str] = {
            "enabled": int(enabled),
            "state": writers.TROUBLES[FULL if self._beginning.refusal else self._host_trouble[0]] if enabled else "off",
            "error": self._host_trouble[1].decode()
            if self._host_trouble[0] > SLOW
            else self._beginning.refusal.decode(),
            "sequence": writer.sequence if writer else self._sequence,
            "durable": writer.durable if writer else self._sequence,
            "queued_bytes": writer.queued if writer else 0,
            "log_bytes": sum(log.bytes or 0 for log in self.manifest.logs) + (writer.position if writer else 0),
            "base_bytes": self.base_bytes,
            "logs": len(self.manifest.logs),
            "changes_since_save": self.host.shard.store.dirty - self._dirty_at_save,
            "dump_in_progress": int(self.dumping),
            "dump_rewrites": int(self.rewriting),
            "dump_progress": dump.progress if dump else 0.0,
            "dump_keys": dump.keys if dump else 0,
            "dump_ms": self.now() - self.dump_began_ms if self.dumping else 0,
            "last_dump_ms": self.last_dump_ms,
            "last_dump_ok": int(self.last_dump_ok),
            "last_error": self.last_error,
            "last_save_ms": self.last_save_ms,
            "closed_links": self.host.misconf,
        }
        return found | (writer.figures() if writer else {})


def _log_file(created: _File) -> LogFile:
    return LogFile(created.number, log_name(created.number), None, created.first, created.salt.hex())


def _hear(writer: Writer, news: asyncio.Event) -> None:
    writer.hear()
    news.set()
