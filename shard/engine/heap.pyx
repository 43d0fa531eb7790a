"""Deadlines: a binary heap of entries that know their place in it.

So a deadline is changed or removed in O(log n) and nothing stale is ever in the heap. A database has many small heaps,
one per group of slots; a hash whose fields have deadlines has one of its own.

    word    u16 step | 48 bits: the address of an entry

A deadline itself is in its entry, once: a word has eight bytes. To compare two without fetching both entries from memory,
a word says in which of 65,536 steps from `base` on the deadline lies, before, within or behind all of them. Steps are never
wrong, only more or less of use; they are chosen anew as the heap grows, and when as many deadlines have come from outside
them as the heap has.

Owns the array of a heap, never the entries; whoever owns the heap frees its array. Adding takes two steps, room and then
the entry, so that what may fail for want of memory comes before anything is changed. `memory` is the owner's account.
"""

from .entry cimport HAS_TTL
from .memory cimport free, kache_realloc

cdef enum:
    SMALL_HEAP = 64
    HEADROOM_BITS = 4       # the steps reach sixteen times as far as the deadlines when they are chosen


cdef void heap_up(Heap* heap, uint32_t place, uint64_t word) noexcept nogil:
    cdef uint32_t parent
    while place:
        parent = (place - 1) >> 1
        if not heap_before(word, heap.words[parent]):
            break
        heap_put(heap, place, heap.words[parent])
        place = parent
    heap_put(heap, place, word)


cdef void heap_down(Heap* heap, uint32_t place, uint64_t word) noexcept nogil:
    cdef uint32_t child
    while True:
        child = 2 * place + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and heap_before(heap.words[child + 1], heap.words[child]):
            child += 1
        if not heap_before(heap.words[child], word):
            break
        heap_put(heap, place, heap.words[child])
        place = child
    heap_put(heap, place, word)


cdef void heap_choose_steps(Heap* heap) noexcept nogil:
    """Steps for the deadlines there are, and for later ones."""
    cdef int64_t last = heap_soonest(heap)
    cdef uint64_t span
    cdef uint32_t i
    heap.base = last
    for i in range(heap.count):
        last = max(last, entry_deadline(heap_entry(heap, i)))
    span = (<uint64_t> last - <uint64_t> heap.base) >> (16 - HEADROOM_BITS)
    heap.shift = 0
    while span:
        span >>= 1
        heap.shift += 1
    for i in range(heap.count):
        heap.words[i] = heap_word(heap, heap_entry(heap, i), entry_deadline(heap_entry(heap, i)))
    heap.beyond = 0


cdef int heap_room(Heap* heap, int64_t* memory) noexcept nogil:
    """Makes sure of one more place. 0, or -1 without memory."""
    cdef uint32_t capacity
    cdef uint64_t* words
    if heap.count < heap.capacity:
        if heap.beyond > heap.count:
            heap_choose_steps(heap)
        return 0
    # A large one grows by an eighth: many of them grow at once, and half of each would be empty.
    capacity = heap.capacity + (heap.capacity // 2 if heap.capacity < SMALL_HEAP else heap.capacity // 8)
    capacity = max(capacity, 4)
    words = <uint64_t*> kache_realloc(heap.words, capacity * sizeof(uint64_t))
    if words == NULL:
        return -1
    memory[0] += <int64_t> ((capacity - heap.capacity) * sizeof(uint64_t))
    heap.words = words
    heap.capacity = capacity
    if heap.count:
        heap_choose_steps(heap)
    return 0


cdef void heap_remove(Heap* heap, Entry* entry, int64_t* memory) noexcept nogil:
    cdef uint32_t place = entry_heap_place(entry)
    cdef uint64_t last
    heap.count -= 1
    last = heap.words[heap.count]
    if place != heap.count:
        if place and heap_before(last, heap.words[(place - 1) >> 1]):
            heap_up(heap, place, last)
        else:
            heap_down(heap, place, last)
    if heap.count == 0 or (heap.capacity >= SMALL_HEAP and heap.count * 4 < heap.capacity):
        heap_fit(heap, memory)


cdef void heap_fit(Heap* heap, int64_t* memory) noexcept nogil:
    """Gives back what a heap that shrank does not need."""
    cdef uint32_t capacity = heap.count * 2
    cdef uint64_t* words = NULL
    if heap.count == 0:
        free(heap.words)
    else:
        words = <uint64_t*> kache_realloc(heap.words, capacity * sizeof(uint64_t))
        if words == NULL:
            return
    memory[0] -= <int64_t> ((heap.capacity - capacity) * sizeof(uint64_t))
    heap.words = words
    heap.capacity = capacity


cdef void heap_change(Heap* heap, Entry* entry, int64_t deadline) noexcept nogil:
    cdef uint32_t place = entry_heap_place(entry)
    cdef uint64_t word
    if heap.beyond > heap.count:
        heap_choose_steps(heap)
    entry_set_deadline(entry, deadline)
    word = heap_word(heap, entry, deadline)
    if place and heap_before(word, heap.words[(place - 1) >> 1]):
        heap_up(heap, place, word)
    else:
        heap_down(heap, place, word)


cdef int heap_check(Heap* heap) except -1:
    """Asserts every invariant of the heap."""
    cdef uint32_t i, beyond = heap.beyond
    cdef Entry* entry
    for i in range(heap.count):
        entry = heap_entry(heap, i)
        assert entry.flags & HAS_TTL, "an entry without a deadline is in the heap"
        assert entry_heap_place(entry) == i, "an entry has the wrong place"
        assert heap_word(heap, entry, entry_deadline(entry)) == heap.words[i], "a word has the wrong step"
        assert i == 0 or entry_deadline(heap_entry(heap, (i - 1) >> 1)) <= entry_deadline(entry), "the heap is out of order"
    heap.beyond = beyond
    return 0
