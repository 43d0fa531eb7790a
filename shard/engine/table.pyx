"""The hash table of every slot, hash and set: entries in C blocks, found through words.

    Table, small:   flat ──► words:  [ tag|pointer | 0 | tag|pointer | … ]      open addressing, linear probing

    Table, large:   directory ──► [ segment | segment | … ]   2^bits places, by the top bits of the hash;
                                      │                       a segment with fewer bits of its own stands
                                      └► words                in several neighbouring places

    word   16-bit tag (the hash bits below those the directory used) | 48-bit pointer; 0 is an empty place

A place is computed from the tag alone, so growing and deleting never touch an entry; only the split of a full segment
(SEGMENT_FULL entries) reads the keys again. So no operation costs more than that, however many keys there are, and even
when all of them share one slot. The hash is keyed by a seed that the supervisor hands out (memory.pyx), and the order of
a scan is the order of its top 48 bits: a cursor is such a prefix, which stays good while tables grow, shrink, split,
merge and restart.

Owns the words, segments and directory of a table. Its entries belong to whoever owns the table; only `table_free_some`
frees them. Adding takes two steps, `table_room` and then `table_insert`, so that what may fail for want of memory comes
before anything is changed; removing never fails. `memory` is the owner's account.
"""
from libc.stdlib cimport qsort
from libc.string cimport memset

from .entry cimport HAS_TTL, TYPE_MASK, entry_deadline, key_bytes, value_bytes
from .memory cimport below, free, kache_block_size, kache_calloc, kache_malloc, kache_random


cdef enum:
    RESERVED_SEGMENT = 640      # entries of a segment in a table that is divided beforehand: they may be half as many again
    RESERVED_BITS = 18          # so much is divided beforehand at most; each bit more would double 16 MiB


cdef inline uint16_t larger_capacity(uint16_t capacity) noexcept nogil:
    """5, 9, 13, … 33, then 49, 65, 97, … up to 1537: half as much again or a third. Odd, as malloc's blocks are: with
    its own word each is a multiple of 16 bytes."""
    if capacity < SMALLEST_CAPACITY:
        return SMALLEST_CAPACITY
    if capacity < 33:
        return capacity + 4
    if (capacity - 1) & (capacity - 2):
        return (capacity - 1) // 3 * 4 + 1
    return (capacity - 1) // 2 * 3 + 1


cdef inline uint16_t capacity_for(uint32_t count) noexcept nogil:
    """The smallest capacity that is at most three quarters full."""
    cdef uint16_t capacity = SMALLEST_CAPACITY
    while capacity * 3 < <int> count * 4:
        capacity = larger_capacity(capacity)
    return capacity


cdef inline size_t words_size(Segment* segment) noexcept nogil:
    return kache_block_size(segment.words)


cdef int segment_resize(Segment* segment, uint16_t capacity, int64_t* memory) noexcept nogil:
    """0, or -1 without memory; the entries are not touched."""
    cdef uint64_t* words = <uint64_t*> kache_calloc(capacity, 8)
    cdef uint32_t i
    if words == NULL:
        return -1
    for i in range(segment.capacity):
        if segment.words[i]:
            segment_place(words, capacity, segment.words[i])
    memory[0] -= words_size(segment)
    free(segment.words)
    segment.words = words
    segment.capacity = capacity
    memory[0] += words_size(segment)
    return 0


cdef int directory_double(Table* table, int64_t* memory) noexcept nogil:
    """Turns a flat table into one with a directory of two places, or doubles the directory."""
    cdef uint32_t old = <uint32_t> 1 << table.flat.directory_bits if table.directory != NULL else 1
    cdef Segment** places = <Segment**> kache_malloc(2 * old * sizeof(Segment*))
    cdef Segment* first
    cdef uint32_t i
    if places == NULL:
        return -1
    if table.directory == NULL:
        first = <Segment*> kache_malloc(sizeof(Segment))
        if first == NULL:
            free(places)
            return -1
        first[0] = table.flat
        first.bits = 0
        memory[0] += kache_block_size(first)
        memset(&table.flat, 0, sizeof(Segment))
        places[0] = places[1] = first
    else:
        for i in range(old):
            places[2 * i] = places[2 * i + 1] = table.directory[i]
        memory[0] -= kache_block_size(table.directory)
        free(table.directory)
    memory[0] += kache_block_size(places)
    table.directory = places
    table.flat.directory_bits += 1
    return 0


