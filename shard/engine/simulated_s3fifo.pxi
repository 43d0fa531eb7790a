# S3-FIFO in every simulated size, as the shard has it (evict.pxi): what goes from the main queue is what was idle for longest,
# less what its uses are worth.
#
#   small ──► main, a list for each number of uses, each in the order of last use: the oldest of one of the four goes
#     └─────► ghosts: `prev` and `next` of such a key say together how many there were before it
#
# Time is uses of keys of the sample. In the order of coming, as S3-FIFO was invented, its main queue misses seven points more of
# a loop that just does not fit, and about the same of all else.

cdef enum:
    WHERE = 3                   # two bits of a state
    SMALL = 1
    MAIN = 2
    GHOST = 3
    ONE_USE = 4                 # two more
    USES = 12
    SMALL_LIST = 4
    MOST_PROMOTED = 32          # as in the shard, that one of the main queue goes for, though the small one is too large
    LOOKED_AT = 10              # keys that the shard looks at for a victim (with the default of maxmemory-samples)

cdef double NOTHING = -1e300    # less than any score


cdef inline bint s3fifo_has(Known* key, int c) noexcept nogil:
    cdef uint8_t where = key.states[c] & WHERE
    return where == SMALL or where == MAIN


cdef inline int list_of(uint8_t state) noexcept nogil:
    return SMALL_LIST if state & WHERE == SMALL else (state & USES) // ONE_USE


cdef inline void s3fifo_link(Queues* cache, Known* known, uint16_t id, int c, int list) noexcept nogil:
    known[id].prev[c] = NONE
    known[id].next[c] = cache.head[list]
    if cache.head[list] != NONE:
        known[cache.head[list]].prev[c] = id
    else:
        cache.tail[list] = id
    cache.head[list] = id


cdef inline void s3fifo_unlink(Queues* cache, Known* known, uint16_t id, int c) noexcept nogil:
    cdef uint16_t before = known[id].prev[c], after = known[id].next[c]
    cdef int list = list_of(known[id].states[c])
    if before != NONE:
        known[before].next[c] = after
    else:
        cache.head[list] = after
    if after != NONE:
        known[after].prev[c] = before
    else:
        cache.tail[list] = before


cdef inline void s3fifo_enter_main(Queues* cache, Known* known, uint16_t id, int c, uint64_t uses) noexcept nogil:
    cache.mains += 1
    known[id].states[c] = MAIN
    known[id].times[c] = <uint16_t> (uses >> cache.unit)
    s3fifo_link(cache, known, id, c, 0)


