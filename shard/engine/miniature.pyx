"""Miniature simulations: what other policies, and other sizes, would miss of this shard's traffic.

    SHARDS (Waldspurger et al., FAST 2015) samples keys by their hash, so that of a sampled key every use is seen; a cache
    that is smaller by the sampling rate misses about as often with them as one of full size does with all (miniature
    simulations, ATC 2017). Here are nineteen such caches over one table of keys:

        hash ─► key: size, prefix ─┬─► LRU      1/8  1/4  1/2  1  2  4  of the present memory    simulated_lru.pxi
                                   ├─► LFU      "                                               simulated_lfu.pxi
                                   ├─► S3-FIFO  "                                               simulated_s3fifo.pxi
                                   └─► S3-FIFO  with a hundredth for what is new, 1

The rate is such that the cache of the present size holds about PRESENT keys, and never more than a sixteenth of all: the
time that it takes is under a hundredth of the shard's from some 30 MiB of small keys on, and three in 8 MiB (bench/README.md);
the memory is 0.56 MiB.

Which keys are in the sample is chance. That is put right:

    reads       Misses are divided by the number of reads that were to be expected in the sample, not by that of those seen
                (SHARDS-adj): which of the hottest keys are in it matters for their number, and they are hits in every size.
    room        Of the keys that the shard's own cache has the sample has some percent more or less than its part, which is
                known (`hold`, `lose`): so many more or less have room in the simulated caches. Otherwise one that is a
                little too small would miss all of a loop that just fits. The same for what a key takes, of which only a part
                is in its block.
    misses      Of those that the shard's own cache had, too, the sample has some percent too many or too few: how many that
                cache has had is known of all keys and of those in the sample, and they are put right by the one over the
                other (a ratio estimator). The others are of keys that it has: they are put right as the room is.
    likeness    The shard's own cache and the simulated one of the same policy and size are not quite the same; by how many more
                misses the one has, the misses of that policy at the present size are put right.

A miss that the shard's own cache has, too, is followed by a write if the client fills the cache; it is no use of the
key. A key that is missed again without having been written is nowhere: it is a miss in every size. What was deleted or
has expired is forgotten.

Nothing here fails or allocates after it was made. Counts fade: half of what is known is of the last LONG reads of the
sample, of what is shown as recent of the last SHORT.
"""
from libc.stdlib cimport calloc
from libc.stdlib cimport free as free_plain
from libc.string cimport memcmp, memcpy, memset

from .memory cimport below, kache_random

cdef enum:
    NONE = 0xFFFF
    ABSENT = 0                  # a state or a counter, of a key that is not in the cache

    MISSED = 1                  # of a key's flags: its last use was a miss
    IN_USE = 2
    WAS_READ = 4                # since it came into the LRU of the present size
    HELD = 8                    # the shard's own cache has it
    OLDER = 16                  # it has, and the key was not used since that is known

    FOLLOWERS = 3
    SEARCH = 64                 # keys looked at for one that is in no cache
    FEW_HELD = 100              # keys that a shard of this size would have in the sample, with fewer its room is not put right
    WORTH_OF_USE = 5            # as in the shard (evict.pxi)
    MEAN_OF = 64

cdef size_t OF_A_KEY = sizeof(Known) + sizeof(Counted) + SIZES * sizeof(uint16_t)

cdef double LONG = 65536
cdef double SHORT = 2048
# The part of the misses that another policy has to save to be followed, and how many misses of the sample more than that it
# must have saved: a cumulative sum (Page, 1954). What saves a tenth of the misses is followed after some 1,000 reads of the
# sample where a third of them misses; of two that are equal, neither takes the other's place for long: by chance it happens
# once in some hundred thousand reads of the sample.
cdef double WORTH = 0.03
cdef double ENOUGH = 20
# As many misses as these are taken for right beforehand, so that a few do not put right anything.
cdef double FEW = 200
# The caches whose policies can be followed.
cdef int[FOLLOWERS] CANDIDATES = [LRU + PRESENT_SIZE, S3FIFO + PRESENT_SIZE, CACHES - 1]

