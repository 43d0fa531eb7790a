# MULTI … EXEC: what a client queues, and how it is executed at once and alone.
#
#   Queue    frame | frame | …      encoded for the link already, with the slots of their keys
#
#   one shard         one run, FLAG_ATOMIC, in the link's order like any pipeline: no lock, nobody waits
#   several shards    _lock on each ─► all granted: to each its share, released with it ─► the replies in the client's order
#                       │ busy somewhere: all are given back, then asked for one after the other, each waiting its turn
#                       └ refused: all are given back, nothing was executed
#   with a command    the same locks, led by a coroutine (scatter/lead.py)
#   in steps
#
# FLUSHALL and its like, which every shard executes, go the second way by themselves (`exec_alone`).
# Nobody who only tries holds anything while waiting, and who waits holds the locks of lower shards only: no deadlock.
# With a log, _lock names the shards that will have a share in theirs, and they are released when all have answered.
# Behind the first share that is sent nothing is refused any more; a shard that is lost then leaves the outcome uncertain.
# It is this long since Cython wants the methods of a class, Exec, in one file.

cdef enum:
    FIRST_QUEUED = 16
    MOST_SPARE = 64             # queues that are kept for whoever comes next, of so many commands
    SPARE_COMMANDS = 64
    CHARGED_AT_ONCE = 4096      # of the replies to a transaction on one shard

    # Queue.shard, beside a shard's number.
    NO_SHARD = -1
    SEVERAL = -2

    # Phases of an Exec.
    RUNNING = 0         # one shard executes it
    TRYING = 1          # locks are asked for, all at once
    STANDING = 2        # one after the other
    EXTENDING = 3       # they have been held for long
    GOING = 4           # the shares are sent
    OVER = 5

    # What is known of a participant's lock, and beside a number of replies of its share.
    NOT_ASKED = 0
    ASKED = 1
    HELD = 2
    SWALLOWED = -1      # one reply that means nothing
    GONE = -2           # it has answered, or will not

cdef list SPARE_QUEUES = []

cdef bytes NOT_IN_MULTI = b"ERR Command not allowed inside a transaction"
cdef bytes ABORTED_BEFORE = b"EXECABORT Transaction discarded because of previous errors."
cdef bytes ABORTED_BY = b"EXECABORT Transaction discarded because of: "
cdef bytes LOG_TOO_SLOW = b"TRYAGAIN the log could not be written for too long; nothing was executed"
cdef bytes LOCKS_TOO_SLOW = b"TRYAGAIN other transactions held the keys for too long; nothing was executed"


