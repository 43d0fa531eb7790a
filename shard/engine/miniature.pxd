"""Declarations of the miniature simulations (see miniature.pyx)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SIZES = 6                   # of each policy: an eighth of the present memory to four times as much
    CACHES = 19                 # of LRU, LFU and S3-FIFO in every size, of a narrow S3-FIFO in the present one
    UNIVERSE = 8192             # keys known at once
    CHAINS = 8192
    PREFIXES = 64
    PREFIX_SIZE = 32            # bytes of its name, the first of which is its length
    RATE_BITS = 24              # a key is in the sample if so many bits of its hash are below a threshold

    FOLLOW_LRU = 0
    FOLLOW_S3FIFO = 1
    FOLLOW_NARROW = 2

cdef struct Miniature:
    int policy
    int small_share             # thousandths, of the small queue
    int64_t capacity, bytes, small_bytes
    bint pressed                # it was full since it was last emptied, or made larger
    uint32_t residents, ghosts
    uint16_t[2] head, tail      # of the main list, and of the small one
    double misses, recent
    uint16_t* prev
    uint16_t* next
    uint8_t* state


cdef class Miniatures:
    """Caches of some of the keys, which say how all of them would do."""
    cdef Miniature[CACHES] caches
    cdef uint64_t[UNIVERSE] hashes
    cdef uint32_t[UNIVERSE] sizes
    cdef uint16_t[UNIVERSE] chained, minutes
    cdef uint8_t[UNIVERSE] flags, residencies, prefixes
    cdef uint16_t[CHAINS] chains
    cdef char[PREFIXES][PREFIX_SIZE] names
    cdef double[PREFIXES] prefix_hits
    cdef int prefix_count
    cdef void* block
    cdef readonly int64_t memory            # bytes of all this
    cdef uint16_t vacant
    cdef uint32_t hand
    cdef readonly uint32_t below            # of 1 << RATE_BITS: the sampling rate
    cdef readonly int64_t base              # bytes: the present size
    cdef double expected, recent_expected, hits, evicted_bytes, evicted_unread
    cdef double own_expected, own           # misses of the shard's own cache: as many as were to be expected of the sample, and it had
    cdef uint64_t total, missed             # reads of all keys, and misses of the shard's own cache, at the last one of the sample
    cdef readonly uint64_t sampled
    cdef uint32_t decay_minutes, log_factor
    cdef int followed                       # FOLLOW_LRU, FOLLOW_S3FIFO or FOLLOW_NARROW
    cdef double[3] evidence                 # misses that each of them would have saved, less what is no reason to change
    cdef bint due                           # there is reason to follow another one
    cdef uint16_t minute
    cdef void configure(self, uint32_t decay_minutes, uint32_t log_factor) noexcept
    cdef int tune(self, uint32_t below, int64_t base) except -1
    cdef void read(self, const char* key, size_t n, uint64_t hash, int64_t size, bint found, uint16_t minute, uint64_t total,
                   uint64_t missed_of_all) noexcept
    cdef void write(self, const char* key, size_t n, uint64_t hash, int64_t size, uint16_t minute) noexcept
    cdef void forget(self, uint64_t hash) noexcept
    cdef int best(self, int followed) noexcept
    cdef void follow(self, int followed) noexcept
    cdef void weigh(self, bint* missed) noexcept
    cdef void clear(self) noexcept
    cdef void reset(self) noexcept
    cdef uint16_t find(self, uint64_t hash) noexcept
    cdef uint16_t create(self, const char* key, size_t n, uint64_t hash, int64_t size) noexcept
    cdef void release(self, uint16_t id) noexcept
    cdef void drop(self, uint16_t id) noexcept
    cdef void resize(self, uint16_t id, int64_t size) noexcept
    cdef void touch(self, Miniature* cache, uint16_t id, bint reading) noexcept
    cdef void insert(self, Miniature* cache, uint16_t id) noexcept
    cdef void remove(self, Miniature* cache, uint16_t id) noexcept
    cdef void evict(self, Miniature* cache) noexcept
    cdef void evict_rare(self, Miniature* cache) noexcept
    cdef void evict_queued(self, Miniature* cache) noexcept
    cdef uint8_t prefix_of(self, const char* key, size_t n) noexcept
    cdef void age(self) noexcept
    cdef void count_read(self, uint64_t total, uint64_t missed) noexcept
    cdef uint32_t counter_of(self, Miniature* cache, uint16_t id) noexcept
