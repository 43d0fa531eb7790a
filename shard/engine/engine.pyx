# cython: freethreading_compatible=False
"""The compiled core of a shard: its data, its one execution point, its end of the links.

One extension module of several parts, each in a file of its own, on the structures that are modules with declarations
of their own (memory, entry, heap, queues, miniature, table, packed, listvalue, fields, zset, stream_chunks, stream, effects, sketch;
`__init__.py` draws them all). The interface of
each part is declared in `engine.pxd`. From the bottom up, each built on those above it:

    clock, store, sampling,    the databases: finding, inserting, replacing entries, and the account of their memory; what of
    detached                   them the miniature simulations are told
    packing, packed_fields,    small collections in the block of their entry
    packed_zsets, packed_lists
    keys, strings, lists,      the mutators: every change, once each, over (place, bytes)
    hashes, zsets, streams, names
    walks, expiry, evict       a whole database; what is past its deadline; what goes when memory is full
    budget, defrag             Budget: what this shard may use of the limit that all share; blocks moved so that pages become
                               free
    keyspace                   Keyspace: readers and mutators with Python's types, for the handlers
    sizes                      BigKeys: which keys take most
    meter, context, execute    Context: what a command runs in; Executor: the one execution point
    extension                  the commands of modules, behind its own
    watches, channels,         WATCH; who listens to what is published; what is published of changes
    notifications, tracking    … and told to clients that have read it
    locks                      what keeps others out of a transaction over several shards, and who waits
    listing                    KEYS, of a large database in slices
    bulk                       large replies that are made one after the other while many wait for their clients
    programs                   Program: what a script or a command in Python is while it runs
    compiled_strings,          the hottest commands, without a Python object
    compiled_streams,
    compiled_collections,
    compiled_ranges
    passages                   what commands show of one collection, in one piece or in slices
    ahead, flows, host, link   what the next frames will touch; large arguments and replies, in pieces; Host: what links
                               share, ticks; Link: runs from a router in, replies out
    replay                     the records of a log applied by the mutators
    images, algebra            values in parts, as they travel; unions, intersections and differences of sets
    merge                      a base and the log beside it become one state
"""
import logging
import os
import time
from collections import deque
from heapq import heapify, heappop, heappush

import msgspec
from sortedcontainers import SortedDict

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset
from posix.strings cimport strncasecmp

from ..log.format cimport FRAME_EFFECTS, FRAME_SHARE
from ..log.format cimport FRAME_HEADER as LOG_HEADER
from ..log.writer cimport (
    NO_TROUBLE, POLICY_ALWAYS, TROUBLE_BROKEN, TROUBLE_FULL, TROUBLE_SLOW, TROUBLE_STALLED, Writer,
)
from .blocks cimport block_is_sparse, block_moved, cool_down, heap_bytes, heap_holes
from .effects cimport *
from kache.wire.area cimport PLACED_FROM, Area, accept_area
from kache.wire.board cimport Board
from kache.wire.clock cimport monotonic_ns
from kache.wire.reactor cimport Endpoint, Listener, Reactor
from kache.wire.codec cimport (
    BINARY,
    INTERNAL,
    NO_SLOT,
    RESP2,
    RESP3,
    SLOT_COUNT,
    Buffer,
    Span,
    begin_array,
    begin_reply,
    end_reply,
    format_int64,
    parse_int64,
    put_bulk,
    put_double,
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
    DEFERRED_ABORTED_FORM, DEFERRED_LARGE_FORM, DEFERRED_REPLY_FORM, DEFERRED_TIMED_FORM,
    DROP_PARTS, FLAG_ATOMIC, FLAG_NO_TOUCH, FLAG_RELEASE, FLAG_TRACK, FLAG_UPLOADED, FLAG_WATCHED, FRAME_HEADER,
    IN_CAPITALS, LARGE, FLAG_DIVIDED,
    LINK_CANCEL, LINK_DENIED, LOCK_BUSY, LOCK_CHECKS, LOCK_DIRTY, LOCK_EXTENDS, LOCK_GRANTED, LOCK_LETS_READ, LOCK_LOG_IS_SLOW, LOCK_LOST,
    LOCK_NEEDS_ROOM, LOCK_SHARES, LOCK_STEPS, LOCK_WAITS,
    LINK_CREDIT, LINK_DEFERRED, LINK_HELLO, LINK_HELLO_NO, LINK_HELLO_OK, LINK_NOTICE, LINK_PART, LINK_PUSH,
    LINK_PUBLISHED, LINK_RECEIVED, LINK_RETRY, LINK_UNBLOCK, LINK_UNDELIVERED, LINK_REPLY, LINK_RUN, LINK_SLOW,
    LINK_SLOW_PART, LINK_VERSION, NOTICE_DRAINING, NOTICE_READY, PART_HEADER, PUBLISHED_BROKEN, PUBLISHED_CHANNEL,
    PUBLISHED_FLUSH, PUBLISHED_HEADER, PUBLISHED_KEY, PUBLISHED_PATTERN, PUBLISHED_SHARD_CHANNEL, SUBSCRIBED_KINDS,
    REPLY_ABORTED, REPLY_BLOCKED, REPLY_EXPIRED, REPLY_HEADER, REPLY_LARGE, REPLY_PARKED, PLACED, REPLY_PLACED,
    RUN_COUNT_AT, RUN_DB_AT, RUN_DEADLINE_AT, RUN_DIALECT_AT, RUN_FLAGS_AT, RUN_HEADER, RUN_KIND_AT, RUN_SESSION_AT,
    RUN_REST_AT, RUN_TRANSACTION_AT, RUN_UNRESTRICTED, RUN_USER_AT,
)

