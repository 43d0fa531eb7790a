"""Who decides about transactions over shards when a cluster starts, and remembers it until every shard's files say the same.

    shard ── Reports (what its log has) ─► decide, once ─► kept on disk ─► Resolved ─► the shard loads, notes the
    number of the decision in its manifest ─► Recorded ─► … by all: forgotten, the file removed

Nobody loads before all have reported, but for those that cannot come up (below). What was decided is kept in the data
directory before anyone is told, since those who load first serve and change what they have, and told when the disk has it,
which may take its time: whoever reports, ends or comes back meanwhile is told what it is then to be told. A shard that dies
before its files say what was decided is told the same again when it is back, in this life of the cluster or in a later one,
however often anything ends in between. Which decision a shard's files have taken in they say themselves, by its number, and
an order holds for the files that it was given for: if a shard has begun others since without taking it in, as an older Kache
does that knows of no orders, all of the decision is void. So none is applied to what was written behind it.

Who has ended without a report, or could not be started, is waited for while it is started again, and who reads its log as
long as that takes. A shard that cannot come up does not keep the others from starting for ever: once one of them has waited for
`WAIT_SECONDS` and all that are missing are down, they decide without those. Failures are not counted, and the time runs for
nobody who is down itself: a disk or a system that refuses all of them for a while makes no shard decide alone. Only who has found
its files damaged, and again in a second look, is not waited for: what is written there stays so until somebody mends it. What they have
told and been told is remembered, so that it can be decided for a late one as they were: what they have left out it leaves out.
Its log is not cut, since the others go on by now.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from kache.cluster.transactions import Decision, Share, Shares, after, decide, lost_of

__all__ = ["Order", "Reported", "Resolution", "Unfinished", "resolve"]

_log = logging.getLogger("kache")

WAIT_SECONDS: Final = 30.0
"""How long a shard that could start waits for those that cannot: longer than the longest rest of one that is started again
(restart-backoff-ms), so that it had several tries, and what is short for now, descriptors, processes, the disk, is there again."""


LOOKS: Final = 2
"""So often in a row a shard finds its files damaged before that is believed: what a disk reads wrong may come right."""


class Reported(msgspec.Struct, frozen=True):
    """What a shard has said, the number of the last decision that its files have taken in, 0 for none, and that of its newest
    file: every life that writes anything begins one with a higher number."""

    shares: Shares
    number: int = 0
    newest: int = 0


class Order(msgspec.Struct, frozen=True):
    """What a shard was told, the number under which it takes that in, and its newest file when it had reported."""

    number: int
    decision: Decision
    newest: int = 0

    def counts(self, report: Reported) -> bool:
        """Whether the files of a shard are still those that it was about."""
        return report.newest <= self.newest


class Unfinished(msgspec.Struct):
    """A decision that not every shard's files are known to say. `orders`: what each was, or is to be, told; of shards that
    have not reported, what an earlier start has told them.

    Of each shard that has not reported, `witnesses` are the others as they were behind the decision, and `owed` the shares of
    transactions in which it took part, and which the others have kept.
    """

    number: int
    orders: dict[int, Order]
    witnesses: dict[int, dict[int, Shares]] = {}
    owed: dict[int, list[Share]] = {}


def resolve(
    reports: Mapping[int, Reported], shards: int, always: bool, earlier: Unfinished | None, number: int
) -> Unfinished:
    """What counts of all that is reported; `earlier`: what a start before this one has decided, and not everybody has taken
    in. It gets the number `number`, or 0 where nothing is to be remembered: nothing was open, and nobody is missing."""
    if earlier is not None and (shards_on := _gone_on(earlier, reports)):
        _log.warning(
            "what an earlier start has decided about transactions over shards does not count any more: shards %s have not taken "
            "it in, and have written since, as when an older Kache has run",
            " ".join(map(str, shards_on)),
        )
        earlier = None
    owing = {shard: _unmet(earlier, shard, reports, always) for shard in reports}
    told = {
        shard: report.shares if (owed := owing[shard]) is None else after(report.shares, owed)
        for shard, report in reports.items()
    }
    found = decide(told, always)
    merged = {shard: _both(owing[shard], decision) for shard, decision in found.items()}
    missing = set(range(shards)) - set(reports)
    is_open = any(not share.settled for report in reports.values() for share in report.shares.shares)
    if not missing and not is_open and all(decision == Decision() for decision in merged.values()):
        number = 0
    unfinished = Unfinished(
        number, {shard: Order(number, decision, reports[shard].newest) for shard, decision in merged.items()}
    )
    found_after = {shard: after(report, merged[shard]) for shard, report in told.items()}
    for shard in missing:
        # What an earlier start has told it holds; and if it has not been up since, how the others were then.
        then: Mapping[int, Shares] = {}
        if earlier is not None:
            if shard in earlier.orders:
                unfinished.orders[shard] = earlier.orders[shard]
            then = earlier.witnesses.get(shard, {})
            unfinished.owed[shard] = earlier.owed.get(shard, [])
        unfinished.witnesses[shard] = {**found_after, **then}
        for other, report in reports.items():
            _note_owed(unfinished, shard, report.shares, found_after[other])
    return unfinished


def _gone_on(earlier: Unfinished, reports: Mapping[int, Reported]) -> list[int]:
    """Shards that have written behind an order without taking it in: so nobody has gone by what was decided with it, and what
    witnesses had then is not what they have by now."""
    return [
        shard
        for shard, report in reports.items()
        if (order := earlier.orders.get(shard)) is not None
        and report.number not in (earlier.number, order.number)
        and not order.counts(report)
    ]


def _note_owed(unfinished: Unfinished, shard: int, report: Shares, kept: Shares) -> None:
    """What another shard has reported, and kept, and a missing one should have as well."""
    owed = unfinished.owed.get(shard, [])
    more = [each for each in report.shares if shard in each.participants and each.transaction in kept.before]
    unfinished.owed[shard] = list(dict.fromkeys([*owed, *more]))


def _unmet(unfinished: Unfinished | None, shard: int, reports: Mapping[int, Reported], always: bool) -> Decision | None:
    """What a shard, which reports this, has yet to take in of a decision; None: its files say that it has, or there is
    nothing for it. `reports` are those of all who come now."""
    report = reports[shard]
    if unfinished is None or (unfinished.number and report.number == unfinished.number):
        return None
    order = unfinished.orders.get(shard)
    if order is not None and (order.number == unfinished.number or order.number != report.number):
        return order.decision
    if shard not in unfinished.witnesses:
        return None
    late = {each: reports[each].shares for each in unfinished.witnesses if each in reports}
    return decide({**late, **unfinished.witnesses[shard], shard: report.shares}, always, may_cut=False)[shard]


def _both(first: Decision | None, second: Decision) -> Decision:
    if first is None:
        return second
    return Decision(
        sorted({*first.skip, *second.skip}),
        min(filter(None, (first.cut_at, second.cut_at)), default=0),
        sorted({*first.half, *second.half}),
    )


class Resolution:
    """The decision of one life of a cluster. `tell` sends a shard its part, with the number under which it takes that in;
    None: nothing was decided about what it has, since the others live.

    `keep` puts what is not finished on disk, None: nothing, and calls what it was given when that is done, with why it failed or
    None: then memory alone has it. It is not called again before that.
    """

    def __init__(
        self,
        shards: int,
        always: bool,
        tell: Callable[[int, Decision, int | None], None],
        keep: Callable[[Unfinished | None, Callable[[OSError | None], None]], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shards = shards
        self._always = always
        self._tell = tell
        self._keep = keep
        self._now = now
        self._down: set[int] = set()
        self._absent: set[int] = set()
        self._damaged: Counter[int] = Counter()
        self._waiting: dict[int, Reported] = {}
        self._since = 0.0
        self._gives_up = True
        self._reports: dict[int, Reported] = {}
        self._earlier: Unfinished | None = None
        self._unfinished: Unfinished | None = None
        self._recorded: set[int] = set()
        self._is_kept = True
        self._keeping = False
        self._decides = False

    def begin(self, earlier: Unfinished | None) -> None:
        """The shards will report. Without that there were no data when the cluster started, and nothing is to be decided."""
        self._earlier = earlier
        self._down = set(range(self._shards))
        self._decides = True

    def started(self, shard: int) -> None:
        """It has a process, and will report, or end."""
        self._down.discard(shard)
        self._absent.discard(shard)

    def report(self, shard: int, report: Reported) -> None:
        """A shard has said what its log has, and waits for what counts of it."""
        if not self._waiting:
            self._since = self._now()
            self._damaged.clear()  # it may have been mended since, as what was wrong with this one was
        self._waiting[shard] = report
        if self._decides:
            self._reports[shard] = report
            self.look()
        elif self._unfinished is not None or not self._keeping:
            self._answer(shard, report)

    def _answer(self, shard: int, report: Reported) -> None:
        """Tell one that waits what it is to be told, if that is known already."""
        unfinished = self._unfinished
        if unfinished is None or shard in self._recorded:
            # One that is started again while the others live: what they have is in force.
            self._tell_waiting(shard, Decision(), None)
            return
        decision = self._unmet(unfinished, shard, report)
        if decision is None:
            self._tell_waiting(shard, Decision(), None)
        elif shard not in unfinished.witnesses:
            self._tell_waiting(shard, decision, unfinished.number)
        elif not self._keeping:
            self._take_in_late(unfinished, shard, report, decision)

    def _tell_waiting(self, shard: int, decision: Decision, number: int | None) -> None:
        """Whoever has ended meanwhile reports again, and is told then."""
        if self._waiting.pop(shard, None) is not None:
            self._tell(shard, decision, number)

    def _unmet(self, unfinished: Unfinished, shard: int, report: Reported) -> Decision | None:
        if not self._is_kept and shard not in unfinished.witnesses:
            # The number is an older one. Whoever has said that it has taken the decision in is not asked here.
            order = unfinished.orders[shard]
            return order.decision if order.counts(report) else None
        return _unmet(unfinished, shard, {shard: report}, self._always)

    def gone(self, shard: int, comes_back: bool = True, is_damaged: bool = False) -> None:
        """A shard has ended; `is_damaged`: since its files cannot be read as they are. One that has not reported is waited for,
        unless it does not come back; what it has reported before counts, since its files stay as they are until it is told."""
        self._down.add(shard)
        self._damaged[shard] = self._damaged[shard] + 1 if is_damaged else 0
        self._waiting.pop(shard, None)
        if not comes_back:
            self._absent.add(shard)
        self.look()

    def look(self) -> None:
        """Decide if all have reported, or who has can wait no longer for those who are missing."""
        if not self._decides or not self._waiting:
            return
        looked_twice = {shard for shard in self._down if self._damaged[shard] >= LOOKS}
        missing = set(range(self._shards)) - set(self._reports) - self._absent - looked_twice
        if missing and not (self._gives_up and missing <= self._down and self._now() - self._since >= WAIT_SECONDS):
            return
        for shard in sorted(missing):
            _log.warning("shard %d has not come up for %g s: the others start without it", shard, WAIT_SECONDS)
        self._decide()

    def stop(self) -> None:
        """The cluster ends: who ends with it is not missing."""
        self._gives_up = False

    def recorded(self, shard: int, number: int) -> None:
        """The files of a shard say by now what it was told under this number."""
        unfinished = self._unfinished
        if unfinished is None or number != unfinished.number:
            return
        self._recorded.add(shard)
        if len(self._recorded) == self._shards and not self._keeping:
            self._put(None, self._forgotten)

    def _forgotten(self, is_kept: bool) -> None:
        if is_kept:
            self._unfinished = None

    def _decide(self) -> None:
        self._decides = False
        number = secrets.randbits(62) + 1
        unfinished = resolve(self._reports, self._shards, self._always, self._earlier, number)
        # Said before it is kept: what ends in between is said again, and nothing is never said.
        for shard, report in self._reports.items():
            if self._earlier is not None:
                _say_lost(self._earlier, shard, report.shares)
            _say(shard, unfinished.orders[shard].decision)
        if unfinished.number or self._earlier is not None:
            self._put(unfinished if unfinished.number else None, lambda is_kept: self._decided(unfinished, is_kept))
        else:
            self._decided(unfinished, True)

    def _decided(self, unfinished: Unfinished, is_kept: bool) -> None:
        self._is_kept = is_kept
        reported, earlier = self._reports, self._earlier
        self._reports, self._earlier = {}, None
        if not is_kept:
            # The file is that of before, if any: what it says must not be applied to what is written from here on.
            unfinished.number = 0 if earlier is None else earlier.number
            unfinished.orders = {
                shard: Order(unfinished.number, order.decision, order.newest) if shard in reported else order
                for shard, order in unfinished.orders.items()
            }
        if unfinished.number or not is_kept:
            self._unfinished = unfinished
        for shard in reported:
            self._tell_waiting(shard, unfinished.orders[shard].decision, unfinished.number)

    def _take_in_late(self, before: Unfinished, shard: int, report: Reported, decision: Decision) -> None:
        """One that the others have started without: from here on it is as if it had reported in time."""
        shares = report.shares
        unfinished = Unfinished(
            before.number,
            {**before.orders, shard: Order(before.number, decision, report.newest)},
            {other: dict(each) for other, each in before.witnesses.items() if other != shard},
            {other: each for other, each in before.owed.items() if other != shard},
        )
        kept = after(shares, decision)
        for other, witnesses in unfinished.witnesses.items():
            witnesses.setdefault(shard, kept)
            _note_owed(unfinished, other, shares, kept)

        _say_lost(before, shard, shares)
        _say(shard, decision)

        def then(_is_kept: bool) -> None:
            self._unfinished = unfinished
            self._tell_waiting(shard, decision, unfinished.number)

        if self._is_kept:
            self._put(unfinished, then)
        else:
            then(False)

    def _put(self, unfinished: Unfinished | None, then: Callable[[bool], None]) -> None:
        """Keep it; `then` gets whether the disk has it, or does not need to. Who has reported meanwhile is answered behind it."""

        def over(error: OSError | None) -> None:
            if error is not None:
                _log.warning("what was decided about transactions over shards cannot be kept: %s", error.strerror)
            self._keeping = False
            then(error is None)
            for shard, report in list(self._waiting.items()):
                if shard in self._waiting:
                    self._answer(shard, report)

        self._keeping = True
        self._keep(unfinished, over)


def _say_lost(unfinished: Unfinished, shard: int, shares: Shares) -> None:
    """A shard that was decided without reports by now: what it has lost that the others have kept."""
    lost = lost_of(shares, unfinished.owed.get(shard, []))
    if lost:
        _log.warning(
            "shard %d has lost its part of %d transactions, which the other shards have kept without it: %s",
            shard, len(lost), " ".join(map(str, lost[:20])),
        )  # fmt: skip


def _say(shard: int, decision: Decision) -> None:
    if decision.skip or decision.cut_at or decision.half:
        _log.warning(
            "shard %d: transactions over shards that were not finished everywhere: %d skipped, %d kept though "
            "another shard has lost them%s",
            shard,
            len(decision.skip),
            len(decision.half),
            f", everything from sequence {decision.cut_at} on left out" if decision.cut_at else "",
        )
