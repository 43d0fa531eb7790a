"""A checker of histories: whether what clients saw of transactions can have happened one after the other.

A history is what clients sent and were answered, with the times of both. It is *linearizable* if there is one order of all
operations in which each lies between its call and its answer and each answer is what the data gave then. An operation whose
outcome is not known may have happened as a whole at any time behind its call, or never.

The search is that of Wing and Gong, with Lowe's memory of what was tried: go on with any operation that was called before the
first answer that is still due; step back when none fits. Keys that no operation joins are searched apart. It is exact: it
says "impossible" only when it has been everywhere, and "gave up" when it was not. What keeps it short loses no order:

- An operation that only reads, and whose answer fits, is taken at once.
- One without an outcome that writes one key is thought of only right before somebody saw that key and another value would not
  fit; increments of one key are all alike. One that writes several is tried right before something that uses a key of it.
- Where every value that is set is so far from the next that no number of increments reaches it, a value tells which SET it
  comes from. What has been overwritten never comes back then: nobody may be left who saw it.

What is impossible is made smaller by itself, each step of which keeps it impossible: what was called later is left out, other
keys are, and operations have no outcome any more.
"""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

__all__ = ["Operation", "Outcome", "State", "Verdict", "judge"]

State = tuple[tuple[str, int], ...]
"""The keys that are there, sorted, with their values."""

NEVER = float("inf")

MOST_PLACES = 1_000_000
"""Of one search: a minute or so. One of ten thousand operations that finds an order is at little more than as many."""

Values = tuple[int | None, ...]
"""Of all keys of a search, by their numbers; None: there is none."""


@dataclass(frozen=True)
class Operation:
    """Commands that were executed at once: ("get", key), ("set", key, value) or ("incr", key), all of whose values are
    integers. `replies` in their order, of "set" None; None for all of them together: the outcome is not known."""

    client: int
    called: float
    answered: float
    commands: tuple[tuple[str | int, ...], ...]
    replies: tuple[int | None, ...] | None

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(str(command[1]) for command in self.commands)

    def only(self, keys: frozenset[str]) -> Operation:
        """What it did to these keys."""
        kept = [at for at, command in enumerate(self.commands) if command[1] in keys]
        replies = None if self.replies is None else tuple(self.replies[at] for at in kept)
        return replace(self, commands=tuple(self.commands[at] for at in kept), replies=replies)

    def forgotten(self) -> Operation:
        """The same without an outcome."""
        return replace(self, answered=NEVER, replies=None)


class Outcome(Enum):
    EXPLAINED = "an order explains it"
    IMPOSSIBLE = "no order explains it"
    GAVE_UP = "the search gave up"


class Verdict(NamedTuple):
    outcome: Outcome
    contradiction: list[Operation]
    """Of what is impossible: operations that are so by themselves, those without an outcome that they may have seen included."""

    def __str__(self) -> str:
        return "\n".join([self.outcome.value, *map(str, self.contradiction)])


class _Known(NamedTuple):
    """An operation with an outcome."""

    called: float
    answered: float
    needs: dict[int, tuple[int | None, ...]]
    """By key that it saw: the values that it can have found,"""
    leaves: dict[int, int]
    """and by key that it wrote what it left."""
    keys: frozenset[int]


class _Unknown(NamedTuple):
    """One without."""

    called: float
    writes: dict[int, tuple[int | None, int]]
    """By key: what it sets, or None, and how much it adds to that."""


class _Place(NamedTuple):
    """A place of the search: what has been done is everything known before `first` and the bits of `done` from there."""

    first: int
    done: int
    state: Values
    added: tuple[int, ...]
    """How many increments of unknown outcome have happened, by key."""
    used: frozenset[int]
    """Which others of unknown outcome."""
    next: frozenset[int] | None
    """What follows uses one of these keys, since what was just done would else come later."""


class _Fit(NamedTuple):
    """What must happen to one key so that it has a value."""

    value: int
    added: int
    used: int | None


def _known(operation: Operation, numbers: dict[str, int]) -> _Known | None:
    """None for one that contradicts itself."""
    needs: dict[int, tuple[int | None, ...]] = {}
    now: dict[int, int | None] = {}
    wrote: set[int] = set()
    assert operation.replies is not None
    for (name, word, *rest), reply in zip(operation.commands, operation.replies, strict=True):
        key = numbers[str(word)]
        if name == "set":
            now[key] = int(rest[0])
        elif name == "incr":
            if reply is None or (key in now and (now[key] or 0) + 1 != reply):
                return None
            if key not in now:
                needs[key] = (None, 0) if reply == 1 else (reply - 1,)
            now[key] = reply
        elif key in now:
            if now[key] != reply:
                return None
        else:
            needs[key] = (reply,)
            now[key] = reply
        if name != "get":
            wrote.add(key)
    leaves = {key: value for key, value in now.items() if key in wrote and value is not None}
    return _Known(operation.called, operation.answered, needs, leaves, frozenset(now))


