"""Random commands on streams and consumer groups.

IDs are drawn from few small ones, so that entries, groups and claims meet; those that servers choose by their clocks
(``*``) would differ, and stand where the reply is compared by its shape alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from .compare import compare_as
from .strategies_common import (
    TAG,
    Command,
    any_case,
    command,
    integers,
    keys,
    options,
    several,
    with_options,
)
from .wire import Arg, RawReply

__all__ = ["stream_commands"]

_CLOCKS = 5000
"""Milliseconds that times may differ: the servers execute a command one after the other."""
_OWN = (b"radix-tree-nodes", b"radix-tree-keys")
"""What of XINFO follows from how entries are stored."""


def nearly(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Equal all the way down, but for times, and for what is a server's own."""
    if ours.raw == theirs.raw:
        return True
    if ours.kind == theirs.kind == b":":
        return abs(int(ours.text) - int(theirs.text)) <= _CLOCKS and int(theirs.text) >= 0
    if ours.kind != theirs.kind or ours.is_null != theirs.is_null or len(ours.items) != len(theirs.items):
        return False
    before = b""
    for mine, other in zip(ours.items, theirs.items, strict=True):
        if before not in _OWN and not nearly(argv, mine, other):
            return False
        before = mine.text
    return not ours.is_error and bool(ours.items)


compare_as(nearly, "xinfo", "xpending")

_ODD_IDS = (
    "", "-", "+", "(", "0-*", "7-*", "0", "0-0", "x", "1-x", "-1", "1--2", "(1", "(3-1", "( 3", "007", "+9", " 8", "1-+2",
    "18446744073709551615-18446744073709551615", "18446744073709551615", "18446744073709551616", "1-18446744073709551615",
    "1" * 130, "$", ">",
)  # fmt: skip
small_ids: st.SearchStrategy[Arg] = st.tuples(st.integers(1, 12), st.integers(0, 3)).map(lambda d: f"{d[0]}-{d[1]}")
ids: st.SearchStrategy[Arg] = st.one_of(small_ids, small_ids, st.integers(0, 12), st.sampled_from(_ODD_IDS))
growing: st.SearchStrategy[Arg] = st.one_of(
    st.sampled_from([f"{ms}-*" for ms in (1, 2, 3, 5, 8, 12)]), small_ids, st.integers(1, 12), ids
)
groups = st.sampled_from(["g", "g", "h", "none"])
consumers = st.sampled_from(["alice", "alice", "bob", ""])
fields: st.SearchStrategy[Arg] = st.sampled_from(["a", "b", "", "name"])
field_values: st.SearchStrategy[Arg] = st.one_of(st.integers(-3, 300), st.sampled_from(["", "v", "x" * 70]))
counts = st.one_of(st.integers(-1, 5), integers)
pairs = st.lists(st.tuples(fields, field_values), min_size=1, max_size=3).map(lambda d: [w for pair in d for w in pair])
same_pairs: st.SearchStrategy[list[Arg]] = field_values.map(lambda value: ["a", value])

trims = options(
    (any_case("MAXLEN"), st.integers(-1, 8)),
    (any_case("MAXLEN"), "=", st.integers(0, 8)),
    (any_case("MAXLEN"), "~", st.integers(0, 8)),
    (any_case("MINID"), small_ids),
    (any_case("MINID"), "~", small_ids),
    (any_case("LIMIT"), integers),
    ("MAXLEN",),
    ("MAXLEN", "~"),
    ("LIMITS", 2),
    most=2,
)
one_trim = options((any_case("MAXLEN"), st.integers(0, 8)), (any_case("MINID"), small_ids), ("NOMKSTREAM",), most=1)


def _add() -> st.SearchStrategy[Command]:
    drawn = st.tuples(
        keys, st.one_of(st.just([]), st.just([]), one_trim, trims), growing, st.one_of(same_pairs, same_pairs, pairs)
    )
    return drawn.map(lambda d: ("XADD", d[0], *d[1], d[2], *d[3]))


