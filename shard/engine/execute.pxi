# Executor: the one execution point. Whatever anybody asks of this shard's data passes `execute_command` or `call`.
#
#   a frame ─► execute_command ─┬► refusal: arity, loading, memory, leases ─┬► the compiled case ──► reply bytes
#   a handler ─► call ──────────┘  or the error that refuses it              └► the handler ────────► reply, a Python value
#                                                                                 └► context.call: the next one inside

cdef enum:
    MANY_ARGUMENTS = 64         # from which a compiled command is timed by itself

# How long one write may spend on eviction before it goes on although memory is full; the timer does the rest.
cdef int64_t EVICTION_NS = 500000
cdef bytes OUT_OF_MEMORY_TEXT = OUT_OF_MEMORY.encode()
cdef bytes LOADING_TEXT = b"LOADING Kache is loading the dataset in memory"


cdef class Executor:
    """One shard's data with the commands on it. Does no I/O; `Link` brings it frames, tests call `execute`.

    `handlers` are functions by command id, None where there is none. maxmemory is in bytes (0: no limit), the hash seed
    has 16 bytes, `cleanup` takes what is large (None: everything is freed on the spot). What stands beside the data is
    given: the slow log, the leases, the gauges of the process.
    """
    # Measuring
    # Deferred replies

    def __cinit__(self, *args, **kwargs):
        self.commands = NULL
        memset(self.histogram, 0, sizeof(self.histogram))

    def __init__(
        self, list handlers not None, rows, *, slowlog, leases, maxmemory=0, policy="noeviction", hash_seed=bytes(16),
        cleanup=None, index=0, now_ms=None,
    ):
        self.store = Store(hash_seed, cleanup)
        self.handlers = handlers
        self.rows = list(rows)
        self.numbers = {row.key: row.id for row in self.rows}
        self.fill_commands()
        self.slowlog = slowlog
        self.leases = leases
        self.held = leases.held
        self.evictor = Evictor(self.store)
        self.evictor.set_policy(policy)
        self.set_maxmemory(maxmemory)
        self.index = index
        self.errors = {}
        self.batch_commands = []
        self.deferred = {}
        self.deferred_of = {}
        self.configure_slowlog(10000)
        self.own_clock = now_ms is None
        self.set_time(int(time.time() * 1000) if now_ms is None else now_ms)
        self.direct = Context(self)

    def __dealloc__(self):
        cdef int i
        if self.commands != NULL:
            for i in range(self.command_count):
                free(self.commands[i].histogram)
        free(self.commands)

    cdef int fill_commands(self) except -1:
        cdef int i
        cdef Command* command
        self.command_count = len(self.rows)
        self.commands = <Command*> calloc(self.command_count, sizeof(Command))
        if self.commands == NULL:
            raise MemoryError("no memory for the commands")
        for i, row in enumerate(self.rows):
            command = &self.commands[i]
            command.compiled = compiled_of(row.key)
            command.arity = row.arity - row.words if row.arity >= 0 else row.arity + row.words - 1
            command.may_write = "write" in row.flags or "may_replicate" in row.flags
            command.denyoom = "denyoom" in row.flags
            command.readonly = "readonly" in row.flags
            command.internal = "internal" in row.flags
            command.while_loading = "loading" in row.flags
            command.unlogged = "internal" in row.flags or "skip_slowlog" in row.flags
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
        """One command; its reply, whatever it is, is appended to `out`. DONE or DEFERRED (nothing was appended)."""
        cdef Py_ssize_t mark = out.end - out.start
        cdef Command* command
        cdef bytes refused
        if number >= self.command_count:
            return fail(context, out, b"ERR unknown command number")
        command = &self.commands[number]
        self.executed += 1
        try:
            if not self.admits(context, command, n):
                refused = self.refusal(context, command, number, args, n)
                if refused is not None:
                    command.rejected += 1
                    return fail(context, out, refused)
            self.enter(context, command, number)
            if command.compiled != NULL and command.compiled(context, slot, args, n, out) == DONE:
                self.count_compiled(command, number)
                # Only what moves much can be slow; the others are not worth a look at the clock.
                if self.store.heavy or n >= MANY_ARGUMENTS or out.end - out.start - mark >= HEAVY or self.slow_ns == 0:
                    self.time_compiled(context, number, args, n)
                return DONE
            reply = self.run_handler(context, command, number, arguments_of(args, n))
            if type(reply) is Deferred:
                self.pending_token = reply.token
                return DEFERRED
            return put_reply(out, context.dialect, reply)
        except Exception as error:
            out.end = out.start + mark
            command.calls += 1
            command.failed += 1
            return fail(context, out, self.error_text(error, number))

    cpdef object call(self, Context context, str key, tuple args):
        """A command inside another; see Context.call."""
        cdef int number = self.numbers.get(key, -1), outer = context.number
        cdef bint no_touch = self.store.no_touch, counting = self.store.counting
        cdef Command* command
        cdef Words words = Words(args)
        cdef bytes refused
        if number < 0:
            raise CommandError(f"ERR unknown command '{key}'")
        command = &self.commands[number]
        refused = self.refusal(context, command, number, words.spans, words.count)
        if refused is not None:
            command.rejected += 1
            raise CommandError(refused.decode())
        context.depth += 1
        self.store.no_touch = (context.flags & FLAG_NO_TOUCH) != 0
        try:
            self.enter(context, command, number)
            return self.run_handler(context, command, number, args)
        except Exception:
            command.calls += 1
            command.failed += 1
            raise
        finally:
            context.depth -= 1
            context.number = outer
            self.store.no_touch = no_touch
            self.store.counting = counting

    cdef inline bint admits(self, Context context, Command* command, Py_ssize_t n) noexcept:
        """Whether nothing keeps the command from being executed, as far as that is seen at a glance."""
        if (n != command.arity) if command.arity >= 0 else (n < -command.arity - 1):
            return False
        if self.loading or (command.denyoom and self.memory_limit and self.store.used() > self.memory_limit):
            return False
        return not command.may_write or (PyDict_Size(self.held) == 0 and self.write_refusal is None)

    cdef bytes refusal(self, Context context, Command* command, int number, Span* args, Py_ssize_t n):
        """The error that keeps the command from being executed, or None."""
        if (n != command.arity) if command.arity >= 0 else (n < -command.arity - 1):
            return self.arity_error(number)
        if self.loading and not command.while_loading:
            return LOADING_TEXT
        # A move's own bookkeeping is no write, what it stores is.
        if self.write_refusal is not None and command.may_write and (command.denyoom or not command.internal):
            return self.write_refusal
        if command.denyoom and self.memory_limit and self.store.used() > self.memory_limit and (
            not context.flags & ROOM_ASKED and not self.make_room()
        ):
            return OUT_OF_MEMORY_TEXT
        if command.may_write and not command.internal and PyDict_Size(self.held):
            return self.leased(context, number, args, n)
        return None

    cdef inline void enter(self, Context context, Command* command, int number) noexcept:
        context.number = number
        self.store.counting = command.readonly
        if self.store.effects.wanted:
            self.store.effects.begin_unit()

    cdef object run_handler(self, Context context, Command* command, int number, tuple arguments):
        """The handler's reply; its time is measured. What runs inside another command is part of that one's time."""
        cdef int64_t began = monotonic_ns(), took
        cdef int bucket
        cdef object handler = self.handlers[number]
        if handler is None:
            raise CommandError("ERR this command is answered by the router")
        try:
            reply = handler(context, *arguments)
        finally:
            self.looked_ns = monotonic_ns()
            took = self.looked_ns - began
            command.ns += took
            bucket = histogram_bucket(took)
            count_times(command, bucket, 1)
            if context.depth == 0:
                self.store.heavy = False
                self.python_ns += took
                self.histogram[bucket] += 1
            if took >= self.slow_ns and not command.unlogged and context.depth == 0:
                self.note_slow(context, number, took, arguments)
        command.calls += 1
        return reply

    cdef inline int count_compiled(self, Command* command, int number) except -1:
        command.calls += 1
        if command.in_batch == 0:
            self.batch_commands.append(number)
        command.in_batch += 1
        self.batch_count += 1
        return 0

    cdef int time_compiled(self, Context context, int number, Span* args, Py_ssize_t n) except -1:
        """A compiled command that may have been slow: its time is what passed since the last look at the clock, so that
        of a few small ones before it (FRAMES_PER_LOOK) is in it."""
        cdef int64_t now = monotonic_ns()
        cdef int64_t took = now - self.looked_ns
        cdef int bucket = histogram_bucket(took)
        cdef Command* command = &self.commands[number]
        self.store.heavy = False
        self.looked_ns = now
        # It has a time of its own, so it has no part in the mean of its batch.
        command.in_batch -= 1
        self.batch_count -= 1
        self.python_ns += took
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

    cdef bytes leased(self, Context context, int number, Span* args, Py_ssize_t n):
        """The error when a key that the command writes is held by a move between shards; else None."""
        from kache.commands import keys_with_flags

        located = keys_with_flags(self.rows[number], list(arguments_of(args, n)))
        written = [key for key, flags in located if flags[0] != "RO"]
        try:
            self.leases.check(context.keys.db, written, self.store.now_ms)
        except CommandError as error:
            return error.message.encode()
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
        log.error("internal error in %s", self.rows[number].key, exc_info=error)
        return f"ERR internal error: {type(error).__name__}: {error}".encode("utf-8", "replace")

    cdef int note_error(self, bytes text) except -1:
        cdef str code = text.split(b" ", 1)[0].decode("ascii", "replace")
        self.errors[code] = self.errors.get(code, 0) + 1
        return 0

    # Memory ---------------------------------------------------------------------------------------------
    cdef bint make_room(self) except -1:
        """Evicts until the data fits, for a moment at most; False when nothing can be evicted."""
        self.evicting = True
        try:
            return self.evictor.run(self.memory_limit, EVICTION_NS) != 0
        finally:
            self.evicting = False

    def require_room(self):
        """What is asked before a command that needs memory, for one that asks ahead of what it executes inside."""
        if self.memory_limit and self.store.used() > self.memory_limit and not self.make_room():
            raise CommandError(OUT_OF_MEMORY)

    def evict_some(self, int64_t budget_ns):
        """Evicts for up to `budget_ns` when the data is over its limit. True when more has to go."""
        if self.memory_limit == 0 or self.store.used() <= self.memory_limit:
            return False
        return self.evictor.run(self.memory_limit, budget_ns) == 2

    def expire_some(self, int64_t budget_ns):
        """Removes keys and fields past their deadline for up to `budget_ns`. True when more are waiting."""
        return expire_cycle(self.store, budget_ns)

    def set_maxmemory(self, int64_t maxmemory):
        """This shard's part of the limit in bytes; 0 for none."""
        self.maxmemory = self.memory_limit = maxmemory

    def govern_memory(self, int64_t resident_growth):
        """Keeps resident memory near the limit although the allocator has holes: to be called now and then.

        `resident_growth` is how much the process has grown over its empty state. Beyond a sixteenth above the limit
        less data is allowed, in proportion, but never less than two thirds.
        """
        cdef int64_t room = self.maxmemory + self.maxmemory // 16
        if self.maxmemory == 0 or resident_growth <= 0:
            return
        self.memory_limit = <int64_t> (self.memory_limit * min(1.02, <double> room / resident_growth))
        self.memory_limit = max(self.maxmemory * 2 // 3, min(self.memory_limit, self.maxmemory))

    cdef int note_slow(self, Context context, int number, int64_t took, tuple arguments) except -1:
        if context.dialect == INTERNAL:
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
        self.python_ns = 0

    cdef int end_batch(self) except -1:
        """Divides the time since begin_batch over the compiled commands executed in it."""
        cdef int64_t each
        cdef int bucket
        cdef Command* command
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
            for i, row in enumerate(self.rows) if self.commands[i].calls or self.commands[i].rejected
        ]

    def reset_counters(self):
        """CONFIG RESETSTAT."""
        cdef int i
        memset(self.histogram, 0, sizeof(self.histogram))
        for i in range(self.command_count):
            free(self.commands[i].histogram)
            self.commands[i].histogram = NULL
            self.commands[i].calls = self.commands[i].ns = self.commands[i].rejected = self.commands[i].failed = 0
        self.executed = 0
        self.errors.clear()
        self.peak_memory = self.store.used()
        self.store.hits = self.store.misses = 0
        self.store.expired = self.store.expired_fields = self.store.evicted = 0

    # Deferred replies -----------------------------------------------------------------------------------
    cdef object defer(self, Context context):
        if context.link is None or context.depth:
            raise CommandError("ERR this command cannot wait here")
        self.next_token += 1
        self.deferred[self.next_token] = (context.link, context.session, context.dialect)
        sessions = self.deferred_of.setdefault(context.link, {})
        sessions.setdefault(context.session, set()).add(self.next_token)
        return self.next_token

    cdef object take_deferred(self, token):
        """What is known of a deferred reply, which is forgotten; None when its session is gone."""
        waiting = self.deferred.pop(token, None)
        if waiting is not None:
            link, session, _ = waiting
            sessions = self.deferred_of[link]
            sessions[session].discard(token)
            if not sessions[session]:
                del sessions[session]
            if not sessions:
                del self.deferred_of[link]
        return waiting

    def answer_deferred(self, token, reply):
        """The reply of a deferred command; nothing happens when its session is gone."""
        cdef Buffer encoded
        waiting = self.take_deferred(token)
        if waiting is not None:
            link, _, dialect = waiting
            encoded = Buffer()
            put_reply(encoded, dialect, reply)
            link.send_deferred(token, bytes(encoded))

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
        return gone

    cdef bint waits_for(self, object link) except -1:
        """Whether a deferred reply of this link is still to come."""
        return link in self.deferred_of

    @property
    def deferred_count(self):
        return len(self.deferred)

    # In process -----------------------------------------------------------------------------------------
    def execute(self, list argv not None, int dialect=RESP2, int db=0):
        """The reply bytes of one command given as [name, argument, …], without a router: for tests.

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
        if row is None or row.is_container:
            put_error(out, dialect, b"ERR unknown command '%s'" % name)
            return bytes(out)
        words = Words(argv[used:])
        if self.own_clock:
            self.set_time(int(time.time() * 1000))
        self.direct.dialect = dialect
        self.direct.keys.db = db
        self.store.no_touch = False
        self.begin_batch()
        if self.execute_command(self.direct, row.id, NO_SLOT, words.spans, words.count, out) == DEFERRED:
            raise RuntimeError("a deferred reply without a link")
        self.end_batch()
        return bytes(out)


cdef tuple arguments_of(Span* args, Py_ssize_t n):
    """The arguments as Python sees them."""
    cdef Py_ssize_t i
    return tuple([PyBytes_FromStringAndSize(args[i].data, args[i].size) for i in range(n)])
