# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The value of a list key: byte strings packed into chunks.

       directory   [ gap | slot slot slot slot … | gap ]          slot = (position of its first element, chunk)
                           │    │
       chunk       [ header | gap | len data len | len data len | … | gap ]

Owns the elements of one list. Promises: both ends in O(1), an element by index in O(log n), a slice of k
elements in O(log n + k), a change in the middle in O(n / chunk) additions on a small array (a few microseconds
at a million elements), and no single copy that grows with the list except the directory's, 16 bytes per chunk.
An element costs its length plus 2 bytes (10 from 254 bytes on); no Python object exists for it while it is stored.

An element carries its length at both of its ends, so that a chunk can be walked either way. Positions in the
directory count from an arbitrary origin: a push on the left makes the first one smaller, and a change in the
middle moves the positions of whichever side has fewer chunks.

Used by the keyspace, which alone may call what changes a list, and read by the list commands. Not thread safe;
`release_some` runs without the GIL and needs a list that nobody else can reach any more.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove

__all__ = ["ListValue"]

cdef enum:
    CHUNK_ENTRIES = 128  # walking half of them takes about 50 ns
    CHUNK_BYTES = 4096  # a push or delete inside a chunk moves at most this much
    LONG = 254  # lengths from here on take five bytes at each end
    ALLOCATION = 16  # what malloc adds to a block, about
    DETACH_CHUNKS = 64  # fewer removed chunks than this are freed on the spot

cdef struct Chunk:
    uint32_t capacity
    uint32_t begin
    uint32_t end
    uint32_t count

cdef struct Slot:
    int64_t start
    Chunk* chunk


cdef inline char* _data(Chunk* chunk) noexcept nogil:
    return <char*> (chunk + 1)


cdef inline Py_ssize_t _packed_size(Py_ssize_t length) noexcept nogil:
    return length + 2 if length < LONG else length + 10


cdef inline Py_ssize_t _length_at(const char* entry) noexcept nogil:
    """Length of the element whose entry starts here."""
    cdef unsigned char first = <unsigned char> entry[0]
    cdef uint32_t length
    if first < LONG:
        return first
    memcpy(&length, entry + 1, 4)
    return length


cdef inline Py_ssize_t _length_before(const char* entry_end) noexcept nogil:
    """Length of the element whose entry ends here."""
    cdef unsigned char last = <unsigned char> (entry_end - 1)[0]
    cdef uint32_t length
    if last < LONG:
        return last
    memcpy(&length, entry_end - 5, 4)
    return length


cdef inline const char* _content(const char* entry) noexcept nogil:
    return entry + (1 if <unsigned char> entry[0] < LONG else 5)


cdef inline void _put(char* at, const char* source, Py_ssize_t length) noexcept nogil:
    cdef uint32_t wide = <uint32_t> length
    if length < LONG:
        at[0] = <char> length
        memcpy(at + 1, source, length)
        at[length + 1] = <char> length
        return
    at[0] = <char> 0xFF
    memcpy(at + 1, &wide, 4)
    memcpy(at + 5, source, length)
    memcpy(at + 5 + length, &wide, 4)
    at[9 + length] = <char> 0xFF


cdef inline bytes _element(const char* entry):
    return PyBytes_FromStringAndSize(_content(entry), _length_at(entry))


cdef inline bint _equals(const char* entry, const char* value, Py_ssize_t length) noexcept nogil:
    return _length_at(entry) == length and memcmp(_content(entry), value, length) == 0


cdef char* _entry(Chunk* chunk, Py_ssize_t offset) noexcept nogil:
    """Where element `offset` of the chunk starts (its end, for `count`); walks from the nearer end."""
    cdef char* at
    cdef Py_ssize_t left
    if offset * 2 <= chunk.count:
        at = _data(chunk) + chunk.begin
        for left in range(offset):
            at += _packed_size(_length_at(at))
    else:
        at = _data(chunk) + chunk.end
        for left in range(chunk.count - offset):
            at -= _packed_size(_length_before(at))
    return at


