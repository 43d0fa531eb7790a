"""The command reference, generated from the table: docs/commands.md and what ``kache commands`` prints.

``python -m kache.commands.reference > docs/commands.md`` writes the page anew; a test compares the two.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from . import CLUSTER, CONTAINERS, MERGES, ROUTES, TABLE, Row, atomicity
from .row import Secret

__all__ = ["markdown", "text"]

COLUMNS = 96
"""Of text about a command: longer lines are hard to read."""
NARROWEST = 40
"""A narrower terminal wraps by itself."""

_INTRODUCTION: Final = """\
# Commands

Every command of Kache, generated from the command table (`kache/commands/`) by
`python -m kache.commands.reference > docs/commands.md`; the same page for one command is `kache commands get`.

Commands that a Redis client knows behave as in Redis 7.4 and Valkey 9.1 except where *Differs* says otherwise.
Where a command works on several shards, *Across shards* says what somebody else may see meanwhile. An error after which
nothing was changed, and one after which that is not known (`TIMEOUT`, `UNCERTAIN`), have different codes.

Every command exists in both protocols unless it is marked. In the binary protocol integers, doubles and strings are
typed, a missing key has a status of its own, and the commands under *Binary protocol* replace those of the same name.

*Behind a Redis or Valkey Cluster* is about routers whose keys lie on the nodes of such a cluster (`backend`): what differs
for an application. *Native*: sent as it is to the node that owns the slot of the key.

| route | meaning |
|---|---|
"""

_TITLES: Final = {
    "generic": "Keys",
    "string": "Strings",
    "bitmap": "Bitmaps",
    "hash": "Hashes",
    "list": "Lists",
    "set": "Sets",
    "sorted-set": "Sorted sets",
    "geo": "Places",
    "hyperloglog": "HyperLogLogs",
    "stream": "Streams",
    "transactions": "Transactions",
    "scripting": "Scripts",
    "pubsub": "Publish and subscribe",
    "connection": "Connection",
    "cluster": "Cluster",
    "server": "Server",
}


NATIVE: Final = "native."


def markdown() -> str:
    """docs/commands.md, ending in a newline."""
    taken = {row.route for row in _public()}
    routes = "".join(f"| {name} | {meaning} |\n" for name, meaning in ROUTES.items() if name in taken)
    parts = [_INTRODUCTION + routes]
    for title, rows in _sections():
        parts.append(f"\n## {title}\n")
        parts += [_entry(row) for row in rows]
    return "".join(parts)


def text(name: str | None = None, columns: int = COLUMNS) -> str:
    """For the command line: every command in a line, or one (``get``, ``config get``) in full, no wider than `columns`.

    Raises KeyError for a name that no command has. Ends in a newline.
    """
    if name is None:
        return "".join(_listing())
    wanted = "|".join(name.lower().split())
    rows = [row for row in _public() if row.name == wanted]
    if wanted in CONTAINERS:
        rows = [CONTAINERS[wanted], *(row for row in _public() if row.name.startswith(f"{wanted}|"))]
    if not rows:
        raise KeyError(name)
    return "\n".join(_plain(row, min(max(columns, NARROWEST), COLUMNS)) for row in rows)


def _public() -> list[Row]:
    return [row for row in TABLE if row.group != "internal"]


def _sections() -> Iterator[tuple[str, list[Row]]]:
    """(title, rows by name) in the order of the page."""
    common = [row for row in _public() if row.dialect != "binary"]
    for group, title in _TITLES.items():
        if rows := [row for row in common if row.group == group]:
            yield title, sorted(rows, key=lambda row: row.name)
    yield "Binary protocol", sorted((row for row in TABLE if row.dialect == "binary"), key=lambda row: row.name)


def _usage(row: Row) -> str:
    return f"{row.name.replace('|', ' ').upper()} {row.syntax}".rstrip()


def _facts(row: Row) -> Iterator[tuple[str, str]]:
    yield "Complexity", f"{row.complexity}."
    yield "Route", f"{row.route}, {ROUTES[row.route]}" + (f"; {MERGES[row.merge]}." if row.merge != "first" else ".")
    if across := atomicity(row):
        yield "Across shards", across
    if row.difference:
        yield "Differs", row.difference
    if row.secret is not None:
        yield "Not shown", f"In logs, SLOWLOG, MONITOR and the shell's history: {_hidden(row.secret)}."
    yield "Behind a Redis or Valkey Cluster", _in_front(row)
    if row.dialect == "resp":
        yield "Protocol", "RESP only."
    elif row.dialect == "binary":
        yield "Protocol", "Binary only."


def _hidden(secret: Secret) -> str:
    """What nobody may see of a command."""
    if secret.kind == "keyword":
        return f"the {secret.count} words behind {secret.keyword}"
    if secret.kind == "settings":
        return "the values of secret settings, and of names that are none"
    return (
        "what is secret of that command"
        if secret.kind == "command"
        else "its arguments from the place of the password on"
    )


def _in_front(row: Row) -> str:
    """What the row says about a cluster behind the router; a plain "native" is explained once, at the top of the page."""
    if row.cluster == "native":
        return NATIVE
    kind = CLUSTER[row.cluster]
    return f"{kind}: {row.cluster_text}" if kind and row.cluster_text else row.cluster_text or f"{kind}."


def _entry(row: Row) -> str:
    facts = "".join(f"- {name}: {value}\n" for name, value in _facts(row))
    return f"\n### {row.name.replace('|', ' ').upper()}\n\n`{_usage(row)}`\n\n{row.summary}\n\n{facts}"


def _plain(row: Row, columns: int) -> str:
    lines = textwrap.wrap(_usage(row), columns, subsequent_indent="    ", break_on_hyphens=False)
    lines += textwrap.wrap(row.summary, columns, initial_indent="  ", subsequent_indent="  ")
    for name, value in _facts(row):
        if value == NATIVE:
            value = "Sent as it is to the node that owns the slot of the key."
        filled = f"  {name + ':':14} {value.replace('**', '')}"
        lines += textwrap.wrap(filled, columns, subsequent_indent=" " * 17, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def _listing() -> Iterator[str]:
    width = max(len(row.name) for row in _public()) + 2
    for title, rows in _sections():
        yield f"{title}\n"
        for _, same in groupby(rows, key=lambda row: row.name):
            row = next(same)
            yield f"  {row.name.replace('|', ' '):{width}}{row.summary}\n"


if __name__ == "__main__":
    print(markdown(), end="")
