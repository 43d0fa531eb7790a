"""The lines that a user of ``kache shell`` types: editing, completion, history, and what history must not keep.

With prompt_toolkit (the extra ``shell``) names are completed, coloured and explained while they are typed; without it,
Python's readline does the editing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kache.cli import show
from kache.commands import CONTAINERS, TABLE
from kache.commands.redact import has_secret

__all__ = ["is_unfinished", "keeps_secret", "reader"]

Reader = Callable[[str], str]
"""Reads one line at a prompt; EOFError at the end, KeyboardInterrupt at Ctrl-C."""

CONTINUED = "... "


def names() -> dict[str, str]:
    """Every command a user may type, with what it takes: ``{"config get": "parameter …"}``."""
    rows = [row for row in TABLE if row.group != "internal" and row.dialect != "binary"]
    return {row.name.replace("|", " "): row.syntax for row in rows} | dict.fromkeys(CONTAINERS, "")


def keeps_secret(line: str) -> bool:
    """Whether a line has a password in it, or may have, as the command table says."""
    try:
        words = show.split_line(line)
    except ValueError:
        words = [word.encode() for word in line.replace('"', " ").replace("'", " ").split()]
    return has_secret(words)


def is_unfinished(text: str) -> bool:
    """Whether more is to come: the text ends in a backslash, or within quotes."""
    if text.endswith("\\") and not text.endswith("\\\\"):
        return True
    try:
        show.split_line(text)
    except ValueError:
        return True
    return False


def reader() -> Reader:
    """The best reader there is. What it returns is whole: a line that is unfinished is read on."""
    path = _history_file()
    read_line = _fancy_reader(path) or _plain_reader(path)

    def read(prompt: str) -> str:
        text = read_line(prompt)
        while is_unfinished(text):
            text = (text[:-1] + " " if text.endswith("\\") else text + "\n") + read_line(CONTINUED)
        return text

    return read


def _history_file() -> str | None:
    """Where history is kept; None where it cannot be."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = Path(base) / "kache" / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return None
    return str(path)


def _fancy_reader(path: str | None) -> Reader | None:
    """A line reader with completion, colours and hints, if prompt_toolkit is installed."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory
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

    class Discreet(FileHistory):
        def append_string(self, string: str) -> None:
            if not keeps_secret(string):
                super().append_string(string)

    history: History = Discreet(path) if path else InMemoryHistory()
    session: PromptSession[str] = PromptSession(
        history=history, completer=FromTable(), complete_while_typing=True, bottom_toolbar=hint, lexer=_lexer(known)
    )
    read: Reader = session.prompt
    return read


def _lexer(known: dict[str, str]) -> Any:
    """Colours: the name of a command, bold if there is one; quoted words; numbers."""
    import re

    from prompt_toolkit.lexers import Lexer

    part = re.compile(r"""("(?:\\.|[^"])*"?|'(?:\\.|[^'])*'?)|(-?\d+(?:\.\d+)?)(?=\s|$)|(\S+)|(\s+)""")

    class Colours(Lexer):
        def lex_document(self, document: Any) -> Any:
            def line(number: int) -> list[tuple[str, str]]:
                text = document.lines[number]
                found = [
                    ("ansigreen" if match[1] else "ansicyan" if match[2] else "", match[0])
                    for match in part.finditer(text)
                ]
                if number == 0 and found and found[0][1].lower() in (known.keys() | {n.split()[0] for n in known}):
                    found[0] = ("bold ansiblue", found[0][1])
                return found

            return line

    return Colours()


def _plain_reader(path: str | None) -> Reader:
    try:
        import readline
    except ImportError:
        return input
    if path:
        try:
            readline.read_history_file(path)
        except OSError:
            pass
    readline.set_auto_history(False)
    known = sorted(names())
    readline.set_completer(
        lambda text, state: next(iter([n for n in known if n.startswith(text)][state : state + 1]), None)
    )
    readline.parse_and_bind("tab: complete")

    def read(prompt: str) -> str:
        line = input(prompt)
        if line.strip() and not keeps_secret(line):
            readline.add_history(line)
            if path:
                try:
                    readline.write_history_file(path)
                except OSError:
                    pass  # a full disk is no reason to end
        return line

    return read
