"""The plots of a report, as SVG; each function returns the Markdown that shows what it drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders import CONTENDERS
from generators import Row
from measure import Sample
from tables import Grouped, middle

__all__ = ["bar_charts", "lines"]

COLOURS = dict(
    zip(
        CONTENDERS,
        [f"C{number}" for number in range(10)] + ["black", "grey", "pink", "brown", "tan", "gold"],
        strict=True,
    )
)


def pyplot() -> Any:
    """matplotlib for files without a date or random ids in them, with text as text."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kache", "font.family": "sans-serif"})
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path, alternative: str) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot().close(figure)
    return f"![{alternative}]({path.name})"


def bar_charts(out: Path, groups: Grouped) -> list[str]:
    """Throughput and CPU time of SET, GET and the mix at each pipeline."""
    shown = []
    for command, title in (("SET", "SET"), ("GET", "GET"), ("MIX", "90 % GET, 10 % SET, Zipf 0.99")):
        rows = [row for row in groups if row == Row(command, row.pipeline)]
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in groups[row]))
        figure, grid = pyplot().subplots(2, len(rows), figsize=(4 * len(rows), 6), squeeze=False)
        for panels, attribute, scale, label in (
            (grid[0], "requests_per_second", 1e-3, "thousand requests/s"),
            (grid[1], "cpu_us_per_request", 1.0, "CPU µs per request"),
        ):
            for axes, row in zip(panels, rows, strict=True):
                for position, name in enumerate(names):
                    height = middle(groups[row][name], attribute) * scale if name in groups[row] else 0
                    axes.bar(position, height, label=name, color=COLOURS[name])
                axes.set_xticks([])
                axes.set_title(f"pipeline {row.pipeline}", fontsize="medium")
            panels[0].set_ylabel(label)
        grid[0][-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.suptitle(f"{title}, 50 connections, 32-byte values")
        shown.append(save(figure, out / f"{command.lower()}.svg", title))
    return shown


def lines(path: Path, samples: list[Sample], along: str, label: str) -> str:
    """Throughput of each contender along the number of shards or of keys, one panel per command and pipeline."""

    def place(sample: Sample) -> int:
        return sample.shards if along == "shards" else sample.row.keys

    panels = list(dict.fromkeys((sample.row.pipeline, sample.row.command) for sample in samples))
    columns = min(2, len(panels))
    figure, grid = pyplot().subplots(
        -(-len(panels) // columns), columns, figsize=(5 * columns, 2.6 * -(-len(panels) // columns)), squeeze=False
    )
    for axes, (pipeline, command) in zip(grid.flat, panels, strict=False):
        chosen = [s for s in samples if s.row.pipeline == pipeline and s.row.command == command]
        ticks = sorted({place(sample) for sample in chosen})
        for name in dict.fromkeys(sample.contender for sample in chosen):
            mine = [sample for sample in chosen if sample.contender == name]
            by_place = [(tick, [sample for sample in mine if place(sample) == tick]) for tick in ticks]
            points = [(tick, middle(found) / 1000) for tick, found in by_place if found]
            axes.plot(*zip(*points, strict=True), marker="o", label=name, color=COLOURS[name])
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_ylabel("thousand requests/s")
        axes.set_title(f"{command}, pipeline {pipeline}", fontsize="medium")
    grid.flat[0].legend(frameon=False)
    figure.tight_layout()
    return save(figure, path, f"throughput along {along}")
