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

_NOT_FULL = 0.9
"""Of the limit: while the data takes less, and so nothing is evicted, larger sizes and other policies cannot be told apart."""

_MARKS = {"lru": "L", "lfu": "F", "s3fifo": "S"}
_HEIGHT = 12
_COLUMN = 9
_PREFIXES = 10


def merged(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The advice of a cluster: ratios are parts of one, sizes bytes. `sampled` 0: nothing was simulated yet; there are
    sentences (`advice`) from `FEWEST_SAMPLED` on."""
    told = [shard for shard in shards if shard.get("reads")]
    reads = sum(shard["reads"] for shard in told)
    limit = max((shard.get("maxmemory", 0) for shard in shards), default=0)
    used = sum(shard.get("used", 0) for shard in shards)
    hits, misses = (sum(shard.get(name, 0) for shard in shards) for name in ("keyspace_hits", "keyspace_misses"))
    result: dict[str, Any] = {
        "policy": next((shard["policy"] for shard in shards if "policy" in shard), ""),
        "follows": sorted({shard["follows"] for shard in shards if "follows" in shard}),
        "sampled": sum(shard.get("sampled", 0) for shard in told),
        "reads": round(reads),
        "bytes": limit or used,
        "maxmemory": limit,
        "used": used,
        "missed": misses / (hits + misses) if hits + misses else None,
        "refused": sum(shard.get("refused", 0) for shard in shards),
        "silent": [
            f"shard {shard['shard']} does not answer: {shard['reason']}" for shard in shards if "reason" in shard
        ],
    }
    if not reads:
        return result
    # Without a limit what is simulated is as large as the data was a while ago: it follows in steps.
    present = limit or sum(shard.get("base", shard["used"]) for shard in told)
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
        # Whether the hottest keys are in the sample is chance, so of the hits it tells the parts, not how many there were.
        looked_up = shard.get("keyspace_hits", 0) + shard.get("keyspace_misses", 0)
        seen = sum(count for _, _, count in shard["prefixes"])
        right = shard["reads"] * shard["keyspace_hits"] / looked_up / seen if looked_up and seen else 1.0
        for name, size, count in shard["prefixes"]:
            sizes[name] += size
            hits[name] += count * right
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


def _is_simulated(policy: str) -> bool:
    return policy.endswith((*_MARKS, "auto"))


def _reservations(advice: Mapping[str, Any]) -> list[str]:
    """Why the cluster may miss more than was simulated, or will, in sentences."""
    policy, limit, used = advice["policy"], advice["maxmemory"], advice["used"]
    lines = []
    if advice["refused"]:
        lines.append(
            f"{advice['refused']:,} writes were refused because memory was full (OOM). What is not stored misses at every "
            "size, so more memory would save more than is shown."
        )
    if policy.startswith("volatile"):
        lines.append(
            f"The simulations evict keys without a TTL, too, which {policy} never does: the more memory those take, the more "
            "it misses than is shown."
        )
    if limit and policy != "noeviction" and used < _NOT_FULL * limit:
        lines.append(
            f"Only {format_size(used)} are in use: if the data still grows, ask again when memory is full. Until then larger "
            "sizes and policies look alike."
        )
    return lines


def _policy_advised(advice: Mapping[str, Any], misses: Mapping[str, float]) -> tuple[str, list[str]]:
    """The policy that the sizes are about, and what is to be said of policies. `misses`: in percent, at the present size."""
    policy, now = advice["policy"], current(advice)
    best = min(misses, key=lambda name: misses[name])
    change = f"CONFIG SET maxmemory-policy {'volatile' if policy.startswith('volatile') else 'allkeys'}-{best}"
    saved = misses[now] - misses[best]
    if not advice["maxmemory"]:
        return (best if saved >= _WORTH else now), []  # there is nothing to evict
    if policy == "noeviction":
        return best, [
            f"Nothing is evicted under noeviction; the figures are those of policies that evict. For a cache: {change}."
        ]
    if not _is_simulated(policy):
        return best, [
            f"{policy} is not simulated. With {best} {misses[best]:.1f} % would miss at the present size: {change}."
        ]
    # Which of the two is followed now auto knows from the latest reads; LFU it does not follow.
    if saved < _WORTH or (policy.endswith("auto") and best != "lfu"):
        return now, []
    return best, [
        f"With {best} {misses[best]:.1f} % would miss at the present size, {saved:.1f} points fewer than with {now}: {change}."
    ]


def advised(advice: Mapping[str, Any]) -> list[str]:
    """What follows, in sentences."""
    curves = advice["curves"]
    at = SIZES.index(1.0)
    points = {policy: [100 * point["misses"] for point in curve] for policy, curve in curves.items()}
    best, lines = _policy_advised(advice, {policy: curve[at] for policy, curve in points.items()})
    curve = points[best]
    enough = next((place for place in range(len(SIZES)) if curve[place] - min(curve[place:]) < _WORTH), len(SIZES) - 1)
    size = format_size(curves[best][enough]["bytes"])
    if SIZES[enough] == SIZES[-1]:
        lines.append(f"Every doubling saves misses with {best}, up to {size} at least.")
    elif SIZES[enough] > 1:
        saved = curve[at] - curve[enough]
        lines.append(f"{size} would save {saved:.1f} points of misses with {best}; more than that buys nothing.")
    elif SIZES[enough] == 1 and advice["refused"]:
        lines.append(f"Half as much memory would cost {curve[at - 1] - curve[at]:.1f} points with {best}.")
    elif SIZES[enough] == 1:
        lines.append(
            f"More memory buys nothing with {best}; half as much would cost {curve[at - 1] - curve[at]:.1f} points."
        )
    else:
        lines.append(f"{size} would do as well with {best}.")
    return lines + _reservations(advice)


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


def _present(advice: Mapping[str, Any]) -> str:
    """What there is, and what misses there, by the simulations and in fact."""
    policy, now = advice["policy"], current(advice)
    if not advice["maxmemory"]:
        place = f"{format_size(advice['bytes'])} of data and no limit"
    else:
        follows = f", which follows {', '.join(advice['follows'])}" if policy.endswith("auto") else ""
        place = f"{format_size(advice['bytes'])} and {policy}{follows}"
    simulated = "as simulated" if _is_simulated(policy) else f"as simulated with {now}"
    misses = 100 * advice["curves"][now][SIZES.index(1.0)]["misses"]
    missed = advice["missed"]
    real = "" if missed is None else f"; {100 * missed:.1f} % have missed since the start or CONFIG RESETSTAT"
    return f"Now {place}: {misses:.1f} % of the reads miss, {simulated}{real}."


def text(advice: Mapping[str, Any]) -> str:
    """What a person reads."""
    blocks = ["\n".join(advice["silent"])] if advice["silent"] else []
    if advice["sampled"] < FEWEST_SAMPLED:
        blocks.append(
            f"Too little is known yet: {advice['sampled']:,} reads of sampled keys were seen, {FEWEST_SAMPLED:,} are needed. "
            "Shards simulate from 1,000 keys on, unless miniature-simulations is no; where nothing is evicted, for an hour "
            "from when they were asked: ask again in some minutes."
        )
        return "\n\n".join(blocks)
    curves, now = advice["curves"], current(advice)
    blocks.append(_present(advice))
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
