"""The checker of histories itself: what it accepts and what it must not."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from history import NEVER, Operation, Outcome, judge


def op(called: float, answered: float, *commands: tuple[Any, ...], replies: Any = (), client: int = 0) -> Operation:
    return Operation(client, called, answered, commands, replies)


GET_BOTH = (("get", "a"), ("get", "b"))
SET_BOTH = (("set", "a", 1), ("set", "b", 1))


@pytest.mark.parametrize(
    ("operations", "possible"),
    [
        pytest.param([op(0, 1, ("set", "a", 1), replies=(None,)), op(2, 3, ("get", "a"), replies=(1,))], True, id="later"),
        pytest.param(
            [op(0, 1, ("set", "a", 1), replies=(None,)), op(2, 3, ("get", "a"), replies=(None,))], False, id="lost"
        ),
        pytest.param(
            [op(0, 9, ("set", "a", 1), replies=(None,)), op(2, 3, ("get", "a"), replies=(1,)),
             op(4, 5, ("get", "a"), replies=(None,))], False, id="there and gone again"),
        pytest.param(
            [op(0, 9, *SET_BOTH, replies=(None, None)), op(1, 2, *GET_BOTH, replies=(None, None)),
             op(3, 4, *GET_BOTH, replies=(1, 1))], True, id="whole, in the middle"),
        pytest.param(
            [op(0, 9, *SET_BOTH, replies=(None, None)), op(1, 2, *GET_BOTH, replies=(1, None))], False, id="half seen"),
        pytest.param(
            [op(0, 9, ("incr", "a"), replies=(1,)), op(0, 9, ("incr", "a"), replies=(1,))], False, id="lost update"),
        pytest.param(
            [op(0, 1, ("set", "a", 7), replies=None), op(5, 6, ("get", "a"), replies=(None,)),
             op(7, 8, ("get", "a"), replies=(7,))], True, id="unknown, and late"),
        pytest.param(
            [op(0, 1, ("set", "a", 7), replies=None), op(5, 6, ("get", "a"), replies=(7,)),
             op(7, 8, ("get", "a"), replies=(None,))], False, id="unknown, and taken back"),
        pytest.param(
            [op(0, 1, ("incr", "a"), replies=None), op(0, 1, ("incr", "a"), replies=None),
             op(2, 3, ("incr", "a"), replies=(2,)), op(4, 5, ("get", "a"), replies=(3,))], True, id="one of two unknown"),
        pytest.param([op(3, 4, ("set", "a", 1), replies=None), op(1, 2, ("get", "a"), replies=(1,))], False, id="too early"),
    ],
)  # fmt: skip
def test_small_histories(operations: list[Operation], possible: bool) -> None:
    assert judge(operations).outcome == (Outcome.EXPLAINED if possible else Outcome.IMPOSSIBLE)


@pytest.mark.parametrize("seed", range(4))
def test_what_has_happened_is_accepted_and_a_changed_answer_is_not(seed: int) -> None:
    """Hundreds of operations of eight clients; some have no outcome, half of which have not happened."""
    chance = random.Random(seed)
    data: dict[object, int] = {}
    operations: list[Operation] = []
    free = [0.0] * 8
    for number in range(1, 201):
        now = float(number)
        client = chance.randrange(8)
        called, answered = max(free[client], now - chance.uniform(0, 4)), now + chance.uniform(0, 4)
        if called > now:
            continue
        free[client] = answered + 0.001
        keys = chance.sample("abcde", chance.randint(1, 3))
        commands = tuple(chance.choice([("get", key), ("set", key, 1000 * number), ("incr", key)]) for key in keys)
        known = chance.random() < 0.95
        replies: list[int | None] = []
        if known or chance.random() < 0.5:
            for name, key, *rest in commands:
                if name != "get":
                    data[key] = int(rest[0]) if rest else data.get(key, 0) + 1
                replies.append(None if name == "set" else data.get(key))
        operations.append(Operation(client, called, answered, commands, tuple(replies) if known else None))
    assert judge(operations).outcome == Outcome.EXPLAINED
    changed = [at for at, one in enumerate(operations) if one.replies and any(one.replies)]
    wrong = chance.choice(changed)
    one = operations[wrong]
    assert one.replies is not None
    answer = tuple(None if reply is None else reply + 500 for reply in one.replies)
    operations[wrong] = Operation(one.client, one.called, one.answered, one.commands, answer)
    verdict = judge(operations)
    assert verdict.outcome == Outcome.IMPOSSIBLE
    assert len(verdict.contradiction) <= 3


def by_trial(operations: list[Operation]) -> bool:
    """Whether one of all orders explains a history: what `judge` must say, in as few words as can be."""
    known = [each for each in operations if each.replies is not None]
    unknown = [each for each in operations if each.replies is None]
    for size in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, size):
            for order in itertools.permutations([*known, *some]):
                if all(
                    before.called <= (after.answered if after.replies is not None else NEVER)
                    for before, after in itertools.combinations(order, 2)
                ) and is_answered(order):
                    return True
    return False


def is_answered(order: tuple[Operation, ...]) -> bool:
    data: dict[object, int] = {}
    for each in order:
        for at, (name, key, *rest) in enumerate(each.commands):
            if name != "get":
                data[key] = int(rest[0]) if name == "set" else data.get(key, 0) + 1
            if name != "set" and each.replies is not None and each.replies[at] != data.get(key):
                return False
    return True


@pytest.mark.parametrize("far", [1, 1000], ids=["values overlap", "values tell their SET"])
@pytest.mark.parametrize("seed", range(6))
def test_it_says_what_trying_all_orders_says(seed: int, far: int) -> None:
    """Small histories of one to three keys, most answers of which are of some order; half of the unknown write two keys."""
    chance = random.Random(seed)
    said = {Outcome.EXPLAINED: 0, Outcome.IMPOSSIBLE: 0}
    for _ in range(150):
        operations = drawn(chance, far)
        verdict = judge(operations)
        assert (verdict.outcome is Outcome.EXPLAINED) == by_trial(operations), operations
        said[verdict.outcome] += 1
        if verdict.contradiction and not any(each.replies is None for each in operations):
            assert not by_trial(verdict.contradiction)
    assert min(said.values()) > 15


def drawn(chance: random.Random, far: int) -> list[Operation]:
    """What may have been seen: executed in the order of calls, seen at times that overlap, and sometimes changed."""
    data: dict[object, int] = {}
    operations: list[Operation] = []
    for number in range(chance.randint(2, 6)):
        keys = chance.choices("ab", k=chance.choice([1, 1, 2]))
        commands = tuple(chance.choice([("get", key), ("set", key, far * (number + 1)), ("incr", key)]) for key in keys)
        known = chance.random() < 0.6 or sum(each.replies is None for each in operations) == 3
        replies: list[int | None] = []
        if known or chance.random() < 0.5:
            for name, key, *rest in commands:
                if name != "get":
                    data[key] = int(rest[0]) if rest else data.get(key, 0) + 1
                replies.append(None if name == "set" else data.get(key))
        if known and chance.random() < 0.15:
            replies = [reply if reply is None else reply + chance.choice([-1, 1, far]) for reply in replies]
        called = max(number - chance.choice([0, 0, 1, 3]), 0)
        operations.append(
            Operation(number, called, number + chance.choice([0.5, 2, 4]), commands, tuple(replies) if known else None)
        )
    return operations


def test_a_search_that_ends_early_says_so() -> None:
    writers = [op(0, 99, ("set", "a", 1000 * at), replies=(None,), client=at) for at in range(1, 12)]
    readers = [op(0, 99, ("get", "a"), replies=(1000 * at,), client=100 + at) for at in range(1, 12)]
    assert judge([*writers, *readers], most_places=5).outcome == Outcome.GAVE_UP
    assert judge([*writers, *readers]).outcome == Outcome.EXPLAINED


def test_a_contradiction_is_cut_out_of_what_lies_around_it() -> None:
    """Two readers of a key saw two values in opposite order, in the middle of hundreds of operations of others."""
    around = [
        op(at, at + 0.5, ("set", "ab"[at % 2], 10_000 * at), ("incr", "c"), replies=(None, at)) for at in range(1, 400)
    ]
    at = 200.6
    wrong = [
        op(at, at + 0.3, ("set", "x", 7_000_000), replies=(None,), client=1),
        op(at, at + 0.3, ("set", "x", 8_000_000), ("incr", "y"), replies=(None, 1), client=2),
        op(at, at + 0.1, ("get", "x"), replies=(7_000_000,), client=3),
        op(at + 0.2, at + 0.3, ("get", "x"), replies=(8_000_000,), client=3),
        op(at, at + 0.1, ("get", "x"), replies=(8_000_000,), client=4),
        op(at + 0.2, at + 0.3, ("get", "x"), replies=(7_000_000,), client=4),
    ]
    verdict = judge([*around, *wrong])
    assert verdict.outcome == Outcome.IMPOSSIBLE
    assert {each.client for each in verdict.contradiction} == {1, 2, 3, 4}
    assert all(each.keys == {"x"} for each in verdict.contradiction)
