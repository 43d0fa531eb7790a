"""Miniature simulations: what other policies, and other sizes, would miss of this shard's traffic.

    SHARDS (Waldspurger et al., FAST 2015) samples keys by their hash, so that of a sampled key every use is seen; a cache
    that is smaller by the sampling rate misses about as often with them as one of full size does with all (miniature
    simulations, ATC 2017). Here are nineteen such caches over one table of keys:

        hash ─► key: size, prefix ─┬─► LRU      1/8  1/4  1/2  1  2  4  of the present memory
                                   ├─► LFU      "
                                   ├─► S3-FIFO  "
                                   └─► S3-FIFO  with a hundredth for what is new, 1

The rate is such that the cache of the present size holds about PRESENT keys, and never more than a sixteenth of all: the
time that it takes is under a hundredth of the shard's, the memory under 1 MiB. Misses are divided by the number of reads
that were to be expected in the sample, not by that of those seen (SHARDS-adj): which of the hottest keys are in the sample
is chance, and they are hits in every size. Which of the others are in it makes the misses of all sizes too many or too few
together, by some percent; how many the shard's own cache has had is known of all keys and of those in the sample, and the
misses that are told are put right by the one over the other (a ratio estimator).

S3-FIFO's main queue is in the order of last use, as the shard's is: in that of coming, as it was invented, it misses seven
points more of a loop that just does not fit, and about the same of all else.

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
    LRU = 0
    LFU = 1
    S3FIFO = 2
    NONE = 0xFFFF
    PRESENT_SIZE = 3            # the place among the sizes of a policy: eighths are 1 << place

    WHERE = 3                   # two bits of a state
    ABSENT = 0
    SMALL = 1
    MAIN = 2
    GHOST = 3
    ONE_USE = 4                 # two more, of S3-FIFO
    USES = 12
    WAS_READ = 4                # the same place, of LRU
    KNOWN = 128                 # of LFU: it is there, and the rest is a counter
    COUNTER = 127
    FRESH_COUNTER = 5

    MISSED = 1                  # of a key's flags: its last use was a miss
    IN_USE = 2

    LFU_SAMPLES = 10
    FOLLOWERS = 3
    SEARCH = 64                 # keys looked at for one that is in no cache

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
cdef int[FOLLOWERS] CANDIDATES = [PRESENT_SIZE, S3FIFO * SIZES + PRESENT_SIZE, CACHES - 1]

POLICIES = ("lru", "lfu", "s3fifo")
FOLLOWED = ("lru", "s3fifo", "s3fifo-narrow")


cdef inline bint is_resident(Miniature* cache, uint16_t id) noexcept nogil:
    if cache.policy == LFU:
        return cache.state[id] != ABSENT
    return cache.state[id] & WHERE in (SMALL, MAIN)


cdef inline void link_first(Miniature* cache, int list, uint16_t id) noexcept nogil:
    cache.prev[id] = NONE
    cache.next[id] = cache.head[list]
    if cache.head[list] != NONE:
        cache.prev[cache.head[list]] = id
    else:
        cache.tail[list] = id
    cache.head[list] = id


cdef inline void unlink(Miniature* cache, int list, uint16_t id) noexcept nogil:
    if cache.prev[id] != NONE:
        cache.next[cache.prev[id]] = cache.next[id]
    else:
        cache.head[list] = cache.next[id]
    if cache.next[id] != NONE:
        cache.prev[cache.next[id]] = cache.prev[id]
    else:
        cache.tail[list] = cache.prev[id]


cdef class Miniatures:
    """Caches of some of the keys, which say how all of them would do. `below` 0: nothing is sampled."""

    def __cinit__(self):
        cdef int i
        cdef char* at
        self.block = calloc(CACHES, UNIVERSE * 5)
        if self.block == NULL:
            raise MemoryError("no memory for the miniature simulations")
        self.memory = CACHES * UNIVERSE * 5 + self.__sizeof__()
        at = <char*> self.block
        for i in range(CACHES):
            self.caches[i].policy = i // SIZES if i < 3 * SIZES else S3FIFO
            self.caches[i].small_share = 100 if i < 3 * SIZES else 10
            self.caches[i].prev = <uint16_t*> at
            self.caches[i].next = <uint16_t*> (at + 2 * UNIVERSE)
            self.caches[i].state = <uint8_t*> (at + 4 * UNIVERSE)
            at += 5 * UNIVERSE
        self.decay_minutes = 1
        self.log_factor = 10
        self.followed = FOLLOW_S3FIFO
        self.clear()

    def __dealloc__(self):
        free_plain(self.block)

    cdef void clear(self) noexcept:
        """Forgets every key."""
        cdef int i
        for i in range(CACHES):
            self.caches[i].head[0] = self.caches[i].head[1] = self.caches[i].tail[0] = self.caches[i].tail[1] = NONE
            self.caches[i].residents = self.caches[i].ghosts = 0
            self.caches[i].bytes = self.caches[i].small_bytes = 0
            self.caches[i].pressed = False
        memset(self.block, 0, CACHES * UNIVERSE * 5)
        memset(self.chains, 255, sizeof(self.chains))
        memset(self.flags, 0, sizeof(self.flags))
        memset(self.residencies, 0, sizeof(self.residencies))
        self.vacant = NONE
        for i in range(UNIVERSE - 1, -1, -1):
            self.chained[i] = self.vacant
            self.vacant = <uint16_t> i
        self.reset()

    cdef void reset(self) noexcept:
        """Counts anew; keys stay."""
        cdef int i
        for i in range(CACHES):
            self.caches[i].misses = self.caches[i].recent = 0
        self.expected = self.recent_expected = self.hits = self.evicted_bytes = self.evicted_unread = 0
        self.own_expected = self.own = 0
        self.sampled = 0
        self.follow(self.followed)
        memset(self.prefix_hits, 0, sizeof(self.prefix_hits))

    cdef void configure(self, uint32_t decay_minutes, uint32_t log_factor) noexcept:
        """The settings of LFU."""
        self.decay_minutes = decay_minutes
        self.log_factor = log_factor

    cdef int tune(self, uint32_t below, int64_t base) except -1:
        """The rate, of 1 << RATE_BITS, and the present size in bytes."""
        cdef int i
        cdef uint16_t id
        cdef int64_t scaled = (base * below) >> (RATE_BITS + 3)
        if base != self.base:
            self.reset()
        if below < self.below:
            for id in range(UNIVERSE):
                if self.flags[id] & IN_USE and self.hashes[id] & ((1 << RATE_BITS) - 1) >= below:
                    self.release(id)
        self.below = below
        self.base = base
        for i in range(CACHES):
            self.caches[i].capacity = scaled << (i % SIZES if i < 3 * SIZES else PRESENT_SIZE)
            self.caches[i].pressed &= self.caches[i].bytes >= self.caches[i].capacity - self.caches[i].capacity // 8
            while self.caches[i].bytes > self.caches[i].capacity:
                self.evict(&self.caches[i])
        return 0

    # Uses ---------------------------------------------------------------------------------------------
    cdef void read(
        self, const char* key, size_t n, uint64_t hash, int64_t size, bint found, uint16_t minute, uint64_t total,
        uint64_t missed_of_all
    ) noexcept:
        """A read of a key in the sample, which the shard's own cache had or not (then `size` is a guess); with it there were
        `total` reads of all keys, of which its own cache missed so many."""
        cdef uint16_t id = self.find(hash)
        cdef bint nowhere, older = id == NONE and found
        cdef bint[CACHES] missed
        cdef int i
        self.count_read(total, missed_of_all)
        self.own += not found
        self.minute = minute
        if id == NONE:
            id = self.create(key, n, hash, size)
        elif found:
            self.resize(id, size)
        nowhere = not found and self.flags[id] & MISSED
        for i in range(CACHES):
            missed[i] = nowhere or not is_resident(&self.caches[i], id)
            if not missed[i]:
                self.touch(&self.caches[i], id, True)
                continue
            if older and self.caches[i].bytes + self.sizes[id] <= self.caches[i].capacity:
                # It was there before anybody simulated: a cache that is not full yet would have kept it.
                missed[i] = False
                self.insert(&self.caches[i], id)
                continue
            self.caches[i].misses += 1
            self.caches[i].recent += 1
            if found:
                self.insert(&self.caches[i], id)
        self.weigh(missed)
        self.minutes[id] = minute
        if found:
            self.flags[id] &= ~<uint8_t> MISSED
            self.hits += 1
            self.prefix_hits[self.prefixes[id]] += 1
        else:
            self.flags[id] |= MISSED

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
                self.caches[i].recent /= 2
        if self.expected > LONG:
            self.expected /= 2
            self.own_expected /= 2
            self.own /= 2
            self.hits /= 2
            self.evicted_bytes /= 2
            self.evicted_unread /= 2
            for i in range(CACHES):
                self.caches[i].misses /= 2
            for i in range(PREFIXES):
                self.prefix_hits[i] /= 2

    cdef void write(self, const char* key, size_t n, uint64_t hash, int64_t size, uint16_t minute) noexcept:
        """A key in the sample is stored, or changed."""
        cdef uint16_t id = self.find(hash)
        cdef bint fills
        cdef int i
        self.minute = minute
        if id == NONE:
            id = self.create(key, n, hash, size)
        else:
            self.resize(id, size)
        fills = self.flags[id] & MISSED
        self.flags[id] &= ~<uint8_t> MISSED
        for i in range(CACHES):
            if not is_resident(&self.caches[i], id):
                self.insert(&self.caches[i], id)
            elif not fills:
                self.touch(&self.caches[i], id, False)
        self.minutes[id] = minute

    cdef void forget(self, uint64_t hash) noexcept:
        """It was deleted, or has expired."""
        cdef uint16_t id = self.find(hash)
        if id != NONE:
            self.drop(id)
            self.flags[id] &= ~<uint8_t> MISSED

    # Keys ---------------------------------------------------------------------------------------------
    cdef uint16_t find(self, uint64_t hash) noexcept:
        cdef uint16_t id = self.chains[(hash >> RATE_BITS) % CHAINS]
        while id != NONE and self.hashes[id] != hash:
            id = self.chained[id]
        return id

    cdef uint16_t create(self, const char* key, size_t n, uint64_t hash, int64_t size) noexcept:
        cdef uint16_t id = self.vacant
        cdef uint32_t chain = (hash >> RATE_BITS) % CHAINS
        cdef int i
        if id == NONE:
            for i in range(SEARCH):
                self.hand = (self.hand + 1) % UNIVERSE
                if self.residencies[self.hand] == 0:
                    break
            # All are in a cache: the one that the largest LRU would drop next.
            self.release(<uint16_t> self.hand if self.residencies[self.hand] == 0 else self.caches[SIZES - 1].tail[0])
            id = self.vacant
        self.vacant = self.chained[id]
        self.hashes[id] = hash
        self.sizes[id] = <uint32_t> min(max(size, 1), <int64_t> 0x7FFFFFFF)
        self.flags[id] = IN_USE
        self.prefixes[id] = self.prefix_of(key, n)
        self.chained[id] = self.chains[chain]
        self.chains[chain] = id
        return id

    cdef void release(self, uint16_t id) noexcept:
        """The key is known no more."""
        cdef uint16_t* place
        if id == NONE:
            id = <uint16_t> self.hand
        place = &self.chains[(self.hashes[id] >> RATE_BITS) % CHAINS]
        self.drop(id)
        while place[0] != id:
            place = &self.chained[place[0]]
        place[0] = self.chained[id]
        self.flags[id] = 0
        self.chained[id] = self.vacant
        self.vacant = id

    cdef void drop(self, uint16_t id) noexcept:
        """It is in no cache any more."""
        cdef int i
        for i in range(CACHES):
            if is_resident(&self.caches[i], id):
                self.remove(&self.caches[i], id)
            self.caches[i].state[id] = ABSENT

    cdef void resize(self, uint16_t id, int64_t size) noexcept:
        cdef int64_t change = min(max(size, 1), <int64_t> 0x7FFFFFFF) - <int64_t> self.sizes[id]
        cdef Miniature* cache
        cdef int i
        if change == 0:
            return
        self.sizes[id] += <uint32_t> change
        for i in range(CACHES):
            cache = &self.caches[i]
            if not is_resident(cache, id):
                continue
            cache.bytes += change
            if cache.policy == S3FIFO and cache.state[id] & WHERE == SMALL:
                cache.small_bytes += change
            while cache.bytes > cache.capacity:
                self.evict(cache)

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

    # Policies -----------------------------------------------------------------------------------------
    cdef void touch(self, Miniature* cache, uint16_t id, bint reading) noexcept:
        cdef uint32_t counter
        if cache.policy == LRU:
            unlink(cache, 0, id)
            link_first(cache, 0, id)
            if reading:
                cache.state[id] |= WAS_READ
        elif cache.policy == LFU:
            counter = self.counter_of(cache, id)
            if counter < COUNTER and (kache_random() >> 11) * (
                (counter - 5.0 if counter > 5 else 0.0) * self.log_factor + 1.0) < 9007199254740992.0:
                counter += 1
            cache.state[id] = KNOWN | <uint8_t> counter
        else:
            if cache.state[id] & USES < USES:
                cache.state[id] += ONE_USE
            if cache.state[id] & WHERE == MAIN:
                # In the order of last use, as in the shard.
                unlink(cache, 0, id)
                link_first(cache, 0, id)

    cdef uint32_t counter_of(self, Miniature* cache, uint16_t id) noexcept:
        """The counter of LFU, less one for every period without a use."""
        cdef uint32_t counter = cache.state[id] & COUNTER, periods
        if self.decay_minutes == 0:
            return counter
        periods = <uint16_t> (self.minute - self.minutes[id]) // self.decay_minutes
        return counter - periods if periods < counter else 0

    cdef void insert(self, Miniature* cache, uint16_t id) noexcept:
        cdef int64_t size = self.sizes[id]
        cdef uint8_t state = cache.state[id]
        cdef uint32_t since
        if size > cache.capacity:
            return
        while cache.bytes + size > cache.capacity:
            self.evict(cache)
        cache.bytes += size
        cache.residents += 1
        self.residencies[id] += 1
        if cache.policy == LRU:
            cache.state[id] = MAIN
            link_first(cache, 0, id)
        elif cache.policy == LFU:
            cache.state[id] = KNOWN | FRESH_COUNTER
            cache.prev[id] = <uint16_t> (cache.residents - 1)
            cache.next[cache.residents - 1] = id
        else:
            since = cache.ghosts - (<uint32_t> cache.prev[id] | <uint32_t> cache.next[id] << 16)
            # Before memory is full the small queue does not grow beyond its part, as in the shard: filled with all there is it
            # would take as long as the cache lasts until what it keeps is what S3-FIFO keeps.
            if state & WHERE == GHOST and since <= cache.residents or not cache.pressed and (
                cache.small_bytes + size) * 1000 > cache.capacity * cache.small_share:
                cache.state[id] = MAIN
                link_first(cache, 0, id)
            else:
                cache.state[id] = SMALL
                cache.small_bytes += size
                link_first(cache, 1, id)

    cdef void remove(self, Miniature* cache, uint16_t id) noexcept:
        cdef uint16_t last
        cache.residents -= 1
        self.residencies[id] -= 1
        cache.bytes -= self.sizes[id]
        if cache.policy == LFU:
            last = cache.next[cache.residents]
            cache.next[cache.prev[id]] = last
            cache.prev[last] = cache.prev[id]
        elif cache.policy == S3FIFO and cache.state[id] & WHERE == SMALL:
            cache.small_bytes -= self.sizes[id]
            unlink(cache, 1, id)
        else:
            unlink(cache, 0, id)
        cache.state[id] = ABSENT

    cdef void evict(self, Miniature* cache) noexcept:
        """One key less; there is one."""
        cdef uint16_t id
        if cache.policy == LFU:
            self.evict_rare(cache)
        elif cache.policy == S3FIFO:
            self.evict_queued(cache)
        else:
            id = cache.tail[0]
            if cache == &self.caches[PRESENT_SIZE]:
                self.evicted_bytes += self.sizes[id]
                if not cache.state[id] & WAS_READ:
                    self.evicted_unread += self.sizes[id]
            self.remove(cache, id)

    cdef void evict_rare(self, Miniature* cache) noexcept:
        cdef uint16_t id, rarest = NONE
        cdef uint32_t counter, least = 256
        cdef int i
        for i in range(LFU_SAMPLES):
            id = cache.next[below(cache.residents)]
            counter = self.counter_of(cache, id)
            if counter < least:
                least = counter
                rarest = id
        self.remove(cache, rarest)

    cdef void evict_queued(self, Miniature* cache) noexcept:
        cdef uint16_t id
        cache.pressed = True
        while True:
            if cache.tail[0] == NONE or (
                cache.tail[1] != NONE and cache.small_bytes * 1000 > cache.capacity * cache.small_share
            ):
                id = cache.tail[1]
                if cache.state[id] & USES:
                    unlink(cache, 1, id)
                    cache.small_bytes -= self.sizes[id]
                    cache.state[id] = MAIN
                    link_first(cache, 0, id)
                    continue
                self.remove(cache, id)
                cache.state[id] = GHOST
                cache.prev[id] = <uint16_t> cache.ghosts
                cache.next[id] = <uint16_t> (cache.ghosts >> 16)
                cache.ghosts += 1
                return
            id = cache.tail[0]
            if not cache.state[id] & USES:
                self.remove(cache, id)
                return
            unlink(cache, 0, id)
            cache.state[id] -= ONE_USE
            link_first(cache, 0, id)

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

    def report(self):
        """What is known, as numbers that add up over shards (all but `rate`, those of the sample divided by it):

        expected reads, hits (of the shard's own cache), base in bytes; misses by policy and size (eighths of the base) and of
        the narrow S3-FIFO; recent misses of those that auto follows; of the LRU of the present size the bytes, those not
        read since they were stored, those evicted, those evicted unread; prefixes: name, bytes, hits.
        """
        cdef double scale = <double> (1 << RATE_BITS) / self.below if self.below else 0.0
        cdef double right = scale * (self.own_expected + FEW) / (self.own + FEW)
        cdef Miniature* present = &self.caches[PRESENT_SIZE]
        cdef int64_t unread = 0
        cdef list sizes = [0] * PREFIXES
        cdef int i, k
        for i in range(UNIVERSE):
            if present.state[i] & WHERE == MAIN and self.flags[i] & IN_USE:
                sizes[self.prefixes[i]] += self.sizes[i]
                if not present.state[i] & WAS_READ:
                    unread += self.sizes[i]
        return {
            "rate": self.below / <double> (1 << RATE_BITS),
            "base": self.base,
            "sampled": self.sampled,
            "reads": self.expected * scale,
            "hits": self.hits * scale,
            "misses": {
                name: [self.caches[i * SIZES + k].misses * right for k in range(SIZES)]
                for i, name in enumerate(POLICIES)
            },
            "recent_reads": self.recent_expected * scale,
            "recent": {
                "lru": self.caches[PRESENT_SIZE].recent * scale,
                "lfu": self.caches[LFU * SIZES + PRESENT_SIZE].recent * scale,
                "s3fifo": self.caches[S3FIFO * SIZES + PRESENT_SIZE].recent * scale,
                "s3fifo-narrow": self.caches[CACHES - 1].recent * scale,
            },
            "bytes": present.bytes * scale,
            "unread": unread * scale,
            "evicted": self.evicted_bytes * scale,
            "evicted_unread": self.evicted_unread * scale,
            "prefixes": [
                (self.names[i][1:1 + self.names[i][0]], sizes[i] * scale, self.prefix_hits[i] * scale)
                for i in range(max(self.prefix_count, 1)) if sizes[i] or self.prefix_hits[i]
            ],
        }
