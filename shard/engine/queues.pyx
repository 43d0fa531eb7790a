"""What S3-FIFO remembers beside the entries: the small queue, and the ghosts of what was evicted from it.

    Queue     first ─► chunk ─► chunk ◄─ last       keys in the order in which they came: hash, slot, database, size
    Ghosts    chunks[i] ─► 256 buckets of 31 fingerprints, each bucket a queue of its own

The queue has a tenth of the data or so, and 12 bytes a key; a ghost has 2, and there are eight for ten keys: together about 2.9
bytes a key. The main queue is not here: its order is the clock of its entries, and its end is found by sampling (evict.pxi).

A key is known by its hash: it may be gone, or have come again, when it leaves the queue. Ghosts are inexact by design: the
hash spreads keys so evenly that the oldest of a bucket is about the oldest of all, and one lookup in two thousand finds a
stranger's fingerprint. Their number follows that of the keys a bucket at a time, by linear hashing, so that nothing is
ever rehashed at once. Everything is allocated on the way; without memory a key is not remembered, and nothing worse.
"""
from libc.string cimport memcpy, memset

from .memory cimport free, kache_malloc, kache_realloc

cdef extern from *:
    """
    #define KACHE_PREFETCH_GHOSTS(at) __builtin_prefetch(at)
    """
    void prefetch "KACHE_PREFETCH_GHOSTS"(const void* at) noexcept nogil

cdef enum:
    MANTISSA = 9                # bits of a size; with 5 of an exponent beside 4 of the database and 14 of the slot
    MOST_GROWN = 4              # buckets that one new ghost makes room for
    SMALLEST_DIRECTORY = 8
    LINE = 32                   # numbers in a bucket with its cursor


# The queue --------------------------------------------------------------------------------------------
cdef inline uint32_t size_code(int64_t size) noexcept nogil:
    """A size in 14 bits, exact to a 512th."""
    cdef uint32_t exponent = 0
    if size < 0:
        size = 0
    while size >= 2 << MANTISSA and exponent < 30:
        size >>= 1
        exponent += 1
    if size >= 2 << MANTISSA:
        size = (2 << MANTISSA) - 1
    if size < 1 << MANTISSA:
        return <uint32_t> size
    return (exponent + 1) << MANTISSA | (<uint32_t> size & ((1 << MANTISSA) - 1))


cdef inline int64_t size_decoded(uint32_t code) noexcept nogil:
    cdef uint32_t exponent = code >> MANTISSA
    cdef int64_t mantissa = code & ((1 << MANTISSA) - 1)
    return mantissa if exponent == 0 else (mantissa | 1 << MANTISSA) << (exponent - 1)


cdef int queue_push(Queue* queue, Queued* key, int64_t size, uint32_t clock) noexcept nogil:
    """Adds the newest key; -1 without memory."""
    cdef QueueChunk* chunk = queue.last
    cdef uint32_t code = size_code(size)
    if chunk == NULL or queue.end == CHUNK_KEYS:
        chunk = <QueueChunk*> kache_malloc(sizeof(QueueChunk))
        if chunk == NULL:
            return -1
        chunk.next = NULL
        chunk.since = clock
        if queue.last == NULL:
            queue.first = chunk
            queue.at = 0
        else:
            queue.last.next = chunk
        queue.last = chunk
        queue.end = 0
        queue.memory += sizeof(QueueChunk)
    chunk.hashes[queue.end] = key.hash
    chunk.places[queue.end] = code << 18 | <uint32_t> key.db << 14 | key.slot
    queue.end += 1
    queue.count += 1
    queue.bytes += size_decoded(code)
    return 0


cdef bint queue_pop(Queue* queue, Queued* key) noexcept nogil:
    """Takes the oldest key out; False when there is none."""
    cdef QueueChunk* chunk = queue.first
    cdef uint32_t place
    if queue.count == 0:
        return False
    key.hash = chunk.hashes[queue.at]
    place = chunk.places[queue.at]
    key.slot = place & 0x3FFF
    key.db = place >> 14 & 15
    queue.bytes -= size_decoded(place >> 18)
    queue.count -= 1
    queue.at += 1
    if queue.at == CHUNK_KEYS or queue.count == 0:
        queue.first = chunk.next
        queue.at = 0
        if queue.first == NULL:
            queue.last = NULL
        queue.memory -= sizeof(QueueChunk)
        free(chunk)
    return True


cdef void queue_clear(Queue* queue) noexcept nogil:
    """Empties it."""
    cdef QueueChunk* chunk = queue.first
    cdef QueueChunk* next
    while chunk != NULL:
        next = chunk.next
        free(chunk)
        chunk = next
    memset(queue, 0, sizeof(Queue))


cdef int queue_check(Queue* queue) except -1:
    """Asserts its invariants."""
    cdef QueueChunk* chunk = queue.first
    cdef uint64_t count = 0
    cdef int64_t size = 0, memory = 0
    cdef uint32_t at = queue.at, end
    while chunk != NULL:
        end = queue.end if chunk == queue.last else CHUNK_KEYS
        memory += sizeof(QueueChunk)
        assert at < end, "an empty chunk was kept"
        while at < end:
            size += size_decoded(chunk.places[at] >> 18)
            count += 1
            at += 1
        at = 0
        assert chunk.next != NULL or chunk == queue.last, "the last chunk is not at the end"
        chunk = chunk.next
    assert count == queue.count, "the queue's count is wrong"
    assert size == queue.bytes, "the queue's bytes are wrong"
    assert memory == queue.memory, "the queue's memory is wrong"


