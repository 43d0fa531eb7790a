"""Looking at files offline: what `kache check-aof` and `kache dump` do. Reads as a shard does, and locks what it reads.

PATH is the directory of a cluster's data, that of one shard, or (for looking at frames) one file. `kache.cli` finds this
module by name, as nothing in `kache` imports `kache.shard`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from kache.cluster.progress import counted

from ..engine.engine import Keyspace, RecordError, Store, records_of
from ..engine.stream import id_text
from . import directory as directories
from . import format as log_format
from . import manifest as manifests
from .directory import Lock
from .files import Files
from .format import LogError
from .manifest import Manifest
from .ownership import check_files, check_keys, owner_of
from .recovery import FrameFile, Recovery, values_of
from .troubles import unusable, without_hint

__all__ = ["FileVerdict", "ShardVerdict", "check", "check_cluster", "fix", "frames", "state"]

FRAME_NAMES = {
    log_format.EFFECTS: "effects",
    log_format.SHARE: "share",
    log_format.MARK: "mark",
    log_format.END: "end",
    log_format.VALUES: "values",
    log_format.PART: "part",
    log_format.BASE_END: "base_end",
}
BEFORE = ".before"
STEP_NS = 100_000_000


class FileVerdict(msgspec.Struct, kw_only=True):
    """One file: its `bytes` that count, its frames that verify, and the offset from which on they do not (-1: all do), with what lies there."""

    path: str
    bytes: int
    frames: int
    bad_offset: int = -1
    beyond: int = 0
    """Frames that verify behind the bad offset."""
    ignored: int = 0
    """Bytes behind those that count, reserved room not among them: a fix has left them out."""
    is_readable: bool = True
    """Whether what can be said of it is said: not where it may not be read."""
    problem: str = ""
    """What is wrong with it in words, where frames say nothing about that."""


class ShardVerdict(msgspec.Struct, kw_only=True):
    """One shard's directory as a shard would load it. `problem` is why it would not, or only in part; "" if all is well.

    `fixed` is the manifest with which it loads, None where there is nothing to fix or no way to; `lost` says what would be
    lost by it.
    """

    directory: str
    files: list[FileVerdict] = []
    keys: int = 0
    sequence: int = 0
    problem: str = ""
    lost: str = ""
    fixed: Manifest | None = None
    had_none: bool = False
    """Whether there is no manifest, nor anything else."""
    help: str = "This cannot be fixed: restore the directory from a backup."
    """What is said where nothing can be fixed; the problem says it where this is empty."""
    note: str = ""
    """What is strange, and no problem of a start."""


def shard_directories(files: Files, path: str) -> list[str]:
    """The directories of the shards at PATH; LogError where there are none."""
    path = path.rstrip("/") or "/"
    cluster = directories.read_cluster(files, path) if files.exists(f"{path}/{directories.CLUSTER}") else None
    if cluster is not None:
        return [directories.shard_directory(path, cluster.epoch, shard) for shard in range(cluster.shards)]
    if files.exists(f"{path}/{manifests.MANIFEST}") or owner_of(files, path) is not None:
        return [path]
    root = directories.enclosing(files, path)
    inside = f"; it lies inside of the data directory {root}" if root else ""
    raise LogError(f"{path} is neither the data directory of a cluster nor that of a shard{inside}.", path)


@contextmanager
def _locked(files: Files, path: str, shared: bool = True) -> Iterator[None]:
    lock = Lock(files, path, shared=shared)
    try:
        yield
    finally:
        lock.release()


def _loaded(files: Files, path: str, manifest: Manifest) -> tuple[Store, Recovery]:
    """A store with everything that a shard would have; LogError as it would have."""
    owner = owner_of(files, path)
    if owner is not None:
        check_files(files, path, manifest, owner)
    seed = bytes(16)
    for file in manifest.bases[:1]:
        opened = FrameFile(files, f"{path}/{file.name}")
        seed = opened.header.hash_seed
        opened.close()
    store = Store(seed)
    recovery = Recovery(files, path, store, manifest)
    try:
        while recovery.step(STEP_NS):
            pass
    finally:
        recovery.close()
    return store, recovery


# Checking -------------------------------------------------------------------------------------------------
def check_cluster(path: str) -> list[FileVerdict]:
    """A verdict for each file of the cluster itself at PATH; none where that is the directory of one shard. LogError where
    `cluster` is damaged: nothing else can be found without it."""
    files, found = Files(), []
    path = path.rstrip("/") or "/"
    if not files.exists(f"{path}/{directories.CLUSTER}"):
        return []
    cluster = directories.read_cluster(files, path)
    assert cluster is not None
    readers: dict[str, Callable[[], object]] = {
        directories.CLUSTER: lambda: None,
        directories.FUNCTIONS: lambda: directories.read_functions(files, path),
        directories.TRANSACTIONS: lambda: directories.read_unfinished(files, path, cluster.epoch),
    }
    for name, read in readers.items():
        if files.exists(f"{path}/{name}"):
            verdict = FileVerdict(path=f"{path}/{name}", bytes=files.size(f"{path}/{name}"), frames=0)
            try:
                read()
            except LogError as error:
                verdict.problem = str(error)
            found.append(verdict)
    return found


def check(path: str) -> list[ShardVerdict]:
    """A verdict for each shard at PATH. LogError for what is no data directory, or is in use."""
    files = Files()
    found = []
    for each in shard_directories(files, path):
        if not files.exists(each):
            found.append(_check_shard(files, each))
            continue
        try:
            with _locked(files, each):
                found.append(_check_shard(files, each))
        except OSError as error:
            found.append(ShardVerdict(directory=each, problem=f"{unusable(files, each, error)}.", help=""))
    return found


def _check_shard(files: Files, path: str) -> ShardVerdict:
    verdict = ShardVerdict(directory=path)
    try:
        manifest = manifests.read(files, path)
    except OSError as error:
        verdict.problem, verdict.help = f"{unusable(files, path, error)}.", ""
        return verdict
    except LogError as error:
        verdict.problem = without_hint(str(error))
        if not files.exists(path) or not (
            files.exists(f"{path}/{manifests.MANIFEST}") or manifests.files_in(files, path)
        ):
            verdict.fixed, verdict.lost, verdict.had_none = Manifest(), "everything that this shard held", True
        return verdict
    for file in manifest.files():
        verdict.files.append(_check_file(files, f"{path}/{file.name}", file.bytes, file.salt))
    try:
        store, recovery = _loaded(files, path, manifest)
    except LogError as error:
        verdict.problem = without_hint(str(error))
        _propose(verdict, manifest, error)
        return verdict
    verdict.keys = sum(keys for _, keys, _, _ in store.counts())
    verdict.sequence = recovery.last
    if recovery.cut is not None:
        verdict.problem = f"{recovery.cut}. A start leaves them out, with a warning (aof-load-truncated)."
        verdict.fixed = recovery.manifest_after()
        verdict.lost = f"{counted(recovery.cut.dropped, 'byte')} that were never acknowledged as durable"
        return verdict
    owner = owner_of(files, path)
    if owner is not None:
        verdict.note = check_keys(recovery, owner.slots)
    return verdict


def _check_file(files: Files, path: str, limit: int | None, salt: str) -> FileVerdict:
    verdict = FileVerdict(path=path, bytes=0, frames=0)
    try:
        there = verdict.bytes = files.size(path)
        files.close(files.open(path))
    except OSError as error:
        verdict.bad_offset, verdict.is_readable = 0, isinstance(error, FileNotFoundError)
        verdict.problem = f"{path}: {'is missing' if verdict.is_readable else error.strerror}"
        return verdict
    too_short = limit is not None and there < limit
    try:
        file = FrameFile(files, path, limit=None if too_short else limit, salt=salt)
    except LogError:
        verdict.bad_offset = 0
        return verdict
    try:
        for offset, kind, _, _, now_ms, payload in file.frames():
            if kind == log_format.EFFECTS:
                verdict.bad_offset = offset
                records_of(now_ms, payload)
                verdict.bad_offset = -1
            verdict.frames += 1
        if not too_short:
            verdict.bytes = file.size if file.closed else file.written
            verdict.ignored = _ignored(files, path, verdict.bytes, there)
        if file.offset != file.size or too_short:
            verdict.bad_offset = file.offset
            verdict.beyond = file.beyond(file.offset)[0]
    except (LogError, RecordError):
        verdict.bad_offset = file.offset if verdict.bad_offset < 0 else verdict.bad_offset
    finally:
        file.close()
    return verdict


def _ignored(files: Files, path: str, counts: int, there: int) -> int:
    """Bytes behind those that count, without zeros at the end: room that was reserved."""
    if there <= counts:
        return 0
    whole = FrameFile(files, path)
    try:
        return max(whole.written - counts, 0)
    finally:
        whole.close()


def _propose(verdict: ShardVerdict, manifest: Manifest, error: LogError) -> None:
    """A damaged log can be cut before the damage, or left out where nothing of it can be read; a base cannot, nor what a newer
    version wrote."""
    names = [f"{verdict.directory}/{log.name}" for log in manifest.logs]
    if any(not file.is_readable for file in verdict.files):
        verdict.help = ""  # whoever may read them knows more
        return
    if error.path in [f"{verdict.directory}/{base.name}" for base in manifest.bases]:
        verdict.help = f"This cannot be fixed: restore {verdict.directory} from a backup."
    if error.newer or error.path not in names:
        return
    at = names.index(error.path)
    beyond = [file for file in verdict.files if file.path in names[at:]]
    # Where its end is missing the error is there, which may be in the middle of a frame.
    cut = error.offset if beyond[0].bad_offset < 0 else min(error.offset, beyond[0].bad_offset)
    if cut < log_format.HEADER_SIZE:
        if at or manifest.bases:
            verdict.lost = f"all of {error.path} and what was logged behind it, which had been safely written"
            verdict.fixed = msgspec.structs.replace(manifest, logs=manifest.logs[:at])
        return
    kept = (*manifest.logs[:at], msgspec.structs.replace(manifest.logs[at], bytes=cut))
    sizes = [max(file.bytes, log.bytes or 0) for file, log in zip(beyond, manifest.logs[at:], strict=True)]
    behind = max(sum(sizes) - cut - log_format.HEADER_SIZE * (len(beyond) - 1), 0)
    verdict.lost = (
        f"everything from byte {cut} of {error.path} on: {counted(behind, 'byte')}, which had been safely written"
    )
    verdict.fixed = msgspec.structs.replace(manifest, logs=kept)


def fix(verdict: ShardVerdict) -> bool:
    """Writes the manifest of the verdict, and keeps the one before as manifest.before; whether it loads then. Where it does
    not, the one before is back."""
    assert verdict.fixed is not None
    files = Files()
    directories.make(files, verdict.directory)
    with _locked(files, verdict.directory, shared=False):
        name = f"{verdict.directory}/{manifests.MANIFEST}"
        if not files.exists(name):
            manifests.write(files, verdict.directory, verdict.fixed)
            return True
        before = files.read_all(name)
        files.replace(f"{name}{BEFORE}", before)
        manifests.write(files, verdict.directory, verdict.fixed)
        if not _check_shard(files, verdict.directory).problem:
            return True
        files.replace(name, before)
        return False


# Showing --------------------------------------------------------------------------------------------------
def shown(value: Any) -> Any:
    """A value for JSON: text where it is UTF-8, else {"base64": …}."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items()}
    return [shown(each) for each in value] if isinstance(value, list | tuple) else value


