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
        self.dialect_before = self.context.dialect
        self.db_before = self.context.keys.db
        self.context.dialect = RESP2
        self.dirty_before = self.shard.store.dirty
        self.short_of_room = not (self.read_only or self.allows_oom or self.context.flags & ROOM_ASKED
                                  or self.shard.has_room_for_a_key())
        return self

    def __exit__(self, *error):
        self.context.dialect = self.dialect_before
        self.context.keys.db = self.db_before

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
        cdef Executor shard = self.shard
        cdef int number = shard.number_of(words)
        cdef Command* command = &shard.commands[number]
        cdef tuple args = words[command.words:]
        cdef Words spans = Words(args)
        if (spans.count != command.arity) if command.arity >= 0 else (spans.count < -command.arity - 1):
            raise CommandError("ERR Wrong number of args calling Redis command from script")
        if command.noscript:
            raise CommandError("ERR This Redis command is not allowed from script")
        if self.check is not None:
            try:
                self.check(self.context.user_number, shard.rows[number], args)
            except DeniedError as denied:
                if self.context.link is not None:
                    self.context.link.send_denied(
                        self.context.session, packed_denial((denied.reason, denied.word[:DENIED_BYTES], denied.user)))
                raise
        if command.writes and self.read_only:
            raise CommandError("ERR Write commands are not allowed from read-only scripts.")
        if command.channel and shard.owned is not None:
            if not shard.owned[slot_of(spans.spans[0].data, spans.spans[0].size)]:
                if not self.publishes:
                    raise CommandError("ERR a script inside a transaction cannot publish to a channel of another shard")
                self.published.append((PUBLISHED_CHANNEL if shard.rows[number].name == "publish" else
                                       PUBLISHED_SHARD_CHANNEL, args[0], args[1]))
                return 0
        elif shard.owned is not None or shard.locks.busy:
            self.look_at_keys(command, number, args, spans)
        if command.denyoom and self.short_of_room and not self.wrote:
            raise CommandError(PROGRAM_OUT_OF_MEMORY.decode())
        return self.execute(command, number, args, spans)

    def row_of(self, *words):
        """The row of a command that is named so; None for none."""
        try:
            return self.shard.rows[self.shard.number_of(words)]
        except CommandError:
            return None

    cdef object execute(self, Command* command, int number, tuple args, Words words):
        cdef int flags = self.context.flags
        self.wrote = self.wrote or command.writes
        self.context.flags |= ROOM_ASKED
        try:
            if self.lent is not None:
                return self.execute_lent(command, number, args, words)
            return self.shard.call_number(self.context, number, args, words)
        finally:
            self.context.flags = flags

    # Keys of others that lie here -----------------------------------------------------------------------
    cdef object execute_lent(self, Command* command, int number, tuple args, Words words):
        """What a command does to keys that are lent is no change of this shard; what it does to others is told as values."""
        row = self.shard.rows[number]
        if row.name in ("select", "move", "swapdb") or (row.name == "copy" and b"DB" in [word.upper() for word in args[2:]]):
            raise CommandError(f"ERR '{row.name}' leads to another database; a script with keys on several shards has one")
        touched = keys_with_flags(row, list(args))
        if not any([key in self.lent for key, _ in touched]):
            return self.shard.call_number(self.context, number, args, words)
        own = [(key, self.context.keys.exists(key)) for key, flags in touched
               if flags[0] != "RO" and key not in self.lent] if command.writes else []
        self.lent_changed = self.lent_changed or command.writes
        self.shard.store.set_aside(True)
        try:
            return self.shard.call_number(self.context, number, args, words)
        finally:
            self.shard.store.set_aside(False)
            for key, existed in own:
                self.retell(key, existed)

    # Keys -----------------------------------------------------------------------------------------------
    cdef int look_at_keys(self, Command* command, int number, tuple args, Words words) except -1:
        """KeyElsewhere for what is not at hand."""
        cdef Py_ssize_t at, last
        if command.whole and self.shard.owned is not None:
            raise CommandError(f"ERR '{self.shard.rows[number].name}' is about all shards; a script runs on one of them")
        if command.movable:
            for key in keys_of(self.shard.rows[number], args):
                self.look_at_key(<bytes> key, command.readonly)
            return self.look_at_patterns(args) if self.shard.rows[number].name.startswith("sort") else 0
        if command.step == 0:
            return 0
        last = min(command.last if command.last >= 0 else words.count + command.last, words.count - 1)
        at = command.first
        while at <= last:
            self.look_at_key(<bytes> args[at], command.readonly)
            at += command.step
        return 0

    cdef int look_at_key(self, bytes key, bint reads) except -1:
        cdef int slot = slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        if self.shard.owned is not None and not PyBytes_AS_STRING(self.shard.owned)[slot] and (
                self.lent is None or key not in self.lent):
            raise KeyElsewhere([key])
        if self.shard.locks.busy and not self.changed and self.is_held(slot, reads):
            raise KeyElsewhere([key])
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
                self.look_at_key(<bytes> args[i + 1], True)
        return 0
