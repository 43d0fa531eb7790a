"""The crash simulator: a power cut behind every call to the file system, with every kind of loss that it may cause.

A shard writes its log under `always`, turns it over, dumps and swaps. From the calls it made, all directories are built that
could be found after a power cut, and each is loaded: what was acknowledged is there, what is there is a prefix in the order
of the writes, never a mix, and a second start finds the same.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crash_disk import Call, Disk, build
from log_files import SEED

from kache.commands import DIGEST
from kache.config.settings import Config
from kache.shard.engine.engine import Host, Keyspace, ShardReactor, Store
from kache.shard.log import manifest as manifests
from kache.shard.log.directory import sweep
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import HEADER_SIZE, LogError
from kache.shard.log.manifest import Manifest
from kache.shard.log.persistence import Identity, Persistence
from kache.shard.log.recovery import Recovery
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
IDENTITY = Identity(b"cluster of tests", 0, 1, SEED)
THOROUGH = bool(os.environ.get("KACHE_EXPLORE"))


class Recorded:
    """A shard with its persistence on files that record. Write n sets k and n:<n>; `acknowledged` is
    [(calls made by then, n)] of those that a client was told of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = ScriptedFiles()
        self.shard = Shard(now_ms=NOW)
        self.reactor = ShardReactor(asyncio.get_running_loop())
        self.host = Host(self.shard, self.reactor, DIGEST, 1, 2)
        config = Config(appendonly=True, appendfsync="always")
        self.persistence = Persistence(self.host, self.files, str(directory), IDENTITY, lambda: NOW, config)
        self.written = 0
        self.acknowledged: list[tuple[int, int]] = []

    def write(self, size: int = 10) -> None:
        """One more, in a frame of its own; nobody is told yet."""
        self.written += 1
        for key in (b"k", b"n:%d" % self.written):
            self.shard.execute([b"SET", key, b"%d" % self.written + b"." * size])
        self.host.commit()

    async def acknowledge(self) -> None:
        """Waits until everything written is durable, as a reply does."""
        writer = self.persistence.writer
        assert writer is not None
        wanted, number = writer.sequence, self.written
        writer.sync()
        while writer.durable < wanted:
            await asyncio.sleep(0.0005)
        self.acknowledged.append((len(self.files.record), number))


async def appends(shard: Recorded, draw: random.Random) -> None:
    for _ in range(8):
        for _ in range(draw.randint(1, 3)):
            shard.write(draw.choice((10, 500, 6000)))
        await shard.acknowledge()


async def dump_between(shard: Recorded, draw: random.Random) -> None:
    await appends(shard, draw)
    dump = asyncio.ensure_future(shard.persistence.dump())
    while not dump.done():
        shard.write(draw.choice((10, 3000)))
        await asyncio.sleep(0.001)
        if draw.random() < 0.3:
            await shard.acknowledge()
    await dump
    await appends(shard, draw)


async def second_life(shard: Recorded, draw: random.Random) -> None:
    """Ends, and begins again on the same files."""
    await appends(shard, draw)
    await shard.persistence.close()
    found = manifests.read(Files(), str(shard.directory))
    config = Config(appendonly=True, appendfsync="always")
    shard.persistence = Persistence(shard.host, shard.files, str(shard.directory), IDENTITY, lambda: NOW, config)
    await shard.persistence.begin(found, shard.written)
    await appends(shard, draw)


def recorded(directory: Path, scenario: Any, seed: int) -> tuple[list[Call], list[tuple[int, int]]]:
    """The calls of a scenario, and what was acknowledged when."""

    async def run() -> Recorded:
        shard = Recorded(directory)
        await shard.persistence.begin(None, 0)
        await scenario(shard, random.Random(seed))
        await shard.persistence.close()
        shard.reactor.close()
        return shard

    shard = asyncio.run(run())
    return shard.files.record, shard.acknowledged


def loaded(directory: Path) -> tuple[int, Manifest | None]:
    """How many writes are there, all of them whole and in order; the manifest to go on with."""
    files = Files()
    if not (directory / manifests.MANIFEST).exists() and not manifests.files_in(files, str(directory)):
        return 0, None  # the supervisor writes one before anybody comes here
    found = manifests.read(files, str(directory))
    sweep(files, str(directory), found)
    store = Store(SEED)
    recovery = Recovery(files, str(directory), store, found)
    try:
        while recovery.step(10**9):
            pass
    finally:
        recovery.close()
    keys = Keyspace(store, 0)
    value = keys.string_get(b"k")
    count = int(value.split(b".")[0]) if value else 0
    assert sorted(keys.keys()) == sorted([b"k", *(b"n:%d" % number for number in range(1, count + 1))] if count else [])
    return count, recovery.manifest_after()


@pytest.mark.parametrize("scenario", [appends, dump_between, second_life])
def test_a_power_cut_behind_every_call(tmp_path: Path, scenario: Any) -> None:
    directory = tmp_path / "shard"
    directory.mkdir()
    calls, acknowledged = recorded(directory, scenario, seed=7)
    draw = random.Random(8)
    disk, tried = Disk(str(directory)), 0
    step = 1 if THOROUGH else max(1, len(calls) // 30)
    for count in range(len(calls) + 1):
        if count:
            disk.do(calls[count - 1])
        if count % step and count != len(calls):
            continue
        promised = max([0, *(number for at, number in acknowledged if at <= count)])
        for contents in disk.outcomes(draw, 20 if THOROUGH else 2):
            found = tmp_path / "found"
            found.mkdir()
            build(found, contents, str(directory))
            there, manifest = loaded(found)
            assert there >= promised, f"behind call {count}, {calls[count - 1]}"
            if manifest is not None:
                manifests.write(Files(), str(found), msgspec.structs.replace(manifest, stopped_ms=1))
                assert loaded(found)[0] == there
            shutil.rmtree(found)
            tried += 1
    assert there == max(number for _, number in acknowledged)
    assert tried > 100 and len(calls) > 30


def test_the_simulator_sees_what_was_not_synced(tmp_path: Path) -> None:
    """A shard that acknowledges before it syncs is caught: the tests above could not fail otherwise."""
    directory = tmp_path / "shard"
    directory.mkdir()
    calls, acknowledged = recorded(directory, appends, seed=7)
    lost = False
    disk = Disk(str(directory))
    log = f"{directory}/000001.log"
    for call in calls:
        if call[0] == "fdatasync" and disk.is_open(call[1], log) and len(disk.entries[log].data) > HEADER_SIZE:
            continue
        disk.do(call)
    for contents in disk.outcomes(random.Random(1), 5):
        found = tmp_path / "found"
        found.mkdir()
        build(found, contents, str(directory))
        try:
            lost |= loaded(found)[0] < max(number for _, number in acknowledged)
        except LogError:
            lost = True  # the manifest has the length of a log that is shorter now
        shutil.rmtree(found)
    assert lost
