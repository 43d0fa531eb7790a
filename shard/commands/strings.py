"""Handlers of the string commands.

Owns: their semantics and reply shapes; bit commands are in bits.py, the longest common subsequence in lcs.py.
Promises: options are read before any key is looked at, every change goes through the keyspace's mutators,
a failed command changes nothing. Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from kache.errors import NOT_FLOAT, NOT_INTEGER, CommandError
from kache.replies import OK, Reply

from . import long_double
from .arguments import (
    INT64_MAX,
    INT64_MIN,
    StringOptions,
    absolute_deadline,
    bounded_integer,
    integer,
    parse_integer,
    string_options,
)
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["MAX_STRING", "check_size", "clip_range"]

MAX_STRING = 512 * 1024 * 1024
"""Bytes a string may grow to (the real server's proto-max-bulk-len)."""

_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
_OVERFLOW = "ERR increment or decrement would overflow"
_WRONG_PAIRS = "ERR wrong number of arguments for '{}' command"
_SET_WORDS = frozenset((b"NX", b"XX", b"IFEQ", b"GET", b"KEEPTTL"))
_GETEX_WORDS = frozenset((b"PERSIST",))
_MSETEX_WORDS = frozenset((b"NX", b"XX", b"KEEPTTL"))


def check_size(size: int) -> None:
    """CommandError when a string would grow beyond MAX_STRING bytes."""
    if size > MAX_STRING:
        raise CommandError(_TOO_LONG)


def clip_range(start: int, end: int, length: int) -> tuple[int, int]:
    """Redis's inclusive, possibly negative range as a half-open one within [0, length]; (0, 0) when empty."""
    if start < 0 and end < 0 and start > end:
        return 0, 0
    start = max(start + length, 0) if start < 0 else start
    end = max(end + length, 0) if end < 0 else end
    end = min(end, length - 1)
    return (0, 0) if start > end else (start, end + 1)


# Reading -----------------------------------------------------------------------------------------


@command("get")
def get(ctx: Context, key: bytes) -> Reply:
    return ctx.keys.string_get(key)


@command("mget")
def mget(ctx: Context, *keys: bytes) -> Reply:
    return [ctx.keys.string_get(key) if ctx.keys.type_of(key) == "string" else None for key in keys]


@command("strlen")
def strlen(ctx: Context, key: bytes) -> Reply:
    return ctx.keys.string_length(key)


@command("getrange")
def getrange(ctx: Context, key: bytes, start: bytes, end: bytes) -> Reply:
    first, last = integer(start), integer(end)
    begin, stop = clip_range(first, last, ctx.keys.string_length(key))
    if stop <= begin:
        return b""
    return ctx.in_turn((key, start, end), stop - begin) or ctx.keys.string_slice(key, begin, stop, used=True)


@command("substr")
def substr(ctx: Context, key: bytes, start: bytes, end: bytes) -> Reply:
    return getrange(ctx, key, start, end)


# Setting -----------------------------------------------------------------------------------------


def _store(ks: Keyspace, key: bytes, value: bytes, options: StringOptions) -> None:
    """Sets the value with its deadline; one that has passed deletes the key at once."""
    if options.deadline and options.deadline <= ks.now_ms:
        ks.remove(key, "expired")
    else:
        ks.string_set(key, value, options.deadline, options.keep_ttl)


def _permitted(ks: Keyspace, key: bytes, options: StringOptions) -> bool:
    """Whether SET's condition holds."""
    if options.condition == "NX":
        return not ks.exists(key)
    if options.condition == "XX":
        return ks.exists(key)
    return options.condition != "IFEQ" or ks.string_get(key) == options.equals


@command("set")
def set_(ctx: Context, key: bytes, value: bytes, *args: bytes) -> Reply:
    if not args:
        ctx.keys.string_set(key, value)
        return OK
    options = string_options("set", args, ctx.keys.now_ms, _SET_WORDS)
    before = ctx.keys.string_get(key) if options.get else None
    permitted = _permitted(ctx.keys, key, options)
    if permitted:
        _store(ctx.keys, key, value, options)
    if options.get:
        return before
    return OK if permitted else None


@command("setex")
def setex(ctx: Context, key: bytes, seconds: bytes, value: bytes) -> Reply:
    deadline = absolute_deadline(seconds, 1000, ctx.keys.now_ms, "setex", positive=True)
    ctx.keys.string_set(key, value, deadline)
    return OK


@command("psetex")
def psetex(ctx: Context, key: bytes, milliseconds: bytes, value: bytes) -> Reply:
    deadline = absolute_deadline(milliseconds, 1, ctx.keys.now_ms, "psetex", positive=True)
    ctx.keys.string_set(key, value, deadline)
    return OK


@command("setnx")
def setnx(ctx: Context, key: bytes, value: bytes) -> Reply:
    if ctx.keys.exists(key):
        return 0
    ctx.keys.string_set(key, value)
    return 1


@command("getset")
def getset(ctx: Context, key: bytes, value: bytes) -> Reply:
    before = ctx.keys.string_get(key)
    ctx.keys.string_set(key, value)
    return before


@command("getdel")
def getdel(ctx: Context, key: bytes) -> Reply:
    before = ctx.keys.string_get(key)
    if before is not None:
        ctx.keys.delete(key)
    return before


@command("delifeq")
def delifeq(ctx: Context, key: bytes, value: bytes) -> Reply:
    return int(ctx.keys.string_get(key) == value and ctx.keys.delete(key))


@command("getex")
def getex(ctx: Context, key: bytes, *args: bytes) -> Reply:
    options = string_options("getex", args, ctx.keys.now_ms, _GETEX_WORDS)
    value = ctx.keys.string_get(key)
    if value is not None:
        if options.deadline:
            ctx.keys.deadline_set(key, options.deadline)
        elif options.persist:
            ctx.keys.deadline_clear(key)
    return value


@command("mset")
def mset(ctx: Context, *args: bytes) -> Reply:
    if len(args) % 2:
        raise CommandError(_WRONG_PAIRS.format("mset"))
    for key, value in zip(args[::2], args[1::2], strict=True):
        ctx.shard.begin_unit()  # a key that is named twice is set twice
        ctx.keys.string_set(key, value)
    return OK


@command("msetnx")
def msetnx(ctx: Context, *args: bytes) -> Reply:
    if len(args) % 2:
        raise CommandError(_WRONG_PAIRS.format("msetnx"))
    if any(ctx.keys.exists(key) for key in args[::2]):
        return 0
    for key, value in zip(args[::2], args[1::2], strict=True):
        ctx.shard.begin_unit()
        ctx.keys.string_set(key, value)
    return 1


@command("msetex")
def msetex(ctx: Context, numkeys: bytes, *args: bytes) -> Reply:
    count = bounded_integer(numkeys, 1, INT64_MAX // 2, "ERR invalid numkeys value or out of range")
    if count > 2**31 - 1:
        raise CommandError("ERR invalid numkeys value or out of range")
    if len(args) < count * 2:
        raise CommandError("ERR syntax error")
    options = string_options("msetex", args[count * 2 :], ctx.keys.now_ms, _MSETEX_WORDS)
    pairs = list(zip(args[: count * 2 : 2], args[1 : count * 2 : 2], strict=True))
    if options.condition and any(ctx.keys.exists(key) != (options.condition == "XX") for key, _ in pairs):
        return 0
    for key, value in pairs:
        _store(ctx.keys, key, value, options)
    return 1


# Counting ----------------------------------------------------------------------------------------


def _add(ks: Keyspace, key: bytes, amount: int) -> int:
    """Adds to the integer at `key` (0 when missing), keeping its TTL; returns the sum."""
    current = ks.string_get(key)
    total = amount + (0 if current is None else integer(current))
    if not INT64_MIN <= total <= INT64_MAX:
        raise CommandError(_OVERFLOW)
    ks.string_set(key, b"%d" % total, keep_ttl=True, event="incrby")
    return total


@command("incr")
def incr(ctx: Context, key: bytes) -> Reply:
    return _add(ctx.keys, key, 1)


@command("decr")
def decr(ctx: Context, key: bytes) -> Reply:
    return _add(ctx.keys, key, -1)


@command("incrby")
def incrby(ctx: Context, key: bytes, increment: bytes) -> Reply:
    return _add(ctx.keys, key, integer(increment))


@command("decrby")
def decrby(ctx: Context, key: bytes, decrement: bytes) -> Reply:
    amount = parse_integer(decrement)
    if amount is None:
        raise CommandError(NOT_INTEGER)
    if amount == INT64_MIN:  # it has no negative
        raise CommandError("ERR decrement would overflow")
    return _add(ctx.keys, key, -amount)


@command("incrbyfloat")
def incrbyfloat(ctx: Context, key: bytes, increment: bytes) -> Reply:
    stored = ctx.keys.string_get(key)
    current = long_double.parse(stored) if stored is not None else Fraction(0)
    amount = long_double.parse(increment)
    if current is None or amount is None:
        raise CommandError(NOT_FLOAT)
    total = long_double.add(current, amount)
    if not isinstance(total, Fraction):
        raise CommandError("ERR increment would produce NaN or Infinity")
    text = long_double.human_text(total)
    ctx.keys.string_set(key, text, keep_ttl=True, event="incrbyfloat")
    return text


# Growing -----------------------------------------------------------------------------------------


@command("append")
def append(ctx: Context, key: bytes, data: bytes) -> Reply:
    check_size(ctx.keys.string_length(key) + len(data))
    return ctx.keys.string_append(key, data)


@command("setrange")
def setrange(ctx: Context, key: bytes, offset: bytes, data: bytes) -> Reply:
    start = integer(offset)
    if start < 0:
        raise CommandError("ERR offset is out of range")
    length = ctx.keys.string_length(key)
    if not data:
        return length
    check_size(start + len(data))
    return ctx.keys.string_overlay(key, start, data)
