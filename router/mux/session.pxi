# The request side of a client: which protocol, which command, which shard, and when to wait. It is this long since Cython
# wants the methods of a class in one file.

cdef enum:
    FIRST_IN_FLIGHT = 8      # commands a client may have in flight before the size of its replies is known
    FIRST_AVERAGE = 65536    # and the size that is assumed until then
    PREAUTH_STRINGS = 10     # words of the longest command that is needed to authenticate (HELLO … SETNAME)

    SMALL_INPUT = 256 * 1024 # what a client may always have unexecuted: a read of the socket and a partial frame

    SLACK = 1024 * 1024      # what the one client that may use all the budget leaves of it

    LARGE_UNREAD = 256 << 10    # from here on replies are large enough that it matters whether the client reads them
    UNREAD_MOST = 4 << 20    # unread bytes of a client whose replies are, beyond which its next command waits
    READ_AHEAD_FROM = 1 << 20   # and beyond which its input is taken in all the same

    SLOW_WORDS = 32          # of a command in the slow log, and bytes of a word: those of kache/slow.py
    SLOW_WORD_BYTES = 128
    SLOW_BYTES = 4096        # kept of a command that may prove slow

    LARGE_COMMAND = 4096     # words; the table of a larger command's words is given back


cdef bytes ONLY_SUBSCRIBED = (
    b"ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context")


