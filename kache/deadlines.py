"""What is due when: one timer of the event loop, for the soonest of any number of deadlines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sortedcontainers import SortedDict

__all__ = ["Deadlines"]

T = TypeVar("T")

EARLIEST_SECONDS = 0.001
"""A timer may fire a fraction of its resolution early; what is not due then is looked at again so much later."""


class Deadlines(Generic[T]):
    """Items by the time at which they are due, in unix milliseconds; those of one millisecond in the order of `add`.

    `now` tells the time, `call_later(seconds, function)` sets a timer that can be cancelled, `due` is called with each
    item at or behind its time, once. Adding and removing take O(log n); nothing is done while nothing is due.
    """

    def __init__(
        self, now: Callable[[], int], call_later: Callable[[float, Callable[[], None]], Any], due: Callable[[T], None]
    ) -> None:
        self._now = now
        self._call_later = call_later
        self._due = due
        self._items: SortedDict[tuple[int, int], T] = SortedDict()
        self._added = 0
        self._timer: Any = None
        self._timer_ms = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, at_ms: int, item: T) -> tuple[int, int]:
        """`item` is due then; returns what `remove` wants."""
        self._added += 1
        place = (at_ms, self._added)
        self._items[place] = item
        self._set_timer()
        return place

    def remove(self, place: tuple[int, int]) -> None:
        """It is not due any more; nothing happens if it was already."""
        self._items.pop(place, None)
        if not self._items:
            self._cancel_timer()

    def _set_timer(self) -> None:
        soonest = self._items.peekitem(0)[0][0]
        if self._timer is not None and self._timer_ms <= soonest:
            # It fires in time; if what it was set for is gone by then, it is set anew.
            return
        self._cancel_timer()
        self._timer_ms = soonest
        self._timer = self._call_later(max((soonest - self._now()) / 1000, EARLIEST_SECONDS), self._on_timer)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        now = self._now()
        try:
            while self._items and self._items.peekitem(0)[0][0] <= now:
                self._due(self._items.popitem(0)[1])
        finally:
            if self._items:
                self._set_timer()
