"""EVAL and its kin: scripts on the shard that has their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import Reply

from ..scripting.lent import Runs, run_lent
from ..scripting.scripts import NO_SCRIPT, Scripts
from .arguments import integer
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__ = ["keys_and_arguments"]


_READING = frozenset((b"eval_ro", b"evalsha_ro", b"fcall_ro"))


def _scripts(ctx: Context) -> Scripts:
    return ctx.shard.scripts


def keys_and_arguments(
    args: tuple[bytes, ...], wrong: str = "ERR value is not an integer or out of range"
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Keys and arguments, behind their number; CommandError, `wrong` where that is none."""
    try:
        count = int(args[0])
        if str(count).encode() != args[0]:
            raise ValueError
    except ValueError:
        raise CommandError(wrong) from None
    if count > len(args) - 1:
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise CommandError("ERR Number of keys can't be negative")
    return args[1 : 1 + count], args[1 + count :]


def _evaluate(ctx: Context, text: bytes, args: tuple[bytes, ...], read_only: bool) -> Reply:
    keys, rest = keys_and_arguments(args)
    scripts = _scripts(ctx)
    return scripts.answer(ctx, scripts.evaluate(text), keys, rest, read_only)


def _evaluate_known(ctx: Context, sha: bytes, args: tuple[bytes, ...], read_only: bool) -> Reply:
    keys, rest = keys_and_arguments(args)
    scripts = _scripts(ctx)
    name = sha.lower()
    if scripts.find(name) is None:
        raise CommandError(NO_SCRIPT)
    return scripts.answer(ctx, name, keys, rest, read_only)


@command("eval")
def evaluate(ctx: Context, text: bytes, *args: bytes) -> Reply:
    """Runs a script, which is known by its digest from then on."""
    return _evaluate(ctx, text, args, False)


@command("eval_ro")
def evaluate_ro(ctx: Context, text: bytes, *args: bytes) -> Reply:
    """The same for a script that may not write."""
    return _evaluate(ctx, text, args, True)


@command("evalsha")
def evaluate_known(ctx: Context, sha: bytes, *args: bytes) -> Reply:
    """Runs a script that is known."""
    return _evaluate_known(ctx, sha, args, False)


@command("evalsha_ro")
def evaluate_known_ro(ctx: Context, sha: bytes, *args: bytes) -> Reply:
    """The same for a script that may not write."""
    return _evaluate_known(ctx, sha, args, True)


@command("_script_exists")
def exists(ctx: Context, *shas: bytes) -> Reply:
    """SCRIPT EXISTS."""
    return [int(_scripts(ctx).find(sha.lower()) is not None) for sha in shas]


@command("_script_show")
def show(ctx: Context, sha: bytes) -> Reply:
    """SCRIPT SHOW."""
    script = _scripts(ctx).find(sha.lower())
    return None if script is None else script.text


@command("_script_run")
def run(ctx: Context, user: bytes, name: bytes, count: bytes, *rest: bytes) -> Reply:
    """Runs a script, a function or a command of a module for that user with keys of other shards beside its own."""
    lent = 2 * integer(count)
    text, *args = rest[lent:]
    runner: Runs
    if name.startswith((b"eval", b"fcall")):
        keys, words = keys_and_arguments(tuple(args))
    if name.startswith(b"fcall"):
        runner, sha = ctx.shard.functions, text
    elif name.startswith(b"eval"):
        runner = scripts = _scripts(ctx)
        sha = text.lower() if name.startswith(b"evalsha") else scripts.evaluate(text)
    else:
        runner, sha, keys, words = ctx.shard.modules.borrowing, name, (), rest[lent:]
    images = dict(zip(rest[:lent:2], rest[1:lent:2], strict=True))
    before, ctx.user_number = ctx.user_number, integer(user)
    try:
        return run_lent(runner, ctx, sha, keys, words, images, read_only=name in _READING)
    finally:
        ctx.user_number = before
