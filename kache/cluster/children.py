"""One child of the supervisor: how it is started, and how a new process becomes a child.

`Child` is the supervisor's record of a router or a shard over all its lives. `start_forked` and `start_executed`
give it a process; `enter` is the first thing that process runs. The supervisor finds the child's code by name,
so that nothing in `kache` imports `kache.router` or `kache.shard`.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from kache.cluster import logs, processes
from kache.cluster.control import Conversation, pack
from kache.cluster.messages import ChildContext, ChildStatus, Failed, Health, Kept, Role, State, TlsIs
from kache.config.settings import Config
from kache.errors import KacheError

__all__ = ["Child", "enter", "preload", "signal_name", "start_executed", "start_forked"]

STEADY_SECONDS = 0.5
"""A child that served this long and dies is started again at once; one that dies sooner waits, longer each time."""
FIRST_WAIT = 0.1


@dataclass(slots=True)
class Child:
    """What the supervisor knows of one router or shard. Times are of time.monotonic(), except `started_ms`."""

    role: Role
    index: int
    title: str
    pid: int = 0
    conversation: Conversation | None = None
    state: State = "down"
    restarts: int = -1
    failures: int = 0
    started_ms: int = 0
    ready_at: float = 0.0
    reason: str = ""
    last_words: str = ""
    """The error that the present process told before its end."""
    restart_at: float | None = None
    kill_at: float | None = None
    restarting: bool = False
    waiters: list[tuple[Conversation, int]] = field(default_factory=list)
    """Requests to be acknowledged when this child serves again."""
    asked: bool = False
    """Whether its sign of life is still to come."""
    silent: float = 0.0
    """Seconds for which it has been waited for."""
    unresponsive: bool = False
    listener_due: bool = False
    """Whether its socket was made anew, and it has yet to be given it."""
    kept: Kept | None = None
    """Of a shard that keeps something on disk: the last it has said of that."""
    tls: TlsIs | None = None
    """Of one that has a TLS port: what it serves there."""
    lasts: bool = False
    """Whether its last words were that it cannot start as things are."""
    progress: str = ""
    """Of a shard that loads: how far it is, for people."""

    @property
    def name(self) -> str:
        """``shard 2``, as logs and messages call it."""
        return f"{self.role} {self.index}"

    def wait_before_restart(self, now: float, longest: float) -> float:
        """Seconds to wait after an unexpected end at `now`: none the first time, then growing."""
        if self.ready_at and now - self.ready_at >= STEADY_SECONDS:
            self.failures = 0
        self.failures += 1
        return 0.0 if self.failures == 1 else min(FIRST_WAIT * 2.0 ** min(self.failures - 2, 20), longest)

    def status(self) -> ChildStatus:
        """This child for `kache cluster status`."""
        state: Health = "unresponsive" if self.unresponsive and self.state == "up" else self.state
        reason = f"no sign of life for {self.silent:.0f} s" if self.unresponsive else self.reason
        if self.state == "starting" and self.progress:
            state, reason = "loading", self.progress
        if state == "up" and self.kept is not None and self.kept.error:
            reason = self.kept.error
        if state == "up" and self.tls is not None and self.tls.error:
            reason = self.tls.error
        return ChildStatus(
            role=self.role,
            index=self.index,
            pid=self.pid,
            state=state,
            restarts=max(self.restarts, 0),
            started_ms=self.started_ms,
            reason=reason,
            kept=self.kept,
        )

    def starts(self) -> None:
        """A new process begins."""
        self.restarts += 1
        self.restarting = False
        self.ready_at = 0.0
        self.last_words = self.progress = ""
        self.lasts = False
        self.started_ms = time.time_ns() // 1_000_000
        self.asked = self.unresponsive = self.listener_due = False
        self.silent = 0.0
        self.kept = self.tls = None

    def how_it_ended(self, code: int) -> str:
        """The exit code of its process, and its last words, for people."""
        cause = f"killed by {signal_name(-code)}" if code < 0 else f"exited with status {code}"
        return f"{cause}: {self.last_words.rstrip('.')}" if self.last_words else cause


def signal_name(number: int) -> str:
    """``SIGTERM``; not every number has a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def preload(config: Config) -> None:
    """Import everything a child needs, so that a fork is serving milliseconds later."""
    for role in ("router", "shard"):
        module = importlib.import_module(f"kache.{role}.main")
        # What is found by name rather than imported, such as the handlers of commands.
        getattr(module, "preload", lambda _: None)(config)
    # A child that collects would write to pages that it has in common with the others: what it freed, and what lists of
    # free objects it took down, lie all over them.
    gc.collect()
    processes.trim_memory()


def start_forked(ctx: ChildContext, title: str, forget: Callable[[], None]) -> int:
    """Fork a child for `ctx`; returns its pid. `forget` drops the supervisor's sockets in the child."""
    gc.freeze()  # what exists now is shared with the child for good: no collection need touch it
    parent = os.getpid()
    # A signal between fork and reset would run the supervisor's handler in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                forget()
                status = enter(ctx, title, parent)
            finally:
                os._exit(status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def start_executed(ctx: ChildContext, title: str, _forget: Callable[[], None]) -> int:
    """Start a fresh interpreter for `ctx` with the same descriptors; returns its pid. It has nothing to forget."""
    with tempfile.TemporaryFile() as given:
        given.write(msgspec.msgpack.encode(ctx))
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "kache.cluster.child", str(given.fileno()), str(os.getpid()), title],
            pass_fds=(given.fileno(), *ctx.descriptors()),
            stdin=subprocess.DEVNULL,
        )
    process.returncode = 0  # the supervisor reaps it by its pid, Popen need not
    return process.pid


def enter(ctx: ChildContext, title: str, parent: int) -> int:
    """Turn this new process into the child that `ctx` describes and run it; returns its exit status."""
    processes.reset_signals()
    processes.die_with_parent(parent)
    processes.close_all_but({0, 1, 2, *ctx.descriptors()})
    for fd in ctx.descriptors():
        os.set_inheritable(fd, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)
    random.seed()
    processes.set_title(title)
    name = f"{ctx.role} {ctx.index}"
    logs.set_up(ctx.config, name)
    if ctx.config.pin_cores:
        _pin(ctx)
    if ctx.config.scheduling == "batch":
        processes.schedule_as_batch()
    report = os.dup(ctx.control_fd)  # `run` closes its own
    try:
        importlib.import_module(f"kache.{ctx.role}.main").run(ctx)
        return 0
    except KacheError as error:
        logging.getLogger("kache").error("%s", error)
        _tell(report, str(error), error.lasts)
        return 1
    except BaseException as error:
        logging.getLogger("kache").exception("ended by an error")
        _tell(report, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        return 1
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                pass  # a full disk: there is nobody left to tell


def _pin(ctx: ChildContext) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        place = ctx.index if ctx.role == "router" else ctx.routers + (ctx.index if ctx.role == "shard" else ctx.shards)
        os.sched_setaffinity(0, {cores[place % len(cores)]})


def _tell(fd: int, reason: str, lasts: bool = False) -> None:
    with socket.socket(fileno=fd) as sock:
        try:
            sock.send(pack(Failed(reason[:1000], lasts)))
        except OSError:
            pass  # the supervisor is gone, or full of this child's words: the log has the reason
