# The clock of an entry: when it was used last (LRU, milliseconds), or how often (LFU: minutes and a counter, as Redis's).
# Where there are queues (S3-FIFO, auto) it is that of LRU in steps of 8 ms, and three bits:
#
#   time of the last use | uses, 3 at most (2 bits) | in the main queue (1 bit)
#
# So policies of both kinds read one another's clocks, and a change between them loses nothing.

cdef enum:
    CLOCK_LRU = 0
    CLOCK_LFU = 1
    CLOCK_QUEUES = 2

    IN_MAIN = 1
    USED_ONCE = 2
    MOST_USES = 6
    QUEUE_BITS = 7

# Beyond half of what the clock can count, a key idle for long would look as if it were used just now.
cdef int64_t LONGEST_IDLE_MS = 2147483647


cdef inline uint32_t lfu_minutes(int64_t now_ms) noexcept nogil:
    return <uint32_t> (now_ms // 60000) & 0xFFFF


cdef inline uint32_t lfu_fresh(int64_t now_ms) noexcept nogil:
    """A new key starts at 5, so that it is not the first to go."""
    return (lfu_minutes(now_ms) << 8) | 5


cdef inline uint32_t lfu_counter(uint32_t clock, int64_t now_ms, uint32_t decay_time) noexcept nogil:
    """The counter, less one for every `decay_time` minutes since it was last touched."""
    cdef uint32_t counter = clock & 0xFF
    cdef uint32_t periods
    if decay_time == 0:
        return counter
    periods = ((lfu_minutes(now_ms) - (clock >> 8)) & 0xFFFF) // decay_time
    return counter - periods if periods < counter else 0


cdef inline uint32_t lfu_idle_minutes(uint32_t clock, int64_t now_ms) noexcept nogil:
    return (lfu_minutes(now_ms) - (clock >> 8)) & 0xFFFF


cdef inline uint32_t lfu_touched(uint32_t clock, int64_t now_ms, uint32_t decay_time, uint32_t log_factor) noexcept nogil:
    cdef uint32_t counter = lfu_counter(clock, now_ms, decay_time)
    cdef double base = counter - 5.0 if counter > 5 else 0.0
    if counter < 255 and (kache_random() >> 11) * (base * log_factor + 1.0) < 9007199254740992.0:
        counter += 1
    return (lfu_minutes(now_ms) << 8) | counter


cdef inline uint32_t uses_of(uint32_t clock) noexcept nogil:
    """How often it was used since it came, or came into the main queue: 3 at most."""
    return (clock & MOST_USES) >> 1


cdef inline uint32_t queued_touched(uint32_t clock, uint32_t now) noexcept nogil:
    cdef uint32_t bits = clock & QUEUE_BITS
    return (now & ~<uint32_t> QUEUE_BITS) | (bits + USED_ONCE if bits < MOST_USES else bits)


cdef inline uint32_t main_clock(uint32_t now, uint32_t uses) noexcept nogil:
    """Of an entry at the head of the main queue."""
    return (now & ~<uint32_t> QUEUE_BITS) | IN_MAIN | uses << 1
