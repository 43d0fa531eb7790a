"""Declarations of the value of a hash or a set (see fields.pyx), and what of it every command uses, inline.

To look at all fields in C: `walk = fields_from(fields)`, then `next_field(&walk)` until it is false.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kache.wire.codec cimport Span

from .entry cimport Entry, entry_deadline, entry_key, entry_key_size, entry_value, entry_value_size
from .heap cimport Heap, heap_soonest
from .memory cimport table_hash
from .packed cimport HEADER, TEXT, item_span, item_text, packed_count
from .table cimport Table, Walk, table_find, table_walk, walk_next


@cython.final
cdef class FieldTable:
    cdef Table table
    cdef Heap heap
    cdef int64_t bytes_used         # of everything in it and the object itself
    cdef readonly bint packed       # its fields are in `block`, in the form of a packed hash, and not in the table
    cdef char* block                # NULL: none yet
    cdef size_t block_size, block_room

    cdef inline Entry* entry_of(self, const char* field, size_t n) noexcept:
        """Of one that is not packed, as all are that an entry holds."""
        return table_find(&self.table, table_hash(field, n), field, n)

    cdef inline int64_t soonest(self) noexcept:
        """The nearest deadline of a field, or 0."""
        return heap_soonest(&self.heap) if self.heap.count else 0

    cdef inline uint32_t count(self) noexcept:
        if self.packed:
            return packed_count(self.block) if self.block != NULL else 0
        return <uint32_t> self.table.count

    cdef const char* find_packed(self, const char* field, size_t n) noexcept
    cdef int put_packed(self, const char* field, size_t field_size, const char* value, size_t n) except -3
    cdef int make_room(self, size_t n) except -1
    cdef void splice(self, size_t offset, size_t removed, size_t added) noexcept
    cdef int unpack(self) except -1
    cdef int put(self, const char* field, size_t field_size, const char* value, size_t n, bint keep_ttl) except -1
    cdef bint remove(self, const char* field, size_t n) noexcept
    cpdef bint set_deadline(self, bytes field, int64_t deadline) except -1
    cpdef Py_ssize_t purge(self, int64_t now_ms, Py_ssize_t limit) noexcept
    cdef FieldTable duplicate(self)
    # Before and behind filling it with about so many fields, whose order may be that of another table.
    cdef int reserve(self, uint64_t expected) except -1
    cdef int settle(self) except -1

    cdef Span value_of(self, bytes field, char* scratch, int64_t* deadline) noexcept
    cdef list collect(self, int what)
    cdef void replace(self, uint64_t* word, Entry* old, Entry* new, int64_t deadline) noexcept
    cdef bint free_some(self, Py_ssize_t count) noexcept nogil


# Walking ------------------------------------------------------------------------------------------------
cdef struct FieldWalk:
    # A walk over the fields of a table that does not change meanwhile, and the one it is at.
    Walk entries
    const char* at              # in the block
    const char* end
    Span field
    Span value
    int64_t deadline            # unix ms, or 0
    char[TEXT] field_text
    char[TEXT] value_text


cdef inline FieldWalk fields_from(FieldTable fields) noexcept:
    cdef FieldWalk walk
    walk.at = walk.end = NULL
    walk.deadline = 0
    walk.entries = table_walk(&fields.table)
    if fields.packed and fields.block != NULL:
        walk.at = fields.block + HEADER
        walk.end = fields.block + fields.block_size
    return walk


cdef inline bint next_field(FieldWalk* walk) noexcept nogil:
    """Whether there is one more, which the walk is at then."""
    cdef Entry* entry
    if walk.at != walk.end:
        walk.field = item_text(walk.at, walk.field_text)
        walk.at += item_span(walk.at)
        walk.value = item_text(walk.at, walk.value_text)
        walk.at += item_span(walk.at)
        return True
    if walk.entries.table.count == 0:
        return False
    entry = walk_next(&walk.entries)
    if entry == NULL:
        return False
    walk.field.data = entry_key(entry)
    walk.field.size = entry_key_size(entry)
    walk.value.data = entry_value(entry)
    walk.value.size = entry_value_size(entry)
    walk.deadline = entry_deadline(entry)
    return True
