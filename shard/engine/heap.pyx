"""Deadlines: a binary heap of (deadline, entry) whose entries know their place in it.

So a deadline is changed or removed in O(log n) and nothing stale is ever in the heap. A database has many small heaps,
one per group of slots; a hash whose fields have deadlines has one of its own.

Owns the array of a heap, never the entries; whoever owns the heap frees its array. Adding takes two steps, room and then
the entry, so that what may fail for want of memory comes before anything is changed. `memory` is the owner's account.
"""

from .entry cimport HAS_TTL, entry_deadline
from .memory cimport free, kache_realloc


cdef void heap_up(Heap* heap, uint32_t place, Due item) noexcept nogil:
    cdef uint32_t parent
    while place:
        parent = (place - 1) >> 1
        if heap.items[parent].deadline <= item.deadline:
            break
        heap_put(heap, place, heap.items[parent])
        place = parent
    heap_put(heap, place, item)


cdef void heap_down(Heap* heap, uint32_t place, Due item) noexcept nogil:
    cdef uint32_t child
    while True:
        child = 2 * place + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and heap.items[child + 1].deadline < heap.items[child].deadline:
            child += 1
        if heap.items[child].deadline >= item.deadline:
            break
        heap_put(heap, place, heap.items[child])
        place = child
    heap_put(heap, place, item)


cdef int heap_room(Heap* heap, int64_t* memory) noexcept nogil:
    """Makes sure of one more place. 0, or -1 without memory."""
    cdef uint32_t capacity
    cdef Due* items
    if heap.count < heap.capacity:
        return 0
    capacity = heap.capacity + heap.capacity // 2 if heap.capacity else 4
    items = <Due*> kache_realloc(heap.items, capacity * sizeof(Due))
    if items == NULL:
        return -1
    memory[0] += <int64_t> ((capacity - heap.capacity) * sizeof(Due))
    heap.items = items
    heap.capacity = capacity
    return 0


cdef void heap_remove(Heap* heap, Entry* entry, int64_t* memory) noexcept nogil:
    cdef uint32_t place = entry_heap_place(entry)
    cdef Due last
    heap.count -= 1
    last = heap.items[heap.count]
    if place != heap.count:
        if place and heap.items[(place - 1) >> 1].deadline > last.deadline:
            heap_up(heap, place, last)
        else:
            heap_down(heap, place, last)
    if heap.count == 0 or (heap.capacity >= 64 and heap.count * 4 < heap.capacity):
        heap_fit(heap, memory)


cdef void heap_fit(Heap* heap, int64_t* memory) noexcept nogil:
    """Gives back what a heap that shrank does not need."""
    cdef uint32_t capacity = heap.count * 2
    cdef Due* items = NULL
    if heap.count == 0:
        free(heap.items)
    else:
        items = <Due*> kache_realloc(heap.items, capacity * sizeof(Due))
        if items == NULL:
            return
    memory[0] -= <int64_t> ((heap.capacity - capacity) * sizeof(Due))
    heap.items = items
    heap.capacity = capacity


cdef void heap_change(Heap* heap, Entry* entry, int64_t deadline) noexcept nogil:
    cdef uint32_t place = entry_heap_place(entry)
    cdef Due item
    item.deadline = deadline
    item.entry = entry
    entry_set_deadline(entry, deadline)
    if place and heap.items[(place - 1) >> 1].deadline > deadline:
        heap_up(heap, place, item)
    else:
        heap_down(heap, place, item)


cdef int heap_check(Heap* heap) except -1:
    """Asserts every invariant of the heap."""
    cdef uint32_t i
    for i in range(heap.count):
        assert heap.items[i].entry.flags & HAS_TTL, "an entry without a deadline is in the heap"
        assert entry_heap_place(heap.items[i].entry) == i, "an entry has the wrong place"
        assert entry_deadline(heap.items[i].entry) == heap.items[i].deadline, "deadlines differ"
        assert i == 0 or heap.items[(i - 1) >> 1].deadline <= heap.items[i].deadline, "the heap is out of order"
    return 0
