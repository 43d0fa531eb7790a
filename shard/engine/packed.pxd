"""The packed form of a small collection: one run of bytes, which lies in the block of its key's entry, behind the key.

    hash            u16 count | field | value | field | value …           in the order of insertion
    set             u16 count | member | member …                         in the order of insertion
    set of integers u16 count | u8 width | integers of that many bytes …  ascending (INTSET, beside PACKED)
    zset            u16 count | member | score | member | score …         in the order of the set
    list            u16 count | u32 listpack bytes | element | back | element | back …

    item     0x00…0x7F                  a byte string of that length, which follows
             0x80…0xBF                  an integer of 0 to 63
             0xC1…0xC8 | 1 to 8 bytes   an integer, two's complement, little-endian, no byte more than it needs
             0xD0 | LEB128 | bytes      a longer byte string
             0xD1 | 8 bytes             a double, for a score that is no integer up to 2^53
    back     the bytes of the element before it, to be read from the tail: u8, or u32 | 0xFF from 255 on

An integer is what its decimal text says, if that is the shortest one ("7", not "07" or "+7"). So each byte string has
exactly one item, and what is looked for is made an item once and compared as bytes.

An entry says by its flags that it is packed (entry.pxd); all others of its type hold a Python object. There is no
object and no table for a packed one: what reads it walks the bytes, at most a few kilobytes by Redis's limits. Who
changes one (packing.pxi) makes room in the block first, which may fail and then leaves everything as it was, and then
moves bytes, which cannot. A block grows by what is needed, malloc's own rounding on top; from ROOMY bytes on by a
sixteenth, so that the copies of a collection that grows one by one do not add up. It shrinks when half of it is free.

What reads is inline here, but for the long walks over MANY_BYTES and more, which packed.pyx has. `limits`, the settings
that say how much is small, are the process's.
"""
from libc.math cimport floor
from libc.stdint cimport INT64_MIN, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from kache.wire.codec cimport Span, format_int64

cdef enum:
    HEADER = 2                  # bytes of the count
    LIST_HEADER = 6
    SET_HEADER = 3              # of a set of integers
    MOST_PACKED = 65535         # elements, whatever the settings say: the count has 16 bits
    LARGEST_PACKED = 1048576    # bytes, likewise: a change moves them
    ROOMY = 512
    LISTPACK_OVERHEAD = 7       # bytes of the real server's listpack without elements
    TEXT = 24                   # bytes of an integer's text, at most
    MANY_BYTES = 512            # from here on a walk guesses how long the items are

    ITEM_NUMBER = 0x80
    ITEM_WIDE_NUMBER = 0xC0
    ITEM_LONG = 0xD0
    ITEM_DOUBLE = 0xD1
    LONG_BACK = 0xFF

cdef extern from *:
    """
    #define KACHE_AS_TABLE ((size_t) -1)
    #define KACHE_AS_ITEMS ((size_t) -2)
    """
    # In the place of how many bytes will follow: what the real server does with a command of so many arguments, or long ones.
    const size_t AS_TABLE "KACHE_AS_TABLE"      # it makes a table for it before it looks at any
    const size_t AS_ITEMS "KACHE_AS_ITEMS"      # a new set is no set of integers, even if its first member is one

cdef struct Item:
    # What an item is to be: its first bytes and, for a byte string, where the others are.
    const char* data
    size_t size
    uint8_t[12] head
    uint8_t head_size

cdef struct Limits:
    uint32_t hash_entries, hash_value, set_entries, set_value, set_integers, zset_entries, zset_value
    uint32_t list_entries, list_bytes   # list_bytes as the real server's listpack has them

cdef Limits limits

cdef const char* find_among_many(const char* at, const char* end, const Item* item, bint pairs) noexcept nogil
cdef const char* pair_place_among_many(
    const char* at, const char* end, double score, const char* member, size_t n) noexcept nogil

cdef enum:
    MOST_MARKS = 32

cdef struct Marks:
    # Of a walk over pairs in order: where some of those are that it has passed, by which a place among them is found soon.
    const char* at[MOST_MARKS]
    int count

cdef const char* find_and_mark(const char* at, const char* end, const Item* item, Marks* marks) noexcept nogil


