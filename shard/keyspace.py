"""The keyspace that handlers work on: every reader and every change of a shard's data.

`Keyspace` completes the compiled base (`_engine.Collections`: keys, strings, hashes, sets, sorted sets) with lists.
Handlers change data through its mutators alone. Each of them creates the key when it is missing, raises
WRONGTYPE for another type, deletes the key when its collection becomes empty, accounts the memory, and passes
the one hook through which the log, WATCH and wake-ups see changes. Collections that a reader returns may be read
until the command ends, never kept and never changed.

Everything acts on database `db` at `now_ms` (unix ms); keys past their deadline are not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ._engine import Collections
from ._lists import ListValue
from .leases import Leases
from .slowlog import SlowLog

__all__ = ["Keyspace"]

_LIST: Final = 1
"""Type number of the compiled part (entry.pxi)."""


class Keyspace(Collections):
    """The data of one shard."""

    def __init__(self, hash_seed: bytes = bytes(16), cleanup: object | None = None) -> None:
        self.slowlog = SlowLog()
        super().__init__(hash_seed, cleanup, Leases())

    # Lists ----------------------------------------------------------------------------------------------
    def list_get(self, key: bytes) -> ListValue | None:
        """The list at `key`, to be read only, or None."""
        value: ListValue | None = self.collection(key, _LIST)
        return value

    def _list(self, key: bytes) -> ListValue:
        value: ListValue | None = self.collection(key, _LIST)
        if value is None:
            raise KeyError(key)
        return value

    def list_push(self, key: bytes, values: Sequence[bytes], left: bool) -> int:
        """Adds values one after another at one end; the new length."""
        value: ListValue | None = self.collection(key, _LIST)
        if value is None:
            value = ListValue()
            value.extend(values, left)
            if len(value):
                self.create_collection(key, _LIST, value)
        else:
            before = value.memory
            value.extend(values, left)
            self.settle(key, value, before)
        self.note_change("list_push", key, (values, left))
        return len(value)

    def list_pop(self, key: bytes, left: bool, count: int = 1) -> list[bytes]:
        """Takes up to `count` values from one end, in the order they come off; empty without the key."""
        value: ListValue | None = self.collection(key, _LIST)
        if value is None:
            return []
        before = value.memory
        taken = value.pop_many(left, count)
        self.settle(key, value, before)
        self.note_change("list_pop", key, (left, len(taken)))
        return taken

    def list_set(self, key: bytes, index: int, value: bytes) -> None:
        """Replaces one value; KeyError without the key, IndexError out of range."""
        values = self._list(key)
        before = values.memory
        values.set(index, value)
        self.settle(key, values, before)
        self.note_change("list_set", key, (index, value))

    def list_insert(self, key: bytes, index: int, value: bytes) -> None:
        """Inserts before `index`; KeyError without the key, IndexError out of range."""
        values = self._list(key)
        before = values.memory
        values.insert(index, value)
        self.settle(key, values, before)
        self.note_change("list_insert", key, (index, value))

    def list_delete_range(self, key: bytes, start: int, stop: int) -> None:
        """Removes the values from `start` to `stop` (exclusive); nothing without the key."""
        values: ListValue | None = self.collection(key, _LIST)
        if values is None:
            return
        before = values.memory
        removed = values.delete_range(start, stop)
        self.settle(key, values, before)
        if removed is not None and self.cleanup is not None:
            self.cleanup.hand_over(removed)
        self.note_change("list_delete_range", key, (start, stop))

    def list_remove(self, key: bytes, value: bytes, count: int) -> int:
        """Removes equal values: `count` from the head, minus `count` from the tail, all with 0; how many."""
        values: ListValue | None = self.collection(key, _LIST)
        if values is None:
            return 0
        before = values.memory
        removed = values.remove(value, count)
        if removed:
            self.settle(key, values, before)
            self.note_change("list_remove", key, (value, count))
        return removed

    def list_replace(self, key: bytes, values: Iterable[bytes]) -> int:
        """Stores a list in place of whatever is there; its length (with none the key is deleted)."""
        fresh = ListValue(values)
        if self.replace_collection(key, _LIST, fresh if len(fresh) else None):
            self.note_change("list_replace", key, (fresh,))
        return len(fresh)
