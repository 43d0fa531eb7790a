"""BITFIELD's fields: ranges and overflow rules, against plain arithmetic."""

from __future__ import annotations

import pytest

from kache.errors import CommandError
from kache.shard.commands.bitfield import Field, operations


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_fit(width: int, signed: bool) -> None:
    field = Field(0, width, signed)
    low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if signed else (0, 2**width - 1)
    assert (field.low, field.high) == (low, high)
    for value in range(-600, 600):
        inside = low <= value <= high
        assert field.fit(value, b"FAIL") == (value if inside else None)
        assert field.fit(value, b"SAT") == min(max(value, low), high)
        assert field.fit(value, b"WRAP") == (value - low) % 2**width + low


@pytest.mark.parametrize("word", [b"u64", b"i65", b"u0", b"i0", b"x8", b"u", b"u08", b"8", b""])
def test_refused_types(word: bytes) -> None:
    with pytest.raises(CommandError, match="Invalid bitfield type"):
        operations((b"GET", word, b"0"), readonly=False)


def test_overflow_holds_from_where_it_stands() -> None:
    steps = operations((b"incrby", b"u8", b"#2", b"1", b"OVERFLOW", b"sat", b"SET", b"i4", b"3", b"-1"), readonly=False)
    assert [(step.name, step.field.offset, step.overflow) for step in steps] == [
        (b"INCRBY", 16, b"WRAP"),
        (b"SET", 3, b"SAT"),
    ]
