# Eviction: what goes when memory is full.
#
# LRU and LFU are found by sampling, with a pool of the best candidates seen that lives on from one eviction
# to the next (as Redis does), so that with a clock of one millisecond the hit ratio is that of an exact LRU to
# within the noise. A candidate is remembered by its hash, never by its address: it may be gone meanwhile.
#
# S3-FIFO (Yang et al., SOSP 2023) has a small queue for what is new, a main one, and ghosts:
#
#   new ──► small: a tenth of the bytes ── used meanwhile ──────────► main ──► idle for longest, less its uses: evicted
#     │                   └── not used ──► evicted, a ghost              ▲
#     └──── its ghost is there ──────────────────────────────────────────┘
#
# The small queue is real (queues.pyx); the end of the main one is found as that of LRU, by sampling. A real main queue gives
# what was used another round, a use less, each time that it comes to the end; here each use, three at most, is worth a part
# of the time in which an unused key comes to the end, and is taken off the time since the last use. So nothing is written
# when a key gets another chance, and the first that is found goes. Simulated on the traces of bench/traces.py that misses 0.1
# points more than real queues, 0.3 where popularity drifts, for nothing a key instead of 8 bytes. What is not in the main
# queue and older than the oldest key of the small one, left there under another name or by another policy, counts as being
# in the main one.

# How long a large value that was used is not given up for other shards: they give way first.
cdef uint32_t FRESH_MS = 30000
# How often it is tried in vain before there counts as nothing to evict.
cdef int MOST_TRIES = 1000
# How many keys of the small queue are looked at before one of the main queue goes although the small one is too large.
cdef int MOST_PROMOTED = 32
# What a use is worth, in eighths of the time in which an unused key of the main queue comes to its end. With less what is
# asked for again and again in a loop goes too soon, with more what was popular once stays too long.
cdef int64_t WORTH_OF_USE = 5
# The time is the mean of the last victims', so many of them.
cdef int64_t MEAN_OF = 64

# How many victims keys are looked at for in one go: neighbours in a table cost little more than one of them. And how many keys
# at most: all of what is looked at is to find room in the pool.
# The main queue of S3-FIFO gives one of three to five victims, so for each of those twice as many keys are looked at as for one
# of LRU: that is worth 0.1 points of misses on Zipf 0.9.
cdef enum:
    VICTIMS = 4
    MOST_LOOKED = 64
    TIMES_QUEUED = 2

# For how many keys of the small queue what they will touch is fetched together: entries of the next ones, the words that lead
# to those of as many behind them, the tables of those that follow.
cdef enum:
    TOGETHER = 4


