# Bulk: replies so large that they wait here for their clients are made one after the other while many of them do.
#
#   GET, MGET … ─► would it be large? ─► parked ─► session ─► Waiter, Waiter …     sessions take turns
#                                                  one at a time ─► a rest, in which others are served ─► the next one
#
# A client says by reading that it takes what it has asked for, and nobody knows before: ten that ask for 50 MiB each and read
# nothing would have it all made at once, of several shards, whose cores and links others wait for. So behind the first ones of a
# tick (LARGE_PER_TICK) whatever would be large is parked, and made in turn, with a look at what others want between any two. As
# long as more than UNREAD_AT_ONCE is unread here there are rests between, too: a slice of the shard's time. Of one router no more
# is made than there is room for (`flow_room`): while its clients take nothing the oldest reply moves on to it, a piece a turn, so
# that nobody waits for those who do not read.
#
# What is not large, but takes longer than a slice, has turns of its own (`Host.quick`), between which nobody rests: it does not
# wait behind what clients do not read. What has waited for something else, its own session or a transaction, is looked at once
# more when it is its turn, and takes its turn here then, still the first of its session.
#
# An MGET of much is made in slices itself, and what shows much of one collection (passages.pxi), while their keys are watched: if
# one of them has changed by the end, it is made in one piece after all, so that it always shows what its keys hold at one time.
#
# How large a reply would be is seen by the values that it would be made of. Commands that show parts of a value find out as
# they are executed, and are parked by themselves; what scripts and transactions do is executed as it comes.

cdef enum:
    LARGE_PER_TICK = 2 << 20    # bytes of large replies that are made as they are asked for
    UNREAD_AT_ONCE = 8 << 20    # bytes of large replies that wait for their clients before the next ones come with rests
    TURNS_LOOKED_AT = 64        # sessions whose first reply may find no room, before it is looked no further

# A reply is made in slices from so many bytes on.
cdef Py_ssize_t IN_SLICES = 2 << 20

# While somebody waits for room: between two pieces of what was there before, which nobody has asked for, in seconds.
cdef double MOVES_EVERY = 0.004

# Of so many keys that change while they are shown it is remembered.
cdef int MOST_RESTLESS = 1024

# How often a reply that has to wait for something else before it is begun, or served, is looked at once more.
cdef int MOST_LOOKS = 3

# After each one: so many times what it took, within these bounds, in seconds.
cdef double BULK_RESTS = 3.0
cdef double BULK_LEAST_REST = 0.001
cdef double BULK_MOST_REST = 0.02

cdef class Assembly:
    """A reply while it is made, in slices. It watches its keys from when it is parked, so that it can be told whether the reply is
    what they hold at one time."""

    cdef int watch(self, Watches watches) except -1:
        return 0

    cdef int begin(self) except -1:
        return 0

    cdef bint go_on(self, int64_t until_ns) except -1:
        """More of it, up to this time; whether there is still more."""
        return False

    cdef bint is_current(self, Watches watches) except -1:
        """Whether nothing has changed since it is watched."""
        return watches.is_clean(self.waiter, 0)


@cython.final
cdef class Values(Assembly):
    """That of one MGET, value after value."""

    def __init__(self, Waiter waiter not None, Store store not None):
        self.waiter = waiter
        self.store = store
        self.keys = waiter.frames[0][2]

    cdef int watch(self, Watches watches) except -1:
        for key in self.keys:
            watches.add(self.waiter, 0, self.waiter.db, key)
        return 0

    cdef int begin(self) except -1:
        self.made = Buffer()
        self.made.reserve(self.waiter.expected + ROOM_BESIDE * (len(self.keys) + 1))
        self.mark = begin_array(self.made, self.waiter.dialect, len(self.keys))
        return 0

    cdef bint go_on(self, int64_t until_ns) except -1:
        cdef Place place
        cdef Entry* entry
        while self.at < len(self.keys):
            self.store.place_of(&place, self.waiter.db, <bytes> self.keys[self.at])
            entry = self.store.find(&place)
            if entry == NULL or entry.flags & TYPE_MASK:
                put_nested_null(self.made, self.waiter.dialect)
            else:
                put_nested_bulk(self.made, self.waiter.dialect, entry_value(entry), entry_value_size(entry))
            self.at += 1
            if self.at < len(self.keys) and monotonic_ns() >= until_ns:
                return True
        end_reply(self.made, self.waiter.dialect, self.mark)
        return False


