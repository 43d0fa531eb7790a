"""One real cluster of each kind for all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from six_nodes import KINDS, PATIENT, SixNodes, six_nodes

from kache.testing.cluster import LocalCluster


@pytest.fixture(scope="module", params=KINDS)
def nodes(request: pytest.FixtureRequest) -> Iterator[SixNodes]:
    """Three masters and three replicas."""
    with six_nodes(request.param) as started:
        yield started


@pytest.fixture(scope="module")
def front(nodes: SixNodes) -> Iterator[LocalCluster]:
    """Kache in front of them."""
    with LocalCluster(shards=0, backend=nodes.url, **PATIENT) as cluster:
        yield cluster
