"""Handlers of unions, intersections and differences of sorted sets, and of sets among them (score 1).

Owns: their grammar, and the arithmetic of weights and aggregation as pure functions over mappings of members to
scores. Promises: what `zsets.py` promises; inputs are combined from the smallest to the largest, as the real
server does, so that sums of doubles come out equal.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kache.errors import SYNTAX, WRONG_TYPE, CommandError
from kache.replies import Pairs, Reply

from .arguments import INT64_MAX, bounded_integer, floating, integer
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__: list[str] = []

Scores = dict[bytes, float]


# Arithmetic --------------------------------------------------------------------------------------


def _sum(total: float, score: float) -> float:
    result = total + score
    return result if result == result else 0.0  # inf and -inf together count as 0


def _smaller(total: float, score: float) -> float:
    return score if score < total else total


def _larger(total: float, score: float) -> float:
    return score if score > total else total


_AGGREGATES: Mapping[bytes, Callable[[float, float], float]] = {b"SUM": _sum, b"MIN": _smaller, b"MAX": _larger}


def _weighted(score: float, weight: float) -> float:
    result = score * weight
    return result if result == result else 0.0


def _by_size(inputs: Sequence[Scores], weights: Sequence[float]) -> list[tuple[Scores, float]]:
    return sorted(zip(inputs, weights, strict=True), key=lambda pair: len(pair[0]))


def union(inputs: Sequence[Scores], weights: Sequence[float], combine: Callable[[float, float], float]) -> Scores:
    """Members of any input; each score weighted, those of one member combined."""
    result: Scores = {}
    for scores, weight in _by_size(inputs, weights):
        for member, raw in scores.items():
            score = _weighted(raw, weight)
            total = result.get(member)
            result[member] = score if total is None else combine(total, score)
    return result


def intersection(
    inputs: Sequence[Scores], weights: Sequence[float], combine: Callable[[float, float], float]
) -> Scores:
    """Members of all inputs; each score weighted, those of one member combined."""
    (smallest, weight), *others = _by_size(inputs, weights)
    result: Scores = {}
    for member, raw in smallest.items():
        total = _weighted(raw, weight)
        for scores, other_weight in others:
            score = scores.get(member)
            if score is None:
                break
            total = combine(total, _weighted(score, other_weight))
        else:
            result[member] = total
    return result


def difference(inputs: Sequence[Scores]) -> Scores:
    """Members of the first input that are in no other, with their scores there."""
    first, *others = inputs
    return {member: score for member, score in first.items() if not any(member in scores for scores in others)}


# Grammar -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Request:
    """The inputs of one command and what its options say."""

    inputs: list[Scores]
    weights: list[float] = field(default_factory=list)
    combine: Callable[[float, float], float] = _sum
    with_scores: bool = False


def _read_inputs(ks: Keyspace, name: str, raw_count: bytes, arguments: tuple[bytes, ...]) -> list[Scores]:
    """The sets named by a count and that many keys; raises before any option is looked at, as the real server does."""
    count = integer(raw_count)
    if count < 1:
        raise CommandError(f"ERR at least 1 input key is needed for '{name}' command")
    if count > len(arguments):
        raise CommandError(SYNTAX)
    return [_scores_of(ks, key) for key in arguments[:count]]


def _scores_of(ks: Keyspace, key: bytes) -> Scores:
    kind = ks.type_of(key)
    if kind == "zset":
        value = ks.zset_get(key)
        return {} if value is None else dict(value.items())
    if kind == "set":
        table = ks.set_get(key)
        return {} if table is None else dict.fromkeys(table.fields(), 1.0)
    if kind is not None:
        raise CommandError(WRONG_TYPE)
    return {}


def _read_request(
    ks: Keyspace, name: str, raw_count: bytes, arguments: tuple[bytes, ...], *, plain: bool = False
) -> _Request:
    """Inputs and options of `name`; `plain` is for differences, which know no weights."""
    inputs = _read_inputs(ks, name, raw_count, arguments)
    request = _Request(inputs, [1.0] * len(inputs))
    position = len(inputs)
    while position < len(arguments):
        word = arguments[position].upper()
        left = len(arguments) - position - 1
        if word == b"WEIGHTS" and not plain and left >= len(inputs):
            raw_weights = arguments[position + 1 : position + 1 + len(inputs)]
            request.weights = [floating(raw, "ERR weight value is not a float") for raw in raw_weights]
            position += 1 + len(inputs)
        elif word == b"AGGREGATE" and not plain and left >= 1:
            combine = _AGGREGATES.get(arguments[position + 1].upper())
            if combine is None:
                raise CommandError(SYNTAX)
            request.combine = combine
            position += 2
        elif word == b"WITHSCORES" and not name.endswith("store"):
            request.with_scores = True
            position += 1
        else:
            raise CommandError(SYNTAX)
    return request


def _reply(scores: Scores, with_scores: bool) -> Reply:
    pairs = sorted(scores.items(), key=lambda pair: (pair[1], pair[0]))
    return Pairs(pairs) if with_scores else [member for member, _ in pairs]


def _store(ks: Keyspace, destination: bytes, scores: Scores, event: str) -> int:
    """Whatever the destination held goes, with its TTL; an empty result deletes it."""
    return ks.zset_replace(destination, scores, event=event)


# Commands ----------------------------------------------------------------------------------------


@command("zunion")
def zunion(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    request = _read_request(ctx.keys, "zunion", raw_count, arguments)
    return _reply(union(request.inputs, request.weights, request.combine), request.with_scores)


@command("zinter")
def zinter(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    request = _read_request(ctx.keys, "zinter", raw_count, arguments)
    return _reply(intersection(request.inputs, request.weights, request.combine), request.with_scores)


@command("zdiff")
def zdiff(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    request = _read_request(ctx.keys, "zdiff", raw_count, arguments, plain=True)
    return _reply(difference(request.inputs), request.with_scores)


@command("zunionstore")
def zunionstore(ctx: Context, destination: bytes, raw_count: bytes, *arguments: bytes) -> Reply:
    request = _read_request(ctx.keys, "zunionstore", raw_count, arguments)
    return _store(ctx.keys, destination, union(request.inputs, request.weights, request.combine), "zunionstore")


@command("zinterstore")
def zinterstore(ctx: Context, destination: bytes, raw_count: bytes, *arguments: bytes) -> Reply:
    request = _read_request(ctx.keys, "zinterstore", raw_count, arguments)
    return _store(ctx.keys, destination, intersection(request.inputs, request.weights, request.combine), "zinterstore")


@command("zdiffstore")
def zdiffstore(ctx: Context, destination: bytes, raw_count: bytes, *arguments: bytes) -> Reply:
    request = _read_request(ctx.keys, "zdiffstore", raw_count, arguments, plain=True)
    return _store(ctx.keys, destination, difference(request.inputs), "zdiffstore")


@command("zintercard")
def zintercard(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    inputs = _read_inputs(ctx.keys, "zintercard", raw_count, arguments)
    limit = 0
    options = arguments[len(inputs) :]
    for position in range(0, len(options), 2):
        if options[position].upper() != b"LIMIT" or position + 1 == len(options):
            raise CommandError(SYNTAX)
        limit = bounded_integer(options[position + 1], 0, INT64_MAX, "ERR LIMIT can't be negative")
    smallest, *others = sorted(inputs, key=len)
    found = 0
    for member in smallest:
        if all(member in scores for scores in others):
            found += 1
            if found == limit:
                break
    return found
