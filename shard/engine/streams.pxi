# Mutators of streams and their consumer groups; see keys.pxi. A stream without entries stays.
#
# What a group has delivered, and to whom, is recorded like any change. Observers learn of it as of a real server's: of
# entries, groups and consumers, not of what is pending. `kind` -1: nobody is told.

cdef enum:
    SILENT = -1
    ID_BYTES = 20               # of an id in a record, at most


ID_TOO_SMALL = "ERR The ID specified in XADD is equal or smaller than the target stream top item"


cdef Entry* stream_in(Entry* entry) except? NULL:
    """An entry that was just found, NULL for none."""
    if entry != NULL and (entry.flags & TYPE_MASK) != TYPE_STREAM:
        raise wrong_type()
    return entry


cdef inline Stream stream_of(Entry* entry):
    return <Stream> <object> entry_object(entry)


cdef inline void put_id(Store store, StreamId id) noexcept:
    store.effects.put_number(id.ms)
    store.effects.put_number(id.seq)


cdef inline void put_name(Store store, bytes name) noexcept:
    store.effects.put_bytes(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))


cdef int stream_choose_id(Store store, Entry* entry, StreamId* id, bint with_ms, bint with_seq) except -1:
    """The id of an entry to be added, as far as it is not given; CommandError when there is none, or when it is too small."""
    cdef StreamId last
    last.ms = last.seq = 0
    if entry != NULL:
        last = stream_of(entry).last
    if last.ms == UINT64_MAX and last.seq == UINT64_MAX:
        raise CommandError("ERR The stream has exhausted the last possible ID, unable to add more items")
    if not with_ms:
        next_id(last, store.now_ms, id)
        return 0
    if not with_seq:
        id.seq = 0
        if id.ms == last.ms:
            if last.seq == UINT64_MAX:
                raise CommandError(ID_TOO_SMALL)
            id.seq = last.seq + 1
    if compare_ids(id[0], last) <= 0:
        raise CommandError(ID_TOO_SMALL)
    return 0


cdef int stream_add(Store store, Place* place, Entry** held, StreamId id, const Span* words, Py_ssize_t n) except -1:
    """Adds an entry of `n` pairs to what `stream_in` said, which is made if need be. Its id is greater than any before."""
    cdef Stream value
    cdef size_t total = 0
    cdef int64_t before
    cdef Py_ssize_t i
    cdef bint observed
    for i in range(2 * n):
        total += words[i].size + 10
    if total > LARGEST_ENTRY:
        raise CommandError("ERR Elements are too large to be stored")
    store.heavy |= total >= HEAVY
    observed = store.prepare(place, total)
    if held[0] == NULL:
        value = Stream()
        value.append(id, words, n)
        hold_object(store, place, held, TYPE_STREAM, value)
    else:
        value = stream_of(held[0])
        before = value.size_in_memory()
        try:
            value.append(id, words, n)
        finally:
            place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        store.note(STREAM_ADDED, place)
        if store.effects.recording:
            store.begin(RECORD_STREAM_ADD, place)
            put_id(store, id)
            store.effects.put_number(n)
            for i in range(2 * n):
                store.effects.put_bytes(words[i].data, words[i].size)
    return 0


cdef bint stream_delete(Store store, Place* place, Entry* entry, StreamId id) except -1:
    """Removes one entry; whether it was there."""
    cdef Stream value = stream_of(entry)
    cdef int64_t before = value.size_in_memory()
    cdef bint observed = store.prepare(place, ID_BYTES)
    if not value.delete(id):
        return False
    place.db.memory += value.size_in_memory() - before
    store.dirty += 1
    if observed:
        store.note(STREAM_DELETED, place)
        if store.effects.recording:
            store.begin_elements(RECORD_STREAM_DELETE, place)
            put_id(store, id)
    return True


