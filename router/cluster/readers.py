"""Replicas that reads go to in front of a Redis Cluster (`backend-read-from`).

Each range of slots has one reader in a router: the compiled path sends commands that only read there while its connection is
up and has room, and to the owner otherwise. What a replica refuses, or was lost with it, was a read: it goes to the owner
through the gate of its slot, as anything refused does, and the replica is left alone for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kache.backend.topology import Shown

    from .director import Director

__all__ = ["Readers"]

REST_SECONDS: Final = 10.0
"""How long nothing is read from a replica that has refused a command or was lost."""


class Readers:
    """Who is read from. `numbers` are its nodes."""

    def __init__(self, director: Director) -> None:
        self.director = director
        self.numbers: set[int] = set()
        self._rests_until: dict[int, float] = {}

    def take(self, view: list[Shown]) -> None:
        """A new map."""
        mode = self.director.config.backend_read_from
        if mode == "master":
            return
        remote, now = self.director.remote, self.director.now()
        self.numbers.clear()
        for turn, each in enumerate(view):
            found = [self.director.number_of(address) for address in sorted(each.replicas)]
            found = [number for number in found if self._rests_until.get(number, 0.0) <= now]
            # Routers and ranges choose differently; the master stands for itself.
            choice: list[int | None] = [*found, None] if mode == "any" else [*found]
            chosen = choice[(self.director.router.index + turn) % len(choice)] if choice else None
            remote.set_readers(each.first, each.last, chosen)
            if chosen is not None:
                self.numbers.add(chosen)

    def failed(self, number: int) -> None:
        """It has refused a command, or was lost; nothing if it is nobody's reader."""
        if number in self.numbers:
            self._rests_until[number] = self.director.now() + REST_SECONDS
            self.numbers.discard(number)
            self.director.remote.drop_reader(number)

    def connect_wanted(self) -> None:
        """Connections that clients would have read on."""
        if self.numbers:
            for number, dialect, lane, db in self.director.remote.take_wanted():
                self.director.connect(number, dialect, lane, db)
