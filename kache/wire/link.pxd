"""The numbers of the link, the conversation between a router and a shard: the one place where they stand.

Every message is ``u32 length | u8 kind | …``, little-endian; the length counts what follows it.

    to the shard    HELLO    version, router, digest of the command table, boot id, module epoch, maybe the size of
                    an area                once, first
                    RUN      dialect, db, flags, count, session, deadline, transaction, user | frame frame …
                    CANCEL   session, maybe token  what is deferred for it, or that one reply alone, is not wanted any more
                    PART     session, argument | bytes     of an argument of the run to come: what is too large for one
                    CREDIT   token, bytes                  so much more of a large reply may come; 0: none of it
                    UNBLOCK  token, how                    what waits shall not wait any longer: as if its time were over (0), or
                                                           with an error (1)
                    RECEIVED, UNDELIVERED  token           what a command that had waited took is on its way to its client,
                                                           or its client is gone: it goes back to where it was
    to the router   HELLO_OK, HELLO_NO       the answer to HELLO; nothing else comes before it
                    REPLY    count, session | u32 n, reply | u32 n, reply …            in the order of the frames
                    DEFERRED token | reply         of a frame that was answered REPLY_PARKED or REPLY_BLOCKED, token
                    RETRY    token | ids           the same was not executed: the shard is leaving, and another takes its place;
                                                   whoever reads streams goes on behind these ids, with spaces between them
                    PART     token | bytes         of a reply that was answered REPLY_LARGE, token, size
                    PUSH     session | message     out of band, complete in the session's dialect
                    SLOW     session | msgpack     a command of this session that took long (shard/service/slowlog.py)
                    DENIED   session | msgpack     a script of this session did what its user may not: [reason, word, user]
                    SLOW_PART  nanoseconds         the same of a part of a command, or a question of the router's: before
                                                   its reply
                    PUBLISHED  what, session | name | message   something published, once for a link, whose router knows who is
                                                   to have it; or a word about a key to the session that remembers it
                    NOTICE   ready or draining

    RUN     u32 length | u8 kind | u8 dialect | u8 db | u8 flags | u32 count | u64 session | u64 deadline | u64 transaction |
            u32 user
    frame   u32 length | u16 command | u16 slot | u32 count | u32 n, argument | …    command: with IN_CAPITALS if so sent;
                                                   n with PLACED: in the argument's place stands a u64 position

    REPLY   u32 length | u8 kind | 3 zeros | u32 count | u64 session | replies
    DEFERRED u32 length | u8 kind | 3 zeros | u32 form | u64 token | reply
    PART    u32 length | u8 kind | 3 zeros | u32 argument | u64 session or token | bytes
    CREDIT  u32 length | u8 kind | 3 zeros | u32 0 | u64 token | u64 bytes
    PUBLISHED  u32 length | u8 kind | u8 what | 2 zeros | u32 n | u64 session | n bytes of a name | message

Large values pass by the socket where router and shard share memory (kache/wire/area.pyx). The router passes its descriptor
with HELLO, which says its size then; the shard says in HELLO_OK whether it has taken it. From then on an argument from
PLACED_FROM bytes on may lie there, its n says PLACED and is followed by its position, and so may a reply: REPLY_PLACED, size,
position. Either takes it when it comes to it in the order of the link. Arguments of atomic runs are never placed.

A transaction over several shards takes locks first (_lock, an internal command); its share on each shard is one or more
runs that say its number, each FLAG_ATOMIC, in one piece: the share is begun when all of it is here, and nothing comes
between. In the place of their deadline such runs say how many bytes of the share follow behind them; the last one says
FLAG_RELEASE. Where several shards log a share, _lock names them, and _unlock follows instead when all have answered: nothing
is built on a share whose sister is lost. A transaction in steps (LOCK_STEPS) sends one run a step, each a share by itself; behind
the last one _commit tells every shard that all of it is there. One shard's transaction is one run, FLAG_ATOMIC and without a number. A run that is refused as a whole is
answered REPLY_ABORTED, n, text: it stands for all of its replies; without a text a watched key had changed.

A run's user is the number of whose command it is, 0 for nobody, 1 for what is no user's and may do everything (tests, tools):
what a script does is checked against the rights of its user, and nobody's is refused.

Large frames flow. Neither side keeps another's commands waiting behind one, nor holds more of it than a window: an argument
above LARGE comes in PARTs among other clients' runs, and the frame follows, in a run of its own that says FLAG_UPLOADED,
when all of it is there; in its place the frame has an empty one. A reply above LARGE is answered REPLY_LARGE in its place;
it comes in PARTs among other clients' replies, as much as the router's CREDIT says. A client that goes away in the middle
leaves nothing behind: CANCEL drops both. A shard that holds too much of such replies sends them without being asked, and makes those to
come one by one: they are promised (REPLY_PARKED) and begin with DEFERRED_LARGE_FORM.
"""
from libc.stdint cimport uint32_t

