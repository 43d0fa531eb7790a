# All clients and links of one router process: settings, accepting, timers, statistics.

# Between two looks at the links' deadlines (seconds): a tenth of the request timeout, within these.
cdef double LONGEST_TICK = 0.1
cdef double SHORTEST_TICK = 0.005

# Waits before connecting to a shard again (seconds), doubled after every failure.
cdef double FIRST_RETRY = 0.01
cdef double LONGEST_RETRY = 1.0

# How long a drained client may take to close its end of the connection (seconds).
cdef double GOODBYE = 0.25


cdef class Router(Reactor):
    """The process's clients, links and settings; also the reactor that serves their descriptors."""

    cdef readonly int index, shards
    cdef readonly list links             # the current Link of every shard
    cdef readonly object config, address
    cdef readonly int64_t started_ms
    cdef int64_t counting_ms             # start of the counters
    cdef readonly bint shutting_down
    cdef public object control           # towards the supervisor: `await control.request(message)`; None in tests
    cdef bytes digest
    cdef readonly uint64_t boot_id
    cdef public object config_file       # the TOML file the cluster was started with, or None
    cdef uint64_t last_session
    cdef CommandTable table
    cdef object planner
    cdef list paths, acceptors, waking, up_waiters
    cdef list retry_seconds
    cdef list told                       # why a shard is down, as the supervisor says; "" while it is not
    cdef dict by_id                      # session id -> Session
    cdef object tick_timer
    cdef int64_t next_sweep_ms
    cdef bint wake_scheduled
    cdef int refusing
    cdef int[MAX_SHARDS] touched
    cdef uint8_t[MAX_SHARDS] is_touched
    cdef int touched_count
    # Settings, as C numbers
    cdef int64_t request_timeout, idle_timeout, preauth_timeout, soft_output_ms
    cdef int keepalive, max_clients, most_here      # clients: of all routers together, and of this one
    cdef int64_t[::1] counts             # clients of every router, shared with them (kache/counts.py)
    cdef bint auth_required
    cdef Py_ssize_t max_frame, max_strings, max_bulk, query_limit, preauth_bytes, preauth_commands
    cdef Py_ssize_t session_commands, session_bytes
    cdef Py_ssize_t link_soft_commands, link_hard_commands, link_soft_bytes, link_hard_bytes
    cdef Py_ssize_t output_soft_bytes, output_hard_bytes, output_total
    # Statistics
    cdef readonly Py_ssize_t output_bytes
    cdef uint64_t commands, accepted, refused, timeouts, uncertain, refused_down, refused_overload
    cdef uint64_t protocol_errors, output_closed, timeout_closed, bytes_in_closed, bytes_out_closed
    cdef dict errors                     # code of an error reply made here -> how many
    cdef list samples                    # (now_ms, commands, bytes in, bytes out) of the last seconds

    def __init__(self, loop, config, paths, planner, *, index=0, boot_id=0, Clock clock=None, nested=None,
                 address=("127.0.0.1", 0), counts=None):
        """A router of `len(paths)` shards, their Unix sockets at `paths`; `start` connects to them.

        `planner(row, args, router)` divides what the compiled path cannot (planner.py). `counts` is what all routers have
        mapped, `index` this one's place in it; without it the router is alone.
        """
        if not 0 < len(paths) <= MAX_SHARDS:
            raise ValueError(f"{len(paths)} shards: there must be 1 to {MAX_SHARDS}")
        Reactor.__init__(self, loop, clock, nested)
        self.index = index
        self.counts = memoryview(bytearray(8) if counts is None else counts).cast("B").cast("q")
        self.most_here = 0x7FFFFFFF
        self.shards = len(paths)
        self.paths = list(paths)
        self.boot_id = boot_id
        self.digest = DIGEST
        self.planner = planner
        self.address = address
        self.table = CommandTable(TABLE, CONTAINERS.values())
        self.links = [Link(self, i, "not connected yet") for i in range(self.shards)]
        self.retry_seconds = [FIRST_RETRY] * self.shards
        self.told = [""] * self.shards
        self.acceptors = []
        self.waking = []
        self.up_waiters = []
        self.by_id = {}
        self.count_clients()
        self.errors = {}
        self.started_ms = self.counting_ms = self.now_ms
        self.samples = []
        # Ids rise over all routers of a cluster without asking each other.
        self.last_session = (<uint64_t> index) << 48
        self.apply_config(config)

    def apply_config(self, config):
        """Takes over the settings; they hold for existing clients too, where that is possible."""
        self.config = config
        self.request_timeout = config.request_timeout_ms
        self.idle_timeout = config.timeout * 1000
        self.preauth_timeout = config.preauth_timeout_ms
        self.soft_output_ms = config.output_soft_seconds * 1000
        self.linger_seconds = config.linger_ms / 1000
        self.linger_bytes = config.linger_bytes
        self.keepalive = config.tcp_keepalive
        self.max_clients = config.maxclients
        self.auth_required = bool(config.requirepass)
        self.max_frame = config.max_frame_bytes
        self.max_strings = config.max_strings
        self.max_bulk = config.proto_max_bulk_len
        self.query_limit = config.client_query_buffer_limit
        self.preauth_bytes = config.preauth_max_bytes
        self.preauth_commands = config.preauth_max_commands
        self.session_commands = config.max_inflight_per_client
        self.session_bytes = config.max_inflight_bytes_per_client
        self.link_soft_commands = config.link_soft_commands
        self.link_hard_commands = config.link_hard_commands
        self.link_soft_bytes = config.link_soft_bytes
        self.link_hard_bytes = config.link_hard_bytes
        self.output_soft_bytes = config.output_soft_bytes
        self.output_hard_bytes = config.output_hard_bytes
        self.output_total = config.maxmemory_clients or 0x7FFFFFFFFFFFFFFF
        for session in self.by_id.values():
            (<Session> session).set_limits()

    def limit_clients(self, int most):
        """No more clients than this, whatever the setting says (what the descriptors allow)."""
        self.most_here = most

    def require_auth(self, bint required):
        """Whether new clients must authenticate; existing ones keep what they have."""
        self.auth_required = required

    # Life -----------------------------------------------------------------------------------------
    def start(self):
        """Connects to the shards and starts the timers."""
        cdef int i
        for i in range(self.shards):
            self._connect(i)
        self.next_sweep_ms = self.now_ms + 1000
        self._tick()

    def listen(self, int fd):
        """Accepts clients on a listening socket; the descriptor is the router's from here on."""
        self.acceptors.append(Acceptor(self, fd))

    async def all_up(self):
        """Returns once every shard has answered the handshake."""
        while not all((<Link> link).phase == LINK_UP for link in self.links):
            waiter = self.loop.create_future()
            self.up_waiters.append(waiter)
            await waiter

    async def drain(self, double seconds):
        """Accepts nothing more, answers what is in flight, closes every client; at most `seconds`."""
        cdef double deadline = self.loop.time() + seconds
        self.shutting_down = True
        for acceptor in self.acceptors:
            acceptor.stop()
        for session in list(self.by_id.values()):
            session.finish()
        while self.by_id and self.loop.time() < deadline:
            if all([session.lingering for session in self.by_id.values()]):
                # Everything is answered; clients have a moment to close their end.
                deadline = min(deadline, self.loop.time() + GOODBYE)
            await asyncio.sleep(0.01)

    def stop(self):
        """Closes everything now."""
        self.shutting_down = True
        if self.tick_timer is not None:
            self.tick_timer.cancel()
        self.close()

    # Links ----------------------------------------------------------------------------------------
    def _connect(self, int index):
        cdef Link old = <Link> self.links[index]
        cdef Link link
        if self.shutting_down or self.closed or old.phase != LINK_DOWN:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(self.paths[index])
        except OSError as error:
            connection.close()
            old.reason = f"cannot connect: {error.strerror}"
            self._retry(index)
            return
        link = Link(self, index, "connecting")
        link.timeouts = old.timeouts
        link.reconnects = old.reconnects + 1
        self.links[index] = link
        link.connected(connection.detach())

    def _retry(self, int index):
        cdef double seconds = self.retry_seconds[index]
        self.retry_seconds[index] = min(2 * seconds, LONGEST_RETRY)
        self.loop.call_later(seconds, self._connect, index)
        self.leave = True

    cdef int link_up(self, Link link) except -1:
        log.info("shard %d is up (process %d)", link.index, link.pid)
        self.retry_seconds[link.index] = FIRST_RETRY
        waiters, self.up_waiters = self.up_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.leave = True
        return 0

    cdef int link_lost(self, Link link, bint was_up) except -1:
        if self.shutting_down or self.closed:
            return 0
        if was_up:
            log.warning("shard %d is down: %s", link.index, link.reason)
        if self.links[link.index] is link:
            self._retry(link.index)
        # It may have been lost while output was written, after the point where clients wake up.
        if not self.wake_scheduled:
            self.wake_scheduled = True
            self.loop.call_soon(self._wake_now)
        return 0

    def shard_is(self, int index, str state, str reason):
        """What the supervisor says of a shard: why it is down is told to clients, and once it is up it is connected to."""
        self.told[index] = reason if state == "down" else ""
        if state == "up" and (<Link> self.links[index]).phase == LINK_DOWN:
            self.retry_seconds[index] = FIRST_RETRY
            # The retry under way may be a second off; whichever comes second finds the link connected.
            self.loop.call_soon(self._connect, index)

    cdef int touch(self, int index) noexcept:
        if not self.is_touched[index]:
            self.is_touched[index] = 1
            self.touched[self.touched_count] = index
            self.touched_count += 1
        return 0

    cdef int end_runs(self) except -1:
        """Closes the run that the client being parsed has open on each link."""
        cdef int i
        for i in range(self.touched_count):
            self.is_touched[self.touched[i]] = 0
            (<Link> self.links[self.touched[i]]).end_run()
        self.touched_count = 0
        return 0

    cdef inline int shard_of_slot(self, uint16_t slot) noexcept:
        return (<int> slot * self.shards) >> 14

    def shard_of(self, bytes key not None):
        """The shard that holds `key`."""
        return self.shard_of_slot(slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))

    cdef uint16_t slot_for(self, object row, object arguments):
        """The slot of a row's first key, NO_SLOT without one."""
        cdef bytes key
        cdef int at
        if len(row.keys) != 1 or row.keys[0].kind != "range":
            return NO_SLOT
        at = row.keys[0].first - (2 if "|" in row.name else 1)
        if not 0 <= at < len(arguments):
            return NO_SLOT
        key = arguments[at]
        return slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))

    def call(self, int shard, str command not None, arguments, int db=0, Session session=None, timeout_ms=None):
        """Asks one shard; a future of the reply as a Python value.

        `command` is a row's key. The future raises CommandError for an error reply, and for CLUSTERDOWN, TRYAGAIN
        (nothing was executed), TIMEOUT and UNCERTAIN (executed once or not at all).
        """
        cdef Call question = Call.__new__(Call)
        cdef Link link = <Link> self.links[shard]
        row = self.table.by_key[command]
        question.router = self
        question.future = self.loop.create_future()
        if link.phase != LINK_UP:
            question.fail(0, link.down_text())
        elif link.over_hard(sum([len(argument) for argument in arguments])):
            question.fail(0, OVERLOADED)
        else:
            link.ask(question, 0, row.id, self.slot_for(row, arguments), arguments, db,
                     FLAG_NO_TOUCH if session is not None and session.no_touch_now else 0,
                     session.id if session is not None else 0,
                     self.now_ms + (self.request_timeout if timeout_ms is None else <int64_t> timeout_ms))
        return question.future

    async def call_all(self, str command, arguments, int db=0, Session session=None, timeout_ms=None):
        """Asks every shard; the list of replies. Raises the first error once all have answered."""
        futures = [self.call(shard, command, arguments, db, session, timeout_ms) for shard in range(self.shards)]
        replies = []
        failure = None
        for future in futures:
            try:
                replies.append(await future)
            except CommandError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return replies

    # Clients --------------------------------------------------------------------------------------
    cdef uint64_t next_session_id(self) noexcept:
        self.last_session += 1
        return self.last_session

    cdef inline void count_clients(self) noexcept:
        self.counts[self.index if self.counts.shape[0] > 1 else 0] = len(self.by_id)

    cdef bint has_room(self) noexcept:
        """Whether there may be one more client."""
        cdef int64_t total = 0
        cdef Py_ssize_t i
        for i in range(self.counts.shape[0]):
            total += self.counts[i]
        return total < self.max_clients and len(self.by_id) < self.most_here

    cdef int64_t clients_ahead(self) noexcept:
        """How many clients this router has more than the one with the fewest."""
        cdef int64_t least = len(self.by_id)
        cdef Py_ssize_t i
        for i in range(self.counts.shape[0]):
            least = min(least, self.counts[i])
        return len(self.by_id) - least

    cdef int add(self, Session session) except -1:
        self.accepted += 1
        self.by_id[session.id] = session
        self.count_clients()
        return 0

    cdef int remove(self, Session session) except -1:
        self.by_id.pop(session.id, None)
        self.count_clients()
        self.bytes_in_closed += session.bytes_in
        self.bytes_out_closed += session.bytes_out
        return 0

    def sessions(self):
        """Every client, the oldest first."""
        return list(self.by_id.values())

    def session_by_id(self, id):
        """The client of that id, or None."""
        return self.by_id.get(id)

    cdef int push(self, uint64_t id, const char* message, Py_ssize_t n) except -1:
        """Something out of band for a client, complete in its dialect."""
        cdef Session session = <Session> self.by_id.get(id)
        if session is not None and not session.closing:
            session.output().append(message, n)
            session.account(n)
            session.mark_dirty()
        return 0

    cdef int relieve_output(self, Session newest) except -1:
        """A client, or all together, keep more unread replies than allowed."""
        cdef Session session
        cdef Session largest = newest
        if newest.output_bytes <= self.output_hard_bytes:
            for session in self.by_id.values():
                if session.output_bytes > largest.output_bytes:
                    largest = session
        self.output_closed += 1
        log.warning("closing %s: it does not read its replies (%d bytes)", largest.address, largest.output_bytes)
        largest.close("unread replies over the output limit")
        return 0

    def _wake_now(self):
        self.wake_scheduled = False
        self.now_ms = self.clock.now_ms()
        self.before_flush()

    cdef int before_flush(self) except -1:
        cdef Session session
        while self.waking:
            waking, self.waking = self.waking, []
            for session in waking:
                try:
                    session.read_on()
                except Exception as error:
                    log.exception("closing a client after an internal error")
                    session.close(f"internal error: {error}")
        return 0

    # Timers ---------------------------------------------------------------------------------------
    def _tick(self):
        """Deadlines of requests; once a second the limits that are counted in seconds."""
        cdef Link link
        cdef double seconds = self.request_timeout / 10000.0
        try:
            self.now_ms = self.clock.now_ms()
            for link in list(self.links):
                if link.overdue < link.tail:
                    link.expire(self.now_ms)
            if self.now_ms >= self.next_sweep_ms:
                self.next_sweep_ms = self.now_ms + 1000
                self.clock.discipline()
                self.sweep()
                take_sample(self)
        except Exception:
            # Whatever it was, requests must go on timing out.
            log.exception("internal error in a timer")
        if not self.closed:
            self.tick_timer = self.loop.call_later(max(SHORTEST_TICK, min(LONGEST_TICK, seconds)), self._tick)

    cdef int sweep(self) except -1:
        cdef Session session
        cdef int64_t now = self.now_ms
        cdef str reason
        for session in list(self.by_id.values()):
            reason = None
            if session.closing:
                continue
            if now - session.connected_ms > self.preauth_timeout and (
                    session.commands == 0 or not session.authenticated_now):
                reason = "no complete command, or no authentication, in time"
            elif self.idle_timeout and now - session.last_ms > self.idle_timeout and not session.in_flight_now():
                reason = "idle for too long"
            elif (session.output_bytes > self.output_soft_bytes and session.unsent()
                    and now - session.written_ms > self.soft_output_ms):
                reason = "it does not read its replies"
            if reason is not None:
                self.timeout_closed += 1
                log.info("closing %s: %s", session.address, reason)
                session.close(reason)
        return 0

    # Statistics -----------------------------------------------------------------------------------
    def statistics(self):
        """Counters since the start (or the last reset), current levels, and rates over the last seconds."""
        return statistics_of(self)

    cdef int count_error(self, str message) except -1:
        """An error reply is made here; its code is the first word."""
        code = message.partition(" ")[0]
        self.errors[code] = self.errors.get(code, 0) + 1
        return 0

    def reset_statistics(self):
        """CONFIG RESETSTAT: counters start again from zero."""
        reset_statistics_of(self)

    @property
    def shard_count(self):
        """How many shards there are."""
        return self.shards

    @property
    def command_table(self):
        """The compiled table, for tests."""
        return self.table