cdef Assembly assembled(Context context):
    """What was made of the reply of this command beforehand, if that is still right."""
    cdef Assembly assembly = <Assembly> context.shard.locks.worked.pop(context.token, None)
    # In this moment a key may have expired, or been changed by somebody else who had waited.
    if assembly is None or assembly.is_current(context.shard.watches):
        return assembly
    note_restless(context.shard.locks.host, assembly)
    return None


cdef int note_restless(Host host, Assembly assembly) except -1:
    """A reply was given up since its key has changed: for a while none of this key is begun, which would only cost time."""
    cdef int64_t now = monotonic_ns()
    cdef Passage passage
    if type(assembly) is not Passage:
        return 0
    passage = <Passage> assembly
    if len(host.restless) >= MOST_RESTLESS:
        host.restless = {name: until for name, until in host.restless.items() if until > now}
        if len(host.restless) >= MOST_RESTLESS:
            host.restless.clear()
    host.restless[(passage.db, passage.key)] = now + host.restless_ns
    return 0


cdef bint is_restless(Host host, Passage passage) except -1:
    if not host.restless:
        return False
    name = (passage.db, passage.key)
    until = host.restless.get(name)
    if until is None:
        return False
    if until > monotonic_ns():
        return True
    del host.restless[name]
    return False


cdef bint use_assembled(Context context, Span* keys, Py_ssize_t n, Buffer out) except -1:
    """A command by what was assembled for it, if anything was; its keys are used as ever, unless they were when it was parked."""
    cdef Assembly assembly = assembled(context)
    cdef Place place
    cdef Py_ssize_t i
    if assembly is None:
        return False
    for i in range(n):
        context.store.place(&place, context.keys.db, NO_SLOT, keys[i].data, keys[i].size)
        context.store.read(&place)
    take_over(out, assembly.made)
    return True


cdef bint mget_later(Context context, Span* args, Py_ssize_t n) except -1:
    """Whether MGET, which has found that it is large, is parked now, to be made in slices."""
    cdef Host host = context.shard.locks.host
    cdef Py_ssize_t i, expected = 0
    if host is None or not may_park(context):
        return False
    for i in range(n):
        expected += host.bulk.size_of(context, &args[i])
    return expected > IN_SLICES and made_later(context, args, n, expected, None)


cdef inline bint may_park(Context context) noexcept:
    """Whether a command can wait among large replies; one that has waited for something else before can, too, once."""
    return (context.link is not None and not context.depth and not context.transaction
            and not context.flags & FLAG_ATOMIC and context.dialect != INTERNAL
            and (not context.token or may_park_again(context.shard.locks.serving)))


cdef inline bint may_park_again(Waiter waiter) noexcept:
    return waiter is not None and not waiter.expected and not waiter.number and type(waiter.link) is Link


cdef bint made_later(Context context, Span* args, Py_ssize_t n, Py_ssize_t expected, Assembly assembly) except -1:
    """Whether the command of this context is parked now until it is its turn among large replies, to be made in slices by
    `assembly`; `pending_token` is its token then. Where there is no place to wait it is to be made at once."""
    cdef Executor shard = context.shard
    cdef Host host = shard.locks.host
    cdef Waiter waiter
    cdef Bulk bulk
    if host is None or not may_park(context):
        return False
    if assembly is not None and is_restless(host, <Passage> assembly):
        if not host.pacing or expected <= LARGE:
            return False
        assembly = None
    bulk = host.bulk if expected > LARGE else host.quick
    waiter = shard.locks.serving
    if context.token:
        bulk.park_again(waiter, max(expected, 1), assembly)
        shard.pending_token = context.token
    else:
        shard.pending_token = bulk.park(
            context, context.number | (IN_CAPITALS if context.capitals else 0), context.number, NO_SLOT, args, n,
            max(expected, 1), assembly)
        if not shard.pending_token:
            return False
        waiter = <Waiter> shard.locks.arrivals[shard.locks.arrived]
    waiter.seen = True      # whoever parks itself has looked at its keys before
    return True


