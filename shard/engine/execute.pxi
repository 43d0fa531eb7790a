# Shard: the one execution point. Whatever a client asks of this shard's data passes `execute_frame`.

class Deferred:
    """What a handler returns when its reply comes later, by `Shard.answer_deferred(token, reply)`."""

    __slots__ = ("token",)

    def __init__(self, token):
        self.token = token


cdef enum:
    MANY_ARGUMENTS = 64         # from which a compiled command is timed by itself


cdef class Shard:
    """One shard's data with the commands on it. Does no I/O; `Link` brings it frames, tests call `execute`.

    `Shard()` loads the handlers; arguments: maxmemory in bytes (0: no limit), the policy, the hash seed of 16
    bytes, the cleanup (None: everything is freed on the spot) and the index among the shards.
    """
    cdef object keys_python
    cdef Collections keys
    cdef readonly Evictor evictor
    cdef Command* commands
    cdef readonly int command_count
    cdef list handlers, rows
    cdef object held                    # Leases.held
    cdef readonly int64_t maxmemory     # this shard's part, bytes; 0: no limit
    cdef int64_t memory_limit           # what is enforced: less than maxmemory while the allocator has holes
    cdef public bint loading
    cdef bint own_clock                 # `execute` reads the wall clock
    cdef public int index
    cdef public object gauges           # statistics.Gauges: what the process around it knows
    cdef public int64_t in_flight       # frames received and not executed yet
    cdef int dialect                    # of the run being executed
    cdef public uint64_t session        # of the run being executed
    cdef public object link             # the Link whose run is being executed; None for `execute`
    # Measuring
    cdef uint64_t[HISTOGRAM_SIZE] histogram
    cdef int64_t batch_began, python_ns
    cdef int64_t looked_ns              # the last look at the clock
    cdef uint32_t batch_count
    cdef list batch_commands
    cdef readonly uint64_t executed
    cdef readonly dict errors
    cdef readonly int64_t peak_memory
    cdef int64_t slow_ns                # execution time from which a command enters the slow log
    # Deferred replies
    cdef uint64_t next_token, pending_token
    cdef dict deferred                  # token -> (link, session, dialect)

    def __cinit__(self, *args, **kwargs):
        self.commands = NULL
        memset(self.histogram, 0, sizeof(self.histogram))

    def __init__(self, *, maxmemory=0, policy="noeviction", hash_seed=bytes(16), cleanup=None, index=0, now_ms=None):
        from kache.commands import TABLE

        from .keyspace import Keyspace
        from ..commands.registry import load
        from ..service.statistics import Gauges

        self.keys = self.keys_python = Keyspace(hash_seed, cleanup)
        self.handlers = load()
        self.rows = list(TABLE)
        self.command_count = len(self.rows)
        self.commands = <Command*> calloc(self.command_count, sizeof(Command))
        if self.commands == NULL:
            raise MemoryError("no memory for the commands")
        for i, row in enumerate(self.rows):
            self.commands[i].fast = fast_of(row.key)
            self.commands[i].arity = row.arity - row.words if row.arity >= 0 else row.arity + row.words - 1
            self.commands[i].write = "write" in row.flags
            self.commands[i].denyoom = "denyoom" in row.flags
            self.commands[i].readonly = "readonly" in row.flags
            self.commands[i].internal = "internal" in row.flags
            self.commands[i].while_loading = "loading" in row.flags
        self.held = self.keys.leases.held
        self.keys.owner = self
        self.evictor = Evictor(self.keys)
        self.evictor.set_policy(policy)
        self.set_maxmemory(maxmemory)
        self.index = index
        self.gauges = Gauges()
        self.errors = {}
        self.batch_commands = []
        self.deferred = {}
        self.configure_slowlog(10000, 128)
        self.own_clock = now_ms is None
        self.set_time(int(time.time() * 1000) if now_ms is None else now_ms)

    def __dealloc__(self):
        free(self.commands)

    @property
    def keyspace(self):
        """The data, as the handlers see it."""
        return self.keys_python

    def compiled_commands(self):
        """Keys of the commands with a compiled case."""
        return [row.key for i, row in enumerate(self.rows) if self.commands[i].fast != NULL]

    def replace_handler(self, str key not None, handler):
        """Another function for the command `key`, the compiled case left out: for tests."""
        number = next(i for i, row in enumerate(self.rows) if row.key == key)
        self.handlers[number] = handler
        self.commands[<int> number].fast = NULL

    cpdef set_time(self, int64_t now_ms):
        """The time of the commands that follow, unix ms."""
        self.keys.set_time(now_ms)

    # Executing ------------------------------------------------------------------------------------------
    cdef int execute_frame(self, int number, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
        """One command; its reply, whatever it is, is appended to `out`. DONE or DEFERRED (nothing was appended)."""
        cdef Py_ssize_t mark = out.end - out.start
        cdef Command* command
        cdef int outcome
        if number >= self.command_count:
            return fail(self, out, b"ERR unknown command number")
        command = &self.commands[number]
        self.executed += 1
        if (n != command.arity) if command.arity >= 0 else (n < -command.arity - 1):
            command.rejected += 1
            return fail(self, out, self.arity_error(number))
        if self.loading and not command.while_loading:
            command.rejected += 1
            return fail(self, out, b"LOADING Kache is loading the dataset in memory")
        if command.denyoom and self.memory_limit and self.keys.used() > self.memory_limit and not self.make_room():
            command.rejected += 1
            return fail(self, out, OUT_OF_MEMORY_TEXT)
        self.keys.counting = command.readonly
        self.keys.dialect = self.dialect
        try:
            if command.write and not command.internal and len(<dict> self.held):
                self.check_leases(number, args, n)
            if command.fast != NULL:
                outcome = command.fast(self, slot, args, n, out)
                if outcome == DONE:
                    self.count_fast(command, number)
                    # Only what moves much can be slow; the others are not worth a look at the clock.
                    if self.keys.heavy or n >= MANY_ARGUMENTS or out.end - out.start - mark >= HEAVY or self.slow_ns == 0:
                        self.time_compiled(number, args, n)
                    return DONE
            return self.call_handler(command, number, args, n, out)
        except Exception as error:
            out.end = out.start + mark
            command.calls += 1
            command.failed += 1
            return fail(self, out, self.error_text(error, number))

    cdef inline int count_fast(self, Command* command, int number) except -1:
        command.calls += 1
        if command.in_batch == 0:
            self.batch_commands.append(number)
        command.in_batch += 1
        self.batch_count += 1
        return 0

    cdef int time_compiled(self, int number, Span* args, Py_ssize_t n) except -1:
        """A compiled command that may have been slow: its time is what passed since the last look at the clock, so that
        of a few small ones before it (FRAMES_PER_LOOK) is in it."""
        cdef int64_t now = monotonic_ns()
        cdef int64_t took = now - self.looked_ns
        self.keys.heavy = False
        self.looked_ns = now
        if took >= self.slow_ns:
            try:
                self.note_slow(number, took, arguments_of(args, n))
            except MemoryError:
                log.warning("no memory to enter %s in the slow log", self.rows[number].key)
        return 0

    cdef int call_handler(self, Command* command, int number, Span* args, Py_ssize_t n, Buffer out) except -1:
        cdef int64_t began = monotonic_ns(), took
        cdef tuple arguments = arguments_of(args, n)
        cdef object handler = self.handlers[number]
        cdef object reply
        if handler is None:
            raise CommandError("ERR this command is answered by the router")
        try:
            reply = handler(self.keys_python, *arguments)
        finally:
            self.looked_ns = monotonic_ns()
            took = self.looked_ns - began
            self.keys.heavy = False
            self.python_ns += took
            command.ns += took
            self.histogram[histogram_bucket(took)] += 1
            if took >= self.slow_ns:
                self.note_slow(number, took, arguments)
        command.calls += 1
        if type(reply) is Deferred:
            self.pending_token = reply.token
            return DEFERRED
        return put_reply(out, self.dialect, reply)

    cdef bint make_room(self) except -1:
        """Evicts until the data fits, for a moment at most; False when nothing can be evicted."""
        cdef int outcome = self.evictor.run(self.memory_limit, EVICTION_NS)
        return outcome != 0

    def require_room(self):
        """What is asked before a command that needs memory, for one that runs inside an internal command."""
        if self.memory_limit and self.keys.used() > self.memory_limit and not self.make_room():
            raise CommandError(OUT_OF_MEMORY)

    def evict_some(self, int64_t budget_ns):
        """Evicts for up to `budget_ns` when the data is over its limit. True when more has to go."""
        if self.memory_limit == 0 or self.keys.used() <= self.memory_limit:
            return False
        return self.evictor.run(self.memory_limit, budget_ns) == 2

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

    def check_arguments(self, int number, Py_ssize_t n):
        """Whether `n` arguments fit the arity of a command."""
        return n == self.commands[number].arity if self.commands[number].arity >= 0 else n >= -self.commands[number].arity - 1

    cdef bytes arity_error(self, int number):
        return f"ERR wrong number of arguments for '{self.rows[number].name}' command".encode()

    cdef int check_leases(self, int number, Span* args, Py_ssize_t n) except -1:
        from kache.commands import keys_of

        cdef Py_ssize_t i
        words = [PyBytes_FromStringAndSize(args[i].data, args[i].size) for i in range(n)]
        self.keys.leases.check(self.keys.db, keys_of(self.rows[number], words), self.keys.now_ms)
        return 0

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

    cdef int note_slow(self, int number, int64_t took, tuple arguments) except -1:
        words = [word.encode() for word in self.rows[number].name.split("|")]
        self.keys_python.slowlog.add(self.keys.now_ms, took // 1000, self.session, [*words, *arguments])
        return 0

    def configure_slowlog(self, int64_t limit_us, length):
        """From which execution time in microseconds commands are logged (-1: none), and how many are kept."""
        self.slow_ns = INT64_MAX if limit_us < 0 else limit_us * 1000
        self.keys_python.slowlog.configure(limit_us, length)

    # Measuring ------------------------------------------------------------------------------------------
    cdef inline void begin_batch(self) noexcept:
        self.batch_began = self.looked_ns = monotonic_ns()
        self.python_ns = 0

    cdef int end_batch(self) except -1:
        """Divides the time since begin_batch over the compiled commands executed in it."""
        cdef int64_t each
        cdef Command* command
        if self.batch_count == 0:
            return 0
        each = (monotonic_ns() - self.batch_began - self.python_ns) // self.batch_count
        self.histogram[histogram_bucket(each)] += self.batch_count
        for number in self.batch_commands:
            command = &self.commands[<int> number]
            command.ns += each * command.in_batch
            command.in_batch = 0
        self.batch_commands.clear()
        if each >= self.slow_ns:
            log.debug("a batch of %d commands took %d ns each", self.batch_count, each)
        self.batch_count = 0
        if self.keys.used() > self.peak_memory:
            self.peak_memory = self.keys.used()
        return 0

    def histogram_counts(self):
        """{bucket: count} of the execution times in nanoseconds (kache.stats)."""
        return {i: self.histogram[i] for i in range(HISTOGRAM_SIZE) if self.histogram[i]}

    def command_counts(self):
        """[(key, calls, microseconds, rejected, failed)] of the commands that came."""
        return [
            (row.key, self.commands[i].calls, self.commands[i].ns // 1000, self.commands[i].rejected,
             self.commands[i].failed)
            for i, row in enumerate(self.rows) if self.commands[i].calls or self.commands[i].rejected
        ]

    def reset_counters(self):
        """CONFIG RESETSTAT."""
        cdef int i
        memset(self.histogram, 0, sizeof(self.histogram))
        for i in range(self.command_count):
            self.commands[i].calls = self.commands[i].ns = self.commands[i].rejected = self.commands[i].failed = 0
        self.executed = 0
        self.errors.clear()
        self.peak_memory = self.keys.used()
        self.keys.dirty = self.keys.hits = self.keys.misses = 0
        self.keys.expired = self.keys.expired_fields = self.keys.evicted = 0

    # Deferred replies -----------------------------------------------------------------------------------
    def defer(self):
        """For a handler: a token for a reply that comes later; the handler returns Deferred(token)."""
        if self.link is None:
            raise CommandError("ERR this command cannot wait here")
        self.next_token += 1
        self.deferred[self.next_token] = (self.link, self.session, self.dialect)
        return self.next_token

    def answer_deferred(self, token, reply):
        """The reply of a deferred command; nothing happens when its session is gone."""
        cdef Buffer encoded
        waiting = self.deferred.pop(token, None)
        if waiting is not None:
            link, _, dialect = waiting
            encoded = Buffer()
            put_reply(encoded, dialect, reply)
            link.send_deferred(token, bytes(encoded))

    def forget_session(self, link, session):
        """Forgets what is deferred for a session (None: for the whole link); returns the tokens."""
        gone = [t for t, (l, s, _) in self.deferred.items() if l is link and (session is None or s == session)]
        for token in gone:
            del self.deferred[token]
        return gone

    cdef bint waits_for(self, object link) except -1:
        """Whether a deferred reply of this link is still to come."""
        for waiting in self.deferred.values():
            if waiting[0] is link:
                return True
        return False

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
        cdef Py_ssize_t i, n
        cdef Span* spans
        if not argv:
            raise ValueError("a command has a name")
        cdef bytes name = argv[0]
        row = lookup(name, INTERNAL if name.startswith(b"_") else dialect)
        words = 1
        if len(argv) > 1 and (row is None or row.is_container or row.subcommands):
            inner = lookup(name + b"|" + argv[1], dialect)
            if inner is not None:
                row = inner
                words = 2
        self.dialect = dialect
        if row is None or row.is_container:
            put_error(out, dialect, b"ERR unknown command '%s'" % name)
            return bytes(out)
        n = len(argv) - words
        spans = <Span*> malloc((n + 1) * sizeof(Span))
        if spans == NULL:
            raise MemoryError
        try:
            for i in range(n):
                spans[i].data = PyBytes_AS_STRING(<bytes?> argv[words + i])
                spans[i].size = PyBytes_GET_SIZE(<bytes> argv[words + i])
            if self.own_clock:
                self.set_time(int(time.time() * 1000))
            self.keys.db = db
            self.link = None
            self.begin_batch()
            if self.execute_frame(row.id, NO_SLOT, spans, n, out) == DEFERRED:
                raise RuntimeError("a deferred reply without a link")
            self.end_batch()
        finally:
            free(spans)
        return bytes(out)


cdef tuple arguments_of(Span* args, Py_ssize_t n):
    """The arguments as Python sees them."""
    cdef Py_ssize_t i
    return tuple([PyBytes_FromStringAndSize(args[i].data, args[i].size) for i in range(n)])


# How long one write may spend on eviction before it goes on although memory is full; the timer does the rest.
cdef int64_t EVICTION_NS = 500000
cdef bytes OUT_OF_MEMORY_TEXT = OUT_OF_MEMORY.encode()
