# The largest keys: a slow sweep over everything, again and again, that remembers the names of those that take most.

cdef enum:
    BIG_PLACES = 48             # how many are remembered
    SWEEP_LOOK = 64             # entries between two looks at the clock


cdef class BigKeys:
    """The largest keys of one store, as of the last whole sweep and what has been seen since.

    A sweep goes by places, not by entries: while tables grow under it some are seen twice, or by the next one only.
    """

    def __init__(self, Store store not None):
        self.store = store
        self.restart()
        self.last = []

    cdef int restart(self) except -1:
        self.db = 0
        self.slot = self.place = 0
        self.least = 0
        self.found = []
        self.began_dirty = self.store.dirty
        return 0

    def sweep(self, int64_t budget_ns):
        """Goes on for up to `budget_ns`; once all is seen it begins anew, unless nothing has changed meanwhile."""
        cdef int64_t until_ns
        if self.swept and self.store.dirty == self.began_dirty:
            return
        until_ns = monotonic_ns() + budget_ns
        if self.swept:
            self.swept = False
            self.restart()
        while self.db < DATABASES:
            if self.store.databases[self.db].count and self.sweep_database(&self.store.databases[self.db], until_ns):
                return
            self.db += 1
            self.slot = self.place = 0
        self.swept = True
        self.last, self.found = self.found, []
        self.least = 0

    cdef bint sweep_database(self, Database* db, int64_t until_ns) except -1:
        """True when the time is up before its end."""
        cdef Table* table
        cdef Segment* segment
        cdef uint32_t seen = 0
        while self.slot < SLOT_COUNT:
            if self.place == 0 and not self.slot & 63 and db.counts[self.slot >> GROUP_SHIFT] == 0:
                self.slot += 64
                continue
            table = &db.slots[self.slot]
            while table.count and self.place < table_places(table):
                segment = segment_at(table, self.place)
                seen += self.sweep_segment(segment)
                self.place += segment_span(table, segment)
                if seen >= SWEEP_LOOK:
                    seen = 0
                    if monotonic_ns() >= until_ns:
                        return True
            self.place = 0
            self.slot += 1
        return False

    cdef uint32_t sweep_segment(self, Segment* segment) except? 0:
        cdef uint32_t i
        cdef Entry* entry
        cdef int64_t size
        for i in range(segment.capacity if segment.count else 0):
            if segment.words[i] == 0:
                continue
            entry = <Entry*> (segment.words[i] & POINTER_MASK)
            size = entry_memory(entry)
            if holds_object(entry):
                size += (<object> entry_object(entry)).memory
            if size > self.least:
                self.remember(entry, size)
        return segment.capacity + 1

    cdef int remember(self, Entry* entry, int64_t size) except -1:
        cdef int type = entry.flags & TYPE_MASK
        heappush(self.found, (size, self.db, key_bytes(entry), type, elements_in(entry) if type != TYPE_STRING else 1))
        if len(self.found) > BIG_PLACES:
            heappop(self.found)
            self.least = self.found[0][0]
        return 0

    def top(self, Py_ssize_t count):
        """[(db, key, type, elements, bytes)], the largest first; what has gone since is left out. A string has one element."""
        known = {(one[1], one[2]): one for one in self.last}
        known.update({(one[1], one[2]): one for one in self.found})
        found = []
        cdef Place place
        cdef Entry* entry
        for size, db, key, type, elements in sorted(known.values(), reverse=True):
            self.store.place_of(&place, db, key)
            entry = self.store.find(&place)
            if entry == NULL or entry.flags & TYPE_MASK != type:
                continue
            found.append((db, key, TYPE_NAMES[type], elements, size))
            if len(found) == count:
                break
        return found
