"""FieldTable: the value of a hash or a set. The same tables and blocks as the keyspace's own.

Owns its entries, the table that finds them and the heap of their deadlines. Readers are for the commands; what changes
one is called by the keyspace alone, which accounts `memory` and removes fields past their deadline before it hands a
table out. Removing never fails. What adds or changes a field raises MemoryError before it has changed any; all that may
be different then is `memory`, as room that was made is kept.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy, memset

from .entry cimport (
    HAS_TTL,
    entry_deadline,
    entry_key,
    entry_key_size,
    entry_memory,
    entry_new,
    entry_room,
    entry_set_value_size,
    entry_time,
    entry_value,
    entry_value_size,
    key_bytes,
    value_bytes,
)
from .heap cimport Due, heap_add, heap_change, heap_check, heap_moved, heap_remove, heap_room
from .memory cimport free
from .table cimport (
    SCAN_BITS,
    POINTER_MASK,
    Walk,
    scan_table,
    segment_find,
    segment_of,
    table_check,
    table_free_some,
    table_insert,
    table_random,
    table_remove,
    table_reserve,
    table_room,
    table_settle,
    table_storage,
    table_walk,
    walk_next,
)

cdef int64_t FIELD_TABLE_SIZE = 0


@cython.final
cdef class FieldTable:
    """Fields of a hash, or members of a set (their values are empty), in C blocks."""

    def __cinit__(self, *args, **kwargs):
        memset(&self.table, 0, sizeof(Table))
        memset(&self.heap, 0, sizeof(Heap))
        self.bytes_used = FIELD_TABLE_SIZE

    def __dealloc__(self):
        while self.free_some(1 << 30):
            pass

    # Reading ------------------------------------------------------------------------------------------
    cdef Entry* entry_named(self, bytes field) noexcept:
        return self.entry_of(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))

    def __len__(self):
        return self.table.count

    def __contains__(self, bytes field not None):
        return self.entry_named(field) != NULL

    def get(self, bytes field not None):
        """The value of a field, or None."""
        cdef Entry* entry = self.entry_named(field)
        return None if entry == NULL else value_bytes(entry)

    def length(self, bytes field not None):
        """Bytes of a field's value, or None."""
        cdef Entry* entry = self.entry_named(field)
        return None if entry == NULL else entry_value_size(entry)

    def items(self):
        """[(field, value)]; the order is that of the table."""
        return self.collect(3)

    def fields(self):
        """[field], in the order of `items`."""
        return self.collect(1)

    def values(self):
        """[value], in the order of `items`."""
        return self.collect(2)

    def __iter__(self):
        return iter(self.collect(1))

    cdef list collect(self, int what):
        cdef Walk walk = table_walk(&self.table)
        cdef Entry* entry
        cdef list found = []
        while True:
            entry = walk_next(&walk)
            if entry == NULL:
                return found
            if what == 1:
                found.append(key_bytes(entry))
            elif what == 2:
                found.append(value_bytes(entry))
            else:
                found.append((key_bytes(entry), value_bytes(entry)))

    def random(self):
        """A field, each with nearly the same chance; IndexError when there is none."""
        cdef Entry* entry = table_random(&self.table)
        if entry == NULL:
            raise IndexError("no fields")
        return key_bytes(entry)

    def random_item(self):
        """A (field, value), each with nearly the same chance; IndexError when there is none."""
        cdef Entry* entry = table_random(&self.table)
        if entry == NULL:
            raise IndexError("no fields")
        return key_bytes(entry), value_bytes(entry)

    def scan(self, uint64_t cursor, Py_ssize_t count):
        """(next cursor, [(field, value)]): about `count` of them; cursor 0 is the start and the end.

        A field that is there from the first call to the last is returned, whatever happens meanwhile.
        """
        cdef list found = []
        cdef uint64_t following = cursor
        if cursor >> SCAN_BITS:
            return 0, found
        following = scan_table(&self.table, cursor, &count, found, True, -1, 0)
        return (0 if following >> SCAN_BITS else following), found

    def deadline_of(self, bytes field not None):
        """None: no such field; -1: no deadline; else unix ms."""
        cdef Entry* entry = self.entry_named(field)
        if entry == NULL:
            return None
        return entry_deadline(entry) if entry.flags & HAS_TTL else -1

    @property
    def memory(self):
        """Bytes of the table with everything in it."""
        return self.bytes_used

    @property
    def with_deadline(self):
        """How many fields have a deadline."""
        return self.heap.count

    # Changing: for the keyspace -----------------------------------------------------------------------
    cdef int put(self, const char* field, size_t field_size, const char* value, size_t n, bint keep_ttl) except -1:
        """1: a new field; 0: its value was replaced. MemoryError: nothing is changed."""
        cdef uint64_t hash = table_hash(field, field_size)
        cdef uint64_t* word = segment_find(segment_of(&self.table, hash), hash, field, field_size)
        cdef Entry* entry
        cdef Entry* fresh
        cdef uint8_t flags
        if word == NULL:
            fresh = entry_new(field, field_size, value, n, 0, 0, 0)
            if fresh == NULL or table_room(&self.table, hash, &self.bytes_used) < 0:
                free(fresh)
                raise MemoryError("no memory for a field")
            table_insert(&self.table, hash, fresh)
            self.bytes_used += entry_memory(fresh)
            return 1
        entry = <Entry*> (word[0] & POINTER_MASK)
        flags = entry.flags & HAS_TTL if keep_ttl else 0
        if (entry.flags & HAS_TTL) == flags and (n == entry_value_size(entry) or (
            n <= entry_room(entry) and (n * 2 >= entry_room(entry) or n > 64)
        )):
            memcpy(entry_value(entry), value, n)
            entry_set_value_size(entry, n)
            return 0
        fresh = entry_new(field, field_size, value, n, flags, 0, 0)
        if fresh == NULL:
            raise MemoryError("no memory for a field")
        self.replace(word, entry, fresh, entry_deadline(entry))
        return 0

    cdef void replace(self, uint64_t* word, Entry* old, Entry* new, int64_t deadline) noexcept:
        """`new` takes the place of `old`, which is freed. Room in the heap was made before, so this never fails."""
        if old.flags & HAS_TTL:
            if new.flags & HAS_TTL:
                memcpy(entry_time(new), entry_time(old), 12)
                heap_moved(&self.heap, new)
            else:
                heap_remove(&self.heap, old, &self.bytes_used)
        elif new.flags & HAS_TTL:
            heap_add(&self.heap, new, deadline)
        word[0] = (word[0] & ~POINTER_MASK) | <uint64_t> new
        self.bytes_used += <int64_t> entry_memory(new) - <int64_t> entry_memory(old)
        free(old)

    def set(self, bytes field not None, bytes value not None, bint keep_ttl=False):
        """Whether the field is new. MemoryError: nothing is changed."""
        return self.put(
            PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), keep_ttl) == 1

    def delete(self, bytes field not None):
        """Whether the field was there."""
        return self.remove(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))

    cdef bint remove(self, const char* field, size_t n) noexcept:
        cdef uint64_t hash = table_hash(field, n)
        cdef uint64_t* word = segment_find(segment_of(&self.table, hash), hash, field, n)
        cdef Entry* entry
        if word == NULL:
            return False
        entry = <Entry*> (word[0] & POINTER_MASK)
        if entry.flags & HAS_TTL:
            heap_remove(&self.heap, entry, &self.bytes_used)
        table_remove(&self.table, hash, word, &self.bytes_used)
        self.bytes_used -= entry_memory(entry)
        free(entry)
        return True

    cpdef bint set_deadline(self, bytes field, int64_t deadline) except -1:
        """A deadline in unix ms, or none with 0. False when there is no such field, or none to clear.

        MemoryError: nothing is changed.
        """
        cdef uint64_t hash = table_hash(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
        cdef uint64_t* word = segment_find(
            segment_of(&self.table, hash), hash, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
        cdef Entry* entry
        cdef Entry* fresh
        if word == NULL:
            return False
        entry = <Entry*> (word[0] & POINTER_MASK)
        if deadline and entry.flags & HAS_TTL:
            heap_change(&self.heap, entry, deadline)
            return True
        if not deadline and not entry.flags & HAS_TTL:
            return False
        if deadline and heap_room(&self.heap, &self.bytes_used) < 0:
            raise MemoryError("no memory for a deadline")
        fresh = entry_new(
            entry_key(entry), entry_key_size(entry), entry_value(entry), entry_value_size(entry),
            HAS_TTL if deadline else 0, 0, 0,
        )
        if fresh == NULL:
            raise MemoryError("no memory for a deadline")
        self.replace(word, entry, fresh, deadline)
        return True

    cpdef Py_ssize_t purge(self, int64_t now_ms, Py_ssize_t limit) noexcept:
        """Removes up to `limit` fields past their deadline; how many it removed."""
        cdef Py_ssize_t n = 0
        cdef Entry* entry
        while n < limit and self.heap.count and self.heap.items[0].deadline <= now_ms:
            entry = self.heap.items[0].entry
            self.remove(entry_key(entry), entry_key_size(entry))
            n += 1
        return n

    def copy(self):
        """An independent copy. O(n)."""
        return self.duplicate()

    cdef int reserve(self, uint64_t expected) except -1:
        if table_reserve(&self.table, expected, &self.bytes_used) < 0:
            raise MemoryError("no memory for a table")
        return 0

    cdef int settle(self) except -1:
        table_settle(&self.table, &self.bytes_used)
        return 0

    cdef FieldTable duplicate(self):
        cdef FieldTable copy = FieldTable()
        cdef Walk walk = table_walk(&self.table)
        cdef Entry* entry
        cdef Entry* fresh
        cdef uint64_t hash
        copy.reserve(self.table.count)
        while True:
            entry = walk_next(&walk)
            if entry == NULL:
                copy.settle()
                return copy
            hash = table_hash(entry_key(entry), entry_key_size(entry))
            fresh = entry_new(
                entry_key(entry), entry_key_size(entry), entry_value(entry), entry_value_size(entry),
                entry.flags & HAS_TTL, 0, 0,
            )
            if fresh == NULL or table_room(&copy.table, hash, &copy.bytes_used) < 0 or (
                fresh.flags & HAS_TTL and heap_room(&copy.heap, &copy.bytes_used) < 0
            ):
                free(fresh)
                raise MemoryError("no memory for a copy")
            table_insert(&copy.table, hash, fresh)
            copy.bytes_used += entry_memory(fresh)
            if fresh.flags & HAS_TTL:
                heap_add(&copy.heap, fresh, entry_deadline(entry))

    # Taking apart: for the cleanup thread --------------------------------------------------------------
    cdef bint free_some(self, Py_ssize_t count) noexcept nogil:
        """Frees about `count` fields of a table nobody can reach. True while something is left."""
        # The heap's items would point to freed entries: nothing reads them any more.
        self.heap.count = 0
        if table_free_some(&self.table, &count):
            return True
        free(self.heap.items)
        memset(&self.heap, 0, sizeof(Heap))
        return False

    def release_some(self, Py_ssize_t count):
        """Frees about `count` fields, without the GIL. True while something is left."""
        cdef bint more
        with nogil:
            more = self.free_some(count)
        return more

    def check(self):
        """Asserts every invariant."""
        cdef Walk walk = table_walk(&self.table)
        cdef int64_t total = FIELD_TABLE_SIZE + table_storage(&self.table) + self.heap.capacity * sizeof(Due)
        cdef Entry* entry
        table_check(&self.table)
        heap_check(&self.heap)
        while True:
            entry = walk_next(&walk)
            if entry == NULL:
                break
            total += entry_memory(entry)
        assert total == self.bytes_used, f"a field table of {total} bytes says {self.bytes_used}"


FIELD_TABLE_SIZE = FieldTable.__basicsize__ + 16
