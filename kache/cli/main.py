"""The tree of commands, loaded lazily: `run` is what the ``kache`` script calls."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from kache import __version__
from kache.cli.exits import EXIT_ERROR, EXIT_STATUS, EXIT_USAGE, Failure, hinted, sentence
from kache.cli.group import Group
from kache.errors import CommandError, KacheError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["root", "run"]

_COMMANDS = {
    "cluster": ("kache.cli.cluster:cluster", "Start, stop, restart and look at a cluster."),
    "stats": ("kache.cli.stats:stats", "Show keys, memory, traffic and latency of every shard."),
    "advise": ("kache.cli.advise:advise", "Say which policy and how much memory the traffic needs."),
    "top": ("kache.cli.top:top", "Follow a cluster on a screen: load, memory, latency, keys, clients."),
    "hot": ("kache.cli.hot:hot", "Show which keys are used most, and which take most memory."),
    "ping": ("kache.cli.data:ping", "Ask a cluster whether it answers, and how fast."),
    "exec": ("kache.cli.data:execute", "Send one command and show its reply."),
    "shell": ("kache.cli.shell:shell", "Talk to a cluster at a prompt with history and completion."),
    "commands": ("kache.cli.data:commands", "List the data commands, or explain one."),
    "subscribe": ("kache.cli.listen:subscribe", "Show what is published on channels."),
    "monitor": ("kache.cli.listen:monitor", "Show every command that clients send."),
    "bench": ("kache.cli.bench:bench", "Put load on a cluster and measure it."),
    "check-aof": ("kache.cli.files:check_aof", "Check the files of a stopped cluster."),
    "dump": ("kache.cli.files:dump", "Print what the files of a stopped cluster hold, as JSON lines."),
    "module": ("kache.cli.modules:module", "Load, replace, unload and list commands in Python."),
    "completion": ("kache.cli.main:completion", "Print the completion script for a shell."),
}


def _meant(word: str) -> str:
    """`` Did you mean 'cluster stop'?``: what people do with a cluster comes before what they do with its data."""
    from kache.commands import TABLE
    from kache.config.kinds import nearest_word

    of_clusters = importlib.import_module("kache.cli.cluster").cluster.commands
    found = nearest_word(word, [*_COMMANDS, *of_clusters])
    if not found:
        found = nearest_word(word, [row.name.replace("|", " ") for row in TABLE if row.group != "internal"])
    return f" Did you mean '{f'cluster {found}' if found in of_clusters else found}'?" if found else ""


class _Root(Group):
    """Finds a subcommand when it is named; a name of the command table becomes a command of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS.get(cmd_name)
        if place is not None:
            module, _, name = place[0].partition(":")
            found: click.Command = getattr(importlib.import_module(module), name)
            return found
        data = importlib.import_module("kache.cli.data")
        command: click.Command | None = data.shortcut(cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            ctx.fail(f"There is no command '{args[0]}'.{_meant(args[0])}")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = super().shell_complete(ctx, incomplete)
        if incomplete and not incomplete.startswith("-"):  # all of them only when the user asks for some
            data = importlib.import_module("kache.cli.data")
            own = {item.value for item in found}
            found += [CompletionItem(name) for name in data.known_names(incomplete) if name not in own]
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every data command works directly, too: `kache set greeting hello`, `kache get greeting`; `kache commands` "
    f"lists them. `kache COMMAND --help` explains one. {EXIT_STATUS}",
)
@click.version_option(__version__, "--version", "-V", prog_name="kache")
def root() -> None:
    """Kache, a cache cluster on one machine: one address for clients, one process per core behind it."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL; for bash: eval "$(kache completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "kache", "_KACHE_COMPLETE").source())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Expected failures end as one sentence, never as a traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the process lives
    try:
        status = root.main(arguments, prog_name="kache", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except Failure as error:
        error.show()
        return error.status
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command; click 8.1 prints the help itself
            click.echo(error.format_message(), err=True)
            return EXIT_USAGE
        message = " ".join(error.format_message().split())  # one line, even where click lists choices
        stop = "" if message.endswith((".", "?", "?)")) else "."
        where = f" See `{error.ctx.command_path} --help`." if error.ctx else ""
        click.echo(f"kache: {message}{stop}{where}", err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has enough; Python would complain at exit
        return 141
    except CommandError as error:
        click.echo(f"kache: {hinted(error)}", err=True)
        return EXIT_ERROR
    except KacheError as error:
        click.echo(f"kache: {sentence(str(error))}", err=True)
        return EXIT_ERROR
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        click.echo(f"kache: The system refused: {what}.", err=True)
        return EXIT_ERROR
