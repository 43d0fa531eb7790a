# Mutators of hashes and sets, whose values are FieldTables; see keys.pxi. One that becomes empty goes with its key.

cdef FieldTable fields_in(Entry* entry, int type):
    """The fields of an entry that was just found, those past their deadline included; None for none."""
    if entry == NULL:
        return None
    if (entry.flags & TYPE_MASK) != type:
        raise wrong_type()
    return <FieldTable> <object> entry_object(entry)


cdef FieldTable fields_of(Store store, Place* place, int type):
    """The fields of the key, which is read; None for none. Those past their deadline are removed first."""
    cdef FieldTable table = fields_in(store.read(place), type)
    if table is None or not table.heap.count or table.heap.items[0].deadline > store.now_ms:
        return table
    store.heavy = True
    purge_fields(store, place, table, 1 << 40)
    return table if table.table.count else None


cdef bint purge_fields(Store store, Place* place, FieldTable table, Py_ssize_t limit) except -1:
    """Removes fields of a hash past their deadline, at most `limit`. True when more are waiting."""
    cdef bint observed = store.prepare(place, 0)
    cdef int64_t before = table.bytes_used
    cdef Py_ssize_t n = table.purge(store.now_ms, limit)
    place.db.memory += table.bytes_used - before
    if n:
        store.expired_fields += n
        store.dirty += 1
        if observed:
            store.note(FIELD_EXPIRED, place)
            # Fields that expire are not recorded, as keys are not; that the key goes may matter to the next write.
            if store.effects.recording and table.table.count == 0:
                store.begin(RECORD_DELETE, place)
        if table.table.count == 0:
            drop_if_empty(store, place, 0)
            return False
    if table.heap.count == 0:
        return False
    if table.heap.items[0].deadline <= store.now_ms:
        return True
    remember_fields(store, place, table.heap.items[0].deadline)
    return False


cdef int remember_fields(Store store, Place* place, int64_t deadline) except -1:
    """The fields of this hash have to be looked at then. Before a change: a look too many is harmless, one too few is not."""
    cdef tuple hash = (store.db_of(place), PyBytes_FromStringAndSize(place.key, place.n))
    cdef object known = store.field_looks.get(hash)
    if known is None or deadline < known:
        heappush(store.field_deadlines, (deadline, hash))
        store.field_looks[hash] = deadline
    return 0


cdef int expect_fields(Store store, object value, Place* place) except -1:
    """The same for a value that is about to come from elsewhere, if it is a hash with such fields."""
    if isinstance(value, FieldTable) and (<FieldTable> value).heap.count:
        remember_fields(store, place, (<FieldTable> value).soonest())
    return 0


cdef int expect_fields_of(Store store, Entry* entry, Place* place) except -1:
    """`expect_fields` of an entry's value."""
    if entry != NULL and (entry.flags & TYPE_MASK) == TYPE_HASH:
        expect_fields(store, <object> entry_object(entry), place)
    return 0


cdef bint field_put(
    Store store, Place* place, FieldTable table, int type, const char* field, size_t field_size, const char* value, size_t n,
    bint keep_ttl, int kind,
) except -1:
    """Sets a field, or adds a member, of what `fields_of` said; whether it is new."""
    cdef bint observed = store.prepare(place, field_size + n + 20)
    cdef int64_t before
    cdef bint added = True
    store.heavy |= n >= HEAVY or field_size >= HEAVY
    if table is None:
        table = FieldTable()
        table.put(field, field_size, value, n, keep_ttl)
        store.put_object(place, NULL, type, table, 0)
    else:
        before = table.bytes_used
        try:
            added = table.put(field, field_size, value, n, keep_ttl)
        finally:
            # Without memory for the rest the table may have grown all the same.
            place.db.memory += table.bytes_used - before
        if type == TYPE_SET and not added:
            return False
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            if type == TYPE_SET:
                store.begin_elements(RECORD_SET_ADD, place)
                store.effects.put_bytes(field, field_size)
            else:
                store.begin_elements(RECORD_HASH_SET_KEEP_TTL if keep_ttl else RECORD_HASH_SET, place)
                store.effects.put_bytes(field, field_size)
                store.effects.put_bytes(value, n)
    return added


