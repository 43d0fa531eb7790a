# What any connection that commands are sent to has in common: whom the next replies are for, deadlines, limits, and
# what becomes of everything unanswered when the connection ends.
#
#   expected     [owner, count, deadline, start] …                        a ring, head = owner of the next reply
#                  head … overdue … tail                                  before `overdue` some were answered TIMEOUT
#                                                                         (owner NULL); their replies are swallowed
#   start        a command whose run starts behind `bytes_out` was not sent: it was not executed either

cdef enum:
    FIRST_RING = 64


cdef class Backend(Endpoint):

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
        """One that is down; its kind gives it a descriptor."""
        self.router = router
        self.limits = router.limits
        self.index = index
        self.phase = DOWN
        self.reason = reason
        self.deferred = {}
        self.parked = {}
        self.flows = {}

    @property
    def unsent_bytes(self):
        """Bytes of requests that the other side has not taken yet."""
        return self.unsent()

    # What each kind has its own of ----------------------------------------------------------------
    cdef int put(self, Session session, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1:
        """One command of a client, to be answered in its dialect and in its place."""
        raise NotImplementedError

    cdef int admits(self, Session session, uint16_t slot, uint16_t flags) except -1:
        return session.may_send(self, flags)

    cdef int end_run(self) except -1:
        raise NotImplementedError

    cdef int ask(self, Pending owner, uint32_t part, uint16_t command, uint16_t slot, object arguments, int db,
                 int flags, uint64_t session, int64_t deadline, uint64_t transaction) except -1:
        """One command whose reply goes to part `part` of `owner`, in the internal dialect."""
        raise NotImplementedError

    cdef int ask_in(self, int dialect, Pending owner, uint32_t part, uint16_t command, uint16_t slot, object arguments,
                    int db, int flags, uint64_t session, int64_t deadline, uint64_t transaction) except -1:
        """The same in a client's dialect."""
        raise NotImplementedError

    cdef int ask_keys(self, Gather gather, int part, Session session, int64_t deadline) except -1:
        """The same for the keys of one part, each with the words that follow it; they lie in the session's parser."""
        raise NotImplementedError

    cdef int cancel(self, uint64_t session) except -1:
        """The session is gone: what was deferred for it is forgotten here and there."""
        raise NotImplementedError

    cdef int cancel_one(self, uint64_t session, uint64_t token) except -1:
        raise NotImplementedError

    cdef int put_word(self, int kind, uint64_t token, uint32_t how) except -1:
        raise NotImplementedError

    cdef int put_credit(self, uint64_t token, uint64_t n) except -1:
        raise NotImplementedError

    cdef int put_part(self, uint64_t session, uint32_t argument, const char* data, Py_ssize_t n) except -1:
        raise NotImplementedError

    cdef int drop_parts(self, uint64_t session) except -1:
        raise NotImplementedError

    cdef uint64_t count_begun(self) noexcept:
        """How many of all commands sent here the other side has begun, as far as it shows; 0 when it shows no life."""
        return 0

    cdef bytes down_text(self):
        """The refusal of a command while this is not up."""
        reason = self.router.shards.down_reasons[self.index] or self.reason
        return b"CLUSTERDOWN shard %d is down (%s); nothing was executed" % (self.index, str(reason).encode())

    # Limits ---------------------------------------------------------------------------------------
    cdef inline bint over_soft(self) noexcept:
        return (self.in_flight >= <uint64_t> self.limits.link_soft_commands
                or self.unsent() > self.limits.link_soft_bytes or self.busy)

    cdef inline bint stuck(self) noexcept:
        """Whether requests have timed out that were not answered since: waiting for it is no use."""
        return self.overdue > self.head

    cdef bint over_hard(self, Py_ssize_t size) noexcept:
        """Whether a command of about `size` bytes must be refused; one large command passes when nothing waits."""
        cdef Py_ssize_t waiting = self.unsent()
        return (self.in_flight >= <uint64_t> self.limits.link_hard_commands
                or (waiting > 0 and waiting + size > self.limits.link_hard_bytes))

    cdef int wait_for_room(self, Session session) except -1:
        """The session's next command is for this backend, which is busy: it is read again when that is over."""
        if self.waiters is None:
            self.waiters = []
        self.waiters.append(session)
        return 0

    cdef int wake_waiters(self) except -1:
        """There is room, or waiting is no use. Who finds no room waits again, in the same order."""
        cdef Session session
        waiters, self.waiters = self.waiters, None
        for session in waiters:
            session.waits_for = None
            session.wake()
        self.router.must_yield = True
        return self.router.clients.wake_soon()

    # Whom replies are for -------------------------------------------------------------------------
    cdef int expect(self, PyObject* owner, bint pending, uint32_t part, uint32_t count, int64_t deadline,
                    Py_ssize_t mark) except -1:
        """`count` replies come for `owner`; what they answer lies in `out` from `mark` on."""
        cdef Expected* expected
        if self.tail - self.head > self.ring_mask:
            self.grow_ring()
        expected = &self.ring[self.tail & self.ring_mask]
        Py_INCREF(<object> owner)
        expected.owner = owner
        expected.pending = pending
        expected.part = part
        expected.count = count
        expected.deadline = deadline
        expected.start = self.bytes_out + <uint64_t> (self.chained + mark)
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

    cdef inline int answered(self, uint32_t count) except -1:
        """`count` replies of the first run are here."""
        cdef Expected* expected = &self.ring[self.head & self.ring_mask]
        cdef PyObject* owner
        self.in_flight -= count
        self.replied += count
        expected.count -= count
        if expected.count == 0:
            owner = expected.owner
            expected.owner = NULL
            self.head += 1
            if self.overdue < self.head:
                self.overdue = self.head
            if owner != NULL:
                Py_DECREF(<object> owner)
        if self.waiters is not None and not self.over_soft():
            self.wake_waiters()
        return 0

    cdef int answer(self, PyObject* owner, bint pending, uint32_t part, uint32_t count, bytes message) except -1:
        """`count` replies of one run, all the same error."""
        if pending:
            return (<Pending> owner).fail(part, message)
        return (<Session> owner).receive_errors(self.index, count, message)

    # Replies that come later, out of band ---------------------------------------------------------
    cdef int defer(self, Expected* expected, uint64_t token, bint blocked) except -1:
        """The reply of one command comes later; it keeps its place, and its deadline unless it is `blocked`."""
        if not blocked and expected.deadline:
            self.parked[token] = expected.deadline
            if expected.pending and isinstance(<object> expected.owner, Gather) and (<Gather> expected.owner).merges:
                # The shard is at work on it.
                self.parked[token] += max(self.limits.command_timeout - self.limits.request_timeout, 0)
        if expected.pending:
            self.deferred[token] = (<object> expected.owner, expected.part)
            if blocked:
                (<Pending> expected.owner).deferred_as(self, token)
        elif not (<Session> expected.owner).gone:
            self.deferred[token] = <object> expected.owner
            (<Session> expected.owner).hold_deferred(self.index, token)
        return 0

    cdef int take_deferred(self, uint64_t token, bint aborted, const char* reply, Py_ssize_t n) except -1:
        cdef Pending pending
        owner = self.deferred.pop(token, None)
        if self.parked:
            self.parked.pop(token, None)
        if owner is None:
            # What it took, if it took something, goes back.
            return self.put_word(LINK_UNDELIVERED, token, 0)
        if not isinstance(owner, tuple):
            return (<Session> owner).receive_deferred(self.index, token, reply, n)
        pending = <Pending> owner[0]
        if aborted:
            return pending.aborted(owner[1], PyBytes_FromStringAndSize(reply, n))
        if pending.acknowledges:
            if pending.session.gone:
                return self.put_word(LINK_UNDELIVERED, token, 0)
            # It leaves with what is said next, at the latest when the deadlines are looked at: nobody waits for it.
            self.put_word(LINK_RECEIVED, token, 0)
        return pending.receive(owner[1], reply, n)

    cdef int take_retry(self, uint64_t token, bytes ids) except -1:
        owner = self.deferred.pop(token, None)
        if owner is None:
            return 0
        if isinstance(owner, tuple):
            if ids and isinstance(owner[0], Blocked):
                (<Blocked> owner[0]).read_on_behind(ids)
            return (<Pending> owner[0]).retry(owner[1])
        return (<Session> owner).deferred_lost(self.index, token, LEAVING_TEXT)

    cdef int begin_flow(self, Expected* expected, uint64_t token, Py_ssize_t size, uint64_t place) except -1:
        """The reply of one command comes in pieces; it keeps its place, or the one that `place` was promised for."""
        cdef Flow flow
        if expected.owner == NULL:
            return self.put_credit(token, 0)
        flow = Flow.__new__(Flow)
        if expected.pending:
            flow.pending = <Pending> expected.owner
            flow.part = expected.part
            flow.session = flow.pending.session
        else:
            flow.session = <Session> expected.owner
        if flow.session is not None and flow.session.gone:
            return self.put_credit(token, 0)
        flow.backend = self
        flow.token = token
        flow.place = place or token
        flow.size = size
        flow.early = Buffer()
        self.flows[token] = flow
        flow.count(size)
        if flow.pending is not None:
            return flow.pending.keep_flow(flow)
        return flow.session.hold_flow(self.index, flow)

    cdef int count_flows(self, Py_ssize_t n) except -1:
        """So many bytes more of large replies wait on the other side, which keeps no more than its room of them: the rest of
        them comes unasked, but for a single one."""
        cdef Py_ssize_t counted
        self.flow_bytes += n
        counted = min(self.flow_bytes, self.limits.flow_room)
        self.router.clients.link_bytes += counted - self.flow_counted
        self.flow_counted = counted
        return 0

    cdef int fail_flows(self) except -1:
        cdef Flow flow
        flows = list(self.flows.values())
        for flow in flows:
            flow.drop()
        for flow in flows:
            if flow.pending is not None:
                flow.pending.flow_lost(flow, LINK_LOST)
            else:
                flow.session.flow_lost(self.index, flow, LINK_LOST)
        return 0

    # Failures -------------------------------------------------------------------------------------
    cdef int expire(self, int64_t now_ms) except -1:
        """Answers TIMEOUT for every run past its deadline that was not begun; its late replies find nobody.

        A deadline means "not begun in time". What was begun, a few runs at the head of the queue, is waited for as long
        as the shard lives, up to `command-timeout-ms`; what the same client sent behind it waits with it, in its order.
        """
        cdef Expected* expected
        cdef uint64_t at = self.head, first = self.replied, begun = 0
        cdef int64_t more = max(self.limits.command_timeout - self.limits.request_timeout, 0)
        cdef set waiting = None
        cdef bint is_waited_for
        while at < self.tail:
            expected = &self.ring[at & self.ring_mask]
            if expected.deadline == 0 or expected.deadline > now_ms:
                # Deadlines rise along the queue, except where a setting or a call chose its own.
                return 0
            if at == self.head:
                begun = self.count_begun()
            at += 1
            is_waited_for = first < begun and expected.deadline + more > now_ms
            first += expected.count
            if expected.owner == NULL:
                continue
            if is_waited_for or (waiting is not None and <uintptr_t> expected.owner in waiting):
                if waiting is None:
                    waiting = set()
                waiting.add(<uintptr_t> expected.owner)
            else:
                self.time_out(expected)
                self.overdue = max(self.overdue, at)
        if self.waiters is not None and self.stuck():
            self.wake_waiters()
        return 0

    cdef int expire_parked(self, int64_t now_ms) except -1:
        """Answers TIMEOUT for what waits in the shard, without having begun, past its deadline."""
        cdef list late = []
        for token, deadline in self.parked.items():
            if deadline <= now_ms:
                late.append(token)
        for token in late:
            self.parked.pop(token, None)
            owner = self.deferred.pop(token, None)
            if owner is not None:
                self.timeouts += 1
                self.router.counters.timeouts += 1
                self.fail_one(token, owner, TIMED_OUT)
        return 0

    cdef int fail_one(self, uint64_t token, object owner, bytes message) except -1:
        """A deferred reply does not come."""
        if isinstance(owner, tuple):
            return (<Pending> owner[0]).fail(owner[1], message)
        return (<Session> owner).deferred_lost(self.index, token, message)

    cdef int time_out(self, Expected* expected) except -1:
        cdef PyObject* owner = expected.owner
        expected.owner = NULL
        self.timeouts += expected.count
        self.router.counters.timeouts += expected.count
        self.answer(owner, expected.pending, expected.part, expected.count, TIMED_OUT)
        Py_DECREF(<object> owner)
        return 0

    cdef int on_closed(self, object reason) except -1:
        """Answers everything that was expected."""
        cdef bint was_up = self.phase >= UP
        self.phase = DOWN
        self.reason = reason
        self.fail_expected()
        self.fail_deferred()
        self.fail_flows()
        self.in_flight = 0
        if self.waiters is not None:
            self.wake_waiters()
        return self.router.shards.is_lost(self, was_up)

    cdef int fail_expected(self) except -1:
        """What was sent may have been executed, the rest was not."""
        cdef Expected* expected
        cdef PyObject* owner
        not_sent = self.down_text()
        while self.head < self.tail:
            expected = &self.ring[self.head & self.ring_mask]
            self.head += 1
            owner = expected.owner
            if owner == NULL:
                continue
            expected.owner = NULL
            if expected.start < self.bytes_out:
                self.router.counters.uncertain += expected.count
                self.answer(owner, expected.pending, expected.part, expected.count, LINK_LOST)
            else:
                self.answer(owner, expected.pending, expected.part, expected.count, not_sent)
            Py_DECREF(<object> owner)
        return 0

    cdef int fail_deferred(self) except -1:
        deferred, self.deferred = self.deferred, {}
        self.parked = {}
        for token, waiting in deferred.items():
            self.fail_one(token, waiting, LINK_LOST)
        return 0
