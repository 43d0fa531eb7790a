"""The checker of histories itself: what it accepts and what it must not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from history import Operation, explain


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
    assert (explain(operations) == "") == possible


@pytest.mark.parametrize("seed", range(4))
def test_what_has_happened_is_accepted_and_a_changed_answer_is_not(seed: int) -> None:
    """Hundreds of operations of eight clients; some have no outcome, half of which have not happened."""
    chance = random.Random(seed)
    data: dict[str, int] = {}
    operations: list[Operation] = []
    free = [0.0] * 8
    for number in range(200):
        now = float(number)
        client = chance.randrange(8)
        called, answered = max(free[client], now - chance.uniform(0, 4)), now + chance.uniform(0, 4)
        if called > now:
            continue
        free[client] = answered + 0.001
        keys = chance.sample("abcde", chance.randint(1, 3))
        commands = tuple(
            chance.choice([("get", key), ("set", key, 1000 + number), ("incr", key)]) for key in keys
        )  # fmt: skip
        known = chance.random() < 0.95
        replies: list[int | None] = []
        if known or chance.random() < 0.5:
            for name, key, *rest in commands:
                if name != "get":
                    data[key] = rest[0] if rest else data.get(key, 0) + 1  # type: ignore[assignment]
                replies.append(None if name == "set" else data.get(key))  # type: ignore[call-overload]
        operations.append(Operation(client, called, answered, commands, tuple(replies) if known else None))
    assert explain(operations) == ""
    changed = [at for at, one in enumerate(operations) if one.replies and any(one.replies)]
    wrong = chance.choice(changed)
    one = operations[wrong]
    assert one.replies is not None
    answer = tuple(None if reply is None else reply + 500_000 for reply in one.replies)
    operations[wrong] = Operation(one.client, one.called, one.answered, one.commands, answer)
    assert "no order was found" in explain(operations)
