"""`kache check-aof` and `kache dump` over directories made by hand."""

from __future__ import annotations

import errno
import json
import random
import shutil
from pathlib import Path
from typing import Any

import click
import division
import msgspec
import pytest
from click.testing import CliRunner, Result
from log_files import CLUSTER, SEED, LiveDump, Record, Written, counted, number, write_directory

from kache.cli.files import check_aof, dump
from kache.cluster.resolution import Unfinished
from kache.errors import KacheError
from kache.libraries import encode
from kache.shard.log import directory
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.directory import ClusterFile, Lock, shard_directory
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import LogError
from kache.shard.shard import Shard
from kache.slots import contiguous

NOW = 1_700_000_000_000
RECORDS = [
    bytes([8]) + counted(b"text") + counted(b"a\xff"),
    bytes([33]) + counted(b"list") + number(2) + counted(b"x") + counted("ü".encode()),
    bytes([48]) + counted(b"hash") + number(1) + counted(b"f") + counted(b"v"),
    bytes([64]) + counted(b"zset") + number(1) + bytes(8) + counted(b"m"),
    bytes([56]) + counted(b"set") + number(1) + counted(b"m"),
]


def made(path: Path, *, behind: int | None = None) -> Path:
    """A cluster of one shard with a log of five frames; its path."""
    log = Written(log_format.LOG, 1, 1)
    for at, record in enumerate(RECORDS, 1):
        log.frames.append(Record(log_format.EFFECTS, at, NOW + at, record, at if behind is None else behind))
    shard = Path(shard_directory(str(path), 1, 0))
    write_directory(shard, [], [log])
    directory.write_cluster(Files(), str(path), ClusterFile(CLUSTER, SEED, 1, 1, tuple(contiguous(1))))
    return shard / log.name


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments], standalone_mode=False)


def test_all_is_well(tmp_path: Path) -> None:
    log = made(tmp_path)
    for path in (tmp_path, log.parent, f"{tmp_path}/"):
        done = run(check_aof, path)
        assert done.return_value == 0
        assert "5 frames, all whole" in done.output and "5 keys, up to sequence 5" in done.output


def test_what_was_reserved_of_an_open_log_is_not_its_content(tmp_path: Path) -> None:
    """As a kill of everything leaves it."""
    log = made(tmp_path)
    size = log.stat().st_size
    with open(log, "ab") as file:
        file.write(bytes(1 << 20))
    done = run(check_aof, tmp_path)
    assert done.return_value == 0, done.output
    assert f"{log}: {size:,} bytes, 5 frames, all whole" in done.output
    assert len(run(dump, "--frames", tmp_path).output.splitlines()) == 5


def test_a_torn_end_is_told_and_fixed(tmp_path: Path) -> None:
    log = made(tmp_path)
    whole = log.read_bytes()
    log.write_bytes(whole[:-1])
    done = run(check_aof, tmp_path)
    assert done.return_value == 1
    assert f"4 whole frames up to byte {len(whole) - 40 - len(RECORDS[4])}" in done.output
    assert "--fix would lose" in done.output
    fixed = run(check_aof, tmp_path, "--fix")
    assert fixed.return_value == 0 and "Fixed; lost:" in fixed.output
    assert run(check_aof, tmp_path).return_value == 0
    assert log.read_bytes() == whole[:-1] and (log.parent / "manifest.before").exists()


def test_a_missing_end_is_fixed_at_once(tmp_path: Path) -> None:
    log = made(tmp_path)
    whole = log.read_bytes()
    manifest = manifests.read(Files(), str(log.parent))
    assert manifest is not None
    closed = msgspec.structs.replace(manifest, logs=(msgspec.structs.replace(manifest.logs[0], bytes=len(whole)),))
    for missing, frames in ((7, 4), (40 + len(RECORDS[4]), 4), (41 + len(RECORDS[4]), 3)):
        manifests.write(Files(), str(log.parent), closed)
        before = (log.parent / "manifest").read_bytes()
        log.write_bytes(whole[:-missing])
        end = log_format.HEADER_SIZE + sum(40 + len(record) for record in RECORDS[:frames])
        done = run(check_aof, tmp_path)
        assert done.return_value == 1
        assert f"{frames} whole frames up to byte {end}" in done.output
        assert f"--fix would lose everything from byte {end} of {log} on: {len(whole) - end} bytes" in done.output
        assert run(check_aof, tmp_path, "--fix").return_value == 0
        assert (log.parent / "manifest.before").read_bytes() == before
        assert f"{frames} keys, up to sequence {frames}" in run(check_aof, tmp_path).output


