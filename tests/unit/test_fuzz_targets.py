"""An instant of fuzzing: what is right is taken, what is broken is refused. The long form is tests/soak/fuzz.py."""

from __future__ import annotations

import random

import pytest
from fuzz_targets import TARGETS, mutated

TIMES = {"requests": 300, "replies": 300, "rules": 400, "log": 60, "link": 25}
SEED = 5


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_broken_by_what_is(name: str) -> None:
    dice = random.Random(SEED)
    target = TARGETS[name]
    target.run(b"")
    for _ in range(TIMES[name]):
        seed = target.seeds(dice)
        target.run(seed)
        data = mutated(dice, seed)
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{name}: {data!r}") from error


def test_a_defect_would_be_found() -> None:
    """One that loses a byte of what follows a request."""
    from fuzz_targets import Target

    def forgetful(data: bytes) -> None:
        assert b"\xff\xff" not in data, "it is confused"

    target = Target(forgetful, TARGETS["requests"].seeds)
    dice = random.Random(SEED)
    with pytest.raises(AssertionError, match="confused"):
        for _ in range(1000):
            target.run(mutated(dice, target.seeds(dice)))
