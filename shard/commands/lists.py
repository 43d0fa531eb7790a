"""Handlers of the list commands.

Owns: their semantics, for keys that lie on one shard (the router works a move between shards out of pops
and pushes). Promises: no collection outlives a call, every change goes through the keyspace's mutators,
arguments are looked at in the real server's order, so that the same error wins.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import NO_SUCH_KEY, OUT_OF_RANGE, SYNTAX, CommandError
from kache.replies import NULL_ARRAY, OK, Reply

from .arguments import INT64_MAX, bounded_integer, inclusive_span, integer, pop_options
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["is_left"]

_NOT_POSITIVE = "ERR value is out of range, must be positive"
_RANK_ZERO = (
    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... "
    "or use negative to start from the end of the list"
)


def is_left(word: bytes) -> bool:
    """Which end a word means; syntax error for any other."""
    side = word.upper()
    if side not in (b"LEFT", b"RIGHT"):
        raise CommandError(SYNTAX)
    return side == b"LEFT"


# Ends --------------------------------------------------------------------------------------------


@command("lpush")
def lpush(ctx: Context, key: bytes, *values: bytes) -> Reply:
    return ctx.keys.list_push(key, values, True)


@command("rpush")
def rpush(ctx: Context, key: bytes, *values: bytes) -> Reply:
    return ctx.keys.list_push(key, values, False)


@command("lpushx")
def lpushx(ctx: Context, key: bytes, *values: bytes) -> Reply:
    return ctx.keys.list_push(key, values, True) if ctx.keys.list_length(key) else 0


@command("rpushx")
def rpushx(ctx: Context, key: bytes, *values: bytes) -> Reply:
    return ctx.keys.list_push(key, values, False) if ctx.keys.list_length(key) else 0


@command("lpop")
def lpop(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _pop(ctx.keys, "lpop", key, arguments, True)


@command("rpop")
def rpop(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _pop(ctx.keys, "rpop", key, arguments, False)


def _pop(ks: Keyspace, name: str, key: bytes, arguments: tuple[bytes, ...], left: bool) -> Reply:
    if not arguments:
        popped = ks.list_pop(key, left, 1)
        return popped[0] if popped else None
    if len(arguments) > 1:
        raise CommandError(f"ERR wrong number of arguments for '{name}' command")
    count = bounded_integer(arguments[0], 0, INT64_MAX, _NOT_POSITIVE)
    if not ks.list_length(key):
        return NULL_ARRAY
    return ks.list_pop(key, left, count)


@command("lmpop")
def lmpop(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    keys_count = bounded_integer(raw_count, 1, INT64_MAX, "ERR numkeys should be greater than 0")
    left, count = pop_options(arguments[keys_count:], b"LEFT", b"RIGHT")
    for key in arguments[:keys_count]:
        if ctx.keys.list_length(key):
            return [key, ctx.keys.list_pop(key, left, count)]
    return NULL_ARRAY


@command("lmove")
def lmove(ctx: Context, source: bytes, destination: bytes, from_side: bytes, to_side: bytes) -> Reply:
    return _move(ctx.keys, source, destination, is_left(from_side), is_left(to_side))


@command("rpoplpush")
def rpoplpush(ctx: Context, source: bytes, destination: bytes) -> Reply:
    return _move(ctx.keys, source, destination, False, True)


def _move(ks: Keyspace, source: bytes, destination: bytes, from_left: bool, to_left: bool) -> Reply:
    element = ks.list_index(source, 0 if from_left else -1)
    if element is None:
        return None  # before the destination's type is looked at
    if source != destination:
        ks.list_length(destination)
    elif ks.list_length(source) == 1:
        return element  # a pop would delete the key, and its deadline with it
    # Taken away last, so that nothing is lost when there is no memory to put it there. With one and the same list an
    # element pushed where it was popped would be popped again: that is no change either way.
    ks.list_push(destination, (element,), to_left)
    ks.list_pop(source, from_left, 1)
    return element


# Reading -----------------------------------------------------------------------------------------


@command("llen")
def llen(ctx: Context, key: bytes) -> Reply:
    return ctx.keys.list_length(key)


@command("lindex")
def lindex(ctx: Context, key: bytes, raw_index: bytes) -> Reply:
    try:
        index = integer(raw_index)
    except CommandError:
        if ctx.keys.list_length(key):
            raise  # without the key nobody minds
        return None
    return ctx.keys.list_index(key, index)


@command("lrange")
def lrange(ctx: Context, key: bytes, raw_start: bytes, raw_stop: bytes) -> Reply:
    start, stop = integer(raw_start), integer(raw_stop)
    value = ctx.keys.list_get(key)
    if value is None:
        return []
    return value.slice(*inclusive_span(len(value), start, stop))


@command("lget")
def lget(ctx: Context, key: bytes) -> Reply:
    value = ctx.keys.list_get(key)
    return [] if value is None else value.slice(0, len(value))


@command("lpos")
def lpos(ctx: Context, key: bytes, element: bytes, *arguments: bytes) -> Reply:
    rank, count, max_compared = _lpos_options(arguments)
    value = ctx.keys.list_get(key)
    if count is None:
        found = value.positions(element, rank, 1, max_compared) if value is not None else []
        return found[0] if found else None
    return value.positions(element, rank, count, max_compared) if value is not None else []


def _lpos_options(arguments: tuple[bytes, ...]) -> tuple[int, int | None, int]:
    """RANK, COUNT (None when not given) and MAXLEN."""
    rank, count, max_compared = 1, None, 0
    for position in range(0, len(arguments), 2):
        option = arguments[position].upper()
        if option not in (b"RANK", b"COUNT", b"MAXLEN") or position + 1 == len(arguments):
            raise CommandError(SYNTAX)
        raw = arguments[position + 1]
        if option == b"RANK":
            rank = bounded_integer(raw, -INT64_MAX, INT64_MAX)
            if rank == 0:
                raise CommandError(_RANK_ZERO)
        elif option == b"COUNT":
            count = bounded_integer(raw, 0, INT64_MAX, "ERR COUNT can't be negative")
        else:
            max_compared = bounded_integer(raw, 0, INT64_MAX, "ERR MAXLEN can't be negative")
    return rank, count, max_compared


# Changing in the middle --------------------------------------------------------------------------


@command("lset")
def lset(ctx: Context, key: bytes, raw_index: bytes, element: bytes) -> Reply:
    length = ctx.keys.list_length(key)
    if not length:
        raise CommandError(NO_SUCH_KEY)
    index = integer(raw_index)
    if index < 0:
        index += length
    if not 0 <= index < length:
        raise CommandError(OUT_OF_RANGE)
    ctx.keys.list_set(key, index, element)
    return OK


@command("linsert")
def linsert(ctx: Context, key: bytes, where: bytes, pivot: bytes, element: bytes) -> Reply:
    side = where.upper()
    if side not in (b"BEFORE", b"AFTER"):
        raise CommandError(SYNTAX)
    value = ctx.keys.list_get(key)
    if value is None:
        return 0
    index = value.find(pivot)
    if index < 0:
        return -1
    length = len(value)
    ctx.keys.list_insert(key, index if side == b"BEFORE" else index + 1, element)
    return length + 1


@command("lrem")
def lrem(ctx: Context, key: bytes, raw_count: bytes, element: bytes) -> Reply:
    count = bounded_integer(raw_count, -INT64_MAX, INT64_MAX)
    return ctx.keys.list_remove(key, element, count)


@command("ltrim")
def ltrim(ctx: Context, key: bytes, raw_start: bytes, raw_stop: bytes) -> Reply:
    start, stop = integer(raw_start), integer(raw_stop)
    length = ctx.keys.list_length(key)
    if not length:
        return OK
    first, end = inclusive_span(length, start, stop)
    if first == end:
        ctx.keys.remove(key, "ltrim", emptied=True)
        return OK
    if end < length:
        ctx.keys.list_delete_range(key, end, length)
    if first > 0:
        ctx.keys.list_delete_range(key, 0, first)
    return OK
