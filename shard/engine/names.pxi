# Mutators that give a value another name or another database, and of whole databases; see keys.pxi.

cdef int move_entry(Store store, Place* source, Place* target) except -1:
    """The value of `source`, which is there, becomes that of `target`, whose own value goes."""
    cdef Entry* old = store.find(target)
    cdef Entry* entry = store.find(source)
    cdef int64_t memory = 0
    cdef Entry* fresh
    if entry == NULL:
        raise KeyError("the key to move is not there")
    fresh = entry_new(
        target.key, target.n, entry_value(entry), entry_value_size(entry),
        entry.flags & (TYPE_MASK | RAW | PACKED | HAS_TTL), entry.clock, 0,
    )
    if fresh == NULL:
        raise MemoryError("no memory for a key")
    if holds_object(fresh):
        memory = (<object> entry_object(fresh)).memory
    store.put_entry(target, old, fresh, entry_deadline(entry))
    # For a moment both entries have the value; its account goes with it.
    target.db.memory += memory
    source.db.memory -= memory
    if store.is_sampled(source):
        store.miniatures.forget(store.sampled_as(source))
    free(store.detach(source, store.word_of(source)))
    return 0


cdef bint key_rename(Store store, Place* source, Place* target) except -1:
    """`source` becomes `target` with its deadline, in place of what is there; False when it is not there."""
    cdef bint observed, replaces
    if store.find(source) == NULL:
        return False
    replaces = store.find(target) != NULL
    observed = store.prepare(source, target.n) | store.prepare(target, source.n)
    if source.n != target.n or memcmp(source.key, target.key, source.n) != 0:
        expect_fields_of(store, store.find(source), target)
        move_entry(store, source, target)
    store.dirty += 1
    if observed:
        if replaces:
            store.note(CREATED, target)     # as what was there were removed first
        store.note(RENAMED_FROM, source)
        store.note(RENAMED_TO, target)
        if store.effects.recording:
            store.begin(RECORD_RENAME, source)
            store.effects.put_bytes(target.key, target.n)
    return True


cdef bint key_move(Store store, Place* source, Place* target) except -1:
    """The key goes to another database, in place of what is there; False when it is not there."""
    cdef bint observed
    if store.find(source) == NULL:
        return False
    observed = store.prepare(source, 0)
    expect_fields_of(store, store.find(source), target)
    move_entry(store, source, target)
    store.dirty += 1
    if observed:
        store.note(MOVED_FROM, source)
        store.note(MOVED_TO, target)
        if store.effects.recording:
            store.begin(RECORD_MOVE, source)
            store.effects.put_number(store.db_of(target))
    return True


cdef bint key_copy(Store store, Place* source, Place* target) except -1:
    """A deep copy of `source` with its deadline, in place of what `target` holds; False when it is not there."""
    cdef Entry* entry = store.find(source)
    cdef Entry* old
    cdef Entry* fresh
    cdef bint observed
    cdef object value
    if entry == NULL:
        return False
    old = store.find(target)
    observed = store.prepare(target, source.n + target.n)
    if holds_object(entry):
        value = (<object> entry_object(entry)).copy()
        expect_fields(store, value, target)
        store.put_object(target, old, entry.flags & TYPE_MASK, value, entry_deadline(entry))
    else:
        fresh = entry_new(
            target.key, target.n, entry_value(entry), entry_value_size(entry),
            entry.flags & (TYPE_MASK | RAW | PACKED | HAS_TTL), store.fresh_clock(), 0,
        )
        if fresh == NULL:
            raise MemoryError("no memory for a copy")
        store.put_entry(target, old, fresh, entry_deadline(entry))
    store.dirty += 1
    if observed:
        if old != NULL:
            store.note(CREATED, target)
        store.note(COPIED_TO, target)
        if store.effects.recording:
            store.begin(RECORD_COPY, source)
            store.effects.put_bytes(target.key, target.n)
            store.effects.put_number(store.db_of(target))
    return True


# Whole databases ----------------------------------------------------------------------------------
cdef int database_flush(Store store, int db) except -1:
    """Empties one database, or all with -1. The memory is freed by the cleanup thread."""
    cdef int i
    cdef bint any_keys = False
    cdef DetachedDatabase detached
    cdef list emptied = [
        (i, DetachedDatabase()) for i in range(DATABASES) if (db < 0 or db == i) and store.databases[i].slots != NULL
    ]
    cdef dict looks = {hash: due for hash, due in store.field_looks.items() if db >= 0 and hash[0] != db}
    cdef list deadlines = [(due, hash) for hash, due in looks.items()]
    heapify(deadlines)
    # Who watches a key must see whether it was there.
    if store.effects.wanted and store.effects.prepare_all():
        store.effects.flushing(db)
    store.forget_known()
    for i, detached in emptied:
        any_keys |= store.databases[i].count > 0
        detached.database = store.databases[i]
        memset(&store.databases[i], 0, sizeof(Database))
        store.hand_over(detached)
    store.field_deadlines = deadlines
    store.field_looks = looks
    if db < 0:
        store.forget_queues()
    if any_keys:
        store.forget_sample()
    store.dirty += 1
    return 0


cdef int database_swap(Store store, int left, int right) except -1:
    """Exchanges two databases."""
    cdef Database kept
    cdef dict swapped = {left: right, right: left}
    cdef dict looks = {(swapped.get(db, db), key): due for (db, key), due in store.field_looks.items()}
    cdef list deadlines = [(due, hash) for hash, due in looks.items()]
    heapify(deadlines)
    if store.effects.wanted and store.effects.prepare_all():
        store.effects.swapping(left, right)
    store.forget_known()
    kept = store.databases[left]
    store.databases[left] = store.databases[right]
    store.databases[right] = kept
    if kept.count or store.databases[left].count:
        store.forget_sample()
    # The other one may be in use for the first time.
    store.active = max(store.active, max(left, right) + 1)
    store.field_deadlines = deadlines
    store.field_looks = looks
    store.dirty += 1
    return 0
