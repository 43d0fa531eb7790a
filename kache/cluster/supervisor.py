"""The supervisor: the plain process above the routers and the shards.

No event loop, no threads, everything already imported: so it can fork at any moment, and a child serves
milliseconds later. It owns the port, the Unix sockets, the effective configuration and the time anchor; it starts
what died again, passes changes of the configuration on, answers on the admin socket and ends the cluster in order:
routers first, so that what is in flight is answered, then the shards.

    signals ─┐
    admin ───┼─► selector ─► one handler each ─► timers (restarts, deadlines) ─► …
    children ┘
"""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from kache.cluster import children, client_counts, control, logs, messages, processes
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.admins import Admins
from kache.cluster.children import Child
from kache.cluster.control import Conversation
from kache.cluster.messages import ChildContext
from kache.cluster.resources import Resources
from kache.cluster.status import cluster_status, ready_line
from kache.config.file import ConfigFileError, rewrite
from kache.config.process_count import resolved
from kache.config.settings import SETTINGS, Config, ConfigError, changed
from kache.slots import SlotRange, contiguous, owners

__all__ = ["Supervisor"]

GRACE_SECONDS = 1.0
"""How long after its time to drain a child is killed."""
SPARE_DESCRIPTORS = 128
BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_log = logging.getLogger("kache")