cdef class Queue:
    """What a client has queued behind MULTI."""

    def __cinit__(self):
        self.commands = NULL

    def __init__(self, Session session not None):
        self.frames = Buffer()
        self.slots = Buffer()
        self.planned = {}
        self.begin(session)

    def __dealloc__(self):
        free(self.commands)

    cdef int begin(self, Session session) except -1:
        """Nothing is queued."""
        self.count = self.locals = 0
        self.db = session.db_now
        self.run_db = -1
        self.shard = NO_SHARD
        self.everything = self.led = self.waits = self.broken = self.writes = self.needs_room = self.logs_in = False
        self.denied = None
        self.epoch = session.router.slots.epoch
        return 0

    cdef Py_ssize_t cost(self) noexcept:
        return self.frames.used() + self.slots.used() + self.count * sizeof(Queued)

    cdef Queued* add(self, Command* command) except NULL:
        cdef Queued* larger
        cdef Queued* one
        if self.count == self.capacity:
            larger = <Queued*> realloc(self.commands, max(2 * self.capacity, <Py_ssize_t> FIRST_QUEUED) * sizeof(Queued))
            if larger == NULL:
                raise MemoryError("no memory for a queued command")
            self.commands = larger
            self.capacity = max(2 * self.capacity, <Py_ssize_t> FIRST_QUEUED)
        one = &self.commands[self.count]
        one.command = command
        one.at = self.frames.used()
        one.shard = NO_SHARD
        one.db = <uint8_t> self.db
        self.count += 1
        self.writes |= command.writes
        self.publishes |= command.publishes
        self.needs_room |= command.needs_room
        return one

    cdef int belongs(self, Queued* one, int shard) except -1:
        """The command is for this shard, in the database that is selected by now."""
        one.shard = shard
        self.shard = shard if self.shard == NO_SHARD or self.shard == shard else SEVERAL
        if self.run_db >= 0 and self.run_db != self.db:
            self.shard = SEVERAL
        self.run_db = self.db
        return 0

    def commands_of(self):
        """[(row, arguments, database)] of all that is queued."""
        cdef list found = []
        cdef Py_ssize_t i
        for i in range(self.count):
            found.append((<object> self.commands[i].command.row, self.arguments(i), self.commands[i].db))
        return found

    def slots_by_shard(self, Router router):
        """{shard: {slot}} of the keys of all that is queued; a shard that is asked for no key in particular has none."""
        cdef dict found = {}
        cdef Py_ssize_t i
        cdef uint16_t slot
        for i in range(self.count):
            if self.commands[i].shard >= 0:
                found.setdefault(self.commands[i].shard, set())
        for i in range(self.slots.used() // 2):
            memcpy(&slot, self.slots.data + self.slots.start + 2 * i, 2)
            found.setdefault(router.shard_at(slot), set()).add(slot)
        return found

    cdef tuple arguments(self, Py_ssize_t i):
        cdef const char* at = self.frames.data + self.frames.start + self.commands[i].at + 8
        cdef uint32_t count, size
        cdef list found = []
        memcpy(&count, at, 4)
        at += 4
        for _ in range(count):
            memcpy(&size, at, 4)
            found.append(PyBytes_FromStringAndSize(at + 4, size))
            at += 4 + size
        return tuple(found)


cdef int put_away(Queue queue) except -1:
    """Nobody knows of it any more; its memory serves the next one."""
    if queue.capacity <= SPARE_COMMANDS and len(SPARE_QUEUES) < MOST_SPARE:
        queue.frames.clear()
        queue.slots.clear()
        queue.planned.clear()
        SPARE_QUEUES.append(queue)
    return 0


# Queueing -------------------------------------------------------------------------------------------------
cdef int begin_queue(Session session, Command* command, uint16_t flags) except -1:
    """MULTI: what follows is queued."""
    if SPARE_QUEUES:
        session.queue = <Queue> SPARE_QUEUES.pop()
        session.queue.begin(session)
    else:
        session.queue = Queue(session)
    session.set_restricted()
    count_local(command, 0)
    return answer_word(session, "OK", b"+OK\r\n", flags)


cdef bint queue_command(Session session, Command* command, uint16_t flags) except -1:
    """Keeps the command in the parser for EXEC."""
    cdef Queue queue = session.queue
    cdef RequestParser parser = session.parser
    cdef Queued* one
    cdef uint16_t slot = NO_SLOT
    cdef int busy
    if session.router.remote is not None:
        return queue_remote(session, command, flags)
    if command.no_multi or command.route == ROUTE_CONTAINER:
        queue.broken = True
        session.answer_error(NOT_IN_MULTI if command.no_multi else wrong_arity(command), flags)
        return True
    if queue.cost() + parser.consumed > session.router.limits.query_limit:
        session.close("queued commands over client-query-buffer-limit")
        return True
    one = queue.add(command)
    if command.route <= ROUTE_MOVE and not command.planned and command.first > 0 and command.first < parser.count:
        slot = queue_keys(session, queue, one)
    elif command.route == ROUTE_LOCAL:
        queue_local_command(session, queue, command)
    else:
        plan_queued(session, queue, one)
    put_frame(queue.frames, command, slot, parser.spans + command.words, parser.count - command.words)
    one.size = queue.frames.used() - one.at
    if session.router.shards.any_busy:
        busy = busy_for_queued(session, queue, one)
        if busy != FREE:
            queue.broken = True
            session.answer_error(busy_text(busy), flags)
            return True
    answer_word(session, "QUEUED", b"+QUEUED\r\n", flags)
    return True


cdef uint16_t queue_keys(Session session, Queue queue, Queued* one) except? 0xFFFF:
    """The slots of the keys of a command that has a plain range of them; the first one's."""
    cdef Command* command = one.command
    cdef RequestParser parser = session.parser
    cdef Py_ssize_t last = command.last if command.last >= 0 else parser.count + command.last
    cdef Py_ssize_t key = command.first
    cdef uint16_t slot, first = NO_SLOT
    cdef int shard = NO_SHARD
    while key <= last and key < parser.count:
        slot = slot_of(parser.spans[key].data, parser.spans[key].size)
        queue.slots.put_u16(slot)
        if shard == NO_SHARD:
            first, shard = slot, session.router.shard_at(slot)
        elif session.router.shard_at(slot) != shard:
            shard = SEVERAL
        key += command.step
    if shard == SEVERAL and (parser.count - command.first) % command.step:
        # MSET with a key that has no value: one shard words the error.
        shard = session.router.shard_at(first)
    if shard == SEVERAL:
        plan_queued(session, queue, one, False)
    else:
        queue.belongs(one, shard)
    return first


cdef int queue_local_command(Session session, Queue queue, Command* command) except -1:
    """One that the router answers: in its place when EXEC is executed."""
    cdef int64_t number
    queue.locals += 1
    queue.logs_in |= command.logs_in
    if not command.instant:
        queue.led = True
    elif not command.harmless:
        queue.waits = True
    if command.selects and parse_int64(session.parser.spans[1].data, session.parser.spans[1].size, &number) and (
            0 <= number < DATABASES):
        queue.db = <int> number
    return 0


cdef int plan_queued(Session session, Queue queue, Queued* one, bint count_slots=True) except -1:
    """The parts of a command that the compiled path does not know, or that spans shards."""
    cdef Py_ssize_t number = queue.count - 1
    cdef tuple arguments = session.arguments(one.command)
    cdef bytes key
    row = <object> one.command.row
    if count_slots:
        for key in keys_of(row, arguments):
            queue.slots.put_u16(slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))
    if one.command.route == ROUTE_ALL or one.command.route == ROUTE_CURSOR:
        queue.everything = True
    try:
        parts = None if one.command.route == ROUTE_CURSOR else session.router.planner(row, arguments, session.router)
    except NeedsMove:
        parts = None
    except Exception as error:
        # Its element is not one of those that a shard's run answers.
        queue.planned[number] = reply_of(error, one.command)
        queue.shard = SEVERAL
        return 0
    if parts is None:
        queue.led = True
        queue.shard = SEVERAL
    elif len(parts) == 1 and parts[0].command == row.key:
        queue.belongs(one, parts[0].shard)
    else:
        queue.planned[number] = parts
        queue.shard = SEVERAL
    return 0


