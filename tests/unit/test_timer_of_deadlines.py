"""Deadlines on a clock and a loop that the test moves."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kache.deadlines import Deadlines
from kache.errors import CommandError
from kache.timeouts import timeout_ms


class Loop:
    """Timers that fire when the test says what time it is."""

    def __init__(self) -> None:
        self.now_ms = 1000
        self.timers: list[Timer] = []
        self.fired = 0

    def now(self) -> int:
        return self.now_ms

    def call_later(self, seconds: float, work: Callable[[], None]) -> Timer:
        timer = Timer(self.now_ms + seconds * 1000, work)
        self.timers.append(timer)
        return timer

    def move_to(self, now_ms: int) -> None:
        self.now_ms = now_ms
        due = [timer for timer in self.timers if timer.at <= now_ms]
        self.timers = [timer for timer in self.timers if timer.at > now_ms]
        for timer in due:
            if not timer.cancelled:
                self.fired += 1
                timer.work()


class Timer:
    def __init__(self, at: float, work: Callable[[], None]) -> None:
        self.at = at
        self.work = work
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def test_each_is_due_once_in_its_order_with_one_timer() -> None:
    loop = Loop()
    due: list[tuple[int, str]] = []
    deadlines = Deadlines(loop.now, loop.call_later, lambda item: due.append((loop.now_ms, item)))
    deadlines.add(1050, "b")
    deadlines.add(1020, "a")
    gone = deadlines.add(1030, "gone")
    deadlines.add(1050, "c")
    assert sum(not timer.cancelled for timer in loop.timers) == 1
    deadlines.remove(gone)
    for now in range(1000, 1100):
        loop.move_to(now)
    assert due == [(1020, "a"), (1050, "b"), (1050, "c")]
    assert len(deadlines) == 0 and all(timer.cancelled for timer in loop.timers)
    assert loop.fired <= 3
    deadlines.remove(gone)


def test_nothing_waits_for_nothing() -> None:
    loop = Loop()
    deadlines: Deadlines[str] = Deadlines(loop.now, loop.call_later, lambda item: None)
    place = deadlines.add(5000, "a")
    deadlines.remove(place)
    assert all(timer.cancelled for timer in loop.timers)


def test_a_late_item_that_fails_keeps_no_other_waiting() -> None:
    loop = Loop()
    due: list[str] = []

    def take(item: str) -> None:
        due.append(item)
        if item == "bad":
            raise ValueError("bad")

    deadlines = Deadlines(loop.now, loop.call_later, take)
    deadlines.add(1001, "bad")
    deadlines.add(1001, "good")
    with pytest.raises(ValueError, match="bad"):
        loop.move_to(1001)
    loop.move_to(1003)
    assert due == ["bad", "good"]


def test_an_item_may_add_and_remove_others() -> None:
    loop = Loop()
    due: list[int] = []
    places: dict[int, tuple[int, int]] = {}

    def take(item: int) -> None:
        due.append(item)
        if item == 1:
            deadlines.remove(places[2])
            deadlines.add(loop.now_ms, 3)

    deadlines = Deadlines(loop.now, loop.call_later, take)
    places[1] = deadlines.add(1010, 1)
    places[2] = deadlines.add(1010, 2)
    loop.move_to(1010)
    assert due == [1, 3]


@pytest.mark.parametrize("seed", range(5))
def test_against_a_dict(seed: int) -> None:
    draw = random.Random(seed)
    loop = Loop()
    due: list[int] = []
    deadlines = Deadlines(loop.now, loop.call_later, due.append)
    model: dict[int, tuple[int, tuple[int, int]]] = {}
    for number in range(500):
        if draw.random() < 0.6:
            at = loop.now_ms + draw.randrange(1, 50)
            model[number] = at, deadlines.add(at, number)
        elif model and draw.random() < 0.5:
            _, place = model.pop(draw.choice(list(model)))
            deadlines.remove(place)
        loop.move_to(loop.now_ms + draw.randrange(3))
        expected = [item for item, (at, _) in sorted(model.items(), key=lambda each: each[1][1]) if at <= loop.now_ms]
        assert due == expected
        for item in due:
            del model[item]
        due.clear()
        assert len(deadlines) == len(model)


# How long a client is willing to wait ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "milliseconds"),
    [
        (b"0", 0), (b"0.0", 0), (b"-0", 0), (b"1", 1000), (b"+1", 1000), (b"0.001", 1), (b"0.0001", 1), (b"1.0001", 1001),
        (b".5", 500), (b"2.", 2000), (b"1e-3", 1), (b"1E1", 10000), (b"0x1", 1000), (b"0x1p-1", 500), (b"1e-400", 0),
    ],
)  # fmt: skip
def test_timeouts(raw: bytes, milliseconds: int) -> None:
    assert timeout_ms(raw, 1_700_000_000_000) == milliseconds


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "not a float"), (b"abc", "not a float"), (b"nan", "not a float"), (b" 1", "not a float"), (b"1 ", "not a float"),
        (b"1_0", "not a float"), (b"\xd9\xa1", "not a float"), (b"1\x00", "not a float"), (b"-1", "negative"),
        (b"-inf", "negative"), (b"-1e-9", "negative"), (b"inf", "out of range"), (b"1e400", "out of range"), (b"1e30", "out of range"),
        (b"9223372036854775.807", "out of range"), (b"0x1p9999999", "out of range"),
    ],
)  # fmt: skip
def test_what_is_no_timeout(raw: bytes, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        timeout_ms(raw, 1_700_000_000_000)
