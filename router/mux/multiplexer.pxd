# cython: language_level=3
"""The interface of every part of the multiplexer: its classes with their fields and methods, in the order of the parts.

A part may use what stands above it, and of what stands below it only what is declared here. Cython holds the classes to
their declarations; `tests/unit/router/test_mux_parts.py` holds the parts to the order. One module has one file of them,
however long.
"""
cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from kache.acl.rights cimport User, Users
from kache.wire.tallies cimport Tallies
from kache.wire.area cimport Area
from kache.wire.board cimport Board
from kache.wire.claims cimport Claims
from kache.wire.codec cimport Buffer, RequestParser, Span
from kache.wire.reactor cimport Endpoint, Listener, Reactor

from .limits cimport Limits
from .slot_map cimport SlotMap
from .table cimport Command, CommandTable

cdef enum:
    # What stands in Session.order: a shard's number, or one of these; the top bit drops the reply (CLIENT REPLY), the one
    # below it says that the command only publishes something.
    FROM_LOCAL = 0x3FFF
    FROM_PENDING = 0x3FFE
    SOURCE = 0x3FFF
    PUBLISHES = 0x4000
    SILENT = 0x8000

    MAX_SHARDS = 256
    DATABASES = 16

    # Verdicts of Session.may_send.
    WAIT = 0
    SEND = 1
    REFUSED = 2

    # Modes of CLIENT PAUSE.
    PAUSE_NONE = 0
    PAUSE_WRITES = 1
    PAUSE_ALL = 2

    # What a client speaks.
    PROTOCOL_UNKNOWN = 0
    PROTOCOL_RESP = 1
    PROTOCOL_BINARY = 2

    # Phases of a backend.
    DOWN = 0
    HANDSHAKE = 1
    UP = 2
    LEAVING = 3          # it drains: it answers what it was sent and gets nothing more

cdef class Pending
cdef class Replies(Endpoint)
cdef class Session(Replies)
cdef class Backend(Endpoint)
cdef class Gather(Pending)
cdef class Link(Backend)
cdef class Remote(Backend)
cdef class Queue
cdef class Router(Reactor)


# pending.pxi -----------------------------------------------------------------------------------------
cdef class Pending:
    """One reply that is not there yet. `receive` and `fail` take its parts; `complete` makes it leave."""
    cdef Router router
    cdef readonly Session session        # None: nobody's (Router.call)
    cdef readonly int dialect
    cdef bint ready
    cdef bint merges             # it is one of the session's `merging`
    cdef Py_ssize_t parts_bytes  # of its parts, as the session is charged for them
    cdef Buffer reply
    cdef list flows              # of parts that come in pieces; None: none does
    # For the slow log: the beginning of what was asked as it was framed (None when nobody wants to know), the number of
    # its words and the size of the first; when it began if its own time counts, and the longest that a shard took for a part.
    cdef bytes asked
    cdef Py_ssize_t asked_count, asked_first
    cdef int64_t started, longest_part
    cdef Buffer behind           # what is pushed to its client meanwhile, and must not overtake it; None: nothing
    cdef bint acknowledges       # what a shard served it with, after a wait, must not be lost on the way
    # To be overridden: part `part` has come, or never will.
    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1
    cdef int fail(self, uint32_t part, bytes message) except -1
    cdef int aborted(self, uint32_t part, bytes text) except -1   # the atomic run of this part was refused as a whole
    cdef int deferred_as(self, Backend backend, uint64_t token) except -1   # it is blocked: its part comes under this token
    cdef int retry(self, uint32_t part) except -1   # it was blocked, and not executed: the shard is leaving
    # To be called by who makes it for a command of `session`.
    @cython.final
    cdef int keep_words(self, Session session) except -1
    cdef int abandon(self) except -1       # its client is gone: what has come is given back
    # A part comes in pieces: it has begun, has come on, never will; the first two are charged to the client.
    cdef int begin_flow(self, Flow flow) except -1
    cdef int receive_piece(self, Flow flow, const char* data, Py_ssize_t n) except -1
    cdef int flow_lost(self, Flow flow, bytes message) except -1
    cdef bint go_on(self, bint silent) except -1   # it is its turn, and it is not ready: True when all of it has left
    @cython.final
    cdef int keep_flow(self, Flow flow) except -1
    @cython.final
    cdef int drop_flows(self) except -1
    @cython.final
    cdef int note_if_slow(self) except -1
    # To be called: n bytes more of parts are here; False when that closed the client.
    @cython.final
    cdef bint charge(self, Py_ssize_t n) except -1
    # To be called, once.
    @cython.final
    cdef int complete(self, object value) except -1
    @cython.final
    cdef int deliver(self) except -1       # `reply` is complete; if this was the session's barrier, its input goes on


cdef class Call(Pending):
    """One question of the router's own Python to one shard (`Router.call`)."""
    cdef readonly object future
    @cython.final
    cdef int answer(self, object value) except -1


@cython.final
cdef class Led(Pending):
    """A command that a coroutine leads; it is its session's barrier meanwhile."""
    cdef object task
    cdef Command* command
    cdef tuple arguments         # of one that may wait for its keys
    cdef int start(self, object coroutine) except -1


# The reply that a handler's exception becomes; what is not meant for clients is logged. `command` may be NULL.
cdef object reply_of(object error, Command* command)


# order.pxi -------------------------------------------------------------------------------------------
@cython.final
cdef class Flow:
    """A large reply on its way: it comes in pieces, as fast as its client takes them once it is next."""
    cdef Replies session
    cdef Pending pending         # whose part it is; None: it is a client's reply as it stands
    cdef uint32_t part
    cdef Backend backend
    cdef uint64_t token
    cdef uint64_t place          # the token that its place in the order was promised by: its own, or an earlier one
    cdef Py_ssize_t size, received, granted
    cdef Buffer early            # what came before its turn
    cdef bint current            # it is its turn: pieces leave as they come
    cdef bint dropped            # nobody wants what is still to come
    cdef bint take(self, Py_ssize_t n) except -1
    cdef int count(self, Py_ssize_t n) except -1
    cdef bint drop(self) except -1          # what is still to come is not wanted; False: nothing was


