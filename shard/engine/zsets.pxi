# Mutators of sorted sets; see keys.pxi. One that becomes empty goes with its key.

cdef Entry* zset_in(Entry* entry) except? NULL:
    """An entry that was just read, NULL for none."""
    if entry != NULL and (entry.flags & TYPE_MASK) != TYPE_ZSET:
        raise wrong_type()
    return entry


cdef int zset_put(
    Store store, Place* place, Entry** held, const char* member, size_t n, double score, int kind, size_t more
) except -2:
    """Gives a member of what `zset_in` said a score, and leaves there what holds it then: ADDED, RESCORED or SAME.
    `more`: about so many bytes will follow, or AS_TABLE."""
    cdef bint observed = store.prepare(place, n + 20)
    cdef int outcome = UNFIT
    store.heavy |= n >= HEAVY
    if more != AS_TABLE and (held[0] == NULL or held[0].flags & PACKED):
        outcome = members_put(store, place, held, member, n, score, more)
    if outcome == UNFIT:
        outcome = tree_put(store, place, held, member, n, score)
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


cdef int tree_put(Store store, Place* place, Entry** held, const char* member, size_t n, double score) except -2:
    """`zset_put` of what is, or becomes, an object."""
    cdef ZSet value = members_unpacked(store, place, held)
    cdef int64_t before = value.size_in_memory()
    if held[0] == NULL:
        value.put(member, n, score)
        hold_object(store, place, held, TYPE_ZSET, value)
        return ADDED
    try:
        return value.put(member, n, score)
    finally:
        place.db.memory += value.size_in_memory() - before


cdef uint32_t zset_length(Entry* entry) noexcept:
    """Members of a sorted set, NULL for none."""
    if entry == NULL:
        return 0
    if entry.flags & PACKED:
        return packed_length(entry)
    return <uint32_t> (<ZSet> <object> entry_object(entry)).table.count


cdef int zset_dropped(Store store, Place* place, Entry** held) except -1:
    """Behind a removal: NULL is held if the key is gone with its last member."""
    cdef uint32_t left = zset_length(held[0])
    if left == 0:
        held[0] = NULL
    return drop_if_empty(store, place, left)


cdef bint zset_take(Store store, Place* place, Entry** held, const char* member, size_t n) except -1:
    """Removes a member; whether it was there. Maybe the key is gone afterwards: then NULL is held."""
    cdef bint observed = store.prepare(place, n + 10)
    cdef const char* found
    cdef ZSet value
    cdef int64_t before
    if held[0].flags & PACKED:
        found = packed_member(held[0], member, n)
        if found == NULL:
            return False
        packed_cut(store, place, held, found - entry_value(held[0]), skip_items(found, 2) - found)
        packed_count_by(held[0], -1)
    else:
        value = <ZSet> <object> entry_object(held[0])
        before = value.size_in_memory()
        if not value.take(member, n):
            return False
        place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        store.note(ZSET_REMOVED, place)
        if store.effects.recording:
            store.begin_elements(RECORD_ZSET_REMOVE, place)
            store.effects.put_bytes(member, n)
    zset_dropped(store, place, held)
    return True


cdef list zset_cut(Store store, Place* place, Entry* entry, Py_ssize_t start, Py_ssize_t stop, bint wanted, int kind):
    """Removes ranks [start, stop); [(member, score)] of them if that is wanted."""
    cdef bint observed, packed = entry.flags & PACKED != 0
    cdef ZSet value = None if packed else <ZSet> <object> entry_object(entry)
    cdef int64_t before
    cdef list removed = None
    stop = min(stop, <Py_ssize_t> zset_length(entry))
    if start >= stop:
        return [] if wanted else None
    # An integer takes no less than a third of its text when it is packed.
    observed = store.prepare(
        place, 0 if not store.effects.recording else 3 * entry_value_size(entry) if packed else value.bytes_used)
    if packed and (wanted or store.effects.recording):
        removed = packed_pairs(entry, <uint32_t> start, <uint32_t> stop)
    elif wanted:
        removed = value.collect(start, stop, True)
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            # Told first, since the members are gone afterwards; nothing can fail any more.
            store.begin(RECORD_ZSET_REMOVE, place)
            if packed:
                tell_names(store, removed)
            else:
                tell_members(store, value, start, stop, False)
    if packed:
        members_cut(store, place, &entry, <uint32_t> start, <uint32_t> stop)
    else:
        before = value.size_in_memory()
        value.cut(start, stop, False)
        place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    zset_dropped(store, place, &entry)
    return removed if wanted else None


cdef int tell_names(Store store, list pairs) except -1:
    cdef bytes member
    store.effects.put_number(len(pairs))
    for member, _ in pairs:
        store.effects.put_bytes(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))
    return 0


cdef int zset_replace(Store store, Place* place, ZSet fresh, int64_t deadline, int kind) except -1:
    """The key becomes this sorted set, with this deadline (0: none); without members it is deleted."""
    cdef bint observed
    cdef Entry* old
    cdef Entry* entry
    if fresh.table.count == 0:
        key_delete(store, place)
        return 0
    observed = store.prepare(place, fresh.bytes_used + RECORD_OVERHEAD)
    old = store.find(place)
    entry = members_packed(store, place, fresh, HAS_TTL if deadline else 0)
    if entry != NULL:
        store.put_entry(place, old, entry, deadline)
    else:
        store.put_object(place, old, TYPE_ZSET, fresh, deadline)
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
