"""The tables of a report, and the bars that the project set itself."""

from __future__ import annotations

from statistics import median

from generators import Row
from measure import Sample

__all__ = [
    "BARS", "BYTES_PER_KEY_TEXT", "Grouped", "bars", "cpu", "grouped", "latency", "medians", "memory", "middle", "ready",
    "sweep", "throughput",
]  # fmt: skip

BARS = {
    # pipeline: (bar, goal) against twemproxy + 4 redis-servers, and against one valkey-server without proxy
    1: ((1.15, 1.5), (0.75, 1.0)),
    16: ((2.0, 3.0), (0.7, 1.2)),
    64: ((5.0, 8.0), (1.15, 2.0)),
}
BYTES_PER_KEY_TEXT = "Kache's bar: 130 bytes; goal: 90."

Grouped = dict[Row, dict[str, list[Sample]]]


def medians(samples: list[Sample]) -> dict[str, float]:
    """{contender: median of its requests per second}."""
    names = dict.fromkeys(sample.contender for sample in samples)
    return {name: middle([sample for sample in samples if sample.contender == name]) for name in names}


def grouped(samples: list[Sample]) -> Grouped:
    """By row, then by contender."""
    groups: Grouped = {}
    for sample in samples:
        groups.setdefault(sample.row, {}).setdefault(sample.contender, []).append(sample)
    return groups


def middle(samples: list[Sample], attribute: str = "requests_per_second") -> float:
    """The median of an attribute."""
    return median(float(getattr(sample, attribute)) for sample in samples)


def spread(samples: list[Sample]) -> float:
    """Half the range between slowest and fastest round, in percent of the median."""
    values = [sample.requests_per_second for sample in samples]
    return 50 * (max(values) - min(values)) / median(values)


def table(header: list[str], lines: list[list[str]]) -> str:
    """Markdown; empty without lines."""
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) if lines else ""


def bars(groups: Grouped, ours: str, what: str) -> list[str]:
    """Each bar, what was reached, and whether that is enough: the lower of the SET and GET ratios."""
    lines = []
    for pipeline, limits in BARS.items():
        for peer, (bar, goal) in zip(("twemproxy", "valkey"), limits, strict=True):
            reached = lower_ratio(groups, ours, peer, pipeline)
            if reached is not None:
                verdict = "goal" if reached >= goal else "met" if reached >= bar else "**missed**"
                lines.append([f"pipeline {pipeline}, × {peer}", f"{bar}", f"{goal}", f"{reached:.2f}", verdict])
        quiet = lower_ratio(groups, ours, "twemproxy-quiet", pipeline)
        if quiet is not None:
            lines.append([f"pipeline {pipeline}, × twemproxy-quiet", "", "", f"{quiet:.2f}", ""])
    found = table(["the lower of SET and GET", "bar", "goal", "reached", ""], lines)
    return [f"Kache {what}.", found] if found else []


def lower_ratio(groups: Grouped, ours: str, peer: str, pipeline: int) -> float | None:
    """The lower of two ratios of throughput, those of SET and GET; None unless both were measured."""
    ratios = [
        middle(by_name[ours]) / middle(by_name[peer])
        for row, by_name in groups.items()
        if row in (Row("SET", pipeline), Row("GET", pipeline)) and ours in by_name and peer in by_name
    ]
    return min(ratios) if len(ratios) == 2 else None


def cpu(groups: Grouped) -> str:
    """µs per request of every contender, and the ratio to twemproxy; less is better."""
    names = list(dict.fromkeys(name for by_name in groups.values() for name in by_name))
    lines = []
    for row, by_name in groups.items():
        used = {name: middle(samples, "cpu_us_per_request") for name, samples in by_name.items()}
        base = used.get("twemproxy")
        cells = [f"{used[name]:.2f}" + (f" ({used[name] / base:.2f} ×)" if base else "") if name in used else ""
                 for name in names]  # fmt: skip
        lines.append([row.title, *cells])
    return table(["µs per request (× twemproxy)", *names], lines)


def latency(groups: Grouped) -> str:
    """The rows with 1 and 4 connections."""
    figures = ("p50_ms", "p99_ms", "p999_ms")
    lines = [
        [row.title, name, *(f"{middle(samples, figure):.3f}" for figure in figures)]
        for row, by_name in groups.items()
        if row.connections in (1, 4)
        for name, samples in by_name.items()
    ]
    return table(["row", "contender", "p50 ms", "p99 ms", "p99.9 ms"], lines)


def throughput(groups: Grouped) -> str:
    """Everything about every row; memcached is marked for its other generator."""
    lines = []
    for row, by_name in groups.items():
        for name, samples in by_name.items():
            other = " (other generator)" if samples[0].generator == "load_memcached" else ""
            lines.append(
                [
                    row.title,
                    name + other,
                    f"{middle(samples) / 1000:.1f}",
                    f"± {spread(samples):.0f} %",
                    *(f"{middle(samples, figure):.3f}" for figure in ("p50_ms", "p99_ms", "p999_ms")),
                    f"{middle(samples, 'cpu_us_per_request'):.2f}",
                ]
            )
    return table(["row", "contender", "kreq/s", "spread", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs per request"], lines)


def sweep(samples: list[Sample], ready: dict[str, dict[int, float]], cores: int) -> str:
    """Kache and twemproxy side by side, by row and number of shards."""
    lines = []
    for row in dict.fromkeys(sample.row for sample in samples):
        for shards in sorted({sample.shards for sample in samples}):
            found = grouped([sample for sample in samples if sample.shards == shards and sample.row == row])
            by_name = found.get(row, {})
            pair = [by_name[name] for name in ("kache", "twemproxy") if name in by_name]
            if not pair:
                continue
            both = [
                " / ".join(f"{scale * middle(one, figure):.{digits}f}" for one in pair)
                for figure, scale, digits in (
                    ("requests_per_second", 1e-3, 1), ("cpu_us_per_request", 1, 2), ("p99_ms", 1, 3),
                )
            ]  # fmt: skip
            ratio = f"{middle(pair[0]) / middle(pair[1]):.2f}" if len(pair) == 2 else ""
            times = " / ".join(f"{1000 * ready[one[0].contender][shards]:.0f}" for one in pair)
            mark = " *" if shards > cores else ""
            lines.append([row.title, f"{shards}{mark}", both[0], ratio, both[1], both[2], times])
    return table(["row", "shards", "kreq/s", "ratio", "CPU µs per request", "p99 ms", "ready after ms"], lines)


def memory(figures: dict[str, dict[int, float]]) -> str:
    """Bytes per key by contender and number of keys."""
    sizes = sorted({size for found in figures.values() for size in found})
    lines = [
        [name, *(f"{found[size]:.0f}" if size in found else "" for size in sizes)] for name, found in figures.items()
    ]
    return table(["bytes per key", *(f"{size:,} keys" for size in sizes)], lines)


def ready(figures: dict[str, dict[int, float]]) -> str:
    """From launch to the first answer."""
    counts = sorted({shards for found in figures.values() for shards in found})
    lines = [
        [name, *(f"{1000 * found[shards]:.0f}" if shards in found else "" for shards in counts)]
        for name, found in figures.items()
    ]
    return table(
        ["ms from launch to the first answer", *(f"{shards} shard{'s' * (shards > 1)}" for shards in counts)], lines
    )
