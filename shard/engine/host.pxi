# What the links of one shard share: its reactor, the limits of a tick, whose turn is next.

cdef double LOCKS_EVERY = 0.02     # seconds between two looks at the time of locks, while there are any


@cython.final
cdef class ShardReactor(Reactor):
    """The reactor of a shard: the tick is committed before its replies leave."""

    cdef int before_flush(self) except -1:
        if self.host is not None:
            self.host.commit_tick()
        return 0


@cython.final
cdef class Host:
    """What the links of one shard share: the shard, the limits of a tick, whose turn is next."""

    def __init__(self, Executor shard not None, ShardReactor reactor not None, bytes digest not None, uint64_t boot_id, int pid,
                 Board board=None):
        self.shard = shard
        self.reactor = reactor
        self.board = Board() if board is None else board
        self.ahead = LookAhead()
        self.digest = digest
        self.boot_id = boot_id
        self.pid = pid
        self.links = []
        self.waiting = []
        self.tick_ns = 2000000
        self.tick_bytes = 8 << 20
        self.unsent_limit = 16 << 20
        self.tick = <uint64_t> -1
        self.later = Context(shard)
        shard.locks.host = self
        reactor.host = self

    def accept(self, int fd):
        """A router has connected: `fd` is ours from here on."""
        self.links.append(Link(self, fd))

    def traffic(self):
        """(bytes in, bytes out) over all links since the start."""
        cdef Link link
        received, sent = self.gone_in, self.gone_out
        for link in self.links:
            received += link.bytes_in
            sent += link.bytes_out
        return received, sent

    def drain(self):
        """Tells the routers that this shard is about to leave, behind what waits here and shall come again."""
        self.draining = True
        if self.shard.blocking is not None:
            self.shard.blocking.give_back_all()
        for link in list(self.links):
            (<Link> link).notice(NOTICE_DRAINING)

    def ready(self):
        """Tells the routers that loading is done."""
        self.shard.loading = False
        for link in list(self.links):
            (<Link> link).notice(NOTICE_READY)

    @property
    def idle(self):
        """Whether nothing is half executed or unsent."""
        cdef Link link
        for link in self.links:
            if link.run_count or link.unsent() or link.unparsed() or link.flows.replies:
                return False
        return True

    # Ticks ----------------------------------------------------------------------------------------------
    cdef int begin_tick(self) except -1:
        if self.tick != self.reactor.iterations:
            self.tick = self.reactor.iterations
            self.tick_until = monotonic_ns() + self.tick_ns
            self.tick_left = self.tick_bytes
        self.shard.set_time(self.reactor.clock.now_ms())
        return 0

    cdef int commit_tick(self) except -1:
        """Between executing and sending: here all effects of the tick would become one frame of the log."""
        return 0

    def background(self, int64_t budget_ns):
        """A tick of its own: expiry and eviction, each for at most `budget_ns`. True when more is waiting."""
        cdef int64_t began = monotonic_ns()
        cdef bint backlog
        cdef Link link
        for link in self.links:
            link.flows.cool_down()
        self.begin_tick()
        self.shard.store.effects.begin_unit()
        try:
            backlog = self.shard.expire_some(budget_ns)
            backlog |= self.shard.evict_some(budget_ns)
        finally:
            self.commit_tick()
            self.note_stall(monotonic_ns() - began)
        return backlog

    def perform(self, work):
        """Calls `work`, which no frame has caused, in a tick of its own."""
        cdef int64_t began = monotonic_ns()
        self.begin_tick()
        self.shard.store.effects.begin_unit()
        try:
            work()
        finally:
            self.commit_tick()
            self.note_stall(monotonic_ns() - began)

    cdef inline bint tick_over(self) noexcept:
        self.shard.looked_ns = monotonic_ns()
        return self.tick_left <= 0 or self.shard.looked_ns >= self.tick_until

    cdef int wait_for_next(self, Link link) except -1:
        self.waiting.append(link)
        if not self.scheduled:
            self.scheduled = True
            self.reactor.loop.call_soon(self._next_tick)
            self.reactor.yield_to_loop()
        return 0

    def _next_tick(self):
        cdef int64_t began = monotonic_ns()
        cdef Link link
        cdef list turn = self.waiting
        self.scheduled = False
        self.waiting = []
        self.tick = <uint64_t> -1
        for link in turn:
            if link.fd >= 0:
                try:
                    link.go_on()
                except Exception as error:
                    # Of one link; the others have their turn.
                    log.exception("closing the link of router %d after an internal error", link.router)
                    link.close(f"internal error: {error}")
        self.note_stall(monotonic_ns() - began)

    # Locks ----------------------------------------------------------------------------------------------
    cdef int watch_locks(self) except -1:
        """Locks are held, or waited for: they are looked at now and then as long as this is so."""
        if not self.watching:
            self.watching = True
            self.reactor.loop.call_later(LOCKS_EVERY, self._look_at_locks)
            self.reactor.yield_to_loop()
        return 0

    def _look_at_locks(self):
        self.watching = False
        try:
            self.shard.set_time(self.reactor.clock.now_ms())
            if self.shard.locks.sweep(self.shard.store.now_ms):
                self.watch_locks()
        except Exception:
            log.exception("internal error while locks were looked at")
            self.watch_locks()
        self._serve_waiters()

    cdef int serve_soon(self) except -1:
        if not self.serving_soon:
            self.serving_soon = True
            self.reactor.loop.call_soon(self._serve_waiters)
            self.reactor.yield_to_loop()
        return 0

    def _serve_waiters(self):
        cdef int64_t began = monotonic_ns()
        self.serving_soon = False
        self.tick = <uint64_t> -1
        self.begin_tick()
        self.shard.begin_batch()
        try:
            if self.shard.ready:
                self.shard.serve()
            self.serve_waiters()
        except Exception:
            log.exception("internal error while a parked command was executed")
            self.serve_soon()
        finally:
            self.shard.end_batch()
            self.note_stall(monotonic_ns() - began)

    cdef int serve_waiters(self) except -1:
        """Those whose turn has come, within the tick; the others soon. To be called where no reply is being made."""
        cdef Locks locks = self.shard.locks
        cdef Waiter waiter
        cdef int served = 0
        while locks.runnable:
            if served and self.tick_over():
                return self.serve_soon()
            waiter = <Waiter> locks.next_runnable()
            if waiter is not None:
                locks.serve(waiter, self.later)
                served += 1
                if self.shard.ready:
                    self.shard.serve()
        return 0

    cpdef note_stall(self, int64_t took_ns):
        """Something outside the reactor's batches kept the process for so long."""
        if took_ns > self.longest_ns:
            self.longest_ns = took_ns
