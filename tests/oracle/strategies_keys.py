"""Random commands about keys of every type: deadlines, names, databases, SORT, introspection."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from .compare import compare_as, same_shape, unordered, within
from .strategies_common import (
    TAG,
    Command,
    any_case,
    command,
    integers,
    keys,
    options,
    patterns,
    several,
    values,
    with_options,
    words,
)
from .wire import Arg, RawReply

__all__ = ["filling_commands", "key_commands", "sort_commands"]


def _same_scan(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """The same keys in any order; a cluster may stop early with a cursor, and then owes only some of them."""
    if ours.raw == theirs.raw:
        return True
    if len(ours.items) != 2 or len(theirs.items) != 2 or theirs.items[0].text != b"0":
        return False
    mine, other = ({item.raw for item in reply.items[1].items} for reply in (ours, theirs))
    return mine == other if ours.items[0].text == b"0" else mine <= other


def _same_object(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Idle times within a second, everything else exactly."""
    return within(5)(argv, ours, theirs) if argv[1].upper() == b"IDLETIME" else ours.raw == theirs.raw


compare_as(_same_scan, "scan")
compare_as(_same_object, "object")
compare_as(same_shape, "randomkey")

filling_commands: st.SearchStrategy[Command] = st.one_of(
    command("SET", keys, values),
    command("RPUSH", keys, words, values),
    command("SADD", keys, words, words),
    command("ZADD", keys, st.integers(-3, 3), words, "2.5", words),
    command("HSET", keys, words, values),
)

# Either long past or so far that nothing expires during a script.
times: st.SearchStrategy[Arg] = st.one_of(
    st.sampled_from([100_000, 200_000, 300_000, 100_000, 0, -1]),
    integers.filter(lambda drawn: not isinstance(drawn, int) or not 0 < drawn < 1000),
)
unix_times: st.SearchStrategy[Arg] = st.one_of(
    st.sampled_from([4 * 10**9, 5 * 10**9, 4 * 10**12, 9223372036854775, 9223372036854776, 1, 0]),
    times.filter(lambda drawn: not isinstance(drawn, int) or drawn < 1000 or drawn > 10**6),
)
conditions = options(
    (any_case("NX"),),
    (any_case("XX"),),
    (any_case("GT"),),
    (any_case("LT"),),
    (st.sampled_from(["GT", "LT"]),),
    ("FOO",),
    most=2,
)
databases: st.SearchStrategy[Arg] = st.sampled_from(
    [0, 1, 1, 1, 2, 15, 16, -1, "x", "", 2**31, 2**63, -(2**31), -(2**63)]
)


def _expires(name: str, when: st.SearchStrategy[Arg]) -> st.SearchStrategy[Command]:
    return with_options(command(name, keys, when), conditions)


