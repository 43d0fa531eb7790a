"""The manifest of a shard's directory: which files are loaded, in which order. Text, one line a file:

    kache 1
    base 17 000017.base 5243008 4711 end 4800 salt 00112233445566778899aabbccddeeff
    log 17 000017.log 80216 4712 salt …                 closed, or cut there: bytes
    log 18 000018.log open 4900 salt …                  that is written; an END in it says that the next one is
    skipped 70 71                                       transactions of which another shard has lost its share
    resolved 4711 5020                                  the number of the cluster's decision about transactions, and up to
                                                        which effects it was about them: what is there of them counts
    stopped 1764144000000                               since then (unix ms) nothing is logged
    check 8a7b6c5d4e3f2a1b

Numbers of logs rise, their first sequences (no effects in them come before) do not go back, and bases come before logs: one,
or several of disjoint slots, ``slots 0-99,200`` at their end, after the number of shards was changed. A log is named before
it is used, so that more than one may be open, at the end. Anything else is refused, naming the line. Files that it does not
name are of no meaning. With a line ``resolved`` it begins with ``kache 2``, so that a version that knows of none says that a newer
one has written it.
"""

from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import PurePath
from typing import Final

import msgspec

from .files import Files
from .format import LogError, check_of

__all__ = [
    "MANIFEST",
    "BaseFile",
    "LogFile",
    "Manifest",
    "base_name",
    "files_in",
    "is_ours",
    "log_name",
    "parse",
    "read",
    "text",
    "write",
]

MANIFEST: Final = "manifest"
FIRST_LINE: Final = "kache 1"
RESOLVED_LINE: Final = "kache 2"
"""Of one that says `resolved`."""
MOST_FILES: Final = 65536
"""Far more than there ever are: a manifest is read whole."""

BEHIND_FILES: Final = ("skipped", "resolved", "stopped")
"""Lines behind those of files, in their order."""

_RESTORE: Final = "what this shard held is not there. Bring it back from a backup; `kache check-aof {directory} --fix` has it start empty."

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[0-9]{6,10}\.(base|log)|from-[0-9]{4}\.base")
_SALT = re.compile(r"[0-9a-f]{32}")
_SLOTS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


class BaseFile(msgspec.Struct, frozen=True):
    """One base: whole values, as of sequences from `first` to `end`; `slots` [(first, last)], empty for all."""

    number: int
    name: str
    bytes: int
    first: int
    end: int
    salt: str
    slots: tuple[tuple[int, int], ...] = ()


class LogFile(msgspec.Struct, frozen=True):
    """One log, whose first effects have the sequence `first`; `bytes` is None while it is written."""

    number: int
    name: str
    bytes: int | None
    first: int
    salt: str


class Manifest(msgspec.Struct, frozen=True):
    """What a shard's directory holds."""

    bases: tuple[BaseFile, ...] = ()
    logs: tuple[LogFile, ...] = ()
    stopped_ms: int = 0
    skipped: tuple[int, ...] = ()
    resolved: int = 0
    decided: int = 0

    def names(self) -> set[str]:
        """The names of all its files."""
        return {base.name for base in self.bases} | {log.name for log in self.logs}

    def files(self) -> list[BaseFile | LogFile]:
        """All its files, in the order in which they are loaded."""
        return [*self.bases, *self.logs]

    def next_number(self) -> int:
        """A number that no file of it has, nor any before it."""
        return max([0, *(base.number for base in self.bases), *(log.number for log in self.logs)]) + 1


def base_name(number: int) -> str:
    """``000017.base``"""
    return f"{number:06}.base"


def log_name(number: int) -> str:
    """``000017.log``"""
    return f"{number:06}.log"


def is_ours(name: str) -> bool:
    """Whether a file of this name may be removed when no manifest names it."""
    return name == MANIFEST + ".tmp" or _NAME.fullmatch(name) is not None


