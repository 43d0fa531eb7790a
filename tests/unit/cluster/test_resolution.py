"""What a start decides about transactions over shards stays decided, whoever ends and comes back in between.

The model is a cluster of shards that are nothing but their disks: logs, manifests, bases, and what of them a power cut takes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec
import pytest

from kache.cluster import resolution
from kache.cluster.resolution import WAIT_SECONDS, Order, Reported, Resolution, Unfinished
from kache.cluster.transactions import WINDOW_MS, Decision, Share, Shares, decide, lost_of

NOW = 1_700_000_000_000
PAIR = (0, 1)


def share(transaction: int, sequence: int, *, settled: bool, ago_ms: int = 0) -> Share:
    return Share(transaction, PAIR, sequence, NOW - ago_ms, settled)


def has(*shares: Share, number: int = 0) -> Reported:
    return Reported(Shares(shares, 0, NOW), number)


class Told:
    """What a resolution says, and what it keeps; `full`: nothing can be kept; `hangs`: not before `go_on`."""

    def __init__(self, shards: int = 2, always: bool = False, disk: Unfinished | None = None) -> None:
        self.said: list[tuple[int, Decision, int | None]] = []
        self.disk = disk
        self.full = self.hangs = False
        self.written: list[Callable[[], None]] = []
        self.seconds = 0.0
        self.resolution = Resolution(
            shards, always, lambda *what: self.said.append(what), self._keep, lambda: self.seconds
        )
        self.resolution.begin(disk)

    def _keep(self, unfinished: Unfinished | None, then: Callable[[OSError | None], None]) -> None:
        assert not self.written, "one thing at a time"
        data = msgspec.json.encode(unfinished)

        def write() -> None:
            if not self.full:
                self.disk = msgspec.json.decode(data, type=Unfinished | None)
            then(OSError(28, "No space left on device") if self.full else None)

        self.written.append(write)
        if not self.hangs:
            self.go_on()

    def go_on(self) -> None:
        """The disk has what it was given."""
        self.written.pop()()

    def give_up(self) -> None:
        """Those who wait have waited for long enough."""
        self.seconds += WAIT_SECONDS
        self.resolution.look()

    def decisions(self) -> list[tuple[int, Decision]]:
        found = {shard: decision for shard, decision, _ in self.said}
        self.said.clear()
        return sorted(found.items())


HALF = (has(share(7, 3, settled=False)), has())
"""Shard 0 has a part of 7, which shard 1 has lost."""
SKIPPED = [(0, Decision(skip=[7])), (1, Decision())]


def test_who_reports_again_is_told_the_same_until_its_files_say_it() -> None:
    told = Told()
    told.resolution.report(0, HALF[0])
    assert told.said == []
    told.resolution.report(1, HALF[1])
    number = told.said[0][2]
    assert told.decisions() == SKIPPED and number and told.disk is not None
    for _ in range(3):
        told.resolution.gone(0)
        told.resolution.report(0, HALF[0])
        assert told.said == [(0, SKIPPED[0][1], number)]
        told.said.clear()
    told.resolution.recorded(0, number)
    told.resolution.report(0, has(share(7, 3, settled=False), share(8, 4, settled=False), number=number))
    assert told.said.pop() == (0, Decision(), None) and told.disk is not None
    told.resolution.recorded(1, number)
    assert told.disk is None
    told.resolution.report(0, has(number=number))
    assert told.said.pop() == (0, Decision(), None)


def test_a_cut_is_not_made_in_what_was_written_behind_it() -> None:
    """It was taken in, and nobody has heard of it: the files say so."""
    reports = has(share(7, 3, settled=True)), has()
    told = Told()
    for shard, report in enumerate(reports):
        told.resolution.report(shard, report)
    number = told.said[0][2]
    assert told.decisions() == [(0, Decision(cut_at=3)), (1, Decision())]
    told.resolution.report(0, has(share(9, 3, settled=True), number=number))
    assert told.said.pop() == (0, Decision(), None)
    later = Told(disk=told.disk)
    later.resolution.report(0, has(share(9, 3, settled=True), number=number))
    later.resolution.report(1, has(share(9, 1, settled=True), number=number))
    assert later.decisions() == [(0, Decision()), (1, Decision())]


def test_a_later_start_decides_the_same() -> None:
    """Everything ends before shard 0 has loaded; shard 1 has been used for two minutes meanwhile."""
    told = Told()
    for shard, report in enumerate(HALF):
        told.resolution.report(shard, report)
    number = told.said[0][2]
    used = Reported(Shares((), 0, NOW + 2 * WINDOW_MS), number)
    assert decide({0: HALF[0].shares, 1: used.shares}, False)[0] == Decision(), "of itself it would be kept"
    later = Told(disk=told.disk)
    later.resolution.report(1, used)
    later.resolution.report(0, HALF[0])
    assert later.decisions() == SKIPPED


def test_who_cannot_come_up_is_waited_for_as_long_as_it_takes_to_be_sure() -> None:
    told = Told()
    told.resolution.report(1, HALF[1])
    for _ in range(100):  # refused a process, or ended; nobody counts
        told.resolution.gone(0)
    told.seconds = WAIT_SECONDS - 1
    told.resolution.look()
    assert told.said == []
    told.resolution.started(0)
    told.give_up()
    assert told.said == [], "it reads its log"
    told.resolution.report(0, HALF[0])
    assert told.decisions() == SKIPPED
    told = Told()
    told.resolution.report(1, HALF[1])
    told.give_up()
    assert told.decisions() == [(1, Decision())], "no process could be made for it"
    told = Told()
    told.resolution.report(1, HALF[1])
    told.resolution.started(0)
    told.give_up()
    told.resolution.gone(0)
    assert told.decisions() == [(1, Decision())], "it has tried for long enough"
    told = Told()
    told.resolution.report(1, HALF[1])
    told.resolution.gone(0, comes_back=False)
    assert told.decisions() == [(1, Decision())]


def test_whose_files_are_damaged_is_not_waited_for() -> None:
    told = Told()
    told.resolution.report(1, HALF[1])
    for is_damaged in (True, False, True):
        told.resolution.started(0)
        told.resolution.gone(0, is_damaged=is_damaged)
    assert told.said == [], "not twice in a row"
    told.resolution.started(0)
    told.resolution.gone(0, is_damaged=True)
    assert told.decisions() == [(1, Decision())]
    told = Told()
    for _ in range(2):
        told.resolution.started(0)
        told.resolution.gone(0, is_damaged=True)
    told.resolution.report(1, HALF[1])
    assert told.said == [], "it looks again"
    told.resolution.started(0)
    told.resolution.report(0, HALF[0])
    assert told.decisions() == SKIPPED


def test_what_fails_for_all_makes_nobody_decide_alone() -> None:
    """A disk that refuses everybody for an hour; what the first has reported before it failed again counts."""
    told = Told()
    for _ in range(10):
        for shard in range(2):
            told.resolution.started(shard)
            told.resolution.gone(shard)
        told.give_up()
    told.resolution.started(0)
    told.resolution.report(0, HALF[0])
    told.seconds += WAIT_SECONDS - 1
    told.resolution.gone(0)
    told.seconds += 3600
    told.resolution.look()
    assert told.said == [], "nobody waits"
    told.resolution.started(1)
    told.resolution.report(1, HALF[1])
    told.resolution.report(0, HALF[0])
    assert told.decisions() == SKIPPED


def test_nobody_is_told_before_the_disk_has_it() -> None:
    """One ends meanwhile and is back, one ends and stays away, a late one comes, and the disk still hangs."""
    told = Told(3)
    told.hangs = True
    half = Reported(Shares((Share(7, (0, 1), 3, NOW, False),), 0, NOW))
    told.resolution.report(0, half)
    told.resolution.report(1, has())
    told.give_up()
    told.resolution.gone(0)
    told.resolution.report(0, half)
    told.resolution.gone(1)
    late = Reported(Shares((Share(9, (1, 2), 5, NOW, False),), 0, NOW))
    told.resolution.started(2)
    told.resolution.report(2, late)
    assert told.said == [] and told.disk is None
    told.go_on()
    assert told.disk is not None
    number = told.disk.number
    assert told.said == [(0, Decision(skip=[7]), number)], "the late one's part is not kept yet"
    told.resolution.gone(2)
    told.resolution.report(1, has())
    assert told.said[1:] == [(1, Decision(), number)]
    told.resolution.report(2, late)
    told.resolution.recorded(0, number)
    told.resolution.recorded(1, number)
    assert len(told.said) == 2 and 2 in told.disk.witnesses
    told.go_on()
    assert told.said[2:] == [(2, Decision(skip=[9]), number)] and told.disk.orders[2].decision.skip == [9]
    told.resolution.recorded(2, number)
    told.resolution.gone(2)
    told.resolution.report(2, has(number=number))
    assert told.said[3:] == [(2, Decision(), None)] and told.disk is not None
    told.go_on()
    assert told.disk is None and not told.written


def test_two_late_ones_are_kept_one_behind_the_other() -> None:
    told = Told(3)
    told.resolution.report(0, has())
    told.give_up()
    number = told.said[0][2]
    told.hangs = True
    for shard in (1, 2):
        told.resolution.report(shard, Reported(Shares((Share(9, (1, 2), 5, NOW, False),), 0, NOW)))
    assert len(told.said) == 1
    told.go_on()
    told.go_on()
    assert told.said[1:] == [(1, Decision(), number), (2, Decision(), number)] and not told.written
    assert told.disk is not None and set(told.disk.orders) == {0, 1, 2} and not told.disk.witnesses


def test_an_end_of_the_cluster_leaves_nobody_out() -> None:
    told = Told()
    told.resolution.report(1, HALF[1])
    told.resolution.stop()
    told.resolution.gone(0)
    told.give_up()
    assert told.said == [] and told.disk is None


@pytest.mark.parametrize("anew", [False, True], ids=["same life", "next life"])
def test_a_late_one_is_decided_for_by_what_the_others_had(anew: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Shard 0 comes an hour later: 7 was lost by shard 1, 8 kept by it, 9 is there alone and settled, which is not cut."""
    caplog.set_level(logging.WARNING, "kache")
    told = Told()
    kept, lost = share(8, 5, settled=True), share(6, 4, settled=True)
    told.resolution.report(1, has(kept, lost))
    told.resolution.gone(0)
    told.give_up()
    number = told.said[0][2]
    assert told.decisions() == [(1, Decision())]
    mine = has(share(7, 3, settled=False), share(8, 4, settled=False), share(9, 5, settled=True))
    expected = Decision(skip=[7], half=[9])
    if not anew:
        told.resolution.report(0, mine)
        assert told.said.pop() == (0, expected, number)
        assert "lost its part of 1 transactions" in caplog.text and ": 6" in caplog.text
        told.resolution.report(0, mine)
        assert told.said.pop() == (0, expected, number)
        return
    later = Told(disk=told.disk)
    later.resolution.report(1, Reported(Shares((), 0, NOW + 60 * WINDOW_MS), number))
    later.resolution.report(0, mine)
    assert later.decisions() == [(0, expected), (1, Decision())]