key_commands: st.SearchStrategy[Command] = st.one_of(
    filling_commands,
    several("DEL", keys),
    several("UNLINK", keys),
    several("EXISTS", keys),
    several("TOUCH", keys),
    command("TYPE", keys),
    _expires("EXPIRE", times),
    _expires(
        "PEXPIRE", times.map(lambda drawn: drawn * 1000 if isinstance(drawn, int) and 0 < drawn < 10**6 else drawn)
    ),
    _expires("EXPIREAT", unix_times),
    _expires("PEXPIREAT", unix_times),
    st.tuples(st.sampled_from(["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]), keys),
    command("PERSIST", keys),
    command("RENAME", keys, keys),
    command("RENAMENX", keys, keys),
    with_options(
        command("COPY", keys, keys),
        options((any_case("REPLACE"),), (any_case("DB"), databases), ("DB",), ("FOO",), most=2),
    ),
    command("MOVE", keys, databases),
    st.tuples(st.just("SELECT"), st.sampled_from([0, 0, 1])),
    command("SWAPDB", databases, databases),
    with_options(
        st.sampled_from([("FLUSHDB",), ("FLUSHALL",)]),
        options((any_case("ASYNC"),), (any_case("SYNC"),), ("X",), most=2),
    ),
    st.just(("DBSIZE",)),
    st.just(("RANDOMKEY",)),
    command("KEYS", patterns),
    with_options(
        st.just(("SCAN", 0)),
        options(
            (any_case("MATCH"), patterns),
            (any_case("TYPE"), st.sampled_from(["string", "LIST", "set", "zset", "hash", "stream", "foo"])),
            (any_case("COUNT"), st.sampled_from([0, -1, "x", 2**31, 2**63])),
            ("COUNT",),
            ("X", 1),
        ),
    ).map(lambda drawn: (*drawn[:2], "COUNT", 1000, *drawn[2:])),
    command("SCAN", st.sampled_from(["x", "", "-1", "18446744073709551616"])),
    command("OBJECT", "ENCODING", keys),
    command("OBJECT", "REFCOUNT", keys),
    command("OBJECT", "IDLETIME", keys),
    command("OBJECT", "FREQ", keys),
    command("MEMORY", "USAGE", keys),
    command("DUMP", keys),
    command("MEMORY", "USAGE", "missing", "SAMPLES", integers),
    command("MEMORY", "USAGE", "missing", "SAMPLES"),
    command("DUMP", "missing"),
    with_options(
        command("RESTORE", keys, integers, "no payload"),
        options(
            (any_case("REPLACE"),),
            (any_case("ABSTTL"),),
            (any_case("IDLETIME"), integers),
            (any_case("FREQ"), integers),
            ("FREQ",),
            ("X",),
        ),
    ),
)

# Weights for BY and GET, of strings and of hashes; elements are numbers, so that w_<n> is found.
_sort_filling: st.SearchStrategy[Command] = st.one_of(
    st.lists(st.sampled_from([1, 2, 3, 10, -5, "1.5", "2e1"]), min_size=1, max_size=6).map(
        lambda drawn: ("RPUSH", f"{TAG}a", *drawn)
    ),
    st.lists(st.sampled_from([1, 2, 3, 10]), min_size=1, max_size=4).map(lambda drawn: ("SADD", f"{TAG}b", *drawn)),
    st.lists(st.sampled_from([1, 2, 3, 10]), min_size=1, max_size=4).map(
        lambda drawn: ("ZADD", f"{TAG}c", *(arg for member in drawn for arg in (-member, member)))
    ),
    st.lists(words, min_size=1, max_size=4).map(lambda drawn: ("RPUSH", f"{TAG}d", *drawn)),
    command(
        "SET",
        st.sampled_from([f"{TAG}w_1", f"{TAG}w_2", f"{TAG}w_3", f"{TAG}w_10"]),
        st.sampled_from([5, 1, "-2", "a", "1e2", "inf", ""]),
    ),
    command("HSET", st.sampled_from([f"{TAG}h_1", f"{TAG}h_2", f"{TAG}h_3"]), "f", st.sampled_from([7, "x", "", -1])),
)
_sort_patterns = st.sampled_from(
    [f"{TAG}w_*", f"{TAG}h_*->f", f"{TAG}h_*->", f"{TAG}h_*", "nosort", "#", "", f"{TAG}w_1", f"{TAG}*"]
)
_orders = options((any_case("ASC"),), (any_case("DESC"),), (any_case("ALPHA"),), ("ALPHA",), most=2)
_limits = options((any_case("LIMIT"), integers, integers), ("LIMIT", 1), most=1)
_gets = options((any_case("GET"), _sort_patterns), ("GET",), most=2)
_stores = options((any_case("STORE"), st.sampled_from([f"{TAG}out", f"{TAG}a"])), ("STORE",), ("FOO",), most=1)


def _same_sort(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Any order where none is defined: a set's own, and equal weights compared as texts."""
    unsorted = any(word == b"BY" and b"*" not in pattern for word, pattern in pairwise(argv))
    open_order = unsorted or (b"BY" in argv and any(word.upper() == b"ALPHA" for word in argv))
    return unordered(argv, ours, theirs) if open_order else ours.raw == theirs.raw


compare_as(_same_sort, "sort", "sort_ro")


def _defined_order(drawn: Command) -> bool:
    """Whether what STORE leaves behind has a defined order."""
    words_drawn = {str(arg).upper() for arg in drawn}
    return not {"STORE", "ALPHA", "BY"} <= words_drawn


_sort = st.tuples(st.sampled_from(["SORT", "SORT", "SORT_RO"]), keys, _orders, _limits, _gets, _stores).map(
    lambda drawn: (drawn[0], drawn[1], *drawn[2], *drawn[3], *drawn[4], *drawn[5])
)
_sort_by = (
    st.tuples(keys, _sort_patterns, _orders, _gets, _stores)
    .map(lambda drawn: ("SORT", drawn[0], "BY", drawn[1], *drawn[2], *drawn[3], *drawn[4]))
    .filter(_defined_order)
)
sort_commands: st.SearchStrategy[Command] = st.one_of(_sort_filling, _sort_filling, _sort, _sort_by, filling_commands)
"""SORT BY a numeric weight breaks ties by the element, so its order is defined."""
