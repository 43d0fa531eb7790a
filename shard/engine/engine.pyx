# cython: freethreading_compatible=False
"""The compiled core of a shard: its keyspace, its one execution point, its end of the links.

One extension module of several parts, each in a file of its own, from the bottom up:

    entry.pxi      one key with its value, in one block of memory
    heap.pxi       deadlines
    table.pxi      the hash table of every slot, hash and set
    chunks.pxi     the elements of a list
    list.pxi       ListValue: the value of a list
    fields.pxi     FieldTable: the value of a hash or a set
    ranks.pxi      the order of a sorted set
    zset.pxi       ZSet: the value of a sorted set
    store.pxi      Store: the databases, their memory, expiry
    values.pxi     Values: keys and strings, as the handlers see them
    collections.pxi    Collections: lists, hashes, sets and sorted sets
    detached.pxi   flushed databases on their way out
    evict.pxi      Evictor: the policies of a full memory
    meter.pxi      counters and latency histogram
    fast.pxi       the hottest commands on keys and strings, without a Python object
    fast_collections.pxi   and those on collections
    execute.pxi    Shard: the one execution point
    ahead.pxi      what the next commands will touch, fetched into the cache
    link.pxi       Link: runs from a router in, replies out

Only one store's hash seed exists per process: tables of different seeds cannot live side by side.
"""
import logging
import time
from heapq import heapify, heappop, heappush

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from kache.wire.clock cimport monotonic_ns
from kache.wire.reactor cimport Endpoint, Listener, Reactor
from kache.wire.codec cimport (
    BINARY,
    INTERNAL,
    NO_SLOT,
    RESP2,
    RESP3,
    SLOT_COUNT,
    Buffer,
    Span,
    begin_array,
    end_reply,
    format_int64,
    parse_int64,
    put_bulk,
    put_error,
    put_int,
    put_nested_bulk,
    put_nested_null,
    put_null,
    put_ok,
    put_reply,
    slot_of,
)

from kache.wire.link cimport (
    FLAG_ATOMIC, FLAG_NO_TOUCH, FRAME_HEADER, LINK_CANCEL, LINK_DEFERRED, LINK_HELLO, LINK_HELLO_NO, LINK_HELLO_OK, LINK_NOTICE,
    LINK_PUSH, LINK_REPLY, LINK_RUN, LINK_VERSION, REPLY_DEFERRED, REPLY_EXPIRED, REPLY_HEADER, RUN_HEADER,
)

from kache.errors import NOT_INTEGER, OUT_OF_MEMORY, WRONG_TYPE, CommandError
from kache.replies import Missing

