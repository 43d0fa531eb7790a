"""Stream and its groups against plain dicts: seeded random changes with tiny chunks, checked after every step."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from kache.shard.engine.consumer_groups import MOST_ARRIVALS, Group
from kache.shard.engine.stream import Stream, id_text
from kache.shard.engine.stream_chunks import node_entries, set_node_limits

HIGHEST = 2**128 - 1
NOW = 1_700_000_000_000


@pytest.fixture(params=[(1, 0), (3, 64), (0, 100), (100, 4096), (0, 0)], ids=str)
def limits(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Chunks of one entry, of few, of few bytes, of the usual size, and one for all."""
    entries, size = request.param
    set_node_limits(entries, size)
    yield entries, size
    set_node_limits()


def random_fields(rng: random.Random) -> list[bytes]:
    names = rng.choice(([b"a"], [b"a", b"b"], [b"a", b"b"], [b""], [b"x" * 200], [b"b", b"a", b"a"]))
    return [word for name in names for word in (name, rng.randbytes(rng.choice((0, 1, 5, 127, 128, 300))))]


def next_number(rng: random.Random, last: int) -> int:
    """An id behind the last: the next one, one soon, one of a later time."""
    ms, seq = last >> 64, last & (2**64 - 1)
    return rng.choice(
        (
            last + 1,
            ms << 64 | (seq + rng.randrange(1, 300)),
            (ms + rng.choice((1, 7, 2**20, 2**40))) << 64 | rng.randrange(3),
        )
    )


def told(number: int, fields: list[bytes]) -> list[object]:
    return [b"%d-%d" % (number >> 64, number & (2**64 - 1)), fields]


def change_once(stream: Stream, model: dict[int, list[bytes]], last: int, rng: random.Random) -> int:
    """One random change to both; the greatest id there was."""
    action = rng.random()
    known = list(model)
    if action < 0.6 or not known:
        last = next_number(rng, last)
        model[last] = random_fields(rng)
        stream.put(last, model[last])
    elif action < 0.7:
        length, whole, most = rng.randrange(len(known) + 2), rng.random() < 0.5, rng.choice((0, 0, 5))
        check_trim(model, stream.until_length(length, whole, most), len(known) - length, not whole and not most)
    elif action < 0.75:
        first, whole, most = rng.choice(known) + rng.choice((0, 0, 1)), rng.random() < 0.5, rng.choice((0, 0, 5))
        check_trim(model, stream.until_id(first, whole, most), sum(n < first for n in known), not whole and not most)
    return last


def check_trim(model: dict[int, list[bytes]], found: tuple[int, int] | None, wanted: int, exactly: bool) -> None:
    """What was decided removes as many entries as it says, at most those that are wanted, or all of them."""
    count = 0
    if found is not None:
        until, count = found
        assert count == sum(number <= until for number in model) > 0
    assert count == max(wanted, 0) if exactly else count <= max(wanted, 0)


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_is_a_sorted_dict(limits: tuple[int, int], seed: int) -> None:
    rng = random.Random(seed)
    stream, model, last = Stream(), dict[int, list[bytes]](), 0
    for _ in range(150):
        last = change_once(stream, model, last, rng)
        stream.check()
        assert stream.length == len(model)
        first, second = sorted(rng.choice((0, last, HIGHEST, *model)) for _ in range(2))
        count = rng.choice((-1, 0, 1, 3))
        expected = [told(number, fields) for number, fields in model.items() if first <= number <= second]
        ids: list[int] = []
        assert stream.range(first, second, count, ids=ids) == (expected if count < 0 else expected[:count])
        assert [id_text(number) for number in ids] == [
            each[0] for each in (expected if count < 0 else expected[:count])
        ]
        expected.reverse()
        assert stream.range(first, second, count, True) == (expected if count < 0 else expected[:count])
        number = rng.choice((0, last, last + 1, *model))
        assert stream.get(number) == model.get(number)
        assert stream.contains(number) == (number in model)
        assert (stream.first_entry_id, stream.last_entry_id) == (min(model, default=0), max(model, default=0))
    copy = stream.copy()
    copy.check()
    assert copy.range(0, HIGHEST) == stream.range(0, HIGHEST)
    while copy.release_some(7):
        pass
    assert node_entries() == limits[0]


