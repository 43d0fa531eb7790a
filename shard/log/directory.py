"""The directory of a cluster's data: its layout, who may use it, and the file that says whose it is.

    dir/cluster              text: the cluster's id, the seed of its hashes, the epoch, which shard has which slots
    dir/lock                 locked by the supervisor as long as it lives
    dir/transactions         what a start has decided about transactions over shards, as long as not every shard's files say it
    dir/functions            the libraries of functions, as FUNCTION DUMP gives them; missing where there never were any
    dir/epoch-1/shard-0003/  of one shard: its lock, its manifest (manifest.py), its files

The supervisor owns `cluster`, `transactions`, `functions` and `lock`, each shard its own directory; tools lock what they read,
shared. The epoch goes up when the number of shards changes: the files of one epoch are never mixed with those of another.
`cluster` is written when every shard has its directory and a manifest there: one that has not has lost its data.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final

import msgspec

from kache.cluster.resolution import Unfinished
from kache.libraries import LibraryError, decode, name_of
from kache.slots import SlotRange, check

from . import manifest as manifests
from .files import Files
from .format import LogError, check_of
from .manifest import Manifest
from .troubles import FULL_ERRORS

__all__ = [
    "CLUSTER",
    "FUNCTIONS",
    "ClusterFile",
    "Lock",
    "begin",
    "enclosing",
    "make",
    "read_cluster",
    "read_functions",
    "read_unfinished",
    "shard_directory",
    "sweep",
    "sync",
    "write_cluster",
    "write_unfinished",
]

CLUSTER: Final = "cluster"
TRANSACTIONS: Final = "transactions"
FUNCTIONS: Final = "functions"
FIRST_LINE: Final = "kache 1"
ELSEWHERE: Final = "move it away, or choose another --dir"
_SHARD: Final = re.compile(r"shard-[0-9]{4,}")
_HEX: Final = re.compile(r"[0-9a-f]{32}")


class ClusterFile(msgspec.Struct, frozen=True):
    """What a data directory says of its cluster; `cluster` (an id) and `hash_seed` are 16 bytes each."""

    cluster: bytes
    hash_seed: bytes
    epoch: int
    shards: int
    slots: tuple[SlotRange, ...]


def shard_directory(path: str, epoch: int, shard: int) -> str:
    """Where a shard keeps its files."""
    return f"{path}/epoch-{epoch}/shard-{shard:04}"


def read_cluster(files: Files, path: str) -> ClusterFile | None:
    """What the directory says; None where there is no data. LogError for anything else."""
    name = f"{path}/{CLUSTER}"
    if files.exists(name):
        try:
            return _parse(files.read_all(name), name)
        except IsADirectoryError:
            raise LogError(f"{name} is a folder, not a file of Kache: {ELSEWHERE}.", name) from None
    found = data_of_nobody(files, path) if files.exists(path) else ""
    if found:
        raise LogError(
            f"{path} has data ({found}) but no file '{CLUSTER}' that says whose it is. Bring it back from a backup, or "
            f"move {found} away to start empty.",
            name,
        )
    return None


def enclosing(files: Files, path: str) -> str:
    """The data directory among whose shards `path` lies, is there or not; "" if there is none."""
    below = os.path.abspath(path)
    while (above := os.path.dirname(below)) != below:
        if os.path.basename(below).startswith("epoch-") and files.is_file(f"{above}/{CLUSTER}"):
            return above
        below = above
    return ""


def data_of_nobody(files: Files, path: str) -> str:
    """The first name in a directory without `cluster` that may be, or have, what somebody wants back; "" if there is none.

    A first start that was interrupted has left folders of shards without anything in them; a later one begins anew. The
    folders or files of shards may lie here without what should be above them, as somebody has copied them.
    """
    for name in files.list(path):
        each = f"{path}/{name}"
        if files.is_file(each):
            known = name == manifests.MANIFEST or manifests.is_ours(name)
            if name in (FUNCTIONS, TRANSACTIONS) or (known and _is_of_kache(files, each)):
                return name
        elif _SHARD.fullmatch(name) and not _never_began(files, each):
            return name
        if name.startswith("epoch-") and (files.is_file(each) or not all(
            _never_began(files, f"{each}/{shard}") for shard in files.list(each)
        )):  # fmt: skip
            return name
    return ""


def _is_of_kache(files: Files, path: str) -> bool:
    """By its first bytes: others have files of such names, too."""
    fd = files.open(path)
    try:
        return files.read(fd, 5, 0).lower() == b"kache"
    finally:
        files.close(fd)


def _never_began(files: Files, path: str) -> bool:
    """Whether the folder of a shard is as `begin` leaves it."""
    if files.is_file(path) or not set(files.list(path)) <= {"lock", manifests.MANIFEST, f"{manifests.MANIFEST}.tmp"}:
        return False
    try:
        return not files.exists(f"{path}/{manifests.MANIFEST}") or manifests.read(files, path) == Manifest()
    except LogError:
        return False


def begin(files: Files, path: str, cluster: ClusterFile) -> None:
    """Makes it the directory of a new cluster. Each shard has its folder and a manifest before `cluster` says that they count:
    one without them has lost them. Whoever is interrupted has left nothing that counts."""
    for shard in range(cluster.shards):
        place = shard_directory(path, cluster.epoch, shard)
        make(files, place)
        manifests.write(files, place, Manifest())
    write_cluster(files, path, cluster)


def write_cluster(files: Files, path: str, cluster: ClusterFile) -> None:
    """Puts it in place of the one before, in one step that outlives a power cut."""
    lines = [
        FIRST_LINE,
        f"cluster {cluster.cluster.hex()}",
        f"seed {cluster.hash_seed.hex()}",
        f"epoch {cluster.epoch}",
        f"shards {cluster.shards}",
        *(f"slots {first}-{last} {shard}" for first, last, shard in cluster.slots),
    ]
    body = "".join(f"{line}\n" for line in lines).encode()
    files.replace(f"{path}/{CLUSTER}", body + f"check {check_of(body):016x}\n".encode())


def _parse(data: bytes, path: str) -> ClusterFile:
    lines = data.decode("ascii", "replace").split("\n")
    if lines[0] != FIRST_LINE:
        newer = lines[0].startswith("kache ")
        what = "was written by a newer Kache" if newer else f"is not a file of Kache: {ELSEWHERE}"
        raise LogError(f"{path} {what}.", path, 0, newer)
    body = data[: data.rstrip(b"\n").rfind(b"\n") + 1]
    if data != body + f"check {check_of(body):016x}\n".encode():
        raise LogError(f"{path} is damaged: its check does not fit what it says.", path)
    try:
        words = [line.split(" ") for line in lines[1:-2]]
        (_, cluster), (_, seed), (_, epoch), (_, shards) = words[:4]
        if [word[0] for word in words[:4]] != ["cluster", "seed", "epoch", "shards"]:
            raise ValueError("lines are missing")
        if not (_HEX.fullmatch(cluster) and _HEX.fullmatch(seed)):
            raise ValueError("an id that is none")
        slots = []
        for _, pair, shard in words[4:]:
            first, last = pair.split("-")
            slots.append((int(first), int(last), int(shard)))
        check(slots, int(shards))
        return ClusterFile(bytes.fromhex(cluster), bytes.fromhex(seed), int(epoch), int(shards), tuple(slots))
    except ValueError as error:
        raise LogError(f"{path} cannot be read: {error}.", path) from None


def read_functions(files: Files, path: str) -> bytes:
    """The libraries of functions, as FUNCTION DUMP gives them; nothing where there are none. LogError where they are damaged."""
    name = f"{path}/{FUNCTIONS}"
    if not files.is_file(name):
        return b""
    payload = files.read_all(name, files.size(name))
    try:
        for code in decode(payload) if payload else ():
            name_of(code)
    except LibraryError as error:
        raise LogError(
            f"{name} is damaged: {error}. It has the libraries of functions; bring it back from a backup, or move it away to "
            "start without any (FUNCTION LOAD brings them back).",
            name,
        ) from None
    return payload


def read_unfinished(files: Files, path: str, epoch: int) -> Unfinished | None:
    """What a start of this epoch has decided about transactions, and not every shard's files say yet; LogError where it is
    damaged."""
    name = f"{path}/{TRANSACTIONS}"
    if not files.exists(name):
        return None
    data = files.read_all(name, files.size(name))
    body = data[: data.rstrip(b"\n").rfind(b"\n") + 1]
    lines = body.split(b"\n")
    if lines[0] != FIRST_LINE.encode() and lines[0].startswith(b"kache "):
        raise LogError(f"{name} was written by a newer Kache.", name, 0, True)
    try:
        if data != body + f"check {check_of(body):016x}\n".encode():
            raise ValueError("its check does not fit what it says")
        return msgspec.json.decode(lines[2], type=Unfinished) if lines[1] == f"epoch {epoch}".encode() else None
    except (ValueError, IndexError) as error:
        raise LogError(
            f"{name} is damaged: {error}. It says which transactions over shards count that a crash has interrupted; bring it "
            "back from a backup, or move it away to have that decided anew.",
            name,
        ) from None


def write_unfinished(files: Files, path: str, epoch: int, unfinished: Unfinished | None) -> None:
    """Puts it in place of the one before, or removes that, in one step that outlives a power cut."""
    name = f"{path}/{TRANSACTIONS}"
    if unfinished is not None:
        body = f"{FIRST_LINE}\nepoch {epoch}\n".encode() + msgspec.json.encode(unfinished) + b"\n"
        files.replace(name, body + f"check {check_of(body):016x}\n".encode())
    elif files.exists(name):
        files.unlink(name)
        files.fsync_dir(path)


def make(files: Files, path: str) -> None:
    """Makes a directory and those above it that are missing, for this user alone; they outlive a power cut."""
    if files.exists(path):
        return
    above = os.path.dirname(path) or "."
    make(files, above)
    files.mkdir(path)
    files.fsync_dir(above)


class Lock:
    """The right to use a directory, until `release` or the end of the process; `shared` with others who only read.

    LogError names who has it. Who only reads can do so where nothing may be written: on a disk that is mounted read-only after
    its errors, in a backup of somebody else.
    """

    def __init__(self, files: Files, path: str, *, shared: bool = False) -> None:
        self._files = files
        name = f"{path}/lock"
        try:
            self.fd = files.open(name, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if not shared or error.errno not in (errno.EROFS, errno.EACCES):
                raise
            if not files.exists(name):
                self.fd = -1  # whoever uses the directory makes it first
                return
            self.fd = files.open(name)
        try:
            files.lock(self.fd, shared)
            if not shared:
                self._sign()
        except BlockingIOError:
            holder = files.read(self.fd, 100, 0).decode("ascii", "replace").strip()
            self.release()
            raise LogError(f"{path} is in use by another process ({holder or 'pid unknown'}).", name) from None
        except OSError:
            self.release()
            raise

    def _sign(self) -> None:
        """Says whose it is. On a full disk it goes without: what is there can be used all the same."""
        try:
            self._files.ftruncate(self.fd, 0)
            self._files.pwrite(self.fd, f"pid {os.getpid()}\n".encode(), 0)
        except OSError as error:
            if error.errno not in FULL_ERRORS:
                raise

    def release(self) -> None:
        """Gives it up."""
        if self.fd >= 0:
            self._files.close(self.fd)
            self.fd = -1


def sync(files: Files, directory: str, manifest: Manifest) -> None:
    """What was written to open logs before a process was killed becomes durable, before anybody goes by it. For who has the
    directory's lock."""
    for each in manifest.logs:
        if each.bytes is None:
            fd = files.open(f"{directory}/{each.name}", os.O_RDWR)
            try:
                files.fdatasync(fd)
            finally:
                files.close(fd)


def sweep(files: Files, directory: str, manifest: Manifest) -> list[str]:
    """Removes what no manifest names, of names that are ours; what was removed. For who has the directory's lock."""
    keep = manifest.names()
    gone = [name for name in files.list(directory) if manifests.is_ours(name) and name not in keep]
    for name in gone:
        files.unlink(f"{directory}/{name}")
    return gone
