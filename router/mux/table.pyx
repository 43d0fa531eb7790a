"""The command table in C: name -> row, and the texts of refusals that name a command.

One array of commands, two open-addressing indexes over it: what a RESP client sees and what a binary
client sees (binary variants overlay rows of the same name). A container ("config") is an entry whose
second word completes the name ("config|get").

Commands of modules lie beside it, with an index of their own that is asked for what is not built in; one that is unloaded
stays where it is, and is not found any more.

Read by every session of a router, never changed but for the statistics of each command and by `take_rows`.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp

from kache.wire.codec cimport Span

from kache.acl.inner import rights_of
from ..registry import LOCALS, move_of

cdef enum:
    LONGEST_NAME = 64
    HISTOGRAM_SIZE = 1024


# Executed behind MULTI, too, as in Redis; everything else is queued.
cdef frozenset IMMEDIATE = frozenset(("multi", "exec", "discard", "watch", "quit", "reset"))

# What the router answers from what it knows: those that change nothing, and those that change their session.
cdef frozenset HARMLESS = frozenset(("ping", "echo", "time", "lolwut", "role", "unwatch", "client|id", "client|getname"))
cdef frozenset INSTANT = frozenset(("select", "client|setname", "client|setinfo", "client|no-touch", "client|no-evict"))

# A client that listens in RESP2 may change what it listens to, ask whether all is well, and leave.
cdef frozenset SUBSCRIBING = frozenset((
    "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"))
cdef frozenset WHILE_SUBSCRIBED = frozenset(("ping", "quit", "reset"))

# What may leave a session under another user.
cdef frozenset LOGS_IN = frozenset(("auth", "hello"))

# Where a command names channels; leaving them needs no right.
cdef dict HEARING = {
    "publish": HEARS_ONE, "spublish": HEARS_ONE, "subscribe": HEARS_CHANNELS, "ssubscribe": HEARS_CHANNELS,
    "psubscribe": HEARS_PATTERNS}

cdef uint8_t[256] LOWER


cdef void build_lower() noexcept:
    cdef int byte
    for byte in range(256):
        LOWER[byte] = <uint8_t> (byte + 32 if 65 <= byte <= 90 else byte)


build_lower()


cdef inline uint32_t hash_word(uint32_t seed, const char* word, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        seed = (seed ^ LOWER[<uint8_t> word[i]]) * 16777619u
    return seed


cdef inline bint same_word(const char* lowered, const char* word, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if LOWER[<uint8_t> word[i]] != <uint8_t> lowered[i]:
            return False
    return True


@cython.final
cdef class CommandTable:
    """Every row of the table that clients can reach, by name, and every row by its key."""

    def __cinit__(self):
        self.commands = NULL
        self.resp.slots = self.binary.slots = NULL
        self.blocks = self.more = NULL
        self.block_sizes = NULL

    def __dealloc__(self):
        cdef int i, k
        if self.commands != NULL:
            for i in range(self.count):
                free(self.commands[i].latency)
                free(self.commands[i].keys)
        for i in range(self.block_count):
            for k in range(self.block_sizes[i]):
                free(self.blocks[i][k].keys)
            free(self.blocks[i])
        free(self.blocks)
        free(self.block_sizes)
        free(self.more)
        free(self.commands)
        free(self.resp.slots)
        free(self.binary.slots)

    def __init__(self, table, containers):
        """`containers` are rows that are found but never executed: CONFIG and the like without a subcommand."""
        cdef int i
        rows = [row for row in table if "internal" not in row.flags] + list(containers)
        self.by_key = {row.key: row for row in table}
        self.rows = list(table)
        self.lock, self.unlock = self.by_key["_lock"].id, self.by_key["_unlock"].id
        self.unwatch = self.by_key["_unwatch"].id
        self.subscribe = self.by_key["_subscribe"].id
        self.track, self.untrack = self.by_key["_track"].id, self.by_key["_untrack"].id
        self.broken, self.monitored = self.by_key["_broken"].id, self.by_key["_monitored"].id
        self.monitor = self.by_key["monitor"].id
        self.keep = []
        self.count = len(rows)
        self.commands = <Command*> calloc(self.count, sizeof(Command))
        index_new(&self.resp, self.count)
        index_new(&self.binary, self.count)
        if self.commands == NULL or self.resp.slots == NULL or self.binary.slots == NULL:
            raise MemoryError("no memory for the command table")
        for i, row in enumerate(rows):
            self._fill(&self.commands[i], row)
        # Variants of the binary protocol last, so that they replace the row of the same name there.
        for i in range(self.count):
            dialect = rows[i].dialect
            if dialect != "binary":
                index_put(&self.resp, self.commands, i)
            if dialect == "any":
                index_put(&self.binary, self.commands, i)
        for i in range(self.count):
            if rows[i].dialect == "binary":
                index_put(&self.binary, self.commands, i)

    def hide_scripts(self):
        """They run where nobody checks what they do against the rights of their users."""
        cdef int i
        for i in range(self.count):
            self.commands[i].unseen = self.commands[i].runs_script

    def take_rows(self, list rows not None):
        """These, with their numbers, are the commands of modules from here on."""
        cdef int i, k
        cdef set live = {row.id for row in rows}, known = set()
        for i in range(self.block_count):
            for k in range(self.block_sizes[i]):
                known.add(self.blocks[i][k].id)
        fresh = [row for row in rows if row.id not in known]
        if fresh:
            self._add_block(fresh)
        self._index_more(live)
        for key in [key for key, row in self.by_key.items() if row.group == "module"]:
            del self.by_key[key]
        self.by_key.update({row.key: row for row in rows})

    cdef int _add_block(self, list rows) except -1:
        cdef int i, n = len(rows)
        cdef Command** blocks = <Command**> realloc(self.blocks, (self.block_count + 1) * sizeof(Command*))
        cdef int* sizes
        if blocks == NULL:
            raise MemoryError("no memory for the command table")
        self.blocks = blocks
        sizes = <int*> realloc(self.block_sizes, (self.block_count + 1) * sizeof(int))
        if sizes == NULL:
            raise MemoryError("no memory for the command table")
        self.block_sizes = sizes
        blocks[self.block_count] = <Command*> calloc(n, sizeof(Command))
        if blocks[self.block_count] == NULL:
            raise MemoryError("no memory for the command table")
        sizes[self.block_count] = n
        self.block_count += 1
        for i, row in enumerate(rows):
            self._fill(&blocks[self.block_count - 1][i], row)
        return 0

    cdef int _index_more(self, set live) except -1:
        """Those whose numbers are `live` are found by name from here on, the others are not, not even by who has just used them."""
        cdef Command** index = NULL
        cdef Command* command
        cdef uint32_t mask = 15, at
        cdef int i, k
        while <int> mask < 4 * len(live):
            mask = mask * 2 + 1
        if live:
            index = <Command**> calloc(mask + 1, sizeof(Command*))
            if index == NULL:
                raise MemoryError("no memory for the command table")
        for i in range(self.block_count):
            for k in range(self.block_sizes[i]):
                command = &self.blocks[i][k]
                command.word = 0
                if command.id not in live:
                    continue
                if (<object> command.row).name.isalpha():
                    command.word = short_word(command.name, command.name_size)
                at = command.hash & mask
                while index[at] != NULL:
                    at = (at + 1) & mask
                index[at] = command
        free(self.more)
        self.more = index
        self.more_mask = mask
        return 0

    cdef Command* _find_more(self, uint32_t hash, Span* word) noexcept:
        cdef uint32_t at = hash & self.more_mask
        cdef Command* command
        while self.more[at] != NULL:
            command = self.more[at]
            if command.hash == hash and command.name_size == word.size and same_word(command.name, word.data, word.size):
                return command
            at = (at + 1) & self.more_mask
        return NULL

    cdef int _fill(self, Command* command, object row) except -1:
        cdef bytes name = row.name.encode()
        cdef str key = row.key
        handler = LOCALS.get(key) if row.route == "local" else move_of(row)
        self.keep += [name, row, handler, key]
        command.id = max(row.id, 0)     # a container has none and is never sent
        command.arity = row.arity
        command.name = PyBytes_AS_STRING(name)
        command.name_size = PyBytes_GET_SIZE(name)
        command.hash = hash_word(2166136261u, command.name, command.name_size)
        command.words = row.words
        if name.isalpha() and not row.subcommands:
            command.word = short_word(command.name, command.name_size)
        command.writes = "write" in row.flags
        command.no_auth = "no_auth" in row.flags
        command.container = bool(row.subcommands)
        command.nothing_is_missing = row.dialect == "binary"
        command.needs_room = "denyoom" in row.flags
        command.no_multi = "no_multi" in row.flags
        command.immediate = key in IMMEDIATE
        command.begins = key == "multi"
        command.executes = key == "exec"
        command.selects = key == "select"
        command.publishes = row.route == "channel"
        command.pushes = key in SUBSCRIBING
        command.while_subscribed = command.pushes or key in WHILE_SUBSCRIBED
        command.harmless = key in HARMLESS
        command.instant = command.harmless or key in INSTANT
        command.row = <PyObject*> row
        command.key = <PyObject*> key
        command.handler = <PyObject*> handler if handler is not None else NULL
        if row.route == "local":
            command.route = ROUTE_LOCAL
        elif row.route == "cursor" or row.route == "weighted":
            command.route = ROUTE_CURSOR
        elif row.route == "none":
            command.route = ROUTE_CONTAINER
        elif row.route == "all":
            command.route = ROUTE_ALL
        elif row.route == "move":
            command.route = ROUTE_MOVE
        else:
            command.route = ROUTE_SHARD
        if row.route == "split" or row.merge == "concat":
            command.fold = {"sum": FOLD_SUM, "all_ok": FOLD_OK, "in_order": FOLD_IN_ORDER, "concat": FOLD_CONCAT}.get(row.merge, FOLD_NONE)
        self._fill_keys(command, row)
        self._fill_rights(command, row)
        return 0

    cdef int _fill_keys(self, Command* command, object row) except -1:
        """The keys of a row as one range where its specs say so ("@1;@2..-1" is one), else the planner finds them."""
        if row.route == "channel":
            # Its slot decides, as that of a key would.
            command.first = command.last = row.words
            command.step = 1
            return 0
        for spec in row.keys:
            if spec.kind != "range" or (command.first and (spec.first != command.last + 1 or spec.step != command.step)):
                command.planned = True
                break
            command.first = command.first or spec.first
            command.last = spec.last
            command.step = spec.step
        command.may_block = "blocking" in row.flags and row.route == "move"
        command.read_streams = any([spec.kind == "half" for spec in row.keys])
        if not row.keys or command.may_block:
            command.planned = True
        return 0

    cdef int _fill_rights(self, Command* command, object row) except -1:
        """What of the command is checked against the rights of its user."""
        cdef int i
        command.logs_in = row.key in LOGS_IN
        command.runs_script = row.route == "script"
        command.while_busy = "allow_busy" in row.flags
        command.sorts = row.name in ("sort", "sort_ro")
        command.chooses = {"set": CHOOSES_SET, "bitfield": CHOOSES_BITFIELD}.get(row.name, CHOOSES_NOTHING)
        command.hears = HEARING.get(row.name, HEARS_NOTHING)
        command.keyed = bool(row.keys) and row.route != "channel"
        command.located = any([spec.kind != "range" for spec in row.keys])
        command.plain = not (command.located or command.sorts or command.runs_script or command.hears != HEARS_NOTHING)
        if not command.keyed or command.located:
            return 0
        command.keys = <KeyRights*> calloc(len(row.keys), sizeof(KeyRights))
        if command.keys == NULL:
            raise MemoryError("no memory for the command table")
        command.key_count = len(row.keys)
        for i, spec in enumerate(row.keys):
            command.keys[i].first, command.keys[i].last, command.keys[i].step = spec.first, spec.last, spec.step
            command.keys[i].wanted = rights_of(spec.flags)
        command.one_key = command.plain and command.key_count == 1 and command.keys[0].first == command.keys[0].last == 1
        return 0

    def adapt(self, handlers):
        """In front of a Redis Cluster: `handlers`, by Row.key, carry out what does not simply go to the node of its keys."""
        cdef Command* command
        cdef int i
        for i in range(self.count):
            command = &self.commands[i]
            if <object> command.key in handlers:
                handler = handlers[<object> command.key]
                self.keep.append(handler)
                command.handler = <PyObject*> handler
                command.route = ROUTE_CURSOR
                command.begins = command.executes = command.pushes = False
            elif command.route != ROUTE_LOCAL:
                command.handler = NULL

    cdef Command* find(self, bint binary, Span* words, Py_ssize_t count) noexcept:
        """The command that `words` start with; a container itself when its second word is unknown; or NULL."""
        cdef Index* index = &self.binary if binary else &self.resp
        cdef uint32_t hash
        cdef Command* command
        cdef Command* inner
        if words[0].size > LONGEST_NAME:
            return NULL
        hash = hash_word(2166136261u, words[0].data, words[0].size)
        command = index_find(index, self.commands, hash, words, 1)
        if command != NULL and command.container and count > 1 and words[1].size <= LONGEST_NAME:
            hash = (hash ^ c"|") * 16777619u
            hash = hash_word(hash, words[1].data, words[1].size)
            inner = index_find(index, self.commands, hash, words, 2)
            if inner != NULL:
                return inner
        if command == NULL and self.more != NULL:
            return self._find_more(hash, words)
        return command

    def lookup(self, list words, bint binary=False):
        """For tests: the Row.key that `words` (bytes) lead to, or None."""
        cdef Span[2] spans
        cdef Command* command
        cdef int i
        for i in range(min(2, len(words))):
            spans[i].data = PyBytes_AS_STRING(<bytes> words[i])
            spans[i].size = PyBytes_GET_SIZE(<bytes> words[i])
        command = self.find(binary, spans, len(words))
        if command == NULL:
            return None
        return <object> command.key


# Open addressing over the array; slots hold position + 1 -----------------------------------------
cdef void index_new(Index* index, int count) noexcept:
    index.mask = 15
    while index.mask < 4 * count:
        index.mask = index.mask * 2 + 1
    index.slots = <uint16_t*> calloc(index.mask + 1, sizeof(uint16_t))


cdef void index_put(Index* index, Command* commands, int position) noexcept:
    cdef Command* command = &commands[position]
    cdef Command* other
    cdef uint32_t at = command.hash & index.mask
    while index.slots[at]:
        other = &commands[index.slots[at] - 1]
        if other.name_size == command.name_size and memcmp(other.name, command.name, command.name_size) == 0:
            break
        at = (at + 1) & index.mask
    index.slots[at] = <uint16_t> (position + 1)


cdef Command* index_find(Index* index, Command* commands, uint32_t hash, Span* words, int count) noexcept:
    cdef uint32_t at = hash & index.mask
    cdef Command* command
    cdef Py_ssize_t n = words[0].size
    while index.slots[at]:
        command = &commands[index.slots[at] - 1]
        if command.hash == hash and command.words == count:
            if count == 1:
                if command.name_size == n and same_word(command.name, words[0].data, n):
                    return command
            elif (command.name_size == n + 1 + words[1].size and same_word(command.name, words[0].data, n)
                    and command.name[n] == c"|" and same_word(command.name + n + 1, words[1].data, words[1].size)):
                return command
        at = (at + 1) & index.mask
    return NULL


# Counting ------------------------------------------------------------------------------------------
cdef inline int latency_bucket(int64_t ns) noexcept:
    """See kache.stats: linear up to 32, then 16 buckets for every power of two."""
    cdef int power = 0
    cdef uint64_t value = <uint64_t> ns
    if ns < 0:
        return 0
    if value < 32:
        return <int> value
    while value >> (power + 6):
        power += 1
    return min(32 + power * 16 + <int> (value >> (power + 1)) - 16, HISTOGRAM_SIZE - 1)


cdef void count_local(Command* command, int64_t ns) noexcept:
    command.calls += 1
    command.micros += ns // 1000
    if command.latency == NULL:
        command.latency = <uint64_t*> calloc(HISTOGRAM_SIZE, sizeof(uint64_t))
        if command.latency == NULL:
            return
    command.latency[latency_bucket(ns)] += 1


cdef dict latency_of(Command* command):
    cdef int i
    if command.latency == NULL:
        return {}
    return {i: command.latency[i] for i in range(HISTOGRAM_SIZE) if command.latency[i]}


cdef void reset_command(Command* command) noexcept:
    free(command.latency)
    command.latency = NULL
    command.calls = command.micros = command.failed = 0


# Texts of refusals, as the real server words them -------------------------------------------------
cdef bytes c_text(Span word, Py_ssize_t limit):
    """At most `limit` bytes of a word, up to a NUL: the real server prints it as a C string."""
    cdef bytes text = PyBytes_FromStringAndSize(word.data, min(word.size, limit))
    return text.partition(b"\0")[0]


cdef bytes unknown_command(Span* words, Py_ssize_t count):
    cdef bytes shown = b""
    cdef Py_ssize_t i
    for i in range(1, count):
        if len(shown) >= 128:
            break
        shown += b"'" + c_text(words[i], 128 - len(shown)) + b"' "
    return b"ERR unknown command '" + c_text(words[0], 128) + b"', with args beginning with: " + shown


cdef bytes unknown_subcommand(Command* container, Span word):
    return (b"ERR unknown subcommand '" + c_text(word, 128) + b"'. Try "
            + container.name[:container.name_size].upper() + b" HELP.")


cdef bytes wrong_arity(Command* command):
    return b"ERR wrong number of arguments for '" + command.name[:command.name_size] + b"' command"
