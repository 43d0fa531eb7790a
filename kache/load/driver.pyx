"""The load generator's engine: one thread, many connections, no Python object per request.

Owns the connected descriptors it is given, the requests it draws, and what it counts. It knows neither addresses nor
processes nor percentiles: `kache.load.worker` connects and drives it, `kache.load.spec` writes the requests' templates.

A request is a template with places where digits are put (key, value, member, score). Closed loop: each connection sends
`depth` requests, waits for all their replies, and sends the next. Open loop (a rate): requests are due at fixed times,
whatever the server does, and their latency counts from then, so that a stalled server cannot hide its stall.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

include "poll.pxi"
include "draw.pxi"
include "reply.pxi"

cdef extern from "sys/socket.h" nogil:
    Py_ssize_t recv(int fd, void* data, size_t size, int flags)

cdef extern from "unistd.h" nogil:
    int close(int fd)

# Where a patch takes its digits from.
cdef enum:
    FROM_KEY = 0        # the key's number
    FROM_GROUP = 1      # the number of the collection that the key belongs to
    FROM_MEMBER = 2     # the key's place in its collection
    FROM_RANDOM = 3     # a random number

cdef enum:
    READ_SIZE = 65536
    ERRORS_KEPT = 8         # different error texts
    ERROR_LENGTH = 160
    ERRORS_DIFFER = 24          # within so many bytes
    EVENTS = 256

cdef struct Patch:
    uint32_t offset
    int source, width, key

cdef struct Operation:
    char* template
    size_t size
    Patch* patches
    int npatches, nkeys, expects
    double until            # cumulative share, the last one 1
    uint64_t* buckets
    uint64_t requests, errors, unexpected, hits, misses, mismatches
    int64_t slowest

cdef struct Sent:
    int64_t at
    int operation

cdef struct Connection:
    int fd                  # -1: none
    bint writing, dirty
    char* out
    size_t out_start, out_end, out_size
    char* data
    Py_ssize_t start, end, size
    Sent* ring              # of the requests that wait for a reply, oldest at head
    uint32_t* keys          # of the same requests, max_keys for each
    int head, count


cdef class Generator:
    """Connections, the requests to send on them, and the counters. `step` does the work, without the GIL."""
    cdef Poller poller
    cdef Connection* connections
    cdef Operation* operations
    cdef Zipf zipf
    cdef int nconnections, noperations, depth, max_keys, turn
    cdef bint binary, skewed, sequential, broken, stopping
    cdef uint64_t state, keys, members, next_key
    cdef Py_ssize_t value_size
    cdef double interval                # ns between two requests of an open loop, 0 in a closed loop
    cdef int64_t schedule_start
    cdef uint64_t scheduled             # requests of the schedule that were issued
    cdef int* dirty
    cdef int ndirty
    cdef char errors_kept[ERRORS_KEPT][ERROR_LENGTH]
    cdef readonly int open              # connections that stand
    cdef readonly uint64_t issued, completed, lost, disconnects, bytes_in, bytes_out
    cdef readonly int64_t latest        # ns by which a request left later than it was due, although a connection was free
    cdef readonly uint64_t limit        # requests to issue in all, 0 for no limit

    def __cinit__(self, int connections, int depth, list operations, *, bint binary, uint64_t keys, double exponent=0,
                  Py_ssize_t value_size=32, uint64_t members=100, uint64_t seed=1, double rate=0,
                  bint sequential=False, bint portable=False):
        """`operations`: (template, [(offset, source, width, key)], keys drawn, what is expected, cumulative share)."""
        cdef int i
        if connections < 1 or depth < 1 or not operations or not 1 <= keys <= 0xFFFFFFFF or members < 1:
            raise ValueError("at least one connection, request in flight, operation, key and member")
        self.nconnections = connections
        self.depth = depth
        self.binary = binary
        self.keys = keys
        self.members = members
        self.value_size = value_size
        self.state = seed * 0x2545F4914F6CDD1DULL + 1
        self.sequential = sequential
        self.skewed = exponent > 0
        self.interval = 1e9 / rate if rate > 0 else 0
        if self.skewed:
            zipf_prepare(&self.zipf, keys, exponent)
        self.noperations = len(operations)
        self.operations = <Operation*> calloc(self.noperations, sizeof(Operation))
        self.connections = <Connection*> calloc(connections, sizeof(Connection))
        self.dirty = <int*> malloc(connections * sizeof(int))
        if self.operations == NULL or self.connections == NULL or self.dirty == NULL:
            raise MemoryError
        for i in range(connections):
            self.connections[i].fd = -1
        for i in range(self.noperations):
            self.take_operation(&self.operations[i], operations[i])
        for i in range(connections):
            self.connections[i].ring = <Sent*> malloc(depth * sizeof(Sent))
            self.connections[i].keys = <uint32_t*> malloc(<size_t> depth * self.max_keys * sizeof(uint32_t))
            if self.connections[i].ring == NULL or self.connections[i].keys == NULL:
                raise MemoryError
        if poller_open(&self.poller, connections, portable) < 0:
            raise OSError("cannot wait for connections: no epoll descriptor")

    cdef int take_operation(self, Operation* op, tuple described) except -1:
        cdef bytes template
        cdef list patches
        cdef int i
        template, patches, op.nkeys, op.expects, op.until = described
        op.size = len(template)
        op.template = <char*> malloc(op.size + 1)
        op.patches = <Patch*> malloc((len(patches) + 1) * sizeof(Patch))
        op.buckets = <uint64_t*> calloc(HISTOGRAM_BUCKETS, sizeof(uint64_t))
        if op.template == NULL or op.patches == NULL or op.buckets == NULL:
            raise MemoryError
        memcpy(op.template, <const char*> template, op.size)
        op.npatches = len(patches)
        for i in range(op.npatches):
            op.patches[i].offset, op.patches[i].source, op.patches[i].width, op.patches[i].key = patches[i]
            if op.patches[i].offset + op.patches[i].width > op.size or not 0 <= op.patches[i].key < op.nkeys:
                raise ValueError("a patch lies outside its template")
        self.max_keys = max(self.max_keys, op.nkeys)
        return 0

    def __dealloc__(self):
        cdef int i
        if self.connections != NULL:
            for i in range(self.nconnections):
                if self.connections[i].fd >= 0:
                    close(self.connections[i].fd)
                free(self.connections[i].out)
                free(self.connections[i].data)
                free(self.connections[i].ring)
                free(self.connections[i].keys)
            free(self.connections)
        if self.operations != NULL:
            for i in range(self.noperations):
                free(self.operations[i].template)
                free(self.operations[i].patches)
                free(self.operations[i].buckets)
            free(self.operations)
        free(self.dirty)
        poller_close(&self.poller)

    # From Python -------------------------------------------------------------------------------------------------

    def attach(self, int fd):
        """Takes over a connected, non-blocking descriptor; it is closed here. Sends nothing before the next `step`."""
        cdef int i
        for i in range(self.nconnections):
            if self.connections[i].fd < 0:
                self.connections[i].fd = fd
                self.connections[i].writing = False
                if poller_watch(&self.poller, i, fd, 0) < 0:
                    self.connections[i].fd = -1
                    raise OSError("the descriptor cannot be watched")
                self.open += 1
                return
        raise ValueError("all connections stand")

    def begin(self, int64_t now_ns, uint64_t limit=0):
        """Starts to issue requests: at most `limit` more; a schedule counts from `now_ns` (CLOCK_MONOTONIC)."""
        self.limit = self.issued + limit if limit else 0
        self.schedule_start = now_ns
        self.scheduled = 0
        self.stopping = False

    def stop(self):
        """Issues nothing more; what is in flight is still read by `step`."""
        self.stopping = True

    def reset_counters(self):
        """Forgets what was counted so far, such as a warm-up."""
        cdef int i
        cdef Operation* op
        for i in range(self.noperations):
            op = &self.operations[i]
            memset(op.buckets, 0, HISTOGRAM_BUCKETS * sizeof(uint64_t))
            op.requests = op.errors = op.unexpected = op.hits = op.misses = op.mismatches = 0
            op.slowest = 0
        self.completed = self.lost = self.disconnects = self.bytes_in = self.bytes_out = 0
        self.latest = 0
        memset(self.errors_kept, 0, ERRORS_KEPT * ERROR_LENGTH)

    @property
    def in_flight(self):
        """Requests sent and not answered."""
        cdef int i
        return sum([self.connections[i].count for i in range(self.nconnections)])

    @property
    def finished(self):
        """Nothing more to issue and nothing in flight."""
        return self.exhausted() and self.in_flight == 0

    def counters(self, int operation):
        """(requests, errors, unexpected, hits, misses, mismatches, slowest in ns) of an operation."""
        if not 0 <= operation < self.noperations:
            raise IndexError(operation)
        cdef Operation* op = &self.operations[operation]
        return op.requests, op.errors, op.unexpected, op.hits, op.misses, op.mismatches, op.slowest

    def histogram(self, int operation):
        """[(ns, count)] of an operation's latencies, the lowest value of each bucket that is not empty."""
        if not 0 <= operation < self.noperations:
            raise IndexError(operation)
        cdef uint64_t* buckets = self.operations[operation].buckets
        cdef Py_ssize_t i
        return [(value_of(i), buckets[i]) for i in range(HISTOGRAM_BUCKETS) if buckets[i]]

    def error_texts(self):
        """Up to eight different error texts that were received."""
        return [bytes(self.errors_kept[i]) for i in range(ERRORS_KEPT) if self.errors_kept[i][0]]

    def step(self, int64_t until_ns):
        """Sends and receives until then, or until everything is finished, or until a connection was lost."""
        cdef uint64_t disconnects = self.disconnects
        with nogil:
            self.run(until_ns, disconnects)
        if self.broken:
            raise MemoryError

    # The loop ----------------------------------------------------------------------------------------------------

    cdef inline bint exhausted(self) noexcept nogil:
        return self.stopping or (self.limit and self.issued >= self.limit)

    cdef bint idle(self) noexcept nogil:
        cdef int i
        if not self.exhausted():
            return False
        for i in range(self.nconnections):
            if self.connections[i].count:
                return False
        return True

    cdef void run(self, int64_t until, uint64_t disconnects) noexcept nogil:
        cdef int indexes[EVENTS]
        cdef int flags[EVENTS]
        cdef int64_t now, wait, due
        cdef int i, found
        cdef Connection* c
        if self.interval == 0:
            for i in range(self.nconnections):
                if self.connections[i].fd >= 0 and self.connections[i].count == 0:
                    self.fill(&self.connections[i], i)
        while True:
            now = clock_ns()
            if now >= until or self.broken or self.disconnects != disconnects:
                return
            wait = until - now
            if self.interval:
                due = self.pump(now)
                if due - now < wait:
                    wait = due - now
            if self.exhausted() and self.idle():
                return
            found = poller_wait(&self.poller, wait, indexes, flags, EVENTS)
            for i in range(found):
                c = &self.connections[indexes[i]]
                if c.fd >= 0 and flags[i] & WRITABLE:
                    self.flush(c, indexes[i])
                if c.fd >= 0 and flags[i] & READABLE:
                    self.receive(c, indexes[i])

    cdef int64_t pump(self, int64_t now) noexcept nogil:
        """Issues what the schedule wants by now; returns when to come back at the latest."""
        cdef int64_t due = 0
        cdef int tried = 0, i
        cdef Connection* c
        self.ndirty = 0
        while not self.exhausted():
            due = self.schedule_start + <int64_t> (self.scheduled * self.interval)
            if due > now:
                break
            c = &self.connections[self.turn]
            if c.fd >= 0 and c.count < self.depth:
                tried = 0
                if self.issue(c, due) < 0:
                    break
                self.scheduled += 1
                if not c.dirty:
                    c.dirty = True
                    self.dirty[self.ndirty] = self.turn
                    self.ndirty += 1
                if now - due > self.latest:
                    self.latest = now - due
            else:
                tried += 1
            self.turn += 1
            if self.turn == self.nconnections:
                self.turn = 0
            if tried == self.nconnections:
                # All connections are at their depth: the next reply, not the clock, lets it go on.
                due = now + 1000000000
                break
        for i in range(self.ndirty):
            self.connections[self.dirty[i]].dirty = False
            self.flush(&self.connections[self.dirty[i]], self.dirty[i])
        return due if not self.exhausted() else now + 1000000000

    cdef void fill(self, Connection* c, int index) noexcept nogil:
        """The next batch of a closed loop."""
        cdef int64_t now = clock_ns()
        while c.count < self.depth and not self.exhausted():
            if self.issue(c, now) < 0:
                return
        self.flush(c, index)

    # Requests ----------------------------------------------------------------------------------------------------

    cdef inline uint64_t draw_key(self) noexcept nogil:
        cdef uint64_t key
        if self.sequential:
            key = self.next_key
            self.next_key = key + 1 if key + 1 < self.keys else 0
            return key
        if self.skewed:
            return zipf_draw(&self.zipf, &self.state)
        return scaled(draw(&self.state), self.keys)

    cdef int issue(self, Connection* c, int64_t at) noexcept nogil:
        """Appends one request to the connection's output."""
        cdef int chosen = 0, slot = c.head + c.count, i
        cdef double share
        cdef Operation* op
        cdef uint32_t* keys
        cdef char* out
        cdef Patch* patch
        cdef uint64_t value
        if self.noperations > 1:
            share = <double> (draw(&self.state) >> 11) * (1.0 / 9007199254740992.0)
            while chosen < self.noperations - 1 and share >= self.operations[chosen].until:
                chosen += 1
        op = &self.operations[chosen]
        if slot >= self.depth:
            slot -= self.depth
        keys = c.keys + <size_t> slot * self.max_keys
        for i in range(op.nkeys):
            keys[i] = <uint32_t> self.draw_key()
        out = self.room(c, op.size)
        if out == NULL:
            return -1
        memcpy(out, op.template, op.size)
        for i in range(op.npatches):
            patch = &op.patches[i]
            if patch.source == FROM_KEY:
                value = keys[patch.key]
            elif patch.source == FROM_GROUP:
                value = keys[patch.key] / self.members
            elif patch.source == FROM_MEMBER:
                value = keys[patch.key] % self.members
            else:
                value = draw(&self.state)
            put_digits(out + patch.offset, value, patch.width)
        c.out_end += op.size
        c.ring[slot].at = at
        c.ring[slot].operation = chosen
        c.count += 1
        self.issued += 1
        return 0

    cdef char* room(self, Connection* c, size_t extra) noexcept nogil:
        cdef size_t wanted = c.out_end + extra
        cdef char* grown
        if wanted > c.out_size:
            wanted = wanted * 2 if wanted > 16384 else 16384
            grown = <char*> realloc(c.out, wanted)
            if grown == NULL:
                self.broken = True
                return NULL
            c.out = grown
            c.out_size = wanted
        return c.out + c.out_end

    cdef void flush(self, Connection* c, int index) noexcept nogil:
        cdef Py_ssize_t sent
        while c.out_start < c.out_end:
            sent = socket_send(c.fd, c.out + c.out_start, c.out_end - c.out_start)
            if sent < 0:
                if not try_again():
                    self.drop(c, index)
                    return
                break
            c.out_start += sent
            self.bytes_out += sent
        if c.out_start == c.out_end:
            c.out_start = c.out_end = 0
        elif c.out_start > 1048576:
            memmove(c.out, c.out + c.out_start, c.out_end - c.out_start)
            c.out_end -= c.out_start
            c.out_start = 0
        if c.writing != (c.out_end > 0):
            c.writing = c.out_end > 0
            poller_watch(&self.poller, index, c.fd, c.writing)

    # Replies -----------------------------------------------------------------------------------------------------

    cdef void receive(self, Connection* c, int index) noexcept nogil:
        cdef Py_ssize_t got, length
        cdef char* grown
        cdef int64_t now
        if c.size - c.end < READ_SIZE:
            if c.start:
                memmove(c.data, c.data + c.start, c.end - c.start)
                c.end -= c.start
                c.start = 0
            if c.size - c.end < READ_SIZE:
                grown = <char*> realloc(c.data, 2 * c.size + 2 * READ_SIZE)
                if grown == NULL:
                    self.broken = True
                    return
                c.data = grown
                c.size = 2 * c.size + 2 * READ_SIZE
        got = recv(c.fd, c.data + c.end, c.size - c.end, 0)
        if got <= 0:
            if got == 0 or not try_again():
                self.drop(c, index)
            return
        now = clock_ns()
        c.end += got
        self.bytes_in += got
        while c.start < c.end:
            if self.binary:
                length = binary_end(c.data + c.start, c.end - c.start)
            else:
                length = resp_end(c.data + c.start, c.end - c.start, 0)
            if length == 0:
                break
            if length < 0 or c.count == 0:
                # Not the protocol, or a reply to nothing: what follows cannot be told apart any more.
                self.keep_error(b"(unreadable reply)", 18)
                self.drop(c, index)
                return
            self.settle(c, c.data + c.start, length, now)
            c.start += length
        if c.start == c.end:
            c.start = c.end = 0
        if c.count == 0 and self.interval == 0:
            self.fill(c, index)

    cdef void settle(self, Connection* c, const char* reply, Py_ssize_t length, int64_t now) noexcept nogil:
        """Counts the reply of the oldest request in flight."""
        cdef Sent* sent = &c.ring[c.head]
        cdef Operation* op = &self.operations[sent.operation]
        cdef uint32_t* keys = c.keys + <size_t> c.head * self.max_keys
        cdef int64_t latency = now - sent.at
        cdef Verdict verdict
        memset(&verdict, 0, sizeof(Verdict))
        if self.binary:
            judge_binary(&verdict, reply, length, op.expects, keys, op.nkeys, self.value_size)
        else:
            judge_resp(&verdict, reply, length, op.expects, keys, op.nkeys, self.value_size)
        op.requests += 1
        op.hits += verdict.hits
        op.misses += verdict.misses
        op.mismatches += verdict.mismatches
        if verdict.kind == IS_ERROR:
            op.errors += 1
            self.keep_error(verdict.error, verdict.error_size)
        elif verdict.kind == IS_UNEXPECTED:
            op.unexpected += 1
        op.buckets[bucket_of(latency)] += 1
        if latency > op.slowest:
            op.slowest = latency
        self.completed += 1
        c.count -= 1
        c.head += 1
        if c.head == self.depth:
            c.head = 0

    cdef void keep_error(self, const char* text, Py_ssize_t size) noexcept nogil:
        cdef int i
        if size >= ERROR_LENGTH:
            size = ERROR_LENGTH - 1
        if text == NULL or size <= 0:
            return
        for i in range(ERRORS_KEPT):
            if self.errors_kept[i][0] == 0:
                memcpy(self.errors_kept[i], text, size)
                self.errors_kept[i][size] = 0
                return
            # Texts that begin alike differ in the arguments they quote.
            if memcmp(self.errors_kept[i], text, size if size < ERRORS_DIFFER else ERRORS_DIFFER) == 0:
                return

    cdef void drop(self, Connection* c, int index) noexcept nogil:
        """The connection is gone, and with it what was in flight on it."""
        close(c.fd)
        poller_forget(&self.poller, index)
        c.fd = -1
        self.lost += c.count
        self.disconnects += 1
        self.open -= 1
        c.head = c.count = 0
        c.start = c.end = 0
        c.out_start = c.out_end = 0


def zipf_sample(uint64_t n, double exponent, uint64_t seed, int count):
    """`count` ranks from 0 below n, with frequencies proportional to (rank + 1) ** -exponent; for the tests."""
    cdef Zipf z
    cdef uint64_t state = seed
    zipf_prepare(&z, n, exponent)
    return [zipf_draw(&z, &state) for _ in range(count)]


def bucket_bounds(int64_t value):
    """The lowest value of the bucket that a latency of `value` ns is counted in; for the tests."""
    return value_of(bucket_of(value))
