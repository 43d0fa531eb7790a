"""Acknowledgements of the configuration and questions on their way to the children: who asked, and who has yet to answer.

Bookkeeping without I/O of its own, for the supervisor; times are of time.monotonic().
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["ACK_SECONDS", "Acknowledgements"]

ACK_SECONDS = 3.0
"""How long a child may take to acknowledge a change."""


@dataclass(slots=True)
class _Change:
    answer: Callable[[str], None]
    refuse: Callable[[str], None]
    missing: set[str]
    deadline: float
    refusals: list[str] = field(default_factory=list)
    late: Callable[[set[str]], None] | None = None
    errors: list[str] | None = None

    def end(self, late: str) -> None:
        """Tell whoever waits: the refusals of children if there are any, else what is late."""
        if self.refusals:
            self.refuse("; ".join(self.refusals))
        else:
            self.answer(late)


@dataclass(slots=True)
class Acknowledgements:
    """The changes that somebody waits for. Each ends by one call: of its `refuse` if a child could not take it in, else
    of its `answer`, with "" or with who is late."""

    _under_way: dict[int, _Change] = field(default_factory=dict)
    _last_id: int = 0

    def next_id(self) -> int:
        """A number for a change, unique for the life of the cluster."""
        self._last_id += 1
        return self._last_id

    def begin(
        self,
        number: int,
        children: Iterable[str],
        now: float,
        answer: Callable[[str], None],
        seconds: float = ACK_SECONDS,
        refuse: Callable[[str], None] | None = None,
        late: Callable[[set[str]], None] | None = None,
        errors: list[str] | None = None,
    ) -> None:
        """Wait for the acknowledgement of `children`, by name, for `seconds`. Without `refuse`, `answer` is told all.

        With `late`, that is called instead when time is up, with the names of those who are late. `errors` gets what
        children refuse with, in their own words.
        """
        missing = set(children)
        if not missing:
            answer("")
            return
        self._under_way[number] = _Change(answer, refuse or answer, missing, now + seconds, late=late, errors=errors)

    def acknowledged(self, number: int, child: str, error: str = "") -> bool:
        """A child has taken in change `number`, or could not for the reason `error`; False when nobody waits for it."""
        change = self._under_way.get(number)
        if change is None or child not in change.missing:
            return False
        if error and change.errors is not None:
            change.errors.append(error)
        if error:
            change.refusals.append(f"{child} cannot take it in: {error}")
        self._tick_off(number, change, child)
        return True

    def gone(self, child: str) -> None:
        """A child has ended: its next life starts with the new configuration."""
        for number, change in list(self._under_way.items()):
            if child in change.missing:
                self._tick_off(number, change, child)

    def expire(self, now: float) -> None:
        """Tell those who have waited too long."""
        for number, change in list(self._under_way.items()):
            if now >= change.deadline:
                del self._under_way[number]
                if change.late is not None:
                    change.late(change.missing)
                    continue
                late = ", ".join(sorted(change.missing))
                change.end(f"{late} did not acknowledge in time; the change holds once it does")

    def deadlines(self) -> list[float]:
        """When `expire` has something to do."""
        return [change.deadline for change in self._under_way.values()]

    def _tick_off(self, number: int, change: _Change, child: str) -> None:
        change.missing.discard(child)
        if not change.missing:
            del self._under_way[number]
            change.end("")
