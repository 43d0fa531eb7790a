# The client port: accepting, and refusing clearly.

# Connections that are being told "max number of clients reached" at the same time; more are just closed.
cdef int MOST_REFUSALS = 64

# With several routers on the port: how long one that has more clients than another leaves the next connection to it
# (seconds), and how many it accepts when nobody took it. One without a descriptor left would refuse them, so it waits longer.
cdef double REST_OF_SEVERAL = 0.001
cdef int ACCEPTS_AFTER_REST = 8
cdef int RESTS_WHEN_FULL = 100

cdef const char* NOTHING = ""
cdef bytes TOO_MANY_CLIENTS = b"ERR max number of clients reached"
cdef bytes NO_DESCRIPTORS = b"-ERR max number of clients reached (the router has no file descriptors left)\r\n"


cdef class Refusal(Endpoint):
    """A connection that only learns why it is refused."""

    cdef int on_closed(self, object reason) except -1:
        (<Router> self.reactor).refusing -= 1
        return 0


cdef class Acceptor(Listener):

    def __init__(self, Router router, int fd, bint sealed=False):
        self.router = router
        self.sealed = sealed
        self.spare = kache_spare()
        Listener.__init__(self, router, fd)

    cdef int on_readable(self) except -1:
        cdef int64_t ahead, slack
        cdef bint full
        cdef Clients clients = self.router.clients
        if clients.routers > 1:
            # All routers are woken. Who has more clients than another rests for a moment: if nobody was there to take
            # the connection, it is still waiting then. With many clients a few more are no matter.
            ahead = clients.ahead()
            full = len(clients.by_id) >= clients.most_here
            slack = 0 if full else len(clients.by_id) >> 4
            if ahead > slack and self.rests < (RESTS_WHEN_FULL if full else 1):
                self.rests += 1
                self.pause()
                self.retry_timer = self.router.loop.call_later(REST_OF_SEVERAL, self._retry)
                self.router.must_yield = True
                return 0
            self.at_once = ACCEPTS_AFTER_REST if self.rests else <int> (1 + slack - ahead)
            self.rests = 0
        return Listener.on_readable(self)

    def _retry(self):
        # Taken by another router meanwhile: the next connection is a new question.
        if self.fd >= 0 and self.rests:
            waiting = poll()
            waiting.register(self.fd, POLLIN)
            if not waiting.poll(0):
                self.rests = 0
        Listener._retry(self)

    cdef int on_accept(self, int fd) except -1:
        cdef Refusal refusal
        cdef Router router = self.router
        cdef Quotas quotas = router.quotas
        cdef uint64_t origin = quotas.key_of(name_of_socket(fd, True)) if quotas.per_address else 0
        cdef bytes why = TOO_MANY_CLIENTS
        if router.clients.has_room() and not router.shutting_down:
            if origin and not quotas.admits(origin):
                why = TOO_MANY_OF_ADDRESS
            elif router.users.default.most_clients and router.users.default.nopass and not quotas.may_join(
                    router.users.default):
                why = TOO_MANY_OF_USER
            else:
                quotas.note_address(Session(router, fd, self.sealed), origin)
                return 0
        router.counters.refused += 1
        if router.refusing >= MOST_REFUSALS or self.sealed:
            # Where TLS is spoken nothing is said without it, and a handshake is what there is no room for.
            close_fd(fd)
            return 0
        refusal = Refusal(router, fd)
        router.refusing += 1
        put_error(refusal.output(), RESP2, why)
        refusal.close_after_reply("refused")
        return 0

    cdef int on_accept_error(self, int error) except -1:
        """Out of descriptors: the spare one serves to refuse those who wait, clearly, one after the other."""
        cdef int count = 0
        cdef const char* text = PyBytes_AS_STRING(NO_DESCRIPTORS) if not self.sealed else NOTHING
        if error != EMFILE and error != ENFILE:
            return Listener.on_accept_error(self, error)
        if self.spare >= 0:
            close_fd(self.spare)
            while count < MOST_REFUSALS and kache_refuse(self.fd, text) == 0:
                count += 1
                self.router.counters.refused += 1
            self.spare = kache_spare()
        log.warning("no file descriptors left: %d connections refused", count)
        return 0

    cdef int on_closed(self, object reason) except -1:
        if self.spare >= 0:
            close_fd(self.spare)
            self.spare = -1
        return 0
