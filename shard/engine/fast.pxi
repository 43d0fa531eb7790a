# The hottest commands on keys and strings, without a Python object. Each is the plain case of a handler in Python, which it leaves
# everything unusual to (DECLINE, before anything was changed). Errors have the same texts.

cdef enum:
    DONE = 0
    DECLINE = 1
    DEFERRED = 2

cdef bytes NOT_INTEGER_TEXT = NOT_INTEGER.encode()
cdef bytes OVERFLOW_TEXT = b"ERR increment or decrement would overflow"


cdef inline int fail(Shard shard, Buffer out, bytes text) except -1:
    shard.note_error(text)
    return put_error(out, shard.dialect, text)


cdef int fast_get(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    shard.keys.place(&place, shard.keys.db, slot, args[0].data, args[0].size)
    entry = shard.keys.read(&place)
    if entry == NULL:
        return put_null(out, shard.dialect)
    if entry.flags & TYPE_MASK:
        return fail(shard, out, WRONG_TYPE_TEXT)
    return put_bulk(out, shard.dialect, entry_value(entry), entry_value_size(entry))


cdef int fast_set(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
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
        deadline = shard.keys.now_ms + number
    shard.keys.place(&place, shard.keys.db, slot, args[0].data, args[0].size)
    shard.keys.set_string(&place, args[1].data, args[1].size, deadline, shard.keys.find(&place), 0, 0)
    shard.keys.string_changed("string_set", &place, args[1].data, args[1].size, deadline)
    return put_ok(out, shard.dialect)


cdef int fast_setnx(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    shard.keys.place(&place, shard.keys.db, slot, args[0].data, args[0].size)
    if shard.keys.find(&place) != NULL:
        return put_int(out, shard.dialect, 0)
    shard.keys.set_string(&place, args[1].data, args[1].size, 0, NULL, 0, 0)
    shard.keys.string_changed("string_set", &place, args[1].data, args[1].size, 0)
    return put_int(out, shard.dialect, 1)


cdef int64_t delete_keys(Shard shard, int slot, Span* args, Py_ssize_t n) except -1:
    cdef Place place
    cdef int64_t deleted = 0
    cdef Py_ssize_t i
    for i in range(n):
        shard.keys.place(&place, shard.keys.db, slot if n == 1 else NO_SLOT, args[i].data, args[i].size)
        if shard.keys.find(&place) != NULL:
            shard.keys.discard(&place)
            shard.keys.number_changed("delete", &place, shard.keys.db)
            deleted += 1
    return deleted


cdef int fast_del(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return put_int(out, shard.dialect, delete_keys(shard, slot, args, n))


cdef int fast_binary_del(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t deleted = delete_keys(shard, slot, args, n)
    if deleted == 0:
        return put_reply(out, shard.dialect, MISSING_ZERO)
    return put_int(out, shard.dialect, deleted)


cdef int fast_exists(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef int64_t found = 0
    cdef Py_ssize_t i
    for i in range(n):
        shard.keys.place(&place, shard.keys.db, slot if n == 1 else NO_SLOT, args[i].data, args[i].size)
        found += shard.keys.read(&place) != NULL
    return put_int(out, shard.dialect, found)


cdef int add_to(Shard shard, int slot, Span* key, int64_t step, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t number = 0, deadline
    cdef char[24] text
    cdef int digits
    shard.keys.place(&place, shard.keys.db, slot, key.data, key.size)
    entry = shard.keys.find(&place)
    if entry != NULL:
        if entry.flags & TYPE_MASK:
            return fail(shard, out, WRONG_TYPE_TEXT)
        if not parse_int64(entry_value(entry), entry_value_size(entry), &number):
            return fail(shard, out, NOT_INTEGER_TEXT)
    if (step > 0 and number > INT64_MAX - step) or (step < 0 and number < INT64_MIN - step):
        return fail(shard, out, OVERFLOW_TEXT)
    number += step
    digits = format_int64(text, number)
    deadline = 0 if entry == NULL else entry_deadline(entry)
    shard.keys.set_string(&place, text, digits, deadline, entry, 0, 0)
    shard.keys.string_changed("string_set", &place, text, digits, deadline)
    return put_int(out, shard.dialect, number)


cdef int fast_incr(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return add_to(shard, slot, args, 1, out)


cdef int fast_decr(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return add_to(shard, slot, args, -1, out)


cdef int fast_incrby(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t step
    if not parse_int64(args[1].data, args[1].size, &step):
        return DECLINE
    return add_to(shard, slot, args, step, out)


cdef int fast_decrby(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t step
    if not parse_int64(args[1].data, args[1].size, &step) or step == INT64_MIN:
        return DECLINE
    return add_to(shard, slot, args, -step, out)


cdef int fast_mget(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef Py_ssize_t i, mark = begin_array(out, shard.dialect, n)
    for i in range(n):
        shard.keys.place(&place, shard.keys.db, NO_SLOT, args[i].data, args[i].size)
        entry = shard.keys.read(&place)
        if entry == NULL or entry.flags & TYPE_MASK:
            put_nested_null(out, shard.dialect)
        else:
            put_nested_bulk(out, shard.dialect, entry_value(entry), entry_value_size(entry))
    return end_reply(out, shard.dialect, mark)


cdef int fast_mset(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Py_ssize_t i
    if n & 1:
        return DECLINE
    for i in range(0, n, 2):
        shard.keys.place(&place, shard.keys.db, NO_SLOT, args[i].data, args[i].size)
        shard.keys.set_string(&place, args[i + 1].data, args[i + 1].size, 0, shard.keys.find(&place), 0, 0)
        shard.keys.string_changed("string_set", &place, args[i + 1].data, args[i + 1].size, 0)
    return put_ok(out, shard.dialect)


cdef int expire_in(Shard shard, int slot, Span* args, Py_ssize_t n, int64_t unit, Buffer out, bint binary) except -1:
    cdef Place place
    cdef Entry* entry
    cdef int64_t number
    if n != 2 or not parse_int64(args[1].data, args[1].size, &number):
        return DECLINE
    if number > <int64_t> 1 << 50 or number < -(<int64_t> 1 << 50):
        return DECLINE
    shard.keys.place(&place, shard.keys.db, slot, args[0].data, args[0].size)
    entry = shard.keys.find(&place)
    if entry == NULL:
        return put_null(out, shard.dialect) if binary else put_int(out, shard.dialect, 0)
    if number <= 0:
        shard.keys.discard(&place)
        shard.keys.number_changed("delete", &place, shard.keys.db)
    else:
        shard.keys.set_deadline(&place, entry, shard.keys.now_ms + number * unit)
        shard.keys.number_changed("deadline_set", &place, shard.keys.now_ms + number * unit)
    return put_ok(out, shard.dialect) if binary else put_int(out, shard.dialect, 1)


cdef int fast_expire(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return expire_in(shard, slot, args, n, 1000, out, False)


cdef int fast_pexpire(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return expire_in(shard, slot, args, n, 1, out, False)


cdef int fast_binary_expire(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return expire_in(shard, slot, args, n, 1, out, True)


cdef int64_t time_left(Shard shard, int slot, Span* key) except -3:
    """Milliseconds; -1 without a deadline, -2 without a key."""
    cdef Place place
    cdef Entry* entry
    shard.keys.place(&place, shard.keys.db, slot, key.data, key.size)
    entry = shard.keys.find(&place)
    if entry == NULL:
        shard.keys.misses += 1
        return -2
    shard.keys.hits += 1
    return entry_deadline(entry) - shard.keys.now_ms if entry.flags & HAS_TTL else -1


cdef int fast_ttl(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef int64_t left = time_left(shard, slot, args)
    return put_int(out, shard.dialect, left if left < 0 else (left + 500) // 1000)


cdef int fast_pttl(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return put_int(out, shard.dialect, time_left(shard, slot, args))


cdef int fast_strlen(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    shard.keys.place(&place, shard.keys.db, slot, args[0].data, args[0].size)
    entry = shard.keys.read(&place)
    if entry != NULL and entry.flags & TYPE_MASK:
        return fail(shard, out, WRONG_TYPE_TEXT)
    return put_int(out, shard.dialect, 0 if entry == NULL else entry_value_size(entry))


cdef int fast_append(Shard shard, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef size_t total
    shard.keys.place(&place, shard.keys.db, slot, args[0].data, args[0].size)
    entry = shard.keys.find(&place)
    if entry != NULL and (entry.flags & TYPE_MASK or entry_value_size(entry) + args[1].size > LARGEST_APPEND):
        return DECLINE
    total = shard.keys.append(&place, entry, args[1].data, args[1].size)
    shard.keys.string_changed("string_append", &place, args[1].data, args[1].size, -1)
    return put_int(out, shard.dialect, total)


# A string beyond this is the handler's business, which knows the limit and its error.
cdef size_t LARGEST_APPEND = 64 * 1024 * 1024

MISSING_ZERO = Missing(0)


cdef Fast fast_of(str key):
    """The compiled case of a command, or NULL."""
    if key == "get": return fast_get
    if key == "set": return fast_set
    if key == "setnx": return fast_setnx
    if key == "del" or key == "unlink": return fast_del
    if key == "binary|del": return fast_binary_del
    if key == "exists": return fast_exists
    if key == "incr": return fast_incr
    if key == "decr": return fast_decr
    if key == "incrby": return fast_incrby
    if key == "decrby": return fast_decrby
    if key == "mget": return fast_mget
    if key == "mset": return fast_mset
    if key == "expire": return fast_expire
    if key == "pexpire": return fast_pexpire
    if key == "binary|expire": return fast_binary_expire
    if key == "ttl": return fast_ttl
    if key == "pttl": return fast_pttl
    if key == "strlen": return fast_strlen
    if key == "append": return fast_append
    return fast_of_collections(key)
