"""A command with subcommands, as ``kache`` itself and ``kache cluster`` are."""

from __future__ import annotations

import click

__all__ = ["Group"]


class Group(click.Group):
    """Lists its commands in the order they were written in, and says where an option belongs that came too early."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            ctx.fail(
                f"No such option '{error.option_name}' here: options go after the name of a command, as in "
                f"`{'kache cluster status' if ctx.parent else 'kache ping'} --port 7379`."
            )
