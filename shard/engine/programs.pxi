# Program: what a script, a function or a command in Python is to the shard while it runs.
#
#   the handler ─► Program ─► call(words) ─► refusal: unknown, arity, not for programs, rights, read only, whose keys, memory
#                                        └─► Executor: the handler of that command ─► its reply, a Python value
#
# It is one command of its client: nobody is executed in between, its effects are in one frame of the log, who waits for its
# keys is served behind it, the time stands still. Room is asked for once, before it begins; as a client's command would, the
# first write is refused where there was none.
#
# Its keys are this shard's. A key of another shard, or one that a transaction of somebody else holds, raises KeyElsewhere
# before anything is done with it: as long as the program has changed nothing it may then be ended and run again with the
# key at hand (`changed`). A key that a transaction holds is touched all the same behind a change.

cdef enum:
    DENIED_BYTES = 128      # of a word that was refused, for ACL LOG

cdef object packed_denial = Encoder().encode

cdef bytes PROGRAM_OUT_OF_MEMORY = b"OOM command not allowed when used memory > 'maxmemory'."

class KeyElsewhere(CommandError):
    """A command of a program names keys that it may not touch: they live on other shards, or are held by somebody else."""

    def __init__(self, keys):
        self.keys = keys
        super().__init__(
            f"ERR Script attempted to access key '{keys[0].decode('utf-8', 'backslashreplace')}' of another shard; "
            "declare it in KEYS")


cdef inline bint may_do_everything(Users users, uint32_t number) except -1:
    """Whether nothing of that user need be checked: what is usual."""
    cdef User user
    if number == RUN_UNRESTRICTED:
        return True
    user = None if users is None else (<dict> users.by_number).get(number)
    return user is not None and user.unrestricted


