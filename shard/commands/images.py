"""The internal commands by which values move between shards, as images in parts (engine/images.pxi).

Values under construction belong to the lock of a transaction (engine/locks.pxi): they end with it. Nothing of one is seen
before ``_build_put``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply

from ..engine.engine import Building, RecordError, image_of
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__ = ["BAD_IMAGE", "building_of"]

BAD_IMAGE = "ERR a value between shards is damaged"


@command("_read_part")
def read_part(ctx: Context, key: bytes, cursor: bytes, most_bytes: bytes, most: bytes) -> Reply:
    """[where the next part begins or 0, the part]; null without the key."""
    found = image_of(ctx.keys, key, int(cursor), int(most_bytes), int(most))
    return None if found is None else [b"%d" % found[0], found[1]]


@command("_put")
def put(ctx: Context, key: bytes, image: bytes, event: bytes) -> Reply:
    """Puts a whole image in place of whatever is here."""
    building = Building(ctx.keys.store, key)
    try:
        building.add(image)
        building.put(ctx.keys, event=event.decode())
    except RecordError:
        raise CommandError(BAD_IMAGE) from None
    return OK


@command("_remove")
def remove(ctx: Context, key: bytes, event: bytes) -> Reply:
    """The key goes, as a part of what has an event of its own."""
    return int(ctx.keys.remove(key, event.decode()))


def building_of(ctx: Context, key: bytes, kind: str | None = None, expected: int = 0) -> Building:
    """The value that is under construction for `key`, begun if there is none, for about `expected` elements.

    TRYAGAIN when the lock of the run's transaction has ended.
    """
    buildings = ctx.shard.locks.of(ctx.transaction).buildings
    if key not in buildings:
        buildings[key] = Building(ctx.keys.store, key, kind)
        buildings[key].expect(expected)
    return buildings[key]


@command("_build")
def build(ctx: Context, key: bytes, part: bytes) -> Reply:
    """Adds the next part to the value under construction."""
    try:
        building_of(ctx, key).add(part)
    except RecordError:
        raise CommandError(BAD_IMAGE) from None
    return OK


@command("_build_put")
def build_put(ctx: Context, key: bytes, event: bytes) -> Reply:
    """What is under construction becomes the value of the key; its number of elements."""
    building = building_of(ctx, key)
    try:
        return building.put(ctx.keys, event=event.decode())
    except RecordError:
        raise CommandError(BAD_IMAGE) from None
