# Typed readers and mutators of lists, hashes, sets and sorted sets, and what every collection needs.
#
# A mutator creates the key when it is missing, raises WRONGTYPE, deletes the key when its collection becomes empty,
# accounts the memory and tells the one hook (`changed_key` and its like in store.pxi).

cdef class Collections(Values):
    """Typed access to one shard's keys; `Keyspace` completes it."""

    # Any collection -------------------------------------------------------------------------------------
    cdef int replace_collection(self, bytes key, int kind, object value) except -1:
        """Stores `value` (None: nothing) in place of whatever is there, without its deadline."""
        cdef Place place
        cdef bint changed = value is not None
        self.place_of(&place, key)
        if self.find(&place) != NULL:
            self.discard(&place)
            changed = True
        if value is not None:
            self.set_object(&place, kind, value, 0)
        return changed

    cdef int settle(self, bytes key, object value, int64_t before) except -1:
        """After a change of a collection: accounts its memory, which was `before`; an empty one is deleted."""
        cdef Place place
        self.databases[self.db].memory += <int64_t> value.memory - before
        if len(value) == 0:
            self.place_of(&place, key)
            if self.find(&place) != NULL:
                self.discard(&place)
        return 0

    # Lists ------------------------------------------------------------------------------------------------
    cdef ListValue list_in(self, Entry* entry):
        """The list of an entry that was just found; None for none."""
        if entry == NULL:
            return None
        if (entry.flags & TYPE_MASK) != TYPE_LIST:
            raise wrong_type()
        return <ListValue> <object> entry_object(entry)

    cdef inline ListValue list_at(self, bytes key):
        cdef Place place
        return self.list_in(self.entry_at(&place, key, True))

    cdef Py_ssize_t list_put(self, Place* place, ListValue value, Span* elements, Py_ssize_t n, bint left) except -1:
        """`list_push` of some elements to what `list_in` said; the new length."""
        cdef bint fresh = value is None
        cdef int64_t before = 0
        cdef Py_ssize_t i
        for i in range(n):
            self.heavy |= elements[i].size >= HEAVY
        if fresh:
            value = ListValue()
        else:
            before = value.size_in_memory()
        try:
            value.put_all(elements, n, left)
        finally:
            if not fresh:
                place.db.memory += value.size_in_memory() - before
        if fresh:
            self.set_object(place, TYPE_LIST, value, 0)
        self.dirty += 1
        if self.listening:
            self._effect("list_push", PyBytes_FromStringAndSize(place.key, place.n), (arguments_of(elements, n), left))
        return value.length

    cdef int list_drop(self, Place* place, ListValue value, bint left) except -1:
        """`list_pop` of one element from what `list_in` said. Maybe the key is gone afterwards."""
        cdef int64_t before = value.size_in_memory()
        value.drop(left)
        place.db.memory += value.size_in_memory() - before
        if value.length == 0:
            self.discard(place)
        self.dirty += 1
        if self.listening:
            self._effect("list_pop", PyBytes_FromStringAndSize(place.key, place.n), (left, 1))
        return 0

    def list_get(self, bytes key not None):
        """The list at `key`, to be read only and not kept, or None."""
        return self.list_at(key)

    def list_push(self, bytes key not None, values not None, bint left):
        """Adds values one after another at one end; the new length."""
        cdef Place place
        cdef ListValue value = self.list_in(self.entry_at(&place, key, True))
        cdef int64_t before
        if value is None:
            value = ListValue()
            value.extend(values, left)
            if value.length:
                self.set_object(&place, TYPE_LIST, value, 0)
        else:
            before = value.size_in_memory()
            try:
                value.extend(values, left)
            finally:
                self.settle(key, value, before)
        self.changed_key("list_push", key, (values, left))
        return value.length

    def list_pop(self, bytes key not None, bint left, Py_ssize_t count=1):
        """Takes up to `count` values from one end, in the order they come off; empty without the key."""
        cdef ListValue value = self.list_at(key)
        cdef int64_t before
        if value is None:
            return []
        before = value.size_in_memory()
        taken = value.pop_many(left, count)
        self.settle(key, value, before)
        self.changed_key("list_pop", key, (left, len(taken)))
        return taken

    cdef ListValue existing_list(self, bytes key):
        cdef ListValue value = self.list_at(key)
        if value is None:
            raise KeyError(key)
        return value

    def list_set(self, bytes key not None, Py_ssize_t index, bytes value not None):
        """Replaces one value; KeyError without the key, IndexError out of range."""
        cdef ListValue values = self.existing_list(key)
        cdef int64_t before = values.size_in_memory()
        try:
            values.set(index, value)
        finally:
            self.settle(key, values, before)
        self.changed_key("list_set", key, (index, value))

    def list_insert(self, bytes key not None, Py_ssize_t index, bytes value not None):
        """Inserts before `index`; KeyError without the key, IndexError out of range."""
        cdef ListValue values = self.existing_list(key)
        cdef int64_t before = values.size_in_memory()
        try:
            values.insert(index, value)
        finally:
            self.settle(key, values, before)
        self.changed_key("list_insert", key, (index, value))

    def list_delete_range(self, bytes key not None, Py_ssize_t start, Py_ssize_t stop):
        """Removes the values from `start` to `stop` (exclusive); nothing without the key."""
        cdef ListValue values = self.list_at(key)
        cdef int64_t before
        if values is None:
            return
        before = values.size_in_memory()
        removed = values.delete_range(start, stop)
        self.settle(key, values, before)
        if removed is not None and self.cleanup is not None:
            self.cleanup.hand_over(removed)
        self.changed_key("list_delete_range", key, (start, stop))

    def list_remove(self, bytes key not None, bytes value not None, Py_ssize_t count):
        """Removes equal values: `count` from the head, minus `count` from the tail, all with 0; how many."""
        cdef ListValue values = self.list_at(key)
        cdef int64_t before
        if values is None:
            return 0
        before = values.size_in_memory()
        removed = values.remove(value, count)
        if removed:
            self.settle(key, values, before)
            self.changed_key("list_remove", key, (value, count))
        return removed

    def list_replace(self, bytes key not None, values not None):
        """Stores a list in place of whatever is there; its length (with none the key is deleted)."""
        cdef ListValue fresh = ListValue(values)
        if self.replace_collection(key, TYPE_LIST, fresh if fresh.length else None):
            self.changed_key("list_replace", key, (fresh,))
        return fresh.length

    # Hashes and sets --------------------------------------------------------------------------------------
    cdef FieldTable fields_in(self, Entry* entry, int kind):
        """The fields of an entry that was just found, those past their deadline included; None for none."""
        if entry == NULL:
            return None
        if (entry.flags & TYPE_MASK) != kind:
            raise wrong_type()
        return <FieldTable> <object> entry_object(entry)

    cdef FieldTable fields(self, Place* place, int kind):
        """The fields of the key, which is read; None for none. Those past their deadline are removed first."""
        cdef FieldTable table = self.fields_in(self.read(place), kind)
        if table is None or not table.heap.count or table.heap.items[0].deadline > self.now_ms:
            return table
        self.heavy = True
        self.purge_fields(PyBytes_FromStringAndSize(place.key, place.n), 1 << 40)
        return table if table.table.count else None

    cdef inline FieldTable fields_at(self, bytes key, int kind):
        cdef Place place
        self.place_of(&place, key)
        return self.fields(&place, kind)

    cdef bint purge_fields(self, bytes key, Py_ssize_t limit) except -1:
        """Removes fields of a hash past their deadline, at most `limit`. True when more are waiting."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        cdef FieldTable table
        cdef int64_t before
        cdef Py_ssize_t n
        if entry == NULL or (entry.flags & TYPE_MASK) != TYPE_HASH:
            return False
        table = <FieldTable> <object> entry_object(entry)
        before = table.bytes_used
        n = table.purge(self.now_ms, limit)
        if n:
            self.expired_fields += n
            self.settle(key, table, before)
            self.changed_key("hash_expire", key, ())
        if table.heap.count == 0:
            return False
        if table.heap.items[0].deadline <= self.now_ms:
            return True
        heappush(self.field_deadlines, (table.heap.items[0].deadline, self.db, key))
        return False

    cdef int note_fields(self, bytes key) except -1:
        """Remembers when the fields of the hash at `key`, if it is one, have to be looked at."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        cdef FieldTable table
        if entry != NULL and (entry.flags & TYPE_MASK) == TYPE_HASH:
            table = <FieldTable> <object> entry_object(entry)
            if table.heap.count:
                heappush(self.field_deadlines, (table.soonest(), self.db, key))
        return 0

    cdef bint field_put(
        self, Place* place, FieldTable table, int kind, const char* field, size_t field_size, const char* value, size_t n,
        bint keep_ttl,
    ) except -1:
        """Sets a field, or adds a member, of what `fields` said; whether it is new."""
        cdef int64_t before
        cdef bint added = True
        self.heavy |= n >= HEAVY or field_size >= HEAVY
        if table is None:
            table = FieldTable()
            table.put(field, field_size, value, n, keep_ttl)
            self.set_object(place, kind, table, 0)
        else:
            before = table.bytes_used
            try:
                added = table.put(field, field_size, value, n, keep_ttl)
            finally:
                # Without memory for the rest the table may have grown all the same.
                place.db.memory += table.bytes_used - before
            if kind == TYPE_SET and not added:
                return False
        self.dirty += 1
        if self.listening:
            name = PyBytes_FromStringAndSize(field, field_size)
            self._effect(
                "hash_set" if kind == TYPE_HASH else "set_add", PyBytes_FromStringAndSize(place.key, place.n),
                (name, PyBytes_FromStringAndSize(value, n), keep_ttl) if kind == TYPE_HASH else (name,),
            )
        return added

    cdef bint field_take(self, Place* place, FieldTable table, int kind, const char* field, size_t n) except -1:
        """Removes a field or member; whether it was there. Maybe the key is gone afterwards."""
        cdef int64_t before = table.bytes_used
        if not table.remove(field, n):
            return False
        place.db.memory += table.bytes_used - before
        if table.table.count == 0:
            self.discard(place)
        self.dirty += 1
        if self.listening:
            self._effect(
                "hash_delete" if kind == TYPE_HASH else "set_remove", PyBytes_FromStringAndSize(place.key, place.n),
                (PyBytes_FromStringAndSize(field, n),),
            )
        return True

    cdef bint put_field(self, bytes key, bytes field, bytes value, int kind, bint keep_ttl) except -1:
        cdef Place place
        self.place_of(&place, key)
        return self.field_put(
            &place, self.fields(&place, kind), kind, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field), PyBytes_AS_STRING(value),
            PyBytes_GET_SIZE(value), keep_ttl,
        )

    cdef bint remove_field(self, bytes key, bytes field, int kind) except -1:
        cdef Place place
        cdef FieldTable table
        self.place_of(&place, key)
        table = self.fields(&place, kind)
        if table is None:
            return False
        return self.field_take(&place, table, kind, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))

    def hash_get(self, bytes key not None):
        """The fields of the hash, to be read only and not kept, or None."""
        return self.fields_at(key, TYPE_HASH)

    def hash_set(self, bytes key not None, bytes field not None, bytes value not None, bint keep_ttl=False):
        """Whether the field is new. Clears the field's deadline unless `keep_ttl`."""
        return self.put_field(key, field, value, TYPE_HASH, keep_ttl)

    def hash_delete(self, bytes key not None, bytes field not None):
        """Whether the field was there."""
        return self.remove_field(key, field, TYPE_HASH)

    def hash_deadline_set(self, bytes key not None, bytes field not None, int64_t deadline):
        """Expires a field at `deadline` (unix ms), at once when that has passed; whether the field was there."""
        cdef FieldTable table = self.fields_at(key, TYPE_HASH)
        cdef int64_t before, soonest
        if table is None:
            return False
        if deadline <= self.now_ms:
            return self.hash_delete(key, field)
        before = table.bytes_used
        soonest = table.soonest()
        try:
            if not table.set_deadline(field, deadline):
                return False
        finally:
            self.databases[self.db].memory += table.bytes_used - before
        if soonest == 0 or deadline < soonest:
            heappush(self.field_deadlines, (deadline, self.db, key))
        self.changed_key("hash_deadline_set", key, (field, deadline))
        return True

    def hash_deadline_clear(self, bytes key not None, bytes field not None):
        """Whether the field had a deadline to take away."""
        cdef FieldTable table = self.fields_at(key, TYPE_HASH)
        cdef int64_t before
        if table is None:
            return False
        before = table.bytes_used
        if not table.set_deadline(field, 0):
            return False
        self.databases[self.db].memory += table.bytes_used - before
        self.changed_key("hash_deadline_clear", key, (field,))
        return True

    def set_get(self, bytes key not None):
        """The members of the set, to be read only and not kept, or None."""
        return self.fields_at(key, TYPE_SET)

    def set_add(self, bytes key not None, bytes member not None):
        """Whether the member is new."""
        return self.put_field(key, member, b"", TYPE_SET, False)

    def set_remove(self, bytes key not None, bytes member not None):
        """Whether the member was there."""
        return self.remove_field(key, member, TYPE_SET)

    def set_replace(self, bytes key not None, members):
        """Stores a set in place of whatever is there; how many members it has (with none the key is deleted)."""
        cdef FieldTable table = FieldTable()
        cdef bytes name
        for member in members:
            name = member
            table.put(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), b"", 0, False)
        if self.replace_collection(key, TYPE_SET, table if table.table.count else None):
            self.changed_key("set_replace", key, (table,))
        return table.table.count

    # Sorted sets ------------------------------------------------------------------------------------------
    cdef ZSet zset_in(self, Entry* entry):
        """The sorted set of an entry that was just read; None for none."""
        if entry == NULL:
            return None
        if (entry.flags & TYPE_MASK) != TYPE_ZSET:
            raise wrong_type()
        return <ZSet> <object> entry_object(entry)

    cdef int zset_put(self, Place* place, ZSet value, const char* member, size_t n, double score) except -2:
        """`zset_add` to what `zset_in` said: ADDED, RESCORED or SAME."""
        cdef int64_t before
        cdef int outcome = ADDED
        self.heavy |= n >= HEAVY
        if value is None:
            value = ZSet()
            value.put(member, n, score)
            self.set_object(place, TYPE_ZSET, value, 0)
        else:
            before = value.size_in_memory()
            try:
                outcome = value.put(member, n, score)
            finally:
                place.db.memory += value.size_in_memory() - before
            if outcome == SAME:
                return SAME
        self.dirty += 1
        if self.listening:
            self._effect(
                "zset_add", PyBytes_FromStringAndSize(place.key, place.n), (PyBytes_FromStringAndSize(member, n), score))
        return outcome

    cdef bint zset_take(self, Place* place, ZSet value, const char* member, size_t n) except -1:
        """`zset_remove` from what `zset_in` said. Maybe the key is gone afterwards, and `value` with it."""
        cdef int64_t before = value.size_in_memory()
        if not value.take(member, n):
            return False
        place.db.memory += value.size_in_memory() - before
        if value.table.count == 0:
            self.discard(place)
        self.dirty += 1
        if self.listening:
            self._effect(
                "zset_remove", PyBytes_FromStringAndSize(place.key, place.n), (PyBytes_FromStringAndSize(member, n),))
        return True

    def zset_get(self, bytes key not None):
        """The sorted set at `key`, to be read only and not kept, or None."""
        cdef Place place
        return self.zset_in(self.entry_at(&place, key, True))

    def zset_add(self, bytes key not None, bytes member not None, double score):
        """True: a new member; False: its score changed; None: nothing changed."""
        cdef Place place
        cdef ZSet value = self.zset_in(self.entry_at(&place, key, True))
        cdef int outcome = self.zset_put(&place, value, PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), score)
        return None if outcome == SAME else outcome == ADDED

    def zset_remove(self, bytes key not None, bytes member not None):
        """Whether the member was there."""
        cdef Place place
        cdef ZSet value = self.zset_in(self.entry_at(&place, key, True))
        if value is None:
            return False
        return self.zset_take(&place, value, PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))

    def zset_delete_ranks(self, bytes key not None, Py_ssize_t start, Py_ssize_t stop, bint wanted=True):
        """Removes the members of rank `start` to `stop` (exclusive); [(member, score)] of them if that is wanted."""
        cdef Place place
        cdef ZSet value = self.zset_in(self.entry_at(&place, key, True))
        cdef int64_t before
        cdef Py_ssize_t members
        if value is None:
            return [] if wanted else None
        before = value.size_in_memory()
        members = value.table.count
        removed = value.cut(start, stop, wanted)
        if <Py_ssize_t> value.table.count < members:
            self.settle(key, value, before)
            self.changed_key("zset_delete_ranks", key, (start, stop))
        return removed

    def zset_replace(self, bytes key not None, scores not None):
        """Stores a sorted set in place of whatever is there; its size (with none the key is deleted)."""
        cdef ZSet fresh = ZSet.from_mapping(scores)
        if self.replace_collection(key, TYPE_ZSET, fresh if fresh.table.count else None):
            self.changed_key("zset_replace", key, (scores,))
        return fresh.table.count
