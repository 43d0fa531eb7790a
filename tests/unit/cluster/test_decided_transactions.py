"""Which shares of transactions count after a crash, by reports made by hand."""

from __future__ import annotations

from kache.cluster.transactions import Decision, Share, Shares, decide

NOW = 1_700_000_000_000
PAIR = (0, 1)


def share(transaction: int, sequence: int, *, settled: bool, ago_ms: int = 0) -> Share:
    return Share(transaction, PAIR, sequence, NOW - ago_ms, settled)


def report(*shares: Share, base_ms: int = 0) -> Shares:
    return Shares(shares, base_ms, NOW)


def test_what_every_participant_has_is_kept() -> None:
    reports = {0: report(share(7, 3, settled=False)), 1: report(share(7, 9, settled=True))}
    assert decide(reports, always=False) == {0: Decision(), 1: Decision()}


def test_a_lacking_shard_whose_base_is_younger_has_it() -> None:
    reports = {0: report(share(7, 3, settled=False)), 1: report(base_ms=NOW + 1)}
    assert decide(reports, always=False)[0] == Decision()


def test_lacking_and_unsettled_is_skipped() -> None:
    for always in (True, False):
        reports = {0: report(share(7, 3, settled=False)), 1: report()}
        assert decide(reports, always=always) == {0: Decision(skip=[7]), 1: Decision()}


def test_lacking_settled_and_young_cuts_the_log() -> None:
    reports = {0: report(share(7, 3, settled=True, ago_ms=2000)), 1: report()}
    assert decide(reports, always=False)[0] == Decision(cut_at=3)


def test_lacking_settled_and_old_or_under_always_is_kept_and_told() -> None:
    old = {0: report(share(7, 3, settled=True, ago_ms=2001)), 1: report()}
    assert decide(old, always=False)[0] == Decision(half=[7])
    young = {0: report(share(7, 3, settled=True)), 1: report()}
    assert decide(young, always=True)[0] == Decision(half=[7])


def test_a_cut_drops_other_shares_until_nothing_changes() -> None:
    """1 has lost 7; so 0 ends before 7, and loses 8 with it; so 1 ends before 8, and loses 9; which 0 skips... has no more."""
    reports = {
        0: report(share(7, 3, settled=True, ago_ms=900), share(8, 4, settled=True, ago_ms=800)),
        1: report(share(8, 20, settled=True, ago_ms=800), share(9, 21, settled=False, ago_ms=700)),
    }
    assert decide(reports, always=False) == {0: Decision(cut_at=3), 1: Decision(cut_at=20)}


def test_a_shard_that_does_not_report_lacks_nothing() -> None:
    assert decide({0: report(share(7, 3, settled=False))}, always=False)[0] == Decision()


def test_a_shard_that_tells_of_later_times_only_has_lost_nothing() -> None:
    """One log ends with the share, idle since; the other one went on for longer than a report reaches back."""
    idle, busy = Shares((share(7, 3, settled=True, ago_ms=61_000),), 0, NOW - 61_000), report()
    assert decide({0: idle, 1: busy}, always=False)[0] == Decision()
    lately = Shares((share(7, 3, settled=True, ago_ms=59_000),), 0, NOW - 59_000)
    assert decide({0: lately, 1: busy}, always=False)[0] == Decision(cut_at=3)
