# The hottest commands on streams, as in compiled_strings.pxi.

cdef int run_xadd(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    """``key id field value …``: without options, and with an id in its usual form."""
    cdef Place place
    cdef Entry* entry
    cdef StreamId id
    cdef bint with_ms = args[1].size != 1 or args[1].data[0] != c"*", with_seq = False
    cdef char[48] text
    cdef Store store = context.store
    if n & 1 or n < 4:
        return DECLINE
    if with_ms and (not parse_id(args[1].data, args[1].size, &id, &with_seq) or (id.ms == 0 and id.seq == 0)):
        return DECLINE
    # Without a sequence it is 0: the id is whole.
    store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = stream_in(store.read(&place))
    stream_choose_id(store, entry, &id, with_ms, True)
    stream_add(store, &place, &entry, id, args + 2, (n - 2) // 2)
    return put_bulk(out, context.dialect, text, format_id(text, id))


cdef int run_xlen(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = stream_in(context.store.read(&place))
    return put_int(out, context.dialect, 0 if entry == NULL else <int64_t> stream_of(entry).length)


cdef Compiled compiled_stream(str key):
    """The compiled case of a command on a stream, or NULL."""
    if key == "xadd": return run_xadd
    if key == "xlen": return run_xlen
    return NULL
