"""With Django's cache framework."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.core.cache.backends.redis import RedisCache

from kache import Client
from kache.testing import LocalCluster

settings.configure()


@pytest.fixture
def cache(kache_cluster: LocalCluster, kache: Client[bytes]) -> RedisCache:
    """A backend as CACHES["default"] would be."""
    return RedisCache(kache_cluster.url, {})


def test_a_session_ends(cache: RedisCache, kache_cluster: LocalCluster) -> None:
    cache.set("session", {"user": 7}, timeout=1800)
    kache_cluster.advance(minutes=29)
    assert cache.get("session") == {"user": 7}
    cache.touch("session", 1800)
    kache_cluster.advance(minutes=29)
    assert cache.get("session") == {"user": 7}
    kache_cluster.advance(minutes=1)
    assert cache.get("session", "signed out") == "signed out"
