# One non-blocking descriptor: input, batched output, lingering closes, and what is learned of a peer that is not read.

cdef class Endpoint:
    """One non-blocking descriptor with its input and output."""

    def __cinit__(self):
        self.fd = self.passed = -1
        self.sendable = UINT64_MAX

    def __init__(self, Reactor reactor, int fd, bint reading=True):
        """Takes over descriptor `fd` (it is made non-blocking and closed by `close`)."""
        if kache_nonblocking(fd) < 0:
            raise OSError(errno, "cannot make the descriptor non-blocking")
        self.reactor = reactor
        self.fd = fd
        self.reading = reading
        reactor.attach(self)

    # Overridden by subclasses ---------------------------------------------------------------------
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t n) except -1:
        return n

    cdef int on_readable(self) except -1:
        return 0

    cdef bint is_stream(self) noexcept:
        return True

    cdef int on_eof(self) except -1:
        self.close("closed by the peer")
        return 0

    cdef int on_hangup(self, bint reset) except -1:
        return 0

    cdef bint hold_output(self) noexcept:
        return False

    cdef int on_drained(self) except -1:
        return 0

    cdef int on_written(self, Py_ssize_t n) except -1:
        return 0

    cdef int on_closed(self, object reason) except -1:
        return 0

    cdef int on_secured(self) except -1:
        return 0

    cdef int on_tls_cost(self, Py_ssize_t n) except -1:
        return 0

    # Input ----------------------------------------------------------------------------------------
    cdef int read_some(self) except -1:
        """One read. A small partial frame moves to the front of the shared read buffer and is read on there; a
        large one keeps that buffer, and is read on where it is."""
        cdef Py_ssize_t n, kept = 0, size = self.reactor.scratch_size
        cdef char* into = self.reactor.block.data
        cdef bint partial = False
        if self.tls is not None:
            return read_sealed(self)
        if self.inbuf is not None and not self.lingering:
            kept = self.inbuf.used()
            if kept > SMALL_PARTIAL:
                partial = True
                into = self.inbuf.reserve(size)
            elif kept:
                memcpy(into, self.inbuf.data + self.inbuf.start, kept)
                into += kept
                size -= kept
        n = recv(self.fd, into, size, 0) if not self.awaits_descriptor else kache_recv_passed(self.fd, into, size, &self.passed)
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
        if partial:
            self.inbuf.end += n
            return self.offer()
        if kept:
            self.inbuf.clear()
        return self.take_in(self.reactor.block.data, kept + n)

    cdef int end_of_input(self) except -1:
        """The peer has closed its sending side."""
        self.eof = True
        if self.lingering or self.closing:
            if self.lingering or not self.unsent():
                self.close(self.linger_reason)
            else:
                self.reactor.interest(self)
            return 0
        self.reactor.interest(self)
        return self.on_eof()

    cdef int take_in(self, const char* data, Py_ssize_t n) except -1:
        """What was read into the reactor's buffer."""
        cdef Py_ssize_t consumed
        cdef Buffer block
        self.feeding = True
        try:
            consumed = self.on_data(data, n)
        finally:
            self.feeding = False
        if consumed < n and self.fd >= 0 and not self.closing:
            block = self.reactor.lend() if n - consumed > SMALL_PARTIAL else None
            if block is not None:
                if self.inbuf is not None:
                    self.drop_input()
                block.start = consumed
                block.end = n
                self.inbuf = block
                self.borrowed = True
                return 0
            if self.inbuf is None:
                self.inbuf = Buffer()
            self.inbuf.append(data + consumed, n - consumed)
        elif self.inbuf is not None:
            self.drop_input()
        return 0

    cdef int drop_input(self) except -1:
        """An idle connection keeps no input buffer."""
        if self.borrowed:
            self.borrowed = False
            self.reactor.give_back(self.inbuf)
        else:
            self.inbuf.release()
        self.inbuf = None
        return 0

    cdef int offer(self) except -1:
        cdef Py_ssize_t consumed
        cdef Buffer inbuf = self.inbuf
        if inbuf is None or self.feeding or self.closing or not inbuf.used():
            return 0
        self.feeding = True
        try:
            consumed = self.on_data(inbuf.data + inbuf.start, inbuf.used())
        finally:
            self.feeding = False
        inbuf.consume(consumed)
        if not inbuf.used() or self.fd < 0:
            self.drop_input()
        return 0

    cdef int pause(self) except -1:
        if self.reading:
            self.reading = False
            return self.reactor.interest(self)
        return 0

    cdef int resume(self) except -1:
        if self.reading or self.closing or self.fd < 0:
            return 0
        self.reading = True
        self.offer()
        if self.fd < 0:
            return 0
        if self.tls is not None and self.reading:
            open_later(self)
        return self.reactor.interest(self)

    cdef inline bint reads(self) noexcept:
        return self.reading and not self.eof and not self.held_back

    cdef int hang_up(self, uint32_t events) except -1:
        """The poller has told something of the peer of an endpoint that is not read."""
        cdef bint reset = events & EPOLLERR != 0
        cdef bint news = self.peer == PEER_SENDS and not self.eof
        self.peer = PEER_GONE if events & (EPOLLHUP | EPOLLERR) else PEER_HALF_CLOSED
        self.reactor.interest(self)
        return self.on_hangup(reset) if news or reset else 0

    # Output ---------------------------------------------------------------------------------------
    cdef Buffer output(self):
        if self.out is None:
            self.out = Buffer()
        elif self.out.end > CHUNKS * self.out.keep:
            self.begin_chunk()
        return self.out

    cdef int begin_chunk(self) except -1:
        cdef Buffer full = self.out
        cdef Py_ssize_t keep = full.keep
        self.out = Buffer()
        self.out.keep = keep
        if self.chain is None:
            self.chain = []
        self.chain.append(full)
        self.chained += full.used()
        return 0

    cdef int chain_output(self, Buffer full) except -1:
        if self.out is not None and self.out.used():
            self.begin_chunk()
        if self.chain is None:
            self.chain = []
        self.chain.append(full)
        self.chained += full.used()
        return 0

    cdef Py_ssize_t send_joined(self, Py_ssize_t split, const char* data, Py_ssize_t n) except -1:
        cdef Buffer out = self.out
        cdef char* at = out.data + out.start
        cdef Py_ssize_t behind = out.used() - split, sent = 0, left
        if self.chain is None and not self.wants_write and self.fd >= 0 and self.tls is None:
            # An error is met again by the write at the end of the iteration, which closes.
            sent = max(kache_send_three(self.fd, at, split, data, n, at + split, behind), 0)
            self.bytes_out += sent
        if sent >= split + n:
            out.consume(sent - n)
            if behind:
                self.mark_dirty()
            return sent
        left = split + n - max(sent, split)
        if sent:
            out.consume(min(sent, split))
            split -= min(sent, split)
        out.reserve(left)
        at = out.data + out.start + split
        memmove(at + left, at, behind)
        memcpy(at, data + n - left, left)
        out.end += left
        self.mark_dirty()
        return sent

    cdef int widen(self) noexcept:
        kache_widen(self.fd, WIDE)
        return 0

    cdef int mark_dirty(self) except -1:
        if not self.marked and self.fd >= 0:
            self.marked = True
            return self.reactor.mark(self)
        return 0

    cdef int mark_late(self) except -1:
        """The same as one of many (Reactor.mark_late)."""
        if not self.marked and self.fd >= 0:
            self.marked = True
            return self.reactor.mark_late(self)
        return 0

    cdef int flush(self) except -1:
        cdef Buffer out
        cdef Py_ssize_t n, left = FLUSH_SIZE
        cdef uint64_t may
        cdef bint was_blocked = self.wants_write
        if self.fd < 0:
            return 0
        if self.tls is not None:
            return flush_sealed(self)
        while left > 0 and self.unsent():
            # Asked for anew each time: whoever is told of what was written may say more.
            out = self.out if self.chain is None else <Buffer> self.chain[0]
            may = self.sendable - self.bytes_out
            if may == 0:
                break
            n = out.used() if <uint64_t> out.used() < may else <Py_ssize_t> may
            n = send(self.fd, out.data + out.start, n, KACHE_SEND_FLAGS)
            if n < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                self.close(f"write failed: {strerror(errno).decode()}")
                return 0
            self.bytes_out += n
            left -= n
            out.consume(n)
            if self.chain is not None:
                self.chained -= n
                if not out.used():
                    del self.chain[0]
                    if not self.chain:
                        self.chain = None
            self.on_written(n)
            if self.fd < 0:
                return 0
        if self.unsent():
            # What may not leave yet waits for whoever lets it, not for the socket.
            self.wants_write = self.bytes_out != self.sendable
            return self.reactor.interest(self)
        self.wants_write = False
        if was_blocked:
            self.reactor.interest(self)
        if self.closing:
            return self.start_linger()
        if was_blocked:
            return self.on_drained()
        return 0

    cdef Py_ssize_t unsent(self) noexcept:
        cdef Py_ssize_t n = self.chained + (self.out.used() if self.out is not None else 0)
        return n if self.tls is None else n + self.tls.plain

    cdef Py_ssize_t unparsed(self) noexcept:
        return self.inbuf.used() if self.inbuf is not None else 0

    # Closing --------------------------------------------------------------------------------------
    cpdef close(self, object reason="closed"):
        """Closes now; unwritten output is dropped. Closing twice is allowed."""
        cdef int fd = self.fd
        if fd < 0:
            return
        self.reactor.detach(self)
        self.fd = -1
        close_fd(fd)
        if self.passed >= 0:
            close_fd(self.passed)
            self.passed = -1
        if self.linger_timer is not None:
            self.linger_timer.cancel()
            self.linger_timer = None
        # The poller may still hold a pointer to this object for the rest of the batch.
        self.reactor.graveyard.append(self)
        self.chain = None
        self.chained = 0
        if self.out is not None:
            self.out.release()
        if not self.feeding and self.inbuf is not None:
            self.drop_input()
        if self.tls is not None:
            drop_tls(self)
        self.on_closed(reason)

    cpdef close_after_reply(self, object reason="closed"):
        """Writes what is in `out`, shuts the sending side down, discards input for a while, closes.

        Closing a socket with unread input resets the connection, and the peer never sees the reply.
        """
        if self.fd < 0 or self.closing:
            return
        self.closing = True
        self.linger_reason = reason
        self.reading = True
        self.wait_for_progress()
        self.reactor.interest(self)
        self.mark_dirty()

    cdef int wait_for_progress(self) except -1:
        """Replies may take as long as the peer takes them in; one that takes nothing is not waited for."""
        self.linger_timer = self.reactor.loop.call_later(STALLED_SECONDS, self._look_at_progress, self.bytes_out)
        return 0

    def _look_at_progress(self, uint64_t before):
        if self.bytes_out == before:
            self.close(self.linger_reason)
        else:
            self.wait_for_progress()

    cdef int start_linger(self) except -1:
        if self.lingering:
            return 0
        if self.eof:
            self.close(self.linger_reason)
            return 0
        self.lingering = True
        self.linger_timer.cancel()
        self.linger_timer = self.reactor.loop.call_later(self.reactor.linger_seconds, self.close, self.linger_reason)
        shutdown(self.fd, SHUT_WR)
        return 0