def _unknown(operation: Operation, numbers: dict[str, int]) -> _Unknown:
    writes: dict[int, tuple[int | None, int]] = {}
    for name, word, *rest in operation.commands:
        base, added = writes.get(numbers[str(word)], (None, 0))
        if name == "set":
            writes[numbers[str(word)]] = int(rest[0]), 0
        elif name == "incr":
            writes[numbers[str(word)]] = base, added + 1
    return _Unknown(operation.called, writes)


class _Chains:
    """Which SET a value comes from, and who saw it; of keys where that is certain."""

    def __init__(
        self, operations: list[Operation], known: list[_Known], numbers: dict[str, int], start: Values
    ) -> None:
        self.bases: list[list[int]] = [[value or 0] for value in start]
        most = [0] * len(start)
        for operation in operations:
            for name, word, *rest in operation.commands:
                if name == "set":
                    self.bases[numbers[str(word)]].append(int(rest[0]))
                most[numbers[str(word)]] += name == "incr"
        for bases in self.bases:
            bases.sort()
        self.certain = [
            all(after - before > more for before, after in itertools.pairwise(bases))
            for bases, more in zip(self.bases, most, strict=True)
        ]
        self.saw_value: dict[tuple[int, int], list[int]] = {}
        self.saw_chain: dict[tuple[int, int], list[int]] = {}
        for at, one in enumerate(known):
            for key, values in one.needs.items():
                value = values[-1] or 0
                self.saw_value.setdefault((key, value), []).append(at)
                self.saw_chain.setdefault((key, self.of(key, value)), []).append(at)

    def of(self, key: int, value: int | None) -> int:
        return bisect.bisect_right(self.bases[key], value or 0)

    def may_go(self, key: int, old: int | None, new: int, is_done: Callable[[int], bool]) -> bool:
        """Whether nobody is left who saw what is between an old value, that too, and a new one."""
        if not self.certain[key]:
            return True
        chain = self.of(key, old)
        if self.of(key, new) != chain:
            return all(map(is_done, self.saw_chain.get((key, chain), ())))
        return all(all(map(is_done, self.saw_value.get((key, value), ()))) for value in range(old or 0, new))


