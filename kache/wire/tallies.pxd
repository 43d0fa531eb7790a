# cython: language_level=3
"""Declarations of what processes count together (see tallies.pyx)."""
cimport cython
from libc.stdint cimport int64_t, uint64_t


@cython.final
cdef class Tallies:
    """A line of numbers for each key, of every process that counts."""
    cdef Py_buffer shared
    cdef uint64_t* cells                # points into it
    cdef Py_ssize_t words, count        # of a cell with its key; cells of a process
    cdef Py_ssize_t processes, place    # how many there are, and which of them this one is
    # The numbers of a key that a process has, behind its key; NULL: it has none. Only one's own may be written.
    cdef int64_t* of(self, Py_ssize_t process, uint64_t key) noexcept
    cdef int64_t* mine(self, uint64_t key) noexcept                 # made if they are not there; NULL: no room
    cdef int64_t total(self, uint64_t key, Py_ssize_t word) noexcept
    cdef int drop(self, uint64_t key) noexcept                      # this process counts nothing for the key any more
