"""``kache hot``: which keys are used most, and which take most memory."""

from __future__ import annotations

import json
from typing import Any

import click

from kache.cli.connection import Address, Connection, WholeNumber, address_options
from kache.cli.stats import text_table
from kache.config.kinds import format_size
from kache.quoting import name_text

__all__ = ["hot"]

_LONGEST = 48
"""Characters of a key that a table shows."""


def _rows(connection: Connection, command: str, count: int) -> list[dict[str, Any]]:
    rows = connection.request([command, str(count)])
    return [
        {name.decode(): value.decode() if name == b"type" else value for name, value in row.items()} for row in rows
    ]


def _name(key: bytes) -> str:
    text = name_text(key)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _hot_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        [_name(row["key"]), f"{row['percent']:.2f}%", f"{row['per_second']:,.1f}", str(row["shard"]), str(row["db"])]
        for row in rows
    ]
    return text_table(["hot key", "of all", "per second", "shard", "db"], lines)


def _big_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            _name(row["key"]), format_size(row["bytes"]), row["type"], f"{row['elements']:,}", str(row["shard"]),
            str(row["db"]),
        ]
        for row in rows
    ]  # fmt: skip
    return text_table(["big key", "memory", "type", "elements", "shard", "db"], lines)


@click.command("hot")
@address_options
@click.option(
    "--count", "-c", type=WholeNumber(1, 48), metavar="NUMBER", default=10, show_default=True, help="How many of each."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON; bytes that are not text as \\x...")
def hot(count: int, as_json: bool, address: Address) -> int:
    """Show which keys were used most in the last minute or so, and which take most memory.

    Uses are estimates from a part of the commands; sizes are looked at in the background.
    """
    connection = Connection(address)
    try:
        hot, big = _rows(connection, "hotkeys", count), _rows(connection, "bigkeys", count)
    finally:
        connection.close()
    if as_json:
        for row in (*hot, *big):
            row["key"] = name_text(row["key"])
        click.echo(json.dumps({"hot": hot, "big": big}))
        return 0
    click.echo(_hot_table(hot) if hot else "No key has been used lately.")
    click.echo()
    click.echo(_big_table(big) if big else "There are no keys.")
    return 0
