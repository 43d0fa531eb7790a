# One connection to one shard. Runs of frames go out, replies come back in the same order.
#
#   out buffer   | RUN header | frame frame … | RUN header | frame …      a run is open while one session is
#                  ^ patched by end_run                                   being parsed, never longer
#   expected     [owner, count, deadline, start] …                        a ring, head = owner of the next reply
#                  head … overdue … tail                                  entries before `overdue` were answered
#                                                                         TIMEOUT; their replies are swallowed

cdef enum:
    LINK_DOWN = 0
    LINK_HANDSHAKE = 1
    LINK_UP = 2
    LINK_LEAVING = 3     # the shard drains: it answers what it was sent and gets nothing more
    FIRST_RING = 64

cdef tuple LINK_STATES = ("down", "handshake", "up", "draining")

# What an empty output buffer of a link holds on to: the pipelines of 50 clients in one iteration.
cdef Py_ssize_t KEPT_OUTPUT = 1024 * 1024

# A message other than REPLY that is longer than this is nonsense (a PUSH carries at most one reply).
cdef uint32_t MESSAGE_LIMIT = 0x7FFFFFFF


# A link is busy as long as the cluster is: its buffer is not given back between two batches.
cdef Py_ssize_t LINK_BUFFER = 1 << 20


cdef struct Expected:
    PyObject* owner      # a Session or a Pending, owned; NULL: swallow
    bint pending         # it is a Pending
    uint32_t part        # which part of the Pending
    uint32_t count       # replies that are still to come
    int64_t deadline     # unix ms; 0: none
    uint64_t start       # where the run starts in all bytes ever put into `out`


