"""The text arithmetic of 80-bit long doubles, against answers of a real server."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from kache.shard.commands.long_double import Number, add, fixed_text, human_text, parse


def total(left: bytes, right: bytes) -> bytes | None:
    first, second = parse(left), parse(right)
    assert first is not None
    assert second is not None
    result = add(first, second)
    return human_text(result) if isinstance(result, Fraction) else None


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (b"0", b"0.1", b"0.1"),
        (b"1.1", b"2.2", b"3.3"),
        (b"3.3", b"5e-18", b"3.3"),
        (b"10.50", b"0.1", b"10.6"),
        (b"5.0e3", b"2.0e2", b"5200"),
        (b"0", b"-0", b"0"),
        (b"0", b"-1e-30", b"0"),
        (b"0", b"0x10", b"16"),
        (b"0", b"0x1p-3", b"0.125"),
        (b"362196", b"3.729677083582", b"362199.72967708358200412"),
        (b"0.1", b"-0.3", b"-0.2"),
        (b"1e400", b"-1e400", b"0"),
    ],
)
def test_sums_are_the_real_servers(left: bytes, right: bytes, expected: bytes) -> None:
    assert total(left, right) == expected


@pytest.mark.parametrize(
    "raw",
    [b"", b" 1", b"1 ", b"nan", b"1e", b"0x", b"--1", b"1_0", b".", b"1e5000", b"1e-5000", b"1" * 5120, b"0x1p16384"],
)
def test_what_is_no_number(raw: bytes) -> None:
    assert parse(raw) is None


def test_infinities_are_numbers_that_cannot_be_added() -> None:
    infinity = parse(b"-Infinity")
    assert infinity == -math.inf
    assert add(Fraction(1), infinity) is None
    largest = parse(b"1.1e4932")
    assert largest is not None
    assert add(largest, largest) is None


def test_huge_exponents_cost_nothing() -> None:
    assert parse(b"1e999999999999999") is None
    assert parse(b"0e999999999999999") == 0
    assert parse(b"0x1p999999999999") is None


def test_values_of_53_bits_stay_exact() -> None:
    seeded = random.Random(7)
    for _ in range(2000):
        value = seeded.uniform(-1, 1) * 10.0 ** seeded.randint(-300, 300)
        parsed: Number | None = parse(value.hex().encode())
        assert parsed == Fraction(value)


def test_rounding_is_to_64_bits_half_to_even() -> None:
    one = Fraction(1)
    assert add(one, Fraction(1, 2**64)) == 1
    assert add(one, Fraction(3, 2**64)) == 1 + Fraction(1, 2**62)
    assert add(one, Fraction(1, 2**63)) == 1 + Fraction(1, 2**63)
    assert add(Fraction(2**64 - 1), Fraction(1, 2)) == 2**64


def test_fixed_text_keeps_its_zeros() -> None:
    assert fixed_text(Fraction(5, 2), 4) == b"2.5000"
    assert fixed_text(Fraction(-1, 3), 2) == b"-0.33"
    assert fixed_text(Fraction(5, 2), 0) == b"2"