class _Search:
    """Of one history whose keys are joined."""

    def __init__(self, operations: Iterable[Operation], start: dict[str, int], most_places: int) -> None:
        ordered = sorted(operations, key=lambda each: each.called)
        names = sorted(frozenset().union(*(each.keys for each in ordered)))
        numbers = {name: number for number, name in enumerate(names)}
        self.most_places = most_places
        self.start: Values = tuple(start.get(name) for name in names)
        known = [_known(each, numbers) for each in ordered if each.replies is not None]
        self.known = [each for each in known if each is not None]
        self.contradicts_itself = len(self.known) < len(known)
        self.chains = _Chains(ordered, self.known, numbers, self.start)
        self.adds: list[list[float]] = [[] for _ in names]
        self.sets: list[list[tuple[int, float, int]]] = [[] for _ in names]
        self.groups: list[tuple[int, _Unknown]] = []
        for number, unknown in enumerate(_unknown(each, numbers) for each in ordered if each.replies is None):
            ((key, (base, added)), *others) = [*unknown.writes.items()] or [(0, (None, 0))]
            if base is not None and not others:
                self.sets[key].append((base + added, unknown.called, number))
            elif added == 1 and not others:
                self.adds[key].append(unknown.called)
            elif unknown.writes:
                self.groups.append((number, unknown))
        for sets in self.sets:
            sets.sort()

    def run(self) -> Outcome:
        if self.contradicts_itself:
            return Outcome.IMPOSSIBLE
        place = _Place(0, 0, self.start, (0,) * len(self.start), frozenset(), None)
        seen = {place}
        path = [self.followers(place)]
        while path:
            for follower in path[-1]:
                if follower.first == len(self.known):
                    return Outcome.EXPLAINED
                if follower not in seen:
                    if len(seen) > self.most_places:
                        return Outcome.GAVE_UP
                    seen.add(follower)
                    path.append(self.followers(follower))
                    break
            else:
                path.pop()
        return Outcome.EXPLAINED if not self.known else Outcome.IMPOSSIBLE

    def followers(self, place: _Place) -> Iterator[_Place]:
        """What may come next."""
        due, candidates = self.candidates(place)
        reads = [at for at in candidates if not self.known[at].leaves]
        for at in reads:
            if all(place.state[key] in values for key, values in self.known[at].needs.items()):
                yield self.done(place, at, place.state, place.added, place.used)
                return
        for at in candidates:
            yield from self.after_known(place, at, due)
        if self.groups:
            yield from self.after_groups(place, candidates, due)

    def candidates(self, place: _Place) -> tuple[float, list[int]]:
        """(when the first answer is due, the known operations that may be next, those first that are due first)."""
        due, found = NEVER, []
        for at in range(place.first, len(self.known)):
            one = self.known[at]
            if one.called > due:
                break
            if not place.done >> (at - place.first) & 1:
                due = min(due, one.answered)
                found.append(at)
        found = [
            at
            for at in found
            if self.known[at].called <= due and (place.next is None or place.next & self.known[at].keys)
        ]
        return due, sorted(found, key=lambda at: self.known[at].answered)

    def done(self, place: _Place, at: int, state: Values, added: tuple[int, ...], used: frozenset[int]) -> _Place:
        first, done = place.first, place.done | 1 << (at - place.first)
        while done & 1:
            first, done = first + 1, done >> 1
        return _Place(first, done, state, added, used, None)

    def after_known(self, place: _Place, at: int, due: float) -> Iterator[_Place]:
        """One known operation, and before it what of unknown outcome it needs."""
        one = self.known[at]
        missing = [key for key, values in one.needs.items() if place.state[key] not in values]

        def is_done(other: int) -> bool:
            return other < place.first or other == at or bool(place.done >> (other - place.first) & 1)

        for fits in itertools.product(*(list(self.fits(place, key, one.needs[key], due, is_done)) for key in missing)):
            state, added, used = list(place.state), list(place.added), place.used
            for key, fit in zip(missing, fits, strict=True):
                state[key] = fit.value
                added[key] += fit.added
                used |= set() if fit.used is None else {fit.used}
            if all(self.chains.may_go(key, state[key], value, is_done) for key, value in one.leaves.items()):
                for key, value in one.leaves.items():
                    state[key] = value
                yield self.done(place, at, tuple(state), tuple(added), used)

    def fits(
        self, place: _Place, key: int, wanted: tuple[int | None, ...], due: float, is_done: Callable[[int], bool]
    ) -> Iterator[_Fit]:
        """What of unknown outcome gives a key one of these values."""
        old = place.state[key]
        free = bisect.bisect_right(self.adds[key], due) - place.added[key]
        for value in wanted:
            if value is None:
                continue
            if 1 <= value - (old or 0) <= free and self.chains.may_go(key, old, value, is_done):
                yield _Fit(value, value - (old or 0), None)
            for base, number in self.free_sets(place, key, due, value - free, value):
                if self.chains.may_go(key, old, base, is_done) and self.chains.may_go(key, base, value, is_done):
                    yield _Fit(value, value - base, number)

    def free_sets(
        self, place: _Place, key: int, due: float, lowest: float, highest: float
    ) -> Iterator[tuple[int, int]]:
        """(value, number) of what sets only this key, and may have happened or not."""
        sets = self.sets[key]
        for at in range(bisect.bisect_left(sets, (lowest,)), len(sets)):
            value, called, number = sets[at]
            if value > highest:
                return
            if called <= due and number not in place.used:
                yield value, number

    def after_groups(self, place: _Place, candidates: list[int], due: float) -> Iterator[_Place]:
        """One of unknown outcome that writes several keys, some of which something that follows uses."""
        free = [(number, group) for number, group in self.groups if group.called <= due and number not in place.used]
        near = set(place.next) if place.next else set().union(*(self.known[at].keys for at in candidates))
        before = -1
        while place.next is None and before != len(near):
            before = len(near)
            near.update(*(group.writes for _, group in free if near & group.writes.keys()))

        def is_done(other: int) -> bool:
            return other < place.first or bool(place.done >> (other - place.first) & 1)

        for number, group in free:
            if not near & group.writes.keys():
                continue
            ways = [list(self.ways(place, key, *write, due, is_done)) for key, write in group.writes.items()]
            for way in itertools.product(*ways):
                state = list(place.state)
                for key, fit in zip(group.writes, way, strict=True):
                    state[key] = fit.value
                used = place.used | {number} | {fit.used for fit in way if fit.used is not None}
                yield place._replace(state=tuple(state), used=used, next=frozenset(group.writes))

    def ways(
        self, place: _Place, key: int, base: int | None, added: int, due: float, is_done: Callable[[int], bool]
    ) -> Iterator[_Fit]:
        """What an unknown write may leave of a key: where it only adds, something unknown may have been set before."""
        old = place.state[key]
        value = (old or 0) + added if base is None else base + added
        if self.chains.may_go(key, old, value, is_done):
            yield _Fit(value, 0, None)
        if base is None:
            for other, number in self.free_sets(place, key, due, -NEVER, NEVER):
                if self.chains.may_go(key, old, other, is_done) and self.chains.may_go(
                    key, other, other + added, is_done
                ):
                    yield _Fit(other + added, 0, number)


