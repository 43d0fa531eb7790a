# A Redis Cluster as one backend: which connection a command goes to, and what waits while that is not certain.
#
#   slots[slot]   owner, proven, flying        the map: one load says where a command goes, and whether it may be pipelined
#   lanes, far    (node, dialect, number, db)  connections; a session has the same number on every node, so all its commands
#                                              on one slot travel on one of them, and cannot overtake each other; a
#                                              connection has the same database from its greeting on
#   source        0: commands that went through a gate; 1 + lane: those that went straight
#
# What decides (topology, gates, when to connect) is Python's, `router/cluster/director.py`; it is asked for nothing while
# a slot is proven.

cdef enum:
    SOURCE_GATE = 0
    MOST_LANES = 0x3FF0


cdef bytes MULTI_FRAME = b"*1\r\n$5\r\nMULTI\r\n"
cdef bytes EXEC_FRAME = b"*1\r\n$4\r\nEXEC\r\n"


cdef class Remote(Backend):

    def __cinit__(self):
        self.reads = NULL

    def __dealloc__(self):
        free(self.reads)

    def __init__(self, Router router, object director, int connections, TlsPool tls=None):
        """`director` has `arrive`, `answered`, `redirected`, `is_up`, `is_down`, `tick`; `connections` a node, for each dialect
        and database. With `tls`, whose context is a client's, they are sealed."""
        cdef Py_ssize_t number
        Backend.__init__(self, router, 0, "")
        self.director = director
        self.connections = connections
        self.lanes = []
        self.far = {}
        self.numbers = {}
        self.wanted = set()
        self.tls = tls
        self.arrived = []
        # Never idle: the node of the slot decides (`admits`).
        self.in_flight = <uint64_t> 1 << 62
        self.phase = UP
        self.reads = <uint8_t*> calloc(len(router.table.rows) + 1, 1)
        if self.reads == NULL:
            raise MemoryError("no memory for the table of commands")
        for number, row in enumerate(router.table.rows):
            self.reads[number] = "readonly" in row.flags

    # For sessions ---------------------------------------------------------------------------------
    cdef inline Node node_of(self, int node, int dialect, int lane, int db):
        cdef Py_ssize_t at = (node * 2 + (0 if dialect == RESP2 else 1)) * self.connections + lane
        if db:
            return <Node> self.far.get((node, dialect == RESP2, lane, db))
        return <Node> self.lanes[at] if at < len(self.lanes) else None

    cdef list all_lanes(self):
        return [lane for lane in self.lanes if lane is not None] + list(self.far.values())

    cdef Node way_of(self, Session session, Command* command, uint16_t slot):
        """The connection on which the command may leave at once; None: it must be looked at more closely."""
        cdef Slot* state = &self.slots[slot]
        cdef Node node
        if self.spreads and self.readers[slot] and self.reads[command.id]:
            return None
        if not state.proven:
            return None
        node = self.node_of(state.owner, session.dialect_now, self.lane_of_session(session), session.db_now)
        if node is None or node.phase != UP or node.over_soft() or node.kept.used() > self.limits.link_soft_bytes:
            return None
        return node

    cdef Node reader_of(self, Session session, uint16_t slot):
        """The connection to a replica on which the session reads; None while there is none with room: the owner is asked."""
        cdef int reader = self.readers[slot]
        cdef Node node = self.node_of(reader, session.dialect_now, self.lane_of_session(session), session.db_now)
        if node is None:
            self.wanted.add((reader - 1, session.dialect_now, self.lane_of_session(session), session.db_now))
        elif node.phase != UP or node.over_soft() or node.kept.used() > self.limits.link_soft_bytes:
            return None
        return node

    cdef inline int lane_of_session(self, Session session) noexcept:
        return <int> (session.id % <uint64_t> self.connections) if self.connections > 1 else 0

    cdef int admits(self, Session session, uint16_t slot, uint16_t flags) except -1:
        cdef Slot* state = &self.slots[slot]
        cdef Node node
        if state.proven:
            node = self.node_of(state.owner, session.dialect_now, self.lane_of_session(session), session.db_now)
            if node is not None and node.phase == UP:
                if node.over_soft():
                    return session.may_send(node, flags)
                if node.kept.used() <= self.limits.link_soft_bytes:
                    return SEND
                # The bytes of what it has not answered are kept, too.
                session.resume_at = session.in_flight_now()
                session.waits_for = node
                node.wait_for_room(session)
                return WAIT
        if self.waiting >= self.limits.link_hard_commands or self.waiting_bytes > self.limits.link_hard_bytes:
            self.router.counters.refused_overload += 1
            session.answer_error(OVERLOADED, flags)
            return REFUSED
        return SEND

    cdef int put(self, Session session, Command* command, uint16_t slot, Span* arguments, Py_ssize_t count) except -1:
        cdef Slot* state = &self.slots[slot]
        cdef Buffer out
        cdef Py_ssize_t mark
        cdef Node node = None
        self.places += 1
        if (self.spreads and self.readers[slot] and self.reads[command.id] and session.exclusive is None
                and not command.runs_script):
            node = self.reader_of(session, slot)
        elif command.writes:
            session.wrote |= <uint64_t> 1 << (state.owner & 63)
        if node is None and state.proven:
            node = self.node_of(state.owner, session.dialect_now, self.lane_of_session(session), session.db_now)
            if node is None or node.phase != UP:
                state.proven = False
                node = None
        if node is None:
            return self.hold(session, command, slot, arguments - command.words, count + command.words)
        out = node.output()
        mark = out.used()
        put_request(out, session)
        node.note(<PyObject*> session, False, 0, slot, self.places, self.reads[command.id], mark, out.used() - mark,
                  self.router.now_ms + self.limits.request_timeout)
        return node.index

    cdef int hold(self, Session session, Command* command, uint16_t slot, Span* words, Py_ssize_t count) except -1:
        """The command waits in the gate of its slot."""
        cdef Held held = Held.__new__(Held)
        cdef Buffer out = Buffer()
        put_resp_words(out, words, count)
        held.owner = session
        held.data = PyBytes_FromStringAndSize(out.data + out.start, out.used())
        held.dialect = session.dialect_now
        held.lane = self.lane_of_session(session)
        held.db = session.db_now
        held.reads = self.reads[command.id]
        self.hold_place(held, slot, self.places, SOURCE_GATE)
        self.wait_for(held)
        return SOURCE_GATE

    cdef int hold_place(self, Held held, uint16_t slot, uint64_t place, int source) except -1:
        held.slot = slot
        held.place = place
        held.reason = b""
        held.deadline = self.router.now_ms / 1000.0 + self.wait_seconds
        if not held.pending:
            self.tokens += 1
            held.token = self.tokens
            held.source = source
            if not (<Session> held.owner).gone:
                (<Session> held.owner).hold_deferred(source, held.token)
        return 0

    cdef int wait_for(self, Held held) except -1:
        """Its gate sees it when whoever sends has noted its place among its replies, at the latest before output is written."""
        self.waiting += 1
        self.waiting_bytes += PyBytes_GET_SIZE(held.data)
        self.arrived.append(held)
        return 0

    cdef int put_frame(self, Pending owner, uint32_t part, Session session, uint16_t slot, bint reads, Buffer frame,
                       uint32_t skip) except -1:
        """One part of a command of a session; its reply goes to `owner`, behind `skip` others that nobody waits for."""
        cdef Slot* state = &self.slots[slot]
        cdef Node node = None
        cdef Buffer out
        cdef Held held
        cdef Py_ssize_t mark
        self.places += 1
        if not reads:
            session.wrote |= <uint64_t> 1 << (state.owner & 63)
        elif self.spreads and self.readers[slot] and skip == 0 and session.exclusive is None:
            node = self.reader_of(session, slot)
        if node is None and state.proven:
            node = self.node_of(state.owner, owner.dialect, self.lane_of_session(session), session.db_now)
            if node is None or node.phase != UP:
                state.proven = False
                node = None
        if node is not None:
            out = node.output()
            mark = out.used()
            out.append(frame.data + frame.start, frame.used())
            node.note(<PyObject*> owner, True, part, slot, self.places, reads, mark, frame.used(),
                      self.router.now_ms + self.limits.request_timeout)
            node.sent[(node.tail - 1) & node.sent_mask].skip = skip
            return 0
        held = Held.__new__(Held)
        held.owner = owner
        held.pending = True
        held.part = part
        held.data = PyBytes_FromStringAndSize(frame.data + frame.start, frame.used())
        held.dialect = owner.dialect
        held.lane = self.lane_of_session(session)
        held.db = session.db_now
        held.reads = reads
        held.skip = skip
        self.hold_place(held, slot, self.places, SOURCE_GATE)
        return self.wait_for(held)

    cdef int work(self) except -1:
        """What has come since is put into its gate."""
        cdef list arrived
        while self.arrived:
            arrived, self.arrived = self.arrived, []
            self.director.arrive(arrived)
        return 0

    cdef int tick(self, int64_t now_ms) except -1:
        """With the timer of deadlines."""
        cdef Node node
        # Without patience what waits for a reply before it still has the time of any command.
        self.wait_seconds = (self.router.config.backend_wait_ms or self.router.config.request_timeout_ms) / 1000.0
        for node in self.all_lanes():
            if node.phase != DOWN:
                node.expire_node(now_ms, self.router.config.backend_silence_ms)
                if node.unsent():
                    node.mark_dirty()
        self.director.tick()
        return 0

    cdef int is_lost(self, Node node) except -1:
        cdef Py_ssize_t slot
        cdef Py_ssize_t at = (node.node * 2 + (0 if node.dialect == RESP2 else 1)) * self.connections + node.lane
        if node.db:
            if self.far.get((node.node, node.dialect == RESP2, node.lane, node.db)) is node:
                del self.far[(node.node, node.dialect == RESP2, node.lane, node.db)]
        elif self.lanes[at] is node:
            self.lanes[at] = None
        for slot in range(SLOTS):
            if self.slots[slot].owner == node.node:
                self.slots[slot].proven = False
        return 0

    # For the director: the world of gates ------------------------------------------------------------
    def now(self):
        return self.router.clock.now_ms() / 1000.0

    def flying(self, int slot):
        return self.slots[slot].flying

    def is_proven(self, int slot):
        """For tests."""
        return bool(self.slots[slot].proven)

    def owner(self, int slot):
        return self.slots[slot].owner - 1 if self.slots[slot].owner else None

    def set_owner(self, int slot, node):
        """The map has another owner for the slot, None: nobody; it is not proven."""
        self.slots[slot].owner = 0 if node is None else <uint16_t> (<int> node + 1)
        self.slots[slot].proven = False

    def set_readers(self, int first, int last, node):
        """Reads of these slots go to a replica as long as it answers, None: to their owner."""
        cdef Py_ssize_t slot
        self.spreads = True
        for slot in range(first, last + 1):
            self.readers[slot] = 0 if node is None else <uint16_t> (<int> node + 1)

    def drop_reader(self, int node):
        """Nothing is read from it any longer."""
        cdef Py_ssize_t slot
        for slot in range(SLOTS):
            if self.readers[slot] == node + 1:
                self.readers[slot] = 0

    def take_wanted(self):
        """Replicas that somebody would have read from since this was asked last: (node, dialect, number, database)."""
        wanted, self.wanted = self.wanted, set()
        return wanted

    def prove(self, int slot):
        self.slots[slot].proven = True

    def unprove(self, int slot):
        self.slots[slot].proven = False

    def lane_of(self, int node, Held held not None):
        """The connection that a command must take there; None while there is none."""
        return self.node_of(node + 1, held.dialect, held.lane, held.db)

    def connect_as(self, int node, int dialect, int lane, int db, connection, str name not None, bytes greeting not None,
                   int replies):
        """Begins a connection with a socket that connects, to a host of that name; the socket is its own from here on."""
        cdef Py_ssize_t at = ((node + 1) * 2 + (0 if dialect == RESP2 else 1)) * self.connections + lane
        cdef Node one
        cdef tuple place = (node + 1, dialect == RESP2, lane, db)
        number = self.numbers.setdefault(place, len(self.numbers) + 1)
        if number >= MOST_LANES:
            connection.close()
            raise ValueError("too many nodes")
        while len(self.lanes) <= at:
            self.lanes.append(None)
        one = Node(self.router, number, "connecting")
        one.remote = self
        one.node = node + 1
        one.dialect = RESP2 if dialect == RESP2 else RESP3
        one.lane = lane
        one.db = db
        if db:
            self.far[place] = one
        else:
            self.lanes[at] = one
        self.connects += 1
        one.connected(connection.detach(), name, greeting, replies)
        return one

    def has_lanes(self, int node):
        """Whether there is a connection to it."""
        cdef Node lane
        return any([lane.node == node + 1 for lane in self.all_lanes()])

    def idle_lanes(self, int64_t silent_ms):
        """Connections on which nothing is expected, and nothing has come for so long."""
        cdef Node node
        return [node for node in self.all_lanes() if node.phase == UP and node.head == node.tail
                and self.router.now_ms - node.heard_ms >= silent_ms]

    def lane_at(self, int node, int dialect, int lane, int db=0):
        return self.node_of(node + 1, dialect, lane, db)

    def send(self, Held held not None, int node, bint asking):
        cdef Node lane = self.node_of(node + 1, held.dialect, held.lane, held.db)
        cdef Session session = (<Pending> held.owner).session if held.pending else <Session> held.owner
        self.waiting -= 1
        self.waiting_bytes -= PyBytes_GET_SIZE(held.data)
        if session is not None and not held.reads:
            session.wrote |= <uint64_t> 1 << ((node + 1) & 63)
        lane.put_held(held, asking, self.router.now_ms + self.limits.request_timeout)

    def waits_again(self, Held held not None):
        """It is back in its gate."""
        self.waiting += 1
        self.waiting_bytes += PyBytes_GET_SIZE(held.data)

    def fail(self, Held held not None, bytes message not None):
        """It was not executed."""
        self.waiting -= 1
        self.waiting_bytes -= PyBytes_GET_SIZE(held.data)
        self.router.counters.refused_down += 1
        if held.pending:
            (<Pending> held.owner).fail(held.part, message)
        else:
            (<Session> held.owner).deferred_lost(held.source, held.token, message)
        self.router.clients.wake_soon()

    def ask_node(self, Node lane not None, list words, int64_t timeout_ms=0):
        """A command for a node whatever it owns; a future of its reply as a Python value, as `Router.call`."""
        cdef Call question = Call.__new__(Call)
        cdef bytes frame = resp_of(words)
        cdef Buffer out
        cdef Py_ssize_t mark
        question.router = self.router
        question.future = self.router.loop.create_future()
        if lane.phase != UP:
            question.fail(0, lane.down_text())
            return question.future
        out = lane.output()
        mark = out.used()
        out.append(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
        lane.note(<PyObject*> question, True, 0, NO_SLOT, 0, False, mark, PyBytes_GET_SIZE(frame),
                  self.router.now_ms + (timeout_ms if timeout_ms else self.limits.request_timeout))
        return question.future

    def ask_slot(self, Session session not None, int slot, list words, bint reads=False):
        """The same for the owner of a slot, through its gate if need be, on the connection of the session's commands."""
        cdef Call question = Call.__new__(Call)
        cdef bytes encoded = resp_of(words)
        cdef Buffer frame = Buffer()
        question.router = self.router
        question.dialect = session.dialect_now
        question.future = self.router.loop.create_future()
        frame.append(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        self.put_frame(question, 0, session, <uint16_t> slot, reads, frame, 0)
        self.work()
        return question.future

    def ask_block(self, Session session not None, int slot, list frames):
        """The same for encoded commands between MULTI and EXEC, whose replies are the answer."""
        cdef Call question = Call.__new__(Call)
        cdef Buffer frame = Buffer()
        cdef bytes one
        question.router = self.router
        question.dialect = session.dialect_now
        question.future = self.router.loop.create_future()
        for one in [MULTI_FRAME, *frames, EXEC_FRAME]:
            frame.append(PyBytes_AS_STRING(one), PyBytes_GET_SIZE(one))
        self.put_frame(question, 0, session, <uint16_t> slot, False, frame, 1 + <uint32_t> len(frames))
        self.work()
        return question.future

    def statistics(self):
        """What INFO shows of the connections."""
        cdef Node node
        cdef uint64_t in_flight = 0
        cdef Py_ssize_t slot, proven = 0, owned = 0, open_now = 0
        for node in self.all_lanes():
            if node.phase == UP:
                open_now += 1
                in_flight += node.in_flight
        for slot in range(SLOTS):
            proven += self.slots[slot].proven
            owned += self.slots[slot].owner != 0
        return {"connections": open_now, "connects": self.connects, "in_flight": in_flight, "slots_owned": owned,
                "slots_proven": proven, "redirects": self.redirects, "repeated_reads": self.repeats,
                "split_transactions": self.split_blocks, "waiting": self.waiting}


cdef bint send_remote(Session session, Remote remote, Command* command, uint16_t slot, uint16_t flags) except -1:
    """`Session.send_whole` in front of a Redis Cluster."""
    cdef Node node = remote.way_of(session, command, slot)
    cdef Buffer out
    cdef Py_ssize_t mark
    cdef int verdict, source
    if node is None:
        verdict = remote.admits(session, slot, flags)
        if verdict != SEND:
            return verdict == REFUSED
        source = remote.put(session, command, slot, session.parser.spans + command.words, session.parser.count - command.words)
    else:
        remote.places += 1
        if command.writes:
            session.wrote |= <uint64_t> 1 << (node.node & 63)
        out = node.output()
        mark = out.used()
        put_request(out, session)
        node.note(<PyObject*> session, False, 0, slot, remote.places, remote.reads[command.id], mark, out.used() - mark,
                  remote.router.now_ms + remote.limits.request_timeout)
        source = node.index
    session.order.put_u16(<uint16_t> source | flags)
    session.unanswered_bytes += session.parser.consumed
    return True
