# The elements of a list: byte strings packed into chunks.
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
# Called by ListValue alone, which counts the elements (listvalue.pxd has the declarations). What may fail for want of
# memory returns NULL or -1, and every element is then where it was; what takes elements away never fails.

cdef enum:
    CHUNK_ENTRIES = 128  # walking half of them takes about 50 ns
    CHUNK_BYTES = 4096  # a push or delete inside a chunk moves at most this much
    ALLOCATION = 16  # what malloc adds to a block, about
    WEIGHED_AHEAD = 12  # chunks that are asked for before they are looked at

cdef int64_t NO_START = INT64_MIN


# Elements -----------------------------------------------------------------------------------------------
cdef inline Py_ssize_t element_size_before(const char* entry_end) noexcept nogil:
    """Length of the element whose entry ends here."""
    cdef unsigned char last = <unsigned char> (entry_end - 1)[0]
    cdef uint32_t length
    if last < LONG_ELEMENT:
        return last
    memcpy(&length, entry_end - 5, 4)
    return length


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


# Chunks -------------------------------------------------------------------------------------------------
cdef inline Slot* slots_of(Chunks* chunks) noexcept nogil:
    return chunks.directory + chunks.head


cdef inline Chunk* chunk_of(Chunks* chunks, Py_ssize_t k) noexcept nogil:
    return chunks.directory[chunks.head + k].chunk


cdef inline Py_ssize_t chunk_cost(Chunk* chunk) noexcept nogil:
    """Bytes that a chunk takes."""
    return chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION


cdef inline bint fits(Chunks* chunks, Chunk* chunk, Py_ssize_t need) noexcept nogil:
    return chunk.count < chunks.chunk_entries and (chunk.end - chunk.begin) + need <= chunks.chunk_bytes


cdef Chunk* chunk_new(Chunks* chunks, Py_ssize_t capacity) noexcept nogil:
    # Eight more than a multiple of sixteen: with the header that fills what malloc rounds up to.
    capacity = ((capacity + 7) & ~(<Py_ssize_t> 15)) + 8
    cdef Chunk* chunk = <Chunk*> kache_malloc(sizeof(Chunk) + capacity)
    if chunk == NULL:
        return NULL
    chunk.capacity = <uint32_t> capacity
    chunk.begin = chunk.end = chunk.count = 0
    chunks.allocated += chunk_cost(chunk)
    return chunk


cdef void chunk_free(Chunks* chunks, Chunk* chunk) noexcept nogil:
    chunks.allocated -= chunk_cost(chunk)
    free(chunk)


cdef int chunk_move(Chunks* chunks, Py_ssize_t k, Py_ssize_t capacity, bint gap_in_front) noexcept nogil:
    """Chunk `k` in a new block with its free space on one side."""
    cdef Chunk* old = chunk_of(chunks, k)
    cdef uint32_t used = old.end - old.begin
    cdef Chunk* new = chunk_new(chunks, capacity)
    if new == NULL:
        return -1
    new.begin = new.capacity - used if gap_in_front else 0
    new.end = new.begin + used
    new.count = old.count
    memcpy(chunk_data(new) + new.begin, chunk_data(old) + old.begin, used)
    chunk_free(chunks, old)
    slots_of(chunks)[k].chunk = new
    return 0


cdef Slot* make_room(Chunks* chunks, Py_ssize_t k, Py_ssize_t need, bint front) noexcept nogil:
    """At least `need` free bytes before (`front`) or after the entries of chunk `k`, whose slot is returned."""
    cdef Chunk* chunk = chunk_of(chunks, k)
    cdef Py_ssize_t used = chunk.end - chunk.begin, capacity
    cdef uint32_t begin
    if (chunk.begin if front else chunk.capacity - chunk.end) >= need:
        return &slots_of(chunks)[k]
    if chunk.capacity - used >= need:
        begin = chunk.capacity - <uint32_t> used if front else 0
        memmove(chunk_data(chunk) + begin, chunk_data(chunk) + chunk.begin, used)
        chunk.begin = begin
        chunk.end = begin + <uint32_t> used
    else:
        capacity = used + need + (used + need) // 2
        if capacity > chunks.chunk_bytes:
            capacity = max(used + need, <Py_ssize_t> chunks.chunk_bytes)
        if chunk_move(chunks, k, capacity, front) < 0:
            return NULL
    return &slots_of(chunks)[k]


