"""How a command ends: the exit statuses, and `Failure`, an expected end that is told in one sentence.

Every module of the command line may use it; it uses none of them.
"""

from __future__ import annotations

import click

from kache.errors import CommandError

__all__ = [
    "EXIT_ERROR", "EXIT_NIL", "EXIT_NO_CLUSTER", "EXIT_STATUS", "EXIT_USAGE", "PASSWORD_HINT", "Failure", "hinted",
    "sentence",
]  # fmt: skip

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NO_CLUSTER = 3
EXIT_NIL = 4
EXIT_STATUS = (
    "Exit status: 0 done, 1 answered with an error or failed, 2 wrong usage or setting, 3 no cluster there, "
    "4 no such key (nil)."
)
PASSWORD_HINT = "The cluster wants a password: give it with --password or in the variable KACHE_PASSWORD."


class Failure(click.ClickException):
    """An expected failure: one sentence on standard error, and an exit status."""

    def __init__(self, message: str, status: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.status = status

    def show(self, file: object = None) -> None:
        """Print the sentence."""
        click.echo(f"kache: {sentence(self.message)}", err=True)


def hinted(error: CommandError) -> str:
    """The text of an error reply; what to do is added where a password is missing."""
    return f"{error.message} {PASSWORD_HINT}" if error.code == "NOAUTH" else error.message


def sentence(text: str) -> str:
    """An error's text as a sentence of its own: it ends like one."""
    return text if text.endswith((".", "?", "!", ")", "`")) else f"{text}."
