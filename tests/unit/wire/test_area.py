"""The memory of a link: two rings, what is placed in them is found until it is taken, and nothing lies over anything."""

from __future__ import annotations

import random
from collections import deque

import pytest

from kache.wire.area import AreaEnd

ROOM = 64 * 1024


@pytest.fixture
def ends() -> tuple[AreaEnd, AreaEnd]:
    pair = AreaEnd.pair(ROOM)
    if pair is None:
        pytest.skip("there is no memory without a name here")
    return pair


@pytest.mark.parametrize("seed", range(6))
def test_what_is_placed_is_found_until_it_is_taken(ends: tuple[AreaEnd, AreaEnd], seed: int) -> None:
    """Both directions at once, at random, against two queues; now and then less may be used."""
    dice = random.Random(seed)
    waiting: tuple[deque[tuple[int, bytes]], deque[tuple[int, bytes]]] = (deque(), deque())
    placed = refused = 0
    for step in range(4000):
        way = dice.randrange(2)
        queue = waiting[way]
        if step % 500 == 499:
            ends[0].allow(dice.choice((ROOM, ROOM // 2, 5000, 0)))
        if dice.random() < 0.55:
            value = dice.randbytes(dice.choice((1, 63, 64, 65, 1000, 10_000, 40_000, ROOM)))
            position = ends[way].place(value)
            if position is None:
                refused += 1
            else:
                placed += 1
                queue.append((position, value))
        elif queue:
            position, value = queue.popleft()
            assert ends[1 - way].find(position, len(value)) == value
            ends[1 - way].take(position, len(value))
        if queue:
            # The newest has not been put over the oldest.
            assert ends[1 - way].find(queue[0][0], len(queue[0][1])) == queue[0][1]
    assert placed > 150
    assert refused > 50


def test_an_empty_ring_begins_anew(ends: tuple[AreaEnd, AreaEnd]) -> None:
    """So that a value after the other stays in the same memory, and what is given back is all that was used."""
    router, shard = ends
    for _ in range(100):
        position = router.place(b"v" * 1000)
        assert position is not None
        shard.take(position, 1000)
    assert (router.reached, shard.reached) == (1024, 1024)
    router.give_back()
    assert router.reached == 0
    position = router.place(b"again")
    assert position is not None
    assert shard.find(position, 5) == b"again"


def test_full_is_full_and_no_more_than_is_allowed(ends: tuple[AreaEnd, AreaEnd]) -> None:
    router, shard = ends
    positions = [router.place(bytes(ROOM // 4)) for _ in range(5)]
    assert positions[4] is None
    assert None not in positions[:4]
    first = positions[0]
    assert first is not None
    shard.take(first, ROOM // 4)
    assert router.place(bytes(ROOM // 4)) is not None
    router.allow(1000)
    assert shard.place(bytes(1000)) is None
    assert shard.place(bytes(900)) is not None


def test_a_position_where_nothing_can_lie_is_refused(ends: tuple[AreaEnd, AreaEnd]) -> None:
    """Beyond the ring's end, before what was taken, far ahead."""
    router, shard = ends
    position = router.place(bytes(1000))
    assert position is not None
    shard.take(position, 1000)
    assert shard.find(position, 1000) is None
    assert shard.find(1024, ROOM - 1024) is not None
    assert shard.find(1024, ROOM - 1023) is None
    assert shard.find(10 * ROOM, 10) is None
    assert shard.find(2**64 - 64, 10) is None