def test_without_data_nothing_is_decided() -> None:
    told = Told()
    nothing = Resolution(2, False, lambda *what: told.said.append(what), told._keep)
    nothing.gone(1)
    nothing.report(1, HALF[0])
    assert told.said == [(1, Decision(), None)]


def test_a_full_disk_leaves_it_to_memory() -> None:
    """An older decision is on disk, and keeps its number: what it says is not to be applied to what is written now."""
    before = Unfinished(5, {0: Order(5, Decision(skip=[3])), 1: Order(5, Decision())})
    told = Told(disk=before)
    told.full = True
    told.resolution.report(0, has(share(3, 2, settled=False), number=4))
    told.resolution.report(1, has(share(7, 3, settled=False), number=5))
    assert told.said == [(0, Decision(skip=[3]), 5), (1, Decision(skip=[7]), 5)]
    told.said.clear()
    told.resolution.report(1, has(share(7, 3, settled=False), number=5))
    assert told.said.pop() == (1, Decision(skip=[7]), 5)
    told.full = False
    told.resolution.recorded(0, 5)
    told.resolution.recorded(1, 5)
    assert told.disk is None


def test_an_order_holds_for_the_files_that_it_was_given_for() -> None:
    """An older Kache, which knows of no orders, has run between the decision and the start that would have taken it in."""
    told = Told()
    told.resolution.report(0, Reported(Shares((share(7, 3, settled=True),), 0, NOW), 0, 4))
    told.resolution.report(1, Reported(Shares((), 0, NOW), 0, 4))
    assert told.decisions() == [(0, Decision(cut_at=3)), (1, Decision())]
    same = Told(disk=told.disk)
    same.resolution.report(0, Reported(Shares((share(7, 3, settled=True),), 0, NOW), 0, 4))
    same.resolution.report(1, Reported(Shares((), 0, NOW), 0, 5))
    assert same.decisions() == [(0, Decision(cut_at=3)), (1, Decision())]
    later = Told(disk=told.disk)
    shares = (share(8, 3, settled=True, ago_ms=-500), share(9, 4, settled=True, ago_ms=-900))
    later.resolution.report(0, Reported(Shares(shares, 0, NOW + 1000), 0, 5))
    later.resolution.report(1, Reported(Shares(shares, 0, NOW + 1000), 0, 5))
    assert later.decisions() == [(0, Decision()), (1, Decision())]


