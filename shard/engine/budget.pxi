# The cluster's one limit of memory: what every shard uses, and what this one may.
#
#   page, a line per shard:  used | held | grown            (kache/cluster/budget.py)
#
#   everything fits       a shard may use what the others leave, a part of it at a time, and looks again
#   the sum is too large  those that use most give way first, down to a level at which the sum fits; who is below it goes
#                         on, and wakes them
#
# So a shard is sure of an equal share, and of what others do not need of theirs. Held is what cannot give way: a value that
# was just written and would not fit otherwise, or keys that the policy spares; the level is reckoned beside it.
#
# A shard writes its own line and reads the others', without a lock: each number is right by itself and at most
# LOOK_NS old, so the sum is right to within what the shards store in that time. Without a page it is alone.

cdef extern from *:
    """
    #define KACHE_SHOW(place, number) __atomic_store_n(place, number, __ATOMIC_RELAXED)
    #define KACHE_SEE(place) __atomic_load_n(place, __ATOMIC_RELAXED)
    #include <time.h>
    static void kache_pause(int64_t ns) {
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        nanosleep(&t, NULL);
    }
    """
    void kache_show "KACHE_SHOW"(int64_t* place, int64_t number) noexcept nogil
    int64_t kache_see "KACHE_SEE"(int64_t* place) noexcept nogil
    void rest "kache_pause"(int64_t ns) noexcept nogil

cdef enum:
    STEP_PARTS = 64             # of the limit is 1: what all shards together may take between two looks when memory is full
    ABOVE_PART = 12             # of the limit is 1: memory above it that is nobody's fault, whatever it is taken for
    HOLES_PART = 64             # the same of holes in the data, beside what a process takes anyhow
    OWN_GROWTH = 524288         # bytes that a process grows by whatever the limit is: first tables, buffers, slabs begun
    SMALL_SHARE = 16777216      # bytes of the limit for each shard up to which all of that is no fault of the data

# How old what is known of the others may get while commands are executed.
cdef int64_t LOOK_NS = 1000000
# How long what was held counts, if it is not given up before.
cdef int64_t HELD_NS = 30000000000
# How long something may be held before it is looked at whether it is there at all.
cdef int64_t SETTLED_NS = 1000000000
# Between two wake-ups of a shard that has to give way.
cdef int64_t WAKE_NS = 1000000


