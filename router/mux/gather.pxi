# Split commands merged without Python: sums (DEL, EXISTS …), all OK (MSET), values in the order of their keys (MGET), and
# arrays one behind the other (KEYS). Small ones are made here, when all parts are in; a large one leaves as it comes (weave.pxi).

cdef class Gather(Pending):

    def __cinit__(self):
        self.owner = NULL
        self.errors = []

    def __dealloc__(self):
        free(self.owner)

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        cdef int64_t value
        if self.merges:
            return self.take_array(part, reply, n)
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
        return self.one_less()

    cdef int take_array(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        error = error_of_part(self.dialect, reply, n)
        if error is not None:
            self.errors.append((part, error))
        elif self.charge(n):
            self.texts[part] = PyBytes_FromStringAndSize(reply, n)
        return self.one_less()

    cdef int fail(self, uint32_t part, bytes message) except -1:
        self.errors.append((part, CommandError(message.decode("utf-8", "replace"))))
        return self.one_less()

    cdef int abandon(self) except -1:
        self.texts = None
        self.weave = None
        return self.drop_flows()

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
            return self.end_with_errors()
        if self.weave is not None:
            return self.begin_weaving()
        self.reply = Buffer()
        if self.fold == FOLD_SUM:
            if self.total == 0 and self.dialect == BINARY and self.command.nothing_is_missing:
                return self.complete(Missing(0))
            put_int(self.reply, self.dialect, self.total)
        elif self.fold == FOLD_OK:
            put_ok(self.reply, self.dialect)
        else:
            self.put_arrays()
            if self.session.gone:
                return 0
        return self.deliver()

    cdef int end_with_errors(self) except -1:
        replies = [None] * len(self.shards)
        for part, error in self.errors:
            replies[part] = error
        self.command.failed += 1
        self.drop_flows()
        if self.weave is not None:
            self.session.account(-self.weave.bytes_here())
            self.weave = None
        return self.complete(failure_of(self.command.writes, self.shards, replies))

    cdef int put_arrays(self) except -1:
        """One array of all parts' elements: each key's in the client's order, or one part's behind the other's."""
        cdef const char* at[MAX_SHARDS]
        cdef const char* end[MAX_SHARDS]
        cdef Py_ssize_t mark, k, n, size = 0, parts = len(self.texts)
        cdef int64_t count, total = 0
        cdef int part
        for part in range(parts):
            at[part] = PyBytes_AS_STRING(<bytes> self.texts[part])
            end[part] = at[part] + PyBytes_GET_SIZE(<bytes> self.texts[part])
            n = head_of(self.dialect, at[part], end[part] - at[part], &count)
            if n <= 0:
                return put_error(self.reply, self.dialect, INTERNAL_ERROR)
            at[part] += n
            total += count
            size += end[part] - at[part]
        if not self.charge(size):
            return 0
        self.reply.reserve(size + 32)
        mark = begin_array(self.reply, self.dialect, total)
        if self.fold == FOLD_CONCAT:
            for part in range(parts):
                self.reply.append(at[part], end[part] - at[part])
        for k in range(self.keys):
            part = self.owner[k]
            n = element_size(self.dialect, at[part], end[part] - at[part])
            if n <= 0 or n > end[part] - at[part]:
                self.reply.clear()
                return put_error(self.reply, self.dialect, INTERNAL_ERROR)
            self.reply.append(at[part], n)
            at[part] += n
        self.texts = None
        return end_reply(self.reply, self.dialect, mark)

    # A part that comes in pieces ------------------------------------------------------------------
    cdef int begin_flow(self, Flow flow) except -1:
        cdef Strand strand
        if not self.merges:
            return Pending.begin_flow(self, flow)
        if self.weave is None:
            self.weave = Weave.__new__(Weave)
            self.weave.dialect = self.dialect
            self.weave.strands = [None] * len(self.shards)
            self.weave.owner = self.owner if self.fold == FOLD_IN_ORDER else NULL
            self.weave.keys = self.keys
        strand = Strand.__new__(Strand)
        strand.flow = flow
        strand.size = flow.size
        strand.here = Buffer()
        self.weave.add(flow.part, strand)
        flow.granted = HEAD_WINDOW
        return flow.backend.put_credit(flow.token, HEAD_WINDOW)

    cdef int receive_piece(self, Flow flow, const char* data, Py_ssize_t n) except -1:
        cdef Strand strand
        cdef Session session = self.session
        if not self.merges:
            return Pending.receive_piece(self, flow, data, n)
        strand = <Strand> self.weave.strands[flow.part]
        session.account(n)
        flow.take(n)
        strand.here.append(data, n)
        if session.over_limit():
            return 0
        if strand.head == 0:
            strand.head = head_of(self.dialect, strand.here.data + strand.here.start, strand.here.used(), &strand.count)
            if strand.head < 0:
                return self.fail(flow.part, INTERNAL_ERROR)
            return self.one_less() if strand.head else 0
        if session.weaving is self:
            session.advance()
            session.predict()
            return session.proceed()
        return 0

    cdef int flow_lost(self, Flow flow, bytes message) except -1:
        cdef Strand strand
        if not self.merges:
            return Pending.flow_lost(self, flow, message)
        if self.session.gone or self.weave is None:
            return 0
        strand = <Strand> self.weave.strands[flow.part]
        if self.weave.begun:
            self.session.close("its shard was lost inside a reply")
            return 0
        if strand.head == 0:
            return self.fail(flow.part, message)
        self.errors.append((flow.part, CommandError(message.decode("utf-8", "replace"))))
        return self.end_with_errors() if self.missing == 0 else 0

    cdef int begin_weaving(self) except -1:
        """All parts have begun, and none is an error: the reply leaves when it is its turn."""
        cdef Py_ssize_t part
        for part in range(len(self.shards)):
            if self.weave.strands[part] is None:
                self.weave.add(<uint32_t> part, strand_of(<bytes> self.texts[part], self.dialect))
        self.texts = None
        # From here on its bytes are a reply's.
        self.parts_bytes = 0
        self.session.advance()
        self.session.predict()
        return self.session.proceed()

    cdef bint go_on(self, bint silent) except -1:
        cdef Session session = self.session
        cdef Weave weave = self.weave
        cdef Py_ssize_t size = 0
        if weave is None or self.missing or self.errors:
            return self.ready
        if silent:
            self.drop_flows()
            session.account(-weave.bytes_here())
            return self.wove(0)
        if not weave.begun:
            size = weave.begin(session)
            if size < 0:
                # Not `complete`: whoever asks is letting replies leave.
                self.drop_flows()
                self.reply = Buffer()
                put_error(self.reply, self.dialect, b"ERR the reply is too large for this protocol")
                session.account(self.reply.used() - weave.bytes_here())
                return self.wove(0)
            session.weaving = self
            self.woven_size = size
        if not weave.leave(session):
            weave.ask(session)
            return False
        session.weaving = None
        session.push_aside()
        return self.wove(self.woven_size)

    cdef bint wove(self, Py_ssize_t size) except -1:
        """All of it has left."""
        cdef Session session = self.session
        self.ready = True
        self.weave = None
        self.note_if_slow()
        session.merging -= 1
        session.merged_average = max(size, session.merged_average - (session.merged_average >> 3))
        if session.barrier is self:
            session.barrier = None
        return True


cdef bint gather_parts(Session session, Command* command, Py_ssize_t last, uint16_t flags) except -1:
    """Sends one frame to every shard that holds one of the keys; False when the command must wait."""
    cdef RequestParser parser = session.parser
    cdef Router router = session.router
    cdef Gather gather = Gather.__new__(Gather)
    cdef int[MAX_SHARDS] part_of
    cdef Py_ssize_t keys = (last - command.first) // command.step + 1, k
    cdef int shard, part, verdict
    cdef int64_t deadline = router.now_ms + router.limits.request_timeout
    cdef Py_ssize_t framed
    if router.remote is not None:
        return divide(session, command, last, flags)
    framed = session.framed_size() if router.limits.slow_ns < NEVER_SLOW else 0
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


cdef bint gather_all(Session session, Command* command, list parts, uint16_t flags) except -1:
    """Asks the shards of all parts, whose arrays become one; nothing is sent unless all can be asked. False when it must wait."""
    cdef Router router = session.router
    cdef Gather gather
    cdef int i, verdict
    for part in parts:
        verdict = session.may_send(<Backend> router.links[<int> part.shard], flags)
        if verdict != SEND:
            return verdict == REFUSED
    if not session.may_merge():
        return False
    gather = Gather.__new__(Gather)
    gather.router = router
    gather.session = session
    gather.dialect = session.dialect_now
    gather.command = command
    gather.fold = command.fold
    gather.merges = gather.lists = True
    gather.shards = [part.shard for part in parts]
    gather.texts = [None] * len(parts)
    gather.missing = len(parts)
    gather.keep_words(session)
    command.calls += 1
    session.merging += 1
    session.expect_pending(gather, flags)
    session.unanswered_bytes += session.parser.consumed
    # A shard may be at it for some time, in which the client's next command must not be executed.
    session.barrier = gather
    for i, part in enumerate(parts):
        (<Backend> router.links[<int> part.shard]).ask_in(
            gather.dialect, gather, i, command.id, NO_SLOT, part.args, session.db_now, session.flags_of_runs() | FLAG_DIVIDED,
            session.id, router.now_ms + router.limits.request_timeout, NO_TRANSACTION)
    return True
