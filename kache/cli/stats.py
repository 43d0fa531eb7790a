"""``kache stats``: what every shard counts, as a table with a total, or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import click

from kache.cli.connection import Connection, WholeNumber, address_options
from kache.cli.exits import Failure
from kache.config.kinds import format_size

__all__ = ["stats", "table", "text_table"]

_SUMMED = (
    "keys", "expires", "used_memory", "resident_memory", "ops_per_second", "commands", "hits", "misses", "expired",
    "evicted", "in_flight",
)  # fmt: skip
_LARGEST = ("p50_us", "p99_us", "longest_stall_us", "connections")
_COLUMNS = (
    ("keys", "keys"), ("with ttl", "expires"), ("memory", "used_memory"), ("may use", "allowed_memory"), ("ops/s", "ops_per_second"),
    ("hits", "hits"), ("misses", "misses"), ("expired", "expired"), ("evicted", "evicted"),
    ("clients", "connections"), ("in flight", "in_flight"), ("p50 us", "p50_us"), ("p99 us", "p99_us"),
    ("uptime", "uptime_ms"), ("pid", "pid"),
)  # fmt: skip


def _fetch(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.request(["stats"])
    return [{_text(key): _text(value) for key, value in row.items()} for row in rows]


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of what adds up, and the largest of what does not: a latency of the total is that of its worst shard."""
    up = [row for row in rows if "pid" in row]
    summed = {name: sum(row.get(name, 0) for row in up) for name in _SUMMED}
    largest = {name: max((row.get(name, 0) for row in up), default=0) for name in _LARGEST}
    # One limit for all of them.
    return summed | largest | {"allowed_memory": max((row.get("maxmemory", 0) for row in up), default=0)}


def uptime(milliseconds: int) -> str:
    """``3d 4h``, ``5m 12s``: the two largest units."""
    seconds = milliseconds // 1000
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2])


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "allowed_memory" and not value:
        return "no limit"
    if name.endswith("memory"):
        return format_size(int(value))
    if name == "uptime_ms":
        return uptime(int(value))
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


def table(rows: list[dict[str, Any]], with_total: bool) -> str:
    """One line per shard, and the total."""
    head = ["shard", *(title for title, _ in _COLUMNS)]
    lines: list[list[str]] = []
    notes: list[str] = []
    for row in rows:
        lines.append([str(row.get("shard", "")), *(_cell(name, row.get(name)) for _, name in _COLUMNS)])
        if "pid" not in row:
            notes.append(f"shard {row.get('shard')} does not answer: {row.get('reason')}")
    notes += following(rows)
    if with_total:
        sums: Mapping[str, Any] = total(rows)
        lines.append(["total", *(_cell(name, sums.get(name)) for _, name in _COLUMNS)])
    return "\n".join([text_table(head, lines), *notes])


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
@click.option("--watch", "-w", is_flag=True, help="Show them again and again, until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 1e6), metavar="SECONDS", default=1.0, show_default=True,
    help="How long --watch waits in between.",
)  # fmt: skip
def stats(shard: int | None, as_json: bool, watch: bool, interval: float, **address: Any) -> int:
    """Show keys, memory, traffic and latency of every shard, and the total."""
    connection = Connection(**address)
    try:
        while True:
            rows = _fetch(connection)
            if shard is not None:
                rows = [row for row in rows if row.get("shard") == shard]
                if not rows:
                    raise Failure(f"There is no shard {shard}.")
            if as_json:
                click.echo(json.dumps({"shards": rows, "total": total(rows)}))
            else:
                if watch:
                    click.clear()
                click.echo(table(rows, shard is None))
            if not watch:
                return 0
            time.sleep(interval)
    finally:
        connection.close()
