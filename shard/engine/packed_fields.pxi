# Packed hashes and sets; see packing.pxi.

cdef int hash_put(
    Store store, Place* place, Entry** held, const char* field, size_t field_size, const char* value, size_t n, size_t more
) except -1:
    """1: a new field; 0: its value was replaced; UNFIT. `more`: about so many bytes will follow."""
    cdef Item name, item
    cdef const char* found
    cdef char* block
    cdef char* at
    cdef size_t size, added
    if field_size > limits.hash_value or n > limits.hash_value:
        return UNFIT
    name = item_of(field, field_size)
    item = item_of(value, n)
    added = item_bytes(&name) + item_bytes(&item)
    if held[0] == NULL:
        return packed_first(store, place, held, TYPE_HASH, limits.hash_entries, &name, &item, more)
    block = entry_value(held[0])
    size = entry_value_size(held[0])
    found = find_item(block + HEADER, block + size, &name, True)
    if found != NULL:
        if packed_count(block) > limits.hash_entries:
            return UNFIT
        found += item_span(found)
        at = packed_splice(store, place, held, found - block, item_span(found), item_bytes(&item), 0)
        item_write(at, &item)
        return 0
    if packed_count(block) >= limits.hash_entries or size + added > LARGEST_PACKED:
        return UNFIT
    item_write(item_write(packed_splice(store, place, held, size, 0, added, more), &name), &item)
    packed_count_by(held[0], 1)
    return 1


cdef int packed_first(
    Store store, Place* place, Entry** held, uint8_t type, uint32_t most, const Item* first, const Item* second, size_t more
) except -1:
    """A hash, set (`second` is NULL) or sorted set of one element; 1, or UNFIT."""
    cdef size_t n = HEADER + item_bytes(first) + (item_bytes(second) if second != NULL else 0)
    cdef Entry* entry
    cdef char* at
    if most == 0:
        return UNFIT
    entry = packed_new(store, place, type, HEADER, n + more)
    at = item_write(entry_value(entry) + HEADER, first)
    if second != NULL:
        item_write(at, second)
    entry_set_value_size(entry, n)
    packed_count_by(entry, 1)
    store.insert(place, entry, 0)
    held[0] = entry
    return 1


cdef int set_put(Store store, Place* place, Entry** held, const char* member, size_t n, size_t more) except -1:
    """1: a new member; 0: it was there; UNFIT."""
    cdef Item item
    cdef int64_t number
    cdef char* block
    cdef size_t size
    cdef bint is_number = shortest_int(member, n, &number)
    if is_number and (limits.set_integers and more != AS_ITEMS if held[0] == NULL else held[0].flags & INTSET):
        return intset_put(store, place, held, number)
    if held[0] != NULL and held[0].flags & INTSET:
        if n > limits.set_value or not intset_to_items(store, place, held):
            return UNFIT
    item = item_of(member, n)
    if held[0] == NULL:
        if n > limits.set_value:
            return UNFIT
        return packed_first(
            store, place, held, TYPE_SET, limits.set_entries, &item, NULL, 0 if more == AS_ITEMS else more)
    block = entry_value(held[0])
    size = entry_value_size(held[0])
    if find_item(block + HEADER, block + size, &item, False) != NULL:
        return 0
    if packed_count(block) >= limits.set_entries or n > limits.set_value or size + item_bytes(&item) > LARGEST_PACKED:
        return UNFIT
    item_write(packed_splice(store, place, held, size, 0, item_bytes(&item), 0 if more == AS_ITEMS else more), &item)
    packed_count_by(held[0], 1)
    return 1


cdef inline int intset_class(int64_t number) noexcept nogil:
    """Bytes of each integer of a set that has this one."""
    cdef int n = number_width(number)
    return n if n <= 2 else 4 if n <= 4 else 8


cdef int intset_put(Store store, Place* place, Entry** held, int64_t number) except -1:
    cdef Entry* entry
    cdef char* block
    cdef uint32_t at, count
    cdef int width = intset_class(number)
    if held[0] == NULL:
        entry = packed_new(store, place, TYPE_SET | INTSET, SET_HEADER, SET_HEADER + width)
        entry_value(entry)[HEADER] = <char> width
        memcpy(entry_value(entry) + SET_HEADER, &number, width)
        entry_set_value_size(entry, SET_HEADER + width)
        packed_count_by(entry, 1)
        store.insert(place, entry, 0)
        held[0] = entry
        return 1
    block = entry_value(held[0])
    count = packed_count(block)
    if intset_find(block, number, &at):
        return 0
    if count >= limits.set_integers:
        return UNFIT
    if width > intset_width(block):
        intset_widen(store, place, held, width, <size_t> (count + 1) * width)
    else:
        width = intset_width(block)
    memcpy(packed_splice(store, place, held, SET_HEADER + <size_t> at * width, 0, width, 0), &number, width)
    packed_count_by(held[0], 1)
    return 1


