"""The directory of a cluster: its file, its locks, what is swept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kache.cluster.resolution import Order, Unfinished
from kache.cluster.transactions import Decision, Share, Shares
from kache.shard.log import directory, repartition
from kache.shard.log import manifest as manifests
from kache.shard.log.directory import ClusterFile, Lock
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import LogError
from kache.shard.log.manifest import LogFile, Manifest
from kache.slots import contiguous

CLUSTER = ClusterFile(b"c" * 16, b"s" * 16, 3, 4, tuple(contiguous(4)))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    files = Files()
    assert directory.read_cluster(files, str(tmp_path)) is None
    directory.write_cluster(files, str(tmp_path), CLUSTER)
    assert directory.read_cluster(files, str(tmp_path)) == CLUSTER


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    directory.write_cluster(Files(), str(tmp_path), CLUSTER)
    whole = (tmp_path / "cluster").read_bytes()
    for at in range(len(whole)):
        (tmp_path / "cluster").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(LogError, match=str(tmp_path / "cluster")):
            directory.read_cluster(Files(), str(tmp_path))


@pytest.mark.parametrize(
    "name", ["epoch-1/shard-0000/000001.log", "epoch-1/notes", "epoch-1", "functions", "transactions"]
)
def test_data_of_nobody_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(LogError, match=rf"has data \({name.split('/')[0]}\) but no file 'cluster'"):
        directory.read_cluster(Files(), str(tmp_path))


@pytest.mark.parametrize(
    "name", ["000001.log", "000001.base", "manifest", "shard-0000/000001.log", "shard-0003/manifest"]
)
def test_data_that_lies_too_high_is_refused(tmp_path: Path, name: str) -> None:
    """A copy of what is in a data directory."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"kache 1" if "manifest" in name else b"KACHELOG")
    with pytest.raises(LogError, match=rf"has data \({name.split('/')[0]}\) but no file 'cluster'"):
        directory.read_cluster(Files(), str(tmp_path))


def test_a_manifest_that_names_files_is_data(tmp_path: Path) -> None:
    files, place = Files(), directory.shard_directory(str(tmp_path), 1, 0)
    directory.make(files, place)
    manifests.write(files, place, Manifest((), (LogFile(2, "000002.log", None, 1, "0" * 32),)))
    with pytest.raises(LogError, match=r"has data \(epoch-1\)"):
        directory.read_cluster(files, str(tmp_path))


def test_a_first_start_may_be_interrupted_anywhere(tmp_path: Path) -> None:
    """The world ends behind each call in turn. The next start begins anew, as long as `cluster` does not say that it counts;
    then every shard has its manifest."""
    for stop in range(100):
        files, path = ScriptedFiles(), str(tmp_path / str(stop))
        Files().mkdir(path)
        files.stop_after(stop)
        try:
            directory.begin(files, path, CLUSTER)
        except OSError:
            assert directory.read_cluster(Files(), path) in (None, CLUSTER)
        if os.path.exists(f"{path}/cluster"):
            for shard in range(CLUSTER.shards):
                assert manifests.read(Files(), directory.shard_directory(path, CLUSTER.epoch, shard)) == Manifest()
            break
        repartition.clean(Files(), path, 0)
        assert not os.path.exists(f"{path}/epoch-3")
    assert stop > 20


def test_what_others_have_put_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    with pytest.raises(
        LogError, match="cluster is a folder, not a file of Kache: move it away, or choose another --dir"
    ):
        directory.read_cluster(Files(), str(tmp_path))
    (tmp_path / "cluster").rmdir()
    (tmp_path / "cluster").write_text("servers of ours\n")
    with pytest.raises(LogError, match="cluster is not a file of Kache: move it away, or choose another --dir"):
        directory.read_cluster(Files(), str(tmp_path))


def test_directories_are_private_and_durable(tmp_path: Path) -> None:
    files = ScriptedFiles()
    directory.make(files, str(tmp_path / "a" / "b"))
    assert [call for call, *_ in files.record] == ["mkdir", "fsync_dir", "mkdir", "fsync_dir"]
    assert os.stat(tmp_path / "a" / "b").st_mode & 0o777 == 0o700


def test_a_lock_names_who_has_it(tmp_path: Path) -> None:
    files = Files()
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import sys; from kache.shard.log.directory import Lock; from kache.shard.log.files import Files\n"
         "lock = Lock(Files(), sys.argv[1]); print('locked', flush=True); sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
    for shared in (True, False):
        with pytest.raises(LogError, match=rf"is in use by another process \(pid {holder.pid}\)"):
            Lock(files, str(tmp_path), shared=shared)
    holder.communicate()
    first, second = Lock(files, str(tmp_path), shared=True), Lock(files, str(tmp_path), shared=True)
    with pytest.raises(LogError, match="is in use"):
        Lock(files, str(tmp_path))
    first.release()
    second.release()
    Lock(files, str(tmp_path)).release()


def test_only_what_is_ours_and_unnamed_is_swept(tmp_path: Path) -> None:
    for name in ("000001.log", "000002.log", "000003.base", "manifest.tmp", "manifest", "lock", "notes.txt", "x.log"):
        (tmp_path / name).write_bytes(b"")
    manifest = Manifest((), (LogFile(2, "000002.log", None, 1, "0" * 32),))
    assert directory.sweep(Files(), str(tmp_path), manifest) == ["000001.log", "000003.base", "manifest.tmp"]
    assert sorted(os.listdir(tmp_path)) == ["000002.log", "lock", "manifest", "notes.txt", "x.log"]


UNFINISHED = Unfinished(
    2**62,
    {0: Order(2**62, Decision([7, 8], 5, [9])), 1: Order(3, Decision())},
    {2: {0: Shares((), 1, 2, frozenset([7]), frozenset(), True, frozenset([8]))}},
    {2: [Share(7, (0, 2), 4, 5, False)]},
)


def test_what_was_decided_is_read_again_by_its_epoch_alone(tmp_path: Path) -> None:
    files = Files()
    assert directory.read_unfinished(files, str(tmp_path), 3) is None
    directory.write_unfinished(files, str(tmp_path), 3, None)
    directory.write_unfinished(files, str(tmp_path), 3, UNFINISHED)
    assert directory.read_unfinished(files, str(tmp_path), 3) == UNFINISHED
    assert directory.read_unfinished(files, str(tmp_path), 4) is None
    directory.write_unfinished(files, str(tmp_path), 3, None)
    assert os.listdir(tmp_path) == []


def test_a_damaged_decision_is_refused(tmp_path: Path) -> None:
    files, path = Files(), tmp_path / directory.TRANSACTIONS
    directory.write_unfinished(files, str(tmp_path), 3, UNFINISHED)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(LogError, match="transactions"):
                directory.read_unfinished(files, str(tmp_path), 3)
    path.write_bytes(b"kache 2" + whole[7:])
    with pytest.raises(LogError, match="was written by a newer Kache"):
        directory.read_unfinished(files, str(tmp_path), 3)
