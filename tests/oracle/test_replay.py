"""replay(effects(commands)) == state: what the mutators tell is all that happened, and can be done again.

Random commands of every data type run on a shard that records. Its frames are applied to an empty store, which then holds
the same: the same keys, types, values, deadlines of keys and fields, and what OBJECT ENCODING depends on.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state import state

from kache.shard.commands.dump import dump_value
from kache.shard.commands.registry import handler_of
from kache.shard.engine.engine import Keyspace, Replay, Store
from kache.shard.engine.memory import seed_random
from kache.shard.shard import Shard

from .harness import Command
from .strategies_bits import bit_commands
from .strategies_geo import geo_commands
from .strategies_hashes import hash_commands, hash_random_commands, hash_ttl_commands
from .strategies_hyperloglog import hyperloglog_commands
from .strategies_keys import filling_commands, key_commands, sort_commands
from .strategies_lists import list_commands
from .strategies_sets import set_commands, set_random_commands, whole_set_commands
from .strategies_strings import string_commands
from .strategies_zsets import zset_algebra_commands, zset_commands, zset_random_commands
from .wire import to_bytes

pytestmark = pytest.mark.once

EXAMPLES = int(os.environ.get("KACHE_ORACLE_EXAMPLES", "300"))
NOW = 1_700_000_000_000

every_type = st.one_of(
    string_commands, bit_commands, hyperloglog_commands, list_commands, hash_commands, hash_ttl_commands, set_commands,
    whole_set_commands, zset_commands, zset_algebra_commands, geo_commands, key_commands, sort_commands, filling_commands,
    set_random_commands, hash_random_commands, zset_random_commands,
)  # fmt: skip

around = st.one_of(
    st.tuples(st.just("SELECT"), st.integers(0, 2)),
    st.tuples(st.just("SWAPDB"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("MOVE"), st.sampled_from(["{t}a", "{t}b"]), st.integers(0, 2)),
    st.tuples(st.just("COPY"), st.just("{t}a"), st.just("{t}b"), st.just("DB"), st.integers(0, 2), st.just("REPLACE")),
    st.sampled_from([("FLUSHDB",), ("FLUSHALL",)]),
)

steps = st.lists(
    st.one_of(every_type, every_type, every_type, every_type, around, st.integers(0, 3000),
        st.sampled_from([b"tick", b"frame", b"restore"])),
    min_size=1, max_size=60,
)  # fmt: skip
"""Commands; numbers are milliseconds that pass; "tick" is the timer's work, "frame" ends a frame, "restore" copies values."""


class Recorded:
    """A shard that records, and what became of its frames elsewhere."""

    def __init__(self, *, compiled: bool, maxmemory: int = 0, policy: str = "noeviction") -> None:
        self.shard = Shard(now_ms=NOW, maxmemory=maxmemory, policy=policy)
        if not compiled:
            for name in self.shard.compiled_commands():
                self.shard.replace_handler(name, handler_of(name))
        self.shard.store.effects.record()
        self.copy = Store()
        self.replay = Replay(self.copy)
        self.now = NOW
        self.db = 0

    def step(self, step: Command | int | bytes) -> None:
        if step == b"frame":
            self.end_frame()
        elif step == b"tick":
            self.shard.expire_some(10**9)
            self.shard.evict_some(10**9)
        elif step == b"restore":
            self.restore()
        elif isinstance(step, int):
            self.now += step
            self.shard.set_time(self.now)
        else:
            assert isinstance(step, tuple)
            self.execute([to_bytes(word) for word in step])

    def execute(self, argv: list[bytes]) -> None:
        if argv[0].upper() == b"SELECT":
            self.db = int(argv[1]) % 16 if argv[1].isdigit() else self.db
        else:
            self.shard.execute(argv, 2, self.db)

    def restore(self) -> None:
        """One value of each type again under another, long name, as a move between shards does it."""
        keys = Keyspace(self.shard.store, self.db)
        for key in sorted(keys.keys())[:8]:
            payload = dump_value(keys, key)
            if payload is not None:
                name = b"{t}" + b"n" * 200 + key
                self.execute([b"RESTORE", name, b"%d" % (len(payload) % 3 * 700), payload, b"REPLACE"])

    def end_frame(self) -> None:
        self.replay.apply(*self.shard.store.effects.take())

    def compare(self) -> None:
        self.end_frame()
        self.copy.set_time(self.now)
        assert state(self.copy) == state(self.shard.store)
        self.copy.check()
        self.shard.store.check()


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(script=steps, compiled=st.booleans())
def test_what_is_recorded_can_be_done_again(script: list[Command | int | bytes], compiled: bool) -> None:
    recorded = Recorded(compiled=compiled)
    for step in script:
        recorded.step(step)
    recorded.compare()


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(script=steps, policy=st.sampled_from(["allkeys-lru", "volatile-ttl", "allkeys-random", "volatile-lfu"]))
def test_evictions_are_recorded(script: list[Command | int | bytes], policy: str) -> None:
    seed_random(5)
    recorded = Recorded(compiled=True, maxmemory=60_000, policy=policy)
    for number in range(200):
        recorded.execute([b"SET", b"filler:%d" % number, b"v" * 400, b"PX", b"%d" % (20 * number + 1)])
    for step in script:
        recorded.step(step)
    recorded.compare()
    assert recorded.shard.store.evicted > 0


@pytest.mark.parametrize("compiled", [True, False])
def test_long_histories(compiled: bool) -> None:
    """Collections beyond a node, a chunk and a record's count; many frames."""
    draw = random.Random(3)
    recorded = Recorded(compiled=compiled)
    names = [b"%d" % number for number in range(700)]
    for _ in range(6000):
        some = draw.sample(names, draw.choice((1, 3, 200)))
        key = b"%d" % draw.randrange(2)
        recorded.execute(
            draw.choice(
                [
                    [b"RPUSH", b"l" + key, *some],
                    [b"LREM", b"l" + key, b"%d" % draw.randrange(-2, 3), some[0]],
                    [b"LTRIM", b"l" + key, b"%d" % draw.randrange(20), b"%d" % draw.randrange(400, 900)],
                    [b"LINSERT", b"l" + key, b"AFTER", some[0], b"new"],
                    [b"HSET", b"h" + key, *(word for name in some for word in (name, draw.randbytes(4)))],
                    [b"HPEXPIRE", b"h" + key, b"%d" % draw.randrange(3000), b"FIELDS", b"1", some[0]],
                    [b"HDEL", b"h" + key, *some],
                    [b"SADD", b"s" + key, *some],
                    [b"SPOP", b"s" + key, b"5"],
                    [b"SUNIONSTORE", b"s0", b"s0", b"s1"],
                    [b"ZADD", b"z" + key, *(word for name in some for word in (b"%d" % draw.randrange(9), name))],
                    [b"ZREMRANGEBYRANK", b"z" + key, b"%d" % draw.randrange(300), b"%d" % draw.randrange(500)],
                    [b"ZPOPMAX", b"z" + key, b"3"],
                    [b"ZUNIONSTORE", b"z0", b"2", b"z0", b"s1"],
                    [b"COPY", b"h0", b"h1", b"REPLACE"],
                    [b"RENAME", b"l1", b"l0"],
                ]
            )
        )
        if draw.random() < 0.1:
            recorded.step(draw.choice([b"frame", b"tick", draw.randrange(50)]))
    recorded.compare()
