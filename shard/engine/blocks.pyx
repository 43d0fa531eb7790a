"""The heap that the engine's blocks lie in: small ones of one size together in a slab, large ones in pages of their own.

    region, reserved once   | slab of 64-byte blocks | run of 3 pages | free | slab of 1 KiB blocks | free …
    spans, one per page     what starts at the page: a slab, a run, a free run        (beside the region, not in it)
    owners, one per page    where the slab of a page starts

A general allocator does not do for a cache that is full all the time: it cannot say which block is worth moving so that
pages become free, and its holes are given back when they happen to lie at an end (the figures are in bench/README.md). Here a
slab knows how full it is. A new block comes from the fullest slab of its size that has a place, so emptier ones run
empty; `block_is_sparse` says whether a block lies in one that is emptier than the mean of its size, and whoever owns the
block then moves it (defrag.pxi). Pages that nobody uses are given back to the system by `give_back`, a part at a time.

Sizes rise in steps of 8 bytes up to 128 and then of an eighth, so a block has no header and wastes 6 % on average; beyond
SMALL it is rounded up to pages. `block_room` says what a block really has, and everything is accounted by it.

`pages.pxi` has the runs of pages, on which the slabs stand.

Owned by one thread, the one that has the GIL. Another thread (the cleanup thread) says `free_elsewhere` and may only
free: its blocks go to a list that `block_new` and `collect_freed` take in. What does not come from here (the region is
full, there is none, another thread asks) is malloc's, and `block_free` knows by the address.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <sys/mman.h>
    #include <unistd.h>
    #ifdef __APPLE__
    #include <malloc/malloc.h>
    #define kache_foreign_room(p) malloc_size(p)
    #else
    #include <malloc.h>
    #define kache_foreign_room(p) malloc_usable_size(p)
    #endif
    #ifndef MAP_NORESERVE
    #define MAP_NORESERVE 0
    #endif

    /* Whether this thread may only free. */
    static __thread int kache_elsewhere;
    static void kache_only_frees(void) { kache_elsewhere = 1; }

    static void *kache_reserve(size_t n) {
        void *at = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) return NULL;
    #ifdef MADV_NOHUGEPAGE
        /* A huge page would stay whole as long as one of its blocks is used. */
        madvise(at, n, MADV_NOHUGEPAGE);
    #endif
        return at;
    }
    #ifdef __APPLE__
    #define kache_drop(at, n) madvise(at, n, MADV_FREE)
    #else
    #define kache_drop(at, n) madvise(at, n, MADV_DONTNEED)
    #endif
    static int64_t kache_physical(void) { return (int64_t) sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE); }

    #define KACHE_TAKE_ALL(list) __atomic_exchange_n(list, NULL, __ATOMIC_ACQUIRE)
    #define KACHE_SEEN(list) __atomic_load_n(list, __ATOMIC_RELAXED)
    static void kache_push(void **list, void *block) {
        void *head = __atomic_load_n(list, __ATOMIC_RELAXED);
        do *(void **) block = head;
        while (!__atomic_compare_exchange_n(list, &head, block, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    }
    #define KACHE_BITS(n) (64 - __builtin_clzll(n))
    """
    size_t kache_foreign_room(void* block) nogil
    const int kache_elsewhere
    void kache_only_frees() nogil
    void* kache_reserve(size_t n) nogil
    int kache_drop(void* at, size_t n) nogil
    int64_t kache_physical() nogil
    void* kache_take_all "KACHE_TAKE_ALL"(void** list) nogil
    void* kache_seen "KACHE_SEEN"(void** list) nogil
    void kache_push(void** list, void* block) nogil
    uint32_t kache_bits "KACHE_BITS"(uint64_t n) nogil

cdef enum:
    PAGE = 4096
    PAGE_SHIFT = 12
    SMALL = 8192            # bytes up to which blocks share a slab
    CLASSES = 65            # sizes of such blocks, the first of 8 bytes
    QUARTERS = 4            # by which slabs that are partly used are kept apart
    BINS = 48               # of free runs: by pages up to 32, then by powers of two
    EXACT_BINS = 32
    NONE = 0                # no span: page 0 of the region is not used

    UNUSED = 0              # kinds of a span
    SLAB = 1
    RUN = 2
    FREE = 3

    MOST_PAGES = 16         # of a slab
    KEPT_PAGES = 128        # free pages that are kept for the next blocks, for some seconds
    GIVE_BACK_PAGES = 1024  # pages given back at a time: it takes the system about half a millisecond
    COLLECTED = 64          # blocks of another thread that are taken in when a slab is used up

