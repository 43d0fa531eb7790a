"""Board: where shards show routers what they have begun, and that they live. A mapped file (kache/cluster/board.py).

    shard    a thread writes the time into its place every 50 ms, whatever the event loop is at: it needs no GIL
             begun += 1 before every frame
    router   when a request's deadline passes: was it begun, and does the shard live? then it is waited for

A stopped process does not beat. A board without places (a router or shard that is alone, in a test) says that nothing
is begun.
"""
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

from .clock cimport monotonic_ns

cdef extern from *:
    """
    #include <time.h>
    #define KACHE_PUBLISH(place, number) __atomic_store_n(place, number, __ATOMIC_RELAXED)
    #define KACHE_LOOK(place) __atomic_load_n(place, __ATOMIC_RELAXED)
    static void kache_rest(int64_t ns) {
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        nanosleep(&t, NULL);
    }
    """
    void kache_publish "KACHE_PUBLISH"(uint64_t* place, uint64_t number) noexcept nogil
    uint64_t kache_look "KACHE_LOOK"(uint64_t* place) noexcept nogil
    void kache_rest(int64_t ns) noexcept nogil

# Between two beats: 20 wake-ups a second cost a ten-thousandth of a core.
cdef int64_t BEAT_NS = 50_000_000
# How old a beat may be: a machine that is short of processors delays the thread by a few time slices, not by this.
cdef int64_t LIFE_NS = 1_000_000_000


cdef class Board:
    """The numbers in `memory` (writable, 8 bytes each), for `routers` routers; None: a board without places."""

    def __init__(self, memory=None, Py_ssize_t routers=1):
        self.shards = 0
        self.routers = routers
        if memory is not None:
            PyObject_GetBuffer(memory, &self.shared, PyBUF_WRITABLE)
            self.numbers = <uint64_t*> self.shared.buf
            self.shards = self.shared.len // (<Py_ssize_t> sizeof(uint64_t) * (1 + routers))

    def __dealloc__(self):
        if self.shared.buf != NULL:
            PyBuffer_Release(&self.shared)

    cdef uint64_t* begun(self, Py_ssize_t shard, Py_ssize_t router) noexcept:
        if not (0 <= shard < self.shards and 0 <= router < self.routers):
            return NULL
        return self.numbers + shard * (1 + self.routers) + 1 + router

    cdef bint alive(self, Py_ssize_t shard) noexcept:
        if shard >= self.shards:
            return False
        return monotonic_ns() - <int64_t> kache_look(self.numbers + shard * (1 + self.routers)) < LIFE_NS

    def commands_begun(self, Py_ssize_t shard, Py_ssize_t router):
        """How many commands of the router's present link the shard has begun: for tests and tools."""
        cdef uint64_t* place = self.begun(shard, router)
        return 0 if place == NULL else kache_look(place)

    def is_alive(self, Py_ssize_t shard):
        """Whether the shard's process was running within the last second."""
        return self.alive(shard)

    # Of a shard, on a thread of its own -----------------------------------------------------------
    def beat(self, Py_ssize_t shard):
        """Shows until `stop` that the shard lives."""
        cdef uint64_t* place = self.numbers + shard * (1 + self.routers)
        if shard >= self.shards:
            return
        with nogil:
            while not self.stopping:
                kache_publish(place, <uint64_t> monotonic_ns())
                kache_rest(BEAT_NS)

    def stop(self):
        """`beat` returns, within the time between two beats."""
        self.stopping = True