log = logging.getLogger("kache.shard")

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #ifdef __APPLE__
    #include <malloc/malloc.h>
    #define malloc_usable_size(p) malloc_size(p)
    static int kache_trim_memory(void) { return 0; }
    static void kache_tune_malloc(void) {}
    #else
    #include <malloc.h>
    #ifdef __GLIBC__
    static int kache_trim_memory(void) { return malloc_trim(0); }
    static void kache_tune_malloc(void) {
        mallopt(M_ARENA_MAX, 1);            /* the cleanup thread frees, it does not fill an arena of its own */
        mallopt(M_MXFAST, 0);               /* or one free() may have to join a million small blocks at once */
        mallopt(M_MMAP_THRESHOLD, 262144);  /* large values leave no holes */
        mallopt(M_TRIM_THRESHOLD, 8388608);
        mallopt(M_TOP_PAD, 1048576);
    }
    #else
    static int kache_trim_memory(void) { return 0; }
    static void kache_tune_malloc(void) {}
    #endif
    #endif

    #define KACHE_BLOCK_OVERHEAD 8
    static inline size_t kache_block_size(void *p) { return p ? malloc_usable_size(p) + KACHE_BLOCK_OVERHEAD : 0; }

    /* SipHash-1-3 (Aumasson and Bernstein), as Rust's and Python's dictionaries use it. */
    #define KACHE_ROTL(x, b) (uint64_t)(((x) << (b)) | ((x) >> (64 - (b))))
    #define KACHE_ROUND \\
        v0 += v1; v1 = KACHE_ROTL(v1, 13); v1 ^= v0; v0 = KACHE_ROTL(v0, 32); \\
        v2 += v3; v3 = KACHE_ROTL(v3, 16); v3 ^= v2; \\
        v0 += v3; v3 = KACHE_ROTL(v3, 21); v3 ^= v0; \\
        v2 += v1; v1 = KACHE_ROTL(v1, 17); v1 ^= v2; v2 = KACHE_ROTL(v2, 32);
    static inline uint64_t kache_siphash13(const uint64_t *seed, const char *data, size_t n) {
        uint64_t v0 = seed[0] ^ 0x736f6d6570736575ULL, v1 = seed[1] ^ 0x646f72616e646f6dULL;
        uint64_t v2 = seed[0] ^ 0x6c7967656e657261ULL, v3 = seed[1] ^ 0x7465646279746573ULL;
        uint64_t last = (uint64_t) n << 56, m;
        const char *end = data + (n & ~(size_t) 7);
        for (; data != end; data += 8) {
            memcpy(&m, data, 8);
            v3 ^= m; KACHE_ROUND v0 ^= m;
        }
        switch (n & 7) {
            case 7: last |= (uint64_t) (unsigned char) data[6] << 48; /* fall through */
            case 6: last |= (uint64_t) (unsigned char) data[5] << 40; /* fall through */
            case 5: last |= (uint64_t) (unsigned char) data[4] << 32; /* fall through */
            case 4: last |= (uint64_t) (unsigned char) data[3] << 24; /* fall through */
            case 3: last |= (uint64_t) (unsigned char) data[2] << 16; /* fall through */
            case 2: last |= (uint64_t) (unsigned char) data[1] << 8;  /* fall through */
            case 1: last |= (uint64_t) (unsigned char) data[0];
        }
        v3 ^= last; KACHE_ROUND v0 ^= last;
        v2 ^= 0xff; KACHE_ROUND KACHE_ROUND KACHE_ROUND
        return v0 ^ v1 ^ v2 ^ v3;
    }

    /* splitmix64: good enough to draw samples, and a few instructions. */
    static uint64_t kache_random_state = 0x9E3779B97F4A7C15ULL;
    static inline uint64_t kache_random(void) {
        uint64_t z = (kache_random_state += 0x9E3779B97F4A7C15ULL);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    }
    static void kache_seed_random(uint64_t seed) { kache_random_state = seed; }
    """
    size_t malloc_usable_size(void* block) noexcept nogil
    size_t kache_block_size(void* block) noexcept nogil
    uint64_t kache_siphash13(const uint64_t* seed, const char* data, size_t n) noexcept nogil
    uint64_t kache_random() noexcept nogil
    void kache_seed_random(uint64_t seed) noexcept nogil
    int kache_trim_memory() noexcept nogil
    void kache_tune_malloc() noexcept nogil

cdef uint64_t[2] HASH_SEED

# Key and value of one entry together: their sizes are stored in 32 bits.
cdef size_t MAX_BLOCK = 2147483647


cdef uint64_t below(uint64_t n) noexcept nogil:
    """A random number from 0 to n - 1; the bias of a modulus far below 2^64 does not matter."""
    return kache_random() % n


cdef int set_hash_seed(bytes seed) except -1:
    if len(seed) != 16:
        raise ValueError("a hash seed has 16 bytes")
    memcpy(HASH_SEED, PyBytes_AS_STRING(seed), 16)
    return 0


def seed_random(uint64_t seed):
    """Seeds what is drawn by chance here (eviction samples, RANDOMKEY); after a fork, or in a test."""
    kache_seed_random(seed)


def tune_malloc():
    """Sets malloc up for a shard; once, before it holds data."""
    kache_tune_malloc()


def trim_memory():
    """Gives free pages back to the system, without the GIL."""
    with nogil:
        kache_trim_memory()


include "entry.pxi"
include "heap.pxi"
include "table.pxi"

cdef int64_t FIELD_TABLE_SIZE = 0
cdef int64_t ZSET_SIZE = 0
cdef int64_t LIST_SIZE = 0

include "chunks.pxi"
include "list.pxi"
include "fields.pxi"
include "ranks.pxi"
include "zset.pxi"
include "store.pxi"
include "values.pxi"
include "collections.pxi"
include "detached.pxi"
include "evict.pxi"
include "meter.pxi"
include "fast.pxi"
include "fast_collections.pxi"
include "execute.pxi"
include "ahead.pxi"
include "link.pxi"

FIELD_TABLE_SIZE = FieldTable.__basicsize__ + 16
ZSET_SIZE = ZSet.__basicsize__ + 16
LIST_SIZE = ListValue.__basicsize__ + 16
