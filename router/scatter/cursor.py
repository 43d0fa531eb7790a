"""Commands that visit one shard at a time: SCAN, in the order of the slots, and RANDOMKEY, by weight.

A shard's own cursor names a slot and a place in it (see the shard's keyspace), and the slot's owner is asked, so a
client's cursor is the shard's, and stays good when that shard restarts or the slot changes hands.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kache.errors import INVALID_CURSOR, CommandError
from kache.replies import Reply
from kache.slots import SLOT_COUNT, slot_of_key

from ..registry import move

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SLOT_SHIFT"]

SLOT_SHIFT = 48
"""A cursor is ``slot << 48 | place``; 0 is both the beginning and the end."""


@move("scan")
async def scan(router: Router, session: Session, cursor: bytes, *options: bytes) -> Reply:
    """One step of a scan over the whole cluster; [next cursor, keys]."""
    if not cursor.isdigit() or int(cursor) >= 2**64:
        raise CommandError(INVALID_CURSOR)
    place = int(cursor)
    slot = place >> SLOT_SHIFT
    if slot >= SLOT_COUNT:
        # No cursor of ours: the end, as Redis answers for a position past the table.
        return [b"0", []]
    shard = router.shard_of_slot(slot)
    ranges = router.slots_of(shard)
    end = next(last for first, last in ranges if first <= slot <= last)
    following, found = await router.call(shard, "_scan", [b"%d" % place, *options], db=session.db, session=session)
    if following != b"0" and int(following) >> SLOT_SHIFT <= end:
        return [following, found]
    # The range is done. What the shard holds behind it has its turn when the slots before that have had theirs.
    if end != ranges[-1][1]:
        found = [key for key in found if slot_of_key(key) <= end]
    return [b"%d" % ((end + 1) % SLOT_COUNT << SLOT_SHIFT), found]


@move("randomkey")
async def randomkey(router: Router, session: Session) -> Reply:
    """A key of the selected database, each with the same chance; null when there is none."""
    sizes = await router.call_all("dbsize", [], db=session.db, session=session)
    shards = [shard for shard in range(router.shard_count) if sizes[shard]]
    while shards:
        shard = random.choices(shards, [sizes[one] for one in shards])[0]
        key = await router.call(shard, "_random_key", [], db=session.db, session=session)
        if key is not None:
            return key
        shards.remove(shard)  # its keys expired since it was asked
    return None
