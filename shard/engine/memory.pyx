"""What every structure of the engine stands on: blocks of memory, the keyed hash, chance.

Owns what a process has once: malloc's tuning, the seed of all hash tables, the state that samples are drawn from, and
the number of allocations that a test still grants. Promises: nothing here holds data. The structures use memory.pxd;
the process around them calls `tune_malloc`, `trim_memory` and `seed_random`, and only tests call `fail_allocation_after`.

Tables of different seeds cannot live side by side: a process has one store, or several of the same seed.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from .blocks cimport free_elsewhere

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static int kache_trim_memory(void) { return malloc_trim(0); }
    static void kache_tune_malloc(void) {
        mallopt(M_ARENA_MAX, 1);            /* the cleanup thread frees, it does not fill an arena of its own */
        mallopt(M_MMAP_THRESHOLD, 262144);  /* large buffers leave no holes */
        mallopt(M_TRIM_THRESHOLD, 1048576); /* what is malloc's is little: objects, buffers of links */
        mallopt(M_TOP_PAD, 262144);
    }
    #else
    static int kache_trim_memory(void) { return 0; }
    static void kache_tune_malloc(void) {}
    #endif
    """
    int kache_trim_memory() noexcept nogil
    void kache_tune_malloc() noexcept nogil

cdef uint64_t[2] HASH_SEED
cdef uint64_t RANDOM_STATE = <uint64_t> 0x9E3779B97F4A7C15ULL
cdef int64_t ALLOCATIONS_LEFT = -1
cdef int64_t REFUSALS_LEFT = 0
cdef bint HAS_REFUSED = False


cdef int set_hash_seed(bytes seed) except -1:
    if PyBytes_GET_SIZE(seed) != 16:
        raise ValueError("a hash seed has 16 bytes")
    memcpy(HASH_SEED, PyBytes_AS_STRING(seed), 16)
    return 0


def seed_random(uint64_t seed):
    """Seeds what is drawn by chance (eviction samples, RANDOMKEY); after a fork, or in a test."""
    global RANDOM_STATE
    RANDOM_STATE = seed


def tune_malloc():
    """Sets malloc up for a shard; once, before it holds data."""
    kache_tune_malloc()


def trim_memory():
    """Gives free pages of what is malloc's back to the system, without the GIL; blocks see to that themselves."""
    with nogil:
        kache_trim_memory()


def only_free():
    """Of a thread beside the one that owns the data, at its start: it may free blocks, and does not make any."""
    free_elsewhere()


def fail_allocation_after(int64_t granted, int64_t refused=1):
    """For tests: `granted` allocations of the engine's data succeed, the `refused` ones after them do not; -1: all succeed.

    Returns whether any was refused since the last call.
    """
    global ALLOCATIONS_LEFT, REFUSALS_LEFT, HAS_REFUSED
    cdef bint has_refused = HAS_REFUSED
    ALLOCATIONS_LEFT = granted
    REFUSALS_LEFT = refused
    HAS_REFUSED = False
    return has_refused


cdef bint refuse_allocation() noexcept nogil:
    """Whether the allocation that is being asked for is one of those a test wants refused."""
    global ALLOCATIONS_LEFT, REFUSALS_LEFT, HAS_REFUSED
    if ALLOCATIONS_LEFT > 0:
        ALLOCATIONS_LEFT -= 1
        return False
    HAS_REFUSED = True
    REFUSALS_LEFT -= 1
    if REFUSALS_LEFT <= 0:
        ALLOCATIONS_LEFT = -1
    return True
