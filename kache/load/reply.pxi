# Where a reply ends, and what it says: both protocols, over bytes that lie in a connection's input buffer.

cdef enum:
    EXPECT_OK = 0           # OK, in either protocol's form (binary: also "no such key")
    EXPECT_INT = 1
    EXPECT_VALUE = 2        # the value stored under the key, or nothing
    EXPECT_VALUES = 3       # an array of those, one for each key
    EXPECT_ARRAY = 4        # any array

cdef enum:
    IS_UNEXPECTED = 0
    IS_RIGHT = 1
    IS_ERROR = 2
    DIGITS = 12             # of a key's number

cdef struct Verdict:
    int kind
    int hits, misses, mismatches
    const char* error       # its text
    Py_ssize_t error_size


cdef Py_ssize_t read_line(const char* p, Py_ssize_t n, int64_t* number) noexcept nogil:
    """The length of a line with its CRLF and the number after its first byte; 0 incomplete, -1 too long for a header."""
    cdef const char* end = <const char*> memchr(p, c"\n", n)
    cdef Py_ssize_t i = 1
    cdef int64_t value = 0
    cdef bint negative = False
    if end == NULL:
        return 0 if n < 65536 else -1
    if i < n and p[i] == c"-":
        negative = True
        i += 1
    while p[i] >= 48 and p[i] <= 57:
        value = value * 10 + (p[i] - 48)
        i += 1
    number[0] = -value if negative else value
    return end - p + 1


cdef Py_ssize_t resp_end(const char* p, Py_ssize_t n, int depth) noexcept nogil:
    """The length of the RESP reply at p; 0 while incomplete, -1 if it is none."""
    cdef int64_t number = 0
    cdef Py_ssize_t at, part
    cdef int64_t i
    if n < 1:
        return 0
    if p[0] == c"+" or p[0] == c"-" or p[0] == c":" or p[0] == c"_" or p[0] == c"#" or p[0] == c"," or p[0] == c"(":
        return read_line(p, n, &number)
    at = read_line(p, n, &number)
    if at <= 0:
        return at
    if p[0] == c"$" or p[0] == c"=" or p[0] == c"!":
        if number < 0:
            return at
        return at + number + 2 if n - at >= number + 2 else 0
    if p[0] != c"*" and p[0] != c"~" and p[0] != c">" and p[0] != c"%":
        return -1
    if depth > 16:
        return -1
    if p[0] == c"%":
        number *= 2
    for i in range(number):
        part = resp_end(p + at, n - at, depth + 1)
        if part <= 0:
            return part
        at += part
    return at


cdef Py_ssize_t binary_end(const char* p, Py_ssize_t n) noexcept nogil:
    """The length of the binary response at p; 0 while incomplete, -1 if it is none."""
    cdef uint32_t length
    if n < 4:
        return 0
    memcpy(&length, p, 4)
    if length < 5 or length >= 0x20000000:
        return -1
    return 4 + <Py_ssize_t> length if n - 4 >= <Py_ssize_t> length else 0


cdef inline bint is_value_of(const char* data, int64_t size, uint32_t key, Py_ssize_t value_size) noexcept nogil:
    """Whether it is what SET stores under this key: the size, and the key's digits in front."""
    cdef char digits[DIGITS]
    cdef int width = <int> (value_size if value_size < DIGITS else DIGITS)
    if size != value_size:
        return False
    put_digits(digits, key, width)
    return memcmp(digits, data, width) == 0


cdef inline void see_value(Verdict* verdict, const char* data, int64_t size, uint32_t key, Py_ssize_t value_size) noexcept nogil:
    if size < 0:
        verdict.misses += 1
    else:
        verdict.hits += 1
        if not is_value_of(data, size, key, value_size):
            verdict.mismatches += 1


cdef void judge_resp(
    Verdict* verdict, const char* p, Py_ssize_t n, int expects, const uint32_t* keys, int nkeys, Py_ssize_t value_size
) noexcept nogil:
    cdef int64_t number = 0
    cdef Py_ssize_t at
    cdef int i
    if p[0] == c"-" or p[0] == c"!":
        at = read_line(p, n, &number) if p[0] == c"!" else 1
        verdict.kind = IS_ERROR
        verdict.error = p + at
        verdict.error_size = n - at - 2
        return
    at = read_line(p, n, &number)
    if expects == EXPECT_OK:
        verdict.kind = IS_RIGHT if p[0] == c"+" else IS_UNEXPECTED
    elif expects == EXPECT_INT:
        verdict.kind = IS_RIGHT if p[0] == c":" else IS_UNEXPECTED
    elif expects == EXPECT_VALUE:
        if p[0] == c"$" or p[0] == c"_":
            verdict.kind = IS_RIGHT
            see_value(verdict, p + at, -1 if p[0] == c"_" else number, keys[0], value_size)
    elif expects == EXPECT_ARRAY:
        if p[0] == c"*":
            verdict.kind = IS_RIGHT
            verdict.hits = number > 0
            verdict.misses = number <= 0
    elif p[0] == c"*" and number == nkeys:
        verdict.kind = IS_RIGHT
        for i in range(nkeys):
            if p[at] != c"$":
                verdict.kind = IS_UNEXPECTED
                return
            p += at
            at = read_line(p, n, &number)
            see_value(verdict, p + at, number, keys[i], value_size)
            at += number + 2 if number >= 0 else 0


cdef void judge_binary(
    Verdict* verdict, const char* p, Py_ssize_t n, int expects, const uint32_t* keys, int nkeys, Py_ssize_t value_size
) noexcept nogil:
    cdef uint32_t status, size = 0
    cdef int tag = <unsigned char> p[8]
    cdef const char* end = p + n
    cdef int i
    memcpy(&status, p + 4, 4)
    if tag == 1 or (status != 0 and status != 2):
        verdict.kind = IS_ERROR
        if n >= 13:
            verdict.error = p + 13
            verdict.error_size = n - 13
        return
    if (tag == 2 or tag == 5) and n >= 13:
        memcpy(&size, p + 9, 4)
    if expects == EXPECT_OK:
        verdict.kind = IS_RIGHT if tag == 0 else IS_UNEXPECTED
    elif expects == EXPECT_INT:
        verdict.kind = IS_RIGHT if tag == 3 or (tag == 0 and status == 2) else IS_UNEXPECTED
    elif status == 2 and tag == 0:
        verdict.kind = IS_RIGHT
        verdict.misses = nkeys
    elif expects == EXPECT_VALUE:
        if tag == 2 and n == 13 + <Py_ssize_t> size:
            verdict.kind = IS_RIGHT
            see_value(verdict, p + 13, size, keys[0], value_size)
    elif expects == EXPECT_ARRAY:
        if tag == 5:
            verdict.kind = IS_RIGHT
            verdict.hits = size > 0
            verdict.misses = size == 0
    elif tag == 5 and size == <uint32_t> nkeys:
        p += 13
        for i in range(nkeys):
            if p < end and p[0] == 0:
                p += 1
                see_value(verdict, NULL, -1, keys[i], value_size)
                continue
            if end - p < 5 or p[0] != 2:
                return
            memcpy(&size, p + 1, 4)
            if end - p < 5 + <Py_ssize_t> size:
                return
            see_value(verdict, p + 5, size, keys[i], value_size)
            p += 5 + size
        verdict.kind = IS_RIGHT if p == end else IS_UNEXPECTED
