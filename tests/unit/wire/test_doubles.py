"""Doubles as text: what a real valkey-server 9.1 printed for the same numbers, recorded."""

from __future__ import annotations

import random
import struct

import pytest

from kache.wire.doubles import format_double

RECORDED = {
    0.0: b"0",
    3.0: b"3",
    -17.0: b"-17",
    0.1: b"0.1",
    -2.25: b"-2.25",
    5.5: b"5.5",
    2.0**62: b"4611686018427387904",
    -(2.0**62): b"-4611686018427387904",
    float("inf"): b"inf",
    float("-inf"): b"-inf",
    # Not the shortest text that reads back: Grisu2's own.
    782860.677295595: b"7.828606772955949e+5",
    5e-324: b"5e-324",
    2.2250738585072014e-308: b"2.2250738585072014e-308",
    1.7976931348623157e308: b"1.7976931348623157e+308",
    1e22: b"1e+22",
    1e23: b"99999999999999990000000",
    9.223372036854776e18: b"9223372036854776000",
    4.5e-05: b"0.000045",
    0.0001: b"0.0001",
    0.001234: b"0.001234",
    1e-07: b"1e-7",
    123456789.123: b"123456789.123",
    -1e300: b"-1e+300",
    0.3333333333333333: b"0.3333333333333333",
    9007199254740992.0: b"9007199254740992",
    1.5e19: b"1.5e+19",
    5.878170393690447e16: b"58781703936904472",
    -457560.0817066124: b"-4.5756008170661237e+5",
    -4.633346111903722e16: b"-46333461119037216",
    -653828.083448669: b"-6.538280834486689e+5",
    -8.666416708224517e17: b"-866641670822451712",
    -837825.5644721536: b"-8.378255644721535e+5",
    -7.68820772732314e17: b"-768820772732313984",
    780739.6920750903: b"7.807396920750902e+5",
    3.054545651974795e16: b"30545456519747952",
    297150.5169933906: b"2.9715051699339063e+5",
    -3.5227220576447155e18: b"-3522722057644715520",
    552114.8323843474: b"5.521148323843475e+5",
}


@pytest.mark.parametrize("value", RECORDED)
def test_prints_what_the_real_server_prints(value: float) -> None:
    assert format_double(value) == RECORDED[value]


def test_signs_of_what_is_no_number() -> None:
    assert format_double(float("nan")) == b"nan"
    assert format_double(-0.0) == b"-0"


def test_reads_back() -> None:
    rng = random.Random(11)
    for _ in range(20_000):
        (value,) = struct.unpack("<d", rng.randbytes(8))
        text = format_double(value)
        assert len(text) <= 25
        if value == value:
            assert float(text) == value