def test_damage_is_told_with_what_would_be_lost(tmp_path: Path) -> None:
    log = made(tmp_path, behind=1)
    data = bytearray(log.read_bytes())
    data[-len(RECORDS[4]) - 45] ^= 1
    log.write_bytes(data)
    done = run(check_aof, tmp_path)
    assert done.return_value == 1
    assert f"{log}: {len(data):,} bytes, 3 whole frames up to byte 280, 1 behind it\n" in done.output
    assert "--fix would lose everything from byte" in done.output
    assert "shows what can be kept" not in done.output
    assert run(check_aof, tmp_path, "--fix").return_value == 0
    done = run(check_aof, tmp_path)
    assert "3 keys" in done.output
    ignored = len(data) - 280
    assert (
        f"{log}: 280 bytes, 3 frames, all whole; {ignored} bytes behind them, which a fix has left out\n" in done.output
    )
    assert len(run(dump, tmp_path).stdout.splitlines()) == 3


@pytest.mark.parametrize("gone", [True, False], ids=["missing", "without its header"])
def test_a_log_of_which_nothing_can_be_read_is_left_out(tmp_path: Path, gone: bool) -> None:
    """A log that is not the first: what was logged before it is there. An only one is not left out."""
    first = made(tmp_path)
    second = Written(log_format.LOG, 2, 6, [Record(log_format.EFFECTS, 6, NOW, RECORDS[0])])
    files = manifests.read(Files(), str(first.parent))
    assert files is not None
    closed = msgspec.structs.replace(files.logs[0], bytes=first.stat().st_size)
    another = manifests.LogFile(2, second.name, None, 6, second.salt.hex())
    manifests.write(Files(), str(first.parent), manifests.Manifest((), (closed, another)))
    if not gone:
        (first.parent / second.name).write_bytes(bytes(60) + second.data()[60:])
    done = run(check_aof, tmp_path)
    assert done.return_value == 1 and f"--fix would lose all of {first.parent / second.name}" in done.output
    if gone:
        assert f"{second.name} is missing, and the manifest names it. Bring it back from a backup" in done.output
    assert run(check_aof, tmp_path, "--fix").return_value == 0
    assert "5 keys" in run(check_aof, tmp_path).output
    first.unlink()
    done = run(check_aof, tmp_path, "--fix")
    assert done.return_value == 1 and "This cannot be fixed" in done.output


def test_what_cannot_be_fixed_is_said(tmp_path: Path) -> None:
    log = made(tmp_path)
    (log.parent / "manifest").write_bytes(b"")
    done = run(check_aof, tmp_path, "--fix")
    assert done.return_value == 1 and "manifest is empty" in done.output and "cannot be fixed" in done.output


@pytest.mark.parametrize("empty", [False, True])
def test_a_shard_that_is_gone_is_told_and_begun_anew(tmp_path: Path, empty: bool) -> None:
    place = made(tmp_path).parent
    shutil.rmtree(place)
    if empty:
        place.mkdir()
    done = run(check_aof, tmp_path)
    assert done.return_value == 1
    assert f"{place} {'has neither a manifest nor data' if empty else 'is missing'}: what this shard" in done.output
    assert "--fix would lose everything that this shard held." in done.output
    assert place.exists() == empty
    for options in ([], ["--frames"]):
        refused = run(dump, tmp_path, *options)
        assert refused.return_value == 1 or "what this shard held" in str(refused.exception)
    done = run(check_aof, place, "--fix")  # as the message says
    assert done.return_value == 0 and done.output.endswith("Fixed; lost: everything that this shard held.\n")
    assert run(check_aof, tmp_path).return_value == 0 and run(dump, tmp_path).output == ""


def test_files_of_another_shard_are_told(tmp_path: Path) -> None:
    """With their manifest; also where only the directory of the one shard is looked at."""
    division.made(tmp_path, 2, 40)
    assert run(check_aof, tmp_path).return_value == 0
    first, second = (Path(shard_directory(str(tmp_path), 1, shard)) for shard in (0, 1))
    shutil.rmtree(second)
    shutil.copytree(first, second)
    for path in (tmp_path, second):
        done = run(check_aof, path, "--fix")
        assert done.return_value == 1
        assert f"{second}/000001.log belongs to shard 0 of 2, and this is the directory of shard 1 of 2." in done.output
        assert "This cannot be fixed" in done.output
        refused = run(dump, path)
        assert refused.return_value == 1 or "belongs to shard 0" in str(refused.exception)
    other = ClusterFile(b"o" * 16, SEED, 1, 2, tuple(contiguous(2)))
    directory.write_cluster(Files(), str(tmp_path), other)
    assert f"of the cluster {CLUSTER.hex()}, and this is the cluster {b'o'.hex() * 16}" in run(check_aof, first).output


