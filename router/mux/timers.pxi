# What is done whether or not anything arrives.

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

    def _tick(self):
        """Deadlines of requests; once a second the limits that are counted in seconds."""
        cdef Router router = self.router
        cdef double seconds = router.limits.request_timeout / 10000.0
        try:
            router.now_ms = router.clock.now_ms()
            router.shards.expire(router.now_ms)
            router.clients.feed()
            if router.now_ms >= self.next_sweep_ms:
                self.next_sweep_ms = router.now_ms + 1000
                router.clock.discipline()
                router.clients.sweep(router.now_ms)
                router.look_for_hangups()
                router.counters.sample(router)
        except Exception:
            # Whatever it was, requests must go on timing out.
            log.exception("internal error in a timer")
        if not router.closed:
            self.timer = router.loop.call_later(max(SHORTEST_TICK, min(LONGEST_TICK, seconds)), self._tick)