cdef uint64_t stream_trim(Store store, Place* place, Entry* entry, StreamId until) except? 0xFFFFFFFFFFFFFFFF:
    """Removes all entries up to this id, included; how many."""
    cdef Stream value = stream_of(entry)
    cdef int64_t before = value.size_in_memory()
    cdef uint64_t length = value.length
    cdef bint observed = store.prepare(place, ID_BYTES)
    cdef object removed = value.trim(until)
    place.db.memory += value.size_in_memory() - before
    if removed is not None:
        store.hand_over(removed)
    if value.length == length:
        return 0
    store.dirty += 1
    if observed:
        store.note(STREAM_TRIMMED, place)
        if store.effects.recording:
            store.begin(RECORD_STREAM_TRIM, place)
            put_id(store, until)
            store.effects.put_number(length - value.length)
    return length - value.length


cdef int stream_set_meta(
    Store store, Place* place, Entry** held, StreamId last, uint64_t added, StreamId max_deleted, int kind
) except -1:
    """What a stream says of itself beyond its entries; one without entries is made if need be."""
    cdef Stream value
    cdef bint observed = store.prepare(place, 0)
    if held[0] == NULL:
        value = Stream()
        hold_object(store, place, held, TYPE_STREAM, value)
    else:
        value = stream_of(held[0])
    value.let_last(last)
    value.added, value.max_deleted = added, max_deleted
    store.dirty += 1
    if observed:
        if kind >= 0:
            store.note(kind, place)
        if store.effects.recording:
            tell_stream_meta(store, place, value)
    return 0


cdef void tell_stream_meta(Store store, Place* place, Stream value) noexcept:
    store.begin(RECORD_STREAM_META, place)
    put_id(store, value.last)
    store.effects.put_number(value.added)
    put_id(store, value.max_deleted)


# Groups -----------------------------------------------------------------------------------------------
cdef object group_in(Stream value, bytes name):
    """The group of this name, which is there; KeyError otherwise."""
    cdef object group = value.group_of(name)
    if group is None:
        raise KeyError(name)
    return group


cdef int recount(Place* place, Stream value, object group, int64_t before) except -1:
    """A group has changed that had `before` bytes."""
    cdef int64_t now = value.group_bytes
    value.count_group(group, before)
    place.db.memory += value.group_bytes - now
    return 0


cdef int group_put(Store store, Place* place, Entry* entry, bytes name, object last, int64_t read, int kind) except -1:
    """The group, which is made if need be, has delivered everything up to this id: so many entries, -1 if unknown."""
    cdef Stream value = stream_of(entry)
    cdef bint observed = store.prepare(place, PyBytes_GET_SIZE(name))
    cdef object group = value.group_of(name)
    if group is None:
        group = Group(name, last, read, value.next_group())
        recount(place, value, group, 0)
    else:
        group.last, group.read = last, read
    store.dirty += 1
    if observed:
        if kind >= 0:
            store.note(kind, place)
        if store.effects.recording:
            tell_group(store, place, group)
    return 0


cdef int tell_group(Store store, Place* place, object group) except -1:
    cdef bytes name = group.name
    cdef StreamId last = id_of(group.last)
    cdef int64_t read = group.read
    store.begin(RECORD_GROUP_PUT, place)
    put_name(store, name)
    put_id(store, last)
    store.effects.put_number(<uint64_t> (read + 1))
    return 0


cdef bint group_drop(Store store, Place* place, Entry* entry, bytes name) except -1:
    """Removes the group with all that it has; whether it was there."""
    cdef Stream value = stream_of(entry)
    cdef bint observed = store.prepare(place, PyBytes_GET_SIZE(name))
    cdef object group = value.group_of(name)
    cdef int64_t before = value.group_bytes
    if group is None:
        return False
    del value.groups[name]
    value.group_bytes -= <int64_t> group.memory
    place.db.memory += value.group_bytes - before
    store.hand_over(group)
    store.dirty += 1
    if observed:
        store.note(GROUP_DESTROYED, place)
        if store.effects.recording:
            store.begin(RECORD_GROUP_DROP, place)
            put_name(store, name)
    return True


cdef bint consumer_put(
    Store store, Place* place, Entry* entry, bytes group_name, bytes name, int64_t seen, int64_t active, int kind
) except -1:
    """The consumer, made if need be, was seen then and got something then (-1: never), unix ms; whether it is new."""
    cdef Stream value = stream_of(entry)
    cdef bint observed = store.prepare(place, PyBytes_GET_SIZE(group_name) + PyBytes_GET_SIZE(name))
    cdef object group = group_in(value, group_name)
    cdef int64_t before = group.memory
    cdef bint fresh = group.consumer_put(name, seen, active)
    recount(place, value, group, before)
    store.dirty += 1
    if observed:
        if kind >= 0 and fresh:
            store.note(kind, place)
        if store.effects.recording:
            tell_consumer(store, place, group_name, group.consumers[name])
    return fresh