def _read(*head: Arg) -> st.SearchStrategy[Command]:
    marks = [">", "0", "3-1"] if head else ["$", "0", "3-1"]
    each = st.tuples(keys, st.one_of(st.sampled_from(marks), ids))
    tail = options((any_case("COUNT"), counts), ("COUNT",), ("BLOCK", -1), ("BLOCK", "x"), most=1)
    return st.tuples(tail, st.lists(each, min_size=1, max_size=3)).map(
        lambda d: (
            "XREADGROUP" if head else "XREAD",
            *head,
            *d[0],
            "STREAMS",
            *(key for key, _ in d[1]),
            *(number for _, number in d[1]),
        )
    )


def _group_read() -> st.SearchStrategy[Command]:
    drawn = st.tuples(groups, consumers, st.sampled_from([[], [], ["NOACK"]]), _read("GROUP"))
    return drawn.map(lambda d: ("XREADGROUP", "GROUP", d[0], d[1], *d[2], *d[3][2:]))


claims = options(
    (any_case("IDLE"), integers),
    (any_case("RETRYCOUNT"), counts),
    (any_case("FORCE"),),
    (any_case("JUSTID"),),
    (any_case("LASTID"), ids),
    ("TIME", "x"),
    ("TIMES", 1),
)

stream_commands = st.one_of(
    _add(),
    _add(),
    _add(),
    _add(),
    command("XADD", keys, growing, "a"),
    command("XLEN", keys),
    with_options(command("XRANGE", keys, ids, ids), options((any_case("COUNT"), counts), ("COUNT",), most=1)),
    with_options(command("XREVRANGE", keys, ids, ids), options((any_case("COUNT"), counts), ("FOO", 1), most=1)),
    command("XRANGE", keys, "-", "+"),
    command("XREVRANGE", keys, "+", "-"),
    several("XDEL", ids, 1, 3).map(lambda d: (d[0], f"{TAG}a", *d[1:])),
    command("XDEL", keys, small_ids, small_ids),
    with_options(command("XTRIM", keys), trims),
    with_options(
        command("XSETID", keys, ids),
        options((any_case("ENTRIESADDED"), integers), ("MAXDELETEDID", ids), ("MAXDELETEDID",), most=2),
    ),
    _read(),
    _read(),
    with_options(
        command("XGROUP", "CREATE", keys, groups, st.one_of(ids, st.just("$"), st.just("0"))),
        options((any_case("MKSTREAM"),), (any_case("ENTRIESREAD"), integers), ("FOO",), most=2),
    ),
    command("XGROUP", "CREATE", keys, groups, "0", "MKSTREAM"),
    with_options(
        command("XGROUP", "SETID", keys, groups, st.one_of(ids, st.just("$"))),
        options((any_case("ENTRIESREAD"), integers), ("MKSTREAM",), most=1),
    ),
    command("XGROUP", "DESTROY", keys, groups),
    command("XGROUP", "CREATECONSUMER", keys, groups, consumers),
    command("XGROUP", "DELCONSUMER", keys, groups, consumers),
    _group_read(),
    _group_read(),
    _group_read(),
    command("XACK", keys, groups, small_ids, ids),
    command("XPENDING", keys, groups),
    command("XPENDING", keys, groups, ids, ids, counts),
    command("XPENDING", keys, groups, "-", "+", counts, consumers),
    command("XPENDING", keys, groups, "IDLE", st.one_of(st.just(0), st.just(2**40), integers), "-", "+", counts),
    command("XPENDING", keys, groups, ids),
    with_options(command("XCLAIM", keys, groups, consumers, st.one_of(st.just(0), integers), small_ids, ids), claims),
    with_options(
        command("XAUTOCLAIM", keys, groups, consumers, st.sampled_from([0, 0, 0, 2**40, "x"]), ids),
        options((any_case("COUNT"), counts), (any_case("JUSTID"),), ("COUNT",), most=2),
    ),
    command("XINFO", "STREAM", keys),
    command("XINFO", "STREAM", keys, "FULL"),
    command("XINFO", "STREAM", keys, "FULL", "COUNT", counts),
    command("XINFO", "GROUPS", keys),
    command("XINFO", "CONSUMERS", keys, groups),
    command("TYPE", keys),
    command("OBJECT", "ENCODING", keys),
    command("DEL", keys),
    command("SET", keys, "text"),
    command("RENAME", keys, keys),
    command("COPY", keys, keys),
)