from .entry cimport (
    HAS_TTL,
    INTSET,
    MAX_BLOCK,
    PACKED,
    RAW,
    TYPE_HASH,
    TYPE_LIST,
    TYPE_MASK,
    TYPE_SET,
    TYPE_STREAM,
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
    head_size,
    holds_object,
    key_bytes,
    value_bytes,
)
from .fields cimport FieldTable, FieldWalk, fields_from, next_field
from .heap cimport (
    Heap, heap_add, heap_change, heap_check, heap_entry, heap_moved, heap_remove, heap_room, heap_soonest,
)
from .listvalue cimport (
    Chunk, Chunks, ElementWalk, ListValue, Run, Slot, chunk_data, element_at, element_data, element_size, elements_from, next_element,
    packed_size,
)
from .queues cimport (
    Ghosts, Queue, Queued, ghosts_add, ghosts_clear, ghosts_fetch, ghosts_take, queue_check, queue_clear, queue_peek, queue_pop,
    queue_push,
)
from .miniature cimport (
    CACHES, FOLLOW_LRU, FOLLOW_NARROW, FOLLOW_S3FIFO, LFU, LRU, PRESENT_SIZE, RATE_BITS, S3FIFO, Miniatures, in_sample,
    sample_hash,
)
from .memory cimport (
    HASH_SEED, below, free, kache_calloc, kache_random, kache_realloc, kache_siphash13, set_hash_seed, table_hash,
)
from .numbers cimport fill_number, leave_number, put_counted, put_number
from .packed cimport (
    AS_ITEMS, AS_TABLE, HEADER, LARGEST_PACKED, LIST_HEADER, LISTPACK_OVERHEAD, MOST_PACKED, ROOMY, SET_HEADER, TEXT, Item, Marks, back_bytes,
    back_write, element_before, element_span, find_item, find_pair, intset_at, intset_find, intset_width, item_bytes,
    item_of, item_of_int, item_of_score, item_score, item_span, item_text, item_write, limits, list_bytes, list_element,
    list_set_bytes, listpack_bytes, number_width, packed_count, packed_set_count, pair_place, pair_place_by, shortest_int,
    skip_items,
)
from .stream cimport Pending, Stream, format_id, id_bytes, id_of, number_of, parse_id
from .stream_chunks cimport (
    LARGEST_ENTRY, PairWalk, StreamChunk, StreamId, StreamSlot, StreamWalk, compare_ids, entries_from, next_id, next_living,
    next_pair, node_limits, pairs_of,
)
from .table cimport (
    POINTER_BITS,
    POINTER_MASK,
    SCAN_BITS,
    Found,
    Segment,
    Table,
    Walk,
    home_of,
    scan_table,
    segment_at,
    segment_find,
    segment_of,
    segment_span,
    table_check,
    table_drop_storage,
    table_find,
    table_gather,
    table_insert,
    table_places,
    table_random,
    table_room,
    table_remove,
    table_storage,
    table_walk,
    tag_of,
    walk_next,
)
from .zset cimport ADDED, DEEPEST, RESCORED, SAME, Leaf, Ranks, Step, ZSet, entry_score, ranks_at, ranks_first

from msgspec.msgpack import Encoder

from kache.acl.inner import DeniedError
from kache.commands import keys_of, keys_with_flags
from kache.commands.misses import keys_read
from kache.glob import compile_glob
from kache.errors import NOT_INTEGER, OUT_OF_MEMORY, WRONG_TYPE, CommandError
from kache.replies import Keyed, Missing

from .consumer_groups import Group
from .effects import KINDS, kind_of
from .miniature import FOLLOWED

log = logging.getLogger("kache.shard")

include "clock.pxi"
include "store.pxi"
include "sampling.pxi"
include "detached.pxi"
include "packing.pxi"
include "packed_fields.pxi"
include "packed_zsets.pxi"
include "packed_lists.pxi"
include "keys.pxi"
include "strings.pxi"
include "lists.pxi"
include "hashes.pxi"
include "zsets.pxi"
include "streams.pxi"
include "names.pxi"
include "walks.pxi"
include "expiry.pxi"
include "evict.pxi"
include "budget.pxi"
include "defrag.pxi"
include "keyspace.pxi"
include "sizes.pxi"

cdef class Host
cdef class Link(Endpoint)

include "meter.pxi"
include "context.pxi"
include "execute.pxi"
include "extension.pxi"
include "watches.pxi"
include "channels.pxi"
include "notifications.pxi"
include "tracking.pxi"
include "locks.pxi"
include "listing.pxi"
include "bulk.pxi"
include "programs.pxi"
include "compiled_strings.pxi"
include "compiled_streams.pxi"
include "compiled_collections.pxi"
include "compiled_ranges.pxi"
include "passages.pxi"
include "ahead.pxi"
include "flows.pxi"
include "host.pxi"
include "link.pxi"
include "replay.pxi"
include "images.pxi"
include "algebra.pxi"
include "merge.pxi"
