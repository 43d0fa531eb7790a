"""Handlers of the sorted-set commands about ranges: by rank, by score, by name; counting, storing, removing.

Owns: the one grammar that ZRANGE, its older forms and ZRANGESTORE share, and the bounds "(1", "[a", "-", "+inf".
Promises: what `zsets.py` promises. A range is found in O(log n), whatever its offset, and costs what it returns.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kache.errors import SYNTAX, CommandError
from kache.replies import Pairs, Reply

from .arguments import inclusive_span, integer
from .lex import LEX_HIGHEST, LEX_LOWEST, LexBound, lex_span
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace
    from ..engine.zset import ZSet

__all__: list[str] = []

_NOT_A_RANGE_FLOAT = "ERR min or max is not a float"
_NOT_A_RANGE_NAME = "ERR min or max not valid string range item"
_LIMIT_BY_RANK = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
_SCORES_BY_LEX = "ERR syntax error, WITHSCORES not supported in combination with BYLEX"
_BOUND = re.compile(rb"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?)", re.IGNORECASE)


_MANY = 64
"""Members from which they are not made Python objects first."""


# Bounds ------------------------------------------------------------------------------------------


def _score_bound(raw: bytes) -> tuple[float, bool]:
    """A score and whether it is left out; unlike a score to be stored it may overflow, and be empty for 0."""
    is_open = raw[:1] == b"("
    text = raw[1:] if is_open else raw
    if not text:
        return 0.0, is_open
    if _BOUND.fullmatch(text) is None:
        raise CommandError(_NOT_A_RANGE_FLOAT)
    return float(text), is_open


def _lex_bound(raw: bytes) -> LexBound:
    if raw == b"-":
        return LEX_LOWEST
    if raw == b"+":
        return LEX_HIGHEST
    if raw[:1] not in (b"(", b"["):
        raise CommandError(_NOT_A_RANGE_NAME)
    return LexBound(0, raw[1:], raw[:1] == b"(")


# The range grammar -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Options:
    """What follows the two ends of a range. `by`: "", "rank", "score" or "lex"; `limit` below 0: no limit."""

    by: str = ""
    reverse: bool | None = None
    offset: int = 0
    limit: int = -1
    with_scores: bool = False


def _read_options(arguments: tuple[bytes, ...], options: _Options, *, store: bool) -> _Options:
    """Adds the words of `arguments`; what a command's name already says may not be said again."""
    position = 0
    while position < len(arguments):
        word = arguments[position].upper()
        position += 1
        if word == b"WITHSCORES" and not store:
            options.with_scores = True
        elif word == b"LIMIT" and position + 1 < len(arguments):
            options.offset, options.limit = integer(arguments[position]), integer(arguments[position + 1])
            position += 2
        elif word == b"REV" and options.reverse is None:
            options.reverse = True
        elif word in (b"BYSCORE", b"BYLEX") and not options.by:
            options.by = "score" if word == b"BYSCORE" else "lex"
        else:
            raise CommandError(SYNTAX)
    options.by = options.by or "rank"
    if options.by == "rank" and (options.offset, options.limit) != (0, -1):
        raise CommandError(_LIMIT_BY_RANK)
    if options.by == "lex" and options.with_scores:
        raise CommandError(_SCORES_BY_LEX)
    return options


class _Range:
    """A range as a command names it, its ends already read; `find` gives its ranks in one set."""

    def __init__(self, first: bytes, last: bytes, options: _Options) -> None:
        self.options = options
        if options.by == "rank":
            self._ranks = integer(first), integer(last)
            return
        low, high = (last, first) if options.reverse else (first, last)
        if options.by == "score":
            self._scores = *_score_bound(low), *_score_bound(high)
        else:
            self._names = _lex_bound(low), _lex_bound(high)

    def find(self, value: ZSet) -> tuple[int, int]:
        """Ranks [start, stop) from the lowest score, the limit applied; read them backwards for a reversed range."""
        options = self.options
        reverse = bool(options.reverse)
        if options.by == "rank":
            start, stop = inclusive_span(len(value), *self._ranks)
            return (len(value) - stop, len(value) - start) if reverse else (start, stop)
        if options.by == "score":
            start, stop = value.score_span(*self._scores)
        else:
            start, stop = lex_span(value, *self._names, reverse)
        if options.offset < 0 or options.offset >= stop - start:
            return 0, 0
        taken = stop - start - options.offset
        if 0 <= options.limit < taken:
            taken = options.limit
        return (
            (stop - options.offset - taken, stop - options.offset)
            if reverse
            else (
                start + options.offset,
                start + options.offset + taken,
            )
        )

    def reply(self, value: ZSet | None, start: int, stop: int) -> Reply:
        """The members of these ranks, with their scores if asked for."""
        if value is None:
            return Pairs(()) if self.options.with_scores else []
        if self.options.with_scores:
            pairs = value.by_rank(start, stop)
            if self.options.reverse:
                pairs.reverse()
            return Pairs(pairs)
        names = value.names(start, stop)
        if self.options.reverse:
            names.reverse()
        return names


