"""Handlers of XINFO: what a stream, its groups and their consumers are made of."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kache.errors import NO_SUCH_KEY, CommandError
from kache.replies import Reply

from .arguments import integer
from .registry import command
from .stream_groups import no_group
from .stream_ids import HIGHEST, LOWEST, id_text
from .stream_lag import lag_of

if TYPE_CHECKING:
    from ..engine.consumer_groups import Consumer, Group, Order
    from ..engine.engine import Context
    from ..engine.stream import Stream

__all__: list[str] = []

_TOLD: Final = 10
"""Entries that FULL tells of each list, unless COUNT says otherwise."""


def _existing(ctx: Context, key: bytes) -> Stream:
    stream = ctx.keys.stream_get(key)
    if stream is None:
        raise CommandError(NO_SUCH_KEY)
    return stream


@command("xinfo|consumers")
def xinfo_consumers(ctx: Context, key: bytes, name: bytes) -> Reply:
    group = _existing(ctx, key).group(name)
    if group is None:
        raise no_group(key, name)
    now = ctx.keys.now_ms
    return [
        {b"name": each.name, b"pending": each.count, b"idle": max(now - each.seen, 0)}
        for _, each in sorted(group.consumers.items())
    ]


@command("xinfo|groups")
def xinfo_groups(ctx: Context, key: bytes) -> Reply:
    stream = _existing(ctx, key)
    return [
        {
            b"name": name,
            b"consumers": len(group.consumers),
            b"pending": len(group.pending),
            b"last-delivered-id": id_text(group.last),
            b"entries-read": None if group.read < 0 else group.read,
            b"lag": lag_of(stream, group),
        }
        for name, group in sorted((stream.groups or {}).items())
    ]


@command("xinfo|stream")
def xinfo_stream(ctx: Context, key: bytes, *args: bytes) -> Reply:
    stream = _existing(ctx, key)
    count = -1
    if args:
        if args[0].upper() != b"FULL" or len(args) not in (1, 3) or (len(args) == 3 and args[1].upper() != b"COUNT"):
            raise CommandError("ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.")
        count = integer(args[2]) if len(args) == 3 else _TOLD
        count = _TOLD if count < 0 else count
    told: dict[bytes, Any] = {
        b"length": stream.length,
        b"radix-tree-keys": stream.nodes,
        b"radix-tree-nodes": stream.nodes + 1,
        b"last-generated-id": id_text(stream.last_id),
        b"max-deleted-entry-id": id_text(stream.max_deleted_id),
        b"entries-added": stream.added,
        b"recorded-first-entry-id": id_text(stream.first_entry_id),
    }
    if not args:
        told[b"groups"] = len(stream.groups or {})
        told[b"first-entry"] = _edge(stream, reverse=False)
        told[b"last-entry"] = _edge(stream, reverse=True)
        return told
    told[b"entries"] = stream.range(LOWEST, HIGHEST, count or -1)
    told[b"groups"] = [_group(stream, group, count) for _, group in sorted((stream.groups or {}).items())]
    return told


def _edge(stream: Stream, *, reverse: bool) -> Reply:
    found = stream.range(LOWEST, HIGHEST, 1, reverse)
    return found[0] if found else None


def _first(order: Order, count: int) -> list[int]:
    return list(islice(order.from_id(LOWEST), count or None))


def _group(stream: Stream, group: Group, count: int) -> Reply:
    pending = [
        [id_text(number), each.consumer, each.delivered, each.count]
        for number, each in ((number, group.pending[number]) for number in _first(group.order, count))
    ]
    return {
        b"name": group.name,
        b"last-delivered-id": id_text(group.last),
        b"entries-read": None if group.read < 0 else group.read,
        b"lag": lag_of(stream, group),
        b"pel-count": len(group.pending),
        b"pending": pending,
        b"consumers": [_consumer(group, each, count) for _, each in sorted(group.consumers.items())],
    }


def _consumer(group: Group, consumer: Consumer, count: int) -> Reply:
    pending = [
        [id_text(number), each.delivered, each.count]
        for number, each in ((number, group.pending[number]) for number in _first(consumer, count))
    ]
    return {b"name": consumer.name, b"seen-time": consumer.seen, b"pel-count": consumer.count, b"pending": pending}
