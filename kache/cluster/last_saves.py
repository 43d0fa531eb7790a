"""What every shard has to say before a cluster ends, and one before it is restarted: that all it keeps is on disk, or why not.

    ask ─► LastSave to every shard that serves, all at the same time ─► Dumped of each, its end, its silence ─► then(error)

A shard that is down or loads holds nothing that is not on disk, and is not asked. One that is being restarted has answered
before, and saves what came since by itself: its end is waited for. No I/O of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kache.cluster.children import Child
from kache.cluster.messages import Down, LastSave

__all__ = ["LastSaves"]


class _Asked:
    """Those who have yet to answer one question, and what the others could not do."""

    def __init__(self, then: Callable[[str], None]) -> None:
        self.waited_for: set[int] = set()
        self.failures: list[tuple[int, str]] = []
        self.then = then


class LastSaves:
    """Of all shards among `children`. `send` sends one of them a message."""

    def __init__(self, children: Sequence[Child], send: Callable[[Child, Down], None]) -> None:
        self._children = children
        self._send = send
        self._asked: dict[int, _Asked] = {}
        self._last_number = 0

    def ask(self, save: bool | None, then: Callable[[str], None], only: Child | None = None) -> None:
        """Have all shards save, or `only` one; `save` is that of `LastSave`. `then` gets "" when they have, or what could not be
        saved and why."""
        self._last_number -= 1  # those of `Dumps` are positive
        asked = self._asked[self._last_number] = _Asked(then)
        told = [
            child
            for child in self._children
            if child.role == "shard" and child.pid and child.ready_at and only in (None, child)
        ]
        asked.waited_for = {child.index for child in told}
        for child in told:
            if not _leaves(child):
                self._send(child, LastSave(self._last_number, save))
        self.look()

    def answered(self, shard: int, number: int, error: str) -> None:
        """A shard has done its part, or could not for the reason `error`."""
        if number in self._asked and shard in self._asked[number].waited_for:
            self._over(number, shard, error)

    def gone(self, child: Child, in_order: bool) -> None:
        """A shard has ended in the middle of it, for its `reason`; `in_order`: it came to its end by itself."""
        error = "" if in_order and _leaves(child) else f"it has ended: {child.reason}"
        for number in [*self._asked]:
            if number in self._asked and child.index in self._asked[number].waited_for:
                self._over(number, child.index, error)

    def look(self) -> None:
        """Nobody waits for a shard that gives no sign of life; to be called about once a second."""
        silent = [child for child in self._children if child.role == "shard" and child.unresponsive]
        for number in [*self._asked]:
            for child in silent:
                if number in self._asked and child.index in self._asked[number].waited_for:
                    self._over(number, child.index, f"it has given no sign of life for {child.silent:.0f} s")
            if number in self._asked and not self._asked[number].waited_for:
                self._end(number)

    def _over(self, number: int, shard: int, error: str) -> None:
        asked = self._asked[number]
        asked.waited_for.discard(shard)
        if error:
            asked.failures.append((shard, error))
        if not asked.waited_for:
            self._end(number)

    def _end(self, number: int) -> None:
        asked = self._asked.pop(number)
        asked.then("; ".join(f"shard {shard}: {error}" for shard, error in sorted(asked.failures)))


def _leaves(child: Child) -> bool:
    """Whether it was told to go, to be started again."""
    return child.restarting and child.state == "down"
