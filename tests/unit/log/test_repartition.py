"""Another number of shards: everything is there, once, whatever the number; an interrupted division goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from log_files import Record, Written, counted, write_directory
from state import state

from kache.shard.engine.engine import Store
from kache.shard.log import directory, repartition
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.directory import ClusterFile, shard_directory
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import LogError
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


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5), (4, 3)])
def test_everything_is_there_once(tmp_path: Path, before: int, after: int) -> None:
    whole = made(tmp_path, before)
    told: list[tuple[int, int]] = []
    repartition.divide(
        Files(), str(tmp_path), cluster(1, before), cluster(2, after), True, False, lambda *done: told.append(done)
    )
    found = directory.read_cluster(Files(), str(tmp_path))
    assert found == cluster(2, after)
    assert loaded(tmp_path, found) == whole
    assert told[-1][0] == told[-1][1] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster", "epoch-2"]


def test_an_interrupted_division_goes_on_or_begins_anew(tmp_path: Path) -> None:
    """The world ends behind every call of the supervisor's in turn; the next start makes it whole."""
    whole = made(tmp_path, 2, 60)
    calls = 0
    for stop in range(0, 400, 3):
        files = ScriptedFiles()
        files.stop_after(stop)
        current = directory.read_cluster(Files(), str(tmp_path))
        assert current is not None
        if current.shards == 3:
            break
        calls = stop
        try:
            repartition.divide(files, str(tmp_path), cluster(1, 2), cluster(2, 3), True, False, lambda *_: None)
        except OSError:
            pass
        current = directory.read_cluster(Files(), str(tmp_path))
        assert current is not None and current in (cluster(1, 2), cluster(2, 3))
        if stop % 15 == 0:
            assert loaded(tmp_path, current) == whole
    assert calls > 10
    found = directory.read_cluster(Files(), str(tmp_path))
    assert found == cluster(2, 3)
    repartition.clean(Files(), str(tmp_path), 2)
    assert loaded(tmp_path, found) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster", "epoch-2"]


def test_what_was_done_of_other_data_does_not_count(tmp_path: Path) -> None:
    """The cluster was started with its old shards in between, and has changed."""
    made(tmp_path, 2, 40)
    old, new = cluster(1, 2), cluster(2, 3)
    files = Files()
    repartition._prepare(files, str(tmp_path), old, new, [0, 0])
    stale = tmp_path / "epoch-2.building" / "from-0000.done"
    stale.write_bytes(b"[]")
    log = Written(log_format.LOG, 1, 1, shards=2, seed=SEED)
    log.frames.append(Record(log_format.EFFECTS, 1, NOW, bytes([8]) + counted(b"new") + counted(b"v")))
    write_directory(Path(shard_directory(str(tmp_path), 1, 0)), [], [log])
    repartition.divide(files, str(tmp_path), old, new, True, False, lambda *_: None)
    assert (0, b"new") in loaded(tmp_path, new)


def test_a_damaged_shard_stops_it_and_nothing_is_changed(tmp_path: Path) -> None:
    made(tmp_path, 2, 40)
    path = Path(shard_directory(str(tmp_path), 1, 1)) / "000001.log"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogError, match=r"The header of .*000001.log is damaged"):
        repartition.divide(Files(), str(tmp_path), cluster(1, 2), cluster(2, 3), True, False, lambda *_: None)
    assert directory.read_cluster(Files(), str(tmp_path)) == cluster(1, 2)


def test_a_torn_log_is_cut_or_refused_as_its_shard_would(tmp_path: Path) -> None:
    made(tmp_path, 2, 40)
    path = Path(shard_directory(str(tmp_path), 1, 1)) / "000001.log"
    with path.open("ab") as file:
        file.write(b"FK" + bytes(20))
    old, new = cluster(1, 2), cluster(2, 3)
    with pytest.raises(LogError, match=r"000001.log ends at byte .*With aof-load-truncated no that is refused"):
        repartition.divide(Files(), str(tmp_path), old, new, True, True, lambda *_: None)
    assert directory.read_cluster(Files(), str(tmp_path)) == old
    repartition.divide(Files(), str(tmp_path), old, new, True, False, lambda *_: None)
    assert directory.read_cluster(Files(), str(tmp_path)) == new


def test_without_room_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, 2, 40)

    class Full(Files):
        def room(self, path: str) -> int:
            return 1 << 20

    with pytest.raises(LogError, match=r"make room, or start with --shards 2"):
        repartition.divide(Full(), str(tmp_path), cluster(1, 2), cluster(2, 3), True, False, lambda *_: None)


def test_numbers_of_a_manifest_do_not_meet_those_of_its_bases(tmp_path: Path) -> None:
    """The first log of a divided shard has a number of its own."""
    made(tmp_path, 3, 60)
    repartition.divide(Files(), str(tmp_path), cluster(1, 3), cluster(2, 1), True, False, lambda *_: None)
    manifest = manifests.read(Files(), shard_directory(str(tmp_path), 2, 0))
    assert manifest is not None and manifest.next_number() == 4