@cython.final
cdef class Program:
    """What runs commands inside the command of `context`, as its client would name them.

    ``with Program(context) as program: program.call(b"SET", key, value)``. Replies have the shapes of RESP2 until `resp` is
    said to be 3; SELECT holds until the end.
    """

    def __init__(self, Context context not None, *, bint read_only=False, bint allows_oom=False, check=None, set lent=None,
                 bint publishes=True):
        self.context = context
        self.shard = context.shard
        self.read_only = read_only
        self.allows_oom = allows_oom
        self.check = check
        self.lent = lent
        self.publishes = publishes
        self.published = []

    def __enter__(self):
        self.begin()
        return self

    def __exit__(self, *error):
        self.end()

    cdef int begin(self) except -1:
        """Nothing is done yet; the context is its own until `end`."""
        self.dialect_before = self.context.dialect
        self.db_before = self.context.keys.db
        self.area_before = self.context.area
        self.before_writing = None
        self.context.dialect = RESP2
        # What its commands answer does not leave as it is.
        self.context.area = None
        self.dirty_before = self.shard.store.dirty
        self.wrote = self.lent_changed = False
        self.short_of_room = not (self.read_only or self.allows_oom or self.context.flags & ROOM_ASKED
                                  or self.shard.has_room_for_a_key())
        return 0

    cdef void end(self) noexcept:
        self.context.dialect = self.dialect_before
        self.context.keys.db = self.db_before
        self.context.area = self.area_before
        self.area_before = None

    @property
    def changed(self):
        """Whether anything is not as it was before."""
        return self.shard.store.dirty != self.dirty_before or len(self.published) > 0 or self.lent_changed

    @property
    def resp(self):
        """Which version of the protocol its replies are shaped for: 2 or 3."""
        return 3 if self.context.dialect == RESP3 else 2

    @resp.setter
    def resp(self, int version):
        self.context.dialect = RESP3 if version == 3 else RESP2

    def call(self, *words):
        """The reply of a command, given as a client would send it (its name first, all of it bytes), as a Python value.

        CommandError when it is refused or fails; KeyElsewhere, which is one, when a key is not at hand.
        """
        cdef int number = self.shard.number_of(words)
        cdef Words spans = Words(words)
        cdef int used = self.shard.commands[number].words
        if self.admit(number, spans.spans + used, spans.count - used):
            return self.execute(number, words[used:], spans.spans + used, spans.count - used)
        return 0

    cdef int run(self, Span* words, Py_ssize_t n, Buffer out) except -1:
        """`call` with the reply as the bytes that a client of that protocol gets, behind what is in `out`."""
        cdef int flags = self.context.flags, number = self.shard.number_of_spans(words, n)
        cdef Command* command = &self.shard.commands[number]
        words += command.words
        n -= command.words
        if not self.admit(number, words, n):
            return put_int(out, self.context.dialect, 0)
        self.wrote = self.wrote or command.writes
        if command.compiled != NULL and self.lent is None and not command.blocking:
            self.context.flags |= ROOM_ASKED
            try:
                if self.shard.call_compiled(self.context, number, words, n, out) == DONE:
                    return 0
            finally:
                self.context.flags = flags
        reply = self.execute(number, arguments_of(words, n), words, n)
        if type(reply) is Raw:
            return out.append(PyBytes_AS_STRING(<bytes> reply.data), PyBytes_GET_SIZE(<bytes> reply.data))
        return put_reply(out, self.context.dialect, reply)

    cdef bint admit(self, int number, Span* args, Py_ssize_t n) except -1:
        """CommandError when it may not be executed; False when its router is told to, and its reply is 0."""
        cdef Executor shard = self.shard
        cdef Command* command = &shard.commands[number]
        if (n != command.arity) if command.arity >= 0 else (n < -command.arity - 1):
            raise CommandError("ERR Wrong number of args calling Redis command from script")
        if command.noscript:
            raise CommandError("ERR This Redis command is not allowed from script")
        if self.check is not None and not may_do_everything(shard.users, self.context.user_number):
            try:
                self.check(self.context.user_number, shard.rows[number], arguments_of(args, n))
            except DeniedError as denied:
                if self.context.link is not None:
                    self.context.link.send_denied(
                        self.context.session, packed_denial((denied.reason, denied.word[:DENIED_BYTES], denied.user)))
                raise
        if command.writes and self.read_only:
            raise CommandError("ERR Write commands are not allowed from read-only scripts.")
        if command.channel and shard.owned is not None:
            if not PyBytes_AS_STRING(shard.owned)[slot_of(args[0].data, args[0].size)]:
                self.pass_on(number, arguments_of(args, n))
                return False
        elif shard.owned is not None or shard.locks.busy:
            self.look_at_keys(number, args, n)
        if command.denyoom and self.short_of_room and not self.wrote:
            raise CommandError(PROGRAM_OUT_OF_MEMORY.decode())
        if self.before_writing is not None and command.writes and not self.wrote:
            self.before_writing()
        return True

    cdef int pass_on(self, int number, tuple args) except -1:
        """A message for a channel that lives elsewhere: its router publishes it behind the program."""
        if not self.publishes:
            raise CommandError("ERR a script inside a transaction cannot publish to a channel of another shard")
        self.published.append((PUBLISHED_CHANNEL if self.shard.rows[number].name == "publish" else PUBLISHED_SHARD_CHANNEL,
                               args[0], args[1]))
        return 0

    def row_of(self, *words):
        """The row of a command that is named so; None for none."""
        try:
            return self.shard.rows[self.shard.number_of(words)]
        except CommandError:
            return None

    cdef object execute(self, int number, tuple args, Span* spans, Py_ssize_t n):
        """The handler of the command; `spans` are the arguments, too."""
        cdef int flags = self.context.flags
        self.wrote = self.wrote or self.shard.commands[number].writes
        self.context.flags |= ROOM_ASKED
        try:
            if self.lent is not None:
                return self.execute_lent(number, args, spans, n)
            return self.shard.call_number(self.context, number, args, spans, n)
        finally:
            self.context.flags = flags

    # Keys of others that lie here -----------------------------------------------------------------------
    cdef object execute_lent(self, int number, tuple args, Span* spans, Py_ssize_t n):
        """What a command does to keys that are lent is no change of this shard; what it does to others is told as values."""
        cdef bint writes = self.shard.commands[number].writes
        row = self.shard.rows[number]
        if row.name in ("select", "move", "swapdb") or (row.name == "copy" and b"DB" in [word.upper() for word in args[2:]]):
            raise CommandError(f"ERR '{row.name}' leads to another database; a script with keys on several shards has one")
        touched = keys_with_flags(row, list(args))
        if not any([key in self.lent for key, _ in touched]):
            return self.shard.call_number(self.context, number, args, spans, n)
        own = [(key, self.context.keys.exists(key)) for key, flags in touched
               if flags[0] != "RO" and key not in self.lent] if writes else []
        self.lent_changed = self.lent_changed or writes
        self.shard.store.set_aside(True)
        try:
            return self.shard.call_number(self.context, number, args, spans, n)
        finally:
            self.shard.store.set_aside(False)
            for key, existed in own:
                self.retell(key, existed)

    # Keys -----------------------------------------------------------------------------------------------
    cdef int look_at_keys(self, int number, Span* args, Py_ssize_t n) except -1:
        """KeyElsewhere for what is not at hand."""
        cdef Command* command = &self.shard.commands[number]
        cdef Py_ssize_t at, last
        if command.whole and self.shard.owned is not None:
            raise CommandError(f"ERR '{self.shard.rows[number].name}' is about all shards; a script runs on one of them")
        if command.movable:
            return self.look_at_found(number, arguments_of(args, n))
        if command.step == 0:
            return 0
        last = min(command.last if command.last >= 0 else n + command.last, n - 1)
        at = command.first
        while at <= last:
            self.look_at_key(args[at].data, args[at].size, command.readonly)
            at += command.step
        return 0

    cdef int look_at_found(self, int number, tuple args) except -1:
        """The same where the row finds them."""
        cdef bytes key
        for key in keys_of(self.shard.rows[number], args):
            self.look_at_key(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), self.shard.commands[number].readonly)
        return self.look_at_patterns(args) if self.shard.rows[number].name.startswith("sort") else 0

    cdef int look_at_key(self, const char* key, Py_ssize_t n, bint reads) except -1:
        cdef int slot = slot_of(key, n)
        if self.shard.owned is not None and not PyBytes_AS_STRING(self.shard.owned)[slot] and (
                self.lent is None or PyBytes_FromStringAndSize(key, n) not in self.lent):
            raise KeyElsewhere([PyBytes_FromStringAndSize(key, n)])
        if self.shard.locks.busy and not self.changed and self.is_held(slot, reads):
            raise KeyElsewhere([PyBytes_FromStringAndSize(key, n)])
        return 0

    cdef bint is_held(self, int slot, bint reads) noexcept:
        """Whether a transaction that is not its own keeps others out."""
        cdef Locks locks = self.shard.locks
        cdef PyObject* holder = NULL if locks.holders == NULL else locks.holders[slot]
        if locks.whole is not None:
            return locks.whole.number != self.context.transaction
        if holder == NULL or (<Lock> holder).number == self.context.transaction:
            return False
        return not (reads and (<Lock> holder).lets_read)

    cdef int look_at_patterns(self, tuple args) except -1:
        """SORT's BY and GET make names of keys while it runs: all of them must be of this shard."""
        cdef Py_ssize_t i
        for i in range(len(args) - 1):
            if (<bytes> args[i]).upper() in (b"BY", b"GET") and b"*" in <bytes> args[i + 1]:
                tag = (<bytes> args[i + 1]).partition(b"{")[2].partition(b"}")
                if not (tag[0] and tag[1]) or b"*" in tag[0]:
                    raise CommandError("CROSSSLOT Keys in request don't hash to the same slot")
                self.look_at_key(PyBytes_AS_STRING(<bytes> args[i + 1]), PyBytes_GET_SIZE(<bytes> args[i + 1]), True)
        return 0


