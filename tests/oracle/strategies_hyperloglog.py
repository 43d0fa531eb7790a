"""Random commands on HyperLogLogs, also against values that only look like one.

GET compares the representation itself.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .strategies_common import Command, command, keys, several, values, words

__all__ = ["hyperloglog_commands"]

_HEADER = b"HYLL\x01" + bytes(11)
# No XZERO cut in half (the real server reads the byte behind the value), and no opcodes beyond the last register (it
# changes the value, finds them, and answers an error; here an error means that nothing changed).
_odd_values = st.sampled_from(
    [
        b"HYLL",
        b"HYLL" + bytes(12),
        b"HYLL\x02" + bytes(11),
        _HEADER,
        _HEADER + b"\x7f\xff",
        _HEADER + b"\x80\x40\x10",
        b"HYLL\x01" + bytes(10) + b"\x80\x80\x40\x10",
        _HEADER + b"\x3f" * 255,
        _HEADER + b"\x3f" * 256,
        b"HYLL" + bytes(12) + bytes(12288),
        b"HYLL" + bytes(11) + b"\x80" + b"\x41\x10\x04" * 4096,
        b"HYLL" + bytes(11) + b"\x80" + b"\x41\x10\x04" * 4095,
    ]
)


def _elements(name: str, largest: int) -> st.SearchStrategy[Command]:
    numbered = st.tuples(st.integers(0, 5000), st.integers(1, largest)).map(
        lambda drawn: range(drawn[0], drawn[0] + drawn[1])
    )
    return st.tuples(keys, numbered).map(lambda drawn: (name, drawn[0], *(f"e{number}" for number in drawn[1])))


hyperloglog_commands = st.one_of(
    several("PFADD", st.one_of(words, st.binary(max_size=20)), smallest=0).flatmap(
        lambda made: keys.map(lambda key: ("PFADD", key, *made[1:]))
    ),
    _elements("PFADD", 20),
    _elements("PFADD", 20),
    _elements("PFADD", 3000),
    several("PFCOUNT", keys),
    several("PFCOUNT", keys),
    several("PFMERGE", keys),
    command("GET", keys),
    command("SET", keys, _odd_values),
    command("SET", keys, values),
    command("LPUSH", keys, "x"),
    command("DEL", keys),
)
