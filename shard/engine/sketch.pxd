"""Declarations of the sketch of hot keys (see sketch.pyx)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    ROWS = 2
    WIDTH = 1024                # cells of a row, a power of two
    PLACES = 48                 # keys whose names are kept
    NAME_BYTES = 128            # of a name so much is kept

cdef struct Cell:
    uint32_t mark               # of the key that has it
    uint32_t count

cdef struct HotKey:
    uint64_t hash
    uint32_t count
    uint32_t size               # of the whole name, bytes
    int db
    char[NAME_BYTES] name


cdef class HotKeys:
    cdef Cell[ROWS * WIDTH] cells
    cdef HotKey[PLACES] places
    cdef int used               # of places
    cdef uint32_t least         # the smallest count in them, once all are used
    cdef readonly uint32_t gap  # one of so many commands is looked at, and counts for all of them
    cdef uint32_t looks         # since the last `pace`
    cdef uint64_t total         # of counts, aged as they are
    cdef double seconds         # that they stand for
    cdef double paced           # time.monotonic() of the last `pace`, and of the last halving
    cdef double halved
    cdef uint32_t next_gap(self) noexcept
    cdef uint32_t _count(self, uint64_t hash) noexcept
    cdef void _find_least(self) noexcept
    cdef void note(self, uint64_t hash, int db, const char* name, size_t n) noexcept