cdef class Replies(Endpoint):
    """A client's replies, kept in the order of its requests whatever the order of their arrival."""
    cdef Router router
    cdef Buffer order
    cdef list held               # Buffer or None, per shard; None until something must wait
    cdef Buffer local
    cdef object pendings         # deque of Pending; None until there is one
    cdef dict resolved           # (shard, token) -> bytes or None, deferred replies of this client; or Flow
    cdef Flow flow               # the large reply that is leaving
    cdef Gather weaving          # or the merged one
    cdef Buffer aside            # what was pushed while one of them leaves; None: nothing
    cdef Pending unconfirmed     # the last SUBSCRIBE that has not left: what is pushed comes behind it; None: there is none
    cdef Py_ssize_t waiting      # replies in held and local, and in ready pendings
    cdef readonly Py_ssize_t output_bytes   # all bytes of replies kept for this client, parts of merged ones included
    cdef Py_ssize_t input_bytes  # of what it sent and is not executed, and of the table of its words
    cdef Py_ssize_t elsewhere    # of its replies that wait in shards
    cdef Py_ssize_t forecast     # bytes that its replies in flight will have if they are like the last
    cdef Py_ssize_t average      # recent bytes of a reply of a shard
    cdef Py_ssize_t merging      # replies in flight that are merged here
    cdef Py_ssize_t merged_average   # recent bytes of one; -1 before the first
    cdef int kind                # CLASS_…
    cdef int64_t over_soft_ms    # since when it is over the soft limit of its class; 0: it is not
    cdef readonly bint gone
    cdef int dialect_now
    cdef int64_t written_ms      # when the client last took some output, or got the first that it has not taken
    # To be overridden.
    cdef int relieved(self) except -1           # the client took some output: it may be read again
    cdef int proceed(self) except -1             # something was answered: it may be read again, or be closed
    # Replies of shards.
    @cython.final
    cdef Py_ssize_t receive_several(
        self, int shard, const char* data, Py_ssize_t n, uint32_t most, uint32_t* taken) except -1
    @cython.final
    cdef int receive(self, int shard, const char* reply, Py_ssize_t n) except -1
    @cython.final
    # The same of a node: `count` replies, none large, that lie one behind the other; their sizes.
    cdef int receive_run(self, int source, const char* data, const uint32_t* sizes, uint32_t count) except -1
    cdef int receive_placed(self, int shard, const char* reply, Py_ssize_t n) except -1
    @cython.final
    cdef int receive_errors(self, int shard, uint32_t count, bytes message) except -1
    @cython.final
    cdef int hold_deferred(self, int shard, uint64_t token) except -1
    @cython.final
    cdef int receive_deferred(self, int shard, uint64_t token, const char* reply, Py_ssize_t n) except -1
    @cython.final
    cdef int deferred_lost(self, int shard, uint64_t token, bytes message) except -1
    @cython.final
    cdef int forget_deferred(self) except -1
    @cython.final
    cdef int hold_flow(self, int shard, Flow flow) except -1
    @cython.final
    cdef int receive_piece(self, Flow flow, const char* data, Py_ssize_t n) except -1
    @cython.final
    cdef int flow_lost(self, int shard, Flow flow, bytes message) except -1
    # Out of band, between two replies.
    @cython.final
    cdef int push(self, const char* message, Py_ssize_t n) except -1
    cdef int push_aside(self) except -1
    # Replies made here.
    @cython.final
    cdef int answer(self, object value, uint16_t flags) except -1
    @cython.final
    cdef int answer_error(self, bytes message, uint16_t flags) except -1
    @cython.final
    cdef int expect_pending(self, Pending pending, uint16_t flags) except -1
    @cython.final
    cdef int advance(self) except -1
    @cython.final
    cdef int confirmed(self) except -1
    @cython.final
    cdef Py_ssize_t in_flight_now(self) noexcept
    @cython.final
    cdef void account(self, Py_ssize_t n) noexcept
    @cython.final
    cdef Py_ssize_t cost(self) noexcept
    @cython.final
    cdef Py_ssize_t weight(self) noexcept
    @cython.final
    cdef int predict(self) except -1            # what is in flight has changed
    # What it cannot be given was closed for it: True if that is this client.
    @cython.final
    cdef bint over_limit(self) except -1
    # Of its own.
    @cython.final
    cdef bint over_class_limit(self) except -1
    @cython.final
    cdef int learn_average(self, Py_ssize_t size, uint32_t count) except -1
    @cython.final
    cdef bint has_held(self, int shard)
    @cython.final
    cdef Buffer held_of(self, int shard)
    @cython.final
    cdef int queue_local(self, object value) except -1
    @cython.final
    cdef int encode(self, Buffer out, object value) except -1
    @cython.final
    cdef int deliver(self, const char* reply, Py_ssize_t n, uint16_t head) except -1
    @cython.final
    cdef int pass_on(self, const char* reply, Py_ssize_t n) except -1
    @cython.final
    cdef int deliver_first(self, Buffer queue, uint16_t head) except -1
    @cython.final
    cdef bint deliver_held(self, Buffer queue, uint16_t head) except -1
    @cython.final
    cdef bint deliver_flow(self, Flow flow, uint16_t head) except -1
    @cython.final
    cdef int grant(self, Flow flow) except -1


# backend.pxi -----------------------------------------------------------------------------------------
cdef struct Expected:
    PyObject* owner      # a Session or a Pending, owned; NULL: swallow
    bint pending         # it is a Pending
    uint32_t part        # which part of the Pending
    uint32_t count       # replies that are still to come
    int64_t deadline     # unix ms; 0: none
    uint64_t start       # where the run starts in all bytes ever put into `out`


