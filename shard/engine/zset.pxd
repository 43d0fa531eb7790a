"""Declarations of the value of a sorted set (see zset.pyx and ranks.pxi), and what of it is small enough to be inline.

To look at all members in C, in order: the leaves from `ranks_first(&value.ranks)` on, each one's `next` until it is NULL;
`pairs` of a leaf are `count`. From a rank on: `ranks_at`.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .entry cimport Entry, entry_value
from .memory cimport table_hash
from .packed cimport packed_count
from .table cimport Table, table_find

cdef enum:
    ADDED = 1
    RESCORED = 0
    SAME = -1

cdef enum:
    FAN = 64                    # pairs in a leaf, children of a branch
    SMALLEST_LEAF = 4           # the only leaf of a small set grows from this
    DEEPEST = 64                # far more levels than four thousand million pairs can need

cdef struct Pair:
    double score
    Entry* entry

cdef struct Leaf:
    uint32_t count
    uint32_t capacity
    Leaf* previous
    Leaf* next
    Pair[1] pairs               # `capacity` of them

ctypedef void* Node             # a Leaf or a Branch

cdef struct Branch:
    uint32_t count
    uint32_t[FAN] sizes         # pairs below each child
    Pair[FAN] firsts            # the first pair below each child
    Node[FAN] children

cdef struct Ranks:
    Node root                   # a Leaf at height 0, else a Branch; NULL when there is nothing
    uint32_t height
    uint32_t fan                # FAN; less in tests, at least 4
    uint32_t count
    int64_t memory              # bytes of all nodes

cdef struct Step:
    # One level of the way from the root to a leaf: the child that was taken.
    Branch* branch
    uint32_t at

cdef struct Bound:
    # A place between pairs: before (side -1) or behind (side 1) all pairs of a score, or just before a
    # (score, member) (side 0), whether there is such a pair or not.
    double score
    const char* key
    size_t n
    int side


cdef uint32_t ranks_before(Ranks* ranks, const Bound* bound) noexcept nogil
cdef Leaf* ranks_at(Ranks* ranks, uint32_t rank, Step* path, uint32_t* at) noexcept nogil


cdef inline double entry_score(Entry* entry) noexcept nogil:
    cdef double score
    memcpy(&score, entry_value(entry), sizeof(score))
    return score


cdef inline Bound bound_of(double score, const char* key, size_t n) noexcept nogil:
    cdef Bound bound
    bound.score = score
    bound.key = key
    bound.n = n
    bound.side = 0
    return bound


cdef inline Leaf* ranks_first(Ranks* ranks) noexcept nogil:
    """The first leaf, or NULL."""
    cdef Node node = ranks.root
    cdef uint32_t level
    for level in range(ranks.height):
        node = (<Branch*> node).children[0]
    return <Leaf*> node


@cython.final
cdef class ZSet:
    cdef Table table
    cdef Ranks ranks
    cdef int64_t bytes_used         # of everything but the tree
    cdef readonly bint packed       # it is the copy of a packed one (packed.pxd), for readers; its members are in `block`
    cdef char* block                # and in neither table nor tree
    cdef size_t block_size

    cdef inline Entry* entry_of(self, const char* member, size_t n) noexcept:
        return table_find(&self.table, table_hash(member, n), member, n)

    cdef inline int64_t size_in_memory(self) noexcept:
        return self.bytes_used + self.ranks.memory

    cdef inline uint32_t count(self) noexcept:
        return packed_count(self.block) if self.packed else <uint32_t> self.table.count

    cdef int take_packed(self, const char* block, size_t n) except -1
    cdef int unpack(self) except -1
    cdef bint find_score(self, const char* member, size_t n, double* score) noexcept
    cdef uint32_t before(self, const Bound* bound) noexcept
    cdef int64_t rank_of(self, const char* member, size_t n) noexcept
    cdef list collect_packed(self, Py_ssize_t start, Py_ssize_t stop, bint with_scores)
    cdef list collect(self, Py_ssize_t start, Py_ssize_t stop, bint with_scores)

    cdef int put(self, const char* member, size_t n, double score) except -2
    # Before and behind filling it with about so many members, whose order may be that of another table.
    cdef int reserve(self, uint64_t expected) except -1
    cdef int settle(self) except -1
    cdef bint take(self, const char* member, size_t n) noexcept
    cdef list cut(self, Py_ssize_t start, Py_ssize_t stop, bint wanted)

    cdef void forget(self, uint64_t hash, Entry* entry) noexcept
    cdef bint free_some(self, Py_ssize_t count) noexcept nogil
