"""The seam to the file system: real calls, and those of a script."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from kache.shard.log.files import Files, ScriptedFiles


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files, path = Files(), str(tmp_path / "x")
    fd = files.open(path, os.O_RDWR | os.O_CREAT)
    files.write(fd, b"hello world")
    files.pwrite(fd, b"W", 6)
    files.fdatasync(fd)
    assert files.read(fd, 100, 4) == b"o World"
    files.ftruncate(fd, 5)
    files.close(fd)
    assert files.read_all(path) == b"hello"
    assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="too large") as refused:
        files.read_all(path, 4)
    assert refused.value.errno == errno.EFBIG


def test_errors_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        Files().open(str(tmp_path / "nothing"))


def test_a_lock_excludes_another_open_of_the_same_file(tmp_path: Path) -> None:
    files, path = Files(), str(tmp_path / "lock")
    first = files.open(path, os.O_RDWR | os.O_CREAT)
    second = files.open(path, os.O_RDWR)
    files.lock(first)
    with pytest.raises(BlockingIOError):
        files.lock(second, shared=True)
    files.close(first)
    files.lock(second, shared=True)
    third = files.open(path, os.O_RDWR)
    files.lock(third, shared=True)
    files.close(second)
    files.close(third)


def test_a_script_fails_shortens_and_slows(tmp_path: Path) -> None:
    files = ScriptedFiles()
    fd = files.open(str(tmp_path / "x"), os.O_RDWR | os.O_CREAT)
    files.fail("write", errno.ENOSPC, after=1)
    files.write(fd, b"one")
    with pytest.raises(OSError, match="No space left"):
        files.write(fd, b"two")
    files.shorten("write", 1)
    files.write(fd, b"three")
    files.slow("fdatasync", 0.05)
    began = time.monotonic()
    files.fdatasync(fd)
    assert time.monotonic() - began >= 0.05
    assert files.read(fd, 100, 0) == b"onethree"
    written = [(data, result) for call, _, _, _, data, _, _, result in files.record if call == "write"]
    assert written == [(b"one", 3), (b"", -errno.ENOSPC), (b"t", 1), (b"hree", 4)]
    files.close(fd)


def test_the_world_stops(tmp_path: Path) -> None:
    files = ScriptedFiles()
    files.stop_after(2)
    fd = files.open(str(tmp_path / "x"), os.O_RDWR | os.O_CREAT)
    files.write(fd, b"one")
    for act in (lambda: files.write(fd, b"two"), lambda: files.unlink(str(tmp_path / "x"))):
        with pytest.raises(OSError) as refused:
            act()
        assert refused.value.errno == errno.ESHUTDOWN
    files.heal()
    assert files.read_all(str(tmp_path / "x")) == b"one"
    files.close(fd)
