"""The router's compiled data path: clients on one side, shards on the other, replies in order.

Owns every client connection and every link to a shard. Python is called for what is not hot: local commands, splitting
and merging (`commands/`, `scatter/`), never per frame.

      client bytes                                                             shard
  ----------> Session: sniff, frame, look up, slot ---> Link: RUN header | frames ------>
  <---------- Session: replies in place  <------------- Link: REPLY | replies  <---------

Two queues keep the order; no request carries an id.

      Session.order   what comes next for this client         Backend.ring    whom the next replies are for
      +----+----+-------+----+                                +--------------+--------------+
      | s0 | s2 | local | s0 | ...                            | session 7 x3 | session 9 x1 | ...
      +----+----+-------+----+                                +--------------+--------------+
        ^ the head decides: a reply of s2 waits in held[2]       ^ a shard answers in the order of its link,
          until the head is s2, then leaves at once                so the head owns the next reply

Invariant: for every shard i, the entries "s_i" in a session's order are exactly its replies still
expected from link i (or already in held[i]), in the same order on both sides. Whatever removes an
entry on one side answers it on the other: a lost link answers what it expected, a timed-out run is
answered and its late replies are swallowed, a vanished session's replies are dropped on arrival.

The parts are included files, since what they call in one another is called for every frame; their interfaces are
declared in `multiplexer.pxd`. In this order, each built on those above it:

    pending.pxi   replies that are made later: calls, and commands that a coroutine leads
    order.pxi     the reply side of a client: order, held replies, output limits
    backend.pxi   any connection that commands are sent to: whom replies are for, deadlines, limits, failures
    weave.pxi     merged replies that leave as their parts come
    gather.pxi    the split commands merged without Python: DEL, EXISTS, MSET, MGET and their like, KEYS
    placed.pxi    large values, by memory that router and shard share
    link.pxi      the wire of a shard, a kind of backend: runs out, replies in
    node.pxi      the connection to a node of a Redis Cluster, another kind of backend
    remote.pxi    such a cluster as one backend: which connection a command goes to, and what waits
    divided.pxi   what is divided by slot there, or carried out by Python
    planned.pxi   commands over several shards that the planner divides or a coroutine leads
    blocked.pxi   commands that wait for their keys
    scripts.pxi   scripts, whose shard may ask for more keys
    upload.pxi    a large argument on its way to its shard, in pieces
    transactions.pxi  MULTI … EXEC: what is queued, locks and shares
    blocks.pxi    the same in front of a Redis Cluster: a block for the node of its slot
    channels.pxi  who listens to what, and what is published on its way to them
    tracking.pxi  who is told what has changed, and when that may leave
    monitor.pxi   every command as a line, to whoever watches
    permits.pxi   what users may do: the check of a frame, again at EXEC, and when their rights change
    session.pxi   the request side of a client: sniffing, framing, routing, back-pressure
    clients.pxi   all clients: how many, who is read again, who is closed
    quotas.pxi    what users and addresses may take at most
    shards.pxi    the connections to all shards
    counters.pxi  what is counted
    timers.pxi    deadlines and sweeps
    accept.pxi    the client port
    router.pxi    all of them together

Beside them stand modules of their own: `limits` (settings as C numbers), `slot_map` (which shard owns which slot),
`table` (the command table in C).
"""
import asyncio
import itertools
import logging
import socket
from collections import deque
from functools import partial
from select import POLLIN, poll
from types import CoroutineType

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EMFILE, ENFILE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from kache.acl.rights cimport (
    MATCHES_PREFIX, MAY_READ, MAY_WRITE, Pattern, Rights, User, Users, may_hear, may_run, may_touch, may_touch_all,
)
from kache.wire.area cimport PLACED_FROM, Area, area_size, offer_area
from kache.wire.board cimport Board
from kache.wire.claims cimport Claims
from kache.wire.clock cimport Clock, monotonic_ns
from kache.wire.reactor cimport PEER_SENDS, Endpoint, Listener, Reactor, begin_tls, connect_tls
from kache.wire.tls cimport TLS_OPEN, TlsPool
from kache.wire.codec cimport (
    BINARY, EMPTY, FRAME, INTERNAL, NEED_MORE, NO_SLOT, RESP2, RESP3, Buffer, RequestParser,
    Span, decode_span, kache_copy, put_bulk, put_error, put_int, put_null, put_nested_bulk, put_nested_null, begin_array, end_reply, put_ok,
    put_reply, parse_int64, format_int64, slot_of,
)

