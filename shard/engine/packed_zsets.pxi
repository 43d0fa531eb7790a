# Packed sorted sets; see packing.pxi.

cdef int members_put(Store store, Place* place, Entry** held, const char* member, size_t n, double score, size_t more) except -4:
    """ADDED, RESCORED, SAME or UNFIT."""
    cdef Item name, item
    cdef char* block
    cdef char* at
    cdef const char* found
    cdef const char* target
    cdef size_t size, added
    cdef Marks marks
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
    found = find_pair(block + HEADER, block + size, &name, &marks)
    if found == NULL:
        if packed_count(block) >= limits.zset_entries or n > limits.zset_value or size + added > LARGEST_PACKED:
            return UNFIT
        target = pair_place_by(&marks, block + HEADER, block + size, score, member, n)
        at = packed_splice(store, place, held, target - block, 0, added, more)
        item_write(item_write(at, &name), &item)
        packed_count_by(held[0], 1)
        return ADDED
    if item_score(found + item_span(found)) == score:
        return SAME
    return member_move(store, place, held, found - block, member, n, score, &marks)


cdef int member_move(
    Store store, Place* place, Entry** held, size_t offset, const char* member, size_t n, double score, const Marks* marks
) except -4:
    """Gives the pair at an offset of the value another score, and its place among the others; `marks` are before it."""
    cdef Item name = item_of(member, n), item = item_of_score(score)
    cdef char* block = entry_value(held[0])
    cdef const char* found = block + offset
    cdef const char* target
    cdef size_t size = entry_value_size(held[0]), old = skip_items(found, 2) - found
    cdef size_t added = item_bytes(&name) + item_bytes(&item), goal
    cdef bint rises = score > item_score(found + item_span(found))
    if rises:
        target = pair_place(found + old, block + size, score, member, n)
    else:
        target = pair_place_by(marks, block + HEADER, found, score, member, n)
    goal = target - block
    if added > old:
        # Room first, behind all: then the pair can leave its old place.
        packed_splice(store, place, held, size, 0, added - old, 0)
        block = entry_value(held[0])
    found = block + offset
    target = block + goal
    # Between its two places lies what is moved by the pair's length; what lies behind both by how much it has grown, if at all.
    if rises:
        memmove(<char*> found, found + old, target - found - old)
        if added != old:
            memmove(<char*> target + added - old, target, block + size - target)
        target -= old
    else:
        if added != old:
            memmove(<char*> found + added, found + old, block + size - found - old)
        memmove(<char*> target + added, target, found - target)
    item_write(item_write(<char*> target, &name), &item)
    entry_set_value_size(held[0], size - old + added)
    return RESCORED


cdef const char* packed_member(Entry* entry, const char* member, size_t n) noexcept:
    """The pair of a packed sorted set's member, or NULL."""
    cdef Item item = item_of(member, n)
    cdef const char* block = entry_value(entry)
    return find_item(block + HEADER, block + entry_value_size(entry), &item, True)


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
    """A packed sorted set as an object."""
    cdef ZSet made = ZSet()
    made.take_packed(entry_value(entry), entry_value_size(entry))
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
    value.unpack()
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
