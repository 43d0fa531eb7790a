# LFU in every simulated size: the rarest of some that are drawn goes, as in the shard.
#
# Each cache has an array of keys to draw from. A key that is dropped stays in it, LISTED, until it is drawn, or comes back.

cdef enum:
    KNOWN = 128                 # of a key's counter: it is there, and the rest is a counter
    COUNTER = 127
    LISTED = 1                  # it is not, but in the array
    FRESH_COUNTER = 5
    LFU_SAMPLES = 10


cdef inline uint32_t lfu_counter(Counted* key, int k, uint16_t minute, uint32_t decay_minutes) noexcept nogil:
    """Its counter, less one for every period without a use."""
    cdef uint32_t counter = key.counters[k] & COUNTER, periods
    if decay_minutes == 0:
        return counter
    periods = <uint16_t> (minute - key.minute) // decay_minutes
    return counter - periods if periods < counter else 0


cdef inline void lfu_touch(
    Counted* key, int k, uint16_t minute, uint32_t decay_minutes, uint32_t log_factor, double drawn
) noexcept nogil:
    """A use of a key that is there; `drawn`: a number below 2 ** 53, the same for all sizes."""
    cdef uint32_t counter = lfu_counter(key, k, minute, decay_minutes)
    if counter < COUNTER and drawn * ((counter - 5.0 if counter > 5 else 0.0) * log_factor + 1.0) < 9007199254740992.0:
        counter += 1
    key.counters[k] = KNOWN | <uint8_t> counter


cdef void lfu_evict(
    Frequency* lfu, Known* known, Counted* counted, int k, uint16_t minute, uint32_t decay_minutes
) noexcept nogil:
    """One key less; there is one."""
    cdef uint32_t at, rarest = 0, counter, least = 256
    cdef int tried = 0
    while tried < LFU_SAMPLES:
        at = below(lfu.count)
        if not counted[lfu.ids[at]].counters[k] & KNOWN:
            counted[lfu.ids[at]].counters[k] = ABSENT
            lfu.count -= 1
            lfu.ids[at] = lfu.ids[lfu.count]
            if rarest == lfu.count:
                rarest = at
            continue
        tried += 1
        counter = lfu_counter(&counted[lfu.ids[at]], k, minute, decay_minutes)
        if counter < least:
            least = counter
            rarest = at
    counted[lfu.ids[rarest]].counters[k] = ABSENT
    lfu.bytes -= known[lfu.ids[rarest]].size
    lfu.count -= 1
    lfu.ids[rarest] = lfu.ids[lfu.count]


cdef void lfu_insert(
    Frequency* lfu, Known* known, Counted* counted, uint16_t id, int k, uint16_t minute, uint32_t decay_minutes
) noexcept nogil:
    if known[id].size > lfu.capacity:
        return
    while lfu.bytes + known[id].size > lfu.capacity:
        lfu_evict(lfu, known, counted, k, minute, decay_minutes)
    lfu.bytes += known[id].size
    if counted[id].counters[k] == ABSENT:
        lfu.ids[lfu.count] = id
        lfu.count += 1
    counted[id].counters[k] = KNOWN | FRESH_COUNTER


cdef inline void lfu_drop(Frequency* lfu, Counted* key, int k, int64_t size) noexcept nogil:
    if key.counters[k] & KNOWN:
        lfu.bytes -= size
        key.counters[k] = LISTED
