# A hash table of entries: one for every slot of a database, one inside every hash and set.
#
#      directory (2^bits pointers, by the top bits of the hash)
#      +-----+-----+-----+-----+          a segment is an open-addressed array of words,
#      |  .  |  .  |  .  |  .  |          at most SEGMENT_LIMIT, linear probing:
#      +--|--+--|--+--|--+--|--+
#         v     +--+--+     v             +--------------------+--------+
#       seg d=2  seg d=1  seg d=2         | 48 bits of pointer | tag 16 |   0: empty
#                                         +--------------------+--------+
#
# hash (64 bits) = | place: 32 bits | … | tag: 16 bits | … |
# A full segment splits by the next bit of `place`; the directory doubles when the segment is as deep as it is.
# So growth never touches more than one segment at a time: no table is ever rehashed as a whole.
# Within a segment an entry's home is the top of its tag, so a segment grows or shrinks without reading a key.
#
# Order: (place, tag) is the order of a scan, and it does not depend on the sizes of anything. Segments split but
# never merge: a scan that stands in a segment can then never have passed over what a merge would bring behind it.

cdef enum:
    FIRST_WORDS_BITS = 2         # 4 words
    SEGMENT_LIMIT_BITS = 10      # 1024 words: a split moves about 900 entries, some 100 microseconds
    DEEPEST_DIRECTORY = 24       # beyond it (never with a keyed hash) segments grow instead of splitting
    TAG_BITS = 16

cdef struct Segment:
    uint32_t count
    uint8_t bits                 # log2 of the number of words
    uint8_t depth                # how many bits of `place` its entries have in common
    uint16_t unused
    uint64_t* words

cdef struct Table:
    Segment** directory          # NULL while bits is 0: then `only` is the one segment
    Segment* only
    uint64_t count
    uint8_t bits


cdef inline uint32_t place_of(uint64_t hash) noexcept nogil:
    return <uint32_t> (hash >> 32)


cdef inline uint32_t tag_of(uint64_t hash) noexcept nogil:
    return <uint32_t> (hash >> 8) & 0xFFFF


cdef inline Entry* word_entry(uint64_t word) noexcept nogil:
    return <Entry*> <uintptr_t> (word & <uint64_t> 0x0000FFFFFFFFFFFFULL)


cdef inline uint64_t make_word(Entry* entry, uint32_t tag) noexcept nogil:
    return <uint64_t> <uintptr_t> entry | (<uint64_t> tag << 48)


cdef inline Segment* segment_of(Table* table, uint64_t hash) noexcept nogil:
    if table.bits:
        return table.directory[place_of(hash) >> (32 - table.bits)]
    return table.only


cdef inline Py_ssize_t segment_bytes(Segment* segment) noexcept nogil:
    return <Py_ssize_t> (sizeof(Segment) + CHUNK_OVERHEAD + CHUNK_OVERHEAD) + (<Py_ssize_t> 8 << segment.bits)


cdef Segment* new_segment(int bits, int depth) except NULL:
    cdef Segment* segment = <Segment*> malloc(sizeof(Segment))
    if segment == NULL:
        raise MemoryError("no memory for a table")
    segment.words = <uint64_t*> calloc(<size_t> 1 << bits, 8)
    if segment.words == NULL:
        free(segment)
        raise MemoryError("no memory for a table")
    segment.count = 0
    segment.bits = <uint8_t> bits
    segment.depth = <uint8_t> depth
    return segment


cdef inline void segment_put(uint64_t* words, int bits, uint64_t word) noexcept nogil:
    """Puts a word where its tag wants it, or behind."""
    cdef uint32_t mask = (<uint32_t> 1 << bits) - 1
    cdef uint32_t at = <uint32_t> (word >> 48) >> (TAG_BITS - bits)
    while words[at]:
        at = (at + 1) & mask
    words[at] = word


cdef int segment_resize(Segment* segment, int bits) except -1:
    cdef uint64_t* words = <uint64_t*> calloc(<size_t> 1 << bits, 8)
    cdef uint32_t i
    if words == NULL:
        raise MemoryError("no memory for a table")
    for i in range(<uint32_t> 1 << segment.bits):
        if segment.words[i]:
            segment_put(words, bits, segment.words[i])
    free(segment.words)
    segment.words = words
    segment.bits = <uint8_t> bits
    return 0


cdef uint64_t* table_find(Table* table, uint64_t hash, const char* key, Py_ssize_t klen) noexcept nogil:
    """The word that holds a key, or NULL. Valid until the next insertion or removal."""
    cdef Segment* segment = segment_of(table, hash)
    cdef uint32_t tag, mask, at
    cdef uint64_t word
    cdef Entry* entry
    cdef const char* other
    cdef Py_ssize_t n
    if segment == NULL:
        return NULL
    tag = tag_of(hash)
    mask = (<uint32_t> 1 << segment.bits) - 1
    at = tag >> (TAG_BITS - segment.bits)
    while True:
        word = segment.words[at]
        if word == 0:
            return NULL
        if word >> 48 == tag:
            entry = word_entry(word)
            other = entry_key(entry, &n)
            if n == klen and memcmp(other, key, klen) == 0:
                return &segment.words[at]
        at = (at + 1) & mask


