"""Geohashes as the geo commands use them: points as 52-bit scores, distances, and the cells that cover a search.

A score interleaves 26 bits of latitude (even bits) and 26 of longitude (odd bits), so that a cell, which
shares a prefix of bits, is one range of scores. A search looks into the cell of its centre and the eight around it,
at the finest step at which they cover the searched shape.

Owns: the arithmetic, done in the real server's order so that every digit is equal. Promises: pure functions over
numbers. Longitudes and latitudes in degrees, distances in metres. Called by geo.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = [
    "LATITUDE_LIMIT",
    "LONGITUDE_LIMIT",
    "Bounds",
    "Cell",
    "centroid",
    "decode",
    "distance",
    "encode",
    "latitude_distance",
    "radius_bounds",
    "search_cells",
    "text_hash",
]

LONGITUDE_LIMIT = 180.0
LATITUDE_LIMIT = 85.05112878
"""What the Mercator projection (EPSG:3857) covers; points beyond cannot be stored."""

_EARTH_RADIUS = 6372797.560856
_MERCATOR_MAX = 20037726.37
_RADIANS = math.pi / 180.0
_STEPS = 26
_ALPHABET = "0123456789bcdefghjkmnpqrstuvwxyz"
_EVEN_BITS = 0x5555555555555555
_ODD_BITS = 0xAAAAAAAAAAAAAAAA
_WORD = 2**64


class Cell(NamedTuple):
    """The points whose scores start with `bits` (twice `steps` of them)."""

    bits: int
    steps: int

    def scores(self) -> tuple[int, int]:
        """The lowest score in the cell and the lowest one above it."""
        shift = 52 - self.steps * 2
        return (self.bits << shift) % _WORD, ((self.bits + 1) << shift) % _WORD


class Bounds(NamedTuple):
    """A box in degrees."""

    min_longitude: float
    min_latitude: float
    max_longitude: float
    max_latitude: float


# Points and scores -------------------------------------------------------------------------------


def encode(longitude: float, latitude: float, steps: int = _STEPS, latitude_limit: float = LATITUDE_LIMIT) -> int:
    """The cell of `steps` steps that a point lies in; with all 26 steps, its score."""
    latitude_offset = (latitude + latitude_limit) / (latitude_limit - -latitude_limit)
    longitude_offset = (longitude + LONGITUDE_LIMIT) / (LONGITUDE_LIMIT - -LONGITUDE_LIMIT)
    scale = 1 << steps
    return _spread(int(latitude_offset * scale)) | _spread(int(longitude_offset * scale)) << 1


def decode(score: float) -> tuple[float, float]:
    """The centre of the cell that a score stands for, as (longitude, latitude)."""
    area = _area(Cell(_unsigned(score), _STEPS))
    longitude = (area.min_longitude + area.max_longitude) / 2
    latitude = (area.min_latitude + area.max_latitude) / 2
    return (
        min(max(longitude, -LONGITUDE_LIMIT), LONGITUDE_LIMIT),
        min(max(latitude, -LATITUDE_LIMIT), LATITUDE_LIMIT),
    )


def text_hash(score: float) -> bytes:
    """The eleven characters that geohash.org knows the point under (its latitudes reach to the poles)."""
    longitude, latitude = decode(score)
    bits = encode(longitude, latitude, latitude_limit=90.0)
    # 52 bits fill ten characters of five; the eleventh is always zero.
    shifts = range(47, -1, -5)
    return ("".join(_ALPHABET[bits >> shift & 31] for shift in shifts) + _ALPHABET[0]).encode()


def _unsigned(score: float) -> int:
    """A score, which ZADD may have set to anything, as C on x86-64 turns it into an unsigned 64-bit integer."""
    if score >= 2.0**64:
        return 0
    if score < -(2.0**63):
        return 2**63
    return int(score) % _WORD


def _spread(value: int) -> int:
    """The low 32 bits of `value`, bit i moved to bit 2i."""
    value &= 0xFFFFFFFF
    value = (value | value << 16) & 0x0000FFFF0000FFFF
    value = (value | value << 8) & 0x00FF00FF00FF00FF
    value = (value | value << 4) & 0x0F0F0F0F0F0F0F0F
    value = (value | value << 2) & 0x3333333333333333
    return (value | value << 1) & _EVEN_BITS


def _squeeze(value: int) -> int:
    """The inverse of `_spread`; odd bits are ignored."""
    value &= _EVEN_BITS
    value = (value | value >> 1) & 0x3333333333333333
    value = (value | value >> 2) & 0x0F0F0F0F0F0F0F0F
    value = (value | value >> 4) & 0x00FF00FF00FF00FF
    value = (value | value >> 8) & 0x0000FFFF0000FFFF
    return (value | value >> 16) & 0xFFFFFFFF


def _area(cell: Cell) -> Bounds:
    latitude, longitude = _squeeze(cell.bits), _squeeze(cell.bits >> 1)
    scale = 1 << cell.steps
    latitude_scale, longitude_scale = LATITUDE_LIMIT * 2, LONGITUDE_LIMIT * 2
    # 32-bit arithmetic: the cell after the last one is the first.
    return Bounds(
        -LONGITUDE_LIMIT + (longitude / scale) * longitude_scale,
        -LATITUDE_LIMIT + (latitude / scale) * latitude_scale,
        -LONGITUDE_LIMIT + ((longitude + 1) % 2**32 / scale) * longitude_scale,
        -LATITUDE_LIMIT + ((latitude + 1) % 2**32 / scale) * latitude_scale,
    )


# Distances ---------------------------------------------------------------------------------------


def latitude_distance(first: float, second: float) -> float:
    """Metres between two latitudes."""
    return _EARTH_RADIUS * abs(second * _RADIANS - first * _RADIANS)


def distance(longitude1: float, latitude1: float, longitude2: float, latitude2: float) -> float:
    """Metres between two points along the great circle (haversine)."""
    v = math.sin((longitude2 * _RADIANS - longitude1 * _RADIANS) / 2)
    if v == 0.0:
        return latitude_distance(latitude1, latitude2)
    radians1, radians2 = latitude1 * _RADIANS, latitude2 * _RADIANS
    u = math.sin((radians2 - radians1) / 2)
    a = u * u + math.cos(radians1) * math.cos(radians2) * v * v
    # Rounding can take `a` above 1 for opposite points; C's asin answers NaN then, Python's raises.
    return 2.0 * _EARTH_RADIUS * math.asin(math.sqrt(min(a, 1.0)))


def centroid(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The point under the mean of unit vectors to `points`, as (longitude, latitude)."""
    x = y = z = 0.0
    for longitude, latitude in points:
        along, up = longitude * _RADIANS, latitude * _RADIANS
        x += math.cos(up) * math.cos(along)
        y += math.cos(up) * math.sin(along)
        z += math.sin(up)
    return math.atan2(y, x) / _RADIANS, math.atan2(z, math.sqrt(x * x + y * y)) / _RADIANS


