# Passages: what a command shows of one collection, element after element (HGETALL, SMEMBERS, LRANGE, ZRANGE and their like).
#
#   a small one ─► its packed bytes ─────────────────────────► reply     at once, without an object
#   a large one ─► Passage ─┬► all of it ────────────────────► reply     where it is little, in transactions and in scripts
#                           └► parked ─► slice, slice … ─────► reply     bulk.pxi, while its key is watched
#
# How much it will be is known before it is begun, so what takes longer than a slice is parked at once, and what is large is
# parked while many large ones wait for their clients. Between two slices others change data and blocks move: a passage keeps
# numbers of elements, no pointers, and one whose key has changed is not gone on with: nothing short of a copy could go on showing
# what it was. So a collection that is written to all the time is shown in one piece, and for a while none of it is begun.

cdef enum:
    SHOWN_TOGETHER = 64         # elements between two looks at the clock, whose first lines are fetched together
    SHOWN_BYTES = 262144        # or about so many bytes, if they are larger


cdef Py_ssize_t begin_shown(Buffer out, int dialect, int what, int64_t count) except -1:
    """The head of a reply of so many elements; what `end_reply` wants."""
    cdef bint flat = dialect != RESP3 and dialect != INTERNAL
    if what == SHOWN_BOTH:
        return begin_reply(out, dialect, c"*" if flat else c"%", 2 * count if flat else count)
    if what == SHOWN_MEMBERS:
        return begin_reply(out, dialect, c"*" if flat else c"~", count)
    if what == SHOWN_SCORES:
        return begin_reply(out, dialect, c"|" if dialect == INTERNAL else c"*", 2 * count if flat else count)
    return begin_array(out, dialect, count)


cdef inline int type_shown(int what) noexcept nogil:
    return TYPE_HASH if what <= SHOWN_BOTH else TYPE_SET if what == SHOWN_MEMBERS else TYPE_LIST if what == SHOWN_ELEMENTS else TYPE_ZSET


# Hashes and sets --------------------------------------------------------------------------------------
cdef int put_packed_fields(Entry* entry, int what, int dialect, Buffer out) except -1:
    """All of a packed hash or set."""
    cdef const char* at = entry_value(entry) + HEADER
    cdef uint32_t count = packed_length(entry), i
    cdef Py_ssize_t mark = begin_shown(out, dialect, what, count)
    cdef char[TEXT] scratch
    cdef Span text
    for i in range(count):
        if entry.flags & INTSET:
            text.data = scratch
            text.size = format_int64(scratch, intset_at(entry_value(entry), i))
        else:
            text = item_text(at, scratch)
            at += item_span(at)
        if what != SHOWN_VALUES:
            put_nested_bulk(out, dialect, text.data, text.size)
        if what == SHOWN_MEMBERS:
            continue
        if what != SHOWN_FIELDS:
            text = item_text(at, scratch)
            put_nested_bulk(out, dialect, text.data, text.size)
        at += item_span(at)
    return end_reply(out, dialect, mark)


cdef int put_fields(Walk* walk, int64_t n, int what, int dialect, Buffer out) except -1:
    """The next `n`, at most SHOWN_TOGETHER, of a table; all of them lie elsewhere, so that the waits for them overlap."""
    cdef Entry* near[SHOWN_TOGETHER]
    cdef int64_t i, found = 0
    while found < n:
        near[found] = walk_next(walk)
        if near[found] == NULL:
            break
        kache_fetch(near[found])
        found += 1
    for i in range(found):
        if what != SHOWN_VALUES:
            put_nested_bulk(out, dialect, entry_key(near[i]), entry_key_size(near[i]))
        if what == SHOWN_VALUES or what == SHOWN_BOTH:
            put_nested_bulk(out, dialect, entry_value(near[i]), entry_value_size(near[i]))
    return 0


