# The router: its parts put together, its life, and the questions that Python asks the shards through it.

# How long a drained client may take to close its end of the connection (seconds).
cdef double GOODBYE = 0.25


cdef class Router(Reactor):

    def __init__(self, loop, config, paths, planner, *, slots=None, slot_epoch=0, index=0, boot_id=0, Clock clock=None,
                 nested=None, address=("127.0.0.1", 0), counts=None, director=None,
                 Board board=None, Claims claims=None, monitors=None, users=None, tallies=None):
        """A router of `len(paths)` shards, their Unix sockets at `paths`; `start` connects to them.

        `planner(row, args, router)` divides what the compiled path cannot (planner.py). `slots` says which shard owns
        which slots as of `slot_epoch`; without it each has an even range. `counts` is what all routers have mapped,
        `index` this one's place in it; without it the router is alone; so are `monitors`, how many watch all commands, and
        `tallies`, what counts for limits of addresses and users. On the `board` shards show what they have begun;
        without it nothing is waited for beyond its deadline. `claims` are shared with the shards; without them no client
        is served that waits on several. `users` are records of them (kache.acl.record); without them there is the default
        user, with the password of the configuration. With a `director` (`cluster/director.py`) there are no shards, `paths` is empty:
        commands go to the nodes of a Redis Cluster.
        """
        if director is None and not 0 < len(paths) <= MAX_SHARDS:
            raise ValueError(f"{len(paths)} shards: there must be 1 to {MAX_SHARDS}")
        Reactor.__init__(self, loop, clock, nested)
        self.index = index
        self.shard_count = len(paths)
        self.boot_id = boot_id
        self.planner = planner
        self.far_scripts = set()
        self.board = Board() if board is None else board
        self.claims = Claims(None, index) if claims is None else claims
        self.address = address
        self.started_ms = self.now_ms
        self.slowlog = SlowLog(itertools.count())
        self.table = PREPARED.pop() if PREPARED else CommandTable(TABLE, CONTAINERS.values())
        self.users = Users([with_password(default_user(), config.requirepass)] if users is None else users)
        self.accounts = Accounts(self)
        self.module_epoch, self.modules, self.module_rows = 0, {}, {}
        if CATALOGUE.has_modules:
            # Of a router before this one. Else what follows from the table of commands is left as it is: it is common to all
            # processes as long as nobody touches it.
            self.take_modules(0, {})
        if director is not None:
            # A place is a slot: keys of different slots are never together.
            slots = contiguous(SLOTS)
        self.slots = SlotMap(self.shard_count if director is None else SLOTS, slot_epoch,
                             contiguous(self.shard_count) if slots is None else slots)
        self.limits = Limits()
        self.counters = Counters(self.now_ms)
        self.shards = Shards(self, paths)
        self.links = self.places = self.shards.links
        self.clients = Clients(self, counts)
        self.quotas = Quotas(self, *(tallies or (None, None)))
        self.channels = Channels(self)
        self.trackers = Trackers(self)
        self.monitors = Monitors(self, monitors)
        self.watched = self.monitors.words
        self.acceptors = []
        if director is not None:
            self.remote = Remote(self, director, config.backend_connections,
                                 None if director.tls is None else TlsPool(director.tls))
            self.places = [self.remote] * SLOTS
            director.belongs_to(self, self.remote)
            self.table.hide_scripts()
        self.apply_config(config)

    # Settings -------------------------------------------------------------------------------------
    def apply_config(self, config):
        """Takes over the settings; they hold for existing clients too, where that is possible."""
        self.config = config
        self.linger_seconds = config.linger_ms / 1000
        self.linger_bytes = config.linger_bytes
        self.limits.apply(config, self.clients.routers)
        self.clients.apply_limits()
        self.quotas.apply(config)
        self.shards.apply_limits()
        self.slowlog.configure(config.slowlog_max_len)
        self.accounts.log.configure(config.acllog_max_len)

    def limit_clients(self, int most):
        """No more clients than this, whatever the setting says (what the descriptors allow)."""
        self.clients.most_here = most

    def take_users(self, epoch, records, removed):
        """The supervisor's change of users: these records from now on, and nobody of the names in `removed`."""
        gone = [self.users.by_name[name].number for name in removed if name in self.users.by_name]
        self.users.take(epoch, records, removed)
        follow_rights(self)
        for number in gone:
            # Numbers are not used twice: nobody counts for it any more.
            self.quotas.users.drop(number)

    def may_join(self, Session session not None, User user not None):
        """Whether the session may act for this user, who may have no more clients than so many."""
        return session.counted == user.number or self.quotas.may_join(user)

    def denial(self, User user not None, list words not None):
        """Why the user may not execute a command, as (what is refused, the word that is): ("command", b"config|get"),
        ("key", b"a"), ("channel", b"c"); None: it may. Raises CommandError when there is no such command, or for its arity.
        """
        return dry_run(self, user, words)

    def take_slots(self, epoch, ranges):
        """The supervisor's new map of slots; ValueError when it is none. What is in flight goes on as it was sent."""
        cdef Link link
        self.slots.take(epoch, ranges)
        for link in self.links:
            if link.phase == UP:
                self.channels.register_on(link)

    def take_modules(self, epoch, modules):
        """These are the modules from here on: {name: its rows, with their numbers}. What is in flight goes on as it was sent."""
        self.table.take_rows([row for rows in modules.values() for row in rows])
        CATALOGUE.take_modules([row for rows in modules.values() for row in rows])
        self.users.compile_again()
        if self.clients is not None:
            follow_rights(self)
        self.module_epoch = epoch
        self.modules = modules
        self.module_rows = {row.name: row for rows in modules.values() for row in rows}

    # Life -----------------------------------------------------------------------------------------
    def start(self):
        """Connects to the shards and starts the timers."""
        cdef int i
        for i in range(self.shard_count):
            self.shards.connect(i)
        self.timers = Timers(self)

    def listen(self, int fd, bint sealed=False):
        """Accepts clients on a listening socket; the descriptor is the router's from here on. `sealed`: they speak TLS, behind
        `serve_tls`."""
        if sealed and self.handshakes is None:
            raise ValueError("no certificate to serve TLS with")
        self.acceptors.append(Acceptor(self, fd, sealed))

    async def all_up(self):
        """Returns once every shard has answered the handshake."""
        await self.shards.all_up()

    async def connected_to(self, int shard, int64_t pid):
        """Returns once this process of a shard has answered the handshake, and has loaded what it kept."""
        await self.shards.connected_to(shard, pid)

    async def drain(self, double seconds):
        """Accepts nothing more, answers what is in flight, closes every client; at most `seconds`."""
        cdef double deadline = self.loop.time() + seconds
        cdef dict clients = self.clients.by_id
        self.shutting_down = True
        for acceptor in self.acceptors:
            acceptor.stop()
        for session in list(clients.values()):
            if (<Session> session).blocker is not None:
                session.kill("the router is leaving")
            else:
                session.finish()
        await self.settle(seconds)
        while clients and self.loop.time() < deadline:
            if all([session.lingering for session in clients.values()]):
                # Everything is answered; clients have a moment to close their end.
                deadline = min(deadline, self.loop.time() + GOODBYE)
            await asyncio.sleep(0.01)

    async def settle(self, double seconds):
        """What shards have served to clients that are gone by now is back in its place."""
        for _ in range(2):
            # The first answers come behind all that was served, the second ones behind what goes back.
            asked = [self.call(link.index, "_slot_size", [b"0"]) for link in self.links if (<Link> link).phase == UP]
            if asked:
                await asyncio.wait(asked, timeout=seconds)
            for question in asked:
                if question.done():
                    question.exception()

    def stop(self):
        """Closes everything now."""
        self.shutting_down = True
        if self.timers is not None:
            self.timers.stop()
        self.close()

    cdef int before_flush(self) except -1:
        if self.remote is not None and self.remote.arrived:
            self.remote.work()
        return self.clients.wake() if self.clients.waking else 0

    def shard_is(self, int index, str state not None, str reason not None):
        """What the supervisor says of a shard: why it is down is told to clients, and once it is up it is connected to."""
        self.shards.say(index, state, reason)

    # Slots ----------------------------------------------------------------------------------------
    cdef inline int shard_at(self, uint16_t slot) noexcept:
        return self.slots.owner[slot]

    def shard_of(self, bytes key not None):
        """The shard that holds `key`."""
        return self.shard_at(slot_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)))

    def shard_of_slot(self, int slot):
        """The shard that owns a slot. Raises IndexError when there is no such slot."""
        if not 0 <= slot < SLOTS:
            raise IndexError(f"there is no slot {slot}")
        return self.shard_at(<uint16_t> slot)

    def slots_of(self, int shard):
        """The (first slot, last slot) of every range of a shard, in the order of the slots."""
        return self.slots.slots_of(shard)

    # Questions of Python --------------------------------------------------------------------------
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
        """Asks one shard, in the transaction of the session if it leads one; a future of the reply as a Python value.

        `command` is a row's key. The future raises CommandError for an error reply, and for CLUSTERDOWN, TRYAGAIN
        (nothing was executed), TIMEOUT and UNCERTAIN (executed once or not at all).
        """
        cdef Call question = Call.__new__(Call)
        cdef Backend backend = <Backend> self.links[shard]
        row = self.table.by_key[command]
        question.router = self
        question.future = self.loop.create_future()
        if backend.phase != UP:
            question.fail(0, backend.down_text())
        elif backend.over_hard(sum([len(argument) for argument in arguments])):
            question.fail(0, OVERLOADED)
        else:
            backend.ask(question, 0, row.id, self.slot_for(row, arguments), arguments, db,
                        session.flags_of_runs() if session is not None else 0,
                        session.id if session is not None else 0,
                        self.now_ms + (self.limits.request_timeout if timeout_ms is None else <int64_t> timeout_ms),
                        session.transaction if session is not None else 0)
        return question.future

    def tell(self, int shard, str command not None, arguments, Session session=None):
        """A command whose reply does not matter, and that outside of any transaction."""
        cdef Backend backend = <Backend> self.links[shard]
        row = self.table.by_key[command]
        if backend.phase == UP:
            backend.ask(Ignored(self), 0, row.id, self.slot_for(row, arguments), arguments, 0, 0,
                        session.id if session is not None else 0, self.now_ms + self.limits.request_timeout, NO_TRANSACTION)

    def new_transaction(self):
        """A number that no other transaction of the cluster has."""
        self.clients.last_transaction += 1
        return self.clients.last_transaction

    def block(self, int shard, str command not None, arguments, Session session not None, int64_t since=0, served=None):
        """`call` of a command that may wait, for a client, in its database; a Registration with the future. `since`: it has
        waited on this shard before. `served` is called with the value of a reply that ends its wait, as it comes in: the
        future's callbacks have their turn on the event loop, later.

        It raises ShardLeaves when the shard is being restarted and nothing was executed.
        """
        cdef Registration question = Registration.__new__(Registration)
        cdef Link backend = <Link> self.links[shard]
        row = self.table.by_key[command]
        question.router = self
        question.session = session
        question.acknowledges = True
        question.served = served
        question.future = self.loop.create_future()
        if (backend.phase != UP or backend.loading) and self.shards.comes_back(shard):
            question.answer(ShardLeaves())
        elif backend.phase != UP:
            question.answer(CommandError(backend.down_text().decode()))
        else:
            if since:
                tell_since(backend, session, since)
            backend.ask(question, 0, row.id, self.slot_for(row, arguments), arguments, session.db_now, session.flags_of_runs(),
                        session.id, self.now_ms + self.limits.request_timeout, NO_TRANSACTION)
        return question

    def comes_back(self, int shard):
        """Whether a shard that is not up left in order a moment ago, so that another process is about to take its place."""
        return self.shards.comes_back(shard)

    def serves(self, int shard):
        """Whether the shard is up, and has loaded what it kept."""
        cdef Link link = <Link> self.links[shard]
        return link.phase == UP and not link.loading

    def when_back(self, int shard, again not None):
        """Calls `again` when the shard is up, and has loaded what it kept, the next time."""
        self.shards.returning[shard].append(again)

    async def call_all(self, str command, arguments, int db=0, Session session=None, timeout_ms=None):
        """Asks every shard; the list of replies. Raises the first error once all have answered."""
        futures = [self.call(shard, command, arguments, db, session, timeout_ms) for shard in range(self.shard_count)]
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

    def listening(self, int kind):
        """How many clients listen to each channel or pattern of a kind."""
        return {name: len(<dict> sessions) for name, sessions in (<dict> self.channels.listeners[kind]).items()}

    def published(self, int kind, bytes name not None, bytes channel not None, bytes message not None):
        """A node of a Redis Cluster passes on what was published, for those who listen to `name`."""
        self.channels.deliver_remote(kind, name, channel, message)

    def monitored(self, bytes line not None):
        """Another router's client has done this: for those who watch all commands here."""
        self.monitors.take(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))

    def tell_all_changed(self, id):
        """The client of that id, if it is here, is told that everything that others have read for it may have changed."""
        session = self.clients.by_id.get(id)
        if session is not None:
            self.trackers.tell(<Session> session, NULL, -1)

    # What Python sees -----------------------------------------------------------------------------
    def sessions(self):
        """Every client, the oldest first."""
        return list(self.clients.by_id.values())

    def pause_clients(self, bint writes_only, int64_t until_ms):
        """Clients (or those that write) wait until then; an earlier end or a weaker pause than the present one changes
        nothing."""
        self.clients.hold(PAUSE_WRITES if writes_only else PAUSE_ALL, until_ms)
        if self.pauses is not None:
            self.pauses.write(self.clients.pause_mode == PAUSE_WRITES, self.clients.pause_until)

    def resume_clients(self):
        """Ends `pause_clients`."""
        self.clients.let_go()
        if self.pauses is not None:
            self.pauses.write(False, 0)

    def let_pass(self, int64_t ms):
        """Clients have been idle for so much longer: a test has moved the clock (kache/testing)."""
        self.clients.let_pass(ms)

    def session_by_id(self, id):
        """The client of that id, or None."""
        return self.clients.by_id.get(id)

    def statistics(self):
        """Counters since the start (or the last reset), current levels, and rates over the last seconds."""
        return self.counters.report(self)

    def reset_statistics(self):
        """CONFIG RESETSTAT: counters start again from zero."""
        self.counters.reset(self)

    @property
    def output_bytes(self):
        """Bytes of replies that are kept for all clients."""
        return self.clients.output_bytes

    @property
    def client_bytes(self):
        """What all clients cost: their replies, and their input that is not executed yet."""
        return self.clients.cost()

    @property
    def command_table(self):
        """The compiled table, for tests."""
        return self.table
