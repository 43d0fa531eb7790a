# cython: language_level=3
"""Declarations of the memory of a link for the other compiled modules (see area.pyx)."""
from libc.stdint cimport uint64_t

cdef enum:
    PLACED_FROM = 16384         # bytes of an argument or a reply from which it is placed, if there is room


cdef class Area:
    """One end of the memory of a link: what is placed here, the other end takes, in the same order."""
    cdef char* memory
    cdef Py_ssize_t size
    cdef Py_ssize_t room                # bytes of each of the two rings
    cdef char* ours                     # the ring that is written here
    cdef char* theirs                   # and the one that is read
    cdef uint64_t* limit                # how much of each ring may be used; the router says it
    cdef uint64_t* taken_there          # up to where the other end has taken what is placed here
    cdef uint64_t* taken_here           # and this end what is placed there
    cdef uint64_t written, read         # positions: behind what was placed here, behind what was taken
    cdef Py_ssize_t reached             # bytes of both rings that have been in use since `give_back`
    cdef Py_ssize_t reached_here, reached_there
    cdef int map(self, int fd, Py_ssize_t size, bint router) except -1
    # Where n bytes go that the other end is told of by `position`; NULL: there is no room now.
    cdef char* place(self, Py_ssize_t n, uint64_t* position) noexcept
    # The n bytes that the other end has placed at `position`; NULL when nothing can lie there.
    cdef const char* find(self, uint64_t position, Py_ssize_t n) noexcept
    # They are not needed any more, nor is what was placed before them.
    cdef void take(self, uint64_t position, Py_ssize_t n) noexcept
    # For the router: how much may be used from now on; pages are given back while nothing is on its way.
    cdef void allow(self, Py_ssize_t bytes) noexcept
    cdef void give_back(self) noexcept


# Bytes of one with rings of `room` bytes.
cdef Py_ssize_t area_size(Py_ssize_t room) noexcept
# A new one, to be told to the shard together with `hello`, the first message, which is sent at once. None where there is no
# such memory, or the socket does not take it: then nothing was sent.
cdef Area offer_area(int fd, const char* hello, Py_ssize_t n, Py_ssize_t room)
# The one that a router has offered by this descriptor, which is closed; None if it is none.
cdef Area accept_area(int fd, uint64_t size)
