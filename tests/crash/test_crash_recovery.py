"""The crash simulator over recovery itself: a start on what a power cut has left is cut short by another one.

The start sweeps, loads, syncs, names a new log and goes on. Behind every one of its calls the power may fail again: what the
first start found is there at the second, what was acknowledged since too, and nothing else.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest
from crash_disk import Disk, build
from test_crash import NOW, THOROUGH, Recorded, appends, dump_between, loaded, recorded

from kache.cluster.messages import Resolved
from kache.config.settings import Config
from kache.shard.log.ownership import Owner
from kache.shard.service.loading import Loader


def left_behind(directory: Path, count: int) -> list[dict[str, bytes]]:
    """Directories that a power cut may leave, from all over a life with a dump in it; drawn, torn ends among them."""
    directory.mkdir()
    calls, _ = recorded(directory, dump_between, seed=3)
    draw = random.Random(5)
    disk, found = Disk(str(directory)), []
    for number, call in enumerate(calls):
        disk.do(call)
        if number > 10:
            found += list(disk.outcomes(draw, 1))
    shutil.rmtree(directory)
    return draw.sample(found, count)


def started(directory: Path) -> Recorded:
    """The start on this directory, its first writes, and its end."""

    async def run() -> Recorded:
        shard = Recorded(directory)
        config = Config(appendonly=True, appendfsync="always")
        owner = Owner(b"cluster of tests", 0, 1, ((0, 16383),))
        loader = Loader(shard.files, str(directory), owner, shard.shard.store, config, lambda _: None)
        loader.resolved(Resolved([], 0, []))
        there = await loader.run(lambda: NOW)
        shard.written = there.sequence
        await shard.persistence.begin(there.manifest, there.sequence, there.number)
        await appends(shard, random.Random(1))
        await shard.persistence.close()
        there.lock.release()
        shard.reactor.close()
        return shard

    return asyncio.run(run())


@pytest.mark.parametrize("number", range(40 if THOROUGH else 5))
def test_a_power_cut_behind_every_call_of_a_start(tmp_path: Path, number: int) -> None:
    directory = tmp_path / "shard"
    contents = left_behind(directory, 40)[number]
    build(directory, contents, str(directory))
    directory.mkdir(exist_ok=True)
    first, _ = loaded(directory)
    shutil.rmtree(directory)
    build(directory, contents, str(directory))
    directory.mkdir(exist_ok=True)
    shard = started(directory)
    calls, acknowledged = shard.files.record, shard.acknowledged
    assert acknowledged[0][1] > first
    draw = random.Random(8)
    disk = Disk.of(str(directory), contents)
    tried, step = 0, 1 if THOROUGH else max(1, len(calls) // 30)
    for count in range(len(calls) + 1):
        if count:
            disk.do(calls[count - 1])
        if count % step and count > 12:
            continue
        promised = max([first, *(each for at, each in acknowledged if at <= count)])
        for outcome in disk.outcomes(draw, 10 if THOROUGH else 2):
            found = tmp_path / "found"
            found.mkdir()
            build(found, outcome, str(directory))
            there, _ = loaded(found)
            assert there >= promised, f"behind call {count}, {calls[count - 1]}"
            shutil.rmtree(found)
            tried += 1
    assert there == acknowledged[-1][1]
    assert tried > 100
