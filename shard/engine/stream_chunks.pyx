"""StreamChunks: the entries of a stream, as they lie in memory. Its groups, ranges and trimming are Stream's (stream.pyx).

    directory    first id | chunk | counts, first id …     sorted; an id is found by halving, a trim adds the counts up
    chunk        header | entry | entry | …                about a hundred entries, or 4 KiB (Redis's stream-node-max-*)
    entry        u8 flags | v ms − the chunk's first ms | v seq (minus the chunk's first, if the ms is the same)
                 | v size of the payload | payload         v: LEB128
    payload      [ v pairs ] | ([ v length | field ] | v length | value) …
                                                           SAME_FIELDS: without the number and the names of the fields, which
                                                           are those of the chunk's first entry

Entries are only ever added behind the last one, so chunks never split and keep their numbers (`serial`). What is taken away
in the middle leaves a tombstone; a chunk goes with its last living entry, and whole chunks go at once when a stream is
trimmed. Ids are an unsigned 64-bit time and a sequence of the same size; for Python one int, ``ms << 64 | seq``.

What adds raises MemoryError with every entry as it was; what takes away does not fail.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX
from libc.string cimport memcmp, memcpy, memmove, memset

from .memory cimport free, kache_block_size, kache_malloc, kache_realloc

__all__ = ["StreamChunks", "node_entries", "set_node_limits"]

cdef enum:
    DETACH_CHUNKS = 16          # fewer removed chunks than these are freed on the spot
    FIRST_ROOM = 72             # bytes of entries of the first chunk of a stream
    FURTHER_ROOM = 968          # and of those behind it: that block is a kibibyte
    LOOSE = 128                 # bytes beyond which the room of a chunk is given back when the next one begins
    ENTRY_HEAD = 31             # more than what stands before a payload

node_limits.entries = 100
node_limits.bytes = 4096


def set_node_limits(int64_t entries=100, int64_t bytes=4096):
    """How large chunks become that are begun from here on; 0: without limit."""
    node_limits.entries = <uint32_t> max(0, min(entries, <int64_t> UINT32_MAX))
    node_limits.bytes = <uint32_t> max(0, min(bytes, <int64_t> LARGEST_ENTRY))


def node_entries():
    """How many entries a chunk has at most; 0: any number."""
    return node_limits.entries


# Bytes ------------------------------------------------------------------------------------------------
cdef inline int varint_size(uint64_t number) noexcept nogil:
    cdef int n = 1
    while number >= 0x80:
        number >>= 7
        n += 1
    return n


cdef inline char* write_varint(char* at, uint64_t number) noexcept nogil:
    while number >= 0x80:
        at[0] = <char> ((number & 0x7F) | 0x80)
        number >>= 7
        at += 1
    at[0] = <char> number
    return at + 1


cdef inline char* write_span(char* at, const Span* span) noexcept nogil:
    at = write_varint(at, <uint64_t> span.size)
    memcpy(at, span.data, span.size)
    return at + span.size


cdef const char* names_of(StreamChunk* chunk, uint64_t* count) noexcept nogil:
    """Where the pairs of the chunk's first entry begin, which has its own names."""
    cdef const char* at = chunk_entries(chunk) + 1
    take_varint(&at)
    take_varint(&at)
    take_varint(&at)
    count[0] = take_varint(&at)
    return at


cdef bint has_fields(StreamChunk* chunk, const Span* words, Py_ssize_t n) noexcept nogil:
    """Whether the fields of `n` pairs are those of the chunk's first entry."""
    cdef uint64_t count
    cdef const char* at = names_of(chunk, &count)
    cdef Span name
    cdef Py_ssize_t i
    if count != <uint64_t> n:
        return False
    for i in range(n):
        name = take_span(&at)
        if name.size != words[2 * i].size or memcmp(name.data, words[2 * i].data, name.size) != 0:
            return False
        take_span(&at)
    return True


# Walks ------------------------------------------------------------------------------------------------
cdef void begin_chunk(StreamWalk* walk) noexcept nogil:
    walk.at = chunk_entries(walk.slot.chunk)
    walk.end = walk.at + walk.slot.chunk.size


