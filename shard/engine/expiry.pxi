# Active expiry: what is past its deadline goes although nobody asks for it, in slices.

cdef bint expire_group(Store store, Database* db, uint32_t group, int64_t until_ns) except -1:
    """Removes what is due in one group of slots. True when the time was up before that."""
    cdef Heap* heap = &db.heaps[group]
    cdef Place place
    cdef int n = 0
    while heap.count and heap_soonest(heap) <= store.now_ms:
        store.place_of_entry(&place, db, heap_entry(heap, 0))
        store.expire_entry(&place, store.word_of(&place))
        n += 1
        if n & 63 == 0 and monotonic_ns() >= until_ns:
            return True
    return False


cdef bint expire_cycle(Store store, int64_t budget_ns) except -1:
    """Removes keys and fields past their deadline for at most `budget_ns`. True when more are waiting."""
    cdef int64_t until_ns = monotonic_ns() + budget_ns
    cdef int i
    cdef uint32_t group, step
    for i in range(DATABASES):
        if store.databases[i].expires == 0:
            continue
        for step in range(GROUPS):
            group = (store.expire_at + step) % GROUPS
            if expire_group(store, &store.databases[i], group, until_ns):
                store.expire_at = group
                return True
    return expire_fields(store, until_ns)


cdef bint expire_fields(Store store, int64_t until_ns) except -1:
    cdef Place place
    cdef Entry* entry
    cdef bint more
    cdef tuple due
    while store.field_deadlines and store.field_deadlines[0][0] <= store.now_ms:
        if monotonic_ns() >= until_ns:
            return True
        due = heappop(store.field_deadlines)
        if store.field_looks.get(due[1]) != due[0]:
            continue    # an earlier look has come before this one
        del store.field_looks[due[1]]
        store.place_of(&place, due[1][0], due[1][1])
        try:
            entry = store.find(&place)
            more = entry != NULL and (entry.flags & (TYPE_MASK | PACKED)) == TYPE_HASH and (
                purge_fields(store, &place, <FieldTable> <object> entry_object(entry), 512))
        except MemoryError:
            remember_fields(store, &place, due[0])
            raise
        if more:
            remember_fields(store, &place, store.now_ms)
    return False
