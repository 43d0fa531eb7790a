# cython: language_level=3
"""Declarations of the clock for the other compiled modules (see clock.pyx)."""
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>
    #ifdef __linux__
    #define KACHE_BOOT_CLOCK CLOCK_BOOTTIME
    #else
    #define KACHE_BOOT_CLOCK CLOCK_MONOTONIC
    #endif
    static inline int64_t kache_clock_ns(int id) {
        struct timespec t;
        clock_gettime((clockid_t) id, &t);
        return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
    }
    """
    enum:
        KACHE_BOOT_CLOCK, CLOCK_MONOTONIC, CLOCK_REALTIME
    int64_t kache_clock_ns(int clock) noexcept nogil


cdef inline int64_t monotonic_ns() noexcept nogil:
    return kache_clock_ns(CLOCK_MONOTONIC)


cdef class Clock:
    """Unix milliseconds from one (wall clock, boot clock) anchor shared by the whole cluster."""
    cdef int64_t wall_ms
    cdef int64_t boot_ns
    cdef int64_t offset_ms
    cdef bint stepped
    cdef bint simulated                 # a test has moved the time of the data
    cdef int64_t ahead_ms, stands_at_ms # by how much; where it stands, 0: it runs
    cdef int64_t now_ms(self) noexcept nogil
    cdef int64_t now_us(self) noexcept nogil
    cdef int64_t data_ms(self, int64_t now_ms) noexcept nogil
