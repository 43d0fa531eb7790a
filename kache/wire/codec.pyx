"""Wire codecs without I/O: byte queues, the slot hash, request framing, and replies in every dialect.

Owns the bytes of both protocols and nothing else: no sockets, no clock, no commands. A reader either
fills in a frame, or says that it needs more, or says what is broken; it never reserves memory on the
word of a length field. Used by the router, the shards, the clients and the load generator.

    Buffer         a growable byte queue in C memory
    slot_of        CRC16 with {hash tags} modulo 16384 (Redis Cluster specification)
    RequestParser  RESP arrays, inline commands and binary frames -> spans of the input
    put_…          one reply -> bytes, in BINARY, INTERNAL, RESP2 or RESP3
                   (INTERNAL is RESP3 with marks of its own for what RESP3 cannot tell apart:
                   "|" pairs, ";" a decimal double, "?" a value that is missing, "*-1" the null array)
    decode_reply   bytes of the internal dialect or RESP -> Python values
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from kache.errors import CommandError, status_of
from kache.replies import (
    NULL_ARRAY,
    BigNumber,
    DecimalDouble,
    Encoded,
    Missing,
    NullArray,
    Keyed,
    Pairs,
    Messages,
    Push,
    SetReply,
    Verbatim,
    format_double,
)

# Bytes of callers are read through the buffer protocol: one typed memoryview would add 11,000 lines to the generated
# file, and seconds to every installation.

# Limits that hold unless a setting changes them ---------------------------------------------------
DEF_MAX_FRAME = 64 * 1024 * 1024
DEF_MAX_STRINGS = 1048576
DEF_MAX_BULK = 512 * 1024 * 1024
DEF_MAX_INLINE = 64 * 1024          # Redis's PROTO_INLINE_MAX_SIZE

# A buffer that has grown beyond this gives its memory back once it is empty (`Buffer.keep` where it is busy
# and there are few of its kind).
cdef Py_ssize_t KEEP_CAPACITY = 64 * 1024
cdef Py_ssize_t FIRST_CAPACITY = 512


@cython.freelist(64)
cdef class Buffer:
    """A growable byte queue: bytes are appended at `end` and consumed from `start`."""

    def __cinit__(self):
        self.data = NULL
        self.start = self.end = self.capacity = 0
        self.keep = KEEP_CAPACITY

    def __dealloc__(self):
        free(self.data)

    cdef int grow(self, Py_ssize_t extra) except -1:
        """Makes room for `extra` bytes behind `end`, first by moving what is unread to the front."""
        cdef Py_ssize_t used = self.end - self.start
        cdef Py_ssize_t wanted
        cdef char* moved
        # Moving is cheap against growing only if at least half of the buffer was consumed already.
        if self.start and self.start >= used and used + extra <= self.capacity:
            memmove(self.data, self.data + self.start, used)
            self.start = 0
            self.end = used
            return 0
        wanted = self.capacity * 2 if self.capacity else FIRST_CAPACITY
        while wanted < used + extra:
            wanted *= 2
        if self.start == 0:
            moved = <char*> realloc(self.data, wanted)
            if moved == NULL:
                raise MemoryError(f"no memory for a buffer of {wanted} bytes")
        else:
            moved = <char*> malloc(wanted)
            if moved == NULL:
                raise MemoryError(f"no memory for a buffer of {wanted} bytes")
            memcpy(moved, self.data + self.start, used)
            free(self.data)
        self.data = moved
        self.capacity = wanted
        self.start = 0
        self.end = used
        return 0

    cdef void consume(self, Py_ssize_t n) noexcept:
        self.start += n
        if self.start >= self.end:
            self.clear()

    cdef void clear(self) noexcept:
        """Empties the buffer; memory beyond what a connection usually needs goes back."""
        self.start = self.end = 0
        if self.capacity > self.keep:
            self.release()

    cdef void release(self) noexcept:
        free(self.data)
        self.data = NULL
        self.start = self.end = self.capacity = 0

    cdef Buffer split(self, Py_ssize_t mark):
        """Nothing that is large is copied: the new buffer has the memory, this one a copy of what is before `mark`."""
        cdef Buffer rest = Buffer()
        rest.data = self.data
        rest.start = self.start + mark
        rest.end = self.end
        rest.capacity = self.capacity
        self.data = NULL
        self.start = self.end = self.capacity = 0
        self.append(rest.data + rest.start - mark, mark)
        return rest

    def __len__(self):
        return self.end - self.start

    def __bytes__(self):
        return PyBytes_FromStringAndSize(self.data + self.start, self.end - self.start)

    def write(self, source):
        """Appends the bytes of any contiguous buffer."""
        cdef Py_buffer view
        PyObject_GetBuffer(source, &view, PyBUF_SIMPLE)
        try:
            if view.len:
                self.append(<const char*> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def take(self):
        """All bytes, which are consumed."""
        cdef bytes result = PyBytes_FromStringAndSize(self.data + self.start, self.end - self.start)
        self.clear()
        return result


# Slots -------------------------------------------------------------------------------------------
# CRC_TABLES[k][b]: the CRC16 of byte b followed by k zero bytes. With eight of them a key is hashed eight
# bytes at a step ("slicing by 8"), instead of one dependent table look-up per byte.
cdef uint16_t[8][256] CRC_TABLES


cdef void build_crc_tables() noexcept:
    cdef int byte, bit, k
    cdef uint16_t crc
    for byte in range(256):
        crc = <uint16_t> (byte << 8)
        for bit in range(8):
            crc = <uint16_t> ((crc << 1) ^ 0x1021) if crc & 0x8000 else <uint16_t> (crc << 1)
        CRC_TABLES[0][byte] = crc
    for k in range(1, 8):
        for byte in range(256):
            crc = CRC_TABLES[k - 1][byte]
            CRC_TABLES[k][byte] = <uint16_t> (crc << 8) ^ CRC_TABLES[0][crc >> 8]


build_crc_tables()


cdef uint16_t slot_of(const char* key, Py_ssize_t n) noexcept nogil:
    cdef const char* opening = <const char*> memchr(key, c"{", n) if n else NULL
    cdef const char* closing
    cdef const uint8_t* at
    cdef Py_ssize_t rest
    cdef uint16_t crc = 0
    if opening != NULL:
        rest = n - (opening - key) - 1
        closing = <const char*> memchr(opening + 1, c"}", rest) if rest else NULL
        if closing != NULL and closing != opening + 1:
            n = closing - opening - 1
            key = opening + 1
    at = <const uint8_t*> key
    while n >= 8:
        crc = (CRC_TABLES[7][at[0] ^ (crc >> 8)] ^ CRC_TABLES[6][at[1] ^ (crc & 0xFF)] ^ CRC_TABLES[5][at[2]]
               ^ CRC_TABLES[4][at[3]] ^ CRC_TABLES[3][at[4]] ^ CRC_TABLES[2][at[5]] ^ CRC_TABLES[1][at[6]]
               ^ CRC_TABLES[0][at[7]])
        at += 8
        n -= 8
    while n > 0:
        crc = <uint16_t> (crc << 8) ^ CRC_TABLES[0][(crc >> 8) ^ at[0]]
        at += 1
        n -= 1
    return crc & 0x3FFF


def slot_of_key(bytes key not None):
    """The hash slot of `key`, 0 to 16383 (Redis Cluster's function, hash tags included)."""
    return slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))