class Supervisor:
    """One cluster. `run` returns its exit status when it has ended; raises KacheError when it cannot start.

    `reload` reads the configuration again (SIGHUP). `exit_fd` is a descriptor whose end stops the cluster, so that
    none outlives the program that started it. `on_ready` is told once, in one sentence, when clients are served.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_file: str | None = None,
        reload: Callable[[], Config] | None = None,
        exit_fd: int | None = None,
        on_ready: Callable[[str], None] = print,
    ) -> None:
        self.config = resolved(config)
        self._config_file = config_file
        self._reload = reload
        self._exit_fd = exit_fd
        self._on_ready = on_ready
        self._announced = False
        self._selector = selectors.DefaultSelector()
        self._started_ms = time.time_ns() // 1_000_000
        self._anchor = (time.time_ns() // 1_000_000, time.clock_gettime_ns(BOOT_CLOCK))
        self._hash_seed = secrets.token_bytes(16)
        self._boot_id = secrets.randbits(64)
        self._slot_epoch = 1
        self._slots = contiguous(self.config.shards)
        self._children: list[Child] = []
        self._acknowledgements = Acknowledgements()
        self._askers: dict[int, tuple[Conversation, int]] = {}
        """Who asked the routers, under which number of its own, by the number of the question."""
        self._phase = "serving"

    # Life of the cluster ---------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start the cluster and look after it until it has ended."""
        logs.set_up(self.config, "supervisor")
        self._resources = Resources(self.config, os.environ)
        self.config = msgspec.structs.replace(self.config, port=self._resources.port)
        try:
            self._admins = Admins(self._selector, self._resources.admin, self._on_request)
            if self._exit_fd is not None:
                os.set_inheritable(self._exit_fd, False)
                self._selector.register(self._exit_fd, selectors.EVENT_READ, self._on_starter_gone)
            processes.raise_descriptor_limit(self.config.maxclients + SPARE_DESCRIPTORS)
            processes.set_title(f"kache: supervisor :{self.config.port}")
            self._catch_signals()
            if not self._executes():
                children.preload()
            self._children = [self._child("shard", index) for index in range(self.config.shards)]
            self._children += [self._child("router", index) for index in range(self.config.routers)]
            for child in self._children:
                self._start(child)
            while self._phase != "ended":
                self._turn()
        finally:
            self._leave()
        return 0

    def _leave(self) -> None:
        for child in self._children:
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
        self._resources.leave()
        self._admins.close()

    def _turn(self) -> None:
        for key, mask in self._selector.select(self._until_next_timer()):
            key.data(mask)
        now = time.monotonic()
        for child in self._children:
            if child.restart_at is not None and now >= child.restart_at and self._phase == "serving":
                self._start(child)
            if child.kill_at is not None and now >= child.kill_at and child.pid:
                child.kill_at = None
                _log.warning("%s did not end in time and is killed", child.name)
                os.kill(child.pid, signal.SIGKILL)
        self._acknowledgements.expire(now)
        if self._phase != "serving":
            self._drain_on()

    def _until_next_timer(self) -> float | None:
        times = [at for child in self._children for at in (child.restart_at, child.kill_at) if at is not None]
        times += self._acknowledgements.deadlines()
        return max(0.0, min(times) - time.monotonic()) if times else None

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
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._read_again()
            else:
                self._stop(signal.Signals(number).name)

    def _on_starter_gone(self, _mask: int) -> None:
        assert self._exit_fd is not None
        self._selector.unregister(self._exit_fd)
        self._stop("the end of the program that started it")

    def _read_again(self) -> None:
        if self._reload is None:
            return
        try:
            fresh = self._reload()
        except ConfigError as error:
            _log.warning("the configuration was not read again: %s", error)
            return
        fresh = resolved(fresh)
        live = {name: s.show(fresh.setting(name)) for name, s in SETTINGS.items() if s.live}
        fixed = [n for n, s in SETTINGS.items() if not s.live and fresh.setting(n) != self.config.setting(n)]
        self._take_in(changed(self.config, live))
        needs = [name for name in fixed if name != "port" or fresh.port]
        _log.info("configuration read again%s", f"; a restart is needed for {', '.join(needs)}" if needs else "")

    # Children --------------------------------------------------------------------------------------------------

    def _child(self, role: messages.Role, index: int) -> Child:
        number = "" if role == "router" and self.config.routers == 1 else f" {index}"
        return Child(role, index, f"kache: {role}{number} :{self.config.port}")

    def _executes(self) -> bool:
        method = self.config.start_method
        return method == "exec" or (method == "auto" and sys.platform == "darwin")

    def _start(self, child: Child) -> None:
        """Give `child` a process; one that the system refuses now is tried again later."""
        child.restart_at = child.kill_at = None
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._on_refused(child, error)
            return
        child.conversation = Conversation(ours)
        try:
            child.pid = self._started(child, theirs)
        except OSError as error:
            child.conversation.close()
            child.conversation = None
            self._on_refused(child, error)
            return
        finally:
            theirs.close()
        child.restarts += 1
        child.restarting = False
        child.ready_at = 0.0
        child.last_words = ""
        child.started_ms = time.time_ns() // 1_000_000
        self._selector.register(ours, selectors.EVENT_READ, lambda mask: self._on_child(child, mask))
        self._set_state(child, "starting")
        if child.role == "router":
            for shard in self._children:
                if shard.role == "shard":
                    self._send(child, messages.ShardState(shard.index, shard.state, shard.reason))

    def _on_refused(self, child: Child, error: OSError) -> None:
        child.reason = f"cannot be started: {error.strerror}"
        wait = max(child.wait_before_restart(time.monotonic(), self.config.restart_backoff_ms / 1000), 0.1)
        _log.warning("%s %s; trying again in %g s", child.name, child.reason, wait)
        child.restart_at = time.monotonic() + wait

    def _started(self, child: Child, theirs: socket.socket) -> int:
        """Start a process for `child`, `theirs` being its end of the control channel; returns its pid."""
        resources = self._resources
        ctx = ChildContext(
            role=child.role,
            index=child.index,
            shards=self.config.shards,
            routers=self.config.routers,
            port=self.config.port,
            config=self.config,
            anchor_wall_ms=self._anchor[0],
            anchor_boot_ns=self._anchor[1],
            hash_seed=self._hash_seed,
            boot_id=self._boot_id,
            listeners=resources.client_listeners
            if child.role == "router"
            else [resources.shard_listeners[child.index]],
            shard_paths=resources.shard_paths,
            slots=self._slots,
            slot_epoch=self._slot_epoch,
            control_fd=theirs.fileno(),
            death_fd=resources.death_reader,
            run_dir=resources.run_dir,
            restarts=child.restarts + 1,
            config_file=self._config_file,
        )
        if self._executes():
            return children.start_executed(ctx, child.title)
        return children.start_forked(ctx, child.title, lambda: self._forget(theirs))

    def _forget(self, theirs: socket.socket) -> None:
        """In a forked child: let go of every socket object, whose number may soon be another file's."""
        theirs.detach()
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
            self._watch(child.conversation, lambda mask: self._on_child(child, mask))
        if not mask & selectors.EVENT_READ:
            return
        received, alive = child.conversation.on_readable()
        for message in received:
            match message:
                case messages.Ready():
                    self._on_child_ready(child)
                case messages.Failed(reason=reason):
                    child.last_words = reason
                case messages.Ack(id=number):
                    self._acknowledgements.acknowledged(number, child.name)
                case messages.Answer():
                    self._on_answer(child, message)
                case _:
                    self._on_request(child.conversation, message)
        if not alive:
            self._end_conversation(child)

    def _end_conversation(self, child: Child) -> None:
        if child.conversation is not None:
            self._selector.unregister(child.conversation)
            child.conversation.close()
            child.conversation = None

    def _on_child_ready(self, child: Child) -> None:
        child.ready_at = time.monotonic()
        self._set_state(child, "up")
        if child.restarts:
            _log.info("%s (pid %d) serves again", child.name, child.pid)
        self._answer_waiters(child, "")
        self._announce()

    def _announce(self) -> None:
        """Say once that the cluster serves: when every child is up, or has shown that it cannot come up."""
        broken = [child for child in self._children if child.state != "up"]
        routers_up = any(child.role == "router" and child.state == "up" for child in self._children)
        if self._announced or not routers_up or any(child.failures < 2 for child in broken):
            return
        self._announced = True
        try:
            self._on_ready(ready_line(self.config, broken))
        except OSError as error:
            _log.warning("nobody could be told that it is ready: %s", error.strerror)

    def _reap(self) -> None:
        for child in self._children:
            if child.pid:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._on_child_end(child, os.waitstatus_to_exitcode(status))

    def _on_child_end(self, child: Child, code: int) -> None:
        pid, child.pid = child.pid, 0
        child.kill_at = None
        if child.conversation is not None:
            self._on_child(child, selectors.EVENT_READ)  # its last words: Failed
            self._end_conversation(child)
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        child.reason = f"{cause}: {child.last_words}" if child.last_words else cause
        self._acknowledgements.gone(child.name)
        if child.role == "router":
            try:
                client_counts.clear(self._resources.run_dir, child.index)
            except OSError as error:
                _log.warning("the clients of %s stay counted: %s", child.name, error)
        if self._phase != "serving":
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
        child.restart_at = time.monotonic() + wait
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
            self._watch(child.conversation, lambda mask: self._on_child(child, mask))

    def _watch(self, conversation: Conversation, handler: Callable[[int], None]) -> None:
        """Wait for writability while something is unsent."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if conversation.wants_write else 0)
        if self._selector.get_key(conversation).events != events:
            self._selector.modify(conversation, events, handler)

    # Requests: from routers, and from the command line over the admin socket ------------------------------------

    def _on_request(self, asker: Conversation, message: Any) -> None:
        match message:
            case messages.StatusRequest(id=number):
                draining = self._phase != "serving"
                slots = (self._slot_epoch, self._slots)
                run_dir = self._resources.run_dir
                status = cluster_status(self.config, self._children, slots, self._started_ms, run_dir, draining)
                asker.send(messages.StatusReply(number, status))
            case messages.ConfigSet(id=number, values=values):
                self._on_config_set(asker, number, values)
            case messages.ConfigRewrite(id=number):
                asker.send(messages.Ack(number, self._rewrite()))
            case messages.RestartShard(id=number, index=index):
                self._on_restart(asker, number, index)
            case messages.AskRouters(id=number, what=what, words=words):
                self._on_question(asker, number, what, words)
            case messages.Shutdown(id=number):
                asker.send(messages.Ack(number))
                self._stop("a request to stop")

    def _on_config_set(self, asker: Conversation, request: int, values: dict[str, str]) -> None:
        try:
            self._take_in(changed(self.config, values), asker, request)
        except ConfigError as error:
            asker.send(messages.Ack(request, str(error)))

    def _take_in(self, config: Config, asker: Conversation | None = None, request: int = 0) -> None:
        """Make `config` the effective one everywhere; `asker` is answered once every child has acknowledged."""
        self.config = config
        logs.set_level(config)

        def answer(error: str) -> None:
            if asker is not None:
                self._answer(asker, messages.Ack(request, error))

        self._tell_all(lambda number: messages.ConfigChanged(number, config), answer)

    def _take_in_slots(self, slots: list[SlotRange], answer: Callable[[str], None]) -> None:
        """Make `slots` the map of the cluster; `answer` is called once every child goes by it, or with what went wrong.

        Nobody but the supervisor changes the map, and it does so only for whoever has moved the keys.
        """
        owners(slots, self.config.shards)  # raises ValueError for what is no map
        self._slot_epoch += 1
        self._slots = slots
        epoch = self._slot_epoch
        self._tell_all(lambda number: messages.Slots(number, epoch, slots), answer)

    def _tell_all(self, message: Callable[[int], messages.Down], answer: Callable[[str], None]) -> None:
        """Send every child the message of a number, and `answer` once all have acknowledged it. A child that is started
        later is told by its context."""
        number = self._acknowledgements.next_id()
        reached = [child for child in self._children if child.conversation is not None]
        for child in reached:
            self._send(child, message(number))
        self._acknowledgements.begin(number, [child.name for child in reached], time.monotonic(), answer)

    def _on_question(self, asker: Conversation, request: int, what: str, words: list[bytes]) -> None:
        """Ask the routers other than `asker`, which learns with an Ack that all have answered, or that time is up."""
        routers = [child for child in self._children if child.role == "router" and child.ready_at]
        asked = [child for child in routers if child.conversation not in (None, asker)]
        number, now = self._acknowledgements.next_id(), time.monotonic()
        self._askers[number] = (asker, request)

        def finish(_late: str) -> None:
            del self._askers[number]
            self._answer(asker, messages.Ack(request))

        for child in asked:
            self._send(child, messages.Question(number, what, words, now + control.ANSWER_SECONDS))
        self._acknowledgements.begin(number, [child.name for child in asked], now, finish, control.ANSWER_SECONDS)

    def _on_answer(self, child: Child, answer: messages.Answer) -> None:
        if answer.id in self._askers:  # else it is too late
            asker, request = self._askers[answer.id]
            self._answer(asker, messages.Answer(request, answer.body, answer.last, child.index))
            if answer.last:
                self._acknowledgements.acknowledged(answer.id, child.name)

    def _rewrite(self) -> str:
        if self._config_file is None:
            return "The server is running without a config file"
        try:
            rewrite(self._config_file, self.config)
        except ConfigFileError as error:
            return str(error)
        return ""

    def _on_restart(self, asker: Conversation, request: int, index: int) -> None:
        role, number = ("shard", index) if index >= 0 else ("router", -1 - index)
        child = next((c for c in self._children if (c.role, c.index) == (role, number)), None)
        if child is None:
            asker.send(messages.Ack(request, f"there is no {role} {number}"))
            return
        if self._phase != "serving":
            asker.send(messages.Ack(request, "the cluster is stopping"))
            return
        child.waiters.append((asker, request))
        if not child.pid:
            child.failures = 0
            child.restart_at = time.monotonic()
        elif not child.restarting:
            _log.info("%s (pid %d) is restarted on request", child.name, child.pid)
            child.restarting = True
            child.reason = "restarting"
            self._set_state(child, "down")
            self._drain(child)

    def _answer(self, asker: Conversation, message: messages.Down) -> None:
        """Answer a request that had to wait, if whoever asked is still there."""
        child = next((child for child in self._children if child.conversation is asker), None)
        if child is not None:
            self._send(child, message)
        elif asker in self._admins:
            asker.send(message)

    def _answer_waiters(self, child: Child, error: str) -> None:
        for asker, request in child.waiters:
            self._answer(asker, messages.Ack(request, error))
        child.waiters.clear()

    # The end ---------------------------------------------------------------------------------------------------

    def _stop(self, cause: str) -> None:
        if self._phase != "serving":
            _log.warning("%s again: stopping at once", cause)
            for child in self._children:
                if child.pid:
                    os.kill(child.pid, signal.SIGKILL)
            return
        _log.info("stopping after %s", cause)
        self._phase = "routers"
        for child in self._children:
            child.restart_at = None
            if child.role == "router":
                self._drain(child)

    def _drain(self, child: Child) -> None:
        if not child.pid:
            return
        if not child.ready_at:
            os.kill(child.pid, signal.SIGKILL)  # it serves nobody yet
            return
        self._send(child, messages.Drain(float(self.config.drain_seconds)))
        child.kill_at = time.monotonic() + self.config.drain_seconds + GRACE_SECONDS

    def _drain_on(self) -> None:
        """Go on from draining the routers to draining the shards to the end, as each is done."""
        alive = {child.role for child in self._children if child.pid}
        if self._phase == "routers" and "router" not in alive:
            self._phase = "shards"
            for child in self._children:
                self._drain(child)
        if self._phase == "shards" and not alive:
            self._phase = "ended"
            _log.info("stopped")
