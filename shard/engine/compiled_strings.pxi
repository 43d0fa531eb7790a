# The hottest commands on keys and strings, without a Python object. Each is the plain case of a handler in Python, to
# which it leaves everything unusual (DECLINE, before anything was changed). Errors have the same texts. The changes are
# the mutators'.

cdef bytes NOT_INTEGER_TEXT = NOT_INTEGER.encode()
cdef bytes OVERFLOW_TEXT = b"ERR increment or decrement would overflow"


cdef int place_bulk(Context context, Buffer out, const char* value, Py_ssize_t n) except -1:
    """A large string as a reply, written where the router takes it; where it lies is told in `out`. Or as any other."""
    cdef char[32] head
    cdef uint32_t size, status = 0
    cdef uint64_t position
    cdef Py_ssize_t before
    cdef char* at
    if context.dialect == BINARY:
        # Length, status, tag 2 for a string, its length.
        before, size = 13, <uint32_t> n + 9
        memcpy(head, &size, 4)
        memcpy(head + 4, &status, 4)
        head[8] = 2
        size = <uint32_t> n
        memcpy(head + 9, &size, 4)
        size = <uint32_t> (before + n)
    else:
        head[0] = c"$"
        before = 1 + format_int64(head + 1, n)
        head[before] = c"\r"
        head[before + 1] = c"\n"
        before += 2
        size = <uint32_t> (before + n + 2)
    at = context.area.place(size, &position) if n < LARGE - 64 else NULL
    if at == NULL:
        return put_bulk(out, context.dialect, value, n)
    memcpy(at, head, before)
    memcpy(at + before, value, n)
    if context.dialect != BINARY:
        at[before + n] = c"\r"
        at[before + n + 1] = c"\n"
    context.placed = size
    out.put_u32(size)
    return out.put_u64(position)


