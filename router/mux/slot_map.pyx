"""Slot -> shard, as the supervisor says: one load for a frame, ranges for Python.

Owned by the router. Changed as a whole and only by `take`, on behalf of the supervisor; everything else asks here, and
nothing computes a slot's owner.
"""
from libc.string cimport memcpy

from kache.slots import check


cdef class SlotMap:

    def __init__(self, int shards, uint64_t epoch, ranges):
        self.shards = shards
        self.epoch = 0
        self.take(epoch, ranges)

    def take(self, uint64_t epoch, ranges):
        """A new map, `ranges` of (first slot, last slot, shard); one that is older than this map is passed over.

        Raises ValueError for ranges that do not name a shard for every slot.
        """
        cdef uint16_t[SLOTS] owner
        cdef int slot, first, last, shard
        if epoch < self.epoch:
            return
        check(ranges, self.shards)
        for first, last, shard in ranges:
            for slot in range(first, last + 1):
                owner[slot] = <uint16_t> shard
        memcpy(self.owner, owner, sizeof(self.owner))
        self.ranges = [tuple(one) for one in ranges]
        self.epoch = epoch

    def slots_of(self, int shard):
        """The (first slot, last slot) of every range of a shard, in the order of the slots."""
        return sorted([(first, last) for first, last, owner in self.ranges if owner == shard])