cdef Slot* slot_for_push(Chunks* chunks, Py_ssize_t need, bint left) noexcept nogil:
    """The slot at an end, with room for an entry of `need` bytes on that side."""
    cdef Py_ssize_t k = 0 if left else chunks.count - 1
    cdef Py_ssize_t used, capacity = need
    cdef Chunk* chunk
    if chunks.count:
        chunk = chunk_of(chunks, k)
        if fits(chunks, chunk, need):
            return make_room(chunks, k, need, left)
        used = chunk.end - chunk.begin
        if chunk.capacity - used > used // 4 + 32:
            # It gives back what it has too much, if there is memory for the smaller block.
            chunk_move(chunks, k, used, False)
        # The next chunk will probably become as large as this one.
        capacity = max(need, min(used, <Py_ssize_t> chunks.chunk_bytes))
    k = 0 if left else chunks.count
    chunk = chunk_new(chunks, capacity)
    if chunk == NULL:
        return NULL
    if left:
        chunk.begin = chunk.end = chunk.capacity
    if insert_chunk(chunks, k, chunk, NO_START) < 0:
        return NULL
    return &slots_of(chunks)[k]


cdef Py_ssize_t split_for(Chunks* chunks, Py_ssize_t k, Py_ssize_t offset, Py_ssize_t need, Py_ssize_t* new_offset) noexcept nogil:
    """A chunk for an entry of `need` bytes before element `offset` of the full chunk `k`; -1 without memory.

    `make_room` may still have to make that room.
    """
    cdef Chunk* chunk
    if offset == 0 and k > 0:
        k -= 1
        offset = chunk_of(chunks, k).count
        if fits(chunks, chunk_of(chunks, k), need):
            new_offset[0] = offset
            return k
    chunk = chunk_of(chunks, k)
    if 0 < offset < chunk.count:
        if split_chunk(chunks, k, offset) < 0:
            return -1
        if fits(chunks, chunk, need):
            new_offset[0] = offset
            return k
    new_offset[0] = 0
    if k + 1 < chunks.count and fits(chunks, chunk_of(chunks, k + 1), need):
        return k + 1
    chunk = chunk_new(chunks, need)
    if chunk == NULL or insert_chunk(chunks, k + 1, chunk, slots_of(chunks)[k].start + chunk_of(chunks, k).count) < 0:
        return -1
    return k + 1


cdef int split_chunk(Chunks* chunks, Py_ssize_t k, Py_ssize_t offset) noexcept nogil:
    """The elements of chunk `k` from `offset` on, which are some but not all, become a chunk of their own."""
    cdef Chunk* chunk = chunk_of(chunks, k)
    cdef char* at = element_at(chunk, offset)
    cdef uint32_t moved = <uint32_t> (chunk_data(chunk) + chunk.end - at)
    cdef Chunk* right = chunk_new(chunks, moved)
    if right == NULL:
        return -1
    memcpy(chunk_data(right), at, moved)
    right.end = moved
    right.count = chunk.count - <uint32_t> offset
    if insert_chunk(chunks, k + 1, right, slots_of(chunks)[k].start + offset) < 0:
        return -1
    chunk.end -= moved
    chunk.count = <uint32_t> offset
    return 0


cdef int insert_chunk(Chunks* chunks, Py_ssize_t k, Chunk* chunk, int64_t start) noexcept nogil:
    """Takes the chunk over, also when there is no memory for its slot. NO_START: it follows from the neighbours."""
    if directory_open(chunks, k) < 0:
        chunk_free(chunks, chunk)
        return -1
    slots_of(chunks)[k].chunk = chunk
    if start != NO_START:
        slots_of(chunks)[k].start = start
    return 0


