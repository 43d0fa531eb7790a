# Packed lists; see packing.pxi.

cdef inline bint list_exceeds(uint32_t bytes, uint32_t count) noexcept nogil:
    return bytes > limits.list_bytes or count > limits.list_entries


cdef inline char* element_write(char* at, const Item* item) noexcept nogil:
    return back_write(item_write(at, item), item_bytes(item))


cdef inline size_t element_bytes(const Item* item) noexcept nogil:
    return item_bytes(item) + back_bytes(item_bytes(item))


cdef inline uint32_t listpack_item(const Item* item) noexcept nogil:
    cdef char[12] start
    memcpy(start, item.head, 12)
    return listpack_bytes(start)


cdef bint elements_put(Store store, Place* place, Entry** held, Span* elements, Py_ssize_t n, bint left) except -1:
    """Adds elements one after another at an end of a packed list, or makes one; False: it has become too large for that,
    and nothing was changed."""
    cdef size_t added = 0, raw = 0
    cdef uint32_t bytes = LISTPACK_OVERHEAD, count = 0
    cdef Py_ssize_t i
    cdef Item item
    cdef Entry* entry = held[0]
    cdef char* at
    if entry != NULL:
        bytes = list_bytes(entry_value(entry))
        count = packed_length(entry)
    for i in range(n):
        raw += elements[i].size
        if raw > LARGEST_PACKED:
            return False
        item = item_of(elements[i].data, elements[i].size)
        added += element_bytes(&item)
    # As the real server reckons: the lengths of what comes, without what encodes them.
    if n > MOST_PACKED or list_exceeds(bytes + <uint32_t> raw, count + <uint32_t> n):
        return False
    if entry == NULL:
        entry = packed_new(store, place, TYPE_LIST, LIST_HEADER, LIST_HEADER + added)
        at = entry_value(entry) + LIST_HEADER
        entry_set_value_size(entry, LIST_HEADER + added)
    else:
        at = packed_splice(store, place, held, LIST_HEADER if left else entry_value_size(entry), 0, added, 0)
        entry = held[0]
    for i in range(n):
        item = item_of(elements[n - 1 - i].data, elements[n - 1 - i].size) if left else (
            item_of(elements[i].data, elements[i].size))
        at = element_write(at, &item)
        bytes += listpack_item(&item)
    packed_set_count(entry_value(entry), count + <uint32_t> n)
    list_set_bytes(entry_value(entry), bytes)
    if held[0] == NULL:
        store.insert(place, entry, 0)
        held[0] = entry
    return True


cdef bint element_put(
    Store store, Place* place, Entry** held, uint32_t index, bint replaces, const char* element, size_t n
) except -1:
    """Puts an element before that of an index, or in its place; False as `elements_put`."""
    cdef char* block = entry_value(held[0])
    cdef size_t offset, old = 0
    cdef uint32_t bytes = list_bytes(block)
    cdef Item item
    cdef char* at
    if n > LARGEST_PACKED or list_exceeds(bytes + <uint32_t> n, packed_count(block) + 1):
        return False
    item = item_of(element, n)
    offset = list_element(block, entry_value_size(held[0]), index) - block
    if replaces:
        old = element_span(block + offset)
        bytes -= listpack_bytes(block + offset)
    at = packed_splice(store, place, held, offset, old, element_bytes(&item), 0)
    element_write(at, &item)
    list_set_bytes(entry_value(held[0]), bytes + listpack_item(&item))
    packed_count_by(held[0], 0 if replaces else 1)
    return True


cdef int elements_cut(Store store, Place* place, Entry** held, uint32_t start, uint32_t stop) except -1:
    """Removes the elements [start, stop) of a packed list. It does not fail."""
    cdef char* block = entry_value(held[0])
    cdef const char* first = list_element(block, entry_value_size(held[0]), start)
    cdef const char* at = first
    cdef uint32_t bytes = list_bytes(block), i
    for i in range(stop - start):
        bytes -= listpack_bytes(at)
        at += element_span(at)
    list_set_bytes(block, bytes)
    packed_count_by(held[0], -<int> (stop - start))
    return packed_cut(store, place, held, first - block, at - first)


