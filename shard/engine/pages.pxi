# Runs of pages of the heap (blocks.pyx): given out for slabs and large blocks, taken back, joined, given back to the system.
#
# Free runs are kept by their size, those that may be resident (dirty) apart from those that are not: the first are used
# first. Two free runs of one kind are never neighbours. What is dirty is given back once it is more than a 32nd of the heap,
# and an eighth of it in every round of the background.

# Lists ------------------------------------------------------------------------------------------------
cdef inline void put_first(uint32_t* head, uint32_t page) noexcept nogil:
    SPANS[page].previous = NONE
    SPANS[page].next = head[0]
    if head[0] != NONE:
        SPANS[head[0]].previous = page
    head[0] = page


cdef inline void take_out(uint32_t* head, uint32_t page) noexcept nogil:
    cdef Span* span = &SPANS[page]
    if span.previous != NONE:
        SPANS[span.previous].next = span.next
    else:
        head[0] = span.next
    if span.next != NONE:
        SPANS[span.next].previous = span.previous


# Pages ------------------------------------------------------------------------------------------------
cdef inline uint32_t* list_of(uint32_t page) noexcept nogil:
    return &RUNS[SPANS[page].dirty][bin_of(SPANS[page].pages)]


cdef void put_free(uint32_t page, uint32_t pages, bint dirty) noexcept nogil:
    """A free run that has no free neighbour."""
    global DIRTY
    SPANS[page].kind = FREE
    SPANS[page].pages = pages
    SPANS[page].dirty = dirty
    OWNERS[page] = page
    OWNERS[page + pages - 1] = page
    SPANS[page + pages - 1].kind = FREE
    put_first(list_of(page), page)
    if dirty:
        DIRTY += pages


cdef void put_joined(uint32_t page, uint32_t pages, bint dirty) noexcept nogil:
    """A free run, joined with its free neighbours, as far as they are as dirty as it."""
    cdef uint32_t before, after = page + pages
    if page > 1 and SPANS[page - 1].kind == FREE and SPANS[OWNERS[page - 1]].dirty == dirty:
        before = OWNERS[page - 1]
        pages += SPANS[before].pages
        take_free(before)
        page = before
    if after < FRONTIER and SPANS[after].kind == FREE and SPANS[after].dirty == dirty:
        pages += SPANS[after].pages
        take_free(after)
    put_free(page, pages, dirty)


cdef void take_free(uint32_t page) noexcept nogil:
    global DIRTY
    take_out(list_of(page), page)
    if SPANS[page].dirty:
        DIRTY -= SPANS[page].pages
    SPANS[page + SPANS[page].pages - 1].kind = UNUSED
    SPANS[page].kind = UNUSED


cdef uint32_t find_free(uint32_t pages, bint dirty) noexcept nogil:
    """A free run of at least so many pages, NONE where there is none: the best fit up to EXACT_BINS, then a good one."""
    cdef uint32_t bin, page, looked
    for bin in range(bin_of(pages), BINS):
        page = RUNS[dirty][bin]
        looked = 0
        while page != NONE and looked < 64:
            if SPANS[page].pages >= pages:
                return page
            page = SPANS[page].next
            looked += 1
    return NONE


cdef uint32_t pages_new(uint32_t pages) noexcept nogil:
    """A run of pages for a slab or a large block; NONE when the region is used up."""
    global FRONTIER, HELD_PAGES
    cdef uint32_t page = find_free(pages, True), rest, i
    cdef bint dirty
    if page == NONE:
        page = find_free(pages, False)
    if page != NONE:
        dirty = SPANS[page].dirty
        rest = SPANS[page].pages - pages
        take_free(page)
        if rest:
            put_free(page + pages, rest, dirty)
    else:
        if LAST_PAGE - FRONTIER < pages:
            return NONE     # then it is malloc's
        page = FRONTIER
        FRONTIER += pages
    HELD_PAGES += pages
    SPANS[page].pages = pages
    for i in range(pages):
        OWNERS[page + i] = page
    return page


cdef void pages_free(uint32_t page) noexcept nogil:
    """Gives a run back to the heap."""
    global HELD_PAGES
    HELD_PAGES -= SPANS[page].pages
    SPANS[page].kind = UNUSED
    put_joined(page, SPANS[page].pages, True)
    if DIRTY > max(<int64_t> KEPT_PAGES, HELD_PAGES // 32):
        # So that resident memory follows at any pace; the rest goes when time has passed.
        give_back(KEPT_PAGES // 2)


cdef bint give_back(int64_t keep) noexcept nogil:
    """Gives free pages back to the system, a part of them; True when more than `keep` are left that may be resident."""
    global GIVEN_BACK
    cdef int64_t budget = GIVE_BACK_PAGES
    cdef uint32_t page, pages, rest
    cdef int bin = BINS - 1
    while bin >= 0 and budget > 0 and DIRTY > keep:
        page = RUNS[1][bin]
        if page == NONE:
            bin -= 1
            continue
        pages = SPANS[page].pages
        take_free(page)
        if pages > budget:
            # The rest is a neighbour of what is given back, and joins it when its turn comes.
            rest = pages - <uint32_t> budget
            kache_drop(start_of(page + rest), <size_t> budget << PAGE_SHIFT)
            GIVEN_BACK += budget
            put_free(page, rest, True)
            put_joined(page + rest, <uint32_t> budget, False)
            break
        kache_drop(start_of(page), <size_t> pages << PAGE_SHIFT)
        budget -= pages
        GIVEN_BACK += pages
        put_joined(page, pages, False)
    return DIRTY > keep