# Ghosts -----------------------------------------------------------------------------------------------
cdef inline uint32_t level_of(uint32_t buckets) noexcept nogil:
    """The largest power of two that is not above; there is a bucket."""
    cdef uint32_t level = buckets
    level |= level >> 1
    level |= level >> 2
    level |= level >> 4
    level |= level >> 8
    level |= level >> 16
    return level - (level >> 1)


cdef inline uint16_t* bucket_at(Ghosts* ghosts, uint32_t number) noexcept nogil:
    return ghosts.chunks[number // CHUNK_BUCKETS] + number % CHUNK_BUCKETS * LINE


cdef inline uint16_t* bucket_of(Ghosts* ghosts, uint64_t hash) noexcept nogil:
    cdef uint32_t level = level_of(ghosts.buckets)
    cdef uint32_t number = <uint32_t> hash & (2 * level - 1)
    if number >= ghosts.buckets:
        number -= level
    return bucket_at(ghosts, number)


cdef inline uint16_t fingerprint_of(uint64_t hash) noexcept nogil:
    cdef uint16_t fingerprint = <uint16_t> (hash >> 40)
    return fingerprint if fingerprint else 1


cdef bint add_bucket(Ghosts* ghosts) noexcept nogil:
    """One more, with the ghosts of the one that it is split from: half of them are found no more, and grow old."""
    cdef uint32_t number = ghosts.buckets, room
    cdef uint16_t** grown
    cdef uint16_t* chunk
    if number % CHUNK_BUCKETS == 0:
        if number // CHUNK_BUCKETS == ghosts.room:
            room = max(2 * ghosts.room, SMALLEST_DIRECTORY)
            grown = <uint16_t**> kache_realloc(ghosts.chunks, room * sizeof(uint16_t*))
            if grown == NULL:
                return False
            ghosts.chunks = grown
            ghosts.memory += (room - ghosts.room) * <int64_t> sizeof(uint16_t*)
            ghosts.room = room
        chunk = <uint16_t*> kache_malloc(CHUNK_BUCKETS * LINE * sizeof(uint16_t))
        if chunk == NULL:
            return False
        ghosts.chunks[number // CHUNK_BUCKETS] = chunk
        ghosts.memory += CHUNK_BUCKETS * LINE * sizeof(uint16_t)
    ghosts.buckets += 1
    if number == 0:
        memset(bucket_at(ghosts, 0), 0, LINE * sizeof(uint16_t))
    else:
        memcpy(bucket_at(ghosts, number), bucket_at(ghosts, number - level_of(number)), LINE * sizeof(uint16_t))
    return True


cdef void drop_bucket(Ghosts* ghosts) noexcept nogil:
    ghosts.buckets -= 1
    if ghosts.buckets % CHUNK_BUCKETS == 0:
        free(ghosts.chunks[ghosts.buckets // CHUNK_BUCKETS])
        ghosts.memory -= CHUNK_BUCKETS * LINE * sizeof(uint16_t)


cdef void ghosts_fetch(Ghosts* ghosts, uint64_t hash) noexcept nogil:
    """Brings the bucket of a key into the processor's cache, for who asks soon."""
    cdef uint16_t* bucket
    if ghosts.buckets:
        bucket = bucket_of(ghosts, hash)
        prefetch(bucket)
        prefetch(bucket + BUCKET)


cdef bint ghosts_take(Ghosts* ghosts, uint64_t hash) noexcept nogil:
    """Whether a ghost of this key is there; it is not any more."""
    cdef uint16_t* bucket
    cdef uint16_t fingerprint = fingerprint_of(hash)
    cdef uint32_t found = 0
    cdef int i
    if ghosts.buckets == 0:
        return False
    bucket = bucket_of(ghosts, hash)
    # All of them, without a branch: the compiler compares them side by side.
    for i in range(BUCKET):
        found |= bucket[i] == fingerprint
    if not found:
        return False
    for i in range(BUCKET):
        if bucket[i] == fingerprint:
            bucket[i] = 0
            return True
    return False


cdef int ghosts_add(Ghosts* ghosts, uint64_t hash, uint64_t wanted) noexcept nogil:
    """Adds one in the place of the oldest; on the way to as many as are wanted, one at least."""
    cdef uint64_t buckets = min((wanted + BUCKET - 1) // BUCKET, <uint64_t> 0x7FFFFFFF)
    cdef uint16_t* bucket
    cdef int i
    for i in range(MOST_GROWN):
        if ghosts.buckets >= buckets or not add_bucket(ghosts):
            break
    # Where there are fewer keys now, it hurries less: they may come back.
    if ghosts.buckets > 2 * buckets + 1:
        drop_bucket(ghosts)
    if ghosts.buckets == 0:
        return 0
    bucket = bucket_of(ghosts, hash)
    bucket[bucket[BUCKET]] = fingerprint_of(hash)
    bucket[BUCKET] = bucket[BUCKET] + 1 if bucket[BUCKET] + 1 < BUCKET else 0
    return 0


cdef void ghosts_clear(Ghosts* ghosts) noexcept nogil:
    """Forgets all of them."""
    while ghosts.buckets:
        drop_bucket(ghosts)
    free(ghosts.chunks)
    memset(ghosts, 0, sizeof(Ghosts))
