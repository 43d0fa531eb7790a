"""Another number of shards: what the old ones hold is divided anew, before any shard starts.

    epoch-1/shard-0000 ─┐                 ┌─ epoch-2.building/shard-0000/from-0000.base, from-0001.base
    epoch-1/shard-0001 ─┴─ a worker each ─┤  epoch-2.building/shard-0001/from-0000.base …
                                          └─ epoch-2.building/from-0000.done …

Each worker loads one old shard whole and writes of it a base for each new one. What it has done is noted when it is durable,
so that an interrupted division goes on where it was. When all are done the new shards get their manifests, the directory its
name, and the file `cluster` says that it counts; then the old files go. Until then they are only read.

Entered by the supervisor, by name: `divide` looks after the workers, each ``python -m kache.shard.log.repartition``.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from kache.cluster.resolution import Reported, Unfinished, resolve
from kache.cluster.transactions import Decision

from ..engine.engine import Store
from . import directory as directories
from . import format as log_format
from . import manifest as manifests
from .directory import ClusterFile, Lock, shard_directory
from .division import payloads
from .files import Files
from .format import FileHeader, LogError, check_of, frame, pack_header
from .manifest import BaseFile, Manifest
from .ownership import check_files, owner_in
from .recovery import Recovery, shares_of

__all__ = ["divide"]

log = logging.getLogger("kache")

BUILDING: Final = ".building"
STEP_NS: Final = 50_000_000
TELL_SECONDS: Final = 0.25
NICENESS: Final = 10
"""How much a worker stands back behind who serves."""
MARGIN: Final = 16 << 20
"""Bytes of room that have to be left beside the new files."""

Pairs = list[tuple[int, int]]


def divide(
    files: Files,
    path: str,
    old: ClusterFile,
    new: ClusterFile,
    always: bool,
    strict: bool,
    tell: Callable[[int, int], None],
) -> None:
    """What lies in `path` belongs to `new` from here on, its `cluster` file too; LogError says why it cannot.

    `strict`: a log that ends torn is refused, as its shard would refuse it. `tell` is called now and then with (bytes done, bytes of all).
    """
    target = f"{path}/epoch-{new.epoch}"
    building = target + BUILDING
    for shard in range(old.shards):  # before room is asked for, or anything made
        source = shard_directory(path, old.epoch, shard)
        check_files(files, source, manifests.read(files, source), owner_in(old, shard))
    sizes = [_size(files, shard_directory(path, old.epoch, shard)) for shard in range(old.shards)]
    _prepare(files, path, old, new, sizes)
    decisions = _decisions(files, path, old, always, building)
    _work(files, path, old, new, decisions, strict, sizes, tell)
    for shard in range(new.shards):
        _name(files, building, shard, old)
    if files.exists(target):
        _remove(files, target)  # from a division whose end nobody saw
    files.rename(building, target)
    files.fsync_dir(path)
    directories.write_cluster(files, path, new)
    directories.write_unfinished(files, path, new.epoch, None)
    _remove(files, f"{path}/epoch-{old.epoch}")


def clean(files: Files, path: str, epoch: int) -> None:
    """Removes what belongs to no epoch that counts: what an interrupted division has left, or the old files after one."""
    for name in files.list(path):
        if name.startswith("epoch-") and name != f"epoch-{epoch}":
            _remove(files, f"{path}/{name}")


# Before -----------------------------------------------------------------------------------------------------
def _size(files: Files, path: str) -> int:
    names = files.list(path) if files.exists(path) else []
    return sum(files.size(f"{path}/{name}") for name in names)


def _prepare(files: Files, path: str, old: ClusterFile, new: ClusterFile, sizes: list[int]) -> None:
    """The directory for the new files; what another plan has left in it is removed. LogError without room for them."""
    building = f"{path}/epoch-{new.epoch}{BUILDING}"
    plan = _plan(files, path, old, new)
    if files.exists(building):
        known = files.read_all(f"{building}/plan") if files.exists(f"{building}/plan") else b""
        if known != plan:
            _remove(files, building)
    if not files.exists(building):
        room = files.room(path)
        if room < sum(sizes) + MARGIN:
            raise LogError(
                f"Dividing the data in {path} over {new.shards} shards needs {(sum(sizes) + MARGIN) >> 20} MiB beside it, "
                f"and there are {room >> 20}: make room, or start with --shards {old.shards}.",
                path,
            )
        directories.make(files, building)
    for shard in range(new.shards):
        directories.make(files, f"{building}/shard-{shard:04}")
    if not files.exists(f"{building}/plan"):
        files.replace(f"{building}/plan", plan)


def _plan(files: Files, path: str, old: ClusterFile, new: ClusterFile) -> bytes:
    """From what to what: the same as long as nobody has changed the old files."""
    found: list[Any] = [old.epoch, list(map(list, new.slots))]
    for shard in range(old.shards):
        directory = shard_directory(path, old.epoch, shard)
        name = f"{directory}/{manifests.MANIFEST}"
        found.append([check_of(files.read_all(name)) if files.exists(name) else 0, _size(files, directory)])
    return json.dumps(found).encode()


def _decisions(files: Files, path: str, old: ClusterFile, always: bool, building: str) -> dict[int, Decision]:
    """What of transactions over the old shards counts: decided once, whatever happens to what is divided meanwhile."""
    name = f"{building}/decisions"
    if not files.exists(name):
        reports = {}
        for shard in range(old.shards):
            directory = shard_directory(path, old.epoch, shard)
            found = manifests.read(files, directory)
            directories.sync(files, directory, found)
            shares, newest = shares_of(files, directory, found), found.next_number() - 1
            reports[shard] = Reported(shares, found.resolved, newest)
        earlier = directories.read_unfinished(files, path, old.epoch)
        files.replace(name, msgspec.json.encode(resolve(reports, old.shards, always, earlier, 1)))
    decided = msgspec.json.decode(files.read_all(name, files.size(name)), type=Unfinished)
    return {shard: order.decision for shard, order in decided.orders.items()}


# The workers ------------------------------------------------------------------------------------------------
def _work(
    files: Files,
    path: str,
    old: ClusterFile,
    new: ClusterFile,
    decisions: dict[int, Decision],
    strict: bool,
    sizes: list[int],
    tell: Callable[[int, int], None],
) -> None:
    building = f"{path}/epoch-{new.epoch}{BUILDING}"
    waiting = [shard for shard in range(old.shards) if not files.exists(f"{building}/from-{shard:04}.done")]
    done = {shard: sizes[shard] for shard in range(old.shards) if shard not in waiting}
    running: dict[int, subprocess.Popen[str]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                shard = waiting.pop(0)
                running[shard] = _start(path, old, new, shard, decisions.get(shard, Decision()), strict)
            for shard, worker in list(running.items()):
                assert worker.stdout is not None
                line = worker.stdout.readline()
                if line.startswith("done "):
                    done[shard] = min(int(line.split()[1]), sizes[shard])
                elif not line:
                    error = worker.communicate()[1].strip()
                    del running[shard]
                    if worker.returncode:
                        raise LogError(error.splitlines()[-1] if error else f"dividing shard {shard} has failed", path)
                    for warning in error.splitlines():
                        log.warning("shard %d of before: %s", shard, warning)
                    done[shard] = sizes[shard]
            tell(sum(done.values()), sum(sizes))
    finally:
        for worker in running.values():
            worker.kill()
            worker.communicate()


def _start(
    path: str, old: ClusterFile, new: ClusterFile, shard: int, decision: Decision, strict: bool
) -> subprocess.Popen[str]:
    told = {
        "path": path,
        "shard": shard,
        "epochs": [old.epoch, new.epoch],
        "slots": new.slots,
        "shards": new.shards,
        "cluster": new.cluster.hex(),
        "seed": new.hash_seed.hex(),
        "skip": decision.skip,
        "cut_at": decision.cut_at,
        "strict": strict,
        "parent": os.getpid(),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "kache.shard.log.repartition", json.dumps(told)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _divide_one(files: Files, told: dict[str, Any], say: Callable[[int], None]) -> None:
    """One old shard: loaded, and written as a base for each new one."""
    path, shard, (before, after) = told["path"], told["shard"], told["epochs"]
    source = shard_directory(path, before, shard)
    building = f"{path}/epoch-{after}{BUILDING}"
    made: list[list[Any]] = []
    manifests.read(files, source)  # one that is gone has no lock either
    lock = Lock(files, source)
    try:
        store = _load(files, source, told, say)
    finally:
        lock.release()
    now_ms = time.time_ns() // 1_000_000
    for target in range(told["shards"]):
        slots = [(first, last) for first, last, owner in told["slots"] if owner == target]
        found = _write(files, f"{building}/shard-{target:04}", target, slots, store, told, now_ms)
        if found is not None:
            made.append([target, *found])
    for target in {each[0] for each in made}:
        files.fsync_dir(f"{building}/shard-{target:04}")
    files.replace(f"{building}/from-{shard:04}.done", json.dumps(made).encode())


def _load(files: Files, source: str, told: dict[str, Any], say: Callable[[int], None]) -> Store:
    store = Store(bytes.fromhex(told["seed"]))
    found = manifests.read(files, source)
    if found.stopped_ms:
        print(manifests.missing_since(found), file=sys.stderr)
    recovery = Recovery(files, source, store, found, strict=told["strict"], skip=told["skip"], cut_at=told["cut_at"])
    told_at = time.monotonic()
    try:
        while recovery.step(STEP_NS):
            if time.monotonic() - told_at > TELL_SECONDS:
                told_at = time.monotonic()
                say(recovery.done)
    finally:
        recovery.close()
    if recovery.cut is not None:
        print(f"{recovery.cut}; they are left out", file=sys.stderr)
    return store


def _write(
    files: Files, directory: str, target: int, slots: Pairs, store: Store, told: dict[str, Any], now_ms: int
) -> tuple[str, int, str] | None:
    """(name, bytes, salt) of a base with what the store has in these slots; None if that is nothing."""
    values = payloads(store, slots, now_ms)
    first = next(values, None)
    if first is None:
        return None
    salt = secrets.token_bytes(16)
    header = FileHeader(
        kind=log_format.BASE, salt=salt, cluster=bytes.fromhex(told["cluster"]), shard=target, shards=told["shards"],
        number=told["shard"] + 1, first=0, created_ms=now_ms, hash_seed=bytes.fromhex(told["seed"]),
    )  # fmt: skip
    name = f"from-{told['shard']:04}.base"
    fd = files.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        size, frames = _append(files, fd, pack_header(header), 0), 0
        payload: bytes | None = first
        while payload is not None:
            size = _append(files, fd, frame(log_format.VALUES, payload, 0, salt, size, now_ms=now_ms), size)
            frames += 1
            payload = next(values, None)
        end = bytes(8) + frames.to_bytes(8, "little")
        size = _append(files, fd, frame(log_format.BASE_END, end, 0, salt, size, now_ms=now_ms), size)
        files.fdatasync(fd)
    finally:
        files.close(fd)
    return name, size, salt.hex()


def _append(files: Files, fd: int, data: bytes, size: int) -> int:
    files.write(fd, data)
    return size + len(data)


# Behind -----------------------------------------------------------------------------------------------------
def _name(files: Files, building: str, shard: int, old: ClusterFile) -> None:
    """The manifest of a new shard: a base of each old one, of the slots that were that one's and are its own."""
    bases = []
    for source in range(old.shards):
        for target, name, size, salt in json.loads(files.read_all(f"{building}/from-{source:04}.done")):
            if target == shard:
                slots = tuple((first, last) for first, last, owner in old.slots if owner == source)
                bases.append(BaseFile(source + 1, name, size, 0, 0, salt, slots))
    manifests.write(files, f"{building}/shard-{shard:04}", Manifest(tuple(bases)))


def _remove(files: Files, path: str) -> None:
    """A directory with everything in it."""
    for name in files.list(path):
        each = f"{path}/{name}"
        if os.path.isdir(each) and not os.path.islink(each):
            _remove(files, each)
        else:
            files.unlink(each)
    files.rmdir(path)


def _main(arguments: Sequence[str]) -> int:
    from kache.cluster import processes

    told = json.loads(arguments[0])
    processes.set_title(f"kache: repartition of shard {told['shard']}")
    processes.die_with_parent(told["parent"])
    os.nice(NICENESS)
    try:
        _divide_one(Files(), told, lambda done: print(f"done {done}", flush=True))
    except (LogError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