def _answer(ctx: Context, arguments: tuple[bytes, ...], known: _Options) -> Reply:
    key, first, last, *others = arguments
    wanted = _Range(first, last, _read_options(tuple(others), known, store=False))
    value = ctx.keys.zset_get(key)
    start, stop = (0, 0) if value is None else wanted.find(value)
    if stop - start >= _MANY:
        shown = ctx.show_ranks(arguments, start, stop, bool(known.reverse), known.with_scores)
        if shown is not None:
            return shown
    return wanted.reply(value, start, stop)


# Reading -----------------------------------------------------------------------------------------


@command("zrange")
def zrange(ctx: Context, key: bytes, first: bytes, last: bytes, *arguments: bytes) -> Reply:
    if not arguments:
        start, stop = integer(first), integer(last)
        value = ctx.keys.zset_get(key)
        return [] if value is None else value.names(*inclusive_span(len(value), start, stop))
    return _answer(ctx, (key, first, last, *arguments), _Options())


@command("zrevrange")
def zrevrange(ctx: Context, key: bytes, first: bytes, last: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx, (key, first, last, *arguments), _Options("rank", True))


@command("zrangebyscore")
def zrangebyscore(ctx: Context, key: bytes, first: bytes, last: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx, (key, first, last, *arguments), _Options("score", False))


@command("zrevrangebyscore")
def zrevrangebyscore(ctx: Context, key: bytes, first: bytes, last: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx, (key, first, last, *arguments), _Options("score", True))


@command("zrangebylex")
def zrangebylex(ctx: Context, key: bytes, first: bytes, last: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx, (key, first, last, *arguments), _Options("lex", False))


@command("zrevrangebylex")
def zrevrangebylex(ctx: Context, key: bytes, first: bytes, last: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx, (key, first, last, *arguments), _Options("lex", True))


@command("zcount")
def zcount(ctx: Context, key: bytes, low: bytes, high: bytes) -> Reply:
    return _count(ctx.keys, key, _Range(low, high, _Options("score", False)))


@command("zlexcount")
def zlexcount(ctx: Context, key: bytes, low: bytes, high: bytes) -> Reply:
    return _count(ctx.keys, key, _Range(low, high, _Options("lex", False)))


def _count(ks: Keyspace, key: bytes, wanted: _Range) -> int:
    value = ks.zset_get(key)
    if value is None:
        return 0
    start, stop = wanted.find(value)
    return stop - start


# Changing ----------------------------------------------------------------------------------------


@command("zrangestore")
def zrangestore(ctx: Context, destination: bytes, source: bytes, first: bytes, last: bytes, *arguments: bytes) -> Reply:
    wanted = _Range(first, last, _read_options(arguments, _Options(), store=True))
    value = ctx.keys.zset_get(source)
    pairs = [] if value is None else value.by_rank(*wanted.find(value))
    return ctx.keys.zset_replace(destination, dict(pairs), event="zrangestore")


@command("zremrangebyrank")
def zremrangebyrank(ctx: Context, key: bytes, first: bytes, last: bytes) -> Reply:
    return _remove(ctx.keys, key, _Range(first, last, _Options("rank", False)), "zremrangebyrank")


@command("zremrangebyscore")
def zremrangebyscore(ctx: Context, key: bytes, low: bytes, high: bytes) -> Reply:
    return _remove(ctx.keys, key, _Range(low, high, _Options("score", False)), "zremrangebyscore")


@command("zremrangebylex")
def zremrangebylex(ctx: Context, key: bytes, low: bytes, high: bytes) -> Reply:
    return _remove(ctx.keys, key, _Range(low, high, _Options("lex", False)), "zremrangebylex")


def _remove(ks: Keyspace, key: bytes, wanted: _Range, event: str) -> int:
    value = ks.zset_get(key)
    if value is None:
        return 0
    start, stop = wanted.find(value)
    if start < stop:
        ks.zset_delete_ranks(key, start, stop, wanted=False, event=event)
    return stop - start
