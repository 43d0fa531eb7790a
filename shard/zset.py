"""The value of a sorted set.

Two forms, changed into one another by size:

    packed    up to 64 members: the members in order, and their scores beside them (two plain lists)
    indexed   a `StableDict` member → score, and a `SortedList` of (score, member)

Owns the members of one sorted set. Promises, for n members: a score in O(1), adding, removing, rank, the
member at a rank and the bounds of a range in O(log n), k neighbours in O(log n + k), a scan with Redis's
guarantee. Order is by score, then by the member's bytes. A packed set costs a few hundred bytes.

Used by the keyspace, which alone may call what changes a set, and read by the commands.
Ranks are non-negative everywhere and a `stop` is exclusive.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from math import inf, nextafter
from typing import Any, Final, NamedTuple

from sortedcontainers import SortedList  # type: ignore[import-untyped]

from .stable_dict import StableDict

__all__ = ["LEX_HIGHEST", "LEX_LOWEST", "LexBound", "ZSet"]

Pair = tuple[bytes, float]

_PACKED_MEMBERS = 64
"""Up to here searching a plain list of members is as quick as hashing, and far smaller."""

_LISTPACK_MEMBERS = 128
_LISTPACK_MEMBER_BYTES = 64
"""Redis's default limits of its own compact form, which `ZSet.packed` reports."""

_BASE_COST = 300
_PACKED_COST = 24 + 20 + 41
"""Bytes per packed member beyond its own: score, two places in lists, and the object around the bytes."""

_INDEXED_COST = 24 + 72 + 10 + 42 + 41
"""Bytes per indexed member beyond its own: score, tuple, places in list and bucket, and its object."""


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


class _Packed:
    """Members in order and their scores, in two lists."""

    __slots__ = ("members", "scores")

    def __init__(self) -> None:
        self.members: list[bytes] = []
        self.scores: list[float] = []

    def __len__(self) -> int:
        return len(self.members)

    def score(self, member: bytes) -> float | None:
        members = self.members
        return self.scores[members.index(member)] if member in members else None

    def add(self, member: bytes, score: float) -> bool | None:
        old = self.score(member)
        if old is not None:
            if old == score:
                return None
            index = self.members.index(member)
            del self.members[index]
            del self.scores[index]
        index = self.rank_of_pair(score, member)
        self.members.insert(index, member)
        self.scores.insert(index, score)
        return old is None

    def remove(self, member: bytes) -> bool:
        if member not in self.members:
            return False
        index = self.members.index(member)
        del self.members[index]
        del self.scores[index]
        return True

    def rank(self, member: bytes) -> int | None:
        return self.members.index(member) if member in self.members else None

    def rank_of_pair(self, score: float, member: bytes) -> int:
        low = bisect_left(self.scores, score)
        high = bisect_right(self.scores, score, low)
        return bisect_left(self.members, member, low, high)

    def rank_of_score(self, score: float) -> int:
        return bisect_left(self.scores, score)

    def by_rank(self, start: int, stop: int) -> list[Pair]:
        return list(zip(self.members[start:stop], self.scores[start:stop], strict=True))

    def names(self, start: int, stop: int) -> list[bytes]:
        return self.members[start:stop]

    def delete_ranks(self, start: int, stop: int) -> list[Pair]:
        gone = self.by_rank(start, stop)
        del self.members[start:stop]
        del self.scores[start:stop]
        return gone

    def scan(self, cursor: int, count: int) -> tuple[int, list[Pair]]:
        # Everything at once, whatever the cursor: also right when the set was indexed at the last call.
        return 0, self.by_rank(0, len(self.members))

    def release_some(self, count: int) -> bool:
        self.members.clear()
        self.scores.clear()
        return False

    def check(self) -> None:
        assert len(self.members) == len(self.scores) == len(set(self.members))
        pairs = list(zip(self.scores, self.members, strict=True))
        assert pairs == sorted(pairs)


