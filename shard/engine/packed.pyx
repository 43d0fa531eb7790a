"""Of the packed form (packed.pxd): its limits, which Redis's settings say and which are the process's own, and long walks.

A change of a limit holds for what is written from then on: what is larger became no collection of its own just by being
read.

How long an item is says its first byte, so where the next one is says a load from memory, and a walk waits for one after
the other: 5 cycles each at best. But most are as long as the one before, or as the one of the pair before. Taken as a guess,
which for the processor is a branch that it foresees, the next address is known at once, and the loads overlap: a walk over
pairs takes 3 cycles for each instead of 10, and waits for several lines of memory together. A guess that fails costs about
twenty cycles, so after WRONG_GUESSES nothing more is guessed. What lies PREFETCHED bytes ahead is asked for in any case: with
collections of all sizes the processor's own foresight comes late.
"""
cdef extern from *:
    """
    /* What it is worth is forgotten, so that a guess stays one and is not computed from what was read after all. */
    #define KACHE_FORGET(x) __asm__("" : "+r"(x))
    #define KACHE_PREFETCH(at) __builtin_prefetch(at)
    """
    void forget "KACHE_FORGET"(size_t) noexcept nogil
    void prefetch "KACHE_PREFETCH"(const char*) noexcept nogil

cdef enum:
    LIST_SAFE_BYTES = 8192      # with a limit of elements, a list is packed up to so many bytes
    WRONG_GUESSES = 4
    PREFETCHED = 512            # or MANY_BYTES, which are asked for together at the start
    NO_GUESS = -1


def set_limits(
    *, int64_t hash_entries=512, int64_t hash_value=64, int64_t set_integers=512, int64_t set_entries=128,
    int64_t set_value=64, int64_t zset_entries=128, int64_t zset_value=64, int64_t list_size=-2,
):
    """Up to how many elements, of up to how many bytes each, a collection is packed; Redis's defaults.

    `list_size` as list-max-listpack-size: elements, or -1 to -5 for 4, 8, 16, 32, 64 KiB.
    """
    limits.hash_entries = <uint32_t> max(0, min(hash_entries, MOST_PACKED))
    limits.hash_value = <uint32_t> max(0, min(hash_value, LARGEST_PACKED))
    limits.set_integers = <uint32_t> max(0, min(set_integers, MOST_PACKED))
    limits.set_entries = <uint32_t> max(0, min(set_entries, MOST_PACKED))
    limits.set_value = <uint32_t> max(0, min(set_value, LARGEST_PACKED))
    limits.zset_entries = <uint32_t> max(0, min(zset_entries, MOST_PACKED))
    limits.zset_value = <uint32_t> max(0, min(zset_value, LARGEST_PACKED))
    if list_size < 0:
        limits.list_entries = MOST_PACKED
        limits.list_bytes = <uint32_t> 4096 << min(-list_size - 1, 4)
    else:
        limits.list_entries = <uint32_t> max(1, min(list_size, MOST_PACKED))
        limits.list_bytes = LIST_SAFE_BYTES


set_limits()


# Long walks -------------------------------------------------------------------------------------------
cdef uint8_t[256] SPANS     # bytes of an item by its first byte; 0 where that does not say it


cdef int fill_spans() noexcept:
    cdef int first
    cdef char byte
    for first in range(ITEM_DOUBLE + 1):
        byte = <char> first
        SPANS[first] = 0 if first == ITEM_LONG else <uint8_t> item_span(&byte)
    return 0


fill_spans()

cdef struct Guess:
    # Of the pair, or item, that comes next: bytes of its items as their first bytes are to say, of the first and of all.
    int first, second
    size_t span, stride
    int wrong


cdef inline int span_guess(const char* at) noexcept nogil:
    """Bytes of an item; NO_GUESS if its first byte does not say it."""
    return NO_GUESS if <uint8_t> at[0] == ITEM_LONG else SPANS[<uint8_t> at[0]]


cdef inline bint guess_anew(Guess* guess, const char* at, bint pairs) noexcept nogil:
    """Guesses that the next are as the one here, after a guess that failed; False when it was one too many."""
    guess.span = guess.stride = item_span(at)
    guess.first = span_guess(at)
    if pairs:
        guess.second = span_guess(at + guess.span)
        guess.stride += item_span(at + guess.span)
    forget(guess.span)
    forget(guess.stride)
    guess.wrong += 1
    return guess.wrong <= WRONG_GUESSES


