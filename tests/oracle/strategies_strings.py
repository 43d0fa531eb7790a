"""Random commands on strings, options and conflicts of options included.

Lengths stay small: SETRANGE and APPEND at the real server's 512 MiB limit only where it refuses.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .strategies_common import (
    Command,
    any_case,
    command,
    floats,
    integers,
    keys,
    limit_integers,
    options,
    several,
    values,
    with_options,
    words,
)
from .wire import Arg

__all__ = ["string_commands"]

# Far enough away that a key does not expire between two commands of a script, or in the past.
seconds: st.SearchStrategy[Arg] = st.one_of(
    st.sampled_from([1000, 100_000, "0", "-1", 10**15]),
    integers.filter(lambda drawn: not isinstance(drawn, int) or drawn > 100 or drawn <= 0),
)
unix_seconds: st.SearchStrategy[Arg] = st.sampled_from(
    [1, 4_000_000_000, 0, -5, 2**53, 2**63 - 1, 9223372036854775, 9223372036854776, "x"]
)

expiry = options(
    (any_case("EX"), seconds),
    (any_case("PX"), seconds.map(lambda drawn: drawn * 1000 if isinstance(drawn, int) and drawn < 10**9 else drawn)),
    (any_case("EXAT"), unix_seconds),
    (any_case("PXAT"), unix_seconds.map(lambda drawn: drawn * 1000 if drawn == 4_000_000_000 else drawn)),
    (any_case("KEEPTTL"),),
    (any_case("PERSIST"),),
    (any_case("NX"),),
    (any_case("XX"),),
    (any_case("GET"),),
    (any_case("IFEQ"), values),
    ("EX",),
    ("IFEQ",),
    ("FOO",),
    most=3,
)
one_expiry = options(
    (any_case("EX"), seconds),
    (any_case("EXAT"), unix_seconds),
    (any_case("NX"),),
    (any_case("XX"),),
    (any_case("GET"),),
    most=2,
)

offsets: st.SearchStrategy[Arg] = st.one_of(
    st.integers(-3, 40), st.integers(-3, 40), limit_integers, st.sampled_from(["", "x", "1.0", 2**29])
)
texts: st.SearchStrategy[Arg] = st.one_of(values, st.text("abcd", max_size=30), st.binary(max_size=30))


def _pairs(name: str) -> st.SearchStrategy[Command]:
    return st.lists(st.tuples(keys, values), min_size=1, max_size=3).map(
        lambda drawn: (name, *(arg for pair in drawn for arg in pair))
    )


def _msetex() -> st.SearchStrategy[Command]:
    pairs = st.lists(st.tuples(keys, values), min_size=1, max_size=3)
    counts: st.SearchStrategy[Arg] = st.sampled_from([0, 0, 0, 0, 1, -1, "x", 2**31, 2**63])

    def build(drawn: tuple[list[tuple[str, Arg]], Arg, list[Arg]]) -> Command:
        listed, skew, tail = drawn
        count: Arg = len(listed) + skew if isinstance(skew, int) and abs(skew) < 2 else skew
        if skew == 1:
            tail = []  # an option's word would become a key, of another slot
        return ("MSETEX", count, *(arg for pair in listed for arg in pair), *tail)

    return st.tuples(pairs, counts, expiry).map(build)


lcs_options = options(
    (any_case("IDX"),),
    (any_case("LEN"),),
    (any_case("WITHMATCHLEN"),),
    (any_case("MINMATCHLEN"), integers),
    ("MINMATCHLEN",),
    ("X",),
)

string_commands: st.SearchStrategy[Command] = st.one_of(
    command("GET", keys),
    command("SET", keys, values),
    command("SET", keys, texts),
    with_options(command("SET", keys, values), expiry),
    with_options(command("SET", keys, values), one_expiry),
    with_options(command("GETEX", keys), expiry),
    with_options(command("GETEX", keys), one_expiry),
    command("SETEX", keys, seconds, values),
    command("PSETEX", keys, seconds, values).filter(lambda drawn: drawn[2] not in (1000,)),
    command("SETNX", keys, values),
    command("GETSET", keys, values),
    command("GETDEL", keys),
    command("DELIFEQ", keys, values),
    several("MGET", keys),
    _pairs("MSET"),
    _pairs("MSETNX"),
    command("MSET", keys, values, keys),
    _msetex(),
    command("INCR", keys),
    command("DECR", keys),
    command("INCRBY", keys, integers),
    command("DECRBY", keys, integers),
    command("INCRBYFLOAT", keys, floats),
    command("APPEND", keys, texts),
    command("STRLEN", keys),
    command("GETRANGE", keys, offsets, offsets),
    command("SUBSTR", keys, offsets, offsets),
    command("SETRANGE", keys, offsets, texts),
    with_options(command("LCS", keys, keys), lcs_options),
    command("OBJECT", "ENCODING", keys),
    command("TTL", keys),
    command("RPUSH", keys, words),
    command("DEL", keys),
)
