"""Client libraries as users with few rights: redis-py's calls about users, Django's cache, Celery's results."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster import Cluster
from test_clients import installed, run


@pytest.fixture(scope="module", params=[(1, 1), (4, 2)], ids=["1-shard", "4-shards"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Several shards are behind two routers."""
    shards, routers = request.param
    with Cluster(shards, routers=routers) as running:
        yield running


@pytest.fixture(scope="session")
def celery(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with Celery and what it needs."""
    return installed(tmp_path_factory.mktemp("celery"), "celery>=5.4", alone=False)


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_about_users(cluster: Cluster, protocol: int) -> None:
    assert "users fine" in run("acl_redis_py.py", cluster.port, protocol)


DJANGO = [
    "+get",
    "+set",
    "+mget",
    "+mset",
    "+del",
    "+exists",
    "+incrby",
    "+expire",
    "+persist",
    "+multi",
    "+exec",
    "+flushdb",
    "+client|setinfo",
]
CELERY = ["+get", "+setex", "+expire", "+del", "+zadd", "+zcount", "+multi", "+exec", "+select", "+client|setinfo"]


def test_django_as_a_user_with_what_it_needs(cluster: Cluster) -> None:
    cluster.request("acl", "setuser", "web", "reset", "on", ">secret", "~:1:*", *DJANGO)
    environment = {**os.environ, "KACHE_LOGIN": "web:secret@"}
    assert "cache: fine" in run("django_cache.py", cluster.port, environment=environment)
    assert cluster.request("acl", "log") == []


def test_celery_as_a_user_with_what_it_needs(cluster: Cluster, celery: dict[str, str]) -> None:
    cluster.request(
        "acl", "setuser", "jobs", "reset", "on", ">secret", "~celery-taskset-meta-*", "~celery-task-meta-*", *CELERY
    )
    environment = {**celery, "KACHE_LOGIN": "jobs:secret@"}
    assert "results: fine" in run("celery_results.py", cluster.port, environment=environment)
    assert cluster.request("acl", "log") == []
