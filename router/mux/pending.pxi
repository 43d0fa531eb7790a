# Replies that are made later. A Pending keeps the place of one reply in a session's order, or stands for
# nobody's (router.call); links deliver the parts of it by number.

# In nanoseconds: what the limit is when nothing enters the slow log.
cdef int64_t NEVER_SLOW = 0x7FFFFFFFFFFFFFFF


cdef class Pending:

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        return 0

    cdef int fail(self, uint32_t part, bytes message) except -1:
        return 0

    cdef int aborted(self, uint32_t part, bytes text) except -1:
        return self.fail(part, text or INTERNAL_ERROR)

    cdef int deferred_as(self, Backend backend, uint64_t token) except -1:
        return 0

    cdef int retry(self, uint32_t part) except -1:
        return self.fail(part, LEAVING_TEXT)

    cdef int keep_words(self, Session session) except -1:
        """What the slow log would show of it."""
        cdef Py_ssize_t size
        if session.router.limits.slow_ns < NEVER_SLOW:
            size = session.framed_size()
            self.asked_count = session.parser.count
            self.asked_first = session.parser.spans[0].size if size >= 0 else -1
            if size >= 0:
                self.asked = PyBytes_FromStringAndSize(session.parser.spans[0].data, size)
            else:
                self.asked = session.first_words()
        return 0

    cdef int abandon(self) except -1:
        return self.drop_flows()

    # A part that comes in pieces ------------------------------------------------------------------
    cdef int keep_flow(self, Flow flow) except -1:
        """The reply of a part will come in pieces."""
        if self.flows is None:
            self.flows = []
        self.flows.append(flow)
        return self.begin_flow(flow)

    cdef int begin_flow(self, Flow flow) except -1:
        flow.granted = flow.size
        return flow.backend.put_credit(flow.token, <uint64_t> flow.size)

    cdef int receive_piece(self, Flow flow, const char* data, Py_ssize_t n) except -1:
        if not self.charge(n):
            return 0
        flow.early.append(data, n)
        if not flow.take(n):
            return 0
        return self.receive(flow.part, flow.early.data + flow.early.start, flow.size)

    cdef int flow_lost(self, Flow flow, bytes message) except -1:
        return self.fail(flow.part, message)

    cdef int drop_flows(self) except -1:
        """What has not come of its parts is not wanted any more."""
        cdef Flow flow
        if self.flows is not None:
            for flow in self.flows:
                if flow.drop():
                    flow.backend.put_credit(flow.token, 0)
            self.flows = None
        return 0

    cdef bint go_on(self, bint silent) except -1:
        return self.ready

    cdef bint charge(self, Py_ssize_t n) except -1:
        if self.session is None or self.session.gone:
            return False
        self.parts_bytes += n
        self.session.account(n)
        return not self.session.over_limit()

    cdef int complete(self, object value) except -1:
        """Encodes the reply in the client's dialect; it leaves as soon as it is next."""
        if self.ready:
            return 0
        if self.session is None or self.session.gone:
            self.ready = True
            return 0
        self.reply = Buffer()
        try:
            put_reply(self.reply, self.dialect, value)
        except Exception:
            log.exception("a reply cannot be encoded")
            put_error(self.reply, self.dialect, INTERNAL_ERROR)
        return self.deliver()

    cdef int note_if_slow(self) except -1:
        cdef int64_t took
        if self.asked is not None:
            # What is only divided takes as long as its longest part: waiting for a busy shard is not its own.
            took = monotonic_ns() - self.started if self.started else self.longest_part
            if took >= self.router.limits.slow_ns:
                self.session.note_slow(took, self.asked, self.asked_count, self.asked_first)
        return 0

    cdef int deliver(self) except -1:
        """`self.reply` is complete."""
        cdef Session session = self.session
        self.ready = True
        self.note_if_slow()
        if self.merges:
            session.merging -= 1
            # Its parts and the reply made of them are here at the same time.
            session.merged_average = max(self.parts_bytes + self.reply.used(),
                                         session.merged_average - (session.merged_average >> 3))
        session.account(self.reply.used() - self.parts_bytes)
        self.parts_bytes = 0
        if session.barrier is self:
            session.barrier = None
        if session.over_limit():
            return 0
        session.advance()
        session.predict()
        return session.proceed()


cdef class Call(Pending):

    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        return self.answer(decode_span(reply, n))

    cdef int fail(self, uint32_t part, bytes message) except -1:
        return self.answer(CommandError(message.decode("utf-8", "replace")))

    cdef int answer(self, object value) except -1:
        if self.future.done():
            return 0
        if isinstance(value, Exception):
            self.future.set_exception(value)
        else:
            self.future.set_result(value)
        self.router.must_yield = True    # its waiter runs on the event loop: do not keep it waiting
        return 0


cdef class Led(Pending):

    cdef int start(self, object coroutine) except -1:
        self.task = self.router.loop.create_task(coroutine)
        self.task.add_done_callback(self._done)
        self.router.must_yield = True
        return 0

    def _done(self, task):
        cdef Session session = self.session
        cdef int64_t took = monotonic_ns() - self.started
        if task.cancelled():
            value = CommandError("ERR the router is shutting down")
        elif task.exception() is not None:
            value = reply_of(task.exception(), self.command)
            self.router.counters.count_error(value.message)
        else:
            value = task.result()
        count_local(self.command, took)
        if session.gone:
            self.ready = True
            return
        # The command may have changed it: HELLO inside a coroutine answers in the new one.
        self.dialect = session.dialect_now
        self.complete(value)


cdef object reply_of(object error, Command* command):
    """The reply that a handler's exception becomes; what is not meant for clients is logged."""
    if command != NULL:
        command.failed += 1
    if isinstance(error, CommandError):
        return error
    name = command.name[:command.name_size].decode() if command != NULL else "a merge"
    log.error("%s failed", name, exc_info=error)
    return CommandError(INTERNAL_ERROR.decode())
