"""The manifest: what is written is read again, and anything else is refused, naming the line."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from kache.shard.log import manifest
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import LogError, check_of
from kache.shard.log.manifest import BaseFile, LogFile, Manifest

SALT = "0123456789abcdef" * 2
FULL = Manifest(
    (BaseFile(17, "000017.base", 5000, 4711, 4800, SALT),),
    (LogFile(17, "000017.log", 8021, 4712, SALT), LogFile(18, "000018.log", None, 4900, SALT)),
    1764144000000,
    (70, 71),
    2**62,
    4720,
)


def signed(*lines: str) -> bytes:
    """A manifest of these lines, whose check fits."""
    body = "".join(f"{line}\n" for line in ("kache 1", *lines)).encode()
    return body + f"check {check_of(body):016x}\n".encode()


@pytest.mark.parametrize(
    "whole",
    [
        Manifest(),
        FULL,
        Manifest((BaseFile(1, "from-0000.base", 9, 0, 0, SALT, ((0, 4),)), BaseFile(2, "from-0001.base", 9, 0, 0, SALT, ((5, 9),)))),
    ],
)  # fmt: skip
def test_what_is_written_is_read_again(tmp_path: Path, whole: Manifest) -> None:
    files = Files()
    manifest.write(files, str(tmp_path), whole)
    assert manifest.read(files, str(tmp_path)) == whole
    assert files.list(str(tmp_path)) == ["manifest"]


def test_no_directory_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    """A shard that never held anything has a manifest, too."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "lock").touch()
    for name, reason in (("none", "is missing"), ("empty", "has neither a manifest nor data")):
        with pytest.raises(LogError, match=f"{tmp_path / name} {reason}: what this shard held is not there"):
            manifest.read(Files(), str(tmp_path / name))


def test_data_without_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "000017.log").write_bytes(b"x")
    with pytest.raises(LogError, match=r"has data \(000017.log\) but no manifest"):
        manifest.read(Files(), str(tmp_path))


BASE = f"base 1 000001.base 500 10 end 20 salt {SALT}"
LOG = f"log 1 000001.log 500 11 salt {SALT}"


@pytest.mark.parametrize(
    ("lines", "line", "reason"),
    [
        (["", LOG], 2, "an empty line"),
        ([BASE, BASE], 3, "000001.base for the second time"),
        ([BASE, f"base 2 000002.base 500 10 end 20 salt {SALT}"], 3, "a second base"),
        ([LOG, BASE], 3, "a base behind a log"),
        ([f"base 1 000001.base 500 30 end 20 salt {SALT}"], 2, "the base ends at 20, before it begins"),
        ([LOG, f"log 1 000002.log open 11 salt {SALT}"], 3, "log 1 behind log 1"),
        ([LOG, f"log 2 000002.log open 10 salt {SALT}"], 3, "the sequence goes back, from 11 to 10"),
        ([LOG.replace("500", "open"), f"log 2 000002.log 500 12 salt {SALT}"], 3, "a closed log behind log 1, which is open"),
        ([BASE, f"log 2 000002.log open 22 salt {SALT}"], 3, "the log begins with 22, too late for the base before it"),
        ([LOG.replace("000001.log", "../1.log")], 2, "'../1.log' is no name of a log"),
        ([LOG.replace(SALT, SALT[1:])], 2, f"'{SALT[1:]}' is no salt"),
        ([LOG.replace("500", "-1")], 2, "'-1' is not a size"),
        ([LOG.replace("500", "0500")], 2, "'0500' is not a size"),
        ([LOG + " "], 2, "not the words of a log"),
        (["stopped 5", LOG], 3, "nothing of this kind may follow 'stopped'"),
        (["skipped 5", LOG], 3, "nothing of this kind may follow 'skipped'"),
        (["resolved 5 6", "skipped 5"], 3, "nothing of this kind may follow 'resolved'"),
        (["resolved 5 6", "resolved 5 6"], 3, "nothing of this kind may follow 'resolved'"),
        (["resolved 5"], 2, "'resolved 5' is no line of a manifest"),
        (["resolved 5 x"], 2, "'x' is not a sequence"),
        (["snapshot 5"], 2, "'snapshot 5' is no line of a manifest"),
        ([f"{BASE} slots 0-5", f"base 2 000002.base 500 10 end 20 salt {SALT} slots 5-9"], 3, "slots that another base has"),
        ([f"{BASE} slots 9-5"], 2, "'9-5' are no slots"),
        ([f"{BASE} slots 0-16384"], 2, "'0-16384' are no slots"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line(lines: list[str], line: int, reason: str) -> None:
    with pytest.raises(LogError) as refused:
        manifest.parse(signed(*lines), "dir/manifest")
    assert str(refused.value) == f"dir/manifest, line {line}: {reason}."


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(LogError, match=r"^dir/manifest is empty\.$"):
        manifest.parse(b"", "dir/manifest")


def test_every_flipped_byte_and_every_cut_is_refused() -> None:
    whole = manifest.text(FULL)
    for at in range(len(whole)):
        for damaged in (*(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for bit in (1, 128)), whole[:at]):
            with pytest.raises(LogError, match="dir/manifest") as refused:
                manifest.parse(damaged, "dir/manifest")
            if at > len(b"kache 1") and damaged:
                assert str(refused.value).startswith("dir/manifest is damaged")


def test_line_ends_of_other_systems_are_refused() -> None:
    with pytest.raises(LogError, match=r"line 1: not as Kache writes it"):
        manifest.parse(manifest.text(FULL).replace(b"\n", b"\r\n"), "dir/manifest")


def test_a_newer_format_is_named() -> None:
    with pytest.raises(LogError, match="was written by a newer Kache") as refused:
        manifest.parse(manifest.text(FULL).replace(b"kache 2", b"kache 3"), "dir/manifest")
    assert refused.value.newer


def test_what_older_versions_do_not_know_is_a_newer_format_to_them() -> None:
    older = msgspec.structs.replace(FULL, resolved=0, decided=0)
    assert manifest.text(FULL).startswith(b"kache 2\n") and manifest.text(older).startswith(b"kache 1\n")


@pytest.mark.parametrize("call", ["open", "write", "fdatasync", "rename"])
def test_a_failed_swap_leaves_the_one_before(tmp_path: Path, call: str) -> None:
    files = ScriptedFiles()
    manifest.write(files, str(tmp_path), Manifest())
    files.fail(call, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        manifest.write(files, str(tmp_path), FULL)
    assert manifest.read(Files(), str(tmp_path)) == Manifest()


def test_the_order_of_a_swap(tmp_path: Path) -> None:
    """Synced before it is renamed, and the directory behind that: or a power cut could leave an empty file."""
    files = ScriptedFiles()
    manifest.write(files, str(tmp_path), FULL)
    assert [call for call, *_ in files.record] == ["open", "write", "fdatasync", "close", "rename", "fsync_dir"]
