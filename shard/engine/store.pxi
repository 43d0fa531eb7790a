# The data of one shard: sixteen databases of slots, their entries, the account of their memory, and expiry.
#
#   Store ──► Database ──► slots[16384]: Table ──► Entry
#                     └──► groups[256] of 64 slots: how many keys, and their heap of deadlines
#
# The lowest layer above the structures: it finds, inserts, replaces and removes entries and tells nobody. Only the
# mutators (keys.pxi, strings.pxi, lists.pxi, hashes.pxi, zsets.pxi) call what changes something here, the evictor and
# the expiry excepted, which tell the effects themselves. A key past its deadline is never seen: `find` removes it.
# A small collection is packed, in the block of its entry (packing.pxi); others are Python objects (FieldTable, ListValue,
# ZSet, Stream), referenced once by their entry.
# It is this long since Cython wants the methods of a class in one file.

TYPE_NAMES = ("string", "list", "hash", "set", "zset", "stream")
LARGE_ENCODINGS = (None, "quicklist", "hashtable", "hashtable", "skiplist", "stream")
_TYPE_OF_NAME = {name: number for number, name in enumerate(TYPE_NAMES)}
cdef bytes WRONG_TYPE_TEXT = WRONG_TYPE.encode()


cdef object wrong_type():
    """The one place WRONGTYPE comes from."""
    return CommandError(WRONG_TYPE)


@cython.final
cdef class LargeBlock:
    """A block that nothing refers to any more: for the cleanup thread."""
    cdef void* block

    def __dealloc__(self):
        free(self.block)

    def __len__(self):
        return LARGE_COLLECTION

    def release_some(self, Py_ssize_t count):
        """Frees it, without the GIL; False: nothing is left."""
        with nogil:
            free(self.block)
        self.block = NULL
        return False