cdef list elements_between(Entry* entry, uint32_t start, uint32_t stop):
    """The elements [start, stop) of a packed list."""
    cdef const char* at = list_element(entry_value(entry), entry_value_size(entry), start)
    cdef char[TEXT] scratch
    cdef Span text
    cdef list found = []
    while start < stop:
        text = item_text(at, scratch)
        found.append(PyBytes_FromStringAndSize(text.data, text.size))
        at += element_span(at)
        start += 1
    return found


cdef ListValue elements_copied(Entry* entry):
    """A packed list as an object."""
    cdef ListValue made = ListValue()
    cdef const char* at = entry_value(entry) + LIST_HEADER
    cdef const char* end = entry_value(entry) + entry_value_size(entry)
    cdef char[TEXT] scratch
    cdef Span text
    while at < end:
        text = item_text(at, scratch)
        made.put(text.data, text.size, False)
        at += element_span(at)
    return made


cdef ListValue elements_seen(Entry* entry):
    """What a reader sees of an entry, NULL for none: its object, or a copy of what is packed."""
    if entry == NULL:
        return None
    return elements_copied(entry) if entry.flags & PACKED else <ListValue> <object> entry_object(entry)


cdef ListValue elements_unpacked(Store store, Place* place, Entry** held):
    """As `fields_unpacked`."""
    cdef ListValue value
    if held[0] != NULL and not held[0].flags & PACKED:
        return <ListValue> <object> entry_object(held[0])
    value = ListValue() if held[0] == NULL else elements_copied(held[0])
    if held[0] != NULL:
        hold_object(store, place, held, TYPE_LIST, value)
    return value


cdef Entry* elements_packed(Store store, Place* place, ListValue value, uint8_t time, uint32_t part) except? NULL:
    """An entry of the elements, packed, with HAS_TTL or 0 for `time`; NULL if they take more than one `part`-th of what
    is allowed."""
    cdef ElementWalk walk
    cdef const char* element
    cdef uint32_t bytes = LISTPACK_OVERHEAD
    cdef size_t n = LIST_HEADER
    cdef Entry* entry = NULL
    cdef Item item
    cdef char* at = NULL
    cdef int turn
    # Its payload is about what a listpack would have: a look at a long list ends here.
    if value.length > limits.list_entries // part or value.chunks.payload > 4 * <int64_t> limits.list_bytes:
        return NULL
    for turn in range(2):
        walk = elements_from(value, 0)
        element = next_element(&walk)
        while element != NULL:
            item = item_of(element_data(element), element_size(element))
            if turn:
                at = element_write(at, &item)
            else:
                n += element_bytes(&item)
                bytes += listpack_item(&item)
                if bytes > limits.list_bytes // part:
                    return NULL
            element = next_element(&walk)
        if turn == 0:
            entry = packed_new(store, place, TYPE_LIST | time, LIST_HEADER, n)
            at = entry_value(entry) + LIST_HEADER
    entry_set_value_size(entry, n)
    packed_set_count(entry_value(entry), <uint32_t> value.length)
    list_set_bytes(entry_value(entry), bytes)
    return entry


cdef int list_shrunk(Store store, Place* place, Entry** held) except -1:
    """Behind a removal from a list that is an object: packed again when half of what is allowed would do, as in the real
    server. Without memory it stays as it is."""
    cdef Entry* entry = held[0]
    cdef Entry* fresh = NULL
    cdef ListValue value = <ListValue> <object> entry_object(entry)
    if value.length == 0 or value.chunks.payload > <int64_t> limits.list_bytes // 2:
        return 0
    try:
        fresh = elements_packed(store, place, value, entry.flags & HAS_TTL, 2)
    except MemoryError:
        return 0
    if fresh != NULL:
        fresh.clock = entry.clock
        store.put_entry(place, entry, fresh, entry_deadline(entry))
        held[0] = fresh
    return 0