POLICIES = ("lru", "lfu", "s3fifo")
FOLLOWED = ("lru", "s3fifo", "s3fifo-narrow")

include "simulated_lru.pxi"
include "simulated_lfu.pxi"
include "simulated_s3fifo.pxi"


cdef inline uint32_t bounded(int64_t size) noexcept nogil:
    return <uint32_t> min(max(size, 1), <int64_t> 0x7FFFFFFF)


cdef class Miniatures:
    """Caches of some of the keys, which say how all of them would do. `below` 0: nothing is sampled."""

    def __cinit__(self):
        cdef char* block = <char*> calloc(UNIVERSE, OF_A_KEY)
        cdef int k
        if block == NULL:
            raise MemoryError("no memory for the miniature simulations")
        self.known = <Known*> block
        self.counted = <Counted*> (block + UNIVERSE * sizeof(Known))
        self.memory = UNIVERSE * OF_A_KEY + self.__sizeof__()
        for k in range(SIZES):
            self.lfu[k].ids = <uint16_t*> (self.counted + UNIVERSE) + k * UNIVERSE
            # Small caches are soon through: their times are finer.
            self.s3fifo[k].unit = k + 1
        self.s3fifo[SIZES].unit = PRESENT_SIZE + 1
        self.decay_minutes = 1
        self.log_factor = 10
        self.followed = FOLLOW_S3FIFO
        self.mirrored = -1
        self.clear()

    def __dealloc__(self):
        free_plain(self.known)

    cdef void clear(self) noexcept:
        """Forgets every key."""
        cdef int i, list
        memset(self.known, 0, UNIVERSE * OF_A_KEY)
        memset(self.chains, 255, sizeof(self.chains))
        self.vacant = NONE
        for i in range(UNIVERSE - 1, -1, -1):
            self.known[i].zone = SIZES
            self.known[i].chained = self.vacant
            self.vacant = <uint16_t> i
        self.lru.head = self.lru.tail = NONE
        for i in range(SIZES):
            self.lru.bytes[i] = 0
            self.lru.edges[i] = NONE
            self.lfu[i].bytes = 0
            self.lfu[i].count = 0
        for i in range(QUEUED):
            for list in range(LISTS):
                self.s3fifo[i].head[list] = self.s3fifo[i].tail[list] = NONE
            self.s3fifo[i].residents = self.s3fifo[i].mains = self.s3fifo[i].ghosts = 0
            self.s3fifo[i].bytes = self.s3fifo[i].small_bytes = 0
            self.s3fifo[i].pressed = False
            self.s3fifo[i].ages = 0
        self.held = 0
        self.held_bytes = 0
        self.surplus = 0
        self.weight = self.blocks = 1
        self.reset()

    cdef void reset(self) noexcept:
        """Counts anew; keys stay."""
        memset(self.shared, 0, sizeof(self.shared))
        memset(self.misses, 0, sizeof(self.misses))
        memset(self.recent, 0, sizeof(self.recent))
        self.expected = self.recent_expected = self.hits = 0
        self.lru.evicted_bytes = self.lru.evicted_unread = 0
        self.own_expected = self.own = 0
        self.own_mirrored = self.mirror = 0
        self.sampled = 0
        self.follow(self.followed)
        memset(self.prefix_hits, 0, sizeof(self.prefix_hits))

    # The sample ---------------------------------------------------------------------------------------
    cdef void configure(self, uint32_t decay_minutes, uint32_t log_factor) noexcept:
        """The settings of LFU."""
        self.decay_minutes = decay_minutes
        self.log_factor = log_factor

    cdef int tune(self, uint32_t below, int64_t base) except -1:
        """The rate, of 1 << RATE_BITS, and the present size in bytes."""
        cdef uint16_t id
        if base != self.base:
            self.reset()
        if below < self.below:
            for id in range(UNIVERSE):
                if self.known[id].flags & IN_USE and not in_sample(self.known[id].hash, below):
                    self.release(id)
        self.below = below
        self.base = base
        self.fit()
        return 0

    cdef void correct(self, uint64_t keys, int64_t used, int64_t overhead) noexcept:
        """The shard's own cache has so many keys, in so many bytes, of which `overhead` for each are in no block of a key; and all
        of them that are in the sample are known to be held. 0 keys: not all are known."""
        cdef double due = keys * <double> self.below / (1 << RATE_BITS), buckets = 0.8 * keys / 31
        self.surplus = self.lasting = 0
        self.weight = self.blocks = 1
        if due >= FEW_HELD and self.held >= FEW_HELD and used > 0:
            self.surplus = max(-0.5, min(self.held / due - 1, 1.0))
            self.weight = min(self.held_bytes / <double> self.held * keys / used, 2.0)
            self.blocks = max(0.5, 1 - overhead * <double> self.held / self.held_bytes)
        while buckets >= 2:
            buckets /= 2
        self.lasting = max(0.0, buckets - 1)
        self.fit()

    cdef void fit(self) noexcept:
        """Gives every cache the room that it has by the rate, with what the sample has too much of the shard's own keys: so much
        of what a larger cache has, the same part of what a smaller one has."""
        cdef double present = self.weight * (self.base * <double> self.below / (1 << RATE_BITS))
        cdef int64_t room
        cdef int k, c
        for k in range(SIZES):
            room = <int64_t> (present * ((1 << k) / 8.0 + self.surplus * min(1.0, (1 << k) / 8.0)))
            self.lru.capacity[k] = self.lfu[k].capacity = self.s3fifo[k].capacity = room
            self.s3fifo[k].small_part = 0.1 / self.blocks
        self.s3fifo[SIZES].capacity = self.s3fifo[PRESENT_SIZE].capacity
        self.s3fifo[SIZES].small_part = 0.01 / self.blocks
        for k in range(SIZES):
            lru_shrink(&self.lru, self.known, k)
            while self.lfu[k].bytes > self.lfu[k].capacity:
                lfu_evict(&self.lfu[k], self.known, self.counted, k, self.minute, self.decay_minutes)
        for c in range(QUEUED):
            self.s3fifo[c].pressed &= self.s3fifo[c].bytes >= self.s3fifo[c].capacity - self.s3fifo[c].capacity // 8
            while self.s3fifo[c].bytes > self.s3fifo[c].capacity:
                s3fifo_evict(&self.s3fifo[c], self.known, c, self.uses)

    cdef void reflect(self, int cache) noexcept:
        """The shard's own cache has the policy and the size of this one from here on; -1: of none."""
        if cache != self.mirrored:
            self.mirrored = cache
            self.own_mirrored = self.mirror = 0

    # Uses ---------------------------------------------------------------------------------------------
    cdef void read(
        self, const char* key, size_t n, uint64_t hash, int64_t size, bint found, uint16_t minute, uint64_t total,
        uint64_t missed_of_all
    ) noexcept:
        """A read of a key in the sample, which the shard's own cache had or not (then `size` is a guess); with it there were
        `total` reads of all keys, of which its own cache missed so many."""
        cdef uint16_t id = self.find(hash)
        cdef bint nowhere, older = found
        cdef bint[CACHES] missed
        cdef double drawn = kache_random() >> 11
        cdef Known* known
        cdef int i, k
        self.count_read(total, missed_of_all)
        self.own += not found
        self.minute = minute
        self.uses += 1
        if id == NONE:
            id = self.create(key, n, hash, size)
        else:
            older = found and self.known[id].flags & OLDER
            if found:
                self.resize(id, size)
        known = &self.known[id]
        nowhere = not found and known.flags & MISSED
        for k in range(SIZES):
            missed[LRU + k] = nowhere or known.zone > k
            missed[LFU + k] = nowhere or not self.counted[id].counters[k] & KNOWN
        for k in range(QUEUED):
            missed[S3FIFO + k] = nowhere or not s3fifo_has(known, k)
        if older:
            # It was there before anybody simulated: a cache that is not full yet would have kept it.
            for i in range(CACHES):
                missed[i] &= not self.has_room(i, known.size)
        for i in range(CACHES):
            if found:
                self.misses[i] += missed[i]
            else:
                self.shared[i] += missed[i]
            self.recent[i] += missed[i]
        if self.mirrored >= 0:
            self.own_mirrored += not found
            self.mirror += missed[self.mirrored]
        if not missed[LRU + PRESENT_SIZE]:
            known.flags |= WAS_READ
        if found:
            lru_touch(&self.lru, self.known, id)
        for k in range(SIZES):
            if self.counted[id].counters[k] & KNOWN:
                if not nowhere:
                    lfu_touch(&self.counted[id], k, minute, self.decay_minutes, self.log_factor, drawn)
            elif found:
                lfu_insert(&self.lfu[k], self.known, self.counted, id, k, minute, self.decay_minutes)
        for k in range(QUEUED):
            if s3fifo_has(known, k):
                if not nowhere:
                    s3fifo_touch(&self.s3fifo[k], self.known, id, k, self.uses)
            elif found:
                s3fifo_insert(&self.s3fifo[k], self.known, id, k, self.uses, self.lasting)
        self.weigh(missed)
        self.counted[id].minute = minute
        self.keep(id, found)
        if found:
            known.flags &= ~<uint8_t> MISSED
            self.hits += 1
            self.prefix_hits[known.prefix] += 1
        else:
            known.flags |= MISSED

    cdef bint has_room(self, int cache, int64_t size) noexcept:
        """Whether it need not evict anything for a key of this size."""
        if cache < LFU:
            return self.lru.bytes[cache] + size <= self.lru.capacity[cache]
        if cache < S3FIFO:
            return self.lfu[cache - LFU].bytes + size <= self.lfu[cache - LFU].capacity
        return self.s3fifo[cache - S3FIFO].bytes + size <= self.s3fifo[cache - S3FIFO].capacity

    cdef void count_read(self, uint64_t total, uint64_t missed) noexcept:
        cdef double passed
        if total > self.total and self.sampled:
            passed = (total - self.total) * <double> self.below / (1 << RATE_BITS)
            self.expected += passed
            self.recent_expected += passed
            if missed > self.missed:
                self.own_expected += (missed - self.missed) * <double> self.below / (1 << RATE_BITS)
        self.total = total
        self.missed = missed
        self.sampled += 1
        self.age()

    cdef void age(self) noexcept:
        cdef int i
        if self.recent_expected > SHORT:
            self.recent_expected /= 2
            for i in range(CACHES):
                self.recent[i] /= 2
        if self.expected > LONG:
            self.expected /= 2
            self.own_expected /= 2
            self.own /= 2
            self.own_mirrored /= 2
            self.mirror /= 2
            self.hits /= 2
            self.lru.evicted_bytes /= 2
            self.lru.evicted_unread /= 2
            for i in range(CACHES):
                self.shared[i] /= 2
                self.misses[i] /= 2
            for i in range(PREFIXES):
                self.prefix_hits[i] /= 2

    cdef void write(self, const char* key, size_t n, uint64_t hash, int64_t size, uint16_t minute) noexcept:
        """A key in the sample is stored, or changed."""
        cdef uint16_t id = self.find(hash)
        cdef double drawn = kache_random() >> 11
        cdef Known* known
        cdef bint fills
        cdef int k
        self.minute = minute
        self.uses += 1
        if id == NONE:
            id = self.create(key, n, hash, size)
        else:
            self.resize(id, size)
        known = &self.known[id]
        fills = known.flags & MISSED
        known.flags &= ~<uint8_t> MISSED
        # What was missed by the shard was not moved when it was read: it may have been in some of the sizes.
        lru_touch(&self.lru, self.known, id)
        for k in range(SIZES):
            if not self.counted[id].counters[k] & KNOWN:
                lfu_insert(&self.lfu[k], self.known, self.counted, id, k, minute, self.decay_minutes)
            elif not fills:
                lfu_touch(&self.counted[id], k, minute, self.decay_minutes, self.log_factor, drawn)
        for k in range(QUEUED):
            if not s3fifo_has(known, k):
                s3fifo_insert(&self.s3fifo[k], self.known, id, k, self.uses, self.lasting)
            elif not fills:
                s3fifo_touch(&self.s3fifo[k], self.known, id, k, self.uses)
        self.counted[id].minute = minute
        self.keep(id, True)

    cdef void forget(self, uint64_t hash) noexcept:
        """It was deleted, or has expired."""
        cdef uint16_t id = self.find(hash)
        if id != NONE:
            self.drop(id)
            self.keep(id, False)
            self.known[id].flags &= ~<uint8_t> MISSED

    # What the shard itself has ------------------------------------------------------------------------
    cdef void hold(self, const char* key, size_t n, uint64_t hash, int64_t size) noexcept:
        """The shard's own cache has a key of the sample, whatever was seen of it."""
        cdef uint16_t id = self.find(hash)
        if id == NONE:
            id = self.create(key, n, hash, size)
            self.keep(id, True)
            self.known[id].flags |= OLDER
            return
        self.resize(id, size)
        if not self.known[id].flags & HELD:
            self.keep(id, True)

    cdef void lose(self, uint64_t hash) noexcept:
        """The shard's own cache has evicted it."""
        cdef uint16_t id = self.find(hash)
        if id != NONE:
            self.keep(id, False)

    cdef void keep(self, uint16_t id, bint held) noexcept:
        """A key that was used just now, or is gone: whether the shard's own cache has it."""
        if held != (self.known[id].flags & HELD != 0):
            self.held += 1 if held else -1
            self.held_bytes += self.known[id].size if held else -<int64_t> self.known[id].size
        self.known[id].flags = self.known[id].flags & ~<uint8_t> (HELD | OLDER) | (HELD if held else 0)

    # Keys ---------------------------------------------------------------------------------------------
    cdef uint16_t find(self, uint64_t hash) noexcept:
        cdef uint16_t id = self.chains[(hash >> RATE_BITS) % CHAINS]
        while id != NONE and self.known[id].hash != hash:
            id = self.known[id].chained
        return id

    cdef bint is_idle(self, uint16_t id) noexcept:
        """Whether no cache has this key, nor the shard's own one."""
        cdef Known* known = &self.known[id]
        cdef int k
        cdef bint found = known.flags & HELD or known.zone < SIZES
        for k in range(SIZES):
            found |= self.counted[id].counters[k] & KNOWN
        for k in range(QUEUED):
            found |= s3fifo_has(known, k)
        return not found

    cdef uint16_t create(self, const char* key, size_t n, uint64_t hash, int64_t size) noexcept:
        cdef uint32_t chain = (hash >> RATE_BITS) % CHAINS
        cdef uint16_t id
        cdef int i
        if self.vacant == NONE:
            for i in range(SEARCH):
                self.hand = (self.hand + 1) % UNIVERSE
                if self.is_idle(<uint16_t> self.hand):
                    break
            # All are in a cache: the one that the largest LRU would drop next.
            self.release(
                <uint16_t> self.hand if self.lru.tail == NONE or self.is_idle(<uint16_t> self.hand) else self.lru.tail)
        id = self.vacant
        self.vacant = self.known[id].chained
        self.known[id].hash = hash
        self.known[id].size = bounded(size)
        self.known[id].flags = IN_USE
        self.known[id].prefix = self.prefix_of(key, n)
        self.known[id].chained = self.chains[chain]
        self.chains[chain] = id
        return id

    cdef void release(self, uint16_t id) noexcept:
        """The key is known no more."""
        cdef uint16_t* place = &self.chains[(self.known[id].hash >> RATE_BITS) % CHAINS]
        self.drop(id)
        self.keep(id, False)
        while place[0] != id:
            place = &self.known[place[0]].chained
        place[0] = self.known[id].chained
        self.known[id].flags = 0
        self.known[id].chained = self.vacant
        self.vacant = id

    cdef void drop(self, uint16_t id) noexcept:
        """It is in no cache any more."""
        cdef int k
        lru_drop(&self.lru, self.known, id)
        for k in range(SIZES):
            lfu_drop(&self.lfu[k], &self.counted[id], k, self.known[id].size)
        for k in range(QUEUED):
            s3fifo_drop(&self.s3fifo[k], self.known, id, k)

    cdef void resize(self, uint16_t id, int64_t size) noexcept:
        cdef Known* known = &self.known[id]
        cdef int64_t change = <int64_t> bounded(size) - <int64_t> known.size
        cdef int k
        if change == 0:
            return
        if change > 0:
            self.outgrow(id, bounded(size))
        known.size += <uint32_t> change
        if known.flags & HELD:
            self.held_bytes += change
        lru_resize(&self.lru, self.known, id, change)
        for k in range(SIZES):
            if self.counted[id].counters[k] & KNOWN:
                self.lfu[k].bytes += change
                while self.lfu[k].bytes > self.lfu[k].capacity:
                    lfu_evict(&self.lfu[k], self.known, self.counted, k, self.minute, self.decay_minutes)
        for k in range(QUEUED):
            if s3fifo_has(known, k):
                self.s3fifo[k].bytes += change
                if known.states[k] & WHERE == SMALL:
                    self.s3fifo[k].small_bytes += change
                while self.s3fifo[k].bytes > self.s3fifo[k].capacity:
                    s3fifo_evict(&self.s3fifo[k], self.known, k, self.uses)

    cdef void outgrow(self, uint16_t id, uint32_t size) noexcept:
        """A key that is soon larger than a whole cache leaves it alone, before all others had to."""
        cdef int k
        lru_outgrow(&self.lru, self.known, id, size)
        for k in range(SIZES):
            if size > self.lfu[k].capacity:
                lfu_drop(&self.lfu[k], &self.counted[id], k, self.known[id].size)
        for k in range(QUEUED):
            if size > self.s3fifo[k].capacity and s3fifo_has(&self.known[id], k):
                s3fifo_drop(&self.s3fifo[k], self.known, id, k)

    cdef uint8_t prefix_of(self, const char* key, size_t n) noexcept:
        """The number of the key's prefix: up to its first ":", "/", "." or "|"; of all others it is that of no prefix."""
        cdef size_t size = 0, at
        cdef int i
        for at in range(min(n, <size_t> (PREFIX_SIZE - 1))):
            if key[at] == b":" or key[at] == b"/" or key[at] == b"." or key[at] == b"|":
                size = at + 1
                break
        if size == 0:
            return 0
        for i in range(1, self.prefix_count):
            if self.names[i][0] == <char> size and memcmp(&self.names[i][1], key, size) == 0:
                return <uint8_t> i
        if self.prefix_count == 0:
            self.prefix_count = 1
        if self.prefix_count == PREFIXES:
            return 0
        i = self.prefix_count
        self.prefix_count += 1
        self.names[i][0] = <char> size
        memcpy(&self.names[i][1], key, size)
        return <uint8_t> i

    # What follows -------------------------------------------------------------------------------------
    cdef void weigh(self, bint* missed) noexcept:
        """A read, and which caches would have missed it."""
        cdef bint lost = missed[CANDIDATES[self.followed]]
        cdef int i
        for i in range(FOLLOWERS):
            if lost != missed[CANDIDATES[i]] or lost:
                self.evidence[i] = max(0.0, self.evidence[i] + lost - missed[CANDIDATES[i]] - WORTH * lost)
                self.due |= self.evidence[i] > ENOUGH

    cdef void follow(self, int followed) noexcept:
        """This policy is followed from here on."""
        self.followed = followed
        self.due = False
        memset(self.evidence, 0, sizeof(self.evidence))

    cdef int best(self, int followed) noexcept:
        """The policy to follow: the one followed so far unless another one would clearly have missed less."""
        cdef int i, best = 0
        if followed != self.followed:
            # Another policy was in force meanwhile.
            self.follow(followed)
            return followed
        for i in range(1, FOLLOWERS):
            if self.evidence[i] > self.evidence[best]:
                best = i
        if self.evidence[best] <= ENOUGH:
            self.due = False
            return followed
        self.follow(best)
        return best

    def check(self):
        """Asserts that lists, counts and bytes are those of the keys, and that no cache has more than its room."""
        cdef uint16_t id
        cdef int chain, cache
        cdef int64_t held_bytes = 0
        cdef uint32_t held = 0, known = 0, vacant = 0
        id = self.vacant
        while id != NONE:
            vacant += 1
            assert vacant <= UNIVERSE and not self.known[id].flags and self.is_idle(id), "a vacant place is in use"
            id = self.known[id].chained
        for chain in range(CHAINS):
            id = self.chains[chain]
            while id != NONE:
                known += 1
                assert known <= UNIVERSE and self.known[id].flags & IN_USE, "a chain leads to a vacant place"
                assert <int> ((self.known[id].hash >> RATE_BITS) % CHAINS) == chain, "a key is in another key's chain"
                assert in_sample(self.known[id].hash, self.below), "a key is not in the sample"
                assert self.find(self.known[id].hash) == id, "a key is there twice"
                if self.known[id].flags & HELD:
                    held += 1
                    held_bytes += self.known[id].size
                id = self.known[id].chained
        assert known + vacant == UNIVERSE, "a place is lost"
        assert held == self.held and held_bytes == self.held_bytes, "what the shard holds is counted wrongly"
        self.check_lru()
        for cache in range(SIZES):
            self.check_lfu(cache)
        for cache in range(QUEUED):
            self.check_s3fifo(cache)

    cdef int check_lru(self) except -1:
        cdef uint16_t id = self.lru.head, before = NONE
        cdef uint16_t[SIZES] edges
        cdef int64_t[SIZES] bytes
        cdef uint32_t linked = 0, there = 0
        cdef int k
        for k in range(SIZES):
            edges[k] = NONE
            bytes[k] = 0
        while id != NONE:
            linked += 1
            assert linked <= UNIVERSE and self.known[id].zone < SIZES, "what no LRU has is in their list"
            assert self.known[id].prev[LRU_LINK] == before, "the list of LRU is torn"
            for k in range(self.known[id].zone, SIZES):
                edges[k] = id
                bytes[k] += self.known[id].size
            before = id
            id = self.known[id].next[LRU_LINK]
        assert before == self.lru.tail, "the list of LRU ends elsewhere"
        for k in range(UNIVERSE):
            there += self.known[k].zone < SIZES
        assert there == linked, "what an LRU has is not in their list"
        for k in range(SIZES):
            assert edges[k] == self.lru.edges[k], f"the edge of LRU {k} is elsewhere"
            assert bytes[k] == self.lru.bytes[k] <= self.lru.capacity[k], f"LRU {k} has other bytes"
        return 0

    cdef int check_lfu(self, int k) except -1:
        cdef Frequency* lfu = &self.lfu[k]
        cdef int64_t bytes = 0
        cdef uint32_t at, listed = 0
        for at in range(UNIVERSE):
            listed += self.counted[at].counters[k] != ABSENT
            if self.counted[at].counters[k] & KNOWN:
                bytes += self.known[at].size
        seen = set()
        for at in range(lfu.count):
            assert self.counted[lfu.ids[at]].counters[k] != ABSENT, f"LFU {k} draws from what is gone"
            seen.add(lfu.ids[at])
        assert len(seen) == lfu.count == listed, f"LFU {k} has a key twice, or does not draw from one"
        assert bytes == lfu.bytes <= lfu.capacity, f"LFU {k} has other bytes"
        return 0

    cdef int check_s3fifo(self, int c) except -1:
        cdef Queues* cache = &self.s3fifo[c]
        cdef uint16_t id, before
        cdef int64_t bytes = 0, small = 0
        cdef uint32_t residents = 0, mains = 0, there = 0
        cdef int list, at
        for list in range(LISTS):
            id, before = cache.head[list], NONE
            while id != NONE:
                residents += 1
                assert residents <= UNIVERSE and s3fifo_has(&self.known[id], c), f"S3-FIFO {c} lists what it has not"
                assert list_of(self.known[id].states[c]) == list, f"a key of S3-FIFO {c} is in another list"
                assert self.known[id].prev[c] == before, f"a list of S3-FIFO {c} is torn"
                bytes += self.known[id].size
                if list == SMALL_LIST:
                    small += self.known[id].size
                else:
                    mains += 1
                before = id
                id = self.known[id].next[c]
            assert before == cache.tail[list], f"a list of S3-FIFO {c} ends elsewhere"
        for at in range(UNIVERSE):
            there += s3fifo_has(&self.known[at], c)
        assert there == residents == cache.residents and mains == cache.mains, f"S3-FIFO {c} has another number of keys"
        assert bytes == cache.bytes <= cache.capacity and small == cache.small_bytes, f"S3-FIFO {c} has other bytes"
        return 0
    cdef double likeness(self, int policy) noexcept:
        """How many misses the shard's own cache has for one of the simulated cache that mirrors it, if that is of this policy."""
        if self.mirrored < 0 or min(self.mirrored // SIZES, 2) != policy:
            return 1
        return max(0.8, min((self.own_mirrored + FEW) / (self.mirror + FEW), 1.25))

    def report(self):
        """What is known, as numbers that add up over shards (all but `rate`, those of the sample divided by it):

        expected reads, hits (of the shard's own cache), base in bytes; misses by policy and size (eighths of the base) and of
        the narrow S3-FIFO; recent misses of those that auto follows; of the LRU of the present size the bytes, those not
        read since they were stored, those evicted, those evicted unread; prefixes: name, bytes, hits.
        """
        cdef double scale = <double> (1 << RATE_BITS) / self.below if self.below else 0.0
        cdef double absent = scale * (self.own_expected + FEW) / (self.own + FEW), present = scale / (1 + self.surplus)
        cdef dict misses = {
            name: [self.shared[at] * absent + self.misses[at] * present for at in range(i * SIZES, (i + 1) * SIZES)]
            for i, name in enumerate(POLICIES)
        }
        cdef int64_t unread = 0
        cdef list sizes = [0] * PREFIXES
        cdef Known* known
        cdef int i
        for i, name in enumerate(POLICIES):
            misses[name][PRESENT_SIZE] *= self.likeness(i)
        for i in range(UNIVERSE):
            known = &self.known[i]
            if known.zone <= PRESENT_SIZE:
                sizes[known.prefix] += known.size
                if not known.flags & WAS_READ:
                    unread += known.size
        return {
            "rate": self.below / <double> (1 << RATE_BITS),
            "base": self.base,
            "sampled": self.sampled,
            "reads": self.expected * scale,
            "hits": self.hits * scale,
            "misses": misses,
            "recent_reads": self.recent_expected * scale,
            "recent": {
                "lru": self.recent[LRU + PRESENT_SIZE] * scale,
                "lfu": self.recent[LFU + PRESENT_SIZE] * scale,
                "s3fifo": self.recent[S3FIFO + PRESENT_SIZE] * scale,
                "s3fifo-narrow": self.recent[CACHES - 1] * scale,
            },
            "bytes": self.lru.bytes[PRESENT_SIZE] * scale,
            "unread": unread * scale,
            "evicted": self.lru.evicted_bytes * scale,
            "evicted_unread": self.lru.evicted_unread * scale,
            "prefixes": [
                (self.names[i][1:1 + self.names[i][0]], sizes[i] * scale, self.prefix_hits[i] * scale)
                for i in range(max(self.prefix_count, 1)) if sizes[i] or self.prefix_hits[i]
            ],
        }
