"""What a gate does beside keeping the order: limits, pauses, refusals; and replies that are joined."""

from __future__ import annotations

import pytest

from kache.errors import CommandError
from kache.router.cluster.gate import MOST_HOPS, Gates
from kache.router.cluster.splitting import IN_ORDER, OK, SUM, joined


class Frame:
    def __init__(self, place: int, slot: int = 5) -> None:
        self.place, self.slot = place, slot
        self.target: str | None = None
        self.hops = self.waits = 0
        self.not_before = 0.0
        self.deadline = 10.0
        self.reason = b""


class World:
    """One node, A, that has the slot; B is another. What was sent is in flight until it is answered."""

    def __init__(self) -> None:
        self.time = 0.0
        self.has: str | None = "A"
        self.up = True
        self.sent: list[tuple[int, str, bool]] = []
        self.in_flight: list[Frame] = []
        self.failed: list[tuple[int, bytes]] = []
        self.wakes: list[float] = []
        self.maps = 0
        self.proven: set[int] = set()
        self.gates = Gates(self)

    def now(self) -> float:
        return self.time

    def flying(self, slot: int) -> int:
        return len(self.in_flight)

    def owner(self, slot: int) -> str | None:
        return self.has

    def prove(self, slot: int) -> None:
        self.proven.add(slot)

    def unprove(self, slot: int) -> None:
        self.proven.discard(slot)

    def reachable(self, node: str, frame: Frame) -> bool:
        return self.up

    def send(self, frame: Frame, node: str, asking: bool) -> None:
        self.sent.append((frame.place, node, asking))
        self.in_flight.append(frame)

    def fail(self, frame: Frame, message: bytes) -> None:
        self.failed.append((frame.place, message))

    def wake_at(self, when: float) -> None:
        self.wakes.append(when)

    def lost_map(self) -> None:
        self.maps += 1

    def reply(self) -> Frame:
        """The oldest answer arrives."""
        return self.in_flight.pop(0)

    def answer(self) -> None:
        self.gates.answered(5, self.reply())


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_goes_alone_and_its_answer_lets_the_others_go(world: World) -> None:
    for place in (1, 2, 3):
        world.gates.arrive(Frame(place))
    assert world.sent == [(1, "A", False)] and world.gates.waiting == 2
    world.answer()
    assert world.sent[1:] == [(2, "A", False), (3, "A", False)]
    assert world.proven == {5} and world.gates.by_slot == {} and world.gates.waiting == 0


def test_after_ask_the_next_goes_alone(world: World) -> None:
    for place in (1, 2):
        world.gates.arrive(Frame(place))
    world.gates.ask(world.reply(), "B")
    assert world.sent[1:] == [(1, "B", True)]
    world.answer()
    assert world.sent[2:] == [(2, "A", False)] and world.proven == set()
    world.answer()
    assert world.proven == {5}


def test_nodes_that_point_at_one_another(world: World) -> None:
    world.gates.arrive(Frame(1))
    for _ in range(MOST_HOPS + 1):
        world.time += 1
        world.gates.look()
        world.gates.moved(world.reply())
    assert world.failed == [(1, b"TRYAGAIN the nodes redirect slot 5 to one another; nothing was executed")]
    assert world.gates.by_slot == {} and len(world.sent) == MOST_HOPS + 1


def test_tries_are_farther_and_farther_apart(world: World) -> None:
    world.gates.arrive(Frame(1))
    for _ in range(6):
        world.gates.patience(world.reply(), b"LOADING it")
        assert world.wakes[-1] > world.time
        world.time = world.wakes[-1]
        world.gates.look()
    apart = [after - before for before, after in zip([0.0, *world.wakes], world.wakes, strict=False)]
    assert apart == sorted(apart) and apart[0] >= 0.002 and apart[-1] <= 0.1001


def test_patience_ends_with_what_was_said_last(world: World) -> None:
    world.gates.arrive(Frame(1))
    world.gates.patience(world.reply(), b"LOADING Redis is loading the dataset in memory")
    world.gates.arrive(Frame(2))
    world.up = False
    world.time = 10.0
    world.gates.expire()
    assert world.failed == [
        (1, b"LOADING Redis is loading the dataset in memory; nothing was executed"),
        (2, b"CLUSTERDOWN slot 5 has no reachable owner; nothing was executed"),
    ]
    assert world.gates.by_slot == {} and world.gates.waiting == 0


def test_a_slot_of_nobody_waits_for_a_map(world: World) -> None:
    world.has = None
    world.gates.arrive(Frame(1))
    assert world.maps == 1 and not world.sent
    world.has = "B"
    world.gates.look()
    assert world.sent == [(1, "B", False)]


def test_what_has_become_doubtful_proves_nothing(world: World) -> None:
    world.gates.arrive(Frame(1))
    world.gates.arrive(Frame(2))
    world.gates.doubt([5])
    world.answer()
    assert world.proven == set() and world.sent[1:] == [(2, "A", False)]


def test_a_lost_probe_comes_back_to_its_place(world: World) -> None:
    for place in (1, 2):
        world.gates.arrive(Frame(place))
    world.gates.lost(world.reply())
    world.time = 1.0
    world.gates.look()
    assert world.sent[1:] == [(1, "A", False)]
    world.gates.gone(5, world.reply())
    assert world.sent[2:] == [(2, "A", False)]


def test_parts_of_one_command_are_joined() -> None:
    keys = {7: [0, 2], 9: [1]}
    assert joined(IN_ORDER, keys, {7: [b"a", None], 9: [b"b"]}) == [b"a", b"b", None]
    assert joined(SUM, keys, {7: 2, 9: 1}) == 3
    assert joined(OK, keys, {7: b"OK", 9: b"OK"}) == "OK"
    error = CommandError("WRONGTYPE no")
    assert joined(SUM, keys, {7: 2, 9: error}) is error
