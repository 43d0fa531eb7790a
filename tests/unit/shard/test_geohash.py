"""Geohash arithmetic: known places, round trips, and searches that miss nothing."""

from __future__ import annotations

import random

import pytest

from kache.shard.commands import geohash
from kache.shard.commands.geo_query import Box, Circle, Polygon, Shape

PALERMO = (13.361389, 38.115556)
CATANIA = (15.087269, 37.502669)


def test_known_scores_and_texts() -> None:
    assert geohash.encode(*PALERMO) == 3479099956230698
    assert geohash.encode(*CATANIA) == 3479447370796909
    assert geohash.text_hash(3479099956230698) == b"sqc8b49rny0"
    assert geohash.decode(3479099956230698) == (13.361389338970184, 38.1155563954963)


def test_known_distance() -> None:
    first, second = geohash.decode(geohash.encode(*PALERMO)), geohash.decode(geohash.encode(*CATANIA))
    assert round(geohash.distance(*first, *second), 4) == 166274.1516
    assert geohash.distance(10, 20, 10, 20) == 0
    assert geohash.distance(10, 20, 10, 21) == geohash.latitude_distance(20, 21)


def test_a_point_stays_where_it_was() -> None:
    seeded = random.Random(1)
    for _ in range(2000):
        point = (seeded.uniform(-180, 180), seeded.uniform(-85, 85))
        score = geohash.encode(*point)
        assert 0 <= score < 2**52
        found = geohash.decode(score)
        assert geohash.distance(*point, *found) < 0.6
        assert geohash.encode(*found) == score


@pytest.mark.parametrize("score", [-1.0, float("inf"), float("-inf"), 1e300, 1e19, 0.5, 2.0**63, 2.0**64])
def test_any_score_decodes_to_a_point(score: float) -> None:
    longitude, latitude = geohash.decode(score)
    assert abs(longitude) <= geohash.LONGITUDE_LIMIT
    assert abs(latitude) <= geohash.LATITUDE_LIMIT
    assert len(geohash.text_hash(score)) == 11


def random_shape(seeded: random.Random) -> Shape:
    centre = (seeded.uniform(-150, 150), seeded.uniform(-60, 60))
    size = 10 ** seeded.uniform(2, 6)
    kind = seeded.randrange(3)
    if kind == 0:
        return Circle(centre, size)
    if kind == 1:
        return Box(centre, size, size / 2, 1.0)
    spread = size / 200_000
    return Polygon(
        [(centre[0] + seeded.uniform(-spread, spread), centre[1] + seeded.uniform(-spread, spread)) for _ in range(5)]
    )


def test_the_cells_cover_what_is_inside() -> None:
    seeded = random.Random(2)
    inside = 0
    for _ in range(200):
        shape = random_shape(seeded)
        ranges = [cell.scores() for cell in shape.cells()]
        for _ in range(50):
            point = (
                min(180.0, max(-180.0, shape.centre[0] + seeded.uniform(-3, 3))),
                min(85.0, max(-85.0, shape.centre[1] + seeded.uniform(-3, 3))),
            )
            if shape.distance_inside(point) is not None:
                inside += 1
                score = geohash.encode(*point)
                assert any(low <= score < high for low, high in ranges)
    assert inside > 500


def test_an_infinite_radius_finds_everything() -> None:
    everywhere = Circle(PALERMO, float("inf"))
    ranges = [cell.scores() for cell in everywhere.cells()]
    for point in (PALERMO, CATANIA, (-179.0, -80.0), (179.0, 80.0)):
        assert everywhere.distance_inside(point) is not None
        assert any(low <= geohash.encode(*point) < high for low, high in ranges)
