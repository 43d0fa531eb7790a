"""Random commands on sets.

Commands with a random choice have scripts of their own: what they leave behind differs between two servers.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from .compare import compare_as, same_shape, unordered, within
from .strategies_common import (
    Command,
    any_case,
    command,
    integers,
    keys,
    options,
    patterns,
    values,
    with_options,
    words,
)
from .wire import Arg, RawReply

__all__ = ["set_commands", "set_random_commands", "whole_set_commands"]


def _same_scan(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """The same cursor and, in any order, the same members (small sets: one call returns all)."""
    if ours.raw == theirs.raw:
        return True
    if len(ours.items) != 2 or len(theirs.items) != 2 or ours.items[0].raw != theirs.items[0].raw:
        return False
    mine, other = ([item.raw for item in reply.items[1].items] for reply in (ours, theirs))
    return sorted(mine) == sorted(other)


compare_as(unordered, "smembers", "sinter", "sunion", "sdiff")
compare_as(_same_scan, "sscan")
compare_as(within(5000), "pttl")
compare_as(same_shape, "srandmember", "spop")

members: st.SearchStrategy[Arg] = st.one_of(words, st.integers(-3, 6), st.integers(-3, 6))


def _with_members(name: str) -> st.SearchStrategy[Command]:
    many = st.lists(members, min_size=1, max_size=5)
    return st.tuples(keys, many).map(lambda drawn: (name, drawn[0], *drawn[1]))


def _of_keys(name: str, *before: st.SearchStrategy[Arg]) -> st.SearchStrategy[Command]:
    several_keys = st.lists(keys, min_size=1, max_size=4)
    return st.tuples(st.tuples(*before), several_keys).map(lambda drawn: (name, *drawn[0], *drawn[1]))


def _intercard() -> st.SearchStrategy[Command]:
    counted = st.tuples(
        st.lists(keys, min_size=1, max_size=3),
        st.one_of(st.just(None), st.just(None), st.just(None), integers),
        options((any_case("LIMIT"), integers), ("LIMIT",), ("LIMITS", 1), most=2),
    )
    return counted.map(
        lambda drawn: ("SINTERCARD", len(drawn[0]) if drawn[1] is None else drawn[1], *drawn[0], *drawn[2])
    )


scan_options = options(
    (any_case("MATCH"), patterns),
    (any_case("COUNT"), integers),
    ("NOVALUES",),
    ("NOSCORES",),
    ("TYPE", "set"),
    ("COUNT",),
)

set_commands = st.one_of(
    _with_members("SADD"),
    _with_members("SADD"),
    _with_members("SADD"),
    _with_members("SREM"),
    command("SISMEMBER", keys, members),
    _with_members("SMISMEMBER"),
    command("SMEMBERS", keys),
    command("SCARD", keys),
    command("SMOVE", keys, keys, members),
    _of_keys("SINTER"),
    _of_keys("SUNION"),
    _of_keys("SDIFF"),
    _of_keys("SINTERSTORE", keys),
    _of_keys("SUNIONSTORE", keys),
    _of_keys("SDIFFSTORE", keys),
    _intercard(),
    with_options(
        command("SSCAN", keys, st.sampled_from([0, "0", "x", "", "-1", "18446744073709551616"])), scan_options
    ),
    command("PEXPIRE", keys, 10**9),
    command("SET", keys, values),
    command("DEL", keys),
)

set_random_commands = st.one_of(
    _with_members("SADD"),
    command("SRANDMEMBER", keys),
    command("SRANDMEMBER", keys, integers.filter(lambda count: not isinstance(count, int) or count > -1000)),
    command("SRANDMEMBER", keys, -(2**63)),
    command("SRANDMEMBER", keys, "1", "2"),
    command("SET", keys, values),
)

whole_set_commands = st.one_of(
    # Counts that leave no choice: nothing, or at least as many as a set of these scripts can hold.
    _with_members("SADD"),
    _with_members("SADD"),
    command("SPOP", keys, st.sampled_from([0, 1000, 2**31, 2**63 - 1, -1, 2**63, "x", "", "1.5"])),
    command("SPOP", keys, "1", "2"),
    command("SET", keys, values),
)
