"""Stream: the value of a stream key. Its entries lie in chunks (stream_chunks.pyx), its consumer groups are Python's
(consumer_groups.py); here are ranges, what trimming removes, all of it together, and what of the groups
is done for every entry.

Ids are an unsigned 64-bit time and a sequence of the same size; for Python one int, ``ms << 64 | seq``. An empty stream is a
value like any other. Readers are for the commands; what changes a stream is called by the keyspace alone, which accounts
`memory`.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport malloc

from kache.wire.codec cimport format_int64

from .memory cimport free

__all__ = ["Pending", "Stream", "id_text", "pend", "plain_id", "size_of_pending", "still_pending", "unpend"]

cdef enum:
    PLACES = 8                  # where parts go on that are remembered
    HEADER_BYTES = 16           # what the garbage collector keeps before a dict
    PENDING_BYTES = 115         # a Pending, its id, and its places in two orders; what it takes in the dict is known exactly
    CONSUMER_BYTES = 530        # a consumer with its name and its order, sorted containers included

cdef int64_t STREAM_SIZE = 0
cdef object LOW = (1 << 64) - 1


# Ids --------------------------------------------------------------------------------------------------
cdef StreamId id_of(object number) except *:
    """Of an int from 0 to 2^128 - 1; OverflowError for others."""
    cdef StreamId id
    id.ms = number >> 64
    id.seq = number & LOW
    return id


cdef object number_of(StreamId id):
    return <object> id.ms << 64 | id.seq


cdef int format_unsigned(char* out, uint64_t number) noexcept nogil:
    cdef char[20] digits
    cdef int n = 0, i
    if number <= <uint64_t> 0x7FFFFFFFFFFFFFFF:
        return format_int64(out, <int64_t> number)
    while number:
        digits[n] = <char> (48 + number % 10)
        number //= 10
        n += 1
    for i in range(n):
        out[i] = digits[n - 1 - i]
    return n


cdef int format_id(char* out, StreamId id) noexcept nogil:
    """Writes it as ``ms-seq``; how many bytes, at most 41."""
    cdef int n = format_unsigned(out, id.ms)
    out[n] = 45
    return n + 1 + format_unsigned(out + n + 1, id.seq)


cdef bytes id_bytes(StreamId id):
    cdef char[48] text
    return PyBytes_FromStringAndSize(text, format_id(text, id))


def id_text(number not None):
    """The text of an id, ``ms-seq``."""
    return id_bytes(id_of(number))


cdef inline bint parse_unsigned(const char** at, const char* end, uint64_t* number) noexcept nogil:
    """Digits without a zero in front that fit 64 bits."""
    cdef const char* start = at[0]
    cdef uint64_t found = 0, digit
    while at[0] < end and 48 <= at[0][0] <= 57:
        digit = <uint64_t> (at[0][0] - 48)
        if at[0] - start >= 19 and (found > UINT64_MAX // 10 or found * 10 > UINT64_MAX - digit):
            return False
        found = found * 10 + digit
        at[0] += 1
    number[0] = found
    return at[0] > start and (start[0] != 48 or at[0] - start == 1)


cdef bint parse_id(const char* text, Py_ssize_t n, StreamId* id, bint* whole) noexcept nogil:
    """An id in its usual form, `whole` with its sequence. False for anything else, which may be one all the same."""
    cdef const char* at = text
    cdef const char* end = text + n
    id.seq = 0
    whole[0] = False
    if not parse_unsigned(&at, end, &id.ms):
        return False
    if at == end:
        return True
    if at[0] != 45:
        return False
    at += 1
    whole[0] = True
    return parse_unsigned(&at, end, &id.seq) and at == end


def plain_id(bytes raw not None):
    """The id in its usual form, ``ms-seq`` or ``ms``; None for anything else, which may be one all the same."""
    cdef StreamId id
    cdef bint whole
    if not parse_id(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &id, &whole):
        return None
    return number_of(id)


# What is pending ----------------------------------------------------------------------------------------
@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Pending:
    """An entry that was delivered and not acknowledged."""

    def __init__(self, id, bytes consumer not None, int64_t delivered, uint64_t count):
        self.id = id
        self.consumer = consumer
        self.delivered = delivered
        self.count = count

    def gone(self):
        """It is pending no more: who finds it later passes over it."""
        self.id = None


def pend(dict pending not None, list ids not None, bytes name not None, int64_t delivered, uint64_t count):
    """Enters a Pending of this consumer for each of these ids that has none; those, in the order of the ids."""
    cdef list made = []
    cdef Pending each
    for number in ids:
        if number not in pending:
            each = Pending.__new__(Pending)
            each.id, each.consumer, each.delivered, each.count = number, name, delivered, count
            pending[number] = each
            made.append(each)
    return made


def unpend(dict pending not None, list ids not None, dict consumers not None, owner, order):
    """Takes these ids out of `pending`, of their consumers' counts and of the orders they are sorted into; how many were
    there. `owner`: the consumer that has all of them, None if any may."""
    cdef Pending each
    cdef object consumer = owner, name = None
    cdef Py_ssize_t dropped = 0, of_consumer = 0
    for number in ids:
        found = pending.pop(number, None)
        if found is None:
            continue
        each = <Pending> found
        if owner is None and each.consumer is not name:
            if of_consumer:
                consumer.count -= of_consumer
                of_consumer = 0
            name = each.consumer
            consumer = consumers[name]
        if each.placed:
            consumer.remove(each)
            order.remove(each)
        each.id = None
        of_consumer += 1
        dropped += 1
    if of_consumer:
        consumer.count -= of_consumer
    return dropped


def still_pending(list arrivals not None, uint32_t flag, bytes name):
    """Those that are pending and not sorted in yet, as `flag` says; with a `name` only those that its consumer has."""
    cdef list found = []
    cdef Pending each
    for item in arrivals:
        each = <Pending> item
        if each.id is not None and not each.placed & flag and (name is None or each.consumer is name or each.consumer == name):
            found.append(each)
    return found


def size_of_pending(dict pending not None, dict consumers not None):
    """Bytes of what is pending, of the consumers and of both tables, about."""
    return (
        pending.__sizeof__() + consumers.__sizeof__() + 2 * HEADER_BYTES
        + len(pending) * PENDING_BYTES + len(consumers) * CONSUMER_BYTES
    )


# The whole value ----------------------------------------------------------------------------------------
@cython.final
@cython.no_gc
cdef class Stream(StreamChunks):
    """The entries of a stream, and its consumer groups."""

    # Reading ------------------------------------------------------------------------------------------
    def __len__(self):
        """How much there is to be freed: entries, and what is pending. `length` is the number of entries."""
        cdef Py_ssize_t n = <Py_ssize_t> self.length
        if self.groups is not None:
            for group in self.groups.values():
                n += len(group.pending)
        return n

    @property
    def memory(self):
        """Bytes that it takes: chunks as allocated, groups as estimated. O(1)."""
        return self.size_in_memory()

    @property
    def nodes(self):
        """How many chunks it has."""
        return self.count

    @property
    def last_id(self):
        """The greatest id there ever was, or what XSETID made of it."""
        return number_of(self.last)

    @property
    def max_deleted_id(self):
        """The greatest id that was deleted one by one; 0: none was."""
        return number_of(self.max_deleted)

    @property
    def first_entry_id(self):
        """The id of the first entry; 0 without entries."""
        cdef StreamId id
        return number_of(id) if self.first_id(&id) else 0

    @property
    def last_entry_id(self):
        """The id of the last entry; 0 without entries."""
        cdef StreamId id
        return number_of(id) if self.last_living(&id) else 0

    def get(self, number not None):
        """[field, value, …] of the entry with this id, or None."""
        cdef StreamWalk walk
        if not self.find_entry(id_of(number), &walk):
            return None
        return fields_of_entry(&walk)

    def contains(self, number not None):
        """Whether there is an entry with this id."""
        cdef StreamWalk walk
        return self.find_entry(id_of(number), &walk)

    def range(self, first not None, last not None, Py_ssize_t count=-1, bint reverse=False, list ids=None):
        """[[id's text, [field, value, …]], …] of up to `count` entries (-1: all) from `first` to `last`, both included.

        `reverse`: from `last` down. Their ids are appended to `ids`, if that is given, as ints.
        """
        cdef StreamId low = id_of(first), high = id_of(last)
        cdef StreamWalk walk
        cdef list found = []
        if reverse:
            return self.range_down(low, high, count, ids)
        walk = entries_from(self, low)
        while count != 0 and next_living(&walk) and compare_ids(walk.id, high) <= 0:
            found.append([id_bytes(walk.id), fields_of_entry(&walk)])
            if ids is not None:
                ids.append(number_of(walk.id))
            count -= 1
        return found

    cdef list range_down(self, StreamId low, StreamId high, Py_ssize_t count, list ids):
        """`range` in the other direction: each chunk is gone through once, and what was found is turned around."""
        cdef Py_ssize_t k = self.slot_for(high)
        cdef StreamWalk walk
        cdef list found = [], part
        cdef StreamId start
        while k >= 0 and count != 0:
            start = self.directory[self.head + k].first
            if compare_ids(self.directory[self.head + k].chunk.last, low) < 0:
                break
            walk = entries_from(self, start)
            walk.slots_end = walk.slot + 1
            part = []
            while next_living(&walk) and compare_ids(walk.id, high) <= 0:
                if compare_ids(walk.id, low) >= 0:
                    part.append(walk.entry - chunk_entries(walk.slot.chunk))
            for place in reversed(part):
                if count == 0:
                    break
                walk.at = chunk_entries(walk.slot.chunk) + <Py_ssize_t> place
                next_entry(&walk)
                found.append([id_bytes(walk.id), fields_of_entry(&walk)])
                if ids is not None:
                    ids.append(number_of(walk.id))
                count -= 1
            k -= 1
        return found

    # Trimming: what to remove -------------------------------------------------------------------------
    def until_length(self, uint64_t length, bint whole_nodes, uint64_t most):
        """(id up to which to remove, how many that are) so that `length` entries are left; None: nothing.

        `whole_nodes`: only whole chunks, and maybe more are left. `most`: not more than so many; 0: any number.
        """
        cdef StreamId until
        cdef uint64_t removed = self.bound_length(length, whole_nodes, most, &until)
        return (number_of(until), removed) if removed else None

    def until_id(self, first not None, bint whole_nodes, uint64_t most):
        """The same so that entries from the id `first` on are left."""
        cdef StreamId until
        cdef uint64_t removed = self.bound_id(id_of(first), whole_nodes, most, &until)
        return (number_of(until), removed) if removed else None

    cdef uint64_t bound_length(self, uint64_t length, bint whole_nodes, uint64_t most, StreamId* until) noexcept:
        """`until_length`: how many, and up to which id. Of chunks that go as a whole only the last one is looked at."""
        cdef uint64_t removed = 0, left = self.length
        cdef Py_ssize_t k = 0
        cdef StreamSlot* slots = self.directory + self.head
        cdef StreamWalk walk
        while k < self.count and left > length:
            if most and removed + slots[k].count > most:
                break
            if left - slots[k].count < length or slots[k].count > left:
                if whole_nodes:
                    break
                walk = entries_from(self, slots[k].first)
                while left > length and next_living(&walk):
                    until[0] = walk.id
                    left -= 1
                    removed += 1
                return removed
            left -= slots[k].count
            removed += slots[k].count
            k += 1
        if k:
            until[0] = slots[k - 1].chunk.last
        return removed

    cdef uint64_t bound_id(self, StreamId keep, bint whole_nodes, uint64_t most, StreamId* until) noexcept:
        """`until_id`: how many, and up to which id."""
        cdef uint64_t removed = 0
        cdef Py_ssize_t k = 0
        cdef StreamSlot* slots = self.directory + self.head
        cdef StreamWalk walk
        while k < self.count:
            if most and removed + slots[k].count > most:
                break
            # What stands before a chunk that begins at this id, or before it, is smaller.
            if (k + 1 == self.count or compare_ids(slots[k + 1].first, keep) > 0) and \
                    compare_ids(slots[k].chunk.last, keep) >= 0:
                if whole_nodes:
                    break
                if k:
                    until[0] = slots[k - 1].chunk.last      # maybe none of this chunk goes
                walk = entries_from(self, slots[k].first)
                while next_living(&walk) and compare_ids(walk.id, keep) < 0:
                    until[0] = walk.id
                    removed += 1
                return removed
            removed += slots[k].count
            k += 1
        if k:
            until[0] = slots[k - 1].chunk.last
        return removed

    # Groups ---------------------------------------------------------------------------------------------
    cdef object group_of(self, bytes name):
        return None if self.groups is None else self.groups.get(name)

    def group(self, bytes name not None):
        """The group of this name, or None. To be read only."""
        return self.group_of(name)

    cdef uint64_t next_group(self) except 0:
        """The number of a group that is made now. There are groups from here on."""
        self.groups_made()
        self.last_group += 1
        return self.last_group

    cdef int count_group(self, object group, int64_t before) except -1:
        """A group, maybe a new one, has changed that had so many bytes before."""
        self.groups[group.name] = group
        self.group_bytes += <int64_t> group.memory - before
        return 0

    cdef dict groups_made(self):
        """The groups, for one that is about to be added."""
        if self.groups is None:
            self.groups = {}
        return self.groups

    cdef int recount_groups(self) except -1:
        """Any group may have changed."""
        self.group_bytes = sum([<int64_t> group.memory for group in (self.groups or {}).values()])
        return 0

    def remember_place(self, number, place):
        """A number by which `place_at` knows where a part goes on; the one before it, `number`, is done with."""
        if self.places is None:
            self.places = {}
        self.places.pop(number, None)
        while len(self.places) >= PLACES:
            del self.places[next(iter(self.places))]
        self.last_place += 1
        self.places[self.last_place] = place
        return self.last_place

    def place_at(self, number):
        """What was remembered under this number; None when it was too long ago."""
        return None if self.places is None else self.places.get(number)

    # Building one that nobody sees yet ------------------------------------------------------------------
    def put(self, number not None, list fields not None):
        """Adds an entry, whose id is greater than any before, of fields and values in turn."""
        cdef Py_ssize_t n = len(fields), i
        cdef Span* spans = <Span*> malloc((n + 1) * sizeof(Span))
        if spans == NULL:
            raise MemoryError("no memory for the fields of an entry")
        try:
            for i in range(n):
                spans[i].data = PyBytes_AS_STRING(<bytes?> fields[i])
                spans[i].size = PyBytes_GET_SIZE(<bytes> fields[i])
            self.append(id_of(number), spans, n // 2)
        finally:
            free(spans)

    def set_meta(self, last not None, uint64_t added, max_deleted not None):
        """What it says of itself beside its entries."""
        self.let_last(id_of(last))
        self.added, self.max_deleted = added, id_of(max_deleted)

    def add_group(self, bytes name not None, group not None):
        """One more group, with all that it has."""
        group.serial = self.next_group()
        self.groups_made()[name] = group
        self.recount_groups()

    # Whole streams --------------------------------------------------------------------------------------
    def copy(self):
        """An independent copy. What is pending is copied one by one."""
        cdef Stream other = Stream.__new__(Stream)
        other.take_copy(self)
        other.last_group = self.last_group
        if self.groups is not None:
            other.groups = {name: group.copy() for name, group in self.groups.items()}
            other.recount_groups()
        return other

    def release_some(self, Py_ssize_t count):
        """Frees about `count` entries, those of chunks without the GIL; True while something is left."""
        cdef Py_ssize_t cost
        with nogil:
            cost = self.release_chunks(count)
        if self.count:
            return True
        while self.groups and cost < count:
            name, group = next(iter(self.groups.items()))
            if group.release_some(count - cost):
                return True
            del self.groups[name]
            cost += 8
        return bool(self.groups)

    def check(self):
        """Asserts every invariant; for tests."""
        self.check_chunks()
        if self.groups is not None:
            for name, group in self.groups.items():
                assert group.name == name
                group.check()
            assert self.group_bytes == sum([group.memory for group in self.groups.values()]), "groups of another size"


STREAM_SIZE = Stream.__basicsize__ + 16
