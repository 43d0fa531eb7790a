"""The supervisor: the plain process above the routers and the shards.

No event loop, no threads but one that writes a file now and then (`kache.cluster.writing`), everything already imported:
so it can fork at any moment, and a child serves milliseconds later. It owns the port, the Unix sockets, the effective configuration and the time anchor; it starts
what died again, passes changes of the configuration on, answers on the admin socket and ends the cluster in order:
routers first, so that what is in flight is answered, then the shards.

    signals ─┐
    admin ───┼─► selector ─► one handler each ─► timers (restarts, deadlines) ─► …
    children ┘
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from kache.backend.conversation import check_backend
from kache.backend.tls import context_of
from kache.cluster import (
    announcement,
    budget,
    children,
    claims,
    client_counts,
    logs,
    messages,
    processes,
    rounds,
    tallies,
)
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.admins import Admins
from kache.cluster.certificates import CertificateError, checked_in_a_child
from kache.cluster.changes import Changes
from kache.cluster.children import Child
from kache.cluster.control import Conversation
from kache.cluster.dumps import CANCELLED, Dumps
from kache.cluster.durability import DataDirectory
from kache.cluster.ending import GRACE_SECONDS, Ending
from kache.cluster.health import Health
from kache.cluster.last_saves import LastSaves
from kache.cluster.links import Links
from kache.cluster.messages import ChildContext
from kache.cluster.modules import Modules
from kache.cluster.programs import Programs
from kache.cluster.progress import LoadingBar, loading_text
from kache.cluster.questions import Questions
from kache.cluster.resolution import Reported, Resolution
from kache.cluster.resources import Resources
from kache.cluster.service_manager import ServiceManager
from kache.cluster.simulation import Simulation
from kache.cluster.spread import Spread
from kache.cluster.status import cluster_status, ready_line
from kache.cluster.tls_reload import TlsReload
from kache.cluster.transactions import Decision
from kache.cluster.users import Users
from kache.cluster.writing import Writing
from kache.config.changing import changed
from kache.config.file import rewrite
from kache.config.process_count import resolved
from kache.config.settings import Config
from kache.errors import KacheError
from kache.slots import SlotRange, check

__all__ = ["Supervisor"]

PAUSE_SECONDS = 0.05
"""After an error that may come again at once: never spin."""
SPARE_DESCRIPTORS = 128
WRITTEN = 0
"""Beside the numbers of signals."""
BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_log = logging.getLogger("kache")


class Supervisor:
    """One cluster. `run` returns its exit status when it has ended, 1 if not everything that it keeps is on disk; raises KacheError
    when it cannot start.

    `reload` reads the configuration again (SIGHUP). `exit_fd` is a descriptor whose end stops the cluster, so that
    none outlives the program that started it. `on_ready` is told once, in one sentence, when clients are served,
    and whether that is by all processes: some may have shown that they cannot come up.
    `for_tests`: its owner may stage what `kache.cluster.simulation` offers.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_file: str | None = None,
        reload: Callable[[], Config] | None = None,
        exit_fd: int | None = None,
        on_ready: Callable[[str, bool], None] = lambda text, whole: print(text),
        for_tests: bool = False,
    ) -> None:
        self._config_file = config_file
        self._read = None if reload is None else lambda: resolved(reload())
        self._exit_fd = exit_fd
        self._on_ready = on_ready
        self._announced = False
        self._selector = selectors.DefaultSelector()
        self._started_ms = time.time_ns() // 1_000_000
        self._anchor = (time.time_ns() // 1_000_000, time.clock_gettime_ns(BOOT_CLOCK))
        self._boot_id = secrets.randbits(64)
        self._own_password = secrets.token_hex(32)
        self._slot_epoch = 1
        config = resolved(config)
        self._data = DataDirectory(config)
        self._slots = self._data.slots
        self._writing = Writing(self._wake)
        self._resolution = Resolution(
            config.shards,
            config.appendfsync == "always",
            self._resolved,
            lambda what, then: self._writing.do(functools.partial(self._data.keep_unfinished, what), then),
        )
        self._loading = LoadingBar(not config.logfile)
        self._dumps = Dumps(self._tell_shard, range(config.shards), self._show_round)
        self._children: list[Child] = []
        self._acknowledgements = Acknowledgements()
        self._spread = Spread(config, self._data, self._children, self._acknowledgements, self._send)
        self._users = Users(self._children, self._acknowledgements, self._send)
        self._changes = Changes(self._spread, self._after_change)
        self._questions = Questions(self._children, self._acknowledgements, self._send, self._answer)
        self._modules = Modules(self._children, self._acknowledgements, self._selector, self._send)
        self._programs = Programs(self._children, self._acknowledgements, self._send, self._data.keep_functions)
        self._links = Links(self._children, self._acknowledgements, self._send, self._on_child_up)
        self._health = Health(self._children, self._send, self._on_unresponsive)
        self._certificates = TlsReload(self._children, self._acknowledgements, self._send, lambda: self.config)
        self._troubles: list[str] = []
        self._manager = ServiceManager(os.environ)
        self._last_saves = LastSaves(self._children, self._send)
        self._end = Ending(
            self._spread,
            self._data,
            self._children,
            self._send,
            self._last_saves,
            on_saving=lambda: self._dumps.cancel(rewrites=True),
            on_end=self._on_end,
        )
        self._simulation = Simulation(self._children, self._acknowledgements, self._send, self._answer, for_tests)

    @property
    def config(self) -> Config:
        """The effective one."""
        return self._spread.config

    # Life of the cluster ---------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start the cluster and look after it until it has ended."""
        logs.set_up(self.config, "supervisor")
        self._modules.start(self.config.modules)
        if self.config.tls_port or self.config.metrics_tls:
            trouble = checked_in_a_child(self.config)
            if trouble:
                raise CertificateError(trouble)
        if self.config.backend:
            tls = context_of(self.config)
            check_backend(self.config.backend, self.config.backend_user, self.config.backend_password, tls)
        # Who ends it in this moment must not leave the files behind that are made in it: `_catch_signals` hears of it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        try:
            self._open()
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise
        try:
            announcement.announce(self.config, os.environ)
            self._admins = Admins(self._selector, self._resources.admin, self._on_request)
            if self._exit_fd is not None:
                os.set_inheritable(self._exit_fd, False)
                self._selector.register(self._exit_fd, selectors.EVENT_READ, self._on_starter_gone)
            if not self.config.core_dumps:
                processes.forbid_core_dumps()
            processes.raise_descriptor_limit(self.config.maxclients + SPARE_DESCRIPTORS)
            processes.set_title(f"kache: supervisor :{self._resources.name}")
            self._catch_signals()
            if not self._executes():
                children.preload(self.config)
            self._children += [self._child("shard", index) for index in range(self.config.shards)]
            self._children += [self._child("router", index) for index in range(self.config.routers)]
            self._children += [self._child("metrics", 0)] if self.config.metrics_port else []
            self._start(*self._children)
            while self._end.phase != "ended":
                self._turn()
        finally:
            self._leave()
        return 1 if self._end.unsaved else 0

    def _open(self) -> None:
        """Everything that is the cluster's alone; raises KacheError when something cannot be had, and has nothing then."""
        self._resources = Resources(self.config, os.environ)
        self._spread.config = msgspec.structs.replace(self.config, port=self._resources.port)
        try:
            self._users.start(self.config)
            self._data.start(self.config)
            self._programs.start(self._data.functions)
            if self._data.is_open:
                self._resolution.begin(self._data.unfinished)
        except BaseException:
            self._resources.leave()
            raise
        self._slots = self._data.slots

    def _leave(self) -> None:
        for child in self._children:
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)
                try:
                    os.waitpid(child.pid, 0)
                except ChildProcessError:
                    pass  # somebody else has seen its end
        self._modules.close()
        self._resources.leave()
        self._admins.close()
        if self._writing.close(GRACE_SECONDS):
            # Else with the end of the process, so that nobody else has the directory while it is written to.
            self._data.close()
            self._end.let_go()

    def _turn(self) -> None:
        """One round. Whatever arrives cannot end the supervisor: an error costs the conversation that it came from."""
        for key, mask in self._selector.select(self._until_next_timer()):
            try:
                key.data(mask)
            except Exception:
                _log.exception("internal error with what was received")
                time.sleep(PAUSE_SECONDS)
        try:
            self._on_timers()
        except Exception:
            _log.exception("internal error in a timer")
            time.sleep(PAUSE_SECONDS)

    def _on_timers(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.restart_at is not None and now >= child.restart_at and self._end.phase == "serving":
                self._start(child)
            if child.kill_at is not None and now >= child.kill_at and child.pid:
                child.kill_at = None
                _log.warning("%s did not end in time and is killed", child.name)
                os.kill(child.pid, signal.SIGKILL)
        self._acknowledgements.expire(now)
        self._modules.expire(now)
        if now >= self._health.due:
            self._health.look(now, self.config.unresponsive_seconds)
            if self._end.phase == "serving" and self._data.is_open:
                self._dumps.look(now, self.config)
            self._look_after_children(now)
            self._certificates.look(now)
            self._resolution.look()
            self._last_saves.look()
            self._writing.look()
            logs.tell_left_out()
            self._manager.alive()
        if self._end.phase != "serving":
            self._end.go_on()

    def _until_next_timer(self) -> float:
        times = [at for child in self._children for at in (child.restart_at, child.kill_at) if at is not None]
        times += [*self._acknowledgements.deadlines(), *self._modules.deadlines(), self._health.due]
        return max(0.0, min(times) - time.monotonic())

    def _look_after_children(self, now: float) -> None:
        """Whatever went wrong when one ended, its end is seen, and it comes back; and routers find all shards."""
        self._reap()
        if self._end.phase == "serving":
            for child in self._children:
                if not child.pid and child.restart_at is None and not self._simulation.keeps_down(child):
                    child.restart_at = now
            self._look_after_files()

    def _look_after_files(self) -> None:
        """Make again what was removed from the run directory, and let the shards have their new sockets."""
        troubles = self._resources.heal(self._on_new_listener, self._admins.listen)
        for trouble in troubles:
            if trouble not in self._troubles:
                _log.warning("%s", trouble)
        self._troubles = troubles
        for child in self._children:
            if child.listener_due and child.conversation is not None:
                listener = self._resources.shard_listeners[child.index]
                child.listener_due = not child.conversation.send_descriptor(messages.NewListener(), listener)
                self._watch(child.conversation, functools.partial(self._on_child, child))

    def _on_new_listener(self, shard: int) -> None:
        child = next(child for child in self._children if child.role == "shard" and child.index == shard)
        child.listener_due = child.pid != 0  # one that is started later has it from its start

    # Signals ---------------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the wake-up descriptor carries the number
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._on_signals)

    def _on_signals(self, _mask: int) -> None:
        try:
            numbers = self._wake_reader.recv(4096)
        except BlockingIOError:
            return
        for number in set(numbers):
            if number == WRITTEN:
                self._writing.look()
            elif number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._reload(lambda error: None)
            else:
                self._stop(signal.Signals(number).name)

    def _wake(self) -> None:
        """In the thread of `Writing`: it has something for us."""
        with contextlib.suppress(OSError):  # what is full wakes us, too, and the next look is due soon
            self._wake_writer.send(bytes([WRITTEN]))

    def _reload(self, answer: Callable[[str], None]) -> None:
        """Read the configuration again, and the certificate behind it; `answer` gets what could not be taken in."""

        def then(error: str) -> None:
            self._certificates.ask(lambda also: answer(error or also))

        if self._read is None:
            then("")
        else:
            self._changes.read_again(self._read, then)

    def _stop(self, cause: str) -> None:
        self._simulation.end()
        self._end.begin(cause)

    def _on_end(self) -> None:
        """From here on nothing holds the end up any more."""
        self._manager.stopping()
        self._resolution.stop()

    def _on_starter_gone(self, _mask: int) -> None:
        assert self._exit_fd is not None
        self._selector.unregister(self._exit_fd)
        self._end.force()  # there is nobody left who could do anything about what cannot be saved
        if self._end.phase == "serving":
            self._stop("the end of the program that started it")

    # Children --------------------------------------------------------------------------------------------------

    def _child(self, role: messages.Role, index: int) -> Child:
        alone = role == "metrics" or (role == "router" and self.config.routers == 1)
        number = "" if alone else f" {index}"
        return Child(role, index, f"kache: {role}{number} :{self._resources.name}")

    def _executes(self) -> bool:
        method = self.config.start_method
        return method == "exec" or (method == "auto" and sys.platform == "darwin")

    def _start(self, *starting: Child) -> None:
        """Give each of them a process; one that the system refuses now is tried again later.

        They are forked one right behind the other, everything being made before and told behind it: a page that this process
        writes to between two forks is no longer common to those two children.
        """
        ends = {id(child): theirs for child in starting if (theirs := self._prepared(child)) is not None}
        made = [(child, self._context(child, ends[id(child)])) for child in starting if id(child) in ends]
        forget = functools.partial(self._forget, list(ends.values()))
        start = children.start_executed if self._executes() else children.start_forked
        refused: list[tuple[Child, OSError | MemoryError]] = []
        try:
            for child, ctx in made:
                try:
                    child.pid = start(ctx, child.title, forget)
                except (OSError, MemoryError) as error:
                    refused.append((child, error))
        finally:
            for theirs in ends.values():
                theirs.close()
        for child, reason in refused:
            if child.conversation is not None:
                child.conversation.close()
                child.conversation = None
            self._on_refused(child, reason)
        self._on_started([child for child, _ in made if child.conversation is not None])

    def _prepared(self, child: Child) -> socket.socket | None:
        """The end of the control channel that a new process of this child gets; None if the system refuses to make one."""
        child.restart_at = child.kill_at = None
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._on_refused(child, error)
            return None
        child.conversation = Conversation(ours, is_child=True)
        return theirs

    def _on_started(self, started: list[Child]) -> None:
        for child in started:
            assert child.conversation is not None
            child.starts()
            if child.role == "shard":
                self._resolution.started(child.index)
            at = child.conversation.fileno()
            self._selector.register(at, selectors.EVENT_READ, functools.partial(self._on_child, child))
        for child in started:
            self._set_state(child, "starting")  # all routers are told
        for router in started:
            for shard in self._children:
                if router.role == "router" and shard.role == "shard" and shard not in started:
                    self._send(router, messages.ShardState(shard.index, shard.state, shard.reason))

    def _on_refused(self, child: Child, error: OSError | MemoryError) -> None:
        child.reason = f"cannot be started: {error.strerror if isinstance(error, OSError) else 'out of memory'}"
        wait = max(child.wait_before_restart(time.monotonic(), self.config.restart_backoff_ms / 1000), 0.1)
        _log.warning("%s %s; trying again in %g s", child.name, child.reason, wait)
        child.restart_at = time.monotonic() + wait

    def _context(self, child: Child, theirs: socket.socket) -> ChildContext:
        """What a process for `child` is told, `theirs` being its end of the control channel."""
        resources = self._resources
        return ChildContext(
            role=child.role,
            index=child.index,
            shards=self.config.shards,
            routers=self.config.routers,
            port=self.config.port,
            config=self.config,
            anchor_wall_ms=self._anchor[0],
            anchor_boot_ns=self._anchor[1],
            hash_seed=self._data.hash_seed,
            boot_id=self._boot_id,
            listeners=resources.listeners(child.role, child.index),
            tls_listeners=resources.tls_listeners if child.role == "router" else [],
            shard_paths=resources.shard_paths,
            slots=self._slots,
            slot_epoch=self._slot_epoch,
            control_fd=theirs.fileno(),
            death_fd=resources.death_reader,
            pages=resources.pages(child.role),
            run_dir=resources.run_dir,
            data=self._data.of_shard(child.index) if child.role == "shard" else None,
            restarts=child.restarts + 1,
            config_file=self._config_file,
            modules=self._modules.of_child(child.role),
            libraries=self._programs.libraries if child.role == "shard" else [],
            scripts=self._programs.scripts if child.role == "shard" else [],
            stage=self._simulation.stage,
            users=list(self._users.records.values()),
            acl_epoch=self._users.epoch,
            own_password=self._own_password if child.role != "shard" else "",
        )

    def _forget(self, ends: Iterable[socket.socket]) -> None:
        """In a forked child: let go of every socket object, whose number may soon be another file's. `ends` are those of the
        children that are started together."""
        for theirs in ends:
            theirs.detach()
        self._data.abandon()
        self._admins.abandon()
        self._wake_reader.detach()
        self._wake_writer.detach()
        for child in self._children:
            if child.conversation is not None:
                child.conversation.abandon()
        self._selector.close()  # the child's reference to it; the supervisor's registrations stay

    def _on_child(self, child: Child, mask: int) -> None:
        if child.conversation is None:
            return
        if mask & selectors.EVENT_WRITE:
            child.conversation.on_writable()
            self._watch(child.conversation, functools.partial(self._on_child, child))
        if not mask & selectors.EVENT_READ:
            return
        received, alive = child.conversation.on_readable()
        for message in received:
            match message:
                case messages.Ready():
                    self._on_child_ready(child)
                case messages.Failed(reason=reason, lasts=lasts):
                    child.last_words, child.lasts = reason, lasts
                case messages.Ack(id=number, error=error):
                    if not self._acknowledgements.acknowledged(number, child.name, error) and error:
                        _log.warning("%s cannot take a change in: %s", child.name, error)
                case messages.Pong():
                    if self._health.answered(child):
                        self._send(child, self._spread.message(child, 0, self.config))
                        self._certificates.lives_again(child)
                case messages.Reports(shares=shares, number=told, newest=newest):
                    self._resolution.report(child.index, Reported(shares, told, newest))
                case messages.Recorded(number=told):
                    self._resolution.recorded(child.index, told)
                case messages.TlsIs():
                    child.tls = message
                case messages.Loading():
                    child.progress = loading_text(message)
                    self._loading.told(child.index, message)
                case messages.Kept():
                    child.kept = message
                    self._dumps.kept(child.index, message)
                case messages.Dumped(id=number, error=error):
                    if not self._dumps.answered(child.index, number, error):
                        self._last_saves.answered(child.index, number, error)
                case messages.Answer():
                    self._questions.on_answer(child, message)
                case _:
                    self._on_request(child.conversation, message)
        if not alive:
            self._end_conversation(child)

    def _end_conversation(self, child: Child) -> None:
        if child.conversation is not None:
            self._selector.unregister(child.conversation)
            child.conversation.close()
            child.conversation = None
            if child.pid and child.kill_at is None:
                # It is on its way out, or has said what nobody understands: either way nothing can be told to it.
                child.kill_at = time.monotonic() + GRACE_SECONDS

    def _on_unresponsive(self, child: Child) -> None:
        if self._end.phase == "serving" and self.config.restart_unresponsive in ("all", f"{child.role}s"):
            child.last_words = f"no sign of life for {child.silent:.0f} s"
            os.kill(child.pid, signal.SIGKILL)

    def _on_child_ready(self, child: Child) -> None:
        child.ready_at = time.monotonic()
        self._loading.over(child.index if child.role == "shard" else -1)
        if child.role == "shard":
            self._links.ready(child)
        else:
            self._on_child_up(child)

    def _on_child_up(self, child: Child) -> None:
        self._set_state(child, "up")
        if child.restarts:
            _log.info("%s (pid %d) serves again", child.name, child.pid)
        self._answer_waiters(child, "")
        self._announce()

    def _resolved(self, shard: int, decision: Decision, number: int | None) -> None:
        told = messages.Resolved(decision.skip, decision.cut_at, decision.half, number or 0, number is not None)
        self._tell_shard(shard, told)

    def _tell_shard(self, shard: int, message: messages.Down) -> bool:
        """Whether it is there to be told."""
        for child in self._children:
            if (child.role, child.index) == ("shard", shard) and child.conversation is not None:
                self._send(child, message)
                return True
        return False

    def _show_round(self, what: int) -> None:
        rounds.write(self._resources.rounds, what, time.time_ns() // 1_000_000)

    def _announce(self) -> None:
        """Say once that the cluster serves: when every child is up, or has shown that it cannot come up."""
        broken = [child for child in self._children if child.state != "up"]
        routers_up = any(child.role == "router" and child.state == "up" for child in self._children)
        if self._announced or not routers_up or any(child.failures < 2 for child in broken):
            return
        self._announced = True
        self._manager.ready(ready_line(self.config, broken))
        try:
            self._on_ready(ready_line(self.config, broken), not broken)
        except OSError as error:
            _log.warning("nobody could be told that it is ready: %s", error.strerror)
        processes.let_go_of_files()

    def _reap(self) -> None:
        for child in self._children:
            if child.pid:
                try:
                    pid, status = os.waitpid(child.pid, os.WNOHANG)
                except ChildProcessError:
                    pid, status = child.pid, 0  # somebody else has seen its end
                if pid:
                    self._on_child_end(child, os.waitstatus_to_exitcode(status))

    def _on_child_end(self, child: Child, code: int) -> None:
        pid, child.pid = child.pid, 0
        child.kill_at = None
        if child.conversation is not None:
            self._on_child(child, selectors.EVENT_READ)  # its last words: Failed
            self._end_conversation(child)
        child.reason = child.how_it_ended(code)
        child.unresponsive = False
        self._acknowledgements.gone(child.name)
        if child.role == "shard":
            self._resolution.gone(child.index, not self._simulation.keeps_down(child), child.lasts)
            self._loading.over(child.index)
            self._dumps.gone(child.index)
            self._last_saves.gone(child, code == 0)
        if child.role == "router":
            client_counts.clear(self._resources.client_counts, child.index)
            tallies.clear(self._resources.tallies, child.index)
            claims.void(self._resources.claims, child.index)
        elif child.role == "shard":
            budget.clear(self._resources.budget, child.index)
        if self._end.phase != "serving":
            child.state = "down"
            return
        if child.restarting:
            child.reason = "restarted on request"
            child.failures = 0
            wait = 0.0
        else:
            wait = child.wait_before_restart(time.monotonic(), self.config.restart_backoff_ms / 1000)
            when = f"in {wait:g} s" if wait else "at once"
            _log.warning("%s (pid %d) ended: %s; starting it again %s", child.name, pid, child.reason, when)
            self._answer_waiters(child, f"{child.name} ended: {child.reason}")
        self._set_state(child, "down")
        child.restart_at = None if self._simulation.keeps_down(child) else time.monotonic() + wait
        self._announce()

    def _set_state(self, child: Child, state: messages.State) -> None:
        child.state = state
        if child.role == "shard":
            for other in self._children:
                if other.role == "router":
                    self._send(other, messages.ShardState(child.index, state, "" if state == "up" else child.reason))

    def _send(self, child: Child, message: messages.Down) -> None:
        if child.conversation is not None:
            child.conversation.send(message)
            self._watch(child.conversation, functools.partial(self._on_child, child))

    def _watch(self, conversation: Conversation, handler: Callable[[int], None]) -> None:
        """Wait for writability while something is unsent."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if conversation.wants_write else 0)
        if self._selector.get_key(conversation).events != events:
            self._selector.modify(conversation, events, handler)

    # Requests: from routers, and from the command line over the admin socket ------------------------------------

    def _on_request(self, asker: Conversation, message: Any) -> None:
        try:
            self._carry_out(asker, message)
        except Exception as error:
            _log.exception("internal error with a request")
            self._answer(asker, messages.Ack(message.id, f"internal error: {error!r:.200}"))

    def _carry_out(self, asker: Conversation, message: Any) -> None:
        match message:
            case messages.StatusRequest(id=number):
                draining = self._end.phase != "serving"
                slots = (self._slot_epoch, self._slots)
                run_dir = self._resources.run_dir
                status = cluster_status(self.config, self._children, slots, self._started_ms, run_dir, draining)
                status.troubles = self._troubles + [text for text in (self._certificates.trouble,) if text]
                self._answer(asker, messages.StatusReply(number, status))
            case messages.ConfigSet(id=number, values=values):
                self._changes.ask(
                    lambda config: changed(config, values),
                    lambda error: self._answer(asker, messages.Ack(number, error)),
                )
            case messages.ConfigRewrite(id=number):
                self._answer(asker, messages.Ack(number, self._rewrite()))
            case messages.AclChange(id=number):
                self._users.change(message, functools.partial(self._answer_count, asker, number))
            case messages.AclFile(id=number, what=what):
                work = self._users.load if what == "load" else self._users.save
                work(functools.partial(self._answer_count, asker, number))
            case messages.Reload(id=number):
                self._reload(lambda error: self._answer(asker, messages.Ack(number, error)))
            case messages.RestartShard(id=number, index=index):
                self._on_restart(asker, number, index)
            case messages.SetStage(id=number, stage=stage):
                self._simulation.ask(asker, number, stage)
            case messages.Save(id=number, what=what):
                self._save(asker, number, what)
            case messages.AskRouters(id=number, what=what, words=words):
                self._questions.ask(asker, number, what, words)
            case messages.FunctionChange(id=number):
                self._programs.change(message, lambda error: self._answer(asker, messages.Ack(number, error)))
            case messages.ScriptChange(id=number, text=text):
                self._programs.script(text, lambda error: self._answer(asker, messages.Ack(number, error)))
            case messages.ModuleLoad() | messages.ModuleUnload() | messages.ModuleList() if asker in self._admins:
                self._on_module_request(asker, message)
            case messages.Shutdown():
                self._shut_down(asker, message)

    def _shut_down(self, asker: Conversation, message: messages.Shutdown) -> None:
        """Ends the cluster, unless that would lose what it is to keep. A client's connection, which comes with its request, stays
        open until everything is on disk."""

        def answer(error: str) -> None:
            self._answer(asker, messages.Ack(message.id, error))

        held = asker.take_descriptor()
        if self._end.phase != "serving":
            # Another's request is being carried out: this one waits for the same end, unless it is to come at once.
            if held >= 0:
                self._end.hold(held, message.refusal)
                answer("")
            else:
                self._end.tell(answer)
            if message.force and asker in self._admins:
                self._stop("a request to stop")
            return
        if asker in self._admins:
            self._end.tell(answer)
            self._end.ask(message.save, message.now, message.force)
            self._stop("a request to stop")
        else:
            self._shut_down_for_client(held, message, answer)

    def _shut_down_for_client(self, held: int, message: messages.Shutdown, answer: Callable[[str], None]) -> None:
        """Its router lives on if it has to be told that not everything can be saved: so that is tried before anybody leaves."""

        def then(error: str) -> None:
            if error and self._end.phase == "serving":
                if held >= 0:
                    os.close(held)
                answer(error)
                return
            if held >= 0:
                self._end.hold(held, message.refusal)
            answer("")
            if self._end.phase == "serving":
                self._end.ask(message.save, message.now, message.force)
                self._stop("a request to stop")

        if message.save:
            try:
                self._spread.open_data()
            except KacheError as error:
                if not message.force:
                    then(str(error))
                    return
                _log.warning("nothing can be saved: %s", error)
                self._end.unsaved = str(error)
        if message.force or not self._end.keeps(message.save):
            then("")
        else:
            self._dumps.cancel(rewrites=True)  # what is saved now is saved for the last time
            self._last_saves.ask(message.save, then)

    def _answer_count(self, asker: Conversation, number: int, error: str, count: int) -> None:
        self._answer(asker, messages.Ack(number, error, count))

    def _after_change(self, before: Config, after: Config, answer: Callable[[str], None]) -> None:
        """What the configuration says beyond itself: `requirepass` is the password of the default user."""
        if before.requirepass == after.requirepass:
            answer("")
        else:
            self._users.require(after, lambda error, _: answer(error))

    def _rewrite(self) -> str:
        """Write the changed settings, and the users unless they have a file of their own; "" or why not."""
        try:
            users = None if self.config.aclfile else self._users.as_settings(self.config)
        except KacheError as error:
            return str(error)
        config = self.config
        if users and "default" in users:
            config = msgspec.structs.replace(config, requirepass="")
        return rewrite(self._config_file, config, users)

    def _on_module_request(self, asker: Conversation, message: Any) -> None:
        """Of the command line alone: whoever may execute code here owns the cluster."""

        def answer(error: str) -> None:
            self._answer(asker, messages.Ack(message.id, error))

        match message:
            case messages.ModuleLoad(path=path, source=source, replace=replace):
                self._modules.load(path, source, replace, answer)
            case messages.ModuleUnload(name=name):
                self._modules.unload(name, answer)
            case _:
                self._answer(asker, messages.ModulesReply(message.id, self._modules.listed))

    def _save(self, asker: Conversation, number: int, what: str) -> None:
        """BGSAVE, SAVE, BGREWRITEAOF: a round of dumps; `what` is that of `messages.Save`."""
        if what == "cancel":
            waits = not self._dumps.saving
            self._answer(asker, messages.Ack(number, self._dumps.cancel(), int(waits)))
            return
        try:
            self._spread.open_data()
        except KacheError as error:
            _log.warning("nothing can be saved: %s", error)
            for shard in range(self.config.shards):
                self._tell_shard(shard, messages.SaveRefused(str(error)))
            self._answer(asker, messages.Ack(number, f"ERR {error}"))
            return

        urgent, waits = what == "save", self._dumps.running

        def over(error: str) -> None:
            if error and error != CANCELLED:
                _log.warning("a dump that was asked for has failed: %s", error)
            if urgent:
                self._answer(asker, messages.Ack(number, error))

        refused = self._dumps.ask(
            rewrite=what == "bgrewriteaof", urgent=urgent, schedule=what == "schedule", answer=over
        )
        if refused or not urgent:
            self._answer(asker, messages.Ack(number, refused, int(waits)))

    def _take_in_slots(self, slots: list[SlotRange], answer: Callable[[str], None]) -> None:
        """Make `slots` the map of the cluster; `answer` is called once every child goes by it, or with what went wrong.

        Nobody but the supervisor changes the map, and it does so only for whoever has moved the keys.
        """
        check(slots, self.config.shards)  # raises ValueError for what is no map
        self._slot_epoch += 1
        self._slots = slots
        epoch = self._slot_epoch
        self._spread.tell_all(lambda number: messages.Slots(number, epoch, slots), answer)

    def _on_restart(self, asker: Conversation, request: int, index: int) -> None:
        role, number = ("shard", index) if index >= 0 else ("router", -1 - index)
        child = next((c for c in self._children if (c.role, c.index) == (role, number)), None)
        if child is None:
            self._answer(asker, messages.Ack(request, f"there is no {role} {number}"))
            return
        if self._end.phase != "serving":
            self._answer(asker, messages.Ack(request, "the cluster is stopping"))
            return
        child.waiters.append((asker, request))
        if not child.pid:
            child.failures = 0
            child.restart_at = time.monotonic()
        elif not child.restarting:
            child.restarting = True
            self._restart(child)

    def _restart(self, child: Child) -> None:
        """Have one end and come back; not one that would come back without what it is to keep."""

        def then(error: str) -> None:
            if error:
                child.restarting = False
                _log.error("%s is not restarted, since its data cannot be saved (%s)", child.name, error)
                self._answer_waiters(child, f"{child.name} is not restarted, since its data cannot be saved ({error})")
            elif self._end.phase != "serving":
                child.restarting = False
                self._answer_waiters(child, "the cluster is stopping")
            elif child.pid:
                _log.info("%s (pid %d) is restarted on request", child.name, child.pid)
                child.reason = "restarting"
                self._set_state(child, "down")
                self._end.drain(child)

        if child.role == "shard" and child.ready_at and not child.unresponsive and self._end.keeps(None):
            self._last_saves.ask(None, then, child)
        else:
            then("")

    def _answer(self, asker: Conversation, message: messages.Down) -> None:
        """Answer a request that had to wait, if whoever asked is still there."""
        child = next((child for child in self._children if child.conversation is asker), None)
        if child is not None:
            self._send(child, message)
        else:
            self._admins.send(asker, message)

    def _answer_waiters(self, child: Child, error: str) -> None:
        for asker, request in child.waiters:
            self._answer(asker, messages.Ack(request, error))
        child.waiters.clear()
