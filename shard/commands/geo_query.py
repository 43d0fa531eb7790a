"""The arguments of GEOSEARCH, GEOSEARCHSTORE and the GEORADIUS family, and the shapes they search.

Owns: the grammar with its order of checks and error texts, and what lies inside a shape. Promises: reads a
sorted set only to find the member a search is centred on. Called by geo.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from kache.errors import SYNTAX, CommandError

from . import geohash
from .arguments import bounded_integer, floating, integer

if TYPE_CHECKING:
    from ..engine.zset import ZSet

__all__ = ["Box", "Circle", "Point", "Polygon", "Query", "Shape", "coordinates", "unit_factor"]

Point = tuple[float, float]
"""Longitude and latitude in degrees."""

_UNITS = {b"m": 1.0, b"km": 1000.0, b"ft": 0.3048, b"mi": 1609.34}
_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1


def coordinates(raw_longitude: bytes, raw_latitude: bytes) -> Point:
    """A point that can be stored; raises for what is no number or lies beyond the map."""
    longitude, latitude = floating(raw_longitude), floating(raw_latitude)
    if abs(longitude) > geohash.LONGITUDE_LIMIT or abs(latitude) > geohash.LATITUDE_LIMIT:
        raise CommandError(f"ERR invalid longitude,latitude pair {longitude:f},{latitude:f}")
    return longitude, latitude


def unit_factor(raw: bytes) -> float:
    """Metres in one of the unit; raises for an unknown one."""
    factor = _UNITS.get(raw.lower())
    if factor is None:
        raise CommandError("ERR unsupported unit provided. please use M, KM, FT, MI")
    return factor


# Shapes ------------------------------------------------------------------------------------------


class Shape(Protocol):
    """An area around a centre; all lengths in metres."""

    centre: Point

    def cells(self) -> Iterable[geohash.Cell]:
        """The cells that cover the area."""

    def distance_inside(self, point: Point) -> float | None:
        """Metres from the centre to `point`; None when it lies outside."""


class Circle:
    """All points within `radius` of the centre."""

    def __init__(self, centre: Point, radius: float) -> None:
        self.centre = centre
        self.radius = radius

    def cells(self) -> Iterable[geohash.Cell]:
        bounds = geohash.radius_bounds(*self.centre, self.radius, self.radius)
        return geohash.search_cells(*self.centre, self.radius, bounds)

    def distance_inside(self, point: Point) -> float | None:
        away = geohash.distance(*self.centre, *point)
        return None if away > self.radius else away


class Box:
    """All points within half the width to the east or west, and half the height to the north or south."""

    def __init__(self, centre: Point, width: float, height: float, unit: float) -> None:
        self.centre = centre
        self.width = width * unit
        self.height = height * unit
        # In this order, unit last, as the real server rounds.
        self._reach = math.sqrt((width / 2) * (width / 2) + (height / 2) * (height / 2)) * unit
        self._half = (unit * width / 2, unit * height / 2)

    def cells(self) -> Iterable[geohash.Cell]:
        bounds = geohash.radius_bounds(*self.centre, *self._half)
        return geohash.search_cells(*self.centre, self._reach, bounds)

    def distance_inside(self, point: Point) -> float | None:
        longitude, latitude = self.centre
        if geohash.latitude_distance(point[1], latitude) > self.height / 2:
            return None
        if geohash.distance(*point, longitude, point[1]) > self.width / 2:
            return None
        return geohash.distance(longitude, latitude, *point)


class Polygon:
    """All points inside a polygon by the even-odd rule; the centre is its corners' mean on the sphere."""

    def __init__(self, corners: Sequence[Point]) -> None:
        self.corners = corners
        self.centre = geohash.centroid(corners)

    def cells(self) -> Iterable[geohash.Cell]:
        longitudes, latitudes = zip(*self.corners, strict=True)
        bounds = geohash.Bounds(min(longitudes), min(latitudes), max(longitudes), max(latitudes))
        reach = max(
            geohash.distance(*self.centre, longitude, latitude)
            for longitude in (bounds.min_longitude, bounds.max_longitude)
            for latitude in (bounds.min_latitude, bounds.max_latitude)
        )
        return geohash.search_cells(*self.centre, reach, bounds)

    def distance_inside(self, point: Point) -> float | None:
        longitude, latitude = point
        inside = False
        before = self.corners[-1]
        for corner in self.corners:
            if (corner[1] > latitude) != (before[1] > latitude):
                crossing = (before[0] - corner[0]) * (latitude - corner[1]) / (before[1] - corner[1]) + corner[0]
                inside ^= longitude < crossing
            before = corner
        return geohash.distance(*self.centre, longitude, latitude) if inside else None


