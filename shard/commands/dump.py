"""DUMP and RESTORE. Values that move between shards go as images (images.py), not as payloads.

Owns: the payload's format, Kache's own:

    payload   "KD" | u8 version | u32 CRC-32 of the body, little-endian | body
    body      msgpack array: the type's name, then
              string [value, grown]   list [values]   set [members]
              zset [[member, score, …]]   hash [[field, value, …], [[field, deadline in unix ms] …]]

Promises: a payload with a flipped or missing byte, or of another version, is refused, never half restored; what
RESTORE answers is what the real server answers for its own format. Called through the registry.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from kache.errors import SYNTAX, CommandError
from kache.replies import OK, Reply

from .arguments import INT64_MAX, integer
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["dump_value", "restore_value"]

_MAGIC = b"KD"
_VERSION = 1
_HEADER = struct.Struct("<2sBI")
_BAD_PAYLOAD = "ERR DUMP payload version or checksum are wrong"
_BAD_DATA = "ERR Bad data format"
_BUSY = "BUSYKEY Target key name already exists."

_Body = list[Any]


# Writing -----------------------------------------------------------------------------------------


def _body(ks: Keyspace, key: bytes, kind: str) -> _Body:
    """The value as what msgpack can write."""
    if kind == "string":
        return [kind, ks.string_get(key), ks.string_is_raw(key)]
    if kind == "list":
        return [kind, list(ks.list_get(key) or ())]
    if kind == "set":
        members = ks.set_get(key)
        return [kind, [] if members is None else members.fields()]
    if kind == "zset":
        scores = ks.zset_get(key)
        return [kind, [] if scores is None else [part for pair in scores.items() for part in pair]]
    table = ks.hash_get(key)
    items = [] if table is None else table.items()
    deadlines = [] if table is None else [(field, table.deadline_of(field)) for field, _ in items]
    timed = [[field, deadline] for field, deadline in deadlines if deadline is not None and deadline >= 0]
    return [kind, [part for item in items for part in item], timed]


def dump_value(ks: Keyspace, key: bytes) -> bytes | None:
    """The value at `key` as a payload, without its TTL; None when there is no such key."""
    kind = ks.type_of(key)
    if kind is None:
        return None
    body = msgspec.msgpack.encode(_body(ks, key, kind))
    return _HEADER.pack(_MAGIC, _VERSION, zlib.crc32(body)) + body


# Reading -----------------------------------------------------------------------------------------


def _decode(payload: bytes) -> _Body:
    """The body of a payload whose checksum and version are right; CommandError otherwise."""
    if len(payload) < _HEADER.size:
        raise CommandError(_BAD_PAYLOAD)
    magic, version, checksum = _HEADER.unpack_from(payload)
    body = payload[_HEADER.size :]
    if magic != _MAGIC or version != _VERSION or checksum != zlib.crc32(body):
        raise CommandError(_BAD_PAYLOAD)
    try:
        decoded = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CommandError(_BAD_DATA) from None
    return decoded if isinstance(decoded, list) else []


def _are_bytes(values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(type(value) is bytes for value in values)


def _are_pairs(values: object, second: type) -> bool:
    """Whether this is a flat, non-empty list of bytes and `second` in turn."""
    if not isinstance(values, list) or not values or len(values) % 2:
        return False
    return _are_bytes(values[::2]) and all(type(value) is second for value in values[1::2])


def _valid(body: _Body) -> bool:
    """Whether a body has the shape of its type: a payload may have been made by anybody."""
    match body:
        case ["string", bytes(), bool()]:
            return True
        case ["list" | "set", values]:
            return _are_bytes(values)
        case ["zset", values]:
            return _are_pairs(values, float) and all(score == score for score in values[1::2])
        case ["hash", values, list() as timed]:
            shaped = all(isinstance(pair, list) and len(pair) == 2 for pair in timed)
            return _are_pairs(values, bytes) and shaped and all(_is_deadline(*pair) for pair in timed)
    return False


def _is_deadline(field: object, deadline: object) -> bool:
    return type(field) is bytes and type(deadline) is int and 0 <= deadline <= INT64_MAX


def _put_string(ks: Keyspace, key: bytes, deadline: int, value: bytes, grown: bool) -> None:
    if grown:
        ks.string_replace_raw(key, value, deadline, event="restore")
    else:
        ks.string_restore(key, value, deadline)


def _put_list(ks: Keyspace, key: bytes, deadline: int, values: list[bytes]) -> None:
    ks.list_replace(key, values, deadline, event="restore")


def _put_set(ks: Keyspace, key: bytes, deadline: int, members: list[bytes]) -> None:
    ks.set_replace(key, members, deadline)


def _put_zset(ks: Keyspace, key: bytes, deadline: int, values: list[Any]) -> None:
    ks.zset_replace(key, dict(zip(values[::2], values[1::2], strict=True)), deadline)


def _put_hash(ks: Keyspace, key: bytes, deadline: int, values: list[bytes], timed: list[tuple[bytes, int]]) -> None:
    ks.hash_replace(key, zip(values[::2], values[1::2], strict=True), timed, deadline)


_PUT: dict[str, Callable[..., object]] = {
    "string": _put_string,
    "list": _put_list,
    "set": _put_set,
    "zset": _put_zset,
    "hash": _put_hash,
}


def restore_value(ks: Keyspace, key: bytes, payload: bytes, deadline: int) -> None:
    """Puts a payload's value at `key` in place of whatever is there.

    `deadline` is unix ms, 0 for none; one that has passed leaves no key. Raises CommandError for a damaged
    payload, and MemoryError, before anything is changed.
    """
    body = _decode(payload)
    if not _valid(body):
        raise CommandError(_BAD_DATA)
    if deadline and deadline <= ks.now_ms:
        ks.delete(key)
        return
    _PUT[body[0]](ks, key, deadline, *body[1:])


# Commands ----------------------------------------------------------------------------------------


@command("dump")
def dump(ctx: Context, key: bytes) -> Reply:
    return dump_value(ctx.keys, key)


@dataclass(slots=True)
class _Restoring:
    """RESTORE's options; `idle` in seconds and `frequency` are -1 when they are not given."""

    replace: bool = False
    absolute: bool = False
    idle: int = -1
    frequency: int = -1


