"""Random geo commands: points near one another, at the map's edges and outside, every option."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from .compare import compare_as
from .strategies_common import Command, any_case, command, integers, keys, options, values
from .wire import Arg, RawReply

__all__ = ["geo_commands"]

members: st.SearchStrategy[Arg] = st.sampled_from(["Palermo", "Catania", "Roma", "Pole", "x", ""])
_longitudes: st.SearchStrategy[Arg] = st.one_of(
    st.floats(10, 17, allow_nan=False).map(repr),
    st.floats(-180, 180, allow_nan=False).map(repr),
    st.sampled_from(["0", "180", "-180", "179.9999", "-179.9999", "13.361389", "180.0001", "x", "nan", "inf", "1e400"]),
)
_latitudes: st.SearchStrategy[Arg] = st.one_of(
    st.floats(36, 42, allow_nan=False).map(repr),
    st.floats(-85.05112878, 85.05112878, allow_nan=False).map(repr),
    st.sampled_from(["0", "85", "-85", "85.05112878", "-85.05112878", "38.115556", "85.06", "", "-inf"]),
)
_lengths: st.SearchStrategy[Arg] = st.one_of(
    st.floats(0, 2000, allow_nan=False).map(repr),
    st.sampled_from(["0", "1", "100", "500", "5000", "20000", "1e7", "inf", "-1", "x", "nan", "0.0001"]),
)
_units: st.SearchStrategy[Arg] = st.sampled_from(["km", "km", "m", "mi", "ft", "KM", "Mi", "yd"])

_common = (
    (any_case("WITHDIST"),),
    ("WITHCOORD",),
    ("WITHHASH",),
    ("ASC",),
    ("DESC",),
    ("COUNT", integers),
    ("COUNT", st.integers(1, 3)),
    ("COUNT", st.integers(1, 3), "ANY"),
    ("ANY",),
)
_searches = (
    ("FROMMEMBER", members),
    ("FROMLONLAT", _longitudes, _latitudes),
    ("BYRADIUS", _lengths, _units),
    ("BYBOX", _lengths, _lengths, _units),
)
_STRAY: tuple[tuple[st.SearchStrategy[Arg] | Arg, ...], ...] = (
    ("STOREDIST",),
    ("BYRADIUS", "1"),
    ("FROMMEMBER",),
    ("WITH",),
)


def _polygon() -> st.SearchStrategy[list[Arg]]:
    near = st.tuples(st.floats(8, 20, allow_nan=False).map(repr), st.floats(30, 48, allow_nan=False).map(repr))
    drawn = st.tuples(st.lists(near, min_size=2, max_size=6), st.sampled_from([0, 0, 0, 0, -1, 1]))
    return drawn.map(
        lambda parts: ["BYPOLYGON", len(parts[0]) + parts[1], *(number for corner in parts[0] for number in corner)]
    )


def _centre_and_shape() -> st.SearchStrategy[list[Arg]]:
    around = options(*_searches[:2], most=1), options(*_searches[2:], most=1)
    return st.one_of(_polygon(), st.tuples(*around).map(lambda both: [*both[0], *both[1]]))


_search_tail = st.one_of(
    st.tuples(_centre_and_shape(), options(*_common)).map(lambda both: [*both[0], *both[1]]),
    st.tuples(options(*_common, most=2), _centre_and_shape()).map(lambda both: [*both[0], *both[1]]),
    options(*_common, *_searches, *_STRAY, most=5),
)
_radius_tail = options(*_common, ("STORE", keys), ("STOREDIST", keys), ("STORE",), ("BYBOX", "1", "1", "m"))


def _made(name: str, tail: st.SearchStrategy[list[Arg]], *parts: st.SearchStrategy[Arg]) -> st.SearchStrategy[Command]:
    return st.tuples(st.tuples(*parts), tail).map(lambda drawn: (name, *drawn[0], *drawn[1]))


_points = st.lists(st.tuples(_longitudes, _latitudes, members), min_size=1, max_size=4).map(
    lambda found: [part for point in found for part in point]
)
_good_points = st.lists(
    st.tuples(st.floats(10, 17, allow_nan=False).map(repr), st.floats(36, 42, allow_nan=False).map(repr), members),
    min_size=2,
    max_size=5,
).map(lambda found: [part for point in found for part in point])
_flags = options(("NX",), ("XX",), (any_case("CH"),), most=2)

geo_commands = st.one_of(
    _made("GEOADD", _good_points, keys),
    _made("GEOADD", _good_points, keys),
    _made("GEOADD", _points, keys),
    st.tuples(keys, _flags, _points).map(lambda drawn: ("GEOADD", drawn[0], *drawn[1], *drawn[2])),
    command("GEOADD", keys, "13", "38", members, "14"),
    command("GEODIST", keys, members, members),
    command("GEODIST", keys, members, members, _units),
    command("GEODIST", keys, members, members, _units, "x"),
    _made("GEOHASH", st.lists(members, max_size=3), keys),
    _made("GEOPOS", st.lists(members, max_size=3), keys),
    _made("GEOSEARCH", _search_tail, keys),
    _made("GEOSEARCH", _search_tail, keys),
    _made("GEOSEARCH", _search_tail, keys),
    _made(
        "GEOSEARCHSTORE", st.tuples(_search_tail, options(("STOREDIST",))).map(lambda two: two[0] + two[1]), keys, keys
    ),
    _made("GEORADIUS", _radius_tail, keys, _longitudes, _latitudes, _lengths, _units),
    _made("GEORADIUS_RO", _radius_tail, keys, _longitudes, _latitudes, _lengths, _units),
    _made("GEORADIUSBYMEMBER", _radius_tail, keys, members, _lengths, _units),
    _made("GEORADIUSBYMEMBER_RO", _radius_tail, keys, members, _lengths, _units),
    command("ZADD", keys, st.sampled_from(["-1", "0", "1e19", "3479099956230698.5", "inf", "-inf", "1e300"]), members),
    command("SET", keys, values),
    command("DEL", keys),
)


def _same_found(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Equal; without an order asked for, or with equal distances, in any order.

    The real server sorts with an unstable sort, so members at one place may be swapped.
    """
    if ours.raw == theirs.raw:
        return True
    if ours.is_error or theirs.is_error or len(ours.items) != len(theirs.items):
        return False
    return sorted(item.raw for item in ours.items) == sorted(item.raw for item in theirs.items)


compare_as(_same_found, "geosearch", "georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro")
