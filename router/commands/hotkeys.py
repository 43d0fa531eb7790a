"""HOTKEYS and BIGKEYS: which keys are used most, and which take most, over all shards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from kache.errors import CommandError
from kache.replies import Reply

from ..registry import local
from .arguments import integer

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

DEFAULT_COUNT = 10
BAD_COUNT = "ERR count must be positive"
MOST = 48
"""So many are remembered by each shard."""


async def _of_all(router: Router, command: str, count: tuple[bytes, ...]) -> tuple[dict[int, Any], int]:
    """({shard: its answer}, how many keys are wanted); shards that do not answer are missing, unless it is the only one."""
    if len(count) > 1:
        raise CommandError(f"ERR wrong number of arguments for '{command}keys' command")
    wanted = integer(count[0], BAD_COUNT) if count else DEFAULT_COUNT
    if wanted <= 0:
        raise CommandError(BAD_COUNT)
    asked = [router.call(shard, f"_{command}", [b"%d" % min(wanted, MOST)]) for shard in range(router.shard_count)]
    replies = await asyncio.gather(*asked, return_exceptions=True)
    found: dict[int, Any] = {}
    for shard, reply in enumerate(replies):
        if isinstance(reply, BaseException):
            if not isinstance(reply, CommandError) or len(asked) == 1:
                raise reply
        else:
            found[shard] = msgspec.msgpack.decode(reply)
    return found, wanted


@local("hotkeys")
async def hotkeys(router: Router, session: Session, *count: bytes) -> Reply:
    """[{key, db, shard, percent, per_second}]"""
    found, wanted = await _of_all(router, "hot", count)
    every = sum(total for total, _, _ in found.values())
    rows = [
        (uses, shard, seconds, db, key, size)
        for shard, (_, seconds, keys) in found.items()
        for db, key, size, uses in keys
    ]
    rows.sort(key=lambda row: row[0], reverse=True)
    return [
        {
            b"key": key if size == len(key) else key + b"... (%d bytes)" % size,
            b"db": db,
            b"shard": shard,
            b"percent": round(100.0 * uses / every, 2),
            b"per_second": round(uses / max(seconds, 1.0), 1),
        }
        for uses, shard, seconds, db, key, size in rows[:wanted]
    ]


@local("bigkeys")
async def bigkeys(router: Router, session: Session, *count: bytes) -> Reply:
    """[{key, db, shard, type, elements, bytes}]"""
    found, wanted = await _of_all(router, "big", count)
    rows = [
        (size, shard, db, key, kind, elements)
        for shard, keys in found.items()
        for db, key, kind, elements, size in keys
    ]
    rows.sort(key=lambda row: row[0], reverse=True)
    return [
        {b"key": key, b"db": db, b"shard": shard, b"type": kind.encode(), b"elements": elements, b"bytes": size}
        for size, shard, db, key, kind, elements in rows[:wanted]
    ]
