"""Declarations of the miniature simulations (see miniature.pyx)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SIZES = 6                   # of each policy: an eighth of the present memory to four times as much
    QUEUED = 7                  # caches of S3-FIFO: one in every size, and a narrow one in the present one
    CACHES = 19                 # of LRU, LFU and S3-FIFO in every size, and the narrow one
    UNIVERSE = 6144             # keys known at once
    CHAINS = 8192
    LISTS = 5                   # of S3-FIFO: the main queue by the uses of what is in it, and the small one
    PREFIXES = 64
    PREFIX_SIZE = 32            # bytes of its name, the first of which is its length
    RATE_BITS = 24              # a key is in the sample if so many bits of its hash are below a threshold

    FOLLOW_LRU = 0
    FOLLOW_S3FIFO = 1
    FOLLOW_NARROW = 2

    LRU = 0                     # the places of the policies' first caches among all
    LFU = SIZES
    S3FIFO = 2 * SIZES
    PRESENT_SIZE = 3            # the place among the sizes of a policy: eighths are 1 << place


cdef inline bint in_sample(uint64_t hash, uint32_t below) noexcept nogil:
    """Whether a key with this hash is in a sample of `below` of 1 << RATE_BITS."""
    return (<uint32_t> hash & ((1 << RATE_BITS) - 1)) < below


cdef inline uint64_t sample_hash(uint64_t hash, int db) noexcept nogil:
    """By what a key of a database is known in a sample: as `in_sample` as by its own hash."""
    return hash ^ (<uint64_t> db << 56)

# A key of the sample, with its place in every cache but those of LFU: little more than a line of the processors' caches.
cdef struct Known:
    uint64_t hash
    uint32_t size
    uint16_t chained
    uint8_t flags, prefix
    uint8_t zone                # the smallest LRU that has it, and so do all larger ones; SIZES: none has
    uint8_t[QUEUED] states      # of S3-FIFO
    uint16_t[QUEUED + 1] prev, next  # in the lists of S3-FIFO, and in the one of LRU
    uint16_t[QUEUED] times      # of S3-FIFO: when it was last used, or came into the main queue

# The same key in LFU of every size. Many are drawn, so these are together.
cdef struct Counted:
    uint8_t[SIZES] counters
    uint16_t minute             # of its last use

# LRU in every size.
cdef struct Recency:
    int64_t[SIZES] capacity, bytes
    uint16_t[SIZES] edges       # the key that was used least recently of those in this size
    uint16_t head, tail
    double evicted_bytes, evicted_unread  # by the one of the present size

# LFU in one size.
cdef struct Frequency:
    int64_t capacity, bytes
    uint32_t count              # of `ids`, some of which may be in the cache no more
    uint16_t* ids

# S3-FIFO in one size.
cdef struct Queues:
    double small_part           # of the room is for the small queue
    int unit                    # of its times: 1 << unit uses of keys of the sample
    int64_t capacity, bytes, small_bytes
    bint pressed                # it was full since it was last emptied, or made larger
    uint32_t residents, mains, ghosts  # keys that are there, those of them in the main queue, those that ever became ghosts
    uint16_t[LISTS] head, tail
    double ages                 # of the last victims of the main queue, in its unit: mean of MEAN_OF, times that


cdef class Miniatures:
    """Caches of some of the keys, which say how all of them would do."""
    cdef Known* known
    cdef Counted* counted
    cdef Recency lru
    cdef Frequency[SIZES] lfu
    cdef Queues[QUEUED] s3fifo
    cdef double[CACHES] shared, misses, recent  # those that the shard's own cache had, too; the others; all of late
    cdef uint16_t[CHAINS] chains
    cdef char[PREFIXES][PREFIX_SIZE] names
    cdef double[PREFIXES] prefix_hits
    cdef int prefix_count
    cdef readonly int64_t memory            # bytes of all this
    cdef uint16_t vacant
    cdef uint32_t hand
    cdef readonly uint32_t below            # of 1 << RATE_BITS: the sampling rate
    cdef readonly int64_t base              # bytes: the present size
    cdef readonly uint32_t held             # keys of the sample that the shard's own cache has, as far as it is known
    cdef int64_t held_bytes                 # what those take
    cdef double surplus                     # the part by which they are more than are due to the sample
    cdef double weight                      # of a byte of memory, as these sizes have it
    cdef double blocks                      # of such a byte is in a block, the only one that the shard's small queue counts
    cdef double lasting                     # how many buckets of ghosts the shard has, less the power of two below, over that
    cdef double expected, recent_expected, hits
    cdef double own_expected, own           # misses of the shard's own cache: as many as were to be expected of the sample, and it had
    cdef int mirrored                       # the cache whose policy the shard's own one has at present; -1: none has
    cdef double own_mirrored, mirror        # misses since then: of the shard's own cache, and of that one
    cdef uint64_t total, missed             # reads of all keys, and misses of the shard's own cache, at the last one of the sample
    cdef readonly uint64_t sampled
    cdef uint64_t uses                      # of keys of the sample: the time of S3-FIFO
    cdef uint32_t decay_minutes, log_factor
    cdef int followed                       # FOLLOW_LRU, FOLLOW_S3FIFO or FOLLOW_NARROW
    cdef double[3] evidence                 # misses that each of them would have saved, less what is no reason to change
    cdef bint due                           # there is reason to follow another one
    cdef uint16_t minute
    cdef void configure(self, uint32_t decay_minutes, uint32_t log_factor) noexcept
    cdef int tune(self, uint32_t below, int64_t base) except -1
    cdef void correct(self, uint64_t keys, int64_t used, int64_t overhead) noexcept
    cdef void fit(self) noexcept
    cdef void reflect(self, int cache) noexcept
    cdef double likeness(self, int policy) noexcept
    cdef void read(self, const char* key, size_t n, uint64_t hash, int64_t size, bint found, uint16_t minute, uint64_t total,
                   uint64_t missed_of_all) noexcept
    cdef void write(self, const char* key, size_t n, uint64_t hash, int64_t size, uint16_t minute) noexcept
    cdef void hold(self, const char* key, size_t n, uint64_t hash, int64_t size) noexcept
    cdef void lose(self, uint64_t hash) noexcept
    cdef void forget(self, uint64_t hash) noexcept
    cdef int best(self, int followed) noexcept
    cdef void follow(self, int followed) noexcept
    cdef void weigh(self, bint* missed) noexcept
    cdef void clear(self) noexcept
    cdef void reset(self) noexcept
    cdef uint16_t find(self, uint64_t hash) noexcept
    cdef uint16_t create(self, const char* key, size_t n, uint64_t hash, int64_t size) noexcept
    cdef void release(self, uint16_t id) noexcept
    cdef bint is_idle(self, uint16_t id) noexcept
    cdef void keep(self, uint16_t id, bint held) noexcept
    cdef void drop(self, uint16_t id) noexcept
    cdef void resize(self, uint16_t id, int64_t size) noexcept
    cdef void outgrow(self, uint16_t id, uint32_t size) noexcept
    cdef int check_lru(self) except -1
    cdef int check_lfu(self, int k) except -1
    cdef int check_s3fifo(self, int c) except -1
    cdef bint has_room(self, int cache, int64_t size) noexcept
    cdef uint8_t prefix_of(self, const char* key, size_t n) noexcept
    cdef void age(self) noexcept
    cdef void count_read(self, uint64_t total, uint64_t missed) noexcept