cdef int segment_split(Table* table, uint64_t hash, int64_t* memory) noexcept nogil:
    """Divides the segment of `hash` by its next hash bit. 0, or -1 without memory (nothing is lost then)."""
    cdef Segment* low = segment_of(table, hash)
    cdef Segment* high
    cdef uint64_t* words
    cdef uint64_t* high_words
    cdef uint64_t word, entry_hash
    cdef uint32_t i, first, span
    cdef Entry* entry
    cdef uint16_t capacity
    if table.directory == NULL or low.bits == table.flat.directory_bits:
        if directory_double(table, memory) < 0:
            return -1
        low = segment_of(table, hash)
    capacity = low.capacity
    high = <Segment*> kache_calloc(1, sizeof(Segment))
    words = <uint64_t*> kache_calloc(capacity, 8)
    high_words = <uint64_t*> kache_calloc(capacity, 8)
    if high == NULL or words == NULL or high_words == NULL:
        free(high)
        free(words)
        free(high_words)
        return -1
    high.bits = low.bits + 1
    high.capacity = capacity
    for i in range(low.capacity):
        word = low.words[i]
        if word == 0:
            continue
        entry = <Entry*> (word & POINTER_MASK)
        entry_hash = table_hash(entry_key(entry), entry_key_size(entry))
        word = (word & POINTER_MASK) | (tag_of(entry_hash, high.bits) << POINTER_BITS)
        if (entry_hash << low.bits) >> 63:
            segment_place(high_words, capacity, word)
            high.count += 1
        else:
            segment_place(words, capacity, word)
    memory[0] -= words_size(low)
    free(low.words)
    low.words = words
    low.count -= high.count
    low.bits = high.bits
    high.words = high_words
    memory[0] += words_size(low) + words_size(high) + kache_block_size(high)
    # Half of the places that led to the old segment lead to the new one.
    span = <uint32_t> 1 << (table.flat.directory_bits - low.bits)
    first = <uint32_t> (hash >> (64 - table.flat.directory_bits)) & ~(2 * span - 1)
    for i in range(span):
        table.directory[first + span + i] = high
    segment_resize(low, capacity_for(low.count), memory)
    segment_resize(high, capacity_for(high.count), memory)
    return 0


