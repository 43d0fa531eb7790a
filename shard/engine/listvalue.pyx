"""ListValue: the value of a list key, on the chunks of chunks.pxi.

Owns its elements. Indexes are not negative; IndexError beyond the end. Readers are for the commands; what changes a list
is called by the keyspace alone, which accounts `memory`. What takes elements away never fails for want of memory. What
adds or replaces some raises MemoryError with every element as it was; only `memory` may differ then.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MIN
from libc.string cimport memcmp, memmove, memset

from .memory cimport free, kache_malloc, kache_realloc

cdef extern from *:
    """
    #define KACHE_PREFETCH_CHUNK(at) __builtin_prefetch(at)
    """
    void prefetch_chunk "KACHE_PREFETCH_CHUNK"(const void*) noexcept nogil

cdef enum:
    DETACH_CHUNKS = 64  # fewer removed chunks than this are freed on the spot

cdef int64_t LIST_SIZE = 0

include "chunks.pxi"


@cython.final
cdef class ListValue:
    """A list of byte strings.

    `values` are pushed on the right in their order. The two limits per chunk are settable for tests.
    """

    def __cinit__(self, *args, uint32_t chunk_entries=CHUNK_ENTRIES, uint32_t chunk_bytes=CHUNK_BYTES):
        memset(&self.chunks, 0, sizeof(Chunks))
        self.length = 0
        self.chunks.chunk_entries = chunk_entries
        self.chunks.chunk_bytes = chunk_bytes

    def __init__(self, values=(), *, chunk_entries=CHUNK_ENTRIES, chunk_bytes=CHUNK_BYTES):
        self.extend(values, False)

    def __dealloc__(self):
        cdef Py_ssize_t k
        for k in range(self.chunks.count):
            free(chunk_of(&self.chunks, k))
        free(self.chunks.directory)

    # Reading ------------------------------------------------------------------------------------------

    def __len__(self):
        return self.length

    def __getitem__(self, Py_ssize_t index):
        cdef Py_ssize_t offset
        cdef Slot* slot
        if index < 0 or index >= self.length:
            raise IndexError("list index out of range")
        slot = self.locate(index, &offset)
        return element_bytes(element_at(slot.chunk, offset))

    def __iter__(self):
        """From head to tail; what is changed meanwhile may or may not be seen."""
        cdef Py_ssize_t at = 0
        while at < self.length:
            part = self.slice(at, at + CHUNK_ENTRIES)
            at += CHUNK_ENTRIES
            yield from part

    def __reversed__(self):
        cdef Py_ssize_t at = self.length
        while at > 0:
            part = self.slice(max(at - CHUNK_ENTRIES, 0), at)
            at -= CHUNK_ENTRIES
            part.reverse()
            yield from part

    cpdef list slice(self, Py_ssize_t start, Py_ssize_t stop):
        """Elements [start, stop), clamped to what exists. O(log n + number returned)."""
        cdef Py_ssize_t i
        cdef ElementWalk walk
        cdef list out
        cdef bytes value
        if start < 0:
            start = 0
        if stop > self.length:
            stop = self.length
        if start >= stop:
            return []
        out = PyList_New(stop - start)
        walk = elements_from(self, start)
        for i in range(stop - start):
            value = element_bytes(next_element(&walk))
            Py_INCREF(value)
            PyList_SET_ITEM(out, i, value)
        return out

    def find(self, bytes value not None):
        """Index of the first element equal to `value`, or -1. O(n)."""
        cdef list found = self.positions(value, 1, 1, 0)
        return found[0] if found else -1

    cpdef list positions(self, bytes value, Py_ssize_t rank=1, Py_ssize_t count=0, Py_ssize_t max_compared=0):
        """Indexes (from the head) of elements equal to `value`, in the order found. O(n).

        The search starts at the head for a positive `rank` and at the tail for a negative one, leaves out the
        first abs(rank) - 1 matches, ends after `count` matches and after `max_compared` comparisons (0: no limit).
        """
        cdef const char* wanted = PyBytes_AS_STRING(value)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
        cdef bint forward = rank > 0
        cdef Py_ssize_t to_skip = (rank if forward else -rank) - 1
        cdef Py_ssize_t compared = 0, step, k, index
        cdef const char* at
        cdef Chunk* chunk
        cdef list found = []
        index = 0 if forward else self.length - 1
        for k in range(self.chunks.count):
            chunk = chunk_of(&self.chunks, k if forward else self.chunks.count - 1 - k)
            at = chunk_data(chunk) + (chunk.begin if forward else chunk.end)
            for step in range(chunk.count):
                if max_compared and compared == max_compared:
                    return found
                compared += 1
                if not forward:
                    at -= packed_size(element_size_before(at))
                if element_equals(at, wanted, size):
                    if to_skip:
                        to_skip -= 1
                    else:
                        found.append(index)
                        if count and len(found) == count:
                            return found
                if forward:
                    at += packed_size(element_size(at))
                    index += 1
                else:
                    index -= 1
        return found

    def runs(self, bytes value not None, Py_ssize_t count):
        """[(start, count)] of the elements equal to `value`: the first `count`, the last for a negative one, all for 0."""
        cdef Run* found = NULL
        cdef Py_ssize_t n = self.equal_runs(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), count, &found), i
        try:
            return [(found[i].start, found[i].count) for i in range(n)]
        finally:
            free(found)

    cdef Py_ssize_t equal_runs(self, const char* value, Py_ssize_t size, Py_ssize_t count, Run** runs) except -1:
        """How many runs the elements equal to `value` form: the first `count`, the last for a negative one, all for 0.

        `runs` are in order, not empty, and never next to one another; the caller frees them (NULL for none). One pass, O(n).
        """
        cdef bint forward = count >= 0
        cdef Py_ssize_t left = (count if forward else -count) if count else self.length
        cdef Py_ssize_t n = 0, room = 0, step, k, index = 0 if forward else self.length - 1
        cdef Chunk* chunk
        cdef const char* at
        runs[0] = NULL
        for k in range(self.chunks.count):
            chunk = chunk_of(&self.chunks, k if forward else self.chunks.count - 1 - k)
            at = chunk_data(chunk) + (chunk.begin if forward else chunk.end)
            for step in range(chunk.count if left else 0):
                if not left:
                    break
                if not forward:
                    at -= packed_size(element_size_before(at))
                if element_equals(at, value, size):
                    left -= 1
                    n = add_to_runs(runs, n, &room, index, forward)
                    if n < 0:
                        raise MemoryError("no memory for the places of equal elements")
                if forward:
                    at += packed_size(element_size(at))
                index += 1 if forward else -1
        if not forward:
            reverse_runs(runs[0], n)
        return n

    def copy(self):
        """An independent copy. One memcpy per chunk."""
        cdef ListValue other = self.empty()
        if chunks_copy(&self.chunks, &other.chunks) < 0:
            raise MemoryError("no memory for a copy")
        other.length = self.length
        return other

    cdef ListValue empty(self):
        """A list with nothing in it and the same limits."""
        return ListValue.__new__(
            ListValue, chunk_entries=self.chunks.chunk_entries, chunk_bytes=self.chunks.chunk_bytes)

    @property
    def memory(self):
        """Bytes that this list takes, as allocated. O(1)."""
        return self.size_in_memory()

    # Adding and replacing: for the keyspace -----------------------------------------------------------

    cdef Py_ssize_t put(self, const char* value, Py_ssize_t size, bint left) except -1:
        """One element at an end; the new length. O(1). MemoryError: nothing is changed."""
        cdef Py_ssize_t need = packed_size(size)
        cdef Slot* slot = slot_for_push(&self.chunks, need, left)
        cdef Chunk* chunk
        if slot == NULL:
            raise MemoryError("no memory for an element")
        chunk = slot.chunk
        if left:
            chunk.begin -= <uint32_t> need
            put_element(chunk_data(chunk) + chunk.begin, value, size)
            slot.start -= 1
        else:
            put_element(chunk_data(chunk) + chunk.end, value, size)
            chunk.end += <uint32_t> need
        chunk.count += 1
        self.chunks.payload += need
        self.length += 1
        return self.length

    cpdef Py_ssize_t push(self, bytes value, bint left) except -1:
        """One element at an end; returns the new length. O(1). All or nothing."""
        return self.put(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), left)

    cpdef Py_ssize_t extend(self, values, bint left) except -1:
        """Pushes one after another (on the left the last value ends up first); returns the new length. All or nothing."""
        cdef Py_ssize_t pushed = 0
        try:
            for value in values:
                self.push(value, left)
                pushed += 1
        except BaseException:
            self.drop_some(pushed, left)
            raise
        return self.length

    cdef Py_ssize_t put_all(self, Span* elements, Py_ssize_t n, bint left) except -1:
        """`extend` of what is not yet a Python object. All or nothing."""
        cdef Py_ssize_t i = 0
        try:
            while i < n:
                self.put(elements[i].data, elements[i].size, left)
                i += 1
        except MemoryError:
            self.drop_some(i, left)
            raise
        return self.length

    cpdef int insert(self, Py_ssize_t index, bytes value) except -1:
        """Puts `value` before element `index`; IndexError beyond the length. All or nothing."""
        return self.put_before(index, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef int put_before(self, Py_ssize_t index, const char* value, Py_ssize_t size) except -1:
        """`insert` of what is not yet a Python object. O(n / chunk), small constant. MemoryError: nothing is changed."""
        cdef Py_ssize_t offset, k, need = packed_size(size)
        cdef Slot* slot
        cdef Chunk* chunk
        cdef char* at
        if index < 0 or index > self.length:
            raise IndexError("list index out of range")
        if index == 0 or index == self.length:
            self.put(value, size, index == 0)
            return 0
        slot = self.locate(index, &offset)
        k = slot - slots_of(&self.chunks)
        if not fits(&self.chunks, slot.chunk, need):
            k = split_for(&self.chunks, k, offset, need, &offset)
        slot = make_room(&self.chunks, k, need, False) if k >= 0 else NULL
        if slot == NULL:
            raise MemoryError("no memory for an element")
        chunk = slot.chunk
        at = element_at(chunk, offset)
        memmove(at + need, at, chunk_data(chunk) + chunk.end - at)
        put_element(at, value, size)
        chunk.end += <uint32_t> need
        chunk.count += 1
        renumber(&self.chunks, k + 1, 1)
        self.chunks.payload += need
        self.length += 1
        return 0

    cpdef int set(self, Py_ssize_t index, bytes value) except -1:
        """Replaces one element; IndexError when it does not exist. All or nothing."""
        return self.replace(index, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef int replace(self, Py_ssize_t index, const char* value, Py_ssize_t size) except -1:
        """`set` of what is not yet a Python object. O(log n) for the same size. MemoryError: nothing is changed."""
        cdef Py_ssize_t offset
        cdef Slot* slot
        cdef char* at
        if index < 0 or index >= self.length:
            raise IndexError("list index out of range")
        slot = self.locate(index, &offset)
        at = element_at(slot.chunk, offset)
        if element_size(at) == size:
            put_element(at, value, size)
            return 0
        # Through insert and delete, so that every limit and the room of the chunk are kept in one place. Only the
        # insert can fail, and it comes first.
        self.put_before(index, value, size)
        self.delete_range(index + 1, index + 2)
        return 0

    # Taking away: for the keyspace; never fails for want of memory ----------------------------------------

    cdef const char* end_of(self, bint left) noexcept:
        """The element at an end of a list that is not empty."""
        cdef Chunk* chunk = chunk_of(&self.chunks, 0 if left else self.chunks.count - 1)
        if left:
            return chunk_data(chunk) + chunk.begin
        return chunk_data(chunk) + chunk.end - packed_size(element_size_before(chunk_data(chunk) + chunk.end))

    cdef void drop_some(self, Py_ssize_t n, bint left) noexcept:
        cdef Py_ssize_t i
        for i in range(n):
            self.drop(left)

    cdef void drop(self, bint left) noexcept:
        """Removes the element at an end of a list that is not empty."""
        cdef Py_ssize_t need = packed_size(element_size(self.end_of(left))), k = 0 if left else self.chunks.count - 1
        cdef Slot* slot = slots_of(&self.chunks) + k
        cdef Chunk* chunk = slot.chunk
        if left:
            chunk.begin += <uint32_t> need
            slot.start += 1
        else:
            chunk.end -= <uint32_t> need
        chunk.count -= 1
        self.chunks.payload -= need
        self.length -= 1
        if not chunk.count:
            chunk_free(&self.chunks, chunk)
            directory_close(&self.chunks, k, k + 1)

    cpdef bytes pop(self, bint left):
        """Takes an element from an end; IndexError when there is none. O(1)."""
        cdef bytes value
        if not self.length:
            raise IndexError("pop from an empty list")
        value = element_bytes(self.end_of(left))
        self.drop(left)
        return value

    cpdef list pop_many(self, bint left, Py_ssize_t count):
        """Takes up to `count` elements from an end, in the order they are taken. O(count)."""
        cdef list taken
        if count == 1 and self.length:
            return [self.pop(left)]
        count = max(0, min(count, self.length))
        if left:
            taken = self.slice(0, count)
            self.delete_range(0, count)
        else:
            taken = self.slice(self.length - count, self.length)
            taken.reverse()
            self.delete_range(self.length - count, self.length)
        return taken

    cpdef ListValue delete_range(self, Py_ssize_t start, Py_ssize_t stop):
        """Deletes elements [start, stop), clamped. Returns what is left to free, or None if that was little.

        A large part is detached chunk by chunk without freeing it; the list returned is only there to be
        handed to the cleanup thread (elements at the edges of the range are not in it). O(n / chunk).
        """
        cdef Py_ssize_t first, last, first_offset, last_offset
        cdef Chunks* chunks = &self.chunks
        cdef ListValue detached = None
        if start < 0:
            start = 0
        if stop > self.length:
            stop = self.length
        if start >= stop:
            return None
        first = self.locate(start, &first_offset) - slots_of(chunks)
        last = self.locate(stop - 1, &last_offset) - slots_of(chunks)
        last_offset += 1
        if first == last:
            erase(chunks, first, first_offset, last_offset)
            renumber(chunks, first + 1, start - stop)
            tidy(chunks, first)
        else:
            detached = self.detach(first + 1, last)
            if detached is None:
                chunks_drop(chunks, first + 1, last)
            last = first + 1
            erase(chunks, first, first_offset, chunk_of(chunks, first).count)
            erase(chunks, last, 0, last_offset)
            slots_of(chunks)[last].start += last_offset
            renumber(chunks, last, start - stop)
            tidy(chunks, last)
            tidy(chunks, first)
        self.length -= stop - start
        return detached

    cdef ListValue detach(self, Py_ssize_t first, Py_ssize_t last):
        """Moves chunks [first, last) into a list of their own; None when they are few, or there is no memory for that."""
        cdef ListValue other
        cdef Py_ssize_t moved
        if last - first < DETACH_CHUNKS:
            return None
        try:
            other = self.empty()
        except MemoryError:
            return None
        moved = chunks_detach(&self.chunks, first, last, &other.chunks)
        if moved < 0:
            return None
        other.length = moved
        return other

    cpdef Py_ssize_t remove(self, bytes value, Py_ssize_t count) except -1:
        """Deletes elements equal to `value`: the first `count`, the last for a negative one, all for 0. O(n).

        Returns how many were deleted. MemoryError, for the list of their places: nothing is changed.
        """
        cdef Run* runs = NULL
        cdef Py_ssize_t n = self.equal_runs(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), count, &runs), removed
        removed = self.delete_runs(runs, n)
        free(runs)
        return removed

    cdef Py_ssize_t delete_runs(self, const Run* runs, Py_ssize_t n) noexcept:
        """Deletes runs of elements, which are in order and do not overlap; how many elements. One pass, O(n)."""
        cdef Py_ssize_t at_run = 0, removed = 0, k = -1, offset
        if n == 0:
            return 0
        while at_run < n:
            # Nothing is renumbered before the end, so the directory still knows every place. A run may go on in the next chunk.
            k = max(k + 1, <Py_ssize_t> (self.locate(runs[at_run].start, &offset) - slots_of(&self.chunks)))
            removed += erase_runs(&self.chunks, k, runs, n, &at_run)
        squeeze(&self.chunks)
        self.length -= removed
        return removed

    # Taking apart: for the cleanup thread -------------------------------------------------------------
    def release_some(self, Py_ssize_t count):
        """Frees about `count` elements from the tail, without the GIL; True while something is left.

        2,000 take well under a millisecond, however large the elements are.
        """
        cdef Py_ssize_t cost = 0, freed = 0
        cdef Chunk* chunk
        with nogil:
            while self.chunks.count and cost < count:
                chunk = chunk_of(&self.chunks, self.chunks.count - 1)
                self.chunks.count -= 1
                self.length -= chunk.count
                cost += chunk.count + 8 + (chunk.capacity >> 10)
                freed += chunk_cost(chunk)
                self.chunks.payload -= chunk.end - chunk.begin
                free(chunk)
        self.chunks.allocated -= freed
        return self.chunks.count > 0

    def check(self):
        """Asserts every invariant; for tests."""
        assert chunks_check(&self.chunks) == self.length


cdef Py_ssize_t add_to_runs(Run** runs, Py_ssize_t n, Py_ssize_t* room, Py_ssize_t index, bint forward) noexcept nogil:
    """Adds one element to the last of `n` runs, or as a run of its own; how many runs, -1 without memory (all are freed)."""
    cdef Run* last = runs[0] + n - 1
    cdef Run* larger
    if n and index == (last.start + last.count if forward else last.start - 1):
        last.start = min(last.start, index)
        last.count += 1
        return n
    if n == room[0]:
        room[0] = max(<Py_ssize_t> 16, room[0] * 2)
        larger = <Run*> kache_realloc(runs[0], room[0] * sizeof(Run))
        if larger == NULL:
            free(runs[0])
            runs[0] = NULL
            return -1
        runs[0] = larger
    runs[0][n].start = index
    runs[0][n].count = 1
    return n + 1


cdef void reverse_runs(Run* runs, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef Run kept
    for i in range(n // 2):
        kept = runs[i]
        runs[i] = runs[n - 1 - i]
        runs[n - 1 - i] = kept


LIST_SIZE = ListValue.__basicsize__ + 16
