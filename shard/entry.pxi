# One key with its value in one block of memory: a header of eight bytes, then what the flags say, then the bytes.
#
#   | clock 4 | kind 1 | klen 1 | vlen 2 |  [ klen 4 | vlen 4 ]  [ heap index 4 | 4 ]  key  value
#                                              if WIDE               if HAS_TTL
#
# A key of 16 and a value of 32 bytes take 56 bytes, one 64-byte chunk of the allocator. Strings lie inline;
# the value of a collection is a reference to its Python object. Used for the keys of a database and for the
# fields and members of hashes and sets alike.

cdef enum:
    KIND_STRING = 0
    KIND_LIST = 1
    KIND_HASH = 2
    KIND_SET = 3
    KIND_ZSET = 4
    KIND_MASK = 0x07
    RAW = 0x08           # a string that APPEND, SETRANGE or SETBIT has built (OBJECT ENCODING)
    HAS_TTL = 0x10
    WIDE = 0x20          # key longer than 255 or value longer than 65535 bytes
    HEADER = 8
    CHUNK_OVERHEAD = 8   # what the allocator keeps beside a block

cdef struct Entry:
    uint32_t clock       # LRU: the low 32 bits of the millisecond; LFU: minutes << 16 | counter
    uint8_t kind
    uint8_t klen
    uint16_t vlen


cdef inline Py_ssize_t head_size(const Entry* entry) noexcept nogil:
    cdef Py_ssize_t size = HEADER
    if entry.kind & WIDE:
        size += 8
    if entry.kind & HAS_TTL:
        size += 8
    return size


cdef inline const char* entry_key(const Entry* entry, Py_ssize_t* n) noexcept nogil:
    cdef uint32_t wide
    if entry.kind & WIDE:
        memcpy(&wide, <const char*> entry + HEADER, 4)
        n[0] = wide
    else:
        n[0] = entry.klen
    return <const char*> entry + head_size(entry)


cdef inline char* entry_value(Entry* entry, Py_ssize_t* n) noexcept nogil:
    cdef uint32_t wide
    cdef Py_ssize_t key_size
    cdef const char* key = entry_key(entry, &key_size)
    if entry.kind & WIDE:
        memcpy(&wide, <const char*> entry + HEADER + 4, 4)
        n[0] = wide
    else:
        n[0] = entry.vlen
    return <char*> key + key_size


cdef inline Py_ssize_t entry_footprint(Entry* entry) noexcept nogil:
    """Bytes the allocator has given for it."""
    return <Py_ssize_t> malloc_usable_size(entry) + CHUNK_OVERHEAD


cdef inline PyObject* entry_object(Entry* entry) noexcept nogil:
    """The collection an entry holds; borrowed."""
    cdef PyObject* held
    cdef Py_ssize_t n
    memcpy(&held, entry_value(entry, &n), sizeof(PyObject*))
    return held


cdef inline uint32_t* heap_index(Entry* entry) noexcept nogil:
    return <uint32_t*> (<char*> entry + HEADER + (8 if entry.kind & WIDE else 0))


cdef Entry* new_entry(uint8_t kind, const char* key, Py_ssize_t klen, Py_ssize_t vlen, Py_ssize_t spare, bint timed) except NULL:
    """A block for a key and `vlen` bytes of value, which the caller fills in; `spare` more for growth."""
    cdef Entry* entry
    cdef Py_ssize_t size = HEADER + klen + vlen + spare
    cdef bint wide = klen > 255 or vlen > 65535
    cdef uint32_t number
    if klen > 0x7FFFFFFF or vlen > 0x7FFFFFFF:
        raise MemoryError("a key or value of more than 2 GiB")
    if wide:
        size += 8
    if timed:
        size += 8
    entry = <Entry*> malloc(size)
    if entry == NULL:
        raise MemoryError(f"no memory for a value of {vlen} bytes")
    entry.clock = 0
    entry.kind = kind | (WIDE if wide else 0) | (HAS_TTL if timed else 0)
    if wide:
        entry.klen = 0
        entry.vlen = 0
        number = <uint32_t> klen
        memcpy(<char*> entry + HEADER, &number, 4)
        number = <uint32_t> vlen
        memcpy(<char*> entry + HEADER + 4, &number, 4)
    else:
        entry.klen = <uint8_t> klen
        entry.vlen = <uint16_t> vlen
    memcpy(<char*> entry + head_size(entry), key, klen)
    return entry


cdef inline bint set_value_size(Entry* entry, Py_ssize_t vlen) noexcept nogil:
    """Changes the length of the value inside the block; False when the block's form or size does not allow it."""
    cdef uint32_t number
    cdef Py_ssize_t klen
    cdef const char* key = entry_key(entry, &klen)
    if (key - <const char*> entry) + klen + vlen > <Py_ssize_t> malloc_usable_size(entry):
        return False
    if entry.kind & WIDE:
        number = <uint32_t> vlen
        memcpy(<char*> entry + HEADER + 4, &number, 4)
    elif vlen > 65535:
        return False
    else:
        entry.vlen = <uint16_t> vlen
    return True


# The keyed hash: SipHash-1-3 (Aumasson and Bernstein), so that nobody can choose keys that collide ---------
cdef inline uint64_t rotate(uint64_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (64 - bits))


cdef uint64_t hash_bytes(const uint64_t* seed, const char* data, Py_ssize_t n) noexcept nogil:
    cdef uint64_t v0 = seed[0] ^ <uint64_t> 0x736F6D6570736575ULL
    cdef uint64_t v1 = seed[1] ^ <uint64_t> 0x646F72616E646F6DULL
    cdef uint64_t v2 = seed[0] ^ <uint64_t> 0x6C7967656E657261ULL
    cdef uint64_t v3 = seed[1] ^ <uint64_t> 0x7465646279746573ULL
    cdef uint64_t word
    cdef Py_ssize_t whole = n & ~7
    cdef Py_ssize_t at = 0
    cdef int round
    while at < whole:
        memcpy(&word, data + at, 8)
        at += 8
        v3 ^= word
        v0 += v1; v1 = rotate(v1, 13); v1 ^= v0; v0 = rotate(v0, 32)
        v2 += v3; v3 = rotate(v3, 16); v3 ^= v2
        v0 += v3; v3 = rotate(v3, 21); v3 ^= v0
        v2 += v1; v1 = rotate(v1, 17); v1 ^= v2; v2 = rotate(v2, 32)
        v0 ^= word
    word = 0
    memcpy(&word, data + at, n - whole)
    word |= <uint64_t> (n & 0xFF) << 56
    v3 ^= word
    v0 += v1; v1 = rotate(v1, 13); v1 ^= v0; v0 = rotate(v0, 32)
    v2 += v3; v3 = rotate(v3, 16); v3 ^= v2
    v0 += v3; v3 = rotate(v3, 21); v3 ^= v0
    v2 += v1; v1 = rotate(v1, 17); v1 ^= v2; v2 = rotate(v2, 32)
    v0 ^= word
    v2 ^= 0xFF
    for round in range(3):
        v0 += v1; v1 = rotate(v1, 13); v1 ^= v0; v0 = rotate(v0, 32)
        v2 += v3; v3 = rotate(v3, 16); v3 ^= v2
        v0 += v3; v3 = rotate(v3, 21); v3 ^= v0
        v2 += v1; v1 = rotate(v1, 17); v1 ^= v2; v2 = rotate(v2, 32)
    return v0 ^ v1 ^ v2 ^ v3
