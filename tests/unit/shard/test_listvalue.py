"""ListValue against a plain list: seeded random changes with tiny chunks, checked after every step."""

from __future__ import annotations

import random

import pytest

from kache.shard.engine.listvalue import ListValue


def random_value(rng: random.Random) -> bytes:
    """Mostly short, sometimes beyond the one-byte length, sometimes larger than a chunk."""
    size = rng.choice((0, 1, 2, 3, 3, 5, 8, 12, 253, 254, 255, 700))
    return rng.randbytes(size) if size > 3 else bytes(rng.choices(b"ab", k=size))


def expected_positions(model: list[bytes], value: bytes, rank: int, count: int, max_compared: int) -> list[int]:
    order = range(len(model)) if rank > 0 else range(len(model) - 1, -1, -1)
    compared = list(order)[: max_compared or None]
    matches = [i for i in compared if model[i] == value][abs(rank) - 1 :]
    return matches[: count or None]


def remove_from(model: list[bytes], value: bytes, count: int) -> int:
    indexes = [i for i, v in enumerate(model) if v == value]
    chosen = indexes if count == 0 else indexes[:count] if count > 0 else indexes[count:]
    for index in reversed(chosen):
        del model[index]
    return len(chosen)


def runs_of(model: list[bytes], value: bytes, count: int) -> list[tuple[int, int]]:
    """Neighbouring places of the elements that LREM would remove, as (start, how many)."""
    indexes = [i for i, v in enumerate(model) if v == value]
    chosen = indexes if count == 0 else indexes[:count] if count > 0 else indexes[count:]
    starts = [i for i in chosen if i - 1 not in chosen]
    return [(i, next(n for n in range(1, len(chosen) + 1) if i + n not in chosen)) for i in starts]


def change_once(lv: ListValue, model: list[bytes], rng: random.Random) -> None:
    """One random change to both, its result compared."""
    value = random_value(rng)
    left = rng.random() < 0.5
    index = rng.randrange(len(model) + 1)
    action = rng.randrange(9 if len(model) < 400 else 12)
    if action <= 1:
        values = [random_value(rng) for _ in range(rng.randrange(1, 5))]
        assert lv.extend(values, left) == len(model) + len(values)
        model[:] = values[::-1] + model if left else model + values
    elif action <= 4:
        lv.insert(index, value)
        model.insert(index, value)
    elif action == 5 and index < len(model):
        lv.set(index, value)
        model[index] = value
    elif action == 6 and model:
        assert lv.pop(left) == model.pop(0 if left else -1)
    elif action == 7:
        count = rng.randrange(-2, 4)
        assert lv.remove(value, count) == remove_from(model, value, count)
    elif action == 8:
        count = rng.randrange(5)
        expected = model[:count] if left else model[::-1][:count]
        assert lv.pop_many(left, count) == expected
        model[:] = model[count:] if left else model[: max(0, len(model) - count)]
    else:
        stop = min(len(model), index + rng.choice((1, 2, 10, 300)))
        lv.delete_range(index, stop)
        del model[index:stop]


@pytest.mark.parametrize(("entries", "size"), [(1, 64), (2, 16), (3, 40), (8, 4096), (128, 64), (128, 4096)])
def test_behaves_as_a_list(entries: int, size: int) -> None:
    rng = random.Random(entries * 1000 + size)
    model: list[bytes] = []
    lv = ListValue(chunk_entries=entries, chunk_bytes=size)
    for step in range(6000):
        change_once(lv, model, rng)
        lv.check()
        assert len(lv) == len(model)
        start = rng.randrange(-2, len(model) + 2)
        stop = rng.randrange(-2, len(model) + 4)
        assert lv.slice(start, stop) == model[max(start, 0) : max(stop, 0)]
        if model:
            index = rng.randrange(len(model))
            assert lv[index] == model[index]
        if step % 50 == 0:
            assert list(lv) == model
            assert list(reversed(lv)) == model[::-1]
            value = rng.choice(model) if model else b""
            rank, count, compared = rng.choice((1, 2, -1, -3)), rng.randrange(3), rng.randrange(20)
            assert lv.positions(value, rank, count, compared) == expected_positions(model, value, rank, count, compared)
            for wanted in (0, 1, 2, 7, -1, -2, -7):
                assert lv.runs(value, wanted) == runs_of(model, value, wanted)
            assert lv.find(value) == (model.index(value) if value in model else -1)
            twin = lv.copy()
            twin.check()
            assert list(twin) == model


@pytest.mark.parametrize(("start", "stop"), [(10, 99_000), (0, 99_990), (10, 100_000), (0, 30_000), (60_000, 90_000)])
def test_a_large_range_is_detached_and_released_in_slices(start: int, stop: int) -> None:
    lv = ListValue(b"%d" % i for i in range(100_000))
    detached = lv.delete_range(start, stop)
    assert detached is not None
    assert list(lv) == [b"%d" % i for i in range(start)] + [b"%d" % i for i in range(stop, 100_000)]
    lv.check()
    detached.check()
    assert len(detached) > stop - start - 1000
    slices = 1
    while detached.release_some(2000):
        slices += 1
        detached.check()
    assert len(detached) == 0
    assert slices > (stop - start) // 5000


def test_removing_runs_across_chunks() -> None:
    model = [b"x" if i % 7 < 5 else b"%d" % i for i in range(2000)]
    for count in (0, 3, 700, -3, -700, 10_000):
        lv = ListValue(model, chunk_entries=4)
        kept = model.copy()
        assert lv.remove(b"x", count) == remove_from(kept, b"x", count)
        lv.check()
        assert list(lv) == kept
    lv = ListValue([b"x"] * 1000)
    assert lv.remove(b"x", 0) == 1000
    lv.check()
    assert list(lv) == []


def test_a_small_list_costs_a_few_hundred_bytes() -> None:
    lv = ListValue([b"short one", b"two", b"three", b"four", b"five"])
    assert lv.memory < 300


def test_short_elements_cost_little_more_than_their_bytes() -> None:
    lv = ListValue(b"%010d" % i for i in range(100_000))
    assert lv.memory < 100_000 * 15


def test_a_queue_does_not_grow() -> None:
    lv = ListValue()
    for _ in range(3):
        for i in range(50_000):
            lv.push(b"%d" % i, True)
            if i > 100:
                lv.pop(False)
        lv.pop_many(False, 1_000_000)
        lv.check()
        assert lv.memory < 8192


def test_random_inserts_leave_chunks_reasonably_full() -> None:
    rng = random.Random(5)
    lv = ListValue([b"0123456789"] * 2)
    for _ in range(50_000):
        lv.insert(rng.randrange(len(lv)), b"0123456789")
    lv.check()
    assert lv.memory < 50_000 * 12 * 3


def test_indexes_outside_raise() -> None:
    lv = ListValue([b"a"])
    for index in (-1, 1):
        with pytest.raises(IndexError):
            lv[index]
        with pytest.raises(IndexError):
            lv.set(index, b"b")
    with pytest.raises(IndexError):
        lv.insert(2, b"b")
    with pytest.raises(IndexError):
        ListValue().pop(True)