# Search areas ------------------------------------------------------------------------------------


def radius_bounds(longitude: float, latitude: float, half_width: float, half_height: float) -> Bounds:
    """The box around a point that reaches `half_width` and `half_height` metres to each side."""
    latitude_delta = half_height / _EARTH_RADIUS / _RADIANS
    # The edge nearer to a pole is the shorter one: the longer reach in degrees counts.
    edge = latitude - latitude_delta if latitude < 0 else latitude + latitude_delta
    # An infinite radius has no such box, and needs none: every comparison with NaN is false.
    shrink = math.cos(edge * _RADIANS) if math.isfinite(edge) else math.nan
    longitude_delta = half_width / _EARTH_RADIUS / shrink / _RADIANS
    return Bounds(
        longitude - longitude_delta, latitude - latitude_delta, longitude + longitude_delta, latitude + latitude_delta
    )


def search_cells(longitude: float, latitude: float, radius: float, bounds: Bounds) -> Iterator[Cell]:
    """The cells to look into for points within `radius` metres and `bounds`, in the real server's order.

    A cell that would be looked into twice in a row (a huge radius wraps around the world) comes once.
    """
    steps = _steps_for(radius, latitude)
    if steps > 1 and not _covers(Cell(encode(longitude, latitude, steps), steps), bounds):
        steps -= 1
    centre = Cell(encode(longitude, latitude, steps), steps)
    useful = _useful_directions(_area(centre), bounds) if steps >= 2 else _DIRECTIONS
    last: Cell | None = None
    for position, (east, north) in enumerate(_DIRECTIONS):
        if (east, north) not in useful:
            continue
        cell = _neighbour(centre, east, north)
        if cell == last:
            continue
        yield cell
        # The real server takes position 0 for "none before": the centre may come again.
        last = cell if position else None


# East and north; the centre, then its neighbours in the order in which they are looked into.
_DIRECTIONS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


def _useful_directions(area: Bounds, bounds: Bounds) -> tuple[tuple[int, int], ...]:
    """The directions in which the bounds reach beyond the centre's own cell."""
    return tuple(
        (east, north)
        for east, north in _DIRECTIONS
        if not (
            (north < 0 and area.min_latitude < bounds.min_latitude)
            or (north > 0 and area.max_latitude > bounds.max_latitude)
            or (east < 0 and area.min_longitude < bounds.min_longitude)
            or (east > 0 and area.max_longitude > bounds.max_longitude)
        )
    )


def _steps_for(radius: float, latitude: float) -> int:
    """The finest step at which three cells in a row surely hold twice the radius."""
    if radius == 0:
        return _STEPS
    steps = 1
    while radius < _MERCATOR_MAX:
        radius *= 2
        steps += 1
    steps -= 2
    # Cells get narrower towards the poles.
    if abs(latitude) > 66:
        steps -= 1
        if abs(latitude) > 80:
            steps -= 1
    return min(max(steps, 1), _STEPS)


def _covers(centre: Cell, bounds: Bounds) -> bool:
    """Whether the centre's neighbours reach to the edges of the bounds."""
    return not (
        _area(_neighbour(centre, 0, 1)).max_latitude < bounds.max_latitude
        or _area(_neighbour(centre, 0, -1)).min_latitude > bounds.min_latitude
        or _area(_neighbour(centre, 1, 0)).max_longitude < bounds.max_longitude
        or _area(_neighbour(centre, -1, 0)).min_longitude > bounds.min_longitude
    )


def _neighbour(cell: Cell, east: int, north: int) -> Cell:
    """The cell one to the given side, around the world at its edges."""
    mask = (1 << cell.steps * 2) - 1
    longitude = _moved(cell.bits & _ODD_BITS, east, _EVEN_BITS & mask, _ODD_BITS & mask)
    latitude = _moved(cell.bits & _EVEN_BITS, north, _ODD_BITS & mask, _EVEN_BITS & mask)
    return Cell(longitude | latitude, cell.steps)


def _moved(bits: int, by: int, gaps: int, own: int) -> int:
    # With the other coordinate's bits filled, a carry runs through them to the next own bit.
    if by > 0:
        bits += gaps + 1
    elif by < 0:
        bits = (bits | gaps) - (gaps + 1)
    else:
        return bits
    return bits & own
