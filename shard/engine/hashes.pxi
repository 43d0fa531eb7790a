# Mutators of hashes and sets, whose values are packed (packing.pxi) or FieldTables; see keys.pxi. One that becomes empty goes with its key.

cdef Entry* fields_in(Entry* entry, int type) except? NULL:
    """An entry that was just found, NULL for none, whose fields past their deadline are included."""
    if entry != NULL and (entry.flags & TYPE_MASK) != type:
        raise wrong_type()
    return entry


cdef Entry* fields_of(Store store, Place* place, int type) except? NULL:
    """The entry of the key, which is read; NULL for none. Fields past their deadline are removed first."""
    cdef Entry* entry = fields_in(store.read(place), type)
    cdef FieldTable table
    if entry == NULL or entry.flags & PACKED:
        return entry
    table = <FieldTable> <object> entry_object(entry)
    if not table.heap.count or heap_soonest(&table.heap) > store.now_ms:
        return entry
    store.heavy = True
    purge_fields(store, place, table, 1 << 40)
    return entry if table.table.count else NULL


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
    if heap_soonest(&table.heap) <= store.now_ms:
        return True
    remember_fields(store, place, heap_soonest(&table.heap))
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
    if entry != NULL and (entry.flags & (TYPE_MASK | PACKED)) == TYPE_HASH:
        expect_fields(store, <object> entry_object(entry), place)
    return 0


cdef bint field_put(
    Store store, Place* place, Entry** held, int type, const char* field, size_t field_size, const char* value, size_t n,
    bint keep_ttl, int kind, size_t more,
) except -1:
    """Sets a field, or adds a member, of what `fields_of` said, and leaves there what holds it then; whether it is new.
    `more`: about so many bytes will follow, or AS_TABLE, or AS_ITEMS."""
    cdef bint observed = store.prepare(place, field_size + n + 20)
    cdef int outcome = UNFIT
    store.heavy |= n >= HEAVY or field_size >= HEAVY
    if more != AS_TABLE and (held[0] == NULL or held[0].flags & PACKED):
        if type == TYPE_HASH:
            outcome = hash_put(store, place, held, field, field_size, value, n, more)
        else:
            outcome = set_put(store, place, held, field, field_size, more)
    if outcome == UNFIT:
        outcome = table_put(store, place, held, type, field, field_size, value, n, keep_ttl)
    if type == TYPE_SET and not outcome:
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
    return outcome


cdef bint table_put(
    Store store, Place* place, Entry** held, int type, const char* field, size_t field_size, const char* value, size_t n,
    bint keep_ttl,
) except -1:
    """`field_put` of what is, or becomes, an object."""
    cdef FieldTable table = fields_unpacked(store, place, held, type)
    cdef int64_t before = table.bytes_used
    if held[0] == NULL:
        table.put(field, field_size, value, n, keep_ttl)
        hold_object(store, place, held, type, table)
        return True
    try:
        return table.put(field, field_size, value, n, keep_ttl)
    finally:
        # Without memory for the rest the table may have grown all the same.
        place.db.memory += table.bytes_used - before


cdef bint field_take(Store store, Place* place, Entry** held, int type, const char* field, size_t n, int kind) except -1:
    """Removes a field or member; whether it was there. Maybe the key is gone afterwards: then NULL is held."""
    cdef bint observed = store.prepare(place, n + 10)
    cdef FieldTable table
    cdef int64_t before
    cdef size_t left
    if held[0].flags & PACKED:
        if not packed_take(store, place, held, type, field, n):
            return False
        left = packed_length(held[0])
    else:
        table = <FieldTable> <object> entry_object(held[0])
        before = table.bytes_used
        if not table.remove(field, n):
            return False
        place.db.memory += table.bytes_used - before
        left = table.table.count
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            store.begin_elements(RECORD_HASH_DELETE if type == TYPE_HASH else RECORD_SET_REMOVE, place)
            store.effects.put_bytes(field, n)
    if left == 0:
        held[0] = NULL
    drop_if_empty(store, place, left)
    return True


cdef bint field_known(Entry* entry, int type, const char* field, size_t n) noexcept:
    """Whether a hash or set, NULL for none, has it."""
    cdef const char* found
    if entry == NULL:
        return False
    if entry.flags & PACKED:
        return packed_has(entry, type, field, n, &found)
    return (<FieldTable> <object> entry_object(entry)).entry_of(field, n) != NULL


cdef bint field_value(Entry* entry, const char* field, size_t n, Span* value, char* scratch) noexcept:
    """The value of a field of a hash, NULL for none, maybe in `scratch` (TEXT bytes); whether there is one."""
    cdef const char* found
    cdef Entry* known
    if entry == NULL:
        return False
    if entry.flags & PACKED:
        if not packed_has(entry, TYPE_HASH, field, n, &found):
            return False
        value[0] = item_text(found + item_span(found), scratch)
        return True
    known = (<FieldTable> <object> entry_object(entry)).entry_of(field, n)
    if known != NULL:
        value.data = entry_value(known)
        value.size = entry_value_size(known)
    return known != NULL


cdef bint field_expire_at(Store store, Place* place, Entry** held, bytes field, int64_t deadline) except -1:
    """Expires a field at `deadline` (unix ms), at once when that has passed; whether the field was there. A hash with a
    deadline is no packed one any more."""
    cdef FieldTable table
    cdef int64_t before, soonest
    cdef bint observed
    if not field_known(held[0], TYPE_HASH, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field)):
        return False
    if deadline <= store.now_ms:
        return field_take(
            store, place, held, TYPE_HASH, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field), FIELD_EXPIRED)
    observed = store.prepare(place, PyBytes_GET_SIZE(field))
    table = fields_unpacked(store, place, held, TYPE_HASH)
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


cdef bint field_persist(Store store, Place* place, Entry* entry, bytes field) except -1:
    """Whether the field had a deadline to take away."""
    cdef bint observed = store.prepare(place, PyBytes_GET_SIZE(field))
    cdef FieldTable table
    cdef int64_t before
    if entry.flags & PACKED:
        return False
    table = <FieldTable> <object> entry_object(entry)
    before = table.bytes_used
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
    cdef Entry* entry
    cdef bint observed
    if fresh.count() == 0:
        key_delete(store, place)
        return 0
    # An entry takes more bytes than its name and value with their lengths, and an integer's text is packed in no less
    # than a third; a field with a deadline is named twice.
    observed = store.prepare(
        place, fresh.bytes_used * (3 if fresh.packed else 2 if fresh.heap.count else 1) + fresh.heap.count * 24
        + RECORD_OVERHEAD)
    expect_fields(store, fresh, place)
    old = store.find(place)
    entry = fields_packed(store, place, type, fresh, HAS_TTL if deadline else 0)
    if entry != NULL:
        store.put_entry(place, old, entry, deadline)
    else:
        fresh.unpack()
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
    cdef FieldWalk walk = fields_from(table)
    store.effects.put_number(table.count())
    while next_field(&walk):
        store.effects.put_bytes(walk.field.data, walk.field.size)
        if type == TYPE_HASH:
            store.effects.put_bytes(walk.value.data, walk.value.size)
    if table.heap.count == 0:
        return
    walk = fields_from(table)
    while next_field(&walk):
        if walk.deadline:
            store.begin(RECORD_FIELD_DEADLINE_SET, place)
            store.effects.put_bytes(walk.field.data, walk.field.size)
            store.effects.put_deadline(walk.deadline)