# Taking elements away -----------------------------------------------------------------------------------
cdef void erase(Chunks* chunks, Py_ssize_t k, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Takes elements [start, stop) out of chunk `k`; positions are the caller's."""
    cdef Chunk* chunk = chunk_of(chunks, k)
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
    chunks.payload -= gone


cdef Py_ssize_t erase_runs(Chunks* chunks, Py_ssize_t k, const Run* runs, Py_ssize_t n, Py_ssize_t* at_run) noexcept nogil:
    """Takes the elements of those runs that lie in chunk `k` out of it, in one pass; how many.

    Run `at_run` is the first that reaches into the chunk, and becomes the first that reaches beyond it. Positions are the
    caller's, so the directory still says where elements were before any was taken away.
    """
    cdef Chunk* chunk = chunk_of(chunks, k)
    cdef Py_ssize_t first = <Py_ssize_t> (slots_of(chunks)[k].start - slots_of(chunks)[0].start)
    cdef Py_ssize_t beyond = first + chunk.count, index = max(first, runs[at_run[0]].start), removed = 0, stop
    cdef char* at = element_at(chunk, index - first)
    cdef char* out = at
    cdef char* kept
    while index < beyond:
        # The elements of a run, then those up to the next run.
        stop = min(runs[at_run[0]].start + runs[at_run[0]].count, beyond)
        removed += stop - index
        at = skip_elements(at, stop - index)
        index = stop
        if index == runs[at_run[0]].start + runs[at_run[0]].count:
            at_run[0] += 1
        if index == beyond:
            break
        stop = min(runs[at_run[0]].start, beyond) if at_run[0] < n else beyond
        kept = at
        at = skip_elements(at, stop - index) if stop < beyond else chunk_data(chunk) + chunk.end
        memmove(out, kept, at - kept)
        out += at - kept
        index = stop
    chunks.payload -= at - out
    chunk.end -= <uint32_t> (at - out)
    chunk.count -= <uint32_t> removed
    return removed


cdef inline char* skip_elements(char* at, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t step
    for step in range(n):
        at += packed_size(element_size(at))
    return at


cdef inline bint mergeable(Chunks* chunks, Chunk* left, Chunk* right) noexcept nogil:
    return (
        (left.count + right.count) * 2 <= chunks.chunk_entries
        and ((left.end - left.begin) + (right.end - right.begin)) * 2 <= chunks.chunk_bytes
    )


cdef bint absorb(Chunks* chunks, Py_ssize_t k, Chunk* right) noexcept nogil:
    """Appends the entries of `right` to chunk `k` and frees `right`, whose slot is the caller's; if there is memory."""
    cdef uint32_t size = right.end - right.begin
    cdef Slot* slot = make_room(chunks, k, size, False)
    if slot == NULL:
        return False
    memcpy(chunk_data(slot.chunk) + slot.chunk.end, chunk_data(right) + right.begin, size)
    slot.chunk.end += size
    slot.chunk.count += right.count
    chunk_free(chunks, right)
    return True


cdef void tidy(Chunks* chunks, Py_ssize_t k) noexcept nogil:
    """After elements left chunk `k`: drops it when empty, joins it with a small neighbour."""
    cdef Py_ssize_t step, low
    if k >= chunks.count:
        return
    if chunk_of(chunks, k).count == 0:
        chunk_free(chunks, chunk_of(chunks, k))
        directory_close(chunks, k, k + 1)
        return
    for step in range(2):
        low = k - step
        if 0 <= low and low + 1 < chunks.count and mergeable(chunks, chunk_of(chunks, low), chunk_of(chunks, low + 1)):
            if absorb(chunks, low, chunk_of(chunks, low + 1)):
                directory_close(chunks, low + 1, low + 2)


cdef void squeeze(Chunks* chunks) noexcept nogil:
    """Drops empty chunks, joins small ones and numbers all of them anew, in one pass."""
    cdef Py_ssize_t k, kept = 0
    cdef uint32_t size
    cdef Slot* slots = slots_of(chunks)
    cdef int64_t start = 0
    cdef Chunk* chunk
    for k in range(chunks.count):
        chunk = slots[k].chunk
        size = chunk.count
        if not size:
            chunk_free(chunks, chunk)
        elif not (kept and mergeable(chunks, slots[kept - 1].chunk, chunk) and absorb(chunks, kept - 1, chunk)):
            slots[kept].chunk = chunk
            slots[kept].start = start
            kept += 1
        start += size
    directory_close(chunks, kept, chunks.count)


# Directory ----------------------------------------------------------------------------------------------
cdef Slot* locate(Chunks* chunks, Py_ssize_t index, Py_ssize_t* offset) noexcept nogil:
    """The slot of an existing element, and its place in the chunk."""
    cdef Slot* slots = slots_of(chunks)
    cdef int64_t position = slots[0].start + index
    cdef Py_ssize_t low = 0, high = chunks.count, middle
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


cdef void renumber(Chunks* chunks, Py_ssize_t k, Py_ssize_t delta) noexcept nogil:
    """Moves chunks from `k` on by `delta` positions, or those before it the other way: whichever are fewer."""
    cdef Slot* slots = slots_of(chunks)
    cdef Py_ssize_t i
    if k <= chunks.count - k:
        for i in range(k):
            slots[i].start -= delta
    else:
        for i in range(k, chunks.count):
            slots[i].start += delta


cdef int directory_resize(Chunks* chunks, Py_ssize_t room) noexcept nogil:
    """A directory of `room` slots (at least those in use), the used ones in its middle."""
    cdef Py_ssize_t head = (room - chunks.count) // 2
    cdef Slot* slots = <Slot*> kache_malloc(room * sizeof(Slot))
    if slots == NULL:
        return -1
    if chunks.count:
        memcpy(slots + head, slots_of(chunks), chunks.count * sizeof(Slot))
    free(chunks.directory)
    chunks.directory = slots
    chunks.head = head
    chunks.room = room
    return 0


cdef int directory_open(Chunks* chunks, Py_ssize_t k) noexcept nogil:
    """An unused slot `k`, its position following from its neighbours; moves the smaller side."""
    cdef bint front = k * 2 < chunks.count or (k == 0 and chunks.count > 0)
    cdef Slot* slots
    if chunks.count == 0:
        if chunks.room == 0 and directory_resize(chunks, 1) < 0:
            return -1
        chunks.head = chunks.room // 2
    elif (chunks.head == 0) if front else (chunks.head + chunks.count == chunks.room):
        if directory_resize(
            chunks, max(chunks.room, 4) if chunks.count * 2 < chunks.room else max(4, chunks.room * 2)
        ) < 0:
            return -1
    slots = slots_of(chunks)
    if front:
        memmove(slots - 1, slots, k * sizeof(Slot))
        chunks.head -= 1
        slots -= 1
    else:
        memmove(slots + k + 1, slots + k, (chunks.count - k) * sizeof(Slot))
    chunks.count += 1
    if k:
        slots[k].start = slots[k - 1].start + slots[k - 1].chunk.count
    else:
        slots[k].start = slots[1].start if chunks.count > 1 else 0
    return 0


cdef void directory_close(Chunks* chunks, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Takes slots [first, last) out; moves the smaller side."""
    cdef Slot* slots = slots_of(chunks)
    cdef Py_ssize_t gone = last - first
    if first < chunks.count - last:
        memmove(slots + gone, slots, first * sizeof(Slot))
        chunks.head += gone
    else:
        memmove(slots + first, slots + last, (chunks.count - last) * sizeof(Slot))
    chunks.count -= gone
    if chunks.room > 64 and chunks.count * 8 < chunks.room:
        # Without memory it stays as large as it is.
        directory_resize(chunks, max(chunks.count * 2, <Py_ssize_t> 16))


# Whole lists --------------------------------------------------------------------------------------------
cdef int chunks_copy(Chunks* source, Chunks* target) noexcept nogil:
    """All chunks of `source` into `target`, which is empty; on -1 it holds some of them. One memcpy per chunk."""
    cdef Py_ssize_t k
    cdef uint32_t used
    cdef Chunk* chunk
    cdef Chunk* twin
    if not source.count:
        return 0
    if directory_resize(target, source.count) < 0:
        return -1
    target.head = 0
    for k in range(source.count):
        chunk = chunk_of(source, k)
        used = chunk.end - chunk.begin
        twin = chunk_new(target, used)
        if twin == NULL:
            return -1
        memcpy(chunk_data(twin), chunk_data(chunk) + chunk.begin, used)
        twin.end = used
        twin.count = chunk.count
        target.directory[k].start = slots_of(source)[k].start
        target.directory[k].chunk = twin
        target.count += 1
    target.payload = source.payload
    return 0


cdef void chunks_weigh(Chunks* chunks, Py_ssize_t first, Py_ssize_t last, Chunks* sum) noexcept nogil:
    """Adds what chunks [first, last) take to `sum`, its payload and what is allocated."""
    cdef Py_ssize_t k
    cdef Chunk* chunk
    for k in range(first, last):
        if k + WEIGHED_AHEAD < last:
            # Each is a miss of the caches, and of the page table's: alone it would be waited for.
            prefetch_chunk(chunk_of(chunks, k + WEIGHED_AHEAD))
        chunk = chunk_of(chunks, k)
        sum.payload += chunk.end - chunk.begin
        sum.allocated += chunk_cost(chunk)


cdef Py_ssize_t chunks_detach(Chunks* source, Py_ssize_t first, Py_ssize_t last, Chunks* target) noexcept nogil:
    """Moves chunks [first, last), behind which there is one, to `target`, which is empty; how many elements that were, -1
    without memory. Only the smaller part is looked at chunk by chunk: what goes, or what stays."""
    cdef Py_ssize_t k, length = slots_of(source)[last].start - slots_of(source)[first].start
    if directory_resize(target, last - first) < 0:
        return -1
    target.head = 0
    for k in range(first, last):
        target.directory[k - first].start = slots_of(source)[k].start - slots_of(source)[first].start
        target.directory[k - first].chunk = chunk_of(source, k)
    target.count = last - first
    if target.count * 2 <= source.count:
        chunks_weigh(source, first, last, target)
    else:
        chunks_weigh(source, 0, first, target)
        chunks_weigh(source, last, source.count, target)
        target.payload = source.payload - target.payload
        target.allocated = source.allocated - target.allocated
    source.allocated -= target.allocated
    source.payload -= target.payload
    directory_close(source, first, last)
    return length


cdef void chunks_drop(Chunks* chunks, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Frees chunks [first, last)."""
    cdef Py_ssize_t k
    for k in range(first, last):
        chunks.payload -= chunk_of(chunks, k).end - chunk_of(chunks, k).begin
        chunk_free(chunks, chunk_of(chunks, k))
    directory_close(chunks, first, last)


cdef Py_ssize_t chunks_check(Chunks* chunks) except -1:
    """Asserts every invariant; how many elements there are."""
    cdef Py_ssize_t k, step, total = 0, payload = 0, allocated = 0
    cdef Slot* slots = slots_of(chunks)
    cdef Chunk* chunk
    cdef const char* at
    assert 0 <= chunks.head and chunks.head + chunks.count <= chunks.room
    for k in range(chunks.count):
        chunk = slots[k].chunk
        assert chunk.count > 0, "an empty chunk"
        assert chunk.count <= chunks.chunk_entries
        assert chunk.begin <= chunk.end <= chunk.capacity
        assert chunk.count == 1 or chunk.end - chunk.begin <= chunks.chunk_bytes
        assert slots[k].start == slots[0].start + total, "wrong position"
        at = chunk_data(chunk) + chunk.begin
        for step in range(chunk.count):
            at += packed_size(element_size(at))
            assert element_size_before(at) >= 0
        assert at == chunk_data(chunk) + chunk.end, "entries do not fill the chunk"
        total += chunk.count
        payload += chunk.end - chunk.begin
        allocated += chunk_cost(chunk)
    assert payload == chunks.payload
    assert allocated == chunks.allocated
    return total
