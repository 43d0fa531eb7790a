# Mutators of lists; see keys.pxi. A list that becomes empty goes with its key.

cdef ListValue list_in(Entry* entry):
    """The list of an entry that was just found; None for none."""
    if entry == NULL:
        return None
    if (entry.flags & TYPE_MASK) != TYPE_LIST:
        raise wrong_type()
    return <ListValue> <object> entry_object(entry)


cdef Py_ssize_t list_push(Store store, Place* place, ListValue value, Span* elements, Py_ssize_t n, bint left) except -1:
    """Adds elements one after another at an end of what `list_in` said; the new length."""
    cdef bint fresh = value is None, observed
    cdef int64_t before = 0
    cdef size_t total = 0
    cdef Py_ssize_t i
    for i in range(n):
        store.heavy |= elements[i].size >= HEAVY
        total += elements[i].size + 10
    observed = store.prepare(place, total)
    if fresh:
        value = ListValue()
        value.put_all(elements, n, left)
        store.put_object(place, NULL, TYPE_LIST, value, 0)
    else:
        before = value.size_in_memory()
        try:
            value.put_all(elements, n, left)
        finally:
            place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        store.note(LIST_PUSHED_LEFT if left else LIST_PUSHED_RIGHT, place)
        if store.effects.recording:
            store.begin(RECORD_LIST_PUSH_LEFT if left else RECORD_LIST_PUSH_RIGHT, place)
            store.effects.put_number(n)
            for i in range(n):
                store.effects.put_bytes(elements[i].data, elements[i].size)
    return value.length


cdef void tell_list_pop(Store store, Place* place, bint left, Py_ssize_t n) noexcept:
    store.note(LIST_POPPED_LEFT if left else LIST_POPPED_RIGHT, place)
    if store.effects.recording:
        store.begin(RECORD_LIST_POP_LEFT if left else RECORD_LIST_POP_RIGHT, place)
        store.effects.put_number(n)


cdef int list_drop(Store store, Place* place, ListValue value, bint left) except -1:
    """Removes one element from an end of a list that is not empty. Maybe the key is gone afterwards, and `value` with it."""
    cdef bint observed = store.prepare(place, 0)
    cdef int64_t before = value.size_in_memory()
    value.drop(left)
    place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        tell_list_pop(store, place, left, 1)
    return drop_if_empty(store, place, value.length)


cdef list list_pop(Store store, Place* place, ListValue value, bint left, Py_ssize_t count):
    """Takes up to `count` elements from an end, in the order they come off."""
    cdef bint observed = store.prepare(place, 0)
    cdef int64_t before = value.size_in_memory()
    cdef list taken = value.pop_many(left, count)
    place.db.memory += value.size_in_memory() - before
    if taken:
        store.dirty += 1
        if observed:
            tell_list_pop(store, place, left, len(taken))
        drop_if_empty(store, place, value.length)
    return taken


cdef int list_set(Store store, Place* place, ListValue value, Py_ssize_t index, const char* element, Py_ssize_t n) except -1:
    """Replaces one element; IndexError out of range."""
    cdef bint observed = store.prepare(place, n)
    cdef int64_t before = value.size_in_memory()
    try:
        value.replace(index, element, n)
    finally:
        place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        tell_list_element(store, place, LIST_ELEMENT_SET, RECORD_LIST_SET, index, element, n)
    return 0


cdef int list_insert(
    Store store, Place* place, ListValue value, Py_ssize_t index, const char* element, Py_ssize_t n
) except -1:
    """Inserts before `index`; IndexError out of range."""
    cdef bint observed = store.prepare(place, n)
    cdef int64_t before = value.size_in_memory()
    try:
        value.put_before(index, element, n)
    finally:
        place.db.memory += value.size_in_memory() - before
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


cdef int list_trim(Store store, Place* place, ListValue value, Py_ssize_t start, Py_ssize_t stop) except -1:
    """Removes the elements from `start` to `stop` (exclusive, clamped)."""
    cdef bint observed
    cdef int64_t before
    cdef object removed
    stop = min(stop, value.length)
    if start >= stop:
        return 0
    observed = store.prepare(place, 0)
    before = value.size_in_memory()
    removed = value.delete_range(start, stop)
    place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        store.note(LIST_TRIMMED, place)
        if store.effects.recording:
            tell_list_deletion(store, place, start, stop - start)
    if removed is not None:
        store.hand_over(removed)
    return drop_if_empty(store, place, value.length)


cdef Py_ssize_t list_remove(
    Store store, Place* place, ListValue value, const char* element, Py_ssize_t size, Py_ssize_t count
) except -1:
    """Removes equal elements: `count` from the head, minus `count` from the tail, all with 0; how many."""
    cdef Run* runs = NULL
    cdef Py_ssize_t i, removed, n = value.equal_runs(element, size, count, &runs)
    cdef int64_t before = value.size_in_memory()
    cdef bint observed
    try:
        if n == 0:
            return 0
        observed = store.prepare(place, 24 * n)
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
    drop_if_empty(store, place, value.length)
    return removed


cdef int list_replace(Store store, Place* place, ListValue fresh, int64_t deadline, int kind) except -1:
    """The key becomes this list, with this deadline (0: none); without elements it is deleted."""
    cdef bint observed
    if fresh.length == 0:
        key_delete(store, place)
        return 0
    observed = store.prepare(place, fresh.chunks.payload + 10 * fresh.length + RECORD_OVERHEAD)
    store.put_object(place, store.find(place), TYPE_LIST, fresh, deadline)
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