cdef int table_reserve(Table* table, uint64_t expected, int64_t* memory) noexcept nogil:
    """Divides an empty table for about so many entries. 0, or -1 without memory (then it is as it was).

    Whoever fills it in the order of another table's hashes needs that: in a table that grows meanwhile they would all
    meet in one narrow range. `table_settle` ends the filling.
    """
    cdef uint8_t bits = 0
    cdef uint32_t i, places
    cdef Segment** directory
    if table.count or table.directory != NULL or table.flat.words != NULL:
        return 0
    while expected >> bits > RESERVED_SEGMENT and bits < RESERVED_BITS:
        bits += 1
    if bits == 0:
        return segment_resize(&table.flat, capacity_for(<uint32_t> expected + 1), memory)
    places = <uint32_t> 1 << bits
    directory = <Segment**> kache_calloc(places, sizeof(Segment*))
    if directory == NULL:
        return -1
    for i in range(places):
        directory[i] = <Segment*> kache_calloc(1, sizeof(Segment))
        if directory[i] == NULL:
            while i:
                i -= 1
                free(directory[i])
            free(directory)
            return -1
        directory[i].bits = bits
    for i in range(places):
        memory[0] += kache_block_size(directory[i])
    memory[0] += kache_block_size(directory)
    table.directory = directory
    table.flat.directory_bits = bits
    table.flat.capacity = capacity_for(<uint32_t> min((expected >> bits) + (expected >> bits) // 8, SEGMENT_FULL) + 1)
    return 0


cdef void table_settle(Table* table, int64_t* memory) noexcept nogil:
    """The table is filled: what was reserved and not needed is given back."""
    cdef uint32_t at = 0
    cdef Segment* segment
    if table.directory == NULL:
        return
    table.flat.capacity = 0
    while at < table_places(table):
        segment = table.directory[at]
        at += segment_span(table, segment)
        if segment.count * 4 < segment.capacity:
            segment_resize(segment, capacity_for(segment.count + segment.count // 4), memory)


cdef int table_room(Table* table, uint64_t hash, int64_t* memory) noexcept nogil:
    """Makes sure that an entry with this hash can be inserted. 0, or -1 without memory."""
    cdef Segment* segment = segment_of(table, hash)
    while segment.count >= SEGMENT_FULL and segment.bits < DIRECTORY_BITS:
        if segment_split(table, hash, memory) < 0:
            return -1
        segment = segment_of(table, hash)
    if (segment.count + 1) * 8 > <uint32_t> segment.capacity * 7:
        if segment.capacity >= 32768:
            return -1
        if segment.capacity == 0 and table.directory != NULL and table.flat.capacity:
            return segment_resize(segment, table.flat.capacity, memory)
        return segment_resize(segment, larger_capacity(segment.capacity), memory)
    return 0


cdef void table_remove(Table* table, uint64_t hash, uint64_t* word, int64_t* memory) noexcept nogil:
    """Takes out the entry of this word: followers move up, so that probing needs no marks of the deleted."""
    cdef Segment* segment = segment_of(table, hash)
    cdef uint32_t capacity = segment.capacity
    cdef uint32_t hole = <uint32_t> (word - segment.words)
    cdef uint32_t at = hole, home
    while True:
        at += 1
        if at == capacity:
            at = 0
        if segment.words[at] == 0:
            break
        home = home_of(segment.words[at] >> POINTER_BITS, capacity)
        # It may move into the hole unless its home lies (cyclically) behind the hole.
        if (at - home if at >= home else at + capacity - home) >= (at - hole if at >= hole else at + capacity - hole):
            segment.words[hole] = segment.words[at]
            hole = at
    segment.words[hole] = 0
    segment.count -= 1
    table.count -= 1
    if segment.count * 4 < capacity and (capacity > SMALLEST_CAPACITY or segment.count == 0):
        table_shrink(table, segment, hash, memory)


cdef void table_shrink(Table* table, Segment* segment, uint64_t hash, int64_t* memory) noexcept nogil:
    if table.count == 0:
        table_drop_storage(table, memory)
        return
    if table.directory != NULL and segment.count < SEGMENT_SPARSE // 2 and segment_merge(table, segment, hash, memory):
        return
    if segment.count == 0:
        memory[0] -= words_size(segment)
        free(segment.words)
        segment.words = NULL
        segment.capacity = 0
    else:
        segment_resize(segment, capacity_for(segment.count + segment.count // 4), memory)


cdef bint segment_merge(Table* table, Segment* segment, uint64_t hash, int64_t* memory) noexcept nogil:
    """Joins a sparse segment with its neighbour of the same width. False when that is not possible."""
    cdef uint8_t directory_bits = table.flat.directory_bits
    cdef uint32_t span, first, i
    cdef Segment* other
    cdef Segment* source
    cdef uint64_t* words
    cdef uint64_t word, entry_hash
    cdef uint16_t capacity
    cdef int turn
    cdef Entry* entry
    if segment.bits == 0:
        return False
    span = <uint32_t> 1 << (directory_bits - segment.bits)
    first = <uint32_t> (hash >> (64 - directory_bits)) & ~(span - 1)
    other = table.directory[first ^ span]
    if other.bits != segment.bits or other.count + segment.count >= SEGMENT_SPARSE:
        return False
    capacity = capacity_for(other.count + segment.count + 1)
    words = <uint64_t*> kache_calloc(capacity, 8)
    if words == NULL:
        return False
    for turn in range(2):
        source = other if turn else segment
        for i in range(source.capacity):
            word = source.words[i]
            if word:
                entry = <Entry*> (word & POINTER_MASK)
                entry_hash = table_hash(entry_key(entry), entry_key_size(entry))
                segment_place(words, capacity, <uint64_t> entry | (tag_of(entry_hash, segment.bits - 1) << POINTER_BITS))
    memory[0] -= words_size(segment) + words_size(other) + kache_block_size(other)
    segment.count += other.count
    free(segment.words)
    free(other.words)
    free(other)
    segment.words = words
    segment.capacity = capacity
    segment.bits -= 1
    memory[0] += words_size(segment)
    first &= ~(2 * span - 1)
    for i in range(2 * span):
        table.directory[first + i] = segment
    return True


cdef void table_drop_storage(Table* table, int64_t* memory) noexcept nogil:
    """Frees the words and segments of a table whose entries are gone or owned elsewhere."""
    cdef uint32_t i = 0, places
    cdef Segment* segment
    if table.directory == NULL:
        memory[0] -= words_size(&table.flat)
        free(table.flat.words)
    else:
        places = <uint32_t> 1 << table.flat.directory_bits
        while i < places:
            segment = table.directory[i]
            i += segment_span(table, segment)
            memory[0] -= words_size(segment) + kache_block_size(segment)
            free(segment.words)
            free(segment)
        memory[0] -= kache_block_size(table.directory)
        free(table.directory)
    memset(table, 0, sizeof(Table))


# Sampling ---------------------------------------------------------------------------------------------
cdef Entry* table_random(Table* table) noexcept nogil:
    """An entry, each with nearly the same chance; NULL when there is none."""
    cdef Segment* segment
    cdef uint32_t at, tries
    cdef uint64_t word
    if table.count == 0:
        return NULL
    for tries in range(128):
        # Drawn anew until a taken place is hit: following the empty ones would favour the ends of runs.
        segment = segment_of(table, kache_random())
        if segment.count:
            word = segment.words[below(segment.capacity)]
            if word:
                return <Entry*> (word & POINTER_MASK)
    at = <uint32_t> below(table_places(table))
    while segment_at(table, at).count == 0:
        at = (at + 1) % table_places(table)
    segment = segment_at(table, at)
    at = <uint32_t> below(segment.capacity)
    while segment.words[at] == 0:
        at = at + 1 if at + 1 < segment.capacity else 0
    return <Entry*> (segment.words[at] & POINTER_MASK)


# Scanning -----------------------------------------------------------------------------------------
cdef int compare_found(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const Found*> left).prefix, b = (<const Found*> right).prefix
    return (a > b) - (a < b)


cdef Py_ssize_t table_gather(Table* table, uint64_t start, Found** found, uint64_t* following) noexcept nogil:
    """The entries at and after `start` in the segment that holds that place, in the order of their hash.

    `following` is where the next segment begins, 2^SCAN_BITS after the last. The caller frees `found` (NULL when
    there is nothing). Returns how many, or -1 without memory.
    """
    cdef Segment* segment = segment_of(table, start << (64 - SCAN_BITS))
    cdef uint64_t width = (<uint64_t> 1 << SCAN_BITS) >> segment.bits
    cdef uint64_t prefix
    cdef uint32_t i
    cdef Py_ssize_t n = 0
    cdef Entry* entry
    following[0] = (start & ~(width - 1)) + width
    found[0] = NULL
    if segment.count == 0:
        return 0
    found[0] = <Found*> kache_malloc(segment.count * sizeof(Found))
    if found[0] == NULL:
        return -1
    for i in range(segment.capacity):
        if segment.words[i]:
            entry = <Entry*> (segment.words[i] & POINTER_MASK)
            prefix = table_hash(entry_key(entry), entry_key_size(entry)) >> (64 - SCAN_BITS)
            if prefix >= start:
                found[0][n].prefix = prefix
                found[0][n].entry = entry
                n += 1
    qsort(found[0], n, sizeof(Found), compare_found)
    return n


cdef uint64_t scan_table(
    Table* table, uint64_t start, Py_ssize_t* left, list found, bint with_values, int kind, int64_t now_ms
) except? 0xFFFFFFFFFFFFFFFF:
    """Looks at about `left` keys from place `start` on, whole hashes at a time; returns the place after them.

    `left` is lowered by what was looked at; what passes is appended to `found`. 2^SCAN_BITS is behind the last place.
    `kind` -1 takes every type; `now_ms` 0 takes keys past their deadline too.
    """
    cdef Found* batch = NULL
    cdef uint64_t following = start, last = 0
    cdef Py_ssize_t n, i
    cdef Entry* entry
    while not following >> SCAN_BITS:
        start = following
        n = table_gather(table, start, &batch, &following)
        if n < 0:
            raise MemoryError("no memory for a scan")
        try:
            for i in range(n):
                if left[0] <= 0 and batch[i].prefix != last:
                    return batch[i].prefix
                entry = batch[i].entry
                last = batch[i].prefix
                left[0] -= 1
                if kind >= 0 and (entry.flags & TYPE_MASK) != kind:
                    continue
                if now_ms and entry.flags & HAS_TTL and entry_deadline(entry) <= now_ms:
                    continue
                found.append((key_bytes(entry), value_bytes(entry)) if with_values else key_bytes(entry))
        finally:
            free(batch)
        if left[0] <= 0:
            return following
    return following


# Taking apart -----------------------------------------------------------------------------------------
cdef bint table_free_some(Table* table, Py_ssize_t* count) noexcept nogil:
    """Frees entries of a table that is not searched any more, until `count` is used up. True while some are left."""
    cdef Segment* segment
    cdef uint32_t place = 0
    cdef int64_t ignored = 0
    while place < table_places(table):
        segment = segment_at(table, place)
        place += segment_span(table, segment)
        if segment.count:
            count[0] -= free_words(segment, count[0])
            if segment.count or count[0] <= 0:
                return True
    table_drop_storage(table, &ignored)
    return False


cdef Py_ssize_t free_words(Segment* segment, Py_ssize_t count) noexcept nogil:
    """Frees up to `count` entries of a segment that is not searched any more; how many."""
    cdef Py_ssize_t n = 0
    cdef uint32_t i
    for i in range(segment.capacity):
        if segment.words[i]:
            if n >= count:
                return n
            free(<void*> (segment.words[i] & POINTER_MASK))
            segment.words[i] = 0
            segment.count -= 1
            n += 1
    return n


# Measuring and checking -------------------------------------------------------------------------------
cdef int64_t table_storage(Table* table) noexcept nogil:
    """Bytes of a table beside its entries."""
    cdef int64_t total = kache_block_size(table.directory)
    cdef uint32_t i = 0
    cdef Segment* segment
    while i < table_places(table):
        segment = segment_at(table, i)
        i += segment_span(table, segment)
        total += words_size(segment)
        if table.directory != NULL:
            total += kache_block_size(segment)
    return total


cdef int table_check(Table* table) except -1:
    """Asserts every invariant of the table."""
    cdef uint64_t total = 0, hash
    cdef uint32_t place = 0, i, n
    cdef Segment* segment
    cdef Entry* entry
    while place < table_places(table):
        segment = segment_at(table, place)
        n = 0
        for i in range(segment.capacity):
            if segment.words[i]:
                entry = <Entry*> (segment.words[i] & POINTER_MASK)
                hash = table_hash(entry_key(entry), entry_key_size(entry))
                assert segment_of(table, hash) == segment, "an entry is in the wrong segment"
                assert tag_of(hash, segment.bits) == segment.words[i] >> POINTER_BITS, "a tag is wrong"
                assert table_find(table, hash, entry_key(entry), entry_key_size(entry)) == entry, "not found again"
                n += 1
        assert n == segment.count, "a segment's count is wrong"
        assert n == 0 or n < segment.capacity, "a segment has no empty place"
        total += n
        for i in range(segment_span(table, segment)):
            assert segment_at(table, place + i) == segment, "a place leads to the wrong segment"
        place += segment_span(table, segment)
    assert total == table.count, "the table's count is wrong"
    return 0
