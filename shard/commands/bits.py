"""Handlers of the bit commands; BITFIELD has a file of its own.

Owns: their semantics over strings, bit 0 being the highest bit of the first byte. Promises: whole strings are
worked on as big integers or by bytes methods, never bit by bit. Called only by the shard's execution point.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_, xor
from typing import TYPE_CHECKING

from kache.errors import SYNTAX, CommandError
from kache.replies import Reply

from .arguments import integer, parse_integer
from .registry import command
from .strings import MAX_STRING, check_size, clip_range

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["bit_offset"]

_BAD_OFFSET = "ERR bit offset is not an integer or out of range"
_BAD_BIT = "ERR bit is not an integer or out of range"


def bit_offset(raw: bytes, scale: int = 1) -> int:
    """A bit's position: not negative and within the longest string; `scale` multiplies it first."""
    value = parse_integer(raw)
    if value is None or value < 0 or (value * scale) >> 3 >= MAX_STRING:
        raise CommandError(_BAD_OFFSET)
    return value * scale


@command("setbit")
def setbit(ctx: Context, key: bytes, offset: bytes, bit: bytes) -> Reply:
    position = bit_offset(offset)
    if bit not in (b"0", b"1"):
        raise CommandError(_BAD_BIT)
    at, mask = position >> 3, 0x80 >> (position & 7)
    byte = ctx.keys.string_slice(key, at, at + 1)
    before = byte[0] if byte else 0
    after = before | mask if bit == b"1" else before & ~mask
    if after != before or not byte:
        # Also where the bit is as it was and the string has to grow.
        ctx.keys.string_overlay(key, at, bytes((after,)), event="setbit")
    else:
        ctx.keys.string_make_raw(key)
    return 1 if before & mask else 0


@command("getbit")
def getbit(ctx: Context, key: bytes, offset: bytes) -> Reply:
    position = bit_offset(offset)
    byte = ctx.keys.string_slice(key, position >> 3, (position >> 3) + 1)
    return 1 if byte and byte[0] & (0x80 >> (position & 7)) else 0


def _range_unit(args: tuple[bytes, ...]) -> int:
    """Bits per position of a range: 1 after BIT, 8 after BYTE or nothing; syntax error for another word."""
    if not args:
        return 8
    unit = {b"BIT": 1, b"BYTE": 8}.get(args[0].upper())
    if unit is None:
        raise CommandError(SYNTAX)
    return unit


def _masked(ks: Keyspace, key: bytes, first: int, stop: int, outside: int) -> bytes:
    """The bytes that hold the bits [first, stop), bits beside them set to `outside`."""
    data = bytearray(ks.string_slice(key, first >> 3, (stop + 7) >> 3))
    head, tail = 0xFF00 >> (first & 7) & 0xFF, 0xFF >> (stop & 7 or 8)
    for index, mask in ((0, head), (-1, tail)):
        data[index] = data[index] | mask if outside else data[index] & ~mask
    return bytes(data)


@command("bitcount")
def bitcount(ctx: Context, key: bytes, *args: bytes) -> Reply:
    start, end, unit = 0, -1, 8
    if len(args) > 3:
        raise CommandError(SYNTAX)
    if args:
        start, unit = integer(args[0]), _range_unit(args[2:])
        end = integer(args[1]) if len(args) > 1 else -1
    first, stop = clip_range(start, end, ctx.keys.string_length(key) * 8 // unit)
    if stop <= first:
        return 0
    return int.from_bytes(_masked(ctx.keys, key, first * unit, stop * unit, 0), "big").bit_count()


@command("bitpos")
def bitpos(ctx: Context, key: bytes, bit: bytes, *args: bytes) -> Reply:
    wanted = integer(bit)
    if wanted not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    if len(args) > 3:
        raise CommandError(SYNTAX)
    start = integer(args[0]) if args else 0
    unit = _range_unit(args[2:])
    end = integer(args[1]) if len(args) > 1 else -1
    length = ctx.keys.string_length(key)
    if not ctx.keys.exists(key):
        return -1 if wanted else 0
    first, stop = clip_range(start, end, length * 8 // unit)
    if stop <= first:
        return -1
    first, stop = first * unit, stop * unit
    found = _first_bit(_masked(ctx.keys, key, first, stop, 1 - wanted), wanted)
    if found >= 0:
        return (first & ~7) + found
    # A string is followed by zeros without end, unless the caller said where to stop.
    return length * 8 if wanted == 0 and len(args) < 2 else -1


def _first_bit(data: bytes, wanted: int) -> int:
    """Where the first bit equal to `wanted` is; -1 if there is none."""
    rest = data.lstrip(b"\x00" if wanted else b"\xff")
    if not rest:
        return -1
    byte = rest[0] if wanted else rest[0] ^ 0xFF
    return (len(data) - len(rest)) * 8 + 8 - byte.bit_length()


_OPERATIONS: dict[bytes, Callable[[int, int], int]] = {b"AND": and_, b"OR": or_, b"XOR": xor}


@command("bitop")
def bitop(ctx: Context, operation: bytes, destination: bytes, *sources: bytes) -> Reply:
    name = operation.upper()
    if name != b"NOT" and name not in _OPERATIONS:
        raise CommandError(SYNTAX)
    if name == b"NOT" and len(sources) != 1:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    values = [ctx.keys.string_get(source) or b"" for source in sources]
    size = max(map(len, values))
    check_size(size)
    if not size:
        ctx.keys.delete(destination)
        return 0
    # Shorter strings are followed by zeros.
    numbers = [int.from_bytes(value, "big") << 8 * (size - len(value)) for value in values]
    result = numbers[0] ^ ((1 << 8 * size) - 1) if name == b"NOT" else reduce(_OPERATIONS[name], numbers)
    # Raw, as the real server's: OBJECT ENCODING says so of the result, however short.
    ctx.keys.string_replace_raw(destination, result.to_bytes(size, "big"))
    return size
