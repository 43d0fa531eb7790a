"""A real Prometheus scrapes the metrics port: the dashboard of deploy/, its alerts, and redis_exporter's stock queries."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import DEADLINE, Cluster, until
from ports import free_port

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/kache.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
EMPTY = {"Last fsync", "Log"}
"""Panels of what this cluster does not have: a log."""

I = 'instance=~"$instance"'  # noqa: E741  # as Grafana writes them
STOCK = (
    f"max(max_over_time(redis_uptime_in_seconds{{{I}}}[$__interval]))",
    f"sum(redis_connected_clients{{{I}}})",
    f"sum(100 * (redis_memory_used_bytes{{{I}}} / redis_memory_max_bytes{{{I}}}))",
    f"rate(redis_commands_processed_total{{{I}}}[1m])",
    f"irate(redis_keyspace_hits_total{{{I}}}[5m])",
    f"irate(redis_keyspace_misses_total{{{I}}}[5m])",
    f"redis_memory_used_bytes{{{I}}}",
    f"redis_memory_max_bytes{{{I}}}",
    f"rate(redis_net_input_bytes_total{{{I}}}[5m])",
    f"rate(redis_net_output_bytes_total{{{I}}}[5m])",
    f"sum (redis_db_keys{{{I}}}) by (db)",
    f"sum (redis_db_keys{{{I}}}) - sum (redis_db_keys_expiring{{{I}}})",
    f"sum (redis_db_keys_expiring{{{I}}})",
    f"sum(rate(redis_expired_keys_total{{{I}}}[5m])) by (instance)",
    f"sum(rate(redis_evicted_keys_total{{{I}}}[5m])) by (instance)",
    f"topk(5, irate(redis_commands_total{{{I}}} [1m]))",
    f"sum(irate(redis_commands_duration_seconds_total{{{I}}}[1m])) by (cmd) / sum(irate(redis_commands_total{{{I}}}[1m])) by (cmd)",
    f"sum(redis_blocked_clients{{{I}}})",
    f"redis_slowlog_length{{{I}}}",
    f"redis_up{{{I}}}",
    f"time() - redis_start_time_seconds{{{I}}}",
)  # fmt: skip
"""What redis_exporter's own dashboards ask."""

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus here")


class Prometheus:
    """A real one that scrapes one target every second."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(DEPLOY / "alerts.yaml")],
            "scrape_configs": [{"job_name": "kache", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = subprocess.Popen(
            [
                "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=DEADLINE) as reply:
            return json.loads(reply.read())["data"]

    def query(self, text: str) -> list[float]:
        """The values that a query of a dashboard finds now."""
        text = text.replace("$instance", ".*").replace("$__rate_interval", "1m").replace("$__interval", "1m")
        return [float(each["value"][1]) for each in self.get("/api/v1/query", query=text)["result"]]

    def scraped(self) -> float:
        """How many scrapes there were."""
        try:
            found = self.query("count_over_time(redis_up[5m])")
        except OSError:
            return 0
        return found[0] if found else 0


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    target = free_port()
    with Cluster(2, routers=2, metrics_port=target, maxmemory="4mb") as cluster:
        found = Prometheus(tmp_path_factory.mktemp("prometheus"), target)
        try:
            # Counters that are seen to rise: between scrapes there is work, and memory is full at the end.
            for turn in range(4):
                with cluster.connect() as connection:
                    for number in range(400):
                        connection.request("set", f"key:{turn}:{number}", "x" * 4000, "ex", 1000)
                        connection.request("get", f"key:{turn}:{number * 2}")
                    connection.request("lpush", f"key:{turn}:399", "wrong")
                done = found.scraped()
                until(lambda done=done: found.scraped() > done + 1, "a scrape that began later")
            yield found
        finally:
            found.process.terminate()
            found.process.wait(30)


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[f"{title}-{n}" for n, (title, _) in enumerate(QUERIES)])
def test_the_dashboard_shows_something(prometheus: Prometheus, title: str, query: str) -> None:
    values = prometheus.query(query)
    if title in EMPTY:
        assert values in ([], [0.0])
        return
    assert values, query
    assert not any(math.isnan(value) or math.isinf(value) for value in values), query


@pytest.mark.parametrize("query", STOCK)
def test_stock_queries_are_answered(prometheus: Prometheus, query: str) -> None:
    values = prometheus.query(query)
    assert values, query
    assert not all(math.isnan(value) for value in values), query


def test_what_stock_queries_find(prometheus: Prometheus) -> None:
    (share,) = prometheus.query(STOCK[2])
    assert 60 < share <= 101  # of the one limit, not of it once per shard
    (rate,) = prometheus.query(f"sum({STOCK[3]})")
    assert rate > 1
    assert prometheus.query("redis_up") == [1.0]
    assert prometheus.query("sum(redis_evicted_keys_total)")[0] > 0
    assert prometheus.query('redis_errors_total{err="WRONGTYPE"}') == [4.0]


def test_the_alerts_are_understood(prometheus: Prometheus) -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(DEPLOY / "alerts.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (group,) = prometheus.get("/api/v1/rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    for rule in group["rules"]:
        for name in re.findall(r"\b(?:redis|kache)_\w+", rule["query"]):
            if "log" not in name and "certificate" not in name:
                assert prometheus.query(name), name


def test_the_pieces_of_compose_fit_together() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    environment = compose["kache"]["environment"]
    (scrape,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == [f"kache:{environment['KACHE_METRICS_PORT']}"]
    for service in ("prometheus", "grafana"):
        for mount in compose[service]["volumes"]:
            if mount.startswith("./"):
                assert (DEPLOY / mount.partition(":")[0]).is_file(), mount
    (source,) = yaml.safe_load((DEPLOY / "grafana/datasource.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in compose
    (provider,) = yaml.safe_load((DEPLOY / "grafana/dashboards.yaml").read_text())["providers"]
    board = next(m for m in compose["grafana"]["volumes"] if "kache.json" in m).split(":")[1]
    assert str(Path(board).parent) == provider["options"]["path"]


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= places
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
