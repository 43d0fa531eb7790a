# What the handlers see of the keyspace: readers and mutators of keys and strings.
#
# All act on `db` at `now_ms`. A mutator creates the key when it is missing, raises WRONGTYPE, accounts the memory and
# tells the one hook. Lists, hashes, sets and sorted sets are in collections.pxi.

cdef class Values(Store):
    """Access to one shard's keys and strings; `Collections` and `Keyspace` complete it."""

    # Keys -----------------------------------------------------------------------------------------------
    cdef Entry* entry_at(self, Place* place, bytes key, bint touch) except? NULL:
        self.place_of(place, key)
        return self.read(place) if touch else self.find(place)

    def type_of(self, bytes key not None):
        """"string", "list", "hash", "set", "zset" or None; does not touch the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        return TYPE_NAMES[entry.flags & TYPE_MASK]

    def exists(self, bytes key not None):
        cdef Place place
        return self.entry_at(&place, key, True) != NULL

    def exists_in(self, int db, bytes key not None):
        """`exists` in another database, without touching the key."""
        cdef Place place
        self.place(&place, db, NO_SLOT, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return self.find(&place) != NULL

    def delete(self, bytes key not None):
        """Removes the key; whether it was there."""
        return self.delete_in(self.db, key)

    def delete_in(self, int db, bytes key not None):
        """`delete` in another database."""
        cdef Place place
        self.place(&place, db, NO_SLOT, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        if self.find(&place) == NULL:
            return False
        self.discard(&place)
        self.changed_key("delete", key, (db,))
        return True

    def touch(self, bytes key not None):
        """Marks the key as used just now; whether it is there."""
        cdef Place place
        return self.entry_at(&place, key, True) != NULL

    cdef int move_entry(self, Place* source, Place* target) except -1:
        """The value of `source`, which is there, becomes that of `target`; both keys are kept alive by the caller."""
        cdef Entry* old = self.detach(
            source, segment_find(segment_of(source.table, source.hash), source.hash, source.key, source.n))
        cdef int64_t deadline = entry_deadline(old), memory
        cdef Entry* fresh = entry_new(
            target.key, target.n, entry_value(old), entry_value_size(old),
            old.flags & (TYPE_MASK | RAW | HAS_TTL), old.clock, 0,
        )
        if fresh == NULL:
            self.release_value(source.db, old)
            free(old)
            raise MemoryError("no memory for a key")
        if self.find(target) != NULL:
            self.discard(target)
        free(old)
        if fresh.flags & TYPE_MASK and source.db != target.db:
            # The account of a collection's own memory goes with it.
            memory = (<object> entry_object(fresh)).memory
            source.db.memory -= memory
            target.db.memory += memory
        return self.insert(target, fresh, deadline)

    def rename(self, bytes source not None, bytes target not None):
        """`source`, which must exist, becomes `target` with its deadline; what was there is replaced."""
        cdef Place here, there
        self.place_of(&here, source)
        self.place_of(&there, target)
        if self.find(&here) == NULL:
            raise KeyError(source)
        if source != target:
            self.move_entry(&here, &there)
            self.note_fields(target)
        self.changed_key("rename", source, (target,))

    def move_db(self, bytes key not None, int db):
        """Moves the key to another database, where it must not be; False when it is not here."""
        cdef Place here, there
        cdef int own = self.db
        self.place_of(&here, key)
        self.place(&there, db, NO_SLOT, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        if self.find(&here) == NULL:
            return False
        self.move_entry(&here, &there)
        self.db = db
        self.note_fields(key)
        self.db = own
        self.changed_key("move", key, (db,))
        return True

    def copy(self, bytes source not None, bytes target not None, int db):
        """A deep copy of `source`, which must exist, in database `db`; keeps the deadline, replaces what is there."""
        cdef Place here, there
        cdef Entry* entry
        cdef Entry* fresh
        cdef int own = self.db
        cdef int64_t deadline
        cdef object value
        self.place_of(&here, source)
        self.place(&there, db, NO_SLOT, PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target))
        if self.find(&here) == NULL:
            raise KeyError(source)
        if self.find(&there) != NULL:
            self.discard(&there)
        entry = self.find(&here)
        if entry == NULL:
            return
        deadline = entry_deadline(entry)
        if entry.flags & TYPE_MASK == TYPE_STRING:
            fresh = entry_new(
                there.key, there.n, entry_value(entry), entry_value_size(entry),
                entry.flags & (RAW | HAS_TTL), self.fresh_clock(), 0,
            )
            if fresh == NULL:
                raise MemoryError("no memory for a copy")
            self.insert(&there, fresh, deadline)
        else:
            value = <object> entry_object(entry)
            value = (<FieldTable> value).duplicate() if isinstance(value, FieldTable) else value.copy()
            self.set_object(&there, entry.flags & TYPE_MASK, value, deadline)
            self.db = db
            self.note_fields(target)
            self.db = own
        self.changed_key("copy", source, (target, db))

    def deadline_of(self, bytes key not None):
        """None: no such key; -1: no deadline; else unix ms."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        # TTL and the like are reads to the statistics, although they leave the key's clock alone.
        if entry == NULL:
            self.misses += self.counting
            return None
        self.hits += self.counting
        return entry_deadline(entry) if entry.flags & HAS_TTL else -1

    def deadline_set(self, bytes key not None, int64_t deadline):
        """Expires the key at `deadline` (unix ms), at once when that has passed; whether the key was there."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return False
        if deadline <= self.now_ms:
            self.discard(&place)
            self.changed_key("delete", key, (self.db,))
            return True
        self.set_deadline(&place, entry, deadline)
        self.changed_key("deadline_set", key, (deadline,))
        return True

    def deadline_clear(self, bytes key not None):
        """Whether there was a deadline to take away."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL or not entry.flags & HAS_TTL:
            return False
        self.set_deadline(&place, entry, 0)
        self.changed_key("deadline_clear", key, ())
        return True

    def idle_ms(self, bytes key not None):
        """Milliseconds since the key was used (modulo 49 days), or None."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        if self.lfu:
            return 0
        return <uint32_t> (self.lru_clock - entry.clock)

    def frequency(self, bytes key not None):
        """The LFU counter, 0 to 255, or None."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        return lfu_counter(entry.clock, self.now_ms, self.lfu_decay_time) if self.lfu else 0

    def memory_of(self, bytes key not None):
        """Bytes of the key with its value and its place in the tables, or None."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        size = entry_memory(entry) + 8 + (sizeof(Due) if entry.flags & HAS_TTL else 0)
        if entry.flags & TYPE_MASK:
            size += (<object> entry_object(entry)).memory
        return size

    # Whole databases ------------------------------------------------------------------------------------
    def size(self):
        """Keys in the selected database, those past their deadline and not yet removed included (as in Redis)."""
        return self.databases[self.db].count

    def size_with_ttl(self):
        return self.databases[self.db].expires

    def random_key(self):
        """A living key of the selected database, each with nearly the same chance, or None."""
        cdef Database* db = &self.databases[self.db]
        cdef uint64_t drawn
        cdef uint32_t group, slot, tries
        cdef Entry* entry
        cdef Place place
        for tries in range(1000):
            if db.count == 0:
                return None
            drawn = below(db.count)
            group = slot = 0
            while drawn >= db.counts[group]:
                drawn -= db.counts[group]
                group += 1
            slot = group << GROUP_SHIFT
            while drawn >= db.slots[slot].count:
                drawn -= db.slots[slot].count
                slot += 1
            entry = table_random(&db.slots[slot])
            if not (entry.flags & HAS_TTL and entry_deadline(entry) <= self.now_ms):
                return key_bytes(entry)
            self.place(&place, self.db, slot, entry_key(entry), entry_key_size(entry))
            self.find(&place)
        # Nearly everything is past its deadline: any living key will do.
        following, found = self.scan(0, 1000)
        while not found and following:
            following, found = self.scan(following, 1000)
        return found[0] if found else None

    def scan(self, uint64_t cursor, Py_ssize_t count, type_name=None):
        """(next cursor, keys): about `count` keys are looked at. Cursor 0 is the start and the end.

        A cursor is ``slot << 48 | top 48 bits of the hash``. A key that is there from the first call to the
        last is returned, however the tables grow and shrink meanwhile, and over a restart of the shard.
        """
        cdef Database* db = &self.databases[self.db]
        cdef list found = []
        cdef int kind = -1 if type_name is None else _TYPE_OF_NAME.get(type_name, TYPE_MASK)
        cdef uint64_t slot = cursor >> POINTER_BITS, start = cursor & POINTER_MASK
        cdef int64_t seen = 0, empty = 0
        cdef Table* table
        if db.slots == NULL or slot >= SLOT_COUNT:
            return 0, found
        while slot < SLOT_COUNT:
            if start == 0 and not slot & 63 and db.counts[slot >> GROUP_SHIFT] == 0:
                slot += 64
                continue
            table = &db.slots[slot]
            if table.count:
                # What a filter leaves out counts as looked at, so that a rare type cannot cost a whole pass.
                start = scan_table(table, start, count - seen, found, False, kind, self.now_ms)
                if not start >> POINTER_BITS:
                    return (slot << POINTER_BITS) | start, found
                seen += table.count
            start = 0
            slot += 1
            if seen >= count and slot < SLOT_COUNT:
                return slot << POINTER_BITS, found
        return 0, found

    def keys(self):
        """Every living key of the selected database."""
        cdef Database* db = &self.databases[self.db]
        cdef list found = []
        cdef uint32_t slot
        cdef Walk walk
        cdef Entry* entry
        for slot in range(SLOT_COUNT if db.count else 0):
            if db.slots[slot].count == 0:
                continue
            walk = table_walk(&db.slots[slot])
            while True:
                entry = walk_next(&walk)
                if entry == NULL:
                    break
                if not (entry.flags & HAS_TTL and entry_deadline(entry) <= self.now_ms):
                    found.append(key_bytes(entry))
        return found

    def flush(self, db=None):
        """Empties one database, or all with None. The memory is freed by the cleanup thread."""
        cdef int i
        cdef DetachedDatabase detached
        for i in range(DATABASES):
            if (db is None or db == i) and self.databases[i].slots != NULL:
                self.forget_known()
                detached = DetachedDatabase()
                detached.database = self.databases[i]
                memset(&self.databases[i], 0, sizeof(Database))
                if self.cleanup is not None and len(detached):
                    self.cleanup.hand_over(detached)
        self.field_deadlines = [due for due in self.field_deadlines if db is not None and due[1] != db]
        self.changed_key("flush", b"", (db,))

    def swap(self, int left, int right):
        """Exchanges two databases."""
        cdef Database kept = self.databases[left]
        self.forget_known()
        self.databases[left] = self.databases[right]
        self.databases[right] = kept
        swapped = {left: right, right: left}
        self.field_deadlines = [(due, swapped.get(db, db), key) for due, db, key in self.field_deadlines]
        heapify(self.field_deadlines)
        self.changed_key("swap", b"", (left, right))

    # Strings --------------------------------------------------------------------------------------------
    cdef Entry* string_at(self, Place* place, bytes key) except? NULL:
        cdef Entry* entry = self.entry_at(place, key, True)
        if entry != NULL and entry.flags & TYPE_MASK:
            raise wrong_type()
        return entry

    def string_get(self, bytes key not None):
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        return None if entry == NULL else value_bytes(entry)

    def string_set(self, bytes key not None, bytes value not None, int64_t deadline=0, bint keep_ttl=False):
        """Sets any key to a string. `deadline` in unix ms, 0 for none; one that has passed deletes the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if keep_ttl and entry != NULL:
            deadline = entry_deadline(entry)
        if deadline and deadline <= self.now_ms:
            if entry != NULL:
                self.discard(&place)
            self.changed_key("delete", key, (self.db,))
            return
        self.set_string(&place, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), deadline, entry, 0, 0)
        self.changed_key("string_set", key, (value, deadline))

    def string_append(self, bytes key not None, bytes data not None):
        """Appends to the string; its new length."""
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        cdef size_t n = self.append(&place, entry, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.changed_key("string_append", key, (data,))
        return n

    cdef size_t append(self, Place* place, Entry* entry, const char* data, size_t n) except? 0:
        cdef size_t old = entry_value_size(entry) if entry != NULL else 0
        if entry == NULL:
            self.set_string(place, data, n, 0, NULL, 0, 0)
            return n
        entry = self.grow_string(place, entry, old + n)
        memcpy(entry_value(entry) + old, data, n)
        return old + n

    cdef Entry* grow_string(self, Place* place, Entry* entry, size_t n) except NULL:
        """The entry with its value made `n` bytes long, in a larger block if needed; the new bytes are not set."""
        cdef Entry* larger
        cdef size_t old = entry_value_size(entry)
        if n <= entry_room(entry) and (n <= 65535 or entry.flags & WIDE):
            entry_set_value_size(entry, n)
            entry.flags |= RAW
            return entry
        if place.n + n > MAX_BLOCK:
            raise CommandError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
        # Redis's rule: twice the size up to a mebibyte, then one more.
        larger = entry_new(
            place.key, place.n, NULL, n, (entry.flags & HAS_TTL) | RAW, entry.clock,
            n * 2 if n < 1048576 else n + 1048576,
        )
        if larger == NULL:
            raise MemoryError("no memory for a value")
        memcpy(entry_value(larger), entry_value(entry), old)
        self.swap_block(place, entry, larger, entry_deadline(entry))
        return larger

    def string_overlay(self, bytes key not None, Py_ssize_t offset, bytes data not None):
        """Writes `data` at `offset`, zeros before it where there was nothing; the string's length."""
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        cdef size_t n = PyBytes_GET_SIZE(data), old, total
        if n == 0:
            return 0 if entry == NULL else entry_value_size(entry)
        if entry == NULL:
            self.set_string(&place, b"", 0, 0, NULL, offset + n, RAW)
            entry = self.find(&place)
        old = entry_value_size(entry)
        total = max(old, offset + n)
        if total > old:
            entry = self.grow_string(&place, entry, total)
            if <size_t> offset > old:
                memset(entry_value(entry) + old, 0, offset - old)
        entry.flags |= RAW
        memcpy(entry_value(entry) + offset, PyBytes_AS_STRING(data), n)
        self.changed_key("string_overlay", key, (offset, data))
        return total

    def string_length(self, bytes key not None):
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        return 0 if entry == NULL else entry_value_size(entry)

    def string_slice(self, bytes key not None, Py_ssize_t start, Py_ssize_t stop):
        """Bytes `start` to `stop` (exclusive, clamped); empty when there is no such key."""
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        cdef Py_ssize_t n = 0 if entry == NULL else entry_value_size(entry)
        start = max(start, 0)
        stop = min(stop, n)
        if start >= stop:
            return b""
        return PyBytes_FromStringAndSize(entry_value(entry) + start, stop - start)

    def string_is_raw(self, bytes key not None):
        """Whether the string was grown in place (APPEND, SETRANGE, SETBIT); does not touch the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        return entry != NULL and entry.flags & RAW != 0
