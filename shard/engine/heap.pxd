"""Declarations of the heap of deadlines (see heap.pyx), and what of it is small enough to be inline."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .entry cimport Entry, entry_heap_place, entry_set_deadline, entry_set_heap_place

cdef struct Due:
    int64_t deadline
    Entry* entry

cdef struct Heap:
    Due* items
    uint32_t count
    uint32_t capacity


cdef void heap_up(Heap* heap, uint32_t place, Due item) noexcept nogil
cdef void heap_down(Heap* heap, uint32_t place, Due item) noexcept nogil
cdef int heap_room(Heap* heap, int64_t* memory) noexcept nogil
cdef void heap_remove(Heap* heap, Entry* entry, int64_t* memory) noexcept nogil
cdef void heap_change(Heap* heap, Entry* entry, int64_t deadline) noexcept nogil
cdef int heap_check(Heap* heap) except -1


cdef inline Entry* heap_entry(Heap* heap, uint64_t place) noexcept nogil:
    """The entry at a place below `count`; that at 0 is due first."""
    return heap.items[place].entry


cdef inline void heap_put(Heap* heap, uint32_t place, Due item) noexcept nogil:
    heap.items[place] = item
    entry_set_heap_place(item.entry, place)


cdef inline void heap_add(Heap* heap, Entry* entry, int64_t deadline) noexcept nogil:
    """heap_room was called before; the entry has HAS_TTL."""
    cdef Due item
    item.deadline = deadline
    item.entry = entry
    entry_set_deadline(entry, deadline)
    heap.count += 1
    heap_up(heap, heap.count - 1, item)


cdef inline void heap_moved(Heap* heap, Entry* entry) noexcept nogil:
    """The entry lives in another block now, its time copied."""
    heap.items[entry_heap_place(entry)].entry = entry
