"""Declarations of the value of a stream (see stream.pyx). How to look at its entries in C: stream_chunks.pxd."""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .stream_chunks cimport (
    Span,
    StreamChunk,
    StreamChunks,
    StreamId,
    StreamSlot,
    StreamWalk,
    chunk_entries,
    compare_ids,
    entries_from,
    fields_of_entry,
    next_entry,
    next_living,
)

cdef enum:
    IN_GROUP = 1            # flags of a Pending: its place in the group's order is known
    IN_CONSUMER = 2         # in its consumer's

cdef int64_t STREAM_SIZE

cdef bint parse_id(const char* text, Py_ssize_t n, StreamId* id, bint* whole) noexcept nogil
cdef int format_id(char* out, StreamId id) noexcept nogil
cdef StreamId id_of(object number) except *
cdef object number_of(StreamId id)
cdef bytes id_bytes(StreamId id)


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Pending:
    """An entry that was delivered and not acknowledged."""
    cdef readonly object id         # an int; None: it was acknowledged, or goes with its consumer
    cdef public bytes consumer      # whose it is; only bytes, so that there is no cycle to be collected
    cdef public int64_t delivered   # unix ms
    cdef public uint64_t count      # how often
    cdef public uint32_t placed     # IN_GROUP, IN_CONSUMER


@cython.final
@cython.no_gc
cdef class Stream(StreamChunks):
    cdef readonly dict groups       # name -> Group, in the order of their making; None: there never was one
    cdef uint64_t last_group        # number of the group that was made last
    cdef readonly int64_t group_bytes
    cdef dict places                # number -> (serial of a group, id): where parts of it go on
    cdef uint64_t last_place

    cdef inline int64_t size_in_memory(self) noexcept:
        return STREAM_SIZE + self.room * <Py_ssize_t> sizeof(StreamSlot) + self.allocated + self.group_bytes

    cdef list range_down(self, StreamId low, StreamId high, Py_ssize_t count, list ids)
    cdef uint64_t bound_length(self, uint64_t length, bint whole_nodes, uint64_t most, StreamId* until) noexcept
    cdef uint64_t bound_id(self, StreamId keep, bint whole_nodes, uint64_t most, StreamId* until) noexcept
    cdef object group_of(self, bytes name)
    cdef uint64_t next_group(self) except 0
    cdef dict groups_made(self)
    cdef int recount_groups(self) except -1
    cdef int count_group(self, object group, int64_t before) except -1
