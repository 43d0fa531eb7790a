# Replay: the records of a frame (effects.pyx) applied to a store, by the same mutators that made them.
#
# The clock is set to the time of each record, also backwards, so that what was past its deadline then is absent now.
# A record is checked against the data it meets: what cannot have happened is an error, never a guess. No length is
# believed before it is known to lie within the frame.

class RecordError(ValueError):
    """Records that are damaged, or that do not fit the data they are applied to. Says where."""


class UnknownRecord(RecordError):
    """A record of a kind that this version does not know: a later one made it."""


cdef enum:
    FEW_PAIRS = 8               # fields of an entry that need no memory of their own while it is read


cdef const char* shape_of(int record) noexcept nogil:
    """The arguments of a record: b bytes, n a number, z a zigzag one, d a double; behind * as often as a count says. NULL:
    there is no such record. What is behind * ends it."""
    if record == RECORD_STRING_SET or record == RECORD_STRING_APPEND or record == RECORD_RENAME:
        return "b"
    if record == RECORD_STRING_SET_UNTIL:
        return "zb"
    if record == RECORD_STRING_OVERLAY or record == RECORD_LIST_SET or record == RECORD_LIST_INSERT:
        return "nb"
    if record == RECORD_DELETE or record == RECORD_DEADLINE_CLEAR:
        return ""
    if record == RECORD_MOVE or record == RECORD_LIST_POP_LEFT or record == RECORD_LIST_POP_RIGHT:
        return "n"
    if record == RECORD_COPY:
        return "bn"
    if record == RECORD_DEADLINE_SET:
        return "z"
    if record == RECORD_LIST_DELETE_RANGE:
        return "nn"
    if record == RECORD_HASH_SET or record == RECORD_HASH_SET_KEEP_TTL:
        return "*bb"
    if record == RECORD_FIELD_DEADLINE_SET:
        return "bz"
    if record == RECORD_FIELD_DEADLINE_CLEAR:
        return "b"
    if record == RECORD_ZSET_ADD or record == RECORD_ZSET_REPLACE:
        return "*db"
    if (record == RECORD_LIST_PUSH_LEFT or record == RECORD_LIST_PUSH_RIGHT or record == RECORD_LIST_REPLACE
            or record == RECORD_HASH_DELETE or record == RECORD_SET_ADD or record == RECORD_SET_REMOVE
            or record == RECORD_SET_REPLACE or record == RECORD_ZSET_REMOVE):
        return "*b"
    if record == RECORD_STREAM_ADD:
        return "nn*bb"
    if record == RECORD_STREAM_DELETE:
        return "*nn"
    if record == RECORD_STREAM_TRIM:
        return "nnn"
    if record == RECORD_STREAM_META:
        return "nnnnn"
    if record == RECORD_GROUP_PUT:
        return "bnnn"
    if record == RECORD_CONSUMER_PUT:
        return "bbzz"
    if record == RECORD_CONSUMER_DROP:
        return "bb"
    if record == RECORD_PENDING_PUT:
        return "bbzn*nn"
    if record == RECORD_GROUP_DROP:
        return "b"
    if record == RECORD_PENDING_DROP:
        return "b*nn"
    return NULL


cdef object unknown_record(Reader* reader, int record):
    return UnknownRecord(f"a record of the unknown kind {record}, at byte {reader.at - reader.start} of the frame's records")


cdef int skip_arguments(Reader* reader, int record) except -1:
    """Reads the arguments of a record, and does nothing with them."""
    cdef const char* shape = shape_of(record)
    cdef const char* repeated = NULL
    cdef uint64_t left = 0
    if shape == NULL:
        raise unknown_record(reader, record)
    while shape[0] or left:
        if not shape[0]:
            left -= 1
            shape = repeated if left else shape
            continue
        if shape[0] == b"*":
            left = read_count(reader)
            repeated = shape + 1
        elif shape[0] == b"b":
            read_bytes(reader)
        elif shape[0] == b"d":
            read_double(reader)
        else:
            read_number(reader)
        shape += 1
    return 0


cdef object record_error(Reader* reader, str what):
    return RecordError(f"{what}, at byte {reader.at - reader.start} of the frame's records")


cdef uint64_t read_number(Reader* reader) except? 0xFFFFFFFFFFFFFFFF:
    cdef uint64_t number = 0
    cdef int shift = 0
    cdef unsigned char byte
    while reader.at < reader.end and shift < 64:
        byte = <unsigned char> reader.at[0]
        reader.at += 1
        number |= <uint64_t> (byte & 0x7F) << shift
        if byte < 0x80:
            return number
        shift += 7
    raise record_error(reader, "a number that does not end")