cdef int tell_consumer(Store store, Place* place, bytes group_name, object consumer) except -1:
    cdef bytes name = consumer.name
    cdef int64_t seen = consumer.seen, active = consumer.active
    store.begin(RECORD_CONSUMER_PUT, place)
    put_name(store, group_name)
    put_name(store, name)
    store.effects.put_deadline(seen)
    store.effects.put_deadline(active)
    return 0


cdef int64_t consumer_drop(Store store, Place* place, Entry* entry, bytes group_name, bytes name) except -2:
    """Removes the consumer with what it has; how many entries that were, -1 when it was not there."""
    cdef Stream value = stream_of(entry)
    cdef bint observed = store.prepare(place, PyBytes_GET_SIZE(group_name) + PyBytes_GET_SIZE(name))
    cdef object group = group_in(value, group_name), detached = None
    cdef int64_t before = group.memory, dropped
    if name not in group.consumers:
        return -1
    dropped = group.consumers[name].count
    if dropped >= LARGE_COLLECTION:
        detached = group.detach_all(name)
    group.consumer_drop(name)
    recount(place, value, group, before)
    if detached is not None:
        store.hand_over(detached)
    store.dirty += 1
    if observed:
        store.note(CONSUMER_DELETED, place)
        if store.effects.recording:
            store.begin(RECORD_CONSUMER_DROP, place)
            put_name(store, group_name)
            put_name(store, name)
    return dropped


cdef int pending_put(
    Store store, Place* place, Entry* entry, bytes group_name, bytes name, int64_t delivered, uint64_t count, list ids
) except -1:
    """The consumer, which is there, has these entries: delivered then (unix ms), and so often."""
    cdef Stream value = stream_of(entry)
    cdef bint observed
    cdef object group = group_in(value, group_name)
    cdef int64_t before = group.memory
    if not ids:
        return 0
    observed = store.prepare(
        place, PyBytes_GET_SIZE(group_name) + PyBytes_GET_SIZE(name) + len(ids) * ID_BYTES + RECORD_OVERHEAD)
    group.pending_put(ids, name, delivered, count)
    recount(place, value, group, before)
    store.dirty += 1
    if observed and store.effects.recording:
        tell_delivery(store, place, group_name, name, delivered, count, ids)
    return 0


cdef int tell_delivery(
    Store store, Place* place, bytes group_name, bytes name, int64_t delivered, uint64_t count, list ids
) except -1:
    store.begin(RECORD_PENDING_PUT, place)
    put_name(store, group_name)
    put_name(store, name)
    store.effects.put_deadline(delivered)
    store.effects.put_number(count)
    store.effects.put_number(len(ids))
    for number in ids:
        put_id(store, id_of(number))
    return 0


cdef int group_deliver(
    Store store, Place* place, Entry* entry, bytes group_name, bytes name, list ids, int64_t read, bint pends
) except -1:
    """A consumer, made if need be, gets these entries, some, which its group has not delivered before: `read` is its counter
    behind them. Without `pends` nobody has to acknowledge them."""
    cdef Stream value = stream_of(entry)
    cdef object group = group_in(value, group_name)
    cdef int64_t before = group.memory
    cdef bint observed = store.prepare(
        place, 3 * PyBytes_GET_SIZE(group_name) + 2 * PyBytes_GET_SIZE(name) + len(ids) * ID_BYTES + 3 * RECORD_OVERHEAD)
    cdef bint fresh = group.consumer_put(name, store.now_ms, store.now_ms)
    group.last, group.read = ids[len(ids) - 1], read
    if pends:
        group.pending_put(ids, name, store.now_ms, 1)
    recount(place, value, group, before)
    store.dirty += 1
    if observed:
        if fresh:
            store.note(CONSUMER_CREATED, place)
        if store.effects.recording:
            tell_consumer(store, place, group_name, group.consumers[name])
            tell_group(store, place, group)
            if pends:
                tell_delivery(store, place, group_name, name, store.now_ms, 1, ids)
    return 0


