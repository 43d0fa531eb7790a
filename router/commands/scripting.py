"""SCRIPT: what is asked of the scripts that shards know. The supervisor keeps those that are loaded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kache.cluster.control import ControlError
from kache.cluster.messages import FunctionChange, ScriptChange
from kache.errors import CommandError
from kache.replies import OK, Reply

from ..registry import local

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

MOST_SCRIPT_BYTES = 8 * 1024 * 1024
"""It travels in one message, to the supervisor and to each shard."""
NOT_BUSY = "NOTBUSY No scripts in execution right now."
BUSY = "BUSY Redis is busy running a script. You can only call {} KILL or SHUTDOWN NOSAVE."
UNKILLABLE = (
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script "
    "termination or kill the server in a hard way using the SHUTDOWN NOSAVE command."
)


async def ask_supervisor(router: Router, message: ScriptChange | FunctionChange) -> None:
    """Has it change something; CommandError with what the client is told."""
    try:
        await router.control.request(message)
    except ControlError as error:
        text = str(error)
        raise CommandError(text if text.partition(" ")[0].isupper() else f"ERR {text}") from None


def refuse_while_busy(router: Router) -> None:
    """CommandError while a shard runs a script or function for so long that it answers nothing."""
    threshold = router.config.busy_reply_threshold
    for shard in range(router.shard_count):
        if router.running.runs_for(shard) >= threshold > 0:
            raise CommandError(BUSY.format("FUNCTION" if router.running.is_function(shard) else "SCRIPT"))


def end_running(router: Router, functions: bool) -> Reply:
    """OK when a script, or a function, was running that has not written."""
    running = [shard for shard in range(router.shard_count) if router.running.runs_for(shard) >= 0]
    if not running:
        raise CommandError(NOT_BUSY)
    asked = [shard for shard in running if router.running.is_function(shard) == functions]
    if not asked:
        raise CommandError(BUSY.format("SCRIPT" if functions else "FUNCTION"))
    clean = [shard for shard in asked if not router.running.has_written(shard)]
    # Of those that write in this moment nobody can say yet which was first.
    killed = [router.running.kill(shard) for shard in clean]
    if not any(killed):
        raise CommandError(UNKILLABLE)
    return OK


@local("script|load")
async def load(router: Router, session: Session, text: bytes) -> Reply:
    """The digest, once every shard knows the script."""
    if len(text) > MOST_SCRIPT_BYTES:
        raise CommandError(f"ERR a script that is loaded may have {MOST_SCRIPT_BYTES} bytes")
    await ask_supervisor(router, ScriptChange(0, text))
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


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
    await ask_supervisor(router, ScriptChange(0))
    return OK


@local("script|kill")
def kill(router: Router, session: Session) -> Reply:
    """OK when a script was running that has not written."""
    return end_running(router, functions=False)


@local("script|show")
async def show(router: Router, session: Session, sha: bytes) -> Reply:
    """The text of a script that some shard knows."""
    if len(sha) == 40:
        for text in await router.call_all("_script_show", [sha], session=session):
            if text is not None:
                return text
    raise CommandError("NOSCRIPT No matching script.")
