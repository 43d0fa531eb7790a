"""Handlers of the commands about keys of any type: existence, deadlines, names, databases, introspection.

Owns: their semantics and reply shapes. Promises: what a deadline in the past means is decided here once (the key
goes at once), every change goes through the keyspace's mutators. The internal parts of SCAN and RANDOMKEY are
here too; the router walks the shards. Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import NO_SUCH_KEY, SYNTAX, CommandError
from kache.glob import compile_glob
from kache.replies import OK, Reply

from .arguments import (
    absolute_deadline,
    check_database,
    database_index,
    expire_condition,
    int32,
    integer,
)
from .registry import command
from .scanning import scan_cursor

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["expire_key"]

_SAME_OBJECT = "ERR source and destination objects are the same"
_TYPE_NAMES = frozenset(("string", "list", "set", "zset", "hash", "stream"))
_DEFAULT_COUNT = 10
_MAX_COUNT = 10_000
"""A larger COUNT is walked in steps of this many: a call may return fewer, and a tick must stay short."""


# Existence ---------------------------------------------------------------------------------------


@command("del")
def del_(ctx: Context, *keys: bytes) -> Reply:
    return sum(ctx.keys.delete(key) for key in keys)


@command("unlink")
def unlink(ctx: Context, *keys: bytes) -> Reply:
    # Large values go to the cleanup thread either way.
    return sum(ctx.keys.delete(key) for key in keys)


@command("exists")
def exists(ctx: Context, *keys: bytes) -> Reply:
    return sum(ctx.keys.exists(key) for key in keys)


@command("touch")
def touch(ctx: Context, *keys: bytes) -> Reply:
    return sum(ctx.keys.touch(key) for key in keys)


@command("type")
def type_(ctx: Context, key: bytes) -> Reply:
    return ctx.keys.type_of(key) or "none"


# Deadlines ---------------------------------------------------------------------------------------


def expire_key(
    ks: Keyspace, key: bytes, time: bytes, args: tuple[bytes, ...], *, name: str, unit: int, base: int
) -> int:
    """EXPIRE and its family: 1 when the deadline was set (or the key deleted by one in the past), else 0.

    `unit` is milliseconds per unit of `time`, `base` what it counts from in unix ms, `name` goes into errors.
    """
    condition = expire_condition(args)
    deadline = absolute_deadline(time, unit, base, name, positive=False)
    current = ks.deadline_of(key)
    if current is None or not condition.holds(current, deadline):
        return 0
    if deadline <= ks.now_ms:
        ks.remove(key, "expired")
    else:
        ks.deadline_set(key, deadline)
    return 1


@command("expire")
def expire(ctx: Context, key: bytes, seconds: bytes, *args: bytes) -> Reply:
    return expire_key(ctx.keys, key, seconds, args, name="expire", unit=1000, base=ctx.keys.now_ms)


@command("pexpire")
def pexpire(ctx: Context, key: bytes, milliseconds: bytes, *args: bytes) -> Reply:
    return expire_key(ctx.keys, key, milliseconds, args, name="pexpire", unit=1, base=ctx.keys.now_ms)


@command("expireat")
def expireat(ctx: Context, key: bytes, unix_seconds: bytes, *args: bytes) -> Reply:
    return expire_key(ctx.keys, key, unix_seconds, args, name="expireat", unit=1000, base=0)


@command("pexpireat")
def pexpireat(ctx: Context, key: bytes, unix_milliseconds: bytes, *args: bytes) -> Reply:
    return expire_key(ctx.keys, key, unix_milliseconds, args, name="pexpireat", unit=1, base=0)


def _deadline_reply(ks: Keyspace, key: bytes, base: int, unit: int) -> int:
    """The deadline less `base`, in units rounded to the nearest; -2 without the key, -1 without a deadline."""
    deadline = ks.deadline_of(key)
    if deadline is None:
        return -2
    if deadline == -1:
        return -1
    return (max(deadline - base, 0) + unit // 2) // unit


@command("ttl")
def ttl(ctx: Context, key: bytes) -> Reply:
    return _deadline_reply(ctx.keys, key, ctx.keys.now_ms, 1000)


@command("pttl")
def pttl(ctx: Context, key: bytes) -> Reply:
    return _deadline_reply(ctx.keys, key, ctx.keys.now_ms, 1)


@command("expiretime")
def expiretime(ctx: Context, key: bytes) -> Reply:
    return _deadline_reply(ctx.keys, key, 0, 1000)


@command("pexpiretime")
def pexpiretime(ctx: Context, key: bytes) -> Reply:
    return _deadline_reply(ctx.keys, key, 0, 1)


@command("persist")
def persist(ctx: Context, key: bytes) -> Reply:
    return int(ctx.keys.deadline_clear(key))


# Names -------------------------------------------------------------------------------------------


@command("rename")
def rename(ctx: Context, source: bytes, destination: bytes) -> Reply:
    if not ctx.keys.exists(source):
        raise CommandError(NO_SUCH_KEY)
    if source != destination:
        ctx.keys.rename(source, destination)
    return OK


@command("renamenx")
def renamenx(ctx: Context, source: bytes, destination: bytes) -> Reply:
    if not ctx.keys.exists(source):
        raise CommandError(NO_SUCH_KEY)
    if ctx.keys.exists(destination):
        return 0
    ctx.keys.rename(source, destination)
    return 1


@command("copy")
def copy(ctx: Context, source: bytes, destination: bytes, *args: bytes) -> Reply:
    database, replace = ctx.keys.db, False
    position = 0
    while position < len(args):
        word = args[position].upper()
        position += 1
        if word == b"REPLACE":
            replace = True
        elif word == b"DB" and position < len(args):
            database = database_index(args[position])
            position += 1
        else:
            raise CommandError(SYNTAX)
    if database == ctx.keys.db and source == destination:
        raise CommandError(_SAME_OBJECT)
    if not ctx.keys.exists(source):
        return 0
    if ctx.keys.exists_in(database, destination) and not replace:
        return 0
    ctx.keys.copy(source, destination, database)
    return 1


# Databases ---------------------------------------------------------------------------------------


@command("move")
def move(ctx: Context, key: bytes, database: bytes) -> Reply:
    target = database_index(database)
    if target == ctx.keys.db:
        raise CommandError(_SAME_OBJECT)
    if not ctx.keys.exists(key) or ctx.keys.exists_in(target, key):
        return 0
    return int(ctx.keys.move_db(key, target))


@command("swapdb")
def swapdb(ctx: Context, first: bytes, second: bytes) -> Reply:
    left = int32(first, "ERR invalid first DB index")
    right = int32(second, "ERR invalid second DB index")
    ctx.keys.swap(check_database(left), check_database(right))
    return OK


def _check_flush(args: tuple[bytes, ...]) -> None:
    # ASYNC and SYNC mean the same here: the cleanup thread always frees.
    if len(args) > 1 or (args and args[0].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX)


@command("flushdb")
def flushdb(ctx: Context, *args: bytes) -> Reply:
    _check_flush(args)
    ctx.keys.flush(ctx.keys.db)
    return OK


@command("flushall")
def flushall(ctx: Context, *args: bytes) -> Reply:
    _check_flush(args)
    ctx.keys.flush(None)
    return OK


@command("dbsize")
def dbsize(ctx: Context) -> Reply:
    return ctx.keys.size()


# Walking -----------------------------------------------------------------------------------------


@command("keys")
def keys(ctx: Context, pattern: bytes) -> Reply:
    later = ctx.shard.listings.begin(ctx, pattern)
    if later is not None:
        return later
    if pattern == b"*":
        return ctx.keys.keys()
    matches = compile_glob(pattern)
    present = ctx.keys.keys()
    return [key for key in present if matches(key)]


def _scan_options(args: tuple[bytes, ...]) -> tuple[bytes, int, str | None]:
    """(pattern, count, type name or None) of SCAN; CommandError for what is not understood."""
    pattern, count, type_name = b"*", _DEFAULT_COUNT, None
    for position in range(0, len(args), 2):
        option = args[position].upper()
        if position + 1 == len(args):
            raise CommandError(SYNTAX)
        value = args[position + 1]
        if option == b"COUNT":
            count = integer(value)
            if count < 1:
                raise CommandError(SYNTAX)
        elif option == b"MATCH":
            pattern = value
        elif option == b"TYPE":
            type_name = value.lower().decode(errors="surrogateescape")
            if type_name not in _TYPE_NAMES:
                raise CommandError(f"ERR unknown type name '{value.decode(errors='surrogateescape')}'")
        else:
            raise CommandError(SYNTAX)
    return pattern, min(count, _MAX_COUNT), type_name


@command("_scan")
def scan_part(ctx: Context, cursor: bytes, last: bytes, *args: bytes) -> Reply:
    """One step over this shard's slots up to `last`: [next cursor, keys, what is left of COUNT]."""
    start = scan_cursor(cursor)
    pattern, count, type_name = _scan_options(args)
    following, found, left = ctx.keys.scan(start, count, type_name, int(last))
    if pattern != b"*":
        matches = compile_glob(pattern)
        found = [key for key in found if matches(key)]
    return [b"%d" % following, found, max(left, 0)]


@command("_slot_size")
def slot_size(ctx: Context, slot: bytes) -> Reply:
    """How many keys of the database are in a slot."""
    return ctx.keys.slot_size(int(slot))


@command("_random_key")
def random_key(ctx: Context) -> Reply:
    """A key of this shard, every one equally likely; null when the database is empty."""
    return ctx.keys.random_key()
