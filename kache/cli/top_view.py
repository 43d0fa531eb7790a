"""What ``kache top`` draws: a moment of the cluster, what led to it, and what the user has chosen, as lines of a size.

Plain functions to Rich's renderables; reads no keys and asks no cluster. On a small terminal the tables below the shards
take turns, on a large one they stand side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kache import figures
from kache.cli.stats import uptime
from kache.config.kinds import format_size
from kache.intervals import Interval
from kache.quoting import name_text
from kache.stats import Snapshot

__all__ = ["PANELS", "SORTS", "Frame", "View", "draw"]

PANELS = ("commands", "slow", "hot keys", "big keys", "clients")
SORTS = ("shard", "load", "ops/s", "memory", "p99")
_SPARKS = "▁▂▃▄▅▆▇█"
_WIDE = 120
"""Columns from which tables stand side by side."""


class Frame(msgspec.Struct):
    """What is drawn. Replies of HOTKEYS, BIGKEYS, SLOWLOG and CLIENT LIST are as the cluster gave them."""

    address: str
    now: Snapshot
    interval: Interval | None
    """None before the second moment."""
    history: dict[int, list[float]]
    """p99 of each shard in microseconds, the newest last."""
    slow: list[list[Any]]
    hot: list[dict[str, Any]]
    big: list[dict[str, Any]]
    clients: list[dict[str, str]]
    nodes: list[list[str]] = []
    """In front of a Redis Cluster, instead of shards: address, slots and state of each master."""


class View(msgspec.Struct):
    """What the user has chosen."""

    sort: int = 0
    panel: int = 0
    paused: bool = False
    shard: int | None = None
    """The one that is looked at closely."""
    trouble: str = ""
    """Why there is nothing newer."""


def bar(share: float | None, width: int, color: str = "") -> Text:
    """A bar that is filled to `share` of its width."""
    if share is None:
        return Text("·" * width, style="dim")
    share = min(max(share, 0.0), 1.0)
    style = color or ("red" if share >= 0.9 else "yellow" if share >= 0.7 else "green")
    eighths = round(share * width * 8)
    full, part = divmod(eighths, 8)
    text = "█" * full + ("▏▎▍▌▋▊▉"[part - 1] if part else "")
    return Text.assemble((text, style), (" " * (width - len(text)), ""))


def sparkline(values: Sequence[float], width: int) -> Text:
    """The newest `width` values, the largest of them as high as a line is."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return Text("▁" * len(shown), style="dim")
    return Text("".join(_SPARKS[min(int(value / top * 7.999), 7)] for value in shown), style="cyan")


def duration(microseconds: float) -> str:
    """``12us``, ``3.4ms``, ``1.2s``: three characters of number at most."""
    if microseconds < 1000:
        return f"{microseconds:.0f}us" if microseconds >= 10 or not microseconds else f"{microseconds:.1f}us"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f}ms" if microseconds < 100_000 else f"{microseconds / 1000:.0f}ms"
    return f"{microseconds / 1e6:.1f}s"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}%"


def _table(*columns: tuple[str, str]) -> Table:
    """Columns of (title, "left", "right" or "rest"): the last kind gets the room that the others leave."""
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, show_edge=False, header_style="bold dim")
    for title, kind in columns:
        rest = kind == "rest"
        justify: Literal["left", "right"] = "right" if kind == "right" else "left"
        table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis", ratio=1 if rest else None)
    return table


