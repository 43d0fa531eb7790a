"""``kache shell``: an interactive prompt with history and completion from the command table.

`lines` reads what is typed, `conversation` keeps the connection as the user knows it. When standard input is no
terminal, each of its lines is a command.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any

import click

from kache.cli import show
from kache.cli.connection import Address, Connection, address_options
from kache.cli.conversation import Conversation
from kache.cli.exits import EXIT_ERROR, Failure, hinted
from kache.errors import CommandError
from kache.replies import Verbatim

__all__ = ["shell"]


def _say(reply: Any) -> None:
    """Show a reply in colours, page by page if it is longer than the terminal."""
    text = (
        show.raw(reply).decode("utf-8", "backslashreplace") if isinstance(reply, Verbatim) else show.for_people(reply)
    )
    if text.count("\n") + 2 > shutil.get_terminal_size().lines:
        os.environ.setdefault("LESS", "-RFX")
        click.echo_via_pager(text)
        return
    click.secho(text, fg=_colour(reply))


def _colour(reply: Any) -> str | None:
    if os.environ.get("NO_COLOR"):
        return None
    if isinstance(reply, CommandError):
        return "red"
    if reply is None:
        return "bright_black"
    if isinstance(reply, bool | int | float):
        return "cyan"
    return "green" if isinstance(reply, bytes) else None


def _help(conversation: Conversation, words: list[bytes]) -> None:
    from kache.cli.data import known_names
    from kache.commands.reference import text
    from kache.config.kinds import nearest

    name = b" ".join(words[1:]).decode("utf-8", "replace")
    try:
        _page(text(name or None, shutil.get_terminal_size().columns))
    except KeyError:
        found = _loaded(conversation, name)
        if found:
            _page(found)
        else:
            click.echo(f"There is no command '{name}'.{nearest(name, known_names(''))}")


def _loaded(conversation: Conversation, name: str) -> str:
    """What the cluster says of a command of its modules, which no table here has; empty if there is none."""
    try:
        docs = conversation.request([b"COMMAND", b"DOCS", name.encode()])
    except (CommandError, Failure):
        return ""
    pairs = docs.items() if isinstance(docs, dict) else zip(docs[::2], docs[1::2], strict=True)
    for command, facts in pairs:
        facts = facts if isinstance(facts, dict) else dict(zip(facts[::2], facts[1::2], strict=True))
        if facts[b"group"] == b"module":
            usage = b" ".join([command.upper(), *(_argument(each) for each in facts.get(b"arguments", []))])
            lines = (
                usage,
                b"",
                facts[b"summary"],
                b"",
                b"Complexity: %s. A command of a module." % facts[b"complexity"],
            )
            return b"\n".join(lines).decode("utf-8", "replace") + "\n"
    return ""


def _argument(described: Any) -> bytes:
    facts = described if isinstance(described, dict) else dict(zip(described[::2], described[1::2], strict=True))
    name: bytes = facts.get(b"display_text") or facts[b"name"]
    flags = [flag if isinstance(flag, bytes) else str(flag).encode() for flag in facts.get(b"flags", ())]
    if b"optional" in flags:
        return b"[%s ...]" % name if b"multiple" in flags else b"[%s]" % name
    return b"%s [%s ...]" % (name, name) if b"multiple" in flags else name


def _page(text: str) -> None:
    if text.count("\n") + 2 > shutil.get_terminal_size().lines:
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)


def _answer(conversation: Conversation, line: str) -> None:
    """Carry out what was typed, and show what comes of it."""
    try:
        words = show.split_line(line)
    except ValueError as error:
        click.secho(f"(error) {error}", fg="red")
        return
    if not words:
        return
    if words[0].lower() == b"help":
        _help(conversation, words)
        return
    started = time.perf_counter()
    try:
        reply = conversation.request(words)
    except CommandError as error:
        click.secho(f"(error) {error.message}", fg=_colour(error))
        return
    spent = time.perf_counter() - started
    _say(reply)
    if spent >= 0.5:
        click.echo(f"({spent:.2f} s)")


def _interact(conversation: Conversation) -> int:
    from kache.cli.lines import reader

    try:
        conversation.connect()
    except Failure as error:
        error.show()
        click.echo("Each command tries again.")
    if conversation.needs_password:
        click.echo("The cluster wants a password: type auth PASSWORD, or start with --password or KACHE_PASSWORD.")
    read = reader()
    while True:
        try:
            line = read(conversation.prompt)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return 0
        if line.strip().lower() in ("exit", "quit"):
            return 0
        _carry_out(conversation, line)


def _carry_out(conversation: Conversation, line: str) -> None:
    """One line; whatever comes of it, the shell goes on, and with it all that the user had set."""
    was_in_transaction = conversation.in_transaction
    try:
        _answer(conversation, line)
        return
    except KeyboardInterrupt:
        click.echo("Interrupted; the command may have been executed.")
    except Failure as error:
        # Nothing is repeated: the user decides.
        error.show()
    if was_in_transaction and line.strip().lower() == "exec":
        click.echo("It is not known whether the transaction was executed.")
    elif was_in_transaction:
        click.echo("The transaction is gone with the connection; nothing of it was executed.")
    try:
        conversation.connect()
    except Failure:
        pass  # the prompt shows it, and the next command tries again


def _read_pipe(connection: Connection) -> int:
    """Every line of standard input is a command; replies as a script wants them."""
    well = True
    for line in sys.stdin:
        try:
            words = show.split_line(line)
            if words:
                click.echo(show.raw(connection.request(words)))
        except ValueError as error:
            click.echo(f"(error) {error}", err=True)
            well = False
        except CommandError as error:
            click.echo(f"(error) {hinted(error)}", err=True)
            well = False
    return 0 if well else EXIT_ERROR


@click.command("shell")
@address_options
def shell(address: Address) -> int:
    """Talk to a cluster at a prompt with history and completion.

    A backslash at its end continues a line, and so does an open quote. After a lost connection the next one has the same
    database, name and password. History does not keep lines with passwords.

    When standard input is no terminal, each of its lines is a command; exit status 1 when one of them failed.
    """
    if sys.stdin.isatty():
        return _interact(Conversation(address))
    return _read_pipe(Connection(address))
