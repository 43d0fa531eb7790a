# The keys that are there when the miniature simulations begin, or sample more of them: they are told of them some at a time, so
# that it is known how many of the shard's keys the sample has.

# How many keys are looked at in a go: some hundred microseconds.
cdef enum:
    LOOKED_AT = 2000


cdef int introduce_keys(Store store) except -1:
    """Tells the simulations of the keys of the sample among some more keys; a key that comes later they see anyway."""
    cdef Py_ssize_t left = LOOKED_AT, n, i
    cdef uint64_t hash, following
    cdef Found* found = NULL
    cdef Database* db
    cdef Entry* entry
    while left > 0 and store.introducing < <uint32_t> store.active * SLOT_COUNT:
        db = &store.databases[store.introducing // SLOT_COUNT]
        if db.slots == NULL or db.slots[store.introducing % SLOT_COUNT].count == 0:
            store.introducing += 1 if db.slots != NULL else SLOT_COUNT
            store.introduce_from = 0    # what was begun may have been emptied since
            left -= 1 if store.introducing % 64 == 0 else 0
            continue
        n = table_gather(&db.slots[store.introducing % SLOT_COUNT], store.introduce_from, &found, &following)
        if n < 0:
            return 0    # without memory it is done later
        for i in range(n):
            entry = found[i].entry
            hash = table_hash(entry_key(entry), entry_key_size(entry))
            if in_sample(hash, store.sampled_below):
                store.miniatures.hold(
                    entry_key(entry), entry_key_size(entry),
                    sample_hash(hash, <int> (store.introducing // SLOT_COUNT)), store.cost_of(entry))
        free(found)
        left -= n
        store.introduce_from = following
        if following >> SCAN_BITS:
            store.introduce_from = 0
            store.introducing += 1
    return 0


cdef inline bint all_introduced(Store store) noexcept:
    return store.introducing >= <uint32_t> store.active * SLOT_COUNT