from kache.wire.link cimport (
    DEFERRED_ABORTED_FORM, DEFERRED_LARGE_FORM, DEFERRED_TIMED_FORM, DROP_PARTS,
    FLAG_ATOMIC, FLAG_NO_TOUCH, FLAG_RELEASE, FLAG_TRACK, FLAG_UPLOADED,
    FLAG_WATCHED, FRAME_HEADER, FLAG_DIVIDED,
    IN_CAPITALS, LARGE, LINK_CANCEL, LINK_CREDIT, LINK_DEFERRED, LINK_HELLO, LINK_HELLO_NO, LINK_HELLO_OK, LINK_NOTICE,
    LINK_DENIED, LINK_PART, LINK_PUBLISHED, LINK_PUSH, LINK_RECEIVED, LINK_REPLY, LINK_RETRY, LINK_RUN, LINK_SLOW, LINK_SLOW_PART, LINK_UNBLOCK,
    LINK_UNDELIVERED, LINK_VERSION, LOCK_BUSY, LOCK_CHECKS, LOCK_DIRTY, LOCK_LOG_IS_SLOW, LOCK_EXTENDS, LOCK_GRANTED, LOCK_NEEDS_ROOM,
    LOCK_WAITS, NOTICE_DRAINING, NOTICE_READY, NO_TRANSACTION, PART_HEADER, REPLY_ABORTED, REPLY_BLOCKED, REPLY_EXPIRED,
    REPLY_HEADER, REPLY_LARGE, REPLY_MARKS, REPLY_PARKED, RUN_COUNT_AT, RUN_DB_AT, RUN_DEADLINE_AT, RUN_DIALECT_AT,
    PUBLISHED_BROKEN, PUBLISHED_CHANNEL, PUBLISHED_FLUSH, PUBLISHED_HEADER, PUBLISHED_KEY, PUBLISHED_MONITOR,
    PUBLISHED_PATTERN, PUBLISHED_SHARD_CHANNEL, SUBSCRIBED_KINDS, PLACED, REPLY_PLACED,
    RUN_FLAGS_AT, RUN_HEADER, RUN_KIND_AT, RUN_REST_AT, RUN_SESSION_AT, RUN_TRANSACTION_AT,
    RUN_OF_NOBODY, RUN_USER_AT,
)

from .limits cimport CLASS_NORMAL, CLASS_PUBSUB, Limits
from .slot_map cimport SLOTS, SlotMap
from .table cimport (
    CHOOSES_BITFIELD, CHOOSES_NOTHING, CHOOSES_SET, HEARS_CHANNELS, HEARS_NOTHING, HEARS_ONE, HEARS_PATTERNS, KeyRights,
    FOLD_CONCAT, FOLD_IN_ORDER, FOLD_OK, FOLD_SUM, ROUTE_ALL, ROUTE_CONTAINER, ROUTE_CURSOR, ROUTE_LOCAL, ROUTE_MOVE, Command, CommandTable, c_text,
    count_local, latency_of, reset_command, short_word, unknown_command, unknown_subcommand, wrong_arity,
)

from hashlib import blake2b

from kache.acl.catalogue import CATALOGUE
from kache.cluster.tallies import ADDRESS_WORDS, USER_WORDS
from kache.acl.record import default_user
from kache.acl.rules import with_password
from kache.commands import CONTAINERS, DIGEST, TABLE, keys_of
from kache.errors import CommandError
from kache.glob import compile_glob
from kache.replies import NULL_ARRAY, Messages, Missing, Pairs, Push
from kache.slots import contiguous
from kache.commands.redact import redacted
from kache.commands.extract import block_position, count_is_usable, located, other_keys_of_sort
from kache.timeouts import block_ms, timeout_ms

from ..cluster.splitting import joined
from kache.acl.inner import rights_of
from ..accounts import Accounts, origin
from ..registry import MERGES, UNBLOCKED, NeedsMove, ShardLeaves
from ..scatter.lead import lead
from ..scatter.outcome import failure_of
from ..scatter.scripts import run_script
from ..slowlog import SlowLog, unframed, unpacked

__all__ = ["Acceptor", "Backend", "Link", "Node", "Remote", "ReplyScanner", "Router", "Session", "Split", "give_memory_back", "prepare"]