# The model ------------------------------------------------------------------------------------------------------
@dataclass
class Frame:
    """One of a log: a share, or the end of a transaction."""

    transaction: int
    sequence: int
    now_ms: int
    participants: tuple[int, ...] | None
    """None: the end."""


@dataclass
class Disk:
    """What one shard has: all of it, and how much of its log outlives a power cut."""

    log: list[Frame] = field(default_factory=list)
    synced: int = 0
    skipped: frozenset[int] = frozenset()
    resolved: int = 0
    decided: int = 0
    based: frozenset[int] = frozenset()
    """Transactions in the base."""
    before: frozenset[int] = frozenset()
    base_ms: int = 0
    log_boot: int = 0
    sequence: int = 0
    newest: int = 1

    def report(self, boot: int) -> Reported:
        """As `shares_of` does."""
        last = self.log[-1].now_ms if self.log else 0
        settled = {frame.transaction for frame in self.log if frame.participants is None}
        shares, decided = [], set()
        for frame in self.log:
            if frame.participants is None or frame.now_ms < last - WINDOW_MS:
                continue
            if frame.sequence <= self.decided:
                decided.add(frame.transaction)
            elif frame.transaction not in self.skipped:
                is_settled = frame.transaction in settled
                shares.append(Share(frame.transaction, frame.participants, frame.sequence, frame.now_ms, is_settled))
        before = (self.before | decided) - self.skipped
        survived = self.log_boot == boot
        return Reported(
            Shares(tuple(shares), self.base_ms, last, before, frozenset(), survived, self.skipped),
            self.resolved,
            self.newest,
        )

    def put(self, transaction: int, now_ms: int, participants: tuple[int, ...] | None) -> None:
        self.sequence += 1
        self.log.append(Frame(transaction, self.sequence, now_ms, participants))

    def load(self, report: Shares, decision: Decision, number: int | None, now_ms: int, boot: int) -> frozenset[int]:
        """Loads, and writes the manifest and the ends of what was open; those."""
        if decision.cut_at:
            self.log = [frame for frame in self.log if frame.sequence < decision.cut_at]
            self.sequence = min(self.sequence, decision.cut_at - 1)
        self.skipped |= frozenset(decision.skip)
        if number is not None:
            self.resolved, self.decided = number, self.sequence
        left = frozenset(
            each.transaction
            for each in report.shares
            if not each.settled and each.transaction not in self.skipped and each.sequence <= self.sequence
        )
        self.synced = len(self.log)
        self.log_boot = boot
        self.newest += 1
        for transaction in sorted(left):
            self.put(transaction, now_ms, None)
        return left

    def has(self) -> frozenset[int]:
        """The transactions that count here."""
        return (self.based | {frame.transaction for frame in self.log if frame.participants is not None}) - self.skipped

    def dump(self, since_ms: int, over: frozenset[int]) -> None:
        """A base, which hides the log."""
        self.based = self.has()
        self.before = over | {frame.transaction for frame in self.log if frame.now_ms >= since_ms}
        self.base_ms = since_ms
        self.log, self.synced, self.skipped = [], 0, frozenset()
        self.newest += 1