# Numbers -----------------------------------------------------------------------------------------
cdef bint parse_int64(const char* text, Py_ssize_t n, int64_t* value) noexcept nogil:
    cdef uint64_t magnitude = 0
    cdef uint64_t limit = <uint64_t> INT64_MAX
    cdef Py_ssize_t i = 0
    cdef bint negative = False
    cdef unsigned char digit
    if n == 0 or n > 20:
        return False
    if text[0] == c"-":
        negative = True
        limit += 1
        i = 1
        if n == 1:
            return False
    if text[i] == c"0":
        # A leading zero is only the number zero itself; "-0" is not canonical.
        if n == 1:
            value[0] = 0
            return True
        return False
    while i < n:
        digit = <unsigned char> (text[i] - c"0")
        if digit > 9:
            return False
        if magnitude > (limit - digit) // 10:
            return False
        magnitude = magnitude * 10 + digit
        i += 1
    value[0] = <int64_t> (~magnitude + 1) if negative else <int64_t> magnitude
    return True


cdef const char* DIGIT_PAIRS = (
    b"00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    b"40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    b"8081828384858687888990919293949596979899"
)


cdef int format_int64(char* out, int64_t value) noexcept nogil:
    cdef char[20] digits
    cdef int at = 20, count, pair
    cdef uint64_t rest = <uint64_t> value
    if value < 0:
        rest = ~rest + 1
    while rest >= 100:
        pair = <int> (rest % 100) * 2
        rest //= 100
        at -= 2
        digits[at] = DIGIT_PAIRS[pair]
        digits[at + 1] = DIGIT_PAIRS[pair + 1]
    if rest >= 10:
        at -= 2
        digits[at] = DIGIT_PAIRS[rest * 2]
        digits[at + 1] = DIGIT_PAIRS[rest * 2 + 1]
    else:
        at -= 1
        digits[at] = <char> (c"0" + rest)
    count = 20 - at
    if value < 0:
        out[0] = c"-"
        memcpy(out + 1, digits + at, count)
        return count + 1
    memcpy(out, digits + at, count)
    return count


include "replies.pxi"
include "decode.pxi"
include "requests.pxi"
