"""Data commands from the shell: ``kache exec get key``, ``kache get key``, ``kache ping``, ``kache commands``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from kache.cli import show
from kache.cli.connection import Connection, address_options
from kache.cli.main import EXIT_ERROR, EXIT_NIL, Failure
from kache.errors import CommandError

__all__ = ["commands", "execute", "ping", "shortcut"]

# Everything after the first argument is data, even when it begins with a dash (kache incrby k -5).
_DATA = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def _send(words: Sequence[str], form: str, read_stdin: bool, address: dict[str, Any]) -> int:
    sent: list[str | bytes] = list(words)
    if read_stdin:
        sent.append(sys.stdin.buffer.read())
    connection = Connection(**address)
    try:
        reply = connection.request(sent)
    except CommandError as error:
        if form == "json":
            click.echo(show.as_json(error))
        else:
            click.echo(show.for_people(error), err=True)
        return EXIT_ERROR
    finally:
        connection.close()
    if form == "json":
        click.echo(show.as_json(reply))
    elif form == "raw" or (form == "auto" and not sys.stdout.isatty()):
        click.echo(show.raw(reply))
    else:
        click.echo(show.raw(reply) if _is_report(reply) else show.for_people(reply))
    return EXIT_NIL if reply is None else 0


def _is_report(reply: Any) -> bool:
    from kache.replies import Verbatim

    return isinstance(reply, Verbatim)


def _form_options(function: Any) -> Any:
    function = click.option("--json", "form", flag_value="json", help="Show the reply as JSON.")(function)
    function = click.option("--raw", "form", flag_value="raw", help="Show only the bytes (default in a pipe).")(
        function
    )
    function = click.option("--pretty", "form", flag_value="pretty", help="Show types and quotes.")(function)
    return click.option("-x", "read_stdin", is_flag=True, help="Read the last argument from standard input.")(function)


@click.command("exec", context_settings=_DATA)
@address_options
@_form_options
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...")
def execute(words: tuple[str, ...], form: str | None, read_stdin: bool, **address: Any) -> int:
    """Send one command and show its reply; options come before it, what follows it is data."""
    return _send(words, form or "auto", read_stdin, address)


def shortcut(name: str) -> click.Command | None:
    """``kache <name> …`` for a command of the table, its help made from its rows; None when there is none."""
    from kache.commands import BINARY, lookup
    from kache.commands.reference import text

    if not name.isascii() or (lookup(name.encode(), 2) is None and lookup(name.encode(), BINARY) is None):
        return None

    @click.command(
        name,
        context_settings=_DATA,
        help="\b\n" + text(name).replace("\n\n", "\n\n\b\n"),
        epilog="Options come before the arguments: what follows the first argument is data.",
    )
    @address_options
    @_form_options
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def send(arguments: tuple[str, ...], form: str | None, read_stdin: bool, **address: Any) -> int:
        return _send([name, *arguments], form or "auto", read_stdin, address)

    return send


@click.command("ping")
@address_options
@click.option("--count", "-c", type=click.IntRange(1), metavar="NUMBER", default=1, show_default=True, help="How many.")
def ping(count: int, **address: Any) -> int:
    """Ask a cluster whether it answers, and how fast."""
    connection = Connection(**address)
    if connection.needs_password:
        raise Failure("The cluster wants a password (--password or KACHE_PASSWORD).")
    try:
        for number in range(count):
            started = time.perf_counter()
            answer = connection.request(["ping"])
            spent = (time.perf_counter() - started) * 1000
            click.echo(f"{answer if isinstance(answer, str) else show.raw(answer).decode()} ({spent:.2f} ms)")
            if number + 1 < count:
                time.sleep(0.2)
    finally:
        connection.close()
    return 0


def known_names(typed: str) -> list[str]:
    """The data commands whose names begin with `typed`, for the completion of a shell."""
    from kache.commands import TABLE

    rows = {row.name.partition("|")[0] for row in TABLE if row.group != "internal"}
    return sorted(name for name in rows if name.startswith(typed.lower()))


@click.command("commands")
@click.argument("name", nargs=-1, shell_complete=lambda _ctx, _param, typed: known_names(typed))
def commands(name: tuple[str, ...]) -> int:
    """List the data commands, or explain the one NAME."""
    from kache.commands.reference import text

    try:
        click.echo_via_pager(text(" ".join(name) or None)) if sys.stdout.isatty() else click.echo(
            text(" ".join(name) or None), nl=False
        )
    except KeyError:
        raise Failure(f"There is no command '{' '.join(name)}'.") from None
    return 0
