# Random keys, decimal digits and the counters of a histogram: pure functions over plain structs.

cdef extern from "math.h" nogil:
    double exp(double x)
    double log(double x)
    double expm1(double x)
    double log1p(double x)
    double fabs(double x)

cdef extern from *:
    """
    /* The high half of a 64 x 64 bit product: a number below `bound`, without a division. */
    static uint64_t scaled(uint64_t random, uint64_t bound) {
        return (uint64_t) (((unsigned __int128) random * bound) >> 64);
    }
    static int highest_bit(uint64_t value) { return 63 - __builtin_clzll(value); }
    """
    uint64_t scaled(uint64_t random, uint64_t bound) noexcept nogil
    int highest_bit(uint64_t value) noexcept nogil


cdef inline uint64_t draw(uint64_t* state) noexcept nogil:
    """splitmix64: 64 random bits."""
    state[0] += 0x9E3779B97F4A7C15ULL
    cdef uint64_t z = state[0]
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
    return z ^ (z >> 31)


# Zipf by rejection-inversion (Hörmann and Derflinger 1996): constant time and no table, for any exponent above 0.
cdef struct Zipf:
    uint64_t n
    double exponent, low, high, shortcut


cdef inline double zipf_h(Zipf* z, double x) noexcept nogil:
    return exp(-z.exponent * log(x))


cdef inline double zipf_integral(Zipf* z, double x) noexcept nogil:
    cdef double logarithm = log(x)
    cdef double t = (1.0 - z.exponent) * logarithm
    # expm1(t)/t, by its series where the quotient would lose its digits
    return (expm1(t) / t if fabs(t) > 1e-8 else 1.0 + t / 2.0 * (1.0 + t / 3.0 * (1.0 + t / 4.0))) * logarithm


cdef inline double zipf_inverse(Zipf* z, double x) noexcept nogil:
    cdef double t = x * (1.0 - z.exponent)
    if t < -1.0:
        t = -1.0
    return exp((log1p(t) / t if fabs(t) > 1e-8 else 1.0 - t * (0.5 - t * (1.0 / 3.0 - 0.25 * t))) * x)


cdef void zipf_prepare(Zipf* z, uint64_t n, double exponent) noexcept nogil:
    z.n = n
    z.exponent = exponent
    z.low = zipf_integral(z, 1.5) - 1.0
    z.high = zipf_integral(z, <double> n + 0.5)
    z.shortcut = 2.0 - zipf_inverse(z, zipf_integral(z, 2.5) - zipf_h(z, 2.0))


cdef uint64_t zipf_draw(Zipf* z, uint64_t* state) noexcept nogil:
    """A rank from 0; rank 0 is the most frequent."""
    cdef double u, x
    cdef uint64_t k
    while True:
        u = z.high + (<double> (draw(state) >> 11)) * (1.0 / 9007199254740992.0) * (z.low - z.high)
        x = zipf_inverse(z, u)
        k = <uint64_t> (x + 0.5)
        if k < 1:
            k = 1
        elif k > z.n:
            k = z.n
        if <double> k - x <= z.shortcut or u >= zipf_integral(z, <double> k + 0.5) - zipf_h(z, <double> k):
            return k - 1


cdef inline void put_digits(char* out, uint64_t value, int width) noexcept nogil:
    """The lowest `width` decimal digits of value, with leading zeros."""
    cdef int i
    for i in range(width - 1, -1, -1):
        out[i] = <char> (48 + value % 10)
        value //= 10


# The layout of HdrHistogram with three significant digits: 2048 linear buckets, then 1024 for each power of two.
cdef enum:
    HALF = 1024
    HISTOGRAM_BUCKETS = 33 * HALF       # up to 2**42 ns, over an hour


cdef inline Py_ssize_t bucket_of(int64_t value) noexcept nogil:
    cdef int shift
    if value < 2 * HALF:
        return value if value > 0 else 0
    shift = highest_bit(<uint64_t> value) - 10
    if shift > 31:
        return HISTOGRAM_BUCKETS - 1
    return (shift << 10) + <Py_ssize_t> (value >> shift)


cdef inline int64_t value_of(Py_ssize_t bucket) noexcept nogil:
    """The lowest value that falls into the bucket."""
    if bucket < 2 * HALF:
        return bucket
    return <int64_t> ((bucket & (HALF - 1)) + HALF) << ((bucket >> 10) - 1)