class _Indexed:
    """Scores in a stable dict, order in a sorted list of (score, member)."""

    __slots__ = ("pairs", "scores")

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.scores = StableDict()
        for member, score in pairs:
            self.scores.put(member, score)
        self.pairs: Any = SortedList((score, member) for member, score in pairs)

    def __len__(self) -> int:
        return len(self.scores)

    def score(self, member: bytes) -> float | None:
        return self.scores.get(member)

    def add(self, member: bytes, score: float) -> bool | None:
        old = self.scores.get(member)
        if old == score:
            return None
        if old is not None:
            self.pairs.remove((old, member))
        self.scores.put(member, score)
        self.pairs.add((score, member))
        return old is None

    def remove(self, member: bytes) -> bool:
        score = self.scores.pop(member)
        if score is None:
            return False
        self.pairs.remove((score, member))
        return True

    def rank(self, member: bytes) -> int | None:
        score = self.scores.get(member)
        return None if score is None else int(self.pairs.bisect_left((score, member)))

    def rank_of_pair(self, score: float, member: bytes) -> int:
        return int(self.pairs.bisect_left((score, member)))

    def rank_of_score(self, score: float) -> int:
        # A tuple sorts before every longer one that begins with it.
        return int(self.pairs.bisect_left((score,)))

    def by_rank(self, start: int, stop: int) -> list[Pair]:
        return [(member, score) for score, member in self.pairs[start:stop]]

    def names(self, start: int, stop: int) -> list[bytes]:
        return [pair[1] for pair in self.pairs[start:stop]]

    def delete_ranks(self, start: int, stop: int) -> list[Pair]:
        gone = self.by_rank(start, stop)
        if gone:
            self._cut(start, start + len(gone))
            for member, _ in gone:
                self.scores.pop(member)
        return gone

    def _cut(self, start: int, stop: int) -> None:
        # `del pairs[start:stop]` takes pairs out one by one, or sorts all that stay. Whole parts of the list
        # are dropped here instead; then its own delete puts what is left of the first and last in order.
        pairs = self.pairs
        if stop - start <= 4 * pairs._load:
            del pairs[start:stop]
            return
        first, offset = pairs._pos(start)
        last, _ = pairs._pos(stop - 1)
        if offset:
            first += 1
        dropped = sum(len(part) for part in pairs._lists[first:last])
        del pairs._lists[first:last]
        del pairs._maxes[first:last]
        del pairs._index[:]
        pairs._len -= dropped
        del pairs[start : stop - dropped]

    def scan(self, cursor: int, count: int) -> tuple[int, list[Pair]]:
        return self.scores.scan(cursor, count)

    def release_some(self, count: int) -> bool:
        # The list's own parts, up to 2,000 pairs each, are the only way to free it piecewise; nobody
        # reads this set any more.
        parts: list[list[Any]] = self.pairs._lists
        if parts:
            parts.pop()
            return True
        return self.scores.release_some(count)

    def check(self) -> None:
        self.scores.check()
        self.pairs._check()
        assert len(self.pairs) == len(self.scores)
        for score, member in self.pairs:
            assert self.scores.get(member) == score


