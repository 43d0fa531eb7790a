# Moving what lies in sparse slabs, so that they run empty and their pages go back (blocks.pyx).
#
#   places of the walk    database ► slot ► place of the table's directory ► word ► place inside a large value
#
# A pass visits every block of the data once, in slices of a millisecond, and moves those that are worth it: keys and fields
# with their values, the words of tables, chunks of lists, nodes of sorted sets. A place is a number and no address, so
# whatever changes between two slices, at worst something is visited twice or left to the next pass. Nothing that a client
# could see changes, and nothing is told to anybody.

cdef enum:
    HOLES_PARTS = 24            # of the heap is 1: holes from which a pass begins
    LEAST_HOLES = 262144        # bytes of them, too
    LOOKS = 16                  # blocks visited between two looks at the clock

# How long it rests after a pass that did not gain much: what comes and goes keeps some holes.
cdef int64_t REST_NS = 2000000000


@cython.final
cdef class Defragmenter:
    """Moves the blocks of one store, a slice at a time."""

    def __init__(self, Store store not None):
        self.store = store

    @property
    def active(self):
        """Whether a pass is under way."""
        return self.under_way

    cdef bint run(self, int64_t budget_ns) except -1:
        """A slice, if there is something to gain. True when more slices should follow."""
        cdef int64_t now_ns = monotonic_ns()
        if not self.under_way:
            if now_ns < self.rest_until or heap_holes() < max(heap_bytes() // HOLES_PARTS, <int64_t> LEAST_HOLES):
                return False
            self.under_way = True
            self.before = heap_holes()
            self.db = 0
            self.slot = self.place = self.at = 0
            self.inside = 0
        self.until_ns = now_ns + budget_ns
        self.visited = 0
        self.late = False
        self.store.forget_known()
        if self.walk():
            return True
        self.under_way = False
        # Each pass halves the holes about, while they are those of data that has gone.
        if heap_holes() > self.before - self.before // 8:
            self.rest_until = now_ns + REST_NS
        return heap_holes() >= max(heap_bytes() // HOLES_PARTS, <int64_t> LEAST_HOLES) and not self.rest_until > now_ns

    cdef inline bint time_is_up(self) noexcept nogil:
        self.visited += 1
        if self.visited >= LOOKS:
            self.visited = 0
            # Once it is, it stays so: a value whose end came first is no reason to go on with the next.
            self.late = self.late or monotonic_ns() >= self.until_ns
        return self.late

    cdef bint walk(self) except -1:
        """Goes on until the time is up (True) or everything was visited."""
        cdef Database* db
        while self.db < self.store.active:
            db = &self.store.databases[self.db]
            while db.slots != NULL and self.slot < SLOT_COUNT:
                if db.slots[self.slot].count and self.walk_slot(db, &db.slots[self.slot]):
                    return True
                self.slot += 1
                self.place = self.at = 0
                if self.slot & ((1 << GROUP_SHIFT) - 1) == 0:
                    self.move_heap(&db.heaps[(self.slot >> GROUP_SHIFT) - 1])
                    if self.time_is_up():
                        return True
            self.slot = 0
            self.db += 1
        return False

    cdef inline int move_heap(self, Heap* heap) noexcept nogil:
        if heap.words != NULL:
            heap.words = <uint64_t*> block_moved(heap.words)
        return 0

    cdef bint walk_slot(self, Database* db, Table* table) except -1:
        """The keys of one slot, from `place` and `at` on."""
        cdef Segment* segment
        cdef Entry* entry
        cdef uint32_t span
        while self.place < table_places(table):
            if self.at == 0:
                move_segment(table, self.place)
            segment = segment_at(table, self.place)
            while self.at < segment.capacity:
                if segment.words[self.at]:
                    entry = move_entry_block(segment.words + self.at, &db.heaps[self.slot >> GROUP_SHIFT])
                    if holds_object(entry) and self.walk_value(<object> entry_object(entry)):
                        return True
                    if self.time_is_up():
                        self.at += 1
                        return True
                self.at += 1
            span = segment_span(table, segment)
            self.place = (self.place & ~(span - 1)) + span
            self.at = 0
        return False

    cdef bint walk_value(self, object value) except -1:
        """A collection, from `inside` on; True when the time was up before its end."""
        cdef bint more
        if type(value) is FieldTable:
            self.move_heap(&(<FieldTable> value).heap)
            more = self.walk_fields(&(<FieldTable> value).table, &(<FieldTable> value).heap)
        elif type(value) is ListValue:
            more = self.walk_list(&(<ListValue> value).chunks)
        elif type(value) is Stream:
            more = self.walk_stream(<Stream> value)
        else:
            more = self.walk_zset(<ZSet> value)
        if not more:
            self.inside = 0
        return more

    cdef bint walk_fields(self, Table* table, Heap* heap) noexcept nogil:
        """`inside` is the place in the directory; a segment is visited at once."""
        cdef Segment* segment
        cdef uint32_t span, at
        while self.inside < table_places(table):
            move_segment(table, <uint32_t> self.inside)
            segment = segment_at(table, <uint32_t> self.inside)
            for at in range(segment.capacity):
                if segment.words[at]:
                    move_entry_block(segment.words + at, heap)
            span = segment_span(table, segment)
            self.inside = (self.inside & ~(<uint64_t> span - 1)) + span
            self.visited = LOOKS
            if self.time_is_up() and self.inside < table_places(table):
                return True
        return False

    cdef bint walk_list(self, Chunks* chunks) noexcept nogil:
        """`inside` is the number of the chunk."""
        cdef Slot* slots
        if self.inside == 0 and chunks.directory != NULL:
            chunks.directory = <Slot*> block_moved(chunks.directory)
        slots = chunks.directory + chunks.head
        while self.inside < <uint64_t> chunks.count:
            slots[self.inside].chunk = <Chunk*> block_moved(slots[self.inside].chunk)
            self.inside += 1
            if self.time_is_up() and self.inside < <uint64_t> chunks.count:
                return True
        return False

    cdef bint walk_stream(self, Stream value) noexcept nogil:
        """`inside` is the number of the chunk."""
        cdef StreamSlot* slots
        if self.inside == 0 and value.directory != NULL:
            value.directory = <StreamSlot*> block_moved(value.directory)
        slots = value.directory + value.head
        while self.inside < <uint64_t> value.count:
            slots[self.inside].chunk = <StreamChunk*> block_moved(slots[self.inside].chunk)
            self.inside += 1
            if self.time_is_up() and self.inside < <uint64_t> value.count:
                return True
        return False

    cdef bint walk_zset(self, ZSet value) except -1:
        """`inside` is the rank of the next member; the table's words come with the first of them."""
        cdef uint32_t place = 0
        if self.inside == 0:
            while place < table_places(&value.table):
                move_segment(&value.table, place)
                place += segment_span(&value.table, segment_at(&value.table, place))
        while self.inside < value.ranks.count:
            self.inside += move_leaf(&value.table, &value.ranks, <uint32_t> self.inside)
            self.visited = LOOKS
            if self.time_is_up() and self.inside < value.ranks.count:
                return True
        return False


cdef inline Entry* move_entry_block(uint64_t* word, Heap* heap) noexcept nogil:
    """The entry of the word, which leads to where it is now."""
    cdef Entry* entry = <Entry*> (word[0] & POINTER_MASK)
    cdef Entry* moved = <Entry*> block_moved(entry)
    if moved != entry:
        word[0] = (word[0] & ~POINTER_MASK) | <uint64_t> moved
        if moved.flags & HAS_TTL:
            heap_moved(heap, moved)
    return moved


cdef void move_segment(Table* table, uint32_t place) noexcept nogil:
    """The segment at this place of the directory, and its words."""
    cdef Segment* segment = segment_at(table, place)
    cdef Segment* moved
    cdef uint32_t span, i
    if table.directory != NULL:
        moved = <Segment*> block_moved(segment)
        if moved != segment:
            span = segment_span(table, moved)
            place &= ~(span - 1)
            for i in range(span):
                table.directory[place + i] = moved
            segment = moved
    if segment.words != NULL:
        segment.words = <uint64_t*> block_moved(segment.words)


cdef uint32_t move_leaf(Table* table, Ranks* ranks, uint32_t rank) noexcept nogil:
    """The leaf of this rank, which there is, with its members; how many of them come from this rank on."""
    cdef Step[DEEPEST] path
    cdef uint32_t at = 0, i
    cdef uint64_t hash
    cdef uint64_t* word
    cdef Leaf* leaf = ranks_at(ranks, rank, path, &at)
    cdef Leaf* moved = <Leaf*> block_moved(leaf)
    cdef Entry* entry
    if moved != leaf:
        if ranks.height:
            path[0].branch.children[path[0].at] = moved
        else:
            ranks.root = moved
        if moved.previous != NULL:
            moved.previous.next = moved
        if moved.next != NULL:
            moved.next.previous = moved
    for i in range(moved.count):
        entry = moved.pairs[i].entry
        if block_is_sparse(entry):
            hash = table_hash(entry_key(entry), entry_key_size(entry))
            word = segment_find(segment_of(table, hash), hash, entry_key(entry), entry_key_size(entry))
            moved.pairs[i].entry = move_entry_block(word, NULL)
            if i == 0:
                move_first(ranks, path, moved.pairs[0].entry)
    return moved.count - at


cdef inline void move_first(Ranks* ranks, Step* path, Entry* entry) noexcept nogil:
    """The first member of a leaf is elsewhere: those branches know it whose first it is, too."""
    cdef uint32_t level
    for level in range(ranks.height):
        path[level].branch.firsts[path[level].at].entry = entry
        if path[level].at:
            return
