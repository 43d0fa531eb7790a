# Looking ahead: what the next frames will touch is fetched into the processor's cache, for many frames at once.
#
#   frames   | frame | frame | … | RUN header | frame | …       as they lie in the link's input
#   keys       first key, hash    all of them before any table
#   tables     Table ──► word     the tables of all, then the words of all
#   entries            ──► Entry  then the entries of all
#
# A command on a key reads three places that depend on each other (the slot's table, the word, the entry), and among
# more keys than the cache holds each is a wait for memory. Done for one command after another the waits add up to
# more than everything else a shard does; done level by level for AHEAD commands they overlap. Nothing here changes
# anything, and a wrong guess costs a cache line. What is found is told to the store together with the key, so that it
# need not search again; it compares the key, and forgets what it was told once any entry has left its table.

@cython.final
cdef class LookAhead:
    """Hints for the frames that follow, in their order; one per shard."""

    cdef inline void forget(self) noexcept nogil:
        """The input they were made from is gone."""
        self.at = self.count = 0

    cdef void look(self, Store keys, const char* data, Py_ssize_t n, uint32_t frames, int db) noexcept nogil:
        """Makes hints for up to AHEAD complete frames; `data` is in a run of database `db` with `frames` to come."""
        cdef Py_ssize_t at = 0
        cdef uint32_t size, argc, key_size
        cdef uint16_t slot
        cdef Hint* hint
        self.at = self.count = 0
        self.unlinked = keys.unlinked
        while self.count < AHEAD:
            if frames == 0:
                if n - at < RUN_HEADER or data[at + RUN_KIND_AT] != LINK_RUN or <uint8_t> data[at + RUN_DB_AT] >= DATABASES:
                    break
                memcpy(&frames, data + at + RUN_COUNT_AT, 4)
                db = <uint8_t> data[at + RUN_DB_AT]
                at += RUN_HEADER
                if frames == 0:
                    break
            if n - at < FRAME_HEADER:
                break
            memcpy(&size, data + at, 4)
            if size < FRAME_HEADER - 4 or n - at - 4 < <Py_ssize_t> size:
                break
            hint = &self.hints[self.count]
            self.count += 1
            hint.key = NULL
            hint.word = NULL
            hint.entry = NULL
            hint.fills = False
            memcpy(&slot, data + at + 6, 2)
            memcpy(&argc, data + at + 8, 4)
            if slot < SLOT_COUNT and argc > 0 and size >= FRAME_HEADER:
                memcpy(&key_size, data + at + FRAME_HEADER, 4)
                if key_size <= size - FRAME_HEADER and keys.databases[db].slots != NULL:
                    hint.key = data + at + FRAME_HEADER + 4
                    hint.table = keys.databases[db].slots + slot
                    kache_fetch(hint.table)
                    hint.hash = table_hash(hint.key, key_size)
                    hint.fills = argc > 1
            at += 4 + <Py_ssize_t> size
            frames -= 1
        self.fetch_words()
        self.fetch_entries(keys)
        self.fetch_values()

    cdef inline void fetch_words(self) noexcept nogil:
        cdef int i
        cdef Hint* hint
        cdef Segment* segment
        for i in range(self.count):
            hint = &self.hints[i]
            if hint.key != NULL and hint.table.count:
                segment = segment_of(hint.table, hint.hash)
                if segment.capacity:
                    hint.word = segment.words + home_of(tag_of(hint.hash, segment.bits), segment.capacity)
                    kache_fetch(hint.word)

    cdef inline void fetch_entries(self, Store keys) noexcept nogil:
        cdef int i, probe
        cdef Hint* hint
        cdef Segment* segment
        cdef uint64_t* end
        cdef uint64_t* word
        cdef uint64_t tag
        for i in range(self.count):
            hint = &self.hints[i]
            if hint.word == NULL:
                continue
            segment = segment_of(hint.table, hint.hash)
            tag = tag_of(hint.hash, segment.bits)
            word = hint.word
            end = segment.words + segment.capacity
            for probe in range(PROBES_AHEAD):
                if word == end or word[0] == 0:
                    break
                if word[0] >> POINTER_BITS == tag:
                    hint.entry = <Entry*> (word[0] & POINTER_MASK)
                    kache_fetch(hint.entry)
                    break
                word += 1
            if hint.entry == NULL and hint.fills and keys.queueing:
                # Whoever stores it asks the ghosts; few commands store anything without an argument more.
                ghosts_fetch(&keys.ghosts, hint.hash)

    cdef inline void fetch_values(self) noexcept nogil:
        """The end of a short value lies in a line of its own as often as not; a long one is read in order anyway."""
        cdef int i
        cdef Entry* entry
        for i in range(self.count):
            entry = self.hints[i].entry
            if entry != NULL and not entry.flags & WIDE and entry.value_size:
                kache_fetch(entry_value(entry) + min(entry.value_size, LINE) - 1)

    cdef inline void tell(self, Store keys) noexcept nogil:
        """What is known of the next frame's key, for `Store.place` and `Store.find`."""
        cdef Hint* hint = &self.hints[self.at]
        self.at += 1
        keys.known_key = hint.key
        keys.known_hash = hint.hash
        keys.known_table = hint.table
        keys.known_entry = hint.entry if self.unlinked == keys.unlinked else NULL