cdef inline void prefetch_first(const char* at) noexcept nogil:
    cdef int offset
    for offset in range(0, PREFETCHED, 64):
        prefetch(at + offset)


cdef inline Guess no_guess() noexcept nogil:
    cdef Guess guess
    guess.first = guess.second = NO_GUESS
    guess.span = guess.stride = 0
    guess.wrong = 0
    return guess


cdef inline const char* mark_at(Marks* marks, const char* at, size_t step) noexcept nogil:
    """Notes a place; from where on the next is to be noted."""
    if marks.count < MOST_MARKS:
        marks.at[marks.count] = at
        marks.count += 1
    return at + step


cdef inline const char* find_by_guess(
    const char* at, const char* end, const Item* item, bint pairs, Marks* marks
) noexcept nogil:
    """`find_item`; notes places on the way if they are asked for."""
    cdef Guess guess = no_guess()
    cdef uint8_t first, wanted = item.head[0]
    cdef size_t step = (end - at) // MOST_MARKS
    cdef const char* next_mark = at + step
    prefetch_first(at)
    while at < end:
        prefetch(at + PREFETCHED)
        if marks != NULL and at >= next_mark:
            next_mark = mark_at(marks, at, step)
        first = <uint8_t> at[0]
        if first == wanted and item_equals(at, item):
            return at
        if SPANS[first] == guess.first and (not pairs or SPANS[<uint8_t> at[guess.span]] == guess.second):
            at += guess.stride
        elif guess_anew(&guess, at, pairs):
            at += guess.stride
        else:
            break
    # Fields may be alike where their values are not.
    guess = no_guess()
    while pairs and at < end:
        prefetch(at + PREFETCHED)
        if marks != NULL and at >= next_mark:
            next_mark = mark_at(marks, at, step)
        first = <uint8_t> at[0]
        if first == wanted and item_equals(at, item):
            return at
        if SPANS[first] == guess.first:
            at += guess.stride
        elif guess_anew(&guess, at, False):
            at += guess.stride
        else:
            break
        at += item_span(at)
    while at < end:
        prefetch(at + PREFETCHED)
        if marks != NULL and at >= next_mark:
            next_mark = mark_at(marks, at, step)
        if <uint8_t> at[0] == wanted and item_equals(at, item):
            return at
        at += item_span(at)
        if pairs:
            at += item_span(at)
    return NULL


cdef inline const char* find_among_alike(const char* at, const char* end, const Item* item) noexcept nogil:
    """`find_item` of a string of 8 to 127 bytes among items of which many are as long: those begin with the same byte, which
    is a guess, too, and the only one that is needed."""
    cdef size_t span = 1 + item.size
    cdef uint64_t last, met
    cdef uint8_t wanted = item.head[0]
    memcpy(&last, item.data + item.size - 8, 8)
    forget(span)
    prefetch_first(at)
    while at < end:
        prefetch(at + PREFETCHED)
        if <uint8_t> at[0] == wanted:
            memcpy(&met, at + span - 8, 8)
            if met == last and same_bytes(at + 1, item.data, item.size):
                return at
            at += span
        else:
            at += item_span(at)
    return NULL


cdef const char* find_among_many(const char* at, const char* end, const Item* item, bint pairs) noexcept nogil:
    if pairs:
        return find_by_guess(at, end, item, True, NULL)
    if 8 <= item.size < ITEM_NUMBER and <uint8_t> at[0] == item.head[0]:
        return find_among_alike(at, end, item)
    return find_by_guess(at, end, item, False, NULL)


cdef const char* find_and_mark(const char* at, const char* end, const Item* item, Marks* marks) noexcept nogil:
    return find_by_guess(at, end, item, True, marks)


cdef const char* pair_place_among_many(
    const char* at, const char* end, double score, const char* member, size_t n
) noexcept nogil:
    """`pair_place`."""
    cdef Guess guess = no_guess()
    cdef const char* behind
    prefetch_first(at)
    while at < end:
        prefetch(at + PREFETCHED)
        if SPANS[<uint8_t> at[0]] == guess.first and SPANS[<uint8_t> at[guess.span]] == guess.second:
            behind = at + guess.span
            if not pair_is_before(at, behind, score, member, n):
                return at
            at += guess.stride
            continue
        behind = at + item_span(at)
        if not pair_is_before(at, behind, score, member, n):
            return at
        if guess.wrong < WRONG_GUESSES:
            guess_anew(&guess, at, True)
        at = behind + item_span(behind)
    return at
