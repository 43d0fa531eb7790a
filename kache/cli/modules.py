"""``kache module load | unload | list``: commands in Python of a running cluster, over its admin socket."""

from __future__ import annotations

import os
import time

import click

from kache.cli.cluster import Admin, port_option, timeout_option
from kache.cli.exits import EXIT_STATUS, Failure
from kache.cli.group import Group
from kache.cluster import messages
from kache.cluster.modules import read_source
from kache.errors import KacheError

__all__ = ["module"]


@click.group("module", cls=Group, epilog=EXIT_STATUS)
def module() -> None:
    """Load, replace, unload and list commands in Python: see docs/python-commands.md."""


@module.command("load", short_help="Load a file of commands, or replace it.")
@port_option
@timeout_option
@click.option("--replace", is_flag=True, help="Load it in the place of the module of that name, if there is one.")
@click.argument("file", type=click.Path())
def load(port: int, timeout: float, replace: bool, file: str) -> int:
    """Load the commands that FILE declares, in all shards or in none.

    The module is called as the file, without folder and .py. It stays loaded until it is unloaded or the cluster stops;
    the setting modules loads it with every start.
    """
    try:
        source = read_source(file)
    except KacheError as error:
        text = str(error)
        raise Failure(f"{text[0].upper()}{text[1:]}.") from None
    admin = Admin(port, timeout)
    admin.request(messages.ModuleLoad(1, os.path.abspath(file), source, replace))
    name = os.path.basename(file).removesuffix(".py")
    commands = next((each.commands for each in _listed(admin) if each.name == name), [])
    click.echo(f"The module {name} is loaded: {', '.join(commands)}.")
    return 0


@module.command("unload", short_help="Make the commands of a module unknown.")
@port_option
@timeout_option
@click.argument("name")
def unload(port: int, timeout: float, name: str) -> int:
    """Make the commands of the module NAME unknown. What they have stored stays."""
    Admin(port, timeout).request(messages.ModuleUnload(1, name))
    click.echo(f"The module {os.path.basename(name).removesuffix('.py')} is unloaded.")
    return 0


@module.command("list", short_help="Show the modules and their commands.")
@port_option
@timeout_option
def show_modules(port: int, timeout: float) -> int:
    """Show the modules of a cluster, their commands, their files, and when they were loaded."""
    found = _listed(Admin(port, timeout))
    if not found:
        click.echo("No module is loaded.")
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.loaded_ms / 1000))
        click.echo(f"{each.name}: {', '.join(each.commands)}  ({each.path}, loaded {when})")
    return 0


def _listed(admin: Admin) -> list[messages.ModuleStatus]:
    answer = admin.request(messages.ModuleList(2))
    assert isinstance(answer, messages.ModulesReply)
    return answer.modules
