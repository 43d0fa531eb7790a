"""A disk in a box: from the calls that ScriptedFiles has recorded, the directories that a power cut may leave.

What the model promises is what POSIX does: the data of a file up to its last fdatasync, the entries of a directory up to its
last fsync. Of everything later any part may be there: pages of 4 KiB in any order, entries each by itself.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096
Call = tuple[str, int, int, int, bytes | None, str | None, str | None, int]


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


class Disk:
    """The state behind some calls: what is there, and of that what a power cut cannot take."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.entries: dict[str, _File] = {}
        self.durable_entries: dict[str, _File] = {}
        self._open: dict[int, tuple[_File, int]] = {}
        self._moved: list[tuple[str, str]] = []
        """Directories that were renamed, whose parent is not synced yet."""

    @classmethod
    def of(cls, root: str, contents: dict[str, bytes]) -> Disk:
        """One that has these files since long, by their names under `root`."""
        disk = cls(root)
        for name, data in contents.items():
            disk.entries[name] = _File(bytearray(data), data)
        disk.durable_entries = dict(disk.entries)
        return disk

    def do(self, call: Call) -> None:
        """One call, as it was recorded."""
        what, fd, a, b, data, path, other, result = call
        if result < 0:
            return
        if what == "open":
            assert path is not None
            file = self.entries.get(path)
            if file is None and a & os.O_CREAT:
                file = self.entries[path] = _File()
            elif file is not None and a & os.O_TRUNC:
                file.data.clear()
            if file is not None:
                self._open[result] = (file, 0)
        elif what == "close":
            self._open.pop(fd, None)
        elif what in ("write", "pwrite"):
            self._write(fd, a, data or b"")
        elif what == "ftruncate":
            file = self._open[fd][0]
            del file.data[a:]
            file.data.extend(bytes(a - len(file.data)))
        elif what == "fallocate":
            # It goes on in zeros; how many makes no difference, but to the time that the tests take.
            file = self._open[fd][0]
            file.data.extend(bytes(max(0, min(a + b, a + 2 * PAGE) - len(file.data))))
        elif what == "fdatasync":
            file = self._open[fd][0]
            file.durable = bytes(file.data)
        elif what == "fsync_dir":
            assert path is not None
            self._sync_entries(path)
        elif what == "rename":
            assert path is not None and other is not None
            if path in self.entries:
                self.entries[other] = self.entries.pop(path)
            else:
                self.entries = _renamed(self.entries, path, other)
                self._moved.append((path, other))
        elif what == "unlink":
            assert path is not None
            del self.entries[path]

    def is_open(self, fd: int, path: str) -> bool:
        """Whether the descriptor is one of this file."""
        return fd in self._open and self._open[fd][0] is self.entries.get(path)

    def _write(self, fd: int, offset: int, data: bytes) -> None:
        file, at = self._open[fd]
        start = offset if offset >= 0 else at
        file.data.extend(bytes(max(0, start - len(file.data))))
        file.data[start : start + len(data)] = data
        if offset < 0:
            self._open[fd] = (file, start + len(data))

    def _sync_entries(self, directory: str) -> None:
        for moved in [moved for moved in self._moved if os.path.dirname(moved[1]) == directory]:
            self.durable_entries = _renamed(self.durable_entries, *moved)
            self._moved.remove(moved)
        for entries in (self.durable_entries, self.entries):
            for name in [name for name in entries if os.path.dirname(name) == directory]:
                if name in self.entries:
                    self.durable_entries[name] = self.entries[name]
                else:
                    del self.durable_entries[name]

    # What may be found ------------------------------------------------------------------------------------
    def outcomes(self, draw: random.Random, subsets: int) -> Iterator[dict[str, bytes]]:
        """Contents of the files by name, for every kind of power cut; `subsets` of them are drawn."""
        names = sorted({*self.entries, *self.durable_entries})
        within = tuple(f"{name}/" for moved in self._moved for name in moved)
        changed = [
            name
            for name in names
            if self.entries.get(name) is not self.durable_entries.get(name) and not name.startswith(within)
        ]
        choices: list[dict[str, _File]] = [dict(self.durable_entries), dict(self.entries)]
        choices += [_renamed(self.durable_entries, *moved) for moved in self._moved]
        for name in changed:
            one = dict(self.durable_entries)
            one.pop(name, None)
            if name in self.entries:
                one[name] = self.entries[name]
            choices.append(one)
        ways = ["none", "all", "first", "last", "zeros", *(["some"] * subsets)]
        for number, entries in enumerate(choices):
            for way in ways if number < 2 else ways[:2]:
                yield {name: _content(file, way, draw) for name, file in entries.items()}


def _renamed(entries: dict[str, _File], path: str, other: str) -> dict[str, _File]:
    """The same when a directory has got another name, with everything in it at once."""
    return {
        f"{other}{name[len(path) :]}" if name.startswith(f"{path}/") else name: file for name, file in entries.items()
    }


def _content(file: _File, way: str, draw: random.Random) -> bytes:
    """What is found of a file: its durable part, and of the rest what `way` says."""
    now, safe = bytes(file.data), file.durable
    if way == "none" or now == safe:
        return safe
    if way == "all":
        return now
    if way == "zeros":
        return now[: len(safe)] + bytes(len(now) - len(safe)) if len(now) > len(safe) else safe
    pages = range(0, len(now), PAGE)
    fresh = [at for at in pages if now[at : at + PAGE] != safe[at : at + PAGE]]
    missing = {"first": fresh[:1], "last": fresh[-1:]}.get(way)
    if missing is None:
        missing = [at for at in fresh if draw.random() < 0.5]
    found = bytearray(now)
    for at in missing:
        old = safe[at : at + PAGE]
        found[at : at + PAGE] = old + bytes(len(now[at : at + PAGE]) - len(old))
    return bytes(found)


def build(root: Path, contents: dict[str, bytes], original: str) -> None:
    """A directory with these files."""
    for name, data in contents.items():
        path = root / os.path.relpath(name, original)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def after(calls: Sequence[Call], root: str, count: int) -> Disk:
    """The disk behind the first `count` calls."""
    disk = Disk(root)
    for call in calls[:count]:
        disk.do(call)
    return disk


__all__ = ["Call", "Disk", "after", "build"]
