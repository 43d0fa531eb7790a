"""The router's compiled data path: clients on one side, shards on the other, replies in order.

Owns every client connection and every link to a shard. Python is called for what is not hot: local
commands, splitting and merging (`local.py`, `planner.py`, `merges.py`, `moves.py`), never per frame.

      client bytes                                                             shard
  ----------> Session: sniff, frame, look up, slot ---> Link: RUN header | frames ------>
  <---------- Session: replies in place  <------------- Link: REPLY | replies  <---------

Two queues keep the order; no request carries an id.

      Session.order   what comes next for this client         Link.expected   whom the next replies are for
      +----+----+-------+----+                                +--------------+--------------+
      | s0 | s2 | local | s0 | ...                            | session 7 x3 | session 9 x1 | ...
      +----+----+-------+----+                                +--------------+--------------+
        ^ the head decides: a reply of s2 waits in held[2]       ^ a shard answers in the order of its link,
          until the head is s2, then leaves at once                so the head owns the next reply

Invariant: for every shard i, the entries "s_i" in a session's order are exactly its replies still
expected from link i (or already in held[i]), in the same order on both sides. Whatever removes an
entry on one side answers it on the other: a lost link answers what it expected, a timed-out run is
answered and its late replies are swallowed, a vanished session's replies are dropped on arrival.

Parts, each an included file of one responsibility:

    table.pxi     the command table as a C hash table; the texts of refusals
    pending.pxi   replies that are made later: calls, split commands, coroutines
    gather.pxi    the split commands merged without Python: DEL, EXISTS, MSET, MGET and their like
    link.pxi      one connection to one shard: runs out, replies in, deadlines
    order.pxi     the reply side of a client: order, held replies, output limits
    session.pxi   the request side of a client: sniffing, framing, routing, back-pressure
    planned.pxi   commands over several shards that the planner divides or a coroutine leads
    router.pxi    all of them together: settings, links, timers
    accept.pxi    the client port
    statistics.pxi  counters
"""
import asyncio
import logging
import socket
from collections import deque
from select import POLLIN, poll
from types import CoroutineType

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EMFILE, ENFILE, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from kache.wire.clock cimport Clock, monotonic_ns
from kache.wire.reactor cimport Endpoint, Listener, Reactor
from kache.wire.codec cimport (
    BINARY, BROKEN, EMPTY, FRAME, INTERNAL, NEED_MORE, NO_SLOT, RESP2, Buffer, RequestParser,
    Span, decode_span, kache_copy, put_error, put_int, put_nested_bulk, put_nested_null, begin_array, end_reply, put_ok,
    put_reply, parse_int64, slot_of,
)

from kache.wire.link cimport (
    FLAG_NO_TOUCH, FRAME_HEADER, LINK_CANCEL, LINK_DEFERRED, LINK_HELLO, LINK_HELLO_NO, LINK_HELLO_OK, LINK_NOTICE, LINK_PUSH,
    LINK_REPLY, LINK_RUN, LINK_VERSION, NOTICE_DRAINING, NOTICE_READY, REPLY_DEFERRED, REPLY_EXPIRED, REPLY_HEADER, RUN_HEADER,
)

from kache.commands import CONTAINERS, DIGEST, TABLE
from kache.errors import CommandError
from kache.replies import Missing

from ..scatter.outcome import failure_of
from ..registry import LOCALS, MERGES, MOVES, NeedsMove

__all__ = ["Acceptor", "Link", "Router", "Session", "Split"]

log = logging.getLogger("kache.router")

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <string.h>
    #include <sys/socket.h>
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
    /* "host:port" of one end of a socket into out; returns its length, 0 when there is none. */
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
    static int kache_end_sending(int fd) { return shutdown(fd, SHUT_WR); }
    static int kache_spare(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
    """
    void kache_tune(int fd, int keepalive_seconds) nogil
    int kache_name(int fd, int peer, char* out, int size) nogil
    int kache_refuse(int listener, const char* text) nogil
    int kache_end_sending(int fd) nogil
    int kache_spare() nogil
    int close_fd "close"(int fd) nogil

# What stands in Session.order: a shard's number, or one of these; the top bit drops the reply (CLIENT REPLY).
cdef enum:
    FROM_LOCAL = 0x7FFF
    FROM_PENDING = 0x7FFE
    SOURCE = 0x7FFF
    SILENT = 0x8000
    MAX_SHARDS = 256

cdef bytes TIMED_OUT = b"TIMEOUT the shard did not answer in time; the command was executed once or not at all"
cdef bytes OVERLOADED = b"TRYAGAIN too many commands wait for this shard; nothing was executed"
cdef bytes LINK_LOST = b"UNCERTAIN the shard was lost before it answered; the command was executed once or not at all"
cdef bytes NO_AUTH = b"NOAUTH Authentication required."
cdef bytes INTERNAL_ERROR = b"ERR internal error"

cdef class Router(Reactor)
cdef class Replies(Endpoint)
cdef class Session(Replies)
cdef class Link(Endpoint)
cdef class Pending

include "table.pxi"
include "pending.pxi"
include "gather.pxi"
include "link.pxi"
include "order.pxi"
include "session.pxi"
include "planned.pxi"
include "router.pxi"
include "accept.pxi"
include "statistics.pxi"