cdef int table_insert(Table* table, const uint64_t* seed, uint64_t hash, Entry* entry, int64_t* bytes) except -1:
    """Adds an entry whose key is not there. `bytes` gets the change of the table's own memory."""
    cdef Segment* segment = segment_of(table, hash)
    if segment == NULL:
        segment = new_segment(FIRST_WORDS_BITS, 0)
        table.only = segment
        bytes[0] += segment_bytes(segment)
    # Full at 7/8: linear probing with tags stays short until there.
    while segment.count + 1 > (<uint32_t> 7 << segment.bits) >> 3:
        if segment.bits < SEGMENT_LIMIT_BITS or (segment.depth >= DEEPEST_DIRECTORY and segment.bits < TAG_BITS):
            bytes[0] -= segment_bytes(segment)
            segment_resize(segment, segment.bits + 1)
            bytes[0] += segment_bytes(segment)
        elif segment.depth < DEEPEST_DIRECTORY:
            table_split(table, seed, segment, place_of(hash), bytes)
            segment = segment_of(table, hash)
        elif segment.count + 1 < <uint32_t> 1 << segment.bits:
            break
        else:
            raise MemoryError("a table has too many keys of one hash")
    segment_put(segment.words, segment.bits, make_word(entry, tag_of(hash)))
    segment.count += 1
    table.count += 1
    return 0


cdef int table_split(Table* table, const uint64_t* seed, Segment* segment, uint32_t place, int64_t* bytes) except -1:
    """Divides a segment in two by the next bit of its entries' places."""
    cdef int depth = segment.depth + 1
    cdef Segment* zero
    cdef Segment* one
    cdef Segment* into
    cdef Segment** directory
    cdef uint32_t i, first, length
    cdef uint64_t word, hash
    cdef const char* key
    cdef Py_ssize_t n
    if depth > table.bits:
        directory = <Segment**> malloc(sizeof(Segment*) << depth)
        if directory == NULL:
            raise MemoryError("no memory for a table")
        for i in range(<uint32_t> 1 << depth):
            directory[i] = table.directory[i >> 1] if table.bits else table.only
        bytes[0] += <int64_t> (sizeof(Segment*) << depth) - (<int64_t> (sizeof(Segment*) << table.bits) if table.bits else 0)
        free(table.directory)
        table.directory = directory
        table.only = NULL
        table.bits = <uint8_t> depth
    zero = new_segment(segment.bits, depth)
    try:
        one = new_segment(segment.bits, depth)
    except MemoryError:
        free(zero.words)
        free(zero)
        raise
    for i in range(<uint32_t> 1 << segment.bits):
        word = segment.words[i]
        if word:
            key = entry_key(word_entry(word), &n)
            hash = hash_bytes(seed, key, n)
            into = one if (place_of(hash) >> (32 - depth)) & 1 else zero
            segment_put(into.words, into.bits, word)
            into.count += 1
    # Every directory entry of the old segment's prefix; the half with the new bit set gets `one`.
    length = <uint32_t> 1 << (table.bits - depth)
    first = (place >> (32 - depth) & ~<uint32_t> 1) << (table.bits - depth)
    for i in range(length):
        table.directory[first + i] = zero
        table.directory[first + length + i] = one
    bytes[0] += segment_bytes(zero) + segment_bytes(one) - segment_bytes(segment)
    free(segment.words)
    free(segment)
    return 0


cdef void table_remove(Table* table, uint64_t hash, uint64_t* at_word, int64_t* bytes) noexcept nogil:
    """Takes a word out (the entry itself is the caller's) and closes the gap; a sparse segment shrinks."""
    cdef Segment* segment = segment_of(table, hash)
    cdef uint32_t mask = (<uint32_t> 1 << segment.bits) - 1
    cdef uint32_t hole = <uint32_t> (at_word - segment.words)
    cdef uint32_t at = hole, home
    cdef uint64_t* words
    cdef int bits
    while True:
        at = (at + 1) & mask
        if segment.words[at] == 0:
            break
        home = <uint32_t> (segment.words[at] >> 48) >> (TAG_BITS - segment.bits)
        # It may move into the hole unless its home lies (cyclically) behind the hole.
        if ((at - home) & mask) >= ((at - hole) & mask):
            segment.words[hole] = segment.words[at]
            hole = at
    segment.words[hole] = 0
    segment.count -= 1
    table.count -= 1
    if table.count == 0:
        bytes[0] -= table_bytes(table)
        table_release(table)
    elif segment.bits > FIRST_WORDS_BITS and segment.count < (<uint32_t> 1 << segment.bits) >> 3:
        # To half of what it has, not to what it needs: somebody who deletes now may insert soon.
        bits = segment.bits - 1
        words = <uint64_t*> calloc(<size_t> 1 << bits, 8)
        if words == NULL:
            return       # it stays as large as it is
        bytes[0] -= segment_bytes(segment)
        for at in range(mask + 1):
            if segment.words[at]:
                segment_put(words, bits, segment.words[at])
        free(segment.words)
        segment.words = words
        segment.bits = <uint8_t> bits
        bytes[0] += segment_bytes(segment)