cdef class ListValue:
    """A list of byte strings. Indexes are non-negative; IndexError beyond the end; `slice` clamps.

    `values` are pushed on the right in their order. The two limits per chunk are settable for tests.
    """
    cdef Slot* directory
    cdef Py_ssize_t head  # index of the first used slot
    cdef Py_ssize_t chunks
    cdef Py_ssize_t room  # slots allocated
    cdef Py_ssize_t length
    cdef Py_ssize_t allocated  # bytes of all chunks
    cdef Py_ssize_t payload  # bytes of all entries
    cdef uint32_t chunk_entries
    cdef uint32_t chunk_bytes

    def __cinit__(self, values=(), *, uint32_t chunk_entries=CHUNK_ENTRIES, uint32_t chunk_bytes=CHUNK_BYTES):
        self.directory = NULL
        self.head = self.chunks = self.room = self.length = self.allocated = self.payload = 0
        self.chunk_entries = chunk_entries
        self.chunk_bytes = chunk_bytes
        if values != ():
            self.extend(values, False)

    def __dealloc__(self):
        cdef Py_ssize_t k
        for k in range(self.chunks):
            free(self.directory[self.head + k].chunk)
        free(self.directory)

    # ---- reading ----

    def __len__(self):
        return self.length

    def __getitem__(self, Py_ssize_t index):
        cdef Py_ssize_t offset
        cdef Slot* slot
        if index < 0 or index >= self.length:
            raise IndexError("list index out of range")
        slot = self._locate(index, &offset)
        return _element(_entry(slot.chunk, offset))

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
        cdef Py_ssize_t offset, filled = 0, wanted
        cdef Slot* slot
        cdef const char* at
        cdef const char* end
        cdef list out
        cdef bytes value
        if start < 0:
            start = 0
        if stop > self.length:
            stop = self.length
        if start >= stop:
            return []
        wanted = stop - start
        out = PyList_New(wanted)
        slot = self._locate(start, &offset)
        at = _entry(slot.chunk, offset)
        while True:
            end = _data(slot.chunk) + slot.chunk.end
            while at < end and filled < wanted:
                value = _element(at)
                Py_INCREF(value)
                PyList_SET_ITEM(out, filled, value)
                filled += 1
                at += _packed_size(_length_at(at))
            if filled == wanted:
                return out
            slot += 1
            at = _data(slot.chunk) + slot.chunk.begin

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
        for k in range(self.chunks):
            chunk = self.directory[self.head + (k if forward else self.chunks - 1 - k)].chunk
            at = _data(chunk) + (chunk.begin if forward else chunk.end)
            for step in range(chunk.count):
                if max_compared and compared == max_compared:
                    return found
                compared += 1
                if not forward:
                    at -= _packed_size(_length_before(at))
                if _equals(at, wanted, size):
                    if to_skip:
                        to_skip -= 1
                    else:
                        found.append(index)
                        if count and len(found) == count:
                            return found
                if forward:
                    at += _packed_size(_length_at(at))
                    index += 1
                else:
                    index -= 1
        return found

    @property
    def memory(self):
        """Bytes that this list takes, as allocated. O(1)."""
        return 96 + ALLOCATION + self.room * <Py_ssize_t> sizeof(Slot) + self.allocated

    def copy(self):
        """An independent copy. One memcpy per chunk."""
        cdef ListValue other = ListValue.__new__(ListValue, chunk_entries=self.chunk_entries, chunk_bytes=self.chunk_bytes)
        cdef Py_ssize_t k, used
        cdef Chunk* chunk
        cdef Chunk* twin
        if not self.chunks:
            return other
        other._directory_resize(self.chunks)
        other.head = 0
        for k in range(self.chunks):
            chunk = self.directory[self.head + k].chunk
            used = chunk.end - chunk.begin
            twin = other._chunk_new(used)
            memcpy(_data(twin), _data(chunk) + chunk.begin, used)
            twin.end = <uint32_t> used
            twin.count = chunk.count
            other.directory[k].start = self.directory[self.head + k].start
            other.directory[k].chunk = twin
            other.chunks += 1
        other.length = self.length
        other.payload = self.payload
        return other

    # ---- changing ----

    cpdef Py_ssize_t push(self, bytes value, bint left) except -1:
        """One element at an end; returns the new length. O(1)."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value), need = _packed_size(size)
        cdef Slot* slot = self._slot_for_push(need, left)
        cdef Chunk* chunk = slot.chunk
        if left:
            chunk.begin -= <uint32_t> need
            _put(_data(chunk) + chunk.begin, PyBytes_AS_STRING(value), size)
            slot.start -= 1
        else:
            _put(_data(chunk) + chunk.end, PyBytes_AS_STRING(value), size)
            chunk.end += <uint32_t> need
        chunk.count += 1
        self._grown(need)
        return self.length

    cpdef Py_ssize_t extend(self, values, bint left) except -1:
        """Pushes one after another (on the left the last value ends up first); returns the new length."""
        for value in values:
            self.push(value, left)
        return self.length

    cpdef bytes pop(self, bint left):
        """Takes an element from an end; IndexError when there is none. O(1)."""
        cdef Slot* slot
        cdef Chunk* chunk
        cdef char* at
        cdef Py_ssize_t need, k
        cdef bytes value
        if not self.length:
            raise IndexError("pop from an empty list")
        slot = &self.directory[self.head + (0 if left else self.chunks - 1)]
        chunk = slot.chunk
        if left:
            at = _data(chunk) + chunk.begin
        else:
            at = _data(chunk) + chunk.end
            at -= _packed_size(_length_before(at))
        value = _element(at)
        need = _packed_size(PyBytes_GET_SIZE(value))
        if left:
            chunk.begin += <uint32_t> need
            slot.start += 1
        else:
            chunk.end -= <uint32_t> need
        chunk.count -= 1
        self._shrunk(1, need)
        if not chunk.count:
            k = 0 if left else self.chunks - 1
            self._chunk_free(chunk)
            self._directory_close(k, k + 1)
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

    cpdef int set(self, Py_ssize_t index, bytes value) except -1:
        """Replaces one element; IndexError when it does not exist. O(log n)."""
        cdef Py_ssize_t offset, size = PyBytes_GET_SIZE(value), need = _packed_size(size), old
        cdef Slot* slot
        cdef char* at
        if index < 0 or index >= self.length:
            raise IndexError("list index out of range")
        slot = self._locate(index, &offset)
        at = _entry(slot.chunk, offset)
        old = _packed_size(_length_at(at))
        if old != need:
            # Through insert and delete, so that every limit and the room of the chunk are kept in one place.
            self.insert(index, value)
            self.delete_range(index + 1, index + 2)
            return 0
        _put(at, PyBytes_AS_STRING(value), size)
        return 0

    cpdef int insert(self, Py_ssize_t index, bytes value) except -1:
        """Puts `value` before element `index` (at the end, if that is the length). O(n / chunk), small constant."""
        cdef Py_ssize_t offset, k, size = PyBytes_GET_SIZE(value), need = _packed_size(size), move
        cdef Slot* slot
        cdef Chunk* chunk
        cdef char* at
        if index < 0 or index > self.length:
            raise IndexError("list index out of range")
        if index == 0 or index == self.length:
            self.push(value, index == 0)
            return 0
        slot = self._locate(index, &offset)
        k = slot - self.directory - self.head
        if not self._fits(slot.chunk, need):
            k = self._split_for(k, offset, need, &offset)
        slot = self._make_room(k, need, False)
        chunk = slot.chunk
        at = _entry(chunk, offset)
        move = _data(chunk) + chunk.end - at
        memmove(at + need, at, move)
        _put(at, PyBytes_AS_STRING(value), size)
        chunk.end += <uint32_t> need
        chunk.count += 1
        self._renumber(k + 1, 1)
        self._grown(need)
        return 0

    def delete_range(self, Py_ssize_t start, Py_ssize_t stop):
        """Deletes elements [start, stop), clamped. Returns what is left to free, or None if that was little.

        A large part is detached chunk by chunk without freeing it; the list returned is only there to be
        handed to the cleanup thread (elements at the edges of the range are not in it). O(n / chunk).
        """
        cdef Py_ssize_t first, last, first_offset, last_offset, removed, k
        cdef Slot* slot
        cdef ListValue detached = None
        if start < 0:
            start = 0
        if stop > self.length:
            stop = self.length
        if start >= stop:
            return None
        removed = stop - start
        slot = self._locate(start, &first_offset)
        first = slot - self.directory - self.head
        slot = self._locate(stop - 1, &last_offset)
        last = slot - self.directory - self.head
        last_offset += 1
        if first == last:
            self._erase(first, first_offset, last_offset)
            self._renumber(first + 1, -removed)
            self._tidy(first)
        else:
            self._erase(first, first_offset, self._chunk(first).count)
            self._erase(last, 0, last_offset)
            self.directory[self.head + last].start += last_offset
            if last - first - 1 >= DETACH_CHUNKS:
                detached = self._detach(first + 1, last)
            else:
                for k in range(first + 1, last):
                    self.payload -= self._chunk(k).end - self._chunk(k).begin
                    self._chunk_free(self._chunk(k))
                self._directory_close(first + 1, last)
            self._renumber(first + 1, -removed)
            self._tidy(first + 1)
            self._tidy(first)
        self._shrunk(removed, 0)
        return detached

    cpdef Py_ssize_t remove(self, bytes value, Py_ssize_t count) except -1:
        """Deletes elements equal to `value`: the first `count`, the last for a negative one, all for 0.

        Returns how many were deleted. One pass, O(n).
        """
        cdef Py_ssize_t removed = 0, k, limit = self.length
        cdef bint forward = count >= 0
        if count:
            limit = min(count if forward else -count, self.length)
        for k in range(self.chunks):
            if removed == limit:
                break
            removed += self._erase_equal(self._chunk(k if forward else self.chunks - 1 - k), value, limit - removed, forward)
        if removed:
            self._squeeze()
            self._shrunk(removed, 0)
        return removed

    def release_some(self, Py_ssize_t count):
        """Frees about `count` elements from the tail, without the GIL; True while something is left.

        For the cleanup thread: 2,000 take well under a millisecond, however large the elements are.
        """
        cdef Py_ssize_t cost = 0, freed = 0
        cdef Chunk* chunk
        with nogil:
            while self.chunks and cost < count:
                chunk = self.directory[self.head + self.chunks - 1].chunk
                self.chunks -= 1
                self.length -= chunk.count
                cost += chunk.count + 8 + (chunk.capacity >> 10)
                freed += chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
                self.payload -= chunk.end - chunk.begin
                free(chunk)
        self.allocated -= freed
        return self.chunks > 0

    # ---- chunks ----

    cdef inline Chunk* _chunk(self, Py_ssize_t k) noexcept:
        return self.directory[self.head + k].chunk

    cdef inline bint _fits(self, Chunk* chunk, Py_ssize_t need) noexcept:
        return chunk.count < self.chunk_entries and (chunk.end - chunk.begin) + need <= self.chunk_bytes

    cdef Chunk* _chunk_new(self, Py_ssize_t capacity) except NULL:
        # Eight more than a multiple of sixteen: with the header that fills what malloc rounds up to.
        capacity = ((capacity + 7) & ~(<Py_ssize_t> 15)) + 8
        cdef Chunk* chunk = <Chunk*> malloc(sizeof(Chunk) + capacity)
        if chunk == NULL:
            raise MemoryError
        chunk.capacity = <uint32_t> capacity
        chunk.begin = chunk.end = chunk.count = 0
        self.allocated += capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
        return chunk

    cdef void _chunk_free(self, Chunk* chunk) noexcept:
        self.allocated -= chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
        free(chunk)

    cdef int _chunk_move(self, Py_ssize_t k, Py_ssize_t capacity, bint gap_in_front) except -1:
        """Chunk `k` in a new block with its free space on one side."""
        cdef Chunk* old = self._chunk(k)
        cdef Py_ssize_t used = old.end - old.begin
        cdef Chunk* new = self._chunk_new(capacity)
        new.begin = new.capacity - <uint32_t> used if gap_in_front else 0
        new.end = new.begin + <uint32_t> used
        new.count = old.count
        memcpy(_data(new) + new.begin, _data(old) + old.begin, used)
        self._chunk_free(old)
        self.directory[self.head + k].chunk = new
        return 0

    cdef Slot* _make_room(self, Py_ssize_t k, Py_ssize_t need, bint front) except NULL:
        """At least `need` free bytes before (`front`) or after the entries of chunk `k`."""
        cdef Chunk* chunk = self._chunk(k)
        cdef Py_ssize_t used = chunk.end - chunk.begin, capacity
        cdef uint32_t begin
        if (chunk.begin if front else chunk.capacity - chunk.end) >= need:
            return &self.directory[self.head + k]
        if chunk.capacity - used >= need:
            begin = chunk.capacity - <uint32_t> used if front else 0
            memmove(_data(chunk) + begin, _data(chunk) + chunk.begin, used)
            chunk.begin = begin
            chunk.end = begin + <uint32_t> used
        else:
            capacity = used + need + (used + need) // 2
            if capacity > self.chunk_bytes:
                capacity = max(used + need, <Py_ssize_t> self.chunk_bytes)
            self._chunk_move(k, capacity, front)
        return &self.directory[self.head + k]

    cdef Slot* _slot_for_push(self, Py_ssize_t need, bint left) except NULL:
        """The slot at an end, with room for an entry of `need` bytes on that side."""
        cdef Py_ssize_t k = 0 if left else self.chunks - 1
        cdef Py_ssize_t used, capacity = need
        cdef Chunk* chunk
        if self.chunks:
            chunk = self._chunk(k)
            if self._fits(chunk, need):
                return self._make_room(k, need, left)
            used = chunk.end - chunk.begin
            if chunk.capacity - used > used // 4 + 32:
                self._chunk_move(k, used, False)
            # The next chunk will probably become as large as this one.
            capacity = max(need, min(used, <Py_ssize_t> self.chunk_bytes))
        k = 0 if left else self.chunks
        chunk = self._chunk_new(capacity)
        if left:
            chunk.begin = chunk.end = chunk.capacity
        self._directory_open(k)
        self.directory[self.head + k].chunk = chunk
        return &self.directory[self.head + k]

    cdef Py_ssize_t _split_for(self, Py_ssize_t k, Py_ssize_t offset, Py_ssize_t need, Py_ssize_t* new_offset) except -1:
        """Room for an entry of `need` bytes before element `offset` of the full chunk `k`; returns its chunk."""
        cdef Chunk* chunk
        cdef Chunk* right
        cdef Py_ssize_t moved
        cdef char* at
        if offset == 0 and k > 0:
            k -= 1
            offset = self._chunk(k).count
            if self._fits(self._chunk(k), need):
                new_offset[0] = offset
                return k
        chunk = self._chunk(k)
        if 0 < offset < chunk.count:
            at = _entry(chunk, offset)
            moved = _data(chunk) + chunk.end - at
            right = self._chunk_new(moved)
            memcpy(_data(right), at, moved)
            right.end = <uint32_t> moved
            right.count = chunk.count - <uint32_t> offset
            self._insert_chunk(k + 1, right, self.directory[self.head + k].start + offset)
            chunk.end -= <uint32_t> moved
            chunk.count = <uint32_t> offset
            if self._fits(chunk, need):
                new_offset[0] = offset
                return k
        new_offset[0] = 0
        if k + 1 < self.chunks and self._fits(self._chunk(k + 1), need):
            return k + 1
        self._insert_chunk(k + 1, self._chunk_new(need), self.directory[self.head + k].start + self._chunk(k).count)
        return k + 1

    cdef int _insert_chunk(self, Py_ssize_t k, Chunk* chunk, int64_t start) except -1:
        self._directory_open(k)
        self.directory[self.head + k].chunk = chunk
        self.directory[self.head + k].start = start
        return 0

    cdef void _erase(self, Py_ssize_t k, Py_ssize_t start, Py_ssize_t stop) noexcept:
        """Takes elements [start, stop) out of chunk `k`; positions and length are the caller's."""
        cdef Chunk* chunk = self._chunk(k)
        cdef char* low = _entry(chunk, start)
        cdef char* high = _entry(chunk, stop)
        cdef char* begin = _data(chunk) + chunk.begin
        cdef char* end = _data(chunk) + chunk.end
        cdef uint32_t gone = <uint32_t> (high - low)
        if low - begin < end - high:
            memmove(begin + gone, begin, low - begin)
            chunk.begin += gone
        else:
            memmove(low, high, end - high)
            chunk.end -= gone
        chunk.count -= <uint32_t> (stop - start)
        self.payload -= gone

    cdef Py_ssize_t _erase_equal(self, Chunk* chunk, bytes value, Py_ssize_t limit, bint forward) noexcept:
        """Takes up to `limit` elements equal to `value` out of the chunk, first or last ones; how many."""
        cdef const char* wanted = PyBytes_AS_STRING(value)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value), entry_size, matches = 0, skip = 0, removed = 0, step
        cdef Py_ssize_t count = chunk.count
        cdef char* at = _data(chunk) + chunk.begin
        cdef char* out
        for step in range(count):
            matches += _equals(at, wanted, size)
            at += _packed_size(_length_at(at))
        if not matches:
            return 0
        if not forward and matches > limit:
            skip = matches - limit
        at = out = _data(chunk) + chunk.begin
        for step in range(count):
            entry_size = _packed_size(_length_at(at))
            if removed < limit and _equals(at, wanted, size):
                if skip:
                    skip -= 1
                else:
                    removed += 1
                    at += entry_size
                    continue
            if out != at:
                memmove(out, at, entry_size)
            out += entry_size
            at += entry_size
        self.payload -= at - out
        chunk.end -= <uint32_t> (at - out)
        chunk.count -= <uint32_t> removed
        return removed

    cdef inline bint _mergeable(self, Chunk* left, Chunk* right) noexcept:
        return (
            (left.count + right.count) * 2 <= self.chunk_entries
            and ((left.end - left.begin) + (right.end - right.begin)) * 2 <= self.chunk_bytes
        )

    cdef int _absorb(self, Py_ssize_t k, Chunk* right) except -1:
        """Appends the entries of `right` to chunk `k` and frees `right`, whose slot is the caller's."""
        cdef Py_ssize_t size = right.end - right.begin
        cdef Chunk* chunk = self._make_room(k, size, False).chunk
        memcpy(_data(chunk) + chunk.end, _data(right) + right.begin, size)
        chunk.end += <uint32_t> size
        chunk.count += right.count
        self._chunk_free(right)
        return 0

    cdef int _tidy(self, Py_ssize_t k) except -1:
        """After elements left chunk `k`: drops it when empty, joins it with a small neighbour."""
        cdef Py_ssize_t low
        if k >= self.chunks:
            return 0
        if self._chunk(k).count == 0:
            self._chunk_free(self._chunk(k))
            self._directory_close(k, k + 1)
            return 0
        for low in (k, k - 1):
            if 0 <= low and low + 1 < self.chunks and self._mergeable(self._chunk(low), self._chunk(low + 1)):
                self._absorb(low, self._chunk(low + 1))
                self._directory_close(low + 1, low + 2)
        return 0

    cdef int _squeeze(self) except -1:
        """Drops empty chunks, joins small ones and numbers all of them anew, in one pass."""
        cdef Py_ssize_t k, kept = 0
        cdef Slot* slots = self.directory + self.head
        cdef int64_t start = 0
        cdef Chunk* chunk
        for k in range(self.chunks):
            chunk = slots[k].chunk
            if not chunk.count:
                self._chunk_free(chunk)
            elif kept and self._mergeable(slots[kept - 1].chunk, chunk):
                start += chunk.count
                self._absorb(kept - 1, chunk)
            else:
                slots[kept].chunk = chunk
                slots[kept].start = start
                start += chunk.count
                kept += 1
        self._directory_close(kept, self.chunks)
        return 0

    cdef ListValue _detach(self, Py_ssize_t first, Py_ssize_t last):
        """Moves chunks [first, last) into a list of their own."""
        cdef ListValue other = ListValue.__new__(ListValue, chunk_entries=self.chunk_entries, chunk_bytes=self.chunk_bytes)
        cdef Py_ssize_t k, size
        cdef Chunk* chunk
        other._directory_resize(last - first)
        other.head = 0
        for k in range(first, last):
            chunk = self._chunk(k)
            other.directory[k - first].start = other.length
            other.directory[k - first].chunk = chunk
            other.length += chunk.count
            other.payload += chunk.end - chunk.begin
            size = chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
            other.allocated += size
            self.allocated -= size
        other.chunks = last - first
        self.payload -= other.payload
        self._directory_close(first, last)
        return other

    # ---- directory ----

    cdef Slot* _locate(self, Py_ssize_t index, Py_ssize_t* offset) noexcept:
        """The slot of an existing element, and its place in the chunk."""
        cdef Slot* slots = self.directory + self.head
        cdef int64_t position = slots[0].start + index
        cdef Py_ssize_t low = 0, high = self.chunks, middle
        if index < slots[0].chunk.count:
            high = 1
        elif position >= slots[high - 1].start:
            low = high - 1
        while high - low > 1:
            middle = (low + high) // 2
            if slots[middle].start <= position:
                low = middle
            else:
                high = middle
        offset[0] = <Py_ssize_t> (position - slots[low].start)
        return &slots[low]

    cdef void _renumber(self, Py_ssize_t k, Py_ssize_t delta) noexcept:
        """Moves chunks from `k` on by `delta` positions, or those before it the other way: whichever are fewer."""
        cdef Slot* slots = self.directory + self.head
        cdef Py_ssize_t i
        if k <= self.chunks - k:
            for i in range(k):
                slots[i].start -= delta
        else:
            for i in range(k, self.chunks):
                slots[i].start += delta

    cdef int _directory_resize(self, Py_ssize_t room) except -1:
        """A directory of `room` slots (at least those in use), the used ones in its middle."""
        cdef Py_ssize_t head = (room - self.chunks) // 2
        cdef Slot* slots = <Slot*> malloc(room * sizeof(Slot))
        if slots == NULL:
            raise MemoryError
        if self.chunks:
            memcpy(slots + head, self.directory + self.head, self.chunks * sizeof(Slot))
        free(self.directory)
        self.directory = slots
        self.head = head
        self.room = room
        return 0

    cdef int _directory_open(self, Py_ssize_t k) except -1:
        """An unused slot `k`, its position following from its neighbours; moves the smaller side."""
        cdef bint front = k * 2 < self.chunks or (k == 0 and self.chunks > 0)
        cdef Slot* slots
        if self.chunks == 0:
            if self.room == 0:
                self._directory_resize(1)
            self.head = self.room // 2
        elif (self.head == 0) if front else (self.head + self.chunks == self.room):
            self._directory_resize(max(self.room, 4) if self.chunks * 2 < self.room else max(4, self.room * 2))
        slots = self.directory + self.head
        if front:
            memmove(slots - 1, slots, k * sizeof(Slot))
            self.head -= 1
            slots -= 1
        else:
            memmove(slots + k + 1, slots + k, (self.chunks - k) * sizeof(Slot))
        self.chunks += 1
        if k:
            slots[k].start = slots[k - 1].start + slots[k - 1].chunk.count
        else:
            slots[k].start = slots[1].start if self.chunks > 1 else 0
        return 0

    cdef int _directory_close(self, Py_ssize_t first, Py_ssize_t last) except -1:
        """Takes slots [first, last) out; moves the smaller side."""
        cdef Slot* slots = self.directory + self.head
        cdef Py_ssize_t gone = last - first
        if first < self.chunks - last:
            memmove(slots + gone, slots, first * sizeof(Slot))
            self.head += gone
        else:
            memmove(slots + first, slots + last, (self.chunks - last) * sizeof(Slot))
        self.chunks -= gone
        if self.room > 64 and self.chunks * 8 < self.room:
            self._directory_resize(max(self.chunks * 2, <Py_ssize_t> 16))
        return 0

    # ---- bookkeeping ----

    cdef inline void _grown(self, Py_ssize_t need) noexcept:
        self.length += 1
        self.payload += need

    cdef inline void _shrunk(self, Py_ssize_t count, Py_ssize_t size) noexcept:
        self.length -= count
        self.payload -= size

    def check(self):
        """Asserts every invariant; for tests."""
        cdef Py_ssize_t k, step, total = 0, payload = 0, allocated = 0
        cdef Chunk* chunk
        cdef const char* at
        assert 0 <= self.head and self.head + self.chunks <= self.room
        for k in range(self.chunks):
            chunk = self._chunk(k)
            assert chunk.count > 0, "an empty chunk"
            assert chunk.count <= self.chunk_entries
            assert chunk.begin <= chunk.end <= chunk.capacity
            assert chunk.count == 1 or chunk.end - chunk.begin <= self.chunk_bytes
            if k:
                assert self.directory[self.head + k].start == self.directory[self.head].start + total, "wrong position"
            at = _data(chunk) + chunk.begin
            for step in range(chunk.count):
                at += _packed_size(_length_at(at))
                assert _length_before(at) >= 0
            assert at == _data(chunk) + chunk.end, "entries do not fill the chunk"
            total += chunk.count
            payload += chunk.end - chunk.begin
            allocated += chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
        assert total == self.length
        assert payload == self.payload
        assert allocated == self.allocated