def _restore_options(args: tuple[bytes, ...]) -> _Restoring:
    options = _Restoring()
    position = 0
    while position < len(args):
        word = args[position].upper()
        more = position + 1 < len(args)
        position += 1
        if word == b"REPLACE":
            options.replace = True
        elif word == b"ABSTTL":
            options.absolute = True
        elif word == b"IDLETIME" and more and options.frequency < 0:
            options.idle = integer(args[position])
            if options.idle < 0:
                raise CommandError("ERR Invalid IDLETIME value, must be >= 0")
            position += 1
        elif word == b"FREQ" and more and options.idle < 0:
            options.frequency = integer(args[position])
            if not 0 <= options.frequency <= 255:
                raise CommandError("ERR Invalid FREQ value, must be >= 0 and <= 255")
            position += 1
        else:
            raise CommandError(SYNTAX)
    return options


@command("restore")
def restore(ctx: Context, key: bytes, ttl: bytes, payload: bytes, *args: bytes) -> Reply:
    options = _restore_options(args)
    if not options.replace and ctx.keys.exists(key):
        raise CommandError(_BUSY)
    amount = integer(ttl)
    if amount < 0:
        raise CommandError("ERR Invalid TTL value, must be >= 0")
    deadline = min(amount if options.absolute or not amount else amount + ctx.keys.now_ms, INT64_MAX)
    restore_value(ctx.keys, key, payload, deadline)
    if options.idle >= 0:
        ctx.keys.set_idle_ms(key, options.idle * 1000 if options.idle < 2**40 else 2**50)
    if options.frequency >= 0:
        ctx.keys.set_frequency(key, options.frequency)
    return OK
