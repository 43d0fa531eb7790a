# cython: language_level=3
"""Declarations of a router's limits (see limits.pyx)."""
cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class Limits:
    """The settings that are read per frame or per reply, as C numbers. Times are milliseconds."""
    cdef int64_t request_timeout, command_timeout, idle_timeout, preauth_timeout, soft_output_ms
    cdef int keepalive                                  # seconds
    cdef int max_clients                                # of all routers together
    cdef bint auth_required                             # of new clients
    # One request, and what a client may have unanswered
    cdef Py_ssize_t max_frame, max_strings, max_bulk, query_limit, preauth_bytes, preauth_commands
    cdef Py_ssize_t session_commands, session_bytes
    # What waits for one shard, and the replies that wait for one client and for all
    cdef Py_ssize_t link_soft_commands, link_hard_commands, link_soft_bytes, link_hard_bytes
    cdef Py_ssize_t output_soft_bytes, output_hard_bytes, output_total
    cdef int apply(self, object config) except -1
