# Packed values of entries: how they are made, changed, read as objects, and become objects (packed.pxd has their form).
#
# `held` is where the caller keeps the entry it has found, NULL for no key. What moves the block, or makes or replaces it,
# leaves the new one there. Each of these asks for memory before it changes anything and raises MemoryError then; a value
# that has become an object by then is the same value. What a mutator tells is the mutator's (lists.pxi, hashes.pxi,
# zsets.pxi). UNFIT means: nothing was changed, and the value has to become an object first.

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


# Hashes and sets --------------------------------------------------------------------------------------
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
    found = find_first_of_pair(block + HEADER, block + size, &name)
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
    if is_number and (limits.set_integers if held[0] == NULL else held[0].flags & INTSET):
        return intset_put(store, place, held, number)
    if held[0] != NULL and held[0].flags & INTSET:
        if n > limits.set_value or not intset_to_items(store, place, held):
            return UNFIT
    item = item_of(member, n)
    if held[0] == NULL:
        if n > limits.set_value:
            return UNFIT
        return packed_first(store, place, held, TYPE_SET, limits.set_entries, &item, NULL, more)
    block = entry_value(held[0])
    size = entry_value_size(held[0])
    if find_item(block + HEADER, block + size, &item) != NULL:
        return 0
    if packed_count(block) >= limits.set_entries or n > limits.set_value or size + item_bytes(&item) > LARGEST_PACKED:
        return UNFIT
    item_write(packed_splice(store, place, held, size, 0, item_bytes(&item), more), &item)
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
        found[0] = find_first_of_pair(block + HEADER, block + entry_value_size(entry), &item)
    else:
        found[0] = find_item(block + HEADER, block + entry_value_size(entry), &item)
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


# Sorted sets ------------------------------------------------------------------------------------------
cdef int members_put(Store store, Place* place, Entry** held, const char* member, size_t n, double score, size_t more) except -4:
    """ADDED, RESCORED, SAME or UNFIT."""
    cdef Item name, item
    cdef char* block
    cdef char* at
    cdef const char* found
    cdef const char* target
    cdef size_t size, old, added, offset
    cdef double before
    score += 0.0
    name = item_of(member, n)
    item = item_of_score(score)
    added = item_bytes(&name) + item_bytes(&item)
    if held[0] == NULL:
        if n > limits.zset_value:
            return UNFIT
        return packed_first(store, place, held, TYPE_ZSET, limits.zset_entries, &name, &item, more)
    block = entry_value(held[0])
    size = entry_value_size(held[0])
    found = find_first_of_pair(block + HEADER, block + size, &name)
    if found == NULL:
        if packed_count(block) >= limits.zset_entries or n > limits.zset_value or size + added > LARGEST_PACKED:
            return UNFIT
        target = pair_place(block + HEADER, block + size, score, member, n)
        at = packed_splice(store, place, held, target - block, 0, added, more)
        item_write(item_write(at, &name), &item)
        packed_count_by(held[0], 1)
        return ADDED
    before = item_score(found + item_span(found))
    if before == score:
        return SAME
    old = skip_items(found, 2) - found
    offset = found - block
    if added > old:
        # Room first, behind all: then the pair can leave its old place.
        packed_splice(store, place, held, size, 0, added - old, 0)
        block = entry_value(held[0])
    found = block + offset
    # Between its two places lies what is moved by the pair's length; what lies behind both by how much it has grown.
    if score > before:
        target = pair_place(found + old, block + size, score, member, n)
        memmove(<char*> found, found + old, target - found - old)
        memmove(<char*> target + added - old, target, block + size - target)
        target -= old
    else:
        target = pair_place(block + HEADER, found, score, member, n)
        memmove(<char*> found + added, found + old, block + size - found - old)
        memmove(<char*> target + added, target, found - target)
    item_write(item_write(<char*> target, &name), &item)
    entry_set_value_size(held[0], size - old + added)
    return RESCORED


cdef const char* packed_member(Entry* entry, const char* member, size_t n) noexcept:
    """The pair of a packed sorted set's member, or NULL."""
    cdef Item item = item_of(member, n)
    cdef const char* block = entry_value(entry)
    return find_first_of_pair(block + HEADER, block + entry_value_size(entry), &item)


cdef bint score_of(Entry* entry, const char* member, size_t n, double* score) noexcept:
    """The score of a member of a sorted set; whether there is one."""
    cdef const char* found
    cdef Entry* known
    if entry.flags & PACKED:
        found = packed_member(entry, member, n)
        if found != NULL:
            score[0] = item_score(found + item_span(found))
        return found != NULL
    known = (<ZSet> <object> entry_object(entry)).entry_of(member, n)
    if known != NULL:
        score[0] = entry_score(known)
    return known != NULL


