"""A cluster's data on disk, made for tests that divide it over another number of shards, and what is there then."""

from __future__ import annotations

import random
from pathlib import Path

from log_files import Record, Written, write_directory
from state import state

from kache.shard.engine.engine import Store
from kache.shard.log import directory
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.directory import ClusterFile, shard_directory
from kache.shard.log.files import Files
from kache.shard.log.recovery import Recovery
from kache.shard.shard import Shard
from kache.slots import contiguous, owners, slot_of_key

NOW = 1_700_000_000_000
SEED = b"a seed of 16 b.."
CLUSTER = b"cluster of tests"
State = dict[tuple[int, bytes], tuple[object, ...]]


def cluster(epoch: int, shards: int) -> ClusterFile:
    return ClusterFile(CLUSTER, SEED, epoch, shards, tuple(contiguous(shards)))


def made(path: Path, shards: int, keys: int = 300) -> State:
    """A cluster with data of every type in three databases; what it holds."""
    draw = random.Random(3)
    owner = owners(contiguous(shards), shards)
    live = [Shard(now_ms=NOW, hash_seed=SEED) for _ in range(shards)]
    for shard in live:
        shard.store.effects.record()
    for each in range(keys):
        key = b"key:%d" % each
        command = draw.choice(
            [
                [b"SET", key, draw.randbytes(20)],
                [b"SET", key, b"v", b"PXAT", b"%d" % (NOW + 10**9 + each)],
                [b"APPEND", key, b"x" * 50],
                [b"RPUSH", key, *(b"%d" % n for n in range(draw.randint(1, 400)))],
                [b"HSET", key, *(b"%d" % n for n in range(20))],
                [b"SADD", key, *(b"%d" % n for n in range(draw.randint(1, 400)))],
                [b"ZADD", key, b"-inf", b"a", b"1.5", b"b"],
            ]
        )
        live[owner[slot_of_key(key)]].execute(command, 2, draw.choice((0, 0, 5, 15)))
    whole: State = {}
    for index, shard in enumerate(live):
        log = Written(log_format.LOG, 1, 1, shard=index, shards=shards, seed=SEED)
        log.frames.append(Record(log_format.EFFECTS, 1, *shard.store.effects.take()))
        write_directory(Path(shard_directory(str(path), 1, index)), [], [log])
        whole |= state(shard.store)
    directory.write_cluster(Files(), str(path), cluster(1, shards))
    return whole


def loaded(path: Path, found: ClusterFile) -> State:
    """What all shards hold; each only what is its own."""
    files, whole = Files(), {}
    owner = owners(found.slots, found.shards)
    for shard in range(found.shards):
        place = shard_directory(str(path), found.epoch, shard)
        manifest = manifests.read(files, place)
        assert manifest is not None
        store = Store(SEED)
        recovery = Recovery(files, place, store, manifest)
        while recovery.step(10**9):
            pass
        recovery.finish(NOW)
        store.check()
        one = state(store)
        assert {owner[slot_of_key(key)] for _, key in one} <= {shard}
        assert not set(one) & set(whole)
        whole |= one
    return whole


__all__ = ["NOW", "SEED", "State", "cluster", "loaded", "made"]