def test_keys_of_other_shards_are_told(tmp_path: Path) -> None:
    division.made(tmp_path, 2, 40)
    first = Path(shard_directory(str(tmp_path), 1, 0))
    slots = ((0, 0, 0), (1, 16383, 1))
    directory.write_cluster(Files(), str(tmp_path), msgspec.structs.replace(division.cluster(1, 2), slots=slots))
    done = run(check_aof, first)
    assert (
        done.return_value == 0 and "keys that belong to other shards, where no client finds them ('key:" in done.output
    )


def test_the_files_of_the_cluster_are_checked_too(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "functions").write_bytes(encode([b"#!lua name=one\n"]))
    directory.write_unfinished(Files(), str(tmp_path), 1, Unfinished(5, {}))
    done = run(check_aof, tmp_path)
    assert done.return_value == 0
    for name in ("cluster", "functions", "transactions"):
        assert f"{tmp_path / name}: {(tmp_path / name).stat().st_size} bytes, whole\n" in done.output
    for name in ("functions", "transactions"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-12] + bytes([whole[-12] ^ 1]) + whole[-11:])
        done = run(check_aof, tmp_path)
        assert done.return_value == 1 and f"{tmp_path / name} is damaged:" in done.output and "5 keys" in done.output
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "cluster").write_bytes(b"kache 1\nx\n")
    refused = run(check_aof, tmp_path)
    assert f"{tmp_path}/cluster is damaged" in str(refused.exception)
    assert run(check_aof, shard_directory(str(tmp_path), 1, 0)).return_value == 1


def test_what_lies_inside_of_a_data_directory_is_said(tmp_path: Path) -> None:
    made(tmp_path)
    refused = run(check_aof, tmp_path / "epoch-1")
    assert f"it lies inside of the data directory {tmp_path}." in str(refused.exception)


def test_what_is_in_use_or_no_data_is_refused(tmp_path: Path) -> None:
    log = made(tmp_path / "data")
    lock = Lock(Files(), str(log.parent))
    for command in (check_aof, dump):
        refused = run(command, tmp_path / "data")
        assert isinstance(refused.exception, KacheError) and "is in use by another process" in str(refused.exception)
        nothing = run(command, tmp_path)
        assert isinstance(nothing.exception, KacheError) and "neither the data directory" in str(nothing.exception)
    lock.release()


@pytest.mark.parametrize("refusal", [errno.EROFS, errno.EACCES])
def test_what_may_only_be_read_can_be_looked_at(tmp_path: Path, refusal: int) -> None:
    """A disk that is mounted read-only after its errors. Who uses the directory keeps others away all the same."""
    files = ScriptedFiles()
    files.fail("open", refusal, times=1)
    nobody = Lock(files, str(tmp_path), shared=True)
    assert nobody.fd == -1
    nobody.release()
    Lock(Files(), str(tmp_path)).release()
    files.heal()
    files.fail("open", refusal, times=1)
    reader = Lock(files, str(tmp_path), shared=True)
    with pytest.raises(LogError, match="in use by another process"):
        Lock(Files(), str(tmp_path))
    reader.release()
    user = Lock(Files(), str(tmp_path))
    files.heal()
    files.fail("open", refusal, times=1)
    with pytest.raises(LogError, match="in use by another process"):
        Lock(files, str(tmp_path), shared=True)
    files.heal()
    files.fail("open", refusal, times=1)
    with pytest.raises(OSError, match="lock"):
        Lock(files, str(tmp_path))
    user.release()


def test_the_state_as_json_lines(tmp_path: Path) -> None:
    made(tmp_path)
    lines = [json.loads(line) for line in run(dump, tmp_path).output.splitlines()]
    assert lines == [
        {"db": 0, "key": "hash", "type": "hash", "value": [["f", "v"]]},
        {"db": 0, "key": "list", "type": "list", "value": ["x", "ü"]},
        {"db": 0, "key": "set", "type": "set", "value": ["m"]},
        {"db": 0, "key": "text", "type": "string", "value": {"base64": "Yf8="}},
        {"db": 0, "key": "zset", "type": "zset", "value": [["m", 0.0]]},
    ]