@cython.final
cdef class Link(Endpoint):
    """The router's connection to one shard; a new object for every connection."""

    cdef Router router
    cdef readonly int index
    cdef int phase
    cdef readonly bint loading
    cdef readonly object reason          # why it is down
    cdef readonly uint64_t pid
    cdef readonly uint64_t in_flight     # commands whose replies are still to come, swallowed ones included
    cdef readonly uint64_t timeouts
    cdef readonly uint64_t reconnects
    cdef Expected* ring
    cdef uint64_t head, tail, overdue, ring_mask
    cdef uint32_t reply_left             # replies of the current REPLY message that are still to come
    cdef PyObject* run_owner             # the session whose run is open; borrowed
    cdef Py_ssize_t run_mark             # where its header starts, from out.start
    cdef uint32_t run_count
    cdef int64_t run_deadline
    cdef dict deferred                   # token -> Session, or (Pending, part)

    def __cinit__(self):
        self.ring = <Expected*> calloc(FIRST_RING, sizeof(Expected))
        if self.ring == NULL:
            raise MemoryError("no memory for a link")
        self.ring_mask = FIRST_RING - 1
        self.head = self.tail = self.overdue = 0

    def __dealloc__(self):
        while self.head < self.tail:
            if self.ring[self.head & self.ring_mask].owner != NULL:
                Py_DECREF(<object> self.ring[self.head & self.ring_mask].owner)
            self.head += 1
        free(self.ring)

    def __init__(self, Router router, int index, object reason):
        """A link that is down; `connected` gives it a descriptor."""
        self.router = router
        self.index = index
        self.phase = LINK_DOWN
        self.reason = reason
        self.deferred = {}

    def connected(self, int fd):
        """Takes a connected socket and starts the handshake; nothing else is sent before its answer."""
        cdef Buffer out
        Endpoint.__init__(self, self.router, fd)
        self.phase = LINK_HANDSHAKE
        self.reason = "no answer to the handshake yet"
        out = self.output()
        out.keep = LINK_BUFFER
        out.put_u32(20)
        out.put_u8(LINK_HELLO)
        out.put_u8(LINK_VERSION)
        out.put_u16(self.router.index)
        out.append(PyBytes_AS_STRING(<bytes> self.router.digest), 8)
        out.put_u64(self.router.boot_id)
        self.mark_dirty()

    @property
    def state(self):
        """"down", "handshake", "loading", "up" or "draining"."""
        return "loading" if self.phase == LINK_UP and self.loading else LINK_STATES[self.phase]

    @property
    def unsent_bytes(self):
        """Bytes of requests that the shard has not taken yet."""
        return self.unsent()

    cdef bytes down_text(self):
        reason = self.router.told[self.index] or self.reason
        return b"CLUSTERDOWN shard %d is down (%s); nothing was executed" % (self.index, str(reason).encode())

    # Runs out -------------------------------------------------------------------------------------
    cdef int begin_run(self, Session session) except -1:
        """Opens a run of `session` unless its run is open already."""
        if self.run_owner == <PyObject*> session:
            return 0
        if self.run_owner != NULL:
            self.end_run()
        self.router.touch(self.index)
        self.run_owner = <PyObject*> session
        self.put_header(session.dialect, session.db, FLAG_NO_TOUCH if session.no_touch else 0, session.id,
                        self.router.now_ms + self.router.request_timeout)
        return 0

    cdef int put_header(self, int dialect, int db, int flags, uint64_t session, int64_t deadline) except -1:
        cdef Buffer out = self.output()
        cdef char* at = out.reserve(RUN_HEADER)
        self.run_mark = out.used()
        self.run_count = 0
        self.run_deadline = deadline
        memset(at, 0, RUN_HEADER)
        at[4] = LINK_RUN
        at[5] = <char> dialect
        at[6] = <char> db
        at[7] = <char> flags
        memcpy(at + 12, &session, 8)
        memcpy(at + 20, &deadline, 8)
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
        cdef Expected* expected
        if self.run_count == 0:
            out.end = out.start + self.run_mark
            return 0
        memcpy(at, &length, 4)
        memcpy(at + 8, &self.run_count, 4)
        if self.tail - self.head > self.ring_mask:
            self.grow_ring()
        expected = &self.ring[self.tail & self.ring_mask]
        Py_INCREF(<object> owner)
        expected.owner = owner
        expected.pending = pending
        expected.part = part
        expected.count = self.run_count
        expected.deadline = self.run_deadline
        expected.start = self.bytes_out + <uint64_t> self.run_mark
        self.tail += 1
        return self.mark_dirty()

    cdef int grow_ring(self) except -1:
        cdef uint64_t size = 2 * (self.ring_mask + 1)
        cdef Expected* ring = <Expected*> calloc(size, sizeof(Expected))
        cdef uint64_t at
        if ring == NULL:
            raise MemoryError("no memory for a link's queue")
        for at in range(self.head, self.tail):
            ring[at & (size - 1)] = self.ring[at & self.ring_mask]
        free(self.ring)
        self.ring = ring
        self.ring_mask = size - 1
        return 0

    cdef int put_spans(self, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1:
        """Adds one frame to the open run."""
        cdef Buffer out = self.out
        cdef Py_ssize_t size = FRAME_HEADER, i
        cdef uint32_t n
        cdef char* at
        for i in range(count):
            size += 4 + arguments[i].size
        at = out.reserve(size)
        n = <uint32_t> (size - 4)
        memcpy(at, &n, 4)
        memcpy(at + 4, &command.id, 2)
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
        self.run_count += 1
        self.in_flight += 1
        return 0

    cdef int ask(self, Pending owner, uint32_t part, uint16_t command, uint16_t slot, object arguments, int db,
                 int flags, uint64_t session, int64_t deadline) except -1:
        """A run of one frame whose reply goes to part `part` of `owner`, in the internal dialect."""
        cdef Buffer out
        cdef Py_ssize_t mark
        cdef uint32_t size
        cdef bytes argument
        self.end_run()
        self.put_header(INTERNAL, db, flags, session, deadline)
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

    cdef bint over_soft(self) noexcept:
        return (self.in_flight >= <uint64_t> self.router.link_soft_commands
                or self.out.used() > self.router.link_soft_bytes)

    cdef bint stuck(self) noexcept:
        """Whether requests have timed out that the shard has not answered since: waiting for it is no use."""
        return self.overdue > self.head

    cdef bint over_hard(self, Py_ssize_t size) noexcept:
        """Whether a command of about `size` bytes must be refused; one large command passes when nothing waits."""
        cdef Py_ssize_t waiting = self.out.used()
        return (self.in_flight >= <uint64_t> self.router.link_hard_commands
                or (waiting > 0 and waiting + size > self.router.link_hard_bytes))

    cdef int cancel(self, uint64_t session) except -1:
        """The session is gone: the shard forgets what it has deferred for it."""
        cdef Buffer out = self.output()
        self.end_run()
        out.put_u32(16)
        out.put_u32(LINK_CANCEL)     # kind and three bytes of padding
        out.put_u32(0)
        out.put_u64(session)
        if self.deferred:
            self.deferred = {token: owner for token, owner in self.deferred.items()
                             if not (isinstance(owner, Session) and (<Session> owner).gone)}
        return self.mark_dirty()

    # Replies in -----------------------------------------------------------------------------------
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t at = 0
        cdef uint32_t length
        cdef int kind
        while self.fd >= 0:
            if self.reply_left:
                at += self.take_replies(data + at, n - at)
                if self.reply_left:
                    break
                continue
            if n - at < 5:
                break
            memcpy(&length, data + at, 4)
            kind = <uint8_t> data[at + 4]
            if kind == LINK_REPLY and self.phase >= LINK_UP:
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
        return at if self.fd >= 0 else n

    cdef Py_ssize_t take_replies(self, const char* data, Py_ssize_t n) except -1:
        """Hands out the replies that are here; a REPLY message is taken reply by reply."""
        cdef Py_ssize_t at = 0
        cdef uint32_t size, count, taken
        cdef uint64_t token
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
                    self.in_flight -= taken
                    self.answered(taken)
                    continue
            memcpy(&size, data + at, 4)
            if size < REPLY_EXPIRED:
                if n - at - 4 < <Py_ssize_t> size:
                    break
                if owner != NULL:
                    (<Pending> owner).receive(expected.part, data + at + 4, size)
                at += 4 + <Py_ssize_t> size
            elif size == REPLY_EXPIRED:
                if owner != NULL:
                    self.answer(owner, expected.pending, expected.part, 1, TIMED_OUT)
                at += 4
            else:
                if n - at < 12:
                    break
                memcpy(&token, data + at + 4, 8)
                if owner != NULL:
                    self.defer(expected, token)
                at += 12
            self.reply_left -= 1
            self.in_flight -= 1
            self.answered(1)
        return at

    cdef inline int answered(self, uint32_t count) except -1:
        """`count` replies of the first run are here."""
        cdef Expected* expected = &self.ring[self.head & self.ring_mask]
        cdef PyObject* owner
        expected.count -= count
        if expected.count == 0:
            owner = expected.owner
            expected.owner = NULL
            self.head += 1
            if self.overdue < self.head:
                self.overdue = self.head
            if owner != NULL:
                Py_DECREF(<object> owner)
        return 0

    cdef int defer(self, Expected* expected, uint64_t token) except -1:
        """The reply of one command comes later, out of band; it keeps its place."""
        if expected.pending:
            self.deferred[token] = (<object> expected.owner, expected.part)
        elif not (<Session> expected.owner).gone:
            self.deferred[token] = <object> expected.owner
            (<Session> expected.owner).hold_deferred(self.index, token)
        return 0

    cdef int take_message(self, int kind, const char* body, Py_ssize_t n) except -1:
        """Any message but REPLY; `body` is what follows the kind."""
        cdef uint64_t number
        if kind == LINK_HELLO_OK and self.phase == LINK_HANDSHAKE and n >= 12:
            memcpy(&self.pid, body + 4, 8)
            self.loading = body[3] != 0
            return self.up(<uint8_t> body[0], (<uint8_t> body[1]) | (<uint8_t> body[2]) << 8)
        if kind == LINK_HELLO_NO and self.phase == LINK_HANDSHAKE:
            reason = PyBytes_FromStringAndSize(body, n).decode("utf-8", "replace")
            log.error("shard %d refuses the link: %s", self.index, reason)
            self.close(reason)
        elif kind == LINK_NOTICE and n >= 1:
            if body[0] == NOTICE_READY:
                self.loading = False
            elif body[0] == NOTICE_DRAINING and self.phase == LINK_UP:
                self.phase = LINK_LEAVING
                self.reason = "it is being restarted"
                self.say_goodbye()
        elif (kind == LINK_DEFERRED or kind == LINK_PUSH) and n >= 15:
            memcpy(&number, body + 7, 8)
            if kind == LINK_PUSH:
                self.router.push(number, body + 15, n - 15)
            else:
                self.take_deferred(number, body + 15, n - 15)
        else:
            self.close(f"an unknown message of kind {kind}")
        return 0

    cdef int take_deferred(self, uint64_t token, const char* reply, Py_ssize_t n) except -1:
        owner = self.deferred.pop(token, None)
        if owner is None:
            return 0
        if isinstance(owner, tuple):
            return (<Pending> owner[0]).receive(owner[1], reply, n)
        return (<Session> owner).receive_deferred(self.index, token, reply, n)

    cdef int up(self, int version, int index) except -1:
        if version != LINK_VERSION or index != self.index:
            log.error("shard %d answers with version %d as shard %d", self.index, version, index)
            self.close("it speaks another version or is another shard")
            return 0
        self.phase = LINK_UP
        self.reason = ""
        self.router.link_up(self)
        return 0

    cdef int say_goodbye(self) except -1:
        """Behind the last run the sending side is shut down, so that the shard knows that nothing will follow."""
        if self.phase == LINK_LEAVING and self.unsent() == 0:
            kache_end_sending(self.fd)
        return 0

    cdef int on_written(self, Py_ssize_t n) except -1:
        return self.say_goodbye() if self.phase == LINK_LEAVING else 0

    # Failures -------------------------------------------------------------------------------------
    cdef int answer(self, PyObject* owner, bint pending, uint32_t part, uint32_t count, bytes message) except -1:
        """`count` replies of one run, all the same error."""
        if pending:
            return (<Pending> owner).fail(part, message)
        return (<Session> owner).receive_errors(self.index, count, message)

    cdef int expire(self, int64_t now_ms) except -1:
        """Answers TIMEOUT for every run past its deadline; its late replies find nobody."""
        cdef Expected* expected
        cdef PyObject* owner
        while self.overdue < self.tail:
            expected = &self.ring[self.overdue & self.ring_mask]
            if expected.deadline == 0 or expected.deadline > now_ms:
                # Deadlines rise along the queue, except where a setting or a call chose its own.
                break
            self.overdue += 1
            owner = expected.owner
            if owner == NULL:
                continue
            expected.owner = NULL
            self.timeouts += expected.count
            self.router.timeouts += expected.count
            self.answer(owner, expected.pending, expected.part, expected.count, TIMED_OUT)
            Py_DECREF(<object> owner)
        return 0

    cdef int on_eof(self) except -1:
        self.close("the shard closed the connection")
        return 0

    cdef int on_closed(self, object reason) except -1:
        """Answers everything that was expected: sent runs may have been executed, others were not."""
        cdef Expected* expected
        cdef PyObject* owner
        cdef bint was_up = self.phase >= LINK_UP
        self.phase = LINK_DOWN
        self.reason = reason
        self.run_owner = NULL
        not_sent = self.down_text()
        while self.head < self.tail:
            expected = &self.ring[self.head & self.ring_mask]
            self.head += 1
            owner = expected.owner
            if owner == NULL:
                continue
            expected.owner = NULL
            if expected.start < self.bytes_out:
                self.router.uncertain += expected.count
                self.answer(owner, expected.pending, expected.part, expected.count, LINK_LOST)
            else:
                self.answer(owner, expected.pending, expected.part, expected.count, not_sent)
            Py_DECREF(<object> owner)
        deferred, self.deferred = self.deferred, {}
        for token, waiting in deferred.items():
            if isinstance(waiting, tuple):
                (<Pending> waiting[0]).fail(waiting[1], LINK_LOST)
            else:
                (<Session> waiting).deferred_lost(self.index, token, LINK_LOST)
        self.in_flight = 0
        self.router.link_lost(self, was_up)
        return 0
