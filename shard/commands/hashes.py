"""Handlers of the hash commands (field TTLs are in hash_ttl.py).

Owns: the commands' semantics and reply shapes. Promises: no collection outlives a call, every change
goes through the keyspace's mutators, and random choices cost time for what they return, not for what
the hash holds. Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

import random
from fractions import Fraction
from typing import TYPE_CHECKING

from kache.errors import HASH_NOT_FLOAT, HASH_NOT_INTEGER, NOT_FLOAT, SYNTAX, CommandError
from kache.replies import OK, Pairs, Reply

from . import long_double
from .arguments import INT64_MAX, INT64_MIN, bounded_integer, integer
from .registry import command
from .scanning import scan_cursor, scan_options

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace
    from ..engine.fields import FieldTable

__all__ = ["check_draws", "random_count", "sample_fields"]

_RANDOM_LIMIT = INT64_MAX
_MOST_DRAWS = 1_000_000
"""Elements that a negative count may ask for: the real server streams any number, a shard answers in one piece."""
_SPARSE_SAMPLE = 3
"""A hash this many times larger than the sample is drawn from; a smaller one is shuffled."""


# Reading -----------------------------------------------------------------------------------------


@command("hget")
def hget(ctx: Context, key: bytes, field: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    return None if table is None else table.get(field)


@command("hmget")
def hmget(ctx: Context, key: bytes, *fields: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    if table is None:
        return [None] * len(fields)
    return [table.get(field) for field in fields]


@command("hgetall")
def hgetall(ctx: Context, key: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    return {} if table is None else dict(table.items())


@command("hkeys")
def hkeys(ctx: Context, key: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    return [] if table is None else table.fields()


@command("hvals")
def hvals(ctx: Context, key: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    return [] if table is None else table.values()


@command("hlen")
def hlen(ctx: Context, key: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    return 0 if table is None else len(table)


@command("hexists")
def hexists(ctx: Context, key: bytes, field: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    return int(table is not None and field in table)


@command("hstrlen")
def hstrlen(ctx: Context, key: bytes, field: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    value = None if table is None else table.get(field)
    return 0 if value is None else len(value)


@command("hscan")
def hscan(ctx: Context, key: bytes, raw_cursor: bytes, *arguments: bytes) -> Reply:
    cursor = scan_cursor(raw_cursor)
    table = ctx.keys.hash_get(key)
    if table is None:
        return [b"0", []]
    options = scan_options(arguments, "hash")
    next_cursor, items = table.scan(cursor, options.count)  # of a small one everything, as from the real server
    if options.matches is not None:
        items = [item for item in items if options.matches(item[0])]
    if options.names_only:
        return [b"%d" % next_cursor, [field for field, _ in items]]
    return [b"%d" % next_cursor, [part for item in items for part in item]]


@command("hrandfield")
def hrandfield(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    if not arguments:
        table = ctx.keys.hash_get(key)
        return None if table is None else table.random()
    count = random_count(arguments[0])
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() != b"WITHVALUES"):
        raise CommandError(SYNTAX)
    with_values = len(arguments) == 2
    if with_values and abs(count) > _RANDOM_LIMIT // 2:
        raise CommandError("ERR value is out of range")
    table = ctx.keys.hash_get(key)
    if table is None:
        return []
    if not with_values:
        return sample_fields(table, count)
    if count < 0:
        check_draws(count)
        return Pairs(table.random_item() for _ in range(-count))
    if count >= len(table):
        return Pairs(table.items())
    return Pairs((field, table.get(field)) for field in sample_fields(table, count))


def random_count(raw: bytes) -> int:
    """The count of HRANDFIELD, SRANDMEMBER and ZRANDMEMBER; raises the real server's range error."""
    return bounded_integer(raw, -_RANDOM_LIMIT, _RANDOM_LIMIT)


def check_draws(count: int) -> None:
    """Refuses a negative count beyond what one reply may hold."""
    if count < -_MOST_DRAWS:
        raise CommandError(f"ERR value is out of range, at most {_MOST_DRAWS} elements can be drawn at once")


def sample_fields(table: FieldTable, count: int) -> list[bytes]:
    """Random fields of `table`: `count` different ones, or with a negative `count` that many draws.

    O(count), or O(len(table)) when that is less than three times as many.
    """
    if count < 0:
        check_draws(count)
        return [table.random() for _ in range(-count)]
    size = len(table)
    if count >= size:
        return table.fields()
    if count * _SPARSE_SAMPLE > size:
        return random.sample(table.fields(), count)
    # Each draw repeats an earlier one with probability below a third.
    drawn: dict[bytes, None] = {}
    while len(drawn) < count:
        drawn[table.random()] = None
    return list(drawn)


# Writing -----------------------------------------------------------------------------------------


@command("hset")
def hset(ctx: Context, key: bytes, *pairs: bytes) -> Reply:
    return _set_pairs(ctx.keys, key, pairs, "hset")


@command("hmset")
def hmset(ctx: Context, key: bytes, *pairs: bytes) -> Reply:
    _set_pairs(ctx.keys, key, pairs, "hmset")
    return OK


def _set_pairs(ks: Keyspace, key: bytes, pairs: tuple[bytes, ...], name: str) -> int:
    if len(pairs) % 2:
        raise CommandError(f"ERR wrong number of arguments for '{name}' command")
    created = 0
    for position in range(0, len(pairs), 2):
        created += ks.hash_set(key, pairs[position], pairs[position + 1])
    return created


@command("hsetnx")
def hsetnx(ctx: Context, key: bytes, field: bytes, value: bytes) -> Reply:
    table = ctx.keys.hash_get(key)
    if table is not None and field in table:
        return 0
    ctx.keys.hash_set(key, field, value)
    return 1


@command("hdel")
def hdel(ctx: Context, key: bytes, *fields: bytes) -> Reply:
    if ctx.keys.hash_get(key) is None:
        return 0
    return sum(ctx.keys.hash_delete(key, field) for field in fields)


@command("hincrby")
def hincrby(ctx: Context, key: bytes, field: bytes, raw_increment: bytes) -> Reply:
    increment = integer(raw_increment)
    table = ctx.keys.hash_get(key)
    value = None if table is None else table.get(field)
    current = 0 if value is None else integer(value, HASH_NOT_INTEGER)
    total = current + increment
    if not INT64_MIN <= total <= INT64_MAX:
        raise CommandError("ERR increment or decrement would overflow")
    ctx.keys.hash_set(key, field, b"%d" % total, keep_ttl=True, event="hincrby")
    return total


@command("hincrbyfloat")
def hincrbyfloat(ctx: Context, key: bytes, field: bytes, raw_increment: bytes) -> Reply:
    increment = long_double.parse(raw_increment)
    if increment is None:
        raise CommandError(NOT_FLOAT)
    if isinstance(increment, float):
        raise CommandError("ERR value is NaN or Infinity")
    table = ctx.keys.hash_get(key)
    value = None if table is None else table.get(field)
    current = Fraction(0) if value is None else long_double.parse(value)
    if current is None:
        raise CommandError(HASH_NOT_FLOAT)
    total = long_double.add(current, increment)
    if total is None or isinstance(total, float):
        raise CommandError("ERR increment would produce NaN or Infinity")
    text = long_double.human_text(total)
    ctx.keys.hash_set(key, field, text, keep_ttl=True, event="hincrbyfloat")
    return text
