# cython: language_level=3
"""Declarations of the board on which shards show that they are at work (see board.pyx)."""
from libc.stdint cimport int64_t, uint64_t


cdef class Board:
    cdef Py_buffer shared
    cdef uint64_t* numbers
    cdef readonly Py_ssize_t shards, routers
    cdef bint stopping
    # Where shard `shard` counts the commands that it has begun for router `router`; NULL when there is no such place.
    cdef uint64_t* begun(self, Py_ssize_t shard, Py_ssize_t router) noexcept
    # Whether the shard's process was running within the last LIFE_NS.
    cdef bint alive(self, Py_ssize_t shard) noexcept
