"""The table of figures: every one once, its parts, its total, and what is counted by name."""

from __future__ import annotations

import re

import pytest
from moments import shard, snapshot

from kache import figures
from kache.stats import percentile


def test_every_figure_is_told_in_full() -> None:
    assert len({figure.name for figure in figures.FIGURES}) == len(figures.FIGURES)
    metrics = [figure.metric for figure in figures.FIGURES if figure.metric]
    metrics += [each.metric for each in figures.BREAKDOWNS]
    assert len(set(metrics)) == len(metrics)
    for figure in figures.FIGURES:
        assert figure.help.endswith("."), figure.name
        # As Prometheus wants it: counters and they alone end so, and the rest is in base units.
        if figure.metric:
            assert figure.metric.endswith("_total") == (figure.kind == "counter"), figure.name
        assert (figure.scale != 1) == (
            bool(figure.metric) and figure.unit in ("milliseconds", "microseconds", "percent")
        ), figure.name
    fields = [figure.info for figure in figures.FIGURES if figure.info]
    assert len(set(fields)) == len(fields)


def test_the_whole_is_made_of_the_parts() -> None:
    found = figures.whole(snapshot())
    rows = [figures.shard_row(each) for each in snapshot().shards]
    for name in ("keys", "expires", "used_memory", "ops_per_second", "commands", "hits", "evicted"):
        assert found[name] == sum(row[name] or 0 for row in rows), name
    assert found["keys"] == 33
    assert found["maxmemory"] == 100_000  # one limit for all
    assert found["memory_percent"] == pytest.approx(3.0)
    assert rows[1]["memory_percent"] == pytest.approx(4.0)
    assert found["hit_percent"] == 75
    assert found["longest_stall_us"] == 1800
    assert found["clients"] == 5
    assert found["client_ops_per_second"] == 250.25 * 5
    assert found["total_memory"] == 3000 + 30 + 2 * (100 + 7) + 4096 * 5
    assert found["error_replies"] == 3 + 5


def test_percentiles_of_the_total_are_those_of_all_commands() -> None:
    moment = snapshot()
    found = figures.whole(moment)
    merged = {20: 1000, 200: 1000}
    assert found["p99_us"] == percentile(merged, 99) / 1000
    # Neither the largest nor the mean of the shards: half of all commands were quick.
    assert found["p50_us"] == percentile(merged, 50) / 1000 < (figures.shard_row(moment.shards[1])["p50_us"] or 0)


def test_what_there_is_none_of_is_no_zero() -> None:
    free = snapshot(shards=[shard(0, maxmemory=0, allowed_memory=0)])
    found = figures.whole(free)
    assert found["memory_percent"] is None
    assert found["log_bytes"] is None
    kept = snapshot(shards=[shard(0, kept={"log_bytes": 5, "state": "ok"}), shard(1, kept={"log_bytes": 6})])
    assert figures.whole(kept)["log_bytes"] == 11


def test_a_cluster_without_shards_that_answer_has_figures() -> None:
    found = figures.whole(snapshot(shards=[], silent={0: "gone", 1: "gone"}))
    assert (found["up"], found["keys"], found["hits"], found["p99_us"]) == (0, None, 0, 0)


def test_commands_are_counted_over_both_protocols() -> None:
    totals = figures.command_totals(snapshot())
    assert totals == {"get": [1100, 2000, 2, 3], "ping": [10, 50, 0, 0]}
    histograms = figures.command_histograms(snapshot())
    assert histograms == {"get": {20: 1070, 200: 30}, "ping": {30: 10}}
    calls = next(each for each in figures.BREAKDOWNS if each.metric == "redis_commands_total")
    rows = list(calls.rows(snapshot()))
    assert ({"cmd": "get", "shard": "0"}, 400) in rows
    assert ({"cmd": "ping", "router": "1"}, 5) in rows


def test_documents_name_figures_that_are_there() -> None:
    """What is written of a rate says over which time."""
    for figure in figures.FIGURES:
        if "per second" in figure.unit:
            assert re.search(rf"over the last {figures.RATE_WINDOW} s\.$", figure.help), figure.name