cdef int64_t read_zigzag(Reader* reader) except? -1:
    cdef uint64_t number = read_number(reader)
    return <int64_t> (number >> 1) ^ -<int64_t> (number & 1)


cdef Span read_bytes(Reader* reader) except *:
    cdef Span span
    cdef uint64_t n = read_number(reader)
    if n > <uint64_t> (reader.end - reader.at):
        raise record_error(reader, "bytes beyond the end")
    span.data = reader.at
    span.size = <Py_ssize_t> n
    reader.at += n
    return span


cdef double read_double(Reader* reader) except? -1:
    cdef double number
    if reader.end - reader.at < 8:
        raise record_error(reader, "a double beyond the end")
    memcpy(&number, reader.at, 8)
    reader.at += 8
    if number != number:
        raise record_error(reader, "a score that is not a number")
    return number


cdef uint64_t read_count(Reader* reader) except? 0xFFFFFFFFFFFFFFFF:
    """How many elements follow: at least one, and each takes a byte or more."""
    cdef uint64_t n = read_number(reader)
    if n == 0 or n > <uint64_t> (reader.end - reader.at):
        raise record_error(reader, f"a count of {n} elements")
    return n


cdef StreamId read_id(Reader* reader) except *:
    cdef StreamId id
    id.ms = read_number(reader)
    id.seq = read_number(reader)
    return id


cdef bytes read_text(Reader* reader):
    cdef Span span = read_bytes(reader)
    return PyBytes_FromStringAndSize(span.data, span.size)


cdef list read_ids(Reader* reader):
    cdef uint64_t n = read_count(reader)
    cdef list ids = []
    while n:
        ids.append(number_of(read_id(reader)))
        n -= 1
    return ids


cdef Span* read_pairs(Reader* reader, Span* few, uint64_t* count) except NULL:
    """The fields and values of an entry, `count` pairs: in `few` if that is enough for them, else the caller's to free."""
    cdef uint64_t n = read_count(reader), i
    cdef const char* start = reader.at
    cdef Span* spans = few
    if n > <uint64_t> FEW_PAIRS:
        spans = <Span*> malloc(2 * n * sizeof(Span))
        if spans == NULL:
            raise MemoryError("no memory for the fields of an entry")
    try:
        for i in range(2 * n):
            spans[i] = read_bytes(reader)
        if reader.at - start > <int64_t> 2 * LARGEST_ENTRY:
            raise record_error(reader, "an entry of more bytes than one can have")
    except BaseException:
        if spans != few:
            free(spans)
        raise
    count[0] = n
    return spans


cdef int read_stream_entry(Reader* reader, Stream value, StreamId id) except -1:
    """Adds an entry to a stream that is read from somewhere: behind all that are there."""
    cdef Span[2 * FEW_PAIRS] few
    cdef uint64_t n = 0
    cdef Span* spans = read_pairs(reader, few, &n)
    try:
        if value.count and compare_ids(id, value.directory[value.head + value.count - 1].chunk.last) <= 0:
            raise record_error(reader, "an entry of a stream in the wrong place")
        value.append(id, spans, <Py_ssize_t> n)
    finally:
        if spans != few:
            free(spans)
    return 0


cdef int read_stream_meta(Reader* reader, Stream value) except -1:
    cdef StreamId last = read_id(reader)
    cdef uint64_t added = read_number(reader)
    if not value.may_be(last, added):
        raise record_error(reader, "a stream that says less than it has")
    value.let_last(last)
    value.added = added
    value.max_deleted = read_id(reader)
    return 0


cdef int read_db(Reader* reader) except -1:
    cdef uint64_t db = read_number(reader)
    if db >= DATABASES:
        raise record_error(reader, f"database {db}")
    return <int> db


