"""The cluster's one time base, and the time of its data.

Owns nothing but an anchor and an offset; whoever needs the time (the reactor once per iteration, timers) holds the same
`Clock`. Promises: processes that start from one anchor agree, however the wall clock is stepped meanwhile.

Both times are the same, except in a cluster that was started for tests: there the time of the data, which deadlines of
keys, idle times and TIME go by, may be ahead, or stand still (`kache.testing`). The deadlines of requests go by the
other one, so that nothing in flight times out when a test lets an hour pass.
"""
import logging

log = logging.getLogger("kache.clock")

# How fast a difference to the wall clock is made up for (ms per call of `discipline`, which runs
# once a second), below and above the difference that is called a step.
STEP_MS = 1000
SLEW_MS = 1
STEP_SLEW_MS = 10


cdef class Clock:
    """Unix milliseconds from one (wall clock, boot clock) anchor shared by the whole cluster.

    The wall clock may be stepped by an hour without anything expiring early: time advances with the
    boot clock (which counts suspends), and differences to the wall clock are made up for slowly.
    """

    def __init__(self, wall_ms=None, boot_ns=None):
        self.wall_ms = kache_clock_ns(CLOCK_REALTIME) // 1000000 if wall_ms is None else wall_ms
        self.boot_ns = kache_clock_ns(KACHE_BOOT_CLOCK) if boot_ns is None else boot_ns
        self.offset_ms = 0
        self.stepped = False

    cdef int64_t now_ms(self) noexcept nogil:
        return self.wall_ms + self.offset_ms + (kache_clock_ns(KACHE_BOOT_CLOCK) - self.boot_ns) // 1000000

    cdef int64_t now_us(self) noexcept nogil:
        return (self.wall_ms + self.offset_ms) * 1000 + (kache_clock_ns(KACHE_BOOT_CLOCK) - self.boot_ns) // 1000

    cdef int64_t data_ms(self, int64_t now_ms) noexcept nogil:
        """The data's time when this clock shows `now_ms`."""
        if self.simulated:
            return self.stands_at_ms if self.stands_at_ms else now_ms + self.ahead_ms
        return now_ms

    def now(self):
        """Unix time in milliseconds."""
        return self.now_ms()

    def data_now(self):
        """The time that keys live by, in unix milliseconds."""
        return self.data_ms(self.now_ms())

    def simulate(self, ahead_ms, stands_at_ms):
        """From now on the data's time is `ahead_ms` ahead, or stands at an instant (unix ms; 0: it runs)."""
        self.ahead_ms = ahead_ms
        self.stands_at_ms = stands_at_ms
        self.simulated = ahead_ms != 0 or stands_at_ms != 0

    def anchor(self):
        """(unix ms, boot clock ns) that another process can start from and agree with this one."""
        return self.wall_ms + self.offset_ms, self.boot_ns

    def discipline(self, wall_ms=None):
        """Moves a little towards the wall clock; to be called once a second. Returns the difference in ms."""
        cdef int64_t wall = kache_clock_ns(CLOCK_REALTIME) // 1000000 if wall_ms is None else wall_ms
        cdef int64_t difference = wall - self.now_ms()
        cdef int64_t step = SLEW_MS
        if difference > STEP_MS or difference < -STEP_MS:
            step = STEP_SLEW_MS
            if not self.stepped:
                log.warning("the wall clock differs by %d ms: adopting it slowly", difference)
        self.stepped = step == STEP_SLEW_MS
        if difference > 1:
            self.offset_ms += min(step, difference)
        elif difference < -1:
            self.offset_ms -= min(step, -difference)
        return difference
