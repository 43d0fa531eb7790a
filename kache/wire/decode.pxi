# Bytes of a reply back to a Python value: the internal dialect, RESP2 and RESP3.

cdef class _Reader:
    cdef const char* data
    cdef Py_ssize_t at, end
    cdef int depth


class ReplyTooShort(Exception):
    """The bytes end before the reply does."""


# What a length can be, far beyond any limit of a server.
cdef Py_ssize_t MOST_BYTES = <Py_ssize_t> 1 << 46


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


cdef Py_ssize_t length_of(bytes line) except -2:
    """A length or a count, -1 for a null; ValueError for what can be none."""
    length = int(line)
    if not -1 <= length <= MOST_BYTES:
        raise ValueError(f"{length} is no length")
    return length


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
        n = length_of(line)
        if n < 0:
            return None
        line = read_blob(reader, n)
        return Verbatim(line[4:]) if mark == c"=" else line
    if mark == c"_":
        return None
    if mark == c"-" or mark == c"!":
        if mark == c"!":
            n = length_of(line)
            if n < 0:
                raise ValueError("an error without a text")
            line = read_blob(reader, n)
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
    return read_aggregate(reader, mark, length_of(line))


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
            if isinstance(key, (list, dict, set)):
                raise ValueError("a key of a map that is no scalar")
            pairs[key] = read_value(reader)
        reader.depth -= 1
        return pairs
    items = []
    for i in range(n):
        if mark == c"|" or mark == c"&":
            key = read_value(reader)
            items.append((key, read_value(reader)))
        else:
            items.append(read_value(reader))
    reader.depth -= 1
    if mark == c"|":
        return Pairs(items)
    if mark == c"&":
        return Keyed(items)
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


def decode_reply(data, Py_ssize_t start=0):
    """One RESP2, RESP3 or internal reply from `data[start:]` as a Python value, and where it ends.

    Null is None, an error a `CommandError` (returned, not raised). Raises `ReplyTooShort` when the
    bytes end first and ValueError when they are no reply.
    """
    cdef _Reader reader = _Reader()
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if start >= view.len:
            raise ReplyTooShort()
        reader.data = <const char*> view.buf
        reader.at = start
        reader.end = view.len
        value = read_value(reader)
        return value, reader.at
    finally:
        PyBuffer_Release(&view)
