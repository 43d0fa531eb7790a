# Merge: a base, written in slices while effects went on, and the log beside it become one state.
#
# The base walks all places, databases one after another, in each the slots, in a slot the prefixes of the hashes (the
# top 48 bits). Every frame of it says how far it has come in its database: the *cursor*; what lies before it is dumped.
# Frames of both files are taken in the order of their sequences, those of the log first. An effect then meets a place
#
#   that is not dumped     skipped: its result comes with the base
#   that is dumped         applied
#   whose key is *later*   large, or moved from a place not dumped to a dumped one: the base delivers it by the end, whole or
#                          in parts. Skipped, but for what has come of it in parts: that is kept up to date
#
# A later value in parts lies beside the data until its last one. Of a list there are its first elements: a change at index i
# counts if there are more than i, and the next part says how many there are. Of the others each element that has come.
# Deleted or replaced, it is dropped, and the base begins it anew or says that it is gone. Both sides follow these rules
# (format.pxd has the bytes), so that nothing needs to be said about them.

cdef enum:
    TAG_LATER = 64              # format.pxd has these, and says what they mean
    TAG_GONE = 65
    PIECE_FIRST = 1
    PIECE_LAST = 2


@cython.final
cdef class Merge:
    """Decides which effects of a log are applied while the base beside it is read; see the top of merge.pxi."""

    def __init__(self, Replay replay not None, bytes hash_seed not None):
        """For what `replay` applies from here on. `hash_seed`: with which the base was ordered."""
        if PyBytes_GET_SIZE(hash_seed) != 16:
            raise ValueError("a hash seed has 16 bytes")
        memcpy(self.seed, PyBytes_AS_STRING(hash_seed), 16)
        memset(self.cursors, 0, sizeof(self.cursors))
        self.store = replay.store
        self.replay = replay
        self.later = [{} for _ in range(DATABASES)]
        replay.merge = self

    def finish(self):
        """The base has ended: everything is dumped. RecordError when it owes a value."""
        for db, keys in enumerate(self.later):
            for key in keys:
                raise RecordError(f"the base ends without the value of {key[:100]!r} in database {db}")
        self.replay.merge = None

    # What lies where ----------------------------------------------------------------------------------
    cdef bint precedes(self, Cursor* cursor, Place* place) noexcept:
        """Whether the place lies before the cursor."""
        cdef uint64_t hash = place.hash
        if place.slot != cursor.slot:
            return place.slot < cursor.slot
        if cursor.prefix == 0:
            return False
        if self.seed[0] != HASH_SEED[0] or self.seed[1] != HASH_SEED[1]:
            hash = kache_siphash13(self.seed, place.key, place.n)
        return hash >> (64 - POINTER_BITS) < cursor.prefix

    cdef inline bint dumped(self, int db, Place* place) noexcept:
        return self.precedes(&self.cursors[db], place)

    # Effects ------------------------------------------------------------------------------------------
    cdef bint admits(self, int record, Place* place) except -1:
        """Whether the record is to be applied to the store; else its arguments are read, and what is due is done."""
        cdef Reader* reader = &self.replay.reader
        cdef int db = self.store.db_of(place)
        cdef dict later = <dict> self.later[db]
        cdef bytes key
        if record >= RECORD_RENAME and record <= RECORD_COPY:
            return self.admits_two(record, place)
        if not self.dumped(db, place):
            skip_arguments(reader, record)
            return False
        if not later:
            return True
        key = PyBytes_FromStringAndSize(place.key, place.n)
        if key not in later:
            return True
        value = later[key]
        if (record == RECORD_DELETE or record == RECORD_STRING_SET or record == RECORD_STRING_SET_UNTIL
                or record == RECORD_LIST_REPLACE or record == RECORD_SET_REPLACE or record == RECORD_ZSET_REPLACE):
            self.forget(db, key)
            value = None
        if value is None:
            skip_arguments(reader, record)
        else:
            self.change(<Building> value, record)
        return False

    cdef bint admits_two(self, int record, Place* place) except -1:
        """The same for a record that names a second place."""
        cdef Reader* reader = &self.replay.reader
        cdef Store store = self.store
        cdef const char* arguments = reader.at
        cdef int db = store.db_of(place), other = db
        cdef Span name
        cdef Place target
        name.data, name.size = place.key, <Py_ssize_t> place.n
        if record != RECORD_MOVE:
            name = read_bytes(reader)
        if record != RECORD_RENAME:
            other = read_db(reader)
        store.place(&target, other, NO_SLOT, name.data, name.size)
        source_key = PyBytes_FromStringAndSize(place.key, place.n)
        target_key = PyBytes_FromStringAndSize(target.key, target.n)
        from_here = self.dumped(db, place) and source_key not in self.later[db]
        to_here = self.dumped(other, &target) and target_key not in self.later[other]
        if from_here and to_here:
            reader.at = arguments
            return True
        if db == other and source_key == target_key:
            return False
        if from_here:
            self.forget(other, target_key)
            if record != RECORD_COPY:
                self.replay.must(key_delete(store, place))
            return False
        if record != RECORD_COPY:
            self.forget(db, source_key)
        if to_here:
            self.remove(&target)
            (<dict> self.later[other])[target_key] = None
        else:
            self.forget(other, target_key)
        return False

    cdef int forget(self, int db, bytes key) except -1:
        """What has come of a later value is worth nothing any more; the key stays later."""
        cdef dict later = <dict> self.later[db]
        value = later.get(key)
        if value is not None:
            (<Building> value).drop()
            later[key] = None
        return 0

    cdef int flushed(self, int db) except -1:
        """A database (-1: every one) is emptied."""
        for number in range(DATABASES):
            if db < 0 or number == db:
                for key in list(self.later[number]):
                    self.forget(number, key)
        return 0

    cdef int swapped(self, int left, int right) except -1:
        cdef Cursor kept = self.cursors[left]
        self.cursors[left] = self.cursors[right]
        self.cursors[right] = kept
        self.later[left], self.later[right] = self.later[right], self.later[left]
        return 0

    # Changes of what has come in parts ------------------------------------------------------------------
    cdef int change(self, Building value, int record) except -1:
        """Keeps what has come up to date. A record of another type was made before or after this value: it is skipped."""
        if value.type == TYPE_LIST and RECORD_LIST_PUSH_LEFT <= record < RECORD_HASH_SET:
            self.change_list(<ListValue> value.value, record)
        elif value.type == TYPE_HASH and RECORD_HASH_SET <= record < RECORD_SET_ADD:
            self.change_fields(<FieldTable> value.value, record)
        elif value.type == TYPE_SET and RECORD_SET_ADD <= record < RECORD_ZSET_ADD:
            self.change_fields(<FieldTable> value.value, record)
        elif value.type == TYPE_ZSET and RECORD_ZSET_ADD <= record <= RECORD_ZSET_REPLACE:
            self.change_zset(<ZSet> value.value, record)
        else:
            skip_arguments(&self.replay.reader, record)
        return value.count()

    cdef int change_list(self, ListValue value, int record) except -1:
        cdef Reader* reader = &self.replay.reader
        cdef uint64_t n = 0, index = 0, i
        cdef Span element
        if record == RECORD_LIST_PUSH_LEFT and value.length:
            n = read_count(reader)
            for i in range(n):
                element = read_bytes(reader)
                value.put(element.data, element.size, True)
        elif record == RECORD_LIST_POP_LEFT:
            value.drop_some(<Py_ssize_t> min(read_number(reader), <uint64_t> value.length), True)
        elif record == RECORD_LIST_DELETE_RANGE:
            index, n = read_number(reader), read_number(reader)
            if index < <uint64_t> value.length:
                value.delete_range(
                    <Py_ssize_t> index, <Py_ssize_t> index + <Py_ssize_t> min(n, <uint64_t> value.length - index))
        elif record == RECORD_LIST_SET or record == RECORD_LIST_INSERT:
            index, element = read_number(reader), read_bytes(reader)
            if index >= <uint64_t> value.length:
                return 0
            if record == RECORD_LIST_SET:
                value.replace(<Py_ssize_t> index, element.data, element.size)
            else:
                value.put_before(<Py_ssize_t> index, element.data, element.size)
        else:
            skip_arguments(reader, record)
        return 0

    cdef int change_fields(self, FieldTable table, int record) except -1:
        cdef Reader* reader = &self.replay.reader
        cdef uint64_t n, i
        cdef Span field, value
        value.data, value.size = b"", 0
        if record == RECORD_FIELD_DEADLINE_SET or record == RECORD_FIELD_DEADLINE_CLEAR:
            field = read_bytes(reader)
            table.set_deadline(
                PyBytes_FromStringAndSize(field.data, field.size),
                self.replay.frame_ms + read_zigzag(reader) if record == RECORD_FIELD_DEADLINE_SET else 0)
            return 0
        if shape_of(record) == NULL:
            raise unknown_record(reader, record)
        n = read_count(reader)
        for i in range(n):
            field = read_bytes(reader)
            if record == RECORD_HASH_DELETE or record == RECORD_SET_REMOVE:
                table.remove(field.data, field.size)
                continue
            if record < RECORD_HASH_DELETE:
                value = read_bytes(reader)
            table.put(field.data, field.size, value.data, value.size, record == RECORD_HASH_SET_KEEP_TTL)
        return 0

    cdef int change_zset(self, ZSet value, int record) except -1:
        cdef Reader* reader = &self.replay.reader
        cdef uint64_t n = read_count(reader), i
        cdef double score
        cdef Span member
        for i in range(n):
            if record == RECORD_ZSET_ADD:
                score = read_double(reader)
                member = read_bytes(reader)
                value.put(member.data, member.size, score)
            else:
                member = read_bytes(reader)
                value.take(member.data, member.size)
        return 0

    # The base -------------------------------------------------------------------------------------------
    def add_values(self, int64_t now_ms, bytes payload not None):
        """The payload of a VALUES frame that was made at `now_ms`."""
        self.begin_frame(now_ms, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self.read_values(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))

    def add_part(self, int64_t now_ms, bytes payload not None):
        """The payload of a PART frame."""
        self.begin_frame(now_ms, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self.read_piece(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))

    cdef int begin_frame(self, int64_t now_ms, const char* data, Py_ssize_t n) except -1:
        self.reader.start = self.reader.at = data
        self.reader.end = data + n
        self.now_ms = now_ms
        self.store.known_key = NULL
        self.store.forget_known()
        self.store.set_time_exactly(now_ms)
        return 0

    cdef int read_values(self, const char* data, Py_ssize_t n) except -1:
        """A VALUES frame, for which `begin_frame` was called."""
        self.store.effects.pause(True)
        try:
            self.read_groups()
        except (KeyError, IndexError, CommandError) as error:
            raise record_error(&self.reader, f"a value that does not fit the data ({error})") from None
        finally:
            self.store.effects.pause(False)
        return 0

    cdef int read_groups(self) except -1:
        cdef Reader* reader = &self.reader
        cdef int db = read_db(reader), group_db
        cdef uint64_t slot = read_number(reader), prefix = read_number(reader), n, i
        cdef Cursor before = self.cursors[db]
        cdef Cursor nowhere = before
        if slot > SLOT_COUNT or prefix >> POINTER_BITS or (slot == SLOT_COUNT and prefix) or slot < before.slot or (
                slot == before.slot and prefix < before.prefix):
            raise record_error(reader, f"a place that is none, or lies behind: slot {slot}")
        self.cursors[db].slot = <uint32_t> slot
        self.cursors[db].prefix = prefix
        while reader.at < reader.end:
            group_db = read_db(reader)
            slot = read_number(reader)
            read_number(reader)     # how many keys the slot has: its table grows well by itself
            n = read_count(reader)
            nowhere = self.cursors[group_db]
            for i in range(n):
                self.read_entry(group_db, &before if group_db == db else &nowhere)
        return 0

    cdef int read_entry(self, int db, Cursor* before) except -1:
        """An entry of a database whose part before `before` had come with earlier frames."""
        cdef Reader* reader = &self.reader
        cdef dict later = <dict> self.later[db]
        cdef Place place
        cdef Span name
        cdef int tag
        if reader.at >= reader.end:
            raise record_error(reader, "an entry beyond the end")
        tag = <unsigned char> reader.at[0]
        reader.at += 1
        name = read_bytes(reader)
        self.store.place(&place, db, NO_SLOT, name.data, name.size)
        if self.precedes(before, &place) or not self.dumped(db, &place):
            # Only a later one may come from elsewhere than where the walk is.
            key = PyBytes_FromStringAndSize(name.data, name.size)
            if key not in later or tag == TAG_LATER:
                raise record_error(reader, "a key that has no place here")
            self.forget(db, key)
            del later[key]
            self.remove(&place)
            return 0 if tag == TAG_GONE else self.put_image(&place, tag)
        if tag == TAG_LATER:
            later[PyBytes_FromStringAndSize(name.data, name.size)] = None
            return 0
        return self.put_image(&place, tag)

    cdef int put_image(self, Place* place, int tag) except -1:
        """The entry becomes that of its key. What is past its deadline does, too: effects may depend on it."""
        cdef Reader* reader = &self.reader
        cdef int type = tag & TYPE_MASK
        cdef uint32_t clock
        cdef int64_t deadline = 0
        cdef Building value
        if tag & ~PART_FLAGS or type > TYPE_ZSET or (tag & PART_RAW and type != TYPE_STRING):
            raise record_error(reader, f"a value of kind {tag}")
        clock = read_clock(reader)
        if tag & PART_DEADLINE:
            deadline = self.now_ms + read_zigzag(reader)
        self.keys += 1
        if type == TYPE_STRING:
            return self.put_string(place, tag, deadline, clock)
        value = Building(self.store, PyBytes_FromStringAndSize(place.key, place.n))
        value.become(type)
        value.expect(believable(reader, read_number(reader)))
        if type == TYPE_LIST:
            value.read_list(reader)
        elif type == TYPE_ZSET:
            value.read_zset(reader)
        else:
            value.read_fields(reader, tag & PART_FIELD_DEADLINES != 0)
        value.put_at(place, deadline, RESTORED)
        return self.put_clock(place, clock)

    cdef int put_string(self, Place* place, int tag, int64_t deadline, uint32_t clock) except -1:
        cdef Span text = read_bytes(&self.reader)
        cdef uint64_t* word = self.store.word_of(place)
        cdef Entry* entry
        if place.n + <size_t> text.size > MAX_BLOCK:
            raise record_error(&self.reader, "a string of more bytes than one can have")
        entry = entry_new(
            place.key, place.n, text.data, text.size, (HAS_TTL if deadline else 0) | (RAW if tag & PART_RAW else 0), clock, 0)
        if entry == NULL:
            raise MemoryError("no memory for a string")
        return self.store.put_entry(
            place, NULL if word == NULL else <Entry*> (word[0] & POINTER_MASK), entry, deadline)

    cdef int put_clock(self, Place* place, uint32_t clock) except -1:
        cdef uint64_t* word = self.store.word_of(place)
        if word != NULL:
            (<Entry*> (word[0] & POINTER_MASK)).clock = clock
        return 0

    cdef int remove(self, Place* place) except -1:
        """Whatever the store has there goes, as if it had never been."""
        cdef uint64_t* word = self.store.word_of(place)
        if word != NULL:
            self.store.remove_word(place, word)
        return 0

    cdef int read_piece(self, const char* data, Py_ssize_t n) except -1:
        """A PART frame, for which `begin_frame` was called."""
        cdef Reader* reader = &self.reader
        cdef int db = read_db(reader), flags
        cdef Span name = read_bytes(reader)
        cdef uint64_t at = read_number(reader)
        cdef bytes key = PyBytes_FromStringAndSize(name.data, name.size)
        cdef dict later = <dict> self.later[db]
        cdef int64_t deadline = 0
        cdef uint32_t clock = 0
        cdef Building value
        cdef Place place
        if key not in later or reader.at >= reader.end:
            raise record_error(reader, "a part of a value that has no place here")
        flags = <unsigned char> reader.at[0]
        reader.at += 1
        if flags & ~(PIECE_FIRST | PIECE_LAST) or (flags & PIECE_FIRST and at):
            raise record_error(reader, f"a part with the flags {flags}")
        if flags & PIECE_LAST:
            clock = read_clock(reader)
            deadline = read_zigzag(reader)
            deadline += self.now_ms if deadline else 0
        if flags & PIECE_FIRST:
            self.forget(db, key)
            later[key] = Building(self.store, key)
        if later[key] is None:
            raise record_error(reader, "a part of a value that was never begun")
        value = <Building> later[key]
        if value.type == TYPE_LIST:
            if at > <uint64_t> len(value):
                raise record_error(reader, f"a part from element {at} on of a list of which {len(value)} have come")
            (<ListValue> value.value).drop_some(len(value) - <Py_ssize_t> at, False)
        while reader.at < reader.end:
            value.read_part(reader)
        value.count()
        if flags & PIECE_LAST:
            del later[key]
            self.keys += 1
            self.store.place_of(&place, db, key)
            self.store.effects.pause(True)
            try:
                value.put_at(&place, deadline, RESTORED)
            finally:
                self.store.effects.pause(False)
            self.put_clock(&place, clock)
        return 0