class Model:
    """A cluster, whose supervisor and shards end at random."""

    def __init__(self, chance: random.Random, shards: int) -> None:
        self.chance = chance
        self.shards = shards
        self.disks = [Disk() for _ in range(shards)]
        self.now_ms = NOW
        self.boot = 1
        self.kept: Unfinished | None = None
        self.participants: dict[int, tuple[int, ...]] = {}
        self.loud: set[int] = set()
        self.number = 0
        self.failing: set[int] = set()
        self.is_used = True
        """Whether transactions begin behind the first life."""
        self.patient = False
        """Whether nobody is given up before it has reported: all of it takes no time."""
        self.seconds = 0.0
        self.written: list[Callable[[bool], None]] = []
        """What is on its way to the disk."""
        self.first: list[frozenset[int]] = []
        """What each shard has by the first decision, had nothing ended behind it."""

    # A life of everybody, in which transactions begin
    def live(self, up: list[int], transactions: int, *, is_end: bool = True) -> None:
        """`is_end`: not all of them come to an end."""
        for _ in range(transactions):
            self.number += 1
            taking = tuple(sorted(self.chance.sample(up, self.chance.randint(2, len(up)))))
            self.participants[self.number] = taking
            self.now_ms += self.chance.randint(0, 400)
            whole = not is_end or self.chance.random() < 0.5
            steps = self.chance.random() < 0.3
            for shard in taking:
                if whole or self.chance.random() < 0.6:
                    if steps:
                        self.disks[shard].put(self.number, self.now_ms, ())
                    if not steps or whole:
                        self.disks[shard].put(self.number, self.now_ms, taking)
                        # Locks end when everybody has done its part, but for a router that dies.
                        if whole and (not is_end or self.chance.random() < 0.7):
                            self.disks[shard].put(self.number, self.now_ms, None)

    def cut_power(self) -> None:
        self.boot += 1
        for disk in self.disks:
            keep = self.chance.randint(disk.synced, len(disk.log))
            disk.log = disk.log[:keep]
            disk.sequence = max([frame.sequence for frame in disk.log], default=disk.sequence)

    def keep(self, unfinished: Unfinished | None, then: Callable[[OSError | None], None]) -> None:
        assert not self.written
        data = msgspec.json.encode(unfinished)

        def write(is_told: bool) -> None:
            self.kept = msgspec.json.decode(data, type=Unfinished | None)
            if is_told:
                then(None)

        self.written.append(write)

    def end(self) -> None:
        """Of the supervisor; what it is writing may have come to the disk."""
        for write in self.written:
            if self.chance.random() < 0.5:
                write(False)
        self.written.clear()

    # A start, as far as it comes
    def start(self, steps: int | None) -> None:
        """`steps` things happen until the supervisor ends; None: until all are up."""
        told: dict[int, tuple[Decision, int | None]] = {}
        reported: dict[int, Shares] = {}
        up: dict[int, tuple[int, frozenset[int]]] = {}

        alive: set[int] = set()
        known: dict[int, Shares] = {}

        def tell(shard: int, decision: Decision, number: int | None) -> None:
            self.loud |= set(decision.half)
            if self.patient and not self.first:
                self.first = self.by(decide(known, False))
            told[shard] = decision, number

        deciding = Resolution(self.shards, False, tell, self.keep, lambda: self.seconds)
        deciding.begin(self.kept)
        while steps is None or steps > 0:
            steps = None if steps is None else steps - 1
            if len(up) == self.shards and steps is None and not self.written:
                return
            if steps == 0 and len(up) > 1 and self.is_used:
                self.live(sorted(up), 3)
                break
            if self.written and self.chance.random() < 0.3:
                self.written.pop()(True)
                continue
            shard = self.chance.choice(
                [each for each in range(self.shards) if each not in up or steps is not None] or [0]
            )
            self.now_ms += self.chance.choice((1, 50, 500))
            self.seconds += 0 if self.patient else self.chance.choice((0.1, 1, 20))
            deciding.look()
            what = self.chance.random()
            disk = self.disks[shard]
            if shard not in alive:
                if what < 0.8:  # else it gets no process
                    alive.add(shard)
                    deciding.started(shard)
            elif (shard in self.failing and shard not in reported) or (what < 0.3 and steps is not None):
                for lists in (told, reported, up):
                    lists.pop(shard, None)
                alive.remove(shard)
                deciding.gone(shard)
            elif shard in up:
                since, over = up[shard]
                if what < 0.5:
                    for each in self.disks:
                        # A base waits until what it has cannot be lost elsewhere any more.
                        each.synced = len(each.log)
                    disk.dump(since, over)
                    up[shard] = since, disk.before
                elif what < 0.7:
                    disk.synced = len(disk.log)
                elif len(up) > 1 and self.is_used:
                    self.live(sorted(up), 1, is_end=False)
            elif shard not in reported:
                disk.synced = len(disk.log)
                report = disk.report(self.boot)
                reported[shard] = known[shard] = report.shares
                deciding.report(shard, report)
            elif shard in told:
                decision, number = told.pop(shard)
                left = disk.load(reported[shard], decision, number, self.now_ms, self.boot)
                if self.chance.random() < 0.3 and steps is not None:
                    reported.pop(shard)  # it ends before it could say so
                    alive.remove(shard)
                    deciding.gone(shard)
                    continue
                deciding.recorded(shard, disk.resolved)
                up[shard] = self.now_ms, left
        self.end()

    def older(self) -> bool:
        """A life of an older Kache, which knows of no orders, unless there are files that it refuses, or some shard was decided
        without: of the files of that nobody knows whether they went on. Whether it was."""
        if any(disk.resolved or disk.decided for disk in self.disks) or (self.kept and self.kept.witnesses):
            return False
        for disk in self.disks:
            disk.synced = len(disk.log)
        reports = {shard: disk.report(self.boot).shares for shard, disk in enumerate(self.disks)}
        for shard, decision in decide(reports, False).items():
            self.loud |= set(decision.half)
            self.disks[shard].load(reports[shard], decision, None, self.now_ms, self.boot)
        self.live(list(range(self.shards)), 12)
        return True

    def by(self, decisions: dict[int, Decision]) -> list[frozenset[int]]:
        """What the shards have when they have followed these."""
        return [
            frozenset(
                frame.transaction
                for frame in disk.log
                if frame.participants is not None
                and (not (cut := decisions[shard].cut_at) or frame.sequence < cut)
                and frame.transaction not in decisions[shard].skip
            )
            for shard, disk in enumerate(self.disks)
        ]

    def halves(self) -> list[int]:
        """Transactions that count on some of their shards, of which nobody was told."""
        found = [disk.has() for disk in self.disks]
        return [
            number
            for number, taking in self.participants.items()
            if number not in self.loud and 0 < sum(number in found[shard] for shard in taking) < len(taking)
        ]


