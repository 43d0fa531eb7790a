"""Declarations of the heap of deadlines (see heap.pyx), and what of it is small enough to be inline."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .entry cimport Entry, entry_deadline, entry_heap_place, entry_set_deadline, entry_set_heap_place

cdef enum:
    ADDRESS_BITS = 48
    LAST_STEP = 65535           # of what a word can say about a deadline

cdef extern from *:
    """
    #define KACHE_ADDRESS_MASK 0xFFFFFFFFFFFFULL
    """
    const uint64_t ADDRESS_MASK "KACHE_ADDRESS_MASK"    # ADDRESS_BITS ones

cdef struct Heap:
    uint64_t* words
    uint32_t count
    uint32_t capacity
    int64_t base                # deadline of step 0
    uint32_t beyond             # deadlines that came before or behind the steps since those were chosen
    uint8_t shift               # a step has 1 << shift milliseconds


cdef void heap_up(Heap* heap, uint32_t place, uint64_t word) noexcept nogil
cdef void heap_down(Heap* heap, uint32_t place, uint64_t word) noexcept nogil
cdef int heap_room(Heap* heap, int64_t* memory) noexcept nogil
cdef void heap_remove(Heap* heap, Entry* entry, int64_t* memory) noexcept nogil
cdef void heap_change(Heap* heap, Entry* entry, int64_t deadline) noexcept nogil
cdef int heap_check(Heap* heap) except -1


cdef inline Entry* heap_entry(Heap* heap, uint64_t place) noexcept nogil:
    """The entry at a place below `count`; that at 0 is due first."""
    return <Entry*> (heap.words[place] & ADDRESS_MASK)


cdef inline int64_t heap_soonest(Heap* heap) noexcept nogil:
    """The nearest deadline of a heap that is not empty."""
    return entry_deadline(heap_entry(heap, 0))


cdef inline uint64_t heap_word(Heap* heap, Entry* entry, int64_t deadline) noexcept nogil:
    cdef uint64_t step = 0
    if deadline > heap.base:
        step = (<uint64_t> deadline - <uint64_t> heap.base) >> heap.shift
        if step >= LAST_STEP:
            step = LAST_STEP
            heap.beyond += 1
    elif deadline < heap.base:
        heap.beyond += 1
    return <uint64_t> entry | (step << ADDRESS_BITS)


cdef inline bint heap_before(uint64_t left, uint64_t right) noexcept nogil:
    """Whether the entry of one word is due before that of the other; only within one step do they have to be asked."""
    if left >> ADDRESS_BITS != right >> ADDRESS_BITS:
        return left >> ADDRESS_BITS < right >> ADDRESS_BITS
    return entry_deadline(<Entry*> (left & ADDRESS_MASK)) < entry_deadline(<Entry*> (right & ADDRESS_MASK))


cdef inline void heap_put(Heap* heap, uint32_t place, uint64_t word) noexcept nogil:
    heap.words[place] = word
    entry_set_heap_place(<Entry*> (word & ADDRESS_MASK), place)


cdef inline void heap_add(Heap* heap, Entry* entry, int64_t deadline) noexcept nogil:
    """heap_room was called before; the entry has HAS_TTL."""
    entry_set_deadline(entry, deadline)
    heap.count += 1
    heap_up(heap, heap.count - 1, heap_word(heap, entry, deadline))


cdef inline void heap_moved(Heap* heap, Entry* entry) noexcept nogil:
    """The entry lives in another block now, its time copied."""
    cdef uint32_t place = entry_heap_place(entry)
    heap.words[place] = (heap.words[place] & ~ADDRESS_MASK) | <uint64_t> entry
