"""Clients that wait for a key to hold something: BLPOP and its like, on one shard.

    BLPOP k ──► nothing there ──► wait: registered under (db, type, k), the reply is deferred
    RPUSH k ──► the effect says that k has changed ──► ready
    behind the unit (one frame, one atomic run) ──► serve: for each ready key, waiters in the order of arrival,
        each in its own context; what that makes ready is served, too (a chain of BLMOVE), until nothing is

A client that waits on several shards has a claim (kache/wire/claims.pyx): whoever takes it may take an element, all
others let the waiter go when they meet it. A pop that was served may find its client gone: the router gives it back
(UNDELIVERED) or says that it was delivered (RECEIVED), and until then the shard remembers where it came from.

Owns the waiters of one shard. The execution point asks for `serve` while `Executor.ready` is set; links tell of clients
that are gone; the handlers are in commands/blocking.py. With nobody waiting no change is told to it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kache.deadlines import Deadlines
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, Reply
from kache.slots import slot_of_key

from ..commands.stream_reads import Reading
from ..commands.ways import Move, Way
from ..engine.effects import Awaited
from ..engine.engine import Context

if TYPE_CHECKING:
    from kache.wire.claims import Claims

    from ..engine.engine import Deferred, Executor, Link

__all__ = ["Blocking", "Waiter"]

log = logging.getLogger("kache.shard")

_TAKEN: Final = ("list", "zset")
"""Types whose elements are taken away by whoever waited for them."""
HOLD_MS: Final = 100
"""How long nobody else is served from a key whose first element a router carries to another shard."""
MOST_REMEMBERED: Final = 65_536
"""Served pops of one router that it has not said a word about; more means that it does not read."""
SOON_NS: Final = 1_000_000_000
"""How long it is remembered since when a session waits; the command that waits follows at once."""
UNBLOCKED: Final = "UNBLOCKED client unblocked via CLIENT UNBLOCK"

Place = tuple[int, bytes]
"""A database and a key in it."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One blocked command: in which way it is served at one of its keys."""

    token: int
    link: Link
    session: int
    dialect: int
    db: int
    way: Way | Move | Reading
    keys: tuple[bytes, ...]
    cell: int = -1
    claim: int = 0
    since: int = 0
    """When it began to wait, by CLOCK_MONOTONIC, on whichever shard that was."""
    due: tuple[int, int] | None = None


class _Queue:
    """Who waits for one key, in the order in which they began to wait."""

    __slots__ = ("in_order", "slot", "waiters")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.waiters: dict[Waiter, None] = {}
        self.in_order = True

    def enter(self, waiter: Waiter) -> None:
        """Behind the others, even if it was before them on a shard that has been away: then they are sorted, once."""
        if self.waiters and next(reversed(self.waiters)).since > waiter.since:
            self.in_order = False
        self.waiters[waiter] = None

    def first(self) -> Waiter:
        if not self.in_order:
            self.waiters = dict.fromkeys(sorted(self.waiters, key=lambda each: each.since))
            self.in_order = True
        return next(iter(self.waiters))


@dataclass(slots=True)
class _Served:
    """What a pop took, and how."""

    db: int
    key: bytes
    way: Way
    reply: list[Any]


