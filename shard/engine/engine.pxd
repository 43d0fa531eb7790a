# cython: language_level=3
"""The interface of every part of the engine: its structs, its classes with their fields and methods, its mutators.

In the order of the parts: each may use what stands above it, and of what stands below it only what is declared here.
Cython holds the classes to their declarations; `tests/unit/shard/test_engine_parts.py` holds the parts to the order. What
reads or changes data from another module (a log's recovery, a dump) cimports from here. One module has one file of them,
however long.
"""
cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from kache.acl.rights cimport User, Users
from kache.wire.area cimport Area
from kache.wire.board cimport Board
from kache.wire.codec cimport Buffer, Span
from kache.wire.reactor cimport Endpoint, Listener, Reactor

from ..log.writer cimport Writer
from .effects cimport Effects, Observer
from .entry cimport Entry
from .fields cimport FieldTable
from .heap cimport Heap
from .listvalue cimport Chunks, ListValue
from .miniature cimport Miniatures
from .queues cimport Ghosts, Queue
from .sketch cimport HotKeys
from .stream cimport Stream
from .stream_chunks cimport StreamId
from .table cimport Segment, Table, Walk
from .zset cimport ZSet

cdef class Executor
cdef class Context
cdef class Locks
cdef class Watches(Observer)
cdef class Channels
cdef class Notifications(Observer)
cdef class Tracking(Observer)
cdef class Assembly
cdef class Broadcasts(Observer)
cdef class Bulk
cdef class Host
cdef class Link
cdef class Listings
cdef class Merge
cdef class Passage(Assembly)
cdef class ScriptRunner


# store.pxi --------------------------------------------------------------------------------------------
cdef enum:
    DATABASES = 16
    GROUPS = 256
    GROUP_SHIFT = 6             # 64 slots to a group
    HEAVY = 65536               # bytes from which writing one block may be noticed
    LARGE_COLLECTION = 256      # elements from which a value is taken apart by the cleanup thread
    LARGE_BLOCK = 4194304       # bytes from which it frees a block: giving the pages back takes a millisecond
    NARROW_PART = 100           # the same of the narrow one
    OVERHEAD_SLOTS = 256        # from which it is estimated what a key takes of the tables
    SMALL_PART = 10             # of the data is 1: the small queue of S3-FIFO

cdef struct Database:
    Table* slots                # SLOT_COUNT tables, NULL until the database is used
    uint64_t count
    uint64_t expires
    int64_t memory              # bytes of everything in it
    uint32_t[GROUPS] counts
    Heap[GROUPS] heaps

cdef struct Place:
    # Where a key is or would be.
    Database* db
    Table* table
    uint32_t slot
    uint64_t hash
    const char* key
    size_t n


@cython.final
cdef class Store:
    """The entries of one shard; see the top of store.pxi. Not thread safe."""
    cdef Database[DATABASES] databases
    cdef int active                     # databases below this one may hold something
    cdef readonly Effects effects       # what every change is told to
    cdef readonly int64_t now_ms
    cdef uint32_t lru_clock
    cdef readonly bint lfu
    cdef int clocks                     # CLOCK_LRU, CLOCK_LFU or CLOCK_QUEUES: what entries' clocks say
    cdef bint queueing                  # new keys join the small queue
    cdef bint queue_volatile            # those with a deadline only
    cdef Queue queue                    # the small queue of S3-FIFO
    cdef Ghosts ghosts
    cdef readonly Miniatures miniatures # of a sample of the keys; None until there is anything to simulate
    cdef int64_t key_overhead           # bytes of a key beside its block, when the sample was last fitted
    cdef uint32_t sampled_below         # a key is in it if RATE_BITS of its hash are below; 0: none is
    cdef uint32_t introducing           # the slot, of all databases', whose keys the simulations are told of next
    cdef uint64_t introduce_from        # and the place in it
    cdef int64_t pressed_at             # bytes in use when something was evicted last; 0: nothing was
    cdef bint no_touch, counting        # of the command being executed: leaves clocks alone; counts hits and misses
    cdef public uint32_t lfu_decay_time, lfu_log_factor, samples
    cdef readonly str policy
    cdef readonly object cleanup        # takes what is too large to be freed at once; None: it is freed on the spot
    cdef const char* known_key          # a key whose hash is known already: where it starts
    cdef uint64_t known_hash
    cdef Table* known_table             # where it is, if known_entry is not NULL
    cdef Entry* known_entry             # an entry that may be its own (ahead.pxi)
    cdef int64_t aside                  # bytes of values under construction (images.pxi)
    cdef bint heavy                     # a large block was written: the command is timed
    cdef uint64_t unlinked              # entries taken out of their table; what was known of entries before is void
    cdef Notifications missed           # is told of keys that were read and are not there; None: nobody wants to know
    cdef list field_deadlines           # heap of (deadline, (db, key of a hash)); may name what is gone
    cdef dict field_looks               # (db, key of a hash) -> the deadline that counts of those in the heap
    cdef uint32_t expire_at             # the group where the expiry cycle goes on
    cdef uint64_t dirty_before
    cdef readonly uint64_t dirty, hits, misses, expired, expired_fields, evicted
    cpdef set_time(self, int64_t now_ms)
    cdef void set_time_exactly(self, int64_t now_ms) noexcept
    cdef int place(self, Place* place, int db, int slot, const char* key, size_t n) except -1
    cdef int place_of(self, Place* place, int db, bytes key) except -1
    cdef void place_of_entry(self, Place* place, Database* db, Entry* entry) noexcept
    cdef uint64_t* word_of(self, Place* place) noexcept
    cdef int db_of(self, Place* place) noexcept
    cdef Entry* find(self, Place* place) except? NULL
    cdef void forget_known(self) noexcept
    cdef void touch_entry(self, Entry* entry) noexcept
    cdef uint32_t touched(self, uint32_t clock) noexcept
    cdef Entry* read(self, Place* place) except? NULL
    cdef Entry* look(self, Place* place) except? NULL
    cdef bint prepare(self, Place* place, size_t n) except -1
    cdef void note(self, int kind, Place* place) noexcept
    cdef void begin(self, int record, Place* place) noexcept
    cdef void begin_elements(self, int record, Place* place) noexcept
    cdef uint32_t fresh_clock(self) noexcept
    cdef int insert(self, Place* place, Entry* entry, int64_t deadline) except -1
    cdef void enqueue(self, Place* place, Entry* entry) noexcept
    cdef void forget_queues(self) noexcept
    cdef bint is_sampled(self, Place* place) noexcept
    cdef uint64_t sampled_as(self, Place* place) noexcept
    cdef int64_t cost_of(self, Entry* entry) noexcept
    cdef int64_t overhead(self) noexcept
    cdef void sample_use(self, Place* place, Entry* entry) noexcept
    cdef void sample_write(self, Place* place, Entry* entry) noexcept
    cdef int simulate(self, uint32_t below, int64_t base) except -1
    cdef int forget_sample(self) noexcept
    cdef int swap_block(self, Place* place, Entry* old, Entry* new, int64_t deadline) except -1
    cdef int put_entry(self, Place* place, Entry* old, Entry* fresh, int64_t deadline) except -1
    cdef int put_string(
        self, Place* place, Entry* old, const char* value, size_t n, int64_t deadline, size_t room, uint8_t flags
    ) except -1
    cdef int put_object(self, Place* place, Entry* old, int kind, object value, int64_t deadline) except -1
    cdef int put_deadline(self, Place* place, Entry* entry, int64_t deadline) except -1
    cdef int discard(self, Place* place) except -1
    cdef int remove_word(self, Place* place, uint64_t* word) except -1
    cdef Entry* detach(self, Place* place, uint64_t* word) noexcept
    cdef int destroy(self, Database* db, Entry* entry) except -1
    cdef int release(self, Database* db, object value) except -1
    cdef int free_block(self, Entry* entry) except -1
    cdef int hand_over_block(self, Entry* entry) except -1
    cdef int hand_over(self, object value) except -1
    cdef int expire_entry(self, Place* place, uint64_t* word) except -1
    cdef int64_t average_ttl(self, Database* db) noexcept
    cdef int64_t used(self) noexcept


# detached.pxi -----------------------------------------------------------------------------------------
cdef class DetachedDatabase:
    """What a database held. Strings are freed without the GIL; collections are handed on."""
    cdef Database database
    cdef uint32_t slot, place, at
    cdef PyObject* free_some(self, Py_ssize_t* count) noexcept nogil


# packing.pxi ------------------------------------------------------------------------------------------
cdef Py_ssize_t elements_in(Entry* entry) except -1
cdef int packed_check(Entry* entry) except -1


# packed_fields.pxi ------------------------------------------------------------------------------------
cdef FieldTable fields_seen(Entry* entry)


# packed_zsets.pxi -------------------------------------------------------------------------------------
cdef ZSet members_seen(Entry* entry)
cdef bint score_of(Entry* entry, const char* member, size_t n, double* score) noexcept