cdef enum:
    LINK_VERSION = 10

    # Kinds of messages.
    LINK_HELLO = 1
    LINK_HELLO_OK = 2
    LINK_HELLO_NO = 3
    LINK_RUN = 4
    LINK_REPLY = 5
    LINK_DEFERRED = 6
    LINK_PUSH = 7
    LINK_CANCEL = 8
    LINK_NOTICE = 9
    LINK_SLOW = 10
    LINK_PART = 11
    LINK_CREDIT = 12
    LINK_SLOW_PART = 13
    LINK_RETRY = 14
    LINK_UNBLOCK = 15
    LINK_RECEIVED = 16
    LINK_UNDELIVERED = 17
    LINK_PUBLISHED = 18
    LINK_DENIED = 19

    # Bytes before the frames of a RUN, the replies of a REPLY, the arguments of a frame; the length field included.
    RUN_HEADER = 40
    REPLY_HEADER = 20
    FRAME_HEADER = 12
    PART_HEADER = 20
    PUBLISHED_HEADER = 20

    # What a PUBLISHED is. The first four are also what one can subscribe to.
    PUBLISHED_CHANNEL = 0
    PUBLISHED_PATTERN = 1       # never sent: a pattern is subscribed to, nothing is published to it
    PUBLISHED_SHARD_CHANNEL = 2
    PUBLISHED_MONITOR = 3       # a line for whoever watches all commands
    PUBLISHED_KEY = 4           # keys have changed, which the session remembers: the message is u32 n, key | …
    PUBLISHED_FLUSH = 5         # everything has, for all that the session may remember
    PUBLISHED_BROKEN = 6        # the session that another one has its news sent to is gone
    SUBSCRIBED_KINDS = 4

    # Places in the header of a RUN.
    RUN_KIND_AT = 4
    RUN_DIALECT_AT = 5
    RUN_DB_AT = 6
    RUN_FLAGS_AT = 7
    RUN_COUNT_AT = 8
    RUN_SESSION_AT = 12
    RUN_DEADLINE_AT = 20
    RUN_REST_AT = 20            # in a transaction's share instead of the deadline
    RUN_TRANSACTION_AT = 28
    RUN_USER_AT = 36

    # Beside the number of a frame's command: how its client wrote the name, for the slow log.
    IN_CAPITALS = 0x8000

    # Flags of a run.
    FLAG_ATOMIC = 1             # executed only when it is whole, in one tick
    FLAG_NO_TOUCH = 2           # leaves the LRU and LFU clocks alone
    FLAG_UPLOADED = 4           # one frame, some arguments of which came in PARTs
    FLAG_RELEASE = 8            # behind this run its transaction is over here: its locks are released
    FLAG_WATCHED = 16           # what the session watches ends with this run; without a transaction it is refused if any
                                # of it has changed
    FLAG_TRACK = 32             # the session remembers what it reads, and wants to know when that changes
    FLAG_DIVIDED = 64           # the frames are parts of what the router has divided: it counts it, as one, and logs it

    LARGE = 1048576             # bytes of an argument or a reply above which it flows

    DROP_PARTS = 0xFFFFFF       # as the argument of a PART: those of the session are not needed

    NO_TRANSACTION = 0          # the frames belong to none

    RUN_OF_NOBODY = 0           # kache.acl.record.NOBODY
    RUN_UNRESTRICTED = 1        # kache.acl.record.UNRESTRICTED

    # Modes of _lock, added up.
    LOCK_WAITS = 1              # the reply comes when it is granted
    LOCK_CHECKS = 2             # refused if a key that the session watches has changed
    LOCK_NEEDS_ROOM = 4         # refused without memory; asked once, for the whole transaction
    LOCK_LETS_READ = 8          # who only reads passes
    LOCK_EXTENDS = 16           # the lock is there, and gets a later end and the mode above
    LOCK_SHARES = 32            # it only reads: together with others who do
    LOCK_STEPS = 64             # with a log: what it changes counts after a crash only if a _commit followed on every shard

    # What _lock answers.
    LOCK_BUSY = 0
    LOCK_GRANTED = 1
    LOCK_DIRTY = 2              # a watched key has changed
    LOCK_LOST = 3               # there is none to be extended
    LOCK_LOG_IS_SLOW = 4        # as LOCK_BUSY: who writes waits for the log

    # Forms of DEFERRED.
    DEFERRED_REPLY_FORM = 0
    DEFERRED_ABORTED_FORM = 1   # as REPLY_ABORTED: the run of this frame was refused, the body says why
    DEFERRED_TIMED_FORM = 2     # u64 nanoseconds that it took | reply
    DEFERRED_LARGE_FORM = 3     # u64 nanoseconds | u64 token, u64 size of a reply that follows in PARTs, as after REPLY_LARGE

    NOTICE_READY = 1            # what it holds is loaded
    NOTICE_DRAINING = 2         # it answers what it was sent and wants nothing more


