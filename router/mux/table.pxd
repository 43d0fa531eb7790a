# cython: language_level=3
"""Declarations of the command table (see table.pyx)."""
cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kache.wire.codec cimport Span

cdef enum:
    ROUTE_SHARD = 0      # one shard by its keys; several shards: the planner decides
    ROUTE_MOVE = 1       # the same, but a coroutine of moves.py when the keys lie on different shards
    ROUTE_LOCAL = 2
    ROUTE_CURSOR = 3     # always a coroutine of moves.py
    ROUTE_ALL = 4        # always the planner
    ROUTE_CONTAINER = 5  # only exists with a second word

    FOLD_NONE = 0        # how a split over plain key ranges is merged without Python
    FOLD_SUM = 1
    FOLD_OK = 2
    FOLD_IN_ORDER = 3
    FOLD_CONCAT = 4


    # Channels that a command names.
    HEARS_NOTHING = 0
    HEARS_ONE = 1        # its first argument
    HEARS_CHANNELS = 2   # all arguments
    HEARS_PATTERNS = 3   # all arguments, as patterns

    # Whose rights depend on the options.
    CHOOSES_NOTHING = 0
    CHOOSES_SET = 1
    CHOOSES_BITFIELD = 2


cdef struct KeyRights:
    # A range of keys as KeySpec has it, and what is done with them (kache.acl.record.READ and WRITE).
    int first, last, step
    int wanted


cdef struct Command:
    uint16_t id
    int arity
    uint8_t route
    uint8_t fold
    bint writes
    bint no_auth
    bint container       # a second word may select a subcommand
    bint nothing_is_missing  # a sum of zero is RES_NX (the binary protocol's own DEL)
    bint planned         # its keys cannot be found by first, last, step, or that is not all there is to do
    bint may_block       # it may wait for its keys
    bint read_streams    # it does if BLOCK says so
    bint needs_room      # it is refused when memory is full
    bint no_multi        # it cannot be queued behind MULTI
    bint immediate       # it is executed behind MULTI, too, instead of being queued
    bint begins          # it is MULTI
    bint executes        # it is EXEC
    bint selects         # it is SELECT
    bint publishes       # it only passes something on
    bint pushes          # what it answers is a push, which CLIENT REPLY does not keep back
    bint while_subscribed    # a client that listens in RESP2 may send it
    bint instant         # the router answers it without waiting for anything
    bint harmless        # and it changes nothing
    int first            # first key, counted with the command's words; 0: no key
    int last             # last key; negative from the end
    int step
    int words            # how many words name it
    KeyRights* keys      # all of its ranges of keys
    int key_count
    bint keyed           # it has keys, of whatever kind;
    bint located         # of a kind that Python finds
    bint plain           # its keys stand in plain ranges, and nothing else of it is checked;
    bint one_key         # they are one, its first argument
    bint sorts           # it is SORT, which may read other keys than it names
    uint8_t chooses
    uint8_t hears
    bint runs_script     # it is EVAL or one of its kin
    bint while_busy      # it is answered although all shards run scripts
    bint unseen          # what it does inside is checked by nobody
    bint logs_in         # it may change the user of its session
    uint64_t word        # the name as one number if it is a single word of at most eight letters, else 0
    const char* name     # as in error texts: "get", "config|get"
    Py_ssize_t name_size
    uint32_t hash
    PyObject* row
    PyObject* key        # Row.key
    PyObject* handler
    uint64_t calls, micros, failed      # of what the router answers or leads itself
    uint64_t* latency                   # histogram of its nanoseconds (kache.stats); NULL before the first


cdef struct Index:
    uint16_t* slots
    uint32_t mask


@cython.final
cdef class CommandTable:
    """Every row of the table that clients can reach, by name, and every row by its key."""
    cdef Command* commands
    cdef int count
    cdef Index resp, binary
    cdef dict by_key             # Row.key -> Row, internal rows included
    cdef list rows               # by their number
    cdef uint16_t lock, unlock, unwatch, subscribe, track, untrack, broken, monitored   # numbers of internal rows
    cdef uint16_t monitor        # that of MONITOR
    cdef list keep               # what the C pointers point into
    # Commands of modules: a block of them for every change, which never moves, since sessions point into them.
    cdef Command** blocks
    cdef int* block_sizes
    cdef int block_count
    cdef Command** more          # an index of those that are there, by name; NULL: none is
    cdef uint32_t more_mask
    cdef int _fill(self, Command* command, object row) except -1
    cdef int _fill_keys(self, Command* command, object row) except -1
    cdef int _fill_rights(self, Command* command, object row) except -1
    cdef int _add_block(self, list rows) except -1
    cdef int _index_more(self, set live) except -1
    cdef Command* _find_more(self, uint32_t hash, Span* word) noexcept
    # The command that `words` start with; a container itself when its second word is unknown; or NULL.
    cdef Command* find(self, bint binary, Span* words, Py_ssize_t count) noexcept


cdef inline uint64_t short_word(const char* word, Py_ssize_t n) noexcept nogil:
    """A word of at most eight letters as a number, whatever their case; 0 for any other.

    Setting bit 5 maps letters, and nothing else, to lower-case letters, so equal numbers mean equal words as long as
    one of them is known to consist of letters, and both are equally long.
    """
    cdef uint32_t low, high
    cdef uint64_t number = 0
    if n >= 4 and n <= 8:
        memcpy(&low, word, 4)
        memcpy(&high, word + n - 4, 4)
        number = <uint64_t> high << (8 * (n - 4)) | low
    elif n == 3:
        number = <uint64_t> <uint8_t> word[0] | <uint64_t> <uint8_t> word[1] << 8 | <uint64_t> <uint8_t> word[2] << 16
    else:
        return 0
    return number | <uint64_t> 0x2020202020202020


# A command that the router itself has carried out took so many nanoseconds.
cdef void count_local(Command* command, int64_t ns) noexcept
cdef dict latency_of(Command* command)
cdef void reset_command(Command* command) noexcept

# The texts of refusals.
cdef bytes c_text(Span word, Py_ssize_t limit)
cdef bytes unknown_command(Span* words, Py_ssize_t count)
cdef bytes unknown_subcommand(Command* container, Span word)
cdef bytes wrong_arity(Command* command)
