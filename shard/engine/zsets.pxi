# Mutators of sorted sets; see keys.pxi. One that becomes empty goes with its key.

cdef ZSet zset_in(Entry* entry):
    """The sorted set of an entry that was just read; None for none."""
    if entry == NULL:
        return None
    if (entry.flags & TYPE_MASK) != TYPE_ZSET:
        raise wrong_type()
    return <ZSet> <object> entry_object(entry)


cdef int zset_put(Store store, Place* place, ZSet value, const char* member, size_t n, double score, int kind) except -2:
    """Gives a member of what `zset_in` said a score: ADDED, RESCORED or SAME."""
    cdef bint observed = store.prepare(place, n + 20)
    cdef int64_t before
    cdef int outcome = ADDED
    store.heavy |= n >= HEAVY
    if value is None:
        value = ZSet()
        value.put(member, n, score)
        store.put_object(place, NULL, TYPE_ZSET, value, 0)
    else:
        before = value.size_in_memory()
        try:
            outcome = value.put(member, n, score)
        finally:
            place.db.memory += value.size_in_memory() - before
        if outcome == SAME:
            return SAME
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            store.begin_elements(RECORD_ZSET_ADD, place)
            store.effects.put_double(score)
            store.effects.put_bytes(member, n)
    return outcome


cdef bint zset_take(Store store, Place* place, ZSet value, const char* member, size_t n) except -1:
    """Removes a member; whether it was there. Maybe the key is gone afterwards, and `value` with it."""
    cdef bint observed = store.prepare(place, n + 10)
    cdef int64_t before = value.size_in_memory()
    if not value.take(member, n):
        return False
    place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        store.note(ZSET_REMOVED, place)
        if store.effects.recording:
            store.begin_elements(RECORD_ZSET_REMOVE, place)
            store.effects.put_bytes(member, n)
    drop_if_empty(store, place, value.table.count)
    return True


cdef list zset_cut(Store store, Place* place, ZSet value, Py_ssize_t start, Py_ssize_t stop, bint wanted, int kind):
    """Removes ranks [start, stop); [(member, score)] of them if that is wanted."""
    cdef bint observed
    cdef int64_t before = value.size_in_memory()
    cdef list removed = value.collect(start, stop, True) if wanted else None
    stop = min(stop, <Py_ssize_t> value.table.count)
    if start >= stop:
        return removed
    # At most everything that the set holds.
    observed = store.prepare(place, value.bytes_used if store.effects.recording else 0)
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            # Told first, since the members are gone afterwards; nothing can fail any more.
            store.begin(RECORD_ZSET_REMOVE, place)
            tell_members(store, value, start, stop, False)
    value.cut(start, stop, False)
    place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    drop_if_empty(store, place, value.table.count)
    return removed


cdef int zset_replace(Store store, Place* place, ZSet fresh, int64_t deadline, int kind) except -1:
    """The key becomes this sorted set, with this deadline (0: none); without members it is deleted."""
    cdef bint observed
    if fresh.table.count == 0:
        key_delete(store, place)
        return 0
    observed = store.prepare(place, fresh.bytes_used + RECORD_OVERHEAD)
    store.put_object(place, store.find(place), TYPE_ZSET, fresh, deadline)
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            store.begin(RECORD_ZSET_REPLACE, place)
            tell_members(store, fresh, 0, fresh.table.count, True)
            if deadline:
                tell_deadline(store, place, deadline)
    return 0


cdef void tell_members(Store store, ZSet value, Py_ssize_t start, Py_ssize_t stop, bint with_scores) noexcept:
    cdef Step[DEEPEST] path
    cdef uint32_t at
    cdef Leaf* leaf = ranks_at(&value.ranks, <uint32_t> start, path, &at)
    cdef Entry* entry
    store.effects.put_number(stop - start)
    while start < stop:
        if at == leaf.count:
            leaf = leaf.next
            at = 0
        entry = leaf.pairs[at].entry
        if with_scores:
            store.effects.put_double(leaf.pairs[at].score)
        store.effects.put_bytes(entry_key(entry), entry_key_size(entry))
        at += 1
        start += 1
