"""What one shard holds, divided over others: a base for each of them, written at once and without effects beside it.

Owns the encoding of whole slots; repartition.py owns the files. The payloads are VALUES (format.pxd) of whole slots, so that
nothing comes later. Nobody may change the store meanwhile.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kache.wire.codec cimport SLOT_COUNT, Buffer

from ..engine.engine cimport DATABASES, PART_DEADLINE, Store, image_body, image_kind
from ..engine.entry cimport (
    TYPE_MASK, TYPE_STRING, Entry, entry_deadline, entry_key, entry_key_size, entry_value, entry_value_size,
)
from ..engine.table cimport Table, Walk, table_walk, walk_next
from .format cimport LONGEST_PAYLOAD

from .format import LogError

__all__ = ["payloads"]

cdef enum:
    ENOUGH = 1 << 20            # bytes after which a frame ends, behind the slot that it is at


cdef int put_number(Buffer out, uint64_t number) except -1:
    cdef char* at = out.reserve(10)
    cdef Py_ssize_t n = 0
    while number >= 0x80:
        at[n] = <char> ((number & 0x7F) | 0x80)
        n += 1
        number >>= 7
    at[n] = <char> number
    out.end += n + 1
    return 0


cdef int put_entry(Buffer out, Entry* entry, int64_t now_ms) except -1:
    """The entry as a whole, whether it is past its deadline or not: whoever loads it decides."""
    cdef int64_t deadline = entry_deadline(entry)
    cdef int64_t left = deadline - now_ms
    out.put_u8(<uint8_t> (image_kind(entry) | (PART_DEADLINE if deadline else 0)))
    put_number(out, entry_key_size(entry))
    out.append(entry_key(entry), entry_key_size(entry))
    out.put_u32(entry.clock)
    if deadline:
        put_number(out, (<uint64_t> left << 1) ^ <uint64_t> (left >> 63))
    if entry.flags & TYPE_MASK == TYPE_STRING:
        put_number(out, entry_value_size(entry))
        out.append(entry_value(entry), entry_value_size(entry))
    else:
        image_body(0, entry, 0, <Py_ssize_t> 1 << 62, <Py_ssize_t> 1 << 62, out)
    return 0


cdef int put_slot(Buffer out, Table* table, int db, uint32_t slot, int64_t now_ms) except -1:
    """All keys of a slot, as a group."""
    cdef Walk walk = table_walk(table)
    cdef Entry* entry
    put_number(out, db)
    put_number(out, slot)
    put_number(out, table.count)
    put_number(out, table.count)
    while True:
        entry = walk_next(&walk)
        if entry == NULL:
            return 0
        put_entry(out, entry, now_ms)


def payloads(Store store not None, slots not None, int64_t now_ms):
    """The payloads of the VALUES frames that hold everything in these slots ([(first, last)], rising), one after the other.

    Deadlines are from `now_ms`, the time that the frames have to have.
    """
    cdef Buffer out = Buffer()
    cdef Buffer whole
    cdef int db
    cdef uint32_t slot
    for db in range(DATABASES):
        if store.databases[db].count == 0:
            continue
        for first, last in slots:
            for slot in range(first, last + 1):
                if store.databases[db].slots[slot].count:
                    put_slot(out, &store.databases[db].slots[slot], db, slot, now_ms)
                if out.used() >= ENOUGH or (slot == last and out.used()):
                    yield _framed(out, db, slot + 1)
                    out.clear()


cdef bytes _framed(Buffer out, int db, uint32_t slot):
    cdef Buffer head = Buffer()
    put_number(head, db)
    put_number(head, slot)
    put_number(head, 0)
    if out.used() + head.used() > <Py_ssize_t> LONGEST_PAYLOAD:
        raise LogError(f"slot {slot - 1} of database {db} holds more than fits one frame of a base ({out.used()} bytes).")
    return bytes(head) + bytes(out)