# Making items -----------------------------------------------------------------------------------------
cdef inline bint shortest_int(const char* text, size_t n, int64_t* number) noexcept nogil:
    """Whether a text is the shortest decimal of an int64."""
    cdef uint64_t value = 0
    cdef uint8_t digit
    cdef bint negative
    cdef size_t i
    if n == 0 or n > 20:
        return False
    negative = text[0] == c"-"
    i = 1 if negative else 0
    if n == i or <uint8_t> (text[i] - c"0") > 9:
        return False
    if text[i] == c"0":
        number[0] = 0
        return n == 1
    if n - i > 19:
        return False
    while i < n:
        digit = <uint8_t> (text[i] - c"0")
        if digit > 9:
            return False
        value = value * 10 + digit      # at most 19 digits: below 2^64
        i += 1
    if value > (<uint64_t> 1 << 63) - (0 if negative else 1):
        return False
    number[0] = <int64_t> (0 - value) if negative else <int64_t> value
    return True


cdef inline int number_width(int64_t number) noexcept nogil:
    """Bytes of two's complement that hold it."""
    cdef uint64_t bits = <uint64_t> (number if number >= 0 else ~number)
    cdef int n = 1
    while n < 8 and bits >> (8 * n - 1):
        n += 1
    return n


cdef inline Item item_of_int(int64_t number) noexcept nogil:
    cdef Item item
    cdef int n
    item.data = NULL
    item.size = 0
    if 0 <= number < 64:
        item.head[0] = <uint8_t> (ITEM_NUMBER + number)
        item.head_size = 1
        return item
    n = number_width(number)
    item.head[0] = <uint8_t> (ITEM_WIDE_NUMBER + n)
    memcpy(item.head + 1, &number, 8)   # little-endian, as all of the engine
    item.head_size = <uint8_t> (1 + n)
    return item


cdef inline Item item_of(const char* data, size_t n) noexcept nogil:
    cdef Item item
    cdef int64_t number
    cdef size_t left = n
    if shortest_int(data, n, &number):
        return item_of_int(number)
    item.data = data
    item.size = n
    if n < ITEM_NUMBER:
        item.head[0] = <uint8_t> n
        item.head_size = 1
        return item
    item.head[0] = ITEM_LONG
    item.head_size = 1
    while left >= 0x80:
        item.head[item.head_size] = <uint8_t> (left & 0x7F | 0x80)
        item.head_size += 1
        left >>= 7
    item.head[item.head_size] = <uint8_t> left
    item.head_size += 1
    return item


cdef inline Item item_of_score(double score) noexcept nogil:
    """No NaN; -0.0 becomes 0."""
    cdef Item item
    if -9007199254740992.0 <= score <= 9007199254740992.0 and floor(score) == score:
        return item_of_int(<int64_t> score)
    item.data = NULL
    item.size = 0
    item.head[0] = ITEM_DOUBLE
    memcpy(item.head + 1, &score, 8)
    item.head_size = 9
    return item


cdef inline size_t item_bytes(const Item* item) noexcept nogil:
    return item.head_size + item.size


cdef inline char* item_write(char* at, const Item* item) noexcept nogil:
    """Behind it."""
    at[0] = <char> item.head[0]
    if item.head_size > 1:
        memcpy(at + 1, item.head + 1, item.head_size - 1)
    if item.size:
        memcpy(at + item.head_size, item.data, item.size)
    return at + item.head_size + item.size


# Reading items ----------------------------------------------------------------------------------------
cdef inline size_t long_length(const char* at, size_t* length) noexcept nogil:
    """Bytes of the LEB128 at `at`."""
    cdef size_t n = 0
    length[0] = 0
    while True:
        length[0] |= <size_t> (<uint8_t> at[n] & 0x7F) << (7 * n)
        n += 1
        if <uint8_t> at[n - 1] < 0x80:
            return n


cdef inline size_t item_span(const char* at) noexcept nogil:
    """Bytes of the item."""
    cdef uint8_t first = <uint8_t> at[0]
    cdef size_t length
    if first < ITEM_NUMBER:
        return 1 + <size_t> first
    if first < ITEM_WIDE_NUMBER:
        return 1
    if first < ITEM_LONG:
        return 1 + <size_t> (first - ITEM_WIDE_NUMBER)
    if first == ITEM_DOUBLE:
        return 9
    return 1 + long_length(at + 1, &length) + length


cdef inline int64_t wide_number(const char* at, int width) noexcept nogil:
    """The integer of so many bytes; the usual widths without a call to copy them."""
    cdef uint64_t bits = 0
    cdef int16_t two
    cdef int32_t four
    cdef int shift = 8 * (8 - width)
    if width == 1:
        return <int8_t> at[0]
    if width == 2:
        memcpy(&two, at, 2)
        return two
    if width == 4:
        memcpy(&four, at, 4)
        return four
    memcpy(&bits, at, width)
    return <int64_t> (bits << shift) >> shift