# packed_lists.pxi -------------------------------------------------------------------------------------
cdef ListValue elements_seen(Entry* entry)


# keys.pxi ---------------------------------------------------------------------------------------------
cdef bint key_delete(Store store, Place* place) except -1
cdef bint key_remove(Store store, Place* place, int kind, bint emptied) except -1
cdef bint key_expire_at(Store store, Place* place, int64_t deadline) except -1
cdef bint key_persist(Store store, Place* place) except -1
cdef int drop_if_empty(Store store, Place* place, size_t length) except -1


# strings.pxi ------------------------------------------------------------------------------------------
cdef int string_set(
    Store store, Place* place, Entry* old, const char* value, size_t n, int64_t deadline, int kind
) except -1
cdef int string_set_until(Store store, Place* place, Entry* old, const char* value, size_t n, int64_t deadline) except -1
cdef int string_set_raw(
    Store store, Place* place, Entry* old, const char* value, size_t n, int64_t deadline, int kind
) except -1
cdef Entry* grow_string(Store store, Place* place, Entry* entry, size_t n) except NULL
cdef size_t string_append(Store store, Place* place, Entry* entry, const char* data, size_t n) except? 0
cdef Entry* padded_string(Store store, Place* place, Entry* entry, size_t n) except NULL
cdef size_t string_overlay(
    Store store, Place* place, Entry* entry, size_t offset, const char* data, size_t n, int kind
) except? 0
cdef int string_make_raw(Store store, Place* place, Entry* entry) except -1


# lists.pxi --------------------------------------------------------------------------------------------
cdef Entry* list_in(Entry* entry) except? NULL
cdef Py_ssize_t list_length(Entry* entry) noexcept
cdef Py_ssize_t list_push(Store store, Place* place, Entry** held, Span* elements, Py_ssize_t n, bint left) except -1
cdef int list_drop(Store store, Place* place, Entry** held, bint left) except -1
cdef list list_pop(Store store, Place* place, Entry** held, bint left, Py_ssize_t count)
cdef int list_set(Store store, Place* place, Entry** held, Py_ssize_t index, const char* element, Py_ssize_t n) except -1
cdef int list_insert(
    Store store, Place* place, Entry** held, Py_ssize_t index, const char* element, Py_ssize_t n
) except -1
cdef int list_trim(Store store, Place* place, Entry** held, Py_ssize_t start, Py_ssize_t stop) except -1
cdef Py_ssize_t list_remove(
    Store store, Place* place, Entry** held, const char* element, Py_ssize_t size, Py_ssize_t count
) except -1
cdef int list_replace(Store store, Place* place, ListValue fresh, int64_t deadline, int kind) except -1


# hashes.pxi -------------------------------------------------------------------------------------------
cdef Entry* fields_in(Entry* entry, int type) except? NULL
cdef Entry* fields_of(Store store, Place* place, int type) except? NULL
cdef bint purge_fields(Store store, Place* place, FieldTable table, Py_ssize_t limit) except -1
cdef int remember_fields(Store store, Place* place, int64_t deadline) except -1
cdef int expect_fields(Store store, object value, Place* place) except -1
cdef int expect_fields_of(Store store, Entry* entry, Place* place) except -1
cdef bint field_put(
    Store store, Place* place, Entry** held, int type, const char* field, size_t field_size, const char* value, size_t n,
    bint keep_ttl, int kind, size_t more,
) except -1
cdef bint field_take(Store store, Place* place, Entry** held, int type, const char* field, size_t n, int kind) except -1
cdef bint field_known(Entry* entry, int type, const char* field, size_t n) noexcept
cdef bint field_value(Entry* entry, const char* field, size_t n, Span* value, char* scratch) noexcept
cdef bint field_expire_at(Store store, Place* place, Entry** held, bytes field, int64_t deadline) except -1
cdef bint field_persist(Store store, Place* place, Entry* entry, bytes field) except -1
cdef int table_replace(Store store, Place* place, int type, FieldTable fresh, int64_t deadline, int kind) except -1


# zsets.pxi --------------------------------------------------------------------------------------------
cdef Entry* zset_in(Entry* entry) except? NULL
cdef uint32_t zset_length(Entry* entry) noexcept
cdef int zset_put(
    Store store, Place* place, Entry** held, const char* member, size_t n, double score, int kind, size_t more
) except -2
cdef bint zset_take(Store store, Place* place, Entry** held, const char* member, size_t n) except -1
cdef list zset_cut(Store store, Place* place, Entry* entry, Py_ssize_t start, Py_ssize_t stop, bint wanted, int kind)
cdef int zset_replace(Store store, Place* place, ZSet fresh, int64_t deadline, int kind) except -1


# streams.pxi ------------------------------------------------------------------------------------------
cdef Entry* stream_in(Entry* entry) except? NULL
cdef int stream_choose_id(Store store, Entry* entry, StreamId* id, bint with_ms, bint with_seq) except -1
cdef int stream_add(Store store, Place* place, Entry** held, StreamId id, const Span* words, Py_ssize_t n) except -1
cdef bint stream_delete(Store store, Place* place, Entry* entry, StreamId id) except -1
cdef uint64_t stream_trim(Store store, Place* place, Entry* entry, StreamId until) except? 0xFFFFFFFFFFFFFFFF
cdef int stream_set_meta(
    Store store, Place* place, Entry** held, StreamId last, uint64_t added, StreamId max_deleted, int kind
) except -1
cdef int group_put(Store store, Place* place, Entry* entry, bytes name, object last, int64_t read, int kind) except -1
cdef bint group_drop(Store store, Place* place, Entry* entry, bytes name) except -1
cdef bint consumer_put(
    Store store, Place* place, Entry* entry, bytes group_name, bytes name, int64_t seen, int64_t active, int kind
) except -1
cdef int64_t consumer_drop(Store store, Place* place, Entry* entry, bytes group_name, bytes name) except -2
cdef int pending_put(
    Store store, Place* place, Entry* entry, bytes group_name, bytes name, int64_t delivered, uint64_t count, list ids
) except -1
cdef int group_deliver(
    Store store, Place* place, Entry* entry, bytes group_name, bytes name, list ids, int64_t read, bint pends
) except -1
cdef int64_t pending_drop(Store store, Place* place, Entry* entry, bytes group_name, list ids) except -1
cdef int stream_replace(Store store, Place* place, Stream fresh, int64_t deadline, int kind) except -1


# names.pxi --------------------------------------------------------------------------------------------
cdef int move_entry(Store store, Place* source, Place* target) except -1
cdef bint key_rename(Store store, Place* source, Place* target) except -1
cdef bint key_move(Store store, Place* source, Place* target) except -1
cdef bint key_copy(Store store, Place* source, Place* target) except -1
cdef int database_flush(Store store, int db) except -1
cdef int database_swap(Store store, int left, int right) except -1


# walks.pxi --------------------------------------------------------------------------------------------
cdef object random_key(Store store, int db)
cdef tuple scan_database(
    Store store, int db, uint64_t cursor, Py_ssize_t count, int type, uint32_t last
)
cdef list every_key(Store store, int db)


# expiry.pxi -------------------------------------------------------------------------------------------
cdef bint expire_group(Store store, Database* db, uint32_t group, int64_t until_ns) except -1
cdef bint expire_cycle(Store store, int64_t budget_ns) except -1
cdef bint expire_fields(Store store, int64_t until_ns) except -1


# evict.pxi --------------------------------------------------------------------------------------------
cdef enum:
    POOL = 64
    SEEN = 16                   # keys whose entries are fetched together
    SHARES = 1000
    SPARED = 16                 # keys of one command that are looked at; whoever names more rarely adds to them

cdef struct Candidate:
    int64_t score               # the higher, the better to evict
    uint64_t hash
    uint32_t clock              # the entry's when it was seen
    uint16_t slot, db

cdef struct Seen:
    Entry* entry
    uint32_t slot


