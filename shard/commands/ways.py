"""How something is taken from a key: what a command that waits does once there is something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .zsets import pop_pairs

if TYPE_CHECKING:
    from ..engine.engine import Keyspace

__all__ = ["Move", "Way"]


class Way(NamedTuple):
    """A pop: which type, from which end, and how much (None: one, answered flat)."""

    kind: str
    first: bool
    most: int | None = None

    def take(self, keys: Keyspace, key: bytes) -> list[Any] | None:
        """The key and what it gave, as it is answered; None when it is not there. WRONGTYPE for another type."""
        if self.kind == "list":
            taken = keys.list_pop(key, self.first, self.most or 1)
            if not taken:
                return None
            return [key, taken[0] if self.most is None else taken]
        value = keys.zset_get(key)
        if value is None:
            return None
        count = min(self.most or 1, len(value))
        pairs = pop_pairs(keys, key, len(value), count, self.first)
        return [key, *pairs[0]] if self.most is None else [key, [list(pair) for pair in pairs]]

    def taken(self, reply: list[Any]) -> list[Any]:
        """The elements, or the pairs of member and score, that a reply of `take` holds, in the order they came off."""
        if self.most is not None:
            found: list[Any] = reply[1]
            return found
        return [reply[1:]] if self.kind == "zset" else reply[1:]


class Move(NamedTuple):
    """One element to an end of another list: of this shard, or without a target of another one, carried by the router."""

    target: bytes = b""
    from_side: bytes = b""
    to_side: bytes = b""

    @property
    def kind(self) -> str:
        """The type of its source."""
        return "list"