cdef int intset_widen(Store store, Place* place, Entry** held, int width, size_t bytes) except -1:
    """More bytes for each integer, in a block with room for `bytes` of them."""
    cdef uint32_t count = packed_length(held[0]), i = count
    cdef size_t n = SET_HEADER + <size_t> count * width
    cdef char* block
    cdef int64_t number
    if SET_HEADER + bytes > entry_room(held[0]) and not packed_move(store, place, held, SET_HEADER + bytes):
        raise MemoryError("no memory for an element")
    block = entry_value(held[0])
    while i:
        i -= 1
        number = intset_at(block, i)
        memcpy(block + SET_HEADER + <size_t> i * width, &number, width)
    block[HEADER] = <char> width
    entry_set_value_size(held[0], n)
    return 0


cdef bint intset_to_items(Store store, Place* place, Entry** held) except -1:
    """A set of integers becomes one of items, in their order, if one more of those fits; else False."""
    cdef Entry* entry = held[0]
    cdef Entry* fresh
    cdef const char* block = entry_value(entry)
    cdef uint32_t count = packed_count(block), i
    cdef char[TEXT] scratch
    cdef char* at
    cdef Item item
    if count >= limits.set_entries or max(
        format_int64(scratch, intset_at(block, 0)), format_int64(scratch, intset_at(block, count - 1))
    ) > <int64_t> limits.set_value:
        return False
    fresh = entry_new(
        place.key, place.n, NULL, HEADER, entry.flags & ~INTSET, entry.clock, HEADER + 9 * <size_t> count)
    if fresh == NULL:
        raise MemoryError("no memory for an element")
    packed_set_count(entry_value(fresh), count)
    at = entry_value(fresh) + HEADER
    for i in range(count):
        item = item_of_int(intset_at(block, i))
        at = item_write(at, &item)
    entry_set_value_size(fresh, at - entry_value(fresh))
    held[0] = fresh
    store.swap_block(place, entry, fresh, entry_deadline(entry))
    return True


cdef bint packed_has(Entry* entry, int type, const char* member, size_t n, const char** found) noexcept:
    """Whether a packed hash or set has it; of a hash, where its pair is."""
    cdef const char* block = entry_value(entry)
    cdef Item item
    cdef int64_t number
    cdef uint32_t at
    if entry.flags & INTSET:
        return shortest_int(member, n, &number) and intset_find(block, number, &at)
    item = item_of(member, n)
    if type == TYPE_HASH:
        found[0] = find_item(block + HEADER, block + entry_value_size(entry), &item, True)
    else:
        found[0] = find_item(block + HEADER, block + entry_value_size(entry), &item, False)
    return found[0] != NULL


cdef bint packed_take(Store store, Place* place, Entry** held, int type, const char* member, size_t n) except -1:
    """Removes a field or member; whether it was there."""
    cdef const char* block = entry_value(held[0])
    cdef const char* found = NULL
    cdef int64_t number
    cdef uint32_t at
    cdef int width
    if held[0].flags & INTSET:
        if not shortest_int(member, n, &number) or not intset_find(block, number, &at):
            return False
        width = intset_width(block)
        packed_cut(store, place, held, SET_HEADER + <size_t> at * width, width)
    else:
        if not packed_has(held[0], type, member, n, &found):
            return False
        packed_cut(store, place, held, found - block, skip_items(found, 2 if type == TYPE_HASH else 1) - found)
    packed_count_by(held[0], -1)
    return True


