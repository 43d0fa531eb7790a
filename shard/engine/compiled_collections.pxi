# The hottest commands on collections, as in compiled_strings.pxi.

# Lists --------------------------------------------------------------------------------------------
cdef int push_to(Context context, int slot, Span* args, Py_ssize_t n, bint left, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = list_in(context.store.read(&place))
    return put_int(out, context.dialect, list_push(context.store, &place, &entry, args + 1, n - 1, left))


cdef int run_lpush(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return push_to(context, slot, args, n, True, out)


cdef int run_rpush(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return push_to(context, slot, args, n, False, out)


cdef int pop_from(Context context, int slot, Span* args, Py_ssize_t n, bint left, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef const char* element
    cdef char[TEXT] scratch
    cdef Span text
    if n != 1:
        return DECLINE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = list_in(context.store.read(&place))
    if entry == NULL:
        return put_null(out, context.dialect)
    if entry.flags & PACKED:
        element = entry_value(entry) + LIST_HEADER if left else element_before(entry_value(entry) + entry_value_size(entry))
        text = item_text(element, scratch)
    else:
        element = (<ListValue> <object> entry_object(entry)).end_of(left)
        text.data = element_data(element)
        text.size = element_size(element)
    put_bulk(out, context.dialect, text.data, text.size)
    list_drop(context.store, &place, &entry, left)
    return DONE


cdef int run_lpop(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return pop_from(context, slot, args, n, True, out)


cdef int run_rpop(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return pop_from(context, slot, args, n, False, out)


cdef int run_llen(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    return put_int(out, context.dialect, list_length(list_in(context.store.read(&place))))


cdef int run_lrange(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t start, stop
    cdef Py_ssize_t mark
    cdef ListValue value
    if not parse_int64(args[1].data, args[1].size, &start) or not parse_int64(args[2].data, args[2].size, &stop):
        return DECLINE
    if context.token and use_assembled(context, args, 1, out):
        return DONE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = list_in(context.store.read(&place))
    if not rank_span(list_length(entry), &start, &stop):
        mark = begin_array(out, context.dialect, 0)
        return end_reply(out, context.dialect, mark)
    if not entry.flags & PACKED:
        value = <ListValue> <object> entry_object(entry)
        if stop - start >= SLICED_FROM or value.size_in_memory() > LARGE:
            return show(context, args, n, SHOWN_ELEMENTS, start, stop, False,
                        part_of(value.size_in_memory(), stop - start, value.length), out)
    mark = begin_array(out, context.dialect, stop - start)
    if entry.flags & PACKED:
        put_packed_elements(entry, start, stop, context.dialect, out)
    else:
        put_elements(value, start, stop, context.dialect, out)
    return end_reply(out, context.dialect, mark)


cdef int put_packed_elements(Entry* entry, int64_t start, int64_t stop, int dialect, Buffer out) except -1:
    cdef const char* at = list_element(entry_value(entry), entry_value_size(entry), <uint32_t> start)
    cdef char[TEXT] scratch
    cdef Span text
    while start < stop:
        text = item_text(at, scratch)
        put_nested_bulk(out, dialect, text.data, text.size)
        at += element_span(at)
        start += 1
    return 0


cdef int put_elements(ListValue value, int64_t start, int64_t stop, int dialect, Buffer out) except -1:
    cdef Py_ssize_t offset
    cdef Slot* slot = value.locate(start, &offset)
    cdef const char* at = element_at(slot.chunk, offset)
    cdef const char* end
    while True:
        end = chunk_data(slot.chunk) + slot.chunk.end
        while at < end:
            put_nested_bulk(out, dialect, element_data(at), element_size(at))
            start += 1
            if start == stop:
                return 0
            at += packed_size(element_size(at))
        slot += 1
        at = chunk_data(slot.chunk) + slot.chunk.begin


cdef inline bint rank_span(int64_t length, int64_t* start, int64_t* stop) noexcept nogil:
    """Redis's inclusive places, from the end if negative, as [start, stop) within `length`. False: nothing."""
    if start[0] < 0:
        start[0] = max(start[0] + length, 0)
    stop[0] = stop[0] + length + 1 if stop[0] < 0 else min(stop[0], length - 1) + 1
    return start[0] < stop[0]


cdef inline Py_ssize_t part_of(int64_t total, int64_t elements, int64_t count) noexcept:
    """What some of the elements of a collection take, about."""
    return <Py_ssize_t> (<double> total * elements / max(count, 1))


# Hashes and sets ----------------------------------------------------------------------------------
cdef size_t fields_to_come(const Span* args, Py_ssize_t n) noexcept nogil:
    """What `field_put` is told of the fields and values of a command."""
    cdef Py_ssize_t i
    if n // 2 > <Py_ssize_t> limits.hash_entries:
        return AS_TABLE
    for i in range(n):
        if args[i].size > <Py_ssize_t> limits.hash_value:
            return AS_TABLE
    return bytes_of(args + 2, n - 2)


cdef size_t members_to_come(Entry* entry, const Span* args, Py_ssize_t n) noexcept nogil:
    """What `field_put` is told of the members of a command; `entry` is that of the set, or NULL."""
    cdef int64_t number
    if entry != NULL and not entry.flags & PACKED:
        return 0
    if entry == NULL:
        if shortest_int(args[0].data, args[0].size, &number) and n <= <Py_ssize_t> limits.set_integers:
            return bytes_of(args + 1, n - 1)
        return AS_ITEMS if n <= <Py_ssize_t> limits.set_entries else AS_TABLE
    if n > <Py_ssize_t> (limits.set_integers if entry.flags & INTSET else limits.set_entries):
        return AS_TABLE
    return bytes_of(args + 1, n - 1)


cdef size_t scored_to_come(const Span* args, Py_ssize_t n) noexcept nogil:
    """What `zset_put` is told of the scores and members of a command."""
    cdef Py_ssize_t i
    if n // 2 > <Py_ssize_t> limits.zset_entries:
        return AS_TABLE
    for i in range(1, n, 2):
        if args[i].size > <Py_ssize_t> limits.zset_value:
            return AS_TABLE
    return bytes_of(args + 2, n - 2)


cdef inline size_t fewer_to_come(size_t more, const Span* args, Py_ssize_t n) noexcept nogil:
    """`more` behind the next arguments, which come now."""
    return more if more == 0 or more >= AS_ITEMS else more - bytes_of(args, n)


cdef inline size_t bytes_of(const Span* args, Py_ssize_t n) noexcept nogil:
    """What they take when they are packed; nothing for a negative number of them."""
    cdef size_t total = 0
    cdef Py_ssize_t i
    cdef Item item
    for i in range(n):
        item = item_of(args[i].data, args[i].size)
        total += item_bytes(&item)
    return total


cdef int run_hset(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t added = 0
    cdef size_t more
    cdef Py_ssize_t i
    if not n & 1:
        return DECLINE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = fields_of(context.store, &place, TYPE_HASH)
    more = fields_to_come(args + 1, n - 1)
    for i in range(1, n, 2):
        added += field_put(
            context.store, &place, &entry, TYPE_HASH, args[i].data, args[i].size, args[i + 1].data, args[i + 1].size, False,
            HASH_SET, more)
        more = fewer_to_come(more, args + i + 2, 2)
    return put_int(out, context.dialect, added)


cdef int run_hget(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef char[TEXT] scratch
    cdef Span value
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    if not field_value(fields_of(context.store, &place, TYPE_HASH), args[1].data, args[1].size, &value, scratch):
        return put_null(out, context.dialect)
    return put_bulk(out, context.dialect, value.data, value.size)


cdef int run_hmget(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef char[TEXT] scratch
    cdef Span value
    cdef Py_ssize_t i, mark
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = fields_of(context.store, &place, TYPE_HASH)
    mark = begin_array(out, context.dialect, n - 1)
    for i in range(1, n):
        if field_value(entry, args[i].data, args[i].size, &value, scratch):
            put_nested_bulk(out, context.dialect, value.data, value.size)
        else:
            put_nested_null(out, context.dialect)
    return end_reply(out, context.dialect, mark)


cdef int contains(Context context, int slot, Span* args, int kind, Buffer out) except -1:
    cdef Place place
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    return put_int(
        out, context.dialect, field_known(fields_of(context.store, &place, kind), kind, args[1].data, args[1].size))


cdef int run_hexists(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return contains(context, slot, args, TYPE_HASH, out)


cdef int run_sismember(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return contains(context, slot, args, TYPE_SET, out)


cdef int count_fields(Context context, int slot, Span* args, int kind, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = fields_of(context.store, &place, kind)
    return put_int(out, context.dialect, 0 if entry == NULL else fields_length(entry))


cdef inline int64_t fields_length(Entry* entry) noexcept:
    if entry.flags & PACKED:
        return packed_count(entry_value(entry))
    return (<FieldTable> <object> entry_object(entry)).table.count


cdef int run_hlen(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return count_fields(context, slot, args, TYPE_HASH, out)


cdef int run_scard(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return count_fields(context, slot, args, TYPE_SET, out)


cdef int remove_fields(Context context, int slot, Span* args, Py_ssize_t n, int kind, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t removed = 0
    cdef Py_ssize_t i
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = fields_of(context.store, &place, kind)
    for i in range(1, n):
        if entry == NULL:
            break
        removed += field_take(
            context.store, &place, &entry, kind, args[i].data, args[i].size,
            HASH_DELETED if kind == TYPE_HASH else SET_REMOVED)
    return put_int(out, context.dialect, removed)


cdef int run_hdel(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return remove_fields(context, slot, args, n, TYPE_HASH, out)


cdef int run_srem(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return remove_fields(context, slot, args, n, TYPE_SET, out)


cdef int run_sadd(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t added = 0
    cdef size_t more
    cdef Py_ssize_t i
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = fields_of(context.store, &place, TYPE_SET)
    more = members_to_come(entry, args + 1, n - 1)
    for i in range(1, n):
        added += field_put(
            context.store, &place, &entry, TYPE_SET, args[i].data, args[i].size, b"", 0, False, SET_ADDED, more)
        more = fewer_to_come(more, args + i + 1, 1)
    return put_int(out, context.dialect, added)


# Sorted sets --------------------------------------------------------------------------------------
cdef enum:
    EXACT_DIGITS = 15           # a whole number of so many digits, and 10 to so many, are doubles without rounding
    FAST_PAIRS = 64             # more in one ZADD are the handler's


cdef double[EXACT_DIGITS + 1] TEN_TO = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]


cdef bint parse_decimal(const char* text, Py_ssize_t n, double* value) noexcept nogil:
    """A plain decimal ("12", "-0.25") of up to 15 digits, exactly as strtod reads it: one division of two exact numbers
    rounds once. Anything else is the handler's."""
    cdef int64_t digits = 0
    cdef Py_ssize_t i = 1 if n and text[0] == c"-" else 0
    cdef Py_ssize_t first = i, point = -1
    if n - i > EXACT_DIGITS + 1:
        return False
    while i < n:
        if c"0" <= text[i] <= c"9":
            digits = digits * 10 + (text[i] - c"0")
        elif text[i] == c"." and point < 0 and i > first and i + 1 < n:
            point = i
        else:
            return False
        i += 1
    if n - first - (point >= 0) > EXACT_DIGITS or n == first:
        return False
    value[0] = <double> digits if point < 0 else <double> digits / TEN_TO[n - point - 1]
    if first:
        value[0] = -value[0]
    return True


cdef int64_t add_members(Context context, int slot, Span* args, Py_ssize_t n) except -2:
    """How many are new; -1 to decline. No option of ZADD can be read as a number."""
    cdef Place place
    cdef Entry* entry
    cdef double[FAST_PAIRS] scores
    cdef int64_t added = 0
    cdef size_t more
    cdef Py_ssize_t i
    if not n & 1 or n > 2 * FAST_PAIRS:
        return -1
    for i in range(1, n, 2):
        if not parse_decimal(args[i].data, args[i].size, &scores[i >> 1]):
            return -1
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = zset_in(context.store.read(&place))
    more = scored_to_come(args + 1, n - 1)
    for i in range(1, n, 2):
        added += zset_put(
            context.store, &place, &entry, args[i + 1].data, args[i + 1].size, scores[i >> 1], ZSET_ADDED, more) == ADDED
        more = fewer_to_come(more, args + i + 2, 2)
    return added


cdef int run_zadd(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t added = add_members(context, slot, args, n)
    return DECLINE if added < 0 else put_int(out, context.dialect, added)


cdef int run_binary_zadd(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    if n != 3 or add_members(context, slot, args, n) < 0:
        return DECLINE
    return put_ok(out, context.dialect)


cdef int run_zincrby(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef double score, before
    if not parse_decimal(args[1].data, args[1].size, &score):
        return DECLINE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = zset_in(context.store.read(&place))
    if entry != NULL and score_of(entry, args[2].data, args[2].size, &before):
        score += before
    zset_put(context.store, &place, &entry, args[2].data, args[2].size, score, ZSET_INCREMENTED, 0)
    return put_reply(out, context.dialect, score)


cdef int64_t remove_members(Context context, int slot, Span* args, Py_ssize_t n) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t removed = 0
    cdef Py_ssize_t i
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = zset_in(context.store.read(&place))
    for i in range(1, n):
        if entry == NULL:
            break
        removed += zset_take(context.store, &place, &entry, args[i].data, args[i].size)
    return removed


cdef int run_zrem(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return put_int(out, context.dialect, remove_members(context, slot, args, n))


cdef int run_binary_zrem(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t removed = remove_members(context, slot, args, n)
    if removed == 0 and n == 2:
        return put_null(out, context.dialect)
    return put_int(out, context.dialect, removed)


cdef int run_zscore(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef double score
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = zset_in(context.store.read(&place))
    if entry == NULL or not score_of(entry, args[1].data, args[1].size, &score):
        return put_null(out, context.dialect)
    return put_reply(out, context.dialect, score)


cdef int run_zcard(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    return put_int(out, context.dialect, zset_length(zset_in(context.store.read(&place))))


cdef int rank_of(Context context, int slot, Span* args, Py_ssize_t n, bint reverse, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t rank = -1
    if n != 2:
        return DECLINE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = zset_in(context.store.read(&place))
    if entry != NULL and entry.flags & PACKED:
        rank = packed_rank(entry, args[1].data, args[1].size)
    elif entry != NULL:
        rank = (<ZSet> <object> entry_object(entry)).rank_of(args[1].data, args[1].size)
    if rank < 0:
        return put_null(out, context.dialect)
    return put_int(out, context.dialect, <int64_t> zset_length(entry) - 1 - rank if reverse else rank)


cdef int run_zrank(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return rank_of(context, slot, args, n, False, out)


cdef int run_zrevrank(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return rank_of(context, slot, args, n, True, out)


cdef int range_of(Context context, int slot, Span* args, Py_ssize_t n, bint reverse, Buffer out) except -1:
    """Members by rank; with scores or by anything else it is the handler's."""
    cdef Place place
    cdef Entry* entry
    cdef int64_t start, stop, length
    cdef Py_ssize_t mark
    cdef ZSet value
    if n != 3 or not parse_int64(args[1].data, args[1].size, &start) or (
        not parse_int64(args[2].data, args[2].size, &stop)
    ):
        return DECLINE
    if context.token and use_assembled(context, args, 1, out):
        return DONE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = zset_in(context.store.read(&place))
    length = zset_length(entry)
    if not rank_span(length, &start, &stop):
        mark = begin_array(out, context.dialect, 0)
        return end_reply(out, context.dialect, mark)
    if not entry.flags & PACKED:
        value = <ZSet> <object> entry_object(entry)
        if stop - start >= SLICED_FROM or value.size_in_memory() > LARGE:
            return show(context, args, n, SHOWN_RANKS, start, stop, reverse,
                        part_of(value.size_in_memory(), stop - start, length), out)
    mark = begin_array(out, context.dialect, stop - start)
    if not entry.flags & PACKED:
        put_members(value, start, stop, reverse, False, context.dialect, out)
    elif reverse:
        put_packed_backwards(entry, length - stop, length - start, context.dialect, out)
    else:
        put_packed_members(entry, start, stop, context.dialect, out)
    return end_reply(out, context.dialect, mark)


cdef int put_packed_members(Entry* entry, int64_t start, int64_t stop, int dialect, Buffer out) except -1:
    cdef const char* at = skip_items(entry_value(entry) + HEADER, <uint32_t> start * 2)
    cdef char[TEXT] scratch
    cdef Span text
    while start < stop:
        text = item_text(at, scratch)
        put_nested_bulk(out, dialect, text.data, text.size)
        at = skip_items(at, 2)
        start += 1
    return 0


cdef enum:
    BACKWARDS = 64      # members whose places are noted at a time


cdef int put_packed_backwards(Entry* entry, int64_t start, int64_t stop, int dialect, Buffer out) except -1:
    """The members of the ranks [start, stop), the last one first; pairs are read from the front, so in batches."""
    cdef uint32_t[BACKWARDS] places     # from the start of the value
    cdef const char* at
    cdef char[TEXT] scratch
    cdef Span text
    cdef int64_t first, i
    while start < stop:
        first = max(stop - BACKWARDS, start)
        at = skip_items(entry_value(entry) + HEADER, <uint32_t> first * 2)
        for i in range(stop - first):
            places[i] = <uint32_t> (at - entry_value(entry))
            at = skip_items(at, 2)
        while stop > first:
            stop -= 1
            text = item_text(entry_value(entry) + places[stop - first], scratch)
            put_nested_bulk(out, dialect, text.data, text.size)
    return 0


cdef inline int put_members(ZSet value, int64_t start, int64_t stop, bint reverse, bint scores, int dialect, Buffer out) except -1:
    cdef Step[DEEPEST] path
    cdef uint32_t at
    cdef Leaf* leaf = ranks_at(
        &value.ranks, <uint32_t> (value.table.count - 1 - start if reverse else start), path, &at)
    cdef Entry* member
    while True:
        member = leaf.pairs[at].entry
        if scores and dialect == RESP3:
            begin_array(out, dialect, 2)
        put_nested_bulk(out, dialect, entry_key(member), entry_key_size(member))
        if scores:
            put_double(out, dialect, leaf.pairs[at].score)
        start += 1
        if start == stop:
            return 0
        if reverse:
            if at == 0:
                leaf = leaf.previous
                at = leaf.count
            at -= 1
        else:
            at += 1
            if at == leaf.count:
                leaf = leaf.next
                at = 0


cdef int run_zrange(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return range_of(context, slot, args, n, False, out)


cdef int run_zrevrange(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return range_of(context, slot, args, n, True, out)


cdef Compiled compiled_collection(str key):
    """The compiled case of a command on a collection, or NULL."""
    if key == "lpush": return run_lpush
    if key == "rpush": return run_rpush
    if key == "lpop": return run_lpop
    if key == "rpop": return run_rpop
    if key == "llen": return run_llen
    if key == "lrange": return run_lrange
    if key == "hset": return run_hset
    if key == "hget": return run_hget
    if key == "hmget": return run_hmget
    if key == "hexists": return run_hexists
    if key == "hlen": return run_hlen
    if key == "hdel": return run_hdel
    if key == "sadd": return run_sadd
    if key == "srem": return run_srem
    if key == "sismember": return run_sismember
    if key == "scard": return run_scard
    if key == "zadd": return run_zadd
    if key == "binary|zadd": return run_binary_zadd
    if key == "zincrby": return run_zincrby
    if key == "zrem": return run_zrem
    if key == "binary|zrem": return run_binary_zrem
    if key == "zscore": return run_zscore
    if key == "zcard": return run_zcard
    if key == "zrank": return run_zrank
    if key == "zrevrank": return run_zrevrank
    if key == "zrange": return run_zrange
    if key == "zrevrange": return run_zrevrange
    return compiled_passage(key)