cdef uint32_t read_clock(Reader* reader) except? 0xFFFFFFFF:
    cdef uint32_t clock
    if reader.end - reader.at < 4:
        raise record_error(reader, "a clock beyond the end")
    memcpy(&clock, reader.at, 4)
    reader.at += 4
    return clock


cdef uint64_t believable(Reader* reader, uint64_t elements) noexcept:
    """A number of elements for which room is made at once: no more than can follow."""
    return min(elements, <uint64_t> (reader.end - reader.at))


# Looking at records --------------------------------------------------------------------------------------
_RECORD_NAMES = {
    RECORD_STRING_SET: "string_set", RECORD_STRING_SET_UNTIL: "string_set_until", RECORD_STRING_APPEND: "string_append",
    RECORD_STRING_OVERLAY: "string_overlay", RECORD_DELETE: "delete", RECORD_RENAME: "rename", RECORD_MOVE: "move",
    RECORD_COPY: "copy", RECORD_DEADLINE_SET: "deadline_set", RECORD_DEADLINE_CLEAR: "deadline_clear",
    RECORD_FLUSH: "flush", RECORD_SWAP: "swap", RECORD_LIST_PUSH_LEFT: "list_push_left",
    RECORD_LIST_PUSH_RIGHT: "list_push_right", RECORD_LIST_POP_LEFT: "list_pop_left",
    RECORD_LIST_POP_RIGHT: "list_pop_right", RECORD_LIST_SET: "list_set", RECORD_LIST_INSERT: "list_insert",
    RECORD_LIST_DELETE_RANGE: "list_delete_range", RECORD_LIST_REPLACE: "list_replace", RECORD_HASH_SET: "hash_set",
    RECORD_HASH_SET_KEEP_TTL: "hash_set_keep_ttl", RECORD_HASH_DELETE: "hash_delete",
    RECORD_FIELD_DEADLINE_SET: "field_deadline_set", RECORD_FIELD_DEADLINE_CLEAR: "field_deadline_clear",
    RECORD_SET_ADD: "set_add", RECORD_SET_REMOVE: "set_remove", RECORD_SET_REPLACE: "set_replace",
    RECORD_ZSET_ADD: "zset_add", RECORD_ZSET_REMOVE: "zset_remove", RECORD_ZSET_REPLACE: "zset_replace",
    RECORD_SETTLED: "settled", RECORD_SHARES_BEFORE: "shares_before",
}


