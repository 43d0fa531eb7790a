# LRU in all simulated sizes: one list, from the key used last to the one used least recently, in which each cache has the keys up
# to its edge (what a smaller one has a larger one has, too; Mattson et al., 1970).
#
#   head ─► a ─► b ─► c ─► d ─► e ─► f ─► g ─► tail          zone of c and d: the second size; of what is in no cache: SIZES
#                ▲ edge of the smallest    ▲ of the next
#
# A key that is larger than a whole cache is in the larger ones alone.

cdef enum:
    LRU_LINK = QUEUED           # its place among a key's links


cdef inline void move_edges(Recency* lru, Known* known, uint16_t id, int until) noexcept nogil:
    """The edges of the sizes up to `until` that are at this key move on to the last key before it that the size has."""
    cdef uint16_t before
    cdef int k
    for k in range(until):
        if lru.edges[k] == id:
            before = known[id].prev[LRU_LINK]
            while before != NONE and known[before].zone > k:
                before = known[before].prev[LRU_LINK]
            lru.edges[k] = before


cdef inline void lru_unlink(Recency* lru, Known* known, uint16_t id) noexcept nogil:
    cdef uint16_t before = known[id].prev[LRU_LINK], after = known[id].next[LRU_LINK]
    cdef int k
    move_edges(lru, known, id, SIZES)
    for k in range(known[id].zone, SIZES):
        lru.bytes[k] -= known[id].size
    if before != NONE:
        known[before].next[LRU_LINK] = after
    else:
        lru.head = after
    if after != NONE:
        known[after].prev[LRU_LINK] = before
    else:
        lru.tail = before


cdef void lru_drop(Recency* lru, Known* known, uint16_t id) noexcept nogil:
    """It is in no cache any more."""
    if known[id].zone < SIZES:
        lru_unlink(lru, known, id)
        known[id].zone = SIZES


cdef void lru_shrink(Recency* lru, Known* known, int k) noexcept nogil:
    """Evicts from one size what is too much; a smaller one that still has such a key loses it, too."""
    cdef uint16_t id
    cdef int zone, each
    while lru.bytes[k] > lru.capacity[k]:
        id = lru.edges[k]
        zone = known[id].zone
        if zone <= PRESENT_SIZE <= k:
            lru.evicted_bytes += known[id].size
            if not known[id].flags & WAS_READ:
                lru.evicted_unread += known[id].size
        if k == SIZES - 1:
            lru_drop(lru, known, id)
            continue
        for each in range(zone, k + 1):
            lru.bytes[each] -= known[id].size
        known[id].zone = <uint8_t> (k + 1)
        move_edges(lru, known, id, k + 1)


cdef void lru_touch(Recency* lru, Known* known, uint16_t id) noexcept nogil:
    """It is used, or comes: the first of the list."""
    cdef int lowest = 0, k
    while lowest < SIZES and known[id].size > lru.capacity[lowest]:
        lowest += 1
    if lru.head == id and known[id].zone == lowest:
        return
    if known[id].zone > PRESENT_SIZE:
        known[id].flags &= ~<uint8_t> WAS_READ
    lru_drop(lru, known, id)
    if lowest == SIZES:
        return
    known[id].zone = <uint8_t> lowest
    known[id].prev[LRU_LINK] = NONE
    known[id].next[LRU_LINK] = lru.head
    if lru.head != NONE:
        known[lru.head].prev[LRU_LINK] = id
    else:
        lru.tail = id
    lru.head = id
    for k in range(lowest, SIZES):
        lru.bytes[k] += known[id].size
        if lru.edges[k] == NONE:
            lru.edges[k] = id
    for k in range(lowest, SIZES):
        lru_shrink(lru, known, k)


cdef void lru_outgrow(Recency* lru, Known* known, uint16_t id, uint32_t size) noexcept nogil:
    """It leaves those that are smaller than what it is going to be."""
    while known[id].zone < SIZES and size > lru.capacity[known[id].zone]:
        if known[id].zone == SIZES - 1:
            lru_drop(lru, known, id)
            return
        lru.bytes[known[id].zone] -= known[id].size
        known[id].zone += 1
        move_edges(lru, known, id, known[id].zone)


cdef void lru_resize(Recency* lru, Known* known, uint16_t id, int64_t change) noexcept nogil:
    """Its size has changed by so much."""
    cdef int k
    for k in range(known[id].zone, SIZES):
        lru.bytes[k] += change
    for k in range(SIZES):
        lru_shrink(lru, known, k)
