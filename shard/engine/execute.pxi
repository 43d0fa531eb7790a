# Executor: the one execution point. Whatever anybody asks of this shard's data passes `execute_command` or `call`.
#
#   a frame ─► execute_command ─┬► refusal: arity, loading, memory ─────────┬► the compiled case ──► reply bytes
#   a handler ─► call ──────────┘  or the error that refuses it              └► the handler ────────► reply, a Python value
#                                                                                 └► context.call: the next one inside
#
# It is this long since Cython wants the methods of a class in one file.

cdef enum:
    MANY_ARGUMENTS = 64         # from which a compiled command is timed by itself
    KEY_COST = 64               # what a key takes beside its bytes, about
    LARGE_PARTS = 4             # of a share is 1: from which a value is large
    FEWEST_KEYS = 1000          # that simulations say anything about
    PRESENT = 850               # keys in the simulated caches of the present size: the largest have four times as many
    HIGHEST_RATE = 16           # of the keys is in the sample, at most, 1
    ASKED_LATELY_MS = 3600000   # so long the simulations of a shard that evicts nothing run for whoever has asked
    MOST_SPELLINGS = 8192       # of names of commands that are remembered
    OVERSHOOT_PART = 64         # of the limit is 1: so much above it others are not waited for

    # What a unit needs (`look_at`).
    UNIT_NEEDS_ROOM = 1
    UNIT_WRITES = 2
    UNIT_NEEDS_ALL = 4          # all of the data: it cannot be executed while loading

# How long one write may spend on eviction before it goes on although memory is full; the timer does the rest.
cdef int64_t EVICTION_NS = 500000
# The same for a value from HEAVY bytes on.
cdef int64_t LARGE_EVICTION_NS = 4000000
# The same for the writes that follow one whose time was up: a tick looks at the clock after many of them.
cdef int64_t SHORT_EVICTION_NS = 50000
cdef int64_t CROWDED_NS = 5000000
# How long one write waits, at most, while other shards give way, and between two looks at them. Where there are fewer cores
# than shards a pause of a moment takes as long as the system lets others run: it is the clock that counts, not the looks.
cdef int64_t LONGEST_WAIT_NS = 2000000
cdef int64_t WAIT_NS = 200000
# Between two waits: many writes of one tick do not add up to a stall.
cdef int64_t WAIT_PAUSE_NS = 5000000
# After it has waited in vain: a shard that does not give way (it is stopped, it has nothing to evict) holds nobody up.
cdef int64_t IMPATIENT_NS = 1000000000
cdef bytes OUT_OF_MEMORY_TEXT = OUT_OF_MEMORY.encode()
# What the last rows came to; see fill_commands.
cdef object ROWS = None
cdef list ROWS_LIST = None
cdef dict ROW_NUMBERS = None
cdef Command* ROW_COMMANDS = NULL
cdef bytes UNSURE_TEXT = b"TRYAGAIN a change of this key is not on the disk yet, which does not answer"
cdef bytes LOADING_TEXT = b"LOADING Kache is loading the dataset in memory"


# Commands whose reply has all of the values that they name. Those that show one collection see to it themselves (passages.pxi).
cdef frozenset SHOWS_ALL = frozenset(("get", "mget", "dump"))


