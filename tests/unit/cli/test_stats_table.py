"""The table of `kache stats`: which columns it has, and how wide it is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from moments import router, shard, snapshot

from kache import figures
from kache.cli.stats import table

FIGURES = {
    "used_memory": 1_234_567_890, "used_memory_peak": 2_000_000_000, "maxmemory": 8 << 30, "allowed_memory": 2 << 30,
    "ops_per_second": 234_567.8, "hits": 12_345_678_901, "misses": 1_234_567_890, "expired": 123_456_789,
    "evicted": 123_456_789, "uptime_ms": 40 * 86_400_000, "stall_us": 12_345,
}  # fmt: skip


def found(shards: int) -> dict[str, object]:
    """STATS ALL of a large cluster."""
    moment = snapshot(shards=[shard(index, **FIGURES) for index in range(shards)], routers=[router(0)])
    return {
        "shards": [{"shard": each.index, "state": "up", **figures.shard_row(each)} for each in moment.shards],
        "total": figures.whole(moment),
    }


@pytest.mark.parametrize("width", [80, 100, 150])
def test_it_fits_the_terminal(width: int) -> None:
    lines = table(found(16), True, width).splitlines()
    assert max(map(len, lines)) <= width
    assert {"keys", "memory", "ops/s"} <= set(lines[0].split())
    assert lines[17].startswith("total")
    assert "rates: last 3 s" in " ".join(lines[18:])


def test_a_pipe_has_all_columns() -> None:
    wide = table(found(2), True, None).splitlines()
    assert wide[0].split()[-2:] == ["uptime", "pid"]
    assert len(wide[0]) > 150


def test_a_wider_terminal_shows_no_less() -> None:
    heads = [set(table(found(4), True, width).splitlines()[0].split()) for width in range(40, 200)]
    assert all(narrow <= wide for narrow, wide in itertools.pairwise(heads))


def test_who_does_not_answer_is_named() -> None:
    rows = found(1)
    shards: Any = rows["shards"]
    rows["shards"] = [*shards, {"shard": 1, "state": "down", "reason": "killed by SIGKILL"}]
    lines = table(rows, True, 80).splitlines()
    assert lines[2].split()[0] == "1" and "None" not in lines[2]
    assert "shard 1 does not answer: killed by SIGKILL" in lines


def test_no_limit_has_no_share() -> None:
    moment = snapshot(shards=[shard(0, maxmemory=0, allowed_memory=0)])
    rows = {"shards": [{"shard": 0, **figures.shard_row(moment.shards[0])}], "total": figures.whole(moment)}
    assert "no maxmemory" in table(rows, True, 80)
