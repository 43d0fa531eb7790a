# The hottest commands on streams, as in compiled_strings.pxi.

cdef enum:
    BY_LENGTH = 1               # how a stream is trimmed: to so many entries,
    BY_ID = 2                   # or to those from an id on
    NODES_OF_A_TRIM = 100       # chunks that a trim with ~ looks at (commands/streams.py, which words the errors)
    ENTRIES_OF_A_TRIM = 10000   # the same where chunks have any number of entries
    LONGEST_TRIM = 1000000
    MANY_REMOVED = 1000         # entries that a command removes which is timed by itself

cdef struct AddOptions:
    bint no_stream              # NOMKSTREAM
    int by                      # 0: it is not trimmed
    bint whole_nodes            # ~
    int64_t length
    StreamId first
    int64_t most                # LIMIT; 0: any number


cdef inline bint is_word(const Span* word, const char* text, Py_ssize_t n) noexcept nogil:
    """Whether this is the word, in either case."""
    return word.size == n and strncasecmp(word.data, text, n) == 0


cdef Py_ssize_t read_threshold(const Span* args, Py_ssize_t n, Py_ssize_t i, AddOptions* options) noexcept nogil:
    """How far it is trimmed, from the word behind MAXLEN or MINID on; the place behind, -1 for what is unusual."""
    cdef bint whole
    options.whole_nodes = False
    if i < n and args[i].size == 1 and args[i].data[0] in (c"~", c"="):
        options.whole_nodes = args[i].data[0] == c"~"
        i += 1
    if i >= n:
        return -1
    if options.by == BY_ID:
        return i + 1 if parse_id(args[i].data, args[i].size, &options.first, &whole) else -1
    return i + 1 if parse_int64(args[i].data, args[i].size, &options.length) and options.length >= 0 else -1


cdef Py_ssize_t read_add_options(const Span* args, Py_ssize_t n, AddOptions* options) noexcept nogil:
    """The options of XADD, behind its key; the place of the id, -1 for what is unusual or refused."""
    cdef Py_ssize_t i = 1
    cdef bint limited = False
    memset(options, 0, sizeof(AddOptions))
    # None of these words is an id, so most commands are through after one byte.
    while i < n and args[i].size > 1 and not 48 <= args[i].data[0] <= 57:
        if is_word(&args[i], "MAXLEN", 6) or is_word(&args[i], "MINID", 5):
            if options.by:
                return -1
            options.by = BY_LENGTH if args[i].size == 6 else BY_ID
            i = read_threshold(args, n, i + 1, options)
            if i < 0:
                return -1
        elif is_word(&args[i], "LIMIT", 5):
            if i + 1 >= n or not parse_int64(args[i + 1].data, args[i + 1].size, &options.most) or options.most < 0:
                return -1
            limited = True
            i += 2
        elif is_word(&args[i], "NOMKSTREAM", 10):
            options.no_stream = True
            i += 1
        else:
            return -1
    if limited and not options.whole_nodes:
        return -1
    if options.whole_nodes and not limited:
        options.most = NODES_OF_A_TRIM * <int64_t> node_limits.entries or ENTRIES_OF_A_TRIM
        options.most = min(options.most, <int64_t> LONGEST_TRIM)
    return i


