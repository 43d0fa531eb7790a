"""The report of a run: Markdown tables, SVG plots, and the bars that the project set itself."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from measure import Row, Sample

__all__ = ["BARS", "medians", "write_report"]

BARS = {
    # pipeline: (bar, goal) against twemproxy + 4 redis-servers, and against one valkey-server without proxy
    1: ((1.15, 1.5), (0.75, 1.0)),
    16: ((2.0, 3.0), (0.7, 1.2)),
    64: ((5.0, 8.0), (1.15, 2.0)),
}
BYTES_PER_KEY = (130, 90)

Grouped = dict[Row, dict[str, list[Sample]]]


def medians(samples: list[Sample], attribute: str = "requests_per_second") -> dict[str, float]:
    """{contender: median of an attribute}."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        values.setdefault(sample.contender, []).append(float(getattr(sample, attribute)))
    return {name: median(found) for name, found in values.items()}


def grouped(samples: list[Sample]) -> Grouped:
    groups: Grouped = {}
    for sample in samples:
        groups.setdefault(sample.row, {}).setdefault(sample.contender, []).append(sample)
    return groups


def middle(samples: list[Sample], attribute: str = "requests_per_second") -> float:
    return median(float(getattr(sample, attribute)) for sample in samples)


def spread(samples: list[Sample]) -> float:
    """Half the range between slowest and fastest round, in percent of the median."""
    values = [sample.requests_per_second for sample in samples]
    return 50 * (max(values) - min(values)) / median(values)


def table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def bars_section(groups: Grouped) -> str:
    """Each bar, what was reached, and whether that is enough: the lower of the SET and GET ratios."""
    lines = []
    for pipeline, limits in BARS.items():
        for peer, (bar, goal) in zip(("twemproxy", "valkey"), limits, strict=True):
            ratios = [
                middle(by_name["kache"]) / middle(by_name[peer])
                for row, by_name in groups.items()
                if row in (Row("SET", pipeline), Row("GET", pipeline)) and "kache" in by_name and peer in by_name
            ]
            if len(ratios) == 2:
                reached = min(ratios)
                verdict = "goal" if reached >= goal else "met" if reached >= bar else "**missed**"
                lines.append([f"pipeline {pipeline}, × {peer}", f"{bar}", f"{goal}", f"{reached:.2f}", verdict])
    return table(["the lower of SET and GET", "bar", "goal", "reached", ""], lines) if lines else ""


def latency_section(groups: Grouped) -> str:
    lines = []
    for row, by_name in groups.items():
        if row.connections not in (1, 4):
            continue
        for name, samples in by_name.items():
            lines.append([row.title, name, *(f"{middle(samples, figure):.3f}" for figure in ("p50_ms", "p99_ms"))])
    return table(["row", "contender", "p50 ms", "p99 ms"], lines) if lines else ""


def throughput_section(groups: Grouped) -> str:
    lines = []
    for row, by_name in groups.items():
        for name, samples in by_name.items():
            lines.append(
                [
                    row.title,
                    name,
                    f"{middle(samples) / 1000:.1f}",
                    f"± {spread(samples):.0f} %",
                    f"{middle(samples, 'p50_ms'):.3f}",
                    f"{middle(samples, 'p99_ms'):.3f}",
                    f"{middle(samples, 'cpu_us_per_request'):.2f}",
                ]
            )
    return table(["row", "contender", "kreq/s", "spread", "p50 ms", "p99 ms", "CPU µs per request"], lines)


def memory_section(memory: dict[str, dict[str, float]]) -> str:
    sizes = sorted({size for figures in memory.values() for size in figures}, key=int)
    lines = [
        [name, *(f"{figures[size]:.0f}" if size in figures else "" for size in sizes)]
        for name, figures in memory.items()
    ]
    return table(["bytes per key (16 + 32)", *(f"{int(size):,} keys" for size in sizes)], lines) if lines else ""


def plot(out: Path, groups: Grouped) -> list[str]:
    """One bar chart per command and pipeline group, as SVG; returns their file names."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names: list[str] = []
    for command in ("SET", "GET"):
        rows = [row for row in groups if row.command == command and row.connections == 50 and row.value_bytes == 32]
        if not rows:
            continue
        contenders = list(groups[rows[0]])
        figure, axes = pyplot.subplots(figsize=(8, 4))
        width = 0.8 / len(contenders)
        for position, name in enumerate(contenders):
            heights = [middle(groups[row][name]) / 1000 if name in groups[row] else 0 for row in rows]
            places = [index + position * width for index in range(len(rows))]
            axes.bar(places, heights, width, label=name)
        axes.set_xticks(
            [index + 0.4 - width / 2 for index in range(len(rows))], [f"pipeline {row.pipeline}" for row in rows]
        )
        axes.set_ylabel("thousand requests per second")
        axes.set_title(f"{command}, 50 connections, 32-byte values")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        name = f"{command.lower()}.svg"
        figure.tight_layout()
        figure.savefig(out / name, metadata={"Date": None})
        pyplot.close(figure)
        names.append(name)
    return names


def write_report(out: Path, facts: dict[str, Any], samples: list[Sample]) -> None:
    """Writes README.md and the plots into `out`."""
    parts = ["# Kache and its peers", f"Made by `{facts['command']}`; raw data in raw.json beside this page."]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts["machine"].items()))
    parts.append("\n".join(f"- {name}: {line}" for name, line in facts["versions"].items()))
    if facts["left_out"]:
        parts.append("**Left out:** " + "; ".join(f"{name} ({reason})" for name, reason in facts["left_out"].items()))
    parts.append(
        f"Medians of {facts['rounds']} interleaved rounds of about {facts['seconds']:g} s after a warm-up; redis-benchmark "
        "is the generator and shares the cores; every contender without persistence."
    )
    for shards in sorted({sample.shards for sample in samples}):
        chosen = grouped([sample for sample in samples if sample.shards == shards])
        parts.append(f"## {shards} shards (or servers behind the proxy)")
        for title, section in (
            ("The bars", bars_section(chosen)),
            ("Latency with few connections", latency_section(chosen)),
        ):
            if section:
                parts += [f"### {title}", section]
        images = plot(out, chosen) if shards == max(sample.shards for sample in samples) else []
        parts += [f"![{name}]({name})" for name in images]
        parts += ["### Every row", throughput_section(chosen)]
    memory = memory_section(facts["memory"])
    if memory:
        parts += ["## Memory", f"Bar {BYTES_PER_KEY[0]}, goal {BYTES_PER_KEY[1]}; growth of summed PSS.", memory]
    ready = [[name, f"{seconds * 1000:.0f}"] for name, seconds in facts["ready_seconds"].items()]
    parts += ["## Time to ready", table(["contender", "ms from launch to the first answer"], ready)]
    lines = [f"{name}: {command}" for name, commands in facts["commands"].items() for command in commands]
    parts += ["## Commands", "```\n" + "\n".join(lines) + "\n```"]
    (out / "README.md").write_text("\n\n".join(parts) + "\n")
