"""The keys that are used most: a sketch that follows the stream of commands at the cost of a comparison for each.

    a command ─► every `gap`-th, by chance ─► cells: HeavyKeeper ─► places: the names of those that count most

HeavyKeeper (Yang and others, USENIX ATC 2018): a key adds to its cell where its mark stands; in a cell of another key it
takes something away, the less likely the more is there. So what is rare goes by, and what is frequent stays with nearly its
own count, never much above it. `gap` follows the load: an idle shard looks at every command, a busy one at about
LOOKS_PER_SECOND, each counting for the ones between. Counts are halved every HALF_LIFE seconds, so that they tell of the
last minute or so. One per shard; owns all its memory, which is in the object itself; never fails.
"""

from libc.string cimport memcpy, memset

from .memory cimport below, kache_random, table_hash

cdef enum:
    DECAYS = 256
    LOOKS_PER_SECOND = 16384
    MOST_GAP = 256

MOST_KEYS = PLACES
KEPT_BYTES = NAME_BYTES

cdef double HALF_LIFE = 30.0
cdef double DECAY_BASE = 1.08
cdef uint64_t[DECAYS] DECAY     # chance to lose one, of 2**64, by how many looks are in the cell


cdef void _fill_decay() noexcept:
    cdef int i
    cdef double chance = 18446744073709549568.0
    for i in range(DECAYS):
        DECAY[i] = <uint64_t> chance
        chance /= DECAY_BASE


_fill_decay()


cdef class HotKeys:
    """The sketch of one shard."""

    def __cinit__(self):
        self.gap = 1
        self.clear()

    def clear(self):
        """Forgets everything but the pace."""
        memset(self.cells, 0, sizeof(self.cells))
        self.used = 0
        self.least = 0
        self.total = 0
        self.seconds = 0.0

    cdef uint32_t next_gap(self) noexcept:
        """How many commands until the next look; on average `gap`. Looking too often at a time widens it at once."""
        self.looks += 1
        if self.looks > LOOKS_PER_SECOND and self.gap < MOST_GAP:
            self.gap *= 2
            self.looks = 0
        return 1 if self.gap == 1 else 1 + <uint32_t> below(2 * self.gap - 1)

    def pace(self, double now):
        """To be called about once a second, with time.monotonic(): the pace follows the load, old counts fade."""
        if self.paced:
            self.seconds += now - self.paced
        else:
            self.halved = now
        self.paced = now
        if self.looks < LOOKS_PER_SECOND // 4 and self.gap > 1:
            self.gap //= 2
        self.looks = 0
        if now - self.halved >= HALF_LIFE:
            self.halved = now
            self._halve()

    def _halve(self):
        cdef int i, kept = 0
        for i in range(ROWS * WIDTH):
            self.cells[i].count >>= 1
        for i in range(self.used):
            self.places[i].count >>= 1
            if self.places[i].count:
                if kept != i:
                    self.places[kept] = self.places[i]
                kept += 1
        self.used = kept
        self.total >>= 1
        self.seconds /= 2
        self._find_least()

    cdef void note(self, uint64_t hash, int db, const char* name, size_t n) noexcept:
        """A key was used; `hash` is that of its table."""
        cdef uint32_t count = self._count(hash ^ (<uint64_t> db * 0x9E3779B97F4A7C15ULL))
        cdef HotKey* place = NULL
        cdef int i
        self.total += self.gap
        if count <= self.least:
            return  # it is not among them: those have more
        for i in range(self.used):
            if self.places[i].hash == hash and self.places[i].db == db:
                self.places[i].count = count
                if self.used == PLACES:
                    self._find_least()
                return
        if self.used < PLACES:
            place = &self.places[self.used]
            self.used += 1
        else:
            for i in range(PLACES):
                if place == NULL or self.places[i].count < place.count:
                    place = &self.places[i]
        place.hash = hash
        place.db = db
        place.count = count
        place.size = <uint32_t> n
        memcpy(place.name, name, min(n, NAME_BYTES))
        if self.used == PLACES:
            self._find_least()

    cdef uint32_t _count(self, uint64_t hash) noexcept:
        """Counts it, and returns about how often it came."""
        cdef uint32_t mark = <uint32_t> (hash >> 32) | 1, found = 0, looks
        cdef Cell* cell
        cdef int row
        for row in range(ROWS):
            cell = &self.cells[row * WIDTH + ((hash >> (10 * row)) & (WIDTH - 1))]
            if cell.mark == mark:
                cell.count += self.gap
                found = max(found, cell.count)
                continue
            looks = cell.count // self.gap
            if looks == 0:
                cell.mark = mark
                cell.count = self.gap
                found = max(found, cell.count)
            elif looks < DECAYS and kache_random() < DECAY[looks]:
                cell.count -= self.gap
        return found

    cdef void _find_least(self) noexcept:
        cdef int i
        self.least = 0
        if self.used < PLACES:
            return
        self.least = self.places[0].count
        for i in range(1, PLACES):
            self.least = min(self.least, self.places[i].count)

    def feed(self, list keys not None, int db=0):
        """As if commands with these keys had come, one key each: for tests."""
        cdef bytes key
        cdef uint32_t until = self.next_gap()
        for key in keys:
            until -= 1
            if until == 0:
                self.note(table_hash(key, len(key)), db, key, len(key))
                until = self.next_gap()

    def top(self, int count):
        """[(db, the beginning of the key, its full size, how often it was used)], the most used first."""
        found = [
            (self.places[i].db, self.places[i].name[:min(self.places[i].size, NAME_BYTES)], self.places[i].size,
             self.places[i].count)
            for i in range(self.used)
        ]
        found.sort(key=lambda one: one[3], reverse=True)
        return found[:count]

    def totals(self):
        """(all that was counted, the seconds that it stands for)"""
        return self.total, self.seconds

    def count_of(self, int db, bytes key not None):
        """How often that key was used; 0 for one that is not among the hot ones."""
        cdef uint64_t hash = table_hash(key, len(key))
        cdef int i
        for i in range(self.used):
            if self.places[i].hash == hash and self.places[i].db == db:
                return self.places[i].count
        return 0

    def check(self):
        """Raises AssertionError for what must not be."""
        cdef int i
        assert 0 <= self.used <= PLACES
        seen = {(self.places[i].db, self.places[i].hash) for i in range(self.used)}
        assert len(seen) == self.used, "a key has two places"
        assert all([self.places[i].count > 0 for i in range(self.used)])
        if self.used == PLACES:
            assert self.least == min([self.places[i].count for i in range(self.used)])
        assert 1 <= self.gap <= MOST_GAP
