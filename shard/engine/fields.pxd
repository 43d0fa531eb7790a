"""Declarations of the value of a hash or a set (see fields.pyx), and what of it every command uses, inline.

To look at all fields in C: `walk = table_walk(&fields.table)`, then `walk_next(&walk)` until it is NULL (table.pxd).
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from .entry cimport Entry
from .heap cimport Heap
from .memory cimport table_hash
from .table cimport Table, table_find


@cython.final
cdef class FieldTable:
    cdef Table table
    cdef Heap heap
    cdef int64_t bytes_used         # of everything in it and the object itself

    cdef inline Entry* entry_of(self, const char* field, size_t n) noexcept:
        return table_find(&self.table, table_hash(field, n), field, n)

    cdef inline int64_t soonest(self) noexcept:
        """The nearest deadline of a field, or 0."""
        return self.heap.items[0].deadline if self.heap.count else 0

    cdef int put(self, const char* field, size_t field_size, const char* value, size_t n, bint keep_ttl) except -1
    cdef bint remove(self, const char* field, size_t n) noexcept
    cpdef bint set_deadline(self, bytes field, int64_t deadline) except -1
    cpdef Py_ssize_t purge(self, int64_t now_ms, Py_ssize_t limit) noexcept
    cdef FieldTable duplicate(self)
    # Before and behind filling it with about so many fields, whose order may be that of another table.
    cdef int reserve(self, uint64_t expected) except -1
    cdef int settle(self) except -1

    cdef Entry* entry_named(self, bytes field) noexcept
    cdef list collect(self, int what)
    cdef void replace(self, uint64_t* word, Entry* old, Entry* new, int64_t deadline) noexcept
    cdef bint free_some(self, Py_ssize_t count) noexcept nogil