cdef inline Segment* table_segment(Table* table, uint32_t index) noexcept nogil:
    """The segment at a place of the directory (or the only one, at 0)."""
    return table.directory[index] if table.bits else table.only


cdef inline uint32_t segment_stride(Table* table, Segment* segment) noexcept nogil:
    """How many places of the directory a segment takes."""
    return <uint32_t> 1 << (table.bits - segment.depth)


cdef Py_ssize_t table_bytes(Table* table) noexcept nogil:
    """The table's own memory, without its entries."""
    cdef Py_ssize_t total = 0
    cdef uint32_t i = 0
    cdef Segment* segment
    if table.bits:
        total = <Py_ssize_t> (sizeof(Segment*) << table.bits)
    while i < <uint32_t> 1 << table.bits:
        segment = table_segment(table, i)
        if segment == NULL:
            break
        total += segment_bytes(segment)
        i += segment_stride(table, segment)
    return total


cdef void table_release(Table* table) noexcept nogil:
    """Frees segments and directory (not the entries)."""
    cdef uint32_t i = 0, stride
    cdef Segment* segment
    while i < <uint32_t> 1 << table.bits:
        segment = table_segment(table, i)
        if segment == NULL:
            break
        stride = segment_stride(table, segment)
        free(segment.words)
        free(segment)
        i += stride
    free(table.directory)
    table.directory = NULL
    table.only = NULL
    table.bits = 0
    table.count = 0


# Scanning: a position is place << 16 | tag, and grows --------------------------------------------------------
cdef enum:
    POSITION_BITS = 48

ctypedef int (*Visitor)(void* context, Entry* entry) except -1


cdef uint64_t table_scan(Table* table, uint64_t position, Py_ssize_t wanted, Visitor visit, void* context) except? 0:
    """Visits the entries from `position` on, about `wanted` of them; returns where to go on, 0 at the end.

    Each step covers a whole range of tags of one segment, so an entry present throughout is visited whatever is
    inserted, removed, split or resized between the steps. The visitor must not change the table.
    """
    cdef Segment* segment
    cdef uint32_t index, i, low, high, step
    cdef Py_ssize_t seen = 0
    cdef uint64_t place
    cdef uint32_t tag
    if table.count == 0:
        return 0
    while True:
        index = <uint32_t> (position >> TAG_BITS) >> (32 - table.bits) if table.bits else 0
        segment = table_segment(table, index)
        low = <uint32_t> position & 0xFFFF
        # As many tags as hold what is still wanted, if tags are spread evenly.
        if segment.count <= wanted - seen or segment.count == 0:
            high = 0x10000
        else:
            step = <uint32_t> ((<uint64_t> (wanted - seen) << TAG_BITS) // segment.count)
            high = low + (step if step else 1)
            if high > 0x10000:
                high = 0x10000
        for i in range(<uint32_t> 1 << segment.bits):
            if segment.words[i]:
                tag = <uint32_t> (segment.words[i] >> 48)
                if low <= tag < high:
                    visit(context, word_entry(segment.words[i]))
                    seen += 1
        if high < 0x10000:
            position = (position & ~<uint64_t> 0xFFFF) | high
        else:
            # The first place behind this segment.
            if segment.depth == 0:
                return 0
            place = ((position >> TAG_BITS) >> (32 - segment.depth)) + 1
            if place >> segment.depth:
                return 0
            position = (place << (32 - segment.depth)) << TAG_BITS
        if seen >= wanted:
            return position


cdef Entry* table_random(Table* table, uint64_t* state) noexcept nogil:
    """An entry, every one of a segment with the same chance; NULL when the table is empty."""
    cdef Segment* segment
    cdef uint64_t word
    if table.count == 0:
        return NULL
    while True:
        segment = table_segment(table, <uint32_t> (next_random(state) >> 32) >> (32 - table.bits) if table.bits else 0)
        # One throw per segment: retrying inside it would favour the entries of sparse ones.
        word = segment.words[<uint32_t> (next_random(state) >> 32) & ((<uint32_t> 1 << segment.bits) - 1)]
        if word:
            return word_entry(word)


cdef inline uint64_t next_random(uint64_t* state) noexcept nogil:
    """xorshift64* (Marsaglia; Vigna 2016): for sampling, not for secrets."""
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * <uint64_t> 2685821657736338717ULL