cdef int64_t packed_rank(Entry* entry, const char* member, size_t n) noexcept:
    """-1: no such member."""
    cdef const char* found = packed_member(entry, member, n)
    cdef const char* at = entry_value(entry) + HEADER
    cdef int64_t rank = 0
    if found == NULL:
        return -1
    while at < found:
        at = skip_items(at, 2)
        rank += 1
    return rank


cdef int members_cut(Store store, Place* place, Entry** held, uint32_t start, uint32_t stop) except -1:
    """Removes ranks [start, stop) of a packed sorted set. It does not fail."""
    cdef const char* block = entry_value(held[0])
    cdef const char* first = skip_items(block + HEADER, 2 * start)
    packed_count_by(held[0], -<int> (stop - start))
    return packed_cut(store, place, held, first - block, skip_items(first, 2 * (stop - start)) - first)


cdef list packed_pairs(Entry* entry, uint32_t start, uint32_t stop):
    """[(member, score)] of ranks [start, stop) of a packed sorted set."""
    cdef const char* at = skip_items(entry_value(entry) + HEADER, 2 * start)
    cdef char[TEXT] scratch
    cdef Span text
    cdef list found = []
    while start < stop:
        text = item_text(at, scratch)
        at += item_span(at)
        found.append((PyBytes_FromStringAndSize(text.data, text.size), item_score(at)))
        at += item_span(at)
        start += 1
    return found


cdef ZSet members_copied(Entry* entry):
    """A packed sorted set as an object; in order, so each is added behind the others."""
    cdef ZSet made = ZSet()
    cdef const char* at = entry_value(entry) + HEADER
    cdef const char* end = entry_value(entry) + entry_value_size(entry)
    cdef char[TEXT] scratch
    cdef Span member
    made.reserve(packed_length(entry))
    while at < end:
        member = item_text(at, scratch)
        at += item_span(at)
        made.put(member.data, member.size, item_score(at))
        at += item_span(at)
    made.packed = True
    return made


cdef ZSet members_seen(Entry* entry):
    """What a reader sees of an entry, NULL for none: its object, or a copy of what is packed."""
    if entry == NULL:
        return None
    return members_copied(entry) if entry.flags & PACKED else <ZSet> <object> entry_object(entry)


cdef ZSet members_unpacked(Store store, Place* place, Entry** held):
    """As `fields_unpacked`."""
    cdef ZSet value
    if held[0] != NULL and not held[0].flags & PACKED:
        return <ZSet> <object> entry_object(held[0])
    value = ZSet() if held[0] == NULL else members_copied(held[0])
    value.packed = False        # it is the value itself
    if held[0] != NULL:
        hold_object(store, place, held, TYPE_ZSET, value)
    return value


cdef Entry* members_packed(Store store, Place* place, ZSet value, uint8_t time) except? NULL:
    """An entry of the members, packed, with HAS_TTL or 0 for `time`; NULL if they do not fit."""
    cdef Leaf* leaf
    cdef Entry* entry = NULL
    cdef Entry* known
    cdef Item name, item
    cdef size_t n = HEADER
    cdef uint32_t i
    cdef int turn
    cdef char* at = NULL
    if value.table.count > limits.zset_entries:
        return NULL
    for turn in range(2):
        leaf = ranks_first(&value.ranks)
        while leaf != NULL:
            for i in range(leaf.count):
                known = leaf.pairs[i].entry
                if entry_key_size(known) > limits.zset_value:
                    return NULL
                name = item_of(entry_key(known), entry_key_size(known))
                item = item_of_score(leaf.pairs[i].score)
                if turn:
                    at = item_write(item_write(at, &name), &item)
                else:
                    n += item_bytes(&name) + item_bytes(&item)
            leaf = leaf.next
        if n > LARGEST_PACKED:
            return NULL
        if turn == 0:
            entry = packed_new(store, place, TYPE_ZSET | time, HEADER, n)
            at = entry_value(entry) + HEADER
    entry_set_value_size(entry, n)
    packed_set_count(entry_value(entry), <uint32_t> value.table.count)
    return entry


# Lists ------------------------------------------------------------------------------------------------
cdef inline bint list_exceeds(uint32_t bytes, uint32_t count) noexcept nogil:
    return bytes > limits.list_bytes or count > limits.list_entries


cdef enum:
    LISTPACK_OVERHEAD = 7       # bytes of a listpack without elements


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
