# Mutators of lists; see keys.pxi. A list that becomes empty goes with its key.

cdef Entry* list_in(Entry* entry) except? NULL:
    """An entry that was just found, NULL for none."""
    if entry != NULL and (entry.flags & TYPE_MASK) != TYPE_LIST:
        raise wrong_type()
    return entry


cdef Py_ssize_t list_length(Entry* entry) noexcept:
    """Elements of a list, NULL for none."""
    if entry == NULL:
        return 0
    return packed_length(entry) if entry.flags & PACKED else (<ListValue> <object> entry_object(entry)).length


cdef int list_dropped(Store store, Place* place, Entry** held) except -1:
    """Behind a removal: NULL is held if the key is gone with its last element; a list that has become small is packed."""
    cdef Py_ssize_t left = list_length(held[0])
    if left == 0:
        held[0] = NULL
        return drop_if_empty(store, place, 0)
    if not held[0].flags & PACKED:
        list_shrunk(store, place, held)
    return 0


cdef Py_ssize_t list_push(Store store, Place* place, Entry** held, Span* elements, Py_ssize_t n, bint left) except -1:
    """Adds elements one after another at an end of what `list_in` said, and leaves there what holds them then; the new
    length."""
    cdef bint observed
    cdef size_t total = 0
    cdef Py_ssize_t i
    for i in range(n):
        store.heavy |= elements[i].size >= HEAVY
        total += elements[i].size + 10
    observed = store.prepare(place, total)
    if held[0] != NULL and not held[0].flags & PACKED or not elements_put(store, place, held, elements, n, left):
        chunks_put(store, place, held, elements, n, left)
    store.dirty += 1
    if observed:
        store.note(LIST_PUSHED_LEFT if left else LIST_PUSHED_RIGHT, place)
        if store.effects.recording:
            store.begin(RECORD_LIST_PUSH_LEFT if left else RECORD_LIST_PUSH_RIGHT, place)
            store.effects.put_number(n)
            for i in range(n):
                store.effects.put_bytes(elements[i].data, elements[i].size)
    return list_length(held[0])


cdef int chunks_put(Store store, Place* place, Entry** held, Span* elements, Py_ssize_t n, bint left) except -1:
    """`list_push` to what is, or becomes, an object."""
    cdef ListValue value = elements_unpacked(store, place, held)
    cdef int64_t before = value.size_in_memory()
    if held[0] == NULL:
        value.put_all(elements, n, left)
        return hold_object(store, place, held, TYPE_LIST, value)
    try:
        value.put_all(elements, n, left)
    finally:
        place.db.memory += value.size_in_memory() - before
    return 0


cdef int list_cut(Store store, Place* place, Entry** held, Py_ssize_t start, Py_ssize_t stop) except -1:
    """Removes the elements [start, stop), which are there, and tells nobody."""
    cdef ListValue value
    cdef int64_t before
    cdef object removed
    if held[0].flags & PACKED:
        return elements_cut(store, place, held, <uint32_t> start, <uint32_t> stop)
    value = <ListValue> <object> entry_object(held[0])
    before = value.size_in_memory()
    removed = value.delete_range(start, stop)
    place.db.memory += value.size_in_memory() - before
    if removed is not None:
        store.hand_over(removed)
    return 0


cdef void tell_list_pop(Store store, Place* place, bint left, Py_ssize_t n) noexcept:
    store.note(LIST_POPPED_LEFT if left else LIST_POPPED_RIGHT, place)
    if store.effects.recording:
        store.begin(RECORD_LIST_POP_LEFT if left else RECORD_LIST_POP_RIGHT, place)
        store.effects.put_number(n)


cdef int list_drop(Store store, Place* place, Entry** held, bint left) except -1:
    """Removes one element from an end of a list that is not empty. Maybe the key is gone afterwards: then NULL is held."""
    cdef bint observed = store.prepare(place, 0)
    cdef ListValue value
    cdef int64_t before
    cdef uint32_t length
    if held[0].flags & PACKED:
        length = packed_length(held[0])
        elements_cut(store, place, held, 0 if left else length - 1, 1 if left else length)
    else:
        value = <ListValue> <object> entry_object(held[0])
        before = value.size_in_memory()
        value.drop(left)
        place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        tell_list_pop(store, place, left, 1)
    return list_dropped(store, place, held)


cdef list list_pop(Store store, Place* place, Entry** held, bint left, Py_ssize_t count):
    """Takes up to `count` elements from an end, in the order they come off."""
    cdef bint observed = store.prepare(place, 0)
    cdef ListValue value
    cdef int64_t before
    cdef Py_ssize_t length = list_length(held[0])
    cdef list taken
    count = max(min(count, length), 0)
    if count == 0:
        return []
    if held[0].flags & PACKED:
        taken = elements_between(held[0], <uint32_t> (0 if left else length - count), <uint32_t> (count if left else length))
        if not left:
            taken.reverse()
        elements_cut(
            store, place, held, <uint32_t> (0 if left else length - count), <uint32_t> (count if left else length))
    else:
        value = <ListValue> <object> entry_object(held[0])
        before = value.size_in_memory()
        taken = value.pop_many(left, count)
        place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        tell_list_pop(store, place, left, count)
    list_dropped(store, place, held)
    return taken


