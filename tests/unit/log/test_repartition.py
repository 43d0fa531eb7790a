"""Another number of shards: everything is there, once, whatever the number; an interrupted division goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from division import NOW, SEED, cluster, loaded, made
from log_files import Record, Written, counted, number, write_directory

from kache.cluster.resolution import Order, Unfinished
from kache.cluster.transactions import Decision
from kache.shard.log import directory, repartition
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.directory import shard_directory
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import LogError


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
        except (OSError, LogError):
            pass  # the end of the world, met by a call or said by who reads a log
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


@pytest.mark.parametrize("empty", [False, True])
def test_a_shard_that_is_gone_stops_it(tmp_path: Path, empty: bool) -> None:
    """It is not taken for one without keys: the old files would go."""
    made(tmp_path, 2, 40)
    place = Path(shard_directory(str(tmp_path), 1, 0))
    shutil.rmtree(place)
    if empty:
        place.mkdir()
    with pytest.raises(LogError, match=f"{place} .*: what this shard held is not there"):
        repartition.divide(Files(), str(tmp_path), cluster(1, 2), cluster(2, 3), True, False, lambda *_: None)
    assert directory.read_cluster(Files(), str(tmp_path)) == cluster(1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster", "epoch-1"]


def test_a_shard_with_the_files_of_another_stops_it(tmp_path: Path) -> None:
    made(tmp_path, 2, 40)
    first, second = (Path(shard_directory(str(tmp_path), 1, shard)) for shard in (0, 1))
    shutil.rmtree(first)
    shutil.copytree(second, first)
    with pytest.raises(
        LogError, match=f"{first}/000001.log belongs to shard 1 of 2, and this is the directory of shard 0"
    ):
        repartition.divide(Files(), str(tmp_path), cluster(1, 2), cluster(2, 3), True, False, lambda *_: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster", "epoch-1"]


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


def half(path: Path, *, settled: bool = False) -> None:
    """Two shards, of which the first has a share of transaction 7, and the second has not."""
    for shard in range(2):
        log = Written(log_format.LOG, 1, 1, shard=shard, shards=2, seed=SEED)
        log.frames.append(Record(log_format.EFFECTS, 1, NOW, bytes([8]) + counted(b"first%d" % shard) + counted(b"v")))
        write_directory(Path(shard_directory(str(path), 1, shard)), [], [log])
        if shard == 0:
            payload = number(7) + number(2) + bytes([0, 1, 8]) + counted(b"half") + counted(b"v")
            log.frames.append(Record(log_format.SHARE, 2, NOW, payload + (bytes([120, 7]) if settled else b"")))
            write_directory(Path(shard_directory(str(path), 1, shard)), [], [log])
    directory.write_cluster(Files(), str(path), cluster(1, 2))


@pytest.mark.parametrize("pending", [False, True])
def test_half_a_transaction_is_left_out_and_what_was_decided_stays(tmp_path: Path, pending: bool) -> None:
    """`pending`: a start of the old shards has decided that it counts, and the first shard's files do not say so yet."""
    half(tmp_path)
    if pending:
        decided = Unfinished(5, {0: Order(5, Decision(), 1), 1: Order(5, Decision(), 1)})
        directory.write_unfinished(Files(), str(tmp_path), 1, decided)
    repartition.divide(Files(), str(tmp_path), cluster(1, 2), cluster(2, 3), True, False, lambda *_: None)
    assert ((0, b"half") in loaded(tmp_path, cluster(2, 3))) == pending
    assert not (tmp_path / directory.TRANSACTIONS).exists()


def test_an_interrupted_division_decides_once(tmp_path: Path) -> None:
    """The machine runs when it begins; when it goes on the power was cut, and the first worker has gone by what was decided."""
    half(tmp_path, settled=True)

    class Machine(Files):
        now = bytes(15) + b"1"

        def boot(self) -> bytes:
            return self.now

    files, old = Machine(), cluster(1, 2)
    for shard in range(2):
        path = Path(shard_directory(str(tmp_path), 1, shard)) / "000001.log"
        found = log_format.read_header(path.read_bytes()[:128], str(path))
        path.write_bytes(
            log_format.pack_header(msgspec.structs.replace(found, boot=files.now)) + path.read_bytes()[128:]
        )
    repartition._prepare(files, str(tmp_path), old, cluster(2, 3), [0, 0])
    building = f"{tmp_path}/epoch-2.building"
    first = repartition._decisions(files, str(tmp_path), old, False, building)
    assert first[0] == Decision(half=[7])
    files.now = bytes(15) + b"2"
    assert repartition._decisions(files, str(tmp_path), old, False, building) == first
    files.unlink(f"{building}/decisions")
    assert repartition._decisions(files, str(tmp_path), old, False, building)[0] == Decision(cut_at=2)
