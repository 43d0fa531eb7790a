"""The figures as Prometheus reads them, by its own parsers."""

from __future__ import annotations

from moments import snapshot
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from kache import figures
from kache.metrics.exposition import exposed

EXPORTERS = (
    "redis_uptime_in_seconds", "redis_connected_clients", "redis_blocked_clients", "redis_memory_used_bytes",
    "redis_memory_max_bytes", "redis_db_keys", "redis_db_keys_expiring", "redis_commands_total",
    "redis_commands_duration_seconds_total", "redis_keyspace_hits_total", "redis_keyspace_misses_total",
    "redis_expired_keys_total", "redis_evicted_keys_total", "redis_net_input_bytes_total", "redis_net_output_bytes_total",
    "redis_commands_processed_total", "redis_up", "redis_errors_total", "redis_slowlog_length",
)  # fmt: skip
"""What the dashboards of redis_exporter look for."""


def samples(accept: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, _ = exposed(snapshot(), accept)
    families = openmetrics.text_string_to_metric_families if "openmetrics" in accept else parse
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families(text.decode()) for s in f.samples}


def test_both_formats_say_the_same() -> None:
    plain = samples()
    assert plain == samples("application/openmetrics-text; version=1.0.0")
    assert len(plain) > 200


def test_every_figure_is_exposed_as_it_is() -> None:
    found = samples()
    for figure in figures.FIGURES:
        for labels, value in figures.values(figure, snapshot()) if figure.metric else ():
            assert found[figure.metric, tuple(sorted(labels.items()))] == value * figure.scale, figure.name


def test_the_exporters_names_are_there() -> None:
    names = {name for name, _ in samples()}
    assert not set(EXPORTERS) - names


def test_histograms_are_cumulative_and_whole() -> None:
    found = samples()
    for name, label in (
        ("kache_command_duration_seconds", ("shard", "0")),
        ("redis_commands_latencies_usec", ("cmd", "get")),
    ):
        buckets = {
            float(dict(labels)["le"]): value for (each, labels), value in found.items()
            if each == f"{name}_bucket" and label in labels
        }  # fmt: skip
        counts = [buckets[limit] for limit in sorted(buckets)]
        assert counts == sorted(counts)
        assert counts[-1] == found[f"{name}_count", (label,)] == {"shard": 1000, "cmd": 1100}[label[0]]
        assert found[f"{name}_sum", (label,)] > 0
    # 10 of 1,000 took bucket 200's time of about 50 microseconds.
    quick = {
        dict(labels)["le"]: v
        for (each, labels), v in found.items()
        if each.endswith("seconds_bucket") and ("shard", "0") in labels
    }
    assert quick["1.024e-06"] == 990
    assert quick["6.5536e-05"] == 1000


def test_a_cluster_that_does_not_answer_is_not_up() -> None:
    text, _ = exposed(None, "")
    assert text.decode().splitlines()[-1] == "redis_up 0.0"
