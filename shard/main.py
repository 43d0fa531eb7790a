"""A shard process from its start to its end.

Owns the event loop of the process, the control channel to the supervisor, the timers (expiry, eviction, clock,
samples for the rates) and the order of starting and stopping; the data path is in `engine`. Entered as
``run(ctx)`` by the supervisor, which imports this module by name; nobody else calls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final

import uvloop

from kache.acl.inner import check_inner
from kache.acl.rights import Users
from kache.cluster import logs, pages, processes
from kache.cluster.control import ControlChannel
from kache.cluster.messages import (
    Ack,
    CancelDump,
    ChildContext,
    ConfigChanged,
    Down,
    Drain,
    Dumped,
    DumpShard,
    Kept,
    LastSave,
    LibrariesAre,
    Loading,
    ModulesAre,
    NewListener,
    Ping,
    Pong,
    Ready,
    Recorded,
    Reports,
    Resolved,
    SaveRefused,
    ScriptsAre,
    Slots,
    Stage,
    StageIs,
    UsersChanged,
)
from kache.cluster.running import Running
from kache.commands import DIGEST
from kache.config.client_limits import flow_room
from kache.config.settings import Config
from kache.errors import CommandError
from kache.libraries import LibraryError
from kache.module.source import ModuleError
from kache.wire.board import Board
from kache.wire.claims import Claims
from kache.wire.clock import Clock

from .engine.engine import Budget, Host, LinkListener, ShardReactor
from .engine.memory import only_free, seed_random, trim_memory, tune_malloc
from .engine.packed import set_limits
from .engine.stream_chunks import set_node_limits
from .service.cleanup import Cleanup
from .service.keeping import Keeper, hear
from .service.statistics import Gauges, private_memory, resident_memory
from .shard import Shard

__all__ = ["preload", "run"]

log = logging.getLogger("kache.shard")

SWITCH_INTERVAL: Final = 0.0005
"""Seconds the cleanup thread may keep the GIL while the event loop wants it."""
DRAIN_POLL_SECONDS: Final = 0.01
TIDY_NS: Final = 1_000_000
"""A slice of moving blocks so that pages become free."""
SWEEP_NS: Final = 300_000
SWEEP_SECONDS: Final = 0.1
"""So much of each is spent on looking at the sizes of keys, while there is something new: 0.3 %."""
TIDY_PAUSE: Final = 0.003
"""Seconds between two of them: at most a quarter of the process's time goes into that."""
MODULE_SECONDS: Final = 10.0
"""How long a module may take to be executed: less than the supervisor waits for."""
LONGEST_WAIT: Final = 0.05
"""Seconds between two looks at the deadlines at most: the time by which an expired key may outlive it in memory. While
nothing is executed there are as many looks as `hz` says, since each wakes an idle process."""


_prepared: list[Shard] = []
"""One for the first that this process becomes, or one that is forked from it."""


def preload(_config: Config) -> None:
    """Imports the handlers and puts a shard together; the supervisor calls this once before it forks, so that no shard does
    again what comes out the same, nor touches what the others have in common."""
    _prepared.append(Shard(now_ms=1))


def run(ctx: ChildContext) -> None:
    """Serves until the supervisor says otherwise. Returns when the process shall end."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    tune_malloc()
    seed_random(int.from_bytes(os.urandom(8), "little"))
    loop = uvloop.new_event_loop()
    processes.give_back_empty_pages(loop)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_Process(ctx, loop).serve())
    finally:
        loop.close()


class _LiveGauges(Gauges):
    """The gauges of a running process."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        super().__init__()

    def links(self) -> int:
        return len(self._process.host.links)

    def traffic(self) -> tuple[int, int]:
        received, sent = self._process.host.traffic()
        return received, sent

    def stall_ns(self) -> int:
        return max(self._process.host.longest_ns, self._process.reactor.longest_iteration_ns)

    def cleanup_pending(self) -> int:
        return self._process.cleanup.pending

    def startup_memory(self) -> int:
        return self._process.empty_size

    def buffer_memory(self) -> int:
        return self._process.host.buffer_bytes

    def kept(self) -> dict[str, Any]:
        return self._process.keeper.figures()

    def forget_stall(self) -> None:
        self._process.host.longest_ns = 0
        self._process.reactor.longest_iteration_ns = 0