cdef struct Span:
    void* places            # of a slab: freed blocks, each leading to the next
    uint32_t pages
    uint16_t used           # blocks of a slab
    uint16_t fresh          # of its blocks, how many were ever given out
    uint32_t previous, next # in the list of its kind; NONE
    uint8_t kind
    uint8_t size_class
    uint8_t quarter         # in which list of its class a slab is; QUARTERS: in none
    uint8_t dirty           # of a free run: pages may be resident

cdef struct SizeClass:
    uint32_t size
    uint16_t capacity       # blocks of a slab
    uint16_t pages          # of a slab
    uint32_t current        # the slab that blocks come from
    uint32_t slabs
    uint64_t used           # blocks
    uint32_t[QUARTERS] lists

cdef char* REGION = NULL
cdef uint64_t REGION_SIZE = 0
cdef Span* SPANS = NULL
cdef uint32_t* OWNERS = NULL
cdef uint32_t FRONTIER = 1          # pages from here on were never used
cdef uint32_t LAST_PAGE = 0
cdef SizeClass[CLASSES] SIZES
cdef uint32_t[2][BINS] RUNS         # free runs: clean ones and dirty ones
cdef int64_t DIRTY = 0              # pages of free runs that may be resident
cdef int64_t HELD_PAGES = 0         # pages of slabs and runs
cdef int64_t GIVEN_BACK = 0         # pages that were given back to the system so far
cdef void* FREED = NULL             # blocks that other threads have freed
cdef void* COLLECTING = NULL        # those of them that are being taken in
cdef bint READY = False
cdef bint MALLOC_ONLY = False


# Sizes ------------------------------------------------------------------------------------------------
cdef inline uint32_t class_of(size_t n) noexcept nogil:
    """The class of the smallest blocks that have `n` bytes, 1 to SMALL."""
    cdef uint32_t bits
    if n <= 128:
        return <uint32_t> ((n + 7) >> 3) - 1 if n else 0
    bits = kache_bits(n - 1)
    # Eight classes between two powers of two.
    return 16 + (bits - 8) * 8 + <uint32_t> (((n - 1) >> (bits - 4)) & 7)


cdef inline uint32_t class_size(uint32_t number) noexcept nogil:
    cdef uint32_t bits
    if number < 16:
        return (number + 1) * 8
    bits = 8 + (number - 16) // 8
    return (1 << (bits - 1)) + ((number - 16) % 8 + 1) * (1 << (bits - 4))


cdef inline uint32_t bin_of(uint32_t pages) noexcept nogil:
    if pages <= EXACT_BINS:
        return pages - 1
    return min(EXACT_BINS + kache_bits(pages) - 6, BINS - 1)


cdef uint16_t slab_pages(uint32_t size) noexcept nogil:
    """Of how many pages slabs for blocks of this size are: few, since of each size one slab is not full, which is a good part
    of a small shard's memory; but so many that what is left over behind the last block is at most a 64th."""
    cdef uint32_t pages
    for pages in range(1 if size <= 64 else 2 if size <= 512 else 4, MOST_PAGES):
        if pages * PAGE % size * 64 <= pages * PAGE:
            return <uint16_t> pages
    return MOST_PAGES


