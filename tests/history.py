"""A checker of histories: whether what clients saw of transactions can have happened one after the other.

A history is what clients sent and were answered, with the times of both. It is *linearizable* if there is one order of all
operations in which each lies between its call and its answer and each answer is what the data gave then. An operation whose
outcome is not known may have happened at any time behind its call, or never.

The search is that of Wing and Gong, with Lowe's memory of what was tried: go on with any operation that was called before the
first answer that is still due; step back when none fits. An operation without an outcome need only be thought of right before
somebody saw it: it is tried last, where an answer does not fit what it writes, few of them in a row at first and more if that
explains nothing. A search that has been at too many places gives up, and counts as one that found nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["Operation", "State", "explain"]

State = tuple[tuple[str, int], ...]
"""The keys that are there, sorted, with their values."""

NEVER = float("inf")

MOST_PLACES = 100_000
"""Of one search beyond as many as there are operations. One that finds an order goes hardly astray."""


@dataclass
class Operation:
    """Commands that were executed at once: ("get", key), ("set", key, value) or ("incr", key), all of whose values are
    integers. `replies` in their order, of "set" None; None for all of them together: the outcome is not known."""

    client: int
    called: float
    answered: float
    commands: tuple[tuple[str | int, ...], ...]
    replies: tuple[int | None, ...] | None

    @cached_property
    def written(self) -> frozenset[object]:
        """The keys that it may change,"""
        return frozenset(key for name, key, *_ in self.commands if name != "get")

    @cached_property
    def seen(self) -> frozenset[object]:
        """and those whose value it answers."""
        return frozenset(key for name, key, *_ in self.commands if name != "set")

    def follow(self, state: State) -> State | None:
        """The state behind it; None if it cannot have been answered so in this one."""
        data = dict(state)
        for at, (name, key, *rest) in enumerate(self.commands):
            assert isinstance(key, str)
            if name == "set":
                (data[key],) = rest  # type: ignore[assignment]
                continue
            if name == "incr":
                data[key] = data.get(key, 0) + 1
            if self.replies is not None and self.replies[at] != data.get(key):
                return None
        return tuple(sorted(data.items()))


@dataclass
class _Step:
    """One place of the search: what was done, what it led to, and what is still to be tried here."""

    state: State
    done: int
    first: int
    """No operation with an outcome before this one is left."""
    row: int
    """Operations without an outcome that were thought of last, in a row."""
    choices: list[int] = field(default_factory=list)


class _Search:
    def __init__(self, operations: Iterable[Operation]) -> None:
        ordered = sorted(operations, key=lambda each: each.called)
        self.known = [each for each in ordered if each.replies is not None]
        self.unknown = [each for each in ordered if each.replies is None and each.written]
        self.all = [*self.known, *self.unknown]
        self.whole = (1 << len(self.known)) - 1
        self.most_in_row = 0
        self.seen: set[tuple[int, int, State]] = set()
        self.furthest = 0

    def step(self, state: State, done: int, first: int, row: int) -> _Step:
        """What may come next, in the order of trial (the last one first)."""
        while done >> first & 1:
            first += 1
        due, candidates = NEVER, []
        for at in range(first, len(self.known)):
            one = self.known[at]
            if one.called > due:
                break
            if not done >> at & 1:
                due = min(due, one.answered)
                candidates.append(at)
        candidates = [at for at in candidates if self.known[at].called <= due]
        candidates.sort(key=lambda at: -self.known[at].answered)
        pending = []
        if row < self.most_in_row:
            missed: set[object] = set()
            for at in candidates:
                if self.all[at].follow(state) is None:
                    missed |= self.all[at].seen
            pending = [
                at
                for at in range(len(self.known), len(self.all))
                if self.all[at].called <= due and not done >> at & 1 and self.all[at].written & missed
            ]
        self.furthest = max(self.furthest, first)
        return _Step(state, done, first, row, pending[::-1] + candidates)

    def run(self, start: State, most_in_row: int) -> bool:
        """Whether there is an order, with at most so many operations without an outcome in a row."""
        self.most_in_row = most_in_row
        self.seen.clear()
        path = [self.step(start, 0, 0, 0)]
        while path[-1].done & self.whole != self.whole:
            if len(self.seen) > len(self.all) + MOST_PLACES:
                return False
            here = path[-1]
            if not here.choices:
                path.pop()
                if not path:
                    return False
                continue
            at = here.choices.pop()
            state = self.all[at].follow(here.state)
            if state is None or (at >= len(self.known) and state == here.state):
                continue
            done = here.done | 1 << at
            row = here.row + 1 if at >= len(self.known) else 0
            if (done, row, state) not in self.seen:
                self.seen.add((done, row, state))
                path.append(self.step(state, done, here.first, row))
        return True


def explain(operations: Iterable[Operation], start: State = ()) -> str:
    """ "" for a history that can have happened; else the operations around which no order can be found."""
    search = _Search(operations)
    if any(search.run(start, most) for most in (1, 2, 4)):
        return ""
    around = itertools.islice(search.known, max(search.furthest - 3, 0), search.furthest + 12)
    return "no order was found that explains these:\n" + "\n".join(map(str, around))
