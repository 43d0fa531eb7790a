"""Handlers of the commands that wait: BLPOP and its like, and what a router asks on behalf of one over several shards.

Each tries first, in the order of its keys; with nothing there it waits (service/blocking.py), or answers at once as if
its time were over where waiting is impossible: in a transaction, inside another command, without a link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kache.errors import WRONG_TYPE, CommandError
from kache.replies import NULL_ARRAY, OK, Reply
from kache.timeouts import timeout_ms

from .arguments import integer, pop_options
from .lists import is_left
from .registry import command
from .ways import Move, Way

if TYPE_CHECKING:
    from ..engine.engine import Context, Deferred

__all__: list[str] = []


ONE = {
    b"blpop": Way("list", True),
    b"brpop": Way("list", False),
    b"bzpopmin": Way("zset", True),
    b"bzpopmax": Way("zset", False),
}


def _way_of(words: Sequence[bytes]) -> Way:
    """The way of a pop given as its name and the arguments that are no keys, of which the timeout is the first."""
    name, _, *options = words
    if name in ONE:
        return ONE[name]
    if name == b"blmpop":
        return Way("list", *pop_options(options, b"LEFT", b"RIGHT"))
    return Way("zset", *pop_options(options, b"MIN", b"MAX"))


def _take(ctx: Context, keys: Sequence[bytes], way: Way) -> Reply:
    """What the first key that is there gives; NULL_ARRAY when none is."""
    for key in keys:
        reply = way.take(ctx.keys, key)
        if reply is not None:
            if ctx.deferred:
                ctx.shard.blocking.note_served(ctx, way, key, reply)
            return reply
    return NULL_ARRAY


def _block(ctx: Context, way: Way | Move, keys: Sequence[bytes], timeout: int) -> Reply | Deferred:
    if not ctx.may_wait:
        # As the real server: the null of the command that does not wait. Without a link its time is over at once.
        return None if isinstance(way, Move) and ctx.link is not None else NULL_ARRAY
    return ctx.shard.blocking.wait(ctx, way, keys, ctx.keys.store.now_ms + timeout if timeout else 0)


def _pop(name: bytes) -> Callable[..., Reply | Deferred]:
    way = ONE[name]

    def handler(ctx: Context, *arguments: bytes) -> Reply | Deferred:
        *keys, raw = arguments
        timeout = timeout_ms(raw, ctx.keys.store.now_ms)
        reply = _take(ctx, keys, way)
        return _block(ctx, way, keys, timeout) if reply is NULL_ARRAY else reply

    return handler


for _name in ONE:
    command(_name.decode())(_pop(_name))


def _pop_several(
    ctx: Context, name: bytes, raw: bytes, raw_count: bytes, arguments: tuple[bytes, ...]
) -> Reply | Deferred:
    count = integer(raw_count, "ERR numkeys should be greater than 0")
    if count < 1:
        raise CommandError("ERR numkeys should be greater than 0")
    keys, options = arguments[:count], arguments[count:]
    way = _way_of((name, raw, *options))
    timeout = timeout_ms(raw, ctx.keys.store.now_ms)
    reply = _take(ctx, keys, way)
    return _block(ctx, way, keys, timeout) if reply is NULL_ARRAY else reply


@command("blmpop")
def blmpop(ctx: Context, raw: bytes, raw_count: bytes, *arguments: bytes) -> Reply | Deferred:
    return _pop_several(ctx, b"blmpop", raw, raw_count, arguments)


@command("bzmpop")
def bzmpop(ctx: Context, raw: bytes, raw_count: bytes, *arguments: bytes) -> Reply | Deferred:
    return _pop_several(ctx, b"bzmpop", raw, raw_count, arguments)


@command("blmove")
def blmove(
    ctx: Context, source: bytes, target: bytes, from_side: bytes, to_side: bytes, raw: bytes
) -> Reply | Deferred:
    is_left(from_side), is_left(to_side)
    return _move(ctx, source, target, from_side, to_side, raw)


@command("brpoplpush")
def brpoplpush(ctx: Context, source: bytes, target: bytes, raw: bytes) -> Reply | Deferred:
    return _move(ctx, source, target, b"RIGHT", b"LEFT", raw)


def _move(ctx: Context, source: bytes, target: bytes, from_side: bytes, to_side: bytes, raw: bytes) -> Reply | Deferred:
    timeout = timeout_ms(raw, ctx.keys.store.now_ms)
    element = ctx.call_in_room("lmove", source, target, from_side, to_side)
    if element is not None:
        return element
    return _block(ctx, Move(target, from_side, to_side), (source,), timeout)


# For a router ---------------------------------------------------------------------------------------------
def _split(raw_count: bytes, rest: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    count = integer(raw_count)
    return rest[:count], rest[count:]


@command("_take")
def take(ctx: Context, raw_count: bytes, *rest: bytes) -> Reply:
    """``numkeys key… command [argument…]``, the arguments being those that are no keys: one attempt, without waiting.

    NULL_ARRAY when there is nothing; the errors are those of the whole command.
    """
    keys, words = _split(raw_count, rest)
    way = _way_of(words)
    timeout_ms(words[1], ctx.keys.store.now_ms)
    return _take(ctx, keys, way)


@command("_first")
def first(ctx: Context, raw_count: bytes, *rest: bytes) -> Reply:
    """``numkeys key… type``: [place of the first key that exists, whether it is of that type]; null without any."""
    keys, (kind,) = _split(raw_count, rest)
    for place, key in enumerate(keys):
        found = ctx.keys.type_of(key)
        if found is not None:
            return [place, int(found.encode() == kind)]
    return None


@command("_wait")
def wait(ctx: Context, raw_count: bytes, *rest: bytes) -> Reply | Deferred:
    """``numkeys key… cell claim command [argument…]``: waits, in competition with other shards that were told the same.

    The router minds the time. NULL_ARRAY when another one has won already.
    """
    keys, (cell, claim, *words) = _split(raw_count, rest)
    way = _way_of(words)
    for key in keys:
        found = ctx.keys.type_of(key)
        if found == way.kind:
            return ctx.shard.blocking.answer_now(ctx, way, key, integer(cell), integer(claim))
        if found is not None:
            raise CommandError(WRONG_TYPE)
    return ctx.shard.blocking.wait(ctx, way, keys, cell=integer(cell), claim=integer(claim))


@command("_since")
def since(ctx: Context, nanoseconds: bytes) -> Reply:
    """The next command of the session that waits has its place in line by this time (CLOCK_MONOTONIC)."""
    ctx.shard.blocking.note_since(ctx, integer(nanoseconds))
    return OK


@command("_await")
def await_source(ctx: Context, key: bytes) -> Reply | Deferred:
    """Waits for a list to be moved to another shard: a number as soon as there is one, which `_settle` wants to see."""
    return ctx.shard.blocking.await_source(ctx, key)


@command("_settle")
def settle(ctx: Context, key: bytes, number: bytes, again: bytes) -> Reply | Deferred:
    """The move behind that number is done; with `again` nothing was left to be moved, and it waits on in its place."""
    return ctx.shard.blocking.settle(ctx, key, integer(number), again == b"1")