cdef class Session(Replies):

    def __cinit__(self):
        self.order = Buffer()
        self.name = self.lib_name = self.lib_ver = b""
        self.dialect_now = RESP2

    def __init__(self, Router router, int fd, bint sealed=False):
        """Takes over the descriptor of an accepted connection; `sealed`: it speaks TLS."""
        Endpoint.__init__(self, router, fd)
        if sealed:
            begin_tls(self, router.handshakes)
        self.router = router
        self.id = router.clients.next_id()
        self.rights = router.users.default
        self.authenticated_now = self.rights.enabled and self.rights.nopass
        self.set_restricted()
        self.connected_ms = self.stranger_ms = self.last_ms = self.written_ms = router.now_ms
        self.average = FIRST_AVERAGE
        self.merged_average = -1
        self.set_allowance()
        kache_tune(fd, router.limits.keepalive)
        router.clients.add(self)
        router.quotas.follow(self)
        if router.clients.pause_mode == PAUSE_ALL:
            self.stall()

    # What Python sees -----------------------------------------------------------------------------
    @property
    def db(self):
        """The selected database."""
        return self.db_now

    @db.setter
    def db(self, int value):
        self.router.shards.end_runs()
        self.db_now = value

    @property
    def dialect(self):
        """0 binary, 2 RESP2, 3 RESP3."""
        return self.dialect_now

    @dialect.setter
    def dialect(self, int value):
        self.router.shards.end_runs()
        self.dialect_now = value
        self.set_restricted()

    @property
    def no_touch(self):
        """CLIENT NO-TOUCH: its commands leave LRU and LFU alone."""
        return self.no_touch_now

    @no_touch.setter
    def no_touch(self, bint value):
        self.router.shards.end_runs()
        self.no_touch_now = value

    @property
    def authenticated(self):
        """Whether it may do more than authenticate."""
        return self.authenticated_now

    @authenticated.setter
    def authenticated(self, bint value):
        if self.authenticated_now and not value:
            # What a stranger may do counts from here.
            self.stranger_ms = self.router.now_ms
            self.stranger_commands = self.commands
        self.authenticated_now = value
        self.set_restricted()
        self.set_limits()
        self.router.quotas.follow(self)

    @property
    def user(self):
        """The name of its user."""
        return self.rights.name.decode("utf-8", "replace")

    def log_in(self, User user not None):
        """It acts in the name of this user from its next command on."""
        self.router.shards.end_runs()
        self.rights = user
        self.auth_failures = 0
        self.authenticated = True

    def log_out(self):
        """It is as one that has just connected: the default user's, if that needs no password."""
        self.router.shards.end_runs()
        self.rights = self.router.users.default
        self.authenticated = self.rights.enabled and self.rights.nopass

    @property
    def binary(self):
        """Whether it speaks the binary protocol."""
        return self.protocol == PROTOCOL_BINARY

    @property
    def address(self):
        """Its address, "host:port"."""
        if self.peer_name is None:
            self.peer_name = name_of_socket(self.fd, True)
        return self.peer_name

    @property
    def certificate(self):
        """What its client has proved to be (`ssl.SSLSocket.getpeercert`): {} without a certificate, None without TLS."""
        cdef object peer = None if self.tls is None else self.tls.ssl_object
        return None if peer is None else peer.getpeercert() or {}

    @property
    def local_address(self):
        """The address it connected to, "host:port"."""
        return name_of_socket(self.fd, False)

    @property
    def last_command(self):
        """Row key of its last command, "" before the first."""
        return "" if self.current == NULL else <object> self.current.key

    @property
    def in_flight(self):
        """Commands whose replies have not left yet."""
        return self.in_flight_now()

    @property
    def unsent_bytes(self):
        """Bytes of replies that the socket has not taken."""
        return self.unsent()

    @property
    def held_bytes(self):
        """Bytes of replies that wait for their turn."""
        return self.output_bytes - self.unsent()

    @property
    def unparsed_bytes(self):
        """Bytes of input that were not executed yet."""
        return self.unparsed()

    @property
    def blocked(self):
        """Whether a multi-step command holds its further input."""
        return self.barrier is not None

    @property
    def peer_gone(self):
        """Whether the client has closed its sending side, even behind input that is not read yet: who waits on its
        behalf may be waiting for nobody."""
        return self.eof or self.peer != PEER_SENDS

    @property
    def queued(self):
        """How many commands are queued since MULTI; -1 without."""
        return -1 if self.queue is None else self.queue.count

    @property
    def queued_bytes(self):
        """What they cost."""
        return 0 if self.queue is None else self.queue.cost()

    @property
    def watching(self):
        """In how many slots it watches keys."""
        return 0 if self.watched is None else sum([len(slots) for slots in self.watched.values()])

    def drop_queue(self):
        """What is queued is not executed; nothing is watched any more."""
        end_multi(self)

    def note_watched(self, int shard, slots):
        """A shard has been told to watch keys in these slots on behalf of this session."""
        if self.watched is None:
            self.watched = {}
        self.watched.setdefault(self.router.links[shard], set()).update(slots)

    def unwatch(self):
        """Nothing is watched any more."""
        unwatch(self)

    def unwatch_on(self, watched):
        """The same for what `lead` was given."""
        unwatch_on(self, watched)

    def block_with(self, blocker not None):
        """Its command waits from now on. `blocker` has `unblock(error)` for CLIENT UNBLOCK, and `leave()` for when the client
        is gone. One that is gone already, or whose router is leaving, is closed at once."""
        if self.gone:
            blocker.leave()
            return
        if self.blocker is None:
            self.router.clients.blocked += 1
        self.blocker = blocker
        if self.peer_gone or self.router.shutting_down:
            self.close("it left while it waited" if self.peer_gone else "the router is leaving")

    def unblocked(self):
        """Its command does not wait any longer."""
        if self.blocker is not None:
            self.router.clients.blocked -= 1
            self.blocker = None

    def answer_now(self, value):
        """The reply of the command that a coroutine leads for it: what that returns later is not looked at.

        It leaves at once: what its coroutine has still to do takes longer than the reply.
        """
        if not isinstance(self.barrier, Led):
            return
        (<Led> self.barrier).complete(value)
        try:
            self.flush()
        except Exception as error:
            log.exception("closing descriptor %d after an internal error", self.fd)
            self.close(f"internal error: {error}")

    # Listening ------------------------------------------------------------------------------------
    def subscribe(self, int kind, tuple names not None):
        """It listens to these from here on (kinds: kache/wire/link.pxd). The reply, when shards have answered; to be awaited
        inside a transaction."""
        if self.barrier is not None:
            # Inside a transaction: its reply has the confirmations.
            self.unconfirmed = self.barrier
        return self.router.channels.subscribe(self, kind, names)

    def unsubscribe(self, int kind, tuple names not None):
        """It does not any longer; without names: to nothing of that kind. The reply, as that of `subscribe`."""
        return self.router.channels.unsubscribe(self, kind, names)

    def monitor(self):
        """It watches all commands from here on: to be awaited."""
        if self.barrier is not None:
            self.unconfirmed = self.barrier
        return self.router.channels.subscribe(self, PUBLISHED_MONITOR, (WATCHED_NAME,))

    def unsubscribe_all(self):
        """It listens to nothing, watches nothing, and is not told."""
        if self.subscriptions or self.monitors_all:
            self.router.channels.forget(self)

    def listening_to(self, int kind):
        """To how many channels or patterns of that kind it listens."""
        return 0 if self.listening is None else len(<dict> self.listening[kind])

    cdef bint listen(self, int kind, bytes name, bint wanted) except -1:
        """Notes that it listens to a name, or does not any longer; whether that is new."""
        cdef dict names
        if self.listening is None:
            self.listening = [{} for _ in range(SUBSCRIBED_KINDS)]
        names = self.listening[kind]
        if (name in names) == wanted:
            return False
        if wanted:
            names[name] = None
        else:
            del names[name]
        if kind == PUBLISHED_MONITOR:
            # Not told to clients as a subscription is: they may go on with whatever they do.
            self.monitors_all = wanted
            return True
        self.subscriptions += 1 if wanted else -1
        self.kind = CLASS_PUBSUB if self.subscriptions else CLASS_NORMAL
        self.set_restricted()
        return True

    # Tracking -------------------------------------------------------------------------------------
    def track(self, redirect, int modes, tuple prefixes not None):
        """It is told of changes from here on, or `redirect` is for it (0: itself): a future of when all shards know that.

        `modes`: 1 broadcast, 2 no loop, 4 opt in, 8 opt out; the prefixes are for broadcast.
        """
        cdef TrackingBegins begins = TrackingBegins.__new__(TrackingBegins)
        begins.router = self.router
        begins.future = self.router.loop.create_future()
        begins.missing = 1
        begins.missing += self.router.trackers.begin(self, Tracks(redirect, modes, prefixes), begins)
        begins.one_less()
        return begins.future

    def end_tracking(self):
        """It is not told any longer."""
        self.router.trackers.end(self)

    def say_caching(self, bint wanted):
        """CLIENT CACHING: of the next command, or transaction."""
        self.router.shards.end_runs()
        self.tracks.caching = wanted
        self.caching_for = 1
        self.track_flag = self.tracks.flag()
        self.set_restricted()

    cdef int caching_over(self) except -1:
        self.router.shards.end_runs()
        self.caching_for = 0
        if self.tracks is not None:
            self.tracks.caching = CACHING_UNSAID
            self.track_flag = self.tracks.flag()
        self.set_restricted()
        return 0

    cdef int set_tracks(self, Tracks tracks) except -1:
        self.router.shards.end_runs()
        self.tracks = tracks
        self.caching_for = 0
        self.track_flag = 0 if tracks is None else tracks.flag()
        self.set_restricted()
        return 0

    cdef Py_ssize_t listens(self, int kind) noexcept:
        """To how many names, as confirmations count them: channels and patterns together."""
        if self.listening is None:
            return 0
        if kind == PUBLISHED_SHARD_CHANNEL:
            return len(<dict> self.listening[kind])
        return len(<dict> self.listening[PUBLISHED_CHANNEL]) + len(<dict> self.listening[PUBLISHED_PATTERN])

    cdef tuple names(self, int kind):
        return () if self.listening is None else tuple(<dict> self.listening[kind])

    def finish(self):
        """Reads nothing more; answers everything before, then closes."""
        self.finishing = True
        self.proceed()

    def kill(self, str reason="killed"):
        """Closes now, whatever is unanswered."""
        self.close(reason)

    # Input ----------------------------------------------------------------------------------------
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t at = 0, taken
        cdef uint64_t before = self.commands
        cdef int state
        if self.finishing:
            self.keep_input(0)
            return n
        self.last_ms = self.router.now_ms
        if self.stalled:
            # It is read so that it can go on writing.
            if not self.may_resume():
                return self.take_aside(n)
            self.stalled = False
        if self.rights.paced and self.router.quotas.is_spent(self.rights):
            self.router.quotas.rest(self)
            self.keep_input(n)
            self.stall()
            return 0
        self.set_allowance()
        if self.protocol == PROTOCOL_UNKNOWN:
            if self.begun_ms == 0:
                self.begun_ms = self.router.now_ms
            if not self.sniff(data, n):
                return n if self.finishing or self.fd < 0 else 0
        try:
            while at < n:
                if self.must_wait():
                    self.stall()
                    break
                if self.upload is not None:
                    taken = go_on_uploading(self, data + at, n - at)
                    if taken == 0:
                        break
                    at += taken
                    if self.finishing or self.fd < 0:
                        at = n
                    continue
                state = self.parse(data + at, n - at)
                if state == FRAME:
                    if not self.execute():
                        self.stall()
                        break
                    at += self.parser.consumed
                elif state == EMPTY:
                    at += self.parser.consumed
                elif state == NEED_MORE:
                    if (self.parser.pending_size > LARGE and self.router.remote is None
                            and (self.protocol == PROTOCOL_BINARY or data[at] == c"*")):
                        taken = begin_upload(self, data + at, n - at)
                        if taken:
                            at += taken
                            continue
                    if n - at > self.router.limits.query_limit:
                        self.close("unparsed input over client-query-buffer-limit")
                    elif n - at > SMALL_INPUT and not self.may_grow(n - at):
                        self.stall()
                        self.starve()
                    break
                else:
                    self.protocol_error(self.parser.error)
                if self.finishing or self.fd < 0:
                    at = n
        finally:
            self.router.shards.end_runs()
        if self.rights.paced:
            self.router.quotas.charge(self.rights, self.commands - before, at)
        if self.parser.capacity > LARGE_COMMAND and self.parser.resume_total < 0:
            self.parser.reset()
        self.keep_input(n - at)
        self.predict()
        if self.finishing or self.eof:
            self.proceed()
        return at

    cdef inline int parse(self, const char* data, Py_ssize_t n) except -2:
        if self.protocol == PROTOCOL_BINARY:
            return self.parser.parse_binary(data, n)
        if data[0] == c"*":
            return self.parser.parse_resp(data, n)
        return self.parser.parse_inline(data, n)

    cdef bint sniff(self, const char* data, Py_ssize_t n) except -1:
        """The first four bytes decide on the protocol; False when the rest of `data` is not to be parsed."""
        cdef uint8_t byte
        cdef int i
        cdef bint text = True
        if n < 4:
            return False
        for i in range(4):
            byte = <uint8_t> data[i]
            if not (32 <= byte < 127 or byte == 9 or byte == 10 or byte == 13):
                text = False
        # A binary request within its limit has a fourth byte of at most 8. Any other may belong to a line of text in
        # whatever encoding; control characters do not, nor does 255, which a broken length begins with.
        if not text and <uint8_t> data[3] > 8:
            text = True
            for i in range(4):
                byte = <uint8_t> data[i]
                if byte == 127 or byte == 255 or (byte < 32 and byte != 9 and byte != 10 and byte != 13):
                    text = False
        if text:
            self.protocol = PROTOCOL_RESP
        elif data[0] == 0x16 and data[1] == 3 and <uint8_t> data[2] <= 4:
            log.warning("TLS on the plain port, from %s", self.address)
            self.close("TLS on the plain port")
            return False
        elif <uint8_t> data[3] <= 8:
            self.protocol = PROTOCOL_BINARY
            self.dialect_now = BINARY
        else:
            self.protocol_error(b"ERR Protocol error: neither RESP nor a binary request")
            return False
        self.parser = RequestParser()
        self.parser.look_into = UPLOAD_STRINGS
        self.set_limits()
        return True

    cdef int set_limits(self) except -1:
        """Limits of one request; tight ones for a stranger."""
        cdef Limits limits = self.router.limits
        cdef RequestParser parser = self.parser
        if parser is None:
            return 0
        if self.authenticated_now:
            parser.max_frame = limits.max_frame if self.protocol == PROTOCOL_BINARY else limits.query_limit
            parser.max_strings = limits.max_strings
            parser.max_bulk = limits.max_bulk
        else:
            parser.max_frame = limits.preauth_bytes
            parser.max_strings = PREAUTH_STRINGS
            parser.max_bulk = limits.preauth_bytes
        return 0

    cdef int protocol_error(self, bytes message) except -1:
        """Answers in its place and closes behind it."""
        self.router.counters.protocol_errors += 1
        self.answer_error(message, 0)
        self.finishing = True
        return self.proceed()

    # Back-pressure --------------------------------------------------------------------------------
    cdef inline bint must_wait(self) noexcept:
        cdef Py_ssize_t in_flight = self.in_flight_now()
        if self.barrier is not None:
            self.resume_at = in_flight
            return True
        if in_flight == 0:
            self.unanswered_bytes = 0
        elif in_flight >= self.allowed:
            self.resume_at = in_flight // 2
            return True
        elif self.unanswered_bytes > self.router.limits.session_bytes:
            self.resume_at = 0
            return True
        if self.output_bytes > self.output_room:
            self.resume_at = in_flight
            return True
        return False

    cdef Py_ssize_t room(self) noexcept:
        """What it may cost: twice what the budget has left beside it."""
        cdef Clients clients = self.router.clients
        cdef Py_ssize_t left = (self.router.limits.budget - clients.cost() - clients.forecast
                                + self.cost() + self.forecast)
        if left <= 0:
            return 0
        return max(left * 2 // 3, left - SLACK) if self is clients.favoured else left * 2 // 3

    cdef int set_allowance(self) noexcept:
        """Commands it may have in flight: fewer when its replies are large, for they must all find room here."""
        cdef Py_ssize_t left = self.room()
        cdef Py_ssize_t by_size
        self.output_room = left
        left -= self.cost()
        if self.has_large_replies():
            # Shards are at work for those who read, not for one who does not: two, so that they are while it reads one.
            self.output_room = min(self.output_room, <Py_ssize_t> UNREAD_MOST)
            left = min(left, max(UNREAD_MOST - self.output_bytes, 2 * self.average))
        if left <= self.average:
            self.allowed = 1
            return 0
        by_size = left // (self.average if self.average > 0 else 1)
        self.allowed = min(by_size, self.router.limits.session_commands)
        if self.average == FIRST_AVERAGE:
            self.allowed = min(self.allowed, FIRST_IN_FLIGHT)
        return 0

    cdef bint may_merge(self) noexcept:
        """A reply made of parts has any size: one at a time until it is known, and then as many as find room."""
        cdef Py_ssize_t left
        if self.merging == 0:
            return True
        if self.merged_average >= 0:
            left = self.room() - self.cost()
            if self.has_large_replies():
                left = min(left, UNREAD_MOST - self.output_bytes)
            if (self.merging + 1) * self.merged_average <= left:
                return True
        self.resume_at = self.in_flight_now() - 1
        return False

    cdef int keep_input(self, Py_ssize_t n) except -1:
        """n bytes of what it sent wait to be executed, or for the rest of their request."""
        if self.parser is not None and self.parser.capacity > LARGE_COMMAND:
            n += self.parser.capacity * (sizeof(Span) + sizeof(Py_ssize_t))
        if self.upload is not None:
            n += self.upload.total
        if self.queue is not None:
            n += self.queue.cost()
        if n == self.input_bytes or self.gone:
            return 0
        self.router.clients.input_bytes += n - self.input_bytes
        self.input_bytes = n
        if self.router.clients.over_budget():
            self.router.clients.relieve()
        return 0

    cdef bint may_grow(self, Py_ssize_t n) noexcept:
        """Whether more of an unfinished request may be read, of which n bytes are here."""
        return n + self.output_bytes <= self.room()

    cdef inline bint has_large_replies(self) noexcept:
        """As far as is known; and how much it may leave unread is not said otherwise (client-output-buffer-limit)."""
        return ((self.average >= LARGE_UNREAD or self.merged_average >= LARGE_UNREAD)
                and not self.router.limits.output_hard[self.kind] and not self.router.limits.output_soft[self.kind])

    cdef int stall(self) except -1:
        self.stalled = True
        if self.output_bytes > self.output_room and self.output_bytes > self.room():
            self.starve()
        return 0 if self.reads_ahead() else self.pause()

    cdef bint reads_ahead(self) noexcept:
        """Whether it is read although its next command waits: who writes everything before they read anything must come to
        the end of it, and what it waits for may be that they read."""
        return (self.output_bytes > READ_AHEAD_FROM and self.router.clients.pause_mode != PAUSE_ALL
                and (self.input_bytes <= SMALL_INPUT or self.may_grow(self.input_bytes)))

    cdef Py_ssize_t take_aside(self, Py_ssize_t n) except -1:
        """n bytes of input wait with the command before them."""
        self.keep_input(n)
        if not self.gone and not self.reads_ahead():
            self.pause()
            if self.input_bytes > SMALL_INPUT:
                self.starve()
        return n if self.fd < 0 else 0

    cdef int starve(self) except -1:
        """It waits for room, which others may make."""
        if not self.starving:
            self.starving = True
            self.router.clients.starving.append(self)
        return 0

    cdef bint may_resume(self) except -1:
        if (self.barrier is not None or self.waits_for is not None or self.in_flight_now() > self.resume_at
                or self.router.clients.pause_mode == PAUSE_ALL):
            return False
        if self.resting:
            if self.router.quotas.is_spent(self.rights):
                return False
            self.resting = False
        self.set_allowance()
        if self.input_bytes > SMALL_INPUT and not self.may_grow(self.input_bytes):
            self.starve()
            return False
        if self.output_bytes <= self.output_room:
            return True
        if self.output_bytes > self.room():
            self.starve()
        return False

    cdef int wake(self) except -1:
        """It is read again before the output of this iteration is written, if nothing else keeps it."""
        if not self.waking and self.stalled and not self.gone:
            self.waking = True
            self.router.clients.waking.append(self)
        return 0

    cdef int proceed(self) except -1:
        """Something was answered: read on, or close what is complete."""
        if self.gone:
            return 0
        if self.stalled:
            if not self.waking and (self.finishing or self.may_resume()):
                # Not from here: a link may be in the middle of handing out replies.
                self.wake()
                self.mark_dirty()
            elif not self.waking and not self.reading:
                self.read_ahead()
        elif (self.finishing or self.eof) and self.order.used() == 0 and self.barrier is None:
            self.close_after_reply("finished")
        return 0

    cdef int read_ahead(self) except -1:
        """It is read again, if that is what it needs; no command of it is executed."""
        return self.resume() if self.reads_ahead() else 0

    cdef int relieved(self) except -1:
        # Outside of any link's work: it reads on at once.
        if self.stalled and not self.gone and (self.finishing or self.may_resume()):
            return self.read_on()
        return 0

    cdef int read_on(self) except -1:
        self.waking = False
        if self.gone or not self.stalled:
            return 0
        self.stalled = False
        if self.reading:
            self.offer()
        else:
            self.resume()
        # What was left unparsed may have been all of it.
        if not self.stalled:
            self.proceed()
        return 0

    # Execution ------------------------------------------------------------------------------------
    cdef bint execute(self) except -1:
        """Carries out the frame in the parser; False when it must wait (nothing was done then)."""
        cdef RequestParser parser = self.parser
        cdef Span* words = parser.spans
        cdef Command* command
        cdef uint16_t flags = 0
        command = self.current
        if (command == NULL or command.word == 0 or command.name_size != words[0].size
                or command.word != short_word(words[0].data, words[0].size)):
            command = self.router.table.find(self.protocol == PROTOCOL_BINARY, words, parser.count)
        if self.reply_mode != 0:
            flags = SILENT
        if command == NULL or not self.fits(command, parser.count):
            self.refuse(command, flags)
        elif self.restricted:
            if self.limited and permitted_plainly(self.rights.selectors, self.rights.count, command, words, parser.count):
                if not self.carry_out(command, flags):
                    return False
            elif not self.execute_restricted(command, flags):
                return False
            if self.caching_for == 1 and self.queue is None and not is_about_clients(command):
                # Of what it still has to ask of shards, too; the next command ends it.
                self.caching_for = 2
        elif command.route <= ROUTE_MOVE and not command.planned:
            if not self.forward(command, flags):
                return False
        elif command.route == ROUTE_LOCAL:
            self.run_local(command, flags)
        elif not run_planned(self, command, flags):
            return False
        self.current = command
        if self.router.watched[0] | self.router.watched[1] and command != NULL:
            if self.refused_at != self.commands + 1:
                self.router.monitors.tell(self, command)
        self.commands += 1
        self.router.counters.commands += 1
        if self.reply_mode == 2 and flags:
            # SKIP silences one command: the one after it.
            self.reply_mode = 0
        elif self.reply_mode == 3:
            self.reply_mode = 2
        if not self.authenticated_now and (
                self.commands - self.stranger_commands >= <uint64_t> self.router.limits.preauth_commands):
            self.protocol_error(b"ERR too many commands before authentication")
        return True

    cdef bint execute_restricted(self, Command* command, uint16_t flags) except -1:
        """A command of a stranger, of a user who may not do everything, of one that listens, behind MULTI, or while writing
        clients are paused; False when it must wait."""
        if self.caching_for == 2 and self.queue is None:
            self.caching_over()
        if not self.rights.unrestricted and self.authenticated_now and not command.no_auth and not may_execute(
                self, command, flags):
            self.refused_at = self.commands + 1
            return True
        if not self.admitted(command):
            if self.authenticated_now:
                # CLIENT PAUSE
                self.resume_at = self.in_flight_now()
                return False
            if self.queue is not None:
                self.queue.broken = True
            self.refused_at = self.commands + 1
            self.answer_error(NO_AUTH, flags)
            return True
        if self.subscriptions and self.dialect_now == RESP2 and not command.while_subscribed:
            if self.queue is not None:
                self.queue.broken = True
            self.refused_at = self.commands + 1
            self.answer_error(ONLY_SUBSCRIBED % command.name[:command.name_size], flags)
            return True
        if self.queue is not None and command.executes:
            return run_exec(self, command, flags)
        if self.queue is not None and not command.immediate:
            return queue_command(self, command, flags)
        return self.carry_out(command, flags)

    cdef bint carry_out(self, Command* command, uint16_t flags) except -1:
        if command.route <= ROUTE_MOVE and not command.planned:
            return self.forward(command, flags)
        if command.route == ROUTE_LOCAL:
            self.run_local(command, flags)
            return True
        return run_planned(self, command, flags)

    cdef void set_restricted(self) noexcept:
        cdef bint held_up = self.held_up()
        self.restricted = held_up or not self.rights.unrestricted
        self.limited = not held_up and not self.rights.unrestricted

    cdef bint held_up(self) noexcept:
        """Whether not every command is executed at once, whatever its user may do."""
        return (not self.authenticated_now or self.queue is not None
                or (self.subscriptions > 0 and self.dialect_now == RESP2) or self.caching_for != 0
                or self.router.clients.pause_mode == PAUSE_WRITES)

    cdef bint admitted(self, Command* command):
        """Whether a stranger, or anybody while writing clients are paused, may have the command executed now."""
        if not self.authenticated_now:
            return command.no_auth
        return self.router.clients.pause_mode != PAUSE_WRITES or not (
            command.writes or (command.executes and self.queue is not None and self.queue.writes) or "may_replicate" in (<object> command.row).flags)

    cdef inline bint fits(self, Command* command, Py_ssize_t count) noexcept:
        if command.container and count > 1:
            return False
        if command.arity >= 0:
            return count == command.arity
        return count >= -command.arity

    cdef int refuse(self, Command* command, uint16_t flags) except -1:
        """Unknown command, unknown subcommand, or the wrong number of arguments."""
        cdef Span* words = self.parser.spans
        cdef bytes name
        self.refused_at = self.commands + 1
        if command == NULL:
            name = c_text(words[0], 16).lower()
            if name == b"post" or name == b"host:":
                # A browser was made to send a request here: nothing behind it may be executed.
                log.warning("possible attack by cross-protocol scripting from %s; closed", self.address)
                self.close("an HTTP request")
                return 0
        if self.queue is not None:
            self.queue.broken = True
        if not self.authenticated_now and (command == NULL or not command.no_auth):
            # A stranger does not learn which commands there are.
            return self.answer_error(NO_AUTH, flags)
        if command == NULL:
            self.answer_error(unknown_command(words, self.parser.count), flags)
            return 0
        if command.container and self.parser.count > 1:
            return self.answer_error(unknown_subcommand(command, words[1]), flags)
        return self.answer_error(wrong_arity(command), flags)

    # Commands of shards ---------------------------------------------------------------------------
    cdef bint forward(self, Command* command, uint16_t flags) except -1:
        """A command whose keys are a plain range: to their shard if they have one in common."""
        cdef Span* words = self.parser.spans
        cdef Py_ssize_t count = self.parser.count
        cdef Py_ssize_t last = command.last if command.last >= 0 else count + command.last
        cdef Py_ssize_t key
        cdef uint16_t slot
        cdef int shard
        if command.first <= 0 or command.first >= count:
            return run_planned(self, command, flags)
        slot = slot_of(words[command.first].data, words[command.first].size)
        shard = self.router.shard_at(slot)
        if last > command.first:
            key = command.first + command.step
            while key <= last:
                if self.router.shard_at(slot_of(words[key].data, words[key].size)) != shard:
                    if (count - command.first) % command.step:
                        # MSET with a key that has no value.
                        self.answer_error(wrong_arity(command), flags)
                        return True
                    if command.fold:
                        return gather_parts(self, command, last, flags)
                    return run_planned(self, command, flags)
                key += command.step
        if command.publishes:
            if not self.may_publish(shard):
                return False
            flags |= PUBLISHES
        return self.send_whole(command, shard, slot, flags)

    cdef bint may_publish(self, int shard) noexcept:
        """Whether what it asked of other shards before is done: nobody learns of a message earlier. What is only published
        elsewhere has an order of its own."""
        cdef Py_ssize_t at = self.in_flight_now()
        cdef uint16_t head
        while at > 0:
            at -= 1
            memcpy(&head, self.order.data + self.order.start + 2 * at, 2)
            if not head & PUBLISHES and (head & SOURCE) != shard and (head & SOURCE) != FROM_LOCAL:
                self.resume_at = self.in_flight_now() - at - 1
                return False
        return True

    cdef bint send_whole(self, Command* command, int shard, uint16_t slot, uint16_t flags) except -1:
        """One shard can answer the command as it stands."""
        cdef Backend backend
        cdef int verdict, source
        if self.router.remote is not None:
            return send_remote(self, self.router.remote, command, slot, flags)
        backend = <Backend> self.router.places[shard]
        if backend.phase != UP or backend.over_soft():
            verdict = backend.admits(self, slot, flags)
            if verdict != SEND:
                return verdict == REFUSED
        source = backend.put(self, command, slot, self.parser.spans + command.words, self.parser.count - command.words)
        self.order.put_u16(<uint16_t> source | flags)
        self.unanswered_bytes += self.parser.consumed
        return True

    cdef int may_send(self, Backend backend, uint16_t flags) except -1:
        """SEND, or REFUSED (answered), or WAIT: slow down instead of filling the backend."""
        if backend.phase != UP:
            self.router.counters.refused_down += 1
            self.answer_error(backend.down_text(), flags)
            return REFUSED
        if backend.busy:
            self.answer_error(busy_text(backend.busy), flags)
            return REFUSED
        if not backend.over_soft():
            return SEND
        if backend.stuck():
            self.router.counters.refused_overload += 1
            self.answer_error(OVERLOADED, flags)
            return REFUSED
        self.resume_at = self.in_flight_now()
        self.waits_for = backend
        backend.wait_for_room(self)
        return WAIT

    cdef inline int flags_of_runs(self) noexcept:
        cdef int flags = (FLAG_NO_TOUCH if self.no_touch_now else 0) | self.track_flag
        return flags | FLAG_UPLOADED if self.upload is not None and self.upload.sending else flags

    # Local commands -------------------------------------------------------------------------------
    cdef tuple arguments(self, Command* command):
        cdef Span* words = self.parser.spans
        cdef Py_ssize_t i
        return tuple([PyBytes_FromStringAndSize(words[i].data, words[i].size)
                      for i in range(command.words, self.parser.count)])

    cdef int run_local(self, Command* command, uint16_t flags) except -1:
        cdef int64_t started
        cdef int mode = self.reply_mode
        if command.begins and self.queue is None:
            return begin_queue(self, command, flags)
        if self.router.shards.all_busy and not command.while_busy:
            return self.answer_error(busy_text(self.router.shards.all_busy), flags)
        started = monotonic_ns()
        try:
            value = (<object> command.handler)(self.router, self, *self.arguments(command))
        except Exception as error:
            value = reply_of(error, command)
            self.router.counters.count_error(value.message)
        if type(value) is CoroutineType:
            return self.run_coroutine(command, value, flags)
        if command.pushes:
            flags = 0
            if type(value) is Subscription:
                return self.confirm_later(command, <Subscription> value, started)
        started = monotonic_ns() - started
        count_local(command, started)
        if started >= self.router.limits.slow_ns:
            self.note_slow(started, self.first_words(), self.parser.count, -1)
        if self.gone:
            return 0
        if self.reply_mode != mode:
            # CLIENT REPLY itself: ON is answered, OFF and SKIP are not.
            flags = SILENT if self.reply_mode else 0
        return self.answer(value, flags)

    cdef int confirm_later(self, Command* command, Subscription subscription, int64_t started) except -1:
        """The confirmations leave when the shards have answered."""
        count_local(command, monotonic_ns() - started)
        if self.gone:
            return 0
        if not subscription.ends:
            self.unconfirmed = subscription
        self.expect_pending(subscription, 0)
        if subscription.missing == 0:
            return subscription.complete(subscription.messages)
        return 0

    cdef int run_coroutine(self, Command* command, object coroutine, uint16_t flags) except -1:
        cdef Led led = Led.__new__(Led)
        self.router.shards.end_runs()
        led.router = self.router
        led.session = self
        led.dialect = self.dialect_now
        led.command = command
        if command.may_block:
            led.arguments = self.arguments(command)
        self.barrier = led
        led.keep_words(self)
        led.started = monotonic_ns()
        self.expect_pending(led, flags)
        return led.start(coroutine)

    # Slow log -------------------------------------------------------------------------------------
    cdef Py_ssize_t framed_size(self) noexcept:
        """How much of the command in the parser the slow log may look at, from its first word on with what stands between
        the words: one piece, to be copied as it is, since few are ever looked at. -1 for an inline command, whose words
        lie scattered."""
        cdef RequestParser parser = self.parser
        cdef Span* last = &parser.spans[parser.count - 1]
        if parser.words and PyBytes_AS_STRING(<bytes> parser.words[0]) == parser.spans[0].data:
            return -1
        return min(last.data + last.size - parser.spans[0].data, <Py_ssize_t> SLOW_BYTES)

    cdef bytes first_words(self):
        """The beginning of the command in the parser: of its first words each the full size and the first bytes."""
        cdef char[SLOW_WORDS * (8 + SLOW_WORD_BYTES)] room
        cdef Span* words = self.parser.spans
        cdef Py_ssize_t at = 0, i, kept
        cdef int64_t size
        for i in range(min(self.parser.count, <Py_ssize_t> SLOW_WORDS)):
            size = words[i].size
            kept = min(words[i].size, <Py_ssize_t> SLOW_WORD_BYTES)
            memcpy(room + at, &size, 8)
            memcpy(room + at + 8, words[i].data, kept)
            at += 8 + kept
        return PyBytes_FromStringAndSize(room, at)

    cdef int note_slow(self, int64_t took, bytes words, Py_ssize_t count, Py_ssize_t first) except -1:
        """A command that the router answered, led or divided took so many nanoseconds. `words` are framed, the first
        of them so long, or first_words with -1. What the metrics process asks again and again is none of them."""
        if self.rights is self.router.users.metrics:
            return 0
        try:
            found = unpacked(words) if first < 0 else unframed(words, first, count, self.protocol == PROTOCOL_BINARY)
            self.router.slowlog.note(self.router.now_ms, took // 1000, self.address, self.name, *found, count)
        except Exception:
            # Whatever it was, the reply must leave.
            log.exception("a slow command cannot be noted")
        return 0

    # Closing --------------------------------------------------------------------------------------
    cdef int on_eof(self) except -1:
        """The client sends no more; everything it sent is still answered, but for what waits."""
        if self.blocker is not None:
            self.close("it left while it waited")
            return 0
        return self.proceed()

    cdef int on_hangup(self, bint reset) except -1:
        # Whatever was sent behind the barrier is not executed: nobody waits for it, nor for the barrier itself.
        if self.blocker is not None:
            self.close("it left while it waited")
        elif reset and self.barrier is not None:
            self.close("the client reset the connection")
        return 0

    cdef int on_secured(self) except -1:
        if self.router.on_secured is not None:
            self.router.on_secured(self)
        return 0

    cdef int on_tls_cost(self, Py_ssize_t n) except -1:
        self.elsewhere += n
        self.router.clients.link_bytes += n
        if n > 0 and self.router.clients.over_budget():
            self.router.clients.relieve()
        return 0

    cdef int on_closed(self, object reason) except -1:
        cdef Backend backend
        cdef Pending pending
        cdef bint waited = (self.order.used() > 0 or self.upload is not None or self.watched is not None
                            or self.tracks is not None)
        self.gone = True
        if self.exclusive is not None:
            unwatch(self)
        if self.subscriptions or self.monitors_all:
            self.router.channels.forget(self)
        if self.tracks is not None:
            self.router.trackers.sessions.pop(self, None)
        self.unconfirmed = None
        self.router.clients.remove(self)
        self.router.quotas.follow(self)
        self.router.quotas.note_address(self, 0)
        self.router.clients.output_bytes -= self.output_bytes
        self.output_bytes = 0
        self.router.clients.input_bytes -= self.input_bytes
        self.router.clients.forecast -= self.forecast
        self.input_bytes = self.forecast = 0
        if self.router.clients.favoured is self:
            self.router.clients.favoured = None
        blocker = self.blocker
        if blocker is not None:
            self.unblocked()
            blocker.leave()
        if waited:
            for backend in self.router.links:
                if backend.phase == UP:
                    backend.cancel(self.id)
        self.order.release()
        self.held = None
        self.local = None
        if self.pendings is not None:
            for pending in self.pendings:
                pending.abandon()
        self.pendings = None
        if self.resolved:
            self.forget_deferred()
        self.resolved = None
        self.barrier = None
        self.waits_for = None
        self.flow = None
        self.weaving = None
        self.upload = None
        self.queue = None
        self.watched = None
        return 0


cdef bint is_about_clients(Command* command) noexcept:
    return command.name_size > 6 and memcmp(command.name, b"client", 6) == 0


cdef str name_of_socket(int fd, bint peer):
    cdef char[128] text
    cdef int n = kache_name(fd, peer, text, sizeof(text)) if fd >= 0 else 0
    return text[:n].decode() if n > 0 else ""
