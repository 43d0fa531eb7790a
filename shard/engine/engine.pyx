# cython: freethreading_compatible=False
"""The compiled core of a shard: its keyspace, its one execution point, its end of the links.

One extension module of several parts, each in a file of its own, from the bottom up, on the structures that are modules
with declarations of their own (memory, entry, heap, table, listvalue, fields, zset; `__init__.py` draws them all):

    store.pxi      Store: the databases, their memory, expiry
    values.pxi     Values: keys and strings, as the handlers see them
    collections.pxi    Collections: lists, hashes, sets and sorted sets
    detached.pxi   flushed databases on their way out
    evict.pxi      Evictor: the policies of a full memory
    meter.pxi      counters and latency histogram
    fast.pxi       the hottest commands on keys and strings, without a Python object
    fast_collections.pxi   and those on collections
    execute.pxi    Shard: the one execution point
    ahead.pxi      what the next commands will touch, fetched into the cache
    link.pxi       Link: runs from a router in, replies out
"""
import logging
import time
from heapq import heapify, heappop, heappush

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from kache.wire.reactor cimport Endpoint, Listener, Reactor, monotonic_ns
from kache.wire.codec cimport (
    INTERNAL,
    NO_SLOT,
    RESP2,
    RESP3,
    SLOT_COUNT,
    Buffer,
    Span,
    begin_array,
    end_reply,
    format_int64,
    parse_int64,
    put_bulk,
    put_error,
    put_int,
    put_nested_bulk,
    put_nested_null,
    put_null,
    put_ok,
    put_reply,
    slot_of,
)

from kache.wire.link cimport (
    FLAG_ATOMIC, FLAG_NO_TOUCH, FRAME_HEADER, LINK_CANCEL, LINK_DEFERRED, LINK_HELLO, LINK_HELLO_NO, LINK_HELLO_OK, LINK_NOTICE,
    LINK_PUSH, LINK_REPLY, LINK_RUN, LINK_VERSION, REPLY_DEFERRED, REPLY_EXPIRED, REPLY_HEADER, RUN_HEADER,
)

from .entry cimport (
    HAS_TTL,
    MAX_BLOCK,
    RAW,
    TYPE_HASH,
    TYPE_LIST,
    TYPE_MASK,
    TYPE_SET,
    TYPE_STRING,
    TYPE_ZSET,
    WIDE,
    Entry,
    entry_deadline,
    entry_key,
    entry_key_size,
    entry_memory,
    entry_new,
    entry_object,
    entry_room,
    entry_set_value_size,
    entry_time,
    entry_value,
    entry_value_size,
    key_bytes,
    value_bytes,
)
from .fields cimport FieldTable
from .heap cimport Due, Heap, heap_add, heap_change, heap_check, heap_moved, heap_remove, heap_room
from .listvalue cimport Chunk, ListValue, Slot, chunk_data, element_at, element_data, element_size, packed_size
from .memory cimport below, kache_random, set_hash_seed, table_hash
from .table cimport (
    POINTER_BITS,
    POINTER_MASK,
    Segment,
    Table,
    Walk,
    home_of,
    scan_table,
    segment_find,
    segment_of,
    table_check,
    table_drop_storage,
    table_insert,
    table_random,
    table_room,
    table_remove,
    table_storage,
    table_walk,
    tag_of,
    walk_next,
)
from .zset cimport ADDED, DEEPEST, SAME, Leaf, Step, ZSet, entry_score, ranks_at

from kache.errors import NOT_INTEGER, OUT_OF_MEMORY, WRONG_TYPE, CommandError
from kache.replies import Missing

log = logging.getLogger("kache.shard")

include "store.pxi"
include "values.pxi"
include "collections.pxi"
include "detached.pxi"
include "evict.pxi"
include "meter.pxi"
include "fast.pxi"
include "fast_collections.pxi"
include "execute.pxi"
include "ahead.pxi"
include "link.pxi"
