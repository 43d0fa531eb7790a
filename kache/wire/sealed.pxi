# Endpoints that speak TLS: how their bytes are opened and sealed (tls.pyx), and when their handshakes have their turn.
#
#   socket --> pool.scratch --> opened into the reactor's buffer --> take_in, as if it had been read
#   out ----> sealed, at most SEALED_AHEAD ahead of the socket ----> socket; tls.wire has what it did not take
#
# The rest of an endpoint knows nothing of it: `on_data` gets plain text, `on_written` counts plain text, `unsent` is plain
# text that has not left. What a paused endpoint has received stays sealed (tls.sealed_in) and is opened at the end of the
# batch in which it is read again. Functions and no methods, since Cython wants those of a class in one file.
#
# A handshake costs 0.5 ms (P-256) to 1.5 ms (RSA-2048), as much as some hundred commands, so whoever asks for many must not
# starve the others: nothing is done before a whole record is there; steps are done behind everything else of a batch, for
# SLICE_NS of it and HALF_NS of every WINDOW_OF_STEPS_NS; the newest first, since the oldest has probably given up; who has
# left meanwhile is dropped unserved; and at most MOST_UNFINISHED wait for their client's answer.

cdef enum:
    SEALED_READ = 65536         # bytes read from one descriptor at a time
    SEALED_AHEAD = 65536        # sealed at a time, when the socket has taken what was before
    MOST_CONTROL = 131072       # on the wire beside that: a peer that asks for answers (key updates) and does not read them
    LEAST_SCRATCH = 32768       # of the reactor's buffer: more than a record

    MOST_UNFINISHED = 256       # handshakes that wait for their client

cdef int64_t SLICE_NS = 2000000
cdef int64_t WINDOW_OF_STEPS_NS = 10000000
cdef int64_t HALF_NS = 5000000
cdef int64_t WAITED_LONG_NS = 250000000
cdef double AGAIN_SECONDS = 0.005


# Input ------------------------------------------------------------------------------------------------
cdef int begin_tls(Endpoint self, Handshakes handshakes) except -1:
    """What a new endpoint receives and sends is sealed."""
    self.tls = Tls(handshakes.pool)
    self.handshakes = handshakes
    return 0


cdef int connect_tls(Endpoint self, TlsPool pool, str name) except -1:
    """What an endpoint that has connected sends and receives is sealed. There are few of these, and all are ours: their
    handshakes do not wait for a turn."""
    self.tls = Tls(pool)
    self.tls.connect(name)
    return self.mark_dirty()


cdef int read_sealed(Endpoint self) except -1:
    """`Endpoint.read_some`: one read, of which everything is opened that is complete and wanted."""
    cdef Tls tls = self.tls
    cdef Buffer scratch = tls.pool.scratch
    cdef Py_ssize_t n, kept = 0
    cdef char* into
    if tls.sealed_in is not None and tls.state == TLS_OPEN:
        kept = tls.sealed_in.used()
    scratch.clear()
    into = scratch.reserve(kept + SEALED_READ)
    if kept:
        memcpy(into, tls.sealed_in.data + tls.sealed_in.start, kept)
    n = recv(self.fd, into + kept, SEALED_READ, 0)
    if n < 0:
        if errno == EAGAIN or errno == EINTR:
            return 0
        self.close(f"read failed: {strerror(errno).decode()}")
        return 0
    if n == 0:
        return self.end_of_input()
    self.bytes_in += n
    if self.closing:
        self.lingered += n
        if self.lingered > self.reactor.linger_bytes:
            self.close(self.linger_reason)
        return 0
    if tls.state != TLS_OPEN:
        tls.keep(into, n)
        look_at_handshake(self)
    else:
        tls.sealed_in = None
        open_some(self, into, kept + n)
    return tell_cost(self)


