"""Transactions over several shards after a crash of the whole cluster: what of them counts, decided before anybody loads.

Every shard tells which shares its log has of the last minute, and whether the transaction was settled there, which is noted
when its locks are released. Pure functions over that; the supervisor asks and tells (`kache.cluster.resolution`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

__all__ = ["LOSS_MS", "WINDOW_MS", "Decision", "Share", "Shares", "after", "decide", "lost_of"]

WINDOW_MS = 60_000
"""How far back from the end of its log a shard tells: transactions older than that were settled, or reported, long ago."""
LOSS_MS = 2000
"""How much of the end of a log a power cut may cost under everysec."""


class Share(msgspec.Struct, frozen=True):
    """The part that one shard had in a transaction, as its log has it. Without participants it is one of several steps: all of
    them count if the log has a share with participants, too."""

    transaction: int
    participants: tuple[int, ...]
    sequence: int
    now_ms: int
    settled: bool


class Shares(msgspec.Struct, frozen=True):
    """Those of one shard.

    `base_ms`: what was over by then is in its base. Behind that, `before` are those that the base has, too, and `missing`
    some that it has not. `last_ms`: when its log ends. `survived`: the machine runs since the log was begun, so that
    everything that was written to it is there. `skipped` were left out by an earlier start, for good.
    """

    shares: tuple[Share, ...] = ()
    base_ms: int = 0
    last_ms: int = 0
    before: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()
    survived: bool = False
    skipped: frozenset[int] = frozenset()


class Decision(msgspec.Struct):
    """What one shard leaves out: the shares of `skip`; everything from the sequence `cut_at` on, 0 for nothing. `half` are
    transactions that count here though another shard has lost them."""

    skip: list[int] = []
    cut_at: int = 0
    half: list[int] = []


def decide(reports: Mapping[int, Shares], always: bool, may_cut: bool = True) -> dict[int, Decision]:
    """What each shard does with its shares. Where not `may_cut`, no log is cut: what would follow from it is in force already.

    One that a shard lacks (and not because its base has it) is skipped where it is unsettled: its slots were locked, so
    nothing depends on it. Where it is settled, the log is cut before it if a power cut may have cost the shard its share,
    and everysec allows it; else it was answered UNCERTAIN in its time, and stays. A cut may drop other shares, so it is
    repeated until nothing changes. Steps whose transaction did not end are skipped as long as no shard has settled it. Where
    one has, they stay there as they were answered, uncertain, and so they stay everywhere: each builds on those before it, and
    what one shard has taken from another would be nowhere.
    """
    decisions = {shard: Decision() for shard in reports}
    while _look(reports, decisions, always or not may_cut):
        pass
    return decisions


def after(report: Shares, decision: Decision) -> Shares:
    """What a shard would tell once it has taken a decision in: nothing is open, it has what it has."""
    cut = decision.cut_at
    there = {share.transaction for share in report.shares if not cut or share.sequence < cut} - {*decision.skip}
    gone = {share.transaction for share in report.shares} - there
    return msgspec.structs.replace(
        report, shares=(), before=report.before | there, skipped=report.skipped | frozenset(gone)
    )


def lost_of(report: Shares, owed: Iterable[Share]) -> list[int]:
    """Of `owed`, in which a shard took part, those that it has lost."""
    has = {share.transaction for share in report.shares}
    return sorted({each.transaction for each in owed if each.transaction not in has and _would_tell(report, each)})


def _look(reports: Mapping[int, Shares], decisions: dict[int, Decision], keep: bool) -> bool:
    """One round; whether a log was cut further. `keep`: none is."""
    has: dict[int, set[int]] = {}
    for shard, report in reports.items():
        cut = decisions[shard].cut_at
        for share in report.shares:
            if share.participants and (not cut or share.sequence < cut):
                has.setdefault(share.transaction, set()).add(shard)
    over = _settled_steps(reports, decisions)
    for decision in decisions.values():
        decision.skip, decision.half = [], []
    for shard, report in reports.items():
        decision = decisions[shard]
        skip: set[int] = set()
        for share in report.shares:
            if decision.cut_at and share.sequence >= decision.cut_at:
                continue
            if not share.participants:
                if shard not in has.get(share.transaction, ()) and share.transaction not in over:
                    skip.add(share.transaction)
                continue
            lacking = _lacking(share, has, reports)
            if not lacking:
                continue
            if not share.settled and share.transaction not in over:
                skip.add(share.transaction)
            elif (
                share.settled
                and not keep
                and report.last_ms - share.now_ms <= LOSS_MS
                and not all(reports[other].survived for other in lacking)
            ):
                decision.cut_at = _first(report, share.transaction)
                return True
            else:
                decision.half.append(share.transaction)
        decision.skip = sorted(skip)
    return False


def _settled_steps(reports: Mapping[int, Shares], decisions: Mapping[int, Decision]) -> set[int]:
    """Transactions of several steps that a shard has settled, in what is left of its log or in its base."""
    steps: set[int] = set()
    settled: set[int] = set()
    for shard, report in reports.items():
        cut = decisions[shard].cut_at
        settled |= report.before
        for share in report.shares:
            if not cut or share.sequence < cut:
                if not share.participants:
                    steps.add(share.transaction)
                if share.settled:
                    settled.add(share.transaction)
    return steps & settled


def _first(report: Shares, transaction: int) -> int:
    """Where a transaction begins in a log."""
    return min(share.sequence for share in report.shares if share.transaction == transaction)


def _lacking(share: Share, has: Mapping[int, set[int]], reports: Mapping[int, Shares]) -> list[int]:
    """The shards that took part and have lost it: those that would have told of it."""
    return [
        other
        for other in share.participants
        if other in reports and other not in has[share.transaction] and _would_tell(reports[other], share)
    ]


def _would_tell(report: Shares, share: Share) -> bool:
    """Whether this shard, which does not show the transaction, would if it had its share of it."""
    if share.transaction in report.skipped:
        return True
    if share.now_ms <= report.last_ms - WINDOW_MS or share.transaction in report.before:
        return False
    return share.transaction in report.missing or share.now_ms > report.base_ms
