"""The real gate against every interleaving of one slot that moves: the order of one client's commands is kept.

Two nodes, one slot, four commands of one client. Whatever may happen next is tried from every state that can be reached:
the client sends, a node executes or refuses, a reply comes back, the slot moves on, the map is read from either node, a
connection is lost. `Gates` is the one that routers run; only its world is made up here.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from kache.router.cluster.gate import Gates

COMMANDS = 4

Reply = tuple[str, str]


def by_setslot(step: int, node: str, asking: bool) -> Reply:
    """A slot that moves from A to B as CLUSTER SETSLOT does it: importing, migrating, its key gone, owned by B, by both."""
    if node == "A":
        return ("ok", "") if step <= 1 else ("ask", "B") if step in (2, 3) else ("moved", "B")
    if step >= 3 or (step >= 1 and asking):
        return ("ok", "")
    return ("moved", "A")


def at_once(step: int, node: str, asking: bool) -> Reply:
    """The same as newer servers do it: for a moment each says that the other has it."""
    owner = {0: "A", 2: "B"}.get(step)
    return ("ok", "") if owner == node else ("moved", "B" if node == "A" else "A")


WORLDS = {"setslot": (by_setslot, 4), "atomic": (at_once, 2)}


class Frame:
    """As the compiled `Held` has them."""

    def __init__(self, place: int) -> None:
        self.place, self.slot = place, 7
        self.target: str | None = None
        self.hops = self.waits = 0
        self.not_before = 0.0
        self.deadline = 1e9
        self.reason = b""


class State:
    """Everything at one moment; `world` of its gates."""

    def __init__(self, serve: Any, first_map: str, proven: bool) -> None:
        self.serve = serve
        self.step = 0
        self.map = first_map
        self.proven = proven
        self.next = 1
        self.gates = Gates(self)
        self.queues: dict[str, list[tuple[Frame, bool, bool]]] = {"A": [], "B": []}
        self.replies: dict[str, list[tuple[Frame, bool, Reply]]] = {"A": [], "B": []}
        self.done: list[int] = []
        self.lost_one = False

    # The world
    def now(self) -> float:
        return 1e6  # pauses between two tries are over whenever somebody looks

    def flying(self, slot: int) -> int:
        return sum(len(queue) for queue in (*self.queues.values(), *self.replies.values()))

    def owner(self, slot: int) -> str:
        return self.map

    def prove(self, slot: int) -> None:
        self.proven = True

    def unprove(self, slot: int) -> None:
        self.proven = False

    def reachable(self, node: str, frame: Frame) -> bool:
        return True

    def send(self, frame: Frame, node: str, asking: bool) -> None:
        self.queues[node].append((frame, asking, True))

    def fail(self, frame: Frame, message: bytes) -> None:
        pass  # too many hops: it was not executed, and that is what its client is told

    def wake_at(self, when: float) -> None:
        pass

    def lost_map(self) -> None:
        pass

    # What happens
    def client_sends(self) -> None:
        frame = Frame(self.next)
        self.next += 1
        if self.proven:
            self.queues[self.map].append((frame, False, False))
        else:
            self.gates.arrive(frame)

    def node_works(self, node: str) -> None:
        frame, asking, gated = self.queues[node].pop(0)
        reply = self.serve(self.step, node, asking)
        if reply[0] == "ok":
            self.done.append(frame.place)
        self.replies[node].append((frame, gated, reply))

    def reply_comes(self, node: str) -> None:
        frame, gated, (kind, target) = self.replies[node].pop(0)
        if kind == "ok":
            if not self.proven:
                self.gates.answered(7, frame if gated else None)
        elif kind == "ask":
            self.gates.ask(frame, target)
        else:
            self.new_map(target)
            self.gates.moved(frame)

    def new_map(self, node: str) -> None:
        if node != self.map:
            self.map = node
            self.gates.doubt([7])

    def map_is_read(self, node: str) -> None:
        kind, target = self.serve(self.step, node, False)
        self.new_map(target if kind == "moved" else node)

    def connection_is_lost(self, node: str) -> None:
        """What was not yet written waits for a living owner; what was executed is answered to nobody."""
        self.lost_one = True
        unsent, self.queues[node] = self.queues[node], []
        answers, self.replies[node] = self.replies[node], []
        self.proven = False
        if self.map == node:
            self.gates.doubt([7])
        for frame, gated, _ in answers:
            self.gates.gone(7, frame if gated else None)
        for frame, _, _ in unsent:
            self.gates.lost(frame)
        self.gates.look()

    def events(self, last: int, refresh: bool, loses: bool) -> Iterator[tuple[str, str]]:
        if self.step < last:
            yield ("slot_moves", "")
        if self.next <= COMMANDS:
            yield ("client_sends", "")
        for node in "AB":
            if self.queues[node]:
                yield ("node_works", node)
            if self.replies[node]:
                yield ("reply_comes", node)
            if refresh:
                yield ("map_is_read", node)
            if loses and not self.lost_one and (self.queues[node] or self.replies[node]):
                yield ("connection_is_lost", node)

    def slot_moves(self) -> None:
        self.step += 1

    def key(self) -> tuple[Any, ...]:
        gate = self.gates.by_slot.get(7)
        shown = None
        if gate is not None:
            waiting = tuple((frame.place, frame.target, min(frame.hops, 9)) for frame in gate.waiting)
            shown = (waiting, gate.probe.place if gate.probe else None, gate.certain, gate.passed)
        queues = tuple(tuple((f.place, a, g, f.target) for f, a, g in self.queues[n]) for n in "AB")
        replies = tuple(tuple((f.place, g, f.target, r) for f, g, r in self.replies[n]) for n in "AB")
        return (self.step, self.map, self.proven, self.next, shown, queues, replies, tuple(self.done), self.lost_one)


def replay(serve: Any, first_map: str, proven: bool, path: tuple[tuple[str, str], ...]) -> State:
    state = State(serve, first_map, proven)
    for name, node in path:
        apply(state, name, node)
    return state


def apply(state: State, name: str, node: str) -> None:
    if node:
        getattr(state, name)(node)
    else:
        getattr(state, name)()


def explore(world: str, first_map: str, refresh: bool, loses: bool, proven: bool = False) -> tuple[int, int, Any]:
    """(states, states in which all is done, the first path that breaks the order)."""
    serve, last = WORLDS[world]
    seen: set[Any] = set()
    paths: deque[tuple[tuple[str, str], ...]] = deque([()])
    finished = 0
    while paths:
        path = paths.popleft()
        state = replay(serve, first_map, proven, path)
        for event in state.events(last, refresh, loses):
            after = replay(serve, first_map, proven, path)
            apply(after, *event)
            key = after.key()
            if key in seen:
                continue
            seen.add(key)
            if after.done != sorted(set(after.done)):
                return len(seen), finished, (*path, event)
            finished += len(after.done) == COMMANDS
            paths.append((*path, event))
    return len(seen), finished, None


CASES = list(itertools.product(WORLDS, "AB", (False, True), (False, True)))


@pytest.mark.parametrize(("world", "first_map", "refresh", "loses"), CASES)
def test_the_order_is_kept_in_every_interleaving(world: str, first_map: str, refresh: bool, loses: bool) -> None:
    states, finished, broken = explore(world, first_map, refresh, loses)
    assert broken is None, broken
    assert finished > 0 and states > 100


class AtOnce(Gates):
    """What others do: a redirected command is sent on at once."""

    def _again(self, frame: Any, target: Any, *, hop: bool) -> None:
        frame.target = target
        self.world.send(frame, target or self.world.owner(frame.slot), target is not None)


def test_the_model_sees_commands_that_overtake_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Gates", AtOnce)
    assert explore("setslot", "B", False, False, proven=True)[2]
    assert explore("atomic", "A", False, False, proven=True)[2]
    assert explore("atomic", "B", False, False, proven=True)[2]
