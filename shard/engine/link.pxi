# Link: one router's end of the conversation. Runs of frames come in, replies go out in the same order.
#
#   in    u32 length | kind | …
#         HELLO    version, router, digest of the command table, boot id, module epoch …  once, first, answered HELLO_OK or HELLO_NO
#         RUN      dialect, db, flags, count, session, deadline | frame frame …
#         CANCEL   session, maybe token
#   out   REPLY    count, session | reply reply …     a run may be answered by several, none answers two runs
#         DEFERRED, PUSH, NOTICE
#
#   a tick:   read ─► execute what is complete ─► commit_tick (the log gets its frame) ─► send the replies
#
# A tick ends at its limits of time and reply bytes; a link that has more to do stops being read and goes on in
# the next one, after the other links. A link whose replies are not read by the router is not read either.
# Malformed input closes the link with a line in the log. It is this long since Cython wants the methods of a class in one file.

cdef enum:
    LONGEST_CONTROL = 4096      # of any message but RUN
    FRAMES_PER_LOOK = 16        # frames between two looks at the clock
    MOST_READS = 64             # of one link before a lock of its router ends
    FIRST_MARKS = 16

cdef Py_ssize_t LINK_BUFFER = 1 << 20

# No share of a transaction is longer; what says so is malformed, and waited for until the link ends.
cdef uint64_t LONGEST_SHARE = <uint64_t> 1 << 40


@cython.final
cdef class LinkListener(Listener):
    """The shard's Unix socket."""

    def __init__(self, Host host not None, int fd):
        self.host = host
        super().__init__(host.reactor, fd)

    cdef int on_accept(self, int fd) except -1:
        self.host.accept(fd)
        return 0


