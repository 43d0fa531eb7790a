"""What `kache top` draws, at the sizes of terminals."""

from __future__ import annotations

import io
from typing import Any

import pytest
from moments import shard, snapshot
from rich.console import Console

from kache.cli.top import _split, react
from kache.cli.top_view import PANELS, SORTS, Frame, View, bar, draw, duration, sparkline
from kache.intervals import between


def frame(shards: int = 4, **others: Any) -> Frame:
    """A busy cluster with long names everywhere."""
    before = snapshot(shards=[shard(n) for n in range(shards)], states=["up"] * shards)
    after = snapshot(
        at_ms=1_001_000,
        states=["up"] * shards,
        shards=[
            shard(n, used_memory=(n + 1) * (50 << 20), maxmemory=4 << 30, allowed_memory=1 << 30, ops_per_second=1e6 / (n + 1),
                  cpu_user_s=1.5 * (n + 1) + 0.9 / (n + 1), latency_ns={20: 9000, 200: 1000 + n, 400 + n: 300})
            for n in range(shards)
        ],
    )  # fmt: skip
    fields: dict[str, Any] = {
        "address": "cache.example.org:7379", "now": after, "interval": between(before, after),
        "history": {n: [float(7 * value % 50) for value in range(60)] for n in range(shards)},
        "slow": [[n, 900, 54_321 * (n + 1), [b"zunionstore", b"d" * 200, "schlüssel".encode()], b"127.0.0.1:41234", b"web", n % 5 - 1] for n in range(30)],
        "hot": [{"key": b"user:\xff%d" % n, "db": 0, "shard": n % 4, "percent": 30 / (n + 1), "per_second": 1e6 / (n + 1)} for n in range(30)],
        "big": [{"key": b"board" * 30, "db": 0, "shard": 1, "type": "zset", "elements": 10**6, "bytes": 1 << 30} for _ in range(30)],
        "clients": [{"addr": "10.0.0.1:50123", "name": "worker" * 9, "age": "99999", "idle": "3", "tot-mem": "20000", "cmd": "get"}] * 30,
    }  # fmt: skip
    return Frame(**(fields | others))


def drawn(view: View, width: int, height: int, of: Frame | None = None) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), record=True, force_terminal=True)
    console.print(draw(of or frame(), view, width, height))
    return console.export_text().rstrip("\n").split("\n")


VIEWS = [
    *(View(panel=panel) for panel in range(len(PANELS))),
    View(shard=1),
    View(shard=3, paused=True, trouble="It is gone."),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 40), (160, 50), (220, 70)])
@pytest.mark.parametrize("shards", [1, 4, 32])
def test_it_is_exactly_as_large_as_the_terminal(width: int, height: int, shards: int, view: View) -> None:
    lines = drawn(view, width, height, frame(shards))
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith(" q  quit")
    assert lines[0].startswith("Kache cache.example.org:7379")


def test_what_a_small_terminal_shows() -> None:
    text = "\n".join(drawn(View(panel=2), 80, 24))
    assert "0.6%" not in text.split("hot keys")[0]
    assert "1,000,000" in text  # operations of shard 0
    assert '"user:\\xff0"' in text
    assert "30.00%" in text
    assert "router 0" in text


def test_a_small_terminal_shows_one_shard() -> None:
    lines = drawn(View(shard=1), 80, 24)
    line = next(line for line in lines if line.startswith("keys "))
    assert line.split()[1:4] == ["22", "Keys", "held,"]
    assert next(line for line in lines if line.startswith("used_memory")).split()[1] == "100mb"


def test_a_large_terminal_shows_all_tables() -> None:
    text = "\n".join(drawn(View(), 160, 50))
    assert all(f"─ {panel} " in text for panel in PANELS)
    assert "54.3ms" in text and "1gb" in text and "10.0.0.1:50123" in text


def test_shards_are_sorted() -> None:
    def first(view: View) -> list[str]:
        return [line.split()[0] for line in drawn(view, 80, 24)[5:9]]

    orders = {SORTS[sort]: first(View(sort=sort)) for sort in range(len(SORTS))}
    assert orders["shard"] == ["0", "1", "2", "3"]
    assert orders["ops/s"] == ["0", "1", "2", "3"]
    assert orders["memory"] == ["3", "2", "1", "0"]
    assert orders["load"] == ["0", "1", "2", "3"]
    assert orders["p99"][0] == "3"


def test_a_shard_that_is_down_is_seen() -> None:
    now = snapshot(shards=[shard(0)], states=["up", "down"], silent={1: "it was killed"})
    found = frame(2, now=now, interval=None)
    lines = drawn(View(), 80, 24, found)
    assert "1 down" in lines[0]
    assert "down" in lines[6]
    assert "it was killed" in "\n".join(drawn(View(shard=1), 80, 24, found))


def test_an_empty_cluster_says_so() -> None:
    empty = frame(1, interval=None, history={}, slow=[], hot=[], big=[], clients=[])
    text = "\n".join(drawn(View(), 160, 50, empty))
    for words in (
        "No commands.",
        "No slow commands (SLOWLOG).",
        "No key has been used lately.",
        "There are no keys.",
        "No clients.",
    ):
        assert words in text


def test_keys() -> None:
    view = View()
    for key in ("s", "\t", "p", "\x1b[B", "\x1b[B"):
        assert react(view, key, 3)
    assert (view.sort, view.panel, view.paused, view.shard) == (1, 1, True, 1)
    assert react(view, "\x1b[A", 3) and view.shard == 0
    assert react(view, "\x1b[A", 3) and view.shard == 2
    assert react(view, "\x1b", 3) and view.shard is None
    assert react(view, "?", 3)
    assert not react(view, "q", 3)
    assert _split("s\x1b[B\t\x1bq") == ["s", "\x1b[B", "\t", "\x1b", "q"]


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0us"),
        (0.5, "0.5us"),
        (12, "12us"),
        (999, "999us"),
        (1234, "1.2ms"),
        (99_940, "99.9ms"),
        (123_456, "123ms"),
        (2e6, "2.0s"),
    ],
)
def test_durations(microseconds: float, text: str) -> None:
    assert duration(microseconds) == text


def test_bars_and_sparks() -> None:
    assert bar(0.5, 8).plain == "████    "
    assert bar(1.7, 4).plain == "████"
    assert bar(None, 4).plain == "····"
    assert [len(bar(share / 100, 10).plain) for share in range(101)] == [10] * 101
    assert sparkline([0, 5, 10], 5).plain == "▁▄█"
    assert sparkline([], 5).plain == ""
