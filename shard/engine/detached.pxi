# A flushed database, invisible at once and taken apart by the cleanup thread.

cdef class DetachedDatabase:
    """What a database held. Strings are freed without the GIL; collections are handed on."""

    def __cinit__(self):
        memset(&self.database, 0, sizeof(Database))
        self.slot = 0

    def __dealloc__(self):
        if self.database.slots != NULL:
            database_release(&self.database)

    def __len__(self):
        return self.database.count

    cdef PyObject* free_some(self, Py_ssize_t* count) noexcept nogil:
        """Frees entries until `count` is used up (NULL) or a collection was met, whose reference is returned."""
        cdef Table* table
        cdef Segment* segment
        cdef Entry* entry
        cdef PyObject* value
        cdef uint32_t places, i
        cdef int64_t ignored = 0
        while self.slot < SLOT_COUNT:
            table = &self.database.slots[self.slot]
            places = 1 if table.directory == NULL else 1 << table.flat.directory_bits
            while table.count and self.place < places:
                segment = &table.flat if table.directory == NULL else table.directory[self.place]
                i = self.at
                while i < segment.capacity and segment.count:
                    entry = <Entry*> (segment.words[i] & POINTER_MASK)
                    i += 1
                    if entry == NULL:
                        continue
                    segment.words[i - 1] = 0
                    segment.count -= 1
                    table.count -= 1
                    self.database.count -= 1
                    value = entry_object(entry) if holds_object(entry) else NULL
                    free(entry)
                    count[0] -= 1
                    if value != NULL or count[0] <= 0:
                        self.at = i
                        return value
                self.at = 0
                self.place += 1 if table.directory == NULL else 1 << (table.flat.directory_bits - segment.bits)
            table_drop_storage(table, &ignored)
            self.slot += 1
            self.place = self.at = 0
            count[0] -= 1
            if count[0] <= 0:
                return NULL
        return NULL

    def release_some(self, Py_ssize_t count):
        """Frees about `count` entries. True while something is left."""
        cdef PyObject* value
        cdef uint32_t group
        cdef object owned
        while count > 0 and self.slot < SLOT_COUNT:
            with nogil:
                value = self.free_some(&count)
            if value != NULL:
                owned = <object> value
                Py_DECREF(owned)
                # A small one is freed when its last reference goes, here; a large one in slices of its own.
                count -= len(owned) // 4
                while owned.release_some(2000):
                    pass
                owned = None
        if self.slot < SLOT_COUNT:
            return True
        if self.database.slots != NULL:
            for group in range(GROUPS):
                free(self.database.heaps[group].words)
            free(self.database.slots)
            memset(&self.database, 0, sizeof(Database))
        return False