cdef int open_some(Endpoint self, const char* data, Py_ssize_t n) except -1:
    """Opens records as long as this is read; the rest is kept."""
    cdef Tls tls = self.tls
    cdef Py_ssize_t at = 0, taken, got, kept, size
    cdef char* into
    cdef bint partial
    while self.fd >= 0 and self.reads() and not self.closing and not tls.ended and tls.state == TLS_OPEN:
        kept, partial, size = 0, False, self.reactor.scratch_size
        into = self.reactor.block.data
        if self.inbuf is not None:
            kept = self.inbuf.used()
            if kept > SMALL_PARTIAL:
                partial = True
                into = self.inbuf.reserve(size)
            elif kept:
                memcpy(into, self.inbuf.data + self.inbuf.start, kept)
                into += kept
        got = tls.open(data + at, n - at, into, size, &taken)
        at += taken
        if got and partial:
            self.inbuf.end += got
            self.offer()
        elif got:
            if kept:
                self.inbuf.clear()
            self.take_in(self.reactor.block.data, kept + got)
        if taken == 0:
            break
    if self.fd < 0 or self.closing:
        return 0
    if tls.state == TLS_FAILED:
        return break_off(self)
    if not tls.ended:
        tls.keep(data + at, n - at)
    elif self.reads():
        return self.end_of_input()
    if tls.wire is not None:
        if tls.wire.used() > SEALED_AHEAD + MOST_CONTROL:
            self.close("TLS messages that it does not read the answers of")
            return 0
        return self.mark_dirty()
    return 0


cdef int open_later(Endpoint self) except -1:
    """It is read again: what it has received meanwhile is opened at the end of the batch, since somebody may be looking at
    the buffer into which it is opened."""
    cdef Handshakes handshakes = self.handshakes
    if handshakes is None:
        return open_kept(self)      # what this side has connected is paused by nobody who looks at a buffer
    if self.tls.state == TLS_OPEN and (self.tls.sealed_in is not None or self.tls.ended):
        handshakes.resumed.append(self)
        if not self.reactor.running:
            self.reactor._schedule_flush()
    return 0


cdef int open_kept(Endpoint self) except -1:
    cdef Tls tls = self.tls
    cdef Buffer rest
    if self.fd < 0 or tls is None or tls.state != TLS_OPEN or not self.reads() or self.closing:
        return 0
    rest, tls.sealed_in = tls.sealed_in, None
    if rest is not None:
        open_some(self, rest.data + rest.start, rest.used())
    elif tls.ended:
        self.end_of_input()
    return tell_cost(self) if self.fd >= 0 else 0


cdef int break_off(Endpoint self) except -1:
    """What came is no TLS, or not of this session. Nothing can be sealed any more: it is closed with OpenSSL's alert."""
    cdef Tls tls = self.tls
    tell_trouble(self)
    if tls.wire is not None:
        send(self.fd, tls.wire.data + tls.wire.start, tls.wire.used(), KACHE_SEND_FLAGS)
    self.close(f"TLS: {tls.failure}")
    return 0


cdef int tell_trouble(Endpoint self) except -1:
    if self.tls.pool.on_trouble is not None:
        self.tls.pool.on_trouble(self, self.tls.failure)
    return 0


cdef int tell_cost(Endpoint self) except -1:
    """`on_tls_cost` learns by how much the memory that TLS takes has changed."""
    cdef Tls tls = self.tls
    cdef Py_ssize_t cost, before
    if tls is None:
        return 0
    cost, before = tls.cost() if self.fd >= 0 else 0, tls.counted
    tls.counted = cost
    return self.on_tls_cost(cost - before) if cost != before else 0


cdef int drop_tls(Endpoint self) except -1:
    """It is closed."""
    cdef Tls tls = self.tls
    if self.handshakes is not None:
        self.handshakes.waiting.pop(self, None)
    tell_cost(self)
    self.tls = None
    tls.drop()
    return 0