@cython.final
cdef class Store:
    """The entries of one shard; see the top of store.pxi. Not thread safe."""

    def __cinit__(self, *args, **kwargs):
        memset(self.databases, 0, sizeof(self.databases))
        self.active = 0

    def __init__(self, bytes hash_seed=b"\0" * 16, object cleanup=None):
        set_hash_seed(hash_seed)
        self.effects = Effects()
        self.cleanup = cleanup
        self.lfu_log_factor = 10
        self.lfu_decay_time = 1
        self.samples = 5
        self.policy = "noeviction"
        self.clocks = CLOCK_LRU
        self.set_time(1)
        self.field_deadlines = []
        self.field_looks = {}

    def __dealloc__(self):
        cdef int i
        for i in range(DATABASES):
            if self.databases[i].slots != NULL:
                database_release(&self.databases[i])
        queue_clear(&self.queue)
        ghosts_clear(&self.ghosts)

    cpdef set_time(self, int64_t now_ms):
        """The time of everything that follows, unix ms; it never goes back."""
        if now_ms > self.now_ms:
            self.set_time_exactly(now_ms)

    cdef void set_time_exactly(self, int64_t now_ms) noexcept:
        """The same for a replay, which goes where its records were."""
        self.now_ms = now_ms
        self.lru_clock = <uint32_t> now_ms
        self.effects.set_time(now_ms)

    def set_aside(self, bint aside):
        """What is placed and removed meanwhile lies beside the data: nobody learns of it, and it counts as no change."""
        if aside:
            self.dirty_before = self.dirty
        else:
            self.dirty = self.dirty_before
        self.effects.pause(aside)

    # Places -------------------------------------------------------------------------------------------
    cdef int place(self, Place* place, int db, int slot, const char* key, size_t n) except -1:
        cdef Database* database = &self.databases[db]
        if database.slots == NULL:
            database.slots = <Table*> kache_calloc(SLOT_COUNT, sizeof(Table))
            if database.slots == NULL:
                raise MemoryError("no memory for a database")
            if db >= self.active:
                self.active = db + 1
        if slot >= SLOT_COUNT:
            slot = slot_of(key, n)
        place.db = database
        place.slot = slot
        place.table = database.slots + slot
        place.hash = self.known_hash if key == self.known_key else table_hash(key, n)
        place.key = key
        place.n = n
        return 0

    cdef inline int place_of(self, Place* place, int db, bytes key) except -1:
        return self.place(place, db, NO_SLOT, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))

    cdef inline void place_of_entry(self, Place* place, Database* db, Entry* entry) noexcept:
        """The place of an entry of this database. place.key lies inside the entry."""
        place.db = db
        place.key = entry_key(entry)
        place.n = entry_key_size(entry)
        place.slot = slot_of(place.key, place.n)
        place.table = db.slots + place.slot
        place.hash = table_hash(place.key, place.n)

    cdef inline uint64_t* word_of(self, Place* place) noexcept:
        """The word of the key, NULL when it is not there."""
        return segment_find(segment_of(place.table, place.hash), place.hash, place.key, place.n)

    cdef inline int db_of(self, Place* place) noexcept:
        return <int> (place.db - self.databases)

    cdef Entry* find(self, Place* place) except? NULL:
        """The living entry, its clock untouched; one past its deadline is removed."""
        cdef Entry* entry = self.known_entry
        cdef uint64_t* word
        if (entry != NULL and place.key == self.known_key and place.table == self.known_table
                and not entry.flags & (HAS_TTL | WIDE) and entry.key_size == place.n
                and memcmp(entry_key(entry), place.key, place.n) == 0):
            return entry
        word = segment_find(segment_of(place.table, place.hash), place.hash, place.key, place.n)
        if word == NULL:
            return NULL
        entry = <Entry*> (word[0] & POINTER_MASK)
        if entry.flags & HAS_TTL and entry_deadline(entry) <= self.now_ms:
            self.expire_entry(place, word)
            return NULL
        return entry

    cdef inline void forget_known(self) noexcept:
        """An entry leaves its table, or its table the database: what ahead.pxi knows of entries is void."""
        self.known_entry = NULL
        self.unlinked += 1

    cdef inline void touch_entry(self, Entry* entry) noexcept:
        if self.no_touch:
            return
        if self.clocks == CLOCK_LRU:
            entry.clock = self.lru_clock
        else:
            entry.clock = self.touched(entry.clock)

    cdef inline uint32_t touched(self, uint32_t clock) noexcept:
        """The clock of an entry that is used now, under a policy that counts uses."""
        if self.clocks == CLOCK_LFU:
            return lfu_touched(clock, self.now_ms, self.lfu_decay_time, self.lfu_log_factor)
        return queued_touched(clock, self.lru_clock)

    cdef inline Entry* read(self, Place* place) except? NULL:
        """`find` for a command's own use of the key: counts a hit or miss and touches the clock."""
        cdef Entry* entry = self.find(place)
        if entry == NULL:
            self.misses += self.counting
            if self.is_sampled(place):
                self.sample_use(place, NULL)
            return NULL
        self.hits += self.counting
        self.touch_entry(entry)
        if self.is_sampled(place):
            self.sample_use(place, entry)
        return entry

    cdef inline Entry* look(self, Place* place) except? NULL:
        """`read` for a command that asks about the key and does not use it (EXISTS, TTL): its clock stays as it is."""
        cdef Entry* entry = self.find(place)
        if entry == NULL:
            self.misses += self.counting
        else:
            self.hits += self.counting
        return entry

    # Miniature simulations ----------------------------------------------------------------------------
    cdef inline bint is_sampled(self, Place* place) noexcept:
        return in_sample(place.hash, self.sampled_below)

    cdef inline uint64_t sampled_as(self, Place* place) noexcept:
        """The hash by which the simulations know it: the same key in another database is another one."""
        return sample_hash(place.hash, self.db_of(place))

    cdef inline int64_t cost_of(self, Entry* entry) noexcept:
        """Bytes of a key with its place in a table; of a collection that is no packed one a guess."""
        return <int64_t> entry_memory(entry) + self.key_overhead

    cdef int64_t overhead(self) noexcept:
        """What a key takes of the tables and queues, estimated from some slots."""
        cdef int64_t storage = 0, keys = 0, all = 0
        cdef Database* db
        cdef Table* table
        cdef int i, tries
        for i in range(self.active):
            db = &self.databases[i]
            all += db.count
            for tries in range(OVERHEAD_SLOTS if db.slots != NULL else 0):
                table = &db.slots[below(SLOT_COUNT)]
                storage += table_storage(table)
                keys += table.count
        return (storage // keys if keys else 8) + (self.queue.memory + self.ghosts.memory) // max(all, 1)

    cdef void sample_use(self, Place* place, Entry* entry) noexcept:
        """A command has used the key, or missed it."""
        if self.no_touch:
            return
        if self.counting:
            # What is not there is as large as the others, as far as anybody knows.
            self.miniatures.read(
                place.key, place.n, self.sampled_as(place), self.cost_of(entry) if entry != NULL else self.used() // max(
                    <int64_t> place.db.count, 1),
                entry != NULL, <uint16_t> lfu_minutes(self.now_ms), self.hits + self.misses, self.misses)
        elif entry != NULL:
            self.sample_write(place, entry)

    cdef void sample_write(self, Place* place, Entry* entry) noexcept:
        """A key is stored, or changed."""
        if self.no_touch:
            self.miniatures.hold(place.key, place.n, self.sampled_as(place), self.cost_of(entry))
        else:
            self.miniatures.write(
                place.key, place.n, self.sampled_as(place), self.cost_of(entry), <uint16_t> lfu_minutes(self.now_ms))

    cdef int simulate(self, uint32_t below, int64_t base) except -1:
        """Samples at this rate, of 1 << RATE_BITS, for `base` bytes of memory; 0: nothing."""
        cdef bint more = below > self.sampled_below
        if below and self.miniatures is None:
            try:
                self.miniatures = Miniatures()
            except MemoryError:
                return 0    # it is tried again; whoever makes room meanwhile does not wait for that
        self.sampled_below = below
        if below == 0:
            # What is off costs no memory either.
            self.miniatures = None
            return 0
        if more:
            self.introducing = 0
            self.introduce_from = 0
        self.key_overhead = self.overhead()
        self.miniatures.configure(self.lfu_decay_time, self.lfu_log_factor)
        self.miniatures.tune(below, base)
        return 0

    cdef int forget_sample(self) noexcept:
        """A whole database was emptied, or is another one now, and nobody said which keys it had: the simulations begin anew."""
        if self.miniatures is not None:
            self.miniatures.clear()
        self.introducing = 0
        self.introduce_from = 0
        return 0

    # Effects ------------------------------------------------------------------------------------------
    cdef inline bint prepare(self, Place* place, size_t n) except -1:
        """Before a change of the key with about `n` bytes of arguments: whether anybody cares. Nothing is changed if it raises."""
        return self.effects.wanted and self.effects.prepare(place.slot, place.n + n)

    cdef inline void note(self, int kind, Place* place) noexcept:
        if self.effects.observed:
            self.effects.note(kind, self.db_of(place), place.slot, place.key, place.n)

    cdef inline void begin(self, int record, Place* place) noexcept:
        self.effects.begin(record, self.db_of(place), place.key, place.n)

    cdef inline void begin_elements(self, int record, Place* place) noexcept:
        self.effects.begin_elements(record, self.db_of(place), place.key, place.n)

    # Entries ------------------------------------------------------------------------------------------
    cdef inline uint32_t fresh_clock(self) noexcept:
        if self.clocks == CLOCK_LRU:
            return self.lru_clock
        return lfu_fresh(self.now_ms) if self.clocks == CLOCK_LFU else self.lru_clock & ~<uint32_t> QUEUE_BITS

    cdef int insert(self, Place* place, Entry* entry, int64_t deadline) except -1:
        """Adds an entry whose key is not there; takes it over, freeing it when there is no memory."""
        cdef uint32_t group = place.slot >> GROUP_SHIFT
        if table_room(place.table, place.hash, &place.db.memory) < 0 or (
            entry.flags & HAS_TTL and heap_room(&place.db.heaps[group], &place.db.memory) < 0
        ):
            free(entry)
            raise MemoryError("no memory for a key")
        table_insert(place.table, place.hash, entry)
        place.db.memory += entry_memory(entry)
        place.db.count += 1
        place.db.counts[group] += 1
        if entry.flags & HAS_TTL:
            heap_add(&place.db.heaps[group], entry, deadline)
            place.db.expires += 1
        if self.queueing:
            self.enqueue(place, entry)
        if self.is_sampled(place):
            self.sample_write(place, entry)
        if self.effects.wanted:
            self.note(CREATED, place)
        return 0

    cdef void enqueue(self, Place* place, Entry* entry) noexcept:
        """A new key joins the small queue, or the main one: it was evicted a while ago and is wanted again, or memory is
        not full yet and a tenth of it is in the small one already."""
        cdef Queued key
        cdef int64_t used = self.used()
        cdef bint pressed = self.pressed_at != 0 and used >= self.pressed_at - self.pressed_at // 8
        if entry.clock & IN_MAIN or (self.queue_volatile and not entry.flags & HAS_TTL):
            return
        key.hash = place.hash
        key.slot = place.slot
        key.db = self.db_of(place)
        if (ghosts_take(&self.ghosts, key.hash)
                # Keys that are deleted, not evicted, leave the queue when they are its oldest: it does not grow for them.
                or self.queue.bytes > (used // 4 if pressed else used // SMALL_PART)
                or queue_push(&self.queue, &key, entry_memory(entry), self.lru_clock) < 0):
            entry.clock |= IN_MAIN

    cdef void forget_queues(self) noexcept:
        """Nothing is known of the order in which keys came, nor of what was evicted."""
        queue_clear(&self.queue)
        ghosts_clear(&self.ghosts)
        self.pressed_at = 0

    cdef int swap_block(self, Place* place, Entry* old, Entry* new, int64_t deadline) except -1:
        """Puts the block `new` (same key) in the place of `old`, which is freed without its value. Takes `new` over: without
        memory it is freed and nothing has changed."""
        cdef Heap* heap = &place.db.heaps[place.slot >> GROUP_SHIFT]
        cdef uint64_t* word
        if old.flags & HAS_TTL:
            if new.flags & HAS_TTL:
                memcpy(entry_time(new), entry_time(old), 12)
                heap_moved(heap, new)
                if entry_deadline(new) != deadline:
                    heap_change(heap, new, deadline)
            else:
                heap_remove(heap, old, &place.db.memory)
                place.db.expires -= 1
        elif new.flags & HAS_TTL:
            if heap_room(heap, &place.db.memory) < 0:
                free(new)
                raise MemoryError("no memory for a deadline")
            heap_add(heap, new, deadline)
            place.db.expires += 1
        self.heavy |= entry_memory(new) >= HEAVY
        self.forget_known()
        word = self.word_of(place)
        word[0] = (word[0] & ~POINTER_MASK) | <uint64_t> new
        place.db.memory += <int64_t> entry_memory(new) - <int64_t> entry_memory(old)
        return self.free_block(old)

    cdef int put_entry(self, Place* place, Entry* old, Entry* fresh, int64_t deadline) except -1:
        """`fresh` becomes the key's entry; the value of `old`, which `find` said, goes. Takes `fresh` over as `swap_block`."""
        cdef object value = None
        if old == NULL:
            return self.insert(place, fresh, deadline)
        if holds_object(old):
            value = <object> entry_object(old)
        if self.clocks == CLOCK_QUEUES:
            fresh.clock = queued_touched(old.clock, self.lru_clock)
        if self.is_sampled(place):
            self.sample_write(place, fresh)
        self.swap_block(place, old, fresh, deadline)
        if value is not None:
            Py_DECREF(value)
            self.release(place.db, value)
        return 0

    cdef int put_string(
        self, Place* place, Entry* old, const char* value, size_t n, int64_t deadline, size_t room, uint8_t flags
    ) except -1:
        """Stores a string under `place`; `old` is what `find` said. `deadline` 0 means none. `flags`: RAW or 0."""
        cdef Entry* entry
        cdef uint8_t wanted = HAS_TTL if deadline else 0
        cdef size_t usable
        self.heavy |= n >= HEAVY
        if old != NULL and (old.flags & (HAS_TTL | TYPE_MASK)) == wanted:
            # A value of the same size needs no look at the block's own header. Another is kept in place unless that
            # would waste more than half of the block.
            usable = n if n == entry_value_size(old) else entry_room(old)
            if n <= usable and (usable < 128 or n * 2 >= usable or room >= n) and (n <= 65535 or old.flags & WIDE):
                memcpy(entry_value(old), value, n)
                entry_set_value_size(old, n)
                old.flags = (old.flags & ~RAW) | flags
                if wanted and entry_deadline(old) != deadline:
                    heap_change(&place.db.heaps[place.slot >> GROUP_SHIFT], old, deadline)
                self.touch_entry(old)
                if self.is_sampled(place):
                    self.sample_write(place, old)
                return 0
        if place.n + n > MAX_BLOCK:
            raise CommandError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
        entry = entry_new(place.key, place.n, value, n, wanted | flags, self.fresh_clock(), room)
        if entry == NULL:
            raise MemoryError("no memory for a value")
        if old != NULL and self.lfu and not old.flags & TYPE_MASK:
            entry.clock = lfu_touched(old.clock, self.now_ms, self.lfu_decay_time, self.lfu_log_factor)
        return self.put_entry(place, old, entry, deadline)

    cdef int put_object(self, Place* place, Entry* old, int kind, object value, int64_t deadline) except -1:
        """Stores a collection under `place`; `old` is what `find` said."""
        cdef PyObject* reference = <PyObject*> value
        cdef Entry* entry = entry_new(
            place.key, place.n, <char*> &reference, sizeof(reference),
            kind | (HAS_TTL if deadline else 0), self.fresh_clock(), 0,
        )
        if entry == NULL:
            raise MemoryError("no memory for a key")
        self.put_entry(place, old, entry, deadline)
        Py_INCREF(value)
        place.db.memory += <int64_t> value.memory
        return 0

    cdef int put_deadline(self, Place* place, Entry* entry, int64_t deadline) except -1:
        """Gives the entry a deadline (unix ms), or none with 0."""
        cdef Entry* moved
        cdef uint8_t flags
        if deadline and entry.flags & HAS_TTL:
            heap_change(&place.db.heaps[place.slot >> GROUP_SHIFT], entry, deadline)
            return 0
        if not deadline and not entry.flags & HAS_TTL:
            return 0
        flags = entry.flags ^ HAS_TTL
        moved = entry_new(
            entry_key(entry), entry_key_size(entry), entry_value(entry), entry_value_size(entry),
            flags & ~WIDE, entry.clock, 0,
        )
        if moved == NULL:
            raise MemoryError("no memory for a deadline")
        self.swap_block(place, entry, moved, deadline)
        # Under volatile-* it can be evicted from here on.
        if self.queueing and self.queue_volatile and deadline:
            self.enqueue(place, moved)
        return 0

    cdef int discard(self, Place* place) except -1:
        """Removes the key, which is there."""
        return self.remove_word(place, self.word_of(place))

    cdef int remove_word(self, Place* place, uint64_t* word) except -1:
        if self.is_sampled(place):
            self.miniatures.forget(self.sampled_as(place))
        return self.destroy(place.db, self.detach(place, word))

    cdef Entry* detach(self, Place* place, uint64_t* word) noexcept:
        """Takes the entry out of the table and the heap; the caller owns its block and value."""
        cdef Entry* entry = <Entry*> (word[0] & POINTER_MASK)
        cdef uint32_t group = place.slot >> GROUP_SHIFT
        if entry.flags & HAS_TTL:
            heap_remove(&place.db.heaps[group], entry, &place.db.memory)
            place.db.expires -= 1
        self.forget_known()
        table_remove(place.table, place.hash, word, &place.db.memory)
        place.db.count -= 1
        place.db.counts[group] -= 1
        place.db.memory -= entry_memory(entry)
        return entry

    cdef int destroy(self, Database* db, Entry* entry) except -1:
        """Frees an entry that was detached, with its value."""
        cdef object value
        if holds_object(entry):
            value = <object> entry_object(entry)
            Py_DECREF(value)
            self.release(db, value)
        return self.free_block(entry)

    cdef int release(self, Database* db, object value) except -1:
        """Lets go of a collection that belongs to no entry any more; a large one goes to the cleanup thread."""
        db.memory -= <int64_t> value.memory
        return self.hand_over(value)

    cdef int hand_over(self, object value) except -1:
        """What nothing refers to any more is freed by the cleanup thread if it is large, else here and now."""
        if self.cleanup is not None and len(value) >= LARGE_COLLECTION:
            try:
                self.cleanup.hand_over(value)
            except MemoryError:
                pass    # then it is freed here: slower, and nothing worse
        return 0

    cdef inline int free_block(self, Entry* entry) except -1:
        """Frees an entry that nothing refers to any more, without its value."""
        if entry.flags & WIDE and self.cleanup is not None and entry_memory(entry) >= LARGE_BLOCK:
            return self.hand_over_block(entry)
        free(entry)
        return 0

    cdef int hand_over_block(self, Entry* entry) except -1:
        cdef LargeBlock block
        try:
            block = LargeBlock()
            block.block = entry
        except MemoryError:
            free(entry)
            return 0
        return self.hand_over(block)

    cdef int expire_entry(self, Place* place, uint64_t* word) except -1:
        """Removes an entry past its deadline. place.key may lie inside the entry."""
        cdef Entry* entry = self.detach(place, word)
        if self.is_sampled(place):
            self.miniatures.forget(self.sampled_as(place))
        self.dirty += 1
        self.expired += 1
        if self.effects.wanted:
            self.note(EXPIRED, place)
        return self.destroy(place.db, entry)

    # Counting and checking ------------------------------------------------------------------------------
    def counts(self):
        """[(database, keys, keys with a deadline, their average time to live in ms)] of those that hold something."""
        return [
            (i, self.databases[i].count, self.databases[i].expires, self.average_ttl(&self.databases[i]))
            for i in range(DATABASES) if self.databases[i].count
        ]

    cdef int64_t average_ttl(self, Database* db) noexcept:
        """Estimated from a few keys drawn by chance; 0 when none has a deadline."""
        cdef int64_t total = 0
        cdef uint32_t group, n = 0, step, start = <uint32_t> below(GROUPS)
        for step in range(GROUPS):
            group = (start + step) % GROUPS
            if n < 16 and db.heaps[group].count:
                total += entry_deadline(heap_entry(&db.heaps[group], below(db.heaps[group].count))) - self.now_ms
                n += 1
        return max(total // n, 0) if n else 0

    @property
    def used_memory(self):
        """Bytes of all data: blocks with malloc's overhead, tables, heaps, queues, estimates for Python collections."""
        return self.used()

    @property
    def slot_bytes(self):
        """Bytes of the databases' arrays of tables, as far as keys make them resident; beside `used_memory`, since no eviction
        frees them."""
        cdef int64_t groups = 0
        cdef int i, group
        for i in range(self.active):
            for group in range(GROUPS):
                groups += self.databases[i].counts[group] > 0
        return groups * <int64_t> (sizeof(Table) << GROUP_SHIFT)

    cdef inline int64_t used(self) noexcept:
        cdef int64_t total = self.aside + self.queue.memory + self.ghosts.memory
        cdef int i
        for i in range(self.active):
            total += self.databases[i].memory
        return total

    def sampled_keys(self):
        """How many keys are in the sample of the miniature simulations, counted."""
        cdef uint32_t slot
        cdef Walk walk
        cdef Entry* entry
        cdef int i, found = 0
        for i in range(self.active):
            for slot in range(SLOT_COUNT if self.databases[i].slots != NULL else 0):
                walk = table_walk(&self.databases[i].slots[slot])
                while True:
                    entry = walk_next(&walk)
                    if entry == NULL:
                        break
                    found += in_sample(table_hash(entry_key(entry), entry_key_size(entry)), self.sampled_below)
        return found

    def check(self):
        """Asserts every invariant of every database, and of the queue."""
        cdef int i
        cdef uint32_t slot, group
        cdef Database* db
        cdef uint64_t total, expires, in_group
        cdef int64_t memory
        cdef Walk walk
        cdef Entry* entry
        queue_check(&self.queue)
        if self.miniatures is not None:
            self.miniatures.check()
        for i in range(DATABASES):
            db = &self.databases[i]
            if db.slots == NULL:
                continue
            total = expires = memory = 0
            for group in range(GROUPS):
                in_group = 0
                for slot in range(group << GROUP_SHIFT, (group + 1) << GROUP_SHIFT):
                    table_check(&db.slots[slot])
                    in_group += db.slots[slot].count
                    memory += table_storage(&db.slots[slot])
                    walk = table_walk(&db.slots[slot])
                    while True:
                        entry = walk_next(&walk)
                        if entry == NULL:
                            break
                        assert slot_of(entry_key(entry), entry_key_size(entry)) == slot, "a key is in the wrong slot"
                        memory += entry_memory(entry)
                        if entry.flags & PACKED:
                            packed_check(entry)
                        elif entry.flags & TYPE_MASK:
                            value = <object> entry_object(entry)
                            assert not isinstance(value, FieldTable) or not value.packed, "a packed value in an object"
                            assert len(value) > 0 or isinstance(value, Stream), "an empty collection was kept"
                            memory += value.memory
                            if hasattr(value, "check"):
                                value.check()
                assert in_group == db.counts[group], "a group's count is wrong"
                heap_check(&db.heaps[group])
                memory += db.heaps[group].capacity * sizeof(uint64_t)
                total += in_group
                expires += db.heaps[group].count
            assert total == db.count, "a database's count is wrong"
            assert expires == db.expires, "a database's count of deadlines is wrong"
            assert memory == db.memory, f"database {i} has {memory} bytes, the account says {db.memory}"


cdef int database_release(Database* db) except -1:
    """Frees a database with everything in it."""
    cdef uint32_t slot, group
    cdef Walk walk
    cdef Entry* entry
    for slot in range(SLOT_COUNT):
        if db.slots[slot].count:
            walk = table_walk(&db.slots[slot])
            while True:
                entry = walk_next(&walk)
                if entry == NULL:
                    break
                if holds_object(entry):
                    Py_DECREF(<object> entry_object(entry))
                free(entry)
            table_drop_storage(&db.slots[slot], &db.memory)
    for group in range(GROUPS):
        free(db.heaps[group].words)
    free(db.slots)
    memset(db, 0, sizeof(Database))
    return 0
