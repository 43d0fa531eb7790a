"""ZSet: the value of a sorted set. Its members are entries in a table, as a hash's fields are, and their value is the
score (8 bytes, a double); beside it a tree of pairs knows their order (ranks.pxi).

Owns its entries, their table and the tree. Readers are for the commands; what changes a set is called by the keyspace
alone, which accounts `memory`. Removing never fails for want of memory. What adds a member or changes a score raises
MemoryError before it has changed any; only `memory` may differ then, as room that was made is kept.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy, memmove, memset

from .entry cimport entry_key, entry_key_size, entry_memory, entry_new, key_bytes
from .memory cimport free, kache_block_size, kache_malloc, kache_realloc
from .packed cimport (
    HEADER, TEXT, Item, compare_texts, find_item, item_of, item_score, item_span, item_text, skip_items,
)
from kache.wire.codec cimport Span
from .table cimport (
    SCAN_BITS,
    Walk,
    scan_table,
    segment_find,
    segment_of,
    table_check,
    table_free_some,
    table_insert,
    table_remove,
    table_reserve,
    table_room,
    table_settle,
    table_storage,
    table_walk,
    walk_next,
)

cdef int64_t ZSET_SIZE = 0

include "ranks.pxi"


@cython.final
cdef class ZSet:
    """Members with scores, ordered by score, then by the member's bytes.

    Promises, for n members: a score in O(1), adding, removing, a rank and the member at a rank in O(log n),
    k neighbours in O(log n + k), a scan with Redis's guarantee. A member costs some 60 bytes beyond its own.
    Ranks are not negative and a `stop` is exclusive. `fan` is the most that a node of the tree holds, 4 to 64: for tests.
    """

    def __cinit__(self, *args, **kwargs):
        memset(&self.table, 0, sizeof(Table))
        memset(&self.ranks, 0, sizeof(Ranks))
        self.ranks.fan = FAN
        self.bytes_used = ZSET_SIZE
        self.packed = False

    def __init__(self, pairs=(), *, int fan=FAN):
        """The pairs are (member, score), a later one of the same member in the place of an earlier."""
        if not 4 <= fan <= FAN:
            raise ValueError(f"a node holds 4 to {FAN} places, not {fan}")
        self.ranks.fan = fan
        for member, score in pairs:
            self.add(member, score)

    def __dealloc__(self):
        while self.free_some(1 << 30):
            pass

    # Packed -------------------------------------------------------------------------------------------
    cdef int take_packed(self, const char* block, size_t n) except -1:
        """An empty set becomes a copy of a packed one."""
        self.block = <char*> kache_malloc(n)
        if self.block == NULL:
            raise MemoryError("no memory for a sorted set")
        memcpy(self.block, block, n)
        self.block_size = n
        self.packed = True
        self.bytes_used += kache_block_size(self.block)
        return 0

    cdef int unpack(self) except -1:
        """Its members in a table and a tree from here on. MemoryError: it has some of them there, and is of no use."""
        cdef const char* at = self.block + HEADER
        cdef const char* end = self.block + self.block_size
        cdef char[TEXT] scratch
        cdef Span member
        if not self.packed:
            return 0
        self.packed = False
        self.reserve(packed_count(self.block))
        while at < end:
            # In order, so each is added behind the others.
            member = item_text(at, scratch)
            at += item_span(at)
            self.put(member.data, member.size, item_score(at))
            at += item_span(at)
        self.bytes_used -= kache_block_size(self.block)
        free(self.block)
        self.block = NULL
        return 0

    # Reading ------------------------------------------------------------------------------------------
    def __len__(self):
        return self.count()

    def __contains__(self, bytes member not None):
        cdef double score
        return self.find_score(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), &score)

    cdef bint find_score(self, const char* member, size_t n, double* score) noexcept:
        """Whether there is such a member; its score."""
        cdef Item item
        cdef const char* at
        cdef Entry* entry
        if self.packed:
            item = item_of(member, n)
            at = find_item(self.block + HEADER, self.block + self.block_size, &item, True)
            if at != NULL:
                score[0] = item_score(at + item_span(at))
            return at != NULL
        entry = self.entry_of(member, n)
        if entry != NULL:
            score[0] = entry_score(entry)
        return entry != NULL

    def score(self, bytes member not None):
        """The member's score, None if absent."""
        cdef double score
        return score if self.find_score(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), &score) else None

    cdef uint32_t before(self, const Bound* bound) noexcept:
        """How many pairs lie before the bound."""
        cdef const char* at
        cdef const char* end
        cdef const char* behind
        cdef char[TEXT] scratch
        cdef Span text
        cdef double met
        cdef uint32_t n = 0
        if not self.packed:
            return ranks_before(&self.ranks, bound)
        at = self.block + HEADER
        end = self.block + self.block_size
        while at < end:
            behind = at + item_span(at)
            met = item_score(behind)
            if met > bound.score or (met == bound.score and bound.side < 0):
                break
            if met == bound.score and bound.side == 0:
                text = item_text(at, scratch)
                if compare_texts(text.data, text.size, bound.key, bound.n) >= 0:
                    break
            at = behind + item_span(behind)
            n += 1
        return n

    cdef int64_t rank_of(self, const char* member, size_t n) noexcept:
        """-1: no such member."""
        cdef double score
        cdef Bound bound
        if not self.find_score(member, n, &score):
            return -1
        bound = bound_of(score, member, n)
        return self.before(&bound)

    def rank(self, bytes member not None):
        """How many members come before this one; None if it is absent."""
        cdef int64_t rank = self.rank_of(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))
        return None if rank < 0 else rank

    def by_rank(self, Py_ssize_t start, Py_ssize_t stop):
        """[(member, score)] of ranks [start, stop)."""
        return self.collect(start, stop, True)

    def names(self, Py_ssize_t start, Py_ssize_t stop):
        """[member] of ranks [start, stop)."""
        return self.collect(start, stop, False)

    def items(self):
        """All (member, score), in order."""
        return self.collect(0, self.count(), True)

    cdef list collect(self, Py_ssize_t start, Py_ssize_t stop, bint with_scores):
        cdef Step[DEEPEST] path
        cdef uint32_t at
        cdef Leaf* leaf
        cdef Entry* entry
        cdef list found = []
        stop = min(stop, <Py_ssize_t> self.count())
        if start >= stop:
            return found
        if self.packed:
            return self.collect_packed(start, stop, with_scores)
        leaf = ranks_at(&self.ranks, <uint32_t> start, path, &at)
        for _ in range(stop - start):
            if at == leaf.count:
                leaf = leaf.next
                at = 0
            entry = leaf.pairs[at].entry
            found.append((key_bytes(entry), leaf.pairs[at].score) if with_scores else key_bytes(entry))
            at += 1
        return found

    cdef list collect_packed(self, Py_ssize_t start, Py_ssize_t stop, bint with_scores):
        cdef const char* at = skip_items(self.block + HEADER, 2 * <uint32_t> start)
        cdef char[TEXT] scratch
        cdef Span text
        cdef list found = []
        for _ in range(stop - start):
            text = item_text(at, scratch)
            at += item_span(at)
            member = PyBytes_FromStringAndSize(text.data, text.size)
            found.append((member, item_score(at)) if with_scores else member)
            at += item_span(at)
        return found

    def rank_of_pair(self, double score, bytes member not None):
        """How many pairs sort before (score, member), which need not exist."""
        cdef Bound bound = bound_of(score, PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))
        return self.before(&bound)

    def score_span(self, double low, bint low_open, double high, bint high_open):
        """Ranks [start, stop) of the scores between two ends, each left out if open; (0, 0) when there are none."""
        cdef Bound bound = bound_of(low, NULL, 0)
        cdef uint32_t start, stop
        bound.side = 1 if low_open else -1
        start = self.before(&bound)
        bound.score = high
        bound.side = -1 if high_open else 1
        stop = self.before(&bound)
        if start >= stop:
            return 0, 0
        return start, stop

    def scan(self, uint64_t cursor, Py_ssize_t count):
        """(next cursor, [(member, score)]): about `count` of them; cursor 0 is the start and the end.

        A member that is there from the first call to the last is returned, whatever else changes meanwhile,
        its own score included; it may be returned twice. What is packed is returned whole.
        """
        cdef list found = []
        cdef list pairs = []
        cdef uint64_t following = cursor
        cdef double score
        if self.packed:
            return 0, self.items()
        if cursor >> SCAN_BITS:
            return 0, pairs
        following = scan_table(&self.table, cursor, &count, found, True, -1, 0)
        for member, value in found:
            memcpy(&score, PyBytes_AS_STRING(<bytes> value), sizeof(score))
            pairs.append((member, score))
        return (0 if following >> SCAN_BITS else following), pairs

    @property
    def memory(self):
        """Bytes of the set with everything in it."""
        return self.size_in_memory()

    # Changing: for the keyspace -----------------------------------------------------------------------
    cdef int put(self, const char* member, size_t n, double score) except -2:
        """ADDED, RESCORED, or SAME: it had this score. The score is no NaN. MemoryError: nothing is changed."""
        cdef uint64_t hash = table_hash(member, n)
        cdef Entry* entry = table_find(&self.table, hash, member, n)
        cdef double old
        score += 0.0                    # -0.0 becomes 0.0, as the real server's compact form stores it
        if entry != NULL:
            old = entry_score(entry)
            if old == score:
                return SAME
            if ranks_rescore(&self.ranks, old, score, entry) < 0:
                raise MemoryError("no memory for a score")
            memcpy(entry_value(entry), &score, sizeof(score))
            return RESCORED
        entry = entry_new(member, n, <char*> &score, sizeof(score), 0, 0, 0)
        if entry == NULL or table_room(&self.table, hash, &self.bytes_used) < 0 or (
            ranks_add(&self.ranks, score, entry) < 0
        ):
            free(entry)
            raise MemoryError("no memory for a member")
        table_insert(&self.table, hash, entry)
        self.bytes_used += entry_memory(entry)
        return ADDED

    cdef int reserve(self, uint64_t expected) except -1:
        if table_reserve(&self.table, expected, &self.bytes_used) < 0:
            raise MemoryError("no memory for a table")
        return 0

    cdef int settle(self) except -1:
        table_settle(&self.table, &self.bytes_used)
        return 0

    cdef void forget(self, uint64_t hash, Entry* entry) noexcept:
        """Frees a member that the tree does not know any more."""
        cdef uint64_t* word = segment_find(
            segment_of(&self.table, hash), hash, entry_key(entry), entry_key_size(entry))
        table_remove(&self.table, hash, word, &self.bytes_used)
        self.bytes_used -= entry_memory(entry)
        free(entry)

    cdef bint take(self, const char* member, size_t n) noexcept:
        """Removes a member; whether it was there."""
        cdef uint64_t hash = table_hash(member, n)
        cdef Entry* entry = table_find(&self.table, hash, member, n)
        if entry == NULL:
            return False
        ranks_remove(&self.ranks, entry_score(entry), entry)
        self.forget(hash, entry)
        return True

    cdef list cut(self, Py_ssize_t start, Py_ssize_t stop, bint wanted):
        """Removes ranks [start, stop); what they were, in order, if that is wanted. O(log n + k), k removed."""
        cdef Step[DEEPEST] path
        cdef Pair[FAN] gone
        cdef uint32_t at, i, n
        cdef Leaf* leaf
        cdef Entry* entry
        cdef list removed = self.collect(start, stop, True) if wanted else None
        stop = min(stop, <Py_ssize_t> self.table.count)
        while start < stop:
            leaf = ranks_at(&self.ranks, <uint32_t> start, path, &at)
            n = <uint32_t> min(leaf.count - at, stop - start)
            memcpy(gone, leaf.pairs + at, n * sizeof(Pair))
            ranks_cut(&self.ranks, leaf, at, n, path)
            for i in range(n):
                entry = gone[i].entry
                self.forget(table_hash(entry_key(entry), entry_key_size(entry)), entry)
            stop -= n
        return removed

    def add(self, bytes member not None, double score):
        """True: a new member. False: its score changed. None: it had this score already. The score is no NaN. All or nothing."""
        self.unpack()
        cdef int outcome = self.put(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member), score)
        return None if outcome == SAME else outcome == ADDED

    def remove(self, bytes member not None):
        """Whether the member was there."""
        self.unpack()
        return self.take(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))

    def delete_ranks(self, Py_ssize_t start, Py_ssize_t stop):
        """Removes ranks [start, stop) and returns them in order."""
        self.unpack()
        return self.cut(start, stop, True)

    @staticmethod
    def from_mapping(scores not None):
        """A set of these members. In order, for then the tree has full nodes."""
        cdef ZSet made = ZSet()
        for member, score in sorted(scores.items(), key=_by_score):
            made.add(member, score)
        return made

    def copy(self):
        """An independent copy. O(n)."""
        cdef ZSet made = ZSet()
        cdef Leaf* leaf
        cdef uint32_t at
        self.unpack()
        leaf = ranks_first(&self.ranks)
        while leaf != NULL:
            for at in range(leaf.count):
                made.put(entry_key(leaf.pairs[at].entry), entry_key_size(leaf.pairs[at].entry), leaf.pairs[at].score)
            leaf = leaf.next
        return made

    # Taking apart: for the cleanup thread -------------------------------------------------------------
    cdef bint free_some(self, Py_ssize_t count) noexcept nogil:
        """Frees about `count` members of a set nobody can reach. True while something is left."""
        free(self.block)
        self.block = NULL
        if table_free_some(&self.table, &count):
            return True
        # A leaf has as many pairs as a few dozen members, and is one block.
        return ranks_free_some(&self.ranks, &count)

    def release_some(self, Py_ssize_t count):
        """Frees about `count` members, without the GIL. True while something is left."""
        cdef bint more
        with nogil:
            more = self.free_some(count)
        return more

    def check(self):
        """Asserts every invariant."""
        cdef Walk walk = table_walk(&self.table)
        cdef int64_t total = ZSET_SIZE + table_storage(&self.table) + kache_block_size(self.block)
        cdef Entry* entry
        cdef Step[DEEPEST] path
        cdef uint32_t at
        cdef Leaf* leaf
        cdef Bound bound
        table_check(&self.table)
        ranks_check(&self.ranks)
        assert self.packed or self.block == NULL, "members in a block beside the table"
        assert self.ranks.count == self.table.count, "the tree and the table differ"
        while True:
            entry = walk_next(&walk)
            if entry == NULL:
                break
            total += entry_memory(entry)
            bound = bound_of(entry_score(entry), entry_key(entry), entry_key_size(entry))
            leaf = ranks_descend(&self.ranks, &bound, path, &at)
            assert at < leaf.count and leaf.pairs[at].entry == entry, "a member is not where its score says"
        assert total == self.bytes_used, f"a sorted set of {total} bytes says {self.bytes_used}"


def _by_score(pair):
    return pair[1], pair[0]


ZSET_SIZE = ZSet.__basicsize__ + 16
