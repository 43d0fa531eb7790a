"""The rights of users, compiled from their records: the same code wherever a command is checked.

A `User` is shared by all that act in its name. What it may do is changed by `Users.take` in one step, and counts from the
next check on. Checks of a selector are C functions without Python objects; they do not know the command table, whose rows
are numbers here.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from .record import DEFAULT, default_user, metrics_user
from .rules import allowed

__all__ = ["User", "Users", "matches"]


cdef class User:

    def __cinit__(self):
        self.selectors = NULL

    def __init__(self, record not None):
        self.name = record.name
        self.take(record)

    def __dealloc__(self):
        free_rights(self.selectors, self.count)

    cdef int take(self, object record) except -1:
        """Follows this record from now on; when memory is missing, the one before."""
        cdef list chosen = [record.root, *record.selectors], keep = [], firsts = []
        cdef Py_ssize_t count = len(chosen), i
        cdef Rights* made = <Rights*> calloc(count, sizeof(Rights))
        if made == NULL:
            raise MemoryError("no memory for the rights of a user")
        try:
            for i in range(count):
                firsts.append(fill(&made[i], chosen[i], keep))
        except:
            free_rights(made, count)
            raise
        free_rights(self.selectors, self.count)
        self.selectors, self.count = made, count
        self.firsts, self.keep = firsts, keep
        self.record = record
        self.number = record.number
        self.enabled, self.nopass = record.enabled, record.nopass
        self.most_clients, self.most_commands = record.limits.clients, record.limits.commands
        self.most_input, self.most_memory = record.limits.input, record.limits.memory
        self.paced = self.most_commands > 0 or self.most_input > 0
        self.unrestricted = any([
            made[i].all_commands and made[i].all_keys and made[i].all_channels for i in range(count)])
        return 0

    cdef int leave(self) except -1:
        """It may do nothing any more."""
        self.gone = True
        self.paced = False
        self.enabled = self.unrestricted = False
        free_rights(self.selectors, self.count)
        self.selectors, self.count = NULL, 0
        return 0

    # For Python: what is not asked for every frame ----------------------------------------------------
    def may_touch(self, bytes key not None, int wanted):
        """Whether any selector, whatever commands it allows, has these rights for the key."""
        cdef Py_ssize_t i
        return any([may_touch(&self.selectors[i], PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), wanted)
                    for i in range(self.count)])

    def may_hear(self, bytes channel not None, bint literal=False):
        """Whether any selector allows the channel; `literal`: it is a pattern."""
        cdef Py_ssize_t i
        return any([may_hear(&self.selectors[i], PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel), literal)
                    for i in range(self.count)])

    def may_read_under(self, bytes prefix not None):
        """Whether any selector may read every key that begins so."""
        cdef Py_ssize_t i, k
        cdef Pattern* pattern
        for i in range(self.count):
            if may_touch_all(&self.selectors[i], MAY_READ):
                return True
            for k in range(self.selectors[i].key_count):
                pattern = &self.selectors[i].keys[k]
                if pattern.kind == MATCHES_PREFIX and pattern.rights & MAY_READ and prefix[:pattern.size] == (
                        pattern.text[:pattern.size]):
                    return True
        return False

    def refusal(self, int row, bytes first, object keys, bytes channel):
        """Why no selector allows a command: ("command" | "key" | "channel", place among the keys), the one that came furthest;
        None: one does. `row` -1: every user may run it; `first`: its first argument; `keys`: [(key, rights wanted)], None
        when it has some and they cannot be found; `channel`: where it publishes. None without.
        """
        cdef Py_ssize_t i, place
        cdef Rights* rights
        cdef tuple worst = ("command", 0)
        for i in range(self.count):
            rights = &self.selectors[i]
            if row >= 0 and not may_run(self, i, row, NULL if first is None else PyBytes_AS_STRING(first),
                                        0 if first is None else PyBytes_GET_SIZE(first)):
                continue
            place = refused_key(rights, keys)
            if place >= 0:
                if worst[0] == "command" or (worst[0] == "key" and place > <Py_ssize_t> worst[1]):
                    worst = ("key", place)
            elif channel is not None and not may_hear(rights, PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel), False):
                worst = ("channel", 0)
            else:
                return None
        return worst

    def may_sort(self, int row):
        """Whether any selector may run this row, and read every key."""
        cdef Py_ssize_t i
        return any([may_touch_all(&self.selectors[i], MAY_READ) and may_run(self, i, row, NULL, 0) for i in range(self.count)])

    def may_read_all(self):
        """Whether any selector may read every key."""
        cdef Py_ssize_t i
        return any([may_touch_all(&self.selectors[i], MAY_READ) for i in range(self.count)])


cdef class Users:
    """All users of the cluster as one process knows them."""

    def __init__(self, records=(), epoch=0):
        self.by_name, self.by_number = {}, {}
        self.metrics = User(metrics_user())
        self.take(epoch, [default_user(), *records], [])

    def take(self, epoch, records, removed):
        """Follows these records, and forgets the users of the names in `removed`; nothing else changes."""
        cdef User user
        for record in records:
            user = self.by_name.get(record.name)
            if user is None:
                user = User(record)
                self.by_name[record.name] = user
            else:
                self.by_number.pop(user.number, None)
                user.take(record)
            self.by_number[user.number] = user
        for name in removed:
            user = self.by_name.pop(name, None)
            if user is not None:
                self.by_number.pop(user.number, None)
                user.leave()
        self.default = self.by_name[DEFAULT]
        self.epoch = epoch

    def compile_again(self):
        """The commands that rules can name are other ones: what each user may do follows from its rules again."""
        cdef User user
        for user in (self.metrics, *self.by_name.values()):
            user.take(user.record)


cdef Py_ssize_t refused_key(Rights* rights, object keys) except -2:
    """The place of the first key that a selector does not allow; -1: there is none."""
    cdef Py_ssize_t i = 0
    cdef bytes key
    cdef int wanted
    if rights.all_keys:
        return -1
    if keys is None:
        return 0
    for key, wanted in keys:
        if not may_touch(rights, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), wanted):
            return i
        i += 1
    return -1


# Making --------------------------------------------------------------------------------------------------
cdef void free_rights(Rights* rights, Py_ssize_t count) noexcept:
    cdef Py_ssize_t i
    if rights != NULL:
        for i in range(count):
            free(rights[i].rows)
            free(rights[i].keys)
            free(rights[i].channels)
    free(rights)


cdef dict fill(Rights* rights, object selector, list keep):
    """The selector in C; the first arguments that it allows, by row."""
    cdef Py_ssize_t i, row
    rows, firsts = allowed(selector)
    rights.all_commands = selector.commands == (b"+@all",)
    rights.all_keys, rights.all_channels = selector.all_keys, selector.all_channels
    rights.words = max(rows, default=0) // 64 + 1
    rights.rows = <uint64_t*> calloc(rights.words, sizeof(uint64_t))
    rights.keys = <Pattern*> calloc(max(len(selector.keys), 1), sizeof(Pattern))
    rights.channels = <Pattern*> calloc(max(len(selector.channels), 1), sizeof(Pattern))
    if rights.rows == NULL or rights.keys == NULL or rights.channels == NULL:
        raise MemoryError("no memory for the rights of a user")
    for row in rows:
        rights.rows[row >> 6] |= <uint64_t> 1 << (row & 63)
    for i, (bits, pattern) in enumerate(selector.keys):
        fill_pattern(&rights.keys[i], pattern, bits, keep)
    for i, pattern in enumerate(selector.channels):
        fill_pattern(&rights.channels[i], pattern, 0, keep)
    rights.key_count, rights.channel_count = len(selector.keys), len(selector.channels)
    return {row: frozenset(words) for row, words in firsts.items()}


cdef int fill_pattern(Pattern* made, bytes pattern, int rights, list keep) except -1:
    cdef bytes inner = pattern.strip(b"*")
    keep.append(pattern)
    made.rights = <uint8_t> rights
    made.text, made.size = PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern)
    made.kind = MATCHES_GLOB
    if pattern == b"*":
        made.kind = MATCHES_ALL
    elif not any([byte in inner for byte in b"*?[\\"]):
        if inner == pattern:
            made.kind = MATCHES_EXACT
        elif inner and pattern == inner + b"*":
            made.kind = MATCHES_PREFIX
            made.size -= 1
        elif inner and pattern == b"*" + inner:
            made.kind = MATCHES_SUFFIX
            made.text += 1
            made.size -= 1
    return 0


# Checking ------------------------------------------------------------------------------------------------
cdef bint may_run(User user, Py_ssize_t selector, Py_ssize_t row, const char* first, Py_ssize_t size) except -1:
    cdef Rights* rights = &user.selectors[selector]
    cdef dict firsts
    if rights.all_commands or (row >> 6 < rights.words and rights.rows[row >> 6] >> (row & 63) & 1):
        return True
    firsts = <dict> user.firsts[selector]
    return bool(firsts) and first != NULL and row in firsts and first[:size].lower() in <frozenset> firsts[row]


cdef inline bint fits(Pattern* pattern, const char* text, Py_ssize_t size) noexcept nogil:
    if pattern.kind == MATCHES_PREFIX:
        return size >= pattern.size and memcmp(text, pattern.text, pattern.size) == 0
    if pattern.kind == MATCHES_EXACT:
        return size == pattern.size and memcmp(text, pattern.text, size) == 0
    if pattern.kind == MATCHES_SUFFIX:
        return size >= pattern.size and memcmp(text + size - pattern.size, pattern.text, pattern.size) == 0
    return pattern.kind == MATCHES_ALL or glob_matches(pattern.text, pattern.size, text, size)


cdef bint may_touch(Rights* rights, const char* key, Py_ssize_t size, int wanted) noexcept nogil:
    cdef Py_ssize_t i
    if rights.all_keys:
        return True
    for i in range(rights.key_count):
        if rights.keys[i].rights & wanted == wanted and fits(&rights.keys[i], key, size):
            return True
    return False


cdef bint may_touch_all(Rights* rights, int wanted) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(rights.key_count):
        if rights.keys[i].kind == MATCHES_ALL and rights.keys[i].rights & wanted == wanted:
            return True
    return rights.all_keys


cdef bint may_hear(Rights* rights, const char* channel, Py_ssize_t size, bint literal) noexcept nogil:
    cdef Py_ssize_t i
    cdef Pattern* pattern
    if rights.all_channels:
        return True
    for i in range(rights.channel_count):
        pattern = &rights.channels[i]
        if not literal:
            if fits(pattern, channel, size):
                return True
        elif same_pattern(pattern, channel, size):
            return True
    return False


cdef bint same_pattern(Pattern* pattern, const char* text, Py_ssize_t size) noexcept nogil:
    """Whether a glob was given with these letters."""
    cdef const char* begin = pattern.text - (1 if pattern.kind == MATCHES_SUFFIX else 0)
    cdef Py_ssize_t whole = pattern.size + (1 if pattern.kind in (MATCHES_SUFFIX, MATCHES_PREFIX) else 0)
    return whole == size and memcmp(begin, text, size) == 0


def matches(bytes pattern not None, bytes text not None):
    """Whether a key pattern fits a text, as it is checked."""
    cdef Pattern made
    fill_pattern(&made, pattern, 0, [])
    return fits(&made, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


# Globs ---------------------------------------------------------------------------------------------------
cdef bint glob_matches(const char* pattern, Py_ssize_t m, const char* text, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t at = 0, place = 0, star = -1, mark = 0, behind
    if m == 1 and pattern[0] == c"*":
        return True
    if n == 0:
        return m == 0
    while place < n:
        if at < m and pattern[at] == c"*":
            at += 1
            star, mark = at, place
            continue
        if at < m:
            behind = accepts(pattern, m, at, <uint8_t> text[place])
            if behind:
                at, place = behind, place + 1
                continue
        if star < 0:
            return False
        # One more byte for the last star; what is before it is settled.
        mark += 1
        at, place = star, mark
    while at < m and pattern[at] == c"*":
        at += 1
    return at == m


cdef inline int as_signed(uint8_t byte) noexcept nogil:
    return byte - 256 if byte > 127 else byte


cdef Py_ssize_t accepts(const char* pattern, Py_ssize_t m, Py_ssize_t at, uint8_t byte) noexcept nogil:
    """Where the element that begins at `at` ends, if it accepts the byte; 0 if it does not."""
    cdef uint8_t first = <uint8_t> pattern[at], low
    cdef bint negated, found = False
    at += 1
    if first == c"?":
        return at
    if first == c"\\" and at < m:
        return at + 1 if <uint8_t> pattern[at] == byte else 0
    if first != c"[":
        return at if first == byte else 0
    negated = at < m and pattern[at] == c"^"
    at += negated
    while at < m and pattern[at] != c"]":
        low = <uint8_t> pattern[at]
        if low == c"\\" and m - at >= 2:
            at += 1
            found |= <uint8_t> pattern[at] == byte
        elif m - at >= 3 and pattern[at + 1] == c"-":
            found |= in_range(low, <uint8_t> pattern[at + 2], byte)
            at += 2
        else:
            found |= low == byte
        at += 1
    # A class without its bracket ends with the pattern.
    return min(at + 1, m) if found != negated else 0


cdef inline bint in_range(uint8_t one, uint8_t other, uint8_t byte) noexcept nogil:
    """Ends in either order, compared as C's signed characters."""
    return (as_signed(one) <= as_signed(byte) <= as_signed(other)) or (as_signed(other) <= as_signed(byte) <= as_signed(one))
