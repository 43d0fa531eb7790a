# What the handlers see of the data: readers, and the mutators with Python's types.
#
# Everything acts on the database `db` at `now_ms`. A mutator creates the key when it is missing, raises WRONGTYPE for
# another type, deletes the key when its collection becomes empty. Collections that a reader returns may be read until
# the command ends, never kept and never changed. `event` is what a change is called where commands share a mutator:
# the name of a kind in effects.pyx.

cdef class Keyspace:
    """One database of a shard's store; a run has its own, and may select another."""

    def __init__(self, Store store not None, int db=0):
        self.store = store
        self.db = db

    @property
    def now_ms(self):
        """The time of the command, unix ms."""
        return self.store.now_ms

    @property
    def lfu(self):
        """Whether clocks count uses, for LFU."""
        return self.store.lfu

    @property
    def counts_uses(self):
        """Whether clocks count uses, for LFU or S3-FIFO."""
        return self.store.clocks != CLOCK_LRU

    # Keys -----------------------------------------------------------------------------------------------
    cdef Entry* entry_at(self, Place* place, bytes key, bint touch) except? NULL:
        self.store.place_of(place, self.db, key)
        return self.store.read(place) if touch else self.store.find(place)

    def type_of(self, bytes key not None):
        """"string", "list", "hash", "set", "zset", "stream" or None; does not touch the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        return TYPE_NAMES[entry.flags & TYPE_MASK]

    def exists(self, bytes key not None):
        """Whether the key is there; does not touch it."""
        cdef Place place
        self.store.place_of(&place, self.db, key)
        return self.store.look(&place) != NULL

    def exists_in(self, int db, bytes key not None):
        """`exists` in another database, without touching the key."""
        cdef Place place
        self.store.place_of(&place, db, key)
        return self.store.find(&place) != NULL

    def touch(self, bytes key not None):
        """Marks the key as used just now; whether it is there."""
        cdef Place place
        return self.entry_at(&place, key, True) != NULL

    def delete(self, bytes key not None):
        """Removes the key; whether it was there."""
        return self.delete_in(self.db, key)

    def remove(self, bytes key not None, str event not None, bint emptied=False):
        """`delete` as a part of what has an event of its own (`emptied`: and "del" behind it); whether it was there."""
        cdef Place place
        self.store.place_of(&place, self.db, key)
        return key_remove(self.store, &place, kind_of(event), emptied)

    def delete_in(self, int db, bytes key not None):
        """`delete` in another database."""
        cdef Place place
        self.store.place_of(&place, db, key)
        return key_delete(self.store, &place)

    def rename(self, bytes source not None, bytes target not None):
        """`source` becomes `target` with its deadline; what was there is replaced. KeyError without it."""
        cdef Place here, there
        self.store.place_of(&here, self.db, source)
        self.store.place_of(&there, self.db, target)
        if not key_rename(self.store, &here, &there):
            raise KeyError(source)

    def move_db(self, bytes key not None, int db):
        """Moves the key to another database, in place of what is there; False when it is not here."""
        cdef Place here, there
        self.store.place_of(&here, self.db, key)
        self.store.place_of(&there, db, key)
        return key_move(self.store, &here, &there)

    def copy(self, bytes source not None, bytes target not None, int db):
        """A deep copy of `source` in database `db`; keeps the deadline, replaces what is there. KeyError without it."""
        cdef Place here, there
        self.store.place_of(&here, self.db, source)
        self.store.place_of(&there, db, target)
        if not key_copy(self.store, &here, &there):
            raise KeyError(source)

    def deadline_of(self, bytes key not None):
        """None: no such key; -1: no deadline; else unix ms."""
        cdef Place place
        cdef Entry* entry
        self.store.place_of(&place, self.db, key)
        entry = self.store.look(&place)
        if entry == NULL:
            return None
        return entry_deadline(entry) if entry.flags & HAS_TTL else -1

    def deadline_set(self, bytes key not None, int64_t deadline):
        """Expires the key at `deadline` (unix ms), at once when that has passed; whether the key was there."""
        cdef Place place
        self.store.place_of(&place, self.db, key)
        return key_expire_at(self.store, &place, deadline)

    def deadline_clear(self, bytes key not None):
        """Whether there was a deadline to take away."""
        cdef Place place
        self.store.place_of(&place, self.db, key)
        return key_persist(self.store, &place)

    def idle_ms(self, bytes key not None):
        """Milliseconds since the key was used (modulo 49 days), or None."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        if self.store.lfu:
            return 0
        if self.store.clocks == CLOCK_QUEUES:
            return <uint32_t> ((self.store.lru_clock | QUEUE_BITS) - (entry.clock | QUEUE_BITS))
        return <uint32_t> (self.store.lru_clock - entry.clock)

    def frequency(self, bytes key not None):
        """The LFU counter, 0 to 255, or under S3-FIFO that of uses, 0 to 3; None without the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        if self.store.clocks == CLOCK_QUEUES:
            return uses_of(entry.clock)
        return lfu_counter(entry.clock, self.store.now_ms, self.store.lfu_decay_time) if self.store.lfu else 0

    def set_idle_ms(self, bytes key not None, int64_t idle_ms):
        """As if the key had been used that long ago; nothing under LFU, or without the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        cdef uint32_t idle
        if entry != NULL and not self.store.lfu:
            idle = self.store.lru_clock - <uint32_t> min(idle_ms, LONGEST_IDLE_MS)
            if self.store.clocks == CLOCK_QUEUES:
                # It is not new: its place is in the main queue.
                entry.clock = main_clock(idle, uses_of(entry.clock))
            else:
                entry.clock = idle

    def set_frequency(self, bytes key not None, uint8_t frequency):
        """The LFU counter of the key, or under S3-FIFO its uses, as far as that counts; nothing under another policy, or
        without the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry != NULL and self.store.lfu:
            entry.clock = (lfu_minutes(self.store.now_ms) << 8) | frequency
        elif entry != NULL and self.store.clocks == CLOCK_QUEUES:
            entry.clock = (entry.clock & ~<uint32_t> MOST_USES) | min(frequency, <uint8_t> 3) << 1

    def elements_of(self, bytes key not None):
        """How many elements the collection has, 1 for a string, 0 without the key; does not touch it."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return 0
        return elements_in(entry) if entry.flags & TYPE_MASK else 1

    def set_sizes(self, keys, bint scored):
        """The number of members of each set (of sorted sets too if `scored`), 0 without the key; WRONGTYPE for others.

        Does not touch them.
        """
        cdef Place place
        cdef Entry* entry
        cdef int type
        cdef list sizes = []
        for key in keys:
            entry = self.entry_at(&place, key, False)
            if entry == NULL:
                sizes.append(0)
                continue
            type = entry.flags & TYPE_MASK
            if type != TYPE_SET and (type != TYPE_ZSET or not scored):
                raise wrong_type()
            sizes.append(elements_in(entry))
        return sizes

    def memory_of(self, bytes key not None):
        """Bytes of the key with its value and its place in the tables, or None."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL:
            return None
        size = entry_memory(entry) + 8 + (sizeof(uint64_t) if entry.flags & HAS_TTL else 0)
        if holds_object(entry):
            size += (<object> entry_object(entry)).memory
        return size

    def encoding_of(self, bytes key not None):
        """How a collection is stored, in the real server's words: "listpack" or "intset" if it is packed, else "quicklist",
        "hashtable", "skiplist" or "stream"; None for a string or without the key. Does not touch it."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        if entry == NULL or not entry.flags & TYPE_MASK:
            return None
        if entry.flags & PACKED:
            return "intset" if entry.flags & INTSET else "listpack"
        return LARGE_ENCODINGS[entry.flags & TYPE_MASK]

    # The whole database ---------------------------------------------------------------------------------
    def size(self):
        """Keys in the database, those past their deadline and not yet removed included (as in Redis)."""
        return self.store.databases[self.db].count

    def size_with_ttl(self):
        return self.store.databases[self.db].expires

    def random_key(self):
        """A living key, each with nearly the same chance, or None."""
        return random_key(self.store, self.db)

    def scan(self, uint64_t cursor, Py_ssize_t count, type_name=None, uint32_t last=SLOT_COUNT - 1):
        """(next cursor, keys, what is left of `count`): about `count` keys are looked at, up to the slot `last`.

        Cursor 0 is the start and the end. Others are ``slot << 39 | top 39 bits of the hash``, less than 2^53, since many
        clients keep them as doubles. A key that is there from the first call to the last is returned, however the tables
        grow and shrink meanwhile, and over a restart of the shard.
        """
        cdef int kind = -1 if type_name is None else _TYPE_OF_NAME.get(type_name, TYPE_MASK)
        return scan_database(self.store, self.db, cursor, count, kind, min(last, <uint32_t> SLOT_COUNT - 1))

    def slot_size(self, uint32_t slot):
        """How many keys a slot has; one past its deadline counts until it is removed."""
        if slot >= SLOT_COUNT:
            raise IndexError("no such slot")
        return 0 if self.store.databases[self.db].slots == NULL else self.store.databases[self.db].slots[slot].count

    def keys(self):
        """Every living key."""
        return every_key(self.store, self.db)

    def flush(self, db=None):
        """Empties one database, or all with None."""
        database_flush(self.store, -1 if db is None else db)

    def swap(self, int left, int right):
        """Exchanges two databases."""
        database_swap(self.store, left, right)

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

    def string_set(
        self, bytes key not None, bytes value not None, int64_t deadline=0, bint keep_ttl=False, str event not None="set"
    ):
        """Sets any key to a string. `deadline` in unix ms, 0 for none; one that has passed deletes the key."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        cdef const char* data = PyBytes_AS_STRING(value)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(value)
        if deadline and not keep_ttl:
            string_set_until(self.store, &place, entry, data, n, deadline)
            return
        deadline = entry_deadline(entry) if keep_ttl and entry != NULL else 0
        string_set(self.store, &place, entry, data, n, deadline, kind_of(event))

    def string_append(self, bytes key not None, bytes data not None):
        """Appends to the string; its new length."""
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        return string_append(self.store, &place, entry, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def string_overlay(self, bytes key not None, Py_ssize_t offset, bytes data not None, str event not None="setrange"):
        """Writes `data` at `offset`, zeros before it where there was nothing; the string's length."""
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)
        if n == 0:
            return 0 if entry == NULL else entry_value_size(entry)
        return string_overlay(self.store, &place, entry, offset, PyBytes_AS_STRING(data), n, kind_of(event))

    def string_replace_raw(self, bytes key not None, bytes value not None, int64_t deadline=0, str event not None="set"):
        """Sets any key to a string that counts as grown in place, as BITOP's result does."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        string_set_raw(
            self.store, &place, entry, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), deadline, kind_of(event))

    def string_make_raw(self, bytes key not None):
        """What a write that changes nothing leaves behind: the string, if it is there, counts as grown in place."""
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        if entry != NULL:
            string_make_raw(self.store, &place, entry)

    def string_restore(self, bytes key not None, bytes value not None, int64_t deadline):
        """Sets any key to a string that comes from elsewhere; `deadline` lies ahead, or is 0."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False)
        string_set(self.store, &place, entry, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), deadline, RESTORED)

    def string_length(self, bytes key not None):
        cdef Place place
        cdef Entry* entry = self.string_at(&place, key)
        return 0 if entry == NULL else entry_value_size(entry)

    def string_slice(self, bytes key not None, Py_ssize_t start, Py_ssize_t stop, bint used=False):
        """Bytes `start` to `stop` (exclusive, clamped); empty when there is no such key. `used`: it was read by this command before,
        as a string, which counts once."""
        cdef Place place
        cdef Entry* entry = self.entry_at(&place, key, False) if used else self.string_at(&place, key)
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

    # Lists ------------------------------------------------------------------------------------------------
    cdef Entry* list_at(self, Place* place, bytes key) except? NULL:
        return list_in(self.entry_at(place, key, True))

    cdef Entry* existing_list(self, Place* place, bytes key) except NULL:
        cdef Entry* entry = self.list_at(place, key)
        if entry == NULL:
            raise KeyError(key)
        return entry

    def list_get(self, bytes key not None):
        """The list at `key`, to be read only and not kept, or None. Of a packed one it is a copy."""
        cdef Place place
        return elements_seen(self.list_at(&place, key))

    def list_length(self, bytes key not None):
        """How many elements the list has; 0 without the key."""
        cdef Place place
        return list_length(self.list_at(&place, key))

    def list_index(self, bytes key not None, Py_ssize_t index):
        """The element at an index, from the end if negative, or None."""
        cdef Place place
        cdef Entry* entry = self.list_at(&place, key)
        cdef Py_ssize_t length = list_length(entry)
        if index < 0:
            index += length
        if not 0 <= index < length:
            return None
        if entry.flags & PACKED:
            return elements_between(entry, <uint32_t> index, <uint32_t> index + 1)[0]
        return (<ListValue> <object> entry_object(entry))[index]

    def list_push(self, bytes key not None, values not None, bint left):
        """Adds values one after another at one end; the new length."""
        cdef Place place
        cdef Entry* entry = self.list_at(&place, key)
        cdef Words elements = Words(values)
        if elements.count == 0:
            return list_length(entry)
        return list_push(self.store, &place, &entry, elements.spans, elements.count, left)

    def list_pop(self, bytes key not None, bint left, Py_ssize_t count=1):
        """Takes up to `count` values from one end, in the order they come off; empty without the key."""
        cdef Place place
        cdef Entry* entry = self.list_at(&place, key)
        return [] if entry == NULL else list_pop(self.store, &place, &entry, left, count)

    def list_set(self, bytes key not None, Py_ssize_t index, bytes value not None):
        """Replaces one value; KeyError without the key, IndexError out of range."""
        cdef Place place
        cdef Entry* entry = self.existing_list(&place, key)
        list_set(self.store, &place, &entry, index, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    def list_insert(self, bytes key not None, Py_ssize_t index, bytes value not None):
        """Inserts before `index`; KeyError without the key, IndexError out of range."""
        cdef Place place
        cdef Entry* entry = self.existing_list(&place, key)
        list_insert(self.store, &place, &entry, index, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    def list_delete_range(self, bytes key not None, Py_ssize_t start, Py_ssize_t stop):
        """Removes the values from `start` to `stop` (exclusive); nothing without the key."""
        cdef Place place
        cdef Entry* entry = self.list_at(&place, key)
        if entry != NULL:
            list_trim(self.store, &place, &entry, start, stop)

    def list_remove(self, bytes key not None, bytes value not None, Py_ssize_t count):
        """Removes equal values: `count` from the head, minus `count` from the tail, all with 0; how many."""
        cdef Place place
        cdef Entry* entry = self.list_at(&place, key)
        return 0 if entry == NULL else list_remove(
            self.store, &place, &entry, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), count)

    def list_replace(self, bytes key not None, values not None, int64_t deadline=0, str event not None="sortstore"):
        """Stores a list in place of whatever is there; its length (with none the key is deleted)."""
        cdef Place place
        cdef ListValue fresh = ListValue(values)
        self.store.place_of(&place, self.db, key)
        list_replace(self.store, &place, fresh, deadline, kind_of(event))
        return fresh.length

    # Hashes and sets --------------------------------------------------------------------------------------
    cdef Entry* fields_at(self, Place* place, bytes key, int type) except? NULL:
        self.store.place_of(place, self.db, key)
        return fields_of(self.store, place, type)

    cdef bint put_field(self, bytes key, bytes field, bytes value, int type, bint keep_ttl, int kind) except -1:
        cdef Place place
        cdef Entry* entry = self.fields_at(&place, key, type)
        return field_put(
            self.store, &place, &entry, type, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field),
            PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), keep_ttl, kind, 0)

    cdef bint take_field(self, bytes key, bytes field, int type, int kind) except -1:
        cdef Place place
        cdef Entry* entry = self.fields_at(&place, key, type)
        return entry != NULL and field_take(
            self.store, &place, &entry, type, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field), kind)

    def hash_get(self, bytes key not None):
        """The fields of the hash, to be read only and not kept, or None. Of a packed one it is a copy."""
        cdef Place place
        return fields_seen(self.fields_at(&place, key, TYPE_HASH))

    def hash_set(
        self, bytes key not None, bytes field not None, bytes value not None, bint keep_ttl=False, str event not None="hset"
    ):
        """Whether the field is new. Clears the field's deadline unless `keep_ttl`."""
        return self.put_field(key, field, value, TYPE_HASH, keep_ttl, kind_of(event))

    def hash_delete(self, bytes key not None, bytes field not None):
        """Whether the field was there."""
        return self.take_field(key, field, TYPE_HASH, HASH_DELETED)

    def hash_deadline_set(self, bytes key not None, bytes field not None, int64_t deadline):
        """Expires a field at `deadline` (unix ms), at once when that has passed; whether the field was there."""
        cdef Place place
        cdef Entry* entry = self.fields_at(&place, key, TYPE_HASH)
        return entry != NULL and field_expire_at(self.store, &place, &entry, field, deadline)

    def hash_deadline_clear(self, bytes key not None, bytes field not None):
        """Whether the field had a deadline to take away."""
        cdef Place place
        cdef Entry* entry = self.fields_at(&place, key, TYPE_HASH)
        return entry != NULL and field_persist(self.store, &place, entry, field)

    def hash_replace(self, bytes key not None, items not None, deadlines=(), int64_t deadline=0, str event not None="restore"):
        """Stores a hash of (field, value) in place of whatever is there, with (field, deadline) of some; its size."""
        cdef Place place
        cdef FieldTable table = FieldTable()
        cdef bytes field, value
        for field, value in items:
            table.put(
                PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), False)
        for field, until in deadlines:
            if until <= self.store.now_ms:
                table.remove(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
            else:
                table.set_deadline(field, until)
        self.store.place_of(&place, self.db, key)
        table_replace(self.store, &place, TYPE_HASH, table, deadline, kind_of(event))
        return table.count()

    def set_get(self, bytes key not None):
        """The members of the set, to be read only and not kept, or None. Of a packed one it is a copy."""
        cdef Place place
        return fields_seen(self.fields_at(&place, key, TYPE_SET))

    def set_add(self, bytes key not None, bytes member not None):
        """Whether the member is new."""
        return self.put_field(key, member, b"", TYPE_SET, False, SET_ADDED)

    def set_remove(self, bytes key not None, bytes member not None, str event not None="srem"):
        """Whether the member was there."""
        return self.take_field(key, member, TYPE_SET, kind_of(event))

    def set_replace(self, bytes key not None, members not None, int64_t deadline=0, str event not None="restore"):
        """Stores a set in place of whatever is there; how many members it has (with none the key is deleted)."""
        cdef Place place
        cdef FieldTable table = FieldTable()
        cdef bytes member
        for member in members:
            table.put(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), b"", 0, False)
        self.store.place_of(&place, self.db, key)
        table_replace(self.store, &place, TYPE_SET, table, deadline, kind_of(event))
        return table.count()

    # Sorted sets ------------------------------------------------------------------------------------------
    cdef Entry* zset_at(self, Place* place, bytes key) except? NULL:
        return zset_in(self.entry_at(place, key, True))

    def zset_get(self, bytes key not None):
        """The sorted set at `key`, to be read only and not kept, or None. Of a packed one it is a copy."""
        cdef Place place
        return members_seen(self.zset_at(&place, key))

    def zset_length(self, bytes key not None):
        """How many members the sorted set has; 0 without the key."""
        cdef Place place
        return zset_length(self.zset_at(&place, key))

    def zset_score(self, bytes key not None, bytes member not None):
        """A member's score, or None."""
        cdef Place place
        cdef Entry* entry = self.zset_at(&place, key)
        cdef double score
        if entry != NULL and score_of(entry, PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), &score):
            return score
        return None

    def zset_outgrow(self, bytes key not None, Py_ssize_t count, Py_ssize_t longest):
        """Before a command with so many pairs, whose longest member has so many bytes: whether they are more than is packed.
        Then the set is packed no more, whatever comes of them."""
        cdef Place place
        cdef Entry* entry = self.zset_at(&place, key)
        if count <= <Py_ssize_t> limits.zset_entries and longest <= <Py_ssize_t> limits.zset_value:
            return False
        if entry != NULL:
            members_unpacked(self.store, &place, &entry)
        return True

    def zset_add(
        self, bytes key not None, bytes member not None, double score, str event not None="zadd", *, bint as_tree=False
    ):
        """True: a new member; False: its score changed; None: nothing changed. `as_tree`: what `zset_outgrow` said."""
        cdef Place place
        cdef Entry* entry = self.zset_at(&place, key)
        cdef int outcome = zset_put(
            self.store, &place, &entry, PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), score, kind_of(event),
            AS_TABLE if as_tree else 0)
        return None if outcome == SAME else outcome == ADDED

    def zset_remove(self, bytes key not None, bytes member not None):
        """Whether the member was there."""
        cdef Place place
        cdef Entry* entry = self.zset_at(&place, key)
        return entry != NULL and zset_take(
            self.store, &place, &entry, PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))

    def zset_delete_ranks(
        self, bytes key not None, Py_ssize_t start, Py_ssize_t stop, bint wanted=True, str event not None="zremrangebyrank"
    ):
        """Removes the members of rank `start` to `stop` (exclusive); [(member, score)] of them if that is wanted."""
        cdef Place place
        cdef Entry* entry = self.zset_at(&place, key)
        if entry == NULL:
            return [] if wanted else None
        return zset_cut(self.store, &place, entry, start, stop, wanted, kind_of(event))

    def zset_replace(self, bytes key not None, scores not None, int64_t deadline=0, str event not None="restore"):
        """Stores a sorted set in place of whatever is there; its size (with none the key is deleted)."""
        cdef Place place
        cdef ZSet fresh = ZSet.from_mapping(scores)
        self.store.place_of(&place, self.db, key)
        zset_replace(self.store, &place, fresh, deadline, kind_of(event))
        return fresh.table.count


    # Streams --------------------------------------------------------------------------------------------
    # Ids are ints, ``ms << 64 | seq``. A group, and a consumer where one is named, must be there: KeyError.
    cdef Entry* stream_at(self, Place* place, bytes key) except? NULL:
        return stream_in(self.entry_at(place, key, True))

    cdef Entry* existing_stream(self, Place* place, bytes key) except NULL:
        cdef Entry* entry = self.stream_at(place, key)
        if entry == NULL:
            raise KeyError(key)
        return entry

    def stream_get(self, bytes key not None):
        """The stream at `key`, to be read only and not kept, or None."""
        cdef Place place
        cdef Entry* entry = self.stream_at(&place, key)
        return None if entry == NULL else stream_of(entry)

    def stream_add(self, bytes key not None, words not None, ms=None, seq=None):
        """Adds an entry of fields and values in turn; its id. `ms` and `seq`: what is given of that.

        CommandError when the id is not greater than the last, or when none is left.
        """
        cdef Place place
        cdef Entry* entry = self.stream_at(&place, key)
        cdef Words pairs = Words(words)
        cdef StreamId id
        id.ms, id.seq = ms or 0, seq or 0
        stream_choose_id(self.store, entry, &id, ms is not None, seq is not None)
        stream_add(self.store, &place, &entry, id, pairs.spans, pairs.count // 2)
        return id_bytes(id)

    def stream_delete(self, bytes key not None, ids not None):
        """Removes entries; how many were there."""
        cdef Place place
        cdef Entry* entry = self.stream_at(&place, key)
        cdef Py_ssize_t removed = 0
        for number in () if entry == NULL else ids:
            removed += stream_delete(self.store, &place, entry, id_of(number))
        return removed

    def stream_trim(self, bytes key not None, until not None):
        """Removes all entries up to this id, included; how many. KeyError without the key."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        return stream_trim(self.store, &place, entry, id_of(until))

    def stream_set_meta(self, bytes key not None, last, added, max_deleted, str event=None):
        """What a stream says of itself; without the key an empty one is made."""
        cdef Place place
        cdef Entry* entry = self.stream_at(&place, key)
        stream_set_meta(
            self.store, &place, &entry, id_of(last), added, id_of(max_deleted), SILENT if event is None else kind_of(event))

    def stream_replace(self, bytes key not None, Stream fresh not None, int64_t deadline=0, str event not None="restore"):
        """Stores a stream, which nobody else has, in place of whatever is there."""
        cdef Place place
        self.store.place_of(&place, self.db, key)
        stream_replace(self.store, &place, fresh, deadline, kind_of(event))

    def group_put(self, bytes key not None, bytes name not None, last not None, int64_t read, str event=None):
        """The group, made if need be, has read up to the id `last`: so many entries, -1 if unknown."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        group_put(self.store, &place, entry, name, last, read, SILENT if event is None else kind_of(event))

    def group_drop(self, bytes key not None, bytes name not None):
        """Whether the group was there."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        return group_drop(self.store, &place, entry, name)

    def consumer_put(
        self, bytes key not None, bytes group not None, bytes name not None, int64_t seen, int64_t active, str event=None
    ):
        """Makes the consumer, or says when it was seen and got something (-1: never), unix ms; whether it is new."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        return consumer_put(
            self.store, &place, entry, group, name, seen, active, SILENT if event is None else kind_of(event))

    def consumer_drop(self, bytes key not None, bytes group not None, bytes name not None):
        """Removes the consumer; how many entries it had, None when it was not there."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        cdef int64_t dropped = consumer_drop(self.store, &place, entry, group, name)
        return None if dropped < 0 else dropped

    def pending_put(
        self, bytes key not None, bytes group not None, bytes consumer not None, int64_t delivered, uint64_t count,
        list ids not None,
    ):
        """The consumer has these entries: delivered then (unix ms), so often."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        pending_put(self.store, &place, entry, group, consumer, delivered, count, ids)

    def group_deliver(
        self, bytes key not None, bytes group not None, bytes consumer not None, list ids not None, int64_t read, bint pends
    ):
        """The consumer, made if need be, gets entries that its group has not delivered before, now; `read`: its counter then."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        group_deliver(self.store, &place, entry, group, consumer, ids, read, pends)

    def pending_drop(self, bytes key not None, bytes group not None, list ids not None):
        """These entries are pending no more; how many were."""
        cdef Place place
        cdef Entry* entry = self.existing_stream(&place, key)
        return pending_drop(self.store, &place, entry, group, ids)


cdef class Words:
    """Byte strings of Python as spans; it keeps them alive."""

    def __cinit__(self, words):
        cdef Py_ssize_t i
        self.kept = list(words)
        self.count = len(self.kept)
        self.spans = <Span*> malloc((self.count + 1) * sizeof(Span))
        if self.spans == NULL:
            raise MemoryError("no memory for the words of a command")
        for i in range(self.count):
            self.spans[i].data = PyBytes_AS_STRING(<bytes?> self.kept[i])
            self.spans[i].size = PyBytes_GET_SIZE(<bytes> self.kept[i])

    def __dealloc__(self):
        free(self.spans)