def draw(frame: Frame, view: View, width: int, height: int) -> RenderableType:
    """Everything, in exactly `height` lines."""
    head = [*_head(frame, view, width), *([Text(view.trouble, style="bold red")] if view.trouble else [])]
    most = max(height - len(head) - 9, 3)
    shards, count = _shards(frame, view, width, most)
    rest = height - len(head) - count - 3
    if view.shard is not None:
        below = _one_shard(frame, view.shard, rest)
    elif width >= _WIDE and rest >= 16:
        below = _side_by_side(frame, rest, width // 2 - 1)
    else:
        below = _panel(frame, PANELS[view.panel], rest - 1, width, titled=True)
    return Group(*head, shards, Text(""), below, Text(""), _keys(view))


def _head(frame: Frame, view: View, width: int) -> list[Text]:
    whole = figures.whole(frame.now)
    down = len(frame.now.states) - len(frame.now.shards)
    shards = f"{len(frame.now.states)} shard{'s' if len(frame.now.states) > 1 else ''}"
    if not frame.now.states:
        shards = f"in front of {len(frame.nodes)} masters"
    title = Text.assemble(
        ("Kache ", "bold"), frame.address, "  ", shards, (f", {down} down" if down else "", "bold red"), ", ",
        f"{len(frame.now.routers)} router{'s' if len(frame.now.routers) > 1 else ''}, up {uptime(int(whole['uptime_s'] or 0) * 1000)}",
        ("  PAUSED" if view.paused else "", "bold yellow"),
    )  # fmt: skip
    limit = int(whole["maxmemory"] or 0)
    used = int(whole["used_memory"] or 0)
    interval = frame.interval
    hits = interval.hit_percent() if interval else None
    facts = Text.assemble(
        (f"{whole['client_ops_per_second'] or 0:,.0f}", "bold"), " commands/s  ",
        (f"{whole['clients'] or 0:,}", "bold"), " client  " if whole["clients"] == 1 else " clients  ",
        "hits ", (_percent(hits), "bold"), "  ",
        "p99 ", (duration(interval.percentile_us(99)) if interval else "-", "bold"), "  ",
        (f"{whole['keys'] or 0:,}", "bold"), " keys",
    )  # fmt: skip
    routers = (
        "  ".join(f"router {index} {load:4.0%}" for index, load in sorted(interval.routers.items())) if interval else ""
    )
    name = f"memory {format_size(used)} of {format_size(limit)} " if limit else f"memory {format_size(used)}, no limit "
    room = max(min(width - len(name) - len(routers) - 12, 60), 8)
    share = used / limit if limit else None
    memory = Text.assemble(
        name, bar(share, room), f" {_percent(None if share is None else 100 * share)}  ", (routers, "dim")
    )
    for line in (title, facts, memory):
        line.truncate(width, overflow="ellipsis")
    return [title, facts, memory, Text("")]


def _shards(frame: Frame, view: View, width: int, most: int) -> tuple[RenderableType, int]:
    """The table of shards, or of masters, and how many lines it has."""
    if not frame.now.states:
        return _masters(frame, most)
    rows = {shard.index: (shard, figures.shard_row(shard)) for shard in frame.now.shards}
    spans = frame.interval.shards if frame.interval else {}
    keys: dict[str, Callable[[int], float]] = {
        "shard": float,
        "load": lambda index: -spans[index].load if index in spans else 0.0,
        "ops/s": lambda index: -float(rows[index][1]["ops_per_second"] or 0) if index in rows else 0.0,
        "memory": lambda index: -float(rows[index][1]["used_memory"] or 0) if index in rows else 0.0,
        "p99": lambda index: -spans[index].percentile_us(99) if index in spans else 0.0,
    }
    order = sorted(range(len(frame.now.states)), key=keys[SORTS[view.sort]])
    wide = width >= _WIDE
    bars, sparks = (16, min(width - 112, 60)) if wide else (8, 12)
    table = _table(
        ("shard", "right"), ("load", "left"), ("", "right"), ("ops/s", "right"), ("memory", "left"), ("", "right"),
        ("hits", "right"), ("p99", "right"), ("latency", "rest"), *((("stall", "right"), ("keys", "right"), ("evicted", "right")) if wide else ()),
    )  # fmt: skip
    for index in order[:most]:
        style = "reverse" if index == view.shard else ""
        if index not in rows:
            table.add_row(str(index), Text(frame.now.states[index], style="bold red"), style=style)
            continue
        row = rows[index][1]
        span = spans.get(index)
        share = row["memory_percent"]
        lookups = (span.hits + span.misses) if span else 0
        cells: list[RenderableType] = [
            str(index), bar(span.load if span else None, bars), f"{span.load:.0%}" if span else "",
            f"{row['ops_per_second'] or 0:,.0f}", bar(None if share is None else share / 100, bars),
            format_size(int(row["used_memory"] or 0)), f"{100 * span.hits / lookups:.1f}%" if span and lookups else "-",
            duration(span.percentile_us(99)) if span else "-", sparkline(frame.history.get(index, ()), sparks),
        ]  # fmt: skip
        if wide:
            cells += [duration(float(row["stall_us"] or 0)), f"{row['keys'] or 0:,}", f"{row['evicted'] or 0:,}"]
        table.add_row(*cells, style=style)
    if len(order) > most:
        table.add_row("", Text(f"and {len(order) - most} more", style="dim"))
    return table, 1 + min(len(order), most) + (len(order) > most)


def _masters(frame: Frame, most: int) -> tuple[RenderableType, int]:
    table = _table(("master", "left"), ("slots", "right"), ("state", "rest"))
    for address, slots, state in frame.nodes[:most]:
        table.add_row(address, slots, Text(state, style="" if state == "ok" else "bold red"))
    if len(frame.nodes) > most:
        table.add_row(Text(f"and {len(frame.nodes) - most} more", style="dim"), "", "")
    return table, 1 + min(len(frame.nodes), most) + (len(frame.nodes) > most)


def _panel(frame: Frame, name: str, lines: int, width: int, *, titled: bool = True) -> RenderableType:
    make = {
        "commands": _commands, "slow": _slow, "hot keys": _hot, "big keys": _big, "clients": _clients
    }[name]  # fmt: skip
    table, rows, empty = make(frame)
    for row in rows[: max(lines - 1, 1)]:
        table.add_row(*row)
    body: RenderableType = table if rows else Text(empty, style="dim")
    title = Text(f"─ {name} ", style="bold")
    title.append("─" * max(width - len(title) - 1, 0), style="dim")
    used = min(len(rows), max(lines - 1, 1)) + 1 if rows else 1
    return Group(title, body, *([Text("")] * max(lines - used, 0))) if titled else body


def _side_by_side(frame: Frame, lines: int, half: int) -> RenderableType:
    upper = (lines) // 2
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(_panel(frame, "commands", upper - 1, half), _panel(frame, "slow", upper - 1, half))
    lower = lines - upper
    third = Group(
        _panel(frame, "big keys", lower // 2 - 1, half), _panel(frame, "clients", lower - lower // 2 - 1, half)
    )
    grid.add_row(_panel(frame, "hot keys", lower - 1, half), third)
    return grid


Rows = tuple[Table, list[list[str]], str]


def _commands(frame: Frame) -> Rows:
    table = _table(("command", "rest"), ("per second", "right"), ("mean", "right"), ("errors/s", "right"))
    rates = frame.interval.commands if frame.interval else []
    rows = [
        [one.name, f"{one.per_second:,.1f}", duration(one.mean_us), f"{one.failed_per_second:,.1f}" if one.failed_per_second else "-"]
        for one in rates
    ]  # fmt: skip
    return table, rows, "No commands."


def _slow(frame: Frame) -> Rows:
    table = _table(("took", "right"), ("ago", "right"), ("shard", "right"), ("client", "left"), ("command", "rest"))
    rows = []
    for _, seconds, took, words, client, _, shard in frame.slow:
        ago = max(frame.now.at_ms // 1000 - int(seconds), 0)
        where = "-" if shard < 0 else str(shard)
        command = " ".join(map(name_text, words))
        rows.append([duration(took), uptime(ago * 1000), where, bytes(client).decode(errors="replace"), command])
    return table, rows, "No slow commands (SLOWLOG)."


def _hot(frame: Frame) -> Rows:
    table = _table(("key", "rest"), ("of all", "right"), ("per second", "right"), ("shard", "right"))
    rows = [
        [name_text(row["key"]), f"{row['percent']:.2f}%", f"{row['per_second']:,.1f}", str(row["shard"])]
        for row in frame.hot
    ]
    return table, rows, "No key has been used lately."


def _big(frame: Frame) -> Rows:
    table = _table(("key", "rest"), ("memory", "right"), ("type", "left"), ("elements", "right"), ("shard", "right"))
    rows = [
        [name_text(row["key"]), format_size(row["bytes"]), row["type"], f"{row['elements']:,}", str(row["shard"])]
        for row in frame.big
    ]
    return table, rows, "There are no keys."


def _clients(frame: Frame) -> Rows:
    table = _table(
        ("address", "left"),
        ("name", "rest"),
        ("age", "right"),
        ("idle", "right"),
        ("memory", "right"),
        ("last command", "left"),
    )
    rows = [
        [
            one.get("addr", ""), one.get("name", ""), uptime(int(one.get("age", 0)) * 1000), uptime(int(one.get("idle", 0)) * 1000),
            format_size(int(one.get("tot-mem", 0))), one.get("cmd", ""),
        ]
        for one in frame.clients
    ]  # fmt: skip
    return table, rows, "No clients."


_OF_ONE = (
    "keys", "expires", "used_memory", "allowed_memory", "resident_memory", "fragmentation", "commands", "ops_per_second", "hits",
    "misses", "expired", "evicted", "p50_us", "p99_us", "p999_us", "stall_us", "longest_stall_us", "deferred", "cleanup_pending",
    "log_bytes", "log_queued_bytes", "last_sync_us",
)  # fmt: skip


def _one_shard(frame: Frame, index: int, lines: int) -> RenderableType:
    """Every figure of one shard, in as many columns as are needed."""
    from kache.cli.stats import cell

    shard = next((one for one in frame.now.shards if one.index == index), None)
    title = Text(f"─ shard {index} ", style="bold", no_wrap=True, overflow="crop")
    title.append("─" * 300, style="dim")
    if shard is None:
        return Group(
            title,
            Text(frame.now.silent.get(index, "It does not answer."), style="red"),
            *[Text("")] * max(lines - 2, 0),
        )
    row = figures.shard_row(shard)
    shown = [
        (name, cell(name, row[name]), figures.by_name(name).help) for name in _OF_ONE if row[name] is not None
    ][: max(lines - 1, 1)]  # fmt: skip
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, show_header=False, show_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    for line in shown:
        table.add_row(*line)
    return Group(title, table, *[Text("")] * max(lines - 1 - len(shown), 0))


def _keys(view: View) -> Text:
    sort = f"sort: {SORTS[view.sort]}"
    keys = (
        ("q", "quit"),
        ("p", "go on" if view.paused else "pause"),
        ("s", sort),
        ("tab", "next table"),
        ("↑↓ ", "a shard"),
        ("esc", "all"),
    )
    line = Text()
    for key, word in keys:
        line.append(f" {key} ", style="reverse")
        line.append(f" {word}  ")
    return line
