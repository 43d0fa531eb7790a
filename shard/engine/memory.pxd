"""What every structure of the engine stands on: blocks of memory, the keyed hash, chance. memory.pyx describes it.

Cimported by all structures and by the engine. The variables exist once per process, in the module `memory`; everybody
else reaches them through a pointer that is set at import, so no module has a seed or a state of its own.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from .blocks cimport block_free, block_grown, block_new, block_room

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    static inline int kache_is_armed(const int64_t *left) { return __builtin_expect(*left >= 0, 0); }

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
    static inline uint64_t kache_splitmix64(uint64_t *state) {
        uint64_t z = (*state += 0x9E3779B97F4A7C15ULL);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    }
    """
    bint kache_is_armed(const int64_t* left) noexcept nogil
    uint64_t kache_siphash13(const uint64_t* seed, const char* data, size_t n) noexcept nogil
    uint64_t kache_splitmix64(uint64_t* state) noexcept nogil


# The hash ---------------------------------------------------------------------------------------------
cdef uint64_t[2] HASH_SEED

cdef int set_hash_seed(bytes seed) except -1


cdef inline uint64_t table_hash(const char* key, size_t n) noexcept nogil:
    """The hash of a key, a field or a member."""
    return kache_siphash13(HASH_SEED, key, n)


# Chance -----------------------------------------------------------------------------------------------
cdef uint64_t RANDOM_STATE


cdef inline uint64_t kache_random() noexcept nogil:
    return kache_splitmix64(&RANDOM_STATE)


cdef inline uint64_t below(uint64_t n) noexcept nogil:
    """A random number from 0 to n - 1; the bias of a modulus far below 2^64 does not matter."""
    return kache_random() % n


# Blocks -----------------------------------------------------------------------------------------------
# Every block of the engine's data comes from one of these three, so that a test can refuse any of them. They are given
# back with this `free`, which takes what is malloc's, too: libc's does not take blocks (blocks.pyx).
cdef int64_t ALLOCATIONS_LEFT       # how many are granted before some are refused; below 0: all are granted

cdef bint refuse_allocation() noexcept nogil

cdef enum:
    UNTOUCHED = 131072              # bytes from which zeros are the system's, which takes no memory until they are written


cdef inline void* kache_malloc(size_t size) noexcept nogil:
    return NULL if kache_is_armed(&ALLOCATIONS_LEFT) and refuse_allocation() else block_new(size)


cdef inline void* kache_calloc(size_t count, size_t size) noexcept nogil:
    cdef void* block
    if kache_is_armed(&ALLOCATIONS_LEFT) and refuse_allocation():
        return NULL
    if count * size >= UNTOUCHED:
        return calloc(count, size)
    block = block_new(count * size)
    if block != NULL:
        memset(block, 0, count * size)
    return block


cdef inline void* kache_realloc(void* block, size_t size) noexcept nogil:
    return NULL if kache_is_armed(&ALLOCATIONS_LEFT) and refuse_allocation() else block_grown(block, size)


cdef inline void free(void* block) noexcept nogil:
    block_free(block)


cdef inline size_t kache_block_size(void* block) noexcept nogil:
    """Bytes that a block takes; 0 for NULL."""
    return 0 if block == NULL else block_room(block)
