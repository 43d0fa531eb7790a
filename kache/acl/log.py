"""What was refused (ACL LOG), of one process: grouped, newest first, bounded in number and in size.

A refusal like one of the last minute (reason, context, object and user) is counted with it and makes it the newest. Pure;
times are Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

__all__ = ["AclLog", "Refusal", "merged"]

GROUPED_MS: Final = 60_000
MOST_BYTES: Final = 128
"""Of an object and of a user's name: whoever is refused chooses them."""


class Refusal(msgspec.Struct, array_like=True):
    """One entry; `number` is that of no other entry of the cluster."""

    count: int
    reason: str
    """command, key, channel or auth."""
    context: str
    """toplevel, multi or lua."""
    object: bytes
    username: bytes
    client: bytes
    """The client's line of CLIENT LIST."""
    number: int
    created_ms: int
    updated_ms: int

    def is_like(self, other: Refusal) -> bool:
        """Whether both are told as one."""
        mine = (self.reason, self.context, self.object, self.username)
        return mine == (other.reason, other.context, other.object, other.username)


class AclLog:
    """The refusals of one process; `first_number` is that of its first entry."""

    def __init__(self, first_number: int = 0, length: int = 128) -> None:
        self._entries: list[Refusal] = []
        self._next = first_number
        self._length = length

    def configure(self, length: int) -> None:
        """How many are kept; the newest stay."""
        self._length = length
        del self._entries[length:]

    def note(
        self, now_ms: int, reason: str, context: str, what: bytes, username: bytes, client: Callable[[], bytes]
    ) -> None:
        """Something was refused; `client` is asked only for a new entry."""
        fresh = Refusal(1, reason, context, what[:MOST_BYTES], username[:MOST_BYTES], b"", self._next, now_ms, now_ms)
        for at, entry in enumerate(self._entries):
            if now_ms - entry.updated_ms <= GROUPED_MS and entry.is_like(fresh):
                entry.count += 1
                entry.updated_ms = now_ms
                self._entries.insert(0, self._entries.pop(at))
                return
        if self._length:
            fresh.client = client()
            self._next += 1
            self._entries.insert(0, fresh)
            del self._entries[self._length :]

    def entries(self) -> list[Refusal]:
        """Newest first."""
        return list(self._entries)

    def clear(self) -> None:
        """Forgets all."""
        self._entries.clear()


def merged(logs: Iterable[Iterable[Refusal]]) -> list[Refusal]:
    """The refusals of several processes as one log, like ones of them as one entry; newest first."""
    found: list[Refusal] = []
    for entry in sorted((entry for log in logs for entry in log), key=lambda entry: -entry.updated_ms):
        for known in found:
            if known.updated_ms - entry.updated_ms <= GROUPED_MS and known.is_like(entry):
                known.count += entry.count
                known.created_ms = min(known.created_ms, entry.created_ms)
                break
        else:
            found.append(msgspec.structs.replace(entry))
    return found