def _joined(operations: list[Operation]) -> list[frozenset[str]]:
    """The keys, those together that an operation joins."""
    parts: list[frozenset[str]] = []
    for keys in {each.keys for each in operations}:
        touched = [part for part in parts if part & keys]
        parts = [part for part in parts if not part & keys] + [keys.union(*touched)]
    return parts


def _search(operations: list[Operation], start: dict[str, int], most_places: int) -> Outcome:
    """The worst of what is said of keys that belong together."""
    outcomes = {
        _Search([each for each in operations if each.keys & keys], start, most_places).run()
        for keys in _joined(operations)
    }
    return next((one for one in (Outcome.IMPOSSIBLE, Outcome.GAVE_UP) if one in outcomes), Outcome.EXPLAINED)


# Making it smaller --------------------------------------------------------------------------------------------
def _until(operations: list[Operation], time_: float) -> list[Operation]:
    """What had been seen of a history at a time."""
    return [each if each.answered <= time_ else each.forgotten() for each in operations if each.called <= time_]


def _only(operations: list[Operation], keys: frozenset[str]) -> list[Operation]:
    return [each.only(keys) for each in operations if each.keys & keys]


def _lowest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The lowest number for which something holds that holds of `high` and, from there on, of all."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _whole(operation: Operation) -> list[Operation]:
    return [operation.forgotten()]


def _apart(operation: Operation) -> list[Operation]:
    """Without an outcome, and each key by itself, which is searched faster."""
    return [operation.forgotten().only(frozenset({key})) for key in operation.keys]


class _Shrinker:
    def __init__(self, start: dict[str, int], most_places: int, seconds: float) -> None:
        self.start = start
        self.most_places = min(most_places, 20_000)
        self.ends = time.monotonic() + seconds

    def is_impossible(self, operations: list[Operation]) -> bool:
        """Not when there is no time left: then everything stays."""
        if time.monotonic() > self.ends:
            return False
        return _search(operations, self.start, self.most_places) is Outcome.IMPOSSIBLE

    def shrink(self, operations: list[Operation]) -> list[Operation]:
        answers = sorted(each.answered for each in operations if each.replies is not None)
        at = _lowest(0, len(answers) - 1, lambda at: self.is_impossible(_until(operations, answers[at])))
        if self.is_impossible(_until(operations, answers[at])):
            operations = _until(operations, answers[at])
        for keys in self.sets_of_keys(operations):
            if self.is_impossible(_only(operations, keys)):
                operations = _only(operations, keys)
                break
        operations = self.forget(operations)
        return self.without_what_nobody_saw(operations)

    def sets_of_keys(self, operations: list[Operation]) -> Iterator[frozenset[str]]:
        keys = sorted(frozenset().union(*(each.keys for each in operations)))
        for size in range(1, len(keys)):
            yield from map(frozenset, itertools.combinations(keys, size))

    def forget(self, operations: list[Operation]) -> list[Operation]:
        """As many outcomes as can be, in large portions first."""
        portion = sum(each.replies is not None for each in operations)
        while portion > 1:
            portion = (portion + 1) // 2
            known = [each for each in operations if each.replies is not None]
            for begin in range(0, len(known), portion):
                some = set(map(id, known[begin : begin + portion]))
                for forget in (_apart, _whole):
                    fewer = [one for each in operations for one in (forget(each) if id(each) in some else [each])]
                    if self.is_impossible(fewer):
                        operations = fewer
                        break
        return operations

    def without_what_nobody_saw(self, operations: list[Operation]) -> list[Operation]:
        """For the eye: what has no outcome, and set what none of those saw that have one, cannot be missed."""
        seen = {
            (str(word), reply - value)
            for each in operations
            if each.replies is not None
            for (_, word, *_), reply in zip(each.commands, each.replies, strict=True)
            if reply is not None
            for value in range(3)
        }
        return [
            each
            for each in operations
            if each.replies is not None
            or any((str(command[1]), command[2]) in seen for command in each.commands if command[0] == "set")
        ]


def judge(
    operations: Iterable[Operation], start: State = (), most_places: int = MOST_PLACES, seconds: float = 60
) -> Verdict:
    """Whether a history can have happened. What cannot is made smaller for so many seconds."""
    whole, data = list(operations), dict(start)
    outcome = _search(whole, data, most_places)
    if outcome is not Outcome.IMPOSSIBLE:
        return Verdict(outcome, [])
    return Verdict(outcome, _Shrinker(data, most_places, seconds).shrink(whole))
