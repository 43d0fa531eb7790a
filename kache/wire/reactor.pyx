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
endpoint asks for it, at most a moment later; of those marked late, some in each batch, behind the others); `on_closed` runs
exactly once; data offered to `on_data` and not consumed is offered again, in order; an endpoint that is not read still
learns that its peer has gone (`on_hangup`), and what the peer sent before stays to be read.

Included: `endpoint.pxi`, what a descriptor does with its bytes, and `sealed.pxi`, what it does with them under TLS; here
is when it does it.
"""
import logging

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, strerror

from kache.wire.clock cimport Clock, monotonic_ns
from kache.wire.codec cimport Buffer
from kache.wire.tls cimport TLS_FAILED, TLS_OPEN, TLS_SHAKES, TLS_WAITS, Tls, TlsPool

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
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/time.h>
    #include <sys/uio.h>
    #include <unistd.h>

    #ifdef __linux__
    #include <sys/epoll.h>
    #define KACHE_HAS_EPOLL 1
    #define KACHE_SEND_FLAGS (MSG_NOSIGNAL | MSG_DONTWAIT)
    static int kache_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }
    #else
    #define KACHE_HAS_EPOLL 0
    #define KACHE_SEND_FLAGS MSG_DONTWAIT
    #define EPOLLIN 1
    #define EPOLLOUT 4
    #define EPOLLERR 8
    #define EPOLLHUP 16
    #define EPOLLRDHUP 8192
    #define EPOLLONESHOT (1u << 30)
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

    /* What epoll would say of the peer's end: EPOLLRDHUP, EPOLLHUP, EPOLLERR. Nothing is read. */
    static uint32_t kache_hung_up(int fd) {
    #ifdef POLLRDHUP
        struct pollfd p = {fd, POLLRDHUP, 0};
    #else
        struct pollfd p = {fd, 0, 0};
        char byte;
    #endif
        uint32_t found = 0;
        if (poll(&p, 1, 0) > 0) {
    #ifdef POLLRDHUP
            if (p.revents & POLLRDHUP) found |= EPOLLRDHUP;
    #endif
            if (p.revents & POLLHUP) found |= EPOLLHUP;
            if (p.revents & POLLERR) found |= EPOLLERR;
        }
    #ifndef POLLRDHUP
        if (!found && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) found = EPOLLRDHUP;
    #endif
        return found;
    }
    static int kache_readable(int fd) {
        struct pollfd p = {fd, POLLIN, 0};
        return poll(&p, 1, 0) > 0;
    }
    static ssize_t kache_send_three(int fd, char *a, size_t an, const char *b, size_t bn, char *c, size_t cn) {
        struct iovec pieces[3] = {{a, an}, {(char *) b, bn}, {c, cn}};
        struct msghdr message = {0};
        message.msg_iov = pieces;
        message.msg_iovlen = 3;
        return sendmsg(fd, &message, KACHE_SEND_FLAGS);
    }
    /* As recv; a descriptor that was passed with these bytes goes to `passed`, in the place of one that was there. */
    static ssize_t kache_recv_passed(int fd, void *into, size_t size, int *passed) {
        union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int))]; } control;
        struct iovec piece = {into, size};
        struct msghdr message = {0};
        struct cmsghdr *found;
        ssize_t n;
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
    #ifdef MSG_CMSG_CLOEXEC
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    #else
        n = recvmsg(fd, &message, 0);
    #endif
        found = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        if (found && found->cmsg_level == SOL_SOCKET && found->cmsg_type == SCM_RIGHTS
                && found->cmsg_len == CMSG_LEN(sizeof(int))) {
            if (*passed >= 0) close(*passed);
            memcpy(passed, CMSG_DATA(found), sizeof(int));
    #ifndef MSG_CMSG_CLOEXEC
            fcntl(*passed, F_SETFD, FD_CLOEXEC);
    #endif
        }
        return n;
    }
    static void kache_widen(int fd, int bytes) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    static int kache_nonblocking(int fd) {
        int flags = fcntl(fd, F_GETFL);
        return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
    """
    enum:
        KACHE_HAS_EPOLL, KACHE_SEND_FLAGS
        EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLONESHOT, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
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
    uint32_t kache_hung_up(int fd) nogil
    int kache_readable(int fd) noexcept nogil
    int kache_nonblocking(int fd) nogil
    int sched_yield() nogil
    ssize_t recv(int fd, void* data, size_t size, int flags) nogil
    ssize_t kache_recv_passed(int fd, void* into, size_t size, int* passed) nogil
    ssize_t send(int fd, const void* data, size_t size, int flags) nogil
    ssize_t kache_send_three(int fd, char* a, size_t an, const char* b, size_t bn, char* c, size_t cn) nogil
    void kache_widen(int fd, int bytes) nogil
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

