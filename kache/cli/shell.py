"""``kache shell``: an interactive prompt with history and completion from the command table.

With prompt_toolkit (the extra ``shell``) it completes names and shows what a command takes; without it, Python's
readline does the editing. When standard input is no terminal, each of its lines is a command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from kache.cli import show
from kache.cli.connection import Connection, address_options
from kache.cli.exits import EXIT_ERROR, Failure, hinted
from kache.commands import CONTAINERS, TABLE
from kache.config.kinds import format_address
from kache.errors import CommandError
from kache.replies import Verbatim

__all__ = ["shell"]


def _history_file() -> str:
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = Path(base) / "kache"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return str(folder / "history")


def names() -> dict[str, str]:
    """Every command a user may type, with what it takes: ``{"config get": "parameter …"}``."""
    rows = [row for row in TABLE if row.group != "internal" and row.dialect != "binary"]
    return {row.name.replace("|", " "): row.syntax for row in rows} | dict.fromkeys(CONTAINERS, "")


class _Transaction:
    """Whether MULTI is open, as far as what was typed and answered tells."""

    def __init__(self) -> None:
        self.is_open = False

    def note(self, words: list[bytes]) -> None:
        """A command was answered, with whatever but an error."""
        name = words[0].lower()
        self.is_open = name == b"multi" or (self.is_open and name not in (b"exec", b"discard", b"reset", b"quit"))

    def refused(self, words: list[bytes]) -> None:
        """A command was answered with an error: EXEC is over all the same."""
        self.is_open = self.is_open and words[0].lower() != b"exec"


def _fancy_reader(prompt: Callable[[], str]) -> Callable[[], str] | None:
    """A line reader with completion and hints, if prompt_toolkit is installed."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.history import FileHistory
    except ImportError:
        return None
    known = names()

    class FromTable(Completer):
        def get_completions(self, document: Any, complete_event: Any) -> Iterator[Completion]:
            typed = document.text_before_cursor.lstrip().lower()
            for name, syntax in known.items():
                if typed and name.startswith(typed):
                    yield Completion(name, start_position=-len(typed), display_meta=syntax)

    def hint() -> str:
        from prompt_toolkit.application import get_app

        words = get_app().current_buffer.text.lower().split()
        name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in known), None)
        return f"{name.upper()} {known[name]}" if name else "exit or Ctrl-D leaves; TAB completes; help NAME explains"

    session: PromptSession[str] = PromptSession(
        history=FileHistory(_history_file()), completer=FromTable(), complete_while_typing=True, bottom_toolbar=hint
    )
    return lambda: session.prompt(prompt())


def _plain_reader(prompt: Callable[[], str]) -> Callable[[], str]:
    try:
        import readline
    except ImportError:
        return lambda: input(prompt())
    path = _history_file()
    try:
        readline.read_history_file(path)
    except OSError:
        pass
    known = sorted(names())
    readline.set_completer(
        lambda text, state: next(iter([n for n in known if n.startswith(text)][state : state + 1]), None)
    )
    readline.parse_and_bind("tab: complete")

    def read() -> str:
        line = input(prompt())
        readline.write_history_file(path)
        return line

    return read


def _answer(connection: Connection, line: str, interactive: bool, transaction: _Transaction | None = None) -> bool:
    """Carry out one line; False when it was answered with an error."""
    try:
        words = show.split_line(line)
    except ValueError as error:
        click.echo(f"(error) {error}", err=not interactive)
        return False
    if not words:
        return True
    if interactive and words[0].lower() == b"help":
        from kache.commands.reference import text

        name = b" ".join(words[1:]).decode("utf-8", "replace")
        try:
            click.echo(text(name or None), nl=False)
        except KeyError:
            click.echo(f"There is no command '{name}'.")
        return True
    started = time.perf_counter()
    try:
        reply = connection.request(words)
    except CommandError as error:
        if transaction is not None:
            transaction.refused(words)
        click.echo(f"(error) {error.message if interactive else hinted(error)}", err=not interactive)
        return False
    if transaction is not None:
        transaction.note(words)
    if not interactive or isinstance(reply, Verbatim):
        click.echo(show.raw(reply))
    else:
        click.echo(show.for_people(reply))
    spent = time.perf_counter() - started
    if interactive and spent >= 0.5:
        click.echo(f"({spent:.2f} s)")
    return True


@click.command("shell")
@address_options
def shell(host: str, port: int, password: str | None, db: int, timeout: float) -> int:
    """Talk to a cluster at a prompt with history and completion.

    When standard input is no terminal, each of its lines is a command; exit status 1 when one of them failed.
    """
    connection = Connection(host, port, password, db, timeout)
    if not sys.stdin.isatty():
        results = [_answer(connection, line, False) for line in sys.stdin]
        return 0 if all(results) else EXIT_ERROR
    if connection.needs_password:
        click.echo("The cluster wants a password: type auth PASSWORD, or start with --password or KACHE_PASSWORD.")
    transaction = _Transaction()

    def prompt() -> str:
        return f"{format_address(host, port)}{f'[{db}]' if db else ''}{'(MULTI)' if transaction.is_open else ''}> "

    read = _fancy_reader(prompt) or _plain_reader(prompt)
    while True:
        try:
            line = read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return 0
        if line.strip().lower() in ("exit", "quit"):
            return 0
        try:
            _answer(connection, line, True, transaction)
        except Failure as error:
            # The cluster may have restarted its router: one fresh connection, and the user decides what to repeat.
            error.show()
            connection.close()
            transaction.is_open = False
            connection = Connection(host, port, password, db, timeout)
