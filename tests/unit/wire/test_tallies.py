"""What processes count together, beside a plain dict."""

from __future__ import annotations

import random

import pytest

from kache.wire.tallies import Tallies

WORDS = 3
CELLS = 256
PROCESSES = 3


def shared() -> list[Tallies]:
    memory = bytearray(8 * WORDS * CELLS * PROCESSES)
    return [Tallies(memory, each, PROCESSES, WORDS) for each in range(PROCESSES)]


def test_each_sees_what_all_have_counted() -> None:
    chance = random.Random(7)
    processes = shared()
    model: dict[tuple[int, int], list[int]] = {}
    for _ in range(20_000):
        key, which = chance.randrange(1, 60), chance.randrange(PROCESSES)
        one = processes[which]
        if chance.random() < 0.1:
            one.forget(key)
            model.pop((which, key), None)
        else:
            word, amount = chance.randrange(WORDS - 1), chance.randrange(-3, 5)
            assert one.add(key, word, amount)
            model.setdefault((which, key), [0] * (WORDS - 1))[word] += amount
        asked = chance.randrange(1, 60)
        for word in range(WORDS - 1):
            expected = sum(found[word] for (_, key), found in model.items() if key == asked)
            assert chance.choice(processes).sum(asked, word) == expected


def test_places_of_what_is_gone_are_used_again() -> None:
    one = shared()[0]
    for key in range(1, 100 * CELLS):
        assert one.add(key, 0, 1), key
        one.forget(key)
    assert one.sum(5, 0) == 0


def test_without_room_nothing_is_counted_for_a_new_key() -> None:
    one, other, _ = shared()
    counted = [key for key in range(1, 10 * CELLS) if one.add(key, 0, 1)]
    assert CELLS // 2 < len(counted) <= CELLS
    assert all(one.sum(key, 0) == 1 for key in counted)
    assert other.add(5 * CELLS, 0, 1)  # the other's cells are its own
    one.clear()
    assert one.sum(counted[0], 0) == 0 and one.sum(5 * CELLS, 0) == 1


def test_alone() -> None:
    one = Tallies()
    assert one.add(2**64 - 1, 0, 4) and one.sum(2**64 - 1, 0) == 4


@pytest.mark.parametrize(("key", "word"), [(0, 0), (1, -1), (1, 1)])
def test_what_is_no_number(key: int, word: int) -> None:
    with pytest.raises(ValueError, match="no such number"):
        Tallies().add(key, word, 1)
    with pytest.raises(ValueError, match="no such number"):
        Tallies().sum(key, word)


def test_a_page_that_is_too_small() -> None:
    with pytest.raises(ValueError, match="no room for process 0 of 2"):
        Tallies(bytearray(8 * 2 * 100), 0, 2)
    with pytest.raises(ValueError, match="no room for process 2 of 2"):
        Tallies(bytearray(8 * 2 * 1000), 2, 2)