def rounds(count: int) -> Iterator[random.Random]:
    for seed in range(count):
        yield random.Random(seed)


def test_whatever_ends_the_first_decision_stays() -> None:
    """No new transactions: at the end every shard has what the first decision would have left it, had nothing ended."""
    changed = 0
    for chance in rounds(1500):
        model = Model(chance, chance.randint(2, 4))
        model.live(list(range(model.shards)), 12)
        for disk in model.disks:
            disk.synced = chance.randint(0, len(disk.log))
        if chance.random() < 0.7:
            model.cut_power()
        model.patient = True
        whole = [disk.has() for disk in model.disks]
        model.is_used = False
        for _ in range(chance.randint(0, 4)):
            model.now_ms += chance.choice((0, 2000, 100_000, 7_200_000))
            model.start(chance.randint(1, 40))
            if chance.random() < 0.4:
                model.cut_power()
        model.now_ms += chance.choice((0, 2000, 100_000))
        model.start(None)
        assert [disk.has() for disk in model.disks] == model.first
        assert model.kept is None
        changed += model.first != whole
    assert changed > 300, "what was to be tried did not happen"


def test_nothing_is_half_but_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that cannot start for some lives of the others, transactions in all of them, power cuts."""
    loud = set[int]()
    late = went_back = 0

    def lost(report: Shares, owed: list[Share]) -> list[int]:
        found = lost_of(report, owed)
        loud.update(found)
        return found

    monkeypatch.setattr(resolution, "lost_of", lost)
    for chance in rounds(1500):
        model = Model(chance, chance.randint(2, 4))
        loud.clear()
        model.live(list(range(model.shards)), 12)
        for _ in range(chance.randint(1, 4)):
            for disk in model.disks:
                disk.synced = chance.randint(disk.synced, len(disk.log))
            if chance.random() < 0.5:
                model.cut_power()
            model.now_ms += chance.choice((0, 2000, 100_000, 7_200_000))
            model.failing = {each for each in range(model.shards) if chance.random() < 0.2}
            late += bool(model.failing)
            model.start(chance.randint(1, 60))
            if chance.random() < 0.3:
                went_back += model.older() and model.kept is not None
        model.failing = set()
        model.start(None)
        assert [number for number in model.halves() if number not in loud] == []
        assert model.kept is None
    assert late > 500 and went_back > 15
