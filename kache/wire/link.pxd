"""The numbers of the link, the conversation between a router and a shard: the one place where they stand.

Every message is ``u32 length | u8 kind | …``, little-endian; the length counts what follows it.

    to the shard    HELLO    version, router, digest of the command table, boot id     once, first
                    RUN      dialect, db, flags, count, session, deadline, transaction | frame frame …
                    CANCEL   session
    to the router   HELLO_OK, HELLO_NO       the answer to HELLO; nothing else comes before it
                    REPLY    count, session | u32 n, reply | u32 n, reply …            in the order of the frames
                    DEFERRED token | reply         of a frame that was answered REPLY_DEFERRED, token
                    PUSH     session | message     out of band, complete in the session's dialect
                    SLOW     session | msgpack     a command of this session that took long (shard/service/slowlog.py)
                    SLOW_PART  nanoseconds         the same of a part of a command, or a question of the router's: before
                                                   its reply
                    NOTICE   ready or draining

    RUN     u32 length | u8 kind | u8 dialect | u8 db | u8 flags | u32 count | u64 session | u64 deadline | u64 transaction
    frame   u32 length | u16 command | u16 slot | u32 count | u32 n, argument | …    command: with IN_CAPITALS if so sent
    REPLY   u32 length | u8 kind | 3 zeros | u32 count | u64 session | replies
"""
from libc.stdint cimport uint32_t

cdef enum:
    LINK_VERSION = 3

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
    LINK_SLOW_PART = 11

    # Bytes before the frames of a RUN, the replies of a REPLY, the arguments of a frame; the length field included.
    RUN_HEADER = 36
    REPLY_HEADER = 20
    FRAME_HEADER = 12

    # Places in the header of a RUN.
    RUN_KIND_AT = 4
    RUN_DIALECT_AT = 5
    RUN_DB_AT = 6
    RUN_FLAGS_AT = 7
    RUN_COUNT_AT = 8
    RUN_SESSION_AT = 12
    RUN_DEADLINE_AT = 20
    RUN_TRANSACTION_AT = 28

    # Beside the number of a frame's command: how its client wrote the name, for the slow log.
    IN_CAPITALS = 0x8000

    # Flags of a run.
    FLAG_ATOMIC = 1             # executed only when it is whole, in one tick
    FLAG_NO_TOUCH = 2           # leaves the LRU and LFU clocks alone

    NO_TRANSACTION = 0          # the frames belong to none

    NOTICE_READY = 1            # what it holds is loaded
    NOTICE_DRAINING = 2         # it answers what it was sent and wants nothing more


cdef extern from *:
    """
    #define KACHE_REPLY_DEFERRED 0xFFFFFFFFu
    #define KACHE_REPLY_EXPIRED 0xFFFFFFFEu
    """
    # In the place of a reply's length.
    const uint32_t REPLY_DEFERRED "KACHE_REPLY_DEFERRED"    # a token follows; the reply comes out of band
    const uint32_t REPLY_EXPIRED "KACHE_REPLY_EXPIRED"      # the run was past its deadline: not executed
