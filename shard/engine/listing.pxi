# Listing: KEYS. Of so many keys that others would notice it is walked in slices, one KEYS after the other, and answered later.
#
#   KEYS ─► Listing, Listing …      a token each; of the first one a slice of LISTING_NS, a rest, the next slice …
#             └─ slot 0 ─► 16383    each slot in one piece; what is found is the reply but for its first line
#
# Rests leave the cores to others: a few clients that ask for everything keep all shards busy at once, and routers with them.
# Only what a router has divided comes here, since it sends nothing of the same client behind it: what a client does next is
# not seen by what it asked before. A key that is there all the while is in the reply once; one that comes, goes or changes its
# name meanwhile may be in it or not. In transactions and scripts, and for few keys, KEYS is one piece.

cdef enum:
    KEYS_AHEAD = 64             # entries whose first lines are fetched together
    LISTED_AT_ONCE = 20000      # keys of a database that are listed in one piece
    SLOTS_PER_LOOK = 16         # slots between two looks at the clock
    HEAD_ROOM = 32              # bytes of the first line of an array in RESP, at most

# Of one slice, and between two of them in seconds (what waits for a time does so in whole milliseconds).
cdef int64_t LISTING_NS = 500000
cdef double LISTING_RESTS = 0.001


cdef bint is_prefix(const char* pattern, Py_ssize_t n) noexcept:
    """Whether it is a plain text and a star: what begins so is found without a matcher."""
    cdef Py_ssize_t i
    for i in range(n - 1):
        if pattern[i] in (c"*", c"?", c"[", c"\\"):
            return False
    return n > 0 and pattern[n - 1] == c"*"


@cython.final
cdef class Listing:
    """One KEYS: its reply, as far as it has come."""

    def __init__(self, Context context not None, bytes pattern not None):
        self.store = context.store
        self.db = context.keys.db
        self.dialect = context.dialect
        self.pattern = pattern
        if not is_prefix(PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern)):
            self.matches = compile_glob(pattern)
        self.keys = Buffer()
        self.keys.reserve(HEAD_ROOM)
        self.keys.end += HEAD_ROOM

    cdef bint go_on(self, int64_t until_ns) except -1:
        """Lists slot after slot, up to this time unless it is 0; whether there are more."""
        cdef Database* database = &self.store.databases[self.db]
        while self.slot < SLOT_COUNT and database.count:
            if database.slots[self.slot].count:
                self.list_slot(&database.slots[self.slot])
            self.slot += 1
            if until_ns and self.slot % SLOTS_PER_LOOK == 0 and monotonic_ns() >= until_ns:
                return self.slot < SLOT_COUNT
        return False

    cdef int list_slot(self, Table* table) except -1:
        cdef Entry* near[KEYS_AHEAD]
        cdef Walk walk = table_walk(table)
        cdef int found = KEYS_AHEAD, i
        while found == KEYS_AHEAD:
            # Entries lie all over the memory: the waits for them overlap.
            found = 0
            while found < KEYS_AHEAD:
                near[found] = walk_next(&walk)
                if near[found] == NULL:
                    break
                kache_fetch(near[found])
                found += 1
            for i in range(found):
                if not is_due(self.store, near[i]) and self.matching(near[i]):
                    put_nested_bulk(self.keys, self.dialect, entry_key(near[i]), entry_key_size(near[i]))
                    self.count += 1
        return 0

    cdef inline bint matching(self, Entry* entry) except -1:
        cdef size_t size = <size_t> PyBytes_GET_SIZE(self.pattern) - 1
        if self.matches is not None:
            return self.matches(key_bytes(entry))
        return entry_key_size(entry) >= size and memcmp(entry_key(entry), PyBytes_AS_STRING(self.pattern), size) == 0

    cdef Buffer reply(self):
        """All of it. How many there are is said before them, but known behind."""
        cdef Buffer head = Buffer()
        cdef Py_ssize_t mark = begin_array(head, self.dialect, self.count)
        if self.dialect == BINARY:
            head.append(self.keys.data + self.keys.start + HEAD_ROOM, self.keys.used() - HEAD_ROOM)
            end_reply(head, self.dialect, mark)
            return head
        self.keys.consume(HEAD_ROOM - head.used())
        memcpy(self.keys.data + self.keys.start, head.data + head.start, head.used())
        return self.keys


@cython.final
cdef class Listings:
    """Those under way in one shard, in the order in which they came."""

    def __init__(self, Executor shard not None):
        self.shard = shard
        self.queue = deque()

    cdef bint wants(self, Context context) noexcept:
        """Whether KEYS, asked in this context, is better answered later."""
        return (context.flags & FLAG_DIVIDED and not context.flags & FLAG_ATOMIC and context.link is not None
                and context.depth == 0 and context.transaction == 0 and self.shard.locks.host is not None
                and context.store.databases[context.keys.db].count > LISTED_AT_ONCE)

    def begin(self, Context context not None, bytes pattern not None):
        """What the handler of KEYS returns when it is answered later; None when it is to be answered at once."""
        cdef Listing listing
        if not self.wants(context):
            return None
        listing = Listing(context, pattern)
        deferred = Deferred(self.shard.defer(context, False))
        listing.token = deferred.token
        listing.link = context.link
        listing.session = context.session
        listing.number = self.shard.numbers["keys"]
        self.queue.append(listing)
        if len(self.queue) == 1:
            self.shard.locks.host.reactor.loop.call_soon(self._go_on)
            self.shard.locks.host.reactor.yield_to_loop()
        return deferred

    def _go_on(self):
        cdef Host host = self.shard.locks.host
        try:
            host.perform(self._slice)
        except Exception:
            log.exception("internal error while keys were listed")
        if self.queue:
            host.reactor.loop.call_later(LISTING_RESTS, self._go_on)

    def _slice(self):
        """Of the first one; behind its last slice it is answered."""
        cdef Listing listing = <Listing> self.queue[0]
        cdef int64_t began = monotonic_ns()
        cdef bint more = False
        cdef Buffer failed = None
        try:
            # Else its client is gone, or does not wait any longer.
            more = listing.token in self.shard.deferred and listing.go_on(began + LISTING_NS)
        except Exception as error:
            failed = Buffer()
            put_error(failed, listing.dialect, self.shard.error_text(error, listing.number))
        listing.took += monotonic_ns() - began
        if not more:
            self.queue.popleft()
            self.answer(listing, listing.reply() if failed is None else failed)

    cdef int answer(self, Listing listing, Buffer reply) except -1:
        self.shard.commands[listing.number].ns += listing.took
        if self.shard.take_deferred(listing.token) is not None:
            listing.link.send_timed(listing.token, listing.session, reply, listing.took)
        return 0

    @property
    def buffer_bytes(self):
        """Of what is not answered yet."""
        cdef Listing listing
        total = 0
        for listing in self.queue:
            total += listing.keys.capacity
        return total