cdef bint next_entry(StreamWalk* walk) noexcept nogil:
    """The next entry, a tombstone or not; False behind the last."""
    cdef StreamChunk* chunk
    cdef uint64_t delta
    if walk.at == walk.end:
        if walk.slot == walk.slots_end or walk.slot + 1 == walk.slots_end:
            return False
        walk.slot += 1
        begin_chunk(walk)
    chunk = walk.slot.chunk
    walk.entry = <char*> walk.at
    walk.flags = <unsigned char> walk.at[0]
    walk.at += 1
    delta = take_varint(&walk.at)
    walk.id.ms = chunk.first.ms + delta
    walk.id.seq = take_varint(&walk.at)
    if delta == 0:
        walk.id.seq += chunk.first.seq
    delta = take_varint(&walk.at)
    walk.payload = walk.at
    walk.at += delta
    walk.payload_end = walk.at
    return True


cdef StreamWalk entries_from(StreamChunks stream, StreamId first) noexcept:
    """The entries from this id on, in their order."""
    cdef StreamWalk walk
    cdef Py_ssize_t k
    memset(&walk, 0, sizeof(walk))
    if stream.count == 0:
        return walk
    k = max(stream.slot_for(first), 0)
    walk.slot = stream.directory + stream.head + k
    walk.slots_end = stream.directory + stream.head + stream.count
    begin_chunk(&walk)
    while next_entry(&walk):
        if compare_ids(walk.id, first) >= 0:
            walk.at = walk.entry
            break
    return walk


cdef PairWalk pairs_of(StreamWalk* walk) noexcept nogil:
    """The fields and values of the entry that was found."""
    cdef PairWalk pairs
    pairs.at = walk.payload
    pairs.names = NULL
    if walk.flags & SAME_FIELDS:
        pairs.names = names_of(walk.slot.chunk, &pairs.left)
    else:
        pairs.left = take_varint(&pairs.at)
    return pairs


cdef list fields_of_entry(StreamWalk* walk):
    cdef PairWalk pairs = pairs_of(walk)
    cdef list found = []
    while next_pair(&pairs):
        found.append(PyBytes_FromStringAndSize(pairs.field.data, pairs.field.size))
        found.append(PyBytes_FromStringAndSize(pairs.value.data, pairs.value.size))
    return found


