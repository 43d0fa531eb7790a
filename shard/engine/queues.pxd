"""Declarations of the small queue and the ghosts of S3-FIFO (see queues.pyx)."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef enum:
    CHUNK_KEYS = 500            # keys in a chunk of the queue: 6 KiB
    BUCKET = 31                 # fingerprints in a bucket, beside its cursor: a line of the processors' caches
    CHUNK_BUCKETS = 256         # buckets in a chunk of the ghosts: 16 KiB

cdef struct QueueChunk:
    QueueChunk* next
    uint32_t since              # the LRU clock when its first key came
    uint32_t[CHUNK_KEYS] places
    uint64_t[CHUNK_KEYS] hashes

cdef struct Queue:
    QueueChunk* first
    QueueChunk* last
    uint32_t at                 # the oldest key, in the first chunk
    uint32_t end                # behind the newest one, in the last
    uint64_t count
    int64_t bytes               # of the keys' blocks, as they were when they came
    int64_t memory

cdef struct Queued:
    uint64_t hash
    uint32_t slot
    int db

cdef struct Ghosts:
    uint16_t** chunks
    uint32_t buckets, room
    int64_t memory


cdef int queue_push(Queue* queue, Queued* key, int64_t size, uint32_t clock) noexcept nogil
cdef bint queue_pop(Queue* queue, Queued* key) noexcept nogil
cdef inline bint queue_peek(Queue* queue, uint32_t ahead, Queued* key) noexcept nogil:
    """The key that so many others leave before; False where it is in no chunk that is being read."""
    cdef uint32_t at = queue.at + ahead
    if queue.first == NULL or at >= (queue.end if queue.first == queue.last else <uint32_t> CHUNK_KEYS):
        return False
    key.hash = queue.first.hashes[at]
    key.slot = queue.first.places[at] & 0x3FFF
    key.db = queue.first.places[at] >> 14 & 15
    return True


cdef void queue_clear(Queue* queue) noexcept nogil
cdef int queue_check(Queue* queue) except -1

cdef void ghosts_fetch(Ghosts* ghosts, uint64_t hash) noexcept nogil
cdef bint ghosts_take(Ghosts* ghosts, uint64_t hash) noexcept nogil
cdef int ghosts_add(Ghosts* ghosts, uint64_t hash, uint64_t wanted) noexcept nogil
cdef void ghosts_clear(Ghosts* ghosts) noexcept nogil