class Blocking:
    """The waiters of one shard. `start` before anybody waits with a timeout."""

    def __init__(self, shard: Executor) -> None:
        self.shard = shard
        self.draining = False
        self.claims: Claims | None = None
        self._context = Context(shard)
        self._waiters: dict[int, Waiter] = {}
        self._queues: dict[tuple[int, str, bytes], _Queue] = {}
        self._changes = Awaited(self._heard, self._wake)
        self._places: dict[Place, int] = self._changes.places
        """Keys that somebody waits for, and in how many queues."""
        self._ready: dict[Place, None] = self._changes.ready
        self._kept: dict[Place, None] = {}
        """Ready keys that a transaction holds, until it lets go."""
        self._returning: list[_Served] = []
        """What goes back to a key that a transaction holds."""
        self._held: dict[int, tuple[Waiter, tuple[int, int]]] = {}
        """Waiters that a router serves, by their number, and when nobody waits for it any longer."""
        self._held_places: dict[Place, int] = {}
        self._last_number = 0
        self._served: dict[Link, dict[int, _Served]] = {}
        self._since: dict[tuple[Link, int], tuple[int, int]] = {}
        """Of sessions that waited before this shard was there: (since when, when they said so)."""
        self._deadlines: Deadlines[Waiter | int]
        shard.store.effects.add_observer(self._changes)

    def start(self, now: Callable[[], int], call_later: Callable[..., Any], claims: Claims | None = None) -> None:
        """Timeouts run from here on; `claims` are shared with the routers."""
        self._now = now
        self._deadlines = Deadlines(now, call_later, self._on_due)
        self.claims = claims

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def keys(self) -> int:
        """Keys that somebody waits for."""
        return len(self._places)

    @property
    def keys_of_groups(self) -> int:
        """Those of them whose end ends a wait, too: of XREADGROUP."""
        return sum(
            kind == Reading.kind and any(isinstance(each.way, Reading) and each.way.grouped for each in queue.waiters)
            for (_, kind, _), queue in self._queues.items()
        )

    @property
    def timed(self) -> int:
        """Clients whose wait ends here by time; the routers mind that of those who wait on several shards."""
        return sum(waiter.due is not None for waiter in self._waiters.values())

    # Waiting --------------------------------------------------------------------------------------------
    def wait(
        self,
        ctx: Context,
        way: Way | Move | Reading,
        keys: Sequence[bytes],
        until: int = 0,
        *,
        cell: int = -1,
        claim: int = 0,
    ) -> Deferred:
        """The client of `ctx` waits for one of `keys` to give something in this `way`, until then (0: for ever)."""
        deferred = ctx.defer(True)
        assert ctx.link is not None
        unique = tuple(dict.fromkeys(keys))
        waiter = Waiter(deferred.token, ctx.link, ctx.session, ctx.dialect, ctx.keys.db, way, unique, cell, claim)
        if self.draining:
            self._send_back(deferred.token, way)
            return deferred
        waiter.since = self._take_since(ctx)
        self._enter(waiter)
        if until:
            waiter.due = self._deadlines.add(until, waiter)
        return deferred

    def note_since(self, ctx: Context, since: int) -> None:
        """The client of `ctx` is about to wait again."""
        assert ctx.link is not None
        now = time.monotonic_ns()
        self._since.pop((ctx.link, ctx.session), None)
        self._since[ctx.link, ctx.session] = since, now
        # Others may have been served at once instead of waiting.
        while next(iter(self._since.values()))[1] < now - SOON_NS:
            del self._since[next(iter(self._since))]

    def _take_since(self, ctx: Context) -> int:
        assert ctx.link is not None
        now = time.monotonic_ns()
        since, said = self._since.pop((ctx.link, ctx.session), (now, now)) if self._since else (now, now)
        return min(since, now) if said > now - SOON_NS else now

    def _enter(self, waiter: Waiter) -> None:
        self._waiters[waiter.token] = waiter
        for key in waiter.keys:
            place = (waiter.db, waiter.way.kind, key)
            queue = self._queues.get(place)
            if queue is None:
                queue = self._queues[place] = _Queue(slot_of_key(key))
                self._places[waiter.db, key] = self._places.get((waiter.db, key), 0) + 1
                self.shard.store.effects.watch_slot(queue.slot)
            queue.enter(waiter)

    def _leave(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter.token, None)
        for key in waiter.keys:
            place = (waiter.db, waiter.way.kind, key)
            queue = self._queues.get(place)
            if queue is None:
                continue
            queue.waiters.pop(waiter, None)
            if not queue.waiters:
                del self._queues[place]
                self.shard.store.effects.unwatch_slot(queue.slot)
                self._places[waiter.db, key] -= 1
                if not self._places[waiter.db, key]:
                    del self._places[waiter.db, key]
        if waiter.due is not None:
            self._deadlines.remove(waiter.due)
            waiter.due = None

    def _answer(self, waiter: Waiter, reply: Reply) -> None:
        self._leave(waiter)
        self.shard.answer_deferred(waiter.token, reply)

    def _on_due(self, item: Waiter | int) -> None:
        if isinstance(item, int):
            self._release(item)
            self.shard.serve_ready()
        else:
            item.due = None
            self._answer(item, NULL_ARRAY)

    # Serving --------------------------------------------------------------------------------------------
    def _heard(self, event: str, db: int, slot: int, _key: bytes) -> None:
        """Something happens to a whole database."""
        if event == "swapping":
            for at, _, name in self._queues:
                if at in (db, slot):
                    self._is_ready((at, name))
        elif event == "flushing":
            for at, kind, name in self._queues:
                if kind == Reading.kind and db in (at, -1):
                    self._is_ready((at, name))

    def _wake(self) -> None:
        self.shard.ready = True

    def _is_ready(self, place: Place) -> None:
        self._ready[place] = None
        self._wake()

    def serve(self) -> None:
        """Serves whoever waits for a key that has changed. To be called behind a unit, never inside one."""
        if self._returning:
            returning, self._returning = self._returning, []
            for served in returning:
                self._give_back(served)
        while self._ready:
            ready = list(self._ready)
            self._ready.clear()
            for db, key in ready:
                if self.shard.locks.keeps(key):
                    self._kept[db, key] = None
                else:
                    self._serve_key(db, key)

    def unlocked(self) -> None:
        """A transaction is over: who waits for keys that it kept is served behind it."""
        if self._kept or self._returning:
            self._ready.update(self._kept)
            self._kept.clear()
            self.shard.ready = True

    def _serve_readers(self, db: int, key: bytes) -> None:
        """Everybody who reads a stream, some: one takes nothing from another, but for the members of a group."""
        queue = self._queues[db, Reading.kind, key]
        keys = self._context.keys
        for waiter in list(queue.waiters):
            assert isinstance(waiter.way, Reading)
            keys.db = db
            if not waiter.way.has(keys, key):
                continue
            if waiter.claim and not self._won(waiter):
                self._drop(waiter)
                continue
            self.shard.begin_unit()
            try:
                self._answer(waiter, waiter.way.failure(keys, key) or waiter.way.take(keys, key))
            except Exception as error:
                self._fail(waiter, error)

    def _serve_key(self, db: int, key: bytes) -> None:
        if (db, Reading.kind, key) in self._queues:
            self._serve_readers(db, key)
        keys = self._context.keys
        keys.db = db
        kind = keys.type_of(key)
        queue = self._queues.get((db, kind, key)) if kind in _TAKEN else None
        while queue is not None and queue.waiters and (db, key) not in self._held_places:
            waiter = queue.first()
            if isinstance(waiter.way, Move) and waiter.way.target and self.shard.locks.keeps(waiter.way.target):
                self._kept[db, key] = None
                return
            if waiter.claim and not self._won(waiter):
                self._drop(waiter)
            elif isinstance(waiter.way, Way):
                self._pop(waiter, waiter.way, key)
            elif isinstance(waiter.way, Move) and waiter.way.target:
                self._move(waiter, waiter.way, key)
            else:
                self._hold(waiter, key)
            keys.db = db
            if not queue.waiters or keys.type_of(key) != kind:
                return

    def _won(self, waiter: Waiter) -> bool:
        """Whether this shard, of all that the client waits on, is the one to serve it."""
        assert self.claims is not None
        return self.claims.take(waiter.cell, waiter.claim, self.shard.index)

    def _drop(self, waiter: Waiter) -> None:
        """Somebody else serves it; its router needs no word from here."""
        self._leave(waiter)
        self.shard.forget_deferred(waiter.link, waiter.token)

    def _pop(self, waiter: Waiter, way: Way, ready: bytes) -> None:
        """From the first of its keys that has something, as `ready` has: several may have become ready together.

        This is the rest of a command that was admitted when it came: it is not refused now.
        """
        keys = self._context.keys
        keys.db = waiter.db
        self.shard.begin_unit()
        # What it takes away gives nobody else anything.
        self._changes.deaf = True
        try:
            key = ready if len(waiter.keys) == 1 else self._first_of(waiter, way)
            reply = way.take(keys, key)
            assert reply is not None
            self._remember(waiter.link, waiter.token, _Served(waiter.db, key, way, reply))
            self._answer(waiter, reply)
        except Exception as error:
            self._fail(waiter, error)
        finally:
            self._changes.deaf = False

    def _first_of(self, waiter: Waiter, way: Way) -> bytes:
        """Its first key that has something which nobody keeps; there is one."""
        keys = self._context.keys
        return next(
            key
            for key in waiter.keys
            if keys.type_of(key) == way.kind
            and (waiter.db, key) not in self._held_places
            and not self.shard.locks.keeps(key)
        )

    def _move(self, waiter: Waiter, move: Move, key: bytes) -> None:
        ctx = self._context
        ctx.keys.db, ctx.dialect, ctx.session = waiter.db, waiter.dialect, waiter.session
        try:
            reply = ctx.call_in_room("lmove", key, *move)
        except Exception as error:
            self._fail(waiter, error)
        else:
            self._answer(waiter, reply)

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        """Whatever it was, the others are served."""
        if not isinstance(error, CommandError):
            log.error("a waiting command failed", exc_info=error)
            error = CommandError(f"ERR internal error: {type(error).__name__}: {error}")
        self._answer(waiter, error)

    # A pop at once ----------------------------------------------------------------------------------------
    def answer_now(self, ctx: Context, way: Way, key: bytes, cell: int, claim: int) -> Reply | Deferred:
        """One of several shards has something at `key` for a client that was about to wait: it is served as if it had
        waited, or by another one."""
        assert self.claims is not None
        if not self.claims.take(cell, claim, self.shard.index):
            return NULL_ARRAY
        deferred = ctx.defer(True)
        assert ctx.link is not None
        reply = way.take(ctx.keys, key)
        assert reply is not None
        self._remember(ctx.link, deferred.token, _Served(ctx.keys.db, key, way, reply))
        self.shard.answer_deferred(deferred.token, reply)
        return deferred

    # Moves to another shard -------------------------------------------------------------------------------
    def _hold(self, waiter: Waiter, key: bytes) -> None:
        """Its router is told that there is something; until it has carried it away nobody else is served."""
        self._last_number += 1
        number = self._last_number
        self._held[number] = waiter, self._deadlines.add(self._now() + HOLD_MS, number)
        self._held_places[waiter.db, key] = number
        self._waiters.pop(waiter.token, None)
        self.shard.answer_deferred(waiter.token, number)

    def await_source(self, ctx: Context, key: bytes) -> Deferred:
        """The client of `ctx` waits for a list, to move an element of it to another shard; a number is the reply."""
        deferred = self.wait(ctx, Move(), (key,))
        self._is_ready((ctx.keys.db, key))
        return deferred

    def settle(self, ctx: Context, key: bytes, number: int, again: bool) -> Reply | Deferred:
        """The router has moved what there was; with `again` it found nothing, and waits on in its old place."""
        held = self._held.get(number)
        if held is None or held[0].session != ctx.session:
            # It took too long, and others were served meanwhile: it waits as one that has just come.
            return self.await_source(ctx, key) if again else 0
        waiter = held[0]
        if not again or self.draining:
            self._release(number)
            return self.await_source(ctx, key) if again else 1
        deferred = ctx.defer(True)
        self._free(number)
        waiter.token = deferred.token
        self._waiters[waiter.token] = waiter
        self._is_ready((waiter.db, key))
        return deferred

    def _free(self, number: int) -> Waiter:
        waiter, due = self._held.pop(number)
        self._deadlines.remove(due)
        for key in waiter.keys:
            self._held_places.pop((waiter.db, key), None)
        return waiter

    def _release(self, number: int) -> None:
        """Others are served again."""
        waiter = self._free(number)
        self._leave(waiter)
        for key in waiter.keys:
            self._is_ready((waiter.db, key))

    # Between serving and delivery -------------------------------------------------------------------------
    def _remember(self, link: Link, token: int, served: _Served) -> None:
        remembered = self._served.setdefault(link, {})
        remembered[token] = served
        if len(remembered) > MOST_REMEMBERED:
            del remembered[next(iter(remembered))]

    def note_served(self, ctx: Context, way: Way, key: bytes, reply: list[Any]) -> None:
        """A command that was parked, and need not wait any more, is answered like one that has waited."""
        assert ctx.link is not None
        self._remember(ctx.link, ctx.deferred, _Served(ctx.keys.db, key, way, reply))

    def received(self, link: Link, token: int) -> None:
        """What was served has reached its client."""
        self._served.get(link, {}).pop(token, None)

    def undelivered(self, link: Link, token: int) -> None:
        """Its client is gone: what was taken goes back to where it was."""
        served = self._served.get(link, {}).pop(token, None)
        if served is not None:
            self._give_back(served)

    def _give_back(self, served: _Served) -> None:
        keys, taken = self._context.keys, served.way.taken(served.reply)
        if self.shard.locks.keeps(served.key):
            self._returning.append(served)
            return
        keys.db = served.db
        self.shard.begin_unit()
        kind = keys.type_of(served.key)
        if kind not in (None, served.way.kind):
            log.warning("%d elements cannot be given back: their key has another type now", len(taken))
        elif served.way.kind == "list":
            keys.list_push(served.key, tuple(reversed(taken)), served.way.first)
        else:
            for member, score in taken:
                value = keys.zset_get(served.key)
                if value is None or value.score(member) is None:
                    keys.zset_add(served.key, member, score)

    # Clients that are gone --------------------------------------------------------------------------------
    def forget(self, tokens: Sequence[int]) -> None:
        """Nobody waits for these replies any more."""
        for token in tokens:
            waiter = self._waiters.get(token)
            if waiter is not None:
                self._leave(waiter)

    def forget_link(self, link: Link) -> None:
        """A router is gone. What was served to it counts as delivered."""
        self._served.pop(link, None)
        for session in [session for session in self._since if session[0] is link]:
            del self._since[session]
        for number, (waiter, _) in list(self._held.items()):
            if waiter.link is link:
                self._release(number)

    def unblock(self, token: int, error: bool) -> None:
        """CLIENT UNBLOCK of one that still waits."""
        waiter = self._waiters.get(token)
        if waiter is not None:
            self._answer(waiter, CommandError(UNBLOCKED) if error else NULL_ARRAY)

    def give_back_all(self) -> None:
        """The shard is about to leave: whoever waits is told to come again."""
        self.draining = True
        for waiter in list(self._waiters.values()):
            self._leave(waiter)
            self._send_back(waiter.token, waiter.way)

    def _send_back(self, token: int, way: Way | Move | Reading) -> None:
        self.shard.retry_deferred(token, way.position() if isinstance(way, Reading) else b"")

    def check(self) -> None:
        """Raises AssertionError unless the waiters, their queues and their slots agree."""
        registered = {waiter for queue in self._queues.values() for waiter in queue.waiters}
        waiting = set(self._waiters.values()) | {waiter for waiter, _ in self._held.values()}
        assert self._places == Counter((db, key) for db, _, key in self._queues), "keys that nobody waits for"
        assert registered == waiting, "a waiter without a queue, or the other way round"
        for (db, kind, key), queue in self._queues.items():
            assert queue.waiters, "an empty queue"
            assert all(each.db == db and each.way.kind == kind and key in each.keys for each in queue.waiters)
        assert set(self._held_places.values()) <= set(self._held)
