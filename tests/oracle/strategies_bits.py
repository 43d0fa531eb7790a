"""Random bit commands. Positions stay below a few hundred bits, or beyond the limit where they are refused."""

from __future__ import annotations

from hypothesis import strategies as st

from .strategies_common import Command, any_case, command, integers, keys, options, several, with_options, words
from .wire import Arg

__all__ = ["bit_commands"]

positions: st.SearchStrategy[Arg] = st.one_of(
    st.integers(-3, 300),
    st.integers(0, 40),
    st.sampled_from([2**32, 2**63 - 1, 2**63, -(2**63), "x", "", "1.5", "#1", "#0", "#7", "#-1"]),
)
bits: st.SearchStrategy[Arg] = st.sampled_from([0, 1, 0, 1, 2, -1, "", "x", "01"])
bytes_values: st.SearchStrategy[Arg] = st.one_of(
    st.binary(max_size=24), st.sampled_from([b"\xff" * 9, b"\x00" * 9, b"\xff\xf0\x00", b"\x00\xff\xf0", b""])
)
ranges: st.SearchStrategy[Arg] = st.one_of(st.integers(-30, 30), st.integers(-200, 200), integers)
unit = st.sampled_from([[], [], ["BIT"], ["byte"], ["bit"], ["BITS"], ["BIT", "X"]])


def _ranged(name: str, *first: st.SearchStrategy[Arg]) -> st.SearchStrategy[Command]:
    """A command with nothing, a start, a start and an end, or a unit as well."""
    tail: st.SearchStrategy[list[Arg]] = st.one_of(
        st.just([]),
        st.lists(ranges, min_size=1, max_size=2),
        st.tuples(st.tuples(ranges, ranges), unit).map(lambda drawn: [*drawn[0], *drawn[1]]),
    )
    return with_options(command(name, keys, *first), tail)


field_types: st.SearchStrategy[Arg] = st.one_of(
    st.tuples(st.sampled_from("iu"), st.integers(1, 66)).map(lambda drawn: f"{drawn[0]}{drawn[1]}"),
    st.sampled_from(["u8", "i8", "i64", "u63", "i5", "u1", "i1", "U8", "u0", "i", "", "x8", "u08", "u+8", "i8 "]),
)
field_values: st.SearchStrategy[Arg] = st.one_of(
    st.integers(-300, 300), st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63)]), integers
)
field_steps = options(
    (any_case("GET"), field_types, positions),
    (any_case("SET"), field_types, positions, field_values),
    (any_case("INCRBY"), field_types, positions, field_values),
    (any_case("INCRBY"), field_types, positions, field_values),
    (any_case("OVERFLOW"), st.sampled_from(["WRAP", "sat", "FAIL", "Sat", "fail", "none"])),
    (st.sampled_from(["GET", "SET", "INCRBY", "OVERFLOW", "X"]),),
    most=6,
)
good_types: st.SearchStrategy[Arg] = st.sampled_from(["u8", "i8", "i64", "u63", "i5", "u1", "i1", "u16", "i33", "u31"])
good_positions: st.SearchStrategy[Arg] = st.one_of(st.integers(0, 100), st.sampled_from(["#0", "#1", "#2", "#3"]))
good_steps = options(
    ("GET", good_types, good_positions),
    ("SET", good_types, good_positions, field_values),
    ("INCRBY", good_types, good_positions, field_values),
    ("INCRBY", good_types, good_positions, field_values),
    ("OVERFLOW", st.sampled_from(["WRAP", "SAT", "FAIL"])),
    most=8,
)


bit_commands: st.SearchStrategy[Command] = st.one_of(
    command("SET", keys, bytes_values),
    command("SETBIT", keys, positions, bits),
    command("GETBIT", keys, positions),
    _ranged("BITCOUNT"),
    _ranged("BITPOS", bits),
    st.tuples(
        any_case("AND") | any_case("OR") | any_case("XOR") | any_case("NOT") | st.just("DIFF"), several("", keys, 2, 4)
    ).map(lambda drawn: ("BITOP", drawn[0], *drawn[1][1:])),
    command("BITOP", "NOT", keys, keys),
    with_options(command("BITFIELD", keys), field_steps),
    with_options(command("BITFIELD", keys), good_steps),
    with_options(command("BITFIELD", keys), good_steps),
    with_options(command("BITFIELD_RO", keys), field_steps),
    command("OBJECT", "ENCODING", keys),
    command("RPUSH", keys, words),
    command("DEL", keys),
)
