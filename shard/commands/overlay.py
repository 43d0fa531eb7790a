"""One command of several keys, executed here although some of its keys live on other shards.

The router reads those keys on their shards and sends the copies along, small ones with the command, large ones before
it as values under construction; they lie beside the shard's own keys for the length of the one command, inside one
tick, so nobody else ever sees them. The handler is the same that a single server would run, and so are its reply and
its errors. Only keys that the command reads may come as copies: what it writes must be this shard's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kache.commands import BY_KEY, keys_with_flags
from kache.errors import CommandError
from kache.replies import Reply

from ..engine.engine import Building, RecordError
from .arguments import integer
from .images import BAD_IMAGE, building_of
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Store

__all__: list[str] = []


@command("_with")
def with_copies(ctx: Context, count: bytes, *rest: bytes) -> Reply:
    """``count (key image) × count command args…``: executes `command` with the copies in place.

    An empty image stands for what the transaction has under construction for that key.
    """
    copies = 2 * integer(count)
    name, *args = rest[copies:]
    store = ctx.keys.store
    # Asked before the copies are there: they must not be evicted.
    if "denyoom" in BY_KEY[name.decode()].flags:
        ctx.shard.require_room()
    placed: list[bytes] = []
    try:
        with _beside(store):
            for at in range(0, copies, 2):
                key, image = rest[at : at + 2]
                placed.append(key)
                _place(ctx, key, image)
        _check_written(name.decode(), args, placed)
        return ctx.call_in_room(name.decode(), *args)
    finally:
        with _beside(store):
            for key in placed:
                ctx.keys.delete(key)


@contextmanager
def _beside(store: Store) -> Iterator[None]:
    """What is placed and removed meanwhile is no change."""
    store.set_aside(True)
    try:
        yield
    finally:
        store.set_aside(False)


def _check_written(name: str, args: list[bytes], placed: list[bytes]) -> None:
    """A change of a copy would be told as one of this shard's data, and lost."""
    row = BY_KEY[name]
    if row.is_write and any(key in placed and flags[0] != "RO" for key, flags in keys_with_flags(row, args)):
        raise CommandError(f"ERR {name} cannot write a key of another shard")


def _place(ctx: Context, key: bytes, image: bytes) -> None:
    try:
        if image:
            building = Building(ctx.keys.store, key)
            building.add(image)
        else:
            building = building_of(ctx, key)
        building.put(ctx.keys)
    except RecordError:
        raise CommandError(BAD_IMAGE) from None
