"""SLOWLOG over the cluster: every shard keeps its own, newest first; here they become one. And SHUTDOWN."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from kache.cluster.control import ControlError
from kache.cluster.messages import Shutdown
from kache.errors import CommandError
from kache.replies import OK, Reply

from ..peers import answers, ask, router_of
from ..registry import local
from .arguments import integer

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

DEFAULT_COUNT = 10
BAD_COUNT = "ERR count should be greater than or equal to -1"

_decoder = msgspec.msgpack.Decoder(dict[int, tuple[bytes, bytes]])


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
    if wanted >= 0:
        del entries[wanted:]
    # The shard knows a session by its number only; who it was is known as long as it is connected.
    ids = {entry[4] for entry in entries}
    names = _names(router, ids)
    if strangers := [number for number in ids if router_of(number) != router.index]:
        for packed in (await ask(router, "names", *(b"%d" % number for number in strangers))).values():
            names |= _decoder.decode(packed)
    for entry in entries:
        entry[4:] = names.get(entry[4], (b"", b""))
    return entries


def _names(router: Router, ids: Iterable[int]) -> dict[int, tuple[bytes, bytes]]:
    """(address, name) of those that are connected here."""
    known = [client for client in map(router.session_by_id, ids) if client is not None]
    return {client.id: (client.address.encode(), client.name) for client in known}


@answers("names")
def _names_for_another(router: Router, ids: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(_names(router, map(int, ids)))


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
