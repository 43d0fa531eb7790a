# The connections to all shards: made, made again after a failure, and the runs that are open on them.

# Waits before connecting to a shard again (seconds), doubled after every failure.
cdef double FIRST_RETRY = 0.01
cdef double LONGEST_RETRY = 1.0


cdef class Shards:

    def __init__(self, Router router, paths):
        """The shards behind the Unix sockets at `paths`; none is connected to yet."""
        self.router = router
        self.paths = list(paths)
        self.links = [Link(router, i, "not connected yet") for i in range(len(self.paths))]
        self.retry_seconds = [FIRST_RETRY] * len(self.paths)
        self.down_reasons = [""] * len(self.paths)
        self.left_ms = [0] * len(self.paths)
        self.returning = [[] for _ in self.paths]
        self.up_waiters = []

    # Connecting -----------------------------------------------------------------------------------
    cdef int connect(self, int index) except -1:
        cdef Link old = <Link> self.links[index]
        cdef Link link
        if self.router.shutting_down or self.router.closed or old.phase != DOWN:
            return 0
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(self.paths[index])
        except OSError as error:
            connection.close()
            old.reason = f"cannot connect: {error.strerror}"
            return self.retry(index)
        link = Link(self.router, index, "connecting")
        link.timeouts = old.timeouts
        link.reconnects = old.reconnects + 1
        self.links[index] = link
        return link.connected(connection.detach())

    def _connect(self, int index):
        self.connect(index)

    cdef int retry(self, int index) except -1:
        cdef double seconds = self.retry_seconds[index]
        self.retry_seconds[index] = min(2 * seconds, LONGEST_RETRY)
        self.router.loop.call_later(seconds, self._connect, index)
        self.router.must_yield = True
        return 0

    cdef int is_up(self, Link link) except -1:
        """The shard has answered the handshake."""
        self.retry_seconds[link.index] = FIRST_RETRY
        self.router.channels.register_on(link)
        self.router.trackers.register_on(link)
        self.wake_up_waiters()
        return 0 if link.loading else self.is_back(link)

    cdef int wake_up_waiters(self) except -1:
        waiters, self.up_waiters = self.up_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.router.must_yield = True
        return 0

    cdef int is_back(self, Link link) except -1:
        """It has what it kept on disk, too: until then it would refuse whoever waited on it."""
        log.info("shard %d is up (process %d)", link.index, link.pid)
        self.left_ms[link.index] = 0
        self.router.must_yield = True
        returning, self.returning[link.index] = self.returning[link.index], []
        for again in returning:
            again()
        return self.wake_up_waiters()

    cdef int is_leaving(self, int index) except -1:
        """The shard has said that it leaves, in order; another process takes its place."""
        self.left_ms[index] = self.router.now_ms
        return 0

    cdef bint comes_back(self, int index) except -1:
        """Whether a shard that is not up, or loads what it kept, left in order a moment ago."""
        return self.left_ms[index] > 0 and self.router.now_ms - self.left_ms[index] < RETURN_MS

    cdef int is_lost(self, Backend backend, bint was_up) except -1:
        """A connection has ended, and everything it expected has been answered."""
        if self.router.shutting_down or self.router.closed:
            return 0
        if was_up:
            # One that could not load what it kept was never up; the supervisor says why it has ended.
            if not (<Link?> backend).loading:
                log.warning("shard %d is down: %s", backend.index, backend.reason)
            self.router.trackers.lost()
        if self.links[backend.index] is backend:
            self.retry(backend.index)
        # It may have been lost while output was written.
        return self.router.clients.wake_soon()

    cdef int say(self, int index, str state, str reason) except -1:
        """What the supervisor says of a shard: why it is down is told to clients, and once it is up it is connected to. One that
        is started again is down for the same reason until it is up."""
        if state == "down" or state == "up":
            self.down_reasons[index] = reason if state == "down" else ""
        if state == "up" and (<Link> self.links[index]).phase == DOWN:
            self.retry_seconds[index] = FIRST_RETRY
            # The retry under way may be a second off; whichever comes second finds the link connected.
            self.router.loop.call_soon(self._connect, index)
        return 0

    async def all_up(self):
        """Returns once every shard has answered the handshake."""
        while not all((<Link> link).phase == UP for link in self.links):
            await self.next_up()

    async def connected_to(self, int index, int64_t pid):
        """Returns once this process of the shard has answered the handshake, and has loaded what it kept."""
        cdef Link link
        while True:
            link = <Link> self.links[index]
            if link.phase == UP and link.pid == pid and not link.loading:
                return
            await self.next_up()

    cdef object next_up(self):
        """A future of the next shard that is up or back."""
        waiter = self.router.loop.create_future()
        self.up_waiters.append(waiter)
        return waiter

    # The memory of the links --------------------------------------------------------------------------
    cdef int apply_limits(self) except -1:
        """The clients' budget has changed, and with it their part in it."""
        cdef Link link
        for link in self.links:
            if link.offered is not None:
                link.offered.allow(area_room(self.router))
                recount_area(link)
        return 0

    cdef int cool_down(self) except -1:
        """Once a second: what has not been used for a while is given back."""
        cdef Link link
        for link in self.links:
            cool_area(link)
        return 0

    # Runs -----------------------------------------------------------------------------------------
    cdef int touch(self, int index) noexcept:
        if not self.is_touched[index]:
            self.is_touched[index] = 1
            self.touched[self.touched_count] = index
            self.touched_count += 1
        return 0

    cdef int end_runs(self) except -1:
        cdef int i
        for i in range(self.touched_count):
            self.is_touched[self.touched[i]] = 0
            (<Link> self.links[self.touched[i]]).end_run()
        self.touched_count = 0
        return 0

    cdef int look_for_scripts(self) except -1:
        """Nothing is sent to a shard that has been running one script for too long; who waits for room there is told."""
        cdef Link link
        cdef int64_t threshold = self.router.config.busy_reply_threshold
        cdef int busy
        self.any_busy = FREE
        self.all_busy = RUNS_FUNCTION if self.links else FREE
        for link in self.links:
            busy = FREE
            if <int64_t> self.router.running.runs_for(link.index) >= threshold > 0:
                busy = RUNS_FUNCTION if self.router.running.is_function(link.index) else RUNS_SCRIPT
            self.any_busy = self.any_busy or busy
            self.all_busy = min(self.all_busy, busy)
            if busy != link.busy:
                link.busy = busy
                if link.waiters is not None:
                    link.wake_waiters()
        return 0

    cdef int expire(self, int64_t now) except -1:
        """Answers what is past its deadline."""
        cdef Link link
        for link in list(self.links):
            if link.head < link.tail:
                link.expire(now)
            if link.parked:
                link.expire_parked(now)
            if link.unsent():
                link.mark_dirty()
        return 0
