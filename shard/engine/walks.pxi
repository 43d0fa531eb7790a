# Reading a whole database: a key by chance, a scan, all of them.

cdef extern from *:
    """
    /* A load whose value nobody waits for. The prefetch instruction would be the obvious one, but it is dropped when the
       page is not in the processor's address cache, which is the usual case here. */
    static inline void kache_fetch(const void *at) { __asm__ volatile("" : : "r" (*(const volatile char *) at)); }
    /* Of what lies so close together that its page is there: it holds nothing up. */
    static inline void kache_prefetch(const void *at) { __builtin_prefetch(at); }
    """
    void kache_fetch(const void* at) noexcept nogil
    void kache_prefetch(const void* at) noexcept nogil

cdef object random_key(Store store, int db):
    """A living key, each with nearly the same chance, or None."""
    cdef Database* database = &store.databases[db]
    cdef uint64_t drawn
    cdef uint32_t group, slot, tries
    cdef Entry* entry
    cdef Place place
    for tries in range(1000):
        if database.count == 0:
            return None
        drawn = below(database.count)
        group = slot = 0
        while drawn >= database.counts[group]:
            drawn -= database.counts[group]
            group += 1
        slot = group << GROUP_SHIFT
        while drawn >= database.slots[slot].count:
            drawn -= database.slots[slot].count
            slot += 1
        entry = table_random(&database.slots[slot])
        if not is_due(store, entry):
            return key_bytes(entry)
        store.place_of_entry(&place, database, entry)
        store.expire_entry(&place, store.word_of(&place))
    # Nearly everything is past its deadline: any living key will do.
    following, found, _ = scan_database(store, db, 0, 1000, -1, SLOT_COUNT - 1)
    while not found and following:
        following, found, _ = scan_database(store, db, following, 1000, -1, SLOT_COUNT - 1)
    return found[0] if found else None


cdef inline bint is_due(Store store, Entry* entry) noexcept:
    return entry.flags & HAS_TTL and entry_deadline(entry) <= store.now_ms


cdef tuple scan_database(Store store, int db, uint64_t cursor, Py_ssize_t count, int type, uint32_t last):
    """(next cursor, keys, what is left of `count`) of `Keyspace.scan`; `type` -1 takes every one."""
    cdef Database* database = &store.databases[db]
    cdef list found = []
    cdef uint64_t slot = cursor >> SCAN_BITS, start = cursor & (((<uint64_t> 1) << SCAN_BITS) - 1)
    cdef Py_ssize_t left = count
    cdef Table* table
    if database.slots == NULL:
        return 0, found, left
    while slot <= last:
        if start == 0 and not slot & 63 and database.counts[slot >> GROUP_SHIFT] == 0:
            slot += 64
            continue
        table = &database.slots[slot]
        if table.count:
            # What a filter leaves out counts as looked at, so that a rare type cannot cost a whole pass.
            start = scan_table(table, start, &left, found, False, type, store.now_ms)
            if not start >> SCAN_BITS:
                return (slot << SCAN_BITS) | start, found, left
        start = 0
        slot += 1
        if left <= 0 and slot <= last:
            return slot << SCAN_BITS, found, left
    return 0, found, left


cdef list every_key(Store store, int db):
    cdef Database* database = &store.databases[db]
    cdef list found = []
    cdef uint32_t slot
    cdef Walk walk
    cdef Entry* entry
    for slot in range(SLOT_COUNT if database.count else 0):
        if database.slots[slot].count == 0:
            continue
        walk = table_walk(&database.slots[slot])
        while True:
            entry = walk_next(&walk)
            if entry == NULL:
                break
            if not is_due(store, entry):
                found.append(key_bytes(entry))
    return found
