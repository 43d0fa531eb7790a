# Bulk: replies so large that they wait here for their clients are made one after the other while many of them do.
#
#   GET, MGET … ─► would it be large? ─► parked ─► session ─► Waiter, Waiter …     sessions take turns
#                                                  one at a time ─► a rest, in which others are served ─► the next one
#
# A client says by reading that it takes what it has asked for, and nobody knows before: ten that ask for 50 MiB each and read
# nothing would have it all made at once, of several shards, whose cores and links others wait for. So as soon as more than
# UNREAD_AT_ONCE is unread here, whatever would be large is parked, and made in turn with rests between: a slice of the shard's
# time. Of one router no more is made than there is room for (`flow_room`): while its clients take nothing the oldest reply
# moves on to it, a piece a turn, so that nobody waits for those who do not read.
#
# How large a reply would be is seen by the values that it would be made of: whole ones, of strings and of what collections take.
# Of commands that show parts of values nobody can say it beforehand; those, scripts and transactions are executed as they come.

cdef enum:
    UNREAD_AT_ONCE = 8 << 20    # bytes of large replies that wait for their clients before others wait for their turn
    TURNS_LOOKED_AT = 64        # sessions whose first reply may find no room, before it is looked no further

# After each one: so many times what it took, within these bounds, in seconds.
cdef double BULK_RESTS = 3.0
cdef double BULK_LEAST_REST = 0.001
cdef double BULK_MOST_REST = 0.02

@cython.final
cdef class Bulk:
    """The large replies of one shard that are still to be made."""

    def __init__(self, Host host not None):
        self.host = host
        self.turns = {}

    cdef int note(self) except -1:
        """More large replies are unread, or less."""
        self.host.pacing = len(self.turns) > 0 or self.unread() > UNREAD_AT_ONCE
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
        self.note()
        if not self.host.pacing:
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
                       Py_ssize_t expected) except? 0:
        """Keeps a frame until it is its turn; the token of its reply, 0 when too much waits."""
        cdef Locks locks = self.host.shard.locks
        cdef Waiter waiter
        cdef uint64_t token
        locks.scratch.clear()
        locks.gather(&self.host.shard.commands[number], number, slot, args, n)
        token = locks.park(context, command, number, slot, args, n, expected)
        if token:
            waiter = <Waiter> locks.arrivals[locks.arrived]
            self.turns.setdefault((waiter.link, waiter.session), deque()).append(waiter)
            self.soon(BULK_LEAST_REST)
        return token

    cdef int soon(self, double rest) except -1:
        if not self.scheduled:
            self.scheduled = True
            self.host.reactor.loop.call_later(rest, self._go_on)
            self.host.reactor.yield_to_loop()
        return 0

    def _go_on(self):
        """The next one, if there is room for one; then a rest."""
        cdef Waiter waiter
        cdef int64_t began
        cdef double rest = BULK_LEAST_REST
        self.scheduled = False
        try:
            waiter = self.next_turn()
            if waiter is not None:
                began = monotonic_ns()
                self.host.shard.locks.let(waiter)
                self.host._serve_waiters()
                rest = min(max(BULK_RESTS * 1e-9 * (monotonic_ns() - began), rest), BULK_MOST_REST)
            self.note()
        except Exception:
            log.exception("internal error while a large reply was made")
        if self.turns:
            self.soon(rest)

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
            self.move_on(<Link> link)
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

    cdef int move_on(self, Link link) except -1:
        """A piece of its oldest reply, which nobody has asked for: its router keeps it from here on."""
        if link.fd >= 0 and link.unsent() < PARTS_AHEAD:
            link.flows.put_part(link.output(), True)
            link.mark_dirty()
        return 0
