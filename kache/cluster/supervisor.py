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

import functools
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

from kache.cluster import children, claims, client_counts, logs, messages, processes
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.admins import Admins
from kache.cluster.changes import Changes
from kache.cluster.children import Child
from kache.cluster.control import Conversation
from kache.cluster.health import Health
from kache.cluster.messages import ChildContext
from kache.cluster.questions import Questions
from kache.cluster.resources import Resources
from kache.cluster.status import cluster_status, ready_line
from kache.config.file import rewrite
from kache.config.process_count import resolved
from kache.config.settings import SETTINGS, Config, ConfigError, changed
from kache.slots import SlotRange, contiguous, owners

__all__ = ["Supervisor"]

PAUSE_SECONDS = 0.05
"""After an error that may come again at once: never spin."""
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
        self._changes = Changes(self)
        self._tried: dict[str, int] = {}
        """Who was told the change under way, and in which of its lives."""
        self._questions = Questions(self._children, self._acknowledgements, self._send, self._answer)
        self._phase = "serving"
        self._health = Health(self._children, self._send, self._on_unresponsive)
        self._troubles: list[str] = []

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
            self._children += [self._child("shard", index) for index in range(self.config.shards)]
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
                try:
                    os.waitpid(child.pid, 0)
                except ChildProcessError:
                    pass  # somebody else has seen its end
        self._resources.leave()
        self._admins.close()

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
            if child.restart_at is not None and now >= child.restart_at and self._phase == "serving":
                self._start(child)
            if child.kill_at is not None and now >= child.kill_at and child.pid:
                child.kill_at = None
                _log.warning("%s did not end in time and is killed", child.name)
                os.kill(child.pid, signal.SIGKILL)
        self._acknowledgements.expire(now)
        if now >= self._health.due:
            self._health.look(now, self.config.unresponsive_seconds)
            self._look_after_children(now)
            logs.tell_left_out()
        if self._phase != "serving":
            self._drain_on()

    def _until_next_timer(self) -> float:
        times = [at for child in self._children for at in (child.restart_at, child.kill_at) if at is not None]
        times += [*self._acknowledgements.deadlines(), self._health.due]
        return max(0.0, min(times) - time.monotonic())

    def _look_after_children(self, now: float) -> None:
        """Whatever went wrong when one ended, its end is seen, and it comes back; and routers find all shards."""
        self._reap()
        if self._phase == "serving":
            for child in self._children:
                if not child.pid and child.restart_at is None:
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
        fixed = [n for n, s in SETTINGS.items() if not s.live and fresh.setting(n) != self.config.setting(n)]
        needs = [name for name in fixed if name != "port" or fresh.port]
        live = {name: s.show(fresh.setting(name)) for name, s in SETTINGS.items() if s.live}

        def told(error: str) -> None:
            if error:
                _log.warning("the configuration was read again: %s", error)
            else:
                _log.info(
                    "configuration read again%s", f"; a restart is needed for {', '.join(needs)}" if needs else ""
                )

        self._changes.ask(lambda config: changed(config, live), told)

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
        except (OSError, MemoryError) as error:
            child.conversation.close()
            child.conversation = None
            self._on_refused(child, error)
            return
        finally:
            theirs.close()
        child.starts()
        self._selector.register(ours, selectors.EVENT_READ, functools.partial(self._on_child, child))
        self._set_state(child, "starting")
        if child.role == "router":
            for shard in self._children:
                if shard.role == "shard":
                    self._send(child, messages.ShardState(shard.index, shard.state, shard.reason))

    def _on_refused(self, child: Child, error: OSError | MemoryError) -> None:
        child.reason = f"cannot be started: {error.strerror if isinstance(error, OSError) else 'out of memory'}"
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
            pages=resources.pages(child.role),
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
            self._watch(child.conversation, functools.partial(self._on_child, child))
        if not mask & selectors.EVENT_READ:
            return
        received, alive = child.conversation.on_readable()
        for message in received:
            match message:
                case messages.Ready():
                    self._on_child_ready(child)
                case messages.Failed(reason=reason):
                    child.last_words = reason
                case messages.Ack(id=number, error=error):
                    if not self._acknowledgements.acknowledged(number, child.name, error) and error:
                        _log.warning("%s cannot take a change in: %s", child.name, error)
                case messages.Pong():
                    if self._health.answered(child):
                        self._send(child, messages.ConfigChanged(0, self.config))
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
        if self._phase == "serving" and self.config.restart_unresponsive in ("all", f"{child.role}s"):
            child.last_words = f"no sign of life for {child.silent:.0f} s"
            os.kill(child.pid, signal.SIGKILL)

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
        if child.role == "router":
            client_counts.clear(self._resources.client_counts, child.index)
            claims.void(self._resources.claims, child.index)
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
                draining = self._phase != "serving"
                slots = (self._slot_epoch, self._slots)
                run_dir = self._resources.run_dir
                status = cluster_status(self.config, self._children, slots, self._started_ms, run_dir, draining)
                status.troubles = self._troubles
                self._answer(asker, messages.StatusReply(number, status))
            case messages.ConfigSet(id=number, values=values):
                self._changes.ask(
                    lambda config: changed(config, values),
                    lambda error: self._answer(asker, messages.Ack(number, error)),
                )
            case messages.ConfigRewrite(id=number):
                self._answer(asker, messages.Ack(number, rewrite(self._config_file, self.config)))
            case messages.RestartShard(id=number, index=index):
                self._on_restart(asker, number, index)
            case messages.AskRouters(id=number, what=what, words=words):
                self._questions.ask(asker, number, what, words)
            case messages.Shutdown(id=number):
                self._answer(asker, messages.Ack(number))
                self._stop("a request to stop")

    def try_out(self, wanted: Config, accept: Callable[[str], None], refuse: Callable[[str], None]) -> None:
        """Have every child that lives apply `wanted`: for `Changes`, as `take_back` and `store` are."""
        number = self._acknowledgements.next_id()
        asked = [child for child in self._children if child.conversation is not None and not child.unresponsive]
        self._tried = {child.name: child.restarts for child in asked}
        for child in asked:
            self._send(child, messages.ConfigChanged(number, wanted))
        now = time.monotonic()
        self._acknowledgements.begin(number, [child.name for child in asked], now, accept, refuse=refuse)

    def take_back(self) -> None:
        """Have those who were asked to try go on with what they had."""
        number = self._acknowledgements.next_id()
        for child in self._children:
            if self._tried.get(child.name) == child.restarts:
                self._send(child, messages.ConfigChanged(number, self.config))

    def store(self, wanted: Config) -> None:
        """Make `wanted` the configuration, of those too that were started since it was tried."""
        self.config = wanted
        logs.set_level(wanted)
        number = self._acknowledgements.next_id()
        for child in self._children:
            if self._tried.get(child.name) != child.restarts and not child.unresponsive:
                self._send(child, messages.ConfigChanged(number, wanted))

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

    def _on_restart(self, asker: Conversation, request: int, index: int) -> None:
        role, number = ("shard", index) if index >= 0 else ("router", -1 - index)
        child = next((c for c in self._children if (c.role, c.index) == (role, number)), None)
        if child is None:
            self._answer(asker, messages.Ack(request, f"there is no {role} {number}"))
            return
        if self._phase != "serving":
            self._answer(asker, messages.Ack(request, "the cluster is stopping"))
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
        else:
            self._admins.send(asker, message)

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
