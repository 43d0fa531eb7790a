"""Handlers of the set commands.

Owns: their semantics and reply shapes, for keys that lie on one shard. Promises: no collection outlives a call, every
change goes through the keyspace's mutators, and random choices cost time for what they return.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import SYNTAX, CommandError
from kache.replies import Reply, SetReply

from .arguments import INT64_MAX, bounded_integer, parse_integer
from .combine import combine, count_common
from .hashes import random_count, sample_fields
from .registry import command
from .scanning import scan_cursor, scan_options

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace


_INTSET_ENTRIES = 512
"""Members up to which the real server, by default, makes an answer of integers an intset, which is in order."""


def _in_order(members: list[bytes]) -> list[bytes]:
    """The members of an answer as the real server lists them: ascending if they are integers and not too many."""
    if len(members) <= _INTSET_ENTRIES and all(parse_integer(member) is not None for member in members):
        members.sort(key=int)
    return members


# Members -----------------------------------------------------------------------------------------


@command("sadd")
def sadd(ctx: Context, key: bytes, *members: bytes) -> Reply:
    return sum(ctx.keys.set_add(key, member) for member in members)


@command("srem")
def srem(ctx: Context, key: bytes, *members: bytes) -> Reply:
    if ctx.keys.set_get(key) is None:
        return 0
    return sum(ctx.keys.set_remove(key, member) for member in members)


@command("sismember")
def sismember(ctx: Context, key: bytes, member: bytes) -> Reply:
    table = ctx.keys.set_get(key)
    return int(table is not None and member in table)


@command("smismember")
def smismember(ctx: Context, key: bytes, *members: bytes) -> Reply:
    table = ctx.keys.set_get(key)
    if table is None:
        return [0] * len(members)
    return [int(member in table) for member in members]


@command("smembers")
def smembers(ctx: Context, key: bytes) -> Reply:
    table = ctx.keys.set_get(key)
    return SetReply() if table is None else SetReply(table.fields())


@command("scard")
def scard(ctx: Context, key: bytes) -> Reply:
    table = ctx.keys.set_get(key)
    return 0 if table is None else len(table)


@command("smove")
def smove(ctx: Context, source: bytes, destination: bytes, member: bytes) -> Reply:
    table = ctx.keys.set_get(source)
    if table is None:
        return 0  # before the destination's type is looked at
    ctx.keys.set_get(destination)
    if member not in table:
        return 0
    if source != destination:
        # Added first: without memory for it the member stays where it is.
        ctx.keys.set_add(destination, member)
        ctx.keys.set_remove(source, member)
    return 1


@command("sscan")
def sscan(ctx: Context, key: bytes, raw_cursor: bytes, *arguments: bytes) -> Reply:
    cursor = scan_cursor(raw_cursor)
    table = ctx.keys.set_get(key)
    if table is None:
        return [b"0", []]
    options = scan_options(arguments, "set")
    next_cursor, items = table.scan(cursor, options.count)  # of a small one everything, as from the real server
    members = [member for member, _ in items]
    if options.matches is not None:
        members = [member for member in members if options.matches(member)]
    return [b"%d" % next_cursor, members]


# Random members ----------------------------------------------------------------------------------


@command("srandmember")
def srandmember(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    if len(arguments) > 1:
        raise CommandError(SYNTAX)
    if not arguments:
        table = ctx.keys.set_get(key)
        return None if table is None else table.random()
    count = random_count(arguments[0])
    table = ctx.keys.set_get(key)
    if table is None:
        return []
    return table.fields() if count >= len(table) else sample_fields(table, count)


@command("spop")
def spop(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    if len(arguments) > 1:
        raise CommandError(SYNTAX)
    if arguments:
        return _pop_many(ctx.keys, key, arguments[0])
    table = ctx.keys.set_get(key)
    if table is None:
        return None
    member = table.random()
    ctx.keys.set_remove(key, member, event="spop")
    return member


def _pop_many(ks: Keyspace, key: bytes, raw_count: bytes) -> Reply:
    count = bounded_integer(raw_count, 0, INT64_MAX, "ERR value is out of range, must be positive")
    table = ks.set_get(key)
    if table is None or count == 0:
        return SetReply()
    if count >= len(table):
        members = table.fields()
        ks.remove(key, "spop", emptied=True)
        return SetReply(members)
    popped = SetReply(sample_fields(table, count))
    for member in popped:
        ks.set_remove(key, member, event="spop")
    return popped


# Set algebra -------------------------------------------------------------------------------------


@command("sinter")
def sinter(ctx: Context, *keys: bytes) -> Reply:
    return SetReply(_in_order(combine(ctx, "inter", b"", keys).members()))


@command("sunion")
def sunion(ctx: Context, *keys: bytes) -> Reply:
    return SetReply(_in_order(combine(ctx, "union", b"", keys).members()))


@command("sdiff")
def sdiff(ctx: Context, *keys: bytes) -> Reply:
    return SetReply(_in_order(combine(ctx, "diff", b"", keys).members()))


@command("sinterstore")
def sinterstore(ctx: Context, destination: bytes, *keys: bytes) -> Reply:
    return combine(ctx, "inter", destination, keys).put(ctx.keys, event="sinterstore")


@command("sunionstore")
def sunionstore(ctx: Context, destination: bytes, *keys: bytes) -> Reply:
    return combine(ctx, "union", destination, keys).put(ctx.keys, event="sunionstore")


@command("sdiffstore")
def sdiffstore(ctx: Context, destination: bytes, *keys: bytes) -> Reply:
    return combine(ctx, "diff", destination, keys).put(ctx.keys, event="sdiffstore")


@command("sintercard")
def sintercard(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    count = bounded_integer(raw_count, 1, INT64_MAX, "ERR numkeys should be greater than 0")
    if count > len(arguments):
        raise CommandError("ERR Number of keys can't be greater than number of args")
    limit = 0
    for position in range(count, len(arguments), 2):
        if arguments[position].upper() != b"LIMIT" or position + 1 == len(arguments):
            raise CommandError(SYNTAX)
        limit = bounded_integer(arguments[position + 1], 0, INT64_MAX, "ERR LIMIT can't be negative")
    return count_common(ctx, arguments[:count], limit, scored=False)
