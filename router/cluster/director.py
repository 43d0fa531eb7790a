"""The map of slots of a Redis Cluster, the connections to its nodes, and what becomes of commands when either changes.

One for a router. The compiled path (`mux/remote.pxi`) asks it for whatever is not simply sent and answered; it gives
gates (`gate`) the world that they stand in. Nodes are numbers here: an address keeps its number, so that two maps that
name the same nodes are compared by slices.

The map is read (CLUSTER SLOTS, CLUSTER NODES) when the router starts, every half minute, when a node redirects, when a
connection is lost, and while commands wait for an owner; by one node at a time, at most five times a second. A redirect
changes its slot at once, and no map that was asked for earlier changes it back; nor does the map of a node that lags behind,
whose master of a slot has a lower config epoch, as long as the present owner is reached.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from kache.backend.address import Node, format_node, nodes_of
from kache.backend.conversation import command
from kache.backend.tls import context_of
from kache.backend.topology import Shown, moved_to, view_of
from kache.commands import Row
from kache.commands.extract import block_position, key_positions
from kache.config.settings import Config
from kache.errors import CommandError, KacheError
from kache.slots import SLOT_COUNT, slot_of_key

from .asking import converse
from .binary import IN_BLOCK
from .blocking import BLOCKING
from .dialects import SETTLED
from .exclusive import Pool
from .gate import Gates
from .monitoring import Lines
from .readers import Readers
from .scripts import Sources, told_by
from .sets import DIVIDED
from .subscriber import Subscriber
from .watching import execute_watched

if TYPE_CHECKING:
    from ..mux.multiplexer import Held, Remote, Router, Session
    from ..mux.multiplexer import Node as Lane

__all__ = ["Director"]

RESP2 = 2
RESP3 = 3
MOVED = 1
ASK = 2
NO_SCRIPT = 4

LEAST_BETWEEN_MAPS = 0.2
BETWEEN_MAPS = 30.0
FIRST_RETRY = 0.05
LONGEST_RETRY = 1.0
"""Seconds before a node is connected to once more, doubled with each failure."""

MOST_NODES = 512
"""Addresses that are remembered; behind them numbers are used again."""

PING_SECONDS = 1.0
"""How long a connection is silent before it is asked whether the node is there: a black hole sends no FIN."""

LEFT = "it owns no slots any more"

_log = logging.getLogger("kache.router")


class _Node:
    """One address. `place` is what connects to it: a socket's family and address; None until its name is resolved."""

    def __init__(self, number: int, address: Node) -> None:
        self.number = number
        self.address = address
        self.name = format_node(address)
        self.place: tuple[int, tuple[Any, ...]] | None = _literal(address)
        self.resolving = False
        self.failures = 0
        self.retry_at = 0.0
        self.reason = ""


def _literal(address: Node) -> tuple[int, tuple[Any, ...]] | None:
    try:
        version = ipaddress.ip_address(address[0]).version
    except ValueError:
        return None
    return (socket.AF_INET, address) if version == 4 else (socket.AF_INET6, (*address, 0, 0))