@cython.final
cdef class Replay:
    """Applies frames to a store; nobody observes or records meanwhile."""

    def __init__(self, Store store not None):
        self.store = store

    def apply(self, int64_t frame_ms, bytes records not None):
        """The records of one frame, which was made at `frame_ms`. RecordError leaves what was applied before it."""
        self.apply_records(frame_ms, PyBytes_AS_STRING(records), PyBytes_GET_SIZE(records))

    def finish(self, int64_t now_ms):
        """Everything is applied: it is `now_ms` from here on, also if that is earlier, and nothing was counted."""
        cdef Store store = self.store
        store.set_time_exactly(now_ms)
        store.dirty = store.hits = store.misses = store.expired = store.expired_fields = 0

    cdef int apply_records(self, int64_t frame_ms, const char* records, Py_ssize_t n) except -1:
        cdef Store store = self.store
        self.reader.start = self.reader.at = records
        self.reader.end = records + n
        self.frame_ms = frame_ms
        self.db = 0
        store.known_key = NULL          # it may have lain where these records are
        store.forget_known()
        store.set_time_exactly(frame_ms)
        store.effects.pause(True)
        try:
            self.apply_all()
        except (KeyError, IndexError, CommandError) as error:
            raise record_error(&self.reader, f"a record that does not fit the data ({error})") from None
        finally:
            store.effects.pause(False)
        return 0

    cdef int apply_all(self) except -1:
        cdef Reader* reader = &self.reader
        cdef Place place
        cdef Span key
        cdef int record
        key.data = NULL
        while reader.at < reader.end:
            record = <unsigned char> reader.at[0]
            reader.at += 1
            if record == RECORD_DB:
                self.db = read_db(reader)
                key.data = NULL
            elif record == RECORD_TIME:
                self.store.set_time_exactly(self.frame_ms + read_zigzag(reader))
                key.data = NULL
            elif record == RECORD_FLUSH:
                self.flush(read_number(reader))
                key.data = NULL
            elif record == RECORD_SWAP:
                self.swap(read_db(reader), read_db(reader))
                key.data = NULL
            elif record == RECORD_SETTLED:
                read_number(reader)
                key.data = NULL
            elif record == RECORD_SHARES_BEFORE:
                read_shares(reader, self.frame_ms)
                key.data = NULL
            else:
                if not record & SAME_KEY:
                    key = read_bytes(reader)
                elif key.data == NULL:
                    raise record_error(reader, "a record that refers to a key before it, where there is none")
                self.store.place(&place, self.db, NO_SLOT, key.data, key.size)
                record &= ~SAME_KEY
                if self.merge is None or self.merge.admits(record, &place):
                    self.apply_one(record, &place)
        return 0

    cdef int flush(self, uint64_t which) except -1:
        if which > DATABASES:
            raise record_error(&self.reader, f"database {which - 1}")
        if self.merge is not None:
            self.merge.flushed(<int> which - 1)
        return database_flush(self.store, <int> which - 1)

    cdef int swap(self, int left, int right) except -1:
        if self.merge is not None:
            self.merge.swapped(left, right)
        return database_swap(self.store, left, right)

    cdef int apply_one(self, int record, Place* place) except -1:
        if record < RECORD_DELETE:
            return self.apply_string(record, place)
        if record < RECORD_LIST_PUSH_LEFT:
            return self.apply_key(record, place)
        if record < RECORD_HASH_SET:
            return self.apply_list(record, place)
        if record < RECORD_ZSET_ADD:
            return self.apply_fields(record, place)
        if record < RECORD_STREAM_ADD:
            return self.apply_zset(record, place)
        if record > RECORD_PENDING_DROP:
            return self.unknown(record)
        return self.apply_stream(record, place)

    cdef int unknown(self, int record) except -1:
        raise unknown_record(&self.reader, record)

    cdef int must(self, bint done) except -1:
        if not done:
            raise record_error(&self.reader, "a record that changes what is not there")
        return 0

    cdef int apply_key(self, int record, Place* place) except -1:
        cdef Reader* reader = &self.reader
        cdef Store store = self.store
        cdef Place target
        cdef Span name
        if record == RECORD_DELETE:
            return self.must(key_delete(store, place) or self.gaps)
        if record == RECORD_DEADLINE_SET:
            return self.must(key_expire_at(store, place, self.frame_ms + read_zigzag(reader)))
        if record == RECORD_DEADLINE_CLEAR:
            return self.must(key_persist(store, place))
        if record == RECORD_RENAME:
            name = read_bytes(reader)
            store.place(&target, self.db, NO_SLOT, name.data, name.size)
            return self.must(key_rename(store, place, &target))
        if record == RECORD_MOVE:
            store.place(&target, read_db(reader), place.slot, place.key, place.n)
            return self.must(key_move(store, place, &target))
        if record == RECORD_COPY:
            name = read_bytes(reader)
            store.place(&target, read_db(reader), NO_SLOT, name.data, name.size)
            return self.must(key_copy(store, place, &target))
        return self.unknown(record)

    cdef int apply_string(self, int record, Place* place) except -1:
        cdef Reader* reader = &self.reader
        cdef Store store = self.store
        cdef Entry* entry = store.find(place)
        cdef int64_t deadline = 0
        cdef uint64_t offset = 0
        cdef Span value
        if record == RECORD_STRING_SET_UNTIL:
            deadline = self.frame_ms + read_zigzag(reader)
        elif record == RECORD_STRING_OVERLAY:
            offset = read_number(reader)
        value = read_bytes(reader)
        if record == RECORD_STRING_SET or record == RECORD_STRING_SET_UNTIL:
            string_set(store, place, entry, value.data, value.size, deadline, STRING_SET)
            return 0
        if entry != NULL and entry.flags & TYPE_MASK:
            raise wrong_type()
        if record == RECORD_STRING_APPEND:
            string_append(store, place, entry, value.data, value.size)
        elif record == RECORD_STRING_OVERLAY:
            if value.size == 0 or offset > MAX_BLOCK:
                raise record_error(reader, "a part of a string that lies nowhere")
            string_overlay(store, place, entry, offset, value.data, value.size, STRING_RANGE_SET)
        else:
            self.unknown(record)
        return 0

    cdef int apply_list(self, int record, Place* place) except -1:
        cdef Reader* reader = &self.reader
        cdef Store store = self.store
        cdef Entry* entry
        cdef uint64_t first
        cdef Span element
        if record == RECORD_LIST_REPLACE:
            return list_replace(store, place, self.read_list(ListValue(), False), 0, RESTORED)
        entry = list_in(store.find(place))
        if record == RECORD_LIST_PUSH_LEFT or record == RECORD_LIST_PUSH_RIGHT:
            return self.push(place, entry, record == RECORD_LIST_PUSH_LEFT)
        first = read_number(reader)
        self.must(entry != NULL and first <= <uint64_t> list_length(entry))
        if record == RECORD_LIST_POP_LEFT:
            list_trim(store, place, &entry, 0, first)
        elif record == RECORD_LIST_POP_RIGHT:
            list_trim(store, place, &entry, list_length(entry) - first, list_length(entry))
        elif record == RECORD_LIST_DELETE_RANGE:
            list_trim(store, place, &entry, first, first + read_number(reader))
        elif record == RECORD_LIST_SET or record == RECORD_LIST_INSERT:
            element = read_bytes(reader)
            if record == RECORD_LIST_SET:
                list_set(store, place, &entry, first, element.data, element.size)
            else:
                list_insert(store, place, &entry, first, element.data, element.size)
        else:
            self.unknown(record)
        return 0

    cdef ListValue read_list(self, ListValue value, bint left):
        cdef uint64_t n = read_count(&self.reader)
        cdef Span element
        while n:
            element = read_bytes(&self.reader)
            value.put(element.data, element.size, left)
            n -= 1
        return value

    cdef int push(self, Place* place, Entry* entry, bint left) except -1:
        cdef uint64_t n = read_count(&self.reader)
        cdef Span element
        while n:
            element = read_bytes(&self.reader)
            list_push(self.store, place, &entry, &element, 1, left)
            n -= 1
        return 0

    cdef int apply_fields(self, int record, Place* place) except -1:
        cdef Reader* reader = &self.reader
        cdef int type = TYPE_HASH if record < RECORD_SET_ADD else TYPE_SET
        cdef Entry* entry
        cdef Span field
        if record == RECORD_SET_REPLACE:
            return table_replace(self.store, place, TYPE_SET, self.read_members(), 0, RESTORED)
        entry = fields_of(self.store, place, type)
        if record == RECORD_FIELD_DEADLINE_SET or record == RECORD_FIELD_DEADLINE_CLEAR:
            self.must(entry != NULL)
            field = read_bytes(reader)
            name = PyBytes_FromStringAndSize(field.data, field.size)
            if record == RECORD_FIELD_DEADLINE_CLEAR:
                return self.must(field_persist(self.store, place, entry, name))
            return self.must(field_expire_at(self.store, place, &entry, name, self.frame_ms + read_zigzag(reader)))
        if record == RECORD_HASH_DELETE or record == RECORD_SET_REMOVE:
            return self.remove_fields(place, entry, type)
        if record == RECORD_HASH_SET or record == RECORD_HASH_SET_KEEP_TTL or record == RECORD_SET_ADD:
            return self.put_fields(place, entry, type, record == RECORD_HASH_SET_KEEP_TTL)
        return self.unknown(record)

    cdef FieldTable read_members(self):
        cdef FieldTable table = FieldTable()
        cdef uint64_t n = read_count(&self.reader)
        cdef Span member
        while n:
            member = read_bytes(&self.reader)
            table.put(member.data, member.size, b"", 0, False)
            n -= 1
        return table

    cdef int put_fields(self, Place* place, Entry* entry, int type, bint keep_ttl) except -1:
        cdef uint64_t n = read_count(&self.reader)
        cdef Span field, value
        value.data = b""
        value.size = 0
        while n:
            field = read_bytes(&self.reader)
            if type == TYPE_HASH:
                value = read_bytes(&self.reader)
            field_put(
                self.store, place, &entry, type, field.data, field.size, value.data, value.size, keep_ttl, HASH_SET, 0)
            n -= 1
        return 0

    cdef int remove_fields(self, Place* place, Entry* entry, int type) except -1:
        cdef uint64_t n = read_count(&self.reader)
        cdef Span field
        while n:
            self.must(entry != NULL)
            field = read_bytes(&self.reader)
            self.must(field_take(self.store, place, &entry, type, field.data, field.size, HASH_DELETED))
            n -= 1
        return 0

    cdef int apply_zset(self, int record, Place* place) except -1:
        cdef Reader* reader = &self.reader
        cdef Entry* entry
        cdef uint64_t n
        cdef double score
        cdef Span member
        if record == RECORD_ZSET_REPLACE:
            return zset_replace(self.store, place, self.read_zset(), 0, RESTORED)
        if record != RECORD_ZSET_ADD and record != RECORD_ZSET_REMOVE:
            return self.unknown(record)
        entry = zset_in(self.store.find(place))
        n = read_count(reader)
        while n:
            if record == RECORD_ZSET_ADD:
                score = read_double(reader)
                member = read_bytes(reader)
                zset_put(self.store, place, &entry, member.data, member.size, score, ZSET_ADDED, 0)
            else:
                self.must(entry != NULL)
                member = read_bytes(reader)
                self.must(zset_take(self.store, place, &entry, member.data, member.size))
            n -= 1
        return 0

    cdef ZSet read_zset(self):
        cdef ZSet value = ZSet()
        cdef uint64_t n = read_count(&self.reader)
        cdef double score
        cdef Span member
        while n:
            score = read_double(&self.reader)
            member = read_bytes(&self.reader)
            value.put(member.data, member.size, score)
            n -= 1
        return value

    cdef int apply_stream(self, int record, Place* place) except -1:
        cdef Reader* reader = &self.reader
        cdef Store store = self.store
        cdef Entry* entry = stream_in(store.find(place))
        cdef StreamId id, deleted
        cdef uint64_t n = 0
        cdef Span[2 * FEW_PAIRS] few
        cdef Span* spans
        if record == RECORD_STREAM_ADD:
            id = read_id(reader)
            self.must(entry == NULL or compare_ids(id, stream_of(entry).last) > 0)
            spans = read_pairs(reader, few, &n)
            try:
                stream_add(store, place, &entry, id, spans, <Py_ssize_t> n)
            finally:
                if spans != few:
                    free(spans)
            return 0
        if record == RECORD_STREAM_META:
            id, n, deleted = read_id(reader), read_number(reader), read_id(reader)
            self.must(entry == NULL or stream_of(entry).may_be(id, n))
            return stream_set_meta(store, place, &entry, id, n, deleted, SILENT)
        self.must(entry != NULL)
        if record == RECORD_STREAM_DELETE:
            n = read_count(reader)
            while n:
                self.must(stream_delete(store, place, entry, read_id(reader)))
                n -= 1
            return 0
        if record == RECORD_STREAM_TRIM:
            id, n = read_id(reader), read_number(reader)
            return self.must(stream_trim(store, place, entry, id) == n)
        return self.apply_group(record, place, entry)

    cdef int apply_group(self, int record, Place* place, Entry* entry) except -1:
        cdef Reader* reader = &self.reader
        cdef Store store = self.store
        cdef bytes name, consumer
        cdef StreamId id
        cdef int64_t delivered, active
        cdef uint64_t count
        name = read_text(reader)
        if record == RECORD_GROUP_PUT:
            id, count = read_id(reader), read_number(reader)
            return group_put(store, place, entry, name, number_of(id), <int64_t> count - 1, SILENT)
        if record == RECORD_GROUP_DROP:
            return self.must(group_drop(store, place, entry, name))
        if record == RECORD_PENDING_DROP:
            ids = read_ids(reader)
            return self.must(pending_drop(store, place, entry, name, ids) == len(ids))
        consumer = read_text(reader)
        if record == RECORD_CONSUMER_DROP:
            return self.must(consumer_drop(store, place, entry, name, consumer) >= 0)
        delivered = self.frame_ms + read_zigzag(reader)
        if record == RECORD_CONSUMER_PUT:
            active = self.frame_ms + read_zigzag(reader)
            consumer_put(store, place, entry, name, consumer, delivered, active, SILENT)
            return 0
        count = read_number(reader)
        return pending_put(store, place, entry, name, consumer, delivered, count, read_ids(reader))
