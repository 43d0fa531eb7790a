"""The heap of deadlines: whatever they are and however they change, what is due goes, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kache.shard.shard import Shard

NOW = 1_700_000_000_000
Draw = Callable[[random.Random], int]

DEADLINES: dict[str, Draw] = {
    "all the same": lambda draw: NOW + 5000,
    "a few milliseconds": lambda draw: NOW + draw.randrange(1, 8),
    "an hour": lambda draw: NOW + draw.randrange(1, 3_600_000),
    "from a millisecond to 300 years": lambda draw: NOW + int(10 ** draw.uniform(0, 13)),
    "as far as there are": lambda draw: draw.choice([NOW + 1, 2**62, 2**63 - 1000, 2**62 + draw.randrange(1000)]),
}


@pytest.mark.parametrize("first", DEADLINES)
@pytest.mark.parametrize("then", DEADLINES)
def test_what_is_due_goes_and_nothing_else(first: str, then: str) -> None:
    draw = random.Random(f"{first} {then}")
    shard = Shard(now_ms=NOW)
    due: dict[bytes, int] = {}
    names = [b"{slot}%d" % number for number in range(600)]  # one slot: one heap
    for name in names:
        due[name] = DEADLINES[first](draw)
        assert shard.execute([b"SET", name, b"v", b"PXAT", b"%d" % due[name]]) == b"+OK\r\n"
    shard.store.check()
    for _ in range(1500):
        name = draw.choice(names)
        if draw.random() < 0.2:
            shard.execute([b"PERSIST", name])
            due[name] = 2**64
        else:
            due[name] = DEADLINES[then](draw)
            assert shard.execute([b"PEXPIREAT", name, b"%d" % due[name]]) == b":1\r\n"
    shard.store.check()
    times = sorted(draw.sample(sorted(set(due.values())), min(40, len(set(due.values())))))
    for now in (time for time in times if time < 2**62):
        shard.set_time(now)
        while shard.expire_some(10**9):
            pass
        assert shard.execute([b"DBSIZE"]) == b":%d\r\n" % sum(deadline > now for deadline in due.values())
        shard.store.check()


def test_volatile_ttl_takes_what_is_due_first() -> None:
    draw = random.Random(9)
    shard = Shard(now_ms=NOW, policy="volatile-ttl")
    due = {b"%d" % number: NOW + int(10 ** draw.uniform(1, 12)) for number in range(500)}
    for name, deadline in due.items():
        shard.execute([b"SET", name, b"v", b"PXAT", b"%d" % deadline])
    shard.set_maxmemory(shard.store.used_memory * 3 // 4)
    while shard.evict_some(10**9):
        pass
    left = [name for name in due if shard.execute([b"EXISTS", name]) == b":1\r\n"]
    assert 0 < len(left) < 500
    assert min(due[name] for name in left) > max(due[name] for name in due if name not in left)