cdef int run_get(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = context.store.read(&place)
    if entry == NULL:
        return put_null(out, context.dialect)
    if entry.flags & TYPE_MASK:
        return fail(context, out, WRONG_TYPE_TEXT)
    if context.area is not None and entry_value_size(entry) >= PLACED_FROM:
        return place_bulk(context, out, entry_value(entry), entry_value_size(entry))
    return put_bulk(out, context.dialect, entry_value(entry), entry_value_size(entry))


cdef int run_set(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t deadline = 0, number
    cdef char unit
    if n != 2:
        # SET key value EX|PX number; any other option is left to the handler.
        if n != 4 or args[2].size != 2 or args[2].data[1] | 0x20 != c"x":
            return DECLINE
        unit = args[2].data[0] | 0x20
        if not parse_int64(args[3].data, args[3].size, &number) or number <= 0 or number > <int64_t> 1 << 50:
            return DECLINE
        if unit == c"e":
            number *= 1000
        elif unit != c"p":
            return DECLINE
        deadline = context.store.now_ms + number
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = context.store.find(&place)
    if deadline:
        string_set_until(context.store, &place, entry, args[1].data, args[1].size, deadline)
    else:
        string_set(context.store, &place, entry, args[1].data, args[1].size, 0, STRING_SET)
    return put_ok(out, context.dialect)


cdef int run_setnx(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    if context.store.find(&place) != NULL:
        return put_int(out, context.dialect, 0)
    string_set(context.store, &place, NULL, args[1].data, args[1].size, 0, STRING_SET)
    return put_int(out, context.dialect, 1)


cdef int64_t delete_keys(Context context, int slot, Span* args, Py_ssize_t n) except -1:
    cdef Place place
    cdef int64_t deleted = 0
    cdef Py_ssize_t i
    for i in range(n):
        context.store.place(&place, context.keys.db, slot if n == 1 else NO_SLOT, args[i].data, args[i].size)
        deleted += key_delete(context.store, &place)
    return deleted


cdef int run_del(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return put_int(out, context.dialect, delete_keys(context, slot, args, n))


cdef int run_binary_del(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t deleted = delete_keys(context, slot, args, n)
    if deleted == 0:
        return put_reply(out, context.dialect, MISSING_ZERO)
    return put_int(out, context.dialect, deleted)


cdef int run_exists(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef int64_t found = 0
    cdef Py_ssize_t i
    for i in range(n):
        context.store.place(&place, context.keys.db, slot if n == 1 else NO_SLOT, args[i].data, args[i].size)
        found += context.store.look(&place) != NULL
    return put_int(out, context.dialect, found)


cdef int add_to(Context context, int slot, Span* key, int64_t step, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t number = 0, deadline
    cdef char[24] text
    cdef int digits
    context.store.place(&place, context.keys.db, slot, key.data, key.size)
    entry = context.store.find(&place)
    if entry != NULL:
        if entry.flags & TYPE_MASK:
            return fail(context, out, WRONG_TYPE_TEXT)
        if not parse_int64(entry_value(entry), entry_value_size(entry), &number):
            return fail(context, out, NOT_INTEGER_TEXT)
    if (step > 0 and number > INT64_MAX - step) or (step < 0 and number < INT64_MIN - step):
        return fail(context, out, OVERFLOW_TEXT)
    number += step
    digits = format_int64(text, number)
    deadline = 0 if entry == NULL else entry_deadline(entry)
    string_set(context.store, &place, entry, text, digits, deadline, STRING_INCREMENTED)
    return put_int(out, context.dialect, number)


cdef int run_incr(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return add_to(context, slot, args, 1, out)


cdef int run_decr(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return add_to(context, slot, args, -1, out)


cdef int run_incrby(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t step
    if not parse_int64(args[1].data, args[1].size, &step):
        return DECLINE
    return add_to(context, slot, args, step, out)


cdef int run_decrby(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t step
    if not parse_int64(args[1].data, args[1].size, &step) or step == INT64_MIN:
        return DECLINE
    return add_to(context, slot, args, -step, out)


cdef int run_mget(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef Py_ssize_t i, mark, before = out.used(), most = LARGE
    if context.token and use_assembled(context, args, n, out):
        return DONE
    mark = begin_array(out, context.dialect, n)
    for i in range(n):
        context.store.place(&place, context.keys.db, NO_SLOT, args[i].data, args[i].size)
        entry = context.store.read(&place)
        if entry == NULL or entry.flags & TYPE_MASK:
            put_nested_null(out, context.dialect)
        else:
            put_nested_bulk(out, context.dialect, entry_value(entry), entry_value_size(entry))
            if out.used() - before > most:
                if mget_later(context, args, n):
                    out.end = out.start + before
                    # All of them are used now, and none when it is answered.
                    for i in range(i + 1, n):
                        context.store.place(&place, context.keys.db, NO_SLOT, args[i].data, args[i].size)
                        context.store.read(&place)
                    return PARKED
                most = <Py_ssize_t> INT64_MAX
    return end_reply(out, context.dialect, mark)


cdef int run_mset(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Py_ssize_t i
    if n & 1:
        return DECLINE
    for i in range(0, n, 2):
        if context.store.effects.wanted:
            context.store.effects.begin_unit()      # a key that is named twice is set twice
        context.store.place(&place, context.keys.db, NO_SLOT, args[i].data, args[i].size)
        string_set(
            context.store, &place, context.store.find(&place), args[i + 1].data, args[i + 1].size, 0, STRING_SET)
    return put_ok(out, context.dialect)


cdef int expire_in(Context context, int slot, Span* args, Py_ssize_t n, int64_t unit, Buffer out, bint binary) except -1:
    cdef Place place
    cdef int64_t number
    if n != 2 or not parse_int64(args[1].data, args[1].size, &number):
        return DECLINE
    if number > <int64_t> 1 << 50 or number < -(<int64_t> 1 << 50):
        return DECLINE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    if not key_expire_at(context.store, &place, context.store.now_ms + number * unit):
        return put_null(out, context.dialect) if binary else put_int(out, context.dialect, 0)
    return put_ok(out, context.dialect) if binary else put_int(out, context.dialect, 1)


cdef int run_expire(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return expire_in(context, slot, args, n, 1000, out, False)


cdef int run_pexpire(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return expire_in(context, slot, args, n, 1, out, False)


cdef int run_binary_expire(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return expire_in(context, slot, args, n, 1, out, True)


cdef int64_t time_left(Context context, int slot, Span* key) except -3:
    """Milliseconds; -1 without a deadline, -2 without a key."""
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, key.data, key.size)
    entry = context.store.look(&place)
    if entry == NULL:
        return -2
    return entry_deadline(entry) - context.store.now_ms if entry.flags & HAS_TTL else -1


cdef int run_ttl(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t left = time_left(context, slot, args)
    return put_int(out, context.dialect, left if left < 0 else (left + 500) // 1000)


cdef int run_pttl(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return put_int(out, context.dialect, time_left(context, slot, args))


cdef int run_keys(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Listing listing
    cdef Buffer reply
    if not is_prefix(args[0].data, args[0].size) or context.shard.listings.wants(context):
        return DECLINE
    listing = Listing(context, PyBytes_FromStringAndSize(args[0].data, args[0].size))
    listing.go_on(0)
    reply = listing.reply()
    return out.append(reply.data + reply.start, reply.used())


cdef int run_strlen(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = context.store.read(&place)
    if entry != NULL and entry.flags & TYPE_MASK:
        return fail(context, out, WRONG_TYPE_TEXT)
    return put_int(out, context.dialect, 0 if entry == NULL else entry_value_size(entry))


cdef int run_append(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = context.store.read(&place)
    if entry != NULL and (entry.flags & TYPE_MASK or entry_value_size(entry) + args[1].size > LARGEST_APPEND):
        return DECLINE
    return put_int(out, context.dialect, string_append(context.store, &place, entry, args[1].data, args[1].size))


# A string beyond this is the handler's business, which knows the limit and its error.
cdef size_t LARGEST_APPEND = 64 * 1024 * 1024

MISSING_ZERO = Missing(0)


cdef Compiled compiled_of(str key):
    """The compiled case of a command, or NULL."""
    if key == "get": return run_get
    if key == "set": return run_set
    if key == "setnx": return run_setnx
    if key == "del" or key == "unlink": return run_del
    if key == "binary|del": return run_binary_del
    if key == "exists": return run_exists
    if key == "incr": return run_incr
    if key == "decr": return run_decr
    if key == "incrby": return run_incrby
    if key == "decrby": return run_decrby
    if key == "mget": return run_mget
    if key == "mset": return run_mset
    if key == "expire": return run_expire
    if key == "pexpire": return run_pexpire
    if key == "binary|expire": return run_binary_expire
    if key == "ttl": return run_ttl
    if key == "pttl": return run_pttl
    if key == "strlen": return run_strlen
    if key == "keys": return run_keys
    if key == "append": return run_append
    if key == "publish": return run_publish
    if key == "spublish": return run_spublish
    if key == "_lock": return run_lock
    if key == "_unlock": return run_unlock
    return compiled_collection(key)
