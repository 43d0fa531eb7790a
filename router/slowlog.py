"""SLOWLOG over the cluster: every shard keeps its own, newest first; here they become one. And SHUTDOWN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.control import ControlError, Shutdown
from kache.errors import CommandError
from kache.replies import OK, Reply

from .arguments import integer
from .registry import local

if TYPE_CHECKING:
    from ._mux import Router, Session

__all__: list[str] = []

DEFAULT_COUNT = 10
BAD_COUNT = "ERR count should be greater than or equal to -1"


@local("slowlog|get")
async def slowlog_get(router: Router, session: Session, *count: bytes) -> Reply:
    """The newest entries: [id, unix seconds, microseconds, words, client address, client name]."""
    if len(count) > 1:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.")
    wanted = integer(count[0], BAD_COUNT) if count else DEFAULT_COUNT
    if wanted < -1:
        raise CommandError(BAD_COUNT)
    found = await router.call_all("_slowlog", [b"get", b"%d" % wanted])
    entries = sorted(
        (entry for shard in found for entry in shard), key=lambda entry: (entry[1], entry[0]), reverse=True
    )
    for entry in entries:
        # The shard knows a session by its number only; who it was is known as long as it is connected.
        client = router.session_by_id(entry[4])
        entry[4:] = [client.address.encode(), client.name] if client is not None else [b"", b""]
    return entries if wanted < 0 else entries[:wanted]


@local("slowlog|len")
async def slowlog_len(router: Router, session: Session) -> Reply:
    """Entries kept on all shards together."""
    return sum(await router.call_all("_slowlog", [b"len"]))


@local("slowlog|reset")
async def slowlog_reset(router: Router, session: Session) -> Reply:
    """Forgets them."""
    await router.call_all("_slowlog", [b"reset"])
    return OK


@local("shutdown")
async def shutdown(router: Router, session: Session, *options: bytes) -> Reply:
    """Drains and ends the whole cluster. Options of Redis about snapshots are accepted; there is nothing to save."""
    known = {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"}
    if any(option.upper() not in known for option in options):
        raise CommandError("ERR syntax error")
    if any(option.upper() == b"ABORT" for option in options):
        raise CommandError("ERR No shutdown in progress.")
    try:
        await router.control.request(Shutdown(0))
    except ControlError as error:
        raise CommandError(f"ERR Errors trying to SHUTDOWN. {error}") from None
    # Success has no reply: clients take the end of the connection for it, and an answer for a failure.
    session.kill("SHUTDOWN")
    return None