cdef bint field_take(Store store, Place* place, FieldTable table, int type, const char* field, size_t n, int kind) except -1:
    """Removes a field or member; whether it was there. Maybe the key is gone afterwards, and `table` with it."""
    cdef bint observed = store.prepare(place, n + 10)
    cdef int64_t before = table.bytes_used
    if not table.remove(field, n):
        return False
    place.db.memory += table.bytes_used - before
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            store.begin_elements(RECORD_HASH_DELETE if type == TYPE_HASH else RECORD_SET_REMOVE, place)
            store.effects.put_bytes(field, n)
    drop_if_empty(store, place, table.table.count)
    return True


cdef bint field_expire_at(Store store, Place* place, FieldTable table, bytes field, int64_t deadline) except -1:
    """Expires a field at `deadline` (unix ms), at once when that has passed; whether the field was there."""
    cdef int64_t before, soonest
    cdef bint observed
    if table.entry_named(field) == NULL:
        return False
    if deadline <= store.now_ms:
        return field_take(
            store, place, table, TYPE_HASH, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field), FIELD_EXPIRED)
    observed = store.prepare(place, PyBytes_GET_SIZE(field))
    before = table.bytes_used
    soonest = table.soonest()
    # Before the change: a deadline that is remembered and not there is harmless, one that is forgotten is not.
    if soonest == 0 or deadline < soonest:
        remember_fields(store, place, deadline)
    try:
        table.set_deadline(field, deadline)
    finally:
        place.db.memory += table.bytes_used - before
    store.dirty += 1
    if observed:
        store.note(FIELD_DEADLINE_SET, place)
        if store.effects.recording:
            store.begin(RECORD_FIELD_DEADLINE_SET, place)
            store.effects.put_bytes(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
            store.effects.put_deadline(deadline)
    return True


cdef bint field_persist(Store store, Place* place, FieldTable table, bytes field) except -1:
    """Whether the field had a deadline to take away."""
    cdef bint observed = store.prepare(place, PyBytes_GET_SIZE(field))
    cdef int64_t before = table.bytes_used
    if not table.set_deadline(field, 0):
        return False
    place.db.memory += table.bytes_used - before
    store.dirty += 1
    if observed:
        store.note(FIELD_DEADLINE_CLEARED, place)
        if store.effects.recording:
            store.begin(RECORD_FIELD_DEADLINE_CLEAR, place)
            store.effects.put_bytes(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
    return True


cdef int table_replace(Store store, Place* place, int type, FieldTable fresh, int64_t deadline, int kind) except -1:
    """The key becomes this hash or set, with this deadline (0: none); without fields it is deleted."""
    cdef Entry* old
    cdef bint observed
    if fresh.table.count == 0:
        key_delete(store, place)
        return 0
    # An entry takes more bytes than its name and value with their lengths; a field with a deadline is named twice.
    observed = store.prepare(
        place, fresh.bytes_used * (2 if fresh.heap.count else 1) + fresh.heap.count * 24 + RECORD_OVERHEAD)
    expect_fields(store, fresh, place)
    old = store.find(place)
    store.put_object(place, old, type, fresh, deadline)
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            if type == TYPE_SET:
                store.begin(RECORD_SET_REPLACE, place)
            else:
                if old != NULL:
                    store.begin(RECORD_DELETE, place)
                store.begin(RECORD_HASH_SET, place)
            tell_fields(store, place, type, fresh)
            if deadline:
                tell_deadline(store, place, deadline)
    return 0


cdef void tell_fields(Store store, Place* place, int type, FieldTable table) noexcept:
    cdef Walk walk = table_walk(&table.table)
    cdef Entry* entry
    store.effects.put_number(table.table.count)
    while True:
        entry = walk_next(&walk)
        if entry == NULL:
            break
        store.effects.put_bytes(entry_key(entry), entry_key_size(entry))
        if type == TYPE_HASH:
            store.effects.put_bytes(entry_value(entry), entry_value_size(entry))
    if table.heap.count == 0:
        return
    walk = table_walk(&table.table)
    while True:
        entry = walk_next(&walk)
        if entry == NULL:
            return
        if entry.flags & HAS_TTL:
            store.begin(RECORD_FIELD_DEADLINE_SET, place)
            store.effects.put_bytes(entry_key(entry), entry_key_size(entry))
            store.effects.put_deadline(entry_deadline(entry))