# Output -----------------------------------------------------------------------------------------------
cdef int flush_sealed(Endpoint self) except -1:
    """`Endpoint.flush`."""
    cdef Tls tls = self.tls
    cdef Buffer out
    cdef bytes sealed
    cdef Py_ssize_t n, size, taken, left = FLUSH_SIZE
    cdef bint was_blocked = self.wants_write
    while left > 0 and self.fd >= 0:
        if tls.wire is not None:
            size = tls.wire.used()
            n = write_sealed(self, tls.wire.data + tls.wire.start, size)
            if n <= 0:
                break
            left -= n
            # In the measure in which its records have left.
            taken = tls.plain if n == size else min(tls.plain, n)
            tls.plain -= taken
            tls.wire.consume(n)
            if n == size:
                tls.wire = None
        else:
            out = self.out if self.chain is None else <Buffer> self.chain[0]
            if out is None or not out.used() or tls.state != TLS_OPEN:
                if self.closing and not tls.notified and tls.state == TLS_OPEN:
                    tls.notify()
                    continue
                break
            sealed = tls.seal(out.data + out.start, min(out.used(), <Py_ssize_t> SEALED_AHEAD), &taken)
            if tls.state != TLS_OPEN or sealed is None:
                return break_off(self)
            out.consume(taken)
            if self.chain is not None:
                self.chained -= taken
                if not out.used():
                    del self.chain[0]
                    if not self.chain:
                        self.chain = None
            tls.plain = taken
            size = PyBytes_GET_SIZE(sealed)
            n = write_sealed(self, PyBytes_AS_STRING(sealed), size)
            if n < 0:
                return 0
            left -= n
            tls.put_on_wire(sealed, n)
            taken = tls.plain if n == size else min(tls.plain, n)
            tls.plain -= taken
        if taken:
            self.on_written(taken)
        if n < size:
            break
    if self.fd < 0:
        return 0
    if tls.wire is not None or (self.unsent() and tls.state == TLS_OPEN):
        self.wants_write = True
        return self.reactor.interest(self)
    self.wants_write = False
    if was_blocked:
        self.reactor.interest(self)
    if self.closing:
        return self.start_linger()
    return self.on_drained() if was_blocked else 0


cdef Py_ssize_t write_sealed(Endpoint self, const char* data, Py_ssize_t size) except -2:
    """How much the socket took; -1 when that closed the endpoint."""
    cdef Py_ssize_t n = send(self.fd, data, size, KACHE_SEND_FLAGS)
    if n < 0 and errno == EINTR:
        n = send(self.fd, data, size, KACHE_SEND_FLAGS)
    if n < 0 and (errno == EAGAIN or errno == EINTR):
        return 0
    if n < 0:
        self.close(f"write failed: {strerror(errno).decode()}")
        return -1
    self.bytes_out += n
    return n


# Handshakes -------------------------------------------------------------------------------------------
cdef int look_at_handshake(Endpoint self) except -1:
    """More of a handshake has come: its step waits for the end of the batch, and is not read before."""
    cdef Tls tls = self.tls
    cdef Buffer rest = tls.sealed_in
    if self.handshakes is None:
        return go_on_shaking(self)
    if not tls.queued and tls.whole(rest.data + rest.start, rest.used(), rest.used()):
        tls.queued = True
        self.held_back = True
        self.reactor.interest(self)
        self.handshakes.steps.append(self)
        if not self.reactor.running:
            self.reactor._schedule_flush()
    return 0


cdef int go_on_shaking(Endpoint self) except -1:
    """The same for a handshake that this side has begun: its step is done at once."""
    cdef Tls tls = self.tls
    cdef Buffer rest
    cdef Py_ssize_t taken
    rest, tls.sealed_in = tls.sealed_in, None
    taken = tls.shake(rest.data + rest.start, rest.used())
    if tls.state == TLS_FAILED:
        return break_off(self)
    tls.keep(rest.data + rest.start + taken, rest.used() - taken)
    self.mark_dirty()
    return open_kept(self) if tls.state == TLS_OPEN else 0


