"""SCRIPT: what is asked of the scripts that shards know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply

from ..registry import local

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

UNKILLABLE = (
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script "
    "termination or kill the server in a hard way using the SHUTDOWN NOSAVE command."
)


@local("script|load")
async def load(router: Router, session: Session, text: bytes) -> Reply:
    """The digest, once every shard knows the script."""
    sha = (await router.call_all("_script_load", [text], session=session))[0]
    # For shards that are started later.
    router.scripts[sha] = text
    return sha


@local("script|exists")
async def exists(router: Router, session: Session, *shas: bytes) -> Reply:
    """1 for each that every shard knows."""
    replies = await router.call_all("_script_exists", list(shas), session=session)
    return [min(known) for known in zip(*replies, strict=True)]


@local("script|flush")
async def flush(router: Router, session: Session, *options: bytes) -> Reply:
    """OK once no shard knows any."""
    if len(options) > 1 or (options and options[0].upper() not in (b"SYNC", b"ASYNC")):
        raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    router.scripts.clear()
    await router.call_all("_script_flush", [], session=session)
    return OK


@local("script|kill")
def kill(router: Router, session: Session) -> Reply:
    """OK when a script was running that has not written."""
    running = [shard for shard in range(router.shard_count) if router.running.runs_for(shard) >= 0]
    if not running:
        raise CommandError("NOTBUSY No scripts in execution right now.")
    clean = [shard for shard in running if not router.running.has_written(shard)]
    if not clean:
        raise CommandError(UNKILLABLE)
    for shard in clean:
        router.running.kill(shard)
    return OK


@local("script|show")
async def show(router: Router, session: Session, sha: bytes) -> Reply:
    """The text of a script that some shard knows."""
    if len(sha) == 40:
        for text in await router.call_all("_script_show", [sha], session=session):
            if text is not None:
                return text
    raise CommandError("NOSCRIPT No matching script.")
