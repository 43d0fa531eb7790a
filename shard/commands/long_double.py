"""Decimal text of 80-bit long doubles, as INCRBYFLOAT and HINCRBYFLOAT compute with.

Owns: reading a number as C's ``strtold`` does, adding two of them with the x87 format's rounding
(64-bit mantissa, half to even), and printing as ``%.17Lf`` without trailing zeros. Promises: the text
is byte for byte a real server's, whatever float type Python was built with; the time is bounded by the
length of the input, never by the size of an exponent. Pure functions over bytes; anyone may call them.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

__all__ = ["Number", "add", "fixed_text", "human_text", "parse"]

Number = Fraction | float
"""A finite value as an exact fraction, an infinity as a float."""

_MANTISSA_BITS = 64
_MIN_EXPONENT = -16445  # of the last mantissa bit of the smallest subnormal
_MAX_EXPONENT = 16320  # of the last mantissa bit of the largest finite value
_MAX_TEXT = 5 * 1024  # the real server copies the text to a buffer of this size first
_FRACTION_DIGITS = 17
# Decimal exponents outside these overflow, or underflow to zero, whatever the digits are.
_MAX_DECIMAL_EXPONENT = 4934
_MIN_DECIMAL_EXPONENT = -4970

_DECIMAL = re.compile(rb"([+-]?)(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+))?")
_HEXADECIMAL = re.compile(rb"([+-]?)0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP]([+-]?\d+))?")
_INFINITY = re.compile(rb"([+-]?)inf(?:inity)?", re.IGNORECASE)


def parse(raw: bytes) -> Number | None:
    """The number that `raw` spells; None when it is none, is not a number, or is out of range."""
    if not raw or len(raw) >= _MAX_TEXT:
        return None
    match = _DECIMAL.fullmatch(raw)
    if match is not None:
        return _parse_decimal(*match.groups())
    match = _HEXADECIMAL.fullmatch(raw)
    if match is not None:
        return _parse_hexadecimal(*match.groups())
    match = _INFINITY.fullmatch(raw)
    if match is not None:
        return -math.inf if match.group(1) == b"-" else math.inf
    return None


def add(left: Number, right: Number) -> Number | None:
    """The rounded sum; None when it is not a finite number."""
    if isinstance(left, float) or isinstance(right, float):
        return None
    total = _rounded(left + right)
    return None if isinstance(total, float) else total


def human_text(value: Fraction) -> bytes:
    """`value` with at most 17 digits after the point and no trailing zeros (``%.17Lf``, trimmed)."""
    return fixed_text(value, _FRACTION_DIGITS, trim=True)


def fixed_text(value: Fraction, digits: int, *, trim: bool = False) -> bytes:
    """`value` with `digits` digits after the point, as C prints it: the exact value, half to even."""
    scaled = round(abs(value) * 10**digits)
    whole, fraction = divmod(scaled, 10**digits)
    tail = f"{fraction:0{digits}d}" if digits else ""
    if trim:
        tail = tail.rstrip("0")
    text = f"{Decimal(whole):f}" + (f".{tail}" if tail else "")
    return (f"-{text}" if value < 0 and scaled else text).encode()


def _parse_decimal(sign: bytes, digits: bytes, exponent: bytes | None) -> Number | None:
    # Decimal, not int: Python refuses to turn more than 4300 digits into an int.
    mantissa = Decimal(digits.decode())
    if not mantissa:
        return Fraction(0)
    power = 0 if exponent is None else _bounded_exponent(exponent)
    adjusted = mantissa.adjusted() + power
    if not _MIN_DECIMAL_EXPONENT <= adjusted <= _MAX_DECIMAL_EXPONENT:
        return None
    value = Fraction(mantissa)
    value = value * 10**power if power >= 0 else value / 10**-power
    return _signed(sign, value)


def _parse_hexadecimal(sign: bytes, digits: bytes, exponent: bytes | None) -> Number | None:
    whole, _, fraction = digits.partition(b".")
    mantissa = int(whole + fraction, 16)
    if not mantissa:
        return Fraction(0)
    power = (0 if exponent is None else _bounded_exponent(exponent)) - 4 * len(fraction)
    if not _MIN_EXPONENT - 1 <= mantissa.bit_length() + power <= _MAX_EXPONENT + _MANTISSA_BITS + 1:
        return None
    return _signed(sign, Fraction(mantissa << power) if power >= 0 else Fraction(mantissa, 1 << -power))


def _bounded_exponent(text: bytes) -> int:
    # A longer exponent is out of range with any mantissa that fits the text limit.
    negative = text.startswith(b"-")
    digits = text.lstrip(b"+-").lstrip(b"0") or b"0"
    value = int(digits) if len(digits) <= 6 else 10**6
    return -value if negative else value


def _signed(sign: bytes, magnitude: Fraction) -> Number | None:
    value = _rounded(magnitude)
    if isinstance(value, float) or not value:
        return None  # overflow, or underflow to zero: strtold's ERANGE
    return -value if sign == b"-" else value


def _rounded(value: Fraction) -> Number:
    if not value:
        return value
    magnitude = abs(value)
    # The exponent of the last mantissa bit, from the bit lengths; at most one too small.
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length() - _MANTISSA_BITS
    exponent = max(exponent, _MIN_EXPONENT)
    mantissa = _shifted(magnitude, exponent)
    if mantissa.bit_length() > _MANTISSA_BITS:
        exponent += 1
        mantissa = _shifted(magnitude, exponent)
    if mantissa.bit_length() > _MANTISSA_BITS:  # rounding carried into a new bit; it is a power of two
        exponent += 1
        mantissa >>= 1
    if exponent > _MAX_EXPONENT:
        return math.inf if value > 0 else -math.inf
    result = Fraction(mantissa << exponent) if exponent >= 0 else Fraction(mantissa, 1 << -exponent)
    return result if value > 0 else -result


def _shifted(magnitude: Fraction, exponent: int) -> int:
    # round(magnitude / 2**exponent), half to even.
    if exponent >= 0:
        return round(magnitude / (1 << exponent))
    return round(magnitude * (1 << -exponent))
