# Mutators of strings; see keys.pxi.

cdef inline void tell_string(Store store, int kind, Place* place, const char* value, size_t n, int64_t deadline) noexcept:
    store.note(kind, place)
    if store.effects.recording:
        if deadline == 0 and store.effects.put_short_set(store.db_of(place), place.key, place.n, value, n):
            return
        store.begin(RECORD_STRING_SET_UNTIL if deadline else RECORD_STRING_SET, place)
        if deadline:
            store.effects.put_deadline(deadline)
        store.effects.put_bytes(value, n)


cdef int string_set(
    Store store, Place* place, Entry* old, const char* value, size_t n, int64_t deadline, int kind
) except -1:
    """The key becomes this string, with this deadline (unix ms, 0: none); `old` is what `find` said."""
    cdef bint observed = store.prepare(place, n)
    store.put_string(place, old, value, n, deadline, 0, 0)
    store.dirty += 1
    if observed:
        tell_string(store, kind, place, value, n, deadline)
    return 0


cdef int string_set_until(Store store, Place* place, Entry* old, const char* value, size_t n, int64_t deadline) except -1:
    """SET with a time of its own: deletes the key when that has passed."""
    if deadline <= store.now_ms:
        key_remove(store, place, EXPIRED, False)
        return 0
    string_set(store, place, old, value, n, deadline, STRING_SET)
    if store.effects.wanted:
        store.note(DEADLINE_SET, place)
    return 0


cdef int string_set_raw(
    Store store, Place* place, Entry* old, const char* value, size_t n, int64_t deadline, int kind
) except -1:
    """`string_set` of a string that counts as grown in place (BITOP, RESTORE of such a one)."""
    cdef bint observed = store.prepare(place, n + RECORD_OVERHEAD)
    store.put_string(place, old, value, n, deadline, 0, RAW)
    store.dirty += 1
    if observed:
        # Set, and a part of it written again: that is what makes it raw.
        tell_string(store, kind, place, value, n, deadline)
        if store.effects.recording:
            store.begin(RECORD_STRING_APPEND, place)
            store.effects.put_bytes(NULL, 0)
    return 0


cdef Entry* grow_string(Store store, Place* place, Entry* entry, size_t n) except NULL:
    """The entry with its value made `n` bytes long, in a larger block if needed; the new bytes are not set."""
    cdef Entry* larger
    cdef size_t old = entry_value_size(entry)
    if n <= entry_room(entry) and (n <= 65535 or entry.flags & WIDE):
        entry_set_value_size(entry, n)
        entry.flags |= RAW
        return entry
    check_block(place, n)
    # Redis's rule: twice the size up to a mebibyte, then one more.
    larger = entry_new(
        place.key, place.n, NULL, n, (entry.flags & HAS_TTL) | RAW, entry.clock,
        n * 2 if n < 1048576 else n + 1048576,
    )
    if larger == NULL:
        raise MemoryError("no memory for a value")
    memcpy(entry_value(larger), entry_value(entry), old)
    store.swap_block(place, entry, larger, entry_deadline(entry))
    return larger


cdef size_t string_append(Store store, Place* place, Entry* entry, const char* data, size_t n) except? 0:
    """Appends to the string that `find` said, or creates it; its new length."""
    cdef size_t old = entry_value_size(entry) if entry != NULL else 0
    cdef bint observed = store.prepare(place, n)
    if entry == NULL:
        store.put_string(place, NULL, data, n, 0, 0, 0)
    else:
        entry = grow_string(store, place, entry, old + n)
        memcpy(entry_value(entry) + old, data, n)
    store.dirty += 1
    if observed:
        store.note(STRING_APPENDED, place)
        if store.effects.recording:
            store.begin(RECORD_STRING_APPEND, place)
            store.effects.put_bytes(data, n)
    return old + n


cdef Entry* padded_string(Store store, Place* place, Entry* entry, size_t n) except NULL:
    """The string that `find` said, at least `n` bytes long: zeros are added, or a string of zeros is created."""
    cdef size_t old = 0
    if entry == NULL:
        check_block(place, n)
        entry = entry_new(place.key, place.n, NULL, n, RAW, store.fresh_clock(), 0)
        if entry == NULL:
            raise MemoryError("no memory for a value")
        memset(entry_value(entry), 0, n)
        store.insert(place, entry, 0)
        return entry
    old = entry_value_size(entry)
    if n > old:
        entry = grow_string(store, place, entry, n)
        memset(entry_value(entry) + old, 0, n - old)
    return entry


cdef size_t string_overlay(
    Store store, Place* place, Entry* entry, size_t offset, const char* data, size_t n, int kind
) except? 0:
    """Writes at least one byte at `offset`, zeros before it where there was nothing; the string's length."""
    cdef bint observed = store.prepare(place, n)
    entry = padded_string(store, place, entry, offset + n)
    entry.flags |= RAW
    memcpy(entry_value(entry) + offset, data, n)
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            store.begin(RECORD_STRING_OVERLAY, place)
            store.effects.put_number(offset)
            store.effects.put_bytes(data, n)
    return entry_value_size(entry)


cdef int string_make_raw(Store store, Place* place, Entry* entry) except -1:
    """The string that `find` said counts as grown in place. Not a change to clients, but whoever replays does it too."""
    cdef bint observed
    if entry.flags & RAW:
        return 0
    observed = store.prepare(place, 0)
    entry.flags |= RAW
    if observed and store.effects.recording:
        store.begin(RECORD_STRING_APPEND, place)
        store.effects.put_bytes(NULL, 0)
    return 0


cdef inline int check_block(Place* place, size_t n) except -1:
    if place.n + n > MAX_BLOCK:
        raise CommandError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    return 0
