# The clock of an entry: when it was used last (LRU, milliseconds), or how often (LFU: minutes and a counter, as Redis's).

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
