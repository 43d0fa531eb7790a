"""A shard that is put together in the process from which all are forked becomes one of them."""

from __future__ import annotations

from kache.shard.engine.engine import Budget
from kache.shard.shard import Shard

NOW = 1_700_000_000_000


def taken_up(index: int) -> Shard:
    shard = Shard(now_ms=1)
    shard.take_up(hash_seed=bytes(range(16)), cleanup=None, index=index, now_ms=NOW, budget=Budget())
    return shard


def test_it_is_as_one_that_was_made_for_its_process() -> None:
    made = Shard(hash_seed=bytes(range(16)), index=3, now_ms=NOW, budget=Budget())
    for shard in (taken_up(3), made):
        assert shard.index == 3
        assert shard.execute([b"SET", b"k", b"v", b"PX", b"1000"]) == b"+OK\r\n"
        assert shard.execute([b"PTTL", b"k"]) == b":1000\r\n"
        shard.set_time(NOW + 1001)
        assert shard.execute([b"GET", b"k"]) == b"$-1\r\n"


def test_no_two_of_them_draw_the_same() -> None:
    drawn = [taken_up(index).modules._chance.random() for index in range(3)]
    prepared = Shard(now_ms=1)
    before = prepared.modules._chance.getstate()
    prepared.take_up(hash_seed=bytes(16), cleanup=None, index=0, now_ms=NOW, budget=Budget())
    assert len(set(drawn)) == 3 and prepared.modules._chance.getstate() != before
