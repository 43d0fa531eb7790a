"""A whole entry as a VALUES frame has it (format.pxd), for the dump and for what is divided over other shards. Inline, without
a module."""
from libc.stdint cimport int64_t, uint8_t

from kache.wire.codec cimport Buffer

from ..engine.engine cimport PART_DEADLINE, image_body, image_kind
from ..engine.entry cimport (
    TYPE_MASK, TYPE_STRING, Entry, entry_deadline, entry_key, entry_key_size, entry_value, entry_value_size,
)
from ..engine.numbers cimport put_counted, put_zigzag


cdef inline int put_whole(Buffer out, Entry* entry, int64_t now_ms) except -1:
    """Deadlines are from `now_ms`, the time of the frame."""
    cdef int64_t deadline = entry_deadline(entry)
    out.put_u8(<uint8_t> (image_kind(entry) | (PART_DEADLINE if deadline else 0)))
    put_counted(out, entry_key(entry), entry_key_size(entry))
    out.put_u32(entry.clock)
    if deadline:
        put_zigzag(out, deadline - now_ms)
    if entry.flags & TYPE_MASK == TYPE_STRING:
        return put_counted(out, entry_value(entry), entry_value_size(entry))
    image_body(0, entry, 0, <Py_ssize_t> 1 << 62, <Py_ssize_t> 1 << 62, out)
    return 0
