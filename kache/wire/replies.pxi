# One reply value to bytes, in every dialect.

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
    return begin_reply(out, dialect, c"*", count)


cdef Py_ssize_t begin_reply(Buffer out, int dialect, char kind, Py_ssize_t count) except -1:
    cdef Py_ssize_t mark = out.end - out.start
    if dialect == BINARY:
        put_binary_head(out, 0, STATUS_OK)
    put_array_header(out, dialect, kind, count)
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
    if isinstance(value, Keyed):
        put_array_header(out, dialect, c"*" if flat else c"%" if dialect == RESP3 else c"&", len(value.pairs))
        for member, score in value.pairs:
            if flat:
                put_array_header(out, dialect, c"*", 2)
            put_value(out, dialect, member)
            put_value(out, dialect, score)
        return 0
    if isinstance(value, Encoded):
        put_array_header(out, dialect, c"~" if value.is_set and not flat else c"*", value.count)
        out.reserve(sum([len(chunk) for chunk in value.chunks]))
        for chunk in value.chunks:
            out.append(PyBytes_AS_STRING(<bytes?> chunk), PyBytes_GET_SIZE(<bytes> chunk))
        return 0
    if isinstance(value, (SetReply, Push)):
        put_array_header(out, dialect, c"*" if flat else (c"~" if isinstance(value, SetReply) else c">"), len(value))
        for item in value:
            put_value(out, dialect, item)
        return 0
    if isinstance(value, Messages):
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


def encode_elements(list values not None, int dialect, bint pairs=False):
    """The bytes of values as the elements of an array; `pairs`: two-element tuples, as `Pairs` has them."""
    cdef Buffer out = Buffer()
    for value in values:
        if not pairs:
            put_value(out, dialect, value)
            continue
        if dialect == RESP3:
            put_array_header(out, dialect, c"*", 2)
        put_value(out, dialect, value[0])
        put_value(out, dialect, value[1])
    return bytes(out)


def encode_reply(value, int dialect):
    """The bytes of one reply value in a dialect (0 binary, 1 internal, 2 RESP2, 3 RESP3)."""
    cdef Buffer out = Buffer()
    put_reply(out, dialect, value)
    return bytes(out)
