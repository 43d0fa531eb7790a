"""Data commands from the shell: ``kache exec get key``, ``kache get key``, ``kache ping``, ``kache commands``."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from kache.cli import show
from kache.cli.connection import Address, Connection, WholeNumber, address_options
from kache.cli.exits import EXIT_ERROR, EXIT_NIL, EXIT_STATUS, EXIT_USAGE, PASSWORD_HINT, Failure, hinted
from kache.config.kinds import nearest
from kache.errors import CommandError

__all__ = ["commands", "execute", "ping", "shortcut"]

_NUMBER = re.compile(r"-(\d|\.\d|inf)")
_PLACE = "Options go between the command and its data; -- ends them: what follows it is data, whatever it looks like."


class _DataCommand(click.Command):
    """A command on data: options of ours come first, and what follows is data, even with a dash (``-5``).

    An option of ours among the data is refused: taken for data it would be stored, and the command would go to another
    cluster than was meant; taken for an option it would let a value that somebody else chose steer the command.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        begin = self._end_of_options(ctx, args)
        if begin > len(args):  # the last option lacks its value
            return super().parse_args(ctx, args)
        data = args[begin:]
        if begin == len(args) or args[begin] != "--":
            end = data.index("--") if "--" in data else len(data)
            for word in data[:end]:
                if self._meant(ctx, word):
                    option = word.partition("=")[0] if word.startswith("--") else word[:2]
                    ctx.fail(
                        f"The option '{option}' comes too late: put it right after `{ctx.command_path}`, "
                        "or put -- before the data if it is data, too."
                    )
            data = ["--", *data[:end], *data[end + 1 :]]
        return super().parse_args(ctx, args[:begin] + data)

    def _options(self, ctx: click.Context) -> dict[str, bool]:
        """Our options, and whether a value follows them."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        return {name: not option.is_flag for option in options for name in option.opts}

    def _end_of_options(self, ctx: click.Context, args: list[str]) -> int:
        """Where the options end in `args`: at a --, or at the first word that is data."""
        known = self._options(ctx)
        at = 0
        while at < len(args):
            word = args[at]
            if word in ("-", "--") or not word.startswith("-") or _NUMBER.match(word):
                break
            name, _, attached = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
            while known.get(name) is False and attached and not word.startswith("--"):
                name, attached = "-" + attached[0], attached[1:]  # -xp 7379
            if name not in known:
                ctx.fail(f"No such option '{name}'.{nearest(name, known)} Put -- before it if it is data.")
            at += 2 if known[name] and not attached else 1
        return at

    def _meant(self, ctx: click.Context, word: str) -> bool:
        """Whether `word`, among the data, was surely meant as an option."""
        known = self._options(ctx)
        if word.startswith("--"):
            return word.partition("=")[0] in known
        return word in known or (known.get(word[:2], False) and word[2:].isdecimal())  # -p7379


_LISTENING = {
    "subscribe": "kache subscribe CHANNEL",
    "psubscribe": "kache subscribe --pattern PATTERN",
    "ssubscribe": "kache subscribe --shard CHANNEL",
    "monitor": "kache monitor",
    "client tracking on": "kache.Client(near_cache=...), or kache shell",
    "client reply off": "kache shell",
    "client reply skip": "kache shell",
}
"""What is about a connection, which here ends with the command; and what serves instead."""


def _refuse_what_listens(words: Sequence[str]) -> None:
    said = " ".join(words[:3]).lower()
    for command, instead in _LISTENING.items():
        if said == command or said.startswith(f"{command} "):
            raise Failure(
                f"{command.upper()} is for a connection that stays open, and this one ends with its reply: {instead}.",
                EXIT_USAGE,
            )


def _send(words: Sequence[str], form: str, read_stdin: bool, address: Address) -> int:
    _refuse_what_listens(words)
    sent: list[str | bytes] = list(words)
    if read_stdin:
        sent.append(sys.stdin.buffer.read())
    connection = Connection(address)
    try:
        reply = connection.request(sent)
    except CommandError as error:
        if form == "json":
            click.echo(show.as_json(error))
        else:
            click.echo(f"(error) {hinted(error)}", err=True)
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
    function = click.option(
        "--raw", "form", flag_value="raw", help="Show only the bytes (default in a pipe or a file)."
    )(function)
    function = click.option(
        "--pretty", "form", flag_value="pretty", help="Show types and quotes (default on a terminal)."
    )(function)
    return click.option("-x", "read_stdin", is_flag=True, help="Read a last argument from standard input.")(function)


@click.command("exec", cls=_DataCommand, epilog=f"{_PLACE} {EXIT_STATUS}")
@address_options
@_form_options
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...")
def execute(words: tuple[str, ...], form: str | None, read_stdin: bool, address: Address) -> int:
    """Send one command and show its reply: kache exec set greeting hello."""
    return _send(words, form or "auto", read_stdin, address)


def _columns() -> int:
    """How wide what is shown may be; a pipe has no width."""
    return shutil.get_terminal_size((sys.maxsize, 24)).columns


def shortcut(name: str) -> click.Command | None:
    """``kache <name> …`` for a command of the table, its help made from its rows; None when there is none."""
    from kache.commands import BINARY, lookup
    from kache.commands.reference import text

    if not name.isascii() or (lookup(name.encode(), 2) is None and lookup(name.encode(), BINARY) is None):
        return None

    @click.command(
        name,
        cls=_DataCommand,
        help="\b\n" + text(name, _columns()).replace("\n\n", "\n\n\b\n"),
        epilog=f"{_PLACE} {EXIT_STATUS}",
    )
    @address_options
    @_form_options
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def send(arguments: tuple[str, ...], form: str | None, read_stdin: bool, address: Address) -> int:
        return _send([name, *arguments], form or "auto", read_stdin, address)

    return send


@click.command("ping")
@address_options
@click.option("--count", "-c", type=WholeNumber(1), metavar="NUMBER", default=1, show_default=True, help="How often.")
@click.option(
    "--ready", is_flag=True,
    help="Ask every shard: status 1, and which one and why, unless all of them execute commands. Needs no rights.",
)  # fmt: skip
def ping(count: int, ready: bool, address: Address) -> int:
    """Ask a cluster whether it answers, and how fast.

    Without --ready a cluster answers that loads or has lost a shard: it is alive.
    """
    connection = Connection(address)
    if connection.needs_password:
        raise Failure(PASSWORD_HINT)
    try:
        for number in range(count):
            started = time.perf_counter()
            answer = _readiness(connection) if ready else connection.request(["ping"])
            spent = (time.perf_counter() - started) * 1000
            click.echo(f"{answer if isinstance(answer, str) else show.raw(answer).decode()} ({spent:.2f} ms)")
            if number + 1 < count:
                time.sleep(0.2)
    finally:
        connection.close()
    return 0


def _readiness(connection: Connection) -> str:
    try:
        connection.request(["ready"])
    except CommandError as error:
        if error.code != "NOTREADY":
            raise
        raise Failure(f"Not ready: {error.message.partition(' ')[2]}.") from None
    return "READY"


def known_names(typed: str) -> list[str]:
    """The data commands whose names begin with `typed`, for the completion of a shell."""
    from kache.commands import TABLE

    rows = {row.name.partition("|")[0] for row in TABLE if row.group != "internal"}
    return sorted(name for name in rows if name.startswith(typed.lower()))


@click.command("commands")
@click.argument("name", nargs=-1, shell_complete=lambda _ctx, _param, typed: known_names(typed))
def commands(name: tuple[str, ...]) -> int:
    """List the data commands, or explain one: kache commands config get."""
    from kache.commands.reference import text

    try:
        shown = text(" ".join(name) or None, _columns())
        click.echo_via_pager(shown) if sys.stdout.isatty() else click.echo(shown, nl=False)
    except KeyError:
        wanted = " ".join(name)
        raise Failure(f"There is no command '{wanted}'.{nearest(wanted, known_names(''))}", EXIT_USAGE) from None
    return 0
