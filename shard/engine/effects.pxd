"""The sink that every change of a shard's data is told to; see effects.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from kache.wire.codec cimport Buffer, kache_copy

cdef enum Record:
    # What a record of the log does to the data. The numbers are part of the format on disk: they never change.
    RECORD_DB = 1                   # db: of the records that follow; a frame starts in 0
    RECORD_TIME = 2                 # ms since the frame's time: of the records that follow
    RECORD_STRING_SET = 8           # value
    RECORD_STRING_SET_UNTIL = 9     # deadline value
    RECORD_STRING_APPEND = 10       # bytes
    RECORD_STRING_OVERLAY = 11      # offset bytes
    RECORD_DELETE = 16
    RECORD_RENAME = 17              # target
    RECORD_MOVE = 18                # db
    RECORD_COPY = 19                # target db
    RECORD_DEADLINE_SET = 20        # deadline
    RECORD_DEADLINE_CLEAR = 21
    RECORD_FLUSH = 22               # db + 1, 0 for all of them
    RECORD_SWAP = 23                # db db
    RECORD_LIST_PUSH_LEFT = 32      # n element…
    RECORD_LIST_PUSH_RIGHT = 33
    RECORD_LIST_POP_LEFT = 34       # n
    RECORD_LIST_POP_RIGHT = 35
    RECORD_LIST_SET = 36            # index element
    RECORD_LIST_INSERT = 37         # index element
    RECORD_LIST_DELETE_RANGE = 38   # index n
    RECORD_LIST_REPLACE = 39        # n element…
    RECORD_HASH_SET = 48            # n (field value)…
    RECORD_HASH_SET_KEEP_TTL = 49
    RECORD_HASH_DELETE = 50         # n field…
    RECORD_FIELD_DEADLINE_SET = 51  # field deadline
    RECORD_FIELD_DEADLINE_CLEAR = 52  # field
    RECORD_SET_ADD = 56             # n member…
    RECORD_SET_REMOVE = 57
    RECORD_SET_REPLACE = 58
    RECORD_ZSET_ADD = 64            # n (score member)…
    RECORD_ZSET_REMOVE = 65         # n member…
    RECORD_ZSET_REPLACE = 66        # n (score member)…
    RECORD_SETTLED = 120            # transaction: it is over here; has no key and changes nothing
    RECORD_SHARES_BEFORE = 121      # time, n transaction…, n transaction…: shares before this log (effects.pyx); the same

    SAME_KEY = 0x80                 # flag of a record: the key is that of the record before, and is left out

cdef enum Kind:
    # What happened, as fine as keyspace notifications tell it apart. `KINDS` in effects.pyx has their names and classes.
    DELETED = 0
    EXPIRED
    EVICTED
    RENAMED_FROM
    RENAMED_TO
    MOVED_FROM
    MOVED_TO
    COPIED_TO
    RESTORED
    DEADLINE_SET
    DEADLINE_CLEARED
    CREATED
    STRING_SET
    STRING_INCREMENTED
    STRING_INCREMENTED_BY_FLOAT
    STRING_RANGE_SET
    STRING_APPENDED
    STRING_BIT_SET
    HLL_ADDED
    HLL_COUNTED
    LIST_PUSHED_LEFT
    LIST_PUSHED_RIGHT
    LIST_POPPED_LEFT
    LIST_POPPED_RIGHT
    LIST_ELEMENT_SET
    LIST_INSERTED
    LIST_REMOVED
    LIST_TRIMMED
    SORT_STORED
    HASH_SET
    HASH_INCREMENTED
    HASH_INCREMENTED_BY_FLOAT
    HASH_DELETED
    FIELD_DEADLINE_SET
    FIELD_DEADLINE_CLEARED
    FIELD_EXPIRED
    SET_ADDED
    SET_REMOVED
    SET_POPPED
    SET_INTERSECTION_STORED
    SET_UNION_STORED
    SET_DIFFERENCE_STORED
    ZSET_ADDED
    ZSET_INCREMENTED
    ZSET_REMOVED
    ZSET_REMOVED_BY_RANK
    ZSET_REMOVED_BY_SCORE
    ZSET_REMOVED_BY_LEX
    ZSET_POPPED_LOWEST
    ZSET_POPPED_HIGHEST
    ZSET_INTERSECTION_STORED
    ZSET_UNION_STORED
    ZSET_DIFFERENCE_STORED
    ZSET_RANGE_STORED
    GEO_SEARCH_STORED
    GEO_RADIUS_STORED
    KIND_COUNT

cdef enum:
    MOST_RECORDS = 0xFFFFF000       # bytes of the records of one frame, whose length has 32 bits
    HEADROOM = 40                   # bytes before the records of a frame, for its header: they are written where they lie
    SHORT_RECORD = 512              # bytes of arguments for which there usually is room
    SHORT_FRAME = 1073741824        # bytes of records up to which nobody asks whether they fit a frame
    ONE_BYTE = 127                  # the largest number that takes one
    RECORD_OVERHEAD = 96            # more than the numbers of any record take, db and time before it included


cdef class Observer:
    """Learns of changes at once, one call for a key however many elements a command changes. Must not fail."""
    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept
    cdef void flushing(self, int db) noexcept
    cdef void swapping(self, int left, int right) noexcept


cdef class Effects:
    cdef readonly bint recording    # records are wanted, of every change
    cdef bint paused
    cdef int wanted                 # 0: nobody cares about anything
    cdef bint observed              # there are observers, of whatever
    cdef uint32_t* interest         # per slot, how many care about it; NULL until the first
    cdef uint64_t interested        # their sum
    cdef list observers             # of every change
    cdef list watchers              # of changes in watched slots
    cdef Buffer records
    cdef uint64_t* changed_in       # per slot, the number of the last frame with a change; NULL: nobody asks
    cdef uint64_t following         # number of the frame being filled
    cdef int64_t now_ms             # of the changes that follow
    cdef int64_t frame_ms           # time of the frame being filled
    cdef int64_t last_ms            # time of its last record
    cdef int last_db                # database of its last record
    cdef Py_ssize_t key_at          # where the key of the last record starts, from records.start; -1: none to refer to
    cdef size_t key_size
    cdef int last_record            # its kind
    cdef Py_ssize_t count_at        # where its count is, if elements may be added to it; else -1
    cdef int noted_kind, noted_db   # the last call of the observers in this unit
    cdef bytes noted_key

    cdef void begin_frame(self) noexcept
    cdef void forget_frame(self) noexcept
    cdef int number_frames(self, bint wanted) except -1
    # Before a change ------------------------------------------------------------------------------
    cdef bint prepare_slowly(self, uint32_t slot, size_t n) except -1
    cdef bint prepare_all(self) except -1
    # Behind it: nothing here fails -----------------------------------------------------------------
    cdef void note(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept
    cdef void begin(self, int record, int db, const char* key, size_t n) noexcept
    cdef void begin_elements(self, int record, int db, const char* key, size_t n) noexcept
    cdef void put_number(self, uint64_t number) noexcept
    cdef void put_deadline(self, int64_t deadline) noexcept
    cdef void put_bytes(self, const char* data, size_t n) noexcept
    cdef void put_double(self, double number) noexcept
    cdef void flushing(self, int db) noexcept
    cdef void swapping(self, int left, int right) noexcept
    cdef void settle(self, uint64_t transaction) noexcept
    cdef int tell_shares(self, int64_t since, list there, list missing) except -1
    cdef void set_wanted(self) noexcept

    cdef inline bint prepare(self, uint32_t slot, size_t n) except -1:
        """Whether anybody cares about a change in this slot; then there is room for a record of `n` bytes of arguments."""
        if (not self.recording or self.changed_in != NULL or n > SHORT_RECORD
                or self.records.end + SHORT_RECORD + RECORD_OVERHEAD > self.records.capacity
                or self.records.end > SHORT_FRAME):
            return self.prepare_slowly(slot, n)
        return True

    cdef inline bint put_short_set(self, int db, const char* key, size_t n, const char* value, size_t size) noexcept:
        """What `begin` and `put_bytes` make of the SET of a short string, if no number of it takes more than a byte and the
        record before was of another key and of the same time and database. False, and nothing is done, for any other."""
        cdef char* at = self.records.data + self.records.end
        cdef const char* before
        if (n - 1 >= ONE_BYTE or size > ONE_BYTE or self.records.used() == 0 or db != self.last_db
                or self.last_ms != self.now_ms):
            return False
        if self.key_at >= 0 and self.key_size == n:
            before = self.records.data + self.records.start + self.key_at
            if before[n - 1] == key[n - 1] and memcmp(before, key, n) == 0:
                return False
        at[0] = RECORD_STRING_SET
        at[1] = <char> n
        kache_copy(at + 2, key, n)
        at[2 + n] = <char> size
        kache_copy(at + 3 + n, value, size)
        self.key_at = self.records.used() + 2
        self.key_size = n
        self.last_record = RECORD_STRING_SET
        self.count_at = -1
        self.records.end += <Py_ssize_t> (3 + n + size)
        return True

    cdef inline void put_u8(self, int value) noexcept:
        self.records.data[self.records.end] = <char> value
        self.records.end += 1

    cdef inline void put_raw(self, const char* data, size_t n) noexcept:
        memcpy(self.records.data + self.records.end, data, n)
        self.records.end += <Py_ssize_t> n

    cdef inline void put_zigzag(self, int64_t number) noexcept:
        self.put_number((<uint64_t> number << 1) ^ <uint64_t> (number >> 63))

    cdef inline void set_time(self, int64_t now_ms) noexcept:
        self.now_ms = now_ms

    cdef inline bint is_watched(self, uint32_t slot) noexcept:
        return self.interest != NULL and self.interest[slot] > 0

    cdef inline void begin_unit(self) noexcept:
        """A command begins: its first change of a key is told again."""
        self.noted_kind = -1
