"""How the replies of several shards become one: a table of pure functions, named by the rows' `merge`.

`split.parts[i]` was answered by `replies[i]`; errors never reach a merge (see `outcome.py`). A part's
`positions` say which of the client's keys it had, so that replies come back in the order of the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kache.replies import OK, Missing, Reply

from ..registry import merge

if TYPE_CHECKING:
    from ..mux.multiplexer import Split

__all__: list[str] = []


@merge("sum")
def merge_sum(split: Split, replies: list[Reply]) -> Reply:
    """Counts add up; in the binary protocol a DEL of nothing says so (status RES_NX)."""
    total = sum(_value(reply) for reply in replies)
    if split.row.key == "binary|del" and total == 0:
        return Missing(0)
    return total


@merge("all_ok")
def merge_all_ok(split: Split, replies: list[Reply]) -> Reply:
    """OK once every part is."""
    return OK


@merge("in_order")
def merge_in_order(split: Split, replies: list[Reply]) -> Reply:
    """One element per key, in the order the client named the keys."""
    merged: list[Any] = [None] * sum(len(part.positions) for part in split.parts)
    for part, reply in zip(split.parts, replies, strict=True):
        for position, element in zip(part.positions, reply, strict=True):
            merged[position] = element
    return merged


@merge("concat")
def merge_concat(split: Split, replies: list[Reply]) -> Reply:
    """Everything, shard after shard."""
    return [element for reply in replies for element in reply]


def _value(reply: Reply) -> int:
    return int(reply.value if isinstance(reply, Missing) else reply)