cdef class Executor:
    """One shard's data with the commands on it. Does no I/O; `Link` brings it frames, tests call `execute`.

    `handlers` are functions by command id, None where there is none. maxmemory is in bytes (0: no limit), the hash seed
    has 16 bytes, `cleanup` takes what is large (None: everything is freed on the spot). What stands beside the data is
    given: the slow log, the gauges of the process, the budget of the cluster (None: this shard is alone).
    """
    # Measuring
    # Deferred replies

    def __cinit__(self, *args, **kwargs):
        self.commands = NULL
        memset(self.histogram, 0, sizeof(self.histogram))

    def __init__(
        self, list handlers not None, rows, *, slowlog, maxmemory=0, policy="noeviction", hash_seed=bytes(16),
        cleanup=None, index=0, now_ms=None, Budget budget=None,
    ):
        self.store = Store(hash_seed, cleanup)
        self.handlers = handlers
        self.inner = {}
        self.spelled = {}
        self.fill_commands(rows)
        self.slowlog = slowlog
        self.locks = Locks(self)
        self.listings = Listings(self)
        self.watches = Watches(self.store)
        self.channels = Channels()
        self.tracking = Tracking(self)
        self.channels.notifications = self.notifications = Notifications(self)
        self.evictor = Evictor(self.store)
        self.evictor.set_policy(policy)
        self.defragmenter = Defragmenter(self.store)
        self.hot = HotKeys()
        self.big = BigKeys(self.store)
        self.budget = Budget() if budget is None else budget
        self.sure_until = UINT64_MAX
        self.set_maxmemory(maxmemory)
        self.index = index
        self.simulating = True
        self.errors = {}
        self.batch_commands = []
        self.deferred = {}
        self.deferred_of = {}
        self.parked_on = {}
        self.configure_slowlog(10000)
        self.own_clock = now_ms is None
        self.set_time(int(time.time() * 1000) if now_ms is None else now_ms)
        self.direct = Context(self)

    def take_up(self, *, bytes hash_seed not None, cleanup, index, int64_t now_ms, Budget budget not None):
        """What was put together beforehand, and is still empty, becomes one of the shards of a cluster; as in `__init__`."""
        set_hash_seed(hash_seed)
        self.store.cleanup = cleanup
        self.budget = budget
        self.set_maxmemory(0)
        self.index = index
        self.own_clock = False
        self.store.set_time_exactly(now_ms)
        self.clock_ms = now_ms

    def __dealloc__(self):
        cdef int i
        if self.commands != NULL:
            for i in range(self.command_count):
                free(self.commands[i].histogram)
        free(self.commands)

    cdef int fill_commands(self, object rows) except -1:
        """What is asked of a row for every command. Its work is done once in a program: a shard that was forked from one
        where it is done touches none of the rows, and goes on sharing their memory."""
        global ROWS, ROWS_LIST, ROW_NUMBERS, ROW_COMMANDS
        if rows is not ROWS:
            self.rows = list(rows)
            self.numbers = {row.key: row.id for row in self.rows}
            self.look_at_rows()
            free(ROW_COMMANDS)
            ROWS, ROWS_LIST, ROW_NUMBERS = rows, self.rows, self.numbers
            ROW_COMMANDS = self.commands
        self.rows = ROWS_LIST
        self.numbers = ROW_NUMBERS
        self.command_count = self.built_in = len(self.rows)
        self.commands = <Command*> calloc(self.command_count, sizeof(Command))
        if self.commands == NULL:
            raise MemoryError("no memory for the commands")
        memcpy(self.commands, ROW_COMMANDS, self.command_count * sizeof(Command))
        return 0

    cdef int look_at_rows(self) except -1:
        cdef int i
        self.commands = <Command*> calloc(len(self.rows), sizeof(Command))
        if self.commands == NULL:
            raise MemoryError("no memory for the commands")
        for i, row in enumerate(self.rows):
            self.fill_command(&self.commands[i], row)
            self.commands[i].compiled = compiled_of(row.key)
        return 0

    cdef int fill_command(self, Command* command, object row) except -1:
        command.arity = row.arity - row.words if row.arity >= 0 else row.arity + row.words - 1
        command.writes = "write" in row.flags
        command.denyoom = "denyoom" in row.flags
        command.readonly = "readonly" in row.flags
        command.internal = "internal" in row.flags
        command.shows_all = row.key in SHOWS_ALL
        command.while_loading = "loading" in row.flags
        command.unlogged = "internal" in row.flags or "skip_slowlog" in row.flags
        command.blocking = "blocking" in row.flags
        command.noscript = "noscript" in row.flags
        command.whole = row.route not in ("key", "split", "move", "script", "channel", "local", "none")
        command.channel = row.route == "channel"
        command.words = row.words
        return self.fill_keys(command, row)

    cdef int fill_keys(self, Command* command, object row) except -1:
        """Where its keys stand among its arguments, if they are one range; else its row finds them."""
        first, last, step = row.legacy_range
        if row.route == "channel":
            # The name of a channel has a slot, as that of a key has.
            first, last, step = row.words, row.words, 1
        if any([spec.kind != "range" for spec in row.keys]) or (row.keys and last != row.keys[len(row.keys) - 1].last):
            command.movable = True
        elif step:
            command.first = first - row.words
            command.last = last - row.words if last >= 0 else last
            command.step = step
        return 0

    @property
    def keyspace(self):
        """Database 0, as the handlers see it: for tests and tools."""
        return self.direct.keys

    def compiled_commands(self):
        """Keys of the commands with a compiled case."""
        return [row.key for i, row in enumerate(self.rows) if self.commands[i].compiled != NULL]

    def replace_handler(self, str key not None, handler):
        """Another function for the command `key`, the compiled case left out: for tests."""
        number = self.numbers[key]
        self.handlers = list(self.handlers)
        self.handlers[number] = handler
        self.commands[<int> number].compiled = NULL

    cpdef set_time(self, int64_t now_ms):
        """The time of the commands that follow, unix ms."""
        self.store.set_time(now_ms)
        self.clock_ms = now_ms

    def turn_back(self, int64_t now_ms):
        """An earlier time than the present one, for tests; only where there is no key whose deadline it could move."""
        cdef int db
        for db in range(DATABASES):
            if self.store.databases[db].count:
                return
        self.store.set_time_exactly(now_ms)

    # Executing ------------------------------------------------------------------------------------------
    cdef int execute_command(self, Context context, int number, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
        """One command; its reply, whatever it is, is appended to `out`. DONE, or PARKED or BLOCKED (nothing was appended)."""
        cdef Py_ssize_t mark = out.end - out.start
        cdef Command* command
        cdef bytes refused
        if number >= self.command_count:
            return fail(context, out, b"ERR unknown command number")
        command = &self.commands[number]
        self.executed += 1
        if self.executed >= self.next_look:
            self.look(context, command, args, n)
        try:
            if not self.admits(context, command, args, n):
                refused = self.refusal(context, command, number, args, n)
                if refused is not None:
                    command.rejected += self.counts(context, command)
                    return fail(context, out, refused)
            self.enter(context, command, number)
            if self.store.missed is not None:
                self.store.missed.tell_misses(context, self.rows[number], args, n)
            outcome = DECLINE if command.compiled == NULL else command.compiled(context, slot, args, n, out)
            if outcome == DONE:
                self.count_compiled(context, command, number)
                # Only what moves much can be slow; the others are not worth a look at the clock.
                if self.store.heavy or n >= MANY_ARGUMENTS or out.end - out.start - mark >= HEAVY or self.slow_ns == 0:
                    self.time_compiled(context, number, args, n)
                if context.flags & FLAG_TRACK:
                    self.tracking.remember(context, command, number, args, n)
                return DONE
            if outcome == PARKED:
                return PARKED
            reply = self.run_handler(context, command, number, arguments_of(args, n))
            if type(reply) is Deferred:
                self.pending_token = reply.token
                return BLOCKED if reply.blocked else PARKED
            if context.flags & FLAG_TRACK:
                self.tracking.remember(context, command, number, args, n)
            if type(reply) is Raw:
                return out.append(PyBytes_AS_STRING(<bytes> reply.data), PyBytes_GET_SIZE(<bytes> reply.data))
            if type(reply) is Passage:
                return take_over(out, (<Passage> reply).made)
            return put_reply(out, context.dialect, reply)
        except Exception as error:
            out.end = out.start + mark
            command.calls += self.counts(context, command)
            command.failed += self.counts(context, command)
            return fail(context, out, self.error_text(error, number))

    cdef void look(self, Context context, Command* command, Span* args, Py_ssize_t n) noexcept:
        """One of the commands whose keys are counted for all: which keys are hot is known at the cost of a comparison."""
        cdef Py_ssize_t i = command.first, last = command.last if command.last >= 0 else n + command.last
        self.next_look = self.executed + self.hot.next_gap()
        if command.movable or command.internal:
            return
        while command.step and i <= last and i < n:
            self.hot.note(table_hash(args[i].data, args[i].size), context.keys.db, args[i].data, args[i].size)
            i += command.step

    cpdef object call(self, Context context, str key, tuple args):
        """A command inside another; see Context.call."""
        cdef int number = self.numbers.get(key, -1)
        cdef Words words
        if number < 0:
            raise CommandError(f"ERR unknown command '{key}'")
        words = Words(args)
        return self.call_number(context, number, args, words.spans, words.count)

    cdef object call_number(self, Context context, int number, tuple args, Span* spans, Py_ssize_t n):
        cdef int outer = context.number
        cdef bint no_touch = self.store.no_touch, counting = self.store.counting
        cdef Command* command = &self.commands[number]
        cdef bytes refused = self.refusal(context, command, number, spans, n)
        if refused is not None:
            command.rejected += self.counts(context, command)
            raise CommandError(refused.decode())
        context.depth += 1
        self.store.no_touch = (context.flags & FLAG_NO_TOUCH) != 0
        try:
            self.enter(context, command, number)
            if self.store.missed is not None:
                self.store.missed.tell_misses(context, self.rows[number], spans, n)
            reply = self.run_handler(context, command, number, args)
            if context.flags & FLAG_TRACK:
                self.tracking.remember(context, command, number, spans, n)
            return reply
        except Exception:
            command.calls += self.counts(context, command)
            command.failed += self.counts(context, command)
            raise
        finally:
            context.depth -= 1
            context.number = outer
            self.store.no_touch = no_touch
            self.store.counting = counting

    cdef int call_compiled(self, Context context, int number, Span* args, Py_ssize_t n, Buffer out) except -1:
        """The compiled case of a command inside another: DONE, or DECLINE before anything was done. CommandError when refused."""
        cdef int outer = context.number, done
        cdef bint no_touch = self.store.no_touch, counting = self.store.counting
        cdef Command* command = &self.commands[number]
        cdef Py_ssize_t mark = out.used()
        cdef int64_t began, took
        cdef bytes refused
        if not self.admits(context, command, args, n):
            refused = self.refusal(context, command, number, args, n)
            if refused is not None:
                command.rejected += self.counts(context, command)
                raise CommandError(refused.decode())
        began = monotonic_ns()
        context.depth += 1
        self.store.no_touch = (context.flags & FLAG_NO_TOUCH) != 0
        try:
            self.enter(context, command, number)
            if self.store.missed is not None:
                self.store.missed.tell_misses(context, self.rows[number], args, n)
            done = command.compiled(context, NO_SLOT, args, n, out)
        finally:
            context.depth -= 1
            context.number = outer
            self.store.no_touch = no_touch
            self.store.counting = counting
        if done != DONE:
            return DECLINE
        took = monotonic_ns() - began
        command.ns += took
        count_times(command, histogram_bucket(took), 1)
        command.calls += self.counts(context, command)
        if out.data[out.start + mark] == c"-":
            command.failed += self.counts(context, command)
        if context.flags & FLAG_TRACK:
            self.tracking.remember(context, command, number, args, n)
        return DONE

    cdef int number_of_spans(self, Span* words, Py_ssize_t n) except -1:
        """The same as `number_of`."""
        cdef int number
        if n:
            number = self.spelled.get(PyBytes_FromStringAndSize(words[0].data, words[0].size), -1)
            if number >= 0:
                return number
        return self.number_of(arguments_of(words, n))

    cdef int number_of(self, tuple words) except -1:
        """The number of a command as a client of RESP names it; CommandError for none."""
        cdef bytes name
        cdef int number
        from kache.commands import lookup

        name = words[0] if words else b""
        number = self.spelled.get(name, -1)
        if number >= 0:
            return number
        row = lookup(name, RESP2)
        if row is not None and (row.is_container or row.subcommands) and len(words) > 1:
            inner = lookup(name + b"|" + <bytes> words[1], RESP2)
            if inner is not None:
                return inner.id
        if row is None:
            number = self.numbers.get(name.lower().decode("latin-1"), -1)
            if number >= self.built_in:
                return number
        if row is None or row.is_container or "internal" in row.flags:
            raise CommandError("ERR Unknown Redis command called from script")
        if not row.subcommands and len(self.spelled) < MOST_SPELLINGS:
            self.spelled[name] = row.id
        return row.id

    def own(self, slots):
        """Which slots are this shard's, as pairs of the first and the last; None: every one."""
        cdef bytearray owned
        if slots is None:
            self.owned = None
            return
        owned = bytearray(SLOT_COUNT)
        for first, last in slots:
            owned[first:last + 1] = b"\1" * (last + 1 - first)
        self.owned = bytes(owned)

    cdef inline bint admits(self, Context context, Command* command, Span* args, Py_ssize_t n) noexcept:
        """Whether nothing keeps the command from being executed, as far as that is seen at a glance."""
        if (n != command.arity) if command.arity >= 0 else (n < -command.arity - 1):
            return False
        return not (self.loading or self.refusing or (
            command.denyoom and self.memory_limit and self.store.used() + incoming(args, n) > self.memory_limit
        ))

    cdef bytes refusal(self, Context context, Command* command, int number, Span* args, Py_ssize_t n):
        """The error that keeps the command from being executed, or None."""
        cdef bytes refused
        if (n != command.arity) if command.arity >= 0 else (n < -command.arity - 1):
            return self.arity_error(number)
        if self.loading and not command.while_loading:
            return LOADING_TEXT
        if self.refusing:
            refused = self.refused_write(context, command, number, args, n)
            if refused is not None:
                return refused
        if command.denyoom and self.memory_limit and self.store.used() + incoming(args, n) > self.memory_limit and (
            not context.flags & ROOM_ASKED and not self.has_room(command, args, n)
        ):
            return OUT_OF_MEMORY_TEXT
        return None

    cdef inline int look_at(self, int number, int seen) noexcept:
        """What a unit needs with this command, as sent, and what was seen before it."""
        cdef Command* command
        number &= ~IN_CAPITALS
        if number >= self.command_count:
            return seen
        command = &self.commands[number]
        return (seen | (UNIT_NEEDS_ROOM if command.denyoom else 0) | (UNIT_WRITES if command.writes else 0)
                | (0 if command.while_loading else UNIT_NEEDS_ALL))

    cdef bytes refusal_of_unit(self, Context context, int needs):
        """What keeps a transaction from being executed, asked once before its first command; None: nothing does. Empty when
        something that its session watches has changed. The watches end."""
        cdef bint clean = True
        if context.flags & FLAG_WATCHED:
            clean = self.watches.is_clean(context.link, context.session)
            self.watches.forget(context.link, context.session)
        if not clean:
            return b""
        if self.loading and needs & UNIT_NEEDS_ALL:
            return LOADING_TEXT
        if self.refusing and needs & UNIT_WRITES:
            return self.refusing_text
        if needs & UNIT_NEEDS_ROOM and not self.has_room_for_a_key():
            return OUT_OF_MEMORY_TEXT
        return None

    cdef inline void enter(self, Context context, Command* command, int number) noexcept:
        context.number = number
        self.store.counting = command.readonly
        if self.store.effects.wanted:
            self.store.effects.begin_unit()
            self.tracking.acting = context

    cdef object run_handler(self, Context context, Command* command, int number, tuple arguments):
        """The handler's reply; its time is measured. What runs inside another command is part of that one's time."""
        cdef int64_t began = monotonic_ns(), took
        cdef int bucket
        cdef object handler = self.handlers[number]
        if handler is None:
            handler = self.inner.get(number) if context.depth else None
        if handler is None:
            raise CommandError("ERR this command is answered by the router")
        try:
            reply = handler(context, *arguments)
        finally:
            self.looked_ns = monotonic_ns()
            took = self.looked_ns - began
            if context.depth == 0:
                self.store.heavy = False
                self.python_ns += took
                took += self.charged
            command.ns += took
            bucket = histogram_bucket(took)
            count_times(command, bucket, 1)
            if context.depth == 0:
                self.histogram[bucket] += 1
            if took >= self.slow_ns and not command.unlogged and context.depth == 0:
                self.note_slow(context, number, took, arguments)
        command.calls += self.counts(context, command)
        return reply

    cdef inline bint counts(self, Context context, Command* command) noexcept:
        """Whether a client has sent it. Its parts, of which some came here, count at the router that has divided it."""
        return (context.dialect != INTERNAL and not context.flags & FLAG_DIVIDED) or command.internal

    cdef inline int count_compiled(self, Context context, Command* command, int number) except -1:
        command.calls += self.counts(context, command)
        if command.in_batch == 0:
            self.batch_commands.append(number)
        command.in_batch += 1
        self.batch_count += 1
        return 0

    cdef int time_compiled(self, Context context, int number, Span* args, Py_ssize_t n) except -1:
        """A compiled command that may have been slow: its time is what passed since the last look at the clock, so that
        of a few small ones before it (FRAMES_PER_LOOK) is in it."""
        cdef int64_t now = monotonic_ns()
        cdef int64_t took = now - self.looked_ns + self.charged
        cdef int bucket = histogram_bucket(took)
        cdef Command* command = &self.commands[number]
        self.store.heavy = False
        self.looked_ns = now
        # It has a time of its own, so it has no part in the mean of its batch.
        command.in_batch -= 1
        self.batch_count -= 1
        self.python_ns += took - self.charged
        command.ns += took
        count_times(command, bucket, 1)
        self.histogram[bucket] += 1
        if took >= self.slow_ns:
            try:
                self.note_slow(context, number, took, arguments_of(args, n))
            except MemoryError:
                log.warning("no memory to enter %s in the slow log", self.rows[number].key)
        return 0

    # Refusing -------------------------------------------------------------------------------------------
    def check_arguments(self, int number, Py_ssize_t n):
        """Whether `n` arguments fit the arity of a command."""
        return n == self.commands[number].arity if self.commands[number].arity >= 0 else n >= -self.commands[number].arity - 1

    cdef bytes arity_error(self, int number):
        return f"ERR wrong number of arguments for '{self.rows[number].name}' command".encode()

    cdef int refuse(self, int trouble, bytes text, uint64_t sure_until) except -1:
        """The log is in this trouble (0: in none): `text` answers writes, TRYAGAIN reads of what changed behind frame `sure_until`."""
        self.trouble = trouble
        self.trouble_text = text
        self.sure_until = sure_until if trouble else UINT64_MAX
        return self.note_refusing()

    @property
    def write_refusal(self):
        """What every write is answered, a fault on demand; None: they are executed."""
        return self.fault_text

    @write_refusal.setter
    def write_refusal(self, bytes text):
        self.fault_text = text
        self.note_refusing()

    cdef int note_refusing(self) except -1:
        self.refusing = self.trouble != 0 or self.fault_text is not None
        self.refusing_text = self.trouble_text if self.fault_text is None else self.fault_text
        return 0

    cdef bytes refused_write(self, Context context, Command* command, int number, Span* args, Py_ssize_t n):
        """The error of a command while writes are refused; None where that does not matter."""
        cdef Effects effects = self.store.effects
        # Between routers and shards, what needs no memory changes no data: the end of a lock.
        if command.writes and not context.flags & LOG_ASKED and (not command.internal or command.denyoom):
            return self.refusing_text
        if self.sure_until == UINT64_MAX or effects.changed_in == NULL:
            return None
        from kache.commands import keys_with_flags

        for key, _ in keys_with_flags(self.rows[number], list(arguments_of(args, n))):
            if effects.changed_in[slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))] > self.sure_until:
                return UNSURE_TEXT
        return None

    cdef bytes error_text(self, object error, int number):
        if isinstance(error, CommandError):
            # A message may quote an argument of any bytes; nothing here may raise.
            try:
                return error.message.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                return error.message.encode("utf-8", "replace")
        if isinstance(error, MemoryError):
            log.error("no memory for %s: %s", self.rows[number].key, error)
            return b"OOM the shard has no memory for this command"
        if number >= self.built_in:
            log.error("error in %s, a command of a module", self.rows[number].key, exc_info=error)
            return f"ERR {self.rows[number].name}: {type(error).__name__}: {error}".encode("utf-8", "replace")
        log.error("internal error in %s", self.rows[number].key, exc_info=error)
        return f"ERR internal error: {type(error).__name__}: {error}".encode("utf-8", "replace")

    cdef int note_error(self, bytes text) except -1:
        cdef str code = text.split(b" ", 1)[0].decode("ascii", "replace")
        self.errors[code] = self.errors.get(code, 0) + 1
        return 0

    # Memory ---------------------------------------------------------------------------------------------
    cdef int look_at_budget(self, int64_t now_ns) noexcept:
        """Publishes what this shard uses, and learns what it may."""
        if self.budget.limit:
            self.budget.strict = self.store.policy == "noeviction"
            # Never 0, which would be no limit.
            self.memory_limit = max(self.budget.look(self.store.used(), now_ns), 1)
        else:
            self.budget.publish(self.store.used())
            self.memory_limit = 0
        return 0

    cdef inline bint fits(self, int64_t incoming) noexcept:
        return self.budget.total() + incoming <= self.budget.allowed

    cdef bint has_room(self, Command* command, Span* args, Py_ssize_t n) except -1:
        """Whether a command may store its arguments. Room is made for it, but not at the expense of the keys it works on."""
        cdef int64_t size = incoming(args, n)
        self.look_at_budget(monotonic_ns())
        if self.memory_limit == 0 or self.fits(size):
            return True
        if self.store.policy == "noeviction":
            return False
        if self.store.used() + size <= self.memory_limit:
            # Under its share: the others give way.
            self.wait_for_others(size)
            return True
        self.spare_keys(command, args, n)
        try:
            return self.make_room(size)
        finally:
            self.evictor.spared_count = 0

    cdef int spare_keys(self, Command* command, Span* args, Py_ssize_t n) noexcept:
        """The keys among the arguments are not evicted until `spared_count` is 0 again."""
        cdef Py_ssize_t i = command.first, last = command.last if command.last >= 0 else n + command.last
        self.evictor.spared_count = 0
        while command.step and i <= last and i < n and self.evictor.spared_count < SPARED:
            self.evictor.spared[self.evictor.spared_count] = table_hash(args[i].data, args[i].size)
            self.evictor.spared_count += 1
            i += command.step
        return 0

    cdef bint make_room(self, int64_t incoming) except -1:
        """Evicts until so many bytes fit, for a moment at most; False when they cannot."""
        cdef int64_t now_ns = monotonic_ns(), budget_ns
        cdef int outcome
        if incoming > self.budget.free_for_all() // (LARGE_PARTS * self.budget.shards):
            # What is large needs more than this shard may have to give; the others learn of it before anything goes.
            if not self.budget.may_hold(incoming):
                return False
            self.budget.hold(incoming, now_ns, HELD_NS)
            self.look_at_budget(now_ns)
        budget_ns = LARGE_EVICTION_NS if incoming >= HEAVY else EVICTION_NS
        if now_ns < self.crowded_ns:
            budget_ns = SHORT_EVICTION_NS
        # First this shard without what is large and in use, then the others, then that.
        outcome = self.evict_down(self.memory_limit - incoming, budget_ns, True)
        if outcome == 0 and not self.squeeze_in(incoming):
            if self.evict_down(self.memory_limit - incoming, budget_ns, False) == 0:
                # The others should not count on it, for a while.
                self.budget.hold(self.store.used(), now_ns, IMPATIENT_NS)
                return False
        if outcome == 2:
            self.crowded_ns = now_ns + CROWDED_NS
        self.budget.publish(self.store.used())
        self.wait_for_others(incoming)
        return True

    cdef int evict_down(self, int64_t limit, int64_t budget_ns, bint spare_large) except -1:
        """Evictor.run; `spare_large`: what is a good part of this shard's share, and in use, stays."""
        self.evicting = True
        self.evictor.spared_size = max(self.budget.allowed // (LARGE_PARTS * self.budget.shards), KEY_COST) if spare_large else 0
        try:
            return self.evictor.run(limit, budget_ns)
        finally:
            self.evicting = False
            self.evictor.spared_size = 0

    cdef bint squeeze_in(self, int64_t incoming) except -1:
        """Nothing more can be evicted here: whether the others can give way for all that there is, and this."""
        cdef int64_t now_ns = monotonic_ns(), wanted = self.store.used() + incoming
        if not self.budget.may_hold(wanted):
            return False
        self.budget.hold(wanted, now_ns, HELD_NS)
        self.look_at_budget(now_ns)
        return True

    cdef int wait_for_others(self, int64_t incoming) except -1:
        """Lets the shards that use more than their share give way; goes on after a moment although they did not."""
        cdef int64_t allowed = self.budget.allowed + self.budget.allowed // OVERSHOOT_PART
        cdef int64_t now_ns = monotonic_ns(), until_ns = now_ns + LONGEST_WAIT_NS, before = self.budget.total()
        self.budget.wake_others(now_ns)
        if now_ns < self.patient_ns:
            return 0
        while self.budget.total() + incoming > allowed and self.budget.others_over():
            if now_ns >= until_ns:
                if self.budget.total() >= before:
                    self.patient_ns = now_ns + IMPATIENT_NS
                return 0
            with nogil:
                rest(WAIT_NS)
            now_ns = monotonic_ns()
            self.patient_ns = now_ns + WAIT_PAUSE_NS
        return 0

    def require_room(self):
        """What is asked before a command that needs memory, for one that asks ahead of what it executes inside."""
        if not self.has_room_for_a_key():
            raise CommandError(OUT_OF_MEMORY)

    cdef bint has_room_for_a_key(self) except -1:
        if self.memory_limit == 0 or self.store.used() + KEY_COST <= self.memory_limit:
            return True
        self.look_at_budget(monotonic_ns())
        return self.fits(KEY_COST) or (self.store.policy != "noeviction" and self.make_room(KEY_COST))

    def evict_some(self, int64_t budget_ns):
        """Evicts for up to `budget_ns` when all shards use more than the limit, and this one more than its share. True when
        more has to go."""
        cdef int outcome
        self.look_at_budget(monotonic_ns())
        if self.memory_limit == 0 or self.store.used() <= self.memory_limit:
            return False
        outcome = self.evict_down(self.memory_limit, budget_ns, True)
        if outcome == 0:
            # An eighth may be room that a string has got to grow into: it was not asked for, and is no reason to go.
            if not self.budget.may_hold(self.store.used() - self.store.used() // 8):
                outcome = self.evict_down(self.memory_limit, budget_ns, False)
            self.budget.hold(self.store.used(), monotonic_ns(), IMPATIENT_NS)
        self.look_at_budget(monotonic_ns())
        return outcome == 2

    def defragment_some(self, int64_t budget_ns):
        """Gives memory back for up to `budget_ns`, moving blocks where that makes pages free. True when there is more to do."""
        cdef bint more = cool_down()
        return self.defragmenter.run(budget_ns) or more

    def expire_some(self, int64_t budget_ns):
        """Removes keys and fields past their deadline for up to `budget_ns`. True when more are waiting."""
        return expire_cycle(self.store, budget_ns)

    def set_maxmemory(self, int64_t maxmemory):
        """The limit of all shards together in bytes; 0 for none."""
        self.budget.set_limit(maxmemory)
        self.evictor.set_limited(maxmemory > 0)
        self.look_at_budget(monotonic_ns())

    @property
    def allowed_memory(self):
        """What this shard may use at present, bytes; 0: there is no limit."""
        return min(self.memory_limit, self.budget.limit) if self.budget.limit else 0

    @property
    def maxmemory(self):
        """The limit of all shards together in bytes; 0: none."""
        return self.budget.limit

    def govern_memory(self, int64_t grown):
        """Keeps memory near the limit although the allocator has holes: to be called once a second.

        `grown` is how much more memory of its own the process has than when it was empty; see Budget.govern.
        """
        self.budget.govern(grown, 0 if self.store.miniatures is None else self.store.miniatures.memory)

    cdef bint is_simulating(self) except -1:
        """Whether there is anything to simulate for: a policy that chooses by it, memory that is nearly full, with a policy that
        evicts, or somebody who has asked lately."""
        cdef int64_t limit = self.budget.limit
        if not self.simulating:
            return False
        if limit and self.store.policy != "noeviction" and (
            self.evictor.auto or self.budget.total() >= (limit // 2 if self.store.sampled_below else limit - limit // 4)
        ):
            return True
        return self.asked_at_ms and self.clock_ms - self.asked_at_ms < ASKED_LATELY_MS

    def ask_advice(self):
        """Somebody wants to know what the simulations say: for a while from now on they run without a limit, too."""
        self.asked_at_ms = self.clock_ms

    cpdef int tune_simulations(self) except -1:
        """Fits the miniature simulations to the memory and the keys that are there: to be called a few times a second."""
        cdef int64_t used = self.store.used(), base = self.budget.limit // self.budget.shards, keys = 0, wanted
        cdef double present
        cdef uint32_t below = self.store.sampled_below
        cdef bint simulating = self.is_simulating()
        cdef int i
        for i in range(self.store.active):
            keys += self.store.databases[i].count
        if not simulating or keys < FEWEST_KEYS:
            return self.store.simulate(0, 0) if below and keys == 0 or not simulating else 0
        if base == 0:
            # Without a limit the present size is that of the data, which grows: a step at a time.
            base = self.store.miniatures.base if below else 0
            if not base * 3 // 4 < used <= base * 5 // 4:
                base = used
        # A product of all these is beyond 64 bits where memory is large, or its limit is a number that nobody reaches.
        present = max(keys * <double> base / max(used, 1), 1.0)
        wanted = max(<int64_t> min(PRESENT * <double> (1 << RATE_BITS) / present, (1 << RATE_BITS) // HIGHEST_RATE), 1)
        if below and wanted * 3 // 4 < below < wanted * 3 // 2:
            wanted = below
        if wanted != below or base != self.store.miniatures.base or keys * 8 > self.fitted_keys * 9:
            self.fitted_keys = keys
            self.store.simulate(<uint32_t> wanted, base)
        if self.store.miniatures is None:
            return 0    # there is no memory for them
        introduce_keys(self.store)
        self.store.miniatures.reflect(self.evictor.simulated_as() if self.budget.limit else -1)
        self.store.miniatures.correct(keys if all_introduced(self.store) else 0, used, self.store.key_overhead)
        return 0

    cdef int note_slow(self, Context context, int number, int64_t took, tuple arguments) except -1:
        if context.dialect == INTERNAL or context.flags & FLAG_DIVIDED:
            # A part of what a router has divided: it knows the whole command.
            if context.link is not None:
                context.link.slow_part(took)
            return 0
        name = self.rows[number].name.upper() if context.capitals else self.rows[number].name
        words = [word.encode() for word in name.split("|")]
        self.slowlog.add(context.link, context.session, self.store.now_ms, took // 1000, [*words, *arguments])
        return 0

    def configure_slowlog(self, int64_t limit_us):
        """From which execution time in microseconds commands are reported; -1: none."""
        self.slow_ns = INT64_MAX if limit_us < 0 else min(limit_us, INT64_MAX // 1000) * 1000

    # Measuring ------------------------------------------------------------------------------------------
    cdef inline void begin_batch(self) noexcept:
        self.batch_began = self.looked_ns = monotonic_ns()
        if self.memory_limit and self.batch_began - self.budget.looked_ns > LOOK_NS:
            self.look_at_budget(self.batch_began)
        self.python_ns = 0

    cdef int end_batch(self) except -1:
        """Divides the time since begin_batch over the compiled commands executed in it."""
        cdef int64_t each
        cdef int bucket
        cdef Command* command
        if self.memory_limit:
            self.budget.publish(self.store.used())
        if self.batch_count == 0:
            self.batch_commands.clear()
            return 0
        each = (monotonic_ns() - self.batch_began - self.python_ns) // self.batch_count
        bucket = histogram_bucket(each)
        self.histogram[bucket] += self.batch_count
        for number in self.batch_commands:
            command = &self.commands[<int> number]
            command.ns += each * command.in_batch
            count_times(command, bucket, command.in_batch)
            command.in_batch = 0
        self.batch_commands.clear()
        if each >= self.slow_ns:
            log.debug("a batch of %d commands took %d ns each", self.batch_count, each)
        self.batch_count = 0
        if self.store.used() > self.peak_memory:
            self.peak_memory = self.store.used()
        return 0

    def histogram_counts(self):
        """{bucket: count} of the execution times in nanoseconds (kache.stats)."""
        return {i: self.histogram[i] for i in range(HISTOGRAM_SIZE) if self.histogram[i]}

    def command_counts(self):
        """[(key, calls, microseconds, rejected, failed, {bucket: count})] of the commands that came."""
        return [
            (row.key, self.commands[i].calls, self.commands[i].ns // 1000, self.commands[i].rejected,
             self.commands[i].failed, histogram_of(&self.commands[i]))
            for i, row in enumerate(self.rows)
            if self.commands[i].calls or self.commands[i].rejected or self.commands[i].ns
        ]

    def reset_counters(self):
        """CONFIG RESETSTAT."""
        cdef int i
        memset(self.histogram, 0, sizeof(self.histogram))
        for i in range(self.command_count):
            free(self.commands[i].histogram)
            self.commands[i].histogram = NULL
            self.commands[i].calls = self.commands[i].ns = self.commands[i].rejected = self.commands[i].failed = 0
        self.executed = self.next_look = 0
        self.errors.clear()
        self.peak_memory = self.store.used()
        self.store.hits = self.store.misses = 0
        self.store.expired = self.store.expired_fields = self.store.evicted = self.evictor.changed_policy = 0
        if self.store.miniatures is not None:
            self.store.miniatures.reset()

    # Deferred replies -----------------------------------------------------------------------------------
    cdef object defer(self, Context context, bint blocked):
        if context.link is None or context.depth:
            raise CommandError("ERR this command cannot wait here")
        if context.token:
            # It has waited before, for a transaction.
            return context.token
        return self.promise(context, blocked)

    cdef object promise(self, Context context, bint blocked):
        """A token for the reply to a frame of this run, which comes later."""
        self.next_token += 1
        self.deferred[self.next_token] = (context.link, context.session, context.dialect, blocked)
        if not blocked:
            self.parked_on[context.link] = self.parked_on.get(context.link, 0) + 1
        sessions = self.deferred_of.setdefault(context.link, {})
        sessions.setdefault(context.session, set()).add(self.next_token)
        return self.next_token

    cdef object take_deferred(self, token):
        """What is known of a deferred reply, which is forgotten; None when its session is gone."""
        waiting = self.deferred.pop(token, None)
        if waiting is not None:
            link, session, _, blocked = waiting
            sessions = self.deferred_of[link]
            sessions[session].discard(token)
            if not sessions[session]:
                del sessions[session]
            if not sessions:
                del self.deferred_of[link]
            if not blocked:
                self.parked_on[link] -= 1
                if not self.parked_on[link]:
                    del self.parked_on[link]
        return waiting

    def answer_deferred(self, token, reply):
        """The reply of a deferred command; nothing happens when its session is gone."""
        cdef Buffer encoded
        waiting = self.take_deferred(token)
        if waiting is not None:
            link, _, dialect, _ = waiting
            encoded = Buffer()
            put_reply(encoded, dialect, reply)
            if isinstance(link, Link):
                (<Link> link).put_deferred(token, encoded)
            else:
                link.send_deferred(token, bytes(encoded))

    cdef int fulfil(self, token, Buffer reply, int form) except -1:
        """The same for a reply that is encoded already, or stands for the reply in another form."""
        waiting = self.take_deferred(token)
        if waiting is not None:
            waiting[0].send_deferred(token, bytes(reply), form)
        return 0

    def forget_session(self, link, session):
        """Forgets what is deferred for a session (None: for the whole link); returns the tokens."""
        sessions = self.deferred_of.get(link)
        if sessions is None:
            return []
        if session is None:
            gone = [token for tokens in sessions.values() for token in tokens]
        else:
            gone = list(sessions.get(session, ()))
        for token in gone:
            self.take_deferred(token)
        if gone and self.blocking is not None:
            self.blocking.forget(gone)
        return gone

    def forget_deferred(self, link, token):
        """Forgets one of the deferred replies of a link; whether there was one."""
        waiting = self.deferred.get(token)
        if waiting is None or waiting[0] is not link:
            return False
        self.take_deferred(token)
        if self.blocking is not None:
            self.blocking.forget((token,))
        return True

    def retry_deferred(self, token, bytes ids=b""):
        """A deferred command was not executed and will not be; its router may send it again, behind these ids of streams."""
        waiting = self.take_deferred(token)
        if waiting is not None:
            waiting[0].send_retry(token, ids)

    cdef bint waits_for(self, object link) except -1:
        """Whether a deferred reply of this link comes soon. One that may never come keeps nobody."""
        return link in self.parked_on

    # Who waits for a key --------------------------------------------------------------------------------
    def wait_with(self, blocking):
        """Clients wait in `blocking`, whose `serve` is called behind every unit that has set `ready`."""
        self.blocking = blocking

    def begin_unit(self):
        """What is changed from here on is told as one command's changes are."""
        self.store.effects.begin_unit()

    def serve_ready(self):
        """Serves who waits for what has changed; to be called behind what changes data beside the links' runs."""
        if self.ready:
            self.serve()

    cdef int serve(self) except -1:
        cdef int64_t began = monotonic_ns()
        self.ready = False
        try:
            self.blocking.serve()
        except Exception:
            log.exception("internal error while serving who waits")
        # It is not the time of the commands around it.
        self.looked_ns = monotonic_ns()
        self.python_ns += self.looked_ns - began
        return 0

    @property
    def deferred_count(self):
        return len(self.deferred)

    # In process -----------------------------------------------------------------------------------------
    def execute(self, list argv not None, int dialect=RESP2, int db=0, uint64_t transaction=0):
        """The reply bytes of one command given as [name, argument, …], without a router: for tests. Nothing waits here.

        The time is the wall clock's unless `now_ms` was given; then it is what `set_time` says.
        """
        from kache.commands import lookup

        cdef Buffer out = Buffer()
        cdef Words words
        if not argv:
            raise ValueError("a command has a name")
        cdef bytes name = argv[0]
        row = lookup(name, INTERNAL if name.startswith(b"_") else dialect)
        used = 1
        if len(argv) > 1 and (row is None or row.is_container or row.subcommands):
            inner = lookup(name + b"|" + argv[1], dialect)
            if inner is not None:
                row = inner
                used = 2
        if row is None and self.numbers.get(name.lower().decode("latin-1"), -1) >= self.built_in:
            row = self.rows[<int> self.numbers[name.lower().decode("latin-1")]]
        if row is None or row.is_container:
            put_error(out, dialect, b"ERR unknown command '%s'" % name)
            return bytes(out)
        if transaction:
            try:
                self.locks.of(transaction)
            except CommandError as error:
                put_error(out, dialect, error.message.encode())
                return bytes(out)
        words = Words(argv[used:])
        if self.own_clock:
            self.set_time(int(time.time() * 1000))
        self.direct.dialect = dialect
        self.direct.keys.db = db
        self.direct.transaction = transaction
        self.store.no_touch = False
        self.begin_batch()
        if self.execute_command(self.direct, row.id, NO_SLOT, words.spans, words.count, out) >= PARKED:
            raise RuntimeError("a deferred reply without a link")
        self.end_batch()
        return bytes(out)


cdef inline int64_t incoming(Span* args, Py_ssize_t n) noexcept nogil:
    """What a command may add to the data, about: a key with all its arguments."""
    cdef int64_t size = KEY_COST
    cdef Py_ssize_t i
    for i in range(n):
        size += args[i].size
    return size


cdef tuple arguments_of(Span* args, Py_ssize_t n):
    """The arguments as Python sees them."""
    cdef Py_ssize_t i
    return tuple([PyBytes_FromStringAndSize(args[i].data, args[i].size) for i in range(n)])
