"""The keyspace that handlers work on: every reader and every change of a shard's data.

`Keyspace` is the compiled `engine.Collections` with what belongs to a shard beside its data. Handlers change data
through its mutators alone. Each of them creates the key when it is missing, raises WRONGTYPE for another type, deletes
the key when its collection becomes empty, accounts the memory, and passes the one hook through which the log, WATCH and
wake-ups see changes. Collections that a reader returns may be read until the command ends, never kept and never changed.

Everything acts on database `db` at `now_ms` (unix ms); keys past their deadline are not seen.
"""

from __future__ import annotations

from ..commands.leases import Leases
from ..service.slowlog import SlowLog
from .engine import Collections

__all__ = ["Keyspace"]


class Keyspace(Collections):
    """The data of one shard."""

    def __init__(self, hash_seed: bytes = bytes(16), cleanup: object | None = None) -> None:
        self.slowlog = SlowLog()
        super().__init__(hash_seed, cleanup, Leases())
