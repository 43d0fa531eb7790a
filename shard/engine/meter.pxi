# Counters of the execution point, as kache/stats.py describes them.

cdef inline int histogram_bucket(int64_t ns) noexcept nogil:
    """See kache.stats: linear up to 32, then 16 buckets for every power of two."""
    cdef int power = 0
    cdef uint64_t value = <uint64_t> ns
    if ns < 0:
        return 0
    if value < 32:
        return <int> value
    while value >> (power + 6):
        power += 1
    return min(32 + power * 16 + <int> (value >> (power + 1)) - 16, HISTOGRAM_SIZE - 1)


cdef inline void count_times(Command* command, int bucket, uint32_t calls) noexcept:
    """So many calls have taken a time of that bucket. Without memory for the histogram they are not counted."""
    if command.histogram == NULL:
        command.histogram = <uint64_t*> calloc(HISTOGRAM_SIZE, sizeof(uint64_t))
        if command.histogram == NULL:
            return
    command.histogram[bucket] += calls


cdef dict histogram_of(Command* command):
    cdef int i
    if command.histogram == NULL:
        return {}
    return {i: command.histogram[i] for i in range(HISTOGRAM_SIZE) if command.histogram[i]}
