"""A router process from its start to its end.

Owns the event loop of the process, the control channel to the supervisor and the order of starting and stopping;
the data path is in `mux`. Entered as ``run(ctx)`` by the supervisor, which imports this module by name; nobody else
calls it. Importing the handler modules here fills the registry, which is compared with the command table at once.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import logging
import os
import resource
import signal
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import uvloop

from kache.cluster import logs, numbers, pages, processes
from kache.cluster.control import ControlChannel
from kache.cluster.messages import (
    Ack,
    ChildContext,
    ConfigChanged,
    Down,
    Drain,
    ModulesAre,
    Ping,
    Pong,
    Question,
    Ready,
    ShardState,
    Slots,
    Stage,
    StageIs,
    TlsCommit,
    TlsPrepare,
    UsersChanged,
)
from kache.cluster.pauses import Pauses
from kache.cluster.running import Running
from kache.commands import TABLE
from kache.config.settings import Config
from kache.errors import KacheError
from kache.module.rows import known_row
from kache.wire.board import Board
from kache.wire.claims import Claims
from kache.wire.clock import Clock

from . import peers, registry
from .commands import (
    acl,
    clients,
    cluster,
    connection,
    functions,
    hotkeys,
    info,
    introspection,
    latency,
    persistence,
    pubsub,
    readiness,
    scripting,
    slowlog,
    standalone,
    statistics,
    tracking,
    transactions,
)
from .commands import config as config_commands
from .mux.multiplexer import Router, give_memory_back, prepare
from .scatter import blocking, cursor, merges, moves, planner, streams
from .tls import Tls

if TYPE_CHECKING:
    from .cluster.director import Director

__all__ = ["HANDLER_MODULES", "preload", "run"]

log = logging.getLogger("kache.router")

HANDLER_MODULES = (
    acl, blocking, clients, cluster, config_commands, connection, cursor, hotkeys, info, introspection, latency, merges, moves, persistence,
    scripting, functions,
    pubsub, readiness, slowlog, standalone, statistics, streams, tracking, transactions,
)  # fmt: skip
"""Modules that register handlers; naming them here keeps their imports from looking unused."""

registry.check(TABLE)

RESERVED_DESCRIPTORS = 64
"""Descriptors that clients may not take: links, listeners, logs, the loop's own."""

SETTLE_SECONDS = 3.0
"""How long shards may take for what they had been sent when the rights of users change: less than a router has to say so."""

READY_WAIT_SECONDS = 2.0
"""How long the first answer of the shards is waited for; a shard that cannot start must not keep the others' clients out."""

STARTING_WAIT_SECONDS = 15.0
"""The same for shards that are starting or up, as the supervisor says: a busy machine takes longer, and whoever is told that
the cluster is ready would be refused."""

LOOK_SECONDS = 0.05
"""How often it is looked then whether one of them has turned out to be down."""


def preload(config: Config) -> None:
    """Makes what every router makes in the same way; the supervisor calls this once before it forks."""
    prepare()
    if config.backend:
        importlib.import_module(".cluster.commands", __package__)
        importlib.import_module(".cluster.director", __package__)


def run(ctx: ChildContext) -> None:
    """Serves until the supervisor says otherwise. Returns when the process shall end."""
    give_memory_back()
    loop = uvloop.new_event_loop()
    processes.give_back_empty_pages(loop)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_Process(ctx, loop).serve())
    finally:
        loop.close()


def _director(config: Config, loop: asyncio.AbstractEventLoop) -> Director | None:
    """What leads the router in front of a Redis Cluster; nothing of that is loaded elsewhere."""
    if not config.backend:
        return None
    from .cluster.director import Director

    return Director(config, loop)


