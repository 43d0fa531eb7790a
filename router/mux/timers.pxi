# What is done whether or not anything arrives.

# How much less clients must cost than before, and for how long, until memory is given back to the system: it may soon be
# used again, and giving back some ten MiB takes milliseconds.
cdef Py_ssize_t RETAINED = 16 << 20
cdef int64_t RETAINED_MS = 3000

# Between two looks at the links' deadlines (seconds): a tenth of the request timeout, within these.
cdef double LONGEST_TICK = 0.1
cdef double SHORTEST_TICK = 0.005


cdef class Timers:

    def __init__(self, Router router):
        """Starts them."""
        self.router = router
        self.next_sweep_ms = router.now_ms + 1000
        self._tick()

    cdef int stop(self) except -1:
        self.timer.cancel()
        return 0

    cdef int give_back(self) except -1:
        """What clients have cost lies in the heap, where it was mixed with what stays."""
        cdef Py_ssize_t cost = self.router.clients.cost()
        self.most_cost = max(self.most_cost, cost)
        if self.most_cost - cost <= RETAINED:
            self.retained_ms = self.router.now_ms
        elif self.router.now_ms - self.retained_ms >= RETAINED_MS:
            self.most_cost = cost
            kache_trim()
        return 0

    def _tick(self):
        """Deadlines of requests; once a second the limits that are counted in seconds."""
        cdef Router router = self.router
        cdef double seconds = max(SHORTEST_TICK, min(LONGEST_TICK, router.limits.request_timeout / 10000.0))
        try:
            if self.due:
                router.counters.lag_us = max(router.counters.lag_us, (monotonic_ns() - self.due) // 1000)
            router.now_ms = router.clock.now_ms()
            router.shards.expire(router.now_ms)
            if router.remote is not None:
                router.remote.tick(router.now_ms)
            router.clients.feed()
            self.give_back()
            if router.now_ms >= self.next_sweep_ms:
                self.next_sweep_ms = router.now_ms + 1000
                router.clock.discipline()
                router.clients.sweep(router.now_ms)
                router.look_for_hangups()
                router.cool_down()
                router.shards.cool_down()
                router.counters.sample(router)
        except Exception:
            # Whatever it was, requests must go on timing out.
            log.exception("internal error in a timer")
        if not router.closed:
            self.due = monotonic_ns() + <int64_t> (seconds * 1e9)
            self.timer = router.loop.call_later(seconds, self._tick)