cdef bint set_up() noexcept nogil:
    """Reserves the region; False where there is none to be had."""
    global REGION, REGION_SIZE, SPANS, OWNERS, LAST_PAGE, READY
    cdef uint64_t size = 1 << 34
    cdef uint32_t number
    READY = True
    while size < <uint64_t> kache_physical() * 4:
        size *= 2
    while REGION == NULL and size >= 1 << 30:
        REGION = <char*> kache_reserve(size)
        if REGION == NULL:
            size //= 2
    if REGION == NULL:
        return False
    SPANS = <Span*> kache_reserve((size >> PAGE_SHIFT) * sizeof(Span))
    OWNERS = <uint32_t*> kache_reserve((size >> PAGE_SHIFT) * sizeof(uint32_t))
    if SPANS == NULL or OWNERS == NULL:
        return False
    memset(SIZES, 0, sizeof(SIZES))
    for number in range(CLASSES):
        SIZES[number].size = class_size(number)
        SIZES[number].pages = slab_pages(SIZES[number].size)
        SIZES[number].capacity = <uint16_t> (SIZES[number].pages * PAGE // SIZES[number].size)
    LAST_PAGE = <uint32_t> (size >> PAGE_SHIFT)
    REGION_SIZE = size
    return True


cdef inline bint is_ours(void* block) noexcept nogil:
    return <uint64_t> (<char*> block - REGION) < REGION_SIZE


cdef inline uint32_t owner_of(void* block) noexcept nogil:
    return OWNERS[<uint64_t> (<char*> block - REGION) >> PAGE_SHIFT]


cdef inline char* start_of(uint32_t page) noexcept nogil:
    return REGION + (<uint64_t> page << PAGE_SHIFT)


include "pages.pxi"


# Slabs ------------------------------------------------------------------------------------------------
cdef inline uint8_t quarter_of(Span* span, SizeClass* sizes) noexcept nogil:
    return <uint8_t> (<uint32_t> span.used * QUARTERS // (sizes.capacity + 1))


cdef uint32_t next_slab(uint32_t number) noexcept nogil:
    """The slab that blocks of a class come from next: the fullest that has a place, or a new one; NONE without memory."""
    cdef SizeClass* sizes = &SIZES[number]
    cdef uint32_t page
    cdef int quarter
    for quarter in range(QUARTERS - 1, -1, -1):
        page = sizes.lists[quarter]
        if page != NONE:
            take_out(&sizes.lists[quarter], page)
            SPANS[page].quarter = QUARTERS
            return page
    page = pages_new(sizes.pages)
    if page != NONE:
        SPANS[page].kind = SLAB
        SPANS[page].size_class = <uint8_t> number
        SPANS[page].places = NULL
        SPANS[page].used = SPANS[page].fresh = 0
        SPANS[page].quarter = QUARTERS
        sizes.slabs += 1
    return page


cdef void* small_new(uint32_t number) noexcept nogil:
    cdef SizeClass* sizes = &SIZES[number]
    cdef Span* span
    cdef void* block
    if sizes.current == NONE or SPANS[sizes.current].used == sizes.capacity:
        if kache_seen(&FREED) != NULL or COLLECTING != NULL:
            collect_freed(COLLECTED)
        if sizes.current == NONE or SPANS[sizes.current].used == sizes.capacity:
            sizes.current = next_slab(number)
            if sizes.current == NONE:
                return NULL
    span = &SPANS[sizes.current]
    span.used += 1
    sizes.used += 1
    block = span.places
    if block != NULL:
        span.places = (<void**> block)[0]
        return block
    block = start_of(sizes.current) + <size_t> span.fresh * sizes.size
    span.fresh += 1
    return block


cdef void small_free(void* block, uint32_t page) noexcept nogil:
    cdef Span* span = &SPANS[page]
    cdef SizeClass* sizes = &SIZES[span.size_class]
    cdef uint8_t quarter
    (<void**> block)[0] = span.places
    span.places = block
    span.used -= 1
    sizes.used -= 1
    if page == sizes.current:
        return
    if span.used == 0:
        if span.quarter < QUARTERS:
            take_out(&sizes.lists[span.quarter], page)
        sizes.slabs -= 1
        pages_free(page)
        return
    quarter = quarter_of(span, sizes)
    if quarter != span.quarter:
        if span.quarter < QUARTERS:
            take_out(&sizes.lists[span.quarter], page)
        span.quarter = quarter
        put_first(&sizes.lists[quarter], page)


# Blocks -----------------------------------------------------------------------------------------------
cdef void* block_new(size_t n) noexcept nogil:
    """A block of at least `n` bytes, whose contents are anything; NULL without memory."""
    cdef void* block = NULL
    cdef uint32_t page
    if not READY and not set_up():
        return malloc(n)
    if REGION_SIZE == 0 or kache_elsewhere or MALLOC_ONLY:
        return malloc(n)
    if n <= SMALL:
        block = small_new(class_of(n))
    elif n <= <size_t> 1 << 40:
        page = pages_new(<uint32_t> ((n + PAGE - 1) >> PAGE_SHIFT))
        if page != NONE:
            SPANS[page].kind = RUN
            block = start_of(page)
    return malloc(n) if block == NULL else block


cdef void block_free(void* block) noexcept nogil:
    """Frees a block of `block_new`, or NULL."""
    cdef uint32_t page
    if not is_ours(block):
        free(block)
        return
    if kache_elsewhere:
        kache_push(&FREED, block)
        return
    page = owner_of(block)
    if SPANS[page].kind == SLAB:
        small_free(block, page)
    else:
        pages_free(page)


cdef size_t block_room(void* block) noexcept nogil:
    """How many bytes the block has."""
    cdef Span* span
    if not is_ours(block):
        return kache_foreign_room(block)
    span = &SPANS[owner_of(block)]
    return SIZES[span.size_class].size if span.kind == SLAB else <size_t> span.pages << PAGE_SHIFT


cdef void* block_grown(void* block, size_t n) noexcept nogil:
    """The block with room for `n` bytes, perhaps elsewhere; NULL without memory, and it is as it was."""
    cdef size_t room
    cdef void* moved
    if block == NULL:
        return block_new(n)
    if not is_ours(block):
        return realloc(block, n)
    room = block_room(block)
    if n <= room and n * 2 > room:
        return block
    moved = block_new(n)
    if moved != NULL:
        memcpy(moved, block, min(n, room))
        block_free(block)
    return moved


cdef bint block_is_sparse(void* block) noexcept nogil:
    """Whether moving the block brings its slab nearer to being free, because others of its size have places for it."""
    cdef uint32_t page
    cdef Span* span
    cdef SizeClass* sizes
    if not is_ours(block):
        return False
    page = owner_of(block)
    span = &SPANS[page]
    if span.kind != SLAB:
        return False
    sizes = &SIZES[span.size_class]
    if page == sizes.current or span.quarter == QUARTERS:
        return False
    # What is free is at least a slab more than is needed, and this one is no fuller than the mean.
    if sizes.slabs * <uint64_t> sizes.capacity - sizes.used < <uint64_t> sizes.capacity * 3 // 2:
        return False
    return <uint64_t> span.used * sizes.slabs <= sizes.used


# Other threads ----------------------------------------------------------------------------------------
cdef void free_elsewhere() noexcept nogil:
    """This thread only frees from now on, whoever uses the heap meanwhile."""
    kache_only_frees()


cdef bint collect_freed(int64_t count) noexcept nogil:
    """Takes in up to `count` blocks that other threads have freed. True when there may be more."""
    global COLLECTING
    cdef void* block
    cdef int64_t until = GIVEN_BACK + GIVE_BACK_PAGES
    # Of large blocks a few are as much work for the system as thousands of small ones are for us.
    while count > 0 and GIVEN_BACK < until:
        if COLLECTING == NULL:
            COLLECTING = kache_take_all(&FREED)
            if COLLECTING == NULL:
                return False
        block = COLLECTING
        COLLECTING = (<void**> block)[0]
        block_free(block)
        count -= 1
    return True


# Moving, giving back ----------------------------------------------------------------------------------
cdef void* block_moved(void* block) noexcept nogil:
    """The block, or where its contents are now: in a fuller slab, if its own is sparse. Then the old one is freed."""
    cdef void* fresh
    cdef uint32_t page
    if not block_is_sparse(block):
        return block
    page = owner_of(block)
    fresh = small_new(SPANS[page].size_class)
    if fresh == NULL:
        return block
    if owner_of(fresh) == page:
        small_free(fresh, page)
        return block
    memcpy(fresh, block, SIZES[SPANS[page].size_class].size)
    small_free(block, page)
    return fresh


cdef int64_t heap_holes() noexcept nogil:
    """Bytes of free places in slabs that moving blocks could make pages of."""
    cdef int64_t holes = 0, places
    cdef uint32_t number
    for number in range(CLASSES):
        places = SIZES[number].slabs * <int64_t> SIZES[number].capacity - <int64_t> SIZES[number].used
        if places > SIZES[number].capacity:
            holes += (places - SIZES[number].capacity) * SIZES[number].size
    return holes


cdef int64_t heap_bytes() noexcept nogil:
    """Bytes of all slabs and large blocks."""
    return HELD_PAGES * PAGE


cdef bint cool_down() noexcept nogil:
    """A round of the background: some of what other threads have freed, an eighth of the free pages. True: there is more to
    take in."""
    cdef bint more = collect_freed(COLLECTED * 32)
    cdef uint32_t number, page
    for number in range(CLASSES):
        page = SIZES[number].current
        if page != NONE and SPANS[page].used == 0:
            SIZES[number].current = NONE
            SIZES[number].slabs -= 1
            pages_free(page)
    if DIRTY:
        give_back(DIRTY - DIRTY // 8 - 1)
    return more


# For tests and tools ----------------------------------------------------------------------------------
def heap_state():
    """Bytes in use by slabs and large blocks, free but perhaps resident, of holes in slabs, of the region (0: there is none), and
    how many were given back to the system so far."""
    return {
        "held": HELD_PAGES * PAGE, "dirty": DIRTY * PAGE, "holes": heap_holes(), "region": REGION_SIZE,
        "given_back": GIVEN_BACK * PAGE,
    }


def cool_down_heap():
    """A round of the background; True: there is more to take in."""
    return cool_down()


def free_here(bint owner):
    """Of a thread beside the owner's, at its start: with False it only frees from here on."""
    if not owner:
        free_elsewhere()


def use_malloc(bint yes):
    """Takes new blocks from malloc, for comparison."""
    global MALLOC_ONLY
    MALLOC_ONLY = yes


def check_heap():
    """Asserts every invariant."""
    cdef uint32_t page = 1, number, i, found, slabs = 0
    cdef int64_t held = 0, dirty = 0
    cdef Span* span
    cdef bint before_free = False, before_dirty = False
    while page < FRONTIER:
        span = &SPANS[page]
        assert span.pages > 0 and page + span.pages <= FRONTIER, f"page {page} has {span.pages} pages"
        if span.kind == FREE:
            assert OWNERS[page] == OWNERS[page + span.pages - 1] == page, f"the ends of free run {page} disagree"
            assert not (before_free and before_dirty == span.dirty), f"free runs at {page} are not joined"
            dirty += span.pages if span.dirty else 0
        else:
            assert span.kind in (SLAB, RUN), f"page {page} is nothing"
            held += span.pages
            for i in range(span.pages):
                assert OWNERS[page + i] == page, f"page {page + i} is not of {page}"
            if span.kind == SLAB:
                slabs += 1
                check_slab(page)
        before_free, before_dirty = span.kind == FREE, span.dirty
        page += span.pages
    assert held == HELD_PAGES and dirty == DIRTY, (held, HELD_PAGES, dirty, DIRTY)
    found = 0
    for number in range(CLASSES):
        found += SIZES[number].slabs
    assert found == slabs, f"{slabs} slabs, {found} counted"


cdef int check_slab(uint32_t page) except -1:
    cdef Span* span = &SPANS[page]
    cdef SizeClass* sizes = &SIZES[span.size_class]
    cdef void* place = span.places
    cdef uint32_t free_places = 0, at = NONE
    while place != NULL:
        assert owner_of(place) == page and (<char*> place - start_of(page)) % sizes.size == 0, "a place is elsewhere"
        free_places += 1
        place = (<void**> place)[0]
    assert span.used + free_places == span.fresh <= sizes.capacity, f"slab {page}: {span.used}, {free_places}, {span.fresh}"
    if span.quarter < QUARTERS:
        at = sizes.lists[span.quarter]
        while at != NONE and at != page:
            at = SPANS[at].next
        assert at == page, f"slab {page} is not in its list"
        assert span.used < sizes.capacity and quarter_of(span, sizes) == span.quarter, "a slab is in the wrong list"
    else:
        assert page == sizes.current or span.used == sizes.capacity, f"slab {page} is lost"
    return 0


cdef class Block:
    """One block, for tests."""
    cdef void* block
    cdef readonly size_t address

    def __init__(self, size_t size):
        self.block = block_new(size)
        if self.block == NULL:
            raise MemoryError("no memory for a block")
        memset(self.block, <int> (size & 0x7F), size)
        self.address = <size_t> self.block

    @property
    def room(self):
        return block_room(self.block)

    @property
    def sparse(self):
        return block_is_sparse(self.block)

    def free(self):
        block_free(self.block)
        self.block = NULL

    def grow(self, size_t size):
        self.block = block_grown(self.block, size)
        self.address = <size_t> self.block

    def move(self):
        self.block = block_moved(self.block)
        self.address = <size_t> self.block

    def contents(self, size_t size):
        return (<char*> self.block)[:size]