# A collection must not take the page away before its buffer is given back: who owns a page with a buffer cannot go.
@cython.no_gc_clear
@cython.final
cdef class Budget:
    """The line of shard `index` in `memory` (writable, NUMBERS of 8 bytes for each shard), and what follows from all.

    `wakers` are descriptors that wake the shards, by index.
    """

    def __init__(self, memory=None, int index=0, wakers=()):
        self.index = index
        self.shards = 1
        self.lines = self.own_line
        self.wakers = list(wakers)
        self.allowed = 0
        if memory is None:
            self.index = 0
        else:
            PyObject_GetBuffer(memory, &self.shared, PyBUF_WRITABLE)
            self.lines = <int64_t*> self.shared.buf
            self.shards = <int> (self.shared.len // (NUMBERS * <Py_ssize_t> sizeof(int64_t)))
            if not 0 <= index < self.shards:
                raise ValueError(f"there is no line {index} among {self.shards}")
        memset(self.line_of(self.index), 0, NUMBERS * sizeof(int64_t))

    def __dealloc__(self):
        if self.shared.buf != NULL:
            PyBuffer_Release(&self.shared)

    cdef inline int64_t* line_of(self, int shard) noexcept nogil:
        return self.lines + shard * NUMBERS

    cdef inline void publish(self, int64_t used) noexcept nogil:
        kache_show(self.line_of(self.index) + USED, used)

    cdef int set_limit(self, int64_t limit) except -1:
        """The limit of the cluster in bytes; 0: none."""
        self.limit = self.allowed = limit
        return 0

    # What may be used -----------------------------------------------------------------------------------
    cdef int64_t held_by(self, int shard) noexcept nogil:
        """What a shard cannot give up of what it uses."""
        return min(kache_see(self.line_of(shard) + HELD), kache_see(self.line_of(shard) + USED))

    cdef int64_t given(self, int shard) noexcept nogil:
        """What a shard uses and could give up."""
        return kache_see(self.line_of(shard) + USED) - self.held_by(shard)

    cdef int64_t free_for_all(self) noexcept nogil:
        """The limit less what is held."""
        cdef int64_t left = self.allowed
        cdef int shard
        for shard in range(self.shards):
            # Of one's own what is about to be stored is held, too.
            left -= kache_see(self.line_of(shard) + HELD) if shard == self.index else self.held_by(shard)
        return max(left, 0)

    cdef int64_t level(self, int wanting) noexcept nogil:
        """The fair level, beside what is held: who is below it keeps everything, who is above it gives way down to it.

        `wanting`: this shard could use any amount; -1: none could use more than it does.
        """
        cdef int64_t left = self.free_for_all(), level = left // self.shards, higher, small
        cdef int shard, rest
        while True:
            small = 0
            rest = self.shards
            for shard in range(self.shards):
                if shard != wanting and self.given(shard) < level:
                    small += self.given(shard)
                    rest -= 1
            if rest == 0:
                return left
            # What those leave who need less is divided among the others.
            higher = (left - small) // rest
            if higher <= level:
                return level
            level = higher

    cdef int64_t total(self) noexcept nogil:
        """What all shards use."""
        cdef int64_t used = 0
        cdef int shard
        for shard in range(self.shards):
            used += kache_see(self.line_of(shard) + USED)
        return used

    cdef int64_t step(self) noexcept nogil:
        """What a shard may take unseen when memory is full; all of them together a small part of the limit."""
        return self.allowed // (STEP_PARTS * self.shards) + 1

    cdef int64_t look(self, int64_t used, int64_t now_ns) noexcept nogil:
        """Publishes what this shard uses; how much it may use until the next look."""
        cdef int64_t left, step, mine, held
        self.looked_ns = now_ns
        self.publish(used)
        if self.held_until and (now_ns >= self.held_until or (
            # It was deleted meanwhile; not: it is about to be stored.
            self.held_until - now_ns < HELD_NS - SETTLED_NS and used * 2 < kache_see(self.line_of(self.index) + HELD)
        )):
            self.let_go()
        left = self.allowed - self.total()
        if self.strict:
            return used + max(left, 0) // self.shards
        held = kache_see(self.line_of(self.index) + HELD)
        mine = self.level(self.index) + held
        step = max(min(mine - used, self.step()), 0)
        if left >= 0:
            return used + max(left // self.shards, step)
        return used + step if used <= mine else min(self.level(-1) + held, used)

    cdef bint others_over(self) noexcept nogil:
        """Whether others have to give way, by more than their own timers see to."""
        cdef int64_t level = self.level(-1), step = self.step()
        cdef int shard
        for shard in range(self.shards):
            if shard != self.index and self.given(shard) > level + step:
                return True
        return False

    # What cannot give way -------------------------------------------------------------------------------
    cdef int hold(self, int64_t size, int64_t now_ns, int64_t for_ns) except -1:
        """So much of this shard does not give way for a time; nothing less than what is held already."""
        if size >= kache_see(self.line_of(self.index) + HELD):
            kache_show(self.line_of(self.index) + HELD, size)
            self.held_until = now_ns + for_ns
        return 0

    cdef int let_go(self) noexcept nogil:
        kache_show(self.line_of(self.index) + HELD, 0)
        self.held_until = 0
        return 0

    cdef bint may_hold(self, int64_t size) noexcept nogil:
        """Whether so much fits beside what the others cannot give up."""
        cdef int shard
        for shard in range(self.shards):
            if shard != self.index:
                size += self.held_by(shard)
        return size <= self.allowed

    # Others ---------------------------------------------------------------------------------------------
    cdef int wake_others(self, int64_t now_ns) except -1:
        """Wakes those that have to give way; they may have no commands to execute."""
        cdef int64_t level, step = self.step()
        cdef int shard
        if now_ns - self.woken_ns < WAKE_NS:
            return 0
        self.woken_ns = now_ns
        level = self.level(-1)
        for shard in range(min(self.shards, <int> len(self.wakers))):
            if shard != self.index and self.given(shard) > level + step:
                wake(self.wakers[shard])
        return 0

    # Resident memory ------------------------------------------------------------------------------------
    cdef int govern(self, int64_t grown, int64_t simulated) except -1:
        """Publishes how much memory of its own this process has taken since it was empty; `simulated`: of that by simulations,
        which the other shards have, too. To be called once a second.

        When all have taken more than a twelfth above the limit, because the allocator has holes, less data is allowed, down
        to two thirds of it; and more again as soon as there is room. What a process takes anyhow is most of a twelfth where
        the limit is small. It would be taken from the data there, and is not; the larger the limit, the less of it is left out.
        """
        cdef int64_t anyhow = (<int64_t> OWN_GROWTH + simulated) * self.shards, small = <int64_t> SMALL_SHARE * self.shards
        cdef int64_t room
        cdef int shard
        kache_show(self.line_of(self.index) + GROWN, max(grown, 0))
        if not self.limit:
            return 0
        if self.limit > small:
            anyhow = anyhow * small // self.limit
        room = self.limit + max(self.limit // ABOVE_PART, self.limit // HOLES_PART + anyhow)
        for shard in range(self.shards):
            room -= kache_see(self.line_of(shard) + GROWN)
        # Holes in a cluster that is not full will be filled first.
        if room >= 0 or self.total() > self.allowed - self.allowed // 8:
            self.allowed = max(self.limit * 2 // 3, min(self.allowed + room // 2, self.limit))
        return 0

    def usage(self):
        """[(bytes used, bytes held, growth of the process)] of every shard."""
        cdef int shard
        return [
            (kache_see(self.line_of(shard) + USED), self.held_by(shard), kache_see(self.line_of(shard) + GROWN))
            for shard in range(self.shards)
        ]


def wake(int waker):
    """Wakes whoever waits for the descriptor; nothing happens where there is none (below 0)."""
    if waker >= 0:
        try:
            os.write(waker, b"\1\0\0\0\0\0\0\0")
        except OSError as error:
            # It was woken often enough; or the wake-up is lost, and its own timer does the rest.
            log.debug("a shard cannot be woken: %s", error)
