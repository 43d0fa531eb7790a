"""The table of figures as Prometheus reads it: redis_exporter's names where it has one, our own beside them.

Every metric of a shard has the label ``shard``, of a router ``router``. Pure, but for the libraries' clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from kache import __version__
from kache.figures import BREAKDOWNS, FIGURES, command_histograms, command_totals, values
from kache.stats import Snapshot, bucket_value

__all__ = ["exposed", "families"]

LIMITS_NS = tuple(1 << power for power in range(10, 34))
"""Upper ends of the classes: powers of two from about a microsecond to 8 s, which divide no class of kache.stats."""


def exposed(snapshot: Snapshot | None, accept: str) -> tuple[bytes, str]:
    """(text, content type), as the header Accept wants it; without a snapshot it says that the cluster is not up."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(_down() if snapshot is None else families(snapshot))))
    encode, content_type = exposition.choose_encoder(accept)
    return encode(registry), content_type


class _Once(Collector):
    def __init__(self, found: Sequence[Metric]) -> None:
        self._found = found

    def collect(self) -> Sequence[Metric]:
        return self._found

    def describe(self) -> Sequence[Metric]:
        return []


def _down() -> Iterator[Metric]:
    yield GaugeMetricFamily("redis_up", "1 when every shard answers.", value=0)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Every metric of a moment."""
    info = GaugeMetricFamily("redis_instance_info", "What runs here.", labels=["redis_mode", "kache_version"])
    info.add_metric(["standalone", __version__], 1)
    yield info
    start = snapshot.at_ms / 1000 - min((r.started_ms for r in snapshot.routers), default=snapshot.at_ms) / 1000
    yield GaugeMetricFamily(
        "redis_start_time_seconds", "When the oldest router was started.", value=snapshot.at_ms / 1000 - start
    )
    for figure in FIGURES:
        if figure.metric:
            rows = [(labels, value * figure.scale) for labels, value in values(figure, snapshot)]
            yield from _family(figure.metric, figure.kind, figure.help, rows)
    for breakdown in BREAKDOWNS:
        yield from _family(breakdown.metric, breakdown.kind, breakdown.help, list(breakdown.rows(snapshot)))
    yield _durations(snapshot)
    yield _latencies(snapshot)


def _family(metric: str, kind: str, text: str, rows: list[tuple[dict[str, str], float]]) -> Iterator[Metric]:
    names = sorted({name for labels, _ in rows for name in labels})
    if not rows:
        return
    make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    family = make(metric, text, labels=names)
    for labels, value in rows:
        family.add_metric([labels.get(name, "") for name in names], value)
    yield family


def _classes(histogram: dict[int, int], unit_ns: float) -> list[tuple[str, float]]:
    """(upper end, how many took at most that long), the last one for any time."""
    counts = sorted((bucket_value(bucket), count) for bucket, count in histogram.items())
    found: list[tuple[str, float]] = []
    at = seen = 0
    for limit in LIMITS_NS:
        while at < len(counts) and counts[at][0] < limit:
            seen += counts[at][1]
            at += 1
        found.append((repr(limit / unit_ns), seen))
    return [*found, ("+Inf", sum(histogram.values()))]


def _durations(snapshot: Snapshot) -> Metric:
    family = HistogramMetricFamily(
        "kache_command_duration_seconds", "How long commands took to execute in a shard.", labels=["shard"]
    )
    for shard in snapshot.shards:
        taken = sum(one.usec for one in shard.command_stats) / 1e6
        family.add_metric([str(shard.index)], _classes(shard.latency_ns, 1e9), taken)
    return family


def _latencies(snapshot: Snapshot) -> Metric:
    family = HistogramMetricFamily(
        "redis_commands_latencies_usec", "How long each command took, over all shards.", labels=["cmd"]
    )
    totals = command_totals(snapshot)
    for name, histogram in sorted(command_histograms(snapshot).items()):
        family.add_metric([name], _classes(histogram, 1e3), totals[name][1])
    return family
