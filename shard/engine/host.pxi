# What the links of one shard share: its reactor, the limits of a tick, whose turn is next.

cdef double LOCKS_EVERY = 0.02     # seconds between two looks at the time of locks, while there are any


# Room for the records of a tick that is not given back between two of them.
cdef Py_ssize_t RECORDS_KEPT = 1 << 20


@cython.final
cdef class ShardReactor(Reactor):
    """The reactor of a shard: the tick is committed before its replies leave."""

    cdef int before_flush(self) except -1:
        if self.host is not None:
            self.host.commit_tick()
        return 0


cdef class Follower:
    """Sees the records of every frame before anything that was made of them leaves; `Host.follow` makes it one."""

    cdef int follow(self, const char* records, Py_ssize_t n) except -1:
        return 0


@cython.final
cdef class LogNews(Endpoint):
    """The writer's pipe among the descriptors of the reactor: what waits for the log may leave."""

    def __init__(self, Host host not None, int fd):
        self.host = host
        super().__init__(host.reactor, fd)

    cdef bint is_stream(self) noexcept:
        return False

    cdef int on_readable(self) except -1:
        cdef Host host = self.host
        if host.writer is not None:
            host.writer.hear()
            host.release_links()
            if host.on_log_news is not None:
                host.on_log_news()
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
        self.followers = []
        self.parked = []
        self.tick_ns = 2000000
        self.tick_bytes = 8 << 20
        self.unsent_limit = 16 << 20
        self.flow_room = 64 << 20
        self.slice_ns = 500000
        self.tick = <uint64_t> -1
        self.delay = 0.0
        self.later = Context(shard)
        self.bulk = Bulk(self, True)
        self.quick = Bulk(self, False)
        self.restless = {}
        self.restless_ns = 1000000000
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

    @property
    def buffer_bytes(self):
        """What is on its way over the links: unparsed, unsent, large replies and uploads."""
        cdef Link link
        total = 0
        for link in self.links:
            total += link.unparsed() + link.unsent() + link.flows.memory()
        return total + self.shard.listings.buffer_bytes + self.bulk.buffer_bytes + self.quick.buffer_bytes

    @property
    def assembling(self):
        """Whether a part of a large reply is made, and others have their turn before the next one."""
        return self.bulk.buffer_bytes > 0 or self.quick.buffer_bytes > 0

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
            self.large_left = LARGE_PER_TICK
        self.shard.set_time(self.reactor.clock.data_ms(now_ms))
        self.shard.clock_ms = now_ms
        return 0

    cdef int commit_tick(self) except -1:
        """Between executing and sending: all effects of the tick become one frame of the log."""
        if self.shard.tracking.gathering:
            self.shard.tracking.send_gathered()
        return 0 if self.writer is None else self.commit_frame()

    cdef int commit_frame(self) except -1:
        cdef Buffer records = self.shard.store.effects.records
        if records.used():
            self.put_frame(FRAME_EFFECTS, records)
        return self.mark_links()

    cdef int put_frame(self, int kind, Buffer payload) except -1:
        """What was executed since the last frame is one: the end of `payload` are its records."""
        cdef Effects effects = self.shard.store.effects
        cdef Buffer records = effects.records
        try:
            for follower in self.followers:
                (<Follower> follower).follow(records.data + records.start, records.used())
            self.write_frame(kind, payload, effects.frame_ms)
        except MemoryError:
            # The writer counts as broken from here on: what was executed is in memory alone, and is never answered.
            log.error("no memory for a frame of %d bytes of the log", payload.used())
        effects.forget_frame()
        effects.following = self.writer.end() + 1
        return 0

    cdef bint begin_share(self) except -1:
        """What is executed from here to `put_share` is a frame of its own; False when nothing is logged."""
        cdef Effects effects = self.shard.store.effects
        if self.writer is None or not effects.recording:
            return False
        if effects.records.used():
            self.put_frame(FRAME_EFFECTS, effects.records)
        return True

    cdef int put_share(self, uint64_t transaction, bytes shards) except -1:
        """A transaction's share was executed, maybe to no effect; `shards`, as u16, are those that write one."""
        cdef Effects effects = self.shard.store.effects
        cdef Buffer payload = Buffer()
        cdef uint16_t shard
        cdef Py_ssize_t i, n = PyBytes_GET_SIZE(shards) // 2
        if effects.records.used() == 0:
            effects.begin_frame()
        put_number(payload, transaction)
        put_number(payload, <uint64_t> n)
        for i in range(n):
            memcpy(&shard, PyBytes_AS_STRING(shards) + 2 * i, 2)
            put_number(payload, shard)
        payload.append(effects.records.data + effects.records.start, effects.records.used())
        return self.put_frame(FRAME_SHARE, payload)

    def settle(self, transactions):
        """The log has shares of these transactions and does not say that they are over, which they are by now. The next log is
        told of them, too: a base may hide them from it while another shard, which holds its locks still, has a step that counts only
        if somebody says that the transaction does."""
        self.begin_tick()
        for transaction in transactions:
            self.shard.store.effects.settle(transaction)
            self.shard.locks.done.append((self.shard.store.now_ms, transaction))
        self.commit_tick()

    cdef inline int write_frame(self, int kind, Buffer payload, int64_t now_ms) except -1:
        cdef char* at = payload.data + payload.start
        # Where it lies, if there is room for a header before it; else a copy is handed over.
        if payload.start < LOG_HEADER or not self.writer.write_effects(kind, at, payload.used(), now_ms):
            try:
                self.writer.add_effects(kind, at, payload.used(), now_ms)
            finally:
                self.writer.push()
        return 0

    cdef int mark_links(self) except -1:
        """What the links have said so far may leave when everything logged so far is released."""
        cdef Link link
        cdef uint64_t end = self.writer.end()
        cdef uint64_t released = end if self.lost else self.writer.released()
        for link in self.links:
            link.take_mark(end, released)
        return 0

    cdef int release_links(self) except -1:
        cdef Link link
        cdef uint64_t released = self.writer.end() if self.lost else self.writer.released()
        for link in self.links:
            if link.mark_count:
                link.raise_sendable(released)
        return 0

    # The log ----------------------------------------------------------------------------------------------
    def attach_log(self, Writer writer not None):
        """From here on every change is logged by this writer, and replies wait for it."""
        cdef Effects effects = self.shard.store.effects
        self.commit_tick()
        self.writer = writer
        effects.records.keep = RECORDS_KEPT
        effects.following = writer.end() + 1
        if not effects.recording:
            effects.record(True)
        self.shard.locks.logged_since = self.shard.store.now_ms
        self.news = LogNews(self, os.dup(writer.news))

    def record_ahead(self):
        """What changes is recorded, for a log that cannot begin yet: its first frame. Writes are to be refused meanwhile."""
        self.shard.store.effects.record(True)

    def tell_shares(self):
        """A log begins that will go with a base: the shares before it are told of, before anything else."""
        since, there, missing = self.shard.locks.shares_before()
        self.begin_tick()
        self.shard.store.effects.tell_shares(since, there, missing)
        self.commit_tick()

    def end_log(self):
        """Nothing is logged any more. Replies still wait for what was, until `detach_log`."""
        self.commit_tick()
        self.shard.store.effects.record(False)

    def detach_log(self):
        """The writer has done what it could: what still waits for it is answered, or its link closed if that was `lost`."""
        cdef Link link
        self.shard.store.effects.number_frames(False)
        self.writer = None
        self.news.close()
        self.news = None
        self.set_trouble(NO_TROUBLE, b"", False)
        for link in list(self.links):
            link.free_output()

    def number_frames(self, bint wanted):
        """Whether it is remembered which slots changed last in which frame: for always."""
        self.shard.store.effects.number_frames(wanted)

    def follow(self, Follower follower not None, bint wanted=True):
        """It sees the records of every frame from here on, or no longer."""
        if wanted:
            self.followers.append(follower)
        else:
            self.followers.remove(follower)

    def commit(self):
        """What was executed so far becomes a frame now; whether nothing is left that is none."""
        self.commit_tick()
        return self.shard.store.effects.records.used() == 0

    def set_trouble(self, int trouble, bytes text not None, bint lost, uint64_t sure_until=UINT64_MAX):
        """What the log is in: from TROUBLE_STALLED on writes are answered with `text`; before that, they wait.

        `lost`: nobody waits any more for what is not released. Links that hold such output are closed, since no reply is
        sent that was not kept: the router says that the outcome is uncertain, and is back at once.
        """
        cdef Link link
        if lost and not self.lost:
            for link in list(self.links):
                if link.mark_count:
                    self.misconf += 1
                    link.close("the log cannot be written")
        self.trouble = trouble
        self.lost = lost
        self.parking = trouble == TROUBLE_SLOW
        self.shard.locks.park_writes(self.parking)
        self.shard.refuse(trouble if trouble >= TROUBLE_STALLED else 0, text, sure_until)
        if not self.parking and self.parked:
            for link in self.parked:
                if link.fd >= 0:
                    self.wait_for_next(link)
            self.parked = []
        if self.shard.locks.runnable:
            self.serve_soon()

    def background(self, int64_t budget_ns):
        """A tick of its own: expiry and eviction, each for at most `budget_ns`. True when more is waiting."""
        cdef int64_t began = monotonic_ns()
        cdef bint backlog
        cdef Link link
        for link in self.links:
            link.flows.cool_down()
        self.reactor.cool_down()
        self.begin_tick()
        self.shard.tune_simulations()
        self.shard.store.effects.begin_unit()
        try:
            # What nobody asked for rests while it cannot be logged; a key past its deadline is not seen anyway.
            backlog = self.trouble < TROUBLE_STALLED and (
                self.shard.expire_some(budget_ns) | self.shard.evict_some(budget_ns))
        finally:
            self.commit_tick()
            self.note_stall(monotonic_ns() - began)
        return backlog

    def perform(self, work):
        """Calls `work`, which no frame has caused, in a tick of its own; what it returns."""
        cdef int64_t began = monotonic_ns()
        self.begin_tick()
        self.shard.store.effects.begin_unit()
        try:
            return work()
        finally:
            self.commit_tick()
            self.note_stall(monotonic_ns() - began)

    def tidy(self, int64_t budget_ns):
        """A slice of giving memory back. True when another should follow soon."""
        cdef int64_t began = monotonic_ns()
        try:
            return self.shard.defragment_some(budget_ns)
        finally:
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
            self.begin_tick()
            if self.shard.locks.sweep(self.shard.clock_ms):
                self.watch_locks()
            self.commit_tick()
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
