"""One command of several keys, executed here although some of its keys live on other shards.

The router reads those keys on their shards and sends the copies along; they lie beside the shard's own
keys for the length of the one command, inside one tick, so nobody else ever sees them. The handler is
the same that a single server would run, and so are its reply and its errors. Only keys that the command
reads may come as copies: what it writes must be this shard's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.commands import BY_KEY
from kache.replies import Reply

from .arguments import integer
from .dump import restore_value
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []


@command("_with")
def with_copies(ctx: Context, count: bytes, *rest: bytes) -> Reply:
    """``count (key deadline payload) × count command args…``: executes `command` with the copies in place."""
    copies = 3 * integer(count)
    name, *args = rest[copies:]
    store = ctx.keys.store
    # Asked before the copies are there: they must not be evicted.
    if "denyoom" in BY_KEY[name.decode()].flags:
        ctx.shard.require_room()
    placed: list[bytes] = []
    try:
        store.set_aside(True)
        for at in range(0, copies, 3):
            key, deadline, payload = rest[at : at + 3]
            placed.append(key)
            restore_value(ctx.keys, key, payload, integer(deadline))
        store.set_aside(False)
        return ctx.call_in_room(name.decode(), *args)
    finally:
        store.set_aside(True)
        for key in placed:
            ctx.keys.delete(key)
        store.set_aside(False)
