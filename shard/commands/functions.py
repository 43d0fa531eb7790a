"""FCALL and FCALL_RO: functions on the shard that has their keys; and what routers ask about libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import Reply

from .registry import command
from .scripting import keys_and_arguments

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []

BAD_COUNT = "ERR Bad number of keys provided"


def _call(ctx: Context, name: bytes, args: tuple[bytes, ...], read_only: bool) -> Reply:
    functions = ctx.shard.functions
    functions.find(name)
    keys, rest = keys_and_arguments(args, BAD_COUNT)
    return functions.answer(ctx, name, keys, rest, read_only)


@command("fcall")
def call(ctx: Context, name: bytes, *args: bytes) -> Reply:
    """Runs a function of a library."""
    return _call(ctx, name, args, False)


@command("fcall_ro")
def call_ro(ctx: Context, name: bytes, *args: bytes) -> Reply:
    """The same for a function that says that it does not write."""
    return _call(ctx, name, args, True)


@command("_functions")
def functions(ctx: Context, *codes: bytes) -> Reply:
    """[name, its code if asked for, [name, description, flags] of each function] of each library."""
    if len(codes) > 1:
        raise CommandError("ERR wrong number of arguments for '_functions' command")
    return [
        [
            library.name.encode(),
            library.code if codes else None,
            [
                [each.name, each.description, [flag.encode() for flag in each.flags]]
                for each in library.functions.values()
            ],
        ]
        for library in ctx.shard.functions.libraries.values()
    ]