@cython.final
cdef class Evictor:
    """Chooses and removes keys of one store until its memory fits. Budgets are in nanoseconds."""
    cdef Store store
    cdef Candidate[POOL] pool
    cdef int pooled
    cdef Seen[SEEN] seen
    cdef int seen_count
    cdef int looked                     # for how many more victims keys were looked at
    cdef bint volatile_only, by_ttl, at_random
    cdef bint queued                    # by S3-FIFO
    cdef bint limited                   # there is a limit: without one nobody will ask which keys are new
    cdef bint auto                      # by what the miniature simulations say
    cdef int followed                   # FOLLOW_LRU, FOLLOW_S3FIFO or FOLLOW_NARROW
    cdef readonly uint64_t changed_policy # how often auto went over to another policy
    cdef int64_t small_share            # of the small queue, in SHARES of the data
    cdef int64_t ages                   # sum over the last victims of the main queue: ms idle, less what their uses were worth
    cdef int64_t use_worth              # ms that a use in the main queue counts for
    cdef uint64_t[SPARED] spared        # hashes of the keys that the command works on: they are not evicted for it
    cdef int spared_count
    cdef int64_t spared_size            # what is as large as this and was used just now is not evicted either; 0: it is
    cdef bint is_fresh(self, Entry* entry) noexcept
    cdef int64_t size_of(self, Entry* entry) except -1
    cdef bint is_spared(self, uint64_t hash) noexcept
    cdef bint spares(self, Entry* entry) except -1
    cdef int run(self, int64_t limit, int64_t budget_ns) except -1
    cdef bint evict_one(self) except -1
    cdef int tries(self) noexcept
    cdef Database* pick_database(self) noexcept
    cdef uint32_t pick_group(self, Database* db) noexcept
    cdef void see(self, Database* db, uint32_t slot, Entry* entry) noexcept
    cdef void consider_seen(self, Database* db) noexcept
    cdef void consider(self, Database* db, uint32_t slot, Entry* entry) noexcept
    cdef int64_t score_of(self, Entry* entry) noexcept
    cdef bint was_used_since(self, Entry* entry, Candidate* seen) noexcept
    cdef void learn(self, int64_t score) noexcept
    cdef int sample(self) except -1
    cdef bint evict_coldest(self) except -1
    cdef void follow(self, bint queued, int64_t small_share) noexcept
    cdef int simulated_as(self) noexcept
    cdef void set_limited(self, bint limited) noexcept
    cdef void choose(self) noexcept
    cdef bint is_small(self, Entry* entry) noexcept
    cdef bint small_is_full(self) noexcept
    cdef bint evict_queued(self) except -1
    cdef void fetch_small(self) noexcept
    cdef bint evict_small(self) except -1
    cdef bint evict_random(self) except -1
    cdef Entry* random_of(self, Database* db) noexcept
    cdef bint evict_soonest(self) except -1
    cdef Entry* soonest_of(self, Heap* heap) except? NULL
    cdef int evict_entry(self, Database* db, Entry* entry) except -1
    cdef int evict_word(self, Place* place, uint64_t* word) except -1


# budget.pxi -------------------------------------------------------------------------------------------
cdef enum:
    NUMBERS = 8                 # of a shard on the page: a line of the processors' caches
    USED = 0
    HELD = 1
    GROWN = 2


@cython.final
cdef class Budget:
    """The line of one shard on the page, and what follows from all of them."""
    cdef Py_buffer shared
    cdef int64_t* lines
    cdef int64_t[NUMBERS] own_line
    cdef readonly int index, shards
    cdef list wakers
    cdef readonly int64_t limit     # of the cluster, bytes; 0: none
    cdef readonly int64_t allowed   # what is enforced: less than the limit while the allocator has holes
    cdef bint strict                # nobody gives way: the policy is noeviction
    cdef int64_t looked_ns, held_until, woken_ns
    cdef int64_t* line_of(self, int shard) noexcept nogil
    cdef void publish(self, int64_t used) noexcept nogil
    cdef int set_limit(self, int64_t limit) except -1
    cdef int64_t held_by(self, int shard) noexcept nogil
    cdef int64_t given(self, int shard) noexcept nogil
    cdef int64_t free_for_all(self) noexcept nogil
    cdef int64_t level(self, int wanting) noexcept nogil
    cdef int64_t total(self) noexcept nogil
    cdef int64_t step(self) noexcept nogil
    cdef int64_t look(self, int64_t used, int64_t now_ns) noexcept nogil
    cdef bint others_over(self) noexcept nogil
    cdef int hold(self, int64_t size, int64_t now_ns, int64_t for_ns) except -1
    cdef int let_go(self) noexcept nogil
    cdef bint may_hold(self, int64_t size) noexcept nogil
    cdef int wake_others(self, int64_t now_ns) except -1
    cdef int govern(self, int64_t grown, int64_t simulated) except -1


# defrag.pxi -------------------------------------------------------------------------------------------
@cython.final
cdef class Defragmenter:
    """Moves the blocks of one store, a slice at a time."""
    cdef Store store
    cdef bint under_way
    cdef int db                     # where the pass goes on
    cdef uint32_t slot, place, at
    cdef uint64_t inside            # a large value: place, chunk or rank
    cdef uint32_t visited           # blocks since the last look at the clock
    cdef bint late                  # the slice is over
    cdef int64_t until_ns, rest_until, before
    cdef bint run(self, int64_t budget_ns) except -1
    cdef bint time_is_up(self) noexcept nogil
    cdef bint walk(self) except -1
    cdef int move_heap(self, Heap* heap) noexcept nogil
    cdef bint walk_slot(self, Database* db, Table* table) except -1
    cdef bint walk_value(self, object value) except -1
    cdef bint walk_fields(self, Table* table, Heap* heap) noexcept nogil
    cdef bint walk_list(self, Chunks* chunks) noexcept nogil
    cdef bint walk_zset(self, ZSet value) except -1
    cdef bint walk_stream(self, Stream value) noexcept nogil


# keyspace.pxi -----------------------------------------------------------------------------------------
cdef class Keyspace:
    """One database of a shard's store; a run has its own, and may select another."""
    cdef readonly Store store
    cdef public int db
    cdef Entry* entry_at(self, Place* place, bytes key, bint touch) except? NULL
    cdef Entry* string_at(self, Place* place, bytes key) except? NULL
    cdef Entry* list_at(self, Place* place, bytes key) except? NULL
    cdef Entry* existing_list(self, Place* place, bytes key) except NULL
    cdef Entry* fields_at(self, Place* place, bytes key, int type) except? NULL
    cdef bint put_field(self, bytes key, bytes field, bytes value, int type, bint keep_ttl, int kind) except -1
    cdef bint take_field(self, bytes key, bytes field, int type, int kind) except -1
    cdef Entry* zset_at(self, Place* place, bytes key) except? NULL
    cdef Entry* stream_at(self, Place* place, bytes key) except? NULL
    cdef Entry* existing_stream(self, Place* place, bytes key) except NULL


cdef class Words:
    """Byte strings of Python as spans; it keeps them alive."""
    cdef list kept
    cdef Span* spans
    cdef Py_ssize_t count


# sizes.pxi --------------------------------------------------------------------------------------------
@cython.final
cdef class BigKeys:
    """The largest keys of one store."""
    cdef Store store
    cdef int db                         # where the sweep goes on
    cdef uint32_t slot, place
    cdef int64_t least                  # bytes from which a key is remembered
    cdef bint swept                     # everything, and nothing since
    cdef uint64_t began_dirty           # Store.dirty when the sweep began
    cdef list found, last               # heaps of (bytes, db, key, type, elements)
    cdef int restart(self) except -1
    cdef bint sweep_database(self, Database* db, int64_t until_ns) except -1
    cdef uint32_t sweep_segment(self, Segment* segment) except? 0
    cdef int remember(self, Entry* entry, int64_t size) except -1


# meter.pxi --------------------------------------------------------------------------------------------
cdef enum:
    HISTOGRAM_SIZE = 1024

