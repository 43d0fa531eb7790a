"""What the end-to-end tests share: a running cluster. A module that needs another sort defines its own `cluster`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster


@pytest.fixture(scope="module", params=[1, 4], ids=["1-shard", "4-shards"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with the default settings, once of 1 and once of 4 shards; its keys are the test's to clean up."""
    with Cluster(request.param) as running:
        yield running
