"""What the supervisor keeps in the data directory, over its lives."""

from __future__ import annotations

from pathlib import Path

from kache.cluster.durability import DataDirectory
from kache.cluster.resolution import Order, Unfinished
from kache.cluster.transactions import Decision
from kache.config.settings import Config
from kache.libraries import MOST_BYTES


def test_the_largest_libraries_and_a_decision_are_there_again(tmp_path: Path) -> None:
    config = Config(dir=str(tmp_path / "data"), shards=2, appendonly=True)
    unfinished = Unfinished(5, {shard: Order(5, Decision(skip=[*range(100_000)])) for shard in range(2)})
    first = DataDirectory(config)
    first.start(config)
    first.keep_functions(b"x" * MOST_BYTES)
    first.keep_unfinished(unfinished)
    first.close()
    second = DataDirectory(config)
    second.start(config)
    assert len(second.functions) == MOST_BYTES and second.hash_seed == first.hash_seed
    assert second.unfinished == unfinished
    second.keep_unfinished(None)
    second.close()
    third = DataDirectory(config)
    third.start(config)
    assert third.unfinished is None
    third.close()
