# cython: language_level=3
"""The interface of users' rights (see rights.pyx), for the router's frames and for what runs inside a shard."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    MAY_READ = 1             # kache.acl.record.READ and WRITE
    MAY_WRITE = 2

    # Kinds of patterns: most are a prefix.
    MATCHES_GLOB = 0
    MATCHES_ALL = 1
    MATCHES_EXACT = 2
    MATCHES_PREFIX = 3
    MATCHES_SUFFIX = 4


cdef struct Pattern:
    uint8_t kind
    uint8_t rights
    const char* text         # of a prefix and a suffix without its star
    Py_ssize_t size


cdef struct Rights:
    # One selector.
    bint all_commands, all_keys, all_channels
    uint64_t* rows           # a bit for each row of the command table
    Py_ssize_t words         # of it
    Pattern* keys
    Py_ssize_t key_count
    Pattern* channels
    Py_ssize_t channel_count


@cython.final
cdef class User:
    cdef readonly bytes name
    cdef readonly object record          # the UserRecord that it follows
    cdef readonly uint32_t number
    cdef readonly bint enabled, nopass
    cdef readonly bint unrestricted      # it may do everything: no check is needed
    cdef readonly bint gone              # it was deleted
    # What it may take (kache.acl.record.Limits): 0: as much as it likes.
    cdef readonly bint paced             # commands or bytes a second are limited
    cdef readonly int64_t most_clients, most_commands, most_input, most_memory
    cdef Rights* selectors               # tried in turn
    cdef Py_ssize_t count
    cdef list firsts                     # by selector: {row: first arguments that are allowed}
    cdef list keep                       # what the C pointers point into
    cdef int take(self, object record) except -1
    cdef int leave(self) except -1


@cython.final
cdef class Users:
    cdef readonly dict by_name, by_number
    cdef readonly User default
    cdef readonly User metrics           # of the metrics process; in no list
    cdef readonly uint64_t epoch


# Whether a selector allows a command by its row; `first` is its first argument, NULL without one.
cdef bint may_run(User user, Py_ssize_t selector, Py_ssize_t row, const char* first, Py_ssize_t size) except -1
# Whether it allows `wanted` (MAY_READ | MAY_WRITE; 0: it is enough to know the key) of a key.
cdef bint may_touch(Rights* rights, const char* key, Py_ssize_t size, int wanted) noexcept nogil
# Whether it allows a channel, or a pattern of channels, which must be allowed literally.
cdef bint may_hear(Rights* rights, const char* channel, Py_ssize_t size, bint literal) noexcept nogil
# Whether it allows `wanted` of every key.
cdef bint may_touch_all(Rights* rights, int wanted) noexcept nogil
# A glob as kache.glob means it, without recursion, and without going back behind the last star.
cdef bint glob_matches(const char* pattern, Py_ssize_t m, const char* text, Py_ssize_t n) noexcept nogil
