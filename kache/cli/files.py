"""``kache check-aof`` and ``kache dump``: what lies on disk, looked at without a cluster."""

from __future__ import annotations

import importlib
import json
from typing import Any

import click

from kache.cli.exits import EXIT_ERROR
from kache.cluster.progress import counted

__all__ = ["check_aof", "dump"]


def _tools() -> Any:
    # By name, as the supervisor finds its children: nothing in kache imports kache.shard.
    return importlib.import_module("kache.shard.log.tools")


@click.command("check-aof", short_help="Check the files of a stopped cluster.")
@click.argument("path")
@click.option(
    "--fix", is_flag=True, help="Have the next start load what is before the damage. Only the manifest is changed."
)
def check_aof(path: str, fix: bool) -> int:
    """Check the files at PATH, the data directory of a cluster or that of one of its shards, as a start would read them.

    Says of each file how much of it is whole, and what would be lost where it is not. With --fix the manifest names only
    what is whole; the one before is kept as manifest.before, and no file is changed. A shard whose folder is missing or empty
    is to start empty then. What is damaged in a base cannot be left out: see `kache dump --frames`.

    Exit status: 0 all is well, or fixed; 1 it is not.
    """
    tools = _tools()
    well = True
    for file in tools.check_cluster(path):
        click.echo(file.problem or f"{file.path}: {counted(file.bytes, 'byte')}, whole")
        well = well and not file.problem
    for verdict in tools.check(path):
        for file in verdict.files:
            click.echo(_line(file))
        if not verdict.problem:
            click.echo(f"{verdict.directory}: {counted(verdict.keys, 'key')}, up to sequence {verdict.sequence}")
            if verdict.note:
                click.echo(f"{verdict.note}.")
            continue
        click.echo(f"{verdict.directory}: {verdict.problem}")
        fixed = fix and verdict.fixed is not None and tools.fix(verdict)
        well = well and fixed
        if fixed:
            kept = "" if verdict.had_none else " The old manifest is kept as manifest.before."
            click.echo(f"Fixed; lost: {verdict.lost}.{kept}")
        elif verdict.fixed is not None and not fix:
            click.echo(f"--fix would lose {verdict.lost}.")
        else:
            click.echo(verdict.help, nl=bool(verdict.help))
    return 0 if well else EXIT_ERROR


def _line(file: Any) -> str:
    if file.problem:
        return str(file.problem)
    said = f"{file.path}: {counted(file.bytes, 'byte')}"
    if file.bad_offset < 0:
        frames = "1 frame, whole" if file.frames == 1 else f"{counted(file.frames, 'frame')}, all whole"
        ignored = f"; {counted(file.ignored, 'byte')} behind them, which a fix has left out" if file.ignored else ""
        return f"{said}, {frames}{ignored}"
    beyond = f", {file.beyond:,} behind it" if file.beyond else ""
    return f"{said}, {counted(file.frames, 'whole frame')} up to byte {file.bad_offset}{beyond}"


@click.command("dump", short_help="Print what the files of a stopped cluster hold, as JSON lines.")
@click.argument("path")
@click.option("--frames", is_flag=True, help="Every frame of every file, as it lies there.")
@click.option("--state", is_flag=True, help="Every key with its value, as a start would have it (the default).")
def dump(path: str, frames: bool, state: bool) -> int:
    """Print what lies at PATH, one JSON object a line; bytes that are not UTF-8 are {"base64": ...}.

    PATH is the data directory of a cluster that does not run, that of one of its shards, or with --frames one file. For
    the command DUMP of a running cluster: `kache exec dump KEY`.

    What is damaged is told on standard error: a shard that does not load is left out, and with --frames bytes that are no
    frame. Of a base every frame has its keys and values; of a value that lies there in parts, one part of it.

    Exit status: 0 all of it is printed, 1 something is damaged.
    """
    if frames and state:
        raise click.UsageError("--frames and --state exclude each other.", click.get_current_context())
    tools = _tools()
    damages: list[str] = []

    def tell(damage: str) -> None:
        damages.append(damage)
        click.echo(damage, err=True)

    for each in tools.frames(path, tell) if frames else tools.state(path, tell):
        click.echo(json.dumps(each, ensure_ascii=False))
    return EXIT_ERROR if damages else 0
