"""Handlers of the geo commands.

Points are members of an ordinary sorted set, their scores geohashes (geohash.py); searches are described by
`Query` (geo_query.py). Owns: the commands' semantics and reply shapes. Promises: every change goes through the
keyspace's mutators; a search reads only the cells that cover its shape.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kache.errors import SYNTAX, CommandError
from kache.replies import NULL_ARRAY, DecimalDouble, Reply

from . import geohash
from .geo_query import Point, Query, Shape, coordinates, unit_factor
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace
    from ..engine.zset import ZSet

__all__: list[str] = []


class _Found(NamedTuple):
    member: bytes
    score: float
    point: Point
    distance: float


# Single members ----------------------------------------------------------------------------------


@command("geoadd")
def geoadd(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    position = 0
    options = set()
    while position < len(arguments) and arguments[position].upper() in (b"NX", b"XX", b"CH"):
        options.add(arguments[position].upper())
        position += 1
    triples = arguments[position:]
    if not triples or len(triples) % 3 or {b"NX", b"XX"} <= options:
        raise CommandError(SYNTAX)
    scores = []
    for at in range(0, len(triples), 3):
        scores.append((triples[at + 2], float(geohash.encode(*coordinates(triples[at], triples[at + 1])))))
    ctx.keys.zset_get(key)
    added = changed = 0
    for member, score in scores:
        exists = ctx.keys.zset_score(key, member) is not None
        if (b"NX" in options and exists) or (b"XX" in options and not exists):
            continue
        outcome = ctx.keys.zset_add(key, member, score)
        added += outcome is True
        changed += outcome is not None
    return changed if b"CH" in options else added


@command("geodist")
def geodist(ctx: Context, key: bytes, first: bytes, second: bytes, *arguments: bytes) -> Reply:
    if len(arguments) > 1:
        raise CommandError(SYNTAX)
    unit = unit_factor(arguments[0]) if arguments else 1.0
    zset = ctx.keys.zset_get(key)
    if zset is None:
        return None
    scores = zset.score(first), zset.score(second)
    if scores[0] is None or scores[1] is None:
        return None
    return _distance_text(geohash.distance(*geohash.decode(scores[0]), *geohash.decode(scores[1])) / unit)


@command("geopos")
def geopos(ctx: Context, key: bytes, *members: bytes) -> Reply:
    zset = ctx.keys.zset_get(key)
    scores = [None if zset is None else zset.score(member) for member in members]
    return [NULL_ARRAY if score is None else _point_reply(geohash.decode(score)) for score in scores]


@command("geohash")
def geohash_(ctx: Context, key: bytes, *members: bytes) -> Reply:
    zset = ctx.keys.zset_get(key)
    scores = [None if zset is None else zset.score(member) for member in members]
    return [None if score is None else geohash.text_hash(score) for score in scores]


def _point_reply(point: Point) -> list[DecimalDouble]:
    return [DecimalDouble(value, f"{value:.17f}".rstrip("0").rstrip(".").encode()) for value in point]


def _distance_text(distance: float) -> bytes:
    """Four digits after the point, as the real server rounds them: half to even, after scaling."""
    whole, fraction = divmod(round(distance * 10000), 10000)
    return b"%d.%04d" % (whole, fraction)


# Searches ----------------------------------------------------------------------------------------


@command("geosearch")
def geosearch(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx.keys, Query.search(ctx.keys.zset_get(key), "GEOSEARCH", arguments, None))


@command("geosearchstore")
def geosearchstore(ctx: Context, destination: bytes, key: bytes, *arguments: bytes) -> Reply:
    return _answer(
        ctx.keys, Query.search(ctx.keys.zset_get(key), "GEOSEARCHSTORE", arguments, destination), "geosearchstore"
    )


@command("georadius")
def georadius(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx.keys, Query.around_point(ctx.keys.zset_get(key), "GEORADIUS", arguments, may_store=True))


@command("georadius_ro")
def georadius_ro(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _answer(ctx.keys, Query.around_point(ctx.keys.zset_get(key), "GEORADIUS_RO", arguments, may_store=False))


@command("georadiusbymember")
def georadiusbymember(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _answer(
        ctx.keys, Query.around_member(ctx.keys.zset_get(key), "GEORADIUSBYMEMBER", arguments, may_store=True)
    )


@command("georadiusbymember_ro")
def georadiusbymember_ro(ctx: Context, key: bytes, *arguments: bytes) -> Reply:
    return _answer(
        ctx.keys, Query.around_member(ctx.keys.zset_get(key), "GEORADIUSBYMEMBER_RO", arguments, may_store=False)
    )


def _answer(ks: Keyspace, query: Query, event: str = "georadiusstore") -> Reply:
    found = [] if query.zset is None else _search(query.zset, query)
    if query.store_key is not None:
        return _store(ks, query.store_key, query, found, event)
    if not (query.with_distance or query.with_hash or query.with_coordinates):
        return [item.member for item in found]
    return [_described(item, query) for item in found]


def _search(zset: ZSet, query: Query) -> list[_Found]:
    found = []
    for item in _inside(zset, query.shape()):
        found.append(item)
        if query.any and len(found) == query.count:
            break
    if query.order:
        found.sort(key=lambda item: item.distance, reverse=query.order < 0)
    return found[: query.count] if query.count else found


def _inside(zset: ZSet, shape: Shape) -> Iterator[_Found]:
    """The members inside the shape, cell by cell."""
    for cell in shape.cells():
        low, high = cell.scores()
        for member, score in zset.by_rank(*zset.score_span(float(low), False, float(high), True)):
            point = geohash.decode(score)
            distance = shape.distance_inside(point)
            if distance is not None:
                yield _Found(member, score, point, distance)


def _described(item: _Found, query: Query) -> list[Reply]:
    reply: list[Reply] = [item.member]
    if query.with_distance:
        reply.append(_distance_text(item.distance / query.unit))
    if query.with_hash:
        reply.append(int(item.score))
    if query.with_coordinates:
        reply.append(_point_reply(item.point))
    return reply


def _store(ks: Keyspace, destination: bytes, query: Query, found: list[_Found], event: str) -> int:
    scores = {item.member: item.distance / query.unit if query.store_distance else item.score for item in found}
    return ks.zset_replace(destination, scores, event=event)
