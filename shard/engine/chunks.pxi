# The value of a list key: byte strings packed into chunks.
#
#        directory   [ gap | slot slot slot slot … | gap ]          slot = (position of its first element, chunk)
#                            │    │
#        chunk       [ header | gap | len data len | len data len | … | gap ]
#
# Owns the elements of one list. Promises: both ends in O(1), an element by index in O(log n), a slice of k
# elements in O(log n + k), a change in the middle in O(n / chunk) additions on a small array (a few microseconds
# at a million elements), and no single copy that grows with the list except the directory's, 16 bytes per chunk.
# An element costs its length plus 2 bytes (10 from 254 bytes on); no Python object exists for it while it is stored.
#
# An element carries its length at both of its ends, so that a chunk can be walked either way. Positions in the
# directory count from an arbitrary origin: a push on the left makes the first one smaller, and a change in the
# middle moves the positions of whichever side has fewer chunks.
#
# Not thread safe; `release_some` runs without the GIL and needs a list that nobody else can reach any more.

cdef enum:
    CHUNK_ENTRIES = 128  # walking half of them takes about 50 ns
    CHUNK_BYTES = 4096  # a push or delete inside a chunk moves at most this much
    LONG_ELEMENT = 254  # lengths from here on take five bytes at each end
    ALLOCATION = 16  # what malloc adds to a block, about
    DETACH_CHUNKS = 64  # fewer removed chunks than this are freed on the spot

cdef int64_t NO_START = INT64_MIN

cdef struct Chunk:
    uint32_t capacity
    uint32_t begin
    uint32_t end
    uint32_t count

cdef struct Slot:
    int64_t start
    Chunk* chunk


cdef inline char* chunk_data(Chunk* chunk) noexcept nogil:
    return <char*> (chunk + 1)


cdef inline Py_ssize_t packed_size(Py_ssize_t length) noexcept nogil:
    return length + 2 if length < LONG_ELEMENT else length + 10


cdef inline Py_ssize_t element_size(const char* entry) noexcept nogil:
    """Length of the element whose entry starts here."""
    cdef unsigned char first = <unsigned char> entry[0]
    cdef uint32_t length
    if first < LONG_ELEMENT:
        return first
    memcpy(&length, entry + 1, 4)
    return length


cdef inline Py_ssize_t element_size_before(const char* entry_end) noexcept nogil:
    """Length of the element whose entry ends here."""
    cdef unsigned char last = <unsigned char> (entry_end - 1)[0]
    cdef uint32_t length
    if last < LONG_ELEMENT:
        return last
    memcpy(&length, entry_end - 5, 4)
    return length


cdef inline const char* element_data(const char* entry) noexcept nogil:
    return entry + (1 if <unsigned char> entry[0] < LONG_ELEMENT else 5)


cdef inline void put_element(char* at, const char* source, Py_ssize_t length) noexcept nogil:
    cdef uint32_t wide = <uint32_t> length
    if length < LONG_ELEMENT:
        at[0] = <char> length
        memcpy(at + 1, source, length)
        at[length + 1] = <char> length
        return
    at[0] = <char> 0xFF
    memcpy(at + 1, &wide, 4)
    memcpy(at + 5, source, length)
    memcpy(at + 5 + length, &wide, 4)
    at[9 + length] = <char> 0xFF


cdef inline bytes element_bytes(const char* entry):
    return PyBytes_FromStringAndSize(element_data(entry), element_size(entry))


cdef inline bint element_equals(const char* entry, const char* value, Py_ssize_t length) noexcept nogil:
    return element_size(entry) == length and memcmp(element_data(entry), value, length) == 0


cdef char* element_at(Chunk* chunk, Py_ssize_t offset) noexcept nogil:
    """Where element `offset` of the chunk starts (its end, for `count`); walks from the nearer end."""
    cdef char* at
    cdef Py_ssize_t left
    if offset * 2 <= chunk.count:
        at = chunk_data(chunk) + chunk.begin
        for left in range(offset):
            at += packed_size(element_size(at))
    else:
        at = chunk_data(chunk) + chunk.end
        for left in range(chunk.count - offset):
            at -= packed_size(element_size_before(at))
    return at


