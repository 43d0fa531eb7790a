"""How far a consumer group has come: the counter of entries it has read, and how many it lags behind.

Both are known as long as no entry was deleted out of the middle of what lies ahead. The rules are the real server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.consumer_groups import Group
    from ..engine.stream import Stream

__all__ = ["entries_read", "lag_of"]


def _has_tombstones(stream: Stream, first: int) -> bool:
    """Whether an entry was deleted at this id or behind it, and not before all that is left."""
    deleted = stream.max_deleted_id
    if not stream.length or not deleted or stream.first_entry_id > deleted:
        return False
    return first <= deleted


def _distance(stream: Stream, number: int) -> int:
    """How many entries there were up to this id, counted from the first there ever was; -1 when that cannot be told."""
    if not stream.added:
        return 0
    last = stream.last_id
    if number == last or (not stream.length and number < last):
        return stream.added
    if number > last:
        return -1
    first, deleted = stream.first_entry_id, stream.max_deleted_id
    if not deleted or deleted < first:
        if number < first:
            return stream.added - stream.length
        if number == first:
            return stream.added - stream.length + 1
    return -1


def entries_read(stream: Stream, group: Group, ids: list[int]) -> int:
    """The group's counter behind the delivery of these entries, in their order; -1 if it is unknown."""
    if group.read >= 0 and not _has_tombstones(stream, ids[0]):
        return group.read + len(ids)
    read = group.read
    for number in ids:
        if read >= 0 and not _has_tombstones(stream, number):
            read += 1
        elif stream.added:
            read = _distance(stream, number)
    return read


def lag_of(stream: Stream, group: Group) -> int | None:
    """How many entries the group has not delivered yet; None when that cannot be told."""
    if not stream.added:
        return 0
    if group.read >= 0 and not _has_tombstones(stream, group.last):
        return stream.added - group.read
    read = _distance(stream, group.last)
    return None if read < 0 else stream.added - read
