"""Hash slots: Redis Cluster's function, and which shard owns which slots.

A key's slot is CRC16 (XMODEM: polynomial 0x1021, start 0) of the key modulo 16384. If the key holds
``{…}`` with something between the first ``{`` and the first ``}`` after it, only that part is hashed,
so that keys with one tag meet in one slot (Redis Cluster specification, "Hash tags").
"""

from __future__ import annotations

from kache.wire.codec import slot_of_key

__all__ = ["SLOT_COUNT", "shard_of_slot", "slot_of_key", "slots_of_shard"]

SLOT_COUNT = 16384


def slots_of_shard(shard: int, shards: int) -> range:
    """The contiguous slots that shard `shard` of `shards` owns."""
    return range(_first_slot(shard, shards), _first_slot(shard + 1, shards))


def shard_of_slot(slot: int, shards: int) -> int:
    """The shard that owns `slot` in a cluster of `shards`."""
    return slot * shards // SLOT_COUNT


def _first_slot(shard: int, shards: int) -> int:
    # The smallest slot with slot * shards // SLOT_COUNT >= shard.
    return -(-shard * SLOT_COUNT // shards)
