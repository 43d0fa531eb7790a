# RequestParser: the bytes of one connection as frames, in RESP, inline and in the binary protocol.

cdef Py_ssize_t LINE_LIMIT = 64 * 1024


cdef inline int read_number(const char* data, Py_ssize_t n, Py_ssize_t at, int64_t* value, Py_ssize_t* after) noexcept nogil:
    """A decimal line from `at`: 1 read (after set), 0 more needed, -1 not a number, -2 line too long."""
    cdef int64_t number = 0
    cdef Py_ssize_t i = at
    cdef bint negative = False
    cdef unsigned char digit
    cdef const char* found
    if at + 3 < n:
        # Nearly every number has one digit or two.
        digit = <unsigned char> (data[at] - c"0")
        if digit <= 9:
            if data[at + 1] == c"\r":
                value[0] = digit
                after[0] = at + 3
                return 1
            number = digit
            digit = <unsigned char> (data[at + 1] - c"0")
            if digit <= 9 and number and data[at + 2] == c"\r":
                value[0] = number * 10 + digit
                after[0] = at + 4
                return 1
            number = 0
    if i < n and data[i] == c"-":
        negative = True
        i += 1
    while i < n:
        digit = <unsigned char> (data[i] - c"0")
        if digit > 9:
            break
        if i - at > 17 + negative:     # 18 digits always fit
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
    if data[at + negative] == c"0" and i - at > 1:
        # "01" and "-0" are no numbers to a real server.
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
        self.look_into = 0
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
        cdef bint resumed = self.resume_total >= 0
        self.pending_size = -1
        if n == 0:
            return NEED_MORE
        if not resumed:
            found = begin_request(self, data, n)
            if found != FRAME:
                return found
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
                self.pending_at = at
                self.pending_size = number
                break
            if data[at + number] != c"\r" or data[at + number + 1] != c"\n":
                self.error = b"ERR Protocol error: invalid CRLF in request"
                return BROKEN
            if i >= self.capacity:
                self.ensure(i + 1)
            self.offsets[i] = at
            self.spans[i].data = data + at
            self.spans[i].size = number
            i += 1
            at += number + 2
            self.resume_at = at
            self.resume_count = i
        if i < self.resume_total:
            return NEED_MORE
        if resumed:
            # What was found before lay elsewhere.
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
        self.pending_size = -1
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
            if strings <= self.look_into:
                self.find_pending(data, n, strings, end)
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

    cdef int find_pending(self, const char* data, Py_ssize_t n, uint32_t strings, Py_ssize_t end) except -1:
        """Of a binary frame that is not all here, the strings that are, and which one is on its way."""
        cdef Py_ssize_t at = 8
        cdef uint32_t i, size
        self.resume_count = 0
        self.ensure(strings)
        for i in range(strings):
            if n - at < 4:
                return 0
            memcpy(&size, data + at, 4)
            at += 4
            if <Py_ssize_t> size > end - at:
                return 0        # it is broken, which is said when all of it is here
            if <Py_ssize_t> size > n - at:
                self.pending_at = at
                self.pending_size = size
                return 0
            self.offsets[i] = at
            self.resume_count += 1
            at += size
        return 0

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


cdef inline int begin_request(RequestParser parser, const char* data, Py_ssize_t n) except -2:
    """The first line of an array, "*3": FRAME when its strings may follow."""
    cdef int64_t number
    cdef Py_ssize_t at
    cdef int found
    parser.count = 0
    found = read_number(data, n, 1, &number, &at)
    if found == 0:
        return NEED_MORE
    if found < 0 or number > parser.max_strings:
        parser.error = (b"ERR Protocol error: too big mbulk count string" if found == -2
                        else b"ERR Protocol error: invalid multibulk length")
        return BROKEN
    if number <= 0:
        parser.consumed = at
        return EMPTY
    parser.resume_total = number
    parser.resume_count = 0
    parser.resume_at = at
    return FRAME


cdef dict ESCAPES = {110: 10, 114: 13, 116: 9, 98: 8, 97: 7}   # \n \r \t \b \a


cdef list split_inline(bytes line):
    """The words of an inline command, or None when quotes are not balanced: behind a closing one a word must end.

    So it is in every Redis; Valkey 9 reads on, and takes a quote that is one too many for part of the word.
    """
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
                    if i + 1 < n and line[i + 1] not in b" \t\r\n\v\f\0":
                        return None
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
