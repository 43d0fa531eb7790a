"""BITFIELD and BITFIELD_RO: integers of any width at any bit of a string.

Owns: their small language and its overflow rules. Promises: a command is read whole before anything is
looked up or changed; only the bytes that an operation touches are read and written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kache.errors import SYNTAX, CommandError
from kache.replies import Reply

from .arguments import integer
from .bits import bit_offset
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["Field", "Operation", "operations"]

_BAD_TYPE = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
_TYPE = re.compile(rb"([iu])(0|[1-9][0-9]{0,2})")
_ARGUMENTS = {b"GET": 2, b"SET": 3, b"INCRBY": 3, b"OVERFLOW": 1}


class Field(NamedTuple):
    """Which bits: where they start, how many, whether they are a two's complement number."""

    offset: int
    width: int
    signed: bool

    @property
    def low(self) -> int:
        """The smallest number the field can hold."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest."""
        return (1 << (self.width - self.signed)) - 1

    def fit(self, value: int, overflow: bytes) -> int | None:
        """`value` brought into the field by the overflow rule WRAP, SAT or FAIL; None when it fails."""
        if self.low <= value <= self.high:
            return value
        if overflow == b"FAIL":
            return None
        if overflow == b"SAT":
            return self.high if value > self.high else self.low
        return self.wrap(value)

    def wrap(self, value: int) -> int:
        """The lowest `width` bits of `value`, read as this field's number."""
        value &= (1 << self.width) - 1
        return value - (1 << self.width) if self.signed and value > self.high else value


class Operation(NamedTuple):
    """One step: GET, SET or INCRBY, with the overflow rule in force."""

    name: bytes
    field: Field
    value: int
    overflow: bytes


def _field(type_word: bytes, offset_word: bytes) -> Field:
    """A type such as u8 and an offset such as 100 or #5 (times the width)."""
    match = _TYPE.fullmatch(type_word)
    width = int(match.group(2)) if match else 0
    signed = type_word[:1] == b"i"
    if not 1 <= width <= (64 if signed else 63):
        raise CommandError(_BAD_TYPE)
    if offset_word[:1] == b"#":
        return Field(bit_offset(offset_word[1:], width), width, signed)
    return Field(bit_offset(offset_word), width, signed)


def operations(args: tuple[bytes, ...], *, readonly: bool) -> list[Operation]:
    """The steps of a command; CommandError for what is not understood."""
    steps: list[Operation] = []
    overflow = b"WRAP"
    position = 0
    while position < len(args):
        name = args[position].upper()
        count = _ARGUMENTS.get(name, 0)
        words = args[position + 1 : position + 1 + count]
        if not count or len(words) < count:
            raise CommandError(SYNTAX)
        position += 1 + count
        if name == b"OVERFLOW":
            overflow = words[0].upper()
            if overflow not in (b"WRAP", b"SAT", b"FAIL"):
                raise CommandError("ERR Invalid OVERFLOW type specified")
            continue
        field = _field(words[0], words[1])
        steps.append(Operation(name, field, integer(words[2]) if count == 3 else 0, overflow))
    if readonly and any(step.name != b"GET" for step in steps):
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    return steps


def _read(ks: Keyspace, key: bytes, field: Field) -> int:
    """The number in a field; what lies beyond the string is zero."""
    first, stop = field.offset >> 3, (field.offset + field.width + 7) >> 3
    data = ks.string_slice(key, first, stop).ljust(stop - first, b"\x00")
    return field.wrap(int.from_bytes(data, "big") >> (stop * 8 - field.offset - field.width))


def _write(ks: Keyspace, key: bytes, field: Field, value: int) -> None:
    first, stop = field.offset >> 3, (field.offset + field.width + 7) >> 3
    shift = stop * 8 - field.offset - field.width
    mask = ((1 << field.width) - 1) << shift
    data = ks.string_slice(key, first, stop).ljust(stop - first, b"\x00")
    before = int.from_bytes(data, "big")
    merged = (before & ~mask) | (value << shift & mask)
    if merged != before:
        ks.string_overlay(key, first, merged.to_bytes(stop - first, "big"), event="setbit")
    else:
        ks.string_make_raw(key)


def _set_value(field: Field, value: int) -> int:
    """What SET compares with the field's range, where the real server's 64-bit arithmetic shows."""
    if not field.signed:
        # A negative number counts as the huge one with the same 64 bits.
        return value % 2**64
    if field.width < 64 and value <= field.high - 2**63:
        # So far below that its distance to the highest value overflows: it is taken for too large.
        return value + 2**64
    return value


def _run(ks: Keyspace, key: bytes, step: Operation) -> int | None:
    """Executes one step and returns its reply."""
    before = _read(ks, key, step.field)
    if step.name == b"GET":
        return before
    wanted = before + step.value if step.name == b"INCRBY" else _set_value(step.field, step.value)
    value = step.field.fit(wanted, step.overflow)
    if value is None:
        return None
    _write(ks, key, step.field, value)
    return before if step.name == b"SET" else value


@command("bitfield")
def bitfield(ctx: Context, key: bytes, *args: bytes) -> Reply:
    steps = operations(args, readonly=False)
    length = ctx.keys.string_length(key)
    written = [(step.field.offset + step.field.width - 1) >> 3 for step in steps if step.name != b"GET"]
    if written and max(written) >= length:
        # The string grows to hold every field first, even those whose step then fails.
        ctx.keys.string_overlay(key, max(written), b"\x00", event="setbit")
    return [_run(ctx.keys, key, step) for step in steps]


@command("bitfield_ro")
def bitfield_ro(ctx: Context, key: bytes, *args: bytes) -> Reply:
    steps = operations(args, readonly=True)
    ctx.keys.string_length(key)
    return [_run(ctx.keys, key, step) for step in steps]