# Arguments ---------------------------------------------------------------------------------------


class Query:
    """What a search asks for; built by one of the class methods, which raise CommandError for bad arguments.

    `zset` None (no such key) makes every search empty, but its arguments are checked all the same.
    """

    def __init__(self, zset: ZSet | None, command: str) -> None:
        self.command = command
        self.zset = zset
        self.unit = 1.0
        self.with_distance = self.with_hash = self.with_coordinates = False
        self.order = 0  # 1 nearest first, -1 farthest first
        self.count = 0  # 0 all
        self.any = False
        self.store_key: bytes | None = None
        self.store_distance = False
        self._centre: Point | None = None
        self._centred_by = b""
        self._shaped_by = b""
        self._lengths: tuple[float, ...] = ()
        self._corners: list[Point] = []

    @classmethod
    def around_point(cls, zset: ZSet | None, command: str, arguments: tuple[bytes, ...], *, may_store: bool) -> Query:
        """GEORADIUS: ``longitude latitude radius unit [options]``."""
        query = cls(zset, command)
        query._centre = coordinates(arguments[0], arguments[1])
        query._take_radius(arguments[2], arguments[3])
        query._take_options(arguments[4:], may_store=may_store)
        return query

    @classmethod
    def around_member(cls, zset: ZSet | None, command: str, arguments: tuple[bytes, ...], *, may_store: bool) -> Query:
        """GEORADIUSBYMEMBER: ``member radius unit [options]``."""
        query = cls(zset, command)
        if zset is not None:  # without a key the real server does not look at the radius
            query._take_member(arguments[0])
            query._take_radius(arguments[1], arguments[2])
        query._take_options(arguments[3:], may_store=may_store)
        return query

    @classmethod
    def search(cls, zset: ZSet | None, command: str, arguments: tuple[bytes, ...], store_key: bytes | None) -> Query:
        """GEOSEARCH and, with a `store_key`, GEOSEARCHSTORE."""
        query = cls(zset, command)
        query.store_key = store_key
        query._take_options(arguments, is_search=True)
        return query

    def shape(self) -> Shape:
        """The area to search; only for a query on a key that exists."""
        if self._corners:
            return Polygon(self._corners)
        assert self._centre is not None
        if self._shaped_by == b"BYBOX":
            width, height = self._lengths
            return Box(self._centre, width, height, self.unit)
        return Circle(self._centre, self._lengths[0] * self.unit)

    def _take_member(self, member: bytes) -> None:
        if self.zset is None:
            return
        score = self.zset.score(member)
        if score is None:
            raise CommandError(f"ERR member {member.decode('utf-8', 'surrogateescape')} does not exist")
        self._centre = geohash.decode(score)

    def _take_radius(self, raw_radius: bytes, raw_unit: bytes) -> None:
        radius = floating(raw_radius, "ERR need numeric radius")
        if radius < 0:
            raise CommandError("ERR radius cannot be negative")
        self.unit = unit_factor(raw_unit)
        self._lengths = (radius,)

    def _take_box(self, raw_width: bytes, raw_height: bytes, raw_unit: bytes) -> None:
        width = floating(raw_width, "ERR need numeric width")
        height = floating(raw_height, "ERR need numeric height")
        if width < 0 or height < 0:
            raise CommandError("ERR height or width cannot be negative")
        self.unit = unit_factor(raw_unit)
        self._lengths = (width, height)

    def _take_polygon(self, arguments: tuple[bytes, ...]) -> int:
        """``count longitude latitude …``; returns how many arguments it took."""
        count = bounded_integer(arguments[0], _INT32_MIN, _INT32_MAX, "ERR invalid number of vertices")
        if count < 3 or (len(arguments) - 1) // 2 < count:
            raise CommandError("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices")
        self.unit = 1.0
        self._corners = [coordinates(*arguments[at : at + 2]) for at in range(1, 2 * count, 2)]
        return 1 + 2 * count

    def _take_options(self, arguments: tuple[bytes, ...], *, may_store: bool = False, is_search: bool = False) -> None:
        position = 0
        while position < len(arguments):
            word, rest = arguments[position].upper(), arguments[position + 1 :]
            taken = self._take_common(word, rest)
            if taken is None and may_store and word in (b"STORE", b"STOREDIST") and rest:
                self.store_key, self.store_distance = rest[0], word == b"STOREDIST"
                taken = 1
            if taken is None and is_search:
                taken = self._take_search_option(word, rest)
            if taken is None:
                raise CommandError(SYNTAX)
            position += 1 + taken
        self._check(is_search)

    def _take_common(self, word: bytes, rest: tuple[bytes, ...]) -> int | None:
        """An option of every command; how many arguments after it belong to it, None when it is another."""
        if word == b"WITHDIST":
            self.with_distance = True
        elif word == b"WITHHASH":
            self.with_hash = True
        elif word == b"WITHCOORD":
            self.with_coordinates = True
        elif word == b"ANY":
            self.any = True
        elif word in (b"ASC", b"DESC"):
            self.order = 1 if word == b"ASC" else -1
        elif word == b"COUNT" and rest:
            self.count = integer(rest[0])
            if self.count <= 0:
                raise CommandError("ERR COUNT must be > 0")
            return 1
        else:
            return None
        return 0

    def _take_search_option(self, word: bytes, rest: tuple[bytes, ...]) -> int | None:
        """As `_take_common`, for the options that only GEOSEARCH and GEOSEARCHSTORE have."""
        if word == b"STOREDIST" and self.store_key is not None:
            self.store_distance = True
            return 0
        # Each kind of centre, and of shape, may come again, but excludes the others.
        if word in (b"FROMMEMBER", b"FROMLONLAT") and self._centred_by in (b"", word) and not self._corners:
            return self._take_centre(word, rest)
        if word in (b"BYRADIUS", b"BYBOX", b"BYPOLYGON") and self._shaped_by in (b"", word):
            return self._take_shape(word, rest)
        return None

    def _take_centre(self, word: bytes, rest: tuple[bytes, ...]) -> int | None:
        if word == b"FROMMEMBER" and rest:
            self._take_member(rest[0])
            self._centred_by = word
            return 1
        if word == b"FROMLONLAT" and len(rest) >= 2:
            self._centre = coordinates(rest[0], rest[1])
            self._centred_by = word
            return 2
        return None

    def _take_shape(self, word: bytes, rest: tuple[bytes, ...]) -> int | None:
        taken: int | None = None
        if word == b"BYRADIUS" and len(rest) >= 2:
            self._take_radius(rest[0], rest[1])
            taken = 2
        elif word == b"BYBOX" and len(rest) >= 3:
            self._take_box(rest[0], rest[1], rest[2])
            taken = 3
        elif word == b"BYPOLYGON" and len(rest) >= 2 and not self._centred_by:
            taken = self._take_polygon(rest)
        if taken is not None:
            self._shaped_by = word
        return taken

    def _check(self, is_search: bool) -> None:
        """What must hold between the options, in the real server's order."""
        if self.store_key is not None and (self.with_distance or self.with_hash or self.with_coordinates):
            name = "GEOSEARCHSTORE" if is_search else "STORE option in GEORADIUS"
            raise CommandError(f"ERR {name} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")
        if is_search and not self._centred_by and not self._corners:
            raise CommandError(f"ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {self.command}")
        if is_search and not self._shaped_by:
            raise CommandError(f"ERR exactly one of BYRADIUS, BYBOX and BYPOLYGON can be specified for {self.command}")
        if self.any and not self.count:
            raise CommandError("ERR the ANY argument requires COUNT argument")
        if self.count and not self.order and not self.any:
            self.order = 1  # COUNT means the nearest