class ZSet:
    """Members with scores, in order; see the module's header. `packed_members` is settable for tests."""

    __slots__ = ("_body", "_member_bytes", "_packed_members", "packed")

    def __init__(self, pairs: Iterable[Pair] = (), *, packed_members: int = _PACKED_MEMBERS) -> None:
        self._packed_members = packed_members
        self._member_bytes = 0
        self._body: _Packed | _Indexed = _Packed()
        self.packed = True
        """Whether Redis would hold this set as a listpack under its default limits. It never becomes one again."""
        for member, score in pairs:
            self.add(member, score)

    @classmethod
    def from_mapping(cls, scores: Mapping[bytes, float], packed: bool | None = None) -> ZSet:
        """A set of these members. O(n log n), the fast way to build a large one. `packed` follows from them if None."""
        made = cls()
        if packed is None:
            longest = max(map(len, scores), default=0)
            packed = len(scores) <= _LISTPACK_MEMBERS and longest <= _LISTPACK_MEMBER_BYTES
        made.packed = packed
        if len(scores) <= _PACKED_MEMBERS:
            for member, score in scores.items():
                made.add(member, score)
            return made
        made._body = _Indexed([(member, score + 0.0) for member, score in scores.items()])
        made._member_bytes = sum(map(len, scores))
        return made

    def copy(self) -> ZSet:
        """An independent copy. O(n)."""
        return ZSet.from_mapping(dict(self.items()), self.packed)

    # ---- reading ----

    def __len__(self) -> int:
        return len(self._body)

    def __contains__(self, member: bytes) -> bool:
        return self._body.score(member) is not None

    def score(self, member: bytes) -> float | None:
        """The member's score, None if absent."""
        return self._body.score(member)

    def rank(self, member: bytes) -> int | None:
        """How many members come before this one; None if it is absent."""
        return self._body.rank(member)

    def by_rank(self, start: int, stop: int) -> list[Pair]:
        """(member, score) of ranks [start, stop)."""
        return self._body.by_rank(start, stop)

    def names(self, start: int, stop: int) -> list[bytes]:
        """Members of ranks [start, stop), without scores."""
        return self._body.names(start, stop)

    def items(self) -> list[Pair]:
        """All (member, score), in order."""
        return self._body.by_rank(0, len(self._body))

    def rank_of_pair(self, score: float, member: bytes) -> int:
        """How many pairs sort before (score, member), which need not exist."""
        return self._body.rank_of_pair(score, member)

    def score_span(self, low: float, low_open: bool, high: float, high_open: bool) -> tuple[int, int]:
        """Ranks [start, stop) of the scores between two ends, each left out if open; (0, 0) when there are none."""
        start = self._rank_beside(low, low_open)
        stop = self._rank_beside(high, not high_open)
        return (start, stop) if start < stop else (0, 0)

    def _rank_beside(self, score: float, after: bool) -> int:
        """How many members have a smaller score, or with `after` a smaller or equal one."""
        if not after:
            return self._body.rank_of_score(score)
        if score == inf:
            return len(self._body)
        return self._body.rank_of_score(nextafter(score, inf))

    def lex_span(self, low: LexBound, high: LexBound, reverse: bool = False) -> tuple[int, int]:
        """Ranks [start, stop) of the members between two ends, for a set whose scores are all equal.

        With differing scores the answer is the real server's for its compact form (the run of admitted
        members that is met first, from the end at which the command starts), beyond that unspecified, as there.
        """
        length = len(self._body)
        if not length:
            return 0, 0
        score = self._body.by_rank(0, 1)[0][1]
        if score == self._body.by_rank(length - 1, length)[0][1]:
            start = self._lex_rank(score, low, low.is_open)
            stop = self._lex_rank(score, high, not high.is_open)
            return (start, stop) if start < stop else (0, 0)
        return self._mixed_lex_span(low, high, reverse)

    def _lex_rank(self, score: float, bound: LexBound, after: bool) -> int:
        if bound.side:
            return 0 if bound.side < 0 else len(self._body)
        # The first byte string after `value` is `value` with a zero byte appended.
        return self._body.rank_of_pair(score, bound.value + b"\0" if after else bound.value)

    def _mixed_lex_span(self, low: LexBound, high: LexBound, reverse: bool) -> tuple[int, int]:
        # Only as far as the real server's compact form goes: beyond it such a question has no defined answer.
        members = self.names(0, _LISTPACK_MEMBERS)
        if not low.at_or_below(members[-1]) or not high.at_or_above(members[0]):
            return 0, 0
        order = members[::-1] if reverse else members
        enters, leaves = (high.at_or_above, low.at_or_below) if reverse else (low.at_or_below, high.at_or_above)
        first = next((i for i, member in enumerate(order) if enters(member)), len(order))
        last = first
        while last < len(order) and leaves(order[last]):
            last += 1
        return (len(order) - last, len(order) - first) if reverse else (first, last)

    def scan(self, cursor: int, count: int) -> tuple[int, list[Pair]]:
        """About `count` members from a cursor on and the next cursor, 0 at the end.

        A member that is there from the first call to the last is returned, whatever else changes meanwhile,
        its own score included; it may be returned twice. Cursors survive a restart.
        """
        return self._body.scan(cursor, count)

    @property
    def memory(self) -> int:
        """Bytes this set takes, estimated. O(1)."""
        each = _PACKED_COST if isinstance(self._body, _Packed) else _INDEXED_COST
        return _BASE_COST + each * len(self._body) + self._member_bytes

    # ---- changing ----

    def add(self, member: bytes, score: float) -> bool | None:
        """True: a new member. False: its score changed. None: it had this score already. The score is no NaN."""
        body = self._body
        added = body.add(member, score + 0.0)  # -0.0 becomes 0.0, as the real server's compact form stores it
        if added:
            self._member_bytes += len(member)
            if self.packed and (len(member) > _LISTPACK_MEMBER_BYTES or len(body) > _LISTPACK_MEMBERS):
                self.packed = False
            if len(body) > self._packed_members and isinstance(body, _Packed):
                self._body = _Indexed(body.by_rank(0, len(body)))
        return added

    def remove(self, member: bytes) -> bool:
        """Whether the member was there."""
        removed = self._body.remove(member)
        if removed:
            self._member_bytes -= len(member)
            self._shrunk()
        return removed

    def delete_ranks(self, start: int, stop: int) -> list[Pair]:
        """Removes ranks [start, stop) and returns them in order. O(log n + k), k removed."""
        gone = self._body.delete_ranks(start, stop)
        self._member_bytes -= sum(len(member) for member, _ in gone)
        self._shrunk()
        return gone

    def _shrunk(self) -> None:
        body = self._body
        if isinstance(body, _Indexed) and len(body) * 2 < self._packed_members:
            packed = _Packed()
            for member, score in body.by_rank(0, len(body)):
                packed.members.append(member)
                packed.scores.append(score)
            self._body = packed

    def release_some(self, count: int) -> bool:
        """Drops about `count` members' worth; True while something is left. The set is of no other use then.

        For the cleanup thread: 500 take well under a millisecond.
        """
        return self._body.release_some(count)

    def check(self) -> None:
        """Asserts every invariant; for tests."""
        self._body.check()
        assert self._member_bytes == sum(len(member) for member, _ in self.items())
        if isinstance(self._body, _Packed):
            assert len(self._body) <= self._packed_members
        else:
            assert len(self._body) * 2 >= self._packed_members