@cython.final
cdef class Link(Endpoint):
    """The connection of one router."""

    def __cinit__(self, *args, **kwargs):
        self.spans = NULL
        self.capacity = 0
        self.begun = &self.begun_here

    def __init__(self, Host host not None, int fd):
        self.host = host
        self.router = -1
        self.context = Context(host.shard)
        self.flows = Flows()
        self.before = Buffer()
        self.behind = Buffer()
        self.awaits_descriptor = True
        super().__init__(host.reactor, fd)
        self.widen()
        # A link is busy as long as the cluster is: its buffer is not given back between two ticks.
        self.output().keep = LINK_BUFFER

    def __dealloc__(self):
        free(self.spans)
        free(self.marks)

    # The log --------------------------------------------------------------------------------------------
    cdef int take_mark(self, uint64_t end, uint64_t released) except -1:
        """What is in the output now may leave when frame `end` is released; `released` is the last one that is."""
        cdef uint64_t offset = self.bytes_out + <uint64_t> self.unsent()
        cdef Mark* last
        cdef Mark* larger
        if released >= end:
            if self.mark_count:
                self.mark_count = 0
                self.mark_dirty()
            self.sendable = offset
            return 0
        if self.mark_count:
            last = &self.marks[(self.mark_first + self.mark_count - 1) % self.mark_room]
            if last.offset == offset:
                return 0
            if last.sequence == end:
                last.offset = offset
                return 0
        elif self.sendable == offset:
            return 0
        if self.mark_count == self.mark_room:
            larger = <Mark*> malloc((2 * self.mark_room + FIRST_MARKS) * sizeof(Mark))
            if larger == NULL:
                raise MemoryError("no memory for the marks of a link")
            for i in range(self.mark_count):
                larger[<int> i] = self.marks[(self.mark_first + <int> i) % self.mark_room]
            free(self.marks)
            self.marks = larger
            self.mark_room = 2 * self.mark_room + FIRST_MARKS
            self.mark_first = 0
        last = &self.marks[(self.mark_first + self.mark_count) % self.mark_room]
        last.offset = offset
        last.sequence = end
        if self.mark_count == 0 and self.sendable > offset:
            self.sendable = self.bytes_out      # before the log began, nothing was held
        self.mark_count += 1
        return 0

    cdef int raise_sendable(self, uint64_t released) except -1:
        """Frames up to this one are released."""
        cdef uint64_t before = self.sendable
        while self.mark_count and self.marks[self.mark_first].sequence <= released:
            self.sendable = self.marks[self.mark_first].offset
            self.mark_first = (self.mark_first + 1) % self.mark_room
            self.mark_count -= 1
        return self.mark_dirty() if self.sendable != before else 0

    cdef int free_output(self) except -1:
        """Nothing is held any more: there is no log."""
        self.mark_count = 0
        self.sendable = UINT64_MAX
        return self.mark_dirty() if self.unsent() else 0

    cdef bint rests_before(self, const char* frame, uint32_t size) noexcept:
        """Whether the frame has to wait until the log has caught up, and there is no room among those that do."""
        cdef uint16_t command
        memcpy(&command, frame + 4, 2)
        command &= ~IN_CAPITALS
        return command < self.host.shard.command_count and self.host.shard.commands[command].writes and (
            self.context.flags & FLAG_UPLOADED or not self.host.shard.locks.has_room(size))

    cdef int rest(self) except -1:
        """Nothing is read until the log has caught up: what its clients send waits with them."""
        self.waiting = True
        self.pause()
        self.host.parked.append(self)
        return 0

    # Input ----------------------------------------------------------------------------------------------
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t consumed
        cdef Executor shard = self.host.shard
        if self.waiting or self.blocked:
            return 0
        self.host.begin_tick()
        shard.begin_batch()
        self.host.ahead.forget()
        self.consuming = True
        try:
            consumed = self.consume(data, n)
        finally:
            self.consuming = False
            shard.store.known_key = NULL
            shard.store.known_entry = NULL
            shard.end_batch()
            # Between two batches nobody can be deferred, and the link is not kept alive by what it owns.
            self.context.link = None
        if self.fd < 0 or self.closing:
            return n
        if self.flows.replies:
            self.send_parts()
        if self.unsent():
            self.mark_dirty()
            if self.keeps_too_much() and not self.waiting:
                self.blocked = True
                self.pause()
        return consumed

    cdef inline bint keeps_too_much(self) noexcept:
        return self.unsent() > self.host.unsent_limit or self.flows.full(self.host.flow_room)

    cdef int send_parts(self) except -1:
        """Pieces of large replies, as long as little else is unsent."""
        cdef bint more = True
        while more and self.unsent() < PARTS_AHEAD:
            # A router that has said goodbye cannot ask any more.
            more = self.flows.put_part(self.output(), self.eof or self.flows.full(self.host.flow_room))
        return self.mark_dirty() if self.unsent() else 0

    cdef int move_on(self) except -1:
        """A piece of the oldest large reply, which nobody has asked for: its router keeps it from here on."""
        if self.fd < 0 or self.unsent() >= PARTS_AHEAD:
            return 0
        self.flows.put_part(self.output(), True)
        return self.mark_dirty()

    cdef Py_ssize_t consume(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t at = 0
        cdef uint32_t length
        cdef int kind
        while self.fd >= 0 and not self.waiting and not self.closing:
            if self.run_count:
                at += self.execute_frames(data + at, n - at)
                if self.run_count:
                    break
                continue
            if self.part_left:
                at += self.take_part(data + at, n - at)
                if self.part_left:
                    break
                continue
            if n - at < 5:
                break
            memcpy(&length, data + at, 4)
            kind = <unsigned char> data[at + 4]
            if kind == LINK_PART and self.greeted and length >= PART_HEADER - 4:
                if n - at < PART_HEADER:
                    break
                self.begin_part(data + at, length)
                at += PART_HEADER
                continue
            if kind == LINK_RUN and self.greeted:
                if n - at < RUN_HEADER:
                    break
                if length < RUN_HEADER - 4:
                    return self.broken(n, "a run shorter than its header")
                # An atomic run waits until all of it is here, a transaction's share too.
                if data[at + RUN_FLAGS_AT] & FLAG_ATOMIC and not self.is_whole(data + at, n - at, length):
                    break
                self.begin_run(data + at, length)
                at += RUN_HEADER
                if self.run_count and self.context.flags & FLAG_ATOMIC:
                    if not self.begin_unit(data + at):
                        if self.waiting:
                            return at - RUN_HEADER      # all of it comes again
                        at += length + 4 - RUN_HEADER
                continue
            if length > LONGEST_CONTROL or length < 1:
                return self.broken(n, f"a message of kind {kind} and {length} bytes")
            if n - at < <Py_ssize_t> length + 4:
                break
            self.on_control(kind, data + at + 5, length - 1)
            at += length + 4
        return at

    cdef int begin_part(self, const char* header, uint32_t length) except -1:
        cdef uint32_t argument
        cdef uint64_t session
        memcpy(&argument, header + 8, 4)
        memcpy(&session, header + 12, 8)
        if argument == DROP_PARTS:
            self.flows.forget_uploads(session)
        self.part_left = length - (PART_HEADER - 4)
        self.part_into = self.flows.upload(session, argument) if self.part_left else None
        return 0

    cdef Py_ssize_t take_part(self, const char* data, Py_ssize_t n) except -1:
        n = min(n, <Py_ssize_t> self.part_left)
        self.part_into.append(data, n)
        self.part_left -= <uint32_t> n
        if self.part_left == 0:
            self.part_into = None
        return n

    cdef bint use_uploads(self, Py_ssize_t argc) except -1:
        """The arguments of the frame that came before it; False when there are none, and the link is closed."""
        cdef Buffer came
        arguments = self.flows.uploads.get(self.context.session)
        if arguments is None or self.run_count != 1:
            self.broken(0, "a frame without its large arguments")
            return False
        for argument, came in arguments.items():
            if argument >= argc:
                self.broken(0, "a large argument that its frame does not have")
                return False
            self.spans[<Py_ssize_t> argument].data = came.data + came.start
            self.spans[<Py_ssize_t> argument].size = came.used()
        return True

    cdef int broken(self, Py_ssize_t n, str what) except -1:
        log.error("closing the link of router %d: %s", self.router, what)
        self.close(what)
        return <int> min(n, 2147483647)

    cdef int on_control(self, int kind, const char* body, Py_ssize_t n) except -1:
        cdef uint64_t session, token, credit
        cdef uint16_t router
        if kind == LINK_HELLO and not self.greeted:
            return self.on_hello(body, n)
        if kind == LINK_CANCEL and self.greeted and n >= 15:
            if n >= 23:
                memcpy(&token, body + 15, 8)
                self.host.shard.forget_deferred(self, token)
                return self.finish_if_done()
            memcpy(&session, body + 7, 8)
            self.host.shard.forget_session(self, session)
            self.flows.forget_session(session)
            self.host.shard.watches.forget(self, session)
            self.host.shard.tracking.end(self, session)
            return 0
        if LINK_UNBLOCK <= kind <= LINK_UNDELIVERED and self.greeted and n >= 15:
            memcpy(&token, body + 7, 8)
            return self.on_blocked(kind, token, body[3] != 0)
        if kind == LINK_CREDIT and self.greeted and n >= 23:
            memcpy(&token, body + 7, 8)
            memcpy(&credit, body + 15, 8)
            return self.flows.grant(token, credit)
        return self.broken(0, f"an unexpected message of kind {kind}")

    cdef int on_blocked(self, int kind, uint64_t token, bint error) except -1:
        """A word about a command that waits, or has waited."""
        cdef Executor shard = self.host.shard
        if kind == LINK_UNBLOCK:
            shard.blocking.unblock(token, error)
        elif kind == LINK_RECEIVED:
            shard.blocking.received(self, token)
        else:
            shard.blocking.undelivered(self, token)
            shard.serve_ready()
        return 0

    cdef int on_hello(self, const char* body, Py_ssize_t n) except -1:
        cdef uint64_t boot_id, size
        cdef uint32_t module_epoch
        cdef uint16_t router
        cdef Buffer out = self.output()
        cdef str refusal = ""
        if n < 23:
            return self.broken(0, "a greeting that is too short")
        memcpy(&router, body + 1, 2)
        memcpy(&boot_id, body + 11, 8)
        memcpy(&module_epoch, body + 19, 4)
        self.router = router
        if <unsigned char> body[0] != LINK_VERSION:
            refusal = f"this shard speaks version {LINK_VERSION} of the link, not {<unsigned char> body[0]}"
        elif PyBytes_FromStringAndSize(body + 3, 8) != self.host.digest:
            refusal = "router and shard have different command tables"
        elif boot_id != self.host.boot_id:
            refusal = "the router belongs to another cluster"
        elif module_epoch > self.host.module_epoch:
            # It comes again. One that is behind is served: numbers of commands are never used twice.
            refusal = f"this shard has the modules of epoch {self.host.module_epoch}, not yet those of {module_epoch}"
        if refusal:
            text = refusal.encode()
            out.put_u32(<uint32_t> (1 + len(text)))
            out.put_u8(LINK_HELLO_NO)
            out.append(text, len(text))
            log.error("refusing router %d: %s", router, refusal)
            self.close_after_reply(refusal)
            return 0
        self.greeted = True
        self.awaits_descriptor = False
        self.count_on_board()
        if n >= 31 and self.passed >= 0:
            memcpy(&size, body + 23, 8)
            self.area = self.context.area = accept_area(self.passed, size)
            self.passed = -1
        out.put_u32(14)
        out.put_u8(LINK_HELLO_OK)
        out.put_u8(LINK_VERSION)
        out.put_u16(self.host.shard.index)
        out.put_u8(1 if self.host.shard.loading else 0)
        out.put_u64(self.host.pid)
        out.put_u8(self.area is not None)
        return self.mark_dirty()

    cdef int count_on_board(self) except -1:
        """The router looks for this link's count from here on, and no longer for that of one it had before."""
        cdef uint64_t* place = self.host.board.begun(self.host.shard.index, self.router)
        cdef Link other
        if place == NULL:
            return 0
        for other in self.host.links:
            if other.begun == place:
                other.begun = &other.begun_here
        place[0] = 0
        self.begun = place
        return 0

    # Runs -----------------------------------------------------------------------------------------------
    cdef int begin_run(self, const char* header, uint32_t length) except -1:
        cdef Context context = self.context
        cdef uint32_t count
        cdef uint64_t deadline
        memcpy(&count, header + RUN_COUNT_AT, 4)
        memcpy(&context.session, header + RUN_SESSION_AT, 8)
        memcpy(&deadline, header + RUN_DEADLINE_AT, 8)
        memcpy(&context.transaction, header + RUN_TRANSACTION_AT, 8)
        memcpy(&context.user_number, header + RUN_USER_AT, 4)
        context.dialect = <unsigned char> header[RUN_DIALECT_AT]
        context.keys.db = <unsigned char> header[RUN_DB_AT]
        context.flags = <unsigned char> header[RUN_FLAGS_AT]
        context.deadline = 0 if context.transaction else <int64_t> deadline
        self.share_left = deadline if context.transaction else 0
        self.run_left = length - (RUN_HEADER - 4)
        if context.dialect > RESP3 or context.keys.db >= DATABASES or <uint64_t> count * FRAME_HEADER > self.run_left:
            return self.broken(0, "a run with an impossible header")
        if count == 0 and self.run_left:
            return self.broken(0, "a run of no frames with bytes")
        self.run_count = count
        self.host.shard.in_flight += count
        return 0

    cdef Py_ssize_t execute_frames(self, const char* data, Py_ssize_t n) except -1:
        """Executes the frames of the current run that are complete; REPLY messages answer them."""
        cdef Executor shard = self.host.shard
        cdef Context context = self.context
        cdef Buffer out = self.output()
        cdef Py_ssize_t start, at = 0, argc
        cdef uint32_t size, done = 0, executed = 0
        cdef LookAhead ahead = self.host.ahead
        cdef bint expired = context.deadline != 0 and context.deadline <= shard.clock_ms
        context.link = self
        if self.host.pacing:
            self.host.bulk.note()
        self.guarded = (shard.locks.busy or self.host.parking or self.host.pacing) and context.transaction == 0 and not context.flags & FLAG_ATOMIC
        shard.store.no_touch = (context.flags & FLAG_NO_TOUCH) != 0
        start = self.begin_reply(out)
        while self.run_count and n - at >= 4:
            memcpy(&size, data + at, 4)
            if size < FRAME_HEADER - 4 or <uint64_t> size + 4 > self.run_left:
                self.broken(0, "a frame that does not fit its run")
                return n
            if n - at < <Py_ssize_t> size + 4:
                break
            if self.host.parking and self.guarded and self.rests_before(data + at, size):
                self.rest()
                break
            argc = self.parse_frame(data + at + 8, size - 4)
            if argc < 0 or (context.flags & FLAG_UPLOADED and not self.use_uploads(argc)):
                return n
            if ahead.at == ahead.count:
                ahead.look(shard.store, data + at, n - at, self.run_count, context.keys.db)
            if ahead.at < ahead.count:
                ahead.tell(shard.store)
            self.run_left -= size + 4
            self.run_count -= 1
            shard.in_flight -= 1
            self.begun[0] += 1
            done += 1
            executed += 1
            if expired:
                out.put_u32(REPLY_EXPIRED)
            else:
                self.execute_frame(data + at, argc, out, &start, &done)
            at += <Py_ssize_t> size + 4
            if self.placed_size:
                self.area.take(self.placed_at, self.placed_size)
                self.placed_size = 0
            if context.flags & FLAG_UPLOADED:
                self.flows.forget_uploads(context.session)
            if not expired and not context.flags & FLAG_ATOMIC and self.tick_ended(executed):
                if self.run_count or n > at:
                    self.wait_for_turn()
                break
        if self.run_count == 0 and self.run_left:
            self.broken(0, "a run with bytes behind its last frame")
            return n
        self.finish_reply(out, start, done)
        self.end_frames(n > at)
        return at

    cdef int end_frames(self, bint more) except -1:
        """Behind the frames of a run that could be executed now; whether there is more to read."""
        cdef Executor shard = self.host.shard
        if self.run_count == 0 and self.context.flags & FLAG_ATOMIC:
            self.end_share()
            # No tick ends inside a unit, but it may end behind one.
            if self.share_left == 0 and more and not self.waiting and self.tick_ended(FRAMES_PER_LOOK):
                self.wait_for_turn()
        if shard.ready and not self.share_left:
            shard.serve()
        if shard.locks.busy and shard.locks.runnable:
            self.host.serve_waiters()
        return 0

    # Transactions ---------------------------------------------------------------------------------------
    cdef bint is_whole(self, const char* header, Py_ssize_t n, uint32_t length) noexcept:
        """Whether all of an atomic run is here; of one of a transaction also what of its share follows."""
        cdef uint64_t transaction, rest = 0
        memcpy(&transaction, header + RUN_TRANSACTION_AT, 8)
        if transaction:
            memcpy(&rest, header + RUN_REST_AT, 8)
        return <uint64_t> n >= <uint64_t> length + 4 + min(rest, LONGEST_SHARE)

    cdef bint begin_unit(self, const char* frames) except -1:
        """Before the first frame of an atomic run, all of which is here: False when it has been answered as a whole.

        Whatever is executed from here to `end_share` is one unit: nothing of anybody else comes between, and what it
        changes belongs together.
        """
        cdef Context context = self.context
        cdef bytes refused
        context.link = self
        if context.deadline and context.deadline <= self.host.shard.clock_ms:
            return True     # each frame is answered so
        if context.transaction:
            return self.begin_share()
        if (self.host.shard.locks.busy or self.host.parking) and self.park_unit(frames):
            return False
        refused = self.host.shard.refusal_of_unit(context, self.needs_of_unit(frames))
        context.flags |= ROOM_ASKED
        return refused is None or self.answer_unit(None, refused) != 0

    cdef bint begin_share(self) except -1:
        """A run of a transaction that holds its locks, or has held them too long."""
        cdef Context context = self.context
        cdef Executor shard = self.host.shard
        cdef Lock lock = <Lock> shard.locks.by_number.get(context.transaction)
        if context.flags & FLAG_WATCHED:
            shard.watches.forget(self, context.session)
        if lock is None:
            return self.answer_unit(None, SHARE_TOO_LATE) != 0
        if lock.room:
            context.flags |= ROOM_ASKED
        if lock.shards is not None:
            # Others have their part in it already, or will: the log takes it, whatever it is in by now.
            context.flags |= LOG_ASKED
            if not lock.begun:
                lock.begun = self.host.begin_share()
        return True

    cdef int end_share(self) except -1:
        """Behind an atomic run: behind the last one of a share, what it has changed is one frame of the log."""
        cdef Locks locks = self.host.shard.locks
        cdef uint64_t number = self.context.transaction
        cdef Lock lock
        if number == 0 or self.share_left:
            return 0
        lock = <Lock> locks.by_number.get(number)
        if lock is not None and lock.begun:
            lock.begun = False
            if lock.steps:
                # A step that has changed nothing is none.
                if self.host.shard.store.effects.records.used():
                    lock.framed = True
                    self.host.put_share(number, lock.shards)
            else:
                lock.complete = True
                if self.context.flags & FLAG_RELEASE:
                    self.host.shard.store.effects.settle(number)
                else:
                    lock.framed = True
                self.host.put_share(number, lock.shards)
        if self.context.flags & FLAG_RELEASE:
            locks.release(number)
        return 0

    cdef int needs_of_unit(self, const char* frames) noexcept:
        """What the commands of an atomic run need."""
        cdef int needs = 0
        cdef uint32_t i, size
        cdef uint16_t number
        cdef Py_ssize_t at = 0
        for i in range(self.run_count):
            if self.run_left - at < FRAME_HEADER:
                break       # malformed: whoever executes it closes the link
            memcpy(&size, frames + at, 4)
            memcpy(&number, frames + at + 4, 2)
            needs = self.host.shard.look_at(number, needs)
            at += 4 + <Py_ssize_t> size
        return needs

    cdef bint park_unit(self, const char* frames) except -1:
        """Keeps an atomic run whose slots are held, or whose session waits; False when it may be executed."""
        cdef Locks locks = self.host.shard.locks
        cdef Executor shard = self.host.shard
        cdef Waiter waiter
        cdef uint32_t i, size
        cdef uint16_t command, slot
        cdef Py_ssize_t at = 0, argc
        cdef bint writes = False
        cdef list kept = []
        locks.scratch.clear()
        for i in range(self.run_count):
            if <Py_ssize_t> self.run_left - at < FRAME_HEADER:
                return False
            memcpy(&size, frames + at, 4)
            memcpy(&command, frames + at + 4, 2)
            memcpy(&slot, frames + at + 6, 2)
            if size < FRAME_HEADER - 4 or <Py_ssize_t> size + 4 > <Py_ssize_t> self.run_left - at:
                return False
            argc = self.parse_frame(frames + at + 8, size - 4)
            if argc < 0 or command & ~IN_CAPITALS >= shard.command_count:
                return False
            locks.gather(&shard.commands[command & ~IN_CAPITALS], command & ~IN_CAPITALS, slot, self.spans, argc)
            kept.append((command, slot, arguments_of(self.spans, argc)))
            writes |= shard.commands[command & ~IN_CAPITALS].writes
            at += 4 + <Py_ssize_t> size
        if not (writes and self.host.parking) and not locks.any_held(False, False) and (
                self, self.context.session) not in locks.sessions:
            return False
        waiter = locks.admit(self.context, self.run_left)
        if waiter is None and self.host.parking:
            # Before anything of it was looked at: whose slots are held may be another one when it comes again.
            shard.in_flight -= self.run_count
            self.run_count = self.run_left = 0
            self.rest()
            return True
        if waiter is None:
            return self.answer_unit(None, PARKED_TOO_MANY) == 0
        waiter.frames = kept
        waiter.writes = writes
        waiter.tokens = [shard.promise(self.context, False) for _ in kept]
        self.answer_unit(waiter.tokens, None)
        locks.enqueue(waiter)
        return True

    cdef int answer_unit(self, object tokens, bytes refusal) except -1:
        """Answers a whole atomic run that is not executed now: by tokens, or by the error that refuses it."""
        cdef Buffer out = self.output()
        cdef Py_ssize_t start = self.begin_reply(out)
        if refusal is None:
            for token in tokens:
                out.put_u32(REPLY_PARKED)
                out.put_u64(token)
        else:
            out.put_u32(REPLY_ABORTED)
            out.put_u32(<uint32_t> len(refusal))
            out.append(PyBytes_AS_STRING(refusal), PyBytes_GET_SIZE(refusal))
        self.finish_reply(out, start, self.run_count)
        self.begun[0] += self.run_count
        self.host.shard.in_flight -= self.run_count
        self.run_count = self.run_left = 0
        self.mark_dirty()
        return 0

    cdef int hold_back(self, uint16_t command, uint16_t slot, Py_ssize_t argc, Buffer out) except -1:
        """Parks a frame that must wait for a transaction, or for its turn among large replies: PARKED or BLOCKED, DONE when
        too much waits, DECLINE when it need not."""
        cdef Executor shard = self.host.shard
        cdef int number = command & ~IN_CAPITALS
        cdef Command* row
        cdef uint64_t token
        cdef Py_ssize_t expected
        if number >= shard.command_count:
            return DECLINE
        row = &shard.commands[number]
        expected = self.host.bulk.expected(self.context, row, self.spans, argc) if self.host.pacing else 0
        if expected > LARGE:
            token = self.host.bulk.park(self.context, command, number, slot, self.spans, argc, expected)
        elif (shard.locks.busy or self.host.parking) and shard.locks.holds_back(
                self.context, row, number, slot, self.spans, argc):
            token = shard.locks.park(self.context, command, number, slot, self.spans, argc)
        else:
            return DECLINE
        if token == 0:
            fail(self.context, out, PARKED_TOO_MANY)
            return DONE
        shard.pending_token = token
        return BLOCKED if row.blocking else PARKED

    cdef bint catch_up(self) except -1:
        """Reads what the router has sent by now: a lock that ends by time must not end before what came for it in time.

        False while there is more than fits into a tick. A link that is not read because its router takes no replies says no
        more about its locks.
        """
        cdef uint64_t before
        cdef int i
        for i in range(MOST_READS):
            before = self.bytes_in
            if self.fd < 0 or self.blocked:
                return True
            if self.waiting or not self.reads():
                return False
            self.read_some()
            if self.bytes_in == before:
                return not self.waiting
        return False

    cdef bint is_open(self) noexcept:
        return self.fd >= 0 and not self.closing

    cdef inline int execute_frame(
        self, const char* frame, Py_ssize_t argc, Buffer out, Py_ssize_t* start, uint32_t* done
    ) except -1:
        """One frame and its reply in the open REPLY, which began at `start` and has `done` replies with this one."""
        cdef Py_ssize_t mark = out.used()
        cdef uint32_t size
        cdef uint16_t command, slot
        cdef int outcome
        memcpy(&command, frame + 4, 2)
        memcpy(&slot, frame + 6, 2)
        self.context.capitals = command & IN_CAPITALS
        out.put_u32(0)
        outcome = self.hold_back(command, slot, argc, out) if self.guarded else DECLINE
        if outcome == DECLINE:
            command &= ~IN_CAPITALS
            outcome = self.host.shard.execute_command(self.context, command, slot, self.spans, argc, out)
        if outcome != DONE:
            size = REPLY_BLOCKED if outcome == BLOCKED else REPLY_PARKED
            memcpy(out.data + out.start + mark, &size, 4)
            out.put_u64(self.host.shard.pending_token)
            # What its session sends from here on waits behind it.
            self.guarded = self.guarded or (
                outcome == PARKED and self.context.transaction == 0 and not self.context.flags & FLAG_ATOMIC)
        elif self.context.placed:
            size = REPLY_PLACED
            memcpy(out.data + out.start + mark, &size, 4)
            self.host.tick_left -= self.context.placed
            self.context.placed = 0
        else:
            size = <uint32_t> (out.used() - mark - 4)
            memcpy(out.data + out.start + mark, &size, 4)
            self.host.tick_left -= size
            if size >= PLACED_FROM:
                if size > LARGE and self.context.dialect != INTERNAL and not self.context.flags & FLAG_ATOMIC:
                    self.part_with(out, mark, size)
                elif size <= LARGE and self.area is not None:
                    self.place_reply(out, mark, size)
        if self.host.shard.ready and not (self.context.flags & FLAG_ATOMIC and self.run_count):
            self.host.shard.serve()
        if self.arisen:
            self.put_between(out, mark, start, done)
        return 0

    cdef int place_reply(self, Buffer out, Py_ssize_t mark, uint32_t size) except -1:
        """The reply behind `mark` passes by the socket, if there is room for it."""
        cdef uint64_t position
        cdef char* at = self.area.place(size, &position)
        if at == NULL:
            return 0
        memcpy(at, out.data + out.start + mark + 4, size)
        out.end = out.start + mark
        out.put_u32(REPLY_PLACED)
        out.put_u32(size)
        return out.put_u64(position)

    cdef int part_with(self, Buffer out, Py_ssize_t mark, uint32_t size) except -1:
        """The reply behind `mark` is too large to keep others waiting behind it: it follows in pieces."""
        cdef uint32_t instead = REPLY_LARGE
        cdef Buffer reply = out.split(mark + 4)
        memcpy(out.data + out.start + mark, &instead, 4)
        out.put_u64(self.flows.add(reply, self.context.session))
        out.put_u64(size)
        self.host.large_left -= size
        self.host.bulk.note()
        # Of this run, too; atomic ones are not here.
        self.guarded = self.guarded or (self.host.pacing and self.context.transaction == 0)
        return 0

    cdef inline bint tick_ended(self, uint32_t executed) except -1:
        cdef Host host = self.host
        if host.tick_left <= 0:
            return True
        return (executed % FRAMES_PER_LOOK == 0 or host.shard.python_ns > 200000) and host.tick_over()

    cdef int wait_for_turn(self) except -1:
        self.waiting = True
        self.pause()
        return self.host.wait_for_next(self)

    # Replies --------------------------------------------------------------------------------------------
    cdef inline Py_ssize_t begin_reply(self, Buffer out) except -1:
        cdef Py_ssize_t start = out.used()
        out.reserve(REPLY_HEADER)
        out.end += REPLY_HEADER
        self.answering = True
        return start

    cdef int finish_reply(self, Buffer out, Py_ssize_t start, uint32_t done) except -1:
        """Fills in the header of the REPLY that began at `start`, or takes it back if it would be empty."""
        cdef char* header
        cdef uint32_t length
        self.answering = False
        if done == 0:
            out.end = out.start + start
            return 0
        header = out.data + out.start + start
        length = <uint32_t> (out.used() - start - 4)
        memset(header, 0, REPLY_HEADER)
        memcpy(header, &length, 4)
        header[4] = LINK_REPLY
        memcpy(header + 8, &done, 4)
        memcpy(header + 12, &self.context.session, 8)
        return 0

    cdef int put_between(self, Buffer out, Py_ssize_t mark, Py_ssize_t* start, uint32_t* done) except -1:
        """Messages arose while the frame whose reply lies at `mark` was executed: the REPLY ends before them, another
        begins behind. What making room has caused leaves before the frame's reply, everything else behind it."""
        cdef bytes reply
        self.arisen = False
        if self.before.used():
            reply = PyBytes_FromStringAndSize(out.data + out.start + mark, out.used() - mark)
            out.end = out.start + mark
            self.finish_reply(out, start[0], done[0] - 1)
            self.put_all(out, self.before)
            start[0] = self.begin_reply(out)
            done[0] = 1
            out.append(PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))
        if self.behind.used():
            self.finish_reply(out, start[0], done[0])
            self.put_all(out, self.behind)
            start[0] = self.begin_reply(out)
            done[0] = 0
        return 0

    cdef int put_all(self, Buffer out, Buffer messages) except -1:
        out.append(messages.data + messages.start, messages.used())
        messages.clear()
        return 0

    cdef Py_ssize_t parse_frame(self, const char* data, Py_ssize_t n) except -2:
        """The arguments of a frame as spans; how many, or -1 when it was malformed (the link is closed then)."""
        cdef uint32_t argc, size
        cdef Py_ssize_t at = 4, i
        cdef Span* larger
        memcpy(&argc, data, 4)
        if <Py_ssize_t> argc > (n - 4) // 4:
            self.broken(0, "a frame with more arguments than bytes")
            return -1
        if <Py_ssize_t> argc > self.capacity:
            larger = <Span*> realloc(self.spans, (argc + 16) * sizeof(Span))
            if larger == NULL:
                raise MemoryError("no memory for the arguments of a command")
            self.spans = larger
            self.capacity = argc + 16
        for i in range(argc):
            if n - at < 4:
                self.broken(0, "a frame that is too short")
                return -1
            memcpy(&size, data + at, 4)
            if size & PLACED:
                if not self.find_placed(i, data + at, n - at, size & ~PLACED):
                    return -1
                at += 12
                continue
            if <Py_ssize_t> size > n - at - 4:
                self.broken(0, "an argument longer than its frame")
                return -1
            self.spans[i].data = data + at + 4
            self.spans[i].size = size
            at += 4 + <Py_ssize_t> size
        if at != n:
            self.broken(0, "a frame with bytes behind its arguments")
            return -1
        return argc

    cdef bint find_placed(self, Py_ssize_t i, const char* data, Py_ssize_t n, uint32_t size) except -1:
        """Argument i lies in the memory that the router shares. False when it does not; the link is closed then."""
        cdef const char* found = NULL
        if n >= 12 and self.area is not None and size and not self.context.flags & FLAG_ATOMIC:
            memcpy(&self.placed_at, data + 4, 8)
            found = self.area.find(self.placed_at, size)
        if found == NULL:
            self.broken(0, "an argument outside of the memory of the link")
            return False
        self.spans[i].data = found
        self.spans[i].size = self.placed_size = size
        return True

    # Turns ----------------------------------------------------------------------------------------------
    cdef int go_on(self) except -1:
        """The next tick has come, or the output has room again."""
        self.waiting = False
        if self.keeps_too_much():
            self.blocked = True
            return 0
        self.blocked = False
        self.resume()
        return self.finish_if_done()

    cdef int on_eof(self) except -1:
        """The router sends no more. What it has sent is still executed and answered."""
        return self.finish_if_done()

    cdef int finish_if_done(self) except -1:
        """After the last run of a router that has said goodbye: its replies go out, then the link is closed."""
        cdef Locks locks = self.host.shard.locks
        if self.consuming:
            return 0    # there is more than what was just answered
        if self.eof and self.fd >= 0 and not self.waiting and not self.blocked and not self.closing:
            if locks.busy:
                locks.give_up(self)
                if locks.runnable:
                    self.host.serve_soon()
            if self.flows.replies:
                return self.send_parts()
            if not self.host.shard.waits_for(self) and not (locks.busy and locks.keeps_frames_of(self)):
                self.close_after_reply("closed by the router")
        return 0

    cdef int on_written(self, Py_ssize_t n) except -1:
        # What waits for its time is not overtaken.
        if self.flows.replies and self.unsent() < PARTS_AHEAD and self.delayed is None:
            self.send_parts()
            if self.eof and not self.flows.replies:
                self.finish_if_done()
            # These pieces were made by ticks that are logged; what is being executed now has its turn when its tick ends.
            if self.host.writer is not None and self.host.shard.store.effects.records.used() == 0:
                self.host.mark_links()
        if self.blocked and self.unsent() <= self.host.unsent_limit // 2 and not self.flows.full(self.host.flow_room):
            self.blocked = False
            self.waiting = True
            self.host.wait_for_next(self)
        return 0

    # Output that leaves late, as a test wants it --------------------------------------------------------
    cdef int flush(self) except -1:
        if self.host.delay == 0 and self.delayed is None:
            return Endpoint.flush(self)
        return self.flush_late()

    cdef int flush_late(self) except -1:
        """What is to be sent waits for its time, behind what waits already."""
        cdef list buffers
        if self.fd < 0:
            return 0
        if self.wants_write:
            # The time of what is in the chain has come, but the socket was full; what came since waits behind the rest.
            if self.delayed is not None and self.out is not None and self.out.used():
                self.put_off([self.out])
                self.out = Buffer()
                self.out.keep = LINK_BUFFER
            return Endpoint.flush(self)
        buffers = [] if self.chain is None else self.chain
        if self.out is not None and self.out.used():
            buffers.append(self.out)
            self.out = Buffer()
            self.out.keep = LINK_BUFFER
        self.chain = None
        self.chained = 0
        if not buffers:
            return 0 if self.delayed is not None else Endpoint.flush(self)
        return self.put_off(buffers)

    cdef int put_off(self, list buffers) except -1:
        if self.delayed is None:
            self.delayed = deque()
        self.delayed.append(buffers)
        self.host.reactor.loop.call_later(self.host.delay, self._release)
        return 0

    def _release(self):
        """The time of the oldest output has come."""
        cdef Buffer full
        if self.fd < 0 or not self.delayed:
            return
        if self.out is not None and self.out.used():
            # It came since the last flush, and would leave first.
            self.put_off([self.out])
            self.out = Buffer()
            self.out.keep = LINK_BUFFER
        for full in self.delayed.popleft():
            self.chain_output(full)
        if not self.delayed:
            self.delayed = None
        Endpoint.flush(self)

    cdef int release_all(self) except -1:
        while self.delayed:
            self._release()
        return 0

    # Output beside the replies --------------------------------------------------------------------------
    cdef Buffer beside(self):
        """Where a message goes that may arise at any time: never inside a REPLY that is being made."""
        if not self.answering:
            return self.output()
        self.arisen = True
        return self.before if self.host.shard.evicting else self.behind

    cdef int put_message(self, int kind, uint64_t number, bytes body, uint32_t form=0) except -1:
        return self.put_body(kind, number, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), form)

    cdef int put_body(self, int kind, uint64_t number, const char* body, Py_ssize_t n, uint32_t form) except -1:
        cdef Buffer out = self.beside()
        out.put_u32(<uint32_t> (16 + n))
        out.put_u32(kind)
        out.put_u32(form)
        out.put_u64(number)
        out.append(body, n)
        return self.mark_dirty()

    cdef int put_deferred(self, uint64_t token, Buffer reply) except -1:
        """`send_deferred` of a reply that was just encoded."""
        if self.fd >= 0:
            self.put_body(LINK_DEFERRED, token, reply.data + reply.start, reply.used(), DEFERRED_REPLY_FORM)
            self.finish_if_done()
        return 0

    def send_deferred(self, uint64_t token, bytes reply not None, uint32_t form=DEFERRED_REPLY_FORM):
        """The reply of a frame that was answered with a token, or what stands for it in another form."""
        if self.fd >= 0:
            self.put_message(LINK_DEFERRED, token, reply, form)
            self.finish_if_done()

    def send_timed(self, uint64_t token, uint64_t session, Buffer reply not None, int64_t took):
        """The same for a reply that took so many nanoseconds, and may be so large that it follows in pieces."""
        cdef Buffer body = Buffer()
        cdef uint64_t size = <uint64_t> reply.used()
        if self.fd < 0:
            return
        body.put_u64(<uint64_t> took)
        if size > LARGE:
            body.put_u64(self.flows.add(reply, session))
            body.put_u64(size)
        else:
            body.append(reply.data + reply.start, reply.used())
        self.put_message(LINK_DEFERRED, token, bytes(body), DEFERRED_LARGE_FORM if size > LARGE else DEFERRED_TIMED_FORM)
        self.finish_if_done()

    def send_retry(self, uint64_t token, bytes ids not None):
        """A frame that was answered with a token is not executed here."""
        if self.fd >= 0:
            self.put_message(LINK_RETRY, token, ids)
            self.finish_if_done()

    def send_push(self, uint64_t session, bytes push not None):
        """An out-of-band message for a session, in its dialect."""
        if self.fd >= 0:
            self.put_message(LINK_PUSH, session, push)

    def send_slow(self, uint64_t session, bytes report not None):
        """A command of this session took long (see service/slowlog.py)."""
        if self.fd >= 0:
            self.put_message(LINK_SLOW, session, report)

    def send_denied(self, uint64_t session, bytes report not None):
        """A script of this session did what its user may not."""
        if self.fd >= 0:
            self.put_message(LINK_DENIED, session, report)

    def slow_part(self, int64_t took):
        """The frame being executed took so many nanoseconds; told before its reply."""
        cdef Buffer out = self.before if self.answering else self.output()
        if self.fd < 0:
            return 0
        self.arisen = self.answering
        out.put_u32(16)
        out.put_u32(LINK_SLOW_PART)
        out.put_u32(0)
        out.put_u64(<uint64_t> took)
        return self.mark_dirty()

    cdef int put_published(self, int what, uint64_t session, const char* name, Py_ssize_t n, const char* message,
                           Py_ssize_t size) except -1:
        cdef Buffer out
        if self.fd < 0 or self.closing or self.overrun:
            return 0
        if self.unsent() > MOST_PUBLISHED:
            # Not from here: whoever publishes is walking over the links.
            self.overrun = True
            self.host.reactor.loop.call_soon(self._give_up)
            return 0
        out = self.beside()
        out.put_u32(<uint32_t> (PUBLISHED_HEADER - 4 + n + size))
        out.put_u8(LINK_PUBLISHED)
        out.put_u8(<uint8_t> what)
        out.put_u16(0)
        out.put_u32(<uint32_t> n)
        out.put_u64(session)
        out.append(name, n)
        out.append(message, size)
        return self.mark_dirty()

    def _give_up(self):
        if self.fd >= 0:
            log.error("closing the link of router %d: it does not take what is published", self.router)
            self.close("it does not take what is published")

    cdef int notice(self, int what) except -1:
        cdef Buffer out = self.beside()
        if not self.greeted or self.fd < 0:
            return 0
        out.put_u32(4)
        out.put_u8(LINK_NOTICE)
        out.put_u8(what)
        out.put_u16(0)
        return self.mark_dirty()

    cdef int on_closed(self, object reason) except -1:
        cdef Host host = self.host
        host.shard.in_flight -= self.run_count
        self.run_count = 0
        self.delayed = None
        host.gone_in += self.bytes_in
        host.gone_out += self.bytes_out
        if self in host.links:
            host.links.remove(self)
        host.shard.forget_session(self, None)
        host.shard.watches.forget_link(self)
        host.shard.channels.forget_link(self)
        host.shard.tracking.forget_link(self)
        host.shard.locks.forget_link(self)
        if host.shard.blocking is not None:
            host.shard.blocking.forget_link(self)
            host.shard.serve_ready()
        if host.shard.locks.runnable:
            host.serve_soon()
        log.debug("the link of router %d is closed: %s", self.router, reason)
        return 0
