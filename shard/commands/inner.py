"""What routers answer to clients, as programs are answered: a script has no router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import Reply

from .arguments import integer
from .registry import inner

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []

DATABASES = 16


@inner("ping")
def ping(ctx: Context, *words: bytes) -> Reply:
    """PONG, or what was sent."""
    if len(words) > 1:
        raise CommandError("ERR wrong number of arguments for 'ping' command")
    return words[0] if words else "PONG"


@inner("echo")
def echo(ctx: Context, word: bytes) -> Reply:
    """What was sent."""
    return word


@inner("time")
def time(ctx: Context) -> Reply:
    """The time stands still while a script runs."""
    seconds, milliseconds = divmod(ctx.keys.store.now_ms, 1000)
    return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]


@inner("select")
def select(ctx: Context, number: bytes) -> Reply:
    """Another database, until the script ends."""
    db = integer(number)
    if not 0 <= db < DATABASES:
        raise CommandError("ERR DB index is out of range")
    ctx.keys.db = db
    return "OK"


@inner("wait")
def wait(ctx: Context, replicas: bytes, timeout: bytes) -> Reply:
    """There are none."""
    integer(replicas), integer(timeout)
    return 0
