"""SLOWLOG over the cluster: every router keeps the log of its own clients; here they become one. And SHUTDOWN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from kache.errors import CommandError
from kache.replies import OK, Reply

from ..peers import answers, ask
from ..registry import local
from ..slowlog import Entry
from .arguments import integer

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["entries_kept"]

DEFAULT_COUNT = 10
BAD_COUNT = "ERR count should be greater than or equal to -1"

_decoder = msgspec.msgpack.Decoder(list[Entry])


@local("slowlog|get")
async def slowlog_get(router: Router, session: Session, *count: bytes) -> Reply:
    """The newest entries: [id, unix seconds, microseconds, words, client address, client name]; with SHARDS also the shard that
    executed it, -1 where it was the router."""
    named = len(count) == 2 and count[1].upper() == b"SHARDS"
    if len(count) > 1 + named:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.")
    wanted = integer(count[0], BAD_COUNT) if count else DEFAULT_COUNT
    if wanted < -1:
        raise CommandError(BAD_COUNT)
    length = router.config.slowlog_max_len
    most = length if wanted < 0 else min(wanted, length)
    entries = router.slowlog.newest(most)
    for packed in (await ask(router, "slowlog", b"%d" % most)).values():
        entries += _decoder.decode(packed)
    entries.sort(key=lambda entry: entry.number, reverse=True)
    # Some clients count on six fields.
    return [list(msgspec.structs.astuple(entry))[: 7 if named else 6] for entry in entries[:most]]


@answers("slowlog")
def _newest_for_another(router: Router, words: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(router.slowlog.newest(int(words[0])))


@local("slowlog|len")
async def slowlog_len(router: Router, session: Session) -> Reply:
    """Entries kept by all routers together."""
    return await entries_kept(router)


async def entries_kept(router: Router) -> int:
    """How many entries all routers together keep, no more than the setting allows."""
    kept = sum(map(int, (await ask(router, "slowlog-len")).values())) + len(router.slowlog)
    return min(kept, router.config.slowlog_max_len)


@answers("slowlog-len")
def _length_for_another(router: Router, _words: Sequence[bytes]) -> bytes:
    return b"%d" % len(router.slowlog)


@local("slowlog|reset")
async def slowlog_reset(router: Router, session: Session) -> Reply:
    """Forgets them; the numbering goes on."""
    await ask(router, "slowlog-reset")
    router.slowlog.clear()
    return OK


@answers("slowlog-reset")
def _clear_for_another(router: Router, _words: Sequence[bytes]) -> bytes:
    router.slowlog.clear()
    return b""