cdef int answer_word(Session session, str word, bytes encoded, uint16_t flags) except -1:
    """A status; `encoded`: as RESP has it."""
    cdef Buffer out
    if flags & SILENT or session.gone:
        return 0
    if session.order.used() or session.dialect_now == BINARY:
        return session.answer(word, flags)
    out = session.output()
    out.append(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
    session.account(PyBytes_GET_SIZE(encoded))
    session.over_limit()
    return session.mark_dirty()


cdef int busy_for_queued(Session session, Queue queue, Queued* one) except -1:
    """Whether what was queued last needs a shard that is busy; called when one is."""
    cdef Router router = session.router
    cdef list links = router.shards.links
    if one.shard >= 0:
        return (<Link> links[one.shard]).busy
    if one.command.route == ROUTE_LOCAL:
        return FREE if one.command.while_busy else router.shards.all_busy
    parts = queue.planned.get(queue.count - 1)
    if parts is None:
        # Led by a coroutine: it may need any.
        return router.shards.any_busy
    return max([(<Link> links[part.shard]).busy for part in parts], default=FREE) if type(parts) is list else FREE


# Watches and the end of MULTI -------------------------------------------------------------------------------
cdef int end_multi(Session session) except -1:
    """The queue is dropped; what was watched is not any more."""
    session.queue = None
    session.set_restricted()
    return unwatch(session)


cdef int unwatch(Session session) except -1:
    if session.exclusive is not None:
        watching, session.exclusive = session.exclusive, None
        watching.leave()
    watched, session.watched = session.watched, None
    return unwatch_on(session, watched) if watched is not None else 0


cdef int unwatch_on(Session session, watched) except -1:
    """Tells the shards; what they answer, and whether they do, does not matter."""
    cdef Link link
    cdef int64_t deadline = session.router.now_ms + session.router.limits.request_timeout
    for link in watched:
        if link.phase == UP:
            link.ask(Ignored(session.router), 0, session.router.table.unwatch, NO_SLOT, [], 0, 0, session.id, deadline, 0)
    return 0


cdef class Ignored(Pending):
    """The owner of replies that nobody waits for."""

    def __init__(self, Router router):
        self.router = router


cdef bint watches_are_lost(Session session) except -1:
    """Whether a shard that watched for this session is another one now, or is down."""
    cdef Link link
    if session.watched is not None:
        for link in session.watched:
            if link.phase != UP or session.router.links[link.index] is not link:
                return True
    return False


# EXEC -----------------------------------------------------------------------------------------------------
cdef bint run_exec(Session session, Command* command, uint16_t flags) except -1:
    """Executes what is queued; False when it must wait."""
    cdef Queue queue = session.queue
    cdef Router router = session.router
    cdef list shards
    cdef int verdict
    if router.remote is not None:
        if not session.rights.unrestricted and not queue.broken and not may_still_execute(session, queue, flags):
            return True
        return exec_remote(session, command, flags)
    if router.shards.any_busy and refuse_busy_exec(session, queue, flags):
        return True
    if queue.broken:
        end_multi(session)
        session.answer_error(ABORTED_BEFORE, flags)
        return True
    if watches_are_lost(session):
        end_multi(session)
        session.answer(NULL_ARRAY, flags)
        return True
    if queue.epoch != router.slots.epoch:
        end_multi(session)
        session.answer_error(MOVED, flags)
        return True
    if not session.rights.unrestricted or queue.logs_in:
        check_queue(session, queue)
    shards = participants(session, queue)
    if queue.publishes and len(shards) == 1 and not session.may_publish(<int> shards[0]):
        return False
    for shard in shards:
        verdict = session.may_send(<Backend> router.links[<int> shard], flags)
        if verdict == WAIT:
            return False
        if verdict == REFUSED:
            end_multi(session)
            return True
    router.shards.end_runs()
    if router.watched[0] | router.watched[1]:
        router.monitors.tell_queue(session, queue)
    if queue.led:
        lead_exec(session, queue, command, flags)
    else:
        start_exec(session, queue, shards, False, flags)
    count_local(command, 0)
    return True


cdef bint refuse_busy_exec(Session session, Queue queue, uint16_t flags) except -1:
    """EXEC where a shard is busy: whether that was its answer. As a real server it says so whatever was queued."""
    cdef int busy = session.router.shards.all_busy
    for shard in participants(session, queue):
        busy = busy or (<Link> session.router.shards.links[<int> shard]).busy
    if busy == FREE:
        return False
    end_multi(session)
    session.answer_error(ABORTED_BY + busy_text(busy), flags)
    return True


cdef list participants(Session session, Queue queue):
    """The shards that are concerned, in their order: by commands, or because something is watched there."""
    cdef set found
    cdef Py_ssize_t i
    cdef uint16_t slot
    cdef Link link
    if queue.everything:
        return list(range(session.router.shard_count))
    if queue.shard >= 0 and session.watched is None:
        return [queue.shard]
    found = set()
    for i in range(queue.count):
        if queue.commands[i].shard >= 0:
            found.add(queue.commands[i].shard)
    for i in range(queue.slots.used() // 2):
        memcpy(&slot, queue.slots.data + queue.slots.start + 2 * i, 2)
        found.add(session.router.shard_at(slot))
    for parts in queue.planned.values():
        if type(parts) is list:
            found.update([part.shard for part in parts])
    if session.watched is not None:
        for link in session.watched:
            found.add(link.index)
    return sorted(found)


cdef int lead_exec(Session session, Queue queue, Command* command, uint16_t flags) except -1:
    """A command among them takes several steps."""
    watched, session.watched = session.watched, None
    session.queue = None
    session.set_restricted()
    return session.run_coroutine(command, lead(session.router, session, queue, watched), flags)


cdef int start_exec(Session session, Queue queue, list shards, bint alone, uint16_t flags) except -1:
    cdef Exec one = Exec.__new__(Exec)
    one.router = session.router
    one.session = session
    one.dialect = session.dialect_now
    one.queue = queue
    one.alone = alone
    if not alone:
        one.watched, session.watched = session.watched, None
        session.queue = None
        session.set_restricted()
    if not shards:
        # At once, like any other command that the router answers.
        return session.answer([one.run_local(i) if i not in queue.planned else queue.planned[i] for i in range(queue.count)], flags)
    session.expect_pending(one, flags)
    session.unanswered_bytes += queue.frames.used()
    if queue.waits:
        session.barrier = one
    if len(shards) == 1 and queue.shard == shards[0] or (queue.count == queue.locals and len(shards) == 1):
        return one.run_on(<Link> session.router.links[<int> shards[0]])
    session.barrier = one
    one.charge(queue.cost())
    return one.begin_locking(shards)


cdef bint exec_alone(Session session, Command* command, list parts, uint16_t flags) except -1:
    """A command that every shard executes, as a transaction of one; False when it must wait."""
    cdef Queue queue = Queue(session)
    cdef int verdict
    for part in parts:
        verdict = session.may_send(<Backend> session.router.links[<int> part.shard], flags)
        if verdict != SEND:
            return verdict == REFUSED
    session.router.shards.end_runs()
    queue.add(command)
    queue.everything = True
    queue.planned[0] = parts
    queue.shard = SEVERAL
    start_exec(session, queue, list(range(session.router.shard_count)), True, flags)
    return True


cdef class Exec(Pending):
    """A transaction on its way: its locks, its shares, its replies."""

    # One shard ------------------------------------------------------------------------------------------
    cdef int run_on(self, Link link) except -1:
        """All of it in one run. Only what the router answers itself is not in it."""
        cdef Session session = self.session
        cdef Queue queue = self.queue
        cdef Buffer run
        cdef int flags = session.flags_of_runs() | FLAG_ATOMIC
        cdef int64_t deadline = self.router.now_ms + self.router.limits.request_timeout
        self.phase = RUNNING
        self.left = queue.count - queue.locals
        if self.watched is not None:
            flags |= FLAG_WATCHED
        if self.left == 0:
            # Nothing but to look at what is watched.
            self.swallows = self.left = 1
            run = Buffer()
            self.put_alone(run, self.router.table.unwatch, [], INTERNAL, 0, flags, deadline, 0)
            return link.put_runs(self, 0, run, [(0, self.left)], deadline)
        link.put_queue(self, queue, flags, deadline)
        if queue.locals == 0:
            queue.frames.clear()
        return 0

    cdef int put_alone(self, Buffer out, uint16_t command, list arguments, int dialect, int db, int flags,
                       uint64_t deadline, uint64_t transaction) except -1:
        """A run of one frame of the router's own."""
        cdef Py_ssize_t mark = out.used()
        put_run_header(out, dialect, db, flags, 1, self.session, deadline, transaction)
        put_words(out, command, self.router.slot_for(self.router.table.rows[command], arguments), arguments)
        return end_run_header(out, mark)

    # Locks ----------------------------------------------------------------------------------------------
    cdef int begin_locking(self, list shards) except -1:
        cdef Clients clients = self.router.clients
        clients.last_transaction += 1
        self.number = clients.last_transaction
        self.failed = {}
        self.links = [self.router.links[<int> shard] for shard in shards]
        self.slots = self.slots_of(shards)
        if self.router.limits.logged and self.queue.writes:
            written = self.shards_written()
            if len(written) > 1:
                self.writers = b"".join([raw_u16(shard) for shard in sorted(written)])
                self.logging = [shard in written for shard in shards]
        self.states = [NOT_ASKED] * len(shards)
        self.ends = self.router.now_ms + self.router.limits.request_timeout
        self.phase = TRYING
        self.until = self.soonest = self.router.now_ms + self.router.limits.transaction_hold
        self.missing = len(shards)
        cdef Py_ssize_t part
        for part in range(len(shards)):
            self.ask_lock(part, 0)
        return 0

    cdef list slots_of(self, list shards):
        """The slots of each participant, raw; none means all."""
        cdef Queue queue = self.queue
        cdef uint16_t slot
        cdef Py_ssize_t i
        cdef Buffer own
        cdef list found = []
        if queue.everything:
            return [b""] * len(shards)
        for shard in shards:
            own = Buffer()
            for i in range(queue.slots.used() // 2):
                memcpy(&slot, queue.slots.data + queue.slots.start + 2 * i, 2)
                if self.router.shard_at(slot) == <int> shard:
                    own.put_u16(slot)
            if self.watched is not None:
                for slot in self.watched.get(self.router.links[<int> shard], ()):
                    own.put_u16(slot)
            # A command without keys goes to some shard; there it needs no slot in particular.
            if own.used() == 0:
                own.put_u16(NO_SLOT)
            found.append(PyBytes_FromStringAndSize(own.data + own.start, own.used()))
        return found

    cdef set shards_written(self):
        """The shards where a command may change something."""
        cdef Queue queue = self.queue
        cdef Py_ssize_t i
        cdef set found = set()
        for i in range(queue.count):
            if queue.commands[i].shard >= 0 and queue.commands[i].command.writes:
                found.add(queue.commands[i].shard)
        for parts in queue.planned.values():
            if type(parts) is list:
                found.update([part.shard for part in parts if self.router.table.by_key[part.command].is_write])
        return found

    cdef int mode(self, Py_ssize_t part) except -1:
        cdef int mode = LOCK_NEEDS_ROOM if self.queue.needs_room else 0
        if self.watched is not None and self.links[part] in self.watched:
            mode |= LOCK_CHECKS
        return mode

    cdef int ask_lock(self, Py_ssize_t part, int more) except -1:
        cdef Link link = <Link> self.links[part]
        cdef list words = [raw_u64(self.number), raw_u64(self.until), bytes([self.mode(part) | more]), self.slots[part]]
        self.states[part] = ASKED
        if link.phase != UP:
            return self.fail(<uint32_t> part, link.down_text())
        if self.writers is not None and self.logging[part]:
            words.append(self.writers)
        return link.ask(self, <uint32_t> part, self.router.table.lock, NO_SLOT, words, 0, 0, self.session.id, self.ends, 0)

    cdef int take_lock(self, Py_ssize_t part, const char* reply, Py_ssize_t n) except -1:
        cdef int64_t granted
        if n >= 4 and reply[0] == c":" and parse_int64(reply + 1, n - 3, &granted):
            self.states[part] = HELD if granted == LOCK_GRANTED else NOT_ASKED
            if granted == LOCK_DIRTY:
                self.dirty = True
            elif granted == LOCK_BUSY or granted == LOCK_LOG_IS_SLOW:
                self.busy = True
                self.log_is_slow |= granted == LOCK_LOG_IS_SLOW
            elif granted != LOCK_GRANTED:
                self.lost = True
        else:
            self.states[part] = NOT_ASKED
            error = decode_span(reply, n)
            if self.refusal is None:
                self.refusal = error if self.alone else CommandError(ABORTED_BY.decode() + error.message)
        self.missing -= 1
        return self.after_locks() if self.missing == 0 else 0

    cdef int after_locks(self) except -1:
        """Every lock that was asked for has been answered."""
        if self.session.gone:
            return self.give_up(None)
        if self.refusal is not None:
            return self.give_up(self.refusal)
        if self.dirty:
            return self.give_up(NULL_ARRAY)
        if self.phase == TRYING and (self.busy or self.lost):
            return self.stand_in_line()
        if self.busy or (self.lost and self.phase != EXTENDING):
            return self.give_up(CommandError(self.too_slow().decode()))
        if self.lost:
            # Held too long while the next was waited for: once more from the beginning.
            self.unlock()
            return self.stand_in_line()
        if self.phase == STANDING and self.states[len(self.states) - 1] != HELD:
            return self.ask_next()
        # The clock itself: the process may have been stopped since this iteration began.
        if self.router.clock.now_ms() > self.soonest - self.router.limits.transaction_hold // 4:
            return self.extend()
        return self.go()

    cdef bytes too_slow(self):
        """Why the locks were not to be had in time."""
        return LOG_TOO_SLOW if self.log_is_slow else LOCKS_TOO_SLOW

    cdef int stand_in_line(self) except -1:
        """Not all could be had at once: one shard after the other, in the order in which everybody does."""
        self.unlock()
        self.busy = self.lost = False
        if self.router.now_ms >= self.ends:
            return self.give_up(CommandError(self.too_slow().decode()))
        self.phase = STANDING
        self.soonest = self.router.now_ms + self.router.limits.transaction_hold
        return self.ask_next()

    cdef int ask_next(self) except -1:
        cdef Py_ssize_t part = self.states.index(NOT_ASKED)
        self.until = self.router.now_ms + self.router.limits.transaction_hold
        self.missing = 1
        return self.ask_lock(part, LOCK_WAITS)

    cdef int extend(self) except -1:
        """A later end for all locks, if they still hold."""
        cdef Py_ssize_t part
        if self.router.now_ms >= self.ends:
            return self.give_up(CommandError(self.too_slow().decode()))
        self.phase = EXTENDING
        self.until = self.soonest = self.router.now_ms + self.router.limits.transaction_hold
        self.missing = len(self.links)
        for part in range(len(self.links)):
            self.ask_lock(part, LOCK_EXTENDS)
        return 0

    cdef int unlock(self) except -1:
        """Gives back what is held, or may be."""
        cdef Link link
        cdef Py_ssize_t part
        for part in range(len(self.links)):
            link = <Link> self.links[part]
            if self.states[part] != NOT_ASKED and link.phase == UP:
                link.ask(Ignored(self.router), 0, self.router.table.unlock, NO_SLOT, [raw_u64(self.number)], 0, 0,
                         self.session.id, self.router.now_ms + self.router.limits.request_timeout, 0)
            self.states[part] = NOT_ASKED
        return 0

    cdef int give_up(self, object value) except -1:
        """Nothing was executed."""
        self.unlock()
        self.phase = OVER
        if self.watched is not None:
            unwatch_on(self.session, self.watched)
        if isinstance(value, CommandError):
            self.router.counters.count_error(value.message)
        return self.complete(value)

    # Shares ---------------------------------------------------------------------------------------------
    cdef int go(self) except -1:
        """All locks are held: to each shard its share, which it executes whole and then lets go."""
        cdef Py_ssize_t part
        cdef Link link
        for part in range(len(self.links)):
            link = <Link> self.links[part]
            if link.phase != UP:
                # Nothing has been sent to anybody.
                return self.give_up(CommandError(link.down_text().decode()))
        self.phase = GOING
        self.got = [None] * len(self.links)
        self.lefts = [0] * len(self.links)
        self.missing = len(self.links)
        for part in range(len(self.links)):
            self.send_share(part)
        return 0

    cdef int send_share(self, Py_ssize_t part) except -1:
        cdef Link link = <Link> self.links[part]
        cdef Buffer share = Buffer()
        cdef list runs = []
        cdef int64_t deadline = self.router.now_ms + self.router.limits.request_timeout
        cdef int flags = self.session.flags_of_runs() | FLAG_ATOMIC
        self.put_commands(share, runs, link.index, flags)
        if not runs:
            self.lefts[part] = SWALLOWED
            runs.append((0, 1))
            self.put_alone(share, self.router.table.unwatch, [], INTERNAL, 0, flags, 0, self.number)
        else:
            self.got[part] = Buffer()
            self.lefts[part] = sum([count for _, count in runs])
        # A reply means that the share is in the log, as far as its policy promises: the locks hold until all of them are,
        # so that nothing builds on a share that a restart leaves out because another one was lost.
        held = self.writers is not None and self.logging[part]
        if not held:
            self.states[part] = NOT_ASKED
        patch_share(share, runs, self.watched is not None and link in self.watched, not held)
        link.end_run()
        return link.put_runs(self, <uint32_t> part, share, runs, deadline)

    cdef int put_commands(self, Buffer share, list runs, int shard, int flags) except -1:
        """The runs of one shard: of the client's own frames one for each stretch in one database; each part by itself."""
        cdef Queue queue = self.queue
        cdef Py_ssize_t i, mark = -1
        cdef uint32_t count = 0
        cdef int db = -1
        cdef Queued* one
        for i in range(queue.count):
            one = &queue.commands[i]
            if one.shard == shard:
                if mark < 0 or db != one.db:
                    if mark >= 0:
                        end_counted(share, mark, count)
                        runs.append((mark, count))
                    mark, count, db = share.used(), 0, one.db
                    put_run_header(share, self.dialect, db, flags, 0, self.session, 0, self.number)
                share.append(queue.frames.data + queue.frames.start + one.at, one.size)
                count += 1
                continue
            if one.shard >= 0 or not queue.planned:
                continue
            for each in self.parts_for(i, shard):
                if mark >= 0:
                    end_counted(share, mark, count)
                    runs.append((mark, count))
                    mark = -1
                runs.append((share.used(), 1))
                target = self.router.table.by_key[each.command]
                self.put_alone(share, target.id, list(each.args), INTERNAL, one.db, flags, 0, self.number)
        if mark >= 0:
            end_counted(share, mark, count)
            runs.append((mark, count))
        return 0

    cdef list parts_for(self, Py_ssize_t i, int shard):
        parts = self.queue.planned.get(i) if self.queue.planned else None
        return [part for part in parts if part.shard == shard] if type(parts) is list else []

    # Replies --------------------------------------------------------------------------------------------
    cdef int receive(self, uint32_t part, const char* reply, Py_ssize_t n) except -1:
        cdef Buffer got
        if self.phase == OVER:
            return 0
        if self.phase == RUNNING:
            return self.take_next(reply, n)
        if self.phase != GOING:
            return self.take_lock(part, reply, n)
        if self.lefts[part] < 0:
            return self.part_done(part)
        if self.charge(n + 4):
            got = <Buffer> self.got[part]
            got.put_u32(<uint32_t> n)
            got.append(reply, n)
        self.lefts[part] -= 1
        return self.part_done(part) if self.lefts[part] == 0 else 0

    cdef int fail(self, uint32_t part, bytes message) except -1:
        if self.phase == OVER:
            return 0
        if self.phase == RUNNING:
            return self.fail_whole(CommandError(message.decode("utf-8", "replace")))
        if self.phase != GOING:
            return self.fail_lock(part, message)
        if self.lefts[part] >= 0:
            self.failed[part] = CommandError(message.decode("utf-8", "replace"))
        return self.part_done(part)

    cdef int aborted(self, uint32_t part, bytes text) except -1:
        """The shard has refused the run as a whole."""
        if self.phase != RUNNING:
            return self.fail(part, text)
        if not text:
            return self.give_up_running(NULL_ARRAY)
        if text.startswith(b"TRYAGAIN"):
            return self.fail_whole(CommandError(text.decode("utf-8", "replace")))
        return self.fail_whole(CommandError((ABORTED_BY + text).decode("utf-8", "replace")))

    cdef int fail_whole(self, object error) except -1:
        self.router.counters.count_error(error.message)
        return self.give_up_running(error)

    cdef int give_up_running(self, object value) except -1:
        self.phase = OVER
        self.reply = None
        return self.complete(value)

    cdef int fail_lock(self, uint32_t part, bytes message) except -1:
        """Whether it was granted is not known: it is given back with the others."""
        if message.startswith(b"UNCERTAIN"):
            message = (<Link> self.links[part]).down_text()
        elif message.startswith(b"TIMEOUT"):
            message = self.too_slow()
        if self.refusal is None:
            self.refusal = CommandError(message.decode("utf-8", "replace"))
        self.missing -= 1
        return self.after_locks() if self.missing == 0 else 0

    cdef int part_done(self, Py_ssize_t part) except -1:
        if self.lefts[part] == GONE:
            return 0
        self.lefts[part] = GONE
        self.missing -= 1
        if self.missing:
            return 0
        self.phase = OVER
        # If a share may be lost the others are held to their time: should everything be killed, as one shard was, then none
        # of them says that it is over, and all are left out.
        if self.writers is not None and not self.failed:
            self.unlock()
        if self.session.gone:
            self.ready = True
            return 0
        if self.failed:
            return self.fail_whole(self.outcome())
        return self.assemble()

    cdef object outcome(self):
        """What the client may conclude when shards failed behind the first share."""
        cdef list shards = [], replies = []
        cdef Py_ssize_t part
        for part in range(len(self.links)):
            if self.got[part] is not None:
                shards.append((<Link> self.links[part]).index)
                replies.append(self.failed.get(part))
        return failure_of(self.queue.writes, shards, replies)

    # One shard's replies leave as they come
    cdef int take_next(self, const char* reply, Py_ssize_t n) except -1:
        if self.session.gone:
            return 0
        # What is left is charged for with the whole reply.
        self.uncharged += n
        if self.uncharged > CHARGED_AT_ONCE:
            if not self.charge(self.uncharged):
                return 0
            self.uncharged = 0
        if self.reply is None:
            self.begin_reply()
        if self.swallows == 0:
            if self.queue.locals:
                self.put_locals()
            put_element(self.reply, self.dialect, reply, n)
            self.next += 1
        self.left -= 1
        if self.left:
            return 0
        if self.queue.locals:
            self.put_locals()
        queue, self.queue = self.queue, None
        put_away(queue)
        return self.finish()

    cdef int begin_reply(self) except -1:
        self.reply = Buffer()
        self.mark = begin_array(self.reply, self.dialect, self.queue.count)
        return 0

    cdef int finish(self) except -1:
        self.phase = OVER
        end_reply(self.reply, self.dialect, self.mark)
        return self.deliver()

    cdef int put_locals(self) except -1:
        """What the router answers itself, up to the next command that a shard answers."""
        cdef Queue queue = self.queue
        while self.next < queue.count and queue.commands[self.next].shard == NO_SHARD and (
                not queue.planned or self.next not in queue.planned):
            put_nested(self.reply, self.dialect, self.run_local(self.next))
            self.next += 1
        return 0

    cdef object run_local(self, Py_ssize_t i):
        cdef Command* command = self.queue.commands[i].command
        try:
            return (<object> command.handler)(self.router, self.session, *self.queue.arguments(i))
        except Exception as error:
            value = reply_of(error, command)
            self.router.counters.count_error(value.message)
            return value

    cdef int assemble(self) except -1:
        """The replies of all shards in the client's order."""
        cdef Queue queue = self.queue
        cdef list at = [0] * len(self.links)
        cdef dict parts_of = {(<Link> link).index: part for part, link in enumerate(self.links)}
        cdef const char* reply
        cdef Py_ssize_t n
        self.reply = Buffer()
        if self.alone:
            value = self.merged(0, at, parts_of)
            self.reply = None
            return self.complete(value)
        self.begin_reply()
        while self.next < queue.count:
            if queue.commands[self.next].shard >= 0:
                reply = self.take_from(parts_of[queue.commands[self.next].shard], at, &n)
                put_element(self.reply, self.dialect, reply, n)
                self.next += 1
            elif self.next in queue.planned:
                put_nested(self.reply, self.dialect, self.merged(self.next, at, parts_of))
                self.next += 1
            else:
                self.put_locals()
        return self.finish()

    cdef const char* take_from(self, Py_ssize_t part, list at, Py_ssize_t* n) except NULL:
        cdef Buffer got = <Buffer> self.got[part]
        cdef Py_ssize_t place = at[part]
        cdef uint32_t size
        memcpy(&size, got.data + got.start + place, 4)
        n[0] = size
        at[part] = place + 4 + <Py_ssize_t> size
        return got.data + got.start + place + 4

    cdef object merged(self, Py_ssize_t i, list at, dict parts_of):
        """The one reply to a command that several shards executed, or the error that was known before."""
        cdef const char* reply
        cdef Py_ssize_t n
        cdef list replies = []
        parts = self.queue.planned[i]
        if type(parts) is not list:
            return parts
        for part in parts:
            reply = self.take_from(parts_of[part.shard], at, &n)
            replies.append(decode_span(reply, n))
        row = <object> self.queue.commands[i].command.row
        return merged_reply(row, self.queue.arguments(i) if not self.alone else (), parts, replies)


class Joined:
    """A command that several shards have executed, as merges see it."""

    __slots__ = ("args", "parts", "row")

    def __init__(self, row, args, parts):
        self.row, self.args, self.parts = row, args, parts


cdef object merged_reply(object row, tuple args, list parts, list replies):
    failure = failure_of("write" in row.flags, [part.shard for part in parts], replies)
    if failure is not None:
        return failure
    try:
        return MERGES[row.merge](Joined(row, args, parts), replies)
    except Exception as error:
        return reply_of(error, NULL)


# Bytes ----------------------------------------------------------------------------------------------------
cdef bytes raw_u64(uint64_t number):
    return PyBytes_FromStringAndSize(<char*> &number, 8)


cdef bytes raw_u16(uint16_t number):
    return PyBytes_FromStringAndSize(<char*> &number, 2)


cdef int put_element(Buffer out, int dialect, const char* reply, Py_ssize_t n) except -1:
    """A complete reply of the client's dialect as an element of an array: in the binary protocol without its status, OK as
    the string that it is inside of arrays."""
    cdef uint32_t status
    if dialect != BINARY:
        return out.append(reply, n)
    memcpy(&status, reply + 4, 4)
    if status == 0 and n == 9 and reply[8] == 0:
        return put_nested_bulk(out, BINARY, b"OK", 2)
    return out.append(reply + 8, n - 8)


cdef int put_nested(Buffer out, int dialect, object value) except -1:
    cdef Buffer one = Buffer()
    try:
        put_reply(one, dialect, value)
    except Exception:
        log.exception("a reply cannot be encoded")
        put_error(one, dialect, INTERNAL_ERROR)
    return put_element(out, dialect, one.data + one.start, one.used())


cdef int put_run_header(Buffer out, int dialect, int db, int flags, uint32_t count, Session session, uint64_t deadline,
                        uint64_t transaction) except -1:
    cdef char* at = out.reserve(RUN_HEADER)
    cdef uint32_t user = number_of(session.rights)
    memset(at, 0, RUN_HEADER)
    at[RUN_KIND_AT] = LINK_RUN
    at[RUN_DIALECT_AT] = <char> dialect
    at[RUN_DB_AT] = <char> db
    at[RUN_FLAGS_AT] = <char> flags
    memcpy(at + RUN_COUNT_AT, &count, 4)
    memcpy(at + RUN_SESSION_AT, &session.id, 8)
    memcpy(at + RUN_DEADLINE_AT, &deadline, 8)
    memcpy(at + RUN_TRANSACTION_AT, &transaction, 8)
    memcpy(at + RUN_USER_AT, &user, 4)
    out.end += RUN_HEADER
    return 0


cdef int end_run_header(Buffer out, Py_ssize_t mark) except -1:
    """The run that began at `mark` is complete."""
    cdef uint32_t length = <uint32_t> (out.used() - mark - 4)
    memcpy(out.data + out.start + mark, &length, 4)
    return 0


cdef int end_counted(Buffer out, Py_ssize_t mark, uint32_t count) except -1:
    memcpy(out.data + out.start + mark + RUN_COUNT_AT, &count, 4)
    return end_run_header(out, mark)


cdef int put_words(Buffer out, uint16_t command, uint16_t slot, list arguments) except -1:
    """A frame of the router's own."""
    cdef Py_ssize_t mark = out.used()
    cdef uint32_t size
    cdef bytes argument
    out.put_u32(0)
    out.put_u16(command)
    out.put_u16(slot)
    out.put_u32(<uint32_t> len(arguments))
    for argument in arguments:
        out.put_u32(<uint32_t> PyBytes_GET_SIZE(argument))
        out.append(PyBytes_AS_STRING(argument), PyBytes_GET_SIZE(argument))
    size = <uint32_t> (out.used() - mark - 4)
    memcpy(out.data + out.start + mark, &size, 4)
    return 0


cdef int patch_share(Buffer share, list runs, bint watched, bint releases) except -1:
    """Tells each run how much of the share follows, the last one that the locks end with it."""
    cdef Py_ssize_t mark, i
    cdef uint64_t rest
    cdef uint32_t length
    for i, (mark, _) in enumerate(runs):
        memcpy(&length, share.data + share.start + mark, 4)
        rest = <uint64_t> (share.used() - mark - 4 - <Py_ssize_t> length)
        memcpy(share.data + share.start + mark + RUN_REST_AT, &rest, 8)
        if watched:
            share.data[share.start + mark + RUN_FLAGS_AT] |= FLAG_WATCHED
        if releases and i == len(runs) - 1:
            share.data[share.start + mark + RUN_FLAGS_AT] |= FLAG_RELEASE
    return 0