class Director:
    """The cluster of one router."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.loop = loop
        self.seeds = nodes_of(config.backend)
        self.nodes: list[_Node] = []
        self.by_address: dict[Node, _Node] = {}
        self.map: list[int | None] = [None] * SLOT_COUNT
        self.epochs = [0] * SLOT_COUNT
        """Of the view that each slot's owner is from; 0 behind a redirect, which any view may confirm or change."""
        self.tls = context_of(config)
        self.sources = Sources()
        self.readers = Readers(self)
        self.lines = Lines(self)
        self.gates = Gates(self)
        self.pool = Pool(self)
        self.settled = SETTLED
        self.in_block = IN_BLOCK
        self.subscriber = Subscriber(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self.maps_read = 0
        self.stopped = False
        self._redirected_at: dict[int, float] = {}
        self._reading: asyncio.Task[None] | None = None
        self._wanted = False
        self._asked_at = 0.0
        self._next_map = 0.0
        self._next_ping = 0.0
        self._turn = 0
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._said_at: dict[str, float] = {}
        self._waiters: list[tuple[Lane, asyncio.Future[None]]] = []

    def belongs_to(self, router: Router, remote: Remote) -> None:
        """To be told once, by the router."""
        self.router = router
        self.remote = remote

    # The world of the gates ----------------------------------------------------------------------------------------
    def now(self) -> float:
        return float(self.remote.now())

    def flying(self, slot: int) -> int:
        return int(self.remote.flying(slot))

    def owner(self, slot: int) -> int | None:
        return self.map[slot]

    def prove(self, slot: int) -> None:
        self.remote.prove(slot)

    def unprove(self, slot: int) -> None:
        self.remote.unprove(slot)

    def send(self, frame: Held, node: int, asking: bool) -> None:
        self.remote.send(frame, node, asking)

    def fail(self, frame: Held, message: bytes) -> None:
        self.remote.fail(frame, message)

    def reachable(self, node: int, frame: Held) -> bool:
        lane = self.remote.lane_of(node, frame)
        if lane is not None:
            return bool(lane.state == "up")
        one = self.nodes[node]
        if self.connect(one.number, frame.dialect, frame.lane, frame.db) is None and one.reason:
            text = f"CLUSTERDOWN slot {frame.slot} has no reachable owner ({one.name}: {one.reason})"
            frame.reason = text.encode("utf-8", "replace")
            self._lose_patience(frame)
            self.lost_map()
        return False

    def lost_map(self) -> None:
        """The map should be read again."""
        self._wanted = True
        self._read_if_due()

    def wake_at(self, when: float) -> None:
        """The gates look again then."""
        if self._wake is not None:
            if self._wake_at <= when:
                return
            self._wake.cancel()
        self._wake_at = when
        self._wake = self.loop.call_later(max(when - self.now(), 0), self._look)

    def _look(self) -> None:
        self._wake = None
        self.gates.look()

    # What the compiled path tells ------------------------------------------------------------------------------------
    def arrive(self, frames: Iterable[Held]) -> None:
        """Commands of slots that are not proven."""
        for frame in frames:
            self.gates.arrive(frame)

    def answered(self, slot: int, frame: Held | None) -> None:
        """A command of a slot that is not proven was answered; `frame` if it came from a gate."""
        self.gates.answered(slot, frame)

    def redirected(self, number: int, slot: int, held: Held | None, frame: Held | None, text: bytes, kind: int) -> None:
        """A node has refused a command, and said who would not; `held` is None when nobody waits for it any longer."""
        target: int | None = None
        if kind in (MOVED, ASK):
            found = moved_to(text, self.nodes[number].address)
            if found is not None:
                target = self._node(found[1]).number
        if kind == MOVED and target is not None:
            self.has_moved(slot, self.nodes[target].address)
        if number != self.map[slot]:
            self.readers.failed(number)
        if kind == MOVED or (kind not in (ASK, NO_SCRIPT) and not text.startswith(b"TRYAGAIN")):
            self.lost_map()
        if held is None:
            self.gates.gone(slot, frame)
            return
        self.remote.waits_again(held)
        if kind == MOVED and target is not None:
            self.gates.moved(held)
        elif kind == ASK and target is not None:
            self.gates.ask(held, target)
        elif kind == NO_SCRIPT:
            self.gates.moved(held)  # the node knows it by then
        else:
            self._lose_patience(held)
            self.gates.patience(held, text)

    def tells_script(self, lane: Lane, frame: bytes) -> bool:
        """A node does not know the script of this command: whether this router does, and has just told it."""
        source = told_by(frame, self.sources)
        if source is not None:
            self.remote.ask_node(lane, [b"SCRIPT", b"LOAD", source]).add_done_callback(_forget)
        return source is not None

    def _lose_patience(self, frame: Held) -> None:
        """Where nothing is to be waited for, the next look at deadlines refuses it."""
        if not self.router.config.backend_wait_ms:
            frame.deadline = 0.0

    def is_up(self, lane: Lane) -> None:
        """A connection has been greeted."""
        node = self.nodes[lane.number]
        if node.failures or node.reason:
            _log.info("node %s is reached again", node.name)
        node.failures, node.retry_at, node.reason = 0, 0.0, ""
        self._tell_waiters(lane)
        # Not from inside what the connection has received.
        self.loop.call_soon(self.gates.look)

    def is_down(self, lane: Lane, again: list[Held], over: list[Held]) -> None:
        """A connection has ended: `again` may be sent anew, `over` have been answered."""
        node = self.nodes[lane.number]
        node.reason = str(lane.reason)
        node.failures += 1
        node.retry_at = self.now() + min(FIRST_RETRY * 2 ** min(node.failures - 1, 10), LONGEST_RETRY)
        if lane.reason == LEFT:
            node.reason, node.failures, node.retry_at = "", 0, 0.0
        elif not self.router.shutting_down:
            self.say(f"node {node.name}: {node.reason}")
        self._tell_waiters(lane)
        self.readers.failed(lane.number)
        self.gates.doubt([slot for slot in self.gates.by_slot if self.map[slot] == node.number])
        for frame in again:
            self.remote.waits_again(frame)
            self.gates.lost(frame)
        for frame in over:
            self.gates.gone(frame.slot, frame)
        self.gates.look()
        if not self.router.shutting_down:
            self.lost_map()

    def tick(self) -> None:
        """About ten times a second."""
        now = self.now()
        self.gates.expire()
        if now >= self._next_map:
            self._wanted = True
        if self._wanted:
            self._read_if_due()
        self.readers.connect_wanted()
        if now >= self._next_ping:
            self._next_ping = now + PING_SECONDS
            needed = set(self.masters()) | self.readers.numbers
            for lane in self.remote.idle_lanes(int(1000 * PING_SECONDS)):
                if lane.number in needed:
                    self.remote.ask_node(lane, [b"PING"]).add_done_callback(_forget)
                else:
                    lane.close(LEFT)

    def waits(self, row: Row, arguments: tuple[bytes, ...]) -> Callable[..., Any] | None:
        """What carries the command out if it waits for its keys, or divides them itself."""
        if row.name in ("eval", "eval_ro"):
            self.sources.saw(arguments[0])
        divided = DIVIDED.get(row.key)
        if divided is not None:
            return divided if len(self.slots_of(row, arguments)) > 1 else None
        if row.name in ("xread", "xreadgroup") and block_position(arguments) < 0:
            return None
        return BLOCKING.get(row.key)

    def slots_of(self, row: Row, arguments: tuple[bytes, ...]) -> set[int]:
        """The slots of a command's keys."""
        step = row.keys[0].step if row.keys[0].kind == "range" else 1
        if step > 1 and row.route in ("split", "move") and len(arguments) % step:
            return {slot_of_key(arguments[0])}  # a key without a value: the node words the error
        if row.route == "channel":
            return {slot_of_key(arguments[0])}
        return {slot_of_key(arguments[position]) for position in key_positions(row, arguments)}

    # Connections -------------------------------------------------------------------------------------------------
    async def lane(self, number: int, session: Session) -> Lane:
        """The connection that the session's commands take to a node. Raises CommandError when the node is not reached."""
        dialect = RESP2 if session.dialect == RESP2 else RESP3
        lane = self.remote.lane_at(number, dialect, session.id % self.config.backend_connections, session.db)
        node = self.nodes[number]
        if lane is None:
            node.retry_at = 0.0
            if node.place is None:
                await self._resolve(node)
            lane = self.connect(number, dialect, session.id % self.config.backend_connections, session.db)
        if lane is not None and lane.state == "connecting":
            waiter = self.loop.create_future()
            self._waiters.append((lane, waiter))
            await waiter
        if lane is None or lane.state != "up":
            reason = node.reason or "it cannot be resolved"
            raise CommandError(f"CLUSTERDOWN node {node.name} is not reachable ({reason}); nothing was executed")
        return lane

    def has_written(self, session: Session, number: int) -> None:
        """On a connection of its own, for WAIT; the compiled path notes what it sends itself."""
        session.wrote |= 1 << ((number + 1) & 63)

    def written_by(self, session: Session) -> list[int]:
        """The masters that it has written to, as far as they still are masters; all of them if it is not known which."""
        masters = self.masters()
        return [number for number in masters if session.wrote >> ((number + 1) & 63) & 1] or masters

    def number_of(self, address: Node) -> int:
        """The number of a node."""
        return self._node(address).number

    def masters(self) -> list[int]:
        """The nodes that own slots."""
        return sorted({number for number in self.map if number is not None})

    def nodes_shown(self) -> dict[str, object]:
        """The masters, for INFO."""
        shown: dict[str, object] = {"maps_read": self.maps_read}
        for place, number in enumerate(self.masters()):
            node = self.nodes[number]
            slots = self.map.count(number)
            shown[f"node{place}"] = f"address={node.name},slots={slots},state={(node.reason and 'down') or 'ok'}"
        return shown

    def _tell_waiters(self, lane: Lane) -> None:
        waiting, self._waiters = self._waiters, []
        for one, waiter in waiting:
            if one is not lane:
                self._waiters.append((one, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    def connect(self, number: int, dialect: int, lane: int, db: int) -> Lane | None:
        """Begins a connection to a node, unless it is too early for one; None if so."""
        now = self.now()
        node = self.nodes[number]
        if node.place is None:
            if not node.resolving:
                self.loop.create_task(self._resolve(node))
            return None
        if now < node.retry_at:
            self.wake_at(node.retry_at)
            return None
        family, address = node.place
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            connection.close()
            node.reason = f"cannot connect: {error.strerror}"
            node.retry_at = now + LONGEST_RETRY
            self.wake_at(node.retry_at)
            return None
        greeting, replies = self.greeting(dialect, db)
        if self.config.backend_read_from != "master":
            greeting, replies = greeting + command("READONLY"), replies + 1
        return self.remote.connect_as(number, dialect, lane, db, connection, node.address[0], greeting, replies)

    def greeting(self, dialect: int, db: int = 0) -> tuple[bytes, int]:
        """What a connection begins with, and how many answers it has."""
        user, password = self.config.backend_user, self.config.backend_password
        words: list[tuple[str, ...]] = []
        if dialect == RESP3:
            words.append(
                ("HELLO", "3", *(("AUTH", user or "default", password) if password else ()), "SETNAME", "kache")
            )
        else:
            if password:
                words.append(("AUTH", *((user,) if user else ()), password))
            words.append(("CLIENT", "SETNAME", "kache"))
        if db:
            words.append(("SELECT", str(db)))
        return b"".join([command(*each) for each in words]), len(words)

    async def open(self, address: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of Python's own to a node."""
        name = address[0] if self.tls is not None else None
        return await asyncio.open_connection(*address, ssl=self.tls, server_hostname=name)

    async def _resolve(self, node: _Node) -> None:
        node.resolving = True
        try:
            found = await self.loop.getaddrinfo(*node.address, type=socket.SOCK_STREAM)
            node.place = (found[0][0], found[0][4])
        except OSError as error:
            node.reason = f"cannot be resolved: {error.strerror}"
            node.retry_at = self.now() + LONGEST_RETRY
            self.wake_at(node.retry_at)
        finally:
            node.resolving = False
        self.gates.look()

    def has_moved(self, slot: int, address: Node) -> None:
        """A redirect says so."""
        self._redirected_at[slot] = self.now()
        self.epochs[slot] = 0
        self._own(slot, self._node(address).number)
        self.lost_map()

    def listen(self, names: list[tuple[int, bytes]], told: Callable[[], object]) -> None:
        """Somebody listens to them from now on; `told` is called when the nodes know."""
        self.spawn(self.subscriber.listen(names)).add_done_callback(lambda _: told())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Goes on beside everything else; an error of it is logged."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._is_done)
        return task

    def _is_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self.router.shutting_down:
            _log.error("internal error", exc_info=task.exception())

    def forget(self, names: list[tuple[int, bytes]]) -> None:
        """Nobody listens to them any longer."""
        self.subscriber.forget(names)

    def say_of(self, number: int, text: str) -> None:
        """In the log, of a node."""
        if not self.router.shutting_down:
            self.say(f"node {self.nodes[number].name}: {text}")

    def execute_watched(self, *arguments: Any) -> Coroutine[Any, Any, Any]:
        """`watching.execute_watched`, for the compiled path."""
        return execute_watched(*arguments)

    async def ask_number(self, number: int, *words: str) -> Any:
        """A question to a node on a connection of its own. Raises CommandError."""
        name = self.nodes[number].name
        try:
            (reply,) = await converse(self, self.nodes[number].address, words)
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            reason = str(error) or "no answer"
            raise CommandError(f"CLUSTERDOWN node {name} is not reachable ({reason}); nothing was executed") from None
        if isinstance(reply, CommandError):
            raise reply
        return reply

    # The map ------------------------------------------------------------------------------------------------------
    async def start(self, seconds: float) -> None:
        """Returns when there is a map, or that has taken too long: then it is read until there is one."""
        deadline = self.loop.time() + seconds
        while self.maps_read == 0 and self.loop.time() < deadline:
            self.lost_map()
            if self._reading is not None:
                await asyncio.wait([self._reading], timeout=max(deadline - self.loop.time(), 0))
            else:
                await asyncio.sleep(LEAST_BETWEEN_MAPS)
        if self.maps_read == 0:
            _log.warning("no node of %s says where the slots are yet", self.config.backend)

    def stop(self) -> None:
        """Nothing is read or tried any more."""
        self.stopped = True
        self.pool.close()
        self.subscriber.close()
        if self._reading is not None:
            self._reading.cancel()
        if self._wake is not None:
            self._wake.cancel()

    def _node(self, address: Node) -> _Node:
        node = self.by_address.get(address)
        if node is None:
            node = self.by_address[address] = _Node(self._free_number(), address)
            self.nodes[node.number : node.number + 1] = [node]
        return node

    def _free_number(self) -> int:
        """A new one; where addresses come and go, after a while, that of one that is not there any longer."""
        if len(self.nodes) >= MOST_NODES:
            masters = set(self.masters())
            for old in self.nodes:
                if old.number not in masters and not self.remote.has_lanes(old.number):
                    self.by_address.pop(old.address, None)
                    return old.number
        return len(self.nodes)

    def _own(self, slot: int, number: int | None) -> None:
        if self.map[slot] != number:
            self.map[slot] = number
            self.remote.set_owner(slot, number)
            self.gates.doubt([slot])

    def _read_if_due(self) -> None:
        now = self.now()
        if self._reading is not None or self.stopped:
            return
        wait = self._asked_at + LEAST_BETWEEN_MAPS - now
        if wait > 0:
            return  # the next tick sees that it is wanted
        self._wanted = False
        self._asked_at = now
        self._next_map = now + BETWEEN_MAPS * random.uniform(0.8, 1.2)
        self._reading = self.loop.create_task(self._read())
        self._reading.add_done_callback(self._has_read)

    def _has_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("internal error while the map was read", exc_info=task.exception())

    async def _read(self) -> None:
        """One node after the other, until one says where the slots are."""
        asked = self.now()
        known = [self.nodes[number].address for number in self.masters()]
        known = [each for each in known if not self.by_address[each].reason] + self.seeds + known
        self._turn += 1
        first = self._turn % len(known)
        for address in dict.fromkeys(known[first:] + known[:first]):
            try:
                slots, nodes = await converse(self, address, ("CLUSTER", "SLOTS"), ("CLUSTER", "NODES"))
                if isinstance(slots, CommandError):
                    raise slots
                ranges = view_of(slots, nodes if isinstance(nodes, bytes) else b"", address)
            except (OSError, TimeoutError, KacheError, ValueError, EOFError) as error:
                self.say(f"node {format_node(address)} does not say where the slots are: {error or 'no answer'}")
                continue
            if ranges:
                self._take(ranges, asked)
                return
        self._wanted = True

    def _take(self, view: list[Shown], asked: float) -> None:
        """A map that was asked for then."""
        new: list[int | None] = [None] * SLOT_COUNT
        epochs = [0] * SLOT_COUNT
        for each in view:
            new[each.first : each.last + 1] = [self._node(each.master).number] * (each.last + 1 - each.first)
            epochs[each.first : each.last + 1] = [each.epoch] * (each.last + 1 - each.first)
        self.maps_read += 1
        if new != self.map or epochs != self.epochs:
            for slot, number in enumerate(new):
                if number != self.map[slot]:
                    if self._redirected_at.get(slot, -1.0) >= asked or self._is_older(slot, number, epochs[slot]):
                        continue
                    self._own(slot, number)
                self.epochs[slot] = epochs[slot]
        self.readers.take(view)
        self._redirected_at = {slot: when for slot, when in self._redirected_at.items() if when >= asked}
        self.subscriber.map_has_changed()
        self.gates.look()

    def _is_older(self, slot: int, number: int | None, epoch: int) -> bool:
        """Whether a node says this that has not learned yet who owns the slot now. An owner that is not reached proves
        nothing: its cluster may be another one by now."""
        owner = self.map[slot]
        return number is not None and owner is not None and epoch < self.epochs[slot] and not self.nodes[owner].reason

    def say(self, text: str) -> None:
        """In the log, the same once a minute."""
        now = self.now()
        if now - self._said_at.get(text, -60.0) >= 60.0:
            if len(self._said_at) > 1000:
                self._said_at.clear()
            self._said_at[text] = now
            _log.warning("%s", text)


def _forget(future: asyncio.Future[Any]) -> None:
    """A node that does not answer is seen by the connection's silence."""
    if not future.cancelled():
        future.exception()
