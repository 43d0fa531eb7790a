"""Random commands on lists."""

from __future__ import annotations

from hypothesis import strategies as st

from .strategies_common import (
    Command,
    any_case,
    command,
    integers,
    keys,
    options,
    several,
    small_integers,
    values,
    with_options,
    words,
)
from .wire import Arg

__all__ = ["list_commands"]

elements: st.SearchStrategy[Arg] = st.one_of(words, words, st.integers(-3, 3), values, st.just("w" * 300))
sides = st.one_of(any_case("LEFT"), any_case("RIGHT"), st.sampled_from(["LEFT", "RIGHT", "MIDDLE", ""]))
indexes = st.one_of(small_integers, integers)
# The real server cuts LSET's index to 32 bits (2**32 sets element 0); here it is out of range, and nothing is changed.
soon: st.SearchStrategy[Arg] = st.sampled_from(["0.001", "0.001", "1e-3", "-1", ""])
set_indexes = indexes.filter(lambda index: not isinstance(index, int) or abs(index) < 2**31 or abs(index) > 2**63)


def _push(name: str) -> st.SearchStrategy[Command]:
    return with_options(command(name, keys), st.lists(elements, min_size=1, max_size=6))


def _multi_pop() -> st.SearchStrategy[Command]:
    drawn = st.tuples(
        st.lists(keys, min_size=1, max_size=3),
        st.one_of(st.none(), st.none(), st.none(), integers),
        sides,
        options((any_case("COUNT"), integers), ("COUNT",), ("COUNTS", 1), most=2),
    )
    return drawn.map(lambda d: ("LMPOP", len(d[0]) if d[1] is None else d[1], *d[0], d[2], *d[3]))


position_options = options(
    (any_case("RANK"), integers),
    (any_case("COUNT"), integers),
    (any_case("MAXLEN"), integers),
    ("RANK",),
    ("RANKS", 1),
)

list_commands = st.one_of(
    _push("LPUSH"),
    _push("RPUSH"),
    _push("RPUSH"),
    _push("LPUSHX"),
    _push("RPUSHX"),
    command("LPOP", keys),
    command("RPOP", keys),
    command("BLPOP", keys, soon),
    command("BRPOP", keys, keys, soon),
    command("BLMOVE", keys, keys, sides, sides, soon),
    command("BRPOPLPUSH", keys, keys, soon),
    _multi_pop().map(lambda drawn: ("BLMPOP", "0.001", *drawn[1:])),
    command("LPOP", keys, integers),
    command("RPOP", keys, integers),
    command("LPOP", keys, 1, 2),
    command("LLEN", keys),
    command("LINDEX", keys, indexes),
    command("LRANGE", keys, indexes, indexes),
    command("LRANGE", keys, 0, -1),
    command("LSET", keys, set_indexes, elements),
    command("LINSERT", keys, st.one_of(any_case("BEFORE"), any_case("AFTER"), st.just("AT")), elements, elements),
    command("LREM", keys, indexes, elements),
    command("LTRIM", keys, indexes, indexes),
    with_options(command("LPOS", keys, elements), position_options),
    command("LMOVE", keys, keys, sides, sides),
    command("RPOPLPUSH", keys, keys),
    _multi_pop(),
    command("OBJECT", "ENCODING", keys),
    command("TYPE", keys),
    command("EXPIRE", keys, 1000),
    command("SET", keys, values),
    command("SORT", keys, "ALPHA"),
    several("DEL", keys, largest=2),
)
