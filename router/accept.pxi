# The client port: accepting, and refusing clearly.

# Connections that are being told "max number of clients reached" at the same time; more are just closed.
cdef int MOST_REFUSALS = 64

# With several routers on the port: connections that one accepts at a time, and how long it rests then (seconds).
cdef int ACCEPTS_OF_SEVERAL = 16
cdef double REST_OF_SEVERAL = 0.001

cdef bytes TOO_MANY_CLIENTS = b"ERR max number of clients reached"
cdef bytes NO_DESCRIPTORS = b"-ERR max number of clients reached (the router has no file descriptors left)\r\n"


cdef class Refusal(Endpoint):
    """A connection that only learns why it is refused."""

    cdef int on_closed(self, object reason) except -1:
        (<Router> self.reactor).refusing -= 1
        return 0


cdef class Acceptor(Listener):
    """The client port."""

    cdef Router router
    cdef int spare               # a descriptor given up to tell a client that there are none left

    def __init__(self, Router router, int fd):
        self.router = router
        self.spare = kache_spare()
        if router.config.routers > 1:
            self.at_once = ACCEPTS_OF_SEVERAL
        Listener.__init__(self, router, fd)

    cdef int on_readable(self) except -1:
        cdef uint64_t before = self.router.accepted
        Listener.on_readable(self)
        if self.router.config.routers > 1 and self.router.accepted != before and self.reading:
            # Who is awake already would win every race for the next one: it is left to the other routers.
            self.pause()
            self.retry_timer = self.router.loop.call_later(REST_OF_SEVERAL, self._retry)
            self.router.leave = True
        return 0

    cdef int on_accept(self, int fd) except -1:
        cdef Refusal refusal
        cdef Router router = self.router
        if len(router.by_id) < router.max_clients and not router.shutting_down:
            Session(router, fd)
            return 0
        router.refused += 1
        if router.refusing >= MOST_REFUSALS:
            close_fd(fd)
            return 0
        refusal = Refusal(router, fd)
        router.refusing += 1
        put_error(refusal.output(), RESP2, TOO_MANY_CLIENTS)
        refusal.close_after_reply("refused")
        return 0

    cdef int on_accept_error(self, int error) except -1:
        """Out of descriptors: the spare one serves to refuse those who wait, clearly, one after the other."""
        cdef int count = 0
        if error != EMFILE and error != ENFILE:
            return Listener.on_accept_error(self, error)
        if self.spare >= 0:
            close_fd(self.spare)
            while count < MOST_REFUSALS and kache_refuse(self.fd, PyBytes_AS_STRING(NO_DESCRIPTORS)) == 0:
                count += 1
                self.router.refused += 1
            self.spare = kache_spare()
        log.warning("no file descriptors left: %d connections refused", count)
        return 0

    cdef int on_closed(self, object reason) except -1:
        if self.spare >= 0:
            close_fd(self.spare)
            self.spare = -1
        return 0
