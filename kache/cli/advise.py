"""``kache advise``: which policy, and how much memory, the traffic of a cluster needs.

Every shard simulates LRU, LFU and S3-FIFO in six sizes on a sample of its keys. What they say is put together here: the
misses of a size are the sum of the shards' misses at that many times their present memory, over the sum of their reads.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import click

from kache.cli.connection import Address, Connection, address_options
from kache.cli.exits import Failure
from kache.cli.stats import text_table
from kache.config.kinds import format_size

__all__ = ["SIZES", "advise", "advised", "merged", "plot", "text"]

SIZES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""The sizes that are simulated, of the present one."""

FEWEST_SAMPLED = 2000
"""Reads of the sample, over all shards, below which there is no advice."""

_WORTH = 0.5
"""Points of the miss ratio that more memory, or another policy, has to save before it is advised."""

_MARKS = {"lru": "L", "lfu": "F", "s3fifo": "S"}
_HEIGHT = 12
_COLUMN = 9
_PREFIXES = 10


def merged(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The advice of a cluster: ratios are parts of one, sizes bytes. `sampled` 0: nothing was simulated yet; there are
    sentences (`advice`) from `FEWEST_SAMPLED` on."""
    told = [shard for shard in shards if shard.get("reads")]
    reads = sum(shard["reads"] for shard in told)
    present = max((shard.get("maxmemory", 0) for shard in shards), default=0) or sum(
        shard.get("used", 0) for shard in shards
    )
    result: dict[str, Any] = {
        "policy": next((shard["policy"] for shard in shards if "policy" in shard), ""),
        "follows": sorted({shard["follows"] for shard in shards if "follows" in shard}),
        "sampled": sum(shard.get("sampled", 0) for shard in told),
        "reads": round(reads),
        "bytes": present,
        "silent": [
            f"shard {shard['shard']} does not answer: {shard['reason']}" for shard in shards if "reason" in shard
        ],
    }
    if not reads:
        return result
    result["curves"] = {
        policy: [
            {
                "bytes": round(present * size),
                "misses": min(1.0, sum(shard["misses"][policy][place] for shard in told) / reads),
            }
            for place, size in enumerate(SIZES)
        ]
        for policy in _MARKS
    }
    result["dead"] = _dead_weight(told)
    result["prefixes"] = _prefixes(told)
    if result["sampled"] >= FEWEST_SAMPLED:
        result["advice"] = advised(result)
    return result


def _dead_weight(told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    held, evicted = sum(shard["bytes"] for shard in told), sum(shard["evicted"] for shard in told)
    return {
        "held_unread": sum(shard["unread"] for shard in told) / held if held else 0.0,
        "evicted_unread": sum(shard["evicted_unread"] for shard in told) / evicted if evicted else 0.0,
    }


def _prefixes(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    sizes: dict[str, float] = defaultdict(float)
    hits: dict[str, float] = defaultdict(float)
    for shard in told:
        for name, size, count in shard["prefixes"]:
            sizes[name] += size
            hits[name] += count
    rows = [
        {
            "prefix": name,
            "bytes": round(size),
            "hits": round(hits[name]),
            "hits_per_kib": 1024 * hits[name] / max(size, 1),
        }
        for name, size in sizes.items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def current(advice: Mapping[str, Any]) -> str:
    """The simulated policy that is nearest to the one in force."""
    followed = " ".join(advice["follows"])
    return next((policy for policy in ("s3fifo", "lfu") if policy in followed), "lru")


def advised(advice: Mapping[str, Any]) -> list[str]:
    """What follows, in sentences."""
    curves, now = advice["curves"], current(advice)
    at = SIZES.index(1.0)
    points = {policy: [100 * point["misses"] for point in curve] for policy, curve in curves.items()}
    best = min(points, key=lambda policy: points[policy][at])
    lines = []
    if points[now][at] - points[best][at] >= _WORTH:
        lines.append(
            f"With {best} {points[best][at]:.1f} % would miss at the present size, {points[now][at] - points[best][at]:.1f} "
            f"points fewer than with {now}: CONFIG SET maxmemory-policy allkeys-{best}."
        )
    else:
        best = now
    curve = points[best]
    enough = next((place for place in range(len(SIZES)) if curve[place] - min(curve[place:]) < _WORTH), len(SIZES) - 1)
    size = format_size(curves[best][enough]["bytes"])
    if SIZES[enough] == SIZES[-1]:
        lines.append(f"Every doubling saves misses with {best}, up to {size} at least.")
    elif SIZES[enough] > 1:
        saved = curve[at] - curve[enough]
        lines.append(f"{size} would save {saved:.1f} points of misses with {best}; more than that buys nothing.")
    elif SIZES[enough] == 1:
        lines.append(
            f"More memory buys nothing with {best}; half as much would cost {curve[at - 1] - curve[at]:.1f} points."
        )
    else:
        lines.append(f"{size} would do as well with {best}.")
    return lines


def plot(advice: Mapping[str, Any]) -> str:
    """The curves in characters: misses upwards, memory to the right; a letter for each policy, * where they meet."""
    curves = advice["curves"]
    points = {policy: [100 * point["misses"] for point in curve] for policy, curve in curves.items()}
    top = max(max(curve) for curve in points.values()) or 1.0
    width = _COLUMN * len(SIZES)
    grid = [[" "] * width for _ in range(_HEIGHT)]
    for policy, curve in points.items():
        for column in range(_COLUMN * (len(SIZES) - 1) + 1):
            place, part = divmod(column, _COLUMN)
            following = curve[min(place + 1, len(curve) - 1)]
            height = curve[place] + (following - curve[place]) * part / _COLUMN
            cells = grid[_HEIGHT - 1 - min(_HEIGHT - 1, int(height / top * (_HEIGHT - 1) + 0.5))]
            at = column + _COLUMN // 2
            if part:
                cells[at] = "." if cells[at] == " " else cells[at]
            else:
                cells[at] = _MARKS[policy] if cells[at] in " ." else "*"
    lines = []
    for row, cells in enumerate(grid):
        level = top * (_HEIGHT - 1 - row) / (_HEIGHT - 1)
        lines.append(f"{level:5.1f} % |{''.join(cells)}".rstrip())
    sizes = "".join(format_size(point["bytes"]).center(_COLUMN) for point in next(iter(curves.values())))
    names = ", ".join(f"{mark} {policy}" for policy, mark in _MARKS.items())
    return "\n".join([*lines, " " * 8 + "+" + "-" * width, (" " * 9 + sizes).rstrip(), f"{'':9}{names}, * several"])


def text(advice: Mapping[str, Any]) -> str:
    """What a person reads."""
    followed = ", ".join(advice["follows"])
    policy = advice["policy"] + (f", which follows {followed}" if advice["policy"].endswith("auto") else "")
    blocks = ["\n".join(advice["silent"])] if advice["silent"] else []
    if advice["sampled"] < FEWEST_SAMPLED:
        blocks.append(
            f"Too little is known yet: {advice['sampled']:,} reads of sampled keys were seen, {FEWEST_SAMPLED:,} are needed. "
            "Shards simulate from 1,000 keys on, unless miniature-simulations is no; where nothing is evicted, for an hour "
            "from when they were asked: ask again in some minutes."
        )
        return "\n\n".join(blocks)
    curves, now = advice["curves"], current(advice)
    misses = 100 * curves[now][SIZES.index(1.0)]["misses"]
    blocks.append(f"Now {format_size(advice['bytes'])} and {policy}: {misses:.1f} % of the reads miss, as simulated.")
    head = ["misses", *(format_size(point["bytes"]) for point in curves[now])]
    lines = [[policy, *(f"{100 * point['misses']:.1f} %" for point in curve)] for policy, curve in curves.items()]
    blocks += [text_table(head, lines), plot(advice), "\n".join(advice["advice"])]
    dead = advice["dead"]
    blocks.append(
        f"Dead weight: {100 * dead['held_unread']:.0f} % of the memory holds values not read since they were stored; "
        f"{100 * dead['evicted_unread']:.0f} % of what LRU evicts was never read."
    )
    rows = [
        [row["prefix"] or "(others)", format_size(row["bytes"]), f"{row['hits']:,}", f"{row['hits_per_kib']:.1f}"]
        for row in advice["prefixes"][:_PREFIXES]
    ]
    blocks.append(text_table(["keys", "memory", "hits", "hits per KiB"], rows))
    return "\n\n".join(blocks)


@click.command("advise")
@address_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def advise(as_json: bool, address: Address) -> int:
    """Say which policy and how much memory the traffic needs: the misses of each policy at several sizes, what is dead
    weight, and which keys are worth their memory."""
    connection = Connection(address)
    try:
        advice = merged([json.loads(shard) for shard in connection.request(["advise"])])
    finally:
        connection.close()
    if not advice["follows"]:
        raise Failure("No shard answers." if not advice["silent"] else " ".join(advice["silent"]))
    click.echo(json.dumps(advice) if as_json else text(advice))
    return 0