cdef class Listener(Endpoint):
    """A listening socket. Accepted descriptors are non-blocking and close-on-exec."""

    cdef bint is_stream(self) noexcept:
        return False

    cdef int on_readable(self) except -1:
        cdef int fd, i
        for i in range(self.at_once or ACCEPTS_AT_ONCE):
            if self.fd < 0 or not self.reading:
                return 0
            fd = kache_accept(self.fd)
            if fd >= 0:
                self.on_accept(fd)
                continue
            if errno == EAGAIN:
                return 0
            if errno == EINTR or errno == ECONNABORTED:
                continue
            # Out of descriptors or memory: the connection stays in the backlog, and the socket stays
            # readable, so accepting must rest or the process would spin.
            self.accept_failures += 1
            self.on_accept_error(errno)
            self.pause()
            self.retry_timer = self.reactor.loop.call_later(ACCEPT_RETRY_SECONDS, self._retry)
            self.reactor.must_yield = True
            return 0
        return 0

    def _retry(self):
        self.retry_timer = None
        self.resume()

    def stop(self):
        """Accepts nothing more; the socket itself stays open for whoever shares it."""
        if self.retry_timer is not None:
            self.retry_timer.cancel()
            self.retry_timer = None
        self.pause()

    cdef int on_accept(self, int fd) except -1:
        close_fd(fd)
        return 0

    cdef int on_accept_error(self, int error) except -1:
        log.warning("cannot accept connections: %s", strerror(error).decode())
        return 0