@cython.final
cdef class Bulk:
    """The large replies of one shard that are still to be made."""

    def __init__(self, Host host not None, bint paced):
        self.host = host
        self.paced = paced
        self.turns = {}

    cdef int note(self) except -1:
        """More large replies are unread, or less; or one was made."""
        cdef Bulk bulk = self.host.bulk
        self.host.pacing = (len(bulk.turns) > 0 or bulk.assembly is not None or self.host.large_left <= 0
                            or self.unread() > UNREAD_AT_ONCE)
        return 0

    cdef Py_ssize_t unread(self) except -1:
        cdef Link link
        cdef Py_ssize_t total = 0
        for link in self.host.links:
            total += link.flows.reply_bytes
        return total

    cdef Py_ssize_t expected(self, Context context, Command* command, Span* args, Py_ssize_t n) except -1:
        """The bytes of the values that a frame would show; 0 if it is not known, or if it need not wait."""
        cdef Py_ssize_t at, last, total = 0
        if not command.shows_all:
            return 0
        last = min(command.last if command.last >= 0 else n + command.last, n - 1)
        at = command.first
        while at <= last:
            total += self.size_of(context, &args[at])
            at += command.step
        return total

    cdef Py_ssize_t size_of(self, Context context, Span* key) except -1:
        """The value as it is, without a trace of having looked: the command itself will use it."""
        cdef Store store = self.host.shard.store
        cdef Place place
        cdef uint64_t* word
        cdef Entry* entry
        store.place(&place, context.keys.db, NO_SLOT, key.data, key.size)
        word = segment_find(segment_of(place.table, place.hash), place.hash, place.key, place.n)
        if word == NULL:
            return 0
        entry = <Entry*> (word[0] & POINTER_MASK)
        if is_due(store, entry):
            return 0
        return <Py_ssize_t> (<object> entry_object(entry)).memory if holds_object(entry) else entry_value_size(entry)

    cdef uint64_t park(self, Context context, uint16_t command, int number, uint16_t slot, Span* args, Py_ssize_t n,
                       Py_ssize_t expected, Assembly assembly=None) except? 0:
        """Keeps a frame until it is its turn; the token of its reply, 0 when too much waits."""
        cdef Locks locks = self.host.shard.locks
        cdef Waiter waiter
        cdef uint64_t token
        locks.scratch.clear()
        locks.gather(&self.host.shard.commands[number], number, slot, args, n)
        token = locks.park(context, command, number, slot, args, n, expected)
        if token:
            waiter = <Waiter> locks.arrivals[locks.arrived]
            self.assign(waiter, assembly)
            self.turns.setdefault((waiter.link, waiter.session), deque()).append(waiter)
            self.soon(0.0)
        return token

    cdef int park_again(self, Waiter waiter, Py_ssize_t expected, Assembly assembly) except -1:
        """The same for a frame that has waited for something else, and is being served: it stays the first of its session."""
        self.host.shard.locks.wait_again(waiter, expected)
        self.assign(waiter, assembly)
        self.turns.setdefault((waiter.link, waiter.session), deque()).appendleft(waiter)
        return self.soon(0.0)

    cdef int assign(self, Waiter waiter, Assembly assembly) except -1:
        """How its reply is made from here on."""
        cdef int number = <int> waiter.frames[0][0] & ~IN_CAPITALS
        if assembly is None and waiter.expected > IN_SLICES and number == self.host.shard.numbers["mget"]:
            assembly = Values(waiter, self.host.shard.store)
        if assembly is not None:
            waiter.assembly = assembly
            assembly.waiter = waiter
            assembly.watch(self.host.shard.watches)
        return 0

    cdef int soon(self, double rest) except -1:
        if not self.scheduled:
            self.scheduled = True
            if rest:
                self.host.reactor.loop.call_later(rest, self._go_on)
            else:
                self.host.reactor.loop.call_soon(self._go_on)
            self.host.reactor.yield_to_loop()
        return 0

    def _go_on(self):
        """A slice of what is being made, or the next one; then a rest."""
        cdef double rest = BULK_LEAST_REST
        try:
            rest = self.take_turn()
            self.note()
        except Exception:
            log.exception("internal error while a large reply was made")
        self.scheduled = False      # only now: what is parked meanwhile comes behind the rest
        if self.turns or self.assembly is not None or self.finished is not None:
            self.soon(rest)

    cdef double take_turn(self) except -1:
        """How long to rest behind it, in seconds."""
        cdef int64_t began = monotonic_ns()
        cdef Waiter waiter
        if self.finished is not None:
            if not self.finished.gone and self.finished.ready:
                return 0.0
            self.finished = None
        if self.assembly is None:
            waiter = self.next_turn()
            if waiter is None:
                return MOVES_EVERY
            self.assembly = waiter.assembly
            if self.assembly is None:
                self.let(waiter, None)
        if self.assembly is not None and not self.goes_on():
            assembly, self.assembly = self.assembly, None
            self.let((<Assembly> assembly).waiter, <Assembly> assembly)
        if not self.paced or self.unread() <= UNREAD_AT_ONCE:
            return 0.0      # those who ask for much take it
        return min(max(BULK_RESTS * 1e-9 * (monotonic_ns() - began), BULK_LEAST_REST), BULK_MOST_REST)

    cdef bint goes_on(self) except -1:
        """A slice of what is being made; whether there is more to do."""
        try:
            return self.host.perform(self._slice)
        except Exception:
            # Its client is told what is wrong when it is executed.
            log.exception("internal error while a large reply was made")
            self.assembly.made = None
            return False

    def _slice(self):
        """Of the reply that is being made: whether there is more to do. One whose keys have changed is not gone on with."""
        cdef Assembly assembly = self.assembly
        cdef Waiter waiter = assembly.waiter
        cdef Executor shard = self.host.shard
        cdef int64_t began = monotonic_ns()
        cdef bint more
        if waiter.gone or waiter.tokens[0] not in shard.deferred:
            return False
        if not assembly.is_current(shard.watches):
            if assembly.made is not None:
                note_restless(self.host, assembly)
            elif waiter.tries < MOST_LOOKS:
                # Nothing is lost yet: it is looked at once more, as the key is now.
                waiter.tries += 1
                waiter.expected = 0
            assembly.made = None
            return False
        if assembly.made is None:
            shard.locks.begun(waiter)
            assembly.begin()
        more = assembly.go_on(began + self.host.slice_ns)
        waiter.took += monotonic_ns() - began
        return more

    cdef int let(self, Waiter waiter, Assembly assembly) except -1:
        """It is executed, by what was assembled if that is still what its keys hold, unless its client is gone."""
        cdef Locks locks = self.host.shard.locks
        token = waiter.tokens[0]
        if token not in self.host.shard.deferred:
            if not waiter.gone:
                locks.leave(waiter)
            return self.forget(waiter)
        if assembly is not None and assembly.made is not None:
            locks.worked[token] = assembly
        else:
            self.forget(waiter)
        try:
            locks.let(waiter)
            self.host._serve_waiters()
        finally:
            if waiter.gone or waiter.bulk:
                pass    # served, or parked once more
            elif waiter.ready:
                self.finished = waiter      # the tick was over before its turn came, which is soon
            else:
                # It waits for a transaction now, and may be kept for long: what was made goes, and it is looked at once more.
                if waiter.tries < MOST_LOOKS:
                    waiter.tries += 1
                    waiter.expected = 0
                self.forget(waiter)
        return 0

    cdef int forget(self, Waiter waiter) except -1:
        """Nothing more is made of it in slices."""
        if waiter.assembly is not None:
            self.host.shard.locks.worked.pop(waiter.tokens[0], None)
            self.host.shard.watches.forget(waiter, 0)
            waiter.assembly.waiter = None
            waiter.assembly = None
        return 0

    cdef Waiter next_turn(self):
        """The first reply that finds room, of a session that has not had its turn for longest; what finds none makes some."""
        cdef Waiter waiter
        cdef set full = set()
        for session in list(self.turns)[:TURNS_LOOKED_AT]:
            waiter = self.first_of(session)
            if waiter is None or not waiter.lined_up:
                continue
            if self.has_room(waiter):
                self.take(session)
                return waiter
            full.add(waiter.link)
        for link in full:
            (<Link> link).move_on()
        return None

    cdef Waiter first_of(self, object session):
        """What a session waits for next. None: nothing any more."""
        cdef Waiter waiter
        queue = self.turns[session]
        while queue:
            waiter = <Waiter> queue[0]
            if not waiter.gone and waiter.tokens[0] in self.host.shard.deferred:
                return waiter
            queue.popleft()
            self.forget(waiter)
            if not waiter.gone:
                self.host.shard.locks.leave(waiter)     # its client is gone
        del self.turns[session]
        return None

    cdef int take(self, object session) except -1:
        """It has had its turn, and is the last one from here on."""
        queue = self.turns.pop(session)
        queue.popleft()
        if queue:
            self.turns[session] = queue
        return 0

    cdef bint has_room(self, Waiter waiter) noexcept:
        cdef Flows flows = (<Link> waiter.link).flows
        return not flows.replies or flows.reply_bytes + waiter.expected <= self.host.flow_room

    @property
    def buffer_bytes(self):
        """Of what is being made, or was and is about to be sent."""
        cdef Assembly assembly = self.assembly
        if assembly is None and self.finished is not None:
            assembly = self.finished.assembly
        return 0 if assembly is None or assembly.made is None else assembly.made.capacity
