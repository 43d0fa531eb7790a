# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
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
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from kache.errors import CommandError, status_of
from kache.replies import (
    NULL_ARRAY,
    BigNumber,
    DecimalDouble,
    Missing,
    NullArray,
    Pairs,
    Push,
    SetReply,
    Verbatim,
    format_double,
)

# Limits that hold unless a setting changes them ---------------------------------------------------
DEF_MAX_FRAME = 64 * 1024 * 1024
DEF_MAX_STRINGS = 1048576
DEF_MAX_BULK = 512 * 1024 * 1024
DEF_MAX_INLINE = 64 * 1024          # Redis's PROTO_INLINE_MAX_SIZE

# A buffer that has grown beyond this gives its memory back once it is empty (`Buffer.keep` where it is busy
# and there are few of its kind).
cdef Py_ssize_t KEEP_CAPACITY = 64 * 1024
cdef Py_ssize_t FIRST_CAPACITY = 512


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

    def __len__(self):
        return self.end - self.start

    def __bytes__(self):
        return PyBytes_FromStringAndSize(self.data + self.start, self.end - self.start)

    def write(self, const uint8_t[::1] source):
        """Appends the bytes of any contiguous buffer."""
        if source.shape[0]:
            self.append(<const char*> &source[0], source.shape[0])

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


# Replies -----------------------------------------------------------------------------------------
cdef enum:
    TAG_NIL = 0
    TAG_ERR = 1
    TAG_STR = 2
    TAG_INT = 3
    TAG_DBL = 4
    TAG_ARR = 5

    STATUS_OK = 0
    STATUS_NX = 2


cdef inline int put_text_line(Buffer out, char mark, const char* text, Py_ssize_t n) except -1:
    cdef char* at = out.reserve(n + 3)
    at[0] = mark
    memcpy(at + 1, text, n)
    at[n + 1] = c"\r"
    at[n + 2] = c"\n"
    out.end += n + 3
    return 0


cdef inline int put_number_line(Buffer out, char mark, int64_t value) except -1:
    cdef char* at = out.reserve(24)
    cdef int n
    at[0] = mark
    n = format_int64(at + 1, value)
    at[n + 1] = c"\r"
    at[n + 2] = c"\n"
    out.end += n + 3
    return 0


cdef inline int put_resp_bulk(Buffer out, char mark, const char* data, Py_ssize_t n) except -1:
    cdef char* at = out.reserve(n + 28)
    cdef int digits
    at[0] = mark
    digits = format_int64(at + 1, n)
    at += digits + 1
    at[0] = c"\r"
    at[1] = c"\n"
    memcpy(at + 2, data, n)
    at[n + 2] = c"\r"
    at[n + 3] = c"\n"
    out.end += n + digits + 5
    return 0


cdef inline int put_binary_head(Buffer out, uint32_t size, uint32_t status) except -1:
    """Length and status of a response whose value takes `size` bytes."""
    cdef char* at = out.reserve(8)
    size += 4
    memcpy(at, &size, 4)
    memcpy(at + 4, &status, 4)
    out.end += 8
    return 0


cdef inline int put_binary_string(Buffer out, uint8_t tag, const char* data, Py_ssize_t n) except -1:
    cdef char* at = out.reserve(n + 5)
    cdef uint32_t size = <uint32_t> n
    at[0] = tag
    memcpy(at + 1, &size, 4)
    memcpy(at + 5, data, n)
    out.end += n + 5
    return 0


cdef inline int put_binary_int(Buffer out, int64_t value) except -1:
    cdef char* at = out.reserve(9)
    at[0] = TAG_INT
    memcpy(at + 1, &value, 8)
    out.end += 9
    return 0


cdef int put_null(Buffer out, int dialect) except -1:
    if dialect == RESP2:
        return out.append(b"$-1\r\n", 5)
    if dialect == BINARY:
        put_binary_head(out, 1, STATUS_NX)
        return out.put_u8(TAG_NIL)
    return out.append(b"_\r\n", 3)