cdef extern from *:
    """
    #define KACHE_PLACED 0x80000000u
    #define KACHE_REPLY_PARKED 0xFFFFFFFFu
    #define KACHE_REPLY_EXPIRED 0xFFFFFFFEu
    #define KACHE_REPLY_LARGE 0xFFFFFFFDu
    #define KACHE_REPLY_BLOCKED 0xFFFFFFFCu
    #define KACHE_REPLY_ABORTED 0xFFFFFFFBu
    #define KACHE_REPLY_PLACED 0xFFFFFFFAu
    #define KACHE_REPLY_MARKS 0xFFFFFFF0u
    """
    # In an argument's length.
    const uint32_t PLACED "KACHE_PLACED"                    # it lies in the area
    # In the place of a reply's length.
    const uint32_t REPLY_PARKED "KACHE_REPLY_PARKED"        # a token follows; the reply comes out of band, unless the
                                                            # deadline of the run passes first
    const uint32_t REPLY_BLOCKED "KACHE_REPLY_BLOCKED"      # the same for a command that waits as long as its client likes
    const uint32_t REPLY_LARGE "KACHE_REPLY_LARGE"          # u64 token, u64 size follow; it comes in PARTs
    const uint32_t REPLY_PLACED "KACHE_REPLY_PLACED"        # u32 size, u64 position follow; it lies in the area
    const uint32_t REPLY_EXPIRED "KACHE_REPLY_EXPIRED"      # the run was past its deadline: not executed
    const uint32_t REPLY_ABORTED "KACHE_REPLY_ABORTED"      # u32 n, text follow; of an atomic run: not executed, all of it
    const uint32_t REPLY_MARKS "KACHE_REPLY_MARKS"          # from here on it is one of these, not a length
