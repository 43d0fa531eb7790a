"""What an operator is told when a directory or a file cannot be used: the file, whose it is, and what helps."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.troubles import missing, unusable


class OwnedByAnother(Files):
    """Files of one user, seen by another."""

    def owner(self, path: str) -> str:
        return "root"

    def user(self) -> str:
        return "kache"


def test_a_file_of_somebody_else_is_named_with_its_owner() -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/data/epoch-1/shard-0001/manifest")
    assert unusable(OwnedByAnother(), "/data", refused) == (
        "/data cannot be used: /data/epoch-1/shard-0001/manifest: Permission denied. It belongs to root, and this runs as kache: "
        "`chown -R kache /data`"
    )


def test_the_owner_of_what_cannot_be_seen_is_that_of_what_is_above(tmp_path: Path) -> None:
    files = Files()
    assert files.owner(str(tmp_path / "not" / "there")) == files.owner(str(tmp_path)) == files.user()
    refused = PermissionError(errno.EPERM, "Operation not permitted", str(tmp_path / "lock"))
    assert unusable(files, str(tmp_path), refused).endswith(f"Operation not permitted. This runs as {files.user()}")


@pytest.mark.parametrize(
    ("number", "help_"),
    [(errno.ENOSPC, "Make room there (`df -h {0}`)"), (errno.EROFS, "mounted read-only"), (errno.EIO, "the kernel's log"),
     (errno.EDQUOT, "quota"), (errno.EMFILE, "LimitNOFILE")],
)  # fmt: skip
def test_what_helps_is_said(tmp_path: Path, number: int, help_: str) -> None:
    """The error as it comes from the seam names the file."""
    files = ScriptedFiles()
    files.fail("open", number)
    with pytest.raises(OSError) as failed:
        files.open(str(tmp_path / "lock"), os.O_RDWR | os.O_CREAT)
    said = unusable(files, str(tmp_path), failed.value)
    assert said.startswith(f"{tmp_path} cannot be used: {tmp_path}/lock: {os.strerror(number)}. ")
    assert help_.format(tmp_path) in said


def test_an_error_of_the_directory_itself_is_not_said_twice() -> None:
    said = unusable(Files(), "/data", OSError(errno.EBUSY, "Device or resource busy", "/data"))
    assert said == "/data cannot be used: Device or resource busy"


def test_a_file_that_is_gone_and_one_that_cannot_be_read() -> None:
    path = "/data/epoch-1/shard-0000/000007.log"
    said = missing(Files(), path, FileNotFoundError(errno.ENOENT, "No such file or directory", path))
    assert said.startswith(f"{path} is missing, and the manifest names it.")
    assert "`kache check-aof /data/epoch-1/shard-0000`" in said
    said = missing(Files(), path, OSError(errno.EIO, "Input/output error", path))
    assert said.startswith(f"{path} cannot be read: Input/output error.")
