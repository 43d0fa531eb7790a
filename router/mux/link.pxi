# The wire of a shard: runs of frames go out, replies come back in the same order (kache/wire/link.pxd has the bytes).
#
#   out buffer   | RUN header | frame frame … | RUN header | frame …      a run is open while one session is
#                  ^ patched by end_run                                   being parsed, never longer

cdef tuple LINK_STATES = ("down", "handshake", "up", "draining")

# A message other than REPLY that is longer than this is nonsense (a PUSH carries at most one reply).
cdef uint32_t MESSAGE_LIMIT = 0x7FFFFFFF

# A link is busy as long as the cluster is: its buffer is not given back between two batches.
cdef Py_ssize_t LINK_BUFFER = 1 << 20


# A frame of more bytes leaves at once, its largest argument from where it was received; smaller ones are cheaper to
# copy than to write one by one.
cdef Py_ssize_t GATHERED = 16 * 1024


cdef inline int put_frame(Buffer out, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1:
    """A client's command as it travels; the words that name it stand before its arguments."""
    cdef Py_ssize_t size = FRAME_HEADER, i
    cdef uint32_t n
    cdef uint16_t number
    cdef char* at
    for i in range(count):
        size += 4 + arguments[i].size
    at = out.reserve(size)
    n = <uint32_t> (size - 4)
    memcpy(at, &n, 4)
    number = command.id | (IN_CAPITALS if not (arguments - command.words).data[0] & 0x20 else 0)
    memcpy(at + 4, &number, 2)
    memcpy(at + 6, &slot, 2)
    n = <uint32_t> count
    memcpy(at + 8, &n, 4)
    at += FRAME_HEADER
    for i in range(count):
        n = <uint32_t> arguments[i].size
        memcpy(at, &n, 4)
        kache_copy(at + 4, arguments[i].data, n)
        at += 4 + n
    out.end += size
    return 0


cdef inline uint32_t number_of(User user) noexcept:
    """What a run says of whose it is."""
    return user.number


cdef uint32_t number_of_asker(Router router, Pending owner, uint64_t session) except? 0:
    """Whose a question is: of the session that waits for it, or of that id; nobody's without one, or if it is gone."""
    cdef Session one = owner.session
    if one is None and session:
        one = router.clients.by_id.get(session)
    return RUN_OF_NOBODY if one is None else number_of(one.rights)


cdef class Link(Backend):

    cdef int connected(self, int fd) except -1:
        cdef Buffer out
        Endpoint.__init__(self, self.router, fd)
        self.phase = HANDSHAKE
        self.reason = "no answer to the handshake yet"
        self.widen()
        out = self.output()
        out.keep = LINK_BUFFER
        out.put_u32(24)
        out.put_u8(LINK_HELLO)
        out.put_u8(LINK_VERSION)
        out.put_u16(self.router.index)
        out.append(PyBytes_AS_STRING(<bytes> DIGEST), 8)
        out.put_u64(self.router.boot_id)
        out.put_u32(self.router.module_epoch)
        return 0 if offer_with(self, out) else self.mark_dirty()

    @property
    def state(self):
        """"down", "handshake", "loading", "up" or "draining"."""
        return "loading" if self.phase == UP and self.loading else LINK_STATES[self.phase]

    # Runs out -------------------------------------------------------------------------------------
    cdef int put(self, Session session, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1:
        self.begin_run(session)
        if session.parser.consumed > GATHERED and count > 0:
            self.put_gathered(command, slot, arguments, count)
        else:
            self.put_spans(command, slot, arguments, count)
        return self.index

    cdef int begin_run(self, Session session) except -1:
        """Opens a run of `session` unless its run is open already."""
        if self.run_owner == <PyObject*> session:
            return 0
        if self.run_owner != NULL:
            self.end_run()
        self.router.shards.touch(self.index)
        self.run_owner = <PyObject*> session
        return self.put_header(session.dialect_now, session.db_now, session.flags_of_runs(), session.id,
                               self.router.now_ms + self.limits.request_timeout, NO_TRANSACTION, number_of(session.rights))

    cdef int put_header(self, int dialect, int db, int flags, uint64_t session, int64_t deadline,
                        uint64_t transaction, uint32_t user) except -1:
        cdef Buffer out = self.output()
        cdef char* at = out.reserve(RUN_HEADER)
        self.run_mark = out.used()
        self.run_count = 0
        self.run_deadline = deadline
        memset(at, 0, RUN_HEADER)
        at[RUN_KIND_AT] = LINK_RUN
        at[RUN_DIALECT_AT] = <char> dialect
        at[RUN_DB_AT] = <char> db
        at[RUN_FLAGS_AT] = <char> flags
        memcpy(at + RUN_SESSION_AT, &session, 8)
        memcpy(at + RUN_DEADLINE_AT, &deadline, 8)
        memcpy(at + RUN_TRANSACTION_AT, &transaction, 8)
        memcpy(at + RUN_USER_AT, &user, 4)
        out.end += RUN_HEADER
        return 0

    cdef int end_run(self) except -1:
        """Completes the header of the open run and expects its replies."""
        cdef PyObject* owner = self.run_owner
        if owner == NULL:
            return 0
        self.run_owner = NULL
        return self.finish_run(owner, False, 0)

    cdef int finish_run(self, PyObject* owner, bint pending, uint32_t part) except -1:
        cdef Buffer out = self.out
        cdef char* at = out.data + out.start + self.run_mark
        cdef uint32_t length = <uint32_t> (out.used() - self.run_mark - 4)
        if self.run_count == 0:
            out.end = out.start + self.run_mark
            return 0
        memcpy(at, &length, 4)
        memcpy(at + RUN_COUNT_AT, &self.run_count, 4)
        return self.expect(owner, pending, part, self.run_count, self.run_deadline, self.run_mark)

    cdef int put_spans(self, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1:
        """Adds one frame to the open run."""
        put_frame(self.out, command, slot, arguments, count)
        self.run_count += 1
        self.in_flight += 1
        return 0

    cdef int put_gathered(self, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1:
        """Adds a large frame to the open run, ends the run, and writes it."""
        cdef PyObject* owner = self.run_owner
        cdef Span* largest = arguments
        cdef Span whole
        cdef Buffer out = self.out
        cdef Py_ssize_t mark, split, i, size
        cdef uint32_t n
        for i in range(count):
            if arguments[i].size > largest.size:
                largest = arguments + i
        if largest.size >= PLACED_FROM and self.area is not None and place_frame(self, command, slot, arguments, count, largest):
            return 0
        if self.chain is not None or self.wants_write or largest.size <= GATHERED:
            # What waits for the socket is joined.
            return self.put_spans(command, slot, arguments, count)
        mark = out.used()
        whole = largest[0]
        largest.size = 0
        self.put_spans(command, slot, arguments, count)
        largest.size = whole.size
        # In its place stands an empty argument so far: its length is put right here, and its bytes go between.
        split = mark + FRAME_HEADER
        for i in range(largest - arguments):
            split += 4 + arguments[i].size
        n = <uint32_t> whole.size
        memcpy(out.data + out.start + split, &n, 4)
        split += 4
        n = <uint32_t> (out.used() - mark - 4 + whole.size)
        memcpy(out.data + out.start + mark, &n, 4)
        n = <uint32_t> (out.used() - self.run_mark - 4 + whole.size)
        memcpy(out.data + out.start + self.run_mark, &n, 4)
        memcpy(out.data + out.start + self.run_mark + RUN_COUNT_AT, &self.run_count, 4)
        self.run_owner = NULL
        self.expect(owner, False, 0, self.run_count, self.run_deadline, self.run_mark)
        size = self.send_joined(split, whole.data, whole.size)
        return self.on_written(size) if size else 0

    cdef int ask(self, Pending owner, uint32_t part, uint16_t command, uint16_t slot, object arguments, int db,
                 int flags, uint64_t session, int64_t deadline, uint64_t transaction) except -1:
        return self.ask_in(INTERNAL, owner, part, command, slot, arguments, db, flags, session, deadline, transaction)

    cdef int ask_in(self, int dialect, Pending owner, uint32_t part, uint16_t command, uint16_t slot, object arguments,
                    int db, int flags, uint64_t session, int64_t deadline, uint64_t transaction) except -1:
        cdef Buffer out
        cdef Py_ssize_t mark
        cdef uint32_t size
        cdef bytes argument
        cdef uint32_t user = number_of_asker(self.router, owner, session)
        self.end_run()
        if transaction:
            # A share of one frame, behind which nothing follows at once.
            self.put_header(dialect, db, flags | FLAG_ATOMIC, session, 0, transaction, user)
            self.run_deadline = deadline
        else:
            self.put_header(dialect, db, flags, session, deadline, NO_TRANSACTION, user)
        out = self.out
        mark = out.used()
        out.put_u32(0)
        out.put_u16(command)
        out.put_u16(slot)
        out.put_u32(<uint32_t> len(arguments))
        for argument in arguments:
            out.put_u32(<uint32_t> PyBytes_GET_SIZE(argument))
            out.append(PyBytes_AS_STRING(argument), PyBytes_GET_SIZE(argument))
        size = <uint32_t> (out.used() - mark - 4)
        memcpy(out.data + out.start + mark, &size, 4)
        self.run_count = 1
        self.in_flight += 1
        return self.finish_run(<PyObject*> owner, True, part)

    cdef int put_runs(self, Pending owner, uint32_t part, Buffer runs, list counts, int64_t deadline) except -1:
        cdef Buffer out
        cdef Py_ssize_t base, mark
        cdef uint32_t count
        self.end_run()
        out = self.output()
        base = out.used()
        out.append(runs.data + runs.start, runs.used())
        for mark, count in counts:
            self.in_flight += count
            self.expect(<PyObject*> owner, True, part, count, deadline, base + mark)
        return 0

    cdef int put_queue(self, Exec owner, Queue queue, int flags, int64_t deadline) except -1:
        cdef Buffer frames = queue.frames
        cdef Queued* one
        cdef Buffer out
        cdef Py_ssize_t i
        self.end_run()
        # Here is room for all of it: half a run would be the end of the link.
        self.output().reserve(RUN_HEADER + frames.used())
        self.put_header(owner.dialect, max(queue.run_db, 0), flags, owner.session.id, deadline, NO_TRANSACTION,
                        number_of(owner.session.rights))
        out = self.out
        if queue.locals == 0:
            out.append(frames.data + frames.start, frames.used())
        else:
            for i in range(queue.count):
                one = &queue.commands[i]
                if one.shard >= 0:
                    out.append(frames.data + frames.start + one.at, one.size)
        self.run_count = <uint32_t> owner.left
        self.in_flight += owner.left
        return self.finish_run(<PyObject*> owner, True, 0)

    cdef int ask_keys(self, Gather gather, int part, Session session, int64_t deadline) except -1:
        cdef Command* command = gather.command
        cdef RequestParser parser = session.parser
        cdef Py_ssize_t mark, k, word
        cdef uint32_t words = 0, size
        cdef uint16_t slot = NO_SLOT
        cdef Buffer out
        cdef Span* span
        self.end_run()
        if gather.merges:
            self.put_header(gather.dialect, session.db_now, session.flags_of_runs() | FLAG_DIVIDED, session.id, deadline,
                            NO_TRANSACTION, number_of(session.rights))
        else:
            self.put_header(INTERNAL, session.db_now, session.flags_of_runs(), session.id, deadline, NO_TRANSACTION,
                            number_of(session.rights))
        out = self.out
        mark = out.used()
        out.reserve(FRAME_HEADER)
        out.end += FRAME_HEADER
        for k in range(gather.keys):
            if gather.owner[k] != part:
                continue
            if slot == NO_SLOT:
                slot = key_slot(parser, command, k)
            for word in range(command.first + k * command.step, command.first + (k + 1) * command.step):
                span = &parser.spans[word]
                out.put_u32(<uint32_t> span.size)
                out.append(span.data, span.size)
                words += 1
        size = <uint32_t> (out.used() - mark - 4)
        memcpy(out.data + out.start + mark, &size, 4)
        memcpy(out.data + out.start + mark + 4, &command.id, 2)
        memcpy(out.data + out.start + mark + 6, &slot, 2)
        memcpy(out.data + out.start + mark + 8, &words, 4)
        self.run_count = 1
        self.in_flight += 1
        return self.finish_run(<PyObject*> gather, True, part)

    cdef uint64_t count_begun(self) noexcept:
        cdef uint64_t* begun = self.router.board.begun(self.index, self.router.index)
        return begun[0] if begun != NULL and self.router.board.alive(self.index) else 0

    cdef int cancel(self, uint64_t session) except -1:
        cdef Buffer out
        self.end_run()
        out = self.output()
        out.put_u32(16)
        out.put_u32(LINK_CANCEL)     # kind and three bytes of padding
        out.put_u32(0)
        out.put_u64(session)
        return self.mark_dirty()

    cdef int cancel_one(self, uint64_t session, uint64_t token) except -1:
        cdef Buffer out
        if self.phase != UP:
            return 0
        self.end_run()
        out = self.output()
        out.put_u32(24)
        out.put_u32(LINK_CANCEL)
        out.put_u32(0)
        out.put_u64(session)
        out.put_u64(token)
        return self.mark_dirty()

    cdef int put_word(self, int kind, uint64_t token, uint32_t how) except -1:
        cdef Buffer out
        if self.phase != UP and (self.phase != LEAVING or self.said_goodbye):
            return 0
        self.end_run()
        out = self.output()
        out.put_u32(16)
        out.put_u32(<uint32_t> kind)
        out.put_u32(how)
        out.put_u64(token)
        return self.mark_dirty() if kind != LINK_RECEIVED else 0

    cdef int put_credit(self, uint64_t token, uint64_t n) except -1:
        cdef Buffer out
        if self.phase != UP:
            return 0
        self.end_run()
        out = self.output()
        out.put_u32(24)
        out.put_u32(LINK_CREDIT)
        out.put_u32(0)
        out.put_u64(token)
        out.put_u64(n)
        return self.mark_dirty()

    cdef int put_part(self, uint64_t session, uint32_t argument, const char* data, Py_ssize_t n) except -1:
        cdef Buffer out
        self.end_run()
        out = self.output()
        out.put_u32(<uint32_t> (PART_HEADER - 4 + n))
        out.put_u32(LINK_PART)
        out.put_u32(argument)
        out.put_u64(session)
        n = self.send_joined(out.used(), data, n)
        self.mark_dirty()
        return self.on_written(n) if n else 0

    cdef int drop_parts(self, uint64_t session) except -1:
        return self.put_part(session, DROP_PARTS, b"", 0) if self.phase == UP else 0

    # Replies in -----------------------------------------------------------------------------------
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t at = 0
        cdef uint32_t length
        cdef uint64_t token
        cdef int kind
        while self.fd >= 0:
            if self.reply_left:
                at += self.take_replies(data + at, n - at)
                if self.reply_left:
                    break
                continue
            if self.part_left:
                at += self.take_part(data + at, n - at)
                if self.part_left:
                    break
                continue
            if n - at < 5:
                break
            memcpy(&length, data + at, 4)
            kind = <uint8_t> data[at + 4]
            if kind == LINK_PART and self.phase >= UP and length >= PART_HEADER - 4:
                if n - at < PART_HEADER:
                    break
                memcpy(&token, data + at + 12, 8)
                self.part_left = length - (PART_HEADER - 4)
                self.part_of = self.flows.get(token)
                at += PART_HEADER
                continue
            if kind == LINK_REPLY and self.phase >= UP:
                if n - at < REPLY_HEADER:
                    break
                memcpy(&self.reply_left, data + at + 8, 4)
                at += REPLY_HEADER
                continue
            if length > MESSAGE_LIMIT or length < 1:
                self.close("a message of an impossible length")
                break
            if n - at < 4 + <Py_ssize_t> length:
                break
            self.take_message(kind, data + at + 5, length - 1)
            at += 4 + length
        if self.fd < 0:
            return n
        self.keep_partial(n - at)
        return at

    cdef Py_ssize_t take_part(self, const char* data, Py_ssize_t n) except -1:
        cdef Flow flow = self.part_of
        n = min(n, <Py_ssize_t> self.part_left)
        self.part_left -= <uint32_t> n
        if self.part_left == 0:
            self.part_of = None
        if flow is None or not n or flow.dropped or (flow.session is not None and flow.session.gone):
            return n
        if flow.pending is not None:
            flow.pending.receive_piece(flow, data, n)
        else:
            flow.session.receive_piece(flow, data, n)
        return n

    cdef inline int keep_partial(self, Py_ssize_t n) except -1:
        """n bytes of a reply that is not complete are kept here: some client costs them."""
        self.router.clients.input_bytes += n - self.partial
        self.partial = n
        return 0

    cdef Py_ssize_t take_replies(self, const char* data, Py_ssize_t n) except -1:
        """Hands out the replies that are here; a REPLY message is taken reply by reply."""
        cdef Py_ssize_t at = 0
        cdef uint32_t size, count, taken
        cdef Py_ssize_t marked
        cdef Expected* expected
        cdef PyObject* owner
        while self.reply_left and n - at >= 4:
            if self.head == self.tail:
                self.close("a reply that nobody expects")
                return n
            expected = &self.ring[self.head & self.ring_mask]
            owner = expected.owner
            if owner != NULL and not expected.pending:
                count = expected.count if expected.count < self.reply_left else self.reply_left
                # The owner may close itself while it takes the replies; the ring keeps it alive meanwhile.
                at += (<Session> owner).receive_several(self.index, data + at, n - at, count, &taken)
                if taken:
                    self.reply_left -= taken
                    self.answered(taken)
                    continue
            memcpy(&size, data + at, 4)
            if size < REPLY_MARKS:
                if n - at - 4 < <Py_ssize_t> size:
                    break
                if owner != NULL:
                    (<Pending> owner).receive(expected.part, data + at + 4, size)
                at += 4 + <Py_ssize_t> size
                taken = 1
            else:
                marked = self.take_marked(expected, data + at, n - at, &taken)
                if marked == 0:
                    break
                if taken == 0:
                    return n
                at += marked
            self.reply_left -= taken
            self.answered(taken)
        return at

    cdef Py_ssize_t take_marked(self, Expected* expected, const char* data, Py_ssize_t n, uint32_t* taken) except -1:
        """What stands for a reply, or for `taken` of them, instead of its bytes; its size, 0 when it is not all here. None
        is taken when the link had to be closed."""
        cdef uint32_t size
        cdef uint64_t token, bytes_to_come
        cdef PyObject* owner = expected.owner
        memcpy(&size, data, 4)
        taken[0] = 1
        if size == REPLY_EXPIRED:
            if owner != NULL:
                self.answer(owner, expected.pending, expected.part, 1, TIMED_OUT)
            return 4
        if size == REPLY_ABORTED:
            if n < 8:
                return 0
            memcpy(&size, data + 4, 4)
            if n - 8 < <Py_ssize_t> size:
                return 0
            taken[0] = min(expected.count, self.reply_left)
            if owner != NULL:
                (<Pending> owner).aborted(expected.part, PyBytes_FromStringAndSize(data + 8, size))
            return 8 + <Py_ssize_t> size
        if size == REPLY_PLACED:
            if n < 16:
                return 0
            memcpy(&size, data + 4, 4)
            memcpy(&token, data + 8, 8)
            taken[0] = take_placed(self, expected, token, size)
            return 16
        if n < 12 or (size == REPLY_LARGE and n < 20):
            return 0
        memcpy(&token, data + 4, 8)
        if size == REPLY_LARGE:
            memcpy(&bytes_to_come, data + 12, 8)
            self.begin_flow(expected, token, <Py_ssize_t> bytes_to_come, 0)
            return 20
        if owner != NULL:
            self.defer(expected, token, size == REPLY_BLOCKED)
        elif size == REPLY_BLOCKED:
            # It was answered TIMEOUT.
            self.cancel_one(0, token)
        return 12

    cdef int take_message(self, int kind, const char* body, Py_ssize_t n) except -1:
        """Any message but REPLY; `body` is what follows the kind."""
        cdef uint64_t number
        if kind == LINK_HELLO_OK and self.phase == HANDSHAKE and n >= 12:
            memcpy(&self.pid, body + 4, 8)
            self.loading = body[3] != 0
            self.area = self.offered if n >= 13 and body[12] else None
            return self.up(<uint8_t> body[0], (<uint8_t> body[1]) | (<uint8_t> body[2]) << 8)
        if kind == LINK_HELLO_NO and self.phase == HANDSHAKE:
            reason = PyBytes_FromStringAndSize(body, n).decode("utf-8", "replace")
            log.error("shard %d refuses the link: %s", self.index, reason)
            self.close(reason)
        elif kind == LINK_NOTICE and n >= 1:
            if body[0] == NOTICE_READY and self.loading:
                self.loading = False
                self.router.shards.is_back(self)
            elif body[0] == NOTICE_DRAINING and self.phase == UP:
                self.phase = LEAVING
                self.reason = "it is being restarted"
                self.router.shards.is_leaving(self.index)
                self.say_goodbye()
        elif kind == LINK_PUBLISHED and n >= PUBLISHED_HEADER - 5:
            self.take_published(body, n)
        elif kind == LINK_RETRY and n >= 15:
            memcpy(&number, body + 7, 8)
            self.take_retry(number, PyBytes_FromStringAndSize(body + 15, n - 15))
        elif (kind == LINK_DEFERRED or kind == LINK_PUSH or kind == LINK_SLOW or kind == LINK_SLOW_PART
                or kind == LINK_DENIED) and n >= 15:
            memcpy(&number, body + 7, 8)
            if kind == LINK_SLOW_PART:
                self.take_slow_part(<int64_t> number)
            elif kind == LINK_SLOW:
                self.take_report(number, PyBytes_FromStringAndSize(body + 15, n - 15))
            elif kind == LINK_DENIED:
                self.router.accounts.report(self.router.session_by_id(number), PyBytes_FromStringAndSize(body + 15, n - 15))
            elif kind == LINK_PUSH:
                self.router.clients.push(number, body + 15, n - 15)
            elif body[3] == DEFERRED_TIMED_FORM or body[3] == DEFERRED_LARGE_FORM:
                self.take_timed(number, body[3] == DEFERRED_LARGE_FORM, body + 15, n - 15)
            else:
                self.take_deferred(number, body[3] == DEFERRED_ABORTED_FORM, body + 15, n - 15)
        else:
            self.close(f"an unknown message of kind {kind}")
        return 0

    cdef int take_timed(self, uint64_t token, bint large, const char* body, Py_ssize_t n) except -1:
        """What was deferred has come, or comes in pieces from now on; how long it took is said before it."""
        cdef int64_t took
        cdef uint64_t flow, size
        cdef Expected expected
        cdef Pending pending = None
        owner = self.deferred.get(token)
        if n < (24 if large else 8):
            self.close("a late reply that is too short")
            return 0
        memcpy(&took, body, 8)
        if isinstance(owner, tuple):
            pending = <Pending> owner[0]
            pending.longest_part = max(pending.longest_part, took)
        if not large:
            return self.take_deferred(token, False, body + 8, n - 8)
        memcpy(&flow, body + 8, 8)
        memcpy(&size, body + 16, 8)
        self.deferred.pop(token, None)
        self.parked.pop(token, None)
        if owner is None:
            return self.put_credit(flow, 0)
        expected.owner = <PyObject*> owner if pending is None else <PyObject*> pending
        expected.pending = pending is not None
        expected.part = 0 if pending is None else owner[1]
        return self.begin_flow(&expected, flow, <Py_ssize_t> size, token)

    cdef int take_published(self, const char* body, Py_ssize_t n) except -1:
        cdef uint32_t size
        cdef uint64_t session
        cdef int what
        memcpy(&size, body + 3, 4)
        n -= PUBLISHED_HEADER - 5
        if <Py_ssize_t> size > n:
            self.close("a message shorter than its name")
            return 0
        what = <uint8_t> body[0]
        memcpy(&session, body + 7, 8)
        body += PUBLISHED_HEADER - 5
        if what == PUBLISHED_KEY or what == PUBLISHED_FLUSH or what == PUBLISHED_BROKEN:
            return self.router.trackers.take(self, what, session, body + size, n - size)
        return self.router.channels.deliver(what, body, size, body + size, n - size)

    cdef int take_slow_part(self, int64_t took) except -1:
        """Whoever the next reply is for had to wait so long for its execution."""
        cdef Expected* expected = &self.ring[self.head & self.ring_mask]
        if self.head != self.tail and expected.owner != NULL and expected.pending:
            (<Pending> expected.owner).longest_part = max((<Pending> expected.owner).longest_part, took)
        return 0

    cdef int take_report(self, uint64_t session, bytes report) except -1:
        """A command of this client took long in the shard."""
        client = self.router.session_by_id(session)
        try:
            self.router.slowlog.report(
                report, client.address if client else "", client.name if client else b"", self.index
            )
        except Exception:
            log.exception("shard %d reports a slow command in another way", self.index)
        return 0

    cdef int up(self, int version, int index) except -1:
        if version != LINK_VERSION or index != self.index:
            log.error("shard %d answers with version %d as shard %d", self.index, version, index)
            self.close("it speaks another version or is another shard")
            return 0
        self.phase = UP
        self.reason = ""
        return self.router.shards.is_up(self)

    cdef int say_goodbye(self) except -1:
        """Behind the last run the sending side is shut down, so that the shard knows that nothing will follow."""
        if self.phase != LEAVING or self.said_goodbye:
            return 0
        if self.unsent():
            self.mark_dirty()
        else:
            self.said_goodbye = True
            kache_end_sending(self.fd)
        return 0

    cdef int on_written(self, Py_ssize_t n) except -1:
        if self.waiters is not None and not self.over_soft():
            self.wake_waiters()
        return self.say_goodbye() if self.phase == LEAVING else 0

    cdef int on_eof(self) except -1:
        self.close("the shard closed the connection")
        return 0

    cdef int on_closed(self, object reason) except -1:
        self.run_owner = NULL
        self.keep_partial(0)
        drop_area(self)
        return Backend.on_closed(self, reason)
