"""The dump: a shard walks its own memory, slice by slice between ticks, and says whole values as of the last frame.

    slice ─► walk: a segment after the other in place order ─► VALUES         ┐
          ─► later keys: an image, or parts, or GONE        ─► VALUES, PART   ├─► the writer of the base
          ─► nothing is left                                ─► BASE_END       ┘
    frame of effects ─► follow: which keys come later after all, where the parts of a list go on

Owns how far the dump is: a cursor per database (what lies before it is dumped), the *later* keys, and the one of them that is
half dumped. Whoever reads the base meets the same frames at the same places, keeps the same cursors and later keys by the
same rules, and so knows of every effect whether it is in the base already (skip it) or not (apply it):

  - what is not dumped is skipped: it comes as it is then; what is dumped is applied.
  - RENAME, MOVE, COPY of what is not there to what is dumped: the target comes later, since nothing here has the value.
  - SWAPDB exchanges cursors and later keys. FLUSH is nothing special.
  - between a later key's first part and its last, effects on elements are applied, too: each part is as of its own frame,
    and elements keep their places (a hash's order; of a list, where the parts go on is moved with it). What replaces, moves
    or deletes the key ends the parts: they begin anew with FIRST, or GONE is said.

Keys past their deadline are left out, as nobody sees them; fields are not, since a hash goes with its last one by a delete
of its own. Collections above a size come later, and what would make a slice long. A value whose parts had to begin anew too often is
said in long parts, and so is one that grows faster than it is said: a dump always ends.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from kache.wire.clock cimport monotonic_ns
from kache.wire.codec cimport NO_SLOT, SLOT_COUNT, Buffer, slot_of

from ..engine.effects cimport *
from ..engine.engine cimport (
    DATABASES, GROUP_SHIFT, Database, Follower, Host, Place, Store, image_kind, is_large_value, shape_of, stable_part,
)
from ..engine.entry cimport (
    HAS_TTL, TYPE_LIST, TYPE_MASK, TYPE_STRING, Entry, entry_deadline, entry_key, entry_key_size, entry_object, entry_value_size,
    holds_object,
)
from ..engine.memory cimport table_hash
from ..engine.numbers cimport fill_number, leave_number, put_counted, put_number, put_zigzag
from ..engine.table cimport POINTER_MASK, SCAN_BITS, Segment, Table, segment_find, segment_of
from .format cimport (
    FRAME_BASE_END, FRAME_HEADER, FRAME_PART, FRAME_VALUES, PART_FIRST, PART_LAST, TAG_GONE, TAG_LATER,
)
from .values cimport put_whole
from .writer cimport Writer

__all__ = ["Dump"]

cdef extern from *:
    """
    #include <time.h>
    #define kache_prefetch(p) __builtin_prefetch(p)
    /* Of the calling thread: what else runs on its core meanwhile is not in it. */
    static long long kache_processor_ns(void) {
        struct timespec now = {0, 0};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return (long long) now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    long long kache_processor_ns() noexcept nogil
    void kache_prefetch(const void* at) noexcept nogil
    Py_ssize_t Py_REFCNT(object value) noexcept

cdef enum:
    PADDED = 5                  # bytes of a count that is written when it is known
    PADDED_SLOT = 3
    PADDED_PREFIX = 7
    PREFIX_SHIFT = 48 - SCAN_BITS
    SMALL_STRING = 1024         # what stays in its segment however full the slice is
    SMALL_COLLECTION = 16
    PART_ELEMENTS = 2000        # of one part
    MOST_RESTARTS = 64          # of parts, over all keys
    MORE_PARTS = 64             # beyond twice as many as a value seemed to need: then they are twice as long, and again
    FETCH_AHEAD = 8             # entries


# Bytes --------------------------------------------------------------------------------------------------
cdef inline uint64_t take_number(const char** at) noexcept nogil:
    """The number at `at`, of records that were made here: they are whole."""
    cdef uint64_t number = 0
    cdef int shift = 0
    cdef unsigned char byte
    while True:
        byte = <unsigned char> at[0][0]
        at[0] += 1
        number |= <uint64_t> (byte & 0x7F) << shift
        if byte < 0x80:
            return number
        shift += 7


cdef inline void skip_bytes(const char** at) noexcept nogil:
    cdef uint64_t n = take_number(at)
    at[0] += n


cdef bint skip_arguments(int record, const char** at) noexcept nogil:
    """Past the arguments of a record. False: it is of an unknown kind."""
    cdef const char* shape = shape_of(record)
    cdef const char* repeated = NULL
    cdef uint64_t left = 0
    if shape == NULL:
        return False
    while shape[0] or left:
        if not shape[0]:
            left -= 1
            shape = repeated if left else shape
            continue
        if shape[0] == b"*":
            left = take_number(at)
            repeated = shape + 1
        elif shape[0] == b"b":
            skip_bytes(at)
        elif shape[0] == b"d":
            at[0] += 8
        else:
            take_number(at)
        shape += 1
    return True


cdef inline bint replaces(int record) noexcept nogil:
    """Whether the key has another value afterwards, or none: parts that were said of the old one are void."""
    return record in (
        RECORD_DELETE, RECORD_STRING_SET, RECORD_STRING_SET_UNTIL, RECORD_LIST_REPLACE, RECORD_SET_REPLACE, RECORD_ZSET_REPLACE)


cdef class Dump(Follower):
    """One dump of a host's data into the file that `out` writes. Follows every frame from its making to `close`."""

    def __init__(self, Host host not None, Writer out not None):
        self.host = host
        self.store = host.shard.store
        self.out = out
        self.later = [{} for _ in range(DATABASES)]
        self.frame = Buffer()
        self.part = Buffer()
        self.frame.keep = self.part.keep = 1 << 20
        host.follow(self)

    def close(self):
        """It is over, done or not."""
        self.end_parts()
        self.host.follow(self, False)

    # Slices -------------------------------------------------------------------------------------------
    def slice(self, int64_t budget_ns, Py_ssize_t most_bytes):
        """Says what fits into `budget_ns` and about `most_bytes`, as of now. False when everything is said.

        Between ticks only; what was executed becomes a frame first. Nothing happens while a part of it cannot.
        """
        cdef int64_t began = monotonic_ns(), took
        cdef int64_t began_cpu = kache_processor_ns()
        cdef int db
        if self.done:
            return False
        if not self.host.commit():
            return True
        self.host.begin_tick()
        self.until_ns = began + budget_ns
        self.most_bytes = most_bytes
        db = self.next_database()
        if db >= 0:
            self.walk(db)
        elif any(self.later):
            self.dump_later()
        else:
            self.finish()
        self.out.push()
        took = monotonic_ns() - began
        self.slices += 1
        self.longest_ns = max(self.longest_ns, took)
        took = kache_processor_ns() - began_cpu
        self.cpu_ns += took
        self.longest_cpu_ns = max(self.longest_cpu_ns, took)
        return not self.done

    def finish(self):
        """Everything is said: the base is closed, as of the last frame."""
        cdef uint64_t[2] counts
        counts[0] = self.keys
        counts[1] = self.frames
        self.end = self.host.writer.end()
        self.out.add(FRAME_BASE_END, self.end, <char*> counts, sizeof(counts), self.store.now_ms)
        self.done = True

    cdef bint over(self) noexcept:
        return self.frame.used() >= self.most_bytes or monotonic_ns() >= self.until_ns

    cdef int send(self, int kind) except -1:
        self.out.add(
            kind, self.host.writer.end(), self.frame.data + self.frame.start, self.frame.used(), self.store.now_ms)
        self.frames += 1
        self.frame.clear()
        return 0

    @property
    def progress(self):
        """About which part of the walks is done, 0.0 to 1.0."""
        cdef uint64_t done = 0, all = 0
        cdef int db
        for db in range(self.store.active):
            all += self.store.databases[db].count
            done += self.store.databases[db].count * self.cursors[db].slot // SLOT_COUNT
        return 1.0 if self.done or all == 0 else done / <double> all

    @property
    def owed(self):
        """(later keys that are not said, the one that is half said or None, how many parts of it, where the next begins)."""
        return sum(map(len, self.later)), self.part_key, self.part_number, self.part_at

    # The walk -----------------------------------------------------------------------------------------
    cdef int next_database(self) noexcept:
        """The database whose walk is not done, -1 when there is none."""
        cdef int db
        for db in range(DATABASES):
            if self.cursors[db].slot < SLOT_COUNT:
                return db
        return -1

    cdef int walk(self, int db) except -1:
        """One VALUES frame of the database, from its cursor on."""
        cdef Database* database = &self.store.databases[db]
        cdef Cursor* cursor = &self.cursors[db]
        self.begin_values(db)
        if database.slots == NULL:
            cursor.slot = SLOT_COUNT
        while cursor.slot < SLOT_COUNT:
            if cursor.prefix == 0:
                if not cursor.slot & 63 and database.counts[cursor.slot >> GROUP_SHIFT] == 0:
                    cursor.slot += 64
                    continue
                if database.slots[cursor.slot].count == 0:
                    cursor.slot += 1
                    continue
            self.dump_segment(db, database, cursor)
            if self.over():
                break
        self.end_values(cursor)
        return self.send(FRAME_VALUES)

    cdef int dump_segment(self, int db, Database* database, Cursor* cursor) except -1:
        """The entries of the segment at the cursor, which goes behind it."""
        cdef Table* table = &database.slots[cursor.slot]
        cdef Segment* segment = segment_of(table, cursor.prefix << (64 - SCAN_BITS))
        cdef Py_ssize_t start = self.frame.used()
        cdef Py_ssize_t count_at = self.begin_group(db, cursor.slot, table.count if cursor.prefix == 0 else 0)
        cdef uint64_t n = 0
        cdef uint32_t i
        cdef uint64_t word
        for i in range(segment.capacity):
            if i + FETCH_AHEAD < segment.capacity:
                kache_prefetch(<void*> (segment.words[i + FETCH_AHEAD] & POINTER_MASK))
            word = segment.words[i]
            if word:
                n += self.put_entry(db, <Entry*> (word & POINTER_MASK))
        if n:
            fill_number(self.frame, count_at, PADDED, n)
        else:
            self.frame.end = self.frame.start + start
        cursor.prefix += ((<uint64_t> 1) << SCAN_BITS) >> segment.bits
        if cursor.prefix >> SCAN_BITS:
            cursor.prefix = 0
            cursor.slot += 1
        return 0

    cdef int put_entry(self, int db, Entry* entry) except -1:
        """1; 0 for one that is past its deadline and only not removed yet."""
        if entry.flags & HAS_TTL and entry_deadline(entry) <= self.store.now_ms:
            return 0
        if not self.comes_later(entry):
            return self.put_value(entry)
        self.frame.put_u8(TAG_LATER)
        put_counted(self.frame, entry_key(entry), entry_key_size(entry))
        self.later[db][PyBytes_FromStringAndSize(entry_key(entry), entry_key_size(entry))] = None
        return 1

    cdef bint comes_later(self, Entry* entry) except -1:
        if entry.flags & TYPE_MASK == TYPE_STRING:
            return entry_value_size(entry) > SMALL_STRING and self.frame.used() >= self.most_bytes
        if is_large_value(entry):
            return True
        return (
            holds_object(entry) and self.frame.used() >= self.most_bytes and len(<object> entry_object(entry)) > SMALL_COLLECTION
        )

    cdef int put_value(self, Entry* entry) except -1:
        """The entry as a whole."""
        put_whole(self.frame, entry, self.store.now_ms)
        self.keys += 1
        return 1

    cdef int begin_values(self, int db) except -1:
        """The start of a VALUES frame; where its cursor goes is filled in by `end_values`."""
        self.frame.clear()
        put_number(self.frame, db)
        leave_number(self.frame, PADDED_SLOT + PADDED_PREFIX)
        return 0

    cdef int end_values(self, Cursor* cursor) except -1:
        # A database has one byte.
        fill_number(self.frame, 1, PADDED_SLOT, cursor.slot)
        fill_number(self.frame, 1 + PADDED_SLOT, PADDED_PREFIX, cursor.prefix << PREFIX_SHIFT)
        return 0

    cdef Py_ssize_t begin_group(self, int db, uint32_t slot, uint64_t keys) except -1:
        """Where the number of entries goes, which follow."""
        put_number(self.frame, db)
        put_number(self.frame, slot)
        put_number(self.frame, keys)
        return leave_number(self.frame, PADDED)

    # Later keys -----------------------------------------------------------------------------------------
    cdef Entry* entry_of(self, Place* place, int db, bytes key) except? NULL:
        """The living entry, which is not touched."""
        cdef uint64_t* word
        cdef Entry* entry
        self.store.place(place, db, NO_SLOT, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        word = segment_find(segment_of(place.table, place.hash), place.hash, place.key, place.n)
        if word == NULL:
            return NULL
        entry = <Entry*> (word[0] & POINTER_MASK)
        return NULL if entry.flags & HAS_TTL and entry_deadline(entry) <= self.store.now_ms else entry

    cdef int dump_later(self) except -1:
        """The walks are done: the next part of the key that is half said, or as many later keys as fit."""
        cdef int db
        cdef bytes key
        if self.parting:
            return self.put_part()
        for db in range(DATABASES):
            if not self.later[db]:
                continue
            self.begin_values(db)
            while self.later[db] and not self.parting:
                key = next(iter(self.later[db]))
                self.put_later(db, key)
                if self.over():
                    break
            self.end_values(&self.cursors[db])
            self.send(FRAME_VALUES)
            # What is large begins with a frame of its own, as of the same moment.
            return self.put_part() if self.parting else 0
        return 0

    cdef int put_later(self, int db, bytes key) except -1:
        """One later key as a whole, or GONE; what is large becomes the one that is said in parts."""
        cdef Place place
        cdef Entry* entry = self.entry_of(&place, db, key)
        cdef Py_ssize_t count_at
        if entry != NULL and is_large_value(entry):
            return self.begin_parts(db, key, entry)
        count_at = self.begin_group(db, place.slot, 0)
        fill_number(self.frame, count_at, PADDED, 1)
        if entry == NULL:
            self.frame.put_u8(TAG_GONE)
            put_counted(self.frame, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        else:
            self.put_value(entry)
        del self.later[db][key]
        return 0

    cdef int begin_parts(self, int db, bytes key, Entry* entry) except -1:
        self.parting = True
        self.part_broken = False
        self.part_db = db
        self.part_key = key
        self.part_value = <object> entry_object(entry)
        self.part_at = 0
        self.part_number = 0
        self.part_most = <uint32_t> (
            2 * (len(self.part_value) // PART_ELEMENTS + <int64_t> self.part_value.memory // self.most_bytes) + MORE_PARTS)
        return 0

    cdef int put_part(self) except -1:
        """The next part, unless the key has another value by now: then it is a later key like any other again."""
        cdef Place place
        cdef Entry* entry = self.entry_of(&place, self.part_db, self.part_key)
        cdef uint32_t late = self.part_number - self.part_most if self.part_number > self.part_most else 0
        # One that grows faster than it is said, or begins anew too often, gets longer parts in the end.
        cdef int doubled = 30 if self.restarts >= MOST_RESTARTS else min(<int> late // MORE_PARTS, 30)
        cdef uint64_t following
        cdef int flags = PART_FIRST if self.part_number == 0 else 0
        cdef uint64_t length = len(self.part_value)
        if self.part_broken or entry == NULL or not holds_object(entry) or (
            <void*> entry_object(entry) != <void*> self.part_value
        ):
            self.restarts += self.part_number > 0
            return self.end_parts()
        self.part.clear()
        self.part.put_u8(<uint8_t> image_kind(entry))
        following = stable_part(
            0, entry, self.part_at, self.most_bytes << doubled, <Py_ssize_t> PART_ELEMENTS << doubled, self.part)
        if following == 0:
            flags |= PART_LAST
        self.frame.clear()
        put_number(self.frame, self.part_db)
        put_counted(self.frame, PyBytes_AS_STRING(self.part_key), PyBytes_GET_SIZE(self.part_key))
        put_number(self.frame, self.part_at if entry.flags & TYPE_MASK == TYPE_LIST else 0)
        self.frame.put_u8(<uint8_t> flags)
        if flags & PART_LAST:
            self.frame.put_u32(entry.clock)
            put_zigzag(self.frame, entry_deadline(entry) - self.store.now_ms if entry.flags & HAS_TTL else 0)
        self.frame.append(self.part.data + self.part.start, self.part.used())
        self.send(FRAME_PART)
        self.part_at = following
        self.part_length = length
        self.part_number += 1
        if flags & PART_LAST:
            self.keys += 1
            del self.later[self.part_db][self.part_key]
            self.end_parts()
        return 0

    cdef int end_parts(self) except -1:
        cdef object value = self.part_value
        self.parting = False
        self.part_key = self.part_value = None
        if value is not None and Py_REFCNT(value) == 1:
            # Nobody else knows of it any more, and taking a large value apart takes long.
            self.store.hand_over(value)
        return 0

    # Frames of effects ----------------------------------------------------------------------------------
    cdef int follow(self, const char* records, Py_ssize_t n) except -1:
        cdef const char* at = records
        cdef const char* end = records + n
        cdef const char* key = NULL
        cdef const char* arguments
        cdef uint64_t size = 0, which
        cdef int record, db = 0
        cdef bint parted
        while at < end:
            record = <unsigned char> at[0]
            at += 1
            if record == RECORD_DB:
                db = <int> take_number(&at)
            elif record == RECORD_TIME:
                take_number(&at)
            elif record == RECORD_SETTLED:
                take_number(&at)
            elif record == RECORD_SHARES_BEFORE:
                take_number(&at)
                for _ in range(2):
                    for _ in range(take_number(&at)):
                        take_number(&at)
            elif record == RECORD_FLUSH:
                which = take_number(&at)
                self.part_broken |= which == 0 or <int> which - 1 == self.part_db
            elif record == RECORD_SWAP:
                which = take_number(&at)
                self.swapped(<int> which, <int> take_number(&at))
            else:
                if not record & SAME_KEY:
                    size = take_number(&at)
                    key = at
                    at += size
                record &= ~SAME_KEY
                arguments = at
                if not skip_arguments(record, &at):
                    raise NotImplementedError(f"a dump does not know records of kind {record}")
                if record == RECORD_RENAME or record == RECORD_MOVE or record == RECORD_COPY:
                    self.read_move(record, db, key[:size], arguments[:at - arguments])
                elif self.parting:
                    parted = db == self.part_db and <Py_ssize_t> size == PyBytes_GET_SIZE(self.part_key) and memcmp(
                        key, PyBytes_AS_STRING(self.part_key), size) == 0
                    if parted:
                        self.part_broken |= replaces(record)
                        if RECORD_LIST_PUSH_LEFT <= record <= RECORD_LIST_DELETE_RANGE and self.part_number:
                            self.list_moved(record, arguments, at)
        return 0

    def read_move(self, int record, int db, bytes key, bytes arguments):
        cdef const char* at = PyBytes_AS_STRING(arguments)
        cdef uint64_t n
        cdef bytes target = key
        cdef int target_db = db
        if record != RECORD_MOVE:
            n = take_number(&at)
            target = at[:n]
            at += n
        if record != RECORD_RENAME:
            target_db = <int> take_number(&at)
        self.moved(db, key, target_db, target, record == RECORD_COPY)

    cdef bint is_dumped(self, int db, const char* key, Py_ssize_t n) noexcept:
        cdef uint32_t slot = slot_of(key, n)
        cdef Cursor* cursor = &self.cursors[db]
        if slot != cursor.slot:
            return slot < cursor.slot
        return table_hash(key, n) >> (64 - SCAN_BITS) < cursor.prefix

    cdef bint is_here(self, int db, bytes key) except -1:
        """Whether whoever reads the base has the key as it is, or knows that it is not there."""
        return key not in <dict> self.later[db] and self.is_dumped(db, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))

    cdef int moved(self, int db, bytes key, int target_db, bytes target, bint copied) except -1:
        """A key got the value of another one."""
        if not self.is_here(db, key) and self.is_here(target_db, target):
            self.later[target_db][target] = None
        if self.parting:
            self.part_broken |= (target_db == self.part_db and target == self.part_key) or (
                not copied and db == self.part_db and key == self.part_key)
        return 0

    cdef int swapped(self, int left, int right) except -1:
        cdef Cursor kept = self.cursors[left]
        self.cursors[left] = self.cursors[right]
        self.cursors[right] = kept
        self.later[left], self.later[right] = self.later[right], self.later[left]
        if self.parting and self.part_db in (left, right):
            self.part_db = left + right - self.part_db
        return 0

    cdef int list_moved(self, int record, const char* arguments, const char* end) except -1:
        """A change of the list that is half said: exactly the elements before `part_at` are, and stay so."""
        cdef const char* at = arguments
        cdef uint64_t first = take_number(&at), n
        if record == RECORD_LIST_PUSH_LEFT:
            # Where nothing is said yet, they are said with the next part.
            self.part_at += first if self.part_at else 0
            self.part_length += first
        elif record == RECORD_LIST_PUSH_RIGHT:
            self.part_length += first
        elif record == RECORD_LIST_POP_LEFT:
            self.part_at -= min(first, self.part_at)
            self.part_length -= first
        elif record == RECORD_LIST_POP_RIGHT:
            self.part_length -= first
            self.part_at = min(self.part_at, self.part_length)
        elif record == RECORD_LIST_INSERT:
            self.part_at += first < self.part_at
            self.part_length += 1
        elif record == RECORD_LIST_DELETE_RANGE:
            n = take_number(&at)
            if first < self.part_at:
                self.part_at -= min(n, self.part_at - first)
            self.part_length -= n
        return 0
