# ListValue: the value of a list key, on the chunks of chunks.pxi.

cdef class ListValue(Chunks):
    """A list of byte strings. Indexes are non-negative; IndexError beyond the end; `slice` clamps.

    `values` are pushed on the right in their order. The two limits per chunk are settable for tests. Readers are for
    the commands; what changes one is called by the keyspace alone, which accounts `memory`.
    """

    def __init__(self, values=(), *, chunk_entries=CHUNK_ENTRIES, chunk_bytes=CHUNK_BYTES):
        self.extend(values, False)

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
        slot = self.locate(start, &offset)
        at = element_at(slot.chunk, offset)
        while True:
            end = chunk_data(slot.chunk) + slot.chunk.end
            while at < end and filled < wanted:
                value = element_bytes(at)
                Py_INCREF(value)
                PyList_SET_ITEM(out, filled, value)
                filled += 1
                at += packed_size(element_size(at))
            if filled == wanted:
                return out
            slot += 1
            at = chunk_data(slot.chunk) + slot.chunk.begin

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

    def copy(self):
        """An independent copy. One memcpy per chunk."""
        cdef ListValue other = ListValue.__new__(ListValue, chunk_entries=self.chunk_entries, chunk_bytes=self.chunk_bytes)
        cdef Py_ssize_t k, used
        cdef Chunk* chunk
        cdef Chunk* twin
        if not self.chunks:
            return other
        other.directory_resize(self.chunks)
        other.head = 0
        for k in range(self.chunks):
            chunk = self.directory[self.head + k].chunk
            used = chunk.end - chunk.begin
            twin = other.chunk_new(used)
            memcpy(chunk_data(twin), chunk_data(chunk) + chunk.begin, used)
            twin.end = <uint32_t> used
            twin.count = chunk.count
            other.directory[k].start = self.directory[self.head + k].start
            other.directory[k].chunk = twin
            other.chunks += 1
        other.length = self.length
        other.payload = self.payload
        return other

    # Changing: for the keyspace -----------------------------------------------------------------------

    cdef Py_ssize_t put(self, const char* value, Py_ssize_t size, bint left) except -1:
        """One element at an end; the new length."""
        cdef Py_ssize_t need = packed_size(size)
        cdef Slot* slot = self.slot_for_push(need, left)
        cdef Chunk* chunk = slot.chunk
        if left:
            chunk.begin -= <uint32_t> need
            put_element(chunk_data(chunk) + chunk.begin, value, size)
            slot.start -= 1
        else:
            put_element(chunk_data(chunk) + chunk.end, value, size)
            chunk.end += <uint32_t> need
        chunk.count += 1
        self.grown(need)
        return self.length

    cpdef Py_ssize_t push(self, bytes value, bint left) except -1:
        """One element at an end; returns the new length. O(1)."""
        return self.put(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), left)

    cpdef Py_ssize_t extend(self, values, bint left) except -1:
        """Pushes one after another (on the left the last value ends up first); returns the new length. All or none."""
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
        """`extend` of what is not yet a Python object."""
        cdef Py_ssize_t i = 0
        try:
            while i < n:
                self.put(elements[i].data, elements[i].size, left)
                i += 1
        except MemoryError:
            self.drop_some(i, left)
            raise
        return self.length

    cdef void drop_some(self, Py_ssize_t n, bint left) noexcept:
        cdef Py_ssize_t i
        for i in range(n):
            self.drop(left)

    cdef const char* end_of(self, bint left) noexcept:
        """The element at an end of a list that is not empty."""
        cdef Chunk* chunk = self.chunk(0 if left else self.chunks - 1)
        if left:
            return chunk_data(chunk) + chunk.begin
        return chunk_data(chunk) + chunk.end - packed_size(element_size_before(chunk_data(chunk) + chunk.end))

    cdef void drop(self, bint left) noexcept:
        """Removes the element at an end of a list that is not empty."""
        cdef Py_ssize_t need = packed_size(element_size(self.end_of(left))), k = 0 if left else self.chunks - 1
        cdef Slot* slot = &self.directory[self.head + k]
        cdef Chunk* chunk = slot.chunk
        if left:
            chunk.begin += <uint32_t> need
            slot.start += 1
        else:
            chunk.end -= <uint32_t> need
        chunk.count -= 1
        self.shrunk(1, need)
        if not chunk.count:
            self.chunk_free(chunk)
            self.directory_close(k, k + 1)

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

    cpdef int set(self, Py_ssize_t index, bytes value) except -1:
        """Replaces one element; IndexError when it does not exist. O(log n)."""
        cdef Py_ssize_t offset, size = PyBytes_GET_SIZE(value), need = packed_size(size), old
        cdef Slot* slot
        cdef char* at
        if index < 0 or index >= self.length:
            raise IndexError("list index out of range")
        slot = self.locate(index, &offset)
        at = element_at(slot.chunk, offset)
        old = packed_size(element_size(at))
        if old != need:
            # Through insert and delete, so that every limit and the room of the chunk are kept in one place.
            self.insert(index, value)
            self.delete_range(index + 1, index + 2)
            return 0
        put_element(at, PyBytes_AS_STRING(value), size)
        return 0

    cpdef int insert(self, Py_ssize_t index, bytes value) except -1:
        """Puts `value` before element `index` (at the end, if that is the length). O(n / chunk), small constant."""
        cdef Py_ssize_t offset, k, size = PyBytes_GET_SIZE(value), need = packed_size(size), move
        cdef Slot* slot
        cdef Chunk* chunk
        cdef char* at
        if index < 0 or index > self.length:
            raise IndexError("list index out of range")
        if index == 0 or index == self.length:
            self.push(value, index == 0)
            return 0
        slot = self.locate(index, &offset)
        k = slot - self.directory - self.head
        if not self.fits(slot.chunk, need):
            k = self.split_for(k, offset, need, &offset)
        slot = self.make_room(k, need, False)
        chunk = slot.chunk
        at = element_at(chunk, offset)
        move = chunk_data(chunk) + chunk.end - at
        memmove(at + need, at, move)
        put_element(at, PyBytes_AS_STRING(value), size)
        chunk.end += <uint32_t> need
        chunk.count += 1
        self.renumber(k + 1, 1)
        self.grown(need)
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
        slot = self.locate(start, &first_offset)
        first = slot - self.directory - self.head
        slot = self.locate(stop - 1, &last_offset)
        last = slot - self.directory - self.head
        last_offset += 1
        if first == last:
            self.erase(first, first_offset, last_offset)
            self.renumber(first + 1, -removed)
            self.tidy(first)
        else:
            # What may fail for want of memory comes before anything is changed.
            detached = self.detach(first + 1, last)
            if detached is None:
                for k in range(first + 1, last):
                    self.payload -= self.chunk(k).end - self.chunk(k).begin
                    self.chunk_free(self.chunk(k))
                self.directory_close(first + 1, last)
            last = first + 1
            self.erase(first, first_offset, self.chunk(first).count)
            self.erase(last, 0, last_offset)
            self.directory[self.head + last].start += last_offset
            self.renumber(first + 1, -removed)
            self.tidy(first + 1)
            self.tidy(first)
        self.shrunk(removed, 0)
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
            removed += self.erase_equal(self.chunk(k if forward else self.chunks - 1 - k), value, limit - removed, forward)
        if removed:
            self.squeeze()
            self.shrunk(removed, 0)
        return removed

    cdef ListValue detach(self, Py_ssize_t first, Py_ssize_t last):
        """Moves chunks [first, last) into a list of their own; None when they are few, or there is no memory for that."""
        cdef ListValue other
        cdef Py_ssize_t k, size
        cdef Chunk* chunk
        if last - first < DETACH_CHUNKS:
            return None
        try:
            other = ListValue.__new__(ListValue, chunk_entries=self.chunk_entries, chunk_bytes=self.chunk_bytes)
            other.directory_resize(last - first)
        except MemoryError:
            return None
        other.head = 0
        for k in range(first, last):
            chunk = self.chunk(k)
            other.directory[k - first].start = other.length
            other.directory[k - first].chunk = chunk
            other.length += chunk.count
            other.payload += chunk.end - chunk.begin
            size = chunk.capacity + <Py_ssize_t> sizeof(Chunk) + ALLOCATION
            other.allocated += size
            self.allocated -= size
        other.chunks = last - first
        self.payload -= other.payload
        self.directory_close(first, last)
        return other
