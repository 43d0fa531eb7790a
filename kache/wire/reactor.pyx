"""Raw descriptors under an event loop: one read buffer, batched writes, lingering closes.

Owns the descriptors that carry frames (clients, links, listeners). Everything else that a process
waits for (timers, control channel, signals) stays with the event loop.

              event loop (uvloop)
                 |  readable
          +------v-------+   epoll_wait     +-------------+  on_data   compiled protocol code
          | our epoll fd |----------------->|  Endpoint   |----------> parses, marks others dirty
          +--------------+  up to 256       +-------------+
                 |          at a time             ^
                 +-- end of the batch: every marked endpoint is written once

On Linux all descriptors hang below one epoll descriptor, which is the only thing the loop sees: a
batch of ready connections costs one Python call, not one each. After a batch the reactor stays in its
own wait for a moment (`WINDOW_NS`) before it returns to the loop, so under load the loop is visited
about once a millisecond. Elsewhere (and with ``nested=False``) every descriptor is registered with
``loop.add_reader``; the endpoints cannot tell the difference.

Promises: output marked in an iteration leaves in one write per endpoint at its end (or a few batches later, if the
endpoint asks for it, at most a moment later); `on_closed` runs
exactly once; data offered to `on_data` and not consumed is offered again, in order.
"""
import logging

from cpython.ref cimport PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strerror

