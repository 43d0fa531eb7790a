"""The dump: a shard's data on its way into a base; see base.pyx."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from kache.wire.codec cimport Buffer

from ..engine.engine cimport DATABASES, Database, Follower, Host, Place, Store
from ..engine.entry cimport Entry
from ..engine.table cimport Segment
from .writer cimport Writer

cdef struct Cursor:
    # Where the walk of a database goes on.
    uint32_t slot               # SLOT_COUNT: it is done
    uint64_t prefix             # SCAN_BITS of a hash


cdef class Dump(Follower):
    """One dump, from its first slice to its end."""
    cdef Host host
    cdef Store store
    cdef Writer out
    cdef Cursor[DATABASES] cursors
    cdef list later                     # per database: {key: None} of what comes after the walks, in its order
    cdef Buffer frame, part
    # The later key that is dumped in parts, if any
    cdef bint parting
    cdef int part_db
    cdef bytes part_key
    cdef object part_value              # kept, so that no other value can have its address
    cdef uint64_t part_at               # where the next part begins
    cdef uint64_t part_length           # of a list, now
    cdef uint32_t part_number, part_most
    cdef bint part_broken               # the value was replaced or moved: the parts begin anew
    cdef int64_t until_ns
    cdef Py_ssize_t most_bytes
    cdef readonly uint64_t keys, frames, slices, restarts
    cdef readonly int64_t longest_ns                    # of a slice, by the clock,
    cdef readonly int64_t longest_cpu_ns, cpu_ns        # and in time of the processor; of all of them
    cdef readonly bint done
    cdef readonly uint64_t end          # the sequence that the base goes with, once it is done
    cdef bint over(self) noexcept
    cdef int next_database(self) noexcept
    cdef int walk(self, int db) except -1
    cdef int dump_segment(self, int db, Database* database, Cursor* cursor) except -1
    cdef int put_entry(self, int db, Entry* entry) except -1
    cdef int put_value(self, Entry* entry) except -1
    cdef bint comes_later(self, Entry* entry) except -1
    cdef int begin_values(self, int db) except -1
    cdef Py_ssize_t begin_group(self, int db, uint32_t slot, uint64_t keys) except -1
    cdef int end_values(self, Cursor* cursor) except -1
    cdef int send(self, int kind) except -1
    cdef int dump_later(self) except -1
    cdef Entry* entry_of(self, Place* place, int db, bytes key) except? NULL
    cdef int put_later(self, int db, bytes key) except -1
    cdef int begin_parts(self, int db, bytes key, Entry* entry) except -1
    cdef int put_part(self) except -1
    cdef int end_parts(self) except -1
    cdef bint is_dumped(self, int db, const char* key, Py_ssize_t n) noexcept
    cdef bint is_here(self, int db, bytes key) except -1
    cdef int moved(self, int db, bytes key, int target_db, bytes target, bint copied) except -1
    cdef int swapped(self, int left, int right) except -1
    cdef int list_moved(self, int record, const char* arguments, const char* end) except -1
