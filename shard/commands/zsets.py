"""Handlers of the sorted-set commands about members: scores, ranks, pops, random ones, a scan, ZQUERY.

Ranges are in `zset_ranges.py`, unions and their like in `zset_algebra.py`. Owns: their semantics, for keys
that lie on one shard. Promises: no collection outlives a call, every change goes through the keyspace's
mutators, arguments are looked at in the real server's order, so that the same error wins.
Called only by the shard's execution point, through the registry; `binary.py` calls `zadd` and `zrem`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kache.errors import NOT_FLOAT, SYNTAX, CommandError
from kache.replies import NULL_ARRAY, Pairs, Reply, format_double

from .arguments import INT64_MAX, bounded_integer, floating, integer, parse_float, pop_options
from .hashes import check_draws, random_count
from .registry import command
from .scanning import scan_cursor, scan_options

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace
    from ..engine.zset import ZSet

__all__ = ["pop_pairs", "zadd", "zrem", "zset_encoding"]

_NAN_SCORE = "ERR resulting score is not a number (NaN)"
_ADD_OPTIONS = frozenset((b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"))


def zset_encoding(value: ZSet) -> str:
    """What OBJECT ENCODING answers: "listpack" or "skiplist", by the default limits."""
    return "listpack" if value.packed else "skiplist"


# Adding and removing -----------------------------------------------------------------------------


@command("zadd")
def zadd(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    if len(arguments) == 2:
        # The common case; no option fits in so few words.
        score = parse_float(arguments[0])
        if score is not None:
            return 1 if ctx.keys.zset_add(key, arguments[1], score) else 0
    options, pairs = _add_arguments(arguments)
    if b"INCR" in options:
        return _increment(ctx.keys, key, pairs[0][1], pairs[0][0], options)
    if not options:
        return sum(ctx.keys.zset_add(key, member, score) is True for score, member in pairs)
    added = changed = 0
    for score, member in pairs:
        value = ctx.keys.zset_get(key)  # asked for again, since the first member may create the key
        if _admits(options, None if value is None else value.score(member), score):
            outcome = ctx.keys.zset_add(key, member, score)
            added += outcome is True
            changed += outcome is not None
    return changed if b"CH" in options else added


def _add_arguments(arguments: tuple[bytes, ...]) -> tuple[set[bytes], list[tuple[float, bytes]]]:
    """The options given and the (score, member) pairs; every score is read before anything is added."""
    options: set[bytes] = set()
    position = 0
    while position < len(arguments) and arguments[position].upper() in _ADD_OPTIONS:
        options.add(arguments[position].upper())
        position += 1
    words = arguments[position:]
    if not words or len(words) % 2:
        raise CommandError(SYNTAX)
    if {b"NX", b"XX"} <= options:
        raise CommandError("ERR XX and NX options at the same time are not compatible")
    if len(options & {b"NX", b"GT", b"LT"}) > 1:
        raise CommandError("ERR GT, LT, and/or NX options at the same time are not compatible")
    if b"INCR" in options and len(words) > 2:
        raise CommandError("ERR INCR option supports a single increment-element pair")
    return options, [(floating(words[i]), words[i + 1]) for i in range(0, len(words), 2)]


def _admits(options: set[bytes], current: float | None, score: float) -> bool:
    """Whether the options let a member with score `current` (None: absent) have `score`."""
    if current is None:
        return b"XX" not in options
    if b"NX" in options:
        return False
    return not ((b"GT" in options and score <= current) or (b"LT" in options and score >= current))


def _increment(ks: Keyspace, key: bytes, member: bytes, increment: float, options: set[bytes]) -> float | None:
    """The new score; None when the options forbid it."""
    value = ks.zset_get(key)
    current = None if value is None else value.score(member)
    if current is not None and b"NX" in options:
        return None
    score = increment if current is None else current + increment
    if score != score:
        raise CommandError(_NAN_SCORE)
    if not _admits(options, current, score):
        return None
    ks.zset_add(key, member, score, event="zincr")
    return score


@command("zincrby")
def zincrby(ctx: Context, key: bytes, raw_increment: bytes, member: bytes) -> Reply:
    return _increment(ctx.keys, key, member, floating(raw_increment, NOT_FLOAT), set())


@command("zrem")
def zrem(ctx: Context, key: bytes, *members: bytes) -> Reply:
    if ctx.keys.zset_get(key) is None:
        return 0
    return sum(ctx.keys.zset_remove(key, member) for member in members)


# Scores and ranks --------------------------------------------------------------------------------


@command("zcard")
def zcard(ctx: Context, key: bytes) -> Reply:
    value = ctx.keys.zset_get(key)
    return 0 if value is None else len(value)


@command("zscore")
def zscore(ctx: Context, key: bytes, member: bytes) -> Reply:
    value = ctx.keys.zset_get(key)
    return None if value is None else value.score(member)


@command("zmscore")
def zmscore(ctx: Context, key: bytes, *members: bytes) -> Reply:
    value = ctx.keys.zset_get(key)
    if value is None:
        return [None] * len(members)
    return [value.score(member) for member in members]


@command("zrank")
def zrank(ctx: Context, key: bytes, member: bytes, *arguments: bytes) -> Reply:
    return _rank(ctx.keys, "zrank", key, member, arguments)


@command("zrevrank")
def zrevrank(ctx: Context, key: bytes, member: bytes, *arguments: bytes) -> Reply:
    return _rank(ctx.keys, "zrevrank", key, member, arguments)


def _rank(ks: Keyspace, name: str, key: bytes, member: bytes, arguments: tuple[bytes, ...]) -> Reply:
    if len(arguments) > 1:
        raise CommandError(f"ERR wrong number of arguments for '{name}' command")
    if arguments and arguments[0].upper() != b"WITHSCORE":
        raise CommandError(SYNTAX)
    value = ks.zset_get(key)
    rank = None if value is None else value.rank(member)
    if value is None or rank is None:
        return NULL_ARRAY if arguments else None
    if name == "zrevrank":
        rank = len(value) - 1 - rank
    return [rank, value.score(member)] if arguments else rank


# Pops --------------------------------------------------------------------------------------------


@command("zpopmin")
def zpopmin(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _pop(ctx.keys, key, arguments, lowest=True)


@command("zpopmax")
def zpopmax(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _pop(ctx.keys, key, arguments, lowest=False)


def _pop(ks: Keyspace, key: bytes, arguments: tuple[bytes, ...], *, lowest: bool) -> Reply:
    if len(arguments) > 1:
        raise CommandError(SYNTAX)
    count = 1
    if arguments:
        count = bounded_integer(arguments[0], 0, INT64_MAX, "ERR value is out of range, must be positive")
    value = ks.zset_get(key)
    if value is None or not count:
        return []
    pairs = pop_pairs(ks, key, len(value), count, lowest)
    # Without a count the pair itself is the reply, flat in RESP3 too.
    return Pairs(pairs) if arguments else list(pairs[0])


def pop_pairs(ks: Keyspace, key: bytes, length: int, count: int, lowest: bool) -> list[tuple[bytes, float]]:
    """Takes up to `count` of the `length` pairs of a sorted set, from its lowest scores or its highest."""
    count = min(count, length)
    if lowest:
        return ks.zset_delete_ranks(key, 0, count, event="zpopmin")
    return ks.zset_delete_ranks(key, length - count, length, event="zpopmax")[::-1]


@command("zmpop")
def zmpop(ctx: Context, raw_count: bytes, *arguments: bytes) -> Reply:
    keys_count = bounded_integer(raw_count, 1, INT64_MAX, "ERR numkeys should be greater than 0")
    lowest, count = pop_options(arguments[keys_count:], b"MIN", b"MAX")
    for key in arguments[:keys_count]:
        value = ctx.keys.zset_get(key)
        if value is not None:
            pairs = pop_pairs(ctx.keys, key, len(value), count, lowest)
            return [key, [list(pair) for pair in pairs]]
    return NULL_ARRAY


# Random members, scan, query ---------------------------------------------------------------------


@command("zrandmember")
def zrandmember(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    if not arguments:
        value = ctx.keys.zset_get(key)
        return None if value is None else value.names(at := random.randrange(len(value)), at + 1)[0]
    count = random_count(arguments[0])
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() != b"WITHSCORES"):
        raise CommandError(SYNTAX)
    with_scores = len(arguments) == 2
    if with_scores and abs(count) > INT64_MAX // 2:
        raise CommandError("ERR value is out of range")
    value = ctx.keys.zset_get(key)
    if value is None:
        return []
    pairs = _sample(value, count)
    return Pairs(pairs) if with_scores else [member for member, _ in pairs]


def _sample(value: ZSet, count: int) -> list[tuple[bytes, float]]:
    """`count` different pairs, or with a negative `count` that many draws. O(count log n)."""
    length = len(value)
    if count >= length:
        return value.items()[::-1]  # as the real server lists them
    if count < 0:
        check_draws(count)
        ranks = random.choices(range(length), k=-count)
    else:
        ranks = random.sample(range(length), count)
    return [value.by_rank(rank, rank + 1)[0] for rank in ranks]


@command("zscan")
def zscan(ctx: Context, key: bytes, raw_cursor: bytes, *arguments: bytes) -> Reply:
    cursor = scan_cursor(raw_cursor)
    value = ctx.keys.zset_get(key)
    if value is None:
        return [b"0", []]
    options = scan_options(arguments, "zset")
    # The real server returns a small one whole, whatever the cursor.
    next_cursor, pairs = (0, value.items()) if value.packed else value.scan(cursor, options.count)
    if options.matches is not None:
        pairs = [pair for pair in pairs if options.matches(pair[0])]
    if options.names_only:
        return [b"%d" % next_cursor, [member for member, _ in pairs]]
    return [b"%d" % next_cursor, [word for member, score in pairs for word in (member, format_double(score))]]


@command("zquery")
def zquery(ctx: Context, key: bytes, raw_score: bytes, name: bytes, raw_offset: bytes, raw_limit: bytes) -> Reply:
    score = floating(raw_score)
    offset, limit = integer(raw_offset), integer(raw_limit)
    value = ctx.keys.zset_get(key)
    if value is None:
        return None
    start = value.rank_of_pair(score, name) + offset
    if limit <= 0 or not 0 <= start < len(value):
        return Pairs(())
    return Pairs(value.by_rank(start, min(start + limit, len(value))))
