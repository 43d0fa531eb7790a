"""Commands that visit one shard at a time: SCAN, in the order of the slots, and RANDOMKEY, by weight.

A shard's own cursor names a slot and a place in it (see the shard's keyspace), and the slot's owner is asked, so a
client's cursor is the shard's, and stays good when that shard restarts or the slot changes hands. A call goes on to the
next shard while it has looked at less than COUNT keys: a small database comes with the first call, however many shards
hold it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kache.errors import INVALID_CURSOR, CommandError
from kache.replies import Reply
from kache.slots import SLOT_COUNT

from ..registry import move

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SLOT_SHIFT"]

SLOT_SHIFT = 39
"""A cursor is ``slot << 39 | place``, less than 2^53, since many clients keep it as a double; 0 is both the beginning and
the end."""

MOST_QUESTIONS = 64
"""Ranges of slots that one call asks for, one after the other: it must not take as long as it likes."""


@move("scan")
async def scan(router: Router, session: Session, cursor: bytes, *options: bytes) -> Reply:
    """One step of a scan over the whole cluster; [next cursor, keys]."""
    if not cursor.isdigit() or int(cursor) >= 2**64:
        raise CommandError(INVALID_CURSOR)
    place = int(cursor)
    keys: list[bytes] = []
    if place >> SLOT_SHIFT >= SLOT_COUNT:
        # No cursor of ours: the end, as Redis answers for a position past the table.
        return [b"0", keys]
    left: tuple[bytes, ...] = ()
    for _ in range(MOST_QUESTIONS):
        slot = place >> SLOT_SHIFT
        shard = router.shard_of_slot(slot)
        end = next(last for first, last in router.slots_of(shard) if first <= slot <= last)
        try:
            # Of two COUNTs the last one holds.
            following, found, rest = await router.call(
                shard, "_scan", [b"%d" % place, b"%d" % end, *options, *left], db=session.db, session=session
            )
        except CommandError:
            if left:
                # What was found before is answered; the next call meets the error.
                break
            raise
        keys += found
        if following != b"0":
            return [following, keys]
        place = (end + 1) % SLOT_COUNT << SLOT_SHIFT
        if place == 0 or not rest:
            break
        left = (b"COUNT", b"%d" % rest)
    return [b"%d" % place, keys]


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
