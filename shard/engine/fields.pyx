"""FieldTable: the value of a hash or a set. The same tables and blocks as the keyspace's own.

Owns its entries, the table that finds them and the heap of their deadlines. Readers are for the commands; what changes
one is called by the keyspace alone, which accounts `memory` and removes fields past their deadline before it hands a
table out. One is packed as long as it is small (packed.pxd), and keeps the order in which its fields came then; with the
first deadline of a field it becomes a table, and stays one. Only a table is held by an entry: what is packed there is no
object, and a FieldTable of it is a copy. Removing never fails. What adds or changes a field raises MemoryError before it has changed any; all that may
be different then is `memory`, as room that was made is kept.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy, memmove, memset

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
from .heap cimport heap_add, heap_change, heap_check, heap_entry, heap_moved, heap_remove, heap_room
from .memory cimport below, free, kache_block_size, kache_realloc
from .packed cimport (
    Item, LARGEST_PACKED, ROOMY, find_item, item_bytes, item_of, item_write, limits, packed_set_count, skip_items,
)
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

cdef enum:
    TOO_LARGE = -2      # for the packed form


@cython.final
cdef class FieldTable:
    """Fields of a hash, or members of a set (their values are empty), in C blocks."""

    def __cinit__(self, *args, **kwargs):
        memset(&self.table, 0, sizeof(Table))
        memset(&self.heap, 0, sizeof(Heap))
        self.bytes_used = FIELD_TABLE_SIZE
        self.packed = True

    def __dealloc__(self):
        while self.free_some(1 << 30):
            pass

    # Reading ------------------------------------------------------------------------------------------
    cdef const char* find_packed(self, const char* field, size_t n) noexcept:
        """The pair of a packed field, or NULL."""
        cdef Item item
        if self.block == NULL:
            return NULL
        item = item_of(field, n)
        return find_item(self.block + HEADER, self.block + self.block_size, &item, True)

    cdef Span value_of(self, bytes field, char* scratch, int64_t* deadline) noexcept:
        """The value of a field, whose data is NULL without it, maybe in `scratch` (TEXT bytes); its deadline, 0 for none."""
        cdef Span value
        cdef Entry* entry
        cdef const char* at
        value.data = NULL
        value.size = deadline[0] = 0
        if self.packed:
            at = self.find_packed(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
            return value if at == NULL else item_text(at + item_span(at), scratch)
        entry = self.entry_of(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
        if entry != NULL:
            value.data = entry_value(entry)
            value.size = entry_value_size(entry)
            deadline[0] = entry_deadline(entry)
        return value

    def __len__(self):
        return self.count()

    def __contains__(self, bytes field not None):
        return self.deadline_of(field) is not None

    def get(self, bytes field not None):
        """The value of a field, or None."""
        cdef char[TEXT] scratch
        cdef int64_t deadline
        cdef Span value = self.value_of(field, scratch, &deadline)
        return None if value.data == NULL else PyBytes_FromStringAndSize(value.data, value.size)

    def length(self, bytes field not None):
        """Bytes of a field's value, or None."""
        cdef char[TEXT] scratch
        cdef int64_t deadline
        cdef Span value = self.value_of(field, scratch, &deadline)
        return None if value.data == NULL else value.size

    def items(self):
        """[(field, value)], in the order in which they came if it is packed, else in that of the table."""
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
        cdef FieldWalk walk = fields_from(self)
        cdef list found = []
        while next_field(&walk):
            if what == 1:
                found.append(PyBytes_FromStringAndSize(walk.field.data, walk.field.size))
            elif what == 2:
                found.append(PyBytes_FromStringAndSize(walk.value.data, walk.value.size))
            else:
                found.append((
                    PyBytes_FromStringAndSize(walk.field.data, walk.field.size),
                    PyBytes_FromStringAndSize(walk.value.data, walk.value.size)))
        return found

    def random(self):
        """A field, each with nearly the same chance; IndexError when there is none."""
        return self.random_item()[0]

    def random_item(self):
        """A (field, value), each with nearly the same chance; IndexError when there is none."""
        cdef FieldWalk walk = fields_from(self)
        cdef Entry* entry
        if self.count() == 0:
            raise IndexError("no fields")
        if self.packed:
            walk.at = skip_items(walk.at, 2 * <uint32_t> below(self.count()))
            next_field(&walk)
            return (
                PyBytes_FromStringAndSize(walk.field.data, walk.field.size),
                PyBytes_FromStringAndSize(walk.value.data, walk.value.size))
        entry = table_random(&self.table)
        return key_bytes(entry), value_bytes(entry)

    def scan(self, uint64_t cursor, Py_ssize_t count):
        """(next cursor, [(field, value)]): about `count` of them; cursor 0 is the start and the end.

        A field that is there from the first call to the last is returned, whatever happens meanwhile. What is packed is
        returned whole.
        """
        cdef list found = []
        cdef uint64_t following = cursor
        if self.packed:
            return 0, self.collect(3)
        if cursor >> SCAN_BITS:
            return 0, found
        following = scan_table(&self.table, cursor, &count, found, True, -1, 0)
        return (0 if following >> SCAN_BITS else following), found

    def deadline_of(self, bytes field not None):
        """None: no such field; -1: no deadline; else unix ms."""
        cdef char[TEXT] scratch
        cdef int64_t deadline
        if self.value_of(field, scratch, &deadline).data == NULL:
            return None
        return deadline or -1

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
        cdef uint64_t hash
        cdef uint64_t* word
        cdef Entry* entry
        cdef Entry* fresh
        cdef uint8_t flags
        cdef int outcome
        if self.packed:
            outcome = self.put_packed(field, field_size, value, n)
            if outcome != TOO_LARGE:
                return outcome
            self.unpack()
        hash = table_hash(field, field_size)
        word = segment_find(segment_of(&self.table, hash), hash, field, field_size)
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

    # Packed -------------------------------------------------------------------------------------------
    cdef int put_packed(self, const char* field, size_t field_size, const char* value, size_t n) except -3:
        """`put`, or TOO_LARGE, with nothing changed."""
        cdef Item name, item
        cdef size_t old, offset, most = max(limits.hash_value, limits.set_value)
        cdef const char* at
        if field_size > most or n > most:
            return TOO_LARGE
        at = self.find_packed(field, field_size)
        item = item_of(value, n)
        if at != NULL:
            at += item_span(at)
            offset = at - self.block
            old = item_span(at)
            self.make_room(self.block_size - old + item_bytes(&item))
            self.splice(offset, old, item_bytes(&item))
            item_write(self.block + offset, &item)
            return 0
        name = item_of(field, field_size)
        offset = self.block_size or HEADER
        if self.count() >= max(limits.hash_entries, limits.set_entries, limits.set_integers) or (
            offset + item_bytes(&name) + item_bytes(&item) > LARGEST_PACKED
        ):
            return TOO_LARGE
        self.make_room(offset + item_bytes(&name) + item_bytes(&item))
        item_write(item_write(self.block + offset, &name), &item)
        packed_set_count(self.block, 1 if self.block_size == 0 else packed_count(self.block) + 1)
        self.block_size = offset + item_bytes(&name) + item_bytes(&item)
        return 1

    cdef int make_room(self, size_t n) except -1:
        """Room for a block of `n` bytes."""
        cdef int64_t before = kache_block_size(self.block)
        cdef void* larger
        if n > self.block_room:
            larger = kache_realloc(self.block, n + n // 2)
            if larger == NULL:
                raise MemoryError("no memory for a field")
            self.block = <char*> larger
            self.block_room = n + n // 2
            self.bytes_used += <int64_t> kache_block_size(larger) - before
        return 0

    cdef void splice(self, size_t offset, size_t removed, size_t added) noexcept:
        """Makes `added` bytes of those `removed` at an offset of the block, which has room."""
        memmove(self.block + offset + added, self.block + offset + removed, self.block_size - offset - removed)
        self.block_size += added - removed

    cdef int unpack(self) except -1:
        """Its fields in a table from here on. MemoryError: nothing is changed."""
        cdef FieldTable table
        cdef FieldWalk walk
        if not self.packed:
            return 0
        table = FieldTable()
        table.packed = False
        table.reserve(self.count())
        walk = fields_from(self)
        while next_field(&walk):
            table.put(walk.field.data, walk.field.size, walk.value.data, walk.value.size, False)
        self.packed = False
        self.bytes_used = table.bytes_used
        self.table = table.table
        free(self.block)
        self.block = NULL
        self.block_size = self.block_room = 0
        memset(&table.table, 0, sizeof(Table))
        return 0

    cdef bint remove(self, const char* field, size_t n) noexcept:
        cdef uint64_t hash
        cdef uint64_t* word
        cdef Entry* entry
        cdef const char* at
        if self.packed:
            at = self.find_packed(field, n)
            if at == NULL:
                return False
            self.splice(at - self.block, skip_items(at, 2) - at, 0)
            packed_set_count(self.block, packed_count(self.block) - 1)
            return True
        hash = table_hash(field, n)
        word = segment_find(segment_of(&self.table, hash), hash, field, n)
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
        cdef uint64_t* word
        cdef Entry* entry
        cdef Entry* fresh
        if self.packed:
            if deadline == 0 or self.find_packed(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field)) == NULL:
                return False
            self.unpack()
        word = segment_find(
            segment_of(&self.table, hash), hash, PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field))
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
        while n < limit and self.heap.count and heap_soonest(&self.heap) <= now_ms:
            entry = heap_entry(&self.heap, 0)
            self.remove(entry_key(entry), entry_key_size(entry))
            n += 1
        return n

    def copy(self):
        """An independent copy. O(n)."""
        return self.duplicate()

    cdef int reserve(self, uint64_t expected) except -1:
        if self.packed:
            if expected <= max(limits.hash_entries, limits.set_entries, limits.set_integers):
                return 0
            self.unpack()
        if table_reserve(&self.table, expected, &self.bytes_used) < 0:
            raise MemoryError("no memory for a table")
        return 0

    cdef int settle(self) except -1:
        if self.packed:
            return 0
        table_settle(&self.table, &self.bytes_used)
        return 0

    cdef FieldTable duplicate(self):
        cdef FieldTable copy = FieldTable()
        cdef Walk walk = table_walk(&self.table)
        cdef Entry* entry
        cdef Entry* fresh
        cdef uint64_t hash
        if self.packed:
            if self.block != NULL:
                copy.make_room(self.block_size)
                memcpy(copy.block, self.block, self.block_size)
                copy.block_size = self.block_size
            return copy
        copy.unpack()
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
        free(self.block)
        self.block = NULL
        self.block_size = self.block_room = 0
        if table_free_some(&self.table, &count):
            return True
        free(self.heap.words)
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
        cdef int64_t total = FIELD_TABLE_SIZE + table_storage(&self.table) + self.heap.capacity * sizeof(uint64_t)
        cdef Entry* entry
        table_check(&self.table)
        heap_check(&self.heap)
        total += kache_block_size(self.block)
        assert self.block == NULL or self.packed, "fields in a block beside the table"
        if self.packed:
            assert self.table.count == 0, "fields in a table beside the block"
            assert len(set(self.collect(1))) == self.count(), "a packed field twice, or a wrong count"
        while True:
            entry = walk_next(&walk)
            if entry == NULL:
                break
            total += entry_memory(entry)
        assert total == self.bytes_used, f"a field table of {total} bytes says {self.bytes_used}"


FIELD_TABLE_SIZE = FieldTable.__basicsize__ + 16
