"""Random commands on hashes, field TTLs included.

TTLs are either in the past or so long that none runs out while a script runs, since the two servers'
clocks are read at different moments.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from .compare import compare_as, pairs, same_shape, unordered, within
from .strategies_common import (
    Command,
    any_case,
    command,
    floats,
    integers,
    keys,
    options,
    patterns,
    values,
    with_options,
    words,
)
from .wire import Arg, RawReply

__all__ = ["hash_commands", "hash_random_commands", "hash_ttl_commands"]


def same_scan(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """The same cursor and the same fields with their values, in any order (one call returns all of a small hash)."""
    if ours.raw == theirs.raw:
        return True
    if len(ours.items) != 2 or len(theirs.items) != 2 or ours.items[0].raw != theirs.items[0].raw:
        return False
    compare = unordered if any(word.upper() == b"NOVALUES" for word in argv[3:]) else pairs
    return compare(argv, ours.items[1], theirs.items[1])


compare_as(same_shape, "hrandfield")
compare_as(unordered, "hkeys", "hvals")
compare_as(pairs, "hgetall")
compare_as(same_scan, "hscan")
compare_as(within(5), "httl", "hexpiretime")
compare_as(within(5000), "hpttl", "hpexpiretime")

fields = words
fields_and_values = st.lists(st.tuples(fields, values), min_size=1, max_size=4).map(
    lambda found: [part for pair in found for part in pair]
)


def _with_pairs(name: str) -> st.SearchStrategy[Command]:
    return st.tuples(keys, fields_and_values).map(lambda drawn: (name, drawn[0], *drawn[1]))


def _with_fields(name: str, largest: int = 4) -> st.SearchStrategy[Command]:
    many = st.lists(fields, min_size=1, max_size=largest)
    return st.tuples(keys, many).map(lambda drawn: (name, drawn[0], *drawn[1]))


scan_options = options(
    (any_case("MATCH"), patterns),
    (any_case("COUNT"), integers),
    ("NOVALUES",),
    ("NOSCORES",),
    ("TYPE", "hash"),
    ("MATCH",),
)

hash_commands = st.one_of(
    _with_pairs("HSET"),
    _with_pairs("HSET"),
    _with_pairs("HMSET"),
    command("HSET", keys, fields, values, fields),
    command("HSETNX", keys, fields, values),
    command("HGET", keys, fields),
    _with_fields("HMGET"),
    command("HGETALL", keys),
    _with_fields("HDEL"),
    command("HEXISTS", keys, fields),
    command("HLEN", keys),
    command("HKEYS", keys),
    command("HVALS", keys),
    command("HSTRLEN", keys, fields),
    command("HINCRBY", keys, fields, integers),
    command("HINCRBYFLOAT", keys, fields, floats),
    with_options(command("HSCAN", keys, st.sampled_from([0, "0", "x", "", "-1"])), scan_options),
    command("SET", keys, values),
    command("DEL", keys),
)

hash_random_commands = st.one_of(
    _with_pairs("HSET"),
    command("HRANDFIELD", keys),
    command("HRANDFIELD", keys, integers.filter(lambda count: not isinstance(count, int) or abs(count) < 10**6)),
    command("HRANDFIELD", keys, st.integers(-8, 8), st.sampled_from(["WITHVALUES", "withvalues", "WITHSCORES"])),
    command("HRANDFIELD", keys, st.sampled_from([-(2**63), -(2**62) - 1, 2**62]), "WITHVALUES"),
    command("HRANDFIELD", keys, "1", "WITHVALUES", "x"),
    command("SET", keys, values),
)

_relative: st.SearchStrategy[Arg] = st.one_of(
    st.sampled_from([0, -1, 1000, 2000, 3000, 2**31, 2**63 - 1, 2**63 // 1000, "x", ""]), st.just(5000)
)
_relative_ms: st.SearchStrategy[Arg] = st.sampled_from([0, -1, 10**6, 2 * 10**6, 2**40, 2**63 - 1, 2**63, "x"])
_absolute: st.SearchStrategy[Arg] = st.sampled_from([0, 1, -1, 4 * 10**9, 5 * 10**9, 2**63 // 1000, 2**63 - 1, "1.5"])
_absolute_ms: st.SearchStrategy[Arg] = st.sampled_from([0, 1, -1, 4 * 10**12, 5 * 10**12, 2**63 - 1, 2**63])

_expiry = (
    (any_case("EX"), _relative),
    ("PX", _relative_ms),
    ("EXAT", _absolute),
    ("PXAT", _absolute_ms),
)


_count_errors: st.SearchStrategy[int | str] = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, -1, "x"])


def _tail(per_field: st.SearchStrategy[list[Arg]]) -> st.SearchStrategy[list[Arg]]:
    """FIELDS n field …, now and then with a wrong count or word."""
    drawn = st.tuples(
        st.sampled_from(["FIELDS", "FIELDS", "FIELDS", "fields", "FIELD"]),
        _count_errors,
        st.lists(per_field, min_size=1, max_size=3),
    )

    def flat(parts: tuple[str, int | str, list[list[Arg]]]) -> list[Arg]:
        word, error, groups = parts
        count = len(groups) + error if isinstance(error, int) else error
        return [word, count, *(arg for group in groups for arg in group)]

    return drawn.map(flat)


_fields_tail = _tail(fields.map(lambda field: [field]))
_pairs_tail = _tail(st.tuples(fields, values).map(list))


def _ttl_command(
    name: str, middle: st.SearchStrategy[list[Arg]], tail: st.SearchStrategy[list[Arg]], *before: st.SearchStrategy[Arg]
) -> st.SearchStrategy[Command]:
    return st.tuples(keys, st.tuples(*before), middle, tail).map(
        lambda drawn: (name, drawn[0], *drawn[1], *drawn[2], *drawn[3])
    )


_conditions = options((any_case("NX"),), ("XX",), ("GT",), ("LT",), ("YY",), most=2)
# Whether a relative time is later than an equal one set before depends on the clock between the two commands.
_clockless_conditions = options((any_case("NX"),), ("XX",), ("YY",), most=2)
_nothing: st.SearchStrategy[list[Arg]] = st.just([])

hash_ttl_commands = st.one_of(
    _with_pairs("HSET"),
    _with_pairs("HSET"),
    command("HINCRBY", keys, fields, st.integers(-5, 5)),
    command("HINCRBYFLOAT", keys, fields, "1.5"),
    command("HSETNX", keys, fields, values),
    _with_fields("HDEL"),
    _ttl_command("HEXPIRE", _clockless_conditions, _fields_tail, _relative),
    _ttl_command("HPEXPIRE", _clockless_conditions, _fields_tail, _relative_ms),
    _ttl_command("HEXPIREAT", _conditions, _fields_tail, _absolute),
    _ttl_command("HPEXPIREAT", _conditions, _fields_tail, _absolute_ms),
    _ttl_command("HTTL", _nothing, _fields_tail),
    _ttl_command("HPTTL", _nothing, _fields_tail),
    _ttl_command("HEXPIRETIME", _nothing, _fields_tail),
    _ttl_command("HPEXPIRETIME", _nothing, _fields_tail),
    _ttl_command("HPERSIST", _nothing, _fields_tail),
    _ttl_command(
        "HSETEX",
        options(*_expiry, ("KEEPTTL",), ("NX",), ("XX",), ("FNX",), ("fxx",), ("PERSIST",), ("EX",)),
        _pairs_tail,
    ),
    _ttl_command("HGETEX", options(*_expiry, ("PERSIST",), ("KEEPTTL",), ("NX",), most=2), _fields_tail),
    _ttl_command("HGETDEL", _nothing, _fields_tail),
    command("SET", keys, values),
    command("DEL", keys),
)