cdef list read_shares(Reader* reader, int64_t frame_ms):
    """[since, [transactions that have a share before], [those that have none]] of a record."""
    cdef list found = [frame_ms + read_zigzag(reader)]
    cdef uint64_t n
    for _ in range(2):
        n = read_number(reader)
        if n > <uint64_t> (reader.end - reader.at):
            raise record_error(reader, f"a list of {n} transactions")
        found.append([read_number(reader) for _ in range(n)])
    return found


def records_of(int64_t frame_ms, bytes records not None):
    """[(name, database, unix ms, key or None, arguments)] of a frame's records, in their order; deadlines are unix ms.

    RecordError for what is damaged, UnknownRecord for what a later version wrote.
    """
    cdef Reader reader
    cdef int record, db = 0
    cdef int64_t now = frame_ms
    cdef Span span
    cdef bytes key = None
    cdef list found = []
    reader.start = reader.at = PyBytes_AS_STRING(records)
    reader.end = reader.start + PyBytes_GET_SIZE(records)
    while reader.at < reader.end:
        record = <unsigned char> reader.at[0]
        reader.at += 1
        if record == RECORD_DB:
            db = read_db(&reader)
            key = None
        elif record == RECORD_TIME:
            now = frame_ms + read_zigzag(&reader)
            key = None
        elif record == RECORD_FLUSH or record == RECORD_SETTLED:
            key = None
            number = read_number(&reader)
            found.append((_RECORD_NAMES[record], db, now, None, [number if record == RECORD_SETTLED else number - 1]))
        elif record == RECORD_SHARES_BEFORE:
            key = None
            found.append((_RECORD_NAMES[record], db, now, None, read_shares(&reader, frame_ms)))
        elif record == RECORD_SWAP:
            key = None
            found.append((_RECORD_NAMES[record], db, now, None, [read_db(&reader), read_db(&reader)]))
        else:
            if not record & SAME_KEY:
                span = read_bytes(&reader)
                key = PyBytes_FromStringAndSize(span.data, span.size)
            elif key is None:
                raise record_error(&reader, "a record that refers to a key before it, where there is none")
            record &= ~SAME_KEY
            arguments = read_arguments(&reader, record, frame_ms)
            found.append((_RECORD_NAMES[record], db, now, key, arguments))
    return found


cdef list read_arguments(Reader* reader, int record, int64_t frame_ms):
    """The arguments of a record as Python's values."""
    cdef const char* shape = shape_of(record)
    cdef const char* each
    cdef uint64_t n = 1
    cdef Span span
    cdef list found = []
    if shape == NULL:
        raise unknown_record(reader, record)
    if shape[0] == b"*":
        n = read_count(reader)
        shape += 1
    while n:
        each = shape
        while each[0]:
            if each[0] == b"b":
                span = read_bytes(reader)
                found.append(PyBytes_FromStringAndSize(span.data, span.size))
            elif each[0] == b"d":
                found.append(read_double(reader))
            elif each[0] == b"z":
                found.append(frame_ms + read_zigzag(reader))
            else:
                found.append(read_number(reader))
            each += 1
        n -= 1
    return found