cdef int show_fields(Context context, int slot, Span* args, Py_ssize_t n, int what, Buffer out) except -1:
    """HGETALL, HKEYS, HVALS, SMEMBERS."""
    cdef Place place
    cdef Entry* entry
    cdef FieldTable table
    if context.token and use_assembled(context, args, 1, out):
        return DONE
    context.store.place(&place, context.keys.db, slot, args[0].data, args[0].size)
    entry = fields_of(context.store, &place, type_shown(what))
    if entry == NULL:
        return end_reply(out, context.dialect, begin_shown(out, context.dialect, what, 0))
    if entry.flags & PACKED:
        return put_packed_fields(entry, what, context.dialect, out)
    table = <FieldTable> <object> entry_object(entry)
    return show(context, args, n, what, 0, table.table.count, False, table.bytes_used, out)


cdef int run_hgetall(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return show_fields(context, slot, args, n, SHOWN_BOTH, out)


cdef int run_hkeys(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return show_fields(context, slot, args, n, SHOWN_FIELDS, out)


cdef int run_hvals(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return show_fields(context, slot, args, n, SHOWN_VALUES, out)


cdef int run_smembers(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    return show_fields(context, slot, args, n, SHOWN_MEMBERS, out)


cdef void fetch_members(ZSet value, int64_t start, bint reverse) noexcept:
    """Those behind a rank, of its leaf and the next one."""
    cdef Step[DEEPEST] path
    cdef uint32_t at, i
    cdef Leaf* leaf = ranks_at(
        &value.ranks, <uint32_t> (value.table.count - 1 - start if reverse else start), path, &at)
    cdef Leaf* other = leaf.previous if reverse else leaf.next
    for i in range(0 if reverse else at, at + 1 if reverse else leaf.count):
        kache_fetch(leaf.pairs[i].entry)
    if other != NULL:
        for i in range(other.count):
            kache_fetch(other.pairs[i].entry)


# Large ones -------------------------------------------------------------------------------------------
@cython.final
cdef class Passage(Assembly):
    """The elements [at, stop) of one large collection; of one that is shown in reverse they are counted from the end."""

    cdef int begin(self) except -1:
        self.made = Buffer()
        self.made.reserve(self.expected)
        return self.begin_in(self.made)

    cdef int begin_in(self, Buffer out) except -1:
        self.mark = begin_shown(out, self.dialect, self.what, self.stop - self.at)
        return 0

    cdef bint go_on(self, int64_t until_ns) except -1:
        return self.put_into(self.made, until_ns)

    cdef PyObject* value(self) except? NULL:
        """The collection as it was found, or NULL: it is another one by now, and nobody will use what was made of it."""
        cdef Place place
        cdef Entry* entry
        cdef FieldTable fields
        self.store.place_of(&place, self.db, self.key)
        entry = self.store.find(&place)
        if entry == NULL or entry.flags & PACKED or (entry.flags & TYPE_MASK) != type_shown(self.what):
            return NULL
        if self.what <= SHOWN_BOTH:
            fields = <FieldTable> <object> entry_object(entry)
            if fields.heap.count and heap_soonest(&fields.heap) <= self.store.now_ms:
                # They go now, which is a change.
                purge_fields(self.store, &place, fields, 1 << 40)
                return NULL
        return entry_object(entry)

    cdef bint put_into(self, Buffer out, int64_t until_ns) except -1:
        """Element after element, up to this time unless it is 0; whether there are more."""
        cdef PyObject* value = self.value()
        cdef int64_t n
        if value == NULL:
            return False
        while self.at < self.stop:
            n = min(self.together, self.stop - self.at)
            if self.what <= SHOWN_MEMBERS:
                self.walk.table = &(<FieldTable> <object> value).table
                put_fields(&self.walk, n, self.what, self.dialect, out)
            elif self.what == SHOWN_ELEMENTS:
                put_elements(<ListValue> <object> value, self.at, self.at + n, self.dialect, out)
            else:
                fetch_members(<ZSet> <object> value, self.at, self.reverse)
                put_members(<ZSet> <object> value, self.at, self.at + n, self.reverse, self.what == SHOWN_SCORES, self.dialect, out)
            self.at += n
            if until_ns and self.at < self.stop and monotonic_ns() >= until_ns:
                return True
        end_reply(out, self.dialect, self.mark)
        return False

    cdef int watch(self, Watches watches) except -1:
        watches.add(self.waiter, 0, self.db, self.key)
        return 0

    cdef bint is_current(self, Watches watches) except -1:
        # Fields that have expired by now are seen here.
        return self.value() != NULL and watches.is_clean(self.waiter, 0)


cdef Passage passage_of(Context context, bytes key, int what, int64_t start, int64_t stop, bint reverse, Py_ssize_t expected):
    cdef Passage passage = Passage.__new__(Passage)
    passage.store = context.store
    passage.db = context.keys.db
    passage.dialect = context.dialect
    passage.key = key
    passage.what = what
    passage.at = start
    passage.stop = stop
    passage.reverse = reverse
    passage.expected = expected
    passage.together = min(max(SHOWN_BYTES // (expected // max(stop - start, 1) + 1), 1), SHOWN_TOGETHER)
    return passage


cdef int show(Context context, Span* args, Py_ssize_t n, int what, int64_t start, int64_t stop, bint reverse, Py_ssize_t expected,
              Buffer out) except -1:
    """Elements of the large collection whose key is the first argument, which take about so many bytes. DONE, or PARKED."""
    cdef Passage passage = passage_of(
        context, PyBytes_FromStringAndSize(args[0].data, args[0].size), what, start, stop, reverse, expected)
    if waits_for_turn(context, stop - start, expected) and made_later(context, args, n, expected, passage):
        return PARKED
    passage.begin_in(out)
    passage.put_into(out, 0)
    return DONE


cdef inline bint waits_for_turn(Context context, int64_t elements, Py_ssize_t expected) noexcept:
    """Whether a reply takes longer than a slice, or is large while others of its kind wait."""
    cdef Host host = context.shard.locks.host
    return elements >= SLICED_FROM or expected > IN_SLICES or (host is not None and host.pacing and expected > LARGE)


cdef object shown_ranks(Context context, tuple arguments, int64_t start, int64_t stop, bint reverse, bint scores):
    """What a handler whose first argument is the key of a sorted set returns for the ranks [start, stop). None: they are few,
    or inside of another command, and to be shown as a value."""
    cdef Words words
    cdef Place place
    cdef Entry* entry
    cdef ZSet value
    cdef Passage passage
    cdef Py_ssize_t expected
    if context.depth or stop - start < SHOWN_TOGETHER:
        return None
    words = Words(arguments)
    if context.token:
        passage = assembled(context)
        if passage is not None:
            return passage
    context.store.place(&place, context.keys.db, NO_SLOT, words.spans[0].data, words.spans[0].size)
    entry = context.store.find(&place)
    if entry == NULL or entry.flags & PACKED:
        return None
    value = <ZSet> <object> entry_object(entry)
    expected = part_of(value.size_in_memory(), stop - start, value.count())
    if reverse:
        start, stop = value.count() - stop, value.count() - start
    passage = passage_of(
        context, words.kept[0], SHOWN_SCORES if scores else SHOWN_RANKS, start, stop, reverse, expected)
    if waits_for_turn(context, stop - start, expected) and made_later(context, words.spans, words.count, expected, passage):
        return made_again(context)
    passage.made = Buffer()
    passage.begin_in(passage.made)
    passage.put_into(passage.made, 0)
    return passage


cdef object made_again(Context context):
    """What a handler returns that was parked and is called again when it is its turn: only then it counts."""
    cdef Command* command = &context.shard.commands[context.number]
    command.calls -= context.shard.counts(context, command)
    return Deferred(context.shard.pending_token)


cdef int take_over(Buffer out, Buffer made) except -1:
    """A reply that was made by itself becomes the next one of `out`."""
    if out.used():
        return out.append(made.data + made.start, made.used())
    out.data, made.data = made.data, out.data
    out.start, made.start = made.start, out.start
    out.end, made.end = made.end, out.end
    out.capacity, made.capacity = made.capacity, out.capacity
    return 0


cdef Compiled compiled_passage(str key):
    """The compiled case of a command that shows all of a hash or a set, or NULL."""
    if key == "hgetall": return run_hgetall
    if key == "hkeys": return run_hkeys
    if key == "hvals": return run_hvals
    if key == "smembers": return run_smembers
    return compiled_stream(key)
