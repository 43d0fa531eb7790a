"""Handlers of the commands about TTLs of hash fields: HEXPIRE and its family, HSETEX, HGETEX, HGETDEL.

Owns: their grammar (options before ``FIELDS n field …``) and semantics. Promises: as hashes.py.
Deadlines are absolute unix milliseconds; one that has passed deletes the field at once.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from kache.errors import SYNTAX, CommandError
from kache.replies import Reply

from .arguments import INT64_MAX, integer
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__: list[str] = []

_FIELD_COUNT = "ERR numfields should be greater than 0 and match the provided number of fields"

# What each changing command answers for one field.
_NO_FIELD = -2
_NO_DEADLINE = -1
_UNCHANGED = 0
_CHANGED = 1
_DELETED = 2

_Parsed = TypeVar("_Parsed")

_UNITS = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}
"""Option → (milliseconds of its unit, whether it counts from now)."""


# Setting and clearing deadlines ------------------------------------------------------------------


@command("hexpire")
def hexpire(ctx: Context, key: bytes, raw_time: bytes, *arguments: bytes) -> Reply:
    return _expire(ctx.keys, key, raw_time, arguments, "hexpire", 1000, ctx.keys.now_ms)


@command("hpexpire")
def hpexpire(ctx: Context, key: bytes, raw_time: bytes, *arguments: bytes) -> Reply:
    return _expire(ctx.keys, key, raw_time, arguments, "hpexpire", 1, ctx.keys.now_ms)


@command("hexpireat")
def hexpireat(ctx: Context, key: bytes, raw_time: bytes, *arguments: bytes) -> Reply:
    return _expire(ctx.keys, key, raw_time, arguments, "hexpireat", 1000, 0)


@command("hpexpireat")
def hpexpireat(ctx: Context, key: bytes, raw_time: bytes, *arguments: bytes) -> Reply:
    return _expire(ctx.keys, key, raw_time, arguments, "hpexpireat", 1, 0)


def _expire(
    ks: Keyspace, key: bytes, raw_time: bytes, arguments: tuple[bytes, ...], name: str, unit: int, base: int
) -> Reply:
    conditions, fields = _split_at_fields(arguments, _conditions)
    deadline = _deadline(raw_time, unit, base, name)
    if ks.hash_get(key) is None:
        return [_NO_FIELD] * len(fields)
    return [_expire_field(ks, key, field, deadline, conditions) for field in fields]


def _expire_field(ks: Keyspace, key: bytes, field: bytes, deadline: int, conditions: set[bytes]) -> int:
    table = ks.hash_get(key)  # an earlier field may have been the last one
    current = None if table is None else table.deadline_of(field)
    if current is None:
        return _NO_FIELD
    # A field without a deadline counts as one that never ends.
    if (
        (b"NX" in conditions and current != -1)
        or (b"XX" in conditions and current == -1)
        or (b"GT" in conditions and (current == -1 or deadline <= current))
        or (b"LT" in conditions and current != -1 and deadline >= current)
    ):
        return _UNCHANGED
    ks.hash_deadline_set(key, field, deadline)
    return _CHANGED if deadline > ks.now_ms else _DELETED


def _conditions(options: Sequence[bytes]) -> set[bytes]:
    seen = set()
    for option in options:
        if option.upper() not in (b"NX", b"XX", b"GT", b"LT"):
            raise CommandError(f"ERR Unsupported option {option.decode('utf-8', 'surrogateescape')}")
        seen.add(option.upper())
    if b"NX" in seen and len(seen) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in seen and b"LT" in seen:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return seen


@command("hpersist")
def hpersist(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    fields = _fields_only(arguments, _FIELD_COUNT)
    if ctx.keys.hash_get(key) is None:
        return [_NO_FIELD] * len(fields)
    return [_persist_field(ctx.keys, key, field) for field in fields]


def _persist_field(ks: Keyspace, key: bytes, field: bytes) -> int:
    if ks.hash_deadline_clear(key, field):
        return _CHANGED
    table = ks.hash_get(key)
    return _NO_DEADLINE if table is not None and field in table else _NO_FIELD


# Reading deadlines -------------------------------------------------------------------------------


@command("httl")
def httl(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _time_left(ctx.keys, key, arguments, ctx.keys.now_ms, seconds=True)


@command("hpttl")
def hpttl(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _time_left(ctx.keys, key, arguments, ctx.keys.now_ms, seconds=False)


@command("hexpiretime")
def hexpiretime(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _time_left(ctx.keys, key, arguments, 0, seconds=True)


@command("hpexpiretime")
def hpexpiretime(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _time_left(ctx.keys, key, arguments, 0, seconds=False)


def _time_left(ks: Keyspace, key: bytes, arguments: tuple[bytes, ...], base: int, *, seconds: bool) -> Reply:
    fields = _fields_only(arguments, SYNTAX)
    table = ks.hash_get(key)
    answers = []
    for field in fields:
        deadline = None if table is None else table.deadline_of(field)
        if deadline is None:
            answers.append(_NO_FIELD)
        elif deadline == -1:
            answers.append(_NO_DEADLINE)
        else:
            left = max(0, deadline - base)
            answers.append((left + 500) // 1000 if seconds else left)
    return answers


# Values and deadlines together -------------------------------------------------------------------


class _Options(NamedTuple):
    """Flags in capitals; `expiry` is (EX|PX|EXAT|PXAT, the number as sent)."""

    flags: frozenset[bytes]
    expiry: tuple[bytes, bytes] | None


@command("hsetex")
def hsetex(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    options, pairs = _split_at_fields(arguments, _hsetex_options, per_field=2)
    exists = ctx.keys.hash_get(key) is not None
    if (b"NX" in options.flags and exists) or (b"XX" in options.flags and not exists):
        return 0
    deadline = _option_deadline(ctx.keys, options, "hsetex")
    if not _field_conditions_hold(ctx.keys, key, pairs[::2], options.flags):
        return 0
    if deadline is not None and deadline <= ctx.keys.now_ms:
        for field in pairs[::2]:
            if ctx.keys.hash_get(key) is not None:
                ctx.keys.hash_delete(key, field)
        return 1
    for position in range(0, len(pairs), 2):
        ctx.keys.hash_set(key, pairs[position], pairs[position + 1], keep_ttl=b"KEEPTTL" in options.flags)
        if deadline is not None:
            ctx.keys.hash_deadline_set(key, pairs[position], deadline)
    return 1


def _field_conditions_hold(ks: Keyspace, key: bytes, fields: Sequence[bytes], flags: frozenset[bytes]) -> bool:
    table = ks.hash_get(key)
    if b"FXX" in flags:
        return table is not None and all(field in table for field in fields)
    if b"FNX" in flags:
        return table is None or not any(field in table for field in fields)
    return True


@command("hgetex")
def hgetex(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    options, fields = _split_at_fields(arguments, _hgetex_options)
    exists = ctx.keys.hash_get(key) is not None  # a wrong type is noticed before a wrong time
    deadline = _option_deadline(ctx.keys, options, "hgetex")
    if not exists:
        return [None] * len(fields)
    values = []
    for field in fields:
        values.append(_value(ctx.keys, key, field))
        if values[-1] is None:
            continue
        if deadline is not None:
            ctx.keys.hash_deadline_set(key, field, deadline)
        elif b"PERSIST" in options.flags:
            ctx.keys.hash_deadline_clear(key, field)
    return values


@command("hgetdel")
def hgetdel(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    fields = _fields_only(arguments, _FIELD_COUNT)
    ctx.keys.hash_get(key)
    values = []
    for field in fields:
        values.append(_value(ctx.keys, key, field))
        if values[-1] is not None:
            ctx.keys.hash_delete(key, field)
    return values


def _value(ks: Keyspace, key: bytes, field: bytes) -> bytes | None:
    table = ks.hash_get(key)  # asked anew: the field before may have been the last one
    return None if table is None else table.get(field)


# Arguments ---------------------------------------------------------------------------------------


def _split_at_fields(
    arguments: tuple[bytes, ...], parse_options: Callable[[Sequence[bytes]], _Parsed], per_field: int = 1
) -> tuple[_Parsed, tuple[bytes, ...]]:
    """``[options] FIELDS n field …`` → what `parse_options` makes of the options, and the fields.

    Bad options are reported before a bad count; without FIELDS only the count is.
    """
    for position in range(len(arguments) - 1):
        if arguments[position].upper() == b"FIELDS":
            options = parse_options(arguments[:position])
            count = integer(arguments[position + 1])
            fields = arguments[position + 2 :]
            if count <= 0 or count * per_field != len(fields):
                break
            return options, fields
    raise CommandError(_FIELD_COUNT)


def _fields_only(arguments: tuple[bytes, ...], count_error: str) -> tuple[bytes, ...]:
    """``FIELDS n field …`` without options; a wrong count raises `count_error`."""
    if arguments[0].upper() != b"FIELDS":
        raise CommandError(SYNTAX)
    count = integer(arguments[1])
    if count <= 0 or count != len(arguments) - 2:
        raise CommandError(count_error)
    return arguments[2:]


def _hsetex_options(options: Sequence[bytes]) -> _Options:
    return _parse_options(options, ((b"NX", b"XX"), (b"FNX", b"FXX")), b"KEEPTTL")


def _hgetex_options(options: Sequence[bytes]) -> _Options:
    return _parse_options(options, (), b"PERSIST")


def _parse_options(
    options: Sequence[bytes], exclusive: tuple[tuple[bytes, bytes], ...], instead_of_expiry: bytes
) -> _Options:
    """Options in any order; one may repeat, but none may follow one that it excludes."""
    flags: set[bytes] = set()
    expiry: tuple[bytes, bytes] | None = None
    position = 0
    while position < len(options):
        option = options[position].upper()
        position += 1
        if option in _UNITS:
            if position == len(options) or instead_of_expiry in flags or (expiry and expiry[0] != option):
                raise CommandError(SYNTAX)
            expiry = (option, options[position])
            position += 1
        elif (option == instead_of_expiry and expiry is None) or any(
            option in pair and not flags.intersection(pair).difference((option,)) for pair in exclusive
        ):
            flags.add(option)
        else:
            raise CommandError(SYNTAX)
    return _Options(frozenset(flags), expiry)


def _option_deadline(ks: Keyspace, options: _Options, name: str) -> int | None:
    if options.expiry is None:
        return None
    option, raw = options.expiry
    unit, relative = _UNITS[option]
    return _deadline(raw, unit, ks.now_ms if relative else 0, name)


def _deadline(raw: bytes, unit: int, base: int, name: str) -> int:
    """Unix milliseconds of `raw` units after `base`; raises what the real server does."""
    time = integer(raw)
    deadline = time * unit + base
    if time < 0 or time * unit > INT64_MAX or deadline > INT64_MAX:
        raise CommandError(f"ERR invalid expire time in '{name}' command")
    return deadline