cdef FieldTable fields_copied(Entry* entry):
    """A packed hash or set as an object."""
    cdef FieldTable table = FieldTable()
    cdef const char* block = entry_value(entry)
    cdef const char* end = block + entry_value_size(entry)
    cdef const char* at = block + HEADER
    cdef size_t n = entry_value_size(entry)
    cdef char* into
    cdef uint32_t i
    cdef Item item
    if (entry.flags & TYPE_MASK) == TYPE_HASH:
        table.make_room(n)
        memcpy(table.block, block, n)
        table.block_size = n
        return table
    # As a hash has them, each with an empty value.
    table.make_room(n + 9 * <size_t> packed_count(block))
    into = table.block + HEADER
    for i in range(packed_count(block)):
        if entry.flags & INTSET:
            item = item_of_int(intset_at(block, i))
            into = item_write(into, &item)
        else:
            memcpy(into, at, item_span(at))
            into += item_span(at)
            at += item_span(at)
        into[0] = 0
        into += 1
    packed_set_count(table.block, packed_count(block))
    table.block_size = into - table.block
    return table


cdef FieldTable fields_seen(Entry* entry):
    """What a reader sees of an entry, NULL for none: its object, or a copy of what is packed."""
    if entry == NULL:
        return None
    return fields_copied(entry) if entry.flags & PACKED else <FieldTable> <object> entry_object(entry)


cdef FieldTable fields_unpacked(Store store, Place* place, Entry** held, int type):
    """The value of the key as an object that the key holds; an empty one, which it does not, without the key."""
    cdef FieldTable table
    if held[0] != NULL and not held[0].flags & PACKED:
        return <FieldTable> <object> entry_object(held[0])
    table = FieldTable() if held[0] == NULL else fields_copied(held[0])
    table.unpack()
    if held[0] != NULL:
        hold_object(store, place, held, type, table)
    return table


cdef bint fits_items(FieldTable table, uint32_t most_count, size_t most_bytes, size_t* n) noexcept:
    """Whether each field and value is small enough; bytes of all as items at most."""
    cdef FieldWalk walk = fields_from(table)
    if table.count() > most_count or table.heap.count:
        return False
    n[0] = HEADER
    while next_field(&walk):
        if <size_t> walk.field.size > most_bytes or <size_t> walk.value.size > most_bytes:
            return False
        n[0] += walk.field.size + walk.value.size + 12
    return n[0] <= LARGEST_PACKED


cdef Entry* fields_packed(Store store, Place* place, int type, FieldTable table, uint8_t time) except? NULL:
    """An entry of the fields, packed, with HAS_TTL or 0 for `time`; NULL if they do not fit."""
    cdef Entry* entry
    cdef FieldWalk walk
    cdef Item item
    cdef size_t n
    cdef char* at
    if type == TYPE_SET:
        entry = intset_packed(store, place, table, time)
        if entry != NULL:
            return entry
    if not fits_items(
        table, limits.hash_entries if type == TYPE_HASH else limits.set_entries,
        limits.hash_value if type == TYPE_HASH else limits.set_value, &n
    ):
        return NULL
    # An array of the size is not known before they are items.
    n = HEADER
    walk = fields_from(table)
    while next_field(&walk):
        item = item_of(walk.field.data, walk.field.size)
        n += item_bytes(&item)
        if type == TYPE_HASH:
            item = item_of(walk.value.data, walk.value.size)
            n += item_bytes(&item)
    entry = packed_new(store, place, type | time, HEADER, n)
    at = entry_value(entry) + HEADER
    walk = fields_from(table)
    while next_field(&walk):
        item = item_of(walk.field.data, walk.field.size)
        at = item_write(at, &item)
        if type == TYPE_HASH:
            item = item_of(walk.value.data, walk.value.size)
            at = item_write(at, &item)
    entry_set_value_size(entry, n)
    packed_set_count(entry_value(entry), table.count())
    return entry


cdef Entry* intset_packed(Store store, Place* place, FieldTable table, uint8_t time) except? NULL:
    """An entry of the members, if they are all integers and few enough; else NULL."""
    cdef FieldWalk walk = fields_from(table)
    cdef Entry* entry
    cdef list numbers = []
    cdef int64_t number
    cdef int width = 1
    cdef char* at
    if table.count() > limits.set_integers:
        return NULL
    while next_field(&walk):
        if not shortest_int(walk.field.data, walk.field.size, &number):
            return NULL
        numbers.append(number)
        width = max(width, intset_class(number))
    numbers.sort()
    entry = packed_new(store, place, TYPE_SET | INTSET | time, SET_HEADER, SET_HEADER + len(numbers) * <size_t> width)
    at = entry_value(entry) + SET_HEADER
    for number in numbers:
        memcpy(at, &number, width)
        at += width
    entry_value(entry)[HEADER] = <char> width
    packed_set_count(entry_value(entry), <uint32_t> len(numbers))
    entry_set_value_size(entry, at - entry_value(entry))
    return entry