log = logging.getLogger("kache.router")

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <stddef.h>
    #include <stdio.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <unistd.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif

    static void kache_tune(int fd, int keepalive_seconds) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (keepalive_seconds > 0) {
            int third = keepalive_seconds / 3 > 0 ? keepalive_seconds / 3 : 1, probes = 3;
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    #ifdef TCP_KEEPIDLE
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive_seconds, sizeof keepalive_seconds);
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &third, sizeof third);
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    #elif defined(TCP_KEEPALIVE)
            setsockopt(fd, IPPROTO_TCP, TCP_KEEPALIVE, &keepalive_seconds, sizeof keepalive_seconds);
    #endif
        }
    }
    /* "host:port" of one end of a socket into out, "path:0" of both ends of a Unix socket, as in Redis; returns its
       length, 0 when there is none. */
    static int kache_name(int fd, int peer, char *out, int size) {
        struct sockaddr_storage a;
        socklen_t n = sizeof a;
        char host[INET6_ADDRSTRLEN];
        if ((peer ? getpeername(fd, (struct sockaddr *) &a, &n) : getsockname(fd, (struct sockaddr *) &a, &n)) < 0)
            return 0;
        if (a.ss_family == AF_INET) {
            struct sockaddr_in *v4 = (struct sockaddr_in *) &a;
            inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
            return snprintf(out, size, "%s:%d", host, ntohs(v4->sin_port));
        }
        if (a.ss_family == AF_INET6) {
            struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) &a;
            inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
            return snprintf(out, size, "[%s]:%d", host, ntohs(v6->sin6_port));
        }
        if (a.ss_family == AF_UNIX) {
            struct sockaddr_un *local = (struct sockaddr_un *) &a;
            n = sizeof a;
            if (getsockname(fd, (struct sockaddr *) &a, &n) < 0)
                return 0;
            n -= offsetof(struct sockaddr_un, sun_path);
            return snprintf(out, size, "%.*s:0", (int) strnlen(local->sun_path, n), local->sun_path);
        }
        return 0;
    }
    /* Tells a connection why it is refused when there is no descriptor to keep it on. */
    static int kache_refuse(int listener, const char *text) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) return -1;
        send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
        shutdown(fd, SHUT_WR);
        close(fd);
        return 0;
    }
    #ifdef __GLIBC__
    #include <malloc.h>
    /* The buffers of large replies and requests are mappings of their own, also after the first was freed. */
    static void kache_large_blocks_apart(void) {
        mallopt(M_MMAP_THRESHOLD, 262144);
        mallopt(M_TRIM_THRESHOLD, 4194304);
        mallopt(M_TOP_PAD, 1048576);
    }
    static void kache_trim(void) { malloc_trim(1048576); }
    #else
    static void kache_large_blocks_apart(void) {}
    static void kache_trim(void) {}
    #endif
    static int kache_end_sending(int fd) { return shutdown(fd, SHUT_WR); }
    static int kache_spare(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
    """
    void kache_tune(int fd, int keepalive_seconds) nogil
    int kache_name(int fd, int peer, char* out, int size) nogil
    int kache_refuse(int listener, const char* text) nogil
    int kache_end_sending(int fd) nogil
    int kache_spare() nogil
    void kache_large_blocks_apart() nogil
    void kache_trim() nogil
    int close_fd "close"(int fd) nogil

def give_memory_back():
    """From here on what large replies and requests took goes back to the system when they are gone; for the process."""
    kache_large_blocks_apart()


cdef list PREPARED = []     # the table of commands of the first router


def prepare():
    """Makes what is the same in every router, for the first one in this process or in one that is forked from it: to make it
    touches every row of the table of commands, and what is not touched behind a fork is common."""
    if not PREPARED:
        PREPARED.append(CommandTable(TABLE, CONTAINERS.values()))


cdef bytes TIMED_OUT = b"TIMEOUT the shard did not answer in time; the command was executed once or not at all"
cdef bytes BUSY_SCRIPT = b"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
cdef bytes BUSY_FUNCTION = b"BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
cdef bytes OVERLOADED = b"TRYAGAIN too many commands wait for this shard; nothing was executed"
cdef bytes LINK_LOST = b"UNCERTAIN the shard was lost before it answered; the command was executed once or not at all"
cdef bytes MOVED = b"TRYAGAIN the shard of this key has changed or was lost meanwhile; nothing was executed"
cdef bytes LEAVING_TEXT = b"TRYAGAIN the shard is being restarted; nothing was executed"
cdef bytes NO_AUTH = b"NOAUTH Authentication required."
cdef bytes INTERNAL_ERROR = b"ERR internal error"

include "pending.pxi"
include "order.pxi"
include "backend.pxi"
include "weave.pxi"
include "gather.pxi"
include "placed.pxi"
include "link.pxi"
include "node.pxi"
include "remote.pxi"
include "divided.pxi"
include "planned.pxi"
include "blocked.pxi"
include "scripts.pxi"
include "upload.pxi"
include "transactions.pxi"
include "blocks.pxi"
include "channels.pxi"
include "tracking.pxi"
include "monitor.pxi"
include "permits.pxi"
include "session.pxi"
include "clients.pxi"
include "quotas.pxi"
include "shards.pxi"
include "counters.pxi"
include "timers.pxi"
include "accept.pxi"
include "router.pxi"