def test_memory_is_what_is_allocated_and_goes_down_again() -> None:
    stream = Stream()
    for number in range(1, 100_001):
        stream.put(number, [b"field", b"%032d" % number])
    stream.check()
    assert stream.memory / 100_000 < 45
    assert stream.nodes == 1000


# Groups --------------------------------------------------------------------------------------------
def test_a_group_is_a_dict_of_what_is_pending() -> None:
    rng = random.Random(3)
    group = Group(b"g", 0, -1, 1)
    model: dict[int, tuple[bytes, int, int]] = {}
    names = [b"c%d" % number for number in range(4)]
    number = 0
    for step in range(4000):
        name = rng.choice(names)
        group.consumer_put(name, step, step)
        action = rng.random()
        if action < 0.45:
            ids = [number := number + 1 for _ in range(rng.randrange(1, 30))]
            group.pending_put(ids, name, step, 1)
            model.update(dict.fromkeys(ids, (name, step, 1)))
        elif action < 0.9 and model:
            ids = rng.sample(list(model), min(len(model), rng.randrange(1, 30)))
            if rng.random() < 0.7:
                assert group.pending_drop([*ids, number + 1]) == len(ids)
                for each in ids:
                    del model[each]
            else:
                group.pending_put(ids, name, step, 5)
                model.update(dict.fromkeys(ids, (name, step, 5)))
        elif action < 0.92:
            assert group.consumer_drop(name) == sum(owner == name for owner, _, _ in model.values())
            model = {each: value for each, value in model.items() if value[0] != name}
        elif action < 0.95 and model:
            first = rng.choice(list(model))
            assert list(group.order.from_id(first)) == sorted(each for each in model if each >= first)
            consumer = rng.choice(list(group.consumers.values()))
            expected = sorted(each for each, value in model.items() if value[0] == consumer.name and each >= first)
            assert list(consumer.from_id(first)) == expected
        if step % 97 == 0:
            group.check()
    assert {each: (p.consumer, p.delivered, p.count) for each, p in group.pending.items()} == model
    copy = group.copy()
    copy.check()
    assert copy.pending.keys() == model.keys()
    while copy.release_some(100):
        pass
    assert not copy.pending


def test_what_is_acknowledged_at_once_is_never_put_in_order() -> None:
    group = Group(b"g", 0, 0, 1)
    group.consumer_put(b"c", 0, 0)
    for number in range(0, 100_000, 10):
        ids = list(range(number, number + 10))
        group.pending_put(ids, b"c", 0, 1)
        assert group.pending_drop(ids) == 10
    assert group.order.ids is None
    assert len(group.order.arrivals) <= MOST_ARRIVALS
    group.check()


def test_the_order_of_a_claimed_entry_follows_it() -> None:
    group = Group(b"g", 0, 0, 1)
    for name in (b"a", b"b"):
        group.consumer_put(name, 0, 0)
    group.pending_put([1, 2, 3], b"a", 0, 1)
    for name in (b"b", b"a", b"b"):
        group.pending_put([2], name, 0, 1)
    group.check()
    assert list(group.consumers[b"a"].from_id(0)) == [1, 3]
    assert list(group.consumers[b"b"].from_id(0)) == [2]
    assert group.bounds() == (1, 3)


@pytest.mark.parametrize(("entries", "consumers"), [(1000, 1), (20_000, 2), (30_000, 30), (10, 300)])
def test_what_a_group_says_it_takes_is_what_is_allocated(entries: int, consumers: int) -> None:
    """Within a tenth, also per entry: 350 bytes are the most."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        group = Group(b"group", 0, 0, 1)
        for number in range(consumers):
            group.consumer_put(b"consumer:%d" % number, NOW + number, NOW + number)
        for first in range(0, entries, 10):
            ids = [(NOW + number) << 64 | number for number in range(first, first + 10)]
            group.pending_put(ids, b"consumer:%d" % (first // 10 % consumers), NOW + first, 1)
        for order in (group.order, *group.consumers.values()):
            order.settle()
        del ids
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.9 < group.memory / taken < 1.1
    assert entries < 1000 or taken / entries < 350
