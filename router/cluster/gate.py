"""What keeps the order of a slot's commands while it is not certain which node of a Redis Cluster owns it.

One rule: a slot is *proven* when its owner in the map has answered a command on it with anything but a redirect. Proven
slots are pipelined by the compiled path, which does not come here. Commands of any other slot wait in its gate; what is
in flight is awaited; redirected commands come back to their old places; then the first goes alone. Answered by the
owner, the slot is proven and the rest leaves as a pipeline; answered after ASK, which proves nothing, the next one goes
alone. Whatever makes the owner doubtful (MOVED, a new map, a lost connection) takes the proof away, also from a probe
that is under way.

Two commands of one client on one slot therefore never overtake each other while the slot moves from one node to another,
whatever the moment at which the nodes, the map and the commands change. It holds as long as a slot does not leave a node
and come back to it within one flight of a pipeline; nobody who pipelines can exclude that. A model of all interleavings
of the nodes drives this class (`tests/unit/router/test_gate_model.py`).

Pure: nodes are whatever the `World` takes for one, and it alone sends, counts what is in flight, and has a clock.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any, Final, Protocol

__all__ = ["MOST_HOPS", "Frame", "Gate", "Gates", "World"]

MOST_HOPS: Final = 8
"""Redirects that one command follows; more of them mean nodes that point at one another."""

FIRST_PAUSE: Final = 0.002
LONGEST_PAUSE: Final = 0.1
"""Seconds before a command is sent once more, from the second redirect on; doubled each time."""


class Frame(Protocol):
    """A command that waits. `place` is its place among all commands ever sent, `slot` its slot.

    The gate keeps its notes in the others: the node that ASK named, redirects followed, answers that asked for patience,
    the time before which it does not leave, the last such answer.
    """

    place: int
    slot: int
    target: Any
    hops: int
    waits: int
    not_before: float
    deadline: float
    reason: bytes


class World(Protocol):
    """What gates stand in."""

    def now(self) -> float:
        """Seconds, in any measure."""

    def flying(self, slot: int) -> int:
        """How many commands of the slot are in flight, on whatever connection."""

    def owner(self, slot: int) -> Any:
        """The node that owns the slot by the map; None where nobody does."""

    def prove(self, slot: int) -> None:
        """New commands of the slot are pipelined from here on, instead of coming here."""

    def unprove(self, slot: int) -> None:
        """They come here from now on."""

    def reachable(self, node: Any, frame: Any) -> bool:
        """Whether a command can be sent there now; if not, a connection is begun, and `Gates.look` follows it."""

    def send(self, frame: Any, node: Any, asking: bool) -> None:
        """Sends one command, behind ASKING if so. The answer comes as `answered`, `redirected` or `lost`."""

    def fail(self, frame: Any, message: bytes) -> None:
        """It was not executed."""

    def wake_at(self, when: float) -> None:
        """`Gates.look` is due then."""

    def lost_map(self) -> None:
        """The map of slots should be read again."""


class Gate:
    """The commands of one slot that is not proven."""

    __slots__ = ("certain", "passed", "probe", "slot", "waiting")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.waiting: list[Any] = []
        self.probe: Any = None
        """The command that was sent alone, until it is answered."""
        self.certain = True
        """Whether its answer may prove something: the owner has not become doubtful since."""
        self.passed = False
        """Whether the owner has answered the last one."""


def _place(frame: Any) -> int:
    return int(frame.place)


class Gates:
    """The gates of all slots; `by_slot` has those with something to wait for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.by_slot: dict[int, Gate] = {}
        self.waiting = 0
        """Commands that wait in them."""

    # What happens to a slot --------------------------------------------------------------------------------------
    def arrive(self, frame: Any) -> None:
        """A new command of a slot that is not proven."""
        self._put(self._gate(frame.slot), frame)
        self.step(frame.slot)

    def answered(self, slot: int, frame: Any) -> None:
        """A command of the slot was answered with anything but a redirect; `frame` if it came from here, else None."""
        gate = self.by_slot.get(slot)
        if gate is None:
            return
        if frame is not None and frame is gate.probe:
            gate.passed = gate.certain and frame.target is None
            gate.probe = None
        self.step(slot)

    def moved(self, frame: Any) -> None:
        """MOVED: the map has the new owner by now."""
        self._again(frame, None, hop=True)

    def ask(self, frame: Any, node: Any) -> None:
        """ASK: this command alone is for another node."""
        self._again(frame, node, hop=True)

    def patience(self, frame: Any, reason: bytes) -> None:
        """The node cannot execute it now (TRYAGAIN, CLUSTERDOWN, LOADING …), and has not: later."""
        frame.reason = reason
        self._again(frame, None, hop=False)

    def lost(self, frame: Any) -> None:
        """Its connection has ended, and it may be sent again: it was not sent, or only reads."""
        self._again(frame, None, hop=False)

    def gone(self, slot: int, frame: Any) -> None:
        """Something of the slot is not in flight any more without having proven anything: nobody waits for it, or what has
        become of it is uncertain. `frame` if it came from here."""
        gate = self.by_slot.get(slot)
        if gate is not None:
            gate.passed = gate.certain = False
            if frame is not None and frame is gate.probe:
                gate.probe = None
            self.step(slot)

    def doubt(self, slots: Iterable[int]) -> None:
        """The owner of these slots is another one by the map, or a connection to it was lost."""
        for slot in slots:
            self.world.unprove(slot)
            gate = self.by_slot.get(slot)
            if gate is not None:
                gate.passed = gate.certain = False

    def expire(self) -> None:
        """Commands that have waited for too long are refused; their replies say that nothing was executed."""
        now = self.world.now()
        for gate in list(self.by_slot.values()):
            late = [frame for frame in gate.waiting if frame.deadline <= now]
            for frame in late:
                self._take(gate, frame)
                self.world.fail(frame, self._why(frame))
            if late:
                self.step(gate.slot)

    def look(self) -> None:
        """A connection, the map, or a moment that was waited for may be there: every gate looks again."""
        for slot in list(self.by_slot):
            self.step(slot)

    # Sending -----------------------------------------------------------------------------------------------------
    def step(self, slot: int) -> None:
        """Lets leave what may."""
        gate = self.by_slot.get(slot)
        if gate is None or gate.probe is not None or self.world.flying(slot):
            return
        if not gate.waiting:
            del self.by_slot[slot]
            if gate.passed:
                self.world.prove(slot)
            return
        first = gate.waiting[0]
        node = first.target if first.target is not None else self.world.owner(slot)
        if node is None:
            self.world.lost_map()
        elif first.not_before > self.world.now():
            self.world.wake_at(first.not_before)
        elif self.world.reachable(node, first):
            if gate.passed and all(frame.target is None for frame in gate.waiting):
                self._let_all_go(gate, node)
            else:
                self._take(gate, first)
                gate.probe, gate.certain, gate.passed = first, True, False
                self.world.send(first, node, first.target is not None)

    def _let_all_go(self, gate: Gate, node: Any) -> None:
        del self.by_slot[gate.slot]
        self.waiting -= len(gate.waiting)
        self.world.prove(gate.slot)
        for frame in gate.waiting:
            self.world.send(frame, node, False)

    def _again(self, frame: Any, target: Any, *, hop: bool) -> None:
        """It was not executed, and waits at its old place."""
        self.world.unprove(frame.slot)
        gate = self._gate(frame.slot)
        if frame is gate.probe:
            gate.probe = None
        gate.passed = gate.certain = False
        frame.target = target
        if hop:
            frame.hops += 1
        else:
            frame.waits += 1
        times = frame.hops + frame.waits
        if frame.hops > MOST_HOPS:
            text = b"TRYAGAIN the nodes redirect slot %d to one another; nothing was executed"
            self.world.fail(frame, text % frame.slot)
        else:
            if times > 1 or not hop:
                frame.not_before = self.world.now() + min(FIRST_PAUSE * 2 ** min(times - 1, 10), LONGEST_PAUSE)
            self._put(gate, frame)
        self.step(frame.slot)

    # Waiting -----------------------------------------------------------------------------------------------------
    def _gate(self, slot: int) -> Gate:
        gate = self.by_slot.get(slot)
        if gate is None:
            gate = self.by_slot[slot] = Gate(slot)
        return gate

    def _put(self, gate: Gate, frame: Any) -> None:
        if not gate.waiting or gate.waiting[-1].place < frame.place:
            gate.waiting.append(frame)
        else:
            bisect.insort(gate.waiting, frame, key=_place)
        self.waiting += 1

    def _take(self, gate: Gate, frame: Any) -> None:
        gate.waiting.remove(frame)
        self.waiting -= 1

    def _why(self, frame: Any) -> bytes:
        if frame.reason:
            return b"%s; nothing was executed" % frame.reason.rstrip(b".")
        return b"CLUSTERDOWN slot %d has no reachable owner; nothing was executed" % frame.slot
