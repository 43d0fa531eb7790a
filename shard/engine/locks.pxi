# Slot locks: what keeps others out while a transaction over several shards is under way.
#
#   held       slot ─► Lock (one transaction's hold, until a time)
#   waiting    session ─► Waiter, Waiter …   in the order of arrival; the first one also stands in the queues of its slots
#              slot ─► Waiter, Waiter …
#
# A frame on a held slot is refused nothing: it is parked, answered with a token, and executed when it is the first in the
# queues of all its slots and none of them is held. What the same session sends meanwhile waits behind it, whatever its
# slots, so that a pipeline never overtakes itself. A run that is atomic waits as a whole. A _lock that may wait stands in
# the same queues. Whoever waits for a lock holds those of lower shards only, so that no two wait for one another; whoever
# only tries is refused where somebody waits, so that nobody starves.
#
# A lock ends with the share of its transaction, by _unlock, with its link, or by time. Expiry and eviction go on in held
# slots. In the log a share is one frame that names the other shards which have one, and a record behind it says when the
# lock has ended: until then nothing depends on the share, and a restart after a crash may leave it out. A lock whose link is
# gone stays to its time for that, once its share is in the log: its router may be the first of all to be killed. What several
# steps have changed is several frames, none of which counts before _commit has said on every shard that the last one is done.
#
# A command with too much to do for one tick does it here, in slices, and is executed behind them (`work_first`): its key's slot
# is held by the shard itself meanwhile, so that nobody sees what is between.
#
# Who writes waits here, too, while the log is slow (`parking`). While nobody holds or waits for anything, all of this costs a
# run one load and one branch (`busy`). It is this long since Cython wants the methods of a class in one file.

cdef enum:
    MOST_LOCKS = 16384          # of one link
    ROOM_BESIDE = 32            # bytes of a reply beside each value, at most
    MOST_DONE = 4096            # transactions that are remembered when they are over

cdef bytes LOCKED_TOO_LONG = b"TRYAGAIN a transaction kept the key for too long; nothing was executed"
cdef bytes LOGGED_TOO_SLOWLY = b"TRYAGAIN the log could not be written for too long; nothing was executed"
cdef bytes READ_TOO_SLOWLY = b"TRYAGAIN too many large replies wait on this shard; nothing was executed"
cdef bytes PARKED_TOO_MANY = b"TRYAGAIN too many commands wait for transactions on this shard; nothing was executed"
cdef bytes SHARE_TOO_LATE = b"TRYAGAIN the transaction took too long; its share on this shard was not executed"

# How long work before a command rests while nothing can be logged, in seconds.
cdef double WORK_RESTS = 0.02

# What a frame without a deadline is counted with.
cdef int64_t NO_DEADLINE = INT64_MAX


@cython.final
cdef class Lock:
    """One transaction's hold on slots of this shard, and what it has under construction here."""

    def __cinit__(self):
        self.buildings = {}


@cython.final
cdef class Waiter:
    """A frame, an atomic run or a _lock that waits for its slots."""