cdef int put_ok(Buffer out, int dialect) except -1:
    if dialect == BINARY:
        put_binary_head(out, 1, STATUS_OK)
        return out.put_u8(TAG_NIL)
    return out.append(b"+OK\r\n", 5)


cdef int put_int(Buffer out, int dialect, int64_t value) except -1:
    if dialect == BINARY:
        put_binary_head(out, 9, STATUS_OK)
        return put_binary_int(out, value)
    return put_number_line(out, c":", value)


cdef int put_bulk(Buffer out, int dialect, const char* data, Py_ssize_t n) except -1:
    if dialect == BINARY:
        put_binary_head(out, <uint32_t> (5 + n), STATUS_OK)
        return put_binary_string(out, TAG_STR, data, n)
    return put_resp_bulk(out, c"$", data, n)


cdef int put_nested_null(Buffer out, int dialect) except -1:
    if dialect == BINARY:
        return out.put_u8(TAG_NIL)
    return put_null(out, dialect)


cdef int put_nested_bulk(Buffer out, int dialect, const char* data, Py_ssize_t n) except -1:
    if dialect == BINARY:
        return put_binary_string(out, TAG_STR, data, n)
    return put_resp_bulk(out, c"$", data, n)


cdef Py_ssize_t begin_array(Buffer out, int dialect, Py_ssize_t count) except -1:
    cdef Py_ssize_t mark = out.end - out.start
    if dialect == BINARY:
        put_binary_head(out, 0, STATUS_OK)
    put_array_header(out, dialect, c"*", count)
    return mark


cdef int end_reply(Buffer out, int dialect, Py_ssize_t mark) except -1:
    cdef uint32_t size
    if dialect == BINARY:
        size = <uint32_t> (out.end - out.start - mark - 4)
        memcpy(out.data + out.start + mark, &size, 4)
    return 0


cdef inline int put_array_header(Buffer out, int dialect, char mark, Py_ssize_t count) except -1:
    if dialect == BINARY:
        out.put_u8(TAG_ARR)
        return out.put_u32(<uint32_t> count)
    return put_number_line(out, mark, count)


cdef bytes one_line(bytes text):
    """An error or simple string cannot hold a line break in RESP."""
    if b"\r" in text or b"\n" in text:
        return text.replace(b"\r", b" ").replace(b"\n", b" ")
    return text


cdef int put_error(Buffer out, int dialect, bytes message) except -1:
    cdef Py_ssize_t n
    if dialect == BINARY:
        # An argument quoted in the message may be anything; the protocol promises UTF-8.
        text = message.decode("utf-8", "replace")
        message = text.encode()
        n = PyBytes_GET_SIZE(message)
        put_binary_head(out, <uint32_t> (5 + n), <uint32_t> status_of(text))
        return put_binary_string(out, TAG_ERR, PyBytes_AS_STRING(message), n)
    message = one_line(message)
    return put_text_line(out, c"-", PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))


cdef int put_reply(Buffer out, int dialect, object value) except -1:
    """Encodes any reply value. Raises TypeError for what is not one; `out` is then as it was."""
    cdef Py_ssize_t mark = out.end - out.start
    try:
        if dialect == BINARY:
            return put_binary_reply(out, value)
        return put_value(out, dialect, value)
    except BaseException:
        out.end = out.start + mark
        raise


cdef int put_binary_reply(Buffer out, object value) except -1:
    cdef Py_ssize_t mark = out.end - out.start
    cdef uint32_t status = STATUS_OK
    if isinstance(value, CommandError):
        return put_error(out, BINARY, value.message.encode("utf-8", "surrogateescape"))
    if value is None or value is NULL_ARRAY:
        return put_null(out, BINARY)
    if isinstance(value, Missing):
        status = STATUS_NX
        value = value.value
    put_binary_head(out, 0, status)
    if type(value) is str and value == "OK":
        out.put_u8(TAG_NIL)
    else:
        put_value(out, BINARY, value)
    return end_reply(out, BINARY, mark)


