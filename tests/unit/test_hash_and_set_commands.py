"""Hashes, field TTLs and sets through a shard's execution point: what a comparison with a real server cannot show.

Time that moves, scans while the collection changes, the distribution of random choices, and their cost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from kache.shard._engine import Shard
from kache.shard._wire_reader import decode

NOW = 1_800_000_000_000
EX = 100


@pytest.fixture
def shard() -> Iterator[Shard]:
    made = Shard(now_ms=NOW)
    yield made
    made.keyspace.check()