class _Process:
    """The life of one shard process."""

    def __init__(self, ctx: ChildContext, loop: asyncio.AbstractEventLoop) -> None:
        self.ctx = ctx
        self.loop = loop
        self.done = asyncio.Event()
        self.leaving = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.empty_size = self.empty_private = 0
        self.executed = 0
        self.timer: asyncio.TimerHandle | None = None
        self.sweep_at = 0.0
        self.cleanup = Cleanup(trim_memory, only_free)
        clock = Clock(ctx.anchor_wall_ms, ctx.anchor_boot_ns)
        self.clock = clock
        wakers = [fd for name, fd in sorted(ctx.pages.items()) if name.startswith("waker")]
        self.waker = wakers[ctx.index] if wakers else -1
        self.budget = Budget(pages.mapped(ctx.pages["budget"]), ctx.index, wakers)
        self.shard = _prepared.pop() if _prepared else Shard(now_ms=1)
        self.shard.take_up(
            hash_seed=ctx.hash_seed, cleanup=self.cleanup, index=ctx.index, now_ms=clock.now(), budget=self.budget
        )
        self.reactor = ShardReactor(loop, clock, {"epoll": True, "loop": False}.get(ctx.config.reactor))
        self.board = Board(pages.mapped(ctx.pages["board"]), ctx.routers)
        self.beat = threading.Thread(target=self.board.beat, args=(ctx.index,), name="beat", daemon=True)
        self.host = Host(self.shard, self.reactor, DIGEST, ctx.boot_id, os.getpid(), self.board)
        self.keeper = Keeper(self.host, ctx.index, ctx.shards, ctx.hash_seed, clock.now, self._tell)
        self.save_at_end: bool | None = None
        self.kept: Kept | None = None
        """What the supervisor was told last."""
        self.shard.gauges = _LiveGauges(self)
        self.shard.scripts.page = Running(ctx.pages["running"])
        # What ran in the process before this one does not any more.
        self.shard.scripts.page.clear(ctx.index)
        self.shard.blocking.start(
            clock.now,
            lambda seconds, work: loop.call_later(seconds, self.host.perform, work),
            Claims(pages.mapped(ctx.pages["claims"])),
        )
        self.shard.loading = ctx.data is not None
        self.users = Users(ctx.users or (), ctx.acl_epoch)
        """For what runs commands inside the shard; those of clients are checked before they come here."""
        self.shard.scripts.check = functools.partial(check_inner, self.users)
        self.shard.modules.users = self.shard.users = self.users
        self.module_changes: asyncio.Queue[ModulesAre] = asyncio.Queue()
        self.slot_epoch = ctx.slot_epoch
        self.slots = ctx.slots
        self._own()
        self.config = ctx.config
        self._apply(ctx.config)
        if ctx.stage is not None:
            self._play(ctx.stage)
        self.listeners = [LinkListener(self.host, fd) for fd in ctx.listeners]
        self.channel = ControlChannel(loop, ctx.control_fd, self._on_message, self.done.set)
        if ctx.modules is not None:
            self._take_modules_of_before(ctx.modules)
        self.shard.scripts.begin_with(ctx.scripts)
        for fault in self.shard.functions.take_what_loads(
            (each.name, each.code, each.serial) for each in ctx.libraries
        ):
            log.error("a library of functions is not there: %s", fault)

    async def serve(self) -> None:
        """Serves, and returns once drained or abandoned."""
        self.loop.add_reader(self.ctx.death_fd, os._exit, 1)
        # Ctrl-C reaches the whole foreground group, and a service manager may signal all processes: the supervisor decides what
        # it means. What is held here is not let go before it is known to be on disk.
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, lambda: None)
        if self.waker >= 0:
            self.loop.add_reader(self.waker, self._give_way)
        self.cleanup.start()
        self.beat.start()
        self.shard.modules.watchdog.start()
        self._spawn(self._follow_modules())
        # What was imported and built so far lives as long as the process, and entries are no objects of the
        # collector: a full collection would only stall. Nor is there one now (see `children.preload`).
        gc.freeze()
        gc.disable()
        self.empty_size = resident_memory()
        self.empty_private = private_memory()
        await self._load()
        self._background()
        self._every_second()
        self.channel.send(Ready())
        await self.done.wait()
        await self.keeper.close(self.save_at_end, self.config)
        self.shard.modules.watchdog.stop()
        self.reactor.close()
        self.channel.close()
        self.cleanup.stop()
        self.board.stop()  # its thread is not waited for: it touches the mapped file alone

    async def _load(self) -> None:
        """What the shard has on disk; links are answered LOADING until it is there."""
        if self.ctx.data is None:
            return
        loading = self.loop.create_task(self.keeper.start(self.ctx.data, lambda: self.config))
        leaving = self.loop.create_task(self.done.wait())
        await asyncio.wait([loading, leaving], return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not loading.done():
            # Whoever lets a shard go does not wait until it has everything: nothing was changed.
            loading.cancel()
            return
        loading.result()
        self.host.ready()

    def _tell(self, message: Reports | Recorded | Loading | Dumped) -> None:
        if isinstance(message, Dumped):
            self._show_kept()  # whoever is told that it is over may ask at once what there is
        self.channel.send(message)

    # Settings -------------------------------------------------------------------------------------------
    def _apply(self, config: Config) -> None:
        """Puts the settings in force."""
        logs.set_level(config)
        self.config = config
        shard, store, host = self.shard, self.shard.store, self.host
        if shard.maxmemory != config.maxmemory:
            shard.set_maxmemory(config.maxmemory)
        if store.policy != config.maxmemory_policy:
            shard.evictor.set_policy(config.maxmemory_policy)
        shard.simulating = config.miniature_simulations or config.maxmemory_policy.endswith("auto")
        store.samples = config.maxmemory_samples
        store.lfu_log_factor = config.lfu_log_factor
        store.lfu_decay_time = config.lfu_decay_time
        shard.configure_slowlog(config.slowlog_log_slower_than)
        shard.modules.watchdog.configure(config.module_time_limit_ms)
        shard.notifications.configure(config.notify_keyspace_events)
        shard.tracking.most_keys = config.tracking_table_max_keys
        shard.scripts.set_memory_limit(config.lua_memory_limit)
        shard.functions.set_memory_limit(config.lua_memory_limit)
        host.tick_ns = config.tick_us * 1000
        host.tick_bytes = config.tick_reply_bytes
        host.unsent_limit = config.link_unsent_bytes
        host.flow_room = flow_room(config)
        shard.locks.configure(config.parked_commands, config.parked_bytes)
        set_limits(
            hash_entries=config.hash_max_listpack_entries,
            hash_value=config.hash_max_listpack_value,
            set_integers=config.set_max_intset_entries,
            set_entries=config.set_max_listpack_entries,
            set_value=config.set_max_listpack_value,
            zset_entries=config.zset_max_listpack_entries,
            zset_value=config.zset_max_listpack_value,
            list_size=config.list_max_listpack_size,
        )
        set_node_limits(config.stream_node_max_entries, config.stream_node_max_bytes)

    def _on_message(self, message: Down) -> None:
        if isinstance(message, ConfigChanged):
            self._take_in(message)
        elif isinstance(message, Slots):
            self.slot_epoch, self.slots = message.epoch, message.ranges
            self._own()
            self.channel.send(Ack(message.id))
        elif isinstance(message, UsersChanged):
            self.users.take(message.epoch, message.records, message.removed)
            self.channel.send(Ack(message.id))
        elif isinstance(message, ModulesAre):
            self.module_changes.put_nowait(message)
        elif isinstance(message, LibrariesAre | ScriptsAre):
            self.channel.send(Ack(message.id, self._take_programs(message)))
        elif isinstance(message, StageIs):
            self._play(message.stage)
            self._expire_all(message.id)
        elif isinstance(message, Ping):
            self.channel.send(Pong(message.id))
        elif isinstance(message, Resolved):
            self.keeper.resolved(message)
        elif isinstance(message, DumpShard):
            self._spawn(self.keeper.dump(message.id, message.urgent))
        elif isinstance(message, LastSave):
            self._spawn(self.keeper.last_save(message.id, message.save, self.config))
        elif isinstance(message, CancelDump):
            self.keeper.cancel()
        elif isinstance(message, SaveRefused):
            self.keeper.refused(message.reason)
        elif isinstance(message, NewListener):
            self._listen_anew(self.channel.take_descriptor())
        elif isinstance(message, Drain):
            if self.leaving:
                self.done.set()
            self.save_at_end = message.save
            self._drain(message.seconds)

    def _own(self) -> None:
        """What scripts may touch here: an only shard has every key."""
        mine = [(first, last) for first, last, shard in self.slots if shard == self.ctx.index]
        self.shard.own(mine if self.ctx.shards > 1 else None)

    def _take_programs(self, message: LibrariesAre | ScriptsAre) -> str:
        """Libraries, or scripts; "" or what their client is told."""
        try:
            if isinstance(message, LibrariesAre):
                if message.adds:
                    self.shard.require_room()
                self.shard.functions.take((each.name, each.code, each.serial) for each in message.libraries)
                return ""
            if message.flush:
                self.shard.scripts.flush()
            for text in message.texts:
                self.shard.scripts.load(text)
        except LibraryError as error:
            return f"ERR {error}"
        except CommandError as error:
            return error.message
        except Exception as error:
            log.exception("internal error with a library or a script")
            return f"ERR internal error: {error!r:.200}"
        return ""

    # Modules --------------------------------------------------------------------------------------------
    def _take_modules_of_before(self, message: ModulesAre) -> None:
        """A shard that is started again has what it had. What does not load any more keeps nobody from the other data."""
        executed = {}
        for module in message.modules:
            try:
                executed[module.serial] = self.shard.modules.execute(module)
            except ModuleError as error:
                log.error("a module is not there: %s", error)
                executed[module.serial] = self.shard.modules.refuse(module, str(error))
        self.shard.modules.take(message.epoch, message.modules, executed)
        self.host.module_epoch = message.epoch

    async def _follow_modules(self) -> None:
        """One change after the other, as they come."""
        while True:
            message = await self.module_changes.get()
            error = ""
            try:
                await self._take_modules(message)
            except ModuleError as refused:
                error = str(refused)
            except Exception as wrong:
                log.exception("internal error with a module")
                error = f"internal error: {wrong!r:.200}"
            self.channel.send(Ack(message.id, error))

    async def _take_modules(self, message: ModulesAre) -> None:
        modules = self.shard.modules
        executed = {}
        for module in modules.unknown(message.modules):
            # Its imports may take long, and nobody else waits for them.
            work = self.loop.run_in_executor(None, modules.execute, module)
            try:
                executed[module.serial] = await asyncio.wait_for(work, MODULE_SECONDS)
            except TimeoutError:
                raise ModuleError(f"{module.name}: it did not come to an end within {MODULE_SECONDS:g} s") from None
        modules.take(message.epoch, message.modules, executed)
        self.host.module_epoch = message.epoch

    def _play(self, stage: Stage) -> None:
        """Does what a test has staged for this shard."""
        name = f"shard {self.ctx.index}"
        self.clock.simulate(stage.ahead_ms, stage.stands_at_ms)
        self.shard.turn_back(self.clock.data_now())
        self.host.delay_replies(stage.delay_ms.get(name, 0) / 1000)
        refusal = stage.write_refusals.get(name)
        self.shard.write_refusal = None if refusal is None else refusal.encode()

    def _expire_all(self, number: int) -> None:
        """Acknowledges a stage once nothing that has expired by its clock is left; the links have their turns meanwhile."""
        try:
            backlog = self.host.background(self.config.active_expire_us * 1000)
        except Exception as error:
            log.exception("internal error in the background work")
            self.channel.send(Ack(number, f"internal error: {error!r:.200}"))
            return
        if backlog:
            self.loop.call_soon(self._expire_all, number)
        else:
            self.channel.send(Ack(number))

    def _take_in(self, message: ConfigChanged) -> None:
        """Puts a configuration in force, or goes on with the one before and says why."""
        before = self.config
        error = ""
        try:
            self._apply(message.config)
        except Exception as refused:
            error = f"{type(refused).__name__}: {refused}"
            self._apply(before)
        if error or (self.keeper.persistence is None and message.data is None) or self.shard.loading:
            self.channel.send(Ack(message.id, error))
        else:
            self._spawn(self._keep(before, message))

    async def _keep(self, before: Config, message: ConfigChanged) -> None:
        """What is kept goes by the new settings, too; only then they are in force."""
        error = await self.keeper.apply(before, message.config, message.data)
        if error:
            self._apply(before)
        self._show_kept()
        self.channel.send(Ack(message.id, error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(hear)

    def _listen_anew(self, fd: int) -> None:
        """Goes on with another socket, since nobody can find the one so far any more; its links stay."""
        for listener in self.listeners:
            listener.close()
        self.listeners = [LinkListener(self.host, fd)]

    # Background work ------------------------------------------------------------------------------------
    def _background(self) -> None:
        """One slice of expiry and eviction; back to back, with the links in between, while there is a backlog."""
        backlog = False
        try:
            backlog = self.host.background(self.config.active_expire_us * 1000)
        except Exception:
            # Whatever it was, keys must go on expiring.
            log.exception("internal error in the background work")
        idle, self.executed = self.shard.executed == self.executed, self.shard.executed
        wait = 1 / self.config.hz if idle else min(1 / self.config.hz, LONGEST_WAIT)
        if not backlog:
            self._sweep()
        if not backlog and self._tidy():
            wait = min(wait, TIDY_PAUSE)
        self.timer = self.loop.call_later(0.0 if backlog else wait, self._background)

    def _sweep(self) -> None:
        """Once in SWEEP_SECONDS: a look at the sizes of some keys."""
        now = time.monotonic()
        if now < self.sweep_at:
            return
        self.sweep_at = now + SWEEP_SECONDS
        try:
            self.shard.big.sweep(SWEEP_NS)
        except Exception:
            log.exception("internal error while large keys were looked for")

    def _tidy(self) -> bool:
        try:
            return self.host.tidy(TIDY_NS)
        except Exception:
            log.exception("internal error while memory was given back")
            return False

    def _give_way(self) -> None:
        """Another shard needs memory that this one has more of than its share: at once, not when the timer says."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.waker, 8)
        if self.timer is not None:
            self.timer.cancel()
        self._background()

    def _every_second(self) -> None:
        try:
            self.clock.discipline()
            self.shard.gauges.sample(self.shard)
            self.shard.hot.pace(time.monotonic())
            self.shard.govern_memory(private_memory() - self.empty_private)
            logs.tell_left_out()
            self.shard.modules.collect()
            self._show_kept()
        except Exception:
            log.exception("internal error in the measurements")
        self.loop.call_later(1.0, self._every_second)

    def _show_kept(self) -> None:
        kept = self.keeper.kept()
        if kept is not None and kept != self.kept:
            self.kept = kept
            self.channel.send(kept)

    # Leaving --------------------------------------------------------------------------------------------
    def _drain(self, seconds: float) -> None:
        if self.leaving:
            return
        self.leaving = True
        log.info("draining: answering what is in flight")
        for listener in self.listeners:
            listener.stop()
        self.host.drain()
        self._leave_when_idle(time.monotonic() + seconds)

    def _leave_when_idle(self, until: float) -> None:
        # The router closes its links when it has what it waits for, or has nothing left to ask.
        if time.monotonic() >= until or not self.host.links:
            self.done.set()
        else:
            self.loop.call_later(DRAIN_POLL_SECONDS, self._leave_when_idle, until)