cdef inline int64_t item_number(const char* at) noexcept nogil:
    """Of an integer's item."""
    cdef uint8_t first = <uint8_t> at[0]
    return first - ITEM_NUMBER if first < ITEM_WIDE_NUMBER else wide_number(at + 1, first - ITEM_WIDE_NUMBER)


cdef inline double item_score(const char* at) noexcept nogil:
    cdef double score
    if <uint8_t> at[0] != ITEM_DOUBLE:
        return <double> item_number(at)
    memcpy(&score, at + 1, 8)
    return score


cdef inline Span item_text(const char* at, char* scratch) noexcept nogil:
    """The byte string that an item stands for; an integer's text is written to `scratch`, of TEXT bytes."""
    cdef uint8_t first = <uint8_t> at[0]
    cdef Span span
    cdef size_t n, length
    if first < ITEM_NUMBER:
        span.data = at + 1
        span.size = first
    elif first == ITEM_LONG:
        n = long_length(at + 1, &length)
        span.data = at + 1 + n
        span.size = <Py_ssize_t> length
    else:
        span.data = scratch
        span.size = format_int64(scratch, item_number(at))
    return span


cdef inline bint same_bytes(const char* left, const char* right, size_t n) noexcept nogil:
    """Whether `n` bytes, at least one, are the same. Names that start alike differ at their end, which is looked at first;
    no call, since most are compared with what they are not."""
    cdef uint64_t one, other
    cdef uint32_t half, other_half
    if n >= 8:
        memcpy(&one, left + n - 8, 8)
        memcpy(&other, right + n - 8, 8)
        if one != other:
            return False
        while n > 8:
            memcpy(&one, left, 8)
            memcpy(&other, right, 8)
            if one != other:
                return False
            left += 8
            right += 8
            n -= 8
            if n < 8:
                return True     # the last eight were the same
        return True
    if n >= 4:
        memcpy(&half, left + n - 4, 4)
        memcpy(&other_half, right + n - 4, 4)
        if half != other_half:
            return False
        memcpy(&half, left, 4)
        memcpy(&other_half, right, 4)
        return half == other_half
    while n:
        n -= 1
        if left[n] != right[n]:
            return False
    return True


cdef inline bint item_equals(const char* at, const Item* item) noexcept nogil:
    """Whether an item that begins with the same byte is the same: all but the longer byte strings have the same length then."""
    if item.head[0] == ITEM_LONG:
        return memcmp(at, item.head, item.head_size) == 0 and same_bytes(at + item.head_size, item.data, item.size)
    if item.size:
        return same_bytes(at + 1, item.data, item.size)
    return item.head_size == 1 or same_bytes(at + 1, <const char*> item.head + 1, item.head_size - 1)


# Blocks -----------------------------------------------------------------------------------------------
cdef inline uint32_t packed_count(const char* block) noexcept nogil:
    cdef uint16_t count
    memcpy(&count, block, 2)
    return count


cdef inline void packed_set_count(char* block, uint32_t count) noexcept nogil:
    cdef uint16_t narrow = <uint16_t> count
    memcpy(block, &narrow, 2)


cdef inline const char* find_item(const char* at, const char* end, const Item* item, bint pairs) noexcept nogil:
    """Of items one after the other, or of pairs the one that begins with the item; NULL: it is not there."""
    if end - at >= MANY_BYTES:
        return find_among_many(at, end, item, pairs)
    while at < end:
        if <uint8_t> at[0] == item.head[0] and item_equals(at, item):
            return at
        at += item_span(at)
        if pairs:
            at += item_span(at)
    return NULL


cdef inline const char* skip_items(const char* at, uint32_t n) noexcept nogil:
    while n:
        at += item_span(at)
        n -= 1
    return at


# Lists ------------------------------------------------------------------------------------------------
cdef inline size_t back_bytes(size_t span) noexcept nogil:
    return 1 if span < LONG_BACK else 5


cdef inline char* back_write(char* at, size_t span) noexcept nogil:
    cdef uint32_t wide = <uint32_t> span
    if span < LONG_BACK:
        at[0] = <char> span
        return at + 1
    memcpy(at, &wide, 4)
    at[4] = <char> LONG_BACK
    return at + 5


cdef inline size_t element_span(const char* at) noexcept nogil:
    """Bytes of an element of a list, with what is behind it."""
    cdef size_t span = item_span(at)
    return span + back_bytes(span)


cdef inline const char* element_before(const char* at) noexcept nogil:
    """The element that ends at `at`."""
    cdef uint32_t wide
    cdef uint8_t last = <uint8_t> (at - 1)[0]
    if last != LONG_BACK:
        return at - 1 - last
    memcpy(&wide, at - 5, 4)
    return at - 5 - wide