from kache.wire.codec cimport Buffer

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <sched.h>
    #include <poll.h>
    #include <stdint.h>
    #include <sys/socket.h>
    #include <sys/time.h>
    #include <time.h>
    #include <unistd.h>

    #ifdef __linux__
    #include <sys/epoll.h>
    #define KACHE_HAS_EPOLL 1
    #define KACHE_BOOT_CLOCK CLOCK_BOOTTIME
    #define KACHE_SEND_FLAGS (MSG_NOSIGNAL | MSG_DONTWAIT)
    static int kache_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }
    #else
    #define KACHE_HAS_EPOLL 0
    #define KACHE_BOOT_CLOCK CLOCK_MONOTONIC
    #define KACHE_SEND_FLAGS MSG_DONTWAIT
    #define EPOLLIN 1
    #define EPOLLOUT 4
    #define EPOLLERR 8
    #define EPOLLHUP 16
    #define EPOLL_CTL_ADD 1
    #define EPOLL_CTL_DEL 2
    #define EPOLL_CTL_MOD 3
    struct epoll_event { uint32_t events; union { void *ptr; } data; };
    static int epoll_create1(int flags) { errno = ENOSYS; return -1; }
    static int epoll_ctl(int p, int op, int fd, struct epoll_event *e) { errno = ENOSYS; return -1; }
    static int epoll_wait(int p, struct epoll_event *e, int n, int ms) { errno = ENOSYS; return -1; }
    static int kache_accept(int fd) {
        int one = 1, got = accept(fd, NULL, NULL);
        if (got >= 0) {
            fcntl(got, F_SETFL, fcntl(got, F_GETFL) | O_NONBLOCK);
            fcntl(got, F_SETFD, FD_CLOEXEC);
    #ifdef SO_NOSIGPIPE
            setsockopt(got, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
    #endif
        }
        return got;
    }
    #endif

    static int64_t kache_clock_ns(int id) {
        struct timespec t;
        clock_gettime((clockid_t) id, &t);
        return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
    }
    static int kache_hung_up(int fd) {
        struct pollfd p = {fd, 0, 0};
        return poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLHUP));
    }
    static int kache_nonblocking(int fd) {
        int flags = fcntl(fd, F_GETFL);
        return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
    """
    enum:
        KACHE_HAS_EPOLL, KACHE_BOOT_CLOCK, KACHE_SEND_FLAGS
        EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
        CLOCK_MONOTONIC, CLOCK_REALTIME
        SHUT_WR

    ctypedef union epoll_data_t:
        void* ptr

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_create1(int flags) nogil
    int epoll_ctl(int epoll, int op, int fd, epoll_event* event) nogil
    int epoll_wait(int epoll, epoll_event* events, int count, int timeout_ms) nogil
    int kache_accept(int fd) nogil
    int kache_hung_up(int fd) nogil
    int kache_nonblocking(int fd) nogil
    int64_t kache_clock_ns(int clock) nogil
    int sched_yield() nogil
    ssize_t recv(int fd, void* data, size_t size, int flags) nogil
    ssize_t send(int fd, const void* data, size_t size, int flags) nogil
    int shutdown(int fd, int how) nogil
    int close_fd "close"(int fd) nogil

ctypedef Py_ssize_t ssize_t

log = logging.getLogger("kache.reactor")

cdef enum:
    BATCH = 256

# How long a batch may be followed by others before the event loop gets its turn (ns), and the wait for
# the next batch in between (ms). Timers and control messages are late by at most their sum.
cdef int64_t WINDOW_NS = 1000000
cdef int WINDOW_WAIT_MS = 1

# How long output may be held back in the hope of more (ns): what a shard needs for its share of a pipeline, and no
# more than a client notices when one shard is slow.
cdef int64_t HOLD_NS = 1000000

# Bytes read from one descriptor at a time: a pipeline of some thousand commands, and small enough that
# 50 busy connections take turns.
SCRATCH_SIZE = 128 * 1024

# A partial frame up to this size is moved in front of the next read instead of growing a buffer of its own.
cdef Py_ssize_t SMALL_PARTIAL = 16 * 1024

# A close after a reply discards what the peer still sends, so that the reply is not lost to a reset; for so long and
# up to so many bytes, unless the owner of the reactor says otherwise.
LINGER_SECONDS = 1.0
LINGER_BYTES = 4 * 1024 * 1024

ACCEPTS_AT_ONCE = 64
ACCEPT_RETRY_SECONDS = 0.1

# Clock: how fast a difference to the wall clock is made up for (ms per call of `discipline`, which runs
# once a second), below and above the difference that is called a step.
STEP_MS = 1000
SLEW_MS = 1
STEP_SLEW_MS = 10


cdef int64_t monotonic_ns() noexcept nogil:
    return kache_clock_ns(CLOCK_MONOTONIC)


cdef class Clock:
    """Unix milliseconds from one (wall clock, boot clock) anchor shared by the whole cluster.

    The wall clock may be stepped by an hour without anything expiring early: time advances with the
    boot clock (which counts suspends), and differences to the wall clock are made up for slowly.
    """

    def __init__(self, wall_ms=None, boot_ns=None):
        self.wall_ms = kache_clock_ns(CLOCK_REALTIME) // 1000000 if wall_ms is None else wall_ms
        self.boot_ns = kache_clock_ns(KACHE_BOOT_CLOCK) if boot_ns is None else boot_ns
        self.offset_ms = 0
        self.stepped = False

    cdef int64_t now_ms(self) noexcept nogil:
        return self.wall_ms + self.offset_ms + (kache_clock_ns(KACHE_BOOT_CLOCK) - self.boot_ns) // 1000000

    def now(self):
        """Unix time in milliseconds."""
        return self.now_ms()

    def anchor(self):
        """(unix ms, boot clock ns) that another process can start from and agree with this one."""
        return self.wall_ms + self.offset_ms, self.boot_ns

    def discipline(self, wall_ms=None):
        """Moves a little towards the wall clock; to be called once a second. Returns the difference in ms."""
        cdef int64_t wall = kache_clock_ns(CLOCK_REALTIME) // 1000000 if wall_ms is None else wall_ms
        cdef int64_t difference = wall - self.now_ms()
        cdef int64_t step = SLEW_MS
        if difference > STEP_MS or difference < -STEP_MS:
            step = STEP_SLEW_MS
            if not self.stepped:
                log.warning("the wall clock differs by %d ms: adopting it slowly", difference)
        self.stepped = step == STEP_SLEW_MS
        if difference > 1:
            self.offset_ms += min(step, difference)
        elif difference < -1:
            self.offset_ms -= min(step, -difference)
        return difference


cdef class Reactor:
    """The descriptors of one process and the order in which they are served."""

    def __cinit__(self):
        self.poll_fd = -1
        self.scratch = NULL

    def __init__(self, loop, Clock clock=None, nested=None, Py_ssize_t scratch_size=SCRATCH_SIZE):
        self.loop = loop
        self.clock = clock or Clock()
        self.now_ms = self.clock.now_ms()
        self.nested = KACHE_HAS_EPOLL if nested is None else nested
        self.linger_seconds = LINGER_SECONDS
        self.linger_bytes = LINGER_BYTES
        self.dirty = []
        self.held = []
        self.graveyard = []
        self.endpoints = {}
        self.scratch_size = scratch_size
        self.scratch = <char*> malloc(scratch_size)
        if self.scratch == NULL:
            raise MemoryError("no memory for the read buffer")
        if self.nested:
            self.poll_fd = epoll_create1(0o2000000)   # EPOLL_CLOEXEC
            if self.poll_fd < 0:
                raise OSError(errno, "epoll_create1 failed")
            loop.add_reader(self.poll_fd, self._on_ready)

    def __dealloc__(self):
        if self.poll_fd >= 0:
            close_fd(self.poll_fd)
        free(self.scratch)

    def __len__(self):
        return len(self.endpoints)

    def close(self):
        """Closes every endpoint and leaves the loop."""
        if self.closed:
            return
        self.closed = True
        for endpoint in list(self.endpoints.values()):
            (<Endpoint> endpoint).close("shutting down")
        self.graveyard.clear()
        self.held.clear()
        if self.nested:
            self.loop.remove_reader(self.poll_fd)

    def yield_to_loop(self):
        """Whoever schedules something on the event loop from within a batch calls this, so that the loop
        gets its turn right after the batch instead of after the window."""
        self.leave = True

    # Registration ---------------------------------------------------------------------------------
    cdef int attach(self, Endpoint endpoint) except -1:
        if self.closed:
            raise RuntimeError("the reactor is closed")
        self.endpoints[endpoint.fd] = endpoint
        return self.interest(endpoint)

    cdef int detach(self, Endpoint endpoint) except -1:
        cdef epoll_event event
        if self.nested:
            if endpoint.armed:
                epoll_ctl(self.poll_fd, EPOLL_CTL_DEL, endpoint.fd, &event)
        else:
            if endpoint.armed & EPOLLIN:
                self.loop.remove_reader(endpoint.fd)
            if endpoint.armed & EPOLLOUT:
                self.loop.remove_writer(endpoint.fd)
        endpoint.armed = 0
        self.endpoints.pop(endpoint.fd, None)
        return 0

    cdef int interest(self, Endpoint endpoint) except -1:
        """Tells the poller what the endpoint waits for, if that changed."""
        cdef uint32_t wanted = 0
        cdef epoll_event event
        cdef int op
        if endpoint.fd < 0:
            return 0
        if endpoint.reading and not endpoint.eof:
            wanted |= EPOLLIN
        if endpoint.wants_write:
            wanted |= EPOLLOUT
        if wanted == endpoint.armed:
            return 0
        if self.nested:
            # A descriptor that waits for nothing is taken out: a hang-up would be reported for ever.
            op = EPOLL_CTL_DEL if not wanted else (EPOLL_CTL_MOD if endpoint.armed else EPOLL_CTL_ADD)
            event.events = wanted
            event.data.ptr = <void*> endpoint
            if epoll_ctl(self.poll_fd, op, endpoint.fd, &event) < 0:
                raise OSError(errno, "epoll_ctl failed")
        else:
            self._interest_in_loop(endpoint, wanted)
        endpoint.armed = wanted
        return 0

    def _interest_in_loop(self, Endpoint endpoint, uint32_t wanted):
        if (wanted ^ endpoint.armed) & EPOLLIN:
            if wanted & EPOLLIN:
                self.loop.add_reader(endpoint.fd, self._on_one, endpoint, True)
            else:
                self.loop.remove_reader(endpoint.fd)
        if (wanted ^ endpoint.armed) & EPOLLOUT:
            if wanted & EPOLLOUT:
                self.loop.add_writer(endpoint.fd, self._on_one, endpoint, False)
            else:
                self.loop.remove_writer(endpoint.fd)

    # Iterations -----------------------------------------------------------------------------------
    def _on_ready(self):
        """The loop saw our epoll descriptor readable: serve batches until it is quiet or the window ends."""
        cdef int64_t start = monotonic_ns()
        cdef int timeout = 0
        self.leave = False
        while not self.closed:
            if self.wait(timeout):
                if self.leave or monotonic_ns() - start > WINDOW_NS:
                    break
                timeout = WINDOW_WAIT_MS
            elif self.held:
                self.release_held()
            else:
                break
        if self.held and not self.again and not self.closed:
            # The loop has its turn, but not the time to wait until a descriptor is ready.
            self.again = True
            self.loop.call_soon(self._on_again)

    def _on_again(self):
        self.again = False
        self._on_ready()

    cdef int release_held(self) except -1:
        """Nothing else is ready, or the window is over: what was held back leaves."""
        self.running = True
        try:
            self.finish(True)
        finally:
            self.running = False
        return 0

    cdef int wait(self, int timeout_ms) except -1:
        """One batch. Returns how many descriptors were ready."""
        cdef epoll_event[BATCH] events
        cdef int n, i
        cdef int64_t start, took
        cdef Endpoint endpoint
        with nogil:
            if timeout_ms:
                # About to sleep: whoever else is ready on this core runs first, and what it sends is part of the next
                # batch instead of a wake-up of its own. Where the core is ours alone this returns at once.
                sched_yield()
            n = epoll_wait(self.poll_fd, events, BATCH, timeout_ms)
            # Read before the GIL is asked for: the wait for it is part of a stall.
            start = monotonic_ns()
        if n <= 0:
            if n < 0 and errno != EINTR:
                raise OSError(errno, "epoll_wait failed")
            return 0
        self.running = True
        self.now_ms = self.clock.now_ms()
        try:
            for i in range(n):
                endpoint = <Endpoint> <PyObject*> events[i].data.ptr
                self.dispatch(
                    endpoint,
                    events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) != 0,
                    events[i].events & (EPOLLOUT | EPOLLERR) != 0,
                )
            self.finish(False)
        finally:
            self.running = False
        took = monotonic_ns() - start
        if took > self.longest_iteration_ns:
            self.longest_iteration_ns = took
        return n

    def _on_one(self, Endpoint endpoint, bint readable):
        """Without a descriptor of our own: one endpoint is ready; the flush follows behind its siblings."""
        cdef int64_t start = monotonic_ns(), took
        self.now_ms = self.clock.now_ms()
        self.running = True
        try:
            self.dispatch(endpoint, readable, not readable)
            # libuv stops watching a descriptor that has an error pending and reports it only once: what is left is
            # finite, since the peer is gone, and must be read now.
            while (readable and endpoint.fd >= 0 and endpoint.is_stream() and endpoint.reading and not endpoint.eof
                   and kache_hung_up(endpoint.fd)):
                self.dispatch(endpoint, True, False)
        finally:
            self.running = False
        self._schedule_flush()
        took = monotonic_ns() - start
        if took > self.longest_iteration_ns:
            self.longest_iteration_ns = took

    def _schedule_flush(self):
        if not self.flush_scheduled and not self.closed:
            self.flush_scheduled = True
            self.loop.call_soon(self._flush_now)

    def _flush_now(self):
        self.flush_scheduled = False
        self.now_ms = self.clock.now_ms()
        self.running = True
        try:
            self.finish(True)
        finally:
            self.running = False

    cdef int dispatch(self, Endpoint endpoint, bint readable, bint writable) except -1:
        """Serves one endpoint. Its errors close it and nothing else."""
        if endpoint.fd < 0:
            return 0      # closed by an earlier one of the same batch
        try:
            if writable and endpoint.wants_write:
                endpoint.flush()
            if readable and endpoint.fd >= 0:
                if endpoint.is_stream():
                    endpoint.read_some()
                else:
                    endpoint.on_readable()
        except Exception as error:
            log.exception("closing descriptor %d after an internal error", endpoint.fd)
            endpoint.close(f"internal error: {error}")
        return 0

    cdef int before_flush(self) except -1:
        return 0

    cdef int finish(self, bint everything) except -1:
        """End of a batch: every marked endpoint is written once; what that wakes up is written too.

        Unless `everything` must go, an endpoint that expects more output at once may be held back
        (`hold_output`) for the next batch, so that a pipeline's replies from several shards leave in one write.
        """
        cdef Py_ssize_t i = 0
        cdef Endpoint endpoint
        cdef int64_t now = 0
        self.iterations += 1
        self.before_flush()
        if self.held:
            self.dirty = self.held + self.dirty
            self.held = []
        # The list may grow while it is walked: a drained client is read again and marks others.
        while i < len(self.dirty):
            endpoint = <Endpoint> self.dirty[i]
            i += 1
            if not everything and endpoint.fd >= 0 and endpoint.hold_output():
                if now == 0:
                    now = monotonic_ns()
                if endpoint.held_since == 0:
                    endpoint.held_since = now
                if now - endpoint.held_since <= HOLD_NS:
                    self.held.append(endpoint)
                    continue
            endpoint.held_since = 0
            endpoint.marked = False
            if endpoint.fd >= 0:
                try:
                    endpoint.flush()
                except Exception as error:
                    log.exception("closing descriptor %d after an internal error", endpoint.fd)
                    endpoint.close(f"internal error: {error}")
        self.dirty.clear()
        self.graveyard.clear()
        return 0

    cdef int mark(self, Endpoint endpoint) except -1:
        self.dirty.append(endpoint)
        if not self.running:
            self._schedule_flush()
        return 0


cdef class Endpoint:
    """One non-blocking descriptor with its input and output."""

    def __cinit__(self):
        self.fd = -1

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

    cdef bint hold_output(self) noexcept:
        return False

    cdef int on_drained(self) except -1:
        return 0

    cdef int on_written(self, Py_ssize_t n) except -1:
        return 0

    cdef int on_closed(self, object reason) except -1:
        return 0

    # Input ----------------------------------------------------------------------------------------
    cdef int read_some(self) except -1:
        """One read. A small partial frame moves to the front of the shared read buffer and is read on there; a
        large one is read straight into the connection's own buffer."""
        cdef Py_ssize_t n, kept = 0, size = self.reactor.scratch_size
        cdef char* into = self.reactor.scratch
        cdef bint partial = False
        if self.inbuf is not None and not self.lingering:
            kept = self.inbuf.used()
            if kept > SMALL_PARTIAL:
                partial = True
                into = self.inbuf.reserve(size)
            elif kept:
                memcpy(into, self.inbuf.data + self.inbuf.start, kept)
                into += kept
                size -= kept
        n = recv(self.fd, into, size, 0)
        if n < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            self.close(f"read failed: {strerror(errno).decode()}")
            return 0
        if n == 0:
            self.eof = True
            if self.lingering or self.closing:
                if self.lingering or not self.unsent():
                    self.close(self.linger_reason)
                else:
                    self.reactor.interest(self)
                return 0
            self.reactor.interest(self)
            return self.on_eof()
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
        return self.take_in(self.reactor.scratch, kept + n)

    cdef int take_in(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t consumed
        self.feeding = True
        try:
            consumed = self.on_data(data, n)
        finally:
            self.feeding = False
        if consumed < n and self.fd >= 0 and not self.closing:
            if self.inbuf is None:
                self.inbuf = Buffer()
            self.inbuf.append(data + consumed, n - consumed)
        elif self.inbuf is not None:
            # An idle connection keeps no input buffer.
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
        if not inbuf.used():
            # An idle connection keeps no input buffer.
            inbuf.release()
            self.inbuf = None
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
        if self.fd >= 0:
            return self.reactor.interest(self)
        return 0

    # Output ---------------------------------------------------------------------------------------
    cdef Buffer output(self):
        if self.out is None:
            self.out = Buffer()
        return self.out

    cdef int mark_dirty(self) except -1:
        if not self.marked and self.fd >= 0:
            self.marked = True
            return self.reactor.mark(self)
        return 0

    cdef int flush(self) except -1:
        cdef Buffer out = self.out
        cdef Py_ssize_t n
        cdef bint was_blocked = self.wants_write
        if self.fd < 0:
            return 0
        while out is not None and out.used():
            n = send(self.fd, out.data + out.start, out.used(), KACHE_SEND_FLAGS)
            if n < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                self.close(f"write failed: {strerror(errno).decode()}")
                return 0
            self.bytes_out += n
            out.consume(n)
            self.on_written(n)
            if self.fd < 0:
                return 0
        if out is not None and out.used():
            self.wants_write = True
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
        return self.out.used() if self.out is not None else 0

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
        if self.linger_timer is not None:
            self.linger_timer.cancel()
            self.linger_timer = None
        # The poller may still hold a pointer to this object for the rest of the batch.
        self.reactor.graveyard.append(self)
        if self.out is not None:
            self.out.release()
        if not self.feeding and self.inbuf is not None:
            self.inbuf.release()
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
        self.linger_timer = self.reactor.loop.call_later(self.reactor.linger_seconds, self.close, reason)
        self.reactor.interest(self)
        self.mark_dirty()

    cdef int start_linger(self) except -1:
        if self.lingering:
            return 0
        if self.eof:
            self.close(self.linger_reason)
            return 0
        self.lingering = True
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
            self.reactor.leave = True
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