class _Process:
    """The life of one router process."""

    def __init__(self, ctx: ChildContext, loop: asyncio.AbstractEventLoop) -> None:
        self.ctx = ctx
        self.loop = loop
        self.done = asyncio.Event()
        self.draining: asyncio.Task[None] | None = None
        self.told_to_drain = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.shard_states: dict[int, str] = {}
        self.connecting: dict[int, asyncio.Task[None]] = {}
        """What waits for the connection to a shard that is ready."""
        self.director = _director(ctx.config, loop)
        self.router = Router(
            loop,
            ctx.config,
            ctx.shard_paths,
            planner.split,
            slots=ctx.slots,
            slot_epoch=ctx.slot_epoch,
            index=ctx.index,
            boot_id=ctx.boot_id,
            clock=Clock(ctx.anchor_wall_ms, ctx.anchor_boot_ns),
            nested={"epoll": True, "loop": False}.get(ctx.config.reactor),
            address=(ctx.config.bind[0] if ctx.config.bind else "", ctx.port),
            counts=pages.mapped(ctx.pages["clients"]),
            board=Board(pages.mapped(ctx.pages["board"]), ctx.routers),
            claims=Claims(pages.mapped(ctx.pages["claims"]), ctx.index),
            monitors=pages.mapped(ctx.pages["monitors"]),
            tallies=(pages.mapped(ctx.pages["addresses"]), pages.mapped(ctx.pages["users"])),
            users=ctx.users,
            director=self.director,
        )
        self.router.accounts.own_password = ctx.own_password.encode()
        if ctx.modules is not None:
            self._take_modules(ctx.modules)
        if self.director is not None:
            from .cluster.commands import HANDLERS

            self.router.command_table.adapt(HANDLERS)
        if ctx.stage is not None:
            self._play(ctx.stage)
        self.channel = ControlChannel(loop, ctx.control_fd, self._on_message, self._leave)
        self.router.control = self.channel
        self.tls = Tls(self.router, loop, ctx.config, ctx.tls_listeners, self.channel.send)
        self.router.tls = self.tls
        self.router.config_file = ctx.config_file
        self.router.slowlog.number_by(numbers.shared(ctx.pages["numbers"]))
        self.router.running = Running(ctx.pages["running"])
        self.router.pauses = Pauses(ctx.pages["pauses"])
        self.router.rounds = ctx.pages["rounds"]
        self.router.tell_elsewhere = functools.partial(tracking.tell_elsewhere, self.router)

    async def serve(self) -> None:
        """Starts, serves, and returns once drained or abandoned."""
        router = self.router
        router.limit_clients(_descriptors_for_clients(len(self.ctx.shard_paths)))
        self.loop.add_reader(self.ctx.death_fd, self._on_supervisor_gone)
        # A service manager may signal the whole group: then the supervisor's Drain comes as well, and means the same.
        self.loop.add_signal_handler(signal.SIGTERM, self._drain, float(self.ctx.config.drain_seconds))
        # Ctrl-C reaches the whole foreground group; the supervisor decides what it means.
        self.loop.add_signal_handler(signal.SIGINT, lambda: None)
        router.start()
        if not await self._all_up():
            log.warning("serving without some shards: %s", _down_shards(router))
        if self.director is not None:
            await self.director.start(READY_WAIT_SECONDS)
        self._join_in_pause()
        for fd in self.ctx.listeners:
            router.listen(fd)
        self.tls.start()
        # What was imported and built so far lives as long as the process: never scan it again, nor now
        # (see `children.preload`).
        gc.freeze()
        self._look_at_log()
        self.channel.send(Ready())
        await self.done.wait()
        if self.director is not None:
            self.director.stop()
        router.stop()
        self.channel.close()

    async def _all_up(self) -> bool:
        """Whether all shards have answered, once they have or are not worth waiting for any longer."""
        all_up = self.loop.create_task(self.router.all_up())
        began = self.loop.time()
        try:
            await asyncio.wait([all_up], timeout=READY_WAIT_SECONDS)
            while not all_up.done() and self._starting() and self.loop.time() < began + STARTING_WAIT_SECONDS:
                await asyncio.wait([all_up], timeout=LOOK_SECONDS)
            return all_up.done()
        finally:
            all_up.cancel()

    def _starting(self) -> bool:
        """Whether no shard that has not answered yet is known to be down."""
        waited_for = [link.index for link in self.router.links if link.state in ("down", "handshake")]
        return all(self.shard_states.get(index) in ("starting", "up") for index in waited_for)

    def _on_message(self, message: Down) -> None:
        if isinstance(message, ConfigChanged):
            self._take_in(message)
        elif isinstance(message, Slots):
            self.router.take_slots(message.epoch, message.ranges)
            self.channel.send(Ack(message.id))
        elif isinstance(message, UsersChanged):
            self.router.take_users(message.epoch, message.records, message.removed)
            self._spawn(self._acknowledge_users(message.id))
        elif isinstance(message, ModulesAre):
            self._take_modules(message)
            self.channel.send(Ack(message.id))
        elif isinstance(message, StageIs):
            self._play(message.stage)
            self.channel.send(Ack(message.id))
        elif isinstance(message, TlsPrepare | TlsCommit):
            self._take_in_certificate(message)
        elif isinstance(message, Ping):
            self.channel.send(Pong(message.id))
        elif isinstance(message, Question):
            if time.monotonic() < message.until:
                self.channel.answer(message, peers.answer(self.router, message.what, message.words))
        elif isinstance(message, ShardState):
            self.shard_states[message.index] = message.state
            self.router.shard_is(message.index, message.state, message.reason)
            if message.index in self.connecting:
                self.connecting.pop(message.index).cancel()
            if message.id:
                self.connecting[message.index] = self._spawn(self._acknowledge_shard(message))
        elif isinstance(message, Drain):
            if self.told_to_drain:
                self._leave()
            self.told_to_drain = True
            self._drain(message.seconds)

    async def _acknowledge_users(self, number: int) -> None:
        """What clients had under way before the change is answered: nothing is executed by the old rights behind this."""
        await self.router.settle(SETTLE_SECONDS)
        self.channel.send(Ack(number))

    async def _acknowledge_shard(self, message: ShardState) -> None:
        """Clients are not refused any more: the supervisor says then that the shard is up."""
        await self.router.connected_to(message.index, message.pid)
        self.channel.send(Ack(message.id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _take_modules(self, message: ModulesAre) -> None:
        """From here on clients know these commands, and no others of modules."""
        modules = {each.name: [known_row(c.row, c.number) for c in each.commands] for each in message.modules}
        self.router.take_modules(message.epoch, modules)

    def _play(self, stage: Stage) -> None:
        """A test has moved the clock: clients have been idle for so much longer."""
        clock = self.router.clock
        before = clock.data_now()
        clock.simulate(stage.ahead_ms, stage.stands_at_ms)
        self.router.let_pass(max(clock.data_now() - before, 0))

    def _take_in(self, message: ConfigChanged) -> None:
        """Puts a configuration in force, or goes on with the one before and says why."""
        before = self.router.config
        error = ""
        try:
            self._apply(message.config)
        except Exception as refused:
            error = str(refused) if isinstance(refused, KacheError) else f"{type(refused).__name__}: {refused}"
            self._apply(before)
        self.channel.send(Ack(message.id, error))

    def _take_in_certificate(self, message: TlsPrepare | TlsCommit) -> None:
        error = ""
        try:
            if isinstance(message, TlsPrepare):
                self.tls.prepare()
            else:
                self.tls.commit()
        except KacheError as refused:
            error = str(refused)
        except Exception as refused:
            error = f"{type(refused).__name__}: {refused}"
        self.channel.send(Ack(message.id, error))

    def _apply(self, config: Config) -> None:
        self.tls.apply(config)
        logs.set_level(config)
        self.router.apply_config(config)
        self.router.limit_clients(_descriptors_for_clients(len(self.ctx.shard_paths)))

    def _join_in_pause(self) -> None:
        """Clients of the other routers, or of the one that was here before, may be waiting."""
        writes_only, until_ms = self.router.pauses.read()
        if until_ms > self.router.clock.now():
            self.router.pause_clients(writes_only, until_ms)

    def _look_at_log(self) -> None:
        logs.tell_left_out()
        self.loop.call_later(logs.WINDOW_SECONDS / 2, self._look_at_log)

    def _drain(self, seconds: float) -> None:
        if self.draining is not None:
            return
        log.info("draining: answering what is in flight")
        self.draining = self.loop.create_task(self.router.drain(seconds))
        self.draining.add_done_callback(lambda _: self._leave())

    def _leave(self) -> None:
        self.done.set()

    def _on_supervisor_gone(self) -> None:
        # Without a supervisor nobody restarts shards or owns the port: leave at once.
        os._exit(1)


def _descriptors_for_clients(shards: int) -> int:
    """How many clients the process may have open, after raising its own limit as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):
            log.debug("the limit of open files stays at %d", soft)
    if soft == resource.RLIM_INFINITY:
        return 2**31 - 1
    reserved = min(RESERVED_DESCRIPTORS, soft // 4) + shards
    return max(soft - reserved, 1)


def _down_shards(router: Router) -> str:
    return ", ".join(f"{link.index} ({link.reason})" for link in router.links if link.state == "down") or "none"