def missing_since(manifest: Manifest) -> str:
    """What is told where a cluster went on without a log: `stopped_ms` is since when."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.stopped_ms / 1000))
    return f"nothing was logged since {since}: what was changed later is not there"


def text(manifest: Manifest) -> bytes:
    """The content of the file."""
    is_resolved = bool(manifest.resolved or manifest.decided)
    lines = [RESOLVED_LINE if is_resolved else FIRST_LINE]
    for base in manifest.bases:
        slots = " slots " + ",".join(f"{a}-{b}" for a, b in base.slots) if base.slots else ""
        lines.append(f"base {base.number} {base.name} {base.bytes} {base.first} end {base.end} salt {base.salt}{slots}")
    for log in manifest.logs:
        size = "open" if log.bytes is None else str(log.bytes)
        lines.append(f"log {log.number} {log.name} {size} {log.first} salt {log.salt}")
    if manifest.skipped:
        lines.append(f"skipped {' '.join(map(str, manifest.skipped))}")
    if is_resolved:
        lines.append(f"resolved {manifest.resolved} {manifest.decided}")
    if manifest.stopped_ms:
        lines.append(f"stopped {manifest.stopped_ms}")
    body = "".join(f"{line}\n" for line in lines).encode()
    return body + f"check {check_of(body):016x}\n".encode()


def parse(data: bytes, path: str) -> Manifest:
    """The manifest in `data`; LogError names `path` and the line that is wrong."""
    if not data:
        raise LogError(f"{path} is empty.", path, 0)
    if _is_whole(data.replace(b"\r\n", b"\n")) and not _is_whole(data):
        line = 1 + data[: data.find(b"\r")].count(b"\n")
        raise LogError(f"{path}, line {line}: not as Kache writes it (it ends lines with a newline alone).", path)
    lines = data.decode("ascii", "backslashreplace").split("\n")
    if lines[0] not in (FIRST_LINE, RESOLVED_LINE):
        newer = lines[0].startswith("kache ")
        reason = "was written by a newer Kache" if newer else f"'{lines[0][:60]}' is not the start of a manifest"
        raise LogError(f"{path}, line 1: {reason}.", path, 0, newer)
    is_whole = _is_whole(data)
    reader = _Reader(path, is_whole)
    for number, words in enumerate(lines[1:-2], 2):
        reader.take(number, words)
    if not is_whole:
        raise LogError(f"{path} is damaged: its check does not fit what it says.", path)
    return Manifest(
        tuple(reader.bases), tuple(reader.logs), reader.stopped_ms, reader.skipped, reader.resolved, reader.decided
    )


def _is_whole(data: bytes) -> bool:
    """Whether its last line is the check of those before."""
    body = data[: data[:-1].rfind(b"\n") + 1]
    return data == body + f"check {check_of(body):016x}\n".encode()


class _Reader:
    """Reads the lines between the first and the check, one by one."""

    def __init__(self, path: str, is_whole: bool) -> None:
        self.path = path
        self._where = f"{path}, line" if is_whole else f"{path} is damaged in line"
        self.bases: list[BaseFile] = []
        self.logs: list[LogFile] = []
        self.stopped_ms = 0
        self.skipped: tuple[int, ...] = ()
        self.resolved = self.decided = 0
        self._last = ""
        self._names: set[str] = set()

    def take(self, number: int, line: str) -> None:
        """One line; LogError names it."""
        try:
            words = line.split(" ")
            if self._last and words[0] not in BEHIND_FILES[BEHIND_FILES.index(self._last) + 1 :]:
                raise ValueError(f"nothing of this kind may follow '{self._last}'")
            self._last = words[0] if words[0] in BEHIND_FILES else ""
            if words[0] == "base":
                self._base(words)
            elif words[0] == "log":
                self._log(words)
            elif words[0] == "skipped" and len(words) > 1:
                self.skipped = tuple(_count(word, "a transaction") for word in words[1:])
            elif words[0] == "resolved" and len(words) == 3:
                self.resolved, self.decided = _count(words[1], "a number"), _count(words[2], "a sequence")
            elif words[0] == "stopped" and len(words) == 2:
                self.stopped_ms = _count(words[1], "a time")
            else:
                raise ValueError(f"'{line[:60]}' is no line of a manifest" if line else "an empty line")
        except ValueError as error:
            raise LogError(f"{self._where} {number}: {error}.", self.path) from None

    def _base(self, words: list[str]) -> None:
        if len(words) not in (9, 11) or words[5] != "end" or words[7] != "salt" or words[9:10] not in ([], ["slots"]):
            raise ValueError("not the words of a base")
        number, name, salt = _count(words[1], "a number"), self._name(words[2], "base"), _salt(words[8])
        size, first, end = (_count(words[i], what) for i, what in ((3, "a size"), (4, "a sequence"), (6, "a sequence")))
        if self.logs:
            raise ValueError("a base behind a log")
        if end < first:
            raise ValueError(f"the base ends at {end}, before it begins")
        slots = _slots(words[10]) if len(words) == 11 else ()
        self._check_disjoint(slots)
        self.bases.append(BaseFile(number, name, size, first, end, salt, slots))

    def _check_disjoint(self, slots: tuple[tuple[int, int], ...]) -> None:
        taken = sorted([*slots, *(pair for base in self.bases for pair in base.slots)])
        if self.bases and (not slots or any(not base.slots for base in self.bases)):
            raise ValueError("a second base")
        if any(before[1] >= after[0] for before, after in pairwise(taken)):
            raise ValueError("slots that another base has")

    def _log(self, words: list[str]) -> None:
        if len(words) != 7 or words[5] != "salt":
            raise ValueError("not the words of a log")
        number, name, salt = _count(words[1], "a number"), self._name(words[2], "log"), _salt(words[6])
        size = None if words[3] == "open" else _count(words[3], "a size")
        first = _count(words[4], "a sequence")
        if self.logs:
            before = self.logs[-1]
            if number <= before.number:
                raise ValueError(f"log {number} behind log {before.number}")
            if first < before.first:
                raise ValueError(f"the sequence goes back, from {before.first} to {first}")
            if before.bytes is None and size is not None:
                raise ValueError(f"a closed log behind log {before.number}, which is open")
        elif any(first > base.end + 1 for base in self.bases):
            raise ValueError(f"the log begins with {first}, too late for the base before it")
        self.logs.append(LogFile(number, name, size, first, salt))

    def _name(self, name: str, kind: str) -> str:
        if _NAME.fullmatch(name) is None or PurePath(name).suffix != f".{kind}":
            raise ValueError(f"'{name[:60]}' is no name of a {kind}")
        if name in self._names:
            raise ValueError(f"{name} for the second time")
        self._names.add(name)
        return name


def _count(word: str, what: str) -> int:
    if _NUMBER.fullmatch(word) is None or int(word) >= 2**63:
        raise ValueError(f"'{word[:60]}' is not {what}")
    return int(word)


def _salt(word: str) -> str:
    if _SALT.fullmatch(word) is None:
        raise ValueError(f"'{word[:60]}' is no salt")
    return word


def _slots(word: str) -> tuple[tuple[int, int], ...]:
    if _SLOTS.fullmatch(word) is None:
        raise ValueError(f"'{word[:60]}' are no slots")
    pairs = []
    for part in word.split(","):
        first, _, last = part.partition("-")
        pairs.append((int(first), int(last or first)))
    if any(first > last or last >= 16384 for first, last in pairs):
        raise ValueError(f"'{word[:60]}' are no slots")
    return tuple(pairs)


def read(files: Files, directory: str) -> Manifest:
    """The manifest of a directory. It is there before anything else says that the directory counts, and for ever after:
    LogError where it is missing, and for what is none."""
    path = f"{directory}/{MANIFEST}"
    if files.exists(path):
        return parse(files.read_all(path, MOST_FILES * 256), path)
    if not files.exists(directory):
        raise LogError(f"{directory} is missing: {_RESTORE.format(directory=directory)}", directory)
    data = files_in(files, directory)
    if data:
        raise LogError(
            f"{directory} has data ({data[0]}) but no manifest, so it is not known what belongs together. Bring the "
            "manifest back from a backup.",
            directory,
        )
    raise LogError(f"{directory} has neither a manifest nor data: {_RESTORE.format(directory=directory)}", directory)


def files_in(files: Files, directory: str) -> list[str]:
    """The names in a directory that logs and bases have."""
    return [name for name in files.list(directory) if _NAME.fullmatch(name)]


def write(files: Files, directory: str, manifest: Manifest) -> None:
    """Puts it in place of the one before, in one step that outlives a power cut; OSError leaves the one before."""
    files.replace(f"{directory}/{MANIFEST}", text(manifest))
