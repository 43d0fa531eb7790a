"""Handlers of unions, intersections and differences of sorted sets, and of sets among them (score 1).

Owns: their grammar; what they do with the members is in `combine.py`. Promises: what `zsets.py` promises.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kache.errors import SYNTAX, WRONG_TYPE, CommandError
from kache.replies import Pairs, Reply

from .arguments import INT64_MAX, bounded_integer, floating, integer
from .combine import AGGREGATES, Operation, combine, count_common
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__: list[str] = []


# Grammar -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Request:
    """The inputs of one command and what its options say."""

    keys: Sequence[bytes]
    weights: list[float] = field(default_factory=list)
    aggregate: int = 0
    with_scores: bool = False


def _read_keys(ks: Keyspace, name: str, raw_count: bytes, arguments: tuple[bytes, ...]) -> Sequence[bytes]:
    """The keys named by a count and that many words; a wrong type raises before any option is looked at, as the real
    server has it."""
    count = integer(raw_count)
    if count < 1:
        raise CommandError(f"ERR at least 1 input key is needed for '{name}' command")
    if count > len(arguments):
        raise CommandError(SYNTAX)
    if any(ks.type_of(key) not in ("zset", "set", None) for key in arguments[:count]):
        raise CommandError(WRONG_TYPE)
    return arguments[:count]


def _read_request(
    ks: Keyspace, name: str, raw_count: bytes, arguments: tuple[bytes, ...], *, plain: bool = False
) -> _Request:
    """Inputs and options of `name`; `plain` is for differences, which know no weights."""
    keys = _read_keys(ks, name, raw_count, arguments)
    request = _Request(keys, [1.0] * len(keys))
    position = len(keys)
    while position < len(arguments):
        word = arguments[position].upper()
        left = len(arguments) - position - 1
        if word == b"WEIGHTS" and not plain and left >= len(keys):
            raw_weights = arguments[position + 1 : position + 1 + len(keys)]
            request.weights = [floating(raw, "ERR weight value is not a float") for raw in raw_weights]
            position += 1 + len(keys)
        elif word == b"AGGREGATE" and not plain and left >= 1:
            aggregate = AGGREGATES.get(arguments[position + 1].upper())
            if aggregate is None:
                raise CommandError(SYNTAX)
            request.aggregate = aggregate
            position += 2
        elif word == b"WITHSCORES" and not name.endswith("store"):
            request.with_scores = True
            position += 1
        else:
            raise CommandError(SYNTAX)
    return request


def _reply(ctx: Context, operation: Operation, name: str, raw_count: bytes, arguments: tuple[bytes, ...]) -> Reply:
    request = _read_request(ctx.keys, name, raw_count, arguments, plain=operation == "diff")
    pairs = combine(ctx, operation, b"", request.keys, request.weights, request.aggregate).pairs()
    return Pairs(pairs) if request.with_scores else [member for member, _ in pairs]


def _store(
    ctx: Context, operation: Operation, destination: bytes, raw_count: bytes, arguments: tuple[bytes, ...]
) -> Reply:
    """Whatever the destination held goes, with its TTL; an empty result deletes it."""
    name = f"z{operation}store"
    request = _read_request(ctx.keys, name, raw_count, arguments, plain=operation == "diff")
    result = combine(ctx, operation, destination, request.keys, request.weights, request.aggregate)
    return result.put(ctx.keys, event=name)


# Commands ----------------------------------------------------------------------------------------


@command("zunion")
def zunion(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    return _reply(ctx, "union", "zunion", raw_count, arguments)


@command("zinter")
def zinter(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    return _reply(ctx, "inter", "zinter", raw_count, arguments)


@command("zdiff")
def zdiff(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    return _reply(ctx, "diff", "zdiff", raw_count, arguments)


@command("zunionstore")
def zunionstore(ctx: Context, destination: bytes, raw_count: bytes, *arguments: bytes) -> Reply:
    return _store(ctx, "union", destination, raw_count, arguments)


@command("zinterstore")
def zinterstore(ctx: Context, destination: bytes, raw_count: bytes, *arguments: bytes) -> Reply:
    return _store(ctx, "inter", destination, raw_count, arguments)


@command("zdiffstore")
def zdiffstore(ctx: Context, destination: bytes, raw_count: bytes, *arguments: bytes) -> Reply:
    return _store(ctx, "diff", destination, raw_count, arguments)


@command("zintercard")
def zintercard(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    keys = _read_keys(ctx.keys, "zintercard", raw_count, arguments)
    limit = 0
    options = arguments[len(keys) :]
    for position in range(0, len(options), 2):
        if options[position].upper() != b"LIMIT" or position + 1 == len(options):
            raise CommandError(SYNTAX)
        limit = bounded_integer(options[position + 1], 0, INT64_MAX, "ERR LIMIT can't be negative")
    return count_common(ctx, keys, limit, scored=True)