cdef int64_t pending_drop(Store store, Place* place, Entry* entry, bytes group_name, list ids) except -1:
    """These entries are pending no more; how many were."""
    cdef Stream value = stream_of(entry)
    cdef object group = group_in(value, group_name)
    cdef int64_t before = group.memory
    cdef list dropped = [number for number in dict.fromkeys(ids) if number in group.pending]
    cdef bint observed
    cdef StreamId id
    if not dropped:
        return 0
    observed = store.prepare(place, PyBytes_GET_SIZE(group_name) + len(dropped) * ID_BYTES)
    group.pending_drop(dropped)
    recount(place, value, group, before)
    store.dirty += 1
    if observed and store.effects.recording:
        store.begin(RECORD_PENDING_DROP, place)
        put_name(store, group_name)
        store.effects.put_number(len(dropped))
        for number in dropped:
            id = id_of(number)
            put_id(store, id)
    return len(dropped)


# Whole streams ----------------------------------------------------------------------------------------
cdef int stream_replace(Store store, Place* place, Stream fresh, int64_t deadline, int kind) except -1:
    """The key becomes this stream, with this deadline (0: none)."""
    cdef bint observed = store.prepare(place, record_size(fresh, place))
    cdef Entry* old = store.find(place)
    store.put_object(place, old, TYPE_STREAM, fresh, deadline)
    store.dirty += 1
    if observed:
        store.note(kind, place)
        if store.effects.recording:
            if old != NULL:
                store.begin(RECORD_DELETE, place)
            tell_stream(store, place, fresh)
            if deadline:
                tell_deadline(store, place, deadline)
    return 0


cdef size_t record_size(Stream value, Place* place) except? 0:
    """More bytes than the records of the whole stream take."""
    # Names of fields that a chunk has once are said with every entry.
    cdef size_t size = RECORD_OVERHEAD * 4, names = 0
    cdef StreamId zero
    cdef StreamWalk walk
    cdef PairWalk pairs
    zero.ms = zero.seq = 0
    walk = entries_from(value, zero)
    while next_living(&walk):
        size += RECORD_OVERHEAD
        pairs = pairs_of(&walk)
        while next_pair(&pairs):
            size += pairs.field.size + pairs.value.size + 20
    for group in (value.groups or {}).values():
        names = len(group.name)
        size += RECORD_OVERHEAD + names
        for consumer in group.consumers.values():
            size += RECORD_OVERHEAD + names + <size_t> len(consumer.name)
        for pending in group.pending.values():
            size += RECORD_OVERHEAD + names + <size_t> len((<Pending> pending).consumer)
    return size


cdef int tell_stream(Store store, Place* place, Stream value) except -1:
    cdef StreamId zero
    cdef StreamWalk walk
    cdef PairWalk pairs
    zero.ms = zero.seq = 0
    walk = entries_from(value, zero)
    while next_living(&walk):
        store.begin(RECORD_STREAM_ADD, place)
        put_id(store, walk.id)
        pairs = pairs_of(&walk)
        store.effects.put_number(pairs.left)
        while next_pair(&pairs):
            store.effects.put_bytes(pairs.field.data, pairs.field.size)
            store.effects.put_bytes(pairs.value.data, pairs.value.size)
    tell_stream_meta(store, place, value)
    for group in (value.groups or {}).values():
        tell_group(store, place, group)
        for consumer in group.consumers.values():
            tell_consumer(store, place, group.name, consumer)
        for pending in group.pending.values():
            tell_pending(store, place, group.name, <Pending> pending)
    return 0


cdef int tell_pending(Store store, Place* place, bytes group_name, Pending pending) except -1:
    cdef StreamId id = id_of(pending.id)
    store.begin(RECORD_PENDING_PUT, place)
    put_name(store, group_name)
    put_name(store, pending.consumer)
    store.effects.put_deadline(pending.delivered)
    store.effects.put_number(pending.count)
    store.effects.put_number(1)
    put_id(store, id)
    return 0