@cython.final
cdef class Locks:
    """The locks of one shard, and who waits for them."""

    def __cinit__(self):
        self.holders = NULL

    def __init__(self, Executor shard not None):
        self.shard = shard
        self.by_number = {}
        self.queues = {}
        self.sessions = {}
        self.arrivals = {}
        self.waiting_locks = {}
        self.worked = {}
        self.sharers = {}
        self.barriers = deque()
        self.runnable = deque()
        self.overdue = SortedDict()
        self.scratch = Buffer()
        self.most_parked, self.most_bytes = 10000, 64 << 20
        self.done = deque(maxlen=MOST_DONE)

    def __dealloc__(self):
        free(self.holders)

    def __len__(self):
        return len(self.by_number)

    @property
    def waiting(self):
        """How many frames, runs and locks wait."""
        return len(self.arrivals)

    def configure(self, Py_ssize_t most_parked, int64_t most_bytes):
        """How many commands may wait, and how many bytes of them."""
        self.most_parked, self.most_bytes = most_parked, most_bytes

    cdef int note_busy(self) except -1:
        self.busy = len(self.by_number) > 0 or len(self.arrivals) > 0
        if self.busy and self.host is not None:
            self.host.watch_locks()
        return 0

    # Holding --------------------------------------------------------------------------------------------
    def of(self, uint64_t number):
        """The lock of a transaction; CommandError when it has ended."""
        lock = self.by_number.get(number)
        if lock is None:
            raise CommandError(SHARE_TOO_LATE.decode())
        return lock

    @property
    def open_shares(self):
        """The transactions that have, or will have, a share in the log, and hold their locks."""
        return frozenset([number for number, lock in self.by_number.items() if (<Lock> lock).shards is not None])

    @property
    def last_share_ms(self):
        """When the last transaction with a share in the log was over, unix ms; 0 before the first."""
        return self.done[len(self.done) - 1][0] if self.done else 0

    def shares_before(self):
        """What a log that begins now says of those before it, which a base will hide; see Effects.tell_shares."""
        locks = [lock for lock in self.by_number.values() if (<Lock> lock).shards is not None]
        since = self.done[0][0] if len(self.done) == MOST_DONE else self.logged_since
        there = [number for _, number in self.done] + [(<Lock> lock).number for lock in locks if (<Lock> lock).complete]
        return since, there, [(<Lock> lock).number for lock in locks if not (<Lock> lock).complete]

    def commit(self, uint64_t number, bytes shards not None):
        """The last step of a transaction is done on all of `shards` (u16 …): its frames count from here on."""
        cdef Lock lock = <Lock> self.of(number)
        if self.host is not None and self.host.begin_share():
            lock.framed = lock.complete = True
            self.host.put_share(number, shards)

    cdef int take(self, Context context, uint64_t number, int64_t until, int mode, const char* slots, Py_ssize_t n,
                  bytes shards) except -1:
        """LOCK_GRANTED, or why not: LOCK_BUSY, LOCK_LOG_IS_SLOW, LOCK_DIRTY, LOCK_LOST; CommandError without memory or while
        loading."""
        cdef Lock lock = <Lock> self.by_number.get(number)
        if mode & LOCK_EXTENDS:
            if lock is None:
                return LOCK_LOST
            lock.until = until
            return self.let_read(lock, mode)
        if lock is not None or until <= self.shard.clock_ms:
            return LOCK_LOST
        if context.link is not None and (<Link> context.link).locks >= MOST_LOCKS:
            raise CommandError(PARKED_TOO_MANY.decode())
        if mode & LOCK_STEPS:
            shards = b""
        if self.parking and shards is not None:
            return LOCK_LOG_IS_SLOW
        if not self.are_free(context, mode, slots, n):
            return LOCK_BUSY
        return self.grant(context, number, until, mode, slots, n, shards)

    cdef bint are_free(self, Context context, int mode, const char* slots, Py_ssize_t n) except -1:
        """Whether nobody holds any of the slots, nor waits for them or for this session."""
        cdef Py_ssize_t i
        cdef uint16_t slot
        if not self.busy:
            return True
        if self.whole is not None or self.barriers or (context.link, context.session) in self.sessions:
            return False
        if n == 0:
            return not self.by_number and not self.arrivals
        for i in range(n):
            memcpy(&slot, slots + 2 * i, 2)
            if slot == NO_SLOT:
                continue
            if slot >= SLOT_COUNT:
                raise CommandError("ERR there is no such slot")
            if self.queues and slot in self.queues:
                return False
            if self.holders != NULL and self.holders[slot] != NULL and not (
                mode & LOCK_SHARES and (<Lock> self.holders[slot]).shares
            ):
                return False
        return True

    cdef int grant(self, Context context, uint64_t number, int64_t until, int mode, const char* slots, Py_ssize_t n,
                   bytes shards) except -1:
        """The slots are free: what else may keep the transaction from being executed is asked now, once."""
        cdef Py_ssize_t i
        cdef uint16_t slot
        cdef Lock lock
        if self.shard.loading:
            raise CommandError(LOADING_TEXT.decode())
        if mode & LOCK_CHECKS and not self.shard.watches.is_clean(context.link, context.session):
            return LOCK_DIRTY
        if mode & LOCK_NEEDS_ROOM:
            self.shard.require_room()
        if shards is not None and self.shard.refusing:
            raise CommandError(self.shard.refusing_text.decode("utf-8", "replace"))
        self.make_holders()
        lock = Lock()
        lock.number = number
        lock.until = until
        lock.link = context.link
        lock.room = mode & LOCK_NEEDS_ROOM
        lock.lets_read = mode & (LOCK_LETS_READ | LOCK_SHARES)
        lock.shares = mode & LOCK_SHARES
        lock.shards = shards
        lock.steps = mode & LOCK_STEPS
        lock.slots = Buffer()
        lock.slots.append(slots, 2 * n)
        if n == 0:
            self.whole = lock
        for i in range(n):
            memcpy(&slot, slots + 2 * i, 2)
            if slot < SLOT_COUNT:
                self.hold(slot, lock)
        self.by_number[number] = lock
        if lock.link is not None:
            (<Link> lock.link).locks += 1
        self.note_busy()
        return LOCK_GRANTED

    cdef int make_holders(self) except -1:
        if self.holders == NULL:
            self.holders = <PyObject**> calloc(SLOT_COUNT, sizeof(PyObject*))
            if self.holders == NULL:
                raise MemoryError("no memory for locks")
        return 0

    cdef int hold(self, uint16_t slot, Lock lock) except -1:
        if lock.shares:
            self.sharers.setdefault(slot, []).append(lock)
        if self.holders[slot] == NULL:
            self.holders[slot] = <PyObject*> lock
        return 0

    cdef int let_go(self, uint16_t slot, Lock lock) except -1:
        if not lock.shares:
            self.holders[slot] = NULL
            return 0
        sharers = self.sharers[slot]
        sharers.remove(lock)
        self.holders[slot] = <PyObject*> sharers[0] if sharers else NULL
        if not sharers:
            del self.sharers[slot]
        return 0

    cdef int let_read(self, Lock lock, int mode) except -1:
        """Whether readers pass from here on; nobody who has begun is in the middle of something."""
        lock.lets_read = lock.shares or mode & LOCK_LETS_READ
        if lock.lets_read:
            self.consider_slots(lock.slots)
        return LOCK_GRANTED

    cdef bint release(self, uint64_t number) except -1:
        """The transaction is over here; False when it was already."""
        cdef Lock lock = <Lock> self.by_number.pop(number, None)
        cdef Py_ssize_t i
        cdef uint16_t slot
        if lock is None:
            waiter = self.waiting_locks.get(number)
            if waiter is not None:
                # Whoever asked does not wait any longer.
                self.drop(<Waiter> waiter)
            return False
        for i in range(lock.slots.used() // 2):
            memcpy(&slot, lock.slots.data + lock.slots.start + 2 * i, 2)
            if slot < SLOT_COUNT:
                self.let_go(slot, lock)
        if lock.framed:
            self.shard.store.effects.settle(number)
        if lock.complete or lock.framed:
            self.done.append((self.shard.store.now_ms, number))
        if lock.link is not None:
            (<Link> lock.link).locks -= 1
        for building in lock.buildings.values():
            building.drop()
        lock.buildings.clear()
        if self.shard.blocking is not None:
            self.shard.blocking.unlocked()
        if self.whole is lock:
            self.whole = None
            self.consider_all()
        elif self.arrivals:
            self.consider_slots(lock.slots)
            self.consider_oldest()
        self.note_busy()
        return True

    def keeps(self, bytes key not None):
        """Whether a transaction holds the slot of a key."""
        cdef uint16_t slot = slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return self.whole is not None or (self.holders != NULL and self.holders[slot] != NULL)

    # Who must wait --------------------------------------------------------------------------------------
    cdef bint is_held(self, uint16_t slot, bint reads) except -1:
        cdef PyObject* holder = self.holders[slot] if self.holders != NULL else NULL
        if holder != NULL:
            return not (reads and (<Lock> holder).lets_read)
        if reads and self.parking:
            return False    # nobody holds it: who stands in its queue waits for the log, and reads go on meanwhile
        return len(self.queues) > 0 and slot in self.queues

    cdef bint holds_back(self, Context context, Command* command, int number, uint16_t slot, Span* args, Py_ssize_t n) except -1:
        """Whether a frame, or a whole atomic run whose slots were gathered before, must wait; its slots are in `scratch`."""
        cdef Py_ssize_t i
        self.scratch.clear()
        self.gather(command, number, slot, args, n)
        if self.sessions and (context.link, context.session) in self.sessions:
            return not command.internal or self.scratch.used() > 0
        return (self.parking and command.writes) or self.any_held(command.readonly, command.internal)

    cdef bint any_held(self, bint reads, bint internal) except -1:
        """Whether one of the slots in `scratch` is held, or awaited by somebody."""
        cdef uint16_t slot
        cdef Py_ssize_t i
        if self.scratch.used() == 0:
            return self.whole is not None and not internal
        if self.whole is not None or (self.barriers and not (reads and self.parking)):
            return True
        for i in range(self.scratch.used() // 2):
            memcpy(&slot, self.scratch.data + self.scratch.start + 2 * i, 2)
            if self.is_held(slot, reads):
                return True
        return False

    cdef int gather(self, Command* command, int number, uint16_t slot, Span* args, Py_ssize_t n) except -1:
        """Adds the slots of a frame's keys to `scratch`."""
        cdef Py_ssize_t at, last
        if command.movable:
            for key in keys_of(self.shard.rows[number], arguments_of(args, n)):
                self.scratch.put_u16(slot_of(PyBytes_AS_STRING(<bytes> key), PyBytes_GET_SIZE(<bytes> key)))
            return 0
        if command.step == 0:
            return self.scratch.put_u16(slot) if slot != NO_SLOT else 0
        last = min(command.last if command.last >= 0 else n + command.last, n - 1)
        at = command.first
        while at <= last:
            self.scratch.put_u16(slot_of(args[at].data, args[at].size))
            at += command.step
        return 0

    # Waiting --------------------------------------------------------------------------------------------
    cdef Waiter admit(self, Context context, Py_ssize_t size):
        """A waiter for the slots in `scratch`; None when too much waits already."""
        cdef Waiter waiter
        if not self.has_room(size):
            return None
        waiter = Waiter()
        waiter.link = context.link
        waiter.session = context.session
        waiter.dialect = context.dialect
        waiter.db = context.keys.db
        waiter.flags = context.flags
        waiter.user = context.user_number
        waiter.deadline = context.deadline if context.deadline else NO_DEADLINE
        waiter.size = size
        waiter.frames = []
        waiter.tokens = []
        waiter.slots = self.slots_of_scratch()
        return waiter

    cdef tuple slots_of_scratch(self):
        cdef set found = set()
        cdef uint16_t slot
        cdef Py_ssize_t i
        for i in range(self.scratch.used() // 2):
            memcpy(&slot, self.scratch.data + self.scratch.start + 2 * i, 2)
            if slot < SLOT_COUNT:
                found.add(slot)
        return tuple(found)

    cdef int enqueue(self, Waiter waiter) except -1:
        self.arrived += 1
        waiter.place = self.arrived
        self.arrivals[waiter.place] = waiter
        self.overdue[(waiter.deadline, waiter.place)] = waiter
        self.bytes += waiter.size
        session = self.sessions.setdefault((waiter.link, waiter.session), deque())
        session.append(waiter)
        if len(session) == 1:
            self.line_up(waiter)
        if waiter.everything:
            self.barriers.append(waiter)
        return self.note_busy()

    cdef int line_up(self, Waiter waiter) except -1:
        """It is the first of its session: now it waits for its slots. Before that it would only keep others out of them.

        Its place is that of its arrival, so that the oldest of all never waits for a younger one: else two could wait for
        one another, over a lock of all slots.
        """
        cdef Py_ssize_t at
        cdef Waiter other
        waiter.lined_up = True
        for slot in waiter.slots:
            queue = self.queues.setdefault(slot, deque())
            at = len(queue)
            while at > 0:
                other = <Waiter> queue[at - 1]
                if other.place < waiter.place or other.ready:
                    break
                at -= 1
            queue.insert(at, waiter)
        return 0

    cdef uint64_t park(self, Context context, uint16_t command, int number, uint16_t slot, Span* args, Py_ssize_t n,
                       Py_ssize_t expected=0) except? 0:
        """Keeps a frame whose slots are in `scratch`; the token of its reply, 0 when too much waits. One whose reply is
        `expected` to be large waits until it is let, and for no slot before: it keeps nobody out."""
        cdef tuple arguments = arguments_of(args, n)
        cdef Waiter waiter = self.admit(context, sum([len(argument) for argument in arguments]))
        if waiter is None:
            return 0
        waiter.reads = self.shard.commands[number].readonly
        waiter.writes = self.shard.commands[number].writes
        waiter.frames.append((command, slot, arguments))
        waiter.tokens.append(self.shard.promise(context, self.shard.commands[number].blocking))
        if expected:
            waiter.bulk = True
            waiter.expected = expected
            waiter.slots_then, waiter.slots = waiter.slots, ()
        self.enqueue(waiter)
        return waiter.tokens[0]

    cdef int wait_again(self, Waiter waiter, Py_ssize_t expected) except -1:
        """It is the turn of this one, and it proves to be large: it waits among others of its kind, still the first of its session,
        and keeps nobody out."""
        cdef list behind = []
        for slot in waiter.slots:
            self.leave_queue(self.queues, slot, waiter, behind)
        waiter.ready = False
        waiter.bulk = True
        waiter.expected = expected
        waiter.slots_then, waiter.slots = waiter.slots, ()
        for other in behind:
            self.consider(<Waiter> other)
        return self.consider_oldest()

    cdef int begun(self, Waiter waiter) except -1:
        """It does not wait any longer, but is worked on."""
        self.overdue.pop((waiter.deadline, waiter.place), None)
        waiter.deadline = NO_DEADLINE
        self.overdue[(waiter.deadline, waiter.place)] = waiter
        return 0

    cdef int let(self, Waiter waiter) except -1:
        """It is the turn of a large reply, as far as others of its kind are concerned."""
        waiter.bulk = False
        waiter.slots = waiter.slots_then
        if waiter.lined_up:
            self.line_up(waiter)
        return self.consider(waiter)

    def wait_for_lock(self, Context context not None, uint64_t number, int64_t until, int mode, bytes slots not None,
                      bytes shards=None):
        """A _lock that waits for its turn; what its handler returns."""
        cdef Waiter waiter
        self.scratch.clear()
        self.scratch.append(PyBytes_AS_STRING(slots), PyBytes_GET_SIZE(slots))
        waiter = self.admit(context, len(slots))
        if waiter is None:
            raise CommandError(PARKED_TOO_MANY.decode())
        waiter.number = number
        waiter.until = until
        waiter.mode = mode
        waiter.lock_slots = slots
        waiter.lock_shards = b"" if mode & LOCK_STEPS else shards
        waiter.writes = waiter.lock_shards is not None
        waiter.everything = len(slots) == 0
        self.waiting_locks[number] = waiter
        deferred = context.defer()
        waiter.tokens.append(deferred.token)
        self.enqueue(waiter)
        self.consider(waiter)
        return deferred

    def work_first(self, Context context not None, str command not None, tuple arguments not None, bytes key not None,
                   work not None):
        """The command of `context`, all of whose keys are `key`, is executed when `work.step()`, which is called once a tick,
        has returned False; nobody else sees the key by then. What its handler returns; None where it cannot wait for that."""
        cdef uint16_t slot = slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        cdef Waiter waiter
        cdef Lock lock
        # One that was parked is executed now: what its session has sent behind it is next.
        if self.host is None or not context.may_wait or context.token or self.whole is not None or self.barriers:
            return None
        self.make_holders()
        self.scratch.clear()
        self.scratch.put_u16(slot)
        waiter = None if self.holders[slot] != NULL else self.admit(context, sum([len(argument) for argument in arguments]))
        if waiter is None:
            return None
        # Part of it will have been done by its deadline: its router says that nobody knows, and this goes on.
        waiter.deadline = NO_DEADLINE
        waiter.writes = True
        waiter.frames.append((self.shard.numbers[command], slot, arguments))
        waiter.tokens.append(self.shard.promise(context, False))
        self.enqueue(waiter)
        self.works += 1
        lock = Lock()
        lock.number = UINT64_MAX - self.works
        lock.until = NO_DEADLINE
        lock.slots = Buffer()
        lock.slots.put_u16(slot)
        self.hold(slot, lock)
        self.by_number[lock.number] = lock
        self.note_busy()
        self.host.reactor.loop.call_soon(self._work_on, lock.number, waiter.tokens[0], work)
        self.host.reactor.yield_to_loop()
        return Deferred(waiter.tokens[0])

    def work_done(self, Context context not None):
        """What was done before the command of `context`, once; None if nothing was."""
        return self.worked.pop(context.token, None) if self.worked else None

    def _work_on(self, number, token, work):
        """A slice of such work; behind the last one the command is executed."""
        cdef bint more = False
        if self.host.trouble >= TROUBLE_STALLED:
            # What cannot be logged is not done.
            self.host.reactor.loop.call_later(WORK_RESTS, self._work_on, number, token, work)
            return
        try:
            more = self.host.perform(work.step)
        except Exception:
            log.exception("what was to be done before a command failed")
        if more:
            self.host.reactor.loop.call_soon(self._work_on, number, token, work)
            return
        self.worked[token] = work
        self.release(number)
        if self.runnable:
            self.host.serve_soon()

    # Whose turn it is -----------------------------------------------------------------------------------
    cdef bint may_go(self, Waiter waiter) except -1:
        cdef PyObject* holder
        if waiter.bulk or self.whole is not None or self.sessions[(waiter.link, waiter.session)][0] is not waiter:
            return False
        if waiter.writes and self.parking:
            return False
        if waiter.everything:
            return not self.by_number and next(iter(self.arrivals.values())) is waiter
        if self.barriers and (<Waiter> self.barriers[0]).place < waiter.place:
            return False
        for slot in waiter.slots:
            holder = self.holders[<int> slot] if self.holders != NULL else NULL
            if self.queues[slot][0] is not waiter or (holder != NULL and self.keeps_out(holder, waiter)):
                return False
        return True

    cdef bint keeps_out(self, PyObject* holder, Waiter waiter) noexcept:
        if waiter.mode & LOCK_SHARES:
            return not (<Lock> holder).shares
        return not (waiter.reads and (<Lock> holder).lets_read)

    cdef int consider(self, Waiter waiter) except -1:
        if not waiter.ready and self.may_go(waiter):
            waiter.ready = True
            self.runnable.append(waiter)
        return 0

    cdef int consider_slots(self, Buffer slots) except -1:
        cdef uint16_t slot
        cdef Py_ssize_t i
        for i in range(slots.used() // 2):
            memcpy(&slot, slots.data + slots.start + 2 * i, 2)
            queue = self.queues.get(slot)
            if queue:
                self.consider(<Waiter> queue[0])
        return 0

    cdef int consider_oldest(self) except -1:
        if self.barriers:
            self.consider(<Waiter> self.barriers[0])
        return 0

    cdef int consider_all(self) except -1:
        for waiter in list(self.arrivals.values()):
            self.consider(<Waiter> waiter)
        return 0

    cdef int leave(self, Waiter waiter) except -1:
        """The waiter has had its turn, or has waited too long; others move up."""
        cdef tuple session = (waiter.link, waiter.session)
        cdef list behind = []
        del self.arrivals[waiter.place]
        self.waiting_locks.pop(waiter.number, None)
        self.overdue.pop((waiter.deadline, waiter.place), None)
        self.bytes -= waiter.size
        waiter.gone = True
        if waiter.assembly is not None:
            self.host.bulk.forget(waiter)
        if waiter.lined_up:
            for slot in waiter.slots:
                self.leave_queue(self.queues, slot, waiter, behind)
        self.leave_queue(self.sessions, session, waiter, behind)
        if session in self.sessions and not (<Waiter> self.sessions[session][0]).lined_up:
            self.line_up(<Waiter> self.sessions[session][0])
        if waiter.everything:
            self.barriers.remove(waiter)
            self.consider_all()
        else:
            for other in behind:
                self.consider(<Waiter> other)
            self.consider_oldest()
        return self.note_busy()

    cdef int leave_queue(self, dict queues, object name, Waiter waiter, list behind) except -1:
        queue = queues[name]
        if queue[0] is waiter:
            queue.popleft()
        else:
            queue.remove(waiter)
        if queue:
            behind.append(queue[0])
        else:
            del queues[name]
        return 0

    def next_runnable(self):
        """The next one whose turn has come; None when there is none."""
        cdef Waiter waiter
        while self.runnable:
            waiter = <Waiter> self.runnable.popleft()
            if not waiter.gone:
                return waiter
        return None

    cdef int serve(self, Waiter waiter, Context context) except -1:
        """It is the turn of this one; `context` is nobody else's."""
        context.link = waiter.link
        context.session = waiter.session
        context.dialect = waiter.dialect
        context.keys.db = waiter.db
        context.flags = waiter.flags
        context.user_number = waiter.user
        context.transaction = 0
        self.serving = waiter
        try:
            if waiter.number:
                self.serve_lock(waiter, context)
            else:
                self.serve_frames(waiter, context)
        finally:
            self.serving = None
            context.link = None
            context.token = 0
            if not waiter.bulk:
                self.leave(waiter)
        return 0

    cdef int serve_lock(self, Waiter waiter, Context context) except -1:
        cdef Buffer out = Buffer()
        if not (<Link> waiter.link).is_open():
            return 0
        try:
            if waiter.until <= self.shard.clock_ms:
                granted = LOCK_LOST
            else:
                granted = self.grant(context, waiter.number, waiter.until, waiter.mode, PyBytes_AS_STRING(waiter.lock_slots),
                                     PyBytes_GET_SIZE(waiter.lock_slots) // 2, waiter.lock_shards)
            put_int(out, context.dialect, granted)
        except Exception as error:
            put_error(out, context.dialect, self.shard.error_text(error, self.shard.numbers["_lock"]))
        return self.shard.fulfil(waiter.tokens[0], out, DEFERRED_REPLY_FORM)

    cdef int serve_frames(self, Waiter waiter, Context context) except -1:
        cdef Buffer out
        cdef Words words
        cdef bytes refused = None
        cdef int needs = 0
        cdef int64_t began
        if waiter.flags & FLAG_ATOMIC:
            for command, _, _ in waiter.frames:
                needs = self.shard.look_at(command, needs)
            refused = self.shard.refusal_of_unit(context, needs)
            context.flags |= ROOM_ASKED
        self.shard.store.no_touch = waiter.seen or context.flags & FLAG_NO_TOUCH
        for (command, slot, arguments), token in zip(waiter.frames, waiter.tokens):
            out = Buffer()
            if refused is not None:
                out.append(PyBytes_AS_STRING(refused), PyBytes_GET_SIZE(refused))
                self.shard.fulfil(token, out, DEFERRED_ABORTED_FORM)
                continue
            if self.shard.commands[<int> command & ~IN_CAPITALS].blocking and token not in self.shard.deferred:
                # Who would have waited is gone: what it took would be lost.
                continue
            words = Words(list(arguments))
            context.capitals = <int> command & IN_CAPITALS
            context.token = token
            began = monotonic_ns()
            if waiter.expected:
                out.reserve(waiter.expected + ROOM_BESIDE * (words.count + 1))
            elif self.proves_large(waiter, context, &self.shard.commands[<int> command & ~IN_CAPITALS], words):
                return 0
            if self.execute(waiter, context, <int> command & ~IN_CAPITALS, slot, words, out) == DONE:
                self.answer(waiter, token, command, out, monotonic_ns() - began + waiter.took)
            if self.worked:
                self.worked.pop(token, None)    # a handler that was not reached has not asked for it
        return 0

    cdef bint proves_large(self, Waiter waiter, Context context, Command* command, Words words) except -1:
        """Whether a reply that nobody had looked at goes on waiting, among large ones, as one that comes now would."""
        cdef Py_ssize_t expected
        if self.host is None or not self.host.pacing or waiter.flags & FLAG_ATOMIC or type(waiter.link) is not Link:
            return False
        expected = self.host.bulk.expected(context, command, words.spans, words.count)
        if expected <= LARGE:
            return False
        self.host.bulk.park_again(waiter, expected, None)
        return True

    cdef int execute(self, Waiter waiter, Context context, int number, int slot, Words words, Buffer out) except -1:
        """One frame. Its slices are part of its time; what was used when it was parked is not used once more."""
        cdef Store store = self.shard.store
        cdef uint64_t hits = store.hits, misses = store.misses
        cdef object missed = store.missed
        cdef int outcome
        self.shard.charged = waiter.took
        store.heavy = store.heavy or waiter.took > 0
        if not waiter.seen:
            outcome = self.shard.execute_command(context, number, slot, words.spans, words.count, out)
            self.shard.charged = 0
            return outcome
        store.missed = None
        try:
            outcome = self.shard.execute_command(context, number, slot, words.spans, words.count, out)
        finally:
            store.missed = missed
            store.no_touch = (waiter.flags & FLAG_NO_TOUCH) != 0
            store.hits, store.misses = hits, misses
            self.shard.charged = 0
        return outcome

    cdef int answer(self, Waiter waiter, object token, int command, Buffer out, int64_t took) except -1:
        """The reply to one of its frames: in pieces, if it is large and stands by itself."""
        if (out.used() <= LARGE or waiter.dialect == INTERNAL or waiter.flags & FLAG_ATOMIC
                or self.shard.commands[command & ~IN_CAPITALS].blocking or type(waiter.link) is not Link):
            return self.shard.fulfil(token, out, DEFERRED_REPLY_FORM)
        if self.shard.take_deferred(token) is not None:
            (<Link> waiter.link).send_timed(token, waiter.session, out, took)
        return 0

    # By time, and with the link -------------------------------------------------------------------------
    def sweep(self, int64_t now_ms):
        """Ends what is past its time: locks whose link has nothing more to say about them, and waiters, unexecuted."""
        cdef Lock lock
        cdef Waiter waiter
        for lock in list(self.by_number.values()):
            if lock.until <= now_ms:
                if (lock.link is None or (<Link> lock.link).catch_up()) and lock.until <= now_ms:
                    self.release(lock.number)
        while self.overdue and self.overdue.peekitem(0)[0][0] <= now_ms:
            self.drop(<Waiter> self.overdue.peekitem(0)[1])
        return self.busy

    cdef bint has_room(self, Py_ssize_t size) noexcept:
        """Whether a command of so many bytes may wait."""
        return len(self.arrivals) < self.most_parked and self.bytes + size <= self.most_bytes

    cdef int park_writes(self, bint parking) except -1:
        """Whether who writes waits for the log from here on."""
        self.parking = parking
        if not parking and self.arrivals:
            self.consider_all()
        return 0

    cdef int drop(self, Waiter waiter) except -1:
        cdef Buffer out
        cdef bytes text = LOGGED_TOO_SLOWLY if self.parking and waiter.writes else READ_TOO_SLOWLY if waiter.bulk else LOCKED_TOO_LONG
        for token in waiter.tokens:
            out = Buffer()
            if waiter.number:
                # Who holds the slots is waiting for the log, too.
                put_int(out, waiter.dialect, LOCK_LOG_IS_SLOW if self.parking else LOCK_BUSY)
            else:
                put_error(out, waiter.dialect, text)
            self.shard.fulfil(token, out, DEFERRED_REPLY_FORM)
        return self.leave(waiter)

    cdef bint keeps_frames_of(self, object link) except -1:
        """Whether frames of this link are parked here, and not answered. One that may wait for ever when it is executed is among
        them: until then it is not given back when the shard leaves."""
        cdef Waiter waiter
        for waiter in self.arrivals.values():
            if waiter.link is link:
                for token in waiter.tokens:
                    if token in self.shard.deferred:
                        return True
        return False

    cdef int give_up(self, object link) except -1:
        """Nothing more comes on this link, as when the shard leaves: nobody could unlock what its transactions have locked here, and
        whoever waits for it would wait until they are too old. What has a part in the log stays."""
        cdef Lock lock
        for lock in list(self.by_number.values()):
            if lock.link is link and not lock.begun and not lock.framed:
                self.release(lock.number)
        return 0

    cdef int forget_link(self, object link) except -1:
        """The link is closed: its locks end. What it had sent is executed all the same when its turn comes."""
        cdef Lock lock
        for lock in list(self.by_number.values()):
            if lock.link is link and lock.framed:
                lock.link = None
            elif lock.link is link:
                self.release(lock.number)
        return 0

    def check(self):
        """Asserts that queues, holders and counts agree."""
        cdef Waiter waiter
        cdef Lock lock
        cdef uint16_t slot
        cdef Py_ssize_t i, held = 0
        for place, waiter in self.arrivals.items():
            assert waiter.place == place and not waiter.gone
            assert waiter in self.sessions[(waiter.link, waiter.session)]
            assert waiter.lined_up == (self.sessions[(waiter.link, waiter.session)][0] is waiter)
            assert not waiter.lined_up or all(waiter in self.queues[each] for each in waiter.slots)
            assert self.overdue[(waiter.deadline, place)] is waiter
            assert waiter.ready or not self.may_go(waiter)
        assert len(self.overdue) == len(self.arrivals) == sum([len(queue) for queue in self.sessions.values()])
        assert sum([len(queue) for queue in self.queues.values()]) == sum(
            [len((<Waiter> one).slots) for one in self.arrivals.values() if (<Waiter> one).lined_up])
        for number, lock in self.by_number.items():
            assert lock.number == number
            for i in range(lock.slots.used() // 2):
                memcpy(&slot, lock.slots.data + lock.slots.start + 2 * i, 2)
                assert slot == NO_SLOT or self.holders[slot] == <PyObject*> lock or lock in self.sharers[slot]
        if self.holders != NULL:
            for i in range(SLOT_COUNT):
                held += self.holders[i] != NULL
                assert self.holders[i] == NULL or self.by_number[(<Lock> self.holders[i]).number] is <object> self.holders[i]
        assert self.busy == (len(self.by_number) > 0 or len(self.arrivals) > 0)
        assert self.bytes == sum([(<Waiter> one).size for one in self.arrivals.values()])


# The internal commands ------------------------------------------------------------------------------------
cdef int run_lock(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    """_lock transaction until mode slots [shards], all of them raw; without slots: every one. See kache/wire/link.pxd."""
    cdef uint64_t number
    cdef int64_t until
    cdef int mode, granted
    if args[0].size != 8 or args[1].size != 8 or args[2].size != 1 or args[3].size % 2 or (
            n > 5 or (n == 5 and (args[4].size == 0 or args[4].size % 2))):
        raise CommandError("ERR a lock that is none")
    memcpy(&number, args[0].data, 8)
    memcpy(&until, args[1].data, 8)
    mode = <unsigned char> args[2].data[0]
    granted = context.shard.locks.take(
        context, number, until, mode, args[3].data, args[3].size // 2,
        PyBytes_FromStringAndSize(args[4].data, args[4].size) if n == 5 else None)
    if (granted == LOCK_BUSY or granted == LOCK_LOG_IS_SLOW) and mode & LOCK_WAITS:
        return DECLINE
    put_int(out, context.dialect, granted)
    return DONE


cdef int run_unlock(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    """_unlock transaction: 1 if it held anything."""
    cdef uint64_t number
    if args[0].size != 8:
        raise CommandError("ERR a lock that is none")
    memcpy(&number, args[0].data, 8)
    put_int(out, context.dialect, context.shard.locks.release(number))
    return DONE
