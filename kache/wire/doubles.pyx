"""Doubles as text, byte for byte as Redis and Valkey print them.

They print with fpconv, an implementation of Grisu2 (Florian Loitsch, "Printing floating-point numbers quickly and
accurately with integers", 2010). Its text always reads back as the same number, but for about one double in a
thousand it is not the shortest one, which `repr` gives. So this is that algorithm with its approximations: the same
table of powers, the same rounding of products. Pure functions; the table is computed once, at import.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport isinf, isnan, signbit
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

__all__ = ["format_double"]

cdef enum:
    FRACTION_BITS = 52
    EXPONENT_BIAS = 1075
    FIRST_POWER = -348
    POWER_STEP = 8
    POWERS = 87
    LEAST_EXPONENT = -60
    MOST_EXPONENT = -32
    MOST_DIGITS = 18  # what fpconv writes before an exponent
    TEXT_BYTES = 48

cdef uint64_t HIDDEN_BIT = (<uint64_t> 1) << FRACTION_BITS
cdef double LOG_10_OF_2 = 0.30102999566398114  # fpconv's own; it only says where the search for a power begins
cdef double LARGEST_WHOLE = 4611686018427387904.0  # up to 2**62 a whole number is printed as an integer

cdef struct Float:  # fraction × 2**exponent
    uint64_t fraction
    int exponent

cdef Float CACHED_POWERS[POWERS]
cdef uint64_t TENS[20]


cdef tuple _power_of_ten(object power):
    """10**power as a 64-bit fraction, rounded to nearest, and an exponent of two."""
    numerator, denominator = (10**power, 1) if power >= 0 else (1, 10**-power)
    exponent = numerator.bit_length() - denominator.bit_length() - 64
    while True:
        scaled, divisor = (numerator, denominator << exponent) if exponent > 0 else (numerator << -exponent, denominator)
        fraction = (2 * scaled + divisor) // (2 * divisor)
        if fraction.bit_length() == 64:
            return fraction, exponent
        exponent += 1 if fraction.bit_length() > 64 else -1


cdef void _fill_tables():
    cdef int i
    for i in range(POWERS):
        CACHED_POWERS[i].fraction, CACHED_POWERS[i].exponent = _power_of_ten(FIRST_POWER + i * POWER_STEP)
    TENS[0] = 1
    for i in range(1, 20):
        TENS[i] = TENS[i - 1] * 10


_fill_tables()


cdef inline Float _normalized(Float number) noexcept nogil:
    while not number.fraction >> 63:
        number.fraction <<= 1
        number.exponent -= 1
    return number


cdef Float _product(Float a, Float b) noexcept nogil:
    """The upper 64 bits of a product, rounded as fpconv does (the lowest 32 bits are cut before)."""
    cdef uint64_t low = 0xFFFFFFFF
    cdef uint64_t high_low = (a.fraction >> 32) * (b.fraction & low)
    cdef uint64_t low_high = (a.fraction & low) * (b.fraction >> 32)
    cdef uint64_t low_low = (a.fraction & low) * (b.fraction & low)
    cdef uint64_t middle = (high_low & low) + (low_high & low) + (low_low >> 32) + (<uint64_t> 1 << 31)
    cdef Float result
    result.fraction = (a.fraction >> 32) * (b.fraction >> 32) + (high_low >> 32) + (low_high >> 32) + (middle >> 32)
    result.exponent = a.exponent + b.exponent + 64
    return result


cdef int _cached_power(int exponent) noexcept nogil:
    """Index of a power of ten that brings a number of this exponent within reach of 64-bit arithmetic."""
    cdef int index = (<int> (-(exponent + POWERS) * LOG_10_OF_2) - FIRST_POWER) // POWER_STEP
    cdef int reached
    while True:
        reached = exponent + CACHED_POWERS[index].exponent + 64
        if reached < LEAST_EXPONENT:
            index += 1
        elif reached > MOST_EXPONENT:
            index -= 1
        else:
            return index


cdef void _round(char* last, uint64_t delta, uint64_t rest, uint64_t step, uint64_t distance) noexcept nogil:
    """Moves the last digit down while that brings the text nearer to the number."""
    while (
        rest < distance
        and delta - rest >= step
        and (rest + step < distance or distance - rest > rest + step - distance)
    ):
        last[0] -= 1
        rest += step


cdef int _generate(Float number, Float upper, Float lower, char* digits, int* power) noexcept nogil:
    """Digits of `upper` until what is left fits between the two ends; how many."""
    cdef uint64_t distance = upper.fraction - number.fraction
    cdef uint64_t delta = upper.fraction - lower.fraction
    cdef int shift = -upper.exponent
    cdef uint64_t one = (<uint64_t> 1) << shift
    cdef uint64_t whole = upper.fraction >> shift
    cdef uint64_t rest = upper.fraction & (one - 1)
    cdef uint64_t digit, remainder
    cdef int count = 0, kappa = 9, unit = 0
    while kappa >= 0:
        digit = whole // TENS[kappa]
        whole -= digit * TENS[kappa]
        if digit or count:
            digits[count] = <char> (48 + digit)
            count += 1
        remainder = (whole << shift) + rest
        if remainder <= delta:
            power[0] += kappa
            _round(digits + count - 1, delta, remainder, TENS[kappa] << shift, distance)
            return count
        kappa -= 1
    while True:
        rest *= 10
        delta *= 10
        unit += 1
        digit = rest >> shift
        if digit or count:
            digits[count] = <char> (48 + digit)
            count += 1
        rest &= one - 1
        if rest < delta:
            power[0] -= unit
            _round(digits + count - 1, delta, rest, one, distance * TENS[unit])
            return count


cdef int _digits(double value, char* digits, int* power) noexcept nogil:
    """Digits and a power of ten of a finite value above zero; how many digits."""
    cdef uint64_t bits
    cdef Float number, upper, lower
    cdef int index, shift
    memcpy(&bits, &value, 8)
    number.fraction = bits & (HIDDEN_BIT - 1)
    number.exponent = <int> (bits >> FRACTION_BITS)
    if number.exponent:
        number.fraction |= HIDDEN_BIT
        number.exponent -= EXPONENT_BIAS
    else:
        number.exponent = 1 - EXPONENT_BIAS
    upper.fraction = (number.fraction << 1) + 1
    upper.exponent = number.exponent - 1
    upper = _normalized(upper)
    # The neighbour below a power of two is half as far away.
    shift = 2 if number.fraction == HIDDEN_BIT else 1
    lower.fraction = ((number.fraction << shift) - 1) << (number.exponent - shift - upper.exponent)
    lower.exponent = upper.exponent
    index = _cached_power(upper.exponent)
    number = _product(_normalized(number), CACHED_POWERS[index])
    upper = _product(upper, CACHED_POWERS[index])
    lower = _product(lower, CACHED_POWERS[index])
    # One unit towards the inside, since the products are only right to within half of one.
    upper.fraction -= 1
    lower.fraction += 1
    power[0] = -(FIRST_POWER + index * POWER_STEP)
    return _generate(number, upper, lower, digits, power)


cdef int _place(char* text, char* digits, int count, int power, bint negative) noexcept nogil:
    """Digits × 10**power: with a point while the exponent is small, as ``d.ddde+x`` beyond; the length."""
    cdef int exponent = power + count - 1
    cdef int size = exponent if exponent >= 0 else -exponent
    cdef int point, at
    if power >= 0 and size < count + 7:
        memcpy(text, digits, count)
        memset(text + count, 48, power)
        return count + power
    if power < 0 and (power > -7 or size < 4):
        point = count + power
        if point > 0:
            memcpy(text, digits, point)
            text[point] = b"."
            memcpy(text + point + 1, digits + point, count - point)
            return count + 1
        text[0] = b"0"
        text[1] = b"."
        memset(text + 2, 48, -point)
        memcpy(text + 2 - point, digits, count)
        return 2 - point + count
    count = min(count, MOST_DIGITS - negative)
    text[0] = digits[0]
    at = 1
    if count > 1:
        text[1] = b"."
        memcpy(text + 2, digits + 1, count - 1)
        at = count + 1
    text[at] = b"e"
    text[at + 1] = b"-" if exponent < 0 else b"+"
    at += 2
    if size >= 100:
        text[at] = <char> (48 + size // 100)
        at += 1
    if size >= 10:
        text[at] = <char> (48 + size // 10 % 10)
        at += 1
    text[at] = <char> (48 + size % 10)
    return at + 1


def format_double(double value) -> bytes:
    """A double as the real server prints it.

    Whole numbers up to 2**62 have no fraction ("3"), infinities and NaN are "inf", "-inf", "nan"; others have up to
    17 digits, with a point ("0.25") or an exponent ("1.5e-7").
    """
    cdef char text[TEXT_BYTES]
    cdef char digits[20]
    cdef int power, start = 0, length
    if isnan(value):
        return b"nan"
    if isinf(value):
        return b"inf" if value > 0 else b"-inf"
    if value == 0:
        return b"-0" if signbit(value) else b"0"
    if -LARGEST_WHOLE <= value <= LARGEST_WHOLE and <double> (<int64_t> value) == value:
        return b"%d" % <int64_t> value
    if value < 0:
        text[0] = b"-"
        start = 1
    length = _digits(value if value > 0 else -value, digits, &power)
    length = _place(text + start, digits, length, power, start)
    return PyBytes_FromStringAndSize(text, start + length)
