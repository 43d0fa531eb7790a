"""What a terminal shows while a cluster loads: one bar for all of its shards, which goes when the last one is there."""

from __future__ import annotations

import pytest

from kache.cluster import progress
from kache.cluster.messages import Loading


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    return []


def test_shards_that_load_share_a_bar(drawn: list[str]) -> None:
    bar = progress.LoadingBar(True, drawn.append)
    bar.told(0, Loading(50 << 20, 100 << 20, 500_000, 2.0))
    bar.told(1, Loading(25 << 20, 100 << 20, 250_000, 2.0))
    assert (
        drawn[0]
        == progress.ERASE
        + "loading [###############               ] 50 % of 100mb, 500,000 keys, 250,000 a second, 2 s left"
    )
    assert drawn[1].startswith(
        progress.ERASE + "loading 2 shards [###########                   ] 38 % of 200mb, 750,000 keys"
    )
    bar.over(0)
    bar.over(7)
    assert drawn[2].startswith(progress.ERASE + "loading [########                      ] 25 % of 100mb")
    bar.over(1)
    assert drawn[3:] == [progress.ERASE]


def test_a_log_that_is_elsewhere_has_no_bar(drawn: list[str]) -> None:
    bar = progress.LoadingBar(False, drawn.append)
    bar.told(0, Loading(50, 100, 5, 2.0))
    bar.over(0)
    assert drawn == []


def test_a_bar_says_how_much_a_second_and_how_long_yet(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(progress, "_write", drawn.append)
    bar = progress.Bar("dividing 2 shards over 3")
    now = 104.0
    bar.show(10 << 20, 40 << 20)
    bar.end()
    assert drawn == [
        progress.ERASE + "dividing 2 shards over 3 [########                      ] 25 % of 40mb, 2.5mb a second, 12 s left",
        progress.ERASE,
    ]  # fmt: skip
