# What the links of one shard share: its reactor, the limits of a tick, whose turn is next.

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
        self.delay = 0.0
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
        """Tells the routers that this shard is about to leave."""
        self.draining = True
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

    def delay_replies(self, double seconds):
        """Replies leave so much later from now on, in their order; 0: at once. For tests (kache/testing)."""
        cdef Link link
        self.delay = seconds
        if seconds == 0:
            for link in list(self.links):
                link.release_all()

    # Ticks ----------------------------------------------------------------------------------------------
    cdef int begin_tick(self) except -1:
        cdef int64_t now_ms = self.reactor.clock.now_ms()
        if self.tick != self.reactor.iterations:
            self.tick = self.reactor.iterations
            self.tick_until = monotonic_ns() + self.tick_ns
            self.tick_left = self.tick_bytes
        self.shard.set_time(self.reactor.clock.data_ms(now_ms))
        self.shard.clock_ms = now_ms
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

    cpdef note_stall(self, int64_t took_ns):
        """Something outside the reactor's batches kept the process for so long."""
        if took_ns > self.longest_ns:
            self.longest_ns = took_ns
