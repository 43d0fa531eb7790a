"""The one place that every change of a shard's data passes: the sink of the mutators.

    mutator ─► prepare(slot, bytes)     who cares? room for the record; may refuse, nothing is changed yet
            ─► the change
            ─► note(kind, …)            observers: WATCH, blocked clients, notifications, tracking
            ─► begin(record, …) put_…   the records of the tick: what a log writes, absolute and replayable

Whoever only wants to know that something happened observes: every change, or those in some slots (`watch_slot`).
Whoever wants to do it again records. A change that nobody cares about costs one load and one branch (`wanted`).

Records are what `replay` (replay.pxi) applies. A frame holds the records of one tick:

    record    u8 record | key | arguments        bit 7: the key is that of the record before, and left out
    key       v length | bytes                   v: LEB128
    deadline  zigzag v, from the frame's time    double: 8 bytes

Elements that one command changes in one collection share a record, up to 127 of them. What expires by itself is not
recorded: whoever replays sets the clock to the time of each record and sees as absent what was absent then.

Changes by number: what an effect says never depends on the data it meets, on chance or on the time.
"""
import logging

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from kache.wire.codec cimport SLOT_COUNT

__all__ = ["KINDS", "Awaited", "Effects", "Listener", "Observer", "kind_of"]

log = logging.getLogger("kache.shard")

cdef enum:
    MOST_ELEMENTS = 127             # of one record, so that its count is one byte that can be written again

KINDS = (
    # The event's name and the class of notify-keyspace-events, in the order of `Kind`. Without a class it is not notified.
    ("del", "g"), ("expired", "x"), ("evicted", "e"), ("rename_from", "g"), ("rename_to", "g"), ("move_from", "g"),
    ("move_to", "g"), ("copy_to", "g"), ("restore", "g"), ("expire", "g"), ("persist", "g"), ("new", "n"),
    ("set", "$"), ("incrby", "$"), ("incrbyfloat", "$"), ("setrange", "$"), ("append", "$"), ("setbit", "$"),
    ("pfadd", "$"), ("pfcount", ""),
    ("lpush", "l"), ("rpush", "l"), ("lpop", "l"), ("rpop", "l"), ("lset", "l"), ("linsert", "l"), ("lrem", "l"),
    ("ltrim", "l"), ("sortstore", "l"),
    ("hset", "h"), ("hincrby", "h"), ("hincrbyfloat", "h"), ("hdel", "h"), ("hexpire", "h"), ("hpersist", "h"),
    ("hexpired", "h"),
    ("sadd", "s"), ("srem", "s"), ("spop", "s"), ("sinterstore", "s"), ("sunionstore", "s"), ("sdiffstore", "s"),
    ("zadd", "z"), ("zincr", "z"), ("zrem", "z"), ("zremrangebyrank", "z"), ("zremrangebyscore", "z"),
    ("zremrangebylex", "z"), ("zpopmin", "z"), ("zpopmax", "z"), ("zinterstore", "z"), ("zunionstore", "z"),
    ("zdiffstore", "z"), ("zrangestore", "z"), ("geosearchstore", "z"), ("georadiusstore", "z"),
    ("xadd", "t"), ("xdel", "t"), ("xtrim", "t"), ("xsetid", "t"), ("xgroup-create", "t"), ("xgroup-destroy", "t"),
    ("xgroup-setid", "t"), ("xgroup-createconsumer", "t"), ("xgroup-delconsumer", "t"),
)
assert len(KINDS) == KIND_COUNT

_KIND_OF_NAME = {name: kind for kind, (name, _) in enumerate(KINDS)}


def kind_of(str event not None):
    """The number of a kind by the name of its event; KeyError for none."""
    return _KIND_OF_NAME[event]


cdef class Observer:
    """Learns of changes at once; `Effects.add_observer` makes it one."""

    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        """The key has changed: `kind` says how. Called once for what one command does to one key in one way."""

    cdef void flushing(self, int db) noexcept:
        """A database (-1: every one) is about to be emptied; its keys can still be looked at."""

    cdef void swapping(self, int left, int right) noexcept:
        """Two databases are about to be exchanged."""


cdef class Listener(Observer):
    """An observer in Python: `heard` is called with (event, database, slot, key).

    The events of whole databases are "flushing" (database -1: all of them) and "swapping" (the second one as the slot).
    """
    cdef object heard

    def __init__(self, heard):
        self.heard = heard

    cdef void tell(self, str event, int db, int slot, bytes key) noexcept:
        try:
            self.heard(event, db, slot, key)
        except Exception:
            log.exception("a listener failed")

    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        self.tell(KINDS[kind][0], db, slot, PyBytes_FromStringAndSize(key, n))

    cdef void flushing(self, int db) noexcept:
        self.tell("flushing", db, 0, b"")

    cdef void swapping(self, int left, int right) noexcept:
        self.tell("swapping", left, right, b"")


