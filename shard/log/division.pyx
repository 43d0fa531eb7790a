"""What one shard holds, divided over others: a base for each of them, written at once and without effects beside it.

Owns the encoding of whole slots; repartition.py owns the files. The payloads are VALUES (format.pxd) of whole slots, so that
nothing comes later. Nobody may change the store meanwhile.
"""
from libc.stdint cimport int64_t, uint32_t

from kache.wire.codec cimport SLOT_COUNT, Buffer

from ..engine.engine cimport DATABASES, Store
from ..engine.entry cimport Entry
from ..engine.numbers cimport put_number
from ..engine.table cimport Table, Walk, table_walk, walk_next
from .format cimport LONGEST_PAYLOAD
from .values cimport put_whole

from .format import LogError

__all__ = ["payloads"]

cdef enum:
    ENOUGH = 1 << 20            # bytes after which a frame ends, behind the slot that it is at


cdef int put_slot(Buffer out, Table* table, int db, uint32_t slot, int64_t now_ms) except -1:
    """All keys of a slot, as a group, past their deadline or not: whoever loads them decides."""
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
        put_whole(out, entry, now_ms)


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
