# cython: language_level=3
"""Declarations of the wire codecs for the other compiled modules (see codec.pyx)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    BINARY = 0
    INTERNAL = 1
    RESP2 = 2
    RESP3 = 3

cdef enum:
    SLOT_COUNT = 16384
    NO_SLOT = 0xFFFF


cdef extern from *:
    """
    #include <string.h>
    /* memcpy for the few bytes of a key, a value or a reply: without a call, in two loads that may overlap. */
    static inline void kache_copy(char *to, const char *from, size_t n) {
        if (n > 32) { memcpy(to, from, n); return; }
        if (n >= 16) {
            char head[16], tail[16];
            memcpy(head, from, 16); memcpy(tail, from + n - 16, 16);
            memcpy(to, head, 16); memcpy(to + n - 16, tail, 16);
        } else if (n >= 8) {
            char head[8], tail[8];
            memcpy(head, from, 8); memcpy(tail, from + n - 8, 8);
            memcpy(to, head, 8); memcpy(to + n - 8, tail, 8);
        } else if (n >= 4) {
            char head[4], tail[4];
            memcpy(head, from, 4); memcpy(tail, from + n - 4, 4);
            memcpy(to, head, 4); memcpy(to + n - 4, tail, 4);
        } else {
            size_t i;
            for (i = 0; i < n; i++) to[i] = from[i];
        }
    }
    """
    void kache_copy(char* to, const char* source, size_t n) noexcept nogil


cdef class Buffer:
    """A growable byte queue: bytes are appended at `end` and consumed from `start`."""
    cdef char* data
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef Py_ssize_t capacity
    cdef Py_ssize_t keep                # how much an empty buffer may go on holding
    cdef int grow(self, Py_ssize_t extra) except -1
    cdef void consume(self, Py_ssize_t n) noexcept
    cdef void clear(self) noexcept
    cdef void release(self) noexcept
    cdef Buffer split(self, Py_ssize_t mark)    # what is behind `mark` (from start), which takes the memory with it

    cdef inline Py_ssize_t used(self) noexcept:
        return self.end - self.start

    cdef inline char* reserve(self, Py_ssize_t extra) except NULL:
        """Room for `extra` more bytes; returns where they go. The caller advances `end`."""
        if self.end + extra > self.capacity or self.data == NULL:
            self.grow(extra)
        return self.data + self.end

    cdef inline int append(self, const char* source, Py_ssize_t n) except -1:
        kache_copy(self.reserve(n), source, n)
        self.end += n
        return 0

    cdef inline int put_u8(self, uint8_t value) except -1:
        (<uint8_t*> self.reserve(1))[0] = value
        self.end += 1
        return 0

    cdef inline int put_u16(self, uint16_t value) except -1:
        memcpy(self.reserve(2), &value, 2)
        self.end += 2
        return 0

    cdef inline int put_u32(self, uint32_t value) except -1:
        memcpy(self.reserve(4), &value, 4)
        self.end += 4
        return 0

    cdef inline int put_u64(self, uint64_t value) except -1:
        memcpy(self.reserve(8), &value, 8)
        self.end += 8
        return 0


# Slots -------------------------------------------------------------------------------------------
cdef uint16_t slot_of(const char* key, Py_ssize_t n) noexcept nogil

# Replies of the hottest commands, without a Python object ----------------------------------------
cdef int put_null(Buffer out, int dialect) except -1
cdef int put_ok(Buffer out, int dialect) except -1
cdef int put_int(Buffer out, int dialect, int64_t value) except -1
cdef int put_bulk(Buffer out, int dialect, const char* data, Py_ssize_t n) except -1
# In nested position (an element of an array started with put_array_header).
cdef int put_nested_null(Buffer out, int dialect) except -1
cdef int put_nested_bulk(Buffer out, int dialect, const char* data, Py_ssize_t n) except -1
# An array reply of `count` elements; returns the offset from out.start that end_reply wants (binary frames carry a length).
cdef Py_ssize_t begin_array(Buffer out, int dialect, Py_ssize_t count) except -1
# The same of another kind, by its mark in RESP3 or between processes: "%" a map, "~" a set, "|" pairs.
cdef Py_ssize_t begin_reply(Buffer out, int dialect, char kind, Py_ssize_t count) except -1
# A score, as an element or as a whole reply of RESP.
cdef int put_double(Buffer out, int dialect, double value) except -1
cdef int end_reply(Buffer out, int dialect, Py_ssize_t mark) except -1
# "WRONGTYPE Operation against …": the text without '-' and CRLF.
cdef int put_error(Buffer out, int dialect, bytes message) except -1
# Any Python reply value (kache.replies).
cdef int put_reply(Buffer out, int dialect, object value) except -1
# One reply of the internal dialect (or RESP) as a Python value; errors are CommandError objects.
cdef object decode_span(const char* data, Py_ssize_t n)

# Numbers -----------------------------------------------------------------------------------------
# Strict decimal int64 as Redis parses it ("-0", "+1", " 1", "01" are refused). Returns 1 when valid.
cdef bint parse_int64(const char* text, Py_ssize_t n, int64_t* value) noexcept nogil
# Writes the decimal digits of value, returns how many (at most 20).
cdef int format_int64(char* out, int64_t value) noexcept nogil

# Requests ----------------------------------------------------------------------------------------
cdef struct Span:
    const char* data
    Py_ssize_t size

cdef enum:
    NEED_MORE = 0      # the frame is not complete
    FRAME = 1          # spans[0:count] filled, consumed says how many bytes the frame took
    EMPTY = 2          # nothing to execute (an empty line, an empty array); consumed is set
    BROKEN = -1        # protocol error: self.error says what; the connection must be closed after answering it


cdef class RequestParser:
    """Splits one connection's input into frames; keeps its place in a partial frame, so a large one is not rescanned."""
    cdef Span* spans
    cdef Py_ssize_t capacity
    cdef public Py_ssize_t count
    cdef public Py_ssize_t consumed
    cdef public object error            # bytes: text of the protocol error, e.g. b"ERR Protocol error: invalid multibulk length"
    cdef public Py_ssize_t max_frame, max_strings, max_bulk, max_inline
    cdef Py_ssize_t pending_at, pending_size    # after NEED_MORE: where the string begins that is not all here; -1: none
    cdef uint32_t look_into             # binary frames of no more strings are looked into while they are not all here
    # Progress inside a partial RESP array, as offsets from the frame's first byte.
    cdef Py_ssize_t resume_count, resume_at, resume_total
    cdef Py_ssize_t* offsets
    cdef list words                     # keeps the spans of an inline command alive
    cdef int ensure(self, Py_ssize_t n) except -1
    cdef int parse_resp(self, const char* data, Py_ssize_t n) except -2
    cdef int find_pending(self, const char* data, Py_ssize_t n, uint32_t strings, Py_ssize_t end) except -1
    cdef int parse_inline(self, const char* data, Py_ssize_t n) except -2
    cdef int parse_binary(self, const char* data, Py_ssize_t n) except -2
    cdef void reset(self) noexcept
