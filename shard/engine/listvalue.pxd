"""Declarations of the value of a list (see listvalue.pyx), and what of it is small enough to be inline.

To look at elements in C: `walk = elements_from(value, index)`, then `next_element(&walk)` until it is NULL;
`element_data` and `element_size` say what an element is.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from kache.wire.codec cimport Span

cdef enum:
    LONG_ELEMENT = 254  # lengths from here on take five bytes at each end

cdef struct Chunk:
    uint32_t capacity
    uint32_t begin
    uint32_t end
    uint32_t count

cdef struct Slot:
    int64_t start
    Chunk* chunk

cdef struct Chunks:
    # The elements of one list (chunks.pxi).
    Slot* directory
    Py_ssize_t head             # index of the first used slot
    Py_ssize_t count            # slots used
    Py_ssize_t room             # slots allocated
    Py_ssize_t allocated        # bytes of all chunks
    Py_ssize_t payload          # bytes of all entries
    uint32_t chunk_entries
    uint32_t chunk_bytes

cdef struct Run:
    # Neighbouring elements.
    Py_ssize_t start
    Py_ssize_t count

cdef int64_t LIST_SIZE

cdef char* element_at(Chunk* chunk, Py_ssize_t offset) noexcept nogil
cdef Slot* locate(Chunks* chunks, Py_ssize_t index, Py_ssize_t* offset) noexcept nogil


cdef inline char* chunk_data(Chunk* chunk) noexcept nogil:
    return <char*> (chunk + 1)


cdef inline Py_ssize_t packed_size(Py_ssize_t length) noexcept nogil:
    """Bytes of an element's entry."""
    return length + 2 if length < LONG_ELEMENT else length + 10


cdef inline Py_ssize_t element_size(const char* entry) noexcept nogil:
    """Length of the element whose entry starts here."""
    cdef unsigned char first = <unsigned char> entry[0]
    cdef uint32_t length
    if first < LONG_ELEMENT:
        return first
    memcpy(&length, entry + 1, 4)
    return length


cdef inline const char* element_data(const char* entry) noexcept nogil:
    return entry + (1 if <unsigned char> entry[0] < LONG_ELEMENT else 5)


@cython.final
cdef class ListValue:
    cdef Chunks chunks
    cdef Py_ssize_t length

    cdef inline int64_t size_in_memory(self) noexcept:
        return LIST_SIZE + self.chunks.room * <Py_ssize_t> sizeof(Slot) + self.chunks.allocated

    cdef inline Slot* locate(self, Py_ssize_t index, Py_ssize_t* offset) noexcept:
        """The slot of an existing element, and its place in the chunk."""
        return locate(&self.chunks, index, offset)

    cdef const char* end_of(self, bint left) noexcept

    cpdef list slice(self, Py_ssize_t start, Py_ssize_t stop)
    cpdef list positions(self, bytes value, Py_ssize_t rank=*, Py_ssize_t count=*, Py_ssize_t max_compared=*)
    cdef Py_ssize_t equal_runs(self, const char* value, Py_ssize_t size, Py_ssize_t count, Run** runs) except -1

    cdef Py_ssize_t put(self, const char* value, Py_ssize_t size, bint left) except -1
    cdef Py_ssize_t put_all(self, Span* elements, Py_ssize_t n, bint left) except -1
    cdef int replace(self, Py_ssize_t index, const char* value, Py_ssize_t size) except -1
    cdef int put_before(self, Py_ssize_t index, const char* value, Py_ssize_t size) except -1
    cdef void drop(self, bint left) noexcept
    cdef void drop_some(self, Py_ssize_t n, bint left) noexcept
    cdef Py_ssize_t delete_runs(self, const Run* runs, Py_ssize_t n) noexcept

    cpdef Py_ssize_t push(self, bytes value, bint left) except -1
    cpdef Py_ssize_t extend(self, values, bint left) except -1
    cpdef bytes pop(self, bint left)
    cpdef list pop_many(self, bint left, Py_ssize_t count)
    cpdef int set(self, Py_ssize_t index, bytes value) except -1
    cpdef int insert(self, Py_ssize_t index, bytes value) except -1
    cpdef ListValue delete_range(self, Py_ssize_t start, Py_ssize_t stop)
    cpdef Py_ssize_t remove(self, bytes value, Py_ssize_t count) except -1
    cdef ListValue empty(self)
    cdef ListValue detach(self, Py_ssize_t first, Py_ssize_t last)


# Walking ------------------------------------------------------------------------------------------------
cdef struct ElementWalk:
    # A walk over a list that does not change meanwhile.
    Slot* slot
    Slot* slots_end
    const char* at
    const char* end


cdef inline ElementWalk elements_from(ListValue value, Py_ssize_t index) noexcept:
    """The elements from `index` on, towards the tail."""
    cdef ElementWalk walk
    cdef Py_ssize_t offset
    walk.at = walk.end = NULL
    walk.slot = walk.slots_end = NULL
    if index < value.length:
        walk.slot = locate(&value.chunks, index, &offset)
        walk.slots_end = value.chunks.directory + value.chunks.head + value.chunks.count
        walk.at = element_at(walk.slot.chunk, offset)
        walk.end = chunk_data(walk.slot.chunk) + walk.slot.chunk.end
    return walk


cdef inline const char* next_element(ElementWalk* walk) noexcept nogil:
    """The entry of the next element, or NULL."""
    cdef const char* entry
    if walk.at == walk.end:
        if walk.slot == walk.slots_end or walk.slot + 1 == walk.slots_end:
            return NULL
        walk.slot += 1
        walk.at = chunk_data(walk.slot.chunk) + walk.slot.chunk.begin
        walk.end = chunk_data(walk.slot.chunk) + walk.slot.chunk.end
    entry = walk.at
    walk.at += packed_size(element_size(entry))
    return entry
