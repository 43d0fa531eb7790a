"""One command of several keys, executed here although some of its keys live on other shards.

The router reads those keys on their shards and sends the copies along; they lie beside the shard's own
keys for the length of the one command, inside one tick, so nobody else ever sees them. The handler is
the same that a single server would run, and so are its reply and its errors. Only keys that the command
reads may come as copies: what it writes must be this shard's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.commands import BY_KEY, keys_with_flags
from kache.replies import Reply

from .arguments import integer
from .dump import restore_value
from .registry import command, handler_of

if TYPE_CHECKING:
    from ..engine.keyspace import Keyspace

__all__: list[str] = []


@command("_with")
def with_copies(ks: Keyspace, count: bytes, *rest: bytes) -> Reply:
    """``count (key deadline payload) × count command args…``: executes `command` with the copies in place."""
    copies = 3 * integer(count)
    name, *args = rest[copies:]
    # The execution point saw this internal command, whose flags are not those of the one inside.
    if "denyoom" in BY_KEY[name.decode()].flags:
        ks.owner.require_room()
    placed: list[bytes] = []
    try:
        for at in range(0, copies, 3):
            key, deadline, payload = rest[at : at + 3]
            placed.append(key)
            restore_value(ks, key, payload, integer(deadline))
        _check_leases(ks, name.decode(), args)
        return handler_of(name.decode())(ks, *args)
    finally:
        for key in placed:
            ks.delete(key)


def _check_leases(ks: Keyspace, name: str, args: list[bytes]) -> None:
    """What this command writes may be held by a move; the execution point does not look into internal commands."""
    row = BY_KEY[name]
    if ks.leases.held and row.is_write:
        written = [key for key, flags in keys_with_flags(row, args) if flags[0] != "RO"]
        ks.leases.check(ks.db, written, ks.now_ms)