cdef int put_value(Buffer out, int dialect, object value) except -1:
    """A value in nested position, or at the top of a RESP reply."""
    cdef object kind = type(value)
    cdef bytes text
    cdef bint flat = dialect != RESP3 and dialect != INTERNAL
    if kind is bytes:
        return put_nested_bulk(out, dialect, PyBytes_AS_STRING(<bytes> value), PyBytes_GET_SIZE(<bytes> value))
    if kind is int:
        return put_integer(out, dialect, value)
    if value is None:
        return put_nested_null(out, dialect)
    if kind is list or kind is tuple:
        put_array_header(out, dialect, c"*", len(value))
        for item in value:
            put_value(out, dialect, item)
        return 0
    if kind is str:
        text = (<str> value).encode()
        if dialect == BINARY:
            return put_binary_string(out, TAG_STR, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        text = one_line(text)
        return put_text_line(out, c"+", PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    if kind is float:
        return put_double(out, dialect, value)
    if kind is bool:
        if flat:
            return put_integer(out, dialect, int(value))
        return out.append(b"#t\r\n" if value else b"#f\r\n", 4)
    if kind is dict:
        put_array_header(out, dialect, c"*" if flat else c"%", 2 * len(value) if flat else len(value))
        for key, item in (<dict> value).items():
            put_value(out, dialect, key)
            put_value(out, dialect, item)
        return 0
    return put_special(out, dialect, value, flat)


cdef int put_special(Buffer out, int dialect, object value, bint flat) except -1:
    cdef bytes text
    if isinstance(value, Pairs):
        if dialect == INTERNAL:
            put_array_header(out, dialect, c"|", len(value.pairs))
        else:
            put_array_header(out, dialect, c"*", 2 * len(value.pairs) if flat else len(value.pairs))
        for member, score in value.pairs:
            if dialect == RESP3:
                put_array_header(out, dialect, c"*", 2)
            put_value(out, dialect, member)
            put_value(out, dialect, score)
        return 0
    if isinstance(value, (SetReply, Push)):
        put_array_header(out, dialect, c"*" if flat else (c"~" if isinstance(value, SetReply) else c">"), len(value))
        for item in value:
            put_value(out, dialect, item)
        return 0
    if isinstance(value, (Verbatim, BigNumber)):
        text = value.text if isinstance(value, Verbatim) else value.digits
        if flat:
            return put_nested_bulk(out, dialect, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        if isinstance(value, BigNumber):
            return put_text_line(out, c"(", PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        text = b"txt:" + text
        return put_resp_bulk(out, c"=", PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    if isinstance(value, DecimalDouble):
        text = value.text
        if dialect == BINARY:
            return put_double(out, dialect, value.value)
        if dialect == RESP2:
            return put_resp_bulk(out, c"$", PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        return put_text_line(out, c";" if dialect == INTERNAL else c",", PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    if isinstance(value, Missing):
        if dialect == INTERNAL:
            out.append(b"?\r\n", 3)
        return put_value(out, dialect, value.value)
    if isinstance(value, NullArray):
        if dialect == RESP2 or dialect == INTERNAL:
            return out.append(b"*-1\r\n", 5)
        return put_nested_null(out, dialect)
    if isinstance(value, CommandError):
        text = value.message.encode("utf-8", "surrogateescape")
        if dialect == BINARY:
            return put_binary_string(out, TAG_ERR, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        return put_error(out, dialect, text)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return put_value(out, dialect, bytes(value))
    if isinstance(value, (list, tuple)):
        return put_value(out, dialect, list(value))
    raise TypeError(f"a reply cannot be of type {type(value).__name__}")


cdef int put_integer(Buffer out, int dialect, object value) except -1:
    cdef int64_t number
    try:
        number = value
    except OverflowError:
        raise TypeError(f"an integer reply has 64 bits, not {value.bit_length()}") from None
    if dialect == BINARY:
        return put_binary_int(out, number)
    return put_number_line(out, c":", number)


cdef int put_double(Buffer out, int dialect, double value) except -1:
    cdef char* at
    cdef bytes text
    cdef char[24] digits
    cdef int n
    if dialect == BINARY:
        at = out.reserve(9)
        at[0] = TAG_DBL
        memcpy(at + 1, &value, 8)
        out.end += 9
        return 0
    # Scores are whole numbers more often than not: those need no Python.
    if -1e15 < value < 1e15 and value == <double> <int64_t> value and value != 0:
        n = format_int64(digits, <int64_t> value)
        if dialect == RESP2:
            return put_resp_bulk(out, c"$", digits, n)
        return put_text_line(out, c",", digits, n)
    text = format_double(value)
    if dialect == RESP2:
        return put_resp_bulk(out, c"$", PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return put_text_line(out, c",", PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


def encode_reply(value, int dialect):
    """The bytes of one reply value in a dialect (0 binary, 1 internal, 2 RESP2, 3 RESP3)."""
    cdef Buffer out = Buffer()
    put_reply(out, dialect, value)
    return bytes(out)


# Reading replies ---------------------------------------------------------------------------------
cdef class _Reader:
    cdef const char* data
    cdef Py_ssize_t at, end
    cdef int depth


class ReplyTooShort(Exception):
    """The bytes end before the reply does."""


cdef bytes read_line(_Reader reader):
    cdef const char* found
    cdef bytes line
    if reader.at >= reader.end:
        raise ReplyTooShort()
    found = <const char*> memchr(reader.data + reader.at, c"\n", reader.end - reader.at)
    if found == NULL:
        raise ReplyTooShort()
    if found == reader.data + reader.at or (found - 1)[0] != c"\r":
        raise ValueError("a reply line does not end with CRLF")
    line = PyBytes_FromStringAndSize(reader.data + reader.at, found - reader.data - reader.at - 1)
    reader.at = found - reader.data + 1
    return line


cdef bytes read_blob(_Reader reader, Py_ssize_t n):
    cdef bytes blob
    if n > reader.end - reader.at - 2:
        raise ReplyTooShort()
    blob = PyBytes_FromStringAndSize(reader.data + reader.at, n)
    reader.at += n + 2
    return blob


cdef object read_value(_Reader reader):
    cdef bytes line = read_line(reader)
    cdef char mark
    cdef Py_ssize_t n, i
    cdef list items
    if not line:
        raise ValueError("an empty line where a reply should start")
    mark = PyBytes_AS_STRING(line)[0]
    line = line[1:]
    if mark == c"+":
        return line.decode()
    if mark == c":":
        return int(line)
    if mark == c"$" or mark == c"=":
        n = int(line)
        if n < 0:
            return None
        line = read_blob(reader, n)
        return Verbatim(line[4:]) if mark == c"=" else line
    if mark == c"_":
        return None
    if mark == c"-" or mark == c"!":
        if mark == c"!":
            line = read_blob(reader, int(line))
        return CommandError(line.decode("utf-8", "replace"))
    if mark == c"," :
        return float(line)
    if mark == c"#":
        return line == b"t"
    if mark == c"(":
        return BigNumber(line)
    if mark == c";":
        return DecimalDouble(float(line), line)
    if mark == c"?":
        return Missing(read_value(reader))
    return read_aggregate(reader, mark, int(line))


cdef object read_aggregate(_Reader reader, char mark, Py_ssize_t n):
    cdef Py_ssize_t i
    cdef dict pairs
    cdef list items
    if n < 0:
        return NULL_ARRAY
    reader.depth += 1
    if reader.depth > 128:
        raise ValueError("a reply is nested deeper than 128 levels")
    if mark == c"%":
        pairs = {}
        for i in range(n):
            key = read_value(reader)
            pairs[key] = read_value(reader)
        reader.depth -= 1
        return pairs
    items = []
    for i in range(n):
        if mark == c"|":
            key = read_value(reader)
            items.append((key, read_value(reader)))
        else:
            items.append(read_value(reader))
    reader.depth -= 1
    if mark == c"|":
        return Pairs(items)
    if mark == c"*":
        return items
    if mark == c"~":
        return SetReply(items)
    if mark == c">":
        return Push(items)
    raise ValueError(f"no reply starts with {chr(mark)!r}")


cdef object decode_span(const char* data, Py_ssize_t n):
    cdef _Reader reader = _Reader()
    reader.data = data
    reader.at = 0
    reader.end = n
    return read_value(reader)


def decode_reply(const uint8_t[::1] data not None, Py_ssize_t start=0):
    """One RESP2, RESP3 or internal reply from `data[start:]` as a Python value, and where it ends.

    Null is None, an error a `CommandError` (returned, not raised). Raises `ReplyTooShort` when the
    bytes end first and ValueError when they are no reply.
    """
    cdef _Reader reader = _Reader()
    if start >= data.shape[0]:
        raise ReplyTooShort()
    reader.data = <const char*> &data[0]
    reader.at = start
    reader.end = data.shape[0]
    value = read_value(reader)
    return value, reader.at


# Requests ----------------------------------------------------------------------------------------
cdef Py_ssize_t LINE_LIMIT = 64 * 1024


cdef inline int read_number(const char* data, Py_ssize_t n, Py_ssize_t at, int64_t* value, Py_ssize_t* after) noexcept nogil:
    """A decimal line from `at`: 1 read (after set), 0 more needed, -1 not a number, -2 line too long."""
    cdef int64_t number = 0
    cdef Py_ssize_t i = at
    cdef bint negative = False
    cdef unsigned char digit
    cdef const char* found
    if i < n and data[i] == c"-":
        negative = True
        i += 1
    while i < n:
        digit = <unsigned char> (data[i] - c"0")
        if digit > 9:
            break
        if i - at > 18:
            return -1
        number = number * 10 + digit
        i += 1
    if i >= n:
        return 0 if n - at <= LINE_LIMIT else -2
    if data[i] != c"\r" or i == at + negative:
        found = <const char*> memchr(data + i, c"\r", n - i)
        if found == NULL:
            return 0 if n - at <= LINE_LIMIT else -2
        return -1
    if i + 1 >= n:
        return 0
    value[0] = -number if negative else number
    after[0] = i + 2
    return 1


cdef class RequestParser:
    """Splits one connection's input into frames; keeps its place in a partial frame.

    The parse_… methods look at `data[0:n]`, which must start at a frame's first byte (the same bytes
    again, with more behind them, after NEED_MORE). After FRAME, `spans[0:count]` point into `data`.
    """

    def __cinit__(self):
        self.spans = NULL
        self.offsets = NULL
        self.capacity = 0
        self.max_frame = DEF_MAX_FRAME
        self.max_strings = DEF_MAX_STRINGS
        self.max_bulk = DEF_MAX_BULK
        self.max_inline = DEF_MAX_INLINE
        self.reset()
        self.ensure(16)

    def __dealloc__(self):
        free(self.spans)
        free(self.offsets)

    cdef int ensure(self, Py_ssize_t n) except -1:
        """Room for n spans; grows with what was really received, never to a declared count at once."""
        cdef Py_ssize_t wanted = self.capacity if self.capacity else 16
        cdef Span* spans
        cdef Py_ssize_t* offsets
        if n <= self.capacity:
            return 0
        while wanted < n:
            wanted *= 2
        spans = <Span*> realloc(self.spans, wanted * sizeof(Span))
        if spans == NULL:
            raise MemoryError("no memory for a request's arguments")
        self.spans = spans
        offsets = <Py_ssize_t*> realloc(self.offsets, wanted * sizeof(Py_ssize_t))
        if offsets == NULL:
            raise MemoryError("no memory for a request's arguments")
        self.offsets = offsets
        self.capacity = wanted
        return 0

    cdef void reset(self) noexcept:
        self.count = 0
        self.consumed = 0
        self.error = None
        self.resume_count = 0
        self.resume_at = 0
        self.resume_total = -1
        if self.capacity > 4096:
            # One huge command must not keep its argument table for the life of the connection.
            free(self.spans)
            free(self.offsets)
            self.spans = <Span*> malloc(16 * sizeof(Span))
            self.offsets = <Py_ssize_t*> malloc(16 * sizeof(Py_ssize_t))
            self.capacity = 16 if self.spans != NULL and self.offsets != NULL else 0

    cdef int parse_resp(self, const char* data, Py_ssize_t n) except -2:
        """One RESP array of bulk strings ("*2\\r\\n$3\\r\\nGET…")."""
        cdef int64_t number
        cdef Py_ssize_t at, i
        cdef int found
        if n == 0:
            return NEED_MORE
        if self.resume_total < 0:
            self.count = 0
            found = read_number(data, n, 1, &number, &at)
            if found == 0:
                return NEED_MORE
            if found < 0 or number > self.max_strings:
                self.error = (b"ERR Protocol error: too big mbulk count string" if found == -2
                              else b"ERR Protocol error: invalid multibulk length")
                return BROKEN
            if number <= 0:
                self.consumed = at
                return EMPTY
            self.resume_total = number
            self.resume_count = 0
            self.resume_at = at
        at = self.resume_at
        i = self.resume_count
        while i < self.resume_total:
            if at >= n:
                break
            if data[at] != c"$":
                self.error = b"ERR Protocol error: expected '$', got '%c'" % (<unsigned char> data[at])
                return BROKEN
            found = read_number(data, n, at + 1, &number, &at)
            if found == 0:
                break
            if found < 0 or number < 0 or number > self.max_bulk:
                self.error = (b"ERR Protocol error: too big bulk count string" if found == -2
                              else b"ERR Protocol error: invalid bulk length")
                return BROKEN
            if at + number > self.max_frame:
                self.error = b"ERR Protocol error: request larger than %d bytes" % self.max_frame
                return BROKEN
            if number + 2 > n - at:
                break
            if data[at + number] != c"\r" or data[at + number + 1] != c"\n":
                self.error = b"ERR Protocol error: invalid CRLF in request"
                return BROKEN
            if i >= self.capacity:
                self.ensure(i + 1)
            self.offsets[i] = at
            self.spans[i].size = number
            i += 1
            at += number + 2
            self.resume_at = at
            self.resume_count = i
        if i < self.resume_total:
            return NEED_MORE
        for i in range(self.resume_total):
            self.spans[i].data = data + self.offsets[i]
        self.count = self.resume_total
        self.consumed = at
        self.resume_total = -1
        return FRAME

    cdef int parse_binary(self, const char* data, Py_ssize_t n) except -2:
        """One length-prefixed binary frame."""
        cdef uint32_t length, strings, size
        cdef Py_ssize_t at = 8, end
        cdef uint32_t i
        if n < 4:
            return NEED_MORE
        memcpy(&length, data, 4)
        if length < 4 or <Py_ssize_t> length > self.max_frame:
            self.error = b"ERR Protocol error: frame of %d bytes (the limit is %d)" % (length, self.max_frame)
            return BROKEN
        if n < 8:
            return NEED_MORE
        memcpy(&strings, data + 4, 4)
        # Every string takes four bytes at least, so a count that cannot fit is refused before its bytes arrive.
        if strings == 0 or <Py_ssize_t> strings > self.max_strings or 4 * <uint64_t> strings > <uint64_t> length - 4:
            self.error = b"ERR Protocol error: frame with %d strings" % strings
            return BROKEN
        end = 4 + <Py_ssize_t> length
        if n < end:
            return NEED_MORE
        self.ensure(strings)
        for i in range(strings):
            if end - at < 4:
                self.error = b"ERR Protocol error: strings do not fill the frame"
                return BROKEN
            memcpy(&size, data + at, 4)
            at += 4
            if <Py_ssize_t> size > end - at:
                self.error = b"ERR Protocol error: strings do not fill the frame"
                return BROKEN
            self.spans[i].data = data + at
            self.spans[i].size = size
            at += size
        if at != end:
            self.error = b"ERR Protocol error: strings do not fill the frame"
            return BROKEN
        self.count = strings
        self.consumed = end
        return FRAME

    cdef int parse_inline(self, const char* data, Py_ssize_t n) except -2:
        """One line of words separated by blanks, quoted as in a shell ("SET k \\"a b\\"")."""
        cdef const char* found = <const char*> memchr(data, c"\n", n) if n else NULL
        cdef Py_ssize_t end, i
        cdef list words
        if found == NULL:
            if n > self.max_inline:
                self.error = b"ERR Protocol error: too big inline request"
                return BROKEN
            return NEED_MORE
        end = found - data
        self.consumed = end + 1
        if end > self.max_inline:
            self.error = b"ERR Protocol error: too big inline request"
            return BROKEN
        if end and data[end - 1] == c"\r":
            end -= 1
        words = split_inline(PyBytes_FromStringAndSize(data, end))
        if words is None:
            self.error = b"ERR Protocol error: unbalanced quotes in request"
            return BROKEN
        if not words:
            return EMPTY
        self.ensure(len(words))
        # Quoting may have changed the bytes, so the spans point into objects that live until the next frame.
        self.words = words
        for i in range(len(words)):
            self.spans[i].data = PyBytes_AS_STRING(<bytes> words[i])
            self.spans[i].size = PyBytes_GET_SIZE(<bytes> words[i])
        self.count = len(words)
        return FRAME

    def parse(self, bytes data not None, str kind):
        """For tests: (state, strings or None, consumed) of `data` read as "resp", "inline" or "binary"."""
        cdef int state
        cdef const char* start = PyBytes_AS_STRING(data)
        if kind == "resp":
            state = self.parse_resp(start, PyBytes_GET_SIZE(data))
        elif kind == "inline":
            state = self.parse_inline(start, PyBytes_GET_SIZE(data))
        else:
            state = self.parse_binary(start, PyBytes_GET_SIZE(data))
        strings = None
        if state == FRAME:
            strings = [self.spans[i].data[: self.spans[i].size] for i in range(self.count)]
        return state, strings, (self.consumed if state > 0 else 0)


cdef dict ESCAPES = {110: 10, 114: 13, 116: 9, 98: 8, 97: 7}   # \n \r \t \b \a


cdef list split_inline(bytes line):
    """The words of an inline command, or None when quotes are not balanced (the rules of Valkey 9)."""
    cdef list words = []
    cdef Py_ssize_t i = 0, n = len(line)
    cdef bytearray word
    cdef int quote, byte
    while True:
        while i < n and line[i] in b" \t\r\n\v\f\0":
            i += 1
        if i >= n:
            return words
        word = bytearray()
        quote = 0
        while True:
            byte = line[i] if i < n else -1
            if quote:
                if byte < 0:
                    return None
                if quote == 34 and byte == 92 and i + 1 < n:
                    i += 1
                    if line[i] == 120 and i + 2 < n and is_hex(line[i + 1]) and is_hex(line[i + 2]):
                        word.append(int(line[i + 1:i + 3], 16))
                        i += 2
                    else:
                        word.append(ESCAPES.get(line[i], line[i]))
                elif quote == 39 and byte == 92 and i + 1 < n and line[i + 1] == 39:
                    i += 1
                    word.append(39)
                elif byte == quote:
                    quote = 0
                else:
                    word.append(byte)
            elif byte < 0 or byte in b" \t\r\n\v\f\0":
                break
            elif byte == 34 or byte == 39:
                quote = byte
            else:
                word.append(byte)
            i += 1
        words.append(bytes(word))


cdef bint is_hex(int byte):
    return 48 <= byte <= 57 or 65 <= byte <= 70 or 97 <= byte <= 102