cdef int list_put_at(
    Store store, Place* place, Entry** held, Py_ssize_t index, bint replaces, const char* element, size_t n
) except -1:
    """Puts an element before that of an index, or in its place, and tells nobody; IndexError out of range."""
    cdef Py_ssize_t length = list_length(held[0])
    cdef ListValue value
    cdef int64_t before
    if not 0 <= index < length + (0 if replaces else 1):
        raise IndexError("no such element")
    if held[0].flags & PACKED and element_put(store, place, held, <uint32_t> index, replaces, element, n):
        return 0
    value = elements_unpacked(store, place, held)
    before = value.size_in_memory()
    try:
        if replaces:
            value.replace(index, element, n)
        else:
            value.put_before(index, element, n)
    finally:
        place.db.memory += value.size_in_memory() - before
    return 0


cdef int list_set(Store store, Place* place, Entry** held, Py_ssize_t index, const char* element, Py_ssize_t n) except -1:
    """Replaces one element; IndexError out of range."""
    cdef bint observed = store.prepare(place, n)
    list_put_at(store, place, held, index, True, element, n)
    store.dirty += 1
    if observed:
        tell_list_element(store, place, LIST_ELEMENT_SET, RECORD_LIST_SET, index, element, n)
    return 0


cdef int list_insert(
    Store store, Place* place, Entry** held, Py_ssize_t index, const char* element, Py_ssize_t n
) except -1:
    """Inserts before `index`; IndexError out of range."""
    cdef bint observed = store.prepare(place, n)
    list_put_at(store, place, held, index, False, element, n)
    store.dirty += 1
    if observed:
        tell_list_element(store, place, LIST_INSERTED, RECORD_LIST_INSERT, index, element, n)
    return 0


cdef void tell_list_element(
    Store store, Place* place, int kind, int record, Py_ssize_t index, const char* element, Py_ssize_t n
) noexcept:
    store.note(kind, place)
    if store.effects.recording:
        store.begin(record, place)
        store.effects.put_number(index)
        store.effects.put_bytes(element, n)


cdef void tell_list_deletion(Store store, Place* place, Py_ssize_t start, Py_ssize_t n) noexcept:
    store.begin(RECORD_LIST_DELETE_RANGE, place)
    store.effects.put_number(start)
    store.effects.put_number(n)


cdef int list_trim(Store store, Place* place, Entry** held, Py_ssize_t start, Py_ssize_t stop) except -1:
    """Removes the elements from `start` to `stop` (exclusive, clamped)."""
    cdef bint observed
    stop = min(stop, list_length(held[0]))
    if start >= stop:
        return 0
    observed = store.prepare(place, 0)
    list_cut(store, place, held, start, stop)
    store.dirty += 1
    if observed:
        store.note(LIST_TRIMMED, place)
        if store.effects.recording:
            tell_list_deletion(store, place, start, stop - start)
    return list_dropped(store, place, held)


cdef Py_ssize_t list_remove(
    Store store, Place* place, Entry** held, const char* element, Py_ssize_t size, Py_ssize_t count
) except -1:
    """Removes equal elements: `count` from the head, minus `count` from the tail, all with 0; how many."""
    cdef ListValue value = elements_seen(held[0])
    cdef Run* runs = NULL
    cdef Py_ssize_t i, removed = 0, n = value.equal_runs(element, size, count, &runs)
    cdef int64_t before = value.size_in_memory()
    cdef bint observed
    try:
        if n == 0:
            return 0
        observed = store.prepare(place, 24 * n)
        if held[0].flags & PACKED:
            for i in range(n):
                removed += runs[n - 1 - i].count
                elements_cut(
                    store, place, held, <uint32_t> runs[n - 1 - i].start,
                    <uint32_t> (runs[n - 1 - i].start + runs[n - 1 - i].count))
        else:
            removed = value.delete_runs(runs, n)
            place.db.memory += value.size_in_memory() - before
        store.dirty += 1
        if observed:
            store.note(LIST_REMOVED, place)
            # By place, so that a replay need not compare; the last run first, so that each says where it lies then.
            for i in range(n if store.effects.recording else 0):
                tell_list_deletion(store, place, runs[n - 1 - i].start, runs[n - 1 - i].count)
    finally:
        free(runs)
    list_dropped(store, place, held)
    return removed


cdef int list_replace(Store store, Place* place, ListValue fresh, int64_t deadline, int kind) except -1:
    """The key becomes this list, with this deadline (0: none); without elements it is deleted."""
    cdef bint observed
    cdef Entry* old
    cdef Entry* entry
    if fresh.length == 0:
        key_delete(store, place)
        return 0
    observed = store.prepare(place, fresh.chunks.payload + 10 * fresh.length + RECORD_OVERHEAD)
    old = store.find(place)
    entry = elements_packed(store, place, fresh, HAS_TTL if deadline else 0, 1)
    if entry != NULL:
        store.put_entry(place, old, entry, deadline)
    else:
        store.put_object(place, old, TYPE_LIST, fresh, deadline)
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            tell_list(store, place, fresh)
            if deadline:
                tell_deadline(store, place, deadline)
    return 0


cdef void tell_list(Store store, Place* place, ListValue value) noexcept:
    cdef ElementWalk walk = elements_from(value, 0)
    cdef const char* element = next_element(&walk)
    store.begin(RECORD_LIST_REPLACE, place)
    store.effects.put_number(value.length)
    while element != NULL:
        store.effects.put_bytes(element_data(element), element_size(element))
        element = next_element(&walk)
