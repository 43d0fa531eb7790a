"""Declarations of the value of a stream (see stream.pyx), and what of it is small enough to be inline.

To look at entries in C: `walk = entries_from(stream, id)`, then `next_living(&walk)` until it is False; `walk.id` is the
entry's, and `pairs_of(&walk)` with `next_pair` gives its fields and values. Nothing may change the stream meanwhile.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kache.wire.codec cimport Span

cdef enum:
    ENTRY_DELETED = 1       # a tombstone: its bytes stay until its chunk goes
    SAME_FIELDS = 2         # its field names are those of the chunk's first entry, and left out
    IN_GROUP = 1            # flags of a Pending: its place in the group's order is known
    IN_CONSUMER = 2         # in its consumer's
    LARGEST_ENTRY = 1073741824  # bytes of fields and values

cdef struct StreamId:
    uint64_t ms
    uint64_t seq

cdef struct StreamChunk:
    StreamId first          # of its first entry ever, from which the others count
    StreamId last           # of its last entry, a tombstone or not
    uint64_t serial         # chunks of one stream are numbered for ever: a place for whoever reads it in parts
    uint32_t capacity       # bytes of entries, and
    uint32_t size           # how many are used
    uint32_t count          # living entries
    uint32_t deleted        # tombstones

cdef struct StreamSlot:
    StreamId first          # that of the chunk: a search need not look at the chunks
    StreamChunk* chunk

cdef struct NodeLimits:
    uint32_t entries        # of a chunk, tombstones included; 0: any number
    uint32_t bytes          # 0: only as many as fit 32 bits

cdef struct StreamWalk:
    StreamSlot* slot        # of the current chunk
    StreamSlot* slots_end
    const char* at          # the next entry of it
    const char* end
    # The entry that was found:
    StreamId id
    char* entry             # where it begins
    int flags
    const char* payload
    const char* payload_end

cdef struct PairWalk:
    const char* at
    const char* names       # where the next field name is, if it is not the entry's own
    uint64_t left
    Span field
    Span value

cdef NodeLimits node_limits
cdef int64_t STREAM_SIZE


cdef inline int compare_ids(StreamId left, StreamId right) noexcept nogil:
    """Below 0, 0 or above 0, as `left` is smaller, equal or greater."""
    if left.ms != right.ms:
        return -1 if left.ms < right.ms else 1
    if left.seq != right.seq:
        return -1 if left.seq < right.seq else 1
    return 0


cdef inline void next_id(StreamId last, int64_t now_ms, StreamId* id) noexcept nogil:
    """The id of an entry that is added now behind `last`, which is not the last there can be."""
    id[0] = last
    if <uint64_t> now_ms > last.ms:
        id.ms, id.seq = <uint64_t> now_ms, 0
    else:
        id.seq += 1
        id.ms += id.seq == 0


cdef inline char* chunk_entries(StreamChunk* chunk) noexcept nogil:
    return <char*> (chunk + 1)


cdef inline uint64_t take_varint(const char** at) noexcept nogil:
    """The number at `at`, which moves behind it; of bytes that were written here."""
    cdef uint64_t number = <unsigned char> at[0][0], byte
    cdef int shift = 7
    at[0] += 1
    if number < 0x80:
        return number
    number &= 0x7F
    while True:
        byte = <unsigned char> at[0][0]
        at[0] += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number
        shift += 7


cdef inline Span take_span(const char** at) noexcept nogil:
    cdef Span span
    span.size = <Py_ssize_t> take_varint(at)
    span.data = at[0]
    at[0] += span.size
    return span


cdef StreamWalk entries_from(Stream stream, StreamId first) noexcept
cdef bint next_entry(StreamWalk* walk) noexcept nogil
cdef PairWalk pairs_of(StreamWalk* walk) noexcept nogil
cdef bint parse_id(const char* text, Py_ssize_t n, StreamId* id, bint* whole) noexcept nogil
cdef int format_id(char* out, StreamId id) noexcept nogil
cdef StreamId id_of(object number) except *
cdef object number_of(StreamId id)
cdef bytes id_bytes(StreamId id)


cdef inline bint next_living(StreamWalk* walk) noexcept nogil:
    """The next entry that is no tombstone; False behind the last."""
    while next_entry(walk):
        if not walk.flags & ENTRY_DELETED:
            return True
    return False


cdef inline bint next_pair(PairWalk* walk) noexcept nogil:
    if walk.left == 0:
        return False
    walk.left -= 1
    if walk.names != NULL:
        walk.field = take_span(&walk.names)
        take_span(&walk.names)
    else:
        walk.field = take_span(&walk.at)
    walk.value = take_span(&walk.at)
    return True


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
cdef class Stream:
    cdef StreamSlot* directory
    cdef Py_ssize_t head            # index of the first used slot
    cdef Py_ssize_t count           # slots used
    cdef Py_ssize_t room            # slots allocated
    cdef int64_t allocated          # bytes of the chunks' blocks
    cdef readonly uint64_t length   # living entries
    cdef StreamId last              # the greatest id there ever was
    cdef StreamId max_deleted       # the greatest that XDEL took
    cdef readonly uint64_t added    # how many there ever were
    cdef uint64_t next_serial
    cdef readonly dict groups       # name -> Group, in the order of their making; None: there never was one
    cdef uint64_t last_group        # number of the group that was made last
    cdef readonly int64_t group_bytes
    cdef dict places                # number -> (serial of a group, id): where parts of it go on
    cdef uint64_t last_place

    cdef inline int64_t size_in_memory(self) noexcept:
        return STREAM_SIZE + self.room * <Py_ssize_t> sizeof(StreamSlot) + self.allocated + self.group_bytes

    cdef Py_ssize_t slot_for(self, StreamId id) noexcept nogil
    cdef int append(self, StreamId id, const Span* words, Py_ssize_t n) except -1
    cdef StreamChunk* chunk_for(self, StreamId id, size_t need, size_t need_alone) except NULL
    cdef int tighten(self, Py_ssize_t slot) noexcept
    cdef StreamChunk* grown(self, StreamChunk* chunk, size_t need) except NULL
    cdef int new_slot(self) except -1
    cdef void drop_slots(self, Py_ssize_t first, Py_ssize_t n) noexcept
    cdef void bury(self, Py_ssize_t slot, char* entry) noexcept
    cdef list range_down(self, StreamId low, StreamId high, Py_ssize_t count, list ids)
    cdef bint find_entry(self, StreamId id, StreamWalk* walk) noexcept
    cdef bint delete(self, StreamId id) noexcept
    cdef Stream trim(self, StreamId until)
    cdef Stream detach(self, Py_ssize_t n)
    cdef bint may_be(self, StreamId last, uint64_t added) noexcept
    cdef void let_last(self, StreamId last) noexcept
    cdef bint first_id(self, StreamId* id) noexcept
    cdef bint last_living(self, StreamId* id) noexcept
    cdef object group_of(self, bytes name)
    cdef uint64_t next_group(self) except 0
    cdef dict groups_made(self)
    cdef int recount_groups(self) except -1
    cdef int count_group(self, object group, int64_t before) except -1