def frames(path: str, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Every whole frame of every file at PATH, as it lies there, those behind damage too. `tell` is told of each damage."""
    files = Files()
    if path.endswith((".log", ".base")):
        yield from _frames_of(files, path, None, tell)
        return
    for each in shard_directories(files, path):
        with _telling(files, each, tell):
            manifests.read(files, each)  # one that is gone has no lock either
            with _locked(files, each):
                for file in manifests.read(files, each).files():
                    yield from _frames_of(files, f"{each}/{file.name}", file.bytes, tell)


@contextmanager
def _telling(files: Files, path: str, tell: Callable[[str], None]) -> Iterator[None]:
    """What is wrong with one shard is told, and is no reason to leave out others."""
    try:
        yield
    except LogError as error:
        if error.path.endswith("/lock"):
            raise  # a cluster runs: the others will not do either
        tell(str(error))
    except OSError as error:
        tell(f"{unusable(files, path, error)}.")


def _frames_of(files: Files, path: str, limit: int | None, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    there = files.size(path) if files.is_file(path) else 0
    if limit is not None and there < limit:
        tell(f"{path} has {there:,} bytes and should have {limit:,}: its end is missing.")
        limit = None
    with _telling(files, path, tell):
        file = FrameFile(files, path, limit=limit)
        try:
            while True:
                for frame in file.frames():
                    yield _shown_frame(file, frame, tell)
                bad = file.offset
                if bad == file.size:
                    return
                goes_on = file.resume()
                where = f"goes on at byte {file.offset}" if goes_on else "has none behind it either"
                tell(f"{path} has no frame at byte {bad}, and {where}.")
                if not goes_on:
                    return
        finally:
            file.close()


def _shown_frame(
    file: FrameFile, frame: tuple[int, int, int, int, int, bytes], tell: Callable[[str], None]
) -> dict[str, Any]:
    offset, kind, sequence, durable, now_ms, payload = frame
    found: dict[str, Any] = {"file": file.path, "offset": offset, "kind": FRAME_NAMES[kind], "sequence": sequence}
    found |= {"durable": durable, "ms": now_ms, "bytes": len(payload)}
    try:
        if kind == log_format.EFFECTS:
            found["records"] = [
                {"record": name, "db": db, "ms": ms, "key": shown(key), "arguments": shown(arguments)}
                for name, db, ms, key, arguments in records_of(now_ms, payload)
            ]
        elif kind in (log_format.VALUES, log_format.PART):
            store, part = values_of(kind, now_ms, payload, file.header.hash_seed)
            if part is not None:
                db, key, first, flags = part
                found |= {"db": db, "key": shown(key), "from": first, "first": bool(flags & 1), "last": bool(flags & 2)}
            found["keys"] = list(_keys_of(store))
    except RecordError as error:
        tell(f"{file.path} is damaged in the frame at byte {offset}: {error}.")
    return found


def state(path: str, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Every key of every shard at PATH with its value, as a start would have it; deadlines (unix ms) are `expires`. `tell` is
    told of each shard that does not load."""
    files = Files()
    for each in shard_directories(files, path):
        with _telling(files, each, tell):
            manifests.read(files, each)
            with _locked(files, each):
                store, _ = _loaded(files, each, manifests.read(files, each))
            yield from _keys_of(store)


def _keys_of(store: Store) -> Iterator[dict[str, Any]]:
    for db, _, _, _ in store.counts():
        keys = Keyspace(store, db)
        for key in sorted(keys.keys()):
            kind = keys.type_of(key)
            if kind is None:
                continue  # past its deadline
            found: dict[str, Any] = {"db": db, "key": shown(key), "type": kind}
            deadline = keys.deadline_of(key)
            if deadline is not None and deadline >= 0:
                found["expires"] = deadline
            yield found | _value_of(keys, key, kind)


def _stream_of(keys: Keyspace, key: bytes) -> dict[str, Any]:
    """Entries, what the stream says of itself, and its groups with what is pending in them."""
    stream = keys.stream_get(key)
    assert stream is not None
    groups = {
        name.decode(errors="backslashreplace"): {
            "last": id_text(group.last),
            "read": group.read,
            "consumers": [each.name for each in group.consumers.values()],
            "pending": [
                [id_text(number), each.consumer, each.delivered, each.count]
                for number, each in sorted(group.pending.items())
            ],
        }
        for name, group in (stream.groups or {}).items()
    }
    return {
        "entries": stream.range(0, 2**128 - 1),
        "last": id_text(stream.last_id),
        "added": stream.added,
        "deleted": id_text(stream.max_deleted_id),
        "groups": groups,
    }


def _value_of(keys: Keyspace, key: bytes, kind: str) -> dict[str, Any]:
    if kind == "string":
        return {"value": shown(keys.string_get(key))}
    if kind == "list":
        return {"value": shown(list(keys.list_get(key) or ()))}
    if kind == "set":
        table = keys.set_get(key)
        return {"value": shown(sorted(table.fields()) if table is not None else [])}
    if kind == "zset":
        scores = keys.zset_get(key)
        return {"value": shown([[member, score] for member, score in (scores.items() if scores is not None else ())])}
    if kind == "stream":
        return {"value": shown(_stream_of(keys, key))}
    fields = keys.hash_get(key)
    if fields is None:
        return {"value": []}
    found: dict[str, Any] = {"value": shown(sorted(map(list, fields.items())))}
    timed = [(field, fields.deadline_of(field)) for field in sorted(fields.fields())]
    expires = [[shown(field), deadline] for field, deadline in timed if deadline is not None and deadline >= 0]
    return found | ({"field_expires": expires} if expires else {})