@pytest.mark.parametrize("whole", [True, False])
def test_the_frames_as_json_lines(tmp_path: Path, whole: bool) -> None:
    log = made(tmp_path)
    done = run(dump, tmp_path if whole else log, "--frames")
    lines = [json.loads(line) for line in done.output.splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[1] == {
        "file": str(log), "offset": 128 + 40 + len(RECORDS[0]), "kind": "effects", "sequence": 2, "durable": 0, "ms": NOW + 2,
        "bytes": len(RECORDS[1]),
        "records": [{"record": "list_push_right", "db": 0, "ms": NOW + 2, "key": "list", "arguments": ["x", "ü"]}],
    }  # fmt: skip


def test_frames_of_a_damaged_file_end_with_an_error(tmp_path: Path) -> None:
    log = made(tmp_path)
    log.write_bytes(log.read_bytes()[:-1])
    done = run(dump, log, "--frames")
    assert len(done.stdout.splitlines()) == 4 and done.return_value == 1
    assert done.stderr == f"{log} has no frame at byte 337, and has none behind it either.\n"


def test_what_is_whole_of_a_damaged_log_is_printed(tmp_path: Path) -> None:
    log = made(tmp_path)
    data = bytearray(log.read_bytes())
    data[128 + 41] ^= 1
    log.write_bytes(data)
    done = run(dump, tmp_path, "--frames")
    second = 128 + 40 + len(RECORDS[0])
    assert done.return_value == 1
    assert done.stderr == f"{log} has no frame at byte 128, and goes on at byte {second}.\n"
    assert [json.loads(line)["sequence"] for line in done.stdout.splitlines()] == [2, 3, 4, 5]


def rescued(path: Path) -> tuple[dict[str, Any], Result]:
    """By key what `dump --frames` prints of bases, values in parts put together; and its end."""
    done = run(dump, path, "--frames")
    found: dict[str, Any] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        if line["kind"] == "values":
            found |= {each["key"]: each["value"] for each in line["keys"]}
        elif line["kind"] == "part":
            values = [value for each in line["keys"] for value in each["value"]]
            before = [] if line["first"] else found.get(line["key"], [])
            found[line["key"]] = before[: line["from"]] + values if line["from"] else before + values
    return found, done


def base_with_parts(path: Path) -> tuple[Path, dict[str, Any]]:
    """A cluster of one shard with a base, in which larger values lie in parts; what it holds."""
    shard = Shard(now_ms=NOW)
    live = LiveDump(shard, NOW, draw=random.Random(4))
    for each in range(40):
        shard.execute([b"SET", b"text:%d" % each, b"value %d" % each], 2, 0)
        for command in (b"RPUSH list", b"SADD set", b"HSET hash f", b"ZADD zset 1"):
            name, key, *more = command.split()
            shard.execute([name, b"%b:%d" % (key, each % 3), *more, b"%03d" % each], 2, 0)
        shard.execute([b"HSET", b"many", b"f%03d" % each, b"v"], 2, 0)
    live.end_frame(NOW)
    live.begin()
    while live.slice():
        pass
    live.base.close()
    place = Path(shard_directory(str(path), 1, 0))
    write_directory(place, [live.base], [live.log])
    directory.write_cluster(Files(), str(path), ClusterFile(CLUSTER, SEED, 1, 1, tuple(contiguous(1))))
    whole = {line["key"]: line["value"] for line in map(json.loads, run(dump, path).stdout.splitlines())}
    assert len(whole) == 53
    return place / live.base.name, whole


def alike(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value if key.startswith(("text", "list")) else sorted(value) for key, value in found.items()}


def test_what_can_be_read_of_a_base_is_printed(tmp_path: Path) -> None:
    """All of it, and what is whole where a byte is damaged: in the middle, where frames behind it follow."""
    base, whole = base_with_parts(tmp_path)
    found, done = rescued(tmp_path)
    assert done.return_value == 0 and alike(found) == alike(whole)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["kind"] for line in lines} >= {"values", "part", "base_end"}
    bad = [line["offset"] for line in lines if line["kind"] == "values" and line["keys"]][3]
    data = bytearray(base.read_bytes())
    data[bad + 41] ^= 1
    base.write_bytes(data)
    checked = run(check_aof, tmp_path)
    assert checked.return_value == 1
    assert f"whole frames up to byte {bad}, " in checked.output
    assert f"{base} is damaged at byte {bad}: a frame" in checked.output
    assert "shows what can be kept" not in checked.output and "`kache dump --frames" in checked.output
    assert f"This cannot be fixed: restore {base.parent} from a backup." in checked.output
    found, done = rescued(tmp_path)
    assert done.return_value == 1 and f"{base} has no frame at byte {bad}, and goes on at byte" in done.stderr
    same = [key for key, value in alike(whole).items() if key in found and alike(found)[key] == value]
    assert 40 < len(same) < len(whole)
    assert run(dump, tmp_path).return_value == 1


