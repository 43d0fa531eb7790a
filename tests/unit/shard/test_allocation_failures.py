"""Lists, hashes, sets and sorted sets when memory is refused: whatever raises has changed nothing, and taking away never raises.

Seeded random changes against plain Python values. Of every change each allocation is refused in turn, alone or with all
that follow, until the change succeeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import TypeVar

import pytest

from kache.shard.engine.fields import FieldTable
from kache.shard.engine.listvalue import ListValue
from kache.shard.engine.memory import fail_allocation_after
from kache.shard.engine.zset import ZSet

ALONE, WITH_ALL_THAT_FOLLOW = 1, 1 << 62


T = TypeVar("T", ListValue, FieldTable, ZSet)
Fields = dict[bytes, tuple[bytes, int]]


@pytest.fixture(autouse=True)
def every_allocation_granted_again() -> Iterator[None]:
    yield
    fail_allocation_after(-1)


@pytest.fixture(params=[ALONE, WITH_ALL_THAT_FOLLOW], ids=["alone", "with all that follow"])
def refused(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def state_of(value: ListValue | FieldTable | ZSet) -> object:
    if isinstance(value, FieldTable):
        return {field: (data, value.deadline_of(field)) for field, data in value.items()}
    return value.items() if isinstance(value, ZSet) else list(value)


def refusals(value: T, change: Callable[[T], object], refused: int, granted: int = 0) -> int:
    """Changes `value`, its allocations refused from number `granted` on one by one; how many refusals made it raise."""
    before = state_of(value)
    for raised in count():
        fail_allocation_after(granted + raised, refused)
        try:
            change(value)
        except MemoryError:
            assert fail_allocation_after(-1), "it raised although nothing was refused"
            value.check()
            assert state_of(value) == before
        else:
            fail_allocation_after(-1)
            value.check()
            return raised
    raise AssertionError


def test_as_many_are_granted_and_refused_as_was_said() -> None:
    fail_allocation_after(2)
    with pytest.raises(MemoryError):
        ListValue([b"a"] * 10_000)
    assert fail_allocation_after(-1)
    assert not fail_allocation_after(-1)
    fail_allocation_after(1_000)
    ListValue([b"a"])
    assert not fail_allocation_after(-1)
    fail_allocation_after(0, 2)
    for _ in range(2):
        with pytest.raises(MemoryError):
            ListValue([b"a"])
    ListValue([b"a"])


# Lists ----------------------------------------------------------------------------------------------------------------


def random_value(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 1, 2, 9, 30, 300)))


def list_change(rng: random.Random, model: list[bytes]) -> tuple[Callable[[ListValue], object], list[bytes], bool]:
    """A change, what the list is after it, and whether it only takes away."""
    left, value, index = rng.random() < 0.5, random_value(rng), rng.randrange(len(model) + 1)
    action = rng.randrange(10 if len(model) < 120 else 14)
    if action < 3:
        values = [random_value(rng) for _ in range(rng.randrange(1, 8))]
        return lambda lv: lv.extend(values, left), values[::-1] + model if left else model + values, False
    if action < 6:
        return lambda lv: lv.insert(index, value), [*model[:index], value, *model[index:]], False
    if action < 9:
        if index == len(model):
            return lambda lv: lv.push(value, True), [value, *model], False
        return lambda lv: lv.set(index, value), [*model[:index], value, *model[index + 1 :]], False
    if action == 9:
        wanted = rng.choice(model) if model else b""
        kept = [element for element in model if element != wanted]
        return lambda lv: lv.remove(wanted, 0), kept, False
    if action == 10:
        number = rng.randrange(1, 6)
        after = model[number:] if left else model[:-number]
        return lambda lv: lv.pop_many(left, number), after, True
    if action == 11:
        return lambda lv: lv.pop(left), model[1:] if left else model[:-1], True
    stop = index + rng.choice((1, 2, 10, 100))
    return lambda lv: lv.delete_range(index, stop), model[:index] + model[stop:], True


@pytest.mark.parametrize(("entries", "size"), [(1, 64), (3, 40), (8, 64), (128, 4096)])
def test_lists(entries: int, size: int, refused: int) -> None:
    rng = random.Random(entries)
    lv = ListValue(chunk_entries=entries, chunk_bytes=size)
    model: list[bytes] = []
    raised = 0
    for _ in range(2500):
        change, model, takes_away = list_change(rng, model)
        times = refusals(lv, change, refused, rng.choice((0, 0, 1, 2)))
        assert not (takes_away and times)
        assert list(lv) == model
        raised += times
    assert raised > 100


def test_detaching_a_large_part_of_a_list(refused: int) -> None:
    for granted in range(3):
        lv = ListValue([b"%d" % i for i in range(400)], chunk_entries=2)
        assert refusals(lv, lambda lv: lv.delete_range(10, 390), refused, granted) == 0
        assert list(lv) == [b"%d" % i for i in (*range(10), *range(390, 400))]


def test_copying_a_list(refused: int) -> None:
    lv = ListValue([b"%d" % i for i in range(40)], chunk_entries=4)
    assert refusals(lv, lambda lv: lv.copy(), refused) > 10


def test_searching_a_list_for_many_runs(refused: int) -> None:
    lv = ListValue([b"a", b"b"] * 100)
    assert refusals(lv, lambda lv: lv.runs(b"a", -60), refused) > 2


# Hashes and sets ------------------------------------------------------------------------------------------------------


def field_change(rng: random.Random, model: Fields) -> tuple[Callable[[FieldTable], object], Fields, bool]:
    field, value, after = b"f%d" % rng.randrange(60), random_value(rng), dict(model)
    action = rng.randrange(12)
    if action < 5:
        keep = rng.random() < 0.5
        after[field] = (value, model[field][1] if keep and field in model else -1)
        return lambda ft: ft.set(field, value, keep), after, False
    if action < 8:
        deadline = rng.randrange(1, 1000)
        if field in model:
            after[field] = (model[field][0], deadline)
        return lambda ft: ft.set_deadline(field, deadline), after, False
    if action == 8:
        if field in model:
            after[field] = (model[field][0], -1)
        return lambda ft: ft.set_deadline(field, 0), after, False
    if action < 11:
        after.pop(field, None)
        return lambda ft: ft.delete(field), after, True
    now = rng.randrange(100)
    after = {field: item for field, item in model.items() if not 0 <= item[1] <= now}
    return lambda ft: ft.purge(now, 1000), after, True


def test_hashes(refused: int) -> None:
    rng = random.Random(3)
    ft = FieldTable()
    model: Fields = {}
    raised = 0
    for _ in range(3000):
        change, model, takes_away = field_change(rng, model)
        times = refusals(ft, change, refused, rng.choice((0, 0, 1)))
        assert not (takes_away and times)
        assert state_of(ft) == model
        raised += times
    assert raised > 900


def test_hashes_that_split_and_join_their_tables(refused: int) -> None:
    ft = FieldTable()
    names = [b"field %d" % i for i in range(5000)]
    splits = 0
    for number, name in enumerate(names):
        for granted in count():
            fail_allocation_after(granted, refused)
            try:
                ft.set(name, b"")
                break
            except MemoryError:
                assert len(ft) == number
                assert name not in ft
                if granted > 1:
                    splits += 1
                    ft.check()
        fail_allocation_after(-1)
    assert splits > 10
    twin = ft.copy()
    for number, name in enumerate(names):
        fail_allocation_after(number % 2, refused)
        assert ft.delete(name)
        assert twin.delete(name)
        if number % 100 == 0:
            ft.check()
    assert len(ft) == len(twin) == 0


def test_copying_a_hash(refused: int) -> None:
    ft = FieldTable()
    for i in range(30):
        ft.set(b"%d" % i, b"value")
        ft.set_deadline(b"%d" % i, 100 + i * 7 % 10)
    assert refusals(ft, lambda ft: ft.copy(), refused) > 30


def test_a_copy_has_room_for_deadlines_only_if_there_are_some() -> None:
    ft = FieldTable()
    ft.set(b"field", b"value")
    assert ft.copy().memory == ft.memory


# Sorted sets ----------------------------------------------------------------------------------------------------------


def member_change(
    rng: random.Random, model: dict[bytes, float]
) -> tuple[Callable[[ZSet], object], dict[bytes, float], bool]:
    member, score, after = b"m%d" % rng.randrange(150), float(rng.randrange(40)), dict(model)
    action = rng.randrange(20)
    if action < 13:
        after[member] = score
        return lambda zs: zs.add(member, score), after, False
    if action < 19:
        after.pop(member, None)
        return lambda zs: zs.remove(member), after, True
    start = rng.randrange(len(model) + 1)
    stop = start + rng.choice((1, 3, 30))
    for name, _ in in_order(model)[start:stop]:
        del after[name]
    return lambda zs: zs.delete_ranks(start, stop), after, True


def in_order(model: dict[bytes, float]) -> list[tuple[bytes, float]]:
    return sorted(model.items(), key=lambda item: (item[1], item[0]))


@pytest.mark.parametrize("fan", [4, 5, 64])
def test_sorted_sets(fan: int, refused: int) -> None:
    rng = random.Random(fan)
    zs = ZSet(fan=fan)
    model: dict[bytes, float] = {}
    raised = 0
    for _ in range(3000):
        change, model, takes_away = member_change(rng, model)
        times = refusals(zs, change, refused, rng.choice((0, 0, 1, 2)))
        assert not (takes_away and times)
        assert zs.items() == in_order(model)
        raised += times
    assert raised > 500


def test_copying_a_sorted_set(refused: int) -> None:
    zs = ZSet([(b"%d" % i, float(i)) for i in range(200)])
    assert refusals(zs, lambda zs: zs.copy(), refused) > 200
