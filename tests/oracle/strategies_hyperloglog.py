"""Random commands on HyperLogLogs, also against values that only look like one.

GET compares the representation itself.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .strategies_common import Command, command, keys, several, values, words

__all__ = ["hyperloglog_commands"]

_HEADER = b"HYLL\x01" + bytes(11)
_odd_values = st.sampled_from(
    [
        b"HYLL",
        b"HYLL" + bytes(12),
        b"HYLL\x02" + bytes(11),
        _HEADER + b"\x7f\xff",
        _HEADER + b"\x3f" * 256,
        b"HYLL" + bytes(12) + bytes(12288),
        b"HYLL" + bytes(11) + b"\x80" + b"\x41\x10\x04" * 4096,
        b"HYLL" + bytes(11) + b"\x80" + b"\x41\x10\x04" * 4095,
    ]
)
# Opcodes that do not cover the registers. They are only read: PFADD in the real server changes such a value before it
# notices, while here an error means that nothing changed. (None ends in half an XZERO: it reads the byte behind.)
_corrupt_values = st.sampled_from(
    [
        _HEADER,
        _HEADER + b"\x80\x7f\xff",
        _HEADER + b"\x80\x40\x10",
        b"HYLL\x01" + bytes(10) + b"\x80\x80\x40\x10",
        _HEADER + b"\x3f" * 255,
    ]
)
_corrupt_key = "{t}corrupt"
_readable_keys = st.one_of(keys, keys, keys, st.just(_corrupt_key))


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
    several("PFCOUNT", _readable_keys),
    several("PFCOUNT", _readable_keys),
    st.tuples(keys, st.lists(_readable_keys, max_size=3)).map(lambda drawn: ("PFMERGE", drawn[0], *drawn[1])),
    command("SET", _corrupt_key, _corrupt_values),
    command("GET", keys),
    command("SET", keys, _odd_values),
    command("SET", keys, values),
    command("LPUSH", keys, "x"),
    command("DEL", keys),
)