@cython.no_gc
cdef class StreamChunks:
    """Entries in chunks, found by halving."""

    def __cinit__(self):
        self.directory = NULL
        self.next_serial = 1

    def __dealloc__(self):
        cdef Py_ssize_t k
        for k in range(self.count):
            free(self.directory[self.head + k].chunk)
        free(self.directory)

    def __len__(self):
        """How much there is to be freed: entries."""
        return <Py_ssize_t> self.length

    cdef bint first_id(self, StreamId* id) noexcept:
        cdef StreamId zero
        cdef StreamWalk walk
        zero.ms = zero.seq = 0
        walk = entries_from(self, zero)
        if not next_living(&walk):
            return False
        id[0] = walk.id
        return True

    cdef bint last_living(self, StreamId* id) noexcept:
        cdef StreamWalk walk
        if self.count == 0:
            return False
        walk = entries_from(self, self.directory[self.head + self.count - 1].first)
        while next_living(&walk):
            id[0] = walk.id
        return True

    cdef Py_ssize_t slot_for(self, StreamId id) noexcept nogil:
        """The last slot whose chunk begins at this id or before it; -1: all begin behind it."""
        cdef StreamSlot* slots = self.directory + self.head
        cdef Py_ssize_t low = 0, high = self.count, middle
        while low < high:
            middle = (low + high) >> 1
            if compare_ids(slots[middle].first, id) <= 0:
                low = middle + 1
            else:
                high = middle
        return low - 1

    cdef bint find_entry(self, StreamId id, StreamWalk* walk) noexcept:
        """Whether the entry lives; then the walk is at it."""
        walk[0] = entries_from(self, id)
        return next_entry(walk) and compare_ids(walk.id, id) == 0 and not walk.flags & ENTRY_DELETED

    # Adding -------------------------------------------------------------------------------------------
    cdef int append(self, StreamId id, const Span* words, Py_ssize_t n) except -1:
        """Adds an entry of `n` pairs, whose id is greater than any before. MemoryError: nothing is changed."""
        cdef StreamChunk* chunk
        cdef size_t names = varint_size(n), payload = 0, size
        cdef uint64_t delta
        cdef bint same = False
        cdef char* at
        cdef Py_ssize_t i
        for i in range(n):
            names += varint_size(words[2 * i].size) + words[2 * i].size
            payload += varint_size(words[2 * i + 1].size) + words[2 * i + 1].size
        if self.count and has_fields(self.directory[self.head + self.count - 1].chunk, words, n):
            same = True
        chunk = self.chunk_for(id, payload + ENTRY_HEAD if same else payload + names + ENTRY_HEAD, payload + names + ENTRY_HEAD)
        if chunk.size == 0:
            same = False        # the first entry has its own names
        if not same:
            payload += names
        at = chunk_entries(chunk) + chunk.size
        at[0] = SAME_FIELDS if same else 0
        delta = id.ms - chunk.first.ms
        at = write_varint(at + 1, delta)
        at = write_varint(at, id.seq if delta else id.seq - chunk.first.seq)
        at = write_varint(at, payload)
        if not same:
            at = write_varint(at, n)
        for i in range(n):
            if not same:
                at = write_span(at, &words[2 * i])
            at = write_span(at, &words[2 * i + 1])
        chunk.size = <uint32_t> (at - chunk_entries(chunk))
        self.directory[self.head + self.count - 1].count += 1
        chunk.last = id
        self.last = id
        self.length += 1
        self.added += 1
        return 0

    cdef StreamChunk* chunk_for(self, StreamId id, size_t need, size_t need_alone) except NULL:
        """The last chunk with room for `need` more bytes, or an empty new one for `need_alone` behind it."""
        cdef StreamChunk* chunk = NULL
        cdef StreamChunk* fresh
        cdef StreamSlot* slot
        cdef size_t room
        if self.count:
            slot = self.directory + self.head + self.count - 1
            chunk = slot.chunk
            if (not (node_limits.entries and slot.count + chunk.deleted >= node_limits.entries)
                    and chunk.size + need <= (node_limits.bytes if node_limits.bytes else LARGEST_ENTRY)):
                return chunk if room_of(slot) - chunk.size >= need else self.grown(slot, need)
        self.new_slot()
        if chunk == NULL and self.next_serial == 1:
            room = max(need_alone, <size_t> FIRST_ROOM)
        else:
            room = max(need_alone, <size_t> FURTHER_ROOM)
        fresh = <StreamChunk*> kache_malloc(sizeof(StreamChunk) + room)
        if fresh == NULL:
            raise MemoryError("no memory for an entry")
        memset(fresh, 0, sizeof(StreamChunk))
        fresh.first = fresh.last = id
        fresh.serial = self.next_serial
        self.next_serial += 1
        slot = self.directory + self.head + self.count
        if chunk != NULL and room_of(slot - 1) - chunk.size > LOOSE:
            self.tighten(slot - 1)
        slot.first = id
        slot.count = slot.bytes = 0
        self.place_chunk(slot, fresh)
        self.count += 1
        return fresh

    cdef void place_chunk(self, StreamSlot* slot, StreamChunk* chunk) noexcept:
        """The chunk, which is new or has another block now, stands in this slot."""
        cdef uint32_t bytes = <uint32_t> kache_block_size(chunk)
        self.allocated += <int64_t> bytes - <int64_t> slot.bytes
        slot.chunk, slot.bytes = chunk, bytes

    cdef void tighten(self, StreamSlot* slot) noexcept:
        """Gives back the room of a chunk that is full. Without memory it stays as it is."""
        cdef StreamChunk* smaller = <StreamChunk*> kache_realloc(slot.chunk, sizeof(StreamChunk) + slot.chunk.size)
        if smaller != NULL:
            self.place_chunk(slot, smaller)

    cdef StreamChunk* grown(self, StreamSlot* slot, size_t need) except NULL:
        """The last chunk, which is in this slot, with room for `need` more bytes."""
        cdef StreamChunk* chunk = slot.chunk
        cdef size_t wanted = chunk.size + need
        cdef StreamChunk* larger
        if node_limits.bytes == 0 or 2 * <size_t> chunk.size <= node_limits.bytes:
            wanted = max(wanted, 2 * <size_t> chunk.size)
        else:
            wanted = max(wanted, <size_t> node_limits.bytes)
        larger = <StreamChunk*> kache_realloc(chunk, sizeof(StreamChunk) + wanted)
        if larger == NULL:
            raise MemoryError("no memory for an entry")
        self.place_chunk(slot, larger)
        return larger

    cdef int new_slot(self) except -1:
        """Room for one more slot at the end."""
        cdef Py_ssize_t room
        cdef StreamSlot* larger
        if self.head + self.count < self.room:
            return 0
        if self.head >= 4 and self.head * 2 >= self.room:
            memmove(self.directory, self.directory + self.head, self.count * sizeof(StreamSlot))
            self.head = 0
            return 0
        room = max(<Py_ssize_t> 2, self.room + (self.room >> 1))
        larger = <StreamSlot*> kache_realloc(self.directory, room * sizeof(StreamSlot))
        if larger == NULL:
            raise MemoryError("no memory for an entry")
        self.directory = larger
        self.room = room
        return 0

    # Taking away: never fails for want of memory ------------------------------------------------------
    cdef void drop_slots(self, Py_ssize_t first, Py_ssize_t n) noexcept:
        """These slots go; their chunks are the caller's."""
        cdef StreamSlot* slots = self.directory + self.head
        if first == 0:
            self.head += n
        else:
            memmove(slots + first, slots + first + n, (self.count - first - n) * sizeof(StreamSlot))
        self.count -= n
        if self.count == 0:
            self.head = 0

    cdef void bury(self, Py_ssize_t k, char* entry) noexcept:
        """The living entry of this chunk becomes a tombstone; with its last one the chunk goes."""
        cdef StreamSlot* slot = self.directory + self.head + k
        entry[0] = <char> (entry[0] | ENTRY_DELETED)
        slot.count -= 1
        slot.chunk.deleted += 1
        self.length -= 1
        if slot.count == 0:
            self.allocated -= slot.bytes
            free(slot.chunk)
            self.drop_slots(k, 1)

    cdef bint delete(self, StreamId id) noexcept:
        """Removes one entry; whether it was there."""
        cdef StreamWalk walk
        if not self.find_entry(id, &walk):
            return False
        self.bury(walk.slot - (self.directory + self.head), walk.entry)
        if compare_ids(id, self.max_deleted) > 0:
            self.max_deleted = id
        return True

    cdef StreamChunks trim(self, StreamId until):
        """Removes all entries up to this id, included. Returns what is left to free, for the cleanup thread, or None."""
        cdef StreamSlot* slots = self.directory + self.head
        cdef Py_ssize_t n = 0, high = self.count, middle, k
        cdef StreamChunks detached
        cdef StreamWalk walk
        while n < high:
            middle = (n + high) >> 1
            if compare_ids(slots[middle].chunk.last, until) <= 0:
                n = middle + 1
            else:
                high = middle
        detached = self.detach(n)
        if detached is None:
            for k in range(n):
                self.length -= slots[k].count
                self.allocated -= slots[k].bytes
                free(slots[k].chunk)
        self.drop_slots(0, n)
        if self.count:
            walk = entries_from(self, self.directory[self.head].first)
            walk.slots_end = walk.slot + 1
            n = self.count
            while self.count == n and next_entry(&walk) and compare_ids(walk.id, until) <= 0:
                if not walk.flags & ENTRY_DELETED:
                    self.bury(0, walk.entry)
        return detached

    cdef StreamChunks detach(self, Py_ssize_t n):
        """The first `n` chunks on their own, their slots still here; None when they are few, or there is no
        memory for that. What they had is subtracted."""
        cdef StreamChunks other
        cdef Py_ssize_t k
        if n < DETACH_CHUNKS:
            return None
        try:
            other = StreamChunks.__new__(StreamChunks)
        except MemoryError:
            return None
        other.directory = <StreamSlot*> kache_malloc(n * sizeof(StreamSlot))
        if other.directory == NULL:
            return None
        memcpy(other.directory, self.directory + self.head, n * sizeof(StreamSlot))
        other.room = other.count = n
        for k in range(n):
            other.length += other.directory[k].count
            other.allocated += other.directory[k].bytes
        self.length -= other.length
        self.allocated -= other.allocated
        return other

    cdef bint may_be(self, StreamId last, uint64_t added) noexcept:
        """Whether the last id could be this one, and so many entries could have been added."""
        cdef StreamId id
        return added >= self.length and (not self.last_living(&id) or compare_ids(id, last) <= 0)

    cdef void let_last(self, StreamId last) noexcept:
        """The last id is this one from now on, not smaller than that of any living entry. Tombstones beyond it go: what is
        added next may have a smaller id."""
        cdef StreamChunk* chunk
        cdef StreamWalk walk
        cdef const char* end
        cdef uint32_t dead = 0
        self.last = last
        if self.count == 0 or compare_ids(self.directory[self.head + self.count - 1].chunk.last, last) <= 0:
            return
        chunk = self.directory[self.head + self.count - 1].chunk
        walk = entries_from(self, chunk.first)
        end = walk.at
        while next_entry(&walk):
            if walk.flags & ENTRY_DELETED:
                dead += 1
            else:
                chunk.last, chunk.deleted, end = walk.id, dead, walk.at
        chunk.size = <uint32_t> (end - chunk_entries(chunk))

    # Whole ones -----------------------------------------------------------------------------------------
    cdef int take_copy(self, StreamChunks other) except -1:
        """The chunks of another one are copied into this one, which has none: one memcpy each."""
        cdef Py_ssize_t k
        cdef StreamChunk* chunk
        cdef StreamChunk* made
        cdef size_t n
        if other.count:
            self.directory = <StreamSlot*> kache_malloc(other.count * sizeof(StreamSlot))
            if self.directory == NULL:
                raise MemoryError("no memory for a copy")
            self.room = other.count
        for k in range(other.count):
            chunk = other.directory[other.head + k].chunk
            n = sizeof(StreamChunk) + chunk.size
            made = <StreamChunk*> kache_malloc(n)
            if made == NULL:
                raise MemoryError("no memory for a copy")
            memcpy(made, chunk, n)
            self.directory[k] = other.directory[other.head + k]
            self.directory[k].bytes = 0
            self.place_chunk(self.directory + k, made)
            self.count = k + 1
        self.length, self.added, self.next_serial = other.length, other.added, other.next_serial
        self.last, self.max_deleted = other.last, other.max_deleted
        return 0

    cdef Py_ssize_t release_chunks(self, Py_ssize_t count) noexcept nogil:
        """Frees chunks from the last one on until about `count` entries are freed, or all; what it cost, in entries."""
        cdef Py_ssize_t cost = 0
        cdef StreamSlot* slot
        while self.count and cost < count:
            self.count -= 1
            slot = self.directory + self.head + self.count
            cost += slot.count + 8 + (slot.bytes >> 10)
            self.length -= slot.count
            free(slot.chunk)
        return cost

    def release_some(self, Py_ssize_t count):
        """Frees about `count` entries without the GIL; True while something is left."""
        with nogil:
            self.release_chunks(count)
        return self.count > 0

    cdef int check_chunks(self) except -1:
        """Asserts every invariant of the entries."""
        cdef Py_ssize_t k
        cdef int64_t allocated = 0
        cdef uint64_t length = 0, serial = 0
        cdef StreamId before
        cdef bint any = False
        before.ms = before.seq = 0
        assert self.head + self.count <= self.room
        for k in range(self.count):
            assert self.directory[self.head + k].bytes == kache_block_size(self.directory[self.head + k].chunk)
            allocated += self.directory[self.head + k].bytes
            assert self.directory[self.head + k].chunk.serial > serial, "chunks out of order"
            serial = self.directory[self.head + k].chunk.serial
            length += check_chunk(self.directory + self.head + k, &before, &any)
        assert serial < self.next_serial, "a number that was not given out"
        assert length == self.length, f"{length} entries, the stream says {self.length}"
        assert allocated == self.allocated, f"{allocated} bytes, the stream says {self.allocated}"
        assert not any or compare_ids(before, self.last) <= 0, "an entry behind the last id"
        assert self.added >= self.length, "fewer entries added than there are"
        return 0


