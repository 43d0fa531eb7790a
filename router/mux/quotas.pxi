# What users and addresses may take at most: connections, what is sent in a second, memory.
#
#   Tallies (kache/wire/tallies.pyx)   what all routers count together, so that a limit holds for the cluster
#   a window of WINDOW_MS              who has spent the share of it is not read until the next begins: no error, the client
#                                      feels that the server is slower. A pipeline is executed as far as it was read; what it
#                                      takes beyond the share is a debt that the next windows pay
#
# For whoever has no limit this costs one load and one branch for what is read at a time.

cdef enum:
    # Numbers of a user's cell.
    QUOTA_CLIENTS = 0
    QUOTA_WINDOW = 1         # that the next two belong to
    QUOTA_COMMANDS = 2       # thousandths of them, with what was owed before
    QUOTA_INPUT = 3          # of bytes
    QUOTA_MEMORY = 4         # bytes

    WINDOW_MS = 100

cdef bytes TOO_MANY_OF_ADDRESS = b"ERR max number of clients of this address reached (maxclients-per-address)"
cdef bytes TOO_MANY_OF_USER = b"ERR max number of clients of this user reached"


cdef class Quotas:

    def __init__(self, Router router not None, addresses, users):
        """The pages of kache/cluster/tallies.py; None for a router that is alone."""
        cdef Py_ssize_t routers = router.clients.routers
        self.router = router
        self.addresses = Tallies(addresses, router.index, routers, ADDRESS_WORDS)
        self.users = Tallies(users, router.index, routers, USER_WORDS)
        self.seed = b"%d" % router.boot_id
        self.resting = {}

    cdef int apply(self, object config) except -1:
        """The settings have changed; clients that are here are counted, or not any longer."""
        cdef Session session
        cdef bint counted = self.per_address > 0
        self.per_address = config.maxclients_per_address
        if counted != (self.per_address > 0):
            for session in self.router.clients.by_id.values():
                self.note_address(session, self.key_of(session.address) if self.per_address else 0)
        return 0

    # Addresses --------------------------------------------------------------------------------------------
    cdef uint64_t key_of(self, str address) except? 0:
        """What an address counts under; 0: it is none, but a Unix socket."""
        if not address or address.startswith("/"):
            return 0
        digest = blake2b(origin(address).encode(), digest_size=8, key=self.seed).digest()
        return <uint64_t> int.from_bytes(digest, "little") | 1

    cdef bint admits(self, uint64_t key) noexcept:
        return key == 0 or self.addresses.total(key, 0) < self.per_address

    cdef int note_address(self, Session session, uint64_t key) noexcept:
        """The session counts under this from here on; 0: under nothing."""
        cdef int64_t* count
        if session.origin:
            count = self.addresses.of(self.addresses.place, session.origin)
            if count != NULL:
                count[0] -= 1
                if count[0] <= 0:
                    self.addresses.drop(session.origin)
            session.origin = 0
        if key:
            count = self.addresses.mine(key)
            if count != NULL:
                count[0] += 1
                session.origin = key
        return 0

    # Clients of a user ------------------------------------------------------------------------------------
    cdef bint may_join(self, User user) noexcept:
        """Whether this user may have one client more."""
        return user.most_clients == 0 or self.users.total(user.number, QUOTA_CLIENTS) < user.most_clients

    cdef int follow(self, Session session) noexcept:
        """Its user, or what that may take, is another one."""
        cdef uint64_t number = 0
        cdef int64_t* cell
        if session.authenticated_now and not session.gone and session.rights.most_clients:
            number = session.rights.number
        if session.rights.most_memory:
            self.looks_at_memory = True
        if number == session.counted:
            return 0
        if session.counted:
            cell = self.users.of(self.users.place, session.counted)
            if cell != NULL:
                cell[QUOTA_CLIENTS] -= 1
            session.counted = 0
        if number:
            cell = self.users.mine(number)
            if cell != NULL:
                cell[QUOTA_CLIENTS] += 1
                session.counted = number
        return 0

    # What is sent in a second -----------------------------------------------------------------------------
    cdef int64_t* line(self, User user) noexcept:
        """The user's cell of this router, in the present window; NULL: there is no room, and no limit."""
        cdef int64_t* cell = self.users.mine(user.number)
        cdef int64_t window = self.router.now_ms // WINDOW_MS, passed
        if cell != NULL and cell[QUOTA_WINDOW] != window:
            passed = window - cell[QUOTA_WINDOW]
            cell[QUOTA_COMMANDS] = self.owed(user, cell, QUOTA_COMMANDS, user.most_commands * WINDOW_MS, passed)
            cell[QUOTA_INPUT] = self.owed(user, cell, QUOTA_INPUT, user.most_input * WINDOW_MS, passed)
            cell[QUOTA_WINDOW] = window
        return cell

    cdef int64_t owed(self, User user, int64_t* cell, int word, int64_t share, int64_t passed) noexcept:
        """This router's part of what all have spent beyond the shares of the windows that have passed."""
        cdef int64_t spent = self.spent(user, word, cell[QUOTA_WINDOW])
        cdef int64_t beyond = spent - share * passed
        if share == 0 or passed <= 0 or beyond <= 0:
            return 0
        return <int64_t> (<double> beyond * cell[word] / spent)

    cdef int64_t spent(self, User user, int word, int64_t window) noexcept:
        cdef int64_t sum = 0
        cdef int64_t* cell
        cdef Py_ssize_t i
        for i in range(self.users.processes):
            cell = self.users.of(i, user.number)
            if cell != NULL and cell[QUOTA_WINDOW] == window:
                sum += cell[word]
        return sum

    cdef bint is_spent(self, User user) noexcept:
        """Whether its clients are not to be read until the next window."""
        cdef int64_t* cell
        if not user.paced:
            return False
        cell = self.line(user)
        if cell == NULL:
            return False
        return ((user.most_commands and self.spent(user, QUOTA_COMMANDS, cell[QUOTA_WINDOW]) >= user.most_commands * WINDOW_MS)
                or (user.most_input and self.spent(user, QUOTA_INPUT, cell[QUOTA_WINDOW]) >= user.most_input * WINDOW_MS))

    cdef int charge(self, User user, int64_t commands, int64_t size) noexcept:
        cdef int64_t* cell = self.line(user)
        if cell != NULL:
            cell[QUOTA_COMMANDS] += 1000 * commands
            cell[QUOTA_INPUT] += 1000 * size
        return 0

    cdef int rest(self, Session session) except -1:
        """It is read again when its user may."""
        session.resting = True
        session.resume_at = session.in_flight_now()
        self.resting[session] = None
        if self.timer is None:
            self.timer = self.router.loop.call_later(
                (WINDOW_MS - self.router.clock.now_ms() % WINDOW_MS + 1) / 1000.0, self._window_over)
        return 0

    def _window_over(self):
        cdef Session session
        self.timer = None
        self.router.now_ms = self.router.clock.now_ms()
        waiting, self.resting = self.resting, {}
        for session in waiting:
            if session.gone or not session.resting:
                continue
            if self.is_spent(session.rights):
                self.rest(session)
                continue
            session.resting = False
            if session.stalled and not session.waking and session.may_resume():
                session.waking = True
                self.router.clients.waking.append(session)
        if self.router.clients.waking:
            self.router.clients.wake()

    # Memory -----------------------------------------------------------------------------------------------
    cdef int look(self) except -1:
        """Ten times a second: users whose clients cost too much lose the largest of them."""
        cdef Session session
        cdef User user
        cdef int64_t* cell
        cdef dict costs = {}
        if not self.looks_at_memory:
            return 0
        self.looks_at_memory = False
        for user in self.router.users.by_name.values():
            if user.most_memory:
                self.looks_at_memory = True
                costs[user] = 0
        for session in self.router.clients.by_id.values():
            if session.rights.most_memory:
                costs[session.rights] = <int64_t> costs.get(session.rights, 0) + session.weight()
        for user, cost in costs.items():
            cell = self.users.mine(user.number)
            if cell != NULL:
                cell[QUOTA_MEMORY] = cost
                while self.users.total(user.number, QUOTA_MEMORY) > user.most_memory and self.has_most(user, cell[QUOTA_MEMORY]):
                    session = self.largest(user)
                    if session is None:
                        break
                    cell[QUOTA_MEMORY] -= session.weight()
                    self.router.counters.evicted += 1
                    self.router.clients.close_for_memory(session, "the clients of its user cost more than they may")
        return 0

    cdef bint has_most(self, User user, int64_t mine) noexcept:
        """Whether no other router has more of what this user's clients cost: only one of them closes some."""
        cdef int64_t* cell
        cdef Py_ssize_t i
        for i in range(self.users.processes):
            cell = self.users.of(i, user.number)
            if cell != NULL and (cell[QUOTA_MEMORY] > mine or (cell[QUOTA_MEMORY] == mine and i < self.users.place)):
                return False
        return True

    cdef Session largest(self, User user):
        cdef Session session, found = None
        for session in self.router.clients.by_id.values():
            if session.rights is user and not session.no_evict and not session.gone and (
                    found is None or session.weight() > found.weight()):
                found = session
        return found if found is not None and found.weight() > 0 else None
