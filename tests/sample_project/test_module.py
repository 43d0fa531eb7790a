"""A cluster with commands of this project."""

import pytest


@pytest.mark.kache(modules="limits.py", frozen=True)
def test_the_limit_is_over_after_a_minute(kache, kache_cluster):
    for key in ("a", "b", "c", "d"):
        assert [kache.execute("SHOP.TAKE", key, 2) for _ in range(3)] == [1, 1, 0]
    kache_cluster.advance(minutes=1)
    assert kache.execute("SHOP.TAKE", "a", 2) == 1