ctypedef int (*Compiled)(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1

cdef struct Command:
    Compiled compiled           # the compiled case, or NULL
    int arity                   # of the arguments alone: exact, or minus (at least) minus one
    bint writes, denyoom, readonly, internal, while_loading, unlogged, blocking
    bint noscript               # no program executes it inside itself
    bint whole                  # it is about all shards
    bint channel                # its key is a channel
    int words                   # how many name it
    int first, last, step       # its keys among the arguments, the last one from the end where negative; step 0: none
    bint shows_all              # its reply has all of what they hold
    bint movable                # they are found by its row
    uint64_t calls, ns, rejected, failed
    uint32_t in_batch           # calls whose time is not divided up yet
    uint64_t* histogram         # of HISTOGRAM_SIZE; NULL until it has been executed


# context.pxi ------------------------------------------------------------------------------------------
cdef enum:
    DONE = 0
    DECLINE = 1
    PARKED = 2                  # the reply comes later, by its deadline
    BLOCKED = 3                 # the reply comes when it comes

    ROOM_ASKED = 1 << 16        # beside the flags of a run: memory was made room in for what is executed inside
    LOG_ASKED = 1 << 17         # the log takes what is executed inside, whatever it is in


cdef class Context:
    """The run that a command belongs to, the data it sees, and the way to execute commands inside it."""
    cdef readonly Executor shard
    cdef readonly Keyspace keys         # the data, in the database of the run
    cdef Store store
    cdef readonly object link           # whose replies are being made; None when nobody can be answered later
    cdef public int dialect
    cdef public int flags               # of the run: FLAG_ATOMIC, FLAG_NO_TOUCH
    cdef public uint64_t session        # a client's number, over all routers
    cdef public uint64_t transaction    # 0: none
    cdef bint capitals                  # the client wrote the name of its command so
    cdef public uint32_t user_number    # whose command it is, as the run says (kache/wire/link.pxd)
    cdef int64_t deadline               # unix ms by which it must have begun; 0: none
    cdef int number                     # of the command being executed, -1 between them
    cdef uint64_t token                 # by which its reply has been promised already; 0: it has not
    cdef int depth                      # how many commands deep: 0 for a client's own
    cdef Area area                      # memory for a large reply, if its link has some and it leaves in its place
    cdef uint32_t placed                # bytes of the reply that lies there; 0: it is where replies are


# execute.pxi ------------------------------------------------------------------------------------------
cdef class Executor:
    """One shard's data with the commands on it. Does no I/O; `Link` brings it frames, tests call `execute`."""
    cdef readonly Store store
    cdef readonly Evictor evictor
    cdef int64_t fitted_keys            # how many there were when the simulations were fitted to them
    cdef public bint simulating         # miniature simulations may run, if there is something to simulate
    cdef int64_t asked_at_ms            # when somebody last asked what they say, by clock_ms; 0: nobody has
    cdef readonly object slowlog
    cdef public Users users             # None: nobody has said
    cdef readonly Locks locks           # of transactions over several shards, and who waits for them
    cdef readonly Listings listings     # KEYS under way
    cdef readonly Watches watches
    cdef readonly Channels channels     # who listens to what
    cdef readonly Tracking tracking     # who is told what has changed
    cdef readonly Notifications notifications   # what is published of changes
    cdef public object gauges           # what the process around it knows
    cdef Command* commands
    cdef readonly int command_count
    cdef readonly int built_in          # so many of them are; those behind are modules' (extension.pxi)
    cdef list handlers, rows
    cdef dict numbers                   # key of a row -> its number
    cdef dict spelled                   # how a program names a command -> its number
    cdef public ScriptRunner script_runner  # None: no script is prepared
    cdef public ScriptRunner function_runner    # None: no function is
    cdef public dict inner              # by number: functions of commands that routers answer, for programs
    cdef readonly bytes owned           # by slot: 1 where it is this shard's; None: every one is
    cdef readonly Budget budget
    cdef readonly Defragmenter defragmenter
    cdef readonly HotKeys hot           # the keys that are used most
    cdef readonly BigKeys big           # and the largest ones
    cdef uint64_t next_look             # with which command `hot` looks again
    cdef int64_t memory_limit           # what this shard may use until the next look at the budget; 0: no limit
    cdef public int64_t clock_ms        # the cluster's own time, which requests and what holds others up go by: see wire/clock
    cdef public bint loading
    cdef bint refusing                  # writes are not executed now,
    cdef bytes refusing_text            # and what is said to them: what a fault on demand says, or the log that is in trouble
    cdef bytes fault_text, trouble_text
    cdef int trouble
    cdef uint64_t sure_until            # reads of slots that changed in a later frame are refused, too; UINT64_MAX: none
    cdef bint own_clock                 # `execute` reads the wall clock
    cdef public int index
    cdef public int64_t in_flight       # frames received and not executed yet
    cdef bint evicting                  # what is told now was caused by making room
    cdef Context direct                 # for `execute`
    cdef uint64_t[HISTOGRAM_SIZE] histogram
    cdef int64_t batch_began, python_ns
    cdef int64_t looked_ns              # the last look at the clock
    cdef int64_t charged                # nanoseconds of slices made before that belong to the command being executed
    cdef int64_t crowded_ns             # until then a write does not evict for long
    cdef int64_t patient_ns             # until then nobody waits for others again: they did not give way
    cdef uint32_t batch_count
    cdef list batch_commands
    cdef readonly uint64_t executed
    cdef readonly dict errors
    cdef readonly int64_t peak_memory
    cdef int64_t slow_ns                # execution time from which a command enters the slow log
    cdef uint64_t next_token, pending_token
    cdef dict deferred                  # token -> (link, session, dialect, blocked)
    cdef dict deferred_of               # link -> {session: {token}}
    cdef dict parked_on                 # link -> how many of them will come soon
    cdef readonly object blocking       # clients that wait for a key (service/blocking.py)
    cdef public bint ready              # a key that somebody waits for has changed
    cdef void look(self, Context context, Command* command, Span* args, Py_ssize_t n) noexcept
    cdef int fill_commands(self, object rows) except -1
    cdef int look_at_rows(self) except -1
    cdef int fill_command(self, Command* command, object row) except -1
    cdef int fill_keys(self, Command* command, object row) except -1
    cpdef set_time(self, int64_t now_ms)
    cdef int execute_command(self, Context context, int number, int slot, Span* args, Py_ssize_t n, Buffer out) except -1
    cpdef object call(self, Context context, str key, tuple args)
    cdef object call_number(self, Context context, int number, tuple args, Span* spans, Py_ssize_t n)
    cdef int call_compiled(self, Context context, int number, Span* args, Py_ssize_t n, Buffer out) except -1
    cdef int number_of_spans(self, Span* words, Py_ssize_t n) except -1
    cdef int number_of(self, tuple words) except -1
    cdef bint admits(self, Context context, Command* command, Span* args, Py_ssize_t n) noexcept
    cdef bytes refusal(self, Context context, Command* command, int number, Span* args, Py_ssize_t n)
    cdef void enter(self, Context context, Command* command, int number) noexcept
    cdef object run_handler(self, Context context, Command* command, int number, tuple arguments)
    cdef bint counts(self, Context context, Command* command) noexcept
    cdef int count_compiled(self, Context context, Command* command, int number) except -1
    cdef int time_compiled(self, Context context, int number, Span* args, Py_ssize_t n) except -1
    cdef bytes arity_error(self, int number)
    cdef int look_at(self, int number, int seen) noexcept
    cdef bytes refusal_of_unit(self, Context context, int needs)
    cdef int refuse(self, int trouble, bytes text, uint64_t sure_until) except -1
    cdef int note_refusing(self) except -1
    cdef bytes refused_write(self, Context context, Command* command, int number, Span* args, Py_ssize_t n)
    cdef bytes error_text(self, object error, int number)
    cdef int note_error(self, bytes text) except -1
    cdef bint is_simulating(self) except -1
    cpdef int tune_simulations(self) except -1
    cdef int look_at_budget(self, int64_t now_ns) noexcept
    cdef int spare_keys(self, Command* command, Span* args, Py_ssize_t n) noexcept
    cdef bint has_room(self, Command* command, Span* args, Py_ssize_t n) except -1
    cdef bint fits(self, int64_t incoming) noexcept
    cdef bint make_room(self, int64_t incoming) except -1
    cdef int evict_down(self, int64_t limit, int64_t budget_ns, bint spare_large) except -1
    cdef bint squeeze_in(self, int64_t incoming) except -1
    cdef int wait_for_others(self, int64_t incoming) except -1
    cdef bint has_room_for_a_key(self) except -1
    cdef int note_slow(self, Context context, int number, int64_t took, tuple arguments) except -1
    cdef void begin_batch(self) noexcept
    cdef int end_batch(self) except -1
    cdef object defer(self, Context context, bint blocked)
    cdef object promise(self, Context context, bint blocked)
    cdef int fulfil(self, token, Buffer reply, int form) except -1
    cdef object take_deferred(self, token)
    cdef bint waits_for(self, object link) except -1
    cdef int serve(self) except -1


# watches.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Watcher:
    """One session of one link."""
    cdef bint dirty             # something it watches has changed
    cdef set keys               # (db, key)


@cython.final
cdef class Watches(Observer):
    """The watches of one shard."""
    cdef Store store
    cdef dict watchers          # link -> {session: Watcher}
    cdef dict by_key            # (db, key) -> {Watcher}
    cdef int add(self, object link, uint64_t session, int db, bytes key) except -1
    cdef bint is_clean(self, object link, uint64_t session) except -1
    cdef Watcher watcher_of(self, object link, uint64_t session)
    cdef int forget(self, object link, uint64_t session) except -1
    cdef int forget_link(self, object link) except -1
    cdef void all_dirty(self) noexcept
    cdef bint is_there(self, int db, bytes key) noexcept


# channels.pxi -----------------------------------------------------------------------------------------
cdef enum:
    AUDIENCE_BITS = 6           # of the number of a place among the channels that had a message last


@cython.final
cdef class Audience:
    """Where the messages of one channel go, while what anybody listens to stays the same."""
    cdef int kind
    cdef bytes name
    cdef list links
    cdef int64_t clients        # how many of them have it coming, once for each match


@cython.final
cdef class Channels:
    """What is listened to at one shard."""
    cdef list recent            # by audience_place: an Audience, or None
    cdef bint remembers         # whether one is there
    cdef Audience find_audience(self, int what, bytes channel)
    cdef list listeners         # by kind: name -> {link: how many of its clients}
    cdef dict matchers          # pattern -> what says whether a channel matches
    cdef readonly Py_ssize_t active     # names of all kinds that somebody listens to
    cdef readonly Py_ssize_t of_keys    # those of them on which events of keys may come
    cdef Notifications notifications    # which is told when there are some, or none any more
    cdef int count_in(self, int kind, bytes name, int change) except -1
    cdef int forget_link(self, Link link) except -1
    cdef int64_t publish(self, int what, const char* name, Py_ssize_t n, const char* message, Py_ssize_t size) except -1

cdef int run_publish(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1
cdef int run_spublish(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1


# notifications.pxi ------------------------------------------------------------------------------------
cdef enum:
    MOST_KINDS = 128            # room for the kinds of changes


@cython.final
cdef class Notifications(Observer):
    """What one shard publishes of the changes of its data."""
    cdef Executor shard
    cdef list events            # by kind: the name of the event
    cdef uint32_t[MOST_KINDS] class_of  # by kind: the bit of its class
    cdef uint32_t wanted        # classes
    cdef bint by_key, by_event  # on which channels
    cdef bint observing
    cdef int look(self) except -1
    cdef void tell_misses(self, Context context, object row, Span* args, Py_ssize_t n) noexcept
    cdef void miss(self, int db, const char* key, size_t n) noexcept
    cdef void tell(self, bytes event, int db, const char* key, size_t n) noexcept
    cdef int publish(self, bytes channel, const char* message, Py_ssize_t n) except -1


# tracking.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Tracker:
    """One session of one link that tracks."""
    cdef object link
    cdef uint64_t session, target       # who reads, and who is told
    cdef int flags
    cdef tuple prefixes                 # of whose keys all changes are told
    cdef dict gathered                  # keys that it is told of at the end of the tick
    cdef bint gone


@cython.final
cdef class Tracking(Observer):
    """What the clients of one shard remember of it."""
    cdef Executor shard
    cdef dict trackers          # link -> {session: Tracker}
    cdef dict by_key            # key -> {Tracker: None}
    cdef list gathering         # trackers with something gathered
    cdef Broadcasts broadcasts
    cdef Context acting         # of the command that was executed last while anybody observed
    cdef public Py_ssize_t most_keys    # beyond which one is forgotten for another; 0: no limit
    cdef int forget_link(self, object link) except -1
    cdef int remember(self, Context context, Command* command, int number, Span* args, Py_ssize_t n) except -1
    cdef int note(self, Tracker tracker, bytes key) except -1
    cdef int invalidate(self, bytes key, bint by_client) except -1
    cdef bint is_own(self, Tracker tracker) noexcept
    cdef void flush(self) noexcept
    cdef int send(self, Tracker tracker, list keys) except -1
    cdef Link link_of(self, Tracker tracker)
    cdef int send_gathered(self) except -1


@cython.final
cdef class Broadcasts(Observer):
    """The trackers that have all changes sent."""
    cdef Tracking tracking
    cdef dict by_prefix         # prefix -> {Tracker: None}
    cdef int enter(self, Tracker tracker) except -1
    cdef int leave(self, Tracker tracker) except -1


# locks.pxi --------------------------------------------------------------------------------------------
@cython.final
cdef class Lock:
    """One transaction's hold on slots of this shard, and what it has under construction here."""
    cdef readonly uint64_t number
    cdef readonly int64_t until         # unix ms
    cdef object link
    cdef Buffer slots                   # u16 …; none: all of them
    cdef bint lets_read                 # who only reads passes
    cdef bint shares                    # others who only read may hold its slots, too
    cdef bint room                      # memory was made room in for all of it
    cdef bytes shards                   # u16 …: those that write a share of it to their logs, this one too; None: no share
    cdef bint begun, framed             # its share is being executed; is in the log, which does not say yet that it is over
    cdef bint steps                     # what is in the log counts once it is `complete`
    cdef bint complete                  # all of its share is in the log
    cdef readonly dict buildings        # key -> Building


@cython.final
cdef class Waiter:
    """A frame, an atomic run or a _lock that waits for its slots."""
    cdef object link
    cdef uint64_t session, place        # place: in the order of arrival
    cdef int dialect, db, flags
    cdef uint32_t user
    cdef int64_t deadline
    cdef Py_ssize_t size
    cdef tuple slots
    cdef bint everything                # a lock of all slots
    cdef bint reads                     # passes a lock that lets read
    cdef bint writes                    # waits while the log is slow
    cdef bint bulk                      # waits until it is let, among other large replies (bulk.pxi)
    cdef Py_ssize_t expected            # bytes of its reply, about; 0: nobody has looked
    cdef Assembly assembly              # by which it is made in slices; None: in one piece
    cdef bint seen                      # its keys were used when it was parked: they are not when it is executed
    cdef int tries                      # how often it was parked once more
    cdef int64_t took                   # nanoseconds of its slices
    cdef tuple slots_then               # its slots from then on
    cdef bint lined_up, ready, gone     # in the queues of its slots; in `runnable`; has had its turn
    cdef list frames, tokens            # (command as sent, slot, arguments); one token each
    # Of a _lock:
    cdef uint64_t number
    cdef int64_t until
    cdef int mode
    cdef bytes lock_slots, lock_shards


@cython.final
cdef class Locks:
    """The locks of one shard, and who waits for them."""
    cdef Executor shard
    cdef Host host                      # None in tests without one
    cdef readonly bint busy             # somebody holds or waits for something
    cdef PyObject** holders             # slot -> Lock, borrowed; NULL until the first
    cdef dict sharers                   # slot -> the locks that share it, of which `holders` has the first
    cdef Lock whole                     # the one that holds all slots
    cdef dict by_number                 # transaction -> Lock
    cdef dict queues                    # slot -> deque of Waiter, never empty
    cdef dict sessions                  # (link, session) -> the same
    cdef dict arrivals                  # place -> Waiter, the oldest first
    cdef dict waiting_locks             # transaction -> those of them that are a _lock
    cdef object barriers                # those of them that want every slot
    cdef object runnable                # those whose turn has come
    cdef object overdue                 # (deadline, place) -> Waiter, the first to go first
    cdef uint64_t arrived
    cdef readonly int64_t bytes         # of what waits
    cdef Py_ssize_t most_parked
    cdef int64_t most_bytes
    cdef Buffer scratch                 # the slots of the frame that is looked at
    cdef bint parking                   # nothing is written until the log has caught up
    cdef object done                    # (unix ms, transaction) of those whose share is in the log and that are over
    cdef int64_t logged_since           # unix ms: before, no shares were logged in this life
    cdef int note_busy(self) except -1
    cdef int take(self, Context context, uint64_t number, int64_t until, int mode, const char* slots, Py_ssize_t n,
                  bytes shards) except -1
    cdef bint are_free(self, Context context, int mode, const char* slots, Py_ssize_t n) except -1
    cdef uint64_t works                 # how many commands have had work done first
    cdef dict worked                    # token of such a command that is about to be executed -> what was done
    cdef Waiter serving                 # whose turn it is; None: nobody's
    cdef int wait_again(self, Waiter waiter, Py_ssize_t expected) except -1
    cdef int make_holders(self) except -1
    cdef int hold(self, uint16_t slot, Lock lock) except -1
    cdef int let_go(self, uint16_t slot, Lock lock) except -1
    cdef bint keeps_out(self, PyObject* holder, Waiter waiter) noexcept
    cdef int grant(self, Context context, uint64_t number, int64_t until, int mode, const char* slots, Py_ssize_t n,
                   bytes shards) except -1
    cdef int let_read(self, Lock lock, int mode) except -1
    cdef bint release(self, uint64_t number) except -1
    cdef bint is_held(self, uint16_t slot, bint reads) except -1
    cdef bint holds_back(self, Context context, Command* command, int number, uint16_t slot, Span* args, Py_ssize_t n) except -1
    cdef bint any_held(self, bint reads, bint internal) except -1
    cdef int gather(self, Command* command, int number, uint16_t slot, Span* args, Py_ssize_t n) except -1
    cdef bint has_room(self, Py_ssize_t size) noexcept
    cdef int park_writes(self, bint parking) except -1
    cdef Waiter admit(self, Context context, Py_ssize_t size)
    cdef tuple slots_of_scratch(self)
    cdef int enqueue(self, Waiter waiter) except -1
    cdef int line_up(self, Waiter waiter) except -1
    cdef uint64_t park(self, Context context, uint16_t command, int number, uint16_t slot, Span* args, Py_ssize_t n,
                       Py_ssize_t expected=*) except? 0
    cdef int begun(self, Waiter waiter) except -1
    cdef bint proves_large(self, Waiter waiter, Context context, Command* command, Words words) except -1
    cdef int execute(self, Waiter waiter, Context context, int number, int slot, Words words, Buffer out) except -1
    cdef int let(self, Waiter waiter) except -1
    cdef bint may_go(self, Waiter waiter) except -1
    cdef int consider(self, Waiter waiter) except -1
    cdef int consider_slots(self, Buffer slots) except -1
    cdef int consider_oldest(self) except -1
    cdef int consider_all(self) except -1
    cdef int leave(self, Waiter waiter) except -1
    cdef int leave_queue(self, dict queues, object name, Waiter waiter, list behind) except -1
    cdef int serve(self, Waiter waiter, Context context) except -1
    cdef int serve_lock(self, Waiter waiter, Context context) except -1
    cdef int serve_frames(self, Waiter waiter, Context context) except -1
    cdef int answer(self, Waiter waiter, object token, int command, Buffer out, int64_t took) except -1
    cdef int drop(self, Waiter waiter) except -1
    cdef bint keeps_frames_of(self, object link) except -1
    cdef int give_up(self, object link) except -1
    cdef int forget_link(self, object link) except -1

cdef int run_lock(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1
cdef int run_unlock(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1


# listing.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Listing:
    """One KEYS: its reply, as far as it has come."""
    cdef Store store
    cdef int db, dialect
    cdef bytes pattern
    cdef object matches         # None: the pattern is a text and a star
    cdef Buffer keys            # room for the first line | key, key …
    cdef int64_t count
    cdef int slot               # the next one
    cdef int64_t took           # nanoseconds
    # If it is answered later:
    cdef object token, link
    cdef uint64_t session
    cdef int number             # of the command
    cdef bint go_on(self, int64_t until_ns) except -1
    cdef int list_slot(self, Table* table) except -1
    cdef bint matching(self, Entry* entry) except -1
    cdef Buffer reply(self)


@cython.final
cdef class Listings:
    """Those under way in one shard, in the order in which they came."""
    cdef Executor shard
    cdef object queue           # deque of Listing
    cdef bint wants(self, Context context) noexcept
    cdef int answer(self, Listing listing, Buffer reply) except -1


# bulk.pxi ---------------------------------------------------------------------------------------------
cdef class Assembly:
    """A reply while it is made, in slices."""
    cdef Waiter waiter
    cdef Store store
    cdef Py_ssize_t mark                # where the reply begins
    cdef Buffer made                    # None: not begun, or given up
    cdef int watch(self, Watches watches) except -1
    cdef int begin(self) except -1
    cdef bint go_on(self, int64_t until_ns) except -1
    cdef bint is_current(self, Watches watches) except -1


@cython.final
cdef class Values(Assembly):
    """That of one MGET, value after value."""
    cdef tuple keys
    cdef Py_ssize_t at                  # the next key


@cython.final
cdef class Bulk:
    """The large replies of one shard that are still to be made."""
    cdef Host host
    cdef dict turns             # (link, session) -> deque of Waiter, whose turn is next first
    cdef Assembly assembly      # the one that is being made in slices; None: none is
    cdef Waiter finished        # made and let, but its tick was over before its turn came
    cdef bint paced             # it rests while much is unread
    cdef bint scheduled
    cdef int note(self) except -1
    cdef Py_ssize_t unread(self) except -1
    cdef Py_ssize_t expected(self, Context context, Command* command, Span* args, Py_ssize_t n) except -1
    cdef Py_ssize_t size_of(self, Context context, Span* key) except -1
    cdef uint64_t park(self, Context context, uint16_t command, int number, uint16_t slot, Span* args, Py_ssize_t n,
                       Py_ssize_t expected, Assembly assembly=*) except? 0
    cdef int park_again(self, Waiter waiter, Py_ssize_t expected, Assembly assembly) except -1
    cdef int assign(self, Waiter waiter, Assembly assembly) except -1
    cdef int forget(self, Waiter waiter) except -1
    cdef int soon(self, double rest) except -1
    cdef double take_turn(self) except -1
    cdef bint goes_on(self) except -1
    cdef int let(self, Waiter waiter, Assembly assembly) except -1
    cdef Waiter next_turn(self)
    cdef Waiter first_of(self, object session)
    cdef int take(self, object session) except -1
    cdef bint has_room(self, Waiter waiter) noexcept

cdef Assembly assembled(Context context)
cdef bint use_assembled(Context context, Span* keys, Py_ssize_t n, Buffer out) except -1
cdef bint mget_later(Context context, Span* args, Py_ssize_t n) except -1
cdef bint may_park(Context context) noexcept
cdef bint may_park_again(Waiter waiter) noexcept
cdef int note_restless(Host host, Assembly assembly) except -1
cdef bint is_restless(Host host, Passage passage) except -1
cdef bint made_later(Context context, Span* args, Py_ssize_t n, Py_ssize_t expected, Assembly assembly) except -1


# programs.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Program:
    """A script, a function or a command in Python while it runs."""
    cdef Executor shard
    cdef readonly Context context
    cdef public bint read_only          # it may not write
    cdef public bint allows_oom         # it may, although memory is full
    cdef public object check            # what is asked before each command: check(number of the user, row, arguments); None: nothing
    cdef public object before_writing   # called before the first command that writes; CommandError: it may not. None: nothing is
    cdef public object retell           # with some: retell(key, existed) tells what a key of this shard has become
    cdef public set lent                # keys of other shards that lie here for as long as it runs; None: there are none
    cdef bint publishes                 # its router passes on what is for channels that live elsewhere
    cdef bint lent_changed              # a command that writes has had a key of another shard
    cdef readonly bint wrote            # it has executed a command that writes
    cdef readonly list published        # (kind, channel, message) for channels that live elsewhere
    cdef readonly bint short_of_room    # there is none for a key, and it is not allowed to do without
    cdef int dialect_before, db_before
    cdef Area area_before
    cdef uint64_t dirty_before
    cdef int begin(self) except -1
    cdef void end(self) noexcept
    cdef int run(self, Span* words, Py_ssize_t n, Buffer out) except -1
    cdef bint admit(self, int number, Span* args, Py_ssize_t n) except -1
    cdef int pass_on(self, int number, tuple args) except -1
    cdef int look_at_keys(self, int number, Span* args, Py_ssize_t n) except -1
    cdef int look_at_found(self, int number, tuple args) except -1
    cdef int look_at_key(self, const char* key, Py_ssize_t n, bint reads) except -1
    cdef bint is_held(self, int slot, bint reads) noexcept
    cdef int look_at_patterns(self, tuple args) except -1
    cdef object execute_lent(self, int number, tuple args, Span* spans, Py_ssize_t n)
    cdef object execute(self, int number, tuple args, Span* spans, Py_ssize_t n)


cdef class ScriptRunner:
    """Runs scripts without a handler; see programs.pxi."""
    cdef int evaluate(self, Context context, Span* args, Py_ssize_t n, Buffer out, bint by_name, bint reads) except -1

cdef Compiled compiled_script(str key)


# compiled_strings.pxi ---------------------------------------------------------------------------------
cdef Compiled compiled_of(str key)


# compiled_streams.pxi ---------------------------------------------------------------------------------
cdef Compiled compiled_stream(str key)


# compiled_collections.pxi -----------------------------------------------------------------------------
cdef Compiled compiled_collection(str key)


# compiled_ranges.pxi ----------------------------------------------------------------------------------
cdef Compiled compiled_range(str key)


# passages.pxi -----------------------------------------------------------------------------------------
cdef enum:
    SLICED_FROM = 8192          # elements that are shown in slices, whatever they take

# What is shown.
cdef enum:
    SHOWN_FIELDS = 1            # of a hash
    SHOWN_VALUES = 2
    SHOWN_BOTH = 3
    SHOWN_MEMBERS = 4           # of a set
    SHOWN_ELEMENTS = 5          # of a list
    SHOWN_RANKS = 6             # of a sorted set
    SHOWN_SCORES = 7            # with their scores

@cython.final
cdef class Passage(Assembly):
    """The elements [at, stop) of one large collection; of one that is shown in reverse they are counted from the end."""
    cdef bytes key
    cdef int db, dialect, what
    cdef int64_t at, stop
    cdef int64_t together               # elements between two looks at the clock
    cdef bint reverse
    cdef Walk walk                      # of a hash or a set: the next one, by its place
    cdef Py_ssize_t expected            # bytes, about
    cdef int begin_in(self, Buffer out) except -1
    cdef PyObject* value(self) except? NULL
    cdef bint put_into(self, Buffer out, int64_t until_ns) except -1

cdef object shown_ranks(Context context, tuple arguments, int64_t start, int64_t stop, bint reverse, bint scores)
cdef object made_again(Context context)
cdef int take_over(Buffer out, Buffer made) except -1
cdef int show(Context context, Span* args, Py_ssize_t n, int what, int64_t start, int64_t stop, bint reverse, Py_ssize_t expected,
              Buffer out) except -1
cdef Compiled compiled_passage(str key)


# ahead.pxi --------------------------------------------------------------------------------------------
cdef enum:
    AHEAD = 32              # frames looked at together; the processor has about as many misses under way at best
    PROBES_AHEAD = 4        # words looked at for the tag of a key
    LINE = 64               # bytes that come into the cache together

cdef struct Hint:
    const char* key         # where the first argument of the frame starts; NULL without a slot
    uint64_t hash
    Table* table
    uint64_t* word          # where the search for the key starts
    Entry* entry            # the first one with its tag
    bint fills              # the command may store the key, if it is not there


@cython.final
cdef class LookAhead:
    """Hints for the frames that follow, in their order; one per shard."""
    cdef Hint[AHEAD] hints
    cdef int at, count
    cdef uint64_t unlinked      # Store.unlinked when they were made
    cdef void forget(self) noexcept nogil
    cdef void look(self, Store keys, const char* data, Py_ssize_t n, uint32_t frames, int db) noexcept nogil
    cdef void fetch_words(self) noexcept nogil
    cdef void fetch_entries(self, Store keys) noexcept nogil
    cdef void fetch_values(self) noexcept nogil
    cdef void tell(self, Store keys) noexcept nogil


# flows.pxi --------------------------------------------------------------------------------------------
@cython.final
cdef class LargeReply:
    cdef Buffer bytes
    cdef uint64_t token, session
    cdef uint64_t credit


@cython.final
cdef class Flows:
    """What flows over one link. The link asks for the next piece when there is room, and tells what comes in."""
    cdef list replies               # LargeReply, the next one first
    cdef Py_ssize_t reply_bytes     # that are left of them
    cdef uint64_t last_token
    cdef dict uploads               # session -> {argument: Buffer}
    cdef list spares                # empty Buffers
    cdef Py_ssize_t spare_bytes
    cdef int unused_rounds
    cdef uint64_t add(self, Buffer reply, uint64_t session)
    cdef bint full(self, Py_ssize_t room) noexcept
    cdef int grant(self, uint64_t token, uint64_t credit) except -1
    cdef int forget(self, LargeReply large) except -1
    cdef bint put_part(self, Buffer out, bint unasked) except -1
    cdef Buffer upload(self, uint64_t session, uint32_t argument)
    cdef Buffer spare(self)
    cdef int forget_uploads(self, uint64_t session) except -1
    cdef int cool_down(self) except -1
    cdef Py_ssize_t memory(self) except -1
    cdef int forget_session(self, uint64_t session) except -1

# host.pxi ---------------------------------------------------------------------------------------------
cdef class Follower:
    """Sees the records of every frame, in their order."""
    cdef int follow(self, const char* records, Py_ssize_t n) except -1


@cython.final
cdef class LogNews(Endpoint):
    """The log has come further, or cannot."""
    cdef Host host


@cython.final
cdef class ShardReactor(Reactor):
    """The reactor of a shard: the tick is committed before its replies leave."""
    cdef public Host host


@cython.final
cdef class Host:
    """What the links of one shard share: the shard, the limits of a tick, whose turn is next."""
    cdef readonly Executor shard
    cdef readonly ShardReactor reactor
    cdef Board board                    # where routers see what has begun
    cdef LookAhead ahead
    cdef readonly list links
    cdef list waiting                   # links with more to execute than a tick allowed
    cdef bint scheduled, draining
    cdef bytes digest
    cdef public uint32_t module_epoch    # of the modules that the shard has: no router is ahead of it
    cdef uint64_t boot_id
    cdef int pid
    cdef public int64_t tick_ns, tick_bytes, unsent_limit, flow_room
    cdef public int64_t slice_ns        # of a large reply, before others have their turn
    cdef Bulk quick                     # the same of replies that are not large, and take longer than a slice
    cdef dict restless                  # (db, key) of a reply that was given up since it changed -> until when none is begun, ns
    cdef public int64_t restless_ns     # how long that is
    cdef double delay                   # seconds by which replies leave late: a fault on demand
    cdef uint64_t tick                  # number of the iteration the limits below belong to
    cdef int64_t tick_until, tick_left
    cdef int64_t large_left             # bytes of large replies that are still made in this tick
    cdef public int64_t longest_ns      # longest piece of work outside the reactor's own batches; resettable
    cdef uint64_t gone_in, gone_out     # traffic of links that are closed
    cdef Context later                  # for what waited
    cdef bint watching, serving_soon    # locks and waiters are looked at soon, as to their time; are served
    cdef readonly Writer writer         # of the log; None: there is none
    cdef LogNews news
    cdef list followers                 # Follower
    cdef list parked                    # links that rest before a write
    cdef public object on_log_news      # called when the writer has told something
    cdef readonly int trouble           # of the log, and
    cdef bint lost                      # whether what it has not written will not be soon: nobody waits for it
    cdef bint parking                   # writes are not begun
    cdef Bulk bulk
    cdef bint pacing                    # large replies may have to wait for their turn
    cdef readonly uint64_t misconf      # links closed because of it
    cdef int begin_tick(self) except -1
    cdef int commit_tick(self) except -1
    cdef int commit_frame(self) except -1
    cdef int put_frame(self, int kind, Buffer payload) except -1
    cdef bint begin_share(self) except -1
    cdef int put_share(self, uint64_t transaction, bytes shards) except -1
    cdef int write_frame(self, int kind, Buffer payload, int64_t now_ms) except -1
    cdef int mark_links(self) except -1
    cdef int release_links(self) except -1
    cdef bint tick_over(self) noexcept
    cdef int wait_for_next(self, Link link) except -1
    cdef int watch_locks(self) except -1
    cdef int serve_waiters(self) except -1
    cdef int serve_soon(self) except -1
    cpdef note_stall(self, int64_t took_ns)

# link.pxi ---------------------------------------------------------------------------------------------
@cython.final
cdef class LinkListener(Listener):
    """The shard's Unix socket."""
    cdef Host host


cdef struct Mark:
    uint64_t offset             # of the output
    uint64_t sequence           # of the frame that it waits for


@cython.final
cdef class Link(Endpoint):
    """The connection of one router."""
    cdef Host host
    cdef bint greeted, waiting, blocked, consuming
    # What may leave when which frame of the log is released, the next one first (a ring of `mark_room`)
    cdef Mark* marks
    cdef int mark_first, mark_count, mark_room
    cdef readonly int router
    cdef uint64_t* begun                # where the frames begun are counted: on the board, or just here
    cdef uint64_t begun_here
    # The run being executed
    cdef readonly Context context
    cdef uint32_t run_count             # frames still to come
    cdef uint32_t run_left              # their bytes
    cdef uint64_t share_left            # bytes of the transaction's share behind this run
    cdef bint guarded                   # locks are held: each frame of the run is looked at first
    cdef Py_ssize_t locks               # that its router holds
    cdef Span* spans
    cdef Py_ssize_t capacity
    # The REPLY being made, if `answering`: what arises meanwhile must not land inside it
    cdef bint overrun                   # it does not take what is published, and is about to be closed
    cdef bint answering, arisen         # arisen: `before` or `behind` has something
    cdef Flows flows
    cdef Area area                      # memory that its router shares; None: it shares none
    cdef uint64_t placed_at             # the last argument of the current frame that lies there, and its bytes; 0: none does
    cdef Py_ssize_t placed_size
    cdef uint32_t part_left             # bytes of the current PART that are still to come, and where they go
    cdef Buffer part_into
    cdef Buffer before, behind          # messages that leave before and behind the reply of the current frame
    cdef object delayed                 # deque of outputs that leave late, each the buffers of a flush; None: none does
    cdef int flush_late(self) except -1
    cdef int put_off(self, list buffers) except -1
    cdef int release_all(self) except -1
    cdef bint keeps_too_much(self) noexcept
    cdef int take_mark(self, uint64_t end, uint64_t released) except -1
    cdef int raise_sendable(self, uint64_t released) except -1
    cdef int free_output(self) except -1
    cdef bint rests_before(self, const char* frame, uint32_t size) noexcept
    cdef int rest(self) except -1
    cdef int send_parts(self) except -1
    cdef int move_on(self) except -1
    cdef Py_ssize_t consume(self, const char* data, Py_ssize_t n) except -1
    cdef int begin_part(self, const char* header, uint32_t length) except -1
    cdef Py_ssize_t take_part(self, const char* data, Py_ssize_t n) except -1
    cdef bint use_uploads(self, Py_ssize_t argc) except -1
    cdef int broken(self, Py_ssize_t n, str what) except -1
    cdef int on_control(self, int kind, const char* body, Py_ssize_t n) except -1
    cdef int on_blocked(self, int kind, uint64_t token, bint error) except -1
    cdef int on_hello(self, const char* body, Py_ssize_t n) except -1
    cdef int count_on_board(self) except -1
    cdef int begin_run(self, const char* header, uint32_t length) except -1
    cdef bint is_whole(self, const char* header, Py_ssize_t n, uint32_t length) noexcept
    cdef bint begin_unit(self, const char* frames) except -1
    cdef bint begin_share(self) except -1
    cdef int end_share(self) except -1
    cdef bint park_unit(self, const char* frames) except -1
    cdef int needs_of_unit(self, const char* frames) noexcept
    cdef int answer_unit(self, object tokens, bytes refusal) except -1
    cdef int hold_back(self, uint16_t command, uint16_t slot, Py_ssize_t argc, Buffer out) except -1
    cdef bint catch_up(self) except -1
    cdef bint is_open(self) noexcept
    cdef Py_ssize_t execute_frames(self, const char* data, Py_ssize_t n) except -1
    cdef int end_frames(self, bint more) except -1
    cdef int execute_frame(
        self, const char* frame, Py_ssize_t argc, Buffer out, Py_ssize_t* start, uint32_t* done
    ) except -1
    cdef int place_reply(self, Buffer out, Py_ssize_t mark, uint32_t size) except -1
    cdef int part_with(self, Buffer out, Py_ssize_t mark, uint32_t size) except -1
    cdef bint tick_ended(self, uint32_t executed) except -1
    cdef int wait_for_turn(self) except -1
    cdef Py_ssize_t begin_reply(self, Buffer out) except -1
    cdef int finish_reply(self, Buffer out, Py_ssize_t start, uint32_t done) except -1
    cdef int put_between(self, Buffer out, Py_ssize_t mark, Py_ssize_t* start, uint32_t* done) except -1
    cdef int put_all(self, Buffer out, Buffer messages) except -1
    cdef bint find_placed(self, Py_ssize_t i, const char* data, Py_ssize_t n, uint32_t size) except -1
    cdef Py_ssize_t parse_frame(self, const char* data, Py_ssize_t n) except -2
    cdef int go_on(self) except -1
    cdef int finish_if_done(self) except -1
    cdef Buffer beside(self)
    cdef int put_message(self, int kind, uint64_t number, bytes body, uint32_t form=*) except -1
    cdef int put_body(self, int kind, uint64_t number, const char* body, Py_ssize_t n, uint32_t form) except -1
    cdef int put_deferred(self, uint64_t token, Buffer reply) except -1
    cdef int put_published(self, int what, uint64_t session, const char* name, Py_ssize_t n, const char* message,
                           Py_ssize_t size) except -1
    cdef int notice(self, int what) except -1


# replay.pxi -------------------------------------------------------------------------------------------
cdef struct Reader:
    const char* start
    const char* at
    const char* end


cdef const char* shape_of(int record) noexcept nogil


@cython.final
cdef class Replay:
    """Applies frames to a store; nobody observes or records meanwhile."""
    cdef Store store
    cdef Reader reader
    cdef int db
    cdef int64_t frame_ms
    cdef public bint gaps           # shares were left out: what was evicted later may never have been there
    cdef Merge merge                # decides what is applied while a base is read beside the log; else None
    cdef int apply_records(self, int64_t frame_ms, const char* records, Py_ssize_t n) except -1
    cdef int apply_all(self) except -1
    cdef int flush(self, uint64_t which) except -1
    cdef int swap(self, int left, int right) except -1
    cdef int apply_one(self, int record, Place* place) except -1
    cdef int unknown(self, int record) except -1
    cdef int must(self, bint done) except -1
    cdef int apply_key(self, int record, Place* place) except -1
    cdef int apply_string(self, int record, Place* place) except -1
    cdef int apply_list(self, int record, Place* place) except -1
    cdef ListValue read_list(self, ListValue value, bint left)
    cdef int push(self, Place* place, Entry* entry, bint left) except -1
    cdef int apply_fields(self, int record, Place* place) except -1
    cdef FieldTable read_members(self)
    cdef int put_fields(self, Place* place, Entry* entry, int type, bint keep_ttl) except -1
    cdef int remove_fields(self, Place* place, Entry* entry, int type) except -1
    cdef int apply_zset(self, int record, Place* place) except -1
    cdef ZSet read_zset(self)
    cdef int apply_stream(self, int record, Place* place) except -1
    cdef int apply_group(self, int record, Place* place, Entry* entry) except -1


# images.pxi -------------------------------------------------------------------------------------------
cdef enum:
    PART_RAW = 8                # a string that was grown in place
    PART_DEADLINE = 16
    PART_FIELD_DEADLINES = 32
    PART_FLAGS = 63             # all that there are, with the type

cdef int image_kind(Entry* entry) except -1
cdef uint64_t image_body(
    int64_t past, Entry* entry, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF
cdef bint is_large_value(Entry* entry) except -1
cdef uint64_t stable_part(
    int64_t past, Entry* entry, uint64_t cursor, Py_ssize_t most_bytes, Py_ssize_t most, Buffer out
) except? 0xFFFFFFFFFFFFFFFF


@cython.final
cdef class Building:
    """A value that is being put together beside the data, under a key that it may get (a string lies in a block with it)."""
    cdef Store store
    cdef bytes key
    cdef object value               # FieldTable, ListValue or ZSet; None: a string, or nothing yet
    cdef Entry* text                # a string under construction
    cdef size_t filled, size        # of it
    cdef int type                   # -1: nothing came yet
    cdef bint raw
    cdef bint entries_done          # of a stream: all its entries have come, and what follows is its groups
    cdef readonly int64_t deadline
    cdef int64_t counted            # bytes of it in store.aside
    cdef int count(self) except -1
    cdef int become(self, int type) except -1
    cpdef int expect(self, uint64_t elements) except -1
    cdef int read_part(self, Reader* reader) except -1
    cdef int read_string(self, Reader* reader) except -1
    cdef int make_room(self, size_t n) except -1
    cdef int read_list(self, Reader* reader) except -1
    cdef int read_zset(self, Reader* reader) except -1
    cdef int read_fields(self, Reader* reader, bint with_deadlines) except -1
    cdef int read_stream(self, Reader* reader) except -1
    cdef int read_group(self, Reader* reader) except -1
    cdef int combine(self, const char* member, size_t n, double score, int aggregate) except -1
    cdef int put_at(self, Place* place, int64_t deadline, int kind) except -1
    cdef int put_string(self, Place* place, int64_t deadline, int kind) except -1


# algebra.pxi ------------------------------------------------------------------------------------------
cdef struct Filter:
    Table* table        # NULL: no such key, or a packed one
    PyObject* packed    # a FieldTable or ZSet that is packed; kept alive by the Sieve
    uint32_t asked      # how often, of a packed one
    bint drop           # members of it do not pass; else only they do
    bint scored         # it is a sorted set
    double weight


@cython.final
cdef class Sieve:
    """Lets members through; see the top of the file."""
    cdef Keyspace keys
    cdef Filter* filters
    cdef Py_ssize_t count
    cdef list kept                  # keeps the tables of the filters alive
    cdef bint scored
    cdef int aggregate
    cdef Building into
    cdef Buffer out                 # None: nothing travels
    cdef readonly int64_t found
    cdef int64_t limit
    cdef Py_ssize_t count_at
    cdef bint passes(self, Filter* filter, uint64_t hash, const char* member, size_t n, double* score) except -1
    cdef bint ask_packed(self, Filter* filter, const char* member, size_t n, double* score) except -1
    cdef uint64_t pick_packed(self, object value, double weight, uint64_t cursor, Py_ssize_t most, Py_ssize_t most_bytes) except? 1
    cdef int add_filter(self, bytes key, bint drop, double weight) except -1
    cdef object set_at(self, bytes key)
    cdef Table* table_of(self, object value, bint* scored) except? NULL
    cdef int offer(self, const char* member, size_t n, double score) except -1


# merge.pxi --------------------------------------------------------------------------------------------
cdef struct Cursor:
    # What lies before it, in the order of slots and then of hash prefixes, is dumped.
    uint32_t slot
    uint64_t prefix


cdef list read_shares(Reader* reader, int64_t frame_ms)


@cython.final
cdef class Merge:
    """Decides which effects of a log are applied while the base beside it is read; see the top of merge.pxi."""
    cdef Store store
    cdef Replay replay
    cdef Reader reader
    cdef Cursor[DATABASES] cursors
    cdef list later                     # per database: {key: Building, or None before its first part}
    cdef uint64_t[2] seed               # of the hashes in the base's order
    cdef int64_t now_ms                 # of the frame being read
    cdef readonly uint64_t keys         # that came from the base
    cdef bint dumped(self, int db, Place* place) noexcept
    cdef bint precedes(self, Cursor* cursor, Place* place) noexcept
    cdef bint admits(self, int record, Place* place) except -1
    cdef bint admits_two(self, int record, Place* place) except -1
    cdef int forget(self, int db, bytes key) except -1
    cdef int flushed(self, int db) except -1
    cdef int swapped(self, int left, int right) except -1
    cdef int change(self, Building value, int record) except -1
    cdef int change_list(self, ListValue value, int record) except -1
    cdef int change_fields(self, FieldTable table, int record) except -1
    cdef int change_zset(self, ZSet value, int record) except -1
    cdef int change_stream(self, Building building, int record) except -1
    cdef int change_group(self, Stream value, int record) except -1
    cdef int read_values(self, const char* data, Py_ssize_t n) except -1
    cdef int read_groups(self) except -1
    cdef int read_entry(self, int db, Cursor* before) except -1
    cdef int put_image(self, Place* place, int tag) except -1
    cdef int put_string(self, Place* place, int tag, int64_t deadline, uint32_t clock) except -1
    cdef int put_clock(self, Place* place, uint32_t clock) except -1
    cdef int remove(self, Place* place) except -1
    cdef int read_piece(self, const char* data, Py_ssize_t n) except -1
    cdef int begin_frame(self, int64_t now_ms, const char* data, Py_ssize_t n) except -1