cdef inline void s3fifo_touch(Queues* cache, Known* known, uint16_t id, int c, uint64_t uses) noexcept nogil:
    """A use of a key that is there."""
    cdef uint8_t state = known[id].states[c]
    if state & WHERE == SMALL:
        if state & USES < USES:
            known[id].states[c] = state + ONE_USE
        return
    known[id].times[c] = <uint16_t> (uses >> cache.unit)
    if cache.head[USES // ONE_USE] == id:
        return
    s3fifo_unlink(cache, known, id, c)
    if state & USES < USES:
        state += ONE_USE
        known[id].states[c] = state
    s3fifo_link(cache, known, id, c, list_of(state))


cdef void s3fifo_drop(Queues* cache, Known* known, uint16_t id, int c) noexcept nogil:
    """It is in the cache, or its ghost, no more."""
    if s3fifo_has(&known[id], c):
        cache.residents -= 1
        cache.bytes -= known[id].size
        if known[id].states[c] & WHERE == SMALL:
            cache.small_bytes -= known[id].size
        else:
            cache.mains -= 1
        s3fifo_unlink(cache, known, id, c)
    known[id].states[c] = ABSENT


cdef inline bint s3fifo_evict_small(Queues* cache, Known* known, int c, uint64_t uses) noexcept nogil:
    """The oldest key of the small queue leaves it; whether it was evicted."""
    cdef uint16_t id = cache.tail[SMALL_LIST]
    if known[id].states[c] & USES:
        s3fifo_unlink(cache, known, id, c)
        cache.small_bytes -= known[id].size
        s3fifo_enter_main(cache, known, id, c, uses)
        return False
    s3fifo_drop(cache, known, id, c)
    known[id].states[c] = GHOST
    known[id].prev[c] = <uint16_t> cache.ghosts
    known[id].next[c] = <uint16_t> (cache.ghosts >> 16)
    cache.ghosts += 1
    return True


cdef inline double s3fifo_score(Queues* cache, Known* known, uint16_t id, int c, uint64_t uses, double worth) noexcept nogil:
    """How long it was idle, less what its uses are worth."""
    return <uint16_t> (<uint16_t> (uses >> cache.unit) - known[id].times[c]) - list_of(known[id].states[c]) * worth


cdef inline bint s3fifo_evict_main(Queues* cache, Known* known, int c, uint64_t uses) noexcept nogil:
    """A key of the main queue goes, of those that were idle for longest, less their uses; False where there is none.

    The shard finds its victims by sampling, one for LOOKED_AT keys: so those are the best of a part of all, and which of them
    is chance. It is here, too, since of a loop that does not fit some is kept that way."""
    cdef double worth = cache.ages * WORTH_OF_USE / (8 * MEAN_OF), most = 0
    cdef double[SMALL_LIST] scores
    cdef uint16_t[SMALL_LIST] at
    cdef uint32_t step
    cdef int list, best = 0
    if cache.mains == 0:
        return False
    for list in range(SMALL_LIST):
        at[list] = cache.tail[list]
        scores[list] = s3fifo_score(cache, known, at[list], c, uses, worth) if at[list] != NONE else NOTHING
    for step in range(below(cache.mains // LOOKED_AT) + 1 if cache.mains > LOOKED_AT else 1):
        if step:
            at[best] = known[at[best]].prev[c]
            scores[best] = s3fifo_score(cache, known, at[best], c, uses, worth) if at[best] != NONE else NOTHING
        best = 0
        for list in range(1, SMALL_LIST):
            if scores[list] > scores[best]:
                best = list
        most = scores[best]
    if cache.ages == 0:
        cache.ages = most * MEAN_OF
    else:
        cache.ages += min(most, 4 * cache.ages / MEAN_OF) - cache.ages / MEAN_OF
    cache.ages = max(cache.ages, 1.0)
    s3fifo_drop(cache, known, at[best], c)
    return True


cdef void s3fifo_evict(Queues* cache, Known* known, int c, uint64_t uses) noexcept nogil:
    """One key less; there is one."""
    cdef int i
    cache.pressed = True
    for i in range(MOST_PROMOTED):
        if cache.tail[SMALL_LIST] == NONE or cache.small_bytes <= cache.capacity * cache.small_part:
            break
        if s3fifo_evict_small(cache, known, c, uses):
            return
    if s3fifo_evict_main(cache, known, c, uses):
        return
    # Whatever there is is in the small queue.
    while cache.tail[SMALL_LIST] != NONE:
        if s3fifo_evict_small(cache, known, c, uses):
            return
    s3fifo_evict_main(cache, known, c, uses)


cdef inline bint is_remembered(Queues* cache, Known* known, uint16_t id, int c, double lasting) noexcept nogil:
    """Whether its ghost is still there. There are eight for ten keys in buckets of 31, as in the shard (queues.pyx), whose number
    is a power of two and a part of it more, `lasting`: those that were not split have twice as many to remember, each for half as
    long. How many come until 31 have come into a bucket is a sum of chances, here of three."""
    cdef uint32_t since = cache.ghosts - (<uint32_t> known[id].prev[c] | <uint32_t> known[id].next[c] << 16)
    cdef uint64_t drawn = kache_random()
    cdef double three = ((drawn & 0xFFFF) + (drawn >> 16 & 0xFFFF) + (drawn >> 32 & 0xFFFF)) / 65536.0 - 1.5
    cdef double remembered = 0.8 * cache.residents / (1 + lasting)
    if (known[id].hash >> 48) >= (1 - lasting) * 65536:
        remembered *= 2
    # `three` has half of a standard deviation of 1; a sum of 31 waits has 31 ** -0.5 of it.
    return since <= remembered * (1 + 0.36 * three)


cdef void s3fifo_insert(Queues* cache, Known* known, uint16_t id, int c, uint64_t uses, double lasting) noexcept nogil:
    cdef int64_t size = known[id].size
    cdef uint8_t state = known[id].states[c]
    cdef bint returns = state & WHERE == GHOST and is_remembered(cache, known, id, c, lasting)
    if size > cache.capacity:
        return
    while cache.bytes + size > cache.capacity:
        s3fifo_evict(cache, known, c, uses)
    cache.bytes += size
    cache.residents += 1
    # Before memory is full the small queue does not grow beyond its part, as in the shard: filled with all there is it would
    # take as long as the cache lasts until what it keeps is what S3-FIFO keeps.
    if returns or not cache.pressed and cache.small_bytes + size > cache.capacity * cache.small_part:
        s3fifo_enter_main(cache, known, id, c, uses)
    else:
        known[id].states[c] = SMALL
        cache.small_bytes += size
        s3fifo_link(cache, known, id, c, SMALL_LIST)
