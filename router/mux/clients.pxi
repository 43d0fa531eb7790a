# All clients of one router: their ids and number, who is read again, who keeps too much or has waited too long.
#
#   0 ........................ cost .................. budget
#   replies unread, parts of merged ones, input that is not executed: one number a client, their sum a router, and to
#   that sum the memory that links share with shards
#
# A client may cost at most twice what the budget has left beside it (`Session.room`): one alone two thirds of it, ten
# together twenty parts of 21. So the largest are not read first, and there is always room for one more. Within that a
# client is served however late it reads. Who is not read for this is looked at again ten times a second (`feed`); the
# first of them may have all that is left, so that clients with half a request each do not wait for one another.

cdef enum:
    TRANSACTIONS_PER_MS = 100   # as times are counted in their numbers: 48 bits last until 2059

# Who has neither taken nor sent anything for so long makes no progress.
cdef int64_t LATELY_MS = 1000

# A collection must not take the page away before its buffer is given back (Monitors, too).
@cython.no_gc_clear
@cython.final
cdef class Clients:

    def __dealloc__(self):
        if self.shared.buf != NULL:
            PyBuffer_Release(&self.shared)

    def __init__(self, Router router, counts):
        """`counts`: what all routers have mapped; None when this one is alone."""
        self.router = router
        self.limits = router.limits
        self.by_id = {}
        self.waking = []
        self.starving = []
        self.most_here = 0x7FFFFFFF
        # Ids rise over all routers of a cluster without asking each other.
        self.last_id = (<uint64_t> router.index) << 48
        # Those of transactions lie in logs, too: they rise from the time of the start on, in a unit in which nobody begins
        # one transaction on the average, so that another life of this router does not use them again.
        self.last_transaction = (<uint64_t> router.index + 1) << 48 | <uint64_t> router.clock.now_ms() * TRANSACTIONS_PER_MS
        PyObject_GetBuffer(bytearray(8) if counts is None else counts, &self.shared, PyBUF_WRITABLE)
        self.counts = <int64_t*> self.shared.buf
        self.routers = self.shared.len // sizeof(int64_t)
        self.place = router.index if self.routers > 1 else 0
        self.count()

    cdef int apply_limits(self) except -1:
        """The limits have changed; they hold for existing clients too, where that is possible."""
        for session in self.by_id.values():
            (<Session> session).set_limits()
        return 0

    # How many -------------------------------------------------------------------------------------
    cdef uint64_t next_id(self) noexcept:
        self.last_id += 1
        return self.last_id

    cdef inline void count(self) noexcept:
        self.counts[self.place] = len(self.by_id)

    cdef bint has_room(self) noexcept:
        """Whether there may be one more client."""
        cdef int64_t total = 0
        cdef Py_ssize_t i
        for i in range(self.routers):
            total += self.counts[i]
        return total < self.limits.max_clients and len(self.by_id) < self.most_here

    cdef int64_t ahead(self) noexcept:
        cdef int64_t least = len(self.by_id)
        cdef Py_ssize_t i
        for i in range(self.routers):
            least = min(least, self.counts[i])
        return len(self.by_id) - least

    cdef int count_tls(self) except -1:
        cdef Session session
        cdef int n = 0
        for session in self.by_id.values():
            n += session.tls is not None
        return n

    cdef int add(self, Session session) except -1:
        self.router.counters.accepted += 1
        self.by_id[session.id] = session
        self.count()
        return 0

    cdef int remove(self, Session session) except -1:
        self.by_id.pop(session.id, None)
        self.count()
        self.router.counters.bytes_in_closed += session.bytes_in
        self.router.counters.bytes_out_closed += session.bytes_out
        return 0

    # What they are sent ---------------------------------------------------------------------------
    cdef int push(self, uint64_t id, const char* message, Py_ssize_t n) except -1:
        """Something out of band for a client, complete in its dialect."""
        cdef Session session = <Session> self.by_id.get(id)
        return 0 if session is None else session.push(message, n)

    # What they cost -------------------------------------------------------------------------------
    cdef inline Py_ssize_t cost(self) noexcept:
        return self.output_bytes + self.input_bytes + self.link_bytes

    cdef inline bint over_budget(self) noexcept:
        return self.output_bytes + self.input_bytes + self.link_bytes > self.limits.budget

    cdef int relieve(self) except -1:
        """All together cost more than they may: the costliest that makes no progress is closed, and so on."""
        cdef Session session
        while self.over_budget():
            session = self.costliest()
            if session is None:
                return 0
            self.router.counters.evicted += 1
            self.close_for_memory(session, "all clients together cost more than maxmemory-clients")
        return 0

    cdef Session costliest(self):
        """The client that costs most, of those that have not taken or sent anything lately if that helps; or None.

        CLIENT NO-EVICT keeps a client out of this, as in Redis.
        """
        cdef Session session, largest = None, idle = None
        cdef int64_t since = self.router.now_ms - LATELY_MS
        for session in self.by_id.values():
            if session.no_evict:
                continue
            if largest is None or session.weight() > largest.weight():
                largest = session
            if session.written_ms < since and session.last_ms < since and (
                    idle is None or session.weight() > idle.weight()):
                idle = session
        # Many small ones are not closed in the place of the one that needs the room.
        if idle is not None and idle.weight() >= largest.weight() // 4:
            return idle
        return largest if largest is not None and largest.weight() > 0 else None

    cdef int close_for_memory(self, Session session, str reason) except -1:
        log.warning("closing %s: %s (%d bytes of replies, %d of input; all clients: %d of %d)", session.address, reason,
                    session.output_bytes, session.input_bytes, self.cost(), self.limits.budget)
        self.router.counters.count_closing(reason)
        session.close(reason)
        return 0

    # Who is read again ----------------------------------------------------------------------------
    cdef int wake(self) except -1:
        cdef Session session
        while self.waking:
            waking, self.waking = self.waking, []
            for session in waking:
                try:
                    session.read_on()
                except Exception as error:
                    log.exception("closing a client after an internal error")
                    session.close(f"internal error: {error}")
        return 0

    cdef int wake_soon(self) except -1:
        """Something was answered after the point of the iteration where clients wake up."""
        if not self.wake_scheduled:
            self.wake_scheduled = True
            self.router.loop.call_soon(self._wake_now)
        return 0

    cdef int feed(self) except -1:
        """Now and then: those who wait for the others to cost less are read again if they do."""
        cdef Session session
        self.router.quotas.look()
        if not self.starving:
            return 0
        waiting, self.starving = self.starving, []
        if self.favoured is None or self.favoured.gone or not self.favoured.stalled:
            self.favoured = waiting[0]
        for session in waiting:
            session.starving = False
            if session.gone or not session.stalled:
                continue
            if session.may_resume():     # else it is in the list again if it still is for this reason
                session.wake()
            elif not session.reading:
                session.read_ahead()
        return self.wake()

    def _wake_now(self):
        self.wake_scheduled = False
        self.router.now_ms = self.router.clock.now_ms()
        self.wake()

    # CLIENT PAUSE ---------------------------------------------------------------------------------
    cdef int hold(self, int mode, int64_t until) except -1:
        """Clients wait until then; of two pauses the stronger mode and the later end hold."""
        cdef double seconds
        self.pause_until = max(self.pause_until, until)
        self.set_pause(max(self.pause_mode, mode))
        if self.pause_timer is not None:
            self.pause_timer.cancel()
        seconds = max(self.pause_until - self.router.clock.now_ms(), 0) / 1000.0
        self.pause_timer = self.router.loop.call_later(seconds, self._pause_over)
        return 0

    def _pause_over(self):
        self.let_go()

    cdef int let_go(self) except -1:
        self.pause_until = 0
        if self.pause_timer is not None:
            self.pause_timer.cancel()
            self.pause_timer = None
        return self.set_pause(PAUSE_NONE)

    cdef int set_pause(self, int mode) except -1:
        cdef Session session
        self.pause_mode = mode
        for session in list(self.by_id.values()):
            session.set_restricted()
            if mode == PAUSE_ALL:
                if not session.stalled and not session.finishing:
                    session.stall()
            elif session.stalled and not session.waking and session.may_resume():
                session.waking = True
                self.waking.append(session)
        return self.wake_soon() if self.waking else 0

    # Who is closed --------------------------------------------------------------------------------
    cdef int sweep(self, int64_t now) except -1:
        """Once a second: the limits that are counted in seconds."""
        cdef Session session
        cdef str reason
        for session in list(self.by_id.values()):
            reason = self.overstayed(session, now) if not session.closing else None
            if reason is not None:
                self.router.counters.timeout_closed += 1
                self.router.counters.count_closing(reason)
                log.info("closing %s: %s", session.address, reason)
                session.close(reason)
            elif not session.closing:
                self.look_at_output(session, now)
        return 0

    cdef int let_pass(self, int64_t ms) except -1:
        """As if nobody had sent anything for so long: what counts a client's idle time goes on from there."""
        cdef Session session
        for session in self.by_id.values():
            session.connected_ms -= ms
            session.last_ms -= ms
        return self.sweep(self.router.clock.now_ms())

    cdef int look_at_output(self, Session session, int64_t now) except -1:
        """The limits of unread replies that are counted in seconds."""
        cdef Py_ssize_t soft = self.limits.output_soft[session.kind]
        if soft and session.output_bytes > soft:
            if session.over_soft_ms == 0:
                session.over_soft_ms = now
            elif now - session.over_soft_ms > self.limits.output_over_ms[session.kind]:
                self.router.counters.output_closed += 1
                return self.close_for_memory(session, "unread replies over the soft client-output-buffer-limit for too long")
        else:
            session.over_soft_ms = 0
        if (session.cost() > self.limits.budget // 64 and 2 * self.cost() > self.limits.budget
                and now - max(session.written_ms, session.last_ms) > self.limits.soft_output_ms
                and session is not self.favoured and not session.no_evict):
            self.router.counters.evicted += 1
            self.close_for_memory(session, "it makes no progress while maxmemory-clients is short")
        return 0

    cdef str overstayed(self, Session session, int64_t now):
        """Why a client has been here too long, or None."""
        if session.tls is not None and session.tls.state != TLS_OPEN:
            if now - session.connected_ms > self.limits.handshake_timeout and not session.stalled:
                return "no TLS handshake in time"
            return None
        if not session.authenticated_now:
            if now - session.stranger_ms > self.limits.preauth_timeout:
                return "no authentication in time"
        elif session.commands == 0 and session.begun_ms and now - session.begun_ms > self.limits.preauth_timeout:
            # Half a command; one that has sent nothing is as idle as any other.
            return "no complete command in time"
        if session.subscriptions:
            return None     # it is there to be told
        if self.limits.idle_timeout and now - session.last_ms > self.limits.idle_timeout and not session.in_flight_now():
            return "idle for too long"
        return None
