"""Declarations of the entries of a stream (see stream_chunks.pyx), and what of them is small enough to be inline.

To look at entries in C: `walk = entries_from(stream, id)`, then `next_living(&walk)` until it is False; `walk.id` is the
entry's, and `pairs_of(&walk)` with `next_pair` gives its fields and values. Nothing may change the stream meanwhile.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kache.wire.codec cimport Span

cdef enum:
    ENTRY_DELETED = 1       # a tombstone: its bytes stay until its chunk goes
    SAME_FIELDS = 2         # its field names are those of the chunk's first entry, and left out
    LARGEST_ENTRY = 1073741824  # bytes of fields and values

cdef struct StreamId:
    uint64_t ms
    uint64_t seq

cdef struct StreamChunk:
    StreamId first          # of its first entry ever, from which the others count
    StreamId last           # of its last entry, a tombstone or not
    uint64_t serial         # chunks of one stream are numbered for ever: a place for whoever reads it in parts
    uint32_t size           # bytes of entries
    uint32_t deleted        # tombstones

cdef struct StreamSlot:
    # What a search, or a trim of any number of chunks, asks of a chunk is here: to look at each costs a miss of the caches.
    StreamId first          # that of the chunk
    StreamChunk* chunk
    uint32_t count          # its living entries
    uint32_t bytes          # of its block

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


cdef inline size_t room_of(StreamSlot* slot) noexcept nogil:
    """Bytes of entries that fit the chunk."""
    return slot.bytes - sizeof(StreamChunk)


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


cdef StreamWalk entries_from(StreamChunks stream, StreamId first) noexcept
cdef bint next_entry(StreamWalk* walk) noexcept nogil
cdef PairWalk pairs_of(StreamWalk* walk) noexcept nogil
cdef list fields_of_entry(StreamWalk* walk)


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


@cython.no_gc
cdef class StreamChunks:
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

    @cython.final
    cdef Py_ssize_t slot_for(self, StreamId id) noexcept nogil
    @cython.final
    cdef bint find_entry(self, StreamId id, StreamWalk* walk) noexcept
    @cython.final
    cdef bint first_id(self, StreamId* id) noexcept
    @cython.final
    cdef bint last_living(self, StreamId* id) noexcept
    @cython.final
    cdef int append(self, StreamId id, const Span* words, Py_ssize_t n) except -1
    @cython.final
    cdef StreamChunk* chunk_for(self, StreamId id, size_t need, size_t need_alone) except NULL
    @cython.final
    cdef void place_chunk(self, StreamSlot* slot, StreamChunk* chunk) noexcept
    @cython.final
    cdef void tighten(self, StreamSlot* slot) noexcept
    @cython.final
    cdef StreamChunk* grown(self, StreamSlot* slot, size_t need) except NULL
    @cython.final
    cdef int new_slot(self) except -1
    @cython.final
    cdef void drop_slots(self, Py_ssize_t first, Py_ssize_t n) noexcept
    @cython.final
    cdef void bury(self, Py_ssize_t k, char* entry) noexcept
    @cython.final
    cdef bint delete(self, StreamId id) noexcept
    @cython.final
    cdef StreamChunks trim(self, StreamId until)
    @cython.final
    cdef StreamChunks detach(self, Py_ssize_t n)
    @cython.final
    cdef bint may_be(self, StreamId last, uint64_t added) noexcept
    @cython.final
    cdef void let_last(self, StreamId last) noexcept
    @cython.final
    cdef int take_copy(self, StreamChunks other) except -1
    @cython.final
    cdef Py_ssize_t release_chunks(self, Py_ssize_t count) noexcept nogil
    @cython.final
    cdef int check_chunks(self) except -1
