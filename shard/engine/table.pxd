"""Declarations of the hash table (see table.pyx), and what of it every command uses, inline."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from .entry cimport Entry, entry_key, entry_key_size
from .memory cimport table_hash

cdef enum:
    SEGMENT_FULL = 1024         # entries at which a segment splits; splitting one costs about 0.1 ms
    SEGMENT_SPARSE = 256        # two neighbours that together hold fewer are merged
    SMALLEST_CAPACITY = 5
    DIRECTORY_BITS = 24
    POINTER_BITS = 48
    SCAN_BITS = 39              # of a hash, the place of a scan: with the 14 of a slot below 2^53, exact in a double

cdef extern from *:
    """
    #define KACHE_POINTER_MASK 0xFFFFFFFFFFFFULL
    """
    const uint64_t POINTER_MASK "KACHE_POINTER_MASK"    # POINTER_BITS ones

cdef struct Segment:
    uint64_t* words
    uint32_t count
    uint16_t capacity
    uint8_t bits                # hash bits consumed by the directory for this segment
    uint8_t directory_bits      # of the table; meaningful in Table.flat only

cdef struct Table:
    Segment flat                # in use while there is no directory; then its capacity is that of the next new segment
    Segment** directory
    uint64_t count


# Finding ----------------------------------------------------------------------------------------------
cdef inline uint32_t home_of(uint64_t tag, uint32_t capacity) noexcept nogil:
    return <uint32_t> ((tag * capacity) >> 16)


cdef inline uint64_t tag_of(uint64_t hash, uint8_t bits) noexcept nogil:
    return (hash << bits) >> POINTER_BITS


cdef inline Segment* segment_of(Table* table, uint64_t hash) noexcept nogil:
    if table.directory == NULL:
        return &table.flat
    return table.directory[hash >> (64 - table.flat.directory_bits)]


cdef inline uint64_t* segment_find(Segment* segment, uint64_t hash, const char* key, size_t n) noexcept nogil:
    """The word of `key`, or NULL."""
    cdef uint64_t tag, word
    cdef uint32_t at
    cdef Entry* entry
    if segment.count == 0:
        return NULL
    tag = tag_of(hash, segment.bits)
    at = home_of(tag, segment.capacity)
    while True:
        word = segment.words[at]
        if word == 0:
            return NULL
        if (word >> POINTER_BITS) == tag:
            entry = <Entry*> (word & POINTER_MASK)
            if entry_key_size(entry) == n and memcmp(entry_key(entry), key, n) == 0:
                return segment.words + at
        at += 1
        if at == segment.capacity:
            at = 0


cdef inline Entry* table_find(Table* table, uint64_t hash, const char* key, size_t n) noexcept nogil:
    cdef uint64_t* word = segment_find(segment_of(table, hash), hash, key, n)
    return NULL if word == NULL else <Entry*> (word[0] & POINTER_MASK)


# Changing ---------------------------------------------------------------------------------------------
cdef int table_reserve(Table* table, uint64_t expected, int64_t* memory) noexcept nogil
cdef void table_settle(Table* table, int64_t* memory) noexcept nogil
cdef int table_room(Table* table, uint64_t hash, int64_t* memory) noexcept nogil
cdef void table_remove(Table* table, uint64_t hash, uint64_t* word, int64_t* memory) noexcept nogil
cdef void table_drop_storage(Table* table, int64_t* memory) noexcept nogil
cdef bint table_free_some(Table* table, Py_ssize_t* count) noexcept nogil


cdef inline void segment_place(uint64_t* words, uint32_t capacity, uint64_t word) noexcept nogil:
    cdef uint32_t at = home_of(word >> POINTER_BITS, capacity)
    while words[at]:
        at += 1
        if at == capacity:
            at = 0
    words[at] = word


cdef inline void table_insert(Table* table, uint64_t hash, Entry* entry) noexcept nogil:
    """Adds an entry whose key is not there; table_room was called for its hash."""
    cdef Segment* segment = segment_of(table, hash)
    segment_place(segment.words, segment.capacity, <uint64_t> entry | (tag_of(hash, segment.bits) << POINTER_BITS))
    segment.count += 1
    table.count += 1


# Walking ----------------------------------------------------------------------------------------------
cdef struct Walk:
    # A walk over the entries of a table that does not change meanwhile.
    Table* table
    uint32_t place      # in the directory
    uint32_t at         # in the segment


cdef inline uint32_t segment_span(Table* table, Segment* segment) noexcept nogil:
    """How many neighbouring places of the directory a segment takes."""
    return <uint32_t> 1 << (table.flat.directory_bits - segment.bits) if table.directory != NULL else 1


cdef inline uint32_t table_places(Table* table) noexcept nogil:
    return <uint32_t> 1 << table.flat.directory_bits if table.directory != NULL else 1


cdef inline Segment* segment_at(Table* table, uint32_t place) noexcept nogil:
    return table.directory[place] if table.directory != NULL else &table.flat


cdef inline Walk table_walk(Table* table) noexcept nogil:
    cdef Walk walk
    walk.table = table
    walk.place = walk.at = 0
    return walk


cdef inline Entry* walk_next(Walk* walk) noexcept nogil:
    cdef Segment* segment
    cdef uint64_t word
    while walk.place < table_places(walk.table):
        segment = segment_at(walk.table, walk.place)
        while walk.at < segment.capacity:
            word = segment.words[walk.at]
            walk.at += 1
            if word:
                return <Entry*> (word & POINTER_MASK)
        walk.at = 0
        walk.place += segment_span(walk.table, segment)
    return NULL


# Gathering ---------------------------------------------------------------------------------------------
cdef struct Found:
    uint64_t prefix     # top SCAN_BITS bits of the hash: the order of a scan
    Entry* entry


cdef Py_ssize_t table_gather(Table* table, uint64_t start, Found** found, uint64_t* following) noexcept nogil


# Sampling, scanning, measuring ------------------------------------------------------------------------
cdef Entry* table_random(Table* table) noexcept nogil
cdef uint64_t scan_table(
    Table* table, uint64_t start, Py_ssize_t* left, list found, bint with_values, int kind, int64_t now_ms
) except? 0xFFFFFFFFFFFFFFFF
cdef int64_t table_storage(Table* table) noexcept nogil
cdef int table_check(Table* table) except -1