def test_healthy_shards_behind_a_damaged_one_are_printed(tmp_path: Path) -> None:
    division.made(tmp_path, 3, 60)
    whole = run(dump, tmp_path).stdout.splitlines()
    log = Path(shard_directory(str(tmp_path), 1, 0)) / "000001.log"
    damaged = run(dump, log.parent).stdout.splitlines()
    log.write_bytes(log.read_bytes()[:60] + bytes(68) + log.read_bytes()[128:])
    done = run(dump, tmp_path)
    assert done.return_value == 1 and f"The header of {log} is damaged." in done.stderr
    assert (
        damaged
        and len(whole) > len(damaged)
        and done.stdout.splitlines() == [line for line in whole if line not in damaged]
    )
    assert {json.loads(line)["file"] for line in run(dump, tmp_path, "--frames").stdout.splitlines()} == {
        shard_directory(str(tmp_path), 1, shard) + "/000001.log" for shard in (1, 2)
    }


def test_a_file_that_may_not_be_read_is_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = made(tmp_path)

    class Refusing(Files):
        def open(self, path: str, flags: int = 0, mode: int = 0o600) -> int:
            if path == str(refused):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return super().open(path, flags, mode)

    monkeypatch.setattr("kache.shard.log.tools.Files", Refusing)
    refused = log
    done = run(check_aof, tmp_path, "--fix")
    assert done.return_value == 1 and f"{log}: Permission denied\n" in done.output
    assert (
        f"{log} cannot be read: Permission denied. It belongs to" in done.output and f"`chmod u+r {log}`" in done.output
    )
    assert "backup" not in done.output and "lose" not in done.output
    refused = log.parent / "manifest"
    done = run(check_aof, tmp_path, "--fix")
    assert done.return_value == 1 and "manifest: Permission denied. This runs as" in done.output
    assert "backup" not in done.output
    done = run(dump, tmp_path)
    assert done.return_value == 1 and "manifest: Permission denied. This runs as" in done.stderr


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    place = made(tmp_path).parent
    shutil.rmtree(place)
    place.touch()
    for command in (check_aof, dump):
        done = run(command, tmp_path)
        assert (
            done.return_value == 1 and f"{place} cannot be used: " in done.output and "Not a directory" in done.output
        )
        assert "backup" not in done.output


def test_one_is_not_counted_as_several(tmp_path: Path) -> None:
    log = made(tmp_path)
    whole = log.read_bytes()
    end = 128 + 40 + len(RECORDS[0])
    log.write_bytes(whole[:end])
    done = run(check_aof, tmp_path)
    assert f"{log}: {end} bytes, 1 frame, whole\n" in done.output and ": 1 key, up to sequence 1" in done.output
    log.write_bytes(whole[: end + 1])
    done = run(check_aof, tmp_path)
    assert f"{log}: {end + 1} bytes, 1 whole frame up to byte {end}\n" in done.output
    assert f"ends at byte {end}: 1 byte behind it was not written to the end" in done.output
    assert "--fix would lose 1 byte that" in done.output


def test_a_closed_log_has_the_bytes_that_count(tmp_path: Path) -> None:
    """Not the room that was reserved when it was open, and was left by who was killed."""
    log = made(tmp_path)
    size = log.stat().st_size
    manifest = manifests.read(Files(), str(log.parent))
    closed = msgspec.structs.replace(manifest, logs=(msgspec.structs.replace(manifest.logs[0], bytes=size),))
    manifests.write(Files(), str(log.parent), closed)
    with open(log, "ab") as file:
        file.write(bytes(1 << 20))
    assert f"{log}: {size:,} bytes, 5 frames, all whole\n" in run(check_aof, tmp_path).output
    with open(log, "r+b") as file:
        file.truncate(size - 1)
    done = run(check_aof, tmp_path)
    assert f"{log}: {size - 1:,} bytes, 4 whole" in done.output
    assert f"has {size - 1:,} bytes and should have {size:,}" in done.output