cdef class Awaited(Listener):
    """Notes which of some keys have changed, without a call in Python for each: `places` has those that are awaited, as
    (database, key), `ready` gets them in the order of their changes, and `wake` is called with the first.

    While it is `deaf` nothing is noted. Of whole databases `heard` is told.
    """
    cdef readonly dict places, ready
    cdef public bint deaf
    cdef object wake

    def __init__(self, heard, wake):
        Listener.__init__(self, heard)
        self.wake = wake
        self.places = {}
        self.ready = {}

    cdef void changed(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        if self.deaf:
            return
        try:
            place = db, PyBytes_FromStringAndSize(key, n)
            if place in self.places:
                if not self.ready:
                    self.wake()
                self.ready[place] = None
        except Exception:
            log.exception("a change was not noted")


cdef class Effects:
    """The sink of one shard. The mutators alone tell it what changed; see the top of the file."""

    def __cinit__(self):
        self.interest = NULL
        self.changed_in = NULL
        self.records = Buffer()
        self.observers = []
        self.watchers = []
        self.noted_key = b""
        self.noted_kind = -1
        self.forget_frame()

    def __dealloc__(self):
        free(self.interest)
        free(self.changed_in)

    # Who cares ------------------------------------------------------------------------------------
    cdef void set_wanted(self) noexcept:
        self.observed = len(self.observers) > 0 or len(self.watchers) > 0
        self.wanted = not self.paused and (self.recording or len(self.observers) > 0 or self.interested > 0)
        self.begin_unit()

    def add_observer(self, Observer observer not None, bint everything=False):
        """From here on the observer learns of every change, or of those in watched slots only."""
        (self.observers if everything else self.watchers).append(observer)
        self.set_wanted()

    def remove_observer(self, Observer observer not None):
        """It learns of nothing any more; ValueError for one that is none."""
        (self.observers if observer in self.observers else self.watchers).remove(observer)
        self.set_wanted()

    def watch_slot(self, int slot):
        """One more cares about the keys of this slot."""
        if not 0 <= slot < SLOT_COUNT:
            raise ValueError(f"there is no slot {slot}")
        if self.interest == NULL:
            self.interest = <uint32_t*> calloc(SLOT_COUNT, sizeof(uint32_t))
            if self.interest == NULL:
                raise MemoryError("no memory to watch a key")
        self.interest[slot] += 1
        self.interested += 1
        self.set_wanted()

    def unwatch_slot(self, int slot):
        """One less cares; ValueError when nobody did."""
        if not 0 <= slot < SLOT_COUNT or self.interest == NULL or self.interest[slot] == 0:
            raise ValueError(f"nobody watches slot {slot}")
        self.interest[slot] -= 1
        self.interested -= 1
        self.set_wanted()

    def record(self, bint wanted=True):
        """Records every change from here on, or no longer; `take` returns what was recorded."""
        self.recording = wanted
        self.forget_frame()
        self.set_wanted()

    def pause(self, bint paused):
        """While paused nobody learns of anything: for copies that lie beside the data for the length of a command."""
        self.paused = paused
        self.set_wanted()

    # Frames ---------------------------------------------------------------------------------------
    cdef void begin_frame(self) noexcept:
        self.frame_ms = self.last_ms = self.now_ms
        self.last_db = 0
        self.key_at = self.count_at = -1
        self.last_record = 0

    cdef void forget_frame(self) noexcept:
        self.records.clear()
        if self.recording and self.records.capacity > HEADROOM:
            self.records.start = self.records.end = HEADROOM
        self.begin_frame()

    cdef int number_frames(self, bint wanted) except -1:
        """Remembers for every slot which frame changed it last, or no longer."""
        if wanted and self.changed_in == NULL:
            self.changed_in = <uint64_t*> calloc(SLOT_COUNT, sizeof(uint64_t))
            if self.changed_in == NULL:
                raise MemoryError("no memory to number the frames of a log")
        elif not wanted:
            free(self.changed_in)
            self.changed_in = NULL
        return 0

    def take(self):
        """(time of the frame in unix ms, its records) of what changed since the last call."""
        taken = self.frame_ms, bytes(self.records)
        self.forget_frame()
        return taken

    @property
    def is_wanted(self):
        """Whether anybody cares about any change."""
        return self.wanted != 0

    @property
    def pending(self):
        """Bytes of records that were not taken yet."""
        return self.records.used()

    # Before a change ------------------------------------------------------------------------------
    cdef bint prepare_slowly(self, uint32_t slot, size_t n) except -1:
        """`prepare` where it is more than a look."""
        if self.recording:
            if <size_t> self.records.used() + n > MOST_RECORDS:
                raise MemoryError("no room for more changes in one frame of the log")
            self.records.reserve(<Py_ssize_t> n + RECORD_OVERHEAD)
            if self.changed_in != NULL:
                self.changed_in[slot] = self.following
            return True
        return len(self.observers) > 0 or self.is_watched(slot)

    cdef bint prepare_all(self) except -1:
        """`prepare` for a change that no single slot stands for."""
        cdef int slot
        if self.recording:
            self.records.reserve(RECORD_OVERHEAD)
            if self.changed_in != NULL:
                for slot in range(SLOT_COUNT):
                    self.changed_in[slot] = self.following
        return self.wanted != 0

    # Observers ------------------------------------------------------------------------------------
    cdef void note(self, int kind, int db, uint32_t slot, const char* key, size_t n) noexcept:
        """Tells the observers, unless the last thing they heard of this command is the same."""
        cdef bint watched = len(self.watchers) > 0 and self.is_watched(slot)
        if not watched and not self.observers:
            return
        # A key may expire again before anybody has executed a command.
        if kind > EVICTED and kind == self.noted_kind and db == self.noted_db and (
            <size_t> PyBytes_GET_SIZE(self.noted_key) == n and memcmp(PyBytes_AS_STRING(self.noted_key), key, n) == 0
        ):
            return
        for observer in self.observers:
            (<Observer> observer).changed(kind, db, slot, key, n)
        for observer in self.watchers if watched else ():
            (<Observer> observer).changed(kind, db, slot, key, n)
        try:
            self.noted_key = PyBytes_FromStringAndSize(key, n)
            self.noted_kind = kind
            self.noted_db = db
        except MemoryError:
            self.noted_kind = -1

    cdef void flushing(self, int db) noexcept:
        for observer in self.observers + self.watchers:
            (<Observer> observer).flushing(db)
        if self.recording:
            self.begin(RECORD_FLUSH, -1, NULL, 0)
            self.put_number(db + 1)

    cdef void swapping(self, int left, int right) noexcept:
        for observer in self.observers + self.watchers:
            (<Observer> observer).swapping(left, right)
        if self.recording:
            self.begin(RECORD_SWAP, -1, NULL, 0)
            self.put_number(left)
            self.put_number(right)

    cdef void settle(self, uint64_t transaction) noexcept:
        """A transaction whose share was recorded is over here. Without memory nobody will know: a restart decides as if it
        were not."""
        if not self.recording:
            return
        try:
            self.records.reserve(RECORD_OVERHEAD)
        except MemoryError:
            log.error("no memory to note the end of transaction %d", transaction)
            return
        self.begin(RECORD_SETTLED, -1, NULL, 0)
        self.put_number(transaction)

    cdef int tell_shares(self, int64_t since, list there, list missing) except -1:
        """At the start of a log that has a base, which hides what lay before: which transactions have their share there, of
        those that were over behind `since`, and which were under way and have not. What was over by then has."""
        if not self.recording:
            return 0
        self.records.reserve(RECORD_OVERHEAD + 10 * (len(there) + len(missing)))
        self.begin(RECORD_SHARES_BEFORE, -1, NULL, 0)
        self.put_deadline(since)
        for numbers in (there, missing):
            self.put_number(len(numbers))
            for number in numbers:
                self.put_number(number)
        return 0

    # Records: `prepare` made room -----------------------------------------------------------------
    cdef void begin(self, int record, int db, const char* key, size_t n) noexcept:
        """A record and its key; without a key where `db` is -1."""
        cdef char* before
        if self.records.used() == 0:
            # Without giving the buffer back: the room in it was just made.
            self.begin_frame()
        if self.last_ms != self.now_ms:
            self.put_u8(RECORD_TIME)
            self.put_zigzag(self.now_ms - self.frame_ms)
            self.last_ms = self.now_ms
            self.key_at = -1
        if db >= 0 and db != self.last_db:
            self.put_u8(RECORD_DB)
            self.put_number(db)
            self.last_db = db
            self.key_at = -1
        self.last_record = record
        self.count_at = -1
        if db < 0:
            self.put_u8(record)
            self.key_at = -1
            return
        if self.key_at >= 0 and self.key_size == n:
            before = self.records.data + self.records.start + self.key_at
            if memcmp(before, key, n) == 0:
                self.put_u8(record | SAME_KEY)
                return
        self.put_u8(record)
        self.put_number(n)
        self.key_at = self.records.used()
        self.key_size = n
        self.put_raw(key, n)

    cdef void begin_elements(self, int record, int db, const char* key, size_t n) noexcept:
        """One more element of a collection: in the record before if that is of the same kind and key, else in a new one."""
        cdef unsigned char* count
        if (self.count_at >= 0 and self.last_record == record and self.last_db == db and self.last_ms == self.now_ms
                and self.key_size == n and memcmp(self.records.data + self.records.start + self.key_at, key, n) == 0):
            count = <unsigned char*> self.records.data + self.records.start + self.count_at
            if count[0] < MOST_ELEMENTS:
                count[0] += 1
                return
        self.begin(record, db, key, n)
        self.count_at = self.records.used()
        self.put_u8(1)

    cdef void put_number(self, uint64_t number) noexcept:
        while number >= 0x80:
            self.put_u8(<int> (number & 0x7F) | 0x80)
            number >>= 7
        self.put_u8(<int> number)

    cdef void put_deadline(self, int64_t deadline) noexcept:
        self.put_zigzag(deadline - self.frame_ms)

    cdef void put_bytes(self, const char* data, size_t n) noexcept:
        self.put_number(n)
        self.put_raw(data, n)

    cdef void put_double(self, double number) noexcept:
        self.put_raw(<char*> &number, 8)