@cython.final
cdef class Evictor:
    """Chooses and removes keys of one store until its memory fits. Budgets are in nanoseconds."""

    def __init__(self, Store store not None):
        self.store = store
        self.set_policy(store.policy)

    def set_policy(self, str policy not None):
        self.store.policy = policy
        self.volatile_only = policy.startswith("volatile")
        self.by_ttl = policy == "volatile-ttl"
        self.at_random = policy.endswith("random")
        self.store.lfu = policy.endswith("lfu")
        self.store.clocks = CLOCK_LRU
        if self.store.lfu:
            self.store.clocks = CLOCK_LFU
        elif policy.endswith("s3fifo") or policy.endswith("auto"):
            self.store.clocks = CLOCK_QUEUES
        self.auto = policy.endswith("auto")
        self.followed = FOLLOW_S3FIFO
        if self.store.miniatures is not None:
            self.store.miniatures.follow(FOLLOW_S3FIFO)
        self.store.queue_volatile = self.volatile_only
        self.store.forget_queues()
        self.follow(self.store.clocks == CLOCK_QUEUES, SHARES // SMALL_PART)

    cdef void follow(self, bint queued, int64_t small_share) noexcept:
        """S3-FIFO with this share of the data for what is new; or what the policy says otherwise."""
        if not queued:
            queue_clear(&self.store.queue)
        self.queued = queued
        self.ages = self.use_worth = 0
        self.store.queueing = queued and self.limited
        self.small_share = small_share
        self.pooled = 0

    cdef void set_limited(self, bint limited) noexcept:
        """Whether there is a limit. Without one no key is put into a queue; those that came before it count as in the main
        one, but for what is used while the first of the new ones are in the small queue."""
        self.limited = limited
        self.store.queueing = self.queued and limited
        if not limited:
            self.store.forget_queues()

    cdef int run(self, int64_t limit, int64_t budget_ns) except -1:
        """Evicts until memory is at most `limit`: 1, it fits; 2, the time was up; 0, nothing can be evicted."""
        cdef int64_t until_ns = 0
        cdef int n = 0
        if self.store.policy == "noeviction":
            return 0
        while self.store.used() > limit:
            if not self.evict_one():
                return 0
            n += 1
            if n & 15 == 0:
                if until_ns == 0:
                    until_ns = monotonic_ns() + budget_ns
                elif monotonic_ns() >= until_ns:
                    return 2
        return 1

    cdef inline bint is_spared(self, uint64_t hash) noexcept:
        """Whether it is the hash of a key that the command works on for which room is made."""
        cdef int i
        for i in range(self.spared_count):
            if self.spared[i] == hash:
                return True
        return False

    cdef inline bint spares(self, Entry* entry) except -1:
        if self.spared_count and self.is_spared(table_hash(entry_key(entry), entry_key_size(entry))):
            return True
        return self.spared_size != 0 and self.is_fresh(entry) and self.size_of(entry) >= self.spared_size

    cdef void choose(self) noexcept:
        """Goes over to the policy that would have missed least lately, if that is another one by now."""
        cdef int followed = self.store.miniatures.best(self.followed)
        if followed == self.followed:
            return
        self.followed = followed
        self.changed_policy += 1
        if followed == FOLLOW_LRU:
            self.follow(False, 0)
        elif followed == FOLLOW_NARROW:
            self.follow(True, SHARES // NARROW_PART)
        else:
            self.follow(True, SHARES // SMALL_PART)

    cdef int simulated_as(self) noexcept:
        """The miniature simulation of what this does at present; -1: there is none."""
        if self.by_ttl or self.at_random or self.volatile_only or self.store.policy == "noeviction":
            return -1
        if self.store.clocks == CLOCK_LFU:
            return LFU + PRESENT_SIZE
        if not self.queued:
            return LRU + PRESENT_SIZE
        return CACHES - 1 if self.small_share == SHARES // NARROW_PART else S3FIFO + PRESENT_SIZE

    @property
    def following(self):
        """The policy that is followed at present, by name: its own one unless it is `auto`."""
        return FOLLOWED[self.followed] if self.auto else self.store.policy

    cdef inline bint is_fresh(self, Entry* entry) noexcept:
        """Whether it was used within FRESH_MS (under LFU, whose clock has minutes, in this one or the one before)."""
        if self.store.lfu:
            return lfu_idle_minutes(entry.clock, self.store.now_ms) <= 1
        return (self.store.lru_clock | QUEUE_BITS) - entry.clock < FRESH_MS

    cdef int64_t size_of(self, Entry* entry) except -1:
        """Bytes of an entry with its value."""
        if holds_object(entry):
            return <int64_t> entry_memory(entry) + <int64_t> (<object> entry_object(entry)).memory
        return entry_memory(entry)

    cdef bint evict_one(self) except -1:
        if self.by_ttl:
            return self.evict_soonest()
        if self.at_random:
            return self.evict_random()
        if self.auto and self.store.sampled_below and self.store.miniatures.due:
            self.choose()
        return self.evict_queued() if self.queued else self.evict_coldest()

    cdef int tries(self) noexcept:
        """How often to look for a victim: where there are few keys, and those are spared, it is in vain."""
        cdef uint64_t keys = 0
        cdef int i
        for i in range(self.store.active):
            keys += self.store.databases[i].count
        return <int> min(<uint64_t> MOST_TRIES, 16 + 8 * keys)

    # Choosing -----------------------------------------------------------------------------------------
    cdef Database* pick_database(self) noexcept:
        """A database, by how many candidates it holds; NULL when there are none."""
        cdef uint64_t total = 0, n, drawn
        cdef int i
        for i in range(DATABASES):
            total += self.store.databases[i].expires if self.volatile_only else self.store.databases[i].count
        if total == 0:
            return NULL
        drawn = below(total)
        for i in range(DATABASES):
            n = self.store.databases[i].expires if self.volatile_only else self.store.databases[i].count
            if drawn < n:
                return &self.store.databases[i]
            drawn -= n
        return NULL

    cdef uint32_t pick_group(self, Database* db) noexcept:
        cdef uint64_t drawn = below(db.expires if self.volatile_only else db.count)
        cdef uint32_t group, n
        for group in range(GROUPS):
            n = db.heaps[group].count if self.volatile_only else db.counts[group]
            if drawn < n:
                return group
            drawn -= n
        return 0

    cdef inline void see(self, Database* db, uint32_t slot, Entry* entry) noexcept:
        """`consider`, later: the waits for the memory of several entries overlap."""
        kache_fetch(entry)
        self.seen[self.seen_count].entry = entry
        self.seen[self.seen_count].slot = slot
        self.seen_count += 1
        if self.seen_count == SEEN:
            self.consider_seen(db)

    cdef void consider_seen(self, Database* db) noexcept:
        cdef int i
        for i in range(self.seen_count):
            self.consider(db, self.seen[i].slot, self.seen[i].entry)
        self.seen_count = 0

    cdef void consider(self, Database* db, uint32_t slot, Entry* entry) noexcept:
        """Puts an entry into the pool if it is colder than the warmest there."""
        cdef int64_t score
        cdef uint64_t hash
        cdef int at, i
        if self.queued and self.is_small(entry):
            return
        score = self.score_of(entry)
        if self.pooled == POOL and score <= self.pool[0].score:
            return
        hash = table_hash(entry_key(entry), entry_key_size(entry))
        if slot >= SLOT_COUNT:
            slot = slot_of(entry_key(entry), entry_key_size(entry))
        for i in range(self.pooled):
            if self.pool[i].hash == hash:
                return
        at = self.pooled
        while at and self.pool[at - 1].score > score:
            at -= 1
        if self.pooled == POOL:
            # The warmest, at the front, makes room.
            at -= 1
            memmove(&self.pool[0], &self.pool[1], at * sizeof(Candidate))
        else:
            memmove(&self.pool[at + 1], &self.pool[at], (self.pooled - at) * sizeof(Candidate))
            self.pooled += 1
        self.pool[at].score = score
        self.pool[at].hash = hash
        self.pool[at].clock = entry.clock
        self.pool[at].slot = <uint16_t> slot
        self.pool[at].db = <uint16_t> (db - self.store.databases)

    cdef inline int64_t score_of(self, Entry* entry) noexcept:
        cdef uint32_t idle
        if self.store.lfu:
            return 255 - <int64_t> lfu_counter(entry.clock, self.store.now_ms, self.store.lfu_decay_time)
        # A clock with the bits of queues may be ahead by those.
        idle = (self.store.lru_clock | QUEUE_BITS) - entry.clock
        return idle - uses_of(entry.clock) * self.use_worth if self.queued else idle

    cdef inline bint was_used_since(self, Entry* entry, Candidate* seen) noexcept:
        """Whether a candidate was used after it was put into the pool. (Scores of LRU grow by themselves; what a use is worth
        changes.)"""
        return entry.clock != seen.clock if self.queued else self.score_of(entry) < seen.score

    cdef inline void learn(self, int64_t score) noexcept:
        """How long a victim of the main queue was idle, less what its uses were worth: what one is worth follows."""
        if self.ages == 0:
            self.ages = score * MEAN_OF
        else:
            # One that was restored as idle for a month tells little of the others.
            self.ages += min(score, 4 * self.ages // MEAN_OF) - self.ages // MEAN_OF
        self.ages = max(self.ages, MEAN_OF)
        self.use_worth = self.ages * WORTH_OF_USE // (8 * MEAN_OF)

    cdef int sample(self) except -1:
        """Looks at the keys for some victims. 0 when there are none to look at."""
        cdef Database* db = self.pick_database()
        cdef Heap* heap
        cdef Segment* segment
        cdef uint32_t group, slot, at, tried, wanted, i
        cdef uint64_t word, drawn
        cdef int each = <int> self.store.samples * (TIMES_QUEUED if self.queued else 1)
        if db == NULL:
            return 0
        self.looked = max(1, min(<int> VICTIMS, MOST_LOOKED // each))
        wanted = each * self.looked
        group = self.pick_group(db)
        if self.volatile_only:
            heap = &db.heaps[group]
            for i in range(wanted):
                if i and i % each == 0 and heap.count < 8 * wanted:
                    # Nearly all of a small group would be looked at, and nobody else.
                    heap = &db.heaps[self.pick_group(db)]
                self.see(db, SLOT_COUNT, heap_entry(heap, below(heap.count)))
            self.consider_seen(db)
            return 1
        drawn = below(db.counts[group])
        slot = group << GROUP_SHIFT
        while drawn >= db.slots[slot].count:
            drawn -= db.slots[slot].count
            slot += 1
        # Neighbours in a table have nothing in common but bits of a keyed hash: as good as a random sample.
        for tried in range(256):
            if db.slots[slot].count:
                segment = segment_of(&db.slots[slot], kache_random())
                at = below(segment.capacity) if segment.count else 0
                for i in range(segment.capacity if segment.count else 0):
                    word = segment.words[at]
                    at = at + 1 if at + 1 < segment.capacity else 0
                    if word:
                        self.see(db, slot, <Entry*> (word & POINTER_MASK))
                        wanted -= 1
                        if wanted == 0:
                            self.consider_seen(db)
                            return 1
            slot = (slot + 1) % SLOT_COUNT
        self.consider_seen(db)
        return 1

    cdef bint evict_coldest(self) except -1:
        cdef Candidate best
        cdef Place place
        cdef uint64_t* word
        cdef Entry* entry
        cdef int tries
        for tries in range(self.tries()):
            if (self.looked <= 0 or self.pooled == 0) and not self.sample():
                return False
            while self.pooled:
                self.pooled -= 1
                self.looked -= 1
                best = self.pool[self.pooled]
                place.db = &self.store.databases[best.db]
                if place.db.slots == NULL:
                    continue
                place.slot = best.slot
                place.hash = best.hash
                place.table = place.db.slots + place.slot
                word = word_of_hash(place.table, best.hash)
                if word == NULL:
                    continue
                entry = <Entry*> (word[0] & POINTER_MASK)
                if self.volatile_only and not entry.flags & HAS_TTL:
                    continue
                # Used since it was seen: it has to prove itself again.
                if self.was_used_since(entry, &best):
                    continue
                if not self.spares(entry):
                    if self.queued:
                        self.learn(self.score_of(entry))
                    self.evict_word(&place, word)
                    return True
        return False

    # S3-FIFO ------------------------------------------------------------------------------------------
    cdef inline bint is_small(self, Entry* entry) noexcept:
        """Whether it is in the small queue."""
        cdef Queue* queue = &self.store.queue
        cdef uint32_t now = self.store.lru_clock | QUEUE_BITS
        return not entry.clock & IN_MAIN and queue.count and (
            now - (entry.clock | QUEUE_BITS) <= now - (queue.first.since & ~<uint32_t> QUEUE_BITS))

    cdef inline bint small_is_full(self) noexcept:
        cdef int64_t data = self.store.used()
        cdef uint64_t keys = 0, expires = 0
        cdef int i
        if self.volatile_only:
            for i in range(self.store.active):
                keys += self.store.databases[i].count
                expires += self.store.databases[i].expires
            data = data // max(<int64_t> keys, 1) * <int64_t> expires
        return self.store.queue.bytes * SHARES > data * self.small_share

    cdef bint evict_queued(self) except -1:
        cdef int i
        self.store.pressed_at = self.store.used()
        for i in range(MOST_PROMOTED):
            if not self.small_is_full():
                break
            if self.evict_small():
                return True
        if self.evict_coldest():
            return True
        # Whatever there is is in the small queue.
        for i in range(self.tries()):
            if self.store.queue.count and self.evict_small():
                return True
        return False

    cdef void fetch_small(self) noexcept:
        """Fetches what the next keys of the small queue will touch, for several at once: their waits for memory overlap."""
        cdef Queue* queue = &self.store.queue
        cdef Queued key
        cdef Table* table
        cdef uint64_t* word
        cdef uint32_t i
        if queue.at % TOGETHER:
            return
        for i in range(3 * TOGETHER):
            if not queue_peek(queue, i, &key) or self.store.databases[key.db].slots == NULL:
                break
            table = self.store.databases[key.db].slots + key.slot
            if i >= 2 * TOGETHER:
                kache_prefetch(table)
                ghosts_fetch(&self.store.ghosts, key.hash)
            elif i >= TOGETHER:
                word = home_word(table, key.hash)
                if word != NULL:
                    kache_fetch(word)
            else:
                word = tagged_word(table, key.hash)
                if word != NULL:
                    kache_fetch(<void*> (word[0] & POINTER_MASK))

    cdef bint evict_small(self) except -1:
        """Takes the oldest key out of the small queue; whether it was evicted."""
        cdef Queued key
        cdef Place place
        cdef uint64_t* word
        cdef Entry* entry
        cdef uint64_t keys = 0
        cdef int i
        self.fetch_small()
        if not queue_pop(&self.store.queue, &key):
            return False
        place.db = &self.store.databases[key.db]
        if place.db.slots == NULL:
            return False
        place.slot = key.slot
        place.hash = key.hash
        place.table = place.db.slots + place.slot
        word = word_of_hash(place.table, key.hash)
        if word == NULL:
            return False
        entry = <Entry*> (word[0] & POINTER_MASK)
        if entry.clock & IN_MAIN or (self.volatile_only and not entry.flags & HAS_TTL):
            return False
        if entry.clock & MOST_USES or self.spares(entry):
            entry.clock = main_clock(self.store.lru_clock, 0)
            return False
        for i in range(self.store.active):
            keys += self.store.databases[i].count
        # Eight for ten keys, where the main queue has about nine: all there is beside LRU stays under four bytes a key.
        ghosts_add(&self.store.ghosts, key.hash, keys - 2 * keys // SMALL_PART)
        self.evict_word(&place, word)
        return True

    cdef bint evict_random(self) except -1:
        cdef Database* db
        cdef Entry* entry
        cdef int tries
        for tries in range(self.tries()):
            db = self.pick_database()
            if db == NULL:
                return False
            entry = self.random_of(db)
            if not self.spares(entry):
                self.evict_entry(db, entry)
                return True
        return False

    cdef Entry* random_of(self, Database* db) noexcept:
        cdef uint32_t slot, group = self.pick_group(db)
        cdef uint64_t drawn
        if self.volatile_only:
            return heap_entry(&db.heaps[group], below(db.heaps[group].count))
        drawn = below(db.counts[group])
        slot = group << GROUP_SHIFT
        while drawn >= db.slots[slot].count:
            drawn -= db.slots[slot].count
            slot += 1
        return table_random(&db.slots[slot])

    cdef bint evict_soonest(self) except -1:
        """volatile-ttl: the nearest deadline of all."""
        cdef int i
        cdef uint32_t group
        cdef Database* db
        cdef Database* best_db = NULL
        cdef Entry* soonest
        cdef Entry* best = NULL
        for i in range(DATABASES):
            db = &self.store.databases[i]
            if db.expires == 0:
                continue
            for group in range(GROUPS):
                soonest = self.soonest_of(&db.heaps[group])
                if soonest != NULL and (best == NULL or entry_deadline(soonest) < entry_deadline(best)):
                    best = soonest
                    best_db = db
        if best == NULL:
            return False
        self.evict_entry(best_db, best)
        return True

    cdef inline Entry* soonest_of(self, Heap* heap) except? NULL:
        """The nearest deadline of a group, or one of those that follow it where it is spared; NULL when there is none."""
        cdef uint32_t i
        for i in range(min(heap.count, 2 * SPARED)):
            if not self.spares(heap_entry(heap, i)):
                return heap_entry(heap, i)
        return NULL

    # Removing -----------------------------------------------------------------------------------------
    cdef int evict_entry(self, Database* db, Entry* entry) except -1:
        cdef Place place
        self.store.place_of_entry(&place, db, entry)
        return self.evict_word(&place, self.store.word_of(&place))

    cdef int evict_word(self, Place* place, uint64_t* word) except -1:
        cdef Store store = self.store
        cdef Entry* entry = <Entry*> (word[0] & POINTER_MASK)
        cdef bint observed
        place.key = entry_key(entry)
        place.n = entry_key_size(entry)
        if entry.flags & HAS_TTL and entry_deadline(entry) <= store.now_ms:
            # It was gone before anybody evicted it: whoever replays will not see it either.
            return store.expire_entry(place, word)
        observed = store.prepare(place, 0)
        store.detach(place, word)
        if store.is_sampled(place):
            store.miniatures.lose(store.sampled_as(place))
        store.evicted += 1
        store.dirty += 1
        if observed:
            tell(store, EVICTED, RECORD_DELETE, place)
        return store.destroy(place.db, entry)


cdef inline uint64_t* home_word(Table* table, uint64_t hash) noexcept nogil:
    """Where the search for a hash begins, or NULL."""
    cdef Segment* segment = segment_of(table, hash)
    if segment.count == 0:
        return NULL
    return segment.words + home_of(tag_of(hash, segment.bits), segment.capacity)


cdef inline uint64_t* tagged_word(Table* table, uint64_t hash) noexcept nogil:
    """The first word with the tag of a hash, if it is not far: most likely that of its entry; or NULL."""
    cdef Segment* segment = segment_of(table, hash)
    cdef uint64_t* word = home_word(table, hash)
    cdef int probe
    for probe in range(PROBES_AHEAD):
        if word == NULL or word == segment.words + segment.capacity or word[0] == 0:
            return NULL
        if word[0] >> POINTER_BITS == tag_of(hash, segment.bits):
            return word
        word += 1
    return NULL


cdef uint64_t* word_of_hash(Table* table, uint64_t hash) noexcept nogil:
    """The word of the entry with this hash, or NULL."""
    cdef Segment* segment = segment_of(table, hash)
    cdef uint64_t tag
    cdef uint32_t at
    cdef Entry* entry
    if segment.count == 0:
        return NULL
    tag = tag_of(hash, segment.bits)
    at = home_of(tag, segment.capacity)
    while segment.words[at]:
        if segment.words[at] >> POINTER_BITS == tag:
            entry = <Entry*> (segment.words[at] & POINTER_MASK)
            if table_hash(entry_key(entry), entry_key_size(entry)) == hash:
                return segment.words + at
        at += 1
        if at == segment.capacity:
            at = 0
    return NULL