cdef int run_xadd(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    """``key [option …] id field value …``, with an id in its usual form."""
    cdef AddOptions options
    cdef Py_ssize_t i = read_add_options(args, n, &options)
    cdef Place place
    cdef Entry* entry
    cdef StreamId id
    cdef bint with_ms, with_seq = False
    cdef char[48] text
    cdef Store store = context.store
    if i < 0 or (n - i) & 1 == 0 or n - i < 3:
        return DECLINE
    with_ms = args[i].size != 1 or args[i].data[0] != c"*"
    if with_ms and (not parse_id(args[i].data, args[i].size, &id, &with_seq) or (id.ms == 0 and id.seq == 0)):
        return DECLINE
    # Without a sequence it is 0: the id is whole.
    store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = stream_in(store.read(&place))
    if entry == NULL and options.no_stream:
        return put_null(out, context.dialect)
    stream_choose_id(store, entry, &id, with_ms, True)
    stream_add(store, &place, &entry, id, args + i + 1, (n - i - 1) // 2)
    if options.by:
        trim_behind(store, &place, entry, &options)
    return put_bulk(out, context.dialect, text, format_id(text, id))


cdef int trim_behind(Store store, Place* place, Entry* entry, const AddOptions* options) except -1:
    """What XADD removes behind what it added."""
    cdef Stream value = stream_of(entry)
    cdef StreamId until
    cdef uint64_t removed
    if options.by == BY_LENGTH:
        removed = value.bound_length(<uint64_t> options.length, options.whole_nodes, <uint64_t> options.most, &until)
    else:
        removed = value.bound_id(options.first, options.whole_nodes, <uint64_t> options.most, &until)
    if removed:
        store.heavy |= removed >= MANY_REMOVED
        stream_trim(store, place, entry, until)
    return 0


cdef int run_xlen(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = stream_in(context.store.read(&place))
    return put_int(out, context.dialect, 0 if entry == NULL else <int64_t> stream_of(entry).length)


cdef int run_xack(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    """``key group id …``, with ids in their usual form."""
    cdef Place place
    cdef Entry* entry
    cdef StreamId id
    cdef bint whole
    cdef list ids = []
    cdef bytes name
    cdef Py_ssize_t i
    for i in range(2, n):
        if not parse_id(args[i].data, args[i].size, &id, &whole):
            return DECLINE
        ids.append(number_of(id))
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = stream_in(context.store.read(&place))
    name = PyBytes_FromStringAndSize(args[1].data, args[1].size)
    if entry == NULL or stream_of(entry).group_of(name) is None:
        return put_int(out, context.dialect, 0)
    return put_int(out, context.dialect, pending_drop(context.store, &place, entry, name, ids))


cdef struct GroupOptions:
    Py_ssize_t group            # where its name stands; 0: nowhere
    int64_t count               # -1: all
    bint no_ack


cdef Py_ssize_t read_group_options(const Span* args, Py_ssize_t n, GroupOptions* options) noexcept nogil:
    """What XREADGROUP is told before STREAMS; the place of that, -1 for what is unusual or refused."""
    cdef Py_ssize_t i = 0
    cdef int64_t timeout
    options.group, options.count, options.no_ack = 0, -1, False
    while i < n:
        if is_word(&args[i], "STREAMS", 7):
            return i if options.group else -1
        if is_word(&args[i], "GROUP", 5) and i + 2 < n:
            options.group = i + 1
            i += 3
        elif is_word(&args[i], "COUNT", 5) and i + 1 < n:
            if not parse_int64(args[i + 1].data, args[i + 1].size, &options.count):
                return -1
            i += 2
        elif is_word(&args[i], "BLOCK", 5) and i + 1 < n:
            if not parse_int64(args[i + 1].data, args[i + 1].size, &timeout) or not 0 <= timeout <= <int64_t> 1 << 40:
                return -1
            i += 2
        elif is_word(&args[i], "NOACK", 5):
            options.no_ack = True
            i += 1
        else:
            return -1
    return -1


cdef int run_xreadgroup(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    """What is new in one stream, of which nothing was deleted in the middle, for a group that can count."""
    cdef GroupOptions options
    cdef Py_ssize_t at = read_group_options(args, n, &options)
    cdef Place place
    cdef Entry* entry
    cdef Stream value
    cdef StreamId last
    cdef bytes name, consumer, key
    cdef list ids = [], found
    cdef int64_t read
    if at < 0 or n - at != 3 or args[n - 1].size != 1 or args[n - 1].data[0] != c">":
        return DECLINE
    context.store.place(&place, context.keys.db, slot, args[at + 1].data, args[at + 1].size)
    entry = stream_in(context.store.read(&place))
    if entry == NULL:
        return DECLINE
    value = stream_of(entry)
    name = PyBytes_FromStringAndSize(args[options.group].data, args[options.group].size)
    group = value.group_of(name)
    if group is None or not value.last_living(&last) or value.max_deleted.ms or value.max_deleted.seq:
        return DECLINE
    read = group.read
    if read < 0 or compare_ids(last, id_of(group.last)) <= 0:
        return DECLINE
    found = value.range(group.last + 1, number_of(last), options.count if options.count > 0 else -1, False, ids)
    consumer = PyBytes_FromStringAndSize(args[options.group + 1].data, args[options.group + 1].size)
    group_deliver(context.store, &place, entry, name, consumer, ids, read + len(ids), not options.no_ack)
    key = PyBytes_FromStringAndSize(args[at + 1].data, args[at + 1].size)
    return put_reply(out, context.dialect, Keyed([(key, found)]))


cdef Compiled compiled_stream(str key):
    """The compiled case of a command on a stream, or NULL."""
    if key == "xadd": return run_xadd
    if key == "xlen": return run_xlen
    if key == "xack": return run_xack
    if key == "xreadgroup": return run_xreadgroup
    return compiled_script(key)
