"""Claims: which one of several shards serves a client that waits on all of them. A mapped page (kache/cluster/claims.py).

    router   opens a cell: a new generation, owned by nobody; every shard is told both
    shard    has something for the client: takes the cell, if it is still as it was told
    router   the time is over, or the client is gone: takes it itself, in the same way

A cell is ``generation << 16 | owner``; the owner 0 is nobody, a shard its number + 1. Taking compares and exchanges, so
exactly one succeeds, without a message. A cell that is used again has another generation, so that whoever is late fails.
Only the router that owns a cell opens and closes it.
"""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #define KACHE_CELL(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define KACHE_OPEN(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)
    static int kache_claim(uint64_t *place, uint64_t expected, uint64_t value) {
        return __atomic_compare_exchange_n(place, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    uint64_t kache_cell "KACHE_CELL"(uint64_t* place) noexcept nogil
    void kache_open "KACHE_OPEN"(uint64_t* place, uint64_t value) noexcept nogil
    bint kache_claim(uint64_t* place, uint64_t expected, uint64_t value) noexcept nogil

cdef enum:
    OWNER_BITS = 16
    OWNER_MASK = 0xFFFF

CELLS_OF_A_ROUTER = 65536
"""As many clients of one router can wait on several shards each: more than a process has descriptors, as a rule."""

ROUTER = OWNER_MASK - 1
"""As the number of a shard: the router has taken its cell back."""


@cython.no_gc      # it is in no cycle, and whoever clears it would take the buffer's owner away before its release
cdef class Claims:
    """The cells in `memory` (writable, 8 bytes each). A router says which it is, and has a part of them for itself.

    None: memory of its own, for one router alone.
    """

    def __init__(self, memory=None, router=None):
        PyObject_GetBuffer(bytearray(8 * CELLS_OF_A_ROUTER) if memory is None else memory, &self.shared, PyBUF_WRITABLE)
        self.cells = <uint64_t*> self.shared.buf
        self.count = self.shared.len // <Py_ssize_t> sizeof(uint64_t)
        self.free = []
        if router is not None:
            self.next = self.first = <Py_ssize_t> router * CELLS_OF_A_ROUTER
            self.end = min(self.first + CELLS_OF_A_ROUTER, self.count)

    def __dealloc__(self):
        if self.shared.buf != NULL:
            PyBuffer_Release(&self.shared)

    def open(self):
        """(cell, claim): a cell of this router that nobody owns yet, and what it holds; None when all are in use."""
        cdef Py_ssize_t cell
        cdef uint64_t claim
        if self.free:
            cell = self.free.pop()
        elif self.next < self.end:
            cell = self.next
            self.next += 1
        else:
            return None
        claim = ((kache_cell(self.cells + cell) >> OWNER_BITS) + 1) << OWNER_BITS
        kache_open(self.cells + cell, claim)
        return cell, claim

    def close(self, Py_ssize_t cell):
        """The cell is used again; whoever still has its claim is too late."""
        if not self.first <= cell < self.next:
            raise IndexError(f"cell {cell} is not open here")
        kache_open(self.cells + cell, kache_cell(self.cells + cell) | OWNER_MASK)
        self.free.append(cell)

    def take(self, Py_ssize_t cell, uint64_t claim, int shard):
        """Whether the shard (or ROUTER) has got it: nobody else has, and nobody will."""
        if not 0 <= cell < self.count:
            return False
        return kache_claim(self.cells + cell, claim, claim | <uint64_t> (shard + 1))

    def owner(self, Py_ssize_t cell):
        """The shard that has taken it, ROUTER, or -1 for nobody."""
        return <int> (kache_cell(self.cells + cell) & OWNER_MASK) - 1