cdef class Backend(Endpoint):
    """A connection that commands are sent to and whose replies come back in order; a new object for every connection."""
    cdef Router router
    cdef Limits limits
    cdef readonly int index
    cdef int phase
    cdef readonly object reason          # why it is down
    cdef int busy                # it runs a script (or a function) for so long that nothing else is sent to it
    cdef readonly uint64_t in_flight     # commands whose replies are still to come, swallowed ones included
    cdef readonly uint64_t timeouts
    cdef readonly uint64_t reconnects
    cdef Expected* ring
    cdef uint64_t head, tail, overdue, ring_mask
    cdef uint64_t replied                # commands whose replies have come, or were swallowed
    cdef dict deferred                   # token -> Session, or (Pending, part)
    cdef dict parked                     # token -> deadline, of those of them that have one
    cdef dict flows                      # token -> Flow
    cdef Py_ssize_t flow_bytes, flow_counted   # of them that are still there, and of those what counts for the clients
    cdef list waiters                    # sessions that are read again when it is no longer busy; None: nobody
    # For those who send; each kind of backend has its own. The words that name the command stand before its arguments.
    # Nothing is asked before sending but `phase` and the limits.
    # It returns under which number its reply comes (Session.order).
    cdef int put(self, Session session, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1
    cdef int admits(self, Session session, uint16_t slot, uint16_t flags) except -1   # Session.may_send, where it is not idle
    cdef int end_run(self) except -1     # whoever has put something ends it before anything else happens
    cdef int ask(self, Pending owner, uint32_t part, uint16_t command, uint16_t slot, object arguments, int db,
                 int flags, uint64_t session, int64_t deadline, uint64_t transaction) except -1
    cdef int ask_in(self, int dialect, Pending owner, uint32_t part, uint16_t command, uint16_t slot, object arguments,
                    int db, int flags, uint64_t session, int64_t deadline, uint64_t transaction) except -1
    cdef int ask_keys(self, Gather gather, int part, Session session, int64_t deadline) except -1
    cdef int cancel(self, uint64_t session) except -1
    # Of deferred replies: nobody waits for one any longer; a word about one (UNBLOCK, RECEIVED, UNDELIVERED).
    cdef int cancel_one(self, uint64_t session, uint64_t token) except -1
    cdef int put_word(self, int kind, uint64_t token, uint32_t how) except -1
    # Large frames in pieces: so much more of a reply may come (0: nobody wants it); a piece of an argument of the frame
    # to come; what came of them is not needed.
    cdef int put_credit(self, uint64_t token, uint64_t n) except -1
    cdef int put_part(self, uint64_t session, uint32_t argument, const char* data, Py_ssize_t n) except -1
    cdef int drop_parts(self, uint64_t session) except -1
    cdef uint64_t count_begun(self) noexcept
    cdef bytes down_text(self)
    @cython.final
    cdef bint over_soft(self) noexcept
    @cython.final
    cdef bint over_hard(self, Py_ssize_t size) noexcept
    @cython.final
    cdef int wait_for_room(self, Session session) except -1
    @cython.final
    cdef int wake_waiters(self) except -1
    @cython.final
    cdef bint stuck(self) noexcept
    # For the kinds: the queue of what was sent.
    @cython.final
    cdef int expect(self, PyObject* owner, bint pending, uint32_t part, uint32_t count, int64_t deadline,
                    Py_ssize_t mark) except -1
    @cython.final
    cdef int grow_ring(self) except -1
    @cython.final
    cdef int answered(self, uint32_t count) except -1
    @cython.final
    cdef int answer(self, PyObject* owner, bint pending, uint32_t part, uint32_t count, bytes message) except -1
    @cython.final
    cdef int defer(self, Expected* expected, uint64_t token, bint blocked) except -1
    @cython.final
    cdef int take_deferred(self, uint64_t token, bint aborted, const char* reply, Py_ssize_t n) except -1
    @cython.final
    cdef int take_retry(self, uint64_t token, bytes ids) except -1
    @cython.final
    cdef int begin_flow(self, Expected* expected, uint64_t token, Py_ssize_t size, uint64_t place) except -1
    @cython.final
    cdef int fail_flows(self) except -1
    @cython.final
    cdef int count_flows(self, Py_ssize_t n) except -1
    # For the timer.
    @cython.final
    cdef int expire(self, int64_t now_ms) except -1
    # Of its own.
    @cython.final
    cdef int time_out(self, Expected* expected) except -1
    cdef int expire_parked(self, int64_t now_ms) except -1
    cdef int fail_one(self, uint64_t token, object owner, bytes message) except -1
    @cython.final
    cdef int fail_expected(self) except -1
    @cython.final
    cdef int fail_deferred(self) except -1


# weave.pxi -------------------------------------------------------------------------------------------
@cython.final
cdef class Strand:
    """What has come of one part of a merged reply and not left yet."""
    cdef Flow flow               # None: it came whole
    cdef Buffer here
    cdef Py_ssize_t size, head   # of the part, and of what is before its elements; 0: that is not here yet
    cdef int64_t count           # of its elements
    cdef Py_ssize_t to_come(self) noexcept


@cython.final
cdef class Weave:
    """The parts of one reply on their way into it."""
    cdef list strands
    cdef int dialect
    cdef uint8_t* owner          # the part of each key; NULL: one part follows the other
    cdef Py_ssize_t keys
    cdef Py_ssize_t at, left     # the key or the part that is leaving, and what is left of the key's element
    cdef bint begun
    cdef int add(self, uint32_t part, Strand strand) except -1
    cdef Py_ssize_t bytes_here(self) noexcept
    cdef Py_ssize_t begin(self, Replies session) except -2
    cdef bint leave(self, Replies session) except -1
    cdef bint leave_in_turn(self, Replies session) except -1
    cdef bint leave_in_order(self, Replies session) except -1
    cdef int ask(self, Replies session) except -1


cdef Py_ssize_t head_of(int dialect, const char* at, Py_ssize_t n, int64_t* count) noexcept
cdef Py_ssize_t element_size(int dialect, const char* at, Py_ssize_t n) noexcept
cdef object error_of_part(int dialect, const char* reply, Py_ssize_t n)
cdef Strand strand_of(bytes whole, int dialect)
cdef int leave_bytes(Replies session, Strand strand, Py_ssize_t n) except -1
cdef int ask_for(Strand strand, Py_ssize_t window) except -1
cdef int set_size(Buffer out, Py_ssize_t mark, Py_ssize_t size) noexcept


# gather.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Gather(Pending):
    """One reply out of one part per shard. `owner[k]` is the part that holds key k."""
    cdef int fold
    cdef Command* command
    cdef int64_t total
    cdef uint8_t* owner
    cdef Py_ssize_t keys, missing
    cdef Py_ssize_t framed       # bytes behind `owner`: what becomes `asked` if it proves slow
    cdef bint lists              # shards may walk over all their keys for it: longer than others wait for them
    cdef list shards             # shard of each part
    cdef list texts              # each part's reply, if it merges
    cdef Weave weave             # if a part is large
    cdef Py_ssize_t woven_size
    cdef list errors             # (part, CommandError)
    cdef int one_less(self) except -1
    cdef int take_array(self, uint32_t part, const char* reply, Py_ssize_t n) except -1
    cdef int end_with_errors(self) except -1
    cdef int put_arrays(self) except -1
    cdef int begin_weaving(self) except -1
    cdef bint wove(self, Py_ssize_t size) except -1


# Sends one frame to every shard that holds one of the keys up to word `last`; False when the command must wait.
cdef bint gather_parts(Session session, Command* command, Py_ssize_t last, uint16_t flags) except -1
# Asks the shards of all parts of a command whose arrays become one; False when it must wait.
cdef bint gather_all(Session session, Command* command, list parts, uint16_t flags) except -1
# The slot of the k-th key of the command in the parser.
cdef uint16_t key_slot(RequestParser parser, Command* command, Py_ssize_t k) noexcept


# placed.pxi ------------------------------------------------------------------------------------------
cdef Py_ssize_t area_room(Router router) noexcept
cdef bint offer_with(Link link, Buffer hello) except -1
cdef bint place_frame(
    Link link, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count, Span* large
) except -1
cdef bint take_placed(Link link, Expected* expected, uint64_t position, uint32_t size) except -1
cdef int count_area(Link link) except -1
cdef int recount_area(Link link) except -1
cdef int cool_area(Link link) except -1
cdef int drop_area(Link link) except -1


# link.pxi --------------------------------------------------------------------------------------------
@cython.final
cdef class Link(Backend):
    """The router's connection to one shard."""
    cdef readonly bint loading
    cdef readonly uint64_t pid
    cdef bint said_goodbye               # nothing more can be sent
    cdef uint32_t part_left              # bytes of the current PART that are still to come
    cdef Flow part_of                    # and the reply they are of; None: nobody wants it
    cdef Py_ssize_t partial              # bytes of a reply that is not complete
    cdef uint32_t reply_left             # replies of the current REPLY message that are still to come
    cdef PyObject* run_owner             # the session whose run is open; borrowed
    cdef Py_ssize_t run_mark             # where its header starts, from out.start
    cdef uint32_t run_count
    cdef int64_t run_deadline
    cdef Area area                       # memory that the shard shares; None: it has none
    cdef Area offered                    # that it was told of, and may not have taken
    cdef Py_ssize_t area_reached, area_counted   # how much has been in use, and is counted for all clients
    cdef int area_rounds                 # looks at it since it was used
    # Takes a connected socket and starts the handshake; nothing else is sent before its answer.
    cdef int connected(self, int fd) except -1
    cdef int begin_run(self, Session session) except -1
    cdef int put_header(self, int dialect, int db, int flags, uint64_t session, int64_t deadline,
                        uint64_t transaction, uint32_t user) except -1
    cdef int put_spans(self, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1
    cdef int put_gathered(self, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1
    cdef int finish_run(self, PyObject* owner, bint pending, uint32_t part) except -1
    # Complete runs, of so many frames each: (where it starts, count).
    cdef int put_runs(self, Pending owner, uint32_t part, Buffer runs, list counts, int64_t deadline) except -1
    cdef int put_queue(self, Exec owner, Queue queue, int flags, int64_t deadline) except -1
    cdef Py_ssize_t take_part(self, const char* data, Py_ssize_t n) except -1
    cdef int keep_partial(self, Py_ssize_t n) except -1
    cdef Py_ssize_t take_replies(self, const char* data, Py_ssize_t n) except -1
    cdef Py_ssize_t take_marked(self, Expected* expected, const char* data, Py_ssize_t n, uint32_t* taken) except -1
    cdef int take_message(self, int kind, const char* body, Py_ssize_t n) except -1
    cdef int take_timed(self, uint64_t token, bint large, const char* body, Py_ssize_t n) except -1
    cdef int take_published(self, const char* body, Py_ssize_t n) except -1
    cdef int take_slow_part(self, int64_t took) except -1
    cdef int take_report(self, uint64_t session, bytes report) except -1
    cdef int up(self, int version, int index) except -1
    cdef int say_goodbye(self) except -1

cdef int put_frame(Buffer out, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1


# node.pxi --------------------------------------------------------------------------------------------
cdef enum:
    MOST_BATCHED = 256   # replies that are passed on together


cdef struct Sent:
    uint64_t place       # among all commands of this router
    uint32_t size        # of its bytes in `kept`; 0: its frame has them
    uint16_t slot
    uint32_t skip        # replies before its own that nobody waits for
    bint reads           # it may be sent again
    PyObject* frame      # the Held that it was in its gate, owned; NULL: it went straight


@cython.final
cdef class ReplyScanner:
    """Finds the end of replies in RESP; a reply that is not all here is looked at on from where it ended."""
    cdef Py_ssize_t at           # what is scanned of the present reply
    cdef Py_ssize_t looked       # and behind that, of a line that has no end yet
    cdef int64_t left            # values of it that are still to come; 0: none has begun
    cdef Py_ssize_t scan(self, const char* data, Py_ssize_t n) noexcept


@cython.final
cdef class Held:
    """A command that waits in the gate of its slot, or was sent from there."""
    cdef object owner            # Session or Pending
    cdef bint pending
    cdef uint32_t part
    cdef bytes data
    cdef bint reads
    cdef uint32_t skip           # replies before its own: those of a block
    cdef readonly int dialect, lane, db
    cdef int source
    cdef uint64_t token          # under which its reply keeps its place
    cdef readonly uint64_t place
    cdef readonly int slot
    cdef public object target
    cdef public int hops, waits
    cdef public double not_before, deadline
    cdef public bytes reason


@cython.final
cdef class Node(Backend):
    """A connection to a node of a Redis Cluster, for clients of one dialect."""
    cdef Remote remote
    cdef int node, dialect, lane, db
    cdef Sent* sent
    cdef uint64_t sent_mask
    cdef Buffer kept
    # Replies of one client that lie one behind the other where they were received, not passed on yet.
    cdef Session batch_owner
    cdef const char* batch
    cdef uint32_t[MOST_BATCHED] sizes
    cdef uint32_t batched
    cdef Py_ssize_t batch_bytes
    cdef ReplyScanner scanner
    cdef int greetings           # answers of the greeting that are still to come
    cdef int64_t heard_ms
    cdef bytes refusal           # the first error among replies that are skipped: why EXEC will be refused; None: none
    cdef uint32_t skips(self, Sent* sent, const char* data) noexcept
    cdef int connected(self, int fd, str name, bytes greeting, int replies) except -1
    cdef int note(self, PyObject* owner, bint pending, uint32_t part, uint16_t slot, uint64_t place, bint reads,
                  Py_ssize_t mark, Py_ssize_t size, int64_t deadline) except -1
    cdef int put_held(self, Held held, bint asking, int64_t deadline) except -1
    cdef int expire_node(self, int64_t now_ms, int64_t silence_ms) except -1
    cdef int grow_sent(self) except -1
    cdef int take(self, const char* reply, Py_ssize_t n) except -1
    cdef int hand_over(self, Sent* sent, const char* reply, Py_ssize_t n) except -1
    cdef int take_greeting(self, const char* reply, Py_ssize_t n) except -1
    cdef int translate(self, Session session, Sent* sent, const char* reply, Py_ssize_t n) except -1
    cdef bint loads_script(self) except -1
    cdef int done(self) except -1
    cdef int pass_batch(self) except -1
    cdef Held again(self, Expected* expected, Sent* sent, const char* data)
    cdef int redirected(self, int kind, const char* reply, Py_ssize_t n) except -1
    cdef int refuse(self, PyObject* owner, bint pending, uint32_t part, PyObject* frame, bytes message) except -1


cdef int put_length(Buffer out, char mark, Py_ssize_t n) except -1
cdef int put_resp_words(Buffer out, Span* words, Py_ssize_t count) except -1
cdef int put_request(Buffer out, Session session) except -1
cdef bytes resp_of(list words)


# remote.pxi ------------------------------------------------------------------------------------------
cdef struct Slot:
    uint16_t owner       # number of the node + 1; 0: nobody's
    uint8_t proven       # its commands may be pipelined
    uint32_t flying      # commands of it in flight


@cython.final
cdef class Remote(Backend):
    """A Redis Cluster: which connection a command goes to, and what waits meanwhile."""
    cdef Slot[16384] slots
    cdef bint spreads                    # some reads go to replicas:
    cdef uint16_t[16384] readers         # by slot: number of the replica + 1; 0: they go to the owner
    cdef readonly object director
    cdef int connections
    cdef list lanes                      # Node or None, by (node, dialect, number), of database 0
    cdef dict far                        # Node by (node, dialect, number, database), of the others
    cdef dict numbers                    # the same of all databases: what they are called among the sources of replies
    cdef set wanted                      # (node, dialect, number, database) of replicas that somebody would have read from
    cdef object tls                      # the TlsPool of connections to nodes; None: they are not sealed
    cdef uint8_t* reads                  # by number of a row: whether it only reads
    cdef list arrived                    # Held whose gate has not seen them
    cdef uint64_t places, tokens, redirects, repeats, connects, split_blocks
    cdef Py_ssize_t waiting, waiting_bytes   # in gates
    cdef double wait_seconds
    cdef Node node_of(self, int node, int dialect, int lane, int db)
    cdef list all_lanes(self)
    cdef Node reader_of(self, Session session, uint16_t slot)
    cdef Node way_of(self, Session session, Command* command, uint16_t slot)
    cdef int lane_of_session(self, Session session) noexcept
    cdef int hold(self, Session session, Command* command, uint16_t slot, Span* words, Py_ssize_t count) except -1
    cdef int hold_place(self, Held held, uint16_t slot, uint64_t place, int source) except -1
    cdef int wait_for(self, Held held) except -1
    cdef int put_frame(self, Pending owner, uint32_t part, Session session, uint16_t slot, bint reads, Buffer frame,
                       uint32_t skip) except -1
    cdef int work(self) except -1
    cdef int tick(self, int64_t now_ms) except -1
    cdef int is_lost(self, Node node) except -1


cdef bint send_remote(Session session, Remote remote, Command* command, uint16_t slot, uint16_t flags) except -1


# divided.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Divided(Pending):
    """A command over several slots of a Redis Cluster, one frame for each."""
    cdef Command* command
    cdef uint8_t fold
    cdef Py_ssize_t keys
    cdef uint32_t* part_of       # each key's part
    cdef list slots              # of the parts
    cdef list texts              # their replies, if they are merged
    cdef list errors             # (part, CommandError)
    cdef int64_t total
    cdef Py_ssize_t missing
    cdef int one_less(self) except -1
    cdef list values(self)
    cdef int put_values(self) except -1


cdef bint divide(Session session, Command* command, Py_ssize_t last, uint16_t flags) except -1
cdef int put_divided(Divided divided, Session session, Remote remote, bint reads) except -1
cdef int put_span(Buffer out, Span* span) except -1
cdef bint run_remote(Session session, Command* command, uint16_t flags) except -1


# planned.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Split(Pending):
    """A command whose keys lie on several shards, or that asks all of them; merged by a function of merges.py."""
    cdef Command* command
    cdef readonly object row
    cdef readonly tuple args
    cdef readonly list parts
    cdef list replies
    cdef Py_ssize_t missing
    cdef int take(self, uint32_t part, object value) except -1


# Asks the planner for the parts of the command, or starts its coroutine; False when it must wait.
cdef bint run_planned(Session session, Command* command, uint16_t flags) except -1


# blocked.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Blocked(Pending):
    """A command that may wait, with all its keys on one shard."""
    cdef Command* command
    cdef tuple arguments
    cdef Py_ssize_t timeout_at   # which of them says how long it may wait, in seconds,
    cdef bint in_ms              # or in milliseconds
    cdef int shard, db, flags
    cdef uint16_t slot
    cdef int64_t began, until    # unix ms; until: 0 for no end, -1 while only the shard needs to know
    cdef int64_t since           # monotonic ns
    cdef Backend backend         # where it is, or waits; None while its shard is away
    cdef uint64_t token          # of its wait there; 0 before
    cdef int told                # to end, before it was known to wait: without (0) or with an error (1); -1: not
    cdef object refusal          # what it answers when it is ended by an error; None: that CLIENT UNBLOCK ended it
    cdef object timer
    cdef int send(self) except -1
    cdef int read_on_behind(self, bytes ids) except -1
    cdef int stay_away(self) except -1
    cdef int end_with(self, object value) except -1
    cdef int cancel_timer(self) except -1


@cython.final
cdef class Registration(Call):
    """A question of Python's whose reply may be a long time coming."""
    cdef object served           # is called with what a shard has served it with, before its future is done; or None
    cdef Backend backend
    cdef uint64_t token
    cdef int withdraw(self) except -1


# Sends it; False when it must wait for that.
cdef bint begin_blocking(Session session, Command* command, tuple arguments, int shard, uint16_t flags) except -1


# scripts.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Scripted(Pending):
    """A script with its declared keys on one shard."""
    cdef Command* command
    cdef tuple arguments
    cdef int db
    cdef int pass_on(self, const char* reply, Py_ssize_t n) except -1
    cdef int take_notice(self, list notice) except -1


cdef enum:
    # Backend.busy
    FREE = 0
    RUNS_SCRIPT = 1
    RUNS_FUNCTION = 2


cdef bytes busy_text(int busy)
# Sends it; False when it must wait for that.
cdef bint begin_script(Session session, Command* command, tuple arguments, int shard, uint16_t flags) except -1


# upload.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Upload:
    """A request whose large arguments go to their shard as they come; the frame follows when it is complete."""
    cdef Backend backend
    cdef Command* command
    cdef uint16_t slot
    cdef Buffer prefix           # what came of the request, with an empty string in the place of every large one
    cdef uint32_t argument       # which argument is on its way,
    cdef Py_ssize_t left         # how much of it is still to come
    cdef Py_ssize_t total        # and how much of all of them has been sent
    cdef bint ends_bare          # nothing ends the argument but its size: its last byte is not in `left`,
    cdef bint ended              # and was sent
    cdef bint sending            # its frame is being sent
    cdef bint refused            # its shard does not answer: what is left of it is not sent


# Begins one if the request of which `data` is the beginning has a large argument, and may; how many bytes that took.
cdef Py_ssize_t begin_upload(Session session, const char* data, Py_ssize_t n) except -1
# Goes on with it; how many bytes were taken. The session is stalled if it must wait.
cdef Py_ssize_t go_on_uploading(Session session, const char* data, Py_ssize_t n) except -1


# transactions.pxi ------------------------------------------------------------------------------------
cdef struct Queued:
    Command* command
    Py_ssize_t at, size          # its frame in Queue.frames
    int shard                    # whose it is; NO_SHARD: the router's, or several
    uint8_t db


@cython.final
cdef class Queue:
    """What a client has queued behind MULTI."""
    cdef Buffer frames           # encoded for the link
    cdef Buffer slots            # u16 of every key
    cdef Queued* commands
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef dict planned            # number of a command -> its parts, or the error that it will answer
    cdef int db                  # which a SELECT among them leaves selected
    cdef int run_db              # of those for shards; -1: none yet
    cdef int shard               # which all of them are for; NO_SHARD, SEVERAL
    cdef Py_ssize_t locals       # how many the router answers
    cdef readonly bint everything    # a command asks every shard
    cdef bint led                # a command takes several steps, or waits
    cdef bint waits              # what its client sends next depends on what is queued
    cdef bint broken             # a command could not be queued: EXEC will be refused
    cdef bint publishes          # a command among them passes something on
    cdef bint logs_in            # a command among them may change the user
    cdef readonly dict denied    # number of a command -> why its user may not run it any more; None: none
    cdef readonly bint writes, needs_room
    cdef uint64_t epoch          # of the slot map
    cdef int begin(self, Session session) except -1
    cdef Py_ssize_t cost(self) noexcept
    cdef Queued* add(self, Command* command) except NULL
    cdef int belongs(self, Queued* one, int shard) except -1
    cdef tuple arguments(self, Py_ssize_t i)


@cython.final
cdef class Ignored(Pending):
    """The owner of replies that nobody waits for."""


@cython.final
cdef class Exec(Pending):
    """A transaction on its way: its locks, its shares, its replies."""
    cdef Queue queue
    cdef dict watched            # Link -> slots of what was watched there; None: nothing
    cdef bint alone              # one command of its own accord: its reply is the whole one
    cdef int phase
    # The reply being made: where it begins, the next command to be answered, replies still to come, and to be dropped.
    cdef Py_ssize_t mark, next, left, swallows
    cdef Py_ssize_t uncharged    # bytes of it that the session is not charged for yet
    # Locks
    cdef uint64_t number
    cdef bytes writers           # raw u16: the shards whose logs get a share; None: it is not one of several logs
    cdef int64_t until, soonest, ends   # of the next lock; of the one that ends first; of the attempts to get them
    cdef list links, slots, states   # of each participant: its Link, its slots as they travel, what is known of its lock,
    cdef list logging            # and whether it is one of `writers`; None: nobody is
    cdef Py_ssize_t missing      # participants that have not answered
    cdef bint dirty, busy, lost
    cdef bint log_is_slow            # what it waited for, as far as a shard has said
    cdef object refusal          # why it is not executed
    # Shares
    cdef list got, lefts         # of each participant: its replies (None: it executes nothing), how many are to come
    cdef dict failed             # participant -> CommandError
    cdef int run_on(self, Link link) except -1
    cdef int put_alone(self, Buffer out, uint16_t command, list arguments, int dialect, int db, int flags,
                       uint64_t deadline, uint64_t transaction) except -1
    cdef int begin_locking(self, list shards) except -1
    cdef list slots_of(self, list shards)
    cdef set shards_written(self)
    cdef int mode(self, Py_ssize_t part) except -1
    cdef int ask_lock(self, Py_ssize_t part, int more) except -1
    cdef int take_lock(self, Py_ssize_t part, const char* reply, Py_ssize_t n) except -1
    cdef int after_locks(self) except -1
    cdef bytes too_slow(self)
    cdef int stand_in_line(self) except -1
    cdef int ask_next(self) except -1
    cdef int extend(self) except -1
    cdef int unlock(self) except -1
    cdef int give_up(self, object value) except -1
    cdef int go(self) except -1
    cdef int send_share(self, Py_ssize_t part) except -1
    cdef int put_commands(self, Buffer share, list runs, int shard, int flags) except -1
    cdef list parts_for(self, Py_ssize_t i, int shard)
    cdef int fail_whole(self, object error) except -1
    cdef int give_up_running(self, object value) except -1
    cdef int fail_lock(self, uint32_t part, bytes message) except -1
    cdef int part_done(self, Py_ssize_t part) except -1
    cdef object outcome(self)
    cdef int take_next(self, const char* reply, Py_ssize_t n) except -1
    cdef int begin_reply(self) except -1
    cdef int finish(self) except -1
    cdef int put_locals(self) except -1
    cdef object run_local(self, Py_ssize_t i)
    cdef int assemble(self) except -1
    cdef const char* take_from(self, Py_ssize_t part, list at, Py_ssize_t* n) except NULL
    cdef object merged(self, Py_ssize_t i, list at, dict parts_of)

cdef int begin_queue(Session session, Command* command, uint16_t flags) except -1
# Queues the command in the parser, or executes what is queued: False when it must wait.
cdef bint queue_command(Session session, Command* command, uint16_t flags) except -1
cdef bint run_exec(Session session, Command* command, uint16_t flags) except -1
# A command that every shard executes, as a transaction of one; False when it must wait.
cdef bint exec_alone(Session session, Command* command, list parts, uint16_t flags) except -1
cdef int end_multi(Session session) except -1
cdef int unwatch(Session session) except -1


# blocks.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Block(Pending):
    """A transaction in front of a Redis Cluster: a block of commands for each slot, of which strictly there is one."""
    cdef Queue queue
    cdef list slots, texts       # of the parts, and their replies
    cdef bytes failure           # the first error of a part; None: none
    cdef Py_ssize_t failed, missing
    cdef int one_less(self) except -1
    cdef int assemble(self) except -1
    cdef bytes why(self)
    cdef bint put_elements(self) except -1
    cdef list values(self)
    cdef object local_value(self, Py_ssize_t i)


cdef bint queue_remote(Session session, Command* command, uint16_t flags) except -1
cdef bint exec_remote(Session session, Command* command, uint16_t flags) except -1
cdef bint divides_in_block(Session session, Command* command) except -1
cdef tuple parts_in_block(Session session, Command* command)
cdef list slots_of_queue(Queue queue)
cdef bint exec_exclusively(Session session, Command* command, uint16_t flags) except -1
cdef int send_block(Block block, uint32_t part) except -1


# channels.pxi ----------------------------------------------------------------------------------------
@cython.final
cdef class Subscription(Pending):
    """A SUBSCRIBE or UNSUBSCRIBE, or its like, on its way to the shards."""
    cdef bint ends               # an UNSUBSCRIBE: what is pushed need not come behind it
    cdef object messages         # what its client is told
    cdef Py_ssize_t missing      # shards that have not answered
    cdef object future           # of who awaits it inside a transaction
    cdef int one_less(self) except -1


cdef enum:
    AUDIENCE_BITS = 6            # of the number of a place among the channels that had a message last


@cython.final
cdef class Audience:
    """Who has the messages of one channel coming, while nobody comes or goes."""
    cdef int kind
    cdef bytes name
    cdef list sessions           # that listen to the channel itself
    cdef list matching           # (pattern, the sessions that listen to it), of those that it matches


@cython.final
cdef class Channels:
    """Who of this router's clients listens to what."""
    cdef Router router
    cdef list listeners          # by kind: name -> {session: None}
    cdef dict matchers           # pattern -> what says whether a channel matches
    cdef Buffer scratch          # the message being delivered
    cdef list recent             # by audience_place: an Audience, or None
    cdef bint remembers          # whether one is there
    cdef bint to_many            # what is being delivered
    cdef int forget_audiences(self) noexcept
    cdef Audience audience_of(self, int kind, const char* name, Py_ssize_t n)
    cdef Subscription subscribe(self, Session session, int kind, tuple names)
    cdef Subscription subscribe_remote(self, Subscription one, int kind, dict changed)
    cdef int deliver_remote(self, int kind, bytes name, bytes channel, bytes message) except -1
    cdef Subscription ask(self, Subscription one, int kind, dict changed)
    cdef Subscription unsubscribe(self, Session session, int kind, tuple names)
    cdef object end(self, Session session, int kind, tuple names, dict changed)
    cdef int forget(self, Session session) except -1
    cdef int enter(self, Session session, int kind, bytes name, dict changed) except -1
    cdef int leave(self, Session session, int kind, bytes name, dict changed) except -1
    cdef int note(self, int kind, bytes name, dict changed) except -1
    cdef object shards_of(self, int kind, bytes name)
    cdef int tell(self, int kind, dict changed) except -1
    cdef int register_on(self, Link link) except -1
    cdef int deliver(self, int what, const char* name, Py_ssize_t n, const char* message, Py_ssize_t size) except -1
    cdef int deliver_pattern(self, bytes pattern, list sessions, const char* name, Py_ssize_t n, const char* message,
                             Py_ssize_t size) except -1
    cdef int send(self, list sessions) except -1


cdef int put_always(Link link, Pending owner, uint16_t command, list words) except -1


# tracking.pxi ----------------------------------------------------------------------------------------
@cython.final
cdef class Tracks:
    """What a client is told of."""
    cdef readonly uint64_t redirect      # the client that is told for it; 0: itself
    cdef readonly int modes              # TRACKS_…
    cdef readonly tuple prefixes
    cdef readonly int caching            # what CLIENT CACHING has said of the next command; -1: nothing
    cdef readonly bint broken            # `redirect` is gone
    cdef int flag(self) noexcept


@cython.final
cdef class Trackers:
    """The clients of one router that are told what changes."""
    cdef Router router
    cdef dict sessions                   # Session -> Tracks
    cdef int begin(self, Session session, Tracks tracks, Pending owner) except -1
    cdef int end(self, Session session) except -1
    cdef int register_on(self, Link link) except -1
    cdef int lost(self) except -1
    cdef int take(self, Link link, int what, uint64_t id, const char* words, Py_ssize_t n) except -1
    cdef int tell(self, Session session, const char* words, Py_ssize_t n) except -1
    cdef int tell_broken(self, Session session) except -1


cdef class TrackingBegins(Pending):
    """CLIENT TRACKING ON on its way to the shards."""
    cdef int missing
    cdef object future
    cdef int one_less(self) except -1


# monitor.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Monitors:
    """Who watches all commands, and how they are described."""
    cdef Router router
    cdef Py_buffer shared
    cdef uint64_t* words                 # two of them, a byte for each router
    cdef int count(self) except -1
    cdef int tell(self, Session session, Command* command) except -1
    cdef int tell_words(self, Session session, Command* command, int db, list words) except -1
    cdef int tell_routers(self, bytes line) except -1
    cdef int tell_remote_queue(self, Session session, Queue queue) except -1
    cdef int tell_queue(self, Session session, Queue queue) except -1
    cdef int take(self, const char* line, Py_ssize_t n) except -1


# permits.pxi -----------------------------------------------------------------------------------------
# Whether the user of the session may execute the command in its parser; that it may not is answered.
cdef bint may_execute(Session session, Command* command, uint16_t flags) except -1
# Refuses those of the queued commands that may not be executed any more.
cdef int check_queue(Session session, Queue queue) except -1
# The same in front of a Redis Cluster, where a block is refused as a whole: that is answered, and False.
cdef bint may_still_execute(Session session, Queue queue, uint16_t flags) except -1
# The rights of users have changed: what may not go on ends.
cdef int follow_rights(Router router) except -1
# Why a user may not execute a command (0: it may), and in `place` the word for which.
cdef int denial_of(User user, Command* command, Span* words, Py_ssize_t count, Py_ssize_t* place) except -1


# session.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Session(Replies):
    """One client connection."""
    cdef readonly uint64_t id
    cdef int protocol
    cdef RequestParser parser
    cdef Command* current            # the last command
    cdef Pending barrier             # the reply that further input waits for
    cdef readonly object blocker     # what ends the wait of its command; None while it does not wait
    cdef bint stalled                # reading stopped because of a limit or a barrier
    cdef bint waking                 # it is in clients.waking
    cdef readonly bint finishing     # nothing more is read; it closes when all is answered
    cdef Py_ssize_t resume_at        # in flight at which a stalled client is read again
    cdef Py_ssize_t allowed          # commands it may have in flight
    cdef Py_ssize_t output_room      # bytes of unread replies up to which its commands are executed
    cdef Backend waits_for           # the busy backend that its next command is for
    cdef Upload upload
    cdef Queue queue                 # since MULTI; None: there was none
    cdef dict watched                # Link -> slots of what it watches there; None: nothing
    cdef public uint64_t transaction # that its coroutine leads; 0: none
    cdef public object led           # and the object that stands for it; None
    cdef public object exclusive     # in front of a Redis Cluster: what it watches (cluster/watching.py); None: nothing
    cdef bint starving               # it is in clients.starving: it waits for others to cost less
    cdef Py_ssize_t unanswered_bytes # of requests, since nothing was in flight
    cdef int db_now
    cdef public uint64_t wrote       # in front of a Redis Cluster: a bit for each node that it has written to (WAIT)
    cdef bint no_touch_now
    cdef public int reply_mode
    cdef public bint no_evict
    cdef bint authenticated_now
    cdef bint restricted             # not every command is executed: it is a stranger, or listens in RESP2, or writing
                                     # clients are paused
    cdef bint limited                # by the rights of its user, and by nothing else
    cdef list listening              # by kind: the names it listens to, in their order; None: it never did
    cdef readonly Py_ssize_t subscriptions   # how many they are
    cdef readonly bint monitors_all  # it watches all commands
    cdef readonly Tracks tracks      # what it is told of; None: nothing
    cdef int track_flag              # of its runs
    cdef int caching_for             # CLIENT CACHING holds: for the command to come (1), or for the one before (2)
    cdef public int auth_failures
    cdef public bytes name, lib_name, lib_ver
    cdef readonly User rights        # the user whose name it acts in
    cdef uint64_t counted            # number of the user that it counts as a client of; 0: of none with a limit
    cdef uint64_t origin             # what it counts under as a connection of its address; 0: under nothing
    cdef bint resting                # its user has spent its share of this moment
    cdef readonly int64_t connected_ms, last_ms
    cdef int64_t stranger_ms         # since when it may do no more than authenticate, if so,
    cdef uint64_t stranger_commands  # and behind which of its commands
    cdef uint64_t refused_at         # the number of its last command that was not executed, from 1; MONITOR shows none of these
    cdef int64_t begun_ms            # when its first byte came; 0 before
    cdef readonly uint64_t commands
    cdef str peer_name
    # For the commands that leave it, and the replies that come back.
    cdef int may_send(self, Backend backend, uint16_t flags) except -1
    cdef bint send_whole(self, Command* command, int shard, uint16_t slot, uint16_t flags) except -1
    cdef int run_coroutine(self, Command* command, object coroutine, uint16_t flags) except -1
    cdef int confirm_later(self, Command* command, Subscription subscription, int64_t started) except -1
    cdef tuple arguments(self, Command* command)
    cdef int flags_of_runs(self) noexcept
    cdef bint execute(self) except -1
    cdef bint carry_out(self, Command* command, uint16_t flags) except -1
    cdef bint execute_restricted(self, Command* command, uint16_t flags) except -1
    cdef bint may_publish(self, int shard) noexcept     # what it asked of other shards before is done
    cdef bint listen(self, int kind, bytes name, bint wanted) except -1
    cdef int set_tracks(self, Tracks tracks) except -1
    cdef int caching_over(self) except -1
    cdef Py_ssize_t listens(self, int kind) noexcept
    cdef tuple names(self, int kind)
    cdef bint fits(self, Command* command, Py_ssize_t count) noexcept
    cdef int stall(self) except -1
    cdef int starve(self) except -1
    cdef bint may_grow(self, Py_ssize_t n) noexcept
    cdef int protocol_error(self, bytes message) except -1
    cdef int set_limits(self) except -1
    cdef int read_on(self) except -1
    cdef Py_ssize_t framed_size(self) noexcept
    cdef bytes first_words(self)
    cdef int note_slow(self, int64_t took, bytes words, Py_ssize_t count, Py_ssize_t first) except -1
    cdef int wake(self) except -1
    cdef int read_ahead(self) except -1
    cdef bint may_resume(self) except -1
    cdef bint may_merge(self) noexcept     # a reply may be made of several; else the command must wait
    # Of its own.
    cdef bint sniff(self, const char* data, Py_ssize_t n) except -1
    cdef int parse(self, const char* data, Py_ssize_t n) except -2
    cdef Py_ssize_t room(self) noexcept
    cdef int set_allowance(self) noexcept
    cdef bint has_large_replies(self) noexcept
    cdef bint reads_ahead(self) noexcept
    cdef Py_ssize_t take_aside(self, Py_ssize_t n) except -1
    cdef int keep_input(self, Py_ssize_t n) except -1
    cdef bint must_wait(self) noexcept
    cdef void set_restricted(self) noexcept
    cdef bint held_up(self) noexcept
    cdef bint admitted(self, Command* command)
    cdef int refuse(self, Command* command, uint16_t flags) except -1
    cdef bint forward(self, Command* command, uint16_t flags) except -1
    cdef int run_local(self, Command* command, uint16_t flags) except -1


# clients.pxi -----------------------------------------------------------------------------------------
@cython.final
cdef class Clients:
    """Every client of this router: their ids, how many there may be, who is read again, who is closed."""
    cdef Router router
    cdef Limits limits
    cdef dict by_id                      # session id -> Session
    cdef uint64_t last_id, last_transaction
    cdef int most_here                   # clients that the descriptors of this process allow
    cdef Py_buffer shared                # clients of every router, shared with them (kache/cluster/client_counts.py)
    cdef int64_t* counts                 # points into it
    cdef Py_ssize_t routers              # how many counts there are
    cdef int place                       # which of them is this router's
    cdef Py_ssize_t output_bytes         # of replies kept for all clients
    cdef Py_ssize_t input_bytes          # of what they sent and is not executed, and of replies not yet complete
    cdef Py_ssize_t link_bytes           # of what links share with shards, and of large replies that wait in shards
    cdef Py_ssize_t forecast             # of their replies in flight
    cdef list starving                   # sessions that are not read because all together cost too much, the longest first
    cdef Session favoured                # the one of them that is read all the same
    cdef list waking                     # sessions to be read again before the output is written
    cdef bint wake_scheduled
    cdef int pause_mode                  # CLIENT PAUSE
    cdef int64_t pause_until             # unix ms
    cdef Py_ssize_t blocked              # clients whose command waits
    cdef object pause_timer
    cdef uint64_t next_id(self) noexcept
    cdef int add(self, Session session) except -1
    cdef int count_tls(self) except -1
    cdef int remove(self, Session session) except -1
    cdef void count(self) noexcept
    cdef bint has_room(self) noexcept
    cdef int64_t ahead(self) noexcept    # how many more than the router with the fewest
    cdef int push(self, uint64_t id, const char* message, Py_ssize_t n) except -1
    cdef Py_ssize_t cost(self) noexcept
    cdef bint over_budget(self) noexcept
    cdef int relieve(self) except -1
    cdef Session costliest(self)
    cdef int close_for_memory(self, Session session, str reason) except -1
    cdef int feed(self) except -1
    cdef int wake(self) except -1
    cdef int wake_soon(self) except -1
    cdef int hold(self, int mode, int64_t until) except -1
    cdef int let_go(self) except -1
    cdef int set_pause(self, int mode) except -1
    cdef int sweep(self, int64_t now) except -1
    cdef int let_pass(self, int64_t ms) except -1
    cdef str overstayed(self, Session session, int64_t now)
    cdef int look_at_output(self, Session session, int64_t now) except -1
    cdef int apply_limits(self) except -1


# quotas.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Quotas:
    """What users and addresses may take at most, of all routers together."""
    cdef Router router
    cdef Tallies addresses, users
    cdef bytes seed                      # of the hashes of addresses
    cdef int64_t per_address             # connections of one; 0: no limit
    cdef dict resting                    # sessions whose user has spent its share of this window
    cdef object timer                    # of its end; None
    cdef bint looks_at_memory            # some user's is limited
    cdef int apply(self, object config) except -1
    cdef uint64_t key_of(self, str address) except? 0
    cdef bint admits(self, uint64_t key) noexcept
    cdef int note_address(self, Session session, uint64_t key) noexcept
    cdef bint may_join(self, User user) noexcept
    cdef int follow(self, Session session) noexcept
    cdef int64_t* line(self, User user) noexcept
    cdef int64_t owed(self, User user, int64_t* cell, int word, int64_t share, int64_t passed) noexcept
    cdef int64_t spent(self, User user, int word, int64_t window) noexcept
    cdef bint is_spent(self, User user) noexcept
    cdef int charge(self, User user, int64_t commands, int64_t size) noexcept
    cdef int rest(self, Session session) except -1
    cdef int look(self) except -1
    cdef bint has_most(self, User user, int64_t mine) noexcept
    cdef Session largest(self, User user)


# shards.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Shards:
    """The connection to every shard: made, made again, and the runs that are open on them."""
    cdef Router router
    cdef list links                      # the current Link of every shard; also Router.links
    cdef list paths, retry_seconds, up_waiters
    cdef list down_reasons                       # why a shard is down, as the supervisor says; "" while it is not
    cdef list left_ms                            # when a shard last said that it is leaving, and will be back
    cdef list returning                          # per shard, what is called when it is back
    cdef int[MAX_SHARDS] touched
    cdef uint8_t[MAX_SHARDS] is_touched
    cdef int touched_count
    cdef int any_busy                            # Backend.busy of one of them; FREE: none is
    cdef int all_busy                            # the same when all are
    cdef int touch(self, int index) noexcept        # a run was opened on this link
    cdef int end_runs(self) except -1               # the client being parsed is done: its runs are closed
    cdef int connect(self, int index) except -1
    cdef int retry(self, int index) except -1
    cdef int is_up(self, Link link) except -1
    cdef int is_back(self, Link link) except -1
    cdef int wake_up_waiters(self) except -1
    cdef object next_up(self)
    cdef int is_leaving(self, int index) except -1
    cdef bint comes_back(self, int index) except -1
    cdef int is_lost(self, Backend backend, bint was_up) except -1
    cdef int apply_limits(self) except -1
    cdef int cool_down(self) except -1
    cdef int expire(self, int64_t now) except -1
    cdef int look_for_scripts(self) except -1
    cdef int say(self, int index, str state, str reason) except -1


# counters.pxi ----------------------------------------------------------------------------------------
@cython.final
cdef class Counters:
    """What a router counts, since the start or the last reset."""
    cdef int64_t since_ms
    cdef uint64_t commands, accepted, refused, timeouts, uncertain, refused_down, refused_overload
    cdef uint64_t protocol_errors, output_closed, evicted, timeout_closed, bytes_in_closed, bytes_out_closed
    cdef dict closings                   # why clients were closed by this router -> how many
    cdef dict errors                     # code of an error reply made here -> how many
    cdef list samples                    # (now_ms, commands, bytes in, bytes out) of the last seconds
    cdef Py_ssize_t client_peak          # the most that all clients have cost, looked at once a second
    cdef int64_t lag_us                  # how late the timers came at worst in this second, and in those
    cdef list lags                       # of the last minute
    cdef int count_error(self, str message) except -1
    cdef int count_closing(self, str reason) except -1
    cdef int sample(self, Router router) except -1
    cdef dict report(self, Router router)
    cdef int reset(self, Router router) except -1
    cdef tuple traffic(self, Router router)


# timers.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Timers:
    """What is done whether or not anything arrives: deadlines of requests, and once a second the rest."""
    cdef Router router
    cdef object timer
    cdef int64_t due                     # when it is to run (monotonic_ns)
    cdef int64_t next_sweep_ms
    cdef Py_ssize_t most_cost            # the most that clients have cost since memory was given back,
    cdef int64_t retained_ms             # and when they last cost about as much
    cdef int stop(self) except -1
    cdef int give_back(self) except -1


# accept.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Acceptor(Listener):
    """The client port."""
    cdef Router router
    cdef bint sealed             # its clients speak TLS
    cdef int spare               # a descriptor given up to tell a client that there are none left
    cdef int rests               # how often in a row the connection that is waiting was left to the other routers


# router.pxi ------------------------------------------------------------------------------------------
@cython.final
cdef class Router(Reactor):
    """One router process: the reactor of its descriptors, and everything that belongs to it."""
    cdef public object running      # the scripts that run in the shards (kache.cluster.running); None: nobody says
    cdef set far_scripts         # scripts, as they are named, that want keys of other shards
    cdef readonly int index, shard_count
    cdef readonly object config, address
    cdef readonly int64_t started_ms
    cdef readonly bint shutting_down
    cdef readonly uint64_t boot_id
    cdef public object pauses            # CLIENT PAUSE, as all routers know it (kache/cluster/pauses.py); None in tests
    cdef public object rounds            # what all shards dump in turns, the page (kache/cluster/rounds.py); None in tests
    cdef public object tls               # its certificate (router/tls.py); None in tests
    cdef public object on_secured        # called with every client whose TLS handshake is over; None: nobody asks
    cdef public object control           # towards the supervisor: `await control.request(message)`; None in tests
    cdef readonly object slowlog         # of the commands of its clients
    cdef readonly Users users            # of the cluster
    cdef readonly object accounts        # who logs in, and what was refused (kache/router/accounts.py)
    cdef public object config_file       # the TOML file the cluster was started with, or None
    cdef readonly Board board            # where shards show what they have begun, and that they live
    cdef readonly SlotMap slots
    cdef readonly list links             # the current Link of every shard; the list of `shards`
    cdef list places                     # where the commands of a place in `slots` go: `links`, or `remote` for every slot
    cdef readonly Remote remote          # the Redis Cluster that commands go to; None: they go to shards
    cdef Limits limits
    cdef CommandTable table
    cdef readonly uint32_t module_epoch  # of `modules`
    cdef readonly object modules         # a dict: name of a module -> its rows, by name
    cdef readonly object module_rows     # a dict: name of a command of a module -> its row
    cdef readonly Claims claims          # which one of several shards serves a client that waits on all of them
    cdef Clients clients
    cdef Quotas quotas
    cdef Shards shards
    cdef Channels channels
    cdef Trackers trackers
    cdef Monitors monitors
    cdef uint64_t* watched               # `monitors.words`: not 0 while somebody watches all commands
    cdef public object tell_elsewhere    # tells a client of another router that everything may have changed; None in tests
    cdef Counters counters
    cdef object planner
    cdef list acceptors
    cdef int refusing                    # connections that are being told why they are refused
    cdef Timers timers
    cdef int shard_at(self, uint16_t slot) noexcept
    cdef uint16_t slot_for(self, object row, object arguments)