# Of those that are marked late so many are written in one batch: what others ask for meanwhile is under way before the next.
cdef enum:
    LATE_AT_ONCE = 64

# Bytes read from one descriptor at a time: a pipeline of some thousand commands, and small enough that
# 50 busy connections take turns.
SCRATCH_SIZE = 128 * 1024

# A partial frame up to this size is moved in front of the next read instead of growing a buffer of its own. A larger one
# keeps the read buffer that it lies in, and another is read into: of so many connections at a time, for each costs twice
# SCRATCH_SIZE, touched or not. New memory for every such frame would cost more than copying it.
cdef Py_ssize_t SMALL_PARTIAL = 16 * 1024
cdef enum:
    MOST_LENT = 16

# Bytes that a local socket keeps for a reader that is busy, if the system allows as many: some large frames.
cdef int WIDE = 1 << 20

# An output buffer that holds so many times what it may keep is closed and another one begun: what is sent is given back
# piece by piece, and nothing is copied to make room.
cdef enum:
    CHUNKS = 4

# What is written to one descriptor before the others have their turn.
cdef Py_ssize_t FLUSH_SIZE = 1 << 20

# A close after a reply discards what the peer still sends, so that the reply is not lost to a reset; for so long and
# up to so many bytes, unless the owner of the reactor says otherwise.
LINGER_SECONDS = 1.0
LINGER_BYTES = 4 * 1024 * 1024

# Until then the reply leaves as slowly as the peer takes it in; who has taken no byte of it for so long is closed.
cdef double STALLED_SECONDS = 60.0

ACCEPTS_AT_ONCE = 64
ACCEPT_RETRY_SECONDS = 0.1