cdef inline uint32_t list_bytes(const char* block) noexcept nogil:
    cdef uint32_t n
    memcpy(&n, block + HEADER, 4)
    return n


cdef inline void list_set_bytes(char* block, uint32_t n) noexcept nogil:
    memcpy(block + HEADER, &n, 4)


cdef inline uint32_t listpack_bytes(const char* at) noexcept nogil:
    """What an item takes in the real server's listpack, by which its limit of a list counts."""
    cdef uint8_t first = <uint8_t> at[0]
    cdef int64_t number
    cdef size_t body, length
    if first < ITEM_NUMBER or first == ITEM_LONG:
        length = first
        if first == ITEM_LONG:
            long_length(at + 1, &length)
        body = length + (1 if length < 64 else 2 if length < 4096 else 5)
    else:
        number = item_number(at)
        if 0 <= number < 128:
            body = 1
        elif -4096 <= number < 4096:
            body = 2
        else:
            body = <size_t> number_width(number)
            body = 1 + (2 if body < 2 else 8 if body > 4 else body)
    if body < 128:
        return <uint32_t> body + 1
    if body < 16384:
        return <uint32_t> body + 2
    return <uint32_t> body + (3 if body < 2097152 else 4 if body < 268435456 else 5)


cdef inline const char* list_element(const char* block, size_t size, uint32_t index) noexcept nogil:
    """The element at an index below the count, or the end; from the nearer side."""
    cdef uint32_t count = packed_count(block)
    cdef const char* at = block + LIST_HEADER
    if index <= count >> 1:
        while index:
            at += element_span(at)
            index -= 1
        return at
    at = block + size
    while index < count:
        at = element_before(at)
        index += 1
    return at


# Sets of integers -------------------------------------------------------------------------------------
cdef inline int intset_width(const char* block) noexcept nogil:
    return <uint8_t> block[HEADER]


cdef inline int64_t intset_at(const char* block, uint32_t i) noexcept nogil:
    cdef int width = intset_width(block)
    return wide_number(block + SET_HEADER + <size_t> i * width, width)


cdef inline bint intset_find(const char* block, int64_t number, uint32_t* at) noexcept nogil:
    """Whether it is there, and where it is or would be."""
    cdef uint32_t low = 0, high = packed_count(block), middle
    cdef int64_t met
    while low < high:
        middle = (low + high) >> 1
        met = intset_at(block, middle)
        if met == number:
            at[0] = middle
            return True
        if met < number:
            low = middle + 1
        else:
            high = middle
    at[0] = low
    return False


# Sorted sets ------------------------------------------------------------------------------------------
cdef inline int compare_texts(const char* left, size_t left_size, const char* right, size_t right_size) noexcept nogil:
    cdef int order = memcmp(left, right, min(left_size, right_size))
    if order == 0:
        return (left_size > right_size) - (left_size < right_size)
    return order


cdef inline bint pair_is_before(
    const char* at, const char* behind, double score, const char* member, size_t n
) noexcept nogil:
    """Whether the pair of the items `at` and `behind` comes before (score, member)."""
    cdef char[TEXT] scratch
    cdef double met = item_score(behind)
    cdef Span text
    if met != score:
        return met < score
    text = item_text(at, scratch)
    return compare_texts(text.data, text.size, member, n) < 0


cdef inline const char* pair_place(
    const char* at, const char* end, double score, const char* member, size_t n
) noexcept nogil:
    """Where the pair (score, member) is or would be among pairs in order."""
    cdef const char* behind
    if end - at >= MANY_BYTES:
        return pair_place_among_many(at, end, score, member, n)
    while at < end:
        behind = at + item_span(at)
        if not pair_is_before(at, behind, score, member, n):
            return at
        at = behind + item_span(behind)
    return at


cdef inline const char* find_pair(const char* at, const char* end, const Item* item, Marks* marks) noexcept nogil:
    """As `find_item`; `marks` are for `pair_place_by`."""
    marks.count = 0
    if end - at >= MANY_BYTES:
        return find_and_mark(at, end, item, marks)
    return find_item(at, end, item, True)


cdef inline const char* pair_place_by(
    const Marks* marks, const char* at, const char* end, double score, const char* member, size_t n
) noexcept nogil:
    """As `pair_place`, of pairs of which a walk has passed the marked ones."""
    cdef int low = 0, high = marks.count, middle
    cdef const char* met
    while low < high:
        middle = (low + high) >> 1
        met = marks.at[middle]
        if pair_is_before(met, met + item_span(met), score, member, n):
            at = met
            low = middle + 1
        else:
            end = met
            high = middle
    return pair_place(at, end, score, member, n)
