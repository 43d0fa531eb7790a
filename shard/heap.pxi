# Deadlines: min-heaps of (deadline, entry) with four children per node.
#
# An entry knows its place in its heap, so a changed or removed deadline leaves nothing stale behind and no heap is
# ever rebuilt. A database has many small heaps, one per group of slots; a hash with field TTLs has one of its own.

cdef struct Deadline:
    int64_t when                 # unix ms
    Entry* entry

cdef struct Heap:
    Deadline* nodes
    uint32_t count
    uint32_t capacity


cdef inline void heap_place(Heap* heap, uint32_t at, Deadline node) noexcept nogil:
    heap.nodes[at] = node
    heap_index(node.entry)[0] = at


cdef void heap_up(Heap* heap, uint32_t at) noexcept nogil:
    cdef Deadline node = heap.nodes[at]
    cdef uint32_t parent
    while at:
        parent = (at - 1) >> 2
        if heap.nodes[parent].when <= node.when:
            break
        heap_place(heap, at, heap.nodes[parent])
        at = parent
    heap_place(heap, at, node)


cdef void heap_down(Heap* heap, uint32_t at) noexcept nogil:
    cdef Deadline node = heap.nodes[at]
    cdef uint32_t child, least, i
    while True:
        child = 4 * at + 1
        if child >= heap.count:
            break
        least = child
        for i in range(child + 1, min(child + 4, heap.count)):
            if heap.nodes[i].when < heap.nodes[least].when:
                least = i
        if node.when <= heap.nodes[least].when:
            break
        heap_place(heap, at, heap.nodes[least])
        at = least
    heap_place(heap, at, node)


cdef int heap_add(Heap* heap, Entry* entry, int64_t when, int64_t* bytes) except -1:
    """Adds an entry that has room for its index (HAS_TTL)."""
    cdef uint32_t capacity
    cdef Deadline* nodes
    if heap.count == heap.capacity:
        capacity = heap.capacity * 2 if heap.capacity else 4
        nodes = <Deadline*> realloc(heap.nodes, capacity * sizeof(Deadline))
        if nodes == NULL:
            raise MemoryError("no memory for deadlines")
        bytes[0] += <int64_t> ((capacity - heap.capacity) * sizeof(Deadline))
        heap.nodes = nodes
        heap.capacity = capacity
    heap.nodes[heap.count].when = when
    heap.nodes[heap.count].entry = entry
    heap.count += 1
    heap_up(heap, heap.count - 1)
    return 0


cdef void heap_change(Heap* heap, Entry* entry, int64_t when) noexcept nogil:
    cdef uint32_t at = heap_index(entry)[0]
    cdef int64_t before = heap.nodes[at].when
    heap.nodes[at].when = when
    if when < before:
        heap_up(heap, at)
    else:
        heap_down(heap, at)


cdef void heap_remove(Heap* heap, Entry* entry, int64_t* bytes) noexcept nogil:
    cdef uint32_t at = heap_index(entry)[0]
    cdef uint32_t capacity
    cdef Deadline* nodes
    heap.count -= 1
    if at < heap.count:
        heap.nodes[at] = heap.nodes[heap.count]
        heap_index(heap.nodes[at].entry)[0] = at
        heap_down(heap, at)
        heap_up(heap, at)
    if heap.count == 0:
        bytes[0] -= <int64_t> (heap.capacity * sizeof(Deadline))
        free(heap.nodes)
        heap.nodes = NULL
        heap.capacity = 0
    elif heap.capacity > 64 and heap.count < heap.capacity >> 2:
        capacity = heap.capacity >> 1
        nodes = <Deadline*> realloc(heap.nodes, capacity * sizeof(Deadline))
        if nodes != NULL:
            bytes[0] -= <int64_t> ((heap.capacity - capacity) * sizeof(Deadline))
            heap.nodes = nodes
            heap.capacity = capacity


cdef inline int64_t heap_when(Heap* heap, Entry* entry) noexcept nogil:
    return heap.nodes[heap_index(entry)[0]].when


cdef inline void heap_moved(Heap* heap, Entry* entry) noexcept nogil:
    """The entry's block has moved, its index with it."""
    heap.nodes[heap_index(entry)[0]].entry = entry
