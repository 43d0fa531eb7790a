"""One key with its value, or one field of a hash, or one member of a set: a single block of memory.

    header 8 bytes            u32 clock | u8 flags (type in the low three bits) | u8 key size | u16 value size
    [ sizes 8 bytes ]         WIDE: u32 key size, u32 value size; the header's are not used
    [ time 12 bytes ]         HAS_TTL: i64 deadline (unix ms), u32 place in the heap of deadlines
    key | value               a string's bytes, PACKED: those of a small collection, or the address of a Python object

A key of 16 and a value of 32 bytes are a block of 56 bytes (blocks.pyx). The clock is the LRU or LFU clock
(evict.pxi). A value grown by APPEND keeps the room that its block has.

All of it is inline: nothing here is a call for whoever reads or makes an entry. The table that holds an entry owns its
block and frees it.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from .memory cimport kache_block_size, kache_malloc

cdef extern from *:
    """
    #define KACHE_MAX_BLOCK 2147483647
    """
    const size_t MAX_BLOCK "KACHE_MAX_BLOCK"    # of key and value together: their sizes are stored in 32 bits

cdef enum:
    TYPE_STRING = 0
    TYPE_LIST = 1
    TYPE_HASH = 2
    TYPE_SET = 3
    TYPE_ZSET = 4
    TYPE_STREAM = 5
    TYPE_MASK = 7
    HAS_TTL = 8
    WIDE = 16           # key longer than 255 or value longer than 65535 bytes
    RAW = 32            # a string that was grown in place: OBJECT ENCODING says "raw"
    INTSET = 32         # a packed set of integers only
    PACKED = 64         # a collection whose value is its bytes (packed.pxd)

cdef struct Entry:
    uint32_t clock
    uint8_t flags
    uint8_t key_size
    uint16_t value_size


cdef inline size_t entry_key_size(Entry* entry) noexcept nogil:
    return entry.key_size if not entry.flags & WIDE else (<uint32_t*> (entry + 1))[0]


cdef inline size_t entry_value_size(Entry* entry) noexcept nogil:
    return entry.value_size if not entry.flags & WIDE else (<uint32_t*> (entry + 1))[1]


cdef inline size_t head_size(uint8_t flags) noexcept nogil:
    return 8 + (8 if flags & WIDE else 0) + (12 if flags & HAS_TTL else 0)


cdef inline char* entry_key(Entry* entry) noexcept nogil:
    return <char*> entry + head_size(entry.flags)


cdef inline char* entry_value(Entry* entry) noexcept nogil:
    return entry_key(entry) + entry_key_size(entry)


cdef inline char* entry_time(Entry* entry) noexcept nogil:
    return <char*> entry + (16 if entry.flags & WIDE else 8)


cdef inline int64_t entry_deadline(Entry* entry) noexcept nogil:
    """Unix ms, or 0 for none."""
    cdef int64_t deadline
    if not entry.flags & HAS_TTL:
        return 0
    memcpy(&deadline, entry_time(entry), 8)
    return deadline


cdef inline void entry_set_deadline(Entry* entry, int64_t deadline) noexcept nogil:
    memcpy(entry_time(entry), &deadline, 8)


cdef inline uint32_t entry_heap_place(Entry* entry) noexcept nogil:
    cdef uint32_t place
    memcpy(&place, entry_time(entry) + 8, 4)
    return place


cdef inline void entry_set_heap_place(Entry* entry, uint32_t place) noexcept nogil:
    memcpy(entry_time(entry) + 8, &place, 4)


cdef inline void entry_set_value_size(Entry* entry, size_t n) noexcept nogil:
    if entry.flags & WIDE:
        (<uint32_t*> (entry + 1))[1] = <uint32_t> n
    else:
        entry.value_size = <uint16_t> n


cdef inline bint holds_object(Entry* entry) noexcept nogil:
    """Whether the value is a reference to a collection."""
    return entry.flags & TYPE_MASK and not entry.flags & PACKED


cdef inline PyObject* entry_object(Entry* entry) noexcept nogil:
    """The collection an entry holds; borrowed."""
    cdef PyObject* value
    memcpy(&value, entry_value(entry), sizeof(value))
    return value


cdef inline size_t entry_memory(Entry* entry) noexcept nogil:
    return kache_block_size(entry)


cdef inline Entry* entry_new(
    const char* key, size_t key_size, const char* value, size_t value_size, uint8_t flags, uint32_t clock, size_t room
) noexcept nogil:
    """A new block, with room for a value of `room` bytes; NULL without memory. With HAS_TTL the time is not set."""
    cdef Entry* entry
    flags &= ~WIDE
    if key_size > 255 or value_size > 65535 or room > 65535:
        flags |= WIDE
    if room < value_size:
        room = value_size
    entry = <Entry*> kache_malloc(head_size(flags) + key_size + room)
    if entry == NULL:
        return NULL
    entry.clock = clock
    entry.flags = flags
    if flags & WIDE:
        entry.key_size = 0
        entry.value_size = 0
        (<uint32_t*> (entry + 1))[0] = <uint32_t> key_size
        (<uint32_t*> (entry + 1))[1] = <uint32_t> value_size
    else:
        entry.key_size = <uint8_t> key_size
        entry.value_size = <uint16_t> value_size
    memcpy(entry_key(entry), key, key_size)
    if value_size and value != NULL:
        memcpy(entry_value(entry), value, value_size)
    return entry


cdef inline size_t entry_room(Entry* entry) noexcept nogil:
    """Bytes a value can have in this block."""
    cdef size_t room = kache_block_size(entry) - head_size(entry.flags) - entry_key_size(entry)
    if not entry.flags & WIDE and room > 65535:
        return 65535
    return room


cdef inline bytes key_bytes(Entry* entry):
    return PyBytes_FromStringAndSize(entry_key(entry), entry_key_size(entry))


cdef inline bytes value_bytes(Entry* entry):
    return PyBytes_FromStringAndSize(entry_value(entry), entry_value_size(entry))
