"""Hash slots: Redis Cluster's function, and the map of which shard owns which slots.

A key's slot is CRC16 (XMODEM: polynomial 0x1021, start 0) of the key modulo 16384. If the key holds
``{…}`` with something between the first ``{`` and the first ``}`` after it, only that part is hashed,
so that keys with one tag meet in one slot (Redis Cluster specification, "Hash tags").

The map belongs to the supervisor, which makes the first one here; every other process is told, and asks what it was
told. Nothing else computes a slot's owner.
"""

from __future__ import annotations

from collections.abc import Iterable

from kache.wire.codec import slot_of_key

__all__ = ["SLOT_COUNT", "SlotRange", "check", "contiguous", "owners", "slot_of_key"]

SLOT_COUNT = 16384

SlotRange = tuple[int, int, int]
"""(first slot, last slot, the shard that owns both and what is between)."""


def contiguous(shards: int) -> list[SlotRange]:
    """The first map of a cluster: one range for every shard, as even as can be."""
    starts = [-(-shard * SLOT_COUNT // shards) for shard in range(shards + 1)]
    return [(starts[shard], starts[shard + 1] - 1, shard) for shard in range(shards)]


def check(ranges: Iterable[SlotRange], shards: int) -> None:
    """Raises ValueError unless the ranges name exactly one of `shards` for every slot."""
    named = bytearray(SLOT_COUNT)
    for first, last, shard in ranges:
        if not (0 <= first <= last < SLOT_COUNT and 0 <= shard < shards):
            raise ValueError(f"slots {first} to {last} of shard {shard}: there is no such range")
        if any(named[first : last + 1]):
            raise ValueError(f"slots {first} to {last} have two owners")
        named[first : last + 1] = b"\1" * (last + 1 - first)
    if 0 in named:
        raise ValueError(f"slot {named.index(0)} has no owner")


def owners(ranges: Iterable[SlotRange], shards: int) -> list[int]:
    """The shard of every slot. Raises ValueError unless the ranges name exactly one of `shards` for each."""
    ranges = list(ranges)
    check(ranges, shards)
    found = [0] * SLOT_COUNT
    for first, last, shard in ranges:
        found[first : last + 1] = [shard] * (last + 1 - first)
    return found
