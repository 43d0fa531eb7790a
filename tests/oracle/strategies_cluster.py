"""Random commands of several keys without hash tags: on a cluster they lie on different shards.

MSETNX and MSETEX have a test of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from .compare import COMPARISONS, compare_as, pairs, unordered
from .strategies_common import Command, any_case, command, options, several, untagged_keys, values, with_options, words
from .wire import Arg, RawReply

__all__ = ["cluster_commands"]

keys = untagged_keys
for _name in ("sinter", "sunion", "sdiff"):
    COMPARISONS.setdefault(_name.encode(), unordered)


def _of_first(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """HGETALL's pairs in any order, everything else exactly."""
    return pairs(argv, ours, theirs)


compare_as(_of_first, "hgetall")


def _to(name: str, *before: st.SearchStrategy[Arg] | Arg) -> st.SearchStrategy[Command]:
    """A command that writes a destination from several sources."""
    sources = st.lists(keys, min_size=1, max_size=3)
    return st.tuples(command(name, *before), keys, sources).map(lambda drawn: (*drawn[0], drawn[1], *drawn[2]))


def _counted(
    name: str, *, destination: bool = False, tail: st.SearchStrategy[list[Arg]] | None = None
) -> st.SearchStrategy[Command]:
    """A command with a number of keys, then options."""
    sources = st.lists(keys, min_size=1, max_size=3)
    return st.tuples(keys, sources, tail if tail is not None else st.just([])).map(
        lambda drawn: (name, *((drawn[0],) if destination else ()), len(drawn[1]), *drawn[1], *drawn[2])
    )


_soon: st.SearchStrategy[Arg] = st.sampled_from(["0.001", "1e-3", "-1", "soon"])


def _waiting(name: str) -> st.SearchStrategy[Command]:
    """A pop that waits, but not for long."""
    sources = st.lists(keys, min_size=1, max_size=3)
    return st.tuples(sources, _soon).map(lambda drawn: (name, *drawn[0], drawn[1]))


def _with_time(counted: Command) -> Command:
    """LMPOP or ZMPOP as the command that waits."""
    return (f"B{counted[0]!s}", "0.001", *counted[1:])


_sides: st.SearchStrategy[Arg] = st.sampled_from(["LEFT", "RIGHT", "left", "UP"])
_weights = options((any_case("AGGREGATE"), st.sampled_from(["SUM", "min", "MAX"])), most=1)
_scores = options(("WITHSCORES",), most=1)
_members: st.SearchStrategy[Arg] = st.integers(0, 6)

_filling: st.SearchStrategy[Command] = st.one_of(
    command("SET", keys, values),
    command("RPUSH", keys, words, _members),
    command("SADD", keys, _members, _members, _members),
    command("SADD", keys, _members, _members),
    command("ZADD", keys, st.integers(-3, 3), _members, "2.5", _members),
    command("HSET", keys, words, values),
    command("EXPIRE", keys, 100_000),
)

cluster_commands: st.SearchStrategy[Command] = st.one_of(
    _filling,
    _filling,
    several("DEL", keys),
    several("UNLINK", keys),
    several("EXISTS", keys),
    several("TOUCH", keys),
    several("MGET", keys),
    st.lists(st.tuples(keys, values), min_size=1, max_size=4).map(
        lambda drawn: ("MSET", *(arg for pair in drawn for arg in pair))
    ),
    command("MSET", keys, "x", keys),
    command("RENAME", keys, keys),
    command("RENAMENX", keys, keys),
    with_options(command("COPY", keys, keys), options((any_case("REPLACE"),), (any_case("DB"), 1), most=2)),
    command("SMOVE", keys, keys, _members),
    command("LMOVE", keys, keys, _sides, _sides),
    command("RPOPLPUSH", keys, keys),
    command("BLMOVE", keys, keys, _sides, _sides, _soon),
    command("BRPOPLPUSH", keys, keys, _soon),
    _waiting("BLPOP"),
    _waiting("BRPOP"),
    _waiting("BZPOPMIN"),
    _waiting("BZPOPMAX"),
    _counted("LMPOP", tail=options(("LEFT",), ("RIGHT",), ("COUNT", 2), most=2)).map(_with_time),
    _counted("ZMPOP", tail=options(("MIN",), ("MAX",), ("COUNT", 2), most=2)).map(_with_time),
    _counted("LMPOP", tail=options(("LEFT",), ("RIGHT",), ("COUNT", 2), most=2)),
    _counted("ZMPOP", tail=options(("MIN",), ("MAX",), ("COUNT", 2), most=2)),
    several("SINTER", keys),
    several("SUNION", keys),
    several("SDIFF", keys),
    _counted("SINTERCARD", tail=options(("LIMIT", 1), most=1)),
    _to("SINTERSTORE"),
    _to("SUNIONSTORE"),
    _to("SDIFFSTORE"),
    _counted("ZUNION", tail=_scores),
    _counted("ZINTER", tail=_scores),
    _counted("ZDIFF", tail=_scores),
    _counted("ZINTERCARD"),
    _counted("ZUNIONSTORE", destination=True, tail=_weights),
    _counted("ZINTERSTORE", destination=True, tail=_weights),
    _counted("ZDIFFSTORE", destination=True),
    command("ZRANGESTORE", keys, keys, 0, -1),
    st.tuples(st.sampled_from(["AND", "or", "XOR", "NOT"]), keys, keys, keys).map(lambda drawn: ("BITOP", *drawn)),
    command("LCS", keys, keys),
    several("PFADD", keys, 1, 1).map(lambda drawn: (*drawn, "x", "y")),
    several("PFCOUNT", keys),
    several("PFMERGE", keys, 1, 3),
    command("SORT", keys, "ALPHA", "STORE", keys),
    st.just(("DBSIZE",)),
    command("KEYS", st.sampled_from(["*", "k[0-3]", "?1"])),
    command("TTL", keys),
)
