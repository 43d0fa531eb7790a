"""Ranges of a sorted set by name: the bounds "-", "+", "[a" and "(a", and where they lie.

Owns: what ZRANGEBYLEX and its like mean by a range, whatever the scores. Pure functions over a `ZSet`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ..engine.zset import ZSet

__all__ = ["LEX_HIGHEST", "LEX_LOWEST", "LexBound", "lex_span"]

_MOST_MEMBERS = 128
"""Members that are looked at when their scores differ: no question that has an answer, however many there are."""


class LexBound(NamedTuple):
    """An end of a range of members: `side` is -1 for "-", 1 for "+", 0 for a value, which `is_open` leaves out."""

    side: int
    value: bytes = b""
    is_open: bool = False

    def at_or_below(self, member: bytes) -> bool:
        """Whether this, as the lower end, admits the member."""
        if self.side:
            return self.side < 0
        return member > self.value if self.is_open else member >= self.value

    def at_or_above(self, member: bytes) -> bool:
        """Whether this, as the upper end, admits the member."""
        if self.side:
            return self.side > 0
        return member < self.value if self.is_open else member <= self.value


LEX_LOWEST: Final = LexBound(-1)
LEX_HIGHEST: Final = LexBound(1)


def lex_span(members: ZSet, low: LexBound, high: LexBound, reverse: bool = False) -> tuple[int, int]:
    """Ranks [start, stop) of the members between two ends, for a set whose scores are all equal. O(log n).

    With differing scores the answer is the real server's for its compact form (the run of admitted
    members that is met first, from the end at which the command starts), beyond that unspecified, as there.
    """
    length = len(members)
    if not length:
        return 0, 0
    score = members.by_rank(0, 1)[0][1]
    if score != members.by_rank(length - 1, length)[0][1]:
        return _mixed_span(members, low, high, reverse)
    start = _rank_at(members, score, low, low.is_open)
    stop = _rank_at(members, score, high, not high.is_open)
    return (start, stop) if start < stop else (0, 0)


def _rank_at(members: ZSet, score: float, bound: LexBound, after: bool) -> int:
    if bound.side:
        return 0 if bound.side < 0 else len(members)
    # The first byte string after `value` is `value` with a zero byte appended.
    return members.rank_of_pair(score, bound.value + b"\0" if after else bound.value)


def _mixed_span(members: ZSet, low: LexBound, high: LexBound, reverse: bool) -> tuple[int, int]:
    # Only as far as the real server's compact form goes: beyond it such a question has no defined answer.
    order = members.names(0, len(members) if members.packed else _MOST_MEMBERS)
    if not low.at_or_below(order[-1]) or not high.at_or_above(order[0]):
        return 0, 0
    if reverse:
        order.reverse()
    enters, leaves = (high.at_or_above, low.at_or_below) if reverse else (low.at_or_below, high.at_or_above)
    first = next((i for i, member in enumerate(order) if enters(member)), len(order))
    last = first
    while last < len(order) and leaves(order[last]):
        last += 1
    return (len(order) - last, len(order) - first) if reverse else (first, last)
