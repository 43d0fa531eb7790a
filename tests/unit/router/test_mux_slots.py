"""The map of slots in a router: any map routes, splits and scans; a new one holds from the next command on."""

from __future__ import annotations

import pytest
from fake_shard import FakeShard
from test_mux import Client, ask, cluster, run

from kache.slots import SLOT_COUNT, SlotRange, contiguous, slot_of_key

BLOCK = 64


def interleaved(shards: int) -> list[SlotRange]:
    """Blocks of slots to the shards in turn."""
    return [(first, first + BLOCK - 1, first // BLOCK % shards) for first in range(0, SLOT_COUNT, BLOCK)]


KEYS = [b"key:%d" % number for number in range(500)]


async def fill(client: Client) -> None:
    assert await ask(client, "MSET", *(word for key in KEYS for word in (key, b"value of " + key))) == "OK"


async def scan(client: Client, *options: str) -> list[bytes]:
    """All keys that a scan returns, page after page."""
    cursor, found = b"0", []
    while True:
        cursor, keys = await ask(client, "SCAN", cursor, *options)
        found += keys
        if cursor == b"0":
            return found


@pytest.mark.parametrize("slots", [None, interleaved(3), interleaved(2)], ids=["contiguous", "interleaved", "idle"])
def test_every_key_is_where_the_map_says(slots: list[SlotRange] | None) -> None:
    """The last map leaves one shard without slots."""
    owner = {slot: shard for first, last, shard in slots or contiguous(3) for slot in range(first, last + 1)}

    async def test() -> None:
        async with cluster(3, slots=slots) as running:
            client = await running.connect()
            await fill(client)
            for index, shard in enumerate(running.shards):
                assert {key for _, key in shard.data} == {key for key in KEYS if owner[slot_of_key(key)] == index}
            assert await ask(client, "GET", KEYS[7]) == b"value of " + KEYS[7]
            assert await ask(client, "MGET", *reversed(KEYS)) == [b"value of " + key for key in reversed(KEYS)]
            assert await ask(client, "EXISTS", *KEYS) == len(KEYS)
            router = running.router
            assert all(router.shard_of(key) == owner[slot_of_key(key)] for key in KEYS)
            assert [router.shard_of_slot(slot) for slot in range(SLOT_COUNT)] == [owner[s] for s in range(SLOT_COUNT)]
            ranges = [(first, last, shard) for shard in range(3) for first, last in router.slots_of(shard)]
            assert sorted(ranges) == sorted(slots or contiguous(3))
            with pytest.raises(IndexError, match="no slot 16384"):
                router.shard_of_slot(SLOT_COUNT)

    run(test)


@pytest.mark.parametrize("count", ["1", "7", "1000"])
@pytest.mark.parametrize("slots", [None, interleaved(3), interleaved(2)], ids=["contiguous", "interleaved", "idle"])
def test_a_scan_finds_every_key_once(slots: list[SlotRange] | None, count: str) -> None:
    async def test() -> None:
        async with cluster(3, slots=slots) as running:
            client = await running.connect()
            await fill(client)
            assert sorted(await scan(client, "COUNT", count)) == sorted(KEYS)

    run(test, 30)


def test_a_scan_goes_on_while_slots_change_hands() -> None:
    def move_keys(shards: list[FakeShard], owner: dict[int, int]) -> None:
        everything = {at: value for shard in shards for at, value in shard.data.items()}
        for shard in shards:
            shard.data = {at: value for at, value in everything.items() if owner[slot_of_key(at[1])] == shard.index}

    async def test() -> None:
        async with cluster(2) as running:
            client = await running.connect()
            await fill(client)
            maps = [interleaved(2), contiguous(2), [(0, SLOT_COUNT - 1, 0)], [(0, SLOT_COUNT - 1, 1)]]
            cursor, found, steps = b"0", [], 0
            while not steps or cursor != b"0":
                ranges = maps[steps % len(maps)]
                steps += 1
                running.router.take_slots(steps, ranges)
                move_keys(running.shards, {s: shard for first, last, shard in ranges for s in range(first, last + 1)})
                cursor, keys = await ask(client, "SCAN", cursor)
                found += keys
            assert sorted(found) == sorted(KEYS)

    run(test)


def test_an_older_map_and_a_broken_one_change_nothing() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            router = running.router
            router.take_slots(5, interleaved(2))
            router.take_slots(4, contiguous(2))
            with pytest.raises(ValueError, match="slot 16383 has no owner"):
                router.take_slots(6, [(0, 16382, 0)])
            assert (router.slots.epoch, router.slots.ranges) == (5, interleaved(2))
            assert router.shard_of_slot(BLOCK) == 1

    run(test)