cdef uint64_t check_chunk(StreamSlot* slot, StreamId* before, bint* any) except? 0:
    """How many entries live in the chunk; `before` is the id of the last entry of those before it, if there is any."""
    cdef StreamWalk walk
    cdef StreamChunk* chunk = slot.chunk
    cdef uint32_t living = 0, dead = 0
    cdef PairWalk pairs
    memset(&walk, 0, sizeof(walk))
    walk.slot = slot
    walk.slots_end = slot + 1
    begin_chunk(&walk)
    assert compare_ids(slot.first, chunk.first) == 0, "the directory says another id"
    assert chunk.size <= room_of(slot) and slot.count > 0, "a chunk that should not be"
    assert not chunk_entries(chunk)[0] & SAME_FIELDS, "the first entry of a chunk without names"
    while next_entry(&walk):
        assert not any[0] or compare_ids(walk.id, before[0]) > 0, "ids out of order"
        any[0] = True
        before[0] = walk.id
        pairs = pairs_of(&walk)
        while next_pair(&pairs):
            pass
        assert pairs.at == walk.payload_end, "a payload of another size"
        if walk.flags & ENTRY_DELETED:
            dead += 1
        else:
            living += 1
    assert walk.at == walk.end and compare_ids(walk.id, chunk.last) == 0, "a chunk of another size"
    assert (living, dead) == (slot.count, chunk.deleted), "entries counted wrong"
    return living
