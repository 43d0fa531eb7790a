"""Which shares of transactions count after a crash, by reports made by hand."""

from __future__ import annotations

from typing import Any

from kache.cluster.transactions import Decision, Share, Shares, decide

NOW = 1_700_000_000_000
PAIR = (0, 1)


def share(transaction: int, sequence: int, *, settled: bool, ago_ms: int = 0) -> Share:
    return Share(transaction, PAIR, sequence, NOW - ago_ms, settled)


def step(transaction: int, sequence: int, *, settled: bool, ago_ms: int = 0) -> Share:
    return Share(transaction, (), sequence, NOW - ago_ms, settled)


def report(*shares: Share, base_ms: int = 0, **more: Any) -> Shares:
    return Shares(shares, base_ms, NOW, **more)


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


def test_steps_count_when_every_shard_was_told_of_the_last_one() -> None:
    """They are skipped as long as their locks hold."""
    steps = step(7, 3, settled=False), step(7, 5, settled=False)
    ended = share(7, 6, settled=False)
    assert decide({0: report(*steps, ended), 1: report(step(7, 1, settled=False), share(7, 2, settled=False))}, False) == {
        0: Decision(), 1: Decision(),
    }  # fmt: skip
    assert decide({0: report(*steps, ended), 1: report(step(7, 1, settled=False))}, False) == {
        0: Decision(skip=[7]), 1: Decision(skip=[7]),
    }  # fmt: skip
    assert decide({0: report(*steps), 1: report()}, False)[0] == Decision(skip=[7])


def test_steps_stay_everywhere_once_a_shard_has_let_go_of_its_locks() -> None:
    """LMOVE from 0 to 1: its element was put there by a step, and taken here by the next one. Its router dies, 0 sees that and
    lets go, and is killed with 1, which has not seen it. 0 was changed by others since: so the element is to stay on 1."""
    put, taken = step(7, 1, settled=False), step(7, 3, settled=True)
    assert decide({0: report(taken), 1: report(put)}, False) == {0: Decision(), 1: Decision()}
    assert decide({0: report(base_ms=NOW - 200, before=frozenset([7])), 1: report(put)}, False)[1] == Decision()
    # 0 was told of the last step, too, and 1 not any more; or it was 1 that was.
    ended = report(taken, share(7, 4, settled=True), survived=True)
    assert decide({0: ended, 1: report(put, survived=True)}, False) == {0: Decision(half=[7]), 1: Decision()}
    ended = report(put, share(7, 2, settled=False), survived=True)
    assert decide({0: report(taken, survived=True), 1: ended}, False) == {0: Decision(), 1: Decision(half=[7])}
    # Nobody has let go of anything.
    held = report(step(7, 3, settled=False), share(7, 4, settled=False))
    assert decide({0: held, 1: report(put)}, False) == {0: Decision(skip=[7]), 1: Decision(skip=[7])}


def test_a_cut_begins_with_the_first_step() -> None:
    reports = {0: report(step(7, 3, settled=True, ago_ms=900), share(7, 9, settled=True, ago_ms=800)), 1: report()}
    assert decide(reports, always=False)[0] == Decision(cut_at=3)


def test_what_a_base_hides_is_told_by_its_log() -> None:
    """By name where the time alone cannot decide: 1 took part in 7 before its base and in 8 not yet; of 9 it knows nothing,
    which began behind it."""
    shares = [share(number, 3 + number, settled=False, ago_ms=100) for number in (7, 8, 9)]
    told = report(base_ms=NOW - 200, before=frozenset([7]), missing=frozenset([8]))
    assert decide({0: report(*shares), 1: told}, always=False)[0] == Decision(skip=[8, 9])
    early = report(share(8, 3, settled=False, ago_ms=300), share(7, 4, settled=False, ago_ms=300))
    assert decide({0: early, 1: told}, always=False)[0] == Decision(skip=[8])


def test_a_machine_that_runs_on_has_lost_nothing_that_was_written() -> None:
    """Only processes were killed: what a shard lacks it has never done, which was answered as uncertain, and nothing is cut."""
    shares = report(share(7, 3, settled=True, ago_ms=900), survived=True)
    assert decide({0: shares, 1: report(survived=True)}, always=False)[0] == Decision(half=[7])
    assert decide({0: shares, 1: report()}, always=False)[0] == Decision(cut_at=3)
