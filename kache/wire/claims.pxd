# cython: language_level=3
"""Declarations of the cells by which one of several shards serves a waiting client (see claims.pyx)."""
from libc.stdint cimport uint64_t


cdef class Claims:
    cdef Py_buffer shared
    cdef uint64_t* cells
    cdef readonly Py_ssize_t count
    cdef list free
    cdef Py_ssize_t first, next, end    # of a router: its cells, and the first that it has never used
