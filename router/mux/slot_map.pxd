# cython: language_level=3
"""Declarations of the slot map (see slot_map.pyx)."""
cimport cython
from libc.stdint cimport uint16_t, uint64_t

cdef enum:
    SLOTS = 16384


@cython.final
cdef class SlotMap:
    """Which shard owns which slot."""
    cdef readonly uint64_t epoch
    cdef readonly list ranges           # what it was made of
    cdef uint16_t[SLOTS] owner
    cdef int shards
