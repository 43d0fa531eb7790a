"""A dict of byte strings to scores that is kept in buckets by a stable hash.

    directory   [ b0 b0 b1 b2 b3 b3 b3 b3 ]      by the top bits of CRC-32; a bucket covers one range of hashes
    bucket      a dict of at most 341 members (what fills a dict of 512 places)

Owns: which member has which score. Promises: every operation touches one bucket, so that nothing stalls
while it grows; `scan` has Redis's guarantee, because a cursor is a position among the hashes, which neither
splitting a bucket nor restarting the process moves. Members crafted to collide only make one bucket larger.

Used by `zset.py`. (Extendible hashing: a full bucket is split in two, the directory doubles when needed.)
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["StableDict"]

_HASH_BITS = 32
_BUCKET_MEMBERS = 341

_MOST_PLACES = 16
"""Places of the directory per bucket's worth of members, at most: members crafted to share their first bits
would otherwise double it again and again."""

_HOPELESS = 4
"""A bucket this many times too full is not split any more: it holds what a hash cannot tell apart."""


class StableDict:
    """Members and their scores; see the module's header. `bucket_members` is settable for tests."""

    __slots__ = ("_bucket_members", "_buckets", "_depths", "_length", "_shift")

    def __init__(self, bucket_members: int = _BUCKET_MEMBERS) -> None:
        self._bucket_members = bucket_members
        self._buckets: list[dict[bytes, float]] = [{}]
        self._depths = [0]
        self._shift = _HASH_BITS
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, member: bytes) -> float | None:
        """The member's score, None if absent. O(1)."""
        return self._buckets[crc32(member) >> self._shift].get(member)

    def put(self, member: bytes, score: float) -> None:
        """Adds a member or changes its score. O(1), amortised."""
        index = crc32(member) >> self._shift
        bucket = self._buckets[index]
        before = len(bucket)
        bucket[member] = score
        after = len(bucket)
        if after != before:
            self._length += 1
            if self._bucket_members < after <= self._bucket_members * _HOPELESS:
                self._split(index)

    def pop(self, member: bytes) -> float | None:
        """Removes a member and returns its score, None if absent. O(1)."""
        index = crc32(member) >> self._shift
        bucket = self._buckets[index]
        score = bucket.pop(member, None)
        if score is not None:
            self._length -= 1
            if len(bucket) in (0, 8, 64):
                self._compact(index)
        return score

    def scan(self, cursor: int, count: int) -> tuple[int, list[tuple[bytes, float]]]:
        """At least `count` members from a cursor on, in whole buckets, and the next cursor (0: the end)."""
        found: list[tuple[bytes, float]] = []
        while cursor < 1 << _HASH_BITS:
            index = cursor >> self._shift
            found.extend(self._buckets[index].items())
            first, span = self._range_of(index)
            cursor = (first + span) << self._shift
            if len(found) >= count:
                break
        return (cursor if cursor < 1 << _HASH_BITS else 0), found

    def release_some(self, count: int) -> bool:
        """Drops whole buckets until about `count` members are gone; True while something is left."""
        buckets = self._buckets
        while buckets and count > 0:
            count -= 4 + len(buckets.pop())
        return bool(buckets)

    def _range_of(self, index: int) -> tuple[int, int]:
        """The directory's places that share this bucket: the first, and how many."""
        span = 1 << (_HASH_BITS - self._shift - self._depths[index])
        return index & -span, span

    def _split(self, index: int) -> None:
        depth = self._depths[index]
        if depth == _HASH_BITS - self._shift:
            if len(self._buckets) * self._bucket_members > _MOST_PLACES * self._length:
                return
            self._buckets = [bucket for bucket in self._buckets for _ in (0, 1)]
            self._depths = [depth for depth in self._depths for _ in (0, 1)]
            self._shift -= 1
            index *= 2
        first, span = self._range_of(index)
        high_bit = 1 << (_HASH_BITS - 1 - depth)
        low: dict[bytes, float] = {}
        high: dict[bytes, float] = {}
        for member, score in self._buckets[index].items():
            (high if crc32(member) & high_bit else low)[member] = score
        half = span // 2
        self._buckets[first : first + span] = [low] * half + [high] * half
        self._depths[first : first + span] = [depth + 1] * span

    def _compact(self, index: int) -> None:
        """A dict keeps its size when members leave it, so a much emptier bucket is built anew."""
        first, span = self._range_of(index)
        self._buckets[first : first + span] = [dict(self._buckets[index])] * span

    def check(self) -> None:
        """Asserts every invariant; for tests."""
        assert len(self._buckets) == len(self._depths) == 1 << (_HASH_BITS - self._shift)
        total = index = 0
        while index < len(self._buckets):
            first, span = self._range_of(index)
            assert first == index
            bucket = self._buckets[index]
            for place in range(first, first + span):
                assert self._buckets[place] is bucket
                assert self._depths[place] == self._depths[index]
            for member in bucket:
                assert first <= crc32(member) >> self._shift < first + span
            total += len(bucket)
            index += span
        assert total == self._length
