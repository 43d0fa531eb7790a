# Split commands over plain key ranges, merged without Python: sums (DEL, EXISTS …), all OK (MSET) and
# values in the order of their keys (MGET).

cdef class Gather(Pending):

    def __cinit__(self):
        self.owner = NULL
        self.errors = []

    def __dealloc__(self):
        free(self.owner)

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        cdef int64_t value
        if n > 3 and reply[0] == c"?":
            # The internal dialect's mark of a Missing value ("?" and a line end); the sum decides here.
            reply += 3
            n -= 3
        if n > 0 and reply[0] == c"-":
            self.errors.append((part, decode_span(reply, n)))
        elif self.fold == FOLD_SUM:
            if n < 4 or reply[0] != c":" or not parse_int64(reply + 1, n - 3, &value):
                self.errors.append((part, CommandError(INTERNAL_ERROR.decode())))
            else:
                self.total += value
        elif self.fold == FOLD_IN_ORDER:
            if self.charge(n):
                self.texts[part] = PyBytes_FromStringAndSize(reply, n)
        return self.one_less()

    cdef int fail(self, uint32_t part, bytes message) except -1:
        self.errors.append((part, CommandError(message.decode("utf-8", "replace"))))
        return self.one_less()

    cdef int abandon(self) except -1:
        self.texts = None
        return 0

    cdef int one_less(self) except -1:
        self.missing -= 1
        if self.missing:
            return 0
        if self.framed and self.longest_part >= self.router.limits.slow_ns:
            self.asked = PyBytes_FromStringAndSize(<char*> self.owner + self.keys, self.framed)
        if self.session is None or self.session.gone:
            self.ready = True
            return 0
        if self.errors:
            self.command.failed += 1
            replies = [None] * len(self.shards)
            for part, error in self.errors:
                replies[part] = error
            return self.complete(failure_of(self.command.writes, self.shards, replies))
        self.reply = Buffer()
        if self.fold == FOLD_SUM:
            if self.total == 0 and self.dialect == BINARY and self.command.nothing_is_missing:
                return self.complete(Missing(0))
            put_int(self.reply, self.dialect, self.total)
        elif self.fold == FOLD_OK:
            put_ok(self.reply, self.dialect)
        else:
            self.put_in_order()
            if self.session.gone:
                return 0
        return self.deliver()

    cdef int put_in_order(self) except -1:
        """The values of all parts, each key's in the client's order."""
        cdef const char* at[MAX_SHARDS]
        cdef const char* end[MAX_SHARDS]
        cdef Py_ssize_t mark, k, size = 0, parts = len(self.texts)
        cdef int part
        for part in range(parts):
            at[part] = PyBytes_AS_STRING(<bytes> self.texts[part])
            end[part] = at[part] + PyBytes_GET_SIZE(<bytes> self.texts[part])
            if skip_line(&at[part], end[part]) < 0:     # "*n"
                return put_error(self.reply, self.dialect, INTERNAL_ERROR)
            size += PyBytes_GET_SIZE(<bytes> self.texts[part])
        if not self.charge(size):
            return 0
        self.reply.reserve(size + 16 * self.keys + 32)
        mark = begin_array(self.reply, self.dialect, self.keys)
        for k in range(self.keys):
            part = self.owner[k]
            put_one_bulk(self.reply, self.dialect, &at[part], end[part])
        self.texts = None
        return end_reply(self.reply, self.dialect, mark)


cdef int64_t skip_line(const char** at, const char* end) noexcept:
    """Moves behind the line at `at`; returns the number behind its first byte (-1 for none or a broken line)."""
    cdef const char* found
    cdef int64_t number = -1
    if end - at[0] < 3:
        return -1
    found = <const char*> memchr(at[0], c"\n", end - at[0])
    if found == NULL:
        return -1
    if not parse_int64(at[0] + 1, found - at[0] - 2, &number):
        number = -1
    at[0] = found + 1
    return number


cdef int put_one_bulk(Buffer out, int dialect, const char** at, const char* end) except -1:
    """Copies one bulk string or null of the internal dialect."""
    cdef int64_t size
    if end - at[0] >= 3 and at[0][0] == c"$":
        size = skip_line(at, end)
        if size >= 0 and size + 2 <= end - at[0]:
            put_nested_bulk(out, dialect, at[0], size)
            at[0] += size + 2
            return 0
        return put_nested_null(out, dialect)
    skip_line(at, end)
    return put_nested_null(out, dialect)


cdef bint gather_parts(Session session, Command* command, Py_ssize_t last, uint16_t flags) except -1:
    """Sends one frame to every shard that holds one of the keys; False when the command must wait."""
    cdef RequestParser parser = session.parser
    cdef Router router = session.router
    cdef Gather gather = Gather.__new__(Gather)
    cdef int[MAX_SHARDS] part_of
    cdef Py_ssize_t keys = (last - command.first) // command.step + 1, k
    cdef int shard, part, verdict
    cdef int64_t deadline = router.now_ms + router.limits.request_timeout
    cdef Py_ssize_t framed = session.framed_size() if router.limits.slow_ns < NEVER_SLOW else 0
    if command.fold == FOLD_IN_ORDER and not session.may_merge():
        return False
    gather.owner = <uint8_t*> malloc(keys + max(framed, 0))
    if gather.owner == NULL:
        raise MemoryError("no memory for a split command")
    gather.shards = []
    memset(part_of, -1, sizeof(part_of))
    for k in range(keys):
        shard = router.shard_at(key_slot(parser, command, k))
        if part_of[shard] < 0:
            verdict = session.may_send(<Backend> router.links[shard], flags)
            if verdict != SEND:
                return verdict == REFUSED
            part_of[shard] = <int> len(gather.shards)
            gather.shards.append(shard)
        gather.owner[k] = <uint8_t> part_of[shard]
    command.calls += 1
    gather.router = router
    gather.session = session
    gather.dialect = session.dialect_now
    gather.command = command
    gather.fold = command.fold
    gather.keys = keys
    gather.missing = len(gather.shards)
    gather.texts = [None] * gather.missing
    if framed > 0:
        # In the same block: this path is too hot for an object that is hardly ever looked at.
        memcpy(gather.owner + keys, parser.spans[0].data, framed)
        gather.framed = framed
        gather.asked_count = parser.count
        gather.asked_first = parser.spans[0].size
    elif framed < 0:
        gather.keep_words(session)
    if command.fold == FOLD_IN_ORDER:
        gather.merges = True
        session.merging += 1
    session.expect_pending(gather, flags)
    session.unanswered_bytes += parser.consumed
    for part, shard in enumerate(gather.shards):
        (<Backend> router.links[shard]).ask_keys(gather, part, session, deadline)
    return True


cdef inline uint16_t key_slot(RequestParser parser, Command* command, Py_ssize_t k) noexcept:
    cdef Span* key = &parser.spans[command.first + k * command.step]
    return slot_of(key.data, key.size)