cdef class Reactor:
    """The descriptors of one process and the order in which they are served."""

    def __cinit__(self):
        self.poll_fd = -1

    def __init__(self, loop, Clock clock=None, nested=None, Py_ssize_t scratch_size=SCRATCH_SIZE):
        self.loop = loop
        self.clock = clock or Clock()
        self.now_ms = self.clock.now_ms()
        self.nested = KACHE_HAS_EPOLL if nested is None else nested
        self.linger_seconds = LINGER_SECONDS
        self.linger_bytes = LINGER_BYTES
        self.dirty = []
        self.held = []
        self.late = []
        self.graveyard = []
        self.endpoints = {}
        self.scratch_size = scratch_size
        self.spares = []
        self.block = self._new_block()
        if self.nested:
            self.poll_fd = epoll_create1(0o2000000)   # EPOLL_CLOEXEC
            if self.poll_fd < 0:
                raise OSError(errno, "epoll_create1 failed")
            loop.add_reader(self.poll_fd, self._on_ready)

    def __dealloc__(self):
        if self.poll_fd >= 0:
            close_fd(self.poll_fd)

    def _new_block(self):
        cdef Buffer block = Buffer()
        block.reserve(2 * self.scratch_size)
        block.keep = block.capacity
        return block

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
        self.late.clear()
        if self.handshakes is not None:
            self.handshakes.stop()
        if self.nested:
            self.loop.remove_reader(self.poll_fd)

    def serve_tls(self, TlsPool pool not None):
        """Some of its endpoints will speak TLS (`begin_tls`)."""
        if self.scratch_size < LEAST_SCRATCH:
            raise ValueError(f"TLS needs a read buffer of {LEAST_SCRATCH} bytes, not {self.scratch_size}")
        self.handshakes = Handshakes(self, pool)

    def is_wanted(self):
        """Whether a descriptor is ready and not served yet. Where the event loop alone knows them: no."""
        return self.poll_fd >= 0 and kache_readable(self.poll_fd)

    def yield_to_loop(self):
        """Whoever schedules something on the event loop from within a batch calls this, so that the loop
        gets its turn right after the batch instead of after the window."""
        self.must_yield = True

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
        if endpoint.reads():
            wanted = EPOLLIN
        elif self.nested and endpoint.peer != PEER_GONE and endpoint.is_stream():
            # Once, since a hang-up lasts: what it told is remembered, and it is asked for what may still come.
            wanted = EPOLLONESHOT
            if endpoint.peer == PEER_SENDS and not endpoint.eof:
                wanted |= EPOLLRDHUP
        if endpoint.wants_write:
            wanted = wanted & ~<uint32_t> EPOLLONESHOT | EPOLLOUT
        if wanted == endpoint.armed:
            return 0
        if self.nested:
            # Without any interest it is taken out: a hang-up would be reported for ever.
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

    # Read buffers ---------------------------------------------------------------------------------
    cdef Buffer lend(self):
        cdef Buffer block = self.block
        if self.lent >= MOST_LENT:
            return None
        self.block = <Buffer> self.spares.pop() if self.spares else self._new_block()
        self.lent += 1
        self.lending = True
        return block

    cdef int give_back(self, Buffer block) except -1:
        self.lent -= 1
        if block.capacity == self.block.capacity:
            block.clear()
            self.spares.append(block)
        else:
            block.release()     # it has grown with its frame
        return 0

    cdef int cool_down(self) except -1:
        if not self.lending and self.spares:
            self.spares.clear()
        self.lending = False
        return 0

    # Iterations -----------------------------------------------------------------------------------
    def _on_ready(self):
        """The loop saw our epoll descriptor readable: serve batches until it is quiet or the window ends."""
        cdef int64_t start = monotonic_ns()
        cdef int timeout = 0
        self.must_yield = False
        while not self.closed:
            if self.wait(timeout):
                if self.must_yield or monotonic_ns() - start > WINDOW_NS:
                    break
                timeout = 0 if self.late else WINDOW_WAIT_MS
            elif self.late:
                self.go_on_writing()
                if self.must_yield or monotonic_ns() - start > WINDOW_NS:
                    break
                timeout = 0 if self.late else WINDOW_WAIT_MS
            elif self.held:
                self.release_held()
            else:
                break
        if (self.held or self.late) and not self.again and not self.closed:
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

    cdef int go_on_writing(self) except -1:
        """Nothing is ready: more of those marked late are written."""
        self.running = True
        try:
            self.finish(False)
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
                self.dispatch(endpoint, events[i].events)
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
            self.dispatch(endpoint, EPOLLIN if readable else EPOLLOUT)
            # libuv stops watching a descriptor that has an error pending and reports it only once: what is left is
            # finite, since the peer is gone, and must be read now.
            while (readable and endpoint.fd >= 0 and endpoint.is_stream() and endpoint.reads()
                   and kache_hung_up(endpoint.fd) & (EPOLLHUP | EPOLLERR)):
                self.dispatch(endpoint, EPOLLIN)
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

    cdef int dispatch(self, Endpoint endpoint, uint32_t events) except -1:
        """Serves one endpoint. Its errors close it and nothing else."""
        if endpoint.fd < 0:
            return 0      # closed by an earlier one of the same batch
        try:
            if events & (EPOLLOUT | EPOLLERR) and endpoint.wants_write:
                endpoint.flush()
            if endpoint.fd < 0:
                return 0
            if endpoint.reads():
                if events & (EPOLLIN | EPOLLHUP | EPOLLERR):
                    if endpoint.is_stream():
                        endpoint.read_some()
                    else:
                        endpoint.on_readable()
            elif events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                endpoint.hang_up(events)
        except Exception as error:
            log.exception("closing descriptor %d after an internal error", endpoint.fd)
            endpoint.close(f"internal error: {error}")
        return 0

    cdef int look_for_hangups(self) except -1:
        """Where the poller says nothing of those who are not read, they are looked at; to be called now and then."""
        cdef Endpoint endpoint
        cdef uint32_t events
        if self.nested:
            return 0
        for endpoint in list(self.endpoints.values()):
            if endpoint.fd >= 0 and endpoint.peer != PEER_GONE and not endpoint.reads() and endpoint.is_stream():
                events = kache_hung_up(endpoint.fd)
                if events:
                    self.dispatch(endpoint, events)
        return 0

    cdef int before_flush(self) except -1:
        return 0

    cdef int finish(self, bint everything) except -1:
        """End of a batch: every marked endpoint is written once; what that wakes up is written too.

        Unless `everything` must go, an endpoint that expects more output at once may be held back
        (`hold_output`) for the next batch, so that a pipeline's replies from several shards leave in one write.
        """
        cdef Py_ssize_t i = 0, late
        cdef Endpoint endpoint
        cdef int64_t now = 0
        self.iterations += 1
        self.before_flush()
        if self.held:
            self.dirty = self.held + self.dirty
            self.held = []
        if self.late:
            late = len(self.late) if everything else min(len(self.late), <Py_ssize_t> LATE_AT_ONCE)
            self.dirty += self.late[:late]
            del self.late[:late]
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
        if self.handshakes is not None:
            self.handshakes.run()
            if self.dirty or self.handshakes.resumed:
                self._schedule_flush()
                self.must_yield = True
        self.graveyard.clear()
        return 0

    cdef int mark(self, Endpoint endpoint) except -1:
        self.dirty.append(endpoint)
        if not self.running:
            self._schedule_flush()
        return 0

    cdef int mark_late(self, Endpoint endpoint) except -1:
        """One of many that are written to: some in each batch, so that nobody waits for all of them."""
        self.late.append(endpoint)
        if not self.running:
            self._schedule_flush()
        return 0


include "endpoint.pxi"
include "sealed.pxi"
