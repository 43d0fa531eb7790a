"""Transactions over several shards after a crash of the whole cluster: what of them counts, decided before anybody loads.

Every shard tells which shares its log has of the last minute, and whether the transaction was settled there, which is noted
when its locks are released. Pure functions over that; the supervisor asks and tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["WINDOW_MS", "Decision", "Share", "Shares", "decide"]

WINDOW_MS = 60_000
"""How far back from the end of its log a shard tells: transactions older than that were settled, or reported, long ago."""
LOSS_MS = 2000
"""How much of the end of a log a power cut may cost under everysec."""


class Share(msgspec.Struct, frozen=True):
    """The part that one shard had in a transaction, as its log has it."""

    transaction: int
    participants: tuple[int, ...]
    sequence: int
    now_ms: int
    settled: bool


class Shares(msgspec.Struct, frozen=True):
    """Those of one shard. `base_ms`: when its base was finished; `last_ms`: when its log ends."""

    shares: tuple[Share, ...] = ()
    base_ms: int = 0
    last_ms: int = 0


class Decision(msgspec.Struct):
    """What one shard leaves out: the shares of `skip`; everything from the sequence `cut_at` on, 0 for nothing. `half` are
    transactions that count here though another shard has lost them."""

    skip: list[int] = []
    cut_at: int = 0
    half: list[int] = []


def decide(reports: Mapping[int, Shares], always: bool) -> dict[int, Decision]:
    """What each shard does with its shares.

    One that a shard lacks (and not because its base is younger) is skipped where it is unsettled: its slots were locked,
    so nothing depends on it. Where it is settled, the log is cut before it if that costs no more than everysec may; else
    it was answered UNCERTAIN in its time, and stays. A cut may drop other shares, so it is repeated until nothing changes.
    """
    decisions = {shard: Decision() for shard in reports}
    while _look(reports, decisions, always):
        pass
    return decisions


def _look(reports: Mapping[int, Shares], decisions: dict[int, Decision], always: bool) -> bool:
    """One round; whether a log was cut further."""
    has: dict[int, set[int]] = {}
    for shard, report in reports.items():
        cut = decisions[shard].cut_at
        for share in report.shares:
            if not cut or share.sequence < cut:
                has.setdefault(share.transaction, set()).add(shard)
    for decision in decisions.values():
        decision.skip, decision.half = [], []
    for shard, report in reports.items():
        decision = decisions[shard]
        for share in report.shares:
            if shard not in has.get(share.transaction, ()) or not _is_lacking(share, has, reports):
                continue
            if not share.settled:
                decision.skip.append(share.transaction)
            elif not always and report.last_ms - share.now_ms <= LOSS_MS:
                decision.cut_at = share.sequence
                return True
            else:
                decision.half.append(share.transaction)
    return False


def _is_lacking(share: Share, has: Mapping[int, set[int]], reports: Mapping[int, Shares]) -> bool:
    """Whether a shard that took part has lost it: one that would have told of it."""
    return any(
        other in reports
        and other not in has[share.transaction]
        and max(reports[other].base_ms, reports[other].last_ms - WINDOW_MS) < share.now_ms
        for other in share.participants
    )
