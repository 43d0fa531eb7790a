# Mutators of keys of any type, and of whole databases.
#
# A mutator is the only thing that changes data, and each exists once, over (place, bytes): the commands compiled here,
# the handlers (through Keyspace) and a replay call the same. It asks for room in the effects first, changes, and tells
# what it did. When it raises, for want of memory or for a wrong type, nothing has changed and nobody was told.

cdef inline void tell(Store store, int kind, int record, Place* place) noexcept:
    """A change that its kind and the key say everything about."""
    store.note(kind, place)
    if store.effects.recording:
        store.begin(record, place)


cdef inline void tell_deadline(Store store, Place* place, int64_t deadline) noexcept:
    """The key's new deadline, which another record does not say."""
    if store.effects.recording:
        store.begin(RECORD_DEADLINE_SET, place)
        store.effects.put_deadline(deadline)


cdef bint key_delete(Store store, Place* place) except -1:
    """Removes the key; whether it was there."""
    return key_remove(store, place, DELETED, False)


cdef bint key_remove(Store store, Place* place, int kind, bint emptied) except -1:
    """The same as what `kind` says: a part of something else; `emptied`: of a collection, which is told to go, too."""
    cdef bint observed
    if store.find(place) == NULL:
        return False
    observed = store.prepare(place, 0)
    store.discard(place)
    store.dirty += 1
    if observed:
        tell(store, kind, RECORD_DELETE, place)
        if emptied:
            store.note(DELETED, place)
    return True


cdef bint key_expire_at(Store store, Place* place, int64_t deadline) except -1:
    """Expires the key at `deadline` (unix ms), at once when that has passed; whether the key was there."""
    cdef Entry* entry = store.find(place)
    cdef bint observed
    if entry == NULL:
        return False
    if deadline <= store.now_ms:
        return key_remove(store, place, EXPIRED, False)
    observed = store.prepare(place, 0)
    store.put_deadline(place, entry, deadline)
    store.dirty += 1
    if observed:
        store.note(DEADLINE_SET, place)
        tell_deadline(store, place, deadline)
    return True


cdef bint key_persist(Store store, Place* place) except -1:
    """Whether there was a deadline to take away."""
    cdef Entry* entry = store.find(place)
    cdef bint observed
    if entry == NULL or not entry.flags & HAS_TTL:
        return False
    observed = store.prepare(place, 0)
    store.put_deadline(place, entry, 0)
    store.dirty += 1
    if observed:
        tell(store, DEADLINE_CLEARED, RECORD_DEADLINE_CLEAR, place)
    return True


cdef int drop_if_empty(Store store, Place* place, size_t length) except -1:
    """Behind the change of a collection: without elements its key goes. Whoever replays the change does the same."""
    if length == 0:
        store.discard(place)
        if store.effects.wanted:
            store.note(DELETED, place)
    return 0
