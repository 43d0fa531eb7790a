# cython: language_level=3
"""Declarations of a router's limits (see limits.pyx)."""
cimport cython
from libc.stdint cimport int64_t


cdef enum:
    # Classes of clients, of those that client-output-buffer-limit knows.
    CLASS_NORMAL = 0
    CLASS_PUBSUB = 1            # it was sent something out of band


@cython.final
cdef class Limits:
    """The settings that are read per frame or per reply, as C numbers. Times are milliseconds."""
    cdef int64_t transaction_hold                       # how long locks keep others out before their share is sent
    cdef bint logged                                    # shards log what they change
    cdef int64_t request_timeout, command_timeout, idle_timeout, preauth_timeout, soft_output_ms
    cdef int64_t handshake_timeout                      # of TLS
    cdef int64_t[2] output_over_ms                      # how long a client of a class may be over its soft limit
    cdef int keepalive                                  # seconds
    cdef int max_clients                                # of all routers together
    cdef int64_t slow_ns                                # from which a command enters the slow log
    # One request, and what a client may have unanswered
    cdef Py_ssize_t max_frame, max_strings, max_bulk, query_limit, preauth_bytes, preauth_commands
    cdef Py_ssize_t session_commands, session_bytes
    # What waits for one shard
    cdef Py_ssize_t link_soft_commands, link_hard_commands, link_soft_bytes, link_hard_bytes
    # What all clients of this router may cost, and the unread replies of one (client-output-buffer-limit; 0: no limit)
    cdef Py_ssize_t budget
    cdef Py_ssize_t flow_room           # of large replies that wait in one shard for their clients
    cdef Py_ssize_t[2] output_hard, output_soft
    # The settings hold for a router that is one of `routers`.
    cdef int apply(self, object config, int routers) except -1
