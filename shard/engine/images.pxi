# Value images: a whole value of any type as bytes, in parts of any size. What moves between shards is made of them.
#
#   part     u8 kind | [ deadline ] | body          kind: the type in three bits, and the flags below
#   string   v size of the whole | v offset | v length | bytes
#   list     v of the whole | v count | (v length | bytes) …         set: the same
#   zset     v of the whole | v count | (8 bytes score | v length | bytes) …
#   stream   v of the whole | v ms | v seq of the last id | v added | v ms | v seq of the greatest deleted
#            | v count | (v ms | v seq | v pairs | (v length | field | v length | value) …) …
#            | u8 whether these were the last entries | v count of groups, or pieces of them | (v length | name | v ms | v seq |
#            v read + 1 | v consumers | (v length | name | zigzag v seen | zigzag v active) … |
#            v pending | (v ms | v seq | v length | consumer | zigzag v delivered | v times) …) …
#   hash     v of the whole | v count | (v length | field | v length | value | [ v deadline, 0 for none ]) …
#
# "Of the whole" is about how many elements the value has, for tables to be made in their size; it may be wrong. v is LEB128, deadlines are unix ms (that of the key: zigzag v, in the first part only): the encoding of the log's
# records (effects.pyx). Parts of one value go one after the other into a Building, which becomes the value in one step.
# A part is read as if anybody could have made it: nothing is believed before it is known to lie within the part.

cdef enum:
    LARGE_ELEMENTS = 2000       # of a collection that a base takes in parts
    LARGE_BYTES = 65536

    FIRST_ROOM = 1048576        # bytes of a string under construction that are believed at once
    PADDED = 5                  # bytes of a count that is written when it is known


# Writing ----------------------------------------------------------------------------------------------
cdef inline int put_score(Buffer out, double score) except -1:
    return out.append(<char*> &score, 8)


