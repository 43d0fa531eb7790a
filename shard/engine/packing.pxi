# Packed values of entries: how they are made, changed, read as objects, and become objects (packed.pxd has their form).
#
# `held` is where the caller keeps the entry it has found, NULL for no key. What moves the block, or makes or replaces it,
# leaves the new one there. Each of these asks for memory before it changes anything and raises MemoryError then; a value
# that has become an object by then is the same value. What a mutator tells is the mutator's (lists.pxi, hashes.pxi,
# zsets.pxi). The types follow in packed_fields.pxi, packed_zsets.pxi and packed_lists.pxi. UNFIT means: nothing was changed,
# and the value has to become an object first.

cdef enum:
    UNFIT = -3


# Blocks -----------------------------------------------------------------------------------------------
cdef Entry* packed_new(Store store, Place* place, uint8_t flags, size_t header, size_t room) except NULL:
    """An entry without elements that nobody sees yet."""
    cdef Entry* entry = entry_new(place.key, place.n, NULL, header, flags | PACKED, store.fresh_clock(), room)
    if entry == NULL:
        raise MemoryError("no memory for a key")
    memset(entry_value(entry), 0, header)
    return entry


cdef bint packed_move(Store store, Place* place, Entry** held, size_t room) except -1:
    """The same value in another block; False without memory."""
    cdef Entry* entry = held[0]
    cdef Entry* fresh = entry_new(
        entry_key(entry), entry_key_size(entry), entry_value(entry), entry_value_size(entry), entry.flags, entry.clock, room)
    if fresh == NULL:
        return False
    held[0] = fresh
    store.swap_block(place, entry, fresh, entry_deadline(entry))
    return True


cdef char* packed_splice(
    Store store, Place* place, Entry** held, size_t offset, size_t removed, size_t added, size_t more
) except NULL:
    """`added` bytes in the place of `removed` at an offset of the value; where they are to be written. About `more`
    will follow."""
    cdef size_t size = entry_value_size(held[0]), n = size - removed + added
    cdef char* at
    if added > removed and n > entry_room(held[0]) and (
        not packed_move(store, place, held, n + more + (n >> 4 if n >= ROOMY else 0))
    ):
        raise MemoryError("no memory for an element")
    at = entry_value(held[0]) + offset
    if added != removed:
        memmove(at + added, at + removed, size - offset - removed)
        entry_set_value_size(held[0], n)
    return at


cdef int packed_cut(Store store, Place* place, Entry** held, size_t offset, size_t removed) except -1:
    """Takes bytes out of the value. It does not fail: without memory the block stays as large as it is."""
    cdef char* at = entry_value(held[0]) + offset
    cdef size_t size = entry_value_size(held[0]), room
    memmove(at, at + removed, size - offset - removed)
    entry_set_value_size(held[0], size - removed)
    room = entry_room(held[0])
    if room >= 128 and (size - removed) * 2 < room:
        packed_move(store, place, held, size - removed)
    return 0


cdef inline int packed_count_by(Entry* entry, int change) noexcept:
    cdef char* block = entry_value(entry)
    packed_set_count(block, packed_count(block) + change)
    return 0


cdef int hold_object(Store store, Place* place, Entry** held, int type, object value) except -1:
    """The key's value is this object from here on; its clock and deadline stay."""
    cdef Entry* old = held[0]
    cdef PyObject* reference = <PyObject*> value
    cdef Entry* entry
    if old == NULL:
        store.put_object(place, NULL, type, value, 0)
        held[0] = store.find(place)
        return 0
    entry = entry_new(
        place.key, place.n, <char*> &reference, sizeof(reference), type | (old.flags & HAS_TTL), old.clock, 0)
    if entry == NULL:
        raise MemoryError("no memory for a key")
    store.swap_block(place, old, entry, entry_deadline(old))
    Py_INCREF(value)
    place.db.memory += <int64_t> value.memory
    held[0] = entry
    return 0


cdef uint32_t packed_length(Entry* entry) noexcept:
    return packed_count(entry_value(entry))


cdef Py_ssize_t elements_in(Entry* entry) except -1:
    """Of a collection."""
    return packed_length(entry) if entry.flags & PACKED else len(<object> entry_object(entry))


cdef int put_packed_entry(Store store, Place* place, Entry* fresh, int64_t deadline) except -1:
    """What was made by `packed_new` becomes the key's value, in place of what it holds; taken over as by `put_entry`."""
    return store.put_entry(place, store.find(place), fresh, deadline)


# Checking ---------------------------------------------------------------------------------------------
cdef int packed_check(Entry* entry) except -1:
    """Asserts every invariant of a packed value."""
    cdef int type = entry.flags & TYPE_MASK
    cdef const char* block = entry_value(entry)
    cdef const char* at = block + (LIST_HEADER if type == TYPE_LIST else HEADER)
    cdef const char* end = block + entry_value_size(entry)
    cdef uint32_t count = packed_count(block), found = 0, bytes = LISTPACK_OVERHEAD, i
    cdef char[TEXT] scratch
    cdef Span text
    cdef set names = set()
    cdef list pairs = []
    assert type != TYPE_STRING and count > 0, "an empty packed collection was kept"
    if entry.flags & INTSET:
        numbers = [intset_at(block, i) for i in range(count)]
        assert type == TYPE_SET and numbers == sorted(set(numbers)), "a set of integers is not in order"
        assert block + SET_HEADER + count * intset_width(block) == end, "a set of integers has another size"
        return 0
    while at < end:
        text = item_text(at, scratch)
        name = PyBytes_FromStringAndSize(text.data, text.size)
        names.add(name)
        if type == TYPE_LIST:
            bytes += listpack_bytes(at)
            assert element_before(at + element_span(at)) == at, "an element cannot be found from the tail"
            at += element_span(at)
        else:
            at += item_span(at)
            if type == TYPE_ZSET:
                pairs.append((item_score(at), name))
            if type != TYPE_SET:
                at += item_span(at)
        found += 1
    assert at == end and found == count, "a packed collection has another size than it says"
    assert type == TYPE_LIST or len(names) == count, "a packed element twice"
    assert type != TYPE_LIST or bytes == list_bytes(block), "a packed list has another size than it says"
    assert pairs == sorted(pairs), "a packed sorted set is not in order"
    return 0