cdef class Handshakes:
    """Whose handshake goes on when. One for all TLS endpoints of a reactor (`Reactor.serve_tls`)."""

    def __init__(self, Reactor reactor not None, TlsPool pool not None):
        self.reactor = reactor
        self.pool = pool
        self.steps = []
        self.resumed = []
        self.waiting = {}

    @property
    def unfinished(self):
        """How many wait for their client's answer."""
        return len(self.waiting)

    cdef int run(self) except -1:
        """To be called at the end of a batch."""
        cdef Endpoint endpoint
        cdef int64_t began, now
        while self.resumed:
            endpoint = <Endpoint> self.resumed.pop()
            try:
                open_kept(endpoint)
            except Exception as error:
                log.exception("closing descriptor %d after an internal error", endpoint.fd)
                endpoint.close(f"internal error: {error}")
        if self.steps:
            began = now = monotonic_ns()
            if now - self.window_began >= WINDOW_OF_STEPS_NS:
                self.window_began = now
                self.spent = 0
            while self.steps and now - began < SLICE_NS and self.spent + now - began < HALF_NS:
                if not self.make_room(now):
                    break
                self.take_turn(<Endpoint> self.steps.pop(), now)
                now = monotonic_ns()
            self.spent += now - began
        if self.steps and self.timer is None:
            # Soon, but not before the others had their turn.
            self.timer = self.reactor.loop.call_later(
                AGAIN_SECONDS if self.spent >= HALF_NS or len(self.waiting) >= MOST_UNFINISHED else 0.0, self._again)
            self.reactor.must_yield = True
        return 0

    def _again(self):
        self.timer = None
        self.reactor._flush_now()

    cdef bint make_room(self, int64_t now) except -1:
        """Whether one more may wait for its client: perhaps in the place of the one that has waited longest."""
        cdef Endpoint longest, newest = <Endpoint> self.steps[len(self.steps) - 1]
        if len(self.waiting) < MOST_UNFINISHED or newest.tls is None or newest.tls.state == TLS_SHAKES:
            return True
        for found, since in self.waiting.items():
            longest = <Endpoint> found
            if now - <int64_t> since < WAITED_LONG_NS:
                return False
            longest.close("its TLS handshake was not finished, and others wait")
            return True
        return True

    cdef int take_turn(self, Endpoint endpoint, int64_t now) except -1:
        """One step of one handshake. Its errors close it and nothing else."""
        if endpoint.fd < 0 or endpoint.tls is None:
            return 0
        endpoint.tls.queued = False
        try:
            self.step(endpoint, now)
        except Exception as error:
            log.exception("closing descriptor %d after an internal error", endpoint.fd)
            endpoint.close(f"internal error: {error}")
        return 0

    cdef int step(self, Endpoint endpoint, int64_t now) except -1:
        cdef Tls tls = endpoint.tls
        cdef Buffer rest = tls.sealed_in
        cdef Py_ssize_t taken
        cdef uint32_t gone = kache_hung_up(endpoint.fd)
        if gone & (EPOLLERR | EPOLLHUP) or (gone and tls.state == TLS_WAITS):
            # Nobody will read the answer. (Behind its last message a client may have closed its sending side.)
            endpoint.close("it left before its TLS handshake")
            return 0
        self.waiting.pop(endpoint, None)
        tls.sealed_in = None
        taken = tls.shake(rest.data + rest.start, rest.used())
        tls.keep(rest.data + rest.start + taken, rest.used() - taken)
        endpoint.held_back = False
        endpoint.reactor.interest(endpoint)
        tell_cost(endpoint)
        if endpoint.fd < 0:
            return 0
        if tls.state == TLS_FAILED:
            tell_trouble(endpoint)
            # The alert says why; it is read to its end, for a reset would take it away.
            endpoint.close_after_reply(f"TLS: {tls.failure}")
        if tls.wire is not None:
            endpoint.flush()
        if endpoint.fd < 0 or tls.state == TLS_FAILED:
            return 0
        if tls.state == TLS_SHAKES:
            self.waiting[endpoint] = now
            return 0
        endpoint.on_secured()
        return open_kept(endpoint)

    cdef int stop(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.steps.clear()
        self.resumed.clear()
        return 0
