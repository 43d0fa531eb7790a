"""``kache stats``: what every shard counts, as a table with a total, or as JSON.

The figures, and what the total of each is, are those of `kache.figures`; the cluster computes them.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from kache.cli.connection import Address, Connection, WholeNumber, address_options
from kache.cli.exits import Failure
from kache.config.kinds import format_size
from kache.figures import RATE_WINDOW

__all__ = ["cell", "fetch", "masters", "stats", "table", "text_table", "uptime"]

_COLUMNS = (
    ("keys", "keys"), ("with ttl", "expires"), ("memory", "used_memory"), ("of limit", "memory_percent"),
    ("ops/s", "ops_per_second"), ("hit %", "hit_percent"), ("hits", "hits"), ("misses", "misses"), ("expired", "expired"),
    ("evicted", "evicted"), ("in flight", "in_flight"), ("p50 us", "p50_us"), ("p99 us", "p99_us"), ("stall us", "stall_us"),
    ("uptime", "uptime_ms"), ("pid", "pid"),
)  # fmt: skip
_DISPENSABLE = (
    "pid", "uptime_ms", "hits", "misses", "expired", "expires", "in_flight", "stall_us", "p50_us", "evicted", "hit_percent",
    "p99_us", "memory_percent",
)  # fmt: skip
"""Columns in the order in which they are left out where the terminal is too narrow."""
LATENCIES = "since the start or CONFIG RESETSTAT"


def fetch(connection: Connection) -> dict[str, Any]:
    """STATS ALL: {"at_ms", "shards", "routers", "total"}, with names as text."""
    found: dict[str, Any] = _text(connection.request(["stats", "all"]))
    return found


def masters(connection: Connection) -> list[list[str]]:
    """Address, slots and state of each master of the Redis Cluster behind the routers; [] where there are shards."""
    text = connection.request(["info", "backend"])
    raw = text.text if hasattr(text, "text") else text
    found = []
    for line in (raw if isinstance(raw, bytes) else str(raw).encode()).decode(errors="replace").splitlines():
        name, _, fields = line.partition(":")
        if name.startswith("node") and name[4:].isdigit():
            pairs = dict(pair.partition("=")[::2] for pair in fields.split(","))
            found.append([pairs.get("address", ""), pairs.get("slots", ""), pairs.get("state", "")])
    return found


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(key): _text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def uptime(milliseconds: int) -> str:
    """``3d 4h``, ``5m 12s``: the two largest units."""
    seconds = milliseconds // 1000
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2])


def cell(name: str, value: Any) -> str:
    """A figure as a table shows it."""
    if value is None:
        return "-" if name in ("memory_percent", "hit_percent") else ""
    if name.endswith("_percent"):
        return f"{value:.1f}%"
    if name.endswith(("memory", "_bytes")):
        return format_size(int(value))
    if name == "uptime_ms":
        return uptime(int(value))
    if name == "ops_per_second":
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and name != "pid" else str(value)


def text_table(head: list[str], lines: list[list[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    shown = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *lines]
    ]
    return "\n".join(line.rstrip() for line in shown)


def table(found: Mapping[str, Any], with_total: bool, width: int | None = None) -> str:
    """One line per shard, and the total; columns that do not fit `width` are left out, the least important first. In front of
    a Redis Cluster one line per master, whose figures are its own."""
    if found.get("masters"):
        rows = [[one["address"], one["slots"], one["state"]] for one in found["masters"]]
        return "\n".join(
            [text_table(["master", "slots", "state"], rows), *_footnotes(found["total"], width, behind=True)]
        )
    columns = list(_COLUMNS)
    dispensable = list(_DISPENSABLE)
    shown = _aligned(found, with_total, columns)
    while width is not None and dispensable and max(map(len, shown.splitlines())) > width:
        name = dispensable.pop(0)
        columns = [column for column in columns if column[1] != name]
        shown = _aligned(found, with_total, columns)
    notes = [
        f"shard {row['shard']} does not answer: {row.get('reason', '')}" for row in found["shards"] if "pid" not in row
    ]
    notes += following(found["shards"])
    if with_total:
        notes += _footnotes(found["total"], width)
    return "\n".join([shown, *notes])


def _aligned(found: Mapping[str, Any], with_total: bool, columns: Sequence[tuple[str, str]]) -> str:
    lines = [[str(row["shard"]), *(cell(name, row.get(name)) for _, name in columns)] for row in found["shards"]]
    if with_total:
        lines.append(["total", *(cell(name, found["total"].get(name)) for _, name in columns)])
    return text_table(["shard", *(title for title, _ in columns)], lines)


def _footnotes(total: Mapping[str, Any], width: int | None, *, behind: bool = False) -> list[str]:
    limit = int(total.get("maxmemory") or 0)
    clients = int(total.get("clients") or 0)
    facts = [
        f"{clients:,} client{'' if clients == 1 else 's'}",
        f"{total.get('client_ops_per_second') or 0:,.0f} commands of clients/s",
        f"maxmemory {format_size(limit)}" if limit else "no maxmemory",
        f"rates: last {RATE_WINDOW} s",
        f"latencies: {LATENCIES}",
    ]
    if behind:
        facts[2:] = [
            f"{total.get(f'backend_{name}') or 0:,} {words}"
            for name, words in (
                ("in_flight", "in flight to the nodes"),
                ("waiting", "waiting for a node"),
                ("redirects", "redirects"),
                ("repeated_reads", "reads sent again"),
            )
        ]
    lines = [""]
    for fact in facts:
        joined = f"{lines[-1]}; {fact}" if lines[-1] else fact
        if width is not None and len(joined) > width and lines[-1]:
            lines.append(fact)
        else:
            lines[-1] = joined
    return lines


def following(rows: list[dict[str, Any]]) -> list[str]:
    """Under `auto`: what each shard follows, and why."""
    notes = []
    for row in rows:
        if not str(row.get("policy", "")).endswith("auto"):
            continue
        misses = {
            name: row.get(f"simulated_misses_{name.replace('-', '_')}") for name in ("lru", "s3fifo", "s3fifo-narrow")
        }
        known = ", ".join(f"{name} {100 * share:.1f} %" for name, share in misses.items() if share is not None)
        why = f"would miss lately: {known}" if known else "too few reads were seen to compare policies"
        notes.append(f"shard {row.get('shard')} follows {row.get('follows')} ({why}).")
    return notes


@click.command("stats")
@address_options
@click.option("--shard", "-s", type=WholeNumber(0), metavar="INDEX", help="Only this shard; the first is 0.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--watch", "-w", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 1e6), metavar="SECONDS", default=1.0, show_default=True,
    help="How long --watch waits between two looks.",
)  # fmt: skip
def stats(shard: int | None, as_json: bool, watch: bool, interval: float, address: Address) -> int:
    """Show keys, memory, traffic and latency of every shard, and the total.

    On a terminal, columns that do not fit its width are left out; piped, all are printed.
    """
    connection = Connection(address)
    try:
        while True:
            found = fetch(connection)
            if not found["shards"]:
                found["masters"] = [
                    dict(zip(("address", "slots", "state"), one, strict=True)) for one in masters(connection)
                ]
            if shard is not None:
                found["shards"] = [row for row in found["shards"] if row["shard"] == shard]
                if not found["shards"]:
                    raise Failure(f"There is no shard {shard}.")
            if as_json:
                click.echo(json.dumps(found))
            else:
                if watch:
                    click.clear()
                width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
                click.echo(table(found, shard is None, width))
            if not watch:
                return 0
            time.sleep(interval)
    finally:
        connection.close()