# EVAL and its kin ---------------------------------------------------------------------------------------
cdef class ScriptRunner:
    """Runs scripts, or functions, that are known and compiled; what is `Executor.script_runner`, or `function_runner`, is
    asked before the handlers."""

    cdef int evaluate(self, Context context, Span* args, Py_ssize_t n, Buffer out, bint by_name, bint reads) except -1:
        """EVAL's case, or EVALSHA's and FCALL's: DONE, or DECLINE before anything was done. The arguments are those of the
        command."""
        return DECLINE


cdef int run_eval(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef ScriptRunner runner = context.shard.script_runner
    return DECLINE if runner is None else runner.evaluate(context, args, n, out, False, False)


cdef int run_eval_ro(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef ScriptRunner runner = context.shard.script_runner
    return DECLINE if runner is None else runner.evaluate(context, args, n, out, False, True)


cdef int run_evalsha(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef ScriptRunner runner = context.shard.script_runner
    return DECLINE if runner is None else runner.evaluate(context, args, n, out, True, False)


cdef int run_evalsha_ro(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef ScriptRunner runner = context.shard.script_runner
    return DECLINE if runner is None else runner.evaluate(context, args, n, out, True, True)


cdef int run_fcall(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef ScriptRunner runner = context.shard.function_runner
    return DECLINE if runner is None else runner.evaluate(context, args, n, out, True, False)


cdef int run_fcall_ro(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef ScriptRunner runner = context.shard.function_runner
    return DECLINE if runner is None else runner.evaluate(context, args, n, out, True, True)


cdef Compiled compiled_script(str key):
    """The compiled case of a command that runs a script, or NULL."""
    if key == "eval": return run_eval
    if key == "eval_ro": return run_eval_ro
    if key == "evalsha": return run_evalsha
    if key == "evalsha_ro": return run_evalsha_ro
    if key == "fcall": return run_fcall
    if key == "fcall_ro": return run_fcall_ro
    return NULL
