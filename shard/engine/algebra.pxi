# Algebra of sets and sorted sets, without a Python object for a member. A set counts as a sorted set of scores 1.
#
#   a local set ── pick ──┐                            ┌─► a Building: the union, scores combined
#                         ├─► filters: kept if others ─┼─► a part: what travels on
#   a part ────── keep ───┘   have it, or have it not  └─► a count
#
# One Sieve serves one call. What travels are the parts of images.pxi.

cdef enum:
    SHORT_WALK = 16     # members among which a walk is always the fastest
    PATIENCE = 40       # walks that cost about as much as a table


cdef inline double weighted(double score, double weight) noexcept nogil:
    cdef double result = score * weight
    return result if result == result else 0.0      # 0 times inf


@cython.final
cdef class Sieve:
    """Lets members through; see the top of the file.

    `filters` are (key, drop, weight) of keys of this shard. `scored`: sorted sets are allowed and scores matter.
    `into` takes what passes; without it there is `part`. It ends with `limit` members, if that is not 0.
    """

    def __cinit__(self, *args, **kwargs):
        self.filters = NULL

    def __init__(self, Keyspace keys not None, *, bint scored=False, int aggregate=AGGREGATE_SUM, filters=(),
                 Building into=None, int64_t limit=0, bint counting=False):
        self.keys = keys
        self.scored = scored
        self.aggregate = aggregate
        self.into = into
        self.limit = limit
        self.kept = []
        self.filters = <Filter*> calloc(len(filters) + 1, sizeof(Filter))
        if self.filters == NULL:
            raise MemoryError("no memory for filters")
        for key, drop, weight in filters:
            self.add_filter(key, drop, weight)
        if into is None and not counting:
            self.out = Buffer()
            self.out.put_u8(TYPE_ZSET if scored else TYPE_SET)
            put_number(self.out, 0)
            self.count_at = leave_number(self.out, PADDED)

    def __dealloc__(self):
        free(self.filters)

    cdef int add_filter(self, bytes key, bint drop, double weight) except -1:
        cdef Filter* filter = &self.filters[self.count]
        cdef object value = self.set_at(key)
        if value is None and drop:
            return 0
        filter.drop = drop
        filter.weight = weight
        if value is not None and value.packed:
            filter.scored = type(value) is ZSet
            filter.packed = <PyObject*> value
        else:
            filter.table = self.table_of(value, &filter.scored)
        self.kept.append(value)
        self.count += 1
        return 0

    cdef object set_at(self, bytes key):
        """The set or, if scores matter, sorted set; None without the key, WRONGTYPE for anything else."""
        cdef Place place
        cdef Entry* entry = self.keys.entry_at(&place, key, True)
        cdef int type
        if entry == NULL:
            return None
        type = entry.flags & TYPE_MASK
        if type != TYPE_SET and (type != TYPE_ZSET or not self.scored):
            raise wrong_type()
        return members_seen(entry) if type == TYPE_ZSET else fields_seen(entry)

    cdef Table* table_of(self, object value, bint* scored) except? NULL:
        if value is None:
            return NULL
        scored[0] = type(value) is ZSet
        return &(<ZSet> value).table if scored[0] else &(<FieldTable> value).table

    cdef inline int offer(self, const char* member, size_t n, double score) except -1:
        """One member with its score; whether it has passed."""
        cdef Py_ssize_t i
        cdef Filter* filter
        cdef double other = 1.0
        cdef uint64_t hash = table_hash(member, n) if self.count else 0
        for i in range(self.count):
            filter = &self.filters[i]
            if self.passes(filter, hash, member, n, &other) == filter.drop:
                return 0
            if not filter.drop and self.scored:
                score = combined(score, weighted(other, filter.weight), self.aggregate)
        self.found += 1
        if self.into is not None:
            self.into.combine(member, n, score, self.aggregate)
        elif self.out is not None:
            if self.scored:
                put_score(self.out, score)
            put_counted(self.out, member, n)
        return 1

    cdef inline bint passes(self, Filter* filter, uint64_t hash, const char* member, size_t n, double* score) except -1:
        """Whether a filter has the member, and its score there."""
        cdef Entry* entry
        if filter.packed != NULL:
            return self.ask_packed(filter, member, n, score)
        entry = NULL if filter.table == NULL else table_find(filter.table, hash, member, n)
        if entry != NULL:
            score[0] = entry_score(entry) if filter.scored else 1.0
        return entry != NULL

    cdef bint ask_packed(self, Filter* filter, const char* member, size_t n, double* score) except -1:
        """The same of a packed one, by a walk; what is asked so often that a table is made sooner becomes one."""
        cdef object value = <object> filter.packed
        filter.asked += 1
        if filter.scored:
            if filter.asked > PATIENCE and (<ZSet> value).count() > SHORT_WALK:
                (<ZSet> value).unpack()
                filter.packed = NULL
                filter.table = &(<ZSet> value).table
                return self.passes(filter, table_hash(member, n), member, n, score)
            return (<ZSet> value).find_score(member, n, score)
        if filter.asked > PATIENCE and (<FieldTable> value).count() > SHORT_WALK:
            (<FieldTable> value).unpack()
            filter.packed = NULL
            filter.table = &(<FieldTable> value).table
            return self.passes(filter, table_hash(member, n), member, n, score)
        score[0] = 1.0
        return (<FieldTable> value).find_packed(member, n) != NULL

    cdef uint64_t pick_packed(
        self, object value, double weight, uint64_t cursor, Py_ssize_t most, Py_ssize_t most_bytes
    ) except? 1:
        """`pick` of a packed one, where a cursor says how many members have been looked at."""
        cdef list pairs = (<ZSet> value).items() if type(value) is ZSet else None
        cdef list members = None if pairs is not None else (<FieldTable> value).fields()
        cdef Py_ssize_t n = len(pairs if pairs is not None else members), i = <Py_ssize_t> cursor, end = i + min(most, n)
        cdef double score = 1.0
        cdef bytes member
        while i < n:
            if i >= end or (self.limit and self.found >= self.limit) or (
                self.out is not None and self.out.used() >= most_bytes
            ):
                return <uint64_t> i
            if pairs is not None:
                member, score = pairs[i]
            else:
                member = members[i]
            i += 1
            self.offer(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), weighted(score, weight))
        return 0

    def pick(self, bytes key not None, double weight=1.0, uint64_t cursor=0, Py_ssize_t most=1 << 62,
             Py_ssize_t most_bytes=1 << 62):
        """The members of a key of this shard from `cursor` on, at most about `most`; where to go on, 0 behind the last.

        The set must not change between two calls.
        """
        cdef object value = self.set_at(key)
        cdef bint scored = False
        cdef Table* table
        cdef Walk walk
        cdef Entry* entry
        cdef Py_ssize_t looked = 0
        if value is not None and value.packed:
            try:
                return self.pick_packed(value, weight, cursor, most, most_bytes)
            finally:
                if self.into is not None:
                    self.into.count()
        table = self.table_of(value, &scored)
        if table == NULL:
            return 0
        walk = table_walk(table)
        walk.place = <uint32_t> (cursor >> 32)
        walk.at = <uint32_t> cursor
        try:
            while looked < most and (self.limit == 0 or self.found < self.limit):
                if self.out is not None and self.out.used() >= most_bytes:
                    break
                entry = walk_next(&walk)
                if entry == NULL:
                    return 0
                looked += 1
                self.offer(
                    entry_key(entry), entry_key_size(entry), weighted(entry_score(entry) if scored else 1.0, weight))
        finally:
            if self.into is not None:
                self.into.count()
        return (<uint64_t> walk.place << 32) | walk.at

    def keep(self, bytes part not None):
        """The members of a part that another Sieve has made. RecordError when it is none."""
        cdef Reader reader
        cdef uint64_t n, i
        cdef double score = 1.0
        cdef Span member
        reader.start = reader.at = PyBytes_AS_STRING(part)
        reader.end = reader.start + PyBytes_GET_SIZE(part)
        if reader.at == reader.end or reader.at[0] != (TYPE_ZSET if self.scored else TYPE_SET):
            raise record_error(&reader, "no part of a set")
        reader.at += 1
        read_number(&reader)            # of the whole
        n = read_part_count(&reader)
        try:
            for i in range(n):
                if self.limit and self.found >= self.limit:
                    return
                if self.scored:
                    score = read_double(&reader)
                member = read_bytes(&reader)
                self.offer(member.data, member.size, score)
        finally:
            if self.into is not None:
                self.into.count()
        if reader.at != reader.end:
            raise record_error(&reader, "bytes behind the last member")

    def part(self):
        """What has passed."""
        fill_number(self.out, self.count_at, PADDED, <uint64_t> self.found)
        return bytes(self.out)