cdef class Chunks:
    """The chunks of a list and their directory; `ListValue` has what is done with them."""
    cdef Slot* directory
    cdef Py_ssize_t head  # index of the first used slot
    cdef Py_ssize_t chunks
    cdef Py_ssize_t room  # slots allocated
    cdef Py_ssize_t length
    cdef Py_ssize_t allocated  # bytes of all chunks
    cdef Py_ssize_t payload  # bytes of all entries
    cdef uint32_t chunk_entries
    cdef uint32_t chunk_bytes

    def __cinit__(self, *args, uint32_t chunk_entries=CHUNK_ENTRIES, uint32_t chunk_bytes=CHUNK_BYTES):
        self.directory = NULL
        self.head = self.chunks = self.room = self.length = self.allocated = self.payload = 0
        self.chunk_entries = chunk_entries
        self.chunk_bytes = chunk_bytes

    def __dealloc__(self):
        cdef Py_ssize_t k
        for k in range(self.chunks):
            free(self.directory[self.head + k].chunk)
        free(self.directory)

    # Chunks -------------------------------------------------------------------------------------------

    cdef inline Chunk* chunk(self, Py_ssize_t k) noexcept:
        return self.directory[self.head + k].chunk

    cdef inline bint fits(self, Chunk* chunk, Py_ssize_t need) noexcept:
        return chunk.count < self.chunk_entries and (chunk.end - chunk.begin) + need <= self.chunk_bytes

    cdef Chunk* chunk_new(self, Py_ssize_t capacity) except NULL:
        # Eight more than a multiple of sixteen: with the header that fills what malloc rounds up to.
        capacity = ((capacity + 7) & ~(<Py_ssize_t> 15)) + 8
        cdef Chunk* chunk = <Chunk*> malloc(sizeof(Chunk) + capacity)
        if chunk == NULL:
            raise MemoryError
        chunk.capacity = <uint32_t> capacity
        chunk.begin = chunk.end = chunk.count = 0
        self.allocated += capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
        return chunk

    cdef void chunk_free(self, Chunk* chunk) noexcept:
        self.allocated -= chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
        free(chunk)

    cdef int chunk_move(self, Py_ssize_t k, Py_ssize_t capacity, bint gap_in_front) except -1:
        """Chunk `k` in a new block with its free space on one side."""
        cdef Chunk* old = self.chunk(k)
        cdef Py_ssize_t used = old.end - old.begin
        cdef Chunk* new = self.chunk_new(capacity)
        new.begin = new.capacity - <uint32_t> used if gap_in_front else 0
        new.end = new.begin + <uint32_t> used
        new.count = old.count
        memcpy(chunk_data(new) + new.begin, chunk_data(old) + old.begin, used)
        self.chunk_free(old)
        self.directory[self.head + k].chunk = new
        return 0

    cdef void chunk_fit(self, Py_ssize_t k, Py_ssize_t capacity) noexcept:
        """Gives back what chunk `k` has too much, if there is memory for the smaller block."""
        try:
            self.chunk_move(k, capacity, False)
        except MemoryError:
            pass

    cdef Slot* make_room(self, Py_ssize_t k, Py_ssize_t need, bint front) except NULL:
        """At least `need` free bytes before (`front`) or after the entries of chunk `k`."""
        cdef Chunk* chunk = self.chunk(k)
        cdef Py_ssize_t used = chunk.end - chunk.begin, capacity
        cdef uint32_t begin
        if (chunk.begin if front else chunk.capacity - chunk.end) >= need:
            return &self.directory[self.head + k]
        if chunk.capacity - used >= need:
            begin = chunk.capacity - <uint32_t> used if front else 0
            memmove(chunk_data(chunk) + begin, chunk_data(chunk) + chunk.begin, used)
            chunk.begin = begin
            chunk.end = begin + <uint32_t> used
        else:
            capacity = used + need + (used + need) // 2
            if capacity > self.chunk_bytes:
                capacity = max(used + need, <Py_ssize_t> self.chunk_bytes)
            self.chunk_move(k, capacity, front)
        return &self.directory[self.head + k]

    cdef Slot* slot_for_push(self, Py_ssize_t need, bint left) except NULL:
        """The slot at an end, with room for an entry of `need` bytes on that side."""
        cdef Py_ssize_t k = 0 if left else self.chunks - 1
        cdef Py_ssize_t used, capacity = need
        cdef Chunk* chunk
        if self.chunks:
            chunk = self.chunk(k)
            if self.fits(chunk, need):
                return self.make_room(k, need, left)
            used = chunk.end - chunk.begin
            if chunk.capacity - used > used // 4 + 32:
                self.chunk_fit(k, used)
            # The next chunk will probably become as large as this one.
            capacity = max(need, min(used, <Py_ssize_t> self.chunk_bytes))
        k = 0 if left else self.chunks
        chunk = self.chunk_new(capacity)
        if left:
            chunk.begin = chunk.end = chunk.capacity
        self.insert_chunk(k, chunk, NO_START)
        return &self.directory[self.head + k]

    cdef Py_ssize_t split_for(self, Py_ssize_t k, Py_ssize_t offset, Py_ssize_t need, Py_ssize_t* new_offset) except -1:
        """Room for an entry of `need` bytes before element `offset` of the full chunk `k`; returns its chunk."""
        cdef Chunk* chunk
        cdef Chunk* right
        cdef Py_ssize_t moved
        cdef char* at
        if offset == 0 and k > 0:
            k -= 1
            offset = self.chunk(k).count
            if self.fits(self.chunk(k), need):
                new_offset[0] = offset
                return k
        chunk = self.chunk(k)
        if 0 < offset < chunk.count:
            at = element_at(chunk, offset)
            moved = chunk_data(chunk) + chunk.end - at
            right = self.chunk_new(moved)
            memcpy(chunk_data(right), at, moved)
            right.end = <uint32_t> moved
            right.count = chunk.count - <uint32_t> offset
            self.insert_chunk(k + 1, right, self.directory[self.head + k].start + offset)
            chunk.end -= <uint32_t> moved
            chunk.count = <uint32_t> offset
            if self.fits(chunk, need):
                new_offset[0] = offset
                return k
        new_offset[0] = 0
        if k + 1 < self.chunks and self.fits(self.chunk(k + 1), need):
            return k + 1
        self.insert_chunk(k + 1, self.chunk_new(need), self.directory[self.head + k].start + self.chunk(k).count)
        return k + 1

    cdef int insert_chunk(self, Py_ssize_t k, Chunk* chunk, int64_t start) except -1:
        """Takes the chunk over, also when there is no memory for its slot. NO_START: it follows from the neighbours."""
        try:
            self.directory_open(k)
        except MemoryError:
            self.chunk_free(chunk)
            raise
        self.directory[self.head + k].chunk = chunk
        if start != NO_START:
            self.directory[self.head + k].start = start
        return 0

    cdef void erase(self, Py_ssize_t k, Py_ssize_t start, Py_ssize_t stop) noexcept:
        """Takes elements [start, stop) out of chunk `k`; positions and length are the caller's."""
        cdef Chunk* chunk = self.chunk(k)
        cdef char* low = element_at(chunk, start)
        cdef char* high = element_at(chunk, stop)
        cdef char* begin = chunk_data(chunk) + chunk.begin
        cdef char* end = chunk_data(chunk) + chunk.end
        cdef uint32_t gone = <uint32_t> (high - low)
        if low - begin < end - high:
            memmove(begin + gone, begin, low - begin)
            chunk.begin += gone
        else:
            memmove(low, high, end - high)
            chunk.end -= gone
        chunk.count -= <uint32_t> (stop - start)
        self.payload -= gone

    cdef Py_ssize_t erase_equal(self, Chunk* chunk, bytes value, Py_ssize_t limit, bint forward) noexcept:
        """Takes up to `limit` elements equal to `value` out of the chunk, first or last ones; how many."""
        cdef const char* wanted = PyBytes_AS_STRING(value)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value), entry_size, matches = 0, skip = 0, removed = 0, step
        cdef Py_ssize_t count = chunk.count
        cdef char* at = chunk_data(chunk) + chunk.begin
        cdef char* out
        for step in range(count):
            matches += element_equals(at, wanted, size)
            at += packed_size(element_size(at))
        if not matches:
            return 0
        if not forward and matches > limit:
            skip = matches - limit
        at = out = chunk_data(chunk) + chunk.begin
        for step in range(count):
            entry_size = packed_size(element_size(at))
            if removed < limit and element_equals(at, wanted, size):
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

    cdef inline bint mergeable(self, Chunk* left, Chunk* right) noexcept:
        return (
            (left.count + right.count) * 2 <= self.chunk_entries
            and ((left.end - left.begin) + (right.end - right.begin)) * 2 <= self.chunk_bytes
        )

    cdef bint absorb(self, Py_ssize_t k, Chunk* right) noexcept:
        """Appends the entries of `right` to chunk `k` and frees `right`, whose slot is the caller's; if there is memory."""
        cdef Py_ssize_t size = right.end - right.begin
        cdef Chunk* chunk
        try:
            chunk = self.make_room(k, size, False).chunk
        except MemoryError:
            return False
        memcpy(chunk_data(chunk) + chunk.end, chunk_data(right) + right.begin, size)
        chunk.end += <uint32_t> size
        chunk.count += right.count
        self.chunk_free(right)
        return True

    cdef int tidy(self, Py_ssize_t k) except -1:
        """After elements left chunk `k`: drops it when empty, joins it with a small neighbour."""
        cdef Py_ssize_t low
        if k >= self.chunks:
            return 0
        if self.chunk(k).count == 0:
            self.chunk_free(self.chunk(k))
            self.directory_close(k, k + 1)
            return 0
        for low in (k, k - 1):
            if 0 <= low and low + 1 < self.chunks and self.mergeable(self.chunk(low), self.chunk(low + 1)):
                if self.absorb(low, self.chunk(low + 1)):
                    self.directory_close(low + 1, low + 2)
        return 0

    cdef int squeeze(self) except -1:
        """Drops empty chunks, joins small ones and numbers all of them anew, in one pass."""
        cdef Py_ssize_t k, kept = 0
        cdef uint32_t size
        cdef Slot* slots = self.directory + self.head
        cdef int64_t start = 0
        cdef Chunk* chunk
        for k in range(self.chunks):
            chunk = slots[k].chunk
            size = chunk.count
            if not size:
                self.chunk_free(chunk)
            elif kept and self.mergeable(slots[kept - 1].chunk, chunk) and self.absorb(kept - 1, chunk):
                start += size
            else:
                slots[kept].chunk = chunk
                slots[kept].start = start
                start += size
                kept += 1
        self.directory_close(kept, self.chunks)
        return 0

    # Directory ----------------------------------------------------------------------------------------

    cdef Slot* locate(self, Py_ssize_t index, Py_ssize_t* offset) noexcept:
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

    cdef void renumber(self, Py_ssize_t k, Py_ssize_t delta) noexcept:
        """Moves chunks from `k` on by `delta` positions, or those before it the other way: whichever are fewer."""
        cdef Slot* slots = self.directory + self.head
        cdef Py_ssize_t i
        if k <= self.chunks - k:
            for i in range(k):
                slots[i].start -= delta
        else:
            for i in range(k, self.chunks):
                slots[i].start += delta

    cdef int directory_resize(self, Py_ssize_t room) except -1:
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

    cdef int directory_open(self, Py_ssize_t k) except -1:
        """An unused slot `k`, its position following from its neighbours; moves the smaller side."""
        cdef bint front = k * 2 < self.chunks or (k == 0 and self.chunks > 0)
        cdef Slot* slots
        if self.chunks == 0:
            if self.room == 0:
                self.directory_resize(1)
            self.head = self.room // 2
        elif (self.head == 0) if front else (self.head + self.chunks == self.room):
            self.directory_resize(max(self.room, 4) if self.chunks * 2 < self.room else max(4, self.room * 2))
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

    cdef void directory_close(self, Py_ssize_t first, Py_ssize_t last) noexcept:
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
            try:
                self.directory_resize(max(self.chunks * 2, <Py_ssize_t> 16))
            except MemoryError:
                pass  # it stays as large as it is

    # Bookkeeping --------------------------------------------------------------------------------------

    cdef inline void grown(self, Py_ssize_t need) noexcept:
        self.length += 1
        self.payload += need

    cdef inline void shrunk(self, Py_ssize_t count, Py_ssize_t size) noexcept:
        self.length -= count
        self.payload -= size

    cdef inline int64_t size_in_memory(self) noexcept:
        return LIST_SIZE + self.room * <Py_ssize_t> sizeof(Slot) + self.allocated

    @property
    def memory(self):
        """Bytes that this list takes, as allocated. O(1)."""
        return self.size_in_memory()

    # Taking apart: for the cleanup thread -------------------------------------------------------------
    def release_some(self, Py_ssize_t count):
        """Frees about `count` elements from the tail, without the GIL; True while something is left.

        2,000 take well under a millisecond, however large the elements are.
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

    def check(self):
        """Asserts every invariant; for tests."""
        cdef Py_ssize_t k, step, total = 0, payload = 0, allocated = 0
        cdef Chunk* chunk
        cdef const char* at
        assert 0 <= self.head and self.head + self.chunks <= self.room
        for k in range(self.chunks):
            chunk = self.chunk(k)
            assert chunk.count > 0, "an empty chunk"
            assert chunk.count <= self.chunk_entries
            assert chunk.begin <= chunk.end <= chunk.capacity
            assert chunk.count == 1 or chunk.end - chunk.begin <= self.chunk_bytes
            if k:
                assert self.directory[self.head + k].start == self.directory[self.head].start + total, "wrong position"
            at = chunk_data(chunk) + chunk.begin
            for step in range(chunk.count):
                at += packed_size(element_size(at))
                assert element_size_before(at) >= 0
            assert at == chunk_data(chunk) + chunk.end, "entries do not fill the chunk"
            total += chunk.count
            payload += chunk.end - chunk.begin
            allocated += chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
        assert total == self.length
        assert payload == self.payload
        assert allocated == self.allocated
