# cython: language_level=3
"""Declarations of the heap that the engine's blocks lie in (see blocks.pyx)."""
from libc.stdint cimport int64_t

cdef void* block_new(size_t n) noexcept nogil
cdef void* block_grown(void* block, size_t n) noexcept nogil
cdef void block_free(void* block) noexcept nogil
cdef size_t block_room(void* block) noexcept nogil

# Moving what lies in sparse slabs.
cdef bint block_is_sparse(void* block) noexcept nogil
cdef void* block_moved(void* block) noexcept nogil
cdef int64_t heap_holes() noexcept nogil
cdef int64_t heap_bytes() noexcept nogil

# Now and then, and of other threads.
cdef bint cool_down() noexcept nogil
cdef void free_elsewhere() noexcept nogil
cdef bint collect_freed(int64_t count) noexcept nogil
cdef bint give_back(int64_t keep) noexcept nogil