cdef uint64_t image_part(
    Store store, Entry* entry, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    """Appends the part of a value that begins at `cursor`, 0 for the first; returns where the next begins, 0 behind the last.

    It ends behind the element with which it has reached `most_bytes` or `most` elements.
    """
    cdef int64_t deadline = entry_deadline(entry) if cursor == 0 else 0
    out.put_u8(<uint8_t> (image_kind(entry) | (PART_DEADLINE if deadline else 0)))
    if deadline:
        put_number(out, <uint64_t> deadline << 1)
    return image_body(store.now_ms, entry, cursor, most_bytes, most, out)


cdef int image_kind(Entry* entry) except -1:
    """The kind of a part of this value, without the flag of a deadline."""
    cdef int type = entry.flags & TYPE_MASK
    if type == TYPE_HASH and holds_object(entry) and (<FieldTable> <object> entry_object(entry)).heap.count:
        return type | PART_FIELD_DEADLINES
    return type | PART_RAW if type == TYPE_STRING and entry.flags & RAW else type


cdef uint64_t image_body(
    int64_t past, Entry* entry, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    """What follows the kind and the deadline in `image_part`. Fields with a deadline up to `past` are left out, 0: none."""
    cdef int type = entry.flags & TYPE_MASK
    cdef ZSet scored
    if type == TYPE_STRING:
        return string_part(entry, cursor, most_bytes, out)
    put_number(out, <uint64_t> elements_in(entry))
    if type == TYPE_LIST:
        return list_part(elements_seen(entry), cursor, most_bytes, most, out)
    if type == TYPE_STREAM:
        return stream_part(<Stream> <object> entry_object(entry), cursor, most_bytes, most, out)
    if type == TYPE_ZSET:
        scored = members_seen(entry)
        scored.unpack()
        # Half as many: each takes its place in a tree, too.
        return zset_part(scored, cursor, most_bytes, (most >> 1) + (most & 1), out)
    if entry.flags & PACKED:
        return packed_part(fields_seen(entry), type, out)
    return fields_part(past, <FieldTable> <object> entry_object(entry), type, cursor, most_bytes, most, out)


cdef uint64_t packed_part(FieldTable value, int type, Buffer out) except? 0xFFFFFFFFFFFFFFFF:
    """All of it whatever a part may have, and in its order: it is small."""
    cdef FieldWalk walk = fields_from(value)
    put_number(out, value.count())
    while next_field(&walk):
        put_counted(out, walk.field.data, walk.field.size)
        if type == TYPE_HASH:
            put_counted(out, walk.value.data, walk.value.size)
    return 0


cdef bint is_large_value(Entry* entry) except -1:
    """Whether a collection is better taken in parts: a base does."""
    cdef object value
    if not holds_object(entry):
        return False
    value = <object> entry_object(entry)
    return len(value) > LARGE_ELEMENTS or <int64_t> value.memory > LARGE_BYTES


cdef uint64_t stable_part(
    int64_t past, Entry* entry, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    """`image_body` of a collection that changes between its parts: a sorted set in the order of the hash, where a member
    stays where it is. What is there from the first part to the last is in one of them. Of a list the cursor is an index,
    which the caller moves with the list."""
    cdef ZSet value
    if entry.flags & TYPE_MASK != TYPE_ZSET or not holds_object(entry):
        return image_body(past, entry, cursor, most_bytes, most, out)
    value = <ZSet> <object> entry_object(entry)
    put_number(out, value.table.count)
    return hashed_part(value, cursor, most_bytes, most, out)


cdef uint64_t hashed_part(
    ZSet value, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    cdef Py_ssize_t at = leave_number(out, PADDED), end = out.used() + most_bytes, n, i
    cdef uint64_t count = 0, following = cursor, last = 0
    cdef Found* batch = NULL
    while not following >> SCAN_BITS and count < <uint64_t> most and out.used() < end:
        n = table_gather(&value.table, following, &batch, &following)
        if n < 0:
            raise MemoryError("no memory for a part of a value")
        try:
            for i in range(n):
                # Members of the same hash, as good as never, go into one part.
                if (count >= <uint64_t> most or out.used() >= end) and batch[i].prefix != last:
                    following = batch[i].prefix
                    break
                last = batch[i].prefix
                put_score(out, entry_score(batch[i].entry))
                put_counted(out, entry_key(batch[i].entry), entry_key_size(batch[i].entry))
                count += 1
        finally:
            free(batch)
    fill_number(out, at, PADDED, count)
    return 0 if following >> SCAN_BITS else following


cdef uint64_t string_part(Entry* entry, uint64_t cursor, Py_ssize_t most_bytes, Buffer out) except? 0xFFFFFFFFFFFFFFFF:
    cdef size_t size = entry_value_size(entry)
    cdef size_t offset = min(<size_t> cursor, size)
    cdef size_t n = min(size - offset, <size_t> max(most_bytes, 1))
    put_number(out, size)
    put_number(out, offset)
    put_counted(out, entry_value(entry) + offset, n)
    return offset + n if offset + n < size else 0


cdef uint64_t list_part(
    ListValue value, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    cdef Py_ssize_t at = leave_number(out, PADDED), end = out.used() + most_bytes
    cdef uint64_t n = 0
    cdef ElementWalk walk = elements_from(value, <Py_ssize_t> min(cursor, <uint64_t> value.length))
    cdef const char* element
    while n < <uint64_t> most and out.used() < end:
        element = next_element(&walk)
        if element == NULL:
            break
        put_counted(out, element_data(element), element_size(element))
        n += 1
    fill_number(out, at, PADDED, n)
    return cursor + n if cursor + n < <uint64_t> value.length else 0


cdef uint64_t zset_part(
    ZSet value, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    """In the order of the scores, in which it is built fastest."""
    cdef Py_ssize_t start = leave_number(out, PADDED), end = out.used() + most_bytes
    cdef uint64_t n = 0
    cdef Step[DEEPEST] path
    cdef uint32_t at
    cdef Leaf* leaf = NULL
    cdef Entry* entry
    if cursor < value.table.count:
        leaf = ranks_at(&value.ranks, <uint32_t> cursor, path, &at)
    while leaf != NULL and n < <uint64_t> most and out.used() < end:
        if at == leaf.count:
            leaf = leaf.next
            at = 0
            continue
        entry = leaf.pairs[at].entry
        put_score(out, leaf.pairs[at].score)
        put_counted(out, entry_key(entry), entry_key_size(entry))
        at += 1
        n += 1
    fill_number(out, start, PADDED, n)
    return cursor + n if cursor + n < value.table.count else 0


cdef enum:
    GROUPS_FROM = 62            # a cursor with this bit goes on in the groups of a stream; without it, it is a chunk's serial


cdef inline int put_id_varints(Buffer out, StreamId id) except -1:
    put_number(out, id.ms)
    return put_number(out, id.seq)


cdef inline int put_time(Buffer out, int64_t time) except -1:
    return put_number(out, (<uint64_t> time << 1) ^ <uint64_t> (time >> 63))


cdef uint64_t stream_part(
    Stream value, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    """Whole chunks; what is added behind the part comes later. Behind the last of them the groups."""
    cdef Py_ssize_t end = out.used() + most_bytes, at
    cdef uint64_t n = 0, following = 0
    cdef bint said
    put_id_varints(out, value.last)
    put_number(out, value.added)
    put_id_varints(out, value.max_deleted)
    at = leave_number(out, PADDED)
    if not cursor >> GROUPS_FROM:
        following = entries_part(value, cursor, end, most, out, &n)
    fill_number(out, at, PADDED, n)
    out.put_u8(following == 0)
    at = leave_number(out, PADDED)
    said = n > 0
    n = 0
    if following == 0:
        following = groups_part(value, cursor if cursor >> GROUPS_FROM else 0, end, most, said, out, &n)
    fill_number(out, at, PADDED, n)
    return following


cdef uint64_t entries_part(
    Stream value, uint64_t serial, Py_ssize_t end, Py_ssize_t most, Buffer out, uint64_t* count
) except? 0xFFFFFFFFFFFFFFFF:
    """The entries of the chunks from this one on, one at least, until the part is full: the next chunk, or 0."""
    cdef StreamSlot* slots = value.directory + value.head
    cdef Py_ssize_t k = 0, high = value.count, middle
    cdef StreamWalk walk
    cdef PairWalk pairs
    while k < high:
        middle = (k + high) >> 1
        if slots[middle].chunk.serial < serial:
            k = middle + 1
        else:
            high = middle
    while k < value.count and (count[0] == 0 or (count[0] < <uint64_t> most and out.used() < end)):
        walk = entries_from(value, slots[k].first)
        walk.slots_end = walk.slot + 1
        while next_living(&walk):
            put_id_varints(out, walk.id)
            pairs = pairs_of(&walk)
            put_number(out, pairs.left)
            while next_pair(&pairs):
                put_counted(out, pairs.field.data, pairs.field.size)
                put_counted(out, pairs.value.data, pairs.value.size)
            count[0] += 1
        k += 1
    return slots[k].chunk.serial if k < value.count else 0


cdef uint64_t groups_part(
    Stream value, uint64_t cursor, Py_ssize_t end, Py_ssize_t most, bint said, Buffer out, uint64_t* count
) except? 0xFFFFFFFFFFFFFFFF:
    """Groups, and what is pending in them, until the part is full: where it goes on, or 0. Some of it at least, unless
    something was `said` in this part already."""
    cdef uint64_t number = cursor & ((<uint64_t> 1 << GROUPS_FROM) - 1), serial = 0
    cdef object first = 0, place = value.place_at(number)
    if place is not None:
        serial, first = place
    for group in (value.groups or {}).values():
        if group.serial < serial:
            continue
        if (out.used() < end and most > 0) or not (said or count[0]):
            first = piece_of_group(group, first if group.serial == serial else 0, end, &most, out)
            count[0] += 1
            if first is None:
                continue
        else:
            first = 0
        return (<uint64_t> 1 << GROUPS_FROM) | <uint64_t> value.remember_place(number, (group.serial, first))
    return 0


cdef object piece_of_group(object group, object first, Py_ssize_t end, Py_ssize_t* most, Buffer out):
    """The group, its consumers with the first piece, and what is pending from an id on; the next id, None behind the last."""
    cdef bytes name = group.name
    cdef Py_ssize_t at
    cdef uint64_t n = 0
    cdef Pending pending
    put_counted(out, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
    put_id_varints(out, id_of(group.last))
    put_number(out, <uint64_t> (<int64_t> group.read + 1))
    put_number(out, 0 if first else len(group.consumers))
    for consumer in () if first else group.consumers.values():
        name = consumer.name
        put_counted(out, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        put_time(out, consumer.seen)
        put_time(out, consumer.active)
    at = leave_number(out, PADDED)
    following = None
    for number in group.order.from_id(first):
        if n and (out.used() >= end or most[0] <= 0):
            following = number
            break
        pending = <Pending> group.pending[number]
        put_id_varints(out, id_of(number))
        put_counted(out, PyBytes_AS_STRING(pending.consumer), PyBytes_GET_SIZE(pending.consumer))
        put_time(out, pending.delivered)
        put_number(out, pending.count)
        most[0] -= 1
        n += 1
    fill_number(out, at, PADDED, n)
    return following


cdef inline uint64_t segment_width(Segment* segment) noexcept nogil:
    """How many places of a scan a segment takes."""
    return (<uint64_t> 1 << SCAN_BITS) >> segment.bits


cdef bint whole_segment(
    int64_t past, FieldTable value, int type, uint64_t cursor, Py_ssize_t end, Py_ssize_t most, Buffer out, uint64_t* count
) except -1:
    """Appends everything in the segment that begins at `cursor`, unsorted, if it fits; else nothing."""
    cdef Segment* segment = segment_of(&value.table, cursor << (64 - SCAN_BITS))
    cdef Py_ssize_t mark = out.used()
    cdef uint64_t taken = 0
    cdef uint32_t i
    if cursor & (segment_width(segment) - 1) or <Py_ssize_t> segment.count > most:
        return False
    for i in range(segment.capacity):
        if segment.words[i]:
            taken += encode_field(past, value, type, <Entry*> (segment.words[i] & POINTER_MASK), out)
            if out.used() > end:
                out.end = out.start + mark
                return False
    count[0] += taken
    return True


cdef uint64_t fields_part(
    int64_t past, FieldTable value, int type, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF:
    """In the order of the hash, as a scan: what is there from the first part to the last is in one of them.

    Whole segments as they are; one that is too large for a part is sorted and cut.
    """
    cdef Py_ssize_t at = leave_number(out, PADDED), end = out.used() + most_bytes, n, i
    cdef uint64_t count = 0, following = cursor, last = 0
    cdef Found* batch = NULL
    while not following >> SCAN_BITS:
        cursor = following
        if whole_segment(past, value, type, cursor, end, most - <Py_ssize_t> count, out, &count):
            following = cursor + segment_width(segment_of(&value.table, cursor << (64 - SCAN_BITS)))
            continue
        if count:
            break               # it begins the next part
        n = table_gather(&value.table, cursor, &batch, &following)
        if n < 0:
            raise MemoryError("no memory for a part of a value")
        try:
            for i in range(n):
                # Fields of the same hash, as good as never, go into one part.
                if (count >= <uint64_t> most or out.used() >= end) and batch[i].prefix != last:
                    following = batch[i].prefix
                    break
                last = batch[i].prefix
                count += encode_field(past, value, type, batch[i].entry, out)
            else:
                i = n
        finally:
            free(batch)
        if i < n or count >= <uint64_t> most or out.used() >= end:
            break
    fill_number(out, at, PADDED, count)
    return 0 if following >> SCAN_BITS else following


cdef int encode_field(int64_t past, FieldTable value, int type, Entry* entry, Buffer out) except -1:
    """1, or 0 for a field that is left out."""
    if entry.flags & HAS_TTL and entry_deadline(entry) <= past:
        return 0
    put_counted(out, entry_key(entry), entry_key_size(entry))
    if type == TYPE_HASH:
        put_counted(out, entry_value(entry), entry_value_size(entry))
        if value.heap.count:
            put_number(out, <uint64_t> entry_deadline(entry))
    return 1


# Reading ----------------------------------------------------------------------------------------------
cdef uint64_t read_part_count(Reader* reader) except? 0xFFFFFFFFFFFFFFFF:
    """How many elements follow, each of which takes a byte or more."""
    cdef uint64_t n = read_number(reader)
    if n > <uint64_t> (reader.end - reader.at):
        raise record_error(reader, f"a count of {n} elements")
    return n


cdef enum:
    AGGREGATE_SUM = 0
    AGGREGATE_MIN = 1
    AGGREGATE_MAX = 2


cdef inline double combined(double total, double score, int aggregate) noexcept nogil:
    cdef double result
    if aggregate == AGGREGATE_MIN:
        return score if score < total else total
    if aggregate == AGGREGATE_MAX:
        return score if score > total else total
    result = total + score
    return result if result == result else 0.0      # inf and -inf together count as 0


@cython.final
cdef class Building:
    """A value that is being put together beside the data, under a key that it may get (a string lies in a block with it).

    Its memory counts as the store's. Nobody sees it before `put`; it goes when it is dropped or forgotten.
    """

    def __cinit__(self, *args, **kwargs):
        self.text = NULL
        self.type = -1

    def __init__(self, Store store not None, bytes key not None, type_name=None):
        """`type_name`: what it becomes even if no part comes."""
        self.store = store
        self.key = key
        if type_name is not None:
            self.become(_TYPE_OF_NAME[type_name])
            if self.type == TYPE_SET:
                # Members that come from anywhere are looked for each time, and have no order to keep.
                (<FieldTable> self.value).unpack()

    def __dealloc__(self):
        free(self.text)
        if self.store is not None:
            self.store.aside -= self.counted

    def __len__(self):
        return 0 if self.value is None else len(self.value)

    @property
    def type(self):
        """The type's name; None before the first part."""
        return TYPE_NAMES[self.type] if self.type >= 0 else None

    def drop(self):
        """It is not wanted any more; a large one is freed by the cleanup thread."""
        cdef object value = self.value
        self.value = None
        if self.text != NULL:
            self.store.free_block(self.text)
            self.text = NULL
        if value is not None:
            self.store.hand_over(value)
        self.type = -1
        self.count()

    cdef int count(self) except -1:
        """Its memory is accounted."""
        cdef int64_t now = entry_memory(self.text) if self.text != NULL else 0
        if self.value is not None:
            now += <int64_t> self.value.memory
        self.store.aside += now - self.counted
        self.counted = now
        return 0

    cdef int become(self, int type) except -1:
        self.type = type
        if type == TYPE_LIST:
            self.value = ListValue()
        elif type == TYPE_ZSET:
            self.value = ZSet()
        elif type == TYPE_STREAM:
            self.value = Stream()
            self.entries_done = False
        elif type != TYPE_STRING:
            self.value = FieldTable()
        return 0

    cpdef int expect(self, uint64_t elements) except -1:
        """About so many will come: heeded before the first."""
        cdef bint empty = self.value is not None and len(self.value) == 0
        if empty and self.type == TYPE_ZSET:
            (<ZSet> self.value).reserve(elements)
        elif empty and self.type != TYPE_LIST and self.type != TYPE_STREAM:
            (<FieldTable> self.value).reserve(elements)
        return 0

    def add(self, bytes part not None):
        """The next part. RecordError for what is damaged or does not fit what came before; then it must be dropped."""
        cdef Reader reader
        reader.start = reader.at = PyBytes_AS_STRING(part)
        reader.end = reader.start + PyBytes_GET_SIZE(part)
        try:
            while reader.at < reader.end:
                self.read_part(&reader)
        finally:
            self.count()

    cdef int read_part(self, Reader* reader) except -1:
        cdef int kind = <unsigned char> reader.at[0], type = kind & TYPE_MASK
        cdef int64_t deadline = 0
        if kind & ~PART_FLAGS or type > TYPE_STREAM or (self.type >= 0 and type != self.type):
            raise record_error(reader, f"a part of kind {kind}")
        reader.at += 1
        if kind & PART_DEADLINE:
            deadline = read_zigzag(reader)
            if deadline <= 0 or self.type >= 0:
                raise record_error(reader, "a deadline that has no place here")
            self.deadline = deadline
        if self.type < 0:
            self.become(type)
            self.raw = kind & PART_RAW != 0
        if type == TYPE_STRING:
            return self.read_string(reader)
        self.expect(read_number(reader))
        if type == TYPE_LIST:
            return self.read_list(reader)
        if type == TYPE_ZSET:
            return self.read_zset(reader)
        if type == TYPE_STREAM:
            return self.read_stream(reader)
        return self.read_fields(reader, kind & PART_FIELD_DEADLINES != 0)

    cdef int read_string(self, Reader* reader) except -1:
        cdef uint64_t size = read_number(reader), offset = read_number(reader)
        cdef Span span = read_bytes(reader)
        if size + <uint64_t> PyBytes_GET_SIZE(self.key) > MAX_BLOCK or offset != self.filled:
            raise record_error(reader, "a part of a string in the wrong place")
        if self.text != NULL and size != self.size:
            raise record_error(reader, "a part of another string")
        if <uint64_t> span.size > size - offset:
            raise record_error(reader, "more bytes than the string has")
        self.size = size
        self.make_room(offset + <size_t> span.size)
        memcpy(entry_value(self.text) + offset, span.data, span.size)
        self.filled = offset + <size_t> span.size
        return 0

    cdef int make_room(self, size_t n) except -1:
        """Room for `n` bytes, and more of what the string is said to have the more of it has come."""
        cdef size_t room = min(self.size, max(2 * n, <size_t> FIRST_ROOM))
        cdef void* larger
        if self.text == NULL:
            self.text = entry_new(
                PyBytes_AS_STRING(self.key), PyBytes_GET_SIZE(self.key), NULL, 0,
                (HAS_TTL if self.deadline else 0) | (RAW if self.raw else 0), self.store.fresh_clock(), room)
            if self.text == NULL:
                raise MemoryError("no memory for a string")
        elif n > entry_room(self.text):
            larger = kache_realloc(self.text, head_size(self.text.flags) + PyBytes_GET_SIZE(self.key) + room)
            if larger == NULL:
                raise MemoryError("no memory for a string")
            self.text = <Entry*> larger
        return 0

    cdef int read_list(self, Reader* reader) except -1:
        cdef uint64_t n = read_part_count(reader), i
        cdef Span span
        for i in range(n):
            span = read_bytes(reader)
            (<ListValue> self.value).put(span.data, span.size, False)
        return 0

    cdef int read_zset(self, Reader* reader) except -1:
        cdef uint64_t n = read_part_count(reader), i
        cdef double score
        cdef Span span
        for i in range(n):
            score = read_double(reader)
            span = read_bytes(reader)
            (<ZSet> self.value).put(span.data, span.size, score)
        return 0

    cdef int read_fields(self, Reader* reader, bint with_deadlines) except -1:
        cdef FieldTable table = <FieldTable> self.value
        cdef uint64_t n = read_part_count(reader), i, deadline
        cdef Span field, value
        value.data = NULL
        value.size = 0
        if with_deadlines and self.type != TYPE_HASH:
            raise record_error(reader, "deadlines of members")
        for i in range(n):
            field = read_bytes(reader)
            if self.type == TYPE_HASH:
                value = read_bytes(reader)
            table.put(field.data, field.size, value.data, value.size, False)
            if with_deadlines:
                deadline = read_number(reader)
                if deadline > <uint64_t> INT64_MAX:
                    raise record_error(reader, "a deadline out of range")
                if deadline:
                    table.set_deadline(PyBytes_FromStringAndSize(field.data, field.size), <int64_t> deadline)
        return 0

    cdef int read_stream(self, Reader* reader) except -1:
        cdef Stream value = <Stream> self.value
        cdef const char* meta = reader.at
        cdef const char* behind
        cdef uint64_t n
        cdef StreamId id
        # It is heeded below: adding entries counts them.
        read_id(reader)
        read_number(reader)
        read_id(reader)
        n = read_part_count(reader)
        if n and self.entries_done:
            raise record_error(reader, "entries of a stream behind its last one")
        while n:
            id = read_id(reader)
            read_stream_entry(reader, value, id)
            n -= 1
        behind, reader.at = reader.at, meta
        read_stream_meta(reader, value)
        reader.at = behind
        if reader.at >= reader.end:
            raise record_error(reader, "a part of a stream that does not end")
        self.entries_done = reader.at[0] != 0
        reader.at += 1
        n = read_part_count(reader)
        while n:
            self.read_group(reader)
            n -= 1
        return value.recount_groups()

    cdef int read_group(self, Reader* reader) except -1:
        cdef Stream value = <Stream> self.value
        cdef bytes name = read_text(reader), consumer
        cdef StreamId id = read_id(reader)
        cdef int64_t read = <int64_t> read_number(reader) - 1, delivered, active
        cdef uint64_t n = read_part_count(reader)
        cdef object group = value.group_of(name)
        if group is None:
            group = value.groups_made()[name] = Group(name, number_of(id), read, value.next_group())
        group.last, group.read = number_of(id), read
        while n:
            consumer = read_text(reader)
            delivered, active = read_zigzag(reader), read_zigzag(reader)
            group.consumer_put(consumer, delivered, active)
            n -= 1
        n = read_part_count(reader)
        while n:
            id = read_id(reader)
            consumer = read_text(reader)
            delivered = read_zigzag(reader)
            if consumer not in group.consumers:
                group.consumer_put(consumer, delivered, delivered)
            group.pending_put([number_of(id)], consumer, delivered, read_number(reader))
            n -= 1
        return 0

    def members(self):
        """The members of a set, in no order."""
        return (<FieldTable?> self.value).fields()

    def pairs(self):
        """[(member, score)] of a sorted set, in its order."""
        return (<ZSet?> self.value).items()

    def some(self, uint64_t cursor, Py_ssize_t count, bint with_scores):
        """(where to go on or 0, about `count` members from there); of a sorted set in its order, as pairs with scores if wanted."""
        cdef Py_ssize_t following
        if self.type == TYPE_SET:
            place, found = (<FieldTable> self.value).scan(cursor, count)
            return place, [member for member, _ in found]
        following = <Py_ssize_t> cursor + count
        found = (<ZSet?> self.value).collect(<Py_ssize_t> cursor, following, with_scores)
        return following if following < len(self.value) else 0, found

    # Members, one by one: for algebra ---------------------------------------------------------------------
    cdef int combine(self, const char* member, size_t n, double score, int aggregate) except -1:
        """Adds a member; a score that it has already is combined with this one."""
        cdef Entry* entry
        cdef ZSet scores
        if self.type == TYPE_SET:
            (<FieldTable> self.value).put(member, n, NULL, 0, False)
            return 0
        scores = <ZSet> self.value
        entry = scores.entry_of(member, n)
        if entry != NULL:
            score = combined(entry_score(entry), score, aggregate)
        scores.put(member, n, score)
        return 0

    # Becoming the value -----------------------------------------------------------------------------------
    def put(self, Keyspace keys not None, int64_t deadline=0, str event not None="restore"):
        """The value of the key from here on, in place of what it holds; its number of elements (1: a string).

        The deadline is that of the image, or this one; one that has passed leaves no key, and so does a collection
        without elements. RecordError when parts are missing. A failure changes nothing.
        """
        cdef Place place
        cdef int kind = kind_of(event)
        cdef Py_ssize_t n = len(self) if self.value is not None else 1
        if self.type < 0 or (self.type == TYPE_STRING and self.filled < self.size):
            raise RecordError("parts of the value are missing")
        deadline = deadline or self.deadline
        self.store.place_of(&place, keys.db, self.key)
        if deadline and deadline <= self.store.now_ms:
            key_delete(self.store, &place)
            self.drop()
        else:
            if kind in (RENAMED_TO, COPIED_TO) and self.store.effects.wanted and self.store.find(&place) != NULL:
                self.store.note(CREATED, &place)    # as what was there were removed first
            self.put_at(&place, deadline, kind)
        return n

    cdef int put_at(self, Place* place, int64_t deadline, int kind) except -1:
        cdef object value = self.value
        if self.type == TYPE_STRING:
            return self.put_string(place, deadline, kind)
        if self.type == TYPE_ZSET:
            (<ZSet> value).settle()
        elif self.type != TYPE_LIST and self.type != TYPE_STREAM:
            (<FieldTable> value).settle()
        # Accounted by the database from here on.
        if self.type == TYPE_LIST:
            list_replace(self.store, place, <ListValue> value, deadline, kind)
        elif self.type == TYPE_ZSET:
            zset_replace(self.store, place, <ZSet> value, deadline, kind)
        elif self.type == TYPE_STREAM:
            stream_replace(self.store, place, <Stream> value, deadline, kind)
        else:
            table_replace(self.store, place, self.type, <FieldTable> value, deadline, kind)
        self.value = None
        self.type = -1
        return self.count()

    cdef int put_string(self, Place* place, int64_t deadline, int kind) except -1:
        cdef Store store = self.store
        cdef Entry* text = self.text
        cdef bint observed = store.prepare(place, self.size + RECORD_OVERHEAD)
        cdef Entry* old = store.find(place)
        if deadline and not text.flags & HAS_TTL:
            raise RecordError("a string that was begun without a deadline")
        entry_set_value_size(text, self.size)
        self.text = NULL        # put_entry takes it over, whatever happens
        self.type = -1
        self.count()
        store.put_entry(place, old, text, deadline)
        store.dirty += 1
        if observed:
            tell_string(store, kind, place, entry_value(text), self.size, deadline)
            if self.raw and store.effects.recording:
                store.begin(RECORD_STRING_APPEND, place)
                store.effects.put_bytes(NULL, 0)
        return 0


def image_of(Keyspace keys not None, bytes key not None, uint64_t cursor=0, Py_ssize_t most_bytes=1 << 62,
             Py_ssize_t most=1 << 62):
    """(where the next part begins, the part from `cursor` on) of a value; None without the key, which is not touched."""
    cdef Place place
    cdef Buffer out = Buffer()
    cdef Entry* entry
    cdef uint64_t following
    keys.store.place_of(&place, keys.db, key)
    entry = keys.store.find(&place)
    if entry == NULL:
        return None
    following = image_part(keys.store, entry, cursor, most_bytes, most, out)
    return following, bytes(out)
